//! What was acknowledged is never *not found*: a partition moves from three holders to three others while puts and gets
//! of one track run by old and new maps, targets fail and come back, and drives are lost.

use std::collections::BTreeSet;

use deadwax_dht::{
    Failure, FailureKind, GetPlan, GetStep, HedgeBudget, Holder, PutQuorum, PutStep, ReadDeadlines, Reader, Readers,
    Targets, VolumeId,
};
use deadwax_track::ByteRange;

use super::{GRACE, POLICY};
use crate::random::Random;

const OLD: [usize; 3] = [0, 1, 2];
const STAND_INS: [usize; 2] = [6, 7];
const VOLUMES: usize = 8;
/// The epochs: one set, Joint, Synced, Settled.
const JOINT: u64 = 2;
const SYNCED: u64 = 3;
const SETTLED: u64 = 4;

#[derive(Clone, Copy, Debug)]
struct Volume {
    up: bool,
    epoch: u64,
    has: bool,
    /// It has all that it should, for certain: it may say *absent*.
    proved: bool,
}

struct World {
    random: Random,
    new: [usize; 3],
    epoch: u64,
    volumes: [Volume; VOLUMES],
    acknowledged: bool,
    counts: Counts,
}

#[derive(Default, Debug)]
struct Counts {
    acknowledged: u64,
    stand_ins: u64,
    not_found: u64,
    found: u64,
    unavailable: u64,
    moved: u64,
    lost: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let new = random.pick(&[[3, 4, 5], [1, 2, 3], [2, 3, 4]]);
        let volume = |at| Volume { up: true, epoch: 1, has: false, proved: OLD.contains(&at) };
        let volumes = std::array::from_fn(volume);
        Self { random, new, epoch: 1, volumes, acknowledged: false, counts: Counts::default() }
    }

    fn sets(&self, epoch: u64) -> (Vec<usize>, Option<Vec<usize>>) {
        match epoch {
            JOINT => (OLD.to_vec(), Some(self.new.to_vec())),
            SYNCED => (self.new.to_vec(), Some(OLD.to_vec())),
            SETTLED => (self.new.to_vec(), None),
            _ => (OLD.to_vec(), None),
        }
    }

    fn targets(&self, epoch: u64) -> Targets {
        let holder = |at: &usize| {
            let byte = u8::try_from(*at).expect("small");
            Holder { node: *at, volume: VolumeId::from_bytes([byte; 16]), zone: 0 }
        };
        let of = |set: &[usize]| set.iter().map(holder).collect::<Vec<_>>();
        let (first, second) = self.sets(epoch);
        Targets::new(epoch, &of(&first), second.map(|set| of(&set)).as_deref(), &of(&STAND_INS))
    }

    /// A client's map: the newest, or an old one.
    fn client_epoch(&mut self) -> u64 {
        if self.random.percent(50) { self.epoch } else { 1 + self.random.below(self.epoch) }
    }

    /// Whether a request by the map of this epoch is answered at all; if not, how it fails.
    fn refusal(&mut self, at: usize, epoch: u64) -> Option<FailureKind> {
        let volume = &mut self.volumes[at];
        if !volume.up {
            return Some(FailureKind::Unreachable);
        }
        // It hears of a newer map and fetches it first.
        volume.epoch = volume.epoch.max(epoch);
        (volume.epoch > epoch).then_some(FailureKind::Moved { epoch: volume.epoch })
    }

    fn put(&mut self) {
        let epoch = self.client_epoch();
        let targets = self.targets(epoch);
        let mut put = PutQuorum::new(targets.clone(), &POLICY, &[], GRACE, Some(10_000));
        let (mut now, mut sent) = (0, vec![]);
        let node = |target: usize| targets.volumes()[target].node;
        let failed = |kind| Failure::new(kind, "told so");
        loop {
            match put.poll(now) {
                PutStep::Ask { target } => match self.refusal(node(target), epoch) {
                    Some(kind) => put.handle_failed(target, failed(kind)),
                    None if self.random.percent(15) => put.handle_failed(target, failed(FailureKind::NoSpace)),
                    None if self.random.percent(10) => {}
                    None if self.volumes[node(target)].has => put.handle_stored(target, true),
                    None => put.handle_ready(target),
                },
                PutStep::Begin { to } => sent = to,
                PutStep::Wait { until } => {
                    if sent.is_empty() {
                        now = until.expect("has a deadline");
                        continue;
                    }
                    // While the bytes flow, the world goes on.
                    if self.random.percent(30) {
                        self.happen();
                    }
                    let at = self.random.index(sent.len());
                    let target = sent.swap_remove(at);
                    let refusal = self.refusal(node(target), epoch);
                    let stores = !matches!(refusal, Some(FailureKind::Unreachable)) && !self.random.percent(15);
                    self.volumes[node(target)].has |= stores;
                    match refusal {
                        Some(kind) => put.handle_failed(target, failed(kind)),
                        None if stores => put.handle_stored(target, false),
                        None => put.handle_failed(target, failed(FailureKind::Stalled)),
                    }
                }
                PutStep::Acknowledged { copies, .. } | PutStep::Already { copies, .. } => {
                    self.acknowledged = true;
                    self.counts.acknowledged += 1;
                    let holders = (0..targets.holders().len()).filter(|at| self.volumes[node(*at)].has).count();
                    self.counts.stand_ins += u64::from(copies > holders);
                    return;
                }
                PutStep::Moved { .. } => {
                    self.counts.moved += 1;
                    return;
                }
                PutStep::GiveUp(_) => return,
            }
        }
    }

    fn get(&mut self) {
        let mut epoch = self.client_epoch();
        // A client that is told of a newer map may not get it.
        let follows = self.random.percent(70);
        loop {
            let targets = self.targets(epoch);
            let readers =
                (0..targets.holders().len()).map(|holder| Reader { holder, hedge_ms: None, is_down: false }).collect();
            let readers = Readers::new(&targets, &POLICY, readers);
            let deadlines = ReadDeadlines { first_ms: 100, stall_ms: 100, whole: None };
            let mut get = GetPlan::new(readers, ByteRange::new(0, 4).expect("not empty"), deadlines);
            let mut budget = HedgeBudget::default();
            let moved = loop {
                match get.poll(0, &mut budget) {
                    GetStep::Ask { holder, .. } => self.answer(&mut get, holder, targets.volumes()[holder].node, epoch),
                    GetStep::Drop { .. } => {}
                    GetStep::Moved { .. } if follows => break true,
                    GetStep::Moved { .. } => {}
                    GetStep::NotFound => {
                        assert!(!self.acknowledged, "a stored track is not found, by the map of epoch {epoch}");
                        self.counts.not_found += 1;
                        break false;
                    }
                    GetStep::Done => {
                        self.counts.found += 1;
                        break false;
                    }
                    GetStep::Failed(_) => {
                        self.counts.unavailable += 1;
                        break false;
                    }
                    GetStep::Wait { .. } => panic!("waits for nobody"),
                }
            };
            if !moved {
                return;
            }
            epoch = self.epoch;
        }
    }

    fn answer(&mut self, get: &mut GetPlan, holder: usize, at: usize, epoch: u64) {
        let failed = |kind| Failure::new(kind, "told so");
        if let Some(kind) = self.refusal(at, epoch) {
            return get.handle_failed(holder, failed(kind));
        }
        let Volume { has, proved, .. } = self.volumes[at];
        if self.random.percent(15) {
            get.handle_failed(holder, failed(FailureKind::Unreachable));
        } else if has {
            get.handle_found(0, holder, 4);
            assert!(get.handle_data(0, holder, 4));
            get.handle_end(holder);
        } else if proved {
            get.handle_absent(holder, self.volumes[at].epoch);
        } else {
            get.handle_failed(holder, failed(FailureKind::Busy));
        }
    }

    /// Copies the track to `at` if any two of `from` that are up and proved, and now know this epoch, have it. Whether
    /// there were two: any two have one in common with each write quorum.
    fn pull(&mut self, at: usize, from: &[usize], epoch: u64) -> bool {
        let usable = |other: &&usize| **other != at && self.volumes[**other].up && self.volumes[**other].proved;
        let mut sources: Vec<usize> = from.iter().filter(usable).copied().collect();
        while sources.len() > 2 {
            let gone = self.random.index(sources.len());
            sources.swap_remove(gone);
        }
        if sources.len() < 2 || !self.volumes[at].up {
            return false;
        }
        for source in &sources {
            self.volumes[*source].epoch = self.volumes[*source].epoch.max(epoch);
        }
        self.volumes[at].epoch = self.volumes[at].epoch.max(epoch);
        self.volumes[at].has |= sources.iter().any(|source| self.volumes[*source].has);
        true
    }

    /// Something that is neither a put nor a get.
    fn happen(&mut self) {
        let at = self.random.index(VOLUMES);
        let first = self.sets(self.epoch).0;
        match self.random.below(10) {
            0 => self.volumes[at].up = false,
            // It comes back, and does not know what it missed.
            1..=3 if !self.volumes[at].up => (self.volumes[at].up, self.volumes[at].proved) = (true, false),
            4 => self.volumes[at].epoch = self.epoch,
            5 => {
                // A drive is lost: one at a time, as two of three copies survive nothing more.
                let others = first.iter().all(|other| *other == at || self.volumes[*other].proved);
                if others && first.contains(&at) {
                    (self.volumes[at].has, self.volumes[at].proved) = (false, false);
                    self.counts.lost += 1;
                }
            }
            6 | 7 if first.contains(&at) && !self.volumes[at].proved => {
                let epoch = self.epoch;
                self.volumes[at].proved = self.pull(at, &first, epoch);
            }
            8 => self.advance(),
            9 => self.erase_strays(),
            _ => {}
        }
    }

    fn advance(&mut self) {
        match self.epoch {
            1 => self.epoch = JOINT,
            JOINT => {
                // What a new holder has it may have lost since it was copied: all are compared again.
                let mut all = true;
                for at in self.new {
                    all &= self.pull_from_old(at);
                }
                if all {
                    self.new.iter().for_each(|at| self.volumes[*at].proved = true);
                    self.epoch = SYNCED;
                }
            }
            // From here on the old ones take no puts. Before, a write quorum of them must know that they are asked no
            // more: else a read quorum of them, all still in Joint, says *absent* of what only the new ones have.
            SYNCED => {
                for at in OLD {
                    let volume = &mut self.volumes[at];
                    volume.epoch = if volume.up { volume.epoch.max(SYNCED) } else { volume.epoch };
                }
                if OLD.iter().filter(|at| self.volumes[**at].epoch >= SYNCED).count() >= 2 {
                    self.epoch = SETTLED;
                }
            }
            _ => {}
        }
    }

    /// A holder of both sets that is proved counts as one of the two.
    fn pull_from_old(&mut self, at: usize) -> bool {
        if OLD.contains(&at) && self.volumes[at].proved {
            self.volumes[at].epoch = self.volumes[at].epoch.max(JOINT);
        }
        self.pull(at, &OLD, JOINT)
    }

    fn erase_strays(&mut self) {
        let (first, second) = self.sets(self.epoch);
        let holders: BTreeSet<usize> = first.into_iter().chain(second.into_iter().flatten()).collect();
        if holders.iter().all(|at| self.volumes[*at].has) {
            for at in (0..VOLUMES).filter(|at| !holders.contains(at)) {
                (self.volumes[at].has, self.volumes[at].epoch) = (false, self.epoch);
            }
        }
    }
}

#[test]
fn what_was_acknowledged_is_never_not_found() {
    let mut all = Counts::default();
    for seed in 0..6_000 {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..80 {
                match world.random.below(10) {
                    0 => world.put(),
                    1..=4 => world.get(),
                    _ => world.happen(),
                }
            }
            world.counts
        });
        let Ok(counts) = run else { panic!("seed {seed}") };
        all.acknowledged += counts.acknowledged;
        all.stand_ins += counts.stand_ins;
        all.not_found += counts.not_found;
        all.found += counts.found;
        all.unavailable += counts.unavailable;
        all.moved += counts.moved;
        all.lost += counts.lost;
    }
    let Counts { acknowledged, stand_ins, not_found, found, unavailable, moved, lost } = all;
    let least = [acknowledged, stand_ins, not_found, found, unavailable, moved, lost].into_iter().min();
    assert!(least > Some(500), "each happens often: {all:?}");
}
