//! `deadwax repair`.

use std::time::{Duration, Instant};

use anyhow::bail;
use deadwax_dht::wire::RepairReport;
use deadwax_dht::{Failure, FailureKind, Map, NodeId};
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
    /// Whether it has heard that it is to do so, or is only to be looked at.
    told: bool,
    /// Bytes that it had pulled when it heard.
    pulled_before: u64,
    /// Whether it had done all that it can at some time since it heard.
    done: bool,
    /// How it went last; why it does not say.
    report: Result<RepairReport, Failure>,
}

pub(super) async fn run(repair: Repair) -> anyhow::Result<bool> {
    let client = repair.masters.client(None).await?;
    // Of a cluster without a log there is nothing newer than its file.
    drop(newest(&client).await);
    let mut targets = targets(&client.map(), &repair)?;
    for target in &mut targets {
        target.ask(&client).await?;
    }
    let silent = |target: &&Target| target.report.is_err();
    if let Some(Target { address, report: Err(why), .. }) = targets.iter().find(silent)
        && targets.iter().all(|target| target.report.is_err())
    {
        bail!("nobody repairs; {address}: {why}");
    }
    if repair.wait {
        let why = wait(&client, &mut targets, !repair.json).await;
        show(&targets, repair.json)?;
        return why.map(|()| true);
    }
    show(&targets, repair.json)?;
    Ok(targets.iter().all(|target| target.report.is_ok()))
}

/// Which nodes.
fn targets(map: &Map, repair: &Repair) -> anyhow::Result<Vec<Target>> {
    let nodes = match &repair.of {
        Some(node) => vec![names::node(map, node)?],
        None => map.nodes().iter().collect(),
    };
    let target = |node: &deadwax_dht::Node| Target {
        node: node.id,
        address: node.address.clone(),
        told: repair.show,
        pulled_before: 0,
        done: false,
        report: Ok(RepairReport::default()),
    };
    Ok(nodes.into_iter().map(target).collect())
}

impl Target {
    /// Tells it to begin, unless it has heard so, and learns how it goes. Errors: it never will, as it has no log, or whoever
    /// asks may not.
    async fn ask(&mut self, client: &Client) -> anyhow::Result<()> {
        let asked = if self.told { client.repair_report(&self.node).await } else { client.repair(&self.node).await };
        self.report = match asked {
            Ok(Some(report)) => Ok(report),
            Ok(None) => bail!("the cluster's map is a file: without a log nobody compares or mends"),
            Err(why) if why.kind == FailureKind::Refused => bail!("{} refuses: {why}", self.address),
            Err(why) => Err(why),
        };
        if let Ok(report) = &self.report {
            if !self.told {
                (self.told, self.pulled_before) = (true, report.pulls.bytes_pulled);
            }
            self.done |= report.is_done();
        }
        Ok(())
    }

    /// What is to be done yet, so that a change can be seen: comparisons, tracks, bytes.
    fn left(&self) -> Option<(u64, u64, u64)> {
        let report = self.report.as_ref().ok()?;
        Some((report.comparing, report.suspected + report.pulls.tracks_left, report.pulls.bytes_pulled))
    }

    /// Bytes that came since it heard, and bytes that are to come.
    fn bytes(&self) -> (u64, u64) {
        self.report.as_ref().map_or((0, 0), |report| {
            (report.pulls.bytes_pulled.saturating_sub(self.pulled_before), report.pulls.bytes_left)
        })
    }

    /// Why not all is known to be there.
    fn fault(&self) -> Option<String> {
        let address = &self.address;
        match &self.report {
            Err(why) => Some(format!("{address} does not say how far it is: {why}")),
            Ok(report) if !self.done => {
                let why = report.pulls.stall.as_ref().map_or_else(String::new, |why| format!(": {why}"));
                Some(format!("{address} lacks {} tracks, and nothing comes{why}", report.pulls.tracks_left))
            }
            Ok(report) if report.unanswered > 0 => Some(format!(
                "{address} could not compare {} partitions: other holders do not answer",
                report.unanswered
            )),
            Ok(_) => None,
        }
    }
}

/// Waits until all nodes have done what they can. Errors: not every track has all its copies, or nobody knows.
async fn wait(client: &Client, targets: &mut [Target], shown: bool) -> anyhow::Result<()> {
    let (progress, mut moved) = (Progress::new("mending", shown), Instant::now());
    while !targets.iter().all(|target| target.done) {
        let before: Vec<_> = targets.iter().map(Target::left).collect();
        for target in targets.iter_mut() {
            target.ask(client).await?;
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
    let faults: Vec<String> = targets.iter().filter_map(Target::fault).collect();
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    // What they say of themselves is compared with what they hold.
    if targets.len() == client.map().nodes().len() {
        let copies = client.status().await.copies;
        if copies.missing > 0 {
            bail!("{} of {} copies are missing: `deadwax status` names them", copies.missing, copies.expected);
        }
        if !copies.exact {
            bail!(
                "holders differ, and did not say in time in what: not all copies are known to be there; `deadwax status` tells more"
            );
        }
    }
    Ok(())
}

fn show(targets: &[Target], json: bool) -> anyhow::Result<()> {
    if json {
        let node = |target: &Target| match &target.report {
            Ok(report) => json!({"node": target.node, "address": target.address, "report": report}),
            Err(why) => json!({"node": target.node, "address": target.address, "error": why.to_string()}),
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
                [target.address.clone(), a, b, c, d, e, f, why.to_string()]
            }
        });
    }
    align(&rows).iter().try_for_each(say)
}
