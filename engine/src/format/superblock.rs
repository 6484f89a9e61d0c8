//! `volume.deadwax`: whose volume this is.
//!
//! ```text
//!  0  magic "DEADWAXV"   8  version u16   10  0 u16   12  crc u32   16  volume [16]   32  node [32]   64  0 ...4096
//! ```

use super::{BLOCK, Damage, array_at, check_envelope, put, seal_envelope, zero};
use crate::identity::{VolumeId, VolumeIdentity};

const MAGIC: &[u8; 8] = b"DEADWAXV";
/// The first layout.
const VERSION_1: u16 = 1;

pub(crate) struct Superblock(pub(crate) VolumeIdentity);

impl Superblock {
    pub(crate) fn encode(&self) -> [u8; BLOCK] {
        let mut bytes = [0; BLOCK];
        put(&mut bytes, 16, &self.0.volume.0);
        put(&mut bytes, 32, &self.0.node);
        seal_envelope(&mut bytes, MAGIC, VERSION_1);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        check_envelope(bytes, MAGIC, VERSION_1)?;
        if bytes.len() != BLOCK {
            return Err(Damage::Field("length"));
        }
        zero(&bytes[10..12], "reserved bytes")?;
        zero(&bytes[64..], "reserved bytes")?;
        Ok(Self(VolumeIdentity { volume: VolumeId(array_at(bytes, 16)), node: array_at(bytes, 32) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let identity = VolumeIdentity { volume: VolumeId([0x11; 16]), node: [0x22; 32] };
        let bytes = Superblock(identity).encode();
        assert_eq!(&bytes[..16], b"DEADWAXV\x01\0\0\0\x8d\xdd\x24\x2b", "{:02x?}", &bytes[..16]);
        assert_eq!(Superblock::decode(&bytes).expect("whole").0, identity);
    }

    #[test]
    fn another_version_and_every_flipped_bit_are_refused() {
        let identity = VolumeIdentity { volume: VolumeId([0x11; 16]), node: [0x22; 32] };
        let whole = Superblock(identity).encode();
        for bit in 0..BLOCK * 8 {
            let mut bytes = whole;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&bytes).is_err(), "bit {bit}");
        }
        let mut newer = whole;
        seal_envelope(&mut newer, MAGIC, 2);
        assert_eq!(Superblock::decode(&newer).err(), Some(Damage::Version(2)));
        assert_eq!(Superblock::decode(b"short").err(), Some(Damage::Absent));
    }
}
