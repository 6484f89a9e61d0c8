//! What a voter wants done, and what it says to those who ask it.

use std::sync::Arc;

use super::super::batch::Batch;
use super::super::codec::BadBytes;
use super::super::history::{BadHistory, Refusal};
use super::super::record::{Record, Ticket};
use super::super::state::BadState;
use super::durable::Persist;
use super::message::Message;
use crate::NodeId;

/// What the driver does next. Effects are done in the order in which [`poll`](super::Consensus::poll) gives them.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Make this durable, then [`acknowledge`](super::Consensus::acknowledge) it. Whatever depends on it is held back
    /// until then: the driver need not wait before it goes on.
    Persist(Persist),
    /// Send this. It may be lost.
    Send {
        /// To which node.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// These epochs are decided: for the node's own [`History`](super::super::History) to catch up on, and for those
    /// that ask it. After a start, epochs come again.
    Committed(Batch),
    /// The answer to a proposal that was made here.
    Decided {
        /// Which.
        ticket: Ticket,
        /// What came of it.
        outcome: Outcome,
    },
    /// This voter's seat is gone: it has no part in the log any more. Its durable state may be deleted once the node's
    /// own history, which says so, is durable.
    Retired,
    /// What was decided cannot be read: it is of a later version, and this voter does nothing any more until it runs that.
    Unreadable,
}

/// What came of a proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is this record.
    Record(Arc<Record>),
    /// It did not become one.
    Refused(Refusal),
    /// The voter stopped leading: it may come to be or not. Ask the new leader, with the same base: it cannot come to
    /// be twice ([`Refusal::Already`]).
    Unknown,
}

/// Why a proposal was not taken. Nothing came of it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposeError {
    /// Ask the leader.
    #[error("this voter does not lead")]
    NotLeader {
        /// Who does, if it is known.
        leader: Option<NodeId>,
    },
    /// Too many proposals wait, or too much for the drive: ask again.
    #[error("too many proposals wait: ask again")]
    Busy,
    /// A proposal with this ticket waits.
    #[error("a proposal with this ticket waits already")]
    Twice,
    /// A change of voters is under way, or may be: ask again.
    #[error("a change of voters may be under way")]
    VotersChange,
    /// It would be refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Why a message was dropped. Raft bears the loss; that it came is worth a line in the log.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadMessage {
    /// It is for another seat: the sender's view of the voters is old, or ours.
    #[error("message is for seat {to}, this is seat {seat}")]
    Seat {
        /// For which.
        to: u64,
        /// Ours.
        seat: u64,
    },
    /// The sender does not sit where it says.
    #[error("node {node} does not have seat {seat}")]
    Sender {
        /// Who sent it.
        node: NodeId,
        /// From which seat, it says.
        seat: u64,
    },
    /// No good voter says this.
    #[error("message cannot be right: {0}")]
    Wrong(&'static str),
    /// The history of a snapshot is not one.
    #[error("snapshot: {0}")]
    Snapshot(#[from] BadStart),
    /// Too much waits for the drive, or this voter is retired.
    #[error("voter takes no messages now")]
    Busy,
}

/// Why a voter cannot start from this state.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadStart {
    /// The bytes of its history are none.
    #[error(transparent)]
    State(#[from] BadState),
    /// Its history is broken.
    #[error(transparent)]
    History(#[from] BadHistory),
    /// The state is not one that a voter leaves.
    #[error("durable state is broken: {0}")]
    Durable(&'static str),
    /// Its settings are not possible.
    #[error("settings are not possible: {0}")]
    Config(String),
}

impl From<BadBytes> for BadStart {
    fn from(bad: BadBytes) -> Self {
        Self::State(bad.into())
    }
}
