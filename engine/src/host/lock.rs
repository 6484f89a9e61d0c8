//! One process a volume, and one handle a shard of it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use rustix::fs::FlockOperation;

use super::LockError;

/// The volumes that this process has open, by superblock. flock(2) keeps other processes out; it cannot keep our own
/// handles apart, which share the one descriptor. Held by executors too: never while a drive is asked for something.
static OPEN: LazyLock<Mutex<HashMap<PathBuf, OpenVolume>>> = LazyLock::new(Mutex::default);

/// Each volume that this process meant to open has a lock of its own here, for as long as its drive is asked.
static ASKED: LazyLock<Mutex<HashMap<PathBuf, Arc<Mutex<()>>>>> = LazyLock::new(Mutex::default);

/// How many of this process's open files have this file pinned, by device and number.
static PINNED: LazyLock<Mutex<HashMap<(u64, u64), usize>>> = LazyLock::new(Mutex::default);

struct OpenVolume {
    /// Holds the flock; released when it closes.
    _file: File,
    shards: usize,
    taken: BTreeSet<usize>,
}

/// Held by a volume handle while it is open.
pub struct VolumeLock {
    path: PathBuf,
    shard: usize,
}

fn of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Blocks, for as long as the drive does.
pub(super) fn lock(path: &Path, shard: usize, shards: usize) -> Result<VolumeLock, LockError> {
    let path = path.canonicalize()?;
    let asked = of(&ASKED).entry(path.clone()).or_default().clone();
    let _asked = of(&asked);
    if let Some(volume) = of(&OPEN).get_mut(&path) {
        volume.take(shard, shards)?;
        return Ok(VolumeLock { path, shard });
    }
    let file = File::open(&path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(LockError::Process),
        Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
    }
    of(&OPEN).insert(path.clone(), OpenVolume { _file: file, shards, taken: BTreeSet::from([shard]) });
    Ok(VolumeLock { path, shard })
}

impl OpenVolume {
    fn take(&mut self, shard: usize, shards: usize) -> Result<(), LockError> {
        if self.shards != shards {
            return Err(LockError::Handle(format!("split over {} shards, not {shards}", self.shards)));
        }
        if !self.taken.insert(shard) {
            return Err(LockError::Handle(format!("shard {shard} of {shards} included")));
        }
        Ok(())
    }
}

/// Marks an open file as one that may have writes at the drive. The kernel ends a killed process before its last writes
/// are done: these go on for as long as the drive takes, and so does this lock, for they hold the open file.
///
/// Errors: `WouldBlock` where such a process has it pinned still.
pub(super) fn pin(file: BorrowedFd<'_>) -> io::Result<()> {
    let number = number_of(file)?;
    let mut pinned = of(&PINNED);
    // Nobody else's, unless it is ours already, which hides the other's.
    if !pinned.contains_key(&number) {
        rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)?;
    }
    rustix::fs::flock(file, FlockOperation::NonBlockingLockShared)?;
    *pinned.entry(number).or_default() += 1;
    Ok(())
}

/// Ends what [`pin`] began.
pub(super) fn unpin(file: BorrowedFd<'_>) {
    let number = number_of(file);
    let mut pinned = of(&PINNED);
    if let Err(error) = rustix::fs::flock(file, FlockOperation::NonBlockingUnlock) {
        tracing::debug!(%error, "a file stays pinned until it closes");
    }
    if let Ok(number) = number
        && let Entry::Occupied(mut own) = pinned.entry(number)
    {
        *own.get_mut() -= 1;
        if *own.get() == 0 {
            own.remove();
        }
    }
}

/// Of an open file: it asks no drive.
fn number_of(file: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

impl Drop for VolumeLock {
    fn drop(&mut self) {
        let mut open = of(&OPEN);
        let last = open.get_mut(&self.path).is_some_and(|volume| {
            volume.taken.remove(&self.shard);
            volume.taken.is_empty()
        });
        let closed = if last { open.remove(&self.path) } else { None };
        drop(open);
        // Closes the file.
        drop(closed);
    }
}
