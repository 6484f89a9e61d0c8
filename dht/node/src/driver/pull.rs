//! Fetching a track from another node: it is read there, proved, and made durable on a volume of this node.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use deadwax_dht::core::Input;
use deadwax_dht::repair::{Pull, PullError};
use deadwax_dht::wire::{ErrorCode, Kind, Message};
use deadwax_engine::Priority;
use deadwax_track::ByteRange;
use glommio::timer::sleep;

use super::peer::{Peer, PeerError, heard, unexpected};
use crate::refusal::Refusal;
use crate::shard::{Node, Shard};
use crate::volumes::{Admitted, Writer};

/// How often it is looked whether a pull comes on, and how many bytes are to have come each time: whoever sends fewer holds a
/// place that others could have.
const LOOK: Duration = Duration::from_secs(120);
const LOOK_BYTES_MIN: u64 = 8 << 20;
/// When a source that is busy is asked again, or the own shard, in ms.
const BUSY_MS: u64 = 2_000;

/// How many of the track's bytes moved, and how it ended.
type Ended = (u64, Result<(), PullError>);

/// Carries out a pull, from the core's executor, and tells the core.
pub(super) async fn begin(node: &Arc<Node>, pull: Pull, address: Arc<str>) {
    let (bytes, result) = match node.volume(&pull.volume) {
        Ok(volume) => {
            let there = move |shard: Rc<Shard>| async move { Ok(on_shard(shard, volume, pull, address).await) };
            // A shard that ends takes the volume with it.
            node.on(node.owner(volume, &pull.track), there).await.unwrap_or((0, Err(PullError::DriveFailed)))
        }
        Err(_) => (0, Err(PullError::DriveFailed)),
    };
    let counters = &node.counters;
    counters.pull_bytes.add(bytes);
    if result.is_ok() { &counters.pulls } else { &counters.pulls_failed }.add(1);
    if let Err(why) = &result {
        tracing::debug!(track = %pull.track, from = pull.node.short(), %why, "a pull failed");
    }
    node.tell(Input::Pulled { number: pull.number, bytes, result });
}

/// The source is not in the map.
pub(super) fn failed(node: &Node, pull: &Pull) {
    node.tell(Input::Pulled { number: pull.number, bytes: 0, result: Err(PullError::Unreachable) });
}

async fn on_shard(shard: Rc<Shard>, volume: usize, pull: Pull, address: Arc<str>) -> Ended {
    let host = shard.host.clone();
    let fetch = async move {
        let moved = Cell::new(0);
        let slow = async {
            let mut before = 0;
            loop {
                sleep(LOOK).await;
                if moved.get() < before + LOOK_BYTES_MIN {
                    break;
                }
                before = moved.get();
            }
            let (from, bytes) = (pull.node.short(), moved.get() - before);
            tracing::warn!(track = %pull.track, from, bytes, seconds = LOOK.as_secs(), "a pull is too slow");
            Err(PullError::Unreachable)
        };
        let result = futures_lite::future::or(fetch(&shard, volume, &pull, &address, &moved), slow).await;
        (moved.get(), result)
    };
    host.run(Priority::Repair, fetch).await
}

async fn fetch(
    shard: &Rc<Shard>,
    volume: usize,
    pull: &Pull,
    address: &str,
    moved: &Cell<u64>,
) -> Result<(), PullError> {
    let node = &shard.node;
    let _working = shard.node.working();
    // The bound on transfers bounds their memory, whoever asks for them.
    let _slot = shard.slot().map_err(|_| PullError::Busy { after_ms: BUSY_MS })?;
    let local = shard.local(volume).map_err(|_| PullError::DriveFailed)?;
    let mut peer = match shard.peers.take(&pull.node) {
        Some(peer) => peer,
        None => {
            Peer::connect(node, Rc::clone(&shard.buffers), address, Some(pull.node)).await.map_err(|why| ended(&why))?
        }
    };
    let info = peer.ask(node, &Message::Info { volume: pull.from, id: pull.track }).await.map_err(|why| ended(&why))?;
    let Message::TrackInfo { bytes, tags, .. } = info else { return Err(ended(&unexpected(&info))) };
    let writer = match local.put(pull.track, bytes, &tags).await.map_err(|why| unstored(&why))? {
        Admitted::Already(_) => {
            shard.peers.give_back(peer);
            return Ok(());
        }
        Admitted::Writer(writer) => writer,
    };
    let range = ByteRange::new(0, bytes).ok_or(PullError::Corrupt)?;
    let request = Message::Pull { volume: pull.from, id: pull.track, range, urgent: pull.urgent };
    match peer.ask(node, &request).await.map_err(|why| ended(&why))? {
        Message::Found { bytes: found } if found == bytes => {}
        // The source told two lengths.
        Message::Found { .. } => return Err(PullError::Corrupt),
        other => return Err(ended(&unexpected(&other))),
    }
    stream(&mut peer, *writer, bytes, moved).await?;
    shard.peers.give_back(peer);
    Ok(())
}

/// Takes the track's bytes in; durable, and proved against the id, on return.
async fn stream(peer: &mut Peer, mut writer: Writer, bytes: u64, moved: &Cell<u64>) -> Result<(), PullError> {
    loop {
        let header = peer.socket.header().await.map_err(|why| ended(&why.into()))?;
        let count = header.payload_bytes();
        if header.kind != Kind::Data {
            let received = peer.socket.receive_after(header).await.map_err(|why| ended(&why.into()))?;
            match heard(received).map_err(|why| ended(&why))? {
                Message::End if moved.get() == bytes => break,
                other => return Err(ended(&unexpected(&other))),
            }
        }
        if count as u64 > bytes - moved.get() {
            return Err(PullError::Corrupt);
        }
        peer.socket.payload(&header).await.map_err(|why| ended(&why.into()))?;
        writer.write(peer.socket.bytes(count)).await.map_err(|why| unstored(&why))?;
        peer.socket.consume(count);
        moved.set(moved.get() + count as u64);
    }
    writer.finish().await.map(drop).map_err(|why| unstored(&why))
}

/// What the source's failure means.
fn ended(why: &PeerError) -> PullError {
    match why.code() {
        Some(ErrorCode::Busy) => PullError::Busy { after_ms: BUSY_MS },
        Some(ErrorCode::Later { after_ms }) => PullError::Busy { after_ms },
        Some(ErrorCode::Corrupt) => PullError::Corrupt,
        Some(ErrorCode::TakenDown { .. }) => PullError::Barred,
        Some(ErrorCode::NotFound | ErrorCode::Moved { .. }) => PullError::Lacks,
        _ => PullError::Unreachable,
    }
}

/// What the own volume's failure means.
fn unstored(why: &Refusal) -> PullError {
    match why.code {
        ErrorCode::NoSpace => PullError::DriveFull,
        ErrorCode::TakenDown { .. } => PullError::Barred,
        ErrorCode::Busy => PullError::Busy { after_ms: BUSY_MS },
        // The bytes are not the id's.
        ErrorCode::Invalid => PullError::Corrupt,
        _ => PullError::DriveFailed,
    }
}

/// Connections that a shard keeps for its next pulls.
#[derive(Default)]
pub(crate) struct Peers(std::cell::RefCell<Vec<Peer>>);

/// The most that are kept.
const PEERS_MAX: usize = 16;

impl Peers {
    fn take(&self, node: &deadwax_dht::NodeId) -> Option<Peer> {
        let mut kept = self.0.borrow_mut();
        kept.retain(|peer| !peer.socket.is_closed());
        let at = kept.iter().position(|peer| peer.node == *node)?;
        Some(kept.swap_remove(at))
    }

    fn give_back(&self, mut peer: Peer) {
        peer.socket.shrink();
        let mut kept = self.0.borrow_mut();
        if kept.len() >= PEERS_MAX {
            kept.remove(0);
        }
        kept.push(peer);
    }
}
