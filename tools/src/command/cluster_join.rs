//! `deadwax cluster join`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use deadwax_dht::rebalance::Command;
use deadwax_dht::{Layout, Map, MapSpec, Node, NodeId};
use deadwax_dht_client::Client;
use deadwax_node::Place;

use super::cluster_change::{carry_out, forecast, table};
use super::say;
use crate::cli::ClusterJoin;
use crate::layout::{GATEWAY_DEFAULT, Plan, write};
use crate::masters::newest;
use crate::settings::{self, Admitted};

/// How long the map that names the new node may take to reach whom we ask.
const MAPPED_MAX: Duration = Duration::from_secs(30);

pub(super) async fn run(join: ClusterJoin) -> anyhow::Result<bool> {
    let address = join.spec.address;
    let like = deadwax_node::Config::load(&join.like)?;
    if !address.ip().is_loopback() && !like.tls && !join.insecure_listen {
        bail!(
            "{address} is not loopback, and the cluster has no TLS: nothing is encrypted and nobody is asked who he is; \
             where the network is trusted, add --insecure-listen"
        );
    }
    if like.tls && join.masters.key.is_none() {
        bail!("the cluster speaks TLS: name the key of one who may command by --key (admin.key at first)");
    }
    let client = join.masters.client(None).await?;
    let layout = newest(&client).await?;
    let home = std::path::absolute(&join.data).context("cannot tell where --data is")?;
    std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let (map_path, config_path) = (home.join("cluster.toml"), home.join("master.toml"));
    let config = if config_path.exists() {
        deadwax_node::Config::load(&config_path)?
    } else {
        let admitted = Admitted { clients: like.clients, admins: like.admins };
        let config = settings::master(&home, &map_path, &join.spec, &plan(&join, like.tls), &admitted)?;
        // Whatever its plan, which knows of this node alone: a cluster that can be joined has a log.
        deadwax_node::Config { log: true, issuers: like.issuers, ..config }
    };
    let drives = settings::drives(&join.spec)?;
    if config.listen != address || config.volumes != drives {
        bail!("{} is there already, and names another address or other drives", config_path.display());
    }
    let place = Place { zone: join.spec.zone.clone(), rack: join.rack.clone(), weight: join.weight };
    let node = deadwax_node::init(&config, &place)?;
    if let Some(other) = layout.map().nodes().iter().find(|other| other.address == node.address && other.id != node.id)
    {
        bail!("node {} is at {} already, and is not this one", other.id.short(), other.address);
    }
    if !config_path.exists() {
        write(&config_path, &settings::master_text(&config)?)?;
    }
    // Before the cluster hears of it: a node that has a part in one already must not get another.
    deadwax_node::rejoin(&config)?;
    let with = with_node(layout.map(), node.clone())?;
    let (id, command) = (node.id, Command::AddNode(node));
    let foreseen = forecast(&client, &command).await?;
    table(&with, &foreseen).iter().try_for_each(say)?;
    let epoch = carry_out(&client, &command).await?;
    mapped(&client, &id).await?.map().save(&map_path)?;
    say(format_args!(
        "Node {} is in the cluster's map since epoch {epoch}, and has its share once it runs.",
        id.short()
    ))?;
    say(format_args!("Look over the settings, then start it:\n  deadwax master --config {}", config_path.display()))?;
    Ok(true)
}

/// The map as it is to be, for names.
fn with_node(map: &Map, node: Node) -> anyhow::Result<Map> {
    let mut spec = MapSpec { overrides: Vec::new(), ..map.spec().clone() };
    if map.node(&node.id).is_none() {
        spec.nodes.push(node);
    }
    Ok(Map::new(spec)?)
}

fn plan(join: &ClusterJoin, tls: bool) -> Plan {
    Plan {
        nodes: Vec::new(),
        gateway: GATEWAY_DEFAULT,
        insecure_listen: join.insecure_listen,
        tls,
        log: true,
        shards: None,
        segment_bytes: None,
        reserve_bytes: None,
    }
}

/// A layout that names the node: it begins by it.
async fn mapped(client: &Client, node: &NodeId) -> anyhow::Result<Arc<Layout>> {
    let began = Instant::now();
    loop {
        let layout = newest(client).await?;
        if layout.map().node(node).is_some() {
            return Ok(layout);
        }
        if began.elapsed() > MAPPED_MAX {
            bail!("the cluster took the node, and nobody gave the map that names it: run the same again");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
