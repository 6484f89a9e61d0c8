//! Small tracks, whose bytes go with the offers.

use bytes::Bytes;
use deadwax_dht::wire::{ErrorCode, Kind};
use deadwax_dht_client::{AT_ONCE_BYTES_MAX, ClientConfig, Error};
use deadwax_track::TrackId;

use crate::peer::Fault;
use crate::{Cluster, tags};

fn small() -> (TrackId, Bytes) {
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| u8::try_from(n * 37 % 253).expect("below 253")).collect();
    (TrackId::of(&bytes), bytes.into())
}

async fn put(cluster: &Cluster, id: TrackId, bytes: &Bytes) -> Result<(usize, bool), Error> {
    let stored = cluster.client.put_at_once(id, bytes.clone(), &tags()).await;
    cluster.client.drained().await;
    stored.map(|(stored, already)| (stored.copies, already))
}

#[tokio::test]
async fn a_small_track_is_stored_and_comes_back() {
    let (cluster, (id, bytes)) = (Cluster::start().await, small());
    let (copies, already) = put(&cluster, id, &bytes).await.expect("stored");
    assert!(copies >= 2 && !already);
    assert!(cluster.alive().all(|peer| peer.holds(&id)));
    assert_eq!(cluster.get(id, 0, 100_000).await.expect("read"), bytes);
    assert_eq!(put(&cluster, id, &bytes).await.expect("stored"), (3, true));
    assert!(cluster.alive().all(|peer| peer.connections() == 1), "what was sent in vain breaks no connection");
    let large = Bytes::from(vec![1; AT_ONCE_BYTES_MAX + 1]);
    assert!(matches!(put(&cluster, TrackId::of(&large), &large).await, Err(Error::Invalid(_))));
    assert!(matches!(put(&cluster, id, &Bytes::new()).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn a_holder_that_lacks_it_gets_it_though_a_quorum_has_it() {
    let (cluster, (id, bytes)) = (Cluster::start().await, small());
    cluster.add(&[0, 2], id, &bytes);
    assert_eq!(put(&cluster, id, &bytes).await.expect("stored"), (3, false));
}

#[tokio::test]
async fn a_node_of_an_older_version_is_sent_the_bytes_when_it_is_ready() {
    let (cluster, (id, bytes)) = (Cluster::start().await, small());
    cluster.peer(0).fault(Fault::OldProtocol);
    cluster.peer(1).fault(Fault::OldProtocol);
    put(&cluster, id, &bytes).await.expect("stored");
    assert!(cluster.alive().all(|peer| peer.holds(&id)));
}

#[tokio::test]
async fn holders_that_are_not_there_or_busy_are_made_do_without() {
    let (mut cluster, (id, bytes)) = (Cluster::start().await, small());
    cluster.kill(2).await;
    cluster.peer(1).fault(Fault::BusyInPut(2));
    assert_eq!(put(&cluster, id, &bytes).await.expect("stored"), (2, false));
    assert_eq!((cluster.peer(1).asked(Kind::Put), cluster.peer(1).connections()), (3, 1));
    cluster.kill(1).await;
    let other = Bytes::from_static(b"another");
    assert!(matches!(put(&cluster, TrackId::of(&other), &other).await, Err(Error::Unavailable { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_says_nothing_is_given_up() {
    let config = ClientConfig { put_stand_in_ms: 100, ..ClientConfig::default() };
    let (cluster, (id, bytes)) = (Cluster::with(config).await, small());
    cluster.peer(0).fault(Fault::LateInPut);
    cluster.peer(1).fault(Fault::LateInPut);
    assert!(matches!(put(&cluster, id, &bytes).await, Err(Error::Unavailable { .. })));
    cluster.peer(1).fault(Fault::None);
    assert_eq!(put(&cluster, id, &bytes).await.expect("stored").0, 2);
}

#[tokio::test]
async fn what_is_not_the_ids_or_was_taken_down_is_refused() {
    let (cluster, (id, bytes)) = (Cluster::start().await, small());
    let other = TrackId::of(b"another");
    assert!(matches!(put(&cluster, other, &bytes).await, Err(Error::Invalid(_))));
    (0..3).for_each(|index| cluster.peer(index).fault(Fault::Answer(ErrorCode::TakenDown { number: 7 })));
    assert!(matches!(put(&cluster, id, &bytes).await, Err(Error::TakenDown { number: 7 })));
}
