//! Clusters made from a seed, and changes of them.

use deadwax_dht::{ClusterId, Map, MapSpec, Node, NodeId, Policy, Volume, VolumeId};

pub(crate) use crate::random::Random;

/// A node with these volumes' weights, named by `dice`.
pub(crate) fn node(dice: &mut Random, zone: &str, rack: Option<String>, weights: &[u32]) -> Node {
    let name = *blake3::hash(&dice.next().to_le_bytes()).as_bytes();
    let volume = |(number, weight): (u8, &u32)| {
        let name = *blake3::hash(&[&name[..], &[number]].concat()).as_bytes();
        Volume { id: VolumeId::from_bytes(*name.first_chunk().expect("32 bytes have 16")), weight: *weight }
    };
    let volumes = (0..).zip(weights).map(volume).collect();
    let address = format!("{}:7800", NodeId::from_bytes(name).short());
    Node { id: NodeId::from_bytes(name), zone: zone.to_owned(), rack, address, volumes }
}

/// Nodes as they are, three copies in two zones if there are two.
pub(crate) fn spec(nodes: Vec<Node>) -> MapSpec {
    let cluster = ClusterId::from_bytes([0; 16]);
    MapSpec { version: 1, cluster, epoch: 1, policy: Policy::default(), nodes, overrides: vec![] }
}

/// So many nodes of a volume each, with weights of 1 to 4 TB, dealt to these zones in turn.
pub(crate) fn mixed(dice: &mut Random, count: usize, zones: &[&str]) -> MapSpec {
    const WEIGHTS: [u32; 5] = [1000, 1000, 2000, 2000, 4000];
    let nodes = (0..count).map(|number| {
        let weight = dice.pick(&WEIGHTS);
        node(dice, zones[number % zones.len()], None, &[weight])
    });
    spec(nodes.collect())
}

/// Copies of each volume, in the order of the map's nodes and their volumes.
pub(crate) fn counts(map: &Map) -> Vec<u64> {
    let mut counts = std::collections::BTreeMap::<VolumeId, u64>::new();
    for holder in (0..=u16::MAX).flat_map(|partition| map.holders(deadwax_track::Partition(partition))) {
        *counts.entry(holder.volume).or_default() += 1;
    }
    let volumes = map.nodes().iter().flat_map(|node| &node.volumes);
    volumes.map(|volume| counts.get(&volume.id).copied().unwrap_or(0)).collect()
}

/// The emptiest and the fullest volume beside what its weight deserves of all copies, in millionths.
pub(crate) fn fullness_by_weight(map: &Map) -> (u64, u64) {
    let weights: Vec<u64> =
        map.nodes().iter().flat_map(|node| &node.volumes).map(|volume| volume.weight.into()).collect();
    let counts = counts(map);
    let (copies, weight): (u64, u64) = (counts.iter().sum(), weights.iter().sum());
    let ppm = || counts.iter().zip(&weights).map(|(count, own)| count * 1_000_000 * weight / (copies * own));
    (ppm().min().expect("a volume"), ppm().max().expect("a volume"))
}
