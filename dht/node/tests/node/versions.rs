//! Nodes of two versions of the protocol in one cluster, until an operator finalises it.

use std::time::Duration;

use bytes::Bytes;
use deadwax_dht::core::{Envelope, Message as Said};
use deadwax_dht::rebalance::{Command, Named, Refused};
use deadwax_dht::wire::{
    CommandAnswer, ErrorCode, Message, PROTOCOL_MIN, PROTOCOL_VERSION, Protocols, RefusalKind, Unfit,
};
use deadwax_node::Error;
use deadwax_track::TrackId;

use crate::cluster::{Running, Site};
use crate::heal::{HEALED, has, put, read, until};
use crate::peer::{Peer, audio};

/// The version before the newest.
const BEFORE: u8 = PROTOCOL_VERSION - 1;
/// Where an envelope's tag is, and the tag of records of the map's log.
const TAG_AT: usize = 26;
const EPOCHS: u8 = 6;

/// Gives a command to whoever leads: that may be a node that is held back, to which it cannot be sent.
fn command(running: &[Running], command: &Command) -> CommandAnswer {
    until("a leader answers", HEALED, || {
        for node in running {
            match node.stopper().command(command.clone()) {
                Some(CommandAnswer::NotLeader { .. } | CommandAnswer::Undecided) | None => {}
                Some(answer) => return Ok(answer),
            }
        }
        Err("nobody leads".to_owned())
    })
}

fn finalise(running: &[Running]) -> CommandAnswer {
    command(running, &Command::Finalise { protocol: PROTOCOL_VERSION })
}

/// Two of the three store it, the third pulls it, and all give it back.
fn heals(sites: &[Site; 3], seed: u32, third: usize) {
    let bytes = audio(seed, 300_000);
    let id = TrackId::of(&bytes);
    sites.iter().enumerate().filter(|(at, _)| *at != third).for_each(|(_, site)| _ = put(site, &bytes));
    until("the third copy comes", HEALED, || has(&sites[third], id));
    for site in sites {
        assert_eq!(read(site, id, bytes.len()).as_ref(), Ok(&bytes));
    }
}

fn versions(site: &Site) -> Message {
    site.connect().ask(&Message::Versions)
}

/// As [`Site::start`], after the node was given another program.
fn restart(running: &mut Vec<Running>, at: usize, site: &mut Site, protocol_max: Option<u8>) {
    running.remove(at).stop();
    site.config.protocol_max = protocol_max;
    running.insert(at, site.start());
}

#[test]
fn nodes_of_two_versions_serve_together_until_the_cluster_is_finalised() {
    let mut sites = Site::trio_with(|config| config.protocol_max = Some(BEFORE));
    (1..3).for_each(|at| sites[at].config.protocol_max = None);
    let mut running: Vec<Running> = sites.iter().map(Site::start).collect();
    heals(&sites, 1, 0);
    heals(&sites, 2, 2);

    // What came later is refused in words by the node that is held back, and its connection lives on.
    let spoken = Protocols::new(PROTOCOL_MIN, PROTOCOL_VERSION).expect("some");
    assert_eq!(versions(&sites[1]), Message::NodeVersions(spoken, Some(BEFORE)));
    let mut peer = sites[0].connect();
    assert_eq!(peer.protocol, BEFORE);
    let (code, why) = peer.error(&Message::Versions);
    assert_eq!(code, ErrorCode::Version);
    assert!(why.contains(&format!("came with protocol {PROTOCOL_VERSION}")), "{why}");
    assert_eq!(peer.status().id, sites[0].node);

    let keeps = |nodes: &[&Site]| {
        let first = nodes.iter().map(|site| site.node).collect();
        let why = Refused::TooOld { protocol: PROTOCOL_VERSION, nodes: Named { first, count: nodes.len() } };
        CommandAnswer::refused(RefusalKind::Never, why.to_string())
    };
    assert_eq!(finalise(&running), keeps(&[&sites[0]]));
    // Until it is finalised the cluster bears that an upgraded node goes back.
    restart(&mut running, 1, &mut sites[1], Some(BEFORE));
    heals(&sites, 3, 1);
    restart(&mut running, 1, &mut sites[1], None);
    assert_eq!(finalise(&running), keeps(&[&sites[0]]));
    restart(&mut running, 0, &mut sites[0], None);

    // One is away, and its program is still the one before.
    running.remove(2).stop();
    sites[2].config.protocol_max = Some(BEFORE);
    let dead = Command::SetDead { node: sites[2].node, dead: true };
    assert!(matches!(command(&running, &dead), CommandAnswer::Done { .. }));
    assert!(matches!(finalise(&running), CommandAnswer::Done { .. }));
    for site in &sites[..2] {
        until("it is finalised", HEALED, || match versions(site) {
            Message::NodeVersions(_, Some(PROTOCOL_VERSION)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    // It comes back, hears of it and stops; from then on it does not even start.
    let ended = sites[2].run_to_its_end().recv_timeout(HEALED).expect("it hears of it");
    let too_old = |why: &Error| {
        assert!(matches!(why, Error::Protocol(Unfit::TooOld { newest: BEFORE, finalised: PROTOCOL_VERSION })), "{why}");
        assert!(why.to_string().contains("`protocol_max`"), "{why}");
    };
    too_old(&ended);
    too_old(&sites[2].refusal());
    sites[2].config.protocol_max = None;
    running.push(sites[2].start());
    let lives = Command::SetDead { node: sites[2].node, dead: false };
    let CommandAnswer::Done { epoch } = command(&running, &lives) else { panic!("it is there") };
    // Who asks by an earlier one is told that partitions may have moved.
    for site in &mut sites {
        until("the epoch is known", HEALED, || match site.connect().status().epoch {
            known if known >= epoch => Ok(()),
            known => Err(format!("at {known}")),
        });
        site.epoch = epoch;
    }
    heals(&sites, 4, 2);
    running.into_iter().for_each(Running::stop);
}

/// A peer that has said that it is another node, and sends an envelope whose tag is another than it should be.
fn say(site: &Site, as_site: &Site, protocol: u8, tag: u8, rest: &[u8]) -> Peer {
    let mut peer = site.connect();
    let address = as_site.config.listen.to_string();
    peer.send(&Message::Introduction { node: as_site.node, address });
    let envelope = Envelope { protocol, epoch: 1_000, line: 0, life: 1, message: Said::Knows };
    let mut bytes = envelope.encode();
    bytes[TAG_AT] = tag;
    peer.send(&Message::Peer { more: false, bytes: Bytes::from([&bytes[..], rest].concat()) });
    peer
}

#[test]
fn what_a_later_node_says_too_early_is_dropped_and_counted_but_for_records() {
    let sites: [Site; 3] = Site::trio();
    let running = sites[0].start();
    let mut peer = say(&sites[0], &sites[1], PROTOCOL_VERSION + 1, 200, b"of a kind that nobody here knows");
    assert_eq!(peer.status().counters["messages_later"], 1, "and the connection lives on");
    let mut peer = say(&sites[0], &sites[1], PROTOCOL_VERSION, 200, b"");
    assert_eq!(peer.last_error().0, ErrorCode::Invalid, "of a node of this version it is garbage");
    running.stop();

    let ended = sites[0].run_to_its_end();
    until("it serves", HEALED, || {
        std::net::TcpStream::connect(sites[0].config.listen).map(drop).map_err(|why| why.to_string())
    });
    let _peer = say(&sites[0], &sites[1], PROTOCOL_VERSION + 1, EPOCHS, b"records of a later version");
    let why = ended.recv_timeout(Duration::from_secs(60)).expect("it stops");
    assert!(matches!(why, Error::Protocol(Unfit::Records { newest: PROTOCOL_VERSION })), "{why}");
}
