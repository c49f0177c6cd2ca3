//! Annotations: the named values by which a node describes its host, in classes that a block
//! requests.
//!
//! The names of annotations are part of the program's interface: they stand in the manual, in
//! reports and, with `subsegment_` before them, in metrics. `wire::values` lays them out in a
//! frame.

use std::fmt;
use std::str::FromStr;

/// A set of classes of annotations, one bit each: the header of a block carries those that it
/// requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Classes(pub u32);

/// One row of the table of classes, [`Classes::ALL`].
#[derive(Clone, Copy, Debug)]
pub struct ClassRow {
    /// The bit of the class.
    pub class: Classes,
    /// Its word on the command line, in rules and in `error.WORD`.
    pub word: &'static str,
    /// The source of its values.
    pub reader: AnnotationReader,
}

/// The source from which the values of a class are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnotationReader {
    /// Files of procfs, read by the thread `annotate`.
    Procfs(ProcfsClass),
    /// The kernel's state of the two connections of a pump (`TCP_INFO`), read by the pump after a
    /// send.
    TcpInfo,
    /// The `--tag` options of the node.
    Tags,
    /// The agent of `--snmp`, asked by the thread `snmp`.
    Agent,
}

/// A class whose values procfs holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcfsClass {
    /// loadavg, stat and uptime.
    Load,
    /// stat and pressure/cpu.
    Cpu,
    /// meminfo and pressure/memory.
    Memory,
    /// self/fd, self/limits and sys/fs/file-nr.
    Files,
    /// net/snmp and net/netstat.
    Mib,
    /// net/dev.
    Interfaces,
}

/// Defines the constants of [`Classes`] and its table from one list of rows.
macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $word:literal, $reader:expr;)+) => {
        impl Classes {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)+

            /// The table of classes, in the order of their bits.
            ///
            /// A new class is a new row of `classes!` and a variant of [`AnnotationReader`] or
            /// [`ProcfsClass`]. The compiler then names the functions that read by variant:
            /// `annotate::procfs::Reader::read` and `annotate::annotator::read_local`. A test
            /// names the topic `annotations` of the manual; the changelog follows by hand. Option
            /// values, rules, the wire and the slots of the annotator use the table.
            pub const ALL: [ClassRow; [$($bit),+].len()] = [$(ClassRow {
                class: Self::$name,
                word: $word,
                reader: $reader,
            }),+];
        }
    };
}

classes! {
    /// Load averages over 1, 5 and 15 minutes, the number of CPUs, and the uptime.
    LOAD = 0, "load", AnnotationReader::Procfs(ProcfsClass::Load);
    /// The busy and stolen shares of CPU time since the last reading, and the pressure on the CPUs.
    CPU = 1, "cpu", AnnotationReader::Procfs(ProcfsClass::Cpu);
    /// Total and available memory, and the pressure on it.
    MEMORY = 2, "memory", AnnotationReader::Procfs(ProcfsClass::Memory);
    /// Open descriptors of this process, and of the host.
    FILES = 3, "files", AnnotationReader::Procfs(ProcfsClass::Files);
    /// Counters of the TCP and IP MIBs (/proc/net/snmp, /proc/net/netstat).
    MIB = 4, "mib", AnnotationReader::Procfs(ProcfsClass::Mib);
    /// Counters of the network interfaces.
    INTERFACES = 5, "interfaces", AnnotationReader::Procfs(ProcfsClass::Interfaces);
    /// The kernel's state of the node's own two connections (`TCP_INFO`).
    TCP = 6, "tcp", AnnotationReader::TcpInfo;
    /// Static tags.
    TAGS = 7, "tags", AnnotationReader::Tags;
    /// Values of an SNMP agent.
    SNMP = 8, "snmp", AnnotationReader::Agent;
}

impl Classes {
    /// Returns the set of every class.
    pub fn all() -> Self {
        let classes = Self::ALL.iter().map(|row| row.class);
        classes.fold(Self(0), Self::union)
    }

    /// Returns `true` if the set has no class.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns `true` if the set has every class of `other`.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the classes that are in either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the classes that are in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the classes of this set that are not in `other`.
    #[must_use]
    pub fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Parses words joined by commas, such as `load,tcp`; `all` and `none` stand alone.
impl FromStr for Classes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => return Ok(Self::all()),
            "none" => return Ok(Self(0)),
            _ => {}
        }
        let mut classes = Self(0);
        for word in text.split(',') {
            let row = Self::ALL.iter().find(|row| row.word == word.trim());
            let Some(row) = row else {
                return Err(format!(
                    "has {word:?} for a class: write all, none, or some of {}, joined by commas",
                    Self::ALL.map(|row| row.word).join(", ")
                ));
            };
            classes = classes.union(row.class);
        }
        Ok(classes)
    }
}

impl fmt::Display for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = Self::ALL.iter().filter(|row| self.contains(row.class));
        let words: Vec<_> = rows.map(|row| row.word).collect();
        if words.is_empty() {
            return f.write_str("none");
        }
        f.write_str(&words.join(","))
    }
}

/// The value of an annotation.
#[derive(Clone, Debug, PartialEq)]
pub enum AnnotationValue {
    /// A finite number, in the unit that ends the annotation's name.
    Number(f64),
    /// A tag, or the reason for which a source could not be read. A peer wrote it: escape it.
    Text(String),
}

/// One annotation of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostAnnotation {
    /// The name, such as `load1`, `downstream.rtt_ns` or `error.snmp`. A peer wrote it: escape it.
    pub name: String,
    /// The value.
    pub value: AnnotationValue,
}

/// The annotations of the node at one hop, from its latest answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeAnnotations {
    /// The node's place on the path.
    pub hop: u8,
    /// The block that carried the answer.
    pub sequence: u64,
    /// The annotations in the order of the answer; each name occurs once.
    pub annotations: Vec<HostAnnotation>,
}

/// The names without a part of a node's choice, beside those of [`TCP_NAMES`].
const NAMES: [&str; 34] = [
    "age_s",
    "load1",
    "load5",
    "load15",
    "cpus",
    "uptime_s",
    "cpu_busy",
    "cpu_steal",
    "cpu_pressure_some10",
    "memory_total_bytes",
    "memory_available_bytes",
    "memory_pressure_some10",
    "open_files",
    "open_files_max",
    "host_open_files",
    "tcp_segments_received",
    "tcp_segments_sent",
    "tcp_retransmitted_segments",
    "tcp_in_errors",
    "tcp_resets_sent",
    "tcp_resets_received",
    "tcp_failed_connects",
    "tcp_established",
    "tcp_timeouts",
    "tcp_lost_retransmissions",
    "tcp_syn_retransmissions",
    "tcp_listen_overflows",
    "tcp_listen_drops",
    "tcp_backlog_drops",
    "tcp_receive_pruned",
    "tcp_zero_windows_sent",
    "ip_in_discards",
    "ip_out_discards",
    "ip_reassembly_failures",
];
/// The names behind `upstream.` and `downstream.`.
const TCP_NAMES: [&str; 10] = [
    "rtt_ns",
    "min_rtt_ns",
    "rttvar_ns",
    "retransmits",
    "cwnd",
    "delivery_rate_bytes_per_second",
    "busy_ns",
    "rwnd_limited_ns",
    "sndbuf_limited_ns",
    "not_sent_bytes",
];
/// The names behind `interface.NAME.`.
const INTERFACE_NAMES: [&str; 6] = [
    "rx_bytes",
    "tx_bytes",
    "rx_errors",
    "rx_dropped",
    "tx_errors",
    "tx_dropped",
];
/// The bytes that an allocation takes beside its content.
const ALLOCATION: usize = 16;
/// The most names that begin with `snmp.`, with `tag.` or with `interface.`, each, that a node has.
const CHOSEN: usize = 64;

impl NodeAnnotations {
    /// Drops the names that no node of this version has, and those beyond the number that a node
    /// may choose: names become labels of metrics.
    pub fn keep_known(&mut self) {
        let mut chosen = [0_usize; 3];
        self.annotations.retain(|annotation| {
            let Some((group, rest)) = annotation.name.split_once('.') else {
                return NAMES.contains(&annotation.name.as_str());
            };
            let place = match group {
                "upstream" | "downstream" => return TCP_NAMES.contains(&rest),
                "error" => return Classes::ALL.iter().any(|row| row.word == rest),
                "snmp" => 0,
                "tag" if rest.parse::<u8>().is_ok() => 1,
                "interface" => match rest.rsplit_once('.') {
                    Some((_, name)) if INTERFACE_NAMES.contains(&name) => 2,
                    Some(_) | None => return false,
                },
                _ => return false,
            };
            chosen[place] += 1;
            chosen[place] <= CHOSEN
        });
    }

    /// Returns the memory of the annotations in bytes, the allocator's share included.
    pub fn memory(&self) -> usize {
        let text = |annotation: &HostAnnotation| match &annotation.value {
            AnnotationValue::Text(text) => text.capacity() + ALLOCATION,
            AnnotationValue::Number(_) => 0,
        };
        let own = |annotation: &HostAnnotation| {
            text(annotation) + annotation.name.capacity() + ALLOCATION
        };
        let fixed = self.annotations.capacity() * size_of::<HostAnnotation>();
        let texts = self.annotations.iter().map(own).sum::<usize>();
        size_of::<Self>() + ALLOCATION + fixed + texts
    }

    /// Returns the number called `name`; `None` if there is none.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.annotations
            .iter()
            .find_map(|annotation| match annotation.value {
                AnnotationValue::Number(number) if annotation.name == name => Some(number),
                AnnotationValue::Number(_) | AnnotationValue::Text(_) => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_nodes_own_choice_are_bounded_and_unknown_ones_dropped() {
        let mut names: Vec<_> = (0..300).map(|n| format!("fake_{n}")).collect();
        names.extend((0..300).map(|n| format!("snmp.{n}")));
        names.extend((0..300).map(|n| format!("tag.{n}")));
        names.extend((0..300).map(|n| format!("interface.eth{n}.rx_bytes")));
        names.extend((0..300).map(|n| format!("interface.eth0.{n}")));
        names.extend(["load1", "upstream.rtt_ns", "error.snmp"].map(String::from));
        names.extend(["upstream", "upstream.x", "error.x", "", ".", "snmp"].map(String::from));
        let annotation = |name| HostAnnotation {
            name,
            value: AnnotationValue::Number(1.0),
        };
        let mut node = NodeAnnotations {
            annotations: names.into_iter().map(annotation).collect(),
            ..NodeAnnotations::default()
        };
        let before = node.memory();
        node.keep_known();
        assert_eq!(node.annotations.len(), 3 * CHOSEN + 3);
        let last = node.annotations.iter().rev().take(3);
        let last: Vec<_> = last.map(|annotation| annotation.name.as_str()).collect();
        assert_eq!(last, ["error.snmp", "upstream.rtt_ns", "load1"]);
        node.annotations.shrink_to_fit();
        assert!(node.memory() < before / 4);
    }

    #[test]
    fn classes_are_written_as_they_are_read() {
        for text in ["load", "load,tcp,snmp", "none"] {
            assert_eq!(text.parse::<Classes>().unwrap().to_string(), text);
        }
        let all: Classes = "all".parse().unwrap();
        assert_eq!(all.to_string().split(',').count(), Classes::ALL.len());
        let error = "load,lod".parse::<Classes>().unwrap_err();
        assert!(error.contains("\"lod\""), "{error}");
    }

    #[test]
    fn a_class_has_the_bit_of_its_row_and_a_word_and_a_reader_that_no_other_has() {
        for (index, row) in Classes::ALL.iter().enumerate() {
            assert_eq!(row.class, Classes(1 << index), "{}", row.word);
            for other in &Classes::ALL[..index] {
                assert_ne!(row.word, other.word);
                assert_ne!(row.reader, other.reader, "{}", row.word);
            }
            assert!(!["all", "none"].contains(&row.word));
            let manual = include_str!("manual/annotations.md");
            let begin = format!("\n| `{}` |", row.word);
            assert!(manual.contains(&begin), "the manual lacks {}", row.word);
        }
    }
}
