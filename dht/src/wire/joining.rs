//! A node that joins: it shows its token, and asks whom its settings are to let in. The messages, and their payloads' bytes.

use serde::{Deserialize, Serialize};

use super::BadMessage;
use super::frame::{FRAME_PAYLOAD_MAX, Kind};
use super::message::{pack, unpack};
use crate::log::{Reader, Writer, read_node, write_node};
use crate::{IssuerKey, Node, NodeId, TokenSecret};

/// The most clients, admins and issuers of a node's settings, of each.
pub const ADMITTED_MAX: usize = 4_096;
/// The most bytes of a joining node's entry for the map: within a frame of its kind.
const NODE_BYTES_MAX: usize = 16_000;

const _: () = assert!(3 * (8 + 32 * ADMITTED_MAX) <= FRAME_PAYLOAD_MAX);

/// What one frame says of a node that joins. The table in [`wire`](super) shows which follows which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Joining {
    /// A node, in place of `Hello`: it is to be in the map, by a token. Whoever is there already, as it says, is done.
    Join {
        /// How long the answer is waited for, in ms from when it is read.
        within_ms: u32,
        /// What its operator gave it.
        secret: TokenSecret,
        /// Its entry for the map. Its name is that of the key by which the connection is made.
        node: Box<Node>,
    },
    /// Whoever may command, or a node of the map: asks whom the node lets in.
    AskAdmits,
    /// Node: by its settings, these.
    Admits(Admits),
}

/// Whom a node's settings name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Admits {
    /// Who may read, store and take down.
    pub clients: Vec<NodeId>,
    /// Who may command, too.
    pub admins: Vec<NodeId>,
    /// Who may take tracks down by the cluster's log.
    pub issuers: Vec<IssuerKey>,
}

impl Joining {
    /// The kinds of frame that carry one.
    pub(super) const KINDS: [Kind; 3] = [Kind::Join, Kind::AskAdmits, Kind::Admits];

    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Join { .. } => Kind::Join,
            Self::AskAdmits => Kind::AskAdmits,
            Self::Admits(_) => Kind::Admits,
        }
    }

    pub(super) fn payload(&self) -> bytes::Bytes {
        match self {
            Self::Join { within_ms, secret, node } => {
                let mut bytes = Writer::default();
                write_node(&mut bytes, node);
                pack(&(within_ms, secret.as_bytes(), bytes.finish()))
            }
            Self::AskAdmits => bytes::Bytes::new(),
            Self::Admits(admits) => pack(admits),
        }
    }

    /// The message of one of [`KINDS`](Self::KINDS) that these bytes are, within all limits.
    pub(super) fn decode(kind: Kind, payload: &[u8]) -> Result<Self, BadMessage> {
        Ok(match kind {
            Kind::Join => {
                let (within_ms, secret, bytes): (_, _, Vec<u8>) = unpack(kind, payload)?;
                let bad = |why: crate::log::BadBytes| BadMessage::Payload { kind, why: why.to_string() };
                let mut from = Reader::new(&bytes, "node", NODE_BYTES_MAX).map_err(bad)?;
                let node = Box::new(read_node(&mut from).map_err(bad)?);
                from.finish().map_err(bad)?;
                Self::Join { within_ms, secret: TokenSecret::from_bytes(secret), node }
            }
            Kind::AskAdmits => unpack(kind, payload).map(|()| Self::AskAdmits)?,
            Kind::Admits => {
                let admits: Admits = unpack(kind, payload)?;
                let most = admits.clients.len().max(admits.admins.len()).max(admits.issuers.len());
                if most > ADMITTED_MAX {
                    return Err(BadMessage::Limit { kind, field: "the number of keys", got: most as u64 });
                }
                Self::Admits(admits)
            }
            _ => unreachable!("decode sends only its own kinds here, not {kind:?}"),
        })
    }
}
