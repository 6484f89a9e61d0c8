//! What an epoch describes: the map, who votes, who is dead, which drives leave, which partitions move, at which version of
//! the protocol the cluster is finalised, and by which tokens nodes may join.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_track::Partition;

use super::change::Change;
use super::codec::{BadBytes, Reader, Writer};
use super::rules::BadChange;
use super::spec::{read_spec, write_spec};
use super::transition::{Holders, Transition, read_transitions, write_transitions};
use super::{STATE_BYTES_MAX, rules};
use crate::map::holders_in;
use crate::wire::PROTOCOL_OF_TOKENS;
use crate::{MapSpec, Node, NodeId, TokenName, VolumeId};

/// The version of a state's bytes. 1: with each list of volumes wherever it is meant; 2: with [numbers](super::lists); 3: with
/// refoundings.
const STATE_VERSION: u8 = 3;

/// A voter: a node, and the number of its seat.
///
/// A seat is given once. A node that stops voting and votes again later, perhaps with an empty drive, gets a new one:
/// what its earlier seat promised is not held against it, and cannot be broken by it. A process that finds no state for a
/// seat takes it only if it was given to this very process: an earlier one may have promised something in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Voter {
    /// The seat, from 1; Raft's name for the voter.
    pub seat: u64,
    /// Which node.
    pub node: NodeId,
    /// To which of the node's processes the seat was given: only this one begins with empty state. 0: to a founder, which
    /// has the state on its drive.
    pub life: u64,
}

/// Who is to vote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Which node.
    pub node: NodeId,
    /// The process that is to have the seat, if it is a new one: a node that votes already keeps what it has.
    pub life: u64,
}

impl Grant {
    pub(super) fn write(&self, out: &mut Writer) {
        out.node(&self.node);
        out.u64(self.life);
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, BadBytes> {
        Ok(Self { node: from.node()?, life: from.u64()? })
    }
}

/// A token by which a node may join that was not used yet. The log has no clock: whoever proposes its use asks his own
/// whether it has expired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// Which.
    pub name: TokenName,
    /// When it expires, in ms since 1970.
    pub until_ms: u64,
}

impl Token {
    pub(super) const BYTES: usize = 40;

    pub(super) fn write(&self, out: &mut Writer) {
        self.name.write(out);
        out.u64(self.until_ms);
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, BadBytes> {
        Ok(Self { name: TokenName::read(from)?, until_ms: from.u64()? })
    }
}

/// The cluster's description at one epoch. Equal on every node that is at that epoch: [`hash`](Self::hash) shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    pub(super) spec: MapSpec,
    /// By seat, rising.
    pub(super) voters: Vec<Voter>,
    /// Who voted before, while a change of voters is under way. By seat, rising.
    pub(super) outgoing: Vec<Voter>,
    /// The newest seat that was given.
    pub(super) seats: u64,
    /// At which version the cluster is finalised.
    pub(super) protocol: u8,
    pub(super) dead: BTreeSet<NodeId>,
    pub(super) leaving: BTreeSet<VolumeId>,
    pub(super) transitions: BTreeMap<Partition, Transition>,
    /// Those that were not used, and when each expires. Empty before the version that has them.
    pub(super) tokens: BTreeMap<TokenName, u64>,
    /// Rising.
    pub(super) refounded: Vec<Refounding>,
}

/// The log began anew, by [`Change::Refound`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refounding {
    /// By the record of this epoch.
    pub epoch: u64,
    /// Which this node wrote.
    pub node: NodeId,
}

impl State {
    /// The state that a genesis makes.
    pub(super) fn genesis(spec: &MapSpec, voters: &[NodeId], protocol: u8) -> Result<Self, BadChange> {
        let grants: Vec<Grant> = voters.iter().map(|node| Grant { node: *node, life: 0 }).collect();
        let empty = Self {
            spec: spec.clone(),
            voters: Vec::new(),
            outgoing: Vec::new(),
            seats: 0,
            protocol,
            dead: BTreeSet::new(),
            leaving: BTreeSet::new(),
            transitions: BTreeMap::new(),
            tokens: BTreeMap::new(),
            refounded: Vec::new(),
        };
        let mut state = rules::seat(empty, &grants)?;
        state.outgoing.clear();
        rules::check(&state)?;
        Ok(state)
    }

    /// The state after `change`, one epoch later; or which rule the change breaks.
    ///
    /// A pure function of the two: every node finds the same.
    pub fn after(&self, change: &Change) -> Result<Self, BadChange> {
        let mut state = rules::apply(self.clone(), change)?;
        if state == *self {
            return Err(BadChange::Nothing);
        }
        state.spec.epoch = self.spec.epoch.checked_add(1).ok_or(BadChange::Nothing)?;
        rules::check(&state)?;
        Ok(state)
    }

    /// The epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.spec.epoch
    }

    /// The map's values, checked. For partitions in transition ask [`holders`](Self::holders) and not the map.
    #[must_use]
    pub const fn spec(&self) -> &MapSpec {
        &self.spec
    }

    /// Who votes, by seat.
    #[must_use]
    pub fn voters(&self) -> &[Voter] {
        &self.voters
    }

    /// Who voted before, and votes still: until [`Change::SettleVoters`], decisions need a majority of these, too.
    #[must_use]
    pub fn outgoing(&self) -> &[Voter] {
        &self.outgoing
    }

    /// The seat of `node`, if it votes, or votes still.
    #[must_use]
    pub fn seat_of(&self, node: &NodeId) -> Option<u64> {
        self.voter(node).map(|voter| voter.seat)
    }

    /// `node` as a voter, if it votes, or votes still.
    #[must_use]
    pub fn voter(&self, node: &NodeId) -> Option<&Voter> {
        self.voters.iter().chain(&self.outgoing).find(|voter| voter.node == *node)
    }

    /// The newest seat that was given.
    #[must_use]
    pub const fn seats(&self) -> u64 {
        self.seats
    }

    /// The version of the protocol at which the cluster is finalised: what came later is neither in the log nor sent from
    /// node to node.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The nodes that were declared dead.
    #[must_use]
    pub const fn dead(&self) -> &BTreeSet<NodeId> {
        &self.dead
    }

    /// The volumes that are to be emptied: they hold what they hold, and nothing new comes to them.
    #[must_use]
    pub const fn leaving(&self) -> &BTreeSet<VolumeId> {
        &self.leaving
    }

    /// The transitions that are under way.
    #[must_use]
    pub const fn transitions(&self) -> &BTreeMap<Partition, Transition> {
        &self.transitions
    }

    /// The tokens that were not used yet, expired or not, and when each expires in ms since 1970.
    #[must_use]
    pub const fn tokens(&self) -> &BTreeMap<TokenName, u64> {
        &self.tokens
    }

    /// When the log began anew, and where, in order: none where its first voters, or those to whom these gave their seats,
    /// vote still.
    #[must_use]
    pub fn refounded(&self) -> &[Refounding] {
        &self.refounded
    }

    /// The name of the log as it was at `epoch`: two of one cluster that have different names parted at a refounding, and
    /// each has records that the other one's never get. 0 where it was not begun anew until then.
    #[must_use]
    pub fn line_at(&self, epoch: u64) -> u64 {
        // Every message has it, and most logs were never begun anew.
        if self.refounded.first().is_none_or(|first| first.epoch > epoch) {
            return 0;
        }
        let mut hasher = blake3::Hasher::new();
        for refounding in self.refounded.iter().filter(|each| each.epoch <= epoch) {
            hasher.update(&refounding.epoch.to_le_bytes());
            hasher.update(refounding.node.as_bytes());
        }
        u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("there are 32"))
    }

    /// Whether `later`, of a later epoch, can be of the same log: one that was begun anew since, if at all, and not before.
    #[must_use]
    pub fn may_lead_to(&self, later: &Self) -> bool {
        let since = later.refounded.strip_prefix(&*self.refounded);
        since.is_some_and(|since| since.iter().all(|each| each.epoch > self.epoch()))
    }

    /// Who holds `partition`: one set, or two while it moves. For a partition that does not move it places it anew
    /// (100 ns a volume): who asks often asks [`Map::holders`](crate::Map::holders), and this only for those in
    /// [`transitions`](Self::transitions).
    #[must_use]
    pub fn holders(&self, partition: Partition) -> Holders {
        match self.transitions.get(&partition) {
            Some(transition) => Holders::of(transition),
            None => Holders { first: holders_in(&self.spec, &[partition]).remove(0), second: None },
        }
    }

    /// Whether a write to `partition` that is durable on `durable` may be acknowledged under this state's policy.
    #[must_use]
    pub fn is_written(&self, partition: Partition, durable: &BTreeSet<VolumeId>) -> bool {
        let volumes = |node: &'_ Node| node.volumes.iter().map(|volume| volume.id).collect::<Vec<_>>();
        let zone = |node| volumes(node).into_iter().map(|volume| (volume, node.zone.as_str()));
        let zone_of: BTreeMap<VolumeId, &str> = self.spec.nodes.iter().flat_map(zone).collect();
        let policy = self.spec.policy;
        let (copies, zones) = (usize::from(policy.write_quorum), usize::from(policy.zones_min));
        self.holders(partition).is_written(durable, copies, zones, &zone_of)
    }

    /// BLAKE3 of the state's bytes, 32 bytes: what each record says of the state after it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.encode()).as_bytes()
    }

    /// The state's bytes: at most [`STATE_BYTES_MAX`] for one that [`after`](Self::after) made.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(STATE_VERSION);
        write_spec(&mut out, &self.spec);
        for voters in [&self.voters, &self.outgoing] {
            out.list(voters.iter(), |out, voter| {
                out.u64(voter.seat);
                out.node(&voter.node);
                out.u64(voter.life);
            });
        }
        out.u64(self.seats);
        out.u8(self.protocol);
        out.list(self.dead.iter(), Writer::node);
        out.list(self.leaving.iter(), Writer::volume);
        write_transitions(&mut out, &self.transitions);
        if self.protocol >= PROTOCOL_OF_TOKENS {
            let tokens = self.tokens.iter().map(|(name, until_ms)| Token { name: *name, until_ms: *until_ms });
            out.list(tokens, |out, token| token.write(out));
        }
        out.list(self.refounded.iter(), |out, refounding| {
            out.u64(refounding.epoch);
            out.node(&refounding.node);
        });
        out.finish()
    }

    /// The state of these bytes, with every rule checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadState> {
        let mut from = Reader::new(bytes, "state", STATE_BYTES_MAX)?;
        from.version(STATE_VERSION)?;
        let spec = read_spec(&mut from)?;
        let voter = |from: &mut Reader<'_>| Ok(Voter { seat: from.u64()?, node: from.node()?, life: from.u64()? });
        let (voters, outgoing) = (from.list(48, voter)?, from.list(48, voter)?);
        let (seats, protocol) = (from.u64()?, from.u8()?);
        let dead = rising("dead nodes", from.list(32, Reader::node)?.into_iter().map(|node| (node, ())))?;
        let leaving = rising("leaving volumes", from.list(16, Reader::volume)?.into_iter().map(|id| (id, ())))?;
        let transitions = rising("transitions", read_transitions(&mut from)?.into_iter())?;
        let tokens = match protocol {
            PROTOCOL_OF_TOKENS.. => from.list(Token::BYTES, Token::read)?,
            _ => Vec::new(),
        };
        let tokens = rising("tokens", tokens.into_iter().map(|token| (token.name, token.until_ms)))?;
        let refounded = from.list(40, |from| Ok(Refounding { epoch: from.u64()?, node: from.node()? }))?;
        from.finish()?;
        let (dead, leaving) = (dead.into_keys().collect(), leaving.into_keys().collect());
        let state = Self { spec, voters, outgoing, seats, protocol, dead, leaving, transitions, tokens, refounded };
        rules::check(&state)?;
        Ok(state)
    }
}

fn rising<K: Ord + Copy, V>(
    what: &'static str,
    items: impl Iterator<Item = (K, V)>,
) -> Result<BTreeMap<K, V>, BadBytes> {
    let mut map = BTreeMap::new();
    for (key, value) in items {
        if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(BadBytes::Order(what));
        }
        map.insert(key, value);
    }
    Ok(map)
}

/// The bytes are no state, or one that breaks a rule.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says what its field is")]
pub enum BadState {
    #[error(transparent)]
    Bytes(#[from] BadBytes),
    #[error(transparent)]
    Rule(#[from] BadChange),
}
