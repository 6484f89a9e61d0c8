//! What makes a map a good one.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_track::Partition;

use super::{MAP_VERSION, MapSpec, Node};
use crate::partitions::Partitions;
use crate::wire::VOLUMES_PER_NODE_MAX;
use crate::{NodeId, VolumeId};

/// The most nodes of a cluster.
const NODES_MAX: usize = 10_000;
/// The most copies of a track.
pub(crate) const COPIES_MAX: u8 = 16;
/// The longest zone, rack and address, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// What is wrong with a map.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum BadMap {
    #[error("map is not readable: {0}")]
    Text(String),
    #[error("map has version {0}, this program reads version {MAP_VERSION}: use a newer program")]
    Version(u32),
    #[error("map has epoch 0; the first is 1")]
    Epoch,
    #[error("policy.copies is {0}; it may be 1 to {COPIES_MAX}")]
    Copies(u8),
    #[error("policy.write_quorum is {write_quorum}; with {copies} copies it may be 1 to {copies}")]
    WriteQuorum { write_quorum: u8, copies: u8 },
    #[error("policy.zones_min is {0}; it may be 1 to {COPIES_MAX}")]
    ZonesMin(u8),
    #[error("map has no nodes")]
    NoNodes,
    #[error("map has {0} nodes; the most is {NODES_MAX}")]
    TooManyNodes(usize),
    #[error("node {0} is in the map twice")]
    NodeTwice(NodeId),
    #[error("address {0} is in the map twice")]
    AddressTwice(String),
    #[error("node {node}: address {address:?} is not host:port")]
    Address { node: NodeId, address: String },
    #[error("node {node}: {field} is empty, longer than {NAME_BYTES_MAX} bytes or has control characters: {got:?}")]
    Name { node: NodeId, field: &'static str, got: String },
    #[error("node {0} has no volumes")]
    NoVolumes(NodeId),
    #[error("node {node} has {volumes} volumes; the most is {VOLUMES_PER_NODE_MAX}")]
    TooManyVolumes { node: NodeId, volumes: usize },
    #[error("volume {0} is in the map twice")]
    VolumeTwice(VolumeId),
    #[error("volume {0} has weight 0; it is at least 1")]
    Weight(VolumeId),
    #[error("partition {} is in overrides twice", .0.0)]
    OverrideTwice(Partition),
    #[error("override of partition {}: it names {got} volumes, there are {copies} copies", .partition.0)]
    OverrideCount { partition: Partition, got: usize, copies: usize },
    #[error("override of partition {}: no volume {volume} is in the map", .partition.0)]
    OverrideVolume { partition: Partition, volume: VolumeId },
    #[error("override of partition {}: two of its volumes are on node {node}", .partition.0)]
    OverrideNode { partition: Partition, node: NodeId },
}

/// The text's values. The version comes first: a later one may have keys that this code does not know.
pub(super) fn parse(text: &str) -> Result<MapSpec, BadMap> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let bad = |error: toml::de::Error| BadMap::Text(error.to_string().trim_end().to_owned());
    let Version { version } = toml::from_str(text).map_err(bad)?;
    if version != MAP_VERSION {
        return Err(BadMap::Version(version));
    }
    toml::from_str(text).map_err(bad)
}

/// Whether the values keep the rules of a map.
pub(crate) fn check(spec: &MapSpec) -> Result<(), BadMap> {
    if spec.version != MAP_VERSION {
        return Err(BadMap::Version(spec.version));
    }
    if spec.epoch == 0 {
        return Err(BadMap::Epoch);
    }
    check_policy(spec)?;
    let volumes = check_nodes(spec)?;
    check_overrides(spec, &volumes)
}

fn check_policy(spec: &MapSpec) -> Result<(), BadMap> {
    let policy = spec.policy;
    if !(1..=COPIES_MAX).contains(&policy.copies) {
        return Err(BadMap::Copies(policy.copies));
    }
    if !(1..=policy.copies).contains(&policy.write_quorum) {
        return Err(BadMap::WriteQuorum { write_quorum: policy.write_quorum, copies: policy.copies });
    }
    // Not compared with the copies: a put needs this many zones only where the holders lie in so many.
    if !(1..=COPIES_MAX).contains(&policy.zones_min) {
        return Err(BadMap::ZonesMin(policy.zones_min));
    }
    Ok(())
}

/// Which node each volume is on.
fn check_nodes(spec: &MapSpec) -> Result<BTreeMap<VolumeId, NodeId>, BadMap> {
    if spec.nodes.is_empty() {
        return Err(BadMap::NoNodes);
    }
    if spec.nodes.len() > NODES_MAX {
        return Err(BadMap::TooManyNodes(spec.nodes.len()));
    }
    let (mut nodes, mut addresses, mut volumes) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    for node in &spec.nodes {
        check_node(node)?;
        if !nodes.insert(node.id) {
            return Err(BadMap::NodeTwice(node.id));
        }
        if !addresses.insert(&node.address) {
            return Err(BadMap::AddressTwice(node.address.clone()));
        }
        for volume in &node.volumes {
            if volumes.insert(volume.id, node.id).is_some() {
                return Err(BadMap::VolumeTwice(volume.id));
            }
        }
    }
    Ok(volumes)
}

fn check_node(node: &Node) -> Result<(), BadMap> {
    let names = [("zone", Some(&node.zone)), ("rack", node.rack.as_ref()), ("address", Some(&node.address))];
    for (field, name) in names {
        let bad = |name: &&String| !(1..=NAME_BYTES_MAX).contains(&name.len()) || name.chars().any(char::is_control);
        if let Some(name) = name.filter(bad) {
            return Err(BadMap::Name { node: node.id, field, got: name.chars().take(80).collect() });
        }
    }
    let port = node.address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    if port.and_then(|(_, port)| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
        return Err(BadMap::Address { node: node.id, address: node.address.clone() });
    }
    if node.volumes.is_empty() {
        return Err(BadMap::NoVolumes(node.id));
    }
    if node.volumes.len() > VOLUMES_PER_NODE_MAX {
        return Err(BadMap::TooManyVolumes { node: node.id, volumes: node.volumes.len() });
    }
    match node.volumes.iter().find(|volume| volume.weight == 0) {
        Some(volume) => Err(BadMap::Weight(volume.id)),
        None => Ok(()),
    }
}

fn check_overrides(spec: &MapSpec, volumes: &BTreeMap<VolumeId, NodeId>) -> Result<(), BadMap> {
    // A cluster with fewer nodes than copies has one copy a node.
    let copies = usize::from(spec.policy.copies).min(spec.nodes.len());
    let (mut partitions, mut nodes) = (Partitions::default(), Vec::with_capacity(copies));
    for over in &spec.overrides {
        let partition = over.partition;
        if !partitions.insert(partition) {
            return Err(BadMap::OverrideTwice(partition));
        }
        if over.volumes.len() != copies {
            return Err(BadMap::OverrideCount { partition, got: over.volumes.len(), copies });
        }
        nodes.clear();
        for volume in &*over.volumes {
            let node = *volumes.get(volume).ok_or(BadMap::OverrideVolume { partition, volume: *volume })?;
            if nodes.contains(&node) {
                return Err(BadMap::OverrideNode { partition, node });
            }
            nodes.push(node);
        }
    }
    Ok(())
}
