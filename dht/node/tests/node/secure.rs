//! Who is let in by a node with TLS, and what those hear who are not.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use deadwax_dht::wire::{ErrorCode, Feed, FrameHeader, HEADER_BYTES, Message};
use deadwax_dht::{NodeId, NodeKey};
use deadwax_dht_tls::{Identity, load_key};
use deadwax_track::TrackId;

use crate::cluster::{Site, own_address};
use crate::peer::{Peer, audio};

fn stranger() -> NodeKey {
    NodeKey::from_bytes(&[5; 32])
}

/// The key of a site's node.
fn key_of(site: &Site) -> NodeKey {
    load_key(&site.config.dir.join("node.key")).expect("a key")
}

/// A connection as whoever has `key`, before any word.
fn connect_as(site: &Site, key: &NodeKey) -> Peer {
    let mut peer = site.connect_raw();
    assert_eq!(peer.secure(&Identity::new(key)), Ok(site.node));
    peer
}

/// How often the node refused somebody before it knew him, or lost him.
fn failed_greetings(site: &Site) -> u64 {
    site.connect().status().counters["greetings_failed"]
}

#[test]
fn who_is_named_is_served() {
    let site = Site::secure();
    let _node = site.start();
    let mut peer = site.connect();
    for (seed, bytes) in (1..).zip([1, 40_000, 65_504, 1_048_577, 5_000_003]) {
        let bytes = audio(seed, bytes);
        let id = peer.put(site.volumes[0], &bytes, "secret");
        assert!(peer.get(site.volumes[0], id, 0, bytes.len() as u64) == bytes, "{} bytes", bytes.len());
        let middle = bytes.len() / 2;
        assert_eq!(peer.get(site.volumes[0], id, middle as u64, bytes.len() as u64), bytes[middle..]);
    }
}

#[test]
fn who_is_not_named_hears_so_once() {
    let site = Site::secure();
    let _node = site.start();
    let mut peer = connect_as(&site, &stranger());
    let (code, why) = peer.last_error();
    assert_eq!(code, ErrorCode::NotAdmitted, "{why}");
    assert!(why.contains(&stranger().node_id().to_string()) && why.contains("`clients`"), "{why}");
    assert_eq!(failed_greetings(&site), 1);
}

#[test]
fn without_tls_one_hears_of_it_in_the_clear() {
    let site = Site::secure();
    let _node = site.start();
    let mut peer = site.connect_raw();
    peer.request = 7;
    let hello = peer.hello();
    peer.send(&hello);
    let (header, _) = peer.read();
    assert_eq!(header.stamp.request, 7, "the answer is to the Hello");
    let mut peer = site.connect_raw();
    let hello = peer.hello();
    peer.send(&hello);
    let (code, why) = peer.last_error();
    assert_eq!(code, ErrorCode::Version);
    assert!(why.contains("TLS only") && why.contains("tls = true"), "{why}");
}

#[test]
fn with_tls_to_a_plain_node_one_hears_of_it() {
    let site = Site::new(1, 1);
    let _node = site.start();
    let why = site.connect_raw().secure(&Identity::new(&Site::client())).expect_err("it does not speak TLS");
    assert!(why.contains("without TLS") && why.contains("tls = true"), "{why}");
    // Its own words, for whoever looks at the bytes.
    let mut peer = site.connect_raw();
    let mut session = Identity::new(&Site::client()).connect();
    assert_eq!(session.handshake(), Ok(None));
    peer.write(session.outgoing()).expect("sent");
    let (code, why) = peer.last_error();
    assert!(code == ErrorCode::Version && why.contains("tls = true"), "{code:?}: {why}");
    site.connect().status();
}

#[test]
fn garbage_is_refused_and_harms_nobody() {
    let site = Site::secure();
    let _node = site.start();
    for bytes in [b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".to_vec(), vec![0; 3_000_000]] {
        let mut peer = site.connect_raw();
        drop(peer.socket.write_all(&bytes));
        let (code, why) = peer.last_error();
        assert!(code == ErrorCode::Invalid && why.contains("not a deadwax frame"), "{code:?}: {why}");
    }
    // What begins as TLS does is answered by an alert: kind 21.
    for seed in 1..20 {
        let mut bytes = audio(seed, 500);
        bytes[..5].copy_from_slice(&[22, 3, 1, 0, 200]);
        let mut socket = TcpStream::connect(site.config.listen).expect("the node listens");
        drop(socket.write_all(&bytes));
        drop(socket.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        // It may end in a reset: not all was read.
        drop(socket.read_to_end(&mut answer));
        assert!(answer.first().is_none_or(|kind| *kind == 21), "seed {seed}: {answer:02x?}");
    }
    // A handshake that ends in the middle, and records that are not what was agreed on.
    let mut session = Identity::new(&Site::client()).connect();
    assert_eq!(session.handshake(), Ok(None));
    let mut socket = TcpStream::connect(site.config.listen).expect("the node listens");
    socket.write_all(&session.outgoing()[..100]).expect("sent");
    drop(socket);
    let mut peer = connect_as(&site, &Site::client());
    peer.greet();
    peer.socket.write_all(&[23, 3, 3, 0, 40]).and_then(|()| peer.socket.write_all(&[7; 40])).expect("sent");
    let mut answer = Vec::new();
    drop(peer.socket.read_to_end(&mut answer));
    assert!(answer.first() == Some(&23), "an alert, encrypted, and the end: {answer:02x?}");
    assert!(failed_greetings(&site) >= 21);
}

#[test]
fn who_connects_and_says_little_is_soon_gone() {
    let mut site = Site::secure();
    site.config.stall_timeout_s = 1;
    site.config.connections_max = 8;
    let _node = site.start();
    let mut session = Identity::new(&Site::client()).connect();
    assert_eq!(session.handshake(), Ok(None));
    let began = Instant::now();
    // As many as there may be: some silent, some in the middle of the handshake, a byte at a time.
    let mut slow: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(site.config.listen).expect("listens")).collect();
    let mut bytes = session.outgoing().iter();
    let mut open = slow.len();
    while open > 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "{open} are still there");
        let byte = *bytes.next().expect("they are gone before they have said all");
        for (number, socket) in slow.iter_mut().enumerate() {
            socket.set_read_timeout(Some(Duration::from_millis(10))).expect("set");
            if number % 2 == 1 {
                drop(socket.write_all(&[byte]));
            }
        }
        slow.retain_mut(
            |socket| matches!(socket.read(&mut [0; 64]), Err(why) if why.kind() == std::io::ErrorKind::WouldBlock),
        );
        open = slow.len();
    }
    assert!(began.elapsed() >= Duration::from_secs(1), "they were given some time");
    site.connect().status();
}

#[test]
fn one_connection_too_many_is_told_so_in_its_own_language() {
    let mut site = Site::secure();
    site.config.connections_max = 2;
    let _node = site.start();
    let _guests = [site.connect(), site.connect()];
    let (code, why) = connect_as(&site, &Site::client()).last_error();
    assert_eq!(code, ErrorCode::Busy, "{why}");
}

#[test]
fn nobody_speaks_for_another() {
    let sites = Site::trio_with(|config| {
        config.tls = true;
        config.clients = vec![Site::client().node_id()];
    });
    let _node = sites[0].start();
    let introduction = |node: NodeId| Message::Introduction { node, address: own_address().to_string() };
    // A node for another, and a client for a node, and even for itself.
    let (second, client) = (key_of(&sites[1]), Site::client());
    let lies = [(&second, sites[2].node), (&client, sites[2].node), (&client, client.node_id())];
    for (key, node) in lies {
        let mut peer = connect_as(&sites[0], key);
        peer.greet();
        peer.send(&introduction(node));
        let (code, why) = peer.last_error();
        assert_eq!(code, ErrorCode::NotAdmitted, "{why}");
        assert!(why.contains(&key.node_id().to_string()) && why.contains(&node.to_string()), "{why}");
    }
    let mut peer = connect_as(&sites[0], &second);
    peer.greet();
    peer.send(&introduction(sites[1].node));
    peer.status();
}

#[test]
fn a_node_hears_only_the_node_that_it_means() {
    // Where the second node should be, there is somebody with another key.
    let sites = Site::trio_with(|config| {
        config.tls = true;
        config.clients = vec![Site::client().node_id()];
    });
    let impostor = std::net::TcpListener::bind(sites[1].config.listen).expect("free");
    let _node = sites[0].start();
    let (mut socket, _) = impostor.accept().expect("the first node calls");
    let mut session = Identity::new(&stranger()).accept();
    let caller = loop {
        let step = session.handshake();
        socket.write_all(session.outgoing()).expect("sent");
        session.sent(session.outgoing().len());
        if let Some(id) = step.expect("the caller has its key") {
            break id;
        }
        let count = socket.read(session.space(1).expect("room")).expect("it speaks");
        assert!(count > 0, "it speaks");
        session.received(count);
    };
    assert_eq!(caller, sites[0].node);
    // It hangs up without a word: no Hello comes.
    let mut word = [0; HEADER_BYTES];
    loop {
        match session.read(&mut word.as_mut_slice()).expect("whole records") {
            deadwax_dht_tls::Read::Bytes(_) => panic!("it speaks to a stranger: {:?}", FrameHeader::decode(&word)),
            deadwax_dht_tls::Read::Closed => return,
            deadwax_dht_tls::Read::Wanting => match socket.read(session.space(1).expect("room")) {
                Ok(0) | Err(_) => return,
                Ok(count) => session.received(count),
            },
        }
    }
}

#[test]
fn who_is_admitted_follows_the_settings_while_the_node_serves() {
    let mut site = Site::secure();
    let file = site.path("master.toml");
    site.config.source = Some(file.clone());
    std::fs::write(&file, site.config.to_toml()).expect("written");
    let node = site.start();
    let mut old = [site.connect(), site.connect()];
    old.iter_mut().for_each(|peer| _ = peer.status());
    let mut changed = site.config.clone();
    changed.clients = vec![stranger().node_id()];
    std::fs::write(&file, changed.to_toml()).expect("written");
    node.stopper().reload().expect("good settings");
    let mut new = connect_as(&site, &stranger());
    new.greet();
    let id = new.put(site.volumes[0], &audio(1, 1_000), "mine");
    // The old one is asked again at his next request, whatever it is.
    let has = Message::Has { volume: site.volumes[0], id: TrackId::of(b"any") };
    for (mut old, request) in old.into_iter().zip([has, Message::Feed(Feed::TakedownHeads)]) {
        old.request += 1;
        old.send(&request);
        assert_eq!(old.last_error().0, ErrorCode::NotAdmitted);
    }
    assert_eq!(connect_as(&site, &Site::client()).last_error().0, ErrorCode::NotAdmitted);
    assert!(matches!(new.has(site.volumes[0], id), Message::Present { .. }));
}
