//! Clusters to simulate, prepared once: the genesis, its layout, the keys, and partitions worth putting tracks into.

use std::collections::BTreeSet;
use std::sync::Arc;

use deadwax_dht::log::History;
use deadwax_dht::{ClusterId, LayoutCache, MAP_VERSION, Map, MapSpec, Node, NodeId, NodeKey, Policy, Volume, VolumeId};
use deadwax_track::Partition;

use crate::faults::FOUNDED;
use crate::random::Random;

/// A node of a topology, in its map from the beginning or a spare that may join.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) key: NodeKey,
    pub(crate) id: NodeId,
    pub(crate) zone: usize,
    pub(crate) address: Arc<str>,
    pub(crate) volumes: Vec<Volume>,
}

impl Seat {
    /// As the map has it.
    pub(crate) fn node(&self) -> Node {
        let (address, zone) = (self.address.to_string(), zone_name(self.zone));
        Node { id: self.id, zone, rack: None, address, volumes: self.volumes.clone() }
    }
}

/// The name of a zone in the map.
pub(crate) fn zone_name(zone: usize) -> String {
    format!("zone{zone:02}")
}

/// A cluster as it is founded.
#[derive(Clone, Debug)]
pub(crate) struct Topology {
    /// For people.
    pub(crate) name: &'static str,
    pub(crate) zones: usize,
    /// Those of the map, then the spares.
    pub(crate) seats: Vec<Seat>,
    /// How many of them are in the map at first.
    pub(crate) founders: usize,
    pub(crate) history: History,
    pub(crate) layouts: LayoutCache,
    /// Where tracks are put: each volume holds some of them, those of small weight, too; and a spare would get some.
    pub(crate) partitions: Vec<Partition>,
    /// One a zone may take tracks down.
    pub(crate) issuers: Vec<NodeKey>,
    pub(crate) cluster: ClusterId,
}

/// What a topology is to be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) zones: usize,
    /// Nodes of much weight in each zone: they hold nearly all partitions, so that an epoch that moves them is costly.
    pub(crate) heavy: usize,
    /// Nodes of little weight in each zone, which come, go and die at little cost.
    pub(crate) light: usize,
    /// Nodes that may join.
    pub(crate) spares: usize,
    pub(crate) volumes: usize,
    /// How many partitions get tracks.
    pub(crate) partitions: usize,
    pub(crate) voters: usize,
}

const HEAVY: u32 = 4_000;
const LIGHT: u32 = 6;
/// The most nodes of a small cluster.
const SMALL_NODES_MAX: usize = 32;

/// The small clusters of the regular run: 3 to 20 nodes, so that some are no witnesses; 1 to 3 zones, 1 to 3 volumes. Each
/// with how often it is drawn: the large ones cost more.
pub(crate) const SMALL: [(Shape, u64); 8] = [
    (Shape { name: "3 in 3 zones", zones: 3, heavy: 1, light: 0, spares: 2, volumes: 1, partitions: 16, voters: 3 }, 3),
    (Shape { name: "6 in 3 zones", zones: 3, heavy: 1, light: 1, spares: 2, volumes: 1, partitions: 24, voters: 3 }, 4),
    (Shape { name: "6 in 2 zones", zones: 2, heavy: 2, light: 1, spares: 2, volumes: 2, partitions: 24, voters: 5 }, 2),
    (Shape { name: "4 in 1 zone", zones: 1, heavy: 3, light: 1, spares: 1, volumes: 3, partitions: 16, voters: 3 }, 2),
    (Shape { name: "8 in 2 zones", zones: 2, heavy: 2, light: 2, spares: 2, volumes: 1, partitions: 24, voters: 3 }, 2),
    (Shape { name: "9 in 3 zones", zones: 3, heavy: 2, light: 1, spares: 2, volumes: 1, partitions: 24, voters: 5 }, 2),
    (
        Shape { name: "12 in 3 zones", zones: 3, heavy: 2, light: 2, spares: 2, volumes: 2, partitions: 32, voters: 7 },
        1,
    ),
    (
        Shape { name: "20 in 2 zones", zones: 2, heavy: 2, light: 8, spares: 2, volumes: 1, partitions: 24, voters: 3 },
        1,
    ),
];

/// A large cluster: all nodes alike, but for one in each zone.
pub(crate) const fn large(nodes: usize) -> Shape {
    let heavy = nodes / 10 - 1;
    Shape { name: "large", zones: 10, heavy, light: 1, spares: 2, volumes: 1, partitions: 2_000, voters: 5 }
}

impl Topology {
    /// Works a topology out: milliseconds for a small cluster, seconds for a large one.
    pub(crate) fn prepare(shape: Shape) -> Self {
        let mut random = Random::stream(0x7090_1097, (shape.name.len() as u64 + shape.heavy as u64) << 8);
        let cluster = ClusterId::from_bytes(random.bytes());
        let mut seats = Vec::new();
        for (count, weight) in [(shape.heavy, HEAVY), (shape.light, LIGHT)] {
            for at in 0..shape.zones * count {
                seats.push(seat(&mut random, seats.len(), at % shape.zones, shape.volumes, weight));
            }
        }
        let founders = seats.len();
        for at in 0..shape.spares {
            seats.push(seat(&mut random, seats.len(), at % shape.zones, shape.volumes, LIGHT));
        }
        let nodes = seats[..founders].iter().map(Seat::node).collect();
        let policy = Policy::default();
        let spec = MapSpec { version: MAP_VERSION, cluster, epoch: 1, policy, nodes, overrides: Vec::new() };
        let map = Map::settled(spec).expect("a sound map");
        let voters = voters(&seats[..founders], shape.voters);
        let history = History::genesis_at(FOUNDED, map.spec().clone(), voters).expect("a sound genesis");
        let layouts = LayoutCache::for_many();
        layouts.begin(&history, &map).expect("a sound layout");
        let partitions = choose(&map, &seats, founders, shape, &mut random);
        let issuers = (0..shape.zones.min(3)).map(|_| NodeKey::from_bytes(&random.bytes())).collect();
        Self { name: shape.name, zones: shape.zones, seats, founders, history, layouts, partitions, issuers, cluster }
    }

    /// Whether there are so many nodes that each holds but little.
    pub(crate) const fn is_large(&self) -> bool {
        self.founders > SMALL_NODES_MAX
    }

    /// Those who may take tracks down, by their public keys.
    pub(crate) fn issuer_keys(&self) -> Vec<[u8; 32]> {
        self.issuers.iter().map(NodeKey::public).collect()
    }
}

fn seat(random: &mut Random, number: usize, zone: usize, volumes: usize, weight: u32) -> Seat {
    let key = NodeKey::from_bytes(&random.bytes());
    let volume = |_| Volume { id: VolumeId::from_bytes(random.bytes()), weight };
    let volumes = (0..volumes).map(volume).collect();
    Seat {
        id: key.node_id(),
        key,
        zone,
        address: format!("10.{zone}.{}.{}:7700", number / 256, number % 256).into(),
        volumes,
    }
}

/// Voters, spread over the zones.
fn voters(seats: &[Seat], count: usize) -> Vec<NodeId> {
    seats.iter().take(count.min(seats.len())).map(|seat| seat.id).collect()
}

/// Partitions such that each volume holds a few, and spares would win a few.
fn choose(map: &Map, seats: &[Seat], founders: usize, shape: Shape, random: &mut Random) -> Vec<Partition> {
    let mut chosen = BTreeSet::new();
    let start = random.next();
    // A step that is odd visits each partition once.
    let start = u16::try_from(start % 65_536).expect("16 bits");
    let shuffled = || (0..=u16::MAX).map(move |at| at.wrapping_mul(40_503).wrapping_add(start));
    if founders <= SMALL_NODES_MAX {
        for volume in seats[..founders].iter().flat_map(|seat| &seat.volumes) {
            let held =
                |partition: &u16| map.holders(Partition(*partition)).iter().any(|holder| holder.volume == volume.id);
            chosen.extend(shuffled().filter(held).take(2));
        }
        for spare in &seats[founders..] {
            let mut spec = map.spec().clone();
            spec.nodes.push(spare.node());
            let plan = deadwax_dht::Plan::new(map, spec, deadwax_dht::PartitionBytes::Uniform(1));
            let after = plan.expect("a sound map").into_map();
            let ours = |partition: &u16| {
                let holders = after.holders(Partition(*partition)).iter();
                holders.clone().any(|holder| after.nodes()[holder.node].id == spare.id)
            };
            chosen.extend(shuffled().filter(ours).take(2));
        }
    }
    let more = shape.partitions.saturating_sub(chosen.len());
    let further: Vec<u16> = shuffled().filter(|partition| !chosen.contains(partition)).take(more).collect();
    chosen.into_iter().chain(further).map(Partition).collect()
}
