//! Connections to a node, kept for the next request.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadwax_dht::wire::{Message, Summed};
use deadwax_dht::{ClusterId, Failure, FailureKind, Node, NodeId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::ClientConfig;
use crate::connection::Connection;

/// One node's connections. They outlive the map that they were opened by.
#[derive(Debug)]
pub(crate) struct NodePool {
    cluster: ClusterId,
    node: NodeId,
    address: String,
    config: Arc<ClientConfig>,
    state: Mutex<NodeState>,
    permits: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct NodeState {
    /// The one used last is used next, so that the others grow old and are dropped.
    idle: Vec<(Connection, Instant)>,
    suspect_until: Option<Instant>,
    /// It was out of reach when last heard of, and that was not long ago.
    doubted_until: Option<Instant>,
    /// The newest epoch that its frames told of.
    epoch: u64,
}

/// How long a node that was out of reach and was not heard of since keeps puts waiting briefly only, in times of
/// [`ClientConfig::suspect_ms`].
const DOUBT_SUSPECTS: u32 = 30;

/// A connection in use. Dropping it closes the connection; [`give_back`](Self::give_back) keeps it.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) connection: Connection,
    pool: Arc<NodePool>,
    _permit: OwnedSemaphorePermit,
}

impl NodePool {
    pub(crate) fn new(cluster: ClusterId, node: &Node, config: &Arc<ClientConfig>) -> Self {
        let permits = Arc::new(Semaphore::new(config.connections_max.clamp(1, Semaphore::MAX_PERMITS)));
        Self {
            cluster,
            node: node.id,
            address: node.address.clone(),
            config: Arc::clone(config),
            state: Mutex::default(),
            permits,
        }
    }

    /// The pool of the same node at another address. What was found out at the old one does not count there; the bound on
    /// connections is for both together.
    pub(crate) fn moved_to(&self, address: &str) -> Self {
        Self {
            cluster: self.cluster,
            node: self.node,
            address: address.to_owned(),
            config: Arc::clone(&self.config),
            state: Mutex::default(),
            permits: Arc::clone(&self.permits),
        }
    }

    pub(crate) const fn node(&self) -> &NodeId {
        &self.node
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    fn state<T>(&self, with: impl FnOnce(&mut NodeState) -> T) -> T {
        // No code panics while it holds the lock; if one did, the state would still be whole.
        with(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the node was out of reach a moment ago.
    pub(crate) fn is_suspect(&self) -> bool {
        self.state(|state| state.suspect_until.is_some_and(|until| Instant::now() < until))
    }

    /// Whether the node was out of reach when it was last heard of: one that was down for long is mostly still so.
    pub(crate) fn is_doubted(&self) -> bool {
        self.state(|state| state.doubted_until.is_some_and(|until| Instant::now() < until))
    }

    /// The newest epoch that the node told of; 0: it was not heard of.
    pub(crate) fn epoch(&self) -> u64 {
        self.state(|state| state.epoch)
    }

    fn suspect(&self) {
        let (now, time) = (Instant::now(), Duration::from_millis(self.config.suspect_ms));
        self.state(|state| {
            state.suspect_until = Some(now + time);
            state.doubted_until = Some(now + time * DOUBT_SUSPECTS);
        });
    }

    fn heard_of(&self, connection: &Connection) {
        self.state(|state| {
            (state.suspect_until, state.doubted_until) = (None, None);
            state.epoch = state.epoch.max(connection.receiver.epoch);
        });
    }

    /// Sends `request` by the map of `epoch` to the node and waits for the first reply, for [`ClientConfig::first_ms`]
    /// at most. A kept connection that turns out dead before any reply is replaced once: all requests may be repeated.
    ///
    /// Where all connections that there may be are in use, it waits for one as long again, and then is Busy: that is
    /// our own limit, and says nothing of the node.
    pub(crate) async fn ask(self: &Arc<Self>, epoch: u64, request: &Message) -> Result<(Lease, Message), Failure> {
        self.ask_patiently(epoch, request, 0).await
    }

    /// As [`ask`](Self::ask), to put a track whose bytes go with the request: see [`Connection::ask`].
    pub(crate) async fn ask_with(
        self: &Arc<Self>,
        epoch: u64,
        request: &Message,
        data: &Summed,
    ) -> Result<(Lease, Message), Failure> {
        self.ask_within(epoch, (request, Some(data)), self.config.first_ms).await
    }

    /// As [`ask`](Self::ask), of a node that may take so many milliseconds longer, as it waits for others itself.
    pub(crate) async fn ask_patiently(
        self: &Arc<Self>,
        epoch: u64,
        request: &Message,
        longer_ms: u64,
    ) -> Result<(Lease, Message), Failure> {
        self.ask_within(epoch, (request, None), self.config.first_ms + longer_ms).await
    }

    async fn ask_within(
        self: &Arc<Self>,
        epoch: u64,
        what: (&Message, Option<&Summed>),
        first_ms: u64,
    ) -> Result<(Lease, Message), Failure> {
        let permit = Arc::clone(&self.permits).acquire_owned();
        let Ok(permit) = timeout(Duration::from_millis(first_ms), permit).await else {
            let most = self.config.connections_max;
            let why = format!("all {most} connections to it were in use for {first_ms} ms");
            return Err(Failure::new(FailureKind::Busy, why));
        };
        let permit = permit.expect("never closed");
        let asking = timeout(Duration::from_millis(first_ms), self.ask_at_leisure(epoch, what, permit));
        asking.await.unwrap_or_else(|_| {
            self.suspect();
            Err(Failure::new(FailureKind::Stalled, format!("did not answer for {first_ms} ms")))
        })
    }

    async fn ask_at_leisure(
        self: &Arc<Self>,
        epoch: u64,
        (request, data): (&Message, Option<&Summed>),
        permit: OwnedSemaphorePermit,
    ) -> Result<(Lease, Message), Failure> {
        let lease = |connection| Lease { connection, pool: Arc::clone(self), _permit: permit };
        if let Some(mut connection) = self.idle() {
            match connection.ask(epoch, request, data).await {
                Ok(reply) => {
                    self.heard_of(&connection);
                    return Ok((lease(connection), reply));
                }
                // Most likely the node restarted, and the other kept connections are dead as well.
                Err(Failure { kind: FailureKind::Unreachable, .. }) => self.state(|state| state.idle.clear()),
                Err(failure) => return Err(failure),
            }
        }
        let opening = Connection::open(&self.cluster, epoch, (&self.node, &self.address), &self.config);
        let mut connection = opening.await.inspect_err(|failure| {
            if matches!(failure.kind, FailureKind::Unreachable | FailureKind::Stalled) {
                self.suspect();
            }
        })?;
        self.heard_of(&connection);
        let reply = connection.ask(epoch, request, data).await?;
        self.heard_of(&connection);
        Ok((lease(connection), reply))
    }

    /// A fresh connection, for a request that must not be sent twice unasked: where this fails, nothing was.
    pub(crate) async fn open(&self, epoch: u64) -> Result<Connection, Failure> {
        let address = (&self.node, self.address.as_str());
        let opening = Connection::open(&self.cluster, epoch, address, &self.config).await;
        let connection = opening.inspect_err(|_| self.suspect())?;
        self.heard_of(&connection);
        Ok(connection)
    }

    /// The idle connection that was used last, if any is young enough.
    fn idle(&self) -> Option<Connection> {
        let oldest = Instant::now().checked_sub(Duration::from_millis(self.config.idle_ms));
        self.state(|state| {
            state.idle.retain(|(_, since)| oldest.is_none_or(|oldest| *since >= oldest));
            state.idle.pop().map(|(connection, _)| connection)
        })
    }
}

impl Lease {
    /// Keeps the connection for another request. The present one's last reply must have come.
    pub(crate) fn give_back(self) {
        let Self { connection, pool, .. } = self;
        connection.rest();
        pool.state(|state| {
            if state.idle.len() < pool.config.idle_max {
                state.idle.push((connection, Instant::now()));
            }
        });
    }
}
