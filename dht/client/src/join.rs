//! A node that joins a cluster by a token: before it is in the map nobody answers it anything else.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use deadwax_dht::rebalance::Refused;
use deadwax_dht::wire::{Admits, CommandAnswer, ErrorCode, Joining, Message, RefusalKind};
use deadwax_dht::{Node, NodeId, TokenSecret};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::command::{AGAIN, SLACK};
use crate::connection::{Connection, unexpected};
use crate::error::{HolderFailure, Holders};
use crate::read::failure;
use crate::{Client, ClientConfig, CommandError};

/// Of so many nodes that keep the log, most: what they do not know of, the log never had, or has no more.
const fn most(nodes: usize) -> usize {
    nodes / 2 + 1
}

/// A node that is in the map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joined {
    /// Since this epoch, or an earlier one.
    pub epoch: u64,
    /// The node that says so.
    pub by: NodeId,
    /// Its address.
    pub address: String,
}

/// What one node said.
enum Said {
    Done(u64),
    /// Another leads.
    NotLeader(Option<NodeId>),
    /// It knows no such token. One that lags may not know it yet.
    NoToken(String),
    /// It leads, and says no.
    Refused(RefusalKind, String),
    /// It was not shown the token, or cannot use it now.
    Silent(String),
    /// It was, and nobody knows what came of it.
    Unsure(String),
}

impl Client {
    /// Has a cluster take `node` into its map, by a token that one who may command has made. `config` has the node's own
    /// identity; `masters` are nodes that vote, by their names, as the token says: nobody else is spoken to. Shown again by
    /// the same node it answers the same, also where the token was used up meanwhile.
    ///
    /// # Errors
    /// [`Refused`](CommandError::Refused): the token was used, has expired, was revoked, or the node cannot be in the map.
    /// [`NoLeader`](CommandError::NoLeader), [`Unknown`](CommandError::Unknown): nobody that could say was found in
    /// [`command_ms`](ClientConfig::command_ms), or what came of it is not known; it may be shown again.
    pub async fn join(
        secret: &TokenSecret,
        masters: &[(NodeId, String)],
        node: &Node,
        config: &ClientConfig,
    ) -> Result<Joined, CommandError> {
        let until = Instant::now() + Duration::from_millis(config.command_ms);
        let mut unsure = None;
        loop {
            let (mut failures, mut unknown) = (Vec::new(), 0);
            let mut next: VecDeque<&NodeId> = masters.iter().map(|(id, _)| id).collect();
            let mut asked = BTreeSet::new();
            while let Some(id) = next.pop_front() {
                let Some((by, address)) = masters.iter().find(|(other, _)| other == id) else { continue };
                if !asked.insert(*by) {
                    continue;
                }
                let why = match show(secret, (by, address), node, config, until).await {
                    Said::Done(epoch) => return Ok(Joined { epoch, by: *by, address: address.clone() }),
                    Said::Refused(kind, why) => return Err(CommandError::Refused { kind, why }),
                    Said::NoToken(why) => {
                        unknown += 1;
                        if unknown >= most(masters.len()) {
                            return Err(CommandError::Refused { kind: RefusalKind::Missing, why });
                        }
                        why
                    }
                    Said::NotLeader(leader) => {
                        let known = masters.iter().find(|(id, _)| Some(*id) == leader);
                        known.iter().for_each(|(id, _)| next.push_front(id));
                        "it does not lead".to_owned()
                    }
                    Said::Silent(why) => why,
                    Said::Unsure(why) => {
                        unsure = Some((*by, address.clone(), why.clone()));
                        why
                    }
                };
                failures.push(HolderFailure { node: *by, address: address.clone(), why });
            }
            if Instant::now() + AGAIN >= until {
                return Err(match unsure {
                    Some((node, address, why)) => CommandError::Unknown { node, address, why },
                    None => CommandError::NoLeader(Holders(failures)),
                });
            }
            sleep(AGAIN).await;
        }
    }

    /// Whom the settings of the cluster's nodes let in, by the first that answers: nodes of the map may ask, and who may
    /// command.
    pub async fn admits(&self) -> Result<Admits, Holders> {
        let known = self.known();
        let mut failures = Vec::new();
        for (index, node) in known.map().nodes().iter().enumerate() {
            let why = match known.ask(index, &Message::Joining(Joining::AskAdmits)).await {
                Ok((lease, Message::Joining(Joining::Admits(admits)))) => {
                    lease.give_back();
                    return Ok(admits);
                }
                Ok((_, other)) => failure(other).to_string(),
                Err(why) => why.to_string(),
            };
            failures.push(HolderFailure { node: node.id, address: node.address.clone(), why });
        }
        Err(Holders(failures))
    }
}

/// Shows the token to one node.
async fn show(
    secret: &TokenSecret,
    (by, address): (&NodeId, &str),
    node: &Node,
    config: &ClientConfig,
    until: Instant,
) -> Said {
    let connecting = timeout(Duration::from_millis(config.connect_ms), Connection::call(address, Some(by), config));
    let mut connection = match connecting.await {
        Ok(Ok((connection, _))) => connection,
        Ok(Err(why)) => return Said::Silent(why.to_string()),
        Err(_) => return Said::Silent(format!("it did not answer within {} ms", config.connect_ms)),
    };
    let within = until.saturating_duration_since(Instant::now());
    let within_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
    let join = Joining::Join { within_ms, secret: secret.clone(), node: Box::new(node.clone()) };
    match timeout_at(until + SLACK, connection.ask_ungreeted(&Message::Joining(join))).await {
        Err(_) => Said::Unsure("it did not answer in time".to_owned()),
        Ok(Err(why)) => Said::Unsure(why.to_string()),
        // While there are no tokens at all, strangers are not heard.
        Ok(Ok(Message::Error { code: ErrorCode::NotAdmitted, .. })) => Said::NoToken(Refused::NoToken.to_string()),
        Ok(Ok(reply @ Message::Error { code: ErrorCode::Internal, .. })) => Said::Unsure(failure(reply).to_string()),
        Ok(Ok(reply @ Message::Error { .. })) => Said::Silent(failure(reply).to_string()),
        Ok(Ok(Message::CommandAnswer(answer))) => match *answer {
            CommandAnswer::Done { epoch } => Said::Done(epoch),
            CommandAnswer::NotLeader { leader, .. } => Said::NotLeader(leader),
            CommandAnswer::Refused { kind: RefusalKind::Missing, why } => Said::NoToken(why),
            CommandAnswer::Refused { kind: RefusalKind::Again, why } => Said::Unsure(why),
            CommandAnswer::Refused { kind, why } => Said::Refused(kind, why),
            CommandAnswer::Undecided => Said::Unsure("it is not decided: too few of those that vote are up".to_owned()),
            CommandAnswer::Forecast(_) => Said::Unsure("it foretells, which nobody asked".to_owned()),
        },
        Ok(Ok(reply)) => Said::Unsure(unexpected(&reply).to_string()),
    }
}
