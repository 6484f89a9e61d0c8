//! Going back to before a change, after what it moved has moved, whoever leads by then.

use std::collections::BTreeSet;

use deadwax_dht::core::CommandRefused;
use deadwax_dht::log::RECORDS_MAX;
use deadwax_dht::rebalance::{Answer, Command};
use deadwax_dht::{MapSpec, VolumeId};

use super::village::{MINUTE, Village};

/// As an operator gives it: the map is the leader's to know.
fn roll_back(village: &mut Village, to: u64) -> Result<Answer, CommandRefused> {
    let now = village.houses[0].core.layout().expect("it has a map").map().spec().clone();
    let spec = Box::new(MapSpec { epoch: to, nodes: Vec::new(), overrides: Vec::new(), ..now });
    village.try_command(Command::RollBack { to, spec, leaving: BTreeSet::new() })
}

fn done(answer: Result<Answer, CommandRefused>) -> u64 {
    match answer {
        Ok(Answer::Done { epoch }) => epoch,
        other => panic!("it is done: {other:?}"),
    }
}

fn weight(village: &Village, volume: &VolumeId) -> u32 {
    let map = village.houses[village.leader()].core.layout().expect("it has a map").map().clone();
    let mut volumes = map.nodes().iter().flat_map(|node| &node.volumes);
    volumes.find(|other| other.id == *volume).expect("it is there").weight
}

#[test]
fn a_change_is_taken_back_when_its_record_is_gone_by_whoever_leads_then() {
    let mut village = Village::new(5, 3);
    village.run(MINUTE);
    let volume = village.houses[4].volumes[0];
    let was = weight(&village, &volume);
    let node = village.houses[3].node.id;
    let before = done(village.try_command(Command::SetRack { node, rack: Some("r7".to_owned()) }));
    let changed = done(village.try_command(Command::SetWeight { volume, weight: 20 * was }));
    let enough = changed + RECORDS_MAX as u64 + 10;
    for _ in 0..100 {
        if village.houses[village.leader()].core.epoch() > enough {
            break;
        }
        village.run(MINUTE);
    }
    assert!(village.houses[village.leader()].core.epoch() > enough, "records of moves come between");
    let lead = village.leader();
    assert!(village.houses[lead].core.history().expect("it has one").record(changed).is_none(), "its record is gone");
    // A node that joins is given what was before the change, too.
    village.add_house();
    let joiner = village.houses[5].node.clone();
    done(village.try_command(Command::AddNode(joiner)));
    village.run(MINUTE);
    village.houses[lead].up = false;
    village.run(MINUTE);
    (0..6).filter(|at| *at != lead).for_each(|at| village.restart(at));
    village.run(MINUTE);
    assert!(village.leaders() == 1 && !village.houses[lead].up);
    village.houses[lead].up = true;
    for house in village.houses.iter().filter(|house| house.node.id != village.houses[lead].node.id) {
        let earlier = house.core.history().and_then(|history| history.earlier(before)).expect("it is known");
        let volumes = earlier.spec.nodes.iter().flat_map(|node| &node.volumes);
        assert_eq!(volumes.filter(|other| other.id == volume).map(|other| other.weight).collect::<Vec<_>>(), [was]);
    }
    done(roll_back(&mut village, before));
    assert_eq!(weight(&village, &volume), was);
    let layout = village.houses[village.leader()].core.layout().expect("it has a map").clone();
    assert_eq!(layout.map().node(&node).expect("there").rack.as_deref(), Some("r7"), "what was before stays");
    assert!(layout.state().leaving().contains(&village.houses[5].volumes[0]), "who came since is emptied");
    let newest = village.houses[village.leader()].core.epoch();
    let why = roll_back(&mut village, newest + 1_000).expect_err("there is none yet");
    assert!(matches!(why, CommandRefused::Forgotten { to, oldest: 1, .. } if to == newest + 1_000), "{why}");
}
