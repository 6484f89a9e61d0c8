//! The figures of one cluster, round by round.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use deadwax_dht_client::{AT_ONCE_BYTES_MAX, Client, Put};
use deadwax_track::{ByteRange, Tags, TrackId};
use hdrhistogram::Histogram;

use crate::report::Board;
use crate::ring::Scratch;
use crate::ring::group::{Durable, Group};
use crate::tracks::Random;

use super::Part;
use super::load::{Answered, Limits, Pace, Took, load};
use super::masters::{Masters, Spent};
use super::stock::{Item, Shelf, Stock};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
pub(super) const LARGE_BYTES: usize = 4 * MIB;
pub(super) const RANGE_BYTES: usize = 64 * KIB;
const COPIES: usize = 3;
/// Of what the closed loop reached, what the open loop asks for.
const OPEN_SHARE: f64 = 0.7;
/// The exponent of plays as servers see them.
const SERVERS_ZIPF: f64 = 0.87;

/// What the drive gives to a bare ring, with the patterns of the figures.
pub(super) struct Ceilings {
    /// MB/s of tracks, each written three times.
    put_large: f64,
    /// Tracks of 64 KiB a second, each written three times.
    put_small: f64,
    /// MB/s.
    get_large: f64,
    /// Reads of 64 KiB a second, 32 at a time; and how long one alone takes, microseconds.
    range: f64,
    range_alone: f64,
}

/// Values of a round by name, for the ratios.
pub(super) type Found = Vec<(&'static str, f64)>;

/// One cluster, and the tracks for it.
pub(super) struct Bench {
    pub(super) masters: Masters,
    /// What the figures' names begin and end with.
    decoration: (&'static str, &'static str),
    only: Vec<Part>,
    time: Duration,
    bytes_max: u64,
    pub(super) seed: u64,
    pub(super) large: Stock,
    small: Stock,
    real: Stock,
}

/// What a closed loop took, what it cost, and the latencies of the open loop after it.
pub(super) struct Measured {
    closed: Took,
    spent: Spent,
    open: Took,
}

impl Ceilings {
    pub(super) fn measure(dir: &Path, time: Duration, seed: u64) -> anyhow::Result<Self> {
        let count = 2_048;
        let scratch = Scratch::new(dir, 512 * MIB as u64)?;
        let small =
            Group { in_flight: 16 * COPIES, writes: 1, write_bytes: RANGE_BYTES, count, durable: Durable::Shared };
        #[expect(clippy::cast_precision_loss, reason = "three, and a MiB")]
        let (copies, mib) = (COPIES as f64, MIB as f64);
        let put_small = scratch.put(small)?.0 / copies;
        let put_large = scratch.write(8, 8 * MIB)?.0 / copies;
        let (reads, _) = scratch.read_checked(MIB, 8, time, seed)?;
        let (range, _) = scratch.read_checked(RANGE_BYTES, 32, time, seed)?;
        let (_, alone) = scratch.read_checked(RANGE_BYTES, 1, time, seed)?;
        Ok(Self { put_large, put_small, get_large: reads * mib / 1e6, range, range_alone: at(&alone, 0.5) })
    }
}

impl Bench {
    pub(super) fn new(
        masters: Masters,
        decoration: (&'static str, &'static str),
        only: &[Part],
        time: Duration,
        bytes_max: u64,
        seed: u64,
    ) -> Self {
        let [large, small] = [LARGE_BYTES, RANGE_BYTES].map(|bytes| Stock::new(&[bytes], seed));
        let only = only.to_vec();
        Self { masters, decoration, only, time, bytes_max, seed, large, small, real: Stock::real(seed) }
    }

    pub(super) async fn end(self) -> anyhow::Result<()> {
        self.masters.stop().await
    }

    /// Measures everything once.
    pub(super) async fn round(&mut self, board: &mut Board, ceilings: &Ceilings, round: u64) -> anyhow::Result<Found> {
        let salt = self.seed << 16 | round << 8;
        for (number, stock) in [&mut self.large, &mut self.small, &mut self.real].into_iter().enumerate() {
            stock.renew(salt | number as u64);
        }
        let mut found = self.puts(board, ceilings).await.context("puts")?;
        if self.only.contains(&Part::Get) {
            found.extend(self.gets(board, ceilings, salt).await.context("gets")?);
        }
        Ok(found)
    }

    /// What a figure is called.
    pub(super) fn name(&self, figure: &str) -> String {
        let (before, after) = self.decoration;
        format!("{before}{figure}{after}")
    }

    async fn puts(&self, board: &mut Board, ceilings: &Ceilings) -> anyhow::Result<Found> {
        let (mut found, beside) = (Found::new(), "raw drive / 3 copies");
        // Gets are of these.
        if self.only.contains(&Part::Put4m) || self.only.contains(&Part::Get) {
            let large = self.put(&self.large, LARGE_BYTES, 8).await?;
            let (rate, cpu) = (large.closed.megabytes_per_second(), large.cpu_s_per_gb());
            let ceiling = Some(ceilings.put_large);
            board.add(&self.name("put_4m_inflight_8"), "MB/s", rate, &large.open.latency, ceiling, beside);
            board.add_plain(&self.name("cpu_s_per_gb_put"), "s/GB", cpu);
            found.extend([("put_4m_inflight_8", rate), ("cpu_s_per_gb_put", cpu)]);
        }
        if self.only.contains(&Part::Put64k) {
            let small = self.put(&self.small, RANGE_BYTES, 16).await?;
            let (rate, cpu) = (small.closed.per_second(), small.cpu_s_per_gb());
            let ceiling = Some(ceilings.put_small);
            board.add(&self.name("put_64k_inflight_16"), "1/s", rate, &small.open.latency, ceiling, beside);
            board.add_plain(&self.name("cpu_s_per_gb_put_64k"), "s/GB", cpu);
            board.add_plain(&self.name("waits_per_put_64k"), "", small.waits());
            found.extend([("put_64k_inflight_16", rate), ("cpu_s_per_gb_put_64k", cpu)]);
        }
        if self.only.contains(&Part::PutReal) || self.only.contains(&Part::Get) {
            let real = self.put(&self.real, LARGE_BYTES, 8).await?;
            let (rate, ceiling) = (real.closed.megabytes_per_second(), Some(ceilings.put_large));
            board.add(&self.name("put_real_inflight_8"), "MB/s", rate, &real.open.latency, ceiling, beside);
            found.push(("put_real_inflight_8", rate));
        }
        Ok(found)
    }

    async fn gets(&self, board: &mut Board, ceilings: &Ceilings, salt: u64) -> anyhow::Result<Found> {
        let beside = "raw drive";
        let shelf = Rc::new(Shelf::new(self.there(&self.large).await?, 0.0));
        let whole = self.get(&shelf, None, 8, salt).await?;
        let (rate, cpu) = (whole.closed.megabytes_per_second(), whole.cpu_s_per_gb());
        let ceiling = Some(ceilings.get_large);
        board.add(&self.name("get_cold_4m_inflight_8"), "MB/s", rate, &whole.open.latency, ceiling, beside);
        board.add_plain(&self.name("cpu_s_per_gb_get"), "s/GB", cpu);
        let ranges = self.get(&shelf, Some(RANGE_BYTES as u64), 32, salt).await?;
        let range_rate = ranges.closed.per_second();
        let ceiling = Some(ceilings.range);
        board.add(&self.name("range_cold_64k_inflight_32"), "1/s", range_rate, &ranges.open.latency, ceiling, beside);
        board.add_plain(&self.name("waits_per_range_64k"), "", ranges.waits());
        // Alone, so that it is the way that is measured and not a queue.
        let alone = self.get_paced(&shelf, Some(RANGE_BYTES as u64), 1, salt, Pace::Closed).await?.0;
        let first = at(&alone.first, 0.5);
        board.add(
            &self.name("first_byte_cold_range"),
            "us",
            first,
            &alone.first,
            Some(ceilings.range_alone),
            "raw drive",
        );
        board.add_plain(&self.name("first_byte_over_drive"), "us", first - ceilings.range_alone);
        let real = Rc::new(Shelf::new(self.there(&self.real).await?, SERVERS_ZIPF));
        let zipf = self.get(&real, None, 8, salt).await?;
        let zipf_rate = zipf.closed.megabytes_per_second();
        let ceiling = Some(ceilings.get_large);
        board.add(&self.name("get_real_zipf_inflight_8"), "MB/s", zipf_rate, &zipf.open.latency, ceiling, beside);
        Ok(vec![
            ("get_cold_4m_inflight_8", rate),
            ("cpu_s_per_gb_get", cpu),
            ("range_cold_64k_inflight_32", range_rate),
            ("first_byte_cold_range", first),
            ("get_real_zipf_inflight_8", zipf_rate),
        ])
    }

    /// Puts tracks of some size, all of them new.
    pub(super) async fn put(&self, stock: &Stock, bytes: usize, in_flight: usize) -> anyhow::Result<Measured> {
        let count = (self.bytes_max / bytes as u64).max(in_flight as u64);
        let limits = Limits { in_flight, time: self.time, count };
        let before = self.masters.spent()?;
        let closed = self.put_paced(stock, 0, limits, Pace::Closed).await?;
        let spent = self.masters.spent()?.since(before);
        let open = Pace::Open(closed.per_second() * OPEN_SHARE);
        let open = self.put_paced(stock, closed.count, limits, open).await?;
        Ok(Measured { closed, spent, open })
    }

    /// Ends when the third copies are made, too: they cost what the others do.
    async fn put_paced(&self, stock: &Stock, first: u64, limits: Limits, pace: Pace) -> anyhow::Result<Took> {
        let (client, stock) = (self.masters.client.clone(), stock.clone());
        let started = Instant::now();
        let job = move |number| {
            let (client, item) = (client.clone(), stock.item(first + number));
            async move { put_one(&client, &item).await }
        };
        let mut took = load(pace, limits, job).await?;
        self.masters.client.drained().await;
        took.time = started.elapsed();
        Ok(took)
    }

    /// The tracks of a stock that the masters have: those that this round put.
    pub(super) async fn there(&self, stock: &Stock) -> anyhow::Result<Vec<(TrackId, u64)>> {
        let mut there = Vec::new();
        for item in (0..).map(|number| stock.item(number)) {
            match self.masters.client.presence(item.id).await? {
                deadwax_dht_client::Presence::Present { bytes } => there.push((item.id, bytes)),
                _ => break,
            }
        }
        ensure!(!there.is_empty(), "nothing was put");
        Ok(there)
    }

    /// Reads whole tracks of the shelf, or ranges of so many bytes.
    async fn get(
        &self,
        shelf: &Rc<Shelf>,
        range: Option<u64>,
        in_flight: usize,
        salt: u64,
    ) -> anyhow::Result<Measured> {
        let (closed, spent) = self.get_paced(shelf, range, in_flight, salt, Pace::Closed).await?;
        let open = Pace::Open(closed.per_second() * OPEN_SHARE);
        let (open, _) = self.get_paced(shelf, range, in_flight, !salt, open).await?;
        Ok(Measured { closed, spent, open })
    }

    pub(super) async fn get_paced(
        &self,
        shelf: &Rc<Shelf>,
        range: Option<u64>,
        in_flight: usize,
        salt: u64,
        pace: Pace,
    ) -> anyhow::Result<(Took, Spent)> {
        let (client, shelf) = (self.masters.client.clone(), Rc::clone(shelf));
        let job = move |number: u64| {
            let mut random = Random::new(salt ^ number << 32);
            let (id, bytes) = shelf.choose(&mut random);
            let length = range.unwrap_or(bytes).min(bytes);
            let start = random.below(bytes - length + 1);
            let client = client.clone();
            async move { get_one(&client, id, start, length).await }
        };
        let before = self.masters.spent()?;
        let took = load(pace, Limits { in_flight, time: self.time, count: u64::MAX }, job).await?;
        Ok((took, self.masters.spent()?.since(before)))
    }
}

impl Measured {
    /// Core-seconds of all processes for 10^9 bytes of tracks.
    #[expect(clippy::cast_precision_loss, reason = "a rate, printed to three digits")]
    fn cpu_s_per_gb(&self) -> f64 {
        self.spent.cpu_s / (self.closed.bytes as f64 / 1e9)
    }

    /// How often threads of all processes waited, a request.
    #[expect(clippy::cast_precision_loss, reason = "a rate, printed to three digits")]
    fn waits(&self) -> f64 {
        self.spent.waits / self.closed.count as f64
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds, far below 2^52")]
pub(super) fn at(latency: &Histogram<u64>, quantile: f64) -> f64 {
    latency.value_at_quantile(quantile) as f64
}

async fn put_one(client: &Client, item: &Item) -> anyhow::Result<Answered> {
    // As the gateway does.
    if item.bytes() <= AT_ONCE_BYTES_MAX as u64 {
        let (stored, already) = client.put_at_once(item.id, item.whole(), &Tags::default()).await?;
        ensure!(!already, "a track that is new is there already");
        return Ok(Answered { bytes: stored.bytes, first_at: None });
    }
    let Put::Writer(mut writer) = client.put(item.id, item.bytes(), &Tags::default()).await? else {
        anyhow::bail!("a track that is new is there already");
    };
    for part in &item.parts {
        writer.write(part.clone()).await?;
    }
    Ok(Answered { bytes: writer.finish().await?.bytes, first_at: None })
}

async fn get_one(client: &Client, id: TrackId, start: u64, length: u64) -> anyhow::Result<Answered> {
    let range = ByteRange::new(start, start + length).context("a range of no bytes")?;
    let mut stream = client.get(id, range).await?;
    let (mut bytes, mut first_at) = (0, None);
    while let Some(part) = stream.next().await {
        bytes += part?.len() as u64;
        first_at.get_or_insert_with(Instant::now);
    }
    ensure!(bytes == length, "{bytes} bytes came of {length}");
    Ok(Answered { bytes, first_at })
}
