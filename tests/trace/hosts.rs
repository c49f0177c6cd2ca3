//! Hosts as network and mount namespaces, with real ssh servers. ssh goes through a bridge of its
//! own; measured bytes go through the wires of [`Namespaces`].

use crate::lab::run;
use crate::path::TestPath;
use crate::util::{Dir, LONG};
use std::collections::BTreeSet;
use std::env::consts::ARCH;
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
    /// OpenSSH, on a host where no directory of trace executes.
    NoExec,
}

/// Programs in whose place busybox stands on a host of [`Kind::Dropbear`].
const APPLETS: [&str; 9] = [
    "dash", "ls", "rm", "sleep", "dd", "cat", "mktemp", "wc", "head",
];

pub(crate) struct Hosts {
    pub(crate) path: TestPath,
    dir: Dir,
    bridge: String,
    kinds: usize,
    servers: Vec<Child>,
}

impl Hosts {
    /// Hosts 1 to the number of `kinds`; host 0 is the near end.
    pub(crate) fn new(kinds: &[Kind]) -> Self {
        crate::lab::require(&[
            "ip",
            "unshare",
            "nsenter",
            "ssh",
            "ssh-keygen",
            "sshd",
            "strip",
        ]);
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
        for target in [ARCH, &format!("full/{ARCH}")] {
            let node = dir.file("nodes").join(target).join("subsegment-tcp-speeds");
            std::fs::create_dir_all(node.parent().unwrap()).unwrap();
            let program = env!("CARGO_BIN_EXE_subsegment-tcp-speeds");
            run("strip", &["-o", node.to_str().unwrap(), program]);
        }
        std::fs::write(dir.file("banner"), "Authorized use only.\n").unwrap();
        let mut hosts = Self {
            path,
            dir,
            bridge,
            kinds: kinds.len(),
            servers: Vec::new(),
        };
        hosts.configure("", |node| format!("10.79.0.{}", node + 1));
        for (at, kind) in kinds.iter().enumerate() {
            let server = hosts.serve(at + 1, *kind);
            hosts.servers.push(server);
        }
        hosts.await_servers(kinds.len());
        hosts
    }

    /// Writes the configuration of ssh: `first`, and the address of each host.
    pub(crate) fn configure(&self, first: &str, address: impl Fn(usize) -> String) {
        let mut config = first.to_owned();
        for node in 1..=self.kinds {
            config += &format!("Host h{node}\nHostName {}\n", address(node));
        }
        config += &format!(
            "Host *\nIdentityFile {0}/client\nUserKnownHostsFile {0}/known\nUser root\n\
             StrictHostKeyChecking accept-new\n",
            self.dir.0.display()
        );
        std::fs::write(self.dir.file("config"), config).unwrap();
    }

    /// Takes all IPv4 addresses from the hosts and gives each one of IPv6, over which ssh and
    /// measured bytes go from now on.
    pub(crate) fn become_ipv6_only(&self) {
        for node in 0..=self.servers.len() {
            let space = self.path.space(node);
            let links = run("ip", &["-n", &space, "-br", "link"]);
            for link in links.lines() {
                let device = link.split(['@', ' ']).next().unwrap();
                ip(&format!("-n {space} -4 addr flush dev {device}"));
            }
            let inner = format!("{}i{node}", self.bridge);
            ip(&format!(
                "-n {space} addr add fd79::{}/64 dev {inner} nodad",
                node + 1
            ));
        }
        self.configure("", |node| format!("fd79::{}", node + 1));
    }

    fn serve(&self, node: usize, kind: Kind) -> Child {
        let here = self.dir.0.display();
        let mut script = format!(
            "set -e\nmount --make-rprivate /\n\
             cp {here}/authorized_keys /run/keys.{node} 2>/dev/null || true\n\
             mkdir -p /run/sshd\n\
             for of in /dev/shm /var/tmp; do mount -t tmpfs -o mode=1777 tmpfs $of; done\n\
             mount -t tmpfs -o mode=700 tmpfs /root\nmkdir -m 700 /root/.ssh\n\
             cp {here}/authorized_keys /root/.ssh/authorized_keys\n\
             echo \"echo Welcome; printf prompt%% ; echo warned >&2\" > /root/.bashrc\n"
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
            self.install(node, "uname", &format!("#!/bin/sh\necho Linux {machine}\n"));
            options = format!(" -o SetEnv=PATH={}:/usr/bin:/bin", bin.display());
        }
        if kind == Kind::NoExec {
            // The files of this test are under one of them.
            script += "for of in /dev/shm /tmp /var/tmp /root; do mount --bind $of $of\n\
                       mount -o remount,bind,noexec $of; done\n";
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
                 -o PidFile=none -o StrictModes=no -o PermitRootLogin=yes \
                 -o Banner={here}/banner{options}\n"
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

    /// Puts a program before all others of a host of [`Kind::Machine`].
    pub(crate) fn install(&self, node: usize, name: &str, script: &str) {
        let file = self.dir.file(&format!("bin{node}")).join(name);
        crate::fake::write(&file, script);
    }

    /// Returns a file in the directory of this test.
    pub(crate) fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.file(name)
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

    /// Returns the directory of this program without debug information, as in a release.
    pub(crate) fn nodes(&self) -> std::path::PathBuf {
        self.dir.file("nodes")
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
        let binaries = std::env::var_os("STS_BINARIES").map_or(self.nodes(), Into::into);
        if !more.contains("--binaries") {
            command.arg("--binaries").arg(binaries);
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
