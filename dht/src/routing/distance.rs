//! The keyspace: points of 256 bits and how far apart they are.

use deadwax_track::{Partition, TrackId};

use crate::NodeId;

/// A point of the keyspace, its most significant word first. Nodes, tracks and partitions all have one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key([u64; 4]);

/// The XOR of two keys, read as a number of 256 bits (Maymounkov and Mazières, "Kademlia", 2002, section 2.1). For each
/// key and distance there is exactly one key that far away, so an order by distance has no ties.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Distance([u64; 4]);

impl Key {
    /// The key with these 32 bytes, the most significant first.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_be_bytes(chunk.try_into().expect("chunks have 8 bytes"));
        }
        Self(words)
    }

    /// The key with these words, the most significant first.
    #[must_use]
    pub const fn from_words(words: [u64; 4]) -> Self {
        Self(words)
    }

    /// Its bytes, the most significant first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// How far `other` is from here; the same in both directions.
    #[must_use]
    pub fn distance(&self, other: &Self) -> Distance {
        Distance(std::array::from_fn(|at| self.0[at] ^ other.0[at]))
    }

    /// A key of the bucket `bucket` (0 to 255) as seen from here: it has its first `bucket` bits in common with this
    /// one and not the next. The other bits are those of `random`.
    #[must_use]
    pub fn in_bucket(&self, bucket: u8, random: [u64; 4]) -> Self {
        let (at, bit) = (usize::from(bucket / 64), bucket % 64);
        let mut words = random;
        words[..at].copy_from_slice(&self.0[..at]);
        let first = 1_u64 << (63 - bit);
        // The bits above `first` come from this key, `first` itself turned over, those below are random.
        let below = first - 1;
        words[at] = (self.0[at] & !(first | below)) | (!self.0[at] & first) | (random[at] & below);
        Self(words)
    }

    /// The `count` bits (at most 63) that follow the first `from`, as a number; zeros follow the last.
    #[must_use]
    pub(super) fn bits(&self, from: u32, count: u32) -> u64 {
        debug_assert!(count < 64, "{count} bits");
        let word = |at: u32| self.0.get(at as usize).copied().unwrap_or(0);
        let (at, shift) = (from / 64, from % 64);
        let low = word(at + 1).checked_shr(64 - shift).unwrap_or(0);
        ((word(at) << shift) | low).checked_shr(64 - count).unwrap_or(0)
    }

    /// This key with those bits changed to `value`, as far as there are so many.
    #[must_use]
    pub(super) fn with_bits(self, from: u32, count: u32, value: u64) -> Self {
        let mut words = self.0;
        for bit in 0..count.min(256_u32.saturating_sub(from)) {
            let at = from + bit;
            let mask = 1 << (63 - at % 64);
            let word = &mut words[(at / 64) as usize];
            *word = if value >> (count - 1 - bit) & 1 == 1 { *word | mask } else { *word & !mask };
        }
        Self(words)
    }
}

impl Distance {
    /// How many leading bits the two keys have in common, which is the number of the bucket that one has in the
    /// other's table; none if they are the same key.
    #[must_use]
    pub fn bucket(&self) -> Option<u8> {
        let at = self.0.iter().position(|word| *word != 0)?;
        let bits = u32::try_from(at).expect("four words") * 64 + self.0[at].leading_zeros();
        Some(u8::try_from(bits).expect("a word that is not zero is among 256 bits"))
    }
}

impl From<NodeId> for Key {
    fn from(id: NodeId) -> Self {
        Self::from_bytes(id.as_bytes())
    }
}

impl From<TrackId> for Key {
    fn from(id: TrackId) -> Self {
        Self::from_bytes(id.as_bytes())
    }
}

/// The partition's 16 bits, followed by zeros. Not hashed: node ids are hashes, so every point has as many neighbours
/// as any other; the keys lie evenly, so that nodes keep more equal numbers of records than with hashed ones;
/// partitions that are neighbours have the same nodes nearest; and a walk towards a track's own id leads to the same
/// place.
impl From<Partition> for Key {
    fn from(partition: Partition) -> Self {
        Self([u64::from(partition.0) << 48, 0, 0, 0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_the_bits_in_common() {
        let own = Key::from_bytes(&[0x5a; 32]);
        assert_eq!(own.distance(&own).bucket(), None);
        for bucket in 0..=u8::MAX {
            for random in [[0; 4], [u64::MAX; 4], [0x0123_4567_89ab_cdef; 4]] {
                let key = own.in_bucket(bucket, random);
                assert_eq!(own.distance(&key).bucket(), Some(bucket));
                assert_eq!(key.distance(&own), own.distance(&key));
            }
        }
    }

    #[test]
    fn bits_are_read_as_they_were_written() {
        let own = Key::from_bytes(&[0x5a; 32]);
        for (from, value) in [(0, 9), (1, 5), (59, 15), (60, 6), (62, 11), (64, 0), (250, 13), (252, 7)] {
            let key = own.with_bits(from, 4, value);
            assert_eq!(key.bits(from, 4), value, "from {from}");
            assert_eq!((key.bits(0, from.min(63)), key.bits(from, 0)), (own.bits(0, from.min(63)), 0));
            assert_eq!(key.with_bits(from, 4, own.bits(from, 4)), own);
        }
        assert_eq!(own.with_bits(256, 4, 15), own);
    }

    #[test]
    fn a_partitions_key_lies_in_the_partition() {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&[0x2d, 0x3a]);
        let id = TrackId::from_bytes(bytes);
        assert_eq!(Key::from(id.partition()), Key::from(id));
    }
}
