use super::*;
use crate::time::{MonoTime, Nanos};

/// The rise that stands after records with medians of `levels` ms, of which those with a number
/// hold one that began so many milliseconds before their window.
fn stood(levels: &[(i64, Option<i64>)]) -> (RunHistories, Option<(StoodRise, When)>) {
    let mut state = RunHistories::default();
    for (place, (level, before_ms)) in (0..).zip(levels) {
        let level = SignedNanos(level * 1_000_000);
        let figures = PartRecord {
            count: 200,
            mean: level,
            p50: level,
            p95: level,
            one_way: None,
            rise: before_ms.map(|before_ms| StoodRise {
                amount: SignedNanos(3_000_000),
                baseline: SignedNanos(15_000_000),
                before_ms,
            }),
        };
        let mut record = Record {
            sequence: place + 1,
            window: Nanos(10_000_000_000),
            parts: PartRecords::from(&VecMap::from([(Part::Host(1), figures)])),
            ..Record::default()
        };
        record.when.mono = MonoTime(place * 10_000_000_000);
        state.push("0=A,1=B", record);
    }
    let text = state.text();
    let state = RunHistories::parse(&text).expect("own text").state;
    let stood = state
        .paths
        .get(&"0=A,1=B".to_owned())
        .and_then(|path| path.stood(Part::Host(1)));
    (state, stood)
}

#[test]
fn a_rise_in_a_record_stands_until_a_later_one_contradicts_it_or_it_is_accepted() {
    assert_eq!(stood(&[(15, None), (18, None)]).1, None);
    // It began within the second window, whose median is from before it.
    let began = |levels: &[_]| stood(levels).1.map(|(_, since)| since.mono.0 / 1_000_000);
    let within = (15, Some(-2_000));
    assert_eq!(began(&[(15, None), within]), Some(12_000));
    assert_eq!(began(&[(15, None), within, (18, None)]), Some(12_000));
    assert_eq!(
        began(&[(15, None), (18, None), (18, Some(9_000))]),
        Some(11_000)
    );
    assert_eq!(began(&[(15, None), within, (18, None), (15, None)]), None);
    assert_eq!(began(&[(15, None), (16, Some(9_000))]), None);
    let (mut state, _) = stood(&[(15, None), (18, Some(0)), (18, None)]);
    let accepted = state.accept(None);
    assert_eq!(accepted, [("0=A,1=B".to_owned(), Part::Host(1))]);
    let path = state.paths.get(&"0=A,1=B".to_owned()).expect("the path");
    assert_eq!(path.stood(Part::Host(1)), None);
    assert_eq!(state.accept(None), []);
}
