//! A volume's handle on one executor, and what all its parts share.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::rc::Rc;

use deadwax_track::{Manifest, Partition, Tags, TrackId};
use serde::{Deserialize, Serialize};

use crate::commit::Commits;
use crate::config::VolumeConfig;
use crate::error::Error;
use crate::format::{Kind, RecordHeader};
use crate::host::{File as _, Host};
use crate::index::{Damaged, Entry, Index};
use crate::put::Put;
use crate::segment::Segment;
use crate::signal::{Permits, Signal};

/// What a volume knows of an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// It was never stored, or its put was not finished; or its record's header is damaged, which info and read tell.
    Absent,
    /// It is stored and durable.
    Present {
        /// Its length.
        bytes: u64,
    },
    /// It was taken down.
    TakenDown {
        /// The takedown's number.
        number: u64,
    },
}

/// What a record says of its track.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrackInfo {
    /// Its length.
    pub bytes: u64,
    /// Its tags, as they were put.
    pub tags: Tags,
    /// The hashes of its pieces, proved against the id.
    pub manifest: Manifest,
}

/// What a volume does at the moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// All it is asked.
    Open,
    /// Reads only, because writing failed: how. Until it is reopened.
    ReadOnly(String),
    /// Nothing.
    Closed,
}

/// Figures of one handle. A volume's are the sums over its shards.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// What the volume may hold: this handle's share.
    pub capacity_bytes: u64,
    /// What puts may still take, as far as can be told; the reserve is not part of it.
    pub free_bytes: u64,
    /// Tracks present.
    pub tracks: u64,
    /// Their bytes.
    pub track_bytes: u64,
    /// What their records take on the drive.
    pub record_bytes: u64,
    /// Ids taken down.
    pub takedowns: u64,
    /// What it does.
    pub state: VolumeState,
}

/// A partition, how many tracks it has here, and the XOR of the first 16 bytes of their ids.
pub type PartitionDigest = (Partition, u32, [u8; 16]);

/// A handle on a volume, for the executor that opened it. Clones are the same handle.
///
/// Open it with [`open`](Self::open). The ids with [`TrackId::shard`]`(shards) == shard` are its own; others are refused.
pub struct Volume<H: Host> {
    pub(crate) inner: Rc<Inner<H>>,
}

impl<H: Host> Clone for Volume<H> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

pub(crate) struct Inner<H: Host> {
    pub(crate) host: H,
    pub(crate) config: VolumeConfig,
    pub(crate) segments_dir: PathBuf,
    pub(crate) lock: RefCell<Option<H::Lock>>,
    pub(crate) state: RefCell<VolumeState>,
    pub(crate) index: RefCell<Index>,
    pub(crate) segments: RefCell<BTreeMap<u64, Rc<Segment<H::File>>>>,
    /// Where puts go.
    pub(crate) active: RefCell<Option<Rc<Segment<H::File>>>>,
    /// Where takedowns go when puts have filled the drive.
    pub(crate) reserve_segment: RefCell<Option<Rc<Segment<H::File>>>>,
    pub(crate) next_segment: Cell<u64>,
    /// Held by whoever makes a segment.
    pub(crate) creating: Rc<Permits>,
    pub(crate) commits: Commits<H>,
    /// Segments that failed since the last flush that succeeded.
    pub(crate) failures: Cell<u32>,
    pub(crate) puts: Rc<Permits>,
    pub(crate) writes: Rc<Permits>,
    /// Ids whose record is being written: one at a time.
    pub(crate) claims: Claims,
    pub(crate) abandoned: RefCell<Vec<Put<H>>>,
    pub(crate) janitor: Rc<Signal>,
}

impl<H: Host> Volume<H> {
    /// What the volume knows of the id. From memory.
    #[must_use]
    pub fn presence(&self, id: &TrackId) -> Presence {
        let index = self.inner.index.borrow();
        match (index.takedown(id), index.get(id)) {
            (Some(number), _) => Presence::TakenDown { number },
            (None, Some(entry)) => Presence::Present { bytes: entry.track_bytes },
            (None, None) => Presence::Absent,
        }
    }

    /// The track's tags and manifest. One device read.
    ///
    /// Errors: NotFound, TakenDown, Corrupt, Io.
    pub async fn info(&self, id: &TrackId) -> Result<TrackInfo, Error> {
        let entry = self.inner.find(id)?;
        let segment = self.inner.segment(entry.segment);
        let read = segment.file.read_at(entry.offset, entry.header_bytes as usize).await;
        if let Some(number) = self.inner.index.borrow().takedown(id) {
            return Err(Error::TakenDown { id: *id, number });
        }
        let bytes = read.map_err(|source| Error::io("read", &segment.path, source))?;
        let corrupt = |what: String| Error::Corrupt { id: *id, segment: segment.number, offset: entry.offset, what };
        let header = RecordHeader::decode(&bytes).map_err(|damage| corrupt(damage.to_string()))?;
        let expected = (Kind::Track, *id, entry.track_bytes, segment.generation, entry.offset);
        if (header.kind, header.id, header.track_bytes, header.generation, header.offset) != expected {
            return Err(corrupt("the header is another record's".to_owned()));
        }
        let tags = header.tags.decode().map_err(|error| corrupt(error.to_string()))?;
        let manifest = Manifest::proved(id, entry.track_bytes, header.pieces);
        let manifest = manifest.map_err(|error| corrupt(error.to_string()))?;
        Ok(TrackInfo { bytes: entry.track_bytes, tags, manifest })
    }

    /// What is stored, what is free, and how the volume is. From memory, but for the file system's free space.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let (capacity_bytes, free_bytes) = self.inner.capacity();
        let index = self.inner.index.borrow();
        Usage {
            capacity_bytes,
            free_bytes,
            tracks: index.tracks(),
            track_bytes: index.track_bytes(),
            record_bytes: index.record_bytes(),
            takedowns: index.takedowns(),
            state: self.inner.state.borrow().clone(),
        }
    }

    /// The digests of the `count` partitions from `first` on that hold tracks. From memory.
    #[must_use]
    pub fn digests(&self, first: Partition, count: u32) -> Vec<PartitionDigest> {
        self.inner.index.borrow().digests(first, count)
    }

    /// The ids of the partition's tracks that come after `after`, in order, at most `limit`. From memory.
    #[must_use]
    pub fn list(&self, partition: Partition, after: Option<TrackId>, limit: usize) -> Vec<TrackId> {
        self.inner.index.borrow().list(partition, after, limit)
    }

    /// Stops taking requests, waits for what is at the drive, and lets others open the volume. Puts that are not finished
    /// are aborted.
    pub async fn close(self) {
        let inner = self.inner;
        let state = std::mem::replace(&mut *inner.state.borrow_mut(), VolumeState::Closed);
        inner.writes.all_back().await;
        inner.commits.wait_idle().await;
        inner.claims.all_done().await;
        inner.clean_up().await;
        if state == VolumeState::Open {
            inner.mark_written().await;
        }
        inner.janitor.notify();
        inner.active.take();
        inner.reserve_segment.take();
        inner.lock.take();
    }
}

impl<H: Host> Inner<H> {
    /// Fails where the volume takes no writes.
    pub(crate) fn writable(&self) -> Result<(), Error> {
        match &*self.state.borrow() {
            VolumeState::Open => Ok(()),
            VolumeState::ReadOnly(why) => Err(Error::Fenced(format!("read-only until reopened: {why}"))),
            VolumeState::Closed => Err(Error::Fenced("closed".to_owned())),
        }
    }

    pub(crate) fn check_owned(&self, id: &TrackId) -> Result<(), Error> {
        let (shard, shards) = (self.config.shard, self.config.shards);
        match id.shard(shards) {
            own if own == shard => Ok(()),
            other => Err(Error::Invalid(format!("track {id} belongs to shard {other} of {shards}, not to {shard}"))),
        }
    }

    /// Fails where the id is present or taken down, or a damaged header says that it is taken down.
    pub(crate) fn check_absent(&self, id: &TrackId) -> Result<(), Error> {
        let index = self.index.borrow();
        if let Some(number) = index.takedown(id) {
            return Err(Error::TakenDown { id: *id, number });
        }
        if let Some(damaged) = index.damaged(id).filter(|damaged| damaged.takedown) {
            return Err(damaged_header(id, damaged));
        }
        index.get(id).map_or(Ok(()), |entry| Err(Error::AlreadyStored { id: *id, bytes: entry.track_bytes }))
    }

    pub(crate) fn find(&self, id: &TrackId) -> Result<Entry, Error> {
        self.check_owned(id)?;
        if *self.state.borrow() == VolumeState::Closed {
            return Err(Error::Fenced("closed".to_owned()));
        }
        let index = self.index.borrow();
        if let Some(number) = index.takedown(id) {
            return Err(Error::TakenDown { id: *id, number });
        }
        index
            .get(id)
            .ok_or_else(|| index.damaged(id).map_or(Error::NotFound(*id), |damaged| damaged_header(id, damaged)))
    }

    /// The segment that an index entry names.
    pub(crate) fn segment(&self, number: u64) -> Rc<Segment<H::File>> {
        self.segments.borrow().get(&number).expect("an entry's segment is open").clone()
    }

    /// Waits until nobody else writes a record of the id.
    pub(crate) async fn claim(self: &Rc<Self>, id: TrackId) -> Claim<H> {
        while !self.claims.ids.borrow_mut().insert(id) {
            self.claims.released.wait().await;
        }
        Claim { volume: self.clone(), id }
    }
}

fn damaged_header(id: &TrackId, damaged: Damaged) -> Error {
    let Damaged { segment, offset, .. } = damaged;
    Error::Corrupt { id: *id, segment, offset, what: "the record's header is damaged".to_owned() }
}

/// The ids whose record is being written.
#[derive(Default)]
pub(crate) struct Claims {
    ids: RefCell<HashSet<TrackId>>,
    released: Signal,
}

impl Claims {
    async fn all_done(&self) {
        while !self.ids.borrow().is_empty() {
            self.released.wait().await;
        }
    }
}

/// Held while a record of the id is written.
pub(crate) struct Claim<H: Host> {
    volume: Rc<Inner<H>>,
    id: TrackId,
}

impl<H: Host> Drop for Claim<H> {
    fn drop(&mut self) {
        self.volume.claims.ids.borrow_mut().remove(&self.id);
        self.volume.claims.released.notify();
    }
}
