//! The opening of a session: OPEN as it begins and is passed on, the role of the node that takes
//! it, the loop check, and the answer OPENED.

use crate::session::inbound::{Inbound, Violation};
use crate::session::path;
use crate::time::WallTime;
use crate::wire::{
    build, push_annotation, push_stamp, ClientAddress, ErrorCode, Flags, FrameType, FrameView,
    Header, NodeInfo, NodeRole, Stamp, StampDirection, ANNOTATION_CLIENT_ADDRESS, ANNOTATION_NODE,
    ANNOTATION_NONCE, STAMP_LEN,
};
use std::net::SocketAddr;

/// The values that all frames of a connection share, as this node sends them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The identifier of the path session; 0 if the connection carries plain bytes.
    pub cookie: u64,
    /// The hop of this node.
    pub hop: u8,
    /// The greatest hop of the path, as its source set it.
    pub hop_limit: u8,
}

impl Session {
    /// The session of the node that received `open`.
    pub fn behind(open: &Header) -> Self {
        Self {
            cookie: open.cookie,
            hop: open.hop.saturating_add(1),
            hop_limit: open.hop_limit,
        }
    }

    /// A header of this session without stamps, annotations and payload.
    pub fn header(self, kind: FrameType, flags: u16, sequence: u64) -> Header {
        Header {
            flags: Flags(flags),
            hop: self.hop,
            hop_limit: self.hop_limit,
            ..Header::new(kind, self.cookie, sequence)
        }
    }
}

/// The first frame of an accepted connection, judged by its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstFrame {
    /// It has to pass as OPEN.
    Open,
    /// The handshake of an authenticated link; OPEN follows.
    Handshake,
    /// A frame without authentication where this node has a key.
    Unauthenticated,
    /// A handshake where this node has no key.
    NoKey,
}

impl FirstFrame {
    /// Judges the first frame for a node with or without a key.
    pub fn judge(has_key: bool, kind: FrameType) -> Self {
        match (has_key, kind == FrameType::Hello) {
            (false, false) => Self::Open,
            (true, true) => Self::Handshake,
            (true, false) => Self::Unauthenticated,
            (false, true) => Self::NoKey,
        }
    }
}

/// The reason why a node refuses a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The frame is not the OPEN that has to come first, or its hop limit is used up.
    Violation(Violation),
    /// The node is on the path already.
    Loop {
        /// The hop at which it is.
        hop: u8,
    },
}

impl OpenError {
    /// The code of the ERROR frame for the source.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Violation(violation) => violation.code(),
            Self::Loop { .. } => ErrorCode::Loop,
        }
    }

    /// The message about the client at `peer`.
    pub fn text(self, peer: SocketAddr) -> String {
        match self {
            Self::Violation(violation) => format!("peer {peer} {violation}"),
            Self::Loop { hop } => format!(
                "loop: this node is on the path of {peer} already, as hop {hop}; check \
                 --forward-to along the chain"
            ),
        }
    }
}

/// Checks the frame that opens a session at the node `node`.
///
/// # Errors
///
/// [`OpenError`], which ends the connection.
pub fn check(inbound: &mut Inbound, frame: &FrameView<'_>, node: u64) -> Result<(), OpenError> {
    inbound.check(&frame.header).map_err(OpenError::Violation)?;
    match path::find(frame.annotations(), node) {
        Some(hop) => Err(OpenError::Loop { hop }),
        None => Ok(()),
    }
}

/// The role of a node for a framed client. `reflects`: it has no next hop; `removes`: the next hop
/// is a plain server.
pub fn role(reflects: bool, removes: bool) -> NodeRole {
    match (reflects, removes) {
        (true, _) => NodeRole::Echo,
        (false, true) => NodeRole::Exit,
        (false, false) => NodeRole::Relay,
    }
}

/// The contribution of a node to OPEN: its introduction, and the time of its stamp.
#[derive(Clone, Copy, Debug)]
pub struct Introduction<'a> {
    /// The introduction.
    pub info: &'a NodeInfo,
    /// Wall clock of the node when OPEN was completely read, or made.
    pub ingress: WallTime,
    /// The generation of that clock.
    pub generation: u8,
    /// The ends of the client's connection, at an entry.
    pub client: Option<ClientAddress>,
}

impl Introduction<'_> {
    fn stamp(&self, hop: u8) -> Stamp {
        Stamp {
            generation: self.generation,
            ..Stamp::new(self.info.id, hop, StampDirection::Forward, self.ingress)
        }
    }

    /// Appends the introduction; a flag marks a lack of room.
    fn append(&self, annotations: &mut Vec<u8>, flags: Flags, hop: u8) -> Flags {
        let client = self.client.map(|client| client.emit());
        let has_room = push_annotation(annotations, ANNOTATION_NODE, hop, &self.info.emit())
            && client.map_or(true, |client| {
                push_annotation(annotations, ANNOTATION_CLIENT_ADDRESS, hop, &client)
            });
        if has_room {
            flags
        } else {
            flags.with(Flags::ANNOTATIONS_OVERFLOW)
        }
    }
}

/// The OPEN frame of a node that begins a path, stamped. `probes`: the blocks of the session are
/// made here, and an exit answers them itself.
pub fn begin(session: Session, own: &Introduction<'_>, probes: bool) -> Vec<u8> {
    let mut annotations = Vec::new();
    let probe = if probes { Flags::PROBE } else { 0 };
    let mut header = session.header(FrameType::Open, Flags::MARKED | probe, 0);
    header.flags = own.append(&mut annotations, header.flags, session.hop);
    let mut stamp = [0; STAMP_LEN];
    own.stamp(session.hop).emit(&mut stamp);
    build(header, &stamp, &annotations, &[])
}

/// The OPEN frame of a client as this node passes it on.
#[derive(Debug)]
pub struct Opening {
    /// The frame.
    pub frame: Vec<u8>,
    /// The place of this node's stamp in `frame`, for its egress; `None` if it added none.
    pub stamp_at: Option<usize>,
    /// The introductions of the path so far, this node's included, as they lie on the wire.
    pub annotations: Vec<u8>,
}

impl Opening {
    /// Introduces this node, and stamps the frame if it `stamps`.
    pub fn pass_on(
        session: Session,
        open: &FrameView<'_>,
        own: &Introduction<'_>,
        stamps: bool,
    ) -> Self {
        let mut annotations = open.annotation_bytes().to_vec();
        let mut header = Header {
            hop: session.hop,
            ..open.header
        };
        header.flags = own.append(&mut annotations, header.flags, session.hop);
        if !stamps {
            return Self {
                frame: build(header, open.stamp_bytes(), &annotations, &[]),
                stamp_at: None,
                annotations,
            };
        }
        let mut frame = vec![0; STAMP_LEN];
        frame.extend_from_slice(&build(header, open.stamp_bytes(), &annotations, &[]));
        let mut header = Header::parse(&frame[STAMP_LEN..]).expect("it was built above");
        let stamp = own.stamp(session.hop);
        let (start, stamp_at) = push_stamp(&mut frame, STAMP_LEN, &mut header, &stamp);
        frame.drain(..start);
        Self {
            frame,
            stamp_at: stamp_at.map(|at| at - start),
            annotations,
        }
    }
}

/// The answer of the far end to OPEN: all introductions, its own included, and a nonce.
pub fn opened(session: Session, annotations: &[u8], nonce: u64) -> Vec<u8> {
    let mut annotations = annotations.to_vec();
    let nonce = nonce.to_be_bytes();
    push_annotation(&mut annotations, ANNOTATION_NONCE, session.hop, &nonce);
    let header = session.header(FrameType::Opened, Flags::RETURN, 0);
    build(header, &[], &annotations, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{set_egress, MAX_ANNOTATIONS, MAX_STAMPS};

    fn info(id: u64) -> NodeInfo {
        NodeInfo::new(id, NodeRole::Relay, format!("n{id}"))
    }

    fn at(info: &NodeInfo, ingress: u64) -> Introduction<'_> {
        Introduction {
            info,
            ingress: WallTime(ingress),
            generation: 3,
            client: None,
        }
    }

    const FIRST: Session = Session {
        cookie: 7,
        hop: 0,
        hop_limit: 4,
    };

    #[test]
    fn an_entry_adds_the_ends_of_its_client_which_stay_as_they_are_along_the_path() {
        let [source, destination] = ["192.0.2.1:5", "[2001:db8::1]:6"].map(|end| end.parse());
        let client = ClientAddress::new(source.unwrap(), destination.unwrap());
        let entry = info(10);
        let introduction = Introduction {
            client: Some(client),
            ..at(&entry, 100)
        };
        let open = begin(FIRST, &introduction, false);
        let view = FrameView::parse(&open).unwrap();
        let next = info(11);
        let passed = Opening::pass_on(Session::behind(&view.header), &view, &at(&next, 200), true);
        let view = FrameView::parse(&passed.frame).unwrap();
        let kinds = view.annotations().map(|one| one.unwrap());
        let kinds: Vec<_> = kinds.map(|one| (one.kind, one.hop)).collect();
        let expected = [
            (ANNOTATION_NODE, 0),
            (ANNOTATION_CLIENT_ADDRESS, 0),
            (ANNOTATION_NODE, 1),
        ];
        assert_eq!(kinds, expected);
        let value = view.annotations().nth(1).unwrap().unwrap().value;
        assert_eq!(ClientAddress::parse(value), Ok(client));
        assert_eq!(path::nodes(view.annotations()).len(), 2);
    }

    #[test]
    fn each_node_of_a_path_adds_its_introduction_and_its_stamp() {
        let mut frame = begin(FIRST, &at(&info(10), 100), true);
        for hop in 1..4_u8 {
            let view = FrameView::parse(&frame).unwrap();
            let id = 10 + u64::from(hop);
            assert_eq!(check(&mut Inbound::forward(), &view, id), Ok(()));
            assert!(view.header.flags.has(Flags::PROBE), "it is passed on");
            let session = Session::behind(&view.header);
            assert_eq!(
                (session.cookie, session.hop, session.hop_limit),
                (7, hop, 4)
            );
            let info = info(id);
            let passed = Opening::pass_on(session, &view, &at(&info, 100 * u64::from(hop)), true);
            frame = passed.frame;
            let stamp_at = passed.stamp_at.unwrap();
            set_egress(&mut frame[stamp_at..], WallTime(1000), 3);
            let view = FrameView::parse(&frame).unwrap();
            assert_eq!(view.annotation_bytes(), passed.annotations);
            let last = view.stamps().last().unwrap().unwrap();
            assert_eq!((last.node, last.hop), (id, hop));
            assert_eq!((last.generation, last.egress), (3, WallTime(1000)));
        }
        let view = FrameView::parse(&frame).unwrap();
        let ids: Vec<_> = path::nodes(view.annotations())
            .iter()
            .map(|(hop, info)| (*hop, info.id))
            .collect();
        assert_eq!(ids, [(0, 10), (1, 11), (2, 12), (3, 13)]);
        let answer = opened(Session::behind(&view.header), view.annotation_bytes(), 99);
        let answer = FrameView::parse(&answer).unwrap();
        assert_eq!(path::nodes(answer.annotations()).len(), 4);
        let nonce = answer.annotations().last().unwrap().unwrap();
        assert_eq!(nonce.kind, ANNOTATION_NONCE);
        assert_eq!(nonce.value, 99_u64.to_be_bytes());
        assert_eq!(Inbound::returning(7).check(&answer.header), Ok(()));
    }

    #[test]
    fn a_node_that_does_not_stamp_introduces_itself_and_leaves_the_stamps_as_they_are() {
        let frame = begin(FIRST, &at(&info(10), 100), false);
        let view = FrameView::parse(&frame).unwrap();
        let info = info(11);
        let passed = Opening::pass_on(Session::behind(&view.header), &view, &at(&info, 200), false);
        let next = FrameView::parse(&passed.frame).unwrap();
        assert_eq!(next.stamp_bytes(), view.stamp_bytes());
        assert_eq!((next.header.hop, passed.stamp_at), (1, None));
        assert!(!next.header.flags.has(Flags::PROBE), "traffic");
        let hops = path::nodes(next.annotations());
        let hops: Vec<_> = hops.iter().map(|(hop, node)| (*hop, node.id)).collect();
        assert_eq!(hops, [(0, 10), (1, 11)]);
        assert_eq!(passed.annotations, next.annotation_bytes());
    }

    #[test]
    fn a_loop_a_used_up_hop_limit_and_another_first_frame_are_refused() {
        let frame = begin(FIRST, &at(&info(10), 100), true);
        let view = FrameView::parse(&frame).unwrap();
        let peer = "192.0.2.1:7".parse().unwrap();
        let refused = |view: &FrameView<'_>| check(&mut Inbound::forward(), view, 10).unwrap_err();
        let error = refused(&view);
        assert_eq!(error, OpenError::Loop { hop: 0 });
        assert_eq!(error.code(), ErrorCode::Loop);
        assert!(error.text(peer).contains("192.0.2.1:7 already, as hop 0"));
        let last = Header {
            hop: 4,
            ..view.header
        };
        let error = refused(&FrameView::of(last, &frame).unwrap());
        assert_eq!(error.code(), ErrorCode::HopLimit);
        let block = build(FIRST.header(FrameType::Block, 0, 0), &[], &[], b"x");
        let error = refused(&FrameView::parse(&block).unwrap());
        assert_eq!(error.code(), ErrorCode::Protocol);
        assert!(error.text(peer).contains("not with OPEN"));
    }

    #[test]
    fn a_path_that_is_full_gets_flags_instead_of_a_stamp_and_an_introduction() {
        let session = Session { hop: 9, ..FIRST };
        let mut stamp = [0; STAMP_LEN];
        at(&info(1), 1).stamp(0).emit(&mut stamp);
        let stamps = stamp.repeat(MAX_STAMPS);
        let header = FIRST.header(FrameType::Open, Flags::MARKED, 0);
        let frame = build(header, &stamps, &vec![0; MAX_ANNOTATIONS], &[]);
        let view = FrameView::parse(&frame).unwrap();
        let info = info(2);
        let passed = Opening::pass_on(session, &view, &at(&info, 5), true);
        assert_eq!(passed.stamp_at, None);
        let flags = FrameView::parse(&passed.frame).unwrap().header.flags;
        assert!(flags.has(Flags::STAMPS_OVERFLOW) && flags.has(Flags::ANNOTATIONS_OVERFLOW));
    }

    #[test]
    fn the_role_follows_from_the_next_hop_and_the_first_frame_from_the_key() {
        assert_eq!(role(true, false), NodeRole::Echo);
        assert_eq!(role(true, true), NodeRole::Echo);
        assert_eq!(role(false, true), NodeRole::Exit);
        assert_eq!(role(false, false), NodeRole::Relay);
        for (has_key, kind, first) in [
            (false, FrameType::Open, FirstFrame::Open),
            (false, FrameType::Hello, FirstFrame::NoKey),
            (true, FrameType::Open, FirstFrame::Unauthenticated),
            (true, FrameType::Hello, FirstFrame::Handshake),
        ] {
            assert_eq!(FirstFrame::judge(has_key, kind), first);
        }
    }
}
