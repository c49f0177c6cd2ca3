//! What nodes say of themselves when they are asked: named values, by class. The values lie on the wire in an annotation;
//! here they are only names and numbers.
//!
//! Names are the program's API: they stand in the README, in reports and, with `subsegment_` before them, in metrics.

use std::fmt;
use std::str::FromStr;

/// Kinds of annotations, a bit each: what the header of a block asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Classes(pub u32);

impl Classes {
    /// Load averages over 1, 5 and 15 minutes, number of CPUs, uptime.
    pub const LOAD: Self = Self(1);
    /// How busy the CPUs were since the last reading, and their pressure.
    pub const CPU: Self = Self(1 << 1);
    /// Memory, and its pressure.
    pub const MEMORY: Self = Self(1 << 2);
    /// Descriptors of this process, and of the host.
    pub const FILES: Self = Self(1 << 3);
    /// Counters of the TCP and IP MIBs (/proc/net/snmp, /proc/net/netstat).
    pub const MIB: Self = Self(1 << 4);
    /// Counters of the interfaces.
    pub const INTERFACES: Self = Self(1 << 5);
    /// What the kernel knows of the node's own two connections (`TCP_INFO`).
    pub const TCP: Self = Self(1 << 6);
    /// Static tags.
    pub const TAGS: Self = Self(1 << 7);
    /// Values of an SNMP agent.
    pub const SNMP: Self = Self(1 << 8);

    /// Every class with its word on the command line.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::LOAD, "load"),
        (Self::CPU, "cpu"),
        (Self::MEMORY, "memory"),
        (Self::FILES, "files"),
        (Self::MIB, "mib"),
        (Self::INTERFACES, "interfaces"),
        (Self::TCP, "tcp"),
        (Self::TAGS, "tags"),
        (Self::SNMP, "snmp"),
    ];

    /// Every class.
    pub fn all() -> Self {
        Self::ALL.iter().fold(Self(0), |all, row| all.union(row.0))
    }

    /// Whether no class is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` is in it.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What is in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// Words joined by commas: `load,tcp`; `all` and `none` stand alone.
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
            let row = Self::ALL.iter().find(|row| row.1 == word.trim());
            let Some(row) = row else {
                let known: Vec<_> = Self::ALL.iter().map(|row| row.1).collect();
                return Err(format!(
                    "has {word:?} for a class: write all, none, or some of {}, joined by commas",
                    known.join(", ")
                ));
            };
            classes = classes.union(row.0);
        }
        Ok(classes)
    }
}

impl fmt::Display for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = Self::ALL.iter().filter(|row| self.contains(row.0));
        let words: Vec<_> = words.map(|row| row.1).collect();
        if words.is_empty() {
            return f.write_str("none");
        }
        f.write_str(&words.join(","))
    }
}

/// A value that a node told.
#[derive(Clone, Debug, PartialEq)]
pub enum AnnotationValue {
    /// In the unit that its name ends in; finite.
    Number(f64),
    /// A tag, or why a source could not be read. Written by a peer: escape it.
    Text(String),
}

/// One thing that a node told.
#[derive(Clone, Debug, PartialEq)]
pub struct HostAnnotation {
    /// `load1`, `downstream.rtt_ns`, `snmp.sysUpTime`, `error.snmp`. Written by a peer: escape it.
    pub name: String,
    /// What it was.
    pub value: AnnotationValue,
}

/// What the node at one hop told in its latest answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeAnnotations {
    /// Its place on the path.
    pub hop: u8,
    /// The block that the answer came with.
    pub sequence: u64,
    /// In the order told; a name once.
    pub annotations: Vec<HostAnnotation>,
}

impl NodeAnnotations {
    /// The number of that name; `None` where there is none.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.annotations
            .iter()
            .find_map(|annotation| match annotation.value {
                AnnotationValue::Number(number) if annotation.name == name => Some(number),
                _ => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
