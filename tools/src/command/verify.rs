//! `deadwax verify`.

use deadwax_engine::offline::{self, Finding, VerifyReport};
use serde_json::json;

use super::say;
use crate::cli::Verify;
use crate::progress::{Progress, size};

pub(super) fn run(verify: &Verify) -> anyhow::Result<bool> {
    let progress = Progress::new("verifying", true);
    let mut said = Ok(());
    let mut tell = |finding: &Finding| {
        let line = if verify.json { json!({"finding": finding}).to_string() } else { line(finding) };
        if said.is_ok() {
            said = progress.suspend(|| say(line));
        }
    };
    let checked = offline::verify(&verify.dir, &mut tell, &mut |at| progress.reach(at.done_bytes, at.total_bytes));
    progress.finish();
    let mut report = checked?;
    said?;
    if verify.json {
        // Each was a line of its own.
        report.findings.clear();
        say(json!({"report": report}))?;
        return Ok(report.damaged == 0);
    }
    let VerifyReport { segments, sealed, tracks, track_bytes, takedowns, deleted, damaged, notices, .. } = report;
    say(format_args!(
        "{segments} segments ({sealed} sealed): {tracks} tracks proved ({}), {takedowns} takedowns, {deleted} deleted records",
        size(track_bytes),
    ))?;
    say(match (damaged, notices) {
        (0, 0) => "clean".to_owned(),
        (0, notices) => format!("clean; {notices} notices, which the next start sees to"),
        (damaged, _) => format!("DAMAGED: {damaged} findings"),
    })?;
    Ok(damaged == 0)
}

/// A finding for people.
pub(super) fn line(finding: &Finding) -> String {
    let gravity = if finding.kind.is_damage() { "DAMAGED" } else { "notice" };
    let id = finding.id.map_or(String::new(), |id| format!(" {id}"));
    let place = match finding.segment {
        Some(number) => format!("segment {number}"),
        None => finding.path.display().to_string(),
    };
    format!("{gravity} {place} offset {}{id}: {}", finding.offset, finding.what)
}
