//! The notices of a run, each once with its count, and no more than a report shows.

use crate::time::WallTime;

/// The notices that a report shows; further ones are counted.
const NOTICES: usize = 20;

/// The notices of a run.
#[derive(Debug, Default)]
pub(super) struct Notices {
    kept: Vec<Notice>,
    more: u64,
}

#[derive(Debug)]
struct Notice {
    text: String,
    /// `None` for a remark on the whole run.
    at: Option<WallTime>,
    /// The events that the sentence is about.
    count: u64,
}

impl Notices {
    /// Adds a notice, or counts it if it differs from a known one by ports alone.
    pub(super) fn add(&mut self, text: String, at: Option<WallTime>) {
        let bare = without_ports(&text);
        let same = |notice: &&mut Notice| without_ports(&notice.text) == bare;
        if let Some(known) = self.kept.iter_mut().find(same) {
            known.count += 1;
        } else if self.kept.len() < NOTICES {
            let count = 1;
            self.kept.push(Notice { text, at, count });
        } else {
            self.more += 1;
        }
    }

    /// Returns the sentences of a report.
    pub(super) fn texts(&self) -> Vec<String> {
        let texts = self.kept.iter().map(|notice| match notice.count {
            1 => notice.text.clone(),
            count => format!("{} ({count} times)", notice.text),
        });
        let more = (self.more > 0).then(|| format!("and {} notices more", self.more));
        texts.chain(more).collect()
    }

    /// Returns the notices on events, with their times.
    pub(super) fn events(&self) -> impl Iterator<Item = (WallTime, &str)> {
        let kept = self.kept.iter();
        kept.filter_map(|notice| Some((notice.at?, notice.text.as_str())))
    }
}

/// Returns `text` without the ports of addresses: the same event of another connection differs in
/// these alone.
fn without_ports(text: &str) -> String {
    let mut parts = text.split(':');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push(':');
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_bounded() {
        let mut notices = Notices::default();
        for number in 0..1000 {
            notices.add(format!("fault {number}"), None);
            notices.add(format!("peer 10.0.0.1:{number} began a frame"), None);
        }
        let texts = notices.texts();
        assert_eq!(texts.len(), NOTICES + 1);
        assert_eq!(texts[NOTICES], "and 981 notices more");
        let once = "peer 10.0.0.1:0 began a frame (1000 times)";
        assert_eq!(texts[1], once);
    }
}
