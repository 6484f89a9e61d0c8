//! Takedowns in a cluster with a log, over HTTP and by the command line: real masters, and two gateways.

mod cluster;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluster::http::{self, Reply};
use cluster::{Cluster, Random, wait_until};
use deadwax_dht::Map;
use deadwax_dht_client::{Client, ClientConfig, Cursor, SeenTracks, TrackCursor, TrackFollower};
use deadwax_track::{Partition, TrackId};
use serde_json::Value;

/// One cluster at a time: each is four processes.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks until the answer is not that it cannot be done now.
fn ask(at: SocketAddr, method: &str, path: &str, body: &[u8]) -> Reply {
    let mut answer = None;
    wait_until(&format!("{method} {path} is answered"), || {
        answer = http::ask(at, method, path, &[], body).ok().filter(|reply| reply.status != 503);
        answer.is_some()
    });
    answer.expect("waited for")
}

fn path(id: &TrackId) -> String {
    format!("/v1/tracks/{id}")
}

fn store(cluster: &Cluster, bytes: &[u8]) -> TrackId {
    let id = TrackId::of(bytes);
    let reply = ask(cluster.gateway(), "PUT", &path(&id), bytes);
    assert!(matches!(reply.status, 200 | 201), "{}", reply.text());
    id
}

/// The copies of a takedown, by state; whether it is complete.
fn receipts(at: SocketAddr, number: u64) -> (BTreeMap<String, usize>, bool) {
    let report = ask(at, "GET", &format!("/v1/takedowns/{number}"), &[]).json();
    let mut states = BTreeMap::new();
    for copy in report["copies"].as_array().unwrap_or(&Vec::new()) {
        *states.entry(copy["state"].as_str().expect("a state").to_owned()).or_default() += 1;
    }
    (states, report["complete"] == true)
}

#[test]
fn a_takedown_goes_by_the_log_to_all_masters_and_gateways() {
    let _turn = turn();
    let mut cluster = Cluster::start();
    let (_another, other) = cluster.start_another_gateway();
    let mut random = Random::new(1);
    let (bytes, kept) = (random.bytes(700_000), random.bytes(300_000));
    let (id, kept_id) = (store(&cluster, &bytes), store(&cluster, &kept));
    cluster.wait_until_copied();
    for at in [cluster.gateway(), other] {
        assert_eq!(ask(at, "GET", &path(&id), &[]).status, 200);
    }
    cluster.kill_master(2);

    let reply = ask(cluster.gateway(), "DELETE", &path(&id), &[]);
    assert_eq!(reply.status, 202, "{}", reply.text());
    let (began, taken) = (Instant::now(), reply.json());
    let number = taken["takedown"].as_u64().expect("a number");
    assert_eq!((&taken["nodes"], &taken["nodes_of"]), (&Value::from(2), &Value::from(3)));
    for (method, body) in [("GET", &[][..]), ("HEAD", &[]), ("PUT", &bytes)] {
        assert_eq!(ask(cluster.gateway(), method, &path(&id), body).status, 410, "{method} right after");
    }
    wait_until("the other gateway has heard of it", || {
        let metrics = http::ask(other, "GET", "/metrics", &[], &[]);
        metrics.is_ok_and(|reply| reply.text().contains("deadwax_gateway_takedowns_heard_total 1"))
    });
    assert_eq!(ask(other, "GET", &path(&id), &[]).status, 410, "though it had it in its memory");
    assert!(began.elapsed() < Duration::from_secs(5), "after {:?}", began.elapsed());
    assert_eq!(ask(other, "DELETE", &path(&id), &[]).json()["takedown"], number, "asked again it is the same");
    assert_eq!(ask(other, "GET", &path(&kept_id), &[]).status, 200);

    wait_until("those that are up have erased it", || {
        let (states, complete) = receipts(other, number);
        states.get("erased") == Some(&2) && !complete
    });
    cluster.start_master(2);
    wait_until("the one that was away has erased it", || {
        let (states, complete) = receipts(cluster.gateway(), number);
        states.get("erased") == Some(&3) && complete
    });
    assert_eq!(ask(cluster.gateway(), "GET", "/v1/takedowns/4711", &[]).status, 404);

    let rm = Command::new(env!("CARGO_BIN_EXE_deadwax"))
        .args(["rm", "--wait", "--reason", "a court's order", "--gateway", &cluster.url(), &kept_id.to_string()])
        .output()
        .expect("rm runs");
    let said = String::from_utf8_lossy(&rm.stdout).into_owned();
    assert!(rm.status.success(), "{said}{}", String::from_utf8_lossy(&rm.stderr));
    assert!(said.contains("is taken down, number") && said.contains("3 of 3 copies are erased"), "{said}");

    let rm = Command::new(env!("CARGO_BIN_EXE_deadwax"))
        .args(["rm", "--wait", "--json", "--gateway", &cluster.url(), &kept_id.to_string()])
        .output()
        .expect("rm runs");
    let line: Value = serde_json::from_slice(&rm.stdout).expect("a line of JSON");
    assert!(line["id"] == kept_id.to_string() && line["outcome"] == "erased" && line["nodes_of"] == 3, "{line}");

    (0..3).for_each(|master| cluster.kill_master(master));
    cluster.kill_gateway();
    (0..3).for_each(|master| cluster.start_master(master));
    cluster.start_gateway();
    for id in [id, kept_id] {
        assert_eq!(ask(cluster.gateway(), "GET", &path(&id), &[]).status, 410, "after a restart of all");
    }
}

#[test]
fn the_feeds_give_each_track_and_each_takedown_once_over_restarts() {
    let _turn = turn();
    let mut cluster = Cluster::start();
    let mut random = Random::new(2);
    let tracks: Vec<TrackId> = (0..30).map(|_| store(&cluster, &random.bytes(20_000))).collect();
    cluster.wait_until_copied();
    let gone = &tracks[..3];
    for id in gone {
        let reply = ask(cluster.gateway(), "DELETE", &path(id), &[]);
        assert_eq!(reply.status, 202, "{}", reply.text());
        let number = reply.json()["takedown"].as_u64().expect("a number");
        // It is answered when two of the three have it. The third may tell of the track for a moment more.
        wait_until("all have erased it", || receipts(cluster.gateway(), number).1);
    }
    let mut expected: Vec<TrackId> = tracks[3..].to_vec();
    expected.sort_unstable();

    let map = Arc::new(Map::load(&cluster.dir().join("cluster.toml")).expect("a map"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let client = || Client::new(Arc::clone(&map), ClientConfig::default());
    // Some pages from one reader, the rest from another one after a restart, by the text of the cursor.
    let first = runtime.block_on(read(&client(), "0000".parse().expect("a cursor"), 10));
    assert_eq!(first.0.len(), 10);
    let (heard, cursor) = runtime.block_on(async {
        let cursor: Cursor = Cursor::default().to_string().parse().expect("a cursor");
        client().takedowns(&cursor, Duration::ZERO).await.expect("a node answers")
    });
    cluster.kill_master(0);
    let second = runtime.block_on(read(&client(), first.1.to_string().parse().expect("a cursor"), usize::MAX));
    assert_eq!([first.0, second.0].concat(), expected);

    cluster.start_master(0);
    cluster.wait_until_all_up();
    let mut heard: Vec<TrackId> = heard.iter().map(|record| record.track).collect();
    heard.sort_unstable();
    let mut taken = gone.to_vec();
    taken.sort_unstable();
    assert_eq!(heard, taken);
    let cursor: Cursor = cursor.to_string().parse().expect("a cursor");
    let more = tracks[4];
    assert_eq!(ask(cluster.gateway(), "DELETE", &path(&more), &[]).status, 202);
    let (news, _) = runtime.block_on(client().takedowns(&cursor, Duration::from_secs(20))).expect("a node answers");
    assert_eq!(news.iter().map(|record| record.track).collect::<Vec<_>>(), [more]);
}

#[test]
fn a_follower_is_given_what_is_new_over_restarts_and_while_a_master_is_away() {
    let _turn = turn();
    let mut cluster = Cluster::start();
    let mut random = Random::new(3);
    let mut stored: Vec<TrackId> = (0..30).map(|_| store(&cluster, &random.bytes(20_000))).collect();
    cluster.wait_until_copied();
    let map = Arc::new(Map::load(&cluster.dir().join("cluster.toml")).expect("a map"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // A reader, as it is after a restart: with what it kept, if anything.
    let reader = |kept: Option<&[u8]>| {
        let seen = kept.map(|kept| SeenTracks::decode(kept).expect("what was kept"));
        Client::new(Arc::clone(&map), ClientConfig::default()).follow_tracks(seen.unwrap_or_default())
    };
    let mut follower = reader(None);
    stored.sort_unstable();
    assert_eq!(runtime.block_on(pass(&mut follower)), stored);
    assert_eq!(runtime.block_on(pass(&mut follower)), [], "nothing changed");

    // All that there is of its partition comes with a new track, and nothing else.
    let with = |stored: &[TrackId], new: TrackId| {
        let there = stored.iter().copied().filter(|id| id.partition() == new.partition());
        let mut ids: Vec<TrackId> = there.chain([new]).collect();
        ids.sort_unstable();
        ids
    };
    let new = store(&cluster, &random.bytes(20_000));
    cluster.wait_until_copied();
    let kept = follower.seen().encode();
    let mut follower = reader(Some(&kept));
    assert_eq!(runtime.block_on(pass(&mut follower)), with(&stored, new));
    stored.push(new);

    cluster.kill_master(0);
    let new = store(&cluster, &random.bytes(20_000));
    assert_eq!(runtime.block_on(pass(&mut follower)), with(&stored, new), "two of three have it");
    stored.push(new);
    // Back, it lacks that one for a while: whatever it says nothing is read twice for it, nor afterwards.
    cluster.start_master(0);
    cluster.wait_until_all_up();
    for _ in 0..2 {
        assert_eq!(runtime.block_on(pass(&mut follower)), [], "the others have what was seen");
        cluster.wait_until_copied();
    }
    let kept = follower.seen().encode();
    (0..3).for_each(|master| cluster.kill_master(master));
    (0..3).for_each(|master| cluster.start_master(master));
    cluster.wait_until_all_up();
    assert_eq!(runtime.block_on(pass(&mut reader(Some(&kept)))), [], "after a restart of all");
}

/// What one pass gives, by rising id. One that could not compare or read everything is followed by another.
async fn pass(follower: &mut TrackFollower) -> Vec<TrackId> {
    let (mut ids, began) = (Vec::new(), Instant::now());
    loop {
        match follower.next().await {
            Ok(Some(tracks)) => ids.extend(tracks.iter().map(|track| track.id)),
            Ok(None) => break,
            Err(why) => {
                assert!(began.elapsed() < Duration::from_secs(120), "{why}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    ids.sort_unstable();
    ids
}

/// At most about `most` tracks from the cursor on, and the cursor behind them. Waits for holders that may not answer yet.
async fn read(client: &Client, cursor: TrackCursor, most: usize) -> (Vec<TrackId>, TrackCursor) {
    let (mut feed, mut at, mut ids) = (client.feed(0..=u16::MAX, cursor), cursor, Vec::new());
    let began = Instant::now();
    while ids.len() < most {
        match feed.next().await {
            Ok(Some(page)) => {
                ids.extend(page.tracks.iter().map(|track| track.id));
                at = page.cursor;
            }
            Ok(None) => return (ids, TrackCursor::From(Partition(u16::MAX))),
            Err(why) => {
                assert!(began.elapsed() < Duration::from_secs(120), "{why}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    (ids, at)
}
