//! Packets of an interface, or of all of them, while links go down and come up again.

use super::{complain, lock, Session, Source};
use crate::passive::{Filter, Packet, LINK_ETHERNET, LINK_RAW};
use crate::sys::link::LinkChanges;
use crate::sys::packet::{interface_name, is_link_down, PacketSocket};
use std::io;
use std::sync::{Arc, Mutex};

/// The longest frame of a live capture that is kept; gathered segments (GRO) reach 64 KiB.
const FRAME: usize = 128 * 1024;

/// Opens the socket of a live capture.
pub(super) fn open(interface: &str, filter: &Filter) -> Result<Source, String> {
    match open_socket(interface, filter) {
        Ok(socket) => {
            if !filter.is_empty() {
                complain(&format!(
                    "{interface}: the kernel filters; tunnels are filtered here by what is inside"
                ));
            }
            Ok(Source::Live(Arc::new(socket), interface.to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(format!(
            "capture on {interface}: {error}: it takes root or CAP_NET_RAW; or read from a pipe: \
             sudo tcpdump -i {interface} -U -w - | ... passive -"
        )),
        Err(error) => Err(format!("capture on {interface}: {error}")),
    }
}

/// Opens a socket on an interface, or on all of them for `any`.
fn open_socket(interface: &str, filter: &Filter) -> io::Result<PacketSocket> {
    let program = match filter.is_empty() {
        true => Vec::new(),
        false => filter.program(),
    };
    PacketSocket::open((interface != "any").then_some(interface), &program)
}

/// Returns `true` if an interface has this name and is up (IFF_UP).
fn link_is_up(interface: &str) -> bool {
    let flags = std::fs::read_to_string(format!("/sys/class/net/{interface}/flags"));
    let flags = flags.ok().and_then(|text| {
        let digits = text.trim().strip_prefix("0x")?.to_owned();
        u32::from_str_radix(&digits, 16).ok()
    });
    flags.is_some_and(|flags| flags & 1 == 1)
}

/// Waits until an interface is up, and returns a new socket if it is another one under the name.
///
/// # Errors
///
/// As rtnetlink(7), if its changes cannot be received.
fn wait_for_link(
    socket: &PacketSocket,
    interface: &str,
    filter: &Filter,
) -> io::Result<Option<PacketSocket>> {
    // Before the first look, so that no change between a look and a wait is missed.
    let changes = LinkChanges::subscribe()?;
    loop {
        if link_is_up(interface) {
            if socket.is_on(interface) {
                return Ok(None);
            }
            if let Ok(socket) = open_socket(interface, filter) {
                return Ok(Some(socket));
            }
        }
        changes.wait()?;
    }
}

/// Captures until something ends it, and returns what that was.
pub(super) fn receive(
    socket: Arc<PacketSocket>,
    interface: &str,
    filter: &Filter,
    session: &Mutex<Session>,
) -> Option<String> {
    const ARPHRD_ETHER: u16 = 1;
    const ARPHRD_LOOPBACK: u16 = 772;
    let mut frame = vec![0; FRAME];
    let mut socket = socket;
    lock(session).kernel.socket = Some(Arc::clone(&socket));
    loop {
        let received = match socket.receive(&mut frame) {
            Ok(received) => received,
            Err(error) if is_link_down(&error) => {
                complain(&format!("{interface}: the link went down; waiting for it"));
                let renewed = match wait_for_link(&socket, interface, filter) {
                    Ok(renewed) => renewed,
                    Err(error) => return Some(format!("waiting for {interface}: {error}")),
                };
                complain(&format!("{interface}: the link is up again"));
                if let Some(renewed) = renewed {
                    let mut session = lock(session);
                    // What the old socket dropped is counted before it goes.
                    session.kernel.dropped();
                    socket = Arc::new(renewed);
                    session.kernel.socket = Some(Arc::clone(&socket));
                }
                continue;
            }
            Err(error) => return Some(error.to_string()),
        };
        // On loopback each packet goes out and comes in; one of the two will do.
        if received.outgoing && received.hardware == ARPHRD_LOOPBACK {
            continue;
        }
        let mut session = lock(session);
        if interface == "any" {
            session.name_interface(received.interface);
        }
        session.packets(&[Packet {
            time: received.time,
            interface: match interface {
                "any" => received.interface,
                _ => 0,
            },
            link: match received.hardware {
                ARPHRD_ETHER | ARPHRD_LOOPBACK => LINK_ETHERNET,
                // None (tun), PPP, raw IP, IPIP, IP6IP6, SIT, GRE: no link header.
                65534 | 512 | 519 | 768 | 769 | 776 | 778 => LINK_RAW,
                _ => u16::MAX,
            },
            original: received.original,
            data: &frame[..received.kept],
        }]);
        session.printer.flush();
        if !session.goes_on() {
            return None;
        }
    }
}

impl Session {
    /// Gives the analysis the name of an interface that it does not know yet.
    fn name_interface(&mut self, number: u32) {
        if !self.analyzer.knows_interface(number) {
            let name = interface_name(number).unwrap_or_else(|| format!("interface {number}"));
            self.analyzer.name_interface(number, name);
        }
    }
}
