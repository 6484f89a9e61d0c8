//! Operations such as a core gives, from a seed.

use deadwax_dht::log::{Change, Entry, History, Persist, Snapshot, Vote};
use deadwax_dht::takedown::{Standing, Takedown};
use deadwax_track::TrackId;

use super::cluster::{Random, any_change, history, proposal, rack};
use crate::system::SystemOp;

/// Draws operations, each possible after those before.
pub(super) struct Script {
    pub(super) random: Random,
    /// The cluster's chain, and how much of it was saved.
    chain: History,
    saved: u64,
    fresh: u8,
    /// Seats that are taken, rising, with the last entry of each.
    seats: Vec<(u64, u64)>,
    last_seat: u64,
    takedowns: u64,
}

impl Script {
    /// Of a node that `founds` its cluster in seat 1, or joins it.
    pub(super) fn new(seed: u64, founds: bool) -> Self {
        let chain = history(5, 3);
        let saved = if founds { chain.epoch() } else { 0 };
        let seats = if founds { vec![(1, 1)] } else { Vec::new() };
        Self { random: Random(seed), chain, saved, fresh: 5, seats, last_seat: 3, takedowns: 0 }
    }

    pub(super) fn ops(&mut self, count: usize) -> Vec<SystemOp> {
        (0..count).map(|_| self.op()).collect()
    }

    fn op(&mut self) -> SystemOp {
        match self.random.below(16) {
            0..=3 => self.save(),
            4 => SystemOp::Stand(Standing { intact: self.random.percent(50), counts: self.random.percent(50) }),
            // Never so many that the oldest goes.
            5 if self.seats.len() < 3 => {
                self.last_seat += 1;
                self.seats.push((self.last_seat, 0));
                SystemOp::TakeSeat(self.last_seat)
            }
            6 if self.seats.len() > 1 => {
                let at = self.random.index(self.seats.len());
                SystemOp::DropSeat(self.seats.remove(at).0)
            }
            7 => SystemOp::DropSeat(1_000),
            8 => SystemOp::Life(self.random.below(5_000)),
            9..=11 => {
                let count = 1 + self.random.index(4);
                SystemOp::Append(self.random.next(), (0..count).map(|_| self.takedown()).collect())
            }
            _ if self.seats.is_empty() => self.save(),
            _ => self.persist(),
        }
    }

    fn save(&mut self) -> SystemOp {
        // Beyond 64 records a batch begins with a checkpoint.
        let records = if self.random.percent(3) { 70 } else { 1 + self.random.below(3) };
        for number in 0..records {
            let mut change = any_change(&mut self.random, &self.chain, &mut self.fresh);
            // Whole maps would make the files too long to go through byte by byte.
            if matches!(change, Change::Reshape { .. } | Change::Admit { .. } | Change::RollBack { .. }) {
                change = rack(self.saved + number);
            }
            if let Ok(record) = self.chain.decide(&proposal(self.chain.epoch(), 0, change)) {
                self.chain.append(&record).expect("what was decided can be taken");
            }
        }
        let batch = self.chain.since(self.saved);
        self.saved = self.chain.epoch();
        SystemOp::Save(Box::new(batch))
    }

    fn persist(&mut self) -> SystemOp {
        let at = self.random.index(self.seats.len());
        let (seat, last) = self.seats[at];
        let random = &mut self.random;
        let snapshot = random.percent(20).then(|| Snapshot {
            index: last,
            term: 1,
            voters: vec![1, 2, seat + 3],
            outgoing: Vec::new(),
            history: vec![7; random.index(40)].into(),
        });
        let first = last + 1 - u64::from(random.percent(30) && last > 0);
        let count = random.below(3);
        let entry = |index| Entry { index, term: 1, voters: false, data: vec![1; 9], context: Vec::new() };
        let entries: Vec<Entry> = (first..first + count).map(entry).collect();
        let vote = random.percent(60).then(|| Vote { term: random.below(90), seat: random.below(4), commit: last });
        self.seats[at].1 = entries.last().map_or(last, |entry| entry.index);
        let local = self.random.percent(50);
        SystemOp::Persist(seat, Box::new(Persist { number: self.random.next(), snapshot, local, entries, vote }))
    }

    /// Its signature is nobody's: the drive does not look.
    fn takedown(&mut self) -> Takedown {
        self.takedowns += 1;
        let byte = u8::try_from(self.random.below(256)).expect("a byte");
        Takedown {
            issuer: [byte; 32],
            number: self.takedowns,
            previous: [2; 32],
            track: TrackId::from_bytes([byte; 32]),
            time: self.random.next(),
            reason: "a reason"[..self.random.index(9)].to_owned(),
            signature: [byte; 64],
        }
    }
}
