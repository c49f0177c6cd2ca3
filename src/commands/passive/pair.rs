//! Captures of both ends of a path (`--peer`).

use super::{complain, fill, limits, open, output_failed, Printer, CHUNK};
use crate::cli::passive::{Input, PassiveConfig};
use crate::cli::ExitCode;
use crate::http::stamp::StampNames;
use crate::passive::{
    Analyzer, BoxedFlow, FaultKind, Findings, Flow, Halves, Observer, Pairing, Sample, Side,
    Stream, TcpSegment, Which,
};
use crate::report::passive::Capture;
use crate::time::WallTime;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A capture of a pair.
struct End {
    which: Which,
    name: String,
    file: File,
    stream: Stream,
    analyzer: Analyzer,
    fault: Option<String>,
    done: bool,
}

/// Gathers the flows of one capture and finds its packets in the other.
struct Gather<'a> {
    which: Which,
    halves: &'a mut Halves,
    pairing: &'a mut Pairing,
    printer: &'a mut Printer,
}

impl Observer for Gather<'_> {
    fn sample(&mut self, flow: &Flow, sample: &Sample) {
        if self.which == Which::File {
            self.printer.sample(flow, sample);
        }
    }

    fn segment(
        &mut self,
        now: WallTime,
        flow: &Flow,
        sender: Side,
        segment: &TcpSegment<'_>,
        findings: &Findings,
    ) {
        if self.which == Which::File {
            self.printer.answer(flow, findings);
        }
        let found = self.pairing.packet(self.which, flow, sender, now, segment);
        if let Some(difference) = found {
            let forth = self.printer.at.unwrap_or(Side::Client) == sender;
            let delay = if forth { difference } else { -difference };
            if let Some(line) = self.printer.format.one_way(now, flow, sender, delay) {
                self.printer.write(line);
            }
        }
    }

    fn ended(&mut self, flow: BoxedFlow) {
        if let Some(pair) = self.halves.ended(self.which, flow) {
            self.printer.pair(&pair, self.pairing);
        }
    }
}

impl End {
    fn new(
        which: Which,
        path: &Path,
        config: &PassiveConfig,
        names: &StampNames,
    ) -> Result<Self, String> {
        Ok(Self {
            which,
            name: path.display().to_string(),
            file: open(path)?,
            stream: Stream::new(CHUNK),
            analyzer: Analyzer::new(limits(config))
                .with_names(names.clone())
                .with_targets(config.verbose)
                .with_filter(config.filter.clone()),
            fault: None,
            done: false,
        })
    }

    /// Reads one chunk.
    fn chunk(&mut self, halves: &mut Halves, pairing: &mut Pairing, printer: &mut Printer) {
        let mut gather = Gather {
            which: self.which,
            halves,
            pairing,
            printer,
        };
        match fill(&mut self.file, &mut self.stream) {
            Ok(true) => loop {
                match self.stream.batch() {
                    Ok(batch) if batch.is_empty() => return,
                    Ok(batch) => self.analyzer.packets(&batch, &mut gather),
                    Err(fault) => {
                        self.fault = Some(fault.to_string());
                        break;
                    }
                }
            },
            Ok(false) => self.fault = self.stream.end().map(|fault| fault.to_string()),
            Err(error) => {
                let fault = self.stream.fault(FaultKind::Read(error.to_string()));
                self.fault = Some(fault.to_string());
            }
        }
        self.done = true;
        self.analyzer.finish(&mut gather);
    }
}

/// Reads two captures side by side, the earlier packet first, so that few packets wait for their
/// match.
pub(super) fn run(
    config: &PassiveConfig,
    peer: &Path,
    names: &StampNames,
) -> Result<ExitCode, String> {
    let path = match &config.input {
        Input::File(path) => path.clone(),
        Input::Stdin => PathBuf::from("/dev/stdin"),
        Input::Interface(_) => return Err("--peer needs a capture file".to_owned()),
    };
    let mut file = End::new(Which::File, &path, config, names)?;
    let mut peer = End::new(Which::Peer, peer, config, names)?;
    let mut printer = Printer::new(config, false);
    let mut pairing = Pairing::new(config.max_flows);
    let mut halves = Halves::new(config.max_flows);
    while !(file.done && peer.done) && printer.failed.is_none() {
        let behind = file.analyzer.tally().last <= peer.analyzer.tally().last;
        let next = if peer.done || (behind && !file.done) {
            &mut file
        } else {
            &mut peer
        };
        next.chunk(&mut halves, &mut pairing, &mut printer);
    }
    if pairing.dropped() > 0 {
        complain(&format!(
            "{} packets were given up unpaired: too many",
            pairing.dropped()
        ));
    }
    let (paired, left) = halves.finish();
    for pair in &paired {
        printer.pair(pair, &mut pairing);
    }
    if left > 0 {
        complain(&format!(
            "{left} flows of {} were not found in {}",
            peer.name, file.name
        ));
    }
    let end = config.format.end(&Capture {
        tally: file.analyzer.tally(),
        header_delays: file.analyzer.header_delays(),
        fault: file.fault.as_deref(),
        kernel_dropped: None,
    });
    printer.write(&end);
    printer.flush();
    let mut code = printer
        .failed
        .as_ref()
        .map_or(ExitCode::Done, output_failed);
    for end in [&file, &peer] {
        if let Some(fault) = &end.fault {
            complain(&format!("{}: {fault}", end.name));
            code = ExitCode::Failed;
        }
    }
    Ok(code)
}
