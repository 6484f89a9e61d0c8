//! A new master that joins a cluster with TLS by a token, and those that must not: by the command line, as real processes.

mod cluster;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use cluster::{Cluster, wait_until};
use deadwax::join_token::JoinToken;
use deadwax_dht::{Map, NodeId, TokenSecret};
use serde_json::Value;

/// A cluster with TLS, and who may command it.
struct Site {
    cluster: Cluster,
    map: PathBuf,
    key: PathBuf,
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn deadwax(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deadwax"));
    command.args(arguments).env_remove("DEADWAX_GATEWAY").output().expect("the program starts")
}

/// What it prints, where it ends well, and what it says beside that.
fn said(arguments: &[&str]) -> (String, String) {
    let output = deadwax(arguments);
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
    assert!(output.status.success(), "{arguments:?}: {}\n{out}{err}", output.status);
    (out, err)
}

/// It fails, and says so in these words.
fn refused(arguments: &[&str], words: &[&str]) {
    let output = deadwax(arguments);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {err}{}", String::from_utf8_lossy(&output.stdout));
    words.iter().for_each(|word| assert!(err.contains(word), "{arguments:?} does not say {word:?}: {err}"));
}

impl Site {
    fn start() -> Self {
        let cluster = Cluster::start_with(&["--tls"]);
        let at = |name: &str| cluster.dir().join(name);
        let (map, key) = (at("cluster.toml"), at("admin.key"));
        Self { cluster, map, key }
    }

    /// The id of a master that founded the cluster.
    fn id(&self, index: usize) -> NodeId {
        let address = self.cluster.master_address(index).to_string();
        let map = Map::load(&self.map).expect("the founders' map");
        map.nodes().iter().find(|node| node.address == address).expect("it founded").id
    }

    fn token(&self, ttl: &str) -> String {
        said(&self.command(&["--ttl", ttl])).0.trim_end().to_owned()
    }

    fn command<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [&["cluster", "token", "--map", text(&self.map), "--key", text(&self.key)], more].concat()
    }

    /// The same, as programs read it.
    fn told(&self, more: &[&str]) -> Value {
        serde_json::from_str(&said(&self.command(&[more, &["--json"]].concat())).0).expect("a line of JSON")
    }

    /// What a new machine's operator types, in a folder of this name.
    fn join(&self, name: &str, address: &str, token: &str) -> Vec<String> {
        let at = |name: &str| self.cluster.dir().join(name).display().to_string();
        let spec = format!("here@{address}={}", at(&format!("{name}/drive")));
        ["cluster", "join", &spec, "--data", &at(name), "--token", token].map(str::to_owned).to_vec()
    }

    /// How many masters the one of this address sees that are up.
    fn up(&self, node: &str) -> usize {
        let output = deadwax(&["status", "--json", "--node", node, "--key", text(&self.key)]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["nodes"].as_array().map_or(0, |nodes| nodes.iter().filter(|node| node["up"] == true).count())
    }
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// The token with another secret.
fn forged(token: &str) -> String {
    let JoinToken { masters, .. } = token.parse().expect("a token");
    JoinToken { secret: TokenSecret::from_bytes([7; 16]), masters }.to_string()
}

#[test]
fn a_master_joins_by_a_token_once_and_nobody_else_does() {
    let mut site = Site::start();
    let (index, address) = site.cluster.adopt_master();
    let address = address.to_string();
    let (_, other) = site.cluster.adopt_master();
    let other = other.to_string();

    // One that has expired, by the clocks of masters that are on this machine.
    let expired = site.token("1s");
    let made = Instant::now();
    wait_until("it has expired", || made.elapsed() > Duration::from_millis(1_100));
    refused(&words(&site.join("master-4", &address, &expired)), &["expired", "have another one made"]);

    // One that nobody made, while there is one that somebody did, and whoever has none.
    let token = site.token("1h");
    refused(&words(&site.join("master-4", &address, &forged(&token))), &["no such token"]);
    let stranger = site.cluster.dir().join("stranger.key");
    deadwax_dht_tls::load_or_make_key(&stranger).expect("made");
    let first = site.cluster.master_address(0).to_string();
    refused(&["status", "--node", &first, "--key", text(&stranger)], &["is not admitted"]);
    let part = &token[..token.len() - 9];
    refused(&words(&site.join("master-4", &address, part)), &["not all of one"]);

    // It comes in, and is started by the settings that the others gave it.
    let join = site.join("master-4", &address, &token);
    assert!(said(&words(&join)).0.contains("is in the cluster's map"));
    let settings = site.cluster.master_config(index);
    let as_made = std::fs::read_to_string(&settings).expect("made");
    let old = deadwax_node::Config::load(&site.cluster.master_config(0)).expect("good settings");
    let new = deadwax_node::Config::load(&settings).expect("good settings");
    assert!(new.tls && new.log && new.insecure_listen == old.insecure_listen);
    assert_eq!((&new.clients, &new.admins, &new.issuers), (&old.clients, &old.admins, &old.issuers));

    // Cut off before it had written all, the same is typed again; by another machine it is of no use any more.
    for gone in ["master-4/master.toml", "master-4/cluster.toml"] {
        std::fs::remove_file(site.cluster.dir().join(gone)).expect("it was made");
    }
    let told = said(&[&words(&join)[..], &["--json"]].concat()).0;
    let told: Value = serde_json::from_str(&told).expect("a line of JSON");
    assert!(told["config"] == text(&settings) && told["epoch"].is_u64() && told["map"].is_string(), "{told}");
    assert_eq!(std::fs::read_to_string(&settings).expect("made"), as_made);
    refused(&words(&site.join("master-5", &other, &token)), &["no such token", "have another one made"]);

    // Whoever commands it knows it by its name, which the map has.
    site.cluster.use_small_segments(index);
    site.cluster.start_master(index);
    let joined = Map::load(&site.cluster.dir().join("master-4/cluster.toml")).expect("the map");
    let id = joined.nodes().iter().find(|node| node.address == address).expect("it is there").id;
    assert_eq!(told["node"], id.to_string());
    let named = format!("{id}@{address}");
    wait_until("the new master sees all of them", || site.up(&named) == 4);

    revoked(&site, &other);
    believed(&site);
}

/// Tokens that are taken back are of no use.
fn revoked(site: &Site, address: &str) {
    let made = site.told(&["--ttl", "1h"]);
    assert_eq!(made["ttl_s"], 3_600);
    let token = made["token"].as_str().expect("a token").to_owned();
    let revoked = site.told(&["--revoke"]);
    assert!(revoked["revoked"] == true && revoked["epoch"].is_u64(), "{revoked}");
    refused(&words(&site.join("master-5", address, &token)), &["no such token"]);
    let without_key = ["cluster", "token", "--map", text(&site.map)];
    refused(&without_key, &["--key"]);
}

/// Who is named by an address alone is believed, and said to be; who is named by his id must have it.
fn believed(site: &Site) {
    let first = site.cluster.master_address(0);
    let (right, wrong) = (format!("{}@{first}", site.id(0)), format!("{}@{first}", site.id(1)));
    let said_of = |node: &str| {
        let output = deadwax(&["status", "--node", node, "--key", text(&site.key)]);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let of_address = said_of(&first.to_string());
    assert!(of_address.contains("is believed") && of_address.contains(&right), "{of_address}");
    assert!(!said_of(&right).contains("believed"));
    refused(&["status", "--node", &wrong, "--key", text(&site.key)], &["has the key of"]);
    let prefix = format!("{}@{first}", &site.id(0).to_string()[..12]);
    let output = deadwax(&["status", "--node", &prefix, "--key", text(&site.key)]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}
