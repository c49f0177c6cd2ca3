//! Names of the rows, and how they are shortened.

use crate::columns::{shorten, width};
use crate::measure::Part;
use crate::report::{printable, Report};
use std::fmt;

/// The name of a row, escaped.
#[derive(Clone, Debug)]
pub(in crate::report) enum Name {
    /// A host or another single thing; the note goes first where room is short.
    One { name: String, note: String },
    /// A further row of a host; its note, which makes it differ from the row above, is never cut.
    Short(String, &'static str),
    /// A segment, or another part between the same two nodes, which the prefix names.
    Two {
        prefix: &'static str,
        from: String,
        to: String,
    },
}

const ARROW: &str = " -> ";
pub(super) const BACK: &str = " (return)";

impl Name {
    pub(super) fn plain(name: &str) -> Self {
        Self::One {
            name: name.to_owned(),
            note: String::new(),
        }
    }

    pub(super) fn of_host(report: &Report, hop: u8) -> Self {
        let role = report.node_at(hop).map_or("", |node| node.role.as_str());
        let note = if role.is_empty() {
            String::new()
        } else {
            format!(" ({})", printable(role))
        };
        Self::One {
            name: printable(&report.name_at(hop)),
            note,
        }
    }

    pub(super) fn of_part(report: &Report, part: Part) -> Self {
        match part {
            Part::Host(hop) => Self::of_host(report, hop),
            Part::Segment { from, to } => Self::of_ends(report, "", from, to),
            Part::Connect { from, to } => Self::of_ends(report, "connect ", from, to),
            // Next to `C -> server`, as short as that.
            Part::ServerConnect => {
                let exit = report.path.nodes.last().map(|exit| exit.hop);
                let exit = exit.map_or_else(|| "server".to_owned(), |hop| report.name_at(hop));
                Self::Short(printable(&exit), " (connect)")
            }
            part => Self::plain(&printable(&report.part_name(part))),
        }
    }

    fn of_ends(report: &Report, prefix: &'static str, from: u8, to: u8) -> Self {
        let name = |hop| printable(&report.name_at(hop));
        Self::Two {
            prefix,
            from: name(from),
            to: name(to),
        }
    }

    pub(super) fn width(&self) -> usize {
        width(&self.to_string())
    }

    /// Returns the name in at most `room` columns.
    ///
    /// The ends of a segment share them evenly; one gets the columns that the other does not need.
    pub(super) fn fit(&self, room: usize) -> String {
        match self {
            _ if self.width() <= room => self.to_string(),
            Self::One { name, .. } => shorten(name, room),
            Self::Short(name, note) => shorten(name, room.saturating_sub(note.len())) + note,
            Self::Two { prefix, from, to } => {
                let room = room.saturating_sub(prefix.len() + ARROW.len());
                let for_from = (room / 2)
                    .max(room.saturating_sub(width(to)))
                    .min(width(from));
                format!(
                    "{prefix}{}{ARROW}{}",
                    shorten(from, for_from),
                    shorten(to, room - for_from)
                )
            }
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One { name, note } => write!(f, "{name}{note}"),
            Self::Short(name, note) => write!(f, "{name}{note}"),
            Self::Two { prefix, from, to } => write!(f, "{prefix}{from}{ARROW}{to}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_their_ends() {
        let segment = |from: &str, to: &str| Name::Two {
            prefix: "",
            from: from.to_owned(),
            to: to.to_owned(),
        };
        assert_eq!(segment("A", "B").fit(6), "A -> B");
        assert_eq!(segment("berlin-router-1", "B").fit(14), "berl~er-1 -> B");
        assert_eq!(segment("A", "berlin-router-1").fit(14), "A -> berl~er-1");
        assert_eq!(
            segment("berlin-router-1", "munich-router-1").fit(14),
            "be~-1 -> mu~-1"
        );
        assert_eq!(
            Name::Short("berlin-router-1".to_owned(), BACK).fit(14),
            "be~-1 (return)"
        );
        let host = Name::One {
            name: "berlin".to_owned(),
            note: " (relay)".to_owned(),
        };
        assert_eq!(
            [host.fit(14), host.fit(13), host.fit(4), host.fit(0)],
            ["berlin (relay)", "berlin", "be~n", ""]
        );
    }
}
