//! The log on stderr: severities, times, and control characters of peers made harmless.

use crate::cli::level_filter;
use crate::report::is_unprintable;
use crate::sys;
use std::io::Write as _;

/// Starts the log. `-d` wins over RUST_LOG; without both, warnings and errors are shown.
pub(crate) fn start(severity: Option<u8>) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level_filter(severity));
    if severity.is_none() {
        if let Ok(filter) = std::env::var("RUST_LOG") {
            builder.parse_filters(&filter);
        }
    }
    builder.format(|out, record| {
        let now = sys::clock::read().wall.to_string();
        // Some lines quote a peer. Its control characters could forge other lines, and some further
        // characters hide or reorder the text on a terminal.
        let text: String = record
            .args()
            .to_string()
            .chars()
            .flat_map(|c| {
                let escaped = is_unprintable(c).then(|| c.escape_default());
                let plain = (!is_unprintable(c)).then_some(c);
                escaped.into_iter().flatten().chain(plain)
            })
            .collect();
        let millis = now.get(..23).unwrap_or(&now);
        writeln!(out, "{millis}Z {:5} {text}", record.level())
    });
    builder.init();
}
