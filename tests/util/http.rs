//! A process asked over HTTP.

use super::{text, Process, LONG};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Tries now and then until there is something.
#[track_caller]
pub fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let tick = crossbeam_channel::tick(Duration::from_millis(100));
    let deadline = Instant::now() + LONG;
    let mut tries = tick.iter().take_while(|_| Instant::now() < deadline);
    tries
        .find_map(|_| found())
        .unwrap_or_else(|| panic!("waited in vain for {what}"))
}

/// Status and body of an answer.
#[track_caller]
pub fn ask(address: SocketAddr, target: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let answer = text(&bytes);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    // Prometheus' own API answers in chunks where an answer is long.
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked {
        unchunked(body)
    } else {
        body.to_owned()
    };
    (status.expect("a status"), body)
}

fn unchunked(mut body: &str) -> String {
    let mut out = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").expect("one more chunk");
        match usize::from_str_radix(size, 16).expect("the size of a chunk") {
            0 => return out, // What has no such end was cut off.
            size => {
                out.push_str(&rest[..size]);
                body = rest[size..].strip_prefix("\r\n").expect("its end");
            }
        }
    }
}

/// The address at which a process has logged that its metrics are.
#[track_caller]
pub fn metrics_of(process: &mut Process) -> SocketAddr {
    let line = process.wait_line(": metrics at http://");
    let rest = line.split("http://").nth(1).unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}
