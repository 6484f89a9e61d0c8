//! Whether the cluster answered when it had to: pure rules over what was done to it and what was asked of it, with times
//! that the caller gives.
//!
//! **In which order.** What is hurt and asked is told as it happens. Judged is later, once it is known: [`judge`] at the
//! end of each quiet time, [`whole`] when all is as it was.
//!
//! **In a calm**, a moment after all was whole and before the next fault, everything is answered, but for what is asked of
//! a track amid its takedown.
//!
//! **Amid faults** a read of a track that was acknowledged before, and that nobody takes down, is answered if some master
//! with an intact copy was within reach from its begin to its end, as far as that follows from what was done:
//! - An acknowledged track is on two masters, one in each zone; one that was there when all was whole is on three. So one
//!   of any three masters that are out of reach, or of any two, leaves a copy.
//! - Where nothing but one zone was hurt since all was whole, the other has a copy.
//!
//! A master is out of reach from the begin of what is done to it until [`RECOVERS_MS`] after that is undone; one whose
//! drive was hurt, until all is whole. Whatever cannot be known so is not judged: while the gateway is away, or what was cut
//! off may be so for longer than its lease of the takedowns' log, after which nobody need serve; while the machine itself
//! stood still; and puts and takedowns, which want a quorum of masters that the map tells, but the harness does not know.
//!
//! [`judge`]: Availability::judge
//! [`whole`]: Availability::whole

use std::collections::BTreeSet;

use deadwax_track::TrackId;

use super::fault::{name, zone_of};
use super::oracle::{Answer, Ask, Rule, Violation};

/// How long a master, or the gateway, may take until it serves again: it opens its volumes, compares takedowns with half of
/// those that keep them, and who cut it off asks it again after some seconds.
pub(crate) const RECOVERS_MS: u64 = 10_000;
/// How long after all was whole a calm begins.
pub(crate) const SETTLES_MS: u64 = 1_000;
/// What is cut off for longer may find its lease of the takedowns' log, 60 s, at its end, and so may those that it keeps it for.
pub(crate) const CUT_MS_MAX: u64 = 50_000;
/// How long a read may pause amid its bytes: one holder's stall of 3 s, for each of two others 4 s in which it does not answer,
/// and as long again for what a machine that is busy adds.
pub(crate) const PAUSE_MS_MAX: u64 = 22_000;

/// A master is out of reach.
#[derive(Clone, Copy, Debug)]
struct Outage {
    /// None: nothing can be told of any.
    node: Option<usize>,
    /// What did it.
    cause: &'static str,
    from: u64,
    /// Until when it may take effect, once it is undone.
    until: Option<u64>,
}

/// A request and what came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    pub(crate) id: TrackId,
    pub(crate) ask: Ask,
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    /// When its track was acknowledged, if it was before the request began, and nobody had begun to take it down when it ended.
    pub(crate) stored: Option<u64>,
    /// Whether somebody had begun to take it down by then: in the midst of it, a read or a put of it may break.
    pub(crate) doomed: bool,
    /// The longest time between two parts of its bytes, ms.
    pub(crate) pause_ms: u64,
    pub(crate) answer: Answer,
}

impl Asked {
    const fn is_read(&self) -> bool {
        matches!(self.ask, Ask::Whole | Ask::Range)
    }

    const fn is_unavailable(&self) -> bool {
        matches!(self.answer, Answer::Status(408 | 503 | 507))
    }

    const fn is_broken(&self) -> bool {
        matches!(self.answer, Answer::Broken(_) | Answer::Silent)
    }

    /// Why it is no answer, if it is none.
    fn failure(&self) -> Option<String> {
        (self.is_unavailable() || self.is_broken()).then(|| format!("{:?}", self.answer))
    }
}

/// What came of requests of one kind at one time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Tally {
    pub(crate) asked: u64,
    /// Of those, the ones of which nothing can be told: the gateway was away, say. They are in no other count.
    pub(crate) untold: u64,
    /// Those that had to be answered.
    pub(crate) judged: u64,
    pub(crate) unavailable: u64,
    pub(crate) broken: u64,
}

impl Tally {
    fn add(&mut self, asked: &Asked, told: bool, must: bool) {
        self.asked += 1;
        if !told {
            self.untold += 1;
            return;
        }
        self.judged += u64::from(must);
        self.unavailable += u64::from(asked.is_unavailable());
        self.broken += u64::from(asked.is_broken());
    }

    /// The share that was answered, of those of which something can be told.
    #[expect(clippy::cast_precision_loss, reason = "counts, far below 2^52")]
    pub(crate) fn answered(&self) -> Option<f64> {
        let told = self.asked - self.untold;
        (told > 0).then(|| (told - self.unavailable - self.broken) as f64 / told as f64)
    }
}

/// What was asked in calms and amid faults: gets and ranges of tracks that had to be there, and puts.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Tallies {
    pub(crate) reads_calm: Tally,
    pub(crate) reads_storm: Tally,
    pub(crate) puts_calm: Tally,
    pub(crate) puts_storm: Tally,
    /// The longest pause of a read that had to be answered, and of any, ms.
    pub(crate) pause_ms_judged: u64,
    pub(crate) pause_ms: u64,
}

/// What was done to the cluster since all was whole, and what was asked of it.
#[derive(Default, Debug)]
pub(crate) struct Availability {
    whole: Option<u64>,
    /// When something was done first since then.
    disturbed: Option<u64>,
    outages: Vec<Outage>,
    asked: Vec<Asked>,
    tallies: Tallies,
}

impl Availability {
    /// Something is about to be done: no calm any more.
    pub(crate) fn disturbed(&mut self, now: u64) {
        self.disturbed.get_or_insert(now);
    }

    /// A master is about to be out of reach; none: nothing can be told of any from now on.
    pub(crate) fn falls(&mut self, now: u64, node: Option<usize>, cause: &'static str) {
        self.disturbed(now);
        self.outages.push(Outage { node, cause, from: now, until: None });
    }

    /// What was done to it is undone.
    pub(crate) fn rises(&mut self, now: u64, node: Option<usize>, cause: &'static str) {
        let open = |outage: &&mut Outage| outage.node == node && outage.cause == cause && outage.until.is_none();
        self.outages.iter_mut().filter(open).for_each(|outage| outage.until = Some(now + RECOVERS_MS));
    }

    /// The machine, or its drive, stood still.
    pub(crate) fn stood_still(&mut self, from: u64, until: u64) {
        self.outages.push(Outage { node: None, cause: "stood still", from, until: Some(until + RECOVERS_MS) });
    }

    /// A request has ended.
    pub(crate) fn asked(&mut self, asked: Asked) {
        self.asked.push(asked);
    }

    /// All is whole: judges what was asked before, and forgets what was done.
    pub(crate) fn whole(&mut self, now: u64) -> Vec<Violation> {
        let violations = self.judge();
        (self.whole, self.disturbed) = (Some(now), None);
        self.outages.retain(|outage| outage.node.is_none() && outage.until.is_none_or(|until| until > now));
        violations
    }

    /// Judges all requests that ended.
    pub(crate) fn judge(&mut self) -> Vec<Violation> {
        let asked = std::mem::take(&mut self.asked);
        asked.iter().filter_map(|asked| self.judged(asked)).collect()
    }

    pub(crate) const fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    fn judged(&mut self, asked: &Asked) -> Option<Violation> {
        let told = !self.out_of_reach(asked.begun, asked.ended).contains(&None);
        let (calm, must) = (self.is_calm(asked), told && self.must_be_answered(asked));
        let tallies = &mut self.tallies;
        match (asked.ask, calm) {
            (Ask::Put, true) => tallies.puts_calm.add(asked, told, must),
            (Ask::Put, false) => tallies.puts_storm.add(asked, told, must),
            _ if !asked.is_read() || asked.stored.is_none() => {}
            (_, true) => tallies.reads_calm.add(asked, told, must),
            (_, false) => tallies.reads_storm.add(asked, told, must),
        }
        let answered = asked.failure().is_none();
        if answered && asked.is_read() {
            tallies.pause_ms = tallies.pause_ms.max(asked.pause_ms);
        }
        if !must {
            return None;
        }
        if answered && asked.is_read() {
            tallies.pause_ms_judged = tallies.pause_ms_judged.max(asked.pause_ms);
        }
        let long = asked.pause_ms > PAUSE_MS_MAX;
        let why = asked.failure().or_else(|| long.then(|| format!("a pause of {} ms", asked.pause_ms)))?;
        let Asked { id, ask, begun, ended, .. } = asked;
        let when = if calm { "in a calm".to_owned() } else { format!("out of reach: {}", self.named(asked)) };
        Some(Violation {
            rule: Rule::Unavailable,
            what: format!("{ask:?} of {id} from {begun} to {ended} ms: {why}; {when}"),
        })
    }

    fn is_calm(&self, asked: &Asked) -> bool {
        self.whole.is_some_and(|whole| whole + SETTLES_MS <= asked.begun)
            && self.disturbed.is_none_or(|disturbed| asked.ended < disturbed)
    }

    /// Where something can be told of masters.
    fn must_be_answered(&self, asked: &Asked) -> bool {
        if asked.doomed && asked.ask != Ask::Delete {
            return false;
        }
        if self.is_calm(asked) {
            return true;
        }
        let (Some(whole), Some(stored)) = (self.whole, asked.stored) else { return false };
        if !asked.is_read() || asked.begun < whole + SETTLES_MS {
            return false;
        }
        let spared = if stored <= whole { 2 } else { 1 };
        // A master that was started answers only after it heard of half of those that keep the takedowns' log: so few must
        // have been out of reach for a while.
        let lately = self.out_of_reach(asked.begun.saturating_sub(RECOVERS_MS), asked.ended);
        if lately.iter().flatten().count() <= spared {
            return true;
        }
        let zones: BTreeSet<usize> = self.out_of_reach(whole, asked.ended).into_iter().flatten().map(zone_of).collect();
        zones.len() <= 1
    }

    /// The masters that were, at some time from `begun` to `ended`; with none among them where nothing can be told.
    fn out_of_reach(&self, begun: u64, ended: u64) -> BTreeSet<Option<usize>> {
        let outages = self.outages.iter().filter(|outage| overlap(outage.from, outage.until, begun, ended));
        outages.map(|outage| outage.node).collect()
    }

    fn named(&self, asked: &Asked) -> String {
        let names: Vec<String> = self.out_of_reach(asked.begun, asked.ended).into_iter().flatten().map(name).collect();
        if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
    }
}

/// Whether what began `from` and ended `until` overlaps with what began and ended then.
fn overlap(from: u64, until: Option<u64>, begun: u64, ended: u64) -> bool {
    from <= ended && until.is_none_or(|until| until >= begun)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNAVAILABLE: Answer = Answer::Status(503);

    fn id() -> TrackId {
        TrackId::of(b"a track")
    }

    /// All was whole at 1,000 ms, when a track was there.
    fn whole() -> Availability {
        let mut availability = Availability::default();
        assert_eq!(availability.whole(1_000), []);
        availability
    }

    /// A range that began and ended then, of a track that was stored at `stored`, and came to this.
    fn range(begun: u64, ended: u64, stored: u64, answer: Answer) -> Asked {
        Asked { id: id(), ask: Ask::Range, begun, ended, stored: Some(stored), doomed: false, pause_ms: 0, answer }
    }

    /// Whether a range of a track may fail that began and ended then.
    fn may_fail(availability: &mut Availability, stored: u64, begun: u64, ended: u64) -> bool {
        let judged = availability.tallies().reads_calm.judged + availability.tallies().reads_storm.judged;
        availability.asked(range(begun, ended, stored, Answer::Status(206)));
        assert_eq!(availability.judge(), [], "an answer breaks nothing");
        let counted = availability.tallies().reads_calm.judged + availability.tallies().reads_storm.judged - judged;
        for answer in [UNAVAILABLE, Answer::Broken("reset".into()), Answer::Silent] {
            availability.asked(range(begun, ended, stored, answer));
            let violations = availability.judge();
            assert!(violations.iter().all(|violation| violation.rule == Rule::Unavailable));
            assert_eq!(violations.len() as u64, counted, "what is judged is what may break the rule");
        }
        counted == 0
    }

    #[test]
    fn in_a_calm_everything_is_answered_and_only_then() {
        let mut availability = whole();
        let calm = 1_000 + SETTLES_MS;
        availability.disturbed(60_000);
        for ask in [Ask::Whole, Ask::Range, Ask::Head, Ask::Put, Ask::Delete] {
            let mut broken = |begun, ended, answer: Answer| {
                availability.asked(Asked { ask, stored: None, ..range(begun, ended, 0, answer) });
                availability.judge().len()
            };
            assert_eq!(broken(calm, calm + 50, UNAVAILABLE), 1, "{ask:?}");
            assert_eq!(broken(calm, calm + 50, Answer::Status(507)), 1, "{ask:?}");
            assert_eq!(broken(calm, calm + 50, Answer::Broken(String::new())), 1, "{ask:?}");
            let doomed = Asked { ask, stored: None, doomed: true, ..range(calm, calm + 50, 0, UNAVAILABLE) };
            assert_eq!(broken(calm, calm + 50, Answer::Status(404)), 0, "{ask:?}: another rule's");
            assert_eq!(broken(calm - 1, calm + 50, UNAVAILABLE), 0, "{ask:?}: it has just become whole");
            assert_eq!(broken(calm, 60_000, UNAVAILABLE), 0, "{ask:?}: a fault begins");
            availability.asked(doomed);
            assert_eq!(availability.judge().len(), usize::from(ask == Ask::Delete), "{ask:?}: it is taken down");
        }
        assert_eq!(Availability::default().whole(9).len(), 0);
    }

    #[test]
    fn before_all_was_whole_once_nothing_is_known() {
        let mut availability = Availability::default();
        assert!(may_fail(&mut availability, 0, 5_000, 5_010));
    }

    #[test]
    fn who_lost_some_masters_still_reads_as_long_as_a_copy_is_left() {
        let mut availability = whole();
        availability.falls(10_000, Some(0), "kill");
        assert!(!may_fail(&mut availability, 500, 9_000, 12_000), "one of three");
        availability.falls(20_000, Some(4), "stop");
        assert!(!may_fail(&mut availability, 500, 19_000, 40_000), "two of three");
        assert!(
            may_fail(&mut availability, 15_000, 19_000, 21_000),
            "two of two: it was put when one was missing already"
        );
        assert!(!may_fail(&mut availability, 15_000, 15_001, 19_999));
        availability.falls(50_000, Some(1), "kill");
        assert!(may_fail(&mut availability, 500, 50_000, 50_001), "three of three");
        assert!(!may_fail(&mut availability, 500, 48_000, 49_999));
        availability.rises(52_000, Some(1), "kill");
        availability.rises(52_000, Some(4), "another");
        let recovered = 52_000 + RECOVERS_MS;
        assert!(may_fail(&mut availability, 500, recovered, recovered + 9));
        assert!(may_fail(&mut availability, 500, recovered + RECOVERS_MS, recovered + RECOVERS_MS + 9));
        assert!(!may_fail(&mut availability, 500, recovered + RECOVERS_MS + 1, recovered + RECOVERS_MS + 9));
    }

    #[test]
    fn whatever_is_done_to_one_zone_the_other_serves() {
        let mut availability = whole();
        for node in [0, 1, 2, 6] {
            availability.falls(10_000, Some(node), "cut_zone");
        }
        assert!(
            !may_fail(&mut availability, 12_000, 12_000, 30_000),
            "one copy is in the other zone, also of what was put since"
        );
        availability.falls(40_000, Some(5), "kill");
        availability.rises(41_000, Some(5), "kill");
        assert!(
            may_fail(&mut availability, 500, 60_000, 60_010),
            "who was started may not serve while half the votes are away"
        );
        assert!(!may_fail(&mut availability, 500, 39_000, 39_999));
        assert_eq!(availability.whole(90_000), []);
        availability.falls(100_000, Some(5), "kill");
        assert!(!may_fail(&mut availability, 95_000, 99_000, 110_000), "what was before all was whole is forgotten");
    }

    #[test]
    fn nothing_is_told_of_masters_without_a_gateway_or_while_the_machine_stands_still() {
        let mut availability = whole();
        availability.stood_still(5_000, 7_000);
        assert!(may_fail(&mut availability, 500, 4_000, 5_000));
        assert!(may_fail(&mut availability, 500, 7_000 + RECOVERS_MS, 8_000 + RECOVERS_MS));
        assert!(!may_fail(&mut availability, 500, 7_001 + RECOVERS_MS, 8_000 + RECOVERS_MS), "a calm goes on after it");
        availability.falls(50_000, None, "kill");
        availability.rises(51_000, None, "kill");
        let untold = availability.tallies().reads_storm.untold;
        assert!(may_fail(&mut availability, 500, 50_500, 50_501));
        assert_eq!(availability.tallies().reads_storm.untold, untold + 4);
        assert!(!may_fail(&mut availability, 500, 51_001 + RECOVERS_MS, 70_000));
    }

    #[test]
    fn only_reads_of_what_is_there_are_judged_amid_faults() {
        let mut availability = whole();
        availability.falls(10_000, Some(0), "kill");
        for ask in [Ask::Head, Ask::Put, Ask::Delete] {
            availability.asked(Asked { ask, ..range(20_000, 20_010, 500, UNAVAILABLE) });
        }
        availability.asked(Asked { stored: None, ..range(20_000, 20_010, 500, UNAVAILABLE) });
        assert_eq!(availability.judge(), []);
        let puts = availability.tallies().puts_storm;
        assert_eq!((puts.asked, puts.judged, puts.unavailable, puts.answered()), (1, 0, 1, Some(0.0)));
        assert_eq!(availability.tallies().reads_storm, Tally::default());
    }

    #[test]
    fn a_read_may_pause_and_not_stand_still() {
        let mut availability = whole();
        availability.falls(10_000, Some(0), "kill");
        for (pause_ms, broken) in [(PAUSE_MS_MAX, 0), (PAUSE_MS_MAX + 1, 1)] {
            availability.asked(Asked { pause_ms, ..range(20_000, 50_000, 500, Answer::Status(206)) });
            assert_eq!(availability.judge().len(), broken);
        }
        assert_eq!(availability.tallies().pause_ms_judged, PAUSE_MS_MAX + 1);
    }
}
