//! Connections to every node, kept for the next request.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadwax_dht::wire::Message;
use deadwax_dht::{Failure, FailureKind, Map};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::ClientConfig;
use crate::connection::Connection;

/// Every node's connections.
#[derive(Debug)]
pub(crate) struct Pool {
    map: Arc<Map>,
    config: ClientConfig,
    nodes: Vec<NodePool>,
}

#[derive(Debug)]
struct NodePool {
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
}

/// How long a node that was out of reach and was not heard of since keeps puts waiting briefly only, in times of
/// [`ClientConfig::suspect_ms`].
const DOUBT_SUSPECTS: u32 = 30;

/// A connection in use. Dropping it closes the connection; [`give_back`](Self::give_back) keeps it.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) connection: Connection,
    pool: Arc<Pool>,
    node: usize,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(map: Arc<Map>, config: ClientConfig) -> Self {
        let node = |_| NodePool {
            state: Mutex::default(),
            permits: Arc::new(Semaphore::new(config.connections_max.clamp(1, Semaphore::MAX_PERMITS))),
        };
        let nodes = map.nodes().iter().map(node).collect();
        Self { map, config, nodes }
    }

    fn state<T>(&self, node: usize, with: impl FnOnce(&mut NodeState) -> T) -> T {
        // No code panics while it holds the lock; if one did, the state would still be whole.
        with(&mut self.nodes[node].state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the node was out of reach a moment ago.
    pub(crate) fn is_suspect(&self, node: usize) -> bool {
        self.state(node, |state| state.suspect_until.is_some_and(|until| Instant::now() < until))
    }

    /// Whether the node was out of reach when it was last heard of: one that was down for long is mostly still so.
    pub(crate) fn is_doubted(&self, node: usize) -> bool {
        self.state(node, |state| state.doubted_until.is_some_and(|until| Instant::now() < until))
    }

    fn suspect(&self, node: usize) {
        let (now, time) = (Instant::now(), Duration::from_millis(self.config.suspect_ms));
        self.state(node, |state| {
            state.suspect_until = Some(now + time);
            state.doubted_until = Some(now + time * DOUBT_SUSPECTS);
        });
    }

    fn heard_of(&self, node: usize) {
        self.state(node, |state| (state.suspect_until, state.doubted_until) = (None, None));
    }

    /// Sends `request` to the node and waits for the first reply, for [`ClientConfig::first_ms`] at most. A kept
    /// connection that turns out dead before any reply is replaced once: all requests may be repeated.
    ///
    /// Where all connections that there may be are in use, it waits for one as long again, and then is Busy: that is
    /// our own limit, and says nothing of the node.
    pub(crate) async fn ask(self: &Arc<Self>, node: usize, request: &Message) -> Result<(Lease, Message), Failure> {
        let first_ms = self.config.first_ms;
        let permit = Arc::clone(&self.nodes[node].permits).acquire_owned();
        let Ok(permit) = timeout(Duration::from_millis(first_ms), permit).await else {
            let most = self.config.connections_max;
            let why = format!("all {most} connections to it were in use for {first_ms} ms");
            return Err(Failure::new(FailureKind::Busy, why));
        };
        let permit = permit.expect("never closed");
        let asking = timeout(Duration::from_millis(first_ms), self.ask_at_leisure(node, request, permit));
        asking.await.unwrap_or_else(|_| {
            self.suspect(node);
            Err(Failure::new(FailureKind::Stalled, format!("did not answer for {first_ms} ms")))
        })
    }

    async fn ask_at_leisure(
        self: &Arc<Self>,
        node: usize,
        request: &Message,
        permit: OwnedSemaphorePermit,
    ) -> Result<(Lease, Message), Failure> {
        let lease = |connection| Lease { connection, pool: Arc::clone(self), node, _permit: permit };
        if let Some(mut connection) = self.idle(node) {
            match connection.ask(request).await {
                Ok(reply) => {
                    self.heard_of(node);
                    return Ok((lease(connection), reply));
                }
                // Most likely the node restarted, and the other kept connections are dead as well.
                Err(Failure { kind: FailureKind::Unreachable, .. }) => self.state(node, |state| state.idle.clear()),
                Err(failure) => return Err(failure),
            }
        }
        let mut connection =
            Connection::open(&self.map, node, self.config.connect_ms).await.inspect_err(|failure| {
                if matches!(failure.kind, FailureKind::Unreachable | FailureKind::Stalled) {
                    self.suspect(node);
                }
            })?;
        self.heard_of(node);
        let reply = connection.ask(request).await?;
        Ok((lease(connection), reply))
    }

    /// The idle connection that was used last, if any is young enough.
    fn idle(&self, node: usize) -> Option<Connection> {
        let oldest = Instant::now().checked_sub(Duration::from_millis(self.config.idle_ms));
        self.state(node, |state| {
            state.idle.retain(|(_, since)| oldest.is_none_or(|oldest| *since >= oldest));
            state.idle.pop().map(|(connection, _)| connection)
        })
    }
}

impl Lease {
    /// Keeps the connection for another request. The present one's last reply must have come.
    pub(crate) fn give_back(self) {
        let Self { connection, pool, node, .. } = self;
        pool.state(node, |state| {
            if state.idle.len() < pool.config.idle_max {
                state.idle.push((connection, Instant::now()));
            }
        });
    }
}
