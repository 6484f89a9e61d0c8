//! A cluster of one node in a temporary directory, run in a thread or in a process of its own.

use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::thread;

use deadwax_dht::{ClusterId, MAP_VERSION, Map, MapSpec, NodeId, NodeKey, Policy, VolumeId};
use deadwax_dht_tls::Identity;
use deadwax_node::{Config, Error, Place, Rotating, Stopper, found, init, make_issuer, run};
use tempfile::TempDir;

use crate::peer::Peer;

/// Names the config file to the process that [`Site::spawn`] starts.
const CONFIG_VARIABLE: &str = "DEADWAX_NODE_TEST_CONFIG";
const READY_LINE: &str = "node is ready";

/// A node's directories, initialised, and the map that names it.
pub(crate) struct Site {
    /// Removed with the site.
    pub(crate) root: TempDir,
    pub(crate) config: Config,
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) volumes: Vec<VolumeId>,
    pub(crate) epoch: u64,
}

pub(crate) fn place() -> Place {
    Place { zone: "here".into(), rack: None, weight: Some(1) }
}

/// An address of this test's own: all of 127.0.0.0/8 is loopback, and no outgoing connection is ever given one of
/// these.
pub(crate) fn own_address() -> SocketAddr {
    static TAKEN: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, high, low, TAKEN.fetch_add(1, Ordering::Relaxed)], 7881))
}

impl Site {
    /// A node of `volumes` volumes and `shards` shards, initialised and mapped.
    pub(crate) fn new(volumes: usize, shards: usize) -> Self {
        let root = tempfile::tempdir().expect("temporary directory");
        let dirs = (0..volumes).map(|n| root.path().join(format!("volume{n}"))).collect();
        let mut config = Config::new(root.path().join("node"), own_address(), root.path().join("map.toml"), dirs);
        config.shards = shards.try_into().ok();
        config.io_memory_bytes = 8 << 20;
        config.segment_bytes = 64 << 20;
        config.reserve_bytes = 16 << 20;
        config.rotating = Rotating::No;
        config.stall_timeout_s = 10;
        let entry = init(&config, &place()).expect("initialises");
        let cluster = ClusterId::from_bytes([7; 16]);
        let volumes = entry.volumes.iter().map(|volume| volume.id).collect();
        let site = Self { root, config, cluster, node: entry.id, volumes, epoch: 1 };
        site.write_map(entry);
        site
    }

    /// The key of the client that a node with TLS admits.
    pub(crate) fn client() -> NodeKey {
        NodeKey::from_bytes(&[77; 32])
    }

    /// As [`new`](Self::new), with TLS.
    pub(crate) fn secure() -> Self {
        Self::secure_with(2)
    }

    /// The same, with so many shards.
    pub(crate) fn secure_with(shards: usize) -> Self {
        let mut site = Self::new(1, shards);
        site.config.tls = true;
        site.config.clients = vec![Self::client().node_id()];
        site
    }

    /// Writes a map of this one node.
    pub(crate) fn write_map(&self, entry: deadwax_dht::Node) {
        let spec = MapSpec {
            version: MAP_VERSION,
            cluster: self.cluster,
            epoch: self.epoch,
            policy: Policy { copies: 1, write_quorum: 1, zones_min: 1 },
            nodes: vec![entry],
            overrides: vec![],
        };
        Map::new(spec).expect("a good map").save(&self.config.map).expect("saved");
    }

    /// Three nodes that found a cluster, of which each has one volume: two copies are durable, the third follows.
    pub(crate) fn trio() -> [Self; 3] {
        Self::founders(|_| {})
    }

    /// The same, with further settings.
    pub(crate) fn trio_with(set: impl Fn(&mut Config)) -> [Self; 3] {
        Self::founders(set)
    }

    /// As many nodes as are asked for, in one zone, all of which may take tracks down, with further settings.
    pub(crate) fn founders<const N: usize>(set: impl Fn(&mut Config)) -> [Self; N] {
        let mut sites = [(); N].map(|()| Self::new(1, 1));
        let issuers = sites.each_ref().map(|site| make_issuer(&site.config.dir).expect("made"));
        for (site, (key, _)) in sites.iter_mut().zip(&issuers) {
            site.config.log = true;
            site.config.issuers = issuers.iter().map(|(_, public)| *public).collect();
            site.config.issuer_key = Some(key.clone());
            set(&mut site.config);
        }
        let nodes = sites.iter().map(|site| init(&site.config, &place()).expect("initialised")).collect();
        let policy = Policy { copies: 3, write_quorum: 2, zones_min: 1 };
        let (version, cluster, epoch, overrides) = (MAP_VERSION, sites[0].cluster, 1, vec![]);
        let map = Map::new(MapSpec { version, cluster, epoch, policy, nodes, overrides }).expect("a good map");
        for site in &sites {
            map.save(&site.config.map).expect("saved");
            assert!(found(&site.config).expect("founds"), "three nodes or more have a log");
        }
        sites
    }

    /// Runs the node in a thread of this process; returns once it serves.
    pub(crate) fn start(&self) -> Running {
        let (ready, readied) = mpsc::channel();
        let config = self.config.clone();
        let thread = thread::spawn(move || run(config, |node| ready.send(node.stopper()).expect("someone waits")));
        let Ok(stopper) = readied.recv() else {
            panic!("the node did not start: {}", thread.join().expect("no panic").expect_err("an error"));
        };
        Running { stopper, thread: Some(thread) }
    }

    /// Runs the node in a thread of this process, until it stops by itself: how it ended comes when it does.
    pub(crate) fn run_to_its_end(&self) -> mpsc::Receiver<Error> {
        let (ended, end) = mpsc::channel();
        let config = self.config.clone();
        thread::spawn(move || ended.send(run(config, |_| {}).expect_err("nobody stops it")));
        end
    }

    /// Runs the node to the error that keeps it from serving.
    pub(crate) fn refusal(&self) -> Error {
        run(self.config.clone(), |_| panic!("the node serves")).expect_err("an error")
    }

    /// Runs the node in a process of its own: this very test program, at [`as_a_process`].
    pub(crate) fn spawn(&self) -> Process {
        let file = self.root.path().join("node.toml");
        std::fs::write(&file, self.config.to_toml()).expect("written");
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "cluster::as_a_process", "--nocapture", "--test-threads=1"])
            .env(CONFIG_VARIABLE, &file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains(READY_LINE));
        assert!(ready, "the node's process ended: {:?}", child.wait());
        Process { child, _output: lines }
    }

    /// A greeted connection.
    pub(crate) fn connect(&self) -> Peer {
        let mut peer = self.connect_raw();
        if self.config.tls {
            assert_eq!(peer.secure(&Identity::new(&Self::client())), Ok(self.node));
        }
        peer.greet();
        peer
    }

    /// A connection that has not said anything.
    pub(crate) fn connect_raw(&self) -> Peer {
        Peer::connect(self.config.listen, self.cluster, self.node, self.epoch)
    }

    pub(crate) fn volume_dir(&self, index: usize) -> &Path {
        &self.config.volumes[index]
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }
}

/// Not a test of its own: the body of the processes that other tests start.
#[test]
fn as_a_process() {
    let Some(file) = std::env::var_os(CONFIG_VARIABLE) else { return };
    let config = Config::load(Path::new(&file)).expect("loads");
    run(config, |_| println!("{READY_LINE}")).expect("runs and stops");
}

/// A node in a thread. Stopped when dropped.
pub(crate) struct Running {
    stopper: Stopper,
    thread: Option<thread::JoinHandle<Result<(), Error>>>,
}

impl Running {
    pub(crate) fn stopper(&self) -> &Stopper {
        &self.stopper
    }

    /// Stops the node and waits for it.
    pub(crate) fn stop(mut self) {
        self.stopper.stop();
        self.join();
    }

    /// Waits until it has stopped.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic").expect("stops without an error");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A node in a process. Killed when dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    /// Left open: a test program that cannot print fails.
    _output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
