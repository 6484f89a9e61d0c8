//! Volumes come and go while the node serves.

use std::fs;
use std::thread;
use std::time::Duration;

use deadwax_dht::wire::{ErrorCode, Message, VolumeState};
use deadwax_node::init;
use deadwax_track::TrackId;

use crate::cluster::{Site, place};
use crate::drives::{from_a_file, volume_once, write_settings};
use crate::peer::{audio, tags};

/// Gives the node a volume more: made, in the settings, and in a map of the next epoch.
fn add_volume(site: &mut Site, name: &str) {
    site.config.volumes.push(site.path(name));
    let entry = init(&site.config, &place()).expect("initialises");
    site.volumes = entry.volumes.iter().map(|volume| volume.id).collect();
    site.epoch += 1;
    site.write_map(entry);
    write_settings(site, &site.path("node.toml"));
}

#[test]
fn a_volume_is_added_and_another_retired_while_the_node_serves() {
    for shards in [1, 2] {
        let mut site = Site::new(1, shards);
        from_a_file(&mut site);
        let node = site.start();
        let (old, new) = (audio(1, 1_000_000), audio(2, 1_000_000));
        let first = site.volumes[0];
        site.connect().put(first, &old, "old");

        add_volume(&mut site, "added");
        let second = site.volumes[1];
        node.stopper().reload().expect("in order");
        let mut peer = site.connect();
        peer.put(second, &new, "new");
        assert_eq!(peer.get(second, TrackId::of(&new), 0, 1_000_000), new);
        assert_eq!(peer.get(first, TrackId::of(&old), 0, 1_000_000), old);
        assert!(peer.status().volumes.iter().all(|volume| volume.state == VolumeState::Serving));

        // The first is retired, while a put to it is under way.
        let late = audio(3, 500_000);
        let mut putting = site.connect();
        assert_eq!(putting.begin_put(first, TrackId::of(&late), 500_000, &tags("late")), Message::Ready);
        let retired = site.config.volumes.remove(0);
        site.epoch += 1;
        site.write_map(init(&site.config, &place()).expect("initialises"));
        write_settings(&site, &site.path("node.toml"));
        let stopper = node.stopper().clone();
        let reload = thread::spawn(move || stopper.reload());
        site.epoch -= 1;
        volume_once(&site, first, |volume| volume.state == VolumeState::Fenced);
        putting.send_data(&late, 100_000);
        assert!(matches!(putting.reply(), Message::Stored { already: false, .. }), "what was begun may end");
        reload.join().expect("no panic").expect("in order");
        site.epoch += 1;

        let mut peer = site.connect();
        let (code, message) = peer.error(&Message::Has { volume: first, id: TrackId::of(&old) });
        assert_eq!(code, ErrorCode::Fenced, "{message}");
        assert!(message.contains("retired"), "{message}");
        let status = volume_once(&site, first, |_| true);
        assert!(status.reason.is_some_and(|reason| reason.contains("retired")));
        fs::File::open(retired.join("volume.deadwax")).expect("there").try_lock().expect("nobody has it open");
        assert_eq!(peer.get(second, TrackId::of(&new), 0, 1_000_000), new);

        // And it may come back.
        site.config.volumes.push(retired);
        site.epoch += 1;
        site.write_map(init(&site.config, &place()).expect("initialises"));
        write_settings(&site, &site.path("node.toml"));
        node.stopper().reload().expect("in order");
        let mut peer = site.connect();
        assert_eq!(peer.get(first, TrackId::of(&old), 0, 1_000_000), old);
        assert_eq!(peer.get(first, TrackId::of(&late), 0, 500_000), late);
        drop((peer, putting));
        node.stop();
    }
}

#[test]
fn a_reload_that_is_not_in_order_changes_nothing_and_says_why() {
    let mut site = Site::new(1, 2);
    from_a_file(&mut site);
    let (file, good) = (site.path("node.toml"), site.config.clone());
    let other = Site::new(1, 1);
    let node = site.start();
    let volume = site.volumes[0];
    let bytes = audio(1, 100_000);
    site.connect().put(volume, &bytes, "kept");
    let refused = |text: String, part: &str| {
        fs::write(&file, text).expect("written");
        let why = node.stopper().reload().expect_err("refused").to_string();
        assert!(why.contains(part), "{why}");
        let mut peer = site.connect();
        let status = peer.status();
        assert_eq!((status.volumes.len(), status.epoch), (1, 1));
        assert_eq!(status.volumes[0].state, VolumeState::Serving);
        assert_eq!(peer.get(volume, TrackId::of(&bytes), 0, 100_000), bytes);
    };
    let with = |dir: &std::path::Path| {
        let mut config = good.clone();
        config.volumes.push(dir.to_owned());
        config.to_toml()
    };
    refused(format!("volumez = 1\n{}", good.to_toml()), "line 1");
    let empty = site.path("empty");
    fs::create_dir(&empty).expect("made");
    refused(with(&empty), "cluster init");
    refused(with(&site.path("missing")), "make the directory");
    refused(with(other.volume_dir(0)), "belongs to node");
    let clone = site.path("clone");
    fs::create_dir_all(clone.join("segments")).expect("made");
    fs::copy(good.volumes[0].join("volume.deadwax"), clone.join("volume.deadwax")).expect("copied");
    refused(with(&clone), "one is a copy of the other");
    let mut unmapped = good.clone();
    unmapped.volumes.push(site.path("unmapped"));
    init(&unmapped, &place()).expect("initialises");
    refused(unmapped.to_toml(), "does not give this node volume");
    let map = fs::read_to_string(&good.map).expect("a map");
    fs::write(&good.map, "nonsense = ").expect("written");
    refused(good.to_toml(), "map");
    fs::write(&good.map, map).expect("written");
    fs::write(&file, good.to_toml()).expect("written");
    node.stopper().reload().expect("in order again");
    node.stop();
}

#[test]
fn sighup_has_a_process_read_its_settings_again() {
    let mut site = Site::new(1, 2);
    let mut process = site.spawn();
    let bytes = audio(1, 100_000);
    site.connect().put(site.volumes[0], &bytes, "kept");
    add_volume(&mut site, "added");
    process.signal("-HUP");
    // A greeting says at which epoch the node is.
    let at_new_epoch = || {
        let mut peer = site.connect_raw();
        let hello = peer.hello();
        matches!(peer.ask(&hello), Message::Welcome { epoch, .. } if epoch == site.epoch)
    };
    while !at_new_epoch() {
        thread::sleep(Duration::from_millis(20));
    }
    volume_once(&site, site.volumes[1], |volume| volume.state == VolumeState::Serving);
    let mut peer = site.connect();
    peer.put(site.volumes[1], &bytes, "new");
    assert_eq!(peer.get(site.volumes[0], TrackId::of(&bytes), 0, 100_000), bytes);
    drop(peer);
    process.signal("-TERM");
    assert!(process.child.wait().expect("ends").success());
}
