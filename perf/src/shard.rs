//! One executor, set up as a node sets its shards up. This file has unsafe code.
//!
//! What `dht/node` argues at length, in short: the drive's buffers lie on huge pages and are touched before use; the
//! slab is reserved larger than the kernel registers, so that registration, which would pin small pages first, is
//! declined; and a thread outside wakes the executor now and then, because glommio 0.9 can go to sleep with tasks that
//! are ready to run.

use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use glommio::io::DmaBuffer;
use glommio::{Latency, LocalExecutorBuilder, Placement, PoolPlacement, Shares};
use rustix::mm::{Advice, madvise};

/// How long a task may wait for its turn while others run.
pub(crate) const LATENCY: Duration = Duration::from_millis(1);
/// Of the default queue, where only the start runs.
const START_LATENCY: Duration = Duration::from_secs(1);
/// How long a sleep that should not be may last.
const PULSE: Duration = Duration::from_millis(5);
/// One page above what the kernel registers as one buffer.
const RESERVED_BYTES: usize = (1 << 30) + 4096;
/// Touched at the start: twice what the engine's default budgets let fly.
const TOUCHED_PIECES: usize = 192;
const PIECE_BYTES: usize = 1 << 20;
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Runs `task` to its end on a new executor on core `core`, in a queue whose latency matters.
pub(crate) fn run<T, F>(core: usize, task: impl FnOnce() -> F + Send + 'static) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + 'static,
{
    spawn(core, task)?.join().map_err(|_| anyhow!("the executor on core {core} panicked"))?
}

/// The same, in the background.
pub(crate) fn spawn<T, F>(
    core: usize,
    task: impl FnOnce() -> F + Send + 'static,
) -> anyhow::Result<thread::JoinHandle<anyhow::Result<T>>>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + 'static,
{
    let body = move || {
        let executor = LocalExecutorBuilder::new(Placement::Fixed(core))
            .io_memory(RESERVED_BYTES)
            .preempt_timer(START_LATENCY)
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
            .make()
            .map_err(|why| anyhow!("make an executor on core {core}: {why}"))?;
        executor.run(async move {
            let pulse = Pulse::begin();
            prime();
            let queue = glommio::executor().create_task_queue(Shares::Static(1000), Latency::Matters(LATENCY), "load");
            let done = glommio::spawn_local_into(async move { task().await }, queue).expect("the queue was just made");
            let outcome = done.await;
            // Wakers must not outlive their executor.
            drop(pulse);
            outcome
        })
    };
    thread::Builder::new().name(format!("shard-{core}")).spawn(body).context("start a thread")
}

/// Wakes the executor that it began on from another thread, until it is dropped.
struct Pulse {
    waker: Arc<Mutex<Option<Waker>>>,
    thread: Option<thread::JoinHandle<()>>,
    stop: Option<flume::Sender<()>>,
}

impl Pulse {
    fn begin() -> Self {
        let waker = Arc::new(Mutex::new(None));
        let (stop, stopped) = flume::bounded::<()>(0);
        let beating = Arc::clone(&waker);
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(PULSE) == Err(flume::RecvTimeoutError::Timeout) {
                lock(&beating).iter().for_each(Waker::wake_by_ref);
            }
        });
        let given = Arc::clone(&waker);
        glommio::spawn_local(poll_fn(move |context| {
            lock(&given).get_or_insert_with(|| context.waker().clone());
            Poll::<()>::Pending
        }))
        .detach();
        Self { waker, thread: Some(thread), stop: Some(stop) }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        lock(&self.waker).take();
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn lock(waker: &Mutex<Option<Waker>>) -> std::sync::MutexGuard<'_, Option<Waker>> {
    waker.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks for huge pages under the slab and touches what will be used.
fn prime() {
    let mut blocks = Vec::new();
    let mut bytes = 1 << 29;
    while bytes >= HUGE_PAGE_BYTES {
        blocks.push(glommio::allocate_dma_buffer(bytes));
        bytes /= 2;
    }
    let first = blocks[0].as_ptr() as usize;
    let slab = first.saturating_sub(RESERVED_BYTES)..first + RESERVED_BYTES;
    for block in &mut blocks {
        let (start, len) = (block.as_mut_ptr(), block.len());
        if slab.contains(&(start as usize)) {
            // SAFETY: the range is exactly one live allocation of ours, page-aligned because glommio's are; the advice
            // changes how it is backed, never its bytes. Refused advice costs speed only.
            let _ = unsafe { madvise(start.cast(), len, Advice::LinuxHugepage) };
        }
    }
    drop(blocks);
    let touched: Vec<DmaBuffer> = (0..TOUCHED_PIECES)
        .map(|_| {
            let mut piece = glommio::allocate_dma_buffer(PIECE_BYTES);
            piece.as_bytes_mut().fill(0);
            piece
        })
        .collect();
    drop(touched);
}
