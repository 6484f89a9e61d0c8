//! Whom a node knows: k-buckets.

use super::distance::{Distance, Key};
use super::message::Contact;
use crate::NodeId;

/// How a table is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableRules {
    /// The most contacts of a bucket, and the most that wait for a place in it.
    pub k: usize,
    /// A contact that failed this many times in a row, with no sign of life between, is doubtful: told to nobody, and
    /// replaced by the next that comes.
    pub failures_max: u8,
    /// A full bucket's oldest contact is pinged when another would like its place, unless it was heard of within this
    /// time, in ms.
    pub quiet_ms: u64,
    /// A bucket in which nothing was looked up for so long, in ms, is due for a refresh.
    pub refresh_ms: u64,
}

/// The routing table of one node (Maymounkov and Mazières, "Kademlia", 2002, sections 2.2 to 2.4 and 4.1).
///
/// Bucket *b* has contacts whose ids share exactly *b* leading bits with the node's own: at most k of them, the least
/// recently seen first, and at most k more that wait for a place. A contact that lives is thrown out for a new one only
/// to spread the bucket (below), since nodes that have been up for long stay up; so newcomers cannot flood the table
/// either. Only nodes that answered, or that asked something themselves, come into the table; contacts that others tell
/// of do not.
///
/// **Spread.** What a lookup meets lies around its key, so a bucket that took in whoever comes first would be a clump,
/// and a lookup of any other key in it would gain a bit or two where it could gain four. So the bucket's part of the
/// keyspace is seen as 2^⌊log₂ k⌋ equal *parts* (the paper's accelerated lookups, section 4.2, in one bucket): a
/// newcomer of a part that has two contacts less than the fullest takes the place of that one's least recently seen,
/// and refreshes look into the emptiest part. Then every key has a contact four bits nearer, if k is 20, which a bucket
/// drawn at random has not.
///
/// Memory: at most 2 k contacts a bucket, and 256 buckets; among 10,000 nodes some 14 buckets have any.
#[derive(Clone, Debug)]
pub struct Table {
    own: Key,
    rules: TableRules,
    buckets: Vec<Bucket>,
}

#[derive(Clone, Debug)]
struct Bucket {
    /// The least recently seen first.
    entries: Vec<Entry>,
    /// Those that wait for a place, the most recently seen last.
    waiting: Vec<Contact>,
    refresh_due: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    contact: Contact,
    key: Key,
    seen: u64,
    failures: u8,
    /// A ping is under way that was sent to make room.
    pinged: bool,
}

impl Table {
    /// An empty table of the node `own`.
    #[must_use]
    pub fn new(own: NodeId, rules: TableRules) -> Self {
        assert!(rules.k > 0 && rules.failures_max > 0, "a bucket holds one contact at least: {rules:?}");
        Self { own: own.into(), rules, buckets: Vec::new() }
    }

    /// The contact asked or answered. If its bucket is full of others, it waits; the oldest of those is returned if it
    /// is to be pinged: tell [`handle_seen`](Self::handle_seen) or [`handle_failed`](Self::handle_failed) what comes of
    /// it.
    #[must_use]
    pub fn handle_seen(&mut self, now: u64, contact: Contact) -> Option<Contact> {
        let rules = self.rules;
        let key = contact.key();
        let parts = Parts::of(self.own.distance(&key).bucket()?, rules.k);
        let bucket = self.bucket_for(now, &key)?;
        if let Some(at) = bucket.entries.iter().position(|entry| entry.contact.id == contact.id) {
            bucket.entries.remove(at);
            bucket.entries.push(Entry::new(now, contact));
            return None;
        }
        if bucket.entries.len() == rules.k {
            let doubtful = bucket.entries.iter().position(|entry| entry.failures >= rules.failures_max);
            if let Some(at) = doubtful {
                bucket.entries.remove(at);
            } else if let Some(at) = bucket.crowding(parts, &key) {
                let crowding = bucket.entries.remove(at);
                bucket.wait(crowding.contact, rules.k);
            } else {
                bucket.wait(contact, rules.k);
                let oldest = &mut bucket.entries[0];
                let quiet = now >= oldest.seen.saturating_add(rules.quiet_ms);
                return (quiet && !std::mem::replace(&mut oldest.pinged, true)).then(|| oldest.contact.clone());
            }
        }
        bucket.waiting.retain(|waiting| waiting.id != contact.id);
        bucket.entries.push(Entry::new(now, contact));
        None
    }

    /// The contact did not answer, or could not be reached. After so many times in a row the one that was last seen of
    /// those that wait takes its place; while none waits it stays, doubtful: after an outage of our own network the
    /// table is still there.
    pub fn handle_failed(&mut self, now: u64, id: &NodeId) {
        let rules = self.rules;
        let Some(bucket) = self.own.distance(&(*id).into()).bucket() else { return };
        let Some(bucket) = self.buckets.get_mut(usize::from(bucket)) else { return };
        bucket.waiting.retain(|waiting| waiting.id != *id);
        let Some(at) = bucket.entries.iter().position(|entry| entry.contact.id == *id) else { return };
        let entry = &mut bucket.entries[at];
        entry.failures = entry.failures.saturating_add(1);
        entry.pinged = false;
        if entry.failures >= rules.failures_max
            && let Some(contact) = bucket.waiting.pop()
        {
            bucket.entries.remove(at);
            bucket.entries.push(Entry::new(now, contact));
        }
    }

    /// Forgets the contacts that `is_kept` does not name.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&NodeId) -> bool) {
        for bucket in &mut self.buckets {
            bucket.entries.retain(|entry| is_kept(&entry.contact.id));
            bucket.waiting.retain(|contact| is_kept(&contact.id));
        }
        let used = |bucket: &Bucket| !bucket.entries.is_empty() || !bucket.waiting.is_empty();
        let last = self.buckets.iter().rposition(used);
        self.buckets.truncate(last.map_or(0, |last| last + 1));
    }

    /// The `count` contacts nearest to `key`, nearest first, without the doubtful ones.
    #[must_use]
    pub fn nearest(&self, key: &Key, count: usize) -> Vec<Contact> {
        self.nearest_where(key, count, |entry| entry.failures < self.rules.failures_max)
    }

    /// The `count` doubtful contacts nearest to `key`, nearest first.
    #[must_use]
    pub fn nearest_doubtful(&self, key: &Key, count: usize) -> Vec<Contact> {
        self.nearest_where(key, count, |entry| entry.failures >= self.rules.failures_max)
    }

    fn nearest_where(&self, key: &Key, count: usize, wanted: impl Fn(&Entry) -> bool) -> Vec<Contact> {
        let entries = self.buckets.iter().flat_map(|bucket| &bucket.entries).filter(|entry| wanted(entry));
        let mut near: Vec<(Distance, &Contact)> =
            entries.map(|entry| (entry.key.distance(key), &entry.contact)).collect();
        if near.len() > count {
            near.select_nth_unstable(count);
            near.truncate(count);
        }
        near.sort_unstable();
        near.into_iter().map(|(_, contact)| contact.clone()).collect()
    }

    /// Something in the bucket of `key` is being looked up: it is due for a refresh a whole time later.
    pub fn handle_lookup(&mut self, now: u64, key: &Key) {
        let due = now.saturating_add(self.rules.refresh_ms);
        if let Some(at) = self.own.distance(key).bucket()
            && let Some(bucket) = self.buckets.get_mut(usize::from(at))
        {
            bucket.refresh_due = due;
        }
    }

    /// All buckets are due for a refresh: the node has just joined, and knows little but its neighbours.
    pub fn refresh_all(&mut self, now: u64) {
        for bucket in &mut self.buckets {
            bucket.refresh_due = now;
        }
    }

    /// The bucket that has been due for a refresh the longest. Look up a key of it
    /// ([`refresh_key`](Self::refresh_key)) and say so ([`handle_lookup`](Self::handle_lookup)).
    #[must_use]
    pub fn refresh_due(&self, now: u64) -> Option<u8> {
        let due = self.buckets.iter().enumerate().filter(|(_, bucket)| bucket.refresh_due <= now);
        let (at, _) = due.min_by_key(|(_, bucket)| bucket.refresh_due)?;
        Some(u8::try_from(at).expect("a table has 256 buckets at most"))
    }

    /// A key of the bucket's emptiest part; `random` chooses among those that are equally empty, and within.
    #[must_use]
    pub fn refresh_key(&self, bucket: u8, random: [u64; 4]) -> Key {
        let parts = Parts::of(bucket, self.rules.k);
        let counts = self.buckets.get(usize::from(bucket)).map_or([0; PARTS_MAX], |bucket| bucket.counts(parts));
        // The random words' last bits, which say where to begin, are too far down to matter in the key.
        let first = usize::try_from(random[3] % 64).expect("below 64");
        let places = (0..parts.count()).map(|at| (first + at) % parts.count());
        let emptiest = places.min_by_key(|at| counts[*at]).expect("one part at least");
        let key = self.own.in_bucket(bucket, random);
        key.with_bits(parts.from, parts.bits, emptiest as u64)
    }

    /// From here on a bucket is due so long after the last lookup in it, those that are due already aside.
    pub fn set_refresh_ms(&mut self, now: u64, refresh_ms: u64) {
        let old = std::mem::replace(&mut self.rules.refresh_ms, refresh_ms);
        for bucket in self.buckets.iter_mut().filter(|bucket| bucket.refresh_due > now) {
            bucket.refresh_due = bucket.refresh_due.saturating_sub(old).saturating_add(refresh_ms);
        }
    }

    /// When the next bucket is due for a refresh.
    #[must_use]
    pub fn next_refresh(&self) -> Option<u64> {
        self.buckets.iter().map(|bucket| bucket.refresh_due).min()
    }

    /// How many contacts each bucket has and how many wait for a place in it, from the farthest bucket on.
    pub fn sizes(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.buckets.iter().map(|bucket| (bucket.entries.len(), bucket.waiting.len()))
    }

    /// The contacts, bucket by bucket, the least recently seen of each first, and whether each is doubtful.
    pub fn contacts(&self) -> impl Iterator<Item = (&Contact, bool)> {
        let entries = self.buckets.iter().flat_map(|bucket| &bucket.entries);
        entries.map(|entry| (&entry.contact, entry.failures >= self.rules.failures_max))
    }

    /// The bucket of `key`, unless it is the own id; the list of buckets reaches as far as the nearest contact.
    fn bucket_for(&mut self, now: u64, key: &Key) -> Option<&mut Bucket> {
        let at = usize::from(self.own.distance(key).bucket()?);
        let refresh_due = now.saturating_add(self.rules.refresh_ms);
        while self.buckets.len() <= at {
            self.buckets.push(Bucket { entries: Vec::new(), waiting: Vec::new(), refresh_due });
        }
        Some(&mut self.buckets[at])
    }
}

/// The parts of a bucket: the bits of a key that say which it is in.
#[derive(Clone, Copy)]
struct Parts {
    from: u32,
    bits: u32,
}

/// The most parts of a bucket.
const PARTS_MAX: usize = 64;

impl Parts {
    fn of(bucket: u8, k: usize) -> Self {
        Self { from: u32::from(bucket) + 1, bits: k.ilog2().min(PARTS_MAX.ilog2()) }
    }

    const fn count(self) -> usize {
        1 << self.bits
    }

    fn part(self, key: &Key) -> usize {
        usize::try_from(key.bits(self.from, self.bits)).expect("below the number of parts")
    }
}

impl Bucket {
    fn counts(&self, parts: Parts) -> [u32; PARTS_MAX] {
        let mut counts = [0; PARTS_MAX];
        for entry in &self.entries {
            counts[parts.part(&entry.key)] += 1;
        }
        counts
    }

    /// The least recently seen of the fullest part, if that has at least two more than the part of `key`.
    fn crowding(&self, parts: Parts, key: &Key) -> Option<usize> {
        let counts = self.counts(parts);
        let most = *counts.iter().max()?;
        let at = self.entries.iter().position(|entry| counts[parts.part(&entry.key)] == most)?;
        (most >= counts[parts.part(key)] + 2).then_some(at)
    }

    fn wait(&mut self, contact: Contact, k: usize) {
        self.waiting.retain(|waiting| waiting.id != contact.id);
        if self.waiting.len() == k {
            self.waiting.remove(0);
        }
        self.waiting.push(contact);
    }
}

impl Entry {
    fn new(seen: u64, contact: Contact) -> Self {
        Self { key: contact.key(), contact, seen, failures: 0, pinged: false }
    }
}
