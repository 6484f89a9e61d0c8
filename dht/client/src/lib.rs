//! Asks the master nodes for tracks, over TCP or TLS, on tokio.
//!
//! **Promise.** A put returns when a write quorum is durable, and fails when none can be. A get goes on from another
//! holder in mid-stream when one dies. `NotFound` is said only when a quorum of holders said so; otherwise the error
//! says that it cannot be told. Bytes that arrive pass a checksum for each frame; proving pieces against the manifest
//! is the caller's matter. No request waits without a deadline; every queue has a bound.
//!
//! **The map.** A client begins with the map that it is given. A request goes by the newest that is known when it begins.
//! When a holder says that it has a newer one, the client fetches the map's records, once for all who wait, and the
//! request begins anew by it: a get from the byte where it is, a put unless its bytes are on their way. While a
//! partition moves a put needs its quorum in both sets of holders, and readers ask the first set first. Nodes with a map
//! that never changes have no records; then a request goes on by the map that there is.
//!
//! **Where to start.** [`Client`]: [`put`](Client::put), [`get`](Client::get), [`info`](Client::info),
//! [`presence`](Client::presence), [`issue`](Client::issue), [`takedowns`](Client::takedowns), [`feed`](Client::feed),
//! [`follow_tracks`](Client::follow_tracks), [`status`](Client::status); operators change the cluster by
//! [`command`](Client::command) and have drives checked by [`scrub`](Client::scrub), a new node comes by
//! [`join`](Client::join). The rules are state machines
//! of `deadwax-dht`; this crate drives them with sockets and a clock.
//!
//! **Absent on purpose.** Caching, HTTP, retries of whole requests, asking for a newer map that nobody told of.

mod background;
mod command;
mod config;
mod connection;
mod copies;
mod discover;
mod error;
mod follower;
mod get;
mod join;
mod known;
mod log_status;
mod pool;
mod put;
mod put_lane;
mod read;
mod repair;
mod scrub;
mod secure;
mod seen_tracks;
mod shortfall;
mod status;
mod takedown;
mod takedown_log;
mod track_feed;
mod track_follower;
mod track_pages;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadwax_dht::{HedgeBudget, Latency, Map, Readers, Targets};
use deadwax_track::Partition;
use tokio::time::Instant;

pub use command::{CommandDone, CommandError};
pub use config::ClientConfig;
pub use copies::Copies;
pub use deadwax_dht::wire::AT_ONCE_BYTES_MAX;
pub use deadwax_dht_tls::{Identity, KeyError, load_key};
pub use error::{Error, HolderFailure, Holders};
pub use get::GetStream;
pub use join::Joined;
pub use log_status::{Leaving, LogStatus};
pub use put::{Put, PutWriter, Stored};
pub use read::{Presence, TrackInfo};
pub use seen_tracks::{BadSeenTracks, SeenTracks};
pub use shortfall::{Lacking, SHORTFALLS_MAX, Shortfall};
pub use status::{ClusterStatus, NodeReport};
pub use takedown::TakeDown;
pub use takedown_log::{BadCursor, Cursor, Issued, Report};
pub use track_feed::{TrackCursor, TrackFeed, TrackPage};
pub use track_follower::TrackFollower;

use background::Background;
use follower::Follower;
use known::Known;

/// Asks the nodes of a cluster. Cheap to clone; clones share connections.
///
/// Its futures are `Send` and run on any tokio runtime. Connections belong to the runtime in which they were opened:
/// a program with several single-threaded runtimes gives each a client of its own.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Arc<ClientConfig>,
    follower: Arc<Follower>,
    background: Background,
    reading: Mutex<Reading>,
    /// The state machines' clock counts from here.
    began: Instant,
    /// By the map's index: which node signed a takedown last, and which told of some. A hint.
    issuer: AtomicUsize,
    told_by: AtomicUsize,
}

/// What all reads of a client share.
#[derive(Debug, Default)]
struct Reading {
    latency: Latency,
    hedges: HedgeBudget,
}

impl Client {
    /// A client of the cluster that `map` describes: the cluster's first map, or a later one at which no partition moved,
    /// since a map alone does not say who else holds it meanwhile. Connects when there is something to ask.
    #[must_use]
    pub fn new(map: Arc<Map>, config: ClientConfig) -> Self {
        let config = Arc::new(config);
        let follower = Arc::new(Follower::new(Known::of_map(map, &config), Arc::clone(&config)));
        let (background, reading) = (Background::default(), Mutex::default());
        let (issuer, told_by) = (AtomicUsize::new(usize::MAX), AtomicUsize::new(usize::MAX));
        Self {
            inner: Arc::new(Inner { config, follower, background, reading, began: Instant::now(), issuer, told_by }),
        }
    }

    /// The newest map that it knows.
    #[must_use]
    pub fn map(&self) -> Arc<Map> {
        Arc::clone(self.known().map())
    }

    /// That map's epoch. It never falls.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.known().epoch()
    }

    fn known(&self) -> Arc<Known> {
        self.inner.follower.known()
    }

    /// Waits until all work that goes on after its request was answered has ended: the copies that a put makes beyond
    /// its quorum. Ends by itself after [`ClientConfig::durable_ms`] or so, if no new puts come.
    pub async fn drained(&self) {
        self.inner.background.drained().await;
    }

    /// Milliseconds on the state machines' clock.
    fn now(&self) -> u64 {
        u64::try_from(self.inner.began.elapsed().as_millis()).expect("a process runs less than 500 million years")
    }

    /// The instant of a time on that clock.
    fn at(&self, ms: u64) -> Instant {
        self.inner.began + Duration::from_millis(ms)
    }

    /// The partition's holders, and whom of them a read asks in which order: those of the client's zone first, then the
    /// fast, those that were out of reach a moment ago last.
    fn readers(&self, known: &Known, partition: Partition) -> (Targets, Readers) {
        let (map, targets) = (known.map(), known.targets(partition));
        let is_down = |node| known.pool(node).is_suspect();
        let now = self.now();
        let order = self.reading(|reading| reading.latency.order(now, &targets, map.nodes(), known.zone(), is_down));
        let readers = Readers::new(&targets, map.policy(), order);
        (targets, readers)
    }

    fn reading<T>(&self, with: impl FnOnce(&mut Reading) -> T) -> T {
        // No code panics while it holds the lock; if one did, hints would be lost.
        with(&mut self.inner.reading.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
