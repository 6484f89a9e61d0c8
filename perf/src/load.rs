//! Puts and reads on a volume, a fixed number at a time, with nothing between us and the engine.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use deadwax_engine::{GlommioHost, Recovery, Volume, VolumeConfig, VolumeId, VolumeIdentity, format_volume};
use deadwax_track::{ByteRange, Tags, TrackId};
use hdrhistogram::Histogram;

use crate::counting::{Counting, Counts};
use crate::cpu;
use crate::pool::Pool;
use crate::ring::{latencies, micros};

/// A volume whose drive operations are counted.
pub(crate) type Disk = Volume<Counting<GlommioHost>>;

/// Whose volume every volume of ours is.
const IDENTITY: VolumeIdentity = VolumeIdentity { volume: VolumeId([0xd0; 16]), node: [0xd1; 32] };

/// What a load took.
pub(crate) struct Took {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
    pub(crate) cpu: Duration,
    pub(crate) latency: Histogram<u64>,
}

impl Took {
    #[expect(clippy::cast_precision_loss, reason = "a rate, printed to three digits")]
    pub(crate) fn per_second(&self) -> f64 {
        self.count as f64 / self.time.as_secs_f64()
    }

    /// 10^6 bytes a second.
    #[expect(clippy::cast_precision_loss, reason = "a rate, printed to three digits")]
    pub(crate) fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.time.as_secs_f64()
    }

    /// Core-seconds for 10^9 bytes.
    #[expect(clippy::cast_precision_loss, reason = "a rate, printed to three digits")]
    pub(crate) fn cpu_per_gigabyte(&self) -> f64 {
        self.cpu.as_secs_f64() / (self.bytes as f64 / 1e9)
    }
}

/// The default settings for a volume of ours in `dir`.
pub(crate) fn config(dir: &Path) -> VolumeConfig {
    VolumeConfig::new(dir, IDENTITY)
}

/// Makes `dir` a volume.
pub(crate) fn format(dir: &Path) -> anyhow::Result<()> {
    Ok(format_volume(dir, &IDENTITY)?)
}

/// Opens a volume of ours on this executor.
pub(crate) async fn open(config: VolumeConfig) -> anyhow::Result<(Disk, Recovery, Rc<Counts>)> {
    let host = Counting::new(GlommioHost::with_queues());
    let counts = Rc::clone(&host.counts);
    let (volume, recovery) = Volume::open(host, config).await?;
    Ok((volume, recovery, counts))
}

/// Puts the pool's tracks with these numbers, `in_flight` at a time; each is durable at its end.
pub(crate) async fn put(
    volume: &Disk,
    pool: &Rc<Pool>,
    numbers: Rc<Vec<usize>>,
    in_flight: usize,
) -> anyhow::Result<Took> {
    let (volume, pool) = (volume.clone(), Rc::clone(pool));
    lanes(in_flight, move |n| {
        let (volume, pool, numbers) = (volume.clone(), Rc::clone(&pool), Rc::clone(&numbers));
        let number = *numbers.get(usize::try_from(n).ok()?)?;
        Some(async move {
            let (id, bytes) = pool.track(number);
            let mut put = volume.put(id, bytes.len() as u64, &Tags::default()).await?;
            put.write(bytes).await?;
            Ok(put.finish().await?.bytes)
        })
    })
    .await
}

/// Reads what `next` names, until it names no more, `in_flight` at a time.
pub(crate) async fn read(
    volume: &Disk,
    in_flight: usize,
    mut next: impl FnMut(u64) -> Option<(TrackId, ByteRange)> + 'static,
) -> anyhow::Result<Took> {
    let volume = volume.clone();
    lanes(in_flight, move |n| {
        let (id, range) = next(n)?;
        let volume = volume.clone();
        Some(async move {
            let mut reader = volume.read(&id, Some(range)).await?;
            let mut bytes = 0;
            while let Some(block) = reader.next().await {
                bytes += block?.len() as u64;
            }
            Ok(bytes)
        })
    })
    .await
}

/// Does what `job` gives for 0, 1, 2 and so on until it gives nothing, `in_flight` at a time. Each answers its bytes.
pub(crate) async fn lanes<F>(in_flight: usize, job: impl FnMut(u64) -> Option<F> + 'static) -> anyhow::Result<Took>
where
    F: Future<Output = anyhow::Result<u64>> + 'static,
{
    let shared = Rc::new((RefCell::new(job), Cell::new(0_u64), Cell::new(0_u64), RefCell::new(latencies())));
    let (started, cpu_before) = (Instant::now(), cpu::spent());
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let shared = Rc::clone(&shared);
            glommio::spawn_local(async move {
                let (job, next, bytes, latency) = &*shared;
                loop {
                    let work = (job.borrow_mut())(next.get());
                    let Some(work) = work else { return anyhow::Ok(()) };
                    next.set(next.get() + 1);
                    let begun = Instant::now();
                    let done = work.await?;
                    bytes.set(bytes.get() + done);
                    latency.borrow_mut().saturating_record(micros(begun.elapsed()));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    let (time, cpu) = (started.elapsed(), cpu::spent() - cpu_before);
    let (_, count, bytes, latency) = &*shared;
    Ok(Took { count: count.get(), bytes: bytes.get(), time, cpu, latency: latency.replace(latencies()) })
}
