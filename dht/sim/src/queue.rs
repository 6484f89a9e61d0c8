//! What is to happen, in order of time; what was put in first goes first at equal times.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::Micros;

/// A queue of events. Entries of the heap are small and events stay where they are: no allocation once it has grown.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    heap: BinaryHeap<Reverse<(Micros, u64, u32)>>,
    events: Vec<Option<T>>,
    free: Vec<u32>,
    next: u64,
}

impl<T> Queue<T> {
    pub(crate) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), next: 0 }
    }

    pub(crate) fn push(&mut self, at: Micros, event: T) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.events.push(None);
                u32::try_from(self.events.len() - 1).expect("fewer than 2^32 events wait")
            }
        };
        self.events[slot as usize] = Some(event);
        self.heap.push(Reverse((at, self.next, slot)));
        self.next += 1;
    }

    /// The next event, if it is due by `until`.
    pub(crate) fn pop(&mut self, until: Micros) -> Option<(Micros, T)> {
        let Reverse((at, ..)) = *self.heap.peek()?;
        if at > until {
            return None;
        }
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        Some((at, self.events[slot as usize].take().expect("an entry has its event")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_of_time_and_then_of_entry() {
        let mut queue = Queue::new();
        for (at, name) in [(5, 'a'), (3, 'b'), (5, 'c'), (3, 'd')] {
            queue.push(at, name);
        }
        let mut names = String::new();
        while let Some((_, name)) = queue.pop(4) {
            names.push(name);
        }
        queue.push(5, 'e');
        while let Some((_, name)) = queue.pop(9) {
            names.push(name);
        }
        assert_eq!((names.as_str(), queue.heap.len()), ("bdace", 0));
    }
}
