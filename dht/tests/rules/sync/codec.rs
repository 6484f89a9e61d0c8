//! Bytes of the messages.

use deadwax_dht::VolumeId;
use deadwax_dht::log::BadBytes;
use deadwax_dht::sync::{Body, Branch, Entry, MESSAGE_BYTES_MAX, Message, Settings, Sync};
use deadwax_track::{Partition, TrackId};
use proptest::prelude::*;

use super::network::node_id;

use crate::golden::{assert_golden, hex};

fn track(byte: u8) -> TrackId {
    let mut bytes = [byte; 32];
    bytes[..2].copy_from_slice(&[1, 2]);
    TrackId::from_bytes(bytes)
}

fn values() -> Vec<(&'static str, Message)> {
    let partition = Partition(0x0102);
    let root = Entry { branch: Branch::ROOT, digest: 7 };
    let branch = |depth, first| Entry { branch: Branch { depth, first }, digest: 0x0908_0706 };
    let compare = |number, echo, step, entries| Body::Compare {
        number,
        echo,
        step,
        wants: step > 0,
        range: (0, 65_536),
        entries,
    };
    let bodies = vec![
        ("compare", compare(9, 0, 0, vec![root])),
        ("compare deeper", compare(5, 9, 1, vec![branch(1, 0x1000), branch(4, 0x2345), branch(2, 0x2400)])),
        ("equal", compare(5, 9, 1, Vec::new())),
        ("ask", Body::Ask { partition, cell: 11 }),
        ("buckets", Body::Buckets { partition, salt: 3, digests: vec![1, 2, 0, 4] }),
        ("shorts", Body::Shorts { partition, salt: 3, bits: 2, buckets: vec![0, 3], shorts: vec![5, 6, 7] }),
        ("ids", Body::Ids { partition, has: vec![track(1), track(2)], salt: 3, wants: vec![8] }),
        ("offer", Body::Offer { number: 4, ids: vec![track(3)] }),
        ("has", Body::Has { number: 4, held: vec![true, false] }),
    ];
    let (from, to) = (VolumeId::from_bytes([0xaa; 16]), VolumeId::from_bytes([0xbb; 16]));
    bodies.into_iter().map(|(name, body)| (name, Message { from, to, body })).collect()
}

#[test]
fn every_message_keeps_its_golden_bytes() {
    let now: String = values().iter().map(|(name, message)| format!("{name}: {}\n", hex(&message.encode()))).collect();
    assert_golden(&now, "sync/golden.txt");
}

#[test]
fn every_message_comes_back_and_every_cut_and_extra_byte_is_found() {
    for (name, message) in values() {
        let bytes = message.encode();
        assert_eq!(Message::decode(&bytes), Ok(message), "{name}");
        for cut in 0..bytes.len() {
            assert!(Message::decode(&bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
        assert!(Message::decode(&[&bytes[..], &[0]].concat()).is_err(), "{name} with a byte more");
    }
}

#[test]
fn what_is_wrong_is_said() {
    assert!(matches!(Message::decode(&vec![0; MESSAGE_BYTES_MAX + 1]), Err(BadBytes::TooLong { .. })));
    let mut bytes = values()[0].1.encode();
    bytes[0] = 9;
    assert_eq!(Message::decode(&bytes), Err(BadBytes::Version(9)));
    bytes[0] = 1;
    bytes[33] = 99;
    assert!(matches!(Message::decode(&bytes), Err(BadBytes::Tag { got: 99, .. })));
}

fn survives(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(message) = Message::decode(bytes) {
        prop_assert_eq!(message.encode(), bytes);
        let mut sync = Sync::new(1, Settings::default(), 0);
        sync.open_volume(0, message.to, []);
        let holder = deadwax_dht::sync::Holder { volume: message.from, node: node_id(1), dead: false };
        for partition in [0x0102, 0x2345, 0x1001] {
            sync.set_partition(0, message.to, Partition(partition), true, &[holder]);
        }
        sync.handle_message(1, node_id(1), message);
        sync.poll(2);
        sync.handle_listed(3, 1, vec![track(1), track(9)]);
        sync.poll(60_000);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_give_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survives(&bytes)?;
    }

    #[test]
    fn messages_with_a_few_bytes_changed_are_survived(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
    ) {
        let values = values();
        let mut bytes = values[which.index(values.len())].1.encode();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        survives(&bytes)?;
    }
}
