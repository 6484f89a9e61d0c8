//! Processes start, stop, pause and crash.

use deadwax_dht::VolumeId;
use deadwax_dht::core::{Core, CoreConfig, Input, Verb};

use super::{Asker, Event, FlowStep, Work, World};
use crate::clock::{Clock, MILLI, Micros, SECOND};
use crate::drive::State;
use crate::probe::Probe;
use crate::slab::Key;
use crate::trace::{Kind, NONE};

impl World {
    /// A process starts with what its drives have.
    pub(crate) fn start(&mut self, host: u32) {
        let local = self.random.between(0, 1 << 30);
        let seed = self.random.next();
        let seeds = self.seeds(host);
        let Self { hosts, topology, layouts, own_layouts, settings, now, .. } = self;
        let at = &mut hosts[host as usize];
        if at.core.is_some() || at.halted {
            return;
        }
        at.life += 1;
        at.paused = false;
        let wall = at.clock.wall_ms(*now);
        at.system.life = wall.max(at.system.life + 1);
        let mut clock = Clock::new(*now, local);
        std::mem::swap(&mut clock, &mut at.clock);
        at.clock.keep_wall(&clock);
        let config = CoreConfig {
            node: at.id,
            key: at.key.clone(),
            issuer: at.issuer.clone(),
            issuers: topology.issuer_keys(),
            cluster: topology.cluster,
            address: at.address.clone(),
            seeds,
            life: at.system.life,
            seed,
            protocols: at.protocols,
            settings: *settings,
            #[cfg(feature = "planted")]
            bug: self.bug,
            // One of its own begins with the founding, which takes long to work out.
            layouts: if *own_layouts { topology.layouts.branch() } else { layouts.clone() },
        };
        let life = u64::from(at.life);
        at.core = Some(Box::new(Core::start(local, config, at.system.kept())));
        at.load.forget_lists();
        at.latency_due = false;
        self.note(Kind::Start, host, NONE, life);
        self.step(host, Input::Tick);
        self.volumes_up(host);
    }

    fn seeds(&mut self, host: u32) -> Vec<std::sync::Arc<str>> {
        let founders = self.topology.founders;
        let mut seeds = Vec::new();
        for _ in 0..3 {
            let seat = &self.topology.seats[self.random.index(founders)];
            if seat.address != self.hosts[host as usize].address && !seeds.contains(&seat.address) {
                seeds.push(seat.address.clone());
            }
        }
        seeds
    }

    fn volumes_up(&mut self, host: u32) {
        for index in 0..self.hosts[host as usize].drives.len() {
            self.volume_up(host, index);
        }
    }

    /// A drive comes up, with what is on it.
    pub(crate) fn volume_up(&mut self, host: u32, index: usize) {
        let drive = &mut self.hosts[host as usize].drives[index];
        if drive.state != State::Serving {
            return;
        }
        let (volume, digests) = (drive.id, drive.digests());
        self.hosts[host as usize].load.forget_volume(&volume);
        self.step(host, Input::VolumeUp { volume, digests, track_bytes: 0 });
    }

    /// A drive goes.
    pub(crate) fn volume_down(&mut self, host: u32, volume: VolumeId) {
        self.hosts[host as usize].load.forget_volume(&volume);
        self.step(host, Input::VolumeDown(volume));
    }

    /// The process is gone, at once. What was not durable is lost, or not.
    pub(crate) fn crash(&mut self, host: u32) {
        let at = &mut self.hosts[host as usize];
        if at.core.take().is_none() {
            return;
        }
        at.life += 1;
        (at.paused, at.armed) = (false, false);
        at.held.clear();
        let life = u64::from(at.life);
        let lost = at.system.crash(&self.layouts, &mut self.random);
        if lost > 0 {
            self.hit(Probe::SystemWritesLost);
        }
        self.hit(Probe::Crashes);
        self.note(Kind::Stop, host, NONE, life);
        for index in 0..self.hosts[host as usize].drives.len() {
            let writing = std::mem::take(&mut self.hosts[host as usize].drives[index].writing);
            for op in writing {
                self.tear(op);
            }
            self.hosts[host as usize].drives[index].reset();
        }
        self.break_flows(host);
        self.recount_takedowns(host);
    }

    /// A process that is to crash does so before what it writes is durable.
    pub(crate) fn crash_amid(&mut self, host: u32, done: Micros) {
        let at = &mut self.hosts[host as usize];
        if std::mem::replace(&mut at.armed, false) {
            let life = at.life;
            let after = self.random.below(done.saturating_sub(self.now).max(1));
            self.queue.push(self.now + after, Event::Crash { host, life });
        }
    }

    /// A write that was under way at a crash is durable or not.
    fn tear(&mut self, op: Key) {
        let Some(op) = self.ops.remove(op) else { return };
        let write = match op.work {
            Work::Write { flow } => {
                self.flows.get(flow).map(|flow| (flow.id, flow.bytes, flow.tag, flow.verb == Verb::StandIn))
            }
            Work::WritePull { pull } => self.pulls.get(pull).map(|pull| (pull.id, pull.bytes, pull.tag, false)),
            _ => None,
        };
        self.hit(Probe::TornWrites);
        let durable = self.random.percent(50);
        let drive = &mut self.hosts[op.host as usize].drives[op.drive];
        if let Some((id, bytes, tag, stand_in)) = write.filter(|_| durable && drive.state == State::Serving) {
            drive.store(id, bytes, tag);
            if stand_in {
                drive.mark_stand_in(&id);
            }
            let volume = drive.id;
            let track = self.oracle.number(&id);
            self.checks.owed.remove(&(volume, track));
        }
    }

    /// Connections of a process that died break.
    fn break_flows(&mut self, host: u32) {
        let keys: Vec<Key> = self.flows.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(flow) = self.flows.get_mut(key) else { continue };
            if flow.server == host && flow.server_open {
                self.request_shut(key);
                self.reply(key, super::Reply::Failed(deadwax_dht::FailureKind::Unreachable));
                self.reap(key);
            } else if flow.asker_host == host && flow.asker_open {
                flow.asker_open = false;
                let link = (host, flow.server);
                self.post(link, Event::Flow { flow: key, step: FlowStep::Hangup });
                self.reap(key);
            }
        }
        let pulls: Vec<Key> = self.pulls.iter().filter(|(_, pull)| pull.host == host).map(|(key, _)| key).collect();
        for pull in pulls {
            self.pulls.remove(pull);
        }
    }

    /// The process stands still: nothing is taken in, and what comes waits.
    pub(crate) fn pause(&mut self, host: u32) {
        self.hosts[host as usize].paused = self.hosts[host as usize].core.is_some();
    }

    /// It goes on where it was, with all that waited.
    pub(crate) fn resume(&mut self, host: u32) {
        let at = &mut self.hosts[host as usize];
        if !std::mem::replace(&mut at.paused, false) {
            return;
        }
        for (index, event) in std::mem::take(&mut at.held).into_iter().enumerate() {
            let at = self.now + index as u64 % (50 * MILLI);
            self.queue.push(at, event);
        }
        self.plan_wake(host);
    }

    /// Starts a host that is down, after a while.
    pub(crate) fn start_later(&mut self, host: u32, after: Micros) {
        let life = self.hosts[host as usize].life;
        self.queue.push(self.now + after, Event::Start { host, life });
    }

    /// Whoever watches over processes starts one again that halted, once its double is gone.
    pub(crate) fn start_halted(&mut self, host: u32) {
        self.crash(host);
        self.hosts[host as usize].halted = false;
        let ahead = self.hosts.iter().filter(|other| other.id == self.hosts[host as usize].id);
        let life = ahead.map(|other| other.system.life).max().unwrap_or_default();
        self.hosts[host as usize].system.life = life;
        self.start_later(host, SECOND);
    }

    /// The flow is of no use to its asker any more.
    pub(crate) fn hang_up(&mut self, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        if !std::mem::replace(&mut flow.asker_open, false) {
            return;
        }
        if let Asker::Pull { pull } = flow.asker {
            self.pulls.remove(pull);
        }
        let Some(flow) = self.flows.get(key) else { return };
        let (link, server_open) = ((flow.asker_host, flow.server), flow.server_open);
        if server_open {
            self.post(link, Event::Flow { flow: key, step: FlowStep::Hangup });
        }
        self.reap(key);
    }

    /// Forgets a flow that neither side has any use for.
    pub(crate) fn reap(&mut self, key: Key) {
        if self.flows.get(key).is_some_and(|flow| !flow.asker_open && !flow.server_open) {
            self.flows.remove(key);
        }
    }
}
