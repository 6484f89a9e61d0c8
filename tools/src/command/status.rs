//! `deadwax status`.

use anyhow::Context;
use deadwax_dht::wire::VolumeState;
use deadwax_dht_client::ClusterStatus;
use hyper::{Method, StatusCode};

use super::say;
use crate::cli::Status;
use crate::http::Client;
use crate::progress::size;

pub(super) async fn run(status: Status) -> anyhow::Result<bool> {
    let client = Client::new(status.asked.gateway);
    let reply = client.ask(Method::GET, "/v1/status").await?;
    if reply.status != StatusCode::OK {
        anyhow::bail!("{}", reply.complaint().await);
    }
    let body = reply.whole().await?;
    let cluster: ClusterStatus = serde_json::from_slice(&body).context("the gateway's status is not understood")?;
    if status.json {
        say(String::from_utf8_lossy(&body))?;
    } else {
        table(&cluster).iter().try_for_each(say)?;
    }
    Ok(cluster.healthy)
}

/// The status as lines for people.
fn table(cluster: &ClusterStatus) -> Vec<String> {
    let mut rows =
        vec![["NODE", "ZONE", "ADDRESS", "STATE", "VOLUME", "", "TRACKS", "STORED", "FREE", "OF"].map(str::to_owned)];
    for node in &cluster.nodes {
        let state = if node.up { "up" } else { "DOWN" };
        let head = || [short(&node.id), node.zone.clone(), node.address.clone(), state.to_owned()];
        if node.volumes.is_empty() {
            rows.push(row(head(), ["-", "", "-", "-", "-", "-"].map(str::to_owned)));
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
            rows.push(row(head(), [short(&volume.id), state.to_owned(), volume.tracks.to_string(), stored, free, of]));
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
    lines.extend(cluster.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.push(if cluster.healthy { "healthy" } else { "NOT HEALTHY" }.to_owned());
    lines
}

fn row(head: [String; 4], cells: [String; 6]) -> [String; 10] {
    let mut all = head.into_iter().chain(cells);
    std::array::from_fn(|_| all.next().unwrap_or_default())
}

/// The first eight digits of an id: enough to tell nodes apart.
fn short(id: &impl ToString) -> String {
    id.to_string().chars().take(8).collect()
}

/// Columns as wide as their widest cell.
fn align(rows: &[[String; 10]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 10] = std::array::from_fn(width);
    let line = |row: &[String; 10]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
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
                "counters": {},
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
        });
        let cluster: ClusterStatus = serde_json::from_value(cluster).expect("a status");
        let text = table(&cluster).join("\n");
        for part in [
            "11111111  local  127.0.0.1:1  up     aaaaaaaa  serving  3       5.0 MB",
            "FENCED",
            "DOWN",
            "warning: node 127.0.0.1:2 is down",
            "at least 3 missing",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert!(text.ends_with("NOT HEALTHY"));
    }
}
