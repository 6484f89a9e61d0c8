//! `deadwax status`.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use deadwax_dht::wire::{VolumeScrub, VolumeState};
use deadwax_dht_client::{Client as Cluster, ClientConfig, ClusterStatus, Lacking, LogStatus, Shortfall};
use hyper::{Method, StatusCode};

use super::{failure, say};
use crate::cli::Status;
use crate::follow;
use crate::http::Client;
use crate::masters::newest;
use crate::progress::{duration, size};
use crate::table::{align, short};
use crate::unread::tell;

/// How often it is shown anew.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// How many partitions that lack copies are shown to people; programs get more.
const SHORTFALLS_SHOWN: usize = 8;

/// Whom to ask. Both answer the same: what [`Cluster::status`] puts together.
enum Source {
    Gateway(Client),
    Masters(Box<Cluster>),
}

pub(super) async fn run(status: Status) -> anyhow::Result<bool> {
    let source = if status.masters.are_named() {
        let mut config = ClientConfig::default();
        if let Some(days) = status.verified_within {
            config.verified_within_s = days * 86_400;
        }
        Source::Masters(Box::new(status.masters.client_with(None, config).await?))
    } else if status.verified_within.is_some() {
        anyhow::bail!(
            "a gateway goes by its own `verified_within_days`: name masters with --map or --node to go by others"
        );
    } else {
        Source::Gateway(Client::new(status.asked.gateway))
    };
    if !status.watch {
        let cluster = source.ask().await?;
        show(&cluster, status.json)?;
        return Ok(cluster.healthy);
    }
    let redraws = std::io::stdout().is_terminal() && !status.json;
    loop {
        match source.ask().await {
            Ok(cluster) if redraws => {
                // Home, and clear from there: what was longer before is gone.
                say(format_args!("\x1b[H\x1b[J{}", table(&cluster).join("\n")))?;
            }
            Ok(cluster) if status.json => show(&cluster, true)?,
            Ok(cluster) => say(line(&cluster))?,
            // Whoever watches waits for it to come back.
            Err(why) => {
                tell(format_args!("deadwax: {why:#}"));
                if status.json {
                    say(failure(&why))?;
                }
            }
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

impl Source {
    async fn ask(&self) -> anyhow::Result<ClusterStatus> {
        let client = match self {
            Self::Gateway(client) => client,
            Self::Masters(cluster) => {
                // Of a cluster without a log there is nothing newer than its file.
                drop(newest(cluster).await);
                return Ok(cluster.status().await);
            }
        };
        let reply = client.ask(Method::GET, "/v1/status").await?;
        if reply.status != StatusCode::OK {
            anyhow::bail!("{}", reply.complaint().await);
        }
        serde_json::from_slice(&reply.whole().await?).context("the gateway's status is not understood")
    }
}

fn show(cluster: &ClusterStatus, json: bool) -> anyhow::Result<()> {
    if json {
        return say(serde_json::to_string(cluster).context("the status cannot be written")?);
    }
    table(cluster).iter().try_for_each(say)
}

/// The status as one line.
fn line(cluster: &ClusterStatus) -> String {
    let up = cluster.nodes.iter().filter(|node| node.up).count();
    let health = if cluster.healthy { "healthy" } else { "NOT HEALTHY" };
    let moving = cluster.log.as_ref().map_or_else(String::new, |log| format!("; {}", follow::moving(log)));
    let (nodes, missing) = (cluster.nodes.len(), cluster.copies.missing);
    let warnings = cluster.warnings.iter().map(|warning| format!("; {warning}")).collect::<String>();
    format!("{health}: {up} of {nodes} nodes up, epoch {}, {missing} copies missing{moving}{warnings}", cluster.epoch)
}

/// The status as lines for people.
fn table(cluster: &ClusterStatus) -> Vec<String> {
    let mut rows = vec![
        ["NODE", "ZONE", "ADDRESS", "STATE", "VOLUME", "", "TRACKS", "STORED", "FREE", "OF", "VERIFIED"]
            .map(str::to_owned),
    ];
    for node in &cluster.nodes {
        let state = if node.up { "up" } else { "DOWN" };
        let head = || [short(&node.id), node.zone.clone(), node.address.clone(), state.to_owned()];
        if node.volumes.is_empty() {
            rows.push(row(head(), ["-", "", "-", "-", "-", "-", "-"].map(str::to_owned)));
        }
        for volume in &node.volumes {
            let state = match volume.state {
                VolumeState::Serving if volume.is_full() => "full",
                VolumeState::Serving => "serving",
                VolumeState::ReadOnly => "READ-ONLY",
                VolumeState::Fenced => "FENCED",
            };
            let sizes = [volume.track_bytes, volume.free_bytes, volume.capacity_bytes].map(size);
            let [stored, free, of] = sizes;
            let scrub = node.scrubs.iter().find(|scrub| scrub.id == volume.id);
            let verified = scrub.map_or_else(|| "-".to_owned(), verified);
            let tracks = volume.tracks.to_string();
            rows.push(row(head(), [short(&volume.id), state.to_owned(), tracks, stored, free, of, verified]));
        }
    }
    let mut lines = align(&rows);
    let ClusterStatus { tracks, bytes, copies, epoch, .. } = cluster;
    let about = if copies.exact { "" } else { "at least " };
    lines.push(String::new());
    lines.push(format!(
        "{tracks} tracks, {}; copies: {} expected, {} seen, {about}{} missing; map epoch {epoch}",
        size(*bytes),
        copies.expected,
        copies.seen,
        copies.missing,
    ));
    lines.extend(shortfalls(cluster));
    if let Some(log) = &cluster.log {
        lines.extend(log_lines(cluster, log));
    }
    lines.extend(cluster.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.push(if cluster.healthy { "healthy" } else { "NOT HEALTHY" }.to_owned());
    lines
}

/// The partitions that lack copies, the worst of them by name.
fn shortfalls(cluster: &ClusterStatus) -> Vec<String> {
    let address = |id| {
        let node = cluster.nodes.iter().find(|node| node.id == id);
        node.map_or_else(|| short(&id), |node| node.address.clone())
    };
    let named = cluster.shortfalls.iter().take(SHORTFALLS_SHOWN);
    let mut lines: Vec<String> = named
        .map(|Shortfall { partition, tracks, missing, lacking }| {
            let holders = lacking.iter().map(|Lacking { volume, node, has }| {
                let has = has.map_or_else(|| "does not say what it has".to_owned(), |has| format!("has {has}"));
                format!("{} of {} {has}", short(volume), address(*node))
            });
            let holders = holders.collect::<Vec<_>>().join(", ");
            format!("short: partition {partition:04x}, of {tracks} tracks, lacks {missing} copies: {holders}")
        })
        .collect();
    let others = cluster.partitions_short.saturating_sub(lines.len() as u64);
    if others > 0 {
        lines.push(format!("short: {others} partitions more"));
    }
    lines
}

/// How long ago a volume was read and checked, and how far that is now.
fn verified(scrub: &VolumeScrub) -> String {
    let ago = scrub.verified_s.map_or_else(|| "unknown".to_owned(), |ago| format!("{} ago", duration(ago)));
    if !scrub.running {
        return ago;
    }
    let percent = 100 * u128::from(scrub.pass_bytes) / u128::from(scrub.all_bytes.max(1));
    format!("{ago}, at {} %", percent.min(100))
}

fn row(head: [String; 4], cells: [String; 7]) -> [String; 11] {
    let mut all = head.into_iter().chain(cells);
    std::array::from_fn(|_| all.next().unwrap_or_default())
}

/// What the cluster's log says, and what moves.
fn log_lines(cluster: &ClusterStatus, log: &LogStatus) -> Vec<String> {
    let address =
        |id| cluster.nodes.iter().find(|node| node.id == id).map_or_else(|| short(&id), |node| node.address.clone());
    let leader = log.leader.map_or_else(|| "nobody".to_owned(), address);
    let votes: Vec<String> = log.voters.iter().map(|voter| address(*voter)).collect();
    let mut lines = vec![format!("log at epoch {}, led by {leader}; votes: {}", log.epoch, votes.join(", "))];
    lines.push(format!("moves: {}", follow::moving(log)));
    if log.leaving.volumes > 0 {
        let (volumes, copies) = (log.leaving.volumes, log.leaving.partitions);
        lines.push(format!(
            "drained: {volumes} volumes, with {copies} copies of partitions still on them; `deadwax cluster apply undrain-volume \
             VOLUME` gives one copies again"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_that_are_down_and_copies_that_miss_are_seen() {
        let volume = |digit: &str, state: &str| {
            json!({
                "id": digit.repeat(32), "dir": "/mnt/a", "capacity_bytes": 2_000_000_000, "free_bytes": 1_000_000_000, "tracks": 3,
                "track_bytes": 5_000_000, "record_bytes": 5_100_000, "takedowns": 0, "state": state, "reason": null,
            })
        };
        let node = |digit: &str, up: bool, volumes: Vec<serde_json::Value>| {
            json!({
                "id": digit.repeat(64), "zone": "local", "address": format!("127.0.0.1:{digit}"), "up": up,
                "version": "", "uptime_s": 1, "epoch": 1, "shards": 1, "resident_bytes": 1, "volumes": volumes,
                "counters": {}, "scrubs": [{
                    "id": "a".repeat(32), "running": true, "passes": 2, "verified_s": 200_000, "pass_bytes": 50, "all_bytes": 200,
                    "pass_damaged": 0, "damaged": 0,
                }],
            })
        };
        let cluster = json!({
            "cluster": "0".repeat(32), "epoch": 1, "tracks": 3, "bytes": 5_000_000, "healthy": false,
            "copies": {"expected": 9, "seen": 6, "missing": 3, "exact": false},
            "nodes": [
                node("1", true, vec![volume("a", "serving"), volume("b", "fenced")]),
                node("2", false, vec![]),
            ],
            "warnings": ["node 127.0.0.1:2 is down: refused"],
            "log": {
                "epoch": 9, "leader": "1".repeat(64), "voters": ["1".repeat(64), "2".repeat(64)], "dead": [],
                "leaving": {"volumes": 1, "partitions": 12}, "tracks_left": 7, "bytes_left": 120_000_000,
                "rate_bytes_s": 1_000_000, "eta_ms": 120_000, "settled": false,
                "moves": {
                    "joint": 1, "synced": 2, "settled": 0, "waiting_copies": 0, "waiting_zones": 0, "waiting_leaving": 4,
                    "waiting_balance": 5, "braked": 0, "lost": 0, "planning": false, "stall": "a volume copies", "stuck": false,
                },
            },
        });
        let cluster: ClusterStatus = serde_json::from_value(cluster).expect("a status");
        let text = table(&cluster).join("\n");
        for part in [
            "11111111  local  127.0.0.1:1  up     aaaaaaaa  serving  3       5.0 MB",
            "2.0 GB  2 d 7 h ago, at 25 %",
            "FENCED",
            "DOWN",
            "warning: node 127.0.0.1:2 is down",
            "at least 3 missing",
            "log at epoch 9, led by 127.0.0.1:1; votes: 127.0.0.1:1, 127.0.0.1:2",
            "3 partitions move, 9 wait; 7 tracks to copy, 120.0 MB left at 1.0 MB/s, 2 min 0 s (a volume copies)",
            "drained: 1 volumes, with 12 copies",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert!(text.ends_with("NOT HEALTHY"));
        let line = line(&cluster);
        assert!(
            line.starts_with("NOT HEALTHY: 1 of 2 nodes up, epoch 1, 3 copies missing; 3 partitions move"),
            "{line}"
        );
    }
}
