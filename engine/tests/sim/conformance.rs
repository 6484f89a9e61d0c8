//! What every host must do, run on both.

use std::io::ErrorKind;
use std::ops::DerefMut;
use std::path::Path;

use deadwax_engine::sim::{Life, SimDisk, SimSettings};
use deadwax_engine::{Access, File, GlommioHost, Host, LockError, Priority};
use deadwax_track::{KIB, MIB};
use glommio::{LocalExecutorBuilder, Placement};
use tempfile::TempDir;

const BLOCK: usize = 4096;

fn filled<H: Host>(host: &H, bytes: usize, with: u8) -> H::Buffer {
    let mut buffer = host.buffer(bytes);
    assert_eq!(buffer.len(), bytes);
    buffer.deref_mut().fill(with);
    buffer
}

async fn all_of<H: Host>(host: H, directory: &Path) {
    bytes_come_back(&host, directory).await;
    holes_read_as_zeros(&host, directory).await;
    names_lead_to_files(&host, directory).await;
    locks_keep_others_out(&host, directory).await;
    tasks_and_time_go_on(&host).await;
}

async fn bytes_come_back<H: Host>(host: &H, directory: &Path) {
    let path = directory.join("bytes");
    let file = host.open(&path, Access::Create).await.expect("makes");
    assert_eq!((file.path(), file.bytes().await.expect("measures")), (path.clone(), 0));
    file.write_at(0, filled(host, 2 * BLOCK, 1)).await.expect("writes");
    file.write_at(4096, filled(host, BLOCK, 2)).await.expect("writes");
    assert_eq!(file.bytes().await.expect("measures"), 8192);
    let read = file.read_at(0, 2 * BLOCK).await.expect("reads");
    assert!(read.len() == 2 * BLOCK && read[..BLOCK].iter().all(|byte| *byte == 1));
    assert!(read[BLOCK..].iter().all(|byte| *byte == 2));
    for (offset, bytes) in [(8192, BLOCK), (4096, 2 * BLOCK)] {
        let beyond = file.read_at(offset, bytes).await.map(drop).expect_err("beyond the end");
        assert_eq!(beyond.kind(), ErrorKind::UnexpectedEof);
    }
    file.fdatasync().await.expect("flushes");
    let again = host.open(&path, Access::Read).await.expect("opens");
    assert_eq!(again.read_at(4096, BLOCK).await.expect("reads")[..], [2; BLOCK]);
    assert!(again.write_at(0, filled(host, BLOCK, 3)).await.is_err(), "opened to be read");
    drop((file, again));
    let emptied = host.open(&path, Access::Create).await.expect("makes anew");
    assert_eq!(emptied.bytes().await.expect("measures"), 0);
    let missing = host.open(&directory.join("missing"), Access::Write).await.map(drop);
    assert_eq!(missing.expect_err("is not there").kind(), ErrorKind::NotFound);
}

async fn holes_read_as_zeros<H: Host>(host: &H, directory: &Path) {
    let file = host.open(&directory.join("holes"), Access::Create).await.expect("makes");
    let free = host.space(directory).await.expect("measures");
    assert!(free.free_bytes <= free.total_bytes && free.free_bytes > MIB);
    file.preallocate(256 * KIB).await.expect("takes space");
    file.preallocate(4 * KIB).await.expect("changes nothing");
    assert_eq!(file.bytes().await.expect("measures"), 256 * KIB);
    assert_eq!(file.read_at(128 * KIB, BLOCK).await.expect("reads")[..], [0; BLOCK]);
    file.write_at(64 * KIB, filled(host, 64 * BLOCK / 4, 5)).await.expect("writes");
    file.fdatasync().await.expect("flushes");
    let data = async |start, end| {
        let stretches = file.data(start * KIB..end * KIB).await.expect("tells");
        stretches.iter().map(|stretch| (stretch.start / KIB, stretch.end / KIB)).collect::<Vec<_>>()
    };
    assert_eq!(data(0, 256).await, [(64, 128)]);
    assert_eq!(data(68, 72).await, [(68, 72)]);
    for (start, end) in [(0, 64), (128, 256), (1024, 2048)] {
        assert!(data(start, end).await.is_empty(), "holes, and beyond the end");
    }
    file.punch_hole(72 * KIB, 8 * KIB).await.expect("punches");
    file.fdatasync().await.expect("flushes");
    assert_eq!(file.read_at(72 * KIB, 2 * BLOCK).await.expect("reads")[..], [0; 2 * BLOCK]);
    assert_eq!(file.read_at(80 * KIB, BLOCK).await.expect("reads")[..], [5; BLOCK]);
    assert_eq!(data(0, 2048).await, [(64, 72), (80, 128)]);
    assert_eq!(file.bytes().await.expect("measures"), 256 * KIB, "a punch leaves the length");
}

async fn names_lead_to_files<H: Host>(host: &H, directory: &Path) {
    let (one, other) = (directory.join("one"), directory.join("other"));
    for (path, with) in [(&one, 1), (&other, 2)] {
        let file = host.open(path, Access::Create).await.expect("makes");
        file.write_at(0, filled(host, BLOCK, with)).await.expect("writes");
    }
    let open = host.open(&one, Access::Write).await.expect("opens");
    host.rename(&one, &other).await.expect("renames over another");
    host.sync_directory(directory).await.expect("flushes");
    let names = host.list(directory).await.expect("lists");
    assert!(names.contains(&"other".to_owned()) && !names.contains(&"one".to_owned()), "{names:?}");
    let renamed = host.open(&other, Access::Read).await.expect("opens");
    let (key, again) = (open.key().expect("tells"), renamed.key().expect("tells"));
    assert!(key.is_some() && key == again, "one file, whatever its name");
    assert_eq!(host.find(vec![one.clone(), other.clone()]).await.expect("looks"), [None, key]);
    assert_eq!(renamed.read_at(0, BLOCK).await.expect("reads")[..], [1; BLOCK]);
    host.remove(&other).await.expect("removes");
    assert_eq!((open.key().expect("tells"), host.find(vec![other.clone()]).await.expect("looks")), (None, vec![None]));
    assert_eq!(open.read_at(0, BLOCK).await.expect("is open still")[..], [1; BLOCK]);
    let gone = [host.remove(&other).await, host.rename(&other, &one).await];
    assert!(gone.iter().all(|gone| gone.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)));
}

async fn locks_keep_others_out<H: Host>(host: &H, directory: &Path) {
    let path = directory.join("locked");
    drop(host.open(&path, Access::Create).await.expect("makes"));
    let lock = host.lock(&path, 0, 2).await.expect("locks");
    assert!(matches!(host.lock(&path, 0, 2).await, Err(LockError::Handle(_))), "the same shard");
    assert!(matches!(host.lock(&path, 0, 1).await, Err(LockError::Handle(_))), "another split");
    let other = host.lock(&path, 1, 2).await.expect("the other shard");
    drop(lock);
    drop(host.lock(&path, 0, 2).await.expect("it is free again"));
    drop(other);
    drop(host.lock(&path, 0, 1).await.expect("another split, when all is free"));
    assert!(matches!(host.lock(&directory.join("none"), 0, 1).await, Err(LockError::Io(_))));
}

async fn tasks_and_time_go_on<H: Host>(host: &H) {
    let before = host.now();
    let (done, waits) = (std::rc::Rc::new(std::cell::Cell::new(0)), std::time::Duration::from_millis(2));
    for priority in [Priority::Read, Priority::Write, Priority::Repair, Priority::Scrub] {
        let (done, sleeper) = (done.clone(), host.clone());
        host.spawn(priority, async move {
            sleeper.sleep(waits).await;
            sleeper.yield_if_needed().await;
            done.set(done.get() + 1);
        });
    }
    while done.get() < 4 {
        host.sleep(waits / 10).await;
    }
    assert!(host.now() - before >= waits);
    assert_ne!(host.random_u64(), host.random_u64());
}

#[test]
fn the_real_host_does_what_a_host_must() {
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    // A block in the first file that is opened: see the glommio host.
    std::fs::write(directory.path().join("first"), [0; BLOCK]).expect("writes");
    let executor = LocalExecutorBuilder::new(Placement::Unbound).make().expect("io_uring works here");
    executor.run(async {
        let host = GlommioHost::new();
        drop(host.open(&directory.path().join("first"), Access::Read).await.expect("opens"));
        all_of(host, directory.path()).await;
    });
}

#[test]
fn the_simulated_host_does_what_a_host_must() {
    for seed in 1..=20 {
        let life = SimDisk::new(SimSettings::new(seed)).run(|host| all_of(host, Path::new("/disk")));
        assert!(matches!(life, Life::Ended(())), "seed {seed}: {life:?}");
    }
}
