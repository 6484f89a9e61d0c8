//! What every request works with: the things that all threads share, and this thread's way to the masters.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use deadwax_cache::Cache;
use deadwax_dht_client::{Client, Presence};
use deadwax_track::TrackId;
use tokio::sync::Mutex;

use crate::config::Limits;
use crate::known::{Found, Known, Track};
use crate::masters;
use crate::metrics::Metrics;
use crate::spool::Spool;
use crate::status::StatusMemo;
use crate::takedowns::Barred;

/// One a process.
pub(crate) struct Shared {
    pub(crate) cache: Cache,
    pub(crate) known: Known,
    /// What was taken down lately.
    pub(crate) barred: Barred,
    pub(crate) metrics: Metrics,
    pub(crate) spool: Spool,
    pub(crate) limits: Limits,
    /// Set when a signal to stop came: not ready any more.
    pub(crate) draining: AtomicBool,
    /// The cluster's last status. Held while it is asked for, so that one asks at a time.
    pub(crate) status: Mutex<StatusMemo>,
}

/// One a thread.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) client: Client,
}

impl Worker {
    /// What is known of a track; asks its holders where it is not.
    pub(crate) async fn track(self: &Arc<Self>, id: &TrackId) -> Found {
        self.shared.barred.check(id)?;
        let ask = |ticket| {
            let (worker, id) = (Arc::clone(self), *id);
            // A task of its own: whoever began it may leave, others wait for it too.
            tokio::spawn(async move {
                let info = worker.client.info(id).await;
                let found = info.map(|info| Arc::new(Track::new(id, info.tags, info.manifest)));
                worker.shared.known.settle(ticket, found.map_err(|error| masters::failure(&error)));
            });
        };
        self.shared.known.find(id, ask).await
    }

    /// Asks, at most once a second a track and behind the caller's back, whether it was taken down, and forgets it if
    /// so: how a takedown through another gateway is noticed in a cluster without a log of them, or while no master tells
    /// of it.
    pub(crate) fn keep_fresh(self: &Arc<Self>, track: &Arc<Track>) {
        if !track.check_is_due() {
            return;
        }
        let (worker, id) = (Arc::clone(self), track.id);
        tokio::spawn(async move {
            // Unreachable holders are no reason to stop serving, and absence none either: the bytes are proved.
            if let Ok(Presence::TakenDown { number }) = worker.client.presence(id).await {
                tracing::info!(track = %id, number, "track was taken down, cache emptied of it");
                worker.shared.metrics.takedowns_seen.inc();
                worker.forget(&id);
            }
        });
    }

    /// Forgets all that memory holds of a track. Call it after its holders refuse it.
    pub(crate) fn forget(&self, id: &TrackId) {
        self.shared.known.forget(id);
        self.shared.cache.remove_track(id);
    }

    /// Forgets all tracks: what is asked for from now on, holders are asked about.
    pub(crate) fn forget_all(&self) {
        self.shared.known.clear();
        self.shared.cache.clear();
    }
}
