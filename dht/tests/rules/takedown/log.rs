//! The set of takedowns.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use deadwax_dht::takedown::{
    BRANCHES_MAX, BadIssuer, BadLog, HELD_MAX, Heads, IssueError, Name, REASON_BYTES_MAX, RECORDS_MAX, Takedown,
    TakedownLog,
};
use deadwax_dht::{ClusterId, NodeKey};
use proptest::prelude::*;

use super::seeded::{CLUSTER, Random, issue, key, log, track};

/// Takes all that `from`, whose file is `file`, has and `to` lacks, in batches; gives what `to` wrote to its file.
fn pull(to: &mut TakedownLog, from: &TakedownLog, file: &[Takedown]) -> Vec<Takedown> {
    let mut written = Vec::new();
    loop {
        let slots = from.since(&to.locator(), RECORDS_MAX);
        let records: Vec<Takedown> = slots.iter().map(|slot| file[*slot as usize].clone()).collect();
        let merged = to.merge(&records);
        if merged.append.is_empty() {
            return written;
        }
        written.extend(merged.append);
    }
}

/// A record by `issuer` with any fields.
fn forge(issuer: u8, number: u64, previous: [u8; 32], id: u64) -> Takedown {
    let reason = "forged".to_owned();
    Takedown { issuer: [0; 32], number, previous, track: track(id), time: 0, reason, signature: [0; 64] }
        .sign(&key(issuer))
}

#[test]
fn what_is_issued_is_barred_here_and_where_it_is_merged() {
    let (mut a, mut b) = (log(2), log(2));
    let records = issue(&mut a, 1, 0, 10);
    assert_eq!(a.issue(&key(1), track(3), 0, ""), Err(IssueError::Already(records[3].name())));
    let merged = b.merge(&records);
    assert_eq!((merged.append.len(), merged.barred.len()), (10, 10));
    for number in 0..10 {
        let name = Name { number: number + 1, issuer: key(1).public() };
        assert_eq!((a.number_of(&track(number)), b.number_of(&track(number))), (Some(name), Some(name)));
    }
    assert!(!b.is_barred(&track(10)) && b.number_of(&track(10)).is_none());
    assert_eq!(a.heads().digest(), b.heads().digest());
    assert!(b.merge(&records).append.is_empty(), "known: nothing to write");
    assert_eq!((b.slots(), b.chained()), (10, 10));
}

#[test]
fn both_sides_of_a_cut_issue_and_merge_by_union() {
    let (mut a, mut b) = (log(2), log(2));
    let (in_a, in_b) = (issue(&mut a, 1, 0, 5), issue(&mut b, 2, 3, 5));
    assert!(!a.covers(&b.heads()) && !b.covers(&a.heads()));
    a.merge(&in_b);
    b.merge(&in_a);
    assert_eq!(a.heads(), b.heads());
    for number in 0..8 {
        assert!(a.is_barred(&track(number)) && a.number_of(&track(number)) == b.number_of(&track(number)));
    }
    // Track 3 is the fourth of the one and the first of the other.
    assert_eq!(a.number_of(&track(3)).map(|name| name.number), Some(1));
}

#[test]
fn a_gap_bars_but_counts_for_no_head() {
    let (mut a, mut b) = (log(1), log(1));
    let records = issue(&mut a, 1, 0, 5);
    let merged = b.merge(&records[2..]);
    assert_eq!((merged.append.len(), merged.barred.len(), b.held()), (3, 3, 3));
    assert!(b.is_barred(&track(4)) && b.heads().is_empty() && !b.covers(&a.heads()));
    assert_eq!(b.issue(&key(1), track(9), 0, ""), Err(IssueError::Behind));
    let mut file = merged.append;
    file.extend(b.merge(&records[..2]).append);
    assert_eq!((b.held(), b.heads()), (0, a.heads()));
    let again = log(1).rebuild(file).expect("its own file");
    assert_eq!(again.heads(), a.heads());
    assert!(b.since(&a.locator(), 10).is_empty());
}

#[test]
fn forged_records_are_dropped_and_counted() {
    let mut log = log(1);
    let root = Takedown::root(&CLUSTER, &key(1).public());
    let good = forge(1, 1, root, 1);
    let other = Takedown { issuer: key(1).public(), ..forge(2, 1, root, 2) };
    let changed = Takedown { track: track(3), ..good.clone() };
    for bad in [&other, &changed] {
        let merged = log.merge(std::slice::from_ref(bad));
        assert_eq!((merged.forged, merged.append.len()), (1, 0));
    }
    let merged = log.merge(&[forge(2, 1, root, 1)]);
    assert_eq!((merged.strangers, merged.stranger), (1, Some(key(2).public())));
    // Of another cluster, number 0, beyond the last number: signed, but with no place.
    let elsewhere = Takedown::root(&ClusterId::from_bytes([8; 16]), &key(1).public());
    let misplaced = [forge(1, 1, elsewhere, 1), forge(1, 0, root, 1), forge(1, 1 << 40, root, 1)];
    assert_eq!(log.merge(&misplaced).refused, 3);
    assert!(log.heads().is_empty() && log.slots() == 0 && !log.is_barred(&track(1)));
    assert_eq!(log.merge(&[good]).append.len(), 1);
}

#[test]
fn the_last_good_signature_vouches_for_what_is_before_it() {
    let mut a = log(1);
    let mut records = issue(&mut a, 1, 0, 6);
    records[5].signature[0] ^= 1;
    let mut b = log(1);
    let merged = b.merge(&records);
    assert_eq!((merged.append.len(), merged.forged), (5, 1), "the last is forged, the others are vouched for");
    assert!(b.is_barred(&track(4)) && !b.is_barred(&track(5)));
    // An issuer that signs badly in the middle: its next record vouches for it all the same, whatever the batches.
    let root = Takedown::root(&CLUSTER, &key(1).public());
    let mut bad = forge(1, 1, root, 1);
    bad.signature = [9; 64];
    let next = forge(1, 2, bad.hash(), 2);
    let mut c = log(1);
    assert_eq!(c.merge(std::slice::from_ref(&bad)).forged, 1);
    let merged = c.merge(&[bad.clone(), next.clone()]);
    assert_eq!(merged.append, [bad.clone(), next.clone()]);
    assert_eq!(log(1).rebuild([bad.clone(), next]).expect("vouched for").heads(), c.heads());
    assert_eq!(log(1).rebuild([bad.clone()]).map(|_| ()), Err(BadLog::Signature(bad.name())));
}

#[test]
fn a_fork_bars_both_and_names_the_issuer() {
    let mut whole = log(1);
    let common = issue(&mut whole, 1, 0, 20);
    let (mut a, mut b) = (whole.clone(), whole.clone());
    let (in_a, in_b) = (issue(&mut a, 1, 100, 30), issue(&mut b, 1, 200, 3));
    let file_a: Vec<_> = common.iter().chain(&in_a).cloned().collect();
    let file_b: Vec<_> = common.iter().chain(&in_b).cloned().collect();
    let (old_a, mut ends) = (a.clone(), BTreeSet::new());
    assert_eq!(old_a.forked().count(), 0);
    assert!(old_a.since(&b.locator(), 100).len() <= 32, "the locator finds about where they parted");
    let written = pull(&mut a, &b, &file_b);
    assert_eq!(written.len(), 3, "no record twice");
    let file: Vec<_> = file_a.iter().chain(&written).cloned().collect();
    pull(&mut b, &old_a, &file_a);
    let mut c = log(1);
    pull(&mut c, &a, &file);
    for log in [&a, &b, &c, &log(1).rebuild(file.clone()).expect("its own file")] {
        assert_eq!(log.forked().collect::<Vec<_>>(), [&key(1).public()]);
        assert!((100..130).chain(200..203).chain(0..20).all(|number| log.is_barred(&track(number))));
        assert_eq!((log.chained(), log.held()), (53, 0));
        ends.insert(log.heads().digest());
    }
    assert_eq!(ends.len(), 1);
    let next = a.issue(&key(1), track(300), 0, "").expect("an issuer goes on");
    assert_eq!(next.number, 51, "from its longest branch");
}

#[test]
fn bounds_hold() {
    let mut log = log(1);
    let root = Takedown::root(&CLUSTER, &key(1).public());
    let many: Vec<_> = (0..BRANCHES_MAX as u64 + 3).map(|id| forge(1, 1, root, id)).collect();
    let merged = log.merge(&many);
    assert_eq!((merged.append.len(), merged.refused), (BRANCHES_MAX, 3));
    assert_eq!(merged.forked, [key(1).public()]);
    let gaps: Vec<_> = (0..RECORDS_MAX as u64 + 1).map(|id| forge(1, 5, [5; 32], 1_000 + id)).collect();
    let merged = log.merge(&gaps);
    assert_eq!((merged.append.len(), merged.refused, log.held()), (RECORDS_MAX, 1, RECORDS_MAX));
    const { assert!(HELD_MAX > RECORDS_MAX) };
    assert_eq!(
        log.issue(&key(1), track(1), 0, &"x".repeat(79)).err(),
        Some(IssueError::Already(log.number_of(&track(1)).expect("barred")))
    );
    assert_eq!(log.issue(&key(1), track(99), 0, &"x".repeat(79)), Err(IssueError::Reason(REASON_BYTES_MAX + 1)));
    assert_eq!(log.issue(&key(2), track(99), 0, ""), Err(IssueError::Stranger));
    assert_eq!(log.allow([0; 32]), Err(BadIssuer::Key), "a point of small order");
    for number in 2..=64 {
        log.allow(NodeKey::from_bytes(&[number; 32]).public()).expect("room");
    }
    assert_eq!(log.allow(key(65).public()), Err(BadIssuer::Many));
    assert_eq!(log.allow(key(64).public()), Ok(()));
}

#[test]
fn a_file_that_is_not_a_log_is_refused() {
    let mut a = log(1);
    let records = issue(&mut a, 1, 0, 3);
    let twice = [records[0].clone(), records[0].clone()];
    assert_eq!(log(1).rebuild(twice).map(|_| ()), Err(BadLog::Misplaced(1)));
    assert_eq!(log(0).rebuild(records.clone()).map(|_| ()), Err(BadLog::Stranger(0)));
    let mut rotten = records;
    rotten[2].track = track(77);
    assert!(matches!(log(1).rebuild(rotten), Err(BadLog::Signature(_))));
}

/// Any set of records by three issuers, of whom one forks, in the order of issue.
fn any_records(random: &mut Random) -> Vec<Takedown> {
    let mut logs = [log(3), log(3), log(3), log(3)];
    let mut records = Vec::new();
    for number in 0..40 {
        // Logs 2 and 3 are two machines with one key, that never hear of each other.
        let at = random.index(4);
        let issuer = [1, 2, 3, 3][at];
        let id = if random.percent(20) { random.below(40) } else { 1_000 + number };
        records.extend(logs[at].issue(&key(issuer), track(id), number, ""));
    }
    records
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_log_is_a_set_whatever_the_order_the_batches_and_the_repeats(seed in any::<u64>()) {
        let mut random = Random(seed);
        let records = any_records(&mut random);
        let mut model: BTreeMap<_, Name> = BTreeMap::new();
        for record in &records {
            let name = model.entry(record.track).or_insert(record.name());
            *name = record.name().min(*name);
        }
        let mut whole = log(3);
        whole.merge(&records);
        let (mut log, mut file, mut barred) = (log(3), Vec::new(), BTreeSet::new());
        while log.chained() < records.len() {
            let batch: Vec<_> = (0..random.below(6)).map(|_| records[random.index(records.len())].clone()).collect();
            let merged = log.merge(&batch);
            prop_assert_eq!(merged.forged + merged.refused + merged.strangers, 0);
            file.extend(merged.append);
            for id in merged.barred {
                prop_assert!(barred.insert(id), "barred anew only once");
            }
            prop_assert!(barred.iter().all(|id| log.is_barred(id)));
            prop_assert_eq!(log.slots() as usize, file.len());
        }
        prop_assert_eq!(log.heads(), whole.heads());
        prop_assert_eq!(log.held(), 0);
        let again = super::seeded::log(3).rebuild(file.clone()).expect("its own file");
        let mut pulled = super::seeded::log(3);
        pull(&mut pulled, &log, &file);
        for log in [&log, &whole, &again, &pulled] {
            prop_assert_eq!(log.heads(), whole.heads());
            prop_assert_eq!(log.slots() as usize, records.len());
            for (id, name) in &model {
                prop_assert_eq!(log.number_of(id), Some(*name));
            }
            prop_assert!((2_000..2_100).all(|id| !log.is_barred(&track(id))));
            prop_assert!(log.covers(&whole.locator()) && log.since(&whole.heads(), 1_000).is_empty());
        }
    }

    #[test]
    fn any_part_of_a_log_catches_up_with_any_limit(seed in any::<u64>(), limit in 1_usize..50) {
        let mut random = Random(seed);
        let records = any_records(&mut random);
        let mut whole = log(3);
        let file = whole.merge(&records).append;
        let mut part = log(3);
        part.merge(&records[..random.index(records.len())]);
        while !part.covers(&whole.heads()) {
            let slots = whole.since(&part.locator(), limit);
            prop_assert!(!slots.is_empty() && slots.len() <= limit);
            let batch: Vec<_> = slots.iter().map(|slot| file[*slot as usize].clone()).collect();
            part.merge(&batch);
            prop_assert_eq!(part.held(), 0, "predecessors come first");
        }
        prop_assert_eq!(part.heads(), whole.heads());
    }
}

/// `cargo test --release -p deadwax-dht --test rules million -- --ignored --nocapture`
#[test]
#[ignore = "takes a minute: a million signatures are made first"]
fn a_million_records_merge_within_seconds() {
    const COUNT: u64 = 1_000_000;
    let mut a = log(1);
    let start = Instant::now();
    let records = issue(&mut a, 1, 0, COUNT);
    println!("issued in {:?}", start.elapsed());
    let mut b = log(1);
    let start = Instant::now();
    for batch in records.chunks(RECORDS_MAX) {
        assert_eq!(b.merge(batch).append.len(), batch.len());
    }
    println!("merged in {:?}", start.elapsed());
    let (bytes, ids) = b.barred_bytes();
    println!("{bytes} bytes for {ids} ids: {} hundredths of a byte each", bytes * 100 / ids);
    assert!(ids == 1_000_000 && bytes <= 40 * ids);
    let start = Instant::now();
    let again = log(1).rebuild(records).expect("its own file");
    println!("rebuilt in {:?}", start.elapsed());
    let start = Instant::now();
    let found = (0..2 * COUNT).filter(|number| again.is_barred(&track(*number))).count();
    println!("{} ns a lookup, the hash of the id included", start.elapsed().as_nanos() / u128::from(2 * COUNT));
    assert_eq!((found, again.heads()), (1_000_000, b.heads()));
}

#[test]
fn whoever_follows_by_heads_alone_gets_each_record_once_also_of_a_fork() {
    let mut log = log(3);
    let mut file = issue(&mut log, 1, 0, 25);
    file.extend(issue(&mut log, 2, 100, 7));
    // The issuer forks: an old image of it goes on after its fifth record.
    let branch = forge(1, 6, file[4].hash(), 500);
    let leaf = forge(1, 7, branch.hash(), 501);
    let merged = log.merge(&[branch, leaf]);
    assert_eq!((merged.append.len(), merged.forked.len()), (2, 1));
    file.extend(merged.append);
    for page in [1, 3, 10, 100] {
        let (mut known, mut got) = (Heads::default(), Vec::new());
        loop {
            let slots = log.since(&known, page);
            if slots.is_empty() {
                break;
            }
            let records: Vec<Takedown> = slots.iter().map(|slot| file[*slot as usize].clone()).collect();
            known = Heads::decode(&known.advanced(&records).encode()).expect("good heads");
            got.extend(slots);
        }
        assert_eq!(known, log.heads(), "pages of {page}");
        got.sort_unstable();
        assert_eq!(got, (0..log.slots()).collect::<Vec<_>>(), "pages of {page}");
    }
}

#[test]
fn a_number_in_the_cluster_names_one_takedown_and_fits_a_float() {
    let mut log = log(3);
    let file = [issue(&mut log, 1, 0, 3), issue(&mut log, 2, 100, 3)].concat();
    let numbers: BTreeSet<u64> = file.iter().map(|record| record.name().in_cluster()).collect();
    assert_eq!(numbers.len(), file.len());
    for (slot, record) in (0..).zip(&file) {
        let number = record.name().in_cluster();
        assert!(number < 1 << 53, "{number}");
        assert_eq!(log.names(number).collect::<Vec<_>>(), [record.name()]);
        assert_eq!(log.slots_of(&record.name()), [slot]);
    }
    let unknown = Name { number: 9, issuer: key(3).public() };
    assert!(log.slots_of(&unknown).is_empty() && log.names(7).next().is_none());
}
