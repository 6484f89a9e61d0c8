//! What operators may ask for, and which record comes next on the way there.

use std::collections::BTreeSet;

use crate::log::{Change, MOVES_MAX, State};
use crate::{MapSpec, Node, NodeId, Policy, TokenName, Volume, VolumeId};

use super::effect::Refused;
use super::token;

/// An operator's command. Asking for what is already so is answered as done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// A node comes; copies move to it.
    AddNode(Node),
    /// A node goes. It holds nothing. Where it votes, another node does first, in its place.
    RemoveNode(NodeId),
    /// A node gets a drive; copies move to it.
    AddVolume {
        /// Which node.
        node: NodeId,
        /// The drive.
        volume: Volume,
    },
    /// A drive goes. It holds nothing, and is not its node's only one.
    RemoveVolume(VolumeId),
    /// A node's drives are to be emptied, or need not be any more.
    DrainNode {
        /// Which node.
        node: NodeId,
        /// Whether it is to be empty.
        drain: bool,
    },
    /// A drive is to be emptied, or need not be any more.
    DrainVolume {
        /// Which drive.
        volume: VolumeId,
        /// Whether it is to be empty.
        drain: bool,
    },
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
        /// Its rack; none: by itself.
        rack: Option<String>,
    },
    /// A node's address. Nothing moves.
    SetAddress {
        /// Which node.
        node: NodeId,
        /// `host:port`.
        address: String,
    },
    /// How many zones at least. Copies and the write quorum stay as the cluster was founded.
    SetPolicy(Policy),
    /// Weights, zones, racks, addresses and policy of an earlier epoch, the nodes and drives that it had, and which of
    /// these were to be emptied. Those that came since are drained, and stay in the map until they are removed. Who is
    /// dead now stays so: what a node lost meanwhile no map brings back.
    RollBack {
        /// The earlier epoch.
        to: u64,
        /// Its map, from the history.
        spec: Box<MapSpec>,
        /// The drives that were to be emptied then, from the history.
        leaving: BTreeSet<VolumeId>,
    },
    /// A node will not come back as it was, or does.
    SetDead {
        /// Which node.
        node: NodeId,
        /// Whether it is dead.
        dead: bool,
    },
    /// Who votes; done when each is in its seat. Each that is new is up, and was heard of by the node that leads. Where many
    /// are new they get their seats by several records. One that votes already and has lost its seat, with its system drive,
    /// gets a new one.
    SetVoters(Vec<NodeId>),
    /// The cluster is finalised at a later version of the protocol: what came with it is used from then on, and no node can be
    /// rolled back to a program that does not speak it. Each that is not dead does speak it, as far as the node that leads
    /// has heard in the last minutes.
    Finalise {
        /// At which.
        protocol: u8,
    },
    /// There is one more token, by which one node may join.
    MakeToken {
        /// Its name; the secret is the operator's.
        name: TokenName,
        /// For how long from now on, in ms.
        ttl_ms: u64,
    },
    /// No token that was made before is of use any more.
    RevokeTokens,
    /// As [`AddNode`](Self::AddNode), by a token, which is used up by it. That the node itself wants it is for the driver to
    /// know.
    Admit {
        /// Which token.
        token: TokenName,
        /// The node.
        node: Node,
    },
}

/// What an epoch says of all that commands can change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wish {
    pub(super) spec: MapSpec,
    pub(super) dead: BTreeSet<NodeId>,
    pub(super) leaving: BTreeSet<VolumeId>,
}

impl Wish {
    pub(super) fn of(state: &State) -> Self {
        let spec = MapSpec { overrides: Vec::new(), ..shape(state.spec()) };
        Self { spec, dead: state.dead().clone(), leaving: state.leaving().clone() }
    }

    fn node(&mut self, id: &NodeId) -> Result<&mut Node, Refused> {
        self.spec.nodes.iter_mut().find(|node| node.id == *id).ok_or(Refused::NoNode(*id))
    }

    fn volume(&mut self, id: &VolumeId) -> Result<&mut Volume, Refused> {
        let mut volumes = self.spec.nodes.iter_mut().flat_map(|node| &mut node.volumes);
        volumes.find(|volume| volume.id == *id).ok_or(Refused::NoVolume(*id))
    }

    /// The volumes that have data to give and may get some: those that are neither dead nor leaving.
    pub(super) fn effective(&self) -> MapSpec {
        effective(&self.spec, &self.dead, &self.leaving)
    }
}

/// `spec` without overrides, dead nodes and leaving volumes.
pub(super) fn effective(spec: &MapSpec, dead: &BTreeSet<NodeId>, leaving: &BTreeSet<VolumeId>) -> MapSpec {
    let mut kept = shape(spec);
    kept.nodes.retain(|node| !dead.contains(&node.id));
    for node in &mut kept.nodes {
        node.volumes.retain(|volume| !leaving.contains(&volume.id));
    }
    kept.nodes.retain(|node| !node.volumes.is_empty());
    kept
}

/// `spec` without overrides.
fn shape(spec: &MapSpec) -> MapSpec {
    let MapSpec { version, cluster, epoch, policy, ref nodes, .. } = *spec;
    MapSpec { version, cluster, epoch, policy, nodes: nodes.clone(), overrides: Vec::new() }
}

impl Command {
    /// What there is after the command is carried out at `state`. `proposed`: a record of it may have come to be already,
    /// so what is no more counts as gone by its own doing. `time_ms`: when it was given, since 1970.
    pub(super) fn wish(&self, state: &State, proposed: bool, time_ms: u64) -> Result<Wish, Refused> {
        let mut wish = Wish::of(state);
        match self {
            Self::AddNode(node) => _ = wish.add(node)?,
            Self::Admit { token, node } => {
                if wish.add(node)? {
                    token::may_use(state, token, time_ms)?;
                }
            }
            Self::AddVolume { node, volume } => {
                let same = wish.spec.nodes.iter().any(|other| other.id == *node && other.volumes.contains(volume));
                match wish.volume(&volume.id) {
                    Ok(_) if same => {}
                    Ok(_) => return Err(Refused::VolumeExists(volume.id)),
                    Err(_) => wish.node(node)?.volumes.push(*volume),
                }
            }
            Self::RemoveNode(id) => match wish.node(id) {
                Err(missing) if !proposed => return Err(missing),
                _ => wish.spec.nodes.retain(|node| node.id != *id),
            },
            Self::RemoveVolume(id) => match wish.volume(id) {
                Err(missing) if !proposed => return Err(missing),
                _ => wish.spec.nodes.iter_mut().for_each(|node| node.volumes.retain(|volume| volume.id != *id)),
            },
            Self::DrainNode { node, drain } => {
                let volumes: Vec<VolumeId> = wish.node(node)?.volumes.iter().map(|volume| volume.id).collect();
                wish.drain(&volumes, *drain);
            }
            Self::DrainVolume { volume, drain } => {
                wish.volume(volume)?;
                wish.drain(&[*volume], *drain);
            }
            Self::SetWeight { volume, weight } => wish.volume(volume)?.weight = *weight,
            Self::SetZone { node, zone } => wish.node(node)?.zone.clone_from(zone),
            Self::SetRack { node, rack } => wish.node(node)?.rack.clone_from(rack),
            Self::SetAddress { node, address } => wish.node(node)?.address.clone_from(address),
            Self::SetPolicy(policy) => wish.set_policy(*policy)?,
            Self::RollBack { to, spec, leaving } => wish.roll_back(*to, spec, leaving)?,
            Self::SetDead { node, dead } => {
                wish.node(node)?;
                if *dead {
                    wish.dead.insert(*node)
                } else {
                    wish.dead.remove(node)
                };
            }
            Self::Finalise { protocol: got } if *got < state.protocol() => {
                return Err(Refused::Lowered { got: *got, finalised: state.protocol() });
            }
            Self::MakeToken { name, .. } => token::may_make(state, name, time_ms)?,
            Self::SetVoters(_) | Self::Finalise { .. } | Self::RevokeTokens => {}
        }
        Ok(wish)
    }

    /// The volumes that are to go from the map.
    pub(super) fn removed(&self, state: &State) -> BTreeSet<VolumeId> {
        match self {
            Self::RemoveNode(id) => {
                let node = state.spec().nodes.iter().find(|node| node.id == *id);
                node.into_iter().flat_map(|node| &node.volumes).map(|volume| volume.id).collect()
            }
            Self::RemoveVolume(id) => BTreeSet::from([*id]),
            _ => BTreeSet::new(),
        }
    }

    /// The next record on the way to `wish`, or none where `state` is as wished. A reshape has no pins yet. `time_ms`: when it
    /// was given.
    pub(super) fn change(&self, wish: &Wish, state: &State, time_ms: u64) -> Option<Change> {
        match *self {
            // Whether it is so already depends on who is in its seat, too.
            Self::SetVoters(ref voters) => return Some(Change::set_voters(voters.iter().copied(), |_| 0)),
            Self::Finalise { protocol } => {
                return (protocol != state.protocol()).then_some(Change::Finalise { protocol });
            }
            Self::MakeToken { name, ttl_ms } => {
                return token::make(state, name, time_ms.saturating_add(ttl_ms), time_ms);
            }
            Self::RevokeTokens => return token::revoke(state),
            _ => {}
        }
        let is = Wish::of(state);
        if wish.spec != is.spec {
            return Some(match self {
                Self::SetAddress { node, address } => Change::SetAddress { node: *node, address: address.clone() },
                Self::SetPolicy(policy) => Change::SetPolicy(*policy),
                Self::Admit { token, .. } => Change::Admit { token: *token, spec: Box::new(wish.spec.clone()) },
                _ => Change::Reshape { spec: Box::new(wish.spec.clone()) },
            });
        }
        for (more, less, leaving) in [(&wish.leaving, &is.leaving, true), (&is.leaving, &wish.leaving, false)] {
            let volumes: Vec<VolumeId> = more.difference(less).take(MOVES_MAX).copied().collect();
            if !volumes.is_empty() {
                return Some(Change::SetLeaving { volumes, leaving });
            }
        }
        let differs = wish.dead.symmetric_difference(&is.dead).next();
        differs.map(|node| Change::SetDead { node: *node, dead: wish.dead.contains(node) })
    }
}

impl Wish {
    /// Adds a node; whether it was not there.
    fn add(&mut self, node: &Node) -> Result<bool, Refused> {
        match self.spec.nodes.iter().find(|other| other.id == node.id) {
            Some(same) if same == node => return Ok(false),
            Some(_) => return Err(Refused::NodeExists(node.id)),
            None => self.spec.nodes.push(node.clone()),
        }
        Ok(true)
    }

    fn drain(&mut self, volumes: &[VolumeId], drain: bool) {
        for volume in volumes {
            if drain {
                self.leaving.insert(*volume)
            } else {
                self.leaving.remove(volume)
            };
        }
    }

    fn set_policy(&mut self, policy: Policy) -> Result<(), Refused> {
        let is = self.spec.policy;
        if policy.copies != is.copies {
            return Err(Refused::Copies { got: policy.copies, copies: is.copies });
        }
        if policy.write_quorum != is.write_quorum {
            return Err(Refused::WriteQuorum { got: policy.write_quorum, write_quorum: is.write_quorum });
        }
        self.spec.policy = policy;
        Ok(())
    }

    fn roll_back(&mut self, to: u64, spec: &MapSpec, leaving: &BTreeSet<VolumeId>) -> Result<(), Refused> {
        if spec.epoch != to || to >= self.spec.epoch || spec.cluster != self.spec.cluster {
            return Err(Refused::RollBack(to));
        }
        self.set_policy(spec.policy)?;
        let now = std::mem::replace(&mut self.spec.nodes, spec.nodes.clone());
        let then: BTreeSet<VolumeId> =
            spec.nodes.iter().flat_map(|node| &node.volumes).map(|volume| volume.id).collect();
        self.leaving = leaving.intersection(&then).copied().collect();
        for mut node in now {
            node.volumes.retain(|volume| !then.contains(&volume.id));
            self.leaving.extend(node.volumes.iter().map(|volume| volume.id));
            match self.spec.nodes.iter_mut().find(|other| other.id == node.id) {
                Some(known) => known.volumes.append(&mut node.volumes),
                None if node.volumes.is_empty() => {}
                None => self.spec.nodes.push(node),
            }
        }
        Ok(())
    }
}
