//! `deadwax-perf rivals`: the engine beside what one would use instead, under the same load: plain files, fjall, and
//! RocksDB with blob files. Behind the feature `competition`, which takes minutes to compile.
//!
//! All of them put durably and in turn, round by round. The rivals may use every core, the engine has one. Before reads,
//! what the page cache holds of them is dropped; what they hold in memory themselves stays theirs.

mod store;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::Args;
use deadwax_track::ByteRange;
use hdrhistogram::Histogram;
use serde_json::json;

use self::store::open;
use crate::folder::Folder;
use crate::load;
use crate::pool::Pool;
use crate::report::{Board, Report};
use crate::ring::{latencies, micros};
use crate::shard;

const MIB: usize = 1024 * 1024;
const KIB: usize = 1024;

/// The rivals, as figures are named for them.
const RIVALS: [&str; 3] = ["files", "fjall", "rocksdb"];

/// Track lengths and puts in flight.
const LOADS: [(&str, usize, usize); 3] =
    [("4m_inflight_8", 4 * MIB, 8), ("64k_inflight_16", 64 * KIB, 16), ("64k_inflight_64", 64 * KIB, 64)];

/// How to compare.
#[derive(Args)]
pub(crate) struct Options {
    /// A folder on the drive to measure.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Rounds; medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// MiB of tracks for each load in each round.
    #[arg(long, default_value_t = 512)]
    mib: usize,
}

/// What one store did with one load.
struct Did {
    put_megabytes: f64,
    put: Histogram<u64>,
    get_megabytes: f64,
    get: Histogram<u64>,
}

pub(crate) fn run(options: &Options, seed: u64) -> anyhow::Result<Report> {
    let folder = Folder::new(&options.dir)?;
    let mut board = Board::default();
    let mut pool = Pool::new(options.mib.max(16) * MIB, seed);
    for round in 0..options.rounds {
        for (number, (load, track_bytes, in_flight)) in LOADS.into_iter().enumerate() {
            pool.renew(track_bytes, usize::MAX, seed << 16 | round << 8 | number as u64);
            let engine;
            (engine, pool) = by_engine(&folder.path().join("engine"), pool, in_flight)?;
            show(&mut board, load, "engine", &engine, None);
            for rival in RIVALS {
                let did = by_rival(&folder.path().join(rival), rival, &pool, in_flight)?;
                show(&mut board, load, rival, &did, Some(&engine));
            }
        }
    }
    let settings = json!({ "dir": options.dir, "rounds": options.rounds, "mib": options.mib, "seed": seed });
    Ok(Report::new(settings, board.figures()))
}

/// A rival stands beside the engine: its ratio is what it gives of what the engine gives.
fn show(board: &mut Board, load: &str, who: &str, did: &Did, engine: Option<&Did>) {
    let beside = if engine.is_some() { "the engine" } else { "" };
    let ceiling = engine.map(|engine| engine.put_megabytes);
    board.add(&format!("put_{load}_{who}"), "MB/s", did.put_megabytes, &did.put, ceiling, beside);
    let ceiling = engine.map(|engine| engine.get_megabytes);
    board.add(&format!("get_{load}_{who}"), "MB/s", did.get_megabytes, &did.get, ceiling, beside);
}

fn by_engine(dir: &Path, pool: Pool, in_flight: usize) -> anyhow::Result<(Did, Pool)> {
    load::format(dir)?;
    let on_core = dir.to_owned();
    let outcome = shard::run(0, move || async move {
        let pool = Rc::new(pool);
        let (volume, _, _) = load::open(load::config(&on_core)).await?;
        let count = pool.ids().len();
        let put = load::put(&volume, &pool, Rc::new((0..count).collect()), in_flight).await?;
        let reading = Rc::clone(&pool);
        let next = move |n| {
            let n = usize::try_from(n).ok().filter(|n| *n < count)?;
            let (id, bytes) = reading.track(n);
            Some((id, ByteRange::whole(bytes.len() as u64)?))
        };
        let get = load::read(&volume, in_flight, next).await?;
        volume.close().await;
        let did = Did {
            put_megabytes: put.megabytes_per_second(),
            put: put.latency,
            get_megabytes: get.megabytes_per_second(),
            get: get.latency,
        };
        Ok((did, Rc::into_inner(pool).expect("no load runs")))
    });
    std::fs::remove_dir_all(dir)?;
    outcome
}

fn by_rival(dir: &Path, rival: &str, pool: &Pool, in_flight: usize) -> anyhow::Result<Did> {
    std::fs::create_dir_all(dir)?;
    let store = open(rival, dir)?;
    let put = |number| {
        let (id, bytes) = pool.track(number);
        store.put(id.as_bytes(), bytes)
    };
    let (put_megabytes, put) = threads(pool, in_flight, &put)?;
    store::forget_pages(dir)?;
    let get = |number| {
        let (id, bytes) = pool.track(number);
        let found = store.get(id.as_bytes())?;
        anyhow::ensure!(found == bytes.len(), "{rival} gave {found} bytes of {}", bytes.len());
        Ok(())
    };
    let (get_megabytes, get) = threads(pool, in_flight, &get)?;
    drop(store);
    std::fs::remove_dir_all(dir)?;
    Ok(Did { put_megabytes, put, get_megabytes, get })
}

/// Does `job` for each of the pool's tracks, on `in_flight` threads. Gives MB/s (10^6) and latency.
fn threads(
    pool: &Pool,
    in_flight: usize,
    job: &(dyn Fn(usize) -> anyhow::Result<()> + Sync),
) -> anyhow::Result<(f64, Histogram<u64>)> {
    let (next, all) = (AtomicUsize::new(0), Mutex::new(latencies()));
    let count = pool.ids().len();
    let started = Instant::now();
    std::thread::scope(|scope| {
        let work = || {
            let mut latency = latencies();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    break;
                }
                let begun = Instant::now();
                job(number)?;
                latency.saturating_record(micros(begun.elapsed()));
            }
            all.lock().expect("no thread panics with it").add(&latency).expect("histograms of one kind");
            anyhow::Ok(())
        };
        let threads: Vec<_> = (0..in_flight).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a load does not panic"))
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let bytes: usize = (0..count).map(|number| pool.track(number).1.len()).sum();
    #[expect(clippy::cast_precision_loss, reason = "a rate, printed to one digit")]
    let megabytes = bytes as f64 / 1e6 / seconds;
    Ok((megabytes, all.into_inner().expect("no thread panicked with it")))
}
