//! What the cluster may answer, by what it acknowledged: pure rules over times that the caller gives.
//!
//! **In which order.** [`Oracle::begin`] before a request is sent, [`Oracle::end`] with what came of it. Requests for
//! one track overlap, so a rule holds only where it holds for every order in which they may have been carried out: what
//! was acknowledged *before a request began* counts, and what *begins before it ended* may count.
//!
//! **What is not known.** 503, 507, 408 and a connection that broke say nothing: a put or a takedown so answered may have
//! been carried out or not, from then on for ever.
//!
//! **Takedowns.** A gateway follows what it answered itself at once. One that was started later may ask masters that were
//! cut off and have not heard of it: they serve no longer than their lease of the takedowns' log.

use std::collections::HashMap;
use std::fmt;

use deadwax_track::TrackId;

/// How long after its acknowledgement a takedown may still not be followed where the gateway was started since, ms: the
/// lease, and the second in which a gateway hears of what its masters know.
pub(crate) const TAKEDOWN_MS_MAX: u64 = 61_000;

/// What a client asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    /// All of the track.
    Whole,
    /// A range of it.
    Range,
    /// Its head.
    Head,
    /// To store it.
    Put,
    /// To take it down.
    Delete,
}

/// What came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// A status, with the bytes that were due, where there were any.
    Status(u16),
    /// Bytes that are not the track's, or not as many: in whole, in part, or before the connection broke.
    Wrong(String),
    /// No whole answer: the connection broke, or was never there.
    Broken(String),
    /// The server kept the connection and said nothing for too long.
    Silent,
}

/// What must never happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(crate) enum Rule {
    /// A track that was acknowledged, and not taken down, can be had.
    AckedLost,
    /// Bytes are the track's.
    WrongBytes,
    /// A track that was acknowledged is not *not found*.
    FalseAbsent,
    /// A track that was taken down is not served, nor stored again, nor forgotten.
    TakedownBroken,
    /// *Taken down* is not said of a track that nobody took down.
    FalseTakedown,
    /// An answer is one of those that the interface has for the question.
    Unexpected,
    /// Whatever happens, there is an answer.
    Silent,
    /// All is as it was within the stated time.
    NotHealed,
    /// Once it is, every copy on every drive is right, also those that nobody was served.
    Damaged,
    /// A process ends only when it is told.
    Died,
    /// Memory is bounded by settings.
    Memory,
    /// What the cluster must be able to answer is answered: see [`availability`](super::availability).
    Unavailable,
}

/// A rule that was broken, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// What is known of one track. Times are ms of one clock that never goes back.
#[derive(Clone, Copy, Default, Debug)]
struct Known {
    /// When the first acknowledgement of a put had come.
    stored: Option<u64>,
    /// When the first takedown was sent.
    takedown_begun: Option<u64>,
    /// When the first acknowledgement of one had come.
    taken_down: Option<u64>,
    /// When that takedown was sent: to the gateway of that time.
    taken_down_asked: u64,
}

/// A request that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub(crate) id: TrackId,
    pub(crate) ask: Ask,
    pub(crate) begun: u64,
}

/// All tracks that anybody asked for.
#[derive(Default)]
pub(crate) struct Oracle {
    tracks: HashMap<TrackId, Known>,
    /// When the gateway was last started.
    gateway: u64,
}

impl Oracle {
    /// The gateway is about to be started, and knows nothing.
    pub(crate) const fn gateway_starts(&mut self, now: u64) {
        self.gateway = now;
    }

    /// Whether a request that began then must find the track taken down.
    fn must_be_followed(&self, known: &Known, begun: u64) -> bool {
        let bound = if known.taken_down_asked < self.gateway { TAKEDOWN_MS_MAX } else { 0 };
        known.taken_down.is_some_and(|at| at + bound <= begun)
    }

    /// A request is about to be sent.
    pub(crate) fn begin(&mut self, now: u64, id: TrackId, ask: Ask) -> Pending {
        let known = self.tracks.entry(id).or_default();
        if ask == Ask::Delete {
            known.takedown_begun.get_or_insert(now);
        }
        Pending { id, ask, begun: now }
    }

    /// What came of it; the rule that it breaks, if it does.
    pub(crate) fn end(&mut self, now: u64, pending: Pending, answer: &Answer) -> Option<Violation> {
        let Pending { id, ask, begun } = pending;
        let before = *self.tracks.get(&id).expect("every request was begun");
        let late = self.must_be_followed(&before, begun);
        let known = self.tracks.get_mut(&id).expect("every request was begun");
        let status = match answer {
            Answer::Status(status) => *status,
            Answer::Wrong(what) => return broken(Rule::WrongBytes, id, ask, what),
            Answer::Silent => return broken(Rule::Silent, id, ask, "no answer, and the connection is still there"),
            Answer::Broken(_) => return None,
        };
        match (ask, status) {
            (_, 408 | 503 | 507) => None,
            (Ask::Put, 200 | 201) => {
                known.stored.get_or_insert(now);
                late.then(|| violation(Rule::TakedownBroken, id, ask, "stored again, after it was taken down"))
            }
            (Ask::Delete, 202) => {
                if before.taken_down.is_none() {
                    (known.taken_down, known.taken_down_asked) = (Some(now), begun);
                }
                None
            }
            (Ask::Whole | Ask::Head, 200) | (Ask::Range, 206) => {
                late.then(|| violation(Rule::TakedownBroken, id, ask, "served, after it was taken down"))
            }
            (Ask::Whole | Ask::Range | Ask::Head, 404) => {
                if before.taken_down.is_some_and(|at| at <= begun) {
                    return broken(Rule::TakedownBroken, id, ask, "404: the takedown is forgotten");
                }
                let acked = before.stored.is_some_and(|at| at <= begun);
                acked.then(|| violation(Rule::FalseAbsent, id, ask, "404, after its put was acknowledged"))
            }
            (_, 410) if before.takedown_begun.is_some() => None,
            (_, 410) => broken(Rule::FalseTakedown, id, ask, "410, and nobody took it down"),
            (_, other) => broken(Rule::Unexpected, id, ask, &format!("status {other}")),
        }
    }

    /// Since when the track was acknowledged, if it was before the request began, and nobody has begun to take it down.
    pub(crate) fn due(&self, pending: &Pending) -> Option<u64> {
        let known = self.tracks.get(&pending.id)?;
        known.stored.filter(|at| *at <= pending.begun && known.takedown_begun.is_none())
    }

    /// Whether somebody began to take it down: who reads it may be cut off.
    pub(crate) fn is_doomed(&self, id: &TrackId) -> bool {
        self.tracks.get(id).is_some_and(|known| known.takedown_begun.is_some())
    }

    /// Whether a track must be readable once all is healed.
    pub(crate) fn must_have(&self, id: &TrackId) -> bool {
        self.tracks.get(id).is_some_and(|known| known.stored.is_some() && known.takedown_begun.is_none())
    }

    /// Whether a takedown of it began and none was acknowledged: it is to be asked for again.
    pub(crate) fn is_undecided(&self, id: &TrackId) -> bool {
        self.tracks.get(id).is_some_and(|known| known.takedown_begun.is_some() && known.taken_down.is_none())
    }

    /// Whether a takedown of it was acknowledged: it must be refused for ever.
    pub(crate) fn must_refuse(&self, id: &TrackId) -> bool {
        self.tracks.get(id).is_some_and(|known| known.taken_down.is_some())
    }
}

fn violation(rule: Rule, id: TrackId, ask: Ask, what: &str) -> Violation {
    Violation { rule, what: format!("{ask:?} of {id}: {what}") }
}

fn broken(rule: Rule, id: TrackId, ask: Ask, what: &str) -> Option<Violation> {
    Some(violation(rule, id, ask, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An oracle to which things happen one after the other, one ms each.
    #[derive(Default)]
    struct Story {
        oracle: Oracle,
        now: u64,
    }

    impl Story {
        fn says(&mut self, ask: Ask, status: u16) -> Option<Rule> {
            self.answers(ask, &Answer::Status(status))
        }

        fn answers(&mut self, ask: Ask, answer: &Answer) -> Option<Rule> {
            let pending = self.oracle.begin(self.now, id(), ask);
            self.now += 1;
            self.oracle.end(self.now, pending, answer).map(|violation| violation.rule)
        }
    }

    fn id() -> TrackId {
        TrackId::of(b"a track")
    }

    #[test]
    fn what_was_acknowledged_is_never_not_found() {
        let mut story = Story::default();
        assert_eq!(story.says(Ask::Whole, 404), None);
        assert_eq!(story.says(Ask::Put, 503), None);
        assert_eq!(story.says(Ask::Whole, 404), None, "a put that failed may have left nothing");
        assert_eq!(story.says(Ask::Range, 206), None, "or all");
        assert!(!story.oracle.must_have(&id()));
        assert_eq!(story.says(Ask::Put, 201), None);
        assert!(story.oracle.must_have(&id()));
        assert_eq!(story.says(Ask::Whole, 503), None);
        for ask in [Ask::Whole, Ask::Range, Ask::Head] {
            assert_eq!(story.says(ask, 404), Some(Rule::FalseAbsent));
        }
    }

    #[test]
    fn a_get_that_began_before_the_acknowledgement_may_find_nothing() {
        let mut oracle = Oracle::default();
        let put = oracle.begin(1, id(), Ask::Put);
        let early = oracle.begin(5, id(), Ask::Whole);
        assert_eq!(oracle.end(9, put, &Answer::Status(201)), None);
        let late = oracle.begin(9, id(), Ask::Whole);
        assert_eq!(oracle.end(20, early, &Answer::Status(404)), None);
        let rule = oracle.end(20, late, &Answer::Status(404)).map(|violation| violation.rule);
        assert_eq!(rule, Some(Rule::FalseAbsent));
    }

    #[test]
    fn what_was_taken_down_is_refused_from_then_on() {
        let mut story = Story::default();
        assert_eq!(story.says(Ask::Put, 201), None);
        assert_eq!(story.says(Ask::Whole, 410), Some(Rule::FalseTakedown));
        assert_eq!(story.says(Ask::Delete, 503), None);
        assert_eq!(story.says(Ask::Whole, 410), None, "it may have been taken down");
        assert_eq!(story.says(Ask::Whole, 200), None, "or not");
        assert_eq!(story.says(Ask::Whole, 404), Some(Rule::FalseAbsent), "but it is not unknown");
        assert!(!story.oracle.must_have(&id()) && !story.oracle.must_refuse(&id()));
        assert!(story.oracle.is_undecided(&id()));
        assert_eq!(story.says(Ask::Delete, 202), None);
        assert!(story.oracle.must_refuse(&id()) && !story.oracle.is_undecided(&id()));
        assert_eq!(story.says(Ask::Whole, 200), Some(Rule::TakedownBroken), "the gateway has just said so");
        story.now += 1;
        story.oracle.gateway_starts(story.now);
        assert_eq!(story.says(Ask::Whole, 200), None, "another gateway may not have heard, within the bound");
        story.now += TAKEDOWN_MS_MAX;
        assert_eq!(story.says(Ask::Whole, 410), None);
        assert_eq!(story.says(Ask::Head, 200), Some(Rule::TakedownBroken));
        assert_eq!(story.says(Ask::Range, 206), Some(Rule::TakedownBroken));
        assert_eq!(story.says(Ask::Whole, 404), Some(Rule::TakedownBroken));
        assert_eq!(story.says(Ask::Put, 410), None);
        assert_eq!(story.says(Ask::Put, 201), Some(Rule::TakedownBroken));
    }

    #[test]
    fn lies_and_silence_are_found_whatever_is_known() {
        let mut story = Story::default();
        assert_eq!(story.answers(Ask::Whole, &Answer::Wrong("byte 7 differs".into())), Some(Rule::WrongBytes));
        assert_eq!(story.answers(Ask::Put, &Answer::Silent), Some(Rule::Silent));
        assert_eq!(story.answers(Ask::Put, &Answer::Broken("reset".into())), None);
        assert_eq!(story.says(Ask::Put, 422), Some(Rule::Unexpected));
        assert_eq!(story.says(Ask::Range, 200), Some(Rule::Unexpected));
        assert_eq!(story.says(Ask::Whole, 500), Some(Rule::Unexpected));
    }
}
