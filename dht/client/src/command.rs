//! Operators' commands, given to the node that leads the map's log.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use deadwax_dht::rebalance::Command;
use deadwax_dht::wire::{CommandAnswer, ErrorCode, ForecastReport, Message, RefusalKind};
use deadwax_dht::{Failure, FailureKind, NodeId};
use tokio::time::{Instant, sleep, timeout_at};

use crate::Client;
use crate::error::{HolderFailure, Holders};
use crate::known::Known;
use crate::read::failure;

/// Between two rounds in which no node led: an election takes some seconds.
pub(crate) const AGAIN: Duration = Duration::from_millis(500);
/// How much longer than a node takes at most its answer may take to come.
pub(crate) const SLACK: Duration = Duration::from_secs(1);

/// What came of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommandDone {
    /// It is done at this epoch. What it moves is still to move.
    Done {
        /// The epoch.
        epoch: u64,
        /// Whether another node was given it before, which lost the lead amid it: what it asks for is so, by whichever.
        again: bool,
    },
    /// What it would do.
    Forecast(ForecastReport),
}

/// Why a command was not carried out, or that it is not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommandError {
    /// The node that leads says why not.
    #[error("refused: {why}")]
    Refused {
        /// What to do about it.
        kind: RefusalKind,
        /// Why.
        why: String,
    },
    /// Nobody could be found who leads. Nothing was done.
    #[error(
        "nothing was done, for no node that leads the map's log was found: start more of the nodes that vote, and ask \
         again ({0})"
    )]
    NoLeader(Holders),
    /// It was given to a node that led, and nobody said what came of it.
    #[error(
        "nobody knows whether it was carried out: {address} was given it, and {why}; see what `status` shows, and ask \
         again: what is done already is not done twice"
    )]
    Unknown {
        /// The node.
        node: NodeId,
        /// Its address.
        address: String,
        /// What befell.
        why: String,
    },
}

/// What one node said.
enum Said {
    /// And the epoch of its map.
    Answer(CommandAnswer, u64),
    /// It was not given to the node, or the node did not take it.
    NotTaken(Failure),
    /// The node may have taken it, and stops.
    Left(Failure),
    /// It was given.
    Unknown(Failure),
}

impl Client {
    /// Has the cluster carry out `command`, or with `forecast` say what that would do. Looks for the node that leads the
    /// map's log for [`command_ms`](crate::ClientConfig::command_ms) at most. A roll back needs only its epoch: the map is
    /// the leader's.
    ///
    /// # Errors
    /// [`Refused`](CommandError::Refused) and [`NoLeader`](CommandError::NoLeader): nothing came of it, but for what the
    /// text says. [`Unknown`](CommandError::Unknown): it may have been carried out, or yet be; it may be given again.
    pub async fn command(&self, command: &Command, forecast: bool) -> Result<CommandDone, CommandError> {
        let until = Instant::now() + Duration::from_millis(self.inner.config.command_ms);
        // Who votes is not known by a map alone; where that is not to be had, all nodes are asked.
        self.newest().await;
        // The last that may have done something of it. It is given to the next all the same: what is so already is done.
        let mut begun: Option<HolderFailure> = None;
        loop {
            let failures = match self.command_round(command, forecast, until, &mut begun).await {
                Ok(done) => return done,
                Err(failures) => Holders(failures),
            };
            if Instant::now() + AGAIN >= until {
                return Err(match begun {
                    None => CommandError::NoLeader(failures),
                    Some(HolderFailure { node, address, why }) => {
                        let why = format!("{why}, and no other that leads was found ({failures})");
                        CommandError::Unknown { node, address, why }
                    }
                });
            }
            sleep(AGAIN).await;
            self.newest().await;
        }
    }

    /// Asks each node that may lead once, first those that are said to. An error: nobody says what came of it, and why;
    /// `begun` is who may have done something of it.
    async fn command_round(
        &self,
        command: &Command,
        forecast: bool,
        until: Instant,
        begun: &mut Option<HolderFailure>,
    ) -> Result<Result<CommandDone, CommandError>, Vec<HolderFailure>> {
        let known = self.known();
        let (mut next, mut asked, mut failures) = (candidates(&known), BTreeSet::new(), Vec::new());
        while let Some(node) = next.pop_front() {
            if !asked.insert(node) {
                continue;
            }
            // One that is not in the map yet may be in the next round.
            let Some(index) = known.map().nodes().iter().position(|each| each.id == node) else { continue };
            let address = known.pool(index).address().to_owned();
            let failure = |why: String| HolderFailure { node, address: address.clone(), why };
            let mut failed = |why: String| failures.push(failure(why));
            match give(&known, index, command, forecast, until).await {
                Said::NotTaken(why) => failed(why.to_string()),
                Said::Left(why) => {
                    failed(why.to_string());
                    if !forecast {
                        *begun = Some(failure("it stopped amid it".to_owned()));
                    }
                }
                Said::Unknown(why) if forecast => failed(why.to_string()),
                Said::Unknown(why) => {
                    let why = why.to_string();
                    return Ok(Err(CommandError::Unknown { node, address, why }));
                }
                Said::Answer(CommandAnswer::NotLeader { leader, voters, begun: amid }, _) => {
                    failed(leader.map_or("it does not lead".to_owned(), |leader| {
                        format!("it does not lead, it says that node {} does", leader.short())
                    }));
                    if amid {
                        *begun = Some(failure("it lost the lead amid it".to_owned()));
                    }
                    next.extend(voters);
                    leader.into_iter().for_each(|leader| next.push_front(leader));
                }
                Said::Answer(CommandAnswer::Done { epoch }, _) => {
                    return Ok(Ok(CommandDone::Done { epoch, again: begun.is_some() }));
                }
                Said::Answer(CommandAnswer::Forecast(report), _) => return Ok(Ok(CommandDone::Forecast(report))),
                Said::Answer(CommandAnswer::Refused { kind, why }, epoch) => {
                    return Ok(refused(command, kind, why, epoch, begun.take()));
                }
                Said::Answer(CommandAnswer::Undecided, _) if forecast => failed("it did not answer in time".to_owned()),
                Said::Answer(CommandAnswer::Undecided, _) => {
                    let why = "it is not decided: a majority of the nodes that vote may be away".to_owned();
                    return Ok(Err(CommandError::Unknown { node, address, why }));
                }
            }
        }
        Err(failures)
    }
}

/// What a refusal at this epoch means, where a node that led before was given the command, too.
fn refused(
    command: &Command,
    kind: RefusalKind,
    why: String,
    epoch: u64,
    begun: Option<HolderFailure>,
) -> Result<CommandDone, CommandError> {
    let Some(HolderFailure { address, why: befell, .. }) = begun else {
        return Err(CommandError::Refused { kind, why });
    };
    let removes = matches!(command, Command::RemoveNode(_) | Command::RemoveVolume(_));
    if removes && kind == RefusalKind::Missing {
        return Ok(CommandDone::Done { epoch, again: true });
    }
    let why = format!("{why} (some of it may be done: {address} was given it first, and {befell})");
    Err(CommandError::Refused { kind, why })
}

/// Those that may lead: who votes, where that is known.
fn candidates(known: &Known) -> VecDeque<NodeId> {
    let all = || known.map().nodes().iter().map(|node| node.id).collect();
    known.layout().map_or_else(all, |layout| layout.state().voters().iter().map(|voter| voter.node).collect())
}

/// Gives the command to one node, once, over a connection of its own.
async fn give(known: &Known, node: usize, command: &Command, forecast: bool, until: Instant) -> Said {
    let mut connection = match known.pool(node).open(known.epoch()).await {
        Ok(connection) => connection,
        Err(why) => return Said::NotTaken(why),
    };
    let within = until.saturating_duration_since(Instant::now());
    let within_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
    let request = Message::Command { within_ms, forecast, command: Box::new(command.clone()) };
    match timeout_at(until + SLACK, connection.ask(known.epoch(), &request, None)).await {
        Ok(Ok(Message::CommandAnswer(answer))) => Said::Answer(*answer, connection.receiver.epoch),
        Ok(Ok(reply @ Message::Error { code: ErrorCode::Internal, .. })) => Said::Left(failure(reply)),
        // It says so before it takes anything.
        Ok(Ok(reply @ Message::Error { .. })) => Said::NotTaken(failure(reply)),
        // It speaks a version that has no commands: nothing was sent.
        Ok(Err(why)) if why.kind == FailureKind::Version => Said::NotTaken(why),
        Ok(Ok(reply)) => Said::Unknown(failure(reply)),
        Ok(Err(why)) => Said::Unknown(why),
        Err(_) => Said::Unknown(Failure::new(FailureKind::Stalled, "it did not answer in time")),
    }
}
