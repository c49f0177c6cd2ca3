//! Batches of a baseline and of the current part in; increases and the verdict out.
//!
//! The differences of all pairs of batches give the increase and its interval (Hodges-Lehmann
//! estimate with the ranks of the Mann-Whitney test). Blocks in a row are not independent, so eight
//! batches count as eight values however many blocks they hold, and an increase has to exceed what
//! the baseline's batches differ by among themselves.

use super::series::exact_quantile;
use super::{Basis, Confidence, Figure, Verdict, VerdictDirection, VerdictKind};
use crate::time::SignedNanos;

/// Less than this is nothing that user space can blame a network for.
const FLOOR_NS: i64 = 100_000;
/// Normal quantile of a two-sided interval of 99 %.
const Z_99: f64 = 2.576;
/// A pump that was blocked in `write` for more than this share of the time was held.
const HELD: f64 = 0.10;
/// Held for more than this it is the bottleneck, whatever else there is.
const MOSTLY_HELD: f64 = 0.50;
/// Earlier runs below which there is no baseline, and below which it is a weak one.
pub(super) const MIN_RUNS: usize = 3;
const FEW_RUNS: usize = 8;

impl Figure {
    /// The quantile as a share, and how many blocks a batch needs for it.
    pub(super) fn rule(self) -> (f64, usize) {
        match self {
            Self::P50 => (0.50, 5),
            Self::P95 => (0.95, 20),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P95 => "p95",
        }
    }
}

/// Growth of one part at one quantile, in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Increase {
    pub(super) figure: Figure,
    /// Median of the baseline's batches.
    pub(super) baseline: i64,
    /// Median of the differences, and its interval.
    pub(super) amount: i64,
    pub(super) low: i64,
    pub(super) high: i64,
    pub(super) stands_out: bool,
    /// What keeps the confidence low.
    pub(super) doubts: Vec<String>,
    /// A rise that lasts, wherever in the run it began; `None` where there is none, and for runs of
    /// a state.
    pub(super) rise: Option<Rise>,
}

/// The batches of a run, baseline and current part one after the other, lie on two levels, the
/// later one higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rise {
    /// Between the medians of both levels, in nanoseconds.
    amount: i64,
    /// It began while the baseline was measured, else while the current part was.
    in_baseline: bool,
}

/// Compares the quantiles of batches, in the order of time; `runs`: the baseline's batches are
/// earlier runs.
///
/// The spread that an increase has to exceed is the range of the baseline's batches without
/// outliers (beyond 5 robust standard deviations, MAD x 1.4826, of their median). The range,
/// because delays are autocorrelated: a drift between batches widens the range, while the MAD of
/// eight values is often small by luck. Without outliers, because one bad hour, or one earlier run
/// that was itself an alarm, would otherwise hide every later one; such a run is not compared with
/// either. More than a fifth of the batches are no outliers but what is normal, so three or four
/// runs have none.
pub(super) fn compare(
    figure: Figure,
    mut baseline: Vec<i64>,
    current: &[i64],
    runs: bool,
) -> Option<Increase> {
    let few_runs = runs && baseline.len() < FEW_RUNS;
    let in_order = [&baseline[..], current].concat();
    let middle = exact_quantile(&mut baseline, 0.5)?;
    let floor = FLOOR_NS.max(middle / 20);
    let mut deviations: Vec<i64> = baseline.iter().map(|v| distance(*v, middle)).collect();
    let limit = exact_quantile(&mut deviations, 0.5)? as f64 * 1.4826 * 5.0;
    let usual = |v: &i64| distance(*v, middle) as f64 <= limit.max(floor as f64);
    let outliers = baseline.iter().filter(|v| !usual(v)).count();
    let mut kept = baseline.clone();
    if outliers <= baseline.len() / 5 {
        kept.retain(usual);
    }
    let spread = kept.last()?.saturating_sub(*kept.first()?);
    if runs {
        baseline = kept;
    }
    let mut differences: Vec<i64> = current
        .iter()
        .flat_map(|now| baseline.iter().map(|then| now.saturating_sub(*then)))
        .collect();
    let amount = exact_quantile(&mut differences, 0.5)?;
    let (rank, exact) = interval_rank(baseline.len(), current.len());
    let low = *differences.get(rank - 1)?;
    let high = *differences.get(differences.len() - rank)?;
    // The batches of one run are alike in what sets it apart from other runs, so eight of them do
    // not show what one more run would: the interval is at least as wide as a run of its own may
    // be away from the earlier ones. Nor is it finer than hosts are alike from run to run: how long
    // they take to wake up depends on how long they slept, by tens of microseconds.
    let run_apart = if runs {
        let apart = spread as f64 * ranges_to_one_more_run(baseline.len());
        (apart as i64).max(FLOOR_NS / 2)
    } else {
        0
    };
    let low = low.min(amount.saturating_sub(run_apart));
    let high = high.max(amount.saturating_add(run_apart));
    let stands_out = if few_runs {
        amount > floor.max(spread.saturating_mul(3)) && low > 0
    } else {
        low > floor && amount > spread
    };
    let mut doubts = Vec::new();
    if few_runs {
        doubts.push("fewer than 8 earlier runs".to_owned());
    } else if !exact {
        doubts.push("too few batches for an interval of 99 %".to_owned());
    }
    if still_drifts(current, floor.max(amount / 4)) {
        doubts.push("it still drifts".to_owned());
    }
    // A growth that is shown and yet no verdict is to be seen with its reason.
    if !stands_out && amount > floor {
        doubts.push(if spread >= amount {
            format!("its baseline varies by {} ms itself", ms(spread))
        } else {
            "not all of the run agrees".to_owned()
        });
    }
    let rise = if runs {
        None
    } else {
        rise(&in_order, baseline.len(), floor)
    };
    Some(Increase {
        figure,
        baseline: middle,
        amount,
        low,
        high,
        stands_out,
        doubts,
        rise,
    })
}

/// Finds where `batches`, of which the first `baseline` are the baseline's, rise from one level to
/// another by more than `least` and by more than either level scatters. At least two batches make a
/// level; the one in which it rose belongs to neither.
fn rise(batches: &[i64], baseline: usize, least: i64) -> Option<Rise> {
    let ends = |level: &[i64]| Some((*level.iter().min()?, *level.iter().max()?));
    let at = |first: usize, skipped: usize| {
        let (early, late) = (batches.get(..first)?, batches.get(first + skipped..)?);
        let (low, high) = (ends(early)?, ends(late)?);
        let gap = high.0.saturating_sub(low.1);
        let scatter = distance(low.0, low.1).max(distance(high.0, high.1));
        let levels = early.len() >= 2 && late.len() >= 2 && gap > scatter.max(least);
        let middle = |level: &[i64]| exact_quantile(&mut level.to_vec(), 0.5);
        let amount = middle(late)?.saturating_sub(middle(early)?);
        let in_baseline = first < baseline;
        levels.then_some((
            gap,
            Rise {
                amount,
                in_baseline,
            },
        ))
    };
    let found = (2..batches.len()).flat_map(|first| [at(first, 0), at(first, 1)]);
    let widest = found.flatten().max_by_key(|(gap, _)| *gap)?;
    Some(widest.1)
}

/// How far one more run may be from the median of `n` earlier ones, in 99 of 100 cases, as a
/// multiple of their range: Student's t of n - 1 degrees, times sqrt(1 + pi / 2n), over the mean
/// range of n normal values. At most 3, the multiple that the rule for few runs asks of an
/// increase.
fn ranges_to_one_more_run(n: usize) -> f64 {
    const FROM_FIVE: [f64; 16] = [
        2.27, 1.79, 1.52, 1.34, 1.22, 1.14, 1.07, 1.01, 0.97, 0.93, 0.90, 0.87, 0.85, 0.83, 0.81,
        0.80,
    ];
    match n.checked_sub(5) {
        None => 3.0,
        Some(place) => FROM_FIVE[place.min(FROM_FIVE.len() - 1)],
    }
}

fn distance(a: i64, b: i64) -> i64 {
    a.saturating_sub(b).saturating_abs()
}

/// The later half of the batches lies wholly to one side of the earlier half, and by more than
/// `least`.
fn still_drifts(batches: &[i64], least: i64) -> bool {
    let (early, late) = batches.split_at(batches.len() / 2);
    let range = |half: &[i64]| Some((*half.iter().min()?, *half.iter().max()?));
    let (Some(early), Some(late)) = (range(early), range(late)) else {
        return false;
    };
    let apart = late.0 > early.1 || late.1 < early.0;
    apart && batches.len() >= 6 && distance(late.0, early.0).max(distance(late.1, early.1)) > least
}

/// Which of the sorted differences, from either end and counted from 1, ends the interval of 99 % -
/// by the normal approximation of Mann-Whitney's U - and whether there are batches enough for one.
fn interval_rank(m: usize, n: usize) -> (usize, bool) {
    let (m, n) = (m as f64, n as f64);
    let rank = (m * n / 2.0 - Z_99 * (m * n * (m + n + 1.0) / 12.0).sqrt()).ceil();
    (rank.max(1.0) as usize, rank >= 1.0)
}

/// A part of the path by its place on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Segment(usize),
    Host(usize),
    /// How late the host's process reads what its kernel has.
    WakeUp(usize),
    Server,
}

/// A part of the path with what is known of its delay.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) subject: Subject,
    /// Mean delay per block, and its share of the whole.
    pub(super) mean: f64,
    pub(super) share: Option<f64>,
    /// At the median and at the 95th percentile.
    pub(super) increases: [Option<Increase>; 2],
    /// A segment with the wake-up delays at its ends in it: they are not known of enough blocks.
    pub(super) round_trip: bool,
}

impl Candidate {
    /// The increase to show: one that stands out, the median's unless the other is clearly larger;
    /// else the median's.
    pub(super) fn best(&self) -> Option<&Increase> {
        let [p50, p95] = &self.increases;
        match (p50, p95) {
            (Some(p50), Some(p95)) if p95.stands_out => {
                let larger = p95.low > p50.high.saturating_mul(2);
                Some(if larger || !p50.stands_out { p95 } else { p50 })
            }
            (p50, _) => p50.as_ref(),
        }
    }

    /// A lasting rise that is no increase over the baseline, for it began at the wrong time; the
    /// median's, if it has one.
    fn hidden_rise(&self) -> Option<Rise> {
        let increases = self.increases.iter().flatten();
        let mut hidden = increases.filter(|increase| !increase.stands_out);
        hidden.find_map(|increase| increase.rise)
    }

    fn at(&self, figure: Figure) -> Option<&Increase> {
        self.increases
            .iter()
            .flatten()
            .find(|increase| increase.figure == figure)
    }
}

/// Everything the verdict is reached from.
pub(super) struct Evidence<'a> {
    pub(super) candidates: Vec<Candidate>,
    /// Names and hops of the nodes, in order of the path.
    pub(super) nodes: Vec<(u8, String)>,
    /// The first node is where blocks begin and end, not one on the way.
    pub(super) source: bool,
    /// The last node reflects, so that its answers are written by the pump that reads.
    pub(super) reflected: bool,
    /// Shares of time in which pumps were held: forward pumps in order of the path, then return
    /// pumps.
    pub(super) held: Vec<f64>,
    /// Places of nodes whose clock was stepped.
    pub(super) stepped: Vec<usize>,
    /// Why there is no baseline, if there is none.
    pub(super) no_baseline: String,
    /// What keeps the confidence low whatever is found.
    pub(super) doubts: Vec<String>,
    /// Which way the increase of a segment or a wake-up delay lies, if the clocks allow it.
    pub(super) direction: &'a dyn Fn(Subject, &Increase) -> Option<VerdictDirection>,
}

/// Where a chain of held pumps ends: the part after the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bottleneck {
    /// `None`: what the origin writes its answers to.
    subject: Option<(Subject, Option<VerdictDirection>)>,
    /// The last held pump.
    pump: usize,
}

impl Evidence<'_> {
    /// Names the part that adds the delay.
    pub(super) fn judge(&self) -> Verdict {
        let has_baseline = self.candidates.iter().any(|c| c.best().is_some());
        let standing = self.candidates.iter().filter_map(|c| {
            let increase = c.best().filter(|increase| increase.stands_out)?;
            Some((c, increase))
        });
        if let Some((winner, increase)) = standing.max_by_key(|(_, increase)| increase.amount) {
            let (winner, increase) = self.within(winner, increase).unwrap_or((winner, increase));
            return self.grown(winner, increase);
        }
        let largest = self.candidates.iter().filter(|c| c.mean > 0.0);
        let Some(largest) = largest.max_by(|a, b| a.mean.total_cmp(&b.mean)) else {
            let nothing = self.nothing("nothing was measured", Basis::Share);
            return Verdict {
                confidence: Confidence::Low,
                ..nothing
            };
        };
        // Bulk traffic always fills some pipe. Where nothing grew that is worth a verdict only if
        // it was full mostly.
        let bottleneck = self
            .bottleneck(largest.subject, false)
            .filter(|bottleneck| {
                let share = self.held.get(bottleneck.pump).copied().unwrap_or(0.0);
                !has_baseline || share > MOSTLY_HELD
            });
        if let Some(bottleneck) = bottleneck {
            return self.backed_up(largest, None, bottleneck);
        }
        if self.nodes.len() < 2 && !has_baseline {
            let why = "no segment of the path is seen from here; its source has the whole";
            return self.nothing(why, Basis::Share);
        }
        if !has_baseline {
            return self.largest(largest);
        }
        match self.stepped.first() {
            Some(place) => {
                let text = "the blocks under way were left out, and nothing else stands out";
                self.clock(*place, &format!("{text} over the baseline"))
            }
            None => self.unchanged(),
        }
    }

    /// The wake-up delay that makes up most of the growth of a segment that has it in it.
    fn within(&self, segment: &Candidate, grown: &Increase) -> Option<(&Candidate, &Increase)> {
        let inner = self.candidates.iter().filter(|c| is_within(c, segment));
        let inner = inner.filter_map(|c| Some((c, c.at(grown.figure)?)));
        let most = grown.amount / 4 * 3;
        inner
            .filter(|(_, own)| own.stands_out && own.amount >= most)
            .max_by_key(|(_, own)| own.amount)
    }

    /// The largest lasting rise that the baseline cannot show, in words, if it is larger than
    /// `least`.
    fn hidden_rise(&self, least: i64) -> Option<String> {
        let rises = self.candidates.iter();
        let rises = rises.filter_map(|c| Some((c, c.hidden_rise()?)));
        let (part, rise) = rises.max_by_key(|(_, rise)| rise.amount)?;
        let (part, amount) = (self.part(part.subject), ms(rise.amount));
        let when = if rise.in_baseline {
            "while the baseline was measured"
        } else {
            "too recently to be sure"
        };
        (rise.amount > least).then(|| format!("{part} rose by {amount} ms {when}"))
    }

    /// Nothing stands out; the reason names what came nearest.
    fn unchanged(&self) -> Verdict {
        let nothing = "nothing stands out over the baseline";
        if let Some(hidden) = self.hidden_rise(0) {
            let what_helps = "only earlier runs (--state) show what is normal";
            return Verdict {
                confidence: Confidence::Low,
                reason: self.reason(what_helps, &[]),
                ..self.nothing(&format!("{nothing}, but {hidden}"), Basis::Increase)
            };
        }
        let compared = self.candidates.iter().filter_map(|c| Some((c, c.best()?)));
        let nearest = compared.max_by_key(|(_, increase)| increase.amount);
        let (why, doubts) = nearest.map_or_else(Default::default, |(part, increase)| {
            let why = format!(
                "largest change: {} {:+.3} ms",
                self.part(part.subject),
                SignedNanos(increase.amount).as_millis_f64()
            );
            (why, increase.doubts.clone())
        });
        Verdict {
            confidence: self.confidence(&doubts),
            reason: self.reason(&why, &doubts),
            ..self.nothing(nothing, Basis::Increase)
        }
    }

    fn nothing(&self, why: &str, basis: Basis) -> Verdict {
        Verdict {
            kind: VerdictKind::None,
            index: None,
            name: "none".to_owned(),
            direction: None,
            basis,
            figure: Figure::P50,
            share: None,
            increase: None,
            increase_low: None,
            increase_high: None,
            confidence: self.confidence(&[]),
            reason: self.reason(why, &[]),
            text: format!("none: {why}"),
            cause: None,
            reads_late: false,
        }
    }

    fn clock(&self, place: usize, why: &str) -> Verdict {
        let name = self.node(place);
        let text = format!("clock step at {name}: {why}");
        Verdict {
            kind: VerdictKind::Clock,
            name,
            text,
            cause: None,
            ..self.nothing(why, Basis::Increase)
        }
    }

    /// By share, for want of a baseline.
    fn largest(&self, part: &Candidate) -> Verdict {
        let why = format!("no baseline: {}", self.no_baseline);
        let of_delay = part.share.map_or(String::new(), |s| {
            format!(" with {:.0} % of the delay", s * 100.0)
        });
        let text = format!(
            "largest part: {}{of_delay} ({why}){}",
            self.part(part.subject),
            self.steps()
        );
        let why = format!("largest part; {why}{}", self.steps());
        Verdict {
            text,
            cause: None,
            confidence: Confidence::Low,
            ..self.named(part, Basis::Share, &why)
        }
    }

    fn grown(&self, winner: &Candidate, increase: &Increase) -> Verdict {
        if let Some(bottleneck) = self.bottleneck(winner.subject, true) {
            return self.backed_up(winner, Some(increase), bottleneck);
        }
        if let Some((place, other)) = self.opposite(winner.subject, increase) {
            let (one, other) = (self.name(winner.subject), self.name(other));
            let why = format!("{one} and {other} changed by the same amount with opposite signs");
            return Verdict {
                confidence: Confidence::Low,
                ..self.clock(place, &why)
            };
        }
        let mut doubts = increase.doubts.clone();
        // A part whose far end was held only queues for another one, so it is no rival.
        let rivals = self
            .candidates
            .iter()
            .filter(|c| c.subject != winner.subject && !is_within(winner, c));
        let rivals = rivals.filter(|c| self.bottleneck(c.subject, true).is_none());
        let rivals = rivals.filter_map(|c| Some((c, c.best()?)));
        if let Some((rival, theirs)) = rivals.max_by_key(|(_, theirs)| theirs.amount) {
            if theirs.stands_out && theirs.high >= increase.low {
                let (one, other) = (self.part(winner.subject), self.part(rival.subject));
                doubts.push(format!("{one} and {other} grew alike"));
            }
        }
        if let Some(hidden) = self.hidden_rise(increase.high) {
            doubts.push(format!("but {hidden}"));
        }
        let direction = (self.direction)(winner.subject, increase);
        let (amount, low, high) = (ms(increase.amount), ms(increase.low), ms(increase.high));
        let (does, where_to) = match winner.subject {
            Subject::WakeUp(_) => ("reads late", " between kernel and process"),
            _ => ("adds the delay", ""),
        };
        let mut text = format!(
            "{} {does}: +{amount} ms{where_to} ({}, {low} to {high}) over its baseline of {} ms",
            self.described(winner.subject),
            increase.figure.name(),
            ms(increase.baseline),
        );
        text += match direction {
            Some(VerdictDirection::Forward) => ", forward direction.",
            Some(VerdictDirection::Return) => ", return direction.",
            Some(VerdictDirection::Both) => ", both directions.",
            None => ".",
        };
        let unknown = matches!(winner.subject, Subject::Segment(_)) && direction.is_none();
        let unknown = if unknown {
            "; direction unknown: the clocks are not known well enough"
        } else {
            ""
        };
        let why = format!(
            "largest increase over the baseline{unknown}{}",
            self.steps()
        );
        Verdict {
            text,
            cause: None,
            direction,
            confidence: self.confidence(&doubts),
            reason: self.reason(&why, &doubts),
            ..self.with_increase(winner, increase)
        }
    }

    /// The delay queues before a part that drains slowly; `seen` is where it shows.
    fn backed_up(&self, seen: &Candidate, grown: Option<&Increase>, to: Bottleneck) -> Verdict {
        let places = self.nodes.len();
        let (writer, share) = (
            to.pump % places,
            self.held.get(to.pump).copied().unwrap_or(0.0),
        );
        let direction = to.subject.and_then(|(_, direction)| direction);
        let part = self
            .candidates
            .iter()
            .find(|c| Some(c.subject) == to.subject.map(|s| s.0));
        let slow = match to.subject {
            Some((Subject::Segment(place), Some(VerdictDirection::Return))) => {
                let (near, far) = (self.node(place), self.node(place + 1));
                format!("{near} -> {far} drains slowly in return direction, or {near} reads slowly")
            }
            Some((Subject::Segment(place), _)) => {
                format!(
                    "{} drains slowly, or {} reads slowly",
                    self.name(Subject::Segment(place)),
                    self.node(place + 1)
                )
            }
            Some(_) => "the server (or the network to it) reads slowly".to_owned(),
            None => format!(
                "{} reads its answers slowly, or what it writes them to does",
                self.node(0)
            ),
        };
        let held = format!(
            "{} was blocked writing {:.0} % of the time",
            self.node(writer),
            share * 100.0
        );
        let queue = match grown {
            Some(increase) => format!(
                "the queue shows in {} with +{} ms",
                self.part(seen.subject),
                ms(increase.amount)
            ),
            None => format!(
                "the queue shows in {}, the largest part",
                self.part(seen.subject)
            ),
        };
        let text = format!("{slow}: {held}; {queue}.");
        let own = grown.and_then(|_| part?.best());
        let basis = if grown.is_some() {
            Basis::Increase
        } else {
            Basis::Share
        };
        let mut verdict = match (part, own) {
            (Some(part), Some(own)) => self.with_increase(part, own),
            (Some(part), None) => self.named(part, basis, ""),
            (None, _) => {
                let server = to.subject.is_some();
                let subject = if server {
                    Subject::Server
                } else {
                    Subject::Host(0)
                };
                let part = Candidate {
                    subject,
                    mean: 0.0,
                    share: None,
                    increases: [None, None],
                    round_trip: false,
                };
                self.named(&part, basis, "")
            }
        };
        let mut doubts = Vec::new();
        if share < MOSTLY_HELD {
            doubts.push("blocked less than half of the time".to_owned());
        }
        verdict.direction = direction;
        verdict.confidence = self.confidence(&doubts);
        verdict.reason = self.reason(&format!("backed up from downstream: {held}"), &doubts);
        verdict.text = text;
        verdict
    }

    fn named(&self, part: &Candidate, basis: Basis, why: &str) -> Verdict {
        let (kind, index) = match part.subject {
            Subject::Segment(place) => (VerdictKind::Segment, Some(place)),
            Subject::Host(0) if self.source => (VerdictKind::Source, None),
            Subject::Host(place) | Subject::WakeUp(place) => (
                VerdictKind::Host,
                self.nodes.get(place).map(|(hop, _)| usize::from(*hop)),
            ),
            Subject::Server => (VerdictKind::Server, None),
        };
        let name = self.name(part.subject);
        Verdict {
            kind,
            index,
            name,
            share: part.share,
            reads_late: matches!(part.subject, Subject::WakeUp(_)),
            ..self.nothing(why, basis)
        }
    }

    fn with_increase(&self, part: &Candidate, increase: &Increase) -> Verdict {
        Verdict {
            figure: increase.figure,
            increase: Some(SignedNanos(increase.amount)),
            increase_low: Some(SignedNanos(increase.low)),
            increase_high: Some(SignedNanos(increase.high)),
            ..self.named(part, Basis::Increase, "")
        }
    }

    fn confidence(&self, doubts: &[String]) -> Confidence {
        let certain = doubts.is_empty() && self.doubts.is_empty();
        if certain {
            Confidence::High
        } else {
            Confidence::Low
        }
    }

    fn reason(&self, why: &str, doubts: &[String]) -> String {
        let all = [why]
            .into_iter()
            .chain(doubts.iter().chain(&self.doubts).map(String::as_str));
        all.collect::<Vec<_>>().join("; ")
    }

    /// Mentions clock steps beside a verdict on something else.
    fn steps(&self) -> String {
        let name = |place: &usize| {
            format!(
                "; clock step at {}, blocks under way left out",
                self.node(*place)
            )
        };
        self.stepped.first().map_or(String::new(), name)
    }

    fn node(&self, place: usize) -> String {
        self.nodes
            .get(place)
            .map_or("?".to_owned(), |(_, name)| name.clone())
    }

    fn name(&self, subject: Subject) -> String {
        match subject {
            Subject::Segment(place) => format!("{} -> {}", self.node(place), self.node(place + 1)),
            Subject::Host(place) | Subject::WakeUp(place) => self.node(place),
            Subject::Server => "server".to_owned(),
        }
    }

    /// A part in a sentence, if a host's two parts have to be distinguished.
    fn part(&self, subject: Subject) -> String {
        match subject {
            Subject::WakeUp(place) => format!("{}'s wake-up delay", self.node(place)),
            _ => self.name(subject),
        }
    }

    fn described(&self, subject: Subject) -> String {
        match subject {
            Subject::Segment(_) => self.name(subject),
            Subject::Host(0) | Subject::WakeUp(0) if self.source => {
                format!("source {}", self.node(0))
            }
            Subject::Host(_) | Subject::WakeUp(_) => format!("host {}", self.name(subject)),
            Subject::Server => "server (or the network to it)".to_owned(),
        }
    }

    /// A neighbour that shrank by as much as `subject` grew: the clock of the node between them was
    /// stepped.
    fn opposite(&self, subject: Subject, grown: &Increase) -> Option<(usize, Subject)> {
        let beside = match subject {
            Subject::Segment(place) => {
                let before = place
                    .checked_sub(1)
                    .map(|before| (place, Subject::Segment(before)));
                let hosts = [place, place + 1].map(|host| (host, Subject::Host(host)));
                let after = (place + 1, Subject::Segment(place + 1));
                before.into_iter().chain([after]).chain(hosts).collect()
            }
            Subject::Host(place) => {
                let before = place
                    .checked_sub(1)
                    .map(|before| (place, Subject::Segment(before)));
                before
                    .into_iter()
                    .chain([(place, Subject::Segment(place))])
                    .collect::<Vec<_>>()
            }
            Subject::WakeUp(_) | Subject::Server => Vec::new(),
        };
        beside.into_iter().find(|(_, other)| {
            let part = self.candidates.iter().find(|c| c.subject == *other);
            part.and_then(|part| part.at(grown.figure))
                .is_some_and(|other| {
                    let floor = FLOOR_NS.max(other.baseline / 20);
                    let unlike = grown.amount.saturating_add(other.amount).saturating_abs();
                    other.high < -floor && unlike < grown.amount / 4
                })
        })
    }

    fn is_held(&self, pump: usize) -> bool {
        self.held.get(pump).is_some_and(|share| *share > HELD)
    }

    /// What a chain of held pumps, from the far end of `subject` onward, ends at.
    ///
    /// With `!moved_only`, also a part that is itself the end of the chain: its near pump is held.
    fn bottleneck(&self, subject: Subject, moved_only: bool) -> Option<Bottleneck> {
        let places = self.nodes.len();
        let (far, near) = match subject {
            Subject::Segment(place) => {
                let last = self.reflected && place + 2 == places;
                let back = if last { place + 1 } else { places + place + 1 };
                ([place + 1, places + place], [place, back])
            }
            Subject::Host(place) | Subject::WakeUp(place) => {
                ([place, places + place], [place, places + place])
            }
            Subject::Server => return None,
        };
        let near = near.into_iter().filter(|_| !moved_only);
        let first = far
            .into_iter()
            .chain(near)
            .find(|pump| self.is_held(*pump))?;
        let mut pump = first;
        loop {
            let (next, subject) = self.after(pump);
            match next {
                Some(next) if self.is_held(next) => pump = next,
                _ => return Some(Bottleneck { subject, pump }),
            }
        }
    }

    /// What follows a pump in the way of the data: the next pump, and the part between them.
    fn after(&self, pump: usize) -> (Option<usize>, Option<(Subject, Option<VerdictDirection>)>) {
        let places = self.nodes.len();
        let segment = |place, direction| Some((Subject::Segment(place), Some(direction)));
        match pump.checked_sub(places) {
            Some(0) => (None, None),
            Some(place) => (Some(pump - 1), segment(place - 1, VerdictDirection::Return)),
            None if pump + 1 < places => (Some(pump + 1), segment(pump, VerdictDirection::Forward)),
            None if self.reflected && pump > 0 => (
                Some(places + pump - 1),
                segment(pump - 1, VerdictDirection::Return),
            ),
            None => (None, Some((Subject::Server, None))),
        }
    }
}

/// Whether `inner` is a wake-up delay, and a share of the round trip that `outer` is.
fn is_within(inner: &Candidate, outer: &Candidate) -> bool {
    match (inner.subject, outer.subject) {
        (Subject::WakeUp(host), Subject::Segment(place)) => {
            outer.round_trip && (host == place || host == place + 1)
        }
        _ => false,
    }
}

/// Milliseconds for people; microseconds show only where there is little else.
fn ms(nanos: i64) -> String {
    let decimals = if nanos.unsigned_abs() < 100_000 { 3 } else { 2 };
    format!("{:.decimals$}", SignedNanos(nanos).as_millis_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_by_eight_batches_take_the_8th_smallest_and_few_batches_tell_no_99_percent() {
        assert_eq!(interval_rank(8, 8), (8, true));
        assert_eq!(interval_rank(20, 8), (30, true));
        assert_eq!(interval_rank(5, 8), (3, true));
        assert_eq!(interval_rank(3, 1), (1, false));
    }

    #[test]
    fn one_bad_earlier_run_does_not_hide_an_increase() {
        const MS: i64 = 1_000_000;
        for runs in [5, 8, 20] {
            let mut baseline: Vec<i64> = (0..runs).map(|i| 10 * MS + i * 10_000).collect();
            baseline[1] = 90 * MS;
            let current = [13 * MS; 8];
            let increase = compare(Figure::P50, baseline.clone(), &current, true).unwrap();
            assert!(increase.stands_out, "{runs}: {increase:?}");
            assert!(
                (2_800_000..=3_000_000).contains(&increase.amount),
                "{increase:?}"
            );
            assert_eq!(increase.doubts.is_empty(), runs >= 8);
            let normal = compare(Figure::P50, baseline, &[10 * MS + 50_000; 8], true).unwrap();
            assert!(!normal.stands_out, "{runs}: {normal:?}");
        }
    }

    #[test]
    fn an_interval_that_holds_zero_is_no_increase_however_alike_a_few_runs_are() {
        let runs: Vec<i64> = (220..225).map(|v| v * 10_000).collect();
        let noisy = [210, 215, 220, 250, 250, 260, 320, 330].map(|v| v * 10_000);
        let increase = compare(Figure::P95, runs.clone(), &noisy, true).unwrap();
        assert!(
            increase.amount > 200_000 && increase.low < 0,
            "{increase:?}"
        );
        assert!(!increase.stands_out, "{increase:?}");
        let grown = noisy.map(|v| v + 300_000);
        assert!(compare(Figure::P95, runs, &grown, true).unwrap().stands_out);
    }

    #[test]
    fn batches_that_rise_throughout_are_called_drifting() {
        let rising: Vec<i64> = (1..9).map(|i| i * 1_000_000).collect();
        let increase = compare(Figure::P50, vec![0; 8], &rising, false).unwrap();
        assert!(increase.stands_out);
        assert_eq!(increase.doubts, ["it still drifts"]);
    }

    #[test]
    fn a_change_within_the_baseline_does_not_stand_out_and_says_what_hides_it() {
        let mut baseline = vec![2_000_000; 6];
        baseline.extend([21_300_000; 2]);
        let increase = compare(Figure::P50, baseline, &[21_100_000; 8], false).unwrap();
        assert!(!increase.stands_out);
        assert_eq!(increase.doubts, ["its baseline varies by 19.30 ms itself"]);
    }

    #[test]
    fn a_growth_that_is_no_verdict_has_a_reason_whatever_hides_it() {
        const MS: i64 = 1_000_000;
        // Seen with 19 ms put on a segment at 7 s and at 11 s of 20: "Confidence high" for "none",
        // +19.048 ms.
        let early = [vec![10 * MS; 5], vec![29 * MS; 3]].concat();
        let late = [vec![10 * MS], vec![29 * MS; 7]].concat();
        for (baseline, current) in [(early, vec![29 * MS + 48_000; 8]), (vec![10 * MS; 8], late)] {
            let increase = compare(Figure::P50, baseline, &current, false).unwrap();
            assert!(!increase.stands_out && increase.amount > 18 * MS);
            assert_eq!(increase.doubts, ["not all of the run agrees"]);
        }
    }

    #[test]
    fn a_rise_is_found_wherever_in_the_run_it_began_and_noise_is_none() {
        const MS: i64 = 1_000_000;
        for first in 2..15 {
            let mut batches = [10 * MS; 16];
            batches[first..].fill(29 * MS);
            let mixed = [10 * MS, 17 * MS, 29 * MS][first % 3];
            batches[first - 1] = if first > 2 { mixed } else { 10 * MS };
            let found = rise(&batches, 8, FLOOR_NS).unwrap();
            let in_baseline = first - usize::from(mixed > 10 * MS && first > 2) < 8;
            assert_eq!(
                (found.amount, found.in_baseline),
                (19 * MS, in_baseline),
                "{first}"
            );
            batches.reverse();
            assert_eq!(rise(&batches, 8, FLOOR_NS), None, "a fall at {first}");
        }
        let mut state = 1_u64;
        for round in 0..10_000 {
            let noise: Vec<i64> = (0..16)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (state >> 40) as i64
                })
                .collect();
            assert_eq!(rise(&noise, 8, 0), None, "round {round}: {noise:?}");
        }
        assert_eq!(rise(&[], 0, 0), None);
        assert_eq!(
            rise(&[i64::MIN, i64::MIN, i64::MAX, i64::MAX], 2, 0).map(|r| r.amount),
            Some(i64::MAX)
        );
    }

    #[test]
    fn extreme_values_do_not_overflow() {
        let (low, high) = (vec![i64::MIN; 8], [i64::MAX; 8]);
        assert!(compare(Figure::P95, low, &high, false).unwrap().stands_out);
        assert!(
            !compare(Figure::P95, high.to_vec(), &[i64::MIN; 8], true)
                .unwrap()
                .stands_out
        );
        assert_eq!(compare(Figure::P50, Vec::new(), &high, false), None);
        assert_eq!(compare(Figure::P50, vec![1], &[], false), None);
    }
}
