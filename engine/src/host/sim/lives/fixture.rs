//! The volume that is tested, and what is put into it.

use std::path::Path;

use deadwax_track::{KIB, Tags, TrackId};

use crate::sim::{Dice, SimDisk, SimHost, SimSettings};
use crate::{Error, Stored, Volume, VolumeConfig, VolumeId, VolumeIdentity};

const IDENTITY: VolumeIdentity = VolumeIdentity { volume: VolumeId([7; 16]), node: [9; 32] };
/// Where the simulated volumes are.
pub const DIRECTORY: &str = "/volume";

/// A drive with an empty volume.
#[must_use]
pub fn formatted(settings: SimSettings) -> SimDisk {
    let mut disk = SimDisk::new(settings);
    disk.format_volume(Path::new(DIRECTORY), &IDENTITY);
    disk
}

/// Of that volume, with a small reserve. Segments are to be small, too, so that a short life fills several.
#[must_use]
pub fn config(segment_bytes: u64) -> VolumeConfig {
    VolumeConfig { segment_bytes, reserve_bytes: 512 * KIB, health: None, ..VolumeConfig::new(DIRECTORY, IDENTITY) }
}

/// Bytes that differ with the seed and do not repeat.
#[must_use]
pub fn audio(seed: u64, bytes: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let mut out = Vec::with_capacity(usize::try_from(bytes).expect("fits") + 8);
    while (out.len() as u64) < bytes {
        out.extend(dice.number().to_le_bytes());
    }
    out.truncate(usize::try_from(bytes).expect("fits"));
    out
}

/// The tags of every track.
#[must_use]
pub fn tags() -> Tags {
    Tags::new([("title".to_owned(), "Run-out groove".to_owned())]).expect("within limits")
}

/// Puts a track in several writes. It is durable on return; errors are those of the [`PutWriter`](crate::PutWriter).
pub async fn put(volume: &Volume<SimHost>, bytes: &[u8]) -> Result<Stored, Error> {
    let mut writer = volume.put(TrackId::of(bytes), bytes.len() as u64, &tags()).await?;
    for chunk in bytes.chunks(100_000) {
        writer.write(chunk).await?;
    }
    writer.finish().await
}
