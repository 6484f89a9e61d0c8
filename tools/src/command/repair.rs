//! `deadwax repair`.

use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use deadwax_dht::wire::RepairReport;
use deadwax_dht::{Map, NodeId};
use deadwax_dht_client::Client;
use serde_json::json;

use super::say;
use crate::cli::Repair;
use crate::masters::newest;
use crate::names;
use crate::progress::{Progress, size};
use crate::table::align;

/// How often it is asked how far they are.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// For how long nothing may come nearer to its end.
const STILL_MAX: Duration = Duration::from_secs(120);

/// A node that is to compare and mend.
struct Target {
    node: NodeId,
    address: String,
    /// How it went when that was asked for.
    began: RepairReport,
    /// How it went last; why it does not say.
    report: Result<RepairReport, String>,
}

pub(super) async fn run(repair: Repair) -> anyhow::Result<bool> {
    let client = repair.masters.client(None).await?;
    // Of a cluster without a log there is nothing newer than its file.
    drop(newest(&client).await);
    let mut targets = targets(&client.map(), repair.of.as_deref())?;
    for target in &mut targets {
        target.ask(&client, !repair.show).await;
        target.began = target.report.clone().unwrap_or_default();
    }
    if let [Target { address, report: Err(why), .. }] = &targets[..] {
        bail!("{address} does not repair: {why}");
    }
    let whole = if repair.wait { wait(&client, &mut targets, !repair.json).await? } else { true };
    show(&targets, repair.json)?;
    Ok(whole)
}

/// Which nodes.
fn targets(map: &Map, of: Option<&str>) -> anyhow::Result<Vec<Target>> {
    let nodes = match of {
        Some(node) => vec![names::node(map, node)?],
        None => map.nodes().iter().collect(),
    };
    let target = |node: &deadwax_dht::Node| Target {
        node: node.id,
        address: node.address.clone(),
        began: RepairReport::default(),
        report: Ok(RepairReport::default()),
    };
    Ok(nodes.into_iter().map(target).collect())
}

impl Target {
    /// Asks how it goes; `now`: and has it begin anew.
    async fn ask(&mut self, client: &Client, now: bool) {
        let asked = if now { client.repair(&self.node).await } else { client.repair_report(&self.node).await };
        self.report = match asked {
            Ok(Some(report)) => Ok(report),
            Ok(None) => Err("its map is a file, and without a log it neither compares nor mends".to_owned()),
            Err(why) => Err(why.to_string()),
        };
    }

    /// What is to be done yet, so that a change can be seen: comparisons, tracks, bytes.
    fn left(&self) -> Option<(u64, u64, u64)> {
        let report = self.report.as_ref().ok()?;
        Some((report.comparing, report.suspected + report.pulls.tracks_left, report.pulls.bytes_pulled))
    }

    /// Bytes that came since it was asked for, and bytes that are to come.
    fn bytes(&self) -> (u64, u64) {
        self.report.as_ref().map_or((0, 0), |report| {
            (report.pulls.bytes_pulled.saturating_sub(self.began.pulls.bytes_pulled), report.pulls.bytes_left)
        })
    }
}

/// Whether every track has all its copies, once all nodes that answer have done what they can.
async fn wait(client: &Client, targets: &mut [Target], shown: bool) -> anyhow::Result<bool> {
    let (progress, mut moved) = (Progress::new("mending", shown), Instant::now());
    loop {
        let before: Vec<_> = targets.iter().map(Target::left).collect();
        for target in targets.iter_mut() {
            target.ask(client, false).await;
        }
        let answered = || targets.iter().filter_map(|target| target.report.as_ref().ok());
        if answered().next().is_some() && answered().all(RepairReport::is_done) {
            break;
        }
        if before != targets.iter().map(Target::left).collect::<Vec<_>>() {
            moved = Instant::now();
        }
        if moved.elapsed() > STILL_MAX {
            break;
        }
        let (came, left) = targets.iter().map(Target::bytes).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        progress.reach(came, came + left);
        tokio::time::sleep(ASK_EVERY).await;
    }
    drop(progress);
    let compared = |target: &Target| target.report.as_ref().is_ok_and(|now| now.is_done() && now.unanswered == 0);
    if !targets.iter().all(compared) {
        return Ok(false);
    }
    // What they say of themselves is compared with what they hold.
    let copies = client.status().await.copies;
    if copies.missing > 0 && targets.len() == client.map().nodes().len() {
        return Err(anyhow!(
            "{} of {} copies are missing: `deadwax status` names them",
            copies.missing,
            copies.expected
        ));
    }
    Ok(true)
}

fn show(targets: &[Target], json: bool) -> anyhow::Result<()> {
    if json {
        let node = |target: &Target| match &target.report {
            Ok(report) => json!({"node": target.node, "address": target.address, "report": report}),
            Err(why) => json!({"node": target.node, "address": target.address, "error": why}),
        };
        return say(json!({ "nodes": targets.iter().map(node).collect::<Vec<_>>() }));
    }
    let head = ["ADDRESS", "TO COMPARE", "NO ANSWER", "SUSPECTED", "TO COPY", "BYTES", "RATE", ""];
    let mut rows = vec![head.map(str::to_owned)];
    for target in targets {
        rows.push(match &target.report {
            Ok(RepairReport { comparing, unanswered, suspected, pulls }) => [
                target.address.clone(),
                comparing.to_string(),
                unanswered.to_string(),
                suspected.to_string(),
                pulls.tracks_left.to_string(),
                size(pulls.bytes_left),
                format!("{}/s", size(pulls.rate_bytes_s)),
                pulls.stall.clone().unwrap_or_default(),
            ],
            Err(why) => {
                let [a, b, c, d, e, f] = [(); 6].map(|()| "-".to_owned());
                [target.address.clone(), a, b, c, d, e, f, why.clone()]
            }
        });
    }
    align(&rows).iter().try_for_each(say)
}
