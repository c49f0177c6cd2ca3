//! What this node answers when a block asks it, and the two threads that find it out.
//!
//! A pump reads no file. An asked block is answered with what was read last, and only then, after the block was sent, is
//! the request noted: a thread (`annotate`; `snmp` for that class, so that a silent agent holds nothing else up; both are
//! started by a request and end after ten seconds without) reads the sources anew, each at most every 100 ms. So the answer to a first request comes
//! in the next block. NodeAnnotations about the pump's own two connections (`TCP_INFO`, a call that never waits for a peer) the pump
//! takes itself, after the send, for the next block. A block that asks for nothing costs none of this.

use crate::annotate::procfs::Reader;
use crate::annotate::snmp::Agent;
use crate::annotate::{tcp, Told};
use crate::annotation::{AnnotationValue, Classes, HostAnnotation, NodeAnnotations};
use crate::collect::queue::Measurement;
use crate::node::reader::HEADROOM;
use crate::node::Node;
use crate::session::annotations::told;
use crate::sync::lock;
use crate::sync::STACK;
use crate::sys;
use crate::time::{MonoTime, Nanos};
use crate::wire::values::{cut_values, emit_values, parse_values, with_annotation};
use crate::wire::{
    Flags, FrameView, Header, ANNOTATION_HEADER_LEN, ANNOTATION_VALUES, MAX_ANNOTATIONS,
};
use crossbeam_channel::{bounded, Receiver, Sender};
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Builder;
use std::time::Duration;

/// No source is read more often.
const SHORTEST: Nanos = Nanos::from_millis(100);
/// What was read before the request is an answer to it only if it is not older than this.
const FRESH: Nanos = Nanos::from_millis(1000);
/// A source that takes longer is called slow in the answer; an agent has its own timeout of a second before.
const SLOW: Nanos = Nanos::from_millis(1200);
/// A thread for which there is nothing to do for so long ends.
const IDLE: Duration = Duration::from_secs(10);

/// What a node tells about itself, and whether it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// `--annotate`.
    pub classes: Classes,
    /// `--snmp`; `None` where there is no agent.
    pub agent: Option<Agent>,
}

/// The node's answers.
#[derive(Debug)]
pub struct Annotator {
    offer: Offer,
    local: Worker,
    agent: Worker,
    slots: Arc<Mutex<[Slot; Classes::ALL.len()]>>,
    tags: Vec<String>,
    /// Outlives the thread: shares of time are between two readings.
    reader: Arc<Mutex<Reader>>,
    overflowed: AtomicBool,
}

/// One class.
#[derive(Debug, Default)]
struct Slot {
    read: Option<Section>,
    /// Since when an answer is waited for.
    since: Option<MonoTime>,
}

#[derive(Clone, Debug)]
struct Section {
    at: MonoTime,
    /// As [`emit_facts`] makes it.
    annotations: Arc<[u8]>,
}

/// A thread that reads when it is knocked at.
#[derive(Debug, Default)]
struct Worker(Arc<Mutex<Wanted>>);

#[derive(Debug, Default)]
struct Wanted {
    classes: Classes,
    /// `None` while there is no thread.
    knock: Option<Sender<()>>,
}

impl Annotator {
    /// No thread is started yet.
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

    /// Has those of `classes` read that were not read, or asked for, a moment ago.
    fn request(&self, classes: Classes, now: MonoTime) {
        let mut threads = Classes(0);
        for (slot, (class, _)) in lock(&self.slots).iter_mut().zip(Classes::ALL) {
            let last = slot.read.as_ref().map(|section| section.at);
            let young = last.is_some_and(|last| now.since(last) < SHORTEST);
            let ours = classes.contains(class) && !self.own_calls().contains(class);
            if ours && !young && slot.since.is_none() {
                slot.since = Some(now);
                threads = threads.union(class);
            }
        }
        let agent = match self.offer.agent {
            Some(_) => threads
                .intersection(Classes::SNMP)
                .intersection(self.offer.classes),
            None => Classes(0),
        };
        let local = Classes(threads.0 & !agent.0);
        let reading = self.local.want(local, "annotate", || {
            let (offer, tags) = (self.offer.clone(), self.tags.clone());
            let reader = Arc::clone(&self.reader);
            self.reading(move |class| local_facts(&offer, &tags, &mut lock(&reader), class))
        });
        let requests = self.agent.want(agent, "snmp", || {
            let agent = self.offer.agent.clone();
            let mut id = crate::sync::random() as i32;
            self.reading(move |_| {
                id = id.wrapping_add(1) & i32::MAX;
                agent_facts(agent.as_ref(), id)
            })
        });
        for (classes, outcome) in [(local, reading), (agent, requests)] {
            if let Err(error) = outcome {
                self.fail(classes, &format!("cannot start a thread: {error}"), now);
            }
        }
    }

    /// Answers for a thread that is not there.
    #[cold]
    fn fail(&self, classes: Classes, text: &str, now: MonoTime) {
        let mut slots = lock(&self.slots);
        for (slot, (class, word)) in slots.iter_mut().zip(Classes::ALL) {
            if classes.contains(class) {
                slot.read = Some(failure(word, text.into(), now));
                slot.since = None;
            }
        }
    }

    /// What pumps look up themselves.
    fn own_calls(&self) -> Classes {
        self.offer.classes.intersection(Classes::TCP)
    }

    /// The body of a worker: reads what is wanted.
    fn reading(&self, mut read: impl FnMut(Classes) -> Told + Send) -> impl FnMut(Classes) + Send {
        let slots = Arc::clone(&self.slots);
        move |wanted| {
            for (index, (class, _)) in Classes::ALL.into_iter().enumerate() {
                if !wanted.contains(class) {
                    continue;
                }
                let annotations = emit_values(&read(class).annotations()).into();
                let at = sys::clock::mono();
                let slot = &mut lock(&slots)[index];
                slot.read = Some(Section { at, annotations });
                slot.since = None;
            }
        }
    }

    /// What was read of `classes`. Of those that are not `known` to have been asked for by the block before, only what is
    /// fresh: what some earlier time looked like is no answer.
    fn read(&self, classes: Classes, known: Classes, now: MonoTime) -> Vec<Section> {
        let slots = lock(&self.slots);
        let rows = slots.iter().zip(Classes::ALL);
        rows.filter(|(_, (class, _))| classes.contains(*class))
            .filter_map(|(slot, (class, word))| {
                let late = slot.since.map(|since| now.since(since));
                if let Some(late) = late.filter(|&late| late > SLOW && known.contains(class)) {
                    let text = format!(
                        "no answer from the source for {:.1} s",
                        late.as_millis_f64() / 1e3
                    );
                    return Some(failure(word, text, now));
                }
                let section = slot.read.clone()?;
                (known.contains(class) || now.since(section.at) <= FRESH).then_some(section)
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

fn local_facts(offer: &Offer, tags: &[String], reader: &mut Reader, class: Classes) -> Told {
    let mut told = Told::default();
    if !offer.classes.contains(class) {
        told.error(class, "not offered by this node (--annotate)");
    } else if class == Classes::SNMP {
        told.error(class, "this node has no agent (--snmp)");
    } else if class == Classes::TAGS {
        for (number, tag) in tags.iter().enumerate() {
            told.text(format!("tag.{number}"), tag.as_str());
        }
    } else {
        return reader.read(class, sys::clock::mono());
    }
    told
}

fn agent_facts(agent: Option<&Agent>, id: i32) -> Told {
    let mut told = Told::default();
    if let Some(agent) = agent {
        match agent.get(id) {
            Ok(answer) => return answer,
            Err(error) => told.error(
                Classes::SNMP,
                format!("agent {}:{}: {error}", agent.host, agent.port),
            ),
        }
    }
    told
}

impl Worker {
    /// Wants `classes` read; `body` makes what reads them, where there is no thread (any more).
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
        if let Some(knock) = &wanted.knock {
            let _ = knock.try_send(()); // Full: it has been knocked at.
            return Ok(());
        }
        let (knock, knocks) = bounded(1); // One knock is as good as many.
        let _ = knock.try_send(());
        let (shared, body) = (Arc::clone(&self.0), body());
        Builder::new()
            .name(name.into())
            .stack_size(2 * STACK)
            .spawn(move || work(&knocks, &shared, body))?;
        wanted.knock = Some(knock);
        Ok(())
    }
}

/// Ends when nobody has asked for a while.
fn work(knocks: &Receiver<()>, shared: &Mutex<Wanted>, mut body: impl FnMut(Classes)) {
    loop {
        let is_idle = knocks.recv_timeout(IDLE).is_err();
        let mut wanted = lock(shared);
        let classes = std::mem::take(&mut wanted.classes);
        if is_idle && classes.is_empty() {
            wanted.knock = None;
            return;
        }
        drop(wanted);
        body(classes);
    }
}

/// What one pump knows of being asked.
#[derive(Debug, Default)]
pub struct AnnotationWriter {
    /// By the latest marked block.
    asked: Classes,
    /// Of that, what is still to be requested.
    due: Classes,
    tcp: Option<Section>,
}

impl AnnotationWriter {
    /// A marked block asked for nothing.
    pub fn rest(&mut self) {
        self.asked = Classes(0);
    }

    /// The value of the annotation that answers a block which asks for `classes`; empty where nothing is known yet.
    /// [`follow`](Self::follow) has to come after the block was sent.
    #[inline(never)]
    pub fn answer(&mut self, annotator: &Annotator, classes: Classes, now: MonoTime) -> Vec<u8> {
        let known = std::mem::replace(&mut self.asked, classes);
        self.due = classes;
        let mut sections = annotator.read(classes, known, now);
        if classes.contains(Classes::TCP) && !annotator.own_calls().is_empty() {
            let tcp = self.tcp.clone();
            sections.extend(
                tcp.filter(|tcp| known.contains(Classes::TCP) || now.since(tcp.at) <= FRESH),
            );
        }
        let Some(oldest) = sections.iter().map(|section| section.at).min() else {
            return Vec::new();
        };
        let mut told = Told::default();
        told.number("age_s", Some(now.since(oldest).as_millis_f64() / 1e3));
        let mut value = emit_values(&told.annotations());
        for section in sections {
            value.extend_from_slice(&section.annotations);
        }
        value
    }

    /// Notes the request of the block that was just sent, if it made one.
    pub fn follow<'a>(
        &mut self,
        annotator: &Annotator,
        now: MonoTime,
        upstream: Option<&'a TcpStream>,
        downstream: Option<&'a TcpStream>,
    ) {
        if !self.due.is_empty() {
            self.look(
                annotator,
                now,
                [("upstream", upstream), ("downstream", downstream)],
            );
        }
    }

    #[inline(never)]
    fn look(
        &mut self,
        annotator: &Annotator,
        now: MonoTime,
        sockets: [(&str, Option<&TcpStream>); 2],
    ) {
        let due = std::mem::take(&mut self.due);
        annotator.request(due, now);
        let young = |tcp: &Section| now.since(tcp.at) < SHORTEST;
        if !due.intersection(annotator.own_calls()).is_empty()
            && !self.tcp.as_ref().is_some_and(young)
        {
            let mut told = Told::default();
            for (side, socket) in sockets {
                if let Some(info) = socket.and_then(sys::tcp_info) {
                    tcp::tell(&mut told, side, &info);
                }
            }
            self.tcp = Some(Section {
                at: now,
                annotations: emit_values(&told.annotations()).into(),
            });
        }
    }
}

/// Hands what the nodes from `hop` on have told in a frame that came back to the collector.
#[inline(never)]
pub fn append_annotations(node: &Node, hop: u8, frame: &FrameView<'_>) {
    for annotations in told(frame, hop) {
        let annotations = Measurement::NodeAnnotations(hop, Box::new(annotations));
        node.collector.offer(annotations);
    }
    if frame.header.flags.has(Flags::ANNOTATIONS_OVERFLOW)
        && !node.annotator.overflowed.swap(true, Ordering::Relaxed)
    {
        let text = "what nodes told was too much for one block, some of it is missing: ask for fewer classes";
        log::warn!("annotate: {text}");
        node.collector.offer(Measurement::Notice(text.into()));
    }
}

/// Hands what the node at hop 0 tells of itself to the collector.
#[inline(never)]
pub fn append_own_annotations(node: &Node, sequence: u64, value: &[u8]) {
    let annotations = parse_values(value).unwrap_or_default(); // It is our own.
    if !annotations.is_empty() {
        let annotations = NodeAnnotations {
            hop: 0,
            sequence,
            annotations,
        };
        node.collector
            .offer(Measurement::NodeAnnotations(0, Box::new(annotations)));
    }
}

/// Copies a frame into `own` with this node's facts in it, as far as there is room; its header then. Where there is
/// nothing to add it stays where it is.
#[inline(never)]
pub fn append(frame: &FrameView<'_>, hop: u8, value: &[u8], own: &mut Vec<u8>) -> Header {
    let mut header = frame.header;
    let fits = cut_to_room(value, header.annotations_len);
    if !fits.is_empty() {
        let copy = with_annotation(frame, HEADROOM, (ANNOTATION_VALUES, hop), fits);
        if let Some((bytes, longer)) = copy {
            *own = bytes;
            header = longer;
        }
    }
    if fits.len() < value.len() {
        header.flags = header.flags.with(Flags::ANNOTATIONS_OVERFLOW);
    }
    header
}

/// The facts that fit beside `taken` bytes of annotations.
pub fn cut_to_room(value: &[u8], taken: usize) -> &[u8] {
    let room = MAX_ANNOTATIONS.saturating_sub(taken + ANNOTATION_HEADER_LEN);
    cut_values(value, room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{build, frame_type};

    fn numbers(count: usize) -> Vec<HostAnnotation> {
        (0..count)
            .map(|n| HostAnnotation {
                name: format!("n{n}"),
                value: AnnotationValue::Number(n as f64),
            })
            .collect()
    }

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

    /// Asks as blocks do, one every millisecond of `now`, until the answer has what it was asked for.
    fn ask(
        annotator: &Annotator,
        telling: &mut AnnotationWriter,
        classes: Classes,
        last: &str,
    ) -> Vec<String> {
        let (_never, nothing) = bounded::<()>(0);
        for _ in 0..30_000 {
            let now = sys::clock::mono();
            let names = names(&telling.answer(annotator, classes, now));
            telling.follow(annotator, now, None, None);
            if names.iter().any(|name| name == last) {
                return names;
            }
            let _ = nothing.recv_timeout(Duration::from_millis(1));
        }
        panic!("{last} was never told");
    }

    #[test]
    fn the_first_block_is_not_answered_and_one_of_the_next_is() {
        let annotator = annotator(Classes::all());
        let classes = Classes::LOAD.union(Classes::TAGS);
        let mut telling = AnnotationWriter::default();
        let now = sys::clock::mono();
        assert!(telling.answer(&annotator, classes, now).is_empty());
        let told = ask(&annotator, &mut telling, classes, "tag.0");
        assert_eq!(
            told,
            ["age_s", "load1", "load5", "load15", "cpus", "uptime_s", "tag.0"]
        );
    }

    #[test]
    fn a_class_that_is_not_offered_is_refused_and_an_agent_that_is_not_there_is_told_of() {
        let annotator = annotator(Classes::SNMP);
        let mut telling = AnnotationWriter::default();
        let both = Classes::LOAD.union(Classes::SNMP);
        let told = ask(&annotator, &mut telling, both, "error.snmp");
        assert_eq!(told, ["age_s", "error.load", "error.snmp"]);
    }

    #[test]
    fn what_was_read_for_an_earlier_question_is_no_answer_to_a_new_one() {
        let annotator = annotator(Classes::all());
        let mut telling = AnnotationWriter::default();
        ask(&annotator, &mut telling, Classes::LOAD, "load1");
        let now = sys::clock::mono();
        let later = now + Nanos::from_millis(60_000);
        lock(&annotator.slots)[0].since = None; // As when the thread has come back.
        let again = telling.answer(&annotator, Classes::LOAD, later);
        assert!(
            names(&again).contains(&"load1".into()),
            "asked all the time"
        );
        let mut other = AnnotationWriter::default();
        assert!(
            other.answer(&annotator, Classes::LOAD, later).is_empty(),
            "asked anew"
        );
        telling.rest();
        assert!(telling.answer(&annotator, Classes::LOAD, later).is_empty());
        let soon = other.answer(&annotator, Classes::LOAD, now);
        assert!(names(&soon).contains(&"load1".into()), "read a moment ago");
    }

    #[test]
    fn a_source_that_does_not_come_back_is_told_of_and_not_waited_for() {
        let annotator = annotator(Classes::all());
        let mut telling = AnnotationWriter::default();
        let begun = sys::clock::mono();
        lock(&annotator.slots)[0].since = Some(begun); // As if the thread hung in the first class.
        assert!(telling.answer(&annotator, Classes::LOAD, begun).is_empty());
        let later = begun + Nanos::from_millis(2500);
        let value = telling.answer(&annotator, Classes::LOAD, later);
        let annotations = parse_values(&value).unwrap();
        let text = AnnotationValue::Text("no answer from the source for 2.5 s".into());
        assert_eq!(
            (annotations[1].name.as_str(), &annotations[1].value),
            ("error.load", &text)
        );
    }

    #[test]
    fn facts_fill_the_room_there_is_and_a_flag_says_that_some_are_missing() {
        let value = emit_values(&numbers(200));
        let header = Header::new(frame_type::BLOCK, 1, 2);
        let mut own = Vec::new();
        let mut bytes = build(header, &[], &[], b"payload");
        let mut hops = Vec::new();
        for hop in 1..10 {
            let header = append(&FrameView::parse(&bytes).unwrap(), hop, &value, &mut own);
            if !own.is_empty() {
                bytes = own.split_off(HEADROOM);
                own.clear();
            }
            header.emit(&mut bytes);
            hops.push(header.flags.has(Flags::ANNOTATIONS_OVERFLOW));
        }
        let frame = FrameView::parse(&bytes).unwrap();
        assert_eq!(frame.payload(), b"payload");
        let told: Vec<_> = told(&frame, 0)
            .iter()
            .map(|annotations| annotations.annotations.len())
            .collect();
        let whole = told.iter().filter(|&&count| count == 200).count();
        assert!(
            (5..9).contains(&whole) && told.len() == whole + 1,
            "{told:?}"
        );
        let full = hops.iter().position(|&full| full);
        assert_eq!(full, Some(whole), "{hops:?}");
    }
}
