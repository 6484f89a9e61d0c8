//! Reads that go on where nobody waits for them any more: their memory is the drive's until it is done, and is counted so long.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::host::{Host, Priority};
use crate::signal::Signal;
use crate::volume::Inner;

type Task<T> = Pin<Box<dyn Future<Output = T>>>;

/// Reads whose callers went away in the middle. Made once a volume.
#[derive(Default)]
pub(crate) struct Unclaimed(Rc<Queue>);

#[derive(Default)]
struct Queue {
    reads: RefCell<Vec<Task<()>>>,
    /// Nobody brings more.
    ended: Cell<bool>,
    changed: Signal,
}

impl Unclaimed {
    /// Brings them to their ends, for as long as the volume is there.
    pub(crate) fn finish_on<H: Host>(&self, host: &H) {
        let (queue, there) = (self.0.clone(), host.clone());
        host.spawn(Priority::Read, async move {
            loop {
                let next = queue.changed.wait();
                for read in queue.reads.take() {
                    there.spawn(Priority::Read, read);
                }
                if queue.ended.get() {
                    break;
                }
                next.await;
            }
        });
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        self.0.ended.set(true);
        self.0.changed.notify();
    }
}

/// A read, which its caller may drop at any time.
pub(crate) struct Unhurried<H: Host, T: 'static> {
    volume: Rc<Inner<H>>,
    read: Option<Task<T>>,
}

impl<H: Host, T> Unhurried<H, T> {
    pub(crate) fn new(volume: &Rc<Inner<H>>, read: impl Future<Output = T> + 'static) -> Self {
        Self { volume: volume.clone(), read: Some(Box::pin(read)) }
    }
}

impl<H: Host, T> Future for Unhurried<H, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let polled = self.read.as_mut().expect("not polled after its end").as_mut().poll(context);
        if polled.is_ready() {
            self.read = None;
        }
        polled
    }
}

impl<H: Host, T> Drop for Unhurried<H, T> {
    /// May be outside the executor.
    fn drop(&mut self) {
        if let Some(read) = self.read.take() {
            let queue = &self.volume.unclaimed.0;
            queue.reads.borrow_mut().push(Box::pin(async move { drop(read.await) }));
            queue.changed.notify();
        }
    }
}
