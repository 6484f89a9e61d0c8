//! Two ends of a session without a network between them, so that every byte of it can be held back, cut and changed.

use std::io::IoSlice;
use std::sync::Arc;

use deadwax_dht::{NodeId, NodeKey};
use deadwax_dht_tls::{Identity, Read, Session, TlsError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, UnbufferedClientConnection};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::unbuffered::ConnectionState;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

fn key(seed: u8) -> NodeKey {
    NodeKey::from_bytes(&[seed; 32])
}

/// `count` bytes that differ by `seed` and do not repeat at any power of two.
fn audio(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1);
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..count).map(next).collect()
}

/// Puts what one end sends into the other, changed by `change`, which has its place in the stream. Answers how much.
fn carry(from: &mut Session, to: &mut Session, at: &mut usize, change: &mut impl FnMut(usize, u8) -> u8) -> usize {
    let count = from.outgoing().len();
    let bytes: Vec<u8> = from.outgoing().iter().enumerate().map(|(n, byte)| change(*at + n, *byte)).collect();
    from.sent(count);
    *at += count;
    to.space(count).expect("room")[..count].copy_from_slice(&bytes);
    to.received(count);
    count
}

/// The names that the client and the server learn; `change` sees the bytes of the client, then of the server.
fn shake_hands(
    client: &mut Session,
    server: &mut Session,
    mut changes: [&mut dyn FnMut(usize, u8) -> u8; 2],
) -> Result<(NodeId, NodeId), TlsError> {
    let (mut sent, mut learned) = ([0; 2], (None, None));
    for _ in 0..8 {
        learned.0 = learned.0.or(client.handshake()?);
        carry(client, server, &mut sent[0], &mut changes[0]);
        learned.1 = learned.1.or(server.handshake()?);
        carry(server, client, &mut sent[1], &mut changes[1]);
        if let (Some(server), Some(client)) = learned {
            return Ok((server, client));
        }
    }
    Err(TlsError::Closed)
}

fn unchanged(client: &mut Session, server: &mut Session) -> Result<(NodeId, NodeId), TlsError> {
    shake_hands(client, server, [&mut |_, byte| byte, &mut |_, byte| byte])
}

fn pair() -> (Session, Session) {
    let (mut client, mut server) = (Identity::new(&key(1)).connect(), Identity::new(&key(2)).accept());
    unchanged(&mut client, &mut server).expect("both have their keys");
    (client, server)
}

/// Sends all of `bytes` in slices of the given length, and reads them in parts of another.
fn send(from: &mut Session, to: &mut Session, bytes: &[u8], slice_bytes: usize, part_bytes: usize) -> Vec<u8> {
    let mut slices: Vec<_> = bytes.chunks(slice_bytes.max(1)).map(IoSlice::new).collect();
    let (mut slices, mut got) = (slices.as_mut_slice(), Vec::new());
    let mut part = vec![0; part_bytes];
    loop {
        from.write(&mut slices).expect("open");
        let waits = from.outgoing().len();
        if waits == 0 {
            return got;
        }
        // In such pieces as a socket gives.
        let count = waits.min(1 + (got.len() * 31) % 20_000);
        let space = to.space(count).expect("room");
        let count = count.min(space.len());
        space[..count].copy_from_slice(&from.outgoing()[..count]);
        from.sent(count);
        to.received(count);
        while let Read::Bytes(count) = to.read(&mut part.as_mut_slice()).expect("whole") {
            got.extend_from_slice(&part[..count]);
        }
    }
}

#[test]
fn both_ends_learn_whose_key_the_other_has() {
    let (mut client, mut server) = (Identity::new(&key(1)).connect(), Identity::new(&key(2)).accept());
    let learned = unchanged(&mut client, &mut server).expect("both have their keys");
    assert_eq!(learned, (key(2).node_id(), key(1).node_id()));
    assert_eq!(client.read(&mut [0; 1].as_mut_slice()), Ok(Read::Wanting));
    assert!(server.outgoing().is_empty(), "the server sends nothing to resume by");
}

#[test]
fn bytes_come_through_whole_in_any_sizes() {
    let (mut client, mut server) = pair();
    for (seed, size) in (1..).zip([1, 40, 16_383, 16_384, 16_385, 65_536, 1_300_003]) {
        let bytes = audio(seed, size);
        for (slice_bytes, part_bytes) in [(size, 1 << 20), (65_496, 4_096), (333, 70_000)] {
            assert!(send(&mut client, &mut server, &bytes, slice_bytes, part_bytes) == bytes, "{size} up");
            assert!(send(&mut server, &mut client, &bytes, slice_bytes, part_bytes) == bytes, "{size} down");
        }
        client.shrink();
        server.shrink();
    }
}

#[test]
fn an_end_may_be_told_apart_from_a_cut() {
    let (mut client, mut server) = pair();
    let text = b"the last word";
    client.write(&mut [IoSlice::new(text)].as_mut_slice()).expect("open");
    client.close();
    carry(&mut client, &mut server, &mut 0, &mut |_, byte| byte);
    let mut got = [0; 64];
    assert_eq!(server.read(&mut got.as_mut_slice()), Ok(Read::Bytes(text.len())));
    assert_eq!(&got[..text.len()], text);
    assert_eq!(server.read(&mut got.as_mut_slice()), Ok(Read::Closed));
    assert_eq!(server.read(&mut got.as_mut_slice()), Ok(Read::Closed));
}

/// Where in a stream of records are bytes that mean nothing in TLS 1.3 (RFC 8446, section 5): the kind and version in a
/// header, and records that only look like a change of ciphers.
fn meaningless(stream: &[u8]) -> Vec<usize> {
    let (mut at, mut out) = (0, Vec::new());
    while at < stream.len() {
        let next = at + 5 + usize::from(u16::from_be_bytes([stream[at + 3], stream[at + 4]]));
        out.extend(at..if stream[at] == 20 { next } else { at + 3 });
        at = next;
    }
    out
}

#[test]
fn no_byte_of_a_handshake_may_be_changed() {
    let (mut client, mut server) = (Identity::new(&key(1)).connect(), Identity::new(&key(2)).accept());
    let mut streams = [Vec::new(), Vec::new()];
    let [up, down] = &mut streams;
    let mut keep_up = |_: usize, byte: u8| {
        up.push(byte);
        byte
    };
    let mut keep_down = |_: usize, byte: u8| {
        down.push(byte);
        byte
    };
    shake_hands(&mut client, &mut server, [&mut keep_up, &mut keep_down]).expect("both have their keys");
    for (side, stream) in streams.iter().enumerate() {
        let ignored = meaningless(stream);
        for at in (0..stream.len()).step_by(3) {
            let (mut client, mut server) = (Identity::new(&key(1)).connect(), Identity::new(&key(2)).accept());
            let mut flip = |here: usize, byte: u8| if here == at { byte ^ 0x10 } else { byte };
            let mut keep = |_: usize, byte: u8| byte;
            let changes: [&mut dyn FnMut(usize, u8) -> u8; 2] =
                if side == 0 { [&mut flip, &mut keep] } else { [&mut keep, &mut flip] };
            let result = shake_hands(&mut client, &mut server, changes);
            assert!(
                result.is_err() || ignored.contains(&at),
                "byte {at} of side {side} was changed, and nobody noticed"
            );
        }
    }
}

#[test]
fn no_byte_of_a_stream_may_be_changed_or_left_out() {
    let bytes = audio(3, 20_000);
    for at in [1, 2, 3, 4, 5].into_iter().chain((0..20_040).step_by(501)) {
        let (mut client, mut server) = pair();
        client.write(&mut [IoSlice::new(&bytes)].as_mut_slice()).expect("open");
        carry(&mut client, &mut server, &mut 0, &mut |here, byte| if here == at { byte ^ 1 } else { byte });
        let mut got = vec![0; 32_000];
        let mut into = got.as_mut_slice();
        let result = loop {
            match server.read(&mut into) {
                Ok(Read::Bytes(_)) => {}
                other => break other,
            }
        };
        let left = into.len();
        let read = got.len() - left;
        assert!(got[..read] == bytes[..read], "byte {at}: others came");
        match at {
            // The kind and version in a record's header mean nothing in TLS 1.3 (RFC 8446, section 5.2).
            0..=2 => assert!(read == bytes.len() || result.is_err(), "byte {at}: {read} bytes came"),
            // A length that grew waits for more.
            3 | 4 => assert!(read < bytes.len(), "byte {at}: {read} bytes came"),
            _ => assert!(read < bytes.len() && result.is_err(), "byte {at} was changed, and nobody noticed"),
        }
        if result.is_err() {
            assert!(!server.outgoing().is_empty(), "the other end is told");
            carry(&mut server, &mut client, &mut 0, &mut |_, byte| byte);
            let why = client.read(&mut [0; 9].as_mut_slice()).expect_err("an alert");
            assert!(why.to_string().contains("alert"), "{why}");
            assert_eq!(server.read(&mut [0; 9].as_mut_slice()), result, "nothing comes after it");
        }
    }
}

#[test]
fn what_is_no_tls_is_told_apart() {
    for (bytes, expected) in [
        (&b"DWAX\x02\x01"[..], TlsError::Plain),
        (b"GET / HTTP/1.1\r\n", TlsError::NotTls(b'G')),
        (&[0; 64], TlsError::NotTls(0)),
    ] {
        for mut session in [Identity::new(&key(1)).connect(), Identity::new(&key(2)).accept()] {
            session.space(bytes.len()).expect("room")[..bytes.len()].copy_from_slice(bytes);
            session.received(bytes.len());
            assert_eq!(session.handshake(), Err(expected.clone()));
        }
    }
    for seed in 1..40 {
        for mut session in [Identity::new(&key(1)).connect(), Identity::new(&key(2)).accept()] {
            let mut bytes = audio(seed, 300);
            bytes[..3].copy_from_slice(&[22, 3, 3]);
            bytes[3] &= 0x3f;
            session.space(300).expect("room")[..300].copy_from_slice(&bytes);
            session.received(300);
            assert!(!matches!(session.handshake(), Ok(Some(_))), "seed {seed}");
        }
    }
}

#[test]
fn whoever_is_not_known_yet_takes_up_little() {
    for mut session in [Identity::new(&key(1)).connect(), Identity::new(&key(2)).accept()] {
        // A record of the handshake, of 16 KiB, that comes a hundred bytes at a time.
        let mut bytes = vec![0; 16_000];
        bytes[..9].copy_from_slice(&[22, 3, 3, 0x40, 0, 1, 0, 0x3f, 0xfc]);
        let taken = bytes.chunks(100).take_while(|part| {
            let Ok(space) = session.space(part.len()) else { return false };
            space[..part.len()].copy_from_slice(part);
            session.received(part.len());
            session.handshake() == Ok(None)
        });
        assert!((1..=20).contains(&taken.count()));
        assert_eq!(session.space(100), Err(TlsError::Flooded));
    }
}

#[test]
fn a_writer_whose_bytes_are_not_taken_waits() {
    let (mut client, _server) = pair();
    let bytes = vec![7; 10_000_000];
    let mut slices = [IoSlice::new(&bytes)];
    let mut slices = slices.as_mut_slice();
    client.write(&mut slices).expect("open");
    let waits = client.outgoing().len();
    client.write(&mut slices).expect("open");
    assert_eq!(client.outgoing().len(), waits, "nothing is added to a full buffer");
    assert!(waits < 200_000, "{waits} bytes wait");
}

/// Believes any key, as nobody should.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("not offered")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// A client of another make that names one key and signs with another, or names none.
fn stranger(named: Option<&NodeKey>, signs: &NodeKey) -> UnbufferedClientConnection {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let config = match named {
        None => config.with_no_client_auth(),
        Some(named) => {
            let head = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];
            let pkcs8 = PrivatePkcs8KeyDer::from([&head[..], &signs.to_bytes()].concat());
            let signing = ring::sign::any_eddsa_type(&pkcs8).expect("a key");
            let spki = [&[48, 42, 48, 5, 6, 3, 43, 101, 112, 3, 33, 0][..], &named.public()].concat();
            let certified = CertifiedKey::new(vec![CertificateDer::from(spki)], signing);
            config.with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(certified))))
        }
    };
    UnbufferedClientConnection::new(Arc::new(config), ServerName::try_from("x.invalid").expect("a name")).expect("good")
}

/// What a server makes of it.
fn served(mut stranger: UnbufferedClientConnection) -> Result<NodeId, TlsError> {
    let mut server = Identity::new(&key(2)).accept();
    let (mut incoming, mut outgoing) = (Vec::new(), vec![0; 20_000]);
    for _ in 0..40 {
        let status = stranger.process_tls_records(&mut incoming);
        let mut discard = status.discard;
        match status.state.expect("the server is as it should be") {
            ConnectionState::EncodeTlsData(mut data) => {
                let count = data.encode(&mut outgoing).expect("room");
                server.space(count).expect("room")[..count].copy_from_slice(&outgoing[..count]);
                server.received(count);
            }
            ConnectionState::TransmitTlsData(data) => data.done(),
            _ => {
                if let Some(id) = server.handshake()? {
                    return Ok(id);
                }
                incoming.drain(..std::mem::take(&mut discard));
                incoming.extend_from_slice(server.outgoing());
                server.sent(server.outgoing().len());
            }
        }
        incoming.drain(..discard);
    }
    panic!("the handshake does not end");
}

#[test]
fn whoever_does_not_have_the_key_that_he_names_is_refused() {
    assert_eq!(served(stranger(Some(&key(1)), &key(1))), Ok(key(1).node_id()));
    let why = served(stranger(Some(&key(1)), &key(3))).expect_err("another's key").to_string();
    assert!(why.contains("BadSignature"), "{why}");
    let why = served(stranger(None, &key(3))).expect_err("no key").to_string();
    assert!(why.contains("ertificate"), "{why}");
}
