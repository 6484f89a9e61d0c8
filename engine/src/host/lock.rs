//! One process a volume, and one handle a shard of it.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use rustix::fs::FlockOperation;

use super::LockError;
use crate::identity::SEGMENTS_DIR;

/// The volumes that this process has open, by superblock. flock(2) keeps other processes out; it cannot keep our own
/// handles apart, which share the one descriptor. Held by executors too: never while a drive is asked for something.
static OPEN: LazyLock<Mutex<HashMap<PathBuf, OpenVolume>>> = LazyLock::new(Mutex::default);

/// Each volume that this process meant to open has a lock of its own here, for as long as its drive is asked: whether it
/// had the volume open once. What is pinned in it then is its own: an executor that ends in the middle of things may leave
/// files open, and so pinned, until the process ends.
static KNOWN: LazyLock<Mutex<HashMap<PathBuf, Arc<Mutex<bool>>>>> = LazyLock::new(Mutex::default);

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
    let known = of(&KNOWN).entry(path.clone()).or_default().clone();
    let mut known = of(&known);
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
    if !*known {
        if let Some(written) = first_written(&path)? {
            return Err(LockError::Writes(written));
        }
        *known = true;
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
pub(super) fn pin(file: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::flock(file, FlockOperation::NonBlockingLockShared)?)
}

/// Ends what [`pin`] began.
pub(super) fn unpin(file: BorrowedFd<'_>) {
    if let Err(error) = rustix::fs::flock(file, FlockOperation::NonBlockingUnlock) {
        tracing::debug!(%error, "a file stays pinned until it closes");
    }
}

/// A segment beside the superblock `path` that still has writes at the drive, of a process that is gone.
fn first_written(path: &Path) -> io::Result<Option<PathBuf>> {
    let segments = match path.with_file_name(SEGMENTS_DIR).read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        segments => segments?,
    };
    for entry in segments {
        let segment = entry?.path();
        match File::open(&segment)?.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Some(segment)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(None)
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
