//! How the whole cluster is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use deadwax_dht::wire::{CoreStatus, Message, NodeStatus, VolumeScrub, VolumeState, VolumeStatus};
use deadwax_dht::{ClusterId, Failure, FailureKind, Map, NodeId};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::Client;
use crate::copies::{Copies, VolumeDigests};
use crate::known::Known;
use crate::log_status::LogStatus;
use crate::read::failure;
use crate::scrub;
use crate::shortfall::Shortfall;

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
    /// The partitions that lack copies: the worst of them, those that are left with fewest copies first.
    #[serde(default)]
    pub shortfalls: Vec<Shortfall>,
    /// How many partitions lack copies.
    #[serde(default)]
    pub partitions_short: u64,
    /// The cluster's log, and what moves; nothing where the map is a file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log: Option<LogStatus>,
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
    /// How long ago each volume that serves was read and checked, and how that goes on, as far as the node says.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub scrubs: Vec<VolumeScrub>,
    /// Whatever it counts.
    pub counters: BTreeMap<String, u64>,
    /// How its part in the cluster's rules stands, where it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub core: Option<CoreStatus>,
    /// Why it did not say how that stands, where it is up otherwise: it is busy, or its core is stuck.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub core_error: Option<String>,
}

/// A node's word on its core: none where it has none, or speaks a version that has no such word.
type CoreAnswer = Result<Option<CoreStatus>, Failure>;

/// What one node answered.
struct Answered {
    status: NodeStatus,
    core: CoreAnswer,
    scrubs: Vec<VolumeScrub>,
    held: VolumeDigests,
}

impl Client {
    /// What a node of the map answers within [`status_ms`](crate::ClientConfig::status_ms).
    pub(crate) async fn ask_by_name(&self, node: &NodeId, request: &Message) -> Result<Message, Failure> {
        let known = self.known();
        let index = known.map().nodes().iter().position(|each| each.id == *node);
        let missing = || Failure::new(FailureKind::Refused, format!("the map has no node {}", node.short()));
        let asking = known.ask(index.ok_or_else(missing)?, request);
        let late = |_| Failure::new(FailureKind::Stalled, "did not answer in time");
        let (lease, reply) =
            timeout(Duration::from_millis(self.inner.config.status_ms), asking).await.map_err(late)??;
        lease.give_back();
        Ok(reply)
    }

    /// How this node of the map says that its drives are; an error where it does not answer.
    pub async fn volumes_of(&self, node: &NodeId) -> Result<Vec<VolumeStatus>, Failure> {
        match self.ask_by_name(node, &Message::Status).await? {
            Message::NodeStatus(status) => Ok(status.volumes),
            other => Err(failure(other)),
        }
    }

    /// Asks every node how it is and what it holds, and compares. Takes [`status_ms`](crate::ClientConfig::status_ms)
    /// or so at most; what did not answer by then counts as down, and the whole never fails. By the newest map that a node
    /// tells of, where it can be fetched in time; else that is fetched for the next time.
    pub async fn status(&self) -> ClusterStatus {
        let deadline = Instant::now() + Duration::from_millis(self.inner.config.status_ms);
        let mut known = self.known();
        let mut nodes = Self::ask_nodes(&known, deadline).await;
        let has_log = nodes.iter().flatten().any(|answered| !matches!(answered.core, Ok(None)));
        if has_log && (known.layout().is_none() || known.told() > known.epoch()) {
            let followed = timeout_at(deadline, self.newest()).await;
            let newest = self.known();
            let is_newer = newest.epoch() > known.epoch();
            if is_newer && followed.is_ok() {
                nodes = Self::ask_nodes(&newest, deadline).await;
            }
            // Where it is no newer, it has the same nodes, and a layout by now.
            if !is_newer || followed.is_ok() {
                known = newest;
            }
        }
        self.follow_behind(known.told());
        self.status_of(&known, nodes, deadline).await
    }

    async fn status_of(
        &self,
        known: &Known,
        nodes: Vec<Result<Answered, Failure>>,
        deadline: Instant,
    ) -> ClusterStatus {
        let map = known.map();
        let mut digests = VolumeDigests::new();
        let mut answers = Vec::with_capacity(nodes.len());
        for (node, answer) in map.nodes().iter().zip(nodes) {
            let mut scrubs = Vec::new();
            let answer = answer.map(|answered| {
                digests.extend(answered.held);
                scrubs = answered.scrubs;
                (Some(answered.status), answered.core)
            });
            answers.push(NodeReport { scrubs, ..report(node, answer) });
        }
        let counted = Self::count_copies(known, &digests, deadline).await;
        let log = LogStatus::of(&answers, known.layout().map(|layout| &**layout));
        let mut warnings = warnings(map, &answers, &counted.copies, log.is_some());
        if let Some(log) = &log {
            warnings.extend(log.warnings(&answers, known.layout().map(|layout| &**layout)));
        }
        warnings.extend(scrub::warnings(&answers, self.inner.config.verified_within_s));
        let (shortfalls, partitions_short) = counted.shortfalls.finish();
        let volumes = || answers.iter().flat_map(|node| &node.volumes);
        let all_bytes: u64 = volumes().map(|volume| volume.track_bytes).sum();
        let all_tracks: u64 = volumes().map(|volume| volume.tracks).sum();
        let bytes = u128::from(all_bytes) * u128::from(counted.tracks) / u128::from(all_tracks.max(1));
        ClusterStatus {
            cluster: *map.cluster(),
            epoch: map.epoch(),
            tracks: counted.tracks,
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
            copies: counted.copies,
            shortfalls,
            partitions_short,
            log,
            healthy: warnings.is_empty(),
            warnings,
            nodes: answers,
        }
    }

    /// What each node of the map answers, in the map's order.
    async fn ask_nodes(known: &Arc<Known>, deadline: Instant) -> Vec<Result<Answered, Failure>> {
        let mut asking = JoinSet::new();
        for node in 0..known.map().nodes().len() {
            let known = Arc::clone(known);
            asking.spawn(async move { (node, Self::ask_node(&known, node, deadline).await) });
        }
        let mut nodes: Vec<_> = known.map().nodes().iter().map(|_| None).collect();
        while let Some(answer) = asking.join_next().await {
            let (node, answer) = answer.expect("asking does not panic and is not aborted");
            nodes[node] = Some(answer);
        }
        nodes.into_iter().map(|node| node.expect("each reports")).collect()
    }

    /// Asks every node how its part in the cluster's rules stands, and nothing else: what whoever waits for moves to end
    /// asks often. By the newest map that was told of.
    pub async fn core_status(&self) -> Option<LogStatus> {
        let layout = self.newest().await;
        let known = self.known();
        let mut asking = JoinSet::new();
        for node in 0..known.map().nodes().len() {
            let known = Arc::clone(&known);
            asking.spawn(async move { (node, Self::ask_core(&known, node).await) });
        }
        let cores: BTreeMap<usize, CoreAnswer> = asking.join_all().await.into_iter().collect();
        let nodes = known.map().nodes().iter().zip(cores.into_values());
        let answer = |core| match core {
            // Of what is not there nobody knows whether it has a core.
            Err(why @ Failure { kind: FailureKind::Unreachable, .. }) => Err(why),
            core => Ok((None, core)),
        };
        let reports: Vec<NodeReport> = nodes.map(|(node, core)| report(node, answer(core))).collect();
        LogStatus::of(&reports, layout.as_deref())
    }

    /// The newest epoch that this node of the map knows; nothing: it does not answer, or goes by a map that is a file.
    pub async fn epoch_of(&self, node: &NodeId) -> Option<u64> {
        self.ask_epoch(node).await.ok().flatten()
    }

    /// The same; nothing: it goes by a map that is a file, or is not in the map.
    ///
    /// # Errors
    /// Why it gave no answer. [`FailureKind::Unreachable`] and [`FailureKind::Stalled`] say that nobody may be there, all others
    /// that somebody is.
    pub async fn ask_epoch(&self, node: &NodeId) -> Result<Option<u64>, Failure> {
        let known = self.known();
        let Some(index) = known.map().nodes().iter().position(|each| each.id == *node) else { return Ok(None) };
        Ok(Self::ask_core(&known, index).await?.map(|core| core.epoch))
    }

    async fn ask_core(known: &Known, node: usize) -> CoreAnswer {
        let (lease, reply) = match known.ask(node, &Message::AskCore).await {
            Err(why) if why.kind == FailureKind::Refused => return Ok(None),
            answer => answer?,
        };
        lease.give_back();
        match reply {
            Message::CoreStatus(status) => Ok(status.map(|status| *status)),
            other => Err(failure(other)),
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

    /// A node's word on itself, and on what each of its volumes holds: all of it, or the node counts as down. And that on
    /// its core, or why there is none.
    async fn ask_node(known: &Known, node: usize, deadline: Instant) -> Result<Answered, Failure> {
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
        let late = || Failure::new(FailureKind::Stalled, "did not report in time");
        let (status, held) = timeout_at(deadline, asking).await.unwrap_or_else(|_| Err(late()))?;
        let core = timeout_at(deadline, Self::ask_core(known, node)).await.unwrap_or_else(|_| Err(late()));
        // Where it does not say, there is a warning for each volume.
        let scrubs = timeout_at(deadline, scrub::ask(known, node)).await;
        let scrubs = scrubs.map_or_else(|_| Vec::new(), Result::unwrap_or_default);
        Ok(Answered { status, core, scrubs, held })
    }
}

/// `has_log`: how far behind a node may be its log says.
fn warnings(map: &Map, nodes: &[NodeReport], copies: &Copies, has_log: bool) -> Vec<String> {
    let mut warnings = map.warnings();
    for (node, status) in map.nodes().iter().zip(nodes) {
        if let Some(failure) = &status.error {
            warnings.push(format!("node {} is down: {failure}", node.address));
            continue;
        }
        if !has_log && status.epoch != map.epoch() {
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

fn report(node: &deadwax_dht::Node, answer: Result<(Option<NodeStatus>, CoreAnswer), Failure>) -> NodeReport {
    let mut report = NodeReport {
        id: node.id,
        address: node.address.clone(),
        zone: node.zone.clone(),
        up: answer.is_ok(),
        error: None,
        version: String::new(),
        uptime_s: 0,
        epoch: 0,
        shards: 0,
        resident_bytes: 0,
        volumes: vec![],
        scrubs: vec![],
        counters: BTreeMap::new(),
        core: None,
        core_error: None,
    };
    match answer {
        Ok((status, core)) => {
            match core {
                Ok(core) => report.core = core,
                Err(failure) => report.core_error = Some(failure.to_string()),
            }
            let Some(status) = status else { return report };
            let NodeStatus { id: _, version, uptime_s, epoch, shards, volumes, resident_bytes, counters } = status;
            NodeReport { version, uptime_s, epoch, shards, volumes, resident_bytes, counters, ..report }
        }
        Err(failure) => {
            report.error = Some(failure.to_string());
            report
        }
    }
}
