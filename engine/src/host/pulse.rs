//! Wakes every shard from outside, every few milliseconds.
//!
//! The fault it guards against: glommio 0.9 can go to sleep with tasks that are ready to run. Where the preempt timer
//! fires between its being set and the first task's turn (the thread lost its core for a millisecond),
//! `run_task_queues` answers that nothing ran, which the executor takes for "nothing to run". It then sleeps until
//! something outside happens, for ever if nothing does. A timer of the shard's own is no cure: the task that would set
//! it anew may be the one that waits. A waker that another thread holds always gets through.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

/// How long such a sleep may last while somebody waits for something. A beat costs a shard some 50 us.
const PERIOD: Duration = Duration::from_millis(5);
/// And while nobody does: a process that has nothing to do should take next to nothing for it.
const PERIOD_IDLE: Duration = Duration::from_millis(100);

/// The wakers of one process's shards, and the thread that uses them. Dropping it stops the thread.
pub struct Pulse {
    wakers: Arc<Wakers>,
    /// The thread ends when this is dropped.
    _stop: flume::Sender<()>,
}

type Wakers = Mutex<Vec<Option<Waker>>>;

/// A shard's place among them; it leaves when this is dropped, on its own executor.
pub struct Beat {
    wakers: Arc<Wakers>,
    index: usize,
}

impl Pulse {
    /// Starts the thread, for `shards` shards. `under_way`: how many things there are that somebody waits for, if that
    /// is known; what begins is noticed with the next beat.
    pub fn start(shards: usize, under_way: Option<Arc<AtomicUsize>>) -> io::Result<Self> {
        let wakers = Arc::new(Mutex::new(vec![None; shards]));
        let (stop, stopped) = flume::bounded::<()>(0);
        let beating = Arc::clone(&wakers);
        thread::Builder::new().name("pulse".into()).spawn(move || {
            let idle = || under_way.as_ref().is_some_and(|count| count.load(Ordering::Relaxed) == 0);
            let period = || if idle() { PERIOD_IDLE } else { PERIOD };
            while stopped.recv_timeout(period()) == Err(flume::RecvTimeoutError::Timeout) {
                lock(&beating).iter().flatten().for_each(Waker::wake_by_ref);
            }
        })?;
        Ok(Self { wakers, _stop: stop })
    }

    /// The place of shard `index`.
    #[must_use]
    pub fn beat(&self, index: usize) -> Beat {
        Beat { wakers: Arc::clone(&self.wakers), index }
    }
}

impl Beat {
    /// From here on the executor that runs the caller is woken.
    pub(super) fn begin(&self) {
        let (wakers, index) = (Arc::clone(&self.wakers), self.index);
        glommio::spawn_local(poll_fn(move |context| {
            lock(&wakers)[index].get_or_insert_with(|| context.waker().clone());
            Poll::<()>::Pending
        }))
        .detach();
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        // Wakers must not outlive their executor.
        lock(&self.wakers)[self.index] = None;
    }
}

/// Nothing that could panic is done under the lock.
fn lock(wakers: &Wakers) -> std::sync::MutexGuard<'_, Vec<Option<Waker>>> {
    wakers.lock().unwrap_or_else(PoisonError::into_inner)
}
