//! One process a volume, and one handle a shard of it.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use super::LockError;

/// The volumes that this process has open, by superblock. flock(2) keeps other processes out; it cannot keep our own
/// handles apart, which share the one descriptor.
static OPEN: LazyLock<Mutex<HashMap<PathBuf, OpenVolume>>> = LazyLock::new(Mutex::default);

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
        open.insert(path.clone(), OpenVolume { _file: file, shards, taken: BTreeSet::from([shard]) });
    }
    Ok(VolumeLock { path, shard })
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
