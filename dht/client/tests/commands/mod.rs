//! Operators' commands, given to nodes of which one leads, or none.

use deadwax_dht::rebalance::Command;
use deadwax_dht::wire::{CommandAnswer, RefusalKind};
use deadwax_dht::{NodeId, VolumeId};
use deadwax_dht_client::{CommandDone, CommandError};

use super::*;

/// What a peer says to a command, or that it breaks the connection when it has it.
type Says = Option<CommandAnswer>;

const fn command() -> Command {
    Command::DrainVolume { volume: VolumeId::from_bytes([9; 16]), drain: true }
}

const DONE: CommandAnswer = CommandAnswer::Done { epoch: 8 };

const fn not_leader(leader: Option<NodeId>) -> CommandAnswer {
    CommandAnswer::NotLeader { leader, voters: vec![], begun: false }
}

/// It led when it was given the command, and does not any more.
const BEGUN: CommandAnswer = CommandAnswer::NotLeader { leader: None, voters: vec![], begun: true };

const REMOVE: Command = Command::RemoveVolume(VolumeId::from_bytes([9; 16]));

fn missing() -> CommandAnswer {
    CommandAnswer::refused(RefusalKind::Missing, "no volume is that".to_owned())
}

/// Three nodes that say this.
async fn cluster(says: [Says; 3]) -> Cluster {
    let cluster = Cluster::with(ClientConfig { command_ms: 2_000, ..ClientConfig::default() }).await;
    for (peer, says) in cluster.alive().zip(says) {
        peer.state.lock().expect("no panic").says = says;
    }
    cluster
}

fn given(cluster: &Cluster) -> [usize; 3] {
    [0, 1, 2].map(|index| cluster.peer(index).asked(Kind::Command))
}

#[tokio::test]
async fn a_command_finds_the_node_that_leads() {
    let third = Some(NodeId::from_bytes([3; 32]));
    for (first, way) in [(not_leader(third), [1, 0, 1]), (not_leader(None), [1, 1, 1])] {
        let cluster = cluster([Some(first), Some(not_leader(None)), Some(DONE)]).await;
        let done = cluster.client.command(&command(), false).await;
        assert_eq!(done, Ok(CommandDone::Done { epoch: 8, again: false }));
        assert_eq!(given(&cluster), way, "whom it was given to");
        let asked = cluster.peer(2).state.lock().expect("no panic").command.clone();
        assert_eq!(asked, Some((command(), false)));
    }
}

#[tokio::test]
async fn a_node_that_is_down_is_passed_over() {
    let mut cluster = cluster([None, Some(not_leader(None)), Some(DONE)]).await;
    cluster.kill(0).await;
    let done = cluster.client.command(&command(), false).await;
    assert_eq!(done, Ok(CommandDone::Done { epoch: 8, again: false }));
}

#[tokio::test]
async fn what_may_have_been_carried_out_is_said_and_not_done_again() {
    for lost in [None, Some(CommandAnswer::Undecided)] {
        let cluster = cluster([lost.clone(), Some(DONE), Some(DONE)]).await;
        let why = cluster.client.command(&command(), false).await.expect_err("nobody knows");
        assert!(matches!(&why, CommandError::Unknown { node, .. } if *node == cluster.peer(0).node), "{why}");
        assert!(why.to_string().contains("nobody knows whether it was carried out"), "{why}");
        assert_eq!(given(&cluster), [1, 0, 0], "given once, {lost:?}");
        // What it would do is asked of the next.
        assert!(cluster.client.command(&command(), true).await.is_ok());
    }
}

#[tokio::test]
async fn a_refusal_is_handed_on() {
    let refusal = CommandAnswer::refused(RefusalKind::NotDrained, "it is full".to_owned());
    let cluster = cluster([Some(refusal), Some(DONE), Some(DONE)]).await;
    let why = cluster.client.command(&command(), false).await;
    assert_eq!(why, Err(CommandError::Refused { kind: RefusalKind::NotDrained, why: "it is full".to_owned() }));
}

#[tokio::test]
async fn where_nobody_leads_it_is_asked_again_until_the_time_is_over() {
    let cluster = cluster([(); 3].map(|()| Some(not_leader(None)))).await;
    let why = cluster.client.command(&command(), false).await.expect_err("nobody leads");
    assert!(matches!(&why, CommandError::NoLeader(nodes) if nodes.0.len() == 3), "{why}");
    assert!(given(&cluster).iter().all(|times| *times > 1), "{:?}", given(&cluster));
}

#[tokio::test]
async fn what_was_begun_and_is_led_by_nobody_is_not_said_to_have_come_to_nothing() {
    let cluster = cluster([Some(not_leader(None)), Some(BEGUN), Some(not_leader(None))]).await;
    let why = cluster.client.command(&command(), false).await.expect_err("nobody leads");
    assert!(matches!(&why, CommandError::Unknown { node, .. } if *node == cluster.peer(1).node), "{why}");
    assert!(why.to_string().contains("it lost the lead amid it"), "{why}");
}

#[tokio::test]
async fn a_node_that_stops_amid_a_command_may_have_done_some_of_it() {
    let cluster = cluster([None, Some(not_leader(None)), Some(not_leader(None))]).await;
    cluster.peer(0).fault(Fault::Answer(ErrorCode::Internal));
    let why = cluster.client.command(&command(), false).await.expect_err("nobody leads");
    assert!(matches!(&why, CommandError::Unknown { node, .. } if *node == cluster.peer(0).node), "{why}");
    // The next one carries it out.
    cluster.peer(2).state.lock().expect("no panic").says = Some(DONE);
    let done = cluster.client.command(&command(), false).await;
    assert_eq!(done, Ok(CommandDone::Done { epoch: 8, again: true }));
}

#[tokio::test]
async fn what_was_removed_by_a_leader_that_is_none_any_more_is_done() {
    let third = cluster([Some(BEGUN), Some(not_leader(None)), Some(missing())]).await;
    let done = third.client.command(&REMOVE, false).await;
    // The epoch of the node that says so.
    assert_eq!(done, Ok(CommandDone::Done { epoch: 1, again: true }));
    // What was never begun, or removes nothing, is refused.
    for (first, command) in [(not_leader(None), REMOVE), (BEGUN, command())] {
        let third = cluster([Some(first), Some(not_leader(None)), Some(missing())]).await;
        let why = third.client.command(&command, false).await.expect_err("it is missing");
        assert!(matches!(&why, CommandError::Refused { kind: RefusalKind::Missing, .. }), "{why}");
    }
}

#[tokio::test]
async fn a_refusal_of_what_another_node_began_says_so() {
    let refusal = CommandAnswer::refused(RefusalKind::Again, "ask again".to_owned());
    let cluster = cluster([Some(BEGUN), Some(refusal), Some(not_leader(None))]).await;
    let why = cluster.client.command(&command(), false).await.expect_err("it is refused").to_string();
    let address = &cluster.peer(0).address;
    assert!(why.contains("ask again (some of it may be done") && why.contains(address.as_str()), "{why}");
}
