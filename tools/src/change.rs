//! What an operator asks for on the command line, as a command of the cluster.

use std::collections::BTreeSet;

use anyhow::Context;
use deadwax_dht::rebalance::Command;
use deadwax_dht::{Map, MapSpec, Node, NodeId, Policy, Volume, VolumeId};

use crate::cli::{Change, Planned};
use crate::names;

impl Change {
    /// The command that it is, by the names of `map`.
    pub fn command(&self, map: &Map) -> anyhow::Result<Command> {
        let node = |name: &String| names::node(map, name).map(|node| node.id);
        let volume = |name: &String| names::volume(map, name).map(|(_, volume)| volume);
        Ok(match self {
            Self::Drain { name } => Command::DrainNode { node: node(name)?, drain: true },
            Self::Undrain { name } => Command::DrainNode { node: node(name)?, drain: false },
            Self::DrainVolume { volume: name } => Command::DrainVolume { volume: volume(name)?, drain: true },
            Self::UndrainVolume { volume: name } => Command::DrainVolume { volume: volume(name)?, drain: false },
            Self::Weight { volume: name, weight } => Command::SetWeight { volume: volume(name)?, weight: *weight },
            Self::Zone { name, zone } => Command::SetZone { node: node(name)?, zone: zone.clone() },
            Self::Rack { name, rack } => Command::SetRack { node: node(name)?, rack: rack.clone() },
            Self::Address { name, address } => Command::SetAddress { node: node(name)?, address: address.clone() },
            Self::Dead { name } => Command::SetDead { node: node(name)?, dead: true },
            Self::Alive { name } => Command::SetDead { node: node(name)?, dead: false },
            Self::Voters { names } => Command::SetVoters(names.iter().map(node).collect::<Result<_, _>>()?),
            Self::ZonesMin { zones } => Command::SetPolicy(Policy { zones_min: *zones, ..*map.policy() }),
            Self::Remove { name } => Command::RemoveNode(node(name).context(names::GONE)?),
            Self::RemoveVolume { volume: name } => Command::RemoveVolume(volume(name).context(names::GONE)?),
            Self::Finalise { protocol } => Command::Finalise { protocol: *protocol },
            Self::Rollback { epoch } => {
                let (to, spec) = (*epoch, Box::new(named(map, *epoch)));
                Command::RollBack { to, spec, leaving: BTreeSet::new() }
            }
        })
    }

    /// The volumes that it empties.
    pub fn emptied(&self, map: &Map) -> anyhow::Result<Vec<VolumeId>> {
        Ok(match self {
            Self::Drain { name } => names::node(map, name)?.volumes.iter().map(|volume| volume.id).collect(),
            Self::DrainVolume { volume } => vec![names::volume(map, volume)?.1],
            _ => Vec::new(),
        })
    }
}

impl Planned {
    /// The command that it is, by the names of `map`. What is not there yet has made-up ids, always the same: how much comes to
    /// it does not depend on them, but for two parts in a hundred.
    pub fn command(&self, map: &Map) -> anyhow::Result<Command> {
        let volume = |(number, weight): (u16, u32)| {
            let mut id = [0xff; 16];
            id[..2].copy_from_slice(&number.to_le_bytes());
            Volume { id: VolumeId::from_bytes(id), weight }
        };
        Ok(match self {
            Self::Change(change) => change.command(map)?,
            Self::Join { zone, weights } => {
                let volumes = (0..=u16::MAX).zip(weights.iter().copied()).map(volume).collect();
                let (id, address) = (NodeId::from_bytes([0xff; 32]), "new:1".to_owned());
                Command::AddNode(Node { id, zone: zone.clone(), rack: None, address, volumes })
            }
            Self::AddVolume { name, weight } => {
                Command::AddVolume { node: names::node(map, name)?.id, volume: volume((0, *weight)) }
            }
        })
    }
}

/// A map that names an epoch: the node that leads has what was in it, and what was to be emptied then.
fn named(map: &Map, epoch: u64) -> MapSpec {
    let MapSpec { version, cluster, policy, .. } = *map.spec();
    MapSpec { version, cluster, epoch, policy, nodes: Vec::new(), overrides: Vec::new() }
}

#[cfg(test)]
mod tests {
    use deadwax_dht::{ClusterId, MAP_VERSION, Node, NodeId, Volume};

    use super::*;

    #[test]
    fn whoever_removes_what_is_not_there_hears_that_it_may_be_removed_already() {
        let node = Node {
            id: NodeId::from_bytes([1; 32]),
            zone: "here".to_owned(),
            rack: None,
            address: "10.0.0.1:7881".to_owned(),
            volumes: vec![Volume { id: VolumeId::from_bytes([1; 16]), weight: 1 }],
        };
        let (version, cluster) = (MAP_VERSION, ClusterId::from_bytes([7; 16]));
        let policy = Policy { copies: 1, write_quorum: 1, zones_min: 1 };
        let spec = MapSpec { version, cluster, epoch: 1, policy, nodes: vec![node], overrides: vec![] };
        let map = Map::new(spec).expect("a good map");
        let gone = || "ff".to_owned();
        for change in [Change::Remove { name: gone() }, Change::RemoveVolume { volume: gone() }] {
            let why = format!("{:#}", change.command(&map).expect_err("there is none"));
            assert!(why.starts_with(names::GONE) && why.contains("is \"ff\"; there are"), "{why}");
        }
        let drain = Change::Drain { name: gone() };
        assert!(!format!("{:#}", drain.command(&map).expect_err("there is none")).contains(names::GONE));
    }
}
