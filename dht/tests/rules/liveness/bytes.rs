//! Arbitrary bytes against a machine.

use std::collections::BTreeSet;

use deadwax_dht::liveness::{DATAGRAM_BYTES_MAX, Effect, Liveness, LivenessSettings, check};
use proptest::prelude::*;

use super::net::{id, map, one_cell};

fn machine(index: usize) -> Liveness {
    let map = map(&[3]);
    let mut machine = Liveness::new(id(index), 1, map.cluster().prefix(), 1, LivenessSettings::default(), 0);
    machine.set_map(0, &one_cell(&map), &BTreeSet::new(), &BTreeSet::new());
    machine
}

/// Honest datagrams of node 1 to node 0, of the kinds that come in its first seconds.
fn honest() -> Vec<Vec<u8>> {
    let mut machine = machine(1);
    let mut all = Vec::new();
    for now in (0..20_000).step_by(100) {
        for effect in machine.poll(now) {
            if let Effect::Send { to, bytes, .. } = effect
                && to == id(0)
            {
                all.push(bytes);
            }
        }
    }
    assert!(all.len() > 5, "{} datagrams", all.len());
    all
}

#[test]
fn strangers_are_not_heard() {
    let cluster = map(&[3]).cluster().prefix();
    for bytes in honest() {
        assert_eq!(check(cluster, &bytes), Ok(id(1)));
        let mut machine = machine(0);
        machine.handle_datagram(5, id(2), &bytes);
        machine.handle_datagram(5, id(77), &bytes);
        assert_eq!(machine.report().heard_ms, 0, "not from whom it says");
        machine.handle_datagram(5, id(1), &bytes);
        assert_eq!(machine.report().heard_ms, 5);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..DATAGRAM_BYTES_MAX + 9)) {
        let mut machine = machine(0);
        let _ = check(map(&[3]).cluster().prefix(), &bytes);
        machine.handle_datagram(1, id(1), &bytes);
        let _ = machine.poll(2);
        prop_assert_eq!(machine.report().heard_ms, 0);
    }

    #[test]
    fn altered_datagrams_are_survived_and_name_no_strangers(
        alterations in prop::collection::vec(prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), 1..20),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut machine = machine(0);
        let honest = honest();
        for (number, alteration) in alterations.iter().enumerate() {
            let mut bytes = honest[number % honest.len()].clone();
            for (at, byte) in alteration {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let now = 1 + number as u64 * 300;
            machine.handle_datagram(now, id(1), &bytes);
            for effect in machine.poll(now) {
                match effect {
                    Effect::Send { to, bytes, .. } => {
                        prop_assert!([id(1), id(2)].contains(&to) && bytes.len() <= DATAGRAM_BYTES_MAX);
                    }
                    Effect::Changed { node, .. } => prop_assert!([id(1), id(2)].contains(&node)),
                    Effect::Braked { .. } | Effect::Unbraked { .. } => {}
                }
            }
        }
    }
}
