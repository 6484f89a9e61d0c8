//! Random operations against a map that is always right, and how much memory a table takes.

use std::collections::BTreeMap;

use super::*;

/// SplitMix64: one seed replays all.
struct Dice(u64);

impl Dice {
    fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.any() % below
    }

    fn slot(&mut self) -> Slot {
        let kind = match self.roll(3) {
            0 => EntryKind::Track,
            1 => EntryKind::CompressedTrack,
            _ => EntryKind::Takedown,
        };
        let header_blocks = u8::try_from(self.roll(64)).expect("fits");
        Slot { address: self.roll(1 << 40), track_bytes: self.roll(1 << 29), header_blocks, kind }
    }
}

/// An id whose key is the low 48 bits of `key`.
fn id(key: u64) -> TrackId {
    let mut bytes = [0x5a; 32];
    bytes[..6].copy_from_slice(&key.to_be_bytes()[2..]);
    TrackId::from_bytes(bytes)
}

fn key(number: u64) -> Key {
    Key::of(&id(number))
}

/// The slots of each key, by address.
type Model = BTreeMap<Key, Vec<Slot>>;

impl Table {
    fn check(&self) {
        let alone = self.groups.len() == 1;
        let ends = self.firsts[1..].iter().copied().chain([u128::MAX]);
        let counts = self.groups.iter().zip(ends).map(|(group, end)| group.check(end, alone) as u64);
        assert_eq!(counts.sum::<u64>(), self.len());
        assert!(self.groups.iter().map(Group::first).eq(self.firsts.iter().copied()));
    }

    fn bytes_per_entry(&self) -> f64 {
        self.heap_bytes() as f64 / self.len() as f64
    }
}

fn assert_same(table: &Table, model: &Model) {
    table.check();
    let all = model.iter().flat_map(|(key, slots)| slots.iter().map(|slot| (*key, *slot)));
    assert!(table.from(key(0)).eq(all), "the table lists something else than the model");
}

/// Does one random thing to both, with ids below `keys`, of which one in four is a multiple of 1000.
fn step(table: &mut Table, model: &mut Model, dice: &mut Dice, keys: u64, inserts: u64) {
    let number = if dice.roll(4) == 0 { dice.roll(keys) / 1000 * 1000 } else { dice.roll(keys) };
    let id = id(number);
    let slots = model.entry(Key::of(&id)).or_default();
    let held = match slots.len() as u64 {
        0 => None,
        count => Some(slots[usize::try_from(dice.roll(count)).expect("fits")]),
    };
    let new = dice.slot();
    if dice.roll(100) < inserts {
        assert!(table.insert(&id, new));
        slots.push(new);
    } else if let Some(old) = held {
        slots.retain(|slot| *slot != old);
        if dice.roll(4) == 0 {
            assert!(table.replace(&id, old, new));
            slots.push(new);
        } else {
            assert!(table.remove(&id, old));
        }
    } else {
        assert!(!table.remove(&id, new) && !table.replace(&id, new, old_of(new)));
    }
    slots.sort_by_key(|slot| slot.address);
    assert!(table.candidates(&id).eq(slots.iter().copied()), "other candidates for {id}");
    if slots.is_empty() {
        model.remove(&Key::of(&id));
    }
}

fn old_of(slot: Slot) -> Slot {
    Slot { address: slot.address ^ 1, ..slot }
}

#[test]
fn a_table_agrees_with_a_map_through_a_random_life() {
    // Few keys with many entries each, and many with few.
    for (seed, keys) in (1..).zip([3, 2_000, 40_000, 1 << 20, 1 << 40, 1 << 48]) {
        println!("seed {seed}");
        let mut dice = Dice(seed);
        let (mut table, mut model) = (Table::default(), Model::new());
        for inserts in [90, 30, 70, 5, 60, 0] {
            for _ in 0..12_000 {
                step(&mut table, &mut model, &mut dice, keys, inserts);
            }
            assert_same(&table, &model);
        }
    }
}

#[test]
fn entries_of_one_key_can_fill_many_leaves_and_go_again() {
    let mut table = Table::default();
    let mut model = Model::new();
    let slot = |address| Slot { address, track_bytes: 1, header_blocks: 1, kind: EntryKind::Track };
    for address in 0..20_000_u64 {
        let slot = slot(address * 7919 % 20_000);
        assert!(table.insert(&id(77), slot) && !table.insert(&id(77), slot));
    }
    for neighbour in [76, 78] {
        table.insert(&id(neighbour), slot(5));
        model.insert(key(neighbour), vec![slot(5)]);
    }
    model.insert(key(77), (0..20_000).map(slot).collect());
    assert_same(&table, &model);
    assert_eq!(table.candidates(&id(77)).count(), 20_000);
    (0..20_000).for_each(|address| assert!(table.remove(&id(77), slot(address))));
    model.remove(&key(77));
    assert_same(&table, &model);
    assert_eq!(table.candidates(&id(77)).count(), 0);
}

#[test]
fn ids_in_order_fill_leaves_too() {
    let orders: [fn(u64) -> u64; 4] = [
        |n| n,
        |n| (1 << 48) - 1 - n,
        // From both ends to the middle.
        |n| if n % 2 == 0 { n } else { (1 << 48) - n },
        // Runs here and there.
        |n| (n % 13) << 44 | (n / 13),
    ];
    for (index, order) in orders.into_iter().enumerate() {
        println!("order {index}");
        let (mut table, mut dice, mut model) = (Table::default(), Dice(9), Model::new());
        for n in 0..100_000 {
            let slot = dice.slot();
            assert!(table.insert(&id(order(n)), slot));
            model.insert(key(order(n)), vec![slot]);
        }
        assert_same(&table, &model);
        assert!(table.bytes_per_entry() < 20.0, "{} bytes an entry", table.bytes_per_entry());
        for n in 0..100_000 {
            let slots = model.remove(&key(order(n))).expect("held");
            assert!(table.remove(&id(order(n)), slots[0]));
            if n % 20_000 == 0 {
                assert_same(&table, &model);
            }
        }
        assert_same(&table, &model);
    }
}

#[test]
fn a_partition_is_listed_from_anywhere_in_it() {
    let mut table = Table::default();
    let slot = Dice(1).slot();
    let number = |partition: u64, rest: u64| partition << 32 | rest;
    let held: Vec<u64> = (0..4).flat_map(|partition| (0..700).map(move |rest| number(partition, rest * 3))).collect();
    held.iter().for_each(|n| assert!(table.insert(&id(*n), slot)));
    assert!(table.insert(&id(number(0xffff, (1 << 32) - 1)), slot));
    let listed = |partition: u16, from: Option<TrackId>| -> Vec<Key> {
        table.of_partition(Partition(partition), from.as_ref()).map(|(key, _)| key).collect()
    };
    let expected = |numbers: &[u64]| -> Vec<Key> { numbers.iter().map(|number| key(*number)).collect() };
    assert_eq!(listed(2, None), expected(&held[1400..2100]));
    assert_eq!(listed(2, Some(id(number(2, 600)))), expected(&held[1600..2100]));
    assert_eq!(listed(2, Some(id(number(2, 601)))), expected(&held[1601..2100]));
    assert_eq!(listed(2, Some(id(number(1, 600)))), expected(&held[1400..2100]), "from one that lies before it");
    assert_eq!(listed(2, Some(id(number(3, 0)))), [], "from one that lies past it");
    assert_eq!(listed(4, None), []);
    assert_eq!(listed(0xffff, None), [key(number(0xffff, (1 << 32) - 1))]);
    assert_eq!(table.after(key(held[0]), slot).count(), held.len());
    assert_eq!(table.after(key(held[0]), old_of(slot)).count(), held.len() + usize::from(slot.address % 2 == 1));
    let last =
        Slot { address: (1 << 40) - 1, track_bytes: (1 << 30) - 1, header_blocks: 63, kind: EntryKind::Takedown };
    assert_eq!(table.after(Key([0xff; 6]), last).count(), 0);
}

#[test]
fn an_entry_takes_few_bytes_at_any_count() {
    let mut table = Table::default();
    let mut dice = Dice(42);
    let numbers: Vec<u64> = (0..1_000_000).map(|_| dice.roll(1 << 48)).collect();
    let slot = |number: u64| Slot { address: number >> 8, track_bytes: 7, header_blocks: 1, kind: EntryKind::Track };
    let (mut worst, mut sum, mut samples, mut peak) = (0.0_f64, 0.0, 0.0, 0);
    for (count, number) in numbers.iter().enumerate() {
        table.insert(&id(*number), slot(*number));
        if count % 1000 == 0 && count >= 100_000 {
            worst = worst.max(table.bytes_per_entry());
            (sum, samples) = (sum + table.bytes_per_entry(), samples + 1.0);
        }
        peak = peak.max(if count % 1000 == 0 { table.heap_bytes() } else { 0 });
    }
    let (mean, grown) = (sum / samples, table.heap_bytes());
    println!("growth: mean {mean:.2} bytes an entry, worst {worst:.2}, last {:.2}", table.bytes_per_entry());
    assert!(mean <= 19.0 && worst <= 20.5, "mean {mean}, worst {worst}");
    assert!(peak * 4 <= grown * 5, "{peak} bytes at most for {grown} after");
    // Half of them go, then as many others come.
    let mut churn = |numbers: &mut dyn Iterator<Item = (usize, u64)>, insert: bool| {
        let mut worst = 0.0_f64;
        for (count, number) in numbers {
            let done =
                if insert { table.insert(&id(number), slot(number)) } else { table.remove(&id(number), slot(number)) };
            assert!(done);
            if count % 1000 == 0 {
                worst = worst.max(table.bytes_per_entry());
            }
        }
        table.check();
        println!("churn: worst {worst:.2} bytes an entry, last {:.2}", table.bytes_per_entry());
        assert!(worst <= 23.5, "{worst} bytes an entry");
    };
    churn(&mut numbers.iter().copied().enumerate().filter(|(n, _)| n / 1000 % 2 == 0), false);
    churn(&mut (0..500_000).map(|n| (n, dice.roll(1 << 48))), true);
}
