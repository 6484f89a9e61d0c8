//! Fetches bytes of a track from its holders and proves each piece by the manifest before anyone sees it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use deadwax_cache::{CHUNK_BYTES, FillPermit};
use deadwax_dht::NodeId;
use deadwax_dht_client::Client;
use deadwax_track::{ByteRange, PIECE_BYTES, TrackId};
use tokio::sync::mpsc;

use crate::known::Track;
use crate::worker::Worker;

/// How often a stretch is asked for again after bytes that were not the track's. Holders check what they read, so
/// this is rare, and more than once or twice means that something else is wrong.
const REFETCHES_MAX: usize = 2;
/// Pieces that may wait for a reader who goes around the cache.
const DIRECT_QUEUE_MAX: usize = 2;

/// Why a fetch ended early.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("the track was removed from the cache")]
    Removed,
    #[error("piece {piece} from node {node} is not the track's")]
    Unproved { piece: usize, node: NodeId },
    #[error("the holders sent fewer or more bytes than asked for")]
    Length,
    #[error(transparent)]
    Holders(#[from] deadwax_dht_client::Error),
}

/// Fills consecutive chunks of a track, in a task of their own. Every permit is ended: done, or failed.
pub(crate) fn fill(worker: &Arc<Worker>, track: &Arc<Track>, run: Vec<FillPermit>) {
    let (worker, track) = (Arc::clone(worker), Arc::clone(track));
    tokio::spawn(async move {
        let mut run = VecDeque::from(run);
        let mut liars = Vec::new();
        while let Err(stop) = fill_once(&worker.client, &track, &mut run, &liars).await {
            if refused(&worker, &track.id, &stop, &mut liars) {
                run.iter_mut().for_each(FillPermit::rewind);
                continue;
            }
            run.drain(..).for_each(FillPermit::fail);
            break;
        }
    });
}

/// Counts and logs; whether the same bytes may be asked for once more, of other holders than `liars` if there are any.
fn refused(worker: &Worker, id: &TrackId, stop: &Stop, liars: &mut Vec<NodeId>) -> bool {
    if !matches!(stop, Stop::Removed) {
        worker.shared.metrics.fetch_failures.inc();
        tracing::warn!(track = %id, error = %stop, "fetch failed");
    }
    let Stop::Unproved { node, .. } = stop else { return false };
    worker.shared.metrics.pieces_refused.inc();
    liars.push(*node);
    liars.len() <= REFETCHES_MAX
}

async fn fill_once(
    client: &Client,
    track: &Track,
    run: &mut VecDeque<FillPermit>,
    avoid: &[NodeId],
) -> Result<(), Stop> {
    let (Some(first), Some(last)) = (run.front(), run.back()) else { return Ok(()) };
    let start = chunk_start(first) + first.written() as u64;
    let end = chunk_start(last) + last.len() as u64;
    let range = ByteRange::new(start, end).ok_or(Stop::Length)?;
    let mut stream = client.get_avoiding(track.id, range, avoid).await?;
    while let Some(bytes) = stream.next().await {
        let mut bytes = bytes?;
        while !bytes.is_empty() {
            let permit = run.front_mut().ok_or(Stop::Length)?;
            let at = chunk_start(permit) + permit.written() as u64;
            let piece_end = (at / PIECE_BYTES + 1) * PIECE_BYTES;
            let piece_end = piece_end.min(chunk_start(permit) + permit.len() as u64);
            let room = usize::try_from(piece_end - at).expect("at most a piece");
            let now = bytes.split_to(room.min(bytes.len()));
            permit.write(&now);
            if now.len() < room {
                continue;
            }
            let piece = usize::try_from(at / PIECE_BYTES).expect("at most 2,048 pieces");
            if !track.manifest.proves(piece, permit.unpublished()) {
                return Err(Stop::Unproved { piece, node: stream.node() });
            }
            permit.publish().map_err(|_| Stop::Removed)?;
            if permit.written() == permit.len() {
                run.pop_front();
            }
        }
    }
    if run.is_empty() { Ok(()) } else { Err(Stop::Length) }
}

fn chunk_start(permit: &FillPermit) -> u64 {
    u64::from(permit.key().index) * CHUNK_BYTES as u64
}

/// The bytes of `range`, around the cache, in order, piece by piece. The channel ends early where they cannot be had.
pub(crate) fn direct(worker: &Arc<Worker>, track: &Arc<Track>, range: ByteRange) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(DIRECT_QUEUE_MAX);
    let (worker, track) = (Arc::clone(worker), Arc::clone(track));
    tokio::spawn(async move {
        let mut at = range.start();
        let mut liars = Vec::new();
        while let Err(stop) = direct_once(&worker.client, &track, &mut at, range.end(), &sender, &liars).await {
            if !refused(&worker, &track.id, &stop, &mut liars) {
                break;
            }
        }
    });
    receiver
}

async fn direct_once(
    client: &Client,
    track: &Track,
    at: &mut u64,
    end: u64,
    sender: &mpsc::Sender<Bytes>,
    avoid: &[NodeId],
) -> Result<(), Stop> {
    let mut piece_start = *at / PIECE_BYTES * PIECE_BYTES;
    let fetch_end = (end.div_ceil(PIECE_BYTES) * PIECE_BYTES).min(track.bytes());
    let Some(range) = ByteRange::new(piece_start, fetch_end) else { return Ok(()) };
    let mut stream = client.get_avoiding(track.id, range, avoid).await?;
    let mut piece = BytesMut::new();
    while let Some(bytes) = stream.next().await {
        let mut bytes = bytes?;
        while !bytes.is_empty() {
            let piece_bytes = usize::try_from((fetch_end - piece_start).min(PIECE_BYTES)).expect("at most a piece");
            if piece_bytes == 0 {
                return Err(Stop::Length);
            }
            piece.reserve(piece_bytes - piece.len());
            piece.extend_from_slice(&bytes.split_to((piece_bytes - piece.len()).min(bytes.len())));
            if piece.len() < piece_bytes {
                continue;
            }
            let index = usize::try_from(piece_start / PIECE_BYTES).expect("at most 2,048 pieces");
            let proved = piece.split().freeze();
            if !track.manifest.proves(index, &proved) {
                return Err(Stop::Unproved { piece: index, node: stream.node() });
            }
            let piece_end = piece_start + piece_bytes as u64;
            let within = |byte: u64| usize::try_from(byte - piece_start).expect("within a piece");
            let wanted = proved.slice(within(*at)..within(end.min(piece_end)));
            (*at, piece_start) = (piece_end, piece_end);
            if sender.send(wanted).await.is_err() {
                // The reader left.
                return Ok(());
            }
        }
    }
    if piece_start == fetch_end { Ok(()) } else { Err(Stop::Length) }
}
