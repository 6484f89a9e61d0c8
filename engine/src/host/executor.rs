//! A glommio executor that is fit for volumes: what it takes to have the drive's speed, and what to keep from glommio 0.9.

use std::future::Future;
use std::io;
use std::time::Duration;

use glommio::{Latency, LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement, Shares};
use tracing::dispatcher::with_default;

use super::pulse::Beat;
use super::slab;

/// Of the queues in which somebody waits: how long one runs before the executor looks at its rings again, and so how long
/// a call from another executor or a drive's answer may wait. glommio's default makes that 100 to 200 ms.
pub(super) const LATENCY: Duration = Duration::from_micros(250);
/// The same for the default queue, where only the start runs, before [`Beat`] guards against sleeping through it: long
/// enough that no thread loses its core for so long.
const START_LATENCY: Duration = Duration::from_secs(1);
/// The most threads that the kernel may use for an executor's operations on files that must wait. Its own bound is four a
/// core: on a small machine one drive that hangs would hold them all, and flushes to the others would wait behind it.
const WORKERS_MAX: u32 = 512;

/// The executor of one shard. Made and run on the shard's own thread.
pub struct Executor {
    executor: LocalExecutor,
    io_memory: usize,
    reserved: usize,
}

impl Executor {
    /// An executor called `name`, kept to `core` where one is given, with `io_memory` bytes of memory for what is at the drives
    /// made ready: see [`VolumeConfig::memory_bytes_max`](crate::VolumeConfig::memory_bytes_max). More is taken while more is needed.
    ///
    /// Errors: whatever glommio says; a machine that does not permit io_uring makes it panic.
    pub fn new(name: &str, core: Option<usize>, io_memory: usize) -> io::Result<Self> {
        let reserved = slab::reservation(io_memory);
        let make = || {
            LocalExecutorBuilder::new(core.map_or(Placement::Unbound, Placement::Fixed))
                .name(name)
                .io_memory(reserved)
                .preempt_timer(START_LATENCY)
                .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
                .make()
        };
        // Where the slab is larger than the kernel registers, that is on purpose, and glommio's warning of it would alarm
        // at each start: for once it is not heard. What goes wrong is an error all the same. (And one so small that it
        // is on no huge pages is as well not registered.)
        let made = if reserved > io_memory || reserved < slab::HUGE_PAGE_BYTES {
            with_default(&tracing::Dispatch::none(), make)
        } else {
            make()
        };
        let executor = made.map_err(|why| io::Error::other(why.to_string()))?;
        raise_workers();
        Ok(Self { executor, io_memory, reserved })
    }

    /// Runs `task` to its end, in a queue whose latency matters: what it spawns runs there too.
    pub fn run<T: 'static>(self, beat: Beat, task: impl Future<Output = T> + 'static) -> T {
        self.executor.run(async move {
            beat.begin();
            let edge = slab::prime(self.reserved, self.io_memory);
            let queue = glommio::executor().create_task_queue(Shares::default(), Latency::Matters(LATENCY), "serve");
            let done = glommio::spawn_local_into(task, queue).expect("the queue was just made").await;
            // The last thing that this executor does.
            drop((edge, beat));
            done
        })
    }
}

/// Lets the kernel use more threads for this one's rings, which share them. Any ring may say so.
fn raise_workers() {
    let raised = io_uring::IoUring::new(2).and_then(|ring| {
        // The second bound, for sockets and the like, stays.
        ring.submitter().register_iowq_max_workers(&mut [WORKERS_MAX, 0])
    });
    if let Err(why) = raised {
        tracing::warn!(%why, "a drive that hangs may slow the others: the kernel's threads cannot be raised");
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_kernels_threads_are_raised_for_all_rings_of_a_shard() {
        let now = || {
            let mut bounds = [0, 0];
            let ring = io_uring::IoUring::new(2).expect("io_uring works here");
            // Zeros change nothing; what was set comes back.
            ring.submitter().register_iowq_max_workers(&mut bounds).expect("known since 5.15");
            bounds[0]
        };
        thread::spawn(move || {
            assert!(now() < WORKERS_MAX);
            raise_workers();
            assert_eq!(now(), WORKERS_MAX);
        })
        .join()
        .expect("no panic");
    }
}
