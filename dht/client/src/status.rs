//! How the whole cluster is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use deadwax_dht::wire::{Message, NodeStatus, VolumeState, VolumeStatus};
use deadwax_dht::{ClusterId, Failure, Map, NodeId};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::Client;
use crate::copies::{Copies, VolumeDigests};
use crate::known::Known;
use crate::read::failure;

/// How a cluster is: what `deadwax status` prints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub cluster: ClusterId,
    /// The map's epoch.
    pub epoch: u64,
    /// Every node of the map, in the map's order.
    pub nodes: Vec<NodeReport>,
    /// Different tracks that the nodes which are up hold.
    pub tracks: u64,
    /// Those tracks' bytes, each counted once. An estimate where copies are missing.
    pub bytes: u64,
    /// How many copies there are and should be.
    pub copies: Copies,
    /// What is not as it should be, one sentence each.
    pub warnings: Vec<String>,
    /// Whether there are no warnings.
    pub healthy: bool,
}

/// How one node is. What only the node can tell is empty or zero where it is not up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its name.
    pub id: NodeId,
    /// Its address.
    pub address: String,
    /// Its zone.
    pub zone: String,
    /// Whether it answered.
    pub up: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The version of its program.
    pub version: String,
    /// Seconds since it began to serve.
    pub uptime_s: u64,
    /// The epoch of its map.
    pub epoch: u64,
    /// How many cores serve.
    pub shards: u32,
    /// Resident memory of its process.
    pub resident_bytes: u64,
    /// Its drives.
    pub volumes: Vec<VolumeStatus>,
    /// Whatever it counts.
    pub counters: BTreeMap<String, u64>,
}

impl Client {
    /// Asks every node how it is and what it holds, and compares. Takes [`status_ms`](crate::ClientConfig::status_ms)
    /// at most; what did not answer by then counts as down, and the whole never fails. By the newest map that is known;
    /// where a node tells of a newer one it is fetched for the next time.
    pub async fn status(&self) -> ClusterStatus {
        let known = self.known();
        let map = known.map();
        let deadline = Instant::now() + Duration::from_millis(self.inner.config.status_ms);
        let mut asking = JoinSet::new();
        for node in 0..map.nodes().len() {
            let known = Arc::clone(&known);
            asking.spawn(async move { (node, Self::ask_node(&known, node, deadline).await) });
        }
        let mut nodes: Vec<_> = map.nodes().iter().map(|_| None).collect();
        let mut digests = VolumeDigests::new();
        while let Some(answer) = asking.join_next().await {
            let (node, answer) = answer.expect("asking does not panic and is not aborted");
            nodes[node] = Some(answer.map(|(status, held)| {
                digests.extend(held);
                status
            }));
        }
        let nodes: Vec<Result<NodeStatus, Failure>> =
            nodes.into_iter().map(|node| node.expect("each reports")).collect();
        self.follow_behind(known.told());
        let counted = Self::count_copies(&known, &digests, deadline).await;
        let warnings = warnings(map, &nodes, &counted.copies);
        let volumes = || nodes.iter().flatten().flat_map(|node| &node.volumes);
        let all_bytes: u64 = volumes().map(|volume| volume.track_bytes).sum();
        let all_tracks: u64 = volumes().map(|volume| volume.tracks).sum();
        let bytes = u128::from(all_bytes) * u128::from(counted.tracks) / u128::from(all_tracks.max(1));
        ClusterStatus {
            cluster: *map.cluster(),
            epoch: map.epoch(),
            tracks: counted.tracks,
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
            copies: counted.copies,
            healthy: warnings.is_empty(),
            warnings,
            nodes: map.nodes().iter().zip(nodes).map(|(node, status)| report(node, status)).collect(),
        }
    }

    /// How many nodes answer now: what a balancer asks often. Costs one small request a node; one that was found down a
    /// moment ago is not asked again.
    pub async fn nodes_up(&self) -> usize {
        let (known, mut asking) = (self.known(), JoinSet::new());
        for node in 0..known.map().nodes().len() {
            let known = Arc::clone(&known);
            asking.spawn(async move {
                let (lease, reply) = known.ask(node, &Message::Status).await?;
                lease.give_back();
                if matches!(reply, Message::NodeStatus(_)) { Ok(()) } else { Err(failure(reply)) }
            });
        }
        let answers = asking.join_all().await;
        self.follow_behind(known.told());
        answers.iter().filter(|answer: &&Result<(), Failure>| answer.is_ok()).count()
    }

    /// A node's word on itself, and on what each of its volumes holds. All of it, or the node counts as down.
    async fn ask_node(known: &Known, node: usize, deadline: Instant) -> Result<(NodeStatus, VolumeDigests), Failure> {
        let asking = async {
            let (lease, reply) = known.ask(node, &Message::Status).await?;
            lease.give_back();
            let Message::NodeStatus(status) = reply else { return Err(failure(reply)) };
            let mut digests = VolumeDigests::new();
            for volume in &known.map().nodes()[node].volumes {
                let serves = |status: &&VolumeStatus| status.id == volume.id && status.state != VolumeState::Fenced;
                if status.volumes.iter().any(|status| serves(&status)) {
                    digests.insert(volume.id, Self::digests(known, node, volume.id).await?);
                }
            }
            Ok((*status, digests))
        };
        let late = |_| Err(Failure::new(deadwax_dht::FailureKind::Stalled, "did not report in time"));
        timeout_at(deadline, asking).await.unwrap_or_else(late)
    }
}

fn warnings(map: &Map, nodes: &[Result<NodeStatus, Failure>], copies: &Copies) -> Vec<String> {
    let mut warnings = map.warnings();
    for (node, status) in map.nodes().iter().zip(nodes) {
        let status = match status {
            Ok(status) => status,
            Err(failure) => {
                warnings.push(format!("node {} is down: {failure}", node.address));
                continue;
            }
        };
        if status.epoch != map.epoch() {
            warnings.push(format!("node {} is at epoch {}, not {}", node.address, status.epoch, map.epoch()));
        }
        for volume in &node.volumes {
            match status.volumes.iter().find(|status| status.id == volume.id) {
                None => warnings.push(format!("node {} does not have volume {}", node.address, volume.id)),
                Some(status @ VolumeStatus { state, dir, reason, .. }) => {
                    let state = match state {
                        VolumeState::Serving if status.is_full() => "full",
                        VolumeState::Serving => continue,
                        VolumeState::ReadOnly => "read-only",
                        VolumeState::Fenced => "fenced",
                    };
                    let why = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
                    warnings.push(format!("volume {dir} of node {} is {state}{why}", node.address));
                }
            }
        }
    }
    if copies.missing > 0 {
        warnings.push(format!("{} of {} copies are missing", copies.missing, copies.expected));
    }
    if !copies.exact {
        warnings.push("not all holders could be compared in time: copies are an estimate".to_owned());
    }
    warnings
}

fn report(node: &deadwax_dht::Node, status: Result<NodeStatus, Failure>) -> NodeReport {
    let mut report = NodeReport {
        id: node.id,
        address: node.address.clone(),
        zone: node.zone.clone(),
        up: status.is_ok(),
        error: None,
        version: String::new(),
        uptime_s: 0,
        epoch: 0,
        shards: 0,
        resident_bytes: 0,
        volumes: vec![],
        counters: BTreeMap::new(),
    };
    match status {
        Ok(NodeStatus { id: _, version, uptime_s, epoch, shards, volumes, resident_bytes, counters }) => {
            NodeReport { version, uptime_s, epoch, shards, volumes, resident_bytes, counters, ..report }
        }
        Err(failure) => {
            report.error = Some(failure.to_string());
            report
        }
    }
}
