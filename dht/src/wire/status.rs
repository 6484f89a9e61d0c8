//! What a node says of itself.

use std::collections::BTreeMap;

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
}

/// Whether a volume serves. The order is part of the wire format: append only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// It reads and writes.
    Serving,
    /// It is full or its writes failed: it reads only.
    ReadOnly,
    /// It failed and takes no part.
    Fenced,
}
