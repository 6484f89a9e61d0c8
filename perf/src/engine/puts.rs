//! Durable puts: the engine on a new volume, and a bare ring on a new file.

use std::path::Path;
use std::rc::Rc;

use super::{MIB, Options, Part};
use crate::load::{self, Took};
use crate::pool::Pool;
use crate::report::Board;
use crate::ring::Scratch;
use crate::ring::group::{Durable, Group};
use crate::{cpu, drive};

const KIB: usize = 1024;

/// One kind of put.
struct Kind {
    part: Part,
    name: &'static str,
    track_bytes: usize,
    in_flight: usize,
    /// Of the tracks that there is memory for: a drive that flushes each put takes long.
    share: usize,
}

const KINDS: [Kind; 4] = [
    Kind { part: Part::Ingest, name: "ingest_4m_inflight_8", track_bytes: 4 * MIB, in_flight: 8, share: 1 },
    Kind { part: Part::Put, name: "put_64k_inflight_1", track_bytes: 64 * KIB, in_flight: 1, share: 4 },
    Kind { part: Part::Put, name: "put_64k_inflight_16", track_bytes: 64 * KIB, in_flight: 16, share: 1 },
    Kind { part: Part::Put, name: "put_64k_inflight_64", track_bytes: 64 * KIB, in_flight: 64, share: 1 },
];

/// What a 64 KiB track's record takes on the drive: a header, a whole frame, and the frame of the rest.
const RECORD_BYTES: usize = 72 * KIB;

pub(super) async fn measure(options: &Options, folder: &Path, seed: u64, board: &mut Board) -> anyhow::Result<()> {
    let mut pool = Rc::new(Pool::new(options.bytes(), seed));
    // Round 0 warms memory up and is not counted.
    for round in 0..=options.rounds {
        let mut uncounted = Board::default();
        let board = if round == 0 { &mut uncounted } else { &mut *board };
        for (number, kind) in KINDS.iter().enumerate().filter(|(_, kind)| options.wants(kind.part)) {
            let count = options.bytes() / kind.track_bytes / kind.share;
            let salt = seed << 16 | round << 8 | number as u64;
            Rc::get_mut(&mut pool).expect("no load runs").renew(kind.track_bytes, count, salt);
            // Whoever comes second finds the drive as the first left it: they take turns.
            if round % 2 == 0 {
                let raw = raw(folder, kind, &pool)?;
                engine(folder, kind, &pool).await?.show(kind, &raw, board);
            } else {
                let engine = engine(folder, kind, &pool).await?;
                engine.show(kind, &raw(folder, kind, &pool)?, board);
            }
        }
    }
    Ok(())
}

/// What a bare ring gave.
struct Raw {
    per_second: f64,
    cpu_per_gigabyte: f64,
    /// The same with the engine's longer records.
    of_records: Option<f64>,
    /// The same where nobody shares a flush: with a write and a flush that are linked, and with a durable write.
    alone: Option<(f64, f64)>,
    /// The same with bytes that are copied, hashed and checksummed on their way.
    hashed: f64,
}

fn raw(folder: &Path, kind: &Kind, pool: &Pool) -> anyhow::Result<Raw> {
    let count = pool.ids().len();
    let scratch = |writes, write_bytes| {
        let group =
            Group { in_flight: kind.in_flight, writes, write_bytes, count: count as u64, durable: Durable::Shared };
        anyhow::Ok((Scratch::new(folder, (count * writes * write_bytes) as u64)?, group))
    };
    let put = |writes, write_bytes| {
        let (scratch, group) = scratch(writes, write_bytes)?;
        scratch.put(group)
    };
    let (writes, write_bytes) =
        if kind.track_bytes > MIB { (kind.track_bytes / MIB, MIB) } else { (1, kind.track_bytes) };
    let before = cpu::spent();
    let (per_second, _) = put(writes, write_bytes)?;
    let spent = cpu::spent() - before;
    #[expect(clippy::cast_precision_loss, reason = "a rate, printed to three digits")]
    let cpu_per_gigabyte = spent.as_secs_f64() / ((count * kind.track_bytes) as f64 / 1e9);
    let of_records = if kind.track_bytes == 64 * KIB { Some(put(1, RECORD_BYTES)?.0) } else { None };
    let alone = if kind.in_flight == 1 {
        let put = |durable| {
            let (scratch, group) = scratch(writes, write_bytes)?;
            anyhow::Ok(scratch.put(Group { durable, ..group })?.0)
        };
        Some((put(Durable::Linked)?, put(Durable::Written)?))
    } else {
        None
    };
    let (scratch, group) = scratch(writes, write_bytes)?;
    let (hashed, _) = scratch.put_hashed(group, pool)?;
    Ok(Raw { per_second, cpu_per_gigabyte, of_records, hashed, alone })
}

/// What the engine gave.
struct Engine {
    took: Took,
    /// Asked of the host by bytes of tracks.
    amplification: f64,
    /// By the drive's own count, whoever else wrote to it.
    amplification_drive: Option<f64>,
    puts_per_flush: f64,
}

async fn engine(folder: &Path, kind: &Kind, pool: &Rc<Pool>) -> anyhow::Result<Engine> {
    let dir = folder.join("volume");
    load::format(&dir)?;
    let (volume, _, counts) = load::open(load::config(&dir)).await?;
    // The first segment is made outside the timed part, and every further one inside it.
    let warm = load::put(&volume, pool, Rc::new(vec![0]), 1).await?;
    let numbers = Rc::new((1..pool.ids().len()).collect::<Vec<_>>());
    let (written, flushes) = (counts.written_bytes.get(), counts.flushes.get());
    let drive_before = drive::written_bytes(folder);
    let took = load::put(&volume, pool, numbers, kind.in_flight).await?;
    let drive_after = drive::written_bytes(folder);
    debug_assert!(warm.count == 1);
    #[expect(clippy::cast_precision_loss, reason = "a ratio, printed to three digits")]
    let by_accepted = |bytes: u64| bytes as f64 / took.bytes as f64;
    let amplification = by_accepted(counts.written_bytes.get() - written);
    let amplification_drive = drive_before.zip(drive_after).map(|(before, after)| by_accepted(after - before));
    #[expect(clippy::cast_precision_loss, reason = "a ratio, printed to three digits")]
    let puts_per_flush = took.count as f64 / (counts.flushes.get() - flushes).max(1) as f64;
    volume.close().await;
    std::fs::remove_dir_all(&dir)?;
    Ok(Engine { took, amplification, amplification_drive, puts_per_flush })
}

impl Engine {
    fn show(&self, kind: &Kind, raw: &Raw, board: &mut Board) {
        let (name, took) = (kind.name, &self.took);
        if kind.part == Part::Ingest {
            #[expect(clippy::cast_precision_loss, reason = "a rate, printed to one digit")]
            let ceiling = raw.per_second * kind.track_bytes as f64 / 1e6;
            let beside = "raw ring, same writes and group flush";
            board.add(name, "MB/s", took.megabytes_per_second(), &took.latency, Some(ceiling), beside);
            #[expect(clippy::cast_precision_loss, reason = "a rate, printed to one digit")]
            let hashed = raw.hashed * kind.track_bytes as f64 / 1e6;
            let beside = "raw ring that copies, hashes, checksums";
            board.add_beside("ingest_4m_inflight_8_of_hashed", "MB/s", took.megabytes_per_second(), hashed, beside);
            let beside = "raw ring's CPU";
            board.add_beside("cpu_write_s_per_gb", "s/GB", took.cpu_per_gigabyte(), raw.cpu_per_gigabyte, beside);
        } else {
            let beside = "raw ring, 64 KiB, same group flush";
            board.add(name, "1/s", took.per_second(), &took.latency, Some(raw.per_second), beside);
            let (cpu, beside) = (took.cpu_per_gigabyte(), "raw ring's CPU");
            board.add_beside(&format!("{name}_cpu"), "s/GB", cpu, raw.cpu_per_gigabyte, beside);
            let beside = "raw ring that copies, hashes, checksums";
            board.add_beside(&format!("{name}_of_hashed"), "1/s", took.per_second(), raw.hashed, beside);
            if let Some((linked, written)) = raw.alone {
                board.add_beside("raw_64k_linked", "1/s", linked, raw.per_second, "raw ring, a flush after the write");
                board.add_beside("raw_64k_dsync", "1/s", written, raw.per_second, "raw ring, a flush after the write");
            }
            if let Some(of_records) = raw.of_records {
                let beside = "raw ring, 72 KiB as the engine writes";
                board.add_beside(&format!("{name}_by_record"), "1/s", took.per_second(), of_records, beside);
            }
        }
        board.add_plain(&format!("{name}_per_flush"), "puts", self.puts_per_flush);
        let amplification = match kind.name {
            "ingest_4m_inflight_8" => "write_amplification_4m",
            "put_64k_inflight_16" => "write_amplification_64k",
            _ => return,
        };
        board.add_plain(amplification, "ratio", self.amplification);
        if let Some(drive) = self.amplification_drive {
            board.add_plain(&format!("{amplification}_drive"), "ratio", drive);
        }
    }
}
