//! The system drive: the history, the voter's durable state and the takedowns' file. What is given to it takes hold in
//! order; a crash leaves a prefix.

use std::collections::{BTreeMap, VecDeque};

use deadwax_dht::LayoutCache;
use deadwax_dht::core::Kept;
use deadwax_dht::log::{Batch, Durable, History, Persist};
use deadwax_dht::takedown::{Standing, Takedown};

use crate::clock::{MILLI, Micros};
use crate::random::Random;

/// One thing to make durable.
#[derive(Clone, Debug)]
pub(crate) enum SystemOp {
    Save(Box<Batch>),
    Stand(Standing),
    Persist(u64, Box<Persist>),
    TakeSeat(u64),
    DropSeat(u64),
    Append(u64, Vec<Takedown>),
}

/// A node's system drive.
#[derive(Clone, Debug, Default)]
pub(crate) struct System {
    pub(crate) history: Option<History>,
    pub(crate) seats: BTreeMap<u64, Durable>,
    pub(crate) takedowns: Vec<Takedown>,
    /// How whole the file of takedowns is.
    pub(crate) standing: Standing,
    /// The newest start of this node, in ms since 1970: the next is later, whatever the wall clock shows.
    pub(crate) life: u64,
    pending: VecDeque<SystemOp>,
    busy_until: Micros,
    /// How many times slower than it should be.
    pub(crate) slow: u64,
    /// Votes made durable that were not counted yet.
    pub(crate) votes: u64,
    /// An image of the drive: the history and the file of takedowns as they were then.
    image: Option<(Option<History>, Vec<Takedown>)>,
}

impl System {
    pub(crate) fn new(history: Option<History>, seat: Option<Durable>, standing: Standing) -> Self {
        let seats = seat.into_iter().map(|durable| (durable.seat, durable)).collect();
        Self { history, seats, standing, slow: 1, ..Self::default() }
    }

    /// Takes an operation; it is durable at the time that is returned.
    pub(crate) fn begin(&mut self, now: Micros, op: SystemOp, random: &mut Random) -> Micros {
        self.pending.push_back(op);
        let work = random.between(MILLI / 2, 4 * MILLI) * self.slow;
        self.busy_until = self.busy_until.max(now) + work;
        self.busy_until
    }

    /// The next operation is durable.
    pub(crate) fn finish(&mut self, layouts: &LayoutCache) -> Option<SystemOp> {
        let op = self.pending.pop_front()?;
        self.apply(&op, layouts);
        Some(op)
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    fn apply(&mut self, op: &SystemOp, layouts: &LayoutCache) {
        match op {
            SystemOp::Save(batch) => match &mut self.history {
                Some(history) => {
                    layouts.catch_up(history, batch).expect("a core saves what follows what it saved before");
                }
                None => self.history = Some(History::from_batch(batch).expect("a core saves a whole history first")),
            },
            SystemOp::Persist(seat, step) => {
                let durable = self.seats.get_mut(seat).expect("a voter writes to a seat that it took");
                let before = durable.vote;
                durable.apply(step);
                let cast =
                    durable.vote.seat != 0 && (durable.vote.term, durable.vote.seat) != (before.term, before.seat);
                self.votes += u64::from(cast);
            }
            SystemOp::TakeSeat(seat) => {
                self.seats.insert(*seat, Durable::joining(*seat));
            }
            SystemOp::DropSeat(seat) => {
                self.seats.remove(seat);
            }
            SystemOp::Stand(standing) => self.standing = *standing,
            SystemOp::Append(_, takedowns) => self.takedowns.extend_from_slice(takedowns),
        }
    }

    /// The process dies: a part of what was under way, from the first on, is durable all the same. Returns how many steps
    /// were lost.
    pub(crate) fn crash(&mut self, layouts: &LayoutCache, random: &mut Random) -> usize {
        while !self.pending.is_empty() && random.percent(50) {
            self.finish(layouts);
        }
        let lost = self.pending.len();
        self.pending.clear();
        self.busy_until = 0;
        lost
    }

    /// What a core finds when it starts.
    pub(crate) fn kept(&self) -> Kept {
        Kept {
            history: self.history.clone(),
            voter: self.seats.last_key_value().map(|(_, durable)| durable.clone()),
            takedowns: self.takedowns.clone(),
            standing: self.standing,
        }
    }

    /// The drive is new and empty. What is kept of it is when the node last started: people make sure of that.
    pub(crate) fn lost(&self) -> Self {
        Self { life: self.life, slow: 1, ..Self::default() }
    }

    /// A copy of the drive. A voter's promises are not in it: a seat from a copy must not vote, and the file of takedowns
    /// is not whole. Whoever copies a drive knows both.
    pub(crate) fn copy(&self) -> Self {
        let (history, takedowns) = (self.history.clone(), self.takedowns.clone());
        Self { history, takedowns, ..self.lost() }
    }

    pub(crate) fn take_image(&mut self) {
        self.image = Some((self.history.clone(), self.takedowns.clone()));
    }

    /// The drive as the image that was taken of it has it: as little of it counts as of a copy. None: there is no image.
    pub(crate) fn old_image(&self) -> Option<Self> {
        let (history, takedowns) = self.image.clone()?;
        Some(Self { history, takedowns, ..self.lost() })
    }
}
