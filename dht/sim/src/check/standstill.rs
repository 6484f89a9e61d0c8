//! No silent stall: a core that has something to do, and does not get on with it, says why.

use deadwax_dht::rebalance::Progress;

use super::Rule;
use crate::clock::{MINUTE, Micros};
use crate::world::World;

/// A pull is given up two minutes after it began, and a drive may have some to write before it, slowly.
const SILENT_MAX: Micros = 5 * MINUTE;

/// How far a core is with what it has to do, and since when it stands there without a word.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standstill {
    pulls: Stand,
    moves: Stand,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stand {
    /// Whatever changes when something is done.
    mark: [u64; 5],
    /// Since when it has something to do, does nothing, and says nothing.
    since: Option<Micros>,
}

impl Stand {
    /// How long it has been silent, where it is.
    fn see(&mut self, now: Micros, mark: [u64; 5], silent: bool) -> Micros {
        let same = std::mem::replace(&mut self.mark, mark) == mark;
        self.since = silent.then(|| self.since.filter(|_| same).unwrap_or(now));
        self.since.map_or(0, |since| now - since)
    }
}

const fn partitions(progress: &Progress) -> usize {
    let Progress { joint, synced, settled, .. } = progress;
    let Progress { waiting_copies, waiting_zones, waiting_leaving, waiting_balance, .. } = progress;
    *joint + *synced + *settled + *waiting_copies + *waiting_zones + *waiting_leaving + *waiting_balance
}

impl World {
    /// Looks at every core.
    pub(crate) fn check_standstill(&mut self) {
        for host in 0..u32::try_from(self.hosts.len()).expect("few hosts") {
            if self.hosts[host as usize].is_up() {
                self.check_silence(host);
            } else {
                self.hosts[host as usize].standstill = Standstill::default();
            }
        }
    }

    fn check_silence(&mut self, host: u32) {
        let (now, at) = (self.now, &mut self.hosts[host as usize]);
        let (life, Some(core)) = (u64::from(at.life), &at.core) else { return };
        let repair = core.repair().status(at.clock.now_ms(now));
        let done = [repair.tracks_pulled, repair.pulls_failed, repair.wants_dropped];
        let silent = repair.tracks_left > 0 && repair.stall.is_none();
        let mark = [life, repair.tracks_left, repair.bytes_pulled, done[0], done[1] + done[2]];
        let pulls = at.standstill.pulls.see(now, mark, silent);
        let progress = core.progress().unwrap_or_default();
        let (left, commands) = (partitions(&progress), self.operator.unanswered(host));
        let silent = left + commands > 0 && progress.stall.is_none() && core.progress().is_some();
        let mark = [life, core.epoch(), self.operator.answers, progress.joint as u64, left as u64];
        let moves = at.standstill.moves.see(now, mark, silent);
        if pulls > SILENT_MAX {
            let text =
                format!("n{host} wants tracks, pulls none for {} s, and says nothing: {repair:?}", pulls / 1_000_000);
            self.checks.violate(Rule::Standstill, text);
        }
        if moves > SILENT_MAX {
            let text = format!(
                "n{host} leads, has {commands} commands to carry out, does nothing for {} s, and says nothing: {progress:?}",
                moves / 1_000_000
            );
            self.checks.violate(Rule::Standstill, text);
        }
    }
}
