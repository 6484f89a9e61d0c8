//! Proof, copy by copy, that what was taken down is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use deadwax_track::TrackId;
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::{COPIES_MAX, OPEN_MAX};
use crate::log::{BadBytes, Reader, Writer};
use crate::{NodeId, NodeKey, VolumeId};

/// The version of a receipt's bytes. 1: the first.
const VERSION: u8 = 1;
/// What the signature is for.
const SIGNED_FOR: &[u8; 15] = b"deadwax receipt";

/// A node's word that a volume has no copy of a track any more, punched and flushed, or never had one.
///
/// ```text
/// version u8 │ track 32 │ volume 16 │ node's key 32 │ time u64 │ signature 64, over "deadwax receipt" and what is before it
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// Which track.
    pub track: TrackId,
    /// Which volume.
    pub volume: VolumeId,
    /// The public key of the node that the volume is in.
    pub key: [u8; 32],
    /// When, in milliseconds since 1970, by that node's clock. For people.
    pub time: u64,
    /// Ed25519 (RFC 8032).
    pub signature: [u8; 64],
}

impl Receipt {
    /// The size of a receipt's bytes.
    pub const BYTES: usize = 153;

    /// A receipt signed by the node with this key.
    #[must_use]
    pub fn sign(key: &NodeKey, track: TrackId, volume: VolumeId, time: u64) -> Self {
        let mut receipt = Self { track, volume, key: key.public(), time, signature: [0; 64] };
        receipt.signature = key.sign(&receipt.signed());
        receipt
    }

    fn signed(&self) -> Vec<u8> {
        [&SIGNED_FOR[..], &self.encode()[..Self::BYTES - 64]].concat()
    }

    /// The node that signed it, if the signature is good.
    #[must_use]
    pub fn signer(&self) -> Option<NodeId> {
        let key = VerifyingKey::from_bytes(&self.key).ok()?;
        key.verify_strict(&self.signed(), &Signature::from_bytes(&self.signature)).ok()?;
        Some(NodeId::from_bytes(*blake3::hash(&self.key).as_bytes()))
    }

    /// The receipt's [`Receipt::BYTES`] bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.raw(self.track.as_bytes());
        out.volume(&self.volume);
        out.raw(&self.key);
        out.u64(self.time);
        out.raw(&self.signature);
        out.finish()
    }

    /// The receipt of these bytes. Its signature is not checked: [`Receipts::take`] does that.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut from = Reader::new(bytes, "receipt", Self::BYTES)?;
        from.version(VERSION)?;
        let (track, volume) = (TrackId::from_bytes(from.array()?), from.volume()?);
        let receipt = Self { track, volume, key: from.array()?, time: from.u64()?, signature: from.array()? };
        from.finish()?;
        Ok(receipt)
    }
}

/// Why a receipt was not taken, or copies not followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadReceipt {
    /// The signature is bad, or not by the node that has the volume.
    #[error("receipt is not signed by the volume's node")]
    Signature,
    /// Nobody waits for a receipt of that copy.
    #[error("no receipt is awaited for that copy")]
    Unknown,
    /// [`OPEN_MAX`] tracks are open: finish some first.
    #[error("receipts of {OPEN_MAX} tracks are awaited already")]
    Busy,
    /// More than [`COPIES_MAX`] copies of one track.
    #[error("more than {COPIES_MAX} copies of one track")]
    Copies,
}

/// What is known of a copy. The order is part of the wire format: append only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CopyState {
    /// Its node was not asked yet, or has not answered.
    Pending,
    /// Its node cannot be reached: the copy is there for all that is known, and its node is stale.
    Unreachable,
    /// Its volume is declared dead: nobody will read it again, or else it is what its node is.
    Dead,
    /// Gone, says its node: at this time, in milliseconds since 1970.
    Erased(u64),
}

impl CopyState {
    /// Whether nothing more is awaited.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        matches!(self, Self::Dead | Self::Erased(_))
    }

    const fn judged(self, dead: bool) -> Self {
        match (self, dead) {
            (Self::Erased(time), _) => Self::Erased(time),
            (_, true) => Self::Dead,
            (_, false) => Self::Pending,
        }
    }
}

/// How far one track's takedown is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Progress {
    /// Copies of which nothing is known yet.
    pub pending: usize,
    /// Copies whose nodes cannot be reached.
    pub unreachable: usize,
    /// Copies on volumes declared dead.
    pub dead: usize,
    /// Copies erased.
    pub erased: usize,
}

impl Progress {
    /// Whether every copy is erased or dead.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.pending == 0 && self.unreachable == 0
    }
}

#[derive(Clone, Copy, Debug)]
struct Copy {
    node: NodeId,
    /// Not `Unreachable`: that is a matter of its node.
    state: CopyState,
}

/// The copies of tracks taken down, at the node that answers for them. At most [`OPEN_MAX`] tracks of [`COPIES_MAX`]
/// copies, in memory alone: [`close`](Self::close) forgets complete ones, and after a restart all copies are asked for anew.
#[derive(Clone, Default, Debug)]
pub struct Receipts {
    open: BTreeMap<TrackId, BTreeMap<VolumeId, Copy>>,
    unreachable: BTreeSet<NodeId>,
}

impl Receipts {
    /// Follows copies of `track` beside those that it follows already: all volumes, with their nodes, that held it at
    /// any epoch since it was put, stand-ins too. To be called again at each epoch that gives it other holders.
    pub fn expect(&mut self, track: TrackId, copies: &[(VolumeId, NodeId)]) -> Result<(), BadReceipt> {
        if !self.open.contains_key(&track) && self.open.len() >= OPEN_MAX {
            return Err(BadReceipt::Busy);
        }
        let known = self.open.get(&track);
        let new = copies.iter().filter(|(volume, _)| known.is_none_or(|known| !known.contains_key(volume))).count();
        if known.map_or(0, BTreeMap::len) + new > COPIES_MAX {
            return Err(BadReceipt::Copies);
        }
        let known = self.open.entry(track).or_default();
        for (volume, node) in copies {
            // A drive that was moved to another node is receipted by that one.
            known.entry(*volume).or_insert(Copy { node: *node, state: CopyState::Pending }).node = *node;
        }
        Ok(())
    }

    /// Takes a receipt, verified. The first of a copy stays.
    pub fn take(&mut self, receipt: &Receipt) -> Result<(), BadReceipt> {
        let copy = self.open.get_mut(&receipt.track).and_then(|copies| copies.get_mut(&receipt.volume));
        let copy = copy.ok_or(BadReceipt::Unknown)?;
        if receipt.signer() != Some(copy.node) {
            return Err(BadReceipt::Signature);
        }
        if !matches!(copy.state, CopyState::Erased(_)) {
            copy.state = CopyState::Erased(receipt.time);
        }
        Ok(())
    }

    /// A node was asked in vain, or can be reached again: so are all of its copies.
    pub fn set_reachable(&mut self, node: &NodeId, reachable: bool) {
        if reachable {
            self.unreachable.remove(node)
        } else {
            self.unreachable.insert(*node)
        };
    }

    /// Forgets all nodes but these, those of the map.
    pub fn keep_nodes<'a>(&mut self, nodes: impl Iterator<Item = &'a NodeId>) {
        if !self.unreachable.is_empty() {
            self.unreachable = nodes.filter(|node| self.unreachable.contains(*node)).copied().collect();
        }
    }

    /// Follows nothing any more.
    pub fn clear(&mut self) {
        self.open.clear();
    }

    /// A volume was declared dead, or has come back after all.
    pub fn set_dead(&mut self, volume: &VolumeId, dead: bool) {
        for copy in self.open.values_mut().filter_map(|copies| copies.get_mut(volume)) {
            copy.state = copy.state.judged(dead);
        }
    }

    /// Says of each copy of a track whether its volume is dead, by the newest map.
    pub fn judge(&mut self, track: &TrackId, is_dead: impl Fn(&VolumeId) -> bool) {
        for (volume, copy) in self.open.get_mut(track).into_iter().flatten() {
            copy.state = copy.state.judged(is_dead(volume));
        }
    }

    /// How many tracks are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// How far the track is; none where it is not open.
    #[must_use]
    pub fn progress(&self, track: &TrackId) -> Option<Progress> {
        self.open.get(track).map(|copies| self.count(copies))
    }

    /// At most `limit` open tracks after `after` (from the first: none), with how far each is. The last one's id is
    /// where the next page begins.
    #[must_use]
    pub fn page(&self, after: Option<&TrackId>, limit: usize) -> Vec<(TrackId, Progress)> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after));
        let tracks = self.open.range((from, Bound::Unbounded)).take(limit);
        tracks.map(|(track, copies)| (*track, self.count(copies))).collect()
    }

    fn state(&self, copy: &Copy) -> CopyState {
        let away = copy.state == CopyState::Pending && self.unreachable.contains(&copy.node);
        if away { CopyState::Unreachable } else { copy.state }
    }

    fn count(&self, copies: &BTreeMap<VolumeId, Copy>) -> Progress {
        let mut progress = Progress::default();
        for copy in copies.values() {
            *match self.state(copy) {
                CopyState::Pending => &mut progress.pending,
                CopyState::Unreachable => &mut progress.unreachable,
                CopyState::Dead => &mut progress.dead,
                CopyState::Erased(_) => &mut progress.erased,
            } += 1;
        }
        progress
    }

    /// The copies of a track, at most [`COPIES_MAX`].
    pub fn copies(&self, track: &TrackId) -> impl Iterator<Item = (VolumeId, NodeId, CopyState)> {
        let copies = self.open.get(track).into_iter().flatten();
        copies.map(|(volume, copy)| (*volume, copy.node, self.state(copy)))
    }

    /// Forgets a complete track, with its receipts. Says whether it was complete. If it has holders again later,
    /// [`expect`](Self::expect) opens it anew.
    pub fn close(&mut self, track: &TrackId) -> bool {
        let complete = self.progress(track).is_some_and(|progress| progress.is_complete());
        complete && self.open.remove(track).is_some()
    }
}
