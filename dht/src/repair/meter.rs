//! What was moved in the last minute, and how old what is wanted is.

use std::collections::BTreeMap;

/// A minute has so many slots.
const SLOTS: u64 = 12;
const SLOT_MS: u64 = 60_000 / SLOTS;

/// Bytes by slots of five seconds.
#[derive(Debug, Default)]
pub(super) struct Meter {
    slots: [u64; 12],
    /// Of the newest slot, counted from time 0.
    slot: u64,
    /// Since when there is always something wanted: before that there was nothing to measure.
    since: u64,
}

impl Meter {
    /// Something is wanted, and nothing was before.
    pub(super) const fn begin(&mut self, now: u64) {
        self.since = now;
    }

    pub(super) fn add(&mut self, now: u64, bytes: u64) {
        let slot = now / SLOT_MS;
        let gone = slot.saturating_sub(self.slot).min(SLOTS);
        for back in 0..gone {
            self.slots[index(slot - back)] = 0;
        }
        self.slot = self.slot.max(slot);
        self.slots[index(slot)] += bytes;
    }

    /// Bytes a second, over the last 55 to 60 seconds, or what there is of them.
    pub(super) fn rate(&self, now: u64) -> u64 {
        let oldest = (now / SLOT_MS).saturating_sub(SLOTS - 1);
        let from = (self.slot.saturating_sub(SLOTS - 1)).max(oldest);
        let bytes: u64 = (from..=self.slot).map(|slot| self.slots[index(slot)]).sum();
        let start = (oldest * SLOT_MS).max(self.since);
        bytes.saturating_mul(1_000) / now.saturating_sub(start).max(1_000)
    }
}

fn index(slot: u64) -> usize {
    usize::try_from(slot % SLOTS).expect("a few slots")
}

/// How many there are by the second in which they came.
#[derive(Debug, Default)]
pub(super) struct Ages {
    by_second: BTreeMap<u32, u32>,
}

impl Ages {
    pub(super) fn add(&mut self, second: u32) {
        *self.by_second.entry(second).or_default() += 1;
    }

    pub(super) fn remove(&mut self, second: u32) {
        let count = self.by_second.get_mut(&second).expect("what goes came");
        *count -= 1;
        if *count == 0 {
            self.by_second.remove(&second);
        }
    }

    pub(super) fn oldest(&self) -> Option<u32> {
        self.by_second.first_key_value().map(|(second, _)| *second)
    }
}

/// The second of a time in ms.
pub(super) fn second(ms: u64) -> u32 {
    u32::try_from(ms / 1_000).unwrap_or(u32::MAX)
}
