//! The mistakes on purpose: by which rules each is to be found, and the search for it.

use deadwax_dht::core::Bug;

use crate::check::Rule;
use crate::faults::FaultKind;
use crate::run::{Report, Scenario};
use crate::summary::Summary;

/// Every mistake is found by one of so many seeds.
pub const PLANTED_SEEDS_MAX: u64 = 240;

/// The rules that a mistake is to break: found by another one, by a panic even, it would show that a checker is blind.
const fn rules(bug: Bug) -> &'static [Rule] {
    match bug {
        Bug::AcknowledgeEarly => &[Rule::Durable],
        Bug::ForgetStandIn | Bug::CollectEarly => &[Rule::Needed],
        Bug::AcceptOldEpoch | Bug::SyncedEarly | Bug::SyncedByOne => &[Rule::FirstSet],
        // The dead are not asked whether they have a track.
        Bug::DownIsDead => &[Rule::FirstSet, Rule::AbsentOwed, Rule::NoFalseAbsent],
        Bug::AbsentUnproved | Bug::AbsentAnywhere => &[Rule::AbsentOwed, Rule::NoFalseAbsent],
        Bug::ServeStale | Bug::StaleWord => &[Rule::NoService],
        Bug::ResurrectAtEnd => &[Rule::Resurrection],
        Bug::KeepSeat | Bug::TakeAnySeat => &[Rule::OneSeat],
        Bug::NeverHalt => &[Rule::OneOfTwo],
        Bug::NeverPull | Bug::IgnoreRot => &[Rule::Convergence],
        Bug::ReceiptEarly => &[Rule::Receipts],
        Bug::NeverBusy => &[Rule::Bounds],
        Bug::FinaliseUnheard => &[Rule::Versions],
        Bug::PullAgain => &[Rule::Movement],
        Bug::LosePull => &[Rule::Standstill],
        Bug::ReadUnproved | Bug::ResumeAnywhere | Bug::StoreUnproved => &[Rule::Bytes],
    }
}

/// The faults among which a mistake shows that all kinds together seldom lead to; empty: all.
fn only(bug: Bug) -> Vec<FaultKind> {
    use FaultKind::{Crash, CrashLoop, DriveOut, Join, Leave, PairCut, SiteLoss, Upgrade, Weight, Zone};
    use FaultKind::{Isolated, LostDisk, MassTakedown, OldDisk, PartlyCut, RandomSplit, Rot, Takedown, ZoneSplit};
    match bug {
        // A holder comes back without what it missed, or lost, amid a move; for a moment only, as it gets that at once.
        Bug::SyncedByOne => vec![Crash, CrashLoop, DriveOut, Join, Leave, LostDisk, OldDisk, SiteLoss, Weight, Zone],
        // A node comes back while another that has more is away for so short a time that nobody should call it dead.
        Bug::DownIsDead => vec![Crash, CrashLoop, LostDisk, OldDisk, SiteLoss],
        // Nodes and witnesses are together on the small side of a cut.
        Bug::StaleWord => vec![Isolated, MassTakedown, PairCut, PartlyCut, RandomSplit, Takedown, ZoneSplit],
        // Amid the upgrade.
        Bug::FinaliseUnheard => vec![Upgrade],
        // A node pulls what it missed from one where it rotted.
        Bug::StoreUnproved => vec![Crash, CrashLoop, DriveOut, Isolated, Rot],
        _ => Vec::new(),
    }
}

/// The cluster in which a mistake shows, where that is not any.
const fn shape(bug: Bug) -> Option<&'static str> {
    match bug {
        // Some are no witnesses.
        Bug::StaleWord => Some("20 in 2 zones"),
        // Where there is a node to spare so much is moved from the dead that a seed takes minutes.
        Bug::DownIsDead => Some("3 in 3 zones"),
        _ => None,
    }
}

/// What a search for a mistake came to.
#[derive(Clone, Debug)]
pub struct Search {
    /// The first seed that finds the mistake by one of its rules; none: no seed does.
    pub found: Option<Report>,
    /// Seeds before it that break other rules only: these do not count.
    pub by_others: Vec<Report>,
}

impl Search {
    /// Looks for the mistake in [`PLANTED_SEEDS_MAX`] seeds, on so many threads.
    #[must_use]
    pub fn of(bug: Bug, threads: usize) -> Self {
        let scenario = |seed| Scenario { bug: Some(bug), only: only(bug), shape: shape(bug), ..Scenario::new(seed) };
        let (mut next, mut by_others) = (0, Vec::new());
        while next < PLANTED_SEEDS_MAX {
            let summary = Summary::of(next..PLANTED_SEEDS_MAX, threads, 1, &scenario);
            next += summary.runs;
            for report in summary.failures {
                if report.violations.iter().any(|broken| rules(bug).contains(&broken.rule)) {
                    return Self { found: Some(report), by_others };
                }
                by_others.push(report);
            }
        }
        Self { found: None, by_others }
    }
}
