//! The table against a plain list, and the store of records against its bounds.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_dht::NodeId;
use deadwax_dht::routing::{Contact, Key, Records, Table, TableRules};
use deadwax_track::Partition;
use proptest::prelude::*;

use super::net::record;

const RULES: TableRules = TableRules { k: 3, failures_max: 2, quiet_ms: 10, refresh_ms: 1_000 };
const OWN: NodeId = NodeId::from_bytes([0; 32]);

/// Few enough ids that they meet often: the top bits choose the bucket.
fn contact(number: u8) -> Contact {
    let mut bytes = [0; 32];
    bytes[0] = number;
    Contact::new(NodeId::from_bytes(bytes), format!("10.0.0.1:{number}"))
}

/// What a table is, said as simply as can be: a list of (contact, failures) a bucket, oldest first.
#[derive(Default)]
struct Model {
    entries: BTreeMap<u8, Vec<(Contact, u8)>>,
    waiting: BTreeMap<u8, Vec<Contact>>,
}

impl Model {
    /// With k = 3 a bucket has two parts, which the first bit after the one that makes the bucket tells apart.
    fn part(contact: &Contact) -> bool {
        let at = contact.key().distance(&OWN.into()).bucket().expect("not the own id");
        let bytes = contact.id.as_bytes();
        bytes[usize::from(at + 1) / 8] >> (7 - (at + 1) % 8) & 1 == 1
    }

    fn seen(&mut self, contact: &Contact) {
        let Some(at) = contact.key().distance(&OWN.into()).bucket() else { return };
        let (entries, waiting) = (self.entries.entry(at).or_default(), self.waiting.entry(at).or_default());
        waiting.retain(|other| other.id != contact.id);
        let known = entries.iter().position(|(other, _)| other.id == contact.id);
        let doubtful = entries.iter().position(|(_, failures)| *failures >= RULES.failures_max);
        if let Some(at) = known.or(if entries.len() == RULES.k { doubtful } else { None }) {
            entries.remove(at);
        }
        let count = |part: bool| entries.iter().filter(|(other, _)| Self::part(other) == part).count();
        let mut waits = None;
        if entries.len() == RULES.k {
            let part = Self::part(contact);
            waits = Some(contact.clone());
            if count(!part) >= count(part) + 2 {
                let at = entries.iter().position(|(other, _)| Self::part(other) != part).expect("two at least");
                waits = Some(entries.remove(at).0);
            }
        }
        if entries.len() < RULES.k {
            entries.push((contact.clone(), 0));
        }
        waiting.extend(waits);
        if waiting.len() > RULES.k {
            waiting.remove(0);
        }
    }

    fn failed(&mut self, contact: &Contact) {
        let Some(at) = contact.key().distance(&OWN.into()).bucket() else { return };
        let (entries, waiting) = (self.entries.entry(at).or_default(), self.waiting.entry(at).or_default());
        waiting.retain(|other| other.id != contact.id);
        let Some(at) = entries.iter().position(|(other, _)| other.id == contact.id) else { return };
        entries[at].1 += 1;
        if entries[at].1 >= RULES.failures_max && !waiting.is_empty() {
            entries.remove(at);
            entries.push((waiting.pop().expect("not empty"), 0));
        }
    }

    fn contacts(&self) -> Vec<(Contact, bool)> {
        let entries = self.entries.values().flatten();
        entries.map(|(contact, failures)| (contact.clone(), *failures >= RULES.failures_max)).collect()
    }
}

proptest! {
    #[test]
    fn a_table_is_what_a_plain_list_is(steps in prop::collection::vec((any::<u8>(), any::<bool>()), 0..200), target: u8) {
        let (mut table, mut model) = (Table::new(OWN, RULES), Model::default());
        for (now, (number, fails)) in (0..).zip(steps) {
            let contact = contact(number);
            if fails {
                table.handle_failed(now, &contact.id);
                model.failed(&contact);
            } else {
                let _ = table.handle_seen(now, contact.clone());
                model.seen(&contact);
            }
            let contacts: Vec<_> = table.contacts().map(|(contact, doubtful)| (contact.clone(), doubtful)).collect();
            prop_assert_eq!(&contacts, &model.contacts());
            prop_assert!(table.sizes().all(|(entries, waiting)| entries <= RULES.k && waiting <= RULES.k));
        }
        let key: Key = contact(target).key();
        for count in [0, 1, 5, 100] {
            for wanted in [false, true] {
                let mut all = model.contacts();
                all.retain(|(_, doubtful)| *doubtful == wanted);
                all.sort_by_key(|(contact, _)| contact.key().distance(&key));
                let expected: Vec<Contact> = all.into_iter().map(|(contact, _)| contact).take(count).collect();
                let got = if wanted { table.nearest_doubtful(&key, count) } else { table.nearest(&key, count) };
                prop_assert_eq!(got, expected);
            }
        }
    }

    #[test]
    fn records_are_the_newest_and_the_nearest(steps in prop::collection::vec((0_u16..40, 1_u64..4), 0..200)) {
        let mut records = Records::new(OWN, 8, 50);
        let mut model: BTreeMap<u16, (u64, u64)> = BTreeMap::new();
        let mut crowded_from = u16::MAX;
        for (now, (number, epoch)) in (0..).zip(steps) {
            let got = records.keep(now, record(1, Partition(number), epoch));
            let until = now + 50;
            match model.get_mut(&number).filter(|kept| now < kept.1) {
                Some(kept) if kept.0 > epoch => {}
                Some(kept) => *kept = (epoch, until),
                None => { model.insert(number, (epoch, until)); }
            }
            if model.len() > 8 {
                model.retain(|_, kept| now < kept.1);
            }
            if model.len() > 8 {
                let (farthest, _) = model.pop_last().expect("nine");
                crowded_from = crowded_from.min(farthest);
            }
            prop_assert_eq!(got, model.get(&number).map(|kept| kept.0));
            prop_assert!(records.len() <= 8);
            for number in 0..40 {
                let expected = model.get(&number).filter(|kept| now < kept.1).map(|kept| kept.0);
                prop_assert_eq!(records.get(now, Partition(number)).map(|record| record.epoch), expected);
                prop_assert_eq!(records.has_room_for(Partition(number)), number < crowded_from);
            }
        }
    }
}

#[test]
fn the_oldest_of_a_full_bucket_is_pinged_once_before_it_goes() {
    let mut table = Table::new(OWN, RULES);
    for number in 128..131 {
        assert_eq!(table.handle_seen(0, contact(number)), None);
    }
    assert_eq!(table.handle_seen(9, contact(131)), None, "128 was heard of a moment ago");
    assert_eq!(table.handle_seen(10, contact(131)), Some(contact(128)));
    assert_eq!(table.handle_seen(10, contact(132)), None, "it is being pinged");
    let ids = |table: &Table| table.contacts().map(|(contact, _)| contact.id.as_bytes()[0]).collect::<Vec<_>>();
    assert_eq!(table.handle_seen(11, contact(128)), None);
    assert_eq!(ids(&table), [129, 130, 128], "it lives, so it stays");
    assert_eq!(table.handle_seen(20, contact(133)), Some(contact(129)));
    table.handle_failed(21, &contact(129).id);
    assert_eq!(ids(&table), [129, 130, 128], "a message may be lost");
    assert_eq!(table.handle_seen(21, contact(133)), Some(contact(129)));
    table.handle_failed(22, &contact(129).id);
    assert_eq!(ids(&table), [130, 128, 133], "the last seen of those that wait has its place");
}

#[test]
fn a_bucket_that_is_a_clump_spreads_but_an_even_one_keeps_whom_it_has() {
    let rules = TableRules { k: 20, ..RULES };
    let mut table = Table::new(OWN, rules);
    let ids = |table: &Table| table.contacts().map(|(contact, _)| contact.id.as_bytes()[0]).collect::<Vec<_>>();
    // 16 parts of 8 ids each: 20 contacts of the first three, then one of each.
    for number in (128..148).chain((128..=255).step_by(8)) {
        let _ = table.handle_seen(0, contact(number));
    }
    let parts: BTreeSet<u8> = ids(&table).into_iter().map(|id| id >> 3).collect();
    assert_eq!(parts.len(), 16, "each part has somebody");
    let before: BTreeSet<u8> = ids(&table).into_iter().collect();
    for number in 128..=255 {
        let _ = table.handle_seen(1, contact(number));
        let part = |number: u8| ids(&table).into_iter().filter(|id| id >> 3 == number >> 3).count();
        assert!((1..=3).contains(&part(number)), "part of {number}");
    }
    let kept = ids(&table).into_iter().filter(|id| before.contains(id)).count();
    assert!(kept >= 14, "{kept} of 20 are those that were there");
    let mut asked = BTreeSet::new();
    let mut clump = Table::new(OWN, rules);
    for number in 128..136 {
        let _ = clump.handle_seen(0, contact(number));
    }
    for random in 0..100 {
        let key = clump.refresh_key(0, [u64::MAX, 1, 2, random]);
        assert_eq!(Key::from(OWN).distance(&key).bucket(), Some(0));
        asked.insert(key.to_bytes()[0] >> 3);
    }
    assert_eq!(asked, (17..32).collect(), "all but the part that has somebody");
}

#[test]
fn buckets_are_due_an_hour_after_the_last_lookup_in_them() {
    let mut table = Table::new(OWN, RULES);
    for number in [128, 64, 32] {
        let _ = table.handle_seen(u64::from(number), contact(number));
    }
    assert_eq!(table.next_refresh(), Some(1_032), "bucket 2 was made first");
    let mut seen = BTreeSet::new();
    while let Some(bucket) = table.refresh_due(2_000) {
        assert!(seen.insert(bucket), "bucket {bucket} twice");
        table.handle_lookup(2_000, &Key::from(OWN).in_bucket(bucket, [5; 4]));
    }
    assert_eq!(seen, BTreeSet::from([0, 1, 2]));
    assert_eq!(table.next_refresh(), Some(3_000));
    table.refresh_all(2_001);
    assert_eq!(table.refresh_due(2_001), Some(0));
}
