//! Clients that put, get and take down tracks all the time, each answer of which the oracle judges.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadwax_track::{KIB, MIB, TrackId};

use super::availability::Asked;
use super::corpus::{Corpus, Sample, WHOLE_EVERY};
use super::exchange::{Question, Reply, ask};
use super::journal::Journal;
use super::oracle::{Answer, Ask, Oracle, Rule, Violation};
use crate::tracks::Random;

/// How long a client rests between two requests: they share the machine with those that heal.
const REST: Duration = Duration::from_millis(15);
const RANGE_BYTES_MAX: u64 = 256 * KIB;
/// Ids that nobody ever stores.
const STRANGERS: u64 = 64;
/// The most violations that are kept; a run with more is no better understood.
const VIOLATIONS_MAX: usize = 100;
/// Of a hundred tracks at most so many are taken down.
const TAKEN_DOWN_PERCENT: u64 = 15;
/// How fast who listens takes a track, bytes/s: so that some are under way for seconds.
const LISTENED_BYTES: u64 = 2 * MIB;
/// What is noted of an answer that says no.
const SAID_BYTES_MAX: usize = 300;

/// Ends the clients of a load.
pub(crate) struct Ended<'a>(&'a Load);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::SeqCst);
    }
}

/// What all clients share.
pub(crate) struct Load {
    gateway: SocketAddr,
    corpus: Corpus,
    journal: Arc<Journal>,
    oracle: Mutex<Oracle>,
    /// The ids of all tracks that somebody began to put, by number.
    tracks: Mutex<Vec<TrackId>>,
    violations: Mutex<Vec<Violation>>,
    /// Bytes of tracks that may be put in all, and that were.
    room: AtomicU64,
    taken: AtomicU64,
    writes: AtomicBool,
    writing: AtomicUsize,
    ended: AtomicBool,
    counts: Counts,
    /// By how much the oracle's time is ahead of the journal's, ms.
    later: AtomicU64,
}

/// What the requests came to.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) puts_acked: AtomicU64,
    pub(crate) gets_right: AtomicU64,
    pub(crate) taken_down: AtomicU64,
    pub(crate) unavailable: AtomicU64,
    pub(crate) broken: AtomicU64,
    pub(crate) absent: AtomicU64,
}

/// What is asked of which track.
#[derive(Clone)]
pub(crate) enum Wish {
    Get(usize, Option<Range<u64>>),
    /// All of it, as slowly as somebody who listens.
    Listen(usize),
    Head(usize),
    Put(usize),
    Delete(usize),
    Stranger(u64),
}

impl Load {
    pub(crate) fn new(gateway: SocketAddr, corpus: Corpus, journal: Arc<Journal>) -> Self {
        Self {
            gateway,
            corpus,
            journal,
            oracle: Mutex::default(),
            tracks: Mutex::default(),
            violations: Mutex::default(),
            room: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            writes: AtomicBool::new(true),
            writing: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            counts: Counts::default(),
            later: AtomicU64::new(0),
        }
    }

    /// A client, until [`ended_when_dropped`](Self::ended_when_dropped) is.
    pub(crate) fn client(&self, seed: u64) {
        let mut random = Random::new(seed);
        while !self.ended.load(Ordering::Relaxed) {
            if let Some(wish) = self.wish(&mut random) {
                let writes = matches!(wish, Wish::Put(_) | Wish::Delete(_));
                self.fulfil(&wish);
                if writes {
                    self.writing.fetch_sub(1, Ordering::SeqCst);
                }
            }
            std::thread::sleep(REST);
        }
    }

    /// What a client wants next. A write is counted as under way.
    fn wish(&self, random: &mut Random) -> Option<Wish> {
        let dice = random.below(100);
        let count = self.tracks().len() as u64;
        let any = |random: &mut Random| usize::try_from(random.below(count.max(1))).ok().filter(|_| count > 0);
        match dice {
            0..=24 => self.write(|| Some(Wish::Put(self.new_track(random)?))),
            25..=27 => self.write(|| any(random).map(Wish::Put)),
            28..=29 if self.takedowns() * 100 < count * TAKEN_DOWN_PERCENT => {
                self.write(|| any(random).map(Wish::Delete))
            }
            28..=39 => any(random).map(Wish::Head),
            40..=44 => Some(Wish::Stranger(random.below(STRANGERS))),
            45..=47 => any(random).map(|number| Wish::Listen(number - number % WHOLE_EVERY)),
            48..=59 => any(random).map(|number| Wish::Get(number, None)),
            _ => {
                let number = any(random)?;
                let bytes = self.corpus.track_bytes(number);
                let start = random.below(bytes);
                let end = (start + 1 + random.below(RANGE_BYTES_MAX)).min(bytes);
                Some(Wish::Get(number, Some(start..end)))
            }
        }
    }

    fn write(&self, wish: impl FnOnce() -> Option<Wish>) -> Option<Wish> {
        // Counted before the flag is read: who clears it and then sees no writer, has none.
        self.writing.fetch_add(1, Ordering::SeqCst);
        let wish = if self.writes.load(Ordering::SeqCst) { wish() } else { None };
        if wish.is_none() {
            self.writing.fetch_sub(1, Ordering::SeqCst);
        }
        wish
    }

    /// The number of a track that nobody put yet, while there is room.
    fn new_track(&self, random: &mut Random) -> Option<usize> {
        if self.taken.load(Ordering::Relaxed) >= self.room.load(Ordering::Relaxed) {
            // What failed may be tried again.
            let count = self.tracks().len() as u64;
            return (count > 0).then(|| random.below(count)).and_then(|number| usize::try_from(number).ok());
        }
        Some(self.add_track())
    }

    /// Names one more track.
    pub(crate) fn add_track(&self) -> usize {
        let mut tracks = self.tracks();
        let number = tracks.len();
        tracks.push(self.corpus.track(number).0);
        self.taken.fetch_add(self.corpus.track_bytes(number), Ordering::Relaxed);
        number
    }

    /// Asks, and has the answer judged.
    pub(crate) fn fulfil(&self, wish: &Wish) -> Answer {
        let (id, kind) = self.named(wish);
        let pending = self.oracle().begin(self.now(), id, kind);
        let (answer, pause_ms) = self.answer(wish, &id);
        self.count(kind, &answer);
        let (ended, mut oracle) = (self.now(), self.oracle());
        let violation = oracle.end(ended, pending, &answer);
        let (stored, doomed) = (oracle.due(&pending), oracle.is_doomed(&id));
        drop(oracle);
        if let Some(violation) = violation {
            self.violated(violation);
        }
        let (begun, answer_too) = (pending.begun, answer.clone());
        let asked = Asked { id, ask: kind, begun, ended, stored, doomed, pause_ms, answer: answer_too };
        self.journal.availability().asked(asked);
        answer
    }

    /// Has all that was asked judged: whether it was answered that had to be.
    pub(crate) fn judge(&self) {
        let violations = self.journal.availability().judge();
        violations.into_iter().for_each(|violation| self.violated(violation));
    }

    /// The same, and all is whole from now on.
    pub(crate) fn whole(&self) {
        let now = self.now();
        let violations = self.journal.availability().whole(now);
        violations.into_iter().for_each(|violation| self.violated(violation));
    }

    /// The oracle's time, ms.
    fn now(&self) -> u64 {
        self.journal.now() + self.later.load(Ordering::Relaxed)
    }

    /// From now on it is so many ms later for the oracle.
    #[cfg(test)]
    pub(crate) fn pretend_later(&self, ms: u64) {
        self.later.fetch_add(ms, Ordering::Relaxed);
    }

    fn named(&self, wish: &Wish) -> (TrackId, Ask) {
        let id = |number: &usize| self.tracks()[*number];
        match wish {
            Wish::Get(number, None) | Wish::Listen(number) => (id(number), Ask::Whole),
            Wish::Get(number, Some(_)) => (id(number), Ask::Range),
            Wish::Head(number) => (id(number), Ask::Head),
            Wish::Put(number) => (id(number), Ask::Put),
            Wish::Delete(number) => (id(number), Ask::Delete),
            Wish::Stranger(number) => (TrackId::of(format!("nobody stores this, {number}").as_bytes()), Ask::Whole),
        }
    }

    /// What comes of it, and the longest pause amid the bytes, ms.
    fn answer(&self, wish: &Wish, id: &TrackId) -> (Answer, u64) {
        let question =
            |method: &str, headers: String| Question { what: format!("{method} /v1/tracks/{id}"), headers, body: &[] };
        let got = |number: usize, range: &Option<Range<u64>>, pace: Option<u64>| {
            let due = range.clone().unwrap_or(0..self.corpus.track_bytes(number));
            let header = |range: &Range<u64>| format!("range: bytes={}-{}\r\n", range.start, range.end - 1);
            self.got(number, &due, pace, &question("GET", range.as_ref().map_or_else(String::new, header)))
        };
        match wish {
            Wish::Get(number, range) => got(*number, range, None),
            Wish::Listen(number) => got(*number, &None, Some(LISTENED_BYTES)),
            Wish::Head(number) => match ask(self.gateway, &question("HEAD", String::new()), &mut |_, _, _| {}) {
                Ok(reply) if reply.status == 200 && reply.bytes != self.corpus.track_bytes(*number) => {
                    (Answer::Wrong(format!("a length of {} bytes", reply.bytes)), 0)
                }
                reply => self.noted(reply, &question("HEAD", String::new()), &[]),
            },
            Wish::Put(number) => {
                let body = self.corpus.track(*number).1;
                self.status(&Question { body: &body, ..question("PUT", String::new()) })
            }
            Wish::Delete(_) => self.status(&question("DELETE", String::new())),
            Wish::Stranger(_) => self.status(&question("GET", String::new())),
        }
    }

    fn status(&self, question: &Question<'_>) -> (Answer, u64) {
        let mut said = Vec::new();
        let reply = ask(self.gateway, question, &mut |_, _, part| keep(&mut said, part));
        self.noted(reply, question, &said)
    }

    /// Asks for bytes of a track, `pace` a second at most, and looks at each that comes, also of a reply that breaks.
    fn got(&self, number: usize, due: &Range<u64>, pace: Option<u64>, question: &Question<'_>) -> (Answer, u64) {
        let (mut wrong, mut said) = (None, Vec::new());
        let mut sink = |status: u16, at: u64, part: &[u8]| {
            if !matches!(status, 200 | 206) {
                return keep(&mut said, part);
            }
            if wrong.is_none() {
                wrong = self.corpus.first_wrong(number, due.start + at, part);
            }
            if let Some(pace) = pace {
                std::thread::sleep(Duration::from_micros(part.len() as u64 * 1_000_000 / pace));
            }
        };
        let reply = ask(self.gateway, question, &mut sink);
        if let Some(at) = wrong {
            let bytes = self.corpus.track_bytes(number);
            return (Answer::Wrong(format!("byte {at} of track {number}, of {bytes}, differs")), 0);
        }
        match reply {
            Ok(reply) if matches!(reply.status, 200 | 206) && reply.bytes != due.end - due.start => {
                (Answer::Wrong(format!("{} bytes instead of {}", reply.bytes, due.end - due.start)), 0)
            }
            reply => self.noted(reply, question, &said),
        }
    }

    /// The answer that a reply is, and its longest pause, ms. What the server said where it failed goes to the journal.
    fn noted(&self, reply: Result<Reply, Answer>, question: &Question<'_>, said: &[u8]) -> (Answer, u64) {
        let (answer, pause) = match reply {
            Ok(Reply { status, pause, .. }) => (Answer::Status(status), pause),
            Err(answer) => (answer, Duration::ZERO),
        };
        if matches!(answer, Answer::Status(408 | 500..) | Answer::Broken(_) | Answer::Silent) {
            let (what, said) = (&question.what, String::from_utf8_lossy(said));
            self.journal.say(format_args!("{what}: {answer:?} {said}"));
        }
        (answer, u64::try_from(pause.as_millis()).unwrap_or(u64::MAX))
    }

    fn count(&self, ask: Ask, answer: &Answer) {
        let counts = &self.counts;
        let counter = match (ask, answer) {
            (Ask::Put, Answer::Status(200 | 201)) => &counts.puts_acked,
            (Ask::Delete, Answer::Status(202)) => &counts.taken_down,
            (_, Answer::Status(200 | 206)) => &counts.gets_right,
            (_, Answer::Status(404)) => &counts.absent,
            (_, Answer::Status(503 | 507)) => &counts.unavailable,
            (_, Answer::Broken(_)) => &counts.broken,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The gateway is about to be started.
    pub(crate) fn gateway_starts(&self) {
        let now = self.now();
        self.oracle().gateway_starts(now);
    }

    /// A rule was broken.
    pub(crate) fn violated(&self, violation: Violation) {
        self.journal.tell(format_args!("VIOLATION {violation}; under way: {}", self.journal.under_way()));
        let mut violations = self.violations();
        if violations.len() < VIOLATIONS_MAX {
            violations.push(violation);
        }
    }

    /// How often a rule was broken.
    pub(crate) fn broken(&self, rule: Rule) -> usize {
        self.violations().iter().filter(|violation| violation.rule == rule).count()
    }

    pub(crate) fn all_broken(&self) -> Vec<Violation> {
        self.violations().clone()
    }

    /// Lets writes begin, of new tracks up to so many bytes in all.
    pub(crate) fn go(&self, bytes: u64) {
        self.room.store(bytes, Ordering::SeqCst);
        self.writes.store(true, Ordering::SeqCst);
    }

    /// Lets no more begin; whether none is under way.
    pub(crate) fn hold(&self) -> bool {
        self.writes.store(false, Ordering::SeqCst);
        self.writing.load(Ordering::SeqCst) == 0
    }

    /// Whether clients are to end.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Clients end after what they are at when this is dropped.
    pub(crate) const fn ended_when_dropped(&self) -> Ended<'_> {
        Ended(self)
    }

    /// The tracks that must be there now.
    pub(crate) fn stored(&self) -> Vec<usize> {
        self.numbers(Oracle::must_have)
    }

    /// Those that must be refused.
    pub(crate) fn refused(&self) -> Vec<usize> {
        self.numbers(Oracle::must_refuse)
    }

    /// Those whose takedown was not acknowledged: who wants them gone asks again.
    pub(crate) fn undecided(&self) -> Vec<usize> {
        self.numbers(Oracle::is_undecided)
    }

    /// How many tracks somebody began to take down.
    fn takedowns(&self) -> u64 {
        (self.refused().len() + self.undecided().len()) as u64
    }

    fn numbers(&self, holds: impl Fn(&Oracle, &TrackId) -> bool) -> Vec<usize> {
        let (tracks, oracle) = (self.tracks(), self.oracle());
        tracks.iter().enumerate().filter(|(_, id)| holds(&oracle, id)).map(|(number, _)| number).collect()
    }

    /// Frames of tracks that are stored, one each.
    pub(crate) fn samples(&self, random: &mut Random) -> Vec<Sample> {
        self.stored().into_iter().filter_map(|number| self.corpus.sample(number, random)).collect()
    }

    pub(crate) const fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) fn track_count(&self) -> usize {
        self.tracks().len()
    }

    fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tracks(&self) -> MutexGuard<'_, Vec<TrackId>> {
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn violations(&self) -> MutexGuard<'_, Vec<Violation>> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the beginning of what comes.
fn keep(said: &mut Vec<u8>, part: &[u8]) {
    let room = SAID_BYTES_MAX - said.len();
    said.extend_from_slice(&part[..part.len().min(room)]);
}
