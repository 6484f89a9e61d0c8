//! The text of a token by which a node joins: what an operator carries from his machine to the new one.
//!
//! ```text
//! dwt1/SECRET/ID@HOST:PORT[,ID@HOST:PORT...]/CHECK
//! ```
//!
//! The secret is 32 hexadecimal digits. The nodes are those that vote, one of which decides: the new machine speaks to
//! nobody who has not the key of one of them. The check is the first 8 digits of the BLAKE3 of all before its slash, so
//! that a text that was not copied whole is told apart from a token that is of no use any more.

use std::fmt;
use std::str::FromStr;

use deadwax_dht::{NodeId, TokenSecret};
use deadwax_track::TrackId;

use crate::node_address::NodeAddress;

const KIND: &str = "dwt1";
const CHECK_DIGITS: usize = 8;

/// A token, and where it is of use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinToken {
    /// What is shown.
    pub secret: TokenSecret,
    /// To whom: nodes that vote, and their addresses. At least one.
    pub masters: Vec<(NodeId, String)>,
}

/// The text is no token.
#[derive(Debug, thiserror::Error)]
#[error("this is no token, or not all of one: copy it as `deadwax cluster token` printed it, from {KIND}/ to its end")]
pub struct BadJoinToken;

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node =
            |(id, address): &(NodeId, String)| NodeAddress { id: Some(*id), address: address.clone() }.to_string();
        let masters: Vec<String> = self.masters.iter().map(node).collect();
        let secret: String = self.secret.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let body = format!("{KIND}/{secret}/{}", masters.join(","));
        write!(f, "{body}/{}", check(&body))
    }
}

impl FromStr for JoinToken {
    type Err = BadJoinToken;

    fn from_str(text: &str) -> Result<Self, BadJoinToken> {
        let (body, got) = text.trim().rsplit_once('/').ok_or(BadJoinToken)?;
        let [KIND, secret, masters] = body.split('/').collect::<Vec<_>>()[..] else { return Err(BadJoinToken) };
        if got != check(body) {
            return Err(BadJoinToken);
        }
        let secret = secret.parse().map_err(|_| BadJoinToken)?;
        let node = |text: &str| {
            let NodeAddress { id, address } = text.parse().map_err(|_| BadJoinToken)?;
            Ok((id.ok_or(BadJoinToken)?, address))
        };
        Ok(Self { secret, masters: masters.split(',').map(node).collect::<Result<_, _>>()? })
    }
}

fn check(body: &str) -> String {
    TrackId::of(body.as_bytes()).to_string()[..CHECK_DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_copied_whole_or_not_at_all() {
        let master = |number: u8| (NodeId::from_bytes([number; 32]), format!("10.0.0.{number}:7881"));
        let token =
            JoinToken { secret: TokenSecret::from_bytes([0xab; 16]), masters: vec![master(1), master(2), master(3)] };
        let text = token.to_string();
        assert!(text.starts_with(&format!("dwt1/{}/{}@10.0.0.1:7881,", "ab".repeat(16), "01".repeat(32))), "{text}");
        assert_eq!(format!(" {text}\n").parse::<JoinToken>().expect("whole"), token);
        for cut in 0..text.len() {
            assert!(text[..cut].parse::<JoinToken>().is_err(), "cut at {cut}");
            let other = if text.as_bytes()[cut] == b'7' { "8" } else { "7" };
            let changed = format!("{}{other}{}", &text[..cut], &text[cut + 1..]);
            assert!(changed.parse::<JoinToken>().is_err(), "changed at {cut}");
        }
    }
}
