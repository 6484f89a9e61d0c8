//! `deadwax cluster rejoin`.

use serde_json::json;

use super::say;
use crate::cli::ClusterRejoin;

pub(super) fn run(rejoin: &ClusterRejoin) -> anyhow::Result<bool> {
    let config = deadwax_node::Config::load(&rejoin.config)?;
    deadwax_node::rejoin(&config)?;
    if rejoin.json {
        say(json!({"config": rejoin.config.display().to_string(), "rejoins": true}))?;
        return Ok(true);
    }
    say("The node takes the map and the takedowns from the others when it starts; its tracks stay.")?;
    say(format_args!("Start it:\n  deadwax master --config {}", rejoin.config.display()))?;
    Ok(true)
}
