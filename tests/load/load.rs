//! The load generator of `scripts/bench`: a server, the clients that measure through a proxy, and
//! the table. Arguments in; `NAME<tab>VALUE` lines out, to which the script adds the name of the
//! measured program.
//!
//! A bench target without a harness, so that it is built as a release is and is no part of the
//! product. One thread per connection on both sides, as an application of the simplest kind has.

mod capture;
mod drive;
mod process;
mod serve;
mod table;

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

type Outcome = Result<(), Box<dyn Error>>;

const USAGE: &str = "\
usage (as scripts/bench calls it; PID = the proxies, for their CPU time or memory):
    load serve ADDR                  echo, sink and source in one, by the first byte of a client
    load ports COUNT                 free TCP ports
    load await ADDR PID              until ADDR can be connected to, or the process is gone
    load pingpong ADDR COUNT [PID]...      64 bytes there and back: p50, p99, CPU per message
    load bulk-up ADDR MIB            to the server, until it has it all
    load bulk-down ADDR MIB          from the server
    load many ADDR CONNECTIONS MILLIS [PID]...   ping-pong on all of them at once
    load connect-rate ADDR COUNT     connect, 64 bytes there and back, close
    load idle ADDR COUNT PID...      memory of each process per idle connection
    load start ADDR COMMAND [ARG]... time from exec until ADDR can be connected to
    load capture PACKETS CONNECTIONS       a capture of so many at once, on stdout
    load table FILE                  medians and targets of FILE: set, peer, round, name, value
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load {}: {error}", args.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Outcome {
    match *args {
        ["serve", addr] => serve::serve(address(addr)?),
        ["ports", count] => serve::ports(count.parse()?),
        ["await", addr, pid] => process::wait_for(address(addr)?, pid.parse()?),
        ["pingpong", addr, count, ref pids @ ..] => {
            drive::pingpong(address(addr)?, count.parse()?, &numbers(pids)?)
        }
        ["bulk-up", addr, mib] => drive::bulk_up(address(addr)?, mib.parse()?),
        ["bulk-down", addr, mib] => drive::bulk_down(address(addr)?, mib.parse()?),
        ["many", addr, connections, millis, ref pids @ ..] => {
            let span = Duration::from_millis(millis.parse()?);
            drive::many(address(addr)?, connections.parse()?, span, &numbers(pids)?)
        }
        ["connect-rate", addr, count] => drive::connect_rate(address(addr)?, count.parse()?),
        ["idle", addr, count, ref pids @ ..] if !pids.is_empty() => {
            drive::idle(address(addr)?, count.parse()?, &numbers(pids)?)
        }
        ["start", addr, command, ref args @ ..] => process::start(address(addr)?, command, args),
        ["capture", packets, at_once] => capture::capture(packets.parse()?, at_once.parse()?),
        ["table", file] => table::print(Path::new(file)),
        // What `cargo bench` and `cargo test --all-targets` call it with.
        [] | ["--bench"] | ["--test"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => Err(format!("no such call\n{USAGE}").into()),
    }
}

fn address(text: &str) -> Result<SocketAddr, Box<dyn Error>> {
    text.parse()
        .map_err(|_| format!("{text}: not an IP:PORT").into())
}

fn numbers(texts: &[&str]) -> Result<Vec<u32>, Box<dyn Error>> {
    let parsed: Result<_, _> = texts.iter().map(|text| text.parse()).collect();
    Ok(parsed?)
}
