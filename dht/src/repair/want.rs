//! What is wanted, what is pulled for it, and how that may fail.

use deadwax_track::TrackId;

use super::class::Reason;
use crate::{NodeId, VolumeId};

/// A track that one of this node's volumes lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    /// The own volume that lacks it.
    pub volume: VolumeId,
    /// The track. Its partition is in its id.
    pub track: TrackId,
    /// Its length; 0: not known.
    pub bytes: u64,
    /// How many live copies are known. One or none: this track is urgent.
    pub copies: u8,
    /// A zone that should have a copy has none: this track is urgent, too.
    pub zoneless: bool,
    /// Why the volume should have it.
    pub reason: Reason,
}

/// A volume that has the track.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    /// The volume.
    pub volume: VolumeId,
    /// Its node.
    pub node: NodeId,
    /// Whether that node is in this node's zone: such sources are asked first.
    pub near: bool,
}

/// Fetch this track from there and store it here; then tell [`Repair::handle_pulled`](super::Repair::handle_pulled) how
/// that went, always, and within a time that the driver bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pull {
    /// Names the pull in `handle_pulled`. Never used twice by one machine.
    pub number: u64,
    /// The own volume that is to have the track.
    pub volume: VolumeId,
    /// The track.
    pub track: TrackId,
    /// The node to ask.
    pub node: NodeId,
    /// Its volume that has the track.
    pub from: VolumeId,
    /// The track's length, or about how long it may be.
    pub bytes_hint: u64,
    /// Whether the track is urgent. The request says so, for [`Repair::may_serve`](super::Repair::may_serve).
    pub urgent: bool,
}

/// Why a pull failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PullError {
    /// The source gave no answer, or stopped in the middle.
    #[error("reach the source")]
    Unreachable,
    /// The source does not have the track.
    #[error("find the track at the source")]
    Lacks,
    /// The source serves enough already.
    #[error("be served: come again in {after_ms} ms")]
    Busy {
        /// When to come again, as the source says; more than half a minute counts as that.
        after_ms: u64,
    },
    /// What the source sent is not the track.
    #[error("verify what the source sent")]
    Corrupt,
    /// The own volume has no room.
    #[error("store the track: the drive is full")]
    DriveFull,
    /// The own volume does not take it.
    #[error("store the track: the drive fails")]
    DriveFailed,
    /// The track was taken down: nobody may store it.
    #[error("store the track: it was taken down")]
    Barred,
}
