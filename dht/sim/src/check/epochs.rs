//! One history: each epoch has one record, whoever saves it.

use std::collections::BTreeMap;

use deadwax_dht::log::{Batch, History, Record};

use super::{Rule, Violation};

/// What a record is told apart by: its predecessor and the state after it.
type Mark = ([u8; 32], [u8; 32]);

/// All epochs that anybody ever saved.
#[derive(Debug)]
pub(crate) struct Epochs(BTreeMap<u64, Mark>);

const fn mark(record: &Record) -> Mark {
    (record.previous, record.state)
}

impl Epochs {
    pub(crate) fn new(history: &History) -> Self {
        let genesis = history.record(history.epoch()).expect("a history has its newest record");
        Self(BTreeMap::from([(genesis.epoch, mark(genesis))]))
    }

    /// A host saved these.
    pub(crate) fn see(&mut self, host: u32, batch: &Batch, violations: &mut Vec<Violation>) {
        let first = batch.checkpoint.as_ref().map(|checkpoint| &checkpoint.record);
        for record in first.into_iter().chain(batch.records.iter().map(|record| &**record)) {
            let known = *self.0.entry(record.epoch).or_insert_with(|| mark(record));
            if known != mark(record) {
                let text = format!("n{host} saved another record of epoch {} than is known", record.epoch);
                violations.push(Violation { rule: Rule::OneHistory, text });
            }
        }
    }
}
