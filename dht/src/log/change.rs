//! What a record may change, and the bytes of each change.

use deadwax_track::Partition;

use super::codec::{BadBytes, Reader, Writer};
use super::spec::{
    read_node, read_overrides, read_partitions, read_policy, read_rack, read_spec, read_volume, read_volumes,
    write_node, write_overrides, write_partitions, write_policy, write_rack, write_spec, write_volume, write_volumes,
};
use super::state::{Grant, Token};
use super::transition::{Move, Stage, read_moves, write_moves};
use crate::wire::{PROTOCOL_OF_NODES, PROTOCOL_OF_TOKENS};
use crate::{MapSpec, Node, NodeId, Override, Policy, TokenName, Volume, VolumeId};

/// One change of the cluster's description. [`State`](super::State) says what each may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The first record: the whole map, and who keeps the log.
    Genesis {
        /// The map. Its epoch is the record's.
        spec: Box<MapSpec>,
        /// The nodes that vote, 3 to 7.
        voters: Vec<NodeId>,
        /// The version of the protocol at which the cluster begins: the founders' newest.
        protocol: u8,
    },
    /// A node comes.
    AddNode(Node),
    /// A node goes, with its volumes. It is no voter, and no transition needs its volumes.
    RemoveNode(NodeId),
    /// A node gets a drive.
    AddVolume {
        /// Which node.
        node: NodeId,
        /// The drive.
        volume: Volume,
    },
    /// A drive goes. No transition needs it.
    RetireVolume(VolumeId),
    /// A drive's share.
    SetWeight {
        /// Which drive.
        volume: VolumeId,
        /// Its share, not zero.
        weight: u32,
    },
    /// A node's zone.
    SetZone {
        /// Which node.
        node: NodeId,
        /// Its zone.
        zone: String,
    },
    /// A node's rack.
    SetRack {
        /// Which node.
        node: NodeId,
        /// Its rack; none: each node by itself.
        rack: Option<String>,
    },
    /// A node's address.
    SetAddress {
        /// Which node.
        node: NodeId,
        /// `host:port`.
        address: String,
    },
    /// Copies and quorums.
    SetPolicy(Policy),
    /// Partitions that lie elsewhere than placement puts them. One without volumes goes back to where placement does.
    SetOverrides(Vec<Override>),
    /// Partitions start to move: stable to joint.
    Begin(Vec<Move>),
    /// Partitions come to this stage, from the one before it.
    Advance {
        /// Which.
        partitions: Vec<Partition>,
        /// To which stage: `Synced` or `Settled`.
        to: Stage,
    },
    /// Settled partitions are done with: their old holders may delete.
    Finish(Vec<Partition>),
    /// Partitions that are not settled stay with their old holders.
    Abort(Vec<Partition>),
    /// Who votes from here on, 3 to 7 nodes of the map. Those who voted before vote still, until the change is settled.
    SetVoters(Vec<Grant>),
    /// Voters whose seats were lost get new ones, each in the process that is named: where a cluster has no other node for them.
    /// Those who voted before vote still, until the change is settled; a lost seat does not.
    RenewSeats(Vec<Grant>),
    /// Those who voted before do so no more. The leader proposes it by itself.
    SettleVoters,
    /// An operator's word, or that of 30 minutes of silence: the node will not come back as it was (or it does).
    SetDead {
        /// Which node.
        node: NodeId,
        /// Whether it is dead.
        dead: bool,
    },
    /// An operator's word, or that of a leader that knew of drives to be out for 30 minutes while their nodes live: these shall
    /// be emptied, or need not be any more. Each keeps what it holds until transitions have moved it.
    SetLeaving {
        /// Which drives, 1 to [`MOVES_MAX`](super::MOVES_MAX), each once.
        volumes: Vec<VolumeId>,
        /// Whether they leave.
        leaving: bool,
    },
    /// Other nodes, drives, weights, zones, racks or policy, with overrides by which every partition keeps its holders:
    /// [`pin`](crate::rebalance::pin) works them out. So nothing moves by the record itself; transitions move it
    /// afterwards. That the overrides do so is the proposer's word: to check it would cost every node seconds.
    Reshape {
        /// The map. Its epoch is the one that it was planned at, the newest.
        spec: Box<MapSpec>,
    },
    /// A new epoch with the map of an earlier one. Voters, deaths and transitions stay as they are.
    RollBack {
        /// The earlier epoch.
        to: u64,
        /// Its map: the record stands for itself when that epoch is forgotten.
        spec: Box<MapSpec>,
    },
    /// The cluster is finalised at a later version of the protocol: what came with it may be used from the next record on,
    /// and whoever does not speak it takes no part any more. That all do is for the proposer to know.
    Finalise {
        /// At which.
        protocol: u8,
    },
    /// The tokens by which nodes may join from here on, [`TOKENS_MAX`](super::TOKENS_MAX) at most, each once: one more than
    /// before, or fewer. Those that are missing are of no use any more.
    SetTokens(Vec<Token>),
    /// As [`Reshape`](Self::Reshape), by whoever has a token, which is used up by it: of two who show the same one the log
    /// takes the first.
    Admit {
        /// Which.
        token: TokenName,
        /// The map, with the node that comes. Its epoch is the one that it was planned at, the newest.
        spec: Box<MapSpec>,
    },
    /// The log begins anew, as most of those who vote are lost for good. It comes of no decision of theirs: an operator has
    /// the node that is named write it behind its own history ([`History::refound`](super::History::refound)).
    Refound {
        /// The only voter, in a new seat, until it gives others seats.
        voter: NodeId,
        /// The nodes that are lost: dead from here on.
        lost: Vec<NodeId>,
    },
}

impl Change {
    /// These nodes vote; each that is new is given its seat in the process that `life` names.
    pub fn set_voters(nodes: impl IntoIterator<Item = NodeId>, life: impl Fn(&NodeId) -> u64) -> Self {
        Self::SetVoters(nodes.into_iter().map(|node| Grant { node, life: life(&node) }).collect())
    }

    /// Whether others vote afterwards, beside those who did before.
    pub(super) const fn gives_seats(&self) -> bool {
        matches!(self, Self::SetVoters(_) | Self::RenewSeats(_))
    }

    /// The version of the protocol that it came with: it can be a record only where the cluster is finalised at that one
    /// or a later, as others could not read it.
    #[must_use]
    pub const fn since(&self) -> u8 {
        match self {
            Self::Genesis { .. }
            | Self::AddNode(_)
            | Self::RemoveNode(_)
            | Self::AddVolume { .. }
            | Self::RetireVolume(_)
            | Self::SetWeight { .. }
            | Self::SetZone { .. }
            | Self::SetRack { .. }
            | Self::SetAddress { .. }
            | Self::SetPolicy(_)
            | Self::SetOverrides(_)
            | Self::Begin(_)
            | Self::Advance { .. }
            | Self::Finish(_)
            | Self::Abort(_)
            | Self::SetVoters(_)
            | Self::RenewSeats(_)
            | Self::SettleVoters
            | Self::SetDead { .. }
            | Self::SetLeaving { .. }
            | Self::Reshape { .. }
            | Self::RollBack { .. }
            | Self::Finalise { .. }
            | Self::Refound { .. } => PROTOCOL_OF_NODES,
            Self::SetTokens(_) | Self::Admit { .. } => PROTOCOL_OF_TOKENS,
        }
    }

    pub(super) fn write(&self, out: &mut Writer) {
        out.u8(self.tag());
        match self {
            Self::Genesis { spec, voters, protocol } => {
                write_spec(out, spec);
                out.list(voters.iter(), Writer::node);
                out.u8(*protocol);
            }
            Self::AddNode(node) => write_node(out, node),
            Self::RemoveNode(node) => out.node(node),
            Self::AddVolume { node, volume } => {
                out.node(node);
                write_volume(out, *volume);
            }
            Self::RetireVolume(volume) => out.volume(volume),
            Self::SetWeight { volume, weight } => write_volume(out, Volume { id: *volume, weight: *weight }),
            Self::SetZone { node, zone: text } | Self::SetAddress { node, address: text } => {
                out.node(node);
                out.text(text);
            }
            Self::SetRack { node, rack } => {
                out.node(node);
                write_rack(out, rack.as_deref());
            }
            Self::SetPolicy(policy) => write_policy(out, *policy),
            Self::SetOverrides(overrides) => write_overrides(out, overrides),
            Self::Begin(moves) => write_moves(out, moves),
            Self::Advance { partitions, to } => {
                to.write(out);
                write_partitions(out, partitions);
            }
            Self::Finish(partitions) | Self::Abort(partitions) => write_partitions(out, partitions),
            Self::SetVoters(grants) | Self::RenewSeats(grants) => {
                out.list(grants.iter(), |out, grant| grant.write(out));
            }
            Self::SettleVoters => {}
            Self::SetDead { node, dead } => {
                out.node(node);
                out.bool(*dead);
            }
            Self::SetLeaving { volumes, leaving } => {
                write_volumes(out, volumes);
                out.bool(*leaving);
            }
            Self::Reshape { spec } => write_spec(out, spec),
            Self::RollBack { to, spec } => {
                out.u64(*to);
                write_spec(out, spec);
            }
            Self::Finalise { protocol } => out.u8(*protocol),
            Self::SetTokens(tokens) => out.list(tokens.iter(), |out, token| token.write(out)),
            Self::Admit { token, spec } => {
                token.write(out);
                write_spec(out, spec);
            }
            Self::Refound { voter, lost } => {
                out.node(voter);
                out.list(lost.iter(), Writer::node);
            }
        }
    }

    const fn tag(&self) -> u8 {
        match self {
            Self::Genesis { .. } => 1,
            Self::AddNode(_) => 2,
            Self::RemoveNode(_) => 3,
            Self::AddVolume { .. } => 4,
            Self::RetireVolume(_) => 5,
            Self::SetWeight { .. } => 6,
            Self::SetZone { .. } => 7,
            Self::SetRack { .. } => 8,
            Self::SetAddress { .. } => 9,
            Self::SetPolicy(_) => 10,
            Self::SetOverrides(_) => 11,
            Self::Begin(_) => 12,
            Self::Advance { .. } => 13,
            Self::Finish(_) => 14,
            Self::Abort(_) => 15,
            Self::SetVoters(_) => 16,
            Self::SettleVoters => 17,
            Self::SetDead { .. } => 18,
            Self::RollBack { .. } => 19,
            Self::SetLeaving { .. } => 20,
            Self::Reshape { .. } => 21,
            Self::RenewSeats(_) => 22,
            Self::Finalise { .. } => 23,
            Self::SetTokens(_) => 24,
            Self::Admit { .. } => 25,
            Self::Refound { .. } => 26,
        }
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, BadBytes> {
        let tag = from.u8()?;
        Ok(match tag {
            1 => {
                let (spec, voters) = (Box::new(read_spec(from)?), from.list(32, Reader::node)?);
                Self::Genesis { spec, voters, protocol: from.u8()? }
            }
            2 => Self::AddNode(read_node(from)?),
            3 => Self::RemoveNode(from.node()?),
            4 => Self::AddVolume { node: from.node()?, volume: read_volume(from)? },
            5 => Self::RetireVolume(from.volume()?),
            6 => Self::SetWeight { volume: from.volume()?, weight: from.u32()? },
            7 => Self::SetZone { node: from.node()?, zone: from.text()? },
            8 => Self::SetRack { node: from.node()?, rack: read_rack(from)? },
            9 => Self::SetAddress { node: from.node()?, address: from.text()? },
            10 => Self::SetPolicy(read_policy(from)?),
            11 => Self::SetOverrides(read_overrides(from)?),
            12 => Self::Begin(read_moves(from)?),
            13 => {
                let to = Stage::read(from)?;
                Self::Advance { partitions: read_partitions(from)?, to }
            }
            14 => Self::Finish(read_partitions(from)?),
            15 => Self::Abort(read_partitions(from)?),
            16 => Self::SetVoters(from.list(40, Grant::read)?),
            17 => Self::SettleVoters,
            18 => Self::SetDead { node: from.node()?, dead: from.bool("death")? },
            19 => Self::RollBack { to: from.u64()?, spec: Box::new(read_spec(from)?) },
            20 => Self::SetLeaving { volumes: read_volumes(from)?, leaving: from.bool("leaving")? },
            21 => Self::Reshape { spec: Box::new(read_spec(from)?) },
            22 => Self::RenewSeats(from.list(40, Grant::read)?),
            23 => Self::Finalise { protocol: from.u8()? },
            24 => Self::SetTokens(from.list(Token::BYTES, Token::read)?),
            25 => Self::Admit { token: TokenName::read(from)?, spec: Box::new(read_spec(from)?) },
            26 => Self::Refound { voter: from.node()?, lost: from.list(32, Reader::node)? },
            got => return Err(BadBytes::Tag { what: "change", got }),
        })
    }
}
