//! The commands, and the roles that a process can have.

use std::fmt;
use Mode::{
    CheckRules, Compare, Demo, Echo, Entry, Exit, Exporter, Generate, Help, Passive, Probe, Proxy,
    Relay, Source, State, Trace,
};

/// The role or command of the process. It follows from the command word, or from the addresses
/// given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Reads stdin.
    Source,
    /// Framed in, framed out.
    Relay,
    /// Reflects.
    Echo,
    /// Raw in, framed out.
    Entry,
    /// Framed in, raw out.
    Exit,
    /// Raw in, raw out.
    Proxy,
    /// Makes its own blocks.
    Probe,
    /// A whole path in one process.
    Demo,
    /// Tests a file of rules.
    CheckRules,
    /// Probes on request over HTTP.
    Exporter,
    /// Reads a capture.
    Passive,
    /// Prints a topic of the manual.
    Help,
    /// Shows a state, or accepts a change of it.
    State,
    /// Compares two reports, or two spans of a state.
    Compare,
    /// Starts the nodes of a path over ssh, and probes it.
    Trace,
    /// Prints a manual page or completions.
    Generate,
}

impl Mode {
    /// The part of a command line that selects this mode.
    pub(in crate::cli) fn made_by(self) -> &'static str {
        match self {
            Source => "--forward-to without --listen",
            Relay => "--listen with --forward-to",
            Echo => "--listen without --forward-to",
            Entry => "--accept raw with --forward-to",
            Exit => "--remove-perf-headers",
            Proxy => "--accept raw with --remove-perf-headers",
            Probe => "the word probe",
            Demo => "the word demo",
            CheckRules => "the word check-rules",
            Exporter => "the word exporter",
            Passive => "the word passive",
            Help => "the word help",
            State => "the word state",
            Compare => "the word compare",
            Trace => "the word trace",
            Generate => "the word generate",
        }
    }

    /// Returns `true` if a command word selects this mode, and not addresses.
    pub const fn has_word(self) -> bool {
        !matches!(self, Source | Relay | Echo | Entry | Exit | Proxy)
    }

    /// Returns `true` if only a build with the feature `full` has this mode.
    pub(super) const fn is_full_only(self) -> bool {
        matches!(
            self,
            Demo | Exporter | Passive | Help | Compare | Generate | Trace
        )
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source => "source",
            Relay => "relay",
            Echo => "echo",
            Entry => "entry",
            Exit => "exit",
            Proxy => "proxy",
            Probe => "probe",
            Demo => "demo",
            CheckRules => "check of rules",
            Exporter => "exporter",
            Passive => "passive",
            Help => "help",
            State => "state",
            Compare => "comparison",
            Trace => "trace",
            Generate => "generate",
        })
    }
}

/// A command word: the first argument that is no option.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// As it is typed.
    pub name: &'static str,
    /// The mode that it selects.
    pub mode: Mode,
    /// The arguments that follow, as the help names them. One in brackets may be left out, and
    /// the last may be repeated if it ends in `...`.
    pub operands: &'static [&'static str],
    /// One line for the help.
    pub brief: &'static str,
    /// Command lines for `COMMAND --help`, each on a line of its own; may be empty.
    pub examples: &'static str,
}

impl Word {
    /// Returns `true` if more operands than `count` may follow.
    pub(in crate::cli) fn takes_more(&self, count: usize) -> bool {
        let is_endless = self
            .operands
            .last()
            .is_some_and(|last| last.ends_with("..."));
        is_endless || count < self.operands.len()
    }

    /// The word with its operands: `probe ADDR`.
    pub fn synopsis(&self) -> String {
        let operands = self.operands.iter().map(|operand| format!(" {operand}"));
        operands.fold(self.name.to_owned(), |text, operand| text + &operand)
    }

    /// The number of operands that are needed.
    pub(in crate::cli) fn operands_needed(&self) -> usize {
        let is_needed = |operand: &&&str| !operand.starts_with('[');
        self.operands.iter().filter(is_needed).count()
    }
}

/// Every command word.
pub(super) const WORDS: &[Word] = &[
    Word {
        name: "probe",
        mode: Probe,
        operands: &["ADDR"],
        brief: "send blocks to ADDR on a schedule; report where time goes",
        examples: "\
    subsegment-tcp-speeds probe B:9000 -c 0            # a live screen
    subsegment-tcp-speeds probe B:9000 -c 200 -i 50ms --state /var/tmp/B.state
    subsegment-tcp-speeds probe B:9000 --warning 100ms,20% --critical 300ms,60%
",
    },
    Word {
        name: "trace",
        mode: Trace,
        operands: &["HOST..."],
        brief: "start nodes over ssh, probe the path, leave nothing",
        examples: "\
    subsegment-tcp-speeds trace root@edge admin@core db1
    subsegment-tcp-speeds trace edge core=10.0.0.7 --server 10.1.0.5:5432
    subsegment-tcp-speeds trace edge core --ports 9000-9010 -v
",
    },
    Word {
        name: "passive",
        mode: Passive,
        operands: &["[FILE|-]"],
        brief: "round trips and events of the connections in a capture",
        examples: "\
    tcpdump -i eth0 -s 128 -w capture.pcap tcp
    subsegment-tcp-speeds passive capture.pcap
    tcpdump -i eth0 -U -w - | subsegment-tcp-speeds passive - --format lines
    subsegment-tcp-speeds passive client.pcap --peer server.pcap --format json
    subsegment-tcp-speeds passive -I eth0 --metrics-listen localhost:9876
",
    },
    Word {
        name: "demo",
        mode: Demo,
        operands: &[],
        brief: "run a whole path in one process, with a delay to be found",
        examples: "    subsegment-tcp-speeds demo --report-html demo.html\n",
    },
    Word {
        name: "exporter",
        mode: Exporter,
        operands: &[],
        brief: "probe on request of Prometheus",
        examples: "\
    subsegment-tcp-speeds exporter --metrics-listen :9101 --probe-allow B:9000
",
    },
    Word {
        name: "check-rules",
        mode: CheckRules,
        operands: &["FILE"],
        brief: "test a file for --rules; print it with all defaults",
        examples: "    subsegment-tcp-speeds check-rules sla.rules\n",
    },
    Word {
        name: "state",
        mode: State,
        operands: &["FILE", "DO", "[PART]"],
        brief: "show a --state file, or accept a change in it",
        examples: "\
    subsegment-tcp-speeds state /var/tmp/B.state show
    subsegment-tcp-speeds state /var/tmp/B.state accept segment:1-2
",
    },
    Word {
        name: "compare",
        mode: Compare,
        operands: &["[JSON]", "[JSON]"],
        brief: "which part rose between two reports, or times",
        examples: "\
    subsegment-tcp-speeds compare before.json after.json --fail-above 2ms
    subsegment-tcp-speeds compare --state B.state --before -4h --after -2h
",
    },
    Word {
        name: "help",
        mode: Help,
        operands: &["[TOPIC]"],
        brief: "print a topic of the manual, or the list of topics",
        examples: "    subsegment-tcp-speeds help verdict\n",
    },
    Word {
        name: "generate",
        mode: Generate,
        operands: &["KIND"],
        brief: "print a man page, or completions: bash, zsh, fish",
        examples: "\
    subsegment-tcp-speeds generate man > subsegment-tcp-speeds.1
    subsegment-tcp-speeds generate bash > subsegment-tcp-speeds.bash
",
    },
];
