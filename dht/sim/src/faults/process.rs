//! Faults of processes: they die, hang, come back with other disks, or twice.

use deadwax_dht::VolumeId;
use deadwax_track::TrackId;

use super::{Active, FaultKind};
use crate::check::Rule;
use crate::clock::{Micros, SECOND};
use crate::probe::Probe;
use crate::world::{Event, Role, World};

/// Within this time of a whole network the older of two processes of one name hears of the other: in a small cluster each
/// asks each for takedowns within some 40 s, and whoever has heard of the later one tells the older.
const HALTS: Micros = 75 * SECOND;

impl World {
    pub(super) fn begin_process(&mut self, active: &mut Active, lasts: Micros) -> bool {
        let victim = self.victim().filter(|host| self.hosts[*host as usize].core.is_some());
        let one = match active.kind {
            // Those of most nodes must remember takedowns: so many may lose their memory at once.
            FaultKind::LostDisk | FaultKind::OldDisk => victim,
            FaultKind::LostSystem | FaultKind::OldSystem => victim.filter(|host| self.log_outlives(*host)),
            _ => self.some_member(),
        };
        let Some(one) = one else { return false };
        match active.kind {
            FaultKind::Upgrade => return self.begin_upgrade(active, lasts),
            FaultKind::Downgrade => return self.begin_roll_back(active),
            FaultKind::SiteLoss => {
                let zone = self.hosts[one as usize].zone;
                active.hosts = self.members();
                active.hosts.retain(|host| self.hosts[*host as usize].zone == zone);
            }
            FaultKind::QuorumLoss => {
                let voters = self.newest.state().voters().to_vec();
                let hosts = voters.iter().take(voters.len() / 2 + 1);
                active.hosts = hosts.filter_map(|voter| self.registry.get(&voter.node).copied()).collect();
                self.hit(Probe::QuorumLost);
            }
            FaultKind::Rolling => active.hosts = self.members(),
            FaultKind::Cloned => return self.begin_clone(active, one),
            _ => active.hosts.push(one),
        }
        match active.kind {
            FaultKind::Pause => self.pause(one),
            FaultKind::Crash if self.faults.random.percent(60) => self.hosts[one as usize].armed = true,
            FaultKind::CrashLoop => {
                for turn in 0..(lasts / (6 * SECOND)).clamp(2, 5) {
                    self.queue.push(self.now + turn * 6 * SECOND, Event::Bounce { host: one });
                }
            }
            FaultKind::Rolling => {
                let step = lasts / active.hosts.len() as u64;
                for (turn, host) in (0..).zip(active.hosts.clone()) {
                    self.queue.push(self.now + turn * step, crate::world::Event::Bounce { host });
                }
            }
            FaultKind::OldDisk => {
                self.take_images(one);
                self.crash_later(one, lasts / 2);
            }
            FaultKind::OldSystem => self.hosts[one as usize].system.take_image(),
            _ => {
                for host in active.hosts.clone() {
                    self.crash(host);
                }
                self.lose(active.kind, one);
            }
        }
        true
    }

    /// Restarts a process: in a loop, or one after the other.
    pub(crate) fn bounce(&mut self, host: u32) {
        if self.hosts[host as usize].core.is_some() && !self.hosts[host as usize].paused {
            self.crash(host);
            let after = self.faults.random.between(SECOND / 2, 4 * SECOND);
            self.start_later(host, after);
        }
    }

    fn crash_later(&mut self, host: u32, after: Micros) {
        self.queue.push(self.now + after, crate::world::Event::Bounce { host });
    }

    fn take_images(&mut self, host: u32) {
        for drive in &mut self.hosts[host as usize].drives {
            drive.image = Some(drive.tracks.clone());
        }
    }

    fn lose(&mut self, kind: FaultKind, host: u32) {
        let at = &mut self.hosts[host as usize];
        match kind {
            FaultKind::LostDisk => {
                self.strike(host);
                let at = &mut self.hosts[host as usize];
                let mut owed = Vec::new();
                for drive in &mut at.drives {
                    owed.extend(std::mem::take(&mut drive.tracks).into_keys().map(|id| (drive.id, id)));
                    drive.barred.clear();
                }
                self.owe_all(owed);
            }
            FaultKind::LostSystem => at.system = at.system.lost(),
            _ => return,
        }
        self.rebuild_takedowns();
    }

    pub(super) fn end_process(&mut self, active: &Active) {
        match active.kind {
            FaultKind::Pause => active.hosts.iter().for_each(|host| self.resume(*host)),
            FaultKind::Cloned => self.end_clone(active),
            FaultKind::OldDisk => {
                let host = active.hosts[0];
                self.crash(host);
                self.strike(host);
                let mut owed = Vec::new();
                for drive in &mut self.hosts[host as usize].drives {
                    if let Some(image) = drive.image.take() {
                        let before = std::mem::replace(&mut drive.tracks, image);
                        let gone = before.into_keys().filter(|id| !drive.tracks.contains_key(id));
                        owed.extend(gone.map(|id| (drive.id, id)));
                    }
                }
                self.owe_all(owed);
                self.start_later(host, SECOND);
            }
            FaultKind::OldSystem => self.restore_system(active.hosts[0]),
            FaultKind::Upgrade => self.end_upgrade(active),
            FaultKind::DeclaredDead | FaultKind::ManyEpochs => self.end_members(active),
            FaultKind::Crash => {
                self.hosts[active.hosts[0] as usize].armed = false;
                self.restart(active);
            }
            FaultKind::Silence | FaultKind::SiteLoss | FaultKind::QuorumLoss => self.restart(active),
            FaultKind::LostDisk | FaultKind::LostSystem => self.restart(active),
            _ => {}
        }
    }

    /// A node goes back to the old image of its system drive.
    fn restore_system(&mut self, host: u32) {
        let image = self.hosts[host as usize].system.old_image();
        // Others may have got seats since it was taken.
        if let Some(image) = image.filter(|_| self.log_outlives(host)) {
            self.crash(host);
            self.hosts[host as usize].system = image;
            self.rebuild_takedowns();
            self.start_later(host, SECOND);
        }
    }

    fn owe_all(&mut self, owed: Vec<(VolumeId, TrackId)>) {
        for (volume, id) in owed {
            let track = self.oracle.number(&id);
            self.owe(volume, track);
        }
    }

    fn restart(&mut self, active: &Active) {
        for host in &active.hosts {
            let after = self.faults.random.below(5 * SECOND);
            self.start_later(*host, after);
        }
    }

    /// A second process starts elsewhere under the name of a node, with a copy of what is on its system drive, but for a
    /// voter's promises: whoever copies a machine has not those, or two would vote for one.
    fn begin_clone(&mut self, active: &mut Active, of: u32) -> bool {
        if self.hosts.iter().any(|host| matches!(host.role, Role::Clone(_))) {
            return false;
        }
        active.hosts.push(of);
        let number = u32::try_from(self.hosts.len()).expect("few hosts");
        let at = &self.hosts[of as usize];
        let system = at.system.copy();
        let address = format!("10.99.0.{number}:7700").into();
        let clone = at.double(address, system, of, self.now);
        self.addresses.insert(clone.address.clone(), number);
        self.hosts.push(clone);
        self.start_later(number, 0);
        self.queue.push(self.now + HALTS, Event::Doubled { double: number });
        active.hosts.push(number);
        true
    }

    /// Looks, again and again, whether the older of two processes of one name has halted. It can know of the other only by
    /// some third node that is there.
    pub(crate) fn look_at_double(&mut self, double: u32) {
        let Role::Clone(of) = self.hosts[double as usize].role else { return };
        let (older, later) = (&self.hosts[of as usize], &self.hosts[double as usize]);
        let both = older.is_up() && later.is_up() && older.system.life < later.system.life;
        let hosts = (0_u32..).zip(&self.hosts);
        let thirds = hosts.filter(|(host, at)| ![of, double].contains(host) && at.is_up());
        let heard = thirds.map(|(_, at)| at.well_since).min().unwrap_or(self.now);
        let since = later.well_since.max(older.well_since).max(self.faults.whole_since).max(heard);
        if both && older.faults == 1 && self.network.is_whole() && self.now > since + HALTS {
            self.checks.violate(Rule::OneOfTwo, format!("n{of} goes on, though n{double} of its name started later"));
        }
        self.queue.push(self.now + 5 * SECOND, Event::Doubled { double });
    }

    /// Somebody finds the double and ends it for good.
    fn end_clone(&mut self, active: &Active) {
        let [of, double] = active.hosts[..] else { return };
        self.crash(double);
        let at = &mut self.hosts[double as usize];
        (at.role, at.halted) = (Role::Spare, false);
        let (address, life) = (at.address.clone(), at.system.life);
        self.addresses.remove(&address);
        let at = &mut self.hosts[of as usize];
        at.system.life = at.system.life.max(life);
        if at.halted {
            self.start_halted(of);
        }
    }
}
