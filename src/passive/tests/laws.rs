//! Laws over connections made by chance: each figure is right, or there is none.

use super::build::*;
use super::generator::{Case, Sent};
use crate::passive::*;

/// Counts of what the cases had, so that a law that never applies is found.
#[derive(Debug, Default)]
struct Seen {
    cases: u64,
    flows: u64,
    exact: u64,
    /// The first acknowledgment is not in the capture: measured to the next that is.
    later_ack: u64,
    /// Lost behind the capture point, and the repeat that was answered is not in the capture.
    unseen_repeat: u64,
    handshakes: u64,
    probes: u64,
    /// Of cases where nothing was lost, late or missing: acknowledgments of data, and figures.
    clean_acks: u64,
    clean_samples: u64,
}

impl Seen {
    fn add(&mut self, of: &Self) {
        for (sum, more) in [
            (&mut self.cases, of.cases),
            (&mut self.flows, of.flows),
            (&mut self.exact, of.exact),
            (&mut self.later_ack, of.later_ack),
            (&mut self.unseen_repeat, of.unseen_repeat),
            (&mut self.handshakes, of.handshakes),
            (&mut self.probes, of.probes),
            (&mut self.clean_acks, of.clean_acks),
            (&mut self.clean_samples, of.clean_samples),
        ] {
            *sum += more;
        }
    }
}

/// Returns `true` if `ack` answers `data`: it was sent after it came, and covers its beginning.
fn answers(ack: &Sent, data: &Sent) -> bool {
    ack.from != data.from
        && ack.flags & ACK != 0
        && ack.flags & RST == 0
        && ack.ack.wrapping_sub(data.seq) as i32 > 0
        && data.arrived.is_some_and(|arrived| ack.sent >= arrived)
}

/// Checks one round trip against all that happened.
fn check_sample(case: &Case, sample: &Sample, seen: &mut Seen) -> Result<(), String> {
    let from = sample.sender as usize;
    let until = sample.time.0 - EPOCH;
    let since = until as i64 - sample.round_trip.0;
    let passing = |time: i64, from: usize| {
        let found = case.file.iter().filter(move |of| of.0 as i64 == time);
        found
            .map(|of| &case.packets[of.1])
            .filter(move |of| of.from == from)
    };
    let captured = |of: &&Sent| of.captured;
    let mut why = "no packets at these times".to_owned();
    for data in passing(since, from).filter(|of| of.takes_space()) {
        for ack in passing(until as i64, 1 - from) {
            let earlier = |of: &&Sent| {
                answers(of, data)
                    && of.ack.wrapping_sub(data.end()) as i32 >= 0
                    && of.sent < ack.sent
            };
            if answers(ack, data) {
                if data.waited {
                    why = "it waited for a repeat".to_owned();
                } else if case
                    .packets
                    .iter()
                    .filter(captured)
                    .any(|of| earlier(&of) && of.passed < Some(until))
                {
                    why = "an earlier acknowledgment was captured".to_owned();
                } else {
                    match case.packets.iter().any(|of| earlier(&of)) {
                        true => seen.later_ack += 1,
                        false => seen.exact += 1,
                    }
                    return Ok(());
                }
            } else {
                why = "the acknowledgment does not answer it".to_owned();
            }
            // What came instead of it, or filled the hole before it, was not captured.
            let unseen = |of: &&Sent| {
                of.repeats && !of.captured && of.arrived.is_some_and(|time| ack.sent >= time)
            };
            let instead = case
                .packets
                .iter()
                .filter(unseen)
                .any(|of| of.from == from && (data.waited || data.overlaps(of)));
            if instead && (data.waited || data.arrived.map_or(true, |time| time > ack.sent)) {
                seen.unseen_repeat += 1;
                return Ok(());
            }
        }
    }
    Err(format!("{sample:?}: {why}"))
}

/// Checks the counts of one direction.
fn check_counts(case: &Case, flow: &Flow, side: Side) -> Result<(), String> {
    let from = side as usize;
    let sent = flow.of(side);
    let of_side = || {
        case.file
            .iter()
            .map(|of| &case.packets[of.1])
            .filter(|of| of.from == from)
    };
    let count = |flags: u8, set: u8| of_side().filter(|of| of.flags & flags == set).count() as u64;
    let pairs = [
        ("packets", sent.packets, count(0, 0)),
        ("syn", sent.syn().count, count(SYN | ACK, SYN)),
        ("syn_ack", sent.syn_ack().count, count(SYN | ACK, SYN | ACK)),
        ("fin", sent.fin.count, count(FIN, FIN)),
        ("rst", sent.rare().rst.count, count(RST, RST)),
    ];
    for (name, found, right) in pairs {
        if found != right {
            return Err(format!("{side:?} {name}: {found}, not {right}"));
        }
    }
    let data: Vec<&Sent> = of_side().filter(|of| of.length > 0 && !of.probe).collect();
    let probes = of_side().filter(|of| of.probe && of.flags == ACK && case.mix.probes > 0);
    let base = case
        .packets
        .iter()
        .find(|of| of.from == from)
        .map_or(0, |of| of.seq);
    let probes = match probes
        .clone()
        .any(|of| of.end().wrapping_sub(base) > 1 << 30)
    {
        true => 0,
        false => probes.filter(|of| is_probe(case, of)).count() as u64,
    };
    // A capture that begins with a probe of one byte cannot distinguish it from data.
    let first = of_side().next();
    if first.is_some_and(|of| of.probe && of.length == 1) {
        return Ok(());
    }
    // Nor an empty segment before a FIN that is not in it from a probe.
    let unseen_fin = |of: &Sent| !of.captured && of.from == from && of.flags & FIN != 0;
    let fin = case
        .packets
        .iter()
        .find(|of| unseen_fin(of))
        .map(|of| of.seq);
    if first.is_some_and(|of| !of.takes_space() && fin == Some(of.seq)) {
        return Ok(());
    }
    let payload: u64 = data.iter().map(|of| u64::from(of.length)).sum();
    let mut known = vec![false; 1 << 17];
    let mut repeated = 0;
    for of in &data {
        for number in 0..of.length {
            let place = of.seq.wrapping_sub(base).wrapping_add(number) as usize;
            let known = known.get_mut(place).ok_or("beyond the connection")?;
            repeated += u64::from(std::mem::replace(known, true));
        }
    }
    let found = (
        sent.payload_bytes,
        sent.rare().retransmitted_bytes,
        sent.rare().keep_alives,
    );
    if found != (payload, repeated, probes) {
        return Err(format!(
            "{side:?} payload, resent, probes: {found:?}, not {:?}",
            (payload, repeated, probes)
        ));
    }
    Ok(())
}

/// Returns `true` if a packet repeats the number before the next one of its end.
fn is_probe(case: &Case, of: &Sent) -> bool {
    let others = case
        .packets
        .iter()
        .filter(|one| one.from == of.from && !one.probe);
    let next = others.map(|one| one.end());
    next.reduce(|a, b| if b.wrapping_sub(a) as i32 > 0 { b } else { a })
        .is_some_and(|next| of.seq == next.wrapping_sub(1))
}

/// The capture, a packet per line, for the eye.
fn print(seed: u64) {
    let case = Case::new(seed);
    println!("{:?}", case.mix);
    for (time, at) in &case.file {
        let of = &case.packets[*at];
        println!(
            "{:>12.6} {} {:02x} seq={} end={} ack={} ts={:?} {}{}{}{}",
            *time as f64 / 1e6,
            ["c", "s"][of.from],
            of.flags,
            of.seq,
            of.end(),
            of.ack,
            of.timestamps,
            if of.arrived.is_none() { "lost " } else { "" },
            if of.repeats { "repeats " } else { "" },
            if of.waited { "waited " } else { "" },
            if of.probe { "probe" } else { "" },
        );
    }
}

fn check(seed: u64, seen: &mut Seen) -> Result<(), String> {
    let case = Case::new(seed);
    let mut observed = Observed::default();
    let (tally, fault) = read(&case.pcap(), 1 << 16, LIMITS, &mut observed);
    if fault.is_some() {
        return Err(format!("{fault:?}"));
    }
    seen.cases += 1;
    if case.file.is_empty() {
        return Ok(());
    }
    let again = u64::from(case.mix.reused);
    if tally.flows != 1 + again {
        return Err(format!("{} flows, not {}", tally.flows, 1 + again));
    }
    observed.flows.sort_by_key(|flow| flow.id);
    let flow = &observed.flows[0];
    if flow.ends.map(|end| end.port) != [40_000, 80] {
        return Err(format!("client is {}", flow.ends[0]));
    }
    seen.flows += 1;
    if case.mix.reused {
        let second = &observed.flows[1];
        let found = [second.syn_to_synack, second.synack_to_ack].map(|span| span.map(|of| of.0));
        if found != [Some(10_000_000), Some(2_000_000)] {
            return Err(format!("the second handshake: {found:?}"));
        }
    }
    for side in Side::BOTH {
        check_counts(&case, flow, side)?;
    }
    seen.probes += flow
        .sent
        .iter()
        .map(|of| of.rare().keep_alives)
        .sum::<u64>();
    let last = case.file.last().map_or(0, |of| of.0);
    let first = |of: &&Sample| of.time.0 - EPOCH <= last;
    for sample in observed.samples.iter().filter(first) {
        seen.handshakes += u64::from(sample.basis == SampleBasis::Handshake);
        check_sample(&case, sample, seen)?;
    }
    if case.mix.syn_behind && flow.syn_to_synack.is_some() {
        return Err("a SYN behind its SYN-ACK".to_owned());
    }
    let handshakes = observed
        .samples
        .iter()
        .filter(first)
        .filter(|of| of.basis == SampleBasis::Handshake);
    for sample in handshakes {
        let found = match sample.sender {
            Side::Client => flow.syn_to_synack,
            Side::Server => flow.synack_to_ack,
        };
        if found != Some(sample.round_trip) {
            return Err(format!("{sample:?} is not the flow's {found:?}"));
        }
    }
    let mix = &case.mix;
    if mix.lost + mix.late + mix.copied + mix.missing == 0
        && !mix.midstream
        && mix.snap > 100
        && mix.timeout >= 200_000_000
    {
        clean(&case, &observed, seen)?;
    }
    Ok(())
}

/// Where nothing disturbs, both ends' data and both halves of the handshake have a figure.
fn clean(case: &Case, observed: &Observed, seen: &mut Seen) -> Result<(), String> {
    let flow = &observed.flows[0];
    for side in Side::BOTH {
        let other = 1 - side as usize;
        let mut una = None;
        let mut acks = 0;
        for of in case.file.iter().map(|of| &case.packets[of.1]) {
            let new = of.from == other && of.flags & ACK != 0 && una != Some(of.ack);
            if new && of.flags & SYN == 0 {
                acks += u64::from(una.is_some());
                una = Some(of.ack);
            }
        }
        let samples = flow.of(side).round_trip.count();
        seen.clean_acks += acks;
        seen.clean_samples += samples;
        // Where the timestamps stop, what is under way has no figure.
        let stops = case.mix.stamps && case.mix.stamps_stop != [u64::MAX; 2];
        if acks > (if stops { 12 } else { 2 }) && samples == 0 {
            return Err(format!("{side:?}: no figure for {acks} acknowledgments"));
        }
    }
    let expected = [!case.mix.syn_behind, true];
    let found = [flow.syn_to_synack.is_some(), flow.synack_to_ack.is_some()];
    match found == expected {
        true => Ok(()),
        false => Err(format!("handshake known: {found:?}, not {expected:?}")),
    }
}

/// `STS_CASES` sets how many, `STS_SEED` the first of them.
pub(super) fn cases(usual: u64) -> std::ops::Range<u64> {
    let number = |name: &str, usual| {
        let value = std::env::var(name).ok();
        value.map_or(usual, |value| value.parse().expect("a number"))
    };
    let first = number("STS_SEED", 1);
    first..first + number("STS_CASES", usual)
}

#[test]
fn each_figure_of_a_random_connection_is_right_or_there_is_none() {
    let mut seen = Seen::default();
    let failed: Vec<String> = cases(2000)
        .filter_map(|seed| {
            let outcome = std::panic::catch_unwind(|| {
                let mut of_case = Seen::default();
                check(seed, &mut of_case).map(|()| of_case)
            });
            match outcome {
                Ok(Ok(of_case)) => {
                    seen.add(&of_case);
                    None
                }
                Ok(Err(error)) => Some(format!("seed {seed}: {error}\n")),
                Err(_) => Some(format!("seed {seed}: panicked\n")),
            }
        })
        .take(20)
        .collect();
    if std::env::var("STS_SEED").is_ok() {
        print(cases(1).start);
    }
    assert!(failed.is_empty(), "{}", failed.concat());
    println!("{seen:#?}");
    let cases = seen.cases;
    assert!(seen.exact > cases && seen.handshakes > cases / 2 || cases < 100);
    assert!(seen.probes > 0 && seen.later_ack < seen.exact / 10 || cases < 100);
    assert!(seen.unseen_repeat < seen.exact / 100 || cases < 100);
    assert!(seen.clean_samples > seen.clean_acks / 2 || cases < 100);
}

/// Two segments have one TSval: a repeat that was lost and new data, or a repeat of what was
/// acknowledged and another repeat.
#[test]
fn an_echo_that_may_answer_another_segment_measures_no_repeat() {
    for seed in [8_058_798, 9_015_245] {
        check(seed, &mut Seen::default()).unwrap();
    }
}

#[test]
fn cut_at_every_length_a_random_capture_is_one_json_value() {
    for seed in cases(2000).take(4) {
        let capture = Case::new(seed).pcap();
        for length in 0..capture.len().min(4000) {
            valid_json(&capture[..length]);
        }
    }
}

/// For other programs to read the same: a line per case, its seed and its file. Only where
/// `STS_PRINT` is set.
#[test]
fn the_captures_in_hexadecimal_digits() {
    if std::env::var_os("STS_PRINT").is_none() {
        return;
    }
    for seed in cases(100) {
        let digits = Case::new(seed).pcap().into_iter();
        let digits: String = digits.map(|byte| format!("{byte:02x}")).collect();
        println!("pcap {seed} {digits}");
    }
}
