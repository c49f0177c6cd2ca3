"use strict";
const warn = document.getElementById("stale");
async function next() {
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("main");
    if (!answer.ok || !fresh) throw answer.status;
    const old = document.querySelector("main");
    const left = Array.from(old.querySelectorAll(".scroll"), (box) => box.scrollLeft);
    old.replaceWith(fresh);
    fresh.querySelectorAll(".scroll").forEach((box, i) => { box.scrollLeft = left[i] || 0; });
    document.title = page.title;
    warn.hidden = true;
  } catch (error) {
    warn.hidden = false;
  }
  setTimeout(next, 2000);
}
setTimeout(next, 2000);
