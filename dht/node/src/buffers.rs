//! A shard's receive buffers, kept for reuse: memory that was given up is five times as slow to touch again.

use std::cell::RefCell;

use deadwax_dht::wire::{AT_ONCE_BYTES_MAX, DATA_BYTES_MAX, FRAME_PAYLOAD_MAX, HEADER_BYTES};

/// What a connection holds while it is idle: any small request fits.
pub(crate) const SMALL_BYTES: usize = 4096;
/// What a put whose bytes come with it takes, with all headers.
const MIDDLE_BYTES: usize = AT_ONCE_BYTES_MAX + 2 * HEADER_BYTES + SMALL_BYTES;
/// A frame of any kind with its header and the next one's, and a little more than an idle connection may have read.
pub(crate) const LARGE_BYTES: usize = FRAME_PAYLOAD_MAX + 2 * HEADER_BYTES + SMALL_BYTES;
/// The sizes that there are, and how many unused ones of each a shard keeps: enough for a few large puts and some dozens
/// of small ones at once; more are given up.
const SIZES: [(usize, usize); 3] = [(SMALL_BYTES, 64), (MIDDLE_BYTES, 32), (LARGE_BYTES, 8)];

const _: () = assert!(DATA_BYTES_MAX + 2 * HEADER_BYTES <= LARGE_BYTES);

/// The pool. Its size is bounded by what takes from it: connections in the middle of a put.
#[derive(Default)]
pub(crate) struct Buffers([RefCell<Vec<Vec<u8>>>; SIZES.len()]);

impl Buffers {
    /// A buffer of at least so many bytes, [`LARGE_BYTES`] at most, with those of an earlier use in it.
    pub(crate) fn take(&self, least: usize) -> Vec<u8> {
        let size = SIZES.iter().position(|(bytes, _)| *bytes >= least).expect("no frame is larger than the largest");
        self.0[size].borrow_mut().pop().unwrap_or_else(|| vec![0; SIZES[size].0])
    }

    /// Takes a buffer back.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        let Some(size) = SIZES.iter().position(|(bytes, _)| *bytes == buffer.len()) else { return };
        let mut kept = self.0[size].borrow_mut();
        if kept.len() < SIZES[size].1 {
            kept.push(buffer);
        }
    }
}
