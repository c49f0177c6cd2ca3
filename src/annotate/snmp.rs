//! SNMPv2c: one GET for all the objects that the operator of this node names (RFC 3416 §4.2.1,
//! community as in RFC 1901). The peer of a node chooses neither the agent nor the objects.

use super::ber::{self, BerError, Values, INTEGER, NULL, OCTETS, OID, SEQUENCE};
use super::Readings;
use crate::decimal::decimal;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The port on which agents listen.
pub const PORT: u16 = 161;
/// The most objects in one GET, so that the answer fits a datagram.
pub const OBJECTS_MAX: usize = 32;
/// The objects of the GET unless the operator names others.
pub const DEFAULT_OBJECTS: &str = "sysUpTime,laLoad.1,laLoad.2,laLoad.3";
/// The longest wait for an answer.
pub const TIMEOUT: Duration = Duration::from_secs(1);

const GET: u8 = 0xa0;
const RESPONSE: u8 = 0xa2;
const VERSION_2C: i32 = 1;

/// The known names and the objects they stand for. Scalars are of RFC 3418, RFC 2790 and the
/// UCD-SNMP-MIB; columns of tables (RFC 2863) need a number behind the name.
#[rustfmt::skip]
const NAMES: [(&str, &[u32], bool); 28] = [
    ("sysDescr", &[1, 3, 6, 1, 2, 1, 1, 1], false),
    ("sysUpTime", &[1, 3, 6, 1, 2, 1, 1, 3], false),
    ("sysName", &[1, 3, 6, 1, 2, 1, 1, 5], false),
    ("tcpRetransSegs", &[1, 3, 6, 1, 2, 1, 6, 12], false),
    ("tcpOutRsts", &[1, 3, 6, 1, 2, 1, 6, 15], false),
    ("hrSystemUptime", &[1, 3, 6, 1, 2, 1, 25, 1, 1], false),
    ("hrProcessorLoad", &[1, 3, 6, 1, 2, 1, 25, 3, 3, 1, 2], true),
    ("laLoad", &[1, 3, 6, 1, 4, 1, 2021, 10, 1, 3], true),
    ("memTotalReal", &[1, 3, 6, 1, 4, 1, 2021, 4, 5], false),
    ("memAvailReal", &[1, 3, 6, 1, 4, 1, 2021, 4, 6], false),
    ("memBuffer", &[1, 3, 6, 1, 4, 1, 2021, 4, 14], false),
    ("memCached", &[1, 3, 6, 1, 4, 1, 2021, 4, 15], false),
    ("ssCpuUser", &[1, 3, 6, 1, 4, 1, 2021, 11, 9], false),
    ("ssCpuSystem", &[1, 3, 6, 1, 4, 1, 2021, 11, 10], false),
    ("ssCpuIdle", &[1, 3, 6, 1, 4, 1, 2021, 11, 11], false),
    ("ifDescr", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 2], true),
    ("ifSpeed", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 5], true),
    ("ifOperStatus", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 8], true),
    ("ifInOctets", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 10], true),
    ("ifInDiscards", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 13], true),
    ("ifInErrors", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 14], true),
    ("ifOutOctets", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 16], true),
    ("ifOutDiscards", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 19], true),
    ("ifOutErrors", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 20], true),
    ("ifName", &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 1], true),
    ("ifHCInOctets", &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 6], true),
    ("ifHCOutOctets", &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 10], true),
    ("ifHighSpeed", &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 15], true),
];

/// An object of an agent: `laLoad.1`, `sysUpTime`, `1.3.6.1.2.1.1.5.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnmpObject {
    /// The name as the operator wrote it, without a leading dot; the annotation is `snmp.NAME`.
    pub name: String,
    /// The numbers of its identifier.
    pub oid: Vec<u32>,
}

impl FromStr for SnmpObject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.trim().trim_start_matches('.');
        let wrong = |what: &str| {
            Err(format!(
                "has {text:?}, {what}: write an object by its numbers, 1.3.6.1.2.1.1.5.0, or as \
                 sysUpTime, laLoad.1, ifHCInOctets.2"
            ))
        };
        let numbers = |text: &str| -> Option<Vec<u32>> {
            text.split('.').map(|word| word.parse().ok()).collect()
        };
        let object = |oid| {
            Ok(Self {
                name: name.into(),
                oid,
            })
        };
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            return match numbers(name) {
                Some(oid) if matches!(oid[..], [0..=2, 0..=39, _, ..]) && oid.len() <= 40 => {
                    object(oid)
                }
                _ => wrong("which is no object"),
            };
        }
        let (word, index) = match name.split_once('.') {
            Some((word, index)) => (word, numbers(index)),
            None => (name, Some(Vec::new())),
        };
        let Some((_, prefix, is_column)) = NAMES.iter().find(|row| row.0 == word) else {
            return wrong("a name that is not known here");
        };
        match index {
            Some(index) if *is_column && (1..=8).contains(&index.len()) => {
                object([prefix, &index[..]].concat())
            }
            Some(index) if !is_column && (index.is_empty() || index == [0]) => {
                object([prefix, &[0][..]].concat())
            }
            _ if *is_column => wrong("which needs a number of its row"),
            _ => wrong("which has no rows"),
        }
    }
}

/// Parses objects joined by commas.
///
/// # Errors
///
/// A text that completes the sentence "--snmp-objects VALUE ...".
pub fn objects(text: &str) -> Result<Vec<SnmpObject>, String> {
    let objects: Vec<SnmpObject> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
    if objects.len() > OBJECTS_MAX {
        return Err(format!("names too many objects: at most {OBJECTS_MAX}"));
    }
    if let Some(long) = objects.iter().find(|object| object.name.len() > 59) {
        return Err(format!("has {:?}, whose name is too long", long.name));
    }
    Ok(objects)
}

/// An agent and the objects of its GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// The name or address of its host, without brackets.
    pub host: String,
    /// Its UDP port, usually [`PORT`].
    pub port: u16,
    /// The community, which stands for a password and is sent in the clear.
    pub community: String,
    /// At most [`OBJECTS_MAX`] objects.
    pub objects: Vec<SnmpObject>,
}

/// The reason for which an agent gave no values.
#[derive(Debug)]
pub enum SnmpError {
    /// The name of its host could not be resolved.
    Resolve(io::Error),
    /// The datagram could not be sent, or the host refused it.
    Socket(io::Error),
    /// No answer within [`TIMEOUT`].
    Silent,
    /// The answer could not be parsed.
    Malformed(BerError),
    /// The agent answered with an error-status (RFC 3416 §3), at the object with this number,
    /// counted from 1.
    Status(i64, i64),
}

impl fmt::Display for SnmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const STATUS: [&str; 6] = [
            "noError",
            "tooBig",
            "noSuchName",
            "badValue",
            "readOnly",
            "genErr",
        ];
        match self {
            Self::Resolve(error) => write!(f, "its name cannot be resolved: {error}"),
            Self::Socket(error) => {
                let text = error.to_string();
                f.write_str(text.split(" (os error").next().unwrap_or_default())
            }
            Self::Silent => write!(
                f,
                "no answer within {} s (is the community right?)",
                TIMEOUT.as_secs()
            ),
            Self::Malformed(error) => write!(f, "its answer is malformed: {error}"),
            Self::Status(status, index) => {
                let name = usize::try_from(*status).ok().and_then(|at| STATUS.get(at));
                let name = name.copied().unwrap_or("an error");
                write!(f, "it answers {name} ({status}) at object {index}")
            }
        }
    }
}

impl std::error::Error for SnmpError {}

/// The value of one object.
#[derive(Clone, Debug, PartialEq)]
pub enum SnmpValue {
    /// A number, or a text that is one; TimeTicks in seconds.
    Number(f64),
    /// A text, an address or an object; unprintable bytes as hexadecimal digits.
    Text(String),
}

/// The objects of an answer by their numbers, with their values.
pub type Bindings = Vec<(Vec<u32>, SnmpValue)>;

/// Encodes the GET of `objects` as a message.
pub fn emit_get(community: &str, id: i32, objects: &[SnmpObject]) -> Vec<u8> {
    let mut bindings = Vec::new();
    for object in objects {
        let binding = [ber::oid(&object.oid), ber::wrap(NULL, &[])].concat();
        bindings.extend(ber::wrap(SEQUENCE, &binding));
    }
    let request = [
        ber::integer(id),
        ber::integer(0), // error-status
        ber::integer(0), // error-index
        ber::wrap(SEQUENCE, &bindings),
    ];
    let message = [
        ber::integer(VERSION_2C),
        ber::wrap(OCTETS, community.as_bytes()),
        ber::wrap(GET, &request.concat()),
    ];
    ber::wrap(SEQUENCE, &message.concat())
}

/// Parses the answer to the GET with `id`; `None` if it answers another request.
///
/// # Errors
///
/// [`SnmpError::Malformed`] and [`SnmpError::Status`].
pub fn parse_response(message: &[u8], id: i32) -> Result<Option<Bindings>, SnmpError> {
    let wrong = SnmpError::Malformed;
    let mut message = Values(Values(message).expect(SEQUENCE).map_err(wrong)?);
    if message.integer().map_err(wrong)? != i64::from(VERSION_2C) {
        return Ok(None);
    }
    message.expect(OCTETS).map_err(wrong)?;
    let mut response = Values(message.expect(RESPONSE).map_err(wrong)?);
    if response.integer().map_err(wrong)? != i64::from(id) {
        return Ok(None);
    }
    let status = response.integer().map_err(wrong)?;
    let index = response.integer().map_err(wrong)?;
    if status != 0 {
        return Err(SnmpError::Status(status, index));
    }
    let mut bindings = Values(response.expect(SEQUENCE).map_err(wrong)?);
    let mut values = Vec::new();
    while !bindings.is_empty() && values.len() < OBJECTS_MAX {
        let mut binding = Values(bindings.expect(SEQUENCE).map_err(wrong)?);
        let oid = ber::read_oid(binding.expect(OID).map_err(wrong)?).map_err(wrong)?;
        let (tag, content) = binding.take().map_err(wrong)?;
        values.push((oid, value(tag, content).map_err(wrong)?));
    }
    Ok(Some(values))
}

fn value(tag: u8, content: &[u8]) -> Result<SnmpValue, BerError> {
    let text = |text: &str| SnmpValue::Text(text.into());
    Ok(match tag {
        INTEGER => SnmpValue::Number(ber::read_integer(content)? as f64),
        // Counter32, Gauge32, Counter64; TimeTicks are hundredths of a second.
        0x41 | 0x42 | 0x46 => SnmpValue::Number(ber::read_unsigned(content)? as f64),
        0x43 => SnmpValue::Number(ber::read_unsigned(content)? as f64 / 100.0),
        OCTETS => octets(content),
        OID => {
            let numbers = ber::read_oid(content)?;
            let words: Vec<_> = numbers.iter().map(u32::to_string).collect();
            SnmpValue::Text(words.join("."))
        }
        // IpAddress.
        0x40 => match <[u8; 4]>::try_from(content) {
            Ok(address) => SnmpValue::Text(Ipv4Addr::from(address).to_string()),
            Err(_) => return Err(BerError::Form),
        },
        // Net-SNMP's Opaque float (its own tag 0x9f78 within).
        0x44 => match *content {
            [0x9f, 0x78, 4, a, b, c, d] => {
                SnmpValue::Number(f32::from_be_bytes([a, b, c, d]).into())
            }
            _ => octets(content),
        },
        NULL => text("no value"),
        0x80 => text("noSuchObject"),
        0x81 => text("noSuchInstance"),
        0x82 => text("endOfMibView"),
        _ => return Err(BerError::Form),
    })
}

fn octets(content: &[u8]) -> SnmpValue {
    let text = std::str::from_utf8(content).ok();
    let Some(text) = text.filter(|text| !text.chars().any(char::is_control)) else {
        let digits: String = content.iter().map(|byte| format!("{byte:02x}")).collect();
        return SnmpValue::Text(format!("0x{digits}"));
    };
    let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.' || byte == b'-';
    match decimal(text.trim()) {
        Some(number) if text.trim().bytes().all(plain) => SnmpValue::Number(number),
        _ => SnmpValue::Text(text.into()),
    }
}

impl Agent {
    /// Sends the GET and waits [`TIMEOUT`] at most once the name is resolved. `id` has to differ
    /// from call to call.
    ///
    /// # Errors
    ///
    /// [`SnmpError`].
    pub fn get(&self, id: i32) -> Result<Readings, SnmpError> {
        let addresses = (self.host.as_str(), self.port).to_socket_addrs();
        let address = addresses.map_err(SnmpError::Resolve)?.next();
        let address = address.ok_or(SnmpError::Resolve(io::ErrorKind::NotFound.into()))?;
        let values = exchange(address, &emit_get(&self.community, id, &self.objects), id)?;
        let mut readings = Readings::default();
        for object in &self.objects {
            let name = format!("snmp.{}", object.name);
            match values.iter().find(|row| row.0 == object.oid) {
                Some((_, SnmpValue::Number(number))) => readings.number(name, Some(*number)),
                Some((_, SnmpValue::Text(text))) => readings.text(name, text.as_str()),
                None => readings.text(name, "not in the agent's answer"),
            }
        }
        Ok(readings)
    }
}

/// Sends `request` and waits for the answer with the same `id`. The socket is connected, so that
/// the kernel drops datagrams of other hosts.
fn exchange(address: SocketAddr, request: &[u8], id: i32) -> Result<Bindings, SnmpError> {
    let failed = SnmpError::Socket;
    let any: IpAddr = if address.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).map_err(failed)?;
    socket.connect(address).map_err(failed)?;
    socket.send(request).map_err(failed)?;
    let deadline = Instant::now() + TIMEOUT;
    let mut answer = vec![0; 1 << 16];
    let mut outcome = SnmpError::Silent;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(outcome);
        }
        socket.set_read_timeout(Some(left)).map_err(failed)?;
        match socket.recv(&mut answer) {
            Ok(len) => match parse_response(&answer[..len], id) {
                Ok(Some(values)) => return Ok(values),
                Ok(None) => {} // The answer to an earlier request.
                Err(error @ SnmpError::Status(..)) => return Err(error),
                Err(error) => outcome = error,
            },
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {}
                io::ErrorKind::Interrupted => {}
                _ => return Err(failed(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotation::{AnnotationValue, HostAnnotation};
    use crate::random::Random;

    /// GET of sysUpTime.0 and laLoad.1 with request-id 0x1234, as Net-SNMP's snmpget sends it but
    /// for a longer id.
    #[rustfmt::skip]
    const GOLDEN_GET: &[u8] = &[
        0x30, 0x38, 0x02, 0x01, 0x01, 0x04, 0x06, b'p', b'u', b'b', b'l', b'i', b'c',
        0xa0, 0x2b, 0x02, 0x02, 0x12, 0x34, 0x02, 0x01, 0x00, 0x02, 0x01, 0x00, 0x30, 0x1f,
        0x30, 0x0c, 0x06, 0x08, 0x2b, 6, 1, 2, 1, 1, 3, 0, 0x05, 0x00,
        0x30, 0x0f, 0x06, 0x0b, 0x2b, 6, 1, 4, 1, 0x8f, 0x65, 10, 1, 3, 1, 0x05, 0x00,
    ];

    /// Its answer: 123.45 s, and "0.52".
    #[rustfmt::skip]
    const GOLDEN_RESPONSE: &[u8] = &[
        0x30, 0x3e, 0x02, 0x01, 0x01, 0x04, 0x06, b'p', b'u', b'b', b'l', b'i', b'c',
        0xa2, 0x31, 0x02, 0x02, 0x12, 0x34, 0x02, 0x01, 0x00, 0x02, 0x01, 0x00, 0x30, 0x25,
        0x30, 0x0e, 0x06, 0x08, 0x2b, 6, 1, 2, 1, 1, 3, 0, 0x43, 0x02, 0x30, 0x39,
        0x30, 0x13, 0x06, 0x0b, 0x2b, 6, 1, 4, 1, 0x8f, 0x65, 10, 1, 3, 1,
        0x04, 0x04, b'0', b'.', b'5', b'2',
    ];

    const ID: i32 = 0x1234;

    fn wanted() -> Vec<SnmpObject> {
        objects("sysUpTime,laLoad.1").unwrap()
    }

    #[test]
    fn golden_messages_are_written_and_read_and_a_cut_one_is_malformed() {
        assert_eq!(emit_get("public", ID, &wanted()), GOLDEN_GET);
        let values = parse_response(GOLDEN_RESPONSE, ID).unwrap().unwrap();
        let expected = [SnmpValue::Number(123.45), SnmpValue::Number(0.52)];
        for ((oid, value), (object, expected)) in values.iter().zip(wanted().iter().zip(expected)) {
            assert_eq!((oid, value), (&object.oid, &expected));
        }
        assert_eq!(values.len(), 2);
        assert!(parse_response(GOLDEN_RESPONSE, ID + 1).unwrap().is_none());
        for len in 0..GOLDEN_RESPONSE.len() {
            let read = parse_response(&GOLDEN_RESPONSE[..len], ID);
            assert!(matches!(read, Err(SnmpError::Malformed(_))), "{len}");
        }
    }

    #[test]
    fn damaged_answers_are_errors_or_values_and_never_a_panic() {
        const SEED: u64 = 0x5eed_0161;
        let mut random = Random::new(SEED);
        let (mut read, mut refused) = (0, 0);
        for case in 0..20_000 {
            let mut bytes = GOLDEN_RESPONSE.to_vec();
            random.damage(&mut bytes);
            let seen = std::panic::catch_unwind(|| parse_response(&bytes, ID).is_ok());
            match seen {
                Ok(true) => read += 1,
                Ok(false) => refused += 1,
                Err(_) => panic!("seed {SEED:#x} case {case}: {bytes:x?}"),
            }
        }
        assert!(
            read > 500 && refused > 5000,
            "{read} read, {refused} refused"
        );
    }

    #[test]
    fn every_type_of_value_is_decoded() {
        let text = |text: &str| SnmpValue::Text(text.into());
        for (tag, content, expected) in [
            (INTEGER, &[0xff][..], SnmpValue::Number(-1.0)),
            (
                0x41,
                &[0, 0xff, 0xff, 0xff, 0xff],
                SnmpValue::Number(4_294_967_295.0),
            ),
            (
                0x46,
                &[1, 0, 0, 0, 0, 0],
                SnmpValue::Number((1_u64 << 40) as f64),
            ),
            (0x43, &[100], SnmpValue::Number(1.0)),
            (
                0x44,
                &[0x9f, 0x78, 4, 0x3f, 0x80, 0, 0],
                SnmpValue::Number(1.0),
            ),
            (0x40, &[10, 0, 0, 7], text("10.0.0.7")),
            (OCTETS, b"router 7", text("router 7")),
            (OCTETS, b" 12.50", SnmpValue::Number(12.5)),
            (OCTETS, b"inf", text("inf")),
            (OCTETS, b"1-2", text("1-2")),
            (OCTETS, &[0, 0x1b], text("0x001b")),
            (OID, &[0x2b, 6, 1], text("1.3.6.1")),
            (0x80, &[], text("noSuchObject")),
            (0x81, &[], text("noSuchInstance")),
        ] {
            assert_eq!(value(tag, content), Ok(expected), "{tag:#x} {content:x?}");
        }
        assert_eq!(value(0x47, &[]), Err(BerError::Form));
        assert_eq!(value(0x40, &[1]), Err(BerError::Form));
    }

    #[test]
    fn objects_are_named_or_numbered() {
        for (text, name, oid) in [
            ("sysUpTime", "sysUpTime", "1.3.6.1.2.1.1.3.0"),
            ("sysUpTime.0", "sysUpTime.0", "1.3.6.1.2.1.1.3.0"),
            ("laLoad.2", "laLoad.2", "1.3.6.1.4.1.2021.10.1.3.2"),
            (".1.3.6.1.9", "1.3.6.1.9", "1.3.6.1.9"),
        ] {
            let object: SnmpObject = text.parse().unwrap();
            let words: Vec<_> = object.oid.iter().map(u32::to_string).collect();
            assert_eq!(
                (object.name.as_str(), words.join(".").as_str()),
                (name, oid)
            );
        }
        for (text, part) in [
            ("", "not known"),
            ("upTime", "not known"),
            ("laLoad", "needs a number"),
            ("sysUpTime.1", "has no rows"),
            ("1.3", "no object"),
            ("1.50.1", "no object"),
            ("1.3.x", "no object"),
            ("1.3.4294967296", "no object"),
        ] {
            let error = text.parse::<SnmpObject>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(objects(&["sysName"; 33].join(",")).is_err());
        assert_eq!(objects(DEFAULT_OBJECTS).map(|objects| objects.len()), Ok(4));
    }

    fn agent(port: u16) -> Agent {
        Agent {
            host: "127.0.0.1".into(),
            port,
            community: "public".into(),
            objects: wanted(),
        }
    }

    #[test]
    fn an_answer_to_another_request_is_not_taken_for_ours() {
        let fake = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = fake.local_addr().unwrap().port();
        let answering = std::thread::spawn(move || {
            let mut request = [0; 200];
            let (len, peer) = fake.recv_from(&mut request).unwrap();
            assert_eq!(&request[..len], GOLDEN_GET);
            let mut old = GOLDEN_RESPONSE.to_vec();
            old[18] ^= 1;
            fake.send_to(&old, peer).unwrap();
            fake.send_to(b"noise", peer).unwrap();
            fake.send_to(GOLDEN_RESPONSE, peer).unwrap();
        });
        let annotations = agent(port).get(ID).unwrap().annotations();
        answering.join().unwrap();
        let annotation = |name: &str, number| HostAnnotation {
            name: name.into(),
            value: AnnotationValue::Number(number),
        };
        assert_eq!(
            annotations,
            [
                annotation("snmp.sysUpTime", 123.45),
                annotation("snmp.laLoad.1", 0.52)
            ]
        );
    }

    #[test]
    fn a_closed_port_and_a_refusal_are_errors_with_their_reason() {
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Connected to itself, it refuses other senders, and no other test gets the port.
        let own = closed.local_addr().unwrap();
        closed.connect(own).unwrap();
        let port = own.port();
        let error = agent(port).get(ID).unwrap_err();
        assert_eq!(error.to_string(), "Connection refused");
        let mut refusal = GOLDEN_RESPONSE.to_vec();
        refusal[21] = 1;
        let error = parse_response(&refusal, ID).unwrap_err();
        assert_eq!(error.to_string(), "it answers tooBig (1) at object 0");
    }
}
