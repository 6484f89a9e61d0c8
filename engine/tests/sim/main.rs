//! The engine on simulated drives that fail in every way, and the simulated drive beside the real one.

mod conformance;
mod drive;
mod exhaustive;
mod faults;
mod memory;
mod model;
mod oracle;
mod traces;
mod world;

use std::path::Path;

use deadwax_engine::sim::{Dice, SimDisk, SimHost, SimSettings};
use deadwax_engine::{Error, Stored, Volume, VolumeConfig, VolumeId, VolumeIdentity};
use deadwax_track::{KIB, Tags, TrackId};

const IDENTITY: VolumeIdentity = VolumeIdentity { volume: VolumeId([7; 16]), node: [9; 32] };
/// Where the simulated volumes are.
const DIRECTORY: &str = "/volume";

/// A drive with an empty volume.
fn formatted(settings: SimSettings) -> SimDisk {
    let mut disk = SimDisk::new(settings);
    disk.format_volume(Path::new(DIRECTORY), &IDENTITY);
    disk
}

/// Small segments, and a small reserve.
fn config(segment_bytes: u64) -> VolumeConfig {
    VolumeConfig { segment_bytes, reserve_bytes: 512 * KIB, health: None, ..VolumeConfig::new(DIRECTORY, IDENTITY) }
}

/// Bytes that differ with the seed and do not repeat.
fn audio(seed: u64, bytes: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let mut out = Vec::with_capacity(usize::try_from(bytes).expect("fits") + 8);
    while (out.len() as u64) < bytes {
        out.extend(dice.number().to_le_bytes());
    }
    out.truncate(usize::try_from(bytes).expect("fits"));
    out
}

fn tags() -> Tags {
    Tags::new([("title".to_owned(), "Run-out groove".to_owned())]).expect("within limits")
}

async fn put(volume: &Volume<SimHost>, bytes: &[u8]) -> Result<Stored, Error> {
    let mut writer = volume.put(TrackId::of(bytes), bytes.len() as u64, &tags()).await?;
    for chunk in bytes.chunks(100_000) {
        writer.write(chunk).await?;
    }
    writer.finish().await
}
