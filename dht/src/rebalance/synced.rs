//! What a new holder tells the voter that leads: it has what the old holders have.

use deadwax_track::Partition;

use crate::log::{BadBytes, Reader, Writer};
use crate::{Policy, VolumeId};

/// The version of a report's bytes. 1: the first.
const SYNCED_VERSION: u8 = 1;
/// The most partitions that one report may name.
pub const SYNCED_PARTITIONS_MAX: usize = 4_096;
/// The most bytes of a report.
const SYNCED_BYTES_MAX: usize = 1 + 8 + 16 + 4 + 2 * SYNCED_PARTITIONS_MAX;

/// A volume's word that it has all of some partitions which move to it: its digest was equal to that of
/// each old holder that is neither declared dead nor lost, and of [`old_holders_needed`], each compared after the transition began.
///
/// Sent to whoever leads, and sent again every few seconds until the transition is past its first stage: a report may
/// be lost, and a new leader knows of none.
///
/// ```text
/// version u8 │ epoch u64 │ volume 16 │ partitions: count u32, u16 each, rising
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Synced {
    /// Which volume. The receiver has checked that the sender's node has it.
    pub volume: VolumeId,
    /// The epoch that the sender was at when it compared. One from before the leader knew the transition does not
    /// count.
    pub epoch: u64,
    /// Which partitions, rising; at most [`SYNCED_PARTITIONS_MAX`].
    pub partitions: Vec<Partition>,
}

impl Synced {
    /// The report's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(SYNCED_VERSION);
        out.u64(self.epoch);
        out.volume(&self.volume);
        out.list(self.partitions.iter(), |out, partition| out.u16(partition.0));
        out.finish()
    }

    /// The report of these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut from = Reader::new(bytes, "report of synced partitions", SYNCED_BYTES_MAX)?;
        from.version(SYNCED_VERSION)?;
        let (epoch, volume) = (from.u64()?, from.volume()?);
        let partitions = from.list(2, |from| from.u16().map(Partition))?;
        if partitions.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(BadBytes::Order("partitions"));
        }
        from.finish()?;
        Ok(Self { volume, epoch, partitions })
    }
}

/// With how many of its `old` holders, of which `dead` are declared dead, a new holder must at least have found its digest
/// equal before it is synced: any so many have one in common with every write quorum. Where fewer are left, all that are.
#[must_use]
pub fn old_holders_needed(policy: &Policy, old: usize, dead: usize) -> usize {
    usize::from(policy.copies - policy.write_quorum + 1).min(old.saturating_sub(dead))
}
