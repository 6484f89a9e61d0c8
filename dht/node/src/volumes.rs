//! The edge to the engine: this shard's handle of one volume, in the words of the wire.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use deadwax_dht::VolumeId;
use deadwax_dht::core::Input;
use deadwax_dht::wire::{ErrorCode, Message, PartitionDigest, VolumeScrub, VolumeState};
use deadwax_engine::{Change, ErrorKind, GlommioHost, Volume, VolumeConfig};
use deadwax_track::{ByteRange, Partition, Tags, TrackId};

use crate::init;
use crate::refusal::Refusal;
use crate::shard::{Node, Shard, Trouble};
use crate::transfer::Stored;

/// What opening volumes found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct VolumeRecovery {
    /// Tracks found.
    pub tracks: u64,
    /// Segments looked at.
    pub segments: u64,
    /// Bytes read to find them.
    pub bytes_read: u64,
    /// Ids taken down.
    pub takedowns: u64,
    /// Unfinished puts that a crash had left, cut off.
    pub torn: u64,
    /// Records that were finished and are damaged: to be repaired from another copy.
    pub damaged: u64,
    /// The longest that any shard took for one volume.
    pub seconds: f64,
}

impl VolumeRecovery {
    pub(crate) fn add(&mut self, part: &Self) {
        self.tracks += part.tracks;
        self.segments += part.segments;
        self.bytes_read += part.bytes_read;
        self.takedowns += part.takedowns;
        self.torn += part.torn;
        self.damaged += part.damaged;
        self.seconds = self.seconds.max(part.seconds);
    }
}

/// This shard's part of a volume.
pub(crate) struct LocalVolume {
    volume: Volume<GlommioHost>,
    told: Rc<Told>,
    /// Shared by the puts and gets that are under way.
    guests: Rc<()>,
}

/// What the core is told of the part. It counts what the engine counts, but for what is damaged.
struct Told {
    node: Arc<Node>,
    id: VolumeId,
    telling: RefCell<Telling>,
    /// Tracks whose record is damaged: the core counts them no more, though the engine has them until they come anew.
    rotten: RefCell<HashSet<TrackId>>,
}

/// Whether the core is told.
enum Telling {
    /// It does not have the volume.
    Not,
    /// It is about to have it: what happens meanwhile is told then.
    Later(Vec<Input>),
    Now,
}

impl Told {
    /// The engine counts one track more, or less.
    fn changed(&self, change: Change) {
        let volume = self.id;
        self.tell(match change {
            Change::Stored(track) => Input::Stored { volume, track },
            // Of one that rotted the core was told that it is none.
            Change::Erased(track) => {
                let was_there = !self.rotten.borrow_mut().remove(&track);
                Input::Erased { volume, track, was_there }
            }
        });
    }

    /// Nothing of a track is here any more, and the core hears so even where nothing was.
    fn erased(&self, track: TrackId) {
        self.tell(Input::Erased { volume: self.id, track, was_there: false });
    }

    /// A track's record is damaged.
    fn rotten(&self, track: TrackId) {
        if self.rotten.borrow_mut().insert(track) {
            self.node.counters.rotten.add(1);
            self.tell(Input::Rotten { volume: self.id, track });
        }
    }

    fn tell(&self, input: Input) {
        match &mut *self.telling.borrow_mut() {
            Telling::Not => {}
            Telling::Later(held) => held.push(input),
            Telling::Now => self.node.tell(input),
        }
    }
}

/// A put that the volume let in.
pub(crate) enum Admitted {
    /// The track is there already.
    Already(Stored),
    /// Its bytes may come.
    Writer(Box<Writer>),
}

/// An unfinished track. Dropping it forgets the track.
pub(crate) struct Writer {
    writer: deadwax_engine::PutWriter<GlommioHost>,
    told: Rc<Told>,
    _guest: Rc<()>,
}

/// A range being read.
pub(crate) struct Reader {
    reader: deadwax_engine::Reader<GlommioHost>,
    told: Rc<Told>,
    _guest: Rc<()>,
}

impl LocalVolume {
    pub(crate) async fn open(
        here: &Shard,
        dir: &Path,
        id: VolumeId,
        shard: usize,
        shards: usize,
    ) -> Result<(Self, VolumeRecovery), deadwax_engine::Error> {
        let (node, config) = (&here.node, &here.node.config);
        let expected = init::identity(&id, &node.id);
        let volume = VolumeConfig {
            segment_bytes: config.segment_bytes,
            reserve_bytes: config.reserve_bytes,
            scrub_bytes_per_second: config.scrub_bytes_per_second.div_ceil(shards as u64),
            shard,
            shards,
            ..VolumeConfig::new(dir, expected)
        };
        let (volume, recovery) = Volume::open(here.host.clone(), volume).await?;
        let recovered = VolumeRecovery {
            tracks: recovery.tracks,
            segments: recovery.segments,
            bytes_read: recovery.bytes_read,
            takedowns: recovery.takedowns,
            torn: recovery.torn,
            damaged: recovery.damaged,
            seconds: recovery.seconds,
        };
        let (node, rotten) = (Arc::clone(node), RefCell::default());
        let told = Rc::new(Told { node, id, telling: RefCell::new(Telling::Not), rotten });
        // Without a core, too: what is damaged is no copy, and a put of it is stored anew.
        let hearing = Rc::clone(&told);
        volume.observe(move |change| hearing.changed(change));
        glommio::spawn_local(hear_of_damage(volume.clone(), Rc::clone(&told))).detach();
        Ok((Self { volume, told, guests: Rc::default() }, recovered))
    }

    /// Why it takes no part any more, if so.
    pub(crate) fn out(&self) -> Option<String> {
        match self.volume.state() {
            deadwax_engine::VolumeState::Out(why) | deadwax_engine::VolumeState::Hung(why) => Some(why),
            _ => None,
        }
    }

    /// Does to this part what befell another's.
    pub(crate) fn share_trouble(&self, trouble: &Trouble) {
        match trouble {
            Trouble::ReadOnly(why) => self.volume.fence_writes(why),
            Trouble::Hung(why) => self.volume.fence_hung(why),
            Trouble::Out(_) | Trouble::Retired => self.volume.fence(trouble.why()),
        }
    }

    /// The troubles that this part comes to; nothing after the last.
    pub(crate) fn troubles(&self) -> Troubles {
        Troubles { volume: self.volume.clone(), known: deadwax_engine::VolumeState::Open }
    }

    /// Ends when no request uses this part any more, where only the caller could hand it out.
    pub(crate) async fn unused(self: &Rc<Self>) {
        while Rc::strong_count(self) > 1 || Rc::strong_count(&self.guests) > 1 {
            glommio::timer::sleep(UNUSED_RETRY).await;
        }
    }

    /// Lets a put in, or says why not.
    pub(crate) async fn put(&self, id: TrackId, bytes: u64, tags: &Tags) -> Result<Admitted, Refusal> {
        let rotten = self.told.rotten.borrow().contains(&id);
        let put = match rotten {
            true => self.volume.put_anew(id, bytes, tags).await,
            false => self.volume.put(id, bytes, tags).await,
        };
        match put {
            Ok(writer) => {
                let (told, _guest) = (Rc::clone(&self.told), Rc::clone(&self.guests));
                Ok(Admitted::Writer(Box::new(Writer { writer, told, _guest })))
            }
            Err(deadwax_engine::Error::AlreadyStored { bytes, .. }) => Ok(Admitted::Already(Stored::new(bytes))),
            Err(why) => Err(refusal(&why)),
        }
    }

    /// The track's length, and a reader of `range`.
    pub(crate) async fn read(&self, id: TrackId, range: ByteRange) -> Result<(u64, Reader), Refusal> {
        let whole = self.volume.read(&id, None).await.map_err(|why| unreadable(&why))?;
        let bytes = whole.track_bytes();
        if !range.fits(bytes) {
            let (start, end) = (range.start(), range.end());
            return Err(Refusal::invalid(format!("range {start} to {end} goes beyond the track's {bytes} bytes")));
        }
        let (reader, told, _guest) = (whole.narrowed(range), Rc::clone(&self.told), Rc::clone(&self.guests));
        Ok((bytes, Reader { reader, told, _guest }))
    }

    pub(crate) async fn info(&self, id: TrackId) -> Result<Message, Refusal> {
        let info = self.volume.info(&id).await.map_err(|why| unreadable(&why))?;
        let pieces = info.manifest.pieces().to_vec();
        Ok(Message::TrackInfo { bytes: info.bytes, tags: info.tags, pieces })
    }

    pub(crate) async fn has(&self, id: TrackId) -> Result<Message, Refusal> {
        Ok(match self.volume.presence(&id).await.map_err(|why| unreadable(&why))? {
            deadwax_engine::Presence::Present { bytes } => Message::Present { bytes },
            deadwax_engine::Presence::Absent => Message::Absent,
            deadwax_engine::Presence::TakenDown { number } => Message::TakenDown { number },
        })
    }

    /// Durable on return; answers the number first recorded.
    pub(crate) async fn take_down(&self, id: TrackId, number: u64) -> Result<u64, Refusal> {
        self.volume.take_down(&id, number).await.map_err(|why| refusal(&why))
    }

    /// Erases a track, durably; with the number of a takedown it is never taken again. The core is told.
    pub(crate) async fn erase(&self, id: TrackId, takedown: Option<u64>) -> Result<(), Refusal> {
        if let Some(number) = takedown {
            self.take_down(id, number).await?;
        } else {
            match self.volume.delete(&id).await {
                Ok(()) => self.told.node.counters.strays_erased.add(1),
                Err(deadwax_engine::Error::NotFound(_) | deadwax_engine::Error::TakenDown { .. }) => {}
                Err(why) => return Err(refusal(&why)),
            }
        }
        self.told.erased(id);
        Ok(())
    }

    /// What the core is to count, from where all changes are told; they are held back until [`release`](Self::release).
    pub(crate) fn begin_telling(&self) -> Vec<PartitionDigest> {
        let told = Rc::clone(&self.told);
        // What is known to be damaged is counted like the rest, and told to be damaged after that.
        let rotten =
            told.rotten.borrow().iter().map(|track| Input::Rotten { volume: told.id, track: *track }).collect();
        *told.telling.borrow_mut() = Telling::Later(rotten);
        let digests = self.volume.observe(move |change| told.changed(change));
        digests.into_iter().map(|(partition, tracks, digest)| PartitionDigest { partition, tracks, digest }).collect()
    }

    /// The core has the volume: what happened meanwhile is told, and from now on all as it happens.
    pub(crate) fn release(&self) {
        if let Telling::Later(held) = self.told.telling.replace(Telling::Now) {
            held.into_iter().for_each(|input| self.told.node.tell(input));
        }
    }

    pub(crate) fn digests(&self, first: Partition, count: u32) -> Vec<PartitionDigest> {
        let digests = self.volume.digests(first, count);
        let digest = |(partition, tracks, digest)| PartitionDigest { partition, tracks, digest };
        let mut digests: Vec<PartitionDigest> = digests.into_iter().map(digest).collect();
        // What is damaged is no copy.
        for id in self.told.rotten.borrow().iter() {
            if let Ok(at) = digests.binary_search_by_key(&id.partition(), |digest| digest.partition) {
                digests[at].tracks = digests[at].tracks.saturating_sub(1);
                digests[at].digest.iter_mut().zip(id.half()).for_each(|(sum, byte)| *sum ^= byte);
            }
        }
        digests.retain(|digest| digest.tracks > 0);
        digests
    }

    pub(crate) async fn list(
        &self,
        partition: Partition,
        after: Option<TrackId>,
        limit: usize,
    ) -> Result<Vec<TrackId>, Refusal> {
        // What is damaged is left out of so many: fewer than the limit means that there are no more.
        let most = limit.saturating_add(self.told.rotten.borrow().len());
        let mut ids = self.volume.list(partition, after, most).await.map_err(|why| refusal(&why))?;
        let rotten = self.told.rotten.borrow();
        if !rotten.is_empty() {
            ids.retain(|id| !rotten.contains(id));
        }
        Ok(ids)
    }

    pub(crate) fn usage(&self) -> Usage {
        let usage = self.volume.usage();
        Usage {
            capacity_bytes: usage.capacity_bytes,
            free_bytes: usage.free_bytes,
            tracks: usage.tracks,
            track_bytes: usage.track_bytes,
            record_bytes: usage.record_bytes,
            takedowns: usage.takedowns,
            state: match usage.state {
                deadwax_engine::VolumeState::Open => VolumeState::Serving,
                deadwax_engine::VolumeState::ReadOnly(_) => VolumeState::ReadOnly,
                deadwax_engine::VolumeState::Out(_)
                | deadwax_engine::VolumeState::Hung(_)
                | deadwax_engine::VolumeState::Closed => VolumeState::Fenced,
            },
        }
    }

    /// How the checking of all that it holds goes.
    pub(crate) fn scrub_status(&self) -> VolumeScrub {
        let status = self.volume.scrub_status();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        VolumeScrub {
            id: self.told.id,
            running: status.running,
            passes: status.passes,
            verified_s: seconds_ago(status.verified_at, now),
            pass_bytes: status.pass_bytes,
            all_bytes: status.all_bytes,
            pass_damaged: status.pass_damaged,
            damaged: status.damaged,
        }
    }

    /// Begins to check all that it holds, from the first record on.
    pub(crate) fn start_scrub(&self, bytes_per_second: u64) -> Result<(), Refusal> {
        self.volume.start_scrub(bytes_per_second).map_err(|why| refusal(&why))
    }

    pub(crate) async fn close(&self) {
        self.volume.clone().close().await;
    }
}

/// How long ago `at` is, in Unix seconds, if that is known: 0 is not, nor is what a clock told that was set back since.
fn seconds_ago(at: u64, now: u64) -> Option<u64> {
    (at > 0 && at <= now.saturating_add(CLOCK_SLACK_S)).then(|| now.saturating_sub(at))
}

/// Tells the core of damaged records, as they are found, until the volume is closed.
async fn hear_of_damage(volume: Volume<GlommioHost>, told: Rc<Told>) {
    while let Some(damage) = volume.next_damage().await {
        // One that is not counted is missing here, and comes as such.
        if damage.counted {
            told.rotten(damage.id);
        }
    }
}

/// See [`LocalVolume::troubles`].
pub(crate) struct Troubles {
    volume: Volume<GlommioHost>,
    known: deadwax_engine::VolumeState,
}

impl Troubles {
    pub(crate) async fn next(&mut self) -> Option<Trouble> {
        use deadwax_engine::VolumeState::{Closed, Hung, Open, Out, ReadOnly};
        if matches!(self.known, Out(_) | Hung(_)) {
            return None;
        }
        self.known = self.volume.state_after(&self.known).await;
        match &self.known {
            ReadOnly(why) => Some(Trouble::ReadOnly(why.clone())),
            Out(why) => Some(Trouble::Out(why.clone())),
            Hung(why) => Some(Trouble::Hung(why.clone())),
            Open | Closed => None,
        }
    }
}

/// How often a volume that is to be closed looks whether it is still used.
const UNUSED_RETRY: Duration = Duration::from_millis(10);
/// By how much a clock may be set back without casting doubt on when a volume was verified, in s.
const CLOCK_SLACK_S: u64 = 300;

/// What one shard's part of a volume holds.
pub(crate) struct Usage {
    pub(crate) capacity_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) tracks: u64,
    pub(crate) track_bytes: u64,
    pub(crate) record_bytes: u64,
    pub(crate) takedowns: u64,
    pub(crate) state: VolumeState,
}

impl Writer {
    /// Takes the next bytes in; they are not durable before [`finish`](Self::finish).
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.writer.write(bytes).await.map_err(|why| refusal(&why))
    }

    /// Ends the track: durable on return.
    pub(crate) async fn finish(self) -> Result<Stored, Refusal> {
        let Self { writer, told, _guest } = self;
        let began = Instant::now();
        match writer.finish().await {
            Ok(stored) => {
                told.node.drive_latency.record(began.elapsed());
                Ok(Stored::new(stored.bytes))
            }
            // Another put of the same track was faster: what was asked for is so.
            Err(deadwax_engine::Error::AlreadyStored { bytes, .. }) => Ok(Stored::new(bytes)),
            Err(why) => Err(refusal(&why)),
        }
    }
}

impl Reader {
    /// The next bytes of the range, checked; nothing after the last.
    pub(crate) async fn next(&mut self) -> Option<Result<deadwax_engine::Block<GlommioHost>, Refusal>> {
        let began = Instant::now();
        let block = self.reader.next().await?;
        self.told.node.drive_latency.record(began.elapsed());
        Some(block.map_err(|why| unreadable(&why)))
    }
}

/// Whether a node with other volumes starts without the one that answers this when it is opened: the drive fails, and
/// what it holds is on other nodes too. Not where somebody made a mistake that starting would hide or make worse.
pub(crate) const fn is_left_out(why: &deadwax_engine::Error) -> bool {
    match why.kind() {
        ErrorKind::Io | ErrorKind::Corrupt | ErrorKind::NoSpace | ErrorKind::Fenced => true,
        ErrorKind::Foreign
        | ErrorKind::Unsupported
        | ErrorKind::Locked
        | ErrorKind::Invalid
        | ErrorKind::Busy
        | ErrorKind::NotFound
        | ErrorKind::TakenDown
        | ErrorKind::AlreadyStored => false,
    }
}

/// The [`refusal`] for an error in reading a track that the index has: a drive that cannot read its copy has a bad
/// copy, and whoever asks must know that there is one. Of an error that could be any request's it would be taken that
/// this holder knows nothing, and with enough others that do not have the track, that there is none.
fn unreadable(why: &deadwax_engine::Error) -> Refusal {
    if why.kind() == ErrorKind::Io {
        tracing::error!(%why, "a drive cannot read a track that it has");
        return Refusal::new(ErrorCode::Corrupt, why.to_string());
    }
    refusal(why)
}

/// What the wire says for an engine's error. The whole text goes along: it names segment and offset, or the file.
fn refusal(why: &deadwax_engine::Error) -> Refusal {
    let code = match why.kind() {
        ErrorKind::Busy => ErrorCode::Busy,
        ErrorKind::NoSpace => ErrorCode::NoSpace,
        ErrorKind::Corrupt => ErrorCode::Corrupt,
        ErrorKind::NotFound => ErrorCode::NotFound,
        ErrorKind::TakenDown => match why {
            deadwax_engine::Error::TakenDown { number, .. } => ErrorCode::TakenDown { number: *number },
            _ => ErrorCode::Internal,
        },
        ErrorKind::Invalid => ErrorCode::Invalid,
        ErrorKind::Fenced => ErrorCode::Fenced,
        // AlreadyStored is no failure: it was answered as success where a put begins and ends.
        ErrorKind::AlreadyStored | ErrorKind::Io | ErrorKind::Unsupported | ErrorKind::Locked | ErrorKind::Foreign => {
            tracing::error!(%why, "the engine failed a request");
            ErrorCode::Internal
        }
    };
    if code == ErrorCode::Corrupt {
        tracing::error!(%why, "a drive returned bytes that are not what was written");
    }
    Refusal::new(code, why.to_string())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_drive_that_cannot_read_what_it_has_does_not_deny_having_it() {
        let source = Arc::new(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
        let why = deadwax_engine::Error::Io { what: "read", path: "/v/segments/1".into(), source };
        let said = unreadable(&why);
        assert_eq!(said.code, ErrorCode::Corrupt);
        assert!(said.message.contains("/v/segments/1"), "{}", said.message);
        assert_eq!(refusal(&why).code, ErrorCode::Internal, "a write that fails says nothing of a copy");
        assert_eq!(unreadable(&deadwax_engine::Error::NotFound(TrackId::of(b"x"))).code, ErrorCode::NotFound);
    }

    #[test]
    fn a_time_that_is_yet_to_come_says_nothing_of_when_a_volume_was_verified() {
        assert_eq!(seconds_ago(0, 1_000), None, "it was never");
        assert_eq!(seconds_ago(400, 1_000), Some(600));
        assert_eq!(seconds_ago(1_000 + CLOCK_SLACK_S, 1_000), Some(0));
        assert_eq!(seconds_ago(1_001 + CLOCK_SLACK_S, 1_000), None, "the clock was a year ahead, and is right again");
    }
}
