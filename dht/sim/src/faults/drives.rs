//! Faults of drives.

use deadwax_dht::rebalance::Command;
use deadwax_dht::{Volume, VolumeId};

use super::{Active, FaultKind};
use crate::drive::{Drive, State};
use crate::probe::Probe;
use crate::world::World;

impl World {
    pub(super) fn begin_drive(&mut self, active: &mut Active) -> bool {
        let one = match active.kind {
            FaultKind::Rot | FaultKind::DriveLost | FaultKind::DriveAway => self.victim(),
            _ => self.some_member(),
        };
        let Some(one) = one.filter(|host| self.has_drive(*host)) else { return false };
        if active.kind == FaultKind::DriveLost && !self.light().contains(&one) {
            return false;
        }
        let drives = self.hosts[one as usize].drives.len();
        active.drive = self.faults.random.index(drives);
        let random = &mut self.faults.random;
        let drive = &mut self.hosts[one as usize].drives[active.drive];
        if drive.state != State::Serving {
            return false;
        }
        active.hosts.push(one);
        let volume = drive.id;
        match active.kind {
            FaultKind::Rot => {
                let chance = random.between(5, 60);
                for (id, copy) in &mut drive.tracks {
                    if random.percent(chance) {
                        copy.rot(id, random.percent(25));
                    }
                }
                self.strike(one);
            }
            FaultKind::DriveErrors => drive.errors = random.between(10_000, 600_000),
            FaultKind::DriveFull => drive.full = true,
            FaultKind::DriveSlow => drive.slow = random.between(5, 60),
            FaultKind::SystemSlow => self.hosts[one as usize].system.slow = random.between(10, 200),
            FaultKind::DriveOut | FaultKind::DriveAway => {
                drive.state = State::Out;
                self.volume_down(one, volume);
            }
            _ => {
                drive.state = State::Lost;
                self.strike(one);
                self.hosts[one as usize].drives[active.drive].tracks.clear();
                self.volume_down(one, volume);
            }
        }
        true
    }

    pub(super) fn end_drive(&mut self, active: &Active) {
        let host = active.hosts[0];
        let drive = &mut self.hosts[host as usize].drives[active.drive];
        match active.kind {
            FaultKind::DriveErrors => drive.errors = 0,
            FaultKind::DriveFull => drive.full = false,
            FaultKind::DriveSlow => drive.slow = 1,
            FaultKind::SystemSlow => self.hosts[host as usize].system.slow = 1,
            FaultKind::DriveOut => {
                drive.state = State::Serving;
                self.volume_up(host, active.drive);
            }
            FaultKind::DriveAway => self.take_back(host, active.drive),
            FaultKind::DriveLost => self.replace_drive(host, active.drive),
            _ => {}
        }
    }

    /// A drive comes back that the cluster gave up: nothing is left to move from it, and it has copies again by an operator's
    /// word.
    fn take_back(&mut self, host: u32, index: usize) {
        let volume = self.hosts[host as usize].drives[index].id;
        let layout = self.layout();
        let is_given_up = layout.state().leaving().contains(&volume);
        if is_given_up && layout.held_by(&volume).is_empty() && self.unsettled_tracks(&layout).is_none() {
            self.hit(Probe::DriveGivenUp);
        }
        self.hosts[host as usize].drives[index].state = State::Serving;
        self.volume_up(host, index);
        if is_given_up {
            self.command("take a drive back", [Command::DrainVolume { volume, drain: false }]);
        }
    }

    /// A new drive comes in place of one that was lost: another volume, and the old one leaves the map.
    fn replace_drive(&mut self, host: u32, index: usize) {
        let id = VolumeId::from_bytes(self.faults.random.bytes());
        let at = &mut self.hosts[host as usize];
        let old = std::mem::replace(&mut at.drives[index], Drive::new(id)).id;
        let node = at.id;
        let spec = self.newest.state().spec();
        let volumes = spec.nodes.iter().flat_map(|node| &node.volumes);
        let weight = volumes.filter(|volume| volume.id == old).map(|volume| volume.weight).next();
        self.volume_up(host, index);
        let Some(weight) = weight else { return };
        self.command(
            "replace a drive",
            [
                Command::AddVolume { node, volume: Volume { id, weight } },
                Command::DrainVolume { volume: old, drain: true },
                Command::RemoveVolume(old),
            ],
        );
    }
}
