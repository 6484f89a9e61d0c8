//! Reads a track: through the cache where it can, around it where every slot is taken.
//!
//! A chunk that is missing is fetched by a task of its own, together with those that follow in the range, and read as
//! it fills; once a reader has met a missing chunk it keeps a few chunks fetched ahead of it. Whoever else reads the
//! same chunk reads the same fetch.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use deadwax_cache::{CHUNK_BYTES, Chunk, FillPermit, Stretch, Waiter};
use deadwax_track::{ByteRange, PIECE_BYTES};
use tokio::sync::mpsc;

use crate::body::CutOff;
use crate::fetch;
use crate::known::Track;
use crate::worker::Worker;

/// The most chunks in one request to a holder: 4 MiB, a typical track.
const RUN_CHUNKS_MAX: u32 = 8;
/// How far ahead of a cold reader chunks are fetched: far enough that one fetch ends while the reader is at work.
const AHEAD_CHUNKS: u32 = 4;

/// A stretch of an answer.
pub(crate) enum Part {
    /// Text between ranges.
    Text(Bytes),
    /// Bytes of the track.
    Range(ByteRange),
}

/// The bytes of an answer that come from a track.
pub(crate) struct TrackBody {
    worker: Arc<Worker>,
    track: Arc<Track>,
    parts: VecDeque<Part>,
    /// Where the reader is within the current range, and where that ends.
    at: u64,
    end: u64,
    source: Source,
    /// Taken out of the source before the answer began.
    first: Option<Bytes>,
    bytes_left: u64,
    /// Set once a chunk was missing.
    cold: bool,
    /// Chunks of the current range below this index were looked after.
    ahead: u32,
    /// The chunk whose fetch failed under this reader: it is tried once more, by this reader itself.
    retried: Option<u32>,
}

enum Source {
    /// The next byte's chunk is to be looked up.
    Lookup,
    /// A chunk that is being filled, and the track's byte at which it starts.
    Filling { waiter: Waiter, start: u64 },
    /// Bytes that go around the cache, up to this byte of the track.
    Direct { receiver: mpsc::Receiver<Bytes>, end: u64 },
}

impl TrackBody {
    pub(crate) fn new(worker: Arc<Worker>, track: Arc<Track>, parts: impl IntoIterator<Item = Part>) -> Self {
        let parts: VecDeque<Part> = parts.into_iter().collect();
        let bytes = |part: &Part| match part {
            Part::Text(text) => text.len() as u64,
            Part::Range(range) => range.len(),
        };
        let bytes_left = parts.iter().map(bytes).sum();
        Self {
            worker,
            track,
            parts,
            at: 0,
            end: 0,
            source: Source::Lookup,
            first: None,
            bytes_left,
            cold: false,
            ahead: 0,
            retried: None,
        }
    }

    pub(crate) fn bytes_left(&self) -> u64 {
        self.bytes_left
    }

    /// Waits for the first bytes, so that an answer begins only when it can: a failure here is still a status.
    pub(crate) async fn prime(&mut self) -> Result<(), CutOff> {
        let first = poll_fn(|context| self.poll_source(context)).await;
        self.first = first.transpose()?;
        Ok(())
    }

    /// The next bytes, at most a chunk.
    pub(crate) fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, CutOff>>> {
        let next = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => ready!(self.poll_source(context)),
        };
        if let Some(Ok(bytes)) = &next {
            self.bytes_left -= bytes.len() as u64;
            self.worker.shared.metrics.sent_bytes.inc_by(bytes.len() as u64);
        }
        Poll::Ready(next)
    }

    fn poll_source(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, CutOff>>> {
        loop {
            if self.at == self.end {
                match self.parts.pop_front() {
                    None => return Poll::Ready(None),
                    Some(Part::Text(text)) => return Poll::Ready(Some(Ok(text))),
                    Some(Part::Range(range)) => {
                        (self.at, self.end) = (range.start(), range.end());
                        (self.ahead, self.source) = (0, Source::Lookup);
                    }
                }
            }
            match &mut self.source {
                Source::Lookup => {
                    if let Some(bytes) = self.look_up() {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
                Source::Filling { waiter, start } => {
                    let (start, chunk_bytes) = (*start, waiter.len() as u64);
                    let from = usize::try_from(self.at - start).expect("within a chunk");
                    match ready!(waiter.poll_read(context, from)) {
                        Stretch::Bytes(bytes) => {
                            let bytes = self.take(bytes);
                            if self.at == start + chunk_bytes {
                                self.source = Source::Lookup;
                            }
                            return Poll::Ready(Some(Ok(bytes)));
                        }
                        Stretch::Promoted(permit) => self.fill(permit),
                        Stretch::Failed if self.may_retry() => self.source = Source::Lookup,
                        Stretch::Failed => return Poll::Ready(Some(Err(CutOff(self.track.id)))),
                    }
                }
                Source::Direct { receiver, end } => {
                    if self.at == *end {
                        self.source = Source::Lookup;
                        continue;
                    }
                    return Poll::Ready(Some(match ready!(receiver.poll_recv(context)) {
                        Some(bytes) => Ok(self.take(bytes)),
                        None => Err(CutOff(self.track.id)),
                    }));
                }
            }
        }
    }

    /// Cuts `bytes`, which start at the reader's place, to the range, and moves the reader behind them.
    fn take(&mut self, mut bytes: Bytes) -> Bytes {
        let wanted = self.end - self.at;
        if bytes.len() as u64 > wanted {
            bytes.truncate(usize::try_from(wanted).expect("less than there is"));
        }
        self.at += bytes.len() as u64;
        bytes
    }

    /// Asks the cache for the chunk that the reader is at: its bytes, or a source that will give them.
    fn look_up(&mut self) -> Option<Bytes> {
        self.worker.keep_fresh(&self.track);
        let (key, bytes) = self.track.chunk(self.at);
        let start = u64::from(key.index) * CHUNK_BYTES as u64;
        match self.worker.shared.cache.chunk(key, bytes) {
            Chunk::Hit(chunk) => {
                let from = usize::try_from(self.at - start).expect("within a chunk");
                let to = usize::try_from((self.end - start).min(bytes as u64)).expect("within a chunk");
                self.at = start + to as u64;
                if self.cold {
                    self.look_ahead(key.index);
                }
                return Some(chunk.bytes(from..to));
            }
            Chunk::Fill(permit) => {
                self.source = Source::Filling { waiter: permit.waiter(), start };
                self.fill(permit);
            }
            Chunk::Wait(waiter) => {
                self.source = Source::Filling { waiter, start };
                self.look_ahead(key.index);
            }
            Chunk::Bypass => {
                // No more than the queue holds: a slow listener must not hold a master's transfer open.
                let chunk_end = start + bytes as u64;
                let range = ByteRange::new(self.at, self.end.min(chunk_end)).expect("the reader is within its range");
                let receiver = fetch::direct(&self.worker, &self.track, range);
                self.source = Source::Direct { receiver, end: range.end() };
            }
        }
        self.cold = true;
        None
    }

    /// Whether the chunk at the reader's place may be asked for once more.
    fn may_retry(&mut self) -> bool {
        let (key, _) = self.track.chunk(self.at);
        self.retried.replace(key.index) != Some(key.index)
    }

    /// Has the chunk of `permit` and missing ones behind it fetched.
    fn fill(&mut self, permit: FillPermit) {
        let index = permit.key().index;
        let run = self.claim(index + 1, vec![permit]);
        self.ahead = self.ahead.max(run.last().map_or(0, |last| last.key().index + 1));
        fetch::fill(&self.worker, &self.track, run);
    }

    /// Has missing chunks behind `index` fetched.
    fn look_ahead(&mut self, index: u32) {
        let target = self.last_chunk().min(index.saturating_add(AHEAD_CHUNKS));
        self.ahead = self.ahead.max(index + 1);
        while self.ahead <= target {
            let run = self.claim(self.ahead, Vec::new());
            // A chunk that could not be claimed is here, or on its way, or has no slot.
            self.ahead = run.last().map_or(self.ahead, |last| last.key().index) + 1;
            if !run.is_empty() {
                fetch::fill(&self.worker, &self.track, run);
            }
        }
    }

    /// Adds to `run` the permits for chunks from `index` on, as long as they are missing and the range goes on.
    fn claim(&self, index: u32, mut run: Vec<FillPermit>) -> Vec<FillPermit> {
        let mut next = index;
        while next <= self.last_chunk() && run.len() < RUN_CHUNKS_MAX as usize {
            let (key, bytes) = self.track.chunk(u64::from(next) * CHUNK_BYTES as u64);
            let Some(permit) = self.worker.shared.cache.fill_ahead(key, bytes) else { break };
            // Half-filled chunks start in their middle: they end a run, and begin the next.
            if permit.written() > 0 && !run.is_empty() {
                break;
            }
            run.push(permit);
            next += 1;
        }
        run
    }

    /// The last chunk of the current range.
    fn last_chunk(&self) -> u32 {
        self.track.chunk(self.end - 1).0.index
    }
}

// A run is read in whole pieces, which is what makes a filler's resume point provable.
const _: () = assert!((CHUNK_BYTES as u64).is_multiple_of(PIECE_BYTES));
