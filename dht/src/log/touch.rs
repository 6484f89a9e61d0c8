//! What a change touches, so that two changes made side by side may both come to be.

use std::collections::BTreeSet;
use std::fmt;

use deadwax_track::Partition;

use super::change::Change;
use super::state::State;
use crate::{NodeId, VolumeId};

/// Something that a change reads or writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Thing {
    /// A partition's holders.
    Partition(Partition),
    /// A node.
    Node(NodeId),
    /// A drive.
    Volume(VolumeId),
    /// Copies and quorums.
    Policy,
    /// Who votes.
    Voters,
    /// At which version the cluster is finalised.
    Protocol,
    /// By which tokens nodes may join.
    Tokens,
    /// All there is.
    All,
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(partition) => write!(f, "partition {}", partition.0),
            Self::Node(node) => write!(f, "node {node}"),
            Self::Volume(volume) => write!(f, "volume {volume}"),
            Self::Policy => f.write_str("the policy"),
            Self::Voters => f.write_str("the voters"),
            Self::Protocol => f.write_str("the protocol's version"),
            Self::Tokens => f.write_str("the tokens"),
            Self::All => f.write_str("the whole map"),
        }
    }
}

/// What a change writes, and what it only relies on. Two changes clash where one writes what the other writes or
/// relies on; two that only rely on the same drive (moves of two partitions to it) do not.
#[derive(Clone, Default, Debug)]
pub(super) struct Touch {
    /// The partitions that it writes, rising, apart from the rest: there are thousands of them in some of the records that
    /// every node keeps.
    partitions: Vec<Partition>,
    writes: BTreeSet<Thing>,
    reads: BTreeSet<Thing>,
}

impl Touch {
    /// What `change` touches when it is made to `state`.
    pub(super) fn of(change: &Change, state: &State) -> Self {
        use Thing::{All, Node, Policy, Protocol, Tokens, Volume, Voters};
        let (mut partitions, mut writes, mut reads) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        match change {
            Change::Genesis { .. }
            | Change::RollBack { .. }
            | Change::Reshape { .. }
            | Change::Admit { .. }
            | Change::Refound { .. } => {
                writes.insert(All);
            }
            Change::AddNode(node) => {
                writes.insert(Node(node.id));
                writes.extend(node.volumes.iter().map(|volume| Volume(volume.id)));
            }
            Change::RemoveNode(id) => {
                writes.insert(Node(*id));
                let node = state.spec().nodes.iter().find(|node| node.id == *id);
                writes.extend(node.into_iter().flat_map(|node| &node.volumes).map(|volume| Volume(volume.id)));
            }
            Change::AddVolume { node, volume } => {
                writes.insert(Volume(volume.id));
                reads.insert(Node(*node));
            }
            Change::RetireVolume(volume) | Change::SetWeight { volume, .. } => {
                writes.insert(Volume(*volume));
            }
            Change::SetLeaving { volumes, .. } => writes.extend(volumes.iter().map(|volume| Volume(*volume))),
            Change::SetZone { node, .. }
            | Change::SetRack { node, .. }
            | Change::SetAddress { node, .. }
            | Change::SetDead { node, .. } => {
                writes.insert(Node(*node));
            }
            Change::SetPolicy(_) => {
                writes.insert(Policy);
            }
            Change::SetOverrides(overrides) => {
                reads.insert(Policy);
                partitions.extend(overrides.iter().map(|over| over.partition));
                reads.extend(overrides.iter().flat_map(|over| &*over.volumes).map(|volume| Volume(*volume)));
            }
            Change::Begin(moves) => {
                reads.insert(Policy);
                partitions.extend(moves.iter().map(|each| each.partition));
                reads.extend(moves.iter().flat_map(|each| each.old.iter().chain(&each.new)).map(|id| Volume(*id)));
            }
            Change::Advance { partitions: named, .. } | Change::Finish(named) | Change::Abort(named) => {
                partitions.extend_from_slice(named);
            }
            Change::SettleVoters => {
                writes.insert(Voters);
            }
            Change::Finalise { .. } => {
                writes.insert(Protocol);
            }
            Change::SetTokens(_) => {
                writes.insert(Tokens);
            }
            Change::SetVoters(voters) | Change::RenewSeats(voters) => {
                writes.insert(Voters);
                reads.extend(voters.iter().map(|grant| Node(grant.node)));
            }
        }
        partitions.sort_unstable();
        partitions.dedup();
        Self { partitions, writes, reads }
    }

    /// Whether the holders of any partition may be others afterwards: something that placement looks at was changed.
    pub(super) fn moves_all(&self) -> bool {
        use Thing::{All, Node, Policy, Volume};
        self.writes.iter().any(|thing| matches!(thing, All | Policy | Node(_) | Volume(_)))
    }

    /// The partitions that were named: their holders may be others afterwards.
    pub(super) fn moved(&self) -> impl Iterator<Item = Partition> {
        self.partitions.iter().copied()
    }

    /// What both touch so that they clash, the first such thing in order.
    pub(super) fn clash(&self, other: &Self) -> Option<Thing> {
        for all in [self, other] {
            if all.writes.contains(&Thing::All) {
                return Some(Thing::All);
            }
        }
        let both = |partition: &&Partition| other.partitions.binary_search(partition).is_ok();
        if let Some(partition) = self.partitions.iter().find(both) {
            return Some(Thing::Partition(*partition));
        }
        let theirs = |thing: &&Thing| other.writes.contains(*thing) || other.reads.contains(*thing);
        let written = self.writes.iter().find(theirs);
        written.or_else(|| self.reads.iter().find(|thing| other.writes.contains(*thing))).copied()
    }
}
