//! Waiting within one executor: no locks, no atomics.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Wakes all who wait. A waiter checks its condition, calls [`wait`](Self::wait), and checks again when woken; nothing
/// is lost in between because no other task runs between the check and the call.
#[derive(Default)]
pub(crate) struct Signal {
    rounds: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Signal {
    pub(crate) fn notify(&self) {
        self.rounds.set(self.rounds.get() + 1);
        for waker in self.wakers.take() {
            waker.wake();
        }
    }

    /// Ready at the first [`notify`](Self::notify) after this call.
    pub(crate) fn wait(&self) -> Wait<'_> {
        Wait { signal: self, round: self.rounds.get() }
    }
}

pub(crate) struct Wait<'a> {
    signal: &'a Signal,
    round: u64,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.signal.rounds.get() != self.round {
            return Poll::Ready(());
        }
        let mut wakers = self.signal.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

/// A value that a spawned task leaves for the one who waits for it.
pub(crate) struct Slot<T> {
    value: RefCell<Option<T>>,
    filled: Signal,
}

impl<T> Slot<T> {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self { value: RefCell::new(None), filled: Signal::default() })
    }

    pub(crate) fn fill(&self, value: T) {
        *self.value.borrow_mut() = Some(value);
        self.filled.notify();
    }

    /// The value, once it is there. At most one may wait.
    pub(crate) async fn take(&self) -> T {
        loop {
            if let Some(value) = self.value.take() {
                return value;
            }
            self.filled.wait().await;
        }
    }
}

/// A bounded number of permits.
pub(crate) struct Permits {
    free: Cell<usize>,
    max: usize,
    freed: Signal,
}

impl Permits {
    pub(crate) fn new(max: usize) -> Rc<Self> {
        Rc::new(Self { free: Cell::new(max), max, freed: Signal::default() })
    }

    pub(crate) fn try_acquire(self: &Rc<Self>) -> Option<Permit> {
        let free = self.free.get().checked_sub(1)?;
        self.free.set(free);
        Some(Permit(self.clone()))
    }

    pub(crate) async fn acquire(self: &Rc<Self>) -> Permit {
        loop {
            if let Some(permit) = self.try_acquire() {
                return permit;
            }
            self.freed.wait().await;
        }
    }

    /// Waits until every permit is back.
    pub(crate) async fn all_back(&self) {
        while self.free.get() < self.max {
            self.freed.wait().await;
        }
    }
}

/// Gives its place back when dropped.
pub(crate) struct Permit(Rc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        self.0.freed.notify();
    }
}
