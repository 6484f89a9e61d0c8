//! Reading the settings again while the node serves: volumes are opened, tried again and retired, all others serve on; who
//! is admitted changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use deadwax_dht::VolumeId;
use deadwax_dht::core::Input;

use crate::events::Events;
use crate::executor::Command;
use crate::layout::{self, Mapped};
use crate::run::send_all;
use crate::shard::{Node, NodeVolume, Trouble};
use crate::{Config, Error};

/// What is to be done, by the volumes' numbers. Made before anything is changed.
#[derive(Default)]
struct Plan {
    /// Serve on as they are.
    kept: Vec<usize>,
    /// Opened: those with a number again, the others for the first time.
    opened: Vec<(Option<usize>, VolumeId, PathBuf)>,
    retired: Vec<usize>,
}

/// Does all of it, or, where something is not in order, nothing but to say who is let in, which only takes settings that can
/// be read.
pub(crate) fn reload(node: &Node, commands: &[flume::Sender<Command>], events: &mut Events) -> Result<(), Error> {
    let planned = settings(node).and_then(|config| {
        // Before all that may take long or be wrong: somebody's key may have been stolen.
        node.admission.set_people(&config);
        let history = node.history();
        if node.core.is_some() && history.is_none() {
            let why = "the log by which it goes has not come from the other nodes yet: send SIGHUP again in a moment";
            return Err(Error::Map { path: config.map.clone(), why: why.into() });
        }
        let mapped = layout::mapped(&config, &node.id, history.as_ref())?;
        check_map(node, &config, &mapped)?;
        let plan = plan(node, &config, &mapped, history.is_some())?;
        Ok((config, mapped, plan))
    });
    let (config, mapped, plan) =
        planned.inspect_err(|why| tracing::error!(%why, "reload refused: nothing was changed but who is let in"))?;
    let opened_before = plan.opened.iter().filter_map(|(number, ..)| *number);
    for number in plan.retired.iter().copied().chain(opened_before) {
        close(node, commands, events, number);
    }
    for number in &plan.retired {
        let NodeVolume { id, dir, owner, .. } = &*node.at(*number);
        node.set_volume(*number, Arc::new(NodeVolume::new(*id, dir.clone(), *owner, Some(Trouble::Retired))));
        tracing::info!(volume = %id, dir = %dir.display(), "volume retired: its drive may be unmounted");
        if mapped.volumes.contains(id) {
            tracing::warn!(volume = %id, "the map still gives this node the volume: change it before the next start");
        }
    }
    if node.core.is_none() {
        node.set_epoch(mapped.epoch);
        node.admission.set_nodes(mapped.members);
    }
    for (number, id, dir) in plan.opened {
        let number = number.unwrap_or_else(|| node.volumes().len());
        open(node, &config, commands, events, (number, id, dir));
    }
    tracing::info!(epoch = mapped.epoch, volumes = config.volumes.len(), "settings read again");
    Ok(())
}

/// Closes the volume with this number on all shards.
pub(crate) fn close(node: &Node, commands: &[flume::Sender<Command>], events: &mut Events, number: usize) {
    node.tell(Input::VolumeDown(node.at(number).id));
    // Also where it was closed or never open: each shard answers.
    send_all(commands, &Command::Close(number));
    events.all_changed(commands.len());
}

/// Opens a volume, which is not open, under its number on all shards; whether that went well.
pub(crate) fn open(
    node: &Node,
    config: &Config,
    commands: &[flume::Sender<Command>],
    events: &mut Events,
    (number, id, dir): (usize, VolumeId, PathBuf),
) -> bool {
    let owner = layout::owner(config, &dir, number, commands.len());
    let volume = Arc::new(NodeVolume::new(id, dir, owner, None));
    node.set_volume(number, Arc::clone(&volume));
    send_all(commands, &Command::Open(number));
    events.all_changed(commands.len());
    if let Some(trouble) = volume.trouble() {
        tracing::error!(volume = %id, dir = %volume.dir.display(), why = trouble.said(), "volume not opened");
        return false;
    }
    tracing::info!(volume = %id, dir = %volume.dir.display(), "volume opened");
    if let Some(core) = &node.core {
        core.tell_opened(number, None);
    }
    true
}

/// The settings as they are in their file now.
fn settings(node: &Node) -> Result<Config, Error> {
    let none = || Error::Setting { setting: "volumes", why: "the node was not started from a file of settings".into() };
    let path = node.config.source.as_deref().ok_or_else(none)?;
    let config = Config::load(path)?;
    let mut same = node.config.clone();
    same.volumes.clone_from(&config.volumes);
    same.clients.clone_from(&config.clients);
    same.admins.clone_from(&config.admins);
    if same != config {
        let path = path.display();
        tracing::warn!(%path, "of changed settings only `volumes`, `clients` and `admins` count before the next start");
    }
    // Only these are changed: all else stays as the node runs.
    Ok(same)
}

fn check_map(node: &Node, config: &Config, mapped: &Mapped) -> Result<(), Error> {
    let fail = |why: String| Err(Error::Map { path: config.map.clone(), why });
    if mapped.cluster != node.cluster {
        return fail(format!("it is of cluster {}, this node is in {}", mapped.cluster, node.cluster));
    }
    // A log goes on while its history is read: what was read of it may be older by now, and is no mistake.
    if node.core.is_none() && mapped.epoch < node.epoch() {
        return fail(format!("it has epoch {}, the node serves at {} already", mapped.epoch, node.epoch()));
    }
    Ok(())
}

/// `has_log`: a volume that the map does not give is left out, as at a start; the settings may be ahead of it, or behind.
fn plan(node: &Node, config: &Config, mapped: &Mapped, has_log: bool) -> Result<Plan, Error> {
    let known = node.volumes();
    let retired = |volume: &NodeVolume| volume.trouble() == Some(Trouble::Retired);
    let mut plan = Plan::default();
    for dir in &config.volumes {
        let number = known.iter().position(|volume| volume.dir == *dir && !retired(volume));
        match number.map(|number| (number, known[number].trouble())) {
            Some((number, None)) => plan.kept.push(number),
            Some((number, Some(_))) => match layout::usable(dir, &node.id) {
                Ok(id) => plan.opened.push((None, id, dir.clone())),
                Err(why) if layout::is_left_out(&why) => {
                    tracing::warn!(%why, volume = %known[number].id, "the volume stays fenced");
                    plan.kept.push(number);
                }
                Err(why) => return Err(why),
            },
            None => plan.opened.push((None, layout::usable(dir, &node.id)?, dir.clone())),
        }
    }
    let kept = plan.kept.iter().map(|number| (known[*number].id, &known[*number].dir));
    layout::check_once(kept.chain(plan.opened.iter().map(|(_, id, dir)| (*id, dir))))?;
    if has_log {
        plan.opened.retain(|(_, id, dir)| layout::is_given(mapped, id, dir));
    }
    for (number, id, dir) in &mut plan.opened {
        layout::check_mapped(config, mapped, id, dir)?;
        // One that was here before, in this directory or another, keeps its number.
        *number = known.iter().position(|volume| volume.id == *id);
    }
    let stays =
        |number: &usize| plan.kept.contains(number) || plan.opened.iter().any(|(again, ..)| *again == Some(*number));
    // What is in no directory stays as it is: there is nothing to close.
    let closes = |volume: &NodeVolume| !retired(volume) && !volume.dir.as_os_str().is_empty();
    plan.retired = (0..known.len()).filter(|number| !stays(number) && closes(&known[*number])).collect();
    if plan.kept.is_empty() && plan.opened.is_empty() {
        return Err(no_volume(&config.map));
    }
    Ok(plan)
}

fn no_volume(map: &Path) -> Error {
    Error::Map { path: map.to_owned(), why: "no volume would be left".into() }
}
