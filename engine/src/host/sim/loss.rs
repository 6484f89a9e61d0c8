//! What a power loss spares.

use super::Dice;

/// Decides for each thing that is not durable whether it survives.
pub(super) enum Loss<'a> {
    /// By chance. Some changes survive whole, some not at all, some in parts: `odds` are redrawn for each.
    Seeded { dice: &'a mut Dice, odds: u64 },
    /// By whoever enumerates: asked for a number below the one given.
    Chosen(&'a mut dyn FnMut(u64) -> u64),
}

/// What `odds` are parts of.
const ALWAYS: u64 = 8;

impl<'a> Loss<'a> {
    pub(super) fn seeded(dice: &'a mut Dice) -> Self {
        Self::Seeded { dice, odds: 0 }
    }

    /// The decisions that follow are about another change.
    pub(super) fn begin_change(&mut self) {
        if let Self::Seeded { dice, odds } = self {
            *odds = [0, 1, 4, ALWAYS - 1, ALWAYS, ALWAYS][dice.index(6)];
        }
    }

    /// Whether one more thing survives.
    pub(super) fn keeps(&mut self) -> bool {
        match self {
            Self::Seeded { odds: ALWAYS, .. } => true,
            Self::Seeded { odds: 0, .. } => false,
            Self::Seeded { dice, odds } => dice.roll(ALWAYS) < *odds,
            Self::Chosen(choose) => choose(2) == 1,
        }
    }

    /// How many of `most` survive.
    pub(super) fn of(&mut self, most: u64) -> u64 {
        match self {
            _ if most == 0 => 0,
            Self::Seeded { odds: ALWAYS, .. } => most,
            Self::Seeded { odds: 0, .. } => 0,
            Self::Seeded { dice, .. } => dice.roll(most + 1),
            Self::Chosen(choose) => choose(most + 1),
        }
    }
}
