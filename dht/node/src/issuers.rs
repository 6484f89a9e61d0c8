//! Who may take tracks down by the cluster's log: keys in settings, and this node's own.

use std::path::{Path, PathBuf};

use deadwax_dht::takedown::{Takedown, TakedownLog};
use deadwax_dht::{ClusterId, IssuerKey, NodeKey};

use crate::{Config, Error, init};

const KEY_FILE: &str = "issuer.key";

/// Makes an issuer's key in the directory of a node, readable by its owner only, or finds the one that is there. Answers
/// where it is, and its public half: what every master's settings are to name.
///
/// # Errors
/// The directory cannot be written, or the key that is there not be read.
pub fn make_issuer(dir: &Path) -> Result<(PathBuf, IssuerKey), Error> {
    let path = dir.join(KEY_FILE);
    let key = init::load_or_make_key(&path)?;
    Ok((path, IssuerKey::from_bytes(key.public())))
}

/// Whether these can be a cluster's issuers.
pub(crate) fn check(issuers: &[IssuerKey]) -> Result<(), Error> {
    let mut log = TakedownLog::new(ClusterId::from_bytes([0; 16]));
    for (index, key) in issuers.iter().enumerate() {
        if issuers[..index].contains(key) {
            return Err(setting("issuers", format!("{key} is named twice")));
        }
        log.allow(*key.as_bytes()).map_err(|why| setting("issuers", format!("{key}: {why}")))?;
    }
    Ok(())
}

/// This node's own key, if it is to be an issuer.
pub(crate) fn load_own(config: &Config) -> Result<Option<NodeKey>, Error> {
    let Some(path) = &config.issuer_key else { return Ok(None) };
    let key = init::load_key_at(path, "the issuer")?;
    let public = IssuerKey::from_bytes(key.public());
    if !config.issuers.contains(&public) {
        let why = format!("{} is the key of {public}, which `issuers` does not name", path.display());
        return Err(setting("issuer_key", why));
    }
    Ok(Some(key))
}

/// Whether the settings name all who signed what was kept: a log that forgot one would be none.
pub(crate) fn check_known(config: &Config, takedowns: &[Takedown]) -> Result<(), Error> {
    let stranger = takedowns.iter().map(|takedown| IssuerKey::from_bytes(takedown.issuer));
    match stranger.into_iter().find(|issuer| !config.issuers.contains(issuer)) {
        Some(issuer) => Err(setting("issuers", format!("add {issuer}: it signed takedowns that this node follows"))),
        None => Ok(()),
    }
}

fn setting(setting: &'static str, why: String) -> Error {
    Error::Setting { setting, why }
}
