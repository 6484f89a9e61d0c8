//! Everything that three holders can answer to a get.

use std::collections::BTreeSet;

use deadwax_dht::{Failure, FailureKind, GetPlan, GetStep, Policy, ReadDeadlines, Verdict};
use deadwax_track::ByteRange;

const DEADLINES: ReadDeadlines = ReadDeadlines { first_ms: 100, stall_ms: 50 };
const TRACK_BYTES: u64 = 20;

fn range() -> ByteRange {
    ByteRange::new(4, 14).expect("not empty")
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
            get: GetPlan::new(&[2, 0, 1], read_quorum, range(), DEADLINES),
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
        assert!(self.get.handle_data(self.now, bytes), "{:?}", self.history);
        self.next += bytes;
    }

    fn fail(&mut self, kind: FailureKind) {
        self.get.handle_failed(Failure::new(kind, "told so"));
    }

    fn pass(&mut self) {
        let GetStep::Wait { until } = self.get.poll(self.now) else { panic!("{:?}", self.history) };
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
            self.get.handle_found(self.now, TRACK_BYTES);
            self.seen = true;
        }
        self.seen |= matches!(does, Does::Fails(FailureKind::Corrupt) | Does::SaysAnotherLength);
        match does {
            Does::GivesAll => {
                self.take(u64::MAX);
                self.get.handle_end();
            }
            Does::GivesAllButTheEnd => {
                self.take(u64::MAX);
                self.pass();
            }
            Does::SaysAbsent => {
                self.absent.insert(holder);
                self.get.handle_absent();
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
                self.get.handle_end();
            }
            Does::GivesTooMuch => assert!(!self.get.handle_data(self.now, 11)),
            Does::GivesUnasked => assert!(!self.get.handle_data(self.now, 1)),
            Does::SaysAnotherLength => self.get.handle_found(self.now, range().end() - 1),
        }
    }

    /// Everything that can happen from here; counts the ends.
    fn explore(mut self, read_quorum: usize) -> u64 {
        let history = format!("{:?}", self.history);
        match self.get.poll(self.now) {
            GetStep::Ask { holder, range: asked, until } => {
                assert_eq!((asked.start(), asked.end()), (self.next, range().end()), "{history}");
                assert_eq!(until, self.now + DEADLINES.first_ms);
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
    let mut get = GetPlan::new(&[0, 1], 2, range(), DEADLINES);
    assert!(matches!(get.poll(0), GetStep::Ask { holder: 0, until: 100, .. }));
    get.handle_found(10, TRACK_BYTES);
    assert_eq!(get.poll(10), GetStep::Wait { until: 60 });
    get.handle_resumed(1_000);
    assert_eq!(get.poll(1_000), GetStep::Wait { until: 1_050 });
    assert!(matches!(get.poll(1_050), GetStep::Ask { holder: 1, .. }));
    let why: Vec<String> = get.failures().map(|(_, failure)| failure.to_string()).collect();
    assert_eq!(why, ["sent nothing for 50 ms"]);
}
