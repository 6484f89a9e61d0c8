//! Schedules with names. Each is drawn from what once broke a rule, or nearly did; what a run finds is added here, cut down
//! to the faults that it takes. The load, the operator and the oracle are those of any other run.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use super::drives::DriveFault;
use super::fault::Fault;
use super::network::NetworkFault;
use super::operator::OperatorFault;
use super::processes::ProcessFault;
use super::schedule::Planned;

/// Faults at their times, all of one storm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// What went wrong once.
    about: &'static str,
    /// When each begins and when it is lifted, ms from the begin.
    faults: &'static [(u64, u64, Fault)],
}

const SCENARIOS: [Scenario; 9] = [
    Scenario {
        name: "removed-segment",
        about: "A segment's file is removed under a running master, which went on acknowledging puts into it",
        faults: &[(4_000, 14_000, Fault::Drive(DriveFault::LoseSegment { node: 0, salt: 1 }))],
    },
    Scenario {
        name: "drives-hang",
        about: "Drives of both zones hang, and stayed out after that until their masters were started anew",
        faults: &[(4_000, 11_000, hang(1)), (7_000, 14_000, hang(4))],
    },
    Scenario {
        name: "hangs-when-started",
        about: "Masters are killed, and their only drives hang just when they start: they ended, and did not come back",
        faults: &[(3_000, 4_000, kill(0)), (3_200, 4_200, kill(4)), (4_310, 14_000, hang(0)), (4_550, 12_000, hang(4))],
    },
    Scenario {
        name: "restarts-amid-unmount",
        about: "All masters are restarted by turns while one's drive is unmounted, on which it did not start again",
        faults: &[
            (3_000, 12_000, Fault::Drive(DriveFault::Unmount { node: 1 })),
            (3_500, 3_501, Fault::Operator(OperatorFault::RestartAll)),
        ],
    },
    Scenario {
        name: "zone-cut-amid-join",
        about: "A zone is cut off while a master joins: the answer to its join was lost, and it never heard that it is in",
        faults: &[
            (3_000, 3_001, Fault::Operator(OperatorFault::Join)),
            (3_200, 7_000, Fault::Network(NetworkFault::CutZone { zone: 0 })),
            (8_000, 11_000, Fault::Network(NetworkFault::CutZones)),
            (12_000, 15_000, Fault::Network(NetworkFault::CutZone { zone: 1 })),
        ],
    },
    Scenario {
        name: "leaders-die-amid-moves",
        about: "Whoever leads dies while copies move: the next one forgot a move that waited for room, and ended",
        faults: &[
            (3_000, 3_001, weigh(0, true)),
            (3_300, 13_000, drain(5)),
            (3_600, 3_601, weigh(3, false)),
            (4_000, 5_500, kill(0)),
            (5_700, 7_200, kill(1)),
            (7_400, 8_900, kill(2)),
            (9_100, 10_600, kill(3)),
            (10_800, 12_300, kill(4)),
        ],
    },
    Scenario {
        name: "segment-lost-amid-drain",
        about: "A master that is drained loses a segment, of which it may have none any more, and is wanted back",
        faults: &[
            (3_000, 16_000, drain(2)),
            (12_000, 14_000, Fault::Drive(DriveFault::LoseSegment { node: 2, salt: 1 })),
        ],
    },
    Scenario {
        name: "lookups-outlast-puts",
        about: "The gateway's links are bad: it said 404 of what was put meanwhile, from a lookup that began before",
        faults: &[
            (1_500, 14_000, Fault::Network(NetworkFault::Slow { node: 0 })),
            (1_500, 14_000, Fault::Network(NetworkFault::Slow { node: 3 })),
            (2_000, 5_000, Fault::Network(NetworkFault::CutFront { node: 1 })),
            (4_000, 5_000, Fault::Process(ProcessFault::KillGateway)),
            (6_000, 9_000, Fault::Network(NetworkFault::CutFront { node: 4 })),
            (8_000, 9_000, Fault::Process(ProcessFault::KillGateway)),
            (10_000, 13_000, Fault::Network(NetworkFault::CutFront { node: 2 })),
        ],
    },
    Scenario {
        name: "site-gone-for-minutes",
        about: "Sites are cut apart, and a master is stopped, for longer than all that anybody waits for but the half hour",
        faults: &[
            (4_000, 134_000, Fault::Network(NetworkFault::CutZones)),
            (6_000, 136_000, Fault::Process(ProcessFault::Stop { node: 4 })),
        ],
    },
];

const fn kill(node: usize) -> Fault {
    Fault::Process(ProcessFault::Kill { node })
}

const fn hang(node: usize) -> Fault {
    Fault::Drive(DriveFault::Hang { node })
}

const fn drain(node: usize) -> Fault {
    Fault::Operator(OperatorFault::DrainAndBack { node })
}

const fn weigh(node: usize, heavier: bool) -> Fault {
    Fault::Operator(OperatorFault::Weigh { node, heavier })
}

impl Scenario {
    /// Its faults in the order in which they begin, as far as they can be: without a stage some are left out.
    pub(crate) fn storm(&self, staged: bool) -> Vec<Planned> {
        let faults = self.faults.iter().filter(|(.., fault)| staged || !fault.needs_stage());
        let planned = |(index, (from_ms, until_ms, fault)): (usize, &(u64, u64, Fault))| Planned {
            number: index + 1,
            from_ms: *from_ms,
            until_ms: *until_ms,
            fault: *fault,
        };
        faults.enumerate().map(planned).collect()
    }
}

impl ValueEnum for Scenario {
    fn value_variants<'a>() -> &'a [Self] {
        &SCENARIOS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name).help(self.about))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::fault::SEVENTH;
    use super::super::schedule::clash;
    use super::*;

    /// A test of all of them is to take minutes; but for the one that is to last.
    const LONGEST_MS: u64 = 20_000;
    const LASTS: (&str, u64) = ("site-gone-for-minutes", 140_000);

    #[test]
    fn scenarios_are_short_and_could_have_been_drawn() {
        let names: BTreeSet<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        for scenario in SCENARIOS {
            let storm = scenario.storm(true);
            assert!(storm.is_sorted_by_key(|planned| planned.from_ms), "{}", scenario.name);
            let longest_ms = if scenario.name == LASTS.0 { LASTS.1 } else { LONGEST_MS };
            for (index, one) in storm.iter().enumerate() {
                assert!(one.from_ms < one.until_ms && one.until_ms <= longest_ms, "{}: {one}", scenario.name);
                let apart = storm[index + 1..].iter().all(|other| !clash(one, other));
                assert!(apart, "{}: {one} and another claim the same", scenario.name);
            }
            let hurt: BTreeSet<_> = storm.iter().filter_map(|planned| planned.fault.destroys()).collect();
            assert!(hurt.len() <= 1 && !hurt.contains(&SEVENTH), "{}: {hurt:?}", scenario.name);
        }
    }

    #[test]
    fn without_a_stage_a_scenario_does_what_needs_none() {
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == "restarts-amid-unmount").expect("there");
        let alone = scenario.storm(false);
        assert_eq!(alone.iter().map(|planned| planned.fault).collect::<Vec<_>>(), [scenario.faults[1].2]);
        assert_eq!(alone[0].number, 1);
    }
}
