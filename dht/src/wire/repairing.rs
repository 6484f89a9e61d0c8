//! Comparing what a node holds with the other holders: how far it is, and that it be done anew. The messages, and their bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::BadMessage;
use super::core_status::PullStatus;
use super::frame::Kind;
use super::message::{pack, unpack};

/// What one frame says of repair. The table in [`wire`](super) shows which follows which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Repairing {
    /// Client: asks how it goes.
    AskRepair,
    /// Client, who may command: compares all partitions anew, and tries now what waits for its next try.
    RepairNow,
    /// Node: so it goes; nothing where its map is a file, and it neither compares nor repairs.
    RepairReport(Option<Box<RepairReport>>),
}

/// How far a node is with finding and mending what its volumes lack.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct RepairReport {
    /// Partitions that are yet to be compared with another holder, once for each holder that answers, since a drive or a node
    /// came back, or all was to be compared anew. What changed since does not count: that is compared within seconds.
    pub comparing: u64,
    /// Partitions that could not be, once for each holder that does not answer.
    pub unanswered: u64,
    /// Tracks that another holder has, and that are missing only if they do not come within seconds.
    pub suspected: u64,
    /// Tracks that are missing, and how they come.
    pub pulls: PullStatus,
}

impl RepairReport {
    /// Whether all that could be compared was found equal, and nothing is missing.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.comparing == 0 && self.suspected == 0 && self.pulls.tracks_left == 0
    }
}

impl Repairing {
    /// The kinds of frame that carry one.
    pub(super) const KINDS: [Kind; 3] = [Kind::AskRepair, Kind::RepairNow, Kind::RepairReport];

    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::AskRepair => Kind::AskRepair,
            Self::RepairNow => Kind::RepairNow,
            Self::RepairReport(_) => Kind::RepairReport,
        }
    }

    pub(super) fn payload(&self) -> Bytes {
        match self {
            Self::AskRepair | Self::RepairNow => Bytes::new(),
            Self::RepairReport(report) => pack(report),
        }
    }

    /// The message of one of [`KINDS`](Self::KINDS) that these bytes are.
    pub(super) fn decode(kind: Kind, payload: &[u8]) -> Result<Self, BadMessage> {
        Ok(match kind {
            Kind::AskRepair => unpack(kind, payload).map(|()| Self::AskRepair)?,
            Kind::RepairNow => unpack(kind, payload).map(|()| Self::RepairNow)?,
            Kind::RepairReport => Self::RepairReport(unpack(kind, payload)?),
            _ => unreachable!("decode sends only its own kinds here, not {kind:?}"),
        })
    }
}
