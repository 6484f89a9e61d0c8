//! A new cluster's copies.

use deadwax_dht::{Map, MapSpec};

use super::cluster::{Random, counts, fullness_by_weight, mixed};

/// Asserts that no volume is off its share by weight by more than 1 %.
#[track_caller]
fn assert_even(spec: MapSpec, what: &str) -> Map {
    let map = Map::settled(spec).expect("a good map");
    let (emptiest, fullest) = fullness_by_weight(&map);
    assert!(emptiest >= 990_000 && fullest <= 1_010_000, "{what}: {emptiest} to {fullest} millionths of the share");
    map
}

#[test]
fn every_volume_has_its_share() {
    for seed in 0..12 {
        let mut dice = Random(seed);
        let spec = mixed(&mut dice, 100, &["a", "b"]);
        let plain = fullness_by_weight(&Map::new(spec.clone()).expect("a good map"));
        assert!(
            plain.1 > 1_030_000,
            "seed {seed}: rendezvous alone is off by more, else this tests nothing: {plain:?}"
        );
        let map = assert_even(spec, &format!("seed {seed}"));
        let overrides = map.spec().overrides.len();
        assert!(overrides < 9_000, "seed {seed}: {overrides} partitions are overridden");
    }
}

#[test]
fn zones_of_unlike_weight_are_equally_full_where_each_can_have_its_share() {
    // 60 % and 40 %, 65 % and 35 %: more than an even draw gives, less than the two copies of three that a zone may
    // have.
    for heavy in [60, 65] {
        let mut spec = mixed(&mut Random(7), 100, &["a", "b"]);
        for (number, node) in spec.nodes.iter_mut().enumerate() {
            node.zone = if number < heavy { "a" } else { "b" }.to_owned();
            node.volumes[0].weight = 1000;
        }
        assert_even(spec, &format!("{heavy} of 100 in a zone"));
    }
}

#[test]
fn a_zone_that_cannot_use_its_weight_is_even_within() {
    let mut spec = mixed(&mut Random(8), 40, &["a", "a", "a", "b"]);
    spec.nodes.iter_mut().for_each(|node| node.volumes[0].weight = 1000);
    let map = Map::settled(spec).expect("a good map");
    for (node, count) in map.nodes().iter().zip(counts(&map)) {
        // Two copies of each partition on 30 volumes, one on 10.
        let fair = if node.zone == "a" { 2 * 65_536 / 30 } else { 65_536 / 10 };
        assert!(count.abs_diff(fair) * 100 <= fair, "{count} of {fair} in zone {}", node.zone);
    }
}

#[test]
fn settling_is_a_function_of_the_map_and_its_text_says_all() {
    let spec = mixed(&mut Random(9), 30, &["a", "b", "c"]);
    let map = Map::settled(spec.clone()).expect("a good map");
    assert_eq!(map, Map::settled(spec).expect("a good map"));
    assert!(!map.spec().overrides.is_empty());
    let read = Map::parse(&map.to_toml()).expect("its own text");
    assert_eq!(read, map);
    assert_eq!(counts(&read), counts(&map));
}
