//! A cluster of real processes on loopback, that a test can hurt.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod http;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use deadwax_track::TrackId;
use http::Reply;
use serde_json::Value;

/// What has not come true by then will not.
const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `holds`; a test that waits for ever says for what.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A child that dies with the test.
pub(crate) struct Process(Child);

impl Process {
    /// SIGKILL: it gets no chance to say goodbye.
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub(crate) fn hang_up(&self) {
        let sent = Command::new("kill").args(["-HUP", &self.0.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    pub(crate) fn memory_peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("the process runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// SplitMix64: a seed gives the same bytes everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(count);
        bytes
    }
}

/// Three masters and a gateway, each a process of its own, on free ports.
pub(crate) struct Cluster {
    // Fields drop in order: processes die before their files go.
    gateway: Option<Process>,
    masters: Vec<Option<Process>>,
    gateway_address: SocketAddr,
    master_addresses: Vec<SocketAddr>,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Makes a cluster by the command line, starts it, and waits until it serves.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`start`](Self::start), made with these arguments besides.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(&["here"; 3], arguments)
    }

    /// The same, of a master in each of these zones.
    pub(crate) fn start_in(zones: &[&str], arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for the test");
        let mut master_addresses = free_addresses(zones.len() + 1);
        let gateway_address = master_addresses.pop().expect("one more");
        let mut init = Command::new(env!("CARGO_BIN_EXE_deadwax"));
        init.args(["cluster", "init", "--listen", &gateway_address.to_string(), "--data"]).arg(dir.path());
        init.args(arguments);
        for (index, (zone, address)) in zones.iter().zip(&master_addresses).enumerate() {
            let drive = dir.path().join(format!("drive-{index}"));
            init.arg("--node").arg(format!("{zone}@{address}={}", drive.display()));
        }
        let output = init.output().expect("cluster init runs");
        assert!(output.status.success(), "cluster init: {}", String::from_utf8_lossy(&output.stderr));
        let masters = master_addresses.iter().map(|_| None).collect();
        let mut cluster = Self { gateway: None, masters, gateway_address, master_addresses, dir };
        for index in 0..cluster.masters.len() {
            use_small_segments(&cluster.master_config(index));
            cluster.start_master(index);
        }
        cluster.start_gateway();
        cluster.wait_until_all_up();
        cluster.wait_until_absence_is_known();
        cluster
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn gateway(&self) -> SocketAddr {
        self.gateway_address
    }

    pub(crate) fn master_address(&self, index: usize) -> SocketAddr {
        self.master_addresses[index]
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.gateway_address)
    }

    pub(crate) fn master_config(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("master-{}/master.toml", index + 1))
    }

    /// Makes room for one more master, at an address of its own: its number and the address.
    pub(crate) fn adopt_master(&mut self) -> (usize, SocketAddr) {
        let address = free_addresses(1)[0];
        self.masters.push(None);
        self.master_addresses.push(address);
        (self.masters.len() - 1, address)
    }

    /// Gives master `index` segments that a small disk holds several of, from its next start on.
    pub(crate) fn use_small_segments(&self, index: usize) {
        use_small_segments(&self.master_config(index));
    }

    /// Starts master `index`; whoever needs it to serve waits for that.
    pub(crate) fn start_master(&mut self, index: usize) {
        let config = self.master_config(index);
        self.masters[index] = Some(self.spawn("master", &config, &format!("master-{index}.log")));
    }

    /// Starts the gateway and waits until it is ready.
    pub(crate) fn start_gateway(&mut self) {
        let config = self.dir.path().join("gateway/gateway.toml");
        self.gateway = Some(self.spawn("gateway", &config, "gateway.log"));
        wait_until("the gateway is ready", || {
            http::ask(self.gateway_address, "GET", "/readyz", &[], &[]).is_ok_and(|reply| reply.status < 500)
                || self.masters.iter().all(Option::is_none)
                    && http::ask(self.gateway_address, "GET", "/healthz", &[], &[]).is_ok()
        });
    }

    /// Starts the gateway, which masters will not let in, with other settings than those it was made with.
    pub(crate) fn start_gateway_with(&mut self, change: impl FnOnce(String) -> String) {
        let config = self.dir.path().join("gateway/gateway.toml");
        let changed = change(std::fs::read_to_string(&config).expect("the settings are there"));
        std::fs::write(&config, changed).expect("written");
        self.gateway = Some(self.spawn("gateway", &config, "gateway.log"));
        wait_until("the gateway listens", || http::ask(self.gateway_address, "GET", "/healthz", &[], &[]).is_ok());
    }

    /// One more gateway, and where it listens. It dies with what is given.
    pub(crate) fn start_another_gateway(&self) -> (Process, SocketAddr) {
        let address = free_addresses(1)[0];
        let config = self.dir.path().join("gateway/gateway.toml");
        let listen = address.to_string();
        let gateway = self.spawn_with("gateway", &config, "another.log", &["--listen", &listen]);
        wait_until("another gateway is ready", || {
            http::ask(address, "GET", "/readyz", &[], &[]).is_ok_and(|reply| reply.status < 500)
        });
        (gateway, address)
    }

    fn spawn(&self, command: &str, config: &Path, log: &str) -> Process {
        self.spawn_with(command, config, log, &[])
    }

    fn spawn_with(&self, command: &str, config: &Path, log: &str, arguments: &[&str]) -> Process {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join(log)).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_deadwax"))
            .args([command, "--config"])
            .arg(config)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        Process(child)
    }

    /// Hands master `index` to a test that will kill it while others use the cluster.
    pub(crate) fn take_master(&mut self, index: usize) -> Process {
        self.masters[index].take().expect("the master runs")
    }

    pub(crate) fn take_gateway(&mut self) -> Process {
        self.gateway.take().expect("the gateway runs")
    }

    pub(crate) fn kill_master(&mut self, index: usize) {
        self.take_master(index).kill();
    }

    pub(crate) fn kill_gateway(&mut self) {
        self.take_gateway().kill();
    }

    /// Waits until the gateway sees every node.
    pub(crate) fn wait_until_all_up(&self) {
        wait_until("every node is up", || {
            let reply = http::ask(self.gateway_address, "GET", "/v1/status", &[], &[]);
            reply.is_ok_and(|reply| {
                let status = reply.json();
                let nodes = status["nodes"].as_array().expect("a list of nodes");
                nodes.len() == self.masters.len() && nodes.iter().all(|node| node["up"] == true)
            })
        });
    }

    /// Waits until the cluster says of what was never stored that it is not there: masters that keep a log have compared
    /// what they hold by then. Until then they cannot tell.
    pub(crate) fn wait_until_absence_is_known(&self) {
        let absent = TrackId::of(b"never stored");
        wait_until("it is known to be absent", || match self.get(&absent).status {
            404 => true,
            other => {
                assert_eq!(other, 503, "nothing else is true of it");
                false
            }
        });
    }

    /// Waits until every track has all its copies: a put is answered at two of three, and the third follows. Until then
    /// the holder that lacks it is offered the track again.
    pub(crate) fn wait_until_copied(&self) {
        wait_until("no copy is missing", || self.status()["copies"]["missing"] == 0);
    }

    /// Has master `index` read its settings again.
    pub(crate) fn hang_up(&self, index: usize) {
        self.masters[index].as_ref().expect("the master runs").hang_up();
    }

    pub(crate) fn gateway_memory_peak_mib(&self) -> u64 {
        self.gateway.as_ref().expect("the gateway runs").memory_peak_mib()
    }

    pub(crate) fn status(&self) -> Value {
        self.ask_path("GET", "/v1/status", &[], &[]).json()
    }

    pub(crate) fn get(&self, id: &TrackId) -> Reply {
        self.ask("GET", id, &[], &[])
    }

    pub(crate) fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.ask_path("POST", "/v1/tracks", headers, body)
    }

    pub(crate) fn ask(&self, method: &str, id: &TrackId, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.ask_path(method, &format!("/v1/tracks/{id}"), headers, body)
    }

    pub(crate) fn ask_path(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        http::ask(self.gateway_address, method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub(crate) fn try_ask(
        &self,
        method: &str,
        id: &TrackId,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Reply> {
        http::ask(self.gateway_address, method, &format!("/v1/tracks/{id}"), headers, body)
    }
}

impl Drop for Cluster {
    /// The files go with the test; what the processes said is worth keeping when it failed.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let masters = (0..self.masters.len()).map(|index| format!("master-{index}.log"));
        for log in ["gateway.log", "another.log"].map(str::to_owned).into_iter().chain(masters) {
            let text = std::fs::read_to_string(self.dir.path().join(&log)).unwrap_or_default();
            let tail = text.lines().count().saturating_sub(25);
            let lines: Vec<_> = text.lines().skip(tail).collect();
            eprintln!("--- the end of {log}\n{}", lines.join("\n"));
        }
    }
}

/// Ports that were free while all of them were held.
fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let listen = |_| std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let listeners: Vec<_> = (0..count).map(listen).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("a bound listener has an address")).collect()
}

/// Segments that a small disk holds several of.
fn use_small_segments(config: &Path) {
    let text = std::fs::read_to_string(config).expect("the settings are there");
    let text: Vec<_> = text.lines().filter(|line| !line.starts_with("segment_bytes")).collect();
    std::fs::write(config, format!("segment_bytes = {}\n{}\n", 128 << 20, text.join("\n"))).expect("written");
}
