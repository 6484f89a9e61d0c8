//! Checking all that a node's drives hold: how far it is, and that it be done now. The messages, and their payloads' bytes.

use serde::{Deserialize, Serialize};

use super::BadMessage;
use super::frame::Kind;
use super::message::{pack, unpack};
use super::status::VOLUMES_PER_NODE_MAX;
use crate::VolumeId;

/// The bytes of a [`VolumeScrub`].
const SCRUB_BYTES: usize = 16 + 1 + 1 + 6 * 8;

const _: () = assert!(8 + VOLUMES_PER_NODE_MAX * SCRUB_BYTES <= Kind::Scrubs.payload_bounds().1);

/// What one frame says of scrubbing. The table in [`wire`](super) shows which follows which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scrubbing {
    /// Client: asks how it goes.
    AskScrubs,
    /// Node: so it goes, on each of its volumes that serves.
    Scrubs(Vec<VolumeScrub>),
    /// Client, who may command: begins a pass over everything now; one that is under way begins anew.
    Scrub {
        /// Of which volume; nothing: of each that serves.
        volume: Option<VolumeId>,
        /// How many bytes a second each volume reads at most until its pass has ended; not 0.
        bytes_per_second: u64,
    },
}

/// How a volume's checking goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VolumeScrub {
    /// Which volume.
    pub id: VolumeId,
    /// Whether a pass is under way.
    pub running: bool,
    /// How often everything was gone through, since the volume was made.
    pub passes: u64,
    /// How long ago the last pass to the end began, in seconds, or how long ago the volume was empty: all that was there then
    /// has been read since. What was written later was right when it was written. Nothing: that is not known.
    pub verified_s: Option<u64>,
    /// How much of the records the pass has behind it, in bytes, about.
    pub pass_bytes: u64,
    /// What all records take, in bytes.
    pub all_bytes: u64,
    /// Records that the pass found damaged, or the last one where none is under way.
    pub pass_damaged: u64,
    /// Records that were found damaged since the volume was opened; one found in two passes counts twice.
    pub damaged: u64,
}

impl Scrubbing {
    /// The kinds of frame that carry one.
    pub(super) const KINDS: [Kind; 3] = [Kind::AskScrubs, Kind::Scrubs, Kind::Scrub];

    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::AskScrubs => Kind::AskScrubs,
            Self::Scrubs(_) => Kind::Scrubs,
            Self::Scrub { .. } => Kind::Scrub,
        }
    }

    pub(super) fn payload(&self) -> bytes::Bytes {
        match self {
            Self::AskScrubs => bytes::Bytes::new(),
            Self::Scrubs(scrubs) => pack(scrubs),
            Self::Scrub { volume, bytes_per_second } => pack(&(volume, bytes_per_second)),
        }
    }

    /// The message of one of [`KINDS`](Self::KINDS) that these bytes are, within all limits.
    pub(super) fn decode(kind: Kind, payload: &[u8]) -> Result<Self, BadMessage> {
        Ok(match kind {
            Kind::AskScrubs => unpack(kind, payload).map(|()| Self::AskScrubs)?,
            Kind::Scrubs => {
                let scrubs: Vec<VolumeScrub> = unpack(kind, payload)?;
                if scrubs.len() > VOLUMES_PER_NODE_MAX {
                    return Err(BadMessage::Limit { kind, field: "the number of volumes", got: scrubs.len() as u64 });
                }
                Self::Scrubs(scrubs)
            }
            Kind::Scrub => {
                let (volume, bytes_per_second) = unpack(kind, payload)?;
                if bytes_per_second == 0 {
                    return Err(BadMessage::Limit { kind, field: "the rate", got: 0 });
                }
                Self::Scrub { volume, bytes_per_second }
            }
            _ => unreachable!("decode sends only its own kinds here, not {kind:?}"),
        })
    }
}
