//! What one epoch changed of what a rollback brings back, for people.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_dht::log::Earlier;
use deadwax_dht::{Node, NodeId, Volume, VolumeId};

use crate::table::short;

/// The most sentences; beyond, the others are counted.
const SENTENCES_MAX: usize = 8;

/// A few words on each thing that is otherwise in `after` than in `before`, in no more than eight sentences or so.
#[must_use]
pub fn difference(before: &Earlier, after: &Earlier) -> Vec<String> {
    let (was, is) = (by_id(before), by_id(after));
    let named = |node: &Node| format!("node {} ({}, zone {})", node.address, short(&node.id), node.zone);
    let mut said = Vec::new();
    said.extend(is.values().filter(|node| !was.contains_key(&node.id)).map(|node| format!("{} came", named(node))));
    said.extend(was.values().filter(|node| !is.contains_key(&node.id)).map(|node| format!("{} went", named(node))));
    for (before, after) in was.values().filter_map(|node| Some((node, is.get(&node.id)?))) {
        of_node(before, after, &mut said);
    }
    let (zones, now) = (before.spec.policy.zones_min, after.spec.policy.zones_min);
    if zones != now {
        said.push(format!("zones-min: {zones}, then {now}"));
    }
    let drains = [("drained", after, before), ("not drained any more", before, after)];
    for (how, leaves, other) in drains {
        let volumes: BTreeSet<VolumeId> = leaves.leaving.difference(&other.leaving).copied().collect();
        // What has gone with its node was said.
        drained(&volumes, &is, how, &mut said);
    }
    if said.len() > SENTENCES_MAX {
        let more = said.len() - SENTENCES_MAX;
        said.truncate(SENTENCES_MAX);
        said.push(format!("and {more} more"));
    }
    said
}

fn by_id(of: &Earlier) -> BTreeMap<NodeId, &Node> {
    of.spec.nodes.iter().map(|node| (node.id, node)).collect()
}

fn of_node(before: &Node, after: &Node, said: &mut Vec<String>) {
    let address = &after.address;
    let rack = |node: &Node| node.rack.clone().unwrap_or_else(|| "none".to_owned());
    for (what, was, is) in [
        ("zone", before.zone.clone(), after.zone.clone()),
        ("rack", rack(before), rack(after)),
        ("address", before.address.clone(), after.address.clone()),
    ] {
        if was != is {
            said.push(format!("{what} of node {address}: {was}, then {is}"));
        }
    }
    let find = |node: &Node, id: &VolumeId| node.volumes.iter().find(|volume| volume.id == *id).copied();
    for Volume { id, weight } in &after.volumes {
        match find(before, id) {
            None => said.push(format!("volume {} of node {address} came", short(id))),
            Some(was) if was.weight != *weight => {
                said.push(format!("weight of volume {} of node {address}: {}, then {weight}", short(id), was.weight));
            }
            Some(_) => {}
        }
    }
    let gone = before.volumes.iter().filter(|volume| find(after, &volume.id).is_none());
    said.extend(gone.map(|volume| format!("volume {} of node {address} went", short(&volume.id))));
}

/// Nodes whose drives these are, all of them; else the drives.
fn drained(volumes: &BTreeSet<VolumeId>, nodes: &BTreeMap<NodeId, &Node>, how: &str, said: &mut Vec<String>) {
    for node in nodes.values() {
        let own: Vec<&Volume> = node.volumes.iter().filter(|volume| volumes.contains(&volume.id)).collect();
        if !own.is_empty() && own.len() == node.volumes.len() {
            said.push(format!("node {} {how}", node.address));
        } else {
            let each = |volume: &&Volume| format!("volume {} of node {} {how}", short(&volume.id), node.address);
            said.extend(own.iter().map(each));
        }
    }
}

#[cfg(test)]
mod tests {
    use deadwax_dht::{ClusterId, MAP_VERSION, MapSpec, Policy};

    use super::*;

    fn volume(node: u8, number: u8) -> VolumeId {
        let mut bytes = [0xb0 + node; 16];
        bytes[0] = number;
        VolumeId::from_bytes(bytes)
    }

    fn earlier(nodes: impl IntoIterator<Item = u8>) -> Earlier {
        let node = |number: u8| Node {
            id: NodeId::from_bytes([0xa0 + number; 32]),
            zone: "here".to_owned(),
            rack: None,
            address: format!("10.0.0.{number}:7881"),
            volumes: [1, 2].map(|each| Volume { id: volume(number, each), weight: 100 }).to_vec(),
        };
        let spec = MapSpec {
            version: MAP_VERSION,
            cluster: ClusterId::from_bytes([7; 16]),
            epoch: 1,
            policy: Policy::default(),
            nodes: nodes.into_iter().map(node).collect(),
            overrides: vec![],
        };
        Earlier { spec, leaving: BTreeSet::new() }
    }

    #[test]
    fn each_thing_that_an_operator_changes_is_named_and_many_are_counted() {
        let before = earlier(1..=3);
        let changed = |change: &dyn Fn(&mut Earlier)| {
            let mut after = before.clone();
            change(&mut after);
            (difference(&before, &after), difference(&after, &before))
        };
        let same = |change: &dyn Fn(&mut Earlier), there: &str, back: &str| {
            assert_eq!(changed(change), (vec![there.to_owned()], vec![back.to_owned()]));
        };
        assert!(difference(&before, &before).is_empty());
        let node = "node 10.0.0.3:7881";
        same(
            &|after| _ = after.spec.nodes.pop(),
            "node 10.0.0.3:7881 (a3a3a3a3, zone here) went",
            "node 10.0.0.3:7881 (a3a3a3a3, zone here) came",
        );
        let weight = |was, is| format!("weight of volume 01b3b3b3 of {node}: {was}, then {is}");
        same(&|after| after.spec.nodes[2].volumes[0].weight = 4000, &weight(100, 4000), &weight(4000, 100));
        let rack = |was, is| format!("rack of {node}: {was}, then {is}");
        same(&|after| after.spec.nodes[2].rack = Some("r7".to_owned()), &rack("none", "r7"), &rack("r7", "none"));
        let drive = format!("volume 02b3b3b3 of {node}");
        same(&|after| _ = after.spec.nodes[2].volumes.pop(), &format!("{drive} went"), &format!("{drive} came"));
        same(&|after| after.spec.policy.zones_min = 1, "zones-min: 2, then 1", "zones-min: 1, then 2");
        let drain =
            |drives: u8| move |after: &mut Earlier| after.leaving.extend((0..drives).map(|at| volume(3, 2 - at)));
        same(&drain(1), &format!("{drive} drained"), &format!("{drive} not drained any more"));
        same(&drain(2), &format!("{node} drained"), &format!("{node} not drained any more"));
        let many = difference(&before, &earlier(1..=20));
        assert_eq!((many.len(), many.last().map(String::as_str)), (SENTENCES_MAX + 1, Some("and 9 more")));
    }
}
