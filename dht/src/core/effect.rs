//! What a core wants done.

use std::fmt;
use std::sync::Arc;

use deadwax_track::{Partition, TrackId};

use super::input::Request;
use super::message::Envelope;
use crate::log::{Batch, Persist};
use crate::rebalance::Answer;
use crate::repair::Pull;
use crate::takedown::{CopyState, Name, Spread, Standing, Takedown};
use crate::wire::Unfit;
use crate::{IssuerKey, NodeId, VolumeId};
use crate::{rebalance, routing};

/// One thing to do. A driver carries them out in order; none need be waited for before the next input.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Send this. It may be lost.
    Send {
        /// To whom.
        to: Destination,
        /// What.
        envelope: Box<Envelope>,
    },
    /// The request may go on: for a put, take the bytes; for a get, send them. Ends with
    /// [`Input::Done`](super::Input::Done).
    Go(Request),
    /// The request may not go on.
    Refuse {
        /// Which.
        number: u64,
        /// What the asker is told.
        why: Refused,
    },
    /// What the asker is told at the end.
    Finish {
        /// Which request.
        number: u64,
        /// What.
        answer: Finished,
    },
    /// The answer to [`Input::Seek`](super::Input::Seek).
    Told {
        /// Its number.
        number: u64,
        /// What.
        response: routing::Response,
    },
    /// The answer to [`Input::WantEpochs`](super::Input::WantEpochs).
    Epochs {
        /// Its number.
        number: u64,
        /// What is missing.
        batch: Box<Batch>,
    },
    /// List the ids of a partition.
    List {
        /// To be named in the answer.
        number: u64,
        /// Of which volume.
        volume: VolumeId,
        /// Of which partition.
        partition: Partition,
    },
    /// Fetch a track from another node (a request of [`Verb::Pull`](super::Verb::Pull) there), prove it and make it
    /// durable; tell [`Input::Stored`](super::Input::Stored) and then [`Input::Pulled`](super::Input::Pulled).
    Pull(Pull),
    /// Erase a track, durably; tell [`Input::Erased`](super::Input::Erased). One that is not there is erased already.
    Erase {
        /// Where.
        volume: VolumeId,
        /// Which.
        track: TrackId,
        /// Whether it is a takedown: bytes must be gone, and the drive refuse it from now on.
        barred: bool,
    },
    /// The voter takes this seat: an empty durable state ([`Durable::joining`](crate::log::Durable::joining)).
    TakeSeat(u64),
    /// Make this step of the voter durable, in order; tell [`Input::Persisted`](super::Input::Persisted).
    Persist {
        /// The seat: each has durable state of its own.
        seat: u64,
        /// What.
        step: Box<Persist>,
    },
    /// Keep this for the next start ([`Kept::standing`](super::Kept::standing)): durable after what was to be written
    /// before, and before what is to be after.
    Stand(Standing),
    /// Make these records of the map log durable after those before; tell [`Input::Saved`](super::Input::Saved).
    Save(Box<Batch>),
    /// The durable state of this seat is of no use any more.
    DropSeat(u64),
    /// Append these to the takedowns' file, flushed; tell [`Input::Appended`](super::Input::Appended). Where that fails
    /// the process must end: the file's end is not known.
    Append {
        /// To be named in the answer.
        number: u64,
        /// At least one.
        records: Vec<Takedown>,
    },
    /// Read takedowns.
    ReadTakedowns {
        /// To be named in the answer.
        number: u64,
        /// Which.
        slots: Vec<u32>,
    },
    /// The answer to [`Input::TakeDown`](super::Input::TakeDown): durable here, and on its way to all others.
    TakenDown {
        /// Its number.
        number: u64,
        /// The takedown's name, or why there is none.
        result: Result<Name, crate::takedown::IssueError>,
    },
    /// How far the takedown of an [`Input::TakeDown`](super::Input::TakeDown) has come that has, or had, a name: follows
    /// [`Effect::TakenDown`] once a majority of the takedowns' members has it, or when it is clear that it will not soon.
    Spread {
        /// The input's number.
        number: u64,
        /// How far.
        spread: Spread,
    },
    /// The answer to [`Input::WantReceipts`](super::Input::WantReceipts).
    Receipts {
        /// Its number.
        number: u64,
        /// What is known. None: this node does not follow receipts, or too many already; ask another voter.
        report: Option<ReceiptReport>,
    },
    /// The answer to [`Input::Command`](super::Input::Command).
    Answer {
        /// Its number.
        number: u64,
        /// What came of it.
        result: Result<Answer, CommandRefused>,
    },
    /// Another process lives under this node's name, and started later: stop serving, say so, and end.
    Halt {
        /// When the other one started.
        life: u64,
    },
    /// The node must not take part in the cluster any more, as it does not speak what that is finalised at: stop serving, say
    /// so, and end.
    Outdated(Unfit),
    /// An operator must look: say so, once a minute at most.
    Alarm(Alarm),
}

/// Something that no node can mend. The text says what to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Alarm {
    /// An issuer signed two takedowns of one number: both are followed.
    Forked {
        /// Its public key.
        issuer: [u8; 32],
    },
    /// Another node follows takedowns of an issuer that this one's settings do not name: they are dropped.
    Stranger {
        /// Its public key.
        issuer: [u8; 32],
    },
    /// A node has another log of the map than this one: most voters were called lost, one that was left began a log anew, and
    /// they are back and have decided something; or two began one. Nothing is taken from it but takedowns.
    OtherLog {
        /// Which node.
        node: NodeId,
    },
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forked { issuer } => write!(
                f,
                "issuer {} signed two takedowns of one number, so its key is in two places: take `issuer_key` out of the \
                 settings of all masters that have it, and make new ones by `deadwax cluster issuer`; the key stays named \
                 in `issuers`",
                IssuerKey::from_bytes(*issuer)
            ),
            Self::Stranger { issuer } => write!(
                f,
                "takedowns of issuer {} came and are dropped, so this node may serve what was taken down: add that key to \
                 `issuers` in its settings and restart it; if it is no issuer of this cluster, look who sent them",
                IssuerKey::from_bytes(*issuer)
            ),
            Self::OtherLog { node } => write!(
                f,
                "node {} has another log of the map, and nothing is taken from it but takedowns: a log was begun anew \
                 (`deadwax cluster refound`) without it, or it took part in another that was. Of the two logs one must go: end \
                 all masters that have that one, and only then, on each, remove `system/` beside its key and run `deadwax \
                 cluster rejoin`; their tracks stay",
                node.short()
            ),
        }
    }
}

/// What a voter knows of the copies of a track that was taken down.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ReceiptReport {
    /// Whether every holder has signed, or is dead.
    pub complete: bool,
    /// Each copy that is, or was, followed; at most [`COPIES_MAX`](crate::takedown::COPIES_MAX).
    pub copies: Vec<(VolumeId, NodeId, CopyState)>,
}

/// Why an operator's command was not carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommandRefused {
    /// Give it to the node that leads the map's log.
    #[error("this node does not lead the map's log")]
    NotLeader {
        /// Which does, if it is known.
        leader: Option<NodeId>,
        /// Those of which one may.
        voters: Vec<NodeId>,
        /// Whether some of it, or all, may be done: this node led when it was given, and proposed a record of it.
        begun: bool,
    },
    /// What the epoch to roll back to was is not known any more, or there was none yet.
    #[error("cannot roll back to epoch {to}: epochs are known from {oldest} to {newest}")]
    Forgotten {
        /// Which.
        to: u64,
        /// The oldest that is known.
        oldest: u64,
        /// The newest.
        newest: u64,
    },
    /// The planner says why.
    #[error(transparent)]
    Planner(#[from] rebalance::Refused),
}

/// Where a message goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// To this node, whose address the map has.
    Node(NodeId),
    /// To whoever is at this address, or to this node there.
    At(Option<NodeId>, Arc<str>),
}

/// Why a request may not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Too much is under way: ask again, or elsewhere.
    Busy,
    /// Enough is being pulled from this node: come again then, or pull from another.
    Later {
        /// In so many ms.
        after_ms: u64,
    },
    /// It waited past its deadline, and was not begun.
    Expired,
    /// The track was taken down.
    TakenDown(Name),
    /// This node cannot tell whether it knows all takedowns: ask elsewhere.
    Stale,
    /// At this epoch the volume is no holder: fetch the map.
    Moved {
        /// The epoch.
        epoch: u64,
    },
    /// This node has not yet the epoch that the asker has: ask again, or elsewhere.
    Behind {
        /// What it has.
        epoch: u64,
    },
    /// There is no such volume here, or it is out.
    NoVolume,
    /// This process ends.
    Halted,
}

/// How a request ended, as the asker is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finished {
    /// The copy is durable and counts, at this epoch.
    Stored {
        /// The epoch.
        epoch: u64,
    },
    /// All was sent.
    Sent,
    /// The volume does not have the track, and may say so for its set of holders at this epoch.
    Absent {
        /// The epoch.
        epoch: u64,
    },
    /// The volume does not have the track, and cannot tell whether that means anything: ask elsewhere.
    Unsettled,
    /// It was taken down meanwhile; the copy is erased.
    TakenDown(Name),
    /// The partition's holders changed meanwhile: fetch the map, ask again. The copy stays.
    Moved {
        /// The epoch.
        epoch: u64,
    },
    /// It ended without an answer.
    Failed,
}
