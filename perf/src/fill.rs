//! `deadwax-perf fill` makes a volume of many tracks, and `deadwax-perf open` opens it and says what that took.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use anyhow::ensure;
use clap::Args;
use deadwax_track::{Tags, TrackId};

use crate::load;
use crate::process::{Found, forget_peak, peak, resident};
use crate::shard;
use crate::tracks::Random;

/// Enough that a flush is shared by many, few enough that what they hold is small.
const IN_FLIGHT: usize = 256;

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
    /// The volume's folder.
    dir: PathBuf,
}

/// Puts tracks that differ for each `seed`, and prints what was found. Does not return where it is to be killed.
pub(crate) fn run(options: &Options, seed: u64) -> anyhow::Result<()> {
    ensure!(options.bytes >= 16, "a track of {} bytes has no room for its number", options.bytes);
    if !options.dir.join("segments").exists() {
        load::format(&options.dir)?;
    }
    let options = options.clone();
    let found = shard::run(0, move || async move { fill(&options, seed).await })?;
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

async fn fill(options: &Options, seed: u64) -> anyhow::Result<Found> {
    let (started, resident_before) = (Instant::now(), resident()?);
    forget_peak()?;
    let config = load::config(&options.dir);
    let config = deadwax_engine::VolumeConfig { put_bytes_max: (IN_FLIGHT as u64) << 20, ..config };
    let (volume, recovery, _) = load::open(config).await?;
    let (filling, tracks, bytes) = (volume.clone(), options.tracks, options.bytes);
    let body = Rc::new(crate::tracks::generated(1, bytes, seed).remove(0));
    let mut random = Random::new(seed);
    load::lanes(IN_FLIGHT, move |n| {
        let (volume, body, salt) = (filling.clone(), Rc::clone(&body), random.next());
        (n < tracks).then_some(async move {
            let mut body = body.to_vec();
            body[..8].copy_from_slice(&n.to_le_bytes());
            body[8..16].copy_from_slice(&salt.to_le_bytes());
            let mut put = volume.put(TrackId::of(&body), bytes as u64, &Tags::default()).await?;
            put.write(&body).await?;
            Ok(put.finish().await?.bytes)
        })
    })
    .await?;
    let found = Found {
        tracks: volume.usage().tracks,
        open_seconds: recovery.seconds,
        read_bytes: recovery.bytes_read,
        seconds: started.elapsed().as_secs_f64(),
        resident_before,
        resident_after: resident()?,
        resident_peak: peak()?,
    };
    if options.kill {
        println!("{}", serde_json::to_string(&found)?);
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
    }
    volume.close().await;
    Ok(found)
}

/// Opens the volume, prints what that took, and closes it.
pub(crate) fn open(options: &Open) -> anyhow::Result<()> {
    let dir = options.dir.clone();
    let found = shard::run(0, move || async move {
        let (started, resident_before) = (Instant::now(), resident()?);
        forget_peak()?;
        let (volume, recovery, _) = load::open(load::config(&dir)).await?;
        let found = Found {
            tracks: recovery.tracks,
            open_seconds: recovery.seconds,
            read_bytes: recovery.bytes_read,
            seconds: started.elapsed().as_secs_f64(),
            resident_before,
            resident_after: resident()?,
            resident_peak: peak()?,
        };
        volume.close().await;
        Ok(found)
    })?;
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}
