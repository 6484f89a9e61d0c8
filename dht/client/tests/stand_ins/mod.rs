//! Two zones: holders that are not there, those who stand in for them, and who is asked first.

use super::*;

/// Three nodes in each of two zones, and a client that waits for nobody long.
struct Town {
    peers: Vec<Peer>,
    client: Client,
    id: TrackId,
    bytes: Bytes,
    /// The peers that hold the track's partition, and their zones.
    holders: Vec<usize>,
}

fn zone(peer: usize) -> &'static str {
    if peer < 3 { "london" } else { "stockholm" }
}

impl Town {
    async fn start() -> Self {
        let mut peers = Vec::new();
        for number in 1..=6 {
            peers.push(Peer::start(number).await);
        }
        let mut spec = spec(&peers);
        spec.nodes.iter_mut().enumerate().for_each(|(at, node)| zone(at).clone_into(&mut node.zone));
        let map = Arc::new(Map::new(spec).expect("a good map"));
        let (id, bytes) = track();
        let at = |volume| peers.iter().position(|peer| peer.volume == volume).expect("a peer's volume");
        let holders = map.holders(id.partition()).iter().map(|holder| at(holder.volume)).collect();
        let config = ClientConfig { connect_ms: 100, first_ms: 200, put_stand_in_ms: 50, ..ClientConfig::default() };
        Self { client: Client::new(map, config), peers, id, bytes, holders }
    }

    /// A holder that is the only one of its zone, or one of two there.
    fn holder(&self, alone: bool) -> usize {
        let in_zone = |of: usize| self.holders.iter().filter(|other| zone(**other) == zone(of)).count();
        *self.holders.iter().find(|holder| (in_zone(**holder) == 1) == alone).expect("three copies lie 2 + 1")
    }

    fn fault(&self, peer: usize, fault: Fault) {
        self.peers[peer].fault(fault);
    }

    async fn put(&self) -> Result<Stored, Error> {
        let stored = put(&self.client, self.id, &self.bytes).await;
        self.client.drained().await;
        stored
    }

    /// The peers that have the track and do not hold its partition.
    fn stood_in(&self) -> Vec<usize> {
        let holds = |peer: &usize| !self.holders.contains(peer) && self.peers[*peer].holds(&self.id);
        (0..self.peers.len()).filter(holds).collect()
    }

    fn asked_to_stand_in(&self) -> usize {
        self.peers.iter().map(|peer| peer.asked(Kind::StandIn)).sum()
    }
}

#[tokio::test]
async fn nobody_stands_in_where_all_holders_are_there() {
    let town = Town::start().await;
    town.put().await.expect("stored");
    assert!(town.holders.iter().all(|peer| town.peers[*peer].holds(&town.id)));
    assert_eq!((town.asked_to_stand_in(), town.stood_in()), (0, vec![]));
}

#[tokio::test]
async fn a_node_of_its_zone_stands_in_for_a_holder_that_fails_or_is_silent() {
    for fault in [Fault::Answer(ErrorCode::Fenced), Fault::Mute, Fault::LateInPut] {
        let town = Town::start().await;
        let gone = town.holder(false);
        town.fault(gone, fault.clone());
        assert_eq!(town.put().await.expect("stored").zones, 2, "{fault:?}");
        let stood_in = town.stood_in();
        assert_eq!((stood_in.len(), zone(stood_in[0])), (1, zone(gone)), "{fault:?}");
        assert_eq!(town.peers[stood_in[0]].asked(Kind::Put), 0, "it is told that it is no holder");
    }
}

#[tokio::test]
async fn a_put_is_in_two_zones_though_the_only_holder_of_one_is_gone() {
    let town = Town::start().await;
    let gone = town.holder(true);
    town.fault(gone, Fault::Answer(ErrorCode::NoSpace));
    let stored = town.put().await.expect("stored");
    assert_eq!((stored.copies, stored.zones), (3, 2));
    // Nobody of the zone is left: two copies in one zone are not what the policy asks for.
    let town = Town::start().await;
    let gone = town.holder(true);
    (0..6).filter(|peer| zone(*peer) == zone(gone)).for_each(|peer| town.fault(peer, Fault::Answer(ErrorCode::Fenced)));
    let error = town.put().await.expect_err("one zone is gone");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(!town.peers.iter().any(|peer| peer.holds(&town.id)));
}

#[tokio::test]
async fn one_that_cannot_stand_in_leaves_it_to_the_next() {
    for refusal in [ErrorCode::NoSpace, ErrorCode::WrongNode] {
        let town = Town::start().await;
        let gone = town.holder(true);
        let others: Vec<usize> = (0..6).filter(|peer| zone(*peer) == zone(gone) && *peer != gone).collect();
        town.fault(gone, Fault::Answer(ErrorCode::Fenced));
        town.fault(others[0], Fault::Answer(refusal));
        assert_eq!(town.put().await.expect("stored").zones, 2);
        assert_eq!(town.stood_in(), [others[1]]);
    }
}

#[tokio::test]
async fn holders_of_the_clients_zone_are_asked_first() {
    for own in ["london", "stockholm"] {
        let mut town = Town::start().await;
        town.put().await.expect("stored");
        let config = ClientConfig { zone: Some(own.to_owned()), ..ClientConfig::default() };
        town.client = Client::new(town.client.map(), config);
        let end = town.bytes.len() as u64;
        get(&town.client, town.id, 0, end).await.expect("found");
        let asked: Vec<usize> = (0..6).filter(|peer| town.peers[*peer].asked(Kind::Get) > 0).collect();
        assert!(asked.len() == 1 && zone(asked[0]) == own, "{asked:?}");
        // One that is gone costs the preference, not the track.
        town.fault(asked[0], Fault::Answer(ErrorCode::Fenced));
        get(&town.client, town.id, 0, end).await.expect("found elsewhere");
    }
}

#[tokio::test]
async fn stand_ins_never_make_up_the_quorum() {
    let town = Town::start().await;
    let gone: Vec<usize> = town.holders[..2].to_vec();
    gone.iter().for_each(|peer| town.fault(*peer, Fault::Answer(ErrorCode::Fenced)));
    let error = town.put().await.expect_err("one holder is left");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(!town.peers.iter().any(|peer| peer.holds(&town.id)));
}
