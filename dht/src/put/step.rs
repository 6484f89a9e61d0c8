//! What a put does next, and how long it waits.

use crate::Verdict;

/// How long a put waits for targets that have not answered, in ms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grace {
    /// Once the put could begin: for a holder that was well when last heard of. A holder that is left out lacks its
    /// copy until it is repaired.
    pub well_ms: u64,
    /// Once the put could begin: for a holder that could not be reached when it was last heard of.
    pub suspect_ms: u64,
    /// From the question: for a holder before a stand-in is asked beside it, and for a stand-in before the next one
    /// is. Shorter asks more stand-ins in vain; longer than `well_ms` asks none for a holder that is merely silent.
    pub stand_in_ms: u64,
}

/// What the driver does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PutStep {
    /// Offer the track to this target, then poll again at once. Said once for each.
    Ask {
        /// Which target, by its index in [`Targets`](crate::Targets).
        target: usize,
    },
    /// Wait for a target, or until this time if there is one.
    Wait {
        /// When to poll again, if nothing happens before.
        until: Option<u64>,
    },
    /// A quorum has the track already, and none that was asked is known to lack it: nothing is sent.
    Already {
        /// How many copies there are, stand-ins' included.
        copies: usize,
        /// In how many zones.
        zones: usize,
    },
    /// Send the bytes to these targets, and drop the others that have no copy. Said once.
    Begin {
        /// Which targets.
        to: Vec<usize>,
    },
    /// It is stored. Targets that are still at it may go on: each one that finishes is one copy more.
    Acknowledged {
        /// How many copies are durable now, stand-ins' included.
        copies: usize,
        /// In how many zones.
        zones: usize,
    },
    /// A target has a newer map: drop this put, fetch the map of that epoch, begin anew with it. Copies that are
    /// durable stay, and are found there *already*. Where the bytes were sent and cannot be had again, whoever puts is
    /// told to repeat.
    Moved {
        /// The newest epoch that a target told of.
        epoch: u64,
    },
    /// It cannot be stored, or not in time. [`failures`](crate::PutQuorum::failures) says why, target by target.
    GiveUp(Verdict),
}
