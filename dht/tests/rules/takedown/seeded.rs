//! Seeded randomness, keys and tracks.

use deadwax_dht::takedown::{Takedown, TakedownLog};
use deadwax_dht::{ClusterId, NodeKey};
use deadwax_track::TrackId;

pub(crate) use crate::random::Random;

pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);

pub(crate) fn key(number: u8) -> NodeKey {
    NodeKey::from_bytes(&[number; 32])
}

pub(crate) fn track(number: u64) -> TrackId {
    TrackId::of(&number.to_le_bytes())
}

/// A log that trusts issuers 1 to `issuers`.
pub(crate) fn log(issuers: u8) -> TakedownLog {
    let mut log = TakedownLog::new(CLUSTER);
    (1..=issuers).for_each(|number| log.allow(key(number).public()).expect("a good key"));
    log
}

/// Takedowns of tracks `first` to `first + count - 1` by `issuer`, issued on `log`.
pub(crate) fn issue(log: &mut TakedownLog, issuer: u8, first: u64, count: u64) -> Vec<Takedown> {
    let issue = |number| log.issue(&key(issuer), track(number), number, "licence ended").expect("not barred yet");
    (first..first + count).map(issue).collect()
}
