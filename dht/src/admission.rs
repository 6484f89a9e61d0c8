//! What a node takes on, what it lets wait, and what it drops because nobody waits for it any more.
//!
//! **Promise.** Of each class of work at most so much is under way and so much waits; more is Busy at once. What has
//! waited beyond its deadline is not begun, and is said to have expired, so that the client is told. Within a class the
//! first to come is the first to begin; classes do not wait for each other.
//!
//! **Where to start.** [`Admission::offer`] a request when it comes; [`Admission::done`] when it ended, however it
//! did; [`Admission::poll`] after each `done` and at [`Admission::next_deadline`].
//!
//! **On each failure.** A client that hangs up: `done`, also for what still waits. A request that comes after its
//! deadline: Expired. Work that runs beyond its deadline is the driver's to end: it has the deadline.
//!
//! **Absent on purpose.** What nodes copy from each other, which repair bounds; priorities within a class, fairness among
//! clients, bytes.

use std::collections::{BTreeMap, BTreeSet};

/// What kind of work a request is. Each has a queue of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// A listener waits for it.
    Read,
    /// Somebody puts a track.
    Write,
}

/// How much of one class a node takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClassLimits {
    /// How many may be under way. More use the drives better up to a point, then all are slower.
    pub under_way_max: usize,
    /// How many may wait. As many as can begin before their clients' patience ends; more only grow old.
    pub queue_max: usize,
}

/// How much of each class a node takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdmissionLimits {
    /// Reads.
    pub read: ClassLimits,
    /// Writes.
    pub write: ClassLimits,
}

/// What becomes of a request that was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    /// It begins now.
    Admit,
    /// It waits: [`Admission::poll`] says when it begins, or that it does not.
    Queued,
    /// The queue is full: answer Busy.
    Busy,
    /// Its deadline has passed: tell the client.
    Expired,
}

/// What became of a request that waited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admitted {
    /// It begins now.
    Started {
        /// Which request.
        number: u64,
    },
    /// Its deadline has passed and it is forgotten: tell the client.
    Expired {
        /// Which request.
        number: u64,
    },
}

/// The queues of a node.
#[derive(Clone, Debug)]
pub struct Admission {
    classes: [Queue; 2],
    /// Every request that is known, by number.
    places: BTreeMap<u64, Place>,
    /// Those that wait, by deadline.
    deadlines: BTreeSet<(u64, u64)>,
    arrivals: u64,
}

#[derive(Clone, Debug)]
struct Queue {
    limits: ClassLimits,
    under_way: usize,
    /// Numbers by arrival.
    waiting: BTreeMap<u64, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    class: Class,
    /// None: it is under way.
    waiting: Option<Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    arrival: u64,
    deadline: u64,
}

impl Admission {
    /// A node with nothing to do.
    #[must_use]
    pub fn new(limits: &AdmissionLimits) -> Self {
        let queue = |limits: ClassLimits| Queue { limits, under_way: 0, waiting: BTreeMap::new() };
        Self {
            classes: [queue(limits.read), queue(limits.write)],
            places: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            arrivals: 0,
        }
    }

    /// A request comes, which nobody waits for from `deadline` on. O(log n).
    ///
    /// # Panics
    /// If a request of this number is known and not done: the node numbers them.
    pub fn offer(&mut self, now: u64, number: u64, class: Class, deadline: u64) -> Offer {
        assert!(!self.places.contains_key(&number), "request {number} was offered before");
        if deadline <= now {
            return Offer::Expired;
        }
        let queue = &mut self.classes[class as usize];
        // Those that wait come first, also in the moment between `done` and `poll`.
        if queue.waiting.is_empty() && queue.under_way < queue.limits.under_way_max {
            queue.under_way += 1;
            self.places.insert(number, Place { class, waiting: None });
            return Offer::Admit;
        }
        if queue.waiting.len() >= queue.limits.queue_max {
            return Offer::Busy;
        }
        let arrival = self.arrivals;
        self.arrivals += 1;
        queue.waiting.insert(arrival, number);
        self.deadlines.insert((deadline, number));
        self.places.insert(number, Place { class, waiting: Some(Waiting { arrival, deadline }) });
        Offer::Queued
    }

    /// The request ended, or its client has gone while it waited. One that is not known is ignored. O(log n).
    pub fn done(&mut self, number: u64) {
        let Some(place) = self.places.remove(&number) else { return };
        let queue = &mut self.classes[place.class as usize];
        match place.waiting {
            None => queue.under_way -= 1,
            Some(waiting) => {
                queue.waiting.remove(&waiting.arrival);
                self.deadlines.remove(&(waiting.deadline, number));
            }
        }
    }

    /// What became of requests that waited: first those that expired, by deadline, then those that begin. O(log n)
    /// each.
    pub fn poll(&mut self, now: u64) -> Vec<Admitted> {
        let mut admitted = Vec::new();
        while let Some((deadline, number)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.done(number);
            admitted.push(Admitted::Expired { number });
        }
        for queue in &mut self.classes {
            while queue.under_way < queue.limits.under_way_max
                && let Some((_, number)) = queue.waiting.pop_first()
            {
                queue.under_way += 1;
                let place = self.places.get_mut(&number).expect("what waits has a place");
                let waiting = place.waiting.take().expect("what is in a queue waits");
                self.deadlines.remove(&(waiting.deadline, number));
                admitted.push(Admitted::Started { number });
            }
        }
        admitted
    }

    /// When to poll at the latest: the first deadline of what waits. Nothing waits: never.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// How many requests of a class are under way, and how many wait.
    #[must_use]
    pub fn load(&self, class: Class) -> (usize, usize) {
        let queue = &self.classes[class as usize];
        (queue.under_way, queue.waiting.len())
    }
}
