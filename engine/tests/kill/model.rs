//! What each track of a volume may be, by the story that was told until the process died.

use std::collections::{BTreeMap, BTreeSet};

use crate::story::{Line, Operation, Outcome};

/// What a volume can know of a track.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum State {
    Absent,
    Stored,
    TakenDown,
}

use State::{Absent, Stored, TakenDown};

/// All tracks that were ever named.
#[derive(Default)]
pub(crate) struct Model {
    tracks: BTreeMap<u64, Known>,
    /// How often each operation ended in which way.
    pub(crate) outcomes: BTreeMap<(Operation, Outcome), u64>,
    /// Puts that were stored after one was refused for want of space.
    pub(crate) stored_after_full: u64,
    /// Operations that had begun and not returned when their process died.
    pub(crate) cut_off: u64,
    /// Of those, how many had changed the track.
    pub(crate) cut_off_and_done: u64,
    /// Compactions that go on now.
    compacting: u64,
    /// Processes that died while segments were freed.
    pub(crate) killed_compacting: u64,
}

/// What a track may be at this moment.
struct Known {
    possible: BTreeSet<State>,
    /// The same before the operation that goes on now, or came last.
    before: BTreeSet<State>,
    /// Whether one goes on now.
    busy: bool,
}

impl Model {
    /// The number of a track that no story has named yet.
    pub(crate) fn next_number(&self) -> u64 {
        self.tracks.keys().next_back().map_or(0, |last| last + 1)
    }

    /// Takes in one line. Fails where what it tells cannot be.
    pub(crate) fn hear(&mut self, line: &Line) -> Result<(), String> {
        match line {
            Line::Opening | Line::Opened => {}
            Line::Compacting => self.compacting += 1,
            Line::Compacted => self.compacting -= 1,
            Line::Failed(why) => return Err(format!("under load: {why}")),
            Line::Begin(operation, number) => {
                let absent = BTreeSet::from([Absent]);
                let new = || Known { possible: absent.clone(), before: absent.clone(), busy: false };
                let known = self.tracks.entry(*number).or_insert_with(new);
                known.busy = true;
                known.before = known.possible.clone();
                known.possible.extend(known.before.iter().map(|state| after(*operation, *state)));
            }
            Line::End(operation, number, outcome) => {
                *self.outcomes.entry((*operation, *outcome)).or_default() += 1;
                let full = self.outcomes.contains_key(&(Operation::Put, Outcome::NoSpace));
                if full && (*operation, *outcome) == (Operation::Put, Outcome::Done) {
                    self.stored_after_full += 1;
                }
                let known = self.tracks.get_mut(number).ok_or_else(|| format!("track {number} ended, never begun"))?;
                known.busy = false;
                let states = known.before.iter().filter_map(|state| settle(*operation, *outcome, *state));
                known.possible = states.collect();
                if known.possible.is_empty() {
                    return Err(format!("{operation:?} of track {number} was {outcome:?}, it was {:?}", known.before));
                }
            }
        }
        Ok(())
    }

    /// The process died, and its story is told.
    pub(crate) fn killed(&mut self) {
        self.killed_compacting += u64::from(std::mem::take(&mut self.compacting) > 0);
    }

    /// The lowest number of a track that is stored for certain.
    pub(crate) fn oldest_stored(&self) -> u64 {
        let stored = |known: &Known| known.possible.iter().eq([&Stored]);
        self.tracks.iter().find(|(_, known)| stored(known)).map_or(0, |(number, _)| *number)
    }

    /// Notes what a track was found to be after the process died; from now on it is that. Fails where it cannot be.
    pub(crate) fn observe(&mut self, number: u64, state: State) -> Result<(), String> {
        let known = self.tracks.get_mut(&number).expect("observed by its number");
        if !known.possible.contains(&state) {
            return Err(format!("track {number} is {state:?}, it may only be {:?}", known.possible));
        }
        known.possible = BTreeSet::from([state]);
        self.cut_off += u64::from(known.busy);
        self.cut_off_and_done += u64::from(known.busy && !known.before.contains(&state));
        known.busy = false;
        Ok(())
    }

    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.tracks.keys().copied().collect()
    }

    /// How many tracks are, for certain, in this state.
    pub(crate) fn count(&self, state: State) -> u64 {
        self.tracks.values().filter(|known| known.possible.iter().eq([&state])).count() as u64
    }
}

/// What an operation, if it gets through, makes of a track.
fn after(operation: Operation, before: State) -> State {
    match (operation, before) {
        (Operation::Put, Absent) => Stored,
        (Operation::TakeDown, _) => TakenDown,
        (Operation::Delete, Stored) => Absent,
        (_, state) => state,
    }
}

/// What a track is once an operation ended with an outcome, if that can have been with what it was before.
fn settle(operation: Operation, outcome: Outcome, before: State) -> Option<State> {
    let expected = match (operation, outcome) {
        (Operation::Put | Operation::Abort, Outcome::Done | Outcome::NoSpace) | (_, Outcome::Missing) => Absent,
        (Operation::Read | Operation::Delete, Outcome::Done) | (_, Outcome::Stored) => Stored,
        (_, Outcome::Barred) => TakenDown,
        (Operation::TakeDown, Outcome::Done) => before,
        // None of them needs more space than the reserve has.
        (Operation::TakeDown | Operation::Delete | Operation::Read, Outcome::NoSpace) => return None,
    };
    let after = if outcome == Outcome::Done { after(operation, before) } else { before };
    (before == expected).then_some(after)
}
