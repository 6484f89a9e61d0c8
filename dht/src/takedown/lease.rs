//! Whether this node knows enough takedowns to serve.

use std::collections::BTreeMap;

use super::MEMBERS_MAX;
use crate::NodeId;

/// What was told of the members of an earlier map counts for this part of the lease longer.
const LEFT_TO_ASK: u64 = 6;

/// How long comparisons with other nodes count. All in milliseconds; the bounds that follow are in the module's doc.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseRules {
    /// With at least half of the members, rounded up. Default 60 s. Shorter costs messages; longer lengthens service
    /// after a takedown that a majority has.
    pub lease_ms: u64,
    /// With a majority. Default 1 h: how long one of two equal sites serves on after the other is gone, and how long a
    /// site that is cut off may serve what the other took down.
    pub grace_ms: u64,
    /// With a majority, where half is no longer to be had: how long the small side of a cut serves on. Default 60 s, as
    /// the lease, so that it stops. Hazard: where it is longer, it takes the lease's place in the bound.
    pub minority_ms: u64,
}

impl Default for LeaseRules {
    fn default() -> Self {
        Self { lease_ms: 60_000, grace_ms: 3_600_000, minority_ms: 60_000 }
    }
}

/// The rules contradict each other: each is at least the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a lease of {} ms, for a minority {} ms, and a grace of {} ms: each must be at least the one before, and over 0", .0.lease_ms, .0.minority_ms, .0.grace_ms)]
pub struct BadRules(pub LeaseRules);

/// The node may be behind: it does not serve. The client asks another node; this one compares until it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("takedowns may be missing here since {since} ms")]
pub struct Stale {
    /// Since when, by this node's clock; 0 where it has not been fresh since it started or woke.
    pub since: u64,
}

/// What a member says of its own comparisons, so that who asks it need not ask half of the members: what half of them,
/// and a majority, had so long ago, it has. Ages in ms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Basis {
    /// Of the map by which it knows the members.
    pub epoch: u64,
    /// How long ago it asked the one of half of the members that it had asked first.
    pub half_age: u32,
    /// The same of a majority.
    pub majority_age: u32,
}

/// What is kept of a lease for the next start. By default that of a node that joins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Whether the log has all that was ever flushed to it. The nodes that found a cluster are intact; one that joins, or
    /// whose drive lost some, is not, until it has caught up.
    pub intact: bool,
    /// Whether others may count it if it is a member: not one that became a member and has not caught up since.
    pub counts: bool,
}

impl Default for Standing {
    fn default() -> Self {
        Self { intact: false, counts: true }
    }
}

impl Standing {
    /// Of a node that founds a cluster, or has kept all.
    pub const WHOLE: Self = Self { intact: true, counts: true };
}

/// The right to serve, which lapses by itself. Memory is some 60 bytes a member.
///
/// `now` is this node's clock in milliseconds since any start; it does not go back, and counts the time asleep.
#[derive(Clone, Debug)]
pub struct Lease {
    me: NodeId,
    rules: LeaseRules,
    /// The map's nodes that are not declared dead, with the time of the newest question that counted; this node is not
    /// in it.
    others: BTreeMap<NodeId, Compared>,
    /// Whether this node is a member itself. A cache or a tracker is not: it needs as many members, and none is itself.
    member: bool,
    intact: bool,
    synced: bool,
    /// Since when it is a member, where it became one after it had known the members; and whether it has since caught
    /// up with a majority of them, so that it counts as one.
    joined: u64,
    vouches: bool,
    /// Which members there were meanwhile is not known.
    skipped: bool,
    /// The map's epoch; and since which epoch the members are these, as far as is known.
    epoch: u64,
    since: u64,
    /// What half of the members, and a majority, had at these times, this node has: by own comparisons; and by the word
    /// of one of them.
    own: Known,
    told: Known,
    /// By the word of a member of an earlier map; that is worth something until this time.
    told_earlier: Known,
    earlier_until: u64,
    /// The latest time that was told.
    clock: u64,
    /// Questions from before this time, that of the start or the last [`void`](Lease::void), count no more.
    floor: u64,
    /// It may serve before this time.
    until: u64,
    /// Before this time a majority was heard of within the lease.
    sure_until: u64,
}

/// What this node has: all that half of the members, and all that a majority, had at these times, which may be before the
/// clock began. None: nothing is known. [`ALWAYS`]: it is one of so few that it needs nobody.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Known {
    half: Option<i64>,
    majority: Option<i64>,
}

const ALWAYS: i64 = i64::MAX;

/// When the newest comparisons were asked for: with the node in any state, and in the state of being synced.
#[derive(Clone, Copy, Default, Debug)]
struct Compared {
    any: Option<u64>,
    synced: Option<u64>,
    /// Whether it became a member while this node knew the members. Of one that may have, as members are not known, it is
    /// false: it must say itself that it counts.
    joined: bool,
}

impl Lease {
    /// The lease of a node that has just started: stale. `kept`: its [`standing`](Self::standing) when it stopped.
    pub fn new(me: NodeId, rules: LeaseRules, kept: Standing, now: u64) -> Result<Self, BadRules> {
        let LeaseRules { lease_ms, grace_ms, minority_ms } = rules;
        if lease_ms == 0 || minority_ms < lease_ms || grace_ms < minority_ms {
            return Err(BadRules(rules));
        }
        Ok(Self {
            me,
            rules,
            others: BTreeMap::new(),
            member: false,
            intact: kept.intact,
            synced: false,
            joined: now,
            vouches: kept.counts,
            skipped: false,
            epoch: 0,
            since: 0,
            own: Known::default(),
            told: Known::default(),
            told_earlier: Known::default(),
            earlier_until: 0,
            clock: now,
            floor: now,
            until: 0,
            sure_until: 0,
        })
    }

    /// The map's [`witnesses`](super::witnesses), this node among them if it is one; at most [`MEMBERS_MAX`], more are
    /// a broken map. To be told at the start, of the last map that the node had, and whenever the map changes: a node
    /// that becomes a witness counts for nobody, itself included, until it has caught up with a majority of the others.
    /// One that was away must be told each map that made it a witness or none, in order; or, where it cannot be,
    /// [`forget_members`](Self::forget_members) and then the newest. `epoch` is the map's. Whether the members are others
    /// than before.
    ///
    /// # Panics
    ///
    /// When there are more than [`MEMBERS_MAX`].
    pub fn set_members(&mut self, members: &[NodeId], epoch: u64, now: u64) -> bool {
        assert!(members.len() <= MEMBERS_MAX, "{} members, the most is {MEMBERS_MAX}", members.len());
        let was_member = std::mem::replace(&mut self.member, members.contains(&self.me));
        let known = std::mem::take(&mut self.others);
        let skipped = std::mem::take(&mut self.skipped);
        let is_first = known.is_empty() && !was_member && !skipped;
        let others = || members.iter().filter(|id| **id != self.me);
        let is_same =
            self.member == was_member && known.len() == others().count() && others().all(|id| known.contains_key(id));
        if !is_same {
            // What was told of the earlier members is worth something for as long as it takes to ask the new ones: who
            // lost all at once would not serve meanwhile.
            let told = std::mem::take(&mut self.told);
            if told != Known::default() {
                self.told_earlier = told;
                self.earlier_until = now.saturating_add(self.rules.lease_ms / LEFT_TO_ASK);
            }
            self.since = epoch;
        }
        self.epoch = epoch;
        if self.member && !was_member && !is_first {
            (self.joined, self.vouches) = (now, false);
        }
        let new = Compared { joined: !is_first && !skipped, ..Compared::default() };
        self.others = others().map(|id| (*id, known.get(id).copied().unwrap_or(new))).collect();
        self.settle(now);
        !is_same
    }

    /// Maps were skipped: whether this node was a witness all the time, and who else was, is not known. If it is one by
    /// the map that it is told next, it begins as one anew; and all that it has compared counts no more.
    pub fn forget_members(&mut self, now: u64) {
        self.others.clear();
        self.forget_words();
        (self.member, self.skipped) = (false, true);
        (self.until, self.sure_until, self.clock) = (0, 0, now.max(self.clock));
    }

    /// This node has all that `peer` said it had in its answer to a question sent at `asked`, merged and flushed.
    /// `synced` is what the answer said of the peer. One that is no member, or a question from before the last
    /// [`void`](Self::void), changes nothing: and where the clock went back the driver must forget its questions, whose
    /// times mean nothing now.
    pub fn compared(&mut self, peer: &NodeId, synced: bool, asked: u64, now: u64) {
        if now < self.clock {
            self.void(now);
            return;
        }
        if let Some(compared) = self.others.get_mut(peer).filter(|_| (self.floor..=now).contains(&asked)) {
            compared.any = compared.any.max(Some(asked));
            if synced {
                compared.synced = compared.synced.max(Some(asked));
            }
        }
        self.settle(now);
    }

    fn forget_words(&mut self) {
        (self.told, self.told_earlier) = (Known::default(), Known::default());
    }

    /// This node has all that `peer` said it had in its answer to a question sent at `asked`, merged and flushed; and
    /// this is what the answer said of the peer's own comparisons. It is heeded where the peer is a member, and this node
    /// is none, as members must not go by each other's word alone; and where the peer knows these members or later ones.
    /// To be followed by [`compared`](Self::compared).
    pub fn told(&mut self, peer: &NodeId, basis: &Basis, asked: u64, now: u64) {
        let is_known = basis.epoch >= self.since && self.others.contains_key(peer);
        let is_timely = (self.floor..=now).contains(&asked) && now >= self.clock;
        if self.member || !is_known || !is_timely {
            return;
        }
        let at = |age: u32| Some(signed(asked) - i64::from(age));
        self.told = self.told.max(Known { half: at(basis.half_age), majority: at(basis.majority_age) });
    }

    /// What goes into this node's answers at `now`; none, if it counts for nobody.
    #[must_use]
    pub fn basis(&self, now: u64) -> Option<Basis> {
        let age = |at: Option<i64>| u32::try_from(signed(now) - at?.min(signed(now))).ok();
        let basis = Basis { epoch: self.epoch, half_age: age(self.own.half)?, majority_age: age(self.own.majority)? };
        self.synced().then_some(basis)
    }

    /// Forgets all comparisons: the node woke, or its clock jumped. To be called when the wall clock and `now` part by
    /// more than a second; a clock that goes back or a `now` far ahead needs no call.
    pub fn void(&mut self, now: u64) {
        for compared in self.others.values_mut() {
            (compared.any, compared.synced) = (None, None);
        }
        self.forget_words();
        (self.synced, self.until, self.sure_until, self.clock, self.floor) = (false, 0, 0, now, now);
        self.settle(now);
    }

    /// Whether this node may serve. Call it on every request, and on every window of a long one.
    pub const fn may_serve(&self, now: u64) -> Result<(), Stale> {
        // A time before the last one told is a clock that went back: nothing can be said.
        if now >= self.clock && now < self.until { Ok(()) } else { Err(Stale { since: self.until }) }
    }

    /// Whether this node is one of the members.
    pub(super) const fn is_member(&self) -> bool {
        self.member
    }

    /// Whether this node has compared with a majority within the lease: so it is not on the small side of a cut, where
    /// a track that the large side stored would seem absent.
    #[must_use]
    pub const fn is_sure(&self, now: u64) -> bool {
        now >= self.clock && now < self.sure_until
    }

    /// Whether this node is a member and has caught up since it started, woke, or became one, so that others may count
    /// it. It goes into every answer.
    #[must_use]
    pub const fn synced(&self) -> bool {
        self.synced && self.member && self.vouches
    }

    /// What the driver keeps for the next start, on the drive before the map that it follows from is.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        Standing { intact: self.intact, counts: self.vouches }
    }

    /// Whether this member said that it has caught up, in an answer to a question of this time or later.
    pub(super) fn has_heard(&self, member: &NodeId, since: u64) -> bool {
        let compared = self.others.get(member);
        compared.and_then(|compared| compared.synced).is_some_and(|asked| asked >= since)
    }

    /// It may serve before this time, unless something is compared in between; 0 where it may not.
    pub(super) const fn until(&self) -> u64 {
        self.until
    }

    /// How many members there are, and with how many of the others it has compared within the lease.
    #[must_use]
    pub fn progress(&self, now: u64) -> (usize, usize) {
        let recent = |asked: u64| now.saturating_sub(asked) < self.rules.lease_ms;
        let counted = self.others.values().filter(|compared| compared.synced.is_some_and(recent)).count();
        (self.others.len() + usize::from(self.member), counted)
    }

    /// Works out when the lease lapses: when fewer than half, or fewer than a majority, are recent enough.
    fn settle(&mut self, now: u64) {
        self.clock = now.max(self.clock);
        let members = self.others.len() + usize::from(self.member);
        let (half, majority) = (members.div_ceil(2), members / 2 + 1);
        if !self.vouches && members > 0 {
            // What a majority, or half, of the earlier members has is with at least one of these. Where most were
            // replaced at once nothing more can be had than all that are left.
            let earlier = self.others.values().filter(|compared| !compared.joined || compared.synced.is_some());
            let needed = majority.min(earlier.count());
            let joined = self.joined;
            let since = |asked: Option<u64>| asked.is_some_and(|asked| asked >= joined);
            let counting = self.others.values().filter(|compared| since(compared.synced)).count();
            // With all there is nothing more to be had, whoever counts: or members who all skipped maps would wait for each
            // other for ever.
            self.vouches = counting >= needed || self.others.values().all(|compared| since(compared.any));
        }
        let me = usize::from(self.member && self.vouches);
        if !self.synced {
            // A log that lost something may be one of those that made a majority: it needs half beside itself, of nodes
            // that did not. One that is intact counts itself, and any node, or a cluster that restarts would wait for
            // ever.
            let (needed, intact) =
                if self.intact { (half.saturating_sub(me), true) } else { (half.min(self.others.len()), false) };
            let counts = |compared: &&Compared| if intact { compared.any } else { compared.synced }.is_some();
            self.synced = self.told.half.is_some() || self.others.values().filter(counts).count() >= needed;
            // It has what it lost, flushed: from here on it can restart as any other.
            self.intact |= self.synced;
        }
        let mut asked: Vec<u64> = self.others.values().filter_map(|compared| compared.synced).collect();
        // When the first of so many members was asked; this one has compared with itself just now, and goes on doing so.
        let mut first_of = |needed: usize| match needed - me {
            0 => Some(ALWAYS),
            others if others > asked.len() => None,
            others => Some(signed(*asked.select_nth_unstable_by(others - 1, |a, b| b.cmp(a)).1)),
        };
        self.own = Known { half: first_of(half), majority: first_of(majority) };
        let now_known = self.own.max(self.told);
        let (until, sure) = self.lapse(now_known);
        // What was told of other members than those of now lapses before.
        let (earlier, earlier_sure) = self.lapse(now_known.max(self.told_earlier));
        let with_earlier = |known: u64, earlier: u64| known.max(earlier.min(self.earlier_until));
        // Without members the map is not known yet.
        let knows = members > 0 && self.synced;
        (self.until, self.sure_until) =
            if knows { (with_earlier(until, earlier), with_earlier(sure, earlier_sure)) } else { (0, 0) };
    }

    /// Before when a node that has this may serve, and before when it is sure.
    fn lapse(&self, known: Known) -> (u64, u64) {
        let LeaseRules { lease_ms, grace_ms, minority_ms } = self.rules;
        let until = |at: Option<i64>, age: u64| match at {
            Some(ALWAYS) => u64::MAX,
            at => at.map_or(0, |at| u64::try_from(at.saturating_add_unsigned(age)).unwrap_or(0)),
        };
        let near = until(known.half, lease_ms).max(until(known.majority, minority_ms));
        (near.min(until(known.majority, grace_ms)), until(known.majority, lease_ms))
    }
}

/// A time that one before the clock began can be compared with.
fn signed(at: u64) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX - 1)
}

impl Known {
    fn max(self, other: Self) -> Self {
        Self { half: self.half.max(other.half), majority: self.majority.max(other.majority) }
    }
}
