//! What the planner wants done, and what it is told of it.

use crate::log::{Change, Refusal, VOTERS_MIN};
use crate::{BadMap, NodeId, Plan, Unmet, VolumeId, VolumeShare};

/// What the driver is to carry out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Propose this to the log; tell [`decided`](super::Rebalance::decided) what came of it.
    Propose {
        /// The planner's number for it; rising, not used twice by one planner.
        number: u64,
        /// The epoch that it was planned at.
        base: u64,
        /// What is to change.
        change: Change,
    },
    /// Answer an operator.
    Answer {
        /// The number that came with the command.
        number: u64,
        /// What came of it.
        result: Result<Answer, Refused>,
    },
}

/// What came of a proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It is the record of this epoch.
    Record(u64),
    /// It did not become one.
    Refused(Refusal),
    /// It was not taken, or nobody knows: the voter was busy, or stopped leading.
    Unknown,
}

/// An answer to a command that was carried out, or tried on paper.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is done at this epoch. What it moves is still to move.
    Done {
        /// The epoch.
        epoch: u64,
    },
    /// What it would do.
    Forecast(Forecast),
}

/// What a command would do, from where the copies are now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forecast {
    /// Each volume's part, before and after.
    pub shares: Vec<VolumeShare>,
    /// Bytes that would travel.
    pub bytes_to_move: u128,
    /// What any fair placement would have to move.
    pub bytes_unavoidable: u128,
    /// What the policy and the weights ask and would not get.
    pub unmet: Vec<Unmet>,
}

impl Forecast {
    pub(super) fn of(plan: &Plan) -> Self {
        Self {
            shares: plan.shares().to_vec(),
            bytes_to_move: plan.bytes_to_move(),
            bytes_unavoidable: plan.bytes_unavoidable(),
            unmet: plan.unmet().to_vec(),
        }
    }
}

/// Why a command was not carried out. Nothing came of it, unless it says so.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Ask again: too many commands wait.
    #[error("too many commands wait: ask again")]
    Busy,
    /// Ask again: other changes came in between, time after time. Of a command that takes several records, some may be
    /// done; asking again does the rest.
    #[error("other changes came in between: ask again")]
    Overtaken,
    /// There is no such node.
    #[error("no node {0} is in the map")]
    NoNode(NodeId),
    /// There is no such drive.
    #[error("no volume {0} is in the map")]
    NoVolume(VolumeId),
    /// It is there already, and another.
    #[error("node {0} is in the map already, and is not the same")]
    NodeExists(NodeId),
    /// It is there already, and another.
    #[error("volume {0} is in the map already, and is not the same")]
    VolumeExists(VolumeId),
    /// Drain it first, and wait.
    #[error("{partitions} partitions are on it: drain it first")]
    NotDrained {
        /// Partitions that it holds, or that move to or from it.
        partitions: usize,
    },
    /// It is dead, down, or was not heard of at an epoch by the node that leads: with a seat it could leave the log without a
    /// majority. It was asked meanwhile; ask again when it is up.
    #[error(
        "node {0} is not up, or has not said yet which epoch it knows: start it, wait a few seconds, and ask again"
    )]
    Unheard(NodeId),
    /// Nothing came of it. Ask again when another node may vote.
    #[error(
        "node {0} votes, and no other can vote in its place, of {VOTERS_MIN} at least: start or add a node, and ask again"
    )]
    LastVoters(NodeId),
    /// The number of copies cannot be changed while there are tracks.
    #[error("policy has {got} copies, the cluster {copies}: the number of copies cannot be changed")]
    Copies {
        /// What was asked for.
        got: u8,
        /// What there is.
        copies: u8,
    },
    /// While some know of the change and others do not, a track that was acknowledged by the lower quorum counts as absent
    /// where the higher one holds.
    #[error("write quorum {got} is not the cluster's, {write_quorum}: it cannot be changed")]
    WriteQuorum {
        /// What was asked for.
        got: u8,
        /// What there is.
        write_quorum: u8,
    },
    /// The epoch to roll back to is no earlier one, or its map is another cluster's.
    #[error("cannot roll back to the map of epoch {0}")]
    RollBack(u64),
    /// The map would break a rule.
    #[error(transparent)]
    Map(#[from] BadMap),
    /// The log's rules forbid it.
    #[error(transparent)]
    Log(#[from] Refusal),
}
