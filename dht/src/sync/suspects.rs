//! Tracks that a peer has and a volume here lacks, for as long as a put may still bring them.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_track::TrackId;

use super::SUSPECTS_MAX;
use crate::{NodeId, VolumeId};

type Track = (VolumeId, TrackId);

#[derive(Default, Debug)]
pub(super) struct Suspects {
    /// When each is missing, and who has it.
    of: BTreeMap<Track, (u64, VolumeId, NodeId)>,
    due: BTreeSet<(u64, Track)>,
}

impl Suspects {
    /// The first peer that was seen with it stays.
    pub(super) fn add(&mut self, due: u64, track: Track, from: (VolumeId, NodeId)) {
        if self.of.len() < SUSPECTS_MAX && !self.of.contains_key(&track) {
            self.of.insert(track, (due, from.0, from.1));
            self.due.insert((due, track));
        }
    }

    /// The track came.
    pub(super) fn remove(&mut self, track: &Track) {
        if let Some((due, ..)) = self.of.remove(track) {
            self.due.remove(&(due, *track));
        }
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.due.first().map(|(due, _)| *due)
    }

    pub(super) fn due(&mut self, now: u64) -> Option<(Track, (VolumeId, NodeId))> {
        let (_, track) = self.due.first().copied().filter(|(due, _)| *due <= now)?;
        let (_, volume, node) = self.of[&track];
        self.remove(&track);
        Some((track, (volume, node)))
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }
}
