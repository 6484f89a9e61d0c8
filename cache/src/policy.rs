//! What stays in the cache: S3-FIFO. Pure: no clock, no I/O, no threads.
//!
//! Three queues. *Small* takes what is new; what is not asked for again while it passes through leaves after one
//! round, so a scan cannot displace what is popular. *Main* takes what was asked for again. *Ghost* remembers, as
//! hashes only, what left small; what comes back while remembered goes to main at once.
//!
//! Source: Yang and others, "FIFO queues are all you need for cache eviction", SOSP 2023, algorithm 1. One addition: an
//! entry inserted ahead of its first reader ([`Insert::Ahead`]) does not count that reader as a second one. Ranges of
//! one listener within a chunk each count; the cap keeps that small.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};

/// An entry asked for this often is as popular as entries get.
const FREQUENCY_MAX: u8 = 3;
/// More requests than this while in small are what moves an entry to main.
const SMALL_FREQUENCY_STAYS: u8 = 1;
/// The share of the capacity that small aims at, as a divisor: a tenth.
const SMALL_DIVISOR: usize = 10;
/// How many pinned entries one eviction may pass over before it gives up: bounds the time under the caller's lock.
const PINNED_PASSED_MAX: usize = 256;

/// Why an entry is inserted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Insert {
    /// Someone asked for it.
    Asked,
    /// Someone will probably ask for it soon.
    Ahead,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Queue {
    Small,
    Main,
}

struct Node<V> {
    value: V,
    frequency: u8,
    /// Inserted ahead and not asked for yet.
    unread: bool,
    queue: Queue,
    /// The ticket that stands for this entry in its queue; older tickets of the same key are void.
    ticket: u64,
}

/// A map of at most `capacity` entries that knows which one to give up.
pub(crate) struct S3Fifo<K, V> {
    capacity: usize,
    nodes: HashMap<K, Node<V>>,
    small: VecDeque<(K, u64)>,
    small_count: usize,
    main: VecDeque<(K, u64)>,
    main_count: usize,
    ghost: Ghost,
    ticket_next: u64,
    hasher: RandomState,
}

impl<K: Copy + Eq + Hash, V> S3Fifo<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        let ghost_max = capacity - capacity / SMALL_DIVISOR;
        Self {
            capacity,
            nodes: HashMap::with_capacity(capacity.min(1 << 16)),
            small: VecDeque::new(),
            small_count: 0,
            main: VecDeque::new(),
            main_count: 0,
            ghost: Ghost { max: ghost_max, hashes: HashMap::new(), order: VecDeque::new(), ticket_next: 0 },
            ticket_next: 0,
            hasher: RandomState::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.nodes.values().map(|node| &node.value)
    }

    /// The entry, counted as asked for.
    pub(crate) fn get(&mut self, key: &K) -> Option<&V> {
        let node = self.nodes.get_mut(key)?;
        if node.unread {
            node.unread = false;
        } else {
            node.frequency = (node.frequency + 1).min(FREQUENCY_MAX);
        }
        Some(&node.value)
    }

    /// The entry, not counted.
    pub(crate) fn peek(&self, key: &K) -> Option<&V> {
        self.nodes.get(key).map(|node| &node.value)
    }

    /// Adds an entry that is not there. The caller has made room with [`evict`](Self::evict).
    pub(crate) fn insert(&mut self, key: K, value: V, why: Insert) {
        assert!(self.nodes.len() < self.capacity, "an insert needs room, {} of {}", self.nodes.len(), self.capacity);
        let queue = if self.ghost.take(self.hasher.hash_one(key)) { Queue::Main } else { Queue::Small };
        let node = Node { value, frequency: 0, unread: why == Insert::Ahead, queue, ticket: self.ticket_next };
        match self.nodes.entry(key) {
            Entry::Vacant(vacant) => vacant.insert(node),
            Entry::Occupied(_) => panic!("an entry is inserted once"),
        };
        self.push(key, queue);
    }

    /// Takes an entry out for good: neither a queue nor the ghost remembers it.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let node = self.nodes.remove(key)?;
        *self.count_mut(node.queue) -= 1;
        self.drop_void_tickets(node.queue);
        Some(node.value)
    }

    /// Gives up the entry that is worth least among those that are not `pinned`; nothing where all that were looked
    /// at are.
    pub(crate) fn evict(&mut self, pinned: impl Fn(&V) -> bool) -> Option<(K, V)> {
        // Either queue may have to go round once for each frequency before its one entry without a pin shows.
        let rounds = 2 * (usize::from(FREQUENCY_MAX) + 1);
        let budget = PINNED_PASSED_MAX.min(rounds * self.nodes.len());
        let mut passed = 0;
        // Each round either ends, lowers a frequency (at most 3 an entry), moves an entry to main, or passes a pin.
        while passed < budget {
            let small_is_full = self.small_count >= (self.capacity / SMALL_DIVISOR).max(1);
            // Where one queue showed nothing but pins, the other is asked.
            let small_first = small_is_full == (passed < budget / 2);
            let from_small = self.small_count > 0 && (small_first || self.main_count == 0);
            let queue = if from_small { Queue::Small } else { Queue::Main };
            let key = self.pop(queue)?;
            let node = self.nodes.get_mut(&key).expect("a popped ticket is valid");
            let stays = if pinned(&node.value) {
                passed += 1;
                Some(queue)
            } else if queue == Queue::Small && node.frequency > SMALL_FREQUENCY_STAYS {
                node.frequency = 0;
                Some(Queue::Main)
            } else if queue == Queue::Main && node.frequency > 0 {
                node.frequency -= 1;
                Some(Queue::Main)
            } else {
                None
            };
            let Some(stays) = stays else {
                let node = self.nodes.remove(&key).expect("looked up above");
                if queue == Queue::Small {
                    self.ghost.add(self.hasher.hash_one(key));
                }
                return Some((key, node.value));
            };
            node.queue = stays;
            node.ticket = self.ticket_next;
            self.push(key, stays);
        }
        None
    }

    /// Puts the ticket `ticket_next` of `key` at the end of `queue`.
    fn push(&mut self, key: K, queue: Queue) {
        let ticket = self.ticket_next;
        self.ticket_next += 1;
        self.queue_mut(queue).push_back((key, ticket));
        *self.count_mut(queue) += 1;
    }

    /// The oldest entry of `queue`, out of the queue but still in the map.
    fn pop(&mut self, queue: Queue) -> Option<K> {
        loop {
            let (key, ticket) = self.queue_mut(queue).pop_front()?;
            if self.nodes.get(&key).is_some_and(|node| node.ticket == ticket) {
                *self.count_mut(queue) -= 1;
                return Some(key);
            }
        }
    }

    /// Removals leave void tickets in the middle of a queue; at most as many as valid ones are kept.
    fn drop_void_tickets(&mut self, queue: Queue) {
        let valid = *self.count_mut(queue);
        if self.queue_mut(queue).len() > 2 * valid + 64 {
            let Self { nodes, small, main, .. } = self;
            let queue = if queue == Queue::Small { small } else { main };
            queue.retain(|(key, ticket)| nodes.get(key).is_some_and(|node| node.ticket == *ticket));
        }
    }

    fn queue_mut(&mut self, queue: Queue) -> &mut VecDeque<(K, u64)> {
        match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        }
    }

    fn count_mut(&mut self, queue: Queue) -> &mut usize {
        match queue {
            Queue::Small => &mut self.small_count,
            Queue::Main => &mut self.main_count,
        }
    }
}

/// Hashes of keys that left small lately, oldest forgotten first.
struct Ghost {
    max: usize,
    hashes: HashMap<u64, u64>,
    order: VecDeque<(u64, u64)>,
    ticket_next: u64,
}

impl Ghost {
    fn add(&mut self, hash: u64) {
        self.hashes.insert(hash, self.ticket_next);
        self.order.push_back((hash, self.ticket_next));
        self.ticket_next += 1;
        // The order, void tickets and all, is what is bounded: a hash taken out early shortens the memory a little.
        while self.order.len() > self.max {
            let (oldest, ticket) = self.order.pop_front().expect("longer than a maximum");
            if self.hashes.get(&oldest) == Some(&ticket) {
                self.hashes.remove(&oldest);
            }
        }
    }

    fn take(&mut self, hash: u64) -> bool {
        self.hashes.remove(&hash).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Asks for `key`, fetching it where it is missing. Whether it was there.
    fn ask(cache: &mut S3Fifo<u32, u32>, key: u32) -> bool {
        if cache.get(&key).is_some() {
            return true;
        }
        if cache.len() == cache.capacity {
            cache.evict(|_| false).expect("nothing is pinned");
        }
        cache.insert(key, key, Insert::Asked);
        false
    }

    fn ask_for(cache: &mut S3Fifo<u32, u32>, key: u32) {
        let _ = ask(cache, key);
    }

    #[test]
    fn a_scan_does_not_displace_what_is_popular() {
        let mut cache = S3Fifo::new(100);
        for _ in 0..4 {
            (0..50).for_each(|key| ask_for(&mut cache, key));
        }
        (1_000..11_000).for_each(|key| ask_for(&mut cache, key));
        let kept = (0..50).filter(|key| cache.peek(key).is_some()).count();
        assert_eq!(kept, 50);
    }

    #[test]
    fn what_comes_back_soon_goes_to_main() {
        let mut cache = S3Fifo::new(10);
        (0..10).for_each(|key| ask_for(&mut cache, key));
        ask(&mut cache, 10);
        assert!(cache.peek(&0).is_none(), "the oldest one-hit entry left");
        ask(&mut cache, 0);
        assert_eq!(cache.nodes[&0].queue, Queue::Main);
    }

    #[test]
    fn an_entry_read_ahead_counts_its_first_reader_once() {
        let mut cache = S3Fifo::new(10);
        cache.insert(1, 1, Insert::Ahead);
        cache.get(&1);
        assert_eq!(cache.nodes[&1].frequency, 0);
        cache.get(&1);
        assert_eq!(cache.nodes[&1].frequency, 1);
    }

    #[test]
    fn pinned_entries_stay_and_a_cache_of_pins_says_so() {
        let mut cache = S3Fifo::new(8);
        (0..8).for_each(|key| ask_for(&mut cache, key));
        assert!(cache.evict(|_| true).is_none());
        assert_eq!(cache.len(), 8);
        assert_eq!(cache.evict(|&key| key != 5), Some((5, 5)));
    }

    #[test]
    fn removals_leave_no_growing_trace() {
        let mut cache = S3Fifo::new(4);
        for key in 0..100_000 {
            cache.insert(key % 7, key, Insert::Asked);
            assert_eq!(cache.remove(&(key % 7)), Some(key));
        }
        assert!(cache.small.len() <= 64 && cache.main.is_empty() && cache.ghost.hashes.is_empty());
        assert_eq!(cache.evict(|_| false), None);
    }

    proptest! {
        /// Against a plain set: what is there is what was inserted and neither evicted nor removed; counts and queues
        /// agree.
        #[test]
        fn agrees_with_a_set(ops in proptest::collection::vec((0_u8..4, 0_u32..40, any::<u32>()), 0..400), capacity in 1_usize..20) {
            let mut cache = S3Fifo::new(capacity);
            let mut model = BTreeSet::new();
            for (op, key, pins) in ops {
                match op {
                    0 | 1 => {
                        let known = cache.get(&key).copied();
                        prop_assert_eq!(known.is_some(), model.contains(&key));
                        if known.is_none() {
                            if cache.len() == capacity {
                                let pinned = |value: &u32| pins >> (value % 32) & 1 == 1;
                                let Some((out, _)) = cache.evict(pinned) else {
                                    prop_assert!(model.iter().all(pinned), "gave up although {model:?} has unpinned ones");
                                    continue;
                                };
                                prop_assert!(!pinned(&out) && model.remove(&out));
                            }
                            let why = if op == 0 { Insert::Asked } else { Insert::Ahead };
                            cache.insert(key, key, why);
                            model.insert(key);
                        }
                    }
                    2 => prop_assert_eq!(cache.remove(&key).is_some(), model.remove(&key)),
                    _ => {
                        let expected = if model.is_empty() { None } else { Some(true) };
                        let evicted = cache.evict(|_| false).map(|(key, _)| model.remove(&key));
                        prop_assert_eq!(evicted, expected);
                    }
                }
                prop_assert_eq!(cache.len(), model.len());
                prop_assert_eq!(cache.small_count + cache.main_count, model.len());
                prop_assert!(cache.ghost.order.len() <= cache.ghost.max && cache.ghost.hashes.len() <= cache.ghost.order.len());
            }
        }
    }
}
