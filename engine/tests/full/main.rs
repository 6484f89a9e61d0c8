//! Drives that are full to the last block, and processes that may not write: puts are refused and say why, nothing of
//! them is left, and everything else goes on.

#[path = "../kill/drive.rs"]
mod drive;
mod limit;

use std::path::Path;

use deadwax_engine::{
    Error, ErrorKind, GlommioHost, Recovery, Stored, Volume, VolumeConfig, VolumeId, VolumeIdentity, VolumeState,
    format_volume,
};
use deadwax_track::{ByteRange, KIB, MIB, Tags, TrackId};
use glommio::{LocalExecutorBuilder, Placement};

use crate::drive::{FileSystem, LoopDrive};

const IDENTITY: VolumeIdentity = VolumeIdentity { volume: VolumeId([7; 16]), node: [9; 32] };
/// What the volumes here leave free for takedowns.
const RESERVE_BYTES: u64 = 2 * MIB;
const FILE_SYSTEMS: [FileSystem; 2] = [FileSystem::Ext4, FileSystem::Xfs];

fn run<T>(test: impl Future<Output = T>) -> T {
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 20);
    builder.make().expect("io_uring works here").run(test)
}

/// A volume in a new directory of `drive`.
fn volume_on(drive: &LoopDrive, name: &str) -> VolumeConfig {
    let dir = drive.path().join(name);
    format_volume(&dir, &IDENTITY).expect("formats");
    config(&dir)
}

fn config(dir: &Path) -> VolumeConfig {
    VolumeConfig { segment_bytes: 8 * MIB, reserve_bytes: RESERVE_BYTES, ..VolumeConfig::new(dir, IDENTITY) }
}

async fn open(config: &VolumeConfig) -> (Volume<GlommioHost>, Recovery) {
    Volume::open(GlommioHost::new(), config.clone()).await.expect("opens")
}

/// Bytes that differ with the seed and do not repeat.
fn audio(seed: u64, bytes: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = vec![0; usize::try_from(bytes).expect("addresses are 64 bits")];
    for chunk in out.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    out
}

async fn put(volume: &Volume<GlommioHost>, bytes: &[u8]) -> Result<Stored, Error> {
    let mut writer = volume.put(TrackId::of(bytes), bytes.len() as u64, &Tags::default()).await?;
    for chunk in bytes.chunks(100_000) {
        writer.write(chunk).await?;
    }
    writer.finish().await
}

async fn read(volume: &Volume<GlommioHost>, track: &[u8]) -> Result<Vec<u8>, Error> {
    let whole = ByteRange::new(0, track.len() as u64).expect("a range");
    let mut reader = volume.read(&TrackId::of(track), Some(whole)).await?;
    let mut out = Vec::new();
    while let Some(block) = reader.next().await {
        block?.payloads().for_each(|payload| out.extend_from_slice(payload));
    }
    Ok(out)
}

async fn assert_whole(volume: &Volume<GlommioHost>, track: &[u8]) {
    assert!(read(volume, track).await.expect("reads") == track, "a track of {} bytes differs", track.len());
}

async fn assert_absent(volume: &Volume<GlommioHost>, track: &[u8]) {
    assert_eq!(read(volume, track).await.expect_err("absent").kind(), ErrorKind::NotFound);
}

/// Tracks of a volume, in the order of their puts.
#[derive(Default)]
struct Shelf {
    stored: Vec<Vec<u8>>,
    next_seed: u64,
}

impl Shelf {
    /// Another track, not yet put.
    fn new_track(&mut self, bytes: u64) -> Vec<u8> {
        self.next_seed += 1;
        audio(self.next_seed, bytes)
    }

    /// Puts another track. One that is refused leaves nothing.
    async fn put(&mut self, volume: &Volume<GlommioHost>, bytes: u64) -> Result<(), Error> {
        let track = self.new_track(bytes);
        match put(volume, &track).await {
            Ok(_) => self.stored.push(track),
            Err(error) => {
                assert_absent(volume, &track).await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Puts tracks of `bytes` until one is refused, and answers how.
    async fn fill(&mut self, volume: &Volume<GlommioHost>, bytes: u64) -> Error {
        loop {
            if let Err(error) = self.put(volume, bytes).await {
                return error;
            }
        }
    }

    async fn take_down(&mut self, volume: &Volume<GlommioHost>, index: usize) -> u64 {
        let track = self.stored.swap_remove(index);
        volume.take_down(&TrackId::of(&track), 1).await.expect("takes down on a full drive");
        track.len() as u64
    }

    async fn assert_whole(&self, volume: &Volume<GlommioHost>) {
        for track in &self.stored {
            assert_whole(volume, track).await;
        }
    }
}

/// Takes every byte that the file system still gives, as somebody else's file does.
fn hog(drive: &LoopDrive) -> std::path::PathBuf {
    use std::io::Write as _;
    let path = drive.path().join("hog");
    let mut file = std::fs::File::create(&path).expect("creates");
    for size in [MIB, 64 * KIB, 4 * KIB] {
        let zeros = audio(7, size);
        // Written and flushed, so that it is the drive that is full, not the promise of a page in memory.
        while file.write_all(&zeros).and_then(|()| file.sync_data()).is_ok() {}
    }
    path
}

#[test]
fn a_full_drive_refuses_puts_of_every_size_and_reads_and_takes_down() {
    for file_system in FILE_SYSTEMS {
        let Some(drive) = LoopDrive::mount_or_skip(file_system, "filling up") else { continue };
        let config = volume_on(&drive, "volume");
        run(async {
            let (volume, _) = open(&config).await;
            let mut shelf = Shelf::default();
            for bytes in [200 * KIB, 20 * KIB, 1] {
                let full = shelf.fill(&volume, bytes).await;
                assert_eq!(full.kind(), ErrorKind::NoSpace, "{full}");
                let message = full.to_string();
                assert!(message.starts_with("no space left on the volume for "), "{message}");
            }
            let usage = volume.usage();
            println!("{file_system:?}: {} tracks, {usage:?}", shelf.stored.len());
            assert_eq!(usage.state, VolumeState::Open);
            assert!(usage.free_bytes < 256 * KIB, "{usage:?}");
            let stored: usize = shelf.stored.iter().map(Vec::len).sum();
            assert!(stored as u64 >= usage.capacity_bytes * 85 / 100, "{stored} bytes of tracks: {usage:?}");
            shelf.assert_whole(&volume).await;
            // Of ids that are not here too: each needs a record, none frees anything.
            for stranger in 0..200_u64 {
                volume.take_down(&TrackId::of(&stranger.to_le_bytes()), stranger).await.expect("the reserve serves it");
            }
            for _ in 0..20 {
                shelf.take_down(&volume, 0).await;
            }
            shelf.assert_whole(&volume).await;
            volume.close().await;
            let (volume, recovery) = open(&config).await;
            assert_eq!((recovery.tracks, recovery.takedowns, recovery.damaged), (shelf.stored.len() as u64, 220, 0));
            shelf.assert_whole(&volume).await;
        });
    }
}

#[test]
fn space_that_is_freed_on_a_full_drive_takes_the_next_put() {
    for file_system in FILE_SYSTEMS {
        let Some(drive) = LoopDrive::mount_or_skip(file_system, "freeing space") else { continue };
        let config = volume_on(&drive, "volume");
        run(async {
            let (volume, _) = open(&config).await;
            let mut shelf = Shelf::default();
            assert_eq!(shelf.fill(&volume, MIB).await.kind(), ErrorKind::NoSpace);
            let (mut freed, mut used) = (0, 0);
            for round in 0..30 {
                // With no wait in between: what is freed is there at once.
                freed += shelf.take_down(&volume, round * 7 % shelf.stored.len()).await;
                if let Err(error) = shelf.put(&volume, 700 * KIB).await {
                    panic!("{file_system:?}, round {round}: {error}; {:?}", volume.usage());
                }
                used += 700 * KIB;
            }
            println!("{file_system:?}: freed {freed}, used {used}, {:?}", volume.usage());
            shelf.assert_whole(&volume).await;
        });
    }
}

#[test]
fn a_drive_that_others_fill_refuses_puts_until_they_leave() {
    for file_system in FILE_SYSTEMS {
        let Some(drive) = LoopDrive::mount_or_skip(file_system, "filling up by others") else { continue };
        let config = volume_on(&drive, "volume");
        run(async {
            let (volume, _) = open(&config).await;
            let mut shelf = Shelf::default();
            shelf.put(&volume, 3 * MIB).await.expect("puts");
            // Half of it is in when the drive runs full: its space was reserved.
            let half = shelf.new_track(3 * MIB);
            let mut writer = volume.put(TrackId::of(&half), 3 * MIB, &Tags::default()).await.expect("begins");
            writer.write(&half[..1_500_000]).await.expect("takes");
            let hog = hog(&drive);
            writer.write(&half[1_500_000..]).await.expect("takes");
            writer.finish().await.expect("stores");
            shelf.stored.push(half);
            // The segment's rest, and then nothing more.
            let full = shelf.fill(&volume, MIB).await;
            assert_eq!(full.kind(), ErrorKind::NoSpace, "{full}");
            assert_eq!(volume.usage().state, VolumeState::Open);
            shelf.assert_whole(&volume).await;
            shelf.take_down(&volume, 0).await;
            volume.close().await;
            // It opens where no block is free.
            let (volume, recovery) = open(&config).await;
            assert_eq!((recovery.tracks, recovery.takedowns, recovery.damaged), (shelf.stored.len() as u64, 1, 0));
            shelf.assert_whole(&volume).await;
            shelf.take_down(&volume, 0).await;
            // Emptied first: XFS gives a removed file's space back some time later.
            std::fs::File::create(&hog).and_then(|_| std::fs::remove_file(&hog)).expect("removes");
            for _ in 0..5 {
                shelf.put(&volume, 3 * MIB).await.expect("there is room, without reopening");
            }
            volume.close().await;
            let (volume, recovery) = open(&config).await;
            assert_eq!((recovery.tracks, recovery.damaged), (shelf.stored.len() as u64, 0));
            shelf.assert_whole(&volume).await;
        });
    }
}
