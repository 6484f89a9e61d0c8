//! How a node's part in the cluster's rules stands, as the wire says it.

use serde::{Deserialize, Serialize};

use super::command_answer::SENTENCE_BYTES_MAX;
use super::frame::Kind;
use crate::NodeId;
use crate::repair::ClassStatus;

/// The most nodes that a status names as not up.
pub const NOT_UP_MAX: usize = 1_024;
/// The most that it warns of.
pub const WARNINGS_MAX: usize = 64;
/// The bytes of a node that is not up: its name, how it counts, for how long.
const NOT_UP_BYTES: usize = 32 + 4 + 8;
/// More than all that has a fixed length, and the classes of what is pulled, of which there are some dozens.
const REST_BYTES: usize = 4_096;

// The longest status fits into its frame.
const _: () = assert!(
    NOT_UP_MAX * NOT_UP_BYTES + (WARNINGS_MAX + 2) * (8 + SENTENCE_BYTES_MAX) + REST_BYTES
        <= Kind::CoreStatus.payload_bounds().1
);

/// A node's answer to [`AskCore`](super::Message::AskCore): what it knows, which may be less than others do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CoreStatus {
    /// The newest epoch that it knows; 0: it has not heard of the map yet.
    pub epoch: u64,
    /// Who leads the map's log; nothing: it does not vote, or nobody does at the moment.
    pub leader: Option<NodeId>,
    /// Its seat, where it votes.
    pub seat: Option<u64>,
    /// Whether it may serve: it knows all takedowns, as far as can be told.
    pub may_serve: bool,
    /// What moves, where it leads.
    pub moves: Option<MoveStatus>,
    /// What it pulls.
    pub pulls: PullStatus,
    /// How many other nodes are up, as it sees them.
    pub up: u64,
    /// How many are not.
    pub down: u64,
    /// Those that are not, [`NOT_UP_MAX`] at most.
    pub not_up: Vec<NotUp>,
    /// What an operator must look at: nodes that have another log of the map, and zones where a mass of nodes, or of drives,
    /// vanished at once, so that nothing moves on their account; one sentence each, [`WARNINGS_MAX`] at most.
    pub warnings: Vec<String>,
}

/// A node that is not up, as another sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NotUp {
    /// Which.
    pub node: NodeId,
    /// How it counts.
    pub absence: Absence,
    /// How long it was silent, in ms; 0 where it answers others.
    pub silent_ms: u64,
}

/// How a node counts that is not up. The order is part of the wire format: append only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Absence {
    /// It is not there at the moment. Nothing is moved.
    Down,
    /// Its tracks are protected anew.
    Dead,
}

/// What the node that leads moves. Partitions are counted.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct MoveStatus {
    /// In motion: new holders copy.
    pub joint: u64,
    /// In motion: new holders have all.
    pub synced: u64,
    /// Arrived; the old copies are to be released.
    pub settled: u64,
    /// Waiting: a holder is dead.
    pub waiting_copies: u64,
    /// Waiting: zones or racks are not as they could be.
    pub waiting_zones: u64,
    /// Waiting: a holder is leaving.
    pub waiting_leaving: u64,
    /// Waiting: a volume has more than its share.
    pub waiting_balance: u64,
    /// Held by a brake.
    pub braked: u64,
    /// No live copy is left.
    pub lost: u64,
    /// Whether what is to move is yet to be worked out: there may be more.
    pub planning: bool,
    /// Why nothing goes on, or not all of it, for people.
    pub stall: Option<String>,
    /// Whether that needs somebody to see to it: it is more than that copying takes its time.
    pub stuck: bool,
}

impl MoveStatus {
    /// How many partitions move or wait for it.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.moving().saturating_add(self.waiting())
    }

    /// How many move.
    #[must_use]
    pub const fn moving(&self) -> u64 {
        self.joint.saturating_add(self.synced).saturating_add(self.settled)
    }

    /// How many wait for it.
    #[must_use]
    pub const fn waiting(&self) -> u64 {
        let Self { waiting_copies, waiting_zones, waiting_leaving, waiting_balance, braked, .. } = *self;
        let for_rules = waiting_copies.saturating_add(waiting_zones);
        for_rules.saturating_add(waiting_leaving).saturating_add(waiting_balance).saturating_add(braked)
    }
}

/// What a node pulls from others: copies that are missing, that move to it, that rotted.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct PullStatus {
    /// What is wanted, by urgency, that which goes first first.
    pub classes: Vec<ClassStatus>,
    /// How many tracks are wanted.
    pub tracks_left: u64,
    /// Their bytes, in part by the mean length.
    pub bytes_left: u64,
    /// Bytes a second that came, over the last minute.
    pub rate_bytes_s: u64,
    /// Bytes a second that may come at present, by the latency of requests.
    pub rate_bytes_s_max: u64,
    /// How long the oldest want has waited, in ms.
    pub oldest_ms: u64,
    /// Tracks that came since the start.
    pub tracks_pulled: u64,
    /// Bytes that came since the start.
    pub bytes_pulled: u64,
    /// Pulls that failed since the start.
    pub pulls_failed: u64,
    /// Wants that were dropped since the start.
    pub wants_dropped: u64,
    /// Why nothing comes, if nothing does, for people.
    pub stall: Option<String>,
    /// Whether that needs somebody to see to it.
    pub stuck: bool,
}
