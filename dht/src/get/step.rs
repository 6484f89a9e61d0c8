//! What a get does next, and how long it waits.

use deadwax_track::ByteRange;

use crate::Verdict;

/// How long a get waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadDeadlines {
    /// For a holder, from the request, connecting included, to the first answer; in ms.
    pub first_ms: u64,
    /// For a holder, between one piece of the bytes and the next; in ms.
    pub stall_ms: u64,
    /// When the whole get is given up; none: when no holder is left. Moves on while the reader is elsewhere.
    pub whole: Option<u64>,
}

/// What the driver does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GetStep {
    /// Ask this holder (an index) for this range, and poll again. Said once. Another holder may be under way for the
    /// same bytes: go on with both.
    Ask {
        /// Which holder.
        holder: usize,
        /// What is still missing.
        range: ByteRange,
        /// Whether another holder was asked for the same and is slow.
        hedge: bool,
    },
    /// Drop the request to this holder, if it is still under way, and poll again.
    Drop {
        /// Which holder.
        holder: usize,
    },
    /// Take what the asked holders send.
    Wait {
        /// When to poll again at the latest.
        until: u64,
    },
    /// All bytes have come. Nothing is under way any more.
    Done,
    /// A read quorum says that there is no such track. Drop what is under way.
    NotFound,
    /// A holder has a newer map: fetch it, and get the rest, from [`next_byte`](crate::GetPlan::next_byte) on, by it.
    /// Nothing is under way. Where the map cannot be had, poll again: the other holders are asked. Said once an epoch.
    Moved {
        /// The newest epoch that a holder told of.
        epoch: u64,
    },
    /// The bytes, or the rest of them, cannot be had, or not in time. [`failures`](crate::GetPlan::failures) says why,
    /// holder by holder. Drop what is under way.
    Failed(Verdict),
}
