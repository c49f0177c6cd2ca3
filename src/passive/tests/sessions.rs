//! Events of a connection, HTTP, intervals, the table's bounds, and two captures of one path.

use super::build::*;
use crate::passive::*;
use crate::time::WallTime;

#[test]
fn each_direction_has_counts_and_times_of_its_events() {
    let observed = play(
        "0    c S  seq=100 ts=1,0
         20   s SA seq=500 ack=101 ts=7,1
         1020 s SA seq=500 ack=101 ts=1007,1
         1021 c A  seq=101 ack=501 ts=2,7
         1022 c A  seq=101 ack=501 len=10 ts=3,7
         1042 s A  seq=501 ack=111 len=20 ts=1030,3
         1043 c A  seq=111 ack=521 ts=4,1030 win=0
         1050 c FA seq=111 ack=521 ts=5,1030
         1070 s A  seq=521 ack=112 len=30 ts=1050,5
         1090 s FA seq=551 ack=112 ts=1060,5
         1091 c R  seq=112",
    );
    let flow = &observed.flows[0];
    let (client, server) = (flow.of(Side::Client), flow.of(Side::Server));
    let event = |count, ms| {
        let mut event = Event::default();
        (0..count).for_each(|_| event.happened(at(ms)));
        event
    };
    assert_eq!(
        (client.syn(), client.syn_ack()),
        (event(1, 0.0), Event::default())
    );
    assert_eq!(
        (server.syn(), server.syn_ack()),
        (Event::default(), event(2, 1020.0))
    );
    assert_eq!(
        (client.fin, server.fin),
        (event(1, 1050.0), event(1, 1090.0))
    );
    assert_eq!(
        (client.rare().rst, server.rare().rst),
        (event(1, 1091.0), Event::default())
    );
    assert_eq!(client.established.get(), Some(at(20.0)));
    assert_eq!(
        (server.established.get(), flow.established()),
        (Some(at(1021.0)), Some(at(1021.0)))
    );
    assert_eq!(
        (server.first_data.get(), server.last_data.get()),
        (Some(at(1042.0)), Some(at(1070.0)))
    );
    assert_eq!((server.payload_bytes, client.payload_bytes), (50, 10));
    assert_eq!(
        (client.rare().zero_windows, server.rare().zero_windows),
        (1, 0)
    );
    assert_eq!(flow.duration().0, 1_091_000_000);
    assert_eq!(flow.ended(), Ended::Fin);
    assert_eq!(server.bytes_per_second().map(f64::round), Some(1786.0));
    assert_eq!(client.bytes_per_second(), None);
    let trips = server.round_trip.summary().unwrap();
    assert_eq!((trips.count, trips.last.0), (1, 1_000_000));
}

#[test]
fn duplicate_acks_are_those_of_rfc_5681() {
    let observed = play(
        "0  s A seq=0   ack=1
         0  c A seq=1   ack=0 len=300
         20 s A seq=0   ack=101
         21 s A seq=0   ack=101
         22 s A seq=0   ack=101
         23 s A seq=0   ack=101 win=900
         24 s A seq=0   ack=101 win=900 len=5
         30 c A seq=301 ack=5
         40 s A seq=5   ack=301 win=900
         41 s A seq=5   ack=301 win=900",
    );
    assert_eq!(observed.flows[0].of(Side::Server).rare().duplicate_acks, 2);
    assert_eq!(observed.flows[0].of(Side::Client).rare().duplicate_acks, 0);
}

#[test]
fn a_flow_that_begins_midstream_has_its_server_at_the_lower_port() {
    let observed = play("0 s A seq=0 ack=1\n1 c A seq=1 ack=0");
    assert_eq!(
        observed.flows[0].ends.map(|end| end.to_string()),
        ["10.0.0.1:40000", "10.0.1.2:80"]
    );
    assert!(!observed.flows[0].begins_with_syn());
    // A SYN-ACK decides before a port does.
    let observed = play("0 s SA seq=0 ack=1 port=7");
    assert_eq!(observed.flows[0].ends[1].to_string(), "10.0.1.2:80");
}

#[test]
fn interval_snapshots_begin_at_multiples_and_skip_idle_time() {
    let observed = play(
        "500  s A seq=0 ack=1 ts=1,1
         900  c A seq=1 ack=0 len=10 ts=5,1
         1100 s A seq=0 ack=11 ts=2,5
         1200 c A seq=11 ack=0 len=10 ts=6,2
         1240 s A seq=0 ack=21 ts=3,6
         5300 c A seq=21 ack=0 len=7 ts=9,3",
    );
    let intervals: Vec<&Interval> = observed.flows[0].intervals().collect();
    let starts: Vec<WallTime> = intervals.iter().map(|interval| interval.start).collect();
    assert_eq!(starts, [at(0.0), at(1000.0), at(5000.0)]);
    let client: Vec<&IntervalSent> = intervals.iter().map(|interval| &interval.sent[0]).collect();
    assert_eq!(
        client.iter().map(|of| of.payload_bytes).collect::<Vec<_>>(),
        [10, 10, 7]
    );
    assert_eq!(client[0].round_trip, None);
    let trips = client[1].round_trip.unwrap().map(|span| span.0);
    assert_eq!(trips, [40_000_000, 40_000_000, 200_000_000]);
    assert_eq!(client[1].last_packet, Some(at(1200.0)));
}

#[test]
fn the_table_lets_the_least_recently_seen_flow_go() {
    let text: String = (1..=5)
        .map(|port| format!("{port} c S seq=1 port={port}\n"))
        .chain(["6 c A seq=2 ack=1 port=3\n7 c S seq=1 port=6".to_owned()])
        .collect();
    let limits = Limits {
        max_flows: 3,
        interval_ns: None,
    };
    let observed = play_with(&script(&text), limits);
    let order: Vec<(u16, Ended)> = observed
        .flows
        .iter()
        .map(|flow| (flow.ends[0].port, flow.ended()))
        .collect();
    let (evicted, open) = (Ended::Evicted, Ended::Open);
    let expected = [
        (1, evicted),
        (2, evicted),
        (4, evicted),
        (3, open),
        (5, open),
        (6, open),
    ];
    assert_eq!(order, expected);
}

#[test]
fn a_closed_connection_leaves_the_table_after_a_while() {
    struct Open(Vec<u64>);
    impl Observer for Open {
        fn ended(&mut self, flow: BoxedFlow) {
            self.0.push(flow.id);
        }
    }
    let segments = script(
        "0      c S  seq=1 port=1
         1      s RA seq=0 ack=2 port=1
         2      c S  seq=1 port=2
         9000   s A  seq=0 ack=2 port=1
         248000 c S  seq=1 port=3
         250000 c S  seq=1 port=4",
    );
    let mut analyzer = Analyzer::new(LIMITS);
    let mut open = Open(Vec::new());
    let mut held = Vec::new();
    for segment in &segments {
        hand(&mut analyzer, segment, &mut open);
        held.push(analyzer.flows_held());
    }
    // A late packet of it begins its lingering anew.
    assert_eq!(held, [1, 1, 2, 2, 3, 3]);
    assert_eq!(open.0, [0]);
}

/// Method, status and the four times.
type Seen = (Option<String>, Option<u16>, [Option<WallTime>; 4]);

fn exchanges(text: &str) -> Vec<Seen> {
    let observed = play(text);
    let http = observed.flows[0].http.as_ref().expect("HTTP was seen");
    let times = |of: &Exchange| {
        [
            of.request_first.get(),
            of.request_last.get(),
            of.response_first.get(),
            of.response_last.get(),
        ]
    };
    http.exchanges
        .iter()
        .map(|of| (of.method().map(str::to_owned), of.status, times(of)))
        .collect()
}

#[test]
fn http_exchanges_have_the_times_of_their_first_and_last_packets() {
    let found = exchanges(
        "0 s A ack=1
         10 c A ack=0 text=GET /a HTTP/1.1~Ho
         11 c A ack=0 text=st: b~~
         30 s A ack=25 text=HTTP/1.1 200 OK~Content-Length: 12~~123456
         35 s A ack=25 text=789012
         40 c A ack=51 text=PUT /b HTTP/1.1~Content-Length: 4~~ab
         45 c A ack=51 text=cd
         60 s A ack=67 text=HTTP/1.1 100 Continue~~
         62 s A ack=67 text=HTTP/1.1 201 Created~Transfer-Encoding: chunked~~
         64 s A ack=67 text=3;x=y~abc~
         66 s A ack=67 text=0~~
         70 c A ack=143 text=HEAD /c HTTP/1.1~~HEAD /d HTTP/1.1~~
         90 s A ack=107 text=HTTP/1.1 404 No~Content-Length: 5~~HTTP/1.1 204 No~~",
    );
    let ms = |ms: [f64; 4]| ms.map(|ms| Some(at(ms)));
    assert_eq!(
        found,
        [
            (Some("GET".into()), Some(200), ms([10.0, 11.0, 30.0, 35.0])),
            (Some("PUT".into()), Some(201), ms([40.0, 45.0, 62.0, 66.0])),
            (Some("HEAD".into()), Some(404), ms([70.0, 70.0, 90.0, 90.0])),
            (Some("HEAD".into()), Some(204), ms([70.0, 70.0, 90.0, 90.0])),
        ]
    );
}

#[test]
fn http_bodies_cut_by_the_snap_length_are_counted_all_the_same() {
    let mut segments = script(
        "0 s A ack=1
         10 c A ack=0 text=GET /a HTTP/1.1~~
         30 s A ack=20 text=HTTP/1.1 200 OK~Content-Length: 2000~~
         31 s A ack=20 len=1000
         32 s A ack=20 len=1000
         50 c A ack=2041 text=GET /b HTTP/1.1~~
         70 s A ack=39 text=HTTP/1.1 304 Not Modified~~",
    );
    for lost in [None, Some(3)] {
        if let Some(lost) = lost {
            segments.remove(lost);
        }
        let mut capture = pcap(&segments, false, true);
        // Rewritten with a snap length of 110 bytes: enough for the heads.
        let mut cut = capture[..24].to_vec();
        let mut at = 24;
        while at < capture.len() {
            let kept = u32::from_le_bytes(capture[at + 8..at + 12].try_into().unwrap()) as usize;
            let snap = kept.min(110);
            capture[at + 8..at + 12].copy_from_slice(&(snap as u32).to_le_bytes());
            cut.extend(&capture[at..at + 16 + snap]);
            at += 16 + kept;
        }
        let mut observed = Observed::default();
        let (_, fault) = read(&cut, 4096, LIMITS, &mut observed);
        assert_eq!(fault, None);
        let exchanges = &observed.flows[0].http.as_ref().unwrap().exchanges;
        let seen: Vec<_> = exchanges
            .iter()
            .map(|of| (of.status, of.response_last.get()))
            .collect();
        let expected = [
            (Some(200), Some(super::build::at(32.0))),
            (Some(304), Some(super::build::at(70.0))),
        ];
        assert_eq!(seen, expected);
        assert_eq!(
            exchanges[1].time_to_first_byte().map(|span| span.0),
            Some(20_000_000)
        );
    }
}

#[test]
fn what_follows_connect_or_an_upgrade_is_not_http() {
    let found = exchanges(
        "0 s A ack=1
         10 c A ack=0 text=CONNECT a:443 HTTP/1.1~~
         20 s A ack=27 text=HTTP/1.1 200 OK~~
         30 c A ack=19 text=GET /inner HTTP/1.1~~",
    );
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].1, Some(200));
}

#[test]
fn a_response_whose_request_was_not_seen_has_no_method() {
    let found = exchanges("0 s A ack=1 text=HTTP/1.0 500 No~~");
    assert_eq!(found[0].0, None);
    assert_eq!(found[0].1, Some(500));
}

/// The same path seen at both ends, 10 ms there and 15 ms back, the server's clock 3 s ahead.
#[test]
fn one_way_delays_hold_the_offset_of_the_clocks_and_their_sum_does_not() {
    let at_client = script(
        "0    c S  seq=100 ts=1,0
         25   s SA seq=500 ack=101 ts=7,1
         25.1 c A  seq=101 ack=501 ts=2,7
         26   c A  seq=101 ack=501 len=10 ts=3,7
         27   c A  seq=111 ack=501 len=10 ts=4,7
         51   s A  seq=501 ack=111 len=5 ts=8,3",
    );
    let mut at_server = at_client.clone();
    at_server.remove(4); // Lost on its way.
    for segment in &mut at_server {
        let ms = if segment.from_client { 3010 } else { 3000 - 15 };
        segment.time = WallTime(segment.time.0 + ms * 1_000_000);
    }
    struct Both<'a> {
        which: Which,
        pairing: &'a mut Pairing,
        observed: Observed,
    }
    impl Observer for Both<'_> {
        fn segment(
            &mut self,
            now: WallTime,
            flow: &Flow,
            sender: Side,
            segment: &TcpSegment<'_>,
            _findings: &Findings,
        ) {
            self.pairing.packet(self.which, flow, sender, now, segment);
        }
        fn ended(&mut self, flow: BoxedFlow) {
            self.observed.flows.push(flow);
        }
    }
    for (file_at, captures) in [
        (Side::Client, [&at_client, &at_server]),
        (Side::Server, [&at_server, &at_client]),
    ] {
        let mut pairing = Pairing::new(10);
        let [file, peer] =
            [(Which::File, captures[0]), (Which::Peer, captures[1])].map(|(which, segments)| {
                let mut both = Both {
                    which,
                    pairing: &mut pairing,
                    observed: Observed::default(),
                };
                let mut analyzer = Analyzer::new(LIMITS);
                for segment in segments {
                    hand(&mut analyzer, segment, &mut both);
                }
                analyzer.finish(&mut both);
                both.observed.flows
            });
        let (paired, left) = pair_flows(file, peer);
        assert_eq!((paired.len(), left), (1, 0));
        assert!(paired[0].1.is_some());
        let one_way = pairing.take(&paired[0].0);
        assert_eq!(one_way.file_at, Some(file_at));
        let [forth, back] = one_way.delays.map(Option::unwrap);
        assert_eq!((forth.count, back.count), (3, 2));
        assert_eq!((forth.min.0, forth.max.0), (3_010_000_000, 3_010_000_000));
        assert_eq!((back.min.0, back.max.0), (-2_985_000_000, -2_985_000_000));
        assert_eq!((forth.mean + back.mean).0, 25_000_000);
    }
}
