//! The name that was probably meant.

/// Longer words are no slips of the finger.
const LONGEST: usize = 32;

/// Returns the candidate that is most like `text`; `None` if none is like it.
///
/// A third of the characters may differ. A beginning of at least three characters, or one word of a
/// candidate of several, is enough.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if !(2..=LONGEST).contains(&text.len()) {
        return None;
    }
    let most = (text.len() / 3).max(1);
    let cost = |candidate: &str| {
        let is_part = candidate.split('-').any(|part| part == text);
        if is_part || (text.len() > 2 && candidate.starts_with(text)) {
            return 1;
        }
        distance(text.as_bytes(), candidate.as_bytes())
    };
    let costs = candidates
        .into_iter()
        .map(|candidate| (cost(candidate), candidate));
    let least = costs.min_by_key(|(cost, _)| *cost)?;
    (least.0 <= most).then_some(least.1)
}

/// Returns the number of characters that have to be put in, left out, replaced or swapped with
/// their neighbour.
fn distance(from: &[u8], to: &[u8]) -> usize {
    // Three rows of the table of distances between all beginnings.
    let mut before = vec![0; to.len() + 1];
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, from_byte) in from.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, to_byte) in to.iter().enumerate() {
            let replaced = last[column] + usize::from(from_byte != to_byte);
            let mut least = replaced.min(last[column + 1] + 1).min(next[column] + 1);
            let is_swapped =
                row > 0 && column > 0 && from[row - 1] == *to_byte && to[column - 1] == *from_byte;
            if is_swapped {
                least = least.min(before[column - 1] + 1);
            }
            next.push(least);
        }
        before = last;
        last = next;
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const NAMES: [&str; 6] = [
        "listen",
        "forward-to",
        "format",
        "report-html",
        "count",
        "probe",
    ];

    #[test]
    fn slips_beginnings_and_parts_find_the_name_and_other_words_find_none() {
        for (text, expected) in [
            ("lisen", Some("listen")),
            ("forwrad-to", Some("forward-to")),
            ("forward", Some("forward-to")),
            ("fromat", Some("format")),
            ("html", Some("report-html")),
            ("prob", Some("probe")),
            ("cuont", Some("count")),
            ("frobnicate", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(text, NAMES), expected, "{text}");
        }
        assert_eq!(nearest(&"x".repeat(10_000), NAMES), None);
    }

    #[test]
    fn a_distance_is_symmetric_and_zero_only_for_the_same() {
        const SEED: u64 = 0x5eed_0003;
        let mut random = Random::new(SEED);
        for case in 0..2_000 {
            let mut word = || -> Vec<u8> {
                let length = random.below(7);
                (0..length).map(|_| b"abc"[random.below(3)]).collect()
            };
            let (a, b) = (word(), word());
            let there = distance(&a, &b);
            assert_eq!(there, distance(&b, &a), "seed {SEED:#x} case {case}");
            assert_eq!(there == 0, a == b, "seed {SEED:#x} case {case}");
            assert!(there <= a.len().max(b.len()), "seed {SEED:#x} case {case}");
        }
    }
}
