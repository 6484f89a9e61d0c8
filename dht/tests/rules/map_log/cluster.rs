//! Small clusters and changes to them, for tests of the map log.

use deadwax_dht::log::{Change, History, Move, Proposal, Ticket, Token};
use deadwax_dht::{ClusterId, MAP_VERSION, MapSpec, Node, NodeId, Override, Policy, TokenName, Volume, VolumeId};
use deadwax_track::Partition;

// Not by `crate`: the tests of the system drive have this file, too.
pub(crate) use super::random::Random;

/// The version of the protocol at which they begin: golden bytes have it.
pub(crate) const PROTOCOL: u8 = 3;

pub(crate) fn node_id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

pub(crate) fn volume_id(node: u8, volume: u8) -> VolumeId {
    let mut bytes = [node; 16];
    bytes[15] = volume;
    VolumeId::from_bytes(bytes)
}

pub(crate) fn node(number: u8) -> Node {
    let volume = |volume| Volume { id: volume_id(number, volume), weight: 100 };
    Node {
        id: node_id(number),
        zone: if number.is_multiple_of(2) { "even" } else { "odd" }.to_owned(),
        rack: None,
        address: format!("10.0.0.{number}:7000"),
        volumes: vec![volume(1), volume(2)],
    }
}

/// Nodes 1 to `nodes`.
pub(crate) fn spec(nodes: u8) -> MapSpec {
    MapSpec {
        version: MAP_VERSION,
        cluster: ClusterId::from_bytes([7; 16]),
        epoch: 1,
        policy: Policy::default(),
        nodes: (1..=nodes).map(node).collect(),
        overrides: Vec::new(),
    }
}

pub(crate) fn voters(count: u8) -> Vec<NodeId> {
    (1..=count).map(node_id).collect()
}

pub(crate) fn history(nodes: u8, count: u8) -> History {
    History::genesis_at(PROTOCOL, spec(nodes), voters(count)).expect("a good genesis")
}

pub(crate) fn proposal(base: u64, number: u64, change: Change) -> Proposal {
    Proposal { ticket: Ticket { node: node_id(1), number }, base, change }
}

/// Makes `change` the next record.
pub(crate) fn push(history: &mut History, change: Change) {
    let record = history.decide(&proposal(history.epoch(), 0, change)).expect("a good change");
    history.append(&record).expect("what was decided can be taken");
}

/// A change that differs for each `number`, and that is possible as long as node 1 is in the map.
pub(crate) fn rack(number: u64) -> Change {
    Change::SetRack { node: node_id(1), rack: Some(format!("number {number}")) }
}

/// The move of a partition to the first volumes of three nodes.
pub(crate) fn move_to(history: &History, partition: Partition, nodes: [u8; 3]) -> Move {
    let old = history.state().holders(partition).sets().next().expect("one set").to_vec();
    Move { partition, old, new: nodes.map(|node| volume_id(node, 1)).to_vec() }
}

fn any_token(random: &mut Random) -> Token {
    let number = u8::try_from(random.below(6)).expect("small");
    Token { name: TokenName::from_bytes([number; 32]), until_ms: u64::from(number) }
}

/// Some change that came with the next version, or the step to it.
fn any_later_change(random: &mut Random, history: &History, fresh: &mut u8) -> Change {
    match random.below(3) {
        0 => Change::SetTokens((0..random.below(4)).map(|_| any_token(random)).collect()),
        1 => {
            let mut spec = history.state().spec().clone();
            *fresh += 1;
            spec.nodes.push(node(*fresh));
            Change::Admit { token: any_token(random).name, spec: Box::new(spec) }
        }
        _ => Change::Finalise { protocol: PROTOCOL + 1 },
    }
}

/// Some change that somebody who knows `history` may want: not always one that is possible.
pub(crate) fn any_change(random: &mut Random, history: &History, fresh: &mut u8) -> Change {
    let nodes: Vec<NodeId> = history.state().spec().nodes.iter().map(|node| node.id).collect();
    let volumes: Vec<VolumeId> =
        history.state().spec().nodes.iter().flat_map(|node| &node.volumes).map(|volume| volume.id).collect();
    let partition = Partition(u16::try_from(random.below(32)).expect("small"));
    let moving: Vec<Partition> = history.state().transitions().keys().copied().collect();
    match random.below(17) {
        0 => {
            *fresh += 1;
            Change::AddNode(node(*fresh))
        }
        1 => Change::RemoveNode(random.pick(&nodes)),
        2 => {
            let number = u8::try_from(random.below(250)).expect("small") + 3;
            Change::AddVolume { node: random.pick(&nodes), volume: Volume { id: volume_id(99, number), weight: 5 } }
        }
        3 => Change::RetireVolume(random.pick(&volumes)),
        4 => Change::SetDead { node: random.pick(&nodes), dead: random.percent(50) },
        5 => Change::SetRack { node: random.pick(&nodes), rack: Some(format!("rack {}", random.below(9))) },
        6 => {
            let mut chosen = volumes;
            (0..3).for_each(|at| {
                let other = random.index(chosen.len());
                chosen.swap(at, other);
            });
            chosen.truncate(3);
            Change::SetOverrides(vec![Override { partition, volumes: chosen.into() }])
        }
        7 => {
            let first = 1 + random.below(3);
            let nodes = [first, first + 1, first + 2].map(|node| u8::try_from(node).expect("small"));
            Change::Begin(vec![move_to(history, partition, nodes)])
        }
        8 if !moving.is_empty() => {
            let partition = random.pick(&moving);
            match history.state().transitions()[&partition].stage {
                deadwax_dht::log::Stage::Settled => Change::Finish(vec![partition]),
                deadwax_dht::log::Stage::Synced => {
                    Change::Advance { partitions: vec![partition], to: deadwax_dht::log::Stage::Settled }
                }
                deadwax_dht::log::Stage::Joint if random.percent(30) => Change::Abort(vec![partition]),
                deadwax_dht::log::Stage::Joint => {
                    Change::Advance { partitions: vec![partition], to: deadwax_dht::log::Stage::Synced }
                }
            }
        }
        10 => Change::SetLeaving { volumes: vec![random.pick(&volumes)], leaving: random.percent(60) },
        11 if random.percent(50) => {
            let mut spec = history.state().spec().clone();
            spec.nodes.retain(|node| node.id != nodes[0] || random.percent(70));
            if random.percent(20) {
                spec.epoch = spec.epoch.saturating_sub(1);
            }
            Change::Reshape { spec: Box::new(spec) }
        }
        14..=16 => any_later_change(random, history, fresh),
        9 if random.percent(30) => {
            let epoch = history.epoch().saturating_sub(random.below(5)).max(history.oldest());
            history.roll_back(epoch).expect("an epoch that is kept")
        }
        _ => Change::SetWeight {
            volume: random.pick(&volumes),
            weight: u32::try_from(random.below(1_000)).expect("small") + 1,
        },
    }
}
