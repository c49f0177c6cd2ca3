mod record;

use super::*;
use crate::measure::change::Figures;
use crate::time::{MonoTime, Nanos, WallTime};

const MINUTE: u64 = 60_000_000_000;
const START: u64 = 1_795_253_399_000_000_000;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn part(&mut self) -> Part {
        let (from, to) = (self.below(4) as u8, self.below(5) as u8);
        match self.below(5) {
            0 => Part::Host(from),
            1 => Part::Connect { from, to },
            2 => Part::Segment { from, to },
            3 => Part::Behind(to),
            _ => Part::Server,
        }
    }

    fn record(&mut self, when: When) -> Record {
        let mut parts = VecMap::new();
        for _ in 0..self.below(5) {
            let delay = |random: &mut Self| SignedNanos(random.below(90_000_000) as i64 - 1_000);
            let one_way = (self.below(2) == 0).then(|| OneWayMedians {
                ways: [delay(self), delay(self)],
                error: Nanos(self.below(90_000_000)),
            });
            let figures = PartRecord {
                count: self.below(3_000),
                mean: delay(self),
                p50: delay(self),
                p95: delay(self),
                one_way,
                rise: (self.below(4) == 0).then(|| StoodRise {
                    amount: SignedNanos(1_000 + self.below(90_000_000) as i64),
                    baseline: delay(self),
                    before_ms: self.below(900_000) as i64 - 300_000,
                }),
            };
            parts.insert(self.part(), figures);
        }
        Record {
            sequence: 0,
            window: Nanos(5 * MINUTE),
            when,
            parts: PartRecords::from(&parts),
        }
        .rounded()
    }

    /// A clock that goes on, is stepped by hours, back to 1970 too, or is of another boot.
    fn later(&mut self, when: When) -> When {
        let by = 5 * MINUTE;
        let next = When {
            wall: WallTime(when.wall.0.saturating_add(by)),
            mono: when.mono + Nanos(by),
            ..when
        };
        match self.below(40) {
            0 => When {
                wall: WallTime(self.below(1 << 42)),
                ..next
            },
            1 => When {
                wall: WallTime(START + self.below(1 << 50)),
                ..next
            },
            2 => When {
                boot: self.next(),
                mono: MonoTime(by),
                ..next
            },
            _ => next,
        }
    }
}

fn start() -> When {
    When {
        wall: WallTime(START),
        utc_offset: 0,
        boot: 7,
        mono: MonoTime(10 * MINUTE),
    }
}

/// A state of `records` windows, and its text as it is appended.
fn grown(random: &mut Random, records: u64) -> (RunHistories, String) {
    let mut state = RunHistories::default();
    let mut text = state.to_string();
    let mut when = start();
    for _ in 0..records {
        when = random.later(when);
        let key = ["0=A,1=B", "0=A,1=%c3%a9,2=Z"][random.below(2) as usize];
        let mut record = random.record(when);
        record.sequence = state.next_sequence();
        text += &RunHistories::line(key, &record);
        state.push(key, record);
    }
    (state, text)
}

#[test]
fn a_state_is_read_as_it_was_written_and_as_it_was_appended() {
    for seed in 1..=60 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let count = random.below(60);
        let (state, appended) = grown(&mut random, count);
        let whole =
            RunHistories::parse(&state.to_string()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(whole.state, state, "seed {seed}");
        assert_eq!((whole.cut, whole.appended), (None, 0), "seed {seed}");
        let read = RunHistories::parse(&appended).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(read.state, state, "seed {seed}");
        assert_eq!(read.appended as u64, count, "seed {seed}");
    }
}

#[test]
fn what_a_run_elsewhere_adds_to_a_copy_is_merged_and_no_record_is_lost() {
    let mut random = Random(7);
    let (before, _) = grown(&mut random, 20);
    let mut add = |state: &mut RunHistories, path: &str| {
        let mut record = random.record(start());
        record.sequence = state.next_sequence();
        state.push(path, record);
    };
    let records = |state: &RunHistories, path: &str| {
        let path = state.paths.get(&path.to_owned());
        let records = path.map_or(&[][..], |path| &path.records);
        records
            .iter()
            .map(|record| record.sequence)
            .collect::<Vec<_>>()
    };
    let mut after = before.clone();
    add(&mut after, "0=new");
    let mut here = before.clone();
    here.merge(&before, &after);
    assert_eq!(here, after, "nothing else wrote it");
    let mut here = before.clone();
    add(&mut here, "0=other");
    here.merge(&before, &after);
    assert_eq!(records(&here, "0=other").len(), 1);
    assert_eq!(records(&here, "0=new").len(), 1);
    let mut here = before.clone();
    add(&mut here, "0=new");
    add(&mut here, "0=new");
    here.merge(&before, &after);
    let next = before.next_sequence();
    assert_eq!(records(&here, "0=new"), [next, next + 1, next + 2]);
    assert_eq!(here.paths.len(), before.paths.len() + 1);
}

#[test]
fn a_text_cut_at_any_length_loses_its_last_record_and_nothing_else() {
    let mut random = Random(5);
    let (_, text) = grown(&mut random, 12);
    for length in 0..text.len() {
        let cut = &text[..length];
        let read = RunHistories::parse(cut).unwrap_or_else(|error| panic!("{length}: {error}"));
        let complete = cut.rfind('\n').map_or(0, |end| end + 1);
        let expected = RunHistories::parse(&text[..complete]).expect("it ends with a line");
        assert_eq!(read.state, expected.state, "{length}");
        assert_eq!(read.cut.is_some(), complete < length, "{length}");
        let lines = cut[..complete].lines().count();
        assert_eq!(read.appended, lines.saturating_sub(1), "{length}");
    }
}

#[test]
fn whatever_the_bytes_are_reading_them_ends_without_a_panic() {
    let mut random = Random(11);
    let (state, appended) = grown(&mut random, 6);
    let whole = state.to_string();
    for round in 0..3_000 {
        let mut bytes = [&whole, &appended][round % 2].clone().into_bytes();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(3) {
                0 => bytes[at] = b" \n0123456789-:=,aswz"[random.below(20) as usize],
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, (random.below(95) + 32) as u8),
            }
        }
        if let Ok(text) = String::from_utf8(bytes) {
            if let Ok(read) = RunHistories::parse(&text) {
                let mut again = read.state;
                again.push("0=A,1=B", random.record(start()));
            }
        }
    }
    for _ in 0..300 {
        let bytes: Vec<u8> = (0..random.below(400))
            .map(|_| random.next() as u8)
            .collect();
        let _ = RunHistories::parse(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn another_version_and_another_file_are_errors_and_state_1_is_read() {
    for text in [
        "subsegment-tcp-speeds state 3\n",
        "# notes\n",
        "{}",
        "subsegment-tcp-speeds statement",
    ] {
        RunHistories::parse(text).expect_err(text);
    }
    let runs: String = (0..5)
        .map(|run| {
            format!(
                "run {} 97 0=A,1=B,2=Z source=3000/5000 segment:0-1=410000/520000 \
                 host:1=2500/- forward:0-1=200000/- network:0-1=400000/-\n",
                START + run * MINUTE
            )
        })
        .collect();
    let read =
        RunHistories::parse(&format!("subsegment-tcp-speeds state 1\n{runs}")).expect("state 1");
    let path = read
        .state
        .paths
        .get(&"0=A,1=B,2=Z".to_owned())
        .expect("its path");
    let parts: Vec<Part> = path.parts.keys().copied().collect();
    let segment = Part::Segment { from: 0, to: 1 };
    assert_eq!(parts, [Part::Host(0), Part::Host(1), segment]);
    let runs = path.parts.get(&segment).expect("the segment").usual();
    assert_eq!((runs.len(), runs[0].p50), (5, SignedNanos(410_000)));
}

/// A record of nine parts as a path of five nodes has them.
fn of_nine(random: &mut Random, when: When, base: i64) -> Record {
    let mut parts = VecMap::new();
    for hop in 0..5_u8 {
        let mut figures = |level: i64, synchronised: bool| {
            let mut at = |spread: u64| SignedNanos(level + random.below(spread) as i64);
            PartRecord {
                count: 2_990 + at(10).0.rem_euclid(10) as u64,
                mean: at(300_000),
                p50: at(200_000),
                p95: at(2_000_000),
                one_way: synchronised.then(|| OneWayMedians {
                    ways: [at(150_000), at(150_000)],
                    error: Nanos(30_000),
                }),
                rise: None,
            }
        };
        parts.insert(Part::Host(hop), figures(80_000, false));
        if hop < 4 {
            let segment = Part::Segment {
                from: hop,
                to: hop + 1,
            };
            parts.insert(segment, figures(base, true));
        }
    }
    Record {
        sequence: 0,
        window: Nanos(5 * MINUTE),
        when,
        parts: PartRecords::from(&parts),
    }
    .rounded()
}

#[test]
fn four_weeks_of_nine_parts_take_less_than_512_kib_and_keep_a_day_and_an_hour_each_before() {
    let mut random = Random(3);
    let (mut state, mut when) = (RunHistories::default(), start());
    for window in 0..28 * 288 + 100 {
        when.wall.0 += 5 * MINUTE;
        when.mono = when.mono + Nanos(5 * MINUTE);
        let mut record = of_nine(&mut random, when, 34_000_000);
        record.sequence = state.next_sequence();
        let path = "0=A,1=B,2=C,3=D,4=Z";
        // A week fills all that a watch has.
        match window < 21 * 288 {
            true => state.keep(path, record),
            false => drop(state.push(path, record)),
        }
    }
    let text = state.text();
    assert!(text.len() < 512 << 10, "{} KiB", text.len() >> 10);
    println!("a state after four weeks: {} KiB", text.len() >> 10);
    // The rest of a path's 512 KiB are its rows.
    let memory = state.memory() >> 10;
    assert!((100..320).contains(&memory), "{memory} KiB");
    let path = state.paths.values().next().expect("its path");
    let day = Nanos(24 * 60 * MINUTE);
    let is_recent = |record: &&Record| when.since(&record.when).is_some_and(|age| age < day);
    let recent = path.records.iter().filter(is_recent).count();
    assert!(
        recent <= RECENT_KEPT && recent > RECENT_KEPT - 2,
        "{recent}"
    );
    let older = path.records.len() - recent;
    assert!((600..=HOURS_KEPT).contains(&older), "{older}");
    let ordered = path
        .records
        .windows(2)
        .all(|two| two[0].sequence < two[1].sequence);
    assert!(ordered, "records are in order of their numbers");
}

#[test]
fn short_windows_merge_and_stepped_clocks_keep_the_number_of_records_bounded() {
    for seed in 1..=3 {
        let mut random = Random(seed);
        let (mut state, mut when) = (RunHistories::default(), start());
        for _ in 0..3_000 {
            when = random.later(when);
            when.wall.0 = when.wall.0.saturating_sub(290_000_000_000);
            when.mono.0 = when.mono.0.saturating_sub(290_000_000_000);
            let mut record = random.record(when);
            record.window = Nanos(10_000_000_000);
            record.sequence = state.next_sequence();
            state.push("0=A", record);
        }
        let path = state.paths.values().next().expect("its path");
        assert!(
            path.records.len() <= RECENT_KEPT + HOURS_KEPT,
            "seed {seed}"
        );
        let read =
            RunHistories::parse(&state.text()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(read.state, state, "seed {seed}");
    }
}

#[test]
fn paths_are_bounded_and_the_one_recorded_longest_ago_goes() {
    let mut random = Random(9);
    let mut state = RunHistories::default();
    for path in 0..PATHS + 3 {
        let mut record = random.record(start());
        record.sequence = state.next_sequence();
        state.push(&format!("0=n{path}"), record);
    }
    assert_eq!(state.paths.len(), PATHS);
    assert!(!state.paths.contains_key(&"0=n0".to_owned()));
}

#[test]
fn a_rise_of_windows_is_named_survives_the_file_and_is_accepted() {
    let part = Part::Segment { from: 0, to: 1 };
    let mut random = Random(21);
    let (mut state, mut when) = (RunHistories::default(), start());
    let push = |state: &mut RunHistories, when: &mut When, random: &mut Random, level: i64| {
        when.wall.0 += 5 * MINUTE;
        when.mono = when.mono + Nanos(5 * MINUTE);
        let mut record = of_nine(random, *when, level);
        record.sequence = state.next_sequence();
        state.push("0=A", record)
    };
    for _ in 0..60 {
        let events = push(&mut state, &mut when, &mut random, 34_000_000);
        assert_eq!(events, [], "{when:?}");
    }
    let risen = when;
    for _ in 0..6 {
        push(&mut state, &mut when, &mut random, 42_000_000);
    }
    let mut state = RunHistories::parse(&state.text())
        .expect("as it was written")
        .state;
    let lasts = |state: &RunHistories| {
        let path = state.paths.values().next().expect("its path");
        path.watches.get(&part).and_then(RecordWatch::lasts)
    };
    let named = lasts(&state).expect("8 ms are named within six windows");
    assert!(
        (7_000_000..9_000_000).contains(&named.amount.0),
        "{named:?}"
    );
    let since = named.since.wall.0.abs_diff(risen.wall.0);
    assert!(since <= 10 * MINUTE, "{named:?}");
    assert_eq!(state.accept(Some(Part::Host(1))), []);
    let segments = (0..4).map(|from| Part::Segment { from, to: from + 1 });
    let accepted: Vec<Part> = state
        .accept(None)
        .into_iter()
        .map(|(_, part)| part)
        .collect();
    assert_eq!(accepted, segments.collect::<Vec<_>>());
    assert_eq!(lasts(&state), None);
    for _ in 0..30 {
        push(&mut state, &mut when, &mut random, 42_000_000);
        assert_eq!(lasts(&state), None);
    }
}

#[test]
fn a_direction_is_known_where_the_clocks_agreed_better_than_half_of_the_change() {
    let by = |forward: i64, back: i64, error: u64| OneWayMedians {
        ways: [forward, back].map(|way| SignedNanos(way * 1_000_000)),
        error: Nanos(error * 1_000_000),
    };
    let ms = |forward: i64, back: i64| by(forward, back, 1);
    let before = [ms(10, 12), ms(10, 12), ms(10, 12)];
    let rise = SignedNanos(8_000_000);
    let of = |after: &[OneWayMedians]| direction_of(rise, &before, after);
    assert_eq!(of(&[ms(18, 12)]), Some(VerdictDirection::Forward));
    assert_eq!(of(&[ms(10, 20)]), Some(VerdictDirection::Return));
    assert_eq!(of(&[ms(14, 16)]), Some(VerdictDirection::Both));
    // The far clock is 20 ms ahead since.
    assert_eq!(of(&[ms(38, -8)]), None);
    // Clocks that may be 1 ms and 4 ms off say nothing of 8 ms.
    assert_eq!(of(&[by(18, 12, 3)]), Some(VerdictDirection::Forward));
    assert_eq!(of(&[by(18, 12, 4)]), None);
    let wandering = [ms(10, 12), ms(30, -8), ms(15, 7)];
    assert_eq!(direction_of(rise, &wandering, &[ms(18, 12)]), None);
    assert_eq!(direction_of(rise, &before[..2], &[ms(18, 12)]), None);
}

#[test]
fn names_of_a_path_are_read_as_they_were_written() {
    let nodes = vec![
        (0, "A".to_owned()),
        (2, "é 1,=%".to_owned()),
        (255, String::new()),
    ];
    let key = path_key(nodes.iter().map(|(hop, name)| (*hop, name.as_str())));
    assert_eq!(path_nodes(&key), nodes);
    assert!(!key.contains(' '), "{key}");
}

/// Returns windows of several boots, each with its true time. A boot's clock begins in 1970 or is
/// set, is set later, and is stepped by up to `step`.
fn boots(random: &mut Random, step: u64) -> Vec<(u64, When)> {
    let (mut truth, mut records) = (START, Vec::new());
    for boot in 1..=1 + random.below(5) {
        truth += random.below(90 * MINUTE);
        let begun = truth;
        let mut is_set = random.below(2) == 0;
        let mut off = 0;
        for _ in 0..random.below(20) {
            truth += 5 * MINUTE;
            is_set |= random.below(8) == 0;
            if step > 0 && random.below(6) == 0 {
                off = random.below(2 * step) as i64 - step as i64;
            }
            let uptime = truth - begun;
            let wall = match is_set {
                true => truth.wrapping_add_signed(off),
                false => uptime,
            };
            let when = When {
                wall: WallTime(wall / 1_000_000 * 1_000_000),
                utc_offset: 0,
                boot,
                mono: MonoTime(uptime / 1_000_000 * 1_000_000),
            };
            records.push((truth, when));
        }
    }
    records
}

#[test]
fn a_beginning_is_right_or_null_with_a_time_that_it_was_before() {
    const MILLI: u64 = 1_000_000;
    let (mut known, mut unknown) = (0, 0);
    for seed in 1..=400_u64 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let step = [0, 300 * MINUTE][(seed % 2) as usize];
        let windows = boots(&mut random, step);
        let Some((truth_now, now)) = windows.last().copied() else {
            continue;
        };
        let records = windows.iter().map(|(_, when)| Record {
            when: *when,
            ..Record::default()
        });
        let history = PathHistory {
            records: records.collect(),
            ..PathHistory::default()
        };
        // By the clock as it is now: so much is it ahead, if it is set.
        let ahead = now.wall.0.wrapping_sub(truth_now) as i64;
        for (truth, at) in &windows {
            let what = format!("seed {seed}: {at:?} of {truth}, now {now:?}");
            let Began { since, at_most } = history.began(*at, now);
            assert_ne!(since.is_some(), at_most.is_some(), "{what}");
            let found = since.or(at_most).expect("one of both");
            assert!(found <= now.wall, "{what}: {found:?}");
            if at.boot == now.boot {
                let exact = truth.wrapping_add_signed(ahead);
                assert!(found.0.abs_diff(exact) <= 2 * MILLI, "{what}: {found:?}");
                continue;
            }
            if now.is_clock_set() {
                let off = step + 2 * MILLI;
                match since {
                    Some(since) => assert!(since.0.abs_diff(*truth) <= off, "{what}: {since:?}"),
                    None => assert!(found.0 + off + step >= *truth, "{what}: {found:?}"),
                }
            }
            let set = |(_, when): &&(u64, When)| when.boot == at.boot && when.is_clock_set();
            let is_linked = windows.iter().any(|record| set(&record));
            if step == 0 {
                assert_eq!(since.is_some(), is_linked && now.is_clock_set(), "{what}");
            }
            known += usize::from(since.is_some());
            unknown += usize::from(since.is_none());
        }
    }
    assert!(known > 1_000 && unknown > 1_000, "{known} {unknown}");
}

#[test]
fn a_change_of_runs_began_when_its_clock_was_set_or_before_the_first_run_whose_was() {
    let mut unknown = 0;
    for seed in 1..=4_000_u64 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let (mut truth, mut runs) = (START, Vec::new());
        for _ in 0..=random.below(12) {
            truth += MINUTE + random.below(600 * MINUTE);
            let is_set = random.below(3) > 0;
            runs.push((
                truth,
                if is_set {
                    truth
                } else {
                    random.below(9 * MINUTE)
                },
            ));
        }
        let text: Vec<String> = runs
            .iter()
            .map(|run| format!("{}:5:40:0:", run.1))
            .collect();
        let text = format!("usual changed {} 900 {}", runs[0].1, text.join(" "));
        let history = RunHistory::parse(&text).expect(&text);
        let next = truth + MINUTE;
        for now in [next, MINUTE * 10] {
            let Began { since, at_most } = history.began(WallTime(now));
            let what = format!("seed {seed}, now {now}: {since:?} {at_most:?} of {runs:?}");
            let is_known = runs[0].0 == runs[0].1 && now == next;
            assert_eq!(since, is_known.then_some(WallTime(runs[0].0)), "{what}");
            let set = runs.iter().find(|run| run.0 == run.1 && now == next);
            let first = WallTime(set.map_or(now, |run| run.1));
            assert_eq!(at_most, (!is_known).then_some(first), "{what}");
            unknown += usize::from(!is_known);
        }
    }
    assert!(unknown > 4_000, "{unknown}");
}

#[test]
fn a_rise_of_a_young_run_is_over_soon_after_it_ends() {
    for seed in 1..=40_u64 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let window = Nanos(2_000_000_000);
        let mut watch = RecordWatch::new(window);
        let (mut when, mut named) = (start(), false);
        for number in 0..80_u64 {
            let level = if (25..32).contains(&number) {
                48_600
            } else {
                40_600
            };
            let us = |random: &mut Random, wide: u64| level + random.below(wide) as i64;
            let figures = Figures {
                p50: SignedNanos(us(&mut random, 150) * 1_000),
                mean: SignedNanos(us(&mut random, 300) * 1_000),
                p95: SignedNanos(us(&mut random, 900) * 1_000),
            };
            watch.push(when, &figures);
            named |= watch.lasts().is_some();
            when.wall = WallTime(when.wall.0 + window.0);
            when.mono = when.mono + window;
        }
        assert!(named, "seed {seed}");
        assert_eq!(watch.lasts(), None, "seed {seed}");
    }
}
