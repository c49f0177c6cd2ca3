//! The table of annotations: a row per name, a column per node, so that nodes can be compared.
//!
//! Peers choose the names and their number. The work is linear in the annotations, and the table
//! ends at a bound, below which the page states how many rows are missing.

use super::chart::{escape, time};
use super::left_out;
use crate::annotation::AnnotationValue;
use crate::report::{text, Report};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// No row begins beyond so many bytes of the table.
const MOST_BYTES: usize = 256 << 10;
/// Characters of a name or a text.
const MOST_CHARS: usize = 200;

/// Values of one name with the index of their node, in order of nodes.
type Cells<'a> = Vec<(usize, &'a AnnotationValue)>;

/// Writes the section; nothing if there are no annotations.
pub(super) fn section(report: &Report, out: &mut String) {
    let rows = rows(report);
    if rows.is_empty() {
        return;
    }
    let start = out.len();
    out.push_str(
        "<section><h2>What hosts report of themselves</h2>\n<p class=\"hint\">The latest answer of \
         each.</p>\n<div class=\"scroll\"><table><thead><tr><th>Annotation</th>",
    );
    for node in &report.annotations {
        let _ = write!(out, "<th>{}</th>", escape(&report.name_at(node.hop)));
    }
    out.push_str("</tr></thead><tbody>\n");
    let mut written = 0;
    for (name, cells) in &rows {
        if out.len() - start > MOST_BYTES {
            break;
        }
        written += 1;
        row(name, cells, report.annotations.len(), out);
    }
    out.push_str("</tbody></table></div>");
    left_out(rows.len() - written, "annotations", out);
    out.push_str("</section>\n");
}

/// Returns names with their values, in the order in which the names first appear.
fn rows(report: &Report) -> Vec<(&str, Cells<'_>)> {
    let mut index = BTreeMap::new();
    let mut rows: Vec<(&str, Cells<'_>)> = Vec::new();
    for (node, annotations) in report.annotations.iter().enumerate() {
        for annotation in &annotations.annotations {
            let name = annotation.name.as_str();
            let row = *index.entry(name).or_insert_with(|| {
                rows.push((name, Vec::new()));
                rows.len() - 1
            });
            let cells = &mut rows[row].1;
            // The first counts if a node gives a name twice.
            if cells.last().map_or(true, |cell| cell.0 != node) {
                cells.push((node, &annotation.value));
            }
        }
    }
    rows
}

fn row(name: &str, cells: &Cells<'_>, nodes: usize, out: &mut String) {
    let _ = write!(out, "<tr><th>{}</th>", escape(bounded(name)));
    let mut cells = cells.iter().peekable();
    for node in 0..nodes {
        let cell = cells.next_if(|cell| cell.0 == node);
        let (class, value) = match cell.map(|cell| cell.1) {
            None => ("", String::new()),
            Some(AnnotationValue::Text(text)) => (" class=\"w\"", escape(bounded(text))),
            Some(AnnotationValue::Number(ns)) if name.ends_with("_ns") => ("", time(*ns)),
            Some(AnnotationValue::Number(number)) => ("", plain(*number)),
        };
        let _ = write!(out, "<td{class}>{value}</td>");
    }
    out.push_str("</tr>\n");
}

fn bounded(text: &str) -> &str {
    let end = text.char_indices().nth(MOST_CHARS);
    end.map_or(text, |(end, _)| &text[..end])
}

/// Returns a count as it is, any other number with three digits behind the point.
fn plain(number: f64) -> String {
    if !number.is_finite() {
        text::unknown()
    } else if number.fract() == 0.0 && number.abs() < 1e15 {
        format!("{number}")
    } else if number.abs() < 1e15 {
        let text = format!("{number:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{number:e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotation::{HostAnnotation, NodeAnnotations};
    use crate::report::tests::samples;

    /// A report of so many nodes, each with 256 names of its own, of which one is common to all.
    fn crowded(nodes: u8) -> Report {
        let annotation = |name: String| HostAnnotation {
            name,
            value: AnnotationValue::Number(0.5),
        };
        let mut report = samples::full();
        let sample = report.annotations[0].clone();
        report.annotations = (0..nodes)
            .map(|hop| {
                let own = (0..255).map(|number| annotation(format!("{hop:03}_{number:03}")));
                NodeAnnotations {
                    hop,
                    annotations: own.chain([annotation("load1".to_owned())]).collect(),
                    ..sample.clone()
                }
            })
            .collect();
        report
    }

    #[test]
    fn names_of_a_peers_choice_make_no_large_page_and_the_rest_is_counted() {
        for (nodes, names) in [(2, 2 * 255 + 1), (64, 64 * 255 + 1), (255, 255 * 255 + 1)] {
            let mut page = String::new();
            section(&crowded(nodes), &mut page);
            assert!(page.len() < 400_000, "{} bytes", page.len());
            let shown = page.matches("<tr><th>").count() - 1; // The heading is a row too.
            let missing = names - shown;
            let note = format!("{missing} more annotations are left out");
            assert_eq!(page.contains(&note), missing > 0, "{nodes}: {shown} shown");
        }
    }

    #[test]
    fn values_stand_below_their_node() {
        let mut page = String::new();
        section(&crowded(3), &mut page);
        assert!(page.contains("<th>load1</th><td>0.5</td><td>0.5</td><td>0.5</td></tr>"));
        assert!(page.contains("<th>001_000</th><td></td><td>0.5</td><td></td></tr>"));
    }
}
