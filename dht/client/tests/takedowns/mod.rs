//! Takedowns by the cluster's log, and the feeds, of nodes that say what they are told to.

use std::time::Duration;

use deadwax_dht::takedown::Heads;
use deadwax_dht::wire::{Feed, Message};
use deadwax_dht_client::Cursor;
use deadwax_track::Partition;

use super::*;

type Says = fn(&Feed) -> Message;

const NO_ISSUERS: Says = |_| Message::Feed(Feed::NotIssuer { issuers: 0 });
const OTHERS_SIGN: Says = |_| Message::Feed(Feed::NotIssuer { issuers: 3 });
const SIGNS: Says = |_| Message::Feed(Feed::Issued { number: 7, have: 2, members: 3 });
const BUSY: Says = |_| Message::error(ErrorCode::Busy, "told to");
const OLD: Says = |_| Message::error(ErrorCode::Version, "told to");
const ADMITS_NOBODY: Says = |_| Message::error(ErrorCode::NotAdmitted, "told to");

fn tell(peer: &Peer, says: Says) {
    peer.state.lock().expect("no panic").says_of_feeds = Some(says);
}

async fn cluster(says: [Says; 3]) -> Cluster {
    let cluster = Cluster::start().await;
    cluster.alive().zip(says).for_each(|(peer, says)| tell(peer, says));
    cluster
}

#[tokio::test]
async fn a_takedown_goes_past_the_log_only_where_no_node_has_one() {
    let id = TrackId::of(b"gone");
    for says in [[NO_ISSUERS; 3], [OLD; 3], [NO_ISSUERS, OLD, NO_ISSUERS]] {
        assert_eq!(cluster(says).await.client.issue(id, "law").await, Ok(None));
    }
    for other in [OTHERS_SIGN, BUSY, ADMITS_NOBODY] {
        for at in 0..3 {
            let mut says = [NO_ISSUERS; 3];
            says[at] = other;
            let answer = cluster(says).await.client.issue(id, "law").await;
            assert!(matches!(answer, Err(Error::Unavailable { .. })), "{at}: {answer:?}");
            says[(at + 1) % 3] = SIGNS;
            let issued = cluster(says).await.client.issue(id, "law").await.expect("signed").expect("by the log");
            assert_eq!((issued.number, issued.have, issued.members), (7, 2, 3));
        }
    }
    let mut cluster = cluster([NO_ISSUERS; 3]).await;
    cluster.kill(1).await;
    let answer = cluster.client.issue(id, "law").await;
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "it may be the one that signs: {answer:?}");
}

#[tokio::test]
async fn no_takedown_goes_past_the_log_of_a_map_that_changes() {
    let village = epochs::Village::start().await;
    village.peers.iter().for_each(|peer| tell(peer, NO_ISSUERS));
    let Err(Error::Unavailable { what, .. }) = village.client.issue(village.id, "law").await else {
        panic!("nobody may sign")
    };
    assert!(what.contains("`deadwax cluster issuer`"), "{what}");
}

#[tokio::test]
async fn takedowns_are_asked_of_another_node_each_time() {
    let cluster = cluster([|_| Message::Feed(Feed::Takedowns(Vec::new())); 3]).await;
    for round in 1..=2 {
        for _ in 0..3 {
            let heard = cluster.client.takedowns(&Cursor::default(), Duration::ZERO).await;
            assert_eq!(heard, Ok((Vec::new(), Cursor::default())));
        }
        assert!(cluster.alive().all(|peer| peer.asked(Kind::TakedownsAfter) == round), "round {round}");
    }
}

#[tokio::test]
async fn that_there_is_no_log_is_not_said_by_nodes_that_admit_nobody() {
    let refused = cluster([ADMITS_NOBODY; 3]).await.client.takedowns_now().await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    let has_none = cluster([OLD; 3]).await.client.takedowns_now().await;
    assert!(matches!(has_none, Err(Error::Invalid(_))), "{has_none:?}");
    let has_one = cluster([OLD, |_| Message::Feed(Feed::Heads(Heads::default())), OLD]).await;
    assert_eq!(has_one.client.takedowns_now().await, Ok(Cursor::default()));
}

/// A track of a partition.
fn in_partition(partition: u8, number: u8) -> TrackId {
    let mut id = [number; 32];
    id[..2].copy_from_slice(&[0, partition]);
    TrackId::from_bytes(id)
}

/// All that a feed of the first 40 partitions gives.
async fn read(client: &Client, from: TrackCursor) -> Result<Vec<TrackId>, Error> {
    let (mut feed, mut ids) = (client.feed(0..=39, from), Vec::new());
    while let Some(page) = feed.next().await? {
        ids.extend(page.tracks.iter().map(|track| track.id));
        assert!(ids.len() <= 400, "the same again and again");
    }
    Ok(ids)
}

#[tokio::test]
async fn the_feed_asks_for_each_partition_and_gives_each_track_once() {
    let cluster = Cluster::start().await;
    let tracks: Vec<TrackId> =
        [0, 3, 4, 5, 20, 39].iter().flat_map(|at| (1..=7).map(|number| in_partition(*at, number))).collect();
    tracks.iter().for_each(|id| cluster.add(&[0, 1, 2], *id, &Bytes::from_static(b"x")));
    assert_eq!(read(&cluster.client, TrackCursor::From(Partition(0))).await, Ok(tracks.clone()));
    assert_eq!(cluster.alive().map(|peer| peer.asked(Kind::Digests)).sum::<usize>(), 0, "no volume's word for absence");
    for (at, id) in tracks.iter().enumerate() {
        assert_eq!(
            read(&cluster.client, TrackCursor::After(*id)).await.as_deref(),
            Ok(&tracks[at + 1..]),
            "after {id}"
        );
    }
    let beyond = TrackCursor::From(Partition(40));
    assert_eq!(read(&cluster.client, beyond).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_holder_whose_pages_do_not_go_on_is_passed_over() {
    let elsewhere: Says = |_| Message::Feed(Feed::TrackList { tracks: Vec::new(), next: Some(TrackId::of(b"any")) });
    let same_again: Says = |feed| match feed {
        Feed::Tracks { after: next @ Some(_), .. } => {
            Message::Feed(Feed::TrackList { tracks: Vec::new(), next: *next })
        }
        Feed::Tracks { .. } => Message::error(ErrorCode::Busy, "told to"),
        other => panic!("a feed does not ask {other:?}"),
    };
    let tracks: Vec<TrackId> = (0..40).flat_map(|at| (1..=7).map(move |number| in_partition(at, number))).collect();
    for says in [elsewhere, same_again, BUSY] {
        let cluster = Cluster::start().await;
        tracks.iter().for_each(|id| cluster.add(&[0, 1, 2], *id, &Bytes::from_static(b"x")));
        tell(cluster.peer(1), says);
        assert_eq!(read(&cluster.client, TrackCursor::After(tracks[2])).await.as_deref(), Ok(&tracks[3..]));
        cluster.alive().for_each(|peer| tell(peer, elsewhere));
        let answer = read(&cluster.client, TrackCursor::From(Partition(0))).await;
        assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
    }
}

#[tokio::test]
async fn a_feed_goes_on_after_an_error_from_where_it_was() {
    let cluster = Cluster::start().await;
    let tracks: Vec<TrackId> = (0..40).map(|at| in_partition(at, 1)).collect();
    tracks.iter().for_each(|id| cluster.add(&[0, 1, 2], *id, &Bytes::from_static(b"x")));
    let (mut feed, mut ids) = (cluster.client.feed(0..=39, TrackCursor::From(Partition(0))), Vec::new());
    for at in 0..40 {
        if at == 20 {
            cluster.alive().for_each(|peer| tell(peer, BUSY));
            while let Ok(page) = feed.next().await {
                ids.extend(page.expect("more is to come").tracks.iter().map(|track| track.id));
            }
            cluster.alive().for_each(|peer| peer.state.lock().expect("no panic").says_of_feeds = None);
        }
        let Some(page) = feed.next().await.expect("all answer") else { break };
        ids.extend(page.tracks.iter().map(|track| track.id));
    }
    assert_eq!(ids, tracks);
}
