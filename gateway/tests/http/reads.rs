//! Bytes come back, whole and in parts, from the cache and around it, right or not at all.

use std::sync::atomic::Ordering;
use std::thread;

use crate::{MIB, World, music, path};

/// Around the edges of pieces and chunks.
const SIZES: [usize; 8] = [1, 65_536, 262_144, 262_145, 524_287, 524_288, 524_289, 5 * 1024 * 1024 + 77];

fn every_byte_comes_back(world: &World) {
    let mut connection = world.connect();
    for (seed, size) in SIZES.into_iter().enumerate() {
        let bytes = music(seed as u64, size);
        let path = world.put(&bytes, &[]);
        for round in 0..3 {
            let reply = connection.ask("GET", &path, &[], b"");
            assert_eq!(reply.status, 200);
            assert!(reply.body == bytes, "{size} bytes, round {round}");
        }
        for (start, end) in [(0, 1), (size / 2, size / 2 + 1), (size / 3, size), (0, size), (size - 1, size)] {
            let range = format!("bytes={start}-{}", end - 1);
            let reply = connection.ask("GET", &path, &[("Range", &range)], b"");
            assert_eq!(reply.status, 206);
            assert_eq!(reply.header("content-range"), Some(format!("bytes {start}-{}/{size}", end - 1).as_str()));
            assert!(reply.body == bytes[start..end], "{range} of {size}");
        }
    }
}

#[test]
fn every_byte_comes_back_through_a_cache_that_holds_all() {
    every_byte_comes_back(&World::usual());
}

#[test]
fn every_byte_comes_back_through_a_cache_of_three_chunks() {
    every_byte_comes_back(&World::start(|config| config.cache_bytes = 3 * MIB / 2));
}

#[test]
fn every_byte_comes_back_without_a_cache() {
    every_byte_comes_back(&World::start(|config| config.cache_bytes = 0));
}

#[test]
fn headers_are_as_the_rfc_wants_them() {
    let world = World::usual();
    let bytes = music(1, 700_000);
    let path = world.put(&bytes, &[("Content-Type", "audio/ogg"), ("Deadwax-Tags", r#"{"title":"Gr\u00fc\u00dfe"}"#)]);
    let etag = format!("\"{}\"", &path["/v1/tracks/".len()..]);
    let mut connection = world.connect();
    for method in ["GET", "HEAD"] {
        let reply = connection.ask(method, &path, &[], b"");
        let headers = ["content-length", "content-type", "etag", "accept-ranges", "cache-control", "last-modified"];
        let expected = [
            Some("700000"),
            Some("audio/ogg"),
            Some(&*etag),
            Some("bytes"),
            Some("public, max-age=31536000, immutable"),
            None,
        ];
        assert_eq!((reply.status, headers.map(|name| reply.header(name))), (200, expected), "{method}");
    }
    let reply = connection.ask("GET", &path, &[("If-None-Match", &etag)], b"");
    assert_eq!((reply.status, reply.header("etag")), (304, Some(&*etag)));
    let reply = connection.ask("GET", &path, &[("If-Match", "\"other\"")], b"");
    assert_eq!((reply.status, reply.code().as_str()), (412, "precondition"));
    let reply = connection.ask("GET", &path, &[("Range", "bytes=0-9"), ("If-Range", "\"other\"")], b"");
    assert_eq!((reply.status, reply.body.len()), (200, 700_000));
    // HEAD knows no ranges.
    let reply = connection.ask("HEAD", &path, &[("Range", "bytes=0-9")], b"");
    assert_eq!((reply.status, reply.header("content-length")), (200, Some("700000")));
    let reply = connection.ask("GET", &path, &[("Range", "bytes=700000-")], b"");
    assert_eq!((reply.status, reply.header("content-range")), (416, Some("bytes */700000")));
    let reply = connection.ask("GET", &format!("{path}/tags"), &[], b"");
    assert_eq!(reply.json(), serde_json::json!({ "title": "Grüße", "content_type": "audio/ogg" }));
    let manifest = connection.ask("GET", &format!("{path}/manifest"), &[], b"").json();
    assert_eq!((&manifest["bytes"], manifest["pieces"].as_array().map(Vec::len)), (&700_000.into(), Some(3)));
    let reply = connection.ask("HEAD", &format!("{path}/tags"), &[], b"");
    assert!(reply.status == 200 && reply.header("content-length") != Some("0"));
}

#[test]
fn several_ranges_come_as_multipart() {
    let world = World::usual();
    let bytes = music(2, 3 * 1024 * 1024);
    let path = world.put(&bytes, &[("Content-Type", "audio/flac")]);
    let reply = world.ask("GET", &path, &[("Range", "bytes=-4,524280-524295,0-2,1-1")], b"");
    assert_eq!(reply.status, 206);
    let boundary = reply.header("content-type").and_then(|value| value.strip_prefix("multipart/byteranges; boundary="));
    let boundary = boundary.expect("multipart").to_owned();
    let mut expected = Vec::new();
    for (start, end) in [(3_145_724, 3_145_728), (524_280, 524_296), (0, 3)] {
        let newline = if expected.is_empty() { "" } else { "\r\n" };
        let last = end - 1;
        let head = format!(
            "{newline}--{boundary}\r\nContent-Type: audio/flac\r\nContent-Range: bytes {start}-{last}/3145728\r\n\r\n"
        );
        expected.extend_from_slice(head.as_bytes());
        expected.extend_from_slice(&bytes[start..end]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(reply.body == expected);
    let thousand: Vec<_> = (0..1000).map(|n| format!("{}-{}", 3 * n, 3 * n)).collect();
    let reply = world.ask("GET", &path, &[("Range", &format!("bytes={}", thousand.join(",")))], b"");
    assert_eq!(reply.status, 200);
    assert!(reply.body == bytes);
}

#[test]
fn a_cold_track_is_fetched_once_however_many_ask() {
    let world = World::usual();
    let bytes = music(3, 6 * 1024 * 1024 + 5);
    let path = world.put(&bytes, &[]);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(world.ask("GET", &path, &[], b"").body == bytes));
        }
    });
    let sent: u64 = world.peers.iter().map(|peer| peer.sent_bytes.load(Ordering::SeqCst)).sum();
    assert_eq!(sent, bytes.len() as u64);
}

#[test]
fn what_is_not_there_is_told_from_what_cannot_be_told() {
    let world = World::usual();
    let bytes = music(4, 100);
    let missing = path(&bytes);
    let reply = world.ask("GET", &missing, &[], b"");
    assert_eq!((reply.status, reply.code().as_str()), (404, "not_found"));
    world.peers.iter().take(2).for_each(|peer| peer.dead.store(true, Ordering::SeqCst));
    let reply = world.ask("GET", &missing, &[], b"");
    assert_eq!((reply.status, reply.code().as_str(), reply.header("retry-after")), (503, "unavailable", Some("1")));
    assert_eq!(world.ask("GET", "/readyz", &[], b"").status, 503);
    assert_eq!(world.ask("GET", "/healthz", &[], b"").status, 200);
    // What is in the cache is served whoever is down.
    world.peers.iter().for_each(|peer| peer.dead.store(false, Ordering::SeqCst));
    let path = world.put(&bytes, &[]);
    assert!(world.ask("GET", &path, &[], b"").body == bytes);
    world.peers.iter().for_each(|peer| peer.dead.store(true, Ordering::SeqCst));
    assert!(world.ask("GET", &path, &[], b"").body == bytes);
}

#[test]
fn wrong_bytes_are_never_served() {
    let world = World::usual();
    let bytes = music(5, 2 * 1024 * 1024);
    let path = world.put(&bytes, &[]);
    world.peers.iter().for_each(|peer| peer.lies.store(true, Ordering::SeqCst));
    let reply = world.ask("GET", &path, &[], b"");
    assert_eq!((reply.status, reply.code().as_str()), (503, "unavailable"));
    world.peers.iter().for_each(|peer| peer.lies.store(false, Ordering::SeqCst));
    assert!(world.ask("GET", &path, &[], b"").body == bytes);
}

#[test]
fn a_body_that_cannot_be_completed_never_looks_whole() {
    let world = World::start(|config| config.cache_bytes = 2 * MIB);
    let bytes = music(6, 16 * 1024 * 1024);
    let path = world.put(&bytes, &[]);
    let mut connection = world.connect();
    connection.send_head("GET", &path, &[]);
    let head = connection.read_head();
    assert_eq!((head.status, head.header("content-length")), (200, Some("16777216")));
    // The socket's buffers do not hold 16 MiB, so the gateway has yet to fetch when the nodes begin to lie.
    world.peers.iter().for_each(|peer| peer.lies.store(true, Ordering::SeqCst));
    assert!(connection.read_body(&head).is_err());
}

#[test]
fn requests_without_sense_are_answered_with_words() {
    let world = World::usual();
    let mut connection = world.connect();
    let id = path(b"x");
    for (method, path, status, code) in [
        ("GET", "/v1/tracks/xyz", 400, "bad_id"),
        ("GET", "/v1/tracks/", 400, "bad_id"),
        ("GET", "/nowhere", 404, "no_such_path"),
        ("PATCH", &*id, 405, "method"),
        ("GET", "/v1/tracks", 405, "method"),
        ("DELETE", "/v1/status", 405, "method"),
    ] {
        let reply = connection.ask(method, path, &[], b"");
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{method} {path}");
        assert_eq!(reply.header("allow").is_some(), status == 405);
    }
    let metrics = connection.ask("GET", "/metrics", &[], b"").text();
    assert!(metrics.contains("deadwax_gateway_cache_slots 128\n") && metrics.ends_with("# EOF\n"), "{metrics}");
    let status = connection.ask("GET", "/v1/status", &[], b"").json();
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(3), "{status}");
    assert_eq!(connection.ask("GET", "/readyz", &[], b"").status, 200);
}
