//! The page with pictures, of real runs, in a real browser: Chromium without a head.

mod util;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{channel, Receiver};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use util::http::metrics_of;
use util::link::Link;
use util::{need, program, text, Dir, Node, Process};

/// Returns the document of an address after `millis` of Chromium's own time, and its console.
#[track_caller]
fn browse(dir: &Dir, address: &str, millis: u32) -> (String, Vec<String>) {
    let profile = dir.file("profile");
    let output = Command::new(need("chromium"))
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args([
            "--no-first-run",
            "--disable-background-networking",
            "--disable-sync",
        ])
        .args([
            "--disable-component-update",
            "--disable-dev-shm-usage",
            "--mute-audio",
        ])
        // Whatever it wants from elsewhere is an error that shows.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        .args(["--enable-logging=stderr", "--dump-dom"])
        .arg(format!("--virtual-time-budget={millis}"))
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(address)
        .env("HOME", &dir.0)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let console = stderr.lines().filter(|line| line.contains("CONSOLE"));
    (text(&output.stdout), console.map(str::to_owned).collect())
}

/// A chain A - B - C - Z with a link before each of B, C and Z.
struct Chain {
    links: [Link; 3],
    _nodes: [Node; 3],
}

impl Chain {
    fn start() -> Self {
        let delay = |micros| Duration::from_micros(micros);
        let z = Node::start("Z", &["--add-static-tags", "rack=12"]);
        let to_z = Link::start(z.address, delay(500)).unwrap();
        let c = Node::to("C", to_z.address, &[]);
        let to_c = Link::start(c.address, delay(900)).unwrap();
        let b = Node::to("B", to_c.address, &[]);
        let to_b = Link::start(b.address, delay(300)).unwrap();
        Self {
            links: [to_b, to_c, to_z],
            _nodes: [b, c, z],
        }
    }

    fn probe(&self, args: &[&str]) -> Process {
        let entry = self.links[0].address.to_string();
        let mut command = program();
        command.args(["probe", &entry, "--node", "A"]).args(args);
        Process::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))
    }
}

/// Nothing ends this wait but its time: what is drawn is a change over time.
fn pass(span: Duration) {
    let (_keep, never) = channel::<()>();
    let _ = never.recv_timeout(span);
}

/// Two runs at a time would measure each other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A page of a run of 4 s in which B -> C is slowed by 20 ms soon after its first half, the
/// baseline, has passed. Where the rest of the machine is in the way, which the verdict then shows,
/// it is repeated with twice of both: batches of time are longer, and what stands out is larger.
/// `STS_PAGE_SECONDS` makes it longer, `STS_PAGE_KEEP=FILE` keeps it, to look at it.
#[track_caller]
fn slowed(dir: &Dir) -> PathBuf {
    let seconds = std::env::var("STS_PAGE_SECONDS").map_or(4, |text| text.parse().unwrap());
    let (page, rules) = (dir.file("page.html"), dir.file("rules"));
    // Of the whole run, which decides at its end, fewer than half of the blocks are slow ones.
    let rule = "segment B->C round_trip p90 > 12ms critical ask load at B,C\n";
    std::fs::write(&rules, rule).unwrap();
    let files = [
        ["--rules", rules.to_str().unwrap()],
        ["--report-html", page.to_str().unwrap()],
    ];
    for doubled in 0..5 {
        let blocks: usize = (seconds * 100) << doubled;
        let count = blocks.to_string();
        let args = ["-c", &count, "-i", "0.01", "--format", "jsonl"];
        let chain = Chain::start();
        let mut probe = chain.probe(&[&args[..], files.as_flattened()].concat());
        let mut answers = BufReader::new(probe.stdout()).lines().map(Result::unwrap);
        // The answers to a twentieth more than the baseline holds.
        answers.nth(blocks / 2 + blocks / 20).unwrap();
        let delay = Duration::from_millis(20 << doubled);
        chain.links[1].forward.set_delay(delay);
        assert!(answers.count() > 0, "it ended too early");
        let status = probe.wait();
        // Beyond its limit.
        assert_eq!(status.code(), Some(2), "{:?}", probe.stderr());
        if let Some(keep) = std::env::var_os("STS_PAGE_KEEP") {
            std::fs::copy(&page, keep).unwrap();
        }
        if read(&page).contains("<h1>B \u{2192} C adds") {
            return page;
        }
        let html = read(&page);
        let verdict = html.split("<h1>").nth(1).unwrap_or(&html);
        let verdict = verdict.split("</header>").next().unwrap();
        println!("not in a run of {count} blocks: {verdict}");
    }
    panic!("in none of 5 runs B -> C stands out");
}

fn read(page: &Path) -> String {
    std::fs::read_to_string(page).unwrap()
}

#[test]
fn the_page_of_a_slowed_path_names_the_segment_and_a_browser_finds_no_fault() {
    let _alone = alone();
    let dir = Dir::new("page");
    let page = slowed(&dir);
    let html = read(&page);
    assert!(html.len() < 200_000, "{} bytes", html.len());
    let named = "<div class=\"row named\"><div class=\"n\">B \u{2192} C</div>";
    assert_eq!(html.matches(named).count(), 3, "in every picture");
    for part in [
        "B \u{2192} C adds the delay: +",
        "forward direction",
        "rack=12",
        "Over time",
        "critical 12 ms",
        "load1",
    ] {
        assert!(html.contains(part), "{part:?} is missing");
    }
    let events = html.split("<ol>").nth(1).unwrap();
    let mut events: Vec<_> = events
        .split("</ol>")
        .next()
        .unwrap()
        .split("<li>")
        .collect();
    let count = events.len();
    events.dedup_by_key(|event| event.rsplit(": ").next().unwrap().to_owned());
    assert_eq!(events.len(), count, "an event twice: {events:?}");
    let (dom, console) = browse(&dir, &format!("file://{}", page.display()), 500);
    assert_eq!(console, [""; 0]);
    // A browser that had to mend the page would have another count.
    for tag in ["<svg", "<section", "<path", "<tr", "<line"] {
        assert_eq!(dom.matches(tag).count(), html.matches(tag).count(), "{tag}");
    }

    // On a phone: the page in a frame as wide as that, without the policy that forbids to look into
    // it.
    let policy = html
        .split("<meta http-equiv=\"Content-Security-Policy\"")
        .nth(1)
        .unwrap();
    let policy = policy.split('>').next().unwrap();
    let open = html
        .replace(policy, "")
        .replace('&', "&amp;")
        .replace('"', "&quot;");
    let phone = dir.file("phone.html");
    let script = "onload = () => { const page = document.querySelector('iframe').contentDocument; \
        const root = page.documentElement; \
        document.title = 'width ' + root.scrollWidth + ' of ' + root.clientWidth; }";
    let frame = format!(
        "<!DOCTYPE html><meta charset=utf-8><iframe \
         style=\"width:390px;height:800px;border:0\" srcdoc=\"{open}\"></iframe>\
         <script>{script}</script>"
    );
    std::fs::write(&phone, frame).unwrap();
    let (dom, _) = browse(&dir, &format!("file://{}", phone.display()), 500);
    let title = dom
        .split("<title>")
        .nth(1)
        .and_then(|rest| rest.split('<').next());
    let title = title.unwrap_or_else(|| panic!("no title in {dom}"));
    let (width, of) = title
        .trim_start_matches("width ")
        .split_once(" of ")
        .unwrap();
    assert_eq!(width, of, "the page scrolls sideways on a phone");
    assert!(of.parse::<u32>().unwrap() <= 390, "{title}");
}

#[test]
fn nodes_that_listen_write_pages_too() {
    let _alone = alone();
    let dir = Dir::new("page-node");
    let (echo_page, relay_page) = (dir.file("echo.html"), dir.file("relay.html"));
    let mut z = Node::start("Z", &["--report-html", echo_page.to_str().unwrap()]);
    let mut b = Node::to(
        "B",
        z.address,
        &["--report-html", relay_page.to_str().unwrap()],
    );
    let target = b.address.to_string();
    let output = util::run(&["probe", &target, "-c", "20", "-i", "0.01"]);
    assert!(output.status.success());
    assert!(b.process.stop().0.success() && z.process.stop().0.success());
    assert!(read(&echo_page).contains("All figures"));
    // A relay sees the round trip to what is downstream.
    assert!(read(&relay_page).contains("B \u{2192} Z"));
}

/// Passes requests on to `target`; yields the path of each and the blocks that the response
/// counted.
fn watch_requests(target: SocketAddr) -> (SocketAddr, Receiver<(String, u64)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, asked) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut near = stream.unwrap();
            let mut request = [0; 4096];
            let read = near.read(&mut request).unwrap();
            let line = text(&request[..read]);
            let path = line.split(' ').nth(1).unwrap_or("").to_owned();
            let mut far = TcpStream::connect(target).unwrap();
            far.write_all(&request[..read]).unwrap();
            let mut answer = Vec::new();
            far.read_to_end(&mut answer).unwrap();
            // Before the browser has it: afterwards it may be at its end before this thread goes
            // on.
            if sender.send((path, answered(&text(&answer)))).is_err() {
                return;
            }
            // A browser that is at its end takes no more.
            let _ = near.write_all(&answer);
        }
    });
    (address, asked)
}

/// The count in `Answered`; 0 where it is missing.
fn answered(page: &str) -> u64 {
    let count = page.split("<dt>Answered</dt><dd>").nth(1);
    let count = count.and_then(|rest| rest.split(' ').next()?.parse().ok());
    count.unwrap_or(0)
}

#[test]
fn the_live_page_renews_itself_in_the_browser_and_asks_for_nothing_else() {
    let _alone = alone();
    let dir = Dir::new("page-live");
    let chain = Chain::start();
    let mut probe = chain.probe(&["-c", "0", "-i", "0.01", "--metrics-listen", "127.0.0.1:0"]);
    let (address, asked) = watch_requests(metrics_of(&mut probe));
    // So that there is something to be drawn.
    pass(Duration::from_secs(1));
    let (dom, console) = browse(&dir, &format!("http://{address}/"), 9_000);
    assert_eq!(console, [""; 0]);
    let asked: Vec<_> = asked.try_iter().collect();
    assert!(asked.len() >= 3, "{asked:?}");
    assert!(asked.iter().all(|(path, _)| path == "/"), "{asked:?}");
    let (first, shown) = (asked[0].1, answered(&dom));
    assert!(first > 0 && shown > first, "{shown} is shown of {asked:?}");
    assert!(
        asked.iter().any(|(_, count)| *count == shown),
        "{shown} is shown of {asked:?}"
    );
    assert!(dom.contains("id=\"stale\" hidden"), "it is marked as old");
    for part in [
        "The path, to scale",
        "Over time",
        "How delays are distributed",
    ] {
        assert!(dom.contains(part), "{part}");
    }
    assert_eq!(probe.stop().0.code(), Some(0));
}
