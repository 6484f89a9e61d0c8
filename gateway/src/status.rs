//! How the cluster is, as seen from here; gathered once for all who ask meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use deadwax_dht_client::ClusterStatus;

use crate::failure::Failure;
use crate::worker::Worker;

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
    let needed = worker.write_quorum;
    if up >= needed {
        return Ok(());
    }
    Err(Failure::unavailable("no_quorum", format!("{up} of {nodes} nodes answer, a put needs {needed}")))
}
