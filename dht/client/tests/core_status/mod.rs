//! How the cluster's rules stand, where some nodes do not say, or say what is old.

use deadwax_dht::NodeId;
use deadwax_dht::wire::{CoreStatus, MoveStatus, PullStatus};

use super::*;

/// What a node says of its core, or that it does not.
type Says = Result<CoreStatus, ErrorCode>;

/// The node of the second peer leads.
fn leader() -> NodeId {
    NodeId::from_bytes([2; 32])
}

/// A node that lacks nothing, at this epoch.
fn follows(epoch: u64) -> CoreStatus {
    CoreStatus {
        epoch,
        leader: Some(leader()),
        seat: Some(1),
        may_serve: true,
        moves: None,
        pulls: PullStatus::default(),
        up: 2,
        down: 0,
        not_up: vec![],
        warnings: vec![],
    }
}

fn leads(epoch: u64) -> CoreStatus {
    CoreStatus { moves: Some(MoveStatus::default()), ..follows(epoch) }
}

async fn cluster(says: [Says; 3]) -> Cluster {
    let cluster = Cluster::start().await;
    for (peer, says) in cluster.alive().zip(says) {
        peer.state.lock().expect("no panic").core = Some(says);
    }
    cluster
}

#[tokio::test]
async fn where_all_say_that_nothing_moves_it_is_settled() {
    let cluster = cluster([Ok(follows(1)), Ok(leads(1)), Ok(follows(1))]).await;
    let status = cluster.client.status().await;
    assert!(status.healthy, "{:?}", status.warnings);
    let log = status.log.expect("it has a log");
    assert!(log.settled && log.silent.is_empty() && log.leader == Some(leader()), "{log:?}");
    assert!(cluster.client.core_status().await.expect("it has a log").settled);
}

#[tokio::test]
async fn a_leader_that_does_not_say_what_moves_is_warned_of() {
    for code in [ErrorCode::Busy, ErrorCode::Internal] {
        let cluster = cluster([Ok(follows(1)), Err(code), Ok(follows(1))]).await;
        let status = cluster.client.status().await;
        let address = &cluster.peer(1).address;
        let text = status.warnings.join("\n");
        assert!(!status.healthy && status.warnings.len() == 2, "{text}");
        assert!(text.contains(&format!("node {address} does not say how it stands")), "{text}");
        assert!(text.contains(&format!("node {address} leads the map's log and does not say what moves")), "{text}");
        assert!(status.nodes[1].up && status.nodes[1].core_error.is_some(), "{:?}", status.nodes[1]);
        let log = status.log.expect("it has a log");
        assert_eq!((log.settled, log.silent), (false, vec![leader()]));
    }
}

#[tokio::test]
async fn a_cluster_whose_cores_are_all_silent_does_not_pass_for_one_with_a_fixed_map() {
    let cluster = cluster([(); 3].map(|()| Err(ErrorCode::Busy))).await;
    let status = cluster.client.status().await;
    let unsaid = status.warnings.iter().filter(|warning| warning.contains("does not say how it stands"));
    assert_eq!((status.healthy, unsaid.count()), (false, 3), "{:?}", status.warnings);
    let log = status.log.expect("it has a log");
    assert_eq!((log.settled, log.leader, log.silent.len()), (false, None, 3));
    assert!(cluster.client.core_status().await.is_some_and(|log| !log.settled));
}

#[tokio::test]
async fn it_is_not_settled_by_the_word_of_some_or_of_an_old_leader() {
    let moves = |moves| Ok(CoreStatus { moves: Some(moves), ..follows(1) });
    let plans = MoveStatus { planning: true, ..MoveStatus::default() };
    let lacks = PullStatus { tracks_left: 1, ..PullStatus::default() };
    for (what, says) in [
        ("one is silent", [Ok(follows(1)), Ok(leads(1)), Err(ErrorCode::Busy)]),
        ("one knows a later epoch", [Ok(follows(2)), Ok(leads(1)), Ok(follows(1))]),
        ("another leads and plans", [moves(plans), Ok(leads(1)), Ok(follows(1))]),
        ("nobody leads", [Ok(follows(1)), Ok(follows(1)), Ok(follows(1))]),
        ("one lacks a track", [Ok(follows(1)), Ok(leads(1)), Ok(CoreStatus { pulls: lacks, ..follows(1) })]),
    ] {
        let cluster = cluster(says).await;
        let log = cluster.client.core_status().await.expect("it has a log");
        assert!(!log.settled, "{what}: {log:?}");
    }
    let mut down = cluster([Ok(follows(1)), Ok(leads(1)), Ok(follows(1))]).await;
    down.kill(2).await;
    let log = down.client.core_status().await.expect("it has a log");
    assert!(!log.settled && log.silent.len() == 1, "{log:?}");
}

#[tokio::test]
async fn a_cluster_with_a_fixed_map_has_no_log_though_a_node_is_down() {
    let mut cluster = Cluster::start().await;
    cluster.kill(0).await;
    assert_eq!(cluster.client.core_status().await, None);
    let status = cluster.client.status().await;
    assert_eq!((status.log, status.warnings.len()), (None, 1), "{:?}", status.warnings);
}
