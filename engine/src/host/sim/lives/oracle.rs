//! What each track may be: the map that the engine is compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use deadwax_track::{ByteRange, TrackId};

use crate::sim::SimHost;
use crate::{Error, Presence, Volume};

/// What is known of an id. An operation that has begun widens what it may be; one that has ended narrows it, and so does
/// what a volume shows after it was opened, for all that it shows then is durable.
#[derive(Clone, Debug)]
pub struct Known {
    /// All of the track.
    pub bytes: Rc<[u8]>,
    /// It may be absent.
    pub absent: bool,
    /// It may be present.
    pub present: bool,
    /// The numbers of takedowns, one of which may bar it.
    pub barred: BTreeSet<u64>,
    /// It is being changed at the moment.
    pub busy: bool,
}

impl Known {
    /// Of a track that was never put.
    #[must_use]
    pub fn absent(bytes: Rc<[u8]>) -> Self {
        Self { bytes, absent: true, present: false, barred: BTreeSet::new(), busy: false }
    }

    /// Whether it is present for certain.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.present && !self.absent && self.barred.is_empty()
    }

    /// It is absent for certain.
    pub fn set_absent(&mut self) {
        (self.absent, self.present) = (true, false);
        self.barred.clear();
    }

    /// It is present for certain.
    pub fn set_present(&mut self) {
        (self.absent, self.present) = (false, true);
        self.barred.clear();
    }

    /// It is barred for certain, by this takedown.
    pub fn set_barred(&mut self, number: u64) {
        (self.absent, self.present) = (false, false);
        self.barred = BTreeSet::from([number]);
    }

    /// Whether it may be seen so.
    #[must_use]
    pub fn allows(&self, seen: Presence) -> bool {
        match seen {
            Presence::Absent => self.absent,
            Presence::Present { bytes } => self.present && bytes == self.bytes.len() as u64,
            Presence::TakenDown { number } => self.barred.contains(&number),
        }
    }

    /// What it may be, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("it may be absent: {}, present: {}, barred by {:?}", self.absent, self.present, self.barred)
    }

    /// Narrows to what a volume showed after it was opened.
    fn settle(&mut self, seen: Presence) {
        self.busy = false;
        match seen {
            Presence::Absent => self.set_absent(),
            Presence::Present { .. } => self.set_present(),
            Presence::TakenDown { number } => self.set_barred(number),
        }
    }
}

/// The map: what is known of each id that was ever used.
#[derive(Clone, Default, Debug)]
pub struct Oracle {
    /// By id.
    pub tracks: BTreeMap<TrackId, Known>,
}

impl Oracle {
    /// What is known of an id, which must have been used before.
    pub fn known(&mut self, id: &TrackId) -> &mut Known {
        self.tracks.get_mut(id).expect("only ids that were seen are used")
    }

    /// Compares volumes that were just opened with what they may hold, reads every track that they have, and takes over
    /// what they show. Answers how many tracks are present and how many ids are barred. Panics where the two differ.
    pub async fn settle(&mut self, volumes: &[Volume<SimHost>]) -> (u64, u64) {
        let (mut present, mut barred) = (0, 0);
        for (id, known) in &mut self.tracks {
            let volume = &volumes[id.shard(volumes.len())];
            let seen = volume.presence(id).await;
            let seen = seen.unwrap_or_else(|error| panic!("{id}: {error}"));
            assert!(known.allows(seen), "{id} is {seen:?}, of {} bytes: {}", known.bytes.len(), known.describe());
            if seen != Presence::Absent && matches!(seen, Presence::Present { .. }) {
                let read = compare(volume, id, &known.bytes, 0, known.bytes.len()).await;
                read.unwrap_or_else(|error| panic!("{id}: {error}"));
            }
            known.settle(seen);
            present += u64::from(known.present);
            barred += u64::from(!known.barred.is_empty());
        }
        (present, barred)
    }
}

/// Reads a range and compares it with the track: wrong bytes are a panic, errors are answered.
pub async fn compare(
    volume: &Volume<SimHost>,
    id: &TrackId,
    track: &[u8],
    start: usize,
    end: usize,
) -> Result<(), Error> {
    let range = ByteRange::new(start as u64, end as u64).expect("a range");
    let mut reader = volume.read(id, Some(range)).await?;
    let mut at = start;
    while let Some(block) = reader.next().await {
        for payload in block?.payloads() {
            assert!(track[at..].starts_with(payload), "{id}: wrong bytes at {at} of {}", track.len());
            at += payload.len();
        }
    }
    assert_eq!(at, end, "{id}: a range of {} bytes ended early", track.len());
    Ok(())
}
