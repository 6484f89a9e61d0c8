//! What peers say too often, wrongly, or rightly once they can be heard again.

use deadwax_dht::core::{EPOCHS_MAX, Effect, Envelope, Input, Message};
use deadwax_dht::log::{Change, Proposal, RECORDS_MAX, Ticket};

use deadwax_dht::wire::PROTOCOL_VERSION;

use super::village::{BEGIN, MINUTE, SECOND, Village};

/// House `from` says something to house `at`: what comes of it is given, and not done.
fn say(village: &mut Village, from: usize, at: usize, message: Message) -> Vec<Effect> {
    let (id, address) = (village.houses[from].node.id, village.houses[from].node.address.as_str().into());
    let envelope = Box::new(Envelope {
        protocol: PROTOCOL_VERSION,
        epoch: village.houses[from].core.epoch(),
        line: 0,
        life: BEGIN,
        message,
    });
    village.houses[at].core.step(village.now, Input::Message { from: id, address, envelope })
}

fn answers(effects: &[Effect]) -> usize {
    let is_batch = |effect: &&Effect| matches!(effect, Effect::Send { envelope, .. } if matches!(envelope.message, Message::Epochs(_)));
    effects.iter().filter(is_batch).count()
}

#[test]
fn a_node_that_asks_for_epochs_all_the_time_is_answered_a_few_times_a_second() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    let mut ask = |from: usize, times: usize| {
        let each = |_| answers(&say(&mut village, from, 0, Message::Behind(0)));
        let answered: usize = (0..times).map(each).sum();
        village.now += SECOND;
        answered
    };
    assert_eq!(ask(3, 10_000), 4);
    assert_eq!((ask(3, 10_000), ask(4, 1)), (4, 1), "the next second is another, and so is the next node");
    assert_eq!((0..10).map(|_| ask(4, 1)).sum::<usize>(), 10, "once a second is always answered");
}

#[test]
fn records_are_taken_some_a_step_and_a_checkpoint_at_once() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    let (node, mut ahead) = (village.houses[4].node.id, village.houses[4].core.history().expect("it has one").clone());
    let go_on = |village: &mut Village, ahead: &mut deadwax_dht::log::History, records: u64| {
        let from = ahead.epoch();
        for number in 0..records {
            let change = Change::SetRack { node, rack: Some(format!("rack {}", from + number)) };
            let proposal = Proposal { ticket: Ticket { node, number }, base: ahead.epoch(), change };
            let record = ahead.decide(&proposal).expect("a good change");
            ahead.append(&record).expect("what was decided can be taken");
        }
        let core = &mut village.houses[4].core;
        let mut input = Input::Batch(ahead.since(from));
        let mut steps = Vec::new();
        while core.epoch() < ahead.epoch() {
            let before = core.epoch();
            let effects = core.step(village.now, std::mem::replace(&mut input, Input::Tick));
            let saved = effects.iter().filter(|effect| matches!(effect, Effect::Save(_))).count();
            assert_eq!(saved, 1);
            assert!(core.epoch() == ahead.epoch() || core.next_deadline() == village.now + 1);
            steps.push(core.epoch() - before);
            village.now += 1;
        }
        assert_eq!(core.history(), Some(&*ahead));
        steps
    };
    let most = EPOCHS_MAX as u64;
    assert_eq!(go_on(&mut village, &mut ahead, most), [most]);
    assert_eq!(go_on(&mut village, &mut ahead, 2 * most + 1), [most, most, 1]);
    let many = RECORDS_MAX as u64 + 10;
    assert_eq!(go_on(&mut village, &mut ahead, many), [many]);
}

#[test]
fn requests_that_fail_count_only_in_a_row() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    let node = village.houses[3].node.id;
    let fail = |village: &mut Village| _ = village.step(0, Input::Unreachable(node));
    let answer = |village: &mut Village| _ = say(village, 3, 0, Message::Receipts(Vec::new()));
    let is_up = |village: &Village| village.houses[0].core.liveness().is_up(&node);
    (0..2).for_each(|_| fail(&mut village));
    answer(&mut village);
    (0..2).for_each(|_| fail(&mut village));
    assert!(is_up(&village));
    fail(&mut village);
    assert!(!is_up(&village), "three in a row");
    answer(&mut village);
    assert!(is_up(&village));
    // That it can be heard does not show that it can be reached.
    (0..3).for_each(|_| fail(&mut village));
    let _ = say(&mut village, 3, 0, Message::Knows);
    assert!(!is_up(&village));
}

#[test]
fn nobody_is_ended_by_a_start_that_cannot_have_been() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    let day = 24 * 60 * MINUTE;
    for life in [u64::MAX, village.now + day + 1, BEGIN, 0] {
        assert_eq!(say(&mut village, 3, 0, Message::Superseded(life)), [], "{life}");
        assert!(village.houses[0].core.next_deadline() < u64::MAX, "{life}");
    }
    let life = village.now + day;
    assert_eq!(say(&mut village, 3, 0, Message::Superseded(life)), [Effect::Halt { life }]);
}

/// A node said once, its clock far ahead, that it started in years: its next start is heard all the same.
#[test]
fn a_start_that_cannot_have_been_is_no_newer_than_the_next() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    let from = village.houses[3].node.id;
    let mut say = |life| {
        let envelope =
            Box::new(Envelope { protocol: PROTOCOL_VERSION, epoch: 1, line: 0, life, message: Message::Knows });
        let address = village.houses[3].node.address.as_str().into();
        village.houses[0].core.step(village.now, Input::Message { from, address, envelope })
    };
    assert_eq!(say(u64::MAX), []);
    assert_eq!(say(BEGIN + MINUTE), []);
    assert!(!say(BEGIN).is_empty(), "the one before it is told so");
}
