//! What goes wrong, when, and to whom. A seed gives the schedule; whom a fault strikes is drawn when it begins.
//!
//! **Tolerance.** An era is the time from one healing to the next. Data is destroyed on one node of an era at most, its
//! *victim*: an acknowledged track has its copies on two nodes at least, so that one copy is left, and by the next era all is
//! repaired, which the run has checked. Anything else (crashes, cuts, pauses) may strike any number of nodes: tracks
//! may be unreadable for the time, but never absent, and all are back after the healing. Of the log's voters most keep their
//! state.

mod drives;
mod kind;
mod members;
mod network;
mod process;
mod versions;

use std::collections::BTreeSet;

use deadwax_dht::VolumeId;
use deadwax_dht::core::Input;
use deadwax_track::TrackId;

use self::kind::Class;
pub use self::kind::FaultKind;
pub(crate) use self::versions::FOUNDED;
use self::versions::Fleet;
use crate::clock::{Clock, MINUTE, Micros, SECOND};
use crate::drive::State;
use crate::probe::Probe;
use crate::random::Random;
use crate::trace::{Kind, NONE};
use crate::world::{Event, Role, World};

/// A fault that is under way.
#[derive(Debug)]
pub(crate) struct Active {
    name: u32,
    kind: FaultKind,
    /// Whom it strikes.
    hosts: Vec<u32>,
    rules: Vec<u32>,
    /// A drive of the first host.
    drive: usize,
}

/// A fault to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    kind: FaultKind,
    lasts: Micros,
}

/// The schedule, and what is under way of it.
#[derive(Debug)]
pub(crate) struct Faults {
    pub(crate) random: Random,
    pub(crate) fleet: Fleet,
    plan: Vec<Planned>,
    active: Vec<Active>,
    next: u32,
    /// On whom data may be destroyed in this era.
    victim: Option<u32>,
    /// Data was destroyed there.
    pub(crate) destroyed: bool,
    /// The tracks of which something was there.
    pub(crate) struck_tracks: BTreeSet<u32>,
    /// When the network was last whole again.
    pub(crate) whole_since: Micros,
    pub(crate) counts: Vec<u64>,
    /// Whether operators change the map, too: every epoch costs each node some milliseconds, so that not all runs can have many.
    pub(crate) map_changes: bool,
    /// Kinds to draw from; empty: all.
    pub(crate) only: Vec<FaultKind>,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random::stream(seed, 0xfa017),
            fleet: Fleet::new(seed),
            plan: Vec::new(),
            active: Vec::new(),
            next: 0,
            victim: None,
            destroyed: false,
            struck_tracks: BTreeSet::new(),
            whole_since: 0,
            counts: vec![0; FaultKind::ALL.len()],
            map_changes: true,
            only: Vec::new(),
        }
    }

    /// On whom data was destroyed.
    pub(crate) fn struck(&self) -> Option<u32> {
        self.victim.filter(|_| self.destroyed)
    }

    /// All is made good.
    pub(crate) fn forgive(&mut self) {
        self.destroyed = false;
        self.struck_tracks.clear();
    }

    fn draw(&mut self, long: bool) -> FaultKind {
        let kinds: Vec<FaultKind> = FaultKind::ALL.iter().copied().filter(|kind| self.may(*kind, long)).collect();
        let sum: u64 = kinds.iter().map(|kind| kind.weight()).sum();
        let mut at = self.random.below(sum.max(1));
        for kind in &kinds {
            match at.checked_sub(kind.weight()) {
                Some(rest) => at = rest,
                None => return *kind,
            }
        }
        FaultKind::Crash
    }

    /// What lasts for more than 30 minutes: drawn only as the first fault of a long era.
    fn draw_long(&mut self) -> FaultKind {
        let away =
            if self.only.is_empty() { self.random.percent(50) } else { self.only.contains(&FaultKind::DriveAway) };
        if away { FaultKind::DriveAway } else { FaultKind::Silence }
    }

    fn may(&self, kind: FaultKind, long: bool) -> bool {
        (self.map_changes || !kind.changes_map())
            && (self.only.is_empty() || self.only.contains(&kind))
            && (long || kind != FaultKind::Silence)
    }

    /// What strikes now, for people.
    pub(crate) fn text(&self) -> String {
        let one = |active: &Active| format!("{} {:?}", active.kind.text(), active.hosts);
        self.active.iter().map(one).collect::<Vec<_>>().join("; ")
    }
}

impl World {
    /// Plans an era that begins now and lasts so long.
    pub(crate) fn plan_faults(&mut self, count: u64, length: Micros, long: bool) {
        let members: Vec<u32> = self.members();
        let light = self.light();
        let silent = long && !light.is_empty();
        self.faults.victim = self.faults.random.pick(if silent { &light } else { &members });
        self.faults.forgive();
        for turn in 0..count {
            let first = silent && turn == 0;
            let kind = match turn {
                0 if silent => self.faults.draw_long(),
                _ if self.faults.only == [FaultKind::DriveAway] => continue,
                // Large clusters have few faults; one of them is to bring an epoch.
                0 if self.topology.is_large() => FaultKind::Weight,
                _ => self.faults.draw(long),
            };
            let within = if first { length / 10 } else { length * 3 / 4 };
            let at = self.now + self.faults.random.below(within);
            let most = self.now + length - at;
            let lasts = match kind {
                FaultKind::Silence => 33 * MINUTE,
                FaultKind::DriveAway => 40 * MINUTE,
                FaultKind::Cloned => self.faults.random.between(100 * SECOND, 200 * SECOND),
                FaultKind::PartlyCut => self.faults.random.between(80 * SECOND, most.max(150 * SECOND)),
                _ => self.faults.random.between(8 * SECOND, most.min(3 * MINUTE)),
            };
            self.faults.plan.push(Planned { kind, lasts });
            let index = u32::try_from(self.faults.plan.len() - 1).expect("few faults");
            self.queue.push(at, Event::Fault { index });
        }
    }

    pub(crate) fn members(&self) -> Vec<u32> {
        (0..).zip(&self.hosts).filter(|(_, host)| host.is_member()).map(|(at, _)| at).collect()
    }

    pub(crate) fn fault_begins(&mut self, index: u32) {
        let Planned { kind, lasts } = self.faults.plan[index as usize];
        if kind.changes_map() && !self.may_change_map() {
            return;
        }
        let mut active = Active { name: self.faults.next, kind, hosts: Vec::new(), rules: Vec::new(), drive: 0 };
        self.faults.next += 1;
        let began = match kind.class() {
            Class::Network => self.begin_network(&mut active, lasts),
            Class::Process => self.begin_process(&mut active, lasts),
            Class::Drive => self.begin_drive(&mut active),
            Class::Clock => self.begin_clock(&mut active),
            Class::Members => self.begin_members(&mut active),
        };
        if !began {
            return;
        }
        self.faults.counts[kind as usize] += 1;
        let who = active.hosts.first().copied().unwrap_or(NONE);
        self.trace.say(self.now, Kind::Fault, (who, NONE), u64::from(active.name), kind.text());
        for host in &active.hosts {
            self.hosts[*host as usize].faults += 1;
        }
        if self.strikes_a_move(&active) {
            self.hit(Probe::JointInterrupted);
        }
        self.queue.push(self.now + lasts, Event::Heal { name: active.name });
        self.faults.active.push(active);
    }

    /// Whether a fault of processes or drives is on a holder of a partition that moves, or one of wires cuts two of them off.
    fn strikes_a_move(&self, active: &Active) -> bool {
        let layout = self.layout();
        let host = |volume: &VolumeId| self.registry.get(&layout.node_of(volume)?).copied();
        let cut = |one: u32, other: u32| active.rules.iter().any(|rule| self.network.is_cut_by(*rule, (one, other)));
        layout.state().transitions().values().any(|moves| {
            let holders: BTreeSet<u32> = moves.old.iter().chain(&*moves.new).filter_map(host).collect();
            match active.kind.class() {
                Class::Process | Class::Drive => active.hosts.iter().any(|host| holders.contains(host)),
                Class::Network => {
                    holders.iter().any(|one| holders.iter().any(|other| one != other && cut(*one, *other)))
                }
                Class::Clock | Class::Members => false,
            }
        })
    }

    pub(crate) fn fault_ends(&mut self, name: u32) {
        let Some(at) = self.faults.active.iter().position(|active| active.name == name) else { return };
        let active = self.faults.active.swap_remove(at);
        self.trace.say(self.now, Kind::Healed, (NONE, NONE), u64::from(name), active.kind.text());
        for rule in &active.rules {
            self.network.remove(*rule);
        }
        if !active.rules.is_empty() {
            self.faults.whole_since = self.now;
        }
        match active.kind.class() {
            Class::Process | Class::Members => self.end_process(&active),
            Class::Drive => self.end_drive(&active),
            Class::Clock => self.end_clock(&active),
            Class::Network => {}
        }
        for host in active.hosts {
            let at = &mut self.hosts[host as usize];
            at.faults = at.faults.saturating_sub(1);
            at.well_since = self.now;
        }
    }

    /// Ends all that goes wrong: whatever is planned and has not begun does not.
    pub(crate) fn heal(&mut self) {
        for (name, kind) in self.faults.active.iter().map(|active| (active.name, active.kind)).collect::<Vec<_>>() {
            if kind == FaultKind::Cloned && self.faults.random.percent(75) {
                // Nobody finds the double for a while, so that the older one has time to hear of it.
                self.queue.push(self.now + 90 * SECOND, Event::Heal { name });
            } else {
                self.fault_ends(name);
            }
        }
        self.network.heal();
        for host in 0..u32::try_from(self.hosts.len()).expect("few hosts") {
            self.resume(host);
            let at = &mut self.hosts[host as usize];
            if at.halted && at.is_member() {
                self.start_halted(host);
            } else if at.core.is_none() && at.is_member() {
                self.start_later(host, SECOND);
            }
        }
        self.revive();
        self.replace_voters();
    }

    /// Scrub finds all rot of a process that runs: it proves what is there against the ids.
    pub(crate) fn scrub(&mut self, host: u32) {
        if !self.hosts[host as usize].is_up() {
            return;
        }
        for index in 0..self.hosts[host as usize].drives.len() {
            let drive = &mut self.hosts[host as usize].drives[index];
            let volume = drive.id;
            let found = drive.tracks.iter_mut().filter(|(id, copy)| copy.told && !copy.is_good(id));
            let found = found.map(|(id, copy)| {
                (copy.rotten, copy.told) = (true, false);
                *id
            });
            let rotten: Vec<TrackId> = found.collect();
            for track in rotten {
                self.hit(Probe::RotFound);
                self.note(Kind::Rotten, host, NONE, u64::from(self.oracle.number(&track)));
                self.step(host, Input::Rotten { volume, track });
            }
        }
    }

    /// What a host has is destroyed, or some of it: its copies count no more.
    pub(super) fn strike(&mut self, host: u32) {
        self.faults.destroyed = true;
        let drives = &self.hosts[host as usize].drives;
        let tracks = drives.iter().flat_map(|drive| drive.tracks.keys()).map(|id| self.oracle.number(id));
        self.faults.struck_tracks.extend(tracks);
    }

    /// Whom data may be destroyed on, if it is there.
    fn victim(&self) -> Option<u32> {
        self.faults.victim.filter(|host| self.hosts[*host as usize].is_member())
    }

    /// A member that runs.
    fn some_member(&mut self) -> Option<u32> {
        let up: Vec<u32> = self.members().into_iter().filter(|host| self.hosts[*host as usize].is_up()).collect();
        self.faults.random.pick(&up)
    }

    fn begin_clock(&mut self, active: &mut Active) -> bool {
        let Some(host) = self.some_member() else { return false };
        active.hosts.push(host);
        let (now, random) = (self.now, &mut self.faults.random);
        let clock: &mut Clock = &mut self.hosts[host as usize].clock;
        match active.kind {
            // Quartz is right to a ten thousandth or better.
            FaultKind::Skew => clock.run(now, random.between(999_500, 1_000_500)),
            FaultKind::JumpAhead => clock.set_wall(random.between(2_000, 3_600_000), 0),
            _ => clock.set_wall(0, random.between(2_000, 3_600_000)),
        }
        if active.kind != FaultKind::Skew {
            self.step(host, Input::ClockJumped);
        }
        true
    }

    fn end_clock(&mut self, active: &Active) {
        let now = self.now;
        for host in &active.hosts {
            let clock = &mut self.hosts[*host as usize].clock;
            clock.run(now, 1_000_000);
            clock.set_wall(0, 0);
            if active.kind != FaultKind::Skew {
                self.step(*host, Input::ClockJumped);
            }
        }
    }

    /// Whether a drive serves at this host.
    fn has_drive(&self, host: u32) -> bool {
        self.hosts[host as usize].drives.iter().any(|drive| drive.state == State::Serving)
    }

    /// Members whose weight is small: they may come and go at little cost.
    fn light(&self) -> Vec<u32> {
        let spec = self.newest.state().spec();
        let light = |host: &u32| {
            let id = self.hosts[*host as usize].id;
            spec.nodes.iter().any(|node| node.id == id && node.volumes.iter().all(|volume| volume.weight < 100))
        };
        self.members().into_iter().filter(light).collect()
    }

    fn spare(&self) -> Option<u32> {
        let founders = u32::try_from(self.topology.founders).expect("few hosts");
        // What comes behind the seats were clones.
        let seats = (0..).zip(&self.hosts).take(self.topology.seats.len());
        let spares = seats.filter(|(at, host)| *at >= founders && host.role == Role::Spare);
        spares.map(|(at, _)| at).next()
    }
}
