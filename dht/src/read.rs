//! Whom to ask for a track, and when it may be called absent.

use std::collections::VecDeque;

use crate::failure::{Failure, FailureKind, Verdict};

/// How often one holder is asked in one read: again only after it gave bytes and then broke off.
const ASKS_PER_HOLDER_MAX: u8 = 3;

/// The rules of one read: holder after holder, until one answers, or enough say that there is nothing.
///
/// The driver asks the holder that [`poll`](Self::poll) names, tells what it answered (`handle_*`), and polls again.
/// *NotFound* needs a read quorum of distinct holders that said so, and none that ever had the track. One holder that
/// knows of a takedown ends it. Whatever else goes wrong is *Failed* once all holders were asked.
#[derive(Clone, Debug)]
pub struct ReadPlan {
    order: VecDeque<usize>,
    read_quorum: usize,
    answers: Vec<Answer>,
    asking: Option<usize>,
    seen: bool,
    answered: bool,
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
    /// No holder could answer. [`failures`](ReadPlan::failures) says why, holder by holder.
    Failed(Verdict),
}

impl ReadPlan {
    /// A read from holders (indexes) in this order. `read_quorum` as of [`Policy`](crate::Policy::read_quorum).
    #[must_use]
    pub fn new(order: &[usize], read_quorum: usize) -> Self {
        let most = order.iter().max().map_or(0, |most| most + 1);
        Self {
            order: order.iter().copied().collect(),
            read_quorum,
            answers: vec![Answer::default(); most],
            asking: None,
            seen: false,
            answered: false,
        }
    }

    /// What to do next.
    pub fn poll(&mut self) -> ReadStep {
        let verdict = Verdict::of(self.failures().map(|(_, failure)| failure));
        if let Verdict::TakenDown { .. } = verdict {
            return ReadStep::Failed(verdict);
        }
        if self.answered {
            return ReadStep::Done;
        }
        if let Some(holder) = self.asking {
            return ReadStep::Ask { holder };
        }
        if !self.seen && self.absent() >= self.read_quorum {
            return ReadStep::NotFound;
        }
        let Some(holder) = self.order.pop_front() else { return ReadStep::Failed(verdict) };
        self.answers[holder].asks += 1;
        self.asking = Some(holder);
        ReadStep::Ask { holder }
    }

    /// The asked holder has the track. From here on it cannot be called absent.
    pub fn handle_seen(&mut self) {
        self.seen = true;
    }

    /// The asked holder gave all that was asked for.
    pub fn handle_answered(&mut self) {
        self.seen = true;
        self.answered = true;
        self.asking = None;
    }

    /// The asked holder says that it does not have the track.
    pub fn handle_absent(&mut self) {
        if let Some(holder) = self.asking.take() {
            self.answers[holder].last = Some(Said::Absent);
        }
    }

    /// The asked holder failed. `progress`: it gave some of the bytes before, so that it may be asked once more, after
    /// all others.
    pub fn handle_failed(&mut self, failure: Failure, progress: bool) {
        if let Some(holder) = self.asking.take() {
            // A copy that is damaged is still a sign that the track was stored.
            self.seen |= failure.kind == FailureKind::Corrupt;
            self.answers[holder].last = Some(Said::Failed(failure));
            if progress && self.answers[holder].asks < ASKS_PER_HOLDER_MAX {
                self.order.push_back(holder);
            }
        }
    }

    /// The holders that failed, by index, and why.
    pub fn failures(&self) -> impl Iterator<Item = (usize, &Failure)> + Clone {
        self.answers.iter().enumerate().filter_map(|(index, answer)| match &answer.last {
            Some(Said::Failed(failure)) => Some((index, failure)),
            _ => None,
        })
    }

    /// How many holders said that they do not have the track.
    #[must_use]
    pub fn absent(&self) -> usize {
        self.answers.iter().filter(|answer| answer.last == Some(Said::Absent)).count()
    }
}
