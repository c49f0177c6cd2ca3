//! The few functions that the searches share; small, since they go into binaries of 700 KiB.

/// Natural logarithm of a positive, normal number; exact to about 1e-14.
///
/// The one of libm brings 4 KiB of tables.
pub(super) fn ln(x: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    const ONE: u64 = 1023 << 52;
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i32 - 1023;
    let mut mantissa = f64::from_bits((bits & MANTISSA) | ONE);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let mut series = 0.0;
    let mut odd = 19;
    while odd > 0 {
        series = series * (s * s) + 1.0 / f64::from(odd);
        odd -= 2;
    }
    f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * s * series
}

/// The mean of the middle one or two values; 0 for none. Reorders `values`.
pub(super) fn median(values: &mut [i64]) -> f64 {
    let n = values.len();
    if n == 0 {
        return 0.0;
    }
    let (below, upper, _) = values.select_nth_unstable(n / 2);
    let upper = *upper as f64;
    let lower = match n % 2 {
        0 => below.iter().max().map_or(upper, |lower| *lower as f64),
        _ => upper,
    };
    (lower + upper) / 2.0
}

/// The arithmetic mean; 0 for none.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The first-order autocorrelation of residuals `e`, raised by what fitting takes off it, and at
/// least 0. `squares` is the sum of the squares of `e`.
pub(in crate::measure) fn autocorrelation(e: &[f64], squares: f64) -> f64 {
    let products: f64 = e.windows(2).map(|pair| pair[0] * pair[1]).sum();
    (products / squares.max(f64::MIN_POSITIVE) + 2.0 / e.len() as f64).clamp(0.0, 0.95)
}

/// The factor by which autocorrelation `rho` widens the error of a mean.
pub(in crate::measure) fn widening(rho: f64) -> f64 {
    ((1.0 + rho) / (1.0 - rho)).sqrt()
}

/// The table of i ln i, of which binomial likelihoods are sums; grows as it is asked for.
#[derive(Debug, Default)]
pub(super) struct CountLogs(Vec<f64>);

impl CountLogs {
    /// Makes all of 0 to `most` known.
    pub(super) fn reach(&mut self, most: usize) {
        for i in self.0.len()..=most {
            self.0
                .push(if i == 0 { 0.0 } else { i as f64 * ln(i as f64) });
        }
    }

    /// Log likelihood of `hits` of `of` at their own rate; both within what was reached.
    pub(super) fn likelihood(&self, hits: usize, of: usize) -> f64 {
        self.0[hits] + self.0[of - hits] - self.0[of]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_that_of_the_standard_library() {
        for step in 1..20_000 {
            let x = f64::from(step) * f64::from(step) * 0.003_7;
            assert!(
                (ln(x) - x.ln()).abs() < 1e-13 * x.ln().abs().max(1.0),
                "ln({x})"
            );
        }
    }

    #[test]
    fn likelihoods_by_table_are_those_by_formula() {
        let mut logs = CountLogs::default();
        logs.reach(1000);
        for (c, n) in [(0, 10), (10, 10), (3, 1000), (500, 1000)] {
            let (c64, n64) = (c as f64, n as f64);
            let term = |c: f64| if c > 0.0 { c * (c / n64).ln() } else { 0.0 };
            let direct = term(c64) + term(n64 - c64);
            assert!((logs.likelihood(c, n) - direct).abs() < 1e-9, "{c} of {n}");
        }
    }

    #[test]
    fn a_median_of_an_even_number_lies_between() {
        assert_eq!(median(&mut [4, 1, 3, 2]), 2.5);
        assert_eq!(median(&mut [9, 1, 3]), 3.0);
        assert_eq!(median(&mut []), 0.0);
    }
}
