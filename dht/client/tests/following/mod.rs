//! Who follows what is stored reads what changed, and little else.

use deadwax_dht::wire::{Feed, ListedTrack, Message};
use deadwax_dht_client::TrackFollower;
use deadwax_track::Partition;

use super::*;

/// A track of a partition.
fn in_partition(partition: u16, number: u8) -> TrackId {
    let mut id = *TrackId::of(&[number]).as_bytes();
    id[..2].copy_from_slice(&partition.to_be_bytes());
    TrackId::from_bytes(id)
}

/// So many tracks in each of these partitions, by rising id.
fn tracks(partitions: impl IntoIterator<Item = u16>, count: u8) -> Vec<TrackId> {
    let of = |partition| (1..=count).map(move |number| in_partition(partition, number));
    let mut ids: Vec<TrackId> = partitions.into_iter().flat_map(of).collect();
    ids.sort_unstable();
    ids
}

/// A cluster in which these peers have the tracks.
async fn cluster_of(on: &[usize], tracks: &[TrackId]) -> Cluster {
    let cluster = Cluster::start().await;
    add(&cluster, on, tracks);
    cluster
}

fn add(cluster: &Cluster, on: &[usize], tracks: &[TrackId]) {
    tracks.iter().for_each(|id| cluster.add(on, *id, &Bytes::from_static(b"x")));
}

/// What one pass gives.
async fn pass(follower: &mut TrackFollower) -> Result<Vec<TrackId>, (Vec<TrackId>, Error)> {
    let mut ids = Vec::new();
    loop {
        match follower.next().await {
            Ok(Some(page)) => {
                assert!(!page.is_empty() && page.iter().all(|track| track.id.partition() == page[0].id.partition()));
                ids.extend(page.iter().map(|track| track.id));
                assert!(ids.len() <= 1_000, "the same again and again");
            }
            Ok(None) => return Ok(ids),
            Err(why) => return Err((ids, why)),
        }
    }
}

/// How many requests of a kind the peers that are alive have had since this was asked last.
fn asked(cluster: &Cluster, kind: Kind) -> usize {
    let count = cluster.alive().map(|peer| peer.asked(kind)).sum();
    cluster.alive().for_each(|peer| peer.state.lock().expect("no panic").requests.retain(|asked| *asked != kind));
    count
}

#[tokio::test]
async fn only_what_changed_is_read_again() {
    // Pages have five tracks.
    let stored = tracks([0, 3, 0x4000, 0x8001, u16::MAX], 7);
    let cluster = cluster_of(&[0, 1, 2], &stored).await;
    let mut follower = cluster.client.follow_tracks(SeenTracks::default());
    assert_eq!(pass(&mut follower).await, Ok(stored.clone()));
    // Each of the five partitions has two pages. One that is empty is empty when all say so: four questions a volume.
    assert_eq!((asked(&cluster, Kind::Tracks), asked(&cluster, Kind::Digests)), (10, 12));

    let hello = cluster.alive().map(|peer| peer.asked(Kind::Hello)).sum::<usize>();
    for round in 0..3 {
        assert_eq!(pass(&mut follower).await, Ok(Vec::new()), "round {round}");
        assert_eq!((asked(&cluster, Kind::Tracks), asked(&cluster, Kind::Digests)), (0, 12), "round {round}");
    }
    assert_eq!(cluster.alive().map(|peer| peer.asked(Kind::Hello)).sum::<usize>(), hello, "connections are kept");

    // One more track in the middle, and one where none was.
    add(&cluster, &[0, 1, 2], &[in_partition(0x4000, 8), in_partition(0x7fff, 1)]);
    let expected = [tracks([0x4000], 8), tracks([0x7fff], 1)].concat();
    assert_eq!(pass(&mut follower).await, Ok(expected));
    assert_eq!((asked(&cluster, Kind::Tracks), asked(&cluster, Kind::Digests)), (3, 12));

    // As bytes it is the same for another client.
    let kept = follower.seen().encode();
    let client = Client::new(Arc::clone(&cluster.map), ClientConfig::default());
    let mut follower = client.follow_tracks(SeenTracks::decode(&kept).expect("what was kept"));
    assert_eq!(pass(&mut follower).await, Ok(Vec::new()));
    // Of what is gone nothing is given, and what was given before is not read for it.
    cluster.alive().for_each(|peer| peer.state.lock().expect("no panic").tracks.retain(|id, _| id.partition().0 != 3));
    asked(&cluster, Kind::Tracks);
    for reads in [1, 0] {
        assert_eq!(pass(&mut follower).await, Ok(Vec::new()));
        assert_eq!(asked(&cluster, Kind::Tracks), reads);
    }
}

#[tokio::test]
async fn where_every_partition_has_tracks_one_volume_is_asked() {
    let stored = tracks(0..=u16::MAX, 1);
    let cluster = cluster_of(&[0, 1, 2], &stored).await;
    let mut seen = SeenTracks::default();
    let mut follower = cluster.client.follow_tracks(seen.clone());
    let mut count = 0;
    while let Some(page) = follower.next().await.expect("all answer") {
        count += page.len();
    }
    assert_eq!(count, stored.len());
    seen.clone_from(follower.seen());
    assert_eq!(seen.encode().len(), SeenTracks::BYTES_MAX);
    asked(&cluster, Kind::Digests);
    add(&cluster, &[0, 1, 2], &[in_partition(0x1234, 2)]);
    assert_eq!(pass(&mut follower).await, Ok(tracks([0x1234], 2)));
    assert_eq!(asked(&cluster, Kind::Digests), 4 + 2, "of the one that differs the others are asked alone");
    assert_eq!(pass(&mut follower).await, Ok(Vec::new()));
    assert_eq!(asked(&cluster, Kind::Digests), 4);
}

#[tokio::test]
async fn what_one_holder_lacks_is_found_once_it_has_it_or_is_gone() {
    let stored = tracks(0..40, 2);
    let more = in_partition(20, 3);
    for heals in [true, false] {
        let mut cluster = cluster_of(&[0, 1, 2], &stored).await;
        let mut follower = cluster.client.follow_tracks(SeenTracks::default());
        assert_eq!(pass(&mut follower).await, Ok(stored.clone()));
        add(&cluster, &[1, 2], &[more]);
        let first = pass(&mut follower).await.expect("all answer");
        assert!(first.is_empty(), "the nearest has it as it was seen: {first:?}");
        if heals {
            add(&cluster, &[0], &[more]);
        } else {
            cluster.kill(0).await;
        }
        assert_eq!(pass(&mut follower).await, Ok(tracks([20], 3)), "heals: {heals}");
        assert_eq!(pass(&mut follower).await, Ok(Vec::new()));
    }
}

#[tokio::test]
async fn what_a_holder_said_that_did_not_give_the_pages_is_not_believed() {
    let cluster = Cluster::start().await;
    // The first peer is compared with, another one gives the pages.
    let gives_first = |partition: &u16| cluster.order(&in_partition(*partition, 1))[0];
    let partition = (0..).find(|partition| gives_first(partition) != 0).expect("orders differ");
    let (giver, more) = (gives_first(&partition), in_partition(partition, 3));
    add(&cluster, &[0, 1, 2], &tracks([partition], 2));
    add(&cluster, &[0, 3 - giver], &[more]);
    let mut follower = cluster.client.follow_tracks(SeenTracks::default());
    assert_eq!(pass(&mut follower).await, Ok(tracks([partition], 2)));
    assert_eq!(pass(&mut follower).await, Ok(Vec::new()), "the one that lacks it has what was seen");
    add(&cluster, &[giver], &[more]);
    assert_eq!(pass(&mut follower).await, Ok(tracks([partition], 3)));
    assert_eq!(pass(&mut follower).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_holder_that_lost_everything_has_nothing_read_again_and_hides_nothing() {
    let stored = tracks(0..40, 2);
    let cluster = cluster_of(&[1, 2], &stored).await;
    // Whoever begins now is not told that there is nothing.
    let mut follower = cluster.client.follow_tracks(SeenTracks::default());
    // Such a volume may not answer for its partitions yet.
    cluster.peer(0).state.lock().expect("no panic").says_of_feeds =
        Some(|_| Message::error(ErrorCode::Busy, "told to"));
    assert_eq!(pass(&mut follower).await, Ok(stored));
    asked(&cluster, Kind::Tracks);
    assert_eq!(pass(&mut follower).await, Ok(Vec::new()));
    assert_eq!(asked(&cluster, Kind::Tracks), 0);
    // A new track comes all the same.
    add(&cluster, &[1, 2], &[in_partition(20, 3)]);
    assert_eq!(pass(&mut follower).await, Ok(tracks([20], 3)));
}

#[tokio::test]
async fn what_cannot_be_read_is_left_to_the_next_pass() {
    let cluster = cluster_of(&[0, 1, 2], &tracks(0..=60, 1)).await;
    let says = |says| cluster.alive().for_each(|peer| peer.state.lock().expect("no panic").says_of_feeds = says);
    let mut follower = cluster.client.follow_tracks(SeenTracks::default());
    says(Some(|feed| match feed {
        Feed::Tracks { partition: Partition(20), .. } => Message::error(ErrorCode::Internal, "told to"),
        Feed::Tracks { partition: Partition(at), .. } => {
            let track = ListedTrack { id: in_partition(*at, 1), bytes: 1, tags: Tags::default() };
            Message::Feed(Feed::TrackList { tracks: vec![track], next: None })
        }
        other => panic!("a follower does not ask {other:?}"),
    }));
    let (given, why) = pass(&mut follower).await.expect_err("one cannot be read");
    assert_eq!(given, tracks((0..=60).filter(|at| *at != 20), 1));
    assert!(matches!(why, Error::Unavailable { .. }), "{why:?}");
    says(None);
    assert_eq!(pass(&mut follower).await, Ok(tracks([20], 1)));
}

#[tokio::test]
async fn a_pass_that_is_given_up_does_not_begin_where_it_failed() {
    let cluster = cluster_of(&[0, 1, 2], &tracks(0..=60, 1)).await;
    let says = |says| cluster.alive().for_each(|peer| peer.state.lock().expect("no panic").says_of_feeds = says);
    let mut follower = cluster.client.follow_tracks(SeenTracks::default());
    says(Some(|feed| match feed {
        Feed::Tracks { partition: Partition(at @ 30..), .. } => {
            let track = ListedTrack { id: in_partition(*at, 1), bytes: 1, tags: Tags::default() };
            Message::Feed(Feed::TrackList { tracks: vec![track], next: None })
        }
        _ => Message::error(ErrorCode::Internal, "told to"),
    }));
    let mut given = Vec::new();
    for _ in 0..4 {
        let (some, _) = pass(&mut follower).await.expect_err("the first thirty cannot be read");
        given.extend(some);
    }
    assert_eq!(given, tracks(30..=60, 1));
    // Busy is waited for, and not for ever.
    says(Some(|_| Message::error(ErrorCode::Busy, "told to")));
    let (some, why) = pass(&mut follower).await.expect_err("all are busy");
    assert!(some.is_empty() && matches!(why, Error::Busy(_)), "{why:?}");
    says(None);
    let mut rest = pass(&mut follower).await.expect("all answer");
    rest.sort_unstable();
    assert_eq!(rest, tracks(0..30, 1));
}

#[tokio::test]
async fn a_holder_that_is_busy_is_asked_again() {
    let stored = tracks(0..40, 1);
    let cluster = cluster_of(&[0, 1, 2], &stored).await;
    let mut follower = cluster.client.follow_tracks(SeenTracks::default());
    cluster.alive().for_each(|peer| peer.fault(Fault::Answer(ErrorCode::Busy)));
    let (given, why) = pass(&mut follower).await.expect_err("all are busy");
    assert!(given.is_empty() && matches!(why, Error::Busy(_)), "{why:?}");
    // They are no more when it asks again.
    let freed = async {
        while cluster.peer(0).asked(Kind::Digests) < 11 {
            tokio::task::yield_now().await;
        }
        cluster.alive().for_each(|peer| peer.fault(Fault::None));
    };
    let (given, ()) = tokio::join!(pass(&mut follower), freed);
    assert_eq!(given, Ok(stored));
}

#[tokio::test]
async fn nothing_is_given_while_nobody_answers() {
    let stored = tracks(0..3, 1);
    let mut cluster = cluster_of(&[0, 1, 2], &stored).await;
    let mut follower = cluster.client.follow_tracks(SeenTracks::default());
    assert_eq!(pass(&mut follower).await, Ok(stored));
    for index in 0..3 {
        cluster.kill(index).await;
    }
    let (given, why) = pass(&mut follower).await.expect_err("nobody is there");
    let Error::Unavailable { what, holders } = why else { panic!("{why:?}") };
    assert!(given.is_empty() && what.contains("65536 partitions") && holders.0.len() == 3, "{what}: {holders}");
}
