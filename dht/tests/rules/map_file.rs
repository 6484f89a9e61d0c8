//! The map's text, and what is wrong with a bad one.

use deadwax_dht::{BadMap, ClusterId, Map, MapFileError, MapSpec, Node, NodeId, Override, Policy, Volume, VolumeId};
use deadwax_track::Partition;

fn node(number: u8) -> Node {
    Node {
        id: NodeId::from_bytes([number; 32]),
        zone: "home".to_owned(),
        rack: None,
        address: format!("127.0.0.1:{}", 7880 + u16::from(number)),
        volumes: vec![Volume { id: VolumeId::from_bytes([number; 16]), weight: 100 }],
    }
}

fn spec() -> MapSpec {
    MapSpec {
        version: 1,
        cluster: ClusterId::from_bytes([7; 16]),
        epoch: 1,
        policy: Policy::default(),
        nodes: vec![node(1), node(2), node(3)],
        overrides: vec![],
    }
}

const TEXT: &str = r#"version = 1
cluster = "07070707070707070707070707070707"
epoch = 1

[policy]
copies = 3
write_quorum = 2
zones_min = 2

[[nodes]]
id = "0101010101010101010101010101010101010101010101010101010101010101"
zone = "home"
address = "127.0.0.1:7881"

[[nodes.volumes]]
id = "01010101010101010101010101010101"
weight = 100
"#;

#[test]
fn the_text_keeps_its_form() {
    let mut one = spec();
    one.nodes.truncate(1);
    let map = Map::new(one).expect("a good map");
    assert_eq!(map.to_toml(), TEXT);
    assert_eq!(Map::parse(TEXT), Ok(map));
}

#[test]
fn a_small_cluster_is_allowed_and_reported() {
    assert_eq!(Map::new(spec()).expect("a good map").warnings(), Vec::<String>::new());
    let map = Map::parse(TEXT).expect("a good map");
    assert_eq!(map.warnings().len(), 2, "neither three copies nor a quorum of two");
    assert_eq!(map.holders(Partition(9)).len(), 1);
}

/// What is wrong with the good map after this change.
fn wrong(change: impl FnOnce(&mut MapSpec)) -> BadMap {
    let mut spec = spec();
    change(&mut spec);
    Map::new(spec).expect_err("a bad map")
}

#[test]
fn each_rule_is_held_and_named() {
    let one = NodeId::from_bytes([1; 32]);
    assert_eq!(wrong(|spec| spec.version = 2), BadMap::Version(2));
    assert_eq!(wrong(|spec| spec.epoch = 0), BadMap::Epoch);
    assert_eq!(wrong(|spec| spec.policy.copies = 0), BadMap::Copies(0));
    assert_eq!(wrong(|spec| spec.policy.write_quorum = 4), BadMap::WriteQuorum { write_quorum: 4, copies: 3 });
    assert_eq!(wrong(|spec| spec.policy.zones_min = 0), BadMap::ZonesMin(0));
    assert_eq!(wrong(|spec| spec.nodes.clear()), BadMap::NoNodes);
    assert_eq!(wrong(|spec| spec.nodes[1].id = one), BadMap::NodeTwice(one));
    assert_eq!(wrong(|spec| spec.nodes[1].volumes = spec.nodes[0].volumes.clone()), {
        BadMap::VolumeTwice(VolumeId::from_bytes([1; 16]))
    });
    assert_eq!(
        wrong(|spec| spec.nodes[1].address = "127.0.0.1:7881".to_owned()),
        BadMap::AddressTwice("127.0.0.1:7881".to_owned())
    );
    for address in ["", "nowhere", ":7881", "host:", "host:0", "host:70000", "a\nb:1"] {
        let wrong = wrong(|spec| spec.nodes[0].address = address.to_owned());
        assert!(matches!(wrong, BadMap::Address { .. } | BadMap::Name { field: "address", .. }), "{address}: {wrong}");
    }
    assert!(matches!(wrong(|spec| spec.nodes[0].zone.clear()), BadMap::Name { field: "zone", .. }));
    assert!(matches!(wrong(|spec| spec.nodes[0].rack = Some(String::new())), BadMap::Name { field: "rack", .. }));
    assert_eq!(wrong(|spec| spec.nodes[0].volumes.clear()), BadMap::NoVolumes(one));
    assert_eq!(wrong(|spec| spec.nodes[0].volumes[0].weight = 0), BadMap::Weight(VolumeId::from_bytes([1; 16])));
}

#[test]
fn overrides_move_a_partition_and_are_checked() {
    let volume = |number: u8| VolumeId::from_bytes([number; 16]);
    let over = |volumes: &[u8]| Override {
        partition: Partition(5),
        volumes: volumes.iter().map(|number| volume(*number)).collect(),
    };
    let mut moved = spec();
    moved.nodes.push(node(4));
    moved.overrides.push(over(&[4, 1, 2]));
    let text = Map::new(moved).expect("a good map").to_toml();
    let line = format!("[overrides]\n0005 = \"{} {} {}\"\n", volume(4), volume(1), volume(2));
    assert!(text.ends_with(&line), "{text}");
    for (bad, why) in
        [("5 = \"", "no partition"), ("+005 = \"", "line"), ("0005 = \"zz", "expected 32"), ("0005 = 5#", "line")]
    {
        let wrong = Map::parse(&text.replace("0005 = \"", bad)).expect_err("a bad line").to_string();
        assert!(wrong.contains(why), "{bad}: {wrong}");
    }
    let map = Map::parse(&text).expect("its own text");
    let holders: Vec<VolumeId> = map.holders(Partition(5)).iter().map(|holder| holder.volume).collect();
    assert_eq!(holders, [volume(4), volume(1), volume(2)]);
    assert!(matches!(
        wrong(|spec| spec.overrides.push(over(&[1, 2]))),
        BadMap::OverrideCount { got: 2, copies: 3, .. }
    ));
    let mut two = spec();
    two.nodes.truncate(2);
    two.overrides.push(over(&[2, 1]));
    let two = Map::new(two).expect("where nodes are fewer than copies, an override has one a node");
    assert_eq!(
        two.holders(Partition(5)).iter().map(|holder| holder.volume).collect::<Vec<_>>(),
        [volume(2), volume(1)]
    );
    assert!(matches!(wrong(|spec| spec.overrides.push(over(&[1, 2, 9]))), BadMap::OverrideVolume { .. }));
    assert!(matches!(wrong(|spec| spec.overrides.push(over(&[1, 2, 2]))), BadMap::OverrideNode { .. }));
    let twice = wrong(|spec| spec.overrides = vec![over(&[1, 2, 3]), over(&[1, 2, 3])]);
    assert_eq!(twice, BadMap::OverrideTwice(Partition(5)));
}

#[test]
fn a_wrong_key_or_value_names_its_line() {
    let say = |text: &str| Map::parse(text).expect_err("a bad map").to_string();
    let wrong = say(&TEXT.replace("zone = ", "zoned = "));
    assert!(wrong.contains("line 12") && wrong.contains("zoned"), "{wrong}");
    let wrong = say(&TEXT.replace("weight = 100", "weight = -1"));
    assert!(wrong.contains("line 17"), "{wrong}");
    assert!(say("no map at all").contains("line 1"));
    let newer = say("version = 2\nwhatever = true");
    assert_eq!(newer, "map has version 2, this program reads version 1: use a newer program");
}

#[test]
fn a_saved_map_is_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("map.toml");
    assert!(matches!(Map::load(&path), Err(MapFileError::Io { action: "read map", .. })));
    let map = Map::new(spec()).expect("a good map");
    map.save(&path).expect("written");
    map.save(&path).expect("written over");
    assert_eq!(Map::load(&path).expect("read"), map);
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1, "nothing is left beside it");
    std::fs::write(&path, "version = 1").expect("written");
    let wrong = Map::load(&path).expect_err("no map").to_string();
    assert!(wrong.contains("map.toml") && wrong.contains("cluster"), "{wrong}");
}
