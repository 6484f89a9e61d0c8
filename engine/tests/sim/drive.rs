//! The simulated drive itself: what it loses, what it keeps, and that a seed replays.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use deadwax_engine::sim::lives::{audio, config, formatted, put};
use deadwax_engine::sim::{Fault, Life, SimDisk, SimFile, SimHost, SimSettings};
use deadwax_engine::{Access, File, Host, Volume};
use deadwax_track::{KIB, MIB};

const BLOCK: usize = 4096;
const SECTOR: usize = 512;
const FILE: &str = "/disk/file";
const DIRECTORY: &str = "/disk";

async fn make(host: &SimHost, path: &str) -> SimFile {
    let file = host.open(Path::new(path), Access::Create).await.expect("makes");
    host.sync_directory(Path::new(DIRECTORY)).await.expect("flushes");
    file
}

async fn fill(host: &SimHost, file: &SimFile, offset: u64, bytes: usize, with: u8) -> std::io::Result<()> {
    let mut buffer = host.buffer(bytes);
    buffer.fill(with);
    file.write_at(offset, buffer).await
}

/// What a file may be after a power loss that follows `script`: each content that 400 seeds show.
fn outcomes(script: impl AsyncFn(SimHost)) -> Vec<Option<Vec<u8>>> {
    let outcomes = (0..400).map(|seed| {
        let mut disk = SimDisk::new(SimSettings::new(seed));
        assert!(matches!(disk.run(|host| script(host)), Life::Ended(())));
        disk.lose_power();
        disk.bytes(Path::new(FILE))
    });
    outcomes.collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn what_was_flushed_stays() {
    let seen = outcomes(async |host| {
        let file = make(&host, FILE).await;
        fill(&host, &file, 0, BLOCK, 7).await.expect("writes");
        file.fdatasync().await.expect("flushes");
    });
    assert_eq!(seen, [Some(vec![7; BLOCK])]);
}

#[test]
fn a_write_that_was_not_flushed_is_old_or_new_in_each_sector() {
    let seen = outcomes(async |host| {
        let file = make(&host, FILE).await;
        fill(&host, &file, 0, BLOCK, 1).await.expect("writes");
        file.fdatasync().await.expect("flushes");
        fill(&host, &file, 0, BLOCK, 2).await.expect("writes");
    });
    let mut mixes = BTreeSet::new();
    for outcome in seen {
        let bytes = outcome.expect("is there");
        for sector in bytes.chunks(SECTOR) {
            assert!(sector == [1; SECTOR] || sector == [2; SECTOR], "a sector is whole");
        }
        mixes.insert(bytes.iter().step_by(SECTOR).copied().collect::<Vec<u8>>());
    }
    assert!(mixes.contains(&vec![1; 8]) && mixes.contains(&vec![2; 8]) && mixes.len() > 50, "{}", mixes.len());
}

#[test]
fn a_flush_covers_only_writes_that_ended_before_it_began() {
    let seen = outcomes(async |host| {
        let file = std::rc::Rc::new(make(&host, FILE).await);
        file.preallocate(2 * BLOCK as u64).await.expect("takes space");
        file.fdatasync().await.expect("flushes");
        let (late, writer) = (file.clone(), host.clone());
        let write = host.task(async move { fill(&writer, &late, 4096, BLOCK, 2).await });
        fill(&host, &file, 0, BLOCK, 1).await.expect("writes");
        // The other write ends before this or after; where it has begun last, it is not covered.
        file.fdatasync().await.expect("flushes");
        write.await.expect("writes");
    });
    assert!(seen.iter().all(|bytes| bytes.as_ref().expect("is there")[..BLOCK] == [1; BLOCK]));
    assert!(seen.iter().any(|bytes| bytes.as_ref().expect("is there")[BLOCK..] == [0; BLOCK]), "it may be lost");
}

#[test]
fn names_survive_in_the_order_of_their_making() {
    let seen: BTreeSet<Vec<String>> = (0..200)
        .map(|seed| {
            let mut disk = SimDisk::new(SimSettings::new(seed));
            let life = disk.run(async |host: SimHost| {
                drop(make(&host, "/disk/a").await);
                drop(host.open(Path::new("/disk/b"), Access::Create).await.expect("makes"));
                host.rename(Path::new("/disk/b"), Path::new("/disk/c")).await.expect("renames");
                host.remove(Path::new("/disk/a")).await.expect("removes");
            });
            assert!(matches!(life, Life::Ended(())));
            disk.lose_power();
            disk.paths().iter().map(|path| path.display().to_string()).collect()
        })
        .collect();
    let expected = [vec!["/disk/a"], vec!["/disk/a", "/disk/b"], vec!["/disk/a", "/disk/c"], vec!["/disk/c"]];
    assert_eq!(seen, expected.map(|names| names.into_iter().map(str::to_owned).collect()).into());
}

#[test]
fn a_preallocation_stays_whole_or_not_at_all() {
    let seen = outcomes(async |host| {
        let file = make(&host, FILE).await;
        file.preallocate(64 * KIB).await.expect("takes space");
    });
    assert_eq!(seen, [Some(vec![]), Some(vec![0; 64 * 1024])]);
}

#[test]
fn a_punch_may_stay_from_its_end_backwards() {
    let seen = outcomes(async |host| {
        let file = make(&host, FILE).await;
        fill(&host, &file, 0, 4 * BLOCK, 1).await.expect("writes");
        file.fdatasync().await.expect("flushes");
        file.punch_hole(4096, 3 * BLOCK as u64).await.expect("punches");
    });
    let blocks = |outcome: &Option<Vec<u8>>| {
        outcome.as_ref().expect("is there").iter().step_by(BLOCK).copied().collect::<Vec<u8>>()
    };
    let seen: BTreeSet<_> = seen.iter().map(blocks).collect();
    assert_eq!(seen, BTreeSet::from([vec![1, 0, 0, 0], vec![1, 1, 0, 0], vec![1, 1, 1, 0], vec![1; 4]]));
}

#[test]
fn a_look_for_holes_may_find_the_last_ones_later_than_the_first() {
    let seen: BTreeSet<_> = (0..100)
        .map(|seed| {
            let life = SimDisk::new(SimSettings::new(seed)).run(async |host: SimHost| {
                let file = Rc::new(make(&host, FILE).await);
                fill(&host, &file, 0, 3 * BLOCK, 1).await.expect("writes");
                let (looks, punches) = (file.clone(), file);
                let look = host.task(async move { looks.data(0..3 * BLOCK as u64).await.expect("looks") });
                host.task(async move { punches.punch_hole(0, 3 * BLOCK as u64).await.expect("punches") }).await;
                look.await
            });
            let Life::Ended(stretches) = life else { panic!("{life:?}") };
            assert!(stretches.iter().all(|stretch| stretch.start == 0), "{stretches:?}");
            stretches.first().map_or(0, |stretch| stretch.end / BLOCK as u64)
        })
        .collect();
    assert_eq!(seen, BTreeSet::from([0, 1, 2, 3]));
}

#[test]
fn a_look_for_holes_may_fail_and_may_be_where_a_life_ends() {
    let look = async |host: SimHost| make(&host, FILE).await.data(0..4096).await.is_ok();
    // After a create and the flush of its directory.
    for (faults, cut_at, ended) in
        [(vec![], None, Some(true)), (vec![(3, Fault::Error)], None, Some(false)), (vec![], Some(3), None)]
    {
        let mut disk = SimDisk::new(SimSettings { cut_at, ..SimSettings::new(1) });
        disk.settings().faults.planned = faults;
        match (disk.run(look), ended) {
            (Life::Ended(looked), Some(expected)) => assert_eq!(looked, expected),
            (Life::Cut, None) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_failed_flush_of_a_directory_is_not_healed_by_the_next() {
    let seen: BTreeSet<_> = (0..50)
        .map(|seed| {
            let mut disk = SimDisk::new(SimSettings::new(seed));
            disk.settings().faults.planned = vec![(2, Fault::Error)];
            // Create, and the flush that fails.
            let life = disk.run(async |host: SimHost| {
                let directory = Path::new(DIRECTORY);
                drop(host.open(Path::new(FILE), Access::Create).await.expect("creates"));
                assert!(host.sync_directory(directory).await.is_err(), "operation 2 fails");
                host.sync_directory(directory).await.expect_err("what is left, but nobody believes it");
            });
            assert!(matches!(life, Life::Ended(())));
            disk.lose_power();
            disk.bytes(Path::new(FILE)).is_some()
        })
        .collect();
    assert_eq!(seen, BTreeSet::from([false, true]));
}

#[test]
fn a_failed_flush_is_not_healed_by_the_next() {
    let seen: BTreeSet<_> = (0..50)
        .map(|seed| {
            let mut disk = SimDisk::new(SimSettings::new(seed));
            disk.settings().faults.planned = vec![(6, Fault::Error)];
            // Create, flush of the directory, preallocation, flush, write, and the flush that fails.
            let life = disk.run(async |host: SimHost| {
                let file = make(&host, FILE).await;
                file.preallocate(4096).await.expect("takes space");
                file.fdatasync().await.expect("flushes");
                fill(&host, &file, 0, BLOCK, 9).await.expect("writes");
                assert!(file.fdatasync().await.is_err(), "operation 6 fails");
                file.fdatasync().await.expect("flushes what is left");
            });
            assert!(matches!(life, Life::Ended(())));
            disk.lose_power();
            disk.bytes(Path::new(FILE)).expect("is there")[0]
        })
        .collect();
    assert_eq!(seen, BTreeSet::from([0, 9]));
}

#[test]
fn a_full_drive_refuses_and_a_punch_makes_room() {
    let mut disk = SimDisk::new(SimSettings { capacity_bytes: MIB, ..SimSettings::new(1) });
    let life = disk.run(async |host: SimHost| {
        let directory = Path::new(DIRECTORY);
        let file = make(&host, FILE).await;
        file.preallocate(MIB).await.expect("takes all");
        assert_eq!(host.space(directory).await.expect("measures").free_bytes, 0);
        let other = make(&host, "/disk/other").await;
        let full = other.preallocate(4096).await.expect_err("is full");
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        assert!(fill(&host, &other, 0, BLOCK, 1).await.is_err_and(|error| error.kind() == ErrorKind::StorageFull));
        fill(&host, &file, 0, BLOCK, 1).await.expect("its space is taken already");
        file.punch_hole(0, 8192).await.expect("punches");
        assert_eq!(host.space(directory).await.expect("measures").free_bytes, 8192);
        fill(&host, &other, 0, BLOCK, 1).await.expect("there is room");
        host.remove(Path::new(FILE)).await.expect("removes");
        assert_eq!(host.space(directory).await.expect("measures").free_bytes, 4096, "it is open");
        drop(file);
        assert_eq!(host.space(directory).await.expect("measures").free_bytes, MIB - 4096);
    });
    assert!(matches!(life, Life::Ended(())));
}

#[test]
fn an_operation_that_hangs_leaves_time_to_others() {
    let mut disk = SimDisk::new(SimSettings::new(1));
    disk.settings().faults.planned = vec![(3, Fault::Hang)];
    let script = async |host: SimHost, patient: bool| {
        let file = make(&host, FILE).await;
        let write = std::pin::pin!(fill(&host, &file, 0, BLOCK, 1));
        if patient {
            return write.await.is_ok();
        }
        let late = async {
            host.sleep(Duration::from_secs(5)).await;
            false
        };
        futures_lite::future::or(async { write.await.is_ok() }, late).await
    };
    assert!(matches!(disk.run(|host| script(host, false)), Life::Ended(false)));
    assert!(matches!(disk.run(|host| script(host, true)), Life::Stuck));
}

#[test]
fn a_seed_replays() {
    let trace = |seed| {
        let mut disk = formatted(SimSettings { cut_at: Some(70), ..SimSettings::new(seed) });
        disk.record(Path::new("/"));
        let life = disk.run(|host| async move {
            let (volume, _) = Volume::open(host.clone(), config(256 * KIB)).await.expect("opens");
            let puts: Vec<_> = (0..50)
                .map(|number| {
                    let volume = volume.clone();
                    host.task(async move { put(&volume, &audio(number, 1 + number * 300)).await.map(drop) })
                })
                .collect();
            for put in puts {
                put.await.expect("puts");
            }
        });
        assert!(matches!(life, Life::Cut));
        disk.lose_power();
        let contents: Vec<_> = disk.paths().iter().map(|path| disk.bytes(path)).collect();
        (disk.recorded(), contents)
    };
    assert!(trace(1) == trace(1) && trace(1) != trace(2));
}
