//! What may not be served, and whether this node knows enough of it: the log of takedowns, its spread, and the lease.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use deadwax_track::{Partition, TrackId};

use super::message::Message;
use super::planted::Bug;
use super::{Alarm, Core, CoreConfig, Effect, Kept, Part};
use crate::random::Random;
use crate::takedown::{
    Answer, Ask, Follow, FollowEffect, Heads, IssueError, Name, Quorum, SPREADS_MAX, Stale, Standing, Takedown,
    TakedownLog, Verdict,
};
use crate::{Holder, Layout, NodeId, VolumeId};

/// How many barred tracks are looked at, and erased, at a time for a volume that has come up.
const ERASED_AT_A_TIME: usize = 256;

/// A volume that came up may have what was barred before a crash, or while it was away: it is gone through once. Until
/// that is done the gate keeps what is barred from being served and from being pulled.
struct Sweep {
    /// The partitions that had tracks when it came up. What comes later passes the gate.
    partitions: BTreeSet<Partition>,
    /// The last barred track that was looked at.
    after: Option<TrackId>,
    /// Erasures under way: the next ones follow when these are done.
    erasing: BTreeSet<TrackId>,
}

/// The log, the lease, and the rounds by which they are kept.
pub(super) struct Takedowns {
    follow: Follow,
    /// Own takedowns whose records are being appended: the append's number, the driver's number, and the name.
    issued: VecDeque<(u64, u64, Name)>,
    /// Issued, and not yet given to the drive.
    fresh: Vec<(u64, Name)>,
    /// The volumes that are being gone through.
    sweeps: BTreeMap<VolumeId, Sweep>,
    /// What the driver keeps.
    standing: Standing,
}

impl Takedowns {
    /// What was kept, checked: a file that is not a log's is as good as none.
    pub(super) fn new(now: u64, config: &CoreConfig, kept: &mut Kept) -> Self {
        let empty = || {
            let mut log = TakedownLog::new(config.cluster);
            for key in &config.issuers {
                // One that is no key is nobody's; whoever lists it has checked it.
                let _ = log.allow(*key);
            }
            log
        };
        let records = std::mem::take(&mut kept.takedowns);
        let (log, standing) =
            empty().rebuild(records).map_or_else(|_| (empty(), Standing::default()), |log| (log, kept.standing));
        let seed = Random(config.seed ^ 0x7461_6b65_646f_776e).draw();
        let follow = Follow::new(config.node, config.settings.lease, log, standing, seed, now);
        let follow = follow.expect("settings were checked");
        Self { follow, issued: VecDeque::new(), fresh: Vec::new(), sweeps: BTreeMap::new(), standing: kept.standing }
    }

    /// Whether a majority was heard of within the lease.
    pub(super) const fn is_sure(&self, now: u64) -> bool {
        self.follow.lease().is_sure(now)
    }
}

impl Core {
    /// What may be done with a track now.
    #[must_use]
    pub fn gate(&self, track: &TrackId) -> Verdict {
        self.takedowns.follow.gate().check(track, self.now)
    }

    /// How whole the takedowns' file is.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        self.takedowns.follow.lease().standing()
    }

    fn tell_standing(&mut self) {
        let standing = self.standing();
        if standing != self.takedowns.standing {
            self.takedowns.standing = standing;
            self.effects.push(Effect::Stand(standing));
        }
    }

    /// Whether this node may serve.
    pub fn may_serve(&self) -> Result<(), Stale> {
        self.takedowns.follow.lease().may_serve(self.now)
    }

    /// What was taken down, as far as this node knows.
    #[must_use]
    pub const fn takedown_log(&self) -> &TakedownLog {
        self.takedowns.follow.log()
    }

    pub(super) fn renew_takedowns(&mut self, layout: &Layout) {
        self.takedowns.follow.set_witnesses(self.now, &self.config.node, layout.witnesses(), layout.epoch());
        // Before the map by which it counts for nobody is saved.
        self.tell_standing();
        self.touch(Part::Takedowns);
    }

    /// Epochs were skipped: whether this node was a witness all the time is not known, so it begins as one anew.
    pub(super) fn forget_takedown_members(&mut self) {
        self.takedowns.follow.forget_witnesses(self.now);
    }

    pub(super) fn take_clock_jump(&mut self) {
        self.takedowns.follow.handle_woke(self.now);
        self.touch(Part::Takedowns);
    }

    pub(super) fn take_takedown_ask(&mut self, from: NodeId, number: u64, ask: &Ask) {
        self.takedowns.follow.handle_ask(self.now, from, number, ask);
        self.touch(Part::Takedowns);
    }

    pub(super) fn take_takedown_answer(&mut self, from: NodeId, number: u64, answer: &Answer) {
        self.takedowns.follow.handle_answer(self.now, from, number, answer);
        self.touch(Part::Takedowns);
    }

    pub(super) fn ask_parted_takedowns(&mut self, node: NodeId) {
        self.takedowns.follow.ask_parted(self.now, node);
        self.touch(Part::Takedowns);
    }

    pub(super) fn take_parted_takedown_ask(&mut self, from: NodeId, ask: &Ask) {
        self.takedowns.follow.handle_parted_ask(self.now, from, ask);
        self.touch(Part::Takedowns);
    }

    pub(super) fn take_parted_takedowns(&mut self, from: NodeId, answer: &Answer) {
        self.takedowns.follow.handle_parted_answer(self.now, from, answer);
        self.touch(Part::Takedowns);
    }

    pub(super) fn take_takedowns_read(&mut self, read: u64, records: Option<Vec<Takedown>>) {
        self.takedowns.follow.handle_read(self.now, read, records);
        self.touch(Part::Takedowns);
    }

    pub(super) fn take_take_down(&mut self, number: u64, track: TrackId, time: u64, reason: &str) {
        let issued = match &self.config.issuer {
            // It may have lost records of its own: the next one would be one number's second.
            Some(_) if !self.standing().intact => Err(IssueError::Behind),
            // Nobody could be told how far it has come.
            Some(_) if self.takedowns.follow.spreads() >= SPREADS_MAX => Err(IssueError::Busy),
            Some(key) => self.takedowns.follow.issue(self.now, key, track, time, reason),
            None => Err(IssueError::Stranger),
        };
        let name = match &issued {
            Ok(record) => Some(record.name()),
            Err(IssueError::Already(name)) => Some(*name),
            Err(_) => None,
        };
        let quorums = self.quorums(&track);
        let awaited = name.map(|name| self.takedowns.follow.await_spread(self.now, number, &name, quorums));
        match issued {
            Ok(record) => self.takedowns.fresh.push((number, record.name())),
            Err(error) => {
                let error = awaited.and_then(Result::err).unwrap_or(error);
                self.effects.push(Effect::TakenDown { number, result: Err(error) });
            }
        }
        self.touch(Part::Takedowns);
    }

    /// Of each set of the track's holders so many that no write quorum is without one.
    fn quorums(&self, track: &TrackId) -> Vec<Quorum> {
        let Some(layout) = self.layout() else { return Vec::new() };
        let quorum = usize::from(layout.map().policy().write_quorum);
        let sets = layout.sets(track.partition());
        let nodes = |set: &[Holder]| set.iter().map(|holder| layout.map().nodes()[holder.node].id).collect();
        sets.each().map(|set| Quorum { nodes: nodes(set), needed: (set.len() + 1).saturating_sub(quorum) }).collect()
    }

    /// How far the takedowns on the drive go.
    #[must_use]
    pub const fn takedown_heads(&self) -> &Heads {
        self.takedowns.follow.flushed()
    }

    /// The slots of at most `limit` takedowns that are on the drive, and that whoever has what `known` says lacks.
    #[must_use]
    pub fn takedowns_since(&self, known: &Heads, limit: usize) -> Vec<u32> {
        self.takedowns.follow.flushed_since(known, limit)
    }

    pub(super) fn poll_takedowns(&mut self) -> u64 {
        for effect in self.takedowns.follow.poll(self.now) {
            match effect {
                FollowEffect::Ask { to, number, ask } => self.send(to, Message::TakedownAsk(number, ask)),
                FollowEffect::Answer { to, number, mut answer } => {
                    if let Some(basis) = answer.basis.as_mut().filter(|_| self.planted(Bug::StaleWord)) {
                        (basis.half_age, basis.majority_age) = (0, 0);
                    }
                    self.send(to, Message::TakedownAnswer(number, answer));
                }
                FollowEffect::Read { read, slots } => self.effects.push(Effect::ReadTakedowns { number: read, slots }),
                FollowEffect::Append { append, slot: _, records } => {
                    let is_own = |(_, name): &(u64, Name)| records.iter().any(|record| record.name() == *name);
                    let own = self.takedowns.fresh.extract_if(.., |fresh| is_own(fresh));
                    self.takedowns.issued.extend(own.map(|(number, name)| (append, number, name)));
                    self.effects.push(Effect::Append { number: append, records });
                }
                FollowEffect::Erase { tracks } => tracks.into_iter().for_each(|track| self.bar(track)),
                FollowEffect::Spread { number, spread } => self.effects.push(Effect::Spread { number, spread }),
                FollowEffect::Forked { issuers } => {
                    self.effects.extend(issuers.into_iter().map(|issuer| Effect::Alarm(Alarm::Forked { issuer })));
                }
                FollowEffect::Stranger { issuer } => self.effects.push(Effect::Alarm(Alarm::Stranger { issuer })),
                FollowEffect::Serves(_) => {}
            }
        }
        self.tell_standing();
        self.sweep();
        let next = self.takedowns.follow.next_deadline().unwrap_or(u64::MAX);
        // Where nothing is being erased the next tracks are looked at soon; else when it is.
        let idle = self.takedowns.sweeps.values().any(|sweep| sweep.erasing.is_empty());
        if idle { self.now + 1 } else { next }
    }

    /// These records, and all before them, are durable.
    pub(super) fn take_appended(&mut self, append: u64) {
        self.takedowns.follow.handle_appended(self.now, append);
        while let Some((_, number, name)) = self.takedowns.issued.pop_front_if(|(needs, ..)| *needs <= append) {
            self.effects.push(Effect::TakenDown { number, result: Ok(name) });
        }
        self.touch(Part::Takedowns);
    }

    /// A track is barred from now on: what there is of it goes.
    fn bar(&mut self, track: TrackId) {
        let volumes: Vec<VolumeId> = self.copies.volumes().collect();
        for volume in volumes {
            self.effects.push(Effect::Erase { volume, track, barred: true });
            self.copies.forget(&volume, &track);
        }
        self.expect_receipts(track);
    }

    /// A volume came up that has tracks in these partitions.
    pub(super) fn begin_sweep(&mut self, volume: VolumeId, partitions: BTreeSet<Partition>) {
        if !partitions.is_empty() {
            self.takedowns.sweeps.insert(volume, Sweep { partitions, after: None, erasing: BTreeSet::new() });
            self.touch(Part::Takedowns);
        }
    }

    pub(super) fn end_sweep(&mut self, volume: &VolumeId) {
        self.takedowns.sweeps.remove(volume);
    }

    /// A track is gone from a volume.
    pub(super) fn swept(&mut self, volume: &VolumeId, track: &TrackId) {
        if let Some(sweep) = self.takedowns.sweeps.get_mut(volume)
            && sweep.erasing.remove(track)
            && sweep.erasing.is_empty()
        {
            self.touch(Part::Takedowns);
        }
    }

    /// Goes on with each volume whose last erasures are done.
    fn sweep(&mut self) {
        let Takedowns { follow, sweeps, .. } = &mut self.takedowns;
        let effects = &mut self.effects;
        sweeps.retain(|volume, sweep| {
            if !sweep.erasing.is_empty() {
                return true;
            }
            let page = follow.log().barred_after(sweep.after.as_ref(), ERASED_AT_A_TIME);
            let Some(last) = page.last().copied() else { return false };
            let is_last = page.len() < ERASED_AT_A_TIME;
            sweep.after = Some(last);
            for track in page {
                if sweep.partitions.contains(&track.partition()) {
                    effects.push(Effect::Erase { volume: *volume, track, barred: true });
                    sweep.erasing.insert(track);
                }
            }
            !is_last
        });
    }
}
