//! The answers of this node to requests for annotations, and the two threads that read their
//! sources.
//!
//! A pump reads no file. It answers the request of a block with what was read last, and notes the
//! request only after the block was sent. The thread `annotate` then reads the sources anew, each
//! at most every 100 ms. The class `snmp` has its own thread, so that a silent agent delays nothing
//! else. A request starts both, and they end after ten seconds without one. So the answer to a
//! first request comes in the next block. The pump itself reads the state of its two connections,
//! after the send, for the next block: `TCP_INFO` is a call that never waits for a peer. A block
//! without a request costs none of this.

use super::procfs::Reader;
use super::snmp::Agent;
use super::{tcp, Readings};
use crate::annotation::{AnnotationReader, AnnotationValue, ClassRow, Classes, HostAnnotation};
use crate::sync::channel::{channel, Receiver, Sender};
use crate::sync::{lock, random, spawn, STACK};
use crate::sys;
use crate::time::{MonoTime, Nanos};
use crate::wire::values::emit_values;
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The shortest time between two readings of a source.
const SHORTEST: Nanos = Nanos::from_millis(100);
/// The greatest age at which a reading from before a request still answers it.
const FRESH: Nanos = Nanos::from_millis(1000);
/// The time after which the answer reports a source as slow. An agent has a timeout of one second
/// before that.
const SLOW: Nanos = Nanos::from_millis(1200);
/// The time without a request after which a thread ends.
const IDLE: Duration = Duration::from_secs(10);

/// The annotations that a node offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The classes of `--annotate`.
    pub classes: Classes,
    /// The agent of `--snmp`; `None` if there is none.
    pub agent: Option<Agent>,
}

/// The readings of a node and the threads that refresh them, shared by its pumps.
#[derive(Debug)]
pub struct Annotator {
    offer: Offer,
    local: Worker,
    agent: Worker,
    slots: Arc<Mutex<[Slot; Classes::ALL.len()]>>,
    tags: Vec<String>,
    /// Outlives its thread: a share of time lies between two readings.
    reader: Arc<Mutex<Reader>>,
    overflowed: AtomicBool,
}

/// The state of one class.
#[derive(Debug, Default)]
struct Slot {
    read: Option<Section>,
    /// Time of the request that has no answer yet.
    since: Option<MonoTime>,
}

/// The annotations of one class.
#[derive(Clone, Debug)]
struct Section {
    at: MonoTime,
    /// As [`emit_values`] encodes them.
    annotations: Arc<[u8]>,
}

/// A thread that reads when it is woken.
#[derive(Debug, Default)]
struct Worker(Arc<Mutex<Wanted>>);

#[derive(Debug, Default)]
struct Wanted {
    classes: Classes,
    /// `None` while there is no thread.
    wake: Option<Sender<()>>,
}

impl Annotator {
    /// Returns an annotator without readings; no thread is started yet.
    pub fn new(offer: Offer, tags: Vec<String>) -> Self {
        Self {
            offer,
            local: Worker::default(),
            agent: Worker::default(),
            slots: Arc::default(),
            tags,
            reader: Arc::new(Mutex::new(Reader::new("/proc".into()))),
            overflowed: AtomicBool::new(false),
        }
    }

    /// Returns `true` once: when a block first had no room for all annotations.
    pub fn first_overflow(&self) -> bool {
        !self.overflowed.swap(true, Ordering::Relaxed)
    }

    /// Has those of `classes` read that were neither read nor requested within the last 100 ms.
    fn request(&self, classes: Classes, now: MonoTime) {
        let (mut local, mut agent) = (Classes(0), Classes(0));
        for (slot, row) in lock(&self.slots).iter_mut().zip(&Classes::ALL) {
            let last = slot.read.as_ref().map(|section| section.at);
            let is_young = last.is_some_and(|last| now.since(last) < SHORTEST);
            if !classes.contains(row.class) || is_young || slot.since.is_some() {
                continue;
            }
            let is_offered = self.offer.classes.contains(row.class);
            let worker = match row.reader {
                AnnotationReader::TcpInfo if is_offered => continue, // The pumps read it.
                AnnotationReader::Agent if is_offered && self.offer.agent.is_some() => &mut agent,
                AnnotationReader::TcpInfo
                | AnnotationReader::Agent
                | AnnotationReader::Procfs(_)
                | AnnotationReader::Tags => &mut local,
            };
            slot.since = Some(now);
            *worker = worker.union(row.class);
        }
        let read_locally = self.local.want(local, "annotate", || {
            let (offer, tags) = (self.offer.clone(), self.tags.clone());
            let reader = Arc::clone(&self.reader);
            self.reading(move |row| read_local(&offer, &tags, &mut lock(&reader), row))
        });
        let asked = self.agent.want(agent, "snmp", || {
            let agent = self.offer.agent.clone();
            let mut id = random() as i32;
            self.reading(move |row| {
                id = id.wrapping_add(1) & i32::MAX;
                read_agent(agent.as_ref(), id, row)
            })
        });
        for (classes, outcome) in [(local, read_locally), (agent, asked)] {
            if let Err(error) = outcome {
                self.fail(classes, &format!("cannot start a thread: {error}"), now);
            }
        }
    }

    /// Puts an error in the place of the readings of a thread that could not be started.
    #[cold]
    fn fail(&self, classes: Classes, text: &str, now: MonoTime) {
        let mut slots = lock(&self.slots);
        for (slot, row) in slots.iter_mut().zip(&Classes::ALL) {
            if classes.contains(row.class) {
                slot.read = Some(failure(row.word, text.into(), now));
                slot.since = None;
            }
        }
    }

    /// Returns `true` if `classes` has one that a pump reads itself, and this node offers it.
    fn wants_tcp_info(&self, classes: Classes) -> bool {
        classes
            .intersection(self.offer.classes)
            .contains(Classes::TCP)
    }

    /// Returns the body of a worker: it reads the wanted classes into their slots.
    fn reading(
        &self,
        mut read: impl FnMut(&ClassRow) -> Readings + Send,
    ) -> impl FnMut(Classes) + Send {
        let slots = Arc::clone(&self.slots);
        move |wanted| {
            for (index, row) in Classes::ALL.iter().enumerate() {
                if !wanted.contains(row.class) {
                    continue;
                }
                let annotations = emit_values(&read(row).annotations()).into();
                let at = sys::clock::mono();
                let slot = &mut lock(&slots)[index];
                slot.read = Some(Section { at, annotations });
                slot.since = None;
            }
        }
    }

    /// Returns the readings of `classes`. A class that the block before did not request (`known`)
    /// is left out unless its reading is fresh. An old one does not describe this moment.
    fn read(&self, classes: Classes, known: Classes, now: MonoTime) -> Vec<Section> {
        let slots = lock(&self.slots);
        let rows = slots.iter().zip(&Classes::ALL);
        rows.filter(|(_, row)| classes.contains(row.class))
            .filter_map(|(slot, row)| {
                let is_known = known.contains(row.class);
                let late = slot.since.map(|since| now.since(since));
                if let Some(late) = late.filter(|&late| late > SLOW && is_known) {
                    let seconds = late.as_millis_f64() / 1e3;
                    let text = format!("no answer from the source for {seconds:.1} s");
                    return Some(failure(row.word, text, now));
                }
                let section = slot.read.clone()?;
                (is_known || now.since(section.at) <= FRESH).then_some(section)
            })
            .collect()
    }
}

fn failure(word: &str, text: String, at: MonoTime) -> Section {
    let annotation = HostAnnotation {
        name: format!("error.{word}"),
        value: AnnotationValue::Text(text),
    };
    Section {
        at,
        annotations: emit_values(&[annotation]).into(),
    }
}

/// Reads a class on the thread `annotate`. A class that this node does not offer is an error.
fn read_local(offer: &Offer, tags: &[String], reader: &mut Reader, row: &ClassRow) -> Readings {
    let mut readings = Readings::default();
    if !offer.classes.contains(row.class) {
        readings.error(row.word, "not offered by this node (--annotate)");
        return readings;
    }
    match row.reader {
        AnnotationReader::Procfs(class) => return reader.read(class, row.word, sys::clock::mono()),
        AnnotationReader::Tags => {
            for (number, tag) in tags.iter().enumerate() {
                readings.text(format!("tag.{number}"), tag.as_str());
            }
        }
        AnnotationReader::Agent => readings.error(row.word, "this node has no agent (--snmp)"),
        AnnotationReader::TcpInfo => {} // Offered, so the pumps read it.
    }
    readings
}

/// Reads the class of the agent on the thread `snmp`.
fn read_agent(agent: Option<&Agent>, id: i32, row: &ClassRow) -> Readings {
    let mut readings = Readings::default();
    if let Some(agent) = agent {
        match agent.get(id) {
            Ok(answer) => return answer,
            Err(error) => {
                let text = format!("agent {}:{}: {error}", agent.host, agent.port);
                readings.error(row.word, text);
            }
        }
    }
    readings
}

impl Worker {
    /// Wakes the thread to read `classes`; where there is none, starts one with the result of
    /// `body`.
    fn want<F: FnMut(Classes) + Send + 'static>(
        &self,
        classes: Classes,
        name: &str,
        body: impl FnOnce() -> F,
    ) -> io::Result<()> {
        if classes.is_empty() {
            return Ok(());
        }
        let mut wanted = lock(&self.0);
        wanted.classes = wanted.classes.union(classes);
        if let Some(wake) = &wanted.wake {
            let _ = wake.send(()); // Full: a wake-up is pending.
            return Ok(());
        }
        let (wake, woken) = channel(1); // One pending wake-up is enough.
        let _ = wake.send(());
        let (shared, body) = (Arc::clone(&self.0), body());
        spawn(name, 2 * STACK, move || work(&woken, &shared, body))?;
        wanted.wake = Some(wake);
        Ok(())
    }
}

/// Runs a worker until [`IDLE`] has passed without a request.
fn work(woken: &Receiver<()>, shared: &Mutex<Wanted>, mut body: impl FnMut(Classes)) {
    loop {
        let is_idle = woken.recv_timeout(IDLE).is_err();
        let mut wanted = lock(shared);
        let classes = std::mem::take(&mut wanted.classes);
        if is_idle && classes.is_empty() {
            wanted.wake = None;
            return;
        }
        drop(wanted);
        body(classes);
    }
}

/// The requests that one pump has seen, and its own readings of its connections.
#[derive(Debug, Default)]
pub struct AnnotationWriter {
    /// The request of the latest marked block.
    requested: Classes,
    /// The part of it that [`request_next`](Self::request_next) has to pass on.
    due: Classes,
    tcp: Option<Section>,
}

impl AnnotationWriter {
    /// Notes a marked block without a request.
    pub fn clear(&mut self) {
        self.requested = Classes(0);
    }

    /// Returns the value of the annotation that answers a block's request for `classes`; empty if
    /// there is no reading yet. Call [`request_next`](Self::request_next) after the block was sent.
    #[inline(never)]
    pub fn answer(&mut self, annotator: &Annotator, classes: Classes, now: MonoTime) -> Vec<u8> {
        let known = std::mem::replace(&mut self.requested, classes);
        self.due = classes;
        let mut sections = annotator.read(classes, known, now);
        if annotator.wants_tcp_info(classes) {
            let is_known = known.contains(Classes::TCP);
            let tcp = self.tcp.clone();
            sections.extend(tcp.filter(|tcp| is_known || now.since(tcp.at) <= FRESH));
        }
        let Some(oldest) = sections.iter().map(|section| section.at).min() else {
            return Vec::new();
        };
        let mut readings = Readings::default();
        readings.number("age_s", Some(now.since(oldest).as_millis_f64() / 1e3));
        let mut value = emit_values(&readings.annotations());
        for section in sections {
            value.extend_from_slice(&section.annotations);
        }
        value
    }

    /// Passes on the request of the block that was just sent, if it had one, for the answer in the
    /// next block.
    pub fn request_next<'a>(
        &mut self,
        annotator: &Annotator,
        now: MonoTime,
        upstream: Option<&'a TcpStream>,
        downstream: Option<&'a TcpStream>,
    ) {
        if !self.due.is_empty() {
            let sockets = [("upstream", upstream), ("downstream", downstream)];
            self.read_next(annotator, now, sockets);
        }
    }

    #[inline(never)]
    fn read_next(
        &mut self,
        annotator: &Annotator,
        now: MonoTime,
        sockets: [(&str, Option<&TcpStream>); 2],
    ) {
        let due = std::mem::take(&mut self.due);
        annotator.request(due, now);
        let is_young = |tcp: &Section| now.since(tcp.at) < SHORTEST;
        if annotator.wants_tcp_info(due) && !self.tcp.as_ref().is_some_and(is_young) {
            let mut readings = Readings::default();
            for (side, socket) in sockets {
                if let Some(info) = socket.and_then(sys::tcp_info) {
                    tcp::append(&mut readings, side, &info);
                }
            }
            self.tcp = Some(Section {
                at: now,
                annotations: emit_values(&readings.annotations()).into(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::values::parse_values;

    fn annotator(classes: Classes) -> Annotator {
        let offer = Offer {
            classes,
            agent: None,
        };
        Annotator::new(offer, vec!["rack 7".into()])
    }

    fn names(value: &[u8]) -> Vec<String> {
        let annotations = parse_values(value).unwrap();
        annotations
            .into_iter()
            .map(|annotation| annotation.name)
            .collect()
    }

    /// Requests as blocks do, one every millisecond, until an answer has the annotation `last`.
    fn request(
        annotator: &Annotator,
        writer: &mut AnnotationWriter,
        classes: Classes,
        last: &str,
    ) -> Vec<String> {
        let (_open, nothing) = channel::<()>(0);
        for _ in 0..30_000 {
            let now = sys::clock::mono();
            let names = names(&writer.answer(annotator, classes, now));
            writer.request_next(annotator, now, None, None);
            if names.iter().any(|name| name == last) {
                return names;
            }
            let _ = nothing.recv_timeout(Duration::from_millis(1));
        }
        panic!("no answer had {last}");
    }

    #[test]
    fn the_first_block_is_not_answered_and_one_of_the_next_is() {
        let annotator = annotator(Classes::all());
        let classes = Classes::LOAD.union(Classes::TAGS);
        let mut writer = AnnotationWriter::default();
        let now = sys::clock::mono();
        assert!(writer.answer(&annotator, classes, now).is_empty());
        let seen = request(&annotator, &mut writer, classes, "tag.0");
        assert_eq!(
            seen,
            ["age_s", "load1", "load5", "load15", "cpus", "uptime_s", "tag.0"]
        );
    }

    #[test]
    fn a_class_that_is_not_offered_is_refused_and_a_missing_agent_is_an_error() {
        let annotator = annotator(Classes::SNMP);
        let mut writer = AnnotationWriter::default();
        let both = Classes::LOAD.union(Classes::SNMP);
        let seen = request(&annotator, &mut writer, both, "error.snmp");
        assert_eq!(seen, ["age_s", "error.load", "error.snmp"]);
    }

    #[test]
    fn a_reading_for_an_earlier_request_does_not_answer_a_later_one() {
        let annotator = annotator(Classes::all());
        let mut writer = AnnotationWriter::default();
        request(&annotator, &mut writer, Classes::LOAD, "load1");
        let now = sys::clock::mono();
        let later = now + Nanos::from_millis(60_000);
        lock(&annotator.slots)[0].since = None; // As when the thread has come back.
        let again = writer.answer(&annotator, Classes::LOAD, later);
        assert!(
            names(&again).contains(&"load1".into()),
            "requested all the time"
        );
        let mut other = AnnotationWriter::default();
        assert!(
            other.answer(&annotator, Classes::LOAD, later).is_empty(),
            "requested anew"
        );
        writer.clear();
        assert!(writer.answer(&annotator, Classes::LOAD, later).is_empty());
        let soon = other.answer(&annotator, Classes::LOAD, now);
        assert!(names(&soon).contains(&"load1".into()), "read a moment ago");
    }

    #[test]
    fn a_source_that_hangs_is_an_error_and_holds_nothing_up() {
        let annotator = annotator(Classes::all());
        let mut writer = AnnotationWriter::default();
        let begun = sys::clock::mono();
        lock(&annotator.slots)[0].since = Some(begun); // As if the thread hung in the first class.
        assert!(writer.answer(&annotator, Classes::LOAD, begun).is_empty());
        let later = begun + Nanos::from_millis(2500);
        let value = writer.answer(&annotator, Classes::LOAD, later);
        let annotations = parse_values(&value).unwrap();
        let text = AnnotationValue::Text("no answer from the source for 2.5 s".into());
        assert_eq!(
            (annotations[1].name.as_str(), &annotations[1].value),
            ("error.load", &text)
        );
    }
}
