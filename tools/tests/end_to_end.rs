//! Real music through real processes: three masters, a gateway, and the command line, killed at bad moments.
//!
//! The music is the demo's album and some generated tracks, whose sizes sit on boundaries of the formats; besides, what is
//! in the folders that `DEADWAX_TEST_TRACKS` names, separated by `:`.

mod cluster;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cluster::{Cluster, Random};
use deadwax_track::{PIECE_BYTES, TrackId};
use serde_json::Value;

/// One cluster at a time: each takes both cores.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The folders and files to import.
fn music(scratch: &std::path::Path) -> Vec<PathBuf> {
    let folder = scratch.join("generated music");
    deadwax::album::write(&folder).expect("the album is written");
    let piece = usize::try_from(PIECE_BYTES).expect("fits");
    let sizes = [1, 65_503, 65_504, 65_505, piece - 1, piece, piece + 1, 2 * piece, 2 * piece + 1, 5 * piece + 4097];
    for (index, size) in sizes.into_iter().enumerate() {
        std::fs::write(folder.join(format!("{index}.ogg")), Random::new(index as u64).bytes(size)).expect("written");
    }
    let named = std::env::var_os("DEADWAX_TEST_TRACKS");
    [folder].into_iter().chain(named.iter().flat_map(std::env::split_paths)).collect()
}

/// Imports all music by the command line. Gives each track's bytes by its id.
fn import(cluster: &Cluster, expected: &str) -> BTreeMap<TrackId, Vec<u8>> {
    let output = Command::new(env!("CARGO_BIN_EXE_deadwax"))
        .args(["import", "--json", "--jobs", "4", "--gateway", &cluster.url()])
        .args(music(cluster.dir()))
        .output()
        .expect("import runs");
    assert!(output.status.success(), "import: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    let mut tracks = BTreeMap::new();
    for line in String::from_utf8(output.stdout).expect("JSON lines are text").lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let bytes = std::fs::read(line["path"].as_str().expect("a path")).expect("the file is there");
        let id = TrackId::of(&bytes);
        assert_eq!(line["id"], id.to_string());
        assert_eq!(line["bytes"], bytes.len());
        let already = tracks.contains_key(&id);
        assert_eq!(line["outcome"], if already { "present" } else { expected }, "{line}");
        tracks.insert(id, bytes);
    }
    assert!(tracks.len() >= 10, "only {} tracks were imported", tracks.len());
    tracks
}

fn assert_all_there(cluster: &Cluster, tracks: &BTreeMap<TrackId, Vec<u8>>) {
    for (id, bytes) in tracks {
        let reply = cluster.get(id);
        assert_eq!(reply.status, 200, "{id}: {}", reply.text());
        assert!(reply.body == *bytes, "{id}: other bytes came back");
    }
}

#[test]
fn every_track_goes_in_and_every_byte_comes_back() {
    let _turn = turn();
    let mut cluster = Cluster::start();
    let tracks = import(&cluster, "stored");
    assert_all_there(&cluster, &tracks);
    ranges_are_equal(&cluster, &tracks);
    // The gateway starts anew with an empty cache: the bytes come from the masters' drives.
    cluster.kill_gateway();
    cluster.start_gateway();
    ranges_are_equal(&cluster, &tracks);
    assert_all_there(&cluster, &tracks);
    // A second import sends nothing.
    cluster.wait_until_copied();
    assert_eq!(import(&cluster, "present").len(), tracks.len());
    let status = cluster.status();
    assert_eq!(status["tracks"], tracks.len());
    assert_eq!(status["bytes"], tracks.values().map(Vec::len).sum::<usize>());
    assert_eq!(status["copies"]["missing"], 0);
    assert_eq!(status["copies"]["seen"], 3 * tracks.len());
    // Masters that have just started choose one to lead.
    cluster::wait_until("all is well", || cluster.status()["healthy"] == true);
    gets_resume_and_verify(&cluster, &tracks);
}

#[test]
fn over_tls_all_is_as_ever_and_strangers_get_nothing() {
    let _turn = turn();
    let mut cluster = Cluster::start_with(&["--tls"]);
    let tracks = import(&cluster, "stored");
    assert_all_there(&cluster, &tracks);
    cluster.kill_gateway();
    cluster.start_gateway();
    ranges_are_equal(&cluster, &tracks);
    cluster.kill_master(1);
    assert_all_there(&cluster, &tracks);
    cluster.start_master(1);
    cluster.wait_until_all_up();
    cluster::wait_until("all is well again", || cluster.status()["healthy"] == true);

    let id = tracks.keys().next().expect("there are tracks");
    let refused = |cluster: &Cluster, why: &str| {
        let reply = cluster.get(id);
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert!(reply.text().contains(why), "{}", reply.text());
    };
    // With a key that no master's settings name.
    cluster.kill_gateway();
    let key = cluster.dir().join("gateway/gateway.key");
    std::fs::write(&key, "ab".repeat(32)).expect("written");
    cluster.start_gateway_with(|settings| settings);
    refused(&cluster, "is not admitted");
    // Without TLS.
    cluster.kill_gateway();
    cluster.start_gateway_with(|settings| settings.replace("\ntls = true\n", "\n"));
    refused(&cluster, "speaks TLS only");
}

fn ranges_are_equal(cluster: &Cluster, tracks: &BTreeMap<TrackId, Vec<u8>>) {
    let mut random = Random::new(7);
    for (id, bytes) in tracks {
        for _ in 0..4 {
            let start = random.below(bytes.len());
            let end = start + 1 + random.below(bytes.len() - start);
            let reply = cluster.ask("GET", id, &[("range", &format!("bytes={start}-{}", end - 1))], &[]);
            assert_eq!(reply.status, 206, "{id} {start}..{end}: {}", reply.text());
            assert!(reply.body == bytes[start..end], "{id} {start}..{end}: other bytes came back");
            let expected = format!("bytes {start}-{}/{}", end - 1, bytes.len());
            assert_eq!(reply.header("content-range"), Some(expected.as_str()));
        }
    }
}

fn gets_resume_and_verify(cluster: &Cluster, tracks: &BTreeMap<TrackId, Vec<u8>>) {
    let (id, bytes) = tracks.iter().max_by_key(|(_, bytes)| bytes.len()).expect("there are tracks");
    let file = cluster.dir().join("resumed");
    let get = || {
        let output = Command::new(env!("CARGO_BIN_EXE_deadwax"))
            .args(["get", &id.to_string(), "--gateway", &cluster.url(), "-o"])
            .arg(&file)
            .output()
            .expect("get runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(std::fs::read(&file).expect("the file is there") == *bytes);
    };
    // From a good beginning, from a bad one, and from nothing.
    let part = cluster.dir().join("resumed.part");
    std::fs::write(&part, &bytes[..bytes.len() / 2]).expect("written");
    get();
    std::fs::write(&part, vec![0x55; bytes.len() / 3]).expect("written");
    get();
    get();
    assert!(!part.exists());
}

/// What writers put while something is killed, and what was acknowledged.
struct Writers {
    stop: AtomicBool,
    acknowledged: Mutex<BTreeMap<TrackId, Vec<u8>>>,
    /// What was answered instead.
    refused: Mutex<Vec<String>>,
}

impl Writers {
    fn new() -> Self {
        Self { stop: AtomicBool::new(false), acknowledged: Mutex::default(), refused: Mutex::default() }
    }

    /// Puts one fresh track after another until told to stop. A put may fail only while `cluster` is being hurt; what
    /// is acknowledged is kept.
    fn write(&self, cluster: &Cluster, seed: u64) {
        let mut random = Random::new(seed);
        while !self.stop.load(Ordering::Relaxed) {
            let size = 1 + random.below(3 << 20);
            let bytes = random.bytes(size);
            let id = TrackId::of(&bytes);
            match cluster.try_ask("PUT", &id, &[], &bytes) {
                Ok(reply) if reply.status == 201 || reply.status == 200 => {
                    self.acknowledged.lock().expect("no writer panics").insert(id, bytes);
                }
                other => {
                    let answer = other.map_or_else(|error| error.to_string(), |reply| reply.text());
                    self.refused.lock().expect("no writer panics").push(answer);
                }
            }
        }
    }

    fn wait_for(&self, count: usize) {
        cluster::wait_until("enough puts are acknowledged", || {
            self.acknowledged.lock().expect("no writer panics").len() >= count
        });
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().expect("no writer panics").len()
    }
}

#[test]
fn a_master_dies_while_listeners_read_and_write() {
    let _turn = turn();
    let mut cluster = Cluster::start();
    let tracks = import(&cluster, "stored");
    // An empty cache, so that reads go to masters.
    cluster.kill_gateway();
    cluster.start_gateway();
    let writers = Writers::new();
    let mut victim = cluster.take_master(1);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (writers, cluster) = (&writers, &cluster);
            scope.spawn(move || writers.write(cluster, seed));
        }
        let reader = scope.spawn(|| assert_all_there(&cluster, &tracks));
        writers.wait_for(4);
        victim.kill();
        writers.wait_for(writers.count() + 12);
        reader.join().expect("every read gave all bytes");
        writers.stop.store(true, Ordering::Relaxed);
    });
    let refused = writers.refused.into_inner().expect("no writer panicked");
    assert!(refused.is_empty(), "puts go on with two masters of three: {refused:#?}");
    let status = cluster.status();
    assert_eq!(status["healthy"], false, "status does not hide that a master is gone");
    assert!(status["copies"]["missing"].as_u64().is_some_and(|missing| missing > 0), "{status}");
    let acknowledged = writers.acknowledged.into_inner().expect("no writer panicked");
    assert_all_there(&cluster, &acknowledged);
    cluster.start_master(1);
    cluster.wait_until_all_up();
    assert_all_there(&cluster, &tracks);
    assert_all_there(&cluster, &acknowledged);
}

#[test]
fn all_masters_die_and_what_was_acknowledged_is_there() {
    let _turn = turn();
    let mut cluster = Cluster::start();
    let tracks = import(&cluster, "stored");
    let mut acknowledged = BTreeMap::new();
    for round in 0..3 {
        let writers = Writers::new();
        let mut victims: Vec<_> = (0..3).map(|index| cluster.take_master(index)).collect();
        std::thread::scope(|scope| {
            for seed in 0..3 {
                let (writers, cluster) = (&writers, &cluster);
                scope.spawn(move || writers.write(cluster, 100 * (round + 1) + seed));
            }
            writers.wait_for(8);
            victims.iter_mut().for_each(cluster::Process::kill);
            writers.stop.store(true, Ordering::Relaxed);
        });
        // With no master alive the gateway cannot tell, and says so: never 404.
        let absent = TrackId::of(b"never stored");
        assert_eq!(cluster.get(&absent).status, 503);
        (0..3).for_each(|index| cluster.start_master(index));
        cluster.wait_until_all_up();
        cluster.wait_until_absence_is_known();
        acknowledged.append(&mut writers.acknowledged.into_inner().expect("no writer panicked"));
        cluster.kill_gateway();
        cluster.start_gateway();
        assert_all_there(&cluster, &acknowledged);
    }
    assert_all_there(&cluster, &tracks);
}

#[test]
fn the_gateway_dies_in_the_middle_and_nothing_is_harmed() {
    let _turn = turn();
    let mut cluster = Cluster::start();
    let writers = Writers::new();
    let mut gateway = cluster.take_gateway();
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let (writers, cluster) = (&writers, &cluster);
            scope.spawn(move || writers.write(cluster, 900 + seed));
        }
        writers.wait_for(8);
        gateway.kill();
        writers.stop.store(true, Ordering::Relaxed);
    });
    cluster.start_gateway();
    let acknowledged = writers.acknowledged.into_inner().expect("no writer panicked");
    assert_all_there(&cluster, &acknowledged);
    // Puts that were cut off are not half there: the cluster holds whole tracks only.
    let status = cluster.status();
    let stored = status["tracks"].as_u64().expect("a count");
    assert!(stored >= acknowledged.len() as u64, "{status}");
}

#[test]
fn a_taken_down_track_is_gone_for_good() {
    let _turn = turn();
    let mut cluster = Cluster::start();
    let bytes = Random::new(5).bytes(700_000);
    let id = TrackId::of(&bytes);
    assert_eq!(cluster.ask("PUT", &id, &[], &bytes).status, 201);
    assert_eq!(cluster.get(&id).status, 200);
    let reply = cluster.ask("DELETE", &id, &[], &[]);
    assert_eq!(reply.status, 202, "{}", reply.text());
    let number = reply.json()["takedown"].clone();
    assert!(number.as_u64().is_some_and(|number| number > 0), "{number}");
    assert_eq!(cluster.ask("DELETE", &id, &[], &[]).json()["takedown"], number, "asked again, it answers the same");
    for _ in 0..2 {
        assert_eq!(cluster.get(&id).status, 410);
        assert_eq!(cluster.ask("PUT", &id, &[], &bytes).status, 410);
        (0..3).for_each(|index| cluster.kill_master(index));
        (0..3).for_each(|index| cluster.start_master(index));
        cluster.kill_gateway();
        cluster.start_gateway();
        cluster.wait_until_all_up();
    }
    // Masters that were killed amid it go on erasing.
    cluster::wait_until("every copy is erased", || cluster.status()["tracks"] == 0);
}

#[test]
fn a_log_and_what_is_in_it_are_there_after_all_masters_died() {
    serves_after_all_masters_died(&[]);
}

#[test]
fn a_cluster_whose_map_is_fixed_serves_like_any_other() {
    serves_after_all_masters_died(&["--no-log"]);
}

fn serves_after_all_masters_died(arguments: &[&str]) {
    let _turn = turn();
    let mut cluster = Cluster::start_with(arguments);
    let mut tracks = import(&cluster, "stored");
    cluster.kill_master(1);
    assert_all_there(&cluster, &tracks);
    let bytes = Random::new(77).bytes(300_000);
    let id = TrackId::of(&bytes);
    assert_eq!(cluster.ask("PUT", &id, &[], &bytes).status, 201, "two of three are there");
    tracks.insert(id, bytes);
    // All at once, so that none has the map or what was said of takedowns but from its own drive.
    [0, 2].iter().for_each(|index| cluster.kill_master(*index));
    (0..3).for_each(|index| cluster.start_master(index));
    cluster.wait_until_all_up();
    cluster.wait_until_absence_is_known();
    assert_all_there(&cluster, &tracks);
    let reply = cluster.ask("DELETE", &id, &[], &[]);
    assert_eq!(reply.status, 202, "{}", reply.text());
    assert_eq!(cluster.get(&id).status, 410);
}
