//! One seed's story after the other, until enough was done.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fixture::DIRECTORY;
use super::story::Story;

/// How many lives a drive has before the next seed's drive takes its place.
const LIVES: u64 = 25;

/// Where a run starts, and when it has done enough.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many operations it does at least.
    pub operations_min: u64,
    /// How many crashes the volumes go through at least.
    pub crashes_min: u64,
    /// How many seeds are run at once; not zero.
    pub threads: usize,
    /// The first seed; the others follow it.
    pub first_seed: u64,
}

/// What a run has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ran {
    /// Stories that ended well.
    pub seeds: u64,
    /// Operations that were begun on their volumes.
    pub operations: u64,
    /// Losses of power, and kills of the process.
    pub crashes: u64,
}

/// A story that did not end well.
#[derive(Clone, Debug, thiserror::Error)]
#[error("seed {seed}: {panic}")]
pub struct Failure {
    /// Replays it: see [`replay`].
    pub seed: u64,
    /// What its panic said.
    pub panic: String,
}

/// Runs the stories of one seed after the other until both minima are reached, and shows `progress` after each, on
/// whichever thread. No new story begins after a failure; where several fail, the answer is the first.
pub fn run(limits: &Limits, progress: impl Fn(Ran) + Sync) -> Result<Ran, Failure> {
    let (told, operations, crashes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let ran = || Ran {
        seeds: told.load(Ordering::Relaxed),
        operations: operations.load(Ordering::Relaxed),
        crashes: crashes.load(Ordering::Relaxed),
    };
    let story = |seed| {
        let story = tell(seed, None);
        told.fetch_add(1, Ordering::Relaxed);
        operations.fetch_add(story.operations.get(), Ordering::Relaxed);
        crashes.fetch_add(story.crashes, Ordering::Relaxed);
        progress(ran());
    };
    let enough = || ran().operations >= limits.operations_min && ran().crashes >= limits.crashes_min;
    seeds(limits.first_seed, limits.threads, story, enough)?;
    Ok(ran())
}

/// Runs the story of one seed, as [`run`] does, and shows what each life asked of the drive. Panics as the story does.
pub fn replay(seed: u64, mut show: impl FnMut(&str)) -> Ran {
    let story = tell(seed, Some(&mut show));
    Ran { seeds: 1, operations: story.operations.get(), crashes: story.crashes }
}

/// All lives of a seed's drive. A panic says in which it was.
fn tell(seed: u64, mut show: Option<&mut dyn FnMut(&str)>) -> Story {
    let mut story = Story::new(seed);
    for life in 0..LIVES {
        if show.is_some() {
            story.disk.record(Path::new(DIRECTORY));
        }
        let before = story.operations.get();
        let lived = catch_unwind(AssertUnwindSafe(|| story.live()));
        if let Some(show) = &mut show {
            show(&format!("life {life}\n{}", story.disk.recorded()));
        }
        if let Err(panic) = lived {
            let begun = story.operations.get() - before;
            resume_unwind(Box::new(format!("life {life}, after {begun} operations of it: {}", said(&*panic))));
        }
    }
    story
}

/// Runs `story` for one seed after the other, beginning with `first`, on several threads, until `enough`. A panic of it
/// ends the run.
pub fn seeds(
    first: u64,
    threads: usize,
    story: impl Fn(u64) + Sync,
    enough: impl Fn() -> bool + Sync,
) -> Result<(), Failure> {
    assert!(threads > 0, "somebody must run the stories");
    let (next, failure) = (AtomicU64::new(first), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !enough() && failure.lock().expect("no panic while held").is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| story(seed))) {
                        let panic = said(&*panic);
                        failure.lock().expect("no panic while held").get_or_insert(Failure { seed, panic });
                    }
                }
            });
        }
    });
    failure.into_inner().expect("no panic while held").map_or(Ok(()), Err)
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

#[cfg(test)]
mod tests {
    use super::{AtomicU64, Limits, Ordering, run, seeds};

    #[test]
    fn a_failure_names_its_seed_and_ends_the_run() {
        let begun = AtomicU64::new(0);
        let story = |seed| {
            begun.fetch_add(1, Ordering::Relaxed);
            assert_ne!(seed, 12, "the map differs");
        };
        let failure = seeds(10, 1, story, || false).expect_err("seed 12 fails");
        assert_eq!((failure.seed, begun.into_inner()), (12, 3));
        assert!(failure.to_string().starts_with("seed 12: ") && failure.panic.contains("the map differs"), "{failure}");
    }

    #[test]
    fn a_run_goes_on_until_both_minima_are_reached() {
        let shown = AtomicU64::new(0);
        let limits = Limits { operations_min: 1, crashes_min: 30, threads: 1, first_seed: 1 };
        let ran = run(&limits, |ran| shown.store(ran.crashes, Ordering::Relaxed)).expect("ends well");
        assert!(ran.seeds > 1 && ran.operations > 1 && ran.crashes >= 30, "{ran:?}");
        assert_eq!(shown.into_inner(), ran.crashes);
        let again = run(&limits, |_| {}).expect("ends well");
        assert_eq!(ran, again, "the same seeds are the same stories");
    }
}
