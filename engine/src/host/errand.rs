//! Calls that block, each on a thread that does nothing else meanwhile: one to a drive that hangs holds up no other.

use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// How many such threads may there be? Each call that hangs has one; a volume handle has a few calls under way at most.
const THREADS_MAX: usize = 1024;
/// How long does a thread wait for another call before it ends?
const IDLE_MAX: Duration = Duration::from_secs(10);

type Call = Box<dyn FnOnce() + Send>;

static CALLS: LazyLock<(flume::Sender<Call>, flume::Receiver<Call>)> = LazyLock::new(flume::unbounded);
/// Threads that nobody counts on yet.
static IDLE: AtomicUsize = AtomicUsize::new(0);
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Runs `call` on another thread. It goes on though the future is dropped.
pub(super) async fn run<T: Send + 'static>(call: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    if !claim() {
        hire()?;
    }
    let (answer, answered) = flume::bounded(1);
    // Nobody waits any more where the future was dropped.
    let call: Call = Box::new(move || drop(answer.send(call())));
    CALLS.0.send(call).expect("the queue lives as long as the process");
    answered.recv_async().await.unwrap_or_else(|_| Err(io::Error::other("a thread for a blocking call panicked")))
}

/// Counts on one idle thread to take the call that is about to be sent.
fn claim() -> bool {
    IDLE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |idle| idle.checked_sub(1)).is_ok()
}

/// Starts a thread for the call that is about to be sent.
fn hire() -> io::Result<()> {
    if THREADS.fetch_add(1, Ordering::Relaxed) >= THREADS_MAX {
        THREADS.fetch_sub(1, Ordering::Relaxed);
        tracing::error!("{THREADS_MAX} blocking calls are under way: drives hang");
        // The machine's fault, not that of the drive that is asked.
        return Err(rustix::io::Errno::AGAIN.into());
    }
    let thread = thread::Builder::new().name("errand".into());
    let hired = thread.spawn(work);
    hired.map(drop).inspect_err(|_| {
        THREADS.fetch_sub(1, Ordering::Relaxed);
    })
}

fn work() {
    loop {
        let call = CALLS.1.recv_timeout(IDLE_MAX).or_else(|_| {
            // Where somebody counted on this thread just now, a call is on its way.
            if claim() { Err(flume::RecvError::Disconnected) } else { CALLS.1.recv() }
        });
        let Ok(call) = call else { break };
        call();
        IDLE.fetch_add(1, Ordering::Relaxed);
    }
    THREADS.fetch_sub(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_hangs_holds_up_no_other() {
        let (release, released) = flume::bounded::<()>(1);
        let (began, beginning) = flume::bounded(1);
        let hangs = thread::spawn(move || {
            futures_lite::future::block_on(run(move || {
                began.send(()).expect("someone waits");
                released.recv().map_err(io::Error::other)
            }))
        });
        beginning.recv().expect("begins");
        for number in 0..100 {
            assert_eq!(futures_lite::future::block_on(run(move || Ok(number))).expect("runs"), number);
        }
        release.send(()).expect("someone waits");
        hangs.join().expect("no panic").expect("runs");
        let failed = futures_lite::future::block_on(run(|| io::Result::<()>::Err(io::ErrorKind::NotFound.into())));
        assert_eq!(failed.expect_err("fails").kind(), io::ErrorKind::NotFound);
    }
}
