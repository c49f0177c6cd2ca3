//! Options that select the role, and options of the traffic.

use super::super::host_port::HostPort;
use super::super::value;
use super::{
    Flag, Mode, Section, Set, BLOCK_MAX_BYTES, CARRYING, CONNECTING, FORWARDING, FRAMING,
    LISTENING, MEASURING, OPENING, PROXYING, ROW, SEEING_FRAMES, STAMPING, WITH_SOCKETS,
};
use crate::report::State;
use crate::session::admission::Accept;
use crate::wire::proxy::ProxyVersion;

/// Far above the numbers of threads and descriptors that a process can have.
const CONNECTIONS_MAX: u32 = 1_000_000;

pub(super) const FLAGS: &[Flag] = &[
    Flag {
        long: "listen",
        short: Some('l'),
        value: Some("ADDR"),
        section: Section::Role,
        brief: "accept connections here",
        help: "host:port, [v6]:port, or :port and *:port for both families; a name with several \
            addresses listens on all of them. Port 0 lets the kernel choose; the log says which. \
            Without --listen, stdin is the input.",
        modes: LISTENING,
        set: Set::Text(|s, text| {
            s.listen = Some(text.parse()?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "forward-to",
        short: Some('f'),
        value: Some("ADDR"),
        section: Section::Role,
        brief: "the next hop",
        help: "host:port or [v6]:port. A name with several addresses is tried address by address. \
            Without --forward-to, blocks are echoed to where they came from.",
        modes: FORWARDING,
        set: Set::Text(|s, text| {
            s.forward_to = Some(HostPort::hop(text)?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "accept",
        value: Some("KIND"),
        section: Section::Role,
        default: Some("auto"),
        brief: "clients: auto, framed or raw",
        help: "auto: a client that begins with our magic is framed, any other is plain TCP. raw: \
            plain clients only, needed where the server speaks first (ssh, SMTP, MySQL). framed: \
            frames alone.",
        modes: LISTENING,
        set: Set::Choice(&["auto", "framed", "raw"], |s, at| {
            s.accept = [Accept::Auto, Accept::Framed, Accept::Raw][at];
        }),
        ..ROW
    },
    Flag {
        long: "remove-perf-headers",
        short: Some('r'),
        section: Section::Role,
        brief: "the next hop is a plain server",
        help: "Plain bytes go out to it, and its answers are framed on the way back. With \
            --accept raw: one plain proxy that measures itself.",
        modes: &[Mode::Exit, Mode::Proxy],
        set: Set::Switch(|s| s.remove = true),
        ..ROW
    },
    Flag {
        long: "send-proxy",
        value: Some("VERSION"),
        section: Section::Role,
        brief: "name the client to the server: v1, v2",
        help: "The server's connection begins with a preamble of the PROXY protocol: the address \
            of the client that the entry saw. Without one v1 is UNKNOWN and v2 LOCAL. At an exit \
            it needs --key-file or --allow.",
        modes: &[Mode::Exit, Mode::Proxy],
        set: Set::Choice(&["v1", "v2"], |s, at| {
            s.send_proxy = Some([ProxyVersion::V1, ProxyVersion::V2][at]);
        }),
        ..ROW
    },
    Flag {
        long: "server-check",
        value: Some("SECONDS"),
        section: Section::Traffic,
        default: Some("0"),
        brief: "time the server; 0 = by traffic alone",
        help: "While a probe session is open, an exit connects to its server if no client has \
            done so for this long, and closes at once. The probe reports the connect and a server \
            that is down. Every check is a connection without a request in the log of the server; \
            MySQL blocks a host after some (max_connect_errors).",
        modes: &[Mode::Exit, Mode::Trace],
        set: Set::Text(|s, text| {
            s.server_check = Some(value::duration(text)?).filter(|span| !span.is_zero());
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "accept-proxy",
        section: Section::Role,
        brief: "clients begin with a PROXY preamble",
        help: "Behind a balancer that sends one (send-proxy of HAProxy, proxy_protocol of nginx), \
            v1 or v2. It needs --allow with the addresses of the balancers. A client without a \
            whole preamble within --timeout is ended.",
        modes: &[Mode::Entry, Mode::Proxy],
        set: Set::Switch(|s| s.accept_proxy = true),
        ..ROW
    },
    Flag {
        long: "timeout",
        short: Some('t'),
        value: Some("SECONDS"),
        section: Section::Traffic,
        default: Some("10"),
        brief: "longest wait of one operation",
        help: "Holds for each of: connecting (all addresses of a name together), a frame header \
            once begun, progress of a payload; at source and probe also a write and an \
            outstanding answer. Durations are seconds (2, 0.002) or have a unit (2s, 10ms, 5m). \
            For probe, 10:unknown sets the state of a path that does not answer in time, as \
            plugins have it; it is critical otherwise.",
        modes: MEASURING,
        set: Set::Text(|s, text| {
            let (span, state) = match text.split_once(':') {
                Some((span, state)) => (span, Some(plugin_state(state)?)),
                None => (text, None),
            };
            s.common.timeout = value::positive_duration(span)?;
            s.on_timeout = state;
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "idle-timeout",
        value: Some("SECONDS"),
        section: Section::Traffic,
        default: Some("0"),
        brief: "end a connection without bytes; 0 = never",
        help: "Counts bytes of either direction; a new client that sends nothing is ended too.",
        modes: CARRYING,
        set: Set::Text(|s, text| {
            s.common.idle_timeout = Some(value::duration(text)?).filter(|span| !span.is_zero());
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "block",
        short: Some('b'),
        value: Some("BYTES"),
        section: Section::Traffic,
        default: Some("16384"),
        brief: "the source's block size; 16k, 1M",
        help: "The most bytes of one read of stdin, 1 to 1M, with suffixes k (1024) and M.",
        modes: &[Mode::Source],
        set: Set::Text(|s, text| {
            s.block = value::bytes(text, 1..=BLOCK_MAX_BYTES)?;
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "dont-add-perf-headers",
        short: Some('n'),
        section: Section::Traffic,
        brief: "add no stamps; the hop still counts",
        help: "Frames are passed on without this node's stamps; it still shows in the path.",
        modes: SEEING_FRAMES,
        set: Set::Switch(|s| s.common.stamp = false),
        ..ROW
    },
    Flag {
        long: "no-kernel-times",
        section: Section::Traffic,
        brief: "no arrival times from the kernel",
        help:
            "By default (Linux) a stamp also holds the time at which the kernel had the block. It \
            separates a process that reads late from a slow network.",
        modes: STAMPING,
        set: Set::Switch(|s| s.common.kernel_times = false),
        ..ROW
    },
    Flag {
        long: "sample",
        value: Some("SECONDS"),
        section: Section::Traffic,
        default: Some("0.01"),
        brief: "mark one block per so long; 0 = each",
        help: "For raw clients: the first block of a connection is measured, then at most one in \
            this time (and 1000 per second in the whole process). The others carry no stamps and \
            read no clock, so that measuring does not slow bulk traffic.",
        modes: PROXYING,
        set: Set::Text(|s, text| {
            s.common.sample = value::duration(text)?;
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "hop-limit",
        value: Some("HOPS"),
        section: Section::Traffic,
        default: Some("32"),
        brief: "most nodes on a path that starts here",
        modes: OPENING,
        set: Set::Text(|s, text| {
            s.common.hop_limit = value::integer(text, 1..=u8::MAX)?;
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "bind",
        value: Some("SOURCE"),
        section: Section::Traffic,
        brief: "connect from this address or interface",
        help: "An address of this host, or the name of an interface or a VRF: the uplink that \
            connects take. Names are resolved the usual way. An interface takes CAP_NET_RAW before \
            Linux 5.7.",
        modes: CONNECTING,
        set: Set::Text(|s, text| {
            s.common.socket.source = Some(value::source(text)?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "dscp",
        value: Some("CLASS"),
        section: Section::Traffic,
        brief: "mark sent packets: EF, AF41, 46",
        help: "CS0 to CS7, AF11 to AF43, EF, VA, LE, or a number from 0 to 63. Holds for \
            connections both made and accepted, from their first packet on. The bits of ECN stay \
            the kernel's.",
        modes: WITH_SOCKETS,
        set: Set::Text(|s, text| {
            s.common.socket.dscp = Some(text.parse()?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "allow",
        value: Some("CIDR"),
        section: Section::Traffic,
        brief: "networks that may connect; repeatable",
        help: "10.0.0.0/8, 2001:db8::/32, one address, or @FILE with a network per line, which \
            SIGHUP reads again. Other clients are reset at once; a line \
            of log names them, at most every 10 s. Without it every client may connect.",
        modes: LISTENING,
        set: Set::Text(|s, text| {
            s.allow.push(text.parse()?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "max-connections",
        value: Some("COUNT"),
        section: Section::Traffic,
        brief: "open at once; others wait",
        help: "Further clients wait in the kernel's queue until a connection ends. The default is \
            what the limit of open descriptors (ulimit -n) leaves room for.",
        modes: LISTENING,
        set: Set::Text(|s, text| {
            s.max_connections = Some(value::integer::<u32>(text, 1..=CONNECTIONS_MAX)? as usize);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "max-memory",
        value: Some("BYTES"),
        section: Section::Traffic,
        brief: "for the figures of all paths",
        help: "Figures and annotations of paths through this node, as 64M; buffers of connections \
            come on top. Beyond it, paths of clients without a key are dropped from the report, \
            the one that was idle for longest first. The default is 256M, in a small build 32M.",
        modes: LISTENING,
        set: Set::Text(|s, text| {
            s.max_memory = value::bytes(text, 4 << 20..=1 << 30)?;
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "drain",
        value: Some("SECONDS"),
        section: Section::Traffic,
        brief: "longest wait for connections at the end",
        help:
            "After SIGINT or SIGTERM the node closes its listeners and its metrics port at once, \
            and lets what is in flight on open connections finish for so long; then it resets \
            them. 0 resets them at once. The default is --timeout.",
        modes: LISTENING,
        set: Set::Text(|s, text| {
            s.drain = Some(value::duration(text)?);
            Ok(())
        }),
        ..ROW
    },
    Flag {
        long: "key-file",
        value: Some("FILE"),
        section: Section::Traffic,
        brief: "shared key: only its holders are peers",
        help: "The same 32 hexadecimal digits at every node of the chain, readable by their owner \
            alone (chmod 600). A second line is accepted too, while keys are changed host by host. \
            Frames of other peers are refused; plain clients only get in with --accept raw. It \
            protects the chain against use and faked times by others; it hides nothing: for that \
            use WireGuard or ssh.",
        modes: FRAMING,
        set: Set::Path(|s, path| s.common.key_file = Some(path)),
        ..ROW
    },
];

/// A state of the Monitoring Plugins, by its word or its number.
fn plugin_state(text: &str) -> Result<State, String> {
    let mut known = (0..).zip(State::ALL);
    let found = known
        .find(|(number, (_, word))| text.eq_ignore_ascii_case(word) || text == number.to_string());
    let found = found.map(|(_, (state, _))| state);
    found.ok_or_else(|| format!("has {text:?} for a state: write ok, warning, critical or unknown"))
}
