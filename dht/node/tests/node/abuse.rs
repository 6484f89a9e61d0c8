//! What a node must bear: nonsense, lies, cuts and stalls. Each is answered in words, and harms nothing stored.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::thread::sleep;
use std::time::{Duration, Instant};

use deadwax_dht::wire::{ErrorCode, FrameHeader, HEADER_BYTES, Kind, Message, PROTOCOL_VERSION};
use deadwax_dht::{ClusterId, NodeId, VolumeId};
use deadwax_track::{ByteRange, TrackId};

use crate::cluster::Site;
use crate::peer::{Peer, audio, tags};

/// Waits until the node has noticed that a put ended without a track. A question that the node answers, not a sleep.
fn wait_for_abort(site: &Site, aborted: u64) {
    let mut peer = site.connect();
    while peer.status().counters["puts_aborted"] < aborted {}
}

#[test]
fn bytes_that_are_not_the_ids_are_not_stored() {
    let site = Site::new(1, 2);
    let _node = site.start();
    let volume = site.volumes[0];
    for seed in 1..5 {
        let mut peer = site.connect();
        let promised = TrackId::of(&audio(seed, 300_000));
        assert_eq!(peer.begin_put(volume, promised, 300_000, &tags("lie")), Message::Ready);
        peer.send_data(&audio(seed + 100, 300_000), 65_536);
        let (code, why) = peer.last_error();
        assert_eq!(code, ErrorCode::Invalid, "{why}");
        assert_eq!(site.connect().has(volume, promised), Message::Absent);
    }
    assert_eq!(site.connect().status().volumes[0].tracks, 0);
}

#[test]
fn a_put_that_is_cut_off_leaves_nothing_and_can_be_repeated() {
    let site = Site::new(1, 2);
    let node = site.start();
    let volume = site.volumes[0];
    let tracks: Vec<_> = (1..5).map(|seed| audio(seed, 3_000_000)).collect();
    for (bytes, aborted) in tracks.iter().zip(1..) {
        let id = TrackId::of(bytes);
        let mut peer = site.connect();
        assert_eq!(peer.begin_put(volume, id, bytes.len() as u64, &tags("cut")), Message::Ready);
        peer.send_data(&bytes[..1_500_000], 1_000_000);
        drop(peer);
        wait_for_abort(&site, aborted);
        assert_eq!(site.connect().has(volume, id), Message::Absent);
    }
    node.stop();
    let _node = site.start();
    let mut peer = site.connect();
    for bytes in &tracks {
        assert_eq!(peer.has(volume, TrackId::of(bytes)), Message::Absent);
        let id = peer.put(volume, bytes, "whole");
        assert_eq!(peer.get(volume, id, 0, bytes.len() as u64), *bytes);
    }
}

#[test]
fn a_put_with_too_much_data_or_another_message_is_refused() {
    let site = Site::new(1, 2);
    let _node = site.start();
    let volume = site.volumes[0];
    let bytes = audio(1, 1_000);
    let id = TrackId::of(&bytes);

    let mut peer = site.connect();
    assert_eq!(peer.begin_put(volume, id, 1_000, &tags("long")), Message::Ready);
    peer.send_data(&[&bytes[..], &[0]].concat(), 2_000);
    let (code, why) = peer.last_error();
    assert_eq!(code, ErrorCode::Invalid);
    assert!(why.contains("1000 bytes left"), "{why}");

    let mut peer = site.connect();
    assert_eq!(peer.begin_put(volume, id, 1_000, &tags("other")), Message::Ready);
    peer.send(&Message::Status);
    assert_eq!(peer.last_error().0, ErrorCode::Invalid);
    assert_eq!(site.connect().has(volume, id), Message::Absent);
}

#[test]
fn a_damaged_data_frame_aborts_the_put() {
    let site = Site::new(1, 1);
    let _node = site.start();
    let volume = site.volumes[0];
    let mut bytes = audio(1, 100_000);
    let id = TrackId::of(&bytes);
    let mut peer = site.connect();
    assert_eq!(peer.begin_put(volume, id, 100_000, &tags("bent")), Message::Ready);
    let header = FrameHeader::new(Kind::Data, peer.stamp(), [bytes.as_slice()]).encode();
    bytes[77] ^= 1;
    peer.socket.write_all(&[&header[..], &bytes].concat()).expect("sent");
    let (code, why) = peer.last_error();
    assert_eq!(code, ErrorCode::Invalid);
    assert!(why.contains("checksum"), "{why}");
    assert_eq!(site.connect().has(volume, id), Message::Absent);
}

#[test]
fn garbage_is_answered_in_words_and_the_connection_closed() {
    let site = Site::new(1, 2);
    let _node = site.start();
    let hello = site.connect_raw().hello().frame(site.connect_raw().stamp()).to_vec();
    let bent = |at: usize| {
        let mut frame = hello.clone();
        frame[at] ^= 0x40;
        frame
    };
    let cases: [(Vec<u8>, ErrorCode, &str); 5] = [
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".to_vec(),
            ErrorCode::Invalid,
            "not a deadwax frame",
        ),
        (vec![0; 5_000_000], ErrorCode::Invalid, "not a deadwax frame"),
        (bent(8), ErrorCode::Invalid, "header checksum"),
        (bent(HEADER_BYTES + 3), ErrorCode::Invalid, "payload checksum"),
        (Message::Status.frame(site.connect_raw().stamp()).to_vec(), ErrorCode::Invalid, "begins with Hello"),
    ];
    for (bytes, expected, words) in cases {
        let mut peer = site.connect_raw();
        // The node may close before it has read all.
        drop(peer.socket.write_all(&bytes));
        let (code, why) = peer.last_error();
        assert_eq!(code, expected, "{why}");
        assert!(why.contains(words), "{why}");
    }
    site.connect().status();
}

/// A header with the given bytes changed and its checksum made good: byte 36 on is the CRC of what is before it.
fn forged(mut header: [u8; HEADER_BYTES], change: impl FnOnce(&mut [u8; HEADER_BYTES])) -> [u8; HEADER_BYTES] {
    change(&mut header);
    let mut crc = u32::MAX;
    for byte in &header[..36] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    header[36..].copy_from_slice(&(!crc).to_le_bytes());
    header
}

#[test]
fn oversized_lengths_and_unknown_versions_are_refused_before_anything_is_read() {
    let site = Site::new(1, 1);
    let _node = site.start();
    let before = site.connect().status().resident_bytes;
    for _ in 0..20 {
        let mut peer = site.connect();
        let good = FrameHeader::new(Kind::Data, peer.stamp(), [[0_u8; 8].as_slice()]).encode();
        peer.socket.write_all(&forged(good, |h| h[12..16].copy_from_slice(&u32::MAX.to_le_bytes()))).expect("sent");
        let (code, why) = peer.last_error();
        assert_eq!(code, ErrorCode::Invalid);
        assert!(why.contains("payload bytes"), "{why}");
    }
    let after = site.connect().status().resident_bytes;
    assert!(after < before + (64 << 20), "{before} bytes resident, then {after}");

    let mut peer = site.connect_raw();
    let hello = peer.hello().frame(peer.stamp());
    let header = hello.first_chunk::<HEADER_BYTES>().expect("a header");
    peer.socket.write_all(&forged(*header, |h| h[4] = 99)).expect("sent");
    let (code, why) = peer.last_error();
    assert_eq!(code, ErrorCode::Version);
    assert!(why.contains("99"), "{why}");
}

#[test]
fn strangers_are_told_what_differs() {
    let site = Site::new(1, 1);
    let _node = site.start();
    let greet = |change: fn(&mut Peer) -> Message| {
        let mut peer = site.connect_raw();
        let hello = change(&mut peer);
        peer.send(&hello);
        peer.last_error()
    };
    let other = greet(|peer| {
        peer.cluster = ClusterId::from_bytes([9; 16]);
        peer.hello()
    });
    assert_eq!(other.0, ErrorCode::WrongCluster);
    assert!(other.1.contains(&site.cluster.to_string()), "{}", other.1);
    let other = greet(|peer| {
        peer.node = NodeId::from_bytes([9; 32]);
        peer.hello()
    });
    assert_eq!(other.0, ErrorCode::WrongNode);
    assert!(other.1.contains(&site.node.to_string()), "{}", other.1);
    let other = greet(|peer| Message::Hello {
        protocol_min: PROTOCOL_VERSION + 1,
        protocol_max: PROTOCOL_VERSION + 3,
        cluster: peer.cluster,
        node: None,
    });
    assert_eq!(other.0, ErrorCode::Version);

    // A frame of another cluster on a connection that was greeted in ours.
    let mut peer = site.connect();
    peer.cluster = ClusterId::from_bytes([9; 16]);
    peer.send(&Message::Status);
    assert_eq!(peer.last_error().0, ErrorCode::WrongCluster);
}

#[test]
fn another_epoch_moves_and_another_volume_is_unknown() {
    let site = Site::new(1, 2);
    let _node = site.start();
    let volume = site.volumes[0];
    let mut peer = site.connect();
    let id = peer.put(volume, &audio(1, 1_000), "here");
    peer.epoch = 3;
    assert_eq!(peer.error(&Message::Has { volume, id }).0, ErrorCode::Moved { epoch: 1 });
    let put = Message::Put { volume, id: TrackId::of(b"x"), bytes: 1, tags: tags("new") };
    assert_eq!(peer.error(&put).0, ErrorCode::Moved { epoch: 1 });
    assert_eq!(peer.status().epoch, 1, "status is told to anyone in the cluster");
    peer.epoch = 1;
    assert_eq!(peer.has(volume, id), Message::Present { bytes: 1_000 });

    let volume = VolumeId::from_bytes([9; 16]);
    let range = ByteRange::new(0, 1).expect("a range");
    for request in [
        Message::Has { volume, id },
        Message::Get { volume, id, range },
        Message::Put { volume, id, bytes: 1_000, tags: tags("there") },
        Message::TakeDown { volume, id, number: 1 },
        Message::Info { volume, id },
    ] {
        assert_eq!(peer.error(&request).0, ErrorCode::WrongNode, "{request:?}");
    }
}

#[test]
fn a_reply_where_a_request_belongs_closes_the_connection() {
    let site = Site::new(1, 1);
    let _node = site.start();
    for message in [Message::Ready, Message::End, Message::Absent, site.connect_raw().hello()] {
        let mut peer = site.connect();
        peer.send(&message);
        let (code, why) = peer.last_error();
        assert_eq!(code, ErrorCode::Invalid);
        assert!(why.contains("no request"), "{why}");
    }
}

#[test]
fn stalled_clients_hold_nobody_and_are_ended() {
    let mut site = Site::new(1, 2);
    site.config.stall_timeout_s = 1;
    let _node = site.start();
    let volume = site.volumes[0];
    let bytes = audio(1, 30_000_000);
    let id = site.connect().put(volume, &bytes, "large");
    // One asks for much and reads nothing; one offers a track and sends half of it; one sends half a header.
    let mut reader = site.connect();
    let range = ByteRange::new(0, bytes.len() as u64).expect("a range");
    reader.send(&Message::Get { volume, id, range });
    let mut writer = site.connect();
    let other = audio(2, 1_000_000);
    assert_eq!(writer.begin_put(volume, TrackId::of(&other), 1_000_000, &tags("half")), Message::Ready);
    writer.send_data(&other[..500_000], 100_000);
    let mut silent = site.connect();
    silent.socket.write_all(b"DWAX").expect("sent");

    let mut peer = site.connect();
    for seed in 10..20 {
        let bytes = audio(seed, 1_000_000);
        let id = peer.put(volume, &bytes, "past them");
        assert_eq!(peer.get(volume, id, 0, 1_000_000), bytes);
    }
    wait_for_abort(&site, 1);
    while peer.status().counters["gets_aborted"] == 0 {}
    assert_eq!(peer.has(volume, TrackId::of(&other)), Message::Absent);
}

/// Whether the node has closed the connection, whatever came before.
fn is_closed(peer: &Peer) -> bool {
    peer.socket.set_nonblocking(true).expect("set");
    let peeked = peer.socket.peek(&mut [0; 1]);
    peer.socket.set_nonblocking(false).expect("set");
    !peeked.is_err_and(|why| why.kind() == ErrorKind::WouldBlock)
}

#[test]
fn who_trickles_is_ended_though_he_is_never_silent_and_who_is_slow_is_not() {
    for mut site in [Site::new(1, 2), Site::secure()] {
        site.config.stall_timeout_s = 3;
        let _node = site.start();
        let volume = site.volumes[0];
        // One sends a track byte by byte; one a request.
        let (slow, bytes) = (audio(1, 500_000), audio(2, 1_000_000));
        let mut writer = site.connect();
        assert_eq!(writer.begin_put(volume, TrackId::of(&bytes), 1_000_000, &tags("drops")), Message::Ready);
        let mut asker = site.connect();
        let put = Message::Put { volume, id: TrackId::of(&slow), bytes: 1, tags: tags(&"long".repeat(1_000)) };
        let request = put.frame(asker.stamp());
        let mut honest = site.connect();
        assert_eq!(honest.begin_put(volume, TrackId::of(&slow), 500_000, &tags("slow")), Message::Ready);

        let (began, mut parts) = (Instant::now(), slow.chunks(10_000));
        for (byte, of_request) in bytes.chunks(1).zip(request.chunks(1)) {
            if is_closed(&writer) && is_closed(&asker) {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "they are borne");
            // They may be closed by now.
            let header = FrameHeader::new(Kind::Data, writer.stamp(), [byte]).encode();
            drop(writer.write(&[&header[..], byte].concat()));
            drop(asker.write(of_request));
            if let Some(part) = parts.next() {
                honest.send_data(part, part.len());
            }
            sleep(Duration::from_millis(50));
        }
        parts.for_each(|part| honest.send_data(part, part.len()));
        assert!(matches!(honest.reply(), Message::Stored { already: false, .. }));
        wait_for_abort(&site, 1);
        assert_eq!(site.connect().has(volume, TrackId::of(&bytes)), Message::Absent);
    }
}

#[test]
fn beyond_the_limits_the_answer_is_busy() {
    let mut site = Site::new(1, 1);
    site.config.transfers_max = 2;
    site.config.connections_max = 4;
    let _node = site.start();
    let volume = site.volumes[0];
    let mut putting: Vec<_> = (1..3)
        .map(|seed| {
            let mut peer = site.connect();
            let bytes = audio(seed, 1_000);
            let id = TrackId::of(&bytes);
            assert_eq!(peer.begin_put(volume, id, 1_000, &tags("held")), Message::Ready);
            (peer, bytes)
        })
        .collect();
    let mut peer = site.connect();
    let third = audio(3, 1_000);
    let put = Message::Put { volume, id: TrackId::of(&third), bytes: 1_000, tags: tags("third") };
    assert_eq!(peer.error(&put).0, ErrorCode::Busy);

    let fourth = site.connect();
    let mut fifth = site.connect_raw();
    let (code, why) = fifth.last_error();
    assert_eq!(code, ErrorCode::Busy);
    assert!(why.contains('4'), "{why}");
    drop(fourth);

    let (held, bytes) = &mut putting[0];
    held.send_data(bytes, 1_000);
    assert!(matches!(held.reply(), Message::Stored { .. }));
    peer.put(volume, &third, "third, after all");
}

#[test]
fn a_client_that_closes_its_side_is_let_go() {
    let site = Site::new(1, 1);
    let _node = site.start();
    let mut peer = site.connect();
    peer.socket.shutdown(Shutdown::Write).expect("closed");
    assert_eq!(std::io::Read::read(&mut peer.socket, &mut [0; 1]).expect("closed in order"), 0);
}
