//! A cluster that grows and shrinks while it is read from, and that loses a site, by the command line, as real processes.

mod cluster;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluster::http::{self, Reply};
use cluster::{Cluster, Random};
use deadwax_track::TrackId;
use serde_json::Value;

/// How long moving may take: a batch of partitions takes seconds, and each kind of move here is of few.
const MOVED: Duration = Duration::from_secs(120);
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Tracks enough that some lie in the tenth of partitions that move.
const TRACKS: u64 = 80;
/// One cluster at a time: each takes both cores.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn deadwax(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deadwax"));
    command.args(arguments).env_remove("DEADWAX_GATEWAY").output().expect("the program starts")
}

/// What it prints, where it ends well.
fn said(arguments: &[&str]) -> String {
    let output = deadwax(arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// What it prints for programs, one line, where it ends well.
fn told(arguments: &[&str]) -> Value {
    let text = said(&[arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What it says where it fails, as it must.
fn refused(arguments: &[&str], words: &[&str]) {
    let output = deadwax(arguments);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {err}{}", String::from_utf8_lossy(&output.stdout));
    words.iter().for_each(|word| assert!(err.contains(word), "{arguments:?} does not say {word:?}: {err}"));
}

/// How the cluster is, as the master at `address` leads to it; and whether it is healthy.
fn status(address: SocketAddr) -> (Value, bool) {
    let output = deadwax(&["status", "--json", "--node", &address.to_string()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (value, output.status.success())
}

/// Asks until the status is as it is waited for.
fn until(what: &str, address: SocketAddr, mut holds: impl FnMut(&Value, bool) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let (now, healthy) = status(address);
        if holds(&now, healthy) {
            return now;
        }
        let (warnings, log) = (&now["warnings"], &now["log"]);
        assert!(began.elapsed() < MOVED, "after {MOVED:?} not yet: {what}; {warnings}, {log}");
        std::thread::sleep(ASK_AGAIN);
    }
}

fn is_settled(now: &Value, healthy: bool) -> bool {
    healthy && now["log"]["settled"] == true && now["copies"]["missing"] == 0
}

/// A cluster with a log, and tracks in it. Its gateway keeps nothing: each read is of the masters.
fn stored() -> (Cluster, BTreeMap<TrackId, Vec<u8>>) {
    stored_in(&["here"; 3], TRACKS)
}

/// The same, of a master in each of these zones, and with so many tracks.
fn stored_in(zones: &[&str], count: u64) -> (Cluster, BTreeMap<TrackId, Vec<u8>>) {
    let mut cluster = Cluster::start_in(zones, &[]);
    let settings = cluster.dir().join("gateway/gateway.toml");
    let text = std::fs::read_to_string(&settings).expect("the settings are there");
    std::fs::write(&settings, format!("cache_bytes = 0\n{text}")).expect("written");
    cluster.kill_gateway();
    cluster.start_gateway();
    let mut tracks = BTreeMap::new();
    for seed in 0..count {
        let bytes = Random::new(seed).bytes(20_000 + 1_000 * usize::try_from(seed).expect("small"));
        let began = Instant::now();
        let reply = loop {
            // A node says nothing of a partition before it has compared itself with the others.
            let reply = cluster.post(&[], &bytes);
            if reply.status < 500 || began.elapsed() > MOVED {
                break reply;
            }
            std::thread::sleep(ASK_AGAIN);
        };
        assert!(matches!(reply.status, 200 | 201), "{}: {}", reply.status, reply.text());
        tracks.insert(TrackId::of(&bytes), bytes);
    }
    (cluster, tracks)
}

/// Reads every track, over and over, until it is told to stop. How often each was read at least.
fn read_on(gateway: SocketAddr, tracks: &BTreeMap<TrackId, Vec<u8>>, stop: &AtomicBool) -> usize {
    let mut rounds = 0;
    loop {
        for (id, bytes) in tracks {
            let Reply { status, body, .. } =
                http::ask(gateway, "GET", &format!("/v1/tracks/{id}"), &[], &[]).expect("the gateway answers");
            assert_eq!(status, 200, "{id}: {}", String::from_utf8_lossy(&body));
            assert!(body == *bytes, "{id}: other bytes came back");
        }
        rounds += 1;
        if stop.load(Ordering::Relaxed) {
            return rounds;
        }
    }
}

/// Runs `change` while every track is read all the time.
fn while_read(cluster: &mut Cluster, tracks: &BTreeMap<TrackId, Vec<u8>>, change: impl FnOnce(&mut Cluster)) {
    let (gateway, stop) = (cluster.gateway(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| read_on(gateway, tracks, &stop));
        let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| change(cluster)));
        stop.store(true, Ordering::Relaxed);
        let rounds = reading.join().expect("every track is read");
        changed.unwrap_or_else(|why| std::panic::resume_unwind(why));
        assert!(rounds > 1, "read {rounds} times only");
    });
}

#[test]
fn a_cluster_grows_by_a_node_and_shrinks_by_it_and_every_track_is_readable_all_the_time() {
    let _turn = turn();
    let (mut cluster, tracks) = stored();
    let first = cluster.master_address(0);
    until("three copies of each", first, is_settled);
    while_read(&mut cluster, &tracks, |cluster| {
        let fourth = join(cluster);
        let now = until("the fourth has its share", first, |now, healthy| {
            is_settled(now, healthy) && node(now, fourth).is_some_and(|node| tracks_of(node) > 0)
        });
        assert_eq!(now["nodes"].as_array().map(Vec::len), Some(4));
        assert_eq!(now["copies"]["seen"], 3 * TRACKS, "three copies of each, wherever they are now");
        let fourth = fourth.to_string();
        // Whoever is asked leads to the node that leads.
        for index in 0..4 {
            let at = cluster.master_address(index).to_string();
            let plan = said(&["cluster", "plan", "--node", &at, "drain", &fourth]);
            assert!(plan.contains("To move, by estimate"), "{plan}");
        }
        let at = first.to_string();
        refused(&["cluster", "remove", &fourth, "--node", &at], &["drain it first", "cluster drain"]);
        let drained = told(&["cluster", "drain", &fourth, "--wait", "--node", &at]);
        assert!(drained["settled"] == true && drained["forecast"]["bytes_to_move"] != 0, "{drained}");
        let removed = told(&["cluster", "remove", &fourth, "--node", &at]);
        assert!(removed["epoch"].as_u64() > drained["epoch"].as_u64(), "{removed}");
        cluster.kill_master(3);
        let now = until("three nodes have all", first, is_settled);
        assert_eq!(now["nodes"].as_array().map(Vec::len), Some(3));
        assert_eq!(now["copies"]["seen"], 3 * TRACKS);
    });
}

/// Brings a fourth node in, with a tenth of the others' weight, and starts it. Its address.
fn join(cluster: &mut Cluster) -> SocketAddr {
    let map = cluster.dir().join("cluster.toml").to_str().expect("UTF-8").to_owned();
    let weights: Vec<u64> = deadwax_dht::Map::load(&PathBuf::from(&map))
        .expect("a map")
        .nodes()
        .iter()
        .map(|node| u64::from(node.volumes[0].weight))
        .collect();
    let weight = (weights[0] / 10).max(1).to_string();
    let (index, address) = cluster.adopt_master();
    let home = cluster.master_config(index).parent().expect("a folder").to_str().expect("UTF-8").to_owned();
    let spec = format!("here@{address}={}", cluster.dir().join("drive-3").display());
    let like = cluster.master_config(0).to_str().expect("UTF-8").to_owned();
    let arguments = ["cluster", "join", &spec, "--data", &home, "--weight", &weight, "--map", &map, "--like", &like];
    let text = said(&arguments);
    assert!(text.contains("deadwax master --config"), "{text}");
    // Cut off before it was started, it goes on when it is run again.
    let joined = told(&arguments);
    assert!(joined["node"].is_string() && joined["epoch"].is_u64() && joined["map"].is_string(), "{joined}");
    assert_eq!(joined["config"], cluster.master_config(index).display().to_string());
    cluster.use_small_segments(index);
    cluster.start_master(index);
    address
}

fn node(now: &Value, address: SocketAddr) -> Option<&Value> {
    now["nodes"].as_array()?.iter().find(|node| node["address"] == address.to_string())
}

fn tracks_of(node: &Value) -> u64 {
    node["volumes"].as_array().into_iter().flatten().filter_map(|volume| volume["tracks"].as_u64()).sum()
}

/// Refusals come first: nothing was done by then, or the rest could not be.
#[test]
fn a_site_is_lost_with_most_of_those_that_vote_and_the_other_site_goes_on() {
    let _turn = turn();
    let (mut cluster, tracks) = stored_in(&["a", "a", "a", "b", "b", "b"], 20);
    cluster.wait_until_copied();
    let at = cluster.master_address(3);
    let (name, config) = (at.to_string(), cluster.master_config(3).to_str().expect("UTF-8").to_owned());
    let refound = ["cluster", "refound", "--config", &config];
    let without = |more: &[&'static str]| [&refound[..], more].concat();
    for index in 0..3 {
        cluster.kill_master(index);
    }
    refused(&without(&["--lost-zone", "a", "--yes"]), &["in use by another process"]);
    cluster.kill_master(3);
    refused(&without(&["--lost-zone", "c", "--yes"]), &["no node is in a zone", "there are a, b"]);
    refused(&without(&["--lost-zone", "b", "--yes"]), &["of 5 nodes that vote 3 are not lost", "apply voters"]);
    refused(&without(&["--lost-zone", "a", "--lost-zone", "b", "--yes"]), &["cannot be lost"]);
    refused(&without(&["--lost-zone", "a"]), &["nothing is done yet", "--yes"]);
    cluster.start_master(0);
    let answers = || deadwax(&without(&["--lost-zone", "a"])).stderr;
    cluster::wait_until("a master that answers is not lost", || {
        String::from_utf8_lossy(&answers()).contains("answers, so it is not lost")
    });
    cluster.kill_master(0);
    cluster.kill_master(4);
    refused(&without(&["--lost-zone", "a", "--yes"]), &["do not answer", "--ignore-silent"]);
    cluster.start_master(4);
    cluster::wait_until("all that are left answer", || {
        String::from_utf8_lossy(&answers()).contains("nothing is done yet")
    });
    let done = told(&without(&["--lost-zone", "a", "--yes"]));
    assert!(done["epoch"].as_u64() > Some(1) && done["lost"].as_array().map(Vec::len) == Some(3), "{done}");
    cluster.start_master(3);
    until("three vote, of those that are left", at, |now, _| {
        now["log"]["voters"].as_array().map(Vec::len) == Some(3)
            && now["log"]["dead"].as_array().map(Vec::len) == Some(3)
    });
    told(&["cluster", "apply", "zones-min", "1", "--node", &name]);
    for (id, bytes) in &tracks {
        cluster::wait_until("it can be read", || {
            let reply = cluster.get(id);
            assert!(reply.status == 503 || reply.status == 200 && reply.body == *bytes, "{id}: {}", reply.status);
            reply.status == 200
        });
    }
    let mut fresh = (1_000..).map(|seed| Random::new(seed).bytes(30_000));
    let began = Instant::now();
    let put = fresh.by_ref().filter(|bytes| {
        assert!(began.elapsed() < MOVED, "puts do not succeed");
        cluster.post(&[], bytes).status == 201
    });
    assert_eq!(put.take(5).count(), 5);
    // The machine of one that is lost comes back, with what is on its drives and without what it kept of the log.
    let first = cluster.master_config(0).to_str().expect("UTF-8").to_owned();
    std::fs::remove_dir_all(cluster.dir().join("master-1/system")).expect("removed");
    said(&["cluster", "rejoin", "--config", &first]);
    cluster.start_master(0);
    let back = cluster.master_address(0).to_string();
    until("it has heard of the log", cluster.master_address(0), |now, _| {
        let own = node(now, cluster.master_address(0)).is_some_and(|node| node["up"] == true);
        own && now["log"]["voters"].as_array().map(Vec::len) == Some(3)
    });
    told(&["cluster", "apply", "alive", &back, "--node", &name]);
    until("it is no more dead", at, |now, _| now["log"]["dead"].as_array().map(Vec::len) == Some(2));
}

#[test]
fn a_drive_is_added_and_retired_while_its_master_runs() {
    let _turn = turn();
    let (cluster, _) = stored();
    let at = cluster.master_address(0);
    until("three copies of each", at, is_settled);
    let (name, config) = (at.to_string(), cluster.master_config(0));
    let config = config.to_str().expect("UTF-8");
    let drive = cluster.dir().join("one more");
    let drive = drive.to_str().expect("UTF-8");
    let weight =
        deadwax_dht::Map::load(&cluster.dir().join("cluster.toml")).expect("a map").nodes()[0].volumes[0].weight;
    let arguments = ["volume", "add", drive, "--config", config, "--weight", &(weight / 10).max(1).to_string()];
    said(&arguments);
    cluster.hang_up(0);
    let now = until("the new drive has its share", at, |now, healthy| {
        let volumes = node(now, at).and_then(|node| node["volumes"].as_array());
        is_settled(now, healthy)
            && volumes.is_some_and(|all| all.len() == 2 && all.iter().all(|each| each["tracks"] != 0))
    });
    let volumes = node(&now, at).expect("there")["volumes"].as_array().expect("volumes");
    let volume = volumes.iter().find(|volume| volume["dir"] == drive).expect("the new one")["id"].clone();
    let volume = &volume.as_str().expect("an id")[..8];
    let left = told(&["volume", "retire", volume, "--node", &name]);
    assert!(left["removed"] == false && left["partitions_left"] != 0, "{left}");
    let text = said(&["volume", "retire", volume, "--node", &name]);
    assert!(text.contains("do not unplug it"), "{text}");
    let text = said(&["volume", "retire", volume, "--node", &name, "--wait"]);
    assert!(text.contains("send the master SIGHUP"), "{text}");
    let settings = std::fs::read_to_string(config).expect("there");
    std::fs::write(config, settings.replace(&format!(", \"{drive}\""), "")).expect("written");
    cluster.hang_up(0);
    until("all is on the drive that was there", at, |now, healthy| {
        let serving = node(now, at).and_then(|node| node["volumes"].as_array()).into_iter().flatten();
        is_settled(now, healthy) && serving.filter(|volume| volume["state"] == "serving").count() == 1
    });
    // Back to when it held its share: who plans it hears that the drive is not there.
    let plan = told(&["cluster", "plan", "--node", &name, "rollback", &now["epoch"].to_string()]);
    let warnings = plan["warnings"].as_array().expect("a list");
    let warning = warnings.first().and_then(Value::as_str).unwrap_or_default();
    assert!(warnings.len() == 1 && warning.contains(volume) && warning.contains("wait until it serves"), "{plan}");
}

#[test]
fn a_drive_whose_adding_was_interrupted_keeps_no_other_from_serving_and_is_added_by_the_same_again() {
    let _turn = turn();
    let mut cluster = Cluster::start();
    let (first, other) = (cluster.master_address(0), cluster.master_address(1));
    let file = cluster.master_config(0);
    let (config, drive) = (file.to_str().expect("UTF-8"), cluster.dir().join("one more"));
    let drive = drive.to_str().expect("UTF-8");
    let arguments = ["volume", "add", drive, "--config", config, "--weight", "1"];
    let before = std::fs::read_to_string(&file).expect("there");
    said(&arguments);
    let added = std::fs::read_to_string(&file).expect("there");
    // As if it had been cut off after the cluster was told.
    std::fs::write(&file, before).expect("written");
    cluster.kill_master(0);
    cluster.start_master(0);
    let states = |now: &Value| -> Vec<String> {
        let volumes = node(now, first).and_then(|node| node["volumes"].as_array());
        let states = volumes.into_iter().flatten().map(|volume| volume["state"].as_str().unwrap_or("unknown"));
        states.map(str::to_owned).collect()
    };
    until("the drive that the settings name serves", other, |now, _| {
        let states = states(now);
        states.len() == 2 && states.iter().filter(|state| *state == "serving").count() == 1
    });
    cluster.kill_master(0);
    let told = told(&arguments);
    assert!(told["dir"] == drive && told["weight"] == 1 && told["volume"].is_string(), "{told}");
    assert_eq!(std::fs::read_to_string(&file).expect("there"), added);
    cluster.start_master(0);
    until("both drives serve", other, |now, _| states(now) == ["serving", "serving"]);
}

#[test]
fn what_cannot_be_is_refused_with_its_reason_and_what_was_done_is_undone() {
    let _turn = turn();
    let cluster = Cluster::start();
    let at = cluster.master_address(1).to_string();
    let (now, _) = status(cluster.master_address(0));
    let epoch = now["epoch"].as_u64().expect("a number");
    let rack = || -> Option<String> {
        let file = cluster.dir().join("now.toml");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let layout = runtime.block_on(async {
            let client =
                deadwax_dht_client::Client::discover(&at, None, deadwax_dht_client::ClientConfig::default()).await;
            let (client, _) = client.expect("it tells of the cluster");
            deadwax::masters::newest(&client).await.expect("it has a log")
        });
        layout.map().save(&file).expect("saved");
        layout.map().nodes().iter().find(|node| node.address == at).expect("it is there").rack.clone()
    };
    let done = told(&["cluster", "apply", "--node", &at, "rack", &at, "r7"]);
    assert!(done["epoch"].as_u64() > Some(epoch) && done["settled"] == false, "{done}");
    assert_eq!(rack().as_deref(), Some("r7"));
    assert!(told(&["cluster", "rollback", &epoch.to_string(), "--node", &at])["forecast"].is_object());
    assert_eq!(rack(), None);
    let drained = || status(cluster.master_address(1)).0["log"]["leaving"]["volumes"].as_u64();
    said(&["cluster", "apply", "--node", &at, "drain", &at]);
    assert_eq!(drained(), Some(1));
    said(&["cluster", "rollback", &epoch.to_string(), "--node", &at]);
    assert_eq!(drained(), Some(0), "a drain is undone, too");
    let words = ["epochs are known from", "999 is none of them", "r7, then none"];
    refused(&["cluster", "rollback", "999", "--node", &at], &words);
    let list = said(&["cluster", "rollback", "--list", "--node", &at]);
    for part in [format!("rack of node {at}: none, then r7"), format!("node {at} drained")] {
        assert!(list.contains(&part), "no {part:?} in\n{list}");
    }
    let list = told(&["cluster", "rollback", "--list", "--node", &at]);
    let changes = |at: usize| list["epochs"][at]["changes"].as_array().map(Vec::len);
    assert!(list["oldest"].as_u64() <= Some(epoch) && (changes(0), changes(1)) == (Some(0), Some(1)), "{list}");
    let plan = said(&["cluster", "plan", "drain", &at, "--node", &at]);
    assert!(plan.contains("2 nodes cannot hold 3 copies of each track"), "{plan}");
    let plan = told(&["cluster", "plan", "drain", &at, "--node", &at]);
    assert!(plan["shares"].is_array() && plan["unmet"].as_array().is_some_and(|unmet| !unmet.is_empty()), "{plan}");
    // What is not there yet: a node of two drives takes a copy of all there is, as the others have one each; a drive a part.
    let epoch = || status(cluster.master_address(1)).0["log"]["epoch"].as_u64();
    let before = epoch();
    let joins = told(&["cluster", "plan", "--node", &at, "join", "default", "1000000", "1000000"]);
    let comes = |plan: &Value| {
        let shares = plan["shares"].as_array().expect("a list").iter().filter(|share| share["copies_before"] == 0);
        shares.map(|share| share["copies_after"].as_u64().expect("a number")).collect::<Vec<_>>()
    };
    assert!(matches!(comes(&joins)[..], [one, two] if one + two > 40_000), "{joins}");
    assert!(said(&["cluster", "plan", "--node", &at, "join", "default", "1000000"]).contains("(new)"));
    let added = told(&["cluster", "plan", "--node", &at, "add-volume", &at, "1000000"]);
    assert!(matches!(comes(&added)[..], [one] if one > 10_000), "{added}");
    refused(&["cluster", "plan", "--node", &at, "add-volume", "127.0.0.1:1", "1"], &["no node is", &at]);
    assert_eq!(epoch(), before, "nothing is done");
    refused(&["cluster", "remove", &at, "--node", &at], &["partitions are on it", "cluster drain"]);
    refused(&["cluster", "apply", "voters", &at, "--node", &at], &["refused"]);
    refused(&["cluster", "drain", "127.0.0.1:1", "--node", &at], &["no node is", &at]);
}

#[test]
fn a_cluster_without_a_log_says_that_it_cannot_be_changed() {
    let _turn = turn();
    let cluster = Cluster::start_with(&["--no-log"]);
    let map = cluster.dir().join("cluster.toml");
    let map = map.to_str().expect("UTF-8");
    let at = cluster.master_address(0).to_string();
    let words = ["has no log", "cannot be changed while it runs"];
    refused(&["cluster", "drain", &at, "--map", map], &words);
    refused(&["cluster", "plan", "drain", &at, "--map", map], &words);
    // Its status is the one of the gateway.
    let text = said(&["status", "--map", map]);
    assert!(text.contains("healthy") && !text.contains("log at epoch"), "{text}");
}
