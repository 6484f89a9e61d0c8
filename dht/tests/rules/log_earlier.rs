//! What a rollback reaches: operators' changes, whatever moved since.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_dht::log::{BadState, Batch, Change, Earlier, History, RECORDS_MAX, State, UNDOS_BYTES_MAX, UNDOS_MAX};
use deadwax_dht::{MapSpec, Node, NodeId, Policy, Volume, VolumeId};
use deadwax_track::Partition;

use crate::map_log::cluster::{
    Random, any_change, history, move_to, node, node_id, proposal, push, rack, spec, volume_id,
};

/// What a rollback brings back, whatever the order of nodes.
type Sorted = (Policy, BTreeMap<NodeId, Node>, BTreeSet<VolumeId>);

fn sorted(spec: &MapSpec, leaving: &BTreeSet<VolumeId>) -> Sorted {
    (spec.policy, spec.nodes.iter().map(|node| (node.id, node.clone())).collect(), leaving.clone())
}

fn of_state(state: &State) -> Sorted {
    sorted(state.spec(), state.leaving())
}

fn of_earlier(earlier: &Earlier) -> Sorted {
    sorted(&earlier.spec, &earlier.leaving)
}

/// The history of a node that was given all of it, as bytes.
fn given(history: &History) -> History {
    let batch = Batch::decode(&history.since(0).encode()).expect("what was encoded");
    let given = History::from_batch(&batch).expect("a good batch");
    assert_eq!(given.since(0).encode(), history.since(0).encode(), "a voter's start compares the two");
    given
}

/// Moves that make `records` records.
fn moves(history: &mut History, records: u16) {
    for number in 0..records {
        let partition = Partition(1_000 + number);
        let mut each = [[1, 2, 3], [3, 4, 5]].map(|nodes| move_to(history, partition, nodes)).into_iter();
        push(history, Change::Begin(vec![each.find(|each| each.new != each.old).expect("one is elsewhere")]));
    }
}

#[test]
fn what_operators_changed_is_known_however_much_moved_since_and_to_whoever_joins() {
    let mut known = history(6, 3);
    let mut were = vec![of_state(known.state())];
    let leave = |leaving| Change::SetLeaving { volumes: vec![volume_id(6, 1), volume_id(6, 2)], leaving };
    let weight = |weight| Change::SetWeight { volume: volume_id(1, 1), weight };
    let policy = Change::SetPolicy(Policy { zones_min: 1, ..Policy::default() });
    let dead = |dead| Change::SetDead { node: node_id(5), dead };
    let operators =
        [weight(9), Change::AddNode(node(9)), leave(true), policy, dead(true), rack(1), leave(false), weight(7)];
    for change in operators {
        push(&mut known, change);
        were.push(of_state(known.state()));
    }
    push(&mut known, Change::RemoveNode(node_id(6)));
    let changed = [2, 3, 4, 5, 7, 8, 9, 10];
    assert_eq!(known.changed_at(), changed, "who is dead is no map's");
    let late = known.clone();
    moves(&mut known, 200);
    assert!(known.oldest() > 100 && known.state_at(9).is_none(), "records are not kept for so long");
    let mut behind = late;
    behind.catch_up(&known.since(behind.epoch())).expect("a good batch");
    for history in [&known, &behind, &given(&known), &given(&given(&behind))] {
        assert_eq!((history.earliest(), history.changed_at()), (1, changed.to_vec()));
        for (epoch, was) in (1..).zip(&were) {
            let earlier = history.earlier(epoch).expect("it is known");
            assert_eq!((&of_earlier(&earlier), earlier.spec.epoch), (was, epoch));
            assert!(earlier.spec.overrides.is_empty());
        }
        let now = of_state(history.state());
        for epoch in [10, 11, 100, history.epoch()] {
            assert_eq!(of_earlier(&history.earlier(epoch).expect("it is known")), now, "{epoch}");
        }
        assert_eq!((history.earlier(0), history.earlier(history.epoch() + 1)), (None, None));
    }
}

#[test]
fn any_changes_can_be_taken_back() {
    for seed in 0..30 {
        let mut random = Random(seed);
        let (mut known, mut fresh) = (history(6, 3), 100);
        let mut were = vec![of_state(known.state())];
        for number in 0..400 {
            let change = any_change(&mut random, &known, &mut fresh);
            if let Ok(record) = known.decide(&proposal(known.epoch(), number, change)) {
                known.append(&record).expect("what was decided can be taken");
                were.push(of_state(known.state()));
            }
        }
        for history in [&known, &given(&known)] {
            for (epoch, was) in (1..).zip(&were) {
                let earlier = history.earlier(epoch).map(|earlier| of_earlier(&earlier));
                let is_known = epoch >= history.earliest();
                assert_eq!(earlier.as_ref(), is_known.then_some(was), "seed {seed}, epoch {epoch}");
            }
        }
        assert!(known.epoch() > 2 * RECORDS_MAX as u64 && known.earliest() < known.oldest(), "seed {seed}");
    }
}

#[test]
fn the_last_changes_before_the_records_are_known_and_no_more() {
    let mut known = history(6, 3);
    (0..300).for_each(|number| push(&mut known, rack(number)));
    let most = (UNDOS_MAX + RECORDS_MAX) as u64;
    for history in [&known, &given(&known)] {
        assert_eq!((history.earliest(), history.changed_at().len() as u64), (301 - most, most));
        assert_eq!(
            history.earlier(301 - most).expect("known").spec.nodes[0].rack,
            Some(format!("number {}", 299 - most))
        );
        assert_eq!(history.earlier(300 - most), None);
    }
}

#[test]
fn of_large_changes_fewer_are_known_and_the_newest_whatever_its_length() {
    // Of each so many nodes are other than before, with names as long as may be.
    for (nodes, kept) in [(3_000_u16, 2), (9_000, 1)] {
        let mut known = history(5, 3);
        for number in 0..5 {
            let mut next = MapSpec { epoch: known.epoch(), ..spec(5) };
            next.nodes.extend((0..nodes).map(|at| {
                let (mut id, mut volume) = ([0xee; 32], [0xee; 16]);
                [&mut id[..2], &mut volume[..2]].into_iter().for_each(|bytes| bytes.copy_from_slice(&at.to_le_bytes()));
                let volumes = vec![Volume { id: VolumeId::from_bytes(volume), weight: 1 + number }];
                let (rack, address) = (Some(format!("{:0255}", 7)), format!("{at:0250}:7000"));
                Node { id: NodeId::from_bytes(id), rack, address, volumes, ..node(1) }
            }));
            push(&mut known, Change::Reshape { spec: Box::new(next) });
        }
        let dead = |dead| Change::SetDead { node: node_id(1), dead };
        (0..RECORDS_MAX).for_each(|number| push(&mut known, dead(number % 2 == 0)));
        assert!(known.oldest() >= 6, "all are before the records");
        let bytes = Batch { records: Vec::new(), ..known.since(0) }.encode();
        let without = known.state().encode().len() + known.record(known.oldest()).expect("kept").encode().len();
        assert_eq!(
            bytes.len() - without < UNDOS_BYTES_MAX,
            kept > 1,
            "{} of {} bytes",
            bytes.len() - without,
            bytes.len()
        );
        assert_eq!(known.changed_at(), (7 - kept..=6).collect::<Vec<_>>());
        let earlier = given(&known).earlier(known.earliest()).expect("it is known");
        assert_eq!(u64::from(earlier.spec.nodes.last().expect("many").volumes[0].weight), 5 - kept);
    }
}

#[test]
fn changes_that_are_out_of_order_or_too_many_are_refused() {
    let mut known = history(6, 3);
    (0..80).for_each(|number| push(&mut known, rack(number)));
    let batch = Batch { records: Vec::new(), ..known.since(0) };
    let bytes = batch.encode();
    let record = known.record(known.oldest()).expect("kept").encode().len();
    let state = known.state_at(known.oldest()).expect("kept").encode().len();
    // Version, whether there is a checkpoint, its record and state with their lengths.
    let at = 2 + 4 + record + 4 + state;
    assert_eq!((&bytes[at..at + 8], &bytes[at + 8..at + 12]), (&1_u64.to_le_bytes()[..], &16_u32.to_le_bytes()[..]));
    assert_eq!(bytes[at + 12..at + 20], 2_u64.to_le_bytes());
    let forged = |at: usize, with: u64| {
        let mut forged = bytes.clone();
        forged[at..at + 8].copy_from_slice(&with.to_le_bytes());
        match Batch::decode(&forged) {
            Err(BadState::Bytes(why)) => why.to_string(),
            other => panic!("{other:?}"),
        }
    };
    for (at, with) in [(at, 2), (at, 50), (at + 12, 1), (at + 12, 3), (at + 12, u64::MAX)] {
        let why = forged(at, with);
        assert!(why.contains("earlier changes"), "{why}");
    }
}
