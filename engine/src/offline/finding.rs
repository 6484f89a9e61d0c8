//! What a look at a volume at rest may find, and how far it has come.

use std::path::PathBuf;

use deadwax_track::TrackId;
use serde::Serialize;

/// What is the matter with something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Damage: `volume.deadwax` is lost, so the volume does not open. Its tracks are not harmed.
    Superblock,
    /// Damage: a snapshot is not whole. The next start walks the open segments instead.
    Snapshot,
    /// Damage: a segment's header is lost, the file is cut off, or it is another volume's.
    Segment,
    /// Damage: a footer or another listing is not whole. Each start walks the segment instead.
    Listing,
    /// Damage: a record's header is lost, or what it says is not so.
    Header,
    /// Damage: a track's bytes are not what was put.
    Track,
    /// Damage: a whole record that a sealed segment does not list: no start finds it.
    Unlisted,
    /// Damage: the drive does not give a block.
    Unreadable,
    /// Notice: a record at an open segment's end that a crash cut off. It was never acknowledged; the next start cuts it.
    Torn,
    /// Notice: a track that was taken down and whose bytes are still there. The next start erases it.
    TakenDown,
    /// Notice: a further record of a track. The next start erases all but one.
    Duplicate,
    /// Notice: a file that is not the volume's, or that was never finished.
    Stranger,
}

impl FindingKind {
    /// Whether something is lost or may be; else it is what a start puts right by itself.
    #[must_use]
    pub const fn is_damage(self) -> bool {
        !matches!(self, Self::Torn | Self::TakenDown | Self::Duplicate | Self::Stranger)
    }
}

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What sort of thing.
    pub kind: FindingKind,
    /// The file that it is in.
    pub path: PathBuf,
    /// The segment's number, where it is in one.
    pub segment: Option<u64>,
    /// Where in the file the record (or what else it is about) starts.
    pub offset: u64,
    /// The track, as far as the record or a listing tells.
    pub id: Option<TrackId>,
    /// What was found, in words.
    pub what: String,
}

/// How far the work has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Bytes on the drive that are done.
    pub done_bytes: u64,
    /// Bytes on the drive that there are to do: what the files take. An estimate.
    pub total_bytes: u64,
}
