//! What nodes say to each other and keep in files: bytes are one value, in its one form, or an error. The first byte says of
//! which kind.
#![no_main]

use deadwax_dht::Map;
use deadwax_dht::core::Envelope;
use deadwax_dht::liveness;
use deadwax_dht::log::{Batch, Durable, Message, Persist, Proposal, Record, State};
use deadwax_dht::rebalance::Command;
use deadwax_dht::takedown::{Receipt, Takedown};

/// Decodes, and where that gives a value sees that it has these bytes.
fn comes_back<T>(bytes: &[u8], decoded: Option<T>, encode: impl Fn(&T) -> Vec<u8>) {
    if let Some(value) = decoded {
        assert!(encode(&value) == bytes, "a second form of a value");
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 12 {
        0 => comes_back(bytes, Envelope::decode(bytes).ok(), Envelope::encode),
        1 => comes_back(bytes, Batch::decode(bytes).ok(), Batch::encode),
        2 => comes_back(bytes, Message::decode(bytes).ok(), Message::encode),
        3 => comes_back(bytes, Record::decode(bytes).ok(), Record::encode),
        4 => comes_back(bytes, State::decode(bytes).ok(), State::encode),
        5 => comes_back(bytes, Proposal::decode(bytes).ok(), Proposal::encode),
        6 => {
            comes_back(bytes, Takedown::decode(bytes).ok(), |takedown| takedown.encode().to_vec());
            comes_back(bytes, Receipt::decode(bytes).ok(), |receipt| receipt.encode().to_vec());
        }
        // The map is text that people edit: it has many forms, and all that it has is checked.
        7 => drop(std::str::from_utf8(bytes).map(Map::parse)),
        8 => comes_back(bytes, Command::decode(bytes).ok(), Command::encode),
        9 => comes_back(bytes, Durable::decode(bytes).ok(), Durable::encode),
        10 => comes_back(bytes, Persist::decode(bytes).ok(), Persist::encode),
        _ => {
            let Some((cluster, bytes)) = bytes.split_first_chunk() else { return };
            let _ = liveness::check(u64::from_le_bytes(*cluster), bytes);
        }
    }
});
