//! Takedowns by the log of a cluster of real nodes, and what gateways follow.

use std::time::{Duration, Instant};

use deadwax_dht::IssuerKey;
use deadwax_dht::takedown::{CopyState, Heads, Takedown};
use deadwax_dht::wire::{ErrorCode, Feed, HolderReceipts, ListedTrack, Message};
use deadwax_node::Error;
use deadwax_track::{Partition, TrackId};

use crate::cluster::{Running, Site};
use crate::heal::{HEALED, put, read, until};
use crate::peer::{audio, tags};

/// Takes a track down, once the node may.
pub(crate) fn issue(site: &Site, id: TrackId) -> u64 {
    let request = Message::Feed(Feed::Issue { id, reason: "a court's order".to_owned() });
    until("the takedown is acknowledged", HEALED, || match site.connect().ask(&request) {
        Message::Feed(Feed::Issued { number, have, members: 3 }) if have >= 2 => Ok(number),
        other => Err(format!("{other:?}")),
    })
}

/// The takedown, and who has erased the track.
fn receipts(site: &Site, number: u64) -> (Takedown, HolderReceipts) {
    match site.connect().ask(&Message::Feed(Feed::Receipts { number })) {
        Message::Feed(Feed::ReceiptList { takedown, holders: Some(holders) }) => (*takedown, holders),
        other => panic!("{other:?} answers no question for receipts"),
    }
}

fn erased(holders: &HolderReceipts) -> usize {
    holders.copies.iter().filter(|copy| matches!(copy.state, CopyState::Erased(_))).count()
}

/// Reads until the volume says that the track was taken down; it must not give a byte of it meanwhile.
fn never_served(site: &Site, id: TrackId, bytes: usize) {
    until("the volume knows of the takedown", HEALED, || match read(site, id, bytes) {
        Err(ErrorCode::TakenDown { number }) => Ok(number),
        // It has not heard of takedowns since it started.
        Err(ErrorCode::Busy) => Err("busy".to_owned()),
        other => panic!("{:?} though it was taken down", other.map(|got| got.len())),
    });
}

#[test]
fn a_track_is_taken_down_while_a_holder_is_away_and_it_never_serves_it_again() {
    let sites = Site::trio();
    let mut running: Vec<_> = sites.iter().map(Site::start).collect();
    let bytes = audio(1, 300_000);
    let id = put(&sites[0], &bytes);
    (1..3).for_each(|at| _ = put(&sites[at], &bytes));
    running.pop().expect("the third").stop();

    let number = issue(&sites[0], id);
    assert_eq!(issue(&sites[1], id), number, "asked again, elsewhere, it has the same number");
    for site in &sites[..2] {
        let offered = site.connect().begin_put(site.volumes[0], id, bytes.len() as u64, &tags("again"));
        let is_refused =
            matches!(offered, Message::Error { code: ErrorCode::TakenDown { number: got }, .. } if got == number);
        assert!(is_refused, "{offered:?}");
    }
    let (takedown, _) = receipts(&sites[0], number);
    assert_eq!((takedown.track, takedown.name().in_cluster()), (id, number));
    until("those that are there have erased it", HEALED, || {
        let (_, holders) = receipts(&sites[0], number);
        if erased(&holders) == 2 && !holders.complete { Ok(()) } else { Err(format!("{holders:?}")) }
    });

    running.push(sites[2].start());
    never_served(&sites[2], id, bytes.len());
    until("all have erased it", HEALED, || {
        let (_, holders) = receipts(&sites[0], number);
        if erased(&holders) == 3 && holders.complete { Ok(()) } else { Err(format!("{holders:?}")) }
    });
    running.into_iter().for_each(Running::stop);
    // The drive itself refuses it from now on, whatever the log's file says.
    let third = sites[2].start();
    assert_eq!(sites[2].connect().status().volumes[0].takedowns, 1);
    let code = read(&sites[2], id, bytes.len()).expect_err("it is gone");
    assert_eq!(code, ErrorCode::TakenDown { number });
    third.stop();
}

#[test]
fn whoever_waits_hears_of_a_takedown_at_once_and_no_node_that_stops_waits_for_him() {
    let sites = Site::trio();
    let running: Vec<_> = sites.iter().map(Site::start).collect();
    let known =
        until("the node may answer", HEALED, || match sites[1].connect().ask(&Message::Feed(Feed::TakedownHeads)) {
            Message::Feed(Feed::Heads(heads)) => Ok(heads),
            other => Err(format!("{other:?}")),
        });
    assert_eq!(known, Heads::default());
    let after =
        |known: &Heads, wait_ms| Message::Feed(Feed::TakedownsAfter { known: known.clone(), wait_ms, limit: 10 });
    let mut waiting = sites[1].connect();
    assert_eq!(waiting.ask(&after(&known, 50)), Message::Feed(Feed::Takedowns(Vec::new())));

    let id = TrackId::of(b"nobody ever stored this");
    waiting.request += 1;
    waiting.send(&after(&known, 25_000));
    let number = issue(&sites[0], id);
    let began = Instant::now();
    let Message::Feed(Feed::Takedowns(records)) = waiting.reply() else { panic!("takedowns come") };
    assert!(began.elapsed() < Duration::from_secs(5), "after {:?}", began.elapsed());
    let heard: Vec<_> = records.iter().map(|record| (record.track, record.name().in_cluster())).collect();
    assert_eq!(heard, [(id, number)]);

    // Any node goes on from where another one was.
    let known = known.advanced(&records);
    let mut elsewhere = sites[2].connect();
    until("the third has it, too", HEALED, || match elsewhere.ask(&after(&Heads::default(), 1_000)) {
        Message::Feed(Feed::Takedowns(records)) if records.len() == 1 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(elsewhere.ask(&after(&known, 50)), Message::Feed(Feed::Takedowns(Vec::new())));
    elsewhere.request += 1;
    elsewhere.send(&after(&known, 25_000));
    let began = Instant::now();
    running.into_iter().for_each(Running::stop);
    assert!(began.elapsed() < Duration::from_secs(15), "stopped after {:?}", began.elapsed());
}

#[test]
fn a_partition_is_listed_page_by_page_without_what_was_taken_down() {
    let sites = Site::trio();
    let running: Vec<_> = sites.iter().map(Site::start).collect();
    let partition = Partition(0x00ab);
    let is_there = |bytes: &Vec<u8>| TrackId::of(bytes).partition() == partition;
    let candidates = (0_u32..).map(|seed| seed.to_le_bytes().to_vec());
    let tracks: Vec<Vec<u8>> = candidates.filter(is_there).take(5).collect();
    for bytes in &tracks {
        (0..3).for_each(|at| _ = put(&sites[at], bytes));
    }
    let mut ids: Vec<TrackId> = tracks.iter().map(|bytes| TrackId::of(bytes)).collect();
    ids.sort_unstable();
    issue(&sites[0], ids.remove(2));
    let volume = sites[1].volumes[0];
    let page = |after, limit| {
        let request = Message::Feed(Feed::Tracks { volume, partition, after, limit });
        until("the volume may answer for the partition", HEALED, || match sites[1].connect().ask(&request) {
            Message::Feed(Feed::TrackList { tracks, next }) => Ok((tracks, next)),
            other => Err(format!("{other:?}")),
        })
    };
    let (mut listed, mut after, mut pages): (Vec<ListedTrack>, _, _) = (Vec::new(), None, 0);
    loop {
        let (tracks, next) = page(after, 2);
        assert!(tracks.len() <= 2, "{} tracks", tracks.len());
        listed.extend(tracks);
        pages += 1;
        let Some(next) = next else { break };
        after = Some(next);
    }
    assert_eq!(listed.iter().map(|track| track.id).collect::<Vec<_>>(), ids);
    assert!(listed.iter().all(|track| track.bytes == 4 && track.tags == tags("a track")), "{listed:?}");
    assert!(pages >= 2, "{pages} pages");
    running.into_iter().for_each(Running::stop);
}

#[test]
fn issuers_must_be_named_and_those_who_signed_never_be_left_out() {
    let mut sites = Site::trio();
    let running: Vec<_> = sites.iter().map(Site::start).collect();
    issue(&sites[0], TrackId::of(b"gone"));
    running.into_iter().for_each(Running::stop);
    let issuers = sites[0].config.issuers.clone();
    sites[0].config.issuers.remove(0);
    let why = sites[0].refusal();
    assert!(matches!(&why, Error::Setting { setting: "issuer_key", .. }), "{why}");
    sites[0].config.issuer_key = None;
    let why = sites[0].refusal();
    assert!(matches!(&why, Error::Setting { setting: "issuers", .. }), "{why}");
    assert!(why.to_string().contains(&issuers[0].to_string()), "{why}");
    for bad in [vec![issuers[0], issuers[0]], vec![IssuerKey::from_bytes([0; 32])]] {
        sites[0].config.issuers = bad;
        assert!(matches!(sites[0].refusal(), Error::Setting { setting: "issuers", .. }));
    }
}

#[test]
fn a_node_without_a_log_says_so() {
    let site = Site::new(1, 1);
    let running = site.start();
    let mut peer = site.connect();
    let issue = Message::Feed(Feed::Issue { id: TrackId::of(b"any"), reason: String::new() });
    assert_eq!(peer.ask(&issue), Message::Feed(Feed::NotIssuer { issuers: 0 }));
    let after = Message::Feed(Feed::TakedownsAfter { known: Heads::default(), wait_ms: 0, limit: 1 });
    assert_eq!(peer.error(&after).0, ErrorCode::Invalid);
    assert_eq!(peer.error(&Message::Feed(Feed::Receipts { number: 1 })).0, ErrorCode::NotFound);
    running.stop();
}
