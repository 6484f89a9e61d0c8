//! A master as an operator names it: by its address, and by its id where he knows that.

use std::fmt;
use std::str::FromStr;

use deadwax_dht::{BadId, NodeId};

/// `[ID@]HOST:PORT`: where a node is reached, and which it must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeAddress {
    /// Which; none: whoever answers is believed.
    pub id: Option<NodeId>,
    /// `host:port`.
    pub address: String,
}

/// The text is no address of a node.
#[derive(Debug, thiserror::Error)]
pub enum BadNodeAddress {
    /// The part before the `@` is no id.
    #[error("expected ID@HOST:PORT with the node's whole id: {0}")]
    Id(#[from] BadId),
    /// The part after it is no address.
    #[error("expected [ID@]HOST:PORT, for example 10.0.0.1:7881, got {0:?}")]
    Address(String),
}

impl FromStr for NodeAddress {
    type Err = BadNodeAddress;

    fn from_str(text: &str) -> Result<Self, BadNodeAddress> {
        let (id, address) = match text.split_once('@') {
            Some((id, address)) => (Some(id.parse()?), address),
            None => (None, text),
        };
        let is_address = |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok();
        match address.rsplit_once(':').filter(|parts| is_address(*parts)) {
            Some(_) => Ok(Self { id, address: address.to_owned() }),
            None => Err(BadNodeAddress::Address(address.to_owned())),
        }
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = &self.id {
            write!(f, "{id}@")?;
        }
        f.write_str(&self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_its_whole_id_or_by_none() {
        let id = "ab".repeat(32);
        for text in [format!("{id}@10.0.0.1:7881"), format!("{id}@[::1]:7881"), "one.example:7881".to_owned()] {
            assert_eq!(text.parse::<NodeAddress>().expect("good").to_string(), text);
        }
        let of = |text: &str| text.parse::<NodeAddress>().expect_err("bad").to_string();
        assert!(of("abab@10.0.0.1:7881").contains("whole id"), "a prefix");
        for text in ["", "host", ":1", "host:", "host:99999", &format!("{id}@host")] {
            assert!(of(text).contains("HOST:PORT"), "{text}");
        }
    }
}
