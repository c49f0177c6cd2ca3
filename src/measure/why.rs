//! The likely cause of a delay, from the statistics and the annotations of nodes and kernels.
//!
//! It explains the part that the verdict names. If the verdict names none, it explains and names
//! the part that is furthest beyond its limits. The delay of that part is the verdict's increase,
//! or its median if there is no baseline. The first rule that decides gives the cause. If none
//! does, the cause is `unknown`; without annotations only rule 5 gives one.
//!
//! | rule | cause | of | condition |
//! |---|---|---|---|
//! | 1 | `receiver-limited` | segment | the peer's window was full for 20 % of the busy time |
//! | 2 | `sender-limited` | segment | its send buffer was full for 20 % of the busy time |
//! | 3 | `network` | segment | the kernel's RTT is half of the delay, or 2 retransmissions |
//! | 4 | `network: between the kernels` | segment | arrivals known, and wake-ups are no cause |
//! | 5 | `B waits for its connections to C` | host | its connects take about as long as the delay |
//! | 6 | `memory pressure at C` | segment (its ends), host | `memory_pressure_some10` >= 0.1 |
//! | 7 | `host C is busy` | segment (its ends), host | load, CPU use or CPU pressure is high |
//! | 8 | `host C reads late` | segment (its ends), host | wake-ups (p95) are half of the delay |
//! | 9 | `application` | host, server | none of the above, and the load is known |
//! | - | `unknown` | | no rule decides |
//!
//! Shares are the smallest ones at which a rule decides.
//!
//! - Rules 1 and 2 compare `rwnd_limited_ns` and `sndbuf_limited_ns` of both ends with `busy_ns`,
//!   the time with data.
//! - Rule 4 needs arrivals of nine blocks of ten, and wake-up delays below half of the delay or
//!   left out by the verdict.
//! - Rule 5 needs no annotation, since nodes report connects when they introduce themselves. The
//!   shorter of the median connect and the delay is at least 3/4 of the longer. For a verdict by
//!   share the delay is the mean residence.
//! - Rule 7 means a `load1` of 1.5 per CPU, a `cpu_busy` of 0.9 or a `cpu_pressure_some10` of 0.3,
//!   or more.
//! - Rule 9 for the server needs a kernel's RTT below half of the delay; else it is `unknown`.
//!
//! The kernel's RTT of a segment B -> C is `downstream.rtt_ns` of B, or `upstream.rtt_ns` of C if B
//! reported none. For an increase it counts from the smallest known one: `min_rtt_ns`, or the first
//! that was reported. An RTT of more than 1.75 times the round trip's p95 is ignored. It contains a
//! delayed acknowledgement, 40 ms or more if data goes one way only. Counters are compared with the
//! first answer to the same request; a single answer counts from the connection's start.

use super::sla::Amount;
use super::{Basis, HostStatistics, SegmentStatistics, Sla, Statistics, Summary, VerdictKind};
use crate::annotation::NodeAnnotations;
use crate::time::{Nanos, SignedNanos};

/// Share of the busy time at which a connection counts as limited.
const LIMITED: f64 = 0.2;
/// Smallest share of the delay that a cause explains.
const MOST: f64 = 0.5;
/// Number of round trips beyond which a kernel's RTT contains a delayed acknowledgement.
const DELAYED_ACK: f64 = 1.75;
/// Smallest ratio of the shorter to the longer one of a delay and the connect that explains it.
const ALIKE: f64 = 0.75;
const RETRANSMISSIONS: f64 = 2.0;
const MEMORY_PRESSURE: f64 = 0.1;
const LOAD_PER_CPU: f64 = 1.5;
const CPU_BUSY: f64 = 0.9;
const CPU_PRESSURE: f64 = 0.3;

/// The annotations, names and connects of the nodes, from which a cause is derived.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// The latest annotations, one entry per hop.
    pub latest: &'a [NodeAnnotations],
    /// The first annotations that answered the same request, for the same hops or fewer.
    pub first: &'a [NodeAnnotations],
    /// The name of a hop.
    pub name: &'a dyn Fn(u8) -> String,
    /// The recent median time that the node at a hop took to connect to the next hop; `None` if
    /// unknown.
    pub connect: &'a dyn Fn(u8) -> Option<Nanos>,
}

/// Returns the likely cause: `unknown` if no rule decides, `None` if there is no annotation to
/// decide by.
pub fn cause(statistics: &Statistics, evidence: &Evidence<'_>) -> Option<String> {
    let subject = subject(statistics);
    let connects = match subject {
        Subject::Host(host) => waits_to_connect(statistics, host, evidence),
        _ => None,
    };
    let no_answer = evidence
        .latest
        .iter()
        .all(|node| node.annotations.is_empty());
    if no_answer && connects.is_none() {
        return None;
    }
    let decided = match subject {
        _ if connects.is_some() => connects,
        Subject::Segment(segment) => of_segment(statistics, segment, evidence),
        Subject::Host(host) => of_host(statistics, host, evidence),
        Subject::Server => of_server(statistics, evidence),
        Subject::None => None,
    };
    let name = |hop| (evidence.name)(hop);
    let unnamed = match subject {
        _ if statistics.verdict.kind != VerdictKind::None => None,
        Subject::Segment(part) => Some(format!("{} -> {}", name(part.from_hop), name(part.to_hop))),
        Subject::Host(part) => Some(name(part.hop)),
        Subject::Server | Subject::None => None,
    };
    Some(match (decided, unnamed) {
        (None, _) => "unknown".to_owned(),
        (Some(cause), None) => cause,
        // The verdict does not name the part.
        (Some(cause), Some(part)) => format!("{part}: {cause}"),
    })
}

/// Of so many blocks the wake-up delays at both ends have to be known before the network is blamed
/// without them.
const NETWORK_KNOWN: f64 = 0.9;

#[derive(Clone, Copy)]
enum Subject<'a> {
    Segment(&'a SegmentStatistics),
    Host(&'a HostStatistics),
    Server,
    None,
}

fn subject(statistics: &Statistics) -> Subject<'_> {
    let verdict = &statistics.verdict;
    let (segments, hosts) = (&statistics.segments, &statistics.hosts);
    let named = match verdict.kind {
        VerdictKind::Segment => verdict
            .index
            .and_then(|i| segments.get(i))
            .map(Subject::Segment),
        VerdictKind::Host => {
            let mut hosts = hosts.iter();
            let named = hosts.find(|host| Some(usize::from(host.hop)) == verdict.index);
            named.map(Subject::Host)
        }
        VerdictKind::Source => hosts.first().map(Subject::Host),
        VerdictKind::Server => Some(Subject::Server),
        // A stepped clock is its own cause.
        VerdictKind::Clock | VerdictKind::Down => Some(Subject::None),
        VerdictKind::Connect | VerdictKind::Behind => Some(Subject::None),
        VerdictKind::None => None,
    };
    let beyond =
        |sla: Sla, share: Option<f64>| (sla > Sla::Ok).then(|| (sla, share.unwrap_or(0.0)));
    let segment = segments
        .iter()
        .map(|s| (beyond(s.sla, s.share), Subject::Segment(s)));
    let host = hosts
        .iter()
        .map(|h| (beyond(h.sla, h.share), Subject::Host(h)));
    let worst = segment
        .chain(host)
        .filter_map(|(beyond, subject)| Some((beyond?, subject)));
    let worst = worst
        .max_by(|((one, share), _), ((other, than), _)| one.cmp(other).then(share.total_cmp(than)));
    named
        .or_else(|| worst.map(|(_, subject)| subject))
        .unwrap_or(Subject::None)
}

/// Returns the delay to explain, in nanoseconds, and `true` if it is an increase.
fn delay(statistics: &Statistics, part: Option<Summary>) -> Option<(f64, bool)> {
    let verdict = &statistics.verdict;
    let grown = verdict.increase.filter(|increase| {
        verdict.basis == Some(Basis::Increase)
            && verdict.kind != VerdictKind::None
            && increase.0 > 0
    });
    let whole = part.map(|part| (part.p50.0 as f64, false));
    grown.map(|increase| (increase.0 as f64, true)).or(whole)
}

impl Evidence<'_> {
    fn number(&self, hop: u8, name: &str) -> Option<f64> {
        let node = self.latest.iter().find(|node| node.hop == hop)?;
        node.number(name)
    }

    /// Returns the growth of a counter, or its value if it was reported only once.
    fn grown(&self, hop: u8, name: &str) -> Option<f64> {
        let latest = self.latest.iter().find(|node| node.hop == hop)?;
        let first = self.first.iter().find(|node| node.hop == hop);
        let first = first.filter(|first| first.sequence != latest.sequence);
        let now = latest.number(name)?;
        match first.and_then(|first| first.number(name)) {
            // A smaller value belongs to another connection.
            Some(before) if before <= now => Some(now - before),
            _ => Some(now),
        }
    }

    /// Returns the smallest RTT of a connection that the kernel of `hop` knows, in nanoseconds.
    fn least_rtt(&self, hop: u8, side: &str) -> Option<f64> {
        let first = self.first.iter().find(|node| node.hop == hop);
        let first = first.and_then(|first| first.number(&format!("{side}.rtt_ns")));
        let least = self.number(hop, &format!("{side}.min_rtt_ns"));
        least.into_iter().chain(first).reduce(f64::min)
    }
}

/// Returns the part of a segment's delay that the kernel's RTT explains, in nanoseconds.
fn kernel_part(segment: &SegmentStatistics, evidence: &Evidence<'_>, grown: bool) -> Option<f64> {
    let near = (segment.from_hop, "downstream");
    let far = (segment.to_hop, "upstream");
    let longest = segment
        .round_trip
        .map(|trip| trip.p95.0 as f64 * DELAYED_ACK);
    let believed = |&(hop, side): &(u8, &str)| {
        let rtt = evidence.number(hop, &format!("{side}.rtt_ns"))?;
        if longest.is_some_and(|longest| rtt > longest) {
            return None;
        }
        Some(if grown {
            (rtt - evidence.least_rtt(hop, side)?).max(0.0)
        } else {
            rtt
        })
    };
    [near, far].iter().find_map(believed)
}

fn of_segment(
    statistics: &Statistics,
    segment: &SegmentStatistics,
    evidence: &Evidence<'_>,
) -> Option<String> {
    let (near, far) = (segment.from_hop, segment.to_hop);
    // Each end sends: the near one blocks, the far one their return.
    let sides = [(near, "downstream", far), (far, "upstream", near)];
    for (counter, kind) in [
        ("rwnd_limited_ns", "receiver-limited"),
        ("sndbuf_limited_ns", "sender-limited"),
    ] {
        for (hop, side, peer) in sides {
            let grown = |name: &str| evidence.grown(hop, &format!("{side}.{name}"));
            let (Some(limited), Some(busy)) = (grown(counter), grown("busy_ns")) else {
                continue;
            };
            if busy > 0.0 && limited / busy >= LIMITED {
                let percent = (limited / busy * 100.0).min(100.0);
                let (own, peer) = ((evidence.name)(hop), (evidence.name)(peer));
                let limit = if counter.starts_with("rwnd") {
                    format!("{peer}'s window was full")
                } else {
                    format!("{own}'s send buffer was full")
                };
                let when = format!("for {percent:.0} % of the time that {own} had data for {peer}");
                return Some(format!("{kind}: {limit} {when}"));
            }
        }
    }
    let delay = delay(statistics, segment.round_trip);
    let kernel = delay.and_then(|(_, grown)| kernel_part(segment, evidence, grown));
    let share = delay
        .zip(kernel)
        .map(|((delay, _), kernel)| kernel / delay.max(1.0));
    let retransmissions =
        sides.map(|(hop, side, _)| evidence.grown(hop, &format!("{side}.retransmits")));
    let retransmissions: f64 = retransmissions.into_iter().flatten().sum();
    let is_network = share.is_some_and(|share| share >= MOST);
    if is_network || retransmissions >= RETRANSMISSIONS {
        let mut text = "network: ".to_owned();
        if let (true, Some((delay, grown)), Some(kernel)) = (is_network, delay, kernel) {
            text += &if grown {
                "both round trip and the kernel's RTT rose".to_owned()
            } else if kernel > delay {
                // It is smoothed, over all that the connection carries, and has delayed
                // acknowledgements in it.
                format!(
                    "the kernel's RTT, smoothed over all its traffic, is {} beside {} here",
                    span(kernel),
                    span(delay)
                )
            } else {
                format!("the kernel's RTT is {} of {}", span(kernel), span(delay))
            };
        }
        if retransmissions > 0.0 {
            let comma = if is_network { ", " } else { "" };
            let plural = if retransmissions == 1.0 { "" } else { "s" };
            text += &format!("{comma}{retransmissions:.0} retransmission{plural}");
        }
        return Some(text);
    }
    let unchanged = match (kernel, delay) {
        (Some(_), Some((_, true))) => ", kernel RTT unchanged".to_owned(),
        (Some(kernel), _) => format!(", the kernel's RTT is {}", span(kernel)),
        _ => String::new(),
    };
    // A block waits at the far end first.
    let ends = [far, near];
    let hosts = ends.map(|hop| statistics.hosts.iter().find(|host| host.hop == hop));
    let late = |host: &HostStatistics| {
        let summary = if host.hop == far {
            host.forward_wake_up
        } else {
            host.return_wake_up
        };
        reads_late(host.hop, summary.into_iter(), delay, evidence)
    };
    let late = hosts.into_iter().flatten().find_map(late);
    let known = segment.network.zip(segment.round_trip);
    let known =
        known.is_some_and(|(part, all)| part.count as f64 >= all.count as f64 * NETWORK_KNOWN);
    // A verdict on such a segment is about its delay without the wake-ups.
    let without_wake_ups = statistics.verdict.kind == VerdictKind::Segment;
    if known && (without_wake_ups || late.is_none()) {
        let (near, far) = ((evidence.name)(near), (evidence.name)(far));
        let beyond = match kernel {
            Some(_) => ", and TCP's own RTT does not show it: a proxy or a queue between them",
            None => "",
        };
        return Some(format!(
            "network: it lies between the kernels of {near} and {far}{beyond}"
        ));
    }
    ends.iter()
        .find_map(|&hop| memory(hop, evidence))
        .or_else(|| busiest(&ends, evidence))
        .map(|text| text + &unchanged)
        .or(late)
}

fn of_host(
    statistics: &Statistics,
    host: &HostStatistics,
    evidence: &Evidence<'_>,
) -> Option<String> {
    let hop = host.hop;
    let delay = delay(statistics, host.forward_residence);
    let late = [host.forward_wake_up, host.return_wake_up];
    memory(hop, evidence)
        .or_else(|| busiest(&[hop], evidence))
        .or_else(|| reads_late(hop, late.into_iter().flatten(), delay, evidence))
        .or_else(|| {
            let (delay, _) = delay?;
            let load = load(hop, evidence)?;
            let name = (evidence.name)(hop);
            Some(format!(
                "application: {name} took {}, and is not busy: {load}",
                span(delay)
            ))
        })
}

/// Applies rule 5: a block that arrives before its node has connected to the next hop waits for
/// that.
fn waits_to_connect(
    statistics: &Statistics,
    host: &HostStatistics,
    evidence: &Evidence<'_>,
) -> Option<String> {
    if statistics.verdict.reads_late {
        return None;
    }
    let connect = (evidence.connect)(host.hop)?.0 as f64;
    let delay = match delay(statistics, host.forward_residence)? {
        (increase, true) => increase,
        _ => host.forward_residence?.mean.0 as f64,
    };
    let alike = connect.min(delay) >= ALIKE * connect.max(delay);
    alike.then(|| {
        let (own, connect) = ((evidence.name)(host.hop), span(connect));
        let next = statistics.hosts.iter().find(|next| next.hop > host.hop);
        let next = next.map_or_else(|| "the server".to_owned(), |next| (evidence.name)(next.hop));
        format!(
            "{own} waits for its connections to {next}, which take {connect}: \
             the network between {own} and {next}, or how fast {next} accepts"
        )
    })
}

fn of_server(statistics: &Statistics, evidence: &Evidence<'_>) -> Option<String> {
    let exit = statistics.hosts.last()?.hop;
    let (delay, _) = delay(statistics, statistics.behind_exit)?;
    let rtt = evidence.number(exit, "downstream.rtt_ns")?;
    (rtt < delay * MOST).then(|| {
        let name = (evidence.name)(exit);
        format!(
            "application: the server behind {name} took {}, the kernel's RTT to it is {}",
            span(delay),
            span(rtt)
        )
    })
}

fn memory(hop: u8, evidence: &Evidence<'_>) -> Option<String> {
    let pressure = evidence.number(hop, "memory_pressure_some10")?;
    (pressure >= MEMORY_PRESSURE).then(|| {
        let (name, percent) = ((evidence.name)(hop), pressure * 100.0);
        format!(
            "memory pressure at {name}: tasks waited for memory for {percent:.0} % of the \
             last 10 s"
        )
    })
}

/// Applies rule 7 to the busiest of these hosts.
fn busiest(hops: &[u8], evidence: &Evidence<'_>) -> Option<String> {
    let busy = hops.iter().filter_map(|&hop| {
        let load = evidence
            .number(hop, "load1")
            .zip(evidence.number(hop, "cpus"));
        let load = load.map(|(load, cpus)| load / cpus.max(1.0) / LOAD_PER_CPU);
        let busy = evidence.number(hop, "cpu_busy").map(|busy| busy / CPU_BUSY);
        let pressure = evidence.number(hop, "cpu_pressure_some10");
        let pressure = pressure.map(|pressure| pressure / CPU_PRESSURE);
        let degree = [load, busy, pressure]
            .into_iter()
            .flatten()
            .reduce(f64::max)?;
        (degree >= 1.0).then_some((degree, hop))
    });
    let (_, hop) = busy.max_by(|one, other| one.0.total_cmp(&other.0))?;
    let load = load(hop, evidence)?;
    Some(format!("host {} is busy: {load}", (evidence.name)(hop)))
}

/// Returns the load of a host in words; `None` if it reported none.
fn load(hop: u8, evidence: &Evidence<'_>) -> Option<String> {
    let mut texts = Vec::new();
    if let Some(load) = evidence.number(hop, "load1") {
        let cpus = evidence.number(hop, "cpus");
        let plural = if cpus == Some(1.0) { "" } else { "s" };
        let cpus = cpus.map_or_else(String::new, |cpus| format!(" on {cpus} CPU{plural}"));
        texts.push(format!("load {load:.1}{cpus}"));
    }
    for (name, words) in [
        ("cpu_busy", "CPUs busy for"),
        ("cpu_pressure_some10", "tasks waited for a CPU for"),
    ] {
        let share = evidence.number(hop, name).map(|share| share * 100.0);
        texts.extend(share.map(|percent| format!("{words} {percent:.0} % of the time")));
    }
    (!texts.is_empty()).then(|| texts.join(", "))
}

fn reads_late(
    hop: u8,
    wake_ups: impl Iterator<Item = Summary>,
    delay: Option<(f64, bool)>,
    evidence: &Evidence<'_>,
) -> Option<String> {
    let (delay, _) = delay?;
    let worst = wake_ups
        .map(|summary| summary.p95.0 as f64)
        .reduce(f64::max)?;
    (worst >= delay * MOST).then(|| {
        let (name, worst) = ((evidence.name)(hop), span(worst));
        format!("host {name} reads late: {worst} after its kernel has the data (p95)")
    })
}

fn span(nanos: f64) -> String {
    Amount::Span(SignedNanos(nanos as i64)).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::HostStatistics;
    use super::*;
    use crate::annotation::{AnnotationValue, HostAnnotation};
    use crate::time::Nanos;

    fn summary(ms: f64) -> Option<Summary> {
        let value = SignedNanos((ms * 1e6) as i64);
        Some(Summary {
            count: 100,
            min: value,
            mean: value,
            stddev: Nanos::ZERO,
            p50: value,
            p90: value,
            p95: value,
            p99: value,
            max: value,
            last: value,
        })
    }

    /// A -> B -> C: A -> B takes 1 ms, B -> C 10 ms, 5 ms of that for an increase. Nothing is
    /// named.
    fn path() -> Statistics {
        let segment = |from_hop: u8, ms| SegmentStatistics {
            from_hop,
            to_hop: from_hop + 1,
            round_trip: summary(ms),
            ..SegmentStatistics::default()
        };
        let host = |hop| HostStatistics {
            hop,
            forward_residence: summary(3.0),
            forward_wake_up: summary(0.02),
            return_wake_up: summary(0.02),
            ..HostStatistics::default()
        };
        Statistics {
            round_trip: summary(20.0),
            segments: vec![segment(0, 1.0), segment(1, 10.0)],
            hosts: (0..3).map(host).collect(),
            behind_exit: summary(30.0),
            ..Statistics::default()
        }
    }

    /// The path, with a verdict on this part for an increase of 5 ms.
    fn grown(kind: VerdictKind, index: usize) -> Statistics {
        let mut statistics = path();
        statistics.verdict.kind = kind;
        statistics.verdict.index = Some(index);
        statistics.verdict.basis = Some(Basis::Increase);
        statistics.verdict.increase = Some(SignedNanos(5_000_000));
        statistics
    }

    fn largest(kind: VerdictKind, index: usize) -> Statistics {
        let mut statistics = grown(kind, index);
        statistics.verdict.basis = None;
        statistics.verdict.increase = None;
        statistics
    }

    fn annotations(hop: u8, sequence: u64, annotations: &[(&str, f64)]) -> NodeAnnotations {
        let annotation = |&(name, value): &(&str, f64)| HostAnnotation {
            name: name.into(),
            value: AnnotationValue::Number(value),
        };
        NodeAnnotations {
            hop,
            sequence,
            annotations: annotations.iter().map(annotation).collect(),
        }
    }

    fn name(hop: u8) -> String {
        char::from(b'A' + hop).to_string()
    }

    fn why(
        statistics: &Statistics,
        latest: &[NodeAnnotations],
        first: &[NodeAnnotations],
    ) -> String {
        let evidence = Evidence {
            latest,
            first,
            name: &name,
            connect: &|_| None,
        };
        cause(statistics, &evidence).expect("there is a cause")
    }

    const IDLE: [(&str, f64); 3] = [("load1", 0.3), ("cpus", 4.0), ("cpu_busy", 0.1)];

    #[test]
    fn without_an_answer_there_is_no_cause_and_without_a_subject_it_is_unknown() {
        let none = Evidence {
            latest: &[],
            first: &[],
            name: &name,
            connect: &|_| Some(Nanos::from_millis(5)),
        };
        assert_eq!(cause(&grown(VerdictKind::Segment, 1), &none), None);
        let evidence = [annotations(2, 1, &[("load1", 99.0), ("cpus", 1.0)])];
        assert_eq!(why(&path(), &evidence, &[]), "unknown");
        assert_eq!(
            why(&grown(VerdictKind::Clock, 1), &evidence, &[]),
            "unknown"
        );
    }

    #[test]
    fn where_the_verdict_names_nothing_the_part_beyond_its_limits_is_explained() {
        let mut statistics = path();
        statistics.segments[0].sla = Sla::Warning;
        statistics.segments[1].sla = Sla::Critical;
        let evidence = [annotations(1, 1, &[("downstream.rtt_ns", 9e6)])];
        assert_eq!(
            why(&statistics, &evidence, &[]),
            "B -> C: network: the kernel's RTT is 9 ms of 10 ms"
        );
        statistics.segments[1].sla = Sla::Ok;
        assert_eq!(why(&statistics, &evidence, &[]), "unknown");
    }

    #[test]
    fn rule_1_and_2_a_full_window_is_the_receivers_and_a_full_buffer_the_senders() {
        let statistics = grown(VerdictKind::Segment, 1);
        let first = annotations(
            1,
            5,
            &[
                ("downstream.busy_ns", 9e9),
                ("downstream.rwnd_limited_ns", 0.0),
            ],
        );
        let now = |limited, sndbuf| {
            let row = [
                ("downstream.busy_ns", 10e9),
                ("downstream.rwnd_limited_ns", limited),
                ("downstream.sndbuf_limited_ns", sndbuf),
                ("downstream.rtt_ns", 6e6),
                ("downstream.min_rtt_ns", 1e6),
            ];
            [annotations(1, 9, &row)]
        };
        let first = [first];
        assert_eq!(
            why(&statistics, &now(0.45e9, 0.0), &first),
            "receiver-limited: C's window was full for 45 % of the time that B had data for C"
        );
        // Of the whole life it is 5 %: an old connection's past does not count.
        assert!(why(&statistics, &now(0.45e9, 0.0), &[]).starts_with("network"));
        assert!(why(&statistics, &now(0.19e9, 0.0), &first).starts_with("network"));
        assert_eq!(
            why(&statistics, &now(0.0, 3e9), &[]),
            "sender-limited: B's send buffer was full for 30 % of the time that B had data for C"
        );
        let back = [("upstream.busy_ns", 1e9), ("upstream.rwnd_limited_ns", 1e9)];
        assert_eq!(
            why(&statistics, &[annotations(2, 9, &back)], &[]),
            "receiver-limited: B's window was full for 100 % of the time that C had data for B"
        );
    }

    #[test]
    fn rule_3_the_network_is_what_the_kernel_sees_too() {
        let statistics = grown(VerdictKind::Segment, 1);
        let near = |rtt: f64, retransmits| {
            let row = [
                ("downstream.rtt_ns", rtt),
                ("downstream.min_rtt_ns", 1e6),
                ("downstream.retransmits", retransmits),
            ];
            [annotations(1, 9, &row)]
        };
        assert_eq!(
            why(&statistics, &near(6e6, 12.0), &[]),
            "network: both round trip and the kernel's RTT rose, 12 retransmissions"
        );
        assert_eq!(
            why(&statistics, &near(3.5e6, 0.0), &[]),
            "network: both round trip and the kernel's RTT rose"
        );
        assert_eq!(why(&statistics, &near(3.4e6, 0.0), &[]), "unknown");
        assert_eq!(why(&statistics, &near(1e6, 1.0), &[]), "unknown");
        assert_eq!(
            why(&statistics, &near(1e6, 2.0), &[]),
            "network: 2 retransmissions"
        );
        let first = [annotations(1, 5, &[("downstream.retransmits", 11.0)])];
        assert_eq!(why(&statistics, &near(1e6, 12.0), &first), "unknown");
        // The far end's view if the near one has none.
        let far = [annotations(
            2,
            9,
            &[("upstream.rtt_ns", 6e6), ("upstream.min_rtt_ns", 1e6)],
        )];
        assert!(why(&statistics, &far, &[]).starts_with("network: both"));
        assert_eq!(
            why(&largest(VerdictKind::Segment, 1), &near(9.5e6, 0.0), &[]),
            "network: the kernel's RTT is 9.5 ms of 10 ms"
        );
    }

    #[test]
    fn rule_3_a_delayed_acknowledgement_is_not_the_network() {
        let statistics = grown(VerdictKind::Segment, 1);
        let row = [("downstream.rtt_ns", 44e6), ("downstream.min_rtt_ns", 1e6)];
        assert_eq!(why(&statistics, &[annotations(1, 9, &row)], &[]), "unknown");
        let far = annotations(
            2,
            9,
            &[("upstream.rtt_ns", 6e6), ("upstream.min_rtt_ns", 1e6)],
        );
        assert!(why(&statistics, &[annotations(1, 9, &row), far], &[]).starts_with("network"));
    }

    #[test]
    fn rule_5_a_host_whose_connects_take_as_long_as_its_delay_waits_for_them() {
        let after_connects_of =
            |statistics: &Statistics, connect_us: u64, latest: &[NodeAnnotations]| {
                let evidence = Evidence {
                    latest,
                    first: &[],
                    name: &name,
                    connect: &|hop| (hop > 0).then(|| Nanos::from_micros(connect_us)),
                };
                cause(statistics, &evidence)
            };
        // Connects are known without annotations.
        let says = "B waits for its connections to C, which take 5.1 ms: \
                    the network between B and C, or how fast C accepts";
        let mut statistics = grown(VerdictKind::Host, 1);
        let of = |statistics: &Statistics, connect_us| {
            after_connects_of(statistics, connect_us, &[]).unwrap_or_default()
        };
        assert_eq!(of(&statistics, 5_100), says);
        // Busy or not.
        let busy = [annotations(1, 9, &[("load1", 9.1), ("cpus", 2.0)])];
        let evidence = after_connects_of(&statistics, 5_100, &busy);
        assert_eq!(evidence.as_deref(), Some(says));
        // As long as the increase of 5 ms, more or less.
        for (connect_us, decides) in [(3_700, false), (3_800, true), (6_600, true), (6_700, false)]
        {
            assert_eq!(
                !of(&statistics, connect_us).is_empty(),
                decides,
                "{connect_us}"
            );
        }
        // A process that reads late does not wait for a connect.
        statistics.verdict.reads_late = true;
        assert_eq!(of(&statistics, 5_100), "");
        // By share it is the mean that counts: 3 ms, whatever the median is.
        let mut statistics = largest(VerdictKind::Host, 1);
        statistics.hosts[1].forward_residence = summary(0.1).map(|part| Summary {
            mean: SignedNanos(3_000_000),
            ..part
        });
        assert!(of(&statistics, 3_100).contains(", which take 3.1 ms: "));
        assert_eq!(of(&statistics, 2_200), "");
        // The server is behind the last node; a node that reported no connects has none.
        assert_eq!(
            of(&grown(VerdictKind::Host, 2), 5_000),
            "C waits for its connections to the server, which take 5 ms: \
             the network between C and the server, or how fast the server accepts"
        );
        assert_eq!(of(&grown(VerdictKind::Host, 0), 5_000), "");
        assert_eq!(of(&grown(VerdictKind::Segment, 1), 5_000), "");
    }

    #[test]
    fn rule_6_memory_pressure_names_the_end_that_has_it() {
        let row = [
            ("memory_pressure_some10", 0.23),
            ("load1", 30.0),
            ("cpus", 2.0),
        ];
        let evidence = [annotations(2, 9, &row)];
        let says = "memory pressure at C: tasks waited for memory for 23 % of the last 10 s";
        assert_eq!(why(&grown(VerdictKind::Segment, 1), &evidence, &[]), says);
        assert_eq!(why(&grown(VerdictKind::Host, 2), &evidence, &[]), says);
        let row = [("memory_pressure_some10", 0.09)];
        let evidence = [annotations(2, 9, &row)];
        assert_eq!(
            why(&grown(VerdictKind::Segment, 1), &evidence, &[]),
            "unknown"
        );
        // An end of another segment.
        let row = [("memory_pressure_some10", 0.5)];
        let evidence = [annotations(0, 9, &row)];
        assert_eq!(
            why(&grown(VerdictKind::Segment, 1), &evidence, &[]),
            "unknown"
        );
    }

    #[test]
    fn rule_4_what_lies_between_two_kernels_is_no_busy_hosts() {
        let mut statistics = grown(VerdictKind::Segment, 1);
        let busy = annotations(2, 9, &[("load1", 9.1), ("cpus", 2.0)]);
        statistics.segments[1].network = summary(8.0);
        statistics.hosts[2].forward_wake_up = summary(9.0); // Left out by the verdict.
        let between = "network: it lies between the kernels of B and C";
        let evidence = [busy.clone()];
        assert_eq!(why(&statistics, &evidence, &[]), between);
        let kernel = [("downstream.rtt_ns", 1.1e6), ("downstream.min_rtt_ns", 1e6)];
        let evidence = [annotations(1, 9, &kernel), busy.clone()];
        assert_eq!(
            why(&statistics, &evidence, &[]),
            format!(
                "{between}, and TCP's own RTT does not show it: a proxy or a queue between them"
            )
        );
        // Where only a limit is exceeded, the whole round trip is: the wake-up delays count.
        let mut statistics = path();
        statistics.segments[1].sla = Sla::Critical;
        statistics.segments[1].network = summary(8.0);
        assert!(why(&statistics, &evidence, &[]).contains(between));
        statistics.hosts[2].forward_wake_up = summary(9.0);
        assert!(why(&statistics, &evidence, &[]).contains("host C is busy"));
        // Known of too few blocks.
        let mut statistics = grown(VerdictKind::Segment, 1);
        statistics.segments[1].network = summary(8.0).map(|part| Summary { count: 80, ..part });
        assert!(why(&statistics, &evidence, &[]).starts_with("host C is busy"));
    }

    #[test]
    fn rule_7_a_busy_host_is_one_while_the_kernel_sees_no_change() {
        let statistics = grown(VerdictKind::Segment, 1);
        let busy = annotations(2, 9, &[("load1", 9.1), ("cpus", 2.0)]);
        let kernel = |rtt: f64| {
            let row = [("downstream.rtt_ns", rtt), ("downstream.min_rtt_ns", 1e6)];
            annotations(1, 9, &row)
        };
        let evidence = |rtt| [kernel(rtt), busy.clone()];
        assert_eq!(
            why(&statistics, &evidence(1.1e6), &[]),
            "host C is busy: load 9.1 on 2 CPUs, kernel RTT unchanged"
        );
        assert!(why(&statistics, &evidence(6e6), &[]).starts_with("network"));
        assert_eq!(
            why(&statistics, std::slice::from_ref(&busy), &[]),
            "host C is busy: load 9.1 on 2 CPUs"
        );
        assert_eq!(
            why(&grown(VerdictKind::Host, 2), &[busy], &[]),
            "host C is busy: load 9.1 on 2 CPUs"
        );
        for (row, says) in [
            (
                ("cpu_busy", 0.95),
                "host C is busy: CPUs busy for 95 % of the time",
            ),
            (
                ("cpu_pressure_some10", 0.4),
                "host C is busy: tasks waited for a CPU for 40 % of the time",
            ),
            (("cpu_busy", 0.8), "unknown"),
            (("cpu_pressure_some10", 0.2), "unknown"),
        ] {
            assert_eq!(why(&statistics, &[annotations(2, 9, &[row])], &[]), says);
        }
    }

    #[test]
    fn rule_8_a_late_reader_is_found_by_its_wake_up_delay() {
        let mut statistics = grown(VerdictKind::Segment, 1);
        let evidence = [annotations(2, 9, &IDLE)];
        statistics.hosts[2].forward_wake_up = summary(2.4);
        assert_eq!(why(&statistics, &evidence, &[]), "unknown");
        statistics.hosts[2].forward_wake_up = summary(2.6);
        assert_eq!(
            why(&statistics, &evidence, &[]),
            "host C reads late: 2.6 ms after its kernel has the data (p95)"
        );
        // The return path of C -> D is not of this segment.
        let mut statistics = grown(VerdictKind::Segment, 1);
        statistics.hosts[2].return_wake_up = summary(9.0);
        assert_eq!(why(&statistics, &evidence, &[]), "unknown");
        statistics.hosts[1].return_wake_up = summary(9.0);
        assert!(why(&statistics, &evidence, &[]).starts_with("host B reads late: 9 ms"));
    }

    #[test]
    fn rule_9_what_an_idle_host_or_a_near_server_takes_is_the_applications() {
        let evidence = [annotations(2, 9, &IDLE)];
        assert_eq!(
            why(&grown(VerdictKind::Host, 2), &evidence, &[]),
            "application: C took 5 ms, and is not busy: load 0.3 on 4 CPUs, CPUs busy for 10 % of \
                 the time"
        );
        assert_eq!(
            why(&grown(VerdictKind::Host, 1), &evidence, &[]),
            "unknown",
            "B reported nothing"
        );
        let server = largest(VerdictKind::Server, 0);
        let rtt = |rtt| [annotations(2, 9, &[("downstream.rtt_ns", rtt)])];
        assert_eq!(
            why(&server, &rtt(0.2e6), &[]),
            "application: the server behind C took 30 ms, the kernel's RTT to it is 200 us"
        );
        assert_eq!(why(&server, &rtt(29e6), &[]), "unknown");
    }
}
