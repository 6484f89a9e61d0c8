//! A client and three nodes that fail in every way they can.

mod at_once;
mod commands;
mod core_status;
mod epochs;
mod following;
mod peer;
mod secure;
mod stand_ins;
mod takedowns;

use std::sync::Arc;

use bytes::Bytes;
use deadwax_dht::wire::{ErrorCode, Kind};
use deadwax_dht::{Map, MapSpec, Node, Policy, Volume};
use deadwax_dht_client::{Client, ClientConfig, Error, Presence, Put, SeenTracks, Stored, TrackCursor};
use deadwax_track::{ByteRange, Tags, TrackId};
use peer::{CLUSTER, Fault, Peer};

/// Some audio, larger than a frame and the kernel's buffers, and its id.
fn track() -> (TrackId, Bytes) {
    let bytes: Vec<u8> = (0..9_000_000_u32).map(|n| u8::try_from(n * 31 % 251).expect("below 251")).collect();
    (TrackId::of(&bytes), bytes.into())
}

fn tags() -> Tags {
    Tags::new([("title".to_owned(), "Test".to_owned())]).expect("within limits")
}

struct Cluster {
    peers: Vec<Option<Peer>>,
    map: Arc<Map>,
    client: Client,
}

impl Cluster {
    async fn start() -> Self {
        Self::with(ClientConfig::default()).await
    }

    async fn with(config: ClientConfig) -> Self {
        let peers = [Peer::start(1).await, Peer::start(2).await, Peer::start(3).await];
        let map = Arc::new(Map::new(spec(&peers)).expect("a good map"));
        let client = Client::new(Arc::clone(&map), config);
        Self { peers: peers.into_iter().map(Some).collect(), map, client }
    }

    /// The index of the peer that a read of the track asks first, second, third.
    fn order(&self, id: &TrackId) -> Vec<usize> {
        self.map.holders(id.partition()).iter().map(|holder| holder.node).collect()
    }

    fn peer(&self, index: usize) -> &Peer {
        self.peers[index].as_ref().expect("alive")
    }

    fn alive(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().flatten()
    }

    async fn kill(&mut self, index: usize) {
        self.peers[index].take().expect("alive").kill().await;
    }

    /// Puts the track on these peers behind the client's back.
    fn add(&self, on: &[usize], id: TrackId, bytes: &Bytes) {
        on.iter().for_each(|index| self.peer(*index).add(id, bytes));
    }

    async fn put(&self, id: TrackId, bytes: &Bytes) -> Result<Stored, Error> {
        put(&self.client, id, bytes).await
    }

    async fn get(&self, id: TrackId, start: u64, end: u64) -> Result<Vec<u8>, Error> {
        get(&self.client, id, start, end).await
    }
}

async fn put(client: &Client, id: TrackId, bytes: &Bytes) -> Result<Stored, Error> {
    match client.put(id, bytes.len() as u64, &tags()).await? {
        Put::Already(stored) => Ok(stored),
        Put::Writer(mut writer) => {
            for part in bytes.chunks(300_000) {
                writer.write(bytes.slice_ref(part)).await?;
            }
            writer.finish().await
        }
    }
}

async fn get(client: &Client, id: TrackId, start: u64, end: u64) -> Result<Vec<u8>, Error> {
    let range = ByteRange::new(start, end).expect("not empty");
    let mut stream = client.get(id, range).await?;
    let mut got = Vec::new();
    while let Some(bytes) = stream.next().await {
        got.extend(bytes?);
    }
    Ok(got)
}

/// The node of this peer, with its one volume.
fn node(peer: &Peer) -> Node {
    Node {
        id: peer.node,
        zone: "home".to_owned(),
        rack: None,
        address: peer.address.clone(),
        volumes: vec![Volume { id: peer.volume, weight: 1 }],
    }
}

fn spec(peers: &[Peer]) -> MapSpec {
    MapSpec {
        version: 1,
        cluster: CLUSTER,
        epoch: 1,
        policy: Policy::default(),
        nodes: peers.iter().map(node).collect(),
        overrides: vec![],
    }
}

#[tokio::test]
async fn what_was_put_comes_back() {
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    let stored = cluster.put(id, &bytes).await.expect("stored");
    assert_eq!((stored.bytes, stored.pieces, stored.zones, stored.epoch), (9_000_000, 35, 1, 1));
    assert!(stored.copies >= 2);
    cluster.client.drained().await;
    assert!(cluster.alive().all(|peer| peer.holds(&id)), "the third copy follows");
    assert_eq!(cluster.get(id, 0, 9_000_000).await.expect("found"), bytes);
    assert_eq!(cluster.get(id, 4_999_999, 5_000_001).await.expect("found"), bytes[4_999_999..5_000_001]);
    let info = cluster.client.info(id).await.expect("found");
    assert_eq!((info.bytes, info.tags, info.manifest.id()), (9_000_000, tags(), id));
    assert_eq!(cluster.client.presence(id).await, Ok(Presence::Present { bytes: 9_000_000 }));
}

#[tokio::test]
async fn connections_are_used_again() {
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    for _ in 0..5 {
        cluster.put(id, &bytes).await.expect("stored");
        cluster.client.drained().await;
        cluster.get(id, 0, 100).await.expect("found");
        cluster.client.presence(id).await.expect("found");
    }
    for peer in cluster.alive() {
        assert_eq!(peer.state.lock().expect("no panic").connections, 1);
    }
}

#[tokio::test]
async fn a_restarted_node_costs_no_request() {
    let (mut cluster, (id, bytes)) = (Cluster::start().await, track());
    cluster.put(id, &bytes).await.expect("stored");
    cluster.client.drained().await;
    let first = cluster.order(&id)[0];
    let (address, state) = cluster.peers[first].take().expect("alive").kill().await;
    let number = u8::try_from(first).expect("small") + 1;
    cluster.peers[first] = Some(Peer::start_at(number, &address, state).await);
    assert_eq!(cluster.get(id, 0, 100).await.expect("found"), bytes[..100]);
    assert_eq!(cluster.peer(first).asked(Kind::Get), 1, "the dead connection was replaced");
}

#[tokio::test]
async fn a_put_is_acknowledged_with_one_of_three_dead() {
    for dead in 0..3 {
        let (mut cluster, (id, bytes)) = (Cluster::start().await, track());
        cluster.kill(dead).await;
        assert_eq!(cluster.put(id, &bytes).await.expect("stored").copies, 2);
        assert!(cluster.alive().all(|peer| peer.holds(&id)));
    }
}

#[tokio::test]
async fn a_put_is_refused_with_two_of_three_dead() {
    let (mut cluster, (id, bytes)) = (Cluster::start().await, track());
    cluster.kill(0).await;
    cluster.kill(2).await;
    let Err(Error::Unavailable { what, holders }) = cluster.put(id, &bytes).await else { panic!("not refused") };
    assert!(what.contains("needs 2 copies"), "{what}");
    assert_eq!(holders.0.len(), 2, "{holders}");
    assert!(holders.0.iter().all(|holder| holder.why.contains("refused")), "{holders}");
}

#[tokio::test]
async fn a_put_goes_on_when_a_holder_dies_in_mid_stream() {
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    cluster.peer(1).fault(Fault::DieInPut(2_000_000));
    assert_eq!(cluster.put(id, &bytes).await.expect("stored").copies, 2);
    assert!(!cluster.peer(1).holds(&id));
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    cluster.peer(1).fault(Fault::DieInPut(2_000_000));
    cluster.peer(2).fault(Fault::DieInPut(3_000_000));
    assert!(matches!(cluster.put(id, &bytes).await, Err(Error::Unavailable { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_stalls_in_a_put_is_left_out() {
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    cluster.peer(0).fault(Fault::StallInPut(1_000_000));
    assert_eq!(cluster.put(id, &bytes).await.expect("stored").copies, 2);
    cluster.client.drained().await;
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    cluster.peer(0).fault(Fault::LateInPut);
    assert_eq!(cluster.put(id, &bytes).await.expect("stored").copies, 2);
    cluster.client.drained().await;
}

#[tokio::test]
async fn a_put_of_bytes_that_are_not_the_ids_is_invalid() {
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    let mut other = bytes.to_vec();
    other[4_000_000] ^= 1;
    let Err(Error::Invalid(why)) = cluster.put(id, &other.into()).await else { panic!("not refused") };
    assert!(why.contains("not the id's"), "{why}");
    assert!(matches!(cluster.client.put(id, 0, &tags()).await, Err(Error::Invalid(_))));
    let too_large = deadwax_track::TRACK_BYTES_MAX + 1;
    assert!(matches!(cluster.client.put(id, too_large, &tags()).await, Err(Error::Invalid(_))));
    assert!(cluster.alive().all(|peer| !peer.holds(&id)));
}

#[tokio::test]
async fn a_put_takes_neither_more_nor_fewer_bytes_than_announced() {
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    for change in [-1_i64, 1] {
        let announced = (bytes.len() as u64).checked_add_signed(change).expect("small");
        let Ok(Put::Writer(mut writer)) = cluster.client.put(id, announced, &tags()).await else { panic!("refused") };
        let written = writer.write(bytes.clone()).await;
        let finished = match written {
            Ok(()) => writer.finish().await.map(|_| ()),
            Err(error) => Err(error),
        };
        assert!(matches!(finished, Err(Error::Invalid(_))), "{finished:?}");
    }
    cluster.client.drained().await;
    assert!(cluster.alive().all(|peer| !peer.holds(&id)));
}

#[tokio::test]
async fn a_dropped_put_stores_nothing() {
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    let Ok(Put::Writer(mut writer)) = cluster.client.put(id, bytes.len() as u64, &tags()).await else {
        panic!("refused")
    };
    writer.write(bytes.slice(..8_000_000)).await.expect("written");
    drop(writer);
    cluster.client.drained().await;
    assert!(cluster.alive().all(|peer| !peer.holds(&id)));
    cluster.put(id, &bytes).await.expect("stored");
}

#[tokio::test]
async fn a_put_sends_only_to_those_that_lack_the_track() {
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    cluster.add(&[0], id, &bytes);
    assert!(matches!(cluster.client.put(id, 1, &tags()).await, Err(Error::Invalid(_))), "a wrong length is noticed");
    cluster.put(id, &bytes).await.expect("stored");
    cluster.client.drained().await;
    assert!(cluster.alive().all(|peer| peer.holds(&id)));
    let Ok(Put::Already(stored)) = cluster.client.put(id, bytes.len() as u64, &tags()).await else { panic!("sent") };
    assert!(stored.copies >= 2 && stored.bytes == 9_000_000);
}

#[tokio::test]
async fn a_put_that_is_repeated_heals() {
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    cluster.add(&[0, 2], id, &bytes);
    assert!(matches!(cluster.client.put(id, 1, &tags()).await, Err(Error::Invalid(_))), "a wrong length is noticed");
    assert_eq!(cluster.put(id, &bytes).await.expect("stored").copies, 3);
    assert!(cluster.peer(1).holds(&id));
    // One that is dead keeps nobody from saying that all others have it.
    let (mut cluster, (id, bytes)) = (Cluster::start().await, track());
    cluster.add(&[0, 2], id, &bytes);
    cluster.kill(1).await;
    let Ok(Put::Already(stored)) = cluster.client.put(id, bytes.len() as u64, &tags()).await else { panic!("sent") };
    assert_eq!(stored.copies, 2);
}

#[tokio::test]
async fn a_holder_that_is_busy_is_offered_the_track_again() {
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    cluster.peer(1).fault(Fault::BusyInPut(3));
    cluster.put(id, &bytes).await.expect("stored");
    cluster.client.drained().await;
    assert!(cluster.alive().all(|peer| peer.holds(&id)));
    assert_eq!(cluster.peer(1).asked(Kind::Put), 4);
    // One that stays busy is left out in the end.
    let config = ClientConfig { put_grace_ms: 100, ..ClientConfig::default() };
    let (cluster, (id, bytes)) = (Cluster::with(config).await, track());
    cluster.peer(1).fault(Fault::BusyInPut(usize::MAX));
    assert_eq!(cluster.put(id, &bytes).await.expect("stored").copies, 2);
}

#[tokio::test]
async fn our_own_limit_of_connections_is_held_against_no_node() {
    let config = ClientConfig { connections_max: 1, first_ms: 300, ..ClientConfig::default() };
    let (cluster, (id, bytes)) = (Cluster::with(config).await, track());
    cluster.add(&[0, 1, 2], id, &bytes);
    let range = ByteRange::new(0, 9_000_000).expect("not empty");
    let nodes: Vec<_> = cluster.order(&id).into_iter().map(|index| cluster.peer(index).node).collect();
    let mut streams = Vec::new();
    for taken in 0..3 {
        let stream = cluster.client.get_avoiding(id, range, &nodes[..taken]).await.expect("found");
        assert_eq!(stream.node(), nodes[taken]);
        streams.push(stream);
    }
    assert!(matches!(cluster.client.presence(id).await, Err(Error::Busy(holders)) if holders.0.len() == 3));
    assert!(matches!(cluster.client.get(id, range).await, Err(Error::Busy(_))));
    drop(streams);
    cluster.client.presence(id).await.expect("found");
    assert_eq!(cluster.peer(cluster.order(&id)[0]).asked(Kind::Has), 1, "the first is still asked first");
}

#[tokio::test]
async fn a_node_to_avoid_is_asked_last() {
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    cluster.add(&[0, 1, 2], id, &bytes);
    let order = cluster.order(&id);
    let range = ByteRange::new(0, 9_000_000).expect("not empty");
    let (first, second) = (cluster.peer(order[0]).node, cluster.peer(order[1]).node);
    cluster.peer(order[1]).fault(Fault::DieInGet(1_000_000));
    let mut stream = cluster.client.get_avoiding(id, range, &[first]).await.expect("found");
    assert_eq!(stream.node(), second);
    let mut got = Vec::new();
    while let Some(bytes) = stream.next().await {
        got.extend(bytes.expect("goes on elsewhere"));
    }
    assert_eq!(got, bytes);
    assert_eq!(stream.node(), cluster.peer(order[2]).node, "where it went on");
    assert_eq!(cluster.peer(order[0]).asked(Kind::Get), 0);
    // Where no other has it, it is asked all the same.
    let everyone: Vec<_> = order.iter().map(|index| cluster.peer(*index).node).collect();
    assert_eq!(cluster.client.get_avoiding(id, range, &everyone).await.expect("found").node(), first);
}

#[tokio::test]
async fn what_holders_answer_to_a_put_is_told_apart() {
    let (id, bytes) = track();
    let answers = |first, second| async move {
        let (cluster, (id, bytes)) = (Cluster::start().await, track());
        cluster.peer(0).fault(Fault::Answer(first));
        cluster.peer(1).fault(Fault::Answer(second));
        cluster.put(id, &bytes).await.expect_err("refused")
    };
    assert!(matches!(answers(ErrorCode::NoSpace, ErrorCode::NoSpace).await, Error::NoSpace(_)));
    assert!(matches!(answers(ErrorCode::Busy, ErrorCode::NoSpace).await, Error::Busy(_)));
    assert!(matches!(answers(ErrorCode::Fenced, ErrorCode::NoSpace).await, Error::Unavailable { .. }));
    let cluster = Cluster::start().await;
    cluster.peer(2).fault(Fault::Answer(ErrorCode::TakenDown { number: 9 }));
    assert_eq!(cluster.put(id, &bytes).await, Err(Error::TakenDown { number: 9 }));
}

#[tokio::test]
async fn a_get_goes_on_elsewhere_in_mid_stream() {
    let (id, bytes) = track();
    for fault in [
        Fault::DieInGet(0),
        Fault::DieInGet(1_234_567),
        Fault::FlipInGet(0),
        Fault::FlipInGet(3_000_000),
        Fault::ErrorInGet(2_000_000),
        Fault::Garbage,
        Fault::OtherNode,
        Fault::Answer(ErrorCode::Busy),
        Fault::Answer(ErrorCode::Fenced),
        Fault::Answer(ErrorCode::NotFound),
    ] {
        let cluster = Cluster::start().await;
        cluster.add(&[0, 1, 2], id, &bytes);
        let order = cluster.order(&id);
        cluster.peer(order[0]).fault(fault.clone());
        assert_eq!(cluster.get(id, 77, 8_999_999).await.expect("found"), bytes[77..8_999_999], "{fault:?}");
        assert_eq!(cluster.peer(order[1]).asked(Kind::Get), 1, "{fault:?}");
        // And with two that fail.
        cluster.peer(order[1]).fault(fault.clone());
        if !matches!(fault, Fault::Answer(ErrorCode::NotFound)) {
            assert_eq!(cluster.get(id, 0, 9_000_000).await.expect("found"), bytes, "{fault:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_get_leaves_a_holder_that_stalls() {
    let (id, bytes) = track();
    for fault in [Fault::StallInGet(0), Fault::StallInGet(2_000_000), Fault::Mute] {
        let cluster = Cluster::start().await;
        cluster.add(&[0, 1, 2], id, &bytes);
        cluster.peer(cluster.order(&id)[0]).fault(fault.clone());
        assert_eq!(cluster.get(id, 0, 9_000_000).await.expect("found"), bytes, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_out_of_reach_is_asked_last_for_a_while() {
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    cluster.add(&[0, 1, 2], id, &bytes);
    let first = cluster.order(&id)[0];
    cluster.peer(first).fault(Fault::Mute);
    let began = tokio::time::Instant::now();
    for _ in 0..10 {
        cluster.client.presence(id).await.expect("found");
    }
    assert!(began.elapsed().as_millis() < 1_900, "only the first paid: {:?}", began.elapsed());
    let connections = |cluster: &Cluster| cluster.peer(first).state.lock().expect("no panic").connections;
    assert_eq!(connections(&cluster), 1);
    tokio::time::advance(std::time::Duration::from_millis(1_100)).await;
    cluster.peer(first).fault(Fault::None);
    cluster.client.presence(id).await.expect("found");
    assert_eq!(connections(&cluster), 2, "it is asked first again");
}

#[tokio::test]
async fn a_slow_reader_keeps_its_holder() {
    let config = ClientConfig { read_stall_ms: 1, ..ClientConfig::default() };
    let (cluster, (id, bytes)) = (Cluster::with(config).await, track());
    cluster.add(&[cluster.order(&id)[0]], id, &bytes);
    let mut stream = cluster.client.get(id, ByteRange::new(0, 40_000).expect("not empty")).await.expect("found");
    assert_eq!(stream.bytes_total(), 9_000_000);
    let mut got = Vec::new();
    while let Some(bytes) = stream.next().await {
        got.extend(bytes.expect("no holder is blamed"));
        // The reader itself is away for longer than a holder may be.
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
    assert_eq!(got, bytes[..40_000]);
}

#[tokio::test]
async fn not_found_needs_a_quorum() {
    let (mut cluster, (id, bytes)) = (Cluster::start().await, track());
    let range = ByteRange::new(0, 1).expect("not empty");
    assert_eq!(cluster.client.get(id, range).await.err(), Some(Error::NotFound));
    assert_eq!(cluster.client.info(id).await, Err(Error::NotFound));
    assert_eq!(cluster.client.presence(id).await, Ok(Presence::Absent));
    // One dead: two of three still say so.
    cluster.kill(1).await;
    assert_eq!(cluster.client.get(id, range).await.err(), Some(Error::NotFound));
    // Two dead: one alone cannot tell.
    cluster.kill(2).await;
    for error in [
        cluster.client.get(id, range).await.expect_err("cannot tell"),
        cluster.client.info(id).await.expect_err("cannot tell"),
        cluster.client.presence(id).await.expect_err("cannot tell"),
    ] {
        let Error::Unavailable { what, holders } = error else { panic!("{error}") };
        assert!(what.contains("1 holders do not have it"), "{what}");
        assert_eq!(holders.0.len(), 2);
    }
    // But one alone can say that it is there.
    cluster.add(&[0], id, &bytes);
    assert_eq!(cluster.get(id, 5, 9).await.expect("found"), bytes[5..9]);
}

#[tokio::test]
async fn a_track_that_one_holder_began_to_send_is_never_not_found() {
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    let first = cluster.order(&id)[0];
    cluster.add(&[first], id, &bytes);
    cluster.peer(first).fault(Fault::ErrorInGet(1_000_000));
    let error = cluster.get(id, 0, 9_000_000).await.expect_err("cannot go on");
    assert!(matches!(&error, Error::Corrupt(holders) if holders.0.len() == 1), "{error}");
}

#[tokio::test]
async fn a_track_whose_one_copy_cannot_be_read_is_never_not_found() {
    let (cluster, (id, _)) = (Cluster::start().await, track());
    cluster.peer(cluster.order(&id)[0]).fault(Fault::Answer(ErrorCode::Corrupt));
    assert!(matches!(cluster.get(id, 0, 1).await, Err(Error::Corrupt(holders)) if holders.0.len() == 1));
    assert!(matches!(cluster.client.info(id).await, Err(Error::Corrupt(_))));
}

#[tokio::test]
async fn a_manifest_that_is_not_the_tracks_is_not_believed() {
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    cluster.add(&[0, 1, 2], id, &bytes);
    let order = cluster.order(&id);
    cluster.peer(order[0]).fault(Fault::WrongManifest);
    assert_eq!(cluster.client.info(id).await.expect("found").manifest.id(), id);
    assert_eq!(cluster.peer(order[1]).asked(Kind::Info), 1);
    cluster.peer(order[1]).fault(Fault::WrongManifest);
    cluster.peer(order[2]).fault(Fault::WrongManifest);
    assert!(matches!(cluster.client.info(id).await, Err(Error::Corrupt(holders)) if holders.0.len() == 3));
}

#[tokio::test]
async fn a_range_beyond_the_end_is_invalid() {
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    cluster.add(&[0, 1, 2], id, &bytes);
    cluster.alive().for_each(|peer| peer.fault(Fault::Answer(ErrorCode::Invalid)));
    assert!(matches!(cluster.get(id, 0, 9_000_001).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn a_takedown_needs_every_holder() {
    let (mut cluster, (id, bytes)) = (Cluster::start().await, track());
    cluster.put(id, &bytes).await.expect("stored");
    cluster.client.drained().await;
    let (address, state) = cluster.peers[1].take().expect("alive").kill().await;
    let error = cluster.client.take_down(id, 5).await.expect_err("one did not confirm");
    let Error::Unavailable { what, holders } = error else { panic!("{error}") };
    assert!(what.contains("2 of 3"), "{what}");
    assert_eq!(holders.0[0].address, address);
    cluster.peers[1] = Some(Peer::start_at(2, &address, state).await);
    let done = cluster.client.take_down(id, 6).await.expect("all confirmed");
    assert_eq!((done.number, done.copies), (5, 3), "the first number stays");
    assert_eq!(cluster.client.presence(id).await, Ok(Presence::TakenDown { number: 5 }));
    assert!(matches!(cluster.get(id, 0, 1).await, Err(Error::TakenDown { .. })));
    assert!(cluster.alive().all(|peer| !peer.holds(&id)));
}

#[tokio::test]
async fn status_counts_the_copies_that_are_missing() {
    let (mut cluster, (id, bytes)) = (Cluster::start().await, track());
    let small = Bytes::from_static(b"small");
    // In the first track's partition, so that one partition holds both.
    let mut other = *id.as_bytes();
    other[15] ^= 1;
    let other = TrackId::from_bytes(other);
    cluster.add(&[0, 1, 2], id, &bytes);
    cluster.add(&[0, 1, 2], TrackId::of(&small), &small);
    let status = cluster.client.status().await;
    assert!(status.healthy, "{:?}", status.warnings);
    assert_eq!((status.tracks, status.bytes, status.copies.expected), (2, 9_000_005, 6));
    assert_eq!((status.copies.seen, status.copies.missing, status.copies.exact), (6, 0, true));
    assert!(status.nodes.iter().all(|node| node.up && node.volumes.len() == 1));
    // Two holders with one track each in a partition, but not the same.
    cluster.add(&[0], other, &small);
    cluster.peer(0).state.lock().expect("no panic").tracks.remove(&id);
    let status = cluster.client.status().await;
    assert_eq!((status.tracks, status.copies.expected, status.copies.missing), (3, 9, 3));
    assert_eq!(status.warnings, ["3 of 9 copies are missing"]);
    let short: Vec<_> =
        status.shortfalls.iter().map(|short| (short.tracks, short.missing, short.lacking.len())).collect();
    assert_eq!((short, status.partitions_short), (vec![(2, 3, 3)], 1));
    // A node that is down holds nothing that can be seen.
    cluster.kill(2).await;
    let status = cluster.client.status().await;
    assert_eq!((status.copies.expected, status.copies.seen, status.healthy), (9, 4, false));
    assert!(!status.nodes[2].up && status.nodes[2].error.is_some());
    let text = serde_json::to_string(&status).expect("plain data");
    assert!(text.contains(r#""copies":{"expected":9,"seen":4,"missing":5,"exact":true}"#), "{text}");
    cluster.kill(0).await;
    cluster.kill(1).await;
    let status = cluster.client.status().await;
    assert_eq!((status.tracks, status.healthy, status.warnings.len()), (0, false, 3));
}

#[tokio::test]
async fn a_put_whose_last_copy_is_under_way_is_not_called_missing() {
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    cluster.add(&[0, 1], id, &bytes);
    let (status, ()) = tokio::join!(cluster.client.status(), async {
        // The first look has seen it on two of three, and before the second it is there.
        let was_listed = || cluster.peer(2).state.lock().expect("no panic").requests.contains(&Kind::List);
        while !was_listed() {
            tokio::task::yield_now().await;
        }
        cluster.add(&[2], id, &bytes);
    });
    assert!(status.healthy && status.copies.seen == 3, "{:?}", status.warnings);
    assert_eq!(status.partitions_short, 0);
}

#[tokio::test]
async fn a_volume_with_tracks_that_nobody_verified_for_long_is_not_healthy() {
    let (cluster, (id, bytes)) = (Cluster::start().await, track());
    let long_ago = 75 * 86_400;
    cluster.peer(1).state.lock().expect("no panic").verified_s = long_ago;
    assert!(cluster.client.status().await.healthy, "it holds no track");
    cluster.add(&[0, 1, 2], id, &bytes);
    let status = cluster.client.status().await;
    assert!(!status.healthy && status.warnings.len() == 1, "{:?}", status.warnings);
    let warning = format!("volume /test of node {} was not verified for 75 days", cluster.peer(1).address);
    assert!(status.warnings[0].starts_with(&warning), "{:?}", status.warnings);
    assert_eq!(status.nodes[1].scrubs[0].verified_s, Some(long_ago));
}

#[test]
fn futures_may_cross_threads() {
    fn sent<T: Send>(_: &impl Fn(&'static Client) -> T) {}
    let id = TrackId::of(b"x");
    sent(&|client| client.put(id, 1, Box::leak(Box::default())));
    sent(&|client| client.get(id, ByteRange::new(0, 1).expect("not empty")));
    sent(&|client| client.get_avoiding(id, ByteRange::new(0, 1).expect("not empty"), &[]));
    sent(&|client| client.info(id));
    sent(&|client| client.take_down(id, 1));
    sent(&|client| client.issue(id, "a reason"));
    sent(&|client| client.takedown(1));
    sent(&|client| client.takedowns(Box::leak(Box::default()), std::time::Duration::ZERO));
    sent(&|client| Box::leak(Box::new(client.feed(0..=1, TrackCursor::After(id)))).next());
    sent(&|client| Box::leak(Box::new(client.follow_tracks(SeenTracks::default()))).next());
    sent(&|client| client.status());
}
