//! The source.

use super::prepare::{caller, ledger, onward, printer, publish, rules, watching};
use crate::{failed, Signals};
use std::sync::Arc;
use subsegment_tcp_speeds::cli::{Common, ExitCode, SourceConfig};
use subsegment_tcp_speeds::node::metrics::Watched;
use subsegment_tcp_speeds::node::notify;
use subsegment_tcp_speeds::node::output::Output;
use subsegment_tcp_speeds::node::{source, StopFlag};
use subsegment_tcp_speeds::wire::Role;

pub(crate) fn run_source(
    common: &Common,
    config: &SourceConfig,
    signals: Signals,
    stop: &Arc<StopFlag>,
) -> ExitCode {
    let rules = match rules(common) {
        Ok(rules) => rules,
        Err(text) => return failed(&text, ExitCode::Usage),
    };
    let prepared = ledger(common, Role::Source, false)
        .and_then(|ledger| Ok((ledger, printer(common, Output::Stderr)?)));
    let (ledger, printer) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return failed(&error.to_string(), ExitCode::Failed),
    };
    let (caller, queue) =
        match onward(common, &config.forward_to).and_then(|onward| caller(common, onward)) {
            Ok((caller, queue)) => (Arc::new(caller), queue),
            Err(text) => return failed(&text, ExitCode::Failed),
        };
    let watched = vec![Watched::caller(&caller, "source", None)];
    let published = match publish(common, watched, true) {
        Ok(published) => published,
        Err(text) => return failed(&text, ExitCode::Failed),
    };
    let ledger = watching(ledger, rules, &caller.node);
    signals.stop(stop, Some(caller.node.collector.clone()));
    notify::ready();
    let code = source::run(&caller, queue, ledger, config.block, printer, stop);
    let finished = published.finish();
    match code.and_then(|code| finished.map(|()| code)) {
        Ok(code) => code,
        Err(error) => failed(&error.to_string(), ExitCode::Failed),
    }
}
