//! Messages to other nodes: one connection each, opened when there is something to say.
//!
//! What is sent may be lost, as the core expects: where a node takes its messages slowly, the newest are dropped.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use deadwax_dht::NodeId;
use deadwax_dht::core::{Envelope, Message};
use deadwax_dht::wire;
use glommio::timer::sleep;

use super::peer::{Peer, PeerError};
use crate::buffers::Buffers;
use crate::shard::Node;

/// The most nodes that have a connection: a node speaks to those of its cell, to co-holders and to voters.
const LINKS_MAX: usize = 2_048;
/// The most messages that wait for one connection.
const PARCELS_MAX: usize = 256;
/// How long a connection is kept that nobody uses; the other end keeps it longer.
const IDLE: Duration = Duration::from_secs(60);

/// All of them, by address.
pub(super) struct Links {
    node: Arc<Node>,
    buffers: Rc<Buffers>,
    open: HashMap<Arc<str>, flume::Sender<Parcel>>,
}

/// A message, and whom it is for, where that is known.
struct Parcel {
    to: Option<NodeId>,
    envelope: Box<Envelope>,
}

impl Links {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node, buffers: Rc::default(), open: HashMap::new() }
    }

    /// Sends a message on its way.
    pub(super) fn send(&mut self, to: Option<NodeId>, address: &Arc<str>, envelope: Box<Envelope>) {
        let mut parcel = Parcel { to, envelope };
        if let Some(link) = self.open.get(address) {
            match link.try_send(parcel) {
                Ok(()) => return,
                Err(flume::TrySendError::Full(_)) => {
                    return tracing::debug!(address = &**address, "a message is dropped: {PARCELS_MAX} wait");
                }
                // It was idle for long.
                Err(flume::TrySendError::Disconnected(again)) => parcel = again,
            }
        } else if self.open.len() >= LINKS_MAX {
            return tracing::debug!(address = &**address, "a message is dropped: {LINKS_MAX} connections are open");
        }
        let (link, parcels) = flume::bounded(PARCELS_MAX);
        drop(link.try_send(parcel));
        self.open.insert(Arc::clone(address), link);
        let (node, buffers, address) = (Arc::clone(&self.node), Rc::clone(&self.buffers), Arc::clone(address));
        glommio::spawn_local(async move { carry(&node, &buffers, &address, &parcels).await }).detach();
    }

    /// Forgets those that ended.
    pub(super) fn tidy(&mut self) {
        self.open.retain(|_, link| !link.is_disconnected());
    }
}

/// Carries messages to one address until none came for a while.
async fn carry(node: &Node, buffers: &Rc<Buffers>, address: &str, parcels: &flume::Receiver<Parcel>) {
    let mut peer: Option<Peer> = None;
    while let Some(parcel) = next(parcels).await {
        node.counters.messages.add(1);
        if peer.as_ref().is_some_and(|peer| peer.socket.is_closed()) {
            peer = None;
        }
        if let Err(why) = deliver(node, buffers, address, &mut peer, &parcel).await {
            peer = None;
            tracing::debug!(address, %why, "a message to a node is lost");
            lost(node, &parcel);
            // Those that wait would be lost, too, each after as long again.
            parcels.drain().for_each(|parcel| lost(node, &parcel));
        }
    }
}

async fn next(parcels: &flume::Receiver<Parcel>) -> Option<Parcel> {
    let idle = async {
        sleep(IDLE).await;
        None
    };
    futures_lite::future::or(async { parcels.recv_async().await.ok() }, idle).await
}

async fn deliver(
    node: &Node,
    buffers: &Rc<Buffers>,
    address: &str,
    peer: &mut Option<Peer>,
    parcel: &Parcel,
) -> Result<(), PeerError> {
    let peer = match peer {
        Some(peer) => peer,
        None => peer.insert(Peer::connect(node, Rc::clone(buffers), address, parcel.to).await?),
    };
    if let Some(meant) = parcel.to.filter(|meant| *meant != peer.node) {
        return Err(PeerError::Lost(format!("node {} is there, not {meant}", peer.node)));
    }
    for (more, bytes) in wire::parts(parcel.envelope.encode().into()) {
        peer.send(node, &wire::Message::Peer { more, bytes }).await?;
    }
    Ok(())
}

/// The core is told of a node that cannot be reached. A lost probe says nothing by itself: that is what probes are for.
fn lost(node: &Node, parcel: &Parcel) {
    node.counters.messages_lost.add(1);
    if let Some(to) = parcel.to.filter(|_| !matches!(parcel.envelope.message, Message::Swim(_))) {
        node.unreachable(to);
    }
}
