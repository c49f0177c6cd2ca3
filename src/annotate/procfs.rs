//! Linux's /proc as annotations. Read proc(5) first; pressure (PSI) is in the kernel's
//! Documentation/accounting/psi.rst.
//!
//! The values are the host's, as far as the namespaces of this process show them.

use super::Readings;
use crate::annotation::ProcfsClass;
use crate::decimal::decimal;
use crate::time::{MonoTime, Nanos};
use std::fs;
use std::path::{Path, PathBuf};

/// The counters of an interface: the annotation, and its column in a line of /proc/net/dev.
const INTERFACE: [(&str, usize); 6] = [
    ("rx_bytes", 0),
    ("tx_bytes", 8),
    ("rx_errors", 2),
    ("rx_dropped", 3),
    ("tx_errors", 10),
    ("tx_dropped", 11),
];

/// The most interfaces in one answer: those that moved the most bytes.
const INTERFACES: usize = 8;

/// The longest time over which a share of CPU time is averaged: an older reading is not used.
const LONGEST: Nanos = Nanos::from_millis(300_000);

/// Counters since boot: the annotation, the file's group, the counter's name there (RFC 4022, RFC
/// 4293 and Linux's own).
pub const MIB: [(&str, &str, &str); 19] = [
    ("tcp_segments_received", "Tcp", "InSegs"),
    ("tcp_segments_sent", "Tcp", "OutSegs"),
    ("tcp_retransmitted_segments", "Tcp", "RetransSegs"),
    ("tcp_in_errors", "Tcp", "InErrs"),
    ("tcp_resets_sent", "Tcp", "OutRsts"),
    ("tcp_resets_received", "Tcp", "EstabResets"),
    ("tcp_failed_connects", "Tcp", "AttemptFails"),
    ("tcp_established", "Tcp", "CurrEstab"),
    ("tcp_timeouts", "TcpExt", "TCPTimeouts"),
    ("tcp_lost_retransmissions", "TcpExt", "TCPLostRetransmit"),
    ("tcp_syn_retransmissions", "TcpExt", "TCPSynRetrans"),
    ("tcp_listen_overflows", "TcpExt", "ListenOverflows"),
    ("tcp_listen_drops", "TcpExt", "ListenDrops"),
    ("tcp_backlog_drops", "TcpExt", "TCPBacklogDrop"),
    ("tcp_receive_pruned", "TcpExt", "PruneCalled"),
    ("tcp_zero_windows_sent", "TcpExt", "TCPToZeroWindowAdv"),
    ("ip_in_discards", "Ip", "InDiscards"),
    ("ip_out_discards", "Ip", "OutDiscards"),
    ("ip_reassembly_failures", "Ip", "ReasmFails"),
];

/// Parses the load averages over 1, 5 and 15 minutes in /proc/loadavg.
pub fn load_averages(text: &str) -> Option<[f64; 3]> {
    let mut numbers = text.split_ascii_whitespace().map(decimal);
    let mut next = || numbers.next()?;
    Some([next()?, next()?, next()?])
}

/// Parses the seconds since boot in /proc/uptime.
pub fn uptime(text: &str) -> Option<f64> {
    decimal(text.split_ascii_whitespace().next()?)
}

/// The time that all CPUs together have spent since boot, in clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// The number of CPUs.
    pub cpus: usize,
    /// All ticks.
    pub total: u64,
    /// Ticks with nothing to do, or with a wait for a disk.
    pub idle: u64,
    /// Ticks that the hypervisor gave to other machines.
    pub steal: u64,
}

/// Parses /proc/stat. The time of guests is part of their host's user time already.
pub fn ticks(text: &str) -> Option<Ticks> {
    let mut lines = text.lines();
    let all = lines.next()?.strip_prefix("cpu ")?;
    let spent: Vec<u64> = all
        .split_ascii_whitespace()
        .take(8)
        .map_while(|word| word.parse().ok())
        .collect();
    let &[.., _, _] = spent.as_slice() else {
        return None;
    };
    let at = |index: usize| spent.get(index).copied().unwrap_or(0);
    Some(Ticks {
        cpus: lines.take_while(|line| line.starts_with("cpu")).count(),
        total: spent.iter().fold(0, |sum, &some| sum.saturating_add(some)),
        idle: at(3).saturating_add(at(4)),
        steal: at(7),
    })
}

/// Returns the busy share of the time between two readings, and the part of it that the hypervisor
/// stole; both are fractions of 1. `None` if no tick has passed.
pub fn shares(before: Ticks, now: Ticks) -> Option<(f64, f64)> {
    let total = now.total.checked_sub(before.total).filter(|&all| all > 0)? as f64;
    let idle = now.idle.saturating_sub(before.idle) as f64; // iowait may go back.
    let steal = now.steal.saturating_sub(before.steal) as f64;
    Some(((1.0 - idle / total).max(0.0), steal / total))
}

/// Parses the share of the last 10 s in which some task waited for the resource, from
/// /proc/pressure/*.
pub fn pressure(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let percent = some
        .trim_start()
        .strip_prefix("avg10=")?
        .split(' ')
        .next()
        .and_then(decimal)?;
    Some(percent / 100.0)
}

/// Parses the row called `name` of /proc/meminfo, in bytes.
pub fn memory(text: &str, name: &str) -> Option<f64> {
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kilobytes = decimal(rest.split_ascii_whitespace().next()?)?;
    Some(kilobytes * 1024.0)
}

/// Parses the soft limit of open descriptors in /proc/self/limits; infinity stands for no limit.
pub fn open_files_limit(text: &str) -> Option<f64> {
    let row = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match row.split_ascii_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        soft => decimal(soft),
    }
}

/// Parses a counter of /proc/net/snmp or /proc/net/netstat: pairs of lines, names above numbers.
pub fn counter(text: &str, group: &str, name: &str) -> Option<f64> {
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(group)?.strip_prefix(':'));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let place = names
        .split_ascii_whitespace()
        .position(|word| word == name)?;
    decimal(numbers.split_ascii_whitespace().nth(place)?)
}

/// Parses the interfaces of /proc/net/dev that have moved bytes, each with its sixteen numbers. Of
/// many only those that moved the most bytes are returned, in the order of the file.
pub fn interfaces(text: &str) -> Vec<(&str, Vec<f64>)> {
    let mut found: Vec<(&str, Vec<f64>)> = text
        .lines()
        .filter_map(|line| {
            let (name, numbers) = line.split_once(':')?;
            let numbers: Vec<f64> = numbers
                .split_ascii_whitespace()
                .map_while(decimal)
                .collect();
            (numbers.len() >= 16 && moved(&numbers) > 0.0).then_some((name.trim(), numbers))
        })
        .collect();
    let mut most: Vec<f64> = found.iter().map(|row| moved(&row.1)).collect();
    most.sort_by(|a, b| b.total_cmp(a));
    let least = most.get(INTERFACES - 1).copied().unwrap_or(0.0);
    found.retain(|row| moved(&row.1) >= least);
    found.truncate(INTERFACES);
    found
}

fn moved(numbers: &[f64]) -> f64 {
    numbers[0] + numbers[8]
}

/// The reader of the classes in procfs, which remembers the CPU time of its last reading.
#[derive(Debug)]
pub struct Reader {
    root: PathBuf,
    before: Option<(MonoTime, Ticks)>,
}

impl Reader {
    /// Returns a reader of the tree at `root`, which is /proc except in tests.
    pub fn new(root: PathBuf) -> Self {
        Self { root, before: None }
    }

    /// Reads one class, called `word`, at the time `now`.
    pub fn read(&mut self, class: ProcfsClass, word: &'static str, now: MonoTime) -> Readings {
        let mut readings = ClassReading {
            root: &self.root,
            word,
            out: Readings::default(),
        };
        match class {
            ProcfsClass::Load => readings.load(),
            ProcfsClass::Cpu => readings.cpu(&mut self.before, now),
            ProcfsClass::Memory => readings.memory(),
            ProcfsClass::Files => readings.files(),
            ProcfsClass::Mib => readings.mib(),
            ProcfsClass::Interfaces => readings.interfaces(),
        }
        readings.out
    }
}

/// The reading of one class.
struct ClassReading<'a> {
    root: &'a Path,
    word: &'static str,
    out: Readings,
}

impl ClassReading<'_> {
    /// Returns the value that `parse` finds in a file; `None`, and an error of the class,
    /// otherwise.
    fn parsed<T>(&mut self, file: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let path = self.root.join(file);
        let failed = match fs::read(&path) {
            Ok(bytes) => match parse(&String::from_utf8_lossy(&bytes)) {
                Some(value) => return Some(value),
                None => format!("cannot understand {}", path.display()),
            },
            Err(error) => {
                let error = error.to_string();
                let reason = error.split(" (os error").next().unwrap_or_default();
                format!("cannot read {}: {reason}", path.display())
            }
        };
        self.out.error(self.word, failed);
        None
    }

    fn load(&mut self) {
        let averages = self.parsed("loadavg", load_averages);
        for (name, at) in [("load1", 0), ("load5", 1), ("load15", 2)] {
            let average = averages.map(|averages| averages[at]);
            self.out.number(name, average);
        }
        let ticks = self.parsed("stat", ticks);
        self.out
            .number("cpus", ticks.map(|ticks| ticks.cpus as f64));
        let uptime = self.parsed("uptime", uptime);
        self.out.number("uptime_s", uptime);
    }

    fn cpu(&mut self, before: &mut Option<(MonoTime, Ticks)>, at: MonoTime) {
        if let Some(now) = self.parsed("stat", ticks) {
            let young = before.filter(|before| at.since(before.0) <= LONGEST);
            let shares = young.and_then(|before| shares(before.1, now));
            self.out.number("cpu_busy", shares.map(|shares| shares.0));
            self.out.number("cpu_steal", shares.map(|shares| shares.1));
            *before = Some((at, now));
        }
        let waiting = self.parsed("pressure/cpu", pressure);
        self.out.number("cpu_pressure_some10", waiting);
    }

    fn memory(&mut self) {
        let both = self.parsed("meminfo", |text| {
            // Kernels before 3.14 have no row for the available memory.
            Some((memory(text, "MemTotal")?, memory(text, "MemAvailable")))
        });
        let (total, available) = both.map_or((None, None), |(all, free)| (Some(all), free));
        self.out.number("memory_total_bytes", total);
        self.out.number("memory_available_bytes", available);
        let waiting = self.parsed("pressure/memory", pressure);
        self.out.number("memory_pressure_some10", waiting);
    }

    fn files(&mut self) {
        match fs::read_dir(self.root.join("self/fd")) {
            // The directory itself is open while it is read.
            Ok(open) => {
                let open = open.count().saturating_sub(1);
                self.out.number("open_files", Some(open as f64));
            }
            Err(error) => {
                let text = format!("cannot read /proc/self/fd: {error}");
                self.out.error(self.word, text);
            }
        }
        let limit = self.parsed("self/limits", open_files_limit);
        self.out.number("open_files_max", limit);
        let host = self.parsed("sys/fs/file-nr", uptime);
        self.out.number("host_open_files", host);
    }

    fn mib(&mut self) {
        let whole = |text: &str| Some(text.to_owned());
        let snmp = self.parsed("net/snmp", whole);
        let netstat = self.parsed("net/netstat", whole);
        for (annotation, group, name) in MIB {
            let text = if group == "TcpExt" { &netstat } else { &snmp };
            let number = text.as_ref().and_then(|text| counter(text, group, name));
            self.out.number(annotation, number);
        }
    }

    fn interfaces(&mut self) {
        let text = self.parsed("net/dev", |text| Some(text.to_owned()));
        for (interface, numbers) in interfaces(text.as_deref().unwrap_or_default()) {
            for (annotation, at) in INTERFACE {
                let name = format!("interface.{interface}.{annotation}");
                self.out.number(name, Some(numbers[at]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotation::{
        AnnotationReader, AnnotationValue, Classes, HostAnnotation, NodeAnnotations,
    };

    const STAT: &str = "cpu  100 20 30 800 50 0 10 40 5 0\n\
        cpu0 50 10 15 400 25 0 5 20 5 0\ncpu1 50 10 15 400 25 0 5 20 0 0\nintr 7 0 0\n";
    const NETSTAT: &str = "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPTimeouts\n\
        TcpExt: 0 3 4 5\nIpExt: InNoRoutes\nIpExt: 9\n";
    const SNMP: &str = "Ip: Forwarding InDiscards\nIp: 1 2\n\
        Tcp: RtoAlgorithm MaxConn RetransSegs OutRsts\nTcp: 1 -1 12 34\n";
    const DEV: &str = "Inter-|   Receive  |  Transmit\n face |bytes  packets|bytes\n\
        \x20   lo:       0 0 0 0 0 0 0 0        0 0 0 0 0 0 0 0\n\
        \x20 eth0: 1000 7 1 2 0 0 0 0     2000 8 3 4 0 0 0 0\n  bad: 1 2 x\n";

    #[test]
    fn texts_of_proc_are_parsed() {
        let loads = load_averages("0.52 1.05 12.40 3/871 3072\n");
        assert_eq!(loads, Some([0.52, 1.05, 12.4]));
        assert_eq!(uptime("12345.67 98765.43\n"), Some(12345.67));
        let meminfo = "MemTotal:        4000 kB\nMemFree: 1 kB\nMemAvailable:    1000 kB\n";
        assert_eq!(memory(meminfo, "MemAvailable"), Some(1_024_000.0));
        assert_eq!(memory(meminfo, "MemAvail"), None);
        let psi = "some avg10=12.50 avg60=1.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00\n";
        assert_eq!(pressure(psi), Some(0.125));
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
            Max open files            1024                 524288               files\n";
        assert_eq!(open_files_limit(limits), Some(1024.0));
    }

    #[test]
    fn counters_are_found_by_the_names_above_them() {
        assert_eq!(counter(SNMP, "Tcp", "RetransSegs"), Some(12.0));
        assert_eq!(counter(SNMP, "Tcp", "MaxConn"), Some(-1.0));
        assert_eq!(counter(SNMP, "Ip", "InDiscards"), Some(2.0));
        assert_eq!(counter(SNMP, "Tcp", "OfALaterKernel"), None);
        assert_eq!(counter(SNMP, "Udp", "InErrors"), None);
        assert_eq!(counter(NETSTAT, "TcpExt", "TCPTimeouts"), Some(5.0));
    }

    #[test]
    fn busy_is_the_share_of_ticks_between_two_readings_that_were_not_idle() {
        let before = ticks(STAT).unwrap();
        let expected = Ticks {
            cpus: 2,
            total: 1050,
            idle: 850,
            steal: 40,
        };
        assert_eq!(before, expected);
        let now = Ticks {
            total: 1150,
            idle: 875,
            steal: 50,
            ..before
        };
        assert_eq!(shares(before, now), Some((0.75, 0.1)));
        assert_eq!(shares(now, now), None);
        assert_eq!(shares(now, before), None);
    }

    #[test]
    fn interfaces_that_moved_nothing_are_passed_over_and_the_busiest_stay() {
        let found = interfaces(DEV);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0, found[0].1[8]), ("eth0", 2000.0));
        let many: String = (1..=20)
            .map(|n| format!("if{n}: {n}{}\n", " 1".repeat(15)))
            .collect();
        let names: Vec<_> = interfaces(&many)
            .iter()
            .map(|row| row.0.to_owned())
            .collect();
        let last: Vec<_> = (13..=20).map(|n| format!("if{n}")).collect();
        assert_eq!(names, last);
    }

    #[test]
    fn a_cut_text_is_no_number_and_no_panic() {
        for text in [
            STAT,
            NETSTAT,
            SNMP,
            DEV,
            "some avg10=1.5 x",
            "Max open files",
        ] {
            for len in 0..=text.len() {
                let text = &text[..len];
                let _ = (
                    load_averages(text),
                    uptime(text),
                    ticks(text),
                    pressure(text),
                );
                let _ = (
                    memory(text, "MemTotal"),
                    open_files_limit(text),
                    interfaces(text),
                );
                let _ = (
                    counter(text, "Tcp", "OutRsts"),
                    counter(text, "TcpExt", "TCPTimeouts"),
                );
            }
        }
        assert_eq!(ticks("cpu  1"), None);
        assert_eq!(pressure("full avg10=1.5"), None);
    }

    #[test]
    fn a_missing_file_is_an_error_beside_the_other_values_of_its_class() {
        let root = std::env::temp_dir().join(format!("sts-procfs-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("stat"), STAT).unwrap();
        fs::write(root.join("loadavg"), "none").unwrap();
        let mut reader = Reader::new(root.clone());
        let annotations = reader
            .read(ProcfsClass::Cpu, "cpu", MonoTime(0))
            .annotations();
        let expected = format!(
            "cannot read {}/pressure/cpu: No such file or directory",
            root.display()
        );
        assert_eq!(
            annotations.len(),
            1,
            "no share at the first reading: {annotations:?}"
        );
        assert_eq!(annotations[0].value, AnnotationValue::Text(expected));
        let busier = STAT.replacen("100", "200", 1);
        for (seconds, is_young) in [(300, true), (601, false)] {
            fs::write(root.join("stat"), if is_young { &busier } else { STAT }).unwrap();
            let now = MonoTime(seconds * 1_000_000_000);
            let annotations = reader.read(ProcfsClass::Cpu, "cpu", now).annotations();
            let busy = annotations
                .iter()
                .any(|annotation| annotation.name == "cpu_busy");
            assert_eq!(busy, is_young, "after {seconds} s: {annotations:?}");
        }
        let annotations = reader
            .read(ProcfsClass::Load, "load", MonoTime(0))
            .annotations();
        let names: Vec<_> = annotations
            .iter()
            .map(|annotation| annotation.name.as_str())
            .collect();
        assert_eq!(names, ["error.load", "cpus"]);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn every_name_that_this_node_writes_is_one_that_others_keep() {
        let mut reader = Reader::new("/proc".into());
        let mut annotations = Vec::new();
        for now in [MonoTime(0), MonoTime(1_000_000_000)] {
            annotations.clear();
            for row in Classes::ALL {
                if let AnnotationReader::Procfs(class) = row.reader {
                    annotations.extend(reader.read(class, row.word, now).annotations().to_vec());
                }
            }
        }
        for (name, ..) in MIB {
            let (name, value) = (name.to_owned(), AnnotationValue::Number(0.0));
            annotations.push(HostAnnotation { name, value });
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut tcp = Readings::default();
        let info = crate::sys::tcp_info(&socket).unwrap();
        super::super::tcp::append(&mut tcp, "upstream", &info);
        annotations.extend(tcp.annotations().to_vec());
        let mut node = NodeAnnotations {
            annotations: annotations.clone(),
            ..NodeAnnotations::default()
        };
        node.keep_known();
        assert_eq!(node.annotations, annotations);
        assert!(annotations.len() > 40);
    }

    #[test]
    fn this_host_has_values_of_every_class() {
        let mut reader = Reader::new("/proc".into());
        for (class, annotation) in [
            (ProcfsClass::Load, "load1"),
            (ProcfsClass::Memory, "memory_total_bytes"),
            (ProcfsClass::Files, "open_files"),
            (ProcfsClass::Mib, "tcp_retransmitted_segments"),
        ] {
            let annotations = reader.read(class, "class", MonoTime(0)).annotations();
            assert!(
                annotations.iter().any(|one| one.name == annotation),
                "{annotations:?}"
            );
        }
    }
}
