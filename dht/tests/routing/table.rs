//! The table against a plain list, and the store of records against its bounds.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_dht::NodeId;
use deadwax_dht::routing::{Contact, Key, Records, Table, TableRules};
use deadwax_track::Partition;
use proptest::prelude::*;

use crate::net::record;

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
    fn seen(&mut self, contact: &Contact) {
        let Some(at) = contact.key().distance(&OWN.into()).bucket() else { return };
        let (entries, waiting) = (self.entries.entry(at).or_default(), self.waiting.entry(at).or_default());
        waiting.retain(|other| other.id != contact.id);
        let known = entries.iter().position(|(other, _)| other.id == contact.id);
        let doubtful = entries.iter().position(|(_, failures)| *failures >= RULES.failures_max);
        if let Some(at) = known.or(if entries.len() == RULES.k { doubtful } else { None }) {
            entries.remove(at);
        }
        if entries.len() < RULES.k {
            entries.push((contact.clone(), 0));
        } else {
            waiting.push(contact.clone());
            if waiting.len() > RULES.k {
                waiting.remove(0);
            }
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
