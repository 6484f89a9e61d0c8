//! `deadwax cluster issuer`.

use serde_json::json;

use super::say;
use crate::cli::ClusterIssuer;

pub(super) fn run(issuer: &ClusterIssuer) -> anyhow::Result<bool> {
    let config = deadwax_node::Config::load(&issuer.config)?;
    let (path, key) = deadwax_node::make_issuer(&config.dir)?;
    if issuer.json {
        say(json!({"issuer": key.to_string(), "issuer_key": path.display().to_string()}))?;
        return Ok(true);
    }
    say(format_args!(
        "First add this to `issuers` in the settings of every master, and restart them in turns:\n  \"{key}\""
    ))?;
    say(format_args!("Then set in {}, and restart this one:", issuer.config.display()))?;
    say(format_args!("  issuer_key = {:?}", path.display().to_string()))?;
    Ok(true)
}
