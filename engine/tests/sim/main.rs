//! The engine on simulated drives that fail in every way, and the simulated drive beside the real one.

mod bits;
mod compaction;
mod conformance;
mod drive;
mod exhaustive;
mod faults;
mod listing;
mod memory;
mod model;
mod split;
mod traces;

use deadwax_engine::sim::lives;

/// How many seeds run at once.
const THREADS: usize = 2;

/// Runs `story` for one seed after the other until `enough`, or for the one that is to be replayed. A failure prints its
/// seed.
fn seeds(name: &str, story: impl Fn(u64) + Sync, enough: impl Fn() -> bool + Sync) {
    if let Some(seed) = replays() {
        return story(seed);
    }
    if let Err(failure) = lives::seeds(1, THREADS, story, enough) {
        panic!("{name}: {failure}: replay with DEADWAX_SIM_SEED={}", failure.seed);
    }
}

/// The seed that is to be replayed, if any.
fn replays() -> Option<u64> {
    std::env::var("DEADWAX_SIM_SEED").ok().and_then(|seed| seed.parse().ok())
}

/// By how much a run is to be longer than the regular one.
fn scale() -> u64 {
    std::env::var("DEADWAX_SIM_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}
