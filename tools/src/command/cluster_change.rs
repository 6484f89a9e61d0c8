//! `deadwax cluster plan`, `apply`, and the changes that have names of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{anyhow, bail};
use deadwax_dht::rebalance::Command;
use deadwax_dht::wire::{ForecastReport, RefusalKind};
use deadwax_dht::{Map, NodeId};
use deadwax_dht_client::{Client, CommandDone, CommandError};
use serde::Serialize;

use super::{cluster_rollback, say, unserved};
use crate::cli::{Change, ClusterPlan, Following, Masters, Planned};
use crate::follow;
use crate::masters::newest;
use crate::progress::size;
use crate::table::{align, short};
use crate::unread::tell;

/// For how long nothing is said of a cluster that does not answer.
const QUIET_MAX: Duration = Duration::from_secs(5);

pub(super) async fn plan(plan: ClusterPlan) -> anyhow::Result<bool> {
    let client = plan.masters.client(None).await?;
    let layout = newest(&client).await?;
    let command = plan.change.command(layout.map())?;
    let change = if let Planned::Change(change) = &plan.change { Some(change) } else { None };
    refuse_mistakes(&client, change, &command).await?;
    let forecast = forecast(&client, &command).await?;
    let warnings = warnings(&client, layout.map(), change, &forecast).await;
    if plan.json {
        let mut line = serde_json::to_value(&forecast)?;
        line["warnings"] = serde_json::to_value(&warnings)?;
        say(line)?;
    } else {
        table(layout.map(), &forecast).iter().try_for_each(say)?;
        warnings.iter().try_for_each(warn)?;
    }
    Ok(true)
}

fn warn(warning: &String) -> anyhow::Result<()> {
    say(format_args!("warning: {warning}"))
}

/// What a change of what there is, or was, gives copies to and is not known to serve.
async fn warnings(client: &Client, map: &Map, change: Option<&Change>, forecast: &ForecastReport) -> Vec<String> {
    let Some(change) = change else { return Vec::new() };
    let returning = match (change, client.history()) {
        (Change::Rollback { epoch }, Some(history)) => history.earlier(*epoch).map(|earlier| earlier.spec.nodes),
        _ => None,
    };
    unserved::warnings(client, map, &returning.unwrap_or_default(), forecast).await
}

/// A change that was made, for programs.
#[derive(Serialize)]
struct Applied<'a> {
    epoch: u64,
    /// Whether all that it moves has moved; else nobody waited for that.
    settled: bool,
    forecast: &'a ForecastReport,
    warnings: &'a [String],
}

/// Makes a change: shows what it moves, has it carried out, and stays where that is wanted.
pub(super) async fn apply(change: &Change, masters: &Masters, following: Following) -> anyhow::Result<bool> {
    let client = masters.client(None).await?;
    let layout = newest(&client).await?;
    let command = change.command(layout.map())?;
    let emptied = change.emptied(layout.map())?;
    refuse_mistakes(&client, Some(change), &command).await?;
    let forecast = forecast(&client, &command).await?;
    let warnings = warnings(&client, layout.map(), Some(change), &forecast).await;
    if !following.json {
        table(layout.map(), &forecast).iter().try_for_each(say)?;
        warnings.iter().try_for_each(warn)?;
    }
    let epoch = carry_out(&client, &command).await?;
    if !following.json {
        say(format_args!("Done, at epoch {epoch}."))?;
    }
    if following.wait {
        follow::follow(&client, epoch, &emptied).await?;
    } else if arrives(&forecast) && !following.json {
        say("What it moves is moving now: `deadwax status` shows how far it is.")?;
    }
    match (following.json, following.wait) {
        (true, settled) => {
            say(serde_json::to_string(&Applied { epoch, settled, forecast: &forecast, warnings: &warnings })?)?;
        }
        (false, true) => say("All has moved.")?,
        (false, false) => {}
    }
    Ok(true)
}

/// What is neither planned nor done. An epoch that is not known cannot be gone back to. What a node that answers has would count
/// no more if it were called dead: that is a mistake.
async fn refuse_mistakes(client: &Client, change: Option<&Change>, command: &Command) -> anyhow::Result<()> {
    change.map_or(Ok(()), |change| cluster_rollback::check(client, change))?;
    if let Command::SetDead { node, dead: true } = command
        && client.epoch_of(node).await.is_some()
    {
        let node = node.short();
        bail!("node {node} answers, and what it has would count no more: drain it, or end its process first");
    }
    Ok(())
}

/// Has a command carried out. Answers the epoch.
pub(super) async fn carry_out(client: &Client, command: &Command) -> anyhow::Result<u64> {
    match patiently(client.command(command, false)).await {
        Ok(CommandDone::Done { epoch, again }) => {
            if again {
                tell(format_args!(
                    "deadwax: the node that was given it first lost the lead amid it; it is done, says the one that leads now"
                ));
            }
            Ok(epoch)
        }
        Ok(CommandDone::Forecast(_)) => bail!("the node that leads answered a forecast, which nobody asked for"),
        Err(why) => Err(explained(command, why)),
    }
}

/// Why a command is refused, with what to do.
fn explained(command: &Command, why: CommandError) -> anyhow::Error {
    match why {
        CommandError::Refused { kind: RefusalKind::NotDrained, why } => {
            anyhow!("refused: {why} (`deadwax cluster drain NODE --wait`, or `apply drain-volume`)")
        }
        CommandError::Refused { kind: RefusalKind::Missing, why } if is_removal(command) => {
            anyhow!("refused: {why}; it was a moment ago, and is removed already")
        }
        why => why.into(),
    }
}

/// Waits for what the cluster says, and tells whoever looks on what takes it so long.
async fn patiently<T>(answer: impl Future<Output = T>) -> T {
    let mut answer = std::pin::pin!(answer);
    match tokio::time::timeout(QUIET_MAX, &mut answer).await {
        Ok(answer) => answer,
        Err(_) => {
            tell(format_args!(
                "deadwax: no node that leads has answered yet, and it is asked for again for a minute: most of the nodes that \
                 vote must be up (`deadwax status`)"
            ));
            answer.await
        }
    }
}

const fn is_removal(command: &Command) -> bool {
    matches!(command, Command::RemoveNode(_) | Command::RemoveVolume(_))
}

/// What a command would do.
pub(super) async fn forecast(client: &Client, command: &Command) -> anyhow::Result<ForecastReport> {
    match patiently(client.command(command, true)).await.map_err(|why| explained(command, why))? {
        CommandDone::Forecast(forecast) => Ok(forecast),
        CommandDone::Done { .. } => bail!("the node that leads carried the command out, which nobody asked for"),
    }
}

/// Whether anything comes anywhere, be it from another drive of the same node.
fn arrives(forecast: &ForecastReport) -> bool {
    forecast.shares.iter().any(|share| share.copies_after > share.copies_before || share.bytes_arriving > 0)
}

/// What is known of a node or a zone, summed.
#[derive(Clone, Copy, Default)]
struct Sum {
    before: u64,
    after: u64,
    arriving: u64,
    going: u64,
}

/// A forecast as lines for people, by node and zone.
pub(super) fn table(map: &Map, forecast: &ForecastReport) -> Vec<String> {
    let (mut nodes, mut zones) = (BTreeMap::<NodeId, Sum>::new(), BTreeMap::<String, Sum>::new());
    let zone = |node: &NodeId| map.node(node).map_or_else(|| "(new)".to_owned(), |node| node.zone.clone());
    for share in &forecast.shares {
        for sum in [nodes.entry(share.node).or_default(), zones.entry(zone(&share.node)).or_default()] {
            sum.before += u64::from(share.copies_before);
            sum.after += u64::from(share.copies_after);
            sum.arriving = sum.arriving.saturating_add(share.bytes_arriving);
            let had = share.bytes_before.saturating_add(share.bytes_arriving);
            sum.going = sum.going.saturating_add(had.saturating_sub(share.bytes_after));
        }
    }
    if nodes.is_empty() {
        let mut lines = vec!["Nothing moves.".to_owned()];
        lines.extend(forecast.unmet.iter().map(|unmet| format!("unmet: {unmet}")));
        return lines;
    }
    let row = |sum: &Sum, names: [String; 3]| {
        let [node, address, zone] = names;
        let (before, after) = (sum.before.to_string(), sum.after.to_string());
        [node, address, zone, before, after, size(sum.arriving), size(sum.going)]
    };
    let mut rows = vec![["NODE", "ADDRESS", "ZONE", "COPIES", "THEN", "COMES", "GOES"].map(str::to_owned)];
    for (node, sum) in &nodes {
        let address = map.node(node).map_or_else(|| "(new)".to_owned(), |node| node.address.clone());
        rows.push(row(sum, [short(node), address, zone(node)]));
    }
    for (zone, sum) in zones.iter().filter(|_| zones.len() > 1) {
        rows.push(row(sum, ["".to_owned(), "all of".to_owned(), zone.clone()]));
    }
    let mut lines = align(&rows);
    if forecast.shares_left_out > 0 {
        lines.push(format!("and {} more volumes, which change less", forecast.shares_left_out));
    }
    let bytes = |bytes: u128| size(u64::try_from(bytes).unwrap_or(u64::MAX));
    let (before, after) = nodes.values().fold((0, 0), |sum, node| (sum.0 + node.before, sum.1 + node.after));
    lines.push(if !arrives(forecast) {
        "Copies are of partitions, 65,536 in all. None comes anywhere.".to_owned()
    } else if forecast.bytes_to_move == 0 {
        "Copies are of partitions, 65,536 in all. How many bytes they have is not known, or there are none.".to_owned()
    } else {
        format!(
            "Copies are of partitions, 65,536 in all. To move, by estimate: {}, of which {} cannot be avoided.",
            bytes(forecast.bytes_to_move),
            bytes(forecast.bytes_unavoidable)
        )
    });
    if forecast.shares_left_out == 0 && after < before {
        lines.push(format!("There is no place for {} copies until there is room: see what is unmet.", before - after));
    }
    lines.extend(forecast.unmet.iter().map(|unmet| format!("unmet: {unmet}")));
    lines
}

#[cfg(test)]
mod tests {
    use deadwax_dht::{ClusterId, MAP_VERSION, MapSpec, Node, Policy, Volume, VolumeId, VolumeShare};

    use super::*;

    #[test]
    fn a_plan_is_summed_by_node_and_zone() {
        let node = |number: u8| Node {
            id: NodeId::from_bytes([number; 32]),
            zone: if number == 3 { "there" } else { "here" }.to_owned(),
            rack: None,
            address: format!("10.0.0.{number}:7881"),
            volumes: vec![Volume { id: VolumeId::from_bytes([number; 16]), weight: 1 }],
        };
        let map = Map::new(MapSpec {
            version: MAP_VERSION,
            cluster: ClusterId::from_bytes([7; 16]),
            epoch: 1,
            policy: Policy { copies: 1, write_quorum: 1, zones_min: 1 },
            nodes: (1..=3).map(node).collect(),
            overrides: vec![],
        })
        .expect("a good map");
        let share = |number: u8, before, after, arriving| VolumeShare {
            volume: VolumeId::from_bytes([number; 16]),
            node: NodeId::from_bytes([number; 32]),
            copies_before: before,
            copies_after: after,
            bytes_before: 1_000_000 * u64::from(before),
            bytes_after: 1_000_000 * u64::from(after),
            bytes_arriving: arriving,
            fullness_ppm: 1_000_000,
        };
        let forecast = ForecastReport {
            shares: vec![share(1, 10, 0, 0), share(2, 10, 15, 5_000_000), share(3, 10, 15, 5_000_000)],
            shares_left_out: 0,
            bytes_to_move: 10_000_000,
            bytes_unavoidable: 9_000_000,
            unmet: vec!["2 nodes are few".to_owned()],
        };
        let text = table(&map, &forecast).join("\n");
        for part in [
            "01010101  10.0.0.1:7881  here   10      0     0 kB    10.0 MB",
            "02020202  10.0.0.2:7881  here   10      15    5.0 MB  0 kB",
            "          all of         here   20      15    5.0 MB  10.0 MB",
            "10.0 MB, of which 9.0 MB cannot be avoided",
            "unmet: 2 nodes are few",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert!(!text.contains("no place"), "{text}");
        let few = ForecastReport { shares: vec![share(1, 10, 0, 0), share(2, 10, 12, 2_000_000)], ..forecast.clone() };
        let text = table(&map, &few).join("\n");
        assert!(text.contains("no place for 8 copies"), "{text}");
        let still = ForecastReport { shares: vec![], unmet: vec![], ..forecast };
        assert_eq!(table(&map, &still), ["Nothing moves."]);
    }
}
