//! What may happen next, and what a request is made of.

use deadwax_dht::core::{Envelope, Input, Verb};
use deadwax_dht::log::Batch;
use deadwax_dht::{FailureKind, VolumeId};
use deadwax_track::{Partition, TrackId};

use crate::clock::Micros;
use crate::slab::Key;

/// Something that happens at its time.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message arrives.
    Message { from: u32, to: u32, envelope: Box<Envelope> },
    /// A host learns that a node could not be reached.
    Unreachable { host: u32, life: u32, peer: u32 },
    /// The next operation of a system drive is durable.
    System { host: u32, life: u32 },
    /// An operation of a volume is done.
    Drive { op: Key },
    /// Something of a request.
    Flow { flow: Key, step: FlowStep },
    /// Something of a pull, on the side of the node that pulls.
    PullLate { pull: Key },
    /// An input that follows at once on what a core wanted.
    Input { host: u32, life: u32, input: Box<Input> },
    /// A process tells its core how slow requests were.
    Latency { host: u32, life: u32 },
    /// A client's request may go on.
    Client { op: Key },
    /// A gateway begins its next request.
    Gateway { gateway: u32 },
    /// A read that must succeed is tried again.
    Again { gateway: u32, track: u32 },
    /// A gateway asks a node for the map.
    Want { gateway: u32, host: u32, since: u64 },
    /// The map comes to a gateway.
    Map { gateway: u32, batch: Box<Batch> },
    /// A gateway has waited long enough for the map.
    MapLate { gateway: u32, asked: u32 },
    /// A command reaches a node.
    Command { number: u64, host: u32 },
    /// An operator looks after a command again.
    Operator { number: u64 },
    /// A process starts.
    Start { host: u32, life: u32 },
    /// A node was removed from the map.
    Removed { host: u32 },
    /// A process crashes, in the middle of what it has to write.
    Crash { host: u32, life: u32 },
    /// A process is restarted.
    Bounce { host: u32 },
    /// A node gets the next version of the program.
    Install { host: u32 },
    /// Two processes of one name are looked at.
    Doubled { double: u32 },
    /// A fault of the schedule begins.
    Fault { index: u32 },
    /// A fault ends.
    Heal { name: u32 },
    /// Some gateway puts this track.
    PutNow { track: u32 },
    /// A takedown is asked for at a node that may.
    TakeDown { track: u32, host: u32 },
    /// The run looks at the whole.
    Look,
    /// The run looks whether each core gets on.
    Watch,
}

/// A step of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FlowStep {
    /// It arrives at the node.
    Arrive,
    /// The bytes of a put have arrived at the node.
    Body,
    /// The node sends the next piece of a get.
    Piece,
    /// The node has waited long enough for the bytes.
    BodyLate,
    /// The asker hung up, as the node sees it.
    Hangup,
    /// An answer arrives at the asker.
    Reply(Reply),
}

/// What a node answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    Ready,
    Stored {
        already: bool,
    },
    Found {
        bytes: u64,
    },
    Data {
        offset: u64,
        bytes: u64,
        tag: u64,
    },
    End,
    Absent {
        epoch: u64,
    },
    /// Of a pull: the node serves enough for the moment.
    Later {
        after_ms: u64,
    },
    Failed(FailureKind),
}

/// Who waits for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asker {
    Client { op: Key, target: u32 },
    Pull { pull: Key },
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) asker: Asker,
    pub(crate) asker_host: u32,
    pub(crate) asker_open: bool,
    pub(crate) server: u32,
    pub(crate) server_life: u32,
    pub(crate) server_open: bool,
    pub(crate) verb: Verb,
    pub(crate) volume: VolumeId,
    pub(crate) track: u32,
    pub(crate) id: TrackId,
    pub(crate) bytes: u64,
    pub(crate) epoch: u64,
    pub(crate) deadline: Micros,
    /// Of a get: the next byte to send.
    pub(crate) offset: u64,
    pub(crate) tag: u64,
    /// A put that found the track there.
    pub(crate) already: bool,
    /// Why it fails, once it does.
    pub(crate) why: FailureKind,
    /// Answers arrive in order.
    pub(crate) replied_at: Micros,
    pub(crate) began: Micros,
    /// The core let it begin.
    pub(crate) begun: bool,
    /// A put whose bytes come with it.
    pub(crate) at_once: bool,
    /// The core hears of it when it is stored.
    pub(crate) late: bool,
}

/// An operation of a volume.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub(crate) host: u32,
    pub(crate) life: u32,
    pub(crate) drive: usize,
    pub(crate) work: Work,
}

/// What an operation does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Read {
        flow: Key,
    },
    Write {
        flow: Key,
    },
    WritePull {
        pull: Key,
    },
    /// Ordered by a core of this epoch.
    Erase {
        id: TrackId,
        barred: bool,
        epoch: u64,
    },
    List {
        number: u64,
        partition: Partition,
    },
}

/// A copy on its way to a node that lacks it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PullUnderWay {
    pub(crate) host: u32,
    pub(crate) life: u32,
    pub(crate) number: u64,
    pub(crate) drive: usize,
    pub(crate) volume: VolumeId,
    pub(crate) id: TrackId,
    pub(crate) flow: Key,
    pub(crate) got: u64,
    pub(crate) bytes: u64,
    pub(crate) tag: u64,
    pub(crate) progress_at: Micros,
    pub(crate) writing: bool,
}
