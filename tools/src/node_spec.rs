//! A node, as `deadwax cluster init --node` is told of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// `ZONE@ADDRESS:PORT=DIR[,DIR...]`: where a node is and which drives it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSpec {
    /// The site, room or rack row that fails as one.
    pub zone: String,
    /// Where the node listens.
    pub address: SocketAddr,
    /// A directory for each of its drives.
    pub volumes: Vec<PathBuf>,
}

/// The text is no node.
#[derive(Debug, thiserror::Error)]
pub enum BadNodeSpec {
    /// A part is missing.
    #[error("expected ZONE@ADDRESS:PORT=DIR[,DIR...], for example london@10.0.0.1:7881=/mnt/a,/mnt/b")]
    Shape,
    /// The address does not parse.
    #[error("expected an address and a port such as 10.0.0.1:7881, got {0:?}")]
    Address(String),
}

impl FromStr for NodeSpec {
    type Err = BadNodeSpec;

    fn from_str(text: &str) -> Result<Self, BadNodeSpec> {
        let (zone, rest) = text.split_once('@').ok_or(BadNodeSpec::Shape)?;
        let (address, dirs) = rest.split_once('=').ok_or(BadNodeSpec::Shape)?;
        let volumes: Vec<PathBuf> = dirs.split(',').map(PathBuf::from).collect();
        if zone.is_empty() || volumes.iter().any(|dir| dir.as_os_str().is_empty()) {
            return Err(BadNodeSpec::Shape);
        }
        let address = address.parse().map_err(|_| BadNodeSpec::Address(address.to_owned()))?;
        Ok(Self { zone: zone.to_owned(), address, volumes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_a_zone_an_address_and_drives() {
        let node: NodeSpec = "london@[::1]:7881=/mnt/a,/mnt/b".parse().expect("a node");
        assert_eq!(node.zone, "london");
        assert_eq!(node.address, "[::1]:7881".parse().expect("an address"));
        assert_eq!(node.volumes, [PathBuf::from("/mnt/a"), PathBuf::from("/mnt/b")]);
        for text in ["", "a@127.0.0.1:1", "127.0.0.1:1=/a", "@127.0.0.1:1=/a", "a@127.0.0.1:1=", "a@127.0.0.1:1=/a,"] {
            assert!(matches!(text.parse::<NodeSpec>(), Err(BadNodeSpec::Shape)), "{text:?}");
        }
        assert!(matches!("a@host:1=/a".parse::<NodeSpec>(), Err(BadNodeSpec::Address(_))));
    }
}
