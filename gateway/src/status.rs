//! How the cluster is, as seen from here; gathered once for all who ask meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use deadwax_dht_client::{ClusterStatus, NodeReport};

use crate::failure::Failure;
use crate::worker::Worker;

/// How old may the figures of volumes be? A status asks every node, and metrics are collected by many.
const METRICS_AGE_MAX: Duration = Duration::from_secs(10);
/// How long may metrics wait for nodes that do not answer?
const METRICS_WAIT_MAX: Duration = Duration::from_secs(3);

/// The last status, and when gathering it began.
#[derive(Default)]
pub(crate) struct StatusMemo(Option<(Instant, Arc<ClusterStatus>)>);

/// A status that began to be gathered at `since` or later.
async fn cluster(worker: &Worker, since: Instant) -> Arc<ClusterStatus> {
    // Held while asking: of all who come meanwhile, one gathers the next answer, and the others share it.
    let mut memo = worker.shared.status.lock().await;
    if let Some((begun, status)) = &memo.0
        && *begun >= since
    {
        return Arc::clone(status);
    }
    let begun = Instant::now();
    let status = Arc::new(worker.client.status().await);
    memo.0 = Some((begun, Arc::clone(&status)));
    status
}

/// The nodes as they were heard of within [`METRICS_AGE_MAX`], or none where that takes too long: whoever collects
/// metrics does not wait.
pub(crate) async fn nodes(worker: &Worker) -> Vec<NodeReport> {
    let since = Instant::now().checked_sub(METRICS_AGE_MAX).unwrap_or_else(Instant::now);
    let heard = tokio::time::timeout(METRICS_WAIT_MAX, cluster(worker, since)).await;
    heard.map_or_else(|_| Vec::new(), |status| status.nodes.clone())
}

/// The cluster's status as JSON, never older than the question.
pub(crate) async fn json(worker: &Worker) -> Result<Bytes, Failure> {
    let status = cluster(worker, Instant::now()).await;
    serde_json::to_vec(&*status)
        .map(Bytes::from)
        .map_err(|error| Failure::unavailable("status", format!("the status cannot be written: {error}")))
}

/// Whether this gateway should be sent requests: it is not stopping, and as many nodes answer as a put needs.
pub(crate) async fn ready(worker: &Worker) -> Result<(), Failure> {
    if worker.shared.draining.load(Ordering::Relaxed) {
        return Err(Failure::unavailable("stopping", "the gateway is stopping"));
    }
    let (up, nodes) = (worker.client.nodes_up().await, worker.client.map().nodes().len());
    let needed = usize::from(worker.client.map().policy().write_quorum);
    if up >= needed {
        return Ok(());
    }
    Err(Failure::unavailable("no_quorum", format!("{up} of {nodes} nodes answer, a put needs {needed}")))
}
