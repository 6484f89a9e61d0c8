//! A shard's drive buffers: on huge pages, and resident before the first request. This file has unsafe code.
//!
//! glommio takes `io_memory` bytes at start, registers them with its rings, and falls back to fresh memory (a third of
//! the speed, eleven times the CPU) when they run out. Registration pins the memory as 4 KiB pages before anyone can
//! ask for huge ones, and gains nothing measurable itself, while huge pages double the rate of 64 KiB reads. So the
//! slab is *reserved* larger than the most that the kernel registers at once (1 GiB): registration is declined, for
//! root as for anyone, and needs no locked memory. Only what is used becomes resident: the `io_memory_bytes` that
//! [`prime`] touches and what a burst takes beyond them, which is then huge pages too instead of the fallback.

use std::fs;

use deadwax_track::MIB;
use glommio::io::DmaBuffer;
use rustix::mm::{Advice, madvise};
use rustix::process::{Resource, getrlimit};

/// One page above what the kernel registers as one buffer.
const DECLINED_BYTES: usize = (1 << 30) + 4096;
const PIECE_BYTES: usize = 1 << 20;
const ADVISED_BYTES_MIN: usize = 2 << 20;

/// What to tell glommio for a slab of `io_memory` bytes.
pub(crate) fn reservation(io_memory: usize) -> usize {
    // Where address space itself is rationed, a reservation would be refused or charged.
    let strict = fs::read_to_string("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.trim() == "2");
    if strict || getrlimit(Resource::As).current.is_some() { io_memory } else { io_memory.max(DECLINED_BYTES) }
}

/// Asks for huge pages under this executor's slab of `reserved` bytes and touches `io_memory` of them. Called once on
/// each executor, before anything else takes drive buffers. Blocks the executor for some milliseconds.
pub(crate) fn prime(reserved: usize, io_memory: usize) {
    advise(reserved);
    let pieces = (io_memory / PIECE_BYTES).min(reserved / PIECE_BYTES / 2);
    let touched: Vec<DmaBuffer> = (0..pieces)
        .map(|_| {
            let mut piece = glommio::allocate_dma_buffer(PIECE_BYTES);
            piece.as_bytes_mut().fill(0);
            piece
        })
        .collect();
    tracing::debug!(mib = touched.len() as u64 * PIECE_BYTES as u64 / MIB, "touched the slab");
}

/// glommio does not give out the slab's address. It hands out blocks of powers of two, so that taking the largest, the
/// next and so on covers nearly all of it; all are given back on return.
fn advise(reserved: usize) {
    let mut taken = Vec::new();
    let mut bytes = (reserved / 2).next_power_of_two();
    if bytes > reserved / 2 {
        bytes /= 2;
    }
    let first = glommio::allocate_dma_buffer(bytes);
    // A block from elsewhere would mean that the slab has no such block: nothing of it is wrong, it is only not ours.
    let slab = (first.as_ptr() as usize).saturating_sub(reserved)..first.as_ptr() as usize + reserved;
    taken.push(first);
    while bytes / 2 >= ADVISED_BYTES_MIN {
        bytes /= 2;
        taken.push(glommio::allocate_dma_buffer(bytes));
    }
    for block in &mut taken {
        let (start, len) = (block.as_mut_ptr(), block.len());
        if !slab.contains(&(start as usize)) {
            continue;
        }
        // SAFETY: the range is exactly one live allocation of ours, page-aligned because glommio's are; MADV_HUGEPAGE
        // changes how it is backed, never its bytes.
        if let Err(why) = unsafe { madvise(start.cast(), len, Advice::LinuxHugepage) } {
            tracing::debug!(%why, "no huge pages for the slab");
            return;
        }
    }
}
