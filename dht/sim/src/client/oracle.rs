//! What is true of each track, as clients were told it.

use std::collections::BTreeMap;

use deadwax_track::{Partition, TrackId};

use crate::clock::Micros;
use crate::random::Random;

/// A track that was put, or tried, or only asked for.
#[derive(Clone, Debug)]
pub(crate) struct Track {
    pub(crate) id: TrackId,
    pub(crate) bytes: u64,
    /// A put was tried: copies may lie about.
    pub(crate) tried: bool,
    /// When a put of it was acknowledged first.
    pub(crate) acked: Option<Micros>,
    /// When its takedown was asked for first.
    pub(crate) takedown_asked: Option<Micros>,
    /// When its takedown was answered: it is durable at one node.
    pub(crate) taken_down: Option<Micros>,
}

/// All tracks, numbered in order of their making.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) tracks: Vec<Track>,
    numbers: BTreeMap<TrackId, u32>,
}

impl Oracle {
    /// A new track in one of the partitions.
    pub(crate) fn make(&mut self, random: &mut Random, partitions: &[Partition]) -> u32 {
        let partition = random.pick(partitions).expect("a topology has partitions");
        let mut bytes: [u8; 32] = random.bytes();
        bytes[..2].copy_from_slice(&partition.0.to_be_bytes());
        let id = TrackId::from_bytes(bytes);
        let length =
            if random.percent(90) { random.between(20_000, 900_000) } else { random.between(1 << 20, 6 << 20) };
        let number = u32::try_from(self.tracks.len()).expect("fewer than 2^32 tracks");
        let (acked, takedown_asked, taken_down) = (None, None, None);
        self.tracks.push(Track { id, bytes: length, tried: false, acked, takedown_asked, taken_down });
        self.numbers.insert(id, number);
        number
    }

    pub(crate) fn get(&self, number: u32) -> &Track {
        &self.tracks[number as usize]
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> &mut Track {
        &mut self.tracks[number as usize]
    }

    pub(crate) fn number(&self, id: &TrackId) -> u32 {
        self.numbers.get(id).copied().unwrap_or(u32::MAX)
    }

    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.tracks.len()).expect("fewer than 2^32 tracks")
    }
}
