//! What can go wrong, by what the caller does about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use deadwax_track::TrackId;

use crate::guard::out_reason;

/// What the caller does about an [`Error`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// Too much is in flight: try again after a moment.
    Busy,
    /// The volume is full: put elsewhere; reads and takedowns go on.
    NoSpace,
    /// Bytes on the drive are not what was written: read another copy and repair this one.
    Corrupt,
    /// The volume does not hold the track.
    NotFound,
    /// The track was taken down: never store or serve it.
    TakenDown,
    /// The track is stored already: nothing is left to do.
    AlreadyStored,
    /// The request breaks a rule: do not repeat it.
    Invalid,
    /// The volume takes no writes, or does nothing at all, until it is reopened: use another.
    Fenced,
    /// The drive or the system refused an operation.
    Io,
    /// A newer version wrote it, or it uses a feature that this version lacks: upgrade.
    Unsupported,
    /// Another process, or another handle of this one, has the volume open.
    Locked,
    /// The volume or its files belong to another node or volume.
    Foreign,
}

/// Why the engine did not do what it was asked. See [`kind`](Self::kind).
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A limit on what may be in flight is reached.
    #[error("too many {what} under way (they may take {max} bytes of memory): try again shortly")]
    Busy {
        /// Puts, or reads.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// The volume has no room.
    #[error(
        "no space left on the volume for {needed} bytes ({free} free): put elsewhere, take tracks down, or add a drive"
    )]
    NoSpace {
        /// The bytes that the record takes on the drive.
        needed: u64,
        /// The bytes that puts may still take.
        free: u64,
    },
    /// A checksum, or what a checksum covers, is wrong.
    #[error("track {id} is corrupt on the drive: segment {segment}, offset {offset}: {what}")]
    Corrupt {
        /// The track whose bytes are wrong.
        id: TrackId,
        /// The segment's number.
        segment: u64,
        /// Where in the segment's file the bad block starts.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// A file of the volume is damaged where it cannot be read around.
    #[error("volume file {} is damaged: {what}", path.display())]
    CorruptFile {
        /// The file.
        path: PathBuf,
        /// What was found and what to do.
        what: String,
    },
    /// No such track.
    #[error("track {0} is not stored here")]
    NotFound(TrackId),
    /// The track was taken down.
    #[error("track {id} was taken down by takedown {number}")]
    TakenDown {
        /// The track.
        id: TrackId,
        /// The takedown's number.
        number: u64,
    },
    /// The track is here.
    #[error("track {id} is stored already ({bytes} bytes)")]
    AlreadyStored {
        /// The track.
        id: TrackId,
        /// Its length.
        bytes: u64,
    },
    /// The request breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// The volume takes no writes, or does nothing: why.
    #[error("volume is fenced: {0}")]
    Fenced(String),
    /// As before, because its drive hangs or is too slow, or because files were taken from it: how. Reopening may help.
    #[error("volume is fenced: {0}")]
    Hung(String),
    /// The system refused an operation.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Written by a newer version.
    #[error("{}: {what}: upgrade deadwax to use it", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not understood.
        what: String,
    },
    /// Somebody else has the volume open.
    #[error("volume {} is in use: {what}", path.display())]
    Locked {
        /// The volume's directory.
        path: PathBuf,
        /// By whom.
        what: String,
    },
    /// Somebody else's volume.
    #[error("{}: {what}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What does not match.
        what: String,
    },
}

impl Error {
    /// What the caller does about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Busy { .. } => ErrorKind::Busy,
            Self::NoSpace { .. } => ErrorKind::NoSpace,
            Self::Corrupt { .. } | Self::CorruptFile { .. } => ErrorKind::Corrupt,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::TakenDown { .. } => ErrorKind::TakenDown,
            Self::AlreadyStored { .. } => ErrorKind::AlreadyStored,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Fenced(_) | Self::Hung(_) => ErrorKind::Fenced,
            Self::Io { .. } => ErrorKind::Io,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Locked { .. } => ErrorKind::Locked,
            Self::Foreign { .. } => ErrorKind::Foreign,
        }
    }

    pub(crate) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        if let Some(out) = out_reason(&source) {
            return out.into();
        }
        Self::Io { what, path: path.to_owned(), source: Arc::new(source) }
    }
}
