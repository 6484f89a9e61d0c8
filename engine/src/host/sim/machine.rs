//! One life of the simulated machine: its tasks, its clock, its locks, and the way of every operation to the drive.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::disk::Disk;
use super::executor::Executor;
use super::settings::{Kind, SLOW};
use super::{Dice, Fault, LockError, Order};

pub(super) struct Machine {
    pub(super) executor: Executor,
    disk: Rc<RefCell<Disk>>,
    operations: Cell<u64>,
    cut_at: Cell<u64>,
    /// By superblock: over how many shards it is split, and which are taken.
    locks: RefCell<HashMap<PathBuf, (usize, BTreeSet<usize>)>>,
    spare: Rc<Spare>,
    pub(super) chance: RefCell<Dice>,
}

/// An operation that is at the drive.
pub(super) struct Operation {
    number: u64,
    pub(super) began: Duration,
    pub(super) done_at: Duration,
    pub(super) fault: Option<Fault>,
}

impl Machine {
    pub(super) fn new(disk: Rc<RefCell<Disk>>) -> Self {
        let (order, cut_at, seeds) = {
            let mut disk = disk.borrow_mut();
            let seeds = (disk.dice.number(), disk.dice.number());
            (disk.settings.order, disk.settings.cut_at.unwrap_or(u64::MAX), seeds)
        };
        Self {
            executor: Executor::new(order, Dice::new(seeds.0)),
            disk,
            operations: Cell::new(0),
            cut_at: Cell::new(cut_at),
            locks: RefCell::default(),
            spare: Rc::default(),
            chance: RefCell::new(Dice::new(seeds.1)),
        }
    }

    pub(super) fn disk(&self) -> RefMut<'_, Disk> {
        self.disk.borrow_mut()
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations.get()
    }

    pub(super) fn cut_after(&self, operations: u64) {
        self.cut_at.set(self.operations.get() + operations);
    }

    pub(super) fn is_in_turn(&self) -> bool {
        self.disk.borrow().settings.order == Order::InTurn
    }

    /// Sends an operation to the drive. What it changes is to be changed at once, and may be lost with the power; it is
    /// over when [`end`](Self::end) returns. Never returns in a life that was cut.
    pub(super) async fn begin(&self, kind: Kind, what: &str, path: &Path, more: std::fmt::Arguments<'_>) -> Operation {
        if self.executor.is_cut() {
            std::future::pending::<()>().await;
        }
        let number = self.operations.get() + 1;
        self.operations.set(number);
        if number >= self.cut_at.get() {
            self.executor.cut();
        }
        let mut disk = self.disk.borrow_mut();
        let Disk { settings, dice, trace, .. } = &mut *disk;
        trace.borrow_mut().begun(number, what, path, more);
        let fault = settings.faults.draw(kind, number, dice);
        let (shortest, longest) = settings.latency;
        let spread = u64::try_from(longest.saturating_sub(shortest).as_nanos()).expect("a latency is short");
        let began = self.executor.now();
        let done_at = match fault {
            Some(Fault::Hang) => Duration::MAX,
            Some(Fault::Slow) => began + SLOW,
            _ => began + shortest + Duration::from_nanos(if spread == 0 { 0 } else { dice.roll(spread) }),
        };
        Operation { number, began, done_at, fault }
    }

    /// Waits until the operation is over.
    pub(super) async fn end(&self, operation: &Operation) {
        self.executor.until(operation.done_at).await;
        if self.executor.is_cut() {
            std::future::pending::<()>().await;
        }
        self.disk.borrow().trace.borrow_mut().done(operation.number, operation.fault);
    }

    pub(super) fn lock(self: &Rc<Self>, path: &Path, shard: usize, shards: usize) -> Result<SimLock, LockError> {
        self.disk.borrow().find(path)?;
        let mut locks = self.locks.borrow_mut();
        let (split, taken) = locks.entry(path.to_owned()).or_insert((shards, BTreeSet::new()));
        if *split != shards {
            return Err(LockError::Handle(format!("split over {split} shards, not {shards}")));
        }
        if !taken.insert(shard) {
            return Err(LockError::Handle(format!("shard {shard} of {shards} included")));
        }
        Ok(SimLock { machine: self.clone(), path: path.to_owned(), shard })
    }

    /// Memory that holds what it held before, or something from the seed.
    pub(super) fn buffer(&self, bytes: usize) -> SimBuffer {
        let mut memory = self.spare.take(bytes);
        if memory.len() < bytes {
            let garbage = u8::try_from(self.chance.borrow_mut().roll(256)).expect("a byte");
            memory.resize(bytes, garbage);
        }
        memory.truncate(bytes);
        self.spare.lend(memory, bytes)
    }

    /// Memory to read into, with nothing in it.
    pub(super) fn empty_buffer(&self, bytes: usize) -> SimBuffer {
        let mut memory = self.spare.take(bytes);
        memory.clear();
        memory.reserve_exact(bytes);
        self.spare.lend(memory, bytes)
    }

    /// The most bytes that were in buffers at once.
    pub(super) fn buffer_bytes_peak(&self) -> usize {
        self.spare.peak.get()
    }
}

/// Memory of buffers that were dropped, and how much there is in those that were not.
#[derive(Default)]
pub(super) struct Spare {
    dropped: RefCell<Vec<Vec<u8>>>,
    lent: Cell<usize>,
    peak: Cell<usize>,
}

/// How much spare memory is kept: a few buffers of the sizes that small tracks need.
const SPARE_MAX: usize = 32;
const SPARE_BYTES_MAX: usize = 128 * 1024;

impl Spare {
    fn take(&self, bytes: usize) -> Vec<u8> {
        if bytes > SPARE_BYTES_MAX { Vec::new() } else { self.dropped.borrow_mut().pop().unwrap_or_default() }
    }

    fn lend(self: &Rc<Self>, memory: Vec<u8>, bytes: usize) -> SimBuffer {
        self.lent.set(self.lent.get() + bytes);
        self.peak.set(self.peak.get().max(self.lent.get()));
        SimBuffer { memory, bytes, spare: self.clone() }
    }
}

/// Memory to write from, or that was read into.
pub struct SimBuffer {
    pub(super) memory: Vec<u8>,
    bytes: usize,
    spare: Rc<Spare>,
}

impl Deref for SimBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory
    }
}

impl DerefMut for SimBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

impl Drop for SimBuffer {
    fn drop(&mut self) {
        self.spare.lent.set(self.spare.lent.get() - self.bytes);
        let mut spare = self.spare.dropped.borrow_mut();
        if spare.len() < SPARE_MAX && self.memory.capacity() <= SPARE_BYTES_MAX {
            spare.push(std::mem::take(&mut self.memory));
        }
    }
}

/// Held while a volume handle is open; gone with the life that took it.
pub struct SimLock {
    machine: Rc<Machine>,
    path: PathBuf,
    shard: usize,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut locks = self.machine.locks.borrow_mut();
        if let Some((_, taken)) = locks.get_mut(&self.path) {
            taken.remove(&self.shard);
            if taken.is_empty() {
                locks.remove(&self.path);
            }
        }
    }
}

/// EIO, where the operation's fault says so.
pub(super) fn failed(operation: &Operation) -> io::Result<()> {
    match operation.fault {
        Some(Fault::Error) => Err(rustix::io::Errno::IO.into()),
        Some(Fault::NoSpace) => Err(rustix::io::Errno::NOSPC.into()),
        _ => Ok(()),
    }
}
