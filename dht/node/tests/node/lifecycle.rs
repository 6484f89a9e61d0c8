//! Making, starting, refusing to start, and stopping.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, PermissionsExt};

use deadwax_dht::wire::{ErrorCode, Message, VolumeState};
use deadwax_node::{Error, init};
use deadwax_track::{ByteRange, Partition, TrackId};

use crate::cluster::{Site, own_address, place};
use crate::peer::{audio, tags};

#[test]
fn initialising_again_changes_nothing_and_adds_new_volumes() {
    let mut site = Site::new(2, 1);
    let key = site.config.dir.join("node.key");
    assert_eq!(fs::metadata(&key).expect("there").permissions().mode() & 0o777, 0o600);
    site.config.volumes.push(site.path("volume-new"));
    let entry = init(&site.config, &place()).expect("initialises");
    assert_eq!(entry.id, site.node);
    assert_eq!(entry.volumes[..2].iter().map(|volume| volume.id).collect::<Vec<_>>(), site.volumes);
    assert_eq!(entry.volumes.len(), 3);
    site.write_map(entry);
    site.start().stop();
}

#[test]
fn a_restart_has_everything_whatever_the_number_of_shards() {
    let mut site = Site::new(2, 2);
    let tracks: Vec<_> = (1..20_u32).map(|seed| audio(seed, 50_000 * seed as usize)).collect();
    let node = site.start();
    let mut peer = site.connect();
    for (n, bytes) in tracks.iter().enumerate() {
        peer.put(site.volumes[n % 2], bytes, &format!("track {n}"));
    }
    drop(peer);
    node.stop();
    for shards in [2, 1, 3] {
        site.config.shards = shards.try_into().ok();
        let node = site.start();
        let mut peer = site.connect();
        for (n, bytes) in tracks.iter().enumerate() {
            let id = TrackId::of(bytes);
            assert_eq!(peer.get(site.volumes[n % 2], id, 0, bytes.len() as u64), *bytes, "{shards} shards, track {n}");
        }
        assert_eq!(peer.status().volumes.iter().map(|volume| volume.tracks).sum::<u64>(), 19);
        node.stop();
    }
}

#[test]
fn a_port_in_use_is_named() {
    let site = Site::new(1, 2);
    let taken = TcpListener::bind(site.config.listen).expect("free");
    let why = site.refusal();
    assert!(matches!(why, Error::Listen { .. }), "{why}");
    assert!(why.to_string().contains(&site.config.listen.to_string()), "{why}");
    drop(taken);
    let node = site.start();
    // Another node on the same port: the kernel would let two such programs share it.
    let mut other = Site::new(1, 2);
    other.config.listen = site.config.listen;
    other.write_map(init(&other.config, &place()).expect("initialises"));
    assert!(matches!(other.refusal(), Error::Listen { .. }));
    node.stop();
}

#[test]
fn a_node_that_runs_is_not_run_twice() {
    let mut site = Site::new(1, 1);
    let _node = site.start();
    site.config.listen = own_address();
    let why = site.refusal();
    assert!(matches!(why, Error::Running(_)), "{why}");
}

#[test]
fn a_volume_of_another_node_is_refused_and_left_alone() {
    let (mut site, other) = (Site::new(1, 1), Site::new(1, 1));
    let superblock = other.volume_dir(0).join("volume.deadwax");
    let before = fs::read(&superblock).expect("a volume");
    site.config.volumes = other.config.volumes.clone();
    for why in [init(&site.config, &place()).expect_err("foreign"), site.refusal()] {
        assert!(matches!(why, Error::ForeignVolume { .. }), "{why}");
        assert!(why.to_string().contains(&other.node.to_string()), "{why}");
    }
    assert_eq!(fs::read(&superblock).expect("a volume"), before);
    other.start().stop();
}

#[test]
fn a_volume_that_is_no_volume_or_not_in_the_map_is_refused() {
    let mut site = Site::new(1, 1);
    site.config.volumes.push(site.path("empty"));
    fs::create_dir(site.path("empty")).expect("made");
    let why = site.refusal();
    assert!(matches!(why, Error::NotInitialised { what: "the volume", .. }), "{why}");
    let entry = init(&site.config, &place()).expect("initialises");
    let why = site.refusal();
    assert!(matches!(why, Error::Map { .. }), "{why}");
    assert!(why.to_string().contains("does not give this node volume"), "{why}");
    site.write_map(entry);
    site.config.volumes.pop();
    let why = site.refusal();
    assert!(why.to_string().contains("in none of its directories"), "{why}");
}

#[test]
fn a_damaged_superblock_is_refused() {
    let site = Site::new(1, 1);
    let superblock = site.volume_dir(0).join("volume.deadwax");
    let file = OpenOptions::new().write(true).open(superblock).expect("opens");
    file.write_all_at(&[0xff; 64], 0).expect("written");
    let why = site.refusal();
    assert!(matches!(why, Error::Volume { .. }), "{why}");
    assert!(init(&site.config, &place()).is_err());
}

#[test]
fn a_map_that_is_missing_foreign_or_elsewhere_is_refused() {
    let mut site = Site::new(1, 1);
    let map = fs::read_to_string(&site.config.map).expect("a map");
    fs::remove_file(&site.config.map).expect("removed");
    assert!(matches!(site.refusal(), Error::Map { .. }));
    fs::write(&site.config.map, "nonsense = ").expect("written");
    assert!(matches!(site.refusal(), Error::Map { .. }));
    fs::write(&site.config.map, map.replace(&site.node.to_string(), &"ab".repeat(32))).expect("written");
    let why = site.refusal();
    assert!(why.to_string().contains("does not name this node"), "{why}");
    fs::write(&site.config.map, map).expect("written");
    site.config.listen = own_address();
    let why = site.refusal();
    assert!(why.to_string().contains("but the settings say"), "{why}");
}

#[test]
fn a_key_that_is_missing_damaged_or_readable_by_others_is_refused() {
    let site = Site::new(1, 1);
    let key = site.config.dir.join("node.key");
    let secret = fs::read(&key).expect("a key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("set");
    let why = site.refusal();
    assert!(why.to_string().contains("chmod 600"), "{why}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");
    fs::write(&key, "not a key").expect("written");
    assert!(matches!(site.refusal(), Error::Key { .. }));
    assert!(init(&site.config, &place()).is_err(), "a damaged key is not replaced");
    fs::remove_file(&key).expect("removed");
    assert!(matches!(site.refusal(), Error::NotInitialised { what: "the node", .. }));
    fs::write(&key, secret).expect("written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");
    site.start().stop();
}

#[test]
fn directories_that_cannot_be_used_are_named() {
    let mut site = Site::new(1, 1);
    let file = site.path("a-file");
    fs::write(&file, "").expect("written");
    site.config.volumes = vec![file.join("volume")];
    let why = init(&site.config, &place()).expect_err("no directory can be there");
    assert!(matches!(why, Error::Dir { .. }), "{why}");
    let full = site.path("full");
    fs::create_dir(&full).expect("made");
    fs::write(full.join("holiday.jpg"), "precious").expect("written");
    site.config.volumes = vec![full.clone()];
    let why = init(&site.config, &place()).expect_err("not empty");
    assert!(why.to_string().contains("holiday.jpg"), "{why}");
    assert_eq!(fs::read(full.join("holiday.jpg")).expect("there"), b"precious");
}

#[test]
fn stopping_lets_a_put_end_and_sends_idle_clients_away() {
    let site = Site::new(1, 2);
    let mut node = site.start();
    let volume = site.volumes[0];
    let bytes = audio(1, 3_000_000);
    let id = TrackId::of(&bytes);
    let mut idle = site.connect();
    let mut putting = site.connect();
    assert_eq!(putting.begin_put(volume, id, bytes.len() as u64, &tags("last")), Message::Ready);
    putting.send_data(&bytes[..1_000_000], 500_000);
    node.stopper().stop();
    // The idle one is sent away at once, so that from here on the node is known to be stopping.
    assert_eq!(idle.socket.read(&mut [0; 1]).expect("closed in order"), 0);
    putting.send_data(&bytes[1_000_000..], 500_000);
    assert!(matches!(putting.reply(), Message::Stored { already: false, .. }));
    assert_eq!(putting.socket.read(&mut [0; 1]).expect("closed in order"), 0);
    node.join();
    let _node = site.start();
    assert_eq!(site.connect().get(volume, id, 0, bytes.len() as u64), bytes);
}

#[test]
fn a_stopping_node_does_not_wait_for_ever() {
    let mut site = Site::new(1, 2);
    site.config.drain_timeout_s = 1;
    let mut node = site.start();
    let mut stalled = site.connect();
    let id = TrackId::of(&audio(1, 1_000));
    assert_eq!(stalled.begin_put(site.volumes[0], id, 1_000, &tags("never")), Message::Ready);
    node.stopper().stop();
    node.join();
    assert_eq!(stalled.socket.read(&mut [0; 1]).unwrap_or(0), 0);
    let _node = site.start();
    assert_eq!(site.connect().has(site.volumes[0], id), Message::Absent);
}

#[test]
fn sigterm_ends_the_process_in_order() {
    let site = Site::new(1, 2);
    let bytes = audio(1, 1_000_000);
    for signal in ["-TERM", "-INT"] {
        let mut process = site.spawn();
        let mut peer = site.connect();
        if signal == "-TERM" {
            peer.put(site.volumes[0], &bytes, "kept");
        }
        assert_eq!(peer.get(site.volumes[0], TrackId::of(&bytes), 0, 1_000_000), bytes);
        process.signal(signal);
        let status = process.child.wait().expect("ends");
        assert!(status.success(), "{signal}: {status}");
    }
}

#[test]
fn a_second_signal_exits_at_once() {
    let site = Site::new(1, 1);
    let mut process = site.spawn();
    let mut idle = site.connect();
    let mut stalled = site.connect();
    let id = TrackId::of(&audio(1, 1_000));
    assert_eq!(stalled.begin_put(site.volumes[0], id, 1_000, &tags("never")), Message::Ready);
    process.signal("-TERM");
    assert_eq!(idle.socket.read(&mut [0; 1]).expect("closed in order"), 0);
    process.signal("-INT");
    assert_eq!(process.child.wait().expect("ends").code(), Some(130));
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let site = Site::new(1, 2);
    let volume = site.volumes[0];
    let tracks: Vec<_> = (1..9_u32).map(|seed| audio(seed, 400_000)).collect();
    let mut process = site.spawn();
    let mut peer = site.connect();
    for bytes in &tracks {
        peer.put(volume, bytes, "kept");
    }
    let torn = audio(100, 4_000_000);
    assert_eq!(peer.begin_put(volume, TrackId::of(&torn), 4_000_000, &tags("torn")), Message::Ready);
    peer.send_data(&torn[..3_000_000], 1_000_000);
    process.child.kill().expect("killed");
    process.child.wait().expect("ended");
    let _node = site.start();
    let mut peer = site.connect();
    for bytes in &tracks {
        assert_eq!(peer.get(volume, TrackId::of(bytes), 0, bytes.len() as u64), *bytes);
    }
    assert_eq!(peer.has(volume, TrackId::of(&torn)), Message::Absent);
}

/// A node of two volumes with a track on each, and where the second volume is.
fn two_volumes(shards: usize) -> (Site, Vec<u8>, std::path::PathBuf) {
    let (site, bytes) = (Site::new(2, shards), audio(1, 1_000_000));
    let node = site.start();
    let mut peer = site.connect();
    for volume in &site.volumes {
        peer.put(*volume, &bytes, "kept");
    }
    node.stop();
    let dir = site.volume_dir(1).to_owned();
    (site, bytes, dir)
}

/// The node serves its first volume, and says of the second that it is fenced, and why.
fn serves_without_the_second(site: &Site, bytes: &[u8], why: &str) {
    let (node, id) = (site.start(), TrackId::of(bytes));
    let mut peer = site.connect();
    assert_eq!(peer.get(site.volumes[0], id, 0, bytes.len() as u64), bytes);
    let status = peer.status();
    let states: Vec<_> = status.volumes.iter().map(|volume| (volume.id, volume.state)).collect();
    assert_eq!(states, [(site.volumes[0], VolumeState::Serving), (site.volumes[1], VolumeState::Fenced)]);
    let reason = status.volumes[1].reason.as_deref().unwrap_or_default();
    assert!(reason.contains(why), "{reason}");
    let volume = site.volumes[1];
    let range = ByteRange::new(0, 1).expect("not empty");
    for request in [
        Message::Has { volume, id },
        Message::Get { volume, id, range },
        Message::Info { volume, id },
        Message::TakeDown { volume, id, number: 1 },
        Message::Digests { volume, first: Partition(0), count: 1 },
        Message::Put { volume, id, bytes: 5, tags: tags("no") },
    ] {
        let (code, message) = site.connect().error(&request);
        assert_eq!(code, ErrorCode::Fenced, "{message}");
        assert!(message.contains(why), "{message}");
    }
    drop(peer);
    node.stop();
}

#[test]
fn a_volume_whose_drive_is_missing_is_fenced_and_the_others_served() {
    for shards in [1, 2] {
        let (site, bytes, dir) = two_volumes(shards);
        let away = site.path("away");
        fs::rename(&dir, &away).expect("moved");
        serves_without_the_second(&site, &bytes, "make the directory");
        // As where it is not mounted.
        fs::create_dir(&dir).expect("made");
        serves_without_the_second(&site, &bytes, "is not initialised");
        fs::rename(site.volume_dir(0), site.path("away too")).expect("moved");
        assert!(matches!(site.refusal(), Error::Unfit(_)), "none can be opened");
        fs::rename(site.path("away too"), site.volume_dir(0)).expect("moved");
        fs::remove_dir(&dir).expect("empty: nothing was written to it");
        fs::rename(&away, &dir).expect("moved");
        let _node = site.start();
        assert_eq!(site.connect().get(site.volumes[1], TrackId::of(&bytes), 0, 1_000_000), bytes);
    }
}

#[test]
fn a_volume_that_cannot_be_opened_is_fenced_and_the_others_served() {
    let (site, bytes, dir) = two_volumes(2);
    let segments = dir.join("segments");
    fs::rename(&segments, dir.join("segments away")).expect("moved");
    fs::write(&segments, "no directory").expect("written");
    serves_without_the_second(&site, &bytes, "segments");
    fs::remove_file(&segments).expect("removed");
    fs::rename(dir.join("segments away"), &segments).expect("moved");
    let superblock = OpenOptions::new().write(true).open(dir.join("volume.deadwax")).expect("opens");
    superblock.write_all_at(&[0xff; 64], 0).expect("written");
    serves_without_the_second(&site, &bytes, "volume.deadwax");
}

#[test]
fn a_foreign_volume_beside_good_ones_is_refused() {
    let (mut site, _, _) = two_volumes(1);
    let other = Site::new(1, 1);
    site.config.volumes[1] = other.volume_dir(0).to_owned();
    assert!(matches!(site.refusal(), Error::ForeignVolume { .. }));
}
