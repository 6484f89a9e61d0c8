//! Starting, refusing to start, bounding, stopping.

use std::sync::atomic::Ordering;
use std::thread;

use deadwax_gateway::{Config, StartError, run_until};

use crate::{World, music};

fn refused(config: Config) -> StartError {
    let ready = |address| panic!("it serves at {address}");
    run_until(config, std::future::pending(), ready).expect_err("a reason not to start")
}

#[test]
fn reasons_not_to_start_are_told() {
    let mut config = None;
    let world = World::start(|usual| config = Some(usual.clone()));
    let config = config.expect("given");
    let in_use = refused(Config { listen: world.gateway, ..config.clone() }).to_string();
    assert!(in_use.contains("in use") && in_use.contains(&world.gateway.port().to_string()), "{in_use}");
    let open = Config { listen: "0.0.0.0:0".parse().expect("an address"), ..config.clone() };
    assert!(matches!(refused(open), StartError::InsecureListen(_)));
    let no_map = refused(Config { map: "/nowhere/map.toml".into(), ..config.clone() }).to_string();
    assert!(no_map.contains("/nowhere/map.toml"), "{no_map}");
    let bad_map = config.spool.join("bad.toml");
    std::fs::write(&bad_map, "version = 1\nnodes = 7\n").expect("writable");
    assert!(matches!(refused(Config { map: bad_map, ..config.clone() }), StartError::Map { .. }));
    let no_spool = Config { spool: "/proc/spool".into(), ..config.clone() };
    assert!(matches!(refused(no_spool), StartError::Spool { .. }));
    assert!(matches!(refused(Config { cache_bytes: u64::MAX, ..config }), StartError::Cache { .. }));
}

#[test]
fn a_connection_too_many_is_refused_in_words() {
    let world = World::start(|config| {
        config.threads = 1;
        config.limits.connections_max = 2;
    });
    let mut first = world.connect();
    let mut second = world.connect();
    for connection in [&mut first, &mut second] {
        assert_eq!(connection.ask("GET", "/healthz", &[], b"").status, 200);
    }
    let mut third = world.connect();
    let reply = third.read("GET");
    assert_eq!((reply.status, reply.code().as_str()), (503, "connections"));
    assert!(third.is_closed());
    assert_eq!(first.ask("GET", "/healthz", &[], b"").status, 200);
}

#[test]
fn headers_too_long_are_refused() {
    let world = World::start(|config| config.limits.header_bytes_max = 8192);
    let mut connection = world.connect();
    connection.send_head("GET", "/healthz", &[("X-Long", &"x".repeat(10_000))]);
    assert_eq!(connection.read_head().status, 431);
}

#[test]
fn a_connection_that_sends_no_headers_is_closed() {
    let world = World::start(|config| config.limits.header_seconds_max = 1);
    let mut connection = world.connect();
    connection.send(b"GET /healthz HTT");
    assert!(connection.is_closed());
}

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let world = World::start(|config| config.limits.send_stall_seconds_max = 1);
    let path = world.put(&music(3, 32 * 1024 * 1024), &[]);
    let mut lazy = world.connect();
    lazy.send_head("GET", &path, &[]);
    let head = lazy.read_head();
    assert_eq!(head.status, 200);
    // The asker's own connection is the one that is left.
    while figure(&world, "deadwax_gateway_connections ") > 1 {
        thread::yield_now();
    }
    assert!(lazy.read_body(&head).is_err());
}

#[test]
fn a_stop_lets_requests_end_and_closes_idle_connections() {
    let mut world = World::usual();
    let bytes = music(1, 2_000_000);
    let path = world.put(&bytes, &[]);
    let mut idle = world.connect();
    assert_eq!(idle.ask("GET", "/healthz", &[], b"").status, 200);
    let peers = world.peers.clone();
    let gates: Vec<_> = peers.iter().map(|peer| peer.gate.write().expect("no panic")).collect();
    let mut busy = world.connect();
    busy.send_head("GET", &path, &[]);
    // The request has come in once a holder was asked, which info and the first get do before the gate.
    while busy_requests(&world) == 0 {
        thread::yield_now();
    }
    drop(world.stop.take());
    assert!(idle.is_closed());
    drop(gates);
    let reply = busy.read("GET");
    assert_eq!((reply.status, reply.body == bytes), (200, true));
    world.end().expect("a clean end");
    assert!(peers.iter().any(|peer| peer.sent_bytes.load(Ordering::SeqCst) > 0));
}

/// Chunks that the gateway has begun to fetch.
fn busy_requests(world: &World) -> u64 {
    figure(world, "deadwax_gateway_cache_misses_total ")
}

fn figure(world: &World, name: &str) -> u64 {
    let metrics = world.ask("GET", "/metrics", &[], b"").text();
    let line = metrics.lines().find(|line| line.starts_with(name)).expect("a figure");
    line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a number")
}

#[test]
fn a_stop_cuts_off_what_takes_too_long() {
    let mut world = World::start(|config| config.limits.drain_seconds_max = 1);
    let bytes = music(2, 2_000_000);
    let path = world.put(&bytes, &[]);
    let peers = world.peers.clone();
    let _gates: Vec<_> = peers.iter().map(|peer| peer.gate.write().expect("no panic")).collect();
    let mut busy = world.connect();
    busy.send_head("GET", &path, &[]);
    while busy_requests(&world) == 0 {
        thread::yield_now();
    }
    world.end().expect("a clean end");
    assert!(busy.is_closed());
}
