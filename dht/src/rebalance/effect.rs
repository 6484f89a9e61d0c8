//! What the planner wants done, and what it is told of it.

use crate::log::{Change, Refusal, TOKENS_MAX, VOTERS_MIN};
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
        "node {0} is not up, has not said yet which epoch it knows, or lost its seat and is given another within a minute: start \
         it, wait a little, and ask again"
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
    /// It only rises.
    #[error("the cluster is finalised at protocol {finalised} already, which cannot be lowered to {got}")]
    Lowered {
        /// What was asked for.
        got: u8,
        /// At which it is finalised.
        finalised: u8,
    },
    /// Upgrade these first. They, and no others, keep the cluster from it, but for those that are [`Unspoken`](Self::Unspoken).
    #[error(
        "{nodes} not speak protocol {protocol}, as was heard in the last minutes: run a later version of the program there \
         (or take `protocol_max` out of the settings), or declare dead what will not come back",
        nodes = .nodes.that("does", "do")
    )]
    TooOld {
        /// At which version the cluster was to be finalised.
        protocol: u8,
        /// Who speaks less.
        nodes: Named,
    },
    /// It is not known what these speak: each is down, or started a moment ago. They were asked meanwhile; ask again.
    #[error(
        "{nodes} not been heard in the last minutes, so that it is not known whether all speak protocol {protocol}: start \
         what is down, or declare it dead, wait a minute, and ask again",
        nodes = .nodes.that("has", "have")
    )]
    Unspoken {
        /// At which version the cluster was to be finalised.
        protocol: u8,
        /// Who was not heard.
        nodes: Named,
    },
    /// Wait until some are used or expire, or revoke them.
    #[error("there are {TOKENS_MAX} tokens that were not used: wait until some expire, or revoke them all")]
    Tokens,
    /// Have another one made.
    #[error("there is no such token: it was used, has expired or was revoked; have another one made")]
    NoToken,
    /// Have another one made.
    #[error("the token has expired, by the clock of the node that leads: have another one made")]
    TokenExpired,
    /// The map would break a rule.
    #[error(transparent)]
    Map(#[from] BadMap),
    /// The log's rules forbid it.
    #[error(transparent)]
    Log(#[from] Refusal),
}

/// Nodes, of which a few are named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// The first of them, [`NAMED_MAX`] at most.
    pub first: Vec<NodeId>,
    /// How many there are, at least one.
    pub count: usize,
}

/// The most nodes that a refusal names.
pub const NAMED_MAX: usize = 8;

impl Named {
    /// These; none where there are none.
    pub(super) fn of(nodes: &[NodeId]) -> Option<Self> {
        let first = nodes.iter().take(NAMED_MAX).copied().collect();
        (!nodes.is_empty()).then_some(Self { first, count: nodes.len() })
    }

    /// The nodes by name, with a verb for one or for several.
    fn that(&self, one: &str, several: &str) -> String {
        let names = self.first.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
        match self.count {
            1 => format!("node {names} {one}"),
            count if count == self.first.len() => format!("nodes {names} {several}"),
            count => format!("nodes {names} and {} more {several}", count - self.first.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_a_few_nodes_and_counts_the_others() {
        let nodes: Vec<NodeId> = (0..10).map(|at| NodeId::from_bytes([at; 32])).collect();
        let said = |count: usize| {
            let nodes = Named::of(&nodes[..count]).expect("some");
            Refused::TooOld { protocol: 5, nodes }.to_string()
        };
        assert!(said(1).starts_with(&format!("node {} does not speak protocol 5", nodes[0])), "{}", said(1));
        assert!(said(2).contains(&format!("{} do not speak", nodes[1])), "{}", said(2));
        assert!(said(10).contains(&format!("{} and 2 more do not speak", nodes[7])), "{}", said(10));
        assert_eq!(Named::of(&[]), None);
    }
}
