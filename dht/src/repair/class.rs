//! Which want goes first.

use serde::{Deserialize, Serialize};

/// Why a volume should have a track that it lacks; in order of urgency among tracks of as many copies. The order is part of
/// the wire format: append only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Reason {
    /// The volume has the track, and a frame of it rotted.
    Rot,
    /// The volume is a holder and lacks it.
    Missing,
    /// The volume becomes a holder, as the partition moves.
    Moving,
    /// The volume is a holder, and one that is none has the track.
    Stray,
}

const REASONS: [Reason; 4] = [Reason::Rot, Reason::Missing, Reason::Moving, Reason::Stray];

/// From how many copies on more of them make no difference.
const COPIES_COUNTED: u8 = 3;

/// How many classes there are.
pub(super) const CLASSES: u8 = COPIES_COUNTED * 2 * 4;

/// A want's place: fewest copies first, then those of which a zone lacks a copy, then by reason. Lower goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Class(pub(super) u8);

impl Class {
    pub(super) fn of(copies: u8, zoneless: bool, reason: Reason) -> Self {
        let copies = copies.clamp(1, COPIES_COUNTED) - 1;
        Self(copies * 8 + u8::from(!zoneless) * 4 + reason as u8)
    }

    /// How many copies there are; [`COPIES_COUNTED`]: so many or more.
    pub(super) const fn copies(self) -> u8 {
        self.0 / 8 + 1
    }

    pub(super) const fn zoneless(self) -> bool {
        (self.0 / 4).is_multiple_of(2)
    }

    pub(super) const fn reason(self) -> Reason {
        REASONS[(self.0 % 4) as usize]
    }

    /// Whether losing one more copy, or one zone, loses the track.
    pub(super) const fn urgent(self) -> bool {
        self.copies() == 1 || self.zoneless()
    }

    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..CLASSES).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_says_what_it_was_made_of() {
        for copies in 1..=COPIES_COUNTED {
            for zoneless in [true, false] {
                for reason in REASONS {
                    let class = Class::of(copies, zoneless, reason);
                    assert_eq!((class.copies(), class.zoneless(), class.reason()), (copies, zoneless, reason));
                    assert_eq!(class.urgent(), copies == 1 || zoneless);
                }
            }
        }
        assert_eq!(Class::of(0, false, Reason::Rot), Class::of(1, false, Reason::Rot));
        assert_eq!(Class::of(9, false, Reason::Stray), Class(CLASSES - 1));
    }
}
