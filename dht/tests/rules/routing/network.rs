//! Networks of hundreds of routers that join, serve, churn, split and heal.

use std::collections::BTreeSet;
use std::sync::Arc;

use deadwax_dht::routing::{
    Contact, Directory, Effect, Outcome, PartitionRecord, Request, Resolution, Response, RouterSettings,
};
use deadwax_dht::{ClusterId, Map, MapSpec, Node, NodeId, Policy, Volume, VolumeId};
use deadwax_track::Partition;

use super::net::{HOUR, MINUTE, Net, Resolved, SECOND, address, contact, node_at, node_id, percentile, record};

/// The first node, which others join by.
fn first(net: &mut Net) -> usize {
    let node = net.add();
    net.routers[node].assume_joined(net.now, 0);
    net.poll(node);
    node
}

/// `count` nodes that joined one after the other, each by one that was there, and have settled since.
fn joined(seed: u64, count: usize, settings: RouterSettings) -> Net {
    let mut net = Net::new(seed, settings);
    first(&mut net);
    while net.routers.len() < count {
        let via = net.random_living();
        net.join(&[via]);
        net.run_for(300);
    }
    net.run_for(MINUTE);
    net
}

/// Nobody asks for a map that nobody has.
fn without_map() -> RouterSettings {
    RouterSettings { map_missing_ms: 100 * HOUR, ..RouterSettings::default() }
}

fn joins(net: &Net) -> BTreeSet<usize> {
    net.said.iter().filter(|(.., effect)| *effect == Effect::Joined).map(|(_, node, _)| *node).collect()
}

fn assert_bounded(net: &Net) {
    let k = net.settings.k;
    for node in net.living() {
        let router = &net.routers[node];
        assert!(router.table().sizes().all(|(entries, waiting)| entries <= k && waiting <= k), "node {node}");
        assert!(router.requests_under_way() <= 500, "node {node} waits for {}", router.requests_under_way());
    }
}

/// How many of the k nearest living nodes each living node knows of its own neighbours, in the mean, in percent.
fn neighbours_known(net: &Net) -> usize {
    let (mut known, mut all) = (0, 0);
    let living = net.living();
    for &node in &living {
        let own = net.contact(node).key();
        let mut near: Vec<Contact> =
            living.iter().filter(|other| **other != node).map(|other| net.contact(*other)).collect();
        near.sort_by_cached_key(|contact| contact.key().distance(&own));
        near.truncate(net.settings.k);
        let table = net.routers[node].table().nearest(&own, net.settings.k);
        known += near.iter().filter(|contact| table.contains(contact)).count();
        all += near.len();
    }
    known * 100 / all
}

/// The share of a table that is dead, in percent.
fn dead_share(net: &Net) -> usize {
    let (mut dead, mut all) = (0, 0);
    for node in net.living() {
        let own = net.contact(node).key();
        for contact in net.routers[node].table().nearest(&own, usize::MAX) {
            dead += usize::from(!net.alive[node_at(&contact.address)]);
            all += 1;
        }
    }
    dead * 100 / all
}

fn resolve_all(net: &mut Net, partitions: &[Partition], times: usize) -> Vec<Resolved> {
    let which: Vec<_> = (0..partitions.len() * times)
        .map(|index| (net.random_living(), partitions[index % partitions.len()]))
        .collect();
    net.resolve(&which)
}

fn found(ends: &[Resolved]) -> usize {
    ends.iter().filter(|end| matches!(end.outcome, Outcome::Found(_))).count()
}

fn never_absent(ends: &[Resolved]) {
    assert!(ends.iter().all(|end| end.outcome != Outcome::NotFound), "a record that was announced is not absent");
}

fn publish_some(net: &mut Net, count: u16) -> Vec<Partition> {
    let partitions: Vec<Partition> = (0..count).map(|number| Partition(number.wrapping_mul(40_503))).collect();
    for partition in &partitions {
        let node = net.random_living();
        let (copies, enough) = net.publish(node, *partition, 1);
        assert!(enough, "{partition:?} has {copies} copies");
    }
    partitions
}

#[test]
fn a_thousand_join_one_another() {
    let mut net = joined(2, 1_000, without_map());
    assert_eq!(joins(&net).len(), 999, "all but the first have joined");
    assert_bounded(&net);
    let known = neighbours_known(&net);
    println!("1,000 joined: {} messages, {known} % of neighbours known", net.messages);
    assert!(known >= 95, "only {known} % of neighbours are known");
    let partitions = publish_some(&mut net, 50);
    let ends = resolve_all(&mut net, &partitions, 10);
    let rounds = |percent| percentile(ends.iter().map(|end| end.rounds), percent);
    println!("rounds p50 {} p99 {}", rounds(50), rounds(99));
    assert_eq!(found(&ends), ends.len());
    assert!(rounds(99) <= 3);
}

#[test]
fn one_live_address_of_many_is_enough() {
    let mut net = joined(3, 60, without_map());
    let dead: Vec<usize> = (0..10).map(|_| net.add()).collect();
    for node in &dead {
        net.kill(*node);
    }
    for live in net.living() {
        let via: Vec<usize> = dead.iter().copied().chain([live]).collect();
        let node = net.join(&via);
        net.run_for(30 * SECOND);
        assert!(joins(&net).contains(&node), "{node} joins by {live}");
        assert!(net.routers[node].table().contacts().count() >= 40, "and knows most");
    }
}

#[test]
fn who_finds_nobody_tries_again_until_somebody_is_there() {
    let mut net = Net::new(4, without_map());
    let early = net.join(&[0, 1, 2]);
    assert_eq!(early, 0, "its own address is among those it was given");
    net.run_for(10 * MINUTE);
    assert!(joins(&net).is_empty());
    let before = net.messages;
    net.run_for(HOUR);
    assert!(net.messages - before <= 60 * 4, "{} knocks in an hour", net.messages - before);
    let late = net.join(&[0]);
    net.run_for(2 * MINUTE);
    assert_eq!(joins(&net), BTreeSet::from([early, late]));
}

#[test]
fn one_living_keeper_is_found_or_nothing_is_said() {
    let settings = RouterSettings { k: 8, ..without_map() };
    let mut net = joined(5, 200, settings);
    net.run_for(2 * HOUR);
    let partitions = publish_some(&mut net, 12);
    for partition in partitions {
        let keepers: Vec<usize> = net.living().into_iter().filter(|node| net.keeps(*node, partition)).collect();
        let spared = keepers[net.random.index(keepers.len())];
        let others: Vec<usize> = keepers.into_iter().filter(|node| *node != spared).collect();
        others.iter().for_each(|node| net.kill(*node));
        for node in [net.random_living(), net.random_living(), spared] {
            let ends = net.resolve(&[(node, partition)]);
            never_absent(&ends);
            assert_eq!(found(&ends), 1, "the one that lives is asked");
        }
        // They come back with what they had.
        others.iter().for_each(|node| net.alive[*node] = true);
        for node in others {
            net.poll(node);
        }
        net.run_for(10 * MINUTE);
    }
}

#[test]
fn a_split_network_never_says_absent_of_what_was_announced() {
    let mut net = joined(6, 200, without_map());
    net.run_for(2 * HOUR);
    let partitions = publish_some(&mut net, 40);
    for small in [100, 20, 5, 1] {
        for node in 0..200 {
            net.side[node] = u8::from(node < small);
        }
        let which: Vec<_> = (0..60).map(|index| (index % small, partitions[index % 40])).collect();
        let ends = net.resolve(&which);
        never_absent(&ends);
        println!("{small} of 200 cut off: {} of 60 found", found(&ends));
        net.side.fill(0);
        net.run_for(30 * MINUTE);
        let ends = resolve_all(&mut net, &partitions, 5);
        never_absent(&ends);
        assert_eq!(found(&ends), ends.len(), "all is found again");
    }
}

#[test]
fn a_part_that_forgets_the_others_does_not_say_absent_for_a_day() {
    let settings = RouterSettings { k: 8, ..without_map() };
    let mut net = joined(17, 150, settings);
    net.run_for(2 * HOUR);
    let partitions = publish_some(&mut net, 30);
    for node in 0..15 {
        net.side[node] = 1;
    }
    let mut unreachable = 0;
    for hour in 0..12 {
        let which: Vec<_> = (0..60).map(|index| (index % 15, partitions[(index + hour) % 30])).collect();
        let ends = net.resolve(&which);
        never_absent(&ends);
        unreachable += ends.len() - found(&ends);
        net.run_for(HOUR);
    }
    println!("15 of 150 cut off for 12 hours: {unreachable} of 720 unreachable");
    assert!(unreachable > 100, "the part lacks many of the records");
}

#[test]
fn lost_messages_cost_time_and_no_truth() {
    let mut net = joined(7, 200, without_map());
    net.run_for(2 * HOUR);
    let partitions = publish_some(&mut net, 40);
    net.drops_permille = 200;
    let ends = resolve_all(&mut net, &partitions, 10);
    never_absent(&ends);
    assert!(found(&ends) * 100 >= ends.len() * 99, "{} of {} found", found(&ends), ends.len());
}

#[test]
fn half_of_the_nodes_replaced_the_table_is_whole_again_after_a_refresh() {
    let mut net = joined(8, 200, without_map());
    let partitions = publish_some(&mut net, 20);
    for _ in 0..100 {
        let (dead, via) = (net.random_living(), net.random_living());
        if dead == via {
            continue;
        }
        net.kill(dead);
        net.join(&[via]);
        net.run_for(SECOND);
    }
    let before = dead_share(&net);
    let ends = resolve_all(&mut net, &partitions, 5);
    never_absent(&ends);
    net.run_for(2 * HOUR + 10 * MINUTE);
    let (after, known) = (dead_share(&net), neighbours_known(&net));
    println!("of the tables dead: {before} %, after two hours {after} %; {known} % of neighbours known");
    assert!(before > after && after <= 5, "{before} %, then {after} % of the tables are dead");
    assert!(known >= 95, "only {known} % of neighbours are known");
    assert_bounded(&net);
    let partitions = publish_some(&mut net, 20);
    let ends = resolve_all(&mut net, &partitions, 5);
    assert_eq!(found(&ends), ends.len());
}

#[test]
fn a_network_that_churns_keeps_its_bounds_and_its_records() {
    let mut net = joined(9, 200, without_map());
    net.run_for(2 * HOUR);
    let partitions = publish_some(&mut net, 20);
    for turn in 0..100 {
        let (dead, via) = (net.random_living(), net.random_living());
        if dead != via {
            net.kill(dead);
            net.join(&[via]);
        }
        net.run_for(MINUTE);
        let node = net.random_living();
        let ends = net.resolve(&[(node, partitions[turn % 20])]);
        never_absent(&ends);
        if turn % 25 == 0 {
            assert_bounded(&net);
            // As holders do, each hour.
            for partition in &partitions {
                let node = net.random_living();
                net.publish(node, *partition, 1);
            }
        }
    }
    let ends = resolve_all(&mut net, &partitions, 5);
    assert!(found(&ends) * 100 >= ends.len() * 95, "{} of {} found", found(&ends), ends.len());
}

#[test]
fn equal_seeds_are_equal_to_the_last_event() {
    let run = |seed| {
        let mut net = joined(seed, 60, RouterSettings::default());
        net.drops_permille = 50;
        let partitions = publish_some(&mut net, 5);
        net.kill(3);
        resolve_all(&mut net, &partitions, 4);
        net.run_for(HOUR);
        (net.trace(), net.messages)
    };
    assert_eq!(run(10), run(10));
    assert_ne!(run(10).0, run(11).0);
}

/// Eight nodes of one volume each, those of the simulation. Node 3 holds few partitions.
fn map(epoch: u64) -> Arc<Map> {
    let node = |node: usize| {
        let id = VolumeId::from_bytes(*node_id(node).as_bytes().first_chunk().expect("32 bytes have 16"));
        let volumes = vec![Volume { id, weight: if node == 3 { 1 } else { 50 } }];
        Node { id: node_id(node), zone: "a".to_owned(), rack: None, address: address(node), volumes }
    };
    let spec = MapSpec {
        version: 1,
        cluster: ClusterId::from_bytes([0; 16]),
        epoch,
        policy: Policy { copies: 1, write_quorum: 1, zones_min: 1 },
        nodes: (0..8).map(node).collect(),
        overrides: vec![],
    };
    Arc::new(Map::new(spec).expect("a good map"))
}

fn set_map(net: &mut Net, node: usize, map: &Arc<Map>) {
    let directory = Arc::new(Directory::new(map.clone()));
    let own = directory.held().remove(&node_id(node)).unwrap_or_else(|| Arc::new([]));
    let now = net.now;
    net.routers[node].set_map(now, directory, own.clone(), &own);
    net.poll(node);
}

#[test]
fn a_node_with_the_map_answers_with_no_lookup() {
    let mut net = Net::new(12, without_map());
    let node = first(&mut net);
    set_map(&mut net, node, &map(3));
    let expected = PartitionRecord::from_map(&map(3), Partition(77));
    assert_eq!(net.routers[node].resolve(net.now, Partition(77)), Ok(Resolution::Known(expected.clone())));
    assert_eq!(net.messages, 0);
    let answer = net.routers[node].handle_request(net.now, None, Request::FindPartition(Partition(77)));
    let Response::Record(told, nodes) = answer else { panic!("it has the map: {answer:?}") };
    assert_eq!((told, nodes.len()), (expected, 7), "and tells a client that has none, and of the map's other nodes");
    assert_eq!(net.routers[node].table().contacts().count(), 0, "a client is no contact");
}

#[test]
fn a_node_that_joins_learns_which_map_is_the_newest_and_who_has_it() {
    let mut net = joined(13, 30, RouterSettings::default());
    // Nodes that hold nothing, and so have nothing to announce.
    set_map(&mut net, 20, &map(3));
    set_map(&mut net, 21, &map(4));
    net.run_for(20 * MINUTE);
    let node = net.join(&[2]);
    net.run_for(MINUTE);
    let newest = |net: &Net, node: usize| {
        let fetches = net.said.iter().filter(|(_, who, _)| *who == node);
        fetches
            .filter_map(|(.., said)| match said {
                Effect::FetchMap { epoch, from } => Some((*epoch, from.id)),
                _ => None,
            })
            .max()
    };
    assert_eq!(newest(&net, node), Some((4, node_id(21))));
    set_map(&mut net, node, &map(4));
    set_map(&mut net, node, &map(2));
    let said = net.said.len();
    net.run_for(HOUR);
    let fetches =
        net.said[said..].iter().filter(|(_, who, said)| *who == node && matches!(said, Effect::FetchMap { .. }));
    assert_eq!(fetches.count(), 0, "it has the newest, and keeps it");
}

#[test]
fn holders_announce_again_and_again_and_when_the_epoch_changes_and_records_expire() {
    // Fewer keepers than nodes, so that it matters who they are; short times, so that a day is short.
    let settings =
        RouterSettings { k: 4, republish_ms: HOUR, expire_ms: 3 * HOUR, records_max: 65_536, ..without_map() };
    let mut net = joined(14, 24, settings);
    let (first_map, partitions) = (map(1), (0..=u16::MAX).map(Partition));
    set_map(&mut net, 3, &first_map);
    net.run_for(6 * MINUTE);
    let held: Vec<Partition> =
        partitions.filter(|partition| PartitionRecord::from_map(&first_map, *partition).names(&node_id(3))).collect();
    let epochs = |net: &Net, partition: Partition| -> Vec<u64> {
        let kept = net.living().into_iter().filter_map(|node| net.routers[node].records().get(net.now, partition));
        kept.map(|record| record.epoch).collect()
    };
    assert!((50..500).contains(&held.len()), "node 3 holds {} partitions", held.len());
    for partition in &held {
        assert!(epochs(&net, *partition).len() >= 3, "{partition:?} is kept by {:?}", epochs(&net, *partition));
    }
    // Longer than a record lives: it is announced again and again.
    net.run_for(4 * HOUR);
    assert!(held.iter().all(|partition| epochs(&net, *partition).len() >= 3), "they are kept on");
    set_map(&mut net, 3, &map(2));
    net.run_for(6 * MINUTE);
    for partition in &held {
        assert!(epochs(&net, *partition).iter().filter(|epoch| **epoch == 2).count() >= 3, "{partition:?}");
    }
    net.kill(3);
    net.run_for(3 * HOUR + MINUTE);
    assert!(held.iter().all(|partition| epochs(&net, *partition).is_empty()), "nobody announces them any more");
    net.run_for(2 * HOUR);
    assert!(net.living().iter().all(|node| net.routers[*node].records().is_empty()), "and nobody keeps them");
}

#[test]
fn a_false_epoch_does_not_hide_the_true_one() {
    let mut net = Net::new(18, RouterSettings::default());
    let (liar, honest) = (first(&mut net), first(&mut net));
    set_map(&mut net, honest, &map(4));
    let node = net.add();
    let now = net.now;
    net.routers[node].assume_joined(now, 0);
    for other in [liar, honest] {
        let contact = net.contact(other);
        let _ = net.routers[node].table_mut().handle_seen(now, contact);
    }
    // Whoever is asked, in whatever order: what the liar says comes first.
    let (mut fetched, mut asked) = (vec![], vec![]);
    for effect in net.routers[node].poll(now, 5) {
        if let Effect::Send { number, to, request: Request::MapEpoch } = effect {
            asked.push((to.id != Some(node_id(liar)), number));
        }
    }
    asked.sort_unstable();
    for (is_honest, number) in asked {
        let from = if is_honest { honest } else { liar };
        let epoch = if is_honest { 4 } else { u64::MAX };
        let contact = net.contact(from);
        let response = Response::MapEpoch { epoch, from: Some(contact.clone()) };
        net.routers[node].handle_response(now, number, contact, response);
    }
    for effect in net.routers[node].poll(now, 6) {
        if let Effect::FetchMap { epoch, .. } = effect {
            fetched.push(epoch);
        }
    }
    assert!(fetched.contains(&u64::MAX) && fetched.contains(&4), "{fetched:?}");
    set_map(&mut net, node, &map(4));
    let answer = net.routers[node].handle_request(now, None, Request::MapEpoch);
    assert_eq!(answer, Response::MapEpoch { epoch: 4, from: Some(net.contact(node)) }, "it repeats no hearsay");
}

#[test]
fn a_node_that_is_new_or_was_cut_off_says_so() {
    let mut net = Net::new(19, RouterSettings { expire_ms: HOUR + 30 * MINUTE, ..without_map() });
    let node = net.add();
    let (start, other) = (net.now, contact(1));
    let router = &mut net.routers[node];
    router.assume_joined(start, start);
    let mut settled = |now| match router.handle_request(now, Some(&other), Request::FindPartition(Partition(9))) {
        Response::NoRecord { settled, .. } => settled,
        answer => panic!("it has no record: {answer:?}"),
    };
    assert!(!settled(start));
    assert!(!settled(start + HOUR - 1));
    assert!(!settled(start + HOUR + 30 * MINUTE - 1));
    assert!(settled(start + HOUR + 30 * MINUTE));
    assert!(settled(start + 2 * HOUR));
    assert!(!settled(start + 3 * HOUR), "it heard of nobody for an hour");
    assert!(!settled(start + 4 * HOUR - 1));
    assert!(settled(start + 4 * HOUR + 30 * MINUTE));
}

#[test]
fn only_a_holder_announces_and_only_what_is_bounded() {
    let mut net = Net::new(15, without_map());
    let node = first(&mut net);
    let (now, other) = (net.now, contact(7));
    let router = &mut net.routers[node];
    let mut announce = |from: Option<&Contact>, record| {
        let good = self::record(7, Partition(2), 1);
        match router.handle_request(now, from, Request::Announce(vec![record, good])) {
            Response::Kept(epochs) if epochs.len() == 2 => epochs[0],
            answer => panic!("two epochs: {answer:?}"),
        }
    };
    let good = record(7, Partition(1), 5);
    assert_eq!(announce(None, good.clone()), 0, "a client");
    assert_eq!(announce(Some(&contact(8)), good.clone()), 0);
    let mut long = good.clone();
    long.holders[0].address = "x".repeat(256).into();
    let mut many = good.clone();
    many.holders = vec![good.holders[0].clone(); 17];
    for bad in [record(7, Partition(1), 0), long, many] {
        assert_eq!(announce(Some(&other), bad), 0);
    }
    assert_eq!(announce(Some(&other), good), 5);
    assert_eq!(announce(Some(&other), record(7, Partition(1), 4)), 5);
    assert_eq!(announce(Some(&other), record(7, Partition(1), 6)), 6);
}

#[test]
fn answers_that_make_no_sense_are_failures() {
    let mut net = Net::new(16, without_map());
    let (node, other) = (net.add(), contact(1));
    let now = net.now;
    let router = &mut net.routers[node];
    router.assume_joined(now, 0);
    let _ = router.table_mut().handle_seen(now, other.clone());
    for (from, answer) in [
        (other.clone(), Response::Pong),
        (other.clone(), Response::Record(PartitionRecord { holders: vec![], ..record(1, Partition(1), 1) }, vec![])),
        (Contact::new(NodeId::from_bytes([9; 32]), address(1)), Response::NoRecord { settled: true, nodes: vec![] }),
    ] {
        let Ok(Resolution::Looking(lookup)) = router.resolve(now, Partition(1)) else { panic!("it has no map") };
        let effects = router.poll(now, 1);
        let sent = effects.iter().find_map(|effect| match effect {
            Effect::Send { number, request: Request::FindPartition(_), .. } => Some(*number),
            _ => None,
        });
        router.handle_response(now, sent.expect("it asks"), from, answer);
        let end = router.poll(now, 2).into_iter().find(|effect| matches!(effect, Effect::Resolved { .. }));
        let Some(Effect::Resolved { number, outcome, .. }) = end else { panic!("it has ended: {end:?}") };
        assert_eq!((number, outcome), (lookup, Outcome::Unreachable));
        let _ = router.table_mut().handle_seen(now, other.clone());
    }
    router.handle_response(now, 999_999, other, Response::Pong);
}
