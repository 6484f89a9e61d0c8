//! `deadwax cluster init`.

use anyhow::bail;
use deadwax_dht::log::VOTERS_MIN;

use super::say;
use crate::cli::ClusterInit;
use crate::layout::{Layout, Plan};

pub(super) fn run(init: &ClusterInit) -> anyhow::Result<bool> {
    let mut listens = init.nodes.iter().map(|node| node.address).chain([init.listen]);
    if let Some(open) = listens.find(|at| !at.ip().is_loopback()).filter(|_| !init.insecure_listen) {
        bail!(
            "{open} is not loopback, and nothing is encrypted and nobody is asked who he is yet; where the network is \
               trusted, add --insecure-listen"
        );
    }
    if init.log && init.nodes.len() < VOTERS_MIN {
        bail!("a log takes {VOTERS_MIN} nodes, here are {}: leave out --log", init.nodes.len());
    }
    let plan = Plan {
        nodes: init.nodes.clone(),
        gateway: init.listen,
        insecure_listen: init.insecure_listen,
        log: init.log,
        shards: None,
        segment_bytes: None,
        reserve_bytes: None,
    };
    let layout = Layout::create(&init.data, &plan)?;
    say(format_args!("The map is {}.", layout.map().display()))?;
    say("Look over the settings, then start, each where its drives are:")?;
    for index in 0..layout.masters() {
        say(format_args!("  deadwax master --config {}", layout.master_config(index).display()))?;
    }
    say(format_args!("  deadwax gateway --config {}", layout.gateway_config().display()))?;
    if plan.nodes.iter().any(|node| !node.address.ip().is_loopback()) {
        say("Traffic between nodes is not encrypted yet: keep these addresses on a network of their own.")?;
    }
    Ok(true)
}
