//! The name of a track: the hash of its bytes.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// BLAKE3-256 of a track's bytes. Written as 64 lower-case hexadecimal digits; either case is read.
///
/// Source: the BLAKE3 paper, section 2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackId([u8; 32]);

/// The top 16 bits of a [`TrackId`]: the unit in which tracks are placed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Partition(pub u16);

/// The text is not a track id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadTrackId {
    /// The text has the wrong number of characters.
    #[error("expected 64 hexadecimal digits, got {0} characters")]
    Length(usize),
    /// The byte at this index is no hexadecimal digit.
    #[error("expected 64 hexadecimal digits, the character at byte {0} is none")]
    Digit(usize),
}

impl TrackId {
    /// The id of `bytes`, a whole track in memory. Use [`TrackHasher`](crate::TrackHasher) for one that streams.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The id with these 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 16 bytes: what frame trailers carry to show whose bytes they are.
    #[must_use]
    pub fn half(&self) -> [u8; 16] {
        let mut first = [0; 16];
        first.copy_from_slice(&self.0[..16]);
        first
    }

    /// The partition that the id falls into.
    #[must_use]
    pub const fn partition(&self) -> Partition {
        Partition(u16::from_be_bytes([self.0[0], self.0[1]]))
    }

    /// Which of `shards` cores owns the id; `shards` must not be zero. Independent of [`partition`](Self::partition),
    /// so that the few partitions that a small cluster's volume holds still spread over all cores.
    #[must_use]
    pub fn shard(&self, shards: usize) -> usize {
        assert!(shards > 0, "a node has at least one shard");
        let mut tail = [0; 8];
        tail.copy_from_slice(&self.0[24..]);
        let shards = shards as u64;
        usize::try_from(u64::from_be_bytes(tail) % shards).unwrap_or(0)
    }
}

impl fmt::Display for TrackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for TrackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrackId({self})")
    }
}

impl FromStr for TrackId {
    type Err = BadTrackId;

    fn from_str(text: &str) -> Result<Self, BadTrackId> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(BadTrackId::Length(text.chars().count()));
        }
        let mut bytes = [0; 32];
        for (index, &digit) in digits.iter().enumerate() {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                b'A'..=b'F' => digit - b'A' + 10,
                _ => return Err(BadTrackId::Digit(index)),
            };
            bytes[index / 2] = bytes[index / 2] << 4 | value;
        }
        Ok(Self(bytes))
    }
}

/// Text for people's formats (JSON, TOML), 32 bytes for programs' (bincode).
impl Serialize for TrackId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for TrackId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BLAKE3's own published test vector for a one-byte input of 0.
    const ZERO: &str = "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213";

    #[test]
    fn text_and_bytes_are_the_same_id() {
        let id = TrackId::of(&[0]);
        assert_eq!(id.to_string(), ZERO);
        assert_eq!(ZERO.to_uppercase().parse(), Ok(id));
        assert_eq!(id.partition(), Partition(0x2d3a));
        assert_eq!(id.half()[..], id.as_bytes()[..16]);
    }

    #[test]
    fn text_that_is_no_id_says_why() {
        assert_eq!("".parse::<TrackId>(), Err(BadTrackId::Length(0)));
        assert_eq!(format!("{ZERO}0").parse::<TrackId>(), Err(BadTrackId::Length(65)));
        assert_eq!(format!("{}g{}", &ZERO[..9], &ZERO[10..]).parse::<TrackId>(), Err(BadTrackId::Digit(9)));
        // 64 bytes, but fewer characters: the digits that are none are named by byte, and nothing panics.
        assert_eq!("é".repeat(32).parse::<TrackId>(), Err(BadTrackId::Digit(0)));
    }

    #[test]
    fn shards_share_the_ids_evenly() {
        let mut counts = [0_u32; 5];
        for n in 0..10_000_u32 {
            counts[TrackId::of(&n.to_le_bytes()).shard(5)] += 1;
        }
        assert!(counts.iter().all(|count| (1_850..2_150).contains(count)), "{counts:?}");
    }
}
