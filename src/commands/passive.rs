//! The command `passive`: files, stdin, an interface, sockets and stdout; the core does the rest.
//!
//! One thread reads and analyses. Where metrics are served, their threads read the same state under
//! a lock. The reader holds it for a chunk of packets, never while it waits for more.

#[cfg(target_os = "linux")]
mod live;
mod pair;

use crate::cli::passive::{Input, PassiveConfig};
use crate::cli::{Common, ExitCode, HostPort, PROGRAM};
use crate::commands::signals::Signals;
use crate::commands::Failure;
use crate::http::stamp::StampNames;
use crate::http::{self, Response, Routes};
use crate::node::accept::listen_addresses;
use crate::output::{print_error, replace};
use crate::passive::{
    link_type_name, Analyzer, BoxedFlow, FaultKind, Findings, Flow, Groups, Limits, Observer,
    Packet, Paired, Pairing, Sample, Side, Skip, Stream, TcpSegment,
};
use crate::report::passive::{prometheus, Capture, FlowRecord, Metrics, PassiveFormat};
use crate::report::prometheus::Exposition;
use crate::time::WallTime;
use crossbeam_channel::{after, bounded, never, select, Receiver};
use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

#[cfg(target_os = "linux")]
use live::open as open_live;

/// The bytes of one read: they stay in the CPU's cache between the kernel's copy and the parser.
const CHUNK: usize = 256 * 1024;

/// Runs the command and returns the exit code.
///
/// The first signal prints the summary and ends the process: the reader may be waiting for packets
/// that never come.
///
/// # Errors
///
/// [`Failure`].
pub fn run(common: &Common, config: &PassiveConfig, signals: Signals) -> Result<ExitCode, Failure> {
    let (sender, stop) = bounded(1);
    // The receiver is gone if the command is at its end.
    signals.on_first(move || {
        let _ = sender.send(());
    });
    let result = match &config.peer {
        Some(peer) => pair::run(config, peer, &StampNames::new(&common.http_read)),
        None => single(common, config, stop),
    };
    result.map_err(|text| Failure::new(ExitCode::Failed, text))
}

fn complain(message: &str) {
    print_error(&format!("{PROGRAM}: {message}\n"));
}

/// Returns the exit code after a failed write to stdout. A closed pipe is a normal end.
fn output_failed(error: &io::Error) -> ExitCode {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return ExitCode::Done;
    }
    complain(&format!("write to stdout: {error}"));
    ExitCode::Failed
}

/// The printer of flows and round trips.
struct Printer {
    format: PassiveFormat,
    at: Option<Side>,
    out: BufWriter<io::Stdout>,
    /// The first failed write; nothing is written after it.
    failed: Option<io::Error>,
    is_first: bool,
    /// Room for the text of one flow.
    text: String,
    verbose: bool,
    groups: Option<Groups>,
}

impl Printer {
    /// Returns a printer, which counts for the metrics if the output or `with_metrics` needs them.
    fn new(config: &PassiveConfig, with_metrics: bool) -> Self {
        let metrics = with_metrics || config.format == PassiveFormat::Prometheus;
        let mut printer = Self {
            format: config.format,
            at: config.at,
            out: BufWriter::with_capacity(64 * 1024, io::stdout()),
            failed: None,
            is_first: true,
            text: String::new(),
            verbose: config.verbose,
            groups: metrics.then(|| Groups::new(config.group_by, config.max_groups)),
        };
        printer.write(config.format.begin());
        printer
    }

    fn write(&mut self, text: impl Display) {
        if self.failed.is_none() {
            self.failed = write!(self.out, "{text}").err();
        }
    }

    fn flush(&mut self) {
        if self.failed.is_none() {
            self.failed = self.out.flush().err();
        }
    }

    fn record(&mut self, record: &FlowRecord<'_>) {
        self.text.clear();
        self.format.flow(record, self.is_first, &mut self.text);
        self.is_first = false;
        if self.failed.is_none() {
            self.failed = self.out.write_all(self.text.as_bytes()).err();
        }
    }

    fn alone(&mut self, flow: &Flow) {
        let at = self.at.or_else(|| flow.near()).unwrap_or(Side::Client);
        self.record(&FlowRecord {
            flow,
            peer: None,
            one_way: None,
            at,
            verbose: self.verbose,
        });
    }
}

impl Printer {
    /// Prints the answer of an application, if the segment was one.
    #[inline]
    fn answer(&mut self, flow: &Flow, findings: &Findings) {
        let answer = findings.answer.as_ref();
        if let Some(line) = answer.and_then(|answer| self.format.answer(flow, answer)) {
            self.write(line);
        }
    }

    /// Prints a flow of two captures.
    fn pair(&mut self, (flow, peer): &Paired, pairing: &mut Pairing) {
        let one_way = pairing.take(flow);
        let at = self.at.or(one_way.file_at).or_else(|| flow.near());
        self.record(&FlowRecord {
            flow,
            peer: peer.as_deref(),
            one_way: Some(one_way),
            at: at.unwrap_or(Side::Client),
            verbose: self.verbose,
        });
    }
}

impl Observer for Printer {
    fn sample(&mut self, flow: &Flow, sample: &Sample) {
        if let Some(line) = self.format.sample(flow, sample) {
            self.write(line);
        }
    }

    #[inline]
    fn segment(
        &mut self,
        _now: WallTime,
        flow: &Flow,
        sender: Side,
        _segment: &TcpSegment<'_>,
        findings: &Findings,
    ) {
        if let Some(groups) = &mut self.groups {
            groups.segment(flow, sender, findings);
        }
        self.answer(flow, findings);
    }

    fn ended(&mut self, flow: BoxedFlow) {
        self.alone(&flow);
    }
}

/// The state of a run with one capture.
struct Session {
    analyzer: Analyzer,
    printer: Printer,
    metrics_file: Option<PathBuf>,
    kernel: Kernel,
    left: u64,
    finished: bool,
}

/// The counters of packets that the kernel dropped, of a live capture only.
#[derive(Default)]
struct Kernel {
    #[cfg(target_os = "linux")]
    socket: Option<Arc<crate::sys::packet::PacketSocket>>,
    dropped: Option<u64>,
}

impl Kernel {
    fn dropped(&mut self) -> Option<u64> {
        #[cfg(target_os = "linux")]
        if let Some(more) = self
            .socket
            .as_ref()
            .and_then(|socket| socket.take_dropped())
        {
            self.dropped = Some(self.dropped.unwrap_or(0) + more);
        }
        self.dropped
    }
}

impl Session {
    fn new(common: &Common, config: &PassiveConfig) -> Self {
        let with_metrics = common.metrics_listen.is_some() || common.metrics_file.is_some();
        Self {
            analyzer: Analyzer::new(limits(config))
                .with_targets(config.verbose)
                .with_summaries(!config.verbose && !config.format.has_exchanges())
                .with_names(StampNames::new(&common.http_read))
                .with_filter(config.filter.clone()),
            printer: Printer::new(config, with_metrics),
            metrics_file: common.metrics_file.clone(),
            kernel: Kernel::default(),
            left: config.count.unwrap_or(u64::MAX),
            finished: false,
        }
    }

    #[inline]
    fn packets(&mut self, packets: &[Packet<'_>]) {
        let wanted =
            usize::try_from(self.left).map_or(packets.len(), |left| left.min(packets.len()));
        self.left -= wanted as u64;
        self.analyzer.packets(&packets[..wanted], &mut self.printer);
    }

    /// Returns `true` if there is a reason to read on.
    fn goes_on(&self) -> bool {
        self.left > 0 && self.printer.failed.is_none() && !self.finished
    }

    fn metrics(&mut self) -> String {
        let kernel_dropped = self.kernel.dropped();
        let Some(groups) = &self.printer.groups else {
            return String::new();
        };
        prometheus(&Metrics {
            groups,
            tally: self.analyzer.tally(),
            flows: self.analyzer.flows_held(),
            kernel_dropped,
            header_delays: self.analyzer.header_delays(),
        })
    }

    /// Prints the remaining flows and returns the exit code.
    fn finish(&mut self, name: &str, fault: Option<&str>) -> ExitCode {
        self.finished = true;
        // Flows in the table are a metric, so the metrics come before the table is emptied.
        let metrics = self.metrics();
        self.analyzer.finish(&mut self.printer);
        if self.printer.format == PassiveFormat::Prometheus {
            self.printer.write(&metrics);
        }
        let end = self.printer.format.end(&Capture {
            tally: self.analyzer.tally(),
            fault,
            kernel_dropped: self.kernel.dropped(),
            header_delays: self.analyzer.header_delays(),
        });
        self.printer.write(&end);
        self.printer.flush();
        let mut code = ExitCode::Done;
        if let Some(path) = &self.metrics_file {
            if let Err(error) = replace(path, &metrics) {
                complain(&error.to_string());
                code = ExitCode::Failed;
            }
        }
        if let Some(error) = &self.printer.failed {
            if output_failed(error) != ExitCode::Done {
                code = ExitCode::Failed;
            }
        }
        for (link, packets) in &self.analyzer.tally().unread {
            let known = link_type_name(*link).map_or_else(String::new, |name| format!(" ({name})"));
            complain(&format!(
                "{name}: {packets} packets of link type {link}{known} are not read"
            ));
        }
        let untimed = self.analyzer.tally().skipped[Skip::NoTime as usize];
        if untimed > 0 {
            complain(&format!(
                "{name}: {untimed} packets have no usable time and are not read"
            ));
        }
        if self.analyzer.tally().nothing_was_read() {
            code = ExitCode::Failed;
        }
        if let Some(fault) = fault {
            complain(&format!("{name}: {fault}"));
            code = ExitCode::Failed;
        }
        code
    }
}

fn limits(config: &PassiveConfig) -> Limits {
    let interval_ns = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    Limits {
        max_flows: config.max_flows,
        interval_ns: config.interval.map(interval_ns),
    }
}

/// The panic of a thread with the lock has been reported; its numbers are whole, as each is written
/// at once.
fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(path: &Path) -> Result<File, String> {
    File::open(path).map_err(|error| format!("open {}: {error}", path.display()))
}

fn single(common: &Common, config: &PassiveConfig, stop: Receiver<()>) -> Result<ExitCode, String> {
    let listeners = match &common.metrics_listen {
        Some(address) => Some(listen(address, common.timeout)?),
        None => None,
    };
    let source = match &config.input {
        Input::File(path) => Source::Bytes(Box::new(open(path)?), path.display().to_string()),
        Input::Stdin => Source::Bytes(Box::new(io::stdin()), "stdin".to_owned()),
        Input::Interface(interface) => open_live(interface, &config.filter)?,
    };
    let session = Arc::new(Mutex::new(Session::new(common, config)));
    if let Some(listeners) = listeners {
        let session = Arc::clone(&session);
        let routes = Routes::default()
            .with("/metrics", move |_| {
                let text = lock(&session).metrics();
                Response::ok(Exposition::Text.content_type(), text)
            })
            .with("/healthz", |_| Response::text(200, "ok"));
        http::serve(listeners, routes)
            .map_err(|error| format!("start the thread metrics: {error}"))?;
    }
    let every = common
        .metrics_file
        .as_ref()
        .map(|_| config.metrics_interval);
    let name = source.name().to_owned();
    spawn("passive", &session, move |session| {
        watch(session, &stop, every, &name);
    })?;
    let fault = match source {
        Source::Bytes(mut reader, name) => {
            let fault = read(&mut *reader, &session);
            return Ok(lock(&session).finish(&name, fault.as_deref()));
        }
        #[cfg(target_os = "linux")]
        Source::Live(socket, name) => live::receive(socket, &name, &config.filter, &session),
    };
    let code = lock(&session).finish("interface", fault.as_deref());
    Ok(code)
}

fn spawn(
    name: &str,
    session: &Arc<Mutex<Session>>,
    task: impl FnOnce(&Mutex<Session>) + Send + 'static,
) -> Result<(), String> {
    let session = Arc::clone(session);
    let thread = thread::Builder::new().name(name.to_owned());
    // Not joined: it ends with the process, for it waits on the network or the clock.
    let spawned = thread.spawn(move || task(&session));
    spawned
        .map(drop)
        .map_err(|error| format!("start the thread {name}: {error}"))
}

enum Source {
    Bytes(Box<dyn Read>, String),
    #[cfg(target_os = "linux")]
    Live(Arc<crate::sys::packet::PacketSocket>, String),
}

impl Source {
    fn name(&self) -> &str {
        match self {
            Self::Bytes(_, name) => name,
            #[cfg(target_os = "linux")]
            Self::Live(_, name) => name,
        }
    }
}

/// Reads once into the stream; returns `false` at the end of the input.
fn fill(reader: &mut dyn Read, stream: &mut Stream) -> io::Result<bool> {
    loop {
        match reader.read(stream.space()) {
            Ok(bytes) => {
                stream.filled(bytes);
                return Ok(bytes > 0);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads a capture to its end, and returns the fault that ended it before.
fn read(reader: &mut dyn Read, session: &Mutex<Session>) -> Option<String> {
    let mut stream = Stream::new(CHUNK);
    loop {
        match fill(reader, &mut stream) {
            Ok(true) => {}
            Ok(false) => return stream.end().map(|fault| fault.to_string()),
            Err(error) => {
                return Some(stream.fault(FaultKind::Read(error.to_string())).to_string())
            }
        }
        let mut session = lock(session);
        loop {
            if !session.goes_on() {
                return None;
            }
            match stream.batch() {
                Ok(batch) if batch.is_empty() => break,
                Ok(batch) => session.packets(&batch),
                Err(fault) => return Some(fault.to_string()),
            }
        }
        // What was found shall be seen before the reader waits again.
        session.printer.flush();
    }
}

#[cfg(not(target_os = "linux"))]
fn open_live(_interface: &str, _filter: &crate::passive::Filter) -> Result<Source, String> {
    Err("--interface works on Linux only; use tcpdump -U -w - | ... passive -".to_owned())
}

/// Writes the metrics file at its interval, and ends the process after a signal.
fn watch(session: &Mutex<Session>, stop: &Receiver<()>, every: Option<Duration>, name: &str) {
    let mut stop = stop.clone();
    loop {
        let tick = every.map_or_else(never, after);
        select! {
            recv(stop) -> message => match message {
                Ok(()) => {
                    // The lock is kept: the reader shall not print or return meanwhile.
                    let mut session = lock(session);
                    if !session.finished {
                        let code = session.finish(name, None);
                        std::process::exit(code.number().into());
                    }
                }
                Err(_) => stop = never(),
            },
            recv(tick) -> _ => {
                let (path, text) = {
                    let mut session = lock(session);
                    (session.metrics_file.clone(), session.metrics())
                };
                if let Some(path) = path {
                    if let Err(error) = replace(&path, &text) {
                        log::warn!("metrics: {error}");
                    }
                }
            }
        }
    }
}

fn listen(address: &HostPort, timeout: Duration) -> Result<Vec<TcpListener>, String> {
    let addresses = listen_addresses(address.host.as_deref(), address.port, timeout);
    let addresses = addresses.map_err(|error| format!("resolve {address}: {error}"))?;
    http::bind(PROGRAM, &addresses)
}
