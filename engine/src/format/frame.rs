//! Frames: a track's bytes in 64 KiB blocks, each with a trailer that proves it.
//!
//! ```text
//! trailer, the last 32 bytes of a frame:
//!  0  crc u32   4  frame number u32   8  id prefix u64   16  segment generation u64   24  payload bytes u32   28  nonce u32
//! ```
//!
//! The CRC-32 covers the payload, the zeros after it and the rest of the trailer.

use std::ops::Range;

use super::{BLOCK_BYTES, put, u32_at, u64_at};

/// A whole frame on the drive.
pub(crate) const FRAME_BYTES: u64 = 64 * 1024;
const TRAILER: usize = 32;
/// What a whole frame carries of the track.
pub(crate) const FRAME_PAYLOAD_BYTES: u64 = FRAME_BYTES - TRAILER as u64;

// Frames stay on block boundaries, and a frame's number fits in its trailer.
const _: () = assert!(FRAME_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(deadwax_track::TRACK_BYTES_MAX / FRAME_PAYLOAD_BYTES < u32::MAX as u64);

/// What shows whose frame it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameStamp {
    pub(crate) id_prefix: u64,
    pub(crate) generation: u64,
    /// Which put wrote it. Nothing where the reader has not seen the record's header.
    pub(crate) nonce: Option<u32>,
}

impl FrameStamp {
    /// Zeroes what follows the payload and writes the trailer. `frame` is the frame as it goes to the drive.
    pub(crate) fn seal(&self, frame: &mut [u8], number: u32, payload_bytes: usize) {
        let trailer = frame.len() - TRAILER;
        frame[payload_bytes..trailer].fill(0);
        put(frame, trailer + 4, &number.to_le_bytes());
        put(frame, trailer + 8, &self.id_prefix.to_le_bytes());
        put(frame, trailer + 16, &self.generation.to_le_bytes());
        let payload = u32::try_from(payload_bytes).expect("a payload is below 64 KiB");
        put(frame, trailer + 24, &payload.to_le_bytes());
        put(frame, trailer + 28, &self.nonce.expect("a writer knows its nonce").to_le_bytes());
        let crc = frame_checksum(frame);
        put(frame, trailer, &crc.to_le_bytes());
    }

    /// Whether `frame` is the track's frame `number` with so much payload, as it was written; else what is wrong.
    pub(crate) fn check(&self, frame: &[u8], number: u32, payload_bytes: usize) -> Result<(), &'static str> {
        let trailer = frame.len().checked_sub(TRAILER).ok_or("the frame is cut off")?;
        if u32_at(frame, trailer) != frame_checksum(frame) {
            return Err("the frame's checksum is wrong");
        }
        if u64_at(frame, trailer + 16) != self.generation {
            return Err("the frame is from an earlier life of the segment");
        }
        if u64_at(frame, trailer + 8) != self.id_prefix {
            return Err("the frame is another track's");
        }
        if u32_at(frame, trailer + 4) != number {
            return Err("the frame is another one of the track");
        }
        if u32_at(frame, trailer + 24) as usize != payload_bytes {
            return Err("the frame's length is wrong");
        }
        if self.nonce.is_some_and(|nonce| nonce != u32_at(frame, trailer + 28)) {
            return Err("the frame is from another put of the track");
        }
        Ok(())
    }
}

fn frame_checksum(frame: &[u8]) -> u32 {
    let trailer = frame.len() - TRAILER;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&frame[..trailer]);
    crc.update(&frame[trailer + 4..]);
    crc.finalize()
}

/// Where the frames of a track of some length lie, counted from the first one's start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frames {
    track_bytes: u64,
}

impl Frames {
    /// `track_bytes` is at most [`deadwax_track::TRACK_BYTES_MAX`], which keeps frame numbers in 32 bits.
    pub(crate) const fn of(track_bytes: u64) -> Self {
        assert!(track_bytes <= deadwax_track::TRACK_BYTES_MAX);
        Self { track_bytes }
    }

    pub(crate) fn count(self) -> u32 {
        u32::try_from(self.track_bytes.div_ceil(FRAME_PAYLOAD_BYTES)).expect("bounded at compile time")
    }

    /// What all frames take on the drive.
    pub(crate) fn stored_bytes(self) -> u64 {
        let rest = self.track_bytes % FRAME_PAYLOAD_BYTES;
        let last = if rest == 0 { 0 } else { (rest + TRAILER as u64).next_multiple_of(BLOCK_BYTES) };
        self.track_bytes / FRAME_PAYLOAD_BYTES * FRAME_BYTES + last
    }

    /// Where frame `number` starts.
    pub(crate) fn start(self, number: u32) -> u64 {
        u64::from(number) * FRAME_BYTES
    }

    /// What frame `number` takes on the drive.
    pub(crate) fn disk_bytes(self, number: u32) -> usize {
        let bytes = (self.stored_bytes() - self.start(number)).min(FRAME_BYTES);
        usize::try_from(bytes).expect("at most 64 KiB")
    }

    /// What frame `number` carries of the track.
    pub(crate) fn payload_bytes(self, number: u32) -> usize {
        let bytes = (self.track_bytes - u64::from(number) * FRAME_PAYLOAD_BYTES).min(FRAME_PAYLOAD_BYTES);
        usize::try_from(bytes).expect("at most 64 KiB")
    }

    /// The frames that hold the bytes from `start` to `end` of the track; `start < end <= track_bytes`.
    pub(crate) fn covering(self, start: u64, end: u64) -> Range<u32> {
        assert!(start < end && end <= self.track_bytes, "{start}..{end} of {}", self.track_bytes);
        let first = start / FRAME_PAYLOAD_BYTES;
        let after = end.div_ceil(FRAME_PAYLOAD_BYTES);
        u32::try_from(first).expect("a frame number")..u32::try_from(after).expect("a frame number")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: FrameStamp =
        FrameStamp { id_prefix: 0x0102_0304_0506_0708, generation: 0x1112_1314_1516_1718, nonce: Some(0x2122_2324) };

    #[test]
    fn golden_bytes() {
        let mut frame = vec![0xff; 4096];
        frame[..5].copy_from_slice(b"track");
        STAMP.seal(&mut frame, 3, 5);
        let golden = b"\xbc\x14\xc0\x69\x03\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01\x18\x17\x16\x15\x14\x13\x12\x11\
            \x05\0\0\0\x24\x23\x22\x21";
        assert_eq!(&frame[4064..], golden, "{:02x?}", &frame[4064..4068]);
        assert!(frame[5..4064].iter().all(|byte| *byte == 0));
        assert_eq!(STAMP.check(&frame, 3, 5), Ok(()));
    }

    #[test]
    fn every_flipped_bit_and_every_other_stamp_is_refused() {
        let mut frame = vec![7; 4096];
        STAMP.seal(&mut frame, 3, 4000);
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert!(STAMP.check(&frame, 3, 4000).is_err(), "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(STAMP.check(&frame, 4, 4000).is_err());
        assert!(STAMP.check(&frame, 3, 4001).is_err());
        assert!(FrameStamp { id_prefix: 1, ..STAMP }.check(&frame, 3, 4000).is_err());
        assert!(FrameStamp { generation: 1, ..STAMP }.check(&frame, 3, 4000).is_err());
        assert!(FrameStamp { nonce: Some(1), ..STAMP }.check(&frame, 3, 4000).is_err());
        assert_eq!(FrameStamp { nonce: None, ..STAMP }.check(&frame, 3, 4000), Ok(()));
        assert!(STAMP.check(&frame[..20], 3, 4000).is_err());
    }

    #[test]
    fn lengths_on_every_boundary() {
        // Track bytes, frames, bytes on the drive: one byte; a last frame that just fits its block, and one that does
        // not; a full frame less, exactly and plus one; the largest track.
        for (track, count, stored) in [
            (1, 1, 4096),
            (4064, 1, 4096),
            (4065, 1, 8192),
            (65_503, 1, 65_536),
            (65_504, 1, 65_536),
            (65_505, 2, 65_536 + 4096),
            (1 << 20, 17, 16 * 65_536 + 4096),
            (512 << 20, 8197, 8196 * 65_536 + 4096),
        ] {
            let frames = Frames::of(track);
            assert_eq!((frames.count(), frames.stored_bytes()), (count, stored), "{track} bytes");
            let last = count - 1;
            assert_eq!(frames.start(last) + frames.disk_bytes(last) as u64, stored);
            assert_eq!(u64::from(last) * FRAME_PAYLOAD_BYTES + frames.payload_bytes(last) as u64, track);
            assert_eq!(frames.covering(0, track), 0..count);
            assert_eq!(frames.covering(track - 1, track), last..count);
        }
    }
}
