//! `deadwax cluster refound`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::bail;
use deadwax_dht::{Failure, FailureKind, Map, Node, NodeId};
use deadwax_dht_client::{Client, ClientConfig};
use deadwax_dht_tls::{Identity, load_key};
use deadwax_node::{Config, Refounding};
use serde_json::json;
use tokio::task::JoinSet;

use super::say;
use crate::cli::ClusterRefound;
use crate::names;

/// How many nodes are asked at a time: each takes a connection.
const ASKED_AT_ONCE: usize = 128;

pub(super) async fn run(refound: ClusterRefound) -> anyhow::Result<bool> {
    let config = Config::load(&refound.config)?;
    let refounding = Refounding::open(&config)?;
    let map = Arc::new(refounding.history().map()?);
    let lost = lost(&refound, &map)?;
    // Before anybody is asked: what cannot be need not wait.
    let after = refounding.without(&lost)?;
    let left: Vec<&Node> = map.nodes().iter().filter(|node| !after.state().dead().contains(&node.id)).collect();
    let identity = config.tls.then(|| load_key(&config.dir.join("node.key"))).transpose()?;
    let asked = ClientConfig { identity: identity.map(|key| Identity::new(&key)), ..ClientConfig::default() };
    let client = Client::new(Arc::clone(&map), asked);
    let silent = compare(&client, &refounding, &lost, &left, refound.ignore_silent).await?;
    if !refound.json {
        let names = |nodes: &mut dyn Iterator<Item = &Node>| {
            nodes.map(|node| node.address.as_str()).collect::<Vec<_>>().join(", ")
        };
        let gone = names(&mut map.nodes().iter().filter(|node| lost.contains(&node.id)));
        let epoch = after.epoch();
        say(format_args!(
            "The map's log begins anew at epoch {epoch}, at this node, without {gone}, which are dead from then on."
        ))?;
        say(format_args!("Left are {}.", names(&mut left.iter().copied())))?;
        say(
            "What only the lost nodes had acknowledged is gone. Where one of them is there again, start it alone, as it is: it",
        )?;
        say("takes this log. Never start most of them together: they go on with the old")?;
        say("log then (`deadwax cluster refound --help`). Gateways that ran meanwhile are to be started anew.")?;
        if !silent.is_empty() {
            say(format_args!(
                "Nobody serves until {} answer what was taken down, or `deadwax cluster apply dead` names them.",
                silent.join(", ")
            ))?;
        }
    }
    if !refound.yes {
        bail!("nothing is done yet: the same with --yes does it");
    }
    let node = refounding.node();
    let epoch = refounding.refound(&lost)?;
    if refound.json {
        let lost: Vec<String> = lost.iter().map(NodeId::to_string).collect();
        say(
            json!({"node": node.to_string(), "epoch": epoch, "lost": lost, "config": refound.config.display().to_string()}),
        )?;
        return Ok(true);
    }
    say(format_args!("Done. Start it:\n  deadwax master --config {}", refound.config.display()))?;
    say(
        "It votes alone until two others are up, which it gives seats: `deadwax status` names who votes. Then make good what is",
    )?;
    say(
        "lost: `deadwax cluster token` for new machines, `cluster remove` for lost ones, `cluster apply zones-min 1` where one",
    )?;
    say("zone is left and puts are to go on.")?;
    Ok(true)
}

/// The nodes that are lost, by what the command line says.
fn lost(refound: &ClusterRefound, map: &Map) -> anyhow::Result<BTreeSet<NodeId>> {
    let named = refound.lost.iter().map(|name| names::node(map, name).map(|node| node.id));
    let mut lost = named.collect::<anyhow::Result<BTreeSet<NodeId>>>()?;
    for zone in &refound.lost_zone {
        if !map.zones().contains(zone) {
            bail!("no node is in a zone {zone:?}; there are {}", map.zones().join(", "));
        }
        lost.extend(map.nodes().iter().filter(|node| node.zone == *zone).map(|node| node.id));
    }
    Ok(lost)
}

/// Whoever answers is not lost, and may be most of those that vote, with others. Those that are left know no more than this
/// one: refused where they do, or do not say. Gives the addresses of those that do not answer.
async fn compare<'a>(
    client: &Client,
    refounding: &Refounding,
    lost: &BTreeSet<NodeId>,
    left: &[&'a Node],
    ignore_silent: bool,
) -> anyhow::Result<Vec<&'a str>> {
    let (own, map) = (refounding.history().epoch(), client.map());
    let answers = epochs(client, &map).await;
    // Whoever refuses, or is too busy to say, is there as well.
    let is_silent = |why: &Failure| matches!(why.kind, FailureKind::Unreachable | FailureKind::Stalled);
    let is_there = |node: &Node| answers.get(&node.id).is_some_and(|said| !said.as_ref().is_err_and(is_silent));
    if let Some(node) = map.nodes().iter().find(|node| lost.contains(&node.id) && is_there(node)) {
        bail!("node {} answers, so it is not lost: leave it out, or end its process for good first", node.address);
    }
    let epoch_of = |node: &Node| answers.get(&node.id)?.as_ref().ok().copied().flatten();
    // Also those that this one believes dead: they may have come back at an epoch that it has not heard of.
    let told = map.nodes().iter().filter(|node| node.id != refounding.node());
    if let Some((node, epoch)) = told.filter_map(|node| Some((node, epoch_of(node)?))).max_by_key(|each| each.1)
        && epoch > own
    {
        bail!(
            "node {} knows epoch {epoch}, and this one only {own}: run it there, or start this one until it has heard of it",
            node.address
        );
    }
    let others = left.iter().filter(|node| node.id != refounding.node());
    let silent: Vec<&'a str> =
        others.filter(|node| epoch_of(node).is_none()).map(|node| node.address.as_str()).collect();
    if !silent.is_empty() && !ignore_silent {
        bail!(
            "{} do not answer, and may know more than this one: start them, name them with --lost where they are lost, too, or \
             give --ignore-silent",
            silent.join(", ")
        );
    }
    Ok(silent)
}

/// What each node says is the newest epoch.
async fn epochs(client: &Client, map: &Map) -> BTreeMap<NodeId, Result<Option<u64>, Failure>> {
    let mut answers = BTreeMap::new();
    for nodes in map.nodes().chunks(ASKED_AT_ONCE) {
        let mut asking = JoinSet::new();
        for node in nodes.iter().map(|node| node.id) {
            let client = client.clone();
            asking.spawn(async move { (node, client.ask_epoch(&node).await) });
        }
        answers.extend(asking.join_all().await);
    }
    answers
}
