//! What came of an operator's command, as the wire says it.

use serde::{Deserialize, Serialize};

use super::frame::FRAME_PAYLOAD_MAX;
use crate::core::CommandRefused;
use crate::log::VOTERS_MAX;
use crate::rebalance::{Answer, Forecast, Refused};
use crate::{NodeId, VolumeShare};

/// The most volumes of which a forecast tells: those that change most.
pub const SHARES_MAX: usize = 8_192;
/// The most sentences of a forecast.
pub const SENTENCES_MAX: usize = 256;
/// The most bytes of a sentence; it is cut there.
pub(super) const SENTENCE_BYTES_MAX: usize = 1_024;
/// The bytes of a volume's share: its names, then numbers.
const SHARE_BYTES: usize = 16 + 32 + 2 * 4 + 4 * 8;

const _: () = assert!(SHARES_MAX * SHARE_BYTES + SENTENCES_MAX * (8 + SENTENCE_BYTES_MAX) + 128 <= FRAME_PAYLOAD_MAX);

/// A node's answer to [`Command`](super::Message::Command). The order is part of the wire format: append only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CommandAnswer {
    /// It is done at this epoch. What it moves is still to move.
    Done {
        /// The epoch.
        epoch: u64,
    },
    /// What it would do. Nothing was done.
    Forecast(ForecastReport),
    /// Give it to the node that leads the map's log.
    NotLeader {
        /// Which does, if this node knows.
        leader: Option<NodeId>,
        /// Those of which one may; at most 7.
        voters: Vec<NodeId>,
        /// Whether some of it, or all, may be done: this node led when it was given, and proposed a record of it.
        begun: bool,
    },
    /// It was not carried out.
    Refused {
        /// What the operator does about it.
        kind: RefusalKind,
        /// Why, for people.
        why: String,
    },
    /// It was not decided in time. It may yet be.
    Undecided,
}

/// What an operator does about a refusal. The order is part of the wire format: append only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// Ask for something else.
    Never,
    /// Ask again; some of it may be done.
    Again,
    /// Drain it first, and wait.
    NotDrained,
    /// The cluster has no log: it cannot be changed while it runs.
    NoLog,
    /// The asker may not.
    Forbidden,
    /// What it names is not in the map, or there is no such token. Where it may have been begun before and is to remove just that, it is done.
    Missing,
}

/// What a command would do, from where the copies are now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForecastReport {
    /// The parts of volumes before and after, of those that change; those that change most, by the copies that come or
    /// go, where there are more than [`SHARES_MAX`].
    pub shares: Vec<VolumeShare>,
    /// How many more volumes change.
    pub shares_left_out: u64,
    /// Bytes that would travel. An estimate from what the node that leads has itself; 0 where it has nothing yet.
    pub bytes_to_move: u128,
    /// What any fair placement would have to move.
    pub bytes_unavoidable: u128,
    /// What the policy and the weights ask and would not get, one sentence each, the gravest first; [`SENTENCES_MAX`] at
    /// most.
    pub unmet: Vec<String>,
}

impl ForecastReport {
    fn of(forecast: &Forecast) -> Self {
        let changes = |share: &&VolumeShare| share.copies_before != share.copies_after || share.bytes_arriving > 0;
        let mut shares: Vec<VolumeShare> = forecast.shares.iter().filter(changes).cloned().collect();
        let left_out = shares.len().saturating_sub(SHARES_MAX);
        if left_out > 0 {
            shares.sort_by_key(|share| std::cmp::Reverse(share.copies_before.abs_diff(share.copies_after)));
            shares.truncate(SHARES_MAX);
        }
        Self {
            shares,
            shares_left_out: left_out as u64,
            bytes_to_move: forecast.bytes_to_move,
            bytes_unavoidable: forecast.bytes_unavoidable,
            unmet: forecast.unmet.iter().take(SENTENCES_MAX).map(|unmet| sentence(unmet.to_string())).collect(),
        }
    }
}

impl CommandAnswer {
    /// What a core answered.
    #[must_use]
    pub fn of(result: &Result<Answer, CommandRefused>) -> Self {
        match result {
            Ok(Answer::Done { epoch }) => Self::Done { epoch: *epoch },
            Ok(Answer::Forecast(forecast)) => Self::Forecast(ForecastReport::of(forecast)),
            Err(CommandRefused::NotLeader { leader, voters, begun }) => Self::NotLeader {
                leader: *leader,
                voters: voters.iter().take(VOTERS_MAX).copied().collect(),
                begun: *begun,
            },
            Err(why) => Self::refused(kind(why), why.to_string()),
        }
    }

    /// A refusal; a text that is too long is cut.
    #[must_use]
    pub fn refused(kind: RefusalKind, why: String) -> Self {
        Self::Refused { kind, why: sentence(why) }
    }

    /// Which of its lists or texts is longer than it may be, and how long.
    pub(super) fn beyond_limit(&self) -> Option<(&'static str, usize)> {
        let beyond = |holds: bool, field, got| (!holds).then_some((field, got));
        match self {
            Self::Done { .. } | Self::Undecided => None,
            Self::NotLeader { voters, .. } => beyond(voters.len() <= VOTERS_MAX, "the number of voters", voters.len()),
            Self::Refused { why, .. } => beyond(why.len() <= SENTENCE_BYTES_MAX, "the text's length", why.len()),
            Self::Forecast(ForecastReport { shares, unmet, .. }) => {
                let longest = unmet.iter().map(String::len).max().unwrap_or(0);
                beyond(shares.len() <= SHARES_MAX, "the number of volumes", shares.len())
                    .or_else(|| beyond(unmet.len() <= SENTENCES_MAX, "the number of sentences", unmet.len()))
                    .or_else(|| beyond(longest <= SENTENCE_BYTES_MAX, "a sentence's length", longest))
            }
        }
    }
}

fn kind(why: &CommandRefused) -> RefusalKind {
    match why {
        CommandRefused::Planner(
            Refused::Busy | Refused::Overtaken | Refused::Unheard(_) | Refused::Unspoken { .. },
        ) => RefusalKind::Again,
        CommandRefused::Planner(Refused::NotDrained { .. }) => RefusalKind::NotDrained,
        CommandRefused::Planner(Refused::NoNode(_) | Refused::NoVolume(_) | Refused::NoToken) => RefusalKind::Missing,
        _ => RefusalKind::Never,
    }
}

/// The text, cut where it is too long.
pub(crate) fn sentence(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(SENTENCE_BYTES_MAX));
    text
}
