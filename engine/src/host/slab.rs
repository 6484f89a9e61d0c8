//! A shard's drive buffers: on huge pages, and resident before the first request. This file has unsafe code.
//!
//! glommio takes `io_memory` bytes at start, registers them with its rings, and falls back to fresh memory (a third of
//! the speed, eleven times the CPU) when they run out. Registration pins the memory as 4 KiB pages before anyone can
//! ask for huge ones, and gains nothing measurable itself, while huge pages double the rate of 64 KiB reads. So the
//! slab is *reserved* larger than the most that the kernel registers at once (1 GiB): registration is declined, for
//! root as for anyone, and needs no locked memory. (Not where address space is rationed: there the slab stays as glommio has it.) Only what is used becomes resident: the `io_memory_bytes` that
//! [`prime`] touches and what a burst takes beyond them, which is then huge pages too instead of the fallback.
//!
//! The slab's allocator keeps its lists in the first page of each free block, so when it comes to us it has touched pages here
//! and there, and the kernel gives no huge page where a small one is. Worse: the small blocks, which it gives out first, are the ones
//! that lie so. [`prime`] maps the memory anew while it holds all of it, and keeps the blocks that are too small for a huge page.

use std::fs;
use std::ops::Range;

use glommio::io::DmaBuffer;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use rustix::process::{Resource, getrlimit};

/// One page above what the kernel registers as one buffer.
const DECLINED_BYTES: usize = (1 << 30) + 4096;
const PIECE_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// What to tell glommio for a slab of `io_memory` bytes.
pub(super) fn reservation(io_memory: usize) -> usize {
    // Where address space itself is rationed, a reservation would be refused or charged.
    let strict = fs::read_to_string("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.trim() == "2");
    // Who wants less than one huge page gets none: the lists alone would make several resident.
    let small = io_memory < HUGE_PAGE_BYTES;
    if small || strict || getrlimit(Resource::As).current.is_some() { io_memory } else { io_memory.max(DECLINED_BYTES) }
}

/// Asks for huge pages under this executor's slab of `reserved` bytes and touches `io_memory` of them. Called once on
/// each executor, before anything else takes drive buffers. Blocks the executor for some milliseconds. What it gives is to be
/// held until the executor ends: the slab's small blocks, at its ragged edge, where no huge page fits.
pub(super) fn prime(reserved: usize, io_memory: usize) -> Vec<DmaBuffer> {
    // Where the kernel has registered the slab, it reads and writes the pages that it had then.
    let edge = if reserved > io_memory { renew(reserved, io_memory) } else { Vec::new() };
    let pieces = (io_memory / PIECE_BYTES).min(reserved / PIECE_BYTES / 2);
    let touched: Vec<DmaBuffer> = (0..pieces)
        .map(|_| {
            let mut piece = glommio::allocate_dma_buffer(PIECE_BYTES);
            piece.as_bytes_mut().fill(0);
            piece
        })
        .collect();
    tracing::debug!(mib = (touched.len() * PIECE_BYTES) >> 20, "touched the slab");
    edge
}

/// Maps the slab anew, all but its edges, to be backed by huge pages when it is touched. glommio does not give out its
/// address. It hands out blocks of powers of two, so that taking the largest, the next and so on takes nearly all of it; those
/// that can be on huge pages are given back on return. Of those that only a burst will use, beyond `io_memory`, the beginning, where
/// the lists are, stays on small pages: or an idle shard would have six huge ones for six entries of lists.
fn renew(reserved: usize, io_memory: usize) -> Vec<DmaBuffer> {
    let mut bytes = (reserved / 2 + 1).next_power_of_two() / 2;
    let mut taken = Vec::new();
    while bytes >= PAGE_BYTES {
        taken.push(glommio::allocate_dma_buffer(bytes));
        bytes /= 2;
    }
    for stretch in stretches(&mut taken, reserved) {
        let (start, length) = (std::ptr::without_provenance_mut(stretch.start), stretch.len());
        // SAFETY: the range is whole pages of live allocations of ours that hold nothing, one after the other, and stays
        // mapped, private and writable: only what stood there is forgotten.
        let mapped = unsafe {
            mmap_anonymous(start, length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED)
        };
        // SAFETY: as above; this changes how the memory is backed, never its bytes.
        let advised = mapped.and_then(|start| unsafe { madvise(start, length, Advice::LinuxHugepage) });
        if let Err(why) = advised {
            tracing::debug!(%why, "no huge pages for the slab");
        }
    }
    for block in taken.iter().filter(|block| block.len() > io_memory.max(HUGE_PAGE_BYTES)) {
        let start = std::ptr::without_provenance_mut(block.as_ptr().addr());
        // SAFETY: the beginning of a live allocation of ours; this changes how it is backed, never its bytes.
        if let Err(why) = unsafe { madvise(start, HUGE_PAGE_BYTES, Advice::LinuxNoHugepage) } {
            tracing::debug!(%why, "huge pages for the slab's lists");
        }
    }
    taken.retain(|block| block.len() < HUGE_PAGE_BYTES);
    taken
}

/// Where the blocks of the slab lie, with those joined that touch each other.
fn stretches(blocks: &mut [DmaBuffer], reserved: usize) -> Vec<Range<usize>> {
    let address = |block: &DmaBuffer| block.as_ptr().addr();
    // A block from elsewhere means that the slab has no such block: nothing of it is wrong, it is only not ours.
    let first = address(&blocks[0]);
    let slab = first.saturating_sub(reserved)..first + reserved;
    blocks.sort_by_key(address);
    let mut stretches: Vec<Range<usize>> = Vec::new();
    for block in blocks.iter().filter(|block| slab.contains(&address(block))) {
        let (start, end) = (address(block), address(block) + block.len());
        match stretches.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => stretches.push(start..end),
        }
    }
    stretches
}
