//! Two nodes that have different logs of the map: takedowns pass, and nothing counts.

use deadwax_dht::NodeId;
use deadwax_dht::takedown::{Answer, Ask, Follow, FollowEffect, LeaseRules, Standing, Takedown};

use super::seeded::{key, log, track};

/// A node that has taken a track down, and its only witness; and a node that asks it.
struct Pair {
    witness: (NodeId, Follow, Takedown),
    asker: (NodeId, Follow),
    now: u64,
}

impl Pair {
    fn new() -> Self {
        let follow = |number: u8| {
            let id = key(number).node_id();
            (id, Follow::new(id, LeaseRules::default(), log(1), Standing::WHOLE, 1, 0).expect("good rules"))
        };
        let ((id, mut witness), (asker_id, mut asker)) = (follow(1), follow(2));
        witness.set_witnesses(0, &id, &[id], 1);
        asker.set_witnesses(0, &asker_id, &[id], 1);
        let record = witness.issue(0, &key(1), track(1), 0, "a court's order").expect("it is the issuer");
        flush(&mut witness, 0);
        Self { witness: (id, witness, record), asker: (asker_id, asker), now: 0 }
    }

    /// The question that the one who asks sends next.
    fn question(&mut self) -> (u64, Ask) {
        self.now = self.asker.1.next_deadline().expect("it has a witness").max(self.now);
        let effects = self.asker.1.poll(self.now);
        let ask = effects.into_iter().find_map(|effect| match effect {
            FollowEffect::Ask { number, ask, .. } => Some((number, ask)),
            _ => None,
        });
        ask.expect("its time has come")
    }

    /// What the witness answers to what it was just asked.
    fn answer(&mut self) -> (u64, Answer) {
        let (_, witness, record) = &mut self.witness;
        let mut effects = witness.poll(self.now);
        for effect in &effects {
            if let FollowEffect::Read { read, .. } = effect {
                witness.handle_read(self.now, *read, Some(vec![record.clone()]));
            }
        }
        effects.extend(witness.poll(self.now));
        let answer = effects.into_iter().find_map(|effect| match effect {
            FollowEffect::Answer { number, answer, .. } => Some((number, answer)),
            _ => None,
        });
        answer.expect("it answers")
    }

    fn knows(&self) -> bool {
        self.asker.1.log().number_of(&track(1)).is_some()
    }

    fn serves(&self) -> bool {
        self.asker.1.lease().may_serve(self.now).is_ok()
    }
}

/// What it has to write is written.
fn flush(follow: &mut Follow, now: u64) {
    for effect in follow.poll(now) {
        if let FollowEffect::Append { append, .. } = effect {
            follow.handle_appended(now, append);
        }
    }
}

#[test]
fn who_does_not_know_that_the_other_has_another_log_counts_no_answer_of_it() {
    let mut pair = Pair::new();
    let (_, ask) = pair.question();
    pair.witness.1.handle_parted_ask(pair.now, pair.asker.0, &ask);
    let (number, answer) = pair.answer();
    pair.asker.1.handle_answer(pair.now, pair.witness.0, number, &answer);
    flush(&mut pair.asker.1, pair.now);
    assert!(!pair.serves() && !pair.knows());
}

#[test]
fn who_knows_it_takes_what_was_taken_down_and_counts_no_more_than_that() {
    let mut pair = Pair::new();
    let (_, ask) = pair.question();
    pair.witness.1.handle_parted_ask(pair.now, pair.asker.0, &ask);
    let (_, answer) = pair.answer();
    let stranger = key(3).node_id();
    pair.asker.1.handle_parted_answer(pair.now, stranger, &answer);
    assert!(!pair.knows(), "nobody asked that one");
    pair.asker.1.handle_parted_answer(pair.now, pair.witness.0, &answer);
    flush(&mut pair.asker.1, pair.now);
    assert!(pair.knows() && !pair.serves());
    // One of the same log counts.
    let (number, ask) = pair.question();
    pair.witness.1.handle_ask(pair.now, pair.asker.0, number, &ask);
    let (number, answer) = pair.answer();
    pair.asker.1.handle_answer(pair.now, pair.witness.0, number, &answer);
    flush(&mut pair.asker.1, pair.now);
    assert!(pair.serves());
}
