//! The scan of one figure's latest records: has it risen over the last 3 to 96 windows, is a rise
//! over? Values are in spreads, newest last.

/// Windows that a change may have lasted.
const SPANS: [usize; 7] = [3, 4, 6, 12, 24, 48, 96];
/// Records that a scan needs at most: the longest span, and the one before it.
pub(super) const REACH: usize = 97;
/// Standard errors that name a rise, at two autocorrelations: the higher one is, the more an error
/// in it matters. Between them the limit rises in a line.
const RISE: [f64; 2] = [4.3, 5.0];
const RISE_AT: [f64; 2] = [0.5, 0.8];
/// Standard errors that end a rise.
const OVER: f64 = 4.0;
/// The mean and the 95th percentile hold bursts, so one window more than the median.
const FEWEST_WITH_BURSTS: usize = 4;

/// The view of one figure's records in a scan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// Autocorrelation from record to record.
    pub(super) rho: f64,
    /// That for long spans, over which one that is too low matters.
    pub(super) slow: f64,
    /// Bursts count in this figure.
    pub(super) bursts: bool,
    /// Spans over 12 windows are looked at: they are every sixth time, and never without cells.
    pub(super) long: bool,
    /// 0.1 ms in spreads.
    pub(super) floor: f64,
}

/// A rise over the last `span` windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rise {
    pub(super) span: usize,
    /// Median, in spreads.
    pub(super) amount: f64,
    /// It began at once, else slowly.
    pub(super) edge: bool,
}

/// Median of `values`, which it sorts; 0 for none.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => 0.0,
        _ => (values[(n - 1) / 2] + values[n / 2]) / 2.0,
    }
}

/// A sum over one span, by standard errors of two kinds: of independent innovations, with the edge
/// (prewhitened), and of the plain sum.
struct Sums {
    edge: f64,
    plain: f64,
}

impl Sums {
    /// Of `part`, whose values count as `value`; `before` is the record ahead of it.
    fn of(part: &[f64], before: f64, reading: Reading, value: impl Fn(f64) -> f64) -> Self {
        let Reading { rho, .. } = reading;
        let all: f64 = part.iter().map(|z| value(*z)).sum();
        let (first, last) = (value(part[0]), value(part[part.len() - 1]));
        let rest = (all - first) - rho * (all - last);
        let [edge, plain] = reading.units(part.len());
        Self {
            edge: (first - rho * before + (1.0 - rho) * rest) / edge,
            plain: all / plain,
        }
    }
}

impl Reading {
    /// The spans to look at, each with the record before it.
    fn spans(self, z: &[f64]) -> impl Iterator<Item = (&[f64], f64)> {
        let spans = SPANS
            .into_iter()
            .filter(move |m| *m < z.len() && (self.long || *m <= 12));
        spans.map(move |m| (&z[z.len() - m..], z[z.len() - m - 1]))
    }

    /// The sums that [`Sums`] would be of could be certain: most records are not sorted for it.
    fn can_be_rise(self, part: &[f64], before: f64) -> bool {
        let high = part.iter().filter(|z| **z >= self.floor).count();
        let most: f64 = part.iter().map(|z| z.abs()).sum::<f64>() + before.abs();
        let [edge, plain] = self.units(part.len());
        2 * high >= part.len() && most >= self.limit() * edge.min(plain)
    }

    /// The standard errors that name a rise.
    fn limit(self) -> f64 {
        let place = (self.rho - RISE_AT[0]) / (RISE_AT[1] - RISE_AT[0]);
        RISE[0] + (RISE[1] - RISE[0]) * place.clamp(0.0, 1.0)
    }

    /// The standard errors of both sums over `m` records.
    fn units(self, m: usize) -> [f64; 2] {
        let (m, Self { rho, slow, .. }) = (m as f64, self);
        let edge = (1.0 + (m - 1.0) * (1.0 - rho) * (1.0 - rho)) * (1.0 - rho * rho);
        [edge.sqrt(), (m * (1.0 + slow) / (1.0 - slow)).sqrt()]
    }

    /// The most certain rise that is named.
    pub(super) fn rise(self, z: &[f64]) -> Option<Rise> {
        let (mut best, mut most) = (None, self.limit());
        let mut sorted = [0.0; REACH];
        for (part, before) in self.spans(z) {
            let m = part.len();
            if (self.bursts && m < FEWEST_WITH_BURSTS) || !self.can_be_rise(part, before) {
                continue;
            }
            let sorted = &mut sorted[..m];
            sorted.copy_from_slice(part);
            let middle = median(sorted);
            let least = if m <= 4 { sorted[0] } else { fifth(sorted) };
            if middle < self.floor || least <= 0.4 * middle {
                continue;
            }
            // A burst counts as its neighbours do.
            let sums = Sums::of(part, before, self, |z| z.min(1.5 * middle));
            let edge = before < middle / 2.0;
            let certain = if edge && m <= 6 {
                sums.edge
            } else {
                sums.plain
            };
            if certain >= most {
                most = certain;
                best = Some(Rise {
                    span: m,
                    amount: middle,
                    edge,
                });
            }
        }
        best
    }

    /// A rise by `amount` spreads, which `z` is less, is over.
    pub(super) fn is_over(self, z: &[f64], amount: f64) -> bool {
        let latest = z[z.len().saturating_sub(3)..].iter().copied();
        if latest.fold(f64::MIN, f64::max) >= -0.3 * amount {
            return false;
        }
        let mut sorted = [0.0; REACH];
        self.spans(z).any(|(part, before)| {
            let sorted = &mut sorted[..part.len()];
            sorted.copy_from_slice(part);
            let middle = median(sorted);
            let sums = Sums::of(part, before, self, |z| z.max(1.5 * middle.min(0.0)));
            let edge = if part.len() <= 6 { -sums.edge } else { 0.0 };
            middle < -0.5 * amount && edge.max(-sums.plain) >= OVER
        })
    }
}

/// The 20 % quantile of sorted values, between the two nearest.
fn fifth(sorted: &[f64]) -> f64 {
    let place = 0.2 * (sorted.len() - 1) as f64;
    let low = place as usize;
    sorted[low] + (place - low as f64) * (sorted[low + 1] - sorted[low])
}

#[cfg(test)]
mod tests {
    use super::*;

    const READING: Reading = Reading {
        rho: 0.5,
        slow: 0.75,
        bursts: false,
        long: true,
        floor: 0.1,
    };

    #[test]
    fn three_high_windows_are_a_rise_and_two_are_not() {
        let mut z = vec![0.0; 50];
        z.extend([8.0, 8.0]);
        assert_eq!(READING.rise(&z), None);
        z.push(8.0);
        assert_eq!(
            READING.rise(&z),
            Some(Rise {
                span: 3,
                amount: 8.0,
                edge: true
            })
        );
        let bursts = Reading {
            bursts: true,
            ..READING
        };
        assert_eq!(bursts.rise(&z), None);
        z.push(8.0);
        assert_eq!(bursts.rise(&z).map(|rise| rise.span), Some(4));
    }

    #[test]
    fn one_burst_is_no_rise_however_high() {
        let mut z = vec![0.0; 50];
        z.extend([12.0, 0.2, 12.0]);
        assert_eq!(READING.rise(&z), None);
    }

    #[test]
    fn a_rise_is_over_after_three_windows_without_it() {
        let mut less = vec![0.0; 20];
        less.extend([-8.0, -8.0]);
        assert!(!READING.is_over(&less, 8.0));
        less.push(-8.0);
        assert!(READING.is_over(&less, 8.0));
        assert!(!READING.is_over(&[0.0; 20], 8.0));
        assert!(!READING.is_over(&[], 8.0));
    }

    #[test]
    fn what_rose_slowly_has_no_edge() {
        let z: Vec<f64> = (0..97).map(|t| f64::from(t) * 0.05).collect();
        let rise = READING.rise(&z).unwrap();
        assert!(!rise.edge && rise.span >= 12, "{rise:?}");
    }
}
