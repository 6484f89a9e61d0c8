//! The gateway over real sockets: HTTP on one side, the wire protocol on the other. The nodes are in-memory peers that
//! speak the real protocol; tests on real nodes are the workspace's end-to-end tests.

mod client;
mod peer;
mod reads;
mod server;
mod takedowns;
mod uploads;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use deadwax_dht::{ClusterId, Map, MapSpec, Node, NodeId, Policy, Volume, VolumeId};
use deadwax_gateway::{Config, StartError, run_until};
use tokio::sync::oneshot;

use crate::client::{Connection, Reply};
use crate::peer::Peer;

const MIB: u64 = 1024 * 1024;

/// Three nodes in memory, and a gateway before them.
struct World {
    peers: Vec<Arc<Peer>>,
    gateway: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<Result<(), StartError>>>,
    _dir: tempfile::TempDir,
}

impl World {
    fn start(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let cluster = ClusterId::from_bytes([7; 16]);
        let number = |n: usize| u8::try_from(n).expect("small");
        let peers: Vec<_> = (0..3).map(|n| Peer::start(NodeId::from_bytes([number(n) + 1; 32]), cluster)).collect();
        let node = |(n, peer): (usize, &Arc<Peer>)| Node {
            id: peer.id,
            zone: format!("zone-{}", n % 2),
            rack: None,
            address: peer.address.to_string(),
            volumes: vec![Volume { id: VolumeId::from_bytes([number(n); 16]), weight: 100 }],
        };
        let nodes = peers.iter().enumerate().map(node).collect();
        let policy = Policy::default();
        let spec = MapSpec { version: deadwax_dht::MAP_VERSION, cluster, epoch: 1, policy, nodes, overrides: vec![] };
        let map = dir.path().join("map.toml");
        Map::new(spec).expect("a good map").save(&map).expect("writable");
        let mut config = Config::new(map, dir.path().join("spool"));
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.cache_bytes = 64 * MIB;
        config.threads = 2;
        change(&mut config);
        let (stop, stopped) = oneshot::channel();
        let (ready, address) = mpsc::channel();
        let thread = thread::spawn(move || {
            let stopped = async { drop(stopped.await) };
            run_until(config, stopped, |address| ready.send(address).expect("the test waits"))
        });
        let gateway = address.recv().expect("the gateway starts");
        Self { peers, gateway, stop: Some(stop), thread: Some(thread), _dir: dir }
    }

    fn usual() -> Self {
        Self::start(|_| {})
    }

    fn connect(&self) -> Connection {
        Connection::open(self.gateway)
    }

    /// One request on a connection of its own.
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.connect().ask(method, path, headers, body)
    }

    fn put(&self, bytes: &[u8], headers: &[(&str, &str)]) -> String {
        let path = path(bytes);
        let reply = self.ask("PUT", &path, headers, bytes);
        assert_eq!(reply.status, 201, "{}", reply.text());
        path
    }

    /// How many nodes have the track whole.
    fn copies(&self, bytes: &[u8]) -> usize {
        let id = deadwax_track::TrackId::of(bytes);
        self.peers.iter().filter(|peer| peer.has(&id)).count()
    }

    fn end(&mut self) -> Result<(), StartError> {
        drop(self.stop.take());
        self.thread.take().expect("ended once").join().expect("the gateway does not panic")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.thread.is_some() && !thread::panicking() {
            self.end().expect("a clean end");
        }
    }
}

fn path(bytes: &[u8]) -> String {
    format!("/v1/tracks/{}", deadwax_track::TrackId::of(bytes))
}

/// Bytes that differ everywhere, the same for the same arguments.
fn music(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}
