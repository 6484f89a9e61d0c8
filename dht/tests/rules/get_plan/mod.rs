//! Everything that three holders can answer to a get; in `hedges.rs` slow ones, and those of a newer map.

mod hedges;

use std::collections::BTreeSet;

use deadwax_dht::{
    Failure, FailureKind, GetPlan, GetStep, HedgeBudget, Policy, ReadDeadlines, Reader, Readers, Verdict,
};
use deadwax_track::ByteRange;

const DEADLINES: ReadDeadlines = ReadDeadlines { first_ms: 100, stall_ms: 50, whole: None };
const TRACK_BYTES: u64 = 20;

fn range() -> ByteRange {
    ByteRange::new(4, 14).expect("not empty")
}

const EPOCH: u64 = 7;

/// Holders that are asked in this order, all of the first set, with no hedges.
fn readers(order: &[usize], read_quorum: usize) -> Readers {
    let reader = |holder: &usize| Reader { holder: *holder, hedge_ms: None, is_down: false };
    Readers { order: order.iter().map(reader).collect(), voters: order.to_vec(), read_quorum, epoch: EPOCH }
}

/// What a holder does when it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Does {
    GivesAll,
    GivesAllButTheEnd,
    SaysAbsent,
    SaysTakenDown,
    IsSilent,
    Fails(FailureKind),
    GivesSomeThenBreaks,
    GivesSomeThenIsSilent,
    GivesSomeThenIsCorrupt,
    GivesSomeThenEnds,
    GivesTooMuch,
    GivesUnasked,
    SaysAnotherLength,
}

const ALL: [Does; 15] = [
    Does::GivesAll,
    Does::GivesAllButTheEnd,
    Does::SaysAbsent,
    Does::SaysTakenDown,
    Does::IsSilent,
    Does::Fails(FailureKind::Unreachable),
    Does::Fails(FailureKind::Busy),
    Does::Fails(FailureKind::Corrupt),
    Does::GivesSomeThenBreaks,
    Does::GivesSomeThenIsSilent,
    Does::GivesSomeThenIsCorrupt,
    Does::GivesSomeThenEnds,
    Does::GivesTooMuch,
    Does::GivesUnasked,
    Does::SaysAnotherLength,
];

#[derive(Clone)]
struct Case {
    get: GetPlan,
    budget: HedgeBudget,
    /// The holder that was asked last.
    holder: usize,
    now: u64,
    next: u64,
    absent: BTreeSet<usize>,
    seen: bool,
    taken_down: bool,
    asks: [u8; 3],
    history: Vec<(usize, Does)>,
}

impl Case {
    fn new(read_quorum: usize) -> Self {
        Self {
            get: GetPlan::new(readers(&[2, 0, 1], read_quorum), range(), DEADLINES),
            budget: HedgeBudget::default(),
            holder: 0,
            now: 0,
            next: range().start(),
            absent: BTreeSet::new(),
            seen: false,
            taken_down: false,
            asks: [0; 3],
            history: vec![],
        }
    }

    fn take(&mut self, bytes: u64) {
        let bytes = bytes.min(range().end() - self.next);
        assert!(self.get.handle_data(self.now, self.holder, bytes), "{:?}", self.history);
        self.next += bytes;
    }

    fn fail(&mut self, kind: FailureKind) {
        self.get.handle_failed(self.holder, Failure::new(kind, "told so"));
    }

    fn pass(&mut self) {
        let GetStep::Wait { until } = self.get.poll(self.now, &mut self.budget) else { panic!("{:?}", self.history) };
        self.now = until;
    }

    fn answer(&mut self, holder: usize, does: Does) {
        self.history.push((holder, does));
        // The machine gives a second chance to a holder that made progress: it must not call the track absent then.
        let finds = !matches!(
            does,
            Does::SaysAbsent | Does::SaysTakenDown | Does::IsSilent | Does::Fails(_) | Does::GivesUnasked
        );
        if finds && does != Does::SaysAnotherLength {
            self.get.handle_found(self.now, holder, TRACK_BYTES);
            self.seen = true;
        }
        self.seen |= matches!(does, Does::Fails(FailureKind::Corrupt) | Does::SaysAnotherLength);
        match does {
            Does::GivesAll => {
                self.take(u64::MAX);
                self.get.handle_end(holder);
            }
            Does::GivesAllButTheEnd => {
                self.take(u64::MAX);
                self.pass();
            }
            Does::SaysAbsent => {
                self.absent.insert(holder);
                self.get.handle_absent(holder, EPOCH);
            }
            Does::SaysTakenDown => {
                self.taken_down = true;
                self.fail(FailureKind::TakenDown { number: 5 });
            }
            Does::IsSilent => self.pass(),
            Does::Fails(kind) => self.fail(kind),
            Does::GivesSomeThenBreaks => {
                self.take(3);
                self.fail(FailureKind::Unreachable);
            }
            Does::GivesSomeThenIsSilent => {
                self.take(3);
                self.pass();
            }
            Does::GivesSomeThenIsCorrupt => {
                self.take(3);
                self.fail(FailureKind::Corrupt);
            }
            Does::GivesSomeThenEnds => {
                self.take(3);
                self.get.handle_end(holder);
            }
            Does::GivesTooMuch => assert!(!self.get.handle_data(self.now, holder, 11)),
            Does::GivesUnasked => assert!(!self.get.handle_data(self.now, holder, 1)),
            Does::SaysAnotherLength => self.get.handle_found(self.now, holder, range().end() - 1),
        }
    }

    /// Everything that can happen from here; counts the ends.
    fn explore(mut self, read_quorum: usize) -> u64 {
        let history = format!("{:?}", self.history);
        let mut step = self.get.poll(self.now, &mut self.budget);
        while let GetStep::Drop { holder } = step {
            assert_eq!(holder, self.holder, "{history}");
            step = self.get.poll(self.now, &mut self.budget);
        }
        match step {
            GetStep::Ask { holder, range: asked, hedge } => {
                assert_eq!((asked.start(), asked.end()), (self.next, range().end()), "{history}");
                assert!(!hedge, "{history}");
                let until = self.now + DEADLINES.first_ms;
                assert_eq!(self.get.poll(self.now, &mut self.budget), GetStep::Wait { until });
                self.holder = holder;
                assert!(!self.taken_down, "{history}");
                self.asks[holder] += 1;
                assert!(self.asks[holder] <= 3, "{history}");
                let answers = ALL.iter().map(|does| {
                    let mut case = self.clone();
                    case.answer(holder, *does);
                    case.explore(read_quorum)
                });
                return answers.sum();
            }
            GetStep::Wait { .. } => panic!("waits for nobody: {history}"),
            GetStep::Drop { .. } | GetStep::Moved { .. } => panic!("nobody moved: {history}"),
            GetStep::Done => assert_eq!(self.next, range().end(), "{history}"),
            GetStep::NotFound => {
                assert!(self.absent.len() >= read_quorum, "a false NotFound: {history}");
                assert!(!self.seen && !self.taken_down, "{history}");
            }
            GetStep::Failed(Verdict::TakenDown { number }) => {
                assert!(self.taken_down && number == 5, "{history}");
            }
            GetStep::Failed(verdict) => {
                assert!(self.asks.iter().all(|asks| *asks > 0), "not all were asked: {history}");
                assert!(!self.taken_down && self.next < range().end(), "{history}");
                assert_ne!(verdict, Verdict::NoSpace);
                let told = self.get.failures().count() + self.get.absent();
                assert_eq!(told, 3, "each holder has its reason: {history}");
            }
        }
        1
    }
}

#[test]
fn whatever_three_holders_answer_the_rules_hold() {
    for write_quorum in [1, 2, 3] {
        let policy = Policy { write_quorum, ..Policy::default() };
        let read_quorum = policy.read_quorum(3);
        assert_eq!(read_quorum + usize::from(write_quorum), 4, "any two quorums have a holder in common");
        let ends = Case::new(read_quorum).explore(read_quorum);
        assert!(ends > 1_000, "{ends} ways were explored");
    }
}

#[test]
fn a_read_quorum_asks_no_more_holders_than_there_are() {
    let policy = Policy::default();
    assert_eq!([1, 2, 3].map(|holders| policy.read_quorum(holders)), [1, 2, 2]);
}

#[test]
fn a_reader_that_was_away_does_not_blame_the_holder() {
    let (mut get, mut budget) = (GetPlan::new(readers(&[0, 1], 2), range(), DEADLINES), HedgeBudget::default());
    let mut poll = |get: &mut GetPlan, now| get.poll(now, &mut budget);
    assert!(matches!(poll(&mut get, 0), GetStep::Ask { holder: 0, .. }));
    assert_eq!(poll(&mut get, 0), GetStep::Wait { until: 100 });
    get.handle_found(10, 0, TRACK_BYTES);
    assert_eq!(poll(&mut get, 10), GetStep::Wait { until: 60 });
    get.handle_away(20);
    get.handle_resumed(1_000);
    assert_eq!(poll(&mut get, 1_000), GetStep::Wait { until: 1_050 });
    assert_eq!(poll(&mut get, 1_050), GetStep::Drop { holder: 0 });
    assert!(matches!(poll(&mut get, 1_050), GetStep::Ask { holder: 1, .. }));
    let why: Vec<String> = get.failures().map(|(_, failure)| failure.to_string()).collect();
    assert_eq!(why, ["sent nothing for 50 ms"]);
    assert_eq!(get.take_sample(), Some((0, 70)), "the 980 ms that the reader was away do not count");
}
