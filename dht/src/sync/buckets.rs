//! How two lists of ids of one partition are compared without sending them: by the digests of ranges of them.
//!
//! With `n` ids and one that differs, `n / 32` digests and some 32 short forms go over the wire, of 8 bytes each: 630
//! bytes for 1,500 ids, where the list would be 12,000.

use deadwax_track::TrackId;

use super::message::BITS_MAX;
use super::{IDS_SENT_MAX, SHORTS_MAX};
use crate::random::mix;

/// How many ids a bucket has on average, at most, until there are as many buckets as may be.
const BUCKET_IDS: usize = 32;

/// The id in 8 bytes. Two of a million ids have the same short form once in 40 million cases, and with the next salt
/// not again.
pub(super) fn short(id: &TrackId, salt: u64) -> u64 {
    let (words, _) = id.as_bytes().as_chunks::<8>();
    words.iter().fold(mix(salt), |short, word| mix(short ^ u64::from_le_bytes(*word)))
}

pub(super) fn bits(ids: usize) -> u8 {
    (0..BITS_MAX).find(|bits| ids >> bits <= BUCKET_IDS).unwrap_or(BITS_MAX)
}

fn bucket(id: &TrackId, bits: u8) -> u16 {
    let bytes = id.as_bytes();
    let digits = u32::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    u16::try_from(digits >> (16 - bits)).expect("16 bits at most")
}

pub(super) fn digests(ids: &[TrackId], salt: u64, bits: u8) -> Vec<u64> {
    let mut digests = vec![0; 1 << bits];
    for id in ids {
        digests[usize::from(bucket(id, bits))] ^= short(id, salt);
    }
    digests
}

/// The buckets of `ids` that have other digests, and the short forms in them. Ids rise, and so their buckets; what is
/// over [`SHORTS_MAX`] is left to a later exchange.
pub(super) fn differing(ids: &[TrackId], salt: u64, digests: &[u64]) -> (u8, Vec<u16>, Vec<u64>) {
    let bits = u8::try_from(digests.len().trailing_zeros()).expect("64 at most");
    let own = self::digests(ids, salt, bits);
    let (mut buckets, mut shorts) = (Vec::new(), Vec::new());
    for (index, _) in own.iter().zip(digests).enumerate().filter(|(_, (own, other))| own != other) {
        let number = u16::try_from(index).expect("2^BITS_MAX buckets at most");
        let of = |id: &&TrackId| bucket(id, bits) == number;
        let start = ids.partition_point(|id| bucket(id, bits) < number);
        let added: Vec<u64> = ids[start..].iter().take_while(of).map(|id| short(id, salt)).collect();
        if shorts.len() + added.len() > SHORTS_MAX && !buckets.is_empty() {
            break;
        }
        buckets.push(number);
        shorts.extend(added);
    }
    shorts.sort_unstable();
    shorts.dedup();
    shorts.truncate(SHORTS_MAX);
    (bits, buckets, shorts)
}

/// Which ids in `buckets` are not among `shorts`, and which of these are not among the ids.
pub(super) fn difference(
    ids: &[TrackId],
    salt: u64,
    bits: u8,
    buckets: &[u16],
    shorts: &[u64],
) -> (Vec<TrackId>, Vec<u64>) {
    let mut found = vec![false; shorts.len()];
    let mut only_here = Vec::new();
    for id in ids.iter().filter(|id| buckets.binary_search(&bucket(id, bits)).is_ok()) {
        match shorts.binary_search(&short(id, salt)) {
            Ok(at) => found[at] = true,
            Err(_) if only_here.len() < IDS_SENT_MAX => only_here.push(*id),
            Err(_) => {}
        }
    }
    let only_there = shorts.iter().zip(found).filter(|(_, found)| !found).map(|(short, _)| *short);
    (only_here, only_there.collect())
}
