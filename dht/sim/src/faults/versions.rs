//! Programs of two versions in one cluster: nodes are upgraded one by one, and rolled back, until the operator finalises it.
//!
//! Each run begins with some of either. Once it is finalised no node may have to stop: whoever leads says which nodes keep the
//! cluster from it, and the operator asks while some are upgraded still. A node that was rolled back may have been heard as
//! it was before, for three minutes: so none is in that time before the operator asks.

use deadwax_dht::rebalance::Command;
use deadwax_dht::wire::Protocols;

use super::Active;
use crate::clock::{MINUTE, Micros, SECOND};
use crate::probe::Probe;
use crate::random::Random;
use crate::world::{Event, Role, World};

/// The version at which clusters are founded, and the one after it.
pub(crate) const FOUNDED: u8 = 3;
pub(crate) const NEXT: u8 = 4;
/// Longer than what was heard of a node's program counts.
const HEARD: Micros = 4 * MINUTE;

/// What is being done about the programs.
#[derive(Debug)]
pub(crate) struct Fleet {
    random: Random,
    rolled_back_at: Option<Micros>,
    /// The operator has asked to finalise the cluster.
    asked: bool,
}

impl Fleet {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Random::stream(seed, 0x0f1ee7), rolled_back_at: None, asked: false }
    }

    /// The program that a machine begins with.
    pub(crate) fn program(&mut self) -> Protocols {
        program(if self.random.percent(50) { FOUNDED } else { NEXT })
    }
}

/// The program whose newest version this is.
fn program(newest: u8) -> Protocols {
    Protocols::new(FOUNDED, newest).expect("some")
}

impl World {
    fn runs_old(&self, host: u32) -> bool {
        self.hosts[host as usize].protocols.newest() < NEXT
    }

    /// All nodes are upgraded, one after the other; the operator has not the patience to wait for that.
    pub(super) fn begin_upgrade(&mut self, active: &mut Active, lasts: Micros) -> bool {
        let fleet = &mut self.faults.fleet;
        if fleet.asked || fleet.rolled_back_at.is_some_and(|at| self.now < at + HEARD) {
            return false;
        }
        fleet.asked = true;
        for host in 0..u32::try_from(self.hosts.len()).expect("few hosts") {
            if self.hosts[host as usize].role == Role::Spare {
                self.hosts[host as usize].protocols = program(NEXT);
            } else if self.runs_old(host) {
                active.hosts.push(host);
            }
        }
        let step = lasts / (active.hosts.len() as u64 + 1);
        for (turn, host) in (1..).zip(active.hosts.clone()) {
            self.queue.push(self.now + turn * step, Event::Install { host });
        }
        self.command("finalise the cluster", [Command::Finalise { protocol: NEXT }]);
        true
    }

    pub(super) fn end_upgrade(&mut self, active: &Active) {
        active.hosts.iter().for_each(|host| self.install(*host));
    }

    /// A node of the next version goes back to the one before.
    pub(super) fn begin_roll_back(&mut self, active: &mut Active) -> bool {
        let members = self.members();
        let new: Vec<u32> = members.into_iter().filter(|host| !self.runs_old(*host)).collect();
        let Some(host) = self.faults.random.pick(&new).filter(|_| !self.faults.fleet.asked) else { return false };
        self.faults.fleet.rolled_back_at = Some(self.now);
        active.hosts.push(host);
        self.hit(Probe::RolledBack);
        self.replace_program(host, program(FOUNDED));
        true
    }

    /// A node gets the next version, unless it has it.
    pub(crate) fn install(&mut self, host: u32) {
        if self.runs_old(host) {
            self.hit(Probe::Upgraded);
            self.replace_program(host, program(NEXT));
        }
    }

    fn replace_program(&mut self, host: u32, protocols: Protocols) {
        self.hosts[host as usize].protocols = protocols;
        if self.hosts[host as usize].core.is_some() {
            self.crash(host);
            let after = self.faults.random.between(SECOND / 2, 4 * SECOND);
            self.start_later(host, after);
        }
    }
}
