//! What a partition holds, in few bytes.

use deadwax_track::Partition;
use serde::{Deserialize, Serialize};

/// What one partition of a volume holds. Equal sets of tracks give equal digests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartitionDigest {
    /// Which partition.
    pub partition: Partition,
    /// How many tracks.
    pub tracks: u32,
    /// XOR of the first 16 bytes of their ids.
    pub digest: [u8; 16],
}
