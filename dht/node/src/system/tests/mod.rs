//! The system drive against a model in memory, under crashes at every byte, rot, and drives that refuse.

#[path = "../../../../tests/rules/map_log/cluster.rs"]
#[allow(dead_code, reason = "each user of the clusters uses a part")]
mod cluster;
mod crash;
mod damage;
mod golden;
mod making;
#[path = "../../../../tests/rules/random.rs"]
mod random;
mod rewriting;
mod script;
mod steps;

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use deadwax_dht::log::{Durable, History};
use deadwax_dht::takedown::{Standing, Takedown};

use super::journal::{BESIDE, JOURNAL};
use super::takedowns::TAKEDOWNS;
use super::{SYSTEM, System, SystemOp};
use crate::Error;

/// What a system drive should hold.
#[derive(Clone, Default, PartialEq, Debug)]
struct Model {
    history: Option<History>,
    seats: BTreeMap<u64, Durable>,
    takedowns: Vec<Takedown>,
    standing: Standing,
    life: u64,
}

impl Model {
    fn apply(&mut self, op: &SystemOp) {
        match op {
            SystemOp::Save(batch) => match &mut self.history {
                Some(history) => _ = history.catch_up(batch).expect("it follows"),
                None => self.history = Some(History::from_batch(batch).expect("it is whole")),
            },
            SystemOp::Stand(standing) => self.standing = *standing,
            SystemOp::Persist(seat, step) => self.seats.get_mut(seat).expect("taken").apply(step),
            SystemOp::TakeSeat(seat) => _ = self.seats.insert(*seat, Durable::joining(*seat)),
            SystemOp::DropSeat(seat) => _ = self.seats.remove(seat),
            SystemOp::Append(_, takedowns) => self.takedowns.extend_from_slice(takedowns),
            SystemOp::Life(life) => self.life = self.life.max(*life),
        }
    }
}

/// Each model that `ops` lead to, from before the first to after the last.
fn models(start: Model, ops: &[SystemOp]) -> Vec<Model> {
    let mut all = vec![start];
    for op in ops {
        let mut next = all.last().expect("one").clone();
        next.apply(op);
        all.push(next);
    }
    all
}

/// What an opened drive holds, with its own life.
fn held(system: &System) -> Model {
    let state = &system.state;
    let slots: Vec<u32> = (0..state.takedowns.count).collect();
    Model {
        history: state.history.clone(),
        seats: state.seats.clone(),
        takedowns: system.read_takedowns(&slots).expect("they were read before"),
        standing: state.standing,
        life: state.life,
    }
}

/// Opens the drive and says what it held before this start.
fn look(dir: &Path) -> Result<Model, Error> {
    let (system, found) = System::open(dir, 0)?;
    let held = held(&system);
    let voter = held.seats.last_key_value().map(|(_, durable)| durable);
    assert_eq!((&found.kept.history, found.kept.voter.as_ref()), (&held.history, voter));
    assert_eq!((&found.kept.takedowns, found.kept.standing, found.life), (&held.takedowns, held.standing, held.life));
    assert_eq!(system.epoch(), held.history.as_ref().map_or(0, History::epoch));
    // The clock was 0: this start took one more than the life before.
    Ok(Model { life: held.life - 1, ..held })
}

fn assert_between(found: &Model, models: &[Model], allowed: RangeInclusive<usize>, what: &str) {
    assert!(models[allowed.clone()].contains(found), "{what}: not the state after {allowed:?} operations: {found:?}");
}

/// In memory where that can be had: what a crash leaves is modelled, and tens of thousands of flushes take their time.
fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// A node that founded a cluster, or joins one, and was opened once.
fn opened(dir: &Path, founds: bool) -> (System, Model) {
    if founds {
        System::found(dir, &cluster::history(5, 3), Some(1)).expect("nothing is there");
    } else {
        System::join(dir).expect("nothing is there");
    }
    let (system, _) = System::open(dir, 1_000).expect("just made");
    let model = held(&system);
    (system, model)
}

/// The bytes of a drive.
#[derive(Clone, Default, Debug)]
struct Files {
    journal: Vec<u8>,
    beside: Option<Vec<u8>>,
    takedowns: Vec<u8>,
}

impl Files {
    fn of(dir: &Path) -> Self {
        let read = |file| fs::read(path(dir, file));
        Self {
            journal: read(JOURNAL).expect("a journal"),
            beside: read(BESIDE).ok(),
            takedowns: read(TAKEDOWNS).expect("a file"),
        }
    }

    /// A drive of these bytes, in place of what is there.
    fn put(&self, dir: &Path) {
        fs::create_dir_all(dir.join(SYSTEM)).expect("a directory");
        fs::write(path(dir, JOURNAL), &self.journal).expect("written");
        fs::write(path(dir, TAKEDOWNS), &self.takedowns).expect("written");
        drop(fs::remove_file(path(dir, BESIDE)));
        if let Some(beside) = &self.beside {
            fs::write(path(dir, BESIDE), beside).expect("written");
        }
    }
}

fn path(dir: &Path, file: &str) -> PathBuf {
    dir.join(SYSTEM).join(file)
}
