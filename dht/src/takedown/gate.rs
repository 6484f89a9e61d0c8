//! The one check of put, get, repair and announce.

use deadwax_track::TrackId;

use super::{Lease, Name, Stale, TakedownLog};

/// What the gate says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The track was taken down: answer Gone, pull no copy, tell nobody of it, erase what there is.
    Barred(Name),
    /// This node may be behind: answer Busy, so that others are asked. Copies stay as they are.
    Stale(Stale),
    /// Go on.
    Pass,
}

/// Asked before a track's bytes or name go in or out: a put (at its beginning, and again before it is acknowledged,
/// since it may have been barred in between), a get (and each further window of it), a pull of repair or rebalance
/// (both ends), an announcement to a tracker or a lookup. One rule for all: whether an act "only stores" is not worth a
/// second rule that can be wrong, and a client whose put meets a stale node has stand-ins.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    /// What is barred.
    pub log: &'a TakedownLog,
    /// Whether that is enough.
    pub lease: &'a Lease,
}

impl Gate<'_> {
    /// The verdict on `track` at `now` (milliseconds, see [`Lease`]). What is barred is known for certain, so that it
    /// goes before staleness.
    #[must_use]
    pub fn check(&self, track: &TrackId, now: u64) -> Verdict {
        match (self.log.number_of(track), self.lease.may_serve(now)) {
            (Some(name), _) => Verdict::Barred(name),
            (None, Err(stale)) => Verdict::Stale(stale),
            (None, Ok(())) => Verdict::Pass,
        }
    }
}
