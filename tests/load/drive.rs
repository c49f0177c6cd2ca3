//! The clients: each opens its connections, measures, and prints what it found.

use super::process::{cpu, memory_kib};
use super::serve::{drain, fill, ECHO, GROUP, MESSAGE, SINK, SOURCE};
use super::Outcome;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for anything: a proxy that hangs is an error, not a hanging benchmark.
const PATIENCE: Duration = Duration::from_secs(20);

/// Clients that connect at the same time.
const CONNECTORS: u64 = 4;

/// Memory has settled when it moved by less than this many KiB, or a thousandth, in one second.
const SETTLED_KIB: u64 = 64;

fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A connection to the echo server, with the first ping made.
fn connect_echo(addr: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect(addr)?;
    let mut first = [0x5a; MESSAGE + 1];
    first[0] = ECHO;
    stream.write_all(&first)?;
    stream.read_exact(&mut first[1..])?;
    Ok(stream)
}

fn ping(stream: &mut TcpStream, message: &mut [u8; MESSAGE]) -> io::Result<()> {
    stream.write_all(message)?;
    stream.read_exact(message)
}

/// Waits for `span` on a connection that is silent; an error if bytes arrive, or it ends.
fn stay_idle(stream: &mut TcpStream, span: Duration) -> Outcome {
    stream.set_read_timeout(Some(span))?;
    match stream.read(&mut [0; 1]) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err("an idle connection did not stay as it was".into()),
    }
}

fn show_cpu(name: &str, before: Duration, pids: &[u32], messages: u64) -> Outcome {
    if !pids.is_empty() {
        let used = cpu(pids)?.saturating_sub(before);
        println!("{name}\t{:.3}", used.as_secs_f64() * 1e6 / messages as f64);
    }
    Ok(())
}

/// Messages of 64 bytes there and back, one after the other.
pub(super) fn pingpong(addr: SocketAddr, count: usize, pids: &[u32]) -> Outcome {
    let mut stream = connect_echo(addr)?;
    let mut message = [0x5a; MESSAGE];
    for _ in 0..count / 10 {
        ping(&mut stream, &mut message)?;
    }
    let mut nanos = Vec::with_capacity(count);
    let before = cpu(pids)?;
    for _ in 0..count {
        let begun = Instant::now();
        ping(&mut stream, &mut message)?;
        nanos.push(begun.elapsed().as_nanos() as u64);
    }
    // While the connection lives: a proxy's threads or child for it end with it.
    show_cpu("ping_cpu_us", before, pids, count as u64)?;
    nanos.sort_unstable();
    for (name, percent) in [("ping_p50_us", 50), ("ping_p99_us", 99)] {
        let at = nanos
            .get(count * percent / 100)
            .ok_or("no pings were asked for")?;
        println!("{name}\t{:.3}", *at as f64 / 1e3);
    }
    Ok(())
}

fn ask(stream: &mut TcpStream, kind: u8, total: u64) -> io::Result<()> {
    let mut request = vec![kind];
    request.extend(total.to_be_bytes());
    stream.write_all(&request)
}

fn show_rate(name: &str, mib: u64, begun: Instant) {
    println!("{name}\t{:.1}", mib as f64 / begun.elapsed().as_secs_f64());
}

/// To the server; ends when the server confirms that it has everything.
pub(super) fn bulk_up(addr: SocketAddr, mib: u64) -> Outcome {
    let mut stream = connect(addr)?;
    let total = mib << 20;
    let begun = Instant::now();
    ask(&mut stream, SINK, total)?;
    fill(&mut stream, total)?;
    let mut got = [0; 8];
    stream.read_exact(&mut got)?;
    if u64::from_be_bytes(got) != total {
        return Err("bytes were lost on the way up".into());
    }
    show_rate("bulk_up_mib_s", mib, begun);
    Ok(())
}

/// From the server.
pub(super) fn bulk_down(addr: SocketAddr, mib: u64) -> Outcome {
    let mut stream = connect(addr)?;
    let total = mib << 20;
    let begun = Instant::now();
    ask(&mut stream, SOURCE, total)?;
    if drain(&mut stream, total)? != total {
        return Err("bytes were lost on the way down".into());
    }
    show_rate("bulk_down_mib_s", mib, begun);
    Ok(())
}

/// Ping-pong on many connections at once: in each turn one message on every connection, in one
/// thread, which like the server's is no limit to what is measured.
pub(super) fn many(addr: SocketAddr, connections: u16, span: Duration, pids: &[u32]) -> Outcome {
    let group = u64::from(std::process::id()) << 16 | u64::from(connections);
    let mut streams = Vec::new();
    for _ in 0..connections {
        let mut stream = connect(addr)?;
        ask(&mut stream, GROUP, group)?;
        streams.push(stream);
    }
    // The first turn ends when every connection is through.
    turn(&mut streams)?;
    let before = cpu(pids)?;
    let begun = Instant::now();
    let mut messages = 0;
    while begun.elapsed() < span {
        turn(&mut streams)?;
        messages += u64::from(connections);
    }
    println!(
        "many_per_s\t{:.0}",
        messages as f64 / begun.elapsed().as_secs_f64()
    );
    show_cpu("many_cpu_us", before, pids, messages)
}

fn turn(streams: &mut [TcpStream]) -> io::Result<()> {
    let mut message = [0x5a; MESSAGE];
    for stream in &mut *streams {
        stream.write_all(&message)?;
    }
    for stream in streams {
        stream.read_exact(&mut message)?;
    }
    Ok(())
}

/// Connections per second, each with one ping, from a few clients at a time.
pub(super) fn connect_rate(addr: SocketAddr, count: u64) -> Outcome {
    let begun = Instant::now();
    let made = thread::scope(|scope| {
        let client =
            || (0..count / CONNECTORS).try_fold(0, |n, _| connect_echo(addr).map(|_| n + 1));
        let threads: Vec<_> = (0..CONNECTORS).map(|_| scope.spawn(client)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a client thread does not panic"))
            .sum::<io::Result<u64>>()
    })?;
    println!(
        "connects_per_s\t{:.0}",
        made as f64 / begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Memory of each process per connection that was used once and then idles.
pub(super) fn idle(addr: SocketAddr, count: u64, pids: &[u32]) -> Outcome {
    let mut first = connect_echo(addr)?;
    let before = settled(&mut first, pids)?;
    let others: Result<Vec<_>, _> = (0..count).map(|_| connect_echo(addr)).collect();
    let others = others?;
    let after = settled(&mut first, pids)?;
    let each = after.saturating_sub(before) as f64 / count as f64 / pids.len() as f64;
    drop(others);
    println!("idle_{count}_kib\t{each:.2}");
    Ok(())
}

/// The memory once it no longer moves: a proxy may give buffers back when a connection is quiet.
fn settled(idle: &mut TcpStream, pids: &[u32]) -> Result<u64, Box<dyn Error>> {
    let mut last = memory_kib(pids)?;
    // Two seconds at least, so that what happens after one second of idling has happened.
    stay_idle(idle, Duration::from_secs(2))?;
    for _ in 0..10 {
        let now = memory_kib(pids)?;
        if now.abs_diff(last) <= SETTLED_KIB.max(now / 1000) {
            return Ok(now);
        }
        last = now;
        stay_idle(idle, Duration::from_secs(1))?;
    }
    Ok(last)
}
