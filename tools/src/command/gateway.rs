//! `deadwax gateway`.

use crate::cli::Gateway;
use crate::{children, heap, settings};

pub(super) fn run(gateway: &Gateway) -> anyhow::Result<bool> {
    if let Some(parent) = gateway.parent
        && !children::die_with(parent)?
    {
        anyhow::bail!("its parent, process {parent}, has ended");
    }
    heap::give_back();
    let mut config = settings::load_gateway(&gateway.config)?;
    if let Some(listen) = gateway.listen {
        config.listen = listen;
    }
    config.insecure_listen |= gateway.insecure_listen;
    deadwax_gateway::run(config, |address| tracing::info!(%address, "gateway is ready"))?;
    Ok(true)
}
