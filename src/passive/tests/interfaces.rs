//! Several interfaces, fragments, and link types that are not read.

use super::build::*;
use crate::passive::*;
use crate::time::WallTime;

fn packet(data: &[u8], ms: f64, interface: u32) -> Packet<'_> {
    Packet {
        time: Some(at(ms)),
        link: LINK_ETHERNET,
        interface,
        original: data.len() as u32,
        data,
    }
}

#[test]
fn a_connection_belongs_to_the_interface_of_its_first_packet() {
    let script = script(
        "0     c S  seq=100 ts=1,0
         20    s SA seq=500 ack=101 ts=7,1
         20.5  c A  seq=101 ack=501 ts=2,7
         21    c A  seq=101 ack=501 ts=3,7 len=10
         41    s A  seq=501 ack=111 ts=8,3",
    );
    let mut analyzer = Analyzer::new(LIMITS);
    analyzer.name_interface(3, "eth1".to_owned());
    assert!(analyzer.knows_interface(3) && !analyzer.knows_interface(2));
    let mut observed = Observed::default();
    for segment in &script {
        let data = segment.frame();
        let later = WallTime(segment.time.0 + 100_000);
        let packets = [2, 3, 4].map(|interface| Packet {
            time: Some(if interface == 2 { segment.time } else { later }),
            ..packet(&data, 0.0, interface)
        });
        analyzer.packets(&packets, &mut observed);
    }
    analyzer.finish(&mut observed);
    assert_eq!(observed.flows.len(), 1);
    let flow = &observed.flows[0];
    let seen = flow.also_seen().iter().map(|of| (&of.name[..], of.packets));
    assert_eq!(seen.collect::<Vec<_>>(), [("eth1", 5), ("4", 5)]);
    assert_eq!(
        flow.of(Side::Client).packets + flow.of(Side::Server).packets,
        5
    );
    assert_eq!(flow.of(Side::Client).rare().retransmitted_bytes, 0);
    assert_eq!(observed.trips(Side::Client), [20.0]);
}

#[test]
fn link_types_that_are_not_read_are_counted_by_their_number() {
    let mut analyzer = Analyzer::new(LIMITS);
    let mut observed = Observed::default();
    for link in [105, 105, 127] {
        let packet = Packet {
            link,
            ..packet(&[0; 60], 0.0, 0)
        };
        analyzer.packets(&[packet], &mut observed);
    }
    assert_eq!(analyzer.tally().unread, [(105, 2), (127, 1)]);
    assert_eq!(link_type_name(105), Some("IEEE802_11"));
    assert!(analyzer.tally().nothing_was_read());
    analyzer.packets(&[packet(&[0; 60], 0.0, 0)], &mut observed);
    assert!(!analyzer.tally().nothing_was_read());
}

/// The frames of a segment cut into pieces of `size` bytes.
fn fragments(built: &Built, id: u8, size: usize) -> Vec<Vec<u8>> {
    let ip = built.ip();
    let header = if built.v6 { 40 } else { 20 };
    let count = (ip.len() - header).div_ceil(size);
    let piece = |at: usize| {
        let from = header + at * size;
        let data = &ip[from..(from + size).min(ip.len())];
        let (place, more) = ((at * size / 8) as u16, at + 1 < count);
        let mut out = vec![2; 12];
        if built.v6 {
            out.extend([0x86, 0xdd]);
            out.extend(&ip[..40]);
            out[18..20].copy_from_slice(&(data.len() as u16 + 8).to_be_bytes());
            out[20] = 44;
            let place = (place << 3 | u16::from(more)).to_be_bytes();
            out.extend([6, 0, place[0], place[1], 0, 0, 0, id]);
        } else {
            out.extend([8, 0]);
            out.extend(&ip[..20]);
            out[16..18].copy_from_slice(&(data.len() as u16 + 20).to_be_bytes());
            out[19] = id;
            let place = place | if more { 0x2000 } else { 0 };
            out[20..22].copy_from_slice(&place.to_be_bytes());
        }
        out.extend(data);
        out
    };
    (0..count).map(piece).collect()
}

#[test]
fn fragments_in_any_order_make_one_segment() {
    for seed in 1..=200 {
        let mut random = Random::new(seed);
        let mut built = script("0 c A seq=9 ack=8 text=GET / HTTP/1.1~~").remove(0);
        built.payload.resize(200 + random.below(3000), b'x');
        built.v6 = random.below(2) == 0;
        let size = 8 * (1 + random.below(40));
        let mut pieces = fragments(&built, 7, size);
        let count = pieces.len() as u64;
        pieces.extend(pieces.clone().into_iter().take(random.below(2)));
        for at in (1..pieces.len()).rev() {
            pieces.swap(at, random.below(at + 1));
        }
        let mut analyzer = Analyzer::new(LIMITS);
        let mut observed = Observed::default();
        for piece in &pieces {
            analyzer.packets(&[packet(piece, 1.0, 0)], &mut observed);
        }
        analyzer.finish(&mut observed);
        let payload = built.payload.len() as u64;
        let whole = size * 128 >= built.payload.len();
        let found = observed.flows.first().map(|flow| {
            let sent = flow.of(Side::Client);
            (sent.packets, sent.payload_bytes, flow.http.is_some())
        });
        assert_eq!(found, whole.then_some((1, payload, true)), "seed {seed}");
        let fragments = analyzer.tally().skipped[Skip::Fragment as usize];
        let left = pieces.len() as u64 - if whole { count } else { 0 };
        assert_eq!(fragments, left, "seed {seed}");
    }
}

#[test]
fn fragments_are_kept_for_half_a_minute_and_a_thousand_datagrams() {
    let mut built = script("0 c A seq=9 ack=8 len=400").remove(0);
    let mut flows = |late: f64, others: usize| {
        let mut analyzer = Analyzer::new(LIMITS);
        let mut observed = Observed::default();
        built.v6 = true;
        let [first, last] = &fragments(&built, 1, 216)[..] else {
            panic!("two fragments");
        };
        analyzer.packets(&[packet(first, 0.0, 0)], &mut observed);
        for other in 0..others {
            let mut data = first.clone();
            data[58..60].copy_from_slice(&(other as u16 + 9).to_be_bytes());
            analyzer.packets(&[packet(&data, 1.0, 0)], &mut observed);
        }
        analyzer.packets(&[packet(last, late, 0)], &mut observed);
        analyzer.tally().flows
    };
    assert_eq!(flows(30_000.0, 0), 1);
    assert_eq!(flows(30_001.0, 0), 0);
    assert_eq!(flows(10.0, 1023), 1);
    assert_eq!(flows(10.0, 1024), 0);
}

#[test]
fn an_overlapping_fragment_begins_another_datagram() {
    let built = script("0 c A seq=9 ack=8 len=400").remove(0);
    let [narrow, wide] = [104, 208].map(|size| fragments(&built, 1, size));
    let mut analyzer = Analyzer::new(LIMITS);
    let mut observed = Observed::default();
    for piece in [
        &narrow[0], &wide[0], &narrow[1], &wide[1], &wide[2], &wide[0],
    ] {
        analyzer.packets(&[packet(piece, 0.0, 0)], &mut observed);
    }
    assert_eq!(analyzer.tally().flows, 0);
    for piece in &wide {
        analyzer.packets(&[packet(piece, 0.0, 0)], &mut observed);
    }
    assert_eq!(analyzer.tally().flows, 1);
}
