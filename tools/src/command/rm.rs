//! `deadwax rm`.

use std::time::Duration;

use anyhow::Context;
use deadwax_track::TrackId;
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::say;
use crate::backoff::Backoff;
use crate::cli::Rm;
use crate::http::Client;
use crate::unread::Unread;
use crate::unread::tell;

/// How often the receipts are looked at.
const RECEIPTS_POLL: Duration = Duration::from_secs(1);

/// How far a track's takedown came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// Nobody confirmed it.
    Failed,
    /// It is not given out any more, and copies may still be there.
    TakenDown,
    /// Every copy is erased.
    Erased,
}

/// What became of a track, for programs.
#[derive(Debug, Serialize)]
struct Line<'a> {
    id: &'a TrackId,
    outcome: Outcome,
    takedown: Option<u64>,
    /// How many nodes have the takedown, and of how many; where the cluster has a log of takedowns.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes_of: Option<u64>,
    /// Why it came no further.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) async fn run(rm: Rm) -> anyhow::Result<bool> {
    let client = Client::new(rm.asked.gateway.clone());
    let (mut well, mut unread) = (true, None);
    for id in &rm.ids {
        let mut line = Line { id, outcome: Outcome::Failed, takedown: None, nodes: None, nodes_of: None, error: None };
        let done = one(&client, &rm, &mut line).await;
        // What it was given is taken down, whoever hears of it.
        match done {
            Err(error) if error.is::<Unread>() => unread = Some(error),
            Err(error) => {
                tell(format_args!("deadwax: {id}: {error:#}"));
                line.error = Some(format!("{error:#}"));
                well = false;
            }
            Ok(()) => {}
        }
        if rm.json
            && let Err(error) = say(serde_json::to_string(&line)?)
        {
            unread = Some(error);
        }
    }
    unread.map_or(Ok(well), Err)
}

/// Takes one track down, and writes how far it came into its line.
async fn one(client: &Client, rm: &Rm, line: &mut Line<'_>) -> anyhow::Result<()> {
    let id = line.id;
    let taken = take_down(client, id, rm.reason.as_deref()).await?;
    let number = taken["takedown"].as_u64().with_context(|| format!("the gateway gave no number: {taken}"))?;
    (line.takedown, line.outcome) = (Some(number), Outcome::TakenDown);
    (line.nodes, line.nodes_of) = (taken["nodes"].as_u64(), taken["nodes_of"].as_u64());
    let nodes = match (line.nodes, line.nodes_of) {
        (Some(nodes), Some(all)) => format!("; {nodes} of {all} nodes have it"),
        // Without a log of takedowns it was answered when all holders had erased the track.
        _ => {
            line.outcome = Outcome::Erased;
            String::new()
        }
    };
    if !rm.json {
        say(format_args!("{id} is taken down, number {number}{nodes}"))?;
    }
    if rm.wait && line.outcome != Outcome::Erased {
        erased(client, id, number, rm.json).await?;
        line.outcome = Outcome::Erased;
    }
    Ok(())
}

/// Answers what the gateway does. Tries again while too few masters are there.
async fn take_down(client: &Client, id: &TrackId, reason: Option<&str>) -> anyhow::Result<Value> {
    let mut backoff = Backoff::request();
    loop {
        let mut request = client.request(Method::DELETE, &format!("/v1/tracks/{id}"));
        if let Some(reason) = reason {
            request = request.header("deadwax-reason", reason);
        }
        let reply = client.send(request).await?;
        let status = reply.status;
        if status.is_success() {
            return Ok(reply.json().await?);
        }
        let said = anyhow::Error::msg(reply.complaint().await);
        match backoff.delay() {
            Some(delay) if status == StatusCode::SERVICE_UNAVAILABLE => tokio::time::sleep(delay).await,
            _ => return Err(said),
        }
    }
}

/// Waits until every copy is erased, or on a drive that is declared dead; says each time how far that is, unless `silent`.
async fn erased(client: &Client, id: &TrackId, number: u64, silent: bool) -> anyhow::Result<()> {
    let mut said = String::new();
    let mut backoff = Backoff::request();
    loop {
        let reply = client.ask(Method::GET, &format!("/v1/takedowns/{number}")).await?;
        if reply.status.is_success() {
            backoff.restart();
            let report = reply.json().await?;
            let now = progress(id, &report);
            if now != said && !silent {
                say(&now)?;
                said = now;
            }
            if report["complete"] == true {
                return Ok(());
            }
            tokio::time::sleep(RECEIPTS_POLL).await;
            continue;
        }
        let complaint = anyhow::Error::msg(reply.complaint().await);
        let Some(delay) = backoff.delay() else { return Err(complaint) };
        tokio::time::sleep(delay).await;
    }
}

/// Which copies are gone, for people.
fn progress(id: &TrackId, report: &Value) -> String {
    let Some(copies) = report["copies"].as_array() else {
        return format!("{id}: no voter answers, so it is not known which copies are erased");
    };
    let erased = copies.iter().filter(|copy| copy["state"] == "erased").count();
    let waits = copies.iter().filter(|copy| copy["state"] != "erased" && copy["state"] != "dead");
    let waits: Vec<String> = waits
        .map(|copy| format!("{} ({})", copy["volume"].as_str().unwrap_or("?"), copy["state"].as_str().unwrap_or("?")))
        .collect();
    let rest = if waits.is_empty() { String::new() } else { format!("; not yet: {}", waits.join(", ")) };
    format!("{id}: {erased} of {} copies are erased{rest}", copies.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_named() {
        let id = TrackId::of(b"a");
        let report = serde_json::json!({ "copies": [
            { "volume": "aa", "state": "erased" },
            { "volume": "bb", "state": "unreachable" },
            { "volume": "cc", "state": "dead" },
        ] });
        assert_eq!(progress(&id, &report), format!("{id}: 1 of 3 copies are erased; not yet: bb (unreachable)"));
        let unknown = format!("{id}: no voter answers, so it is not known which copies are erased");
        assert_eq!(progress(&id, &serde_json::json!({ "copies": null })), unknown);
    }
}
