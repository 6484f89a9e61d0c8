//! Threads, listeners, and the end of them.

use std::future::Future;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use deadwax_cache::{Cache, CacheConfig};
use deadwax_dht::Map;
use deadwax_dht_client::{Client, ClientConfig, Identity, load_key};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::known::Known;
use crate::metrics::Metrics;
use crate::spool::Spool;
use crate::status::StatusMemo;
use crate::takedowns::{self, Barred};
use crate::worker::{Shared, Worker};
use crate::{StartError, connection};

/// Connections that may wait to be accepted, a thread. The system's own limit applies too.
const BACKLOG_MAX: i32 = 1024;
/// How long accepting rests when the process has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What a connection beyond the limit is told.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 53\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\n{\"error\":\"too many connections\",\"code\":\"connections\"}";

/// Serves until SIGTERM or SIGINT, then lets requests end for up to `limits.drain_seconds_max`. Blocks; makes its own
/// threads.
///
/// `on_ready` is called once, when connections are accepted, with the address: the port is the real one where the
/// configuration says 0.
pub fn run(config: Config, on_ready: impl FnOnce(SocketAddr)) -> Result<(), StartError> {
    let runtime = runtime()?;
    // Before anything is opened, so that a signal from here on is a clean end.
    let (mut terminate, mut interrupt) = runtime
        .block_on(async { Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)) })
        .map_err(StartError::Runtime)?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve(&runtime, config, stop, on_ready)
}

/// As [`run`], until `stop` is ready instead of a signal.
pub fn run_until(
    config: Config,
    stop: impl Future<Output = ()>,
    on_ready: impl FnOnce(SocketAddr),
) -> Result<(), StartError> {
    serve(&runtime()?, config, stop, on_ready)
}

fn runtime() -> Result<Runtime, StartError> {
    Builder::new_current_thread().enable_all().build().map_err(StartError::Runtime)
}

fn serve(
    runtime: &Runtime,
    config: Config,
    stop: impl Future<Output = ()>,
    on_ready: impl FnOnce(SocketAddr),
) -> Result<(), StartError> {
    config.check()?;
    raise_open_files();
    let map = Map::load(&config.map).map_err(|error| StartError::Map { why: error.to_string() })?;
    let map = Arc::new(map);
    let zone = Some(config.zone.clone()).filter(|zone| !zone.is_empty());
    if let Some(zone) = zone.as_ref().filter(|zone| !map.zones().contains(zone)) {
        tracing::warn!(zone, zones = ?map.zones(), "the map has no such zone: no master is asked first");
    }
    let identity = match &config.key {
        Some(key) if config.tls => Some(Identity::new(&load_key(key)?)),
        _ => None,
    };
    let verified_within_s = config.verified_within_days * 86_400;
    let asking = ClientConfig { zone, identity, verified_within_s, ..ClientConfig::default() };
    let spool = Spool::open(&config.spool, config.limits.spools_max)
        .map_err(|source| StartError::Spool { dir: config.spool.clone(), source })?;
    let cache = Cache::new(CacheConfig { bytes: config.cache_bytes })
        .map_err(|source| StartError::Cache { bytes: config.cache_bytes, source })?;
    let listeners = listeners(config.listen, config.thread_count())?;
    let address = listeners[0].local_addr().map_err(|source| StartError::Listen { address: config.listen, source })?;
    let shared = Arc::new(Shared {
        cache,
        known: Known::new(config.limits.known_bytes_max),
        barred: Barred::default(),
        metrics: Metrics::new(),
        spool,
        limits: config.limits,
        draining: AtomicBool::new(false),
        status: tokio::sync::Mutex::new(StatusMemo::default()),
    });
    let (stopping, stopped) = watch::channel(false);
    let (ended, mut ends) = mpsc::channel::<()>(1);
    let mut threads = Vec::with_capacity(listeners.len());
    for (number, listener) in listeners.into_iter().enumerate() {
        let (shared, map, stopped, ended) = (Arc::clone(&shared), Arc::clone(&map), stopped.clone(), ended.clone());
        let asking = asking.clone();
        let body = move || {
            let _ended = Ended(ended);
            serve_thread(listener, shared, Client::new(map, asking), stopped, number == 0)
        };
        let name = format!("gateway-{number}");
        threads.push(thread::Builder::new().name(name).spawn(body).map_err(StartError::Runtime)?);
    }
    drop(ended);
    tracing::info!(%address, threads = threads.len(), cache_bytes = config.cache_bytes, "gateway serves");
    on_ready(address);
    runtime.block_on(async {
        tokio::select! {
            () = stop => {}
            // A thread ends only after a stop, or by a panic: half a gateway must not go on.
            _ = ends.recv() => {}
        }
    });
    shared.draining.store(true, Ordering::Relaxed);
    tracing::info!("gateway stops");
    stopping.send_replace(true);
    let mut result = Ok(());
    for thread in threads {
        result = result.and(thread.join().unwrap_or(Err(StartError::Panicked)));
    }
    result
}

/// Says that a thread ended, by a panic too.
struct Ended(mpsc::Sender<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        // Full: another thread has said so already.
        let _ = self.0.try_send(());
    }
}

/// Allows as many open files as the system lets this process have: each connection is one.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, ?limit, "the limit of open files could not be raised");
    }
}

fn serve_thread(
    listener: StdListener,
    shared: Arc<Shared>,
    client: Client,
    stop: watch::Receiver<bool>,
    follows: bool,
) -> Result<(), StartError> {
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let listener = TcpListener::from_std(listener).map_err(StartError::Runtime)?;
        let worker = Arc::new(Worker { shared, client });
        if follows {
            // It ends with the runtime: it changes nothing that outlives the process.
            tokio::spawn(takedowns::follow(Arc::clone(&worker)));
        }
        accept_all(listener, &worker, stop).await;
        Ok(())
    });
    // A spool's write may still be on its way to a slow drive; nobody waits for it.
    runtime.shutdown_background();
    ended
}

/// Accepts until `stop`, then waits for connections to end, for as long as they may take.
async fn accept_all(listener: TcpListener, worker: &Arc<Worker>, mut stop: watch::Receiver<bool>) {
    let limits = &worker.shared.limits;
    // Each connection holds a sender: the receiver sees the end of the last.
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    let connections = Arc::new(());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                // A client that left is no reason to wait; a lack of file descriptors is.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if Arc::strong_count(&connections) > limits.connections_max {
            worker.shared.metrics.connections_refused.inc();
            refuse(stream).await;
            continue;
        }
        let (worker, stop, open) = (Arc::clone(worker), stop.clone(), open.clone());
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            let _held = (counted, open);
            worker.shared.metrics.connections.inc();
            connection::serve(stream, Arc::clone(&worker), stop).await;
            worker.shared.metrics.connections.dec();
        });
    }
    drop((listener, open));
    let drain = Duration::from_secs(limits.drain_seconds_max);
    let ends = async {
        all_closed.recv().await;
        // Copies that puts make beyond their quorum.
        worker.client.drained().await;
    };
    if tokio::time::timeout(drain, ends).await.is_err() {
        tracing::warn!(seconds = drain.as_secs(), "requests are cut off, they took too long to end");
    }
}

/// Says that there are too many connections. A new socket's buffer takes that without waiting.
async fn refuse(mut stream: TcpStream) {
    let mut request = [0; 4096];
    // What is unread at the close would turn it into a reset.
    let _ = stream.try_read(&mut request);
    let _ = stream.try_write(REFUSAL);
    let _ = stream.shutdown().await;
}

/// One listener a thread, on one port: the system spreads connections over them.
fn listeners(address: SocketAddr, count: usize) -> Result<Vec<StdListener>, StartError> {
    let failed = |source| StartError::Listen { address, source };
    // Listeners that share a port do not notice another gateway's; this socket, which does not share, does. It never
    // listens, so no connection is lost in it.
    drop(bound(address, false).map_err(failed)?);
    let listener = |address| {
        let socket = bound(address, true)?;
        socket.listen(BACKLOG_MAX)?;
        Ok(StdListener::from(socket))
    };
    let first = listener(address).map_err(failed)?;
    let address = first.local_addr().map_err(failed)?;
    let mut listeners = vec![first];
    while listeners.len() < count {
        listeners.push(listener(address).map_err(failed)?);
    }
    Ok(listeners)
}

fn bound(address: SocketAddr, shared: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of an earlier life to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
