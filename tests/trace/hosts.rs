//! Hosts as network and mount namespaces, with real ssh servers. ssh goes through a bridge of its
//! own; measured bytes go through the wires of [`Namespaces`].

use crate::lab::run;
use crate::path::TestPath;
use crate::util::{Dir, LONG};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The server and the login shell of a host.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    OpenSsh,
    /// dropbear, and busybox in place of the usual tools.
    Dropbear,
    /// OpenSSH, with this login shell.
    Shell(&'static str),
    /// OpenSSH, on a machine of this name. Its binaries run in qemu.
    Machine(&'static str),
}

/// Programs in whose place busybox stands on a host of [`Kind::Dropbear`].
const APPLETS: [&str; 9] = [
    "dash", "ls", "rm", "sleep", "dd", "cat", "mktemp", "wc", "head",
];

pub(crate) struct Hosts {
    pub(crate) path: TestPath,
    dir: Dir,
    bridge: String,
    servers: Vec<Child>,
}

impl Hosts {
    /// Hosts 1 to the number of `kinds`; host 0 is the near end.
    pub(crate) fn new(kinds: &[Kind]) -> Self {
        crate::lab::require(&["ip", "unshare", "nsenter", "ssh", "ssh-keygen", "sshd"]);
        let delay = [Duration::from_micros(200); 2];
        let path = TestPath::new(&vec![delay; kinds.len()]);
        let dir = Dir::new(&format!("trace-{}", path.space(0)));
        let bridge = format!("b{}", path.space(0));
        ip(&format!("link add {bridge} type bridge"));
        ip(&format!("link set {bridge} up"));
        for node in 0..=kinds.len() {
            let (inner, outer) = (format!("{bridge}i{node}"), format!("{bridge}o{node}"));
            ip(&format!("link add {inner} type veth peer name {outer}"));
            ip(&format!("link set {outer} master {bridge} up"));
            ip(&format!("link set {inner} netns {}", path.space(node)));
            let space = path.space(node);
            ip(&format!(
                "-n {space} addr add 10.79.0.{}/24 dev {inner}",
                node + 1
            ));
            ip(&format!("-n {space} link set {inner} up"));
        }
        for key in ["client", "server"] {
            let file = dir.file(key).display().to_string();
            run(
                "ssh-keygen",
                &["-q", "-t", "ed25519", "-N", "", "-f", &file],
            );
        }
        std::fs::copy(dir.file("client.pub"), dir.file("authorized_keys")).unwrap();
        let mut config = format!(
            "IdentityFile {0}/client\nUserKnownHostsFile {0}/known\nUser root\n\
             StrictHostKeyChecking accept-new\n",
            dir.0.display()
        );
        for node in 1..=kinds.len() {
            config += &format!("Host h{node}\nHostName 10.79.0.{}\n", node + 1);
        }
        std::fs::write(dir.file("config"), config).unwrap();
        let mut hosts = Self {
            path,
            dir,
            bridge,
            servers: Vec::new(),
        };
        for (at, kind) in kinds.iter().enumerate() {
            let server = hosts.serve(at + 1, *kind);
            hosts.servers.push(server);
        }
        hosts.await_servers(kinds.len());
        hosts
    }

    fn serve(&self, node: usize, kind: Kind) -> Child {
        let here = self.dir.0.display();
        let mut script = format!(
            "set -e\nmount --make-rprivate /\n\
             cp {here}/authorized_keys /run/keys.{node} 2>/dev/null || true\n\
             mkdir -p /run/sshd\n\
             for of in /dev/shm /var/tmp; do mount -t tmpfs -o mode=1777 tmpfs $of; done\n\
             mount -t tmpfs -o mode=700 tmpfs /root\nmkdir -m 700 /root/.ssh\n\
             cp {here}/authorized_keys /root/.ssh/authorized_keys\n"
        );
        if let Kind::Shell(shell) = kind {
            let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
            let mut lines: Vec<String> = passwd.lines().map(str::to_owned).collect();
            for line in lines.iter_mut().filter(|line| line.starts_with("root:")) {
                let (fields, _) = line.rsplit_once(':').unwrap();
                *line = format!("{fields}:{shell}");
            }
            let file = self.dir.file(&format!("passwd{node}"));
            std::fs::write(&file, lines.join("\n") + "\n").unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
            script += &format!("mount --bind {} /etc/passwd\n", file.display());
        }
        let mut options = String::new();
        if let Kind::Machine(machine) = kind {
            let bin = self.dir.file(&format!("bin{node}"));
            std::fs::create_dir(&bin).unwrap();
            let uname = bin.join("uname");
            std::fs::write(&uname, format!("#!/bin/sh\necho Linux {machine}\n")).unwrap();
            std::fs::set_permissions(&uname, PermissionsExt::from_mode(0o755)).unwrap();
            options = format!(" -o SetEnv=PATH={}:/usr/bin:/bin", bin.display());
        }
        script += &match kind {
            Kind::Dropbear => {
                crate::lab::require(&["dropbear", "dropbearkey", "busybox"]);
                let key = format!("{here}/dropbear{node}");
                run("dropbearkey", &["-t", "ed25519", "-f", &key]);
                let busybox = APPLETS.map(|name| {
                    format!("mount --bind /usr/bin/busybox $(readlink -f $(command -v {name}))\n")
                });
                // The tools themselves are replaced last.
                format!("{}exec dropbear -F -E -r {key} -p 22\n", busybox.concat())
            }
            _ => format!(
                "exec /usr/sbin/sshd -D -e -f /dev/null -h {here}/server -o UsePAM=no \
                 -o PidFile=none -o StrictModes=no -o PermitRootLogin=yes{options}\n"
            ),
        };
        let mut command = self.path.command(node, "unshare");
        command.args(["-m", "bash", "-c", &script]);
        let log = std::fs::File::create(self.dir.file(&format!("log{node}"))).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command.spawn().unwrap()
    }

    fn await_servers(&self, count: usize) {
        let deadline = Instant::now() + LONG;
        for node in 1..=count {
            loop {
                let connected = self.ssh(node, "true").output().unwrap();
                if connected.status.success() {
                    break;
                }
                let log = std::fs::read_to_string(self.dir.file(&format!("log{node}")));
                let errors = String::from_utf8_lossy(&connected.stderr).into_owned();
                assert!(Instant::now() < deadline, "host {node}: {errors}{log:?}");
            }
        }
    }

    /// Returns the command that runs `line` on a host over ssh.
    pub(crate) fn ssh(&self, node: usize, line: &str) -> Command {
        let mut command = self.path.command(0, "ssh");
        command.arg("-F").arg(self.dir.file("config"));
        command.args(["-oBatchMode=yes", &format!("h{node}"), line]);
        command
    }

    /// Returns `trace` over all hosts, with more options.
    pub(crate) fn trace(&self, more: &str) -> Command {
        let mut command = self.local(more);
        for node in 1..=self.servers.len() {
            let address = self.path.address(node);
            let address = address.split(':').next().unwrap();
            command.arg(format!("h{node}={address}"));
        }
        command
    }

    /// Returns `trace` with these options and without a host. `STS_PROGRAM` and `STS_BINARIES`
    /// name the program and the directory of those that it copies.
    pub(crate) fn local(&self, more: &str) -> Command {
        let given = std::env::var("STS_PROGRAM");
        let binary = given.as_deref();
        let binary = binary.unwrap_or(env!("CARGO_BIN_EXE_subsegment-tcp-speeds"));
        let mut command = self.path.command(0, binary);
        let ssh = format!("ssh -F {}", self.dir.file("config").display());
        command.args(["trace", "--ssh", &ssh]);
        command.args(more.split_whitespace()).stdin(Stdio::null());
        if let Some(binaries) = std::env::var_os("STS_BINARIES") {
            if !more.contains("--binaries") {
                command.arg("--binaries").arg(binaries);
            }
        }
        command
    }

    /// Returns the interface of a host towards the bridge, outside of the host.
    pub(crate) fn link(&self, node: usize) -> String {
        format!("{}o{node}", self.bridge)
    }

    /// Returns how often keys were accepted at a host of OpenSSH.
    pub(crate) fn logins(&self, node: usize) -> usize {
        let log = std::fs::read_to_string(self.dir.file(&format!("log{node}")));
        log.unwrap().matches("Accepted publickey").count()
    }

    /// Files of a host where trace may write, and the programs of its processes.
    pub(crate) fn contents(&self, node: usize) -> BTreeSet<String> {
        let server = self.servers[node - 1].id().to_string();
        let places = ["/dev/shm", "/var/tmp", "/root"];
        let found = run(
            "nsenter",
            &[&["-t", &server, "-m", "find"], &places[..], &["-xdev"]].concat(),
        );
        let mut contents: BTreeSet<String> = found.lines().map(str::to_owned).collect();
        let processes = run("ip", &["netns", "pids", &self.path.space(node)]);
        for process in processes.lines() {
            let line = std::fs::read_to_string(format!("/proc/{process}/cmdline"));
            // One that has ended meanwhile, or a server: that of a cut line waits for TCP.
            let line = line.unwrap_or_default().replace('\0', " ");
            let is_server = ["sshd: ", "dropbear "]
                .iter()
                .any(|it| line.starts_with(it));
            if !line.is_empty() && !is_server {
                contents.insert(format!("process {process}: {line}"));
            }
        }
        contents
    }

    /// Waits until a host has nothing but `before`; panics after `within`.
    #[track_caller]
    pub(crate) fn await_clean(&self, node: usize, before: &BTreeSet<String>, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let now = self.contents(node);
            let left: Vec<&String> = now.difference(before).collect();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "host {node} has {left:?}");
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        for node in 0..=self.servers.len() {
            let _ = Command::new("ip")
                .args(["link", "del", &self.link(node)])
                .status();
        }
        let _ = Command::new("ip")
            .args(["link", "del", &self.bridge])
            .status();
    }
}

fn ip(line: &str) {
    run("ip", &line.split(' ').collect::<Vec<_>>());
}
