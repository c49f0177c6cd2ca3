//! The command lines of README.md and of the manual.

#![allow(dead_code, unreachable_pub)] // Each test binary uses its own part of it.

use subsegment_tcp_speeds::cli::PROGRAM;
use subsegment_tcp_speeds::manual::TOPICS;

pub const README: &str = include_str!("../../README.md");

/// A line as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The host before the prompt `A$ `; empty without one.
    pub host: String,
    /// The text after the prompt, or after the five fields of a crontab, without a comment.
    pub text: String,
}

impl Line {
    /// The arguments of the program; `None` if the line does not run it.
    pub fn arguments(&self) -> Option<Vec<String>> {
        let command = self.text.split(" | ").find(|part| is_ours(part))?;
        let ends = |word: &str| word.starts_with(['<', '>', '&', ';']);
        let words = command.split_whitespace().skip(1);
        Some(
            words
                .take_while(|word| !ends(word))
                .map(str::to_owned)
                .collect(),
        )
    }
}

fn is_ours(command: &str) -> bool {
    command.split_whitespace().next() == Some(PROGRAM)
}

/// The pages by name, README.md among them.
pub fn pages() -> Vec<(&'static str, String)> {
    let topics = TOPICS.iter().map(|topic| (topic.name, topic.page()));
    let readme = ("README", README.to_owned());
    std::iter::once(readme).chain(topics).collect()
}

/// The blocks of commands of a page: fenced ones of `sh`, and indented ones.
pub fn blocks(page: &str) -> Vec<Vec<Line>> {
    let mut blocks = vec![Vec::new()];
    let mut fence = None;
    let mut continued = String::new();
    for line in page.lines() {
        let text = match (fence, line.strip_prefix("```")) {
            (None, Some(kind)) => {
                fence = Some(kind);
                blocks.push(Vec::new());
                continue;
            }
            (Some(_), Some(_)) => {
                fence = None;
                continue;
            }
            (Some("sh"), None) => line,
            (Some(_), None) => continue,
            (None, None) => match line.strip_prefix("    ") {
                Some(text) => text,
                None => {
                    blocks.push(Vec::new());
                    continue;
                }
            },
        };
        continued += text.trim();
        if let Some(begin) = continued.strip_suffix('\\') {
            continued = begin.to_owned();
            continue;
        }
        if let Some(block) = blocks.last_mut() {
            block.push(typed(&std::mem::take(&mut continued)));
        }
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

fn typed(text: &str) -> Line {
    let text = text.split(" #").next().unwrap_or(text).trim();
    let (host, text) = match text.split_once("$ ") {
        Some((host, text)) if host.len() <= 1 => (host, text),
        _ => ("", text),
    };
    let text = text.strip_prefix("*/5 * * * * ").unwrap_or(text);
    Line {
        host: host.to_owned(),
        text: text.to_owned(),
    }
}
