//! The files of `scripts/deploy`, checked by the programs that will read them.

mod util;

use std::collections::{BTreeMap, BTreeSet};

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use subsegment_tcp_speeds::cli::flags::{self, Flag, Mode, Set};
use subsegment_tcp_speeds::cli::{self, Action};
use subsegment_tcp_speeds::report::prometheus::FAMILIES;
use util::json::{parse, Value};
use util::{need, program, text, Dir, Node, Process};

const UNITS: [&str; 3] = [
    "subsegment-tcp-speeds.service",
    "subsegment-tcp-speeds-probe.service",
    "subsegment-tcp-speeds-probe.timer",
];

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts/deploy")
        .join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(deploy(name)).unwrap()
}

/// Runs a checker, which has to be content.
#[track_caller]
fn check(program: &str, args: &[&str]) -> String {
    let output = tool(program, args);
    let output_text = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {output_text}");
    output_text
}

#[track_caller]
fn tool(program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(need(program));
    command.args(args).stdin(Stdio::null());
    command
        .output()
        .unwrap_or_else(|error| panic!("run {program}: {error}"))
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units_and_little_exposure() {
    let dir = Dir::new("units");
    let binary = env!("CARGO_BIN_EXE_subsegment-tcp-speeds");
    for name in UNITS {
        let unit = read(name).replace("/usr/local/bin/subsegment-tcp-speeds", binary);
        std::fs::write(dir.file(name), unit).unwrap();
    }
    let instance = "subsegment-tcp-speeds@core.service";
    std::fs::copy(
        dir.file(UNITS[0]),
        dir.file("subsegment-tcp-speeds@.service"),
    )
    .unwrap();
    for name in UNITS.into_iter().chain([instance]) {
        let file = dir.file(name);
        let output_text = check("systemd-analyze", &["verify", file.to_str().unwrap()]);
        assert_eq!(output_text, "", "{name}");
    }
    for name in &UNITS[..2] {
        let file = dir.file(name);
        let file = file.to_str().unwrap();
        // Tenths: 2.0 is "OK"; a unit without hardening has 9.6.
        check(
            "systemd-analyze",
            &["security", "--offline=yes", "--threshold=20", file],
        );
    }
}

#[test]
fn the_service_managers_wait_longer_than_a_node_drains() {
    let unit = read("subsegment-tcp-speeds.service");
    let settings = settings(&unit);
    let value = |key: &str| {
        let found = settings.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str())
    };
    let command = value("ExecStart").expect("it starts the node");
    let (_, drain) = command.split_once("--drain ").expect("it gives the drain");
    let drain: u32 = drain.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(value("TimeoutStopSec"), Some(&*(drain + 5).to_string()));
    assert!(value("RestartSec").is_some());
    let script = read("openwrt.init");
    for part in ["config_get drain \"$section\" drain 10", "${drain:-0} + 5"] {
        assert!(script.contains(part), "no {part}");
    }
}

/// The settings of a unit, in order.
fn settings(unit: &str) -> Vec<(String, String)> {
    let lines = unit.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Returns the system calls that `SystemCallFilter=` of a unit allows (systemd.exec(5)): the first
/// line allows, `~` takes away.
fn allowed_calls(unit: &str) -> BTreeSet<String> {
    let sets = check("systemd-analyze", &["syscall-filter"]);
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut group = "";
    for line in sets.lines() {
        if line.starts_with('@') {
            group = line.trim();
        } else if let Some(member) = line
            .strip_prefix("    ")
            .filter(|line| !line.starts_with('#'))
        {
            groups.entry(group).or_default().push(member.trim());
        }
    }
    fn expand<'a>(groups: &BTreeMap<&'a str, Vec<&'a str>>, name: &'a str) -> Vec<&'a str> {
        match groups.get(name) {
            Some(members) => members
                .iter()
                .flat_map(|member| expand(groups, member))
                .collect(),
            None => vec![name],
        }
    }
    let mut allowed = BTreeSet::new();
    for (_, value) in settings(unit)
        .iter()
        .filter(|(key, _)| key == "SystemCallFilter")
    {
        let (takes_away, names) = match value.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, value.as_str()),
        };
        for name in names
            .split_whitespace()
            .flat_map(|name| expand(&groups, name))
        {
            if takes_away {
                allowed.remove(name);
            } else {
                allowed.insert(name.to_owned());
            }
        }
    }
    assert!(
        allowed.len() > 100 && !allowed.contains("mount"),
        "{allowed:?}"
    );
    allowed
}

/// The calls in a log of `strace -f`, after the `execve` that starts the program.
fn calls(log: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(log).unwrap();
    let names = text.lines().filter_map(|line| {
        let call = line.split_once(' ')?.1.trim_start();
        let name = call.strip_prefix("<... ").unwrap_or(call);
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
        (end > 0).then(|| name[..end].to_owned())
    });
    names.collect()
}

/// Runs the program under strace with a log.
fn traced(log: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(need("strace"));
    command
        .args(["-f", "-qq", "-e", "signal=none", "-o"])
        .arg(log);
    command.arg(program().get_program()).args(args);
    command
}

/// Ends the child of strace, which itself would only detach.
fn stop_traced(process: &mut Process) {
    let children = format!("/proc/{0}/task/{0}/children", process.child.id());
    let child = std::fs::read_to_string(children).unwrap();
    assert!(Command::new("kill")
        .arg(child.trim())
        .status()
        .unwrap()
        .success());
    assert!(process.wait().success());
}

#[test]
fn the_system_calls_of_nodes_and_probes_are_those_that_the_units_allow() {
    let dir = Dir::new("calls");
    let metrics = ["--metrics-listen", "localhost:0"];
    let (echo_log, relay_log, probe_log) = (dir.file("echo"), dir.file("relay"), dir.file("probe"));
    let mut echo = Node::start_command(&mut traced(
        &echo_log,
        &[&metrics[..], &["--node", "Z", "-l", "127.0.0.1:0"]].concat(),
    ));
    let next_hop = format!("localhost:{}", echo.address.port());
    let report = dir.file("relay.json");
    let mut relay = Node::start_command(&mut traced(
        &relay_log,
        &[
            &metrics[..],
            &[
                "--node", "C", "-l", ":0", "-f", &next_hop, "--format", "json",
            ],
            &[
                "--report",
                report.to_str().unwrap(),
                "--probe-allow",
                &next_hop,
            ],
        ]
        .concat(),
    ));
    let through = format!("localhost:{}", relay.address.port());
    let (state, file) = (dir.file("state"), dir.file("C.prom"));
    let options = ["probe", &through, "-c", "20", "-i", "0.005", "--state"];
    let files = [
        state.to_str().unwrap(),
        "--metrics-file",
        file.to_str().unwrap(),
    ];
    let probe = traced(&probe_log, &[&options[..], &files].concat())
        .output()
        .unwrap();
    assert!(probe.status.success(), "{}", text(&probe.stderr));
    let line = relay.process.wait_line(": metrics at ");
    let url = line.split(" at ").nth(1).unwrap().replace("/metrics", "");
    for target in ["/metrics", &format!("/probe?target={next_hop}")] {
        let answer = check("curl", &["-sSf", &format!("{url}{target}")]);
        assert!(
            answer.contains("subsegment_segment_round_trip_seconds_count"),
            "{answer}"
        );
    }
    // A reset, so that its handling is in the log too.
    drop(std::net::TcpStream::connect(relay.address).unwrap());
    stop_traced(&mut relay.process);
    stop_traced(&mut echo.process);

    let node = allowed_calls(&read(UNITS[0]));
    for (log, allowed, least) in [
        (&echo_log, &node, 20),
        (&relay_log, &node, 25),
        (&probe_log, &allowed_calls(&read(UNITS[1])), 25),
    ] {
        let calls = calls(log);
        assert!(
            calls.len() >= least && calls.contains("recvmsg"),
            "{calls:?}"
        );
        let refused: Vec<_> = calls.difference(allowed).collect();
        assert!(refused.is_empty(), "{}: {refused:?}", log.display());
        println!(
            "{}: {} system calls, all allowed",
            log.display(),
            calls.len()
        );
    }
}

#[test]
fn the_commands_in_units_and_crontab_make_sense_to_the_program() {
    let words =
        |command: &str| -> Vec<String> { command.split_whitespace().map(str::to_owned).collect() };
    let parses = |words: &[String]| {
        assert_eq!(words[0], "/usr/local/bin/subsegment-tcp-speeds");
        match cli::parse(words[1..].iter().map(Into::into)) {
            Ok(Action::Run(_)) => {}
            other => panic!("{words:?}: {other:?}"),
        }
    };
    for name in &UNITS[..2] {
        let unit = read(name);
        let command = settings(&unit)
            .into_iter()
            .find(|(key, _)| key == "ExecStart")
            .unwrap()
            .1;
        // As its own comment gives them.
        let options = unit
            .lines()
            .find_map(|line| line.strip_prefix("#     OPTIONS=\""))
            .unwrap();
        parses(&words(
            &command.replace("$OPTIONS", options.trim_end_matches('"')),
        ));
    }
    let crontab = read("crontab");
    let mut jobs = crontab.lines().filter(|line| !line.starts_with('#'));
    let job = words(jobs.next().unwrap());
    assert_eq!(
        (job[5].as_str(), jobs.next()),
        ("prometheus", None),
        "user, and one line"
    );
    parses(&job[6..]);
}

/// With `BLESS` in the environment the script is written anew.
#[test]
fn the_procd_script_knows_every_option_of_a_node() {
    let is_of_nodes = |flag: &&Flag| {
        let mut modes = flag.modes.iter();
        let listens = modes.any(|mode| !mode.has_word() && *mode != Mode::Source);
        listens && !matches!(flag.set, Set::Help | Set::Version)
    };
    let (values, switches): (Vec<&Flag>, Vec<_>) = flags::all()
        .iter()
        .filter(is_of_nodes)
        .partition(|flag| flag.value.is_some());
    let names = |flags: Vec<&Flag>| {
        let names = flags.iter().map(|flag| flag.long.replace('-', "_"));
        names.collect::<Vec<_>>().join(" ")
    };
    let script = read("openwrt.init");
    let generated = [("VALUES='", names(values)), ("SWITCHES='", names(switches))];
    let lines = script.lines().map(|line| {
        let row = generated.iter().find(|(start, _)| line.starts_with(start));
        row.map_or(line.to_owned(), |(start, names)| format!("{start}{names}'"))
    });
    let expected = lines.collect::<Vec<_>>().join("\n") + "\n";
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(deploy("openwrt.init"), &expected).unwrap();
    }
    assert!(script == expected, "BLESS=1 cargo test --test deploy procd");
    assert!(script.contains(" forward_to ") && script.contains(" accept_proxy "));
    let example = read("openwrt.config");
    for line in example.lines().filter(|line| line.starts_with('\t')) {
        let name = line.split_whitespace().nth(1).unwrap();
        assert!(
            name == "enabled"
                || script.contains(&format!(" {name} "))
                || script.contains(&format!("'{name} ")),
            "{name}"
        );
    }
}

#[test]
fn the_procd_script_starts_a_node_from_its_configuration() {
    let script = deploy("openwrt.init");
    let script = script.to_str().unwrap();
    check("dash", &["-n", script]);
    check("busybox", &["ash", "-n", script]);
    // OpenWrt's functions, as far as the script uses them; the command is printed.
    let stubs = r#"
        config_load() {
            [ "$1" = subsegment-tcp-speeds ]
            for option in $OPTIONS; do option_cb "$option" value; done
        }
        config_get_bool() { eval "$1=\${CFG_$3:-$4}"; }
        logger() { echo "$@" >&2; }
        config_foreach() { "$1" cfg01; }
        config_get() { eval "$1=\${CFG_$3:-${4:-}}"; }
        config_list_foreach() {
            local c=1
            while [ $c -le 2 ]; do eval "$3 \"\$CFG_$2_ITEM$c\" $4"; c=$((c + 1)); done
        }
        procd_open_instance() { command=; }
        procd_set_param() {
            case "$1" in
                command) shift; command="$*" ;;
                term_timeout) [ "$2" = 17 ] ;;
            esac
        }
        procd_append_param() { [ "$1" = command ]; shift; command="$command $*"; }
        procd_close_instance() { echo "$command"; }
        CFG_listen=:9000 CFG_forward_to=C:9000 CFG_node=R CFG_metrics_listen=192.168.1.1:9101
        CFG_key_file=k CFG_remove_perf_headers=1 CFG_drain=12.5
        CFG_allow_LENGTH=2 CFG_allow_ITEM1=10.0.0.0/8 CFG_allow_ITEM2=::1
        OPTIONS="listen forward_to node metrics_listen key_file drain remove_perf_headers allow"
        OPTIONS="$OPTIONS enabled"
    "#;
    for shell in ["dash", "busybox"] {
        let ash: &[&str] = if shell == "busybox" { &["ash"] } else { &[] };
        let line = format!("set -eu\n{stubs}\n. {script}\nstart_service\n");
        let output_text = check(shell, &[ash, &["-c", &line]].concat());
        let words: Vec<_> = output_text.split_whitespace().collect();
        assert_eq!(words[0], "/usr/bin/subsegment-tcp-speeds");
        let given = cli::parse(words[1..].iter().map(Into::into));
        let meant = "--node R -l :9000 -f C:9000 --metrics-listen 192.168.1.1:9101 \
                     --key-file k --drain 12.5 --remove-perf-headers --allow 10.0.0.0/8 \
                     --allow ::1";
        let meant = cli::parse(meant.split(' ').map(Into::into));
        assert_eq!(given, meant, "{output_text}");
        assert!(matches!(given, Ok(Action::Run(_))));
        let line = format!("set -eu\n{stubs}\nCFG_enabled=0\n. {script}\nstart_service\n");
        assert_eq!(check(shell, &[ash, &["-c", &line]].concat()), "");
        // An option that it does not know is an error that names it, and no other node.
        let line = format!(
            "set -u\n{stubs}\nOPTIONS='listen hop_limits node'\n. {script}\nexec 2>&1\n\
             start_service || echo refused\n"
        );
        let output_text = check(shell, &[ash, &["-c", &line]].concat());
        assert!(
            output_text.contains("unknown options: hop_limits;"),
            "{output_text}"
        );
        assert!(output_text.ends_with("refused\n"), "{output_text}");
    }
}

/// Names of our metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let legal = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
    let words = text.split(|c| !legal(c));
    words
        .filter(|word| word.starts_with("subsegment_"))
        .collect()
}

#[track_caller]
fn assert_known(expressions: &str, least: usize) {
    let names = metrics_in(expressions);
    assert!(names.len() >= least, "{names:?}");
    for name in names {
        let known = FAMILIES.iter().any(|family| {
            let rest = name.strip_prefix(family.name);
            rest.is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
        });
        assert!(known, "there is no metric {name}");
    }
}

#[test]
fn promtool_is_content_with_the_alerting_rules_and_they_fire_when_they_should() {
    let rules = deploy("alerts.yml");
    let output_text = check("promtool", &["check", "rules", rules.to_str().unwrap()]);
    assert!(output_text.contains("9 rules found"), "{output_text}");
    check(
        "promtool",
        &["test", "rules", deploy("alerts.test.yml").to_str().unwrap()],
    );
    assert_known(&read("alerts.yml"), 9);
    let (rules, tests) = (read("alerts.yml"), read("alerts.test.yml"));
    for alert in rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        assert!(
            tests.contains(&format!("alertname: {alert}\n")),
            "{alert} has no test"
        );
    }
}

/// Every value of the key `expr`, wherever it stands.
fn expressions(value: &Value, found: &mut Vec<String>) {
    if let Some(expression) = value.at("expr").and_then(Value::as_str) {
        found.push(expression.to_owned());
    }
    for key in value.keys().unwrap_or_default() {
        expressions(value.at(key).expect("it is listed"), found);
    }
    for item in value.as_array().unwrap_or_default() {
        expressions(item, found);
    }
}

#[test]
fn the_dashboard_is_json_whose_queries_prometheus_understands() {
    let dashboard = parse(read("grafana.json").as_bytes()).unwrap();
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    assert!(found.len() > 15, "{found:?}");
    assert_known(&found.join("\n"), 15);
    assert_known("subsegment_build_info", 1); // What the list of instances is made of.
    let dir = Dir::new("dashboard");
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (number, expression) in found.iter().enumerate() {
        let expression = expression
            .replace("$__rate_interval", "5m")
            .replace("$instance", ".*")
            .replace("$path", ".*");
        assert!(!expression.contains('$'), "{expression}");
        rules += &format!("  - record: r{number}\n    expr: '{expression}'\n");
    }
    let file = dir.file("rules.yml");
    std::fs::write(&file, rules).unwrap();
    check("promtool", &["check", "rules", file.to_str().unwrap()]);
    let panels = dashboard.at("panels").and_then(Value::as_array).unwrap();
    let ids: BTreeSet<_> = panels
        .iter()
        .map(|panel| format!("{:?}", panel.at("id")))
        .collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
}
