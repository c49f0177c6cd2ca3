//! The figures of a record, and its bytes.

use super::*;

#[test]
fn parts_are_unpacked_as_they_were_packed() {
    let mut random = Random(3);
    let mut large = 0;
    for case in 0..3_000 {
        let record = random.record(start());
        let mut parts = record.parts.unpacked();
        for figures in parts.values_mut() {
            let mut any = |value: &mut i64| match random.below(8) {
                0 => *value = [i64::MAX, i64::MIN, -1, 0][case % 4],
                1..=3 => *value = *value / 1_000 * 1_000,
                _ => {}
            };
            any(&mut figures.mean.0);
            any(&mut figures.p50.0);
            any(&mut figures.p95.0);
            large += usize::from(figures.mean.0 == i64::MIN && figures.p50.0 > 0);
            if let Some(one_way) = &mut figures.one_way {
                any(&mut one_way.ways[0].0);
            }
            if case % 50 == 0 {
                figures.count = u64::MAX;
            }
        }
        let packed = PartRecords::from(&parts);
        assert_eq!(packed.unpacked(), parts, "case {case}");
        for (part, figures) in &parts {
            assert_eq!(packed.get(part), Some(*figures));
        }
        assert_eq!(packed.is_empty(), parts.is_empty());
        assert_eq!(packed.get(&Part::Host(77)), None);
    }
    assert!(large > 10, "{large}");
}

#[test]
fn a_record_of_nine_parts_takes_a_few_bytes_for_each() {
    let record = of_nine(&mut Random(1), start(), 1_000_000);
    assert!(record.parts.memory() < 9 * 16, "{}", record.parts.memory());
}

#[test]
fn figures_of_a_record_are_those_that_a_watch_takes() {
    let mut random = Random(1);
    let record = of_nine(&mut random, start(), 1_000_000);
    let part = record.parts.get(&Part::Host(0)).expect("host 0");
    let Figures { p50, mean, p95 } = part.figures();
    assert_eq!((p50, mean, p95), (part.p50, part.mean, part.p95));
}
