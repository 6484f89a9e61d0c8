//! What one own volume lacks, in order.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_track::TrackId;

use super::class::{CLASSES, Class, Reason};
use super::meter::{Ages, second};
use super::peers::{Away, Peers};
use super::want::{Source, Want};
use crate::VolumeId;
use crate::random::Random;

/// Sources of a partition that one volume knows at a time; further ones are not taken.
const SOURCES_MAX: usize = 8;
/// How many wants of a partition are looked at for one that a source can be asked for now.
const LOOKS_MAX: usize = 4;
/// How many more if one of the partition's sources can be asked, but not for those.
const LOOKS_MORE_MAX: usize = 4_096;
/// How long a want that nobody has waits for word of a source, in seconds.
const ORPHAN_S: u32 = 600;
/// Stands in a key for all classes of wants that are not to be pulled now.
const RESTING: u8 = CLASSES;

/// Whether a want may be pulled now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rest {
    /// It may.
    No,
    /// A pull is in flight.
    Flying,
    /// Pulls failed; it is tried again when due.
    Failed,
    /// Nobody has it; it is dropped when due.
    Orphan,
}

/// A want: some 50 bytes with its key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// 0: not known. A track has at most 2^29.
    pub(super) bytes: u32,
    since_s: u32,
    due_s: u32,
    /// Which of the partition's sources have it: bits.
    sources: u8,
    pub(super) class: Class,
    pub(super) rest: Rest,
    /// Pulls that failed since one was let rest.
    pub(super) failures: u8,
}

/// A source, as all wants of a partition share it.
#[derive(Debug)]
struct Shared {
    volume: VolumeId,
    peer: u16,
    near: bool,
    /// Wants that name it. At zero the place is free.
    wants: u32,
}

#[derive(Debug, Default)]
struct Group {
    sources: Vec<Shared>,
    wants: u32,
    /// Classes of which there are wants that do not rest: bits.
    classes: u32,
}

/// A class of a partition that no source can be asked for now.
#[derive(Clone, Copy, Debug)]
struct Parked {
    until: u64,
    away: Away,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Timer {
    Parked(u8, u16),
    Want(TrackId),
}

/// Wants of one class, counted.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Count {
    pub(super) wants: u64,
    /// The sum of those whose length is known.
    pub(super) bytes: u64,
    pub(super) unknown: u64,
}

impl Count {
    pub(super) const fn plus(self, other: Self) -> Self {
        let (wants, bytes, unknown) =
            (self.wants + other.wants, self.bytes + other.bytes, self.unknown + other.unknown);
        Self { wants, bytes, unknown }
    }
}

/// A pull that can begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) track: TrackId,
    pub(super) peer: u16,
    pub(super) from: VolumeId,
}

#[derive(Debug)]
pub(super) struct Queue {
    /// By class, then id, so by partition; those that rest by id.
    wants: BTreeMap<(u8, TrackId), Entry>,
    groups: BTreeMap<u16, Group>,
    /// Classes and partitions that may be pulled.
    ready: BTreeSet<(u8, u16)>,
    parked: BTreeMap<(u8, u16), Parked>,
    timers: BTreeSet<(u64, Timer)>,
    pub(super) counts: [Count; CLASSES as usize],
    ages: Ages,
    pub(super) orphans: u64,
    /// Where pulls are: they go through partitions as a lift does, so that none waits for those before it.
    lift: u16,
}

fn first_of(partition: u16) -> TrackId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&partition.to_be_bytes());
    TrackId::from_bytes(bytes)
}

fn last_of(partition: u16) -> TrackId {
    let mut bytes = [0xff; 32];
    bytes[..2].copy_from_slice(&partition.to_be_bytes());
    TrackId::from_bytes(bytes)
}

fn bits(mask: u32) -> impl Iterator<Item = u8> {
    (0..32).filter(move |bit| mask >> bit & 1 == 1)
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            wants: BTreeMap::new(),
            groups: BTreeMap::new(),
            ready: BTreeSet::new(),
            parked: BTreeMap::new(),
            timers: BTreeSet::new(),
            counts: [Count::default(); CLASSES as usize],
            ages: Ages::default(),
            orphans: 0,
            lift: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.wants.len()
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn oldest(&self) -> Option<u32> {
        self.ages.oldest()
    }

    pub(super) fn next_timer(&self) -> u64 {
        self.timers.first().map_or(u64::MAX, |(at, _)| *at)
    }

    /// Why partitions are parked, one reason of all.
    pub(super) fn parked(&self) -> Option<Away> {
        // All at about the same time have the same reason; the first to be looked at again says the present one.
        self.timers.iter().take(LOOKS_MAX).find_map(|(_, timer)| match timer {
            Timer::Parked(class, partition) => self.parked.get(&(*class, *partition)).map(|parked| parked.away),
            Timer::Want(_) => None,
        })
    }

    /// Where the want is: in its class, or among those that rest.
    fn find(&self, track: &TrackId) -> Option<(u8, TrackId)> {
        let group = self.groups.get(&track.partition().0)?;
        let keys = bits(group.classes).chain([RESTING]).map(|queue| (queue, *track));
        keys.into_iter().find(|key| self.wants.contains_key(key))
    }

    pub(super) fn get(&self, track: &TrackId) -> Option<&Entry> {
        self.wants.get(&self.find(track)?)
    }

    /// Takes the want out, to be [`put`](Self::put) back or [`dropped`](Self::discard).
    pub(super) fn take(&mut self, track: &TrackId) -> Option<Entry> {
        let key = self.find(track)?;
        let entry = self.wants.remove(&key)?;
        match entry.rest {
            Rest::No => self.close_if_empty(key.0, track.partition().0),
            Rest::Flying => {}
            Rest::Failed | Rest::Orphan => {
                self.timers.remove(&(u64::from(entry.due_s) * 1_000, Timer::Want(*track)));
                self.orphans -= u64::from(entry.rest == Rest::Orphan);
            }
        }
        Some(entry)
    }

    fn close_if_empty(&mut self, class: u8, partition: u16) {
        let all = (class, first_of(partition))..=(class, last_of(partition));
        if self.wants.range(all).next().is_some() {
            return;
        }
        let group = self.groups.get_mut(&partition).expect("a want has a group");
        group.classes &= !(1 << class);
        self.ready.remove(&(class, partition));
        if let Some(parked) = self.parked.remove(&(class, partition)) {
            self.timers.remove(&(parked.until, Timer::Parked(class, partition)));
        }
    }

    pub(super) fn put(&mut self, track: TrackId, entry: Entry) {
        let (class, partition) = (entry.class.0, track.partition().0);
        match entry.rest {
            Rest::No => {
                let group = self.groups.get_mut(&partition).expect("a want has a group");
                group.classes |= 1 << class;
                if !self.parked.contains_key(&(class, partition)) {
                    self.ready.insert((class, partition));
                }
            }
            Rest::Flying => {}
            Rest::Failed | Rest::Orphan => {
                self.timers.insert((u64::from(entry.due_s) * 1_000, Timer::Want(track)));
                self.orphans += u64::from(entry.rest == Rest::Orphan);
            }
        }
        let queue = if entry.rest == Rest::No { class } else { RESTING };
        self.wants.insert((queue, track), entry);
    }

    fn count(&mut self, entry: &Entry) {
        let count = &mut self.counts[usize::from(entry.class.0)];
        count.wants += 1;
        count.bytes += u64::from(entry.bytes);
        count.unknown += u64::from(entry.bytes == 0);
    }

    fn uncount(&mut self, entry: &Entry) {
        let count = &mut self.counts[usize::from(entry.class.0)];
        count.wants -= 1;
        count.bytes -= u64::from(entry.bytes);
        count.unknown -= u64::from(entry.bytes == 0);
    }

    /// Forgets a want that was taken out.
    pub(super) fn discard(&mut self, track: &TrackId, mut entry: Entry, peers: &mut Peers) {
        self.uncount(&entry);
        self.ages.remove(entry.since_s);
        let partition = track.partition().0;
        let group = self.groups.get_mut(&partition).expect("a want has a group");
        bits(u32::from(entry.sources)).for_each(|bit| group.unname(bit, &mut entry, peers));
        group.wants -= 1;
        if group.wants == 0 {
            self.groups.remove(&partition);
        }
    }

    /// Adds or renews a want, and its sources.
    pub(super) fn want(&mut self, now: u64, want: &Want, sources: &[Source], peers: &mut Peers) {
        let class = Class::of(want.copies, want.zoneless, want.reason);
        let bytes = u32::try_from(want.bytes).unwrap_or(u32::MAX);
        let track = want.track;
        let partition = track.partition().0;
        let mut entry = if let Some(mut entry) = self.take(&track) {
            self.uncount(&entry);
            entry.class = class;
            entry.bytes = if bytes == 0 { entry.bytes } else { bytes };
            entry
        } else {
            self.groups.entry(partition).or_default().wants += 1;
            let since_s = second(now);
            self.ages.add(since_s);
            Entry { bytes, since_s, due_s: 0, sources: 0, class, rest: Rest::Orphan, failures: 0 }
        };
        self.count(&entry);
        let group = self.groups.get_mut(&partition).expect("a want has a group");
        let before = entry.sources;
        sources.iter().for_each(|source| group.name(source, &mut entry, peers));
        let new = entry.sources & !before != 0;
        match entry.rest {
            Rest::Orphan => self.settle(now, &mut entry),
            // Somebody was just found to have it.
            Rest::Failed => entry.rest = Rest::No,
            Rest::No | Rest::Flying => {}
        }
        self.put(track, entry);
        if new {
            self.unpark(class.0, partition);
        }
    }

    /// What becomes of a want that was an orphan, or whose source is one no more.
    pub(super) fn settle(&mut self, now: u64, entry: &mut Entry) {
        if entry.sources != 0 {
            entry.rest = Rest::No;
        } else if entry.rest != Rest::Orphan || entry.due_s == 0 {
            (entry.rest, entry.due_s) = (Rest::Orphan, second(now).saturating_add(ORPHAN_S));
        }
    }

    /// `from` does not have the track of this want, which was taken out.
    pub(super) fn unname(&mut self, track: &TrackId, entry: &mut Entry, from: &VolumeId, peers: &mut Peers) {
        let group = self.groups.get_mut(&track.partition().0).expect("a want has a group");
        if let Some(bit) = group.sources.iter().position(|source| source.wants > 0 && source.volume == *from) {
            group.unname(u8::try_from(bit).expect("SOURCES_MAX"), entry, peers);
        }
    }

    /// Lets a want, which was taken out, rest for some time after all its sources failed in turn.
    pub(super) fn fail(&mut self, now: u64, entry: &mut Entry, wait_ms: impl FnOnce(u32) -> u64) {
        entry.failures = entry.failures.saturating_add(1);
        let sources = u8::try_from(entry.sources.count_ones()).expect("8 bits");
        if sources == 0 {
            return self.settle(now, entry);
        }
        entry.rest = Rest::No;
        if entry.failures.is_multiple_of(sources) {
            entry.rest = Rest::Failed;
            entry.due_s =
                second(now.saturating_add(wait_ms(u32::from(entry.failures / sources - 1)))).saturating_add(1);
        }
    }

    fn unpark(&mut self, class: u8, partition: u16) {
        if let Some(parked) = self.parked.remove(&(class, partition)) {
            self.timers.remove(&(parked.until, Timer::Parked(class, partition)));
            self.ready.insert((class, partition));
        }
    }

    /// Has all that is parked looked at again.
    pub(super) fn unpark_all(&mut self) {
        let parked: Vec<(u8, u16)> = self.parked.keys().copied().collect();
        parked.into_iter().for_each(|(class, partition)| self.unpark(class, partition));
    }

    /// What failed is tried again now, and what is parked looked at again.
    pub(super) fn retry_all(&mut self) {
        let resting = (RESTING, first_of(0))..=(RESTING, last_of(u16::MAX));
        let failed = self.wants.range(resting).filter(|(_, entry)| entry.rest == Rest::Failed);
        let failed: Vec<TrackId> = failed.map(|((_, track), _)| *track).collect();
        for track in failed {
            let mut entry = self.take(&track).expect("just seen");
            (entry.rest, entry.failures) = (Rest::No, 0);
            self.put(track, entry);
        }
        self.unpark_all();
    }

    /// Does what is due; how many wants were dropped.
    pub(super) fn fire(&mut self, now: u64, peers: &mut Peers) -> u64 {
        let mut dropped = 0;
        while let Some(&(at, timer)) = self.timers.first() {
            if at > now {
                break;
            }
            match timer {
                Timer::Parked(class, partition) => self.unpark(class, partition),
                Timer::Want(track) => {
                    let mut entry = self.take(&track).expect("a timer's want is there");
                    if entry.rest == Rest::Orphan {
                        self.discard(&track, entry, peers);
                        dropped += 1;
                    } else {
                        entry.rest = Rest::No;
                        self.put(track, entry);
                    }
                }
            }
        }
        dropped
    }

    /// The first class of which something is ready, of all or of those that are urgent.
    pub(super) fn first(&self, urgent: bool) -> Option<Class> {
        let mut class = Class(self.ready.first()?.0);
        while urgent && !class.urgent() {
            class = Class(self.ready.range((class.0 + 1, 0)..).next()?.0);
        }
        Some(class)
    }

    /// A class of which something is ready, by chance.
    pub(super) fn any(&self, random: &mut Random) -> Option<Class> {
        let ready: Vec<Class> = Class::all().filter(|class| self.next_partition(*class, 0).is_some()).collect();
        if ready.is_empty() { None } else { Some(ready[random.below(ready.len())]) }
    }

    /// The first partition at or after `from` of which something of the class is ready; after the last comes the first.
    fn next_partition(&self, class: Class, from: u16) -> Option<u16> {
        let after = self.ready.range((class.0, from)..=(class.0, u16::MAX)).next();
        after.or_else(|| self.ready.range((class.0, 0)..=(class.0, u16::MAX)).next()).map(|(_, partition)| *partition)
    }

    /// What of this class is pulled next: where the lift is, or, with `anywhere`, by chance. None: no source can be
    /// asked for that partition now; it is parked, and another call looks at another one.
    pub(super) fn choose(
        &mut self,
        now: u64,
        class: Class,
        anywhere: bool,
        peers: &Peers,
        random: &mut Random,
    ) -> Option<Choice> {
        let from = if anywhere { random.draw().to_le_bytes() } else { [0; 8] };
        let start = if anywhere { u16::from_le_bytes([from[0], from[1]]) } else { self.lift };
        let partition = self.next_partition(class, start)?;
        let group = &self.groups[&partition];
        let (first, last) = (first_of(partition), last_of(partition));
        let middle = somewhere_in(partition, random);
        let range = |from| self.wants.range((class.0, from)..=(class.0, last));
        // Round from there, past the end to the beginning.
        let round = |from| range(from).chain(range(first));
        let looks = round(if anywhere { middle } else { first }).take(LOOKS_MAX);
        let more = if group.any_open(now, peers) { LOOKS_MORE_MAX } else { 0 };
        let mut parked = Parked { until: u64::MAX, away: Away::Down };
        for (&(_, track), entry) in looks.chain(round(middle).take(more)) {
            match group.choose(now, entry, peers, random) {
                Ok(source) => {
                    if !anywhere {
                        self.lift = partition;
                    }
                    return Some(Choice { track, peer: source.peer, from: source.volume });
                }
                Err((until, away)) => {
                    parked = Parked { until: parked.until.min(until), away: parked.away.min(away) };
                }
            }
        }
        self.ready.remove(&(class.0, partition));
        self.parked.insert((class.0, partition), parked);
        self.timers.insert((parked.until, Timer::Parked(class.0, partition)));
        None
    }

    /// The last of what may be pulled: what is dropped first.
    pub(super) fn last(&self) -> Option<(Class, TrackId)> {
        self.wants.range(..(RESTING, first_of(0))).next_back().map(|((class, track), _)| (Class(*class), *track))
    }

    /// The tracks of a partition that are wanted since it moves.
    pub(super) fn moving(&self, partition: u16) -> Vec<TrackId> {
        let Some(group) = self.groups.get(&partition) else { return Vec::new() };
        let all = |queue| (queue, first_of(partition))..=(queue, last_of(partition));
        let wants = bits(group.classes).chain([RESTING]).flat_map(|queue| self.wants.range(all(queue)));
        wants.filter(|(_, entry)| entry.class.reason() == Reason::Moving).map(|((_, track), _)| *track).collect()
    }

    /// Forgets all.
    pub(super) fn clear(&mut self, peers: &mut Peers) {
        let named = self.groups.values().flat_map(|group| &group.sources).filter(|source| source.wants > 0);
        named.for_each(|source| peers.release(source.peer));
        *self = Self::new();
    }
}

fn somewhere_in(partition: u16, random: &mut Random) -> TrackId {
    let mut bytes = *first_of(partition).as_bytes();
    bytes[2..10].copy_from_slice(&random.draw().to_be_bytes());
    TrackId::from_bytes(bytes)
}

impl Group {
    /// `source` has what is wanted. It is not taken if there are too many.
    fn name(&mut self, source: &Source, entry: &mut Entry, peers: &mut Peers) {
        let here = |shared: &Shared| shared.wants > 0 && shared.volume == source.volume;
        let found = self.sources.iter().position(here);
        let Some(place) = found.or_else(|| self.enter(source, peers)) else { return };
        let shared = &mut self.sources[place];
        if entry.sources >> place & 1 == 0 {
            entry.sources |= 1 << place;
            shared.wants += 1;
        }
    }

    /// A place for a source that has none, not yet named by any want.
    fn enter(&mut self, source: &Source, peers: &mut Peers) -> Option<usize> {
        let free = self.sources.iter().position(|shared| shared.wants == 0);
        if free.is_none() && self.sources.len() == SOURCES_MAX {
            return None;
        }
        let peer = peers.hold(source.node)?;
        let shared = Shared { volume: source.volume, peer, near: source.near, wants: 0 };
        let place = free.unwrap_or(self.sources.len());
        if place == self.sources.len() {
            self.sources.push(shared);
        } else {
            self.sources[place] = shared;
        }
        Some(place)
    }

    /// The source in this place does not have what is wanted.
    fn unname(&mut self, place: u8, entry: &mut Entry, peers: &mut Peers) {
        if entry.sources >> place & 1 == 0 {
            return;
        }
        entry.sources &= !(1 << place);
        let shared = &mut self.sources[usize::from(place)];
        shared.wants -= 1;
        if shared.wants == 0 {
            peers.release(shared.peer);
        }
    }

    fn any_open(&self, now: u64, peers: &Peers) -> bool {
        self.sources.iter().any(|source| source.wants > 0 && peers.open(source.peer, now).is_ok())
    }

    /// Whom to ask: those near first, then whom the fewest pulls of ours are in flight from, then whoever was asked
    /// least lately. If nobody: until when, and why.
    fn choose(&self, now: u64, entry: &Entry, peers: &Peers, random: &mut Random) -> Result<&Shared, (u64, Away)> {
        let mut best: Option<(_, &Shared)> = None;
        let mut none = (u64::MAX, Away::Down);
        for place in bits(u32::from(entry.sources)) {
            let shared = &self.sources[usize::from(place)];
            match peers.open(shared.peer, now) {
                Ok(()) => {
                    let (in_flight, turn) = peers.load(shared.peer);
                    let rank = (!shared.near, in_flight, turn, random.draw());
                    if best.is_none_or(|(least, _)| rank < least) {
                        best = Some((rank, shared));
                    }
                }
                Err((until, away)) => none = (none.0.min(until), none.1.min(away)),
            }
        }
        best.map(|(_, shared)| shared).ok_or(none)
    }
}
