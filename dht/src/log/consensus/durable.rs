//! What a voter must find again after it stopped.

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry as RaftEntry, EntryType, HardState};

use super::super::batch::Batch;
use super::super::codec::{BadBytes, Reader, Writer};
use super::super::history::History;
use super::super::state::Voter;
use super::super::{BATCH_BYTES_MAX, MESSAGE_BYTES_MAX, PROPOSAL_BYTES_MAX, VOTERS_MAX};

/// The version of the bytes of a durable state and of a step. 1: the first.
const DURABLE_VERSION: u8 = 1;
/// The most entries of a voter's log: it is cut at every [`COMPACT_ENTRIES`](super::COMPACT_ENTRIES), and what is not
/// committed is bounded by the proposals that wait.
const ENTRIES_MAX: usize = 64 * 1024;
/// The most bytes of a durable state: a snapshot, and the log after it.
const DURABLE_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;

/// What a voter has promised: Raft's hard state.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Vote {
    /// The term that it is in.
    pub term: u64,
    /// The seat that it voted for in this term; 0: for none.
    pub seat: u64,
    /// The index of the last entry that it knows to be committed.
    pub commit: u64,
}

/// An entry of the Raft log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its place in the log, from 1.
    pub index: u64,
    /// The term of the leader that made it.
    pub term: u64,
    /// Whether it changes the voters.
    pub voters: bool,
    /// The crate's own bytes for a change of voters; else a proposal, or nothing.
    pub data: Vec<u8>,
    /// The proposal, where the entry changes the voters; empty where it ends the time of two sets of voters.
    pub context: Vec<u8>,
}

/// All that came of a log up to an index.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The index of the last entry that it stands for; 0: it stands for none.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The seats that vote.
    pub voters: Vec<u64>,
    /// The seats that vote, too, while a change of voters is under way.
    pub outgoing: Vec<u64>,
    /// The [`Batch`] of the whole history, as bytes: shared by who votes and who keeps it.
    pub history: Bytes,
}

/// One step of a voter's durable state. The driver makes it durable, then calls
/// [`acknowledge`](super::Consensus::acknowledge) with its number. Steps are made durable in order, each wholly or not
/// at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Persist {
    /// Counts the steps since the voter started.
    pub number: u64,
    /// Replaces all entries up to its index, or all there are if it is not `local`.
    pub snapshot: Option<Snapshot>,
    /// Whether the snapshot was made here, of the log's own beginning.
    pub local: bool,
    /// Entries: they replace those of their indexes, and all later ones.
    pub entries: Vec<Entry>,
    /// The new promise.
    pub vote: Option<Vote>,
}

/// A voter's durable state: what [`Persist`] steps add up to. A driver that keeps steps in a file puts them together
/// with [`apply`](Self::apply), and may write the sum in place of them with [`encode`](Self::encode) at any time.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Durable {
    /// The voter's seat.
    pub seat: u64,
    /// What it promised.
    pub vote: Vote,
    /// Where its log begins.
    pub snapshot: Snapshot,
    /// The entries after the snapshot, index by index.
    pub entries: Vec<Entry>,
}

impl Durable {
    /// The state of a voter of a new cluster: the same for all of its founders but for the seat.
    #[must_use]
    pub fn founding(seat: u64, history: &History) -> Self {
        // The genesis stands for entry 1: so whoever joins later, with an empty log, is sent a snapshot and no entries.
        let snapshot = Snapshot::of(history, 1, 1);
        Self { seat, vote: Vote { term: 1, seat: 0, commit: 1 }, snapshot, entries: Vec::new() }
    }

    /// The state of a voter that joins a cluster that is there already: it waits for its leader.
    #[must_use]
    pub fn joining(seat: u64) -> Self {
        Self { seat, ..Self::default() }
    }

    /// Takes one more step.
    pub fn apply(&mut self, step: &Persist) {
        if let Some(snapshot) = &step.snapshot {
            let index = snapshot.index;
            self.entries.retain(|entry| step.local && entry.index > index);
            self.snapshot = snapshot.clone();
        }
        if let Some(first) = step.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend_from_slice(&step.entries);
        }
        if let Some(vote) = step.vote {
            self.vote = vote;
        }
    }

    /// The index of the last entry.
    pub(super) fn last_index(&self) -> u64 {
        self.entries.last().map_or(self.snapshot.index, |entry| entry.index)
    }

    /// The history of the snapshot, if there is one.
    pub(super) fn history(&self) -> Option<Result<History, super::BadStart>> {
        (self.snapshot.index > 0).then(|| self.snapshot.history())
    }

    /// Whether it is something that a voter could have left.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let indexes = (self.snapshot.index + 1..).zip(&self.entries);
        let mut term = self.snapshot.term;
        for (index, entry) in indexes {
            if entry.index != index {
                return Err("its entries do not follow each other");
            }
            if entry.term < term {
                return Err("its terms fall");
            }
            term = entry.term;
        }
        if self.seat == 0 {
            return Err("it has no seat");
        }
        if self.vote.term < term {
            return Err("its vote is older than its log");
        }
        if self.vote.commit < self.snapshot.index || self.vote.commit > self.last_index() {
            return Err("it has not the entries that were committed");
        }
        Ok(())
    }

    /// The state's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(DURABLE_VERSION);
        out.u64(self.seat);
        self.vote.write(&mut out);
        self.snapshot.write(&mut out);
        out.list(self.entries.iter(), |out, entry| entry.write(out));
        out.finish()
    }

    /// The state of these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut from = Reader::new(bytes, "durable state", DURABLE_BYTES_MAX)?;
        from.version(DURABLE_VERSION)?;
        let durable = Self {
            seat: from.u64()?,
            vote: Vote::read(&mut from)?,
            snapshot: Snapshot::read(&mut from)?,
            entries: read_entries(&mut from)?,
        };
        from.finish()?;
        Ok(durable)
    }
}

impl Persist {
    /// Whether there is anything in it to make durable.
    pub(super) fn is_empty(&self) -> bool {
        self.snapshot.is_none() && self.entries.is_empty() && self.vote.is_none()
    }

    /// The step's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(DURABLE_VERSION);
        out.u64(self.number);
        out.bool(self.snapshot.is_some());
        if let Some(snapshot) = &self.snapshot {
            snapshot.write(&mut out);
        }
        out.bool(self.local);
        out.list(self.entries.iter(), |out, entry| entry.write(out));
        out.bool(self.vote.is_some());
        if let Some(vote) = &self.vote {
            vote.write(&mut out);
        }
        out.finish()
    }

    /// The step of these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut from = Reader::new(bytes, "durable step", DURABLE_BYTES_MAX)?;
        from.version(DURABLE_VERSION)?;
        let number = from.u64()?;
        let snapshot = if from.bool("snapshot")? { Some(Snapshot::read(&mut from)?) } else { None };
        let local = from.bool("local snapshot")?;
        let entries = read_entries(&mut from)?;
        let vote = if from.bool("vote")? { Some(Vote::read(&mut from)?) } else { None };
        from.finish()?;
        Ok(Self { number, snapshot, local, entries, vote })
    }
}

impl Vote {
    fn write(&self, out: &mut Writer) {
        [self.term, self.seat, self.commit].into_iter().for_each(|number| out.u64(number));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, BadBytes> {
        Ok(Self { term: from.u64()?, seat: from.u64()?, commit: from.u64()? })
    }

    pub(super) fn to_raft(self) -> HardState {
        let Self { term, seat: vote, commit } = self;
        HardState { term, vote, commit, ..HardState::default() }
    }

    pub(super) fn from_raft(hard: &HardState) -> Self {
        Self { term: hard.term, seat: hard.vote, commit: hard.commit }
    }
}

impl Entry {
    pub(super) fn write(&self, out: &mut Writer) {
        out.u64(self.index);
        out.u64(self.term);
        out.bool(self.voters);
        out.blob(&self.data);
        out.blob(&self.context);
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, BadBytes> {
        let (index, term, voters) = (from.u64()?, from.u64()?, from.bool("entry")?);
        let (data, context) = (from.blob()?.to_vec(), from.blob()?.to_vec());
        for got in [data.len(), context.len()] {
            if got > PROPOSAL_BYTES_MAX {
                return Err(BadBytes::TooLong { what: "entry", got, max: PROPOSAL_BYTES_MAX });
            }
        }
        Ok(Self { index, term, voters, data, context })
    }

    pub(super) fn to_raft(&self) -> RaftEntry {
        let kind = if self.voters { EntryType::EntryConfChangeV2 } else { EntryType::EntryNormal };
        RaftEntry {
            entry_type: kind,
            index: self.index,
            term: self.term,
            data: self.data.clone().into(),
            context: self.context.clone().into(),
            ..RaftEntry::default()
        }
    }

    pub(super) fn from_raft(entry: &RaftEntry) -> Self {
        Self {
            index: entry.index,
            term: entry.term,
            voters: entry.entry_type != EntryType::EntryNormal,
            data: entry.data.to_vec(),
            context: entry.context.to_vec(),
        }
    }
}

pub(super) fn read_entries(from: &mut Reader<'_>) -> Result<Vec<Entry>, BadBytes> {
    let entries = from.list(25, Entry::read)?;
    if entries.len() > ENTRIES_MAX {
        return Err(BadBytes::TooLong { what: "list of entries", got: entries.len(), max: ENTRIES_MAX });
    }
    Ok(entries)
}

impl Snapshot {
    pub(super) fn write(&self, out: &mut Writer) {
        out.u64(self.index);
        out.u64(self.term);
        for seats in [&self.voters, &self.outgoing] {
            out.list(seats.iter(), |out, seat| out.u64(*seat));
        }
        out.blob(&self.history);
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, BadBytes> {
        let (index, term) = (from.u64()?, from.u64()?);
        let (voters, outgoing) = (read_seats(from)?, read_seats(from)?);
        let history = Bytes::copy_from_slice(from.blob()?);
        if history.len() > BATCH_BYTES_MAX {
            return Err(BadBytes::TooLong { what: "history", got: history.len(), max: BATCH_BYTES_MAX });
        }
        Ok(Self { index, term, voters, outgoing, history })
    }

    /// What came of the log up to this entry.
    pub(super) fn of(history: &History, index: u64, term: u64) -> Self {
        let seats = |voters: &[Voter]| voters.iter().map(|voter| voter.seat).collect();
        let state = history.state();
        let (voters, outgoing) = (seats(state.voters()), seats(state.outgoing()));
        Self { index, term, voters, outgoing, history: history.since(0).encode().into() }
    }

    /// The history that the snapshot holds, verified.
    pub(super) fn history(&self) -> Result<History, super::BadStart> {
        let history = History::from_batch(&Batch::decode(&self.history)?)?;
        if *self != Self::of(&history, self.index, self.term) {
            return Err(super::BadStart::Durable("its snapshot has other voters than its history"));
        }
        Ok(history)
    }

    pub(super) fn conf(&self) -> ConfState {
        let (voters, voters_outgoing) = (self.voters.clone(), self.outgoing.clone());
        ConfState { voters, voters_outgoing, ..ConfState::default() }
    }

    pub(super) fn to_raft(&self) -> raft::eraftpb::Snapshot {
        let mut snapshot = raft::eraftpb::Snapshot { data: self.history.clone(), ..Default::default() };
        let metadata = snapshot.mut_metadata();
        metadata.index = self.index;
        metadata.term = self.term;
        metadata.set_conf_state(self.conf());
        snapshot
    }

    pub(super) fn from_raft(snapshot: &raft::eraftpb::Snapshot) -> Self {
        let metadata = snapshot.get_metadata();
        let conf = metadata.get_conf_state();
        let (voters, outgoing) = (conf.voters.clone(), conf.voters_outgoing.clone());
        Self { index: metadata.index, term: metadata.term, voters, outgoing, history: snapshot.data.clone() }
    }
}

/// Seats, rising: so a snapshot has one form.
fn read_seats(from: &mut Reader<'_>) -> Result<Vec<u64>, BadBytes> {
    let seats = from.list(8, Reader::u64)?;
    if seats.len() > VOTERS_MAX {
        return Err(BadBytes::TooLong { what: "list of seats", got: seats.len(), max: VOTERS_MAX });
    }
    if seats.first() == Some(&0) || !seats.is_sorted_by(|one, next| one < next) {
        return Err(BadBytes::Order("seats"));
    }
    Ok(seats)
}
