//! How a range of a track is read through the failures of its holders.

use deadwax_track::ByteRange;

use crate::failure::{Failure, FailureKind, Verdict};
use crate::read::{ReadPlan, ReadStep};

/// How long a holder may keep a reader waiting, in ms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadDeadlines {
    /// From the request, connecting included, to the first answer.
    pub first_ms: u64,
    /// Between one piece of the bytes and the next.
    pub stall_ms: u64,
}

/// The rules of one get: a [`ReadPlan`] that knows how far it has come, so that another holder goes on where one
/// broke off.
///
/// The driver does what [`poll`](Self::poll) says, tells what came (`handle_*`), and polls again after each, or when
/// the time has come that `poll` named. Times are milliseconds of any one clock.
#[derive(Clone, Debug)]
pub struct GetPlan {
    plan: ReadPlan,
    deadlines: ReadDeadlines,
    range: ByteRange,
    next: u64,
    track_bytes: Option<u64>,
    asked: Option<Asked>,
}

/// The request that is under way.
#[derive(Clone, Copy, Debug)]
struct Asked {
    from: u64,
    found: bool,
    deadline: u64,
    wait_ms: u64,
}

/// What the driver does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GetStep {
    /// Drop the request that is under way, if any, and ask this holder (an index) for this range. Said once.
    Ask {
        /// Which holder.
        holder: usize,
        /// What is still missing.
        range: ByteRange,
        /// When to poll again at the latest.
        until: u64,
    },
    /// Take what the asked holder sends.
    Wait {
        /// When to poll again at the latest.
        until: u64,
    },
    /// All bytes have come.
    Done,
    /// A read quorum says that there is no such track.
    NotFound,
    /// The bytes, or the rest of them, cannot be had. [`failures`](GetPlan::failures) says why, holder by holder.
    Failed(Verdict),
}

impl GetPlan {
    /// A get of `range` from holders (indexes) in this order.
    #[must_use]
    pub fn new(order: &[usize], read_quorum: usize, range: ByteRange, deadlines: ReadDeadlines) -> Self {
        let plan = ReadPlan::new(order, read_quorum);
        Self { plan, deadlines, range, next: range.start(), track_bytes: None, asked: None }
    }

    /// What to do next.
    pub fn poll(&mut self, now: u64) -> GetStep {
        if let Some(asked) = self.asked {
            if now < asked.deadline {
                return GetStep::Wait { until: asked.deadline };
            }
            let what = if asked.found { "sent nothing" } else { "did not answer" };
            self.handle_failed(Failure::new(FailureKind::Stalled, format!("{what} for {} ms", asked.wait_ms)));
        }
        match self.plan.poll() {
            ReadStep::Done => GetStep::Done,
            ReadStep::NotFound => GetStep::NotFound,
            ReadStep::Failed(verdict) => GetStep::Failed(verdict),
            ReadStep::Ask { holder } => {
                let range = ByteRange::new(self.next, self.range.end()).expect("all bytes come: the plan is done");
                let wait_ms = self.deadlines.first_ms;
                let deadline = now.saturating_add(wait_ms);
                self.asked = Some(Asked { from: self.next, found: false, deadline, wait_ms });
                GetStep::Ask { holder, range, until: deadline }
            }
        }
    }

    /// The reader was elsewhere and comes back for more: the holder's time begins anew, since it may only have waited
    /// for the reader.
    pub fn handle_resumed(&mut self, now: u64) {
        if let Some(asked) = &mut self.asked {
            asked.deadline = now.saturating_add(asked.wait_ms);
        }
    }

    /// The asked holder has the track, which has so many bytes.
    pub fn handle_found(&mut self, now: u64, track_bytes: u64) {
        let Some(asked) = &mut self.asked else { return };
        let known = self.track_bytes.unwrap_or(track_bytes);
        if asked.found || known != track_bytes || !self.range.fits(track_bytes) {
            let why = format!("says the track has {track_bytes} bytes; {known} are known, {} asked", self.range.end());
            return self.handle_failed(Failure::new(FailureKind::Corrupt, why));
        }
        asked.found = true;
        asked.wait_ms = self.deadlines.stall_ms;
        asked.deadline = now.saturating_add(asked.wait_ms);
        self.track_bytes = Some(track_bytes);
        self.plan.handle_seen();
    }

    /// The asked holder sent so many bytes. Whether they are to be taken: not, where it sent more than it was asked
    /// for, or out of turn; it has failed then.
    #[must_use]
    pub fn handle_data(&mut self, now: u64, bytes: u64) -> bool {
        let Some(asked) = &mut self.asked else { return false };
        if !asked.found || bytes > self.range.end() - self.next {
            self.handle_failed(Failure::new(FailureKind::Internal, "sent bytes that were not asked for"));
            return false;
        }
        asked.deadline = now.saturating_add(asked.wait_ms);
        self.next += bytes;
        true
    }

    /// The asked holder says that this was all.
    pub fn handle_end(&mut self) {
        if self.asked.is_some_and(|asked| asked.found) && self.next == self.range.end() {
            self.asked = None;
            return self.plan.handle_answered();
        }
        let why = format!("ended at byte {} of {}", self.next, self.range.end());
        self.handle_failed(Failure::new(FailureKind::Internal, why));
    }

    /// The asked holder says that it does not have the track.
    pub fn handle_absent(&mut self) {
        if self.asked.is_some_and(|asked| asked.found) {
            return self.handle_failed(Failure::new(FailureKind::Internal, "lost the track while sending it"));
        }
        self.asked = None;
        self.plan.handle_absent();
    }

    /// The asked holder failed.
    pub fn handle_failed(&mut self, failure: Failure) {
        let Some(asked) = self.asked.take() else { return };
        if self.next == self.range.end() && !matches!(failure.kind, FailureKind::TakenDown { .. }) {
            // Every byte is here and was checked: how the holder ends does not matter.
            return self.plan.handle_answered();
        }
        let again = matches!(failure.kind, FailureKind::Unreachable | FailureKind::Stalled | FailureKind::Busy);
        self.plan.handle_failed(failure, again && self.next > asked.from);
    }

    /// The whole track's length, once a holder has told it.
    #[must_use]
    pub const fn track_bytes(&self) -> Option<u64> {
        self.track_bytes
    }

    /// The index in the track of the next byte that is to come.
    #[must_use]
    pub const fn next_byte(&self) -> u64 {
        self.next
    }

    /// The holders that failed, by index, and why.
    pub fn failures(&self) -> impl Iterator<Item = (usize, &Failure)> + Clone {
        self.plan.failures()
    }

    /// How many holders said that they do not have the track.
    #[must_use]
    pub fn absent(&self) -> usize {
        self.plan.absent()
    }
}
