//! The cluster's agreed description: which nodes and volumes there are, and the policy.

mod check;
mod file;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use deadwax_track::{PARTITIONS, Partition};
use serde::{Deserialize, Serialize};

pub use self::check::BadMap;
pub use self::file::MapFileError;
use crate::placement::{Candidate, Holder, place};
use crate::{ClusterId, NodeId, VolumeId};

/// The version of the map's text that this code reads and writes. 1: the first.
pub const MAP_VERSION: u32 = 1;

/// The map as it is written: plain values, not yet checked. [`Map::new`] checks them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapSpec {
    /// [`MAP_VERSION`].
    pub version: u32,
    /// The cluster's name.
    pub cluster: ClusterId,
    /// Counts the changes of the map; the first is 1.
    pub epoch: u64,
    /// How many copies, and when a put counts.
    #[serde(default)]
    pub policy: Policy,
    /// The nodes; their order has no meaning.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// Partitions that lie elsewhere than placement puts them. Few, and none at first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
}

/// How many copies of each track, and when a put counts as stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Copies of each track, each on another node. Default 3; more cost drives, fewer cost safety.
    pub copies: u8,
    /// Copies that must be durable before a put is acknowledged. Default 2: one holder may be down.
    pub write_quorum: u8,
    /// Zones that those copies must lie in, where the holders are in so many. Default 2.
    pub zones_min: u8,
}

impl Default for Policy {
    fn default() -> Self {
        Self { copies: 3, write_quorum: 2, zones_min: 2 }
    }
}

impl Policy {
    /// How many of `holders` must say that a track is absent before it is: any so many have one in common with every
    /// write quorum. Where the cluster is too small for all copies, all of its holders.
    #[must_use]
    pub fn read_quorum(&self, holders: usize) -> usize {
        usize::from(self.copies - self.write_quorum + 1).min(holders).max(1)
    }
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// What fails together: a building, a site.
    pub zone: String,
    /// What fails together within a zone; absent: each node by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// `host:port` of its cluster port.
    pub address: String,
    /// Its drives.
    #[serde(default)]
    pub volumes: Vec<Volume>,
}

/// A drive of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Its name.
    pub id: VolumeId,
    /// Its share, beside the others'; the drive's size in GiB does well. Not zero.
    pub weight: u32,
}

/// A partition that lies elsewhere than placement puts it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Which partition.
    pub partition: Partition,
    /// Its holders, in order of preference; as many as there are copies, no two on a node.
    pub volumes: Vec<VolumeId>,
}

/// A checked map. Immutable: a change is a new map of a later epoch, shared as `Arc<Map>`.
#[derive(Debug)]
pub struct Map {
    spec: MapSpec,
    zones: Vec<String>,
    candidates: Vec<Candidate>,
    overrides: BTreeMap<Partition, Vec<Holder>>,
    /// Each partition's holders, once they were asked for: about 2 MiB when all were.
    placed: Box<[OnceLock<Box<[Holder]>>]>,
}

impl Map {
    /// The map that `spec` describes, or what is wrong with it.
    pub fn new(spec: MapSpec) -> Result<Self, BadMap> {
        check::check(&spec)?;
        let mut zones: Vec<String> = spec.nodes.iter().map(|node| node.zone.clone()).collect();
        zones.sort();
        zones.dedup();
        let zone_of = |node: &Node| zones.binary_search(&node.zone).expect("every node's zone is listed");
        let candidates = candidates(&spec.nodes, zone_of);
        let holder = |id: &VolumeId| {
            let candidate = candidates.iter().find(|candidate| candidate.holder().volume == *id);
            candidate.expect("checked: overrides name volumes of the map").holder()
        };
        let overrides =
            spec.overrides.iter().map(|over| (over.partition, over.volumes.iter().map(holder).collect())).collect();
        let placed = (0..PARTITIONS).map(|_| OnceLock::new()).collect();
        Ok(Self { zones, candidates, overrides, placed, spec })
    }

    /// The map in this text, or what is wrong with it: a line of the text, or a rule that its values break.
    pub fn parse(text: &str) -> Result<Self, BadMap> {
        Self::new(check::parse(text)?)
    }

    /// The map as text. [`parse`](Self::parse) reads it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.spec).expect("a checked map is plain data")
    }

    /// The values that the map was made of.
    #[must_use]
    pub const fn spec(&self) -> &MapSpec {
        &self.spec
    }

    /// The cluster's name.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterId {
        &self.spec.cluster
    }

    /// The version of the map's contents.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.spec.epoch
    }

    /// How many copies, and when a put counts.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.spec.policy
    }

    /// The nodes. [`Holder::node`] is an index into them.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.spec.nodes
    }

    /// The node of this name.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&Node> {
        self.spec.nodes.iter().find(|node| node.id == *id)
    }

    /// The names of the zones, sorted. [`Holder::zone`] is an index into them.
    #[must_use]
    pub fn zones(&self) -> &[String] {
        &self.zones
    }

    /// Who holds the tracks of `partition`, in order of preference: never two volumes of a node, never none. Worked
    /// out at the first call (100 ns a volume), kept for the next.
    #[must_use]
    pub fn holders(&self, partition: Partition) -> &[Holder] {
        self.placed[usize::from(partition.0)].get_or_init(|| match self.overrides.get(&partition) {
            Some(holders) => holders.clone().into(),
            None => place(&self.candidates, self.zones.len(), usize::from(self.spec.policy.copies), partition).into(),
        })
    }

    /// What works, but less well than the policy wants: for people, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let (nodes, policy) = (self.spec.nodes.len(), self.spec.policy);
        let mut warnings = Vec::new();
        if nodes < usize::from(policy.copies) {
            warnings.push(format!("{nodes} nodes cannot hold {} copies of each track", policy.copies));
        }
        if nodes < usize::from(policy.write_quorum) {
            warnings.push(format!("{nodes} nodes cannot acknowledge a put, which needs {}", policy.write_quorum));
        }
        warnings
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

impl Eq for Map {}

/// Every volume with what placement needs to know. A node that names no rack is its own.
fn candidates(nodes: &[Node], zone_of: impl Fn(&Node) -> usize) -> Vec<Candidate> {
    let mut racks = BTreeMap::new();
    let mut candidates = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let zone = zone_of(node);
        let own = node.rack.is_none().then_some(index);
        let next = racks.len();
        let rack = *racks.entry((zone, node.rack.as_deref(), own)).or_insert(next);
        for volume in &node.volumes {
            candidates.push(Candidate::new(Holder { node: index, volume: volume.id, zone }, rack, volume.weight));
        }
    }
    candidates
}
