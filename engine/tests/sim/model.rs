//! Random lives of a volume: operations from several tasks, crashes at every device operation, and the map that is always right.

use deadwax_engine::sim::lives::{self, Limits};

use super::{THREADS, replays, scale};

/// How many operations and crashes a regular run has at least. `DEADWAX_SIM_SCALE` multiplies both.
const OPERATIONS_MIN: u64 = 1_000_000;
const CRASHES_MIN: u64 = 10_000;

#[test]
fn a_volume_is_a_map_through_ten_thousand_crashes() {
    if let Some(seed) = replays() {
        let ran = lives::replay(seed, |life| eprintln!("{life}"));
        return println!("{} operations, {} crashes", ran.operations, ran.crashes);
    }
    let limits = Limits {
        operations_min: OPERATIONS_MIN * scale(),
        crashes_min: CRASHES_MIN * scale(),
        threads: THREADS,
        first_seed: 1,
    };
    let ran = lives::run(&limits, |_| {}).unwrap_or_else(|failure| {
        panic!("{failure}: replay with DEADWAX_SIM_SEED={}", failure.seed);
    });
    println!("{} operations, {} crashes", ran.operations, ran.crashes);
    assert!(ran.operations >= limits.operations_min && ran.crashes >= limits.crashes_min, "{ran:?}");
}
