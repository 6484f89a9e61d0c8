//! Keeps what a client knows of its cluster new: fetches the map's records, once for all requests that need them.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use deadwax_dht::log::{BATCH_BYTES_MAX, Batch, History};
use deadwax_dht::wire::Message;
use deadwax_dht::{Failure, FailureKind, Layout, LayoutCache, Verdict};
use deadwax_track::Partition;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use crate::connection::Connection;
use crate::known::Known;
use crate::read::failure;
use crate::{Client, ClientConfig};

/// How many nodes may one fetch ask before it is given up?
const NODES_ASKED_MAX: usize = 8;
/// How long may a fetch take in all? The map of a large cluster has some 80 MiB.
const FETCH_TIME_MAX: Duration = Duration::from_secs(30);
/// How long may a request wait for a newer map, if its own time is not over before?
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How often may one request begin anew with a newer map? One that is told of another each time goes by a cluster that
/// changes faster than it can be asked.
const CHANGES_MAX: u32 = 5;

/// The newest of what is known, and the way to what is newer.
#[derive(Debug)]
pub(crate) struct Follower {
    config: Arc<ClientConfig>,
    known: RwLock<Arc<Known>>,
    /// The chain that the newest layout comes of. Only the fetch that is under way changes it.
    history: Mutex<Option<History>>,
    /// Closed as soon as the fetch has ended.
    fetch: Mutex<Option<watch::Receiver<()>>>,
}

/// By what one request goes, and how often that has changed.
#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) known: Arc<Known>,
    changes: u32,
    /// An epoch that could not be had: the request does not wait for it again.
    missed: u64,
}

impl Course {
    /// A node told of `epoch`: goes by a map of it, or of one that is newer than before at least, where it comes before
    /// `until`, if there is such a time. Whether the request goes by another map now, and so begins anew.
    pub(crate) async fn follow(&mut self, client: &Client, epoch: u64, until: Option<Instant>) -> bool {
        if self.changes == CHANGES_MAX || epoch <= self.known.epoch().max(self.missed) {
            return false;
        }
        let known = client.inner.follower.follow(epoch, until).await;
        if known.epoch() <= self.known.epoch() {
            self.missed = epoch;
            return false;
        }
        self.known = known;
        self.changes += 1;
        true
    }

    /// Follows the map before a read or a put that has come to this verdict fails: holders that a newer map does not have
    /// any more need not say so. Whether it begins anew.
    pub(crate) async fn follow_failed(&mut self, client: &Client, verdict: Verdict, until: Option<Instant>) -> bool {
        verdict == Verdict::Unavailable && self.follow(client, self.known.told(), until).await
    }
}

impl Client {
    /// A request begins, by the newest map.
    pub(crate) fn course(&self) -> Course {
        Course { known: self.known(), changes: 0, missed: 0 }
    }

    /// The newest layout that the nodes heard of lately tell of, fetched where it is not known; none where the cluster has no
    /// log, or nobody gave its records.
    pub async fn newest(&self) -> Option<Arc<Layout>> {
        let follower = &self.inner.follower;
        follower.begin().await;
        let known = follower.known();
        let known = if known.told() > known.epoch() { follower.follow(known.told(), None).await } else { known };
        known.layout().cloned()
    }

    /// The chain that [`newest`](Self::newest) goes by; none where it was not asked for yet, or the cluster has no log.
    #[must_use]
    pub fn history(&self) -> Option<History> {
        locked(&self.inner.follower.history).clone()
    }

    /// Has the map of `epoch`, of which a node told, fetched where it is newer, and does not wait for it.
    pub(crate) fn follow_behind(&self, epoch: u64) {
        if epoch > self.epoch() {
            self.inner.follower.fetch(epoch);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Follower {
    pub(crate) fn new(known: Known, config: Arc<ClientConfig>) -> Self {
        let known = RwLock::new(Arc::new(known));
        Self { config, known, history: Mutex::default(), fetch: Mutex::default() }
    }

    /// The newest.
    pub(crate) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until `epoch` is known, or nobody who was asked could give it. What is known then.
    async fn follow(self: &Arc<Self>, epoch: u64, until: Option<Instant>) -> Arc<Known> {
        let most = Instant::now() + WAIT_MAX;
        let until = until.map_or(most, |until| until.min(most));
        // A fetch that others began may have asked before there was that epoch. Then there is one more.
        for _ in 0..2 {
            if self.known().epoch() >= epoch {
                break;
            }
            let (mut fetch, begun) = self.fetch(epoch);
            // Nothing is ever sent: this is its end.
            let ended = timeout_at(until, fetch.changed()).await;
            if ended.is_err() || begun {
                break;
            }
        }
        self.known()
    }

    /// The fetch that is under way, and whether it was begun just now.
    fn fetch(self: &Arc<Self>, epoch: u64) -> (watch::Receiver<()>, bool) {
        let mut slot = locked(&self.fetch);
        if let Some(under_way) = slot.as_ref().filter(|fetch| fetch.has_changed().is_ok()) {
            return (under_way.clone(), false);
        }
        let (under_way, fetch) = watch::channel(());
        let own = Arc::clone(self);
        // A task of its own: whoever began it may leave, others wait for it, too.
        tokio::spawn(async move {
            if timeout(FETCH_TIME_MAX, own.ask_nodes(epoch)).await.is_err() {
                tracing::warn!(epoch, "newer map did not come within {} s", FETCH_TIME_MAX.as_secs());
            }
            drop(under_way);
        });
        *slot = Some(fetch.clone());
        (fetch, true)
    }

    /// Asks one node after the other, until `epoch` is known.
    async fn ask_nodes(&self, epoch: u64) {
        let known = self.known();
        let mut order: Vec<usize> = (0..known.map().nodes().len()).collect();
        // Who told of an epoch has it.
        order.sort_by_cached_key(|node| (known.pool(*node).is_suspect(), Reverse(known.pool(*node).epoch())));
        for node in order.into_iter().take(NODES_ASKED_MAX) {
            if let Err(why) = self.ask_node(&known, node).await {
                // A node whose map never changes says so each time.
                tracing::debug!(node = %known.node_id(node), %why, "node gave no newer map");
            }
            let known = self.known();
            if known.epoch() >= epoch && known.layout().is_some() {
                return;
            }
        }
    }

    /// Fetches the map's records, where a map alone is known: that does not say who votes, who leaves and what moves.
    async fn begin(self: &Arc<Self>) {
        if self.known().layout().is_none() {
            let (mut fetch, _) = self.fetch(0);
            // Nothing is ever sent: this is its end.
            let _ = timeout(WAIT_MAX, fetch.changed()).await;
        }
    }

    /// Takes what a node has that is newer.
    async fn ask_node(&self, known: &Known, node: usize) -> Result<(), Failure> {
        let history = locked(&self.history).clone();
        let after = history.as_ref().map_or(0, History::epoch);
        let bytes = self.receive(known, node, after).await?;
        let before = self.known();
        // Seconds for a large cluster, in which others are served.
        let working = spawn_blocking(move || taken(history, &before, &bytes).map(|new| (new, before)));
        let (new, before) = working.await.map_err(|why| Failure::new(FailureKind::Internal, why.to_string()))??;
        let (history, layout) = new;
        if layout.epoch() > before.epoch() {
            tracing::debug!(epoch = layout.epoch(), before = before.epoch(), "newer map fetched");
        }
        *locked(&self.history) = Some(history);
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(before.followed_by(layout));
        Ok(())
    }

    /// The bytes of a batch: all that the node has after an epoch.
    async fn receive(&self, known: &Known, node: usize, after: u64) -> Result<Vec<u8>, Failure> {
        let (mut lease, first) = known.ask(node, &Message::EpochsAfter { epoch: after }).await?;
        let bytes = receive_batch(&mut lease.connection, first, self.config.read_stall_ms).await?;
        lease.give_back();
        Ok(bytes)
    }

    /// Begins with a history that is known already, before anything was asked.
    pub(crate) fn begin_with(&self, history: History, layout: Arc<Layout>) {
        let known = self.known().followed_by(layout);
        *locked(&self.history) = Some(history);
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
    }
}

/// The bytes of a batch, of which `reply` is the first part.
pub(crate) async fn receive_batch(
    connection: &mut Connection,
    mut reply: Message,
    stall_ms: u64,
) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    loop {
        let Message::Epochs { more, bytes: part } = reply else { return Err(failure(reply)) };
        if bytes.len() + part.len() > BATCH_BYTES_MAX {
            let why = format!("sent more than the {BATCH_BYTES_MAX} bytes that a batch may have");
            return Err(Failure::new(FailureKind::Internal, why));
        }
        bytes.extend_from_slice(&part);
        if !more {
            return Ok(bytes);
        }
        let next = timeout(Duration::from_millis(stall_ms), connection.receiver.receive());
        let late = |_| Err(Failure::new(FailureKind::Stalled, format!("sent nothing for {stall_ms} ms")));
        reply = next.await.unwrap_or_else(late)?;
    }
}

/// The history that a batch begins.
pub(crate) fn first_history(batch: &[u8]) -> Result<History, Failure> {
    let bad = |why: String| Failure::new(FailureKind::Internal, why);
    let batch = Batch::decode(batch).map_err(|why| bad(why.to_string()))?;
    History::from_batch(&batch).map_err(|why| bad(why.to_string()))
}

/// Where the batch leads from `history`, or from nothing; an error where that is not beyond `before`.
fn taken(history: Option<History>, before: &Known, batch: &[u8]) -> Result<(History, Arc<Layout>), Failure> {
    let bad = |why: String| Failure::new(FailureKind::Internal, why);
    let history = match history {
        None => first_history(batch)?,
        Some(mut history) => {
            let batch = Batch::decode(batch).map_err(|why| bad(why.to_string()))?;
            history.catch_up(&batch).map_err(|why| bad(why.to_string()))?;
            history
        }
    };
    let (own, got) = (before.map().cluster(), &history.state().spec().cluster);
    if own != got {
        return Err(Failure::new(FailureKind::Refused, format!("gave the map of cluster {got}, not of {own}")));
    }
    // Where a map alone was known, its own epoch says more.
    let known = before.epoch().saturating_sub(u64::from(before.layout().is_none()));
    if history.epoch() <= known {
        return Err(bad(format!("knows of epoch {} only, {} is known", history.epoch(), before.epoch())));
    }
    // Dropped with what it keeps: nobody asks for an epoch that has passed.
    let layouts = LayoutCache::default();
    let layout = match before.layout() {
        Some(layout) => layouts.layout(&history, Some(layout)),
        None => layouts.begin(&history, before.map()),
    };
    let layout = layout.map_err(|why| bad(why.to_string()))?;
    // The first question works out where all lies: here, where nobody waits for it.
    let moving = layout.state().transitions();
    if let Some(stable) = (0..=u16::MAX).map(Partition).find(|partition| !moving.contains_key(partition)) {
        let _ = layout.sets(stable);
    }
    Ok((history, layout))
}
