//! One voter by itself: what it holds back, what it refuses, and that no bytes make it panic.

use std::collections::VecDeque;

use deadwax_dht::log::{
    BadMessage, BadStart, Change, Consensus, ConsensusConfig, Durable, Effect, Entry, History, Message, Outcome,
    Proposal, ProposeError, Refusal,
};

use crate::map_log::cluster::{Random, history, node_id, proposal, rack, voters};

/// Three voters on a wire without faults.
struct Trio {
    voters: Vec<Consensus>,
    disks: Vec<Durable>,
    sent: VecDeque<(usize, usize, Message)>,
    outcomes: Vec<(u64, Outcome)>,
    /// Every message so far, from whom and to whom.
    all: Vec<(usize, usize, Vec<u8>)>,
    /// Hears and says nothing.
    gone: Option<usize>,
    /// A voter of an earlier version, and a proposal that it cannot read.
    older: Option<(usize, Vec<u8>)>,
    /// Voters that said that they cannot read what was decided.
    unreadable: Vec<usize>,
    now: u64,
}

/// The same bytes, but that a proposal in them has a version that nobody knows; and back.
fn of_version(bytes: &[u8], proposal: &[u8], from: u8, to: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let is_here = |window: &[u8]| window[0] == from && window[1..] == proposal[1..];
    let places: Vec<usize> = (0..=bytes.len().saturating_sub(proposal.len()))
        .filter(|at| bytes.get(*at..at + proposal.len()).is_some_and(is_here))
        .collect();
    places.into_iter().for_each(|at| bytes[at] = to);
    bytes
}

impl Trio {
    fn new() -> Self {
        let genesis = history(6, 3);
        let disks: Vec<Durable> = (1..=3).map(|seat| Durable::founding(seat, &genesis)).collect();
        let start = |disk: &Durable| {
            Consensus::start(&ConsensusConfig::new(disk.seat), 0, disk.clone(), &genesis).expect("a founder starts")
        };
        let voters = disks.iter().map(start).collect();
        Self {
            voters,
            disks,
            sent: VecDeque::new(),
            outcomes: Vec::new(),
            all: Vec::new(),
            gone: None,
            older: None,
            unreadable: Vec::new(),
            now: 0,
        }
    }

    /// A trio with a leader that has decided its first entry.
    fn led() -> (Self, usize) {
        let mut trio = Self::new();
        for _ in 0..100 {
            trio.tick(0..3);
            if let Some(leader) = trio.voters.iter().position(Consensus::leads) {
                return (trio, leader);
            }
        }
        panic!("nobody leads after 10 s");
    }

    fn tick(&mut self, who: impl IntoIterator<Item = usize>) {
        self.now += 100;
        for at in who {
            self.voters[at].tick(self.now);
        }
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            (0..self.voters.len()).for_each(|at| self.effects(at));
            let Some((from, to, message)) = self.sent.pop_front() else { break };
            if [from, to].map(Some).contains(&self.gone) {
                continue;
            }
            let message = match &self.older {
                Some((older, proposal)) if *older == to => {
                    Message::decode(&of_version(&message.encode(), proposal, 2, 99)).expect("a message all the same")
                }
                _ => message,
            };
            let heard = self.voters[to].handle_message(node(from), message);
            let has_stopped = self.older.as_ref().is_some_and(|(older, _)| *older == to);
            assert!(heard.is_ok() || (has_stopped && heard == Err(BadMessage::Busy)), "{heard:?}");
        }
    }

    fn effects(&mut self, at: usize) {
        while let Some(effect) = self.voters[at].poll() {
            match effect {
                Effect::Persist(step) => {
                    self.disks[at].apply(&step);
                    self.voters[at].acknowledge(step.number);
                }
                Effect::Send { to, message } => {
                    let to = (0..3).find(|other| node(*other) == to).expect("one of three");
                    self.all.push((at, to, message.encode()));
                    self.sent.push_back((at, to, message));
                }
                Effect::Decided { ticket, outcome } => self.outcomes.push((ticket.number, outcome)),
                Effect::Unreadable => self.unreadable.push(at),
                Effect::Committed(_) | Effect::Retired => {}
            }
        }
    }

    fn propose(&mut self, at: usize, number: u64, change: Change) -> Result<(), ProposeError> {
        let base = self.voters[at].history().epoch();
        self.voters[at].propose(&proposal(base, number, change))
    }
}

fn node(at: usize) -> deadwax_dht::NodeId {
    node_id(u8::try_from(at).expect("small") + 1)
}

#[test]
fn nothing_that_depends_on_the_drive_is_said_before_the_drive_has_it() {
    let (mut trio, leader) = Trio::led();
    let follower = (leader + 1) % 3;
    trio.propose(leader, 1, rack(1)).expect("it leads");
    let mut to_follower = Vec::new();
    while let Some(effect) = trio.voters[leader].poll() {
        match effect {
            Effect::Persist(step) => trio.voters[leader].acknowledge(step.number),
            Effect::Send { to, message } if to == node(follower) => to_follower.push(message),
            _ => {}
        }
    }
    for message in to_follower {
        trio.voters[follower].handle_message(node(leader), message).expect("a good message");
    }
    let mut steps = Vec::new();
    while let Some(effect) = trio.voters[follower].poll() {
        match effect {
            Effect::Persist(step) => steps.push(step.number),
            other => panic!("before the drive has it: {other:?}"),
        }
    }
    assert!(!steps.is_empty(), "the entry goes to the drive");
    trio.voters[follower].acknowledge(*steps.last().expect("one"));
    let said = std::iter::from_fn(|| trio.voters[follower].poll()).collect::<Vec<_>>();
    assert!(said.iter().any(|effect| matches!(effect, Effect::Send { .. })), "{said:?}");
}

#[test]
fn a_leader_knows_who_follows_it_now() {
    let (mut trio, leader) = Trio::led();
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    assert!(!trio.voters[leader].knows_followers(), "it has just begun to lead");
    (0..21).for_each(|_| trio.tick(0..3));
    assert!(trio.voters[leader].knows_followers());
    let follow = |trio: &Trio| [leader, one, other].map(|at| trio.voters[leader].is_followed_by(trio.disks[at].seat));
    assert_eq!(follow(&trio), [true; 3]);
    trio.gone = Some(one);
    (0..10).for_each(|_| trio.tick([leader, other]));
    assert_eq!(follow(&trio), [true; 3], "some messages may be lost");
    (0..15).for_each(|_| trio.tick([leader, other]));
    assert_eq!(follow(&trio), [true, false, true]);
    trio.gone = None;
    (0..3).for_each(|_| trio.tick([leader, other]));
    assert_eq!(follow(&trio), [true; 3]);
    assert!(!trio.voters[one].is_followed_by(trio.disks[leader].seat), "it does not lead");
}

#[test]
fn a_voter_refuses_what_it_cannot_propose() {
    let (mut trio, leader) = Trio::led();
    let follower = (leader + 1) % 3;
    let not_leader = ProposeError::NotLeader { leader: Some(node(leader)) };
    assert_eq!(trio.propose(follower, 1, rack(1)), Err(not_leader));
    let bad = trio.propose(leader, 1, Change::RemoveNode(node_id(99)));
    assert!(matches!(bad, Err(ProposeError::Refused(Refusal::Rule(_)))), "{bad:?}");
    assert_eq!(trio.propose(leader, 1, rack(1)), Ok(()));
    assert_eq!(trio.propose(leader, 1, rack(2)), Err(ProposeError::Twice));
    assert_eq!(trio.propose(leader, 2, Change::set_voters(voters(4), |_| 9)), Ok(()));
    assert_eq!(trio.propose(leader, 3, Change::set_voters(voters(5), |_| 9)), Err(ProposeError::VotersChange));
    let mut taken = 2;
    let refused = loop {
        match trio.propose(leader, 10 + taken, rack(taken)) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        // The drive keeps up; the other voters do not.
        trio.effects(leader);
        trio.sent.clear();
    };
    assert_eq!((refused, taken), (ProposeError::Busy, 256), "proposals that wait are bounded");
}

#[test]
fn a_leader_that_is_cut_off_says_that_it_does_not_know() {
    let (mut trio, leader) = Trio::led();
    trio.propose(leader, 1, rack(1)).expect("it leads");
    // Only its own clock goes on.
    for _ in 0..30 {
        trio.now += 100;
        let now = trio.now;
        trio.voters[leader].tick(now);
        trio.effects(leader);
        trio.sent.clear();
    }
    assert!(!trio.voters[leader].leads());
    assert_eq!(trio.outcomes, [(1, Outcome::Unknown)]);
    assert_eq!(trio.voters[leader].history().epoch(), 1);
}

#[test]
fn a_voter_goes_on_from_what_its_drive_has() {
    let (mut trio, leader) = Trio::led();
    for number in 0..200 {
        trio.propose(leader, number, rack(number)).expect("it leads");
        trio.tick(0..3);
    }
    let (head, term) = (trio.voters[leader].history().head(), trio.voters[leader].term());
    for disk in &trio.disks {
        assert!(disk.entries.len() < 200, "the log is cut");
        let disk = Durable::decode(&disk.encode()).expect("what was encoded");
        let again = Consensus::start(&ConsensusConfig::new(9), 0, disk, &history(6, 3)).expect("a good state");
        assert_eq!((again.history().head(), again.term(), again.leads()), (head, term, false));
    }
}

#[test]
fn a_voter_that_cannot_read_what_was_decided_stops_until_it_runs_a_version_that_can() {
    let (mut trio, leader) = Trio::led();
    let older = (leader + 1) % 3;
    trio.propose(leader, 1, rack(1)).expect("it leads");
    trio.tick(0..3);
    let later = proposal(2, 2, rack(2));
    trio.older = Some((older, later.encode()));
    trio.voters[leader].propose(&later).expect("it leads");
    trio.settle();
    for number in 3..6 {
        trio.propose(leader, number, rack(number)).expect("it leads");
        trio.tick(0..3);
    }
    let epochs = |trio: &Trio| trio.voters.iter().map(|voter| voter.history().epoch()).collect::<Vec<_>>();
    let mut expected = vec![6; 3];
    expected[older] = 2;
    assert_eq!(epochs(&trio), expected, "the others go on, and it passes over nothing");
    // Nor does it vote, or ask for votes.
    let said = trio.all.len();
    (0..100).for_each(|_| trio.tick([older]));
    assert!(trio.all[said..].iter().all(|(from, ..)| *from != older));
    assert_eq!(trio.unreadable, [older]);
    let disk = of_version(&trio.disks[older].encode(), &later.encode(), 99, 2);
    let disk = Durable::decode(&disk).expect("what was encoded");
    trio.older = None;
    let again = Consensus::start(&ConsensusConfig::new(9), trio.now, disk.clone(), &history(6, 3));
    (trio.voters[older], trio.disks[older]) = (again.expect("a good state"), disk);
    (0..40).for_each(|_| trio.tick(0..3));
    assert_eq!(epochs(&trio), [6; 3]);
}

#[test]
fn a_broken_state_is_refused() {
    let genesis = history(6, 3);
    let good = Durable::founding(1, &genesis);
    let start = |durable| Consensus::start(&ConsensusConfig::new(1), 0, durable, &genesis).map(|_| ());
    assert_eq!(start(good.clone()), Ok(()));
    let entry = |index, term| Entry { index, term, voters: false, data: Vec::new(), context: Vec::new() };
    let with = |change: &dyn Fn(&mut Durable)| {
        let mut bad = good.clone();
        change(&mut bad);
        assert!(start(bad.clone()).is_err(), "{bad:?}");
    };
    with(&|bad| bad.seat = 0);
    with(&|bad| bad.entries.push(entry(3, 1)));
    with(&|bad| bad.entries.push(entry(2, 9)));
    with(&|bad| bad.vote.commit = 2);
    with(&|bad| bad.vote.commit = 0);
    with(&|bad| {
        let mut bytes = bad.snapshot.history.to_vec();
        bytes[50] ^= 1;
        bad.snapshot.history = bytes.into();
    });
    with(&|bad| bad.snapshot.voters[0] = 9);
    let config = ConsensusConfig { election_ticks: 1, ..ConsensusConfig::new(1) };
    let bad = Consensus::start(&config, 0, good, &genesis).map(|_| ());
    assert!(matches!(bad, Err(BadStart::Config(_))), "{bad:?}");
}

#[test]
fn a_message_says_who_sent_it_and_for_whom() {
    let (trio, leader) = Trio::led();
    let (from, to, bytes) = trio.all.last().expect("they spoke").clone();
    let message = || Message::decode(&bytes).expect("what was encoded");
    let mut trio = trio;
    let wrong = trio.voters[to].handle_message(node_id(50), message());
    assert!(matches!(wrong, Err(BadMessage::Sender { .. })), "{wrong:?}");
    let other = (0..3).find(|at| *at != from && *at != to).expect("three");
    let wrong = trio.voters[other].handle_message(node(from), message());
    assert!(matches!(wrong, Err(BadMessage::Seat { .. })), "{wrong:?}");
    assert!(trio.voters[leader].leads());
}

#[test]
fn no_message_makes_a_voter_panic() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let (mut trio, leader) = Trio::led();
        for number in 0..10 {
            let change = if number == 5 { Change::set_voters(voters(4), |_| 9) } else { rack(number) };
            let _ = trio.propose(leader, number, change);
            trio.tick_trio_only();
        }
        let victim = random.index(3);
        let seen = trio.all.clone();
        for _ in 0..60 {
            let (from, _, bytes) = &seen[random.index(seen.len())];
            if *from == victim {
                continue;
            }
            forge(&mut random, &mut trio, victim, *from, bytes);
        }
    }
}

impl Trio {
    /// As [`tick`](Self::tick), where some messages are for a fourth voter that is not there.
    fn tick_trio_only(&mut self) {
        self.now += 100;
        let now = self.now;
        self.voters.iter_mut().for_each(|voter| voter.tick(now));
        loop {
            for at in 0..3 {
                while let Some(effect) = self.voters[at].poll() {
                    match effect {
                        Effect::Persist(step) => self.voters[at].acknowledge(step.number),
                        Effect::Send { to, message } => {
                            if let Some(to) = (0..3).find(|other| node(*other) == to) {
                                self.all.push((at, to, message.encode()));
                                self.sent.push_back((at, to, message));
                            }
                        }
                        _ => {}
                    }
                }
            }
            let Some((from, to, message)) = self.sent.pop_front() else { break };
            let _ = self.voters[to].handle_message(node(from), message);
        }
    }
}

/// Sends the victim a message of `from`'s with some numbers changed, and lets it go on for a while.
fn forge(random: &mut Random, trio: &mut Trio, victim: usize, from: usize, bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    // The receiver's seat is the third byte's u64: it should not be dropped for that alone.
    bytes[2..10].copy_from_slice(&(victim as u64 + 1).to_le_bytes());
    for _ in 0..random.below(4) {
        // The numbers after the two seats lie every eight bytes.
        let field = 18 + 8 * random.index(6);
        let old = u64::from_le_bytes(bytes[field..field + 8].try_into().expect("eight bytes"));
        let new = match random.below(4) {
            0 => old.wrapping_add(random.below(3)),
            1 => old.wrapping_sub(random.below(3)),
            2 => random.below(40),
            _ => random.next(),
        };
        bytes[field..field + 8].copy_from_slice(&new.to_le_bytes());
    }
    if random.percent(20) {
        let at = random.index(bytes.len());
        bytes[at] ^= 1 << random.below(8);
    }
    if let Ok(message) = Message::decode(&bytes) {
        let _ = trio.voters[victim].handle_message(node(from), message);
    }
    if random.percent(30) {
        trio.now += 100;
        let now = trio.now;
        trio.voters[victim].tick(now);
    }
    while let Some(effect) = trio.voters[victim].poll() {
        if let Effect::Persist(step) = effect {
            trio.voters[victim].acknowledge(step.number);
        }
    }
}

#[test]
fn a_proposal_that_was_asked_twice_comes_to_be_once() {
    let (mut trio, leader) = Trio::led();
    let wanted = |number| -> Proposal { proposal(1, number, rack(1)) };
    trio.voters[leader].propose(&wanted(1)).expect("it leads");
    trio.voters[leader].propose(&wanted(2)).expect("it is not decided yet");
    trio.settle();
    assert!(matches!(trio.outcomes[0], (1, Outcome::Record(_))));
    assert_eq!(trio.outcomes[1], (2, Outcome::Refused(Refusal::Already { epoch: 2 })));
    let histories: Vec<&History> = trio.voters.iter().map(Consensus::history).collect();
    assert!(histories.iter().all(|history| history.epoch() <= 2));
}
