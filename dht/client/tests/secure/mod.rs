//! A client with a key, and nodes behind TLS: the right ones, others, and none.

use std::io::IoSlice;
use std::sync::Arc;

use deadwax_dht::wire::ErrorCode;
use deadwax_dht::{Map, MapSpec, NodeId, NodeKey};
use deadwax_dht_client::{Client, ClientConfig, Error, Identity};
use deadwax_dht_tls::{Read, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::peer::{Fault, Peer};
use crate::{get, put, spec, track};

fn key(number: u8) -> NodeKey {
    NodeKey::from_bytes(&[number; 32])
}

fn client_key() -> NodeKey {
    key(100)
}

/// What stands before a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Front {
    /// TLS, by the key of this number.
    Key(u8),
    /// Somebody who accepts, and says nothing.
    Mute,
    /// Nothing: the node speaks without TLS.
    Plain,
}

/// Three nodes whose names are of the keys 1 to 3, behind what is said, and a client of them.
async fn cluster(fronts: [Front; 3], config: ClientConfig) -> (Vec<Peer>, Client) {
    let mut peers = Vec::new();
    for (number, front) in (1..).zip(fronts) {
        let mut peer = Peer::start_as(number, key(number).node_id()).await;
        if front != Front::Plain {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let behind = std::mem::replace(&mut peer.address, listener.local_addr().expect("bound").to_string());
            tokio::spawn(stand_before(listener, behind, front));
        }
        peers.push(peer);
    }
    let map: MapSpec = spec(&peers);
    let config = ClientConfig { identity: Some(Identity::new(&client_key())), ..config };
    let client = Client::new(Arc::new(Map::new(map).expect("a good map")), config);
    (peers, client)
}

async fn stand_before(listener: TcpListener, behind: String, front: Front) {
    let mut held = Vec::new();
    while let Ok((socket, _)) = listener.accept().await {
        match front {
            Front::Key(number) => {
                let node = TcpStream::connect(&behind).await.expect("the node listens");
                tokio::spawn(pass_on(socket, node, Identity::new(&key(number)).accept()));
            }
            Front::Mute | Front::Plain => held.push(socket),
        }
    }
}

/// Decrypts one way and encrypts the other, until either end closes.
async fn pass_on(mut client: TcpStream, mut node: TcpStream, mut session: Session) -> std::io::Result<()> {
    let (mut up, mut down) = (vec![0; 70_000], vec![0; 70_000]);
    let mut known: Option<NodeId> = None;
    loop {
        if known.is_none() {
            known = session.handshake()?;
            assert!(known.is_none_or(|known| known == client_key().node_id()), "{known:?} is not the client");
        }
        while known.is_some()
            && let Read::Bytes(count) = session.read(&mut up.as_mut_slice())?
        {
            node.write_all(&up[..count]).await?;
        }
        client.write_all(session.outgoing()).await?;
        session.sent(session.outgoing().len());
        tokio::select! {
            came = client.read(session.space(1)?) => match came? {
                0 => return Ok(()),
                count => session.received(count),
            },
            came = node.read(&mut down), if known.is_some() => match came? {
                0 => {
                    session.close();
                    client.write_all(session.outgoing()).await?;
                    return Ok(());
                }
                count => {
                    let mut slices = [IoSlice::new(&down[..count])];
                    session.write(&mut slices.as_mut_slice())?;
                }
            },
        }
    }
}

#[tokio::test]
async fn over_tls_tracks_go_in_and_out_as_ever() {
    let (peers, client) = cluster([1, 2, 3].map(Front::Key), ClientConfig::default()).await;
    let (id, bytes) = track();
    put(&client, id, &bytes).await.expect("stored");
    client.drained().await;
    assert!(peers.iter().all(|peer| peer.holds(&id)));
    assert!(get(&client, id, 0, bytes.len() as u64).await.expect("whole") == bytes);
    assert_eq!(get(&client, id, 1_000_000, 1_000_001).await.expect("a byte"), bytes[1_000_000..1_000_001]);
    // One that breaks off in mid-stream is gone on from.
    peers.iter().take(2).for_each(|peer| peer.fault(Fault::DieInGet(3_000_000)));
    assert!(get(&client, id, 0, bytes.len() as u64).await.expect("whole") == bytes);
}

/// Why nothing comes of a read.
async fn why_not(client: &Client) -> String {
    match get(client, track().0, 0, 10).await {
        Err(why @ Error::Unavailable { .. }) => why.to_string(),
        other => panic!("expected Unavailable, got {other:?}"),
    }
}

#[tokio::test]
async fn whoever_has_another_key_is_not_asked() {
    let (peers, client) = cluster([4, 5, 6].map(Front::Key), ClientConfig::default()).await;
    let why = why_not(&client).await;
    assert!(why.contains("has the key of"), "{why}");
    assert!(peers.iter().all(|peer| peer.state.lock().expect("no panic").requests.is_empty()), "not even greeted");
}

#[tokio::test]
async fn a_node_without_tls_is_told_apart_from_one_that_is_down() {
    let (peers, client) = cluster([Front::Plain; 3], ClientConfig::default()).await;
    // What a real node says to a TLS hello: an error frame, which begins as all frames do.
    peers.iter().for_each(|peer| peer.fault(Fault::PlainError));
    let why = why_not(&client).await;
    assert!(why.contains("without TLS") && why.contains("tls = true"), "{why}");
}

#[tokio::test]
async fn who_says_nothing_is_given_up_and_the_others_serve() {
    let (id, bytes) = track();
    let config = ClientConfig { connect_ms: 200, ..ClientConfig::default() };
    let (peers, client) = cluster([Front::Mute, Front::Key(2), Front::Key(3)], config).await;
    peers.iter().for_each(|peer| peer.add(id, &bytes));
    assert!(get(&client, id, 0, bytes.len() as u64).await.expect("whole") == bytes);
}

#[tokio::test]
async fn who_is_not_admitted_hears_why() {
    let (peers, client) = cluster([1, 2, 3].map(Front::Key), ClientConfig::default()).await;
    peers.iter().for_each(|peer| peer.fault(Fault::Answer(ErrorCode::NotAdmitted)));
    let why = why_not(&client).await;
    assert!(why.contains("told to"), "{why}");
}
