//! The volume that is tested, and what is put into it.

use std::path::Path;

use deadwax_track::{KIB, PIECE_BYTES, Tags, TrackId};

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

/// Bytes that differ with the seed and are stored compressed from 64 KiB on: a sound on two channels; bytes of few kinds, for
/// which no filter is needed; and either of them with stretches of noise between, of which whole pieces do not shrink.
#[must_use]
pub fn compressible(seed: u64, bytes: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let (sound, broken) = (dice.roll(3) > 0, dice.roll(3) == 0);
    // The sample before, and how far it was from the one before that, of either channel.
    let mut channels = [(0_i16, 0_i16); 2];
    let mut out = Vec::with_capacity(usize::try_from(bytes).expect("fits") + 8);
    while (out.len() as u64) < bytes {
        let draw = dice.number();
        // The first piece decides whether the track is compressed.
        if broken && (out.len() as u64 / PIECE_BYTES) % 2 == 1 {
            out.extend(draw.to_le_bytes());
        } else if sound {
            for (index, byte) in draw.to_le_bytes().into_iter().take(4).enumerate() {
                let (sample, slope) = &mut channels[index % 2];
                *slope = slope.wrapping_add(i16::from(byte % 32) - 16);
                *sample = sample.wrapping_add(*slope);
                out.extend(sample.to_le_bytes());
            }
        } else {
            out.extend(draw.to_le_bytes().map(|byte| byte % 32));
        }
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

#[cfg(test)]
mod tests {
    use super::{KIB, SimSettings, compressible, config, formatted, put};
    use crate::Volume;
    use crate::sim::Life;

    #[test]
    fn compressible_tracks_are_stored_compressed() {
        for (seed, bytes) in (0..24).flat_map(|seed| [64, 300, 700].map(|kib| (seed, kib * KIB))) {
            let mut disk = formatted(SimSettings::new(seed));
            let life = disk.run(|host| async move {
                let (volume, _) = Volume::open(host, config(2048 * KIB)).await.expect("opens");
                put(&volume, &compressible(seed, bytes)).await.expect("stores");
                volume.usage()
            });
            let Life::Ended(usage) = life else { panic!("{life:?}") };
            assert!(usage.record_bytes < usage.track_bytes * 95 / 100, "seed {seed}: {usage:?}");
        }
    }
}
