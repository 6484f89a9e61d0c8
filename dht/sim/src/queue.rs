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

    /// When the next event is due.
    pub(crate) fn first(&self) -> Option<Micros> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
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
        self.first().filter(|at| *at <= until)?;
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        Some((at, self.events[slot as usize].take().expect("an entry has its event")))
    }
}

/// When each of some numbers is to be woken: one time for each, which may be moved. Ties go by number.
#[derive(Debug)]
pub(crate) struct Alarms {
    heap: Vec<(Micros, u32)>,
    /// Where in the heap each number is.
    places: Vec<u32>,
}

const NOWHERE: u32 = u32::MAX;

impl Alarms {
    pub(crate) const fn new() -> Self {
        Self { heap: Vec::new(), places: Vec::new() }
    }

    pub(crate) fn first(&self) -> Option<(Micros, u32)> {
        self.heap.first().copied()
    }

    pub(crate) fn set(&mut self, who: u32, at: Micros) {
        if self.places.len() <= who as usize {
            self.places.resize(who as usize + 1, NOWHERE);
        }
        let place = match self.places[who as usize] {
            NOWHERE => {
                self.heap.push((at, who));
                self.heap.len() - 1
            }
            place => {
                self.heap[place as usize].0 = at;
                place as usize
            }
        };
        self.settle(place);
    }

    pub(crate) fn clear(&mut self, who: u32) {
        let Some(place) = self.places.get_mut(who as usize) else { return };
        let place = std::mem::replace(place, NOWHERE);
        if place != NOWHERE {
            self.heap.swap_remove(place as usize);
            if (place as usize) < self.heap.len() {
                self.settle(place as usize);
            }
        }
    }

    /// Moves what is at `at` to where it belongs, up or down.
    fn settle(&mut self, mut at: usize) {
        let entry = self.heap[at];
        while let Some(parent) = at.checked_sub(1).map(|below| below / 2).filter(|parent| self.heap[*parent] > entry) {
            self.put(at, self.heap[parent]);
            at = parent;
        }
        loop {
            let children = 2 * at + 1..self.heap.len().min(2 * at + 3);
            let Some(least) = children.min_by_key(|child| self.heap[*child]) else { break };
            if self.heap[least] >= entry {
                break;
            }
            self.put(at, self.heap[least]);
            at = least;
        }
        self.put(at, entry);
    }

    fn put(&mut self, at: usize, entry: (Micros, u32)) {
        self.heap[at] = entry;
        self.places[entry.1 as usize] = u32::try_from(at).expect("fewer than 2^32 alarms");
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

    #[test]
    fn the_first_alarm_is_the_earliest_wherever_alarms_were_moved() {
        let (mut alarms, mut model) = (Alarms::new(), std::collections::BTreeMap::new());
        let mut random = crate::random::Random::stream(7, 7);
        for _ in 0..20_000 {
            let who = u32::try_from(random.below(50)).expect("small");
            if random.percent(70) {
                let at = random.below(1_000);
                alarms.set(who, at);
                model.insert(who, at);
            } else {
                alarms.clear(who);
                model.remove(&who);
            }
            assert_eq!(alarms.first(), model.iter().map(|(who, at)| (*at, *who)).min());
        }
    }
}
