//! Bytes on their way between a socket and a session.
//!
//! An idle connection holds a small buffer. A busy one has a large one, which goes back to its thread's store
//! afterwards: memory that was given up is five times as slow to touch again.

use std::cell::RefCell;
use std::mem;
use std::ops::Range;

/// The most bytes of a record of TLS 1.3 with its header (RFC 8446, section 5.2), and of one of before: rustls bears
/// both.
pub(crate) const RECORD_BYTES_MAX: usize = 5 + 16_384 + 2_048;
/// What an idle connection holds, each way: a handshake fits, and any small request.
const SMALL_BYTES: usize = 2_048;
/// Some records of full size: read and written at once, and small enough to stay in a core's own cache.
const LARGE_BYTES: usize = 8 * RECORD_BYTES_MAX;
/// How many unused large buffers a thread keeps.
const KEPT_MAX: usize = 16;

const _: () = assert!(SMALL_BYTES < RECORD_BYTES_MAX && 2 * RECORD_BYTES_MAX <= LARGE_BYTES);

thread_local! {
    /// Its large buffers that nobody uses.
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A queue of bytes, of [`LARGE_BYTES`] at most.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    used: Range<usize>,
}

impl Buffer {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; SMALL_BYTES], used: 0..0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.used.is_empty()
    }

    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.used.clone()]
    }

    pub(crate) fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.used.clone()]
    }

    /// Forgets the first `count` bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        assert!(count <= self.used.len(), "consume {count} of {} bytes", self.used.len());
        self.used.start += count;
        if self.used.is_empty() {
            self.used = 0..0;
        }
    }

    /// Room behind the last byte: at least `least`, or nothing where there cannot be so much.
    pub(crate) fn space(&mut self, least: usize) -> Option<&mut [u8]> {
        if self.bytes.len() - self.used.end < least {
            if self.bytes.len() - self.used.len() < least && self.bytes.len() < LARGE_BYTES {
                let large = KEPT.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; LARGE_BYTES]);
                self.move_to(large);
            } else {
                self.bytes.copy_within(self.used.clone(), 0);
                self.used = 0..self.used.len();
            }
        }
        let space = &mut self.bytes[self.used.end..];
        (space.len() >= least).then_some(space)
    }

    /// As [`space`](Self::space), without taking more memory.
    pub(crate) fn small_space(&mut self, least: usize) -> Option<&mut [u8]> {
        if self.used.len() + least <= self.bytes.len() { self.space(least) } else { None }
    }

    /// The first `count` bytes of the room are filled now.
    pub(crate) fn fill(&mut self, count: usize) {
        self.used.end += count;
        assert!(self.used.end <= self.bytes.len(), "filled {} of {} bytes", self.used.end, self.bytes.len());
    }

    /// Gives a large buffer back where a small one does.
    pub(crate) fn shrink(&mut self) {
        if self.bytes.len() > SMALL_BYTES && self.used.len() <= SMALL_BYTES {
            let large = self.move_to(vec![0; SMALL_BYTES]);
            keep(large);
        }
    }

    fn move_to(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        bytes[..self.used.len()].copy_from_slice(self.filled());
        self.used = 0..self.used.len();
        mem::replace(&mut self.bytes, bytes)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() > SMALL_BYTES {
            keep(mem::take(&mut self.bytes));
        }
    }
}

fn keep(large: Vec<u8>) {
    // At a thread's end there is no store any more.
    let _ = KEPT.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(large);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_however_they_are_taken() {
        let mut buffer = Buffer::new();
        let (mut next_in, mut next_out) = (0_u8, 0_u8);
        for round in 0..2_000_usize {
            let count = (round * 7_919) % 9_000;
            if let Some(space) = buffer.space(count) {
                space[..count].iter_mut().for_each(|byte| {
                    *byte = next_in;
                    next_in = next_in.wrapping_add(1);
                });
                buffer.fill(count);
            } else {
                assert!(buffer.filled().len() + count > LARGE_BYTES, "refused at {}", buffer.filled().len());
            }
            let taken = (round * 104_729) % (buffer.filled().len() + 1);
            for byte in &buffer.filled()[..taken] {
                assert_eq!(*byte, next_out);
                next_out = next_out.wrapping_add(1);
            }
            buffer.consume(taken);
            if round % 5 == 0 {
                buffer.shrink();
            }
        }
        assert!(buffer.bytes.len() <= LARGE_BYTES);
    }
}
