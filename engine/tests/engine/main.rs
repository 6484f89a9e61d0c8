//! The engine on real files, through glommio.

mod compression;
mod faults;
mod health;
mod host;
mod limits;
mod missing;
mod model;
mod offline;
mod put_get;
mod recovery;
mod scrub;
mod shards;
mod takedown;

use std::future::Future;
use std::path::Path;

use deadwax_engine::{
    Error, GlommioHost, Host, Recovery, Stored, Volume, VolumeConfig, VolumeId, VolumeIdentity, format_volume,
};
use deadwax_track::{ByteRange, MIB, Tags, TrackId};
use glommio::{LocalExecutorBuilder, Placement};
use tempfile::TempDir;

const IDENTITY: VolumeIdentity = VolumeIdentity { volume: VolumeId([7; 16]), node: [9; 32] };

/// Runs on an executor of its own.
fn run<T>(test: impl Future<Output = T>) -> T {
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 20);
    builder.make().expect("io_uring works here").run(test)
}

/// A formatted volume on the drive that holds the build, in small segments.
fn volume_dir() -> (TempDir, VolumeConfig) {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    format_volume(dir.path(), &IDENTITY).expect("formats");
    let config = VolumeConfig { segment_bytes: 16 * MIB, ..VolumeConfig::new(dir.path(), IDENTITY) };
    (dir, config)
}

async fn open(config: &VolumeConfig) -> (Volume<GlommioHost>, Recovery) {
    Volume::open(GlommioHost::new(), config.clone()).await.expect("opens")
}

/// Bytes that differ with the seed and do not repeat.
fn audio(seed: u64, bytes: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::new();
    while (out.len() as u64) < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_le_bytes());
    }
    out.truncate(usize::try_from(bytes).expect("fits"));
    out
}

fn tags(title: &str) -> Tags {
    Tags::new([("title".to_owned(), title.to_owned())]).expect("within limits")
}

async fn put<H: Host>(volume: &Volume<H>, bytes: &[u8]) -> Result<Stored, Error> {
    let mut writer = volume.put(TrackId::of(bytes), bytes.len() as u64, &tags("x")).await?;
    for chunk in bytes.chunks(100_000) {
        writer.write(chunk).await?;
    }
    writer.finish().await
}

async fn get_range<H: Host>(volume: &Volume<H>, id: &TrackId, start: u64, end: u64) -> Result<Vec<u8>, Error> {
    let mut reader = volume.read(id, ByteRange::new(start, end)).await?;
    let mut out = Vec::new();
    while let Some(block) = reader.next().await {
        let block = block?;
        let before = out.len();
        block.payloads().for_each(|payload| out.extend_from_slice(payload));
        assert_eq!(out.len() - before, block.len());
    }
    Ok(out)
}

/// Reads a whole track and compares it.
async fn assert_whole<H: Host>(volume: &Volume<H>, bytes: &[u8]) {
    let got = get_range(volume, &TrackId::of(bytes), 0, bytes.len() as u64).await.expect("reads");
    assert!(got == bytes, "a track of {} bytes differs", bytes.len());
}

fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> =
        std::fs::read_dir(dir.join("segments")).expect("lists").map(|entry| entry.expect("lists").path()).collect();
    paths.sort();
    paths
}

/// Where `needle` starts in the file.
fn find(path: &Path, needle: &[u8]) -> Option<u64> {
    let bytes = std::fs::read(path).expect("reads");
    bytes.chunks(4096).position(|block| block.starts_with(needle)).map(|block| block as u64 * 4096)
}

/// Overwrites bytes of a file, as a failing drive does.
fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(path).expect("opens");
    file.write_all_at(bytes, offset).expect("writes");
    file.sync_all().expect("syncs");
}
