//! Makes a node: its key and its volumes.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use deadwax_dht::{NodeId, NodeKey, VolumeId};
use deadwax_dht_tls::KeyError;
use deadwax_engine::VolumeIdentity;

use crate::fitness::{self, Verdict};
use crate::{Config, Error};

const KEY_FILE: &str = "node.key";

/// Where a node stands, for placement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// What fails together: a building, a site.
    pub zone: String,
    /// What fails together within a zone.
    pub rack: Option<String>,
    /// Each volume's share beside others'. None: its file system's size in GiB.
    pub weight: Option<u32>,
}

/// Makes the node's key, formats its volumes, and answers the node's entry for the map.
///
/// On a node that was initialised it changes nothing and answers the same entry; a volume that is new in the settings
/// is formatted. Directories that are missing are made.
///
/// # Errors
/// A directory that cannot be written or has no O_DIRECT, a volume of another node or of a newer version, a directory
/// that holds something else. What was made up to there stays, and a second call goes on from it.
pub fn init(config: &Config, place: &Place) -> Result<deadwax_dht::Node, Error> {
    config.validate()?;
    for dir in config.volumes.iter().chain([&config.dir]) {
        fs::create_dir_all(dir).map_err(|why| Error::Dir { dir: dir.clone(), why })?;
    }
    let node = load_or_make_key(&config.dir.join(KEY_FILE))?.node_id();
    let mut volumes = Vec::with_capacity(config.volumes.len());
    for dir in &config.volumes {
        let id = match owned(dir, &node)? {
            Some(id) => id,
            None => format(dir, &node)?,
        };
        let weight = place.weight.map_or_else(|| size_gib(dir), Ok)?;
        volumes.push(deadwax_dht::Volume { id, weight: weight.max(1) });
    }
    Ok(deadwax_dht::Node {
        id: node,
        zone: place.zone.clone(),
        rack: place.rack.clone(),
        address: config.advertised(),
        volumes,
    })
}

/// The volume in `dir`, which must be `node`'s; nothing where there is none yet.
pub(crate) fn owned(dir: &Path, node: &NodeId) -> Result<Option<VolumeId>, Error> {
    let identity = deadwax_engine::read_identity(dir).map_err(|why| Error::Volume { dir: dir.to_owned(), why })?;
    let Some(identity) = identity else { return Ok(None) };
    let owner = NodeId::from_bytes(identity.node);
    if owner != *node {
        return Err(Error::ForeignVolume { dir: dir.to_owned(), owner, node: *node });
    }
    Ok(Some(VolumeId::from_bytes(identity.volume.0)))
}

/// What the engine calls a volume.
pub(crate) fn identity(volume: &VolumeId, node: &NodeId) -> VolumeIdentity {
    VolumeIdentity { volume: deadwax_engine::VolumeId(*volume.as_bytes()), node: *node.as_bytes() }
}

fn format(dir: &Path, node: &NodeId) -> Result<VolumeId, Error> {
    let direct = fitness::direct_io(dir);
    if direct.verdict == Verdict::Unfit {
        return Err(Error::Unfit(Box::new(direct)));
    }
    let volume = VolumeId::from_bytes(random("a volume's name")?);
    deadwax_engine::format_volume(dir, &identity(&volume, node))
        .map_err(|why| Error::Volume { dir: dir.to_owned(), why })?;
    Ok(volume)
}

fn size_gib(dir: &Path) -> Result<u32, Error> {
    let stat = rustix::fs::statvfs(dir).map_err(|why| Error::Dir { dir: dir.to_owned(), why: why.into() })?;
    Ok(u32::try_from((stat.f_blocks * stat.f_frsize) >> 30).unwrap_or(u32::MAX))
}

fn random<const N: usize>(what: &str) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|why| Error::Start { what: format!("the system's randomness for {what}"), why: why.to_string() })?;
    Ok(bytes)
}

/// The key of the node in `dir`.
pub(crate) fn load_key(dir: &Path) -> Result<NodeKey, Error> {
    load_key_at(&dir.join(KEY_FILE), "the node")
}

/// The key in a file; `what` is not initialised without it.
pub(crate) fn load_key_at(path: &Path, what: &'static str) -> Result<NodeKey, Error> {
    deadwax_dht_tls::load_key(path).map_err(|why| key_error(what, why))
}

/// The key in a file, which is made where it is missing.
pub(crate) fn load_or_make_key(path: &Path) -> Result<NodeKey, Error> {
    deadwax_dht_tls::load_or_make_key(path).map_err(|why| key_error("the node", why))
}

fn key_error(what: &'static str, why: KeyError) -> Error {
    match why {
        KeyError::Missing(path) => Error::NotInitialised { what, path },
        KeyError::Io { path, why }
            if matches!(why.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
        {
            Error::Dir { dir: path.parent().unwrap_or(&path).to_owned(), why }
        }
        other => Error::Key(other),
    }
}

/// Held while the node runs; the kernel lets it go with the process.
pub(crate) struct Lock(#[expect(dead_code, reason = "the lock lives as long as the file is open")] fs::File);

/// Takes the node's directory for this process.
pub(crate) fn lock(dir: &Path) -> Result<Lock, Error> {
    let path: PathBuf = dir.join("node.lock");
    let fail = |why| Error::Dir { dir: dir.to_owned(), why };
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(fail)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Running(dir.to_owned())),
        Err(why) => Err(fail(why.into())),
    }
}
