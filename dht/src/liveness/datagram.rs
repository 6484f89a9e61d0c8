//! The bytes of SWIM's datagrams.
//!
//! ```text
//!  0  u8   version           1
//!  1  u8   kind              0..=9
//!  2  u8   probe number      zero where the kind has none
//!  3  u8   zero
//!  4  u64  cluster           the first eight bytes of its name, as a number
//! 12  identity  sender       32 bytes of node id, u64 life
//! 52  u16  sender's incarnation within that life
//! 54  identity  receiver
//! 94  identity  third party  only in the four kinds of indirect probes
//!     u16  count             not in Announce and TurnUndead, which end here
//!     count updates of 43 bytes: identity, u16 incarnation, u8 state (0 alive, 1 suspect, 2 down)
//! ```
//!
//! Little-endian but for the count, which foca writes itself. Nothing may follow. A datagram that breaks a rule is
//! dropped whole; the sender is not told, as SWIM repeats what matters.

use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, State};

use super::identity::Identity;
use super::summary::{Summary, is_summary};
use crate::NodeId;

/// The most bytes of a datagram: fits any path's MTU with headers to spare (RFC 8085, section 3.2).
pub const DATAGRAM_BYTES_MAX: usize = 1_400;

/// The version of these bytes. 1: the first.
const VERSION: u8 = 1;
/// The second byte of a probe, and of its answer.
pub(super) const PING: u8 = 0;
pub(super) const ACK: u8 = 1;
const HEADER_BYTES: usize = 94;
const IDENTITY_BYTES: usize = 40;
pub(super) const UPDATE_BYTES: usize = IDENTITY_BYTES + 3;
const COUNT_BYTES: usize = 2;

const _: () = assert!(HEADER_BYTES + IDENTITY_BYTES + COUNT_BYTES + 16 * UPDATE_BYTES <= DATAGRAM_BYTES_MAX);

/// Why bytes are no datagram of this cluster. The receiver drops them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadDatagram {
    /// It ends too early, or goes on after its end, or is over [`DATAGRAM_BYTES_MAX`].
    #[error("length does not fit the contents")]
    Length,
    /// A field has a value that this version does not know.
    #[error("read {field}, got {got}")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value.
        got: u8,
    },
    /// It is another cluster's.
    #[error("datagram is of another cluster")]
    Cluster,
}

/// A whole datagram.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Datagram {
    pub(super) header: Header<Identity>,
    pub(super) updates: Vec<Member<Identity>>,
}

/// Whether `bytes` are a datagram (of SWIM, or a cell's summary) of the cluster whose
/// [`ClusterId::prefix`](crate::ClusterId::prefix) is `cluster`, and the name of the node that it says it is from.
/// Total: any bytes give a value or an error.
pub fn check(cluster: u64, bytes: &[u8]) -> Result<NodeId, BadDatagram> {
    if is_summary(bytes) {
        return Summary::decode(cluster, bytes).map(|summary| summary.sender);
    }
    Datagram::decode(Codec { cluster }, bytes).map(|datagram| datagram.header.src.node)
}

impl Datagram {
    pub(super) fn decode(codec: Codec, mut bytes: &[u8]) -> Result<Self, BadDatagram> {
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(BadDatagram::Length);
        }
        let header = codec.header(&mut bytes)?;
        let mut updates = Vec::new();
        if has_updates(&header.message) {
            need(&bytes, COUNT_BYTES)?;
            let count = usize::from(bytes.get_u16());
            // Then the loop reads no further than the datagram goes, and the list is bounded by it.
            if bytes.remaining() != count * UPDATE_BYTES {
                return Err(BadDatagram::Length);
            }
            for _ in 0..count {
                updates.push(codec.update(&mut bytes)?);
            }
        }
        if bytes.has_remaining() { Err(BadDatagram::Length) } else { Ok(Self { header, updates }) }
    }

    pub(super) fn encode(&self, codec: Codec) -> Vec<u8> {
        let mut out = Vec::with_capacity(DATAGRAM_BYTES_MAX);
        codec.put_header(&self.header, &mut out);
        if has_updates(&self.header.message) {
            out.put_u16(u16::try_from(self.updates.len()).expect("a datagram holds few updates"));
            for update in &self.updates {
                put_update(update, &mut out);
            }
        }
        out
    }

    /// Whether there is room for one more update.
    pub(super) fn has_room(&self) -> bool {
        let used = HEADER_BYTES + IDENTITY_BYTES + COUNT_BYTES + self.updates.len() * UPDATE_BYTES;
        has_updates(&self.header.message) && used + UPDATE_BYTES <= DATAGRAM_BYTES_MAX
    }

    /// The node that an indirect probe is about, beside sender and receiver.
    pub(super) const fn third(&self) -> Option<&Identity> {
        third(&self.header.message)
    }
}

const fn has_updates(message: &Message<Identity>) -> bool {
    !matches!(message, Message::Announce | Message::TurnUndead)
}

const fn third(message: &Message<Identity>) -> Option<&Identity> {
    match message {
        Message::PingReq { target: third, .. }
        | Message::IndirectPing { origin: third, .. }
        | Message::IndirectAck { target: third, .. }
        | Message::ForwardedAck { origin: third, .. } => Some(third),
        _ => None,
    }
}

fn need(from: &impl Buf, bytes: usize) -> Result<(), BadDatagram> {
    if from.remaining() < bytes { Err(BadDatagram::Length) } else { Ok(()) }
}

/// Encodes for foca, and for us.
#[derive(Clone, Copy, Debug)]
pub(super) struct Codec {
    pub(super) cluster: u64,
}

impl Codec {
    fn put_header(self, header: &Header<Identity>, out: &mut impl BufMut) {
        let (kind, probe) = match header.message {
            Message::Ping(probe) => (PING, probe),
            Message::Ack(probe) => (ACK, probe),
            Message::PingReq { probe_number, .. } => (2, probe_number),
            Message::IndirectPing { probe_number, .. } => (3, probe_number),
            Message::IndirectAck { probe_number, .. } => (4, probe_number),
            Message::ForwardedAck { probe_number, .. } => (5, probe_number),
            Message::Announce => (6, 0),
            Message::Feed => (7, 0),
            Message::Gossip => (8, 0),
            Message::TurnUndead => (9, 0),
            Message::Broadcast => unreachable!("no broadcasts are handed to foca"),
        };
        out.put_slice(&[VERSION, kind, probe, 0]);
        out.put_u64_le(self.cluster);
        put_identity(&header.src, out);
        out.put_u16_le(header.src_incarnation);
        put_identity(&header.dst, out);
        if let Some(third) = third(&header.message) {
            put_identity(third, out);
        }
    }

    fn header(self, from: &mut impl Buf) -> Result<Header<Identity>, BadDatagram> {
        need(from, HEADER_BYTES)?;
        let [version, kind, probe, zero] = [from.get_u8(), from.get_u8(), from.get_u8(), from.get_u8()];
        if version != VERSION {
            return Err(BadDatagram::Field { field: "version", got: version });
        }
        if zero != 0 {
            return Err(BadDatagram::Field { field: "zero", got: zero });
        }
        if kind >= 6 && probe != 0 {
            return Err(BadDatagram::Field { field: "probe number", got: probe });
        }
        if from.get_u64_le() != self.cluster {
            return Err(BadDatagram::Cluster);
        }
        let src = identity(from)?;
        let src_incarnation = from.get_u16_le();
        let dst = identity(from)?;
        let message = match kind {
            PING => Message::Ping(probe),
            ACK => Message::Ack(probe),
            2 => Message::PingReq { target: identity(from)?, probe_number: probe },
            3 => Message::IndirectPing { origin: identity(from)?, probe_number: probe },
            4 => Message::IndirectAck { target: identity(from)?, probe_number: probe },
            5 => Message::ForwardedAck { origin: identity(from)?, probe_number: probe },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::TurnUndead,
            got => return Err(BadDatagram::Field { field: "kind", got }),
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn update(self, from: &mut impl Buf) -> Result<Member<Identity>, BadDatagram> {
        need(from, UPDATE_BYTES)?;
        let id = identity(from)?;
        let incarnation = from.get_u16_le();
        let state = match from.get_u8() {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            got => return Err(BadDatagram::Field { field: "state", got }),
        };
        Ok(Member::new(id, incarnation, state))
    }
}

fn put_identity(identity: &Identity, out: &mut impl BufMut) {
    out.put_slice(identity.node.as_bytes());
    out.put_u64_le(identity.life);
}

fn identity(from: &mut impl Buf) -> Result<Identity, BadDatagram> {
    need(from, IDENTITY_BYTES)?;
    let mut node = [0; 32];
    from.copy_to_slice(&mut node);
    Ok(Identity { node: NodeId::from_bytes(node), life: from.get_u64_le() })
}

fn put_update(update: &Member<Identity>, out: &mut impl BufMut) {
    put_identity(update.id(), out);
    out.put_u16_le(update.incarnation());
    out.put_u8(match update.state() {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    });
}

impl foca::Codec<Identity> for Codec {
    type Error = BadDatagram;

    fn encode_header(&mut self, header: &Header<Identity>, mut out: impl BufMut) -> Result<(), BadDatagram> {
        if out.remaining_mut() < HEADER_BYTES + IDENTITY_BYTES {
            return Err(BadDatagram::Length);
        }
        self.put_header(header, &mut out);
        Ok(())
    }

    fn decode_header(&mut self, mut from: impl Buf) -> Result<Header<Identity>, BadDatagram> {
        self.header(&mut from)
    }

    fn encode_member(&mut self, member: &Member<Identity>, mut out: impl BufMut) -> Result<(), BadDatagram> {
        if out.remaining_mut() < UPDATE_BYTES {
            return Err(BadDatagram::Length);
        }
        put_update(member, &mut out);
        Ok(())
    }

    fn decode_member(&mut self, mut from: impl Buf) -> Result<Member<Identity>, BadDatagram> {
        self.update(&mut from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(byte: u8) -> Identity {
        Identity { node: NodeId::from_bytes([byte; 32]), life: u64::from(byte) << 40 | 7 }
    }

    #[test]
    fn every_kind_comes_back_as_it_was() {
        let (third, probe_number) = (identity(3), 9);
        let messages = [
            Message::Ping(4),
            Message::Ack(5),
            Message::PingReq { target: third, probe_number },
            Message::IndirectPing { origin: third, probe_number },
            Message::IndirectAck { target: third, probe_number },
            Message::ForwardedAck { origin: third, probe_number },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::TurnUndead,
        ];
        let codec = Codec { cluster: 0x0102_0304_0506_0708 };
        for message in messages {
            let states = [State::Alive, State::Suspect, State::Down];
            let updates = states.map(|state| Member::new(third, 300, state)).to_vec();
            let updates = if has_updates(&message) { updates } else { Vec::new() };
            let header = Header { src: identity(1), src_incarnation: 0x0203, dst: identity(2), message };
            let datagram = Datagram { header, updates };
            let bytes = datagram.encode(codec);
            assert_eq!(Datagram::decode(codec, &bytes), Ok(datagram));
            for len in 0..bytes.len() {
                assert_eq!(Datagram::decode(codec, &bytes[..len]), Err(BadDatagram::Length), "{len} bytes");
            }
            assert_eq!(check(1, &bytes), Err(BadDatagram::Cluster));
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(Datagram::decode(codec, &longer), Err(BadDatagram::Length));
        }
    }

    /// An identity's bytes.
    fn drawn(byte: u8) -> Vec<u8> {
        [&[byte; 32][..], &[7, 0, 0, 0, 0, byte, 0, 0]].concat()
    }

    #[test]
    fn the_bytes_are_as_drawn() {
        let (third, probe_number) = (identity(3), 9);
        let cases = [
            (Message::Ping(4), 0, 4),
            (Message::Ack(5), 1, 5),
            (Message::PingReq { target: third, probe_number }, 2, 9),
            (Message::IndirectPing { origin: third, probe_number }, 3, 9),
            (Message::IndirectAck { target: third, probe_number }, 4, 9),
            (Message::ForwardedAck { origin: third, probe_number }, 5, 9),
            (Message::Announce, 6, 0),
            (Message::Feed, 7, 0),
            (Message::Gossip, 8, 0),
            (Message::TurnUndead, 9, 0),
        ];
        for (message, kind, probe) in cases {
            let states = [State::Alive, State::Suspect, State::Down];
            let updates = states.map(|state| Member::new(third, 0x0405, state)).to_vec();
            let updates = if has_updates(&message) { updates } else { Vec::new() };
            let header = Header { src: identity(1), src_incarnation: 0x0203, dst: identity(2), message };
            let bytes = Datagram { header, updates }.encode(Codec { cluster: 0x1122_3344_5566_7788 });
            let mut drawn_bytes = vec![1, kind, probe, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11];
            drawn_bytes.extend([drawn(1), vec![3, 2], drawn(2)].concat());
            if (2..=5).contains(&kind) {
                drawn_bytes.extend(drawn(3));
            }
            if ![6, 9].contains(&kind) {
                drawn_bytes.extend([0, 3]);
                (0..3).for_each(|state| drawn_bytes.extend([drawn(3), vec![5, 4, state]].concat()));
            }
            assert_eq!(bytes, drawn_bytes, "kind {kind}");
        }
    }
}
