//! What is acknowledged is stored; what is cut off, too long or not the id's is not.

use std::sync::atomic::Ordering;

use crate::{World, music, path};

#[test]
fn an_upload_is_stored_once_and_says_so() {
    let world = World::usual();
    let bytes = music(1, 700_000);
    let path = path(&bytes);
    let mut connection = world.connect();
    let reply = connection.ask("PUT", &path, &[], &bytes);
    assert_eq!((reply.status, reply.header("location")), (201, Some(&*path)));
    let json = reply.json();
    assert_eq!(
        (&json["bytes"], &json["pieces"], &json["id"]),
        (&700_000.into(), &3.into(), &path["/v1/tracks/".len()..].into())
    );
    assert!(json["copies"].as_u64() >= Some(2) && json["zones"].as_u64() >= Some(2), "{json}");
    let reply = world.ask("POST", "/v1/tracks", &[], &bytes);
    assert_eq!((reply.status, &reply.json()["id"]), (200, &json["id"]));
    let other = music(2, 1_500_000);
    let reply = world.ask("POST", "/v1/tracks", &[("Content-Type", "audio/ogg")], &other);
    assert_eq!((reply.status, &reply.json()["id"]), (201, &crate::path(&other)["/v1/tracks/".len()..].into()));
    let reply = world.ask("GET", &crate::path(&other), &[], b"");
    assert!(reply.body == other && reply.header("content-type") == Some("audio/ogg"));
}

/// A body in chunks, without its length.
fn chunked(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in bytes.chunks(99_991) {
        out.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

#[test]
fn an_upload_without_a_length_is_spooled() {
    let world = World::usual();
    for (method, seed) in [("PUT", 3), ("POST", 4)] {
        let bytes = music(seed, 2_500_000);
        let target = if method == "PUT" { path(&bytes) } else { "/v1/tracks".to_owned() };
        let mut connection = world.connect();
        connection.send_head(method, &target, &[("Transfer-Encoding", "chunked")]);
        connection.send(&chunked(&bytes));
        assert_eq!(connection.read(method).status, 201, "{method}");
        assert!(connection.ask("GET", &path(&bytes), &[], b"").body == bytes);
    }
    let (expected, sent) = (music(5, 1000), music(6, 1000));
    let mut connection = world.connect();
    connection.send_head("PUT", &path(&expected), &[("Transfer-Encoding", "chunked")]);
    connection.send(&chunked(&sent));
    assert_eq!(connection.read("PUT").status, 422);
    assert_eq!(world.copies(&expected) + world.copies(&sent), 0);
}

#[test]
fn bytes_that_are_not_the_ids_store_nothing() {
    let world = World::usual();
    for size in [1, 1000, 3_000_000] {
        let (expected, sent) = (music(7, size), music(8, size));
        let reply = world.ask("PUT", &path(&expected), &[], &sent);
        assert_eq!((reply.status, reply.code().as_str()), (422, "wrong_bytes"), "{size}");
        assert_eq!(world.copies(&expected) + world.copies(&sent), 0);
    }
    let bytes = music(9, 5000);
    world.put(&bytes, &[]);
    let reply = world.ask("PUT", &path(&bytes), &[], &bytes[..4000]);
    assert_eq!((reply.status, reply.code().as_str()), (422, "wrong_bytes"));
}

#[test]
fn an_upload_of_nothing_or_too_much_is_refused_before_it_is_read() {
    let world = World::usual();
    let id = path(b"x");
    for (method, target) in [("PUT", &*id), ("POST", "/v1/tracks")] {
        let reply = world.ask(method, target, &[], b"");
        assert_eq!((reply.status, reply.code().as_str()), (400, "empty"), "{method}");
        let mut connection = world.connect();
        connection.send_head(method, target, &[("Content-Length", "536870913")]);
        let reply = connection.read(method);
        assert_eq!(
            (reply.status, reply.code().as_str(), reply.header("connection")),
            (413, "too_large", Some("close"))
        );
        let mut connection = world.connect();
        connection.send_head(method, target, &[("Content-Length", "12"), ("Deadwax-Tags", "no json")]);
        connection.send(b"twelve bytes");
        assert_eq!(connection.read(method).code(), "bad_tags");
        // A short body was read away: the connection goes on.
        assert_eq!(connection.ask("GET", "/healthz", &[], b"").status, 200);
    }
}

#[test]
fn a_part_of_a_track_or_a_packed_one_is_no_track() {
    let world = World::usual();
    let bytes = music(20, 1000);
    let path = path(&bytes);
    for (header, value, status) in [("Content-Range", "bytes 0-999/2000", 400), ("Content-Encoding", "gzip", 415)] {
        assert_eq!(world.ask("PUT", &path, &[(header, value)], &bytes).status, status, "{header}");
    }
    assert_eq!(world.copies(&bytes), 0);
    assert_eq!(world.ask("PUT", &path, &[("Content-Encoding", "identity")], &bytes).status, 201);
}

#[test]
fn a_client_that_sends_on_gets_to_read_a_refusal() {
    let world = World::usual();
    let mut connection = world.connect();
    connection.send_head("POST", "/v1/tracks", &[("Content-Length", "536870913")]);
    let part = vec![7; 1 << 20];
    // More than all socket buffers hold: without a lingering close the answer would be lost to a reset.
    for _ in 0..32 {
        assert!(connection.try_send(&part), "the gateway reads on for a while");
    }
    connection.finish_sending();
    assert_eq!(connection.read("POST").status, 413);
    assert!(connection.is_closed());
}

#[test]
fn an_upload_that_is_cut_off_stores_nothing() {
    let world = World::usual();
    let bytes = music(10, 3_000_000);
    for (method, target) in [("PUT", path(&bytes)), ("POST", "/v1/tracks".to_owned())] {
        let mut connection = world.connect();
        connection.send_head(method, &target, &[("Content-Length", "3000000")]);
        connection.send(&bytes[..2_000_000]);
        connection.finish_sending();
        let reply = connection.read(method);
        assert_eq!((reply.status, reply.code().as_str()), (400, "cut_off"), "{method}");
        assert!(connection.is_closed());
        assert_eq!(world.copies(&bytes), 0);
    }
    let reply = world.ask("PUT", &path(&bytes), &[], &bytes);
    assert_eq!(reply.status, 201, "a cut-off upload is no obstacle to a whole one");
}

#[test]
fn an_upload_that_stands_still_is_given_up() {
    let world = World::start(|config| config.limits.receive_stall_seconds_max = 1);
    let bytes = music(11, 3_000_000);
    let mut connection = world.connect();
    connection.send_head("PUT", &path(&bytes), &[("Content-Length", "3000000")]);
    connection.send(&bytes[..1_000_000]);
    assert_eq!(connection.read("PUT").status, 408);
    assert_eq!(world.copies(&bytes), 0);
}

#[test]
fn a_body_longer_than_its_length_is_no_request() {
    let world = World::usual();
    let bytes = music(12, 1000);
    let mut connection = world.connect();
    connection.send_head("PUT", &path(&bytes), &[("Content-Length", "1000")]);
    connection.send(&bytes);
    connection.send(b"and more that was not announced\r\n\r\n");
    assert_eq!(connection.read("PUT").status, 201);
    assert_eq!(connection.read_head().status, 400);
    assert!(world.ask("GET", &path(&bytes), &[], b"").body == bytes);
}

#[test]
fn who_waits_for_100_continue_sends_only_what_is_wanted() {
    let world = World::usual();
    let bytes = music(13, 500_000);
    let path = path(&bytes);
    let expect = [("Expect", "100-continue"), ("Content-Length", "500000")];
    let mut connection = world.connect();
    connection.send_head("PUT", &path, &expect);
    assert_eq!(connection.read_head().status, 100);
    connection.send(&bytes);
    assert_eq!(connection.read("PUT").status, 201);
    // Stored already: the answer comes at once, without asking for the body. The third copy may come later than the answer did;
    // until then a repeated put is let in, for its sake.
    let reply = loop {
        connection.send_head("PUT", &path, &expect);
        let reply = connection.read("PUT");
        if reply.status != 100 {
            break reply;
        }
        connection.send(&bytes);
        let status = connection.read("PUT").status;
        assert!(status == 200 || status == 201, "{status}");
        connection = world.connect();
    };
    assert_eq!(
        (reply.status, &reply.json()["bytes"], reply.header("connection")),
        (200, &500_000.into(), Some("close"))
    );
    let mut connection = world.connect();
    connection.send_head("POST", "/v1/tracks", &[("Expect", "100-continue"), ("Content-Length", "9999999999")]);
    assert_eq!(connection.read("POST").status, 413);
}

#[test]
fn an_upload_that_no_quorum_takes_is_unavailable() {
    let world = World::usual();
    world.peers.iter().take(2).for_each(|peer| peer.dead.store(true, Ordering::SeqCst));
    let bytes = music(14, 100_000);
    let reply = world.ask("PUT", &path(&bytes), &[], &bytes);
    assert_eq!((reply.status, reply.code().as_str()), (503, "unavailable"));
    world.peers[0].dead.store(false, Ordering::SeqCst);
    let reply = world.ask("PUT", &path(&bytes), &[], &bytes);
    assert!(reply.status == 201 || reply.status == 503, "{}", reply.text());
}

#[test]
fn uploads_without_an_id_are_bounded() {
    let world = World::start(|config| config.limits.spools_max = 1);
    let bytes = music(15, 1000);
    let mut first = world.connect();
    first.send_head("POST", "/v1/tracks", &[("Content-Length", "1000"), ("Expect", "100-continue")]);
    // The gateway asks for the body: the one place is taken.
    assert_eq!(first.read_head().status, 100);
    let reply = world.ask("POST", "/v1/tracks", &[], &bytes);
    assert_eq!((reply.status, reply.code().as_str(), reply.header("retry-after")), (503, "busy", Some("1")));
    first.send(&bytes);
    assert_eq!(first.read("POST").status, 201);
}
