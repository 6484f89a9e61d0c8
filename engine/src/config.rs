//! Settings of a volume handle, and the budgets of what may be in flight.

use std::path::PathBuf;

use deadwax_track::{KIB, MIB};

use crate::error::Error;
use crate::format::BLOCK_BYTES;
use crate::health::HealthLimits;
use crate::identity::VolumeIdentity;

/// How a volume is opened. Plain values; checked by [`Volume::open`](crate::Volume::open).
#[derive(Clone, Debug)]
pub struct VolumeConfig {
    /// The volume's directory.
    pub dir: PathBuf,
    /// Whose volume it must be; another one is refused.
    pub expected: VolumeIdentity,
    /// The size of a new segment's file. Default 1 GiB. Smaller ones cost more files, larger ones a longer scan of the
    /// open segment at start. Segments that exist keep their size. A track that is larger gets a segment of its own.
    pub segment_bytes: u64,
    /// Space that puts leave free, so that takedowns still work on a full drive. Default 64 MiB for the volume.
    pub reserve_bytes: u64,
    /// The most bytes that segments may take on the drive, for the whole volume. Default none: the file system decides.
    pub capacity_bytes_max: Option<u64>,
    /// Which of [`shards`](Self::shards) handles this one is, from 0.
    pub shard: usize,
    /// How many handles (executors) the volume is split over. May change from one start to the next.
    pub shards: usize,
    /// How many bytes of memory may puts take that are begun and not yet finished, before further ones are answered Busy?
    /// Default 96 MiB; at least 2 MiB. A put of a large track takes some 1.5 MiB, one of 64 KiB some 200 KiB.
    pub put_bytes_max: u64,
    /// How many bytes may be on their way to the drive before puts wait? Default 32 MiB; at least 1 MiB.
    pub write_bytes_max: u64,
    /// How many bytes of memory may readers take before further ones are answered Busy? Default 64 MiB; at least 4 MiB. A reader
    /// of a range takes as much as one device read fetches, one of more twice that, 2 MiB; of a compressed track, twice as much
    /// again. Half of it at most serves to read ahead.
    pub read_bytes_max: u64,
    /// How many bytes a second the handle reads to check all that is stored, over and over, when nothing more urgent is to be
    /// done. Default 0: only [`Volume::scrub_pass`](crate::Volume::scrub_pass) checks. At 4 MiB/s a drive of 10 TiB takes a month.
    pub scrub_bytes_per_second: u64,
    /// When the drive is given up. None: never on the engine's own account, for hosts whose time does not pass.
    pub health: Option<HealthLimits>,
}

impl VolumeConfig {
    /// The default settings for the volume in `dir`, unsharded.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, expected: VolumeIdentity) -> Self {
        Self {
            dir: dir.into(),
            expected,
            segment_bytes: 1024 * MIB,
            reserve_bytes: 64 * MIB,
            capacity_bytes_max: None,
            shard: 0,
            shards: 1,
            put_bytes_max: 96 * MIB,
            write_bytes_max: 32 * MIB,
            read_bytes_max: 64 * MIB,
            scrub_bytes_per_second: 0,
            health: Some(HealthLimits::default()),
        }
    }

    pub(crate) fn validated(mut self) -> Result<Self, Error> {
        if self.shards == 0 || self.shard >= self.shards || self.shards > SHARDS_MAX {
            let (shard, shards) = (self.shard, self.shards);
            return Err(Error::Invalid(format!("shard {shard} of {shards}: must be below it, at most {SHARDS_MAX}")));
        }
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return Err(Error::Invalid(format!(
                "segment_bytes must be {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}, not {}",
                self.segment_bytes
            )));
        }
        for (name, bytes, least) in [
            ("put_bytes_max", self.put_bytes_max, PUT_BYTES_LEAST),
            ("write_bytes_max", self.write_bytes_max, WRITE_BYTES),
            ("read_bytes_max", self.read_bytes_max, READ_BYTES_LEAST),
        ] {
            if bytes < least {
                return Err(Error::Invalid(format!("{name} must be at least {least}, not {bytes}")));
            }
        }
        self.segment_bytes = self.segment_bytes.next_multiple_of(BLOCK_BYTES);
        Ok(self)
    }

    /// The most memory that the handle takes for what is under way, whatever is asked of it: the budgets above, and what look-ups,
    /// compaction, scrub and a start take. The index comes on top ([`Volume::index_bytes`](crate::Volume::index_bytes)), and
    /// some 2 KiB a segment. As much drive memory (`io_memory`) makes all of it fast.
    #[must_use]
    pub fn memory_bytes_max(&self) -> u64 {
        self.put_bytes_max + self.write_bytes_max + self.read_bytes_max + LOOKUP_BYTES_MAX + UPKEEP_BYTES_MAX
    }

    /// This handle's share of a figure that is set for the whole volume.
    pub(crate) fn share(&self, of_volume: u64) -> u64 {
        of_volume / self.shards as u64
    }
}

/// How many handles may a volume be split over? More than any machine has cores.
const SHARDS_MAX: usize = 4096;
/// How small may a segment be? A few small records and the takedown stretch must fit.
const SEGMENT_BYTES_MIN: u64 = 256 * KIB;
/// How large may a segment be? Bounds the offsets within one.
const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * MIB;
/// How much of a put is gathered before it is written? As large as one frame group, the drive's best write size.
pub(crate) const WRITE_BYTES: u64 = MIB;
/// What does a put take beside its buffer, its header, and the pieces that it compresses? Its hashes' state, a task.
pub(crate) const PUT_STATE_BYTES: u64 = 8 * KIB;
/// What may the largest put take? A buffer, the header of the largest track, a piece before and after it is compressed.
pub(crate) const PUT_BYTES_LEAST: u64 = 2 * MIB;
/// What may the hungriest reader take? Two device reads, and the pieces that were compressed in them.
pub(crate) const READ_BYTES_LEAST: u64 = 4 * READ_BYTES_MAX;
/// How many bytes of headers may be read at once? Look-ups wait for each other beyond that.
pub(crate) const LOOKUP_BYTES_MAX: u64 = 8 * MIB;
/// What do compaction, scrub, listings and a start take at most, all together? Each a few buffers of a device read.
pub(crate) const UPKEEP_BYTES_MAX: u64 = 16 * MIB;
/// How many writes may one put have at the drive before it waits?
pub(crate) const WRITES_PER_PUT_MAX: usize = 6;
/// How long must a track be for its bytes to be compressed? Of less, hardly a block or two would be saved, for a second write.
pub(crate) const COMPRESSED_TRACK_BYTES_MIN: u64 = 64 * KIB;
/// How much does one device read fetch?
pub(crate) const READ_BYTES_MAX: u64 = MIB;
/// How many reads may one reader have at the drive?
pub(crate) const READ_AHEAD_MAX: usize = 4;
/// How many bytes may a put hash and copy before it lets others run?
pub(crate) const WORK_BYTES_MAX: usize = 256 * 1024;
/// How much of each segment is kept for takedowns when puts have filled the rest?
pub(crate) const TAKEDOWN_STRETCH_BYTES: u64 = 64 * KIB;
/// How large is a segment that is made of the reserve, for takedowns alone?
pub(crate) const RESERVE_SEGMENT_BYTES: u64 = 256 * KIB;

/// How many records may be put before the next snapshot? With the next figure it bounds what a start after a crash walks.
pub(crate) const SNAPSHOT_RECORDS: u64 = 4096;
/// How many bytes? A snapshot costs some 100 KiB and two flushes.
pub(crate) const SNAPSHOT_BYTES: u64 = 256 * MIB;
/// How many segments' headers and footers does a start read at once?
pub(crate) const LOADS_AHEAD_MAX: usize = 16;
/// How much of a sealed segment may be left for it to count as hollow? Moving that much for each segment that is freed keeps
/// lifetime write amplification within 1.05.
pub(crate) const COMPACT_LIVE_PERCENT: u64 = 3;
