//! `deadwax scrub`.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use deadwax_dht::wire::VolumeScrub;
use deadwax_dht::{Map, NodeId, VolumeId};
use deadwax_dht_client::Client;
use serde_json::{Value, json};

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
    volumes: Vec<VolumeId>,
    /// When that was asked for.
    asked: Instant,
    /// How it went on its volumes then.
    began: Vec<VolumeScrub>,
    /// How it goes; why it does not say.
    scrubs: Result<Vec<VolumeScrub>, String>,
}

pub(super) async fn run(scrub: Scrub) -> anyhow::Result<bool> {
    let client = scrub.masters.client(None).await?;
    // Of a cluster without a log there is nothing newer than its file.
    drop(newest(&client).await);
    let mut targets = targets(&client.map(), &scrub)?;
    let one = scrub.volume.is_some();
    for target in &mut targets {
        target.asked = Instant::now();
        let asked = if scrub.show {
            client.scrubs(&target.node).await
        } else {
            client.scrub(&target.node, target.volumes.first().copied().filter(|_| one), scrub.rate).await
        };
        target.scrubs = asked.map_err(|why| why.to_string());
        target.began = target.scrubs.clone().unwrap_or_default();
    }
    let faults: Vec<String> = targets.iter().flat_map(Target::faults).collect();
    if let [target] = &targets[..]
        && !faults.is_empty()
        && target.volumes.iter().all(|volume| target.of(volume).is_none())
    {
        bail!("{}", faults.join("; "));
    }
    if scrub.wait {
        wait(&client, &mut targets, !scrub.json).await?;
    }
    let whole = targets.iter().all(|target| target.volumes.iter().all(|volume| target.damaged(volume) == Some(0)));
    show(&targets, scrub.wait, scrub.json)?;
    Ok(faults.is_empty() && (whole || !scrub.wait))
}

/// Which volumes of which nodes.
fn targets(map: &Map, scrub: &Scrub) -> anyhow::Result<Vec<Target>> {
    let target = |node: &deadwax_dht::Node, volume: Option<VolumeId>| Target {
        node: node.id,
        address: node.address.clone(),
        volumes: volume.map_or_else(|| node.volumes.iter().map(|volume| volume.id).collect(), |volume| vec![volume]),
        asked: Instant::now(),
        began: Vec::new(),
        scrubs: Ok(Vec::new()),
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

/// How a volume is checked.
fn find<'a>(scrubs: &'a [VolumeScrub], volume: &VolumeId) -> Option<&'a VolumeScrub> {
    scrubs.iter().find(|scrub| scrub.id == *volume)
}

impl Target {
    fn of(&self, volume: &VolumeId) -> Option<&VolumeScrub> {
        find(self.scrubs.as_ref().ok()?, volume)
    }

    /// What cannot be checked, and why.
    fn faults(&self) -> Vec<String> {
        let address = &self.address;
        match &self.scrubs {
            Err(why) => vec![format!("{address} does not check its drives: {why}")],
            Ok(_) => {
                let missing = self.volumes.iter().filter(|volume| self.of(volume).is_none());
                let said = |volume: &VolumeId| {
                    format!("volume {volume} of {address} does not serve: `deadwax status` says why")
                };
                missing.map(said).collect()
            }
        }
    }

    /// How many records were found damaged since that was asked for.
    fn damaged(&self, volume: &VolumeId) -> Option<u64> {
        let now = self.of(volume)?.damaged;
        // It counts since the volume was opened, which may be since.
        Some(now.checked_sub(find(&self.began, volume)?.damaged).unwrap_or(now))
    }

    /// Whether each volume that was to be checked was read to the end since, at `elapsed` after that was asked for. Errors: one
    /// does not serve any more, or stopped before.
    fn is_done(&self, elapsed: Duration) -> anyhow::Result<bool> {
        let mut done = true;
        for began in self.began.iter().filter(|began| self.volumes.contains(&began.id)) {
            let address = &self.address;
            let now = self.of(&began.id).with_context(|| {
                format!("volume {} of {address} does not serve any more: `deadwax status` says why", began.id)
            })?;
            // To the second, as it is told.
            let since = now.verified_s.is_some_and(|ago| ago <= elapsed.as_secs() + 1);
            // Nobody knows of it while damage is there.
            let found = now.verified_s.is_none() && now.pass_damaged > 0 && !now.running;
            let is_read = (since || found) && now.passes > began.passes;
            if !is_read && !now.running {
                bail!("volume {} of {address} was not read to the end: its master's log says why", began.id);
            }
            done &= is_read;
        }
        Ok(done)
    }
}

async fn wait(client: &Client, targets: &mut [Target], shown: bool) -> anyhow::Result<()> {
    let (progress, mut heard) = (Progress::new("checking", shown), Instant::now());
    loop {
        let (mut done, mut silent) = (true, false);
        for target in targets.iter_mut().filter(|target| !target.began.is_empty()) {
            match client.scrubs(&target.node).await {
                Ok(scrubs) => target.scrubs = Ok(scrubs),
                Err(why) if heard.elapsed() > SILENT_MAX => {
                    bail!("{} does not say how far it is: {why}; what was begun goes on", target.address)
                }
                Err(_) => silent = true,
            }
            done &= target.is_done(target.asked.elapsed())?;
        }
        if !silent {
            heard = Instant::now();
        }
        if done && !silent {
            return Ok(());
        }
        let volumes = || targets.iter().flat_map(|target| target.volumes.iter().filter_map(|volume| target.of(volume)));
        let behind = |scrub: &VolumeScrub| if scrub.running { scrub.pass_bytes } else { scrub.all_bytes };
        progress.reach(volumes().map(behind).sum(), volumes().map(|scrub| scrub.all_bytes).sum());
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// `waited`: what was damaged since that was asked for, not what the passes that are under way found so far.
fn show(targets: &[Target], waited: bool, json: bool) -> anyhow::Result<()> {
    if json {
        let each = |target: &Target| -> Vec<Value> {
            let said = target.volumes.iter().filter_map(|volume| target.of(volume));
            said.map(|scrub| json!({"node": target.node, "scrub": scrub})).collect()
        };
        let volumes: Vec<Value> = targets.iter().flat_map(each).collect();
        let faults: Vec<String> = targets.iter().flat_map(Target::faults).collect();
        return say(json!({ "volumes": volumes, "errors": faults }));
    }
    let mut rows = vec![["ADDRESS", "VOLUME", "VERIFIED", "PASSES", "NOW", "OF", "DAMAGED"].map(str::to_owned)];
    for target in targets {
        for scrub in target.volumes.iter().filter_map(|volume| target.of(volume)) {
            let damaged = if waited { target.damaged(&scrub.id).unwrap_or(0) } else { scrub.pass_damaged };
            rows.push([
                target.address.clone(),
                short(&scrub.id),
                scrub.verified_s.map_or_else(|| "unknown".to_owned(), |ago| format!("{} ago", duration(ago))),
                scrub.passes.to_string(),
                if scrub.running { size(scrub.pass_bytes) } else { "-".to_owned() },
                size(scrub.all_bytes),
                damaged.to_string(),
            ]);
        }
    }
    align(&rows).iter().try_for_each(say)?;
    targets.iter().flat_map(Target::faults).try_for_each(|fault| say(format_args!("error: {fault}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_done_when_it_was_read_to_the_end_since_it_was_asked_for() {
        let id = VolumeId::from_bytes([1; 16]);
        let scrub = |running, passes, verified_s, damaged| VolumeScrub {
            id,
            running,
            passes,
            verified_s,
            pass_bytes: 1,
            all_bytes: 2,
            pass_damaged: 0,
            damaged,
        };
        let target = |now: Vec<VolumeScrub>| Target {
            node: NodeId::from_bytes([2; 32]),
            address: "10.0.0.1:7881".to_owned(),
            volumes: vec![id],
            asked: Instant::now(),
            began: vec![scrub(true, 3, Some(7_000), 5)],
            scrubs: Ok(now),
        };
        let after = Duration::from_secs(60);
        let done = |now: Vec<VolumeScrub>| target(now).is_done(after);
        assert!(!done(vec![scrub(true, 3, Some(7_060), 5)]).expect("it is under way"));
        assert!(!done(vec![scrub(true, 4, Some(7_060), 5)]).expect("one shard has ended, the other not"));
        assert!(done(vec![scrub(false, 4, Some(60), 5)]).expect("it has ended"));
        assert!(done(vec![scrub(true, 4, Some(59), 5)]).expect("the next one is under way"));
        let stopped = done(vec![scrub(false, 3, Some(7_060), 5)]).expect_err("it stopped").to_string();
        assert!(stopped.contains("was not read to the end"), "{stopped}");
        let fenced = done(vec![]).expect_err("it is gone").to_string();
        assert!(fenced.contains("does not serve any more"), "{fenced}");
        // What was found since counts, whatever the next pass has found, and whether or not the volume was opened again.
        assert_eq!(target(vec![scrub(true, 5, Some(1), 8)]).damaged(&id), Some(3));
        assert_eq!(target(vec![scrub(true, 5, Some(1), 2)]).damaged(&id), Some(2));
        assert_eq!(target(vec![]).faults().len(), 1);
    }
}
