//! A cluster found by one address.

use std::sync::Arc;
use std::time::Duration;

use deadwax_dht::log::History;
use deadwax_dht::wire::Message;
use deadwax_dht::{ClusterId, Failure, FailureKind, LayoutCache, NodeId};
use tokio::time::timeout;

use crate::connection::Connection;
use crate::{Client, ClientConfig, follower};

impl Client {
    /// A client of the cluster that the node at `address` (`host:port`) is in, and which node that is: `meant`, or an error;
    /// where nobody says which, whoever answers is believed. The cluster must have a log: a map that is a file is to be had
    /// where the file is.
    pub async fn discover(
        address: &str,
        meant: Option<&NodeId>,
        config: ClientConfig,
    ) -> Result<(Self, NodeId), Failure> {
        let asking = timeout(Duration::from_millis(config.status_ms), Self::discovered(address, meant, &config));
        let late =
            |_| Err(Failure::new(FailureKind::Stalled, format!("{address} did not tell of its cluster in time")));
        let (history, node) = asking.await.unwrap_or_else(late)?;
        Ok((Self::of_history(history, config)?, node))
    }

    async fn discovered(
        address: &str,
        meant: Option<&NodeId>,
        config: &ClientConfig,
    ) -> Result<(History, NodeId), Failure> {
        let (cluster, node) = who(address, meant, config).await?;
        let mut connection = Connection::open(&cluster, 0, (&node, address), config).await?;
        let first = connection.ask(0, &Message::EpochsAfter { epoch: 0 }, None).await?;
        let bytes = follower::receive_batch(&mut connection, first, config.read_stall_ms).await?;
        let history = follower::first_history(&bytes)?;
        if *history.state().spec().cluster.as_bytes() != *cluster.as_bytes() {
            return Err(Failure::new(FailureKind::Internal, "gave the map of another cluster"));
        }
        Ok((history, node))
    }

    /// A client that begins with all that a history says.
    fn of_history(history: History, config: ClientConfig) -> Result<Self, Failure> {
        let bad = |why: deadwax_dht::BadMap| Failure::new(FailureKind::Internal, why.to_string());
        let layout = LayoutCache::default().layout(&history, None).map_err(bad)?;
        let client = Self::new(Arc::clone(layout.map()), config);
        client.inner.follower.begin_with(history, layout);
        Ok(client)
    }
}

/// Who is at an address.
async fn who(address: &str, meant: Option<&NodeId>, config: &ClientConfig) -> Result<(ClusterId, NodeId), Failure> {
    let connect_ms = config.connect_ms;
    let asking = timeout(Duration::from_millis(connect_ms), Connection::who(address, meant, config));
    let late = |_| Err(Failure::new(FailureKind::Stalled, format!("{address} did not answer within {connect_ms} ms")));
    asking.await.unwrap_or_else(late)
}
