//! How a range of a track is read through the failures and the slowness of its holders.

mod hedge;
mod latency;
mod step;

use deadwax_track::ByteRange;

pub use self::hedge::{HEDGES_SAVED_MAX, HedgeBudget, REQUESTS_PER_HEDGE};
pub use self::latency::{HEDGE_MS_MIN, LATENCY_NODES_MAX, Latency};
pub use self::step::{GetStep, ReadDeadlines};
use crate::failure::{Failure, FailureKind, Verdict};
use crate::read::{ReadPlan, ReadStep, Reader, Readers};

/// Answers that wait to be recorded; more are dropped: they are hints.
const SAMPLES_MAX: usize = 16;

/// The rules of one get: a [`ReadPlan`] that knows how far it has come, so that another holder goes on where one
/// broke off, and asks a second holder beside one that is slow.
///
/// The driver does what [`poll`](Self::poll) says, tells what came (`handle_*`, each with the holder that it came
/// from), and polls again after each, or when the time has come that `poll` named. Times are milliseconds of any one
/// clock.
///
/// **Hedges.** When the first byte of a holder has not come within its `hedge_ms`, the next holder that is up is asked
/// for the same bytes, if the [`HedgeBudget`] allows. The first to deliver a byte goes on; the other is dropped, and
/// what it still sends is not taken. So at most two holders are under way, and bytes come in order and once.
#[derive(Clone, Debug)]
pub struct GetPlan {
    plan: ReadPlan,
    deadlines: ReadDeadlines,
    range: ByteRange,
    next: u64,
    track_bytes: Option<u64>,
    /// One, or two where the second is a hedge.
    under_way: Vec<Asked>,
    /// Requests that ended by our word: the driver is still to be told.
    drops: Vec<usize>,
    samples: Vec<(usize, u64)>,
    away_since: Option<u64>,
}

/// A request that is under way.
#[derive(Clone, Copy, Debug)]
struct Asked {
    reader: Reader,
    from: u64,
    since: u64,
    found: bool,
    delivered: bool,
    deadline: u64,
    wait_ms: u64,
    hedge_at: Option<u64>,
}

impl GetPlan {
    /// A get of `range` from these holders.
    #[must_use]
    pub fn new(readers: Readers, range: ByteRange, deadlines: ReadDeadlines) -> Self {
        Self {
            plan: ReadPlan::new(readers),
            deadlines,
            range,
            next: range.start(),
            track_bytes: None,
            under_way: Vec::with_capacity(2),
            drops: Vec::new(),
            samples: Vec::new(),
            away_since: None,
        }
    }

    /// What to do next. `budget`: the one that all gets of a client share.
    pub fn poll(&mut self, now: u64, budget: &mut HedgeBudget) -> GetStep {
        while let Some(late) = self.under_way.iter().find(|asked| asked.deadline <= now).copied() {
            if !late.delivered {
                self.sample(late.reader.holder, now.saturating_sub(late.since));
            }
            let what = if late.found { "sent nothing" } else { "did not answer" };
            let why = format!("{what} for {} ms", late.wait_ms);
            self.end(late.reader.holder, Failure::new(FailureKind::Stalled, why), true);
        }
        match self.plan.conclusion() {
            Some(ReadStep::Done) => return GetStep::Done,
            Some(ReadStep::NotFound) => return GetStep::NotFound,
            Some(ReadStep::Failed(verdict)) => return GetStep::Failed(verdict),
            Some(ReadStep::Moved { .. } | ReadStep::Ask { .. }) | None => {}
        }
        if self.deadlines.whole.is_some_and(|whole| whole <= now) {
            return GetStep::Failed(Verdict::Expired);
        }
        if let Some(holder) = self.drops.pop() {
            return GetStep::Drop { holder };
        }
        if self.under_way.is_empty() {
            return match self.plan.next_reader() {
                Ok(reader) => {
                    budget.note_request();
                    self.ask(now, reader, false)
                }
                Err(ReadStep::Moved { epoch }) => GetStep::Moved { epoch },
                Err(ReadStep::Failed(verdict)) => GetStep::Failed(verdict),
                Err(other) => unreachable!("{other:?} is no reason to ask nobody"),
            };
        }
        if let Some(reader) = self.hedge(now, budget) {
            return self.ask(now, reader, true);
        }
        GetStep::Wait { until: self.until() }
    }

    /// Whom to ask beside the one that is under way, if it is time.
    fn hedge(&mut self, now: u64, budget: &mut HedgeBudget) -> Option<Reader> {
        let [asked] = self.under_way.as_mut_slice() else { return None };
        asked.hedge_at.take_if(|at| *at <= now)?;
        if !self.plan.has_another_up() || !budget.take() {
            return None;
        }
        self.plan.next_beside()
    }

    fn ask(&mut self, now: u64, reader: Reader, hedge: bool) -> GetStep {
        let range = ByteRange::new(self.next, self.range.end()).expect("all bytes come: the plan is done");
        let wait_ms = self.deadlines.first_ms;
        self.under_way.push(Asked {
            reader,
            from: self.next,
            since: now,
            found: false,
            delivered: false,
            deadline: now.saturating_add(wait_ms),
            wait_ms,
            hedge_at: reader.hedge_ms.map(|ms| now.saturating_add(ms.max(HEDGE_MS_MIN))),
        });
        GetStep::Ask { holder: reader.holder, range, hedge }
    }

    fn until(&self) -> u64 {
        let alone = self.under_way.len() == 1;
        let hedges = self.under_way.iter().filter(|_| alone).filter_map(|asked| asked.hedge_at);
        let deadlines = self.under_way.iter().map(|asked| asked.deadline);
        deadlines.chain(hedges).chain(self.deadlines.whole).min().expect("somebody was asked")
    }

    /// The reader goes elsewhere with what has come, and what holders send is not taken meanwhile.
    pub fn handle_away(&mut self, now: u64) {
        self.away_since.get_or_insert(now);
    }

    /// The reader comes back for more: the holders' time begins anew, since they may only have waited for it, and the
    /// time that it was [away](Self::handle_away) does not count.
    pub fn handle_resumed(&mut self, now: u64) {
        let away = self.away_since.take().map_or(0, |since| now.saturating_sub(since));
        for asked in &mut self.under_way {
            asked.since = asked.since.saturating_add(away);
            asked.deadline = now.saturating_add(asked.wait_ms);
            asked.hedge_at = asked.hedge_at.map(|at| at.saturating_add(away));
        }
        self.deadlines.whole = self.deadlines.whole.map(|at| at.saturating_add(away));
    }

    fn asked(&mut self, holder: usize) -> Option<&mut Asked> {
        self.under_way.iter_mut().find(|asked| asked.reader.holder == holder)
    }

    /// The holder has the track, which has so many bytes.
    pub fn handle_found(&mut self, now: u64, holder: usize, track_bytes: u64) {
        let known = self.track_bytes.unwrap_or(track_bytes);
        let (fits, stall_ms) = (self.range.fits(track_bytes), self.deadlines.stall_ms);
        let Some(asked) = self.asked(holder) else { return };
        if asked.found || known != track_bytes || !fits {
            let why = format!("says the track has {track_bytes} bytes; {known} are known, {} asked", self.range.end());
            return self.end(holder, Failure::new(FailureKind::Corrupt, why), true);
        }
        asked.found = true;
        asked.wait_ms = stall_ms;
        asked.deadline = now.saturating_add(stall_ms);
        self.track_bytes = Some(track_bytes);
        self.plan.handle_seen();
    }

    /// The holder sent so many bytes. Whether they are to be taken: not, where it was dropped; nor where it sent more
    /// than it was asked for, or out of turn, and so has failed.
    #[must_use]
    pub fn handle_data(&mut self, now: u64, holder: usize, bytes: u64) -> bool {
        let left = self.range.end() - self.next;
        let Some(asked) = self.asked(holder) else { return false };
        if !asked.found || bytes > left || bytes == 0 {
            self.end(holder, Failure::new(FailureKind::Internal, "sent bytes that were not asked for"), true);
            return false;
        }
        asked.deadline = now.saturating_add(asked.wait_ms);
        if !asked.delivered {
            asked.delivered = true;
            asked.hedge_at = None;
            self.win(now, holder);
        }
        self.next += bytes;
        true
    }

    /// The holder is the first to deliver: the others are dropped.
    fn win(&mut self, now: u64, winner: usize) {
        for asked in std::mem::take(&mut self.under_way) {
            self.sample(asked.reader.holder, now.saturating_sub(asked.since));
            if asked.reader.holder == winner {
                self.under_way.push(asked);
            } else {
                self.drops.push(asked.reader.holder);
                self.plan.handle_passed_over(asked.reader);
            }
        }
    }

    /// The holder says that this was all.
    pub fn handle_end(&mut self, holder: usize) {
        let (next, end) = (self.next, self.range.end());
        let Some(asked) = self.asked(holder) else { return };
        if asked.found && next == end {
            self.under_way.clear();
            return self.plan.handle_answered();
        }
        self.end(holder, Failure::new(FailureKind::Internal, format!("ended at byte {next} of {end}")), true);
    }

    /// The holder, whose map has this epoch, says that it does not have the track.
    pub fn handle_absent(&mut self, holder: usize, epoch: u64) {
        let Some(asked) = self.asked(holder) else { return };
        if asked.found {
            let failure = Failure::new(FailureKind::Internal, "lost the track while sending it");
            return self.end(holder, failure, true);
        }
        self.under_way.retain(|asked| asked.reader.holder != holder);
        self.plan.handle_absent(holder, epoch);
    }

    /// The holder failed.
    pub fn handle_failed(&mut self, holder: usize, failure: Failure) {
        self.end(holder, failure, false);
    }

    /// `drop`: the driver does not know yet that nothing more is heard from the holder.
    fn end(&mut self, holder: usize, failure: Failure, drop: bool) {
        let Some(at) = self.under_way.iter().position(|asked| asked.reader.holder == holder) else { return };
        let asked = self.under_way.remove(at);
        if drop {
            self.drops.push(holder);
        }
        if self.next == self.range.end() && !matches!(failure.kind, FailureKind::TakenDown { .. }) {
            // Every byte is here and was checked: how the holder ends does not matter.
            return self.plan.handle_answered();
        }
        let again = matches!(failure.kind, FailureKind::Unreachable | FailureKind::Stalled | FailureKind::Busy);
        let progress = again && self.next > asked.from;
        self.plan.handle_failed(holder, failure, progress.then_some(asked.reader));
    }

    fn sample(&mut self, holder: usize, ms: u64) {
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push((holder, ms));
        }
    }

    /// How long a holder took to its first byte in ms, or had taken when it was given up; each once, for
    /// [`Latency::record`].
    pub fn take_sample(&mut self) -> Option<(usize, u64)> {
        self.samples.pop()
    }

    /// The whole track's length, once a holder has told it.
    #[must_use]
    pub const fn track_bytes(&self) -> Option<u64> {
        self.track_bytes
    }

    /// How long it waits. Its [`whole`](ReadDeadlines::whole) has moved on by the time that the reader was elsewhere.
    #[must_use]
    pub const fn deadlines(&self) -> ReadDeadlines {
        self.deadlines
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
