//! What operators do, at the worst of times; and takedowns.

use deadwax_dht::log::{RECORDS_MAX, Voter};
use deadwax_dht::rebalance::Command;
use deadwax_dht::wire::PROTOCOL_OF_TOKENS;
use deadwax_dht::{Node, NodeId, TokenSecret};

use super::{Active, FaultKind};
use crate::clock::{MILLI, SECOND};
use crate::operator::stayers;
use crate::probe::Probe;
use crate::topology::zone_name;
use crate::trace::{Kind, NONE};
use crate::world::{Event, Role, World};

/// For how long a token is good, in ms: the log may have no quorum for long.
const TOKEN_MS: u64 = 24 * 3_600_000;
/// The job that makes many epochs.
const MANY: &str = "make many epochs";

impl World {
    /// Whether the map may be changed: not while a job has drives leave and come back.
    pub(super) fn may_change_map(&self) -> bool {
        self.operator.open().all(|job| job.what != MANY)
    }

    pub(super) fn begin_members(&mut self, active: &mut Active) -> bool {
        match active.kind {
            FaultKind::Join => self.join(),
            FaultKind::Leave => self.leave(),
            FaultKind::Weight => self.weight(),
            FaultKind::Zone => self.zone(),
            FaultKind::TwoAtOnce => {
                let one = if self.faults.random.percent(50) { self.join() } else { self.leave() };
                self.weight() && one
            }
            FaultKind::RollBack => self.roll_back(),
            FaultKind::Voters => self.voters(),
            FaultKind::DeclaredDead => self.declare_dead(active),
            FaultKind::Silence => self.silence(active),
            FaultKind::ManyEpochs => self.many_epochs(active),
            FaultKind::Takedown => self.take_down(1),
            _ => {
                let count = self.faults.random.between(5, 30);
                self.take_down(count)
            }
        }
    }

    fn join(&mut self) -> bool {
        let Some(host) = self.spare() else { return false };
        let node = self.topology.seats[host as usize].node();
        let at = &mut self.hosts[host as usize];
        at.role = Role::Member;
        at.well_since = self.now;
        self.start_later(host, SECOND);
        self.hit(Probe::Joins);
        self.command_join(node);
        true
    }

    /// By a token, where the cluster has them already.
    fn command_join(&mut self, node: Node) {
        if self.newest.state().protocol() < PROTOCOL_OF_TOKENS {
            return self.command("join", [Command::AddNode(node)]);
        }
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&self.operator.jobs.len().to_le_bytes());
        let token = TokenSecret::from_bytes(secret).name();
        let made = Command::MakeToken { name: token, ttl_ms: TOKEN_MS };
        self.command("join by a token", [made, Command::Admit { token, node }]);
    }

    fn leave(&mut self) -> bool {
        let light = self.light();
        let Some(host) = self.faults.random.pick(&light) else { return false };
        if self.members().len() <= 4 || self.faults.victim == Some(host) {
            return false;
        }
        let node = self.hosts[host as usize].id;
        self.command("leave", [Command::DrainNode { node, drain: true }, Command::RemoveNode(node)]);
        true
    }

    fn weight(&mut self) -> bool {
        let light = self.light();
        let Some(host) = self.faults.random.pick(&light) else { return false };
        let (volume, weight) = (self.hosts[host as usize].drives[0].id, self.faults.random.between(2, 14));
        let weight = u32::try_from(weight).expect("small");
        self.command("change a weight", [Command::SetWeight { volume, weight }]);
        true
    }

    fn zone(&mut self) -> bool {
        let light = self.light();
        let Some(host) = self.faults.random.pick(&light).filter(|_| self.topology.zones > 1) else { return false };
        let zone = (self.hosts[host as usize].zone + 1) % self.topology.zones;
        let node = self.hosts[host as usize].id;
        self.command("change a zone", [Command::SetZone { node, zone: zone_name(zone) }]);
        true
    }

    fn roll_back(&mut self) -> bool {
        let (oldest, newest) = (self.newest.oldest(), self.newest.epoch());
        if newest <= oldest {
            return false;
        }
        let to = self.faults.random.between(oldest, newest - 1);
        let Some(state) = self.newest.state_at(to) else { return false };
        // Nobody brings back nodes or drives that are no more.
        let there = |node: &Node| {
            let host = self.registry.get(&node.id).map(|host| &self.hosts[*host as usize]);
            host.is_some_and(|host| {
                host.is_member() && node.volumes.iter().all(|volume| host.drive(&volume.id).is_some())
            })
        };
        if !state.spec().nodes.iter().all(there) {
            return false;
        }
        let (spec, leaving) = (Box::new(state.spec().clone()), state.leaving().clone());
        self.command("roll back", [Command::RollBack { to, spec, leaving }]);
        true
    }

    fn voters(&mut self) -> bool {
        let mut nodes = stayers(self.newest.state());
        self.faults.random.shuffle(&mut nodes);
        let count = self.newest.state().voters().len().min(nodes.len());
        if count < 3 {
            return false;
        }
        nodes.truncate(count);
        if self.faults.random.percent(15) {
            // A name that the map does not have: refused, and nothing changes.
            nodes[0] = NodeId::from_bytes([7; 32]);
        }
        self.command("other voters", [Command::SetVoters(nodes)]);
        true
    }

    fn declare_dead(&mut self, active: &mut Active) -> bool {
        let light = self.light();
        let Some(host) = self.victim().filter(|host| light.contains(host)) else { return false };
        let node = self.hosts[host as usize].id;
        self.crash(host);
        active.hosts.push(host);
        self.strike(host);
        self.command("declare dead", [Command::SetDead { node, dead: true }]);
        true
    }

    /// A node misses so many records that nobody has them all any more when it comes back.
    fn many_epochs(&mut self, active: &mut Active) -> bool {
        let light = self.light();
        let (Some(host), Some(other)) = (self.faults.random.pick(&light), self.faults.random.pick(&light)) else {
            return false;
        };
        let is_up = self.hosts[host as usize].core.is_some();
        let busy = self.operator.open().next().is_some();
        if !is_up || busy || host == other || self.newest.state().seat_of(&self.hosts[host as usize].id).is_some() {
            return false;
        }
        self.crash(host);
        active.hosts.push(host);
        // Cheap ones: a drive is to leave and is not, before anything of it moves.
        let volume = self.hosts[other as usize].drives[0].id;
        let turns = (0..=RECORDS_MAX).map(|turn| Command::DrainVolume { volume, drain: turn % 2 == 0 });
        let last = [Command::DrainVolume { volume, drain: false }];
        self.command(MANY, turns.chain(last));
        true
    }

    pub(super) fn end_members(&mut self, active: &Active) {
        for host in &active.hosts {
            self.start_later(*host, SECOND);
        }
    }

    fn silence(&mut self, active: &mut Active) -> bool {
        let light = self.light();
        let Some(host) = self.victim().filter(|host| light.contains(host)) else { return false };
        self.crash(host);
        active.hosts.push(host);
        self.strike(host);
        true
    }

    /// Voters that lost their state do not vote any more: others do, in their place, or they themselves in new seats.
    pub(super) fn replace_voters(&mut self) {
        let state = self.newest.state().clone();
        let (sitting, lost): (Vec<Voter>, Vec<Voter>) =
            state.voters().iter().copied().partition(|voter| self.has_state(voter));
        if lost.is_empty() || !state.outgoing().is_empty() {
            return;
        }
        let votes = |node: &NodeId| state.voters().iter().any(|voter| voter.node == *node);
        let others = stayers(&state).into_iter().filter(|node| !votes(node));
        let heirs = others.chain(lost.iter().map(|voter| voter.node)).take(lost.len());
        let voters = sitting.iter().map(|voter| voter.node).chain(heirs).collect();
        self.command("replace voters", [Command::SetVoters(voters)]);
    }

    /// Whether what a voter promised is on its node's system drive. Who was given a seat and has not taken it yet has
    /// nothing there, and by a restart, or as it was a double, never will.
    fn has_state(&self, voter: &Voter) -> bool {
        let host = self.registry.get(&voter.node).map(|host| &self.hosts[*host as usize]);
        host.is_some_and(|host| host.system.seats.contains_key(&voter.seat))
    }

    /// Whether most voters keep their state where this host loses its own: a log of which most have lost it can decide
    /// nothing any more, not even who votes instead.
    pub(super) fn log_outlives(&self, host: u32) -> bool {
        let (state, node) = (self.newest.state(), self.hosts[host as usize].id);
        [state.voters(), state.outgoing()].into_iter().all(|voters| {
            let keep = voters.iter().filter(|voter| voter.node != node && self.has_state(voter)).count();
            voters.is_empty() || 2 * keep > voters.len()
        })
    }

    /// Whoever is back is declared alive.
    pub(super) fn revive(&mut self) {
        let dead: Vec<_> = self.newest.state().dead().iter().copied().collect();
        for node in dead {
            let back = self.registry.get(&node).is_some_and(|host| self.hosts[*host as usize].is_member());
            if back {
                self.command("declare alive", [Command::SetDead { node, dead: false }]);
            }
        }
    }

    fn take_down(&mut self, count: u64) -> bool {
        let issuers: Vec<u32> = (0..)
            .zip(&self.hosts)
            .filter(|(_, host)| host.issuer.is_some() && host.is_member())
            .map(|(at, _)| at)
            .collect();
        for _ in 0..count {
            let made = u64::from(self.oracle.len());
            let (Some(host), true) = (self.faults.random.pick(&issuers), made > 20) else { return false };
            let at = self.now + self.faults.random.below(2_000) * MILLI;
            // One that was put long ago, or one whose put is just under way.
            let track = if self.faults.random.percent(50) {
                u32::try_from(self.faults.random.below(made)).expect("below a u32")
            } else {
                let track = self.oracle.make(&mut self.faults.random, &self.topology.partitions);
                let before = at.saturating_sub(self.faults.random.below(60) * MILLI).max(self.now);
                self.queue.push(before, Event::PutNow { track });
                track
            };
            self.queue.push(at, Event::TakeDown { track, host });
        }
        true
    }

    /// What a node has that is cut off from all others is taken down elsewhere: it must stop in time.
    pub(super) fn take_down_what(&mut self, cut_off: u32) {
        let issuers = (0..).zip(&self.hosts).filter(|(at, host)| *at != cut_off && host.issuer.is_some());
        let issuers: Vec<u32> =
            issuers.filter(|(_, host)| host.is_up() && host.is_member()).map(|(at, _)| at).collect();
        let tracks = self.hosts[cut_off as usize].drives.iter().flat_map(|drive| drive.tracks.keys());
        let tracks: Vec<u32> = tracks.map(|id| self.oracle.number(id)).collect();
        for _ in 0..3 {
            let picked = (self.faults.random.pick(&issuers), self.faults.random.pick(&tracks));
            let (Some(host), Some(track)) = picked else { return };
            let at = self.now + self.faults.random.below(5_000) * MILLI;
            self.queue.push(at, Event::TakeDown { track, host });
        }
    }

    pub(crate) fn takedown_arrives(&mut self, track: u32, host: u32) {
        if !self.hosts[host as usize].is_up() {
            return;
        }
        self.note(Kind::Takedown, host, NONE, u64::from(track));
        let now = self.now;
        let known = self.oracle.get_mut(track);
        known.takedown_asked.get_or_insert(now);
        let id = known.id;
        let (time, reason) = (now / MILLI, "a court's order".to_owned());
        let input = deadwax_dht::core::Input::TakeDown { number: u64::from(track), track: id, time, reason };
        self.step(host, input);
    }

    pub(crate) fn taken_down(
        &mut self,
        host: u32,
        number: u64,
        result: &Result<deadwax_dht::takedown::Name, deadwax_dht::takedown::IssueError>,
    ) {
        let track = u32::try_from(number).expect("a track's number");
        self.note(Kind::TakenDown, host, u32::from(result.is_ok()), number);
        if result.is_ok() {
            self.hit(Probe::Takedowns);
            let now = self.now;
            self.oracle.get_mut(track).taken_down.get_or_insert(now);
        }
    }
}
