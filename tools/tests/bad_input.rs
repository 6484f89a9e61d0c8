//! What clients, networks and machines get wrong: each gets a clear answer, and nothing that is stored is harmed.

mod cluster;

use std::io::{Read, Write};
use std::net::Shutdown;

use cluster::http::{self, Reply};
use cluster::{Cluster, Random};
use deadwax_track::TrackId;

const MIB: u64 = 1024 * 1024;

/// A track that is stored before a test does harm and must be whole after it.
struct Witness {
    id: TrackId,
    bytes: Vec<u8>,
}

impl Witness {
    fn put(cluster: &Cluster) -> Self {
        let bytes = Random::new(42).bytes(1_000_003);
        let id = TrackId::of(&bytes);
        let reply = cluster.ask("PUT", &id, &[], &bytes);
        assert_eq!(reply.status, 201, "{}", reply.text());
        cluster.wait_until_copied();
        Self { id, bytes }
    }

    fn check(&self, cluster: &Cluster) {
        let reply = cluster.get(&self.id);
        assert_eq!(reply.status, 200);
        assert!(reply.body == self.bytes, "the stored track was harmed");
        assert_eq!(cluster.status()["tracks"], 1, "something was stored that should not be");
    }

    fn range(&self, cluster: &Cluster, range: &str) -> Reply {
        cluster.ask("GET", &self.id, &[("range", range)], &[])
    }
}

/// A refusal: the status, and a message in JSON that has `words`.
fn assert_refused(reply: &Reply, status: u16, words: &str) {
    assert_eq!(reply.status, status, "{}", reply.text());
    let message = reply.json()["error"].as_str().expect("an error says why").to_lowercase();
    assert!(message.contains(words), "{message:?} does not say {words:?}");
}

#[test]
fn bad_uploads_are_refused_and_leave_nothing() {
    let cluster = Cluster::start();
    let witness = Witness::put(&cluster);
    let bytes = Random::new(1).bytes(900_000);
    let id = TrackId::of(&bytes);
    let other = TrackId::of(b"other bytes");
    let too_large = (512 * MIB + 1).to_string();

    assert_refused(&cluster.ask("PUT", &id, &[], &[]), 400, "at least one byte");
    assert_refused(&cluster.post(&[], &[]), 400, "at least one byte");
    assert_refused(&cluster.ask("PUT", &id, &[("content-length", &too_large)], &[]), 413, "536870912");
    assert_refused(&cluster.post(&[("content-length", &too_large)], &[]), 413, "536870912");
    assert_refused(&cluster.ask("PUT", &other, &[], &bytes), 422, &id.to_string());
    // One byte is missing, one is too many: the length is part of the track.
    assert_refused(&cluster.ask("PUT", &id, &[], &bytes[1..]), 422, &id.to_string());
    assert_refused(&cluster.ask("PUT", &id, &[], &[&bytes[..], &[0]].concat()), 422, &id.to_string());
    assert_refused(&cluster.ask("PUT", &id, &[("deadwax-tags", "{\"Bad Name\":\"x\"}")], &bytes), 400, "tag");
    assert_refused(&cluster.ask("PUT", &id, &[("deadwax-tags", "no json")], &bytes), 400, "tag");
    for path in ["/v1/tracks/xyz", &format!("/v1/tracks/{}", "g".repeat(64)), "/v1/tracks/%00"] {
        assert_refused(&cluster.ask_path("PUT", path, &[], &bytes), 400, "hexadecimal");
        assert_refused(&cluster.ask_path("GET", path, &[], &[]), 400, "hexadecimal");
    }
    assert_refused(&cluster.get(&id), 404, "no such track");
    assert_refused(&cluster.ask("PATCH", &id, &[], &[]), 405, "method");
    assert_refused(&cluster.ask_path("GET", "/v2/nothing", &[], &[]), 404, "no such");
    witness.check(&cluster);

    // Cut off in the middle: by a sender that goes, and by one that says it is done too early.
    for path in [format!("/v1/tracks/{id}"), "/v1/tracks".to_owned()] {
        let method = if path.ends_with("tracks") { "POST" } else { "PUT" };
        for polite in [true, false] {
            let mut stream = http::open(cluster.gateway()).expect("the gateway listens");
            let head = http::head(cluster.gateway(), method, &path, &[], bytes.len() as u64);
            stream.write_all(head.as_bytes()).expect("sent");
            stream.write_all(&bytes[..bytes.len() / 2]).expect("sent");
            if polite {
                stream.shutdown(Shutdown::Write).expect("shut down");
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest);
                assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
            }
        }
    }
    // The same track, whole, is stored as if nothing had been.
    witness.check(&cluster);
    let reply = cluster.ask("PUT", &id, &[("deadwax-tags", "{\"title\":\"Grüße\"}")], &bytes);
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert!(cluster.get(&id).body == bytes);
    let tags = cluster.ask_path("GET", &format!("/v1/tracks/{id}/tags"), &[], &[]);
    assert_eq!(tags.json()["title"], "Grüße");
}

#[test]
fn an_upload_that_need_not_be_sent_is_answered_at_once() {
    let cluster = Cluster::start();
    let witness = Witness::put(&cluster);
    // Expect: 100-continue, a track that is stored: the final answer comes instead of 100.
    let mut stream = http::open(cluster.gateway()).expect("the gateway listens");
    let path = format!("/v1/tracks/{}", witness.id);
    let expect = [("expect", "100-continue")];
    let head = http::head(cluster.gateway(), "PUT", &path, &expect, witness.bytes.len() as u64);
    stream.write_all(head.as_bytes()).expect("sent");
    let mut first = [0; 12];
    stream.read_exact(&mut first).expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");

    // One that is not: 100 comes, the body goes, the track is stored.
    let bytes = Random::new(9).bytes(300_000);
    let path = format!("/v1/tracks/{}", TrackId::of(&bytes));
    let mut stream = http::open(cluster.gateway()).expect("the gateway listens");
    let head = http::head(cluster.gateway(), "PUT", &path, &expect, bytes.len() as u64);
    stream.write_all(head.as_bytes()).expect("sent");
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).expect("an interim answer");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&bytes).expect("sent");
    assert_eq!(http::read_reply(&mut stream, false).expect("a reply").status, 201);

    // A body without a length goes by way of the gateway's drive.
    let bytes = Random::new(10).bytes(70_000);
    let chunked = [format!("{:x}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n0\r\n\r\n"].concat();
    for (method, path) in [("PUT", format!("/v1/tracks/{}", TrackId::of(&bytes))), ("POST", "/v1/tracks".to_owned())] {
        let reply = cluster.ask_path(method, &path, &[("transfer-encoding", "chunked")], &chunked);
        assert_eq!(reply.status, if method == "PUT" { 201 } else { 200 }, "{}", reply.text());
        assert_eq!(reply.json()["id"], TrackId::of(&bytes).to_string());
        assert_eq!(reply.json()["bytes"], bytes.len());
        cluster.wait_until_copied();
    }
}

#[test]
fn ranges_follow_the_rfc() {
    let cluster = Cluster::start();
    let witness = Witness::put(&cluster);
    let size = witness.bytes.len();
    let whole = |range: &str| {
        let reply = witness.range(&cluster, range);
        assert_eq!(reply.status, 200, "{range}");
        assert!(reply.body == witness.bytes, "{range}");
    };
    let part = |range: &str, start: usize, end: usize| {
        let reply = witness.range(&cluster, range);
        assert_eq!(reply.status, 206, "{range}: {}", reply.text());
        assert!(reply.body == witness.bytes[start..end], "{range}");
    };
    part("bytes=0-0", 0, 1);
    part("bytes=-5", size - 5, size);
    part("bytes=-99999999", 0, size);
    part("bytes=7-", 7, size);
    part("bytes=65503-65504", 65_503, 65_505);
    part("bytes=999999-99999999", 999_999, size);
    for beyond in [format!("bytes={size}-"), format!("bytes={size}-{}", size + 5), "bytes=-0".to_owned()] {
        let reply = witness.range(&cluster, &beyond);
        assert_eq!(reply.status, 416, "{beyond}");
        assert_eq!(reply.header("content-range"), Some(format!("bytes */{size}").as_str()));
    }
    // What is no range is no range request (RFC 9110, section 14.2).
    for malformed in ["bytes=9-5", "bytes=", "bytes=a-b", "bytes=1", "octets=0-5", "bytes=0-5,9-6", "bytes=--5"] {
        whole(malformed);
    }
    let thousand: Vec<_> = (0..1000).map(|n| format!("{}-{}", n * 700, n * 700 + 9)).collect();
    let reply = witness.range(&cluster, &format!("bytes={}", thousand.join(",")));
    assert!(reply.status == 200 && reply.body == witness.bytes || reply.status == 416, "{}", reply.status);

    let reply = witness.range(&cluster, "bytes=0-9,1000-1009,-10");
    assert_eq!(reply.status, 206);
    let parts = multipart(&reply);
    let expected = [(0, 10), (1000, 1010), (size - 10, size)];
    assert_eq!(parts.len(), expected.len());
    for ((range, body), (start, end)) in parts.iter().zip(expected) {
        assert_eq!(*range, format!("bytes {start}-{}/{size}", end - 1));
        assert!(*body == witness.bytes[start..end]);
    }
    // Overlapping ranges may be sent as one.
    let reply = witness.range(&cluster, "bytes=0-99,50-149");
    assert_eq!(reply.status, 206);
    assert!(reply.body == witness.bytes[..150]);
    witness.check(&cluster);
}

/// The parts of a `multipart/byteranges` body: each one's `Content-Range` and bytes.
fn multipart(reply: &Reply) -> Vec<(String, Vec<u8>)> {
    let kind = reply.header("content-type").expect("a type");
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").expect("a boundary").trim_matches('"');
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|window| window == what);
    let marker = format!("--{boundary}");
    let mut parts = Vec::new();
    let mut rest = &reply.body[..];
    loop {
        rest = &rest[find(rest, marker.as_bytes()).expect("a boundary") + marker.len()..];
        if rest.starts_with(b"--") {
            return parts;
        }
        let head_end = find(rest, b"\r\n\r\n").expect("a part's head ends");
        let head = String::from_utf8_lossy(&rest[..head_end]).to_lowercase();
        let range = head.lines().find_map(|line| line.strip_prefix("content-range: ")).expect("a range").to_owned();
        rest = &rest[head_end + 4..];
        let end = find(rest, format!("\r\n{marker}").as_bytes()).expect("a part ends");
        parts.push((range, rest[..end].to_vec()));
    }
}

#[test]
fn conditions_spare_the_bytes() {
    let cluster = Cluster::start();
    let witness = Witness::put(&cluster);
    let tag = format!("\"{}\"", witness.id);
    let ask = |headers: &[(&str, &str)]| cluster.ask("GET", &witness.id, headers, &[]);
    let head = cluster.ask("HEAD", &witness.id, &[], &[]);
    assert_eq!((head.status, head.header("etag")), (200, Some(tag.as_str())));
    assert_eq!(head.header("content-length"), Some(witness.bytes.len().to_string().as_str()));
    assert_eq!(head.header("accept-ranges"), Some("bytes"));
    assert_eq!(ask(&[("if-none-match", &tag)]).status, 304);
    assert_eq!(ask(&[("if-none-match", "*")]).status, 304);
    assert_eq!(ask(&[("if-none-match", "\"x\"")]).status, 200);
    assert_eq!(ask(&[("if-match", "\"x\"")]).status, 412);
    assert_eq!(ask(&[("if-range", &tag), ("range", "bytes=0-9")]).status, 206);
    assert_eq!(ask(&[("if-range", "\"x\""), ("range", "bytes=0-9")]).status, 200);
}

#[test]
fn garbage_on_the_cluster_port_is_answered_and_harms_nothing() {
    let cluster = Cluster::start();
    let witness = Witness::put(&cluster);
    let mut random = Random::new(3);
    for round in 0..60 {
        let size = 1 + random.below(5000);
        let garbage = match round % 3 {
            0 => random.bytes(size),
            1 => b"GET / HTTP/1.1\r\nhost: wrong-port\r\n\r\n                       ".to_vec(),
            _ => [&b"DWAX"[..], &random.bytes(size + 36)].concat(),
        };
        let mut stream = http::open(cluster.master_address(round % 3)).expect("the master listens");
        stream.write_all(&garbage).expect("sent");
        stream.shutdown(Shutdown::Write).expect("shut down");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        if garbage.len() >= 40 {
            assert!(answer.starts_with(b"DWAX"), "an error in the protocol's own form: {answer:?}");
        }
    }
    witness.check(&cluster);
}

#[test]
fn half_a_gigabyte_goes_through_a_small_gateway() {
    let cluster = Cluster::start();
    let piece = Random::new(8).bytes(1 << 20);
    let bytes: Vec<u8> = (0..512_u32).flat_map(|n| [&n.to_le_bytes()[..], &piece[4..]].concat()).collect();
    assert_eq!(bytes.len() as u64, 512 * MIB);
    let id = TrackId::of(&bytes);
    let reply = cluster.ask("PUT", &id, &[], &bytes);
    assert_eq!(reply.status, 201, "{}", reply.text());
    cluster.wait_until_copied();
    // The same by the gateway's drive: it is stored already, but the gateway knows that only at the end.
    let reply = cluster.post(&[], &bytes);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let peak = cluster.gateway_memory_peak_mib();
    assert!(peak < 200, "the gateway took {peak} MiB");
    assert!(cluster.get(&id).body == bytes, "other bytes came back");
}
