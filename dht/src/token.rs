//! What a new node shows to be let into a cluster, once.

use std::fmt;
use std::str::FromStr;

use crate::id::{BadId, from_hex};
use crate::log::{BadBytes, Reader, Writer};

/// A token's secret: 16 bytes of the system's randomness. Whoever has it may bring one node into the cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret([u8; 16]);

impl TokenSecret {
    /// The secret with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, for whom it is made.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// By which the cluster knows it: nobody finds the secret from that.
    #[must_use]
    pub fn name(&self) -> TokenName {
        TokenName(blake3::derive_key("deadwax token of one who joins, 1", &self.0))
    }
}

/// 32 hexadecimal digits, of either case.
impl FromStr for TokenSecret {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        from_hex(text).map(Self)
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(not shown)")
    }
}

/// A token as the cluster's log names it: 32 bytes that BLAKE3 derives from its secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenName([u8; 32]);

impl TokenName {
    /// The name with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn write(self, out: &mut Writer) {
        out.raw(&self.0);
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, BadBytes> {
        from.array().map(Self)
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenName({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_and_has_one_name() {
        let secret = TokenSecret::from_bytes([0xab; 16]);
        assert!(!format!("{secret:?} {:?} {}", secret.name(), secret.name()).contains("abab"));
        assert_eq!(secret.name(), TokenSecret::from_bytes(*secret.as_bytes()).name());
        assert_eq!("AB".repeat(16).parse(), Ok(secret.clone()));
        assert_ne!(secret.name(), TokenSecret::from_bytes([0xac; 16]).name());
    }
}
