//! The chain of epochs: what is taken, what is refused, and how a node that is behind catches up.

use std::collections::BTreeSet;
use std::sync::Arc;

use deadwax_dht::log::{
    BadChange, BadHistory, Batch, Change, Checkpoint, Grant, History, MOVES_MAX, RECORDS_BYTES_MAX, RECORDS_MAX,
    Record, Refusal, Stage, State, TOKENS_MAX, Thing, Token, Voter,
};
use deadwax_dht::{BadMap, LayoutCache, MapSpec, Node, NodeId, Override, Policy, TokenName, Volume, VolumeId};
use deadwax_track::Partition;

use crate::map_log::cluster::{
    PROTOCOL, Random, any_change, history, move_to, node, node_id, proposal, push, rack, spec, volume_id, voters,
};

const P: Partition = Partition(7);

fn refused(history: &History, change: Change) -> Refusal {
    history.decide(&proposal(history.epoch(), 0, change)).expect_err("a change that cannot be")
}

fn rule(history: &History, change: Change) -> BadChange {
    match refused(history, change) {
        Refusal::Rule(bad) => bad,
        other => panic!("not a rule: {other:?}"),
    }
}

/// A history of `epochs` after the genesis.
fn long(epochs: u64) -> History {
    let mut history = history(5, 3);
    (0..epochs).for_each(|number| push(&mut history, rack(number)));
    history
}

#[test]
fn a_node_a_thousand_epochs_behind_catches_up_from_a_peer() {
    let (peer, mut behind) = (long(1_000), long(0));
    let batch = Batch::decode(&peer.since(behind.epoch()).encode()).expect("what was encoded");
    assert_eq!((batch.checkpoint.is_some(), batch.records.len()), (true, RECORDS_MAX));
    assert_eq!(behind.catch_up(&batch), Ok(1_000));
    assert_eq!((behind.head(), behind.state()), (peer.head(), peer.state()));
    // One that is only a little behind gets records alone; one that is not, nothing.
    let mut near = long(990);
    assert_eq!(peer.since(near.epoch()).checkpoint, None);
    assert_eq!(near.catch_up(&peer.since(near.epoch())), Ok(10));
    assert_eq!(near, peer);
    assert!(peer.since(peer.epoch()).is_empty() && peer.since(u64::MAX).is_empty());
    assert_eq!(near.catch_up(&peer.since(0)), Ok(0));
    assert_eq!(near.catch_up(&long(5).since(0)), Ok(0), "an older peer has nothing new");
}

#[test]
fn what_is_kept_is_bounded_and_depends_on_the_chain_alone() {
    let (straight, mut other) = (long(300), long(100));
    other.catch_up(&straight.since(other.epoch())).expect("a good batch");
    let fresh = History::from_batch(&straight.since(0)).expect("a good batch");
    for history in [&straight, &other, &fresh] {
        assert_eq!((history.oldest(), history.epoch()), (301 - RECORDS_MAX as u64, 301));
        assert_eq!(history.since(0), straight.since(0));
        for epoch in 0..310 {
            assert_eq!(history.record(epoch).is_some(), (history.oldest()..=301).contains(&epoch), "{epoch}");
            assert_eq!(history.state_at(epoch), straight.state_at(epoch));
        }
    }
    assert_eq!(straight.state_at(301).as_ref(), Some(&**straight.state()));
}

#[test]
fn of_large_records_fewer_are_kept_and_the_newest_whatever_its_length() {
    // So many more nodes, with names as long as may be, that three maps are beyond the bound, or that one is.
    for (nodes, kept) in [(3_000_u16, 2), (9_000, 1)] {
        let mut known = history(5, 3);
        let name = |length: usize, number: u16| format!("{number:0length$}");
        for number in 0..4 {
            let mut next = MapSpec { epoch: known.epoch(), ..spec(5) };
            next.nodes.extend((0..nodes).map(|at| {
                let (mut id, mut volume) = ([0xee; 32], [0xee; 16]);
                [&mut id[..2], &mut volume[..2]].into_iter().for_each(|bytes| bytes.copy_from_slice(&at.to_le_bytes()));
                let volumes = vec![Volume { id: VolumeId::from_bytes(volume), weight: 1 + number }];
                let (rack, address) = (Some(name(255, 7)), name(250, at) + ":7000");
                Node { id: NodeId::from_bytes(id), rack, address, volumes, ..node(1) }
            }));
            push(&mut known, Change::Reshape { spec: Box::new(next) });
        }
        let batch = known.since(0);
        let bytes: usize = batch.records.iter().map(|record| record.encode().len()).sum();
        assert_eq!(batch.records.len(), kept, "{bytes} bytes");
        assert_eq!(bytes <= RECORDS_BYTES_MAX, kept > 1, "{bytes} bytes");
        let again = Batch::decode(&batch.encode()).expect("a batch within its bounds");
        assert_eq!(History::from_batch(&again).expect("a good batch"), known);
    }
}

#[test]
fn what_moved_is_known_for_longer_than_its_records_are_kept() {
    let mut known = history(5, 3);
    let begin = |known: &mut History, number: u16| {
        let mut each = [[1, 2, 3], [3, 4, 5]].map(|nodes| move_to(known, Partition(number), nodes)).into_iter();
        push(known, Change::Begin(vec![each.find(|each| each.new != each.old).expect("one is elsewhere")]));
    };
    push(&mut known, rack(0));
    begin(&mut known, 7);
    begin(&mut known, 9);
    let early = known.clone();
    (100..300).for_each(|number| begin(&mut known, number));
    assert!(known.oldest() > 100 && early.oldest() == 1);
    for (partition, last) in [(8, 2), (7, 3), (9, 4), (100, 5), (299, 204)] {
        let moved: Vec<u64> = (0..=204).filter(|epoch| known.moved_since(Partition(partition), *epoch)).collect();
        assert_eq!(moved, (0..last).collect::<Vec<_>>(), "partition {partition}");
    }
    // Whoever began at a checkpoint does not know what was before it.
    let mut begun = early;
    begun.catch_up(&known.since(4)).expect("a good batch");
    for history in [&begun, &History::from_batch(&known.since(0)).expect("a good batch")] {
        assert!(history.moved_since(P, history.oldest() - 1) && !history.moved_since(P, history.oldest()));
        assert!(history.moved_since(Partition(299), 203) && !history.moved_since(Partition(299), 204));
    }
    push(&mut known, rack(1));
    assert!(known.moved_since(P, 204), "placement looks at nodes");
    assert!(!known.moved_since(P, 205));
}

#[test]
fn a_cache_makes_nobody_forget_what_moved_nor_know_more() {
    let cache = LayoutCache::default();
    let mut known = history(5, 3);
    push(&mut known, rack(0));
    for number in 100..200 {
        let each = move_to(&known, Partition(number), [1, 2, 3]);
        push(&mut known, Change::Begin(vec![each]));
    }
    let begun = History::from_batch(&known.since(0)).expect("a good batch");
    let missing = |further: &History, behind: &History| Batch { checkpoint: None, ..further.since(behind.epoch()) };
    // One that knows more, for one that began late, and one that began late, for one that knows more.
    for (mut ahead, mut other) in [(known.clone(), begun.clone()), (begun.clone(), known.clone())] {
        let before: Vec<bool> = (0..110).map(|epoch| other.moved_since(P, epoch)).collect();
        let each = move_to(&ahead, Partition(300), [1, 2, 3]);
        push(&mut ahead, Change::Begin(vec![each]));
        cache.layout(&ahead, None).expect("a good map");
        let batch = missing(&ahead, &other);
        assert_eq!(cache.catch_up(&mut other, &batch), Ok(1));
        let after: Vec<bool> = (0..110).map(|epoch| other.moved_since(P, epoch)).collect();
        assert_eq!(after, before);
    }
}

/// A batch of `peer`'s, with one record made another, from there on a good chain again or not.
fn forged(peer: &History, change: impl Fn(&mut Record)) -> Batch {
    let mut batch = peer.since(5);
    change(Arc::make_mut(&mut batch.records[2]));
    batch
}

#[test]
fn forged_records_are_refused_and_change_nothing_of_themselves() {
    let peer = long(10);
    let offer = |batch: &Batch| {
        let mut history = long(4);
        let refused = history.catch_up(batch).expect_err("a forged batch");
        assert_eq!(history.epoch(), 7, "the good ones before it are taken");
        assert_eq!(history.head(), peer.hash(7).expect("kept"));
        refused
    };
    let other_rack = |record: &mut Record| record.change = rack(77);
    assert_eq!(offer(&forged(&peer, other_rack)), BadHistory::State { epoch: 8 });
    let flip = |record: &mut Record| record.previous[0] ^= 1;
    assert_eq!(offer(&forged(&peer, flip)), BadHistory::Previous { epoch: 8 });
    let flip = |record: &mut Record| record.state[31] ^= 1;
    assert_eq!(offer(&forged(&peer, flip)), BadHistory::State { epoch: 8 });
    let skip = |record: &mut Record| record.epoch = 9;
    assert_eq!(offer(&forged(&peer, skip)), BadHistory::Gap { newest: 7, got: 9 });
    let broken = |record: &mut Record| record.change = Change::SetWeight { volume: volume_id(1, 1), weight: 0 };
    let source = BadChange::Map(BadMap::Weight(volume_id(1, 1)));
    assert_eq!(offer(&forged(&peer, broken)), BadHistory::Rule { epoch: 8, source });
    let again = |record: &mut Record| {
        record.change = Change::Genesis { spec: Box::new(spec(5)), voters: voters(3), protocol: PROTOCOL };
    };
    assert_eq!(offer(&forged(&peer, again)), BadHistory::Rule { epoch: 8, source: BadChange::Genesis });
    let mut missing = peer.since(5);
    missing.records.remove(2);
    assert_eq!(offer(&missing), BadHistory::Gap { newest: 7, got: 9 });
}

#[test]
fn a_forked_chain_is_refused() {
    let (ours, mut theirs) = (long(10), long(7));
    (0..5).for_each(|number| push(&mut theirs, rack(500 + number)));
    let mut history = ours.clone();
    // Their epochs are well made, and longer; but the ninth is not ours.
    assert_eq!(history.catch_up(&theirs.since(5)), Err(BadHistory::Fork { epoch: 9 }));
    assert_eq!(history.catch_up(&theirs.since(11)), Err(BadHistory::Previous { epoch: 12 }));
    assert_eq!(history.append(theirs.record(9).expect("kept")), Err(BadHistory::Fork { epoch: 9 }));
    assert_eq!(history.append(ours.record(9).expect("kept")), Err(BadHistory::Gap { newest: 11, got: 9 }));
    assert_eq!(history, ours);
    // A checkpoint that is within what we keep is compared, too.
    let mut further = theirs.clone();
    (0..60).for_each(|number| push(&mut further, rack(number)));
    let at = further.oldest();
    assert!((9..=11).contains(&at), "{at}");
    assert_eq!(history.catch_up(&further.since(0)), Err(BadHistory::Fork { epoch: at }));
}

#[test]
fn a_checkpoint_is_bound_to_its_record_and_to_the_cluster() {
    let peer = long(200);
    let with = |change: &dyn Fn(&mut Checkpoint)| {
        let mut batch = peer.since(0);
        change(Arc::make_mut(batch.checkpoint.as_mut().expect("it is far behind")));
        let mut behind = long(1);
        let refused = behind.catch_up(&batch).expect_err("a forged checkpoint");
        assert_eq!(behind, long(1), "all or nothing");
        refused
    };
    let at = peer.oldest();
    let other = long(5).state_at(3).expect("kept");
    assert_eq!(with(&|checkpoint| checkpoint.state = other.clone()), BadHistory::State { epoch: at });
    assert_eq!(with(&|checkpoint| checkpoint.record.state[0] ^= 1), BadHistory::State { epoch: at });
    // The checkpoint's record is what the next one names.
    let other_rack = |checkpoint: &mut Checkpoint| checkpoint.record.change = rack(77);
    assert_eq!(with(&other_rack), BadHistory::Previous { epoch: at + 1 });
    let mut strange = spec(5);
    strange.cluster = deadwax_dht::ClusterId::from_bytes([8; 16]);
    strange.epoch = 500;
    let strange = History::genesis(strange, voters(3)).expect("a good genesis");
    let refused = long(1).catch_up(&strange.since(0));
    assert!(matches!(refused, Err(BadHistory::Cluster { .. })), "{refused:?}");
    assert_eq!(History::from_batch(&peer.since(199)), Err(BadHistory::NoCheckpoint));
}

#[test]
fn a_change_that_breaks_a_rule_is_refused() {
    let known = history(5, 3);
    let no_such = VolumeId::from_bytes([9; 16]);
    assert_eq!(rule(&known, Change::AddNode(node(1))), BadChange::Map(BadMap::NodeTwice(node_id(1))));
    assert_eq!(rule(&known, Change::RemoveNode(node_id(9))), BadChange::NoNode(node_id(9)));
    assert_eq!(rule(&known, Change::RemoveNode(node_id(1))), BadChange::VoterNotInMap(node_id(1)));
    assert_eq!(rule(&known, Change::RetireVolume(no_such)), BadChange::NoVolume(no_such));
    let copies = Policy { copies: 1, ..Policy::default() };
    assert!(matches!(rule(&known, Change::SetPolicy(copies)), BadChange::Map(BadMap::WriteQuorum { .. })));
    let zone = Change::SetZone { node: node_id(1), zone: "x".repeat(70_000) };
    assert!(matches!(rule(&known, zone), BadChange::Map(BadMap::Name { .. })));
    let over = Override { partition: P, volumes: [no_such; 3].into() };
    let unknown = BadMap::OverrideVolume { partition: P, volume: no_such };
    assert_eq!(rule(&known, Change::SetOverrides(vec![over.clone()])), BadChange::Map(unknown));
    assert_eq!(rule(&known, Change::SetOverrides(vec![over.clone(), over])), BadChange::PartitionTwice(P));
    assert_eq!(rule(&known, Change::SetOverrides(Vec::new())), BadChange::Partitions(0));
    let many = (0..=MOVES_MAX).map(|number| Partition(u16::try_from(number).expect("small"))).collect();
    assert_eq!(rule(&known, Change::Finish(many)), BadChange::Partitions(MOVES_MAX + 1));
    let same = Change::SetWeight { volume: volume_id(1, 1), weight: 100 };
    assert_eq!(rule(&known, same), BadChange::Nothing);
    assert_eq!(rule(&known, Change::SetDead { node: node_id(9), dead: true }), BadChange::NoNode(node_id(9)));
    assert_eq!(rule(&known, Change::SetDead { node: node_id(1), dead: false }), BadChange::Nothing);
}

#[test]
fn there_are_three_to_seven_voters_and_each_has_a_seat_of_its_own() {
    assert_eq!(History::genesis(spec(9), voters(2)).expect_err("two"), BadChange::Voters(2));
    assert_eq!(History::genesis(spec(9), voters(8)).expect_err("eight"), BadChange::Voters(8));
    let mut known = history(9, 3);
    assert_eq!(rule(&known, Change::set_voters(voters(2), |_| 9)), BadChange::Voters(2));
    assert_eq!(rule(&known, Change::set_voters(voters(8), |_| 9)), BadChange::Voters(8));
    assert_eq!(rule(&known, Change::set_voters(vec![node_id(1); 3], |_| 9)), BadChange::VoterTwice(node_id(1)));
    let strange = vec![node_id(1), node_id(2), node_id(99)];
    assert_eq!(rule(&known, Change::set_voters(strange, |_| 9)), BadChange::VoterNotInMap(node_id(99)));
    assert_eq!(rule(&known, Change::set_voters(voters(3), |_| 9)), BadChange::Nothing);
    assert_eq!(rule(&known, Change::SettleVoters), BadChange::Nothing);
    push(&mut known, Change::set_voters(voters(7), |_| 9));
    assert_eq!((known.state().voters().len(), known.state().outgoing().len()), (7, 3));
    assert_eq!(rule(&known, Change::set_voters(voters(5), |_| 9)), BadChange::VotersChange);
    push(&mut known, Change::SettleVoters);
    push(&mut known, Change::set_voters(voters(3), |_| 9));
    assert_eq!(known.state().seat_of(&node_id(7)), Some(7), "it votes until the change is settled");
    assert_eq!(rule(&known, Change::RemoveNode(node_id(7))), BadChange::VoterNotInMap(node_id(7)));
    push(&mut known, Change::SettleVoters);
    assert_eq!(known.state().seat_of(&node_id(7)), None);
    push(&mut known, Change::set_voters(vec![node_id(1), node_id(2), node_id(7)], |_| 9));
    assert_eq!(known.state().seat_of(&node_id(7)), Some(8), "a seat is given once");
    assert_eq!(known.state().seat_of(&node_id(1)), Some(1));
}

#[test]
fn a_voter_gets_a_new_seat_in_place_of_one_that_was_lost() {
    let mut known = history(9, 3);
    let renew =
        |nodes: &[u8]| Change::RenewSeats(nodes.iter().map(|node| Grant { node: node_id(*node), life: 9 }).collect());
    assert_eq!(rule(&known, renew(&[])), BadChange::Nothing);
    assert_eq!(rule(&known, renew(&[3, 3])), BadChange::VoterTwice(node_id(3)));
    assert_eq!(rule(&known, renew(&[4])), BadChange::NotVoter(node_id(4)));
    assert_eq!(rule(&known, renew(&[3; 8])), BadChange::Voters(8));
    push(&mut known, renew(&[3]));
    let seats = |voters: &[Voter]| voters.iter().map(|voter| voter.seat).collect::<Vec<_>>();
    assert_eq!((seats(known.state().voters()), seats(known.state().outgoing())), (vec![1, 2, 4], vec![1, 2, 3]));
    assert_eq!(known.state().voter(&node_id(3)).map(|voter| (voter.seat, voter.life)), Some((4, 9)));
    assert_eq!(known.state().seat_of(&node_id(3)), Some(4));
    assert_eq!(rule(&known, renew(&[2])), BadChange::VotersChange);
    push(&mut known, Change::SettleVoters);
    assert_eq!(seats(known.state().voters()), [1, 2, 4]);
}

#[test]
fn a_transition_goes_from_stage_to_stage() {
    let mut known = history(6, 3);
    let old = known.state().holders(P).union();
    let each = move_to(&known, P, [1, 2, 3]);
    let (new, both) = (each.new.clone(), [&old[..], &each.new[..]].concat().into_iter().collect::<BTreeSet<_>>());
    let sets = |known: &History| known.state().holders(P).sets().map(<[VolumeId]>::to_vec).collect::<Vec<_>>();
    let advance = |to| Change::Advance { partitions: vec![P], to };
    assert_eq!(rule(&known, advance(Stage::Synced)), BadChange::NotInTransition(P));
    push(&mut known, Change::Begin(vec![each.clone()]));
    assert_eq!(sets(&known), [old.clone(), new.clone()], "readers ask the old ones first");
    assert_eq!(known.state().holders(P).union().into_iter().collect::<BTreeSet<_>>(), both);
    assert_eq!(rule(&known, Change::Begin(vec![each])), BadChange::InTransition(P));
    let over = Override { partition: P, volumes: new.clone().into() };
    assert_eq!(rule(&known, Change::SetOverrides(vec![over])), BadChange::InTransition(P));
    assert!(matches!(rule(&known, advance(Stage::Settled)), BadChange::Stage { is: Stage::Joint, .. }));
    assert!(matches!(rule(&known, Change::Finish(vec![P])), BadChange::Stage { is: Stage::Joint, .. }));
    push(&mut known, advance(Stage::Synced));
    assert_eq!(sets(&known), [new.clone(), old.clone()]);
    assert!(matches!(rule(&known, advance(Stage::Synced)), BadChange::Stage { is: Stage::Synced, .. }));
    assert_eq!(known.map().expect("good").holders(P).len(), 3, "the map alone still says the old ones");
    push(&mut known, advance(Stage::Settled));
    assert_eq!(sets(&known), [new.as_slice()]);
    assert!(matches!(rule(&known, Change::Abort(vec![P])), BadChange::Stage { is: Stage::Settled, .. }));
    push(&mut known, Change::Finish(vec![P]));
    assert_eq!(sets(&known), [new.as_slice()]);
    assert!(known.state().transitions().is_empty());
    let map = known.map().expect("a good map");
    assert_eq!(map.holders(P).iter().map(|holder| holder.volume).collect::<Vec<_>>(), new);
    // Back to where placement puts it: no override is left.
    let back = deadwax_dht::log::Move { partition: P, old: new, new: old.clone() };
    push(&mut known, Change::Begin(vec![back]));
    push(&mut known, advance(Stage::Synced));
    push(&mut known, advance(Stage::Settled));
    push(&mut known, Change::Finish(vec![P]));
    assert_eq!((known.state().spec().overrides.len(), known.state().holders(P).union()), (0, old));
}

#[test]
fn a_move_says_who_holds_the_partition_and_who_may() {
    let known = history(6, 3);
    let good = move_to(&known, P, [1, 2, 3]);
    let begin = |change: &dyn Fn(&mut deadwax_dht::log::Move)| {
        let mut each = good.clone();
        change(&mut each);
        rule(&known, Change::Begin(vec![each]))
    };
    assert_eq!(begin(&|each| each.old.swap(0, 1)), BadChange::OldHolders(P));
    assert_eq!(begin(&|each| each.new = each.old.clone()), BadChange::SameHolders(P));
    let count = BadMap::OverrideCount { partition: P, got: 2, copies: 3 };
    assert_eq!(begin(&|each| each.new.truncate(2)), BadChange::Map(count));
    let same_node = BadMap::OverrideNode { partition: P, node: node_id(1) };
    assert_eq!(begin(&|each| each.new[1] = volume_id(1, 2)), BadChange::Map(same_node));
    assert_eq!(rule(&known, Change::Begin(vec![good.clone(), good])), BadChange::PartitionTwice(P));
}

#[test]
fn a_move_that_is_under_way_holds_its_drives_and_the_number_of_copies() {
    let mut known = history(6, 3);
    let each = move_to(&known, P, [4, 5, 6]);
    push(&mut known, Change::Begin(vec![each.clone()]));
    let needed = |volume| BadChange::NeededVolume { partition: P, volume };
    assert_eq!(rule(&known, Change::RetireVolume(each.new[0])), needed(each.new[0]));
    assert_eq!(rule(&known, Change::RetireVolume(each.old[0])), needed(each.old[0]));
    let four = Policy { copies: 4, ..Policy::default() };
    assert!(matches!(rule(&known, Change::SetPolicy(four)), BadChange::NewHolders { got: 3, copies: 4, .. }));
    // Nodes may come meanwhile; the move stays what it was, and so do the old holders if it is called off.
    (7..=12).for_each(|number| push(&mut known, Change::AddNode(node(number))));
    assert_eq!(known.state().holders(P).sets().next(), Some(&each.old[..]));
    push(&mut known, Change::Abort(vec![P]));
    assert_eq!(known.state().holders(P).union(), each.old);
    let free = each.new.iter().find(|volume| !each.old.contains(volume)).expect("a move moves something");
    push(&mut known, Change::RetireVolume(*free));
}

#[test]
fn while_two_sets_hold_a_partition_a_write_needs_its_quorum_in_both() {
    let mut known = history(8, 3);
    let old = known.state().holders(P).union();
    // New holders that share nothing with the old ones; nodes 1 to 8 have two drives each.
    let other: Vec<u8> = (1..=8).filter(|node| !old.iter().any(|volume| volume.as_bytes()[0] == *node)).collect();
    let each = move_to(&known, P, [other[0], other[1], other[2]]);
    let new = each.new.clone();
    let written =
        |known: &History, some: &[&[VolumeId]]| known.state().is_written(P, &some.concat().into_iter().collect());
    // Two zones: the quorum must lie in both, so all three are always enough, two perhaps.
    assert!(written(&known, &[&old]) && !written(&known, &[&old[..1]]) && !written(&known, &[&new]));
    push(&mut known, Change::Begin(vec![each]));
    for stage in [Stage::Joint, Stage::Synced] {
        assert!(written(&known, &[&old, &new]), "{stage:?}");
        assert!(!written(&known, &[&old]) && !written(&known, &[&new]), "{stage:?}");
        assert!(!written(&known, &[&old, &new[..1]]) && !written(&known, &[&old[..1], &new]), "{stage:?}");
        let next = if stage == Stage::Joint { Stage::Synced } else { Stage::Settled };
        push(&mut known, Change::Advance { partitions: vec![P], to: next });
    }
    assert!(written(&known, &[&new]) && !written(&known, &[&old]));
}

#[test]
fn a_write_quorum_spans_zones_where_the_holders_do() {
    let known = history(6, 3);
    let holders = known.state().holders(P).union();
    let zone = |volume: &VolumeId| volume.as_bytes()[0] % 2;
    let pairs = [[0, 1], [0, 2], [1, 2]].map(|pair| pair.map(|at: usize| holders[at]));
    for pair in pairs {
        let written = known.state().is_written(P, &pair.into_iter().collect());
        assert_eq!(written, zone(&pair[0]) != zone(&pair[1]), "{pair:?}");
    }
}

#[test]
fn of_changes_made_side_by_side_those_that_touch_the_same_are_refused() {
    let known = history(6, 3);
    let weight = |volume, weight| Change::SetWeight { volume, weight };
    let begin = |partition, nodes| Change::Begin(vec![move_to(&known, Partition(partition), nodes)]);
    let zone = |number| Change::SetZone { node: node_id(number), zone: "other".to_owned() };
    let volume =
        |node, id: u8| Change::AddVolume { node: node_id(node), volume: Volume { id: volume_id(9, id), weight: 1 } };
    let policy = Change::SetPolicy(Policy { zones_min: 1, ..Policy::default() });
    let both = [
        (begin(1, [1, 2, 3]), begin(2, [1, 2, 3])),
        (weight(volume_id(1, 1), 5), weight(volume_id(1, 2), 5)),
        (Change::AddNode(node(10)), Change::AddNode(node(11))),
        (volume(5, 1), volume(5, 2)),
        (Change::set_voters(voters(4), |_| 9), weight(volume_id(1, 1), 5)),
        (zone(4), begin(1, [1, 2, 3])),
        (Change::RetireVolume(volume_id(6, 2)), Change::RemoveNode(node_id(6))),
    ];
    for (first, second) in both {
        let mut after = known.clone();
        push(&mut after, first.clone());
        let record = after.decide(&proposal(1, 0, second.clone()));
        assert!(record.is_ok(), "{second:?} after {first:?}: {record:?}");
    }
    let one = [
        (begin(1, [1, 2, 3]), begin(1, [2, 3, 4]), Thing::Partition(Partition(1))),
        (weight(volume_id(1, 1), 5), weight(volume_id(1, 1), 6), Thing::Volume(volume_id(1, 1))),
        (weight(volume_id(4, 2), 5), Change::RemoveNode(node_id(4)), Thing::Volume(volume_id(4, 2))),
        (zone(4), Change::RemoveNode(node_id(4)), Thing::Node(node_id(4))),
        (Change::RemoveNode(node_id(4)), volume(4, 1), Thing::Node(node_id(4))),
        (policy.clone(), begin(1, [1, 2, 3]), Thing::Policy),
        (begin(1, [1, 2, 3]), policy, Thing::Policy),
        (Change::set_voters(voters(4), |_| 9), Change::set_voters(voters(5), |_| 9), Thing::Voters),
        (zone(4), Change::set_voters(voters(4), |_| 9), Thing::Node(node_id(4))),
    ];
    for (first, second, thing) in one {
        let mut after = known.clone();
        push(&mut after, first.clone());
        let refused = after.decide(&proposal(1, 0, second.clone()));
        assert_eq!(refused, Err(Refusal::Clash { epoch: 2, thing }), "{second:?} after {first:?}");
        // Whoever has seen the first is not refused for that.
        let seen = after.decide(&proposal(2, 0, second));
        assert!(!matches!(seen, Err(Refusal::Clash { .. })), "{seen:?}");
    }
    let mut after = known.clone();
    push(&mut after, zone(4));
    assert_eq!(after.decide(&proposal(1, 1, zone(4))), Err(Refusal::Already { epoch: 2 }));
}

#[test]
fn a_proposal_is_of_an_epoch_that_is_kept() {
    let known = long(100);
    let decide = |base| known.decide(&proposal(base, 0, Change::AddNode(node(9))));
    assert!(decide(known.oldest()).is_ok());
    let oldest = known.oldest();
    assert_eq!(decide(oldest - 1), Err(Refusal::Stale { base: oldest - 1, oldest }));
    assert_eq!(decide(102), Err(Refusal::Future { base: 102, newest: 101 }));
}

#[test]
fn rolling_back_is_a_new_epoch_with_an_earlier_map() {
    let mut known = history(6, 3);
    let each = move_to(&known, P, [1, 2, 3]);
    push(&mut known, Change::set_voters(voters(5), |_| 9));
    push(&mut known, Change::AddNode(node(9)));
    push(&mut known, Change::SetWeight { volume: volume_id(1, 1), weight: 9 });
    let back = known.roll_back(2).expect("epoch 2 is kept");
    push(&mut known, back.clone());
    assert_eq!(known.epoch(), 5);
    let expected = MapSpec { epoch: 5, ..spec(6) };
    assert_eq!(known.state().spec(), &expected);
    assert_eq!(known.state().voters().len(), 5, "voters are not the map's");
    // The map must be that of the epoch that is named.
    let other = Change::RollBack { to: 3, spec: Box::new(MapSpec { epoch: 3, ..spec(5) }) };
    assert_eq!(rule(&known, other), BadChange::RollBack { to: 3, epoch: 5 });
    // It touches everything.
    assert!(matches!(
        known.decide(&proposal(4, 0, Change::AddNode(node(11)))),
        Err(Refusal::Clash { epoch: 5, thing: Thing::All })
    ));
    // A node that has forgotten epoch 2 takes it all the same: the record has the map in it.
    let mut later = known.clone();
    (0..62).for_each(|number| push(&mut later, rack(number)));
    assert!(later.oldest() > 2 && later.oldest() < 5);
    let fresh = History::from_batch(&later.since(0)).expect("a good batch");
    assert_eq!(fresh.state(), later.state());
    // Not into a map that lacks what a move needs.
    push(&mut known, Change::AddNode(node(9)));
    let onto = deadwax_dht::log::Move { new: vec![volume_id(1, 1), volume_id(2, 1), volume_id(9, 1)], ..each };
    push(&mut known, Change::Begin(vec![onto]));
    let back = known.roll_back(2).expect("epoch 2 is kept");
    assert_eq!(rule(&known, back), BadChange::NeededVolume { partition: P, volume: volume_id(9, 1) });
}

#[test]
fn whatever_is_decided_can_be_taken_and_keeps_the_rules() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let (mut known, mut follower, mut fresh) = (history(6, 3), history(6, 3), 100);
        let mut records = 0;
        for number in 0..60 {
            let change = any_change(&mut random, &known, &mut fresh);
            let base = known.epoch() - random.below(3).min(known.epoch() - known.oldest());
            if let Ok(record) = known.decide(&proposal(base, number, change)) {
                follower.append(&record).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                known.append(&record).expect("the same");
                records += 1;
            }
            assert!(known.map().is_ok(), "seed {seed}: every epoch has a good map");
            let decoded = State::decode(&known.state().encode());
            assert_eq!(decoded.as_ref(), Ok(&**known.state()), "seed {seed}");
        }
        assert!(records > 10, "seed {seed}: {records} records");
    }
}

#[test]
fn a_reshape_is_of_the_newest_epoch_and_keeps_what_moves_and_the_number_of_copies() {
    let mut known = history(6, 3);
    push(&mut known, Change::SetLeaving { volumes: vec![volume_id(6, 1), volume_id(6, 2)], leaving: true });
    let reshape = |spec: MapSpec| Change::Reshape { spec: Box::new(spec) };
    assert_eq!(rule(&known, reshape(spec(6))), BadChange::Reshape { got: 1, epoch: 2 });
    let mut next = MapSpec { epoch: 2, ..spec(5) };
    let copies = MapSpec { policy: Policy { copies: 2, ..Policy::default() }, ..next.clone() };
    assert_eq!(rule(&known, reshape(copies)), BadChange::Copies { got: 2, copies: 3 });
    let mut after = known.clone();
    push(&mut after, reshape(next.clone()));
    assert!(after.state().leaving().is_empty(), "who is gone leaves no more");
    // It touches all.
    let late = after.decide(&proposal(2, 0, Change::AddNode(node(9))));
    assert!(matches!(late, Err(Refusal::Clash { epoch: 3, thing: Thing::All })), "{late:?}");
    let each = move_to(&known, P, [4, 5, 6]);
    push(&mut known, Change::Begin(vec![each.clone()]));
    next.epoch = 3;
    let needed = BadChange::NeededVolume { partition: P, volume: volume_id(6, 1) };
    assert_eq!(rule(&known, reshape(next)), needed);
    let leave = |volumes, leaving| Change::SetLeaving { volumes, leaving };
    assert_eq!(rule(&known, leave(vec![], true)), BadChange::Volumes(0));
    assert_eq!(rule(&known, leave(vec![volume_id(6, 1)], true)), BadChange::Nothing);
    assert_eq!(rule(&known, leave(vec![volume_id(1, 1); 2], true)), BadChange::VolumeTwice(volume_id(1, 1)));
    assert_eq!(rule(&known, leave(vec![volume_id(9, 1)], true)), BadChange::LeavingNotInMap(volume_id(9, 1)));
    assert_eq!(rule(&known, leave(vec![volume_id(9, 1)], false)), BadChange::NoVolume(volume_id(9, 1)));
}

#[test]
fn a_token_is_used_up_by_the_record_that_brings_its_bearer() {
    let mut known = history(5, 3);
    let token = |number: u8| Token { name: TokenName::from_bytes([number; 32]), until_ms: 7 };
    let set = |numbers: &[u8]| Change::SetTokens(numbers.iter().map(|number| token(*number)).collect());
    assert_eq!(rule(&known, set(&[1])), BadChange::NotFinalised { since: 4, is: 3 });
    push(&mut known, Change::Finalise { protocol: 4 });
    push(&mut known, set(&[2, 1]));
    assert_eq!(rule(&known, set(&[1, 2])), BadChange::Nothing);
    assert_eq!(rule(&known, set(&[1, 1])), BadChange::TokenTwice(token(1).name));
    assert_eq!(rule(&known, Change::SetTokens(vec![token(1); TOKENS_MAX + 1])), BadChange::Tokens(TOKENS_MAX + 1));
    let admit_of = |nodes, epoch, number: u8| {
        let spec = Box::new(MapSpec { epoch, ..spec(nodes) });
        Change::Admit { token: token(number).name, spec }
    };
    let admit = |epoch, number| admit_of(6, epoch, number);
    assert_eq!(rule(&known, admit(3, 3)), BadChange::NoToken(token(3).name));
    assert_eq!(rule(&known, admit(1, 1)), BadChange::Reshape { got: 1, epoch: 3 });
    let mut after = known.clone();
    push(&mut after, admit(3, 1));
    assert!(after.state().tokens().keys().eq([&token(2).name]) && after.state().spec().nodes.len() == 6);
    // A second proposal of it, made beside the first, and one made later.
    let late = after.decide(&proposal(3, 7, admit_of(7, 3, 1)));
    assert!(matches!(late, Err(Refusal::Clash { epoch: 4, .. })), "{late:?}");
    assert_eq!(rule(&after, admit(4, 1)), BadChange::NoToken(token(1).name));
    // An earlier map does not bring it back.
    let back = after.roll_back(3).expect("epoch 3 is kept");
    push(&mut after, back);
    assert_eq!((after.state().tokens().len(), after.state().spec().nodes.len()), (1, 5));
}
