//! A log that begins anew: what its record does, and that it is another log than the one that was.

use deadwax_dht::log::{
    BadChange, BadHistory, Change, Consensus, ConsensusConfig, Durable, Effect, Entry, Grant, History, RECORDS_MAX,
    REFOUNDINGS_MAX, Refounding, Refusal, State, Voter,
};

use crate::map_log::cluster::{history, node_id, proposal, push, rack};

/// Of five nodes, and three that vote, two are lost.
fn refounded(before: &History, voter: u8) -> History {
    let lost = (1..=3).filter(|node| *node != voter).map(node_id).collect();
    before.refound(None, node_id(voter), lost).expect("it can be")
}

#[test]
fn whoever_begins_it_anew_votes_alone_and_the_lost_are_dead() {
    let mut before = history(5, 3);
    push(&mut before, Change::SetDead { node: node_id(3), dead: true });
    push(&mut before, Change::SetVoters([1, 2, 4].map(|node| Grant { node: node_id(node), life: 7 }).to_vec()));
    let after = refounded(&before, 3);
    let state = after.state();
    assert_eq!(state.voters(), [Voter { seat: 5, node: node_id(3), life: 0 }], "a seat that nobody had");
    assert!(state.outgoing().is_empty());
    assert_eq!(state.dead().iter().copied().collect::<Vec<_>>(), [node_id(1), node_id(2)], "and no more");
    assert_eq!(state.refounded(), [Refounding { epoch: 4, node: node_id(3) }]);
    assert_eq!(State::decode(&state.encode()).as_ref(), Ok(&**state));
    let mut other = before.clone();
    assert_eq!(other.catch_up(&after.since(3)), Ok(1), "others learn of it as of any record");
    assert_eq!(other, after);
}

#[test]
fn it_is_no_decision_and_its_voter_is_in_the_map_and_not_lost() {
    let before = history(5, 3);
    let change = Change::Refound { voter: node_id(1), lost: vec![node_id(2), node_id(3)] };
    assert_eq!(before.decide(&proposal(1, 0, change)), Err(Refusal::Rule(BadChange::Refound)));
    let refused = |voter: u8, lost: &[u8]| {
        let lost = lost.iter().copied().map(node_id).collect();
        before.refound(None, node_id(voter), lost).expect_err("it cannot be")
    };
    assert_eq!(refused(9, &[1]), Refusal::Rule(BadChange::NoNode(node_id(9))));
    assert_eq!(refused(1, &[1]), Refusal::Rule(BadChange::LostVoter(node_id(1))));
    assert_eq!(refused(1, &[9]), Refusal::Rule(BadChange::DeadNotInMap(node_id(9))));
    let mut often = before;
    for _ in 0..REFOUNDINGS_MAX {
        often = refounded(&often, 1);
    }
    let once_more = often.refound(None, node_id(1), Vec::new());
    assert_eq!(once_more, Err(Refusal::Rule(BadChange::Refoundings(REFOUNDINGS_MAX + 1))));
}

#[test]
fn what_the_voter_knew_to_be_decided_comes_first() {
    let before = history(5, 3);
    let mut seat = Durable::founding(1, &before);
    let entry = |index, number| Entry {
        index,
        term: 1,
        voters: false,
        data: proposal(1, number, rack(number)).encode(),
        context: Vec::new(),
    };
    seat.entries = vec![entry(2, 7), entry(3, 8)];
    seat.vote.commit = 2;
    let lost = vec![node_id(2), node_id(3)];
    let after = before.refound(Some(seat), node_id(1), lost).expect("it can be");
    assert_eq!(after.epoch(), 3);
    assert_eq!(after.record(2).map(|record| &record.change), Some(&rack(7)));
}

#[test]
fn its_only_voter_leads_decides_and_gives_others_seats() {
    let after = refounded(&history(5, 3), 2);
    let founding = Durable::founding(4, &after);
    let mut voter = Consensus::start(&ConsensusConfig::new(1), 0, founding, &after).expect("it starts");
    let run = |voter: &mut Consensus, until: u64| {
        for now in (0..until).step_by(100) {
            voter.tick(now);
            while let Some(effect) = voter.poll() {
                if let Effect::Persist(step) = effect {
                    voter.acknowledge(step.number);
                }
            }
        }
    };
    run(&mut voter, 10_000);
    assert!(voter.leads());
    voter.propose(&proposal(2, 1, rack(1))).expect("it leads");
    run(&mut voter, 20_000);
    assert_eq!(voter.history().epoch(), 3);
    let more = Change::set_voters([2, 4, 5].map(node_id), |_| 9);
    voter.propose(&proposal(3, 2, more)).expect("it leads");
    run(&mut voter, 30_000);
    let seats = voter.history().state().voters().iter().map(|voter| voter.seat).collect::<Vec<_>>();
    assert_eq!((seats, voter.is_joint()), (vec![4, 5, 6], true), "it waits for one of the two");
}

#[test]
fn what_was_decided_elsewhere_is_of_another_log_however_far_it_is() {
    let before = history(5, 3);
    for (decided, since) in [(1, 1), (1, 5), (5, 1), (1, 3 * RECORDS_MAX as u64), (3 * RECORDS_MAX as u64, 1)] {
        let (mut old, mut new) = (before.clone(), refounded(&before, 3));
        (0..decided).for_each(|number| push(&mut old, rack(number)));
        (0..since).for_each(|number| push(&mut new, rack(number)));
        for (one, other) in [(&old, &new), (&new, &old)] {
            for known in [0, one.epoch().min(other.epoch() - 1)] {
                let batch = other.since(known);
                // Of records that all are behind nothing is looked at, nor taken.
                let parts = one.parts_from(&batch) || other.epoch() <= one.epoch();
                assert!(parts, "{decided} and {since}, from {known} on");
            }
            let mut taken = one.clone();
            let took = taken.catch_up(&other.since(one.epoch()));
            assert!(other.epoch() <= one.epoch() || took.is_err(), "{decided} and {since}: {took:?}");
            assert_eq!(taken, *one, "nothing is taken");
        }
        let epoch = old.epoch().max(new.epoch());
        assert_ne!(old.state().line_at(epoch), new.state().line_at(epoch));
    }
}

#[test]
fn two_that_begin_it_anew_have_two_logs_and_whoever_was_behind_takes_the_one() {
    let before = history(5, 3);
    let (mut one, two) = (refounded(&before, 1), refounded(&before, 2));
    let lines = [before.state(), one.state(), two.state()].map(|state| state.line_at(9));
    assert!(lines[0] == 0 && lines[1] != 0 && lines[2] != 0 && lines[1] != lines[2], "{lines:?}");
    assert_eq!(one.state().line_at(1), 0, "as it was before");
    assert_eq!(one.catch_up(&two.since(0)), Err(BadHistory::Fork { epoch: 2 }));
    (0..=RECORDS_MAX as u64).for_each(|number| push(&mut one, rack(number)));
    let mut behind = before;
    assert!(!behind.parts_from(&one.since(behind.epoch())));
    behind.catch_up(&one.since(behind.epoch())).expect("it leads on, by a checkpoint");
    assert_eq!(behind, one);
}
