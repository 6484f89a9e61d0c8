//! A node's key pair, from which its name follows.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey};

use crate::NodeId;

/// The Ed25519 key of a node (RFC 8032). Whoever has it is that node, so callers store it readable by the owner only.
#[derive(Clone)]
pub struct NodeKey(SigningKey);

impl NodeKey {
    /// The key that these 32 secret bytes are. They must come from the system's randomness, or from a key file.
    #[must_use]
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The 32 secret bytes, for a key file.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half, which others may know.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The node's name: BLAKE3 of the public half.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        NodeId::of_public_key(&self.public())
    }

    /// Signs `message` (RFC 8032, section 5.1.6).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature: Signature = self.0.sign(message);
        signature.to_bytes()
    }
}

impl NodeId {
    /// The name of whoever has the key with this public half: its BLAKE3.
    #[must_use]
    pub fn of_public_key(public: &[u8; 32]) -> Self {
        Self::from_bytes(*blake3::hash(public).as_bytes())
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({}, secret not shown)", self.node_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_the_same_name_for_ever() {
        // RFC 8032, section 7.1, test 1: this secret has this public half.
        let secret = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60".parse::<NodeId>();
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".parse::<NodeId>();
        let key = NodeKey::from_bytes(secret.expect("hex").as_bytes());
        assert_eq!(&key.public(), public.expect("hex").as_bytes());
        assert_eq!(key.node_id().to_string(), "6c31041268f471609c79f5f2dbcc38e4a4ab2f4d416109a4e09fcf50fd0f0062");
        assert_eq!(NodeKey::from_bytes(&key.to_bytes()).node_id(), key.node_id());
        assert!(!format!("{key:?}").contains("9d61b19d"));
    }
}
