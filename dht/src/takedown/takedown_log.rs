//! The grow-only set of takedowns, verified.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_track::TrackId;
use ed25519_dalek::VerifyingKey;

use super::barred::{Barred, Entry};
use super::chain::{Chain, Place, half};
use super::record::{Name, REASON_BYTES_MAX, Takedown, tag};
use super::{HELD_MAX, Heads, ISSUERS_MAX, RECORDS_MAX};
use crate::{ClusterId, NodeKey};

/// A key cannot be an issuer. The map that lists it is at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadIssuer {
    /// The bytes are no point of the curve, or one of small order, under which anything verifies.
    #[error("issuer's key is not a good Ed25519 key")]
    Key,
    /// There are [`ISSUERS_MAX`] already.
    #[error("the most issuers is {ISSUERS_MAX}")]
    Many,
    /// Another issuer's takedowns would have the same numbers in the cluster: make a new key.
    #[error("issuer's key has the tag of another issuer's: make a new one")]
    Tag,
}

/// The records on the drive are not those of a log. Start with an empty one and `intact` false; peers have the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadLog {
    /// A record of an issuer that the map does not list.
    #[error("record at slot {0} is of an unknown issuer")]
    Stranger(u32),
    /// A record that could not have been accepted.
    #[error("record at slot {0} does not belong here")]
    Misplaced(u32),
    /// A record that nothing vouches for.
    #[error("record {} of an issuer has a bad signature", .0.number)]
    Signature(Name),
}

/// Why nothing was issued.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IssueError {
    /// The track is barred already, by this takedown: nothing is left to do.
    #[error("track was taken down by number {}", .0.number)]
    Already(Name),
    /// The key is not one of the issuers.
    #[error("key is not an issuer's")]
    Stranger,
    /// Later records of this issuer are here, with a gap before them: follow the peers first, or the chain would fork.
    #[error("records of this issuer are missing here")]
    Behind,
    /// The reason is longer than [`REASON_BYTES_MAX`] bytes.
    #[error("reason has {0} bytes; the most is {REASON_BYTES_MAX}")]
    Reason(usize),
    /// The log, or the issuer's chain, is full.
    #[error("log is full")]
    Full,
    /// Too much is being written: try again soon.
    #[error("records are being written")]
    Busy,
}

/// What came of merging.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Merged {
    /// Append these to the drive's file in this order, flushed, before anything further is sent: the first goes to the
    /// slot that [`TakedownLog::slots`] named before.
    pub append: Vec<Takedown>,
    /// Tracks that were not barred before: erase their copies.
    pub barred: Vec<TrackId>,
    /// Issuers that were found to have forked by these records: an operator must look.
    pub forked: Vec<[u8; 32]>,
    /// Records dropped because nothing vouches for them: the sender, or the issuer, is faulty.
    pub forged: usize,
    /// Records dropped because their issuer is none that is known here: an operator must look.
    pub strangers: usize,
    /// The last of those issuers.
    pub stranger: Option<[u8; 32]>,
    /// Records dropped because a bound was reached: branches of an issuer, records held, [`RECORDS_MAX`].
    pub refused: usize,
}

#[derive(Clone, Debug)]
struct Issuer {
    key: [u8; 32],
    verifying: VerifyingKey,
    root: [u8; 32],
    chain: Chain,
}

/// A record whose predecessor is missing.
#[derive(Clone, Debug)]
struct Held {
    previous: [u8; 32],
    hash: [u8; 32],
    slot: u32,
}

/// By issuer, number, and hash.
type HeldKey = (u8, u32, [u8; 16]);

/// All takedowns that are known here. Memory is 37 to 40 bytes a takedown for the barred ids and 20 to 40 for the
/// chains; the records themselves lie in the driver's file, [`TAKEDOWN_BYTES`](super::TAKEDOWN_BYTES) each, called by
/// their *slot*.
#[derive(Clone, Debug)]
pub struct TakedownLog {
    cluster: ClusterId,
    issuers: Vec<Issuer>,
    barred: Barred,
    held: BTreeMap<HeldKey, Held>,
    slots: u32,
}

impl TakedownLog {
    /// An empty log, which trusts nobody yet.
    #[must_use]
    pub const fn new(cluster: ClusterId) -> Self {
        Self {
            cluster,
            issuers: Vec::new(),
            barred: Barred { large: Vec::new(), small: Vec::new() },
            held: BTreeMap::new(),
            slots: 0,
        }
    }

    /// Trusts this public key from now on, for ever. One that is trusted already changes nothing.
    pub fn allow(&mut self, key: [u8; 32]) -> Result<(), BadIssuer> {
        if self.index(&key).is_some() {
            return Ok(());
        }
        if self.issuers.len() >= ISSUERS_MAX {
            return Err(BadIssuer::Many);
        }
        let verifying = VerifyingKey::from_bytes(&key).ok().filter(|key| !key.is_weak()).ok_or(BadIssuer::Key)?;
        if self.issuers.iter().any(|issuer| tag(&issuer.key) == tag(&key)) {
            return Err(BadIssuer::Tag);
        }
        let root = Takedown::root(&self.cluster, &key);
        self.issuers.push(Issuer { key, verifying, root, chain: Chain::default() });
        Ok(())
    }

    /// Fills an empty log, whose issuers are allowed, from the records on the drive, in the order of their slots. Each
    /// is checked against the chain, and the signatures that vouch for the rest. What is torn at the file's end is left
    /// out by the caller, who then says that the log is not intact.
    pub fn rebuild(mut self, records: impl IntoIterator<Item = Takedown>) -> Result<Self, BadLog> {
        // Records that no later one has vouched for yet.
        let mut bare: BTreeMap<[u8; 32], Takedown> = BTreeMap::new();
        let mut merged = Merged::default();
        let mut entries = Vec::new();
        for record in records {
            let slot = self.slots;
            let issuer = self.index(&record.issuer).ok_or(BadLog::Stranger(slot))?;
            let hash = record.hash();
            let entry = self.take(issuer, &record, hash, &mut merged).ok_or(BadLog::Misplaced(slot))?;
            entries.push(entry);
            if entries.len() >= 4 * RECORDS_MAX {
                self.barred.add(std::mem::take(&mut entries));
            }
            bare.remove(&record.previous);
            bare.insert(hash, record);
        }
        self.barred.add(entries);
        let vouched: BTreeSet<[u8; 32]> = bare.values().map(|record| record.previous).collect();
        for (hash, record) in &bare {
            let key = &self.issuers[self.index(&record.issuer).expect("found above")].verifying;
            let followed = vouched.contains(hash) || self.is_inner(record, hash);
            if !followed && !record.is_signed_by(key) {
                return Err(BadLog::Signature(record.name()));
            }
        }
        Ok(self)
    }

    /// Whether another record of the chain follows this one.
    fn is_inner(&self, record: &Takedown, hash: &[u8; 32]) -> bool {
        let issuer = self.index(&record.issuer).expect("the caller found it");
        let chain = &self.issuers[issuer].chain;
        let mark = super::Mark { number: record.number, hash: half(hash) };
        chain.knows(&mark) && !chain.tips().contains(&mark)
    }

    fn index(&self, key: &[u8; 32]) -> Option<usize> {
        self.issuers.iter().position(|issuer| issuer.key == *key)
    }

    /// Takes a track down, signed by `key`: one of the issuers. `time` is in milliseconds since 1970. Write and flush
    /// the record before it is told to anybody. One process at a time issues with a key, and only on a node that has
    /// all of that key's records, or the chain forks: no harm to what is barred, but an alarm.
    pub fn issue(&mut self, key: &NodeKey, track: TrackId, time: u64, reason: &str) -> Result<Takedown, IssueError> {
        if let Some(name) = self.number_of(&track) {
            return Err(IssueError::Already(name));
        }
        if reason.len() > REASON_BYTES_MAX {
            return Err(IssueError::Reason(reason.len()));
        }
        let index = self.index(&key.public()).ok_or(IssueError::Stranger)?;
        let (last, previous) = self.issuers[index].chain.tip().unwrap_or((0, self.issuers[index].root));
        if self.held.keys().any(|(issuer, _, _)| usize::from(*issuer) == index) {
            return Err(IssueError::Behind);
        }
        if last >= u64::from(u32::MAX) {
            return Err(IssueError::Full);
        }
        let reason = reason.to_owned();
        let bare = Takedown { issuer: [0; 32], number: last + 1, previous, track, time, reason, signature: [0; 64] };
        let record = bare.sign(key);
        let entry = self.take(index, &record, record.hash(), &mut Merged::default()).ok_or(IssueError::Full)?;
        self.barred.add(vec![entry]);
        Ok(record)
    }

    /// Takes others' records, at most [`RECORDS_MAX`] at once; more are counted as refused. What is known changes
    /// nothing.
    ///
    /// Of consecutive records only the last one's signature is checked, because it signs all before it through the
    /// hashes; where it is bad, the one before, and so on, and those behind the good one are dropped. Each head is thus
    /// signed, and from any head to the next signed record there are fewer than [`RECORDS_MAX`], so that all logs
    /// take the same records however batches fell.
    pub fn merge(&mut self, records: &[Takedown]) -> Merged {
        let mut merged = Merged { refused: records.len().saturating_sub(RECORDS_MAX), ..Merged::default() };
        let mut entries = Vec::new();
        let mut run: Vec<(&Takedown, [u8; 32])> = Vec::new();
        for record in &records[..records.len().min(RECORDS_MAX)] {
            let follows = run.last().is_some_and(|(last, hash)| {
                last.issuer == record.issuer
                    && last.number.checked_add(1) == Some(record.number)
                    && record.previous == *hash
            });
            if !follows {
                self.merge_run(&run, &mut merged, &mut entries);
                run.clear();
            }
            run.push((record, record.hash()));
        }
        self.merge_run(&run, &mut merged, &mut entries);
        let ids: BTreeSet<[u8; 32]> = entries.iter().map(|entry| entry.id).collect();
        let fresh = ids.into_iter().filter(|id| self.barred.get(id).is_none()).map(TrackId::from_bytes);
        merged.barred = fresh.collect();
        self.barred.add(entries);
        merged
    }

    fn merge_run(&mut self, run: &[(&Takedown, [u8; 32])], merged: &mut Merged, entries: &mut Vec<Entry>) {
        let Some((first, _)) = run.first() else { return };
        let Some(index) = self.index(&first.issuer) else {
            merged.strangers += run.len();
            merged.stranger = Some(first.issuer);
            return;
        };
        let key = self.issuers[index].verifying;
        // What is known needs no signature: gossip that repeats itself costs nothing.
        let known = run.iter().take_while(|(record, hash)| self.has(index, record, hash)).count();
        let run = &run[known..];
        let good = (0..run.len()).rev().find(|at| run[*at].0.is_signed_by(&key)).map_or(0, |last| last + 1);
        merged.forged += run.len() - good;
        for (at, (record, hash)) in run[..good].iter().enumerate() {
            if self.has(index, record, hash) {
                continue;
            }
            let Some(entry) = self.take(index, record, *hash, merged) else {
                // What follows would only be held for what is refused.
                merged.refused += good - at;
                return;
            };
            entries.push(entry);
            merged.append.push((*record).clone());
        }
    }

    fn has(&self, index: usize, record: &Takedown, hash: &[u8; 32]) -> bool {
        let mark = super::Mark { number: record.number, hash: half(hash) };
        let held = held_key(index, record.number, hash).is_some_and(|key| self.held.contains_key(&key));
        held || self.issuers[index].chain.knows(&mark)
    }

    /// Gives a record, whose signature is checked or vouched for and which is new, the next slot; none where it has no
    /// place.
    fn take(&mut self, index: usize, record: &Takedown, hash: [u8; 32], merged: &mut Merged) -> Option<Entry> {
        let number = u32::try_from(record.number).ok().filter(|number| *number > 0)?;
        let (slot, next) = (self.slots, self.slots.checked_add(1)?);
        let issuer = &mut self.issuers[index];
        match issuer.chain.place(record.number, &record.previous, &hash, &issuer.root) {
            Place::Next { forks } => {
                issuer.chain.attach(record.number, &record.previous, &hash, slot);
                if forks && !merged.forked.contains(&issuer.key) {
                    merged.forked.push(issuer.key);
                }
                self.settle(index, number, hash, merged);
            }
            Place::Gap if self.held.len() < HELD_MAX => {
                let key = held_key(index, record.number, &hash)?;
                self.held.insert(key, Held { previous: record.previous, hash, slot });
            }
            Place::Gap | Place::Known | Place::Full | Place::Stray => return None,
        }
        self.slots = next;
        Some(Entry::new(*record.track.as_bytes(), number, index_u8(index)))
    }

    /// Attaches held records that follow the one of `number`, and those that follow them.
    fn settle(&mut self, index: usize, number: u32, hash: [u8; 32], merged: &mut Merged) {
        let mut settled = vec![(number, hash)];
        while let Some((number, hash)) = settled.pop() {
            let Some(next) = number.checked_add(1) else { continue };
            let range = (index_u8(index), next, [0; 16])..=(index_u8(index), next, [0xff; 16]);
            let held = self.held.range(range).filter(|(_, held)| held.previous == hash);
            let keys: Vec<HeldKey> = held.map(|(key, _)| *key).collect();
            for key in keys {
                let issuer = &mut self.issuers[index];
                let held = &self.held[&key];
                let place = issuer.chain.place(u64::from(next), &held.previous, &held.hash, &issuer.root);
                // One that would begin a branch too many stays held: it is barred, and counts for no head.
                let Place::Next { forks } = place else { continue };
                issuer.chain.attach(u64::from(next), &held.previous, &held.hash, held.slot);
                if forks && !merged.forked.contains(&issuer.key) {
                    merged.forked.push(issuer.key);
                }
                settled.push((next, held.hash));
                self.held.remove(&key);
            }
        }
    }

    /// Whether the track was taken down.
    #[must_use]
    pub fn is_barred(&self, track: &TrackId) -> bool {
        self.barred.get(track.as_bytes()).is_some()
    }

    /// At most `limit` barred tracks, those after `after`, rising: for whoever goes through all of them.
    #[must_use]
    pub fn barred_after(&self, after: Option<&TrackId>, limit: usize) -> Vec<TrackId> {
        let first = after.map_or([0; 32], |after| *after.as_bytes());
        let ids = self.barred.between(&first, &[0xff; 32], limit + 1).into_iter().map(TrackId::from_bytes);
        ids.filter(|id| after != Some(id)).take(limit).collect()
    }

    /// The takedown of the track: of several, the one of the lowest number, then of the lowest key, so that equal logs
    /// name the same.
    #[must_use]
    pub fn number_of(&self, track: &TrackId) -> Option<Name> {
        let name = |entry: &Entry| Name {
            number: u64::from(entry.number()),
            issuer: self.issuers[usize::from(entry.issuer)].key,
        };
        self.barred.all(track.as_bytes()).map(name).min()
    }

    /// The names that a takedown's number in the cluster ([`Name::in_cluster`]) stands for: one, where issuers' tags differ.
    pub fn names(&self, in_cluster: u64) -> impl Iterator<Item = Name> {
        let name = move |issuer: &Issuer| Name { number: in_cluster & u64::from(u32::MAX), issuer: issuer.key };
        self.issuers.iter().map(name).filter(move |name| name.in_cluster() == in_cluster)
    }

    /// The slots of the record of this name: several where its issuer forked, none where it is not in the chains.
    #[must_use]
    pub fn slots_of(&self, name: &Name) -> Vec<u32> {
        self.index(&name.issuer).map_or_else(Vec::new, |index| self.issuers[index].chain.slots_of(name.number))
    }

    /// The last record of every branch of every issuer. Equal heads, equal logs, but for records held.
    #[must_use]
    pub fn heads(&self) -> Heads {
        self.marks(Chain::tips)
    }

    /// The heads and records ever further back: what to ask with, see [`Heads`].
    #[must_use]
    pub fn locator(&self) -> Heads {
        self.marks(Chain::locator)
    }

    fn marks(&self, of: impl Fn(&Chain) -> Vec<super::Mark>) -> Heads {
        let marks = self.issuers.iter().map(|issuer| (issuer.key, of(&issuer.chain)));
        Heads(marks.filter(|(_, marks)| !marks.is_empty()).collect())
    }

    /// Whether all records that `heads` speaks of are here, with all before them. An issuer that is not known here
    /// makes it false: this node's map is behind.
    #[must_use]
    pub fn covers(&self, heads: &Heads) -> bool {
        heads.0.iter().all(|(key, marks)| {
            self.index(key).is_some_and(|index| marks.iter().all(|mark| self.issuers[index].chain.knows(mark)))
        })
    }

    /// The slots of at most `limit` records that whoever has what `known` says lacks, each after its predecessor. Ask
    /// again until nothing comes.
    #[must_use]
    pub fn since(&self, known: &Heads, limit: usize) -> Vec<u32> {
        let mut slots = Vec::new();
        for issuer in &self.issuers {
            let left = limit - slots.len();
            issuer.chain.since(known.of(&issuer.key), left, &mut slots);
        }
        slots
    }

    /// Issuers that signed two records of one number: keys to be looked into. At most [`ISSUERS_MAX`].
    pub fn forked(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.issuers.iter().filter(|issuer| issuer.chain.is_forked()).map(|issuer| &issuer.key)
    }

    /// How many records are on the drive: the slot of the next.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.slots
    }

    /// How many records wait for their predecessors. They are barred, but count for no head.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// How many records are in the chains.
    #[must_use]
    pub fn chained(&self) -> usize {
        self.issuers.iter().map(|issuer| issuer.chain.len()).sum()
    }

    /// Bytes that the barred ids take in memory, and how many entries there are: one a takedown.
    #[must_use]
    pub fn barred_bytes(&self) -> (usize, usize) {
        (self.barred.bytes(), self.barred.len())
    }
}

fn index_u8(index: usize) -> u8 {
    u8::try_from(index).expect("at most ISSUERS_MAX")
}

fn held_key(index: usize, number: u64, hash: &[u8; 32]) -> Option<HeldKey> {
    Some((index_u8(index), u32::try_from(number).ok()?, half(hash)))
}
