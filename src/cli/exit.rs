//! The exit codes, each documented once: the doc lines are also what `--help` shows.

/// Makes the enum, its numbers and its meanings from one list. `--help` and the docs cannot differ.
macro_rules! exit_codes {
    ($(#[doc = $meaning:literal] $name:ident = $number:literal,)*) => {
        /// The exit code of the program. `probe` has the meanings of the Monitoring Plugins, all
        /// other commands have their own; they do not mix.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ExitCode {
            $(#[doc = $meaning] $name,)*
        }

        impl ExitCode {
            /// Every code, in the order of the help.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The number that the shell sees.
            pub const fn number(self) -> u8 {
                match self { $(Self::$name => $number,)* }
            }

            /// The doc line of the variant.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning.trim(),)* }
            }
        }
    };
}

exit_codes! {
    /// done
    Done = 0,
    /// failed: path broken, address in use, capture damaged, output not written
    Failed = 1,
    /// usage: the command line is wrong
    Usage = 2,
    /// compare: a part rose
    Rose = 1,
    /// probe: measured, and within limits
    ProbeOk = 0,
    /// probe: a warning limit was exceeded
    ProbeWarning = 1,
    /// probe: a critical limit was exceeded, path broken, nothing measured
    ProbeCritical = 2,
    /// probe: usage, or unknown
    ProbeUnknown = 3,
}

impl ExitCode {
    /// Returns `true` if the code belongs to `probe`.
    pub fn is_of_probe(self) -> bool {
        self.meaning().starts_with("probe:")
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_one_kind_have_numbers_of_their_own() {
        for of_probe in [false, true] {
            let numbers: Vec<u8> = ExitCode::ALL
                .iter()
                .filter(|code| code.is_of_probe() == of_probe && **code != ExitCode::Rose)
                .map(|code| code.number())
                .collect();
            let expected: Vec<u8> = (0..if of_probe { 4 } else { 3 }).collect();
            assert_eq!(numbers, expected);
        }
    }
}
