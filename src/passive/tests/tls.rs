//! Handshakes of TLS, and the turns behind them.

use super::build::*;
use crate::passive::*;

/// A hello with its extensions, as a message of the handshake.
fn hello(kind: u8, random: &[u8; 32], middle: &[u8], extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend(random);
    // No session.
    body.push(0);
    body.extend(middle);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let length = (body.len() as u32).to_be_bytes();
    [&[kind], &length[1..], &body].concat()
}

fn client_hello(name: &str, padding: usize) -> Vec<u8> {
    let length = name.len() as u16;
    let mut extensions = vec![0, 21];
    extensions.extend((padding as u16).to_be_bytes());
    extensions.resize(4 + padding, 0);
    extensions.extend([0, 0]);
    extensions.extend((length + 5).to_be_bytes());
    extensions.extend((length + 3).to_be_bytes());
    extensions.push(0);
    extensions.extend(length.to_be_bytes());
    extensions.extend(name.bytes());
    hello(1, &[7; 32], &[0, 2, 0x13, 1, 1, 0], &extensions)
}

fn server_hello(random: &[u8; 32], version: u16) -> Vec<u8> {
    let [high, low] = version.to_be_bytes();
    hello(2, random, &[0x13, 1, 0], &[0, 43, 0, 2, high, low])
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    [&[kind, 3, 3], &length[..], body].concat()
}

/// SHA-256 of "HelloRetryRequest".
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// Records that a script names: `client`, `long` (a ClientHello of 3,000 bytes), `server`, `old` (a
/// ServerHello of TLS 1.2), `retry`, or a content type and a length.
pub(super) fn records(names: &str) -> Vec<u8> {
    let of = |name: &str| match name {
        "client" => record(22, &client_hello("example.com", 0)),
        "long" => record(22, &client_hello("example.com", 2900)),
        "server" => record(22, &server_hello(&[8; 32], 0x0304)),
        "old" => record(22, &server_hello(&[8; 32], 0x0303)),
        "retry" => record(22, &server_hello(&RETRY, 0x0304)),
        other => {
            let (kind, length) = other.split_once(':').unwrap();
            record(kind.parse().unwrap(), &vec![9; length.parse().unwrap()])
        }
    };
    names.split('+').flat_map(of).collect()
}

/// The handshake of TLS 1.3 with its Finished at 31 ms, then `rest`.
fn after_1_3(rest: &str) -> Flow {
    let text = format!(
        "0  c S  seq=0
         10 s SA seq=0 ack=1
         11 c A
         11 c A tls=client
         22 s A tls=server+20:1+23:1200
         31 c A tls=20:1+23:53
         {rest}"
    );
    play(&text).flows[0].as_ref().clone()
}

/// Milliseconds of the answers of the server; each of them is in the list once.
fn responses(flow: &Flow) -> Vec<f64> {
    let Some(answers) = flow.application.answers(Side::Server) else {
        return Vec::new();
    };
    let ends = [answers.min(), answers.quantile(1.0)];
    let ends = ends.map(|span| span.unwrap().as_millis_f64());
    match answers.count() {
        1 => vec![ends[0]],
        2 => ends.to_vec(),
        more => panic!("{more} answers"),
    }
}

#[test]
fn late_tickets_are_not_the_answer() {
    // The tickets acknowledge the request.
    let flow = after_1_3(
        "32 c A tls=23:100
         45 s A tls=23:250
         57 s A tls=23:250
         82 s A tls=23:900",
    );
    assert_eq!(responses(&flow), [50.0]);
    // Both in one packet.
    let flow = after_1_3(
        "32 c A tls=23:100
         45 s A tls=23:250+23:250
         82 s A tls=23:900",
    );
    assert_eq!(responses(&flow), [50.0]);
    // The response in one packet with them.
    let flow = after_1_3(
        "32 c A tls=23:100
         82 s A tls=23:250+23:250+23:900",
    );
    assert_eq!(responses(&flow), [50.0]);
}

#[test]
fn tickets_that_cross_the_request_leave_its_answer_known() {
    let flow = after_1_3(
        "41 s A tls=23:250
         41 c A tls=23:100 ack=1347
         92 s A tls=23:900",
    );
    let acknowledged = flow.of(Side::Server).payload_bytes;
    assert!(acknowledged > 0);
    assert_eq!(responses(&flow), [51.0]);
}

#[test]
fn where_one_record_may_be_a_ticket_or_the_answer_there_is_none() {
    for rest in [
        // One ticket, and the response; or the response in two parts.
        "32 c A tls=23:100
         45 s A tls=23:250
         82 s A tls=23:900",
        "32 c A tls=23:100
         45 s A tls=23:250+23:900",
        // A certificate of the client before its Finished.
        "32 c A tls=23:900+23:53
         45 s A tls=23:250
         57 c A tls=23:100
         82 s A tls=23:250",
        // A record whose header was cut off.
        "32 c A tls=23:100
         45 s A tls=23:250 cut=3
         82 s A tls=23:900",
    ] {
        assert_eq!(responses(&after_1_3(rest)), [], "{rest}");
    }
}

/// Plays a script of which the segments of these times are cut to so many bytes of their data.
fn play_cut(text: &str, cuts: &[(f64, usize)]) -> Observed {
    let mut observed = Observed::default();
    let mut analyzer = Analyzer::new(LIMITS);
    for segment in script(text) {
        let frame = segment.frame();
        let cut = cuts.iter().find(|(ms, _)| at(*ms) == segment.time);
        let left = cut.map_or(usize::MAX, |(_, left)| *left);
        let kept = frame.len() - segment.payload.len().saturating_sub(left);
        let packet = Packet {
            interface: 0,
            time: Some(segment.time),
            link: LINK_ETHERNET,
            original: frame.len() as u32,
            data: &frame[..kept],
        };
        analyzer.packets(&[packet], &mut observed);
    }
    analyzer.finish(&mut observed);
    observed
}

/// A snap length cuts what was captured of a packet, not its length on the network. The first turn
/// is not known, for what looks like the client's Finished may be its request.
#[test]
fn the_second_turn_of_tls_is_known_where_the_servers_flight_was_cut_off() {
    let text = "0  c S  seq=0
         10 s SA seq=0 ack=1
         11 c A
         11 c A tls=client
         22 s A tls=retry+20:1
         24 c A tls=20:1+client
         35 s A tls=server+20:1+23:900
         40 c A tls=23:53
         50 s A tls=23:250+23:250
         51 c A tls=23:100
         80 s A tls=23:900
         90 c A tls=23:100
         95 s A tls=23:250";
    let whole = play_cut(text, &[]);
    assert_eq!(responses(&whole.flows[0])[0], 5.0);
    assert_eq!(responses(&whole.flows[0]).len(), 2);
    for cuts in [
        &[(22.0, 58)][..],
        &[(22.0, 7)],
        &[(35.0, 58)],
        &[(22.0, 58), (24.0, 58), (35.0, 58)],
    ] {
        let observed = play_cut(text, cuts);
        assert_eq!(responses(&observed.flows[0]), [5.0], "{cuts:?}");
    }
}

#[test]
fn the_second_turn_of_tls_is_known_where_the_first_is_not() {
    let flow = after_1_3(
        "32 c A tls=23:100
         45 s A tls=23:250
         82 s A tls=23:900
         90 c A tls=23:100
         95 s A tls=23:250",
    );
    assert_eq!(responses(&flow), [5.0]);
}

#[test]
fn a_record_too_short_for_a_ticket_is_the_answer() {
    let flow = after_1_3(
        "32 c A tls=23:31
         42 s A tls=23:24",
    );
    assert_eq!(responses(&flow), [10.0]);
}

#[test]
fn the_end_of_a_tls_connection_is_no_turn() {
    let flow = after_1_3(
        "32 c A tls=23:100
         45 s A tls=23:250+23:250
         82 s A tls=23:900
         90 c A tls=23:19
         99 s A tls=23:19",
    );
    assert_eq!(responses(&flow), [50.0]);
}

#[test]
fn a_request_beside_the_finished_is_measured_from_there() {
    let observed = play(
        "0  c S  seq=0
         10 s SA seq=0 ack=1
         11 c A
         11 c A tls=client
         22 s A tls=server+20:1+23:1200
         31 c A tls=20:1+23:53+23:100
         45 s A tls=23:250+23:250
         81 s A tls=23:900",
    );
    assert_eq!(responses(&observed.flows[0]), [50.0]);
}

#[test]
fn a_client_hello_in_several_segments_has_its_name_and_its_first_time() {
    let hello = records("long");
    let cut = [&hello[..1400], &hello[1400..2800], &hello[2800..]];
    for order in [[0, 1, 2], [0, 2, 1]] {
        let mut segments = script(
            "0  c S  seq=0
             10 s SA seq=0 ack=1
             11 c A",
        );
        for (at, part) in order.into_iter().enumerate() {
            let seq = 1 + 1400 * part;
            let mut of_part = script(&format!("{} c A seq={seq} ack=1", 11 + at));
            of_part[0].payload = cut[part].to_vec();
            segments.append(&mut of_part);
        }
        let next = 1 + hello.len();
        segments.append(&mut script(&format!("30 s A seq=1 ack={next} tls=server")));
        let observed = play_with(&segments, LIMITS);
        let tls = observed.flows[0].application.tls().unwrap();
        assert_eq!(tls.sni.as_deref(), Some("example.com"), "{order:?}");
        assert_eq!(tls.version_name(), Some("1.3"));
        let first = order.iter().position(|part| *part == 0).unwrap();
        let expected = 19.0 - first as f64;
        assert_eq!(tls.to_server_hello().unwrap().as_millis_f64(), expected);
    }
}

#[test]
fn after_a_request_to_retry_the_second_hello_counts() {
    let observed = play(
        "0  c S  seq=0
         10 s SA seq=0 ack=1
         11 c A
         11 c A tls=client
         22 s A tls=retry+20:1
         33 c A tls=20:1+client
         45 s A tls=server+23:900
         56 c A tls=23:53",
    );
    let tls = observed.flows[0].application.tls().unwrap();
    assert_eq!(tls.to_server_hello().unwrap().as_millis_f64(), 12.0);
    assert_eq!(tls.to_client_finished().unwrap().as_millis_f64(), 11.0);
}

#[test]
fn in_tls_1_2_the_flight_ends_with_the_encrypted_finished() {
    let observed = play(
        "0  c S  seq=0
         10 s SA seq=0 ack=1
         11 c A
         11 c A tls=client
         22 s A tls=old+22:900
         33 c A tls=22:70
         34 c A tls=20:1+22:40
         45 s A tls=22:200+20:1+22:40
         46 c A tls=23:100
         56 s A tls=23:900",
    );
    let flow = &observed.flows[0];
    let tls = flow.application.tls().unwrap();
    assert_eq!(tls.version_name(), Some("1.2"));
    assert_eq!(tls.to_client_finished().unwrap().as_millis_f64(), 12.0);
    assert_eq!(responses(flow), [10.0]);
}

#[test]
fn hellos_that_are_cut_off_have_their_times_and_neither_name_nor_version() {
    for cut in [5, 6, 40] {
        let observed = play_cut(
            "0  c S  seq=0
             10 s SA seq=0 ack=1
             11 c A
             11 c A tls=client
             22 s A tls=server+20:1+23:1200",
            &[(11.0, cut), (22.0, cut)],
        );
        let tls = observed.flows[0].application.tls().unwrap();
        let to_server_hello = tls.to_server_hello().map(|span| span.as_millis_f64());
        assert_eq!(to_server_hello, Some(11.0), "{cut}");
        assert_eq!((tls.sni.as_deref(), tls.version), (None, None), "{cut}");
    }
}
