//! What a follower of stored tracks has been given, in 16 bytes a partition; and those bytes at rest.
//!
//! Little-endian:
//!
//! ```text
//! 0  magic       4 bytes   "DWSN"
//! 4  version     u8        1
//! 5  reserved    3 bytes   zero, and checked
//! 8  count       u32       entries that follow, 65,536 at most
//! 12 entries     18 each   partition u16, digest 16 bytes; partitions rise, no digest is zero
//!    CRC         u32       CRC-32 (IEEE) of all before it
//! ```

use std::fmt;

use deadwax_track::{PARTITIONS, Partition};

const MAGIC: [u8; 4] = *b"DWSN";
/// 1: the first.
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 12;
const ENTRY_BYTES: usize = 18;
const CRC_BYTES: usize = 4;

const _: () = assert!(ENTRY_BYTES == size_of::<u16>() + size_of::<u128>());

/// Of each partition the XOR of the first 16 bytes of the ids that were given: what holders call its digest. The default has
/// been given nothing. 1 MiB of memory.
#[derive(Clone, PartialEq, Eq)]
pub struct SeenTracks {
    /// By partition; zero: nothing of it was given.
    digests: Box<[u128]>,
}

/// The bytes are not what [`SeenTracks::encode`] made: begin anew, with the default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSeenTracks {
    /// They begin otherwise, or are cut off, or more follows.
    #[error("not a record of which tracks were seen")]
    Form,
    /// A later program made them.
    #[error("record of which tracks were seen has version {0}, this program reads {VERSION}")]
    Version(u8),
    /// They were damaged.
    #[error("record of which tracks were seen has checksum {got:08x}, its bytes give {expected:08x}")]
    Crc {
        /// What the bytes give.
        expected: u32,
        /// What they say.
        got: u32,
    },
}

impl Default for SeenTracks {
    fn default() -> Self {
        Self { digests: vec![0; PARTITIONS as usize].into() }
    }
}

impl fmt::Debug for SeenTracks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeenTracks({} partitions)", self.filled().count())
    }
}

impl SeenTracks {
    /// The most bytes that [`encode`](Self::encode) makes.
    pub const BYTES_MAX: usize = HEAD_BYTES + PARTITIONS as usize * ENTRY_BYTES + CRC_BYTES;

    pub(crate) fn digest(&self, partition: Partition) -> u128 {
        self.digests[usize::from(partition.0)]
    }

    pub(crate) fn set(&mut self, partition: Partition, digest: u128) {
        self.digests[usize::from(partition.0)] = digest;
    }

    fn filled(&self) -> impl Iterator<Item = (u16, u128)> {
        (0..=u16::MAX).zip(self.digests.iter().copied()).filter(|(_, digest)| *digest != 0)
    }

    /// As bytes, to be kept over a restart: 18 for each partition that has tracks, and 16.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let count = u32::try_from(self.filled().count()).expect("at most 65,536");
        let mut bytes = Vec::with_capacity(HEAD_BYTES + count as usize * ENTRY_BYTES + CRC_BYTES);
        bytes.extend(MAGIC);
        bytes.extend([VERSION, 0, 0, 0]);
        bytes.extend(count.to_le_bytes());
        for (partition, digest) in self.filled() {
            bytes.extend(partition.to_le_bytes());
            bytes.extend(digest.to_le_bytes());
        }
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// From those bytes. Any others are refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadSeenTracks> {
        // The count of entries is the bytes' own; what they say of it is compared at the end.
        let (body, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or(BadSeenTracks::Form)?;
        let (head, entries) = body.split_first_chunk::<HEAD_BYTES>().ok_or(BadSeenTracks::Form)?;
        if head[..4] != MAGIC {
            return Err(BadSeenTracks::Form);
        }
        if head[4] != VERSION {
            return Err(BadSeenTracks::Version(head[4]));
        }
        let (expected, got) = (crc32fast::hash(body), u32::from_le_bytes(*crc));
        if expected != got {
            return Err(BadSeenTracks::Crc { expected, got });
        }
        let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
        let count = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        if !rest.is_empty() || head[5..8] != [0; 3] || count as usize != entries.len() {
            return Err(BadSeenTracks::Form);
        }
        let (mut seen, mut least) = (Self::default(), 0);
        for entry in entries {
            let (partition, digest) = entry.split_first_chunk::<2>().expect("18 bytes");
            let (partition, digest) = (u16::from_le_bytes(*partition), digest.try_into().expect("16 bytes"));
            let digest = u128::from_le_bytes(digest);
            if u32::from(partition) < least || digest == 0 {
                return Err(BadSeenTracks::Form);
            }
            least = u32::from(partition) + 1;
            seen.set(Partition(partition), digest);
        }
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> SeenTracks {
        let mut seen = SeenTracks::default();
        seen.set(Partition(0x1234), 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
        seen.set(Partition(u16::MAX), 1);
        seen
    }

    /// With the checksum that they must have.
    fn summed(mut body: Vec<u8>) -> Vec<u8> {
        body.extend(crc32fast::hash(&body).to_le_bytes());
        body
    }

    #[test]
    fn the_bytes_are_these_and_come_back() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let bytes = seen().encode();
        assert_eq!(
            hex(&bytes),
            "4457534e0100000002000000\
             3412000102030405060708090a0b0c0d0e0f\
             ffff01000000000000000000000000000000\
             16f8e04f"
        );
        assert_eq!(SeenTracks::decode(&bytes), Ok(seen()));
        let nothing = SeenTracks::default();
        assert_eq!((nothing.encode().len(), SeenTracks::decode(&nothing.encode())), (16, Ok(nothing)));
        let mut full = SeenTracks::default();
        (0..=u16::MAX).for_each(|partition| full.set(Partition(partition), u128::from(partition) + 1));
        assert_eq!(full.encode().len(), SeenTracks::BYTES_MAX);
        assert_eq!(SeenTracks::decode(&full.encode()), Ok(full));
    }

    #[test]
    fn any_other_bytes_are_refused() {
        let good = seen().encode();
        for length in 0..good.len() {
            assert!(SeenTracks::decode(&good[..length]).is_err(), "{length} bytes of {}", good.len());
        }
        for at in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            assert!(SeenTracks::decode(&bytes).is_err(), "bit {at} is another");
        }
        // The checksum is right, what it covers is not.
        let body = &good[..good.len() - CRC_BYTES];
        let with = |at: usize, byte: u8| {
            let mut body = body.to_vec();
            body[at] = byte;
            summed(body)
        };
        assert_eq!(SeenTracks::decode(&with(4, 2)), Err(BadSeenTracks::Version(2)));
        let more = [body, &[0; ENTRY_BYTES]].concat();
        let falling = [&body[..HEAD_BYTES], &body[HEAD_BYTES + ENTRY_BYTES..], &body[HEAD_BYTES..][..ENTRY_BYTES]];
        let twice = [&body[..HEAD_BYTES], &body[HEAD_BYTES..][..ENTRY_BYTES], &body[HEAD_BYTES..][..ENTRY_BYTES]];
        let mut zero = body.to_vec();
        zero[HEAD_BYTES + 2..][..16].fill(0);
        let bad = [with(0, 0), with(5, 1), with(8, 1), with(8, 3), summed(more), summed(falling.concat())];
        for bytes in bad.into_iter().chain([summed(twice.concat()), summed(zero)]) {
            assert_eq!(SeenTracks::decode(&bytes), Err(BadSeenTracks::Form), "{bytes:02x?}");
        }
    }
}
