//! The editor of the HTTP heads of one connection, which its two pumps share.

use crate::http::edit::{Addition, EditableHead, Editor, PassReason};
use crate::http::head::MessageKind;
use crate::measure::Trip;
use crate::node::Node;
use crate::session::path;
use crate::session::server_timing::{token, RequestTimes};
use crate::sync::lock;
use crate::sys;
use crate::time::MonoTime;
use crate::wire::Annotations;
use std::sync::Mutex;

/// The fields that a node adds to heads of HTTP.
#[derive(Clone, Debug, Default)]
pub struct HttpFields {
    /// `--http-write`: fields of requests to which it appends its name and time.
    pub write: Vec<String>,
    /// `--server-timing`: responses have the delays of their path.
    pub server_timing: bool,
}

impl HttpFields {
    /// Returns `true` if there is one.
    pub fn any(&self) -> bool {
        !self.write.is_empty() || self.server_timing
    }
}

/// The editor, and the times of the requests under way.
#[derive(Debug)]
struct EditState {
    editor: Editor,
    /// `None` without `--server-timing`.
    times: Option<RequestTimes>,
}

/// The shared editor of a connection.
#[derive(Debug)]
pub struct HttpEditor(Mutex<EditState>);

impl HttpEditor {
    /// An editor at the first byte of a connection. A node at an end of a chain with
    /// `--server-timing` knows the names by [`names`](Self::names).
    pub fn new(fields: &HttpFields) -> Self {
        // With `--server-timing` a request's head waits too, and so leaves as one block, which has
        // the stamps: a browser's does not fit into the first reads of a connection.
        Self(Mutex::new(EditState {
            editor: Editor::new(fields.any(), fields.server_timing),
            times: fields.server_timing.then(RequestTimes::default),
        }))
    }

    /// Returns `true` if heads of this direction are edited.
    pub fn holds(&self, kind: MessageKind) -> bool {
        lock(&self.0).editor.holds(kind)
    }

    /// Takes bytes of a direction. Appends those that may leave now to `out`, if heads of this
    /// direction are edited. Returns `true` if a head waits for its end.
    pub fn feed(&self, node: &Node, kind: MessageKind, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let mut state = lock(&self.0);
        let EditState { editor, times } = &mut *state;
        editor.feed(kind, bytes, out, |head| match kind {
            MessageKind::Request => {
                if let Some(times) = times {
                    times.begin(head.number);
                }
                stamps(node, &head)
            }
            MessageKind::Response => {
                let ended = times.as_mut().map(|times| {
                    let now = sys::clock::mono();
                    times.end(head.number, now)
                });
                timing(ended.flatten())
            }
        });
        let is_holding = editor.is_holding(kind);
        if let (Some(times), MessageKind::Response, false) = (times, kind, is_holding) {
            times.forget_answer();
        }
        is_holding
    }

    /// Ends the wait of a head, which passes as it is.
    pub fn give_up(&self, kind: MessageKind, reason: PassReason, out: &mut Vec<u8>) {
        lock(&self.0).editor.give_up(kind, reason, out);
    }

    /// Takes the reason for which the connection passes unchanged from now on, once.
    pub fn take_reason(&self) -> Option<PassReason> {
        lock(&self.0).editor.take_reason()
    }

    /// Returns `true` if the connection passes unchanged from now on.
    pub fn passes(&self) -> bool {
        lock(&self.0).editor.passes()
    }

    /// Returns `true` if a request waits for the block that it begins.
    pub fn awaits_block(&self) -> bool {
        let state = lock(&self.0);
        state.times.as_ref().is_some_and(RequestTimes::awaits_block)
    }

    fn times(&self, update: impl FnOnce(&mut RequestTimes)) {
        if let Some(times) = &mut lock(&self.0).times {
            update(times);
        }
    }

    /// Takes the block of the requests that wait for one: its time, and its number if it is marked.
    pub fn block(&self, at: MonoTime, marked: Option<u64>) {
        self.times(|times| times.block(at, marked));
    }

    /// Takes the introductions of the nodes of the path.
    pub fn names(&self, annotations: Annotations<'_>) {
        self.times(|times| {
            let nodes = path::nodes(annotations).into_iter();
            times.name(nodes.map(|(hop, info)| (hop, info.name)).collect());
        });
    }

    /// Takes the stamps of a block and of its answer, which came back at `at`. The bytes of that
    /// are fed next.
    #[inline(never)]
    pub fn answer(&self, trip: &Trip, at: MonoTime) {
        self.times(|times| {
            if let Ok(parts) = trip.split() {
                times.answer(trip.sequence, &parts, at);
            }
        });
    }

    /// Takes the answer, read at `now`, to a block that a plain proxy called `name` sent at `sent`.
    /// Its bytes are fed next.
    #[inline(never)]
    pub fn answered(&self, name: &str, block: u64, sent: MonoTime, now: MonoTime) {
        self.times(|times| times.answer_to_proxy(block, name, sent, now));
    }
}

/// Returns the stamps of a request.
fn stamps<'n>(node: &'n Node, head: &EditableHead<'_>) -> Vec<Addition<'n>> {
    let fields = &node.settings.http.write;
    if fields.is_empty() {
        return Vec::new();
    }
    let name = token(&node.settings.name);
    let nanos = sys::clock::read().wall.0;
    let (seconds, micros) = (nanos / 1_000_000_000, nanos % 1_000_000_000 / 1_000);
    let version = if head.is_1_0() { "1.0" } else { "1.1" };
    let addition = |field: &'n String| Addition {
        element: match field.eq_ignore_ascii_case("via") {
            true => format!("{version} {name}"),
            false => format!("{name} t={seconds}.{micros:06}"),
        },
        name: field,
        joins: true,
    };
    fields.iter().map(addition).collect()
}

/// Returns the field of a response with the delays of its request.
fn timing<'n>(value: Option<String>) -> Vec<Addition<'n>> {
    let addition = value.map(|element| Addition {
        name: "Server-Timing",
        element,
        // The server's own value may be malformed.
        joins: false,
    });
    addition.into_iter().collect()
}
