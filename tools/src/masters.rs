//! The way of operators' commands to a cluster's masters.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use deadwax_dht::{Layout, Map};
use deadwax_dht_client::{Client, ClientConfig};
use deadwax_dht_tls::{Identity, load_key};

use crate::cli::Masters;
use crate::node_address::NodeAddress;
use crate::unread::tell;

const MAP_DEFAULT: &str = "./deadwax-data/cluster.toml";

impl Masters {
    /// Whether it says which.
    #[must_use]
    pub const fn are_named(&self) -> bool {
        self.map.is_some() || self.node.is_some()
    }

    /// A client of those masters; of those in the map file `default`, where none are named.
    pub async fn client(&self, default: Option<&Path>) -> anyhow::Result<Client> {
        self.client_with(default, ClientConfig::default()).await
    }

    /// The same, with these settings but for the key.
    pub async fn client_with(&self, default: Option<&Path>, config: ClientConfig) -> anyhow::Result<Client> {
        let identity = self.key.as_deref().map(load_key).transpose()?.map(|key| Identity::new(&key));
        let config = ClientConfig { identity, ..config };
        if let Some(NodeAddress { id, address }) = &self.node {
            let found = Client::discover(address, id.as_ref(), config).await;
            let (client, node) = found.map_err(|why| anyhow!("cannot learn of the cluster from {address}: {why}"))?;
            if id.is_none() && self.key.is_some() {
                tell(format_args!(
                    "deadwax: nothing tells whether {address} is a master of yours; it has the key of node {node}, and is \
                     believed. To be sure the next time: --node {node}@{address}, or --map"
                ));
            }
            return Ok(client);
        }
        let path =
            self.map.clone().or_else(|| default.map(Path::to_owned)).unwrap_or_else(|| PathBuf::from(MAP_DEFAULT));
        let map = Map::load(&path).with_context(|| {
            format!(
                "cannot read the map {}: name another with --map, or a master with --node [ID@]HOST:PORT",
                path.display()
            )
        })?;
        Ok(Client::new(Arc::new(map), config))
    }
}

/// The newest that the cluster's log says.
pub async fn newest(client: &Client) -> anyhow::Result<Arc<Layout>> {
    // Each node is asked, so that one that lags does not pass for all.
    client.core_status().await;
    let Some(layout) = client.newest().await else {
        let up = client.nodes_up().await;
        if up == 0 {
            bail!("no master answers: {}", addresses(&client.map()));
        }
        bail!(
            "this cluster's map is a file and has no log, or nobody that answers has it yet: it cannot be changed while it \
             runs (one of three masters or more, made without --no-log, can)"
        );
    };
    Ok(layout)
}

fn addresses(map: &Map) -> String {
    map.nodes().iter().map(|node| node.address.as_str()).collect::<Vec<_>>().join(", ")
}
