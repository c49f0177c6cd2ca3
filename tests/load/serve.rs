//! The end of every path: one listener whose clients name with their first byte what they want.

use super::Outcome;
use std::collections::HashMap;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Wants each byte back.
pub(super) const ECHO: u8 = b'E';
/// Sends as many bytes as the next 8 give (big-endian), then wants that number back.
pub(super) const SINK: u8 = b'S';
/// Is one of a group that pings in step: 8 bytes name the group, the last two of them its size.
pub(super) const GROUP: u8 = b'G';
/// Wants as many bytes as the next 8 give (big-endian).
pub(super) const SOURCE: u8 = b'B';

/// What one bulk read or write takes; larger than any proxy's, so that the ends are not the limit.
pub(super) const BULK_BYTES: usize = 256 << 10;

/// Bytes of a message of a group, and of every ping.
pub(super) const MESSAGE: usize = 64;

/// Members of groups that are not complete yet.
type Groups = Mutex<HashMap<u64, Vec<TcpStream>>>;

/// Serves until it is killed.
pub(super) fn serve(addr: SocketAddr) -> Outcome {
    let listener = TcpListener::bind(addr)?;
    let groups: Arc<Groups> = Arc::default();
    for client in listener.incoming() {
        let client = client?;
        let groups = Arc::clone(&groups);
        // A client that goes away is its own business: the load generator reports it.
        thread::Builder::new()
            .stack_size(64 << 10)
            .spawn(move || drop(answer(client, &groups)))?;
    }
    Ok(())
}

fn answer(mut client: TcpStream, groups: &Groups) -> Result<(), Box<dyn Error>> {
    client.set_nodelay(true)?;
    let mut kind = [0];
    client.read_exact(&mut kind)?;
    if kind == [ECHO] {
        let mut buffer = [0; 4096];
        loop {
            match client.read(&mut buffer)? {
                0 => return Ok(()),
                got => client.write_all(&buffer[..got])?,
            }
        }
    }
    let mut wanted = [0; 8];
    client.read_exact(&mut wanted)?;
    let total = u64::from_be_bytes(wanted);
    if kind == [GROUP] {
        let mut groups = groups.lock().expect("no thread panics with it");
        let members = groups.entry(total).or_default();
        members.push(client);
        if members.len() == usize::from(total as u16) {
            let members = groups.remove(&total).unwrap_or_default();
            drop(groups);
            echo_in_step(members)?;
        }
    } else if kind == [SINK] {
        let got = drain(&mut client, total)?;
        client.write_all(&got.to_be_bytes())?;
    } else if kind == [SOURCE] {
        fill(&mut client, total)?;
    }
    Ok(())
}

/// One message from each, then again: the group sends to all before it reads from any. One thread
/// for all, woken once or twice per turn, so that the proxy between is what limits the rate.
fn echo_in_step(mut members: Vec<TcpStream>) -> std::io::Result<()> {
    let mut message = [0; MESSAGE];
    loop {
        for member in &mut members {
            member.read_exact(&mut message)?;
            member.write_all(&message)?;
        }
    }
}

/// Reads `total` bytes, or less if the stream ends before; returns how many.
pub(super) fn drain(stream: &mut TcpStream, total: u64) -> std::io::Result<u64> {
    let mut buffer = vec![0; BULK_BYTES];
    let mut got = 0;
    while got < total {
        match stream.read(&mut buffer)? {
            0 => break,
            some => got += some as u64,
        }
    }
    Ok(got)
}

/// Writes `total` bytes.
pub(super) fn fill(stream: &mut TcpStream, total: u64) -> std::io::Result<()> {
    let buffer = vec![0x5a; BULK_BYTES];
    let mut left = total;
    while left > 0 {
        let part = left.min(BULK_BYTES as u64);
        stream.write_all(&buffer[..part as usize])?;
        left -= part;
    }
    Ok(())
}

/// Prints ports that are free now. All are held until the last is known, so they differ.
pub(super) fn ports(count: usize) -> Outcome {
    let held: Result<Vec<TcpListener>, _> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect();
    for listener in held? {
        println!("{}", listener.local_addr()?.port());
    }
    Ok(())
}
