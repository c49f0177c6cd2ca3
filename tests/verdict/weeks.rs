//! Records of paths over weeks, one every five minutes: base, rhythm, bursts, losses and reboots of
//! their hosts.

use crate::random::Random;
use crate::row;
use crate::search::ns;
use subsegment_tcp_speeds::measure::change::{Figures, RecordEvent, RecordWatch, When};
use subsegment_tcp_speeds::time::{MonoTime, Nanos, WallTime};

const WINDOW: Nanos = Nanos(300 * 1_000_000_000);
const DAY: usize = 288;
/// A Monday at midnight in 2026.
const MONDAY: u64 = 1_792_368_000 * 1_000_000_000;

/// One part of a path.
struct Part {
    watch: RecordWatch,
    base: f64,
    /// Standard deviations of p50, mean and p95 between windows.
    sigma: [f64; 3],
    amplitude: f64,
    host: bool,
    noise: [f64; 3],
    level: f64,
    loss: usize,
}

impl Part {
    fn new(random: &mut Random, place: usize) -> Self {
        let host = place % 2 == 1;
        let base = if host {
            random.between(0.05, 0.3)
        } else {
            [0.1, 0.3, 1.0, 5.0, 10.0, 20.0][random.below(6)]
        };
        let sigma = 0.01 * base + 0.01;
        Self {
            watch: RecordWatch::new(WINDOW),
            base,
            sigma: [sigma, 1.2 * sigma, 2.0 * sigma],
            amplitude: if host { 0.05 } else { 0.2 },
            host,
            noise: [(); 3].map(|()| random.normal()),
            level: 0.0,
            loss: 0,
        }
    }

    /// The figures of a window, `more` of them by a change, in milliseconds.
    fn next(&mut self, random: &mut Random, rho: f64, rhythm: f64, more: f64) -> Figures {
        let burst = if random.chance(0.01) {
            random.between(0.5, 10.0)
        } else {
            0.0
        };
        self.loss = if random.chance(1.0 / DAY as f64 / 9.0) {
            1 + random.below(2)
        } else {
            self.loss.saturating_sub(1)
        };
        let lost = f64::from(u8::from(self.loss > 0));
        if random.chance(1.0 / DAY as f64 / 14.0) && self.host {
            self.level = random.between(-0.04, 0.04);
        }
        let own = self.base * (1.0 + self.amplitude * rhythm) + self.level;
        let mut values = [0.0; 3];
        for (figure, value) in values.iter_mut().enumerate() {
            self.noise[figure] =
                rho * self.noise[figure] + (1.0 - rho * rho).sqrt() * random.normal();
            *value = own * [1.0, 1.05, 1.3][figure]
                + self.noise[figure] * self.sigma[figure]
                + burst * [0.1, 0.5, 5.0][figure]
                + lost * [0.0, 3.0, 60.0][figure]
                + more;
        }
        let [p50, mean, p95] = values.map(ns);
        Figures { p50, mean, p95 }
    }
}

/// Busy from 9 to 17:30 on working days, a quarter of that at the weekend.
fn rhythm(t: usize, first: f64) -> f64 {
    let hours = t as f64 / 12.0 + first;
    let hour = hours % 24.0;
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    let busy = logistic((hour - 9.0) * 2.0) * logistic((17.5 - hour) * 2.0);
    busy * if (hours / 24.0) as u64 % 7 < 5 {
        1.0
    } else {
        0.25
    }
}

/// The clocks of a node that began `first` hours into a week; not set if the weekday is unknown.
fn when(t: usize, first: f64, known: bool) -> When {
    let since = t as u64 * WINDOW.0;
    let wall = if known {
        MONDAY + (first * 3.6e12) as u64
    } else {
        0
    };
    When {
        wall: WallTime(wall + since),
        utc_offset: 0,
        boot: 1,
        mono: MonoTime(since),
    }
}

/// The findings on unchanged paths.
struct Quiet {
    /// Episodes, per path and week.
    episodes: Vec<Vec<usize>>,
    named: usize,
    falls: usize,
}

fn quiet(rho: f64, first: f64, known: bool, seed: u64, paths: usize, days: usize) -> Quiet {
    let mut random = Random::new(seed);
    let mut quiet = Quiet {
        episodes: Vec::new(),
        named: 0,
        falls: 0,
    };
    for _ in 0..paths {
        let mut parts: Vec<Part> = (0..9).map(|place| Part::new(&mut random, place)).collect();
        let mut episodes = vec![0; days.div_ceil(7)];
        let mut before = false;
        for t in 0..days * DAY {
            let rhythm = rhythm(t, first);
            let at = when(t, first, known);
            for part in &mut parts {
                let record = part.next(&mut random, rho, rhythm, 0.0);
                let event = part.watch.push(at, &record);
                quiet.falls += usize::from(matches!(event, Some(RecordEvent::Fell(_))));
            }
            let now = parts.iter().any(|part| part.watch.lasts().is_some());
            episodes[t / (7 * DAY)] += usize::from(now && !before);
            quiet.named += usize::from(now);
            before = now;
        }
        quiet.episodes.push(episodes);
    }
    quiet
}

/// A change after `healthy` days.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    /// By so many standard deviations of the windows (0.2 ms at least), for three days.
    Step(f64),
    /// By 5 % of the base a day.
    Drift,
    /// In busy hours alone.
    Busy(f64),
}

/// The finding on one changed part.
#[derive(Clone, Copy, Debug, Default)]
struct Named {
    base: f64,
    /// Windows from the start to the first in which it was named.
    after: Option<usize>,
    /// Windows from the true start to `since`.
    since: i64,
    /// Windows in which it was not, after that.
    off: usize,
    cleared: Option<usize>,
    episodes: u16,
    slow: bool,
}

fn changed(change: Change, rho: f64, seed: u64, parts: usize) -> Vec<Named> {
    let mut random = Random::new(seed);
    let healthy = 15;
    let lasts = if matches!(change, Change::Step(_)) {
        3
    } else {
        5
    };
    let one = |_| {
        let mut part = Part::new(&mut random, 0);
        let start = healthy * DAY
            + if matches!(change, Change::Step(_)) {
                random.below(DAY)
            } else {
                0
            };
        let end = start + lasts * DAY;
        let mut named = Named {
            base: part.base,
            ..Named::default()
        };
        for t in 0..(healthy + lasts + 1) * DAY {
            let rhythm = rhythm(t, 0.0);
            let by = |deviations: f64| (deviations * part.sigma[0]).max(0.2);
            let on = (start..end).contains(&t);
            let more = match change {
                Change::Step(k) if on => by(k),
                Change::Busy(k) if on && rhythm > 0.5 => by(k),
                Change::Drift => 0.05 * part.base * t.saturating_sub(start) as f64 / DAY as f64,
                _ => 0.0,
            };
            let record = part.next(&mut random, rho, rhythm, more);
            part.watch.push(when(t, 0.0, true), &record);
            let lasting = part.watch.lasts();
            match lasting {
                Some(lasting) if on && named.after.is_none() => {
                    named.after = Some(t - start + 1);
                    named.slow = lasting.per_day.is_some();
                    let began = (lasting.since.mono.0 / WINDOW.0) as i64;
                    named.since = began - start as i64;
                }
                None if on && named.after.is_some() => named.off += 1,
                None if t >= end && named.cleared.is_none() => named.cleared = Some(t - end + 1),
                _ => {}
            }
            named.episodes = lasting.map_or(named.episodes, |lasting| lasting.episodes);
        }
        named
    };
    (0..parts).map(one).collect()
}

fn count(named: &[Named], test: impl Fn(&Named) -> bool) -> usize {
    named.iter().filter(|named| test(named)).count()
}

fn within(after: Option<usize>, most: usize) -> bool {
    after.is_some_and(|after| after <= most)
}

pub(crate) fn false_verdicts() {
    row!("## Four weeks of paths of 9 parts: false verdicts per path in week 1 to 4; reference");
    for (rho, first, known, reference) in [
        (
            0.5,
            0.0,
            true,
            "0.25 0.25 0.25 0.25; 2 or more 2 %; time 1.3 %",
        ),
        (0.9, 100.0, true, "0.00 0.50 0.33 0.75; 12 %; 0.9 %"),
        (0.5, 130.0, false, "0.50 0.00 0.00 0.17; 2 %; 0.9 %"),
    ] {
        let paths = 24;
        let quiet = quiet(rho, first, known, 11 + first as u64, paths, 28);
        let week = |week: usize| {
            let episodes = quiet.episodes.iter().map(|episodes| episodes[week]);
            format!("{:.2}", episodes.sum::<usize>() as f64 / paths as f64)
        };
        let weeks = [0, 1, 2, 3].map(week).join(" ");
        let often = quiet
            .episodes
            .iter()
            .flatten()
            .filter(|episodes| **episodes > 1)
            .count();
        row!(
            "AR {rho}, first record {first} h into the week, weekday {}: {weeks}; weeks with 2 \
                or more {:.0} %; time named {:.2} %; falls per path and week {:.2}  \
                [{reference}]",
            if known { "known" } else { "unknown" },
            100.0 * often as f64 / (4 * paths) as f64,
            100.0 * quiet.named as f64 / (paths * 28 * DAY) as f64,
            quiet.falls as f64 / (4 * paths) as f64
        );
    }
}

pub(crate) fn steps() {
    row!(
        "## Step after 15 days, for 3 days, of 400 parts, in %: named within 3, 6, 24 windows; \
        since within 1; not named after; cleared within 3, 6; reference"
    );
    let reference = [
        [
            "73 93, since 93, cleared 79 95, off 0.2",
            "97 100, 100, 96 98, 0",
            "99 100, 100, 99 99, 0",
        ],
        [
            "64 81 (of 2,000 parts: 55 73), since 83, cleared 71 80, off 2.4",
            "94 99, 99, 98 99, 0.1",
            "97 100, 100, 99 99, 0",
        ],
        [
            "79 87, since 91, cleared 93 94, off 14",
            "98 100, 99, 98 98, 1.0",
            "98 100, 100, 99 99, 0",
        ],
    ];
    for (rho, reference) in [0.0, 0.5, 0.9].into_iter().zip(reference) {
        for (k, reference) in [3.0, 5.0, 8.0].into_iter().zip(reference) {
            let parts = 400;
            let named = changed(Change::Step(k), rho, 2100 + (k + 10.0 * rho) as u64, parts);
            let share = |n: usize| format!("{:.0}", 100.0 * n as f64 / parts as f64);
            let off: usize = named.iter().map(|named| named.off).sum();
            row!(
                "{k} sd, AR {rho}: {} {} {}; since {}; not named {:.1}; cleared {} {}  \
                    [{reference}]",
                share(count(&named, |n| within(n.after, 3))),
                share(count(&named, |n| within(n.after, 6))),
                share(count(&named, |n| within(n.after, 24))),
                share(count(&named, |n| n.after.is_some() && n.since.abs() <= 1)),
                100.0 * off as f64 / (parts * 3 * DAY) as f64,
                share(count(&named, |n| within(n.cleared, 3))),
                share(count(&named, |n| within(n.cleared, 6)))
            );
        }
    }
}

pub(crate) fn slow() {
    row!(
        "## Drift of 5 % a day (AR 0.5): day on which it is named (median), within 4 days; \
        reference: base 1 ms day 2.2, 5: 1.0, 10: 0.8, 20: 0.7, all of them within 4"
    );
    let named = changed(Change::Drift, 0.5, 31, 100);
    for base in [0.1, 0.3, 1.0, 5.0, 10.0, 20.0] {
        let of: Vec<Named> = named
            .iter()
            .filter(|named| named.base == base)
            .copied()
            .collect();
        let mut days: Vec<f64> = of
            .iter()
            .map(|n| n.after.map_or(f64::NAN, |after| after as f64 / DAY as f64))
            .collect();
        days.sort_by(f64::total_cmp);
        let within = count(&of, |n| within(n.after, 4 * DAY));
        row!(
            "base {base} ms: day {:.1}, {within} of {}; called slow {}",
            days[days.len() / 2],
            of.len(),
            count(&of, |n| n.slow)
        );
    }
    row!(
        "## Busy hours alone, 5 days (AR 0.5), of 100: named on day 1, by day 2; reference day \
        1: +1.5 sd 67, +3 91, +5 100"
    );
    for k in [1.5, 3.0, 5.0] {
        let named = changed(Change::Busy(k), 0.5, 41, 100);
        let mut episodes: Vec<u16> = named.iter().map(|n| n.episodes).collect();
        episodes.sort_unstable();
        row!(
            "+{k} sd: {} {}; episodes merged into the last finding (median) {}",
            count(&named, |n| within(n.after, DAY)),
            count(&named, |n| within(n.after, 2 * DAY)),
            episodes[50]
        );
    }
}

pub(crate) fn cost() {
    let mut random = Random::new(1);
    let mut parts: Vec<Part> = (0..9).map(|place| Part::new(&mut random, place)).collect();
    let mut spent = std::time::Duration::ZERO;
    let days = 10;
    for t in 0..days * DAY {
        let rhythm = rhythm(t, 0.0);
        for part in &mut parts {
            let record = part.next(&mut random, 0.5, rhythm, 0.0);
            let start = std::time::Instant::now();
            part.watch.push(when(t, 0.0, true), &record);
            spent += start.elapsed();
        }
    }
    let text: usize = parts.iter().map(|part| part.watch.to_string().len()).sum();
    row!(
        "cost of a record, 9 parts: {:.0} microseconds; a watch has {} bytes and {} on the heap \
            at most; 9 as text after {days} days: {text} bytes",
        spent.as_secs_f64() * 1e6 / (days * DAY) as f64,
        size_of::<RecordWatch>(),
        3 * (288 * 4 + 24 * 4 + 97 * 2)
    );
}

// As tests: one or two parts for some days.

/// Pushes days of a part without noise but a little; returns the windows with events.
fn run(
    watch: &mut RecordWatch,
    range: std::ops::Range<usize>,
    clock: impl Fn(usize) -> When,
    more: f64,
) -> Vec<(usize, RecordEvent)> {
    let mut random = Random::new(range.start as u64 + 90_000);
    let mut events = Vec::new();
    for t in range {
        let value = |_| ns(5.0 + 0.06 * random.normal() + more);
        let [p50, mean, p95] = [(); 3].map(value);
        let event = watch.push(clock(t), &Figures { p50, mean, p95 });
        events.extend(event.map(|event| (t, event)));
        // Through the file and back.
        if t % 50 == 0 {
            *watch = RecordWatch::parse(&watch.to_string()).expect("own text");
        }
    }
    events
}

fn known(t: usize) -> When {
    when(t, 0.0, true)
}

#[test]
fn a_step_is_named_since_its_window_stays_named_and_is_cleared() {
    let mut watch = RecordWatch::new(WINDOW);
    assert_eq!(run(&mut watch, 0..4 * DAY, known, 0.0), []);
    let start = 4 * DAY;
    let events = run(&mut watch, start..start + 2 * DAY, known, 3.0);
    assert_eq!(events, [(start + 2, RecordEvent::Named)]);
    let lasts = watch.lasts().unwrap();
    assert_eq!(
        (lasts.since, lasts.episodes, lasts.per_day),
        (known(start), 1, None)
    );
    assert!(
        (lasts.amount.as_millis_f64() - 3.0).abs() < 0.3,
        "{lasts:?}"
    );
    let end = start + 2 * DAY;
    let events = run(&mut watch, end..end + DAY, known, 0.0);
    assert_eq!(events, [(end + 2, RecordEvent::Cleared)]);
}

#[test]
fn what_is_named_again_within_a_day_is_one_finding() {
    let mut watch = RecordWatch::new(WINDOW);
    run(&mut watch, 0..4 * DAY, known, 0.0);
    for day in 4..7 {
        run(&mut watch, day * DAY..day * DAY + 100, known, 3.0);
        let lasts = watch.lasts().unwrap();
        assert_eq!(
            (lasts.episodes, lasts.first),
            (day as u16 - 3, known(4 * DAY))
        );
        run(&mut watch, day * DAY + 100..(day + 1) * DAY, known, 0.0);
        assert_eq!(watch.lasts(), None);
    }
}

#[test]
fn a_rise_becomes_normal_after_a_week_or_when_accepted() {
    let mut watch = RecordWatch::new(WINDOW);
    run(&mut watch, 0..4 * DAY, known, 0.0);
    let events = run(&mut watch, 4 * DAY..13 * DAY, known, 3.0);
    assert_eq!(
        events[..],
        [
            (4 * DAY + 2, RecordEvent::Named),
            (11 * DAY, RecordEvent::NewNormal)
        ]
    );
    assert_eq!(watch.lasts(), None);
    let events = run(&mut watch, 13 * DAY..13 * DAY + 10, known, 6.0);
    assert_eq!(events, [(13 * DAY + 2, RecordEvent::Named)]);
    watch.accept();
    assert_eq!(run(&mut watch, 13 * DAY + 10..15 * DAY, known, 6.0), []);
}

#[test]
fn a_fall_is_the_new_level_after_a_day_and_a_further_rise_is_seen() {
    let mut watch = RecordWatch::new(WINDOW);
    run(&mut watch, 0..8 * DAY, known, 0.0);
    // One that is over within a day is no rise when it ends.
    let events = run(&mut watch, 8 * DAY..8 * DAY + 100, known, -2.0);
    assert!(
        matches!(events[..], [(at, RecordEvent::Fell(_))] if at == 8 * DAY + 2),
        "{events:?}"
    );
    assert_eq!(run(&mut watch, 8 * DAY + 100..9 * DAY, known, 0.0), []);
    let events = run(&mut watch, 9 * DAY..11 * DAY, known, -2.0);
    let [(fell, RecordEvent::Fell(by)), (normal, RecordEvent::NewNormal)] = events[..] else {
        panic!("{events:?}");
    };
    assert_eq!((fell, normal), (9 * DAY + 2, 10 * DAY + 2));
    assert!((by.as_millis_f64() - 2.0).abs() < 0.2, "{by:?}");
    let events = run(&mut watch, 11 * DAY..12 * DAY, known, 0.0);
    assert_eq!(events, [(11 * DAY + 2, RecordEvent::Named)]);
    let events = run(&mut watch, 12 * DAY..12 * DAY + 50, known, 3.0);
    assert_eq!(events, [(12 * DAY + 2, RecordEvent::Further)]);
    let further = watch.lasts().unwrap().further.unwrap();
    assert!((further.as_millis_f64() - 3.0).abs() < 0.4, "{further:?}");
}

#[test]
fn a_reboot_and_a_step_of_the_clock_are_no_change_and_keep_what_is_usual() {
    let mut watch = RecordWatch::new(WINDOW);
    assert_eq!(run(&mut watch, 0..4 * DAY, known, 0.0), []);
    // Off for three hours; then another boot, whose monotonic clock begins anew.
    let rebooted = |t: usize| When {
        boot: 2,
        mono: MonoTime((t as u64 - 4 * DAY as u64) * WINDOW.0),
        ..known(t)
    };
    assert_eq!(run(&mut watch, 4 * DAY + 36..5 * DAY, rebooted, 0.0), []);
    // A clock that jumps five hours ahead, and one that reads 1970.
    let ahead = |t: usize| {
        let at = rebooted(t);
        When {
            wall: WallTime(at.wall.0 + 5 * 3_600_000_000_000),
            ..at
        }
    };
    assert_eq!(run(&mut watch, 5 * DAY..6 * DAY, ahead, 0.0), []);
    let unset = |t: usize| When {
        boot: 3,
        wall: WallTime(t as u64 * WINDOW.0),
        ..known(t)
    };
    assert_eq!(run(&mut watch, 6 * DAY..6 * DAY + 20, unset, 0.0), []);
    let events = run(&mut watch, 6 * DAY + 20..6 * DAY + 40, unset, 3.0);
    assert!(
        matches!(events[..], [(at, RecordEvent::Named)] if at <= 6 * DAY + 24),
        "{events:?}"
    );
    assert!(!watch.lasts().unwrap().since.is_clock_set());
    assert_eq!(
        run(&mut watch, 6 * DAY + 40..6 * DAY + 60, unset, 0.0).len(),
        1
    );
    // Set again, in the same boot: a step of the clock.
    let set = |t: usize| When {
        boot: 3,
        ..known(t)
    };
    assert_eq!(run(&mut watch, 6 * DAY + 60..7 * DAY, set, 0.0), []);
}

#[test]
fn windows_of_ten_seconds_name_a_step_within_three_of_them() {
    let window = Nanos(10 * 1_000_000_000);
    let clock = |t: usize| {
        let since = t as u64 * window.0;
        When {
            wall: WallTime(MONDAY + since),
            utc_offset: 3600,
            boot: 1,
            mono: MonoTime(since),
        }
    };
    let mut watch = RecordWatch::new(window);
    assert_eq!(run(&mut watch, 0..60, clock, 0.0), []);
    let events = run(&mut watch, 60..160, clock, 3.0);
    assert_eq!(events, [(62, RecordEvent::Named)]);
    assert_eq!(
        run(&mut watch, 160..180, clock, 0.0),
        [(162, RecordEvent::Cleared)]
    );
}

#[test]
fn a_damaged_line_is_refused_or_read_and_never_a_panic() {
    let mut watch = RecordWatch::new(WINDOW);
    run(&mut watch, 0..4 * DAY, known, 0.0);
    run(&mut watch, 4 * DAY..4 * DAY + 30, known, 3.0);
    let text = watch.to_string();
    assert_eq!(RecordWatch::parse(&text).unwrap(), watch);
    for end in (0..text.len()).filter(|end| text.as_bytes()[*end] == b' ') {
        assert_eq!(RecordWatch::parse(&text[..end]), None, "cut at {end}");
    }
    let mut random = Random::new(90_001);
    for _ in 0..500 {
        let mut bytes = text.clone().into_bytes();
        random.damage(&mut bytes);
        let Ok(damaged) = String::from_utf8(bytes) else {
            continue;
        };
        if let Some(mut read) = RecordWatch::parse(&damaged) {
            run(&mut read, 4 * DAY + 30..4 * DAY + 40, known, 0.0);
        }
    }
}

#[test]
fn a_week_of_a_path_is_quiet_and_steps_are_named() {
    let quiet = quiet(0.5, 0.0, true, 90_002, 1, 4);
    let episodes: usize = quiet.episodes.iter().flatten().sum();
    assert!(episodes <= 3, "{episodes} false verdicts");
    let named = changed(Change::Step(8.0), 0.5, 90_003, 4);
    assert!(count(&named, |n| within(n.after, 6)) >= 3, "{named:?}");
    assert!(count(&named, |n| within(n.cleared, 6)) >= 3, "{named:?}");
}
