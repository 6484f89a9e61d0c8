//! `deadwax cluster init`.

use std::path::PathBuf;

use anyhow::bail;
use serde_json::{Value, json};

use super::say;
use crate::cli::ClusterInit;
use crate::layout::{Layout, Plan};

pub(super) fn run(init: &ClusterInit) -> anyhow::Result<bool> {
    let open = init.nodes.iter().any(|node| !node.address.ip().is_loopback());
    let tls = init.tls || (open && !init.insecure_listen);
    if !init.listen.ip().is_loopback() && !init.insecure_listen {
        bail!(
            "{} is not loopback, and the gateway's clients are neither encrypted nor asked who they are yet; where the \
             network is trusted, add --insecure-listen (and --tls, for what nodes and gateway say to one another)",
            init.listen
        );
    }
    let plan = Plan {
        nodes: init.nodes.clone(),
        gateway: init.listen,
        insecure_listen: init.insecure_listen,
        tls,
        log: !init.no_log,
        shards: None,
        segment_bytes: None,
        reserve_bytes: None,
    };
    let layout = Layout::create(&init.data, &plan)?;
    if init.json {
        say(files(&layout, &plan))?;
        return Ok(true);
    }
    say(format_args!("The map is {}.", layout.map().display()))?;
    if !plan.has_log() {
        say("The map is fixed: nodes do not compare what they hold, and nodes cannot be added.")?;
    }
    say("Look over the settings, then start, each where its drives are:")?;
    for index in 0..layout.masters() {
        say(format_args!("  deadwax master --config {}", layout.master_config(index).display()))?;
    }
    say(format_args!("  deadwax gateway --config {}", layout.gateway_config().display()))?;
    if tls {
        let key = layout.admin_key();
        say(format_args!(
            "Nodes and gateway speak TLS, and know each other by their keys; {} commands them.",
            key.display()
        ))?;
    } else if open {
        say("Traffic between nodes is not encrypted (--tls): keep these addresses on a network of their own.")?;
    }
    Ok(true)
}

/// What was made, for programs.
fn files(layout: &Layout, plan: &Plan) -> Value {
    let text = |path: PathBuf| path.display().to_string();
    let masters: Vec<String> = (0..layout.masters()).map(|index| text(layout.master_config(index))).collect();
    json!({
        "map": text(layout.map()), "masters": masters, "gateway": text(layout.gateway_config()),
        "admin_key": text(layout.admin_key()), "tls": plan.tls, "log": plan.has_log(),
    })
}
