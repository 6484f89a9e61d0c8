//! Tracks that a peer has and a volume here lacks, for as long as a put may still bring them.

use std::collections::{BTreeMap, VecDeque};

use deadwax_track::TrackId;

use super::SUSPECTS_MAX;
use crate::{NodeId, VolumeId};

type Track = (VolumeId, TrackId);

/// By the time at which they are missing; all wait equally long.
#[derive(Default, Debug)]
pub(super) struct Suspects {
    of: BTreeMap<Track, (u64, VolumeId, NodeId)>,
    /// Some may have been taken out of `of`, and even be there again.
    queue: VecDeque<(u64, Track)>,
}

impl Suspects {
    /// The first peer that was seen with it stays.
    pub(super) fn add(&mut self, due: u64, track: Track, from: (VolumeId, NodeId)) {
        if self.queue.len() < SUSPECTS_MAX && !self.of.contains_key(&track) {
            self.of.insert(track, (due, from.0, from.1));
            self.queue.push_back((due, track));
        }
    }

    /// The track came, or its volume went.
    pub(super) fn remove(&mut self, track: &Track) {
        self.of.remove(track);
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.queue.front().map(|(due, _)| *due)
    }

    pub(super) fn due(&mut self, now: u64) -> Option<(Track, (VolumeId, NodeId))> {
        while let Some((due, track)) = self.queue.front().copied().filter(|(due, _)| *due <= now) {
            self.queue.pop_front();
            if self.of.get(&track).is_some_and(|entry| entry.0 == due) {
                let (_, volume, node) = self.of.remove(&track).expect("seen above");
                return Some((track, (volume, node)));
            }
        }
        None
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}
