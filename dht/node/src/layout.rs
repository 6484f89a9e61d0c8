//! Which volumes a node has: what its settings, the directories and the map say together.

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use std::{mem, thread};

use deadwax_dht::log::History;
use deadwax_dht::{ClusterId, Map, NodeId, VolumeId};

use crate::fitness::{self, Verdict};
use crate::shard::{Node, NodeVolume, Owner, Trouble};
use crate::system::System;
use crate::{Config, Error, init, rotation, volumes};

/// How long may a drive take to say whose it is and to write a block? One that slept must spin up first.
const DRIVE_PATIENCE: Duration = Duration::from_secs(15);

/// Where a volume is that the map gives the node, and the settings do not.
const NOWHERE: &str = "in none of its directories";

/// The node as its directory, its volumes and the map agree it is.
pub(crate) struct Layout {
    pub(crate) id: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) epoch: u64,
    /// All nodes of the map.
    pub(crate) members: BTreeSet<NodeId>,
    pub(crate) volumes: Vec<NodeVolume>,
    /// Of a log that is yet to come: the directories that fail. Which of its volumes the node lacks is known by [`missing`] once
    /// it has come.
    pub(crate) unsettled: Option<Vec<(PathBuf, Error)>>,
}

/// What the map says of a node.
pub(crate) struct Mapped {
    pub(crate) cluster: ClusterId,
    pub(crate) epoch: u64,
    /// All nodes of the map.
    pub(crate) members: BTreeSet<NodeId>,
    pub(crate) volumes: BTreeSet<VolumeId>,
}

/// By what a node goes when it starts.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// A map that is a file, and must agree with the settings.
    File,
    /// The map's log. Such a map changes while nobody edits settings, be it that a volume was retired, added or brought back by
    /// a rollback: what the two do not share is left out or fenced, as the node's other drives and its vote must not wait
    /// for an operator.
    Log(&'a History),
    /// A log that the others are yet to give. Until then the file tells who they are, and may be far behind on the node's
    /// own volumes: those on its drives are opened, whatever it says, and which are missing is known when the log has come.
    LogToCome,
}

/// Reads all of it. Volumes whose drives fail are fenced, where others can be used, or hang.
pub(crate) fn read(config: &Config, shards: usize, source: Source<'_>) -> Result<Layout, Error> {
    let id = init::load_key(&config.dir)?.node_id();
    let history = if let Source::Log(history) = source { Some(history) } else { None };
    let mapped = mapped(config, &id, history)?;
    let mut volumes = Vec::with_capacity(config.volumes.len());
    let mut failed = Vec::new();
    for (index, dir) in config.volumes.iter().enumerate() {
        match usable(dir, &id) {
            Ok(volume) => volumes.push(NodeVolume::new(volume, dir.clone(), owner(config, dir, index, shards), None)),
            Err(why) if is_left_out(&why) => failed.push((dir.clone(), why)),
            Err(why) => return Err(why),
        }
    }
    check_once(volumes.iter().map(|volume| (volume.id, &volume.dir)))?;
    let here: BTreeSet<_> = volumes.iter().map(|volume| volume.id).collect();
    let missing: Vec<_> = mapped.volumes.difference(&here).copied().collect();
    // One that hangs is opened by itself once it answers.
    if volumes.is_empty() && !failed.is_empty() && !failed.iter().any(|(_, why)| why.hangs()) {
        return Err(failed.swap_remove(0).1);
    }
    let mut unsettled = None;
    match source {
        Source::File => {
            failed = check_missing(config, &missing, failed)?;
            volumes.iter().try_for_each(|volume| check_mapped(config, &mapped, &volume.id, &volume.dir))?;
        }
        Source::Log(_) => {
            volumes.retain(|volume| is_given(&mapped, &volume.id, &volume.dir));
            if volumes.is_empty() && failed.is_empty() {
                tracing::error!("the map gives this node none of the volumes in its settings: it serves no track");
            }
        }
        // The file may name volumes that were retired since, and not those that came.
        Source::LogToCome => unsettled = Some(mem::take(&mut failed)),
    }
    if unsettled.is_none() {
        volumes.extend(fence(&missing, &failed));
    }
    Ok(Layout { id, cluster: mapped.cluster, epoch: mapped.epoch, members: mapped.members, volumes, unsettled })
}

/// The volumes that the log, now that it has come, gives the node and that it has not opened: fenced, as they would be had it
/// been there at the start. `failed`: the directories that failed then.
pub(crate) fn missing(node: &Node, history: &History, failed: &[(PathBuf, Error)]) -> Result<Vec<NodeVolume>, Error> {
    let mapped = mapped(&node.config, &node.id, Some(history))?;
    let here: BTreeSet<_> = node.volumes().iter().map(|volume| volume.id).collect();
    let missing: Vec<_> = mapped.volumes.difference(&here).copied().collect();
    Ok(fence(&missing, failed))
}

/// Without a log: each volume that is missing must be in one of the directories that fail. Which volume should be in
/// which of them only their drives know; with fewer missing than directories that fail, one of these was never a volume
/// of this node's.
fn check_missing(
    config: &Config,
    missing: &[VolumeId],
    mut failed: Vec<(PathBuf, Error)>,
) -> Result<Vec<(PathBuf, Error)>, Error> {
    if let Some(missing) = missing.get(failed.len()) {
        let why = format!("it gives this node volume {missing}, which is {NOWHERE}");
        return Err(Error::Map { path: config.map.clone(), why });
    }
    if failed.len() > missing.len() {
        return Err(failed.swap_remove(0).1);
    }
    Ok(failed)
}

/// What the map says of this node, which it must have at its address.
pub(crate) fn mapped(config: &Config, id: &NodeId, history: Option<&History>) -> Result<Mapped, Error> {
    let fail = |why: String| Error::Map { path: config.map.clone(), why };
    let map = match history {
        Some(history) => history.map().map_err(|why| fail(why.to_string()))?,
        None => Map::load(&config.map).map_err(|why| fail(why.to_string()))?,
    };
    let entry = map.node(id).ok_or_else(|| match history {
        None => {
            fail(format!("it does not name this node, {id}; add it with `deadwax cluster`, or use the map that does"))
        }
        Some(_) => Error::Map {
            path: System::dir(&config.dir),
            why: format!(
                "at epoch {} it does not name this node, {id}, which was removed; where it is in the map again since, by a \
                 rollback, move this directory away, run `deadwax cluster rejoin`, and start the node",
                map.epoch()
            ),
        },
    })?;
    check_address(config, &entry.address).map_err(fail)?;
    let volumes = entry.volumes.iter().map(|volume| volume.id).collect();
    let members = map.nodes().iter().map(|node| node.id).collect();
    Ok(Mapped { cluster: *map.cluster(), epoch: map.epoch(), members, volumes })
}

/// The map must give the volume to this node.
pub(crate) fn check_mapped(config: &Config, mapped: &Mapped, volume: &VolumeId, dir: &Path) -> Result<(), Error> {
    if mapped.volumes.contains(volume) {
        return Ok(());
    }
    let why = format!("it does not give this node volume {volume}, which is in {}", dir.display());
    Err(Error::Map { path: config.map.clone(), why })
}

/// By a log: whether the map gives the volume to this node. One that it does not give, or not yet, is left out.
pub(crate) fn is_given(mapped: &Mapped, volume: &VolumeId, dir: &Path) -> bool {
    let given = mapped.volumes.contains(volume);
    if !given {
        let (epoch, dir) = (mapped.epoch, dir.display());
        tracing::warn!(
            %volume, %dir, epoch,
            "the map does not give this node the volume, which is left out: take it out of `volumes` where it was retired, \
             else send SIGHUP once the map gives it"
        );
    }
    given
}

/// No volume may be in two directories: one is a copy of the other's drive, and what is written to one is not in the
/// other.
pub(crate) fn check_once<'a>(volumes: impl IntoIterator<Item = (VolumeId, &'a PathBuf)>) -> Result<(), Error> {
    let mut seen: Vec<(VolumeId, &PathBuf)> = Vec::new();
    for (id, dir) in volumes {
        if let Some((_, first)) = seen.iter().find(|(known, _)| *known == id) {
            return Err(Error::SameVolume { id, first: first.to_path_buf(), second: dir.clone() });
        }
        seen.push((id, dir));
    }
    Ok(())
}

/// Which shards serve the volume in `dir`, the node's `index`th.
pub(crate) fn owner(config: &Config, dir: &Path, index: usize, shards: usize) -> Owner {
    if rotation::rotates(dir, config.rotating) { Owner::One(index % shards) } else { Owner::All }
}

/// The volume in `dir`, which must be this node's and on a drive that reads and writes, and answers at all.
pub(crate) fn usable(dir: &Path, node: &NodeId) -> Result<VolumeId, Error> {
    let (answer, answered) = mpsc::channel();
    let (there, node) = (dir.to_owned(), *node);
    // A thread of its own, which stays behind where the drive hangs.
    let asking = thread::Builder::new().name("probe".into()).spawn(move || drop(answer.send(probe(&there, &node))));
    asking.map_err(|why| Error::Start { what: "the thread probe".into(), why: why.to_string() })?;
    let silent = |_| Error::Silent { dir: dir.to_owned(), seconds: DRIVE_PATIENCE.as_secs() };
    answered.recv_timeout(DRIVE_PATIENCE).map_err(silent)?
}

/// The same, however long it takes.
pub(crate) fn probe(dir: &Path, node: &NodeId) -> Result<VolumeId, Error> {
    let owned = match init::owned(dir, node) {
        Err(why) if !is_left_out(&why) => return Err(why),
        owned => owned,
    };
    // Of a directory that is missing or empty the probe says best what to do.
    let check = fitness::direct_io(dir);
    match check.verdict {
        Verdict::Fit => {}
        Verdict::Poor => tracing::warn!("{check}"),
        Verdict::Unfit => return Err(Error::Unfit(Box::new(check))),
    }
    owned?.ok_or_else(|| Error::NotInitialised { what: "the volume", path: dir.to_owned() })
}

/// Whether a node goes on without the volume where another can be used. A directory that is empty is mostly one whose
/// drive is not mounted.
pub(crate) const fn is_left_out(why: &Error) -> bool {
    match why {
        Error::Volume { why, .. } => volumes::is_left_out(why),
        Error::Unfit(_) | Error::NotInitialised { .. } | Error::Silent { .. } => true,
        _ => false,
    }
}

/// The volumes that are missing: in the directories that fail, as many as these are, and in none.
fn fence(missing: &[VolumeId], failed: &[(PathBuf, Error)]) -> Vec<NodeVolume> {
    for (dir, why) in failed.iter().skip(missing.len()) {
        tracing::warn!(dir = %dir.display(), %why, "left out: the map gives this node no volume that may be in it");
    }
    let which = match (missing.len() > failed.len(), failed.len()) {
        (true, _) => " (or its drive is not there)",
        (false, 0 | 1) => "",
        (false, _) => " (or in another that fails)",
    };
    let fenced = |(number, id): (usize, &VolumeId)| {
        let (dir, trouble) = match failed.get(number) {
            Some((dir, why)) => (dir.clone(), Trouble::fenced(format!("{why}{which}"), why.hangs())),
            None => {
                let why = format!("{NOWHERE}: mount its drive and name it in `volumes`, or retire the volume");
                (PathBuf::new(), Trouble::Out(why))
            }
        };
        tracing::error!(volume = %id, why = trouble.why(), "the volume is fenced");
        // It has one owner, any: no shard has a part of it.
        NodeVolume::new(*id, dir, Owner::One(0), Some(trouble))
    };
    missing.iter().enumerate().map(fenced).collect()
}

/// Whether who goes to the map's address reaches us.
fn check_address(config: &Config, mapped: &str) -> Result<(), String> {
    if mapped == config.advertised() {
        return Ok(());
    }
    let listen = config.listen;
    let reaches =
        |address: SocketAddr| address == listen || (listen.ip().is_unspecified() && address.port() == listen.port());
    if config.advertise.is_none() && mapped.to_socket_addrs().is_ok_and(|mut found| found.any(reaches)) {
        return Ok(());
    }
    Err(format!("it names this node at {mapped}, but the settings say {}", config.advertised()))
}

#[cfg(test)]
mod tests {
    use deadwax_dht::{MAP_VERSION, MapSpec, Node, Policy, Volume};

    use super::*;

    #[test]
    fn a_node_that_knows_itself_removed_says_how_it_comes_back() {
        let node = |number: u8| Node {
            id: NodeId::from_bytes([number; 32]),
            zone: "here".to_owned(),
            rack: None,
            address: format!("127.0.0.1:788{number}"),
            volumes: vec![Volume { id: VolumeId::from_bytes([number; 16]), weight: 1 }],
        };
        let nodes: Vec<Node> = (1..=3).map(node).collect();
        let voters = nodes.iter().map(|node| node.id).collect();
        let (version, cluster) = (MAP_VERSION, ClusterId::from_bytes([7; 16]));
        let spec = MapSpec { version, cluster, epoch: 9, policy: Policy::default(), nodes, overrides: vec![] };
        let history = History::genesis(spec, voters).expect("a good map");
        let at = |number: u8| {
            let address = format!("127.0.0.1:788{number}").parse().expect("an address");
            let config = Config::new("node".into(), address, "map".into(), vec!["volume".into()]);
            mapped(&config, &NodeId::from_bytes([number; 32]), Some(&history)).map(|mapped| mapped.epoch)
        };
        assert_eq!(at(3).expect("it is there"), 9);
        let why = at(4).expect_err("it is not").to_string();
        for part in ["node/system", "epoch 9", "was removed", "cluster rejoin"] {
            assert!(why.contains(part), "no {part:?} in {why}");
        }
    }
}
