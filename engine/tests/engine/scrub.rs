//! Scrub finds what rots, and nothing else.

use std::cell::RefCell;
use std::rc::Rc;

use deadwax_engine::{Change, ErrorKind};
use deadwax_track::{PARTITIONS, Partition};

use super::*;

/// More than any test reads in a second.
const FAST: u64 = 1 << 40;

#[test]
fn scrub_finds_a_flipped_byte_in_header_payload_and_trailer_and_a_new_put_heals_it() {
    for (at, name) in [(40, "id"), (4000, "header's end"), (4096 + 5, "payload"), (4096 + 65_536 - 10, "trailer")] {
        let (dir, config) = volume_dir();
        run(async {
            let (volume, _) = open(&config).await;
            let (track, other) = (audio(1, 300_000), audio(2, 5_000));
            put(&volume, &track).await.expect("puts");
            put(&volume, &other).await.expect("puts");
            let clean = volume.scrub_pass(FAST).await.expect("scrubs");
            assert_eq!((clean.records_checked, clean.damaged, clean.files_damaged), (2, 0, 0), "{clean:?}");
            let path = &segments(dir.path())[0];
            let start = find(path, b"DWXRECRD").expect("a record");
            let byte = std::fs::read(path).expect("reads")[usize::try_from(start + at).expect("small")];
            overwrite(path, start + at, &[byte ^ 4]);
            let report = volume.scrub_pass(FAST).await.expect("scrubs");
            assert_eq!((report.records_checked, report.damaged), (2, 1), "{name}: {report:?}");
            let damage = volume.next_damage().await.expect("a finding");
            assert_eq!(damage.id, TrackId::of(&track), "{name}: {damage:?}");
            volume.delete(&damage.id).await.expect("deletes");
            put(&volume, &track).await.expect("puts again");
            let healed = volume.scrub_pass(FAST).await.expect("scrubs");
            assert_eq!((healed.records_checked, healed.damaged), (2, 0), "{name}: {healed:?}");
            assert_eq!(volume.scrub_status().passes, 3);
            assert_whole(&volume, &track).await;
            volume.close().await;
        });
    }
}

#[test]
fn a_damaged_track_that_comes_anew_takes_the_old_ones_place_once_its_bytes_are_proved() {
    let (dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        let track = audio(1, 300_000);
        let (id, bytes) = (TrackId::of(&track), track.len() as u64);
        let changes = Rc::new(RefCell::new(Vec::new()));
        let heard = changes.clone();
        assert!(volume.observe(move |change| heard.borrow_mut().push(change)).is_empty());
        put(&volume, &track).await.expect("puts");
        assert_eq!(changes.take(), [Change::Stored(id)]);
        let counted = volume.digests(Partition(0), PARTITIONS);

        // A frame in the middle; the first one stays good.
        let path = &segments(dir.path())[0];
        let start = find(path, b"DWXRECRD").expect("a record");
        let at = start + 4096 + 2 * 65_536 + 5;
        let byte = std::fs::read(path).expect("reads")[usize::try_from(at).expect("small")];
        overwrite(path, at, &[byte ^ 4]);
        volume.scrub_pass(FAST).await.expect("scrubs");
        let damage = volume.next_damage().await.expect("a finding");
        assert!(damage.id == id && damage.counted, "{damage:?}");
        assert!(matches!(put(&volume, &track).await, Err(Error::AlreadyStored { .. })));

        // What is left of it can be read until then, and stays where nothing comes of the put.
        let first = ByteRange::new(0, 1_000).expect("a range");
        for sent in [0, 100_000, track.len()] {
            let mut writer = volume.put_anew(id, bytes, &Tags::default()).await.expect("begins");
            writer.write(&track[..sent]).await.expect("writes");
            drop(writer);
            let mut reader = volume.read(&id, Some(first)).await.expect("finds it");
            assert!(reader.next().await.expect("a block").is_ok());
        }
        let mut other = audio(2, 300_000);
        other.truncate(track.len());
        let mut writer = volume.put_anew(id, bytes, &Tags::default()).await.expect("begins");
        writer.write(&other).await.expect("writes");
        assert!(matches!(writer.finish().await, Err(Error::Invalid(_))));
        assert!(changes.borrow().is_empty(), "{changes:?}");

        // Two at once: each is good, and one is left.
        let mut writers = Vec::new();
        for _ in 0..2 {
            let mut writer = volume.put_anew(id, bytes, &Tags::default()).await.expect("begins");
            writer.write(&track).await.expect("writes");
            writers.push(writer);
        }
        for writer in writers {
            writer.finish().await.expect("stores");
            assert_eq!(changes.take(), [Change::Erased(id), Change::Stored(id)]);
            assert_whole(&volume, &track).await;
        }
        assert_eq!(volume.digests(Partition(0), PARTITIONS), counted);
        assert_eq!(volume.scrub_pass(FAST).await.expect("scrubs").damaged, 0);

        volume.close().await;
    });
}

#[test]
fn where_there_is_nothing_a_track_that_comes_anew_is_put_and_what_was_taken_down_stays_so() {
    let (_dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        let track = audio(1, 300_000);
        let (id, bytes) = (TrackId::of(&track), track.len() as u64);
        let changes = Rc::new(RefCell::new(Vec::new()));
        let heard = changes.clone();
        put(&volume, &track).await.expect("puts");
        assert_eq!(volume.observe(move |change| heard.borrow_mut().push(change)).len(), 1);
        volume.delete(&id).await.expect("deletes");
        let mut writer = volume.put_anew(id, bytes, &Tags::default()).await.expect("begins");
        writer.write(&track).await.expect("writes");
        writer.finish().await.expect("stores");
        volume.take_down(&id, 7).await.expect("takes down");
        let again = volume.put_anew(id, bytes, &Tags::default()).await;
        assert!(matches!(again.map(drop), Err(Error::TakenDown { number: 7, .. })));
        let (stored, erased) = (Change::Stored(id), Change::Erased(id));
        assert_eq!(changes.take(), [erased, stored, erased]);
        volume.close().await;
        // After a restart there is one record of it: the takedown's.
        let (volume, recovery) = open(&config).await;
        assert_eq!((recovery.tracks, recovery.takedowns), (0, 1));
        volume.close().await;
    });
}

#[test]
fn when_everything_was_read_last_is_kept_across_restarts() {
    let (_dir, config) = volume_dir();
    let made_at = unix_seconds();
    let first = run(async {
        let (volume, _) = open(&config).await;
        let new = volume.scrub_status();
        assert!(new.verified_at >= made_at && new.passes == 0, "a new volume counts from when it was made: {new:?}");
        for seed in 0..4 {
            put(&volume, &audio(seed, MIB)).await.expect("puts");
        }
        glommio::timer::sleep(std::time::Duration::from_millis(1100)).await;
        volume.scrub_pass(FAST).await.expect("scrubs");
        let after = volume.scrub_status();
        assert!(after.verified_at > new.verified_at && (after.passes, after.pass_damaged) == (1, 0), "{after:?}");
        volume.close().await;
        after
    });
    std::thread::sleep(std::time::Duration::from_millis(1100));
    run(async {
        let (volume, _) = open(&config).await;
        let again = volume.scrub_status();
        assert_eq!((again.passes, again.verified_at), (1, first.verified_at), "opening verifies nothing");
        volume.close().await;
    });
    // Where what was kept of it is lost, nobody knows, until all was read again.
    for file in std::fs::read_dir(config.dir.join("snapshots")).expect("lists") {
        std::fs::remove_file(file.expect("lists").path()).expect("removes");
    }
    run(async {
        let (volume, _) = open(&config).await;
        assert_eq!(volume.scrub_status().verified_at, 0);
        let before = unix_seconds();
        volume.scrub_pass(FAST).await.expect("scrubs");
        assert!(volume.scrub_status().verified_at >= before, "it began then");
        volume.close().await;
    });
}

#[test]
fn while_damage_is_there_nobody_knows_when_a_volume_was_verified_nor_after_a_restart() {
    let (dir, config) = volume_dir();
    let (track, other) = (audio(1, 300_000), audio(2, 5_000));
    let (id, bytes) = (TrackId::of(&track), track.len() as u64);
    run(async {
        let (volume, _) = open(&config).await;
        for track in [&track, &other] {
            put(&volume, track).await.expect("puts");
        }
        let path = &segments(dir.path())[0];
        let at = find(path, b"DWXRECRD").expect("a record") + 4096 + 2 * 65_536 + 5;
        let byte = std::fs::read(path).expect("reads")[usize::try_from(at).expect("small")];
        overwrite(path, at, &[byte ^ 4]);
        for _ in 0..2 {
            assert_eq!(volume.scrub_pass(FAST).await.expect("scrubs").damaged, 1);
            assert_eq!(volume.scrub_status().verified_at, 0);
        }
        volume.close().await;
    });
    run(async {
        let (volume, _) = open(&config).await;
        assert_eq!(volume.scrub_status().verified_at, 0, "whoever opens it has heard of no damage");
        let before = unix_seconds();
        volume.scrub_pass(FAST).await.expect("scrubs");
        assert_eq!(volume.scrub_status().verified_at, 0);
        let mut writer = volume.put_anew(id, bytes, &Tags::default()).await.expect("begins");
        writer.write(&track).await.expect("writes");
        writer.finish().await.expect("stores");
        assert!(volume.scrub_status().verified_at >= before, "all else was read");
        volume.close().await;
    });
    run(async {
        let (volume, _) = open(&config).await;
        assert!(volume.scrub_status().verified_at > 0);
        volume.close().await;
    });
}

#[test]
fn a_pass_that_is_asked_for_begins_anew_and_at_the_rate_that_is_asked_for() {
    let (_dir, config) = volume_dir();
    run(async {
        let (volume, _) = open(&config).await;
        for seed in 0..6 {
            put(&volume, &audio(seed, 3 * MIB)).await.expect("puts");
        }
        assert_eq!(volume.start_scrub(0).expect_err("no rate").kind(), ErrorKind::Invalid);
        // So slow that it would take minutes.
        volume.start_scrub(64 * 1024).expect("begins");
        assert!(volume.scrub_status().running);
        assert_eq!(volume.scrub_pass(FAST).await.expect_err("one at a time").kind(), ErrorKind::Invalid);
        glommio::timer::sleep(std::time::Duration::from_millis(500)).await;
        let slow = volume.scrub_status();
        assert!(slow.running && slow.pass_bytes < slow.all_bytes && slow.all_bytes >= 18 * MIB, "{slow:?}");
        volume.start_scrub(FAST).expect("begins anew");
        let began = std::time::Instant::now();
        while volume.scrub_status().running {
            assert!(began.elapsed().as_secs() < 60, "{:?}", volume.scrub_status());
            glommio::timer::sleep(std::time::Duration::from_millis(20)).await;
        }
        let done = volume.scrub_status();
        assert_eq!(done.passes, 1);
        assert!(done.bytes_read >= 18 * MIB, "all of it was read after it was asked for: {done:?}");
        volume.close().await;
    });
}

fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}
