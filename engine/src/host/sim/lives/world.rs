//! Random operations on a volume, beside the map that says what they may answer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use deadwax_track::{KIB, TrackId};

use super::fixture::{audio, compressible, put, tags};
use super::oracle::{Known, Oracle, compare};
use crate::config::COMPRESSED_TRACK_BYTES_MIN;
use crate::sim::{Dice, SimHost};
use crate::{Error, ErrorKind, Volume};

/// What can be done to a volume, and how often it is.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Put,
    /// Two puts of the same track at once.
    PutTwice,
    /// A put of what is there, or was taken down.
    PutAgain,
    AbortPut,
    Get,
    Range,
    Info,
    Presence,
    TakeDown,
    Delete,
    Compact,
    Scrub,
    /// Of an id that was never put.
    TakeDownAhead,
}

const WEIGHTS: [(Operation, u64); 13] = [
    (Operation::Put, 26),
    (Operation::PutTwice, 1),
    (Operation::PutAgain, 3),
    (Operation::AbortPut, 4),
    (Operation::Get, 20),
    (Operation::Range, 25),
    (Operation::Info, 5),
    (Operation::Presence, 8),
    (Operation::TakeDown, 3),
    (Operation::Delete, 12),
    (Operation::Compact, 1),
    (Operation::Scrub, 1),
    (Operation::TakeDownAhead, 1),
];

/// So much that a pass is over soon.
const SCRUB_BYTES_PER_SECOND: u64 = 1 << 40;
/// How often a pick among the known ids is repeated where an id does not suit.
const PICKS_MAX: usize = 8;

/// Volumes that are open, and what they should hold. Shared by all tasks of a life.
pub(super) struct World {
    pub(super) host: SimHost,
    pub(super) volumes: Vec<Volume<SimHost>>,
    pub(super) oracle: Rc<RefCell<Oracle>>,
    pub(super) dice: RefCell<Dice>,
    /// Counts the operations that were begun.
    pub(super) operations: Rc<Cell<u64>>,
    /// Whether the drive fails: then operations may answer Io, Corrupt, Fenced and NotFound.
    pub(super) faulty: bool,
}

impl World {
    fn roll(&self, below: u64) -> u64 {
        self.dice.borrow_mut().roll(below)
    }

    fn volume(&self, id: &TrackId) -> &Volume<SimHost> {
        &self.volumes[id.shard(self.volumes.len())]
    }

    /// Mostly small, some of a few frames, few of several writes or pieces; many on the edges of blocks and frames.
    fn size(&self) -> u64 {
        match self.roll(200) {
            0 => 64 * KIB + self.roll(640 * KIB),
            1..3 => 64 * KIB + self.roll(72 * KIB),
            3..8 => 1 + self.roll(100 * KIB),
            8..20 => 65_496 - 2 + self.roll(4),
            20..40 => 4056 - 2 + self.roll(4),
            40..120 => 1 + self.roll(3000),
            _ => 1 + self.roll(20 * KIB),
        }
    }

    /// A track that was never seen, known from now on to be absent and busy.
    fn new_track(&self) -> (TrackId, Rc<[u8]>) {
        let size = self.size();
        let make = if size >= COMPRESSED_TRACK_BYTES_MIN && self.roll(3) > 0 { compressible } else { audio };
        let bytes: Rc<[u8]> = make(self.dice.borrow_mut().number(), size).into();
        let id = TrackId::of(&bytes);
        // Tracks of a byte or two come again.
        if self.oracle.borrow().tracks.contains_key(&id) {
            return self.longer(&bytes);
        }
        let known = Known { busy: true, ..Known::absent(bytes.clone()) };
        self.oracle.borrow_mut().tracks.insert(id, known);
        (id, bytes)
    }

    fn longer(&self, bytes: &[u8]) -> (TrackId, Rc<[u8]>) {
        let bytes: Rc<[u8]> = [bytes, &self.dice.borrow_mut().number().to_le_bytes()].concat().into();
        let id = TrackId::of(&bytes);
        let known = Known { busy: true, ..Known::absent(bytes.clone()) };
        self.oracle.borrow_mut().tracks.insert(id, known);
        (id, bytes)
    }

    /// Any known id that nobody changes at the moment and that `suits`.
    fn pick(&self, suits: impl Fn(&Known) -> bool) -> Option<(TrackId, Known)> {
        let oracle = self.oracle.borrow();
        for _ in 0..PICKS_MAX {
            let mut probe = [0; 32];
            probe[..8].copy_from_slice(&self.dice.borrow_mut().number().to_be_bytes());
            let probe = TrackId::from_bytes(probe);
            let mut near = oracle.tracks.range(probe..).chain(oracle.tracks.iter());
            let (id, known) = near.next()?;
            if !known.busy && suits(known) {
                return Some((*id, known.clone()));
            }
        }
        None
    }

    fn change(&self, id: &TrackId, change: impl FnOnce(&mut Known)) {
        change(self.oracle.borrow_mut().known(id));
    }

    /// One random operation.
    pub(super) async fn step(&self) {
        self.operations.set(self.operations.get() + 1);
        let mut roll = self.roll(WEIGHTS.iter().map(|(_, weight)| weight).sum());
        let mut chosen = Operation::Put;
        for (operation, weight) in WEIGHTS {
            if roll < weight {
                chosen = operation;
                break;
            }
            roll -= weight;
        }
        match chosen {
            Operation::Put => self.put().await,
            Operation::PutTwice => self.put_twice().await,
            Operation::PutAgain => self.put_again().await,
            Operation::AbortPut => self.abort_put().await,
            Operation::Get => self.get(true).await,
            Operation::Range => self.get(false).await,
            Operation::Info => self.info().await,
            Operation::Presence => self.presence().await,
            Operation::Delete => self.delete().await,
            Operation::Compact => self.compact().await,
            Operation::Scrub => self.scrub().await,
            Operation::TakeDown => self.take_down().await,
            Operation::TakeDownAhead => {
                let (id, _) = self.new_track();
                self.take_down_one(id).await;
            }
        }
    }

    async fn put(&self) {
        let (id, bytes) = self.new_track();
        self.change(&id, |known| known.present = true);
        let outcome = put(self.volume(&id), &bytes).await;
        self.put_ended(&id, outcome.map(drop));
    }

    fn put_ended(&self, id: &TrackId, outcome: Result<(), Error>) {
        self.host.note(format_args!("put {id}: {outcome:?}"));
        self.change(id, |known| {
            known.busy = false;
            match outcome {
                Ok(()) => known.set_present(),
                // The machine may be full, or busy with other puts: then nothing was stored.
                Err(error) if matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::Busy) => known.set_absent(),
                Err(error) => self.expect_fault(&error),
            }
        });
    }

    /// Only a drive that fails may answer so.
    fn expect_fault(&self, error: &Error) {
        let kinds = [ErrorKind::Io, ErrorKind::Corrupt, ErrorKind::Fenced, ErrorKind::NotFound, ErrorKind::NoSpace];
        assert!(self.faulty && kinds.contains(&error.kind()), "on a drive that works: {error}");
    }

    async fn put_twice(&self) {
        let (id, bytes) = self.new_track();
        self.change(&id, |known| known.present = true);
        let [one, other] = [(); 2].map(|()| {
            let (volume, bytes) = (self.volume(&id).clone(), bytes.clone());
            self.host.task(async move { put(&volume, &bytes).await })
        });
        let (one, other) = (one.await, other.await);
        let stored = |kind| kind == ErrorKind::AlreadyStored;
        let outcome = match (one, other) {
            (Ok(_), Err(error)) | (Err(error), Ok(_)) => {
                if !stored(error.kind()) && error.kind() != ErrorKind::NoSpace {
                    self.expect_fault(&error);
                }
                Ok(())
            }
            // The first one's header was damaged before the second one came.
            (Ok(_), Ok(_)) if self.faulty => Ok(()),
            (Err(error), Err(other)) if !stored(error.kind()) && !stored(other.kind()) => Err(error),
            (one, other) => panic!("two puts at once: {one:?}, {other:?}"),
        };
        self.put_ended(&id, outcome);
    }

    async fn put_again(&self) {
        let Some((id, known)) = self.pick(|known| !known.absent) else { return };
        let outcome = self.volume(&id).put(id, known.bytes.len() as u64, &tags()).await.map(drop);
        // Somebody may have changed it meanwhile.
        let known = self.oracle.borrow_mut().known(&id).clone();
        match outcome.map_err(|error| error.kind()) {
            _ if known.busy || known.absent => {}
            Err(ErrorKind::AlreadyStored) => assert!(known.present, "{id}: {}", known.describe()),
            Err(ErrorKind::TakenDown) => assert!(!known.barred.is_empty(), "{id}: {}", known.describe()),
            other => assert!(self.faulty, "a put of what is known answered {other:?}"),
        }
    }

    async fn abort_put(&self) {
        let (id, bytes) = self.new_track();
        let outcome = self.volume(&id).put(id, bytes.len() as u64, &tags()).await;
        let mut outcome = match outcome {
            Ok(mut writer) => {
                let upto = self.dice.borrow_mut().index(bytes.len());
                writer.write(&bytes[..upto]).await
            }
            Err(error) => Err(error),
        };
        if matches!(&outcome, Err(error) if matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::Busy)) {
            outcome = Ok(());
        }
        outcome.unwrap_or_else(|error| self.expect_fault(&error));
        self.change(&id, |known| known.busy = false);
    }

    async fn get(&self, whole: bool) {
        let Some((id, known)) = self.pick(|known| known.present) else { return };
        let length = known.bytes.len();
        let (start, end) = if whole {
            (0, length)
        } else {
            let mut dice = self.dice.borrow_mut();
            let start = dice.index(length);
            (start, start + 1 + dice.index(length - start))
        };
        match compare(self.volume(&id), &id, &known.bytes, start, end).await {
            Ok(()) => {}
            Err(error) => self.expect_gone(&id, &error),
        }
    }

    /// A track that was present may have been taken down, or deleted, while it was read.
    fn expect_gone(&self, id: &TrackId, error: &Error) {
        match error {
            Error::TakenDown { .. } => {
                let barred = !self.oracle.borrow_mut().known(id).barred.is_empty();
                assert!(barred, "{id} is barred, and nobody took it down");
            }
            Error::NotFound(_) => {
                let gone = self.oracle.borrow_mut().known(id).absent;
                assert!(gone || self.faulty, "{id} is absent, and nobody deleted it");
            }
            error => self.expect_fault(error),
        }
    }

    async fn info(&self) {
        let Some((id, known)) = self.pick(Known::is_present) else { return };
        match self.volume(&id).info(&id).await {
            Ok(info) => assert_eq!((info.bytes, info.tags), (known.bytes.len() as u64, tags())),
            Err(error) => self.expect_gone(&id, &error),
        }
    }

    async fn presence(&self) {
        let Some((id, _)) = self.pick(|_| true) else { return };
        match self.volume(&id).presence(&id).await {
            Ok(seen) => {
                let mut oracle = self.oracle.borrow_mut();
                let known = oracle.known(&id);
                // Somebody may have begun to change it meanwhile.
                let right = known.busy || known.allows(seen);
                assert!(right || self.faulty, "{id} is {seen:?}: {}", known.describe());
            }
            Err(error) => self.expect_fault(&error),
        }
    }

    async fn delete(&self) {
        let Some((id, before)) = self.pick(|known| known.present || !known.barred.is_empty()) else { return };
        self.change(&id, |known| {
            known.busy = true;
            known.absent |= known.present;
        });
        let outcome = self.volume(&id).delete(&id).await;
        self.host.note(format_args!("delete of {id}: {outcome:?}"));
        self.change(&id, |known| {
            known.busy = false;
            match outcome {
                Ok(()) => {
                    assert!(before.present || self.faulty, "{id} was deleted: {}", before.describe());
                    known.present = false;
                    known.absent = true;
                }
                Err(error) => match error.kind() {
                    ErrorKind::TakenDown => {
                        assert!(!before.barred.is_empty(), "{id}: {}", before.describe());
                        known.absent = before.absent;
                    }
                    ErrorKind::NotFound => assert!(before.absent || self.faulty, "{id}: {}", before.describe()),
                    _ => self.expect_fault(&error),
                },
            }
        });
    }

    /// A whole pass, beside whatever else goes on. Of a drive that works it finds nothing damaged.
    async fn scrub(&self) {
        let index = self.dice.borrow_mut().index(self.volumes.len());
        match self.volumes[index].scrub_pass(SCRUB_BYTES_PER_SECOND).await {
            Ok(_) => {
                assert!(self.faulty || self.volumes[index].damage_found() == (0, 0), "damage on a drive that works")
            }
            // Another lane has it do so.
            Err(error) if error.kind() == ErrorKind::Invalid => {}
            Err(error) => self.expect_fault(&error),
        }
    }

    async fn compact(&self) {
        let index = self.dice.borrow_mut().index(self.volumes.len());
        match self.volumes[index].compact().await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NoSpace => {}
            Err(error) => self.expect_fault(&error),
        }
    }

    async fn take_down(&self) {
        let Some((id, _)) = self.pick(|_| true) else { return };
        self.take_down_one(id).await;
    }

    async fn take_down_one(&self, id: TrackId) {
        let number = self.roll(1_000_000);
        let mut first = BTreeSet::from([number]);
        self.change(&id, |known| {
            known.busy = true;
            // The number that was recorded first stays.
            if known.barred.is_empty() || known.absent || known.present {
                known.barred.insert(number);
            }
            first.clone_from(&known.barred);
        });
        let outcome = self.volume(&id).take_down(&id, number).await;
        self.host.note(format_args!("takedown of {id}: {outcome:?}"));
        self.change(&id, |known| {
            known.busy = false;
            match outcome {
                Ok(recorded) => {
                    let right = first.contains(&recorded) || self.faulty;
                    assert!(right, "{id}: takedown {recorded}, not one of {first:?}");
                    let others = std::mem::take(&mut known.barred);
                    known.set_barred(recorded);
                    // One that failed may be on the drive all the same, and was the first then.
                    known.barred.extend(others.into_iter().filter(|_| self.faulty));
                }
                Err(error) if error.kind() == ErrorKind::NoSpace => {
                    known.barred.remove(&number);
                }
                Err(error) => self.expect_fault(&error),
            }
        });
    }
}
