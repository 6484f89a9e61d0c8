//! What the journal's records add up to.

use std::borrow::Cow;
use std::collections::BTreeMap;

use deadwax_dht::log::{BadHistory, Durable, History};
use deadwax_dht::takedown::Standing;

use super::record::Record;
use super::takedowns::Mark;

/// The most seats that are kept: the newest. A node has one, and two between taking the next and dropping the last;
/// each process that ends right there leaves one more, which no core ever asks for.
const SEATS_MAX: usize = 4;

/// What a node's core has given to keep.
#[derive(Clone, Default, Debug)]
pub(super) struct State {
    pub(super) history: Option<History>,
    pub(super) seats: BTreeMap<u64, Durable>,
    pub(super) standing: Standing,
    /// The newest start of this node that is known of, in ms since 1970.
    pub(super) life: u64,
    /// How many of the file's takedowns count.
    pub(super) takedowns: Mark,
}

/// A record does not follow those before it.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadStep {
    /// The batch is not what follows the history, or the first one is not whole.
    #[error(transparent)]
    History(#[from] BadHistory),
    /// A step of a seat that was not taken, or was dropped.
    #[error("it writes to seat {0}, which is not taken")]
    Seat(u64),
    /// Takedowns are only ever added.
    #[error("it counts {got} takedowns, after {before}")]
    Takedowns {
        /// How many it counts.
        got: u32,
        /// How many there were.
        before: u32,
    },
}

impl State {
    /// Takes one more record. Where that fails a part of it may be taken: the state is of no use any more.
    pub(super) fn apply(&mut self, record: &Record<'_>) -> Result<(), BadStep> {
        match record {
            // The next start is after all that were ever named, in whatever order.
            Record::Life(life) => self.life = self.life.max(*life),
            Record::Stand(standing) => self.standing = *standing,
            Record::Save(batch) => match &mut self.history {
                Some(history) => _ = history.catch_up(batch)?,
                None => self.history = Some(History::from_batch(batch)?),
            },
            Record::TakeSeat(seat) => self.seat(Durable::joining(*seat)),
            Record::DropSeat(seat) => _ = self.seats.remove(seat),
            Record::Persist(seat, step) => self.seats.get_mut(seat).ok_or(BadStep::Seat(*seat))?.apply(step),
            Record::Seat(durable) => self.seat(Durable::clone(durable)),
            Record::Appended(mark) => {
                let (got, before) = (mark.count, self.takedowns.count);
                if got < before {
                    return Err(BadStep::Takedowns { got, before });
                }
                self.takedowns = *mark;
            }
        }
        Ok(())
    }

    fn seat(&mut self, durable: Durable) {
        self.seats.insert(durable.seat, durable);
        if self.seats.len() > SEATS_MAX {
            self.seats.pop_first();
        }
    }

    /// The records that make this state of an empty one.
    pub(super) fn checkpoint(&self) -> Vec<Record<'_>> {
        let mut records = vec![Record::Life(self.life), Record::Stand(self.standing), Record::Appended(self.takedowns)];
        records.extend(self.history.iter().map(|history| Record::Save(Cow::Owned(history.since(0)))));
        records.extend(self.seats.values().map(|durable| Record::Seat(Cow::Borrowed(durable))));
        records
    }
}
