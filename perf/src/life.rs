//! `deadwax-perf life`: a volume's long life. Filled to 85 %, then random puts and deletes until its capacity was written
//! ten times over; what that cost in space and in writing.

use std::cell::RefCell;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::ensure;
use clap::Args;
use deadwax_engine::{Error, VolumeConfig};
use deadwax_track::{Tags, TrackId};
use serde_json::json;

use crate::folder::Folder;
use crate::load::{self, Disk};
use crate::report::{Board, Report};
use crate::shard;
use crate::tracks::{Random, generated};

const MIB: u64 = 1024 * 1024;
const IN_FLIGHT: usize = 8;
/// Blocks of `st_blocks`, whatever the file system's own are.
const STAT_BLOCK_BYTES: u64 = 512;
/// How often the drive's space is measured: each time so much of the capacity was written.
const SAMPLES_PER_CAPACITY: u64 = 20;
/// What tracks start with, to tell one from another.
const MARK_BYTES: usize = 16;

/// How to live.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// A folder on the drive.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// The volume's capacity, MiB.
    #[arg(long, default_value_t = 8192)]
    capacity_mib: u64,
    /// The size of a segment, MiB.
    #[arg(long, default_value_t = 256)]
    segment_mib: u64,
    /// How full the volume is, in tracks' bytes by capacity, percent.
    #[arg(long, default_value_t = 85)]
    full_percent: u64,
    /// How many times the capacity is written in all.
    #[arg(long, default_value_t = 10)]
    times: u64,
    /// The smallest and the largest track, KiB; as many of each doubling between them.
    #[arg(long, default_value_t = 64)]
    track_kib_min: u64,
    #[arg(long, default_value_t = 8192)]
    track_kib_max: u64,
}

/// Tracks that are stored, and what was done.
struct Life {
    tracks: Vec<(TrackId, u64)>,
    live_bytes: u64,
    put_bytes: u64,
    deletes: u64,
    /// Puts that were refused for want of space.
    refused: u64,
    random: Random,
    samples: Vec<f64>,
    next_sample: u64,
}

pub(crate) fn run(options: &Options, seed: u64) -> anyhow::Result<Report> {
    ensure!(options.full_percent < 100, "a volume is at most full");
    ensure!(options.track_kib_min > 0 && options.track_kib_min <= options.track_kib_max, "sizes rise from min to max");
    let folder = Folder::new(&options.dir)?;
    let dir = folder.path().join("volume");
    load::format(&dir)?;
    let on_core = options.clone();
    let board = shard::run(0, move || async move { live(&on_core, &dir, seed).await })?;
    let settings = json!({ "dir": options.dir, "capacity_mib": options.capacity_mib, "segment_mib": options.segment_mib,
        "full_percent": options.full_percent, "times": options.times, "track_kib_min": options.track_kib_min,
        "track_kib_max": options.track_kib_max, "seed": seed });
    Ok(Report::new(settings, board.figures()))
}

async fn live(options: &Options, dir: &Path, seed: u64) -> anyhow::Result<Board> {
    let capacity = options.capacity_mib * MIB;
    let config = VolumeConfig {
        capacity_bytes_max: Some(capacity),
        segment_bytes: options.segment_mib * MIB,
        ..load::config(dir)
    };
    let (volume, _, counts) = load::open(config).await?;
    let body = Rc::new(generated(1, usize::try_from(options.track_kib_max * 1024)?, seed).remove(0));
    let life = Rc::new(RefCell::new(Life {
        tracks: vec![],
        live_bytes: 0,
        put_bytes: 0,
        deletes: 0,
        refused: 0,
        random: Random::new(seed),
        samples: vec![],
        next_sample: capacity,
    }));
    let full = capacity / 100 * options.full_percent;
    let end = capacity * options.times;
    let (shared, putting) = (Rc::clone(&life), volume.clone());
    let (sizes, folder) = ((options.track_kib_min * 1024, options.track_kib_max * 1024), dir.to_owned());
    let took = load::lanes(IN_FLIGHT, move |n| {
        let (life, volume, body, folder) = (Rc::clone(&shared), putting.clone(), Rc::clone(&body), folder.clone());
        if life.borrow().put_bytes >= end {
            return None;
        }
        Some(async move {
            let bytes = life.borrow_mut().size(sizes);
            while life.borrow().live_bytes + bytes > full {
                delete_one(&volume, &life).await?;
            }
            let put = put_one(&volume, &life, &body[..usize::try_from(bytes)?], n, seed).await?;
            life.borrow_mut().sample(&folder, capacity)?;
            Ok(put)
        })
    })
    .await?;
    let written = counts.written_bytes.get();
    volume.close().await;
    let life = life.borrow();
    let mut board = Board::default();
    #[expect(clippy::cast_precision_loss, reason = "ratios, printed to three digits")]
    {
        board.add_plain("lifetime_write_amplification", "ratio", written as f64 / life.put_bytes as f64);
        board.add_plain("space_amplification", "ratio", allocated(dir)? as f64 / life.live_bytes as f64);
        board.add_plain("deletes", "tracks", life.deletes as f64);
        board.add_plain("puts_refused", "puts", life.refused as f64);
    }
    board.add_plain("space_amplification_max", "ratio", life.samples.iter().copied().fold(0.0, f64::max));
    board.add("life_puts_and_deletes", "MB/s", took.megabytes_per_second(), &took.latency, None, "");
    Ok(board)
}

/// Puts a track; one that finds no space is counted, and a stored track makes room for the next.
async fn put_one(volume: &Disk, life: &RefCell<Life>, body: &[u8], number: u64, seed: u64) -> anyhow::Result<u64> {
    let mut body = body.to_vec();
    body[..MARK_BYTES / 2].copy_from_slice(&number.to_le_bytes());
    body[MARK_BYTES / 2..MARK_BYTES].copy_from_slice(&seed.to_le_bytes());
    let (id, bytes) = (TrackId::of(&body), body.len() as u64);
    // Counted before it is stored, so that those in flight do not pass the mark together.
    life.borrow_mut().live_bytes += bytes;
    let stored = async {
        let mut put = volume.put(id, bytes, &Tags::default()).await?;
        put.write(&body).await?;
        put.finish().await
    };
    match stored.await {
        Ok(_) => {
            let mut life = life.borrow_mut();
            life.put_bytes += bytes;
            life.tracks.push((id, bytes));
            Ok(bytes)
        }
        Err(Error::NoSpace { .. }) => {
            life.borrow_mut().live_bytes -= bytes;
            life.borrow_mut().refused += 1;
            delete_one(volume, life).await?;
            Ok(0)
        }
        Err(error) => Err(error.into()),
    }
}

async fn delete_one(volume: &Disk, life: &RefCell<Life>) -> anyhow::Result<()> {
    let (id, bytes) = {
        let mut life = life.borrow_mut();
        let count = life.tracks.len();
        ensure!(count > 0, "no track is left to delete, and still there is no space");
        let index = usize::try_from(life.random.below(count as u64))?;
        life.tracks.swap_remove(index)
    };
    volume.delete(&id).await?;
    let mut life = life.borrow_mut();
    life.live_bytes -= bytes;
    life.deletes += 1;
    Ok(())
}

impl Life {
    /// A length between the two, each doubling as likely as another.
    fn size(&mut self, (min, max): (u64, u64)) -> u64 {
        let doublings = (max / min).ilog2();
        let floor = min << self.random.below(u64::from(doublings) + 1);
        (floor + self.random.below(floor)).min(max)
    }

    /// Measures the drive's space now and then, once the volume is full.
    fn sample(&mut self, dir: &Path, capacity: u64) -> anyhow::Result<()> {
        if self.put_bytes >= self.next_sample {
            self.next_sample = self.put_bytes + capacity / SAMPLES_PER_CAPACITY;
            #[expect(clippy::cast_precision_loss, reason = "a ratio, printed to three digits")]
            self.samples.push(allocated(dir)? as f64 / self.live_bytes as f64);
        }
        Ok(())
    }
}

/// What the files below `dir` take on the drive.
fn allocated(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // A file may go while we look.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { allocated(&entry.path())? } else { metadata.blocks() * STAT_BLOCK_BYTES };
    }
    Ok(bytes)
}
