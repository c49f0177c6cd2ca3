//! Captures made by chance: conversations of HTTP, TLS and others, spoilt at one place, in any
//! container. Sequence numbers wrap at any place. Each figure is right, or there is none.

use super::build::*;
use super::containers::Container;
use super::tls::records;
use crate::passive::*;
use crate::time::{SignedNanos, WallTime};

/// A microsecond; all times are multiples of it.
const US: u64 = 1000;
/// The round trips of the two parts of the path, and a repeat's delay, in microseconds.
const TO_SERVER: u64 = 10_000;
const TO_CLIENT: u64 = 2_000;
const REPEAT: u64 = 220_000;

/// The protocol of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speech {
    Http,
    Tls13,
    Retry,
    Tls12,
    Other,
}

/// The fault at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoil {
    Nothing,
    /// The packet is not in the capture.
    Missed,
    /// It is in the capture twice.
    Twice,
    /// It passes behind the next one of its end.
    Swapped,
    /// It is lost behind the capture point, and repeated.
    Lost,
    /// It is lost before the capture point, and repeated.
    LostBefore,
    /// It comes in two IP fragments.
    Fragmented,
    /// The capture begins with it.
    Midstream,
}

const SPOILS: [Spoil; 8] = [
    Spoil::Nothing,
    Spoil::Missed,
    Spoil::Twice,
    Spoil::Swapped,
    Spoil::Lost,
    Spoil::LostBefore,
    Spoil::Fragmented,
    Spoil::Midstream,
];

/// A message of an end.
#[derive(Clone, Debug)]
struct Message {
    end: usize,
    /// Where it lies among the bytes of its end.
    from: u32,
    to: u32,
    part: MessagePart,
}

/// The part that a message has in the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessagePart {
    Request(usize),
    Response(usize),
    ClientHello,
    ServerHello,
    Finished,
    Other,
}

/// A segment as it is sent.
#[derive(Clone, Debug)]
struct Segment {
    /// Microseconds.
    time: u64,
    end: usize,
    flags: u8,
    /// From the initial number of its end on.
    seq: u32,
    ack: u32,
    payload: Vec<u8>,
    repeat: bool,
}

/// A connection and what of it is in the capture.
struct Variant {
    seed: u64,
    speech: Speech,
    spoil: (Spoil, usize),
    stamps: bool,
    container: Container,
    initial: [u32; 2],
    segments: Vec<Segment>,
    messages: Vec<Message>,
    /// Method and status of each exchange.
    exchanges: Vec<(String, u16)>,
    closed: usize,
}

/// A conversation being made.
struct Maker<'a> {
    random: &'a mut Random,
    segments: Vec<Segment>,
    messages: Vec<Message>,
    now: u64,
    next: [u32; 2],
    most: usize,
}

impl Maker<'_> {
    fn put(&mut self, end: usize, flags: u8, payload: Vec<u8>) {
        let seq = self.next[end];
        let space = payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        self.next[end] = seq + space;
        self.segments.push(Segment {
            time: self.now,
            end,
            flags,
            seq,
            ack: if flags & ACK != 0 {
                self.next[1 - end]
            } else {
                0
            },
            payload,
            repeat: false,
        });
    }

    /// Sends a message in some segments, which the other end acknowledges.
    fn message(&mut self, end: usize, part: MessagePart, bytes: &[u8], acknowledged: bool) {
        let from = self.next[end];
        let pieces = 1 + self.random.below(self.most);
        let size = bytes.len().div_ceil(pieces).clamp(1, 1400);
        self.messages.push(Message {
            end,
            from,
            to: from + bytes.len() as u32,
            part,
        });
        for piece in bytes.chunks(size) {
            self.put(end, ACK, piece.to_vec());
            self.now += 100;
        }
        if acknowledged {
            self.now += if end == 0 { TO_SERVER } else { TO_CLIENT };
            self.put(1 - end, ACK, Vec::new());
        }
    }

    /// Time passes until the other end sends.
    fn answered_by(&mut self, end: usize, acknowledged: bool) {
        let think = self.random.below(30) as u64 * 1000;
        let path = if end == 1 { TO_SERVER } else { TO_CLIENT };
        self.now += think + if acknowledged { 100 } else { path };
    }
}

const METHODS: [&str; 8] = [
    "GET", "POST", "LOCK", "UNLOCK", "PROPFIND", "PURGE", "M-SEARCH", "HEAD",
];

impl Variant {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let speeches = [
            Speech::Http,
            Speech::Http,
            Speech::Tls13,
            Speech::Retry,
            Speech::Tls12,
            Speech::Other,
        ];
        let speech = speeches[random.below(speeches.len())];
        let container = Container::new(&mut random);
        let stamps = random.below(4) > 0;
        let most = 1 + random.below(4);
        let mut maker = Maker {
            random: &mut random,
            segments: Vec::new(),
            messages: Vec::new(),
            now: 0,
            next: [0; 2],
            most,
        };
        maker.put(0, SYN, Vec::new());
        maker.now += TO_SERVER;
        maker.put(1, SYN | ACK, Vec::new());
        maker.now += TO_CLIENT;
        maker.put(0, ACK, Vec::new());
        maker.now += 500;
        Self::hello(&mut maker, speech);
        let turns = 1 + maker.random.below(5);
        let exchanges: Vec<_> = (0..turns)
            .map(|turn| Self::turn(&mut maker, speech, turn))
            .collect();
        let closed = maker.segments.len();
        maker.now += 1000;
        maker.put(0, ACK | FIN, Vec::new());
        let repeats = [0, 0, 8][maker.random.below(3)];
        let fin = maker.segments.last().cloned();
        for times in 0..repeats {
            let again = fin.clone().map(|fin| Segment {
                time: fin.time + (200_000 << times),
                repeat: true,
                ..fin
            });
            maker.now = again.as_ref().map_or(0, |of| of.time);
            maker.segments.extend(again);
        }
        maker.now += TO_SERVER;
        maker.put(1, ACK | FIN, Vec::new());
        maker.now += TO_CLIENT;
        maker.put(0, ACK, Vec::new());
        let Maker {
            segments,
            messages,
            next,
            ..
        } = maker;
        let initial = next.map(|bytes| match random.below(2) {
            // They wrap at a place in the connection, often where a segment begins.
            0 => {
                let at = segments[random.below(segments.len())].seq;
                [at, random.below(bytes as usize + 1) as u32][random.below(2)].wrapping_neg()
            }
            _ => random.next() as u32,
        });
        let spoil = SPOILS[random.below(SPOILS.len())];
        let place = random.below(closed);
        let mut variant = Self {
            seed,
            speech,
            spoil: (spoil, place),
            stamps,
            container,
            initial,
            segments,
            messages,
            exchanges,
            closed,
        };
        variant.spoil(&mut random);
        variant
    }

    fn hello(maker: &mut Maker<'_>, speech: Speech) {
        use MessagePart::{ClientHello, Finished, Other, ServerHello};
        let long = ["client", "long"][maker.random.below(2)];
        let flight = 100 + maker.random.below(3000);
        match speech {
            Speech::Http | Speech::Other => return,
            Speech::Tls13 | Speech::Retry => {
                if speech == Speech::Retry {
                    maker.message(0, Other, &records(long), false);
                    maker.answered_by(1, false);
                    maker.message(1, Other, &records("retry+20:1"), false);
                    maker.answered_by(0, false);
                    maker.message(0, Other, &records("20:1"), false);
                }
                maker.message(0, ClientHello, &records(long), false);
                maker.answered_by(1, false);
                let server = records(&format!("server+20:1+23:{flight}"));
                maker.message(1, ServerHello, &server, false);
                maker.answered_by(0, false);
                let changed = if speech == Speech::Retry {
                    "23:53"
                } else {
                    "20:1+23:53"
                };
                maker.message(0, Finished, &records(changed), true);
                if maker.random.below(2) == 0 {
                    maker.now += 100;
                    maker.message(1, Other, &records("23:250+23:250"), true);
                }
            }
            Speech::Tls12 => {
                maker.message(0, ClientHello, &records(long), false);
                maker.answered_by(1, false);
                let server = records(&format!("old+22:{flight}+22:4"));
                maker.message(1, ServerHello, &server, false);
                maker.answered_by(0, false);
                maker.message(0, Other, &records("22:70"), false);
                maker.message(0, Finished, &records("20:1+22:40"), false);
                maker.answered_by(1, false);
                maker.message(1, Other, &records("22:200+20:1+22:40"), false);
            }
        }
        maker.now += 3000;
    }

    fn turn(maker: &mut Maker<'_>, speech: Speech, turn: usize) -> (String, u16) {
        let method = METHODS[maker.random.below(METHODS.len())];
        let status = [200, 204, 404, 503][maker.random.below(4)];
        let length = 2 + maker.random.below(4000);
        let request_length = 2 + maker.random.below(1500);
        let acknowledged = maker.random.below(2) == 0;
        let [request, response] = match speech {
            Speech::Http => {
                let path = "p".repeat(1 + maker.random.below(300));
                let body = if method == "POST" { request_length } else { 0 };
                let request = format!(
                    "{method} /{path} HTTP/1.1\r\nHost: a\r\nContent-Length: {body}\r\n\r\n"
                );
                let empty = status == 204 || method == "HEAD";
                let server = "x".repeat(maker.random.below(200));
                let head = format!("HTTP/1.1 {status} OK\r\nServer: {server}\r\n");
                let (head, body_out) = match (empty, maker.random.below(2)) {
                    (true, _) => (format!("{head}\r\n"), Vec::new()),
                    (false, 0) => (
                        format!("{head}Content-Length: {length}\r\n\r\n"),
                        vec![b'x'; length],
                    ),
                    (false, _) => {
                        let chunk = format!("{length:x}\r\n").into_bytes();
                        let chunks = [&chunk[..], &vec![b'y'; length], b"\r\n0\r\n\r\n"].concat();
                        (format!("{head}Transfer-Encoding: chunked\r\n\r\n"), chunks)
                    }
                };
                [
                    [request.into_bytes(), vec![b'x'; body]].concat(),
                    [head.into_bytes(), body_out].concat(),
                ]
            }
            Speech::Other => [vec![1; request_length], vec![2; length]],
            _ => [
                records(&format!("23:{}", request_length + 17)),
                records(&format!("23:{}", length + 260)),
            ],
        };
        maker.message(0, MessagePart::Request(turn), &request, acknowledged);
        maker.answered_by(1, acknowledged);
        let acknowledged = maker.random.below(2) == 0;
        maker.message(1, MessagePart::Response(turn), &response, acknowledged);
        maker.answered_by(0, acknowledged);
        (method.to_owned(), status)
    }

    /// Spoils it at its place.
    fn spoil(&mut self, random: &mut Random) {
        let (spoil, at) = self.spoil;
        let of = self.segments[at].clone();
        let data = !of.payload.is_empty();
        let flight = |other: &Segment| other.end == of.end && !other.payload.is_empty();
        match spoil {
            Spoil::Missed => drop(self.segments.remove(at)),
            Spoil::Twice => {
                let time = of.time + 1 + random.below(40) as u64;
                self.segments.insert(
                    at + 1,
                    Segment {
                        time,
                        repeat: true,
                        ..of
                    },
                );
            }
            Spoil::Swapped if data && flight(&self.segments[at + 1]) => {
                let times = [at, at + 1].map(|at| self.segments[at].time);
                self.segments.swap(at, at + 1);
                for (at, time) in [at, at + 1].into_iter().zip(times) {
                    self.segments[at].time = time;
                }
            }
            Spoil::Lost | Spoil::LostBefore if data => {
                // The rest of the flight passes, all else waits for the repeat.
                let rest = self.segments[at + 1..].iter().take_while(|of| flight(of));
                let behind = at + 1 + rest.count();
                for later in &mut self.segments[behind..] {
                    later.time += REPEAT + TO_SERVER;
                }
                let repeat = Segment {
                    time: of.time + REPEAT,
                    repeat: true,
                    ..of
                };
                self.segments.insert(behind, repeat);
                if spoil == Spoil::LostBefore {
                    self.segments.remove(at);
                }
            }
            Spoil::Midstream => drop(self.segments.drain(..at)),
            Spoil::Fragmented if data && !self.container.v6 => {}
            _ => self.spoil.0 = Spoil::Nothing,
        }
    }

    fn built(&self) -> Vec<Built> {
        let stamp = |time: u64, end: usize| (time / 1000 + 1000 + 70_000 * end as u64) as u32;
        let mut latest = [0; 2];
        let segments = self.segments.iter().map(|of| {
            let own = stamp(of.time, of.end);
            latest[of.end] = own;
            let echo = if of.flags & ACK != 0 {
                latest[1 - of.end]
            } else {
                0
            };
            Built {
                time: WallTime(EPOCH + of.time * US),
                from_client: of.end == 0,
                v6: self.container.v6,
                ports: (40_000, 80),
                flags: of.flags,
                seq: self.initial[of.end].wrapping_add(of.seq),
                ack: match of.flags & ACK {
                    0 => 0,
                    _ => self.initial[1 - of.end].wrapping_add(of.ack),
                },
                window: 1000,
                timestamps: self.stamps.then_some((own, echo)),
                payload: of.payload.clone(),
            }
        });
        segments.collect()
    }

    fn file(&self, container: &Container) -> Vec<u8> {
        let fragmented = self.spoil.0 == Spoil::Fragmented;
        container.file(&self.built(), fragmented.then_some(self.spoil.1))
    }

    /// When a message began to pass: its first byte, and any of it; none where nothing passed.
    fn began(&self, part: MessagePart) -> Vec<u64> {
        let found = self.messages.iter().find(|of| of.part == part);
        let Some(message) = found else {
            return Vec::new();
        };
        let passing = |from: u32, to: u32| {
            let mut of_end = self.segments.iter().filter(move |of| {
                let end = of.seq + of.payload.len() as u32;
                of.end == message.end && !of.payload.is_empty() && of.seq < to && end > from
            });
            of_end.next().map(|of| of.time)
        };
        let times = [
            passing(message.from, message.from + 1),
            passing(message.from, message.to),
        ];
        times.into_iter().flatten().collect()
    }

    /// The times that may be said of one message after another.
    fn spans(&self, from: MessagePart, to: MessagePart) -> Vec<i64> {
        let (from, to) = (self.began(from), self.began(to));
        let pairs = from.iter().flat_map(|a| to.iter().map(move |b| (a, b)));
        pairs
            .map(|(a, b)| (*b as i64 - *a as i64) * US as i64)
            .collect()
    }
}

fn analyze(capture: &[u8]) -> (Observed, Tally) {
    let mut found = Observed::default();
    let (tally, fault) = read(capture, 1 << 16, LIMITS, &mut found);
    assert_eq!(fault, None);
    (found, tally)
}

/// How often a law had something to hold.
#[derive(Debug, Default)]
struct Seen {
    cases: u64,
    round_trips: u64,
    handshakes: u64,
    exchanges: u64,
    exchanges_unknown: u64,
    answers: u64,
    answers_unknown: u64,
    hellos: u64,
    hellos_unknown: u64,
}

/// The figures that a container must not change.
fn figures(found: &Observed) -> Vec<String> {
    let flows = found.flows.iter().map(|flow| {
        let sent = flow.sent.each_ref().map(|of| {
            (
                of.packets,
                of.payload_bytes,
                of.rare().retransmitted_bytes,
                of.rare().keep_alives,
                of.rare().duplicate_acks,
                of.round_trip.count(),
                of.round_trip.min(),
                of.round_trip.quantile(1.0),
            )
        });
        let handshake = (flow.syn_to_synack, flow.synack_to_ack);
        let tls = flow.application.tls().cloned();
        let http = flow.http.as_ref().map(|http| http.exchanges.clone());
        format!("{sent:?} {handshake:?} {tls:?} {http:?}")
    });
    flows.chain([format!("{:?}", found.answers)]).collect()
}

/// `found` is the right one, or none.
fn is_right(name: &str, found: Option<i64>, right: &[i64]) -> Result<bool, String> {
    match found {
        None => Ok(false),
        Some(found) if right.contains(&found) => Ok(true),
        Some(found) => Err(format!("{name}: {found}, not {right:?}")),
    }
}

fn check(seed: u64, seen: &mut Seen) -> Result<(), String> {
    let variant = Variant::new(seed);
    let plain = variant.file(&Container::plain(variant.container.v6));
    let (found, _) = analyze(&plain);
    seen.cases += 1;
    check_figures(&variant, &found, seen, true)?;
    let container = &variant.container;
    let file = variant.file(container);
    let (inside, tally) = analyze(&file);
    let right = figures(&found);
    if container.snap == 65_535 {
        if figures(&inside) != right {
            return Err(format!("{:?} is not {right:?}", figures(&inside)));
        }
    } else if container.headers() + 32 + 43 <= container.snap {
        check_figures(&variant, &inside, seen, false)?;
    } else if tally.flows > 2 {
        return Err(format!("{} flows", tally.flows));
    }
    if seed % 16 == 0 {
        valid_json(&file[..Random::new(seed).below(file.len() + 1)]);
    }
    Ok(())
}

/// `whole` says that no packet was cut.
fn check_figures(
    variant: &Variant,
    found: &Observed,
    seen: &mut Seen,
    whole: bool,
) -> Result<(), String> {
    let flows = &found.flows;
    if flows.len() != 1 {
        return Err(format!("{} flows", flows.len()));
    }
    let flow = &flows[0];
    let spoil = variant.spoil.0;
    let nothing = spoil == Spoil::Nothing;
    let nanos = |span: Option<SignedNanos>| span.map(|span| span.0);
    // The handshake.
    let missed = |flags: u8| {
        let found = variant
            .segments
            .iter()
            .any(|of| of.flags & (SYN | ACK) == flags);
        !found
    };
    for (name, found, right, missing) in [
        (
            "to server",
            flow.syn_to_synack,
            TO_SERVER,
            missed(SYN) || missed(SYN | ACK),
        ),
        (
            "to client",
            flow.synack_to_ack,
            TO_CLIENT,
            missed(SYN | ACK),
        ),
    ] {
        // Without the ACK it ends with the client's next packet.
        let later = match variant.spoil {
            (Spoil::Missed, 2) => variant.segments[2].time - variant.segments[1].time,
            _ => right,
        };
        let right = [right, later].map(|micros| (micros * US) as i64);
        let right: &[i64] = if missing { &[] } else { &right };
        let known = is_right(name, nanos(found), right)?;
        seen.handshakes += u64::from(known);
        if nothing && !known {
            return Err(format!("{name}: none"));
        }
    }
    // Round trips.
    for sample in &found.samples {
        let least = [TO_SERVER, TO_CLIENT][sample.sender as usize];
        // A swapped segment took the time of its neighbour.
        let least = (least - 100) * US;
        seen.round_trips += 1;
        if sample.round_trip.0 < least as i64 {
            return Err(format!("{sample:?} is too short"));
        }
    }
    // Counts.
    for side in Side::BOTH {
        let of_end = || variant.segments.iter().filter(|of| of.end == side as usize);
        let payload: usize = of_end().map(|of| of.payload.len()).sum();
        let repeated: usize = of_end()
            .filter(|of| of.repeat)
            .map(|of| of.payload.len())
            .sum();
        let repeated = if spoil == Spoil::LostBefore {
            0
        } else {
            repeated
        };
        let sent = flow.of(side);
        // A segment of one byte may be a probe.
        let short = of_end().any(|of| of.payload.len() == 1);
        let counts = (
            sent.payload_bytes,
            sent.rare().retransmitted_bytes,
            sent.rare().keep_alives,
        );
        if counts != (payload as u64, repeated as u64, 0) && !short {
            return Err(format!("{side:?} {counts:?}, not {payload} {repeated}"));
        }
    }
    check_application(variant, found, flow, seen, whole)
}

fn check_application(
    variant: &Variant,
    found: &Observed,
    flow: &Flow,
    seen: &mut Seen,
    whole: bool,
) -> Result<(), String> {
    let nothing = variant.spoil.0 == Spoil::Nothing;
    let turns = variant.exchanges.len();
    let spans: Vec<Vec<i64>> = (0..turns)
        .map(|turn| variant.spans(MessagePart::Request(turn), MessagePart::Response(turn)))
        .collect();
    // Answers of the server.
    let answers = found.answers.iter().filter(|of| of.side == Side::Server);
    let answers: Vec<i64> = answers.map(|of| of.response.0).collect();
    let all: Vec<i64> = spans.concat();
    for answer in &answers {
        is_right("answer", Some(*answer), &all)?;
    }
    seen.answers += answers.len() as u64;
    seen.answers_unknown += (turns.saturating_sub(answers.len())) as u64;
    let unclear = matches!(variant.speech, Speech::Tls13 | Speech::Retry);
    if answers.len() > turns
        || (nothing && whole && answers.len() + 3 * usize::from(unclear) < turns)
    {
        return Err(format!("answers {answers:?}, not {spans:?}"));
    }
    // TLS.
    let tls = flow.application.tls();
    let is_tls = matches!(
        variant.speech,
        Speech::Tls13 | Speech::Retry | Speech::Tls12
    );
    if tls.is_some() && !is_tls {
        return Err(format!("{tls:?}"));
    }
    if is_tls {
        use MessagePart::{ClientHello, Finished, ServerHello};
        let nanos = |span: Option<SignedNanos>| span.map(|span| span.0);
        let hello = tls.and_then(|tls| tls.to_server_hello());
        let finished = tls.and_then(|tls| tls.to_client_finished());
        let known = [
            is_right(
                "hello",
                nanos(hello),
                &variant.spans(ClientHello, ServerHello),
            )?,
            is_right(
                "finished",
                nanos(finished),
                &variant.spans(ServerHello, Finished),
            )?,
        ];
        let named = tls.map_or(true, |tls| {
            tls.sni
                .as_deref()
                .map_or(true, |name| name == "example.com")
                && tls.version.map_or(true, |version| {
                    (version == 0x0303) == (variant.speech == Speech::Tls12)
                })
        });
        seen.hellos += u64::from(known[0]);
        seen.hellos_unknown += u64::from(!known[0]);
        let never_lost = !matches!(variant.spoil.0, Spoil::Missed | Spoil::Midstream);
        if !named || (whole && never_lost && known != [true; 2]) {
            return Err(format!("{tls:?} {known:?}"));
        }
    }
    // HTTP.
    let exchanges = flow.http.as_ref().map_or(&[][..], |http| &http.exchanges);
    if variant.speech != Speech::Http {
        return match exchanges.is_empty() && flow.http.is_none() {
            true => Ok(()),
            false => Err(format!("{exchanges:?}")),
        };
    }
    let mut unknown = turns;
    for exchange in exchanges {
        let first = |time: Option<WallTime>| time.map(|time| (time.0 - EPOCH) / US);
        let request = first(exchange.request_first.get());
        let turn = (0..turns).find(|turn| {
            let began = variant.began(MessagePart::Request(*turn));
            request.is_some_and(|time| began.contains(&time))
        });
        let Some(turn) = turn else {
            if request.is_some() && exchange.response_first.is_some() {
                return Err(format!("{exchange:?}: no such request"));
            }
            continue;
        };
        let span = exchange.time_to_first_byte();
        let known = is_right("exchange", span.map(|span| span.0), &spans[turn])?;
        seen.exchanges += u64::from(known);
        unknown -= usize::from(known && unknown > 0);
        let (method, status) = &variant.exchanges[turn];
        if exchange.method().is_some_and(|of| of != method)
            || exchange.status.is_some_and(|of| of != *status)
        {
            return Err(format!("{exchange:?} is not {method} {status}"));
        }
        if nothing && whole && (!known || exchange.status.is_none()) {
            return Err(format!("{exchange:?}: not known"));
        }
    }
    seen.exchanges_unknown += unknown as u64;
    match nothing && whole && exchanges.len() != turns {
        true => Err(format!("{} exchanges, not {turns}", exchanges.len())),
        false => Ok(()),
    }
}

/// Files of the first segments of some cases.
pub(super) fn short_captures(count: u64) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (1..=count).map(|seed| {
        let mut variant = Variant::new(seed);
        variant.segments.truncate(12);
        (seed as usize, variant.file(&variant.container))
    })
}

/// The capture for the eye.
fn print(seed: u64) {
    let variant = Variant::new(seed);
    println!(
        "{} {:?} {:?} {:?} closed at {}",
        variant.seed, variant.speech, variant.spoil, variant.container, variant.closed
    );
    println!("{:?} {:?}", variant.exchanges, variant.messages);
    for (at, of) in variant.segments.iter().enumerate() {
        println!(
            "{at:3} {:>10} {} {:02x} seq={} end={} ack={} {}",
            of.time,
            ["c", "s"][of.end],
            of.flags,
            of.seq,
            of.seq + of.payload.len() as u32,
            of.ack,
            if of.repeat { "repeat" } else { "" }
        );
    }
}

#[test]
fn each_figure_of_a_variant_is_right_or_there_is_none() {
    let mut seen = Seen::default();
    let mut failed = String::new();
    let mut failures = 0;
    for seed in super::laws::cases(3000) {
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(seed, &mut seen)));
        let error = match outcome {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error,
            Err(_) => "panicked".to_owned(),
        };
        failures += 1;
        if failures <= 20 {
            let variant = Variant::new(seed);
            failed += &format!(
                "seed {seed} {:?} {:?}: {error}\n",
                variant.speech, variant.spoil
            );
        }
    }
    if std::env::var("STS_SEED").is_ok() {
        print(super::laws::cases(1).start);
    }
    println!("{seen:?}");
    assert!(failed.is_empty(), "{failures} failed:\n{failed}");
    let few = seen.cases < 100;
    assert!(seen.answers > 3 * seen.answers_unknown || few, "{seen:?}");
    assert!(seen.hellos > 3 * seen.hellos_unknown || few, "{seen:?}");
    assert!(
        seen.exchanges > 5 * seen.exchanges_unknown || few,
        "{seen:?}"
    );
}

/// The rest of the server's flight passed behind what the snap length cut off, and its tickets were
/// taken for an answer to the client's Finished.
#[test]
fn tickets_behind_a_flight_that_was_cut_off_are_no_answer() {
    for seed in [5_004_089, 5_008_627, 5_026_045, 5_029_539, 5_057_308] {
        let outcome = check(seed, &mut Seen::default());
        assert_eq!(outcome, Ok(()), "seed {seed}");
    }
}
