//! One process a volume, and one handle a shard of it.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use rustix::fs::FlockOperation;

use super::LockError;
use crate::identity::SEGMENTS_DIR;

/// The volumes that this process has open, by superblock. flock(2) keeps other processes out; it cannot keep our own
/// handles apart, which share the one descriptor.
static OPEN: LazyLock<Mutex<HashMap<PathBuf, OpenVolume>>> = LazyLock::new(Mutex::default);

/// The volumes that this process had open once: what is pinned in them is its own. An executor that ends in the middle of
/// things may leave files open, and so pinned, until the process ends.
static KNOWN: LazyLock<Mutex<BTreeSet<PathBuf>>> = LazyLock::new(Mutex::default);

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

pub(super) fn lock(path: &Path, shard: usize, shards: usize) -> Result<VolumeLock, LockError> {
    let path = path.canonicalize()?;
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(volume) = open.get_mut(&path) {
        if volume.shards != shards {
            return Err(LockError::Handle(format!("split over {} shards, not {shards}", volume.shards)));
        }
        if !volume.taken.insert(shard) {
            return Err(LockError::Handle(format!("shard {shard} of {shards} included")));
        }
    } else {
        let file = File::open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Process),
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(&path) {
            if let Some(written) = first_written(&path)? {
                return Err(LockError::Writes(written));
            }
            known.insert(path.clone());
        }
        open.insert(path.clone(), OpenVolume { _file: file, shards, taken: BTreeSet::from([shard]) });
    }
    Ok(VolumeLock { path, shard })
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
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(volume) = open.get_mut(&self.path) {
            volume.taken.remove(&self.shard);
            if volume.taken.is_empty() {
                open.remove(&self.path);
            }
        }
    }
}
