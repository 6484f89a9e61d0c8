//! How a core stands, for operators.

use super::{Alarm, Core};
use crate::liveness::Report;
use crate::log::Consensus;
use crate::rebalance::{Progress, Stall};
use crate::repair::{RepairStatus, Stall as Waits};
use crate::wire::{
    Absence, CoreStatus, MoveStatus, NOT_UP_MAX, NotUp, PullStatus, RepairReport, WARNINGS_MAX, sentence,
};

impl Core {
    /// How it stands, as of the last step. Takes time by what is in motion and the nodes that are not up: for who asks.
    #[must_use]
    pub fn status(&self) -> CoreStatus {
        let Report { up, not_up, brakes, .. } = self.liveness().report();
        let down = not_up.len();
        let not_up = not_up.iter().take(NOT_UP_MAX).map(|each| NotUp {
            node: each.node,
            absence: if each.standing.is_dead() { Absence::Dead } else { Absence::Down },
            silent_ms: each.silent_ms,
        });
        let parted = self.parted().map(|node| Alarm::OtherLog { node }.to_string());
        let held = brakes.iter().map(|brake| brake.sentence(self.now));
        CoreStatus {
            epoch: self.epoch(),
            leader: self.voter().and_then(Consensus::leader),
            seat: self.voter().map(Consensus::seat),
            may_serve: self.may_serve().is_ok(),
            moves: self.progress().map(|progress| moves(&progress, self.now)),
            pulls: pulls(self.repair().status(self.now)),
            up: up as u64,
            down: down as u64,
            not_up: not_up.collect(),
            warnings: parted
                .chain(held)
                .chain(self.outages.sentences(self.now))
                .take(WARNINGS_MAX)
                .map(sentence)
                .collect(),
        }
    }

    /// How far it is with finding and mending what its volumes lack, as of the last step. Takes time by the pairs of
    /// volumes: for who asks.
    #[must_use]
    pub fn repair_report(&self) -> RepairReport {
        let (comparing, unanswered) = self.sync().unproved();
        let (_, suspected, _) = self.sync().pending();
        RepairReport {
            comparing: comparing as u64,
            unanswered: unanswered as u64,
            suspected: suspected as u64,
            pulls: pulls(self.repair().status(self.now)),
        }
    }
}

fn moves(progress: &Progress, now: u64) -> MoveStatus {
    MoveStatus {
        joint: progress.joint as u64,
        synced: progress.synced as u64,
        settled: progress.settled as u64,
        waiting_copies: progress.waiting_copies as u64,
        waiting_zones: progress.waiting_zones as u64,
        waiting_leaving: progress.waiting_leaving as u64,
        waiting_balance: progress.waiting_balance as u64,
        braked: progress.braked as u64,
        lost: progress.lost as u64,
        planning: progress.planning,
        stall: progress.stall.as_ref().map(|stall| sentence(stall.sentence(now))),
        stuck: progress.stall.as_ref().is_some_and(|stall| !matches!(stall, Stall::Reports { .. })),
    }
}

fn pulls(status: RepairStatus) -> PullStatus {
    // Where nothing is wanted nothing is stalled.
    let stall = status.stall.filter(|stall| *stall != Waits::Idle);
    PullStatus {
        classes: status.classes,
        tracks_left: status.tracks_left,
        bytes_left: status.bytes_left,
        rate_bytes_s: status.rate_bytes_s,
        rate_bytes_s_max: status.rate_bytes_s_max,
        oldest_ms: status.oldest_ms,
        tracks_pulled: status.tracks_pulled,
        bytes_pulled: status.bytes_pulled,
        pulls_failed: status.pulls_failed,
        wants_dropped: status.wants_dropped,
        stuck: stall.is_some_and(|stall| matches!(stall, Waits::DriveFull | Waits::DriveFailed | Waits::NoSource)),
        stall: stall.map(|stall| stall.to_string()),
    }
}
