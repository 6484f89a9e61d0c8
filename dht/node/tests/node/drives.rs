//! Drives that fail while the node serves: fenced on all shards, with the reason in the status; the others serve on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use deadwax_dht::wire::{ErrorCode, Message, VolumeState, VolumeStatus};
use deadwax_dht::{Map, VolumeId};
use deadwax_node::{Error, init, rejoin};
use deadwax_track::{ByteRange, Partition, TrackId};

use crate::cluster::{Running, Site, place};
use crate::heal::{HEALED, has, put, until};
use crate::peer::{audio, tags};

/// How long a test waits for what must happen within seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Within what time a drive is to be given up.
const FENCED_WITHIN: Duration = Duration::from_secs(5);

/// A volume's status, once `done` says so of it.
pub(crate) fn volume_once(site: &Site, id: VolumeId, done: impl Fn(&VolumeStatus) -> bool) -> VolumeStatus {
    let began = Instant::now();
    let mut peer = site.connect();
    loop {
        let status = peer.status();
        let volume = status.volumes.iter().find(|volume| volume.id == id);
        if let Some(volume) = volume.filter(|volume| done(volume)) {
            return volume.clone();
        }
        assert!(began.elapsed() < PATIENCE, "{:?}", status.volumes);
        sleep(Duration::from_millis(20));
    }
}

/// Every request on the volume is answered Fenced, on every shard, with the reason.
fn answers_fenced(site: &Site, volume: VolumeId, why: &str) {
    for seed in 0..8 {
        let id = TrackId::of(&audio(seed, 100));
        let range = ByteRange::new(0, 1).expect("not empty");
        for request in [
            Message::Has { volume, id },
            Message::Get { volume, id, range },
            Message::Info { volume, id },
            Message::TakeDown { volume, id, number: 1 },
            Message::List { volume, partition: Partition(0), after: None, limit: 1 },
            Message::Put { volume, id, bytes: 100, tags: tags("no") },
        ] {
            let (code, message) = site.connect().error(&request);
            assert_eq!(code, ErrorCode::Fenced, "{message}");
            assert!(message.contains(why), "{message}");
        }
    }
}

/// Starts over from a file of settings, so that they can be read again.
pub(crate) fn from_a_file(site: &mut Site) {
    let file = site.path("node.toml");
    write_settings(site, &file);
    site.config = deadwax_node::Config::load(&file).expect("loads");
}

pub(crate) fn write_settings(site: &Site, file: &Path) {
    fs::write(file, site.config.to_toml()).expect("written");
}

#[test]
fn a_drive_that_vanishes_is_fenced_on_all_shards_and_comes_back_with_a_reload() {
    let mut site = Site::new(2, 2);
    from_a_file(&mut site);
    let node = site.start();
    let tracks: Vec<_> = (1..9_u32).map(|seed| audio(seed, 300_000)).collect();
    let mut peer = site.connect();
    for volume in &site.volumes {
        for bytes in &tracks {
            peer.put(*volume, bytes, "kept");
        }
    }
    let (dir, away) = (site.volume_dir(1).to_owned(), site.path("away"));
    fs::rename(&dir, &away).expect("moved");
    let fenced = volume_once(&site, site.volumes[1], |volume| volume.state == VolumeState::Fenced);
    let why = "its directory is gone";
    assert!(fenced.reason.as_ref().is_some_and(|reason| reason.contains(why)), "{fenced:?}");
    assert_eq!(Path::new(&fenced.dir), dir);
    volume_once(&site, site.volumes[1], |volume| volume.tracks == 0);
    answers_fenced(&site, site.volumes[1], why);
    for bytes in &tracks {
        assert_eq!(peer.get(site.volumes[0], TrackId::of(bytes), 0, 300_000), *bytes);
    }
    // Tried again too early it stays as it is.
    node.stopper().reload().expect("the rest is in order");
    assert_eq!(volume_once(&site, site.volumes[1], |_| true).state, VolumeState::Fenced);
    fs::rename(&away, &dir).expect("moved");
    node.stopper().reload().expect("in order");
    let open = volume_once(&site, site.volumes[1], |_| true);
    assert_eq!((open.state, open.tracks, open.reason), (VolumeState::Serving, 8, None));
    for bytes in &tracks {
        assert_eq!(peer.get(site.volumes[1], TrackId::of(bytes), 0, 300_000), *bytes);
    }
    peer.put(site.volumes[1], &audio(100, 5_000), "new");
    drop(peer);
    node.stop();
}

/// A small file system of its own, where the system permits; unmounted when dropped.
pub(crate) struct Drive(pub(crate) PathBuf);

impl Drive {
    /// None: this process may not mount.
    pub(crate) fn mount(at: &Path) -> Option<Self> {
        let image = at.with_extension("image");
        fs::File::create(&image).and_then(|file| file.set_len(256 << 20)).expect("an image");
        fs::create_dir_all(at).expect("made");
        let made = tool("mkfs.ext4", &[Path::new("-q"), &image]);
        if made && tool("mount", &[Path::new("-o"), Path::new("loop"), &image, at]) {
            return Some(Self(at.to_owned()));
        }
        eprintln!("not run: this process may not make and mount a file system");
        None
    }

    /// All that would change the file system waits until the answer is dropped.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        assert!(tool("fsfreeze", &[Path::new("--freeze"), &self.0]), "fsfreeze");
        Frozen(self)
    }
}

pub(crate) struct Frozen<'a>(&'a Drive);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        tool("fsfreeze", &[Path::new("--unfreeze"), &self.0.0]);
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        tool("umount", &[Path::new("--lazy"), &self.0]);
    }
}

fn tool(name: &str, arguments: &[&Path]) -> bool {
    let output = Command::new(name).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn a_file_system_that_hangs_is_fenced_within_5_s_and_comes_back_by_itself_once_it_answers() {
    let mut site = Site::new(1, 2);
    let Some(drive) = Drive::mount(&site.path("drive")) else { return };
    site.config.volumes.push(drive.0.join("volume"));
    let entry = init(&site.config, &place()).expect("initialises");
    site.volumes = entry.volumes.iter().map(|volume| volume.id).collect();
    site.write_map(entry);
    from_a_file(&mut site);
    let node = site.start();
    let mut peer = site.connect();
    let (bytes, lost) = (audio(1, 200_000), audio(2, 200_000));
    for volume in &site.volumes {
        peer.put(*volume, &bytes, "kept");
    }
    let volume = site.volumes[1];
    let frozen = drive.freeze();
    let began = Instant::now();
    // It hangs while a segment is made, or later.
    let mut answer = peer.begin_put(volume, TrackId::of(&lost), 200_000, &tags("lost"));
    if answer == Message::Ready {
        peer.send_data(&lost, 100_000);
        answer = peer.reply();
    }
    let waited = began.elapsed();
    let Message::Error { code: ErrorCode::Fenced, message } = answer else { panic!("{answer:?} after {waited:?}") };
    assert!(message.contains("hangs"), "{message}");
    assert!(waited < FENCED_WITHIN, "answered after {waited:?}");
    let fenced = volume_once(&site, volume, |volume| volume.state == VolumeState::Fenced);
    assert!(fenced.reason.as_ref().is_some_and(|why| why.contains("opened again by itself")), "{fenced:?}");
    answers_fenced(&site, volume, "hangs");
    let mut peer = site.connect();
    peer.put(site.volumes[0], &lost, "elsewhere");
    assert_eq!(peer.get(site.volumes[0], TrackId::of(&lost), 0, 200_000), lost);

    until_probed();
    assert_eq!(volume_once(&site, volume, |_| true).state, VolumeState::Fenced, "the probe hangs, too");
    drop(frozen);
    let back = volume_once(&site, volume, |volume| volume.state == VolumeState::Serving);
    assert_eq!(back.reason, None);
    assert_eq!(peer.status().counters.get("volumes_revived"), Some(&1));
    assert_eq!(peer.get(volume, TrackId::of(&bytes), 0, 200_000), bytes);
    assert_eq!(peer.has(volume, TrackId::of(&lost)), Message::Absent);
    peer.put(volume, &lost, "again");
    drop(peer);
    node.stop();
}

/// A node with one drive, that comes up while it hangs.
fn comes_up<A: FnOnce()>(site: &mut Site, hang: impl FnOnce(&Path) -> A) {
    let entry = init(&site.config, &place()).expect("initialises");
    site.volumes = entry.volumes.iter().map(|volume| volume.id).collect();
    site.write_map(entry);
    let (volume, bytes) = (site.volumes[0], audio(1, 200_000));
    let node = site.start();
    site.connect().put(volume, &bytes, "kept");
    node.stop();
    let answers_again = hang(site.volume_dir(0));
    let node = site.start();
    let fenced = volume_once(site, volume, |volume| volume.state == VolumeState::Fenced);
    assert!(fenced.reason.as_ref().is_some_and(|why| why.contains("opened again by itself")), "{fenced:?}");
    answers_fenced(site, volume, "volume");
    answers_again();
    volume_once(site, volume, |volume| volume.state == VolumeState::Serving);
    assert_eq!(site.connect().get(volume, TrackId::of(&bytes), 0, 200_000), bytes);
    node.stop();
}

#[test]
fn a_node_whose_only_drive_hangs_before_it_starts_comes_up_and_the_drive_by_itself() {
    let mut site = Site::new(1, 1);
    let Some(drive) = Drive::mount(&site.path("drive")) else { return };
    site.config.volumes = vec![drive.0.join("volume")];
    comes_up(&mut site, |_| {
        let frozen = drive.freeze();
        || drop(frozen)
    });
}

#[test]
fn a_node_whose_only_drive_hangs_while_it_is_opened_comes_up_and_the_drive_by_itself() {
    let mut site = Site::new(1, 1);
    site.config.volumes = vec![site.path("new")];
    comes_up(&mut site, |volume| {
        // Whoever opens it waits until somebody writes to it.
        let waits = volume.join("snapshots/0009.snapshot");
        assert!(tool("mkfifo", &[&waits]), "made");
        move || {
            let writes = fs::OpenOptions::new().write(true).open(&waits).expect("somebody waits");
            fs::remove_file(&waits).expect("removed");
            drop(writes);
        }
    });
}

#[test]
fn a_drive_that_hangs_while_its_node_rejoins_is_fenced_once_the_map_has_come_and_comes_back_by_itself() {
    let mut sites = Site::trio();
    let Some(drive) = Drive::mount(&sites[2].path("drive")) else { return };
    let there = drive.0.join("volume");
    assert!(tool("cp", &[Path::new("-r"), sites[2].volume_dir(0), &there]), "copied");
    sites[2].config.volumes = vec![there, sites[2].path("second")];
    let entry = init(&sites[2].config, &place()).expect("initialises");
    // The map's file is of a time when the node had another drive.
    let mut spec = Map::load(&sites[2].config.map).expect("saved").spec().clone();
    let known = spec.nodes.iter_mut().find(|node| node.id == sites[2].node).expect("it is mapped");
    known.volumes = entry.volumes[1..].to_vec();
    Map::new(spec).expect("a good map").save(&sites[2].config.map).expect("saved");
    fs::remove_dir_all(sites[2].config.dir.join("system")).expect("it was there");
    rejoin(&sites[2].config).expect("nothing is there");
    let mut running = vec![sites[0].start(), sites[1].start()];
    let id = put(&sites[0], &audio(1, 300_000));

    let frozen = drive.freeze();
    running.push(sites[2].start());
    let volume = sites[2].volumes[0];
    let fenced = volume_once(&sites[2], volume, |volume| volume.state == VolumeState::Fenced);
    assert!(fenced.reason.as_ref().is_some_and(|why| why.contains("did not answer")), "{fenced:?}");
    assert_eq!(sites[2].connect().error(&Message::Has { volume, id }).0, ErrorCode::Fenced);
    drop(frozen);
    volume_once(&sites[2], volume, |volume| volume.state == VolumeState::Serving);
    until("it has the track", HEALED, || has(&sites[2], id));
    running.into_iter().for_each(Running::stop);
}

/// Waits until the node, which is in this process, probes a drive.
fn until_probed() {
    let names =
        || fs::read_dir("/proc/self/task").expect("threads").filter_map(|task| Some(task.ok()?.path().join("comm")));
    let began = Instant::now();
    while !names().any(|name| fs::read_to_string(name).is_ok_and(|name| name.trim() == "probe")) {
        assert!(began.elapsed() < PATIENCE, "no drive is probed");
        sleep(Duration::from_millis(20));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("segments")).expect("made");
    fs::copy(from.join("volume.deadwax"), to.join("volume.deadwax")).expect("copied");
    for segment in fs::read_dir(from.join("segments")).expect("there") {
        let segment = segment.expect("readable");
        fs::copy(segment.path(), to.join("segments").join(segment.file_name())).expect("copied");
    }
}

#[test]
fn a_cloned_drive_beside_its_original_is_refused() {
    let mut site = Site::new(1, 1);
    site.start().stop();
    let clone = site.path("clone");
    copy(site.volume_dir(0), &clone);
    site.config.volumes.push(clone.clone());
    let why = site.refusal();
    assert!(matches!(why, Error::SameVolume { .. }), "{why}");
    for part in [&site.volumes[0].to_string(), clone.to_str().expect("UTF-8"), "one is a copy of the other"] {
        assert!(why.to_string().contains(part), "{why}");
    }
}

#[test]
fn drives_whose_places_were_exchanged_serve_what_they_hold() {
    let site = Site::new(2, 2);
    let tracks = [audio(1, 100_000), audio(2, 100_000)];
    let node = site.start();
    let mut peer = site.connect();
    for (volume, bytes) in site.volumes.iter().zip(&tracks) {
        peer.put(*volume, bytes, "kept");
    }
    drop(peer);
    node.stop();
    let (first, second, aside) = (site.volume_dir(0), site.volume_dir(1), site.path("aside"));
    fs::rename(first, &aside).expect("moved");
    fs::rename(second, first).expect("moved");
    fs::rename(&aside, second).expect("moved");
    let _node = site.start();
    let mut peer = site.connect();
    for (volume, bytes) in site.volumes.iter().zip(&tracks) {
        assert_eq!(peer.get(*volume, TrackId::of(bytes), 0, 100_000), *bytes);
    }
    assert_eq!(peer.has(site.volumes[0], TrackId::of(&tracks[1])), Message::Absent);
}
