//! The bytes of reports and commands.

use deadwax_dht::log::{BadBytes, VOTERS_MAX};
use deadwax_dht::rebalance::{COMMAND_BYTES_MAX, Command, Synced, old_holders_needed};
use deadwax_dht::{ClusterId, MAP_VERSION, MapSpec, Node, NodeId, Override, Policy, TokenName, Volume, VolumeId};
use deadwax_track::Partition;
use proptest::prelude::*;

use crate::golden::{assert_golden, hex};

fn report() -> Synced {
    let volume = VolumeId::from_bytes([9; 16]);
    Synced { volume, epoch: 0x0102_0304, partitions: vec![Partition(1), Partition(0x1234)] }
}

#[test]
fn a_report_keeps_its_golden_bytes() {
    let hex: String = report().encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, format!("010403020100000000{}0200000001003412", "09".repeat(16)));
    assert_eq!(Synced::decode(&report().encode()), Ok(report()));
}

#[test]
fn a_report_has_one_form() {
    let bytes = report().encode();
    for cut in 0..bytes.len() {
        assert!(Synced::decode(&bytes[..cut]).is_err());
    }
    assert_eq!(Synced::decode(&[&bytes[..], &[0]].concat()), Err(BadBytes::Extra(1)));
    let twice = Synced { partitions: vec![Partition(1), Partition(1)], ..report() };
    assert_eq!(Synced::decode(&twice.encode()), Err(BadBytes::Order("partitions")));
    let long = Synced { partitions: (0..4_097).map(Partition).collect(), ..report() };
    assert!(matches!(Synced::decode(&long.encode()), Err(BadBytes::TooLong { .. })));
}

#[test]
fn enough_old_holders_have_one_in_common_with_every_write() {
    let policy = Policy::default();
    assert_eq!([0, 1, 2, 3].map(|dead| old_holders_needed(&policy, 3, dead)), [2, 2, 1, 0]);
    let all = Policy { write_quorum: 3, ..policy };
    assert_eq!(old_holders_needed(&all, 3, 0), 1);
}

fn commands() -> Vec<(&'static str, Command)> {
    let (id, volume) = (NodeId::from_bytes([7; 32]), VolumeId::from_bytes([9; 16]));
    let last = VolumeId::from_bytes([10; 16]);
    let drive = Volume { id: volume, weight: 0x0102_0304 };
    let node = Node {
        id,
        zone: "Zürich".to_owned(),
        rack: Some("r1".to_owned()),
        address: "a:1".to_owned(),
        volumes: vec![drive],
    };
    let spec = MapSpec {
        version: MAP_VERSION,
        cluster: ClusterId::from_bytes([5; 16]),
        epoch: 3,
        policy: Policy::default(),
        nodes: vec![node.clone()],
        overrides: vec![Override { partition: Partition(7), volumes: [volume].into() }],
    };
    vec![
        ("add node", Command::AddNode(node.clone())),
        ("remove node", Command::RemoveNode(id)),
        ("add volume", Command::AddVolume { node: id, volume: drive }),
        ("remove volume", Command::RemoveVolume(volume)),
        ("drain node", Command::DrainNode { node: id, drain: true }),
        ("drain volume", Command::DrainVolume { volume, drain: false }),
        ("set weight", Command::SetWeight { volume, weight: 5 }),
        ("set zone", Command::SetZone { node: id, zone: "a".to_owned() }),
        ("set rack", Command::SetRack { node: id, rack: Some("b".to_owned()) }),
        ("set no rack", Command::SetRack { node: id, rack: None }),
        ("set address", Command::SetAddress { node: id, address: "c:2".to_owned() }),
        ("set policy", Command::SetPolicy(Policy { copies: 3, write_quorum: 2, zones_min: 1 })),
        ("roll back", Command::RollBack { to: 3, spec: Box::new(spec), leaving: [volume, last].into() }),
        ("set dead", Command::SetDead { node: id, dead: true }),
        ("set voters", Command::SetVoters(vec![id, NodeId::from_bytes([8; 32])])),
        ("finalise", Command::Finalise { protocol: 4 }),
        ("make token", Command::MakeToken { name: TokenName::from_bytes([6; 32]), ttl_ms: 0x0102_0304 }),
        ("revoke tokens", Command::RevokeTokens),
        ("admit", Command::Admit { token: TokenName::from_bytes([6; 32]), node }),
    ]
}

#[test]
fn commands_keep_their_golden_bytes() {
    let now: String =
        commands().iter().map(|(name, command)| format!("{name}: {}\n", hex(&command.encode()))).collect();
    assert_golden(&now, "rebalance/golden.txt");
}

#[test]
fn commands_come_back_and_every_cut_and_extra_byte_is_found() {
    for (name, command) in commands() {
        let bytes = command.encode();
        for cut in 0..bytes.len() {
            assert!(Command::decode(&bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
        assert_eq!(Command::decode(&[&bytes[..], &[0]].concat()), Err(BadBytes::Extra(1)), "{name}");
        assert_eq!(Command::decode(&bytes), Ok(command), "{name}");
    }
}

#[test]
fn a_command_has_one_form() {
    for (name, command) in commands() {
        let bytes = command.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = Command::decode(&flipped) {
                assert_ne!(other, command, "{name}, bit {bit}");
                assert_eq!(other.encode(), flipped, "{name}, bit {bit}");
            }
        }
    }
}

#[test]
fn what_was_leaving_is_named_once_and_in_order() {
    let spec = MapSpec {
        version: MAP_VERSION,
        cluster: ClusterId::from_bytes([5; 16]),
        epoch: 3,
        policy: Policy::default(),
        nodes: vec![],
        overrides: vec![],
    };
    let leaving = [1, 2].map(|id| VolumeId::from_bytes([id; 16])).into();
    let good = Command::RollBack { to: 3, spec: Box::new(spec), leaving }.encode();
    let start = good.len() - 16;
    for last in [0, 1] {
        let mut bytes = good.clone();
        bytes[start..].fill(last);
        assert_eq!(Command::decode(&bytes), Err(BadBytes::Order("leaving volumes")), "1, then {last}");
    }
}

#[test]
fn commands_are_bounded() {
    assert_eq!(Command::decode(&[3, 4]), Err(BadBytes::Version(3)));
    assert_eq!(Command::decode(&[2, 19]), Err(BadBytes::Tag { what: "command", got: 19 }));
    let long = vec![1; COMMAND_BYTES_MAX + 1];
    assert!(matches!(Command::decode(&long), Err(BadBytes::TooLong { what: "command", .. })));
    let voters = |count| Command::SetVoters(vec![NodeId::from_bytes([1; 32]); count]).encode();
    assert!(Command::decode(&voters(VOTERS_MAX)).is_ok());
    assert!(matches!(Command::decode(&voters(VOTERS_MAX + 1)), Err(BadBytes::TooLong { what: "list of voters", .. })));
    let mut count = voters(1);
    count[2..6].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Command::decode(&count), Err(BadBytes::Short), "a count is not believed before the bytes are there");
}

proptest! {
    #[test]
    fn any_bytes_give_a_command_or_an_error(tag in 0_u8..20, rest in prop::collection::vec(any::<u8>(), 0..120)) {
        for bytes in [[&[1, tag], &rest[..]].concat(), rest] {
            if let Ok(command) = Command::decode(&bytes) {
                prop_assert_eq!(command.encode(), bytes);
            }
        }
    }

    #[test]
    fn commands_with_a_few_bytes_changed_give_a_command_or_an_error(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let commands = commands();
        let mut bytes = commands[which.index(commands.len())].1.encode();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(command) = Command::decode(&bytes) {
            prop_assert_eq!(command.encode(), bytes);
        }
    }

    #[test]
    fn any_bytes_give_a_report_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..80), fix in any::<bool>()) {
        let mut bytes = bytes;
        if fix && !bytes.is_empty() {
            bytes[0] = 1;
        }
        if let Ok(report) = Synced::decode(&bytes) {
            prop_assert_eq!(report.encode(), bytes);
        }
    }
}
