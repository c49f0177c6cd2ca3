//! Turns a block into a row of comma-separated values (`--format csv`).
//!
//! Quoting is that of RFC 4180; lines end in a line feed, as on any Unix. Times are integer
//! nanoseconds, an absent figure is an empty cell. The columns are `sequence,scheduled,total_ns`,
//! then the parts in the order of the path, then `flags` (separated by spaces):
//!
//! ```text
//! A_forward_residence_ns,A_return_residence_ns,A_forward_wake_up_ns,A_return_wake_up_ns,
//! A_B_round_trip_ns,A_B_forward_ns,A_B_return_ns,A_B_network_ns,A_B_connect_ns,...
//! ```
//!
//! In a row, all `_round_trip_ns`, `_connect_ns`, `_residence_ns` and `behind_` cells add up to
//! `total_ns`. `A_B_network_ns`, `B_forward_wake_up_ns` and `A_return_wake_up_ns` add up to
//! `A_B_round_trip_ns`.
//!
//! The columns depend on the path, so the header is written when the first block is known. It is
//! written again right before the first row of a path with other columns. A reader takes any line
//! that begins with `sequence` for a header. A lost block has empty cells under the header in
//! force; if nothing was answered yet, that header has no part columns. A name that two hops share
//! gets its hop appended (`node@1`), so columns are unique.

use super::block::BlockLine;
use super::{in_path_order, printable, Place};
use crate::measure::Parts;
use crate::time::SignedNanos;

/// Writes the rows of one run; remembers which header is in force.
#[derive(Clone, Debug, Default)]
pub struct Table {
    header: Option<String>,
    part_columns: usize,
}

impl Table {
    /// The row of one block, after a header where one is due; each with its line feed.
    pub fn line(&mut self, block: &BlockLine<'_>) -> String {
        let mut out = String::new();
        let mut total = None;
        let cells = match block.parts {
            Some(parts) => {
                total = parts.total;
                let (names, cells): (Vec<_>, Vec<_>) =
                    part_columns(block, parts).into_iter().unzip();
                self.start_header(&names, &mut out);
                cells
            }
            None => {
                if self.header.is_none() {
                    self.start_header(&[], &mut out);
                }
                vec![None; self.part_columns]
            }
        };
        let number =
            |cell: Option<SignedNanos>| cell.map_or_else(String::new, |span| span.0.to_string());
        let mut row = vec![
            block.sequence.to_string(),
            block.scheduled.to_string(),
            number(total),
        ];
        row.extend(cells.into_iter().map(number));
        row.push(block.flags().join(" "));
        push_row(&row, &mut out);
        out
    }

    /// Appends the header of these part columns to `out`, unless it is in force.
    fn start_header(&mut self, part_names: &[String], out: &mut String) {
        let mut names: Vec<_> = ["sequence", "scheduled", "total_ns"]
            .map(str::to_owned)
            .into();
        names.extend_from_slice(part_names);
        names.push("flags".to_owned());
        let mut header = String::new();
        push_row(&names, &mut header);
        if self.header.as_ref() != Some(&header) {
            out.push_str(&header);
            self.header = Some(header);
            self.part_columns = part_names.len();
        }
    }
}

/// The parts of a block with the names of their columns.
fn part_columns(block: &BlockLine<'_>, parts: &Parts) -> Vec<(String, Option<SignedNanos>)> {
    let label = |hop: u8| {
        let name = block.name_at(hop);
        let is_shared = parts
            .hosts
            .iter()
            .any(|host| host.hop != hop && block.name_at(host.hop) == name);
        let name = printable(&name);
        if is_shared {
            format!("{name}@{hop}")
        } else {
            name
        }
    };
    let mut columns = Vec::new();
    for place in in_path_order(
        &parts.hosts,
        |host| host.hop,
        &parts.segments,
        |segment| segment.from_hop,
    ) {
        match place {
            Place::Host(host) => {
                let name = label(host.hop);
                columns.push((
                    format!("{name}_forward_residence_ns"),
                    host.forward_residence,
                ));
                columns.push((format!("{name}_return_residence_ns"), host.return_residence));
                columns.push((format!("{name}_forward_wake_up_ns"), host.forward_wake_up));
                columns.push((format!("{name}_return_wake_up_ns"), host.return_wake_up));
            }
            Place::Segment(segment) => {
                let name = format!("{}_{}", label(segment.from_hop), label(segment.to_hop));
                columns.push((format!("{name}_round_trip_ns"), segment.round_trip));
                columns.push((format!("{name}_forward_ns"), segment.forward));
                columns.push((format!("{name}_return_ns"), segment.back));
                columns.push((format!("{name}_network_ns"), segment.network));
                columns.push((format!("{name}_connect_ns"), segment.connect));
            }
        }
    }
    if parts.beyond.is_some() {
        let last = parts.hosts.last().map_or(0, |host| host.hop);
        columns.push((format!("behind_{}_ns", label(last)), parts.beyond));
    }
    columns
}

/// Appends one record (RFC 4180 §2) with a line feed.
fn push_row(cells: &[String], out: &mut String) {
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        // Names come from peers, and spreadsheets run a cell that begins like a formula; negative
        // numbers stay as they are.
        if cell.starts_with(['=', '+', '@'])
            || cell.starts_with('-') && cell.parse::<i64>().is_err()
        {
            push_cell(&format!("'{cell}"), out);
        } else {
            push_cell(cell, out);
        }
    }
    out.push('\n');
}

fn push_cell(cell: &str, out: &mut String) {
    if cell.contains([',', '"', '\r', '\n']) {
        out.push('"');
        out.push_str(&cell.replace('"', "\"\""));
        out.push('"');
    } else {
        out.push_str(cell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::samples;

    #[test]
    fn rows_are_as_in_the_golden_file_with_a_header_where_the_path_changes() {
        let mut table = Table::default();
        let got = samples::with_blocks(|block| table.line(block));
        samples::assert_same(include_str!("../../tests/golden/blocks.csv"), &got);
    }

    #[test]
    fn every_row_has_as_many_cells_as_its_header() {
        let mut table = Table::default();
        let rows = samples::with_blocks(|block| table.line(block));
        let mut columns = 0;
        for row in rows.lines() {
            // Commas and quotes stand only in the quoted names of the sample, which have one comma
            // each.
            let cells = row.split(',').count() - row.matches("a,\"\"b").count();
            if row.starts_with("sequence,") {
                columns = cells;
            }
            assert_eq!(cells, columns, "{row}");
        }
    }

    #[test]
    fn a_cell_is_quoted_only_where_it_must_be_and_never_a_formula() {
        let mut out = String::new();
        push_row(
            &["plain", "a,b", "say \"x\"", "=1+1", "-5", "-x", "@x"].map(str::to_owned),
            &mut out,
        );
        assert_eq!(out, "plain,\"a,b\",\"say \"\"x\"\"\",'=1+1,-5,'-x,'@x\n");
    }
}
