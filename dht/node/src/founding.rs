//! Founding a cluster: what its first nodes begin with.

use std::collections::BTreeMap;

use deadwax_dht::log::{History, VOTERS_MAX, VOTERS_MIN};
use deadwax_dht::{Map, MapSpec, NodeId};

use crate::system::System;
use crate::{Config, Error, init};

/// Makes the node one of the founders of the cluster that the map file of its settings describes, if that has nodes
/// enough for a log of its own (3 voters): from then on the map is what the cluster's log says, and the file only names
/// addresses. The cluster begins at the newest version of the protocol that the node speaks. Each founder does this once,
/// before it starts, with an equal file and equal versions, or they are of two clusters. Answers whether there is a log;
/// done again it changes nothing.
///
/// # Errors
/// The map does not name the node, or is none; the node has a part in a cluster already; the directory cannot be
/// written.
pub fn found(config: &Config) -> Result<bool, Error> {
    let fail = |why: String| Error::Map { path: config.map.clone(), why };
    let node = init::load_key(&config.dir)?.node_id();
    let spec = Map::load(&config.map).map_err(|why| fail(why.to_string()))?.spec().clone();
    if !spec.nodes.iter().any(|each| each.id == node) {
        return Err(fail(format!("it does not name this node, {node}")));
    }
    let voters = founding_voters(&spec);
    if voters.len() < VOTERS_MIN {
        return Ok(false);
    }
    let history =
        History::genesis_at(config.protocols().newest(), spec, voters).map_err(|why| fail(why.to_string()))?;
    let seat = history.state().seat_of(&node);
    System::found(&config.dir, &history, seat)?;
    Ok(true)
}

/// Lets a node that is new in its cluster, or lost what it kept of it (`DIR/system`), take it from the other nodes at its next
/// start. Its key, its volumes and their tracks stay; the node must not run, the map of its settings must name it, and others
/// must have what it lacks.
///
/// # Errors
/// It has a state still, or no key.
pub fn rejoin(config: &Config) -> Result<(), Error> {
    let _lock = init::lock(&config.dir)?;
    init::load_key(&config.dir)?;
    System::join(&config.dir)
}

/// Whether the node has a part in its cluster's log. One that should have and has none there must not serve by the file
/// of the map: that may be long out of date.
pub(crate) fn has_part(config: &Config) -> Result<bool, Error> {
    match (config.log, System::is_in(&config.dir)) {
        (true, false) => Err(Error::NoSystem(System::dir(&config.dir))),
        (false, true) => {
            let why = "the node has a part in its cluster's log: it is true, whatever was set".to_owned();
            Err(Error::Setting { setting: "log", why })
        }
        (log, _) => Ok(log),
    }
}

/// The voters of a new cluster: as many as there may be and an odd number, zone by zone.
#[must_use]
pub fn founding_voters(spec: &MapSpec) -> Vec<NodeId> {
    let mut zones: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
    let mut nodes: Vec<_> = spec.nodes.iter().collect();
    nodes.sort_by_key(|node| node.id);
    nodes.iter().for_each(|node| zones.entry(&node.zone).or_default().push(node.id));
    let count = nodes.len().min(VOTERS_MAX);
    let count = count - usize::from(count.is_multiple_of(2) && count > 0);
    let in_turns = (0..nodes.len()).flat_map(|turn| zones.values().filter_map(move |zone| zone.get(turn).copied()));
    in_turns.take(count).collect()
}

#[cfg(test)]
mod tests {
    use deadwax_dht::{ClusterId, MAP_VERSION, Node, Policy, Volume, VolumeId};

    use super::*;

    fn spec(zones: &[&str]) -> MapSpec {
        let node = |(at, zone): (usize, &&str)| {
            let at = u8::try_from(at + 1).expect("few");
            let volumes = vec![Volume { id: VolumeId::from_bytes([at; 16]), weight: 1 }];
            let (id, address) = (NodeId::from_bytes([at; 32]), format!("10.0.0.{at}:7881"));
            Node { id, zone: (*zone).to_owned(), rack: None, address, volumes }
        };
        MapSpec {
            version: MAP_VERSION,
            cluster: ClusterId::from_bytes([7; 16]),
            epoch: 1,
            policy: Policy { copies: 1, write_quorum: 1, zones_min: 1 },
            nodes: zones.iter().enumerate().map(node).collect(),
            overrides: vec![],
        }
    }

    #[test]
    fn voters_are_odd_in_number_and_spread_over_zones() {
        let numbers = |zones: &[&str]| -> Vec<u8> {
            founding_voters(&spec(zones)).iter().map(|voter| voter.as_bytes()[0]).collect()
        };
        assert_eq!(numbers(&["a"; 3]), [1, 2, 3]);
        assert_eq!(numbers(&["a"; 4]), [1, 2, 3]);
        assert_eq!(numbers(&["a", "a", "a", "b", "b", "b"]), [1, 4, 2, 5, 3]);
        assert_eq!(numbers(&["a"; 20]), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(numbers(&["a", "b"]), [1]);
    }
}
