//! `deadwax scrub`.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use deadwax_dht::wire::VolumeScrub;
use deadwax_dht::{Map, NodeId, VolumeId};
use deadwax_dht_client::Client;
use serde_json::json;

use super::say;
use crate::cli::Scrub;
use crate::masters::newest;
use crate::names;
use crate::progress::{Progress, duration, size};
use crate::table::{align, short};

/// How often it is asked how far they are.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// For how long a node may not answer.
const SILENT_MAX: Duration = Duration::from_secs(120);

/// A node whose volumes are checked, one of them or all.
struct Target {
    node: NodeId,
    address: String,
    volume: Option<VolumeId>,
    /// How it went on its volumes when that was asked for.
    began: Vec<VolumeScrub>,
    scrubs: Vec<VolumeScrub>,
}

pub(super) async fn run(scrub: Scrub) -> anyhow::Result<bool> {
    let client = scrub.masters.client(None).await?;
    // Of a cluster without a log there is nothing newer than its file.
    drop(newest(&client).await);
    let mut targets = targets(&client.map(), &scrub)?;
    for target in &mut targets {
        let asked = if scrub.show {
            client.scrubs(&target.node).await
        } else {
            client.scrub(&target.node, target.volume, scrub.rate).await
        };
        target.scrubs = asked.map_err(|why| anyhow!("{} does not check its drives: {why}", target.address))?;
        target.began = target.scrubs.clone();
        if let Some(volume) = target.volume.filter(|volume| target.of(volume).is_none()) {
            bail!("volume {volume} of {} does not serve: `deadwax status` says why", target.address);
        }
    }
    if scrub.wait {
        wait(&client, &mut targets, !scrub.json).await?;
    }
    show(&targets, scrub.json)?;
    Ok(!scrub.wait || targets.iter().flat_map(Target::volumes).all(|volume| volume.pass_damaged == 0))
}

/// Which volumes of which nodes.
fn targets(map: &Map, scrub: &Scrub) -> anyhow::Result<Vec<Target>> {
    let target = |node: &deadwax_dht::Node, volume| Target {
        node: node.id,
        address: node.address.clone(),
        volume,
        began: Vec::new(),
        scrubs: Vec::new(),
    };
    Ok(match (&scrub.volume, &scrub.of) {
        (Some(volume), _) => {
            let (node, volume) = names::volume(map, volume)?;
            vec![target(node, Some(volume))]
        }
        (None, Some(node)) => vec![target(names::node(map, node)?, None)],
        (None, None) => map.nodes().iter().map(|node| target(node, None)).collect(),
    })
}

impl Target {
    fn of(&self, volume: &VolumeId) -> Option<&VolumeScrub> {
        self.scrubs.iter().find(|scrub| scrub.id == *volume)
    }

    /// Those that are meant.
    fn volumes(&self) -> impl Iterator<Item = &VolumeScrub> {
        self.scrubs.iter().filter(|scrub| self.volume.is_none_or(|volume| scrub.id == volume))
    }

    /// Whether each volume was read to the end since it was asked for. Errors: one stopped before.
    fn is_done(&self) -> anyhow::Result<bool> {
        let meant = |scrub: &&VolumeScrub| self.volume.is_none_or(|volume| scrub.id == volume);
        for began in self.began.iter().filter(meant) {
            let address = &self.address;
            let now = self.of(&began.id).with_context(|| {
                format!("volume {} of {address} does not serve any more: `deadwax status` says why", began.id)
            })?;
            if now.running {
                return Ok(false);
            }
            if now.passes <= began.passes {
                bail!("volume {} of {address} was not read to the end: its master's log says why", began.id);
            }
        }
        Ok(true)
    }
}

async fn wait(client: &Client, targets: &mut [Target], shown: bool) -> anyhow::Result<()> {
    let (progress, mut heard) = (Progress::new("checking", shown), Instant::now());
    loop {
        let (mut done, mut silent) = (true, false);
        for target in targets.iter_mut() {
            match client.scrubs(&target.node).await {
                Ok(scrubs) => target.scrubs = scrubs,
                Err(why) if heard.elapsed() > SILENT_MAX => {
                    bail!("{} does not say how far it is: {why}; what was begun goes on", target.address)
                }
                Err(_) => silent = true,
            }
            done &= target.is_done()?;
        }
        if !silent {
            heard = Instant::now();
        }
        if done && !silent {
            return Ok(());
        }
        let volumes = || targets.iter().flat_map(Target::volumes);
        let behind = |scrub: &VolumeScrub| if scrub.running { scrub.pass_bytes } else { scrub.all_bytes };
        progress.reach(volumes().map(behind).sum(), volumes().map(|scrub| scrub.all_bytes).sum());
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn show(targets: &[Target], json: bool) -> anyhow::Result<()> {
    if json {
        let volumes: Vec<_> = targets
            .iter()
            .flat_map(|target| target.volumes().map(|scrub| json!({"node": target.node, "scrub": scrub})))
            .collect();
        return say(json!({ "volumes": volumes }));
    }
    let mut rows = vec![["ADDRESS", "VOLUME", "VERIFIED", "PASSES", "NOW", "OF", "DAMAGED"].map(str::to_owned)];
    for target in targets {
        for scrub in target.volumes() {
            rows.push([
                target.address.clone(),
                short(&scrub.id),
                format!("{} ago", duration(scrub.verified_s)),
                scrub.passes.to_string(),
                if scrub.running { size(scrub.pass_bytes) } else { "-".to_owned() },
                size(scrub.all_bytes),
                scrub.pass_damaged.to_string(),
            ]);
        }
    }
    align(&rows).iter().try_for_each(say)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_done_when_it_was_read_to_the_end_since_it_was_asked_for() {
        let scrub = |running, passes| VolumeScrub {
            id: VolumeId::from_bytes([1; 16]),
            running,
            passes,
            verified_s: 5,
            pass_bytes: 1,
            all_bytes: 2,
            pass_damaged: 0,
            damaged: 0,
        };
        let target = |now: Vec<VolumeScrub>| Target {
            node: NodeId::from_bytes([2; 32]),
            address: "10.0.0.1:7881".to_owned(),
            volume: None,
            began: vec![scrub(true, 3)],
            scrubs: now,
        };
        assert!(!target(vec![scrub(true, 3)]).is_done().expect("it is under way"));
        assert!(target(vec![scrub(false, 4)]).is_done().expect("it has ended"));
        let stopped = target(vec![scrub(false, 3)]).is_done().expect_err("it stopped").to_string();
        assert!(stopped.contains("was not read to the end"), "{stopped}");
        let fenced = target(vec![]).is_done().expect_err("it is gone").to_string();
        assert!(fenced.contains("does not serve any more"), "{fenced}");
    }
}
