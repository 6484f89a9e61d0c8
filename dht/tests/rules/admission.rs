//! A node's queues against a model that is a list.

use crate::random::Random;
use deadwax_dht::{Admission, AdmissionLimits, Admitted, Class, ClassLimits, Offer};

const CLASSES: [Class; 2] = [Class::Read, Class::Write];
const LIMITS: AdmissionLimits = AdmissionLimits {
    read: ClassLimits { under_way_max: 3, queue_max: 4 },
    write: ClassLimits { under_way_max: 1, queue_max: 2 },
};

fn limits(class: Class) -> ClassLimits {
    match class {
        Class::Read => LIMITS.read,
        Class::Write => LIMITS.write,
    }
}

/// Requests in the order in which they came: number, class, deadline.
#[derive(Default)]
struct Model {
    under_way: Vec<(u64, Class)>,
    waiting: Vec<(u64, Class, u64)>,
}

impl Model {
    fn count(&self, class: Class) -> (usize, usize) {
        let under_way = self.under_way.iter().filter(|each| each.1 == class).count();
        (under_way, self.waiting.iter().filter(|each| each.1 == class).count())
    }

    fn poll(&mut self, now: u64) -> Vec<Admitted> {
        let mut expired: Vec<_> = self.waiting.iter().filter(|each| each.2 <= now).copied().collect();
        expired.sort_by_key(|each| (each.2, each.0));
        self.waiting.retain(|each| each.2 > now);
        let mut all: Vec<_> = expired.iter().map(|each| Admitted::Expired { number: each.0 }).collect();
        for class in CLASSES {
            while self.count(class).0 < limits(class).under_way_max
                && let Some(at) = self.waiting.iter().position(|each| each.1 == class)
            {
                let (number, class, _) = self.waiting.remove(at);
                self.under_way.push((number, class));
                all.push(Admitted::Started { number });
            }
        }
        all
    }
}

#[test]
fn queues_are_bounded_in_order_and_drop_what_is_too_late() {
    let mut seen = [0_u64; 6];
    for seed in 0..300 {
        let (mut random, mut admission, mut model) = (Random(seed), Admission::new(&LIMITS), Model::default());
        let mut now = 0;
        for number in 0..400 {
            let class = random.pick(&CLASSES);
            let deadline = (now + random.below(60)).saturating_sub(2);
            let (under_way, waiting) = model.count(class);
            let expected = if deadline <= now {
                Offer::Expired
            } else if under_way < limits(class).under_way_max && waiting == 0 {
                model.under_way.push((number, class));
                Offer::Admit
            } else if waiting < limits(class).queue_max {
                model.waiting.push((number, class, deadline));
                Offer::Queued
            } else {
                Offer::Busy
            };
            assert_eq!(admission.offer(now, number, class, deadline), expected, "seed {seed}, request {number}");
            seen[expected as usize] += 1;
            now += random.below(12);
            if random.percent(60) && !model.under_way.is_empty() {
                let at = random.index(model.under_way.len());
                admission.done(model.under_way.remove(at).0);
            }
            if random.percent(5) && !model.waiting.is_empty() {
                let at = random.index(model.waiting.len());
                admission.done(model.waiting.remove(at).0);
            }
            admission.done(u64::MAX);
            let first = model.waiting.iter().map(|each| each.2).min();
            assert_eq!(admission.next_deadline(), first, "seed {seed}, request {number}");
            if random.percent(80) {
                let admitted = model.poll(now);
                assert_eq!(admission.poll(now), admitted, "seed {seed}, request {number}");
                for each in admitted {
                    seen[if matches!(each, Admitted::Started { .. }) { 4 } else { 5 }] += 1;
                }
                assert_eq!(admission.poll(now), [], "seed {seed}: nothing is said twice");
                assert!(admission.next_deadline().is_none_or(|at| at > now), "seed {seed}");
            }
            for class in CLASSES {
                assert_eq!(admission.load(class), model.count(class), "seed {seed}, request {number}");
                let (under_way, waiting) = admission.load(class);
                assert!(under_way <= limits(class).under_way_max && waiting <= limits(class).queue_max);
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 1_000), "each happens often: {seen:?}");
}

#[test]
fn what_waits_is_told_at_its_deadline_without_anything_else_happening() {
    let mut admission = Admission::new(&LIMITS);
    assert_eq!(admission.offer(0, 1, Class::Write, 1_000), Offer::Admit);
    assert_eq!(admission.offer(0, 2, Class::Write, 500), Offer::Queued);
    assert_eq!(admission.offer(0, 3, Class::Write, 300), Offer::Queued);
    assert_eq!(admission.offer(0, 4, Class::Write, 900), Offer::Busy);
    assert_eq!(admission.offer(0, 5, Class::Read, 900), Offer::Admit, "classes do not wait for each other");
    assert_eq!(admission.next_deadline(), Some(300));
    assert_eq!(admission.poll(299), []);
    assert_eq!(admission.poll(300), [Admitted::Expired { number: 3 }]);
    admission.done(1);
    assert_eq!(admission.offer(400, 6, Class::Write, 900), Offer::Queued, "the one that waits is first");
    assert_eq!(admission.poll(400), [Admitted::Started { number: 2 }]);
    assert_eq!(admission.next_deadline(), Some(900));
}
