//! Nodes and volumes as people name them: by an address, or the first digits of an id.

use anyhow::bail;
use deadwax_dht::{Map, Node, VolumeId};

/// The node of the map that `name` means.
pub fn node<'a>(map: &'a Map, name: &str) -> anyhow::Result<&'a Node> {
    let nodes = map.nodes();
    if let Some(node) = nodes.iter().find(|node| node.address == name) {
        return Ok(node);
    }
    let known = |node: &Node| format!("{} ({}, zone {})", node.id.short(), node.address, node.zone);
    let found: Vec<&Node> = nodes.iter().filter(|node| is_prefix(name, &node.id.to_string())).collect();
    match found[..] {
        [node] => Ok(node),
        [] => bail!("no node is {name:?}; there are:\n  {}", list(nodes.iter().map(known))),
        _ => bail!("{name:?} is more than one node:\n  {}", list(found.into_iter().map(known))),
    }
}

/// The volume of the map that `name` means, and its node.
pub fn volume<'a>(map: &'a Map, name: &str) -> anyhow::Result<(&'a Node, VolumeId)> {
    let all = || map.nodes().iter().flat_map(|node| node.volumes.iter().map(move |volume| (node, volume.id)));
    let known = |(node, volume): (&Node, VolumeId)| format!("{volume} (of {})", node.address);
    let found: Vec<(&Node, VolumeId)> = all().filter(|(_, volume)| is_prefix(name, &volume.to_string())).collect();
    match found[..] {
        [found] => Ok(found),
        [] => bail!("no volume is {name:?}; there are:\n  {}", list(all().map(known))),
        _ => bail!("{name:?} is more than one volume:\n  {}", list(found.into_iter().map(known))),
    }
}

/// An empty name means nothing, though every id begins with it.
fn is_prefix(name: &str, id: &str) -> bool {
    !name.is_empty() && id.starts_with(&name.to_ascii_lowercase())
}

/// What whoever removes hears where there is no such thing: he may have been told that nobody knows what came of it.
pub const GONE: &str = "nothing is to be removed; what was removed before is in the map no more";

/// The most names that an error lists.
const LISTED_MAX: usize = 30;

fn list(mut names: impl Iterator<Item = String>) -> String {
    let listed: Vec<String> = names.by_ref().take(LISTED_MAX).collect();
    let more = names.count();
    let rest = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    listed.join("\n  ") + &rest
}

#[cfg(test)]
mod tests {
    use deadwax_dht::{ClusterId, MAP_VERSION, MapSpec, NodeId, Policy, Volume};

    use super::*;

    fn map() -> Map {
        let node = |number: u8| Node {
            id: NodeId::from_bytes([0xa0 + number; 32]),
            zone: "here".to_owned(),
            rack: None,
            address: format!("10.0.0.{number}:7881"),
            volumes: vec![Volume { id: VolumeId::from_bytes([0xb0 + number; 16]), weight: 1 }],
        };
        Map::new(MapSpec {
            version: MAP_VERSION,
            cluster: ClusterId::from_bytes([7; 16]),
            epoch: 1,
            policy: Policy { copies: 1, write_quorum: 1, zones_min: 1 },
            nodes: (1..=3).map(node).collect(),
            overrides: vec![],
        })
        .expect("a good map")
    }

    #[test]
    fn a_name_means_one_thing_or_the_error_lists_them() {
        let map = map();
        assert_eq!(node(&map, "10.0.0.2:7881").expect("by address").id, map.nodes()[1].id);
        assert_eq!(node(&map, "A2A2").expect("by id").id, map.nodes()[1].id);
        let why = node(&map, "a").expect_err("all three").to_string();
        assert!(why.contains("more than one node") && why.contains("10.0.0.3:7881"), "{why}");
        for name in ["", "ff", "10.0.0.2"] {
            let why = node(&map, name).expect_err("none").to_string();
            assert!(why.contains("no node is") && why.contains("10.0.0.1:7881"), "{name}: {why}");
        }
        let (owner, id) = volume(&map, "b3").expect("by id");
        assert_eq!((owner.id, id), (map.nodes()[2].id, map.nodes()[2].volumes[0].id));
        assert!(volume(&map, "b").expect_err("all three").to_string().contains("more than one volume"));
        assert!(volume(&map, "c").expect_err("none").to_string().contains("no volume is"));
    }
}
