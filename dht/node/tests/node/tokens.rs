//! What a node with TLS says to those whom nobody knows, while there are tokens and while there are none.

use std::time::{Duration, Instant};

use deadwax_dht::rebalance::Command;
use deadwax_dht::wire::{Admits, CommandAnswer, ErrorCode, Joining, Message, RefusalKind};
use deadwax_dht::{Node, NodeId, NodeKey, TokenSecret, Volume, VolumeId};
use deadwax_dht_tls::{Identity, load_key};

use crate::cluster::{Running, Site, own_address};
use crate::operators::answer;
use crate::peer::Peer;

fn key(number: u8) -> NodeKey {
    NodeKey::from_bytes(&[number; 32])
}

fn entry(number: u8) -> Node {
    let volumes = vec![Volume { id: VolumeId::from_bytes([number; 16]), weight: 1 }];
    Node { id: key(number).node_id(), zone: "here".into(), rack: None, address: own_address().to_string(), volumes }
}

fn connect_as(site: &Site, key: &NodeKey) -> Peer {
    let mut peer = site.connect_raw();
    assert_eq!(peer.secure(&Identity::new(key)), Ok(site.node));
    peer
}

const SECRET: TokenSecret = TokenSecret::from_bytes([1; 16]);

fn join(secret: &TokenSecret, node: &Node) -> Message {
    Message::Joining(Joining::Join { within_ms: 20_000, secret: secret.clone(), node: Box::new(node.clone()) })
}

/// What the node says to one who shows this, and to anything else that he may say.
fn shown(site: &Site, key: &NodeKey, message: &Message) -> Message {
    let mut peer = connect_as(site, key);
    peer.send(message);
    peer.read().1
}

fn not_admitted(message: Message) -> String {
    match message {
        Message::Error { code: ErrorCode::NotAdmitted, message } => message,
        other => panic!("{other:?} to whom nobody knows"),
    }
}

/// Three nodes, whose client may command.
fn trio() -> ([Site; 3], [Running; 3]) {
    let client = Site::client().node_id();
    let sites = Site::trio_with(|config| {
        config.tls = true;
        config.stall_timeout_s = 2;
        (config.clients, config.admins) = (vec![key(60).node_id()], vec![client]);
    });
    let running = [0, 1, 2].map(|at| sites[at].start());
    (sites, running)
}

/// A token is made, and all three have heard of it.
fn made(sites: &[Site; 3]) {
    let made = answer(sites, &Command::MakeToken { name: SECRET.name(), ttl_ms: 3_600_000 }, false);
    assert!(matches!(made, CommandAnswer::Done { .. }), "{made:?}");
    for site in sites {
        // Whoever is not heard at all is told at once, without a word of his own.
        crate::heal::until("it hears those whom it does not know", Duration::from_secs(60), || {
            match shown(site, &key(61), &join(&TokenSecret::from_bytes([2; 16]), &entry(61))) {
                Message::CommandAnswer(answer) => {
                    let is_missing = matches!(*answer, CommandAnswer::Refused { kind: RefusalKind::Missing, .. });
                    assert!(is_missing, "{answer:?}");
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        });
    }
}

#[test]
fn whom_nobody_knows_may_show_a_token_while_there_is_one_and_nothing_else() {
    let (sites, _running) = trio();
    let leads = |answer: &Message| matches!(answer, Message::CommandAnswer(answer) if matches!(**answer, CommandAnswer::Done { .. }));
    // While there are none he is not asked what he has.
    let (code, _) = connect_as(&sites[0], &key(61)).last_error();
    assert_eq!(code, ErrorCode::NotAdmitted);
    made(&sites);
    for site in &sites {
        let hello = site.connect_raw().hello();
        for word in [&hello, &Message::Who, &Message::Status, &Message::AskCore, &Message::Joining(Joining::AskAdmits)]
        {
            let why = not_admitted(shown(site, &key(61), word));
            assert!(why.contains("is not admitted"), "{why}");
        }
        // One for another node, be it with a good token; and one whose bytes are no node.
        not_admitted(shown(site, &key(61), &join(&SECRET, &entry(62))));
        let began = Instant::now();
        let mut silent = connect_as(site, &key(61));
        silent.socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        let gone = std::io::Read::read(&mut silent.socket, &mut [0; 64]);
        assert!(!matches!(&gone, Err(why) if why.kind() == std::io::ErrorKind::WouldBlock), "he is not waited for");
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    // The one that leads takes him in, and the others say that they do not lead.
    let answers: Vec<Message> = sites.iter().map(|site| shown(site, &key(61), &join(&SECRET, &entry(61)))).collect();
    assert_eq!(answers.iter().filter(|answer| leads(answer)).count(), 1, "{answers:?}");
    // By then it is used up.
    crate::heal::until("nobody else is heard", Duration::from_secs(60), || {
        let heard = sites.iter().map(|site| shown(site, &key(62), &join(&SECRET, &entry(62))));
        let refused = |answer: &Message| match answer {
            Message::Error { code, .. } => *code == ErrorCode::NotAdmitted,
            Message::CommandAnswer(answer) => {
                assert!(!matches!(**answer, CommandAnswer::Done { .. }), "one token, two nodes");
                false
            }
            _ => false,
        };
        let heard: Vec<Message> = heard.collect();
        if heard.iter().all(refused) { Ok(()) } else { Err(format!("{heard:?}")) }
    });
}

#[test]
fn nodes_and_who_may_command_are_told_who_is_let_in() {
    let (sites, _running) = trio();
    let second = load_key(&sites[1].config.dir.join("node.key")).expect("a key");
    for key in [&second, &Site::client()] {
        let mut peer = connect_as(&sites[0], key);
        peer.greet();
        let Message::Joining(Joining::Admits(admits)) = peer.ask(&Message::Joining(Joining::AskAdmits)) else {
            panic!("it is told")
        };
        let ids = |keys: &[NodeKey]| keys.iter().map(NodeKey::node_id).collect::<Vec<NodeId>>();
        let (clients, admins) = (ids(&[key_of_client()]), ids(&[Site::client()]));
        assert_eq!(admits, Admits { clients, admins, issuers: sites[0].config.issuers.clone() });
    }
    let mut peer = connect_as(&sites[0], &key_of_client());
    peer.greet();
    assert_eq!(peer.error(&Message::Joining(Joining::AskAdmits)).0, ErrorCode::NotAdmitted);
}

fn key_of_client() -> NodeKey {
    key(60)
}

#[test]
fn a_node_without_tls_takes_no_tokens() {
    let site = Site::new(1, 1);
    let _node = site.start();
    let mut peer = site.connect_raw();
    peer.send(&join(&SECRET, &entry(61)));
    assert_eq!(peer.last_error().0, ErrorCode::NotAdmitted);
}
