//! `deadwax cluster rollback`: back to an earlier epoch, and which there are.

use std::iter::once;

use anyhow::{Context, bail};
use deadwax_dht::log::{Earlier, History};
use deadwax_dht_client::Client;
use serde::Serialize;

use super::{cluster_change, say};
use crate::cli::{Change, ClusterRollback, Masters};
use crate::difference::difference;
use crate::masters::newest;
use crate::table::align;

pub(super) async fn run(back: ClusterRollback) -> anyhow::Result<bool> {
    match back.epoch {
        Some(epoch) => cluster_change::apply(&Change::Rollback { epoch }, &back.masters, back.following).await,
        None => list(&back.masters, back.following.json).await,
    }
}

/// To which epochs one can go back, for programs.
#[derive(Serialize)]
struct Known {
    /// From this one on, to any.
    oldest: u64,
    newest: u64,
    /// The oldest, and those that changed something since; the others only moved partitions, or less.
    epochs: Vec<Epoch>,
}

#[derive(Serialize)]
struct Epoch {
    epoch: u64,
    /// What it changed; nothing for the oldest, of which that is not known.
    changes: Vec<String>,
}

impl Known {
    fn of(history: &History) -> Self {
        let (oldest, newest) = (history.earliest(), history.epoch());
        // In a large cluster each has megabytes: two at a time.
        let mut before: Option<Earlier> = None;
        let numbers = once(oldest).chain(history.changed_at());
        let epochs = numbers.filter_map(|epoch| history.earlier(epoch)).map(|after| {
            let changes = before.as_ref().map_or_else(Vec::new, |before| difference(before, &after));
            let epoch = after.spec.epoch;
            before = Some(after);
            Epoch { epoch, changes }
        });
        Self { epochs: epochs.collect(), oldest, newest }
    }

    fn lines(&self) -> Vec<String> {
        let mut rows = vec![["EPOCH", "WHAT IT CHANGED"].map(str::to_owned)];
        for Epoch { epoch, changes } in &self.epochs {
            let said = if changes.is_empty() { "the oldest that is known" } else { &changes[0] };
            rows.push([epoch.to_string(), said.to_owned()]);
            rows.extend(changes.iter().skip(1).map(|change| [String::new(), change.clone()]));
        }
        align(&rows)
    }
}

async fn list(masters: &Masters, json: bool) -> anyhow::Result<bool> {
    let client = masters.client(None).await?;
    newest(&client).await?;
    let known = Known::of(&client.history().context("nobody gave the map's records")?);
    if json {
        say(serde_json::to_string(&known)?)?;
        return Ok(true);
    }
    known.lines().iter().try_for_each(say)?;
    say(format_args!("An epoch in between is as the one before it in the list; the newest is {}.", known.newest))?;
    Ok(true)
}

/// Whether an epoch can be gone back to, as far as the newest records tell; an error lists those that can.
pub(super) fn check(client: &Client, change: &Change) -> anyhow::Result<()> {
    let (Change::Rollback { epoch }, Some(history)) = (change, client.history()) else { return Ok(()) };
    if history.earlier(*epoch).is_some() {
        return Ok(());
    }
    let known = Known::of(&history);
    bail!(
        "epochs are known from {} to {}, and {epoch} is none of them; those that changed something:\n  {}",
        known.oldest,
        known.newest,
        known.lines().join("\n  ")
    )
}
