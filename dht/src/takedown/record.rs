//! One takedown, signed, in its fixed 256 bytes.

use deadwax_track::TrackId;
use ed25519_dalek::{Signature, VerifyingKey};

use crate::log::{BadBytes, Reader, Writer};
use crate::{ClusterId, NodeKey};

/// The version of a takedown's bytes. 1: the first.
const VERSION: u8 = 1;
/// What a signature is for comes before what is signed, so that none made for something else passes here.
const SIGNED_FOR: &[u8; 16] = b"deadwax takedown";
/// The bytes before the signature.
const SIGNED_BYTES: usize = 192;
/// The size of a takedown: a driver finds the one of slot s at s times this in its file.
pub const TAKEDOWN_BYTES: usize = 256;
/// The most bytes of a reason, as UTF-8.
pub const REASON_BYTES_MAX: usize = 78;

const _: () = assert!(1 + 1 + 32 + 8 + 32 + 32 + 8 + REASON_BYTES_MAX == SIGNED_BYTES);
const _: () = assert!(SIGNED_BYTES + 64 == TAKEDOWN_BYTES);

/// What a takedown is called: numbers count for each issuer alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name {
    /// Counts the issuer's takedowns; the first is 1.
    pub number: u64,
    /// The issuer's public key.
    pub issuer: [u8; 32],
}

/// The low bits of a takedown's number in the cluster: its number in the issuer's chain.
const CHAIN_BITS: u32 = 32;
/// The bits above them: the issuer's tag. Together 53, so that a reader of JSON whose numbers are floats has it exact.
const TAG_BITS: u32 = 21;

const _: () = assert!(CHAIN_BITS + TAG_BITS == f64::MANTISSA_DIGITS);

impl Name {
    /// The takedown's number in the cluster, as people and programs see it: the issuer's tag times 2^32, plus the number in
    /// its chain. It is stable, and the same on every node. The tag is the first 21 bits of BLAKE3 of the issuer's key:
    /// [`TakedownLog::allow`](super::TakedownLog::allow) takes no two keys of one tag.
    #[must_use]
    pub fn in_cluster(&self) -> u64 {
        u64::from(tag(&self.issuer)) << CHAIN_BITS | self.number
    }
}

/// The tag of an issuer.
pub(super) fn tag(issuer: &[u8; 32]) -> u32 {
    let hash = blake3::hash(issuer);
    let first = hash.as_bytes().first_chunk().expect("4 of 32 bytes");
    u32::from_be_bytes(*first) >> (u32::BITS - TAG_BITS)
}

/// A track is to be served no more: who says so, chained to what the issuer said before.
///
/// ```text
/// version u8 │ reason length u8 │ issuer 32 │ number u64 │ previous 32 │ track 32 │ time u64 │ reason 78, zeros after
/// it │ signature 64, over "deadwax takedown" and the 192 bytes before it
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Takedown {
    /// The issuer's Ed25519 public key.
    pub issuer: [u8; 32],
    /// Counts the issuer's takedowns; the first is 1, and `u32::MAX` the last.
    pub number: u64,
    /// BLAKE3 of the predecessor's 256 bytes; [`Takedown::root`] in the first.
    pub previous: [u8; 32],
    /// Which track.
    pub track: TrackId,
    /// When, in milliseconds since 1970, by the issuer's clock. For people; nothing is decided by it.
    pub time: u64,
    /// Why: at most [`REASON_BYTES_MAX`] bytes.
    pub reason: String,
    /// Ed25519 (RFC 8032, section 5.1.6). It covers the predecessors through `previous`, signatures and all.
    pub signature: [u8; 64],
}

impl Takedown {
    /// What the first record of `issuer` calls `previous`: a chain of one cluster means nothing in another.
    #[must_use]
    pub fn root(cluster: &ClusterId, issuer: &[u8; 32]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(SIGNED_FOR).update(cluster.as_bytes()).update(issuer);
        *hasher.finalize().as_bytes()
    }

    /// A takedown signed by `key`; its own `issuer` and `signature` do not count.
    ///
    /// # Panics
    ///
    /// When the reason is longer than [`REASON_BYTES_MAX`].
    #[must_use]
    pub fn sign(mut self, key: &NodeKey) -> Self {
        self.issuer = key.public();
        self.signature = key.sign(&self.signed());
        self
    }

    /// What it is called.
    #[must_use]
    pub const fn name(&self) -> Name {
        Name { number: self.number, issuer: self.issuer }
    }

    fn signed(&self) -> Vec<u8> {
        [&SIGNED_FOR[..], &self.encode()[..SIGNED_BYTES]].concat()
    }

    /// Whether the signature is `key`'s; points of small order are refused, so that all nodes decide alike.
    pub(super) fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        key.verify_strict(&self.signed(), &Signature::from_bytes(&self.signature)).is_ok()
    }

    /// BLAKE3 of the bytes: what its successor calls `previous`.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.encode()).as_bytes()
    }

    /// The takedown's bytes.
    ///
    /// # Panics
    ///
    /// When the reason is longer than [`REASON_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self) -> [u8; TAKEDOWN_BYTES] {
        let (length, got) = (self.reason.len(), self.reason.len());
        assert!(length <= REASON_BYTES_MAX, "a reason has {got} bytes; the most is {REASON_BYTES_MAX}");
        let mut out = Writer::default();
        out.u8(VERSION);
        out.u8(u8::try_from(length).expect("checked above"));
        out.raw(&self.issuer);
        out.u64(self.number);
        out.raw(&self.previous);
        out.raw(self.track.as_bytes());
        out.u64(self.time);
        out.raw(self.reason.as_bytes());
        out.raw(&[0; REASON_BYTES_MAX][length..]);
        out.raw(&self.signature);
        out.finish().try_into().expect("the fields add up, see above")
    }

    /// The takedown of these [`TAKEDOWN_BYTES`] bytes. Its signature is not checked: [`TakedownLog::merge`] does that.
    ///
    /// [`TakedownLog::merge`]: super::TakedownLog::merge
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut from = Reader::new(bytes, "takedown", TAKEDOWN_BYTES)?;
        let takedown = Self::read(&mut from)?;
        from.finish()?;
        Ok(takedown)
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, BadBytes> {
        from.version(VERSION)?;
        let length = from.u8()?;
        let (issuer, number, previous) = (from.array()?, from.u64()?, from.array()?);
        let (track, time) = (TrackId::from_bytes(from.array()?), from.u64()?);
        let padded = from.raw(REASON_BYTES_MAX)?;
        let tag = |what, got| BadBytes::Tag { what, got };
        let (reason, rest) =
            padded.split_at_checked(usize::from(length)).ok_or_else(|| tag("a reason's length", length))?;
        if let Some(&got) = rest.iter().find(|byte| **byte != 0) {
            return Err(tag("what follows a reason", got));
        }
        let reason = std::str::from_utf8(reason).map_err(|_| BadBytes::Text)?.to_owned();
        Ok(Self { issuer, number, previous, track, time, reason, signature: from.array()? })
    }
}
