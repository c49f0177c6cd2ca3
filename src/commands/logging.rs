//! The log on stderr: severities, times, and control characters of peers made harmless.

use crate::cli::level_filter;
use crate::report::is_unprintable;
use crate::sys;
use std::io::Write as _;

/// `-d` wins over RUST_LOG; without both, warnings and errors are shown.
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
        // A peer's words are in some lines: control characters would let it forge others, and some that are no
        // control characters hide or reorder what a terminal shows.
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
