//! `deadwax-perf fill` makes a volume of many tracks, and `deadwax-perf open` opens it and says what that took.
//!
//! What they say of memory is above what the process held before. Where lanes put or delete, that is after as many of them
//! did the same to a small volume ([`warm_up`]): what they hold themselves is in both then. Nothing else is done before, since
//! memory that was used and given back would be taken for the index and not be seen.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use deadwax_engine::{Recovery, VolumeConfig};
use deadwax_track::{Tags, TrackId};

use crate::load::{self, Disk};
use crate::process::{Found, forget_peak, peak, resident};
use crate::shard;
use crate::tracks::{Random, generated};

/// Enough that a flush is shared by many, few enough that what they hold is small.
const IN_FLIGHT: usize = 256;
/// What is put before memory is measured: eight turns of each lane.
const WARM_TRACKS: u64 = 2048;
/// Of so many tracks that are to go, one stays: 2 %, for compaction to move.
const KEPT_EVERY: u64 = 50;

/// How to fill a volume.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// How many tracks to put.
    #[arg(long, default_value_t = 1_000_000)]
    tracks: u64,
    /// How long each is; at least 16.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// End by SIGKILL, with the last segment open, instead of closing the volume.
    #[arg(long)]
    kill: bool,
    /// The volume's folder; made a volume where it is empty.
    dir: PathBuf,
}

/// Which volume to open.
#[derive(Args, Clone)]
pub(crate) struct Open {
    /// What to do with it before it is closed.
    #[arg(long)]
    then: Option<Then>,
    /// For `compact`: how many of the tracks that `fill` put first with this seed go, but for each fiftieth.
    #[arg(long, default_value_t = 0)]
    tracks: u64,
    /// For `compact`: how long those tracks are.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// The volume's folder.
    dir: PathBuf,
}

/// What can be done to a volume that is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Then {
    /// Check all that it holds.
    Scrub,
    /// Delete tracks, and free the segments that are hollow then.
    Compact,
}

/// The tracks of a seed, one after the other: they differ in a number and in random bytes.
struct Bodies {
    body: Vec<u8>,
    random: Random,
    number: u64,
}

impl Bodies {
    fn new(bytes: usize, seed: u64) -> anyhow::Result<Self> {
        ensure!(bytes >= 16, "a track of {bytes} bytes has no room for its number");
        Ok(Self { body: generated(1, bytes, seed).remove(0), random: Random::new(seed), number: 0 })
    }

    fn next(&mut self) -> Vec<u8> {
        self.body[..8].copy_from_slice(&self.number.to_le_bytes());
        self.body[8..16].copy_from_slice(&self.random.next().to_le_bytes());
        self.number += 1;
        self.body.clone()
    }
}

/// Puts tracks that differ for each `seed`, and prints what was found. Does not return where it is to be killed.
pub(crate) fn run(options: &Options, seed: u64) -> anyhow::Result<()> {
    if !options.dir.join("segments").exists() {
        load::format(&options.dir)?;
    }
    let options = options.clone();
    let found = shard::run(0, move || async move { fill(&options, seed).await })?;
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

fn config(dir: &Path) -> VolumeConfig {
    // Hundreds of flushes and punches at once may keep a drive that others use for seconds, which is no matter here.
    VolumeConfig { put_bytes_max: (IN_FLIGHT as u64) << 20, health: None, ..load::config(dir) }
}

async fn fill(options: &Options, seed: u64) -> anyhow::Result<Found> {
    warm_up(&options.dir, false).await?;
    let (started, resident_before) = (Instant::now(), resident()?);
    forget_peak()?;
    let (volume, recovery, _) = load::open(config(&options.dir)).await?;
    put(&volume, IN_FLIGHT, options.tracks, Bodies::new(options.bytes, seed)?, |_| true).await?;
    let found = Found { tracks: volume.usage().tracks, ..found(&recovery, started, resident_before)? };
    if options.kill {
        println!("{}", serde_json::to_string(&found)?);
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
    }
    volume.close().await;
    Ok(found)
}

/// What there is to say so far.
fn found(recovery: &Recovery, started: Instant, resident_before: u64) -> anyhow::Result<Found> {
    Ok(Found {
        tracks: recovery.tracks,
        open_seconds: recovery.seconds,
        read_bytes: recovery.bytes_read,
        seconds: started.elapsed().as_secs_f64(),
        resident_before,
        resident_after: resident()?,
        resident_peak: peak()?,
        segments_freed: 0,
    })
}

/// Puts `tracks` of those that are `wanted`.
async fn put(
    volume: &Disk,
    in_flight: usize,
    tracks: u64,
    mut bodies: Bodies,
    wanted: impl Fn(&TrackId) -> bool + 'static,
) -> anyhow::Result<()> {
    let volume = volume.clone();
    let job = move |n| {
        if n >= tracks {
            return None;
        }
        let (id, body) = loop {
            let body = bodies.next();
            let id = TrackId::of(&body);
            if wanted(&id) {
                break (id, body);
            }
        };
        let volume = volume.clone();
        Some(async move {
            let mut put = volume.put(id, body.len() as u64, &Tags::default()).await?;
            put.write(&body).await?;
            Ok(put.finish().await?.bytes)
        })
    };
    load::lanes(in_flight, job).await?;
    Ok(())
}

/// Deletes the first `tracks` of those that are `wanted`, but for each fiftieth.
async fn delete(
    volume: &Disk,
    tracks: u64,
    mut bodies: Bodies,
    wanted: impl Fn(&TrackId) -> bool + 'static,
) -> anyhow::Result<()> {
    let (volume, mut met) = (volume.clone(), 0);
    let job = move |_| {
        while met < tracks {
            let id = TrackId::of(&bodies.next());
            if !wanted(&id) {
                continue;
            }
            met += 1;
            if met % KEPT_EVERY != 0 {
                let volume = volume.clone();
                return Some(async move {
                    volume.delete(&id).await?;
                    Ok(0)
                });
            }
        }
        None
    };
    load::lanes(IN_FLIGHT, job).await?;
    Ok(())
}

/// Puts tracks into a small volume beside this one, or `deletes` them, so that the lanes' own memory is there. Its tracks are
/// of one page of digests: what it leaves behind for the next index to use is some 50 KiB.
async fn warm_up(dir: &Path, deletes: bool) -> anyhow::Result<()> {
    let dir = dir.with_extension("warm");
    load::format(&dir)?;
    let near = |id: &TrackId| id.as_bytes()[0] == 0;
    let (volume, ..) = load::open(config(&dir)).await?;
    let in_flight = if deletes { 1 } else { IN_FLIGHT };
    put(&volume, in_flight, WARM_TRACKS, Bodies::new(64, 0)?, near).await?;
    if deletes {
        delete(&volume, WARM_TRACKS, Bodies::new(64, 0)?, near).await?;
    }
    volume.close().await;
    Ok(std::fs::remove_dir_all(dir)?)
}

/// Opens the volume, does what is asked, prints what that took, and closes it.
pub(crate) fn open(options: &Open, seed: u64) -> anyhow::Result<()> {
    let options = options.clone();
    let found = shard::run(0, move || async move { open_and_work(&options, seed).await })?;
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

async fn open_and_work(options: &Open, seed: u64) -> anyhow::Result<Found> {
    if options.then == Some(Then::Compact) {
        warm_up(&options.dir, true).await?;
    }
    let (started, resident_before) = (Instant::now(), resident()?);
    forget_peak()?;
    let (volume, recovery, _) = load::open(config(&options.dir)).await?;
    let segments = segments_in(&options.dir)?;
    if options.then.is_some() {
        // The peak of the start is a figure of its own.
        forget_peak()?;
    }
    match options.then {
        None => {}
        Some(Then::Scrub) => {
            let report = volume.scrub_pass(u64::MAX).await?;
            ensure!((report.damaged, report.files_damaged) == (0, 0), "the drive rots: {report:?}");
        }
        Some(Then::Compact) => {
            delete(&volume, options.tracks, Bodies::new(options.bytes, seed)?, |_| true).await?;
            volume.compact().await?;
        }
    }
    let freed = segments.saturating_sub(segments_in(&options.dir)?);
    let found = found(&recovery, started, resident_before)?;
    let found = Found { tracks: volume.usage().tracks, segments_freed: freed, ..found };
    volume.close().await;
    Ok(found)
}

fn segments_in(dir: &Path) -> anyhow::Result<u64> {
    Ok(std::fs::read_dir(dir.join("segments"))?.count() as u64)
}
