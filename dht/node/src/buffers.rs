//! A shard's large receive buffers, kept for reuse: memory that was given up is five times as slow to touch again.

use std::cell::RefCell;

use deadwax_dht::wire::{DATA_BYTES_MAX, FRAME_PAYLOAD_MAX, HEADER_BYTES};

/// What a connection holds while it is idle: any small request fits.
pub(crate) const SMALL_BYTES: usize = 4096;
/// A frame of any kind with its header and the next one's, and a little more than an idle connection may have read.
pub(crate) const LARGE_BYTES: usize = FRAME_PAYLOAD_MAX + 2 * HEADER_BYTES + SMALL_BYTES;
/// How many unused buffers a shard keeps: enough for a few puts at once; more are given up.
const KEPT_MAX: usize = 8;

const _: () = assert!(DATA_BYTES_MAX + 2 * HEADER_BYTES <= LARGE_BYTES);

/// The pool. Its size is bounded by what takes from it: connections in the middle of a put.
#[derive(Default)]
pub(crate) struct Buffers(RefCell<Vec<Vec<u8>>>);

impl Buffers {
    /// A buffer of [`LARGE_BYTES`], with bytes of an earlier use in it.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_else(|| vec![0; LARGE_BYTES])
    }

    /// Takes a buffer back.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        let mut kept = self.0.borrow_mut();
        if buffer.len() == LARGE_BYTES && kept.len() < KEPT_MAX {
            kept.push(buffer);
        }
    }
}
