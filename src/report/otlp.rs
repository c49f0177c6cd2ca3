//! Turns a block into a trace (`--format otlp`): a line of OTLP/JSON.
//!
//! The file receiver of the OpenTelemetry collector reads it, `POST /v1/traces` takes it.
//!
//! The root span lasts from the block's due time to its return. Under it are the residences of each
//! node and both directions of each segment, in the order of the path. All times are on the
//! source's wall clock. Where a far clock's offset is known, it splits a segment's round trip, and
//! `subsegment.direction_known` is true. Else the split is in halves and the value false. The
//! stamps themselves, each on its own node's clock, are attributes.
//!
//! The trace of a block that holds an HTTP request with `traceparent` is that of the request, and
//! the root span is a child of the span that sent it.
//!
//! A residence belongs to the service of its node's name, a segment to the service `network`. A
//! lost block has a root span with an error and no length.

use super::block::MeasuredBlock;
use super::json::write::{Array, Object, ToJson, Writer};
use crate::measure::{HostPart, SegmentPart, StampDirection};
use crate::time::{SignedNanos, WallTime};

const INTERNAL: u64 = 1; // SPAN_KIND_INTERNAL
const CLIENT: u64 = 3; // SPAN_KIND_CLIENT
const ERROR: u64 = 2; // STATUS_CODE_ERROR
/// The service of segments.
const NETWORK: &str = "network";
const ROOT: u64 = 1;
/// The bits that hold the number of a span within its block.
const SPANS: u64 = 0xffff;
/// Spreads successive numbers over 64 bits.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

enum Value {
    Text(String),
    Whole(i64),
    Truth(bool),
}

struct Span {
    service: String,
    name: String,
    parent: Option<u64>,
    id: u64,
    start: WallTime,
    length: SignedNanos,
    attributes: Vec<(&'static str, Value)>,
    fault: Option<&'static str>,
}

/// The trace of one block, with its line feed; empty for a duplicate, whose trace was written
/// before.
pub fn line(block: &MeasuredBlock<'_>) -> String {
    if block.line.duplicate {
        return String::new();
    }
    let ids = Ids::of(block);
    let spans = Walk::new(block).spans();
    let mut services: Vec<&str> = spans.iter().map(|span| span.service.as_str()).collect();
    services.sort_unstable();
    services.dedup();
    let mut text = Writer::compact().finish(Object(|w| {
        w.pair(
            "resourceSpans",
            Array(
                services
                    .iter()
                    .map(|&service| resource(service, &ids, &spans)),
            ),
        );
    }));
    text.push('\n');
    text
}

fn resource<'a>(service: &'a str, ids: &'a Ids, spans: &'a [Span]) -> impl ToJson + 'a {
    Object(move |w: &mut Writer| {
        let name = [("service.name", Value::Text(service.to_owned()))];
        w.pair(
            "resource",
            Object(|w| w.pair("attributes", attributes(&name))),
        );
        let scope = Object(|w: &mut Writer| {
            w.pair(
                "scope",
                Object(|w| {
                    w.pair("name", env!("CARGO_PKG_NAME"));
                    w.pair("version", env!("CARGO_PKG_VERSION"));
                }),
            );
            let own = spans.iter().filter(|span| span.service == service);
            w.pair("spans", Array(own.map(|span| span.json(ids))));
        });
        w.pair("scopeSpans", Array([scope]));
    })
}

/// 64-bit integers are texts in the JSON of protocol buffers.
fn attributes<'a>(of: &'a [(&'static str, Value)]) -> impl ToJson + 'a {
    Array(of.iter().map(|(key, value)| {
        Object(move |w: &mut Writer| {
            w.pair("key", *key);
            w.pair(
                "value",
                Object(|w| match value {
                    Value::Text(text) => w.pair("stringValue", text),
                    Value::Whole(number) => w.pair("intValue", &number.to_string()),
                    Value::Truth(truth) => w.pair("boolValue", *truth),
                }),
            );
        })
    }))
}

fn moved(from: WallTime, by: SignedNanos) -> WallTime {
    WallTime(from.0.saturating_add_signed(by.0))
}

impl Span {
    fn json<'a>(&'a self, ids: &'a Ids) -> impl ToJson + 'a {
        let id = |id: u64| format!("{id:016x}");
        Object(move |w: &mut Writer| {
            w.pair("traceId", &ids.trace);
            w.pair("spanId", &id(ids.first | self.id));
            let parent = self.parent.map(|parent| ids.first | parent).or(ids.parent);
            if let Some(parent) = parent {
                w.pair("parentSpanId", &id(parent));
            }
            w.pair("name", &self.name);
            w.pair(
                "kind",
                if self.parent.is_none() {
                    CLIENT
                } else {
                    INTERNAL
                },
            );
            w.pair("startTimeUnixNano", &self.start.0.to_string());
            let end = moved(self.start, self.length.max(SignedNanos::ZERO));
            w.pair("endTimeUnixNano", &end.0.to_string());
            w.pair("attributes", attributes(&self.attributes));
            if let Some(fault) = self.fault {
                w.pair(
                    "status",
                    Object(|w| {
                        w.pair("code", ERROR);
                        w.pair("message", fault);
                    }),
                );
            }
        })
    }
}

/// The identifiers of a trace.
struct Ids {
    trace: String,
    /// The parent of the root span; `None` if the trace begins here.
    parent: Option<u64>,
    /// Added to the number of a span.
    first: u64,
}

impl Ids {
    /// Those of the request in the block. Other blocks of the same trace have other spans.
    fn of(block: &MeasuredBlock<'_>) -> Self {
        let (cookie, sequence) = (block.cookie.max(1), block.line.sequence);
        match block.trace {
            Some(trace) => Self {
                trace: format!("{:032x}", trace.trace),
                parent: Some(trace.parent),
                first: (cookie ^ sequence.wrapping_mul(GOLDEN_RATIO)) & !SPANS,
            },
            None => Self {
                trace: format!("{cookie:016x}{sequence:016x}"),
                parent: None,
                first: 0,
            },
        }
    }
}

/// Along the path and back, on the source's clock.
struct Walk<'a> {
    block: &'a MeasuredBlock<'a>,
    offsets: Vec<Option<SignedNanos>>,
    now: WallTime,
    spans: Vec<Span>,
}

impl<'a> Walk<'a> {
    fn new(block: &'a MeasuredBlock<'a>) -> Self {
        Self {
            block,
            offsets: (block.offsets)(),
            now: block.line.scheduled,
            spans: Vec::new(),
        }
    }

    fn spans(mut self) -> Vec<Span> {
        let line = &self.block.line;
        let total = line.parts.and_then(|parts| parts.total);
        self.push(
            line.name_at(0),
            format!("block {}", line.sequence),
            total.unwrap_or_default(),
            vec![
                ("subsegment.sequence", Value::Whole(line.sequence as i64)),
                ("subsegment.flags", Value::Text(line.flags().join(","))),
            ],
        );
        self.now = line.scheduled;
        let Some(parts) = line.parts else {
            self.spans[0].fault = Some("lost: no answer");
            return self.spans;
        };
        let legs: Vec<_> = (0..).zip(&parts.segments).collect();
        for (at, host) in parts.hosts.iter().enumerate() {
            self.residence(host, StampDirection::Forward, host.forward_residence);
            if let Some(&(at, segment)) = legs.get(at) {
                if let Some(connect) = segment.connect {
                    let service = self.block.line.name_at(host.hop);
                    self.push(service, "connect".into(), connect, Vec::new());
                }
                self.leg(at, segment, true);
            }
        }
        if let Some(beyond) = parts.beyond.filter(|beyond| beyond.0 > 0) {
            self.push(
                NETWORK.into(),
                "beyond the last stamp".into(),
                beyond,
                Vec::new(),
            );
        }
        for (at, host) in parts.hosts.iter().enumerate().rev() {
            self.residence(host, StampDirection::Return, host.return_residence);
            if let Some(&(at, segment)) = at.checked_sub(1).and_then(|at| legs.get(at)) {
                self.leg(at, segment, false);
            }
        }
        self.spans
    }

    /// A span from where the walk stands; the walk goes on at its end.
    fn push(
        &mut self,
        service: String,
        name: String,
        length: SignedNanos,
        attributes: Vec<(&'static str, Value)>,
    ) {
        let id = ROOT + self.spans.len() as u64;
        self.spans.push(Span {
            service,
            name,
            parent: (id > ROOT).then_some(ROOT),
            id,
            start: self.now,
            length,
            attributes,
            fault: None,
        });
        self.now = moved(self.now, length);
    }

    fn residence(
        &mut self,
        host: &HostPart,
        direction: StampDirection,
        length: Option<SignedNanos>,
    ) {
        let Some(length) = length else {
            return;
        };
        let mut hop_stamps = self.block.hop_stamps.iter();
        let stamp = hop_stamps.find(|hop_stamp| {
            let same = hop_stamp.direction == direction;
            let turn =
                hop_stamp.direction == StampDirection::Turn && direction == StampDirection::Forward;
            hop_stamp.hop == host.hop && (same || turn)
        });
        let turns = stamp.is_some_and(|stamp| stamp.direction == StampDirection::Turn);
        let name = match direction {
            _ if turns => "residence",
            StampDirection::Return => "residence, return",
            _ => "residence, forward",
        };
        let mut attributes = vec![
            ("subsegment.hop", Value::Whole(i64::from(host.hop))),
            ("subsegment.node_id", Value::Text(host.node.to_string())),
        ];
        if let Some(stamp) = stamp {
            let times = [
                ("subsegment.arrival_ns", stamp.arrival),
                ("subsegment.ingress_ns", Some(stamp.ingress)),
                ("subsegment.egress_ns", Some(stamp.egress)),
            ];
            let known = times
                .into_iter()
                .filter_map(|(key, time)| Some((key, time?)));
            attributes.extend(known.map(|(key, time)| (key, Value::Whole(time.0 as i64))));
        }
        let service = self.block.line.name_at(host.hop);
        self.push(service, name.into(), length, attributes);
    }

    fn leg(&mut self, at: usize, segment: &SegmentPart, forward: bool) {
        let Some(round_trip) = segment.round_trip else {
            return;
        };
        let offset = self.offsets.get(at).copied().flatten();
        let known = offset.zip(segment.forward);
        // Half each, or by the offset, whose error must not make either way last less than nothing.
        let there = known.map_or(SignedNanos(round_trip.0 / 2), |(offset, raw)| {
            (raw - offset).clamp(
                SignedNanos::ZERO.min(round_trip),
                SignedNanos::ZERO.max(round_trip),
            )
        });
        let (raw, length, word) = if forward {
            (segment.forward, there, "forward")
        } else {
            (segment.back, round_trip - there, "return")
        };
        let line = &self.block.line;
        let [near, far] = [segment.from_hop, segment.to_hop].map(|hop| line.name_at(hop));
        let mut attributes = vec![
            ("subsegment.round_trip_ns", Value::Whole(round_trip.0)),
            ("subsegment.direction_known", Value::Truth(known.is_some())),
        ];
        let numbers = [
            ("subsegment.raw_one_way_ns", raw),
            ("subsegment.clock_offset_ns", offset),
        ];
        let numbers = numbers
            .into_iter()
            .filter_map(|(key, number)| Some((key, number?)));
        attributes.extend(numbers.map(|(key, number)| (key, Value::Whole(number.0))));
        let (from, to) = if forward { (near, far) } else { (far, near) };
        self.push(
            NETWORK.into(),
            format!("{from} -> {to}, {word}"),
            length,
            attributes,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::json::{parse, Value as Json};
    use crate::report::tests::samples;

    const OFFSETS: [Option<SignedNanos>; 3] = [Some(SignedNanos(5_000_000)), None, None];

    /// Spans of a rendered line as (service, name, start, end, parent).
    fn spans(text: &str) -> Vec<(String, String, u64, u64, bool)> {
        let value = parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
        let mut spans = Vec::new();
        for resource in value.at("resourceSpans").and_then(Json::as_array).unwrap() {
            let service = resource.at("resource/attributes/0/value/stringValue");
            let service = service.and_then(Json::as_str).unwrap().to_owned();
            let own = resource.at("scopeSpans/0/spans").and_then(Json::as_array);
            for span in own.unwrap() {
                let text = |key: &str| span.at(key).and_then(Json::as_str).map(str::to_owned);
                let time = |key: &str| text(key).unwrap().parse::<u64>().unwrap();
                assert_eq!(text("traceId").unwrap().len(), 32);
                assert_eq!(text("spanId").unwrap().len(), 16);
                let place = u64::from_str_radix(&text("spanId").unwrap(), 16).unwrap();
                spans.push((
                    place,
                    (
                        service.clone(),
                        text("name").unwrap(),
                        time("startTimeUnixNano"),
                        time("endTimeUnixNano"),
                        text("parentSpanId").is_some(),
                    ),
                ));
            }
        }
        spans.sort_by_key(|span| span.0);
        spans.into_iter().map(|(_, span)| span).collect()
    }

    #[test]
    fn spans_follow_each_other_without_a_gap_and_fill_the_root() {
        let mut seen = Vec::new();
        samples::with_blocks(|block| {
            let block = MeasuredBlock {
                line: *block,
                cookie: 0xabc,
                trace: None,
                hop_stamps: &[],
                offsets: &|| OFFSETS.to_vec(),
            };
            let text = line(&block);
            if block.line.duplicate {
                assert!(text.is_empty());
                return text;
            }
            assert_eq!(text.matches('\n').count(), 1);
            let spans = spans(&text);
            let (root, children) = spans.split_first().unwrap();
            assert!(!root.4 && children.iter().all(|child| child.4));
            let is_whole = block.line.parts.is_some_and(|parts| parts.total.is_some());
            if is_whole && !block.line.clock_step {
                let mut at = root.2;
                for child in children {
                    assert_eq!(child.2, at, "{child:?}");
                    at = child.3;
                }
                assert_eq!(at, root.3);
                seen.push(children.len());
            }
            if block.line.parts.is_none() {
                assert!(children.is_empty() && text.contains("\"code\":2"), "{text}");
            }
            text
        });
        // A, B, Z: three ways out, two back, two segments each way; the longer path likewise.
        assert_eq!(seen[0], 3 + 1 + 2 * 2, "{seen:?}");
    }

    #[test]
    fn an_offset_splits_a_round_trip_and_without_one_it_is_halved() {
        let mut first = None;
        samples::with_blocks(|block| {
            let traced = MeasuredBlock {
                line: *block,
                cookie: 1,
                trace: None,
                hop_stamps: &[],
                offsets: &|| OFFSETS.to_vec(),
            };
            if first.is_none() && block.parts.is_some() {
                first = Some(spans(&line(&traced)));
            }
            String::new()
        });
        let spans = first.expect("a block with parts");
        let length = |name: &str| {
            let span = spans.iter().find(|span| span.1 == name);
            let span = span.unwrap_or_else(|| panic!("{name}: {spans:?}"));
            (span.0.as_str(), span.3 - span.2)
        };
        assert_eq!(length("A -> B, forward"), (NETWORK, 20_000));
        assert_eq!(length("B -> A, return"), (NETWORK, 30_000));
        assert_eq!(length("B -> Z, forward"), (NETWORK, 25_000));
        assert_eq!(length("Z -> B, return"), (NETWORK, 25_000));
        assert_eq!(length("residence, return"), ("B", 1_001));
    }
}
