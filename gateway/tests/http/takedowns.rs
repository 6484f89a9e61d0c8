//! A track that was taken down is not served any more, whoever took it down.

use std::time::{Duration, Instant};

use deadwax_track::TrackId;

use crate::{World, music, path};

#[test]
fn a_takedown_empties_the_cache_before_it_is_answered() {
    let world = World::usual();
    let (bytes, other) = (music(1, 3_000_000), music(2, 3_000_000));
    let (gone, kept) = (world.put(&bytes, &[]), world.put(&other, &[]));
    for path in [&gone, &kept] {
        assert_eq!(world.ask("GET", path, &[], b"").status, 200);
    }
    let reply = world.ask("DELETE", &gone, &[], b"");
    assert_eq!(reply.status, 202);
    let number = reply.json()["takedown"].as_u64().expect("a number");
    for method in ["GET", "HEAD", "PUT"] {
        let body = if method == "PUT" { bytes.as_slice() } else { &[] };
        let reply = world.ask(method, &gone, &[], body);
        assert_eq!(reply.status, 410, "{method}");
    }
    for below in ["tags", "manifest"] {
        assert_eq!(world.ask("GET", &format!("{gone}/{below}"), &[], b"").code(), "taken_down");
    }
    assert_eq!(world.ask("POST", "/v1/tracks", &[], &bytes).status, 410);
    assert_eq!(
        world.ask("DELETE", &gone, &[], b"").json()["takedown"].as_u64(),
        Some(number),
        "the first number stays"
    );
    assert!(world.ask("GET", &kept, &[], b"").body == other);
}

#[test]
fn a_takedown_elsewhere_is_noticed_while_the_track_is_served() {
    let world = World::usual();
    let bytes = music(3, 1_000_000);
    let path = world.put(&bytes, &[]);
    let mut connection = world.connect();
    assert_eq!(connection.ask("GET", &path, &[], b"").status, 200);
    for peer in &world.peers {
        peer.take_down(TrackId::of(&bytes), 7);
    }
    let began = Instant::now();
    while connection.ask("GET", &path, &[("Range", "bytes=0-9")], b"").status != 410 {
        assert!(began.elapsed() < Duration::from_secs(5), "still served after {:?}", began.elapsed());
    }
}

#[test]
fn a_takedown_that_a_holder_did_not_hear_is_not_confirmed() {
    let world = World::usual();
    let bytes = music(4, 1000);
    let path = world.put(&bytes, &[]);
    world.peers[1].dead.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(world.ask("DELETE", &path, &[], b"").status, 503);
    assert_eq!(world.ask("DELETE", &crate::path(b"never stored"), &[], b"").status, 503);
    world.peers[1].dead.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(world.ask("DELETE", &path, &[], b"").status, 202);
    assert_eq!(world.ask("GET", &self::path(&bytes), &[], b"").status, 410);
}
