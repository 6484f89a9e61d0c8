//! A volume's handle on one executor, and what all its parts share.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::rc::Rc;

use deadwax_track::{Manifest, Partition, Tags, TrackId};
use serde::{Deserialize, Serialize};

use crate::budget::Budget;
use crate::commit::Commits;
use crate::config::VolumeConfig;
use crate::damage::Findings;
use crate::error::Error;
use crate::format::ScrubPlace;
use crate::guard::{Guard, Guarded, Out};
use crate::host::Host;
use crate::index::{Change, Index};
use crate::lookup::Known;
use crate::put::Put;
use crate::scrub::Scrub;
use crate::segment::{Segment, Segments};
use crate::signal::{Permits, Signal};
use crate::table::Key;
use crate::unhurried::Unclaimed;

/// What a volume knows of an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// It is not stored: never, not to the end, or not any more.
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
    /// Nothing, because its drive fails all over or is gone: how. Until it is reopened.
    Out(String),
    /// Nothing, because its drive hangs or is too slow, or files were taken from it: how. Until it is reopened, which may go
    /// well by and by.
    Hung(String),
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
    pub(crate) inner: Rc<Inner<Guarded<H>>>,
}

impl<H: Host> Clone for Volume<H> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

pub(crate) struct Inner<H: Host> {
    pub(crate) host: H,
    pub(crate) guard: Rc<Guard>,
    pub(crate) config: VolumeConfig,
    pub(crate) segments_dir: PathBuf,
    pub(crate) snapshots_dir: PathBuf,
    pub(crate) lock: RefCell<Option<H::Lock>>,
    pub(crate) state: RefCell<VolumeState>,
    /// Whether the file system punches holes, and tells where they are.
    pub(crate) holes: Cell<bool>,
    pub(crate) index: RefCell<Index>,
    pub(crate) segments: RefCell<Segments<H::File>>,
    /// Segments that are not sealed and will be.
    pub(crate) open_segments: RefCell<BTreeSet<u64>>,
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
    /// Memory of puts that are begun, of what is on its way to the drive, of readers, and of headers that are read.
    pub(crate) puts: Rc<Budget>,
    pub(crate) writes: Rc<Budget>,
    pub(crate) reads: Rc<Budget>,
    pub(crate) lookups: Rc<Budget>,
    /// Ids whose record is being written: one at a time.
    pub(crate) claims: Claims,
    pub(crate) abandoned: RefCell<Vec<Put<H>>>,
    pub(crate) unclaimed: Unclaimed,
    /// Tracks of which a failed put may have left a record that the next start finds. Few: a second failure fences the volume.
    pub(crate) ghosts: RefCell<HashSet<TrackId>>,
    /// Records and bytes that no snapshot has yet.
    pub(crate) since_snapshot: Cell<(u64, u64)>,
    pub(crate) scrub_place: Cell<ScrubPlace>,
    pub(crate) scrub: Scrub,
    pub(crate) compacting: Cell<bool>,
    /// Notified when compaction ends.
    pub(crate) compacted: Signal,
    pub(crate) findings: Findings,
    /// Held by whoever writes listings, footers or the snapshot.
    pub(crate) keeping: Rc<Permits>,
    /// Wakes [`upkeep`](crate::upkeep).
    pub(crate) upkeep: Rc<Signal>,
}

impl<H: Host> Volume<H> {
    /// What the volume knows of the id. From memory where it is absent, which is certain; else one device read.
    ///
    /// Errors: Corrupt or Io (there is a record that may be the id's, and it cannot be read), Fenced.
    pub async fn presence(&self, id: &TrackId) -> Result<Presence, Error> {
        self.inner.check_readable(id)?;
        Ok(match self.inner.look_up(id).await? {
            Known::Nothing => Presence::Absent,
            Known::Track(record) => Presence::Present { bytes: record.header.track_bytes },
            Known::Takedown(record) => Presence::TakenDown { number: record.header.takedown },
        })
    }

    /// The track's tags and manifest. One device read.
    ///
    /// Errors: NotFound, TakenDown, Corrupt, Io, Fenced.
    pub async fn info(&self, id: &TrackId) -> Result<TrackInfo, Error> {
        self.inner.check_readable(id)?;
        let record = match self.inner.look_up(id).await? {
            Known::Nothing => return Err(Error::NotFound(*id)),
            Known::Takedown(record) => return Err(Error::TakenDown { id: *id, number: record.header.takedown }),
            Known::Track(record) => record,
        };
        let (segment, offset) = (record.segment.number, record.offset);
        let corrupt = |what: String| Error::Corrupt { id: *id, segment, offset, what };
        let header = record.header;
        let tags = header.tags.decode().map_err(|error| corrupt(error.to_string()))?;
        let manifest = Manifest::proved(id, header.track_bytes, header.pieces);
        let manifest = manifest.map_err(|error| corrupt(error.to_string()))?;
        Ok(TrackInfo { bytes: header.track_bytes, tags, manifest })
    }

    /// What is stored, what is free, and how the volume is. From memory; the file system's free space is at most some
    /// seconds old.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let (capacity_bytes, free_bytes) = self.inner.capacity();
        let counts = self.inner.index.borrow().counts();
        Usage {
            capacity_bytes,
            free_bytes,
            tracks: counts.tracks,
            track_bytes: counts.track_bytes,
            record_bytes: counts.record_bytes,
            takedowns: counts.takedowns,
            state: self.inner.state(),
        }
    }

    /// What the index of this handle takes of memory, in bytes: some 17 an id, and 1.3 MB of digests once all partitions
    /// hold tracks.
    #[must_use]
    pub fn index_bytes(&self) -> u64 {
        self.inner.index.borrow().heap_bytes()
    }

    /// The digests of the `count` partitions from `first` on that hold tracks. From memory.
    #[must_use]
    pub fn digests(&self, first: Partition, count: u32) -> Vec<PartitionDigest> {
        self.inner.index.borrow().digests(first, count)
    }

    /// Calls `observer` for each track that becomes durable here, or is durably erased, from now on: before the call that
    /// did it returns, and in order. Answers what is counted now; the two add up. `observer` must not call the volume.
    /// One observer at a time: another takes its place.
    pub fn observe(&self, observer: impl Fn(Change) + 'static) -> Vec<PartitionDigest> {
        self.inner.index.borrow_mut().observe(Rc::new(observer))
    }

    /// The ids of the partition's tracks that come after `after`, in order, at most `limit`. One device read a track of the
    /// partition: ids are not held in memory. A track whose header cannot be read is left out.
    ///
    /// Errors: Fenced.
    pub async fn list(
        &self,
        partition: Partition,
        after: Option<TrackId>,
        limit: usize,
    ) -> Result<Vec<TrackId>, Error> {
        let mut ids = Vec::new();
        let mut keys: Vec<Key> =
            self.inner.index.borrow().tracks_of(partition, after.as_ref()).map(|(key, _)| key).collect();
        keys.dedup();
        for key in keys {
            self.inner.check_open()?;
            // Tracks of one key may come in any order.
            if ids.len() >= limit {
                break;
            }
            let of_key = self.inner.ids_of(&key.lowest_id()).await;
            ids.extend(of_key.into_iter().filter(|id| after.is_none_or(|after| *id > after)));
        }
        ids.sort_unstable();
        ids.truncate(limit);
        Ok(ids)
    }

    /// What the volume does.
    #[must_use]
    pub fn state(&self) -> VolumeState {
        self.inner.state()
    }

    /// What the volume does, once that is no longer `known`.
    pub async fn state_after(&self, known: &VolumeState) -> VolumeState {
        loop {
            let changed = self.inner.guard.changed.wait();
            let state = self.inner.state();
            if state != *known {
                return state;
            }
            changed.await;
        }
    }

    /// Takes the volume out: whoever waits for it is answered Fenced, and so is whoever comes.
    /// For what somebody else found out, and logged.
    pub fn fence(&self, why: &str) {
        self.inner.guard.set_out(Out::lost(why.to_owned()));
    }

    /// The same, where the drive was found to hang or to be too slow.
    pub fn fence_hung(&self, why: &str) {
        self.inner.guard.set_out(Out::hung(why.to_owned()));
    }

    /// Takes no more writes. For what somebody else found out, and logged.
    pub fn fence_writes(&self, why: &str) {
        self.inner.set_read_only(why);
    }

    /// Stops taking requests, waits for what is at the drive, and lets others open the volume. Puts that are not finished
    /// are aborted. For the drive of a volume that is out it does not wait; the volume stays locked until what might still
    /// change the drive has ended.
    pub async fn close(self) {
        let inner = self.inner;
        let state = inner.state();
        *inner.state.borrow_mut() = VolumeState::Closed;
        inner.guard.changed.notify();
        inner.scrub.idle().await;
        inner.writes.all_back().await;
        inner.commits.wait_idle().await;
        inner.claims.all_done().await;
        // What upkeep is at, it ends first.
        let _keeping = inner.keeping.acquire().await;
        inner.clean_up().await;
        inner.compaction_done().await;
        if state == VolumeState::Open && inner.holes.get() {
            inner.list_and_seal().await;
            inner.snapshot().await;
        }
        // What was abandoned meanwhile; of what is later the next start gives the space back.
        inner.clean_up().await;
        inner.upkeep.notify();
        inner.end_findings();
        inner.active.take();
        inner.reserve_segment.take();
        inner.lock.take();
    }
}

impl<H: Host> Inner<H> {
    /// Fails where the volume takes no writes.
    pub(crate) fn writable(&self) -> Result<(), Error> {
        match self.state() {
            VolumeState::Open => Ok(()),
            VolumeState::ReadOnly(why) => Err(Error::Fenced(format!("read-only until reopened: {why}"))),
            VolumeState::Out(why) => Err(Error::Fenced(why)),
            VolumeState::Hung(why) => Err(Error::Hung(why)),
            VolumeState::Closed => Err(Error::Fenced("closed".to_owned())),
        }
    }

    pub(crate) fn state(&self) -> VolumeState {
        match &*self.state.borrow() {
            VolumeState::Closed => VolumeState::Closed,
            state => self.guard.out().map_or_else(|| state.clone(), Out::into_state),
        }
    }

    /// Takes no more writes until the volume is reopened, for what this handle found out.
    pub(crate) fn fence_writes(&self, why: &str) {
        if self.guard.out().is_none() && *self.state.borrow() == VolumeState::Open {
            tracing::error!(dir = %self.config.dir.display(), why, "volume fenced: read-only until it is reopened");
            self.set_read_only(why);
        }
    }

    fn set_read_only(&self, why: &str) {
        if self.guard.out().is_none() && *self.state.borrow() == VolumeState::Open {
            *self.state.borrow_mut() = VolumeState::ReadOnly(why.to_owned());
            self.guard.changed.notify();
        }
    }

    pub(crate) fn owns(&self, id: &TrackId) -> bool {
        id.shard(self.config.shards) == self.config.shard
    }

    pub(crate) fn check_owned(&self, id: &TrackId) -> Result<(), Error> {
        let (shard, shards) = (self.config.shard, self.config.shards);
        match id.shard(shards) {
            own if own == shard => Ok(()),
            other => Err(Error::Invalid(format!("track {id} belongs to shard {other} of {shards}, not to {shard}"))),
        }
    }

    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match *self.state.borrow() {
            VolumeState::Closed => Err(Error::Fenced("closed".to_owned())),
            _ => self.guard.serving(),
        }
    }

    pub(crate) fn check_readable(&self, id: &TrackId) -> Result<(), Error> {
        self.check_owned(id)?;
        self.check_open()
    }

    /// The segment with this number, if it is still there.
    pub(crate) fn segment(&self, number: u64) -> Option<Rc<Segment<H::File>>> {
        self.segments.borrow().get(number)
    }

    /// Waits until nobody else writes a record of the id.
    pub(crate) async fn claim(self: &Rc<Self>, id: TrackId) -> Claim<H> {
        while !self.claims.ids.borrow_mut().insert(id) {
            self.claims.released.wait().await;
        }
        Claim { volume: self.clone(), id }
    }
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
