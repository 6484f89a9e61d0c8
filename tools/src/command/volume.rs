//! `deadwax volume add` and `deadwax volume retire`.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use deadwax_dht::rebalance::Command;
use deadwax_dht::{NodeId, Volume, VolumeId};
use deadwax_dht_client::Client;
use deadwax_node::{Config, Place};
use serde::Deserialize;
use serde_json::json;

use super::cluster_change::carry_out;
use super::say;
use crate::cli::{VolumeAdd, VolumeRetire};
use crate::masters::newest;
use crate::replacement::Replacement;
use crate::unread::tell;
use crate::{follow, names};

/// How long the master of a new volume may take to hear of it, and how often it is asked.
const KNOWN_MAX: Duration = Duration::from_secs(60);
const KNOWN_AGAIN: Duration = Duration::from_millis(100);

pub(super) async fn add(add: VolumeAdd) -> anyhow::Result<bool> {
    let config = Config::load(&add.config)?;
    if config.tls && add.masters.key.is_none() {
        bail!("the masters speak TLS: name the key of whoever may command with --key FILE (admin.key, at first)");
    }
    // Before the cluster is told: from then on the settings must come to name the volume.
    let settings = Replacement::begin(&add.config)?;
    let dir = std::path::absolute(&add.dir).with_context(|| format!("cannot tell where {} is", add.dir.display()))?;
    if let Some(warning) = look_at(&dir, &config.volumes)? {
        tell(format_args!("warning: {warning}"));
    }
    let client = add.masters.client(Some(&config.map)).await?;
    let layout = newest(&client).await?;
    let mut volumes = config.volumes.clone();
    if !volumes.contains(&dir) {
        volumes.push(dir.clone());
    }
    Config { volumes: volumes.clone(), ..config.clone() }.validate()?;
    // Only this one: where another's drive is not mounted, a volume would be made in its place. What else it says of the
    // node is in the map already, and stays.
    let alone = Config { volumes: vec![dir.clone()], ..config };
    let entry = deadwax_node::init(&alone, &Place { zone: "-".to_owned(), rack: None, weight: add.weight })?;
    let volume: Volume = *entry.volumes.first().context("the directory was not made a volume")?;
    if layout.map().node(&entry.id).is_none() {
        bail!("the cluster's map has no node {}: `deadwax cluster join` brings it in", entry.id.short());
    }
    // Where an earlier call was cut off after this, only the settings are left to do, whatever the master does.
    if layout.volume(&volume.id).is_none() {
        if client.epoch_of(&entry.id).await.is_none() {
            bail!("master {} does not answer: start it first, it takes a volume that it has heard of", entry.address);
        }
        let epoch = carry_out(&client, &Command::AddVolume { node: entry.id, volume }).await?;
        knows(&client, &entry.id, epoch).await?;
    }
    set_volumes(&add.config, settings, &volumes)?;
    if add.json {
        say(json!({"volume": volume.id, "node": entry.id, "dir": dir, "weight": volume.weight}))?;
        return Ok(true);
    }
    say(format_args!("Volume {} in {} has weight {}.", volume.id, dir.display(), volume.weight))?;
    say(format_args!(
        "{} names it. A master that runs takes it on SIGHUP, else it does when it starts.",
        add.config.display()
    ))?;
    Ok(true)
}

/// What is odd about a directory for a volume beside these. Error: it is nowhere.
fn look_at(dir: &Path, others: &[PathBuf]) -> anyhow::Result<Option<String>> {
    let parent = dir.parent().unwrap_or(dir);
    let Ok(metadata) = fs::metadata(dir).or_else(|_| fs::metadata(parent)) else {
        bail!("there is no {}: mount the drive, or make the folder", parent.display());
    };
    let is_on_the_same = |other: &&Path| fs::metadata(other).is_ok_and(|other| other.dev() == metadata.dev());
    let others = others.iter().map(PathBuf::as_path).filter(|other| *other != dir);
    let same = others.chain([Path::new("/")]).find(is_on_the_same).map(|other| match other.to_str() {
        Some("/") => format!("{} is on the root file system: is its drive mounted?", dir.display()),
        _ => format!(
            "{} is on the same file system as {}: they fail together, and share their space",
            dir.display(),
            other.display()
        ),
    });
    Ok(same)
}

/// Waits until the master knows of the epoch: before, it would leave the volume out.
async fn knows(client: &Client, node: &NodeId, epoch: u64) -> anyhow::Result<()> {
    let began = Instant::now();
    while client.epoch_of(node).await.is_none_or(|known| known < epoch) {
        if began.elapsed() > KNOWN_MAX {
            bail!(
                "the cluster has the volume at epoch {epoch}, and its master has not heard of it yet: run the same again"
            );
        }
        tokio::time::sleep(KNOWN_AGAIN).await;
    }
    Ok(())
}

pub(super) async fn retire(retire: VolumeRetire) -> anyhow::Result<bool> {
    let client = retire.masters.client(None).await?;
    let layout = newest(&client).await?;
    let (node, volume) = names::volume(layout.map(), &retire.volume).context(names::GONE)?;
    let json = retire.following.json;
    if !layout.state().leaving().contains(&volume) {
        let epoch = carry_out(&client, &Command::DrainVolume { volume, drain: true }).await?;
        if !json {
            say(format_args!("Volume {volume} of {} is drained since epoch {epoch}.", node.address))?;
        }
    }
    let held = if retire.following.wait {
        follow::follow(&client, layout.epoch(), &[volume]).await?;
        0
    } else {
        follow::held(&client, &[volume]).await.context("the map's records are not to be had")?
    };
    if held == 0 {
        carry_out(&client, &Command::RemoveVolume(volume)).await?;
    }
    if json {
        say(json!({"volume": volume, "node": node.id, "partitions_left": held, "removed": held == 0}))?;
    } else {
        lines(&volume, &node.address, held).iter().try_for_each(say)?;
    }
    Ok(true)
}

fn lines(volume: &VolumeId, address: &str, held: usize) -> Vec<String> {
    if held > 0 {
        let left = format!("{held} of its partitions are still to move: do not unplug it.");
        return vec![left, "Run the same again when they have, or with --wait now.".to_owned()];
    }
    vec![
        format!("Volume {volume} holds nothing that is needed, and is not in the cluster's map any more."),
        format!("Take its directory out of `volumes` in the settings of {address}, and send the master SIGHUP."),
        "When its log says that the volume is retired, the drive may be unplugged.".to_owned(),
    ]
}

/// Where in a file of settings the volumes stand.
#[derive(Deserialize)]
struct Where {
    volumes: toml::Spanned<Vec<PathBuf>>,
}

/// Writes the volumes into a file of settings, by what was begun in its place, and leaves all else in it as it is.
fn set_volumes(path: &Path, settings: Replacement, volumes: &[PathBuf]) -> anyhow::Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let found: Where = toml::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
    if found.volumes.as_ref() == volumes {
        return Ok(());
    }
    let Range { start, end } = found.volumes.span();
    let value = toml::Value::try_from(volumes).context("settings must be UTF-8, their paths too")?;
    settings.put(&format!("{}{value}{}", &text[..start], &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_no_drive_of_its_own_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::create_dir(&one).expect("made");
        let beside = look_at(&two, std::slice::from_ref(&one)).expect("it can be made");
        assert!(beside.is_some_and(|why| why.contains("same file system as") && why.ends_with("their space")));
        let nowhere = look_at(&two.join("deeper"), &[]).expect_err("nothing is mounted there");
        assert!(nowhere.to_string().contains("mount the drive"), "{nowhere}");
    }

    #[test]
    fn the_volumes_of_settings_change_and_nothing_else_does() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("master.toml");
        let text =
            |volumes: &str| format!("# mine\ndir = \"/n\"\n# its drives\nvolumes = {volumes} # all\nlog = true\n");
        std::fs::write(&path, text("[\n  '/a', # old\n]")).expect("written");
        let settings = Replacement::begin(&path).expect("begun");
        set_volumes(&path, settings, &["/a".into(), "/b \"c\"".into()]).expect("changed");
        let changed = std::fs::read_to_string(&path).expect("there");
        assert_eq!(changed, text("[\"/a\", '/b \"c\"']"), "{changed}");
    }
}
