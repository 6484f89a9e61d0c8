//! Bytes of memory that may be in use at once. With these a volume's memory is bounded, whatever is asked of it:
//! [`VolumeConfig::memory_bytes_max`](crate::VolumeConfig::memory_bytes_max) is their sum.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::signal::Signal;

/// A number of bytes to be shared. Who waits is served in the order of coming: large wishes do not starve.
pub(crate) struct Budget {
    max: Cell<u64>,
    /// What of a larger budget it is, given back with the last that is held of this one.
    part: RefCell<Option<Held>>,
    used: Cell<u64>,
    /// Numbers of those who wait.
    waiting: RefCell<BTreeSet<u64>>,
    next: Cell<u64>,
    changed: Signal,
}

impl Budget {
    pub(crate) fn new(max: u64) -> Rc<Self> {
        Rc::new(Self {
            max: Cell::new(max),
            part: RefCell::default(),
            used: Cell::new(0),
            waiting: RefCell::default(),
            next: Cell::new(0),
            changed: Signal::default(),
        })
    }

    /// A budget of what is held of another.
    pub(crate) fn part(held: Held) -> Rc<Self> {
        let budget = Self::new(held.bytes);
        *budget.part.borrow_mut() = Some(held);
        budget
    }

    /// Gives back all of this part but `bytes` and what is in use.
    pub(crate) fn narrow(&self, bytes: u64) {
        let max = bytes.max(self.used.get()).min(self.max.get());
        self.max.set(max);
        if let Some(held) = &mut *self.part.borrow_mut() {
            held.shrink(max);
        }
    }

    pub(crate) fn max(&self) -> u64 {
        self.max.get()
    }

    /// Takes the bytes if they are free and nobody waits.
    pub(crate) fn try_acquire(self: &Rc<Self>, bytes: u64) -> Option<Held> {
        if self.waiting.borrow().is_empty() { self.take(bytes) } else { None }
    }

    /// The same where half of the budget stays free, for what matters more.
    pub(crate) fn try_acquire_spare(self: &Rc<Self>, bytes: u64) -> Option<Held> {
        if self.used.get() + bytes <= self.max() / 2 { self.try_acquire(bytes) } else { None }
    }

    /// Takes the bytes once they are free.
    pub(crate) async fn acquire(self: &Rc<Self>, bytes: u64) -> Held {
        assert!(bytes <= self.max(), "{bytes} bytes wanted of a budget of {}", self.max());
        if let Some(held) = self.try_acquire(bytes) {
            return held;
        }
        let turn = Turn::begin(self);
        loop {
            if turn.has_come()
                && let Some(held) = self.take(bytes)
            {
                return held;
            }
            self.changed.wait().await;
        }
    }

    /// Waits until all of it is free.
    pub(crate) async fn all_back(&self) {
        while self.used.get() > 0 {
            self.changed.wait().await;
        }
    }

    fn take(self: &Rc<Self>, bytes: u64) -> Option<Held> {
        let used = self.used.get() + bytes;
        (used <= self.max()).then(|| {
            self.used.set(used);
            Held { budget: self.clone(), bytes }
        })
    }
}

/// A place among those who wait, until it is dropped.
struct Turn<'a> {
    budget: &'a Budget,
    number: u64,
}

impl<'a> Turn<'a> {
    fn begin(budget: &'a Budget) -> Self {
        let number = budget.next.get();
        budget.next.set(number + 1);
        budget.waiting.borrow_mut().insert(number);
        Self { budget, number }
    }

    fn has_come(&self) -> bool {
        self.budget.waiting.borrow().first() == Some(&self.number)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.budget.waiting.borrow_mut().remove(&self.number);
        // There may be room for the next one.
        self.budget.changed.notify();
    }
}

/// Bytes of a budget, given back when dropped.
pub(crate) struct Held {
    budget: Rc<Budget>,
    bytes: u64,
}

impl Held {
    /// Gives back all but `bytes`.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let back = self.bytes.saturating_sub(bytes);
        self.bytes -= back;
        self.give_back(back);
    }

    fn give_back(&self, bytes: u64) {
        let used = self.budget.used.get();
        assert!(bytes <= used, "{bytes} bytes given back of {used}");
        self.budget.used.set(used - bytes);
        self.budget.changed.notify();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
        futures_lite::future::block_on(futures_lite::future::poll_once(future))
    }

    #[test]
    fn bytes_come_back_and_go_to_who_came_first() {
        let budget = Budget::new(10);
        let mut held = budget.try_acquire(8).expect("free");
        assert!(budget.try_acquire(3).is_none());
        let (mut large, mut small) = (Box::pin(budget.acquire(10)), Box::pin(budget.acquire(1)));
        assert!(ready(&mut large).is_none() && ready(&mut small).is_none(), "the small one waits for its turn");
        assert!(budget.try_acquire(1).is_none(), "and so does whoever comes later");
        held.shrink(2);
        assert!(ready(&mut large).is_none());
        drop(held);
        assert!(ready(&mut small).is_none());
        let all = ready(&mut large).expect("it is its turn");
        assert!(ready(&mut small).is_none());
        drop(all);
        drop(ready(&mut small).expect("free"));
        assert!(ready(budget.all_back()).is_some());
    }

    #[test]
    fn a_part_comes_back_with_the_last_that_is_held_of_it() {
        let budget = Budget::new(10);
        let part = Budget::part(budget.try_acquire(8).expect("free"));
        let held = part.try_acquire(3).expect("free");
        part.narrow(2);
        assert_eq!((part.max(), budget.used.get()), (3, 3), "what is in use stays");
        drop(part);
        assert!(budget.try_acquire(8).is_none());
        drop(held);
        assert!(budget.try_acquire(10).is_some());
    }

    #[test]
    fn who_goes_away_holds_up_nobody() {
        let budget = Budget::new(4);
        let held = budget.try_acquire(3).expect("free");
        let (mut large, mut small) = (Box::pin(budget.acquire(4)), Box::pin(budget.acquire(1)));
        assert!(ready(&mut large).is_none() && ready(&mut small).is_none());
        drop(large);
        assert!(ready(&mut small).is_some());
        drop(held);
    }
}
