//! The system drive: what a node's core must find again when it starts, in the node's own directory.
//!
//! ```text
//! DIR/system/journal      the history, the voter's seats, the standing, the life: a checkpoint, and records since
//! DIR/system/journal.new  a journal that is being made; of no meaning
//! DIR/system/takedowns    the takedowns, 256 bytes each, that of slot s at s times this
//! ```
//!
//! **Promise.** What [`System::apply`] returned for is there after any crash, and of what was under way a prefix. Where
//! the drive did not keep that [`System::open`] gives an error, but for what is named below. Any bytes give a state or an
//! error.
//!
//! **Order.** The journal alone says what happened, in its order. Takedowns are written and flushed to their file
//! before anything of the same call goes to the journal, and count only by a record there, which names how many there
//! are and the CRC-32 of them all. So one call costs one flush, or two if it has takedowns, in whatever order its
//! operations come; and of a journal cut anywhere what is left is a prefix of them, each whole.
//!
//! **What happens on each failure.**
//!
//! - *The process dies, or the machine:* records that do not follow whole on those before them are left out at the next
//!   start. They can only be of the last flush, which did not return: each record says how many were durable when it
//!   was written, and a whole one that says so of a bad one proves damage. Takedowns that no record counts are cut off.
//! - *Bits rot:* damage, except in the journal's last flush, where it looks as if that one had been torn. Each start
//!   writes the journal anew, so that this is never of an earlier process.
//! - *A write or a flush fails:* the system may drop what it could not write and say nothing of it again. So this
//!   [`System`] is poisoned, the process must end, and the next one trusts none of the pages that were left in memory:
//!   it writes what it found to a new file.
//! - *A crash while the journal is written anew:* the new one gets its name when it is durable, and nothing is appended
//!   to it before that name is. The earlier one, if it comes back, says the same.
//! - *The state is lost, or damaged:* the operator removes the directory, and the node joins anew. It keeps its tracks,
//!   not its seat. That its new life is after its last one is then up to its clock.
//! - *The state is copied, or an old image is put back:* nothing here can tell.
//!
//! **Who calls.** One thread, "system", which may block; the caller holds the node's lock. Shards never wait for a
//! drive here.
//!
//! **Where to start.** [`System`]. Inside: `format` the bytes of the journal, `record` what its records say, `state`
//! what they add up to, `journal` writes them, `load` reads them, `takedowns` is the other file.
//!
//! **Absent on purpose.** What a core remembers of the moves of epochs that its history keeps no records of: after a
//! start it says that any partition may have moved in them. Signatures of takedowns: the core checks them.

mod format;
mod journal;
mod load;
mod record;
mod state;
mod takedowns;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use deadwax_dht::core::Kept;
use deadwax_dht::log::{Batch, Durable, History, Persist};
use deadwax_dht::takedown::{Standing, Takedown};

use self::journal::{JOURNAL, Journal, sync_dir};
use self::record::Record;
use self::state::State;
use self::takedowns::{TAKEDOWNS, TakedownFile};
use crate::Error;

/// The state's directory, in the node's.
const SYSTEM: &str = "system";

/// One thing to make durable: an effect of a core.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum SystemOp {
    /// Records of the map log, after those before; the first batch is a whole history.
    Save(Box<Batch>),
    /// How whole the file of takedowns is.
    Stand(Standing),
    /// A step of the voter in this seat.
    Persist(u64, Box<Persist>),
    /// The voter takes this seat.
    TakeSeat(u64),
    /// The seat is of no use any more.
    DropSeat(u64),
    /// Takedowns, behind those before; the number is the core's.
    Append(u64, Vec<Takedown>),
    /// Another process of this node's name started then, in ms since 1970: the next start is later.
    Life(u64),
}

/// What a node found when it started.
#[derive(Debug)]
pub(crate) struct Found {
    /// For the core.
    pub(crate) kept: Kept,
    /// This start, in ms since 1970: after all earlier ones, and durable.
    pub(crate) life: u64,
}

/// A node's system drive. See the module's doc.
#[derive(Debug)]
pub(crate) struct System {
    dir: PathBuf,
    journal: Journal,
    takedowns: TakedownFile,
    /// What is durable; while a call is under way, what will be.
    state: State,
    /// Guards against a write after one that failed: what is durable is not known.
    poisoned: bool,
}

impl System {
    /// Whether the node in `dir` has a part in a cluster's log: whatever is there, it must not begin another.
    pub(crate) fn is_in(dir: &Path) -> bool {
        Self::dir(dir).exists()
    }

    /// Where the state of the node in `dir` is.
    pub(crate) fn dir(dir: &Path) -> PathBuf {
        dir.join(SYSTEM)
    }

    /// Makes the state of a node that founds a cluster, in the node's directory `dir`, durably; `seat` where it votes.
    ///
    /// # Errors
    /// [`Error::SystemTaken`] where there is a state, unless it is this very one and was never opened. A directory that
    /// cannot be written: what was made stays, and a second call goes on from it.
    pub(crate) fn found(dir: &Path, history: &History, seat: Option<u64>) -> Result<(), Error> {
        let seats = seat.map(|seat| (seat, Durable::founding(seat, history))).into_iter().collect();
        let state = State { history: Some(history.clone()), seats, standing: Standing::WHOLE, ..State::default() };
        make(dir, &state)
    }

    /// Makes the state of a node that joins a cluster, durably: it knows nothing yet.
    ///
    /// # Errors
    /// As of [`found`](Self::found).
    pub(crate) fn join(dir: &Path) -> Result<(), Error> {
        make(dir, &State::default())
    }

    /// The history of the node in `dir`, and the state of its newest seat, where it has them. Nothing is changed.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub(crate) fn read(dir: &Path) -> Result<(Option<History>, Option<Durable>), Error> {
        let state = Self::load(dir)?;
        Ok((state.history, state.seats.into_values().last()))
    }

    /// Puts `history`, in which the log began anew with this node's `seat`, in place of the one before, durably; of its seats
    /// it has this one alone. Takedowns count as before, but the node for nobody until it has asked all that are left.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub(crate) fn refound(dir: &Path, history: &History, seat: u64) -> Result<(), Error> {
        let mut state = Self::load(dir)?;
        let dir = dir.join(SYSTEM);
        TakedownFile::open(&dir, state.takedowns)?;
        state.seats = [(seat, Durable::founding(seat, history))].into();
        state.history = Some(history.clone());
        state.standing.counts = false;
        Journal::create(&dir, &state).map(drop)
    }

    fn load(dir: &Path) -> Result<State, Error> {
        let dir = dir.join(SYSTEM);
        if let Some(state) = load::load(&dir)? {
            return Ok(state);
        }
        no_takedowns(&dir)?;
        Err(Error::NotInitialised { what: "the node's system state", path: dir.join(JOURNAL) })
    }

    /// Opens the state in the node's directory `dir`. `clock_ms`: the wall clock, in ms since 1970; the life of this
    /// start is the clock, or one more than the last where the clock is not beyond it. It is durable on return, as is
    /// all that was found.
    ///
    /// # Errors
    /// [`Error::NotInitialised`] where there is none; [`Error::SystemDamaged`] and [`Error::SystemVersion`] say what
    /// the operator does.
    pub(crate) fn open(dir: &Path, clock_ms: u64) -> Result<(Self, Found), Error> {
        let mut state = Self::load(dir)?;
        let dir = dir.join(SYSTEM);
        let takedowns = TakedownFile::open(&dir, state.takedowns)?;
        let records = takedowns.read_all(state.takedowns)?;
        let Some(after) = state.life.checked_add(1) else {
            return Err(damaged(&dir, JOURNAL, "no start can be after the last one".to_owned()));
        };
        state.life = clock_ms.max(after);
        let kept = Kept {
            history: state.history.clone(),
            voter: state.seats.last_key_value().map(|(_, durable)| durable.clone()),
            takedowns: records,
            standing: state.standing,
        };
        let found = Found { kept, life: state.life };
        // In place of the one that was found: see the module's doc for what else that is good for.
        let journal = Journal::create(&dir, &state)?;
        Ok((Self { dir, journal, takedowns, state, poisoned: false }, found))
    }

    /// Makes `ops` durable, in order: all of them are on return. A crash before leaves a prefix of them.
    ///
    /// # Errors
    /// The drive refuses. What is durable is then not known, and every later call gives [`Error::SystemPoisoned`]: the
    /// process must end.
    ///
    /// # Panics
    /// Where an operation is not what a core gives after those before: a batch that does not follow the history, a step
    /// of a seat that was not taken. It is not written.
    pub(crate) fn apply(&mut self, ops: &[SystemOp]) -> Result<(), Error> {
        if self.poisoned {
            return Err(Error::SystemPoisoned(self.dir.clone()));
        }
        self.poisoned = true;
        let mut marks = self.takedowns.append(self.state.takedowns, ops)?.into_iter();
        for op in ops {
            let record = match op {
                SystemOp::Save(batch) => Record::Save(Cow::Borrowed(batch)),
                SystemOp::Stand(standing) => Record::Stand(*standing),
                SystemOp::Persist(seat, step) => Record::Persist(*seat, Cow::Borrowed(step)),
                SystemOp::TakeSeat(seat) => Record::TakeSeat(*seat),
                SystemOp::DropSeat(seat) => Record::DropSeat(*seat),
                SystemOp::Append(..) => Record::Appended(marks.next().expect("one for each append")),
                SystemOp::Life(life) => Record::Life(*life),
            };
            // Before it is written: what cannot be taken now could not be taken at the next start either.
            self.state.apply(&record).unwrap_or_else(|why| panic!("the core gave what cannot be kept: {why}"));
            self.journal.push(&record)?;
        }
        self.journal.sync()?;
        self.journal.shorten(&self.state)?;
        self.poisoned = false;
        Ok(())
    }

    /// The takedowns of these slots, read from the file.
    ///
    /// # Errors
    /// A slot that there is not, a record that is damaged, a drive that refuses: the core is told that there are none.
    pub(crate) fn read_takedowns(&self, slots: &[u32]) -> Result<Vec<Takedown>, Error> {
        self.takedowns.read(self.state.takedowns.count, slots)
    }

    /// The epoch of the saved history; 0 where there is none.
    pub(crate) fn epoch(&self) -> u64 {
        self.state.history.as_ref().map_or(0, History::epoch)
    }
}

/// Makes `state` the first in the node's directory.
fn make(node_dir: &Path, state: &State) -> Result<(), Error> {
    let dir = node_dir.join(SYSTEM);
    match fs::create_dir(&dir) {
        Err(why) if why.kind() != ErrorKind::AlreadyExists => return Err(Error::Dir { dir, why }),
        _ => sync_dir(node_dir)?,
    }
    match fs::metadata(dir.join(JOURNAL)) {
        Err(why) if why.kind() == ErrorKind::NotFound => {}
        Err(why) => return Err(io(&dir, JOURNAL, "read")(why)),
        Ok(there) => {
            let (bytes, _) = journal::image(state);
            let read = || fs::read(dir.join(JOURNAL)).map_err(io(&dir, JOURNAL, "read"));
            if there.len() != bytes.len() as u64 || read()? != bytes {
                return Err(Error::SystemTaken(dir));
            }
        }
    }
    no_takedowns(&dir)?;
    TakedownFile::open(&dir, state.takedowns)?;
    // Also over one that is equal: whether it is durable is not known.
    Journal::create(&dir, state).map(drop)
}

/// Takedowns without the journal that counts them are of a state that lost it.
fn no_takedowns(dir: &Path) -> Result<(), Error> {
    match fs::metadata(dir.join(TAKEDOWNS)) {
        Ok(file) if file.len() > 0 => {
            Err(damaged(dir, JOURNAL, "takedowns are there that no journal counts".to_owned()))
        }
        Err(why) if why.kind() != ErrorKind::NotFound => Err(io(dir, TAKEDOWNS, "read")(why)),
        _ => Ok(()),
    }
}

fn damaged(dir: &Path, file: &'static str, why: String) -> Error {
    Error::SystemDamaged { dir: dir.to_owned(), file, why }
}

fn io(dir: &Path, file: &'static str, doing: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    let path = dir.join(file);
    move |why| Error::SystemIo { doing, path, why }
}
