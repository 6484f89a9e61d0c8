//! One executor, set up as a node sets its shards up.

use std::future::Future;
use std::thread;

use anyhow::{Context, anyhow};
use deadwax_engine::{Executor, Pulse};

/// Of an executor's memory for what is at the drive: twice what the engine's default budgets let fly.
const IO_MEMORY_BYTES: usize = 192 << 20;

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
    let name = format!("shard-{core}");
    let body = move || {
        let executor = Executor::new(&format!("shard-{core}"), Some(core), IO_MEMORY_BYTES)
            .with_context(|| format!("make an executor on core {core}"))?;
        let pulse = Pulse::start(1, None).context("start a thread")?;
        executor.run(pulse.beat(0), async move { task().await })
    };
    thread::Builder::new().name(name).spawn(body).context("start a thread")
}
