//! What operators ask of a node: commands that change the cluster, and how its rules stand.

use std::sync::Arc;
use std::time::Duration;

use deadwax_dht::rebalance::Command;
use deadwax_dht::wire::{CommandAnswer, Message, RefusalKind};
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
    let answered = |answer: CommandAnswer| Message::CommandAnswer(Box::new(answer));
    if let Err(why) = caller.may_command() {
        if node.admission.is_forbidden_logged(node.started.elapsed().as_secs()) {
            tracing::warn!(%caller, forecast, ?command, "a command is forbidden: its sender is not in `admins`");
        }
        return Ok(answered(CommandAnswer::refused(RefusalKind::Forbidden, why.message)));
    }
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

/// How the core stands.
pub(crate) async fn core_status(node: &Arc<Node>) -> Result<Message, Refusal> {
    Ok(Message::CoreStatus(match &node.core {
        Some(core) => Some(core.status().await?),
        None => None,
    }))
}
