//! Whole paths as data, through the model to the verdict.

use crate::measure::change::BootClock;
use crate::measure::tests::simulator::{Random, SimPath, MS};
use crate::measure::*;
use crate::time::{MonoTime, Now};
use crate::vec_map::VecMap;
use std::sync::Arc;

/// Both clocks at the end of all paths: the monotonic one began in 2023.
const NOW: Now = Now {
    wall: WallTime(1_700_100_000_000_000_000),
    mono: MonoTime(100_000_000_000_000),
};

const DIRECTIONS: [VerdictDirection; 3] = [
    VerdictDirection::Forward,
    VerdictDirection::Return,
    VerdictDirection::Both,
];

fn model() -> Model {
    Model::new(Baseline::Run, None, WallTime(0))
}

fn names() -> VecMap<u8, String> {
    (0..).zip(["A", "B", "C", "Z"].map(str::to_owned)).collect()
}

/// Runs `blocks` blocks through a path; `change` is called before each one with its number.
fn run(
    path: &mut SimPath,
    model: &mut Model,
    blocks: u64,
    mut change: impl FnMut(u64, &mut SimPath),
) {
    for block in 0..blocks {
        change(block, path);
        let trip = path.trip(block);
        model.record(&trip).expect("a walk along the path");
    }
}

fn verdict_of(path: &mut SimPath, blocks: u64, change: impl FnMut(u64, &mut SimPath)) -> Verdict {
    let mut model = model();
    run(path, &mut model, blocks, change);
    model.statistics(&names(), NOW).verdict
}

fn near(value: Option<SignedNanos>, expected_ms: f64, tolerance_ms: f64) -> bool {
    value.is_some_and(|value| (value.as_millis_f64() - expected_ms).abs() <= tolerance_ms)
}

#[test]
fn three_milliseconds_more_on_one_direction_are_found_with_their_direction() {
    for seed in 0..54 {
        let mut path = SimPath::new(4, seed);
        let (segment, way) = (seed as usize % 3, seed as usize / 3 % 3);
        let blocks = [100, 400, 1_500][seed as usize / 9 % 3];
        path.interval_ns = [20.0, 100.0, 1_000.0][seed as usize / 3 % 3] * MS;
        path.noise_ns = [0.02, 0.2][seed as usize / 27] * MS;
        let tolerance = 4.0 * path.noise_ns / MS;
        let short = blocks as f64 * path.interval_ns < 1e9;
        let verdict = verdict_of(&mut path, blocks, |block, path| {
            // The halves are of the blocks after the warm-up.
            let add = if block < (blocks + 3) / 2 {
                [0.0; 2]
            } else {
                [[3.0, 0.0], [0.0, 3.0], [1.5, 1.5]][way]
            };
            path.delays_ns[segment] = add.map(|add| (1.0 + add) * MS);
        });
        let what = format!("seed {seed}: {verdict:?}");
        assert_eq!(
            (verdict.kind, verdict.index),
            (VerdictKind::Segment, Some(segment)),
            "{what}"
        );
        assert_eq!(verdict.direction, Some(DIRECTIONS[way]), "{what}");
        for figure in [
            verdict.increase,
            verdict.increase_low,
            verdict.increase_high,
        ] {
            assert!(near(figure, 3.0, tolerance), "{what}");
        }
        assert_eq!(
            (verdict.basis, verdict.figure),
            (Some(Basis::Increase), Figure::P50),
            "{what}"
        );
        assert_eq!(verdict.confidence == Confidence::Low, short, "{what}");
    }
}

#[test]
fn the_verdict_is_a_sentence() {
    let mut path = SimPath::new(4, 1);
    path.noise_ns = 0.0;
    let verdict = verdict_of(&mut path, 400, |block, path| {
        path.delays_ns[1][0] = if block < 200 { 0.21 * MS } else { 3.23 * MS };
    });
    let (first, rest) = verdict.text.split_once(" since ").expect("a time");
    assert_eq!(first, "B -> C adds the delay: +3.02 ms");
    let (_, rest) = rest.split_once("Z ").expect("UTC");
    let text = "(p50, 3.02 to 3.02) over its baseline of 0.41 ms, forward direction.";
    assert_eq!(rest, text);
    let none = verdict_of(&mut SimPath::new(4, 1), 400, |_, _| ());
    assert!(
        none.text.starts_with("none: no change above 0.16 ms"),
        "{none:?}"
    );
    assert_eq!(none.confidence, Confidence::High);
}

#[test]
fn a_rise_is_named_wherever_in_the_run_it_began() {
    for share in [0.1, 0.15, 0.35, 0.56, 0.75, 0.9] {
        let mut path = SimPath::new(4, 3);
        let from = (400.0 * share) as u64;
        let began = path.at(from) as u64;
        let verdict = verdict_of(&mut path, 400, |block, path| {
            path.delays_ns[1][0] = if block < from { 5.0 * MS } else { 24.0 * MS };
        });
        let what = format!("at {share}: {verdict:?}");
        assert_eq!(verdict.name, "B -> C", "{what}");
        assert!(near(verdict.increase, 19.0, 0.2), "{what}");
        assert_eq!(verdict.confidence, Confidence::High, "{what}");
        let since = NOW.wall.before(NOW.mono.since(MonoTime(began)));
        let off = (verdict.since.expect(&what) - since).abs();
        assert!(off < Nanos::from_millis(20), "{off:?}, {what}");
    }
}

#[test]
fn of_several_changes_the_largest_is_the_verdict_and_the_others_stand_beside_it() {
    let verdict = verdict_of(&mut SimPath::new(4, 3), 400, |block, path| {
        path.delays_ns[0][0] = if block < 130 { 1.0 * MS } else { 4.0 * MS };
        path.delays_ns[1][0] = if block < 260 { 1.0 * MS } else { 9.0 * MS };
        path.delays_ns[2][0] = if block < 200 { 6.0 * MS } else { 1.0 * MS };
    });
    assert!(near(verdict.increase, 8.0, 0.1), "{verdict:?}");
    let also: Vec<_> = verdict.also.iter().map(|also| also.name.as_str()).collect();
    assert_eq!(
        (verdict.name.as_str(), also),
        ("B -> C", vec!["C -> Z", "A -> B"])
    );
    assert!(
        near(Some(verdict.also[0].increase), -5.0, 0.1),
        "a fall: {verdict:?}"
    );
}

#[test]
fn one_block_in_ten_at_30_ms_is_found_by_the_mean() {
    for seed in 0..20 {
        let mut path = SimPath::new(4, seed);
        let verdict = verdict_of(&mut path, 2_000, |block, path| {
            let slow = block >= 1_000 && block % 10 == seed % 10;
            path.delays_ns[1][1] = if slow { 30.2 * MS } else { 0.2 * MS };
        });
        let what = format!("seed {seed}: {verdict:?}");
        assert_eq!(
            (verdict.kind, verdict.index),
            (VerdictKind::Segment, Some(1)),
            "{what}"
        );
        let direction = Some(VerdictDirection::Return);
        assert_eq!(
            (verdict.figure, verdict.direction),
            (Figure::Mean, direction),
            "{what}"
        );
        assert!(near(verdict.increase, 3.0, 0.3), "{what}");
        assert!(verdict.text.contains("10 % of the blocks are "), "{what}");
    }
}

#[test]
fn one_block_in_ten_by_chance_is_found_in_a_longer_run() {
    let mut found = 0;
    for seed in 0..20 {
        let (mut path, mut random) = (SimPath::new(4, seed), Random::new(seed));
        let verdict = verdict_of(&mut path, 6_000, |block, path| {
            let slow = block >= 3_000 && random.below(10) == 0;
            path.delays_ns[1][1] = if slow { 30.2 * MS } else { 0.2 * MS };
        });
        assert!(
            matches!(verdict.index, None | Some(1)),
            "seed {seed}: {verdict:?}"
        );
        found += u32::from((verdict.index, verdict.figure) == (Some(1), Figure::Mean));
    }
    assert!(found >= 19, "{found} of 20");
}

/// A path of kernels that report arrivals, whose processes are woken within some 30 us.
fn with_arrivals(seed: u64) -> SimPath {
    let mut path = SimPath::new(4, seed);
    path.arrivals = true;
    for node in &mut path.nodes {
        node.wake_up_ns = [20_000.0, 30_000.0];
    }
    path
}

#[test]
fn a_host_that_reads_late_is_named_with_its_direction_and_not_the_segments_beside_it() {
    for seed in 0..36 {
        let mut path = with_arrivals(seed);
        let (place, way) = (1 + seed as usize % 3, seed as usize / 3 % 3);
        // The reflector reads one way only.
        let way = if place == 3 { 0 } else { way };
        // At the median, or one block in ten.
        let every = [1, 10][seed as usize / 18];
        let verdict = verdict_of(&mut path, 1_000, |block, path| {
            let late = block >= 502 && block % every == 0;
            let add = if late {
                [[4.0, 0.0], [0.0, 4.0], [2.0, 2.0]][way]
            } else {
                [0.0; 2]
            };
            path.nodes[place].wake_up_ns = add.map(|add| (0.03 + add) * MS);
        });
        let what = format!("seed {seed}: {verdict:?}");
        assert_eq!(
            (verdict.kind, verdict.index),
            (VerdictKind::Host, Some(place)),
            "{what}"
        );
        assert!(
            verdict.reads_late && near(verdict.increase, 4.0 / every as f64, 0.1),
            "{what}"
        );
        assert_eq!(verdict.direction, Some(DIRECTIONS[way]), "{what}");
        let figure = if every == 1 {
            Figure::P50
        } else {
            Figure::Mean
        };
        assert_eq!(
            (verdict.figure, verdict.confidence),
            (figure, Confidence::High),
            "{what}"
        );
        let name = ["B", "C", "Z"][place - 1];
        let text = format!("host {name} reads late: +");
        assert!(verdict.text.starts_with(&text), "{what}");
        assert!(
            verdict.text.contains("ms between kernel and process"),
            "{what}"
        );
    }
}

#[test]
fn a_slow_network_is_named_as_before_where_kernels_tell() {
    for seed in 0..20 {
        let mut path = with_arrivals(seed);
        let segment = seed as usize % 3;
        let verdict = verdict_of(&mut path, 1_000, |block, path| {
            let slow = block >= 502 && block % 10 == seed % 10;
            path.delays_ns[segment][1] = if slow { 30.2 * MS } else { 0.2 * MS };
        });
        let what = format!("seed {seed}: {verdict:?}");
        assert_eq!(
            (verdict.kind, verdict.index),
            (VerdictKind::Segment, Some(segment)),
            "{what}"
        );
        assert!(
            !verdict.reads_late && near(verdict.increase, 3.0, 0.3),
            "{what}"
        );
        assert_eq!(verdict.direction, Some(VerdictDirection::Return), "{what}");
    }
}

#[test]
fn a_source_that_reads_its_answers_late_is_named_as_a_host() {
    let mut path = with_arrivals(3);
    let verdict = verdict_of(&mut path, 400, |block, path| {
        path.nodes[0].wake_up_ns[1] = if block < 202 { 3e4 } else { 5.03 * MS };
    });
    assert_eq!(
        (verdict.kind, verdict.index),
        (VerdictKind::Host, Some(0)),
        "{verdict:?}"
    );
    assert_eq!(verdict.direction, Some(VerdictDirection::Return));
    assert!(
        verdict.text.starts_with("source A reads late: +5.00 ms"),
        "{verdict:?}"
    );
}

#[test]
fn the_split_by_kernel_times_is_in_the_figures() {
    let (mut path, mut model) = (with_arrivals(5), model());
    path.exit = true;
    run(&mut path, &mut model, 200, |_, path| {
        path.nodes[2].wake_up_ns[0] = 2.0 * MS;
    });
    let statistics = model.statistics(&names(), NOW);
    let mean = |summary: Option<Summary>| summary.map(|s| (s.mean.0 + 500) / 10_000);
    let hosts = &statistics.hosts;
    let wake_ups = hosts
        .iter()
        .map(|host| [mean(host.forward_wake_up), mean(host.return_wake_up)]);
    // Nothing wakes the source on the way out, nor the exit on the way back.
    let expected = [
        [None, Some(3)],
        [Some(2), Some(3)],
        [Some(200), Some(3)],
        [Some(2), None],
    ];
    assert_eq!(wake_ups.collect::<Vec<_>>(), expected);
    let segment = &statistics.segments[1];
    let apart = segment.round_trip.unwrap().mean - segment.network.unwrap().mean;
    assert_eq!((apart.0 + 500) / 1_000, 2_030);
    // Its largest part, too.
    let largest = statistics.largest.expect("200 blocks");
    assert_eq!(
        (largest.kind, largest.index),
        (VerdictKind::Host, Some(2)),
        "{largest:?}"
    );
    assert!(
        largest.share.is_some_and(|share| share > 0.5),
        "{largest:?}"
    );
}

#[test]
fn arrivals_of_some_blocks_only_are_not_mistaken_for_those_of_all() {
    // So many of 20 blocks met another one in the socket; the more there are, the less the rest
    // is worth.
    for (unknown, host_is_late, named) in [
        (1, true, Some(VerdictKind::Host)),
        (6, true, Some(VerdictKind::Host)),
        (16, true, Some(VerdictKind::Segment)),
        (1, false, Some(VerdictKind::Segment)),
        (16, false, Some(VerdictKind::Segment)),
    ] {
        let (mut path, mut random) = (with_arrivals(9), Random::new(9));
        let mut model = model();
        for block in 0..1_000 {
            let add = if block < 502 { 0.0 } else { 3.0 * MS };
            let delay = if host_is_late {
                &mut path.nodes[2].wake_up_ns[0]
            } else {
                &mut path.delays_ns[1][0]
            };
            *delay = 30_000.0 + add;
            let mut trip = path.trip(block);
            if random.below(20) < unknown {
                trip.hop_stamps[2].arrival = None;
            }
            model.record(&trip).unwrap();
        }
        let verdict = model.statistics(&names(), NOW).verdict;
        let what = format!("{unknown} of 20: {verdict:?}");
        assert_eq!(Some(verdict.kind), named, "{what}");
        assert_eq!(
            verdict.index,
            Some(if verdict.kind == VerdictKind::Host {
                2
            } else {
                1
            })
        );
        assert!(near(verdict.increase, 3.0, 0.2), "{what}");
        assert_eq!(verdict.confidence, Confidence::High, "{what}");
    }
}

#[test]
fn the_shares_of_all_parts_add_up_to_one_however_much_kernels_tell() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let nodes = 2 + random.below(4) as usize;
        let mut path = SimPath::new(nodes, seed);
        (path.arrivals, path.exit) = (true, random.below(2) == 0);
        for node in &mut path.nodes {
            node.wake_up_ns = [0, 0].map(|_| random.unit() * MS);
        }
        // How many of 20 blocks each kernel reports, on the way out and back: around 9 of 10 and
        // half of them.
        let mut reported = || [20, 19, 17, 17, 11, 9, 0][random.below(7) as usize];
        let reported: Vec<[u64; 2]> = (0..nodes).map(|_| [reported(), reported()]).collect();
        let mut model = model();
        for block in 0..300 {
            let mut trip = path.trip(block);
            for hop_stamp in &mut trip.hop_stamps {
                let way = usize::from(hop_stamp.direction == StampDirection::Return);
                if random.below(20) >= reported[usize::from(hop_stamp.hop)][way] {
                    hop_stamp.arrival = None;
                }
            }
            if random.below(20) >= reported[0][1] {
                trip.home.arrival = None;
            }
            model.record(&trip).unwrap();
        }
        let statistics = model.statistics(&names(), NOW);
        let shares: Vec<_> = statistics
            .parts
            .iter()
            .filter_map(|part| part.share)
            .collect();
        let what = format!("seed {seed}, reported {reported:?}: {shares:?}");
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{what}");
        assert!(shares.iter().all(|s| (0.0..=1.0).contains(s)), "{what}");
    }
}

/// A run against `state`, which it is added to.
fn run_with(path: &mut SimPath, blocks: u64, state: &mut RunHistories) -> Verdict {
    let number = state.paths.values().flat_map(|path| path.parts.values());
    let number = number.map(|part| part.usual().len()).max().unwrap_or(0) as u64;
    let started = WallTime(1_700_000_000_000_000_000_u64 + number * 600_000_000_000);
    let baseline = Baseline::Earlier(Arc::new(state.clone()), BootClock::default());
    let mut model = Model::new(baseline, None, started);
    run(path, &mut model, blocks, |_, _| ());
    let verdict = model.statistics(&names(), NOW).verdict;
    model.add_to(state, &names());
    *state = RunHistories::parse(&state.to_string())
        .expect("as it was written")
        .state;
    verdict
}

#[test]
fn a_late_reader_is_found_over_earlier_runs() {
    let mut state = RunHistories::default();
    let next = |seed: u64, late: f64, slow: f64, state: &mut RunHistories| {
        let mut path = with_arrivals(seed + 40);
        path.nodes[2].wake_up_ns = [(0.03 + late) * MS; 2];
        path.delays_ns[0][0] += slow * MS;
        run_with(&mut path, 200, state)
    };
    for seed in 0..8 {
        let verdict = next(seed, 0.0, 0.0, &mut state);
        assert_eq!(verdict.kind, VerdictKind::None, "{verdict:?}");
    }
    let late = next(8, 2.0, 0.0, &mut state.clone());
    assert_eq!(
        (late.kind, late.index),
        (VerdictKind::Host, Some(2)),
        "{late:?}"
    );
    assert!(near(late.increase, 4.0, 0.2), "{late:?}");
    let slow = next(9, 0.0, 3.0, &mut state);
    assert_eq!(
        (slow.kind, slow.index),
        (VerdictKind::Segment, Some(0)),
        "{slow:?}"
    );
}

#[test]
fn hosts_and_the_source_are_named_by_their_residence() {
    for (place, kind, index) in [
        (0, VerdictKind::Source, None),
        (2, VerdictKind::Host, Some(2)),
        (3, VerdictKind::Host, Some(3)),
    ] {
        let mut path = SimPath::new(4, 7);
        let verdict = verdict_of(&mut path, 400, |block, path| {
            path.nodes[place].residence_ns[0] = if block < 200 { 1e4 } else { 5.0 * MS };
        });
        assert_eq!((verdict.kind, verdict.index), (kind, index), "{verdict:?}");
        assert!(near(verdict.increase, 5.0, 0.1) && verdict.direction.is_none());
    }
}

#[test]
fn the_server_behind_an_exit_is_a_part_of_its_own() {
    let (mut path, mut model) = (SimPath::new(4, 3), model());
    path.exit = true;
    for block in 0..400 {
        let trip = path.trip(block);
        let parts = model.record(&trip).unwrap();
        let answer = Nanos::from_millis(if block < 200 { 20 } else { 50 });
        model.server(Part::Server, trip.at, answer);
        assert_eq!(parts.beyond, Some(SignedNanos::ZERO));
    }
    let statistics = model.statistics(&names(), NOW);
    assert_eq!(statistics.verdict.kind, VerdictKind::Server);
    assert!(
        near(statistics.verdict.increase, 30.0, 0.1),
        "{:?}",
        statistics.verdict
    );
    assert_eq!(statistics.behind_exit.unwrap().count, 400);
    assert!(statistics.hosts[3].return_residence.is_some());
}

#[test]
fn a_slow_reader_is_named_although_the_queue_stands_before_it() {
    let slow = |path: &mut SimPath, random: &mut Random| {
        for (segment, round_trip) in [386.0, 406.0, 311.0].into_iter().enumerate() {
            path.delays_ns[segment][0] = (round_trip - 0.2) * MS * (0.7 + 0.6 * random.unit());
        }
        for node in 0..3 {
            path.nodes[node].held[0] = 0.5 + 0.5 * random.unit();
            // The source cannot send on schedule either.
            path.nodes[0].residence_ns[0] = 500.0 * MS;
        }
    };
    for seed in 0..20 {
        // The long ones only for some seeds: they cost the most and vary the least.
        let sizes: &[u64] = if seed % 10 == 0 {
            &[30, 200, 2_000, 20_000]
        } else {
            &[30, 200]
        };
        for (blocks, from) in sizes
            .iter()
            .flat_map(|size| [(*size, 0), (*size, size / 2)])
        {
            let (mut path, mut random) = (SimPath::new(4, seed), Random::new(seed));
            let verdict = verdict_of(&mut path, blocks, |block, path| {
                if block >= from {
                    slow(path, &mut random);
                }
            });
            let what = format!("seed {seed}, {blocks} blocks, from {from}: {verdict:?}");
            assert_eq!(
                (verdict.kind, verdict.index),
                (VerdictKind::Segment, Some(2)),
                "{what}"
            );
            let text = "C -> Z drains slowly, or Z reads slowly";
            assert!(verdict.text.starts_with(text), "{what}");
        }
    }
}

#[test]
fn a_source_that_reads_its_answers_slowly_is_named_itself() {
    for from in [0, 200] {
        let mut path = SimPath::new(4, 5);
        let verdict = verdict_of(&mut path, 400, |block, path| {
            if block >= from {
                path.delays_ns
                    .iter_mut()
                    .for_each(|delay| *delay = [150.0 * MS, 140.0 * MS]);
                path.nodes.iter_mut().for_each(|node| node.held = [0.9; 2]);
            }
        });
        assert_eq!(verdict.kind, VerdictKind::Source, "{verdict:?}");
        assert!(
            verdict.text.starts_with("A reads its answers slowly"),
            "{verdict:?}"
        );
    }
    // Slow between C and B on the way back: all before it are held, B and A are not.
    let mut path = SimPath::new(4, 5);
    let verdict = verdict_of(&mut path, 400, |block, path| {
        if block >= 200 {
            path.delays_ns
                .iter_mut()
                .for_each(|delay| *delay = [150.0 * MS, 140.0 * MS]);
            path.nodes
                .iter_mut()
                .for_each(|node| node.held = [0.9, 0.0]);
            path.nodes[2].held[1] = 0.9;
        }
    });
    assert_eq!(
        (verdict.index, verdict.direction),
        (Some(1), Some(VerdictDirection::Return))
    );
}

#[test]
fn a_bulk_transfer_that_fills_a_pipe_now_and_then_is_no_finding() {
    let (mut path, mut model) = (SimPath::new(4, 5), model());
    let bulk = |_: u64, path: &mut SimPath| {
        path.delays_ns[0][0] = 9.0 * MS;
        path.nodes[0].held[0] = 0.3;
    };
    run(&mut path, &mut model, 400, bulk);
    let statistics = model.statistics(&names(), NOW);
    assert_eq!(
        statistics.verdict.kind,
        VerdictKind::None,
        "{:?}",
        statistics.verdict
    );
    assert_eq!(
        statistics.segments[0].held_share,
        Some(0.0),
        "B is not held"
    );
    // Without a baseline it is all that is known.
    let verdict = verdict_of(&mut SimPath::new(4, 5), 25, bulk);
    assert!(
        verdict
            .text
            .starts_with("A -> B drains slowly, or B reads slowly"),
        "{verdict:?}"
    );
    assert_eq!((verdict.basis, verdict.confidence), (None, Confidence::Low));
}

#[test]
fn a_slow_server_behind_an_exit_is_named_when_the_exit_is_held() {
    let mut path = SimPath::new(4, 5);
    path.exit = true;
    let verdict = verdict_of(&mut path, 400, |_, path| {
        path.delays_ns
            .iter_mut()
            .for_each(|delay| delay[0] = 100.0 * MS);
        path.nodes.iter_mut().for_each(|node| node.held[0] = 0.9);
    });
    assert_eq!(
        (verdict.kind, verdict.index),
        (VerdictKind::Server, None),
        "{verdict:?}"
    );
}

#[test]
fn a_clock_step_is_called_one_wherever_it_happens_and_never_blamed_on_the_network() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut path = SimPath::new(4, seed);
        path.exit = seed % 5 == 0;
        let node = random.below(4) as usize;
        let step = [-3.6e12, -50.0 * MS, 5.0 * MS, 3.6e12][random.below(4) as usize];
        let block = 20 + random.below(370);
        // Anywhere in flight, the crossings included, or between two blocks.
        path.nodes
            .iter_mut()
            .for_each(|node| node.residence_ns = [0.3 * MS; 2]);
        let when = path.at(block) + random.unit() * 4.0 * MS;
        path.nodes[node].steps.push((when, step, true));
        let mut model = model();
        let mut stepped = 0;
        for block in 0..400 {
            let trip = path.trip(block);
            let parts = model.record(&trip).unwrap();
            stepped += parts.stepped.len();
            for part in parts.segments.iter().filter_map(|part| part.round_trip) {
                assert!((0..5_000_000).contains(&part.0), "seed {seed}: {parts:?}");
            }
            for part in parts.hosts.iter().filter_map(|part| part.residence()) {
                assert!((0..5_000_000).contains(&part.0), "seed {seed}: {parts:?}");
            }
            let total = parts.total.map_or(0, |total| total.0);
            assert!((0..15_000_000).contains(&total), "seed {seed}: {parts:?}");
        }
        assert!(stepped <= 1, "seed {seed}");
        let statistics = model.statistics(&names(), NOW);
        let verdict = &statistics.verdict;
        let name = ["A", "B", "C", "Z"][node];
        assert_eq!(
            (verdict.kind, verdict.name.as_str()),
            (VerdictKind::Clock, name),
            "seed {seed}"
        );
        assert!(
            verdict.text.starts_with(&format!("clock step at {name}")),
            "{verdict:?}"
        );
        let steps: Vec<_> = statistics
            .hosts
            .iter()
            .map(|host| host.clock_steps)
            .collect();
        assert_eq!(
            (steps[node], steps.iter().sum::<u64>()),
            (1, 1),
            "seed {seed}"
        );
    }
}

#[test]
fn a_step_that_the_generation_hides_shows_by_its_opposite_signs() {
    for (node, step, name) in [
        (1, 40.0 * MS, "B"),
        (2, -40.0 * MS, "C"),
        (2, 40.0 * MS, "C"),
    ] {
        let mut path = SimPath::new(4, 1);
        // While the block is behind the node.
        path.delays_ns = vec![[2.0 * MS; 2]; 3];
        let when = path.at(300) + 6.0 * MS;
        path.nodes[node].steps.push((when, step, false));
        let mut model = model();
        run(&mut path, &mut model, 400, |_, _| ());
        let statistics = model.statistics(&names(), NOW);
        assert_eq!(
            statistics.verdict.kind,
            VerdictKind::Clock,
            "{:?}",
            statistics.verdict
        );
        assert_eq!(statistics.verdict.name, name);
        let negative: u64 = statistics
            .segments
            .iter()
            .map(|segment| segment.negative)
            .sum();
        assert_eq!(negative, 1);
        let least = statistics
            .segments
            .iter()
            .map(|s| s.round_trip.unwrap().min)
            .min();
        assert!(near(least, -36.0, 0.5), "kept: {least:?}");
    }
}

#[test]
fn opposite_increases_beside_a_node_are_its_clock() {
    // A clock that is stepped in each block's absence alone, by less than the segment takes.
    let mut path = SimPath::new(4, 2);
    path.delays_ns[1] = [20.0 * MS; 2];
    let mut model = model();
    for block in 0..400 {
        let mut trip = path.trip(block);
        if block >= 200 {
            // C's return stamps are 5 ms ahead of its forward ones.
            for hop_stamp in &mut trip.hop_stamps {
                if hop_stamp.hop == 2 && hop_stamp.direction == StampDirection::Return {
                    hop_stamp.ingress = hop_stamp.ingress + SignedNanos::from_millis(5);
                    hop_stamp.egress = hop_stamp.egress + SignedNanos::from_millis(5);
                }
            }
        }
        model.record(&trip).unwrap();
    }
    let verdict = model.statistics(&names(), NOW).verdict;
    assert_eq!(
        (verdict.kind, verdict.name.as_str()),
        (VerdictKind::Clock, "C"),
        "{verdict:?}"
    );
    assert_eq!(verdict.confidence, Confidence::Low);
}

#[test]
fn normal_noise_raises_hardly_an_alarm_however_it_wanders() {
    // AR(1) noise of 0.3 ms each way on 3 ms: false alarms in 100 runs of 100, 300 or 1000 blocks
    // and 7 parts. Up to 0.9 none; beyond, the path does change in the course of a run, and some
    // are bound to be named. The last two have a tail: so many blocks in 100 take 10 ms more on
    // average, about the 95th percentile.
    for (correlation, tail, most) in [
        (0.0, 0, 0),
        (0.5, 0, 0),
        (0.9, 0, 1),
        (0.98, 0, 10),
        (0.995, 0, 15),
        (0.5, 4, 1),
        (0.5, 6, 1),
    ] {
        let mut alarms = 0;
        for seed in 0..100 {
            let (mut path, mut random) = (SimPath::new(4, seed), Random::new(seed));
            (path.correlation, path.noise_ns) = (correlation, 0.3 * MS);
            let blocks = [100, 300, 1_000][seed as usize % 3];
            let verdict = verdict_of(&mut path, blocks, |_, path| {
                let mut delay = || match random.below(100) < tail {
                    true => (1.5 + 10.0 * random.exponential()) * MS,
                    false => 1.5 * MS,
                };
                path.delays_ns
                    .iter_mut()
                    .for_each(|both| *both = [delay(), delay()]);
            });
            alarms += u64::from(verdict.kind != VerdictKind::None);
        }
        let what = format!("at correlation {correlation}, tail {tail}");
        println!("{alarms} alarms {what}");
        assert!(alarms <= most, "{alarms} {what}");
    }
}

#[test]
fn a_delay_that_drifts_is_named_with_low_confidence() {
    let mut path = SimPath::new(4, 4);
    let verdict = verdict_of(&mut path, 800, |block, path| {
        path.delays_ns[2][0] = (0.2 + 0.01 * block as f64) * MS;
    });
    let named = (verdict.index, verdict.confidence);
    assert_eq!(named, (Some(2), Confidence::Low), "{verdict:?}");
    assert!(
        verdict.reason.starts_with("a slow rise within the run"),
        "{verdict:?}"
    );
}

#[test]
fn two_segments_that_grow_alike_are_both_named() {
    let mut path = SimPath::new(4, 4);
    path.noise_ns = 0.2 * MS;
    let verdict = verdict_of(&mut path, 800, |block, path| {
        for segment in [0, 2] {
            path.delays_ns[segment][0] = if block < 400 { 1.0 * MS } else { 4.0 * MS };
        }
    });
    assert_eq!(verdict.confidence, Confidence::Low);
    let doubts = verdict.doubts.join("; ");
    assert!(
        doubts.contains("A -> B") && doubts.contains("C -> Z"),
        "{verdict:?}"
    );
}

#[test]
fn the_largest_part_is_the_second_answer_whatever_the_first_is() {
    let (mut path, mut model) = (SimPath::new(4, 4), model());
    path.delays_ns[1] = [4.0 * MS; 2];
    run(&mut path, &mut model, 72, |_, _| ());
    let statistics = model.statistics(&names(), NOW);
    assert_eq!(
        statistics.verdict.kind,
        VerdictKind::None,
        "{:?}",
        statistics.verdict
    );
    let largest = statistics.largest.expect("72 blocks");
    assert_eq!(
        (largest.kind, largest.index),
        (VerdictKind::Segment, Some(1))
    );
    assert!(
        largest
            .share
            .is_some_and(|share| (0.88..0.92).contains(&share)),
        "{largest:?}"
    );
    assert!(
        near(Some(largest.mean), 8.0, 0.2) && largest.second.is_none(),
        "{largest:?}"
    );
    let empty = self::model().statistics(&names(), NOW);
    assert_eq!(empty.verdict.text, "none: nothing was measured");
    assert_eq!(empty.largest, None);
    let short = verdict_of(&mut SimPath::new(4, 4), 20, |_, _| ());
    assert!(
        short
            .text
            .starts_with("none: too short to decide: 20 blocks"),
        "{short:?}"
    );
}

#[test]
fn a_run_without_end_names_a_change_until_it_is_over() {
    let mut path = SimPath::new(4, 6);
    let mut model = Model::new(Baseline::Run, Some(Nanos::from_millis(30_000)), WallTime(0));
    let mut named = Vec::new();
    for block in 0..12_000 {
        let slow = (3_000..9_000).contains(&block);
        path.delays_ns[1][0] = if slow { 4.2 * MS } else { 0.2 * MS };
        model.record(&path.trip(block)).unwrap();
        if block % 100 == 99 {
            model.watch_changes(&names());
            let verdict = model.statistics(&names(), NOW).verdict;
            named.push((block, verdict.name == "B -> C"));
        }
    }
    for (block, is_named) in named {
        match block {
            0..=2_999 | 9_200.. => assert!(!is_named, "after block {block}"),
            3_100..=8_999 => assert!(is_named, "after block {block}"),
            _ => {}
        }
    }
}

#[test]
fn a_day_of_blocks_10_s_apart_has_a_rise_at_noon_named_within_20_minutes_and_until_midnight() {
    let noon = 4_320;
    let mut path = SimPath::new(4, 1);
    path.interval_ns = 10_000.0 * MS;
    path.delays_ns[1] = [15.0 * MS; 2];
    let span = Some(Nanos::from_millis(600_000));
    let mut model = Model::new(Baseline::Run, span, WallTime(0));
    for block in 0..2 * noon {
        path.delays_ns[1][0] = if block < noon { 15.0 * MS } else { 65.0 * MS };
        model.record(&path.trip(block)).unwrap();
        if block % 30 == 29 {
            model.end_window();
        }
        if block % 360 != 119 {
            continue;
        }
        model.watch_changes(&names());
        let verdict = model.statistics(&names(), NOW).verdict;
        match block < noon {
            true => assert_eq!(verdict.kind, VerdictKind::None, "{block}: {verdict:?}"),
            false => assert_eq!(verdict.name, "B -> C", "{block}: {verdict:?}"),
        }
    }
}

#[test]
fn a_rise_among_blocks_10_s_apart_is_named_after_20_of_them() {
    for seed in 1..4 {
        let noon = 2_000;
        let mut path = SimPath::new(4, seed);
        path.interval_ns = 10_000.0 * MS;
        path.delays_ns[1] = [15.0 * MS; 2];
        let span = Some(Nanos::from_millis(600_000));
        let mut model = Model::new(Baseline::Run, span, WallTime(0));
        let mut named = None;
        for block in 0..noon + 60 {
            path.delays_ns[1][0] = if block < noon { 15.0 * MS } else { 65.0 * MS };
            model.record(&path.trip(block)).unwrap();
            if block % 100 == 0 || block >= noon {
                model.watch_changes(&names());
                let verdict = model.statistics(&names(), NOW).verdict;
                if block < noon {
                    assert_eq!(verdict.kind, VerdictKind::None, "seed {seed}: {verdict:?}");
                } else if verdict.name == "B -> C" {
                    named.get_or_insert(block + 1 - noon);
                }
            }
        }
        assert!(
            named.is_some_and(|blocks| blocks <= 20),
            "seed {seed}: {named:?}"
        );
    }
}

#[test]
fn a_level_that_rises_by_more_takes_the_place_of_late_blocks_of_the_same_part() {
    let (mut path, mut random) = (SimPath::new(4, 3), Random::new(3));
    path.interval_ns = 50.0 * MS;
    let span = Some(Nanos::from_millis(30_000));
    let mut model = Model::new(Baseline::Run, span, WallTime(0));
    for block in 0..2_800 {
        let late = block >= 800 && random.below(4) == 0;
        let level = if block >= 2_400 { 30.2 } else { 0.2 };
        path.delays_ns[1][0] = (level + if late { 20.0 } else { 0.0 }) * MS;
        model.record(&path.trip(block)).unwrap();
        if block % 20 == 19 {
            model.watch_changes(&names());
        }
        if block == 2_399 || block == 2_799 {
            let verdict = model.statistics(&names(), NOW).verdict;
            let increase = verdict.increase.unwrap().as_millis_f64();
            let expected = if block == 2_399 { 5.0 } else { 30.0 };
            assert_eq!(verdict.name, "B -> C", "{block}: {verdict:?}");
            assert!((increase - expected).abs() < 2.5, "{block}: {verdict:?}");
        }
    }
}

#[test]
fn a_level_that_is_over_or_small_within_a_second_is_a_burst_and_a_longer_one_a_change() {
    for seed in 0..20 {
        // The same hundred of 400 blocks: for 0.4 s, for 2 s, and until the end, by 3 and 0.6 ms.
        for (interval_ms, last, rise_ms, is_named) in [
            (4.0, 250, 3.0, false),
            (20.0, 250, 3.0, true),
            (4.0, 400, 3.0, true),
            (4.0, 400, 0.6, false),
            (20.0, 400, 0.6, true),
        ] {
            let mut path = SimPath::new(4, seed);
            path.interval_ns = interval_ms * MS;
            let usual = path.delays_ns[1][0];
            let verdict = verdict_of(&mut path, 400, |block, path| {
                let slow = (last - 100..last).contains(&block);
                path.delays_ns[1][0] = usual + if slow { rise_ms * MS } else { 0.0 };
            });
            let seen = (
                seed,
                interval_ms,
                last,
                rise_ms,
                &verdict.text,
                &verdict.reason,
            );
            assert_eq!(verdict.kind == VerdictKind::Segment, is_named, "{seen:?}");
            let says_burst = verdict.reason.contains("; a burst of +");
            assert_eq!(says_burst, !is_named, "{seen:?}");
            if !is_named {
                let is_sure = verdict.confidence == Confidence::High;
                assert_eq!(is_sure, last < 400, "{seen:?}");
            }
        }
    }
}

#[test]
fn a_small_fall_in_the_last_part_of_a_second_is_no_reason_for_doubt() {
    for seed in 0..20 {
        let mut path = SimPath::new(4, seed);
        path.interval_ns = 4.0 * MS;
        let verdict = verdict_of(&mut path, 400, |block, path| {
            path.delays_ns[1][0] = if block < 300 { 3.6 * MS } else { 3.0 * MS };
        });
        let seen = (seed, &verdict.text, &verdict.reason, &verdict.doubts);
        assert_eq!(verdict.kind, VerdictKind::None, "{seen:?}");
        assert!(!verdict.reason.contains("burst"), "{seen:?}");
        assert_eq!(verdict.confidence, Confidence::High, "{seen:?}");
    }
}

#[test]
fn few_late_blocks_of_a_run_without_end_are_named_after_ten_minutes_and_one_in_ten_at_once() {
    for (one_in, named_from, named_by) in [(20, 600, 690), (10, 18, 60)] {
        let (mut path, mut random) = (SimPath::new(4, one_in), Random::new(one_in));
        path.interval_ns = 50.0 * MS;
        let span = Some(Nanos::from_millis(30_000));
        let mut model = Model::new(Baseline::Run, span, WallTime(0));
        let mut named = None;
        for block in 0..2_000 + 20 * named_by {
            let late = block >= 2_000 && random.below(one_in) == 0;
            path.delays_ns[1][0] = if late { 30.2 * MS } else { 0.2 * MS };
            model.record(&path.trip(block)).unwrap();
            if block >= 2_000 && block % 200 == 199 {
                model.watch_changes(&names());
                let verdict = model.statistics(&names(), NOW).verdict;
                if verdict.name == "B -> C" && named.is_none() {
                    named = Some((block + 1 - 2_000) / 20);
                }
            }
        }
        let is_right = named.is_some_and(|second| (named_from..=named_by).contains(&second));
        assert!(is_right, "one in {one_in}: named after {named:?} s");
    }
}

/// Blocks in a window of 2 s.
const SHORT_WINDOW: u64 = 40;

/// Runs such windows, with one block of four late from `from` to `until`. Returns the windows after
/// which the late part is named, has an increase, or another verdict stands.
fn late_blocks(seed: u64, from: u64, until: u64, windows: u64) -> [Vec<u64>; 3] {
    let (mut path, mut random) = (SimPath::new(4, seed), Random::new(seed));
    path.interval_ns = 50.0 * MS;
    let mut model = Model::new(Baseline::Run, Some(Nanos::from_millis(30_000)), WallTime(0));
    let mut seen = [(); 3].map(|()| Vec::new());
    for block in 0..windows * SHORT_WINDOW {
        let window = block / SHORT_WINDOW;
        let slow = (from..until).contains(&window) && random.below(4) == 0;
        path.delays_ns[1][0] = if slow { 20.2 * MS } else { 0.2 * MS };
        model.record(&path.trip(block)).unwrap();
        if block % SHORT_WINDOW == SHORT_WINDOW - 1 && window >= 18 {
            model.watch_changes(&names());
            let statistics = model.statistics(&names(), NOW);
            let verdict = &statistics.verdict;
            let lasts = verdict.kind != VerdictKind::None && verdict.until.is_none();
            let part = statistics.part(Part::Segment { from: 1, to: 2 }).unwrap();
            let grown = part.increase.is_some_and(|grown| grown.0 > MS as i64);
            let is_late = verdict.name == "B -> C";
            let now = [lasts && is_late, grown, lasts && !is_late];
            for (seen, now) in seen.iter_mut().zip(now) {
                seen.extend(now.then_some(window));
            }
        }
    }
    seen
}

#[test]
fn late_blocks_of_a_run_without_end_are_named_while_they_last_and_no_longer() {
    for seed in 0..2 {
        let [named, grown, others] = late_blocks(seed, 20, 32, 44);
        for seen in [&named, &grown] {
            assert!(
                seen.iter().any(|at| (24..32).contains(at)),
                "seed {seed}: {seen:?}"
            );
            assert!(
                seen.iter().all(|at| (20..35).contains(at)),
                "seed {seed}: {seen:?}"
            );
        }
        assert_eq!(others, [], "seed {seed}");
        // One that stays remains, also when the blocks that are searched know nothing else.
        let [named, grown, others] = late_blocks(seed, 20, 70, 70);
        for seen in [named, grown] {
            let from = seen
                .iter()
                .copied()
                .find(|at| *at < 30)
                .expect("it is found soon");
            assert!(seen.into_iter().eq(from..70), "seed {seed}");
        }
        assert_eq!(others, [], "seed {seed}");
    }
}

fn state_run(seed: u64, extra_ms: f64, state: &mut RunHistories) -> Verdict {
    let mut path = SimPath::new(4, seed);
    path.delays_ns = vec![[2.0 * MS; 2]; 3];
    path.delays_ns[1][0] += extra_ms * MS;
    // The normal delay differs from run to run.
    let mut random = Random::new(seed);
    for delay in &mut path.delays_ns {
        delay[1] += random.normal() * 0.03 * MS;
    }
    run_with(&mut path, 100, state)
}

#[test]
fn a_rise_over_earlier_runs_is_named_until_it_is_gone_and_never_learnt() {
    let mut holding = 0;
    for seed in 0..10 {
        let mut state = RunHistories::default();
        for i in 0..8 {
            let verdict = state_run(seed * 100 + i, 0.0, &mut state);
            assert_eq!(
                verdict.kind,
                VerdictKind::None,
                "seed {seed}, run {i}: {verdict:?}"
            );
        }
        for i in 8..38 {
            let bad = state_run(seed * 100 + i, 3.0, &mut state);
            let what = format!("seed {seed}, run {i}: {bad:?}");
            assert_eq!(
                (bad.kind, bad.index),
                (VerdictKind::Segment, Some(1)),
                "{what}"
            );
            let (low, high) = (bad.increase_low.unwrap(), bad.increase_high.unwrap());
            holding += u32::from((low.0..=high.0).contains(&3_000_000));
            assert!(bad.since.is_some(), "{what}");
        }
        for i in 38..44 {
            let verdict = state_run(seed * 100 + i, 0.0, &mut state);
            assert_eq!(
                verdict.kind,
                VerdictKind::None,
                "seed {seed}, run {i}: {verdict:?}"
            );
        }
    }
    assert!(holding >= 285, "3 ms is in {holding} of 300 intervals");
}

#[test]
fn an_accepted_rise_is_the_new_normal() {
    let mut state = RunHistories::default();
    (0..8).for_each(|seed| drop(state_run(seed, 0.0, &mut state)));
    (8..12).for_each(|seed| drop(state_run(seed, 3.0, &mut state)));
    for part in state
        .paths
        .values_mut()
        .flat_map(|path| path.parts.values_mut())
    {
        part.accept();
    }
    let verdict = state_run(12, 3.0, &mut state);
    assert_eq!(verdict.kind, VerdictKind::None, "{verdict:?}");
}

#[test]
fn earlier_runs_that_differ_among_themselves_raise_hardly_an_alarm() {
    let mut alarms = 0;
    for seed in 0..25 {
        let (mut state, mut random) = (RunHistories::default(), Random::new(seed + 1_000));
        for _ in 0..14 {
            let mut path = SimPath::new(4, random.bits());
            for delay in &mut path.delays_ns {
                delay[1] += (2.0 + random.normal() * 0.3) * MS;
            }
            let verdict = run_with(&mut path, 50, &mut state);
            alarms += u32::from(verdict.kind != VerdictKind::None);
        }
    }
    assert!(alarms <= 4, "{alarms} of 350");
}

#[test]
fn runs_of_another_path_are_not_compared_with() {
    let mut state = RunHistories::default();
    (0..6).for_each(|seed| drop(state_run(seed, 0.0, &mut state)));
    let mut path = SimPath::new(3, 9);
    path.delays_ns = vec![[9.0 * MS; 2]; 2];
    let verdict = run_with(&mut path, 100, &mut state);
    assert_eq!(verdict.kind, VerdictKind::None, "{verdict:?}");
    assert_eq!(verdict.reason, "searched within the run");
    assert_eq!(state.paths.len(), 2);
}

#[test]
fn another_node_at_a_hop_is_counted_and_hides_no_change() {
    let (mut path, mut model) = (SimPath::new(4, 8), model());
    run(&mut path, &mut model, 600, |block, path| {
        let second = (300..450).contains(&block);
        path.nodes[2].id = if second { 900 } else { 102 };
        path.delays_ns[1][0] = if block >= 300 { 5.0 * MS } else { 0.2 * MS };
    });
    let statistics = model.statistics(&names(), NOW);
    assert_eq!(statistics.path_changes, 2);
    // The one that was replaced and came back stands last.
    assert_eq!(statistics.hosts[2].nodes, [NodeId(900), NodeId(102)]);
    assert_eq!(
        statistics.verdict.name, "B -> C",
        "{:?}",
        statistics.verdict
    );
    assert_eq!(statistics.segments[1].round_trip.unwrap().count, 600);
}

#[test]
fn a_path_that_changes_its_shape_has_figures_per_shape() {
    let (mut path, mut model) = (SimPath::new(4, 8), model());
    for block in 0..300 {
        let mut trip = path.trip(block);
        if block >= 100 {
            trip.hop_stamps
                .retain(|c| c.hop != 2 || c.direction == StampDirection::Forward);
        }
        model.record(&trip).unwrap();
    }
    let statistics = model.statistics(&names(), NOW);
    assert_eq!((statistics.path_changes, model.unpaired()), (1, 200));
    let shape: Vec<_> = statistics
        .segments
        .iter()
        .map(|s| (s.from_hop, s.to_hop))
        .collect();
    assert_eq!(shape, [(0, 1), (1, 3)]);
    let counts = statistics
        .segments
        .iter()
        .map(|s| s.round_trip.unwrap().count);
    assert_eq!(counts.collect::<Vec<_>>(), [200, 200]);
    assert_eq!(statistics.round_trip.unwrap().count, 300);
}

#[test]
fn a_plain_proxy_reports_its_own_residence_and_its_server() {
    let mut model = model();
    for i in 0..200 {
        model.residence(0, Direction::Forward, SignedNanos(1_000 + i));
        model.residence(0, Direction::Return, SignedNanos(2_000));
        let delay = Nanos::from_millis(if i < 100 { 3 } else { 9 });
        model.server(Part::Server, MonoTime(i as u64 * 100_000_000), delay);
    }
    let statistics = model.statistics(&VecMap::new(), NOW);
    assert_eq!((statistics.hosts.len(), statistics.hosts[0].hop), (1, 0));
    assert_eq!(statistics.hosts[0].forward_residence.unwrap().count, 200);
    assert!(statistics.segments.is_empty() && statistics.round_trip.is_none());
    assert_eq!(
        statistics.verdict.kind,
        VerdictKind::Server,
        "{:?}",
        statistics.verdict
    );
    let mut state = RunHistories::default();
    model.add_to(&mut state, &names());
    assert_eq!(state.paths.keys().collect::<Vec<_>>(), ["0=A"]);
}

#[test]
fn one_way_excess_offset_and_skew_are_what_the_path_was_made_of() {
    let (mut path, mut model) = (SimPath::new(4, 11), model());
    path.nodes[1].skew_ppm = 50.0;
    path.nodes[1].offset_ns = 7.2e12;
    run(&mut path, &mut model, 2_000, |block, path| {
        path.delays_ns[0][0] = if block < 1_000 { 0.2 * MS } else { 3.2 * MS };
    });
    let segment = &model.statistics(&names(), NOW).segments[0];
    let skew = segment.clock_skew_ppm.expect("enough blocks");
    assert!((skew - 50.0).abs() < 1.0, "{skew}");
    let truth = 7.2e12 + path.at(2_000) * 50e-6;
    let (offset, error) = (
        segment.clock_offset.unwrap(),
        segment.clock_offset_error.unwrap(),
    );
    assert!(
        (offset.0 as f64 - truth).abs() <= error.0 as f64,
        "{offset:?} {error:?} {truth}"
    );
    let (forward, back) = (
        segment.forward_excess.unwrap(),
        segment.return_excess.unwrap(),
    );
    assert!(
        near(Some(forward.p95), 3.1, 0.2) && near(Some(forward.p50), 0.1, 3.0),
        "{forward:?}"
    );
    assert!(
        near(Some(back.p95), 0.1, 0.15) && back.min == SignedNanos::ZERO,
        "{back:?}"
    );
}

#[test]
fn every_nanosecond_of_a_block_lies_in_one_part_whatever_the_path() {
    let cases = std::env::var("STS_CASES").map_or(2_000, |cases| cases.parse().unwrap());
    for seed in 0..cases {
        let mut random = Random::new(seed);
        let nodes = 2 + random.below(7) as usize;
        let mut path = SimPath::new(nodes, seed);
        (path.arrivals, path.exit) = (true, random.below(2) == 0);
        for node in &mut path.nodes {
            node.wake_up_ns = [0, 0].map(|_| random.unit() * MS);
        }
        for node in path.nodes.iter_mut().skip(1) {
            if random.below(4) == 0 {
                let at = 1e9 + random.unit() * 1.2e9;
                let by = (random.unit() - 0.5) * 7.2e12;
                node.steps.push((at, by, random.below(2) == 0));
            }
        }
        let steps = path.nodes.iter().any(|node| !node.steps.is_empty());
        let silent_nodes = |random: &mut Random| -> Vec<bool> {
            let hops = 0..nodes;
            hops.map(|hop| hop > 0 && random.below(5) == 0).collect()
        };
        let (mut silent, mut shapes, mut stepped) = (silent_nodes(&mut random), 1, 0);
        let changes_shape = random.below(3) == 0;
        let mut model = model();
        for block in 0..12 {
            if changes_shape && random.below(4) == 0 {
                (silent, shapes) = (silent_nodes(&mut random), shapes + 1);
            }
            // Lost blocks never come here.
            if random.below(10) == 0 && block > 0 {
                continue;
            }
            let mut trip = path.trip(block);
            trip.late = random.below(10) == 0;
            for hop_stamp in &mut trip.hop_stamps {
                hop_stamp.waited = block < 2
                    && hop_stamp.direction == StampDirection::Forward
                    && random.below(2) == 0;
                if random.below(4) == 0 {
                    hop_stamp.arrival = None;
                }
            }
            trip.hop_stamps
                .retain(|hop_stamp| !silent[usize::from(hop_stamp.hop)]);
            let parts = model.record(&trip).unwrap();
            let hosts = parts.hosts.iter().map(|host| host.part());
            let segments = parts.segments.iter();
            let stretches = segments.clone().map(|segment| segment.part());
            let connects = segments.filter_map(|segment| segment.connect.map(Some));
            let all = hosts.chain(stretches).chain(connects);
            let all: Option<Vec<SignedNanos>> = all.collect();
            // A step within a block hides what lies around it.
            let is_known = parts.total.is_some() && (!steps || parts.beyond.is_some());
            let Some(all) = all.filter(|_| is_known) else {
                stepped += 1;
                continue;
            };
            let sum: i64 = all.iter().chain(&parts.beyond).map(|part| part.0).sum();
            assert_eq!(
                Some(SignedNanos(sum)),
                parts.total,
                "seed {seed}: {parts:?}"
            );
        }
        let statistics = model.statistics(&names(), NOW);
        let shares: f64 = statistics.parts.iter().filter_map(|part| part.share).sum();
        assert!(
            (shares - 1.0).abs() < 1e-9,
            "seed {seed}: shares make {shares}"
        );
        if shapes + stepped > 1 {
            // The rows are those of one shape and of known parts, the total is of all blocks.
            continue;
        }
        let means: i64 = statistics
            .parts
            .iter()
            .filter_map(|part| part.mean)
            .map(|m| m.0)
            .sum();
        let total = statistics.round_trip.unwrap().mean.0;
        let off = (means - total).abs();
        assert!(
            off <= statistics.parts.len() as i64,
            "seed {seed}: {means} of {total}"
        );
    }
}

#[test]
fn hostile_stamps_never_panic_and_memory_stays_bounded() {
    for span in [None, Some(Nanos(1 << 40))] {
        let mut random = Random::new(77);
        let mut model = Model::new(Baseline::Run, span, WallTime(0));
        for round in 0..3_000 {
            let mut any = || random.bits() >> (random.bits() % 64);
            let count = any() % 12;
            let mut hop_stamps: Vec<HopStamp> = (0..count)
                .map(|place| HopStamp {
                    node: NodeId(any() % 3),
                    hop: (place + any() % 2) as u8,
                    direction: if any() % 9 == 0 {
                        StampDirection::Turn
                    } else {
                        StampDirection::Forward
                    },
                    generation: any() as u8,
                    stepped: any() % 5 == 0,
                    waited: any() % 4 == 0,
                    synchronised: any() % 2 == 0,
                    held: Nanos(any()),
                    arrival: None,
                    ingress: WallTime(any()),
                    egress: WallTime(any()),
                })
                .collect();
            let back = hop_stamps.clone().into_iter().skip(1).rev();
            hop_stamps.extend(back.map(|c| HopStamp {
                direction: StampDirection::Return,
                ..c
            }));
            let home = Return {
                arrival: None,
                ingress: WallTime(any()),
                egress: (any() % 2 == 0).then(|| WallTime(any())),
                generation: any() as u8,
                held: Nanos(any()),
            };
            let at = MonoTime(any());
            let trip = Trip {
                sequence: any(),
                at,
                hop_stamps,
                home,
                late: false,
                server: None,
                connection: any() as u32,
                retransmits: Vec::new(),
            };
            let _ = model.record(&trip);
            if round % 500 == 499 {
                let statistics = model.statistics(&names(), NOW);
                assert!(statistics.hosts.len() <= 12);
                assert!(statistics.hosts.iter().all(|host| host.nodes.len() <= 64));
                model.add_to(&mut RunHistories::default(), &names());
            }
        }
        assert!(model.statistics(&names(), NOW).round_trip.is_some());
    }
}
