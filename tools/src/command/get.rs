//! `deadwax get`.

use std::io::IsTerminal;
use std::time::Instant;

use anyhow::bail;
use serde_json::json;

use super::say;
use crate::cli::Get;
use crate::download;
use crate::http::Client;
use crate::progress::{Progress, megabytes, size};
use crate::unread::tell;

pub(super) async fn run(get: Get) -> anyhow::Result<bool> {
    let client = Client::new(get.asked.gateway.clone());
    let started = Instant::now();
    let Some(path) = get.file() else {
        if get.output.is_none() && std::io::stdout().is_terminal() {
            bail!("a track is no text: name a file with -o FILE, or a pipe; -o - prints it here all the same");
        }
        // Whoever pipes a track has a screen for something else: only errors are printed.
        download::to_stdout(&client, &get.id, &Progress::new("getting", false)).await?;
        return Ok(true);
    };
    let progress = Progress::new("getting", true);
    let done = download::to_file(&client, &get.id, path, &progress).await;
    progress.finish();
    let done = done?;
    let seconds = started.elapsed().as_secs_f64();
    let rate = megabytes((done.bytes - done.resumed) as f64 / seconds.max(1e-3));
    let mut story = format!("{}: {}, proved, in {seconds:.1} s ({rate} MB/s)", path.display(), size(done.bytes));
    if done.resumed > 0 {
        story += &format!("; {} were there from an earlier try", size(done.resumed));
    }
    if done.discarded {
        story += "; what an earlier try had left was wrong, and was fetched anew";
    }
    if done.interruptions > 0 {
        story += &format!("; the connection was lost {} times", done.interruptions);
    }
    tell(&story);
    if get.json {
        let (file, outcome) = (path.display().to_string(), if done.resumed > 0 { "resumed" } else { "fetched" });
        say(json!({"id": get.id, "bytes": done.bytes, "file": file, "outcome": outcome}))?;
    }
    Ok(true)
}
