//! Drives the core of the cluster's rules ([`deadwax_dht::core`]) with real messages, drives and time.
//!
//! **Threads.** The core lives on an executor of its own, `core`: a step may take milliseconds in a large cluster, and
//! no track waits for it there. What it wants kept goes to the thread `system`, which alone writes to the system drive
//! and may wait for it. Tracks' bytes never come here: shards move them.
//!
//! **The way of a request.** A shard asks for a [`Turn`] and waits for *go*; it moves the bytes, tells what came of
//! them, and waits for the core's last word where the asker's answer depends on it.
//!
//! **What happens on each failure.** *The core's queue is full:* requests are Busy, messages are lost, as on any
//! network. *The system drive fails, or hangs for 20 s:* the process ends: nobody knows what it kept. *Another process of
//! the node's name started later, or the cluster is finalised at a version of the protocol that it does not speak:* this
//! one stops.
//!
//! **Where to start.** `live` is the core's loop, `effects` does what it says; `turn` is a request's part, `links` the
//! connections to other nodes, `pull` fetches a track from one, `system_thread` keeps, watched by `system_watch`, `takedowns`
//! is the log's clients.

mod clock;
mod effects;
mod latency;
mod links;
mod live;
mod peer;
mod pull;
mod system_thread;
mod system_watch;
mod takedowns;
mod turn;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use deadwax_dht::NodeId;
use deadwax_dht::core::{ENVELOPE_BYTES_MAX, Envelope, Input, Request};
use deadwax_dht::log::Batch;
use deadwax_dht::rebalance::Command;
use deadwax_dht::wire::{CommandAnswer, CoreStatus, ErrorCode, RepairReport};

pub(crate) use self::clock::now_ms;
pub(crate) use self::latency::DriveLatency;
pub(crate) use self::live::{Driver, Parts};
pub(crate) use self::pull::Peers;
use self::system_watch::SystemWatch;
pub(crate) use self::takedowns::{Taken, news};
pub(crate) use self::turn::{Late, Turn, Wish, Word};
use crate::admission::Places;
use crate::refusal::Refusal;

/// The most requests and messages that wait for the core.
const ASKED_MAX: usize = 4096;
/// The most puts whose bytes came with them that are under way, or wait for the core's word.
const LATE_MAX: usize = 1_024;
/// The most bytes of messages that wait for it, as they came: one of the longest and thousands of the others.
const HEARD_BYTES_MAX: usize = ENVELOPE_BYTES_MAX + (4 << 20);

/// Something that the core may be too busy for.
pub(crate) enum Asked {
    /// Answered by one word, and by a second one after the request's [`Input::Done`].
    Request(Request, flume::Sender<Word>),
    /// The map's records after an epoch.
    EpochsAfter(u64, flume::Sender<Box<Batch>>),
    /// A node of a later version, at this epoch, sent records of the map's log that cannot be read.
    LaterRecords(u64),
    /// An operator's, or what it would do; whoever waits is answered, or learns that nobody will.
    Command { command: Box<Command>, forecast: bool, answer: flume::Sender<CommandAnswer> },
    /// How it stands.
    Status(flume::Sender<Box<CoreStatus>>),
    /// How far it is with repair; and before that, that all be compared anew, if so.
    Repair { now: bool, answer: flume::Sender<Box<RepairReport>> },
    /// About what is taken down by the cluster's log.
    OfTakedowns(takedowns::TakedownAsked),
    /// From another node.
    Message { from: NodeId, address: Arc<str>, envelope: Box<Envelope>, _room: Room },
}

/// What a message takes of [`HEARD_BYTES_MAX`], until the core has taken it.
pub(crate) struct Room {
    taken: Arc<AtomicUsize>,
    bytes: usize,
}

impl Room {
    fn take(taken: &Arc<AtomicUsize>, bytes: usize) -> Option<Self> {
        let room = Self { taken: Arc::clone(taken), bytes };
        (taken.fetch_add(bytes, Ordering::Relaxed) + bytes <= HEARD_BYTES_MAX).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Something that it must be told, so this queue refuses nothing: each of what may be told has its bound where it begins.
/// Requests that the core let in are bounded by its admission, those that it did not by [`ASKED_MAX`], each told of once;
/// puts whose bytes came with them by [`LATE_MAX`], two things each; what the core itself began (lists, pulls, what is kept,
/// messages that are lost) by the core; damage by the tracks that there are, each once.
pub(crate) enum Told {
    Input(Input),
    /// A put is stored that did not ask to begin; answered by one word.
    StoredAtOnce(Request, flume::Sender<Word>),
    /// All shards have opened the volume of this number. Dropped once the core has it.
    Opened(usize, Option<flume::Sender<()>>),
    /// Nothing comes after this.
    Stop,
}

/// The way to the core, for all threads of the node.
pub(crate) struct Handle {
    asked: flume::Sender<Asked>,
    told: flume::Sender<Told>,
    late: Places<LATE_MAX>,
    numbers: AtomicU64,
    heard_bytes: Arc<AtomicUsize>,
    pub(crate) system: SystemWatch,
}

/// The core's end of it.
pub(crate) struct Inbox {
    asked: flume::Receiver<Asked>,
    told: flume::Receiver<Told>,
}

impl Handle {
    pub(crate) fn new() -> (Self, Inbox) {
        let (asked, from_asked) = flume::bounded(ASKED_MAX);
        let (told, from_told) = flume::unbounded();
        (
            Self {
                asked,
                told,
                late: Places::default(),
                numbers: AtomicU64::new(1),
                heard_bytes: Arc::default(),
                system: SystemWatch::default(),
            },
            Inbox { asked: from_asked, told: from_told },
        )
    }

    /// Tells the core what happened. Nobody listens any more where the node stops.
    pub(crate) fn tell(&self, input: Input) {
        drop(self.told.send(Told::Input(input)));
    }

    /// A put is stored that did not ask to begin.
    fn tell_stored_at_once(&self, request: Request, word: flume::Sender<Word>) {
        drop(self.told.send(Told::StoredAtOnce(request, word)));
    }

    /// All shards have opened the volume of this number; `done` is dropped once the core has been told what it holds.
    pub(crate) fn tell_opened(&self, volume: usize, done: Option<flume::Sender<()>>) {
        drop(self.told.send(Told::Opened(volume, done)));
    }

    pub(crate) fn stop(&self) {
        drop(self.told.send(Told::Stop));
    }

    /// Hands on a message of another node that came as so many bytes; lost where too much waits.
    pub(crate) fn hear(&self, from: NodeId, address: Arc<str>, envelope: Box<Envelope>, bytes: usize) -> bool {
        let Some(room) = Room::take(&self.heard_bytes, bytes) else { return false };
        self.asked.try_send(Asked::Message { from, address, envelope, _room: room }).is_ok()
    }

    /// A node that is at this epoch sent records of the map's log that cannot be read; lost where too much waits.
    pub(crate) fn hear_later_records(&self, epoch: u64) -> bool {
        self.asked.try_send(Asked::LaterRecords(epoch)).is_ok()
    }

    /// Gives the core an operator's command, not to be waited for here. Where it is too busy, `answer` is dropped.
    pub(crate) fn give_command(&self, command: Box<Command>, answer: flume::Sender<CommandAnswer>) {
        drop(self.asked.try_send(Asked::Command { command, forecast: false, answer }));
    }

    /// The map's records after an epoch.
    pub(crate) async fn epochs_after(&self, epoch: u64) -> Result<Box<Batch>, Refusal> {
        let (answer, answered) = flume::bounded(1);
        self.ask(Asked::EpochsAfter(epoch, answer))?;
        answered.recv_async().await.map_err(|_| Refusal::shard_ended())
    }

    /// Has a command carried out, or foretold. Where nobody waits for the answer any more, it goes on all the same.
    pub(crate) async fn command(&self, command: Box<Command>, forecast: bool) -> Result<CommandAnswer, Refusal> {
        self.system.answers()?;
        let (answer, answered) = flume::bounded(1);
        self.ask(Asked::Command { command, forecast, answer })?;
        answered.recv_async().await.map_err(|_| Refusal::shard_ended())
    }

    /// How the core stands. Busy while its system drive does not answer: who asks is to see that the node is not well.
    pub(crate) async fn status(&self) -> Result<Box<CoreStatus>, Refusal> {
        self.system.answers()?;
        let (answer, answered) = flume::bounded(1);
        self.ask(Asked::Status(answer))?;
        answered.recv_async().await.map_err(|_| Refusal::shard_ended())
    }

    /// How far the core is with repair; `now`: after all is to be compared and tried anew.
    pub(crate) async fn repair(&self, now: bool) -> Result<Box<RepairReport>, Refusal> {
        let (answer, answered) = flume::bounded(1);
        self.ask(Asked::Repair { now, answer })?;
        answered.recv_async().await.map_err(|_| Refusal::shard_ended())
    }

    fn ask(&self, asked: Asked) -> Result<(), Refusal> {
        self.asked.try_send(asked).map_err(|why| match why {
            flume::TrySendError::Full(_) => {
                Refusal::new(ErrorCode::Busy, format!("{ASKED_MAX} requests and messages wait for the core"))
            }
            flume::TrySendError::Disconnected(_) => Refusal::shard_ended(),
        })
    }

    /// A number that no other request has.
    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_wait_take_a_bounded_room_and_give_it_back() {
        let taken = Arc::default();
        let longest = Room::take(&taken, ENVELOPE_BYTES_MAX).expect("the longest message has room where nothing waits");
        let others: Vec<Room> = (0..4).map(|_| Room::take(&taken, 1 << 20).expect("others beside it")).collect();
        assert!(Room::take(&taken, 1).is_none(), "all is taken");
        drop(longest);
        assert!(Room::take(&taken, ENVELOPE_BYTES_MAX).is_some(), "what was refused took nothing");
        drop(others);
        assert_eq!(taken.load(Ordering::Relaxed), 0);
    }
}
