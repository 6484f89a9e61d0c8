//! How slow clients' requests to the node's drives are, by which repair yields.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A bucket for each eighth of a power of two microseconds: within 13 % of the true value, up to 67 s.
const BUCKETS: usize = 8 * 26;

/// Counted by all shards, read once a second.
pub(crate) struct DriveLatency([AtomicU32; BUCKETS]);

impl Default for DriveLatency {
    fn default() -> Self {
        Self([const { AtomicU32::new(0) }; BUCKETS])
    }
}

impl DriveLatency {
    pub(crate) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0[bucket(micros)].fetch_add(1, Ordering::Relaxed);
    }

    /// The 99th percentile in microseconds of what was recorded since the last question, if anything was.
    pub(super) fn take_p99(&self) -> Option<u64> {
        let counts: Vec<u64> = self.0.iter().map(|count| u64::from(count.swap(0, Ordering::Relaxed))).collect();
        let all: u64 = counts.iter().sum();
        let mut beyond = all / 100;
        let worst = (0..BUCKETS).rev().find(|bucket| match counts[*bucket].checked_sub(beyond + 1) {
            Some(_) => true,
            None => {
                beyond -= counts[*bucket];
                false
            }
        });
        worst.map(upper)
    }
}

/// Eight a power of two, from 8 us on; below, one each.
fn bucket(micros: u64) -> usize {
    if micros < 8 {
        return usize::try_from(micros).expect("below 8");
    }
    let power = micros.ilog2();
    let eighth = (micros >> (power - 3)) & 7;
    usize::try_from(u64::from(power - 2) * 8 + eighth).map_or(BUCKETS - 1, |bucket| bucket.min(BUCKETS - 1))
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 8 {
        return bucket;
    }
    let power = bucket / 8 + 2;
    ((8 + bucket % 8 + 1) << (power - 3)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_within_an_eighth_of_its_values() {
        for micros in [0, 1, 7, 8, 9, 15, 16, 100, 1_000, 99_999, 5_000_000, 60_000_000] {
            let upper = upper(bucket(micros));
            assert!(upper >= micros && upper - micros <= micros / 8, "{micros}: {upper}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_99th_percentile_is_of_what_came_since() {
        let latency = DriveLatency::default();
        assert_eq!(latency.take_p99(), None);
        (0..99).for_each(|_| latency.record(Duration::from_micros(100)));
        latency.record(Duration::from_millis(50));
        assert_eq!(latency.take_p99(), Some(upper(bucket(100))));
        (0..9).for_each(|_| latency.record(Duration::from_micros(100)));
        latency.record(Duration::from_millis(50));
        assert_eq!(latency.take_p99(), Some(upper(bucket(50_000))));
        assert_eq!(latency.take_p99(), None);
    }
}
