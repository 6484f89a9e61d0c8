//! Movement: what is pulled is what was lost, missed or moved, and partitions move for a reason.

use std::collections::BTreeMap;

use deadwax_dht::VolumeId;
use deadwax_dht::log::Change;
use deadwax_dht::repair::Pull;
use deadwax_track::{Partition, TrackId};

use super::Rule;
use crate::probe::Probe;
use crate::world::World;

/// Of a hundred copies that are pulled in an era two may be of no use.
const USELESS_PERCENT: u64 = 2;
/// So many are allowed besides: a put, or a map, may overtake a pull.
const USELESS_SLACK: u64 = 2;

/// What was pulled since all was settled last.
#[derive(Debug, Default)]
pub(crate) struct Era {
    stored: u64,
    useless: u64,
    /// Good copies that a core had erased, by the epoch that it knew when it said so.
    erased: BTreeMap<(VolumeId, TrackId), u64>,
    /// Records that may be a reason to move.
    reasons: usize,
    /// How often each partition began to move.
    begun: BTreeMap<Partition, usize>,
}

impl World {
    /// A record is decided. From one settled state to the next a partition moves at most as many times for each record that is
    /// no move as it has copies: one copy after the other may have to go elsewhere.
    pub(crate) fn check_change(&mut self, change: &Change) {
        let Change::Begin(moves) = change else {
            self.checks.era.reasons += usize::from(!matches!(change, Change::Advance { .. }));
            return;
        };
        for each in moves {
            let (partition, most) = (each.partition, each.new.len() * self.checks.era.reasons);
            let begun = self.checks.era.begun.entry(partition).or_default();
            *begun += 1;
            if *begun > most || each.new.iter().all(|volume| each.old.contains(volume)) {
                let text =
                    format!("partition {} begins to move, {begun} times by now, {most} at most: {each:?}", partition.0);
                return self.checks.violate(Rule::Movement, text);
            }
        }
    }

    /// A core begins to pull: for a holder by its own map.
    pub(crate) fn check_pull(&mut self, host: u32, pull: &Pull) {
        let core = self.hosts[host as usize].core.as_ref();
        let layout = core.and_then(|core| core.layout());
        if !layout.is_some_and(|layout| layout.sets(pull.track.partition()).has(&pull.volume)) {
            let track = self.oracle.number(&pull.track);
            let text = format!("n{host} pulls track {track} for {}, which is no holder by its map", pull.volume);
            self.checks.violate(Rule::Movement, text);
        }
    }

    /// A core had a good copy erased that is not taken down: to pull it again only a move of the partition since the epoch
    /// at which it said so is a reason.
    pub(crate) fn note_released(&mut self, volume: VolumeId, id: TrackId, epoch: u64) {
        self.checks.era.erased.insert((volume, id), epoch);
    }

    /// A copy was pulled and stored, where a good one lay or not.
    pub(crate) fn check_pulled(&mut self, host: u32, volume: VolumeId, id: &TrackId, had_good: bool) {
        let erased = self.checks.era.erased.remove(&(volume, *id));
        let again = erased.is_some_and(|epoch| !self.newest.moved_since(id.partition(), epoch));
        let era = &mut self.checks.era;
        era.stored += 1;
        if !had_good && !again {
            return;
        }
        era.useless += 1;
        let (stored, useless) = (era.stored, era.useless);
        self.hit(Probe::Wasted);
        if useless > USELESS_SLACK + stored * USELESS_PERCENT / 100 {
            let track = self.oracle.number(id);
            let why = if had_good { "lay there" } else { "it had just erased" };
            let text =
                format!("n{host} pulls track {track}, of which a good copy {why}: {useless} such pulls of {stored}");
            self.checks.violate(Rule::Movement, text);
        }
    }
}
