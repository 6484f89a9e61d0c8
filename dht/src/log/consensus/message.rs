//! What voters say to each other, and which of it may come near Raft.

use raft::eraftpb::{Entry as RaftEntry, Message as RaftMessage, MessageType};
use raft::{RawNode, StateRole};

use super::super::MESSAGE_BYTES_MAX;
use super::super::codec::{BadBytes, Reader, Writer};
use super::durable::{Entry, Snapshot, read_entries};
use super::store::LogStore;

/// The version of a message's bytes. 1: the first.
const MESSAGE_VERSION: u8 = 1;

/// The kinds that voters send each other, by their bytes' tag. The crate has more: those for itself, and those that are
/// not used here; they have no bytes.
const KINDS: [(u8, MessageType); 9] = [
    (1, MessageType::MsgAppend),
    (2, MessageType::MsgAppendResponse),
    (3, MessageType::MsgRequestVote),
    (4, MessageType::MsgRequestVoteResponse),
    (5, MessageType::MsgSnapshot),
    (6, MessageType::MsgHeartbeat),
    (7, MessageType::MsgHeartbeatResponse),
    (8, MessageType::MsgRequestPreVote),
    (9, MessageType::MsgRequestPreVoteResponse),
];

/// The greatest term and index: no log comes so far, and what Raft adds to them does not overflow.
const NUMBER_MAX: u64 = 1 << 62;

/// A message from a voter to a voter.
///
/// ```text
/// version u8 │ kind u8 │ to, from, term, log term, index, commit, commit term, reject hint: u64 each
/// reject u8 │ entries: list │ snapshot: option
/// ```
///
/// Its bytes are our own: the crate's Protocol Buffers are not read from the network (their parser recurses without a
/// bound, RUSTSEC-2024-0437).
#[derive(Clone, PartialEq, Debug)]
pub struct Message(pub(super) RaftMessage);

impl Message {
    /// Whether its bytes can be told: it is one of [`KINDS`].
    pub(super) fn is_known(&self) -> bool {
        self.tag().is_some()
    }

    fn tag(&self) -> Option<u8> {
        KINDS.iter().find(|(_, kind)| *kind == self.0.msg_type).map(|(tag, _)| *tag)
    }

    /// The seat that it comes from.
    #[must_use]
    pub const fn from(&self) -> u64 {
        self.0.from
    }

    /// The message's bytes: at most [`MESSAGE_BYTES_MAX`]; a few hundred but for snapshots and records.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let message = &self.0;
        let mut out = Writer::default();
        out.u8(MESSAGE_VERSION);
        out.u8(self.tag().expect("checked when it was made"));
        let numbers = [message.to, message.from, message.term, message.log_term, message.index];
        numbers.into_iter().for_each(|number| out.u64(number));
        let numbers = [message.commit, message.commit_term, message.reject_hint];
        numbers.into_iter().for_each(|number| out.u64(number));
        out.bool(message.reject);
        out.list(message.entries.iter(), |out, entry| Entry::from_raft(entry).write(out));
        out.bool(message.has_snapshot());
        if message.has_snapshot() {
            Snapshot::from_raft(message.get_snapshot()).write(&mut out);
        }
        out.finish()
    }

    /// The message of these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut from = Reader::new(bytes, "message", MESSAGE_BYTES_MAX)?;
        from.version(MESSAGE_VERSION)?;
        let tag = from.u8()?;
        let kind = KINDS.iter().find(|(known, _)| *known == tag);
        let (_, kind) = *kind.ok_or(BadBytes::Tag { what: "message", got: tag })?;
        let mut message = RaftMessage::default();
        message.set_msg_type(kind);
        message.to = from.u64()?;
        message.from = from.u64()?;
        message.term = from.u64()?;
        message.log_term = from.u64()?;
        message.index = from.u64()?;
        message.commit = from.u64()?;
        message.commit_term = from.u64()?;
        message.reject_hint = from.u64()?;
        message.reject = from.bool("reject")?;
        let entries: Vec<RaftEntry> = read_entries(&mut from)?.iter().map(Entry::to_raft).collect();
        message.set_entries(entries.into());
        if from.bool("snapshot")? {
            message.set_snapshot(Snapshot::read(&mut from)?.to_raft());
        }
        from.finish()?;
        Ok(Self(message))
    }

    /// Whether Raft may take it. A good voter's message always passes; one that does not would meet an assertion in the
    /// crate, and the sender is faulty or has lost what it promised.
    pub(super) fn check(&self, raft: &RawNode<LogStore>) -> Result<(), &'static str> {
        let (message, log) = (&self.0, &raft.raft.raft_log);
        let last = log.last_index();
        if message.term == 0 {
            return Err("it has no term");
        }
        let numbers = [message.term, message.log_term, message.index, message.commit, message.commit_term];
        if numbers.into_iter().chain([message.reject_hint]).any(|number| number > NUMBER_MAX) {
            return Err("its numbers are too great");
        }
        match message.msg_type {
            MessageType::MsgAppend => check_append(message, raft),
            MessageType::MsgSnapshot => check_snapshot(message),
            _ if message.has_snapshot() || !message.entries.is_empty() => Err("it carries what it should not"),
            MessageType::MsgHeartbeat if message.term >= raft.raft.term && message.commit > last => {
                Err("it commits what is not here: this voter has lost a part of its log")
            }
            MessageType::MsgAppendResponse => {
                let current = message.term == raft.raft.term && raft.raft.state == StateRole::Leader;
                if current && !message.reject && message.index > last {
                    return Err("it has taken what was never sent");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn check_append(message: &RaftMessage, raft: &RawNode<LogStore>) -> Result<(), &'static str> {
    if message.has_snapshot() {
        return Err("it carries what it should not");
    }
    // Raft says term 0 of entries that it does not have, and would take such a message for one that fits.
    if (message.index == 0) != (message.log_term == 0) {
        return Err("it follows an entry without a term");
    }
    let (mut index, mut term) = (message.index, message.log_term);
    let log = &raft.raft.raft_log;
    for entry in &message.entries {
        if index.checked_add(1) != Some(entry.index) || entry.term < term || entry.term > message.term {
            return Err("its entries do not follow each other");
        }
        (index, term) = (entry.index, entry.term);
        let committed = entry.index <= log.committed && message.term >= raft.raft.term;
        if committed && log.term(entry.index).is_ok_and(|known| known != 0 && known != entry.term) {
            return Err("it changes what is committed");
        }
    }
    Ok(())
}

fn check_snapshot(message: &RaftMessage) -> Result<(), &'static str> {
    let metadata = message.get_snapshot().get_metadata();
    if !message.entries.is_empty() || metadata.index == 0 || metadata.get_conf_state().voters.is_empty() {
        return Err("it is no snapshot");
    }
    if metadata.term == 0 || metadata.term > message.term {
        return Err("its snapshot is of another time");
    }
    Ok(())
}
