//! Metrics over HTTP and in files, read by real programs: Prometheus, promtool, node_exporter.

mod util;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use subsegment_tcp_speeds::measure::BUCKETS_NS;
use util::http::{ask, metrics_of, until};
use util::json::{parse, Value};
use util::link::Link;
use util::{need, program, promtool_accepts, run, text, Dir, Node, Process, LONG};

#[track_caller]
fn scrape(address: SocketAddr) -> String {
    let (status, body) = ask(address, "/metrics", "");
    assert_eq!(status, 200, "{body}");
    body
}

/// The value of the first series of that name whose labels have `part` in them.
fn value(metrics: &str, name: &str, part: &str) -> Option<f64> {
    metrics.lines().find_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let labels = series.strip_prefix(name)?;
        let is_it = labels.is_empty() || labels.starts_with('{');
        (is_it && labels.contains(part)).then(|| value.parse().ok())?
    })
}

const METRICS: [&str; 2] = ["--metrics-listen", "127.0.0.1:0"];

/// A probe without end, with metrics.
#[track_caller]
fn probe(target: SocketAddr, args: &[&str]) -> (Process, SocketAddr) {
    let mut process = Process::start(
        program()
            .args(["--node", "A", "probe", &target.to_string(), "-c", "0"])
            .args(METRICS)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped()),
    );
    let address = metrics_of(&mut process);
    (process, address)
}

/// Returns the address on which a program of Prometheus' family listens, from its log.
#[track_caller]
fn listening(process: &mut Process) -> SocketAddr {
    let line = process.wait_line("msg=\"Listening on\" address=");
    line.rsplit_once('=').unwrap().1.parse().unwrap()
}

struct Prometheus {
    address: SocketAddr,
    _process: Process,
}

impl Prometheus {
    #[track_caller]
    fn start(dir: &Dir, config: &str) -> Self {
        let file = dir.file("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let mut process = Process::start(
            Command::new(need("prometheus"))
                .arg(format!("--config.file={}", file.display()))
                .arg(format!(
                    "--storage.tsdb.path={}",
                    dir.file("tsdb").display()
                ))
                .arg("--web.listen-address=127.0.0.1:0")
                .stdout(Stdio::null()),
        );
        let address = listening(&mut process);
        process.wait_line("Server is ready");
        Self {
            address,
            _process: process,
        }
    }

    /// Labels and value of each series of the answer.
    #[track_caller]
    fn query(&self, expression: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        let encoded: String = expression
            .bytes()
            .map(|byte| format!("%{byte:02x}"))
            .collect();
        let (status, body) = ask(self.address, &format!("/api/v1/query?query={encoded}"), "");
        assert_eq!(status, 200, "{expression}: {body}");
        let answer = parse(body.as_bytes()).unwrap();
        let result = answer.at("data/result").and_then(Value::as_array).unwrap();
        let series = result.iter().map(|series| {
            let metric = series.at("metric").unwrap();
            let labels = metric.keys().unwrap().into_iter().map(|key| {
                let value = metric.at(key).and_then(Value::as_str);
                (key.to_owned(), value.unwrap().to_owned())
            });
            let value = series.at("value/1").and_then(Value::as_str).unwrap();
            (labels.collect(), value.parse().unwrap())
        });
        series.collect()
    }

    /// The one value of the answer, if there is one.
    #[track_caller]
    fn one(&self, expression: &str) -> Option<f64> {
        self.query(expression).first().map(|(_, value)| *value)
    }
}

fn quoted(addresses: &[SocketAddr]) -> String {
    let quoted: Vec<_> = addresses
        .iter()
        .map(|address| format!("'{address}'"))
        .collect();
    quoted.join(", ")
}

#[test]
fn prometheus_scrapes_nodes_and_a_probe_and_agrees_with_the_p99_of_the_report() {
    let mut z = Node::start("Z", &METRICS);
    let mut c = Node::to("C", z.address, &METRICS);
    let link = Link::start(c.address, Duration::from_millis(3)).unwrap();
    let mut b = Node::to("B", link.address, &METRICS);
    let mut exporter = Process::start(
        program()
            .arg("exporter")
            .args(METRICS)
            .args(["--probe-allow", "127.0.0.0/8:*"]),
    );
    let exporter_address = metrics_of(&mut exporter);
    // Not a schedule of nothing but probes: bytes of an application, through an entry and an exit.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut exit = Node::to(
        "X",
        server.local_addr().unwrap(),
        &[&METRICS[..], &["-r"]].concat(),
    );
    let mut entry = Node::to(
        "N",
        exit.address,
        &[&METRICS[..], &["--accept", "raw"]].concat(),
    );
    let mut client = TcpStream::connect(entry.address).unwrap();
    client.write_all(&[7; 5_000]).unwrap();
    let (mut served, _) = server.accept().unwrap();
    served.read_exact(&mut [0; 5_000]).unwrap();
    let (mut probe, probe_address) =
        probe(b.address, &["-i", "0.005", "-t", "1", "--format", "json"]);

    let nodes = [&mut z, &mut c, &mut b, &mut exit, &mut entry];
    let nodes = nodes.map(|node| metrics_of(&mut node.process));
    let dir = Dir::new("prometheus");
    let prometheus = Prometheus::start(
        &dir,
        &format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\n\
             scrape_configs:\n\
             - job_name: nodes\n  static_configs: [{{targets: [{}]}}]\n\
             - job_name: probe\n  static_configs: [{{targets: ['{probe_address}']}}]\n\
             - job_name: targets\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  \
               metrics_path: /probe\n  \
               params: {{count: ['3'], interval: ['0.01']}}\n  \
               static_configs: [{{targets: ['{}', '127.0.0.1:1']}}]\n  \
               relabel_configs:\n  \
               - {{source_labels: [__address__], target_label: __param_target}}\n  \
               - {{source_labels: [__param_target], target_label: instance}}\n  \
               - {{target_label: __address__, replacement: '{exporter_address}'}}\n",
            quoted(&nodes),
            c.address,
        ),
    );
    let count = "subsegment_round_trip_seconds_count{job=\"probe\"}";
    until("300 round trips", || {
        prometheus.one(count).filter(|count| *count >= 300.0)
    });
    let up = until("all targets", || {
        let up = prometheus.query("up == 1");
        (up.len() == 8).then_some(up)
    });
    assert_eq!(up.len(), 8);
    let rate = "histogram_quantile(0.99, \
                rate(subsegment_segment_round_trip_seconds_bucket{from=\"B\"}[10s]))";
    // A busy machine may have it slower for a moment.
    until("a rate of plausible delays", || {
        let plausible = |seconds: &f64| (0.005..1.0).contains(seconds);
        prometheus.one(rate).filter(plausible)
    });

    let good = format!(
        "subsegment_probe_success{{instance=\"{}\"}} == 1",
        c.address
    );
    until("a probe that succeeds", || prometheus.one(&good));
    let bad = "subsegment_probe_success{instance=\"127.0.0.1:1\"} == 0";
    until("a probe that fails", || prometheus.one(bad));

    // No answer passes B any more, so that Prometheus and the report count the same blocks.
    b.process.signal("STOP");
    until("the probe to give the session up", || {
        let up = value(&scrape(probe_address), "subsegment_path_up", "");
        (up == Some(0.0)).then_some(())
    });
    // Earlier answers are counted when two reports in a row are equal.
    let mut seen = None;
    let last = until("the last count", || {
        let name = "subsegment_round_trip_seconds_count";
        let now = value(&scrape(probe_address), name, "");
        (std::mem::replace(&mut seen, now) == now).then_some(now)
    });
    until("the last answer", || {
        (prometheus.one(count) == last).then_some(())
    });
    // A scrape that takes longer than 200 ms leaves a target without series until the next.
    let all = |count: usize, expression: &str| {
        until(expression, || {
            Some(prometheus.query(expression)).filter(|series| series.len() >= count)
        })
    };
    let quantiles = all(
        3,
        "histogram_quantile(0.99, subsegment_segment_round_trip_seconds_bucket{job=\"probe\"})",
    );
    let carried = all(
        2,
        "subsegment_carried_bytes_total{direction=\"forward\"} >= 5000",
    );

    let (_, json) = probe.stop();
    b.process.signal("CONT");
    let report = parse(json.as_bytes()).unwrap();
    assert_eq!(quantiles.len(), 3, "{quantiles:?}");
    for (place, segment) in report
        .at("segments")
        .and_then(Value::as_array)
        .unwrap()
        .iter()
        .enumerate()
    {
        let number = |path: &str| match segment.at(path) {
            Some(Value::Number(text)) => text.parse::<f64>().unwrap(),
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(Some(number("round_trip/count")), last);
        let p99 = number("round_trip/p99_ns") / 1e9;
        let hop = (place + 1).to_string();
        let (labels, quantile) = quantiles
            .iter()
            .find(|(labels, _)| labels["hop"] == hop)
            .unwrap();
        assert_eq!(
            Some(labels["from"].as_str()),
            segment.at("from").and_then(Value::as_str)
        );
        let bounds = BUCKETS_NS.map(|bound| bound as f64 / 1e9);
        // The report is exact to 1 %, so a p99 that close to a bound may be on its other side.
        let above = bounds.into_iter().find(|bound| *bound >= p99 * 1.02);
        let above = above.expect("below 10 s");
        let below = bounds.into_iter().rev().find(|bound| *bound <= p99 * 0.98);
        let below = below.unwrap_or(0.0);
        println!(
            "{} -> {}: report p99 {p99} s, Prometheus {quantile} s",
            labels["from"], labels["to"]
        );
        assert!(
            (below..=above).contains(quantile),
            "{labels:?}: {quantile} is not between {below} and {above}: report {p99}"
        );
    }
    let by_instance = |of: &[(BTreeMap<String, String>, f64)], instance: &SocketAddr| {
        let instance = instance.to_string();
        let found = of.iter().find(|(labels, _)| labels["instance"] == instance);
        found.map(|(_, value)| *value)
    };
    assert_eq!(
        by_instance(&carried, &nodes[3]),
        Some(5_000.0),
        "{carried:?}"
    );
    assert_eq!(
        by_instance(&carried, &nodes[4]),
        Some(5_000.0),
        "{carried:?}"
    );
}

#[test]
fn promtool_accepts_the_metrics_of_every_role() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut echo = Node::start("Z", &METRICS);
    let mut relay = Node::to("C", echo.address, &METRICS);
    let to_server = server.local_addr().unwrap();
    let raw = [&METRICS[..], &["--accept", "raw"]].concat();
    let mut exit = Node::to("X", to_server, &[&METRICS[..], &["-r"]].concat());
    let mut entry = Node::to("N", exit.address, &raw);
    let mut proxy = Node::to("P", to_server, &[&raw[..], &["-r"]].concat());
    // Several blocks through both, so that there are round trips and residences.
    for through in [&entry, &proxy] {
        let mut client = TcpStream::connect(through.address).unwrap();
        let mut served = None;
        for _ in 0..3 {
            client.write_all(b"question").unwrap();
            let served = served.get_or_insert_with(|| server.accept().unwrap().0);
            served.read_exact(&mut [0; 8]).unwrap();
            served.write_all(b"answer").unwrap();
            client.read_exact(&mut [0; 6]).unwrap();
        }
    }
    let (_probe, probe_address) = probe(relay.address, &["-i", "0.002"]);
    let mut source = Process::start(
        program()
            .args(["--node", "S", "-f", &relay.address.to_string()])
            .args(METRICS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped()),
    );
    source
        .child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"data")
        .unwrap();
    source.stdout().read_exact(&mut [0; 4]).unwrap();
    let mut exporter = Process::start(
        program()
            .arg("exporter")
            .args(METRICS)
            .args(["--probe-allow", &echo.address.to_string()]),
    );
    let asked = format!("/probe?target={}", echo.address);
    let exporter_address = metrics_of(&mut exporter);
    let (status, probed) = ask(exporter_address, &asked, "");
    assert_eq!(status, 200, "{probed}");
    promtool_accepts("a probed target", &probed);
    let exporter_metrics = scrape(exporter_address);
    promtool_accepts("the exporter", &exporter_metrics);
    let seen = |address: SocketAddr, name: &str, role: &str| {
        let metrics = until(name, || {
            let metrics = scrape(address);
            value(&metrics, name, "")
                .filter(|value| *value > 0.0)
                .map(|_| metrics)
        });
        let role = format!("role=\"{role}\"");
        assert_eq!(
            value(&metrics, "subsegment_build_info", &role),
            Some(1.0),
            "{metrics}"
        );
        promtool_accepts(name, &metrics);
        metrics
    };
    let residence = "subsegment_host_residence_seconds_count";
    seen(metrics_of(&mut echo.process), residence, "echo");
    let segment = "subsegment_segment_round_trip_seconds_count";
    seen(metrics_of(&mut relay.process), segment, "relay");
    seen(metrics_of(&mut entry.process), segment, "entry");
    seen(metrics_of(&mut exit.process), residence, "exit");
    seen(metrics_of(&mut proxy.process), residence, "proxy");
    seen(
        metrics_of(&mut source),
        "subsegment_round_trip_seconds_count",
        "source",
    );
    // Enough blocks for every figure that a run can have.
    let metrics = seen(
        probe_address,
        "subsegment_segment_baseline_seconds",
        "probe",
    );
    assert_eq!(value(&metrics, "subsegment_path_up", ""), Some(1.0));
    let (_, open) = ask(
        probe_address,
        "/metrics",
        "Accept: application/openmetrics-text\r\n",
    );
    assert!(
        open.ends_with("\n# EOF\n") && open.contains("# TYPE subsegment_blocks_sent counter\n")
    );
}

/// The shipped rules, quick enough for a test.
fn quick_rules(dir: &Dir) -> std::path::PathBuf {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/deploy/alerts.yml");
    let rules = std::fs::read_to_string(shipped)
        .unwrap()
        .replace("[5m]", "[2s]");
    let lines: Vec<_> = rules
        .lines()
        .filter(|line| !line.trim().starts_with("for: "))
        .collect();
    let file = dir.file("alerts.yml");
    std::fs::write(&file, lines.join("\n")).unwrap();
    file
}

#[test]
fn an_alert_fires_for_the_segment_that_is_slowed() {
    let z = Node::start("Z", &[]);
    let link = Link::start(z.address, Duration::from_micros(300)).unwrap();
    let c = Node::to("C", link.address, &[]);
    let dir = Dir::new("alert");
    let state = dir.file("state");
    let state = state.to_str().unwrap();
    let target = c.address.to_string();
    for _ in 0..3 {
        let run = run(&[
            "--node", "A", "probe", &target, "-c", "100", "-i", "0.005", "--state", state,
        ]);
        assert!(run.status.success(), "{}", text(&run.stderr));
    }
    let rules = dir.file("rules");
    std::fs::write(
        &rules,
        "segment C->Z round_trip p50 > 10ms over 20 critical\n",
    )
    .unwrap();
    let limits = ["--rules", rules.to_str().unwrap()];
    let options = [&["-i", "0.005", "--state", state][..], &limits].concat();
    let (mut probe, address) = probe(c.address, &options);
    let rules = quick_rules(&dir);
    let prometheus = Prometheus::start(
        &dir,
        &format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, \
             evaluation_interval: 200ms}}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n- job_name: probe\n  static_configs: [{{targets: ['{address}']}}]\n",
            rules.display()
        ),
    );
    let median = "histogram_quantile(0.5, \
                  rate(subsegment_segment_round_trip_seconds_bucket{from=\"C\"}[2s]))";
    let firing = "ALERTS{alertname=\"SubsegmentGrown\", alertstate=\"firing\", name=\"C -> Z\"}";
    // A busy machine may have it slow, and the alert firing, for a moment.
    let before = until("a median of a quiet segment, and no alert", || {
        let quiet = prometheus.one(firing).is_none();
        prometheus
            .one(median)
            .filter(|seconds| quiet && *seconds < 0.005)
    });
    // More than twice what a busy machine made of the three runs before.
    link.forward.set_delay(Duration::from_millis(300));
    let begun = Instant::now();
    until("the alert", || prometheus.one(firing));
    // The alert uses another figure: the median follows when more than half of its window is slow.
    let after = until("a median that follows", || {
        prometheus.one(median).filter(|seconds| *seconds > 0.02)
    });
    println!(
        "median {before} s before, {after} s after; the alert fired {:?} after the change",
        begun.elapsed()
    );
    let outside =
        "ALERTS{alertname=\"SubsegmentOutsideSla\", alertstate=\"firing\", name=\"C -> Z\"}";
    until("the alert of the program's own limit", || {
        prometheus.one(outside)
    });
    let metrics = scrape(address);
    let limit = "name=\"C -> Z\",figure=\"round_trip p50\",severity=\"critical\",line=\"1\"";
    let of = |name: &str| value(&metrics, name, limit);
    assert_eq!(of("subsegment_limit_seconds"), Some(0.01), "{metrics}");
    assert_eq!(of("subsegment_limit_state"), Some(3.0));
    assert!(of("subsegment_limit_value_seconds") > Some(0.05));
    let (_, text) = probe.stop();
    assert!(text.contains("C -> Z"), "{text}");
}

#[test]
fn node_exporter_shows_what_a_probe_from_cron_wrote() {
    let z = Node::start("Z", &[]);
    let dir = Dir::new("textfile");
    let file = dir.file("Z.prom");
    let probed = run(&[
        "--node",
        "A",
        "probe",
        &z.address.to_string(),
        "-c",
        "20",
        "-i",
        "0.002",
        "--metrics-file",
        file.to_str().unwrap(),
    ]);
    assert!(probed.status.success(), "{}", text(&probed.stderr));
    promtool_accepts("a probe's file", &std::fs::read_to_string(&file).unwrap());
    let names: Vec<_> = std::fs::read_dir(&dir.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["Z.prom"], "nothing is left beside it");
    let mut exporter = Process::start(
        Command::new(need("prometheus-node-exporter"))
            .args(["--collector.disable-defaults", "--collector.textfile"])
            .arg(format!(
                "--collector.textfile.directory={}",
                dir.0.display()
            ))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdout(Stdio::null()),
    );
    let metrics = scrape(listening(&mut exporter));
    assert_eq!(
        value(&metrics, "subsegment_blocks_received_total", ""),
        Some(20.0),
        "{metrics}"
    );
    let segment = "from=\"A\",hop=\"1\",to=\"Z\"";
    assert_eq!(
        value(
            &metrics,
            "subsegment_segment_round_trip_seconds_count",
            segment
        ),
        Some(20.0)
    );
    assert_eq!(value(&metrics, "node_textfile_scrape_error", ""), Some(0.0));
}

#[test]
fn the_metrics_file_of_a_node_follows_what_it_does() {
    let dir = Dir::new("file");
    let file = dir.file("Z.prom");
    let mut z = Node::start("Z", &["--metrics-file", file.to_str().unwrap()]);
    let connections = || {
        let metrics = std::fs::read_to_string(&file).unwrap();
        value(&metrics, "subsegment_connections_total", "").expect("the file is whole")
    };
    assert_eq!(
        connections(),
        0.0,
        "it is there before anything has happened"
    );
    drop(TcpStream::connect(z.address).unwrap());
    until("the file to follow", || {
        (connections() == 1.0).then_some(())
    });
    let mut client = TcpStream::connect(z.address).unwrap();
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    drop(client);
    assert!(z.process.stop().0.success());
    assert_eq!(connections(), 2.0, "written at the end too");
    // A file that cannot be written is an error before anything begins.
    let nowhere = dir.file("no/such.prom");
    let ended = run(&[
        "-l",
        "127.0.0.1:0",
        "--metrics-file",
        nowhere.to_str().unwrap(),
    ]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        text(&ended.stderr).contains("such.prom"),
        "{}",
        text(&ended.stderr)
    );
}

#[test]
fn a_probe_asked_for_over_http_ends_in_time_and_only_allowed_targets_are_tried() {
    let z = Node::start("Z", &[]);
    // Takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_address = silent.local_addr().unwrap();
    let relay = Node::to(
        "C",
        z.address,
        &[
            &METRICS[..],
            &[
                "--probe-allow",
                &z.address.to_string(),
                "--probe-allow",
                &silent_address.to_string(),
            ],
        ]
        .concat(),
    );
    let mut relay = relay;
    let address = metrics_of(&mut relay.process);
    let (status, body) = ask(
        address,
        &format!("/probe?target={}&count=7&interval=0.002", z.address),
        "",
    );
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        value(&body, "subsegment_probe_success", ""),
        Some(1.0),
        "{body}"
    );
    assert_eq!(
        value(&body, "subsegment_round_trip_seconds_count", ""),
        Some(7.0)
    );
    assert_eq!(
        value(
            &body,
            "subsegment_segment_round_trip_seconds_count",
            "to=\"Z\""
        ),
        Some(7.0)
    );

    let (status, body) = ask(address, "/probe?target=127.0.0.1:22", "");
    assert_eq!(status, 403);
    assert!(body.contains("--probe-allow 127.0.0.1:22"), "{body}");
    let (status, body) = ask(address, "/probe", "");
    assert_eq!(
        (status, body.as_str()),
        (400, "no target: ask for /probe?target=host:port\n")
    );

    let begun = Instant::now();
    let timeout = "X-Prometheus-Scrape-Timeout-Seconds: 2\r\n";
    let (status, body) = ask(address, &format!("/probe?target={silent_address}"), timeout);
    let took = begun.elapsed();
    assert_eq!(status, 200);
    assert_eq!(
        value(&body, "subsegment_probe_success", ""),
        Some(0.0),
        "{body}"
    );
    assert!(took < Duration::from_secs(2), "{took:?}");

    // With authenticated frames the probe uses the node's key.
    let dir = Dir::new("probe-key");
    let key = dir.file("key");
    std::fs::write(&key, "00112233445566778899aabbccddeeff\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let key = ["--key-file", key.to_str().unwrap()];
    let closed = Node::start("K", &key);
    let target = closed.address.to_string();
    let asked = format!("/probe?target={target}");
    for (key, success) in [(&key[..], 1.0), (&[], 0.0)] {
        let mut exporter = Process::start(
            program()
                .arg("exporter")
                .args(METRICS)
                .args(["--probe-allow", &target])
                .args(key),
        );
        let (_, body) = ask(metrics_of(&mut exporter), &asked, "");
        assert_eq!(
            value(&body, "subsegment_probe_success", ""),
            Some(success),
            "{body}"
        );
    }

    // A node without that option has no such route, and lists the others.
    let mut plain = Node::start("Y", &METRICS);
    let (status, body) = ask(metrics_of(&mut plain.process), "/probe?target=a:1", "");
    assert_eq!(status, 404);
    assert!(
        body.contains("/metrics, /healthz") && !body.contains("/probe"),
        "{body}"
    );
}

#[test]
fn fifty_targets_are_probed_by_one_process_each_with_its_series_and_its_line() {
    let z = Node::start("Z", &[]);
    let dir = Dir::new("targets");
    let file = dir.file("targets");
    let mut list = String::from("# fifty, and two that are not there\n127.0.0.1:1 dead\n");
    list += "no-such-host.invalid:9 nameless\n";
    for number in 0..50 {
        list += &format!("{} path-{number}\n", z.address);
    }
    std::fs::write(&file, list).unwrap();
    let mut process = Process::start(
        program()
            .args([
                "--node",
                "A",
                "probe",
                "--targets",
                file.to_str().unwrap(),
                "-c",
                "0",
                "-i",
                "0.2",
            ])
            .args(METRICS)
            .stdout(Stdio::piped()),
    );
    let address = metrics_of(&mut process);
    let metrics = until("an answer on every path", || {
        let metrics = scrape(address);
        let answered = (0..50).filter(|number| {
            let label = format!("path=\"path-{number}\"");
            value(&metrics, "subsegment_blocks_received_total", &label) >= Some(2.0)
        });
        (answered.count() == 50).then_some(metrics)
    });
    promtool_accepts("many targets", &metrics);
    for path in ["dead", "nameless"] {
        let label = format!("path=\"{path}\"");
        let up = value(&metrics, "subsegment_path_up", &label);
        assert_eq!(up, Some(0.0), "{path}");
    }
    assert_eq!(
        value(&metrics, "subsegment_path_up", "path=\"path-7\""),
        Some(1.0)
    );
    let (status, _) = ask(address, "/healthz", "");
    assert_eq!(status, 200, "one path that stands is enough");
    let (status, text) = process.stop();
    assert_eq!(status.code(), Some(2), "two paths are broken");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 53, "{text}");
    assert!(
        lines[1].starts_with("dead ") && lines[1].contains("refused"),
        "{}",
        lines[1]
    );
    assert!(
        lines[2].starts_with("nameless ") && lines[2].contains("resolve no-such-host.invalid:9"),
        "{}",
        lines[2]
    );
    for (number, line) in lines[3..].iter().enumerate() {
        assert!(
            line.starts_with(&format!("path-{number} ")) && line.contains(" 0.0 "),
            "{line}"
        );
    }
}

#[test]
fn health_follows_the_path() {
    // An address of its own, or another test might have the port while the node is away.
    let start = |listen: &str| {
        let mut command = program();
        Node::start_command(command.args(["--node", "Z", "-l", listen]))
    };
    let mut z = start("127.0.0.2:0");
    let (_probe, address) = probe(z.address, &["-i", "0.02", "-t", "0.5"]);
    until("a path", || {
        (ask(address, "/healthz", "").0 == 200).then_some(())
    });
    z.process.stop();
    let (_, body) = until("a break", || {
        let answer = ask(address, "/healthz", "");
        (answer.0 == 503).then_some(answer)
    });
    assert_eq!(body, "the path is down\n");
    let metrics = scrape(address);
    assert_eq!(
        value(&metrics, "subsegment_path_up", ""),
        Some(0.0),
        "{metrics}"
    );
    // The node comes back at the same place.
    let _z = start(&z.address.to_string());
    until("the path again", || {
        (ask(address, "/healthz", "").0 == 200).then_some(())
    });
}

#[test]
fn no_counter_of_a_node_ever_falls_while_connections_come_and_go() {
    let mut z = Node::start("Z", &METRICS);
    let address = metrics_of(&mut z.process);
    let echo = z.address;
    let scrapes = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..3_u8)
        .map(|number| {
            let scrapes = Arc::clone(&scrapes);
            std::thread::spawn(move || {
                let mut served = 0;
                // The slower of the two has time enough.
                while served < 60 || scrapes.load(Ordering::Relaxed) < 10 {
                    let mut client = TcpStream::connect(echo).unwrap();
                    client.write_all(&[b'a' + number; 100]).unwrap();
                    client.read_exact(&mut [0; 100]).unwrap();
                    served += 1;
                }
                f64::from(served)
            })
        })
        .collect();
    let mut before = BTreeMap::new();
    let mut look = || {
        let metrics = scrape(address);
        scrapes.fetch_add(1, Ordering::Relaxed);
        for line in metrics.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let grows = ["_total", "_bucket", "_count", "_sum"].map(|part| series.contains(part));
            if grows.contains(&true) {
                let value: f64 = value.parse().unwrap();
                let was = before.insert(series.to_owned(), value).unwrap_or(0.0);
                assert!(was <= value, "{series} fell from {was} to {value}");
            }
        }
        metrics
    };
    while clients.iter().any(|client| !client.is_finished()) {
        look();
    }
    let clients = clients.into_iter().map(|client| client.join().unwrap());
    let served: f64 = clients.sum();
    until("all connections closed", || {
        let metrics = look();
        (value(&metrics, "subsegment_connections_open", "") == Some(0.0)).then_some(())
    });
    assert_eq!(before["subsegment_connections_total"], served);
    assert_eq!(
        before["subsegment_carried_bytes_total{direction=\"forward\"}"],
        100.0 * served
    );
}

#[test]
fn the_service_manager_is_notified_of_the_start_and_of_the_end() {
    let dir = Dir::new("notify");
    let path = dir.file("notify");
    let name = format!("sts-notify-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    for (socket, variable) in [
        (
            UnixDatagram::bind(&path).unwrap(),
            path.to_str().unwrap().to_owned(),
        ),
        (
            UnixDatagram::bind_addr(&address).unwrap(),
            format!("@{name}"),
        ),
    ] {
        socket.set_read_timeout(Some(LONG)).unwrap();
        let mut node = Node::start_command(
            program()
                .args(["-l", "127.0.0.1:0"])
                .env("NOTIFY_SOCKET", &variable),
        );
        let mut bytes = [0; 100];
        let mut notification = || {
            let length = socket.recv(&mut bytes).unwrap();
            text(&bytes[..length])
        };
        assert_eq!(notification(), "READY=1");
        TcpStream::connect(node.address).unwrap();
        node.process.signal("TERM");
        assert_eq!(notification(), "STOPPING=1");
        assert!(node.process.wait().success());
    }
    // A manager that is not there changes nothing.
    let mut node = Node::start_command(
        program()
            .args(["-l", "127.0.0.1:0"])
            .env("NOTIFY_SOCKET", dir.file("gone")),
    );
    node.process.wait_line("cannot send READY=1");
    assert!(node.process.stop().0.success());
}

/// Returns the series of a path, as they are.
fn series_of<'a>(metrics: &'a str, path: &str) -> Vec<&'a str> {
    let label = format!("path=\"{path}\"");
    let of_path = |line: &&str| line.contains(&label);
    metrics.lines().filter(of_path).collect()
}

#[test]
fn paths_that_come_later_take_no_label_and_change_no_series_of_another() {
    let far = Node::start("Z", &[]);
    let node = ["--metrics-listen", "127.0.0.1:0", "--accept", "framed"];
    let mut relay = Node::to("B", far.address, &node);
    let address = metrics_of(&mut relay.process);
    let probe = |name: &str, count: &str| {
        let target = relay.address.to_string();
        let options = ["-c", count, "-i", "0.005"];
        let mut command = program();
        command
            .args(["--node", name, "probe", &target])
            .args(options);
        assert_eq!(command.output().unwrap().status.code(), Some(0), "{name}");
    };
    let settled = |path: &str, count: f64| {
        until("all blocks are counted", || {
            let metrics = scrape(address);
            let label = format!("path=\"{path}\"");
            let counted = value(&metrics, "subsegment_round_trip_seconds_count", &label);
            (counted == Some(count)).then_some(metrics)
        })
    };
    probe("yours", "20");
    let before = settled("yours@127.0.0.1", 20.0);
    let yours = series_of(&before, "yours@127.0.0.1");
    for stranger in 0..10 {
        probe(&format!("s{stranger}"), "40");
    }
    let after = settled("other", 120.0);
    promtool_accepts("many paths", &after);
    assert_eq!(series_of(&after, "yours@127.0.0.1"), yours);
    for number in 0..10 {
        let label = format!("path=\"s{number}@127.0.0.1\"");
        let count = value(&after, "subsegment_round_trip_seconds_count", &label);
        assert_eq!(count, (number < 7).then_some(40.0), "{label}");
    }
    // The same node again, with a new id: its figures go on.
    probe("yours", "20");
    settled("yours@127.0.0.1", 40.0);
    let (_, report) = relay.process.stop();
    let own = report
        .find("Path yours@127.0.0.1")
        .expect("its own section");
    let others = report
        .find("Path s0@127.0.0.1")
        .expect("one of another path");
    assert!(own < others, "{report}");
}
