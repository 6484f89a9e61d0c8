//! Opening a volume: whose it is, that nobody else has it, and then what is in it.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::config::{LOADS_AHEAD_MAX, VolumeConfig};
use crate::error::Error;
use crate::format::{BLOCK, BLOCK_BYTES};
use crate::guard::Guarded;
use crate::host::{Access, File as _, Host, LockError};
use crate::identity::{SUPERBLOCK_FILE, parse};
use crate::recovery::Opening;
use crate::volume::Volume;

/// How long may somebody else hold the volume? A process that ends, or that was just forked and has not yet become another program,
/// lets go of it in a moment; so does an attempt to open it that was given up.
const LAST_BREATH_MAX: Duration = Duration::from_secs(1);
pub(crate) const LOCK_POLL: Duration = Duration::from_millis(2);

/// What opening a volume handle found and did.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Recovery {
    /// Tracks of this handle.
    pub tracks: u64,
    /// Ids of this handle that were taken down.
    pub takedowns: u64,
    /// Segments looked into.
    pub segments: u64,
    /// Of these, how many were taken from their footers.
    pub sealed: u64,
    /// Bytes of segments that were walked, because neither footer nor snapshot covers them.
    pub bytes_walked: u64,
    /// Bytes read from the drive.
    pub bytes_read: u64,
    /// Records that were cut: their header was written, and not all of their frames. None of them was acknowledged.
    pub torn: u64,
    /// Headers with a wrong checksum, blocks that could not be read, and records kept though the drive did not give all of
    /// their frames; each was logged. Tracks may be missing.
    pub damaged: u64,
    /// How long it took.
    pub seconds: f64,
}

impl<H: Host> Volume<H> {
    /// Opens the volume. Everything that was acknowledged is there on return, and durable.
    ///
    /// Errors: Invalid (no volume, or bad settings), Foreign, Locked, Unsupported (written by a newer version), Corrupt, Io.
    pub async fn open(host: H, config: VolumeConfig) -> Result<(Self, Recovery), Error> {
        let config = config.validated()?;
        let started = host.now();
        check_file_limit(&host, &config.dir, config.segment_bytes)?;
        let host = Guarded::new(host, &config);
        let lock = check_identity(&host, &config).await?;
        let mut opening = Opening::new(host.clone(), host.guard().clone(), config).await?;
        let mut numbers = opening.list().await?.into_iter();
        opening.number_max = numbers.as_slice().last().copied();
        let mut ahead = VecDeque::new();
        loop {
            while ahead.len() < LOADS_AHEAD_MAX
                && let Some(number) = numbers.next()
            {
                ahead.push_back(opening.load_ahead(number));
            }
            let Some(loading) = ahead.pop_front() else { break };
            if let Some(loaded) = loading.take().await? {
                opening.take_in(loaded).await?;
            }
        }
        opening.remove_stale().await?;
        let mut recovery = opening.recovery;
        let volume = Self { inner: opening.finish(lock).await };
        let inner = &volume.inner;
        let counts = inner.index.borrow().counts();
        recovery.tracks = counts.tracks;
        recovery.takedowns = counts.takedowns;
        recovery.seconds = host.now().saturating_sub(started).as_secs_f64();
        tracing::info!(dir = %inner.config.dir.display(), ?recovery, "volume opened");
        Ok((volume, recovery))
    }
}

/// Reads the superblock, compares it with what is expected, and locks the volume.
async fn check_identity<H: Host>(host: &H, config: &VolumeConfig) -> Result<H::Lock, Error> {
    let path = config.dir.join(SUPERBLOCK_FILE);
    // The first file opened on a device must not be empty: see the glommio host.
    let file = host.open(&path, Access::Read).await.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            Error::Invalid(format!("{} is no volume: format it first, or mount its drive", config.dir.display()))
        }
        _ => Error::io("open", &path, source),
    })?;
    let bytes = file.bytes().await.map_err(|source| Error::io("measure", &path, source))?;
    if bytes != BLOCK_BYTES {
        let what = format!("it has {bytes} bytes, not {BLOCK_BYTES}");
        return Err(Error::CorruptFile { path, what });
    }
    let block = file.read_at(0, BLOCK).await.map_err(|source| Error::io("read", &path, source))?;
    let found = parse(&path, &block)?;
    let expected = config.expected;
    if found.node != expected.node {
        return Err(Error::Foreign { path, what: "the volume belongs to another node".to_owned() });
    }
    if found.volume != expected.volume {
        let what = format!("this is volume {}, not {}", found.volume, expected.volume);
        return Err(Error::Foreign { path, what });
    }
    let started = host.now();
    loop {
        let held = match host.lock(&path, config.shard, config.shards).await {
            Ok(lock) => return Ok(lock),
            Err(LockError::Io(source)) => return Err(Error::io("lock", &path, source)),
            Err(held) => held,
        };
        let patience = match held {
            LockError::Process | LockError::Handle(_) => LAST_BREATH_MAX,
            LockError::Io(_) => Duration::ZERO,
        };
        if host.now().saturating_sub(started) >= patience {
            return Err(Error::Locked { path: config.dir.clone(), what: held.to_string() });
        }
        host.sleep(LOCK_POLL).await;
    }
}

/// Refuses where the process may not write all of a segment: the system kills whoever tries (SIGXFSZ).
pub(crate) fn check_file_limit<H: Host>(host: &H, path: &Path, segment_bytes: u64) -> Result<(), Error> {
    match host.file_bytes_max() {
        Some(max) if max < segment_bytes => Err(Error::Invalid(format!(
            "{}: files of this process may have {max} bytes (ulimit -f, RLIMIT_FSIZE), a segment here has \
             {segment_bytes}: raise the limit",
            path.display()
        ))),
        _ => Ok(()),
    }
}
