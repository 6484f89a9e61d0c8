//! Seeded randomness, keys and tracks.

use deadwax_dht::takedown::{Takedown, TakedownLog};
use deadwax_dht::{ClusterId, NodeKey};
use deadwax_track::TrackId;

pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);

/// Seeded randomness (SplitMix64, Steele et al. 2014).
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("below a usize")
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

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
