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
/// After so many looks it is worth it, too: what it grew by may have been in use when it was looked at, and is free now.
const LOOKS_MAX: u32 = 12;
/// What has so many bytes does not come from a heap, and so leaves no hole in one. glibc raises this by itself, up to 32 MiB,
/// to the size of what is freed.
const OUTSIDE_BYTES: i32 = 4 << 20;
/// How much may be free at a heap's end before that is given back at once: it is soon taken again.
const END_BYTES: i32 = 16 << 20;

/// Begins to, for as long as the process runs. Best effort: without it the process only stays larger.
pub fn give_back() {
    set_bounds();
    let looking = thread::Builder::new().name("heap".into()).spawn(|| {
        let mut looks = Looks::default();
        while let Ok(now) = own_bytes() {
            if looks.is_due(now) {
                trim();
                looks.trimmed(own_bytes().unwrap_or(now));
            }
            thread::sleep(LOOK);
        }
    });
    if let Err(why) = looking {
        tracing::warn!(%why, "memory that is freed is not given back");
    }
}

/// When it is worth going through the heaps.
#[derive(Default)]
struct Looks {
    /// How large the process was after the last time.
    after: u64,
    since: u32,
}

impl Looks {
    fn is_due(&mut self, now: u64) -> bool {
        self.since += 1;
        now > self.after.saturating_add(GROWTH_BYTES) || self.since >= LOOKS_MAX
    }

    const fn trimmed(&mut self, after: u64) {
        (self.after, self.since) = (after, 0);
    }
}

/// The process's resident bytes that are no file's: `/proc/self/statm`, see `proc_pid_statm(5)`.
fn own_bytes() -> io::Result<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: Vec<u64> = statm.split_ascii_whitespace().map_while(|pages| pages.parse().ok()).collect();
    let [_, resident, shared, ..] = pages[..] else { return Err(io::ErrorKind::InvalidData.into()) };
    Ok(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
}

#[cfg(target_env = "gnu")]
fn set_bounds() {
    // SAFETY: sets two numbers in the allocator, under its own lock.
    let set = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OUTSIDE_BYTES) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, END_BYTES) == 1
    };
    if !set {
        tracing::debug!("the allocator keeps its own bounds");
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: releases pages within free pieces only, each heap under its own lock.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
const fn set_bounds() {}

#[cfg(not(target_env = "gnu"))]
const fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn heaps_are_gone_through_when_the_process_has_grown_and_now_and_then() {
        let mut looks = Looks::default();
        assert!(looks.is_due(100 * MIB));
        // All was in use just then.
        looks.trimmed(300 * MIB);
        for _ in 1..LOOKS_MAX {
            assert!(!looks.is_due(300 * MIB));
        }
        assert!(looks.is_due(300 * MIB));
        looks.trimmed(100 * MIB);
        assert!(!looks.is_due(108 * MIB));
        assert!(looks.is_due(109 * MIB));
    }

    /// Every second of many pieces is freed: they lie amid others, from where nothing goes back by itself.
    #[test]
    #[cfg(target_env = "gnu")]
    fn what_is_freed_amid_a_heap_goes_back() {
        // 512 MB: whatever other tests take and free meanwhile is little beside it.
        let pieces: Vec<Vec<u8>> = (0..16_000).map(|_| vec![1; 32 << 10]).collect();
        let full = own_bytes().expect("on Linux");
        let kept: Vec<Vec<u8>> = pieces.into_iter().step_by(2).collect();
        trim();
        let after = own_bytes().expect("on Linux");
        assert!(after < full.saturating_sub(150 * MIB), "{full}, {after}");
        drop(kept);
    }
}
