//! Which faults, when, and for how long: drawn from a seed before anything happens, so that a seed replays them.
//!
//! Faults come in *storms*. Within one they overlap, as far as they do not claim the same thing; after it the cluster has
//! time to heal, and everything is checked. All faults of a storm that destroy copies hit one node, its *victim*. Each storm
//! of several faults begins with a large change, by [`TURNS`]: what comes after hits a cluster that moves. Of three storms one
//! hurts masters of one zone only, that where the seventh comes and goes and most votes are: listeners must not notice.

use std::fmt;

use super::drives::DriveFault;
use super::fault::{Fault, MASTERS, MASTERS_A_ZONE, SEVENTH, ZONES, zone_of};
use super::network::NetworkFault;
use super::operator::OperatorFault;
use super::processes::ProcessFault;
use crate::tracks::Random;

/// A stop that outlasts every timeout of a request, of which the longest is 30 s. The scenario `site-gone-for-minutes` outlasts
/// what comes after them: leases, and the looks at a slow pull.
const STOP_LONG_MS: u64 = 32_000;
/// A cut between zones, or of one, that outlasts the failure detector: 7 s and a probe's period of silence for seven masters.
const CUT_LONG_MS: u64 = 12_000;
/// Of so many storms the second hits one zone alone: its reads must all be answered, by the other.
const ONE_ZONE_EVERY: usize = 3;
/// How long something claimed is left alone between two faults.
const PAUSE_MS: u64 = 300;
/// How often a fault is drawn anew where what it claims is taken.
const DRAWS_MAX: u32 = 50;
/// The first faults come after this much of a storm, so that the load has something to lose.
const CALM_MS: u64 = 500;

/// A fault of a storm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Planned {
    /// From 1, through all storms.
    pub(crate) number: usize,
    /// When it begins and when it is lifted, ms from the storm's begin.
    pub(crate) from_ms: u64,
    pub(crate) until_ms: u64,
    pub(crate) fault: Fault,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fault {}: {}", self.number, self.fault)
    }
}

/// What a run does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) seed: u64,
    pub(crate) faults: usize,
    /// Faults of a storm.
    pub(crate) storm: usize,
    /// How long the faults of a storm take to begin.
    pub(crate) storm_ms: u64,
    /// Whether there are networks and drives of our own to hurt.
    pub(crate) staged: bool,
    /// Whether an operator changes what the cluster is made of.
    pub(crate) changes: bool,
    /// Whether founders are replaced.
    pub(crate) replaces: bool,
}

/// A kind of fault, before it is drawn whom it hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Card {
    Kill,
    Stop,
    KillZone,
    KillGateway,
    SetClock,
    CutLink,
    CutOneWay,
    CutFront,
    CutZones,
    CutZone,
    Slow,
    Fill,
    Hang,
    Unmount,
    Rot,
    LoseSegment,
    Rejoin,
    RestartAll,
    DrainAndBack,
    Weigh,
    /// The next of [`TURNS`].
    Turn,
}

/// A large change of what the cluster is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Join,
    Leave,
    AddVolume,
    Replace,
    RetireVolume,
}

/// At most one of these is in a storm: one that undoes another must find it done. A run of two storms has a join and a
/// removal.
const TURNS: [Turn; 5] = [Turn::Join, Turn::Leave, Turn::AddVolume, Turn::Replace, Turn::RetireVolume];

/// How often each comes in a deck; what needs a network or drives of our own is second,
/// and what changes the cluster is third.
const ALWAYS: [(Card, usize); 8] = [
    (Card::Kill, 3),
    (Card::Stop, 2),
    (Card::KillZone, 1),
    (Card::KillGateway, 1),
    (Card::Rot, 2),
    (Card::LoseSegment, 1),
    (Card::Rejoin, 1),
    (Card::RestartAll, 1),
];
const STAGED: [(Card, usize); 10] = [
    (Card::SetClock, 1),
    (Card::CutLink, 2),
    (Card::CutOneWay, 2),
    (Card::CutFront, 1),
    (Card::CutZones, 1),
    (Card::CutZone, 1),
    (Card::Slow, 1),
    (Card::Fill, 1),
    (Card::Hang, 1),
    (Card::Unmount, 1),
];

const CHANGES: [(Card, usize); 3] = [(Card::DrainAndBack, 1), (Card::Weigh, 1), (Card::Turn, 1)];

/// All storms of a run.
pub(crate) fn plan(shape: &Shape) -> Vec<Vec<Planned>> {
    let mut random = Random::new(shape.seed);
    let mut deck = Vec::new();
    let mut storms: Vec<Vec<Planned>> = Vec::new();
    let mut turns = TURNS.into_iter().filter(|turn| shape.replaces || *turn != Turn::Replace).cycle();
    let (mut number, mut second) = (0, None);
    while number < shape.faults {
        let count = shape.storm.min(shape.faults - number);
        let alone = shape.storm > 1 && storms.len() % ONE_ZONE_EVERY == 1;
        let zone = alone.then_some(zone_of(SEVENTH));
        let victim = match zone {
            Some(zone) => zone * MASTERS_A_ZONE + below(&mut random, MASTERS_A_ZONE),
            None => below(&mut random, MASTERS),
        };
        let mut storm: Vec<Planned> = Vec::new();
        let mut turn = None;
        for index in 0..count {
            number += 1;
            let first = shape.changes && shape.storm > 1 && index == 0;
            let mut card = if first { Card::Turn } else { draw(&mut random, &mut deck, shape) };
            if card == Card::Turn && turn.is_some() {
                card = Card::Weigh;
            } else if card == Card::Turn {
                turn = turns.next();
            } else if zone.is_some()
                && (card == Card::RestartAll || (card, turn) == (Card::KillZone, Some(Turn::Replace)))
            {
                // Of the one zone, not the other; and who is replaced has been killed until the storm is over.
                card = Card::Kill;
            }
            let slot = shape.storm_ms / count as u64;
            let mut at = CALM_MS + index as u64 * slot + random.below(slot.max(1));
            let stops = storm.iter().any(|other| matches!(other.fault, Fault::Process(ProcessFault::Stop { .. })));
            if let (Card::Stop, false, Some(slack)) = (card, stops, shape.storm_ms.checked_sub(STOP_LONG_MS)) {
                // A storm's first stop is a long one, where the storm is long enough.
                at = CALM_MS + random.below(slack.max(1));
            }
            let cast = Cast { victim, second, turn, zone };
            storm.push(place(&mut random, shape, &storm, card, cast, number, at));
        }
        for planned in &storm {
            match planned.fault {
                Fault::Operator(OperatorFault::AddVolume { node }) => second = Some(node),
                Fault::Operator(OperatorFault::RetireVolume { .. }) => second = None,
                _ => {}
            }
        }
        storms.push(storm);
    }
    storms
}

/// The next card; a new deck is shuffled where the last has been dealt.
fn draw(random: &mut Random, deck: &mut Vec<Card>, shape: &Shape) -> Card {
    if deck.is_empty() {
        let cards = ALWAYS.iter().chain(if shape.staged { &STAGED[..] } else { &[] });
        let cards = cards.chain(if shape.changes { &CHANGES[..] } else { &[] });
        *deck = cards.flat_map(|(card, count)| std::iter::repeat_n(*card, *count)).collect();
        for last in (1..deck.len()).rev() {
            deck.swap(last, below(random, last + 1));
        }
    }
    deck.pop().expect("a new deck has cards")
}

/// What is so throughout a storm.
#[derive(Clone, Copy, Debug)]
struct Cast {
    /// The one node that loses copies.
    victim: usize,
    /// Who has a second drive when it begins.
    second: Option<usize>,
    /// The storm's large change.
    turn: Option<Turn>,
    /// Whose masters alone are hurt, where it is so.
    zone: Option<usize>,
}

/// A fault of this kind at about this time, that claims nothing that another has then.
fn place(
    random: &mut Random,
    shape: &Shape,
    storm: &[Planned],
    card: Card,
    cast: Cast,
    number: usize,
    mut from_ms: u64,
) -> Planned {
    loop {
        for _ in 0..DRAWS_MAX {
            let fault = fault(random, card, cast);
            let planned =
                Planned { number, from_ms, until_ms: from_ms + lasts_ms(random, shape, card, from_ms), fault };
            let fits = cast.zone.is_none_or(|zone| planned.fault.hurts().iter().all(|node| zone_of(*node) == zone));
            if fits && storm.iter().all(|other| !clash(&planned, other)) {
                return planned;
            }
        }
        // Whatever there is, ends: so this does.
        from_ms += PAUSE_MS;
    }
}

/// Whether two faults want the same thing at the same time.
pub(crate) fn clash(one: &Planned, other: &Planned) -> bool {
    let after = |planned: &Planned| match planned.fault {
        Fault::Operator(fault) if fault.takes_a_storm() => u64::MAX,
        _ => planned.until_ms + PAUSE_MS,
    };
    let apart = one.from_ms > after(other) || other.from_ms > after(one);
    let claims = other.fault.claims();
    !apart && one.fault.claims().iter().any(|claim| claims.contains(claim))
}

fn fault(random: &mut Random, card: Card, cast: Cast) -> Fault {
    let victim = cast.victim;
    let node = below(random, MASTERS);
    let other = (node + 1 + below(random, MASTERS - 1)) % MASTERS;
    let zone = below(random, ZONES.len());
    match card {
        Card::Kill => Fault::Process(ProcessFault::Kill { node }),
        Card::Stop => Fault::Process(ProcessFault::Stop { node }),
        Card::KillZone => Fault::Process(ProcessFault::KillZone { zone }),
        Card::KillGateway => Fault::Process(ProcessFault::KillGateway),
        Card::SetClock => {
            Fault::Process(ProcessFault::SetClock { node, forward_s: 60 * (1 + random.below(30 * 24 * 60)) })
        }
        Card::CutLink => Fault::Network(NetworkFault::CutLink { one: node.min(other), two: node.max(other) }),
        Card::CutOneWay => Fault::Network(NetworkFault::CutOneWay { from: node, to: other }),
        Card::CutFront => Fault::Network(NetworkFault::CutFront { node }),
        Card::CutZones => Fault::Network(NetworkFault::CutZones),
        Card::CutZone => Fault::Network(NetworkFault::CutZone { zone }),
        Card::Slow => Fault::Network(NetworkFault::Slow { node }),
        Card::Fill => Fault::Drive(DriveFault::Fill { node }),
        Card::Hang => Fault::Drive(DriveFault::Hang { node }),
        Card::Unmount => Fault::Drive(DriveFault::Unmount { node }),
        Card::Rot => Fault::Drive(DriveFault::Rot { node: victim, salt: random.next() }),
        Card::LoseSegment => Fault::Drive(DriveFault::LoseSegment { node: victim, salt: random.next() }),
        Card::Rejoin => Fault::Operator(OperatorFault::Rejoin { node: victim }),
        Card::RestartAll => Fault::Operator(OperatorFault::RestartAll),
        Card::DrainAndBack => Fault::Operator(OperatorFault::DrainAndBack { node }),
        Card::Weigh => Fault::Operator(OperatorFault::Weigh { node, heavier: random.below(2) == 0 }),
        Card::Turn => Fault::Operator(turn(random, cast)),
    }
}

fn turn(random: &mut Random, cast: Cast) -> OperatorFault {
    let Cast { victim, second, turn, .. } = cast;
    // Who loses copies is in nobody's way: what he still has may be the last. Nor is who has a drive that is to be retired.
    let others: Vec<usize> = (0..MASTERS).filter(|node| *node != victim && Some(*node) != second).collect();
    let node = others[below(random, others.len())];
    match turn.expect("a turn was taken") {
        Turn::Join => OperatorFault::Join,
        Turn::Leave => OperatorFault::Leave,
        Turn::Replace => OperatorFault::Replace { node },
        Turn::AddVolume => OperatorFault::AddVolume { node },
        Turn::RetireVolume => OperatorFault::RetireVolume { node: second.expect("one was added two turns before") },
    }
}

fn lasts_ms(random: &mut Random, shape: &Shape, card: Card, from_ms: u64) -> u64 {
    match card {
        Card::Stop if from_ms + STOP_LONG_MS <= shape.storm_ms + CALM_MS => STOP_LONG_MS,
        // Beyond the five seconds in which a node takes no bytes, and the three in which it sends none.
        Card::Stop => 5_500 + random.below(1_500),
        Card::CutZones | Card::CutZone if random.below(2) == 0 && from_ms + CUT_LONG_MS <= shape.storm_ms + CALM_MS => {
            CUT_LONG_MS
        }
        Card::KillZone | Card::CutZones | Card::CutZone | Card::Unmount => 3_000 + random.below(3_000),
        Card::Kill | Card::KillGateway | Card::Rejoin => 200 + random.below(2_500),
        // Beyond the three seconds after which a drive is given up, and the five after which it is probed.
        Card::Hang => 6_000 + random.below(6_000),
        Card::SetClock | Card::LoseSegment | Card::Fill => 1_500 + random.below(2_500),
        Card::CutLink | Card::CutOneWay | Card::CutFront | Card::Slow => 1_000 + random.below(5_000),
        Card::DrainAndBack => 3_000 + random.below(9_000),
        // It is done once it is done; what follows is the cluster's to mend, or the operator's to see through.
        Card::Rot | Card::RestartAll | Card::Weigh | Card::Turn => 1,
    }
}

fn below(random: &mut Random, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).expect("below a usize")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn shape(seed: u64) -> Shape {
        Shape { seed, faults: 100, storm: 20, storm_ms: 40_000, staged: true, changes: true, replaces: true }
    }

    #[test]
    fn a_seed_replays_its_faults_and_another_has_others() {
        assert_eq!(plan(&shape(7)), plan(&shape(7)));
        assert_ne!(plan(&shape(7)), plan(&shape(8)));
    }

    #[test]
    fn faults_are_as_many_as_asked_for_and_of_all_kinds() {
        let storms = plan(&shape(3));
        assert_eq!(storms.iter().map(Vec::len).collect::<Vec<_>>(), [20; 5]);
        let numbers: Vec<_> = storms.iter().flatten().map(|planned| planned.number).collect();
        assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
        let kinds: BTreeSet<_> = storms.iter().flatten().map(|planned| planned.fault.kind()).collect();
        assert_eq!(kinds.len(), ALWAYS.len() + STAGED.len() + CHANGES.len() - 1 + TURNS.len(), "{kinds:?}");
    }

    #[test]
    fn some_stop_outlasts_every_timeout_where_storms_are_long_enough() {
        let longest = |shape: &Shape| plan(shape).iter().flatten().map(|each| each.until_ms - each.from_ms).max();
        assert!((0..50).all(|seed| longest(&shape(seed)) == Some(STOP_LONG_MS)));
        let short = Shape { storm_ms: STOP_LONG_MS - 1, ..shape(1) };
        assert!(longest(&short) < Some(STOP_LONG_MS));
    }

    #[test]
    fn faults_that_overlap_claim_different_things_and_one_node_alone_loses_copies() {
        for seed in 0..50 {
            for storm in plan(&shape(seed)) {
                for (index, one) in storm.iter().enumerate() {
                    for other in &storm[index + 1..] {
                        assert!(!clash(one, other), "seed {seed}: {one} and {other}");
                    }
                }
                let victims: BTreeSet<_> = storm.iter().filter_map(|planned| planned.fault.destroys()).collect();
                assert!(victims.len() <= 1, "seed {seed}: {victims:?}");
            }
        }
    }

    #[test]
    fn every_third_storm_hurts_one_zone_alone() {
        for seed in 0..50 {
            // So many that each large change has its turn in a storm of one zone.
            for (index, storm) in plan(&Shape { faults: 20 * 20, ..shape(seed) }).iter().enumerate() {
                let hurts = storm.iter().flat_map(|planned| planned.fault.hurts());
                let zones: BTreeSet<_> = hurts.map(zone_of).collect();
                assert!(zones.len() == 2 || index % ONE_ZONE_EVERY == 1, "seed {seed}: {zones:?}");
                assert!(zones.len() <= 1 || index % ONE_ZONE_EVERY != 1, "seed {seed}: {zones:?}");
            }
        }
    }

    #[test]
    fn some_cut_of_a_zone_outlasts_the_failure_detector() {
        let is_cut =
            |fault: &Fault| matches!(fault, Fault::Network(NetworkFault::CutZones | NetworkFault::CutZone { .. }));
        for seed in 0..50 {
            let storms = plan(&Shape { faults: 200, ..shape(seed) });
            let cuts = storms.iter().flatten().filter(|planned| is_cut(&planned.fault));
            let lasts: BTreeSet<_> = cuts.map(|planned| planned.until_ms - planned.from_ms).collect();
            assert_eq!(lasts.last(), Some(&CUT_LONG_MS), "seed {seed}");
            assert!(lasts.first() < Some(&CUT_LONG_MS), "seed {seed}");
        }
    }

    #[test]
    fn large_changes_come_by_turns_once_a_storm_and_each_undoes_what_was_done() {
        for seed in 0..50 {
            let mut second = None;
            for (index, storm) in plan(&Shape { faults: 200, ..shape(seed) }).iter().enumerate() {
                let turns: Vec<_> =
                    storm.iter().filter_map(|planned| Some((turn_of(&planned.fault)?, planned))).collect();
                let [(turn, planned)] = turns[..] else { panic!("seed {seed}: {turns:?}") };
                assert_eq!(turn, TURNS[index % TURNS.len()], "seed {seed}: {planned}");
                match planned.fault {
                    Fault::Operator(OperatorFault::AddVolume { node }) => second = Some(node),
                    Fault::Operator(OperatorFault::RetireVolume { node }) => assert_eq!(second.take(), Some(node)),
                    Fault::Operator(OperatorFault::Replace { node }) => {
                        assert_ne!(second, Some(node), "seed {seed}: it has a second drive");
                        assert!(
                            storm.iter().all(|other| other.fault.destroys() != Some(node)),
                            "seed {seed}: {planned}"
                        );
                    }
                    _ => {}
                }
            }
        }
    }

    fn turn_of(fault: &Fault) -> Option<Turn> {
        let Fault::Operator(fault) = fault else { return None };
        Some(match fault {
            OperatorFault::Join => Turn::Join,
            OperatorFault::Leave => Turn::Leave,
            OperatorFault::Replace { .. } => Turn::Replace,
            OperatorFault::AddVolume { .. } => Turn::AddVolume,
            OperatorFault::RetireVolume { .. } => Turn::RetireVolume,
            _ => return None,
        })
    }

    #[test]
    fn without_a_stage_nothing_needs_one() {
        let storms = plan(&Shape { staged: false, ..shape(1) });
        assert!(storms.iter().flatten().all(|planned| !planned.fault.needs_stage()));
    }
}
