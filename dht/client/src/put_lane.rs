//! One holder's part of a put: a task that offers the track, then passes on the bytes.

use std::sync::Arc;
use std::time::Duration;

use deadwax_dht::wire::{DATA_BYTES_MAX, Message, Summed};
use deadwax_dht::{Failure, FailureKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::connection::unexpected;
use crate::known::Known;
use crate::pool::Lease;
use crate::{Client, ClientConfig};

/// The most bytes of one frame: so few that they can stay in the cache of a holder's core while that checks, hashes and
/// copies them.
pub(crate) const FRAME_BYTES: usize = DATA_BYTES_MAX / 4;
/// The most parts that are joined into one frame.
const PARTS_MAX: usize = 64;
/// The most parts that may wait, however small they are.
const QUEUE_PARTS_MAX: usize = 1024;
/// Between one offer to a holder that is busy and the next; it doubles from the first to the last.
const BUSY_PAUSE_MIN: Duration = Duration::from_millis(5);
const BUSY_PAUSE_MAX: Duration = Duration::from_millis(50);

/// What a holder did.
#[derive(Debug)]
pub(crate) enum LaneEvent {
    Ready,
    Stored { already: bool, bytes: u64 },
    Failed(Failure),
}

/// The put's end of a holder's task. Dropped, it ends the task and so the connection, and the holder forgets what it
/// has; [`release`](Self::release) lets the task go on alone.
#[derive(Debug)]
pub(crate) struct Lane {
    queue: mpsc::Sender<Part>,
    room: Arc<Semaphore>,
    task: Option<AbortHandle>,
}

/// Some bytes, and the room that they take in the queue.
#[derive(Debug)]
struct Part {
    data: Summed,
    _room: OwnedSemaphorePermit,
}

/// The task's end.
struct Holder {
    index: usize,
    node: usize,
    /// The map that the put goes by.
    known: Arc<Known>,
    config: Arc<ClientConfig>,
    offer: Message,
    track_bytes: u64,
    /// The track, where it goes with the offer.
    whole: Option<Summed>,
    queue: mpsc::Receiver<Part>,
    room: Arc<Semaphore>,
    events: mpsc::Sender<(usize, LaneEvent)>,
}

/// What a holder said to the offer.
enum Offered {
    /// It wants the bytes, or has them and is at it.
    Ready(Box<Lease>),
    Stored {
        already: bool,
        bytes: u64,
    },
}

impl Lane {
    /// Starts the task that offers the track to the holder of this index. It sends at most two events. `whole`: the track,
    /// where that goes with the offer; then nothing is to be [sent](Self::send).
    pub(crate) fn start(
        client: &Client,
        known: &Arc<Known>,
        (index, node): (usize, usize),
        offer: Message,
        (track_bytes, whole): (u64, Option<Summed>),
        events: &mpsc::Sender<(usize, LaneEvent)>,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_PARTS_MAX);
        let config = Arc::clone(&client.inner.config);
        let room = Arc::new(Semaphore::new(config.put_queue_bytes_max.clamp(FRAME_BYTES, u32::MAX as usize)));
        let holder = Holder {
            index,
            node,
            known: Arc::clone(known),
            config,
            offer,
            track_bytes,
            whole,
            queue: receiver,
            room: Arc::clone(&room),
            events: events.clone(),
        };
        let working = client.inner.background.begin();
        let task = tokio::spawn(async move {
            holder.run().await;
            drop(working);
        });
        Self { queue: sender, room, task: Some(task.abort_handle()) }
    }

    /// Queues at most [`FRAME_BYTES`], once there is room. False where the holder takes no more.
    pub(crate) async fn send(&self, data: Summed) -> bool {
        let size = u32::try_from(data.bytes().len()).expect("at most a frame's data");
        let Ok(room) = Arc::clone(&self.room).acquire_many_owned(size).await else { return false };
        self.queue.send(Part { data, _room: room }).await.is_ok()
    }

    /// Lets the task end by itself.
    pub(crate) fn release(mut self) {
        self.task = None;
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Whoever waits for room waits in vain.
        self.room.close();
    }
}

impl Holder {
    async fn run(mut self) {
        let event = match self.put().await {
            Ok((already, bytes)) => LaneEvent::Stored { already, bytes },
            Err(failure) => LaneEvent::Failed(failure),
        };
        if let LaneEvent::Failed(failure) = &event {
            tracing::debug!(node = %self.known.node_id(self.node), %failure, "put to a holder failed");
        }
        self.room.close();
        // Nobody listens once the put was answered.
        let _ = self.events.send((self.index, event)).await;
    }

    /// Whether the track was there already, and its length.
    async fn put(&mut self) -> Result<(bool, u64), Failure> {
        let mut lease = match self.offer_patiently().await? {
            Offered::Ready(lease) => lease,
            Offered::Stored { already, bytes } => return Ok((already, bytes)),
        };
        let _ = self.events.send((self.index, LaneEvent::Ready)).await;
        match &self.whole {
            None => self.stream(&mut lease).await?,
            Some(_) if lease.connection.takes_at_once() => {}
            Some(whole) => {
                let stall_ms = self.config.write_stall_ms;
                lease.connection.sender.send_data(std::slice::from_ref(whole), stall_ms).await?;
            }
        }
        let durable_ms = self.config.durable_ms;
        let waiting = timeout(Duration::from_millis(durable_ms), lease.connection.receiver.receive());
        let late = || Failure::new(FailureKind::Stalled, format!("not durable within {durable_ms} ms"));
        match waiting.await.map_err(|_| late())?? {
            Message::Stored { bytes, .. } if bytes == self.track_bytes => {
                lease.give_back();
                Ok((false, bytes))
            }
            Message::Error { code, message } => Err(Failure::from_reply(code, message)),
            other => Err(unexpected(&other)),
        }
    }

    /// Offers the track; again and again to a holder that is busy, which is well and should not lack its copy, for
    /// [`ClientConfig::put_grace_ms`] in all.
    async fn offer_patiently(&self) -> Result<Offered, Failure> {
        let until = Instant::now() + Duration::from_millis(self.config.put_grace_ms);
        let mut pause = BUSY_PAUSE_MIN;
        loop {
            match self.offer().await {
                Err(Failure { kind: FailureKind::Busy, .. }) if Instant::now() + pause < until => sleep(pause).await,
                offered => return offered,
            }
            pause = (pause * 2).min(BUSY_PAUSE_MAX);
        }
    }

    async fn offer(&self) -> Result<Offered, Failure> {
        let (lease, reply) = match &self.whole {
            Some(whole) => self.known.ask_with(self.node, &self.offer, whole).await?,
            None => self.known.ask(self.node, &self.offer).await?,
        };
        match reply {
            Message::Ready => Ok(Offered::Ready(Box::new(lease))),
            Message::Stored { already, bytes, .. } => {
                lease.give_back();
                Ok(Offered::Stored { already, bytes })
            }
            Message::Error { code, message } => {
                lease.give_back();
                Err(Failure::from_reply(code, message))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Passes on all bytes of the track. A holder may break off at any time, so its words are heard while it is sent
    /// to: once it closes, they may be lost.
    async fn stream(&mut self, lease: &mut Lease) -> Result<(), Failure> {
        let connection = &mut lease.connection;
        let (mut sent, mut next) = (0, None);
        while sent < self.track_bytes {
            let first = match next.take() {
                Some(part) => part,
                None => tokio::select! {
                    biased;
                    reply = connection.receiver.receive() => return Err(broke_off(reply)),
                    part = self.queue.recv() => part.ok_or_else(|| Failure::new(FailureKind::Internal, "put aborted"))?,
                },
            };
            let mut parts = vec![first];
            let mut bytes = parts[0].data.bytes().len();
            while next.is_none() && parts.len() < PARTS_MAX {
                let Ok(part) = self.queue.try_recv() else { break };
                if bytes + part.data.bytes().len() > FRAME_BYTES {
                    next = Some(part);
                } else {
                    bytes += part.data.bytes().len();
                    parts.push(part);
                }
            }
            let data: Vec<Summed> = parts.iter().map(|part| part.data.clone()).collect();
            tokio::select! {
                biased;
                reply = connection.receiver.receive() => return Err(broke_off(reply)),
                done = connection.sender.send_data(&data, self.config.write_stall_ms) => done?,
            }
            sent += bytes as u64;
        }
        Ok(())
    }
}

/// Why a holder answers before it has all bytes.
fn broke_off(reply: Result<Message, Failure>) -> Failure {
    match reply {
        Ok(Message::Error { code, message }) => Failure::from_reply(code, message),
        Ok(other) => unexpected(&other),
        Err(failure) => failure,
    }
}
