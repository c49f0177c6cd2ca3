//! A stand-in for ssh: a script that runs the command line in a shell of this host.

use crate::util::{program, text, Dir};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Stands in for ssh. What a host does before the command is in a file with the host's name. The
/// program is installed, unless that file resets PATH to `$BARE`.
pub(crate) struct FakeSsh {
    pub(crate) dir: Dir,
}

impl FakeSsh {
    pub(crate) fn new(name: &str) -> Self {
        let dir = Dir::new(name);
        let here = dir.0.display().to_string();
        std::fs::create_dir(dir.file("run")).unwrap();
        std::fs::create_dir_all(dir.file("usr")).unwrap();
        let installed = dir.file("usr/subsegment-tcp-speeds");
        let binary = env!("CARGO_BIN_EXE_subsegment-tcp-speeds");
        std::os::unix::fs::symlink(binary, installed).unwrap();
        write(
            &dir.file("log-in"),
            &format!(
                "#!/bin/sh\nexport TMP_OF_TEST={here}\nshell=sh\n\
                 export XDG_RUNTIME_DIR={here}/run BARE=$PATH PATH={here}/usr:$PATH\n\
                 [ -r {here}/$1 ] && . {here}/$1\nexec $shell -c \"$2\"\n"
            ),
        );
        Self { dir }
    }

    /// Has the host run `lines` before the command.
    pub(crate) fn host(&self, name: &str, lines: &str) -> &Self {
        write(&self.dir.file(name), lines);
        self
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = program();
        command
            .args(["trace", "--ssh"])
            .arg(self.dir.file("log-in"));
        command.args(line.split(' ')).stdin(Stdio::null());
        command
    }

    pub(crate) fn trace(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Copies that runs left.
    pub(crate) fn left(&self) -> usize {
        std::fs::read_dir(self.dir.file("run")).unwrap().count()
    }

    /// Runs a line that has to fail; returns its last line on stderr.
    #[track_caller]
    pub(crate) fn error(&self, line: &str) -> String {
        let output = self.trace(line);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{line}: {errors}");
        errors.lines().last().unwrap_or_default().to_owned()
    }
}

/// Writes a script that can be run, and the directory that it is in.
pub(crate) fn write(path: &Path, script: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, script).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Returns `true` if a process has the file open.
pub(crate) fn is_open(path: &Path) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.into_iter().any(|process| {
        let files = std::fs::read_dir(process.path().join("fd"));
        let mut files = files.into_iter().flatten().flatten();
        files.any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to == path))
    })
}
