//! Every error of a path over real ssh servers: the line names host, step and remedy.

use crate::fake::write;
use crate::hosts::{Hosts, Kind};
use crate::lab::run;
use crate::util::text;
use std::env::consts::ARCH;
use std::os::unix::fs::symlink;
use std::time::Duration;

/// Aliases of ssh for the first host.
const ALIASES: &str = "Host strict\nHostName 10.79.0.2\nStrictHostKeyChecking yes\n\
                       UserKnownHostsFile /dev/null\nHost closed\nHostName 10.79.0.2\nPort 23\n\
                       Host twin\nHostName 10.79.0.2\n";

#[test]
fn every_error_over_real_ssh_names_the_host_the_step_and_the_remedy() {
    let hosts = Hosts::new(&[
        Kind::OpenSsh,
        Kind::NoExec,
        Kind::Machine("ppc64le"),
        Kind::Machine("armv7l"),
        Kind::OpenSsh,
    ]);
    let nodes = 1..=5;
    let before: Vec<_> = nodes.clone().map(|node| hosts.contents(node)).collect();
    hosts.configure(ALIASES, |node| format!("10.79.0.{}", node + 1));
    // No interpreter, as where there is no such libc; and what an old kernel makes of a new one.
    let (unfit, fit) = (hosts.file("unfit"), hosts.file("fit"));
    let name = "subsegment-tcp-speeds";
    write(&unfit.join("armv7").join(name), "#!/no/such/loader\n");
    let script = "#!/bin/sh\necho FATAL: kernel too old >&2; exit 127\n";
    write(&unfit.join("armv5te").join(name), script);
    std::fs::create_dir(&fit).unwrap();
    for target in ["armv7", ARCH] {
        symlink(hosts.nodes().join(ARCH), fit.join(target)).unwrap();
    }
    let old = "#!/bin/sh\necho subsegment-tcp-speeds 0.0.9\n";
    hosts.install(4, name, old);
    // A firewall keeps the first host from this address of the last one.
    let space = hosts.path.space(1);
    run(
        "ip",
        &["-n", &space, "route", "add", "unreachable", "10.79.5.6"],
    );

    // The first host is reached at 10.78.0.2, and all of them at 10.79.0.
    for (line, code, parts) in [
        (
            "h1 nosuch.invalid",
            3,
            &[
                "nosuch.invalid: ssh: Could not resolve",
                "name the host as ssh knows it",
            ][..],
        ),
        (
            "h1 nobody@h2",
            3,
            &[
                "h2: nobody@10.79.0.3: Permission denied (publickey,",
                "ssh-copy-id nobody@h2",
            ],
        ),
        (
            "h1 strict",
            3,
            &[
                "strict: Host key verification failed; log in once by hand",
                "its key: ssh strict",
            ],
        ),
        (
            "h1 closed",
            3,
            &[
                "closed: ssh: connect to host 10.79.0.2 port 23: Connection refused",
                "its port?",
            ],
        ),
        (
            "h1 h2",
            3,
            &[
                "h2: no directory to run from",
                "(noexec)",
                "install subsegment-tcp-speeds there",
            ],
        ),
        (
            "h1 h3",
            3,
            &[
                "h3: is a \"ppc64le\" (little-endian)",
                "build the program there and install it",
            ],
        ),
        (
            "h4 --binaries UNFIT",
            3,
            &[
                "h4: ",
                "armv7/subsegment-tcp-speeds does not run there: \"",
                "(its loader or libc is missing there: a static build needs none)",
                "armv5te/subsegment-tcp-speeds does not run there: \"FATAL: kernel too old\"",
                "build the program for a \"Linux armv7l\" and use --binaries DIR",
            ],
        ),
        (
            "h4 --installed-only",
            3,
            &[
                "h4: versions differ",
                "is \"subsegment-tcp-speeds 0.0.9\"",
                "install that",
            ],
        ),
        // The first host is given its own address for that of the next.
        (
            "h1=10.78.0.2 h5=10.79.0.2 --ports 9000-9000",
            2,
            &[
                "h5 cannot be reached from h1: 10.79.0.2 is h1 itself, a loop; name its address: \
                 h5=ADDR",
            ],
        ),
        (
            "--from h5 h1=10.79.0.2 h4=10.79.0.2 --ports 9000-9000 --binaries FIT",
            2,
            &[
                "h4 cannot be reached from h1: 10.79.0.2 is h1 itself, a loop; name its address: \
                 h4=ADDR",
            ],
        ),
        // The same address, one host later.
        (
            "h1=10.78.0.2 h4=10.79.0.5 h5=10.79.0.2 --ports 9000-9000 --binaries FIT",
            2,
            &["h5 cannot be reached from h4: 10.79.0.2 is h1, a loop; name its address: h5=ADDR"],
        ),
        (
            "h1=10.78.0.2 h5=10.79.5.6",
            2,
            &[
                "h5 cannot be reached from h1 at 10.79.5.6:",
                ": No route to host; open a range and use --ports, or name its address: h5=ADDR",
            ],
        ),
        (
            "h1=10.78.0.2 h5=10.79.5.6 --ports 9000-9000",
            2,
            &[
                "h5 cannot be reached from h1 at 10.79.5.6:9000: No route to host; \
                 is 9000-9000 open there? else name its address: h5=ADDR",
            ],
        ),
        (
            "h1=10.78.0.2 h5=no-such-host.invalid",
            2,
            &[
                "h5 cannot be reached from h1: ",
                "no-such-host.invalid",
                "its address: h5=ADDR",
            ],
        ),
        (
            "h1=10.78.0.2 twin=10.79.0.2",
            0,
            &["note: h1 and twin are one machine"],
        ),
    ] {
        let mut command = hosts.local("-c 3 -i 0.01 --timeout 2");
        let place = |word: &str| match word {
            "FIT" => fit.clone(),
            "UNFIT" => unfit.clone(),
            word => word.into(),
        };
        let output = command.args(line.split(' ').map(place)).output().unwrap();
        let errors = text(&output.stderr);
        println!("TRACE trace {line}\nTRACE   {}", errors.trim_end());
        assert_eq!(output.status.code(), Some(code), "{line}: {errors}");
        let last = errors.lines().last().unwrap_or_default();
        for part in parts {
            assert!(last.contains(part), "{line}: {part:?} is not in {errors}");
        }
    }
    for node in nodes {
        hosts.await_clean(node, &before[node - 1], Duration::from_secs(2));
    }
    drop(hosts);
    crate::path::take_down();
}
