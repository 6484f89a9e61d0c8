//! The tokens by which nodes join: which there are is a record, and so is the use of one, with the node that it brings.

use super::effect::Refused;
use crate::TokenName;
use crate::log::{Change, State, TOKENS_MAX, Token};

/// Those that have not expired at `time_ms`.
fn living(state: &State, time_ms: u64) -> Vec<Token> {
    let tokens = state.tokens().iter().map(|(name, until_ms)| Token { name: *name, until_ms: *until_ms });
    tokens.filter(|token| token.until_ms > time_ms).collect()
}

/// Whether one more can be made.
pub(super) fn may_make(state: &State, name: &TokenName, time_ms: u64) -> Result<(), Refused> {
    let is_there = state.tokens().contains_key(name);
    if is_there || living(state, time_ms).len() < TOKENS_MAX { Ok(()) } else { Err(Refused::Tokens) }
}

/// The record by which there is one more; none where it is there. Those that have expired are forgotten by it.
pub(super) fn make(state: &State, name: TokenName, until_ms: u64, time_ms: u64) -> Option<Change> {
    if state.tokens().contains_key(&name) {
        return None;
    }
    let mut tokens = living(state, time_ms);
    tokens.push(Token { name, until_ms });
    Some(Change::SetTokens(tokens))
}

/// The record by which there are none any more.
pub(super) fn revoke(state: &State) -> Option<Change> {
    (!state.tokens().is_empty()).then(|| Change::SetTokens(Vec::new()))
}

/// Whether a node may come by this one.
pub(super) fn may_use(state: &State, name: &TokenName, time_ms: u64) -> Result<(), Refused> {
    match state.tokens().get(name) {
        None => Err(Refused::NoToken),
        Some(until_ms) if *until_ms <= time_ms => Err(Refused::TokenExpired),
        Some(_) => Ok(()),
    }
}
