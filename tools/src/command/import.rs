//! `deadwax import`.

use std::io::IsTerminal;

use anyhow::Context;
use hyper::Method;

use super::say;
use crate::cli::Import;
use crate::http::Client;
use crate::importer::{self, Line};
use crate::progress::Progress;
use crate::unread::tell;
use crate::upload::Outcome;

pub(super) async fn run(import: Import) -> anyhow::Result<bool> {
    let client = Client::new(import.asked.gateway);
    // Asked once before: without a gateway every file would wait for its tries to run out.
    client.ask(Method::GET, "/healthz").await.context("no gateway (is `deadwax up` running?)")?.whole().await?;
    let progress = Progress::new("importing", true);
    let plain = !std::io::stderr().is_terminal();
    let mut unread = None;
    let on_line = |line: &Line| {
        let told = if import.json {
            say(serde_json::to_string(line).expect("a line is plain data"))
        } else if let Some(error) = &line.error {
            progress.line(&format!("failed   {}: {error}", line.path));
            Ok(())
        } else if plain {
            let id = line.id.map(|id| id.to_string()).unwrap_or_default();
            say(format_args!("{:<8} {id} {}", word(line.outcome), line.path))
        } else {
            Ok(())
        };
        if let Err(error) = told {
            unread.get_or_insert(error);
        }
    };
    let summary = importer::import(&client, import.paths, usize::from(import.jobs), &progress, on_line).await;
    progress.finish();
    if import.json {
        tell(summary);
    } else {
        say(summary)?;
    }
    // The music is in the store, but whoever wanted the lines did not get them.
    unread.map_or(Ok(summary.failed == 0), Err)
}

const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Stored => "stored",
        Outcome::Present => "present",
        Outcome::Failed => "failed",
    }
}
