//! Drives that are checked when an operator wants it, and files that vanish from them while they serve.

use std::fs;
use std::time::{Duration, Instant};

use deadwax_dht::wire::{ErrorCode, Message, Scrubbing, VolumeScrub, VolumeState};
use deadwax_track::TrackId;

use crate::cluster::Site;
use crate::drives::volume_once;
use crate::heal::until;
use crate::peer::{Peer, audio};

const PATIENCE: Duration = Duration::from_secs(60);

fn scrubs(peer: &mut Peer, request: Scrubbing) -> Vec<VolumeScrub> {
    match peer.ask(&Message::Scrubbing(request)) {
        Message::Scrubbing(Scrubbing::Scrubs(scrubs)) => scrubs,
        other => panic!("{other:?} answers how scrubbing goes"),
    }
}

#[test]
fn an_operator_has_a_volume_read_to_the_end_on_all_shards() {
    let site = Site::new(2, 2);
    let node = site.start();
    let mut peer = site.connect();
    for seed in 1..9 {
        peer.put(site.volumes[0], &audio(seed, 300_000), "kept");
    }
    let before = scrubs(&mut peer, Scrubbing::AskScrubs);
    assert_eq!(before.iter().map(|scrub| scrub.id).collect::<Vec<_>>(), site.volumes);
    assert!(
        before.iter().all(|scrub| scrub.verified_s.is_some_and(|ago| ago < 60)),
        "new volumes count from when they were made: {before:?}"
    );
    let scrub = Scrubbing::Scrub { volume: Some(site.volumes[0]), bytes_per_second: 1 << 40 };
    let begun = scrubs(&mut peer, scrub);
    assert!(begun[0].running, "{begun:?}");
    until("it is read to the end", PATIENCE, || {
        let now = scrubs(&mut peer, Scrubbing::AskScrubs);
        let done = !now[0].running && now[0].passes > begun[0].passes;
        if done { Ok(()) } else { Err(format!("{now:?}")) }
    });
    let after = scrubs(&mut peer, Scrubbing::AskScrubs);
    assert!(after[0].all_bytes >= 8 * 300_000 && after[0].pass_damaged == 0, "{after:?}");
    let unknown = Scrubbing::Scrub { volume: Some(deadwax_dht::VolumeId::from_bytes([1; 16])), bytes_per_second: 1 };
    assert_eq!(peer.error(&Message::Scrubbing(unknown)).0, ErrorCode::WrongNode);
    node.stop();
}

#[test]
fn a_volume_whose_segments_are_removed_says_so_at_once_and_comes_back_without_them() {
    let site = Site::new(1, 2);
    let node = site.start();
    let volume = site.volumes[0];
    let tracks: Vec<_> = (1..9_u32).map(|seed| audio(seed, 300_000)).collect();
    let mut peer = site.connect();
    for bytes in &tracks {
        peer.put(volume, bytes, "kept");
    }
    let segments = site.volume_dir(0).join("segments");
    for entry in fs::read_dir(&segments).expect("lists") {
        fs::remove_file(entry.expect("lists").path()).expect("removes");
    }
    let began = Instant::now();
    let fenced = volume_once(&site, volume, |status| status.state == VolumeState::Fenced && status.reason.is_some());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let why = fenced.reason.expect("why");
    assert!(why.contains(".segment was removed") && why.contains("opened again by itself"), "{why}");
    let back = volume_once(&site, volume, |status| status.state == VolumeState::Serving);
    assert_eq!(back.tracks, 0, "it counts what is left");
    let mut peer = site.connect();
    for bytes in &tracks {
        let has = Message::Has { volume, id: TrackId::of(bytes) };
        assert_eq!(peer.ask(&has), Message::Absent);
        peer.put(volume, bytes, "again");
    }
    node.stop();
}
