//! What a client knows of its cluster at one epoch: who holds what, and how each node is reached.

use std::collections::BTreeMap;
use std::sync::Arc;

use deadwax_dht::wire::{Message, Summed};
use deadwax_dht::{Failure, Holder, Layout, Map, Node, NodeId, Sets, Targets};
use deadwax_track::Partition;

use crate::ClientConfig;
use crate::pool::{Lease, NodePool};

/// How many nodes of each zone a put may ask to stand in for holders that are not there.
const STAND_INS_MAX: usize = 2;

/// One epoch, immutable. A request takes the newest at its beginning and asks by it until it takes a newer one, and with
/// it new holders: so an index of one map never meets the nodes of another.
#[derive(Debug)]
pub(crate) struct Known {
    map: Arc<Map>,
    /// None until the map's records were fetched: then the map alone says who holds what.
    layout: Option<Arc<Layout>>,
    /// Every node's connections, in the map's order.
    pools: Vec<Arc<NodePool>>,
    /// The client's own, if the map has it.
    zone: Option<usize>,
    config: Arc<ClientConfig>,
}

fn zone(map: &Map, config: &ClientConfig) -> Option<usize> {
    let own = config.zone.as_ref()?;
    map.zones().iter().position(|zone| zone == own)
}

impl Known {
    /// What a map says that was given to the client.
    pub(crate) fn of_map(map: Arc<Map>, config: &Arc<ClientConfig>) -> Self {
        let pools = map.nodes().iter().map(|node| Arc::new(NodePool::new(*map.cluster(), node, config))).collect();
        Self { zone: zone(&map, config), map, layout: None, pools, config: Arc::clone(config) }
    }

    /// What a layout of the same cluster says. Nodes that stay keep their connections, and what is known of their health,
    /// unless their address is another.
    pub(crate) fn followed_by(&self, layout: Arc<Layout>) -> Self {
        let map = Arc::clone(layout.map());
        let before: BTreeMap<&NodeId, &Arc<NodePool>> = self.pools.iter().map(|pool| (pool.node(), pool)).collect();
        let pool = |node: &Node| match before.get(&node.id) {
            Some(pool) if pool.address() == node.address => Arc::clone(pool),
            Some(pool) => Arc::new(pool.moved_to(&node.address)),
            None => Arc::new(NodePool::new(*map.cluster(), node, &self.config)),
        };
        let pools = map.nodes().iter().map(pool).collect();
        let zone = zone(&map, &self.config);
        Self { map, layout: Some(layout), pools, zone, config: Arc::clone(&self.config) }
    }

    pub(crate) const fn map(&self) -> &Arc<Map> {
        &self.map
    }

    pub(crate) const fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    /// The client's own zone, by its index in the map.
    pub(crate) const fn zone(&self) -> Option<usize> {
        self.zone
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.map.epoch()
    }

    /// The newest epoch that a node told of.
    pub(crate) fn told(&self) -> u64 {
        self.pools.iter().map(|pool| pool.epoch()).max().unwrap_or(0)
    }

    /// The holders of a partition: two sets while it moves.
    pub(crate) fn sets(&self, partition: Partition) -> Sets {
        match &self.layout {
            Some(layout) => layout.sets(partition),
            None => Sets { first: self.map.holders(partition).to_vec(), second: None },
        }
    }

    /// Whom a read of a track of the partition may ask: its holders.
    pub(crate) fn targets(&self, partition: Partition) -> Targets {
        self.targets_with(partition, &[])
    }

    /// Whom a put may ask: also those who may stand in for a holder that is not there.
    pub(crate) fn put_targets(&self, partition: Partition) -> Targets {
        let stand_ins = match &self.layout {
            Some(layout) => layout.stand_ins(partition, STAND_INS_MAX),
            None => self.map.stand_ins(partition, STAND_INS_MAX),
        };
        self.targets_with(partition, &stand_ins)
    }

    fn targets_with(&self, partition: Partition, stand_ins: &[Holder]) -> Targets {
        let sets = self.sets(partition);
        Targets::new(self.epoch(), &sets.first, sets.second.as_deref(), stand_ins)
    }

    /// The connections of the map's node of this index.
    pub(crate) fn pool(&self, node: usize) -> &NodePool {
        &self.pools[node]
    }

    /// The name of the map's node of this index.
    pub(crate) fn node_id(&self, node: usize) -> NodeId {
        self.map.nodes()[node].id
    }

    /// Asks the map's node of this index, which may take longer: see [`NodePool::ask_patiently`].
    pub(crate) async fn ask_patiently(
        &self,
        node: usize,
        request: &Message,
        longer_ms: u64,
    ) -> Result<(Lease, Message), Failure> {
        self.pools[node].ask_patiently(self.epoch(), request, longer_ms).await
    }

    /// Offers a track to the map's node of this index, with its bytes: see [`NodePool::ask_with`].
    pub(crate) async fn ask_with(
        &self,
        node: usize,
        request: &Message,
        data: &Summed,
    ) -> Result<(Lease, Message), Failure> {
        self.pools[node].ask_with(self.epoch(), request, data).await
    }

    /// Asks the map's node of this index: see [`NodePool::ask`].
    pub(crate) async fn ask(&self, node: usize, request: &Message) -> Result<(Lease, Message), Failure> {
        self.pools[node].ask(self.epoch(), request).await
    }
}

#[cfg(test)]
mod tests {
    use deadwax_dht::log::{Change, History, Proposal, Ticket};
    use deadwax_dht::{ClusterId, LayoutCache, MAP_VERSION, MapSpec, Policy, Volume, VolumeId};

    use super::*;

    fn node(number: u8) -> Node {
        Node {
            id: NodeId::from_bytes([number; 32]),
            zone: "home".to_owned(),
            rack: None,
            address: format!("10.0.0.{number}:7000"),
            volumes: vec![Volume { id: VolumeId::from_bytes([number; 16]), weight: 1 }],
        }
    }

    #[test]
    fn nodes_keep_their_connections_wherever_the_next_map_has_them() {
        let spec = MapSpec {
            version: MAP_VERSION,
            cluster: ClusterId::from_bytes([7; 16]),
            epoch: 1,
            policy: Policy::default(),
            nodes: (1..=5).map(node).collect(),
            overrides: vec![],
        };
        let map = Arc::new(Map::new(spec.clone()).expect("a good map"));
        let before = Known::of_map(map, &Arc::default());
        let mut history =
            History::genesis(spec, [2, 3, 4].map(|number| node(number).id).to_vec()).expect("a good genesis");
        for change in [
            Change::RemoveNode(node(1).id),
            Change::AddNode(node(6)),
            Change::SetAddress { node: node(4).id, address: "10.0.0.44:7000".to_owned() },
        ] {
            let ticket = Ticket { node: node(2).id, number: 0 };
            let record = history.decide(&Proposal { ticket, base: history.epoch(), change }).expect("a good change");
            history.append(&record).expect("what was decided can be taken");
        }
        let after = before.followed_by(LayoutCache::default().layout(&history, None).expect("a good layout"));
        assert_eq!(after.epoch(), 4);
        let old = |id: &NodeId| before.pools.iter().find(|pool| pool.node() == id);
        let mut kept = 0;
        for (index, node) in after.map().nodes().iter().enumerate() {
            let pool = &after.pools[index];
            assert_eq!((pool.node(), pool.address()), (&node.id, node.address.as_str()));
            kept += usize::from(old(&node.id).is_some_and(|old| Arc::ptr_eq(old, pool)));
        }
        assert_eq!((kept, after.pools.len()), (3, 5), "2, 3 and 5 stay, 4 is elsewhere, 6 is new");
    }
}
