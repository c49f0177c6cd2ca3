//! The delays by stamps in heads of HTTP: sentences for people, JSON, and labels of metrics.

use super::json::write::{Array, Object, ToJson, Writer};
use super::{printable, text};
use crate::http::head::MessageKind;
use crate::http::stamp::{HeaderStamp, ServerMetric, StampDelay, StampedHeaders};
use crate::measure::{HeaderDelay, HeaderDelayKind, HeaderDelays};
use crate::time::{SignedNanos, WallTime};
use crate::FULL;

/// Returns a sentence for each row.
pub(super) fn sentences(delays: &HeaderDelays) -> Vec<String> {
    let rows = delays
        .rows
        .iter()
        .filter_map(|row| sentence(row, &delays.here));
    let more = (delays.left_out > 0).then(|| {
        format!(
            "{} delays by header stamps of further names are left out",
            delays.left_out
        )
    });
    rows.chain(more).collect()
}

/// `haproxy-1 -> squid-2: 4.1 ms p50, 5.0 ms p95 of 100, by header stamps, clocks unsynchronised`
fn sentence(row: &HeaderDelay, here: &str) -> Option<String> {
    let of = row.delay.summary()?;
    let figure = |span| format!("{} ms", text::millis(span, text::FIGURE).trim());
    let (p50, p95, from) = (figure(of.p50), figure(of.p95), printable(&row.from));
    let figures = format!("{p50} p50, {p95} p95 of {}", of.count);
    let HeaderDelayKind::Stamps { message, .. } = row.kind else {
        return Some(format!("{from}: {figures}, by Server-Timing"));
    };
    let to = printable(row.to.as_deref().unwrap_or(here));
    let response = match message {
        MessageKind::Request => "",
        MessageKind::Response => ", response",
    };
    let modulo = if row.kind.is_modulo() {
        ", modulo 1 s"
    } else {
        ""
    };
    let clocks = row.kind.clocks().unwrap_or_default();
    Some(format!(
        "{from} -> {to}{response}: {figures}, by header stamps{modulo}, clocks {clocks}"
    ))
}

/// Returns all rows as an array.
pub(super) fn delays_array(delays: &HeaderDelays) -> impl ToJson + '_ {
    Array(delays.rows.iter().filter(|_| FULL).map(|row| {
        Object(move |w: &mut Writer| {
            let is_timing = row.kind == HeaderDelayKind::ServerTiming;
            w.pair(
                "source",
                if is_timing {
                    "server_timing"
                } else {
                    "header_stamps"
                },
            );
            w.pair("from", &*row.from);
            w.pair("to", row.to.as_deref());
            w.pair("message", row.kind.message());
            w.pair("clocks", row.kind.clocks());
            w.pair("modulo_1s", row.kind.is_modulo());
            w.pair("delay", row.delay.summary());
        })
    }))
}

/// Returns what the heads of one request and its response hold, both of which passed here at `own`.
pub(super) fn headers_object(of: &StampedHeaders, own: [Option<WallTime>; 2]) -> impl ToJson + '_ {
    Object(move |w: &mut Writer| {
        let stamps = of.stamps.iter().enumerate();
        w.pair(
            "stamps",
            Array(stamps.map(|(at, stamp)| stamp_object(stamp, of.since_previous(at), own))),
        );
        w.pair("via", Array(of.via.iter().map(|element| &**element)));
        w.pair("server_timing", Array(of.timings.iter().map(timing_object)));
        let trace_parent = of.trace_parent.map(|trace| trace.to_string());
        w.pair("traceparent", trace_parent.as_deref());
        w.pair("left_out", u64::from(of.left_out));
    })
}

fn stamp_object(
    stamp: &HeaderStamp,
    since_previous: Option<StampDelay>,
    own: [Option<WallTime>; 2],
) -> impl ToJson + '_ {
    Object(move |w: &mut Writer| {
        let here = own[stamp.kind as usize].and_then(|own| stamp.until(own));
        let corrected = |of: Option<StampDelay>| of.map(|of| of.is_corrected);
        w.pair("header", &*stamp.field);
        let is_request = stamp.kind == MessageKind::Request;
        w.pair("message", if is_request { "request" } else { "response" });
        w.pair("name", stamp.who().as_str());
        w.pair("raw", &*stamp.raw);
        w.pair("time", stamp.time);
        w.pair("modulo_1s", stamp.is_modulo);
        w.pair("clock_of", stamp.clock.as_deref());
        w.pair("clock_offset_ns", stamp.offset);
        w.pair("since_previous_ns", since_previous.map(|of| of.delay));
        w.pair("since_previous_corrected", corrected(since_previous));
        w.pair("until_here_ns", here.map(|of| of.delay));
        w.pair("until_here_corrected", corrected(here));
    })
}

fn timing_object(of: &ServerMetric) -> impl ToJson + '_ {
    Object(move |w: &mut Writer| {
        w.pair("name", &*of.name);
        w.pair("duration_ns", of.duration);
        w.pair("description", of.description.as_deref());
    })
}

/// Returns `true` for a duration of a server, and the labels of a row without its figure.
pub(super) fn header_labels(row: &HeaderDelay) -> (bool, Vec<(&'static str, &str)>) {
    match row.kind {
        HeaderDelayKind::ServerTiming => (true, vec![("name", &*row.from)]),
        HeaderDelayKind::Stamps { .. } => {
            let clocks = match (row.kind.is_modulo(), row.kind.clocks()) {
                (true, Some("corrected")) => "corrected, modulo 1 s",
                (true, _) => "unsynchronised, modulo 1 s",
                (false, clocks) => clocks.unwrap_or_default(),
            };
            let labels = vec![
                ("from", &*row.from),
                ("to", row.to.as_deref().unwrap_or("")),
                ("message", row.kind.message()),
                ("clocks", clocks),
            ];
            (false, labels)
        }
    }
}

/// Returns the figures of a row that metrics have.
pub(super) fn header_figures(row: &HeaderDelay) -> Vec<(&'static str, SignedNanos)> {
    let of = row.delay.summary();
    let figures = of.map(|of| {
        [
            ("p50", of.p50),
            ("p95", of.p95),
            ("mean", of.mean),
            ("max", of.max),
        ]
    });
    figures.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::samples;

    #[test]
    fn a_row_is_a_sentence_with_its_figures_and_the_clocks_that_they_are_of() {
        let unsynchronised = "clocks unsynchronised";
        assert_eq!(
            sentences(&samples::header_delays()),
            [
                format!(
                    "haproxy-1 -> squid-2: 4.00 ms p50, 4.00 ms p95 of 1, by header stamps, \
                     {unsynchronised}"
                ),
                format!(
                    "squid-2 -> nginx: 6.00 ms p50, 6.00 ms p95 of 1, by header stamps, \
                     modulo 1 s, {unsynchronised}"
                ),
                format!(
                    "nginx -> A: 1.00 ms p50, 1.00 ms p95 of 1, by header stamps, modulo 1 s, \
                     {unsynchronised}"
                ),
                "db: 53.2 ms p50, 53.2 ms p95 of 1, by Server-Timing".to_owned(),
            ]
        );
    }
}
