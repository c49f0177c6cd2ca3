//! Parts add up, and a delay shows where it is, as long as it is.

use crate::support::{alone, judged, lines_of, median, ms, recorded, undisturbed, Chain, EXACT_NS};
use crate::util::json::Value;
use crate::util::Node;
use std::time::Duration;

#[test]
fn the_parts_of_each_of_a_thousand_blocks_add_up_to_its_total() {
    let _alone = alone();
    let z = Node::start("Z", &[]);
    let c = Node::to("C", z.address, &[]);
    let b = Node::to("B", c.address, &[]);
    let lines = lines_of(&b.address.to_string(), &["-c", "1000", "-i", "0.002"]);
    // Three segments; both ways at B and C; once at A and Z.
    lines.assert_sums(3 + 6);
    let sequences = lines.0.iter().map(|line| line.at("sequence"));
    let mut sequences: Vec<_> = sequences.map(|s| s.and_then(Value::as_u64)).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (0..1000).map(Some).collect::<Vec<_>>());
}

/// A delay in one place: which link, and how long out and back.
#[derive(Clone, Copy, Debug)]
struct Setting {
    place: usize,
    out: Duration,
    back: Duration,
}

/// What was seen: the segments' medians, and what the slowed link recorded.
struct Seen {
    segments: Vec<i64>,
    recorded: [i64; 3],
}

fn measure(chain: &Chain, setting: Option<Setting>) -> Seen {
    for way in chain.ways() {
        way.set_delay(Duration::ZERO);
    }
    if let Some(Setting { place, out, back }) = setting {
        chain.links[place].forward.set_delay(out);
        chain.links[place].back.set_delay(back);
    }
    let segments = chain.medians(&["-c", "200", "-i", "0.003"]);
    Seen {
        segments,
        recorded: [0, 1, 2].map(|place| recorded(&chain.links[place])),
    }
}

#[test]
fn a_delay_shows_in_its_own_segment_as_the_link_recorded_it_and_in_no_other() {
    judged(|| {
        let _alone = alone();
        let chain = Chain::start(Duration::ZERO);
        let mut settings = Vec::new();
        for place in [0, 2] {
            for delay in [ms(1), ms(20)] {
                for (out, back) in [
                    (delay, delay),
                    (delay, Duration::ZERO),
                    (Duration::ZERO, delay),
                ] {
                    settings.push(Setting { place, out, back });
                }
            }
        }
        // For each setting and segment, how far the figure is from what it should be, once per
        // round.
        let mut errors = vec![[const { Vec::new() }; 3]; settings.len()];
        for _ in 0..3 {
            let base = undisturbed(|| measure(&chain, None), drop)?;
            for (setting, errors) in settings.iter().zip(&mut errors) {
                let seen = undisturbed(|| measure(&chain, Some(*setting)), drop)?;
                for (place, errors) in errors.iter_mut().enumerate() {
                    let grown = seen.segments[place] - base.segments[place];
                    let own = seen.recorded[place] - base.recorded[place];
                    errors.push(if place == setting.place {
                        grown - own
                    } else {
                        grown
                    });
                }
            }
        }
        let errors: Vec<_> = errors.into_iter().map(|e| e.map(median)).collect();
        for (setting, errors) in settings.iter().zip(&errors) {
            eprintln!("{setting:?}: {errors:?} ns off");
        }
        for (setting, errors) in settings.iter().zip(errors) {
            for error in errors {
                assert!(error.abs() <= EXACT_NS, "{setting:?}: {errors:?} ns off");
            }
        }
        Some(())
    });
}
