//! The chain of records, verified, and the state that it leads to.

use std::collections::VecDeque;
use std::sync::Arc;

use deadwax_track::Partition;

use super::batch::{Batch, Checkpoint};
use super::change::Change;
use super::consensus::{Consensus, ConsensusConfig, Durable};
use super::moves::Moves;
use super::record::{Proposal, Record};
use super::rules::BadChange;
use super::state::State;
use super::touch::{Thing, Touch};
use super::undo::{Earlier, Undo, Undos};
use super::{RECORD_BYTES_MAX, RECORDS_BYTES_MAX, RECORDS_MAX, STATE_BYTES_MAX};
use crate::wire::PROTOCOL_VERSION;
use crate::{BadMap, ClusterId, Map, MapSpec, NodeId};

/// Why records were not taken. The history is what it was before them, or before the one that is named.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadHistory {
    /// Records are missing in between: ask the sender for what comes after `newest`.
    #[error("record of epoch {got} does not follow epoch {newest}")]
    Gap {
        /// The newest epoch here.
        newest: u64,
        /// The one that was offered.
        got: u64,
    },
    /// Another record of that epoch is known here, or another log was begun anew: one of the two nodes is faulty, or of those
    /// that were called lost. An operator must look.
    #[error("record of epoch {epoch} is not the one that is known here")]
    Fork {
        /// Which epoch.
        epoch: u64,
    },
    /// The record names another predecessor than the one that is known here.
    #[error("record of epoch {epoch} names another predecessor")]
    Previous {
        /// Which epoch.
        epoch: u64,
    },
    /// The state after the record is not the one that it speaks of.
    #[error("record of epoch {epoch} speaks of another state")]
    State {
        /// Which epoch.
        epoch: u64,
    },
    /// The record breaks a rule.
    #[error("record of epoch {epoch}: {source}")]
    Rule {
        /// Which epoch.
        epoch: u64,
        /// Which rule.
        source: BadChange,
    },
    /// Another cluster's.
    #[error("checkpoint is of cluster {got}, not of {expected}")]
    Cluster {
        /// Ours.
        expected: ClusterId,
        /// Theirs.
        got: ClusterId,
    },
    /// There is nothing to begin with.
    #[error("batch has no checkpoint to begin with")]
    NoCheckpoint,
}

/// Why a proposal did not become a record.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The same change came to be since, perhaps by this very proposal, asked twice.
    #[error("the same change is the record of epoch {epoch}")]
    Already {
        /// By which record.
        epoch: u64,
    },
    /// A record since the proposal's epoch touched what it touches: look at the newest state, and plan anew.
    #[error("epoch {epoch} touched {thing}")]
    Clash {
        /// Which record.
        epoch: u64,
        /// What both touch.
        thing: Thing,
    },
    /// The proposal was made so long ago that nobody knows what was touched since: plan anew.
    #[error("proposal was made at epoch {base}; what changed is known from epoch {oldest} on")]
    Stale {
        /// The proposal's epoch.
        base: u64,
        /// The oldest that would have done.
        oldest: u64,
    },
    /// The proposal was made at an epoch that is not there yet.
    #[error("proposal was made at epoch {base}; the newest is {newest}")]
    Future {
        /// The proposal's epoch.
        base: u64,
        /// The newest.
        newest: u64,
    },
    /// The change breaks a rule.
    #[error(transparent)]
    Rule(#[from] BadChange),
    /// The map, or the record, would be too large.
    #[error("{what} would have {got} bytes; the most is {max}")]
    TooLong {
        /// What would be too large.
        what: &'static str,
        /// Its length in bytes.
        got: usize,
        /// The bound.
        max: usize,
    },
}

/// A record that is kept.
#[derive(Clone, Debug)]
struct Kept {
    record: Arc<Record>,
    hash: [u8; 32],
    bytes: usize,
    touch: Arc<Touch>,
    undo: Option<Arc<Undo>>,
}

/// The verified chain of epochs of one cluster: a checkpoint, with what was before the last changes up to it, the last
/// [`RECORDS_MAX`] records after it, and the state that they lead to.
///
/// What is kept depends on the chain alone: two histories at the same epoch of the same chain are equal in all they
/// say, but for how far back [`moved_since`](Self::moved_since) knows. That is what lets every voter decide a proposal
/// by itself.
#[derive(Clone, Debug)]
pub struct History {
    checkpoint: Arc<Checkpoint>,
    checkpoint_hash: [u8; 32],
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    moves: Moves,
    state: Arc<State>,
}

impl History {
    /// The history that begins with `spec` (whose epoch is the first) and these voters, 3 to 7 of its nodes, finalised at
    /// the newest version of the protocol that this program speaks.
    pub fn genesis(spec: MapSpec, voters: Vec<NodeId>) -> Result<Self, BadChange> {
        Self::genesis_at(PROTOCOL_VERSION, spec, voters)
    }

    /// As [`genesis`](Self::genesis), finalised at `protocol`.
    pub fn genesis_at(protocol: u8, spec: MapSpec, voters: Vec<NodeId>) -> Result<Self, BadChange> {
        let state = State::genesis(&spec, &voters, protocol)?;
        let change = Change::Genesis { spec: Box::new(spec), voters, protocol };
        let record = Record { epoch: state.epoch(), previous: [0; 32], state: state.hash(), change };
        let undos = Undos::since(state.epoch());
        Ok(Self::begin(Arc::new(Checkpoint { record, state, undos })))
    }

    fn begin(checkpoint: Arc<Checkpoint>) -> Self {
        let state = Arc::new(checkpoint.state.clone());
        let checkpoint_hash = checkpoint.record.hash();
        let moves = Moves::since(state.epoch());
        Self { checkpoint, checkpoint_hash, kept: VecDeque::new(), kept_bytes: 0, moves, state }
    }

    /// The history that a batch with a checkpoint holds: for a node that has none yet. Nothing but the sender's word
    /// says that it is this cluster's: the caller compares [`State::spec`]'s cluster, and believes peers that it has
    /// admitted.
    pub fn from_batch(batch: &Batch) -> Result<Self, BadHistory> {
        let checkpoint = batch.checkpoint.as_ref().ok_or(BadHistory::NoCheckpoint)?;
        checkpoint.check()?;
        let mut history = Self::begin(checkpoint.clone());
        for record in &batch.records {
            history.take(record)?;
        }
        Ok(history)
    }

    /// The newest epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.state.epoch()
    }

    /// BLAKE3 of the newest record: two nodes that name the same have the same history.
    #[must_use]
    pub fn head(&self) -> [u8; 32] {
        self.kept.back().map_or(self.checkpoint_hash, |kept| kept.hash)
    }

    /// The newest state.
    #[must_use]
    pub const fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// The map of the newest epoch. Takes some 100 us and 2 MiB: made once an epoch, and shared.
    pub fn map(&self) -> Result<Map, BadMap> {
        Map::new(self.state.spec().clone())
    }

    /// The oldest epoch of which the state is known: the checkpoint's. A proposal made before it is stale.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.checkpoint.record.epoch
    }

    /// The record of `epoch`, if it is kept.
    #[must_use]
    pub fn record(&self, epoch: u64) -> Option<&Record> {
        if epoch == self.oldest() {
            return Some(&self.checkpoint.record);
        }
        self.kept(epoch).map(|kept| &*kept.record)
    }

    fn kept(&self, epoch: u64) -> Option<&Kept> {
        let after = epoch.checked_sub(self.oldest())?.checked_sub(1)?;
        self.kept.get(usize::try_from(after).ok()?)
    }

    /// BLAKE3 of the record of `epoch`, if it is kept.
    #[must_use]
    pub fn hash(&self, epoch: u64) -> Option<[u8; 32]> {
        if epoch == self.oldest() {
            return Some(self.checkpoint_hash);
        }
        self.kept(epoch).map(|kept| kept.hash)
    }

    /// The state at `epoch`, if it is kept: worked out from the checkpoint.
    #[must_use]
    pub fn state_at(&self, epoch: u64) -> Option<State> {
        if epoch < self.oldest() || epoch > self.epoch() {
            return None;
        }
        let mut state = self.checkpoint.state.clone();
        for kept in self.kept.iter().take_while(|kept| kept.record.epoch <= epoch) {
            state = state.after(&kept.record.change).expect("checked when the record was taken");
        }
        Some(state)
    }

    /// The oldest epoch of which [`earlier`](Self::earlier) is known: further back than records are kept.
    #[must_use]
    pub fn earliest(&self) -> u64 {
        self.checkpoint.undos.since
    }

    /// The epochs since the [`earliest`](Self::earliest) that changed what a rollback brings back, rising.
    #[must_use]
    pub fn changed_at(&self) -> Vec<u64> {
        self.undos().map(|undo| undo.epoch).collect()
    }

    /// What a rollback to `epoch` brings back, whatever has moved since; none where it is not known any more, or not yet.
    #[must_use]
    pub fn earlier(&self, epoch: u64) -> Option<Earlier> {
        if epoch < self.earliest() || epoch > self.epoch() {
            return None;
        }
        let mut earlier = Earlier::now(&self.state);
        self.undos().rev().take_while(|undo| undo.epoch > epoch).for_each(|undo| earlier.take_back(undo));
        earlier.spec.epoch = epoch;
        Some(earlier)
    }

    fn undos(&self) -> impl DoubleEndedIterator<Item = &Undo> {
        self.checkpoint.undos.iter().chain(self.kept.iter().filter_map(|kept| kept.undo.as_deref()))
    }

    /// The change that brings back the map of `to`, an epoch that is kept.
    #[must_use]
    pub fn roll_back(&self, to: u64) -> Option<Change> {
        let spec = self.state_at(to)?.spec().clone();
        Some(Change::RollBack { to, spec: Box::new(spec) })
    }

    /// Whether the holders of `partition` may have changed after `epoch`. True where that is not known: before the epoch
    /// at which this history began, by a genesis or by a checkpoint. Records that are not kept any more count.
    #[must_use]
    pub fn moved_since(&self, partition: Partition, epoch: u64) -> bool {
        self.moves.moved_since(partition, epoch)
    }

    /// Takes over `further`, which has taken all that this history has and more, as if it had taken the same itself.
    /// Whether it could: not where that one knows less about what moved.
    pub(crate) fn take_over(&mut self, further: &Self) -> bool {
        let follows = further.hash(self.epoch()) == Some(self.head()) && further.moves.reaches(&self.moves);
        if follows {
            let before = std::mem::replace(self, further.clone());
            self.moves.forget_as(&before.moves);
        }
        follows
    }

    /// What a node at `epoch` is missing; [`Batch::is_empty`] when nothing. A node without any history is at 0.
    #[must_use]
    pub fn since(&self, epoch: u64) -> Batch {
        let behind = epoch < self.oldest();
        let checkpoint = behind.then(|| self.checkpoint.clone());
        let missing = self.kept.iter().filter(|kept| kept.record.epoch > epoch);
        Batch { checkpoint, records: missing.map(|kept| kept.record.clone()).collect() }
    }

    /// Takes what a peer gave: returns how many epochs this history is further. Records that are known are compared.
    /// The records before a bad one are taken; of a batch with a checkpoint that is needed all or nothing is.
    pub fn catch_up(&mut self, batch: &Batch) -> Result<u64, BadHistory> {
        let before = self.epoch();
        if let Some(checkpoint) = &batch.checkpoint {
            let (expected, got) = (self.state.spec().cluster, checkpoint.state.spec().cluster);
            if expected != got {
                return Err(BadHistory::Cluster { expected, got });
            }
            let epoch = checkpoint.record.epoch;
            if epoch > before {
                if !self.state.may_lead_to(&checkpoint.state) {
                    return Err(BadHistory::Fork { epoch });
                }
                *self = Self::from_batch(batch)?;
                return Ok(self.epoch() - before);
            }
            if self.hash(epoch).is_some_and(|known| known != checkpoint.record.hash()) {
                return Err(BadHistory::Fork { epoch });
            }
        }
        for record in &batch.records {
            if record.epoch > self.epoch() {
                self.take(record)?;
            } else if !self.has(record) && self.hash(record.epoch).is_some_and(|known| known != record.hash()) {
                return Err(BadHistory::Fork { epoch: record.epoch });
            }
        }
        Ok(self.epoch() - before)
    }

    /// Whether a peer's records are of another log than these, as far as can be told without a look at all of them: then
    /// [`catch_up`](Self::catch_up) takes none that come after.
    #[must_use]
    pub fn parts_from(&self, batch: &Batch) -> bool {
        let is_other = |epoch: u64, hash: &[u8; 32]| self.hash(epoch).is_some_and(|known| known != *hash);
        let checkpoint = batch.checkpoint.as_ref().is_some_and(|checkpoint| match checkpoint.record.epoch {
            epoch if epoch > self.epoch() => !self.state.may_lead_to(&checkpoint.state),
            epoch => is_other(epoch, &checkpoint.record.hash()),
        });
        let parts = |record: &Arc<Record>| is_other(record.epoch.saturating_sub(1), &record.previous);
        checkpoint || batch.records.iter().any(parts)
    }

    /// The history in which the log begins anew at `voter`, without those that are `lost`; and its record, behind those that
    /// are here. `seat`: what the node's voter had, if it had a seat: what that knows to be decided comes first.
    pub fn refound(&self, seat: Option<Durable>, voter: NodeId, lost: Vec<NodeId>) -> Result<Self, Refusal> {
        let mut history = self.clone();
        let decided = seat.and_then(|seat| Consensus::start(&ConsensusConfig::new(0), 0, seat, self).ok());
        let decided = decided.map(|decided| decided.history().since(self.epoch()));
        if let Some(decided) = decided.filter(|decided| !self.parts_from(decided)) {
            // What cannot be taken is left out: nobody has heard of it from this node.
            let _ = history.catch_up(&decided);
        }
        let (record, state) = history.successor(&Change::Refound { voter, lost })?;
        history.push(Arc::new(record), state);
        Ok(history)
    }

    /// Whether this very record, not one that equals it, is kept. The hash of one with a whole map takes milliseconds,
    /// and the cores of one process share records.
    fn has(&self, record: &Arc<Record>) -> bool {
        self.kept(record.epoch).is_some_and(|kept| Arc::ptr_eq(&kept.record, record))
    }

    /// Whether this very record, not one that equals it, is the newest.
    pub(crate) fn is_newest(&self, record: &Arc<Record>) -> bool {
        record.epoch == self.epoch() && self.has(record)
    }

    /// Takes the next record, if it is the successor of the newest and keeps the rules.
    pub fn append(&mut self, record: &Record) -> Result<(), BadHistory> {
        self.take(&Arc::new(record.clone()))
    }

    fn take(&mut self, record: &Arc<Record>) -> Result<(), BadHistory> {
        let (newest, epoch) = (self.epoch(), record.epoch);
        if epoch <= newest {
            let same = self.hash(epoch).is_none_or(|known| known == record.hash());
            return Err(if same { BadHistory::Gap { newest, got: epoch } } else { BadHistory::Fork { epoch } });
        }
        if newest.checked_add(1) != Some(epoch) {
            return Err(BadHistory::Gap { newest, got: epoch });
        }
        if record.previous != self.head() {
            return Err(BadHistory::Previous { epoch });
        }
        let state = self.state.after(&record.change).map_err(|source| BadHistory::Rule { epoch, source })?;
        if state.hash() != record.state {
            return Err(BadHistory::State { epoch });
        }
        self.push(record.clone(), state);
        Ok(())
    }

    fn push(&mut self, record: Arc<Record>, state: State) {
        let bytes = record.encode();
        let touch = Arc::new(Touch::of(&record.change, &self.state));
        let hash = *blake3::hash(&bytes).as_bytes();
        self.kept_bytes += bytes.len();
        self.moves.note(record.epoch, &touch);
        let undo = if touch.moves_all() { Undo::between(&self.state, &state).map(Arc::new) } else { None };
        self.kept.push_back(Kept { record, hash, bytes: bytes.len(), touch, undo });
        self.state = Arc::new(state);
        // The newest stays, whatever its length.
        while self.kept.len() > RECORDS_MAX || (self.kept_bytes > RECORDS_BYTES_MAX && self.kept.len() > 1) {
            let oldest = self.kept.pop_front().expect("there are several");
            self.kept_bytes -= oldest.bytes;
            let checkpoint = Arc::make_mut(&mut self.checkpoint);
            checkpoint.state =
                checkpoint.state.after(&oldest.record.change).expect("checked when the record was taken");
            checkpoint.record = Arc::unwrap_or_clone(oldest.record);
            if let Some(undo) = oldest.undo {
                checkpoint.undos.push(undo);
            }
            self.checkpoint_hash = oldest.hash;
        }
    }

    /// The record that `proposal` becomes if it comes next, or why it does not: the same on every node with this
    /// history. Nothing is changed.
    pub fn decide(&self, proposal: &Proposal) -> Result<Record, Refusal> {
        self.decide_with_state(proposal).map(|(record, _)| record)
    }

    /// Decides `proposal` and takes the record that it becomes.
    pub(super) fn commit(&mut self, proposal: &Proposal) -> Result<Arc<Record>, Refusal> {
        let (record, state) = self.decide_with_state(proposal)?;
        let record = Arc::new(record);
        self.push(record.clone(), state);
        Ok(record)
    }

    fn decide_with_state(&self, proposal: &Proposal) -> Result<(Record, State), Refusal> {
        let (base, newest, oldest) = (proposal.base, self.epoch(), self.oldest());
        if base > newest {
            return Err(Refusal::Future { base, newest });
        }
        if base < oldest {
            return Err(Refusal::Stale { base, oldest });
        }
        let touch = Touch::of(&proposal.change, &self.state);
        for kept in self.kept.iter().filter(|kept| kept.record.epoch > base) {
            let epoch = kept.record.epoch;
            if let Some(thing) = touch.clash(&kept.touch) {
                let same = kept.record.change == proposal.change;
                return Err(if same { Refusal::Already { epoch } } else { Refusal::Clash { epoch, thing } });
            }
        }
        if let Change::RollBack { to, spec } = &proposal.change {
            // The map is the proposer's word: believed here, it would let anything pass for an earlier epoch.
            if self.state_at(*to).is_none_or(|state| state.spec() != &**spec) {
                return Err(BadChange::RollBack { to: *to, epoch: newest }.into());
            }
        }
        if matches!(proposal.change, Change::Refound { .. }) {
            return Err(BadChange::Refound.into());
        }
        self.successor(&proposal.change)
    }

    /// The record of this change, and the state after it.
    fn successor(&self, change: &Change) -> Result<(Record, State), Refusal> {
        let state = self.state.after(change)?;
        let bytes = state.encode();
        let hash = *blake3::hash(&bytes).as_bytes();
        let record = Record { epoch: state.epoch(), previous: self.head(), state: hash, change: change.clone() };
        let lengths = [("map", bytes.len(), STATE_BYTES_MAX), ("record", record.encode().len(), RECORD_BYTES_MAX)];
        match lengths.into_iter().find(|(_, got, max)| got > max) {
            Some((what, got, max)) => Err(Refusal::TooLong { what, got, max }),
            None => Ok((record, state)),
        }
    }
}

impl PartialEq for History {
    fn eq(&self, other: &Self) -> bool {
        self.head() == other.head() && self.epoch() == other.epoch()
    }
}

impl Eq for History {}
