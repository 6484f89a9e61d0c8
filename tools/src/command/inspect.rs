//! `deadwax inspect`.

use deadwax_engine::offline::{self, RecordReport, RecordState, SegmentReport, SnapshotReport, VolumeReport};
use serde_json::json;

use super::say;
use crate::cli::Inspect;
use crate::progress::size;
use crate::unread::tell;

pub(super) fn run(inspect: &Inspect) -> anyhow::Result<bool> {
    let mut volume = offline::inspect(&inspect.dir)?;
    if volume.in_use {
        tell(format_args!(
            "WARNING: a process has {} open: what follows may be half of something",
            inspect.dir.display()
        ));
    }
    if let Some(number) = inspect.segment {
        volume.segments.retain(|segment| segment.number == number);
        anyhow::ensure!(!volume.segments.is_empty(), "{} has no segment {number}", inspect.dir.display());
    }
    if inspect.json {
        say(json!({"volume": volume}))?;
    } else {
        head(&volume).iter().try_for_each(say)?;
    }
    for summary in &volume.segments {
        if inspect.records {
            // One after the other: a volume may have very many.
            let segment = offline::inspect_segment(&inspect.dir, summary.number)?;
            if inspect.json {
                say(json!({"segment": segment}))?;
            } else {
                lines(&segment).iter().try_for_each(say)?;
                segment.records.iter().map(line).try_for_each(say)?;
            }
        } else if !inspect.json {
            lines(summary).iter().try_for_each(say)?;
        }
    }
    Ok(true)
}

fn head(volume: &VolumeReport) -> Vec<String> {
    let mut lines = vec![match (&volume.volume, &volume.node, &volume.superblock_fault) {
        (Some(id), Some(node), _) => format!("volume {id} of node {node}"),
        (.., fault) => format!("SUPERBLOCK LOST: {}", fault.as_deref().unwrap_or("unknown")),
    }];
    lines.extend(volume.snapshots.iter().flat_map(snapshot));
    let sum = |field: fn(&SegmentReport) -> u64| volume.segments.iter().map(field).sum::<u64>();
    lines.push(format!(
        "{} segments ({} sealed), {} tracks ({}), {} takedowns; {} live, {} deleted, {} on the drive",
        volume.segments.len(),
        volume.segments.iter().filter(|segment| segment.sealed).count(),
        sum(|segment| segment.tracks),
        size(sum(|segment| segment.track_bytes)),
        sum(|segment| segment.takedowns),
        size(sum(|segment| segment.live_bytes)),
        size(sum(|segment| segment.deleted_bytes)),
        size(sum(|segment| segment.allocated_bytes)),
    ));
    lines
}

fn snapshot(snapshot: &SnapshotReport) -> Vec<String> {
    if let Some(fault) = &snapshot.fault {
        return vec![format!("snapshot {}: NOT WHOLE: {fault}", snapshot.path.display())];
    }
    let mut lines = vec![format!(
        "snapshot of shard {} of {}: {} bytes, next sequence {}, scrub at segment {} offset {} after {} passes",
        snapshot.shard,
        snapshot.shards,
        snapshot.bytes,
        snapshot.sequence_next,
        snapshot.scrub_segment,
        snapshot.scrub_offset,
        snapshot.scrub_passes,
    )];
    lines.extend(snapshot.listings.iter().map(|listing| {
        format!(
            "  segment {} is open: {} records and {} listings up to offset {}, durable up to sequence {}",
            listing.segment, listing.records, listing.parts, listing.scanned_to, listing.synced_sequence,
        )
    }));
    lines
}

fn lines(segment: &SegmentReport) -> Vec<String> {
    let state = if segment.sealed { "sealed" } else { "open" };
    let generation = segment.generation.as_deref().unwrap_or("unknown");
    let mut lines = vec![format!(
        "segment {} {state}: generation {generation}, shard {} of {}, {} bytes, {} on the drive, {} in {} holes",
        segment.number,
        segment.shard,
        segment.shards,
        segment.bytes,
        segment.allocated_bytes,
        segment.hole_bytes,
        segment.holes,
    )];
    lines.push(format!(
        "  {} tracks of {} bytes, {} takedowns, {} bytes live, {} records of {} bytes deleted, {} damaged",
        segment.tracks,
        segment.track_bytes,
        segment.takedowns,
        segment.live_bytes,
        segment.deleted,
        segment.deleted_bytes,
        segment.damaged,
    ));
    lines.extend(segment.header_fault.iter().map(|fault| format!("  HEADER LOST: {fault}")));
    lines.extend(segment.footer_offset.iter().map(|offset| format!("  footer at {offset}")));
    let part = |part: &offline::PartReport| {
        format!("  listing at {}: {} bytes, {} records", part.offset, part.bytes, part.records)
    };
    lines.extend(segment.parts.iter().map(part));
    lines.extend(segment.listing_faults.iter().map(|(offset, fault)| format!("  AT {offset}: {fault}")));
    lines
}

fn line(record: &RecordReport) -> String {
    let state = match record.state {
        RecordState::Whole => "",
        RecordState::Deleted => " deleted",
        RecordState::Damaged => " DAMAGED",
    };
    let sequence = record.sequence.map_or("-".to_owned(), |sequence| sequence.to_string());
    let listed = if record.listed { "" } else { " unlisted" };
    let what = if record.takedown {
        let number = record.takedown_number.map_or("-".to_owned(), |number| number.to_string());
        format!("takedown {number}")
    } else {
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let ratio = record.payload_bytes as f64 / record.track_bytes.max(1) as f64;
        let packed = if record.compressed { format!(", packed to {ratio:.2}") } else { String::new() };
        format!("track of {} bytes{packed}", record.track_bytes)
    };
    let title = record.title.as_ref().map_or(String::new(), |title| format!(" {title:?}"));
    format!(
        "    {:>12} {} {what}, {}+{} on the drive, sequence {sequence}{state}{listed}{title}",
        record.offset, record.id, record.header_bytes, record.stored_bytes,
    )
}
