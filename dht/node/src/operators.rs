//! What operators ask of a node: commands that change the cluster, and how its rules stand. And what a node asks that joins,
//! by a token that one of them made.

use std::sync::Arc;
use std::time::Duration;

use deadwax_dht::rebalance::{Command, Refused};
use deadwax_dht::wire::{CommandAnswer, ErrorCode, Joining, Message, RefusalKind, Repairing};
use deadwax_dht::{Node as Entry, TokenSecret};
use glommio::timer::sleep;

use crate::admission::Caller;
use crate::refusal::Refusal;
use crate::shard::Node;

/// The longest that a command is waited for, whatever its sender says.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// Has the core carry a command out, or say what it would do, and waits for what came of it.
pub(crate) async fn command(
    node: &Arc<Node>,
    caller: Caller,
    within_ms: u32,
    forecast: bool,
    command: Box<Command>,
) -> Result<Message, Refusal> {
    if let Err(why) = caller.may_command() {
        if node.admission.is_forbidden_logged(node.started.elapsed().as_secs()) {
            tracing::warn!(%caller, forecast, ?command, "a command is forbidden: its sender is not in `admins`");
        }
        return Ok(answered(CommandAnswer::refused(RefusalKind::Forbidden, why.message)));
    }
    carry_out(node, caller, within_ms, forecast, command).await
}

/// Brings a node into the map that shows a token, if it is good. Whoever is in the map is told that it is done.
pub(crate) async fn join(
    node: &Arc<Node>,
    caller: Caller,
    within_ms: u32,
    secret: &TokenSecret,
    entry: Box<Entry>,
) -> Result<Message, Refusal> {
    caller.may_join_as(&entry.id)?;
    // Whoever was cut off before it heard so. Who leads may be at something that takes long.
    if let Some(history) = node.history().filter(|history| history.state().spec().nodes.contains(&*entry)) {
        return Ok(answered(CommandAnswer::Done { epoch: history.epoch() }));
    }
    let token = secret.name();
    // A stranger gets no more than this before he has shown one that counts.
    let is_known = |node: &Node| node.history().is_some_and(|history| history.state().tokens().contains_key(&token));
    if !matches!(caller, Caller::Known { is_node: true, .. }) && !is_known(node) {
        if node.admission.is_logged(node.started.elapsed().as_secs()) {
            tracing::warn!(%caller, %token, "a token is refused: there is none of that name");
        }
        return Ok(answered(CommandAnswer::refused(RefusalKind::Missing, Refused::NoToken.to_string())));
    }
    let Some(_place) = node.joins.enter() else {
        return Err(Refusal::new(ErrorCode::Busy, "other nodes join: show it again in a moment"));
    };
    carry_out(node, caller, within_ms, false, Box::new(Command::Admit { token, node: *entry })).await
}

/// Whether there are tokens that were not used, as far as the node knows.
pub(crate) fn has_tokens(node: &Node) -> bool {
    node.history().is_some_and(|history| !history.state().tokens().is_empty())
}

/// Whom the node lets in, for one that is to let in the same.
pub(crate) fn admits(node: &Node, caller: Caller) -> Result<Message, Refusal> {
    caller.may_ask_admits()?;
    Ok(Message::Joining(Joining::Admits(node.admission.admits(&node.config.issuers))))
}

fn answered(answer: CommandAnswer) -> Message {
    Message::CommandAnswer(Box::new(answer))
}

async fn carry_out(
    node: &Arc<Node>,
    caller: Caller,
    within_ms: u32,
    forecast: bool,
    command: Box<Command>,
) -> Result<Message, Refusal> {
    let Some(core) = &node.core else {
        tracing::info!(%caller, forecast, ?command, "an operator's command is refused: the map is a file");
        let why = "this cluster's map is a file and has no log: it cannot be changed while it runs (one of three \
                   masters or more, made without --no-log, can)";
        return Ok(answered(CommandAnswer::refused(RefusalKind::NoLog, why.to_owned())));
    };
    if !forecast {
        tracing::info!(%caller, within_ms, ?command, "an operator's command is given");
    }
    let within = Duration::from_millis(u64::from(within_ms)).min(WAIT_MAX);
    let late = async {
        sleep(within).await;
        // The core goes on with it, and nobody hears of that.
        Ok(CommandAnswer::Undecided)
    };
    let answer = futures_lite::future::or(core.command(command.clone(), forecast), late).await;
    if !forecast {
        log(caller, &command, &answer);
    }
    answer.map(answered)
}

/// Says what came of a command, and whose it is.
fn log(caller: Caller, command: &Command, answer: &Result<CommandAnswer, Refusal>) {
    match answer {
        Ok(CommandAnswer::Done { epoch }) => tracing::info!(%caller, epoch, ?command, "an operator's command is done"),
        Ok(CommandAnswer::Refused { why, .. }) => {
            tracing::info!(%caller, why, ?command, "an operator's command is refused");
        }
        Ok(CommandAnswer::NotLeader { begun, .. }) => {
            tracing::info!(%caller, begun, ?command, "an operator's command is not this node's to carry out: it does not lead");
        }
        Ok(CommandAnswer::Undecided) => {
            tracing::info!(%caller, ?command, "an operator's command is not decided in time, and may yet be");
        }
        Ok(CommandAnswer::Forecast(_)) => {}
        Err(Refusal { message, .. }) => {
            tracing::info!(%caller, why = message, ?command, "an operator's command got no answer");
        }
    }
}

/// How far the core is with repair; `now`: once all is to be compared and tried anew, as only who may command can have it.
pub(crate) async fn repair(node: &Arc<Node>, caller: Caller, now: bool) -> Result<Message, Refusal> {
    if now {
        caller.may_command()?;
        tracing::info!(%caller, "an operator has everything compared anew");
    }
    Ok(Message::Repairing(Repairing::RepairReport(match &node.core {
        Some(core) => Some(core.repair(now).await?),
        None => None,
    })))
}

/// How the core stands.
pub(crate) async fn core_status(node: &Arc<Node>) -> Result<Message, Refusal> {
    Ok(Message::CoreStatus(match &node.core {
        Some(core) => Some(core.status().await?),
        None => None,
    }))
}
