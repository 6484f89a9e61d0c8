//! Every bit of a sealed segment, flipped: each is found.

use std::path::PathBuf;

use deadwax_engine::sim::lives::{audio, config, formatted, put};
use deadwax_engine::sim::{Life, SimDisk, SimSettings, segments_of};
use deadwax_engine::{Error, Presence, Volume};
use deadwax_track::{ByteRange, KIB, TrackId};

const DIRECTORY: &str = "/volume";
const BLOCK: u64 = 4096;
const THREADS: u64 = 2;

/// What the segment holds.
struct Sealed {
    disk: SimDisk,
    path: PathBuf,
    /// Of the blocks that are not holes.
    blocks: Vec<u64>,
    stored: Vec<Vec<u8>>,
    deleted: TrackId,
    barred: TrackId,
}

/// A small segment that was filled and sealed; most of it was deleted then.
fn sealed() -> Sealed {
    let mut disk = formatted(SimSettings::new(1));
    // Frames of one block and of two; and what fills the segment.
    let stored = vec![audio(1, 100), audio(2, 5000)];
    let filling: Vec<_> = (10..18).map(|seed| audio(seed, 40_000)).collect();
    let barred = TrackId::of(&audio(4, 10));
    let life = disk.run(|host| {
        let (stored, filling) = (stored.clone(), filling.clone());
        async move {
            let (volume, _) = Volume::open(host, config(256 * KIB)).await.expect("opens");
            for track in &stored {
                put(&volume, track).await.expect("puts");
            }
            volume.take_down(&barred, 7).await.expect("takes down");
            for track in &filling {
                put(&volume, track).await.expect("puts");
            }
            for track in &filling {
                volume.delete(&TrackId::of(track)).await.expect("deletes");
            }
            volume.close().await;
        }
    });
    assert!(matches!(life, Life::Ended(())), "{life:?}");
    let path = segments_of(DIRECTORY.as_ref()).join("0000000000.segment");
    let bytes = disk.bytes(&path).expect("is there");
    let blocks = (0..bytes.len() as u64 / BLOCK)
        .filter(|block| bytes[usize::try_from(block * BLOCK).expect("small")..][..4096].iter().any(|byte| *byte != 0))
        .collect();
    Sealed { disk, path, blocks, stored, deleted: TrackId::of(&filling[0]), barred }
}

/// Opens the volume and looks at all of it; a wrong byte, or anything else that is not so, is a panic. Answers whether damage was
/// found: an error, a count, or a footer that was not believed.
fn look(mut disk: SimDisk, sealed: &Sealed) -> bool {
    let (stored, deleted, barred) = (sealed.stored.clone(), sealed.deleted, sealed.barred);
    let life = disk.run(|host| async move {
        let (volume, recovery) = match Volume::open(host, config(256 * KIB)).await {
            Ok(opened) => opened,
            Err(_) => return true,
        };
        let mut found = recovery.damaged > 0 || recovery.sealed == 0;
        for track in &stored {
            let id = TrackId::of(track);
            match read(&volume, &id, track.len()).await {
                Ok(bytes) => assert!(bytes == *track, "wrong bytes of {}", track.len()),
                Err(Error::NotFound(_)) => assert!(found, "a track of {} is gone without a word", track.len()),
                Err(_) => found = true,
            }
        }
        match volume.presence(&barred).await {
            Ok(Presence::TakenDown { number: 7 }) => {}
            Ok(other) => assert!(found, "{other:?} of what was taken down"),
            Err(_) => found = true,
        }
        let gone = volume.presence(&deleted).await;
        assert!(matches!(gone, Ok(Presence::Absent)) || found, "{gone:?} of what was deleted");
        if !found {
            volume.scrub_pass(1 << 40).await.expect("scrubs");
            found = volume.damage_found().0 > 0 || volume.scrub_status().damaged > 0;
        }
        found
    });
    match life {
        Life::Ended(found) => found,
        life => panic!("{life:?}"),
    }
}

async fn read(volume: &Volume<deadwax_engine::sim::SimHost>, id: &TrackId, bytes: usize) -> Result<Vec<u8>, Error> {
    let mut reader = volume.read(id, ByteRange::whole(bytes as u64)).await?;
    let mut out = Vec::new();
    while let Some(block) = reader.next().await {
        block?.payloads().for_each(|payload| out.extend_from_slice(payload));
    }
    Ok(out)
}

/// Flips this thread's share of the bits, each on a drive of its own; answers how many. Each must be found: where nothing is, a
/// sealed segment has holes, and no bits.
fn flip_share(thread: u64) -> u64 {
    let sealed = sealed();
    assert!(!look(sealed.disk.clone(), &sealed), "nothing is wrong yet");
    let mut flips = 0;
    let offsets = sealed.blocks.iter().flat_map(|block| block * BLOCK..(block + 1) * BLOCK);
    for offset in offsets.filter(|offset| offset % THREADS == thread) {
        for bit in 0..8 {
            let mut disk = sealed.disk.clone();
            disk.flip(&sealed.path, offset, bit);
            assert!(look(disk, &sealed), "bit {bit} of byte {offset} was flipped, and nobody noticed");
            flips += 1;
        }
    }
    flips
}

#[test]
fn every_flipped_bit_of_a_sealed_segment_is_found() {
    let flips: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || flip_share(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("all are found")).sum()
    });
    let blocks = sealed().blocks;
    println!("{flips} flips in blocks {blocks:?}");
    // The segment's header, two records of two blocks and more, a takedown, the footer.
    assert!(blocks.len() >= 7 && flips == blocks.len() as u64 * BLOCK * 8, "{flips} flips in {blocks:?}");
}
