//! The shared key of a chain: its file, and the handshake of each link between two nodes that have
//! one.
//!
//! The node that connects sends HELLO at once, with a nonce; the one that accepts answers with its
//! own; then OPEN follows. So a link with a key takes one round trip more, and a node without a key
//! is noticed at the first frame.

use crate::node::end::{AuthenticatedLink, End};
use crate::session::opening::Session;
use crate::sync::{lock, random};
use crate::wire::authentication::{link, Hello, LinkEnd};
use crate::wire::siphash::{Key, NoKey};
use crate::wire::{ErrorInfo, Flags, FrameType, FrameView, Header, ParseError, HEADER_LEN};
use crate::wire::{MAX_ANNOTATIONS, MAX_ERROR_TEXT};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The command that makes a key.
const RECIPE: &str = "(umask 077; head -c 16 /dev/urandom | od -An -tx1 | tr -d ' ' >";

/// The keys of a process, shared by all that use them; none without `--key-file`.
///
/// The first one is used for connects, all are accepted. A change holds for later connections.
#[derive(Clone, Debug, Default)]
pub struct Keys(Arc<Mutex<Vec<Key>>>);

impl Keys {
    /// Returns the key for connects; `None` without a key.
    pub fn first(&self) -> Option<Key> {
        lock(&self.0).first().cloned()
    }

    /// Returns `true` without a key.
    pub fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }

    /// Replaces the keys.
    pub fn set(&self, keys: Vec<Key>) {
        *lock(&self.0) = keys;
    }

    fn all(&self) -> Vec<Key> {
        lock(&self.0).clone()
    }
}

/// Reads a key file, readable for its owner only: one line of 32 hexadecimal digits, or two while
/// the keys of a chain are changed.
///
/// # Errors
///
/// A message with the file, what is wrong with it, and the remedy.
pub fn read(path: &Path) -> Result<Vec<Key>, String> {
    let shown = path.display();
    let failed = |error: io::Error| format!("read the key file {shown}: {error}");
    let file = File::open(path).map_err(failed)?;
    let data = file.metadata().map_err(failed)?;
    let mode = data.permissions().mode() & 0o7777;
    // Without /proc the stricter rule holds.
    let own = std::fs::metadata("/proc/self").map_or(0, |own| own.uid());
    if !is_private(mode, data.uid(), own) {
        return Err(format!(
            "the key file {shown} is open to others (mode {mode:04o}): chmod 600 {shown}, and make \
             a new key if they may have read it"
        ));
    }
    let mut text = String::new();
    // Longer than any key; a device that never ends is no key either.
    let read = file.take(1024).read_to_string(&mut text);
    let key = match read {
        Err(error) if error.kind() != io::ErrorKind::InvalidData => return Err(failed(error)),
        _ => parse(&text),
    };
    key.map_err(|error| format!("the key file {shown} {error}; make one with {RECIPE} {shown})"))
}

fn parse(text: &str) -> Result<Vec<Key>, NoKey> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let keys: Vec<Key> = lines.map(str::parse).collect::<Result<_, _>>()?;
    if keys.is_empty() || keys.len() > 2 {
        return Err(NoKey);
    }
    Ok(keys)
}

/// Returns `true` if only the file's owner, or a group that root has chosen, can read it.
/// Credentials of systemd and keys of distributions have such a group.
fn is_private(mode: u32, owner: u32, own: u32) -> bool {
    let open = if owner == 0 && own != 0 { 0o037 } else { 0o077 };
    mode & open == 0
}

/// Makes a nonce for one link. It has to be new, not secret. [`random`] draws from SipHash under
/// keys that std takes from the kernel once per thread and counts up, over the time. Two equal ones
/// of 128 bits do not happen.
fn nonce() -> u128 {
    u128::from(random()) << 64 | u128::from(random())
}

/// The reason why a link was not agreed on; the caller adds the peer's name.
#[derive(Debug)]
pub enum NoLink {
    /// The peer sent something that is no frame.
    Parse(ParseError),
    /// The peer refused, or closed the connection.
    Refused(String),
    /// The peer did not answer in time.
    Silent(String),
    /// The connection broke.
    Io(io::Error),
}

impl From<ParseError> for NoLink {
    fn from(error: ParseError) -> Self {
        Self::Parse(error)
    }
}

/// Runs the handshake of the connecting side. Reads no byte beyond the answer.
pub fn connect(end: &End, key: &Key, session: Session, timeout: Duration) -> Result<(), NoLink> {
    let deadline = Instant::now() + timeout;
    let own = Hello::new(nonce());
    let hello = own.frame(session.cookie, session.hop, Flags::default());
    // The first bytes of a connection always have room.
    match crate::sys::send_now(&end.socket, &hello) {
        Ok(sent) if sent == hello.len() => {}
        Ok(_) => return Err(NoLink::Io(io::ErrorKind::WriteZero.into())),
        Err(error) => return Err(NoLink::Io(error)),
    }
    let mut frame = vec![0; HEADER_LEN];
    fill(end, &mut frame, 0, deadline)?;
    let header = Header::parse(&frame)?;
    let most = HEADER_LEN + MAX_ANNOTATIONS + 2 * MAX_ERROR_TEXT;
    let answers = match header.kind {
        FrameType::Hello | FrameType::Error => header.frame_len() <= most,
        FrameType::Open
        | FrameType::Opened
        | FrameType::Block
        | FrameType::Report
        | FrameType::End
        | FrameType::Reset
        | FrameType::Passable(_) => false,
    };
    if !answers {
        return Err(ParseError::Unauthenticated.into());
    }
    frame.resize(header.frame_len(), 0);
    fill(end, &mut frame, HEADER_LEN, deadline)?;
    let view = FrameView::of(header, &frame)?;
    if header.kind == FrameType::Error {
        let info = ErrorInfo::parse(view.payload())?;
        return Err(NoLink::Refused(format!("refuses: {}", info.shown())));
    }
    let theirs = Hello::parse(view.payload())?;
    let (sealer, verifier) = link(key, LinkEnd::Connector, &own, &theirs);
    end.set_link(AuthenticatedLink::new(sealer, verifier));
    end.socket.set_read_timeout(None).map_err(NoLink::Io)
}

/// Reads until `frame` is full from `filled` on.
fn fill(end: &End, frame: &mut [u8], mut filled: usize, deadline: Instant) -> Result<(), NoLink> {
    while filled < frame.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(NoLink::Silent(
                "did not answer HELLO in time (--timeout): is it a node with the same --key-file?"
                    .into(),
            ));
        }
        end.socket
            .set_read_timeout(Some(left))
            .map_err(NoLink::Io)?;
        match (&end.socket).read(&mut frame[filled..]) {
            Ok(0) => {
                return Err(NoLink::Refused(
                    "closed the connection instead of answering HELLO: is it a node with the same \
                     --key-file?"
                        .into(),
                ));
            }
            Ok(read) => {
                filled += read;
                // A wrong magic shows at the first byte; a server that speaks text may send no
                // more.
                match Header::parse(&frame[..filled]) {
                    Ok(_) | Err(ParseError::Incomplete { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(NoLink::Io(error)),
        }
    }
    Ok(())
}

/// The HELLOs of a link that was accepted, and the keys of which the first frame decides.
pub struct Accepted {
    own: Hello,
    theirs: Hello,
    keys: Vec<Key>,
}

impl Accepted {
    /// Gives `end` the link of the key that sealed `frame`, the first one. If no key did, the link
    /// is that of the last key, under which the frame is refused.
    pub fn decide(&self, end: &End, header: &Header, frame: &[u8]) {
        for (at, key) in self.keys.iter().enumerate() {
            let made = || link(key, LinkEnd::Acceptor, &self.own, &self.theirs);
            let is_last = at + 1 == self.keys.len();
            if is_last || made().1.check(header, frame).is_ok() {
                let (sealer, verifier) = made();
                return end.set_link(AuthenticatedLink::new(sealer, verifier));
            }
        }
    }
}

/// Runs the handshake of the accepting side: takes the HELLO in `frame` and answers it. Frames
/// follow once the first one has [decided](Accepted::decide) on the key.
///
/// # Errors
///
/// [`NoLink::Parse`] for a malformed HELLO; [`NoLink::Io`] from the send.
pub fn accept(end: &End, keys: &Keys, frame: &FrameView<'_>) -> Result<Accepted, NoLink> {
    let theirs = Hello::parse(frame.payload())?;
    let own = Hello::new(nonce());
    let hop = frame.header.hop.saturating_add(1);
    let hello = own.frame(frame.header.cookie, hop, Flags(Flags::RETURN));
    match crate::sys::send_now(&end.socket, &hello) {
        Ok(sent) if sent == hello.len() => {}
        Ok(_) => return Err(NoLink::Io(io::ErrorKind::WriteZero.into())),
        Err(error) => return Err(NoLink::Io(error)),
    }
    let keys = keys.all();
    Ok(Accepted { own, theirs, keys })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_for_its_owner_or_for_a_group_that_root_chose() {
        for (mode, owner, own, private) in [
            (0o600, 1000, 1000, true),
            (0o640, 1000, 1000, false),
            (0o440, 0, 1000, true),
            (0o440, 0, 0, false),
            (0o460, 0, 1000, false),
            (0o444, 0, 1000, false),
        ] {
            assert_eq!(is_private(mode, owner, own), private, "{mode:o}");
        }
    }
    use std::fs::{self, Permissions};

    #[test]
    fn a_key_file_is_refused_with_its_name_and_the_remedy() {
        let path = std::env::temp_dir().join(format!("sts-key-{}", std::process::id()));
        let digits = "000102030405060708090a0b0c0d0e0f\n";
        for (text, mode, part) in [
            (digits, 0o600, None),
            (digits, 0o400, None),
            (digits, 0o640, Some("chmod 600")),
            (digits, 0o604, Some("mode 0604")),
            ("secret", 0o600, Some("32 hexadecimal digits")),
            ("", 0o600, Some("/dev/urandom")),
        ] {
            let _ = fs::remove_file(&path);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let read = read(&path);
            match part {
                None => assert_eq!(read, Ok(vec![digits.parse().unwrap()])),
                Some(part) => {
                    let error = read.unwrap_err();
                    assert!(error.contains(part), "{error}");
                    assert!(error.contains(&path.display().to_string()), "{error}");
                }
            }
        }
        fs::write(&path, [0xff; 40]).unwrap();
        assert!(read(&path).unwrap_err().contains("32 hexadecimal"));
        fs::remove_file(&path).unwrap();
        assert!(read(&path).unwrap_err().starts_with("read the key file"));
        assert!(read(Path::new("/dev/zero")).is_err(), "it never ends");
    }

    #[test]
    fn a_key_file_has_one_line_or_two_the_first_of_which_is_for_connects() {
        let (one, two) = ("00".repeat(16), "ff".repeat(16));
        let keys = Keys::default();
        assert!(keys.is_empty() && keys.first().is_none());
        keys.set(parse(&format!("{one}\n\n {two} \n")).unwrap());
        assert_eq!(keys.first(), Some(Key([0; 16])));
        assert_eq!(keys.all(), [Key([0; 16]), Key([0xff; 16])]);
        for wrong in [
            format!("{one}{two}"),
            format!("{one}\n{one}\n{two}"),
            "\n".into(),
        ] {
            assert_eq!(parse(&wrong), Err(NoKey));
        }
    }

    #[test]
    fn no_two_nonces_are_the_same() {
        let mut seen: Vec<_> = (0..1000).map(|_| nonce()).collect();
        let other = std::thread::spawn(|| (0..1000).map(|_| nonce()).collect::<Vec<_>>());
        seen.extend(other.join().unwrap());
        seen.sort_unstable();
        assert!(seen.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
