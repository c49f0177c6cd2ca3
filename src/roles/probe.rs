//! The probe, many probes, and the exporter.

use super::prepare::{caller, ledger, onward, printer, publish, rules, watching};
use crate::{failed, Signals};
use std::sync::Arc;
use std::time::Duration;
use subsegment_tcp_speeds::cli::targets::parse_targets;
use subsegment_tcp_speeds::cli::{Common, ExitCode, Format, ProbeConfig, TargetsConfig};
use subsegment_tcp_speeds::node::dial::Onward;
use subsegment_tcp_speeds::node::fleet::{self, Member};
use subsegment_tcp_speeds::node::metrics::Watched;
use subsegment_tcp_speeds::node::notify;
use subsegment_tcp_speeds::node::output::{Output, OutputError};
use subsegment_tcp_speeds::node::probe::{self, Plan};
use subsegment_tcp_speeds::node::StopFlag;
use subsegment_tcp_speeds::report::{nagios, paths, State};
use subsegment_tcp_speeds::wire::Role;
use subsegment_tcp_speeds::DESK;

pub(crate) fn run_probe(
    common: &Common,
    config: &ProbeConfig,
    signals: Signals,
    stop: &Arc<StopFlag>,
) -> ExitCode {
    let count = (config.count > 0).then_some(config.count);
    let failed = |text: &str, state: State| probe_failed(common, text, state);
    let rules = match rules(common) {
        Ok(rules) => rules,
        Err(text) => return failed(&text, State::Unknown),
    };
    let prepared = ledger(common, Role::Source, count.is_none())
        .and_then(|ledger| Ok((ledger, printer(common, Output::Stdout)?)));
    let (ledger, mut printer) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return failed(&error.to_string(), State::Unknown),
    };
    let onward = match onward(common, &config.target) {
        Ok(onward) => onward,
        Err(text) => return failed(&text, State::Critical),
    };
    let (caller, queue) = match caller(common, onward) {
        Ok((caller, queue)) => (Arc::new(caller.probing()), queue),
        Err(text) => return failed(&text, State::Unknown),
    };
    let mut ledger = watching(ledger, rules, &caller.node);
    let watched = vec![Watched::caller(&caller, "probe", None)];
    let published = match publish(common, watched, count.is_none()) {
        Ok(published) => published,
        Err(text) => return failed(&text, State::Unknown),
    };
    signals.stop(stop, Some(caller.node.collector.clone()));
    let lasts = count.map_or(Duration::MAX, |count| {
        config
            .interval
            .saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
    });
    if lasts > Duration::from_secs(1) {
        printer = printer.with_live_line(count);
    }
    if count.is_none() {
        printer = printer.with_screen(caller.node.collector.clone(), stop);
    }
    let plan = Plan {
        count,
        interval: config.interval,
        size: config.size,
        on_timeout: config.on_timeout,
    };
    notify::ready();
    let (state, written) = probe::run(&caller, queue, &mut ledger, plan, &mut printer, stop);
    drop(printer); // Gives a terminal back before anything is said on it.
    match ended(state, OutputError::all([written, published.finish()])) {
        Ok(state) => probe_code(state),
        Err((state, text)) => failed(&text, state),
    }
}

/// How the run ended, with what is to be said of results that could not be written: they are unknown to whoever wants them,
/// which hides nothing that is worse. A reader that has gone away has enough.
fn ended(state: State, written: Result<(), OutputError>) -> Result<State, (State, String)> {
    match written {
        Err(error) if !error.is_closed_pipe() => {
            let worse = [state, State::Unknown].into_iter();
            let worse = worse.max_by_key(|state| state.severity());
            Err((worse.unwrap_or(state), error.to_string()))
        }
        _ => Ok(state),
    }
}

fn probe_code(state: State) -> ExitCode {
    match state {
        State::Ok => ExitCode::ProbeOk,
        State::Warning => ExitCode::ProbeWarning,
        State::Critical => ExitCode::ProbeCritical,
        State::Unknown => ExitCode::ProbeUnknown,
    }
}

/// What reads a plugin's stdout finds the reason there as well.
fn probe_failed(common: &Common, text: &str, state: State) -> ExitCode {
    if DESK && common.format == Some(Format::Nagios) {
        // Where even that fails, stderr and the exit code remain.
        let _ = Output::Stdout.write(&nagios::failure(state, text));
    }
    failed(text, probe_code(state))
}

/// Many paths, each with a probe of its own.
pub(crate) fn run_targets(common: &Common, config: &TargetsConfig, signals: Signals) -> ExitCode {
    let unknown = |text: String| failed(&text, ExitCode::ProbeUnknown);
    let file = config.file.display();
    let targets = match std::fs::read_to_string(&config.file) {
        Ok(text) => parse_targets(&text).map_err(|error| format!("--targets {file} {error}")),
        Err(error) => Err(format!("read {file}: {error}")),
    };
    let targets = match targets {
        Ok(targets) => targets,
        Err(text) => return unknown(text),
    };
    let rules = match rules(common) {
        Ok(rules) => rules,
        Err(text) => return unknown(text),
    };
    let count = (config.count > 0).then_some(config.count);
    let mut output = match Output::open(common.report.as_deref(), Output::Stdout, false) {
        Ok(output) => output,
        Err(error) => return unknown(error.to_string()),
    };
    let (mut members, mut watched) = (Vec::new(), Vec::new());
    for target in targets {
        // A name that cannot be resolved is that path's trouble alone, as long as it cannot.
        let host = target.address.host.as_deref().unwrap_or_default();
        let onward = Onward::unresolved(host, target.address.port);
        let prepared = ledger(common, Role::Source, count.is_none())
            .map_err(|error| error.to_string())
            .and_then(|ledger| Ok((ledger, caller(common, onward)?)));
        let (ledger, (caller, queue)) = match prepared {
            Ok(prepared) => prepared,
            Err(text) => return unknown(text),
        };
        let caller = Arc::new(caller.probing());
        let ledger = watching(ledger, rules.clone(), &caller.node);
        let path = Some(target.name.clone());
        watched.push(Watched::caller(&caller, "probe", path));
        members.push(Member {
            name: target.name,
            caller,
            queue,
            ledger,
            stop: Arc::default(),
        });
    }
    let published = match publish(common, watched, count.is_none()) {
        Ok(published) => published,
        Err(text) => return unknown(text),
    };
    let to_stop: Vec<_> = members
        .iter()
        .map(|member| {
            (
                Arc::clone(&member.stop),
                member.caller.node.collector.clone(),
            )
        })
        .collect();
    signals.ask(move || {
        for (stop, collector) in to_stop {
            stop.set();
            collector.wake();
        }
    });
    notify::ready();
    let plan = Plan {
        count,
        interval: config.interval,
        size: config.size,
        on_timeout: config.on_timeout,
    };
    let probed = match fleet::run(members, plan) {
        Ok(probed) => probed,
        Err(error) => return unknown(format!("start a thread: {error}")),
    };
    // Of several states the worst is that of all.
    let states = probed.iter().map(|probed| probed.state);
    let state = states.max_by_key(|state| state.severity());
    let lines = probed
        .into_iter()
        .map(|probed| (probed.name, probed.report));
    let lines: Vec<_> = lines.collect();
    let summary = paths::render(&lines);
    let written = OutputError::all([output.write(&summary), published.finish()]);
    match ended(state.unwrap_or(State::Unknown), written) {
        Ok(state) => probe_code(state),
        Err((state, text)) => failed(&text, probe_code(state)),
    }
}

/// A process that only probes what it is asked for over HTTP.
pub(crate) fn run_exporter(common: &Common, signals: Signals, stop: &Arc<StopFlag>) -> ExitCode {
    if let Err(text) = publish(common, Vec::new(), true) {
        return failed(&text, ExitCode::Failed);
    }
    signals.stop(stop, None);
    notify::ready();
    stop.wait_set();
    ExitCode::Done
}
