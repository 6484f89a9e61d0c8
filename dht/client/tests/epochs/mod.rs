//! The map changes while a client runs.

use std::time::Duration;

use deadwax_dht::log::{Change, History, Move, Proposal, Stage, Ticket};
use deadwax_dht::{ClusterId, NodeId, VolumeId};
use deadwax_track::Partition;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;

/// Six nodes whose map changes, and a client that was given their first one.
pub(crate) struct Village {
    pub(crate) peers: Vec<Peer>,
    history: History,
    pub(crate) client: Client,
    pub(crate) id: TrackId,
    bytes: Bytes,
}

impl Village {
    pub(crate) async fn start() -> Self {
        let mut peers = Vec::new();
        for number in 1..=6 {
            peers.push(Peer::start(number).await);
        }
        let spec = spec(&peers);
        let voters = peers[..3].iter().map(|peer| peer.node).collect();
        let history = History::genesis(spec.clone(), voters).expect("a good genesis");
        let client = Client::new(Arc::new(Map::new(spec).expect("a good map")), ClientConfig::default());
        let bytes: Bytes =
            (0..400_000_u32).map(|n| u8::try_from(n * 17 % 249).expect("below 249")).collect::<Vec<u8>>().into();
        let village = Self { peers, history, client, id: TrackId::of(&bytes), bytes };
        village.tell_all();
        village
    }

    fn partition(&self) -> Partition {
        self.id.partition()
    }

    /// Makes `change` the next record, of which no node has heard yet.
    fn change(&mut self, change: Change) {
        let ticket = Ticket { node: self.peers[0].node, number: 0 };
        let proposal = Proposal { ticket, base: self.history.epoch(), change };
        let record = self.history.decide(&proposal).expect("a good change");
        self.history.append(&record).expect("what was decided can be taken");
    }

    /// A change that no track's holders care for.
    fn rename_rack(&mut self) {
        let rack = Some(format!("rack {}", self.history.epoch()));
        self.change(Change::SetRack { node: self.peers[0].node, rack });
    }

    fn tell_all(&self) {
        self.peers.iter().for_each(|peer| peer.knows(&self.history));
    }

    /// The peers of the first set of the track's holders.
    fn holders(&self) -> Vec<usize> {
        let holders = self.history.state().holders(self.partition());
        let first = holders.sets().next().expect("there is a first set");
        first.iter().map(|volume| self.at(volume)).collect()
    }

    fn others(&self) -> Vec<usize> {
        let holders = self.holders();
        (0..self.peers.len()).filter(|peer| !holders.contains(peer)).collect()
    }

    fn at(&self, volume: &VolumeId) -> usize {
        self.peers.iter().position(|peer| peer.volume == *volume).expect("a peer's volume")
    }

    fn node(&self, peer: usize) -> NodeId {
        self.peers[peer].node
    }

    /// The track's partition begins to move to the nodes that do not hold it.
    fn begin_move(&mut self) {
        let volumes = |peers: Vec<usize>| peers.iter().map(|peer| self.peers[*peer].volume).collect();
        let (partition, old, new) = (self.partition(), volumes(self.holders()), volumes(self.others()));
        self.change(Change::Begin(vec![Move { partition, old, new }]));
    }

    fn end_move(&mut self) {
        let partitions = vec![self.partition()];
        for to in [Stage::Synced, Stage::Settled] {
            self.change(Change::Advance { partitions: partitions.clone(), to });
        }
        self.change(Change::Finish(partitions));
    }

    /// The track's partition moves, and all nodes have heard of it. Epoch 5.
    fn move_all(&mut self) {
        self.begin_move();
        self.end_move();
        self.tell_all();
    }

    fn add(&self, on: &[usize]) {
        on.iter().for_each(|peer| self.peers[*peer].add(self.id, &self.bytes));
    }

    fn fault(&self, on: &[usize], fault: &Fault) {
        on.iter().for_each(|peer| self.peers[*peer].fault(fault.clone()));
    }

    fn asked(&self, kind: Kind) -> usize {
        self.peers.iter().map(|peer| peer.asked(kind)).sum()
    }

    async fn get_all(&self) -> Result<Vec<u8>, Error> {
        get(&self.client, self.id, 0, self.bytes.len() as u64).await
    }
}

/// Lets others run until it is so.
async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), waiting).await.expect("it comes to be so");
}

#[tokio::test]
async fn a_get_by_an_old_map_finds_the_new_holders() {
    let mut village = Village::start().await;
    let old = village.holders();
    village.move_all();
    village.add(&village.holders());
    assert_eq!(village.client.epoch(), 1);
    assert_eq!(village.get_all().await.expect("found"), village.bytes);
    assert_eq!((village.client.epoch(), village.client.map().epoch()), (5, 5));
    assert_eq!(old.iter().map(|peer| village.peers[*peer].asked(Kind::Get)).sum::<usize>(), 1, "then it knows");
    assert_eq!(village.asked(Kind::EpochsAfter), 1, "who told of the epoch has it");
    village.get_all().await.expect("found");
    assert_eq!(village.asked(Kind::EpochsAfter), 1);
}

#[tokio::test]
async fn what_is_known_of_a_track_is_found_by_an_old_map_too() {
    let mut village = Village::start().await;
    village.move_all();
    village.add(&village.holders());
    assert_eq!(village.client.info(village.id).await.expect("found").bytes, 400_000);
    let mut village = Village::start().await;
    village.move_all();
    village.add(&village.holders());
    assert_eq!(village.client.presence(village.id).await, Ok(Presence::Present { bytes: 400_000 }));
    assert_eq!(village.client.epoch(), 5);
}

#[tokio::test]
async fn a_get_goes_on_by_a_newer_map_where_it_is() {
    let mut village = Village::start().await;
    let old = village.holders();
    village.add(&old[..1]);
    village.fault(&old[..1], &Fault::DieInGet(150_000));
    village.move_all();
    village.add(&village.holders());
    let range = ByteRange::new(7, 400_000).expect("not empty");
    let mut stream = village.client.get(village.id, range).await.expect("found");
    assert_eq!((stream.node(), stream.bytes_total()), (village.node(old[0]), 400_000));
    let mut got = Vec::new();
    while let Some(bytes) = stream.next().await {
        got.extend(bytes.expect("goes on elsewhere"));
    }
    assert_eq!(got, village.bytes[7..]);
    assert_eq!(stream.node(), village.node(village.holders()[0]));
    assert_eq!(village.client.epoch(), 5);
}

#[tokio::test]
async fn a_get_that_is_left_while_the_map_comes_goes_on() {
    let mut village = Village::start().await;
    let old = village.holders();
    village.add(&old[..1]);
    village.fault(&old[..1], &Fault::DieInGet(150_000));
    village.move_all();
    village.add(&village.holders());
    let gate = Arc::new(Semaphore::new(0));
    village.peers.iter().for_each(|peer| peer.state.lock().expect("no panic").gate = Some(Arc::clone(&gate)));
    let range = ByteRange::new(0, 400_000).expect("not empty");
    let mut stream = village.client.get(village.id, range).await.expect("found");
    let mut got = Vec::new();
    loop {
        let asked = until(|| village.asked(Kind::EpochsAfter) == 1);
        tokio::select! {
            biased;
            bytes = stream.next() => got.extend(bytes.expect("more").expect("no holder is blamed")),
            () = asked => break,
        }
    }
    gate.add_permits(1);
    while let Some(bytes) = stream.next().await {
        got.extend(bytes.expect("goes on elsewhere"));
    }
    assert_eq!(got, village.bytes);
    assert_eq!(village.asked(Kind::EpochsAfter), 1);
}

#[tokio::test]
async fn a_track_that_began_to_come_by_an_old_map_is_never_not_found() {
    let mut village = Village::start().await;
    let old = village.holders();
    village.add(&old[..1]);
    village.fault(&old[..1], &Fault::DieInGet(150_000));
    village.move_all();
    let error = village.get_all().await.expect_err("cannot go on");
    let Error::Unavailable { what, .. } = error else { panic!("{error}") };
    assert!(what.contains("from byte 150000"), "{what}");
    assert_eq!(village.client.epoch(), 5);
}

#[tokio::test]
async fn old_holders_that_can_only_fail_show_by_their_frames_that_the_map_is_old() {
    let mut village = Village::start().await;
    let old = village.holders();
    village.move_all();
    village.fault(&old, &Fault::Answer(ErrorCode::WrongNode));
    put(&village.client, village.id, &village.bytes).await.expect("stored");
    village.client.drained().await;
    let first = Arc::new(Map::new(spec(&village.peers)).expect("a good map"));
    village.client = Client::new(Arc::clone(&first), ClientConfig::default());
    assert_eq!(village.get_all().await.expect("found"), village.bytes);
    village.client = Client::new(first, ClientConfig::default());
    assert_eq!(village.client.presence(village.id).await, Ok(Presence::Present { bytes: 400_000 }));
}

#[tokio::test]
async fn a_put_by_an_old_map_goes_to_the_new_holders() {
    let mut village = Village::start().await;
    let old = village.holders();
    village.move_all();
    let stored = put(&village.client, village.id, &village.bytes).await.expect("stored");
    assert_eq!(stored.epoch, 5);
    village.client.drained().await;
    assert!(village.holders().iter().all(|peer| village.peers[*peer].holds(&village.id)));
    assert!(!old.iter().any(|peer| village.peers[*peer].holds(&village.id)));
}

#[tokio::test]
async fn while_a_partition_moves_a_put_needs_a_quorum_in_both_sets() {
    let mut village = Village::start().await;
    let (old, new) = (village.holders(), village.others());
    village.begin_move();
    village.tell_all();
    assert_eq!(put(&village.client, village.id, &village.bytes).await.expect("stored").epoch, 2);
    village.client.drained().await;
    assert!(village.peers.iter().all(|peer| peer.holds(&village.id)));
    // Readers ask the old ones, which alone may call a track absent.
    village.get_all().await.expect("found");
    assert_eq!(new.iter().map(|peer| village.peers[*peer].asked(Kind::Get)).sum::<usize>(), 0);
    let mut village = Village::start().await;
    village.begin_move();
    village.tell_all();
    village.fault(&new[..2], &Fault::Answer(ErrorCode::Fenced));
    let refused = put(&village.client, village.id, &village.bytes).await.expect_err("one of three new ones");
    assert!(matches!(refused, Error::Unavailable { .. }), "{refused}");
    assert!(!old.iter().any(|peer| village.peers[*peer].holds(&village.id)));
}

#[tokio::test]
async fn a_put_whose_bytes_flow_while_the_map_changes_is_to_be_repeated() {
    let mut village = Village::start().await;
    let (id, bytes) = (village.id, village.bytes.clone());
    let Ok(Put::Writer(mut writer)) = village.client.put(id, bytes.len() as u64, &tags()).await else {
        panic!("refused")
    };
    writer.write(bytes.slice(..200_000)).await.expect("written");
    village.move_all();
    // The holders may say so before they were sent all.
    let refused = match writer.write(bytes.slice(200_000..)).await {
        Ok(()) => writer.finish().await.expect_err("refused"),
        Err(error) => error,
    };
    let Error::Unavailable { what, holders } = refused else { panic!("{refused}") };
    assert!(what.contains("the map changed to epoch 5") && what.contains("repeat"), "{what}");
    assert!(!holders.0.is_empty());
    assert_eq!(put(&village.client, id, &bytes).await.expect("stored").epoch, 5);
}

#[tokio::test]
async fn absence_counts_only_by_the_newest_map() {
    let mut village = Village::start().await;
    village.move_all();
    let range = ByteRange::new(0, 1).expect("not empty");
    assert_eq!(village.client.get(village.id, range).await.err(), Some(Error::NotFound));
    assert_eq!(village.client.epoch(), 5);
    assert!(village.holders().iter().filter(|peer| village.peers[**peer].asked(Kind::Get) == 1).count() >= 2);
    // A change that does not concern the track: who has heard of it says so in its frame.
    village.rename_rack();
    village.tell_all();
    assert_eq!(village.client.presence(village.id).await, Ok(Presence::Absent));
    assert_eq!(village.client.epoch(), 6);
    // Where the map cannot be had, nobody knows.
    village.rename_rack();
    village.tell_all();
    let all: Vec<usize> = (0..6).collect();
    village.fault(&all, &Fault::Epochs(Bytes::from_static(b"nonsense")));
    let error = village.client.presence(village.id).await.expect_err("cannot tell");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert_eq!(village.client.epoch(), 6);
}

#[tokio::test]
async fn records_that_are_none_or_anothers_are_not_believed() {
    let mut village = Village::start().await;
    let mut strange = village.history.state().spec().clone();
    strange.cluster = ClusterId::from_bytes([8; 16]);
    strange.epoch = 9;
    let voters = village.peers[..3].iter().map(|peer| peer.node).collect();
    let strange = History::genesis(strange, voters).expect("a good genesis").since(0).encode();
    let stale = village.history.since(0).encode();
    let old = village.holders();
    village.move_all();
    village.add(&village.holders());
    // The teller is asked first, the others in the map's order.
    let order: Vec<usize> = old[..1].iter().copied().chain((0..6).filter(|peer| *peer != old[0])).collect();
    for (peer, bytes) in [strange, stale, b"nonsense".to_vec()].into_iter().enumerate() {
        village.fault(&[order[peer]], &Fault::Epochs(bytes.into()));
    }
    village.fault(&[order[3]], &Fault::OldProtocol);
    assert_eq!(village.get_all().await.expect("found"), village.bytes);
    assert_eq!(village.client.epoch(), 5);
    assert_eq!(village.client.map().cluster(), &CLUSTER);
    let asked: Vec<usize> = order.iter().map(|peer| village.peers[*peer].asked(Kind::EpochsAfter)).collect();
    assert_eq!(asked, [1, 1, 1, 0, 1, 0]);
}

#[tokio::test]
async fn what_is_missing_is_fetched_and_no_more() {
    let mut village = Village::start().await;
    village.begin_move();
    village.tell_all();
    village.add(&village.holders());
    assert_eq!(village.client.presence(village.id).await, Ok(Presence::Present { bytes: 400_000 }));
    assert_eq!(village.client.epoch(), 1, "who has the track does not mind an old map");
    village.client.status().await;
    until(|| village.client.epoch() == 2).await;
    village.end_move();
    village.tell_all();
    let records = village.history.since(2);
    assert_eq!((records.checkpoint.is_none(), records.records.len()), (true, 3));
    village.fault(&(0..6).collect::<Vec<_>>(), &Fault::Epochs(records.encode().into()));
    village.client.nodes_up().await;
    until(|| village.client.epoch() == 5).await;
}

#[tokio::test]
async fn the_map_is_fetched_once_however_many_need_it() {
    let mut village = Village::start().await;
    village.move_all();
    village.add(&village.holders());
    let gate = Arc::new(Semaphore::new(0));
    village.peers.iter().for_each(|peer| peer.state.lock().expect("no panic").gate = Some(Arc::clone(&gate)));
    let mut asking = JoinSet::new();
    for _ in 0..50 {
        let (client, id) = (village.client.clone(), village.id);
        asking.spawn(async move { get(&client, id, 5, 9).await });
    }
    until(|| village.asked(Kind::EpochsAfter) == 1 && village.asked(Kind::Get) == 50).await;
    gate.add_permits(1);
    for got in asking.join_all().await {
        assert_eq!(got.expect("found"), village.bytes[5..9]);
    }
    assert_eq!(village.asked(Kind::EpochsAfter), 1);
}

#[tokio::test]
async fn nodes_whose_map_never_changes_have_nothing_to_give() {
    let mut cluster = Cluster::start().await;
    let (id, bytes) = track();
    cluster.add(&[0, 1, 2], id, &bytes);
    cluster.alive().for_each(|peer| peer.state.lock().expect("no panic").fixed_at = Some(2));
    for error in [
        cluster.get(id, 0, 1).await.expect_err("refused"),
        cluster.put(id, &bytes).await.expect_err("refused"),
        cluster.client.presence(id).await.expect_err("refused"),
        cluster.client.take_down(id, 1).await.expect_err("refused"),
    ] {
        let Error::Unavailable { holders, .. } = error else { panic!("{error}") };
        assert!(!holders.0.is_empty());
        assert!(holders.0.iter().all(|holder| holder.why == "another map"), "{holders}");
    }
    assert_eq!(cluster.client.epoch(), 1);
    // A holder alone that goes by another map does no harm.
    cluster.peers[0..2].iter().flatten().for_each(|peer| peer.state.lock().expect("no panic").fixed_at = None);
    assert_eq!(cluster.get(id, 0, 9_000_000).await.expect("found"), bytes);
    cluster.kill(2).await;
    assert_eq!(cluster.client.presence(id).await, Ok(Presence::Present { bytes: 9_000_000 }));
}

#[tokio::test]
async fn a_node_that_tells_of_an_epoch_which_is_none_does_no_harm() {
    let village = Village::start().await;
    let holders = village.holders();
    village.add(&holders);
    village.fault(&holders[..1], &Fault::Answer(ErrorCode::Moved { epoch: u64::MAX }));
    assert_eq!(village.get_all().await.expect("found"), village.bytes);
    assert_eq!(village.client.presence(village.id).await, Ok(Presence::Present { bytes: 400_000 }));
    assert_eq!(village.asked(Kind::EpochsAfter), 12, "each of the two asked all six, once");
    assert_eq!(village.client.epoch(), 1);
}

#[tokio::test]
async fn a_node_that_stays_keeps_its_connections() {
    let mut village = Village::start().await;
    assert_eq!(village.client.nodes_up().await, 6);
    village.rename_rack();
    village.tell_all();
    village.client.nodes_up().await;
    until(|| village.client.epoch() == 2).await;
    village.move_all();
    assert_eq!(put(&village.client, village.id, &village.bytes).await.expect("stored").epoch, 6);
    village.client.drained().await;
    village.get_all().await.expect("found");
    assert_eq!(village.client.nodes_up().await, 6);
    // An offer that is given up in the middle costs its connection: the put's, to one of the old holders at most.
    assert!(village.peers.iter().map(Peer::connections).sum::<u32>() <= 9);
    assert!(village.holders().iter().all(|peer| village.peers[*peer].connections() == 1));
    // One whose address is another is asked there.
    let (moves, number) = (village.holders()[0], u8::try_from(village.holders()[0]).expect("small") + 1);
    let state = Arc::clone(&village.peers[moves].state);
    let elsewhere = Peer::start_at(number, "127.0.0.1:0", state).await;
    village.change(Change::SetAddress { node: elsewhere.node, address: elsewhere.address.clone() });
    village.peers[moves] = elsewhere;
    village.tell_all();
    village.client.nodes_up().await;
    until(|| village.client.epoch() == 7).await;
    assert_eq!(village.client.nodes_up().await, 6);
    assert_eq!(village.peers[moves].connections(), 2, "one before, one here");
}

#[tokio::test]
async fn a_takedown_reaches_the_new_holders() {
    let mut village = Village::start().await;
    village.move_all();
    village.add(&village.holders());
    let done = village.client.take_down(village.id, 5).await.expect("all confirmed");
    assert_eq!((done.number, done.copies), (5, 3));
    assert!(!village.peers.iter().any(|peer| peer.holds(&village.id)));
    // While it moves, the holders of both sets are.
    let mut village = Village::start().await;
    village.begin_move();
    village.tell_all();
    assert_eq!(village.client.take_down(village.id, 5).await.expect("all confirmed").copies, 6);
}

#[tokio::test]
async fn status_counts_by_the_newest_map_that_is_known() {
    let mut village = Village::start().await;
    village.begin_move();
    village.tell_all();
    village.add(&village.holders());
    village.client.nodes_up().await;
    until(|| village.client.epoch() == 2).await;
    let status = village.client.status().await;
    assert_eq!((status.epoch, status.copies.expected, status.copies.missing), (2, 3, 0), "{:?}", status.warnings);
    assert!(status.healthy, "{:?}", status.warnings);
    village.end_move();
    village.tell_all();
    let status = village.client.status().await;
    assert_eq!((status.epoch, status.warnings.len()), (2, 6), "{:?}", status.warnings);
    until(|| village.client.epoch() == 5).await;
    let status = village.client.status().await;
    assert_eq!((status.epoch, status.tracks), (5, 0), "strays are no copies: {:?}", status.warnings);
}
