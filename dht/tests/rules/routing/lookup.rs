//! One lookup, told by hand what came.

use deadwax_dht::NodeId;
use deadwax_dht::routing::{Contact, Key, Lookup, LookupRules, LookupStep, Outcome, PartitionRecord, Told};
use deadwax_track::Partition;

use super::net::record;

const RULES: LookupRules = LookupRules { k: 8, alpha: 2, records_min: 2, patience_ms: 100, lookup_ms: 10_000 };
const PARTITION: Partition = Partition(0);

/// The contact at this distance from the partition's key.
fn contact(distance: u8) -> Contact {
    let mut bytes = [0; 32];
    bytes[31] = distance;
    Contact::new(NodeId::from_bytes(bytes), format!("10.0.0.1:{distance}"))
}

fn contacts(distances: impl IntoIterator<Item = u8>) -> Vec<Contact> {
    distances.into_iter().map(contact).collect()
}

fn lookup() -> Lookup {
    Lookup::for_partition(0, PARTITION, NodeId::from_bytes([0xff; 32]), RULES)
}

/// What it asks at `now` before it waits or ends, and then what it said.
fn asks(lookup: &mut Lookup, now: u64) -> (Vec<u8>, LookupStep) {
    let mut asked = vec![];
    loop {
        match lookup.poll(now) {
            LookupStep::Ask(contact) => asked.push(contact.id.as_bytes()[31]),
            step => return (asked, step),
        }
    }
}

fn says(nodes: impl IntoIterator<Item = u8>) -> Told {
    Told { record: None, settled: true, nodes: contacts(nodes) }
}

fn answer(lookup: &mut Lookup, from: u8, told: Told) {
    lookup.handle_answer(&contact(from).id, told);
}

/// All of `known` are asked in whatever order; each answers as `what` says, or fails where it says nothing.
fn outcome(known: &[u8], doubtful: &[u8], what: impl Fn(u8) -> Option<Told>) -> Outcome {
    let mut lookup = lookup();
    lookup.handle_doubtful(contacts(doubtful.iter().copied()));
    lookup.handle_seeds(contacts(known.iter().copied()));
    loop {
        let (asked, step) = asks(&mut lookup, 0);
        if let LookupStep::Done(outcome) = step {
            return outcome;
        }
        assert!(!asked.is_empty(), "it waits for nobody");
        for from in asked {
            match what(from) {
                Some(told) => answer(&mut lookup, from, told),
                None => lookup.handle_failed(&contact(from).id),
            }
        }
    }
}

fn told(epoch: u64) -> Option<Told> {
    Some(Told { record: Some(record(1, PARTITION, epoch)), settled: true, nodes: vec![] })
}

const EIGHT: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

#[test]
fn it_asks_alpha_at_a_time_and_all_of_the_nearest_when_the_nearest_has_answered() {
    let mut lookup = lookup();
    lookup.handle_seeds(contacts(100..=108));
    assert_eq!(asks(&mut lookup, 0).0, [100, 101]);
    answer(&mut lookup, 101, says(10..18));
    assert_eq!(asks(&mut lookup, 1).0, [10]);
    answer(&mut lookup, 100, says([]));
    assert_eq!(asks(&mut lookup, 2).0, [11], "100 has answered, but there are nearer ones");
    answer(&mut lookup, 10, says([]));
    assert_eq!(asks(&mut lookup, 3).0, [12, 13, 14, 15, 16, 17], "nothing nearer is in sight");
    for from in 11..=17 {
        answer(&mut lookup, from, says([]));
    }
    assert_eq!(asks(&mut lookup, 4).1, LookupStep::Done(Outcome::NotFound));
    assert_eq!((lookup.rounds(), lookup.requests()), (3, 10));
}

#[test]
fn a_slow_request_frees_its_slot_and_its_answer_still_counts() {
    let mut lookup = lookup();
    lookup.handle_seeds(contacts([1, 2, 3]));
    assert_eq!(asks(&mut lookup, 0), (vec![1, 2], LookupStep::Wait { until: 100 }));
    assert_eq!(asks(&mut lookup, 99), (vec![], LookupStep::Wait { until: 100 }));
    assert_eq!(asks(&mut lookup, 100).0, [3]);
    answer(&mut lookup, 3, told(5).expect("a record"));
    answer(&mut lookup, 1, told(6).expect("a record"));
    assert_eq!(lookup.poll(101), LookupStep::Done(Outcome::Found(record(1, PARTITION, 6))));
    assert_eq!(lookup.rounds(), 2);
}

#[test]
fn the_newest_epoch_wins_and_one_record_is_enough_if_there_are_no_more() {
    assert_eq!(outcome(&EIGHT, &[], |from| told(u64::from(from))), Outcome::Found(record(1, PARTITION, 2)));
    for only in EIGHT {
        let end = outcome(&EIGHT, &[], |from| if from == only { told(9) } else { Some(says([])) });
        assert_eq!(end, Outcome::Found(record(1, PARTITION, 9)), "only {only} keeps it");
        let end = outcome(&EIGHT, &[], |from| if from == only { told(9) } else { None });
        assert_eq!(end, Outcome::Found(record(1, PARTITION, 9)), "only {only} lives");
    }
}

#[test]
fn a_record_of_another_partition_is_none() {
    let other = |_| Some(Told { record: Some(record(1, Partition(1), 9)), settled: true, nodes: vec![] });
    assert_eq!(outcome(&EIGHT, &[], other), Outcome::NotFound);
}

#[test]
fn absent_takes_three_quarters_of_the_nearest_dead_ones_among_them() {
    for silent in 0..=u8::MAX {
        let says = |from: u8| if from <= 8 && silent >> (from - 1) & 1 == 1 { None } else { Some(says([])) };
        let expected = if silent.count_ones() <= 2 { Outcome::NotFound } else { Outcome::Unreachable };
        assert_eq!(
            outcome(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], &[], says),
            expected,
            "{silent:b}"
        );
    }
}

#[test]
fn absent_takes_nodes_that_would_know() {
    for new in 0..=8 {
        let end = outcome(&EIGHT, &[], |from| Some(Told { record: None, settled: from > new, nodes: vec![] }));
        assert_eq!(end, if new <= 2 { Outcome::NotFound } else { Outcome::Unreachable }, "{new} are new");
    }
}

#[test]
fn where_few_are_known_all_must_say_so() {
    assert_eq!(outcome(&[], &[], |_| None), Outcome::Unreachable, "who knows nobody knows nothing");
    assert_eq!(outcome(&[1, 2, 3], &[], |_| Some(says([]))), Outcome::NotFound);
    assert_eq!(outcome(&[1, 2, 3], &[], |from| (from != 3).then(|| says([]))), Outcome::Unreachable);
    assert_eq!(outcome(&[1, 2], &[3], |_| Some(says([]))), Outcome::Unreachable, "3 was there once");
    assert_eq!(outcome(&[1, 2], &[3], |_| Some(says([3]))), Outcome::NotFound, "1 says that 3 lives, and it does");
}

#[test]
fn doubtful_ones_that_are_near_stand_in_the_way_of_absence() {
    let far = [11, 12, 13, 14, 15, 16, 17, 18];
    assert_eq!(outcome(&far, &[1, 2], |_| Some(says([]))), Outcome::NotFound);
    assert_eq!(outcome(&far, &[1, 2, 3], |_| Some(says([]))), Outcome::Unreachable);
    assert_eq!(outcome(&far, &[21, 22, 23], |_| Some(says([]))), Outcome::NotFound, "they are not near");
}

#[test]
fn it_ends_in_time_whoever_is_silent() {
    let mut lookup = lookup();
    lookup.handle_seeds(contacts(1..=40));
    let (mut now, mut asked) = (0, 0);
    loop {
        let (asks, step) = asks(&mut lookup, now);
        asked += asks.len();
        match step {
            LookupStep::Wait { until } => {
                assert!(until > now && until <= RULES.lookup_ms, "it goes on at {until}");
                now = until;
            }
            step => {
                assert_eq!((step, now), (LookupStep::Done(Outcome::Unreachable), RULES.lookup_ms));
                break;
            }
        }
    }
    assert_eq!(asked, 4 * RULES.k, "each candidate once");
}

#[test]
fn it_ends_however_many_nearer_nodes_are_made_up() {
    let mut lookup = Lookup::for_nodes(0, Key::from_words([0; 4]), NodeId::from_bytes([0xff; 32]), RULES);
    let at = |distance: u64| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&distance.to_be_bytes());
        Contact::new(NodeId::from_bytes(bytes), "10.0.0.1:1")
    };
    let mut next = 1 << 60;
    lookup.handle_seeds(vec![at(next)]);
    let mut asked = 0;
    loop {
        match lookup.poll(0) {
            LookupStep::Ask(contact) => {
                asked += 1;
                let nodes = (0..100)
                    .map(|_| {
                        next -= 1;
                        at(next)
                    })
                    .collect();
                lookup.handle_answer(&contact.id, Told { record: None, settled: true, nodes });
            }
            LookupStep::Done(_) => break,
            LookupStep::Wait { .. } => panic!("everybody has answered"),
        }
    }
    assert!(asked <= 8 * RULES.k, "{asked} requests");
}

#[test]
fn it_never_asks_itself_nor_anybody_twice() {
    let own = contact(1);
    let mut lookup = Lookup::for_partition(0, PARTITION, own.id, RULES);
    lookup.handle_seeds(contacts(1..=4));
    let mut asked = vec![];
    loop {
        let (asks, step) = asks(&mut lookup, 0);
        if matches!(step, LookupStep::Done(_)) {
            break;
        }
        for from in asks {
            asked.push(from);
            answer(&mut lookup, from, says(1..=6));
            answer(&mut lookup, from, told(1).expect("a record"));
        }
    }
    assert_eq!(asked, [2, 3, 4, 5, 6], "and what they add to their answers later is not looked at");
    let own_record: PartitionRecord = record(1, PARTITION, 3);
    let mut lookup = Lookup::for_partition(0, PARTITION, own.id, RULES);
    lookup.handle_own_record(own_record.clone());
    assert_eq!(lookup.poll(0), LookupStep::Done(Outcome::Found(own_record)), "nobody else is known");
}
