//! Nodes of one cluster, each with the core of its rules: what one missed or lost, it gets from the others.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use deadwax_dht::wire::{ErrorCode, Message, Repairing};
use deadwax_dht::{Map, VolumeId};
use deadwax_node::{Config, Error, init, rejoin, run};
use deadwax_track::{ByteRange, TrackId};

use crate::cluster::{Site, place};
use crate::peer::{Peer, audio, tags};

/// How long healing may take: a change waits 5 s to be compared, a pair 20 s for its turn, and a track that is missing
/// 10 s for its put to end.
pub(crate) const HEALED: Duration = Duration::from_secs(100);
/// How long a copy outside the holders may stay once they all have it.
const STRAY_GONE: Duration = Duration::from_secs(200);
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Asks until the answer is the one that is waited for.
pub(crate) fn until<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) => assert!(began.elapsed() < within, "{what}: after {within:?} still {why}"),
        }
        sleep(ASK_AGAIN);
    }
}

/// Stores a track on one volume, once the node is sure that it may take it.
pub(crate) fn put(site: &Site, bytes: &[u8]) -> TrackId {
    let (volume, id) = (site.volumes[0], TrackId::of(bytes));
    store(site, bytes, &Message::Put { volume, id, bytes: bytes.len() as u64, tags: tags("a track") })
}

fn store(site: &Site, bytes: &[u8], offer: &Message) -> TrackId {
    let id = TrackId::of(bytes);
    let mut peer = until("a put begins", HEALED, || {
        let mut peer = site.connect();
        match peer.ask(offer) {
            Message::Ready => Ok(peer),
            other => Err(format!("{other:?}")),
        }
    });
    peer.send_data(bytes, deadwax_dht::wire::DATA_BYTES_MAX);
    assert!(matches!(peer.reply(), Message::Stored { already: false, .. }));
    id
}

pub(crate) fn has(site: &Site, id: TrackId) -> Result<(), String> {
    match site.connect().has(site.volumes[0], id) {
        Message::Present { .. } => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// All of a track's bytes from one volume, or how the volume fails.
pub(crate) fn read(site: &Site, id: TrackId, bytes: usize) -> Result<Vec<u8>, ErrorCode> {
    let mut peer: Peer = site.connect();
    let range = ByteRange::new(0, bytes as u64).expect("a range");
    let mut got = Vec::new();
    let mut reply = peer.ask(&Message::Get { volume: site.volumes[0], id, range });
    loop {
        match reply {
            Message::Found { .. } => {}
            Message::Data(bytes) => got.extend_from_slice(&bytes),
            Message::End => return Ok(got),
            Message::Error { code, .. } => return Err(code),
            other => panic!("{other:?} answers a get"),
        }
        reply = peer.reply();
    }
}

#[test]
fn a_node_that_was_away_gets_what_it_missed() {
    gets_what_it_missed(&Site::trio());
}

#[test]
fn a_node_that_was_away_gets_what_it_missed_over_tls() {
    gets_what_it_missed(&Site::trio_with(|config| {
        config.tls = true;
        config.clients = vec![Site::client().node_id()];
    }));
}

fn gets_what_it_missed(sites: &[Site; 3]) {
    let tracks: Vec<_> = (0..5).map(|seed| audio(seed, 300_000 + 70_000 * seed as usize)).collect();
    let there = [sites[0].start(), sites[1].start()];
    for bytes in &tracks {
        (0..2).for_each(|at| _ = put(&sites[at], bytes));
    }
    let third = sites[2].start();
    for bytes in &tracks {
        let id = TrackId::of(bytes);
        until("the third copy comes", HEALED, || has(&sites[2], id));
        assert_eq!(read(&sites[2], id, bytes.len()).as_ref(), Ok(bytes));
    }
    third.stop();
    // What it got is durable, and counted once.
    let third = sites[2].spawn();
    for bytes in &tracks {
        until("it is there after a restart", HEALED, || has(&sites[2], TrackId::of(bytes)));
    }
    drop(third);
    there.into_iter().for_each(crate::cluster::Running::stop);
}

#[test]
fn an_operator_has_all_compared_and_learns_when_nothing_is_missing() {
    let sites = Site::trio();
    let report = |site: &Site, request| match site.connect().ask(&Message::Repairing(request)) {
        Message::Repairing(Repairing::RepairReport(report)) => report,
        other => panic!("{other:?} answers how repair goes"),
    };
    let there = [sites[0].start(), sites[1].start()];
    let missed = |seed| {
        let bytes = audio(seed, 200_000);
        (0..2).for_each(|at| _ = put(&sites[at], &bytes));
        TrackId::of(&bytes)
    };
    let ids: Vec<TrackId> = (20..25).map(missed).collect();
    let third = sites[2].start();
    let asked = report(&sites[2], Repairing::RepairNow).expect("it has a log");
    assert!(asked.comparing + asked.unanswered > 0 && asked.pulls.bytes_pulled == 0, "{asked:?}");
    until("nothing is missing", HEALED, || {
        let all = sites.iter().map(|site| report(site, Repairing::AskRepair).expect("it has a log"));
        let all: Vec<_> = all.collect();
        if all.iter().all(|now| now.is_done() && now.unanswered == 0) { Ok(()) } else { Err(format!("{all:?}")) }
    });
    for id in ids {
        has(&sites[2], id).expect("nothing is missing");
    }
    there.into_iter().chain([third]).for_each(crate::cluster::Running::stop);
    // Without a log there is nothing of the kind.
    let alone = Site::new(1, 1);
    let node = alone.start();
    assert_eq!(report(&alone, Repairing::AskRepair), None);
    node.stop();
}

#[test]
fn a_node_that_lost_what_it_kept_of_its_cluster_takes_it_from_the_others() {
    let mut sites = Site::trio();
    let running = [sites[0].start(), sites[1].start()];
    let bytes = audio(3, 400_000);
    let id = put(&sites[0], &bytes);
    // It got another drive since the map's file was written.
    let second = sites[2].path("second");
    std::fs::create_dir(&second).expect("made");
    sites[2].config.volumes.push(second);
    init(&sites[2].config, &place()).expect("initialises");
    std::fs::remove_dir_all(sites[2].config.dir.join("system")).expect("it was there");
    let why = sites[2].refusal();
    assert!(matches!(&why, Error::NoSystem(_)) && why.to_string().contains("cluster rejoin"), "{why}");
    rejoin(&sites[2].config).expect("nothing is there");
    assert!(matches!(rejoin(&sites[0].config), Err(Error::Running(_))));
    let third = sites[2].start();
    assert_eq!(sites[2].connect().status().volumes.len(), 2);
    until("it has the track", HEALED, || has(&sites[2], id));
    assert_eq!(read(&sites[2], id, bytes.len()), Ok(bytes));
    third.stop();
    assert!(matches!(rejoin(&sites[2].config), Err(Error::SystemTaken(_))));
    let fixed = Config { log: false, issuers: Vec::new(), issuer_key: None, ..sites[2].config.clone() };
    let why = run(fixed, |_| panic!("it serves by a map that may be old")).expect_err("refused");
    assert!(matches!(why, Error::Setting { setting: "log", .. }), "{why}");
    running.into_iter().for_each(crate::cluster::Running::stop);
}

#[test]
fn a_copy_that_rots_is_written_anew_from_another() {
    let sites = Site::trio();
    let running = [sites[0].start(), sites[1].start(), sites[2].start()];
    let bytes = audio(7, 500_000);
    let id = put(&sites[0], &bytes);
    (1..3).for_each(|at| _ = put(&sites[at], &bytes));
    flip(sites[1].volume_dir(0), &bytes[300_000..300_032]);
    // Found by whoever reads it, or by scrub.
    until("the rot is found", HEALED, || match read(&sites[1], id, bytes.len()) {
        Err(ErrorCode::Corrupt) => Ok(()),
        other => Err(format!("{:?}", other.map(|got| got.len()))),
    });
    until("the copy is mended", HEALED, || match read(&sites[1], id, bytes.len()) {
        Ok(got) if got == bytes => Ok(()),
        other => Err(format!("{:?}", other.map(|got| got.len()))),
    });
    running.into_iter().for_each(crate::cluster::Running::stop);
}

#[test]
fn what_a_stand_in_took_comes_home_and_is_gone_there() {
    let sites: [Site; 4] = Site::founders(|_| {});
    let bytes = audio(9, 350_000);
    let id = TrackId::of(&bytes);
    let map = Map::load(&sites[0].config.map).expect("saved");
    let holders: Vec<VolumeId> = map.holders(id.partition()).iter().map(|holder| holder.volume).collect();
    let (held, others): (Vec<&Site>, Vec<&Site>) = sites.iter().partition(|site| holders.contains(&site.volumes[0]));
    let (away, stand_in) = (held[0], others[0]);
    let mut running: Vec<_> = sites.iter().filter(|site| site.node != away.node).map(Site::start).collect();
    held[1..].iter().for_each(|site| _ = put(site, &bytes));
    let volume = stand_in.volumes[0];
    store(stand_in, &bytes, &Message::StandIn { volume, id, bytes: bytes.len() as u64, tags: tags("a track") });
    let stray = || {
        let list = Message::List { volume, partition: id.partition(), after: None, limit: 10 };
        let Message::Ids(ids) = stand_in.connect().ask(&list) else { panic!("no list") };
        ids
    };
    assert_eq!(stray(), [id]);
    running.push(away.start());
    until("the holder has it", HEALED, || has(away, id));
    assert_eq!(read(away, id, bytes.len()), Ok(bytes));
    until("the stand-in has let it go", STRAY_GONE, || match stray() {
        ids if ids.is_empty() => Ok(()),
        ids => Err(format!("{ids:?}")),
    });
    held.iter().for_each(|site| has(site, id).expect("holders keep it"));
    running.into_iter().for_each(crate::cluster::Running::stop);
}

#[test]
fn absent_is_said_once_the_holders_have_compared_themselves() {
    let sites = Site::trio();
    let running = [sites[0].start(), sites[1].start(), sites[2].start()];
    let id = TrackId::of(b"nobody ever stored this");
    until("it is known to be absent", HEALED, || match sites[0].connect().has(sites[0].volumes[0], id) {
        Message::Absent => Ok(()),
        other => Err(format!("{other:?}")),
    });
    running.into_iter().for_each(crate::cluster::Running::stop);
}

/// Flips a bit of these bytes, wherever they are on the volume.
fn flip(volume: &Path, bytes: &[u8]) {
    let segments: Vec<PathBuf> =
        std::fs::read_dir(volume.join("segments")).expect("segments").map(|entry| entry.expect("one").path()).collect();
    for path in segments {
        let held = std::fs::read(&path).expect("readable");
        if let Some(at) = held.windows(bytes.len()).position(|window| window == bytes) {
            let file = std::fs::OpenOptions::new().write(true).open(&path).expect("opens");
            file.write_all_at(&[held[at] ^ 1], at as u64).expect("written");
            return;
        }
    }
    panic!("the bytes are in no segment");
}
