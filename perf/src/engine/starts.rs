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
const MIB: f64 = 1024.0 * 1024.0;

pub(super) fn measure(options: &Options, folder: &Path, seed: u64, board: &mut Board) -> anyhow::Result<()> {
    let dir = folder.join("starts").display().to_string();
    let fill = |tracks: u64, seed: u64, kill: bool| {
        let mut arguments = ["--seed", &seed.to_string(), "fill", "--tracks", &tracks.to_string(), "--bytes"]
            .map(String::from)
            .to_vec();
        arguments.extend([TRACK_BYTES.to_string(), dir.clone()]);
        if kill {
            arguments.push("--kill".to_owned());
        }
        child(&arguments, kill)
    };
    let open = || child(&["open".to_owned(), dir.clone()], false);
    let filled = fill(options.tracks, seed, true)?;
    // The first start after the kill leaves the volume closed cleanly for the second.
    let killed = open()?;
    let clean = open()?;
    if options.wants(Part::Restart) {
        for (name, found) in [("restart_1m_tracks_s", clean), ("restart_1m_tracks_killed_s", killed)] {
            board.add_plain(name, "s", found.open_seconds);
            #[expect(clippy::cast_precision_loss, reason = "a size, printed to one digit")]
            board.add_plain(&format!("{name}_read"), "MiB", found.read_bytes as f64 / MIB);
        }
    }
    if options.wants(Part::Index) {
        let mut all = vec![per_track("1m", &filled, &killed, &clean, board)];
        let filled = fill(options.tracks * (GROWN - 1), seed + 1, true)?;
        let killed = open()?;
        all.push(per_track("4m", &filled, &killed, &open()?, board));
        board.add_plain("index_bytes_per_track", "bytes", all.into_iter().fold(0.0, f64::max));
    }
    Ok(())
}

/// The memory that a track takes after a start; and the peaks while the volume grew and while it recovered.
#[expect(clippy::cast_precision_loss, reason = "sizes, printed to three digits")]
fn per_track(size: &str, filled: &Found, killed: &Found, clean: &Found, board: &mut Board) -> f64 {
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
