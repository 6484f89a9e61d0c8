//! What a node says of itself.

use std::collections::BTreeMap;

use deadwax_track::MIB;
use serde::{Deserialize, Serialize};

use crate::{NodeId, VolumeId};

/// The most volumes that one node has.
pub const VOLUMES_PER_NODE_MAX: usize = 256;

/// A node's answer to [`Status`](super::Message::Status).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node's name.
    pub id: NodeId,
    /// The version of its program.
    pub version: String,
    /// Seconds since it began to serve.
    pub uptime_s: u64,
    /// The epoch of its map.
    pub epoch: u64,
    /// How many cores serve.
    pub shards: u32,
    /// Its drives.
    pub volumes: Vec<VolumeStatus>,
    /// Resident memory of the process, in bytes.
    pub resident_bytes: u64,
    /// Whatever it counts since it began to serve, by name.
    pub counters: BTreeMap<String, u64>,
}

/// One drive of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// The volume's name.
    pub id: VolumeId,
    /// Its directory on the node.
    pub dir: String,
    /// All bytes of its file system.
    pub capacity_bytes: u64,
    /// Bytes that it can still take in.
    pub free_bytes: u64,
    /// Tracks on it.
    pub tracks: u64,
    /// Those tracks' own bytes.
    pub track_bytes: u64,
    /// Bytes that their records take on the drive.
    pub record_bytes: u64,
    /// Tracks taken down on it.
    pub takedowns: u64,
    /// Whether it serves.
    pub state: VolumeState,
    /// Why it does not, or why it is read-only; nothing while it serves.
    #[serde(default)]
    pub reason: Option<String>,
}

impl VolumeStatus {
    /// Below this many free bytes a volume is called full: some tracks do not fit any more (they have up to 30 MB
    /// mostly).
    pub const FULL_BELOW_BYTES: u64 = 32 * MIB;

    /// Whether it takes no more tracks for want of room. Reads and takedowns go on.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state == VolumeState::Serving && self.free_bytes < Self::FULL_BELOW_BYTES
    }
}

/// Whether a volume serves. The order is part of the wire format: append only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// It reads and writes.
    Serving,
    /// Its writes failed: it reads only.
    ReadOnly,
    /// Its drive failed, or it was retired: it takes no part.
    Fenced,
}
