//! Bytes of takedowns, heads, messages and receipts.

use std::fmt::Debug;

use deadwax_dht::VolumeId;
use deadwax_dht::log::BadBytes;
use deadwax_dht::takedown::{Answer, Ask, Basis, Heads, Receipt, Takedown};
use proptest::prelude::*;

use super::seeded::{issue, key, log, track};

use crate::golden::{assert_golden, hex};

fn values() -> Vec<(&'static str, Vec<u8>)> {
    let mut log = log(2);
    let mut records = issue(&mut log, 1, 0, 5);
    records.extend(issue(&mut log, 2, 10, 2));
    let receipt = Receipt::sign(&key(1), track(1), VolumeId::from_bytes([3; 16]), 1_700_000_000_000);
    let basis = Some(Basis { epoch: 7, half_age: 8_000, majority_age: 9_000 });
    let answer = Answer { synced: true, basis, heads: log.heads(), records: records[4..6].to_vec() };
    vec![
        ("takedown", records[0].encode().to_vec()),
        ("heads", log.heads().encode()),
        ("no heads", Heads::default().encode()),
        ("ask", Ask { known: log.locator() }.encode()),
        ("answer", answer.encode()),
        ("receipt", receipt.encode()),
    ]
}

/// Decodes `bytes` as the values called `name`, and encodes what came of it again.
fn again(name: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
    fn text(error: impl Debug) -> String {
        format!("{error:?}")
    }
    match name {
        "takedown" => Takedown::decode(bytes).map(|value| value.encode().to_vec()).map_err(text),
        "heads" | "no heads" => Heads::decode(bytes).map(|value| value.encode()).map_err(text),
        "ask" => Ask::decode(bytes).map(|value| value.encode()).map_err(text),
        "answer" => Answer::decode(bytes).map(|value| value.encode()).map_err(text),
        _ => Receipt::decode(bytes).map(|value| value.encode()).map_err(text),
    }
}

#[test]
fn every_value_keeps_its_golden_bytes() {
    let now: String = values().iter().map(|(name, bytes)| format!("{name}: {}\n", hex(bytes))).collect();
    assert_golden(&now, "takedown/golden.txt");
}

#[test]
fn every_value_comes_back_and_every_cut_and_extra_byte_is_found() {
    for (name, bytes) in values() {
        assert_eq!(again(name, &bytes).as_ref(), Ok(&bytes), "{name}");
        for cut in 0..bytes.len() {
            assert!(again(name, &bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
        assert!(again(name, &[&bytes[..], &[0]].concat()).is_err(), "{name} with a byte more");
    }
}

#[test]
fn a_value_has_one_form() {
    for (name, bytes) in values() {
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(written) = again(name, &flipped) {
                assert_eq!(written, flipped, "{name}, bit {bit}");
            }
        }
    }
}

#[test]
fn what_is_wrong_is_said() {
    let takedown = values().remove(0).1;
    let with = |at: usize, byte| {
        let mut bytes = takedown.clone();
        bytes[at] = byte;
        Takedown::decode(&bytes)
    };
    assert_eq!(with(0, 2), Err(BadBytes::Version(2)));
    assert_eq!(with(1, 79), Err(BadBytes::Tag { what: "a reason's length", got: 79 }));
    assert_eq!(with(191, 1), Err(BadBytes::Tag { what: "what follows a reason", got: 1 }));
    assert_eq!(with(114, 0xff), Err(BadBytes::Text));
    let long = vec![0; Answer::BYTES_MAX + 1];
    assert!(matches!(Answer::decode(&long), Err(BadBytes::TooLong { .. })));
    let mut count = Heads::default().encode();
    count[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Heads::decode(&count), Err(BadBytes::Short), "a count is not believed before the bytes are there");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_give_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for name in ["takedown", "heads", "ask", "answer", "receipt"] {
            if let Ok(written) = again(name, &bytes) {
                prop_assert_eq!(&written, &bytes);
            }
        }
    }

    #[test]
    fn bytes_with_a_few_changed_give_a_value_or_an_error(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let values = values();
        let (name, bytes) = &values[which.index(values.len())];
        let mut edited = bytes.clone();
        for (at, byte) in edits {
            let at = at.index(edited.len());
            edited[at] = byte;
        }
        if let Ok(written) = again(name, &edited) {
            prop_assert_eq!(written, edited);
        }
    }
}
