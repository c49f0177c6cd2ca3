//! Command lines of ssh(1), and what it prints.

/// Options of an OpenSSH that has to ask nothing: a terminal belongs to the report. Those of the
/// user's own command stand before them, and the first of a name counts.
const OPTIONS: &[&str] = &[
    "-T",
    "-a",
    "-x",
    "-oBatchMode=yes",
    "-oClearAllForwardings=yes",
    // A master that stays would keep our pipes open.
    "-oControlMaster=no",
    // A login may take 30 s; a host is given up after 60.
    "-oConnectTimeout=45",
    // A cut line is known after 12 s, so that the other hosts are clean within 15.
    "-oServerAliveInterval=4",
    "-oServerAliveCountMax=2",
];

/// The command that takes a host and a command line: `ssh`, or `--ssh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    words: Vec<String>,
}

impl Ssh {
    /// Returns the command of `--ssh`, which is split at spaces.
    ///
    /// # Errors
    ///
    /// A sentence end, if there is no word in it.
    pub fn new(command: &str) -> Result<Self, String> {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() {
            return Err("names no command: write --ssh \"ssh -p 2222\"".into());
        }
        Ok(Self { words })
    }

    /// Returns `true` for an OpenSSH, by its name. Others get a host and a command alone.
    fn is_openssh(&self) -> bool {
        self.words[0].rsplit('/').next() == Some("ssh")
    }

    /// Returns the words that run `command` at `login`.
    pub fn run(&self, login: &str, command: &str) -> Vec<String> {
        let mut words = self.words.clone();
        if self.is_openssh() {
            words.extend(OPTIONS.iter().map(ToString::to_string));
            words.push("--".into());
        }
        words.extend([login.to_owned(), command.to_owned()]);
        words
    }

    /// Returns the words that print the configuration of `login`; `None` for a command that is no
    /// OpenSSH.
    pub fn configuration(&self, login: &str) -> Option<Vec<String>> {
        self.is_openssh().then(|| {
            let mut words = self.words.clone();
            words.extend(["-G", "--", login].map(str::to_owned));
            words
        })
    }
}

impl Default for Ssh {
    fn default() -> Self {
        Self {
            words: vec!["ssh".into()],
        }
    }
}

/// Returns the HostName of what `ssh -G` printed; `None` if there is none.
pub fn host_name(configuration: &str) -> Option<&str> {
    let mut lines = configuration.lines();
    let name = lines
        .find_map(|line| line.strip_prefix("hostname "))?
        .trim();
    (!name.is_empty()).then_some(name)
}

/// The step of a host in which its ssh ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The host has not answered yet.
    LogIn,
    /// The look at the machine, and the copy.
    Copy,
    /// The node or the probe runs, or is about to.
    Run,
}

impl Step {
    fn words(self) -> &'static str {
        match self {
            Self::LogIn => "before an answer",
            Self::Copy => "while the program was copied",
            Self::Run => "while the program ran",
        }
    }
}

/// Returns the reason for which ssh ended in a step, with the remedy. `errors` is what it wrote to
/// stderr, and `status` its exit code, `None` if a signal ended it.
pub fn failure(errors: &str, status: Option<i32>, login: &str, step: Step) -> String {
    let is_shown = |line: &&str| {
        !line.is_empty()
            && !line.starts_with("Warning: Permanently added")
            && !line.starts_with("debug")
            && !line.starts_with('@')
    };
    let lines = || errors.lines().map(str::trim).filter(is_shown);
    let has = |part: &str| lines().find(|line| line.contains(part));
    let known = [
        (
            "Could not resolve hostname",
            "name the host as ssh knows it".to_owned(),
        ),
        (
            "Host key verification failed",
            format!("log in once by hand and compare its key: ssh {login}"),
        ),
        (
            "Permission denied (",
            format!("no password is asked for: ssh-copy-id {login}, or start ssh-agent"),
        ),
        (
            "Too many authentication failures",
            "name one key in ssh_config: IdentitiesOnly yes".to_owned(),
        ),
        (
            "Connection refused",
            format!("is that its port? try: ssh {login} true"),
        ),
        ("timed out", format!("try: ssh {login} true")),
        ("No route to host", format!("try: ssh {login} true")),
    ];
    for (part, remedy) in &known {
        if let Some(line) = has(part) {
            let line = line.trim_end_matches('.');
            return format!("{line}; {remedy}");
        }
    }
    let last = lines().next_back().map(|line| line.trim_end_matches('.'));
    let last = last.map(|line| format!(": {line}")).unwrap_or_default();
    let ended = match status {
        Some(127) if step == Step::LogIn => {
            return format!("the host has no sh{last}; trace needs one there");
        }
        Some(code) => format!("ended with {code}"),
        None => "was ended by a signal".to_owned(),
    };
    let step = step.words();
    format!("ssh {ended} {step}{last}; try: ssh {login} true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssh_gets_options_after_those_of_the_user_and_others_get_none() {
        let ssh = Ssh::new("  /usr/bin/ssh  -p 2222 ").unwrap();
        let words = ssh.run("root@edge", "true");
        assert_eq!(words[..3], ["/usr/bin/ssh", "-p", "2222"]);
        assert!(words.contains(&"-oBatchMode=yes".to_owned()));
        assert_eq!(words[words.len() - 3..], ["--", "root@edge", "true"]);
        let asked = ssh.configuration("edge").unwrap();
        assert_eq!(asked[3..], ["-G", "--", "edge"]);
        let other = Ssh::new("dbclient -y").unwrap();
        assert_eq!(
            other.run("edge", "true"),
            ["dbclient", "-y", "edge", "true"]
        );
        assert_eq!(other.configuration("edge"), None);
        assert!(Ssh::new("  ").is_err());
    }

    #[test]
    fn the_host_name_is_read_from_the_configuration() {
        let printed = "user root\nhostname 10.0.0.7\nport 22\nhostkeyalias x\n";
        assert_eq!(host_name(printed), Some("10.0.0.7"));
        assert_eq!(host_name("unknown option -- G\nusage: ssh"), None);
        assert_eq!(host_name("hostname \n"), None);
    }

    #[test]
    fn errors_of_ssh_get_their_remedy() {
        for (errors, status, expected) in [
            (
                "ssh: Could not resolve hostname edge: Name or service not known\r\n",
                Some(255),
                "ssh: Could not resolve hostname edge: Name or service not known; name the host \
                 as ssh knows it",
            ),
            (
                "No ED25519 host key is known for edge and you have requested strict checking.\n\
                 Host key verification failed.\n",
                Some(255),
                "Host key verification failed; log in once by hand and compare its key: ssh r@edge",
            ),
            (
                "r@edge: Permission denied (publickey,password).\n",
                Some(255),
                "r@edge: Permission denied (publickey,password); no password is asked for: \
                 ssh-copy-id r@edge, or start ssh-agent",
            ),
            (
                "ssh: connect to host edge port 22: Connection refused\n",
                Some(255),
                "ssh: connect to host edge port 22: Connection refused; is that its port? try: \
                 ssh r@edge true",
            ),
            (
                "sh: not found\n",
                Some(127),
                "the host has no sh: sh: not found; trace needs one there",
            ),
            (
                "",
                Some(1),
                "ssh ended with 1 before an answer; try: ssh r@edge true",
            ),
            (
                "",
                None,
                "ssh was ended by a signal before an answer; try: ssh r@edge true",
            ),
        ] {
            assert_eq!(failure(errors, status, "r@edge", Step::LogIn), expected);
        }
        let errors = "Timeout, server edge not responding.\n";
        assert_eq!(
            failure(errors, Some(255), "r@edge", Step::Run),
            "ssh ended with 255 while the program ran: Timeout, server edge not responding; try: \
             ssh r@edge true"
        );
        assert_eq!(
            failure("", Some(127), "r@edge", Step::Copy),
            "ssh ended with 127 while the program was copied; try: ssh r@edge true"
        );
    }
}
