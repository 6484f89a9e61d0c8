//! What nodes ask one another to find their way.

use std::sync::Arc;

use deadwax_track::Partition;

use super::distance::Key;
use super::record::PartitionRecord;
use crate::NodeId;

/// The longest address, in bytes: as long as one of the map may be.
pub const ADDRESS_BYTES_MAX: usize = 255;

/// The most contacts of an answer; a cluster's `k` is no larger.
pub const CONTACTS_MAX: usize = 64;
/// The most records of an announcement.
pub const ANNOUNCED_MAX: usize = 64;

/// A node and where it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Contact {
    /// Its name.
    pub id: NodeId,
    /// `host:port` of its cluster port, as in [`Node::address`](crate::Node::address); at most [`ADDRESS_BYTES_MAX`].
    pub address: Arc<str>,
}

impl Contact {
    /// A contact.
    #[must_use]
    pub fn new(id: NodeId, address: impl Into<Arc<str>>) -> Self {
        Self { id, address: address.into() }
    }

    /// Where the node is in the keyspace.
    #[must_use]
    pub fn key(&self) -> Key {
        self.id.into()
    }

    /// Whether the address has a length that a table takes in. What it names shows when it is asked.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        (1..=ADDRESS_BYTES_MAX).contains(&self.address.len())
    }
}

/// What a node, or a client, asks a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Are you there? Answered with [`Pong`](Response::Pong).
    Ping,
    /// Whom do you know near this key? Answered with [`Nodes`](Response::Nodes).
    FindNode(Key),
    /// Who holds this partition? Answered with [`Record`](Response::Record) or [`NoRecord`](Response::NoRecord).
    FindPartition(Partition),
    /// Keep these records, 1 to [`ANNOUNCED_MAX`]. Sent by one of the holders of each; answered with
    /// [`Kept`](Response::Kept).
    Announce(Vec<PartitionRecord>),
    /// Which map is the newest that you know of? Answered with [`MapEpoch`](Response::MapEpoch).
    MapEpoch,
}

/// What a node answers. Lists have at most k contacts (which is at most [`CONTACTS_MAX`]), nearest first, never the
/// asker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// It is there.
    Pong,
    /// The nearest to the key that it knows.
    Nodes(Vec<Contact>),
    /// Who holds the partition, as far as it knows, and the nearest to the partition's key that it knows.
    Record(PartitionRecord, Vec<Contact>),
    /// It keeps no record of the partition.
    NoRecord {
        /// Whether that means anything: not until every record was announced once since the node came; nor where it had
        /// no room to keep them; nor within a day of when most of its neighbours fell silent; nor where it heard of a
        /// map that it does not have: who has that may not know that this node is one of the nearest.
        settled: bool,
        /// The nearest to the partition's key that it knows.
        nodes: Vec<Contact>,
    },
    /// For each record of the announcement, the epoch of what it now knows of the partition, which may be newer; 0: it
    /// does not keep it, as it has no room, or the sender may not announce it.
    Kept(Vec<u64>),
    /// The newest map that it knows of.
    MapEpoch {
        /// Its epoch; 0: it knows of none.
        epoch: u64,
        /// Who has it.
        from: Option<Contact>,
    },
}
