//! Endless runs: seconds until a rise is named, if it stays named, and until it is cleared.

use crate::situations::{ms, Chain, Situation};
use crate::util::{pass, text, Dir, Process};
use crate::Outcome;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where a probe has its metrics, within A's namespace.
const METRICS: &str = "127.0.0.1:9101";

pub(crate) const ALL: &[Situation] = &[
    ("slow-interval", 1, |_| slow_interval()),
    ("endless", 1, endless),
];

/// An endless probe with metrics.
struct Endless<'a> {
    chain: &'a Chain,
    args: Vec<String>,
    probe: Process,
}

impl<'a> Endless<'a> {
    fn start(chain: &'a Chain, args: &[&str]) -> Self {
        let fixed = ["-c", "0", "--metrics-listen", METRICS];
        let args = [&fixed, args].concat();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let probe = Self::probe(chain, &args);
        Self { chain, args, probe }
    }

    fn probe(chain: &Chain, args: &[String]) -> Process {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut probe = Process::start(chain.probe(&args).stdout(Stdio::null()));
        probe.wait_line(": metrics at ");
        probe
    }

    /// Kills the probe, as nothing can be done about, and starts it again.
    fn kill_and_restart(&mut self) {
        self.probe.signal("KILL");
        let _ = self.probe.child.wait();
        self.probe = Self::probe(self.chain, &self.args);
    }

    /// The line of the metrics that begins with `name` and has all of `labels`.
    fn metric(&self, name: &str, labels: &str) -> Option<String> {
        let url = format!("http://{METRICS}/metrics");
        let mut curl = self.chain.path.command(0, "curl");
        let output = curl.args(["-s", "--max-time", "5", &url]).output().unwrap();
        let metrics = text(&output.stdout);
        let mut lines = metrics.lines();
        let found = lines.find(|line| line.starts_with(name) && line.contains(labels));
        found.map(str::to_owned)
    }

    /// The part that the verdict names now; empty if there is none, or no verdict yet.
    fn named(&self) -> String {
        let line = self
            .metric("subsegment_verdict_info{", "")
            .unwrap_or_default();
        let name = line.split(",name=\"").nth(1);
        let name = name.and_then(|rest| rest.split('"').next());
        name.filter(|name| *name != "none")
            .unwrap_or_default()
            .to_owned()
    }

    /// When B -> C changed, by the metrics.
    fn since(&self) -> Option<f64> {
        let name = "subsegment_segment_changed_timestamp_seconds{";
        self.metric(name, "from=\"B\"")?
            .rsplit(' ')
            .next()?
            .parse()
            .ok()
    }

    /// Seconds from `began` until the verdict names `name`; infinite if it does not in time.
    fn seconds_until(&self, name: &str, began: Instant, most: Duration) -> f64 {
        while self.named() != name {
            if began.elapsed() > most {
                return f64::INFINITY;
            }
            pass(ms(300.0));
        }
        began.elapsed().as_secs_f64()
    }

    /// Seconds from `began` until the verdict no longer names `name`; infinite if it still does.
    fn seconds_while(&self, name: &str, began: Instant, most: Duration) -> f64 {
        while self.named() == name {
            if began.elapsed() > most {
                return f64::INFINITY;
            }
            pass(ms(300.0));
        }
        began.elapsed().as_secs_f64()
    }

    /// The seconds of `span` in which the verdict does not name `name`, and what it names instead.
    fn seconds_without(&self, name: &str, span: Duration) -> (usize, Vec<String>) {
        let (mut without, mut others) = (0, Vec::new());
        let began = Instant::now();
        while began.elapsed() < span {
            pass(ms(1000.0));
            let named = self.named();
            if named != name {
                without += 1;
                if !others.contains(&named) {
                    others.push(named);
                }
            }
        }
        (without, others)
    }
}

fn wall() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

/// Records of a state.
fn records(state: &Path) -> usize {
    let text = std::fs::read_to_string(state).unwrap_or_default();
    let read = subsegment_tcp_speeds::measure::RunHistories::parse(&text);
    read.map_or(0, |read| {
        let paths = read.state.paths.values();
        paths.map(|path| path.records.len()).sum()
    })
}

/// Windows of 10 s: a third of the time healthy, half of it +3 ms on B -> C with the probe killed
/// and started again in between, then healthy again.
fn endless(trial: usize) -> Outcome {
    let minutes = crate::setting("STS_MINUTES", 30) as f64;
    let span = |share: f64| Duration::from_secs_f64(minutes * 60.0 * share);
    let dir = Dir::new(&format!("endless-{trial}"));
    let state = dir.file("state");
    let name = state.display().to_string();
    let args = ["-i", "0.05", "--window", "10s", "--state", &name];
    let chain = Chain::new([6.0, 30.0, 6.0]);
    let mut endless = Endless::start(&chain, &args);
    let (healthy, others) = endless.seconds_without("", span(1.0 / 3.0));
    let began_wall = wall();
    let began = Instant::now();
    chain.path.forward(1).add_delay(ms(3.0));
    let named = endless.seconds_until("B -> C", began, span(0.2));
    pass(ms(2000.0));
    let since = endless.since().map_or(f64::NAN, |since| since - began_wall);
    let (lost, instead) = endless.seconds_without("B -> C", span(1.0 / 6.0));
    let before = records(&state);
    endless.kill_and_restart();
    let again = endless.seconds_until("B -> C", Instant::now(), span(0.2));
    let kept = records(&state);
    let left = (began + span(0.5)).saturating_duration_since(Instant::now());
    let (lost_again, instead_again) = endless.seconds_without("B -> C", left);
    let since_again = endless.since().map_or(f64::NAN, |since| since - began_wall);
    chain.path.forward(1).take_delay(ms(3.0));
    let back = Instant::now();
    let cleared = endless.seconds_while("B -> C", back, span(0.2));
    let (after, others_after) = endless.seconds_without("", span(1.0 / 6.0));
    // A record a window, but for the one that the kill took.
    let expected = (began.elapsed() + span(1.0 / 3.0)).as_secs_f64() / 10.0;
    let total = records(&state);
    let right = named <= 10.0
        && since.abs() <= 1.0
        && since_again.abs() <= 10.0
        && lost + lost_again == 0
        && again <= 35.0
        && kept >= before
        && total as f64 >= expected - 3.0
        // Three windows, and the one in which it ended.
        && cleared <= 40.0
        && healthy + after == 0;
    Outcome {
        right,
        answer: format!(
            "healthy: {healthy} s named {others:?}; +3 ms: named after {named:.1} s, since \
             {since:+.2} s off, {lost} s not named {instead:?}; killed: named {again:.1} s after \
             the start, {lost_again} s not named {instead_again:?}, since {since_again:+.2} s \
             off; back: cleared after {cleared:.1} s, {after} s named {others_after:?}; \
             {total} records of {expected:.0} windows"
        ),
    }
}

/// A block each half second in windows of 30 blocks, as 10 s and 5 minutes would be: +50 ms after
/// as many blocks as `STS_MINUTES` has half seconds, a third of 30 by default.
fn slow_interval() -> Outcome {
    let minutes = crate::setting("STS_MINUTES", 30) as f64 / 3.0;
    let dir = Dir::new("slow-interval");
    let state = dir.file("state").display().to_string();
    let chain = Chain::new([6.0, 30.0, 6.0]);
    let args = ["-i", "0.5", "--window", "15s", "--state", &state];
    let endless = Endless::start(&chain, &args);
    let (healthy, others) = endless.seconds_without("", Duration::from_secs_f64(60.0 * minutes));
    let began_wall = wall();
    let began = Instant::now();
    chain.path.forward(1).add_delay(ms(50.0));
    let named = endless.seconds_until("B -> C", began, Duration::from_secs(180));
    pass(ms(2000.0));
    let since = endless.since().map_or(f64::NAN, |since| since - began_wall);
    let (lost, instead) = endless.seconds_without("B -> C", Duration::from_secs(120));
    Outcome {
        right: named <= 10.5 && since.abs() <= 1.0 && healthy + lost == 0,
        answer: format!(
            "healthy: {healthy} s named {others:?}; +50 ms: named after {:.0} blocks, since \
             {since:+.2} s off, {lost} s not named {instead:?}",
            named / 0.5
        ),
    }
}
