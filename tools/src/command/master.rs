//! `deadwax master`.

use crate::children;
use crate::cli::Master;

pub(super) fn run(master: &Master) -> anyhow::Result<bool> {
    if let Some(parent) = master.parent
        && !children::die_with(parent)?
    {
        anyhow::bail!("its parent, process {parent}, has ended");
    }
    let config = deadwax_node::Config::load(&master.config)?;
    deadwax_node::run(config, |ready| {
        tracing::info!(node = %ready.node, address = %ready.address, shards = ready.shards, "master is ready");
    })?;
    Ok(true)
}
