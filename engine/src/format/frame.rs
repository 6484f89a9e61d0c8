//! Frames: a track's bytes in 64 KiB blocks, each with a trailer that proves it.
//!
//! ```text
//! trailer, the last 40 bytes of a frame:
//!  0  crc u32   4  frame number u32   8  id prefix [16]   24  segment generation u64   32  payload bytes u32   36  nonce u32
//! ```
//!
//! The CRC-32 covers the payload, the zeros after it and the rest of the trailer. Sixteen bytes of the id are so many that
//! nobody finds two tracks which share them: the index in memory keeps six, and a frame that is read proves the rest.

use std::ops::Range;

use super::{BLOCK_BYTES, put, u32_at, u64_at};

/// A whole frame on the drive.
pub(crate) const FRAME_BYTES: u64 = 64 * 1024;
const TRAILER: usize = 40;
/// What a whole frame carries of the track.
pub(crate) const FRAME_PAYLOAD_BYTES: u64 = FRAME_BYTES - TRAILER as u64;

// Frames stay on block boundaries, and a frame's number fits in its trailer.
const _: () = assert!(FRAME_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(deadwax_track::TRACK_BYTES_MAX / FRAME_PAYLOAD_BYTES < u32::MAX as u64);

/// Why a frame is not the one that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum FrameFault {
    #[error("the frame is cut off")]
    Short,
    #[error("the frame's checksum is wrong")]
    Checksum,
    #[error("the frame is from an earlier life of the segment")]
    Generation,
    #[error("the frame is another track's")]
    Track,
    #[error("the frame is another one of the track")]
    Number,
    #[error("the frame's length is wrong")]
    Length,
    #[error("the frame is from another put of the track")]
    Nonce,
}

/// What shows whose frame it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameStamp {
    pub(crate) id: [u8; 16],
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
        put(frame, trailer + 8, &self.id);
        put(frame, trailer + 24, &self.generation.to_le_bytes());
        let payload = u32::try_from(payload_bytes).expect("a payload is below 64 KiB");
        put(frame, trailer + 32, &payload.to_le_bytes());
        put(frame, trailer + 36, &self.nonce.expect("a writer knows its nonce").to_le_bytes());
        let crc = frame_checksum(frame);
        put(frame, trailer, &crc.to_le_bytes());
    }

    /// Whether `frame` is the track's frame `number` with so much payload, as it was written; else what is wrong.
    pub(crate) fn check(&self, frame: &[u8], number: u32, payload_bytes: usize) -> Result<(), FrameFault> {
        let trailer = frame.len().checked_sub(TRAILER).ok_or(FrameFault::Short)?;
        let wrong = [
            (u32_at(frame, trailer) != frame_checksum(frame), FrameFault::Checksum),
            (u64_at(frame, trailer + 24) != self.generation, FrameFault::Generation),
            (frame[trailer + 8..trailer + 24] != self.id, FrameFault::Track),
            (u32_at(frame, trailer + 4) != number, FrameFault::Number),
            (u32_at(frame, trailer + 32) as usize != payload_bytes, FrameFault::Length),
            (self.nonce.is_some_and(|nonce| nonce != u32_at(frame, trailer + 36)), FrameFault::Nonce),
        ];
        wrong.into_iter().find(|(wrong, _)| *wrong).map_or(Ok(()), |(_, fault)| Err(fault))
    }
}

fn frame_checksum(frame: &[u8]) -> u32 {
    let trailer = frame.len() - TRAILER;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&frame[..trailer]);
    crc.update(&frame[trailer + 4..]);
    crc.finalize()
}

/// Where the frames of a track of some stored length lie, counted from the first one's start. What is stored is the track
/// itself, or its compressed pieces one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Frames {
    payload_bytes: u64,
}

impl Frames {
    /// `payload_bytes`, of all frames together, is at most [`deadwax_track::TRACK_BYTES_MAX`], which keeps frame numbers in 32 bits.
    pub(crate) const fn of(payload_bytes: u64) -> Self {
        assert!(payload_bytes <= deadwax_track::TRACK_BYTES_MAX);
        Self { payload_bytes }
    }

    pub(crate) fn count(self) -> u32 {
        u32::try_from(self.payload_bytes.div_ceil(FRAME_PAYLOAD_BYTES)).expect("bounded at compile time")
    }

    /// What all frames carry.
    pub(crate) const fn all_payload_bytes(self) -> u64 {
        self.payload_bytes
    }

    /// What all frames take on the drive.
    pub(crate) fn stored_bytes(self) -> u64 {
        let rest = self.payload_bytes % FRAME_PAYLOAD_BYTES;
        let last = if rest == 0 { 0 } else { (rest + TRAILER as u64).next_multiple_of(BLOCK_BYTES) };
        self.payload_bytes / FRAME_PAYLOAD_BYTES * FRAME_BYTES + last
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

    /// What frame `number` carries.
    pub(crate) fn payload_bytes(self, number: u32) -> usize {
        let bytes = (self.payload_bytes - u64::from(number) * FRAME_PAYLOAD_BYTES).min(FRAME_PAYLOAD_BYTES);
        usize::try_from(bytes).expect("at most 64 KiB")
    }

    /// The frames that hold the bytes from `start` to `end` of what is stored; `start < end`, and that at most all of it.
    pub(crate) fn covering(self, start: u64, end: u64) -> Range<u32> {
        assert!(start < end && end <= self.payload_bytes, "{start}..{end} of {}", self.payload_bytes);
        let first = start / FRAME_PAYLOAD_BYTES;
        let after = end.div_ceil(FRAME_PAYLOAD_BYTES);
        u32::try_from(first).expect("a frame number")..u32::try_from(after).expect("a frame number")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: FrameStamp =
        FrameStamp { id: *b"0123456789abcdef", generation: 0x1112_1314_1516_1718, nonce: Some(0x2122_2324) };

    #[test]
    fn golden_bytes() {
        let mut frame = vec![0xff; 4096];
        frame[..5].copy_from_slice(b"track");
        STAMP.seal(&mut frame, 3, 5);
        let golden = b"\x25\x87\x7d\xd1\x03\0\0\x000123456789abcdef\x18\x17\x16\x15\x14\x13\x12\x11\
            \x05\0\0\0\x24\x23\x22\x21";
        assert_eq!(&frame[4056..], golden, "{:02x?}", &frame[4056..4060]);
        assert!(frame[5..4056].iter().all(|byte| *byte == 0));
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
        assert!(FrameStamp { id: [1; 16], ..STAMP }.check(&frame, 3, 4000).is_err());
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
            (4056, 1, 4096),
            (4057, 1, 8192),
            (65_495, 1, 65_536),
            (65_496, 1, 65_536),
            (65_497, 2, 65_536 + 4096),
            (1 << 20, 17, 16 * 65_536 + 4096),
            (512 << 20, 8198, 8197 * 65_536 + 4096),
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
