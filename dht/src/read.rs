//! Whom to ask for a track, and when it may be called absent.

use std::collections::VecDeque;

use crate::failure::{Failure, FailureKind, Verdict};
use crate::{Policy, Targets};

/// How often one holder is asked in one read: again only after it gave bytes and then broke off.
const ASKS_PER_HOLDER_MAX: u8 = 3;

/// Whom a read asks, and whose word on absence counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Readers {
    /// The holders (indexes) in the order in which they are asked, each once.
    pub order: Vec<Reader>,
    /// Those whose *absent* counts: the first set.
    pub voters: Vec<usize>,
    /// How many of them make a quorum.
    pub read_quorum: usize,
    /// The epoch at which all this is so. An answer of *absent* from another epoch does not count.
    pub epoch: u64,
}

/// A holder that a read may ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reader {
    /// Which one.
    pub holder: usize,
    /// How long its first byte may take before the next is asked beside it; none: for ever.
    pub hedge_ms: Option<u64>,
    /// Whether it was out of reach when last heard of: nobody is asked beside another only to ask one that is down.
    pub is_down: bool,
}

impl Readers {
    /// The holders of `targets`, asked in this order. [`Latency::order`](crate::Latency::order) makes one.
    #[must_use]
    pub fn new(targets: &Targets, policy: &Policy, order: Vec<Reader>) -> Self {
        let voters = (0..targets.holders().len()).filter(|holder| targets.is_first(*holder)).collect();
        Self { order, voters, read_quorum: policy.read_quorum(targets.first_count()), epoch: targets.epoch() }
    }
}

/// The rules of one read: holder after holder, until one answers, or enough say that there is nothing.
///
/// The driver asks the holder that [`poll`](Self::poll) names, tells what it answered (`handle_*`), and polls again.
/// One holder that knows of a takedown ends it. Whatever else goes wrong is *Failed* once all holders were asked.
///
/// **NotFound** needs a read quorum of the first set that said *absent* at this read's epoch, none that ever had the
/// track, and none that has a newer map. It is sound because every acknowledged put has a write quorum in the
/// first set, and because a holder says *absent* only while it is sure to have what it should: one that is not (it came
/// back with an old disk, say) answers [`Busy`](FailureKind::Busy), which is a failure and counts for nothing. A holder
/// of the second set is asked for bytes, never for absence.
#[derive(Clone, Debug)]
pub struct ReadPlan {
    order: VecDeque<Reader>,
    voters: Vec<usize>,
    read_quorum: usize,
    epoch: u64,
    answers: Vec<Answer>,
    asking: Option<usize>,
    seen: bool,
    answered: bool,
    /// The newest epoch that a holder told of, and whether the driver knows.
    moved: Option<u64>,
    moved_told: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Answer {
    asks: u8,
    last: Option<Said>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Said {
    Absent,
    Failed(Failure),
}

/// What the driver does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadStep {
    /// Ask this holder (an index), and wait for its answer if it was asked already.
    Ask {
        /// Which holder.
        holder: usize,
    },
    /// The answer was given: done.
    Done,
    /// A read quorum says that there is no such track.
    NotFound,
    /// A holder has a newer map: fetch it and read anew. Where it cannot be had, poll again: the others are asked, but
    /// none of them makes the track *not found* any more. Said once an epoch.
    Moved {
        /// The newest epoch that a holder told of.
        epoch: u64,
    },
    /// No holder could answer. [`failures`](ReadPlan::failures) says why, holder by holder.
    Failed(Verdict),
}

impl ReadPlan {
    /// A read from these holders.
    #[must_use]
    pub fn new(readers: Readers) -> Self {
        let most = readers.order.iter().map(|reader| reader.holder + 1).max().unwrap_or(0);
        Self {
            order: readers.order.into(),
            voters: readers.voters,
            read_quorum: readers.read_quorum.max(1),
            epoch: readers.epoch,
            answers: vec![Answer::default(); most],
            asking: None,
            seen: false,
            answered: false,
            moved: None,
            moved_told: None,
        }
    }

    /// What to do next, for a driver that asks one holder at a time.
    pub fn poll(&mut self) -> ReadStep {
        if let Some(step) = self.conclusion() {
            return step;
        }
        if let Some(holder) = self.asking {
            return ReadStep::Ask { holder };
        }
        match self.next_reader() {
            Ok(reader) => {
                self.asking = Some(reader.holder);
                ReadStep::Ask { holder: reader.holder }
            }
            Err(step) => step,
        }
    }

    /// How the read ends, if it does whatever else is answered.
    pub(crate) fn conclusion(&self) -> Option<ReadStep> {
        let taken_down = self.failures().find_map(|(_, failure)| match failure.kind {
            FailureKind::TakenDown { number } => Some(number),
            _ => None,
        });
        if let Some(number) = taken_down {
            return Some(ReadStep::Failed(Verdict::TakenDown { number }));
        }
        if self.answered {
            return Some(ReadStep::Done);
        }
        let votes = self.voters.iter().filter(|voter| self.said_absent(**voter)).count();
        (!self.seen && self.moved.is_none() && votes >= self.read_quorum).then_some(ReadStep::NotFound)
    }

    /// Whom to ask next, or what the driver is told instead.
    pub(crate) fn next_reader(&mut self) -> Result<Reader, ReadStep> {
        if self.moved > self.moved_told
            && let Some(epoch) = self.moved
        {
            self.moved_told = self.moved;
            return Err(ReadStep::Moved { epoch });
        }
        let Some(reader) = self.order.pop_front() else {
            return Err(ReadStep::Failed(Verdict::of(self.failures().map(|(_, failure)| failure))));
        };
        self.answers[reader.holder].asks += 1;
        Ok(reader)
    }

    /// Whether another holder is left to ask that is not known to be down.
    pub(crate) fn has_another_up(&self) -> bool {
        self.order.front().is_some_and(|reader| !reader.is_down)
    }

    /// Whom to ask beside another, if there is one who is up.
    pub(crate) fn next_beside(&mut self) -> Option<Reader> {
        if !self.has_another_up() {
            return None;
        }
        let reader = self.order.pop_front()?;
        self.answers[reader.holder].asks += 1;
        Some(reader)
    }

    /// A holder has the track. From here on it cannot be called absent.
    pub fn handle_seen(&mut self) {
        self.seen = true;
    }

    /// A holder gave all that was asked for.
    pub fn handle_answered(&mut self) {
        self.seen = true;
        self.answered = true;
        self.asking = None;
    }

    /// The holder, whose map has this epoch, says that it does not have the track. At a newer epoch than the read's
    /// that is a word of the newer map and nothing more, at an older one it counts for nothing.
    pub fn handle_absent(&mut self, holder: usize, epoch: u64) {
        let said = match epoch.cmp(&self.epoch) {
            std::cmp::Ordering::Equal => Said::Absent,
            std::cmp::Ordering::Greater => {
                let why = format!("does not have it, by the map of epoch {epoch}");
                return self.handle_failed(holder, Failure::new(FailureKind::Moved { epoch }, why), None);
            }
            std::cmp::Ordering::Less => {
                Said::Failed(Failure::new(FailureKind::Refused, format!("has an old map, of epoch {epoch}")))
            }
        };
        self.forget_asking(holder);
        self.answers[holder].last = Some(said);
    }

    /// The holder failed. `progress`: it gave some of the bytes before, so that it may be asked once more, after all
    /// others.
    pub fn handle_failed(&mut self, holder: usize, mut failure: Failure, progress: Option<Reader>) {
        self.forget_asking(holder);
        if let FailureKind::Moved { epoch } = failure.kind {
            if epoch > self.epoch {
                self.moved = self.moved.max(Some(epoch));
            } else {
                failure.kind = FailureKind::Refused;
            }
        }
        // A copy that is damaged is still a sign that the track was stored.
        self.seen |= failure.kind == FailureKind::Corrupt;
        self.answers[holder].last = Some(Said::Failed(failure));
        if let Some(reader) = progress
            && self.answers[holder].asks < ASKS_PER_HOLDER_MAX
        {
            self.order.push_back(reader);
        }
    }

    /// The holder was asked beside another, who was faster: it may be asked again, before those that were not.
    pub(crate) fn handle_passed_over(&mut self, reader: Reader) {
        if self.answers[reader.holder].asks < ASKS_PER_HOLDER_MAX {
            self.order.push_front(reader);
        }
    }

    fn forget_asking(&mut self, holder: usize) {
        if self.asking == Some(holder) {
            self.asking = None;
        }
    }

    /// The holders that failed, by index, and why.
    pub fn failures(&self) -> impl Iterator<Item = (usize, &Failure)> + Clone {
        self.answers.iter().enumerate().filter_map(|(index, answer)| match &answer.last {
            Some(Said::Failed(failure)) => Some((index, failure)),
            _ => None,
        })
    }

    fn said_absent(&self, holder: usize) -> bool {
        self.answers.get(holder).is_some_and(|answer| answer.last == Some(Said::Absent))
    }

    /// How many holders, of either set, said that they do not have the track.
    #[must_use]
    pub fn absent(&self) -> usize {
        (0..self.answers.len()).filter(|holder| self.said_absent(*holder)).count()
    }
}
