//! The manual: one page per topic, for `help TOPIC` and for these docs.
//!
//! To add a topic: a file `TOPIC.md` here and a line in `topics!`. Pages use headings, paragraphs,
//! lists, tables and fenced code; `render` makes plain text of 79 columns of them. Tables of
//! options and metrics are made by `tables`.

mod render;
mod tables;

use crate::cli::nearest;
use render::render;
use std::fmt::Write as _;
use tables::{with_tables, without_tables};

/// A page of the manual.
#[derive(Debug)]
pub struct Topic {
    /// As it is typed after `help`.
    pub name: &'static str,
    /// One line for the list of topics.
    pub brief: &'static str,
    /// The page in Markdown, without the tables that the program makes.
    text: &'static str,
}

impl Topic {
    /// Returns the page in Markdown.
    pub fn page(&self) -> String {
        with_tables(self.text)
    }
}

/// Makes the table of topics, and for each a module whose documentation is the page.
macro_rules! topics {
    ($($name:ident $file:literal $brief:literal)*) => {
        $(
            #[doc = include_str!($file)]
            pub mod $name {}
        )*

        /// Every topic, in the order of the list.
        pub const TOPICS: &[Topic] = &[$(Topic {
            name: stringify!($name),
            brief: $brief,
            text: {
                const FILE: &str = include_str!($file);
                const LENGTH: usize = without_tables::<{ FILE.len() }>(FILE).1;
                const TEXT: [u8; LENGTH] = without_tables(FILE).0;
                match std::str::from_utf8(&TEXT) {
                    Ok(text) => text,
                    Err(_) => panic!("it is cut at ends of lines"),
                }
            },
        }),*];
    };
}

topics! {
    chain "chain.md" "build a path: roles, four hosts, a real service"
    trace "trace.md" "a path over ssh, with nothing installed on it"
    report "report.md" "read the report: columns, rows, pictures, live screen"
    verdict "verdict.md" "how the verdict is found, and its limits"
    state "state.md" "earlier runs: what is kept, accept, files and clocks"
    compare "compare.md" "two reports or times side by side; exit codes"
    rules "rules.md" "limits of parts, requests beyond them, causes"
    annotations "annotations.md" "load, CPU, memory, TCP and SNMP values of nodes"
    formats "formats.md" "text, JSON and the other formats, key by key"
    metrics "metrics.md" "Prometheus: pages, files, probes, every metric"
    options "options.md" "every option with its default"
    passive "passive.md" "round trips and events from a capture"
    sessions "sessions.md" "records of single connections"
    http "http.md" "write stamps into HTTP headers, show delays in browsers"
    operate "operate.md" "deploy, secure, update and remove it"
    inside "inside.md" "threads, system calls, scripts, where to read on"
}

/// Returns the list of topics as plain text.
pub fn list() -> String {
    let mut text = String::from("Topics of the manual, for help TOPIC:\n\n");
    for topic in TOPICS {
        let _ = writeln!(text, "  {:<13}{}", topic.name, topic.brief);
    }
    text
}

/// Returns a topic as plain text of at most 79 columns.
///
/// # Errors
///
/// A sentence with the nearest topic, or with all topics, if there is no such one.
pub fn page(name: &str) -> Result<String, String> {
    if let Some(topic) = TOPICS.iter().find(|topic| topic.name == name) {
        return Ok(render(&topic.page()));
    }
    let names = TOPICS.iter().map(|topic| topic.name);
    Err(match nearest(name, names.clone()) {
        Some(meant) => format!("unknown topic {name:?}; did you mean {meant}?"),
        None => {
            let names: Vec<_> = names.collect();
            format!("unknown topic {name:?}: there are {}", names.join(", "))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_fits_a_terminal_of_80_columns() {
        let pages = TOPICS
            .iter()
            .map(|topic| page(topic.name).expect(topic.name));
        for text in pages.chain([list()]) {
            for line in text.lines() {
                assert!(line.chars().count() < 80, "too wide: {line}");
            }
            assert!(text.ends_with('\n') && !text.contains("\n\n\n"), "{text}");
        }
    }

    #[test]
    fn every_page_has_its_title_and_some_substance() {
        for topic in TOPICS {
            let page = topic.page();
            assert!(page.starts_with("# "), "{}", topic.name);
            assert!(page.len() > 800, "{}", topic.name);
        }
    }

    #[test]
    fn an_unknown_topic_names_the_nearest_or_all() {
        assert_eq!(
            page("verdct"),
            Err("unknown topic \"verdct\"; did you mean verdict?".into())
        );
        let error = page("cheese").expect_err("no such topic");
        assert!(
            error.ends_with("passive, sessions, http, operate, inside"),
            "{error}"
        );
    }
}
