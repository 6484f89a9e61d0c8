//! What a core is told.

use std::sync::Arc;

use deadwax_track::TrackId;

use super::message::Envelope;
use crate::log::Batch;
use crate::rebalance::Command;
use crate::repair::PullError;
use crate::routing::{self};
use crate::takedown::Takedown;
use crate::wire::PartitionDigest;
use crate::{NodeId, VolumeId};

/// One thing that happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Input {
    /// Time has come to [`Core::next_deadline`](super::Core::next_deadline).
    Tick,
    /// A node, whose key the connection proved, sent this.
    Message {
        /// Who.
        from: NodeId,
        /// Where its cluster port is, as it says.
        address: Arc<str>,
        /// What.
        envelope: Box<Envelope>,
    },
    /// A request or a message to this node had no answer, or no connection.
    Unreachable(NodeId),
    /// Somebody without a part in the network (a client that has no map) asks its way. Answered by
    /// [`Effect::Told`](super::Effect::Told).
    Seek {
        /// The driver's number for it.
        number: u64,
        /// What it asks.
        request: routing::Request,
    },
    /// A client asks for the map's records after an epoch. Answered by [`Effect::Epochs`](super::Effect::Epochs).
    WantEpochs {
        /// The driver's number for it.
        number: u64,
        /// What it has; 0: nothing.
        since: u64,
    },
    /// A client or a node wants something of a track. Answered by [`Effect::Go`](super::Effect::Go) or
    /// [`Effect::Refuse`](super::Effect::Refuse).
    Request(Request),
    /// What was let go has ended: a put's bytes are durable and proved, or all of a get was sent, or it failed.
    /// Answered by [`Effect::Finish`](super::Effect::Finish), and only then is the asker told.
    Done {
        /// The request's number.
        number: u64,
        /// How.
        outcome: Done,
        /// How many of the track's bytes moved.
        bytes: u64,
    },
    /// A put whose bytes came with it, and so did not ask to begin: they are durable and proved ([`Input::Stored`] came
    /// before), or were before. Answered by [`Effect::Finish`](super::Effect::Finish) or
    /// [`Effect::Refuse`](super::Effect::Refuse), and only then is the asker told.
    StoredAtOnce(Request),
    /// A drive is there, with what is on it: at the start, or when it came back.
    VolumeUp {
        /// Which.
        volume: VolumeId,
        /// Its partitions that are not empty.
        digests: Vec<PartitionDigest>,
        /// How many bytes their tracks have, or 0 where that is not known: tracks of unknown length are taken to be as long, in
        /// forecasts and in what repair and moves take on at once.
        track_bytes: u64,
    },
    /// A drive is gone, or fenced.
    VolumeDown(VolumeId),
    /// A track became durable on a volume, by a put or a pull. Told once, before the `Done` of the put.
    Stored {
        /// Where.
        volume: VolumeId,
        /// Which.
        track: TrackId,
    },
    /// A track is no more on a volume, durably: the answer to [`Effect::Erase`](super::Effect::Erase).
    Erased {
        /// Where.
        volume: VolumeId,
        /// Which.
        track: TrackId,
        /// Whether it was there, as the core was told.
        was_there: bool,
    },
    /// A record of a volume failed its checksum (a read, scrub): it is to be written anew from another copy. Told once, for a
    /// track that was told as stored; and until it is stored anew, a put that meets it does not have it already.
    Rotten {
        /// Where.
        volume: VolumeId,
        /// Which.
        track: TrackId,
    },
    /// The answer to [`Effect::List`](super::Effect::List): none if the drive failed.
    Listed {
        /// Its number.
        number: u64,
        /// The ids in the partition, rising.
        tracks: Option<Vec<TrackId>>,
    },
    /// The end of an [`Effect::Pull`](super::Effect::Pull).
    Pulled {
        /// Its number.
        number: u64,
        /// How many bytes moved, to whatever end.
        bytes: u64,
        /// What came of it.
        result: Result<(), PullError>,
    },
    /// How slow clients' requests to this node's drives are: once a second the 99th percentile of that second, if there
    /// were any.
    Latency {
        /// In microseconds.
        micros: u64,
    },
    /// A step of the voter is durable ([`Effect::Persist`](super::Effect::Persist)).
    Persisted {
        /// The seat.
        seat: u64,
        /// The step's number.
        number: u64,
    },
    /// The history is durable up to this epoch ([`Effect::Save`](super::Effect::Save)).
    Saved {
        /// The epoch.
        epoch: u64,
    },
    /// Takedowns are durable ([`Effect::Append`](super::Effect::Append)).
    Appended {
        /// Its number.
        number: u64,
    },
    /// The answer to [`Effect::ReadTakedowns`](super::Effect::ReadTakedowns).
    TakedownsRead {
        /// Its number.
        number: u64,
        /// The records at the slots, in that order; none if they cannot be read.
        records: Option<Vec<Takedown>>,
    },
    /// Takes a track down, at a node that has an issuer's key. Answered by
    /// [`Effect::TakenDown`](super::Effect::TakenDown), and where the takedown has a name then by
    /// [`Effect::Spread`](super::Effect::Spread).
    TakeDown {
        /// The driver's number for it.
        number: u64,
        /// Which track.
        track: TrackId,
        /// Milliseconds since 1970; for people.
        time: u64,
        /// Why.
        reason: String,
    },
    /// A client asks which holders have erased a track that was taken down. Answered by
    /// [`Effect::Receipts`](super::Effect::Receipts).
    WantReceipts {
        /// The driver's number for it.
        number: u64,
        /// Which track.
        track: TrackId,
    },
    /// An operator wants something. Answered by [`Effect::Answer`](super::Effect::Answer).
    Command {
        /// The driver's number for it.
        number: u64,
        /// What.
        command: Command,
        /// Whether it is only to be said what it would do.
        forecast: bool,
        /// Milliseconds since 1970, by this machine's clock: tokens expire by it.
        time_ms: u64,
    },
    /// An operator wants all that this node holds compared anew with the other holders, and what waits for its next try
    /// tried now.
    RepairNow,
    /// Records of the map log from elsewhere than a peer's message: a joining node's first.
    Batch(Batch),
    /// The wall clock and `now` parted by more than a second: the machine slept, or somebody set the clock.
    ClockJumped,
    /// Another node, which is at this epoch and speaks a later version of the protocol, sent records of the map's log that do
    /// not decode ([`BadEnvelope::Later`](super::BadEnvelope::Later)).
    LaterRecords {
        /// The epoch.
        epoch: u64,
    },
}

/// What somebody wants of a track on one of this node's volumes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// The driver's number for it, unique while it lasts.
    pub number: u64,
    /// What.
    pub verb: Verb,
    /// On which volume.
    pub volume: VolumeId,
    /// Which track.
    pub track: TrackId,
    /// The epoch by which the asker chose the volume.
    pub epoch: u64,
    /// When it is of no use any more, in ms of the core's clock.
    pub deadline: u64,
}

/// What is wanted of a track.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verb {
    /// Store it, as one of its holders.
    Put,
    /// Store it in place of a holder that is not there.
    StandIn,
    /// Its bytes, or what is known of it, for a client.
    Get,
    /// Its bytes, for a node that lacks a copy.
    Pull {
        /// Which node.
        from: NodeId,
        /// Whether losing one more copy, or one zone, would lose the track.
        urgent: bool,
        /// The track's length, as the volume's index has it; 0: it does not.
        bytes: u64,
    },
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Done {
    /// The bytes are durable ([`Input::Stored`] came before), or were before.
    Stored,
    /// All was sent.
    Sent,
    /// There is no such track on the volume.
    NotHere,
    /// It failed, or the asker went away: there is nothing to say.
    Failed,
}
