//! Gives memory that was freed back to the system.
//!
//! What is freed amid a heap of glibc's stays the process's own. A change of the map takes and frees some hundred MB in
//! small pieces within a second, by threads with a heap each; a server that changed its map once would stay that large.

use std::time::Duration;
use std::{fs, io, thread};

/// Between one look at how large the process is and the next: reading one line.
const LOOK: Duration = Duration::from_secs(5);
/// By how much the process grows until it is worth going through its heaps, which takes some milliseconds.
const GROWTH_BYTES: u64 = 8 << 20;
/// What has so many bytes does not come from a heap, and so leaves no hole in one. glibc raises this by itself, to 32 MiB, once
/// such a piece was freed.
const OUTSIDE_BYTES: i32 = 4 << 20;

/// Begins to, for as long as the process runs. Best effort: without it the process only stays larger.
pub fn give_back() {
    keep_large_outside();
    let looking = thread::Builder::new().name("heap".into()).spawn(|| {
        let mut least = u64::MAX;
        loop {
            let Ok(now) = resident_bytes() else { return };
            least = if now > least.saturating_add(GROWTH_BYTES) {
                trim();
                resident_bytes().unwrap_or(now)
            } else {
                least.min(now)
            };
            thread::sleep(LOOK);
        }
    });
    if let Err(why) = looking {
        tracing::warn!(%why, "memory that is freed is not given back");
    }
}

/// The process's resident bytes: `/proc/self/statm`, see proc(5).
fn resident_bytes() -> io::Result<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let pages = pages.ok_or(io::ErrorKind::InvalidData)?;
    Ok(pages * rustix::param::page_size() as u64)
}

#[cfg(target_env = "gnu")]
fn keep_large_outside() {
    // SAFETY: sets a number in the allocator, under its own lock.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, OUTSIDE_BYTES) };
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: releases pages within free pieces only, each heap under its own lock.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
const fn keep_large_outside() {}

#[cfg(not(target_env = "gnu"))]
const fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every second of many pieces is freed: they lie amid others, from where nothing goes back by itself.
    #[test]
    #[cfg(target_env = "gnu")]
    fn what_is_freed_amid_a_heap_goes_back() {
        let before = resident_bytes().expect("on Linux");
        let pieces: Vec<Vec<u8>> = (0..4_000).map(|_| vec![1; 32 << 10]).collect();
        let full = resident_bytes().expect("on Linux");
        assert!(full - before > 100 << 20, "{before}, {full}");
        let kept: Vec<Vec<u8>> = pieces.into_iter().step_by(2).collect();
        trim();
        let after = resident_bytes().expect("on Linux");
        assert!(full - after > 40 << 20, "{before}, {full}, {after}");
        drop(kept);
    }
}
