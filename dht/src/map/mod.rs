//! The cluster's agreed description: which nodes and volumes there are, and the policy.

mod check;
mod file;
mod overridden;
mod overrides;
mod volume_lists;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use deadwax_track::{PARTITIONS, Partition};
use serde::{Deserialize, Serialize};

pub use self::check::BadMap;
pub(crate) use self::check::{COPIES_MAX, check};
pub use self::file::MapFileError;
use self::overridden::Overridden;
pub(crate) use self::volume_lists::VolumeLists;
use crate::placement::{Assignment, Holder, Roster, Step, settle};
use crate::{ClusterId, NodeId, Unmet, VolumeId};

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
    /// Partitions that lie elsewhere than rendezvous puts them, so that volumes are equally full: some thousand of the
    /// 65,536. [`Map::settled`] and [`Plan`](crate::Plan) work them out.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "overrides")]
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Override {
    /// Which partition.
    pub partition: Partition,
    /// Its holders, in order of preference; as many as there are copies (or nodes, where those are fewer), no two on a
    /// node. Shared between epochs.
    pub volumes: Arc<[VolumeId]>,
}

type Placed = Box<[OnceLock<Box<[Holder]>>]>;

/// A checked map. Immutable: a change is a new map of a later epoch, shared as `Arc<Map>`.
#[derive(Debug)]
pub struct Map {
    spec: MapSpec,
    zones: Vec<String>,
    roster: Roster,
    overrides: Overridden,
    /// Each partition's holders, once they were asked for: about 10 MiB when all were.
    placed: OnceLock<Placed>,
    /// All partitions' holders but for overrides, once a change was planned: about 2 MiB.
    assignment: OnceLock<Arc<Assignment>>,
}

impl Map {
    /// The map that `spec` describes, or what is wrong with it.
    pub fn new(spec: MapSpec) -> Result<Self, BadMap> {
        check::check(&spec)?;
        let zones = zones(&spec.nodes);
        let roster = roster(&spec, &zones);
        let (overrides, placed, assignment) = (Overridden::default(), OnceLock::new(), OnceLock::new());
        let mut map = Self { zones, roster, overrides, placed, assignment, spec };
        map.index_overrides();
        Ok(map)
    }

    /// The map of a new cluster, which has no tracks yet: as `spec` says, with overrides by which every volume has its
    /// fair share to within 1 % (or one copy), as far as the rules allow. Those of `spec` do not count. Takes some
    /// 100 ms for 100 volumes, seconds for 10,000. A cluster that has tracks is changed by [`Plan`](crate::Plan).
    pub fn settled(spec: MapSpec) -> Result<Self, BadMap> {
        let mut map = Self::new(MapSpec { overrides: Vec::new(), ..spec })?;
        let overrides = settle(&map);
        map.put(overrides);
        Ok(map)
    }

    /// Gives the map, which nobody has asked for holders yet, `overrides` that its rules allow.
    pub(crate) fn put(&mut self, overrides: Vec<Override>) {
        self.spec.overrides = overrides;
        self.index_overrides();
    }

    fn index_overrides(&mut self) {
        let overrides = &self.spec.overrides;
        let names = self.roster.volumes().iter().map(|seat| seat.holder().volume);
        let index: BTreeMap<VolumeId, u32> =
            if overrides.is_empty() { BTreeMap::new() } else { names.zip(0..).collect() };
        let indexed = |over: &Override| (over.partition, over.volumes.iter().map(|id| index[id]).collect());
        self.overrides = Overridden::new(overrides.iter().map(indexed));
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
    /// out at the first call (10 ns a volume), kept for the next.
    #[must_use]
    pub fn holders(&self, partition: Partition) -> &[Holder] {
        let holder = |volume: u32| self.roster.volumes()[volume as usize].holder();
        let placed = self.placed.get_or_init(|| (0..PARTITIONS).map(|_| OnceLock::new()).collect());
        placed[usize::from(partition.0)].get_or_init(|| match (self.overrides.get(partition), self.assignment.get()) {
            (Some(volumes), _) => volumes.iter().copied().map(holder).collect(),
            (None, Some(all)) => all.holders(partition.0).iter().copied().map(holder).collect(),
            (None, None) => self.roster.place(partition).iter().map(|pick| holder(pick.volume)).collect(),
        })
    }

    /// Whom a put asks for holders of `partition` that are not there, while it does not move: of each zone the `count`
    /// volumes that come next in placement's order, on other nodes than the holders. Takes some 20 ns for each volume.
    #[must_use]
    pub fn stand_ins(&self, partition: Partition, count: usize) -> Vec<Holder> {
        let nodes: Vec<usize> = self.holders(partition).iter().map(|holder| holder.node).collect();
        self.roster.stand_ins(partition, &nodes, count)
    }

    pub(crate) const fn roster(&self) -> &Roster {
        &self.roster
    }

    /// What [`holders`](Self::holders) gives, as indexes into the roster's volumes; by way of
    /// [`assignment`](Self::assignment).
    pub(crate) fn held(&self, partition: u16) -> &[u32] {
        self.overrides.get(Partition(partition)).unwrap_or_else(|| self.assignment().holders(partition))
    }

    /// The holders of all partitions by rendezvous alone. Worked out at the first call, unless a plan knew it.
    pub(crate) fn assignment(&self) -> &Arc<Assignment> {
        self.assignment.get_or_init(|| Arc::new(Assignment::of(&self.roster)))
    }

    /// Works out [`assignment`](Self::assignment) from that of an earlier map, which is known: milliseconds, where
    /// drawing all anew takes as long as placing all. Nothing where it is known already.
    pub(crate) fn learn_from(&self, before: &Self) {
        if self.assignment.get().is_none()
            && let Some(known) = before.assignment.get()
        {
            self.assignment.get_or_init(|| known.advance(before, self, &Step::new(before, self)));
        }
    }

    /// What [`assignment`](Self::assignment) is.
    pub(crate) fn put_assignment(&mut self, assignment: Arc<Assignment>) {
        self.assignment = OnceLock::from(assignment);
    }

    /// What works, but less well than the policy wants: for people, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        // One zone is a choice that many make.
        let unmet = Unmet::of_policy(self).into_iter().filter(|unmet| !matches!(unmet, Unmet::TooFewZones { .. }));
        unmet.map(|unmet| unmet.to_string()).collect()
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

impl Eq for Map {}

/// The volumes that hold each of `partitions`, of a map that has been checked: as [`Map::holders`] says, without the
/// cost of a whole map. Takes 10 ns a volume and partition.
pub(crate) fn holders_in(spec: &MapSpec, partitions: &[Partition]) -> Vec<Vec<VolumeId>> {
    let roster = roster(spec, &zones(&spec.nodes));
    let asked: BTreeSet<Partition> = partitions.iter().copied().collect();
    let named = spec.overrides.iter().filter(|over| asked.contains(&over.partition));
    let overrides: BTreeMap<Partition, &[VolumeId]> = named.map(|over| (over.partition, &*over.volumes)).collect();
    let volume = |index: u32| roster.volumes()[index as usize].holder().volume;
    let holders = |partition: &Partition| match overrides.get(partition) {
        Some(volumes) => volumes.to_vec(),
        None => roster.place(*partition).iter().map(|pick| volume(pick.volume)).collect(),
    };
    partitions.iter().map(holders).collect()
}

/// The names of the zones, sorted.
fn zones(nodes: &[Node]) -> Vec<String> {
    let mut zones: Vec<String> = nodes.iter().map(|node| node.zone.clone()).collect();
    zones.sort();
    zones.dedup();
    zones
}

fn roster(spec: &MapSpec, zones: &[String]) -> Roster {
    let zone_of = |node: &Node| zones.binary_search(&node.zone).expect("every node's zone is listed");
    Roster::new(&spec.nodes, zones.len(), zone_of, usize::from(spec.policy.copies))
}
