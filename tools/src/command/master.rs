//! `deadwax master`.

use crate::cli::Master;
use crate::{children, heap};

pub(super) fn run(master: &Master) -> anyhow::Result<bool> {
    if let Some(parent) = master.parent
        && !children::die_with(parent)?
    {
        anyhow::bail!("its parent, process {parent}, has ended");
    }
    heap::give_back();
    let config = deadwax_node::Config::load(&master.config)?;
    deadwax_node::run(config, |ready| {
        tracing::info!(node = %ready.node, address = %ready.address, shards = ready.shards, "master is ready");
    })?;
    Ok(true)
}
