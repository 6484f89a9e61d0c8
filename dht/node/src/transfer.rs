//! Tracks on their way between a connection and the volume, on this shard or across to another.
//!
//! Across, bytes travel in at most [`CROSSING_MAX`] buffers that go round: full ones to where they are needed, empty
//! ones back. Whoever is slower holds them all, and the other side waits: that is the back-pressure. Either side may
//! vanish: the other one then finds its end of the queue closed, and forgets the transfer.

use std::rc::Rc;
use std::{io, mem};

use deadwax_dht::wire::{Message, Stamp};
use deadwax_engine::Priority;
use deadwax_track::{ByteRange, Tags, TrackId, piece_count};

use crate::buffers::{Buffers, LARGE_BYTES};
use crate::refusal::Refusal;
use crate::shard::{Shard, Slot};
use crate::socket::{Chunk, Socket};
use crate::volumes::{Admitted, Reader, Writer};

/// The most buffers of one transfer on their way between shards.
const CROSSING_MAX: usize = 2;

/// A track that is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    pub(crate) bytes: u64,
    pub(crate) pieces: u32,
}

impl Stored {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes, pieces: u32::try_from(piece_count(bytes)).expect("a track has at most 2048 pieces") }
    }
}

/// A put that was let in.
pub(crate) enum Put {
    /// The track is there already.
    Already(Stored),
    /// Its bytes may come.
    Ready(Sink),
}

/// Where a put's bytes go. Dropping it aborts the put.
pub(crate) enum Sink {
    /// A volume of this shard.
    Here(Box<Writer>, Slot),
    /// Another shard's.
    There(SinkThere),
}

/// The connection's end of a put on another shard.
pub(crate) struct SinkThere {
    parts: flume::Sender<Part>,
    emptied: flume::Receiver<Vec<u8>>,
    /// How many more buffers may be taken from the pool.
    untaken: usize,
    buffers: Rc<Buffers>,
    done: flume::Receiver<Result<Stored, Refusal>>,
}

enum Part {
    Bytes(Chunk),
    Finish,
}

/// Asks the owner of `id` to take a track in.
pub(crate) async fn put(shard: &Rc<Shard>, volume: usize, id: TrackId, bytes: u64, tags: Tags) -> Result<Put, Refusal> {
    let owner = shard.node.owner(volume, &id);
    if owner == shard.index {
        let slot = shard.slot()?;
        return Ok(match shard.local(volume)?.put(id, bytes, &tags).await? {
            Admitted::Already(stored) => Put::Already(stored),
            Admitted::Writer(writer) => Put::Ready(Sink::Here(writer, slot)),
        });
    }
    let (opened, answer) = flume::bounded(1);
    let (parts, incoming) = flume::bounded(CROSSING_MAX + 1);
    let (empty, emptied) = flume::bounded(CROSSING_MAX);
    let (finished, done) = flume::bounded(1);
    let there = move |shard: Rc<Shard>| async move {
        let admitted = match shard.slot() {
            Ok(slot) => admit(&shard, volume, id, bytes, &tags).await.map(|admitted| (admitted, slot)),
            Err(busy) => Err(busy),
        };
        let (writer, _slot) = match admitted {
            Ok((Admitted::Writer(writer), slot)) => (writer, slot),
            Ok((Admitted::Already(stored), _)) => return drop(opened.try_send(Ok(Some(stored)))),
            Err(why) => return drop(opened.try_send(Err(why))),
        };
        drop(opened.try_send(Ok(None)));
        if let Some(result) = take_in(*writer, &incoming, &empty).await {
            drop(finished.try_send(result));
        }
    };
    shard.node.send(owner, move |shard| async move {
        let host = shard.host.clone();
        host.run(Priority::Write, there(shard)).await;
    })?;
    Ok(match answer.recv_async().await.unwrap_or_else(|_| Err(Refusal::shard_ended()))? {
        Some(stored) => Put::Already(stored),
        None => {
            let buffers = Rc::clone(&shard.buffers);
            Put::Ready(Sink::There(SinkThere { parts, emptied, untaken: CROSSING_MAX, buffers, done }))
        }
    })
}

async fn admit(shard: &Shard, volume: usize, id: TrackId, bytes: u64, tags: &Tags) -> Result<Admitted, Refusal> {
    shard.local(volume)?.put(id, bytes, tags).await
}

/// The owner's end of a put. Nothing where the connection went away: the writer is then dropped, which aborts.
async fn take_in(
    mut writer: Writer,
    incoming: &flume::Receiver<Part>,
    empty: &flume::Sender<Vec<u8>>,
) -> Option<Result<Stored, Refusal>> {
    loop {
        match incoming.recv_async().await {
            Ok(Part::Bytes(chunk)) => {
                if let Err(why) = writer.write(chunk.bytes()).await {
                    return Some(Err(why));
                }
                // The connection has gone where this fails; the next receive says so.
                drop(empty.try_send(chunk.buffer));
            }
            Ok(Part::Finish) => return Some(writer.finish().await),
            Err(flume::RecvError::Disconnected) => return None,
        }
    }
}

impl Sink {
    /// Hands on the first `count` unread bytes of `socket` and consumes them. Waits while the owner is behind.
    pub(crate) async fn write(&mut self, socket: &mut Socket, count: usize) -> Result<(), Refusal> {
        match self {
            Self::Here(writer, _) => {
                writer.write(socket.bytes(count)).await?;
                socket.consume(count);
                Ok(())
            }
            Self::There(there) => there.write(socket, count).await,
        }
    }

    /// Ends the put: the track is durable on return.
    pub(crate) async fn finish(self) -> Result<Stored, Refusal> {
        match self {
            Self::Here(writer, _slot) => writer.finish().await,
            Self::There(mut there) => {
                if there.parts.send_async(Part::Finish).await.is_err() {
                    return Err(there.failure().await);
                }
                there.done.recv_async().await.unwrap_or_else(|_| Err(Refusal::shard_ended()))
            }
        }
    }
}

impl SinkThere {
    async fn write(&mut self, socket: &mut Socket, count: usize) -> Result<(), Refusal> {
        let next = if let Ok(buffer) = self.emptied.try_recv() {
            buffer
        } else if self.untaken > 0 {
            self.untaken -= 1;
            self.buffers.take(count)
        } else {
            match self.emptied.recv_async().await {
                Ok(buffer) => buffer,
                Err(_) => return Err(self.failure().await),
            }
        };
        match self.parts.send_async(Part::Bytes(socket.take(count, next))).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure().await),
        }
    }

    /// Why the owner stopped taking in.
    async fn failure(&mut self) -> Refusal {
        match self.done.recv_async().await {
            Ok(Err(why)) => why,
            Ok(Ok(_)) | Err(_) => Refusal::shard_ended(),
        }
    }
}

impl Drop for SinkThere {
    fn drop(&mut self) {
        self.emptied.try_iter().for_each(|buffer| self.buffers.give_back(buffer));
    }
}

/// Where a get's bytes come from.
pub(crate) struct Source {
    /// The whole track's length.
    pub(crate) track_bytes: u64,
    from: From,
}

enum From {
    Here(Box<Reader>, Slot),
    There { chunks: flume::Receiver<Result<Chunk, Refusal>>, empty: flume::Sender<Vec<u8>> },
}

/// Why a get broke off.
pub(crate) enum Broken {
    /// The volume failed: the client is told in mid-stream.
    Refused(Refusal),
    /// The socket failed.
    Io(io::Error),
}

/// Asks the owner of `id` for a range.
pub(crate) async fn get(shard: &Rc<Shard>, volume: usize, id: TrackId, range: ByteRange) -> Result<Source, Refusal> {
    let owner = shard.node.owner(volume, &id);
    if owner == shard.index {
        let slot = shard.slot()?;
        let (track_bytes, reader) = shard.local(volume)?.read(id, range).await?;
        return Ok(Source { track_bytes, from: From::Here(Box::new(reader), slot) });
    }
    let (opened, answer) = flume::bounded(1);
    let (full, chunks) = flume::bounded(CROSSING_MAX + 1);
    let (empty, emptied) = flume::bounded(CROSSING_MAX);
    shard.node.send(owner, move |shard| async move {
        let read = match shard.slot() {
            Ok(slot) => read(&shard, volume, id, range).await.map(|(bytes, reader)| (bytes, reader, slot)),
            Err(busy) => Err(busy),
        };
        match read {
            Err(why) => drop(opened.try_send(Err(why))),
            Ok((track_bytes, reader, _slot)) => {
                if opened.try_send(Ok(track_bytes)).is_ok() {
                    give_out(reader, &full, &emptied, &shard.buffers).await;
                }
                drop(full);
                // Buffers come back until the connection has sent the last one; then the transfer is over.
                while let Ok(buffer) = emptied.recv_async().await {
                    shard.buffers.give_back(buffer);
                }
            }
        }
    })?;
    let track_bytes = answer.recv_async().await.unwrap_or_else(|_| Err(Refusal::shard_ended()))?;
    Ok(Source { track_bytes, from: From::There { chunks, empty } })
}

async fn read(shard: &Shard, volume: usize, id: TrackId, range: ByteRange) -> Result<(u64, Reader), Refusal> {
    shard.local(volume)?.read(id, range).await
}

/// The owner's end of a get: ends when all was sent, the volume failed, or the connection went away.
async fn give_out(
    mut reader: Reader,
    full: &flume::Sender<Result<Chunk, Refusal>>,
    emptied: &flume::Receiver<Vec<u8>>,
    buffers: &Buffers,
) {
    let mut untaken = CROSSING_MAX;
    while let Some(block) = reader.next().await {
        let block = match block {
            Ok(block) => block,
            Err(why) => return drop(full.send_async(Err(why)).await),
        };
        let mut buffer = if let Ok(buffer) = emptied.try_recv() {
            buffer
        } else if untaken > 0 {
            untaken -= 1;
            buffers.take(LARGE_BYTES)
        } else {
            let Ok(buffer) = emptied.recv_async().await else { return };
            buffer
        };
        let mut end = 0;
        for part in block.payloads() {
            buffer[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        // The drive's buffer is free again before the wait for the connection.
        drop(block);
        if full.send_async(Ok(Chunk { buffer, range: 0..end })).await.is_err() {
            return;
        }
    }
}

impl Source {
    /// Answers a get of `range`: sends `Found`, all that comes as data frames, and `End`.
    pub(crate) async fn send(self, socket: &mut Socket, stamp: Stamp, range: ByteRange) -> Result<(), Broken> {
        let found = Message::Found { bytes: self.track_bytes }.frame(stamp);
        let end = Message::End.frame(stamp);
        let mut left = range.len();
        // Found goes with the first bytes and End with the last.
        let mut before: &[u8] = &found;
        let mut send = async |socket: &mut Socket, parts: &[&[u8]]| {
            let bytes = parts.iter().map(|part| part.len() as u64).sum::<u64>();
            assert!(bytes <= left, "the volume gave {bytes} bytes where {left} of the range are left");
            left -= bytes;
            let after: &[u8] = if left == 0 { &end } else { &[] };
            socket.send_data(mem::take(&mut before), parts, after, stamp).await.map_err(Broken::Io)
        };
        match self.from {
            From::Here(mut reader, _slot) => {
                while let Some(block) = reader.next().await {
                    let block = block.map_err(Broken::Refused)?;
                    send(socket, &block.payloads().collect::<Vec<_>>()).await?;
                }
            }
            From::There { chunks, empty } => {
                while let Ok(chunk) = chunks.recv_async().await {
                    let chunk = chunk.map_err(Broken::Refused)?;
                    send(socket, &[chunk.bytes()]).await?;
                    drop(empty.try_send(chunk.buffer));
                }
            }
        }
        // Where the other shard has ended, so has the stream, without a word.
        if left == 0 { Ok(()) } else { Err(Broken::Refused(Refusal::shard_ended())) }
    }
}
