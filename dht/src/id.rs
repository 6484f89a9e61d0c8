//! The names of nodes, volumes and clusters.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text is no such name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadId {
    /// The text has the wrong number of characters.
    #[error("expected {expected} hexadecimal digits, got {got} characters")]
    Length {
        /// How many digits such a name has.
        expected: usize,
        /// How many characters were given.
        got: usize,
    },
    /// The byte at this index is no hexadecimal digit.
    #[error("expected hexadecimal digits, the character at byte {0} is none")]
    Digit(usize),
}

pub(crate) fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], BadId> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return Err(BadId::Length { expected: 2 * N, got: text.chars().count() });
    }
    let mut bytes = [0; N];
    for (index, &digit) in digits.iter().enumerate() {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return Err(BadId::Digit(index)),
        };
        bytes[index / 2] = bytes[index / 2] << 4 | value;
    }
    Ok(bytes)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// The name with these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The bytes of the name.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for byte in self.0 {
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                from_hex(text).map(Self)
            }
        }

        /// Text for people's formats (JSON, TOML), bytes for programs' (bincode).
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
                } else {
                    <[u8; $bytes]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

id! {
    /// The name of a volume (one drive's directory): 16 random bytes, made when it is formatted.
    /// Written as 32 lower-case hexadecimal digits; either case is read.
    VolumeId, 16
}

id! {
    /// The name of a node: BLAKE3 of its Ed25519 public key, see [`NodeKey`](crate::NodeKey).
    /// Written as 64 lower-case hexadecimal digits; either case is read.
    NodeId, 32
}

id! {
    /// The name of a cluster: 16 random bytes, made with its map.
    /// Written as 32 lower-case hexadecimal digits; either case is read.
    ClusterId, 16
}

id! {
    /// The Ed25519 public key of one that may take tracks down (RFC 8032): its name in settings.
    /// Written as 64 lower-case hexadecimal digits; either case is read.
    IssuerKey, 32
}

impl NodeId {
    /// The first twelve digits: enough for people to tell nodes apart in messages.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl ClusterId {
    /// The first eight bytes, big-endian: what every frame carries.
    #[must_use]
    pub fn prefix(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_are_the_same_name() {
        let id = VolumeId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string(), "ab".repeat(16));
        assert_eq!("AB".repeat(16).parse(), Ok(id));
        assert_eq!("ab".parse::<VolumeId>(), Err(BadId::Length { expected: 32, got: 2 }));
        assert_eq!("zb".repeat(16).parse::<VolumeId>(), Err(BadId::Digit(0)));
        assert_eq!("é".repeat(16).parse::<VolumeId>(), Err(BadId::Digit(0)));
        let cluster = ClusterId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9, 9, 9, 9]);
        assert_eq!(cluster.prefix(), 0x0102_0304_0506_0708);
    }
}
