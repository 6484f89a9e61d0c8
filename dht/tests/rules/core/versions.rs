//! Programs of two versions in one cluster, until an operator finalises it.

use deadwax_dht::NodeId;
use deadwax_dht::core::{CommandRefused, Input};
use deadwax_dht::rebalance::{Answer, Command, Named, Refused};
use deadwax_dht::wire::{Protocols, Unfit};

use super::village::{MINUTE, SECOND, Village};

const CELLS_OF: usize = 100;

fn spoken(oldest: u8, newest: u8) -> Protocols {
    Protocols::new(oldest, newest).expect("some")
}

fn old() -> Protocols {
    spoken(3, 3)
}

fn new() -> Protocols {
    spoken(3, 4)
}

fn finalise(village: &mut Village, protocol: u8) -> Result<Answer, CommandRefused> {
    village.try_command(Command::Finalise { protocol })
}

fn refused(why: Refused) -> Result<Answer, CommandRefused> {
    Err(CommandRefused::Planner(why))
}

fn named(nodes: &[NodeId]) -> Named {
    Named { first: nodes.to_vec(), count: nodes.len() }
}

/// The house runs another program from now on.
fn install(village: &mut Village, at: usize, protocols: Protocols) {
    village.spoken[at] = protocols;
    village.restart(at);
}

#[test]
fn a_cluster_is_finalised_once_every_node_speaks_the_version() {
    let mut village = Village::finalised_at(3, 5, 3, vec![new(), new(), new(), old(), new()]);
    village.run(MINUTE);
    let id = |village: &Village, at: usize| village.houses[at].node.id;
    let too_old = |nodes: &[NodeId]| refused(Refused::TooOld { protocol: 4, nodes: named(nodes) });
    assert_eq!(finalise(&mut village, 4), too_old(&[id(&village, 3)]));
    // One that was upgraded is rolled back: until the cluster is finalised it may be.
    install(&mut village, 4, old());
    village.run(MINUTE);
    let both = too_old(&[id(&village, 3), id(&village, 4)]);
    assert_eq!(finalise(&mut village, 4), both);
    assert_eq!(village.try_forecast(Command::Finalise { protocol: 4 }), both, "so says who is asked what it would do");
    assert!(village.houses.iter().all(|house| !house.halted && house.core.may_use(3) && !house.core.may_use(4)));
    install(&mut village, 3, new());
    install(&mut village, 4, new());
    let before = village.houses[0].core.epoch();
    assert!(matches!(village.try_forecast(Command::Finalise { protocol: 4 }), Ok(Answer::Forecast(_))));
    assert_eq!(village.houses[0].core.epoch(), before, "and does nothing");
    assert_eq!(finalise(&mut village, 4), Ok(Answer::Done { epoch: before + 1 }), "they are asked, and answer at once");
    village.run(MINUTE);
    assert!(village.houses.iter().all(|house| !house.halted && house.core.may_use(4) && !house.core.may_use(5)));
    assert_eq!(finalise(&mut village, 4), Ok(Answer::Done { epoch: before + 1 }), "it is so");
    assert_eq!(finalise(&mut village, 3), refused(Refused::Lowered { got: 3, finalised: 4 }));
    let all: Vec<NodeId> = (0..5).map(|at| id(&village, at)).collect();
    let Err(CommandRefused::Planner(Refused::TooOld { protocol: 5, nodes })) = finalise(&mut village, 5) else {
        panic!("nobody speaks it, the leader neither");
    };
    assert!(nodes.count == 5 && all.iter().all(|node| nodes.first.contains(node)), "{nodes:?}");
}

#[test]
fn a_program_that_does_not_speak_what_is_final_takes_no_part() {
    let mut village = Village::finalised_at(4, 5, 3, vec![spoken(3, 5); 5]);
    village.run(MINUTE);
    for (protocols, why) in
        [(old(), Unfit::TooOld { newest: 3, finalised: 4 }), (spoken(5, 6), Unfit::TooNew { oldest: 5, finalised: 4 })]
    {
        install(&mut village, 4, protocols);
        assert_eq!(village.houses[4].unfit, Some(why), "by what it kept");
        let house = &mut village.houses[4];
        assert_eq!((house.core.next_deadline(), house.core.step(village.now, Input::Tick)), (u64::MAX, vec![]));
    }
    install(&mut village, 4, spoken(4, 6));
    village.run(MINUTE);
    assert_eq!(village.houses[4].unfit, None);
    // One that joins learns it from the others.
    village.spoken = vec![old()];
    village.add_house();
    village.run(MINUTE);
    assert_eq!(village.houses[5].unfit, Some(Unfit::TooOld { newest: 3, finalised: 4 }));
}

#[test]
fn a_node_that_is_away_is_waited_for_or_declared_dead_and_stops_when_it_is_back() {
    let mut village = Village::finalised_at(3, 5, 3, vec![new(), new(), new(), new(), old()]);
    village.run(MINUTE);
    village.houses[4].up = false;
    let node = village.houses[4].node.id;
    assert_eq!(finalise(&mut village, 4), refused(Refused::TooOld { protocol: 4, nodes: named(&[node]) }));
    village.run(4 * MINUTE);
    let unspoken = refused(Refused::Unspoken { protocol: 4, nodes: named(&[node]) });
    assert_eq!(finalise(&mut village, 4), unspoken, "who knows what runs there by now?");
    village.command(Command::SetDead { node, dead: true });
    village.run(10 * SECOND);
    assert!(matches!(finalise(&mut village, 4), Ok(Answer::Done { .. })));
    village.houses[4].up = true;
    village.run(MINUTE);
    assert_eq!(village.houses[4].unfit, Some(Unfit::TooOld { newest: 3, finalised: 4 }));
    assert_eq!(village.houses[4].core.protocol(), 4, "it has kept why");
}

#[test]
fn records_of_a_later_program_end_a_node_only_where_they_are_news() {
    let mut village = Village::finalised_at(3, 5, 3, vec![old()]);
    village.run(MINUTE);
    let epoch = village.houses[1].core.epoch();
    assert!(village.step(1, Input::LaterRecords { epoch }).is_empty());
    assert_eq!(village.houses[1].unfit, None);
    village.step(1, Input::LaterRecords { epoch: epoch + 1 });
    assert_eq!(village.houses[1].unfit, Some(Unfit::Records { newest: 3 }));
}

#[test]
fn the_leader_of_many_asks_each_cell() {
    let mut spoken = vec![new(); CELLS_OF];
    (spoken[7], spoken[77]) = (old(), old());
    let mut village = Village::finalised_at(3, CELLS_OF, 3, spoken);
    let layout = village.houses[0].core.layout().expect("it has a map").clone();
    assert!(layout.cells().count() > 1);
    village.run(3 * MINUTE);
    let Err(CommandRefused::Planner(Refused::TooOld { nodes, .. })) = finalise(&mut village, 4) else {
        panic!("two are old");
    };
    let both = [7, 77].map(|at| village.houses[at].node.id);
    assert!(nodes.count == 2 && both.iter().all(|node| nodes.first.contains(node)), "{nodes:?}");
    install(&mut village, 7, new());
    install(&mut village, 77, new());
    village.run(MINUTE);
    assert!(matches!(finalise(&mut village, 4), Ok(Answer::Done { .. })));
}
