//! What operators ask of nodes: commands, and how the cluster's rules stand.

use std::time::Duration;

use deadwax_dht::NodeId;
use deadwax_dht::rebalance::Command;
use deadwax_dht::wire::{CommandAnswer, CoreStatus, Message, PROTOCOL_VERSION, RefusalKind};

use crate::cluster::{Running, Site};
use crate::heal::until;
use crate::peer::Peer;

/// How long an election, and the first words between nodes, may take.
const LED: Duration = Duration::from_secs(60);

fn command(peer: &mut Peer, command: Command, forecast: bool) -> CommandAnswer {
    match peer.ask(&Message::Command { within_ms: 20_000, forecast, command: Box::new(command) }) {
        Message::CommandAnswer(answer) => *answer,
        other => panic!("{other:?} answers a command"),
    }
}

pub(crate) fn core_status(peer: &mut Peer) -> Option<CoreStatus> {
    match peer.ask(&Message::AskCore) {
        Message::CoreStatus(status) => status.map(|status| *status),
        other => panic!("{other:?} answers how the core stands"),
    }
}

/// Which of the sites leads, once all agree on it.
fn leader(sites: &[Site; 3]) -> usize {
    until("one leads, and all know it", LED, || {
        let statuses: Vec<CoreStatus> =
            sites.iter().map(|site| core_status(&mut site.connect()).expect("a core")).collect();
        let leads = statuses.iter().position(|status| status.moves.is_some());
        let agreed = |node: NodeId| statuses.iter().all(|status| status.leader == Some(node) && status.down == 0);
        leads.filter(|at| agreed(sites[*at].node)).ok_or_else(|| format!("{statuses:?}"))
    })
}

/// What the node that leads answers: another may, by the time that it is asked.
pub(crate) fn answer(sites: &[Site; 3], wanted: &Command, forecast: bool) -> CommandAnswer {
    until("the node that leads answers", LED, || {
        match command(&mut sites[leader(sites)].connect(), wanted.clone(), forecast) {
            answer @ CommandAnswer::NotLeader { .. } => Err(format!("{answer:?}")),
            answer => Ok(answer),
        }
    })
}

#[test]
fn the_node_that_leads_carries_a_command_out_and_the_others_name_it() {
    let sites = Site::trio();
    let running = [0, 1, 2].map(|at| sites[at].start());
    let status = core_status(&mut sites[leader(&sites)].connect()).expect("a core");
    assert!(status.seat.is_some() && status.up == 2, "{status:?}");
    let wanted = Command::SetRack { node: sites[0].node, rack: Some("r7".to_owned()) };
    let mut all = [0, 1, 2].map(|at| sites[at].node);
    all.sort_unstable();
    until("one that does not lead names the one that does", LED, || {
        let at = leader(&sites);
        let other = &sites[(at + 1) % 3];
        match command(&mut other.connect(), Command::RemoveNode(other.node), true) {
            CommandAnswer::NotLeader { leader: Some(named), mut voters, begun: false } if named == sites[at].node => {
                voters.sort_unstable();
                assert_eq!(voters, all);
                Ok(())
            }
            answer => Err(format!("{answer:?}")),
        }
    });
    let forecast = answer(&sites, &wanted, true);
    assert!(matches!(forecast, CommandAnswer::Forecast(_)), "{forecast:?}");
    let done = answer(&sites, &wanted, false);
    let CommandAnswer::Done { epoch } = done else { panic!("{done:?}") };
    assert!(epoch > status.epoch, "the forecast made no epoch, the command one: {epoch}, {status:?}");
    assert_eq!(answer(&sites, &wanted, false), CommandAnswer::Done { epoch }, "it is so already");
    for site in &sites {
        until("all know the epoch", LED, || match core_status(&mut site.connect()).expect("a core").epoch {
            known if known >= epoch => Ok(()),
            known => Err(format!("epoch {known}")),
        });
    }
    let remove = answer(&sites, &Command::RemoveNode(sites[0].node), false);
    assert!(matches!(remove, CommandAnswer::Refused { kind: RefusalKind::NotDrained, .. }), "{remove:?}");
    running.into_iter().for_each(Running::stop);
}

#[test]
fn a_command_that_no_majority_decides_is_answered_as_undecided() {
    let sites = Site::trio();
    let mut running = [0, 1, 2].map(|at| Some(sites[at].start()));
    let at = leader(&sites);
    for other in (0..3).filter(|other| *other != at) {
        running[other].take().expect("it runs").stop();
    }
    let wanted = Command::SetRack { node: sites[at].node, rack: Some("r7".to_owned()) };
    let request = Message::Command { within_ms: 300, forecast: false, command: Box::new(wanted) };
    match sites[at].connect().ask(&request) {
        // It may have found out meanwhile that it leads nobody.
        Message::CommandAnswer(answer) => {
            assert!(matches!(*answer, CommandAnswer::Undecided | CommandAnswer::NotLeader { .. }), "{answer:?}");
        }
        other => panic!("{other:?} answers a command"),
    }
}

#[test]
fn a_node_whose_map_is_fixed_says_that_it_cannot_be_changed() {
    let site = Site::new(1, 1);
    let running = site.start();
    let mut peer = site.connect();
    assert_eq!(core_status(&mut peer), None);
    let answer = command(&mut peer, Command::DrainNode { node: site.node, drain: true }, false);
    let CommandAnswer::Refused { kind: RefusalKind::NoLog, why } = answer else { panic!("{answer:?}") };
    assert!(why.contains("cannot be changed while it runs"), "{why}");
    running.stop();
}

#[test]
fn whoever_knows_an_address_alone_is_told_who_is_there() {
    let site = Site::new(1, 1);
    let running = site.start();
    let mut stranger = site.connect_raw();
    stranger.send(&Message::Who);
    let (_, here) = stranger.read();
    let (cluster, node) = (site.cluster, site.node);
    let Message::Here { cluster: its, node: its_node, protocol_min, protocol_max } = here else { panic!("{here:?}") };
    assert_eq!((its, its_node), (cluster, node));
    assert!(protocol_min <= protocol_max && protocol_max == PROTOCOL_VERSION);
    running.stop();
}
