//! One node's repair, and names for what it wants.

use deadwax_dht::repair::{Pull, PullError, Reason, Repair, RepairSettings, Source, Want};
use deadwax_dht::{NodeId, VolumeId};
use deadwax_track::TrackId;

pub(crate) use crate::random::Random;

pub(crate) const SECOND: u64 = 1_000;
pub(crate) const MINUTE: u64 = 60 * SECOND;
pub(crate) const MB: u64 = 1_000_000;

/// A number below `bound`, which is small.
pub(crate) fn small(dice: &mut Random, bound: u64) -> u8 {
    u8::try_from(dice.below(bound)).expect("a small bound")
}

pub(crate) fn volume(number: u8) -> VolumeId {
    VolumeId::from_bytes([number; 16])
}

pub(crate) fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

/// The volume of node `number` that has tracks.
pub(crate) fn source(number: u8) -> Source {
    Source { volume: volume(100 + number), node: node(number), near: true }
}

/// In order of `number` within its partition.
pub(crate) fn track(partition: u16, number: u64) -> TrackId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&partition.to_be_bytes());
    // Spread as hashes are.
    bytes[2..10].copy_from_slice(&(number << 44).to_be_bytes());
    TrackId::from_bytes(bytes)
}

/// A track of 1 MB that is missing on volume 1, with two copies.
pub(crate) fn want(track: TrackId) -> Want {
    Want { volume: volume(1), track, bytes: MB, copies: 2, zoneless: false, reason: Reason::Missing }
}

/// One pull at a time, as fast as can be.
pub(crate) fn quick() -> RepairSettings {
    let (floor_bytes_s, ceiling_bytes_s) = (1_000_000 * MB, 1_000_000 * MB);
    RepairSettings { floor_bytes_s, ceiling_bytes_s, pulls_max: 1, ..RepairSettings::default() }
}

pub(crate) fn repair(settings: RepairSettings) -> Repair {
    Repair::new(settings, 7, 0)
}

/// The next pull, which succeeds at once.
pub(crate) fn pull(repair: &mut Repair, now: u64) -> Option<Pull> {
    let pull = repair.poll(now)?;
    repair.handle_pulled(now, pull.number, pull.bytes_hint, Ok(()));
    Some(pull)
}

/// All pulls up to `count`, each successful at once, at its time.
pub(crate) fn pulls(repair: &mut Repair, mut now: u64, count: usize) -> Vec<Pull> {
    let mut all = Vec::new();
    while all.len() < count {
        match pull(repair, now) {
            Some(pull) => all.push(pull),
            None if repair.next_deadline() == u64::MAX => break,
            None => now = repair.next_deadline().max(now),
        }
    }
    all
}

/// The next pull, which fails like this.
pub(crate) fn fail(repair: &mut Repair, now: u64, error: PullError) -> Pull {
    let pull = repair.poll(now).expect("a pull");
    repair.handle_pulled(now, pull.number, 0, Err(error));
    pull
}

/// Polls at each deadline until a pull comes or `until` has come: when, and which.
pub(crate) fn next(repair: &mut Repair, mut now: u64, until: u64) -> Option<(u64, Pull)> {
    loop {
        if let Some(pull) = repair.poll(now) {
            return Some((now, pull));
        }
        let at = repair.next_deadline();
        assert!(at > now, "due at {at}, but nothing came at {now}");
        if at > until {
            return None;
        }
        now = at;
    }
}
