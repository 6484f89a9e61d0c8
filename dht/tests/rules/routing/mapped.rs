//! Nodes that have the map: what they answer, what they announce, and what they cost.

use std::collections::BTreeSet;
use std::sync::Arc;

use deadwax_dht::routing::{Directory, Effect, Key, Outcome, Request, Response, RouterSettings};
use deadwax_dht::{ClusterId, Map, MapSpec, Node, Policy, Volume, VolumeId};
use deadwax_track::Partition;

use super::net::{HOUR, MINUTE, Net, Random, address, node_at, node_id, percentile};

/// The first `count` nodes of a network, of one volume each.
fn directory(count: usize, epoch: u64) -> Arc<Directory> {
    let node = |node: usize| {
        let id = VolumeId::from_bytes(*node_id(node).as_bytes().first_chunk().expect("32 bytes have 16"));
        let volumes = vec![Volume { id, weight: 100 }];
        Node { id: node_id(node), zone: "a".to_owned(), rack: None, address: address(node), volumes }
    };
    let spec = MapSpec {
        version: 1,
        cluster: ClusterId::from_bytes([0; 16]),
        epoch,
        policy: Policy::default(),
        nodes: (0..count).map(node).collect(),
        overrides: vec![],
    };
    Arc::new(Directory::new(Arc::new(Map::new(spec).expect("a good map"))))
}

/// Nodes that all have this map and announce, of what they hold, each `every`th partition.
fn mapped(net: &mut Net, directory: &Arc<Directory>, every: u16) {
    let held = directory.held();
    for node in 0..directory.contacts().len() {
        let node = if node < net.routers.len() { node } else { net.add() };
        let own = held.get(&node_id(node)).map_or(&[][..], |own| own);
        let own: Arc<[Partition]> = own.iter().copied().filter(|partition| partition.0 % every == 0).collect();
        let now = net.now;
        net.routers[node].set_map(now, directory.clone(), own, &[]);
        net.poll(node);
    }
}

fn without_map() -> RouterSettings {
    RouterSettings { map_missing_ms: 1_000 * HOUR, ..RouterSettings::default() }
}

#[test]
fn a_directory_has_the_nearest_first() {
    let directory = directory(300, 1);
    let mut random = Random(31);
    for round in 0..50 {
        let key = if round < 10 { node_id(round).into() } else { Key::from_words([(); 4].map(|()| random.next())) };
        let mut expected = directory.contacts().to_vec();
        expected.sort_by_key(|contact| contact.key().distance(&key));
        let nearest: Vec<_> = directory.nearest(&key).cloned().collect();
        assert_eq!(nearest, expected, "of {key:?}");
    }
    let held = directory.held();
    assert_eq!(held.values().map(|own| own.len()).sum::<usize>(), 3 * 65_536);
    assert!(held.iter().all(|(id, own)| own.is_sorted() && directory.record(own[0]).names(id)));
}

#[test]
fn who_has_no_map_finds_its_way_through_those_that_have_it_in_a_round_or_two() {
    let mut net = Net::new(32, without_map());
    let directory = directory(300, 1);
    mapped(&mut net, &directory, 4_096);
    let before = net.messages;
    let via = net.random_living();
    let node = net.join(&[via]);
    net.run_for(MINUTE);
    assert!(net.said.iter().any(|(_, who, effect)| *who == node && *effect == Effect::Joined));
    println!("joining takes {} messages", net.messages - before);
    let which: Vec<_> = (0..200_u16).map(|number| (node, Partition(number.wrapping_mul(40_503)))).collect();
    let ends: Vec<_> = which.chunks(50).flat_map(|which| net.resolve(which)).collect();
    for (end, (_, partition)) in ends.iter().zip(&which) {
        assert_eq!(end.outcome, Outcome::Found(directory.record(*partition)));
    }
    let rounds = |percent| percentile(ends.iter().map(|end| end.rounds), percent);
    println!("rounds p50 {} p99 {}", rounds(50), rounds(99));
    // A second round is of those asked meanwhile: two must tell of a record, and one answers before the other.
    assert!(rounds(50) == 1 && rounds(100) <= 2, "p50 {} max {}", rounds(50), rounds(100));
}

#[test]
fn who_is_known_to_be_down_is_told_to_nobody_until_it_is_heard_of() {
    let mut net = Net::new(33, without_map());
    mapped(&mut net, &directory(40, 1), 65_535);
    let key: Key = node_id(7).into();
    let ask = |net: &mut Net| {
        let now = net.now;
        match net.routers[0].handle_request(now, None, Request::FindNode(key)) {
            Response::Nodes(nodes) => nodes.iter().map(|node| node_at(&node.address)).collect::<Vec<_>>(),
            answer => panic!("nodes: {answer:?}"),
        }
    };
    assert_eq!(ask(&mut net)[0], 7);
    let now = net.now;
    net.routers[0].handle_down(now, &node_id(7));
    let nodes = ask(&mut net);
    assert!(nodes.len() == net.settings.k && !nodes.contains(&7) && !nodes.contains(&0), "{nodes:?}");
    let contact = net.contact(7);
    net.routers[0].handle_request(now, Some(&contact), Request::Ping);
    assert_eq!(ask(&mut net)[0], 7);
    net.routers[0].handle_down(now, &node_id(7));
    net.routers[0].handle_up(&node_id(7));
    assert_eq!(ask(&mut net)[0], 7);
}

#[test]
fn a_record_is_kept_as_long_as_any_holder_lives() {
    let mut net = Net::new(34, without_map());
    // Three nodes hold all; ten without the map keep their records.
    mapped(&mut net, &directory(3, 1), 4_096);
    let keepers: Vec<usize> = (0..10)
        .map(|number| {
            let node = net.join(&[number % 3]);
            net.run_for(MINUTE);
            node
        })
        .collect();
    let kept = |net: &Net| {
        let partitions = (0..16).map(|number| Partition(4_096 * number));
        partitions.filter(|partition| keepers.iter().filter(|node| net.keeps(**node, *partition)).count() >= 8).count()
    };
    net.run_for(19 * HOUR);
    assert_eq!(kept(&net), 16, "each was announced");
    let before = net.messages;
    net.run_for(18 * HOUR);
    let announced = net.said.iter().filter(|(.., said)| matches!(said, Effect::Published { enough: true, .. })).count();
    println!("{} messages in 18 hours; {announced} announcements in all", net.messages - before);
    for dead in [0, 1] {
        net.kill(dead);
        for hour in 0..25 {
            net.run_for(HOUR);
            assert_eq!(kept(&net), 16, "{hour} hours after {dead} died");
        }
    }
    net.kill(2);
    net.run_for(25 * HOUR);
    assert_eq!(kept(&net), 0);
}

#[test]
fn what_a_map_changed_is_announced_soon_and_by_one_holder() {
    let mut net = Net::new(35, without_map());
    mapped(&mut net, &directory(3, 1), 1_024);
    let keeper = net.join(&[0, 1, 2]);
    // All know of the keeper.
    for node in 0..3 {
        let (now, contact) = (net.now, net.contact(keeper));
        net.routers[node].handle_request(now, Some(&contact), Request::Ping);
    }
    let second = directory(3, 2);
    let changed = [Partition(1_024), Partition(4_096)];
    let held: Arc<[Partition]> = (0..64).map(|number| Partition(1_024 * number)).collect();
    let said = net.said.len();
    for node in 0..3 {
        let now = net.now;
        net.routers[node].set_map(now, second.clone(), held.clone(), &changed);
        net.poll(node);
    }
    net.run_for(6 * MINUTE);
    let published = net.said[said..].iter().filter_map(|(.., said)| match said {
        Effect::Published { partition, enough: true, .. } if changed.contains(partition) => Some(*partition),
        _ => None,
    });
    assert_eq!(published.collect::<BTreeSet<_>>(), BTreeSet::from(changed));
    let epoch = |partition| net.routers[keeper].records().get(net.now, partition).map(|record| record.epoch);
    assert_eq!(changed.map(epoch), [Some(2); 2]);
}

#[test]
fn a_day_of_idle_nodes_takes_few_messages() {
    let mut net = Net::new(36, RouterSettings::default());
    mapped(&mut net, &directory(60, 1), 512);
    net.run_for(24 * HOUR);
    // Of three others it asks in each ten minutes which map they have, and 128 partitions are announced to 20 nodes four
    // times a day and a little.
    let most = 2 * (60 * (24 * 6 + 1) * 3 + 9 * 128 * 20 / 2);
    println!("{} messages", net.messages);
    assert!(net.messages <= most, "{} messages, and not {most}", net.messages);
    assert!(net.routers.iter().all(|router| router.records().is_empty()), "what the map says needs no record");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// What this thread has computed, in ns; 0 where the system does not say.
fn cpu_ns() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    status.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

#[test]
#[ignore = "takes a minute; prints what idle nodes cost"]
fn what_idle_nodes_cost() {
    for (nodes, hours) in [(1_000, 6), (10_000, 1)] {
        let mut net = Net::new(37, RouterSettings::default());
        let directory = directory(nodes, 1);
        let _ = directory.held();
        let before = resident_kib();
        mapped(&mut net, &directory, 1);
        net.run_for(HOUR);
        let (messages, start) = (net.messages, cpu_ns());
        net.run_for(hours * HOUR);
        let nanoseconds = (cpu_ns() - start) / (nodes as u64 * hours * 3_600);
        println!(
            "{nodes} nodes: {nanoseconds} ns of computing a node and second, {} messages a node and hour, {} KiB a node",
            (net.messages - messages) / (nodes as u64 * hours),
            (resident_kib() - before) / nodes as u64
        );
    }
}
