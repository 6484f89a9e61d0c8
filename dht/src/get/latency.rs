//! How fast nodes answered, and so whom a read asks first.

use std::collections::BTreeMap;

use crate::read::Reader;
use crate::{Node, NodeId, Targets};

/// Nobody is asked beside a holder sooner than this, in ms.
pub const HEDGE_MS_MIN: u64 = 20;
/// The most nodes that are remembered; those beyond are taken for nodes that were not heard of.
pub const LATENCY_NODES_MAX: usize = 16_384;

/// So many answers of a node make a p95; before, all nodes' together are used.
const SAMPLES_MIN: u32 = 20;
/// When a node has so many, all counts are halved: the last some hundred answers matter.
const SAMPLES_MAX: u32 = 256;
/// Two to an octave from 1 ms; the last takes all that is longer, from 46 s.
const BUCKETS: usize = 33;
/// Nodes that are this fast or faster, in ms, are asked in the map's order, and so share the load.
const FAST_MS: u64 = 4;
/// After so long without an answer a node counts as twice as fast, so that one that was slow is tried again.
const FORGET_MS: u64 = 10_000;

/// A client's memory of how long nodes took to the first byte. Integers only; 100 bytes a node.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    nodes: BTreeMap<NodeId, Entry>,
    all: Histogram,
}

#[derive(Clone, Debug)]
struct Entry {
    /// The moving average in 1/16 ms: each answer weighs an eighth (RFC 6298, section 2).
    average: u64,
    heard: u64,
    histogram: Histogram,
}

#[derive(Clone, Debug)]
struct Histogram {
    counts: [u16; BUCKETS],
    total: u32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    fn add(&mut self, ms: u64) {
        if self.total >= SAMPLES_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|count| u32::from(*count)).sum();
        }
        self.counts[bucket(ms)] += 1;
        self.total += 1;
    }

    /// The upper bound in ms of the bucket below or in which 95 % lie, once there are enough.
    fn p95(&self) -> Option<u64> {
        if self.total < SAMPLES_MIN {
            return None;
        }
        let mut below = 0;
        let at = self.counts.iter().position(|count| {
            below += u32::from(*count);
            below * 100 >= self.total * 95
        });
        at.map(bound)
    }
}

/// The bucket of a time: 0 up to 1 ms, then two an octave.
fn bucket(ms: u64) -> usize {
    (0..BUCKETS - 1).find(|at| ms <= bound(*at)).unwrap_or(BUCKETS - 1)
}

/// The longest time in a bucket, in ms: 1, 2, 3, 4, 6, 8, 12, 16, 24 and so on.
const fn bound(at: usize) -> u64 {
    match at {
        0 => 1,
        at if at % 2 == 1 => 1 << at.div_ceil(2),
        at => 3 << (at / 2 - 1),
    }
}

impl Latency {
    /// Nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The node took so long to the first byte, or so long and it had not come.
    pub fn record(&mut self, now: u64, node: NodeId, ms: u64) {
        self.all.add(ms);
        let full = self.nodes.len() >= LATENCY_NODES_MAX;
        if full && !self.nodes.contains_key(&node) {
            return;
        }
        let sixteenths = ms.saturating_mul(16);
        let entry = self.nodes.entry(node).or_insert_with(|| Entry {
            average: sixteenths,
            heard: now,
            histogram: Histogram::default(),
        });
        entry.average = entry.average - entry.average / 8 + sixteenths / 8;
        entry.heard = now;
        entry.histogram.add(ms);
    }

    /// How long the node's first byte takes in 19 of 20 cases, in ms, as far as is known: by all nodes where the node
    /// was not heard of often enough, none where these neither.
    #[must_use]
    pub fn p95(&self, node: &NodeId) -> Option<u64> {
        self.nodes.get(node).and_then(|entry| entry.histogram.p95()).or_else(|| self.all.p95())
    }

    /// How slow the node is, in octaves: 0 for a fast one or one that is not known.
    fn slowness(&self, now: u64, node: &NodeId) -> u64 {
        let Some(entry) = self.nodes.get(node) else { return 0 };
        let octaves = u64::from((entry.average / (16 * FAST_MS)).checked_ilog2().map_or(0, |log| log + 1));
        octaves.saturating_sub(now.saturating_sub(entry.heard) / FORGET_MS)
    }

    /// The order in which a read asks the holders of `targets`: those that are down last; the first set before the
    /// second; those in `zone`, where it is given, before others; the fast before the slow, told apart by factors of
    /// two; else as the map has them. `nodes`: those of the map that the targets are of. `is_down`, of an index
    /// of these: whether the node was out of reach when last heard of.
    pub fn order(
        &self,
        now: u64,
        targets: &Targets,
        nodes: &[Node],
        zone: Option<usize>,
        is_down: impl Fn(usize) -> bool,
    ) -> Vec<Reader> {
        let holders = targets.holders().iter().enumerate();
        let mut order: Vec<_> = holders
            .map(|(holder, at)| {
                let node = &nodes[at.node].id;
                let hedge_ms = self.p95(node).map(|ms| ms.max(HEDGE_MS_MIN));
                let reader = Reader { holder, hedge_ms, is_down: is_down(at.node) };
                let far = zone.is_some_and(|zone| zone != at.zone);
                ((reader.is_down, !targets.is_first(holder), far, self.slowness(now, node), holder), reader)
            })
            .collect();
        order.sort_unstable_by_key(|(key, _)| *key);
        order.into_iter().map(|(_, reader)| reader).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_grow_by_half_an_octave_and_take_every_time() {
        assert_eq!((0..8).map(bound).collect::<Vec<_>>(), [1, 2, 3, 4, 6, 8, 12, 16]);
        for ms in (0..70_000).chain([u64::MAX]) {
            let at = bucket(ms);
            assert!(at == BUCKETS - 1 || ms <= bound(at), "{ms}");
            assert!(at == 0 || ms > bound(at - 1), "{ms}");
        }
    }
}
