//! Volumes of many tracks: the memory that they take, and how long they take to start. Each step runs in a process of
//! its own, whose memory holds nothing else.

use std::path::Path;

use super::{Options, Part};
use crate::process::{Found, child};
use crate::report::Board;

/// Tiny ones: it is their number that counts.
const TRACK_BYTES: usize = 64;
/// The second size, as a multiple of the first.
const GROWN: u64 = 4;
/// So many go before compaction: two segments of 1 GiB hold fewer of such tracks, whose records have two blocks, so that
/// one is hollow wherever the first of them lies.
const TRACKS_DELETED: u64 = 265_000;
const MIB: f64 = 1024.0 * 1024.0;

/// What each child that worked on the volume found.
struct Steps {
    filled: Found,
    killed: Found,
    clean: Found,
    scrubbed: Found,
    compacted: Found,
}

pub(super) fn measure(options: &Options, folder: &Path, seed: u64, board: &mut Board) -> anyhow::Result<()> {
    let dir = folder.join("starts").display().to_string();
    let program = |seed: u64, arguments: &[&str], killed| {
        let seed = seed.to_string();
        let all = [&["--seed", &seed], arguments, &[&dir]].concat();
        child(&all.into_iter().map(String::from).collect::<Vec<_>>(), killed)
    };
    let bytes = TRACK_BYTES.to_string();
    let fill = |tracks: u64, seed: u64| {
        program(seed, &["fill", "--kill", "--bytes", &bytes, "--tracks", &tracks.to_string()], true)
    };
    let open = || program(seed, &["open"], false);
    let work = |tracks: u64, seed: u64| {
        let filled = fill(tracks, seed)?;
        // The first start after the kill leaves the volume closed cleanly for the second.
        let (killed, clean) = (open()?, open()?);
        let scrubbed = program(seed, &["open", "--then", "scrub"], false)?;
        let go = TRACKS_DELETED.min(tracks).to_string();
        let arguments = ["open", "--then", "compact", "--bytes", &bytes, "--tracks", &go];
        anyhow::Ok(Steps { filled, killed, clean, scrubbed, compacted: program(seed, &arguments, false)? })
    };
    if !options.wants(Part::Index) {
        fill(options.tracks, seed)?;
        let (killed, clean) = (open()?, open()?);
        starts(&clean, &killed, board);
        return Ok(());
    }
    let steps = work(options.tracks, seed)?;
    if options.wants(Part::Restart) {
        starts(&steps.clean, &steps.killed, board);
    }
    let mut most = per_track("1m", &steps, board);
    peaks("", &steps, board);
    if options.full {
        let steps = work(options.tracks * GROWN - steps.compacted.tracks, seed + 1)?;
        most = most.max(per_track("4m", &steps, board));
        peaks("_4m", &steps, board);
    }
    board.add_plain("index_bytes_per_track", "bytes", most);
    Ok(())
}

fn starts(clean: &Found, killed: &Found, board: &mut Board) {
    for (name, found) in [("restart_1m_tracks_s", clean), ("restart_1m_tracks_killed_s", killed)] {
        board.add_plain(name, "s", found.open_seconds);
        #[expect(clippy::cast_precision_loss, reason = "a size, printed to one digit")]
        board.add_plain(&format!("{name}_read"), "MiB", found.read_bytes as f64 / MIB);
    }
}

/// The memory that a track takes after a start; and the peaks while the volume grew and while it recovered.
#[expect(clippy::cast_precision_loss, reason = "sizes, printed to three digits")]
fn per_track(size: &str, steps: &Steps, board: &mut Board) -> f64 {
    let Steps { filled, killed, clean, .. } = steps;
    let per =
        |found: &Found, resident: u64| resident.saturating_sub(found.resident_before) as f64 / found.tracks as f64;
    let bytes = per(clean, clean.resident_after);
    board.add_plain(&format!("index_bytes_per_track_{size}"), "bytes", bytes);
    for (what, peak) in [
        ("grown", per(filled, filled.resident_after)),
        ("growth_peak", per(filled, filled.resident_peak)),
        ("recovery_peak", per(killed, killed.resident_peak)),
        ("restart_peak", per(clean, clean.resident_peak)),
    ] {
        board.add_plain(&format!("index_bytes_per_track_{size}_{what}"), "bytes", peak);
    }
    bytes
}

/// The most memory while something went on, by what all tracks take after a start.
#[expect(clippy::cast_precision_loss, reason = "ratios, printed to three digits")]
fn peaks(size: &str, steps: &Steps, board: &mut Board) {
    let Steps { filled, killed, clean, scrubbed, compacted } = steps;
    let above = |found: &Found, resident: u64| resident.saturating_sub(found.resident_before) as f64;
    // A volume of a few tracks takes no page that was not there before.
    let steady = above(clean, clean.resident_after).max(4096.0);
    let ratio = |found: &Found| above(found, found.resident_peak) / steady;
    board.add_plain(&format!("index_peak_growth_ratio{size}"), "ratio", ratio(filled));
    board.add_plain(&format!("index_peak_recovery_ratio{size}"), "ratio", ratio(killed).max(ratio(clean)));
    board.add_plain(&format!("index_peak_compaction_ratio{size}"), "ratio", ratio(compacted));
    board.add_plain(&format!("index_peak_scrub_ratio{size}"), "ratio", ratio(scrubbed));
    board.add_plain(&format!("index_peak_compaction_segments{size}"), "segments", compacted.segments_freed as f64);
}
