//! The rounds by which a node's log follows the witnesses'.

mod spread;

use std::collections::{BTreeMap, VecDeque};

use deadwax_track::TrackId;

use super::{
    Answer, Ask, BadRules, Basis, Gate, Heads, IssueError, Lease, LeaseRules, Merged, RECORDS_MAX, Standing, Takedown,
    TakedownLog, WITNESSES_MAX,
};
use crate::random::Random;
use crate::{NodeId, NodeKey};

use self::spread::Spreads;
pub use self::spread::{Quorum, SPREADS_MAX, Spread};

/// The most questions by others whose records are being read; one more is dropped, and asked again.
pub const READS_MAX: usize = 64;
/// The most appends that are not yet flushed; answers that bring more are dropped, and asked for again.
pub const APPENDS_MAX: usize = 16;
/// The number under which a node of another log is answered: no question has it.
const PARTED_NUMBER: u64 = 0;
/// The most open questions; where there are more, no further ones are sent but to witnesses in their turn.
pub const QUESTIONS_MAX: usize = 256;
/// How long an answer may take before another witness is asked, in ms.
const ANSWER_MS: u64 = 2_000;
/// How soon the next witness is asked while this node does not serve, or soon will not, or has yet to hear of all, in ms,
/// in the first rounds.
const HURRY_MS: u64 = 250;
/// So many.
const HURRIED_ROUNDS: usize = 2;

/// What the driver carries out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FollowEffect {
    /// Send a witness this question. It may get lost.
    Ask {
        /// To whom.
        to: NodeId,
        /// Its number, which the answer must bring back.
        number: u64,
        /// The question.
        ask: Ask,
    },
    /// Read the records at these slots, and call [`Follow::handle_read`] with them, in this order.
    Read {
        /// Of the reading.
        read: u64,
        /// At most [`RECORDS_MAX`].
        slots: Vec<u32>,
    },
    /// Send this answer. It may get lost.
    Answer {
        /// To whom.
        to: NodeId,
        /// The question's number.
        number: u64,
        /// The answer.
        answer: Answer,
    },
    /// Append these to the file, flush it, and call [`Follow::handle_appended`].
    Append {
        /// Of the append; they are carried out in this order.
        append: u64,
        /// The first goes to this slot.
        slot: u32,
        /// At least one.
        records: Vec<Takedown>,
    },
    /// These tracks are barred from now on: erase their copies.
    Erase {
        /// At least one.
        tracks: Vec<TrackId>,
    },
    /// An operator must look: an issuer signed two records of one number.
    Forked {
        /// Which.
        issuers: Vec<[u8; 32]>,
    },
    /// An operator must look: records came of an issuer that is none here, and were dropped.
    Stranger {
        /// Which.
        issuer: [u8; 32],
    },
    /// This node may serve from now on, or no longer: for status; the [`Gate`] is asked all the same.
    Serves(bool),
    /// How far a takedown has come whose spread was awaited ([`Follow::await_spread`]): the last word on it.
    Spread {
        /// The number that was given with it.
        number: u64,
        /// How far.
        spread: Spread,
    },
}

#[derive(Clone, Copy, Debug)]
struct Question {
    to: NodeId,
    asked: u64,
}

/// Another's question, whose records are being read.
#[derive(Debug)]
struct Reading {
    from: NodeId,
    number: u64,
    synced: bool,
    basis: Option<Basis>,
    heads: Heads,
}

/// A question that was answered by `peer`, and what the answer said of it.
#[derive(Clone, Copy, Debug)]
struct Comparison {
    peer: NodeId,
    synced: bool,
    basis: Option<Basis>,
    asked: u64,
}

/// Records that the driver is writing.
#[derive(Debug)]
struct Appending {
    append: u64,
    /// What is on the drive when they are.
    heads: Heads,
    slots: u32,
    /// These count from then on.
    compared: Vec<Comparison>,
    /// Issued here: all witnesses are to hear of it at once.
    issued: bool,
}

/// Owns a node's log and lease, and moves both: asks the witnesses in turn, takes their answers, and answers others.
///
/// **How to drive it.** [`set_witnesses`](Self::set_witnesses) first, of the last map that the node had. Then tell what
/// comes, and call [`poll`](Self::poll) after each and when [`next_deadline`](Self::next_deadline) has come, and carry
/// out what it gives, in order. `now` is ms of the [`Lease`]'s clock. Equal inputs and seeds give equal effects.
///
/// **Pace.** So many witnesses as make half are asked within two thirds of the lease, one after the other: one every 5
/// s where there are 16. A node that is no witness, and has heard of one what half of them had (its [`Basis`]), asks the
/// next after a third of the lease, 20 s; the 16 witnesses ask one every second, so that what they say is young. Where
/// one does not answer in 2 s the next is asked; where this node does not serve, one every quarter of a second, and after
/// two rounds one every 2 s. A member that has just started, or whose fellow members are others, asks on in the same way
/// until each has answered that it has caught up, for a lease at most: what it heard of just enough for does not do when
/// there is one more, and who started with it and was asked too early counts for nothing.
///
/// **Spreading.** Whoever is asked, and sees that the asker has what it lacks, asks back. A takedown that is issued
/// here is told to all witnesses at once, by questions.
///
/// **What is said is flushed.** While records are being appended, answers speak of what was on the drive before.
///
/// **Failures.** A question or answer that gets lost is asked again; one that is late or doubled is dropped. A read
/// that fails: tell `None`, nothing is sent. An append that fails: the driver must stop, as its log's end is not known.
///
/// **Bounds.** [`READS_MAX`], [`APPENDS_MAX`], [`QUESTIONS_MAX`], one question for each witness, and [`SPREADS_MAX`].
#[derive(Debug)]
pub struct Follow {
    me: NodeId,
    log: TakedownLog,
    lease: Lease,
    rules: LeaseRules,
    random: Random,
    now: u64,
    /// Without this node, in the order in which it asks them.
    witnesses: Vec<NodeId>,
    next: usize,
    /// How many were asked since this node last served.
    hurried: usize,
    /// Since when a member asks until it has heard of all, and how many it has asked: what it heard of just enough for is
    /// not enough when another becomes a member.
    asks_all_since: u64,
    asked_all: usize,
    due: u64,
    number: u64,
    questions: BTreeMap<u64, Question>,
    readings: BTreeMap<u64, Reading>,
    appending: VecDeque<Appending>,
    /// What is on the drive.
    heads: Heads,
    slots: u32,
    serves: bool,
    /// What is waited for to be acknowledged.
    spreads: Spreads,
    effects: Vec<FollowEffect>,
}

impl Follow {
    /// Follows with `log`, which was [rebuilt](TakedownLog::rebuild) from the drive; the others as in [`Lease::new`].
    /// `seed`: another for each node and start.
    pub fn new(
        me: NodeId,
        rules: LeaseRules,
        log: TakedownLog,
        kept: Standing,
        seed: u64,
        now: u64,
    ) -> Result<Self, BadRules> {
        Ok(Self {
            me,
            lease: Lease::new(me, rules, kept, now)?,
            rules,
            random: Random(seed),
            now,
            witnesses: Vec::new(),
            next: 0,
            hurried: 0,
            asks_all_since: now,
            asked_all: 0,
            due: now,
            number: 0,
            questions: BTreeMap::new(),
            readings: BTreeMap::new(),
            appending: VecDeque::new(),
            heads: log.heads(),
            slots: log.slots(),
            serves: false,
            spreads: Spreads::default(),
            effects: Vec::new(),
            log,
        })
    }

    /// The log, for whether a track is barred and for status.
    #[must_use]
    pub const fn log(&self) -> &TakedownLog {
        &self.log
    }

    /// The lease, for status.
    #[must_use]
    pub const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// What is asked before a track goes in or out.
    #[must_use]
    pub const fn gate(&self) -> Gate<'_> {
        Gate { log: &self.log, lease: &self.lease }
    }

    /// Trusts this issuer's key from now on ([`TakedownLog::allow`]).
    pub fn allow(&mut self, key: [u8; 32]) -> Result<(), super::BadIssuer> {
        self.log.allow(key)
    }

    /// The [`witnesses`](super::witnesses) of the map of this epoch, at the start and whenever the map changes.
    pub fn set_witnesses(&mut self, now: u64, me: &NodeId, witnesses: &[NodeId], epoch: u64) {
        self.pass(now);
        let are_others = self.lease.set_members(witnesses, epoch, now);
        let (kept, mut new): (Vec<NodeId>, Vec<NodeId>) =
            witnesses.iter().filter(|node| *node != me).partition(|node| self.witnesses.contains(node));
        self.witnesses.retain(|node| kept.contains(node));
        // Each node has an order of its own, or all would ask one witness at once.
        while !new.is_empty() {
            let node = new.swap_remove(self.random.below(new.len()));
            let at = self.random.below(self.witnesses.len() + 1);
            self.witnesses.insert(at, node);
        }
        let witnesses = &self.witnesses;
        self.questions.retain(|_, question| witnesses.contains(&question.to));
        if are_others {
            (self.asks_all_since, self.asked_all) = (now, 0);
        }
        if !self.serves {
            self.due = now;
        } else if are_others {
            // What it was told counts for a moment only. A new witness has many to ask; all others have one, and not all of
            // them at once.
            let soon_ms = if self.lease.is_member() { 0 } else { self.jittered(self.rules.lease_ms / 12) };
            self.due = self.due.min(now + soon_ms);
        }
    }

    /// Maps were skipped: see [`Lease::forget_members`]. To be followed by [`set_witnesses`](Self::set_witnesses).
    pub fn forget_witnesses(&mut self, now: u64) {
        self.pass(now);
        self.questions.clear();
        for appending in &mut self.appending {
            appending.compared.clear();
        }
        self.lease.forget_members(now);
        (self.due, self.hurried) = (now, 0);
    }

    /// The node woke, or its clock jumped: see [`Lease::void`].
    pub fn handle_woke(&mut self, now: u64) {
        self.now = now;
        self.void();
    }

    fn void(&mut self) {
        self.questions.clear();
        for appending in &mut self.appending {
            appending.compared.clear();
        }
        self.lease.void(self.now);
        (self.due, self.hurried) = (self.now, 0);
        (self.asks_all_since, self.asked_all) = (self.now, 0);
    }

    fn pass(&mut self, now: u64) {
        let went_back = now < self.now;
        self.now = now;
        if went_back {
            self.void();
        }
    }

    /// Takes a track down, see [`TakedownLog::issue`]; the record is told to others once it is flushed.
    pub fn issue(
        &mut self,
        now: u64,
        key: &NodeKey,
        track: TrackId,
        time: u64,
        reason: &str,
    ) -> Result<Takedown, IssueError> {
        self.pass(now);
        if self.appending.len() >= APPENDS_MAX {
            return Err(IssueError::Busy);
        }
        let record = self.log.issue(key, track, time, reason)?;
        let append = vec![record.clone()];
        self.append(Merged { append, barred: vec![track], ..Merged::default() }, Vec::new());
        self.appending.back_mut().expect("just put there").issued = true;
        Ok(record)
    }

    /// Handles the question numbered `number` of `from`, be it a witness or not.
    pub fn handle_ask(&mut self, now: u64, from: NodeId, number: u64, ask: &Ask) {
        self.take_ask(now, from, number, ask);
    }

    /// Handles the question of a node that has another log of the map, and may not know that this one has. The answer is
    /// of no question's number: such a node drops it, and does not count it for its lease.
    pub fn handle_parted_ask(&mut self, now: u64, from: NodeId, ask: &Ask) {
        self.take_ask(now, from, PARTED_NUMBER, ask);
    }

    fn take_ask(&mut self, now: u64, from: NodeId, number: u64, ask: &Ask) {
        self.pass(now);
        // It has what is missing here, such as a takedown that it issued: nobody else may ask it, if it is no witness. Not while
        // it is being asked: of two that each lack something, each would ask for each question, and heed no answer.
        let asked = |question: &Question| question.to == from && now < question.asked.saturating_add(ANSWER_MS);
        if !self.log.covers(&ask.known) && self.questions.len() < QUESTIONS_MAX && !self.questions.values().any(asked) {
            self.ask(from);
        }
        let slots = self.flushed_since(&ask.known, RECORDS_MAX);
        let (synced, basis) = (self.lease.synced(), self.lease.basis(now));
        let reading = Reading { from, number, synced, basis, heads: self.heads.clone() };
        if slots.is_empty() {
            self.answer(reading, Vec::new());
        } else if self.readings.len() < READS_MAX {
            self.number += 1;
            self.readings.insert(self.number, reading);
            self.effects.push(FollowEffect::Read { read: self.number, slots });
        }
    }

    /// What is flushed: [`TakedownLog::heads`] of it.
    #[must_use]
    pub const fn flushed(&self) -> &Heads {
        &self.heads
    }

    /// The slots of at most `limit` flushed records that whoever has what `known` says lacks.
    #[must_use]
    pub fn flushed_since(&self, known: &Heads, limit: usize) -> Vec<u32> {
        let mut slots = self.log.since(known, limit);
        // Each comes after its predecessor, whose slot is lower unless it was held: cut where the first is not flushed.
        let flushed = slots.iter().position(|slot| *slot >= self.slots).unwrap_or(slots.len());
        slots.truncate(flushed);
        slots
    }

    fn answer(&mut self, reading: Reading, records: Vec<Takedown>) {
        let Reading { from: to, number, synced, basis, heads } = reading;
        self.effects.push(FollowEffect::Answer { to, number, answer: Answer { synced, basis, heads, records } });
    }

    /// The records of a reading; none: they could not be read.
    pub fn handle_read(&mut self, now: u64, read: u64, records: Option<Vec<Takedown>>) {
        self.pass(now);
        if let Some(reading) = self.readings.remove(&read)
            && let Some(records) = records
        {
            self.answer(reading, records);
        }
    }

    /// Handles what `from` answered to the question numbered `number`.
    pub fn handle_answer(&mut self, now: u64, from: NodeId, number: u64, answer: &Answer) {
        self.take_answer(now, from, number, answer, true);
    }

    /// Handles the answer of a node that has another log of the map, whatever its number, where that node was asked: its
    /// records are taken, and it counts for nothing, since its members and their leases are not those of this one.
    pub fn handle_parted_answer(&mut self, now: u64, from: NodeId, answer: &Answer) {
        let asked = self.questions.iter().find(|(_, question)| question.to == from);
        if let Some(number) = asked.map(|(number, _)| *number) {
            self.take_answer(now, from, number, answer, false);
        }
    }

    fn take_answer(&mut self, now: u64, from: NodeId, number: u64, answer: &Answer, counts: bool) {
        self.pass(now);
        if self.appending.len() >= APPENDS_MAX || self.questions.get(&number).is_none_or(|asked| asked.to != from) {
            return;
        }
        let question = self.questions.remove(&number).expect("found above");
        let merged = self.log.merge(&answer.records);
        if counts {
            self.hear_spread(from, &answer.heads);
        }
        let covers = self.log.covers(&answer.heads);
        let has_news = !merged.append.is_empty();
        let Answer { synced, basis, .. } = *answer;
        let compared = (covers && counts).then_some(Comparison { peer: from, synced, basis, asked: question.asked });
        self.append(merged, compared.into_iter().collect());
        if !covers && has_news {
            self.ask(from);
        } else if covers && counts && self.is_fresh() && !self.is_asking_all() {
            self.hurried = 0;
            let pause_ms = if self.is_rested() { self.rules.lease_ms / 3 } else { self.steady_ms() };
            self.due = self.due.max(question.asked + self.jittered(pause_ms));
        }
    }

    /// Asks a node that has another log of the map, and so has no part in the rounds, what was taken down there.
    pub fn ask_parted(&mut self, now: u64, node: NodeId) {
        self.pass(now);
        if self.questions.len() < QUESTIONS_MAX {
            self.ask(node);
        }
    }

    /// Has records written, if there are any, and counts comparisons when those and all before are.
    fn append(&mut self, merged: Merged, compared: Vec<Comparison>) {
        if !merged.forked.is_empty() {
            self.effects.push(FollowEffect::Forked { issuers: merged.forked });
        }
        if let Some(issuer) = merged.stranger {
            self.effects.push(FollowEffect::Stranger { issuer });
        }
        if !merged.barred.is_empty() {
            self.effects.push(FollowEffect::Erase { tracks: merged.barred });
        }
        if merged.append.is_empty() {
            match self.appending.back_mut() {
                Some(last) if last.compared.len() < 2 * WITNESSES_MAX => last.compared.extend(compared),
                Some(_) => {}
                None => self.count(&compared),
            }
            return;
        }
        self.number += 1;
        let (heads, slots) = (self.log.heads(), self.log.slots());
        self.appending.push_back(Appending { append: self.number, heads, slots, compared, issued: false });
        let slot = slots - u32::try_from(merged.append.len()).expect("at most RECORDS_MAX");
        self.effects.push(FollowEffect::Append { append: self.number, slot, records: merged.append });
    }

    fn count(&mut self, compared: &[Comparison]) {
        for Comparison { peer, synced, basis, asked } in compared {
            if let Some(basis) = basis {
                self.lease.told(peer, basis, *asked, self.now);
            }
            self.lease.compared(peer, *synced, *asked, self.now);
        }
    }

    /// The records of this append, and all before it, are flushed.
    pub fn handle_appended(&mut self, now: u64, append: u64) {
        self.pass(now);
        while let Some(done) = self.appending.pop_front_if(|next| next.append <= append) {
            (self.heads, self.slots) = (done.heads, done.slots);
            self.count(&done.compared);
            self.wake_spreads();
            if done.issued {
                // Each asks back for what it finds there that it lacks.
                (0..self.witnesses.len()).for_each(|index| self.ask(self.witnesses[index]));
            }
        }
    }

    /// Does what is due, and gives what is to be carried out.
    #[must_use]
    pub fn poll(&mut self, now: u64) -> Vec<FollowEffect> {
        self.pass(now);
        let serves = self.lease.may_serve(now).is_ok();
        if serves != self.serves {
            (self.serves, self.hurried) = (serves, 0);
            self.due = if serves { self.due } else { now };
            self.effects.push(FollowEffect::Serves(serves));
        }
        if now >= self.due && !self.witnesses.is_empty() {
            let to = self.turn();
            self.ask(to);
            self.due = now + self.pause_ms();
        }
        self.poll_spreads();
        std::mem::take(&mut self.effects)
    }

    fn ask(&mut self, to: NodeId) {
        // One question for each node: an answer that comes still is worth no more than the next. Nor is one that comes when
        // what was compared counts no more.
        let (now, lease_ms) = (self.now, self.rules.lease_ms);
        self.questions.retain(|_, each| each.to != to && now < each.asked.saturating_add(lease_ms));
        self.number += 1;
        self.questions.insert(self.number, Question { to, asked: self.now });
        self.effects.push(FollowEffect::Ask { to, number: self.number, ask: Ask { known: self.log.locator() } });
    }

    /// Whether a quarter of the lease is left, so that there is no hurry.
    const fn is_fresh(&self) -> bool {
        self.lease.until() >= self.now.saturating_add(self.rules.lease_ms / 4)
    }

    /// Whether it has yet to hear of some whom it may need soon.
    fn is_asking_all(&self) -> bool {
        let ends = self.asks_all_since.saturating_add(self.rules.lease_ms);
        self.lease.is_member() && self.now < ends && self.unheard().next().is_some()
    }

    /// Who has not said, asked since a member asks all, that it has caught up.
    fn unheard(&self) -> impl Iterator<Item = NodeId> {
        self.witnesses.iter().copied().filter(|node| !self.lease.has_heard(node, self.asks_all_since))
    }

    /// Whom to ask next. After the hurried rounds every other question is to one that it has yet to hear of, which the
    /// others would else be asked between, and every other in turn, so that what they said does not grow old.
    fn turn(&mut self) -> NodeId {
        let again = self.asked_all.saturating_sub(HURRIED_ROUNDS * self.witnesses.len());
        if again % 2 == 1 && self.is_asking_all() && self.steady_ms() > ANSWER_MS {
            let unheard: Vec<NodeId> = self.unheard().collect();
            return unheard[again / 2 % unheard.len()];
        }
        self.next %= self.witnesses.len();
        let to = self.witnesses[self.next];
        self.next += 1;
        to
    }

    /// Whether one question may do for long: a member's pace is what others go by.
    const fn is_rested(&self) -> bool {
        !self.lease.is_member() && self.lease.until() >= self.now.saturating_add(self.rules.lease_ms / 3 * 2)
    }

    /// How long after a question that was answered the next is asked, in ms.
    fn steady_ms(&self) -> u64 {
        if self.lease.is_member() && self.witnesses.len() + 1 >= WITNESSES_MAX {
            return (self.rules.lease_ms / 60).max(1);
        }
        let half = u64::try_from(self.witnesses.len().div_ceil(2)).expect("few").max(4);
        (self.rules.lease_ms * 2 / 3 / half).max(1)
    }

    /// How long after a question the next is asked if no answer comes, in ms.
    fn pause_ms(&mut self) -> u64 {
        let steady_ms = self.steady_ms();
        let rounds = HURRIED_ROUNDS * self.witnesses.len();
        let (asks_all, is_stale) = (self.is_asking_all(), !self.is_fresh());
        self.asked_all += usize::from(asks_all);
        self.hurried += usize::from(is_stale);
        let hurries = (asks_all && self.asked_all <= rounds) || (is_stale && self.hurried <= rounds);
        let pause_ms = if hurries { HURRY_MS } else { ANSWER_MS };
        self.jittered(pause_ms.min(steady_ms))
    }

    fn jittered(&mut self, pause_ms: u64) -> u64 {
        pause_ms - self.random.draw() % (pause_ms / 4 + 1)
    }

    /// When to poll next, in ms; none: there is nobody to be asked.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let lapse = self.serves.then(|| self.lease.until()).filter(|until| *until < u64::MAX);
        let due = (!self.witnesses.is_empty()).then_some(self.due);
        due.into_iter().chain(lapse).chain(self.spreads.due()).min()
    }
}
