//! Runs a node: checks everything that can be checked beforehand, starts the shards, and stops them in order.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::{Duration, Instant};

use deadwax_dht::{Map, NodeId, VolumeId};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use socket2::{Domain, Protocol, Socket, Type};

use crate::executor::{self, Command, Event, Start};
use crate::fitness::{self, Verdict};
use crate::pulse::Pulse;
use crate::shard::{CALLS_MAX, Node, NodeVolume, Owner};
use crate::volumes::{self, VolumeRecovery};
use crate::{Config, Error, init, rotation};

/// The most events of shards and signals that wait.
const EVENTS_MAX: usize = 4096;
/// How long a port may stay taken before that is an error, and how often it is tried.
const BIND_PATIENCE: Duration = Duration::from_secs(2);
const BIND_RETRY: Duration = Duration::from_millis(20);
/// The exit status after a second signal: as a shell reports a program that SIGINT ended.
const EXIT_INTERRUPTED: i32 = 130;

/// A node that accepts connections.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Its name.
    pub node: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
    /// How many cores serve.
    pub shards: usize,
    /// What opening the volumes found, summed over shards and volumes.
    pub recovery: VolumeRecovery,
    stop: Stopper,
}

/// Stops the node as SIGTERM does.
#[derive(Clone, Debug)]
pub struct Stopper(flume::Sender<Event>);

impl Ready {
    /// Stops the node, from any thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stop.clone()
    }
}

impl Stopper {
    /// Asks the node to stop: [`run`] returns once requests under way have ended. Asking again does nothing more.
    pub fn stop(&self) {
        // Where the queue is full or gone, the node is stopping.
        drop(self.0.try_send(Event::Stop));
    }
}

/// Runs the node that `config` describes and [`init`](crate::init) made, until SIGTERM, SIGINT or [`Stopper::stop`];
/// calls `on_ready` once it accepts connections. On the way out requests under way may end (up to
/// `drain_timeout_s`), then the volumes are closed. A second signal exits at once; nothing acknowledged is lost then.
///
/// A panic on a shard aborts the process.
///
/// # Errors
/// Before anything is served: the machine is not fit, the port is taken, the map does not name this node at this
/// address with these volumes, a volume is another node's or of a newer version, no drive can be read. Where some can,
/// the node serves those, and the others are fenced.
pub fn run(config: Config, on_ready: impl FnOnce(&Ready)) -> Result<(), Error> {
    config.validate()?;
    check_machine()?;
    let _lock = init::lock(&config.dir)?;
    let (events, heard) = flume::bounded(EVENTS_MAX);
    let signals = watch_signals(&events)?;
    let result = serve(config, events, &heard, on_ready);
    signals.close();
    result
}

fn check_machine() -> Result<(), Error> {
    let machine = [fitness::kernel(), fitness::io_uring(), fitness::memlock()];
    for check in machine {
        match check.verdict {
            Verdict::Fit => {}
            Verdict::Poor => tracing::warn!("{check}"),
            Verdict::Unfit => return Err(Error::Unfit(Box::new(check))),
        }
    }
    fitness::raise_open_files();
    Ok(())
}

/// The first signal is an event; the second ends the process.
fn watch_signals(events: &flume::Sender<Event>) -> Result<Handle, Error> {
    let fail = |why: io::Error| Error::Start { what: "the signal handlers".into(), why: why.to_string() };
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(fail)?;
    let handle = signals.handle();
    let events = events.clone();
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for (count, signal) in signals.forever().enumerate() {
                if count > 0 {
                    eprintln!("deadwax: second signal, exit at once");
                    std::process::exit(EXIT_INTERRUPTED);
                }
                tracing::info!(signal, "stop: requests under way may end; a second signal exits at once");
                drop(events.try_send(Event::Stop));
            }
        })
        .map_err(fail)?;
    Ok(handle)
}

fn serve(
    config: Config,
    events: flume::Sender<Event>,
    heard: &flume::Receiver<Event>,
    on_ready: impl FnOnce(&Ready),
) -> Result<(), Error> {
    let shards = config.shard_count();
    let cpus = if config.pinned() { allowed_cpus() } else { Vec::new() };
    let (calls, incoming): (Vec<_>, Vec<_>) = (0..shards).map(|_| flume::bounded(CALLS_MAX)).unzip();
    let listeners = bind_patiently(config.listen, shards)?;
    let node = Arc::new(node(config, calls)?);
    let pulse = Pulse::start(shards)?;

    let mut commands = Vec::with_capacity(shards);
    let mut threads = Vec::with_capacity(shards);
    for (index, (calls, listener)) in incoming.into_iter().zip(listeners).enumerate() {
        let (command, commanded) = flume::bounded(2);
        let cpu = (!cpus.is_empty()).then(|| cpus[index % cpus.len()]);
        let (node, events, beat) = (Arc::clone(&node), events.clone(), pulse.beat(index));
        commands.push(command);
        threads.push(executor::spawn(Start { node, index, cpu, listener, calls, commands: commanded, events }, beat)?);
    }
    let result = until_stopped(&node, &events, heard, &commands, on_ready);
    // Without commands to come the shards close their volumes and end.
    drop(commands);
    for thread in threads {
        // A shard that panicked has aborted the process.
        drop(thread.join());
    }
    if result.is_ok() {
        tracing::info!(node = node.id.short(), "stopped");
    }
    result
}

/// Opens, serves and drains, each when all shards have done the step before.
fn until_stopped(
    node: &Node,
    events: &flume::Sender<Event>,
    heard: &flume::Receiver<Event>,
    commands: &[flume::Sender<Command>],
    on_ready: impl FnOnce(&Ready),
) -> Result<(), Error> {
    let mut recovery = None;
    if !all_shards(heard, commands.len(), &mut recovery)? {
        return Ok(());
    }
    send_all(commands, Command::Serve);
    if all_shards(heard, commands.len(), &mut recovery)? {
        let recovery = recovery.unwrap_or_default();
        let (id, address, shards) = (node.id, node.config.listen, commands.len());
        tracing::info!(node = id.short(), %address, shards, ?recovery, "serving");
        on_ready(&Ready { node: id, address, shards, recovery, stop: Stopper(events.clone()) });
        while !matches!(heard.recv(), Ok(Event::Stop) | Err(_)) {}
    }
    send_all(commands, Command::Drain);
    let mut drained = 0;
    while drained < commands.len() {
        match heard.recv() {
            Ok(Event::Drained) => drained += 1,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    Ok(())
}

/// Waits until each shard has reported its step. False: the node is to stop. An error where the step was to open the
/// volumes and none is open.
fn all_shards(
    heard: &flume::Receiver<Event>,
    shards: usize,
    recovery: &mut Option<VolumeRecovery>,
) -> Result<bool, Error> {
    let mut reported = 0;
    let mut failed = Vec::new();
    while reported < shards {
        match heard.recv() {
            Ok(Event::Opened(opened)) => {
                let opened = opened?;
                failed.extend(opened.failed);
                opened.recovered.iter().for_each(|part| recovery.get_or_insert_default().add(part));
            }
            Ok(Event::Serving(serving)) => serving?,
            Ok(Event::Stop | Event::Drained) | Err(_) => return Ok(false),
        }
        reported += 1;
    }
    match failed.into_iter().next() {
        Some(why) if recovery.is_none() => Err(why),
        _ => Ok(true),
    }
}

fn send_all(commands: &[flume::Sender<Command>], command: Command) {
    for shard in commands {
        // Each shard gets two commands in its life, and has room for both.
        let _ = shard.try_send(command);
    }
}

/// The node as its directory, its volumes and the map agree it is.
fn node(config: Config, calls: Vec<flume::Sender<crate::shard::Call>>) -> Result<Node, Error> {
    let id = init::load_key(&config.dir)?.node_id();
    let fail = |why: String| Error::Map { path: config.map.clone(), why };
    let map = Map::load(&config.map).map_err(|why| fail(why.to_string()))?;
    let entry = map.node(&id).ok_or_else(|| {
        fail(format!("it does not name this node, {id}; add it with `deadwax cluster`, or use the map that does"))
    })?;
    check_address(&config, &entry.address).map_err(fail)?;

    let mut volumes = Vec::with_capacity(config.volumes.len());
    let mut failed = Vec::new();
    for (index, dir) in config.volumes.iter().enumerate() {
        match usable(dir, &id) {
            Ok(volume) => {
                let rotates = rotation::rotates(dir, config.rotating);
                let owner = if rotates { Owner::One(index % calls.len()) } else { Owner::All };
                volumes.push(NodeVolume { id: volume, dir: dir.clone(), owner, fenced: None });
            }
            Err(why) if is_left_out(&why) => failed.push((dir, why)),
            Err(why) => return Err(why),
        }
    }
    let here: BTreeSet<_> = volumes.iter().map(|volume| volume.id).collect();
    let mapped: BTreeSet<_> = entry.volumes.iter().map(|volume| volume.id).collect();
    let missing: Vec<_> = mapped.difference(&here).copied().collect();
    // Which volume should be in which of them only their drives know. With fewer missing than directories that fail,
    // one of these was never a volume of this node's.
    if volumes.is_empty() || failed.len() > missing.len() {
        if let Some((_, why)) = failed.into_iter().next() {
            return Err(why);
        }
    } else if let Some(missing) = missing.get(failed.len()) {
        return Err(fail(format!("it gives this node volume {missing}, which is in none of its directories")));
    } else {
        volumes.extend(fence(&missing, &failed));
    }
    if let Some(extra) = volumes.iter().find(|volume| !mapped.contains(&volume.id)) {
        let dir = extra.dir.display();
        return Err(fail(format!("it does not give this node volume {}, which is in {dir}", extra.id)));
    }
    let (cluster, epoch) = (*map.cluster(), map.epoch());
    let (counters, connections, started) = (crate::counters::Counters::default(), AtomicUsize::new(0), Instant::now());
    Ok(Node { config, id, cluster, epoch, volumes, calls, counters, connections, started })
}

/// The volume in `dir`, which must be this node's and on a drive that reads and writes.
fn usable(dir: &Path, node: &NodeId) -> Result<VolumeId, Error> {
    let owned = match init::owned(dir, node) {
        Err(why) if !is_left_out(&why) => return Err(why),
        owned => owned,
    };
    // Of a directory that is missing or empty the probe says best what to do.
    let check = fitness::direct_io(dir);
    match check.verdict {
        Verdict::Fit => {}
        Verdict::Poor => tracing::warn!("{check}"),
        Verdict::Unfit => return Err(Error::Unfit(Box::new(check))),
    }
    owned?.ok_or_else(|| Error::NotInitialised { what: "the volume", path: dir.to_owned() })
}

/// Whether a node starts without the volume where another can be used. A directory that is empty is mostly one whose
/// drive is not mounted.
const fn is_left_out(why: &Error) -> bool {
    match why {
        Error::Volume { why, .. } => volumes::is_left_out(why),
        Error::Unfit(_) | Error::NotInitialised { .. } => true,
        _ => false,
    }
}

/// The volumes that are missing, as many as there are directories that fail.
fn fence(missing: &[VolumeId], failed: &[(&PathBuf, Error)]) -> Vec<NodeVolume> {
    let which = if failed.len() > 1 { " (or in another that fails)" } else { "" };
    let fenced = |(id, (dir, why)): (&VolumeId, &(&PathBuf, Error))| {
        tracing::error!(volume = %id, %why, "the volume is fenced{which}");
        let fenced = Some(format!("{why}{which}"));
        // It has one owner, any: no shard has a part of it.
        NodeVolume { id: *id, dir: dir.to_path_buf(), owner: Owner::One(0), fenced }
    };
    missing.iter().zip(failed).map(fenced).collect()
}

/// Whether who goes to the map's address reaches us.
fn check_address(config: &Config, mapped: &str) -> Result<(), String> {
    if mapped == config.advertised() {
        return Ok(());
    }
    let listen = config.listen;
    let reaches =
        |address: SocketAddr| address == listen || (listen.ip().is_unspecified() && address.port() == listen.port());
    if config.advertise.is_none() && mapped.to_socket_addrs().is_ok_and(|mut found| found.any(reaches)) {
        return Ok(());
    }
    Err(format!("it names this node at {mapped}, but the settings say {}", config.advertised()))
}

/// [`bind`], given some time: of a process that was killed, the kernel takes down the rings after the process is gone,
/// and the listener with them.
fn bind_patiently(address: SocketAddr, shards: usize) -> Result<Vec<Socket>, Error> {
    let began = Instant::now();
    loop {
        match bind(address, shards) {
            Err(Error::Listen { why, .. })
                if why.kind() == io::ErrorKind::AddrInUse && began.elapsed() < BIND_PATIENCE =>
            {
                thread::sleep(BIND_RETRY);
            }
            other => return other,
        }
    }
}

/// One socket a shard, all on the same port. The kernel lets any program of ours share such a port, so the first step
/// is to see that nobody listens there.
fn bind(address: SocketAddr, shards: usize) -> Result<Vec<Socket>, Error> {
    let socket = |share: bool| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Connections of the node's last run may linger in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(share)?;
        socket.bind(&address.into())?;
        if !share {
            socket.listen(1)?;
        }
        Ok(socket)
    };
    let bind = || {
        drop(socket(false)?);
        (0..shards).map(|_| socket(true)).collect::<io::Result<Vec<_>>>()
    };
    bind().map_err(|why| Error::Listen { address, why })
}

/// The cores that this process may use, so that a container's share is respected.
fn allowed_cpus() -> Vec<usize> {
    let status = fs::read_to_string(PathBuf::from("/proc/self/status")).unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    parse_cpus(list.trim()).unwrap_or_default()
}

/// Such as `0-3,8`.
fn parse_cpus(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_are_read() {
        assert_eq!(parse_cpus("0-3,8"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(parse_cpus("5"), Some(vec![5]));
        assert_eq!(parse_cpus(""), None);
        assert!(!allowed_cpus().is_empty());
    }

    #[test]
    fn a_port_that_someone_listens_on_is_not_shared() {
        let taken = bind("127.0.0.1:0".parse().expect("address"), 1).expect("any port");
        taken[0].listen(1).expect("listens");
        let address = taken[0].local_addr().expect("bound").as_socket().expect("IP");
        let why = bind(address, 2).expect_err("taken");
        assert!(matches!(&why, Error::Listen { why, .. } if why.kind() == std::io::ErrorKind::AddrInUse), "{why}");
        drop(taken);
        assert_eq!(bind(address, 2).expect("free again").len(), 2);
    }
}
