//! What a core is made of.

use std::sync::Arc;

use crate::admission::{AdmissionLimits, ClassLimits};
use crate::liveness::LivenessSettings;
use crate::log::{Durable, History};
use crate::repair::RepairSettings;
use crate::routing::RouterSettings;
use crate::takedown::{LeaseRules, Standing, Takedown};
use crate::wire::Protocols;
use crate::{ClusterId, LayoutCache, NodeId, NodeKey, rebalance, sync};

/// What a core is, for as long as its process lives.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// The node's name.
    pub node: NodeId,
    /// The node's key: it signs receipts.
    pub key: NodeKey,
    /// Takes tracks down, where it is one of the issuers.
    pub issuer: Option<NodeKey>,
    /// Whose takedowns count: Ed25519 public keys.
    pub issuers: Vec<[u8; 32]>,
    /// Which cluster.
    pub cluster: ClusterId,
    /// `host:port` of the node's cluster port.
    pub address: Arc<str>,
    /// Some of the cluster's addresses, to join by.
    pub seeds: Vec<Arc<str>>,
    /// When the process started, in ms since 1970. A later start has a larger one, whatever the clock says: the driver keeps
    /// on the system drive, durable before the first step, the largest that it ever had or that an
    /// [`Effect::Halt`](super::Effect::Halt) named, and takes the clock, or one more than that where the clock is not
    /// beyond it. Clocks need only agree within a day: a process that is said to have started later than that by this
    /// node's clock halts nobody, and of two such each other node hears whoever spoke last.
    pub life: u64,
    /// Of all its randomness: another for each node and start.
    pub seed: u64,
    /// Which versions of the protocol it speaks. It takes part only in a cluster that is finalised at one of them.
    pub protocols: Protocols,
    /// What may be set.
    pub settings: CoreSettings,
    /// A mistake that it makes.
    #[cfg(feature = "planted")]
    pub bug: Option<super::Bug>,
    /// Work that cores of one process share.
    pub layouts: LayoutCache,
}

impl CoreConfig {
    /// The core of the node whose key this is, with the default settings: it joins by nobody and takes nothing down.
    #[must_use]
    pub fn new(key: NodeKey, cluster: ClusterId, address: Arc<str>, life: u64, seed: u64) -> Self {
        Self {
            node: key.node_id(),
            key,
            issuer: None,
            issuers: Vec::new(),
            cluster,
            address,
            seeds: Vec::new(),
            life,
            seed,
            protocols: Protocols::BUILD,
            settings: CoreSettings::default(),
            #[cfg(feature = "planted")]
            bug: None,
            layouts: LayoutCache::default(),
        }
    }
}

/// What may be set about a core. The same on all nodes of a cluster, but where a setting's own doc says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct CoreSettings {
    /// Routing.
    pub router: RouterSettings,
    /// Who is there. Differs by node.
    pub liveness: LivenessSettings,
    /// How long a node serves without hearing of takedowns.
    pub lease: LeaseRules,
    /// A voter's tick in ms, see [`ConsensusConfig::tick_ms`](crate::log::ConsensusConfig::tick_ms). Default 100.
    pub voter_tick_ms: u64,
    /// How many requests are let in. Differs by node.
    pub admission: AdmissionLimits,
    /// Anti-entropy.
    pub sync: sync::Settings,
    /// Repair. Differs by node.
    pub repair: RepairSettings,
    /// The planner.
    pub rebalance: rebalance::Settings,
}

impl Default for CoreSettings {
    fn default() -> Self {
        let class = |under_way_max, queue_max| ClassLimits { under_way_max, queue_max };
        Self {
            router: RouterSettings::default(),
            liveness: LivenessSettings::default(),
            lease: LeaseRules::default(),
            voter_tick_ms: 100,
            admission: AdmissionLimits { read: class(256, 1_024), write: class(64, 256) },
            sync: sync::Settings::default(),
            repair: RepairSettings::default(),
            rebalance: rebalance::Settings::default(),
        }
    }
}

/// What a core finds when it starts: what its driver kept on the system drive.
#[derive(Clone, Default, Debug)]
pub struct Kept {
    /// The history, as it was saved. None: the node is new, or lost it.
    pub history: Option<History>,
    /// The durable state of the seat that was taken last, if it was not dropped.
    pub voter: Option<Durable>,
    /// The takedowns' file, in order.
    pub takedowns: Vec<Takedown>,
    /// What [`Effect::Stand`](super::Effect::Stand) said last; where it said nothing yet, [`Standing::WHOLE`] for a node
    /// that founds the cluster, and the default for one that joins.
    pub standing: Standing,
}
