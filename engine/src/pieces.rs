//! Compressed pieces: the filter that makes PCM shrink, and zstd behind it.
//!
//! Plain zstd takes 5 to 19 % off 16-bit stereo PCM. Sound is smooth: what is left of a sample when the line through the two
//! before it, of the same channel, is taken away is small, and its high bytes are nearly all zero. So the filter
//! *stereo delta* makes of the piece's n whole samples x (`i16`, little-endian, left and right by turns)
//!
//! ```text
//! e[i] = x[i] - 2 x[i-2] + x[i-4]       wrapping; samples before the piece count as 0
//! z[i] = (e[i] << 1) ^ (e[i] >> 15)     arithmetic shift: small numbers of either sign have small z
//! out  = low bytes of z[0..n] | high bytes of z[0..n] | the last byte, where the length is odd
//! ```
//!
//! and zstd then takes off 33 to 59 %. Each piece is for itself, so that any one can be read alone.

use std::cell::RefCell;
use std::ops::Range;

use zstd::bulk::{Compressor, Decompressor};

use crate::format::{FRAME_BYTES, FRAME_PAYLOAD_BYTES, Filter};

/// The fastest that shrinks: puts must keep up with the drive, and what is left after the filter is noise to higher levels.
const ZSTD_LEVEL: i32 = 1;
/// How much must be saved for a track to be stored compressed? Less is not worth what reading then costs.
pub(crate) const SAVED_PERCENT_MIN: u64 = 10;
/// How much does the first look at a track take in? What every track pays that will not shrink: a microsecond or two.
const GLANCE_SLICES: usize = 16;
/// How long is each slice of it? Long enough for the filter to pay.
const GLANCE_SLICE_BYTES: usize = 128;
/// How often are two bytes of what is worth compressing equal? Bytes of `h` bits of entropy are once in at most 2^`h` pairs, and a
/// tenth is saved from 7.2 bits down. Bytes that do not shrink: once in 256.
const GLANCE_EQUAL_ONE_IN: u64 = 147;
/// Slices start on whole pairs of samples, or the filter would take left for right.
const SAMPLE_PAIR_BYTES: usize = 4;

thread_local! {
    /// Making one takes some 20 us and half a MiB, and an executor has no use for two.
    static COMPRESSOR: RefCell<Compressor<'static>> =
        RefCell::new(Compressor::new(ZSTD_LEVEL).expect("zstd knows its fastest level"));
    static DECOMPRESSOR: RefCell<Decompressor<'static>> =
        RefCell::new(Decompressor::new().expect("zstd needs only memory"));
}

/// What the payloads of `frames`, whole frames one after the other, hold at `range`, in slices of up to a frame's payload.
pub(crate) fn payloads(frames: &[u8], range: Range<u64>) -> impl Iterator<Item = &[u8]> {
    let numbers = range.start / FRAME_PAYLOAD_BYTES..range.end.div_ceil(FRAME_PAYLOAD_BYTES);
    numbers.map(move |number| {
        let frame_start = number * FRAME_PAYLOAD_BYTES;
        let start = range.start.max(frame_start) - frame_start;
        let end = range.end.min(frame_start + FRAME_PAYLOAD_BYTES) - frame_start;
        let within = |offset: u64| usize::try_from(number * FRAME_BYTES + offset).expect("a place in memory");
        &frames[within(start)..within(end)]
    })
}

/// The same in one piece.
pub(crate) fn gather(frames: &[u8], range: Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(usize::try_from(range.end - range.start).expect("a length in memory"));
    payloads(frames, range).for_each(|payload| bytes.extend_from_slice(payload));
    bytes
}

/// Whether the first `bytes` that `frames` carry look as though they would shrink enough, and after which filter. It counts
/// bytes that are equal, and so sees what an entropy coder would save; what only repeats is not seen, and sound does not repeat.
pub(crate) fn glance(frames: &[u8], bytes: usize) -> Option<Filter> {
    let stride = bytes / GLANCE_SLICES / SAMPLE_PAIR_BYTES * SAMPLE_PAIR_BYTES;
    let mut sample = Vec::with_capacity(GLANCE_SLICES * GLANCE_SLICE_BYTES);
    for slice in 0..GLANCE_SLICES {
        let start = (slice * stride) as u64;
        let slice_bytes = stride.min(GLANCE_SLICE_BYTES) as u64;
        payloads(frames, start..start + slice_bytes).for_each(|payload| sample.extend_from_slice(payload));
    }
    let [none, delta] = [equal_pairs(&sample), equal_pairs(&stereo_delta(&sample))];
    let (filter, most) = if delta > none { (Filter::StereoDelta, delta) } else { (Filter::None, none) };
    let pairs = (sample.len() * sample.len().saturating_sub(1) / 2) as u64;
    (pairs > 0 && most * GLANCE_EQUAL_ONE_IN >= pairs).then_some(filter)
}

/// How many pairs of equal bytes there are.
fn equal_pairs(bytes: &[u8]) -> u64 {
    let mut counts = [0_u32; 256];
    bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    counts.iter().map(|count| u64::from(*count) * u64::from(count.saturating_sub(1)) / 2).sum()
}

/// The piece as it is stored, shorter than it is; nothing where it does not shrink.
pub(crate) fn pack(piece: &[u8], filter: Filter) -> Option<Vec<u8>> {
    let filtered;
    let plain = match filter {
        Filter::None => piece,
        Filter::StereoDelta => {
            filtered = stereo_delta(piece);
            &filtered
        }
    };
    let stored = COMPRESSOR.with_borrow_mut(|compressor| compressor.compress(plain)).ok()?;
    (stored.len() < piece.len()).then_some(stored)
}

/// The piece of `raw_bytes` that is stored as `stored`. Takes no more memory than it, whatever `stored` says.
pub(crate) fn restore(stored: &[u8], raw_bytes: usize, filter: Filter) -> Result<Vec<u8>, &'static str> {
    if stored.len() == raw_bytes {
        return Ok(stored.to_vec());
    }
    let plain = DECOMPRESSOR.with_borrow_mut(|decompressor| decompressor.decompress(stored, raw_bytes));
    let plain = plain.map_err(|_| "the compressed bytes cannot be read, or are too many")?;
    if plain.len() != raw_bytes {
        return Err("the compressed bytes are too few");
    }
    Ok(match filter {
        Filter::None => plain,
        Filter::StereoDelta => stereo_sum(&plain),
    })
}

fn stereo_delta(piece: &[u8]) -> Vec<u8> {
    let mut out = vec![0; piece.len()];
    let (samples, odd) = piece.as_chunks::<2>();
    let (low, rest) = out.split_at_mut(samples.len());
    let (high, last) = rest.split_at_mut(samples.len());
    last.copy_from_slice(odd);
    // The last four samples, oldest first.
    let mut before = [0_u16; 4];
    for ((sample, low), high) in samples.iter().zip(low).zip(high) {
        let x = u16::from_le_bytes(*sample);
        let e = x.wrapping_sub(before[2].wrapping_mul(2)).wrapping_add(before[0]);
        [*low, *high] = ((e << 1) ^ 0_u16.wrapping_sub(e >> 15)).to_le_bytes();
        before = [before[1], before[2], before[3], x];
    }
    out
}

/// Undoes [`stereo_delta`].
fn stereo_sum(filtered: &[u8]) -> Vec<u8> {
    let mut out = vec![0; filtered.len()];
    let count = filtered.len() / 2;
    let (low, rest) = filtered.split_at(count);
    let (high, odd) = rest.split_at(count);
    let (samples, last) = out.as_chunks_mut::<2>();
    last.copy_from_slice(odd);
    let mut before = [0_u16; 4];
    for ((sample, low), high) in samples.iter_mut().zip(low).zip(high) {
        let z = u16::from_le_bytes([*low, *high]);
        let e = (z >> 1) ^ 0_u16.wrapping_sub(z & 1);
        let x = e.wrapping_add(before[2].wrapping_mul(2)).wrapping_sub(before[0]);
        *sample = x.to_le_bytes();
        before = [before[1], before[2], before[3], x];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that do not repeat.
    fn noise(seed: u64, bytes: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..bytes).map(|_| next()).collect()
    }

    /// Two slow saws, one a channel.
    fn saws(samples: u16) -> Vec<u8> {
        (0..samples).flat_map(|n| [n.wrapping_mul(37), n.wrapping_mul(91)]).flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn golden_bytes() {
        // Samples 1, -1, 3, 0x7fff, 2 and -0x8000, and a byte over.
        let piece = b"\x01\0\xff\xff\x03\0\xff\x7f\x02\0\0\x80\x2a";
        // Deltas 1, -1, 1, 0x8001, -3 and, wrapped, 0x8001.
        let filtered = b"\x02\x01\x02\xfd\x05\xfd\0\0\0\xff\0\xff\x2a";
        assert_eq!(stereo_delta(piece), filtered, "{:02x?}", stereo_delta(piece));
        assert_eq!(stereo_sum(filtered), piece);
    }

    #[test]
    fn the_filter_gives_back_every_small_length_and_any_bytes() {
        for bytes in (0..300).chain([4096, 65_537, 262_144]) {
            for piece in [noise(bytes as u64, bytes), vec![0xff; bytes], vec![0; bytes]] {
                assert_eq!(stereo_sum(&stereo_delta(&piece)), piece, "{bytes} bytes");
            }
        }
    }

    #[test]
    fn pieces_come_back_after_either_filter_and_noise_is_left_alone() {
        let words = b"What is said again and again. ".repeat(1000);
        for (filter, smooth) in [(Filter::None, words), (Filter::StereoDelta, saws(10_000))] {
            assert_eq!(pack(&noise(1, 40_000), filter), None);
            for bytes in [smooth.len(), smooth.len() - 1, smooth.len() - 2, smooth.len() - 3] {
                let stored = pack(&smooth[..bytes], filter).expect("shrinks");
                assert_eq!(restore(&stored, bytes, filter).as_deref(), Ok(&smooth[..bytes]), "{filter:?}");
            }
        }
        assert_eq!(restore(b"as it is", 8, Filter::StereoDelta).as_deref(), Ok(&b"as it is"[..]));
    }

    #[test]
    fn what_is_not_the_piece_is_refused() {
        let piece = vec![7; 100_000];
        let stored = pack(&piece, Filter::None).expect("shrinks");
        assert!(restore(&stored, 99_999, Filter::None).is_err(), "too many bytes");
        assert!(restore(&stored, 100_001, Filter::None).is_err(), "too few bytes");
        assert!(restore(&stored[..stored.len() - 1], 100_000, Filter::None).is_err(), "cut off");
        assert!(restore(b"no zstd", 100_000, Filter::None).is_err(), "something else");
    }

    #[test]
    fn a_glance_finds_the_filter_that_helps() {
        let framed = |bytes: &[u8]| -> Vec<u8> {
            let payload = usize::try_from(FRAME_PAYLOAD_BYTES).expect("small");
            let frame = usize::try_from(FRAME_BYTES).expect("small");
            let mut frames: Vec<Vec<u8>> = bytes.chunks(payload).map(<[u8]>::to_vec).collect();
            frames.iter_mut().for_each(|bytes| bytes.resize(frame, 0xaa));
            frames.concat()
        };
        let smooth = saws(40_000);
        let words = b"What is said again and again. ".repeat(5000);
        assert_eq!(glance(&framed(&smooth), smooth.len()), Some(Filter::StereoDelta));
        assert_eq!(glance(&framed(&words), words.len()), Some(Filter::None));
        let noise = noise(3, 200_000);
        assert_eq!(glance(&framed(&noise), noise.len()), None);
        assert_eq!(gather(&framed(&noise), 65_000..140_000), &noise[65_000..140_000]);
    }
}
