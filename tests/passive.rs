//! The command `passive` against captures that are made here, and against tshark, promtool and
//! Prometheus.
//!
//! Needs root, tcpdump, tshark, ip (iproute2), promtool and prometheus; without them the tests fail
//! and say so.

mod lab;
mod util;

use lab::{require, run, Capture, Lab, Late, Scratch, Wire, BINARY};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use subsegment_tcp_speeds::passive::{
    Analyzer, BoxedFlow, Ended, Event, Flow, Limits, Observer, Sample, SampleBasis, Side, Stream,
};
use subsegment_tcp_speeds::time::SignedNanos;
use util::json;
use util::promtool_accepts;

/// Not a test: the other processes of the lab.
#[test]
#[ignore = "started by the other tests, in namespaces of theirs"]
fn actor() {
    if let Ok(part) = std::env::var("PASSIVE_ACTOR") {
        lab::actor(&part);
    }
}

/// Everything the library reports of a capture.
#[derive(Default)]
struct Analysis {
    samples: Vec<(u64, Sample)>,
    flows: Vec<BoxedFlow>,
}

impl Observer for Analysis {
    fn sample(&mut self, flow: &Flow, sample: &Sample) {
        self.samples.push((flow.id, *sample));
    }

    fn ended(&mut self, flow: BoxedFlow) {
        self.flows.push(flow);
    }
}

impl Analysis {
    fn of(path: &Path) -> Self {
        let mut found = Self::default();
        let mut stream = Stream::new(1 << 16);
        let mut analyzer = Analyzer::new(Limits {
            max_flows: 100_000,
            interval_ns: None,
        });
        let capture = std::fs::read(path).unwrap();
        let mut rest = &capture[..];
        loop {
            let batch = stream.batch().unwrap();
            if !batch.is_empty() {
                analyzer.packets(&batch, &mut found);
            } else if rest.is_empty() {
                break;
            } else {
                let space = stream.space();
                let bytes = space.len().min(rest.len());
                space[..bytes].copy_from_slice(&rest[..bytes]);
                stream.filled(bytes);
                rest = &rest[bytes..];
            }
        }
        assert_eq!(stream.end(), None);
        analyzer.finish(&mut found);
        found.flows.sort_by_key(|flow| flow.id);
        found
    }

    /// Round trips of data that this side sent, in milliseconds and in rising order.
    fn trips(&self, sender: Side) -> Vec<f64> {
        let of_data =
            |of: &&(u64, Sample)| of.1.sender == sender && of.1.basis != SampleBasis::Handshake;
        let samples = self.samples.iter().filter(of_data);
        let mut trips: Vec<f64> = samples.map(|of| of.1.round_trip.as_millis_f64()).collect();
        trips.sort_by(f64::total_cmp);
        trips
    }
}

/// The rows of a tshark listing of these fields.
fn tshark(path: &Path, fields: &[&str]) -> Vec<Vec<String>> {
    let path = path.to_str().unwrap();
    let mut args = vec!["-r", path, "-Y", "tcp", "-T", "fields"];
    args.extend(fields.iter().flat_map(|field| ["-e", field]));
    let rows = run("tshark", &args);
    rows.lines()
        .map(|row| row.split('\t').map(str::to_owned).collect())
        .collect()
}

/// `1795253400.123456789` in nanoseconds, exactly.
fn nanos(seconds: &str) -> i64 {
    let (whole, part) = seconds.split_once('.').unwrap_or((seconds, ""));
    let whole: i64 = whole.parse().unwrap();
    whole * 1_000_000_000 + format!("{part:0<9}").parse::<i64>().unwrap()
}

/// Checks counts and times of SYN, SYN-ACK, FIN and RST per flow and direction, bytes, and the
/// handshake's round trip.
fn assert_equal_to_tshark(path: &Path, found: &Analysis) {
    let fields = [
        "tcp.stream",
        "tcp.srcport",
        "frame.time_epoch",
        "tcp.flags.syn",
        "tcp.flags.ack",
        "tcp.flags.fin",
        "tcp.flags.reset",
        "tcp.analysis.initial_rtt",
        "tcp.len",
        "tcp.analysis.keep_alive",
    ];
    #[derive(Default)]
    struct Counted {
        events: [(u64, i64); 4],
        packets: u64,
        bytes: u64,
        probes: u64,
    }
    let mut counted: HashMap<(u64, String), Counted> = HashMap::new();
    let mut initial: HashMap<u64, i64> = HashMap::new();
    for row in tshark(path, &fields) {
        let stream: u64 = row[0].parse().unwrap();
        let is = |at: usize| matches!(row[at].as_str(), "1" | "True");
        let of = counted.entry((stream, row[1].clone())).or_default();
        of.packets += 1;
        let length = row[8].parse::<u64>().unwrap();
        of.bytes += length;
        of.probes += u64::from(length == 1 && !row[9].is_empty());
        let happened = [is(3) && !is(4), is(3) && is(4), is(5), is(6)];
        for (event, happened) in of.events.iter_mut().zip(happened) {
            if happened {
                *event = (event.0 + 1, nanos(&row[2]));
            }
        }
        if !row[7].is_empty() {
            initial.insert(stream, nanos(&row[7]));
        }
    }
    assert_eq!(
        counted.keys().map(|key| key.0).max().unwrap() + 1,
        found.flows.len() as u64
    );
    // Both number connections by their first packets.
    for flow in &found.flows {
        for side in Side::BOTH {
            let sent = flow.of(side);
            let key = (flow.id, flow.ends[side as usize].port.to_string());
            let of = counted.remove(&key).unwrap_or_default();
            let event = |event: Event| (event.count, event.last().map_or(0, |time| time.0 as i64));
            let events = [sent.syn(), sent.syn_ack(), sent.fin, sent.rare().rst].map(event);
            assert_eq!(events, of.events, "{} {side:?}", flow.ends[0]);
            assert_eq!(sent.packets, of.packets);
            // A byte sent again after its acknowledgment, as on a busy machine, is no payload but
            // looks like a probe: tshark has its byte.
            let probes = of.bytes - sent.payload_bytes;
            assert!(
                probes <= sent.rare().keep_alives.min(of.probes),
                "{probes} of {} and {}",
                sent.rare().keep_alives,
                of.probes
            );
        }
        let both = (flow.syn_to_synack, flow.synack_to_ack);
        let own = match both {
            (Some(there), Some(back)) => Some((there + back).0),
            _ => None,
        };
        // tshark takes the reset that refuses a connection for the end of a handshake.
        if flow.of(Side::Server).syn_ack().count > 0 || own.is_some() {
            assert_eq!(own, initial.get(&flow.id).copied(), "{}", flow.ends[0]);
        }
    }
}

/// tshark's round trip by time of the ACK: it measures from the last segment that the ACK covers.
fn ack_rtts(path: &Path) -> HashMap<i64, i64> {
    let rows = tshark(path, &["frame.time_epoch", "tcp.analysis.ack_rtt"]);
    let rows = rows.into_iter().filter(|row| !row[1].is_empty());
    rows.map(|row| (nanos(&row[0]), nanos(&row[1]))).collect()
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// The lab never delivers early; how late depends on how busy the machine is, and is known.
fn assert_delay(trips: &[f64], expected_ms: f64, late: Late) {
    let late = late.both_ms();
    assert!(!trips.is_empty(), "no round trips");
    assert!(
        trips[0] >= expected_ms - 0.01,
        "{} is less than {expected_ms}",
        trips[0]
    );
    assert!(
        trips[0] <= expected_ms + late + 2.0,
        "least {} for {expected_ms} and {late}",
        trips[0]
    );
    assert!(
        median(trips) <= expected_ms + late + 10.0,
        "median {} for {expected_ms} and {late}",
        median(trips)
    );
}

#[test]
fn keys_with_pauses_of_a_second_measure_the_network_and_equal_tshark() {
    let scratch = Scratch::new("keys");
    let path = scratch.file("keys.pcap");
    let late = Lab::new(false, Wire::delay(10, 10)).play("keys=5", &[("c", &path)]);
    let found = Analysis::of(&path);
    assert_equal_to_tshark(&path, &found);
    assert_delay(&found.trips(Side::Client), 20.0, late);
    let all = [found.trips(Side::Client), found.trips(Side::Server)].concat();
    assert!(
        all.iter().all(|ms| *ms < 500.0),
        "a pause was taken for a round trip: {all:?}"
    );
    assert_eq!(found.flows[0].near(), Some(Side::Client));
    // Single segments: both ways of measuring have the same two packets in mind, but where two
    // segments are sent within one tick (the last key and the FIN): there ours begins with the
    // first, up to a tick earlier.
    let theirs = ack_rtts(&path);
    assert!(found.samples.len() >= 12, "{} samples", found.samples.len());
    let mut longer = 0;
    for (_, sample) in &found.samples {
        let other = theirs[&(sample.time.0 as i64)];
        let more = sample.round_trip.0 - other;
        assert!(
            (0..=1_000_000).contains(&more),
            "{more} ns more at {}",
            sample.time
        );
        longer += usize::from(more > 0);
    }
    assert!(longer <= 2, "{longer} are longer than tshark's");
    println!(
        "keys: {} round trips beside tshark's, {longer} longer by less than a tick; \
         to the server {:.3} to {:.3} ms for 20 ms",
        found.samples.len(),
        found.trips(Side::Client)[0],
        found.trips(Side::Client).last().unwrap()
    );
}

#[test]
fn bulk_both_ways_agrees_with_the_delay_and_is_never_below_tshark() {
    let scratch = Scratch::new("bulk");
    let path = scratch.file("bulk.pcap");
    let late = Lab::new(false, Wire::delay(5, 25)).play("up=300000+down=300000", &[("c", &path)]);
    let found = Analysis::of(&path);
    assert_equal_to_tshark(&path, &found);
    assert_delay(&found.trips(Side::Client), 30.0, late);
    let theirs = ack_rtts(&path);
    // Theirs is from the last segment that an ACK covers, ours from the first with the echoed
    // TSval: what the receiver waited before it answered is in ours.
    let both = found.samples.iter().filter_map(|(_, sample)| {
        let other = theirs.get(&(sample.time.0 as i64))?;
        Some((sample.round_trip - SignedNanos(*other)).as_millis_f64())
    });
    let mut longer: Vec<f64> = both.collect();
    longer.sort_by(f64::total_cmp);
    let compared = longer.len();
    assert!(compared > 10, "{compared} of {}", found.samples.len());
    assert!(
        longer[0] >= 0.0 && median(&longer) <= 2.0,
        "{:?}",
        figures(&longer)
    );
    for (_, sample) in &found.samples {
        if sample.basis == SampleBasis::Handshake {
            assert_eq!(
                Some(&sample.round_trip.0),
                theirs.get(&(sample.time.0 as i64))
            );
        }
    }
    println!(
        "bulk: {compared} round trips, longer than tshark's by {:?} ms; {:?}",
        figures(&longer),
        figures(&found.trips(Side::Client))
    );
}

fn figures(trips: &[f64]) -> (usize, f64, f64, f64) {
    (trips.len(), trips[0], median(trips), trips[trips.len() - 1])
}

#[test]
fn bulk_with_loss_on_either_side_of_the_capture_keeps_its_round_trips_and_counts_what_was_repeated()
{
    let scratch = Scratch::new("loss");
    let path = scratch.file("loss.pcap");
    let wire = Wire {
        drops: |_, number, flags| flags & 2 == 0 && number % 40 == 17,
        ..Wire::delay(10, 10)
    };
    let late = Lab::new(false, wire).play("up=200000+down=200000", &[("c", &path)]);
    let found = Analysis::of(&path);
    assert_equal_to_tshark(&path, &found);
    assert_delay(&found.trips(Side::Client), 20.0, late);
    // What the client sent passed the capture before it was lost, and so passed twice.
    let up = found.flows[0].of(Side::Client);
    assert!(
        up.rare().retransmitted_bytes >= 3 * 1000,
        "{} bytes",
        up.rare().retransmitted_bytes
    );
    assert_eq!(up.payload_bytes - up.rare().retransmitted_bytes, 200_005);
    // What the server sent was lost before it came here: its repeat is the first sighting, and the
    // gap is asked for.
    let down = found.flows[1].of(Side::Server);
    assert_eq!(
        down.payload_bytes - down.rare().retransmitted_bytes,
        200_000
    );
    assert!(found.flows[1].of(Side::Client).rare().duplicate_acks > 0);
    // Linux repeats within a round trip or by a timer of 200 ms; neither shows up as a round trip.
    let trips = found.trips(Side::Client);
    assert!(
        median(&trips) < 40.0 + late.both_ms(),
        "{:?}",
        figures(&trips)
    );
    println!(
        "loss: {} bytes repeated, {} duplicate ACKs, {:?}",
        up.rare().retransmitted_bytes,
        found.flows[1].of(Side::Client).rare().duplicate_acks,
        figures(&trips)
    );
}

#[test]
fn many_short_connections_over_ipv6_equal_tshark() {
    let scratch = Scratch::new("short");
    let path = scratch.file("short.pcap");
    let late = Lab::new(true, Wire::delay(1, 2)).play("short=100", &[("c", &path)]);
    let found = Analysis::of(&path);
    assert_eq!(found.flows.len(), 100);
    assert!(found
        .flows
        .iter()
        .all(|flow| flow.ended() == Ended::Fin && flow.timestamps));
    assert!(found.flows[0].ends[1].to_string().starts_with("[fd77::2]:"));
    assert_equal_to_tshark(&path, &found);
    assert_delay(&found.trips(Side::Client), 3.0, late);
    println!(
        "short: 100 connections equal to tshark, {:?}",
        figures(&found.trips(Side::Client))
    );
}

#[test]
fn refused_lost_syn_and_half_close_equal_tshark() {
    let scratch = Scratch::new("odd");
    let path = scratch.file("odd.pcap");
    let wire = Wire {
        // The very first SYN.
        drops: |forth, number, flags| forth && number == 0 && flags & 2 != 0,
        ..Wire::delay(5, 5)
    };
    Lab::new(false, wire).play("half+refused", &[("c", &path)]);
    let found = Analysis::of(&path);
    assert_equal_to_tshark(&path, &found);
    let [half, refused] = &found.flows[..] else {
        panic!("{} flows", found.flows.len())
    };
    assert_eq!(half.of(Side::Client).syn().count, 2);
    let there = half.syn_to_synack.unwrap().as_millis_f64();
    assert!(
        (10.0..200.0).contains(&there),
        "the lost SYN was counted in: {there} ms"
    );
    assert_eq!(half.ended(), Ended::Fin);
    assert!(half.of(Side::Client).fin.last() < half.of(Side::Server).first_data.get());
    assert_eq!(half.of(Side::Server).payload_bytes, 50_000);
    assert_eq!(refused.ended(), Ended::Rst);
    assert_eq!(
        (
            refused.of(Side::Server).rare().rst.count,
            refused.established()
        ),
        (1, None)
    );
    println!("odd: lost SYN {there:.3} ms, half-close and refusal equal to tshark");
}

#[test]
fn without_timestamps_round_trips_are_a_part_of_tsharks() {
    let scratch = Scratch::new("plain");
    let path = scratch.file("plain.pcap");
    let lab = Lab::new(false, Wire::delay(10, 10));
    lab.sysctl("net.ipv4.tcp_timestamps=0");
    let late = lab.play("keys=1+up=100000+http", &[("c", &path)]);
    let found = Analysis::of(&path);
    assert_equal_to_tshark(&path, &found);
    assert!(found.flows.iter().all(|flow| !flow.timestamps));
    assert_delay(&found.trips(Side::Client), 20.0, late);
    let theirs = ack_rtts(&path);
    for (_, sample) in &found.samples {
        assert_ne!(sample.basis, SampleBasis::Timestamps);
        let other = theirs.get(&(sample.time.0 as i64)).copied();
        assert_eq!(Some(sample.round_trip.0), other, "at {}", sample.time);
    }
    assert!(found.samples.len() > 20, "{} samples", found.samples.len());
    let http = &found.flows[2].http.as_ref().unwrap().exchanges[0];
    assert_eq!((http.method(), http.status), (Some("GET"), Some(200)));
    assert!(http.time_to_first_byte().unwrap() >= SignedNanos(20_000_000));
    assert_eq!(
        http.response_last.get(),
        found.flows[2].of(Side::Server).last_data.get()
    );
    println!(
        "plain: {} round trips equal to tshark's",
        found.samples.len()
    );
}

/// A client that sends `bytes` over loopback while captures run, each with tcpdump's arguments;
/// `path` and arguments.
fn send_over_loopback(bytes: usize, captures: &[(&Path, &[&str])]) {
    require(&["tcpdump", "tshark", "editcap"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // The marker goes to that port too: another test over loopback has one of its own.
    let filter = format!("port {}", address.port());
    let running: Vec<Capture> = captures
        .iter()
        .map(|(path, args)| Capture::start_with(args[0], path, &[&args[1..], &[&filter]].concat()))
        .collect();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
    });
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&vec![b'x'; bytes]).unwrap();
    drop(stream);
    assert_eq!(server.join().unwrap(), bytes as u64);
    lab::mark(address);
    running.into_iter().for_each(Capture::finish);
}

#[test]
fn loopback_with_segments_of_64_kib_equals_tshark() {
    let scratch = Scratch::new("loopback");
    let path = scratch.file("lo.pcap");
    send_over_loopback(2_000_000, &[(&path, &["lo", "-s", "200"])]);
    let found = Analysis::of(&path);
    let sent = found.flows[0].of(Side::Client);
    // Where the reader has to wait for a processor, the kernel sends again even over loopback.
    assert_eq!(
        sent.payload_bytes - sent.rare().retransmitted_bytes,
        2_000_000
    );
    assert!(sent.packets < 1000, "segments are gathered");
    assert_equal_to_tshark(&path, &found);
    let trips = found.trips(Side::Client);
    assert!(!trips.is_empty() && trips[0] < 10.0, "{trips:?}");
}

#[test]
fn cooked_captures_and_pcapng_of_other_tools_tell_the_same() {
    let scratch = Scratch::new("cooked");
    let [plain, sll, sll2] = ["plain", "sll", "sll2"].map(|name| scratch.file(name));
    send_over_loopback(
        100_000,
        &[
            (&plain, &["lo"]),
            (&sll, &["any", "-y", "LINUX_SLL"]),
            (&sll2, &["any", "-y", "LINUX_SLL2"]),
        ],
    );
    let ng = scratch.file("ng");
    run(
        "editcap",
        &[
            "-F",
            "pcapng",
            plain.to_str().unwrap(),
            ng.to_str().unwrap(),
        ],
    );
    let found = Analysis::of(&plain);
    let sent = found.flows[0].of(Side::Client);
    assert_eq!(
        sent.payload_bytes - sent.rare().retransmitted_bytes,
        100_000
    );
    // The very same packets, so to the nanosecond.
    assert_eq!(Analysis::of(&ng).samples, found.samples);
    let counts = |found: &Analysis| -> Vec<_> {
        let sent = found.flows.iter().flat_map(|flow| &flow.sent);
        sent.map(|of| (of.packets, of.payload_bytes, of.syn().count, of.fin.count))
            .collect()
    };
    for cooked in [sll, sll2] {
        let other = Analysis::of(&cooked);
        assert_eq!(counts(&other), counts(&found));
        assert_eq!(other.samples.len(), found.samples.len());
        assert_equal_to_tshark(&cooked, &other);
    }
}

/// What the binary prints; it has to end with this code.
fn passive(args: &[&str], code: i32) -> String {
    let output = Command::new(BINARY)
        .arg("passive")
        .args(args)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap() + &errors
}

#[test]
fn captures_of_both_ends_give_one_way_delays_and_all_eight_http_times() {
    let scratch = Scratch::new("peer");
    let (near, far) = (scratch.file("near.pcap"), scratch.file("far.pcap"));
    let lab = Lab::new(false, Wire::delay(5, 15));
    let late = lab.play("http", &[("c", &near), ("s", &far)]);
    let (near, far) = (near.to_str().unwrap(), far.to_str().unwrap());
    for (file, peer, at) in [(near, far, "client"), (far, near, "server")] {
        let json = passive(&[file, "--peer", peer, "--format", "json", "-v"], 0);
        assert!(json.contains(&format!("\"capture_at\":\"{at}\"")), "{json}");
        let delays = json.split("\"one_way_delay\":").nth(1).unwrap();
        let mut least = delays.split("\"min_ns\":").skip(1);
        for (direction, expected, late) in [
            ("client_to_server", 5.0, late.forth_ms),
            ("server_to_client", 15.0, late.back_ms),
        ] {
            let text = least.next().unwrap().split(',').next().unwrap();
            let ms = text.parse::<f64>().unwrap() / 1e6;
            assert!(
                (expected..expected + late + 2.0).contains(&ms),
                "{direction}: {ms} ms, {late} ms late"
            );
            println!("one-way delay, {direction}: {ms:.3} ms for {expected} ms (file at the {at})");
        }
        let http = json
            .split("\"http\":[")
            .nth(1)
            .unwrap()
            .split(']')
            .next()
            .unwrap();
        assert_eq!(
            http.matches("\"2026-").count() + http.matches("\"20").count(),
            16,
            "{http}"
        );
        let times = http.replace("\"headers\":null", "");
        assert!(!times.contains("null"), "{http}");
    }
    let lines = passive(&[near, "--peer", far, "--format", "lines"], 0);
    let one_way: Vec<&str> = lines
        .lines()
        .filter(|line| line.ends_with(" one_way"))
        .collect();
    assert!(one_way.len() > 20, "{lines}");
    for line in one_way {
        let words: Vec<&str> = line.split(' ').collect();
        let (least, late) = if words[3].starts_with("10.77.0.1:") {
            (5.0, late.forth_ms)
        } else {
            (15.0, late.back_ms)
        };
        let delay: f64 = words[1].parse().unwrap();
        assert!((least..least + late + 100.0).contains(&delay), "{line}");
    }
    let alone = passive(&[near, "--format", "json", "-v"], 0);
    let (_, server) = alone.split_once("\"server\":{\"tx_first\"").unwrap();
    let (server, _) = server.split_once('}').unwrap();
    assert_eq!(server.matches("null").count(), 4, "{server}");
}

#[test]
fn a_damaged_capture_is_reported_with_what_precedes_the_damage() {
    let scratch = Scratch::new("damage");
    let path = scratch.file("whole.pcap");
    Lab::new(false, Wire::delay(1, 1)).play("short=2", &[("c", &path)]);
    let whole = std::fs::read(&path).unwrap();
    let cut = scratch.file("cut.pcap");
    // Half of the file, without the last byte of a packet: half of it alone may be a whole number
    // of packets.
    let mut end = 24;
    while end < whole.len() / 2 {
        let kept = whole[end + 8..end + 12].try_into().unwrap();
        end += 16 + u32::from_ne_bytes(kept) as usize;
    }
    std::fs::write(&cut, &whole[..end - 1]).unwrap();
    let said = passive(&[cut.to_str().unwrap(), "--format", "json"], 1);
    assert!(said.contains("\"flows\":[\n{\"client\":"), "{said}");
    assert!(said.contains("\"fault\":\"packet "), "{said}");
    assert!(
        said.contains("cut.pcap: packet ") && said.contains(" at offset "),
        "{said}"
    );
    let said = passive(&["/nonexistent/file"], 1);
    assert!(
        said.contains("open /nonexistent/file: No such file"),
        "{said}"
    );
    let said = passive(&[], 2);
    assert!(said.contains("give a FILE"), "{said}");
}

#[test]
fn a_closed_stdout_is_a_normal_end() {
    let scratch = Scratch::new("closed");
    let path = scratch.file("a.pcap");
    Lab::new(false, Wire::delay(1, 1)).play("short=2", &[("c", &path)]);
    let mut child = Command::new(BINARY)
        .args(["passive", path.to_str().unwrap(), "--format", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_capture_through_a_pipe_is_reported_while_it_runs() {
    let lab = Lab::new(false, Wire::delay(5, 5));
    let scratch = Scratch::new("pipe");
    let mut tcpdump = Command::new("tcpdump")
        .args([
            "-i",
            &lab.interface("c"),
            "-U",
            "--immediate-mode",
            "-w",
            "-",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Command::new(BINARY)
        .args(["passive", "-", "--format", "lines"])
        .stdin(Stdio::from(tcpdump.stdout.take().unwrap()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(tcpdump.stderr.take().unwrap());
    errors.read_line(&mut String::new()).unwrap();
    lab.play("short=1", &[("c", &scratch.file("unused"))]);
    // tcpdump still runs: these lines come before the end of the input.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let handshake = lines.find(|line| line.as_ref().unwrap().ends_with(" handshake"));
    assert!(handshake.is_some());
    let data = lines
        .find(|line| line.as_ref().unwrap().ends_with(" timestamps"))
        .unwrap()
        .unwrap();
    let words: Vec<&str> = data.split(' ').collect();
    assert!(
        words[1].parse::<f64>().unwrap() >= 10.0 && words[4] == ">",
        "{data}"
    );
    println!("live: {data}");
    tcpdump.kill().unwrap();
    tcpdump.wait().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_interface_is_captured_without_tcpdump_and_drops_are_reported() {
    let lab = Lab::new(false, Wire::delay(5, 5));
    let scratch = Scratch::new("interface");
    let path = scratch.file("beside.pcap");
    let file = scratch.file("live.prom");
    let mut child = Command::new(BINARY)
        .args(["passive", "-I", &lab.interface("c"), "--format", "json"])
        .args([
            "--metrics-listen",
            "127.0.0.1:0",
            "--metrics-file",
            file.to_str().unwrap(),
        ])
        .args(["--metrics-interval", "0.05"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    let address = line
        .trim()
        .split("http://")
        .nth(1)
        .unwrap()
        .replace("/metrics", "");
    // The endpoint answers as soon as the address is known; the socket was opened before.
    scrape(&address);
    let health = run("curl", &["-sf", &format!("http://{address}/healthz")]);
    assert_eq!(health.trim(), "ok");
    lab.play("short=20", &[("c", &path)]);
    let found = Analysis::of(&path);
    let packets: u64 = found
        .flows
        .iter()
        .flat_map(|flow| &flow.sent)
        .map(|sent| sent.packets)
        .sum();
    // All that the capture beside it saw, and perhaps a last ACK.
    let mut seen = 0.0;
    poll("the endpoint to catch up", || {
        let metrics = scrape(&address);
        seen = value(&metrics, "subsegment_passive_tcp_packets_total");
        assert_eq!(
            value(&metrics, "subsegment_passive_kernel_dropped_packets_total"),
            0.0
        );
        seen >= packets as f64
    });
    assert_eq!(
        value(&scrape(&address), "subsegment_passive_flows_total"),
        20.0
    );
    // The file appears as a whole, and follows.
    poll("the file to catch up", || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(text.is_empty() || text.ends_with('\n'));
        !text.is_empty() && value(&text, "subsegment_passive_tcp_packets_total") >= seen
    });
    // A signal ends it in order: what is left is printed.
    run("kill", &["-INT", &child.id().to_string()]);
    let mut json = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut json)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let value = json::parse(json.as_bytes()).unwrap_or_else(|error| panic!("{error:?}\n{json}"));
    let json::Value::Object(members) = value else {
        panic!("not an object")
    };
    assert_eq!(
        members
            .iter()
            .map(|member| &member.0[..])
            .collect::<Vec<_>>(),
        ["schema", "flows", "capture"]
    );
    let left = std::fs::read_dir(file.parent().unwrap()).unwrap().count();
    assert_eq!(left, 2, "the capture and the metrics, nothing temporary");
    println!("interface: {seen} TCP packets, 20 flows, no drops; SIGINT printed the rest");

    // A count ends it in order, and the summary is printed.
    let lab = Lab::new(false, Wire::delay(1, 1));
    let mut child = Command::new(BINARY)
        .args([
            "passive",
            "-I",
            &lab.interface("c"),
            "-c",
            "40",
            "--format",
            "json",
        ])
        .args(["--metrics-listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(child.stderr.take().unwrap())
        .read_line(&mut String::new())
        .unwrap();
    lab.play("short=10", &[]);
    let mut json = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut json)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(
        json.contains("\"packets\":40,") && json.contains("\"kernel_dropped\":0,"),
        "{json}"
    );
}

#[test]
fn an_interface_without_the_right_or_that_is_not_there_is_said_so() {
    require(&[]);
    // Where nobody else may read the directory of this build, a copy will do.
    let scratch = Scratch::new("rights");
    let copy = scratch.file("copy");
    std::fs::copy(BINARY, &copy).unwrap();
    let output = Command::new(&copy)
        .args(["passive", "-I", "lo"])
        .uid(65_534)
        .gid(65_534)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("root or CAP_NET_RAW") && said.contains("tcpdump -i lo -U"),
        "{said}"
    );
    let said = passive(&["-I", "nosuch0"], 1);
    assert!(
        said.contains("capture on nosuch0: No such device"),
        "{said}"
    );
}

/// Looks every 20 ms, for a minute at most.
fn poll(what: &str, mut done: impl FnMut() -> bool) {
    let tick = crossbeam_channel::tick(Duration::from_millis(20));
    let met = tick.iter().take(3000).any(|_| done());
    assert!(met, "waited a minute for {what}");
}

/// The body that the metrics endpoint answers with.
fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    body.to_owned()
}

/// The value of a metric without labels.
fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
        .parse()
        .unwrap()
}

#[test]
fn promtool_accepts_the_metrics_and_a_real_prometheus_scrapes_them() {
    require(&["promtool", "prometheus"]);
    let scratch = Scratch::new("prometheus");
    let path = scratch.file("a.pcap");
    Lab::new(false, Wire::delay(5, 5)).play("short=5+up=50000+refused", &[("c", &path)]);
    let capture = path.to_str().unwrap();
    for group in ["flow", "remote", "subnet", "none"] {
        let text = passive(&[capture, "--format", "prometheus", "--group-by", group], 0);
        promtool_accepts(&format!("--group-by {group}"), &text);
    }
    println!("promtool check metrics: accepted for flow, remote, subnet and none");

    // A capture that goes on: stdin stays open.
    let mut child = Command::new(BINARY)
        .args(["passive", "-", "--metrics-listen", "127.0.0.1:0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let target = line
        .trim()
        .split("http://")
        .nth(1)
        .unwrap()
        .replace("/metrics", "");
    let mut input = child.stdin.take().unwrap();
    input.write_all(&std::fs::read(&path).unwrap()).unwrap();
    let config = scratch.file("prometheus.yml");
    std::fs::write(
        &config,
        format!(
            "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: passive\n    \
             static_configs:\n      - targets: ['{target}']\n"
        ),
    )
    .unwrap();
    let mut prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            scratch.file("tsdb").display()
        ))
        .arg("--web.listen-address=127.0.0.1:0")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It says where it listens and when it is ready, in either order; its pipe is drained to its
    // end by a thread, or it would block.
    let (sender, ready) = crossbeam_channel::unbounded();
    let errors = BufReader::new(prometheus.stderr.take().unwrap());
    let drain = std::thread::spawn(move || {
        let (mut own, mut is_ready) = (None, false);
        for line in errors.lines().map_while(Result::ok) {
            if let Some((_, address)) = line.split_once("msg=\"Listening on\" address=") {
                own = address.parse::<SocketAddr>().ok();
            }
            is_ready |= line.contains("Server is ready");
            if let Some(address) = own.filter(|_| is_ready) {
                let _ = sender.send(address);
            }
        }
    });
    let own = ready
        .recv_timeout(Duration::from_secs(60))
        .expect("prometheus is ready within a minute");
    let query = "histogram_quantile(0.5,sum(subsegment_passive_round_trip_seconds_bucket)by(le))";
    let tries = crossbeam_channel::tick(Duration::from_millis(250));
    let found = tries.iter().take(240).find_map(|_| {
        let mut stream = TcpStream::connect(own).ok()?;
        let request = format!("GET /api/v1/query?query={query} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let value = answer
            .split("\"value\":[")
            .nth(1)?
            .split('"')
            .nth(1)?
            .parse::<f64>()
            .ok()?;
        Some(value)
    });
    prometheus.kill().unwrap();
    prometheus.wait().unwrap();
    drain.join().unwrap();
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let median = found.expect("prometheus scraped a histogram within a minute");
    assert!((0.0..0.1).contains(&median), "{median}");
    println!("prometheus scraped {target}: median round trip {median} s");
}
