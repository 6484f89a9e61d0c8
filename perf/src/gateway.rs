//! `deadwax-perf gateway`: tracks in and out over HTTP, through a whole cluster on loopback.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use crate::folder::Folder;
use crate::http::{Load, Request, load};
use crate::nginx::Nginx;
use crate::report::{Board, Report};
use crate::ring::Scratch;
use crate::system::System;
use crate::tracks::{Random, Track, fresh, generated, read};

const MIB: u64 = 1024 * 1024;
const RANGE_BYTES: u64 = 64 * 1024;
/// Copies that a put writes; all lie on this machine's one drive, so its ceiling is shared by that many.
const COPIES: f64 = 3.0;

/// How to load the gateway.
#[derive(Args)]
pub(crate) struct Options {
    /// A folder of real tracks. Without it, tracks of 4 MiB are generated.
    #[arg(long)]
    tracks: Option<PathBuf>,
    /// How many tracks to generate where no folder is given.
    #[arg(long, default_value_t = 64)]
    count: usize,
    /// Size of a generated track, KiB.
    #[arg(long, default_value_t = 4096)]
    kib: usize,
    /// A folder on the drive to measure; the cluster's data go there.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Rounds; medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// 64 KiB ranges to ask for in each round.
    #[arg(long, default_value_t = 40_000)]
    ranges: usize,
    /// The binary to measure; the `deadwax` beside this one by default.
    #[arg(long)]
    deadwax: Option<PathBuf>,
}

pub(crate) fn run(options: &Options, seed: u64) -> anyhow::Result<Report> {
    let bodies = match &options.tracks {
        Some(folder) => read(folder)?,
        None => generated(options.count, options.kib * 1024, seed),
    };
    let bytes: u64 = bodies.iter().map(|body| body.len() as u64).sum();
    let folder = Folder::new(&options.dir)?;
    let deadwax = crate::system::executable(options.deadwax.as_deref())?;
    let system = System::start(&deadwax, &folder.path().join("deadwax"))?;
    let mut board = Board::default();
    // Round 0 warms memory up and is not counted.
    for round in 0..=options.rounds {
        let salt = seed << 8 | round as u64;
        let mut uncounted = Board::default();
        let board = if round == 0 { &mut uncounted } else { &mut board };
        one_round(options, board, &system, folder.path(), &bodies, salt).with_context(|| format!("round {round}"))?;
    }
    for memory in system.memory() {
        for (what, value) in [("memory", memory.now), ("memory_peak", memory.peak)] {
            board.add_plain(&format!("{what}_{}", memory.name), "MiB", value);
        }
    }
    let settings = json!({ "tracks": options.tracks, "count": bodies.len(), "bytes": bytes, "rounds": options.rounds,
        "ranges": options.ranges, "copies": COPIES, "seed": seed });
    Ok(Report::new(settings, board.figures()))
}

fn one_round(
    options: &Options,
    board: &mut Board,
    system: &System,
    folder: &Path,
    bodies: &[Vec<u8>],
    salt: u64,
) -> anyhow::Result<()> {
    let host = system.gateway;
    let drive = drive_ceiling(&options.dir)? / COPIES;
    let mut tracks = Vec::new();
    for in_flight in [1, 8] {
        tracks = fresh(bodies, salt << 4 | in_flight);
        let in_flight = usize::try_from(in_flight)?;
        let put = load(host, in_flight, 201, &|n| {
            let track = tracks.get(n)?;
            Some(Request::put(host, &path_of(track), &track.bytes))
        })?;
        rate(board, &format!("put_inflight_{in_flight}"), &put, Some(drive), "raw drive / 3 copies");
        let cold = gets(host, &tracks, in_flight, "/v1/tracks/", tracks.len())?;
        rate(board, &format!("get_first_inflight_{in_flight}"), &cold, None, "from masters");
    }
    let nginx_folder = folder.join("nginx");
    let nginx = Nginx::start(&nginx_folder, &tracks)?;
    // Whole tracks: each several times, so that a run of small albums lasts long enough to be measured.
    let whole = tracks.len() * 4;
    for in_flight in [1, 8] {
        let ceiling = match &nginx {
            Some(nginx) => Some(gets(nginx.address, &tracks, in_flight, "/", whole)?.megabytes_a_second()),
            None => None,
        };
        let warm = gets(host, &tracks, in_flight, "/v1/tracks/", whole)?;
        rate(board, &format!("get_cached_inflight_{in_flight}"), &warm, ceiling, "nginx, same files");
    }
    let ceiling = match &nginx {
        Some(nginx) => Some(ranges(nginx.address, &tracks, 16, "/", options.ranges, salt)?.requests_a_second()),
        None => None,
    };
    let warm = ranges(host, &tracks, 16, "/v1/tracks/", options.ranges, salt)?;
    let value = warm.requests_a_second();
    board.add("range_64k_cached_inflight_16", "1/s", value, &warm.latency, ceiling, "nginx, same files");
    drop(nginx);
    std::fs::remove_dir_all(&nginx_folder).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    Ok(())
}

fn rate(board: &mut Board, name: &str, load: &Load, ceiling: Option<f64>, beside: &'static str) {
    board.add(name, "MB/s", load.megabytes_a_second(), &load.latency, ceiling, beside);
}

fn path_of(track: &Track) -> String {
    format!("/v1/tracks/{}", track.id)
}

fn drive_ceiling(dir: &Path) -> anyhow::Result<f64> {
    Ok(Scratch::new(dir, 512 * MIB)?.write(8, 8 << 20)?.0)
}

fn gets(host: SocketAddr, tracks: &[Track], in_flight: usize, prefix: &str, count: usize) -> anyhow::Result<Load> {
    load(host, in_flight, 200, &|n| {
        (n < count).then(|| Request::get(host, &format!("{prefix}{}", tracks[n % tracks.len()].id)))
    })
}

fn ranges(
    host: SocketAddr,
    tracks: &[Track],
    in_flight: usize,
    prefix: &str,
    count: usize,
    seed: u64,
) -> anyhow::Result<Load> {
    load(host, in_flight, 206, &|n| {
        let mut random = Random::new(seed ^ (n as u64) << 32);
        let track = &tracks[usize::try_from(random.below(tracks.len() as u64)).ok()?];
        let bytes = RANGE_BYTES.min(track.bytes.len() as u64);
        let start = random.below(track.bytes.len() as u64 - bytes + 1);
        (n < count).then(|| Request::range(host, &format!("{prefix}{}", track.id), start, bytes))
    })
}
