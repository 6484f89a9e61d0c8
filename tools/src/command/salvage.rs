//! `deadwax salvage`.

use deadwax_engine::offline::{self, Finding, SalvageOptions, SalvageReport};
use serde_json::json;

use super::{say, verify};
use crate::cli::Salvage;
use crate::progress::{Progress, size};
use crate::salvaged::Folder;
use crate::unread;

pub(super) fn run(salvage: &Salvage) -> anyhow::Result<bool> {
    let mut folder = Folder::new(&salvage.to)?;
    let progress = Progress::new("salvaging", true);
    let mut said = Ok(());
    let mut tell = |finding: &Finding| {
        let line = if salvage.json { json!({"finding": finding}).to_string() } else { verify::line(finding) };
        if said.is_ok() {
            said = progress.suspend(|| say(line));
        }
    };
    let options = SalvageOptions { taken_down_too: salvage.include_taken_down };
    let outcome = offline::salvage(&salvage.source, options, &mut folder, &mut tell, &mut |at| {
        progress.reach(at.done_bytes, at.total_bytes);
    });
    progress.finish();
    let mut report = outcome?;
    said?;
    if report.in_use {
        unread::tell(format_args!(
            "WARNING: a process had the volume open: what it put or deleted meanwhile may be missing or there"
        ));
    }
    let all = report.damaged + report.conflicts + report.unreadable_blocks == 0;
    if salvage.json {
        // Each was a line of its own.
        report.findings.clear();
        say(json!({"report": report}))?;
    } else {
        lines(&report).iter().try_for_each(say)?;
    }
    Ok(all)
}

fn lines(report: &SalvageReport) -> Vec<String> {
    let mut lines = vec![format!(
        "{} files: {} records of tracks found; {} tracks salvaged ({}), {} there already",
        report.files,
        report.found,
        report.salvaged,
        size(report.salvaged_bytes),
        report.present,
    )];
    let mut also = |count: u64, what: &str| {
        if count > 0 {
            lines.push(format!("{count} {what}"));
        }
    };
    also(report.without_header, "of them had lost their headers, and with them their tags");
    also(report.duplicates, "further records of them");
    also(report.taken_down, "left out because they were taken down (see --include-taken-down)");
    also(report.conflicts, "LEFT OUT because another file has their name");
    also(report.unreadable_blocks, "blocks CANNOT BE READ");
    if report.damaged > 0 {
        lines.push(format!(
            "{} DAMAGED; {} of their bytes are intact",
            report.damaged,
            size(report.damaged_intact_bytes)
        ));
    }
    lines
}
