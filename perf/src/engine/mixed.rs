//! Ranges of 64 KiB while tracks of 4 MiB come in, on one core: with puts that run by their priority, as a node has them, and
//! with puts that run where the reads do.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use deadwax_engine::{GlommioHost, Priority, Volume};
use deadwax_track::ByteRange;

use super::reads::FRAME_PAYLOAD_BYTES;
use super::{MIB, Options};
use crate::counting::Counting;
use crate::load::{self, Disk, Took};
use crate::pool::Pool;
use crate::report::Board;
use crate::tracks::Random;

const TRACK_BYTES: usize = 4 * MIB;
const PUTS_IN_FLIGHT: usize = 8;
const RANGES_IN_FLIGHT: usize = 8;

/// What both at once took.
struct Both {
    ranges: Took,
    puts: Took,
}

pub(super) async fn measure(options: &Options, folder: &Path, seed: u64, board: &mut Board) -> anyhow::Result<()> {
    let dir = folder.join("mixed");
    load::format(&dir)?;
    let host = GlommioHost::with_queues();
    let (volume, _) = Volume::open(Counting::new(host.clone()), load::config(&dir)).await?;
    let mut pool = Rc::new(Pool::new(options.bytes() / 2, seed));
    // Round 0 warms memory up and is not counted.
    for round in 0..=options.rounds {
        let mut both = Vec::new();
        for turn in [round % 2, 1 - round % 2] {
            Rc::get_mut(&mut pool).expect("no load runs").renew(
                TRACK_BYTES,
                usize::MAX,
                seed << 16 | round << 8 | turn,
            );
            let by_priority = (turn == 0).then_some(&host);
            both.push((turn, at_once(&volume, &pool, by_priority, seed << 16 | round).await?));
        }
        both.sort_unstable_by_key(|(turn, _)| *turn);
        if let [(_, by_priority), (_, alike)] = &both[..]
            && round > 0
        {
            show(by_priority, alike, board);
        }
    }
    volume.close().await;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Puts the second half of the pool while ranges of the first are read.
async fn at_once(volume: &Disk, pool: &Rc<Pool>, host: Option<&GlommioHost>, salt: u64) -> anyhow::Result<Both> {
    let half = pool.ids().len() / 2;
    load::put(volume, pool, Rc::new((0..half).collect()), PUTS_IN_FLIGHT).await?;
    let (there, pool, numbers) = (volume.clone(), Rc::clone(pool), Rc::new((half..2 * half).collect()));
    let (ids, mut random) = (pool.ids()[..half].to_vec(), Random::new(salt));
    let done = Rc::new(Cell::new(false));
    let until = Rc::clone(&done);
    let putting = async move {
        let took = load::put(&there, &pool, numbers, PUTS_IN_FLIGHT).await;
        done.set(true);
        took
    };
    let host = host.cloned();
    let putting = glommio::spawn_local(async move {
        match host {
            Some(host) => host.run(Priority::Write, putting).await,
            None => putting.await,
        }
    });
    let next = move |_| {
        let id = ids[usize::try_from(random.below(ids.len() as u64)).ok()?];
        let start = random.below(TRACK_BYTES as u64 / FRAME_PAYLOAD_BYTES) * FRAME_PAYLOAD_BYTES;
        let range = ByteRange::new(start, start + FRAME_PAYLOAD_BYTES).expect("a range of some bytes");
        (!until.get()).then_some((id, range))
    };
    let ranges = load::read(volume, RANGES_IN_FLIGHT, next).await?;
    Ok(Both { ranges, puts: putting.await? })
}

fn show(by_priority: &Both, alike: &Both, board: &mut Board) {
    let beside = "puts in the same queue";
    let (ranges, others) = (&by_priority.ranges, &alike.ranges);
    board.add("range_while_ingesting", "1/s", ranges.per_second(), &ranges.latency, Some(others.per_second()), beside);
    for quantile in [50_u64, 99] {
        #[expect(clippy::cast_precision_loss, reason = "microseconds and percents, far below 2^52")]
        let at = |took: &Took| took.latency.value_at_quantile(quantile as f64 / 100.0) as f64;
        board.add_beside(&format!("range_while_ingesting_p{quantile}"), "us", at(ranges), at(others), beside);
    }
    let (puts, others) = (&by_priority.puts, &alike.puts);
    let (rate, other) = (puts.megabytes_per_second(), others.megabytes_per_second());
    board.add("ingest_while_ranging", "MB/s", rate, &puts.latency, Some(other), beside);
}
