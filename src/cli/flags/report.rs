//! Options of metrics, report and log.

use super::super::value;
use super::{
    Flag, Options, Section, Set, COMPARING, EVERY, FOLLOWING_HTTP, LISTENING, LOGGING, MEASURING,
    OPENING, READING_HTTP, REPORTING, ROW, TIMING_HTTP, WITH_BASELINE, WITH_FORMAT, WITH_HTTP,
    WITH_METRICS, WITH_PROBE_REQUESTS, WITH_STATE,
};
use crate::http::head;
use crate::measure::{sla, Sla};
use crate::report::format;

/// Most tags of a node, so that their annotations leave room for those of other nodes.
const TAGS_MAX: usize = 16;

/// Most names that `--http-read` and `--http-clock` take.
const HEADERS_MAX: usize = 16;

/// The longest name of a header.
const HEADER_MAX: usize = 64;

/// Fields that say where a message ends, or who may read it.
const UNWRITABLE: [&str; 12] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Checks the name of a field that a node is to write.
fn field_to_write(text: &str) -> Result<String, String> {
    let is_token = !text.is_empty() && text.bytes().all(head::is_token);
    if !is_token || text.len() > HEADER_MAX {
        return Err(format!(
            "is no header name: expected up to {HEADER_MAX} letters, digits, - and _"
        ));
    }
    if UNWRITABLE
        .iter()
        .any(|name| text.eq_ignore_ascii_case(name))
    {
        return Err("has a meaning of its own in HTTP: choose another name, as X-Path".into());
    }
    Ok(text.to_owned())
}

pub(super) const FLAGS: &[Flag] = &[
    Flag {
        long: "metrics-listen",
        value: Some("ADDR"),
        section: Section::Metrics,
        brief: "serve /metrics and /healthz here",
        help: "For Prometheus, in its text format or OpenMetrics; without a login, so choose an \
            address that only your monitoring reaches. Port 0 lets the kernel choose; a line on \
            stderr names it. Without requests it costs nothing.",
        modes: WITH_HTTP,
        set: Set::Text(|s, text| {
            s.common.metrics_listen = Some(text.parse()?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "metrics-file",
        value: Some("FILE"),
        section: Section::Metrics,
        brief: "write the metrics to FILE",
        help: "For node_exporter's textfile collector, from cron too: at the end, and every 15 s \
            in a run without end (passive: --metrics-interval). A reader never sees half of it.",
        modes: WITH_METRICS,
        set: Set::Path(|s, path| s.common.metrics_file = Some(path)),
        ..ROW
    },
    Flag {
        long: "probe-allow",
        value: Some("TARGETS"),
        section: Section::Metrics,
        brief: "allow /probe of these; repeatable",
        help: "host:port, host:* or a network, 10.0.0.0/8:9000 or [2001:db8::/32]:*. A request \
            /probe?target=host:port&count=N&interval=SECONDS&size=BYTES to --metrics-listen then \
            probes that target and answers with its metrics. Without this option no target is \
            allowed.",
        modes: WITH_PROBE_REQUESTS,
        set: Set::Text(|s, text| {
            s.common.probe_allow.push(text.parse()?);
            Ok(())
        }),
        full_only: true,
        ..ROW
    },
    Flag {
        long: "node",
        value: Some("NAME"),
        section: Section::Report,
        brief: "this node's name (default: host name)",
        modes: MEASURING,
        set: Set::Text(|s, text| {
            s.common.node = Some(value::label(text)?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "add-static-tags",
        value: Some("TAG"),
        section: Section::Report,
        brief: "text shown with this node; repeatable",
        help: "Travels along the path and is shown beside the node in every report: a site, a \
            rack, a release. At most 16.",
        modes: MEASURING,
        set: Set::Text(|s, text| {
            if s.common.tags.len() >= TAGS_MAX {
                return Err(format!("is one too many: at most {TAGS_MAX} tags"));
            }
            s.common.tags.push(value::label(text)?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "report",
        value: Some("FILE"),
        section: Section::Report,
        brief: "write the report to FILE",
        help: "By default it goes to stdout, and to stderr at the source, whose stdout is the \
            answer. Nodes that listen write it when they end.",
        modes: REPORTING,
        set: Set::Path(|s, path| s.common.report = Some(path)),
        ..ROW
    },
    Flag {
        long: "report-html",
        value: Some("FILE"),
        section: Section::Report,
        brief: "write pictures of the run to FILE",
        help: "One page of HTML that needs nothing else: the path drawn to scale, delays over \
            time, their distribution, every figure. It is written at the end, and every 10 \
            seconds while blocks come in; FILE is replaced as a whole.",
        modes: MEASURING,
        set: Set::Path(|s, path| s.common.report_html = Some(path)),
        full_only: true,
        ..ROW
    },
    Flag {
        long: "format",
        value: Some("F"),
        section: Section::Report,
        brief: "text (default), json, jsonl, csv, and more",
        help: format::HELP,
        modes: WITH_FORMAT,
        set: Set::Text(|s, text| {
            s.common.format = Some(text.parse()?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "state",
        value: Some("FILE"),
        section: Section::Report,
        brief: "compare with earlier runs and windows in FILE",
        help:
            "What is usual is learnt from the last 24 hours, from the same hour of earlier days, \
            or from the last 20 runs. A change that was named is not learnt until it is accepted \
            (state FILE accept) or 7 days old. With --targets and exporter it is a directory, with \
            a file for each target.",
        modes: WITH_STATE,
        set: Set::Path(|s, path| s.common.state = Some(path)),
        ..ROW
    },
    Flag {
        long: "baseline",
        value: Some("FILE"),
        section: Section::Report,
        brief: "compare with a state or a JSON report",
        help: "FILE is only read. With --state too, that one is written.",
        modes: WITH_BASELINE,
        set: Set::Path(|s, path| s.common.baseline = Some(path)),
        ..ROW
    },
    Flag {
        long: "window",
        value: Some("DURATION"),
        section: Section::Report,
        brief: "span of gauges and records (5m if endless)",
        help: "A run without end is cut into windows, whose records are kept in --state. A finite \
            run is one window unless this is given.",
        modes: WITH_BASELINE,
        set: Set::Text(|s, text| {
            s.common.window = Some(value::positive_duration(text)?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "before",
        value: Some("TIME"),
        section: Section::Report,
        brief: "with compare --state: records until TIME",
        help:
            "RFC 3339 (2026-11-27T15:17:02Z), a date, or -2h for so long ago. Of these records as \
            many are compared as follow --after, at least 12.",
        modes: COMPARING,
        set: Set::Text(|s, text| {
            s.before = Some(value::time(text)?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "after",
        value: Some("TIME"),
        section: Section::Report,
        brief: "with compare --state: records from TIME on",
        modes: COMPARING,
        set: Set::Text(|s, text| {
            s.after = Some(value::time(text)?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "fail-above",
        value: Some("DELAY"),
        section: Section::Report,
        brief: "compare fails only above a rise of DELAY",
        help:
            "The low end of the interval of a rise is held against it. Without it any rise beyond \
            its interval ends with exit code 1.",
        modes: COMPARING,
        set: Set::Text(|s, text| {
            s.fail_above = Some(value::duration(text)?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "rules",
        value: Some("FILE"),
        section: Section::Report,
        brief: "limits of parts, and requests beyond them",
        help: "One rule per line, as in: segment B->C round_trip p95 > 5ms for 3 of 5 critical \
            ask load,tcp at B,C. Changes of state stand in the report and in the log; the exit \
            code of probe is the state at its end. The grammar: help rules. A test: check-rules.",
        modes: OPENING,
        set: Set::Path(|s, path| s.common.rules = Some(path)),
        ..ROW
    },
    Flag {
        long: "warning",
        value: Some("LIMIT"),
        section: Section::Report,
        brief: "warn above 100ms,20%: mean, loss",
        help: "The simple case, as check_ping has it: the mean of the total, the share of lost \
            blocks, or both.",
        modes: OPENING,
        set: Set::Text(|s, text| limits(s, text, Sla::Warning)),
        ..ROW
    },
    Flag {
        long: "critical",
        value: Some("LIMIT"),
        section: Section::Report,
        brief: "the same, for the state critical",
        modes: OPENING,
        set: Set::Text(|s, text| limits(s, text, Sla::Critical)),
        ..ROW
    },
    Flag {
        long: "sessions",
        value: Some("FILE"),
        section: Section::Report,
        brief: "the life of each connection, JSON lines",
        help: "JSON lines: one when a connection begins, one when it ends, and one for each \
            second in which something moved on it. They hold, for both ends, the times of \
            connect, first and last byte, FIN and RST, the kernel's round trips, retransmissions \
            and bytes; for plain HTTP/1.x also its requests and responses. With --metrics-listen, \
            /sessions there answers with such a line for each connection that is open.",
        modes: LISTENING,
        set: Set::Path(|s, path| s.common.sessions = Some(path)),
        ..ROW
    },
    Flag {
        long: "http-read",
        value: Some("NAME"),
        section: Section::Report,
        brief: "read stamps in this HTTP header; repeatable",
        help: "In HTTP/1.x without TLS, with --sessions and in passive. Values may be seconds, \
            milliseconds or microseconds since 1970, t=TIME, NAME TIME, or lists of these. \
            X-Request-Start, X-Queue-Start, Via, Server-Timing and traceparent are always read.",
        modes: READING_HTTP,
        set: Set::Text(|s, text| {
            let is_token = !text.is_empty() && text.bytes().all(head::is_token);
            if !is_token || text.len() > HEADER_MAX {
                return Err(format!(
                    "is no header name: expected up to {HEADER_MAX} letters, digits, - and _"
                ));
            }
            if s.common.http_read.len() == HEADERS_MAX {
                return Err(format!("is one too many: at most {HEADERS_MAX}"));
            }
            s.common.http_read.push(text.to_owned());
            Ok(())
        }),
        full_only: true,
        ..ROW
    },
    Flag {
        long: "http-clock",
        value: Some("NAME=NODE"),
        section: Section::Report,
        brief: "NAME's stamps are of NODE's clock; repeatable",
        help: "NAME is a name in stamps, NODE that of a node of this path on the same host, this \
            one included. The offset of its clock is then taken out of delays by stamps; else the \
            clocks count as unsynchronised.",
        modes: FOLLOWING_HTTP,
        set: Set::Text(|s, text| {
            let pair = text
                .split_once('=')
                .map(|(name, node)| (name.trim(), node.trim()));
            let pair = pair.filter(|(name, node)| !name.is_empty() && !node.is_empty());
            let (name, node) = pair.ok_or("is not NAME=NODE, as in haproxy-1=B")?;
            if s.common.http_clocks.len() == HEADERS_MAX {
                return Err(format!("is one too many: at most {HEADERS_MAX}"));
            }
            s.common
                .http_clocks
                .push((name.to_owned(), node.to_owned()));
            Ok(())
        }),
        full_only: true,
        ..ROW
    },
    Flag {
        long: "http-write",
        value: Some("NAME"),
        section: Section::Report,
        brief: "append our name and time to this header; repeatable",
        help: "To each request of HTTP/1.x without TLS: NODE t=SECONDS, behind the elements that \
            the header has already, as in Via; Via itself gets 1.1 NODE. Only heads that every \
            reader understands alike are changed: from the first doubt on, a connection passes as \
            it is.",
        modes: FOLLOWING_HTTP,
        set: Set::Text(|s, text| {
            s.common.http_write.push(field_to_write(text)?);
            match s.common.http_write.len() {
                0..=HEADERS_MAX => Ok(()),
                _ => Err(format!("is one too many: at most {HEADERS_MAX}")),
            }
        }),
        full_only: true,
        ..ROW
    },
    Flag {
        long: "server-timing",
        section: Section::Report,
        brief: "show browsers the delays of their requests",
        help:
            "Adds a header Server-Timing to responses of HTTP/1.x without TLS: the delay of each \
            host and segment for this request, and the server's; the total alone where they are \
            not known. It shows internal names to clients. As careful as --http-write.",
        modes: TIMING_HTTP,
        set: Set::Switch(|s| s.common.server_timing = true),
        full_only: true,
        ..ROW
    },
    Flag {
        long: "debug",
        short: Some('d'),
        value: Some("LEVEL"),
        section: Section::Report,
        brief: "log up to syslog level 0..7 (default 4)",
        help: "3: errors; 4: warnings too; 5 and 6: life of connections; 7: single frames. Wins \
            over the environment variable RUST_LOG.",
        modes: LOGGING,
        set: Set::Text(|s, text| {
            s.common.debug = Some(value::integer(text, 0..=7)?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "help",
        short: Some('h'),
        section: Section::Report,
        brief: "-h this page, --help more, with examples",
        modes: EVERY,
        set: Set::Help,
        ..ROW
    },
    Flag {
        long: "version",
        short: Some('V'),
        section: Section::Report,
        brief: "version, commit, features, target, wire",
        modes: EVERY,
        set: Set::Version,
        ..ROW
    },
];

/// Limits of the command line; a second `--warning` takes the place of the first.
fn limits(options: &mut Options, text: &str, severity: Sla) -> Result<(), String> {
    let rules = sla::simple(text, severity)?;
    let limits = &mut options.common.limits;
    limits.retain(|rule| rule.severity != severity);
    limits.extend(rules);
    let of = |severity| limits.iter().filter(move |rule| rule.severity == severity);
    for warning in of(Sla::Warning) {
        let mut critical = of(Sla::Critical).filter(|rule| rule.figure == warning.figure);
        if let Some(critical) = critical.find(|critical| warning.limit > critical.limit) {
            let (warning, critical) = (warning.limit, critical.limit);
            return Err(format!(
                "does not fit: --warning {warning} is above --critical {critical}"
            ));
        }
    }
    Ok(())
}
