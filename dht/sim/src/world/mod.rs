//! The world: hosts with their cores, what is between them, and virtual time.
//!
//! The driver of a core in here (`effects.rs`, `serving.rs`, `pulls.rs`) does what a daemon does with sockets and drives.

mod effects;
mod event;
mod host;
mod lives;
mod load;
mod pulls;
pub(crate) mod serving;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use deadwax_dht::core::{CoreSettings, Input};
use deadwax_dht::log::{Durable, History};
use deadwax_dht::takedown::Standing;
use deadwax_dht::{Layout, LayoutCache, NodeId};

pub(crate) use self::event::{Asker, Event, Flow, FlowStep, Op, PullUnderWay, Reply, Work};
pub(crate) use self::host::{HELD_MAX, Host, Role};
use self::load::Load;
use crate::check::{Checks, Rule, Standstill};
use crate::client::{Clients, Oracle};
use crate::clock::{Clock, Micros, SECOND};
use crate::drive::{Drive, System};
use crate::faults::Faults;
use crate::network::{Network, is_gateway};
use crate::operator::Operator;
use crate::probe::{Probe, Probes};
use crate::queue::{Alarms, Queue};
use crate::random::Random;
use crate::run::Run;
use crate::slab::Slab;
use crate::topology::{Seat, Topology};
use crate::trace::{GATEWAY, Kind, NONE, Trace};

/// Ticks of one core in one second, beyond which it spins.
const TICKS_MAX: u32 = 3_000;
/// Messages of one core in one second, beyond which it is a storm: twenty for each of the other nodes, and some thousand for all.
pub(crate) const SENT_MAX: u32 = 3_000;
const LATENCY_EVERY: Micros = SECOND;

/// A whole cluster in virtual time.
pub(crate) struct World {
    pub(crate) now: Micros,
    pub(crate) random: Random,
    pub(crate) queue: Queue<Event>,
    /// When each core is to be woken.
    pub(crate) alarms: Alarms,
    pub(crate) trace: Trace,
    pub(crate) probes: Probes,
    pub(crate) network: Network,
    pub(crate) hosts: Vec<Host>,
    /// Who is where, by name and by address. Never gone through; the hasher is the same in every run.
    pub(crate) registry: HashMap<NodeId, u32, BuildHasherDefault<DefaultHasher>>,
    pub(crate) addresses: BTreeMap<Arc<str>, u32>,
    pub(crate) topology: Arc<Topology>,
    pub(crate) layouts: LayoutCache,
    /// Each core works out its layouts by itself.
    pub(crate) own_layouts: bool,
    pub(crate) settings: CoreSettings,
    pub(crate) flows: Slab<Flow>,
    pub(crate) ops: Slab<Op>,
    pub(crate) pulls: Slab<PullUnderWay>,
    pub(crate) oracle: Oracle,
    pub(crate) clients: Clients,
    pub(crate) operator: Operator,
    pub(crate) faults: Faults,
    pub(crate) checks: Checks,
    /// The newest history that any host has saved.
    pub(crate) newest: History,
    pub(crate) steps: u64,
    pub(crate) run_state: Option<Run>,
    #[cfg(feature = "planted")]
    pub(crate) bug: Option<deadwax_dht::core::Bug>,
}

impl World {
    /// The world of `seed`, with every founder about to start.
    pub(crate) fn new(seed: u64, topology: Arc<Topology>, settings: CoreSettings, gateways: usize) -> Self {
        let newest = topology.history.clone();
        let layouts = topology.layouts.branch();
        let layout = layouts.layout(&newest, None).expect("a sound genesis");
        let mut world = Self {
            now: 0,
            random: Random::stream(seed, 0x3017d),
            queue: Queue::new(),
            alarms: Alarms::new(),
            trace: Trace::new(seed),
            probes: Probes::default(),
            network: Network::new(seed, topology.zones),
            hosts: Vec::new(),
            registry: HashMap::default(),
            addresses: BTreeMap::new(),
            flows: Slab::new(),
            ops: Slab::new(),
            pulls: Slab::new(),
            oracle: Oracle::default(),
            clients: Clients::new(seed, gateways, topology.zones, &newest, &layout),
            operator: Operator::new(seed),
            faults: Faults::new(seed),
            checks: Checks::new(&newest),
            topology: topology.clone(),
            layouts,
            own_layouts: false,
            settings,
            newest,
            steps: 0,
            run_state: None,
            #[cfg(feature = "planted")]
            bug: None,
        };
        for (number, seat) in topology.seats.iter().enumerate() {
            world.settle(number, seat);
        }
        world.rebuild_takedowns();
        world
    }

    fn settle(&mut self, number: usize, seat: &Seat) {
        let founder = number < self.topology.founders;
        let genesis = founder.then(|| self.topology.history.clone());
        let durable = self.topology.history.state().seat_of(&seat.id).filter(|_| founder);
        let durable = durable.map(|seat| Durable::founding(seat, &self.topology.history));
        // One issuer a zone: the first node there.
        let first = self.topology.seats[..number].iter().all(|other| other.zone != seat.zone);
        let issuer = if first { self.topology.issuers.get(seat.zone).cloned() } else { None };
        let host = u32::try_from(number).expect("fewer than 2^32 hosts");
        let protocols = self.faults.fleet.program();
        self.hosts.push(Host {
            id: seat.id,
            key: seat.key.clone(),
            issuer,
            zone: seat.zone,
            address: seat.address.clone(),
            role: if founder { Role::Member } else { Role::Spare },
            core: None,
            life: 0,
            paused: false,
            held: Vec::new(),
            clock: Clock::new(0, 0),
            drives: seat.volumes.iter().map(|volume| Drive::new(volume.id)).collect(),
            system: System::new(genesis, durable, if founder { Standing::WHOLE } else { Standing::default() }),
            protocols,
            halted: false,
            armed: false,
            faults: 0,
            well_since: 0,
            ticks: (0, 0),
            sent: (0, 0),
            load: Load::default(),
            standstill: Standstill::default(),
            latencies: Vec::new(),
            latency_due: false,
        });
        self.registry.insert(seat.id, host);
        self.addresses.insert(seat.address.clone(), host);
        if founder {
            let at = self.random.below(2 * SECOND);
            self.queue.push(at, Event::Start { host, life: 0 });
        }
    }

    /// The newest layout that any host knows.
    pub(crate) fn layout(&self) -> Arc<Layout> {
        self.layouts.layout(&self.newest, None).expect("a saved history is sound")
    }

    pub(crate) fn note(&mut self, kind: Kind, who: u32, other: u32, word: u64) {
        self.trace.note(self.now, kind, who, other, word);
    }

    pub(crate) const fn hit(&mut self, probe: Probe) {
        self.probes.hit(probe);
    }

    pub(crate) fn zone_of(&self, host: u32) -> usize {
        if is_gateway(host) { self.clients.zone(host - GATEWAY) } else { self.hosts[host as usize].zone }
    }

    pub(crate) fn zones_of(&self, (from, to): (u32, u32)) -> (usize, usize) {
        (self.zone_of(from), self.zone_of(to))
    }

    /// Goes on for some events, or until a rule is broken.
    pub(crate) fn run_some(&mut self) {
        for _ in 0..1_000 {
            // What comes at the same time as an alarm is taken in before it.
            if let Some((at, event)) = self.queue.pop(self.alarms.first().map_or(Micros::MAX, |(at, _)| at)) {
                self.now = at;
                self.dispatch(event);
            } else if let Some((at, host)) = self.alarms.first() {
                self.now = at;
                self.wake(host);
            } else {
                return;
            }
            if !self.checks.violations.is_empty() {
                return;
            }
        }
    }

    fn dispatch(&mut self, event: Event) {
        let Some(event) = self.hold(event) else { return };
        match event {
            Event::Message { from, to, envelope } => self.arrive(from, to, envelope),
            Event::Unreachable { host, life, peer } => {
                if self.hosts[host as usize].life == life {
                    self.note(Kind::Unreachable, host, peer, 0);
                    let peer = self.hosts[peer as usize].id;
                    self.step(host, Input::Unreachable(peer));
                }
            }
            Event::System { host, life } => self.system_done(host, life),
            Event::Drive { op } => self.drive_done(op),
            Event::Flow { flow, step } => self.flow_step(flow, step),
            Event::PullLate { pull } => self.pull_late(pull),
            Event::Input { host, life, input } => {
                if self.hosts[host as usize].life == life {
                    self.step(host, *input);
                }
            }
            Event::Latency { host, life } => self.tell_latency(host, life),
            Event::Client { op } => self.client_go_on(op),
            Event::Gateway { gateway } => self.gateway_next(gateway),
            Event::Again { gateway, track } => {
                self.clients.musts -= 1;
                self.get_begins(gateway, track, true);
            }
            Event::Want { gateway, host, since } => {
                self.step(host, Input::WantEpochs { number: u64::from(gateway), since });
            }
            Event::Map { gateway, batch } => self.gateway_map(gateway, &batch),
            Event::MapLate { gateway, asked } => self.gateway_map_late(gateway, asked),
            Event::Command { number, host } => self.command_arrives(number, host),
            Event::Operator { number } => self.operator_looks(number),
            Event::Start { host, life } => {
                if self.hosts[host as usize].life == life {
                    self.start(host);
                }
            }
            Event::Removed { host } => self.removed(host),
            Event::Crash { host, life } => {
                if self.hosts[host as usize].life == life {
                    self.crash(host);
                }
            }
            Event::Bounce { host } => self.bounce(host),
            Event::Install { host } => self.install(host),
            Event::Doubled { double } => self.look_at_double(double),
            Event::Fault { index } => self.fault_begins(index),
            Event::Heal { name } => self.fault_ends(name),
            Event::PutNow { track } => {
                let gateway = self.clients.random.below(self.clients.gateways.len() as u64);
                self.put_begins(u32::try_from(gateway).expect("few gateways"), track);
            }
            Event::TakeDown { track, host } => self.takedown_arrives(track, host),
            Event::Look => self.look(),
            Event::Watch => self.watch(),
        }
    }

    /// A paused process takes nothing in: what is for it waits, up to a bound.
    fn hold(&mut self, event: Event) -> Option<Event> {
        let host = match &event {
            Event::Message { to, .. } => *to,
            Event::System { host, .. }
            | Event::Unreachable { host, .. }
            | Event::Latency { host, .. }
            | Event::Input { host, .. }
            | Event::Want { host, .. }
            | Event::Command { host, .. }
            | Event::TakeDown { host, .. } => *host,
            Event::Drive { op } => self.ops.get(*op).map_or(u32::MAX, |op| op.host),
            Event::PullLate { pull } => self.pulls.get(*pull).map_or(u32::MAX, |pull| pull.host),
            Event::Flow { flow, step } => match (step, self.flows.get(*flow)) {
                (FlowStep::Reply(_), Some(flow)) => flow.asker_host,
                (_, Some(flow)) => flow.server,
                (_, None) => u32::MAX,
            },
            _ => u32::MAX,
        };
        let Some(held) = self.hosts.get_mut(host as usize).filter(|host| host.paused) else { return Some(event) };
        if held.held.len() < HELD_MAX {
            held.held.push(event);
        }
        None
    }

    /// Gives an input to a core and carries out what it wants.
    pub(crate) fn step(&mut self, host: u32, input: Input) {
        let at = &mut self.hosts[host as usize];
        let Some(core) = &mut at.core else { return };
        let effects = core.step(at.clock.now_ms(self.now), input);
        self.steps += 1;
        for effect in effects {
            self.carry_out(host, effect);
        }
        self.plan_wake(host);
    }

    fn plan_wake(&mut self, host: u32) {
        let now = self.now;
        let at = &mut self.hosts[host as usize];
        let Some(core) = &at.core else { return };
        let deadline = core.next_deadline();
        if deadline < u64::MAX {
            self.alarms.set(host, at.clock.when(deadline, now).max(now + 1));
        } else {
            self.alarms.clear(host);
        }
    }

    fn wake(&mut self, host: u32) {
        let now = self.now;
        let at = &mut self.hosts[host as usize];
        self.alarms.clear(host);
        let Some(core) = at.core.as_ref().filter(|_| !at.paused) else { return };
        if core.next_deadline() > at.clock.now_ms(now) {
            return self.plan_wake(host);
        }
        let second = now / SECOND;
        at.ticks = if at.ticks.0 == second { (second, at.ticks.1 + 1) } else { (second, 1) };
        if at.ticks.1 > TICKS_MAX {
            let ticks = at.ticks.1;
            self.checks.violate(Rule::Progress, format!("n{host} is never done: {ticks} ticks in second {second}"));
        }
        self.note(Kind::Wake, host, NONE, 0);
        self.step(host, Input::Tick);
    }

    /// Sends something small over a connection, with an event at its arrival; behind a cut nothing comes.
    pub(crate) fn post(&mut self, link: (u32, u32), event: Event) -> bool {
        let zones = self.zones_of(link);
        let after = self.network.flow(self.now, link, zones, 200);
        if let Some(after) = after {
            self.queue.push(self.now + after, event);
        }
        after.is_some()
    }

    pub(crate) fn volume_host(&self, layout: &Layout, node: usize) -> u32 {
        let id = layout.map().nodes()[node].id;
        self.registry.get(&id).copied().unwrap_or(NONE)
    }

    fn tell_latency(&mut self, host: u32, life: u32) {
        let at = &mut self.hosts[host as usize];
        if at.life != life {
            return;
        }
        at.latency_due = false;
        let mut latencies = std::mem::take(&mut at.latencies);
        latencies.sort_unstable();
        let Some(last) = latencies.len().checked_sub(1) else { return };
        let micros = latencies[last * 99 / 100];
        self.step(host, Input::Latency { micros });
    }

    pub(crate) fn note_latency(&mut self, host: u32, micros: Micros) {
        let at = &mut self.hosts[host as usize];
        at.latencies.push(micros);
        let life = at.life;
        if !std::mem::replace(&mut at.latency_due, true) {
            self.queue.push(self.now + LATENCY_EVERY, Event::Latency { host, life });
        }
    }
}
