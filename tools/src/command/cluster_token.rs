//! `deadwax cluster token`.

use anyhow::{Context, anyhow, bail};
use deadwax_dht::rebalance::Command;
use deadwax_dht::{NodeId, TokenSecret};
use deadwax_dht_client::Client;
use serde::Serialize;
use serde_json::json;

use super::cluster_change::carry_out;
use super::say;
use crate::cli::ClusterToken;
use crate::join_token::JoinToken;
use crate::masters::newest;
use crate::progress::duration;
use crate::unread::tell;

/// A token that was made, for programs.
#[derive(Serialize)]
struct Made {
    token: String,
    ttl_s: u64,
}

pub(super) async fn run(wanted: ClusterToken) -> anyhow::Result<bool> {
    if wanted.masters.key.is_none() {
        bail!(
            "name the key of one who may command by --key (admin.key at first); a cluster without TLS has no use for tokens: \
             nodes join it by `deadwax cluster join --node`"
        );
    }
    let client = wanted.masters.client(None).await?;
    if wanted.revoke {
        let epoch = carry_out(&client, &Command::RevokeTokens).await?;
        let done = format!("No token that was made before is of use any more, since epoch {epoch}.");
        say(if wanted.json { json!({"revoked": true, "epoch": epoch}).to_string() } else { done })?;
        return Ok(true);
    }
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(|error| anyhow!("no randomness from the system: {error}"))?;
    let secret = TokenSecret::from_bytes(secret);
    let masters = voters(&client).await?;
    let ttl_ms = u64::try_from(wanted.ttl.as_millis())?;
    carry_out(&client, &Command::MakeToken { name: secret.name(), ttl_ms }).await?;
    let (token, ttl_s) = (JoinToken { secret, masters }.to_string(), wanted.ttl.as_secs());
    if wanted.json {
        return say(serde_json::to_string(&Made { token, ttl_s })?).map(|()| true);
    }
    tell(format_args!("One node may join by this token, within {}:", duration(ttl_s)));
    say(&token)?;
    tell(format_args!(
        "On its machine: deadwax cluster join ZONE@ADDRESS:PORT=DIR[,DIR...] --data DIR --token TOKEN\n\
         Until it is used, whoever has it may bring a node: `deadwax cluster token --revoke` takes all back."
    ));
    Ok(true)
}

/// The nodes that vote, and their addresses.
async fn voters(client: &Client) -> anyhow::Result<Vec<(NodeId, String)>> {
    let layout = newest(client).await?;
    let address = |node: &NodeId| layout.map().node(node).map(|node| node.address.clone());
    let voters = layout.state().voters().iter().map(|voter| Some((voter.node, address(&voter.node)?)));
    voters.collect::<Option<Vec<_>>>().context("the map lacks a node that votes: run the same again")
}
