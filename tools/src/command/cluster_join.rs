//! `deadwax cluster join`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use deadwax_dht::rebalance::Command;
use deadwax_dht::wire::Admits;
use deadwax_dht::{Layout, Map, MapSpec, Node, NodeId};
use deadwax_dht_client::{Client, ClientConfig};
use deadwax_dht_tls::{Identity, load_key};
use deadwax_node::{Config, Place};
use serde_json::json;

use super::cluster_change::{carry_out, forecast, table};
use super::say;
use crate::cli::ClusterJoin;
use crate::join_token::JoinToken;
use crate::layout::{GATEWAY_DEFAULT, Plan, write};
use crate::masters::newest;
use crate::settings::{self, Admitted};

/// How long the map that names the new node may take to reach whom we ask.
const MAPPED_MAX: Duration = Duration::from_secs(30);

pub(super) async fn run(join: ClusterJoin) -> anyhow::Result<bool> {
    let like = join.like.as_deref().map(Config::load).transpose()?;
    match (&join.token, like) {
        (Some(token), like) => by_token(&join, &text_of(token)?, like).await,
        (None, Some(like)) => by_command(&join, like).await,
        (None, None) => bail!("name the settings of a master by --like, or show a token by --token"),
    }
}

/// The new node's files.
struct Home {
    map: PathBuf,
    settings: PathBuf,
    /// As they are, or are to be written.
    config: Config,
    node: Node,
}

impl Home {
    /// Makes the node's key and its volumes, or finds them; `tls` and whom it lets in count for settings that are new.
    fn make(join: &ClusterJoin, tls: bool, lets_in: &Admits) -> anyhow::Result<Self> {
        let home = std::path::absolute(&join.data).context("cannot tell where --data is")?;
        std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let (map, settings) = (home.join("cluster.toml"), home.join("master.toml"));
        let config = if settings.exists() {
            Config::load(&settings)?
        } else {
            let admitted = Admitted { clients: lets_in.clients.clone(), admins: lets_in.admins.clone() };
            let config = settings::master(&home, &map, &join.spec, &plan(join, tls), &admitted)?;
            // Whatever its plan, which knows of this node alone: a cluster that can be joined has a log.
            Config { log: true, issuers: lets_in.issuers.clone(), ..config }
        };
        if config.listen != join.spec.address || config.volumes != settings::drives(&join.spec)? {
            bail!("{} is there already, and names another address or other drives", settings.display());
        }
        let place = Place { zone: join.spec.zone.clone(), rack: join.rack.clone(), weight: join.weight };
        let node = deadwax_node::init(&config, &place)?;
        Ok(Self { map, settings, config, node })
    }

    fn write_settings(&self) -> anyhow::Result<()> {
        if self.settings.exists() {
            return Ok(());
        }
        write(&self.settings, &settings::master_text(&self.config)?)
    }
}

/// By the key of one who may command.
async fn by_command(join: &ClusterJoin, like: Config) -> anyhow::Result<bool> {
    let address = join.spec.address;
    if !address.ip().is_loopback() && !like.tls && !join.insecure_listen {
        bail!(
            "{address} is not loopback, and the cluster has no TLS: nothing is encrypted and nobody is asked who he is; \
             where the network is trusted, add --insecure-listen"
        );
    }
    if like.tls && join.masters.key.is_none() {
        bail!(
            "the cluster speaks TLS: show a token by --token (`deadwax cluster token` makes one), or name the key of one who may \
             command by --key (admin.key at first)"
        );
    }
    let client = join.masters.client(None).await?;
    let layout = newest(&client).await?;
    let home = Home::make(join, like.tls, &lets_in(like.clone()))?;
    let node = home.node.clone();
    if let Some(other) = layout.map().nodes().iter().find(|other| other.address == node.address && other.id != node.id)
    {
        bail!("node {} is at {} already, and is not this one", other.id.short(), other.address);
    }
    home.write_settings()?;
    // Before the cluster hears of it: a node that has a part in one already must not get another.
    deadwax_node::rejoin(&home.config)?;
    let with = with_node(layout.map(), node.clone())?;
    let (id, command) = (node.id, Command::AddNode(node));
    let foreseen = forecast(&client, &command).await?;
    if !join.json {
        table(&with, &foreseen).iter().try_for_each(say)?;
    }
    let epoch = carry_out(&client, &command).await?;
    mapped(&client, &id).await?.map().save(&home.map)?;
    welcome(&home, epoch, join.json)
}

/// By a token, and the node's own key. What its settings are to say comes from those that take it in.
async fn by_token(join: &ClusterJoin, token: &str, like: Option<Config>) -> anyhow::Result<bool> {
    let token: JoinToken = token.parse()?;
    let mut home = Home::make(join, true, &Admits::default())?;
    if !home.config.tls {
        bail!("{} says `tls = false`: tokens are for clusters that speak TLS", home.settings.display());
    }
    deadwax_node::rejoin(&home.config)?;
    let key = load_key(&home.config.dir.join("node.key"))?;
    let config = ClientConfig { identity: Some(Identity::new(&key)), ..ClientConfig::default() };
    let joined = Client::join(&token.secret, &token.masters, &home.node, &config).await?;
    let found = Client::discover(&joined.address, Some(&joined.by), config).await;
    let (client, _) = found.map_err(|why| anyhow!("the cluster took the node, and {} fails: {why}", joined.address))?;
    let layout = mapped(&client, &home.node.id).await?;
    let lets_in = match like {
        Some(like) => lets_in(like),
        None => client.admits().await.map_err(|why| {
            anyhow!("the cluster took the node, and no node says whom its settings let in: run the same again ({why})")
        })?,
    };
    layout.map().save(&home.map)?;
    let Admits { clients, admins, issuers } = lets_in;
    home.config = Config { clients, admins, issuers, ..home.config };
    home.write_settings()?;
    welcome(&home, joined.epoch, join.json)
}

fn welcome(home: &Home, epoch: u64, json: bool) -> anyhow::Result<bool> {
    let (node, config) = (&home.node.id, home.settings.display());
    if json {
        let (config, map) = (config.to_string(), home.map.display().to_string());
        say(json!({"node": node, "epoch": epoch, "config": config, "map": map}))?;
        return Ok(true);
    }
    say(format_args!(
        "Node {} is in the cluster's map since epoch {epoch}, and has its share once it runs.",
        node.short()
    ))?;
    say(format_args!("Look over the settings, then start it:\n  deadwax master --config {config}"))?;
    Ok(true)
}

/// The token's text; `-`: from the standard input, where no other user of the machine sees it.
fn text_of(token: &str) -> anyhow::Result<String> {
    match token {
        "-" => std::io::read_to_string(std::io::stdin()).context("cannot read the token from the standard input"),
        text => Ok(text.to_owned()),
    }
}

fn lets_in(like: Config) -> Admits {
    Admits { clients: like.clients, admins: like.admins, issuers: like.issuers }
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
