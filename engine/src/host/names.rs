//! Flushes of directories, one at a time each: after one that failed no other is believed.
//!
//! A flush that succeeds after one that failed says nothing of the names that the first should have made durable; and handles
//! on several threads share the directory of a volume's segments.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use super::is_passing;

/// The directories of which names were flushed. A handful a volume.
static DIRECTORIES: LazyLock<Mutex<HashMap<PathBuf, State>>> = LazyLock::new(Mutex::default);

#[derive(Clone, Copy, Default)]
struct State {
    busy: bool,
    failed: bool,
}

/// The right to flush a directory, until it is dropped.
pub(super) struct Turn(PathBuf);

/// Nothing while somebody else flushes the directory.
pub(super) fn turn(directory: &Path) -> Option<Turn> {
    change(directory, |state| !std::mem::replace(&mut state.busy, true)).then(|| Turn(directory.to_owned()))
}

impl Turn {
    /// Fails where a flush of the directory failed before.
    pub(super) fn check(&self) -> io::Result<()> {
        if change(&self.0, |state| state.failed) {
            let why = "its names could not be flushed before, and no flush is believed since: restart the process";
            return Err(io::Error::other(why));
        }
        Ok(())
    }

    /// How the flush ended.
    pub(super) fn end(self, flushed: &io::Result<()>) {
        let failed = |error: &io::Error| !is_passing(error) && error.kind() != io::ErrorKind::NotFound;
        if flushed.as_ref().is_err_and(failed) {
            change(&self.0, |state| state.failed = true);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        change(&self.0, |state| state.busy = false);
    }
}

fn change<T>(directory: &Path, change: impl FnOnce(&mut State) -> T) -> T {
    let mut directories = DIRECTORIES.lock().unwrap_or_else(PoisonError::into_inner);
    if !directories.contains_key(directory) {
        directories.insert(directory.to_owned(), State::default());
    }
    change(directories.get_mut(directory).expect("just inserted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_flush_that_failed_none_is_believed() {
        let (one, other) = (Path::new("/one"), Path::new("/other"));
        let first = turn(one).expect("nobody is at it");
        assert!(turn(one).is_none() && turn(other).is_some());
        first.check().expect("nothing failed");
        first.end(&Err(rustix::io::Errno::MFILE.into()));
        let second = turn(one).expect("the first is over");
        second.check().expect("that was the machine");
        second.end(&Err(rustix::io::Errno::IO.into()));
        assert!(turn(one).expect("the second is over").check().is_err());
        turn(other).expect("nobody is at it").check().expect("another directory");
    }
}
