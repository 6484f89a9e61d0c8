//! Runs a node: checks everything that can be checked beforehand, starts the shards, and stops them in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io, mem};

use deadwax_dht::NodeId;
use deadwax_dht::rebalance::Command;
use deadwax_dht::wire::CommandAnswer;
use deadwax_dht_tls::Identity;
use deadwax_engine::Pulse;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use socket2::{Domain, Protocol, Socket, Type};

use crate::driver::{Driver, Handle as Core, Parts};
use crate::ending::Ending;
use crate::events::{EVENTS_MAX, Event, Events};
use crate::executor::{self, Command as Order, Start};
use crate::fitness::{self, Verdict};
use crate::layout::Source;
use crate::revival::{Revival, TICK};
use crate::shard::{CALLS_MAX, Node};
use crate::volumes::VolumeRecovery;
use crate::{Config, Error, founding, init, layout, reload};

/// The most commands that wait for a shard. Each but the first is answered before the next is given.
const COMMANDS_MAX: usize = 4;
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

/// Stops the node as SIGTERM does, and has it read its settings again as SIGHUP does.
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

    /// Has the node read its settings again and open, reopen and retire volumes accordingly; blocks until that is done.
    ///
    /// # Errors
    /// Why nothing was changed: see [`run`].
    pub fn reload(&self) -> Result<(), Error> {
        let stopping = || Error::Start { what: "a reload".into(), why: "the node is stopping".into() };
        let (answer, answered) = flume::bounded(1);
        self.0.send(Event::Reload(Some(answer))).map_err(|_| stopping())?;
        answered.recv().unwrap_or_else(|_| Err(stopping()))
    }

    /// Gives the node an operator's command; blocks until it is answered. None: the node stops, is too busy, or has no part
    /// in a cluster's log; ask again, or another.
    #[must_use]
    pub fn command(&self, command: Command) -> Option<CommandAnswer> {
        let (answer, answered) = flume::bounded(1);
        self.0.send(Event::Command(Box::new(command), answer)).ok()?;
        answered.recv().ok()
    }
}

/// Runs the node that `config` describes and [`init`](crate::init) made, until SIGTERM, SIGINT or [`Stopper::stop`];
/// calls `on_ready` once it accepts connections. On the way out requests under way may end (up to
/// `drain_timeout_s`), then the volumes are closed. Where that hangs at a drive the process exits 20 s after those
/// `drain_timeout_s`, with status 1, and says which threads wait. A second signal exits at once; nothing acknowledged is lost
/// then. A node whose system drive does not answer for 20 s stops by itself, in the same way.
///
/// **SIGHUP** has the node read its settings and the map again ([`Stopper::reload`] too). A volume directory that is
/// new there is opened and served: it must have been initialised (`deadwax volume add`), and the map must give it to
/// this node; one that a map by a log does not give is left out. A volume that is no longer there is retired: no request
/// begins on it, those under way end (up to `drain_timeout_s`), it is closed, and its drive may be unmounted. A volume that
/// is fenced or read-only is tried again; one whose drive hung or was too slow comes back by itself, too. Who is named in `clients` and `admins` is admitted from then on, and nobody
/// else. Where the settings, the map or a new directory are not in order, nothing changes and the log says why. Other
/// settings take effect at the next start.
///
/// A panic on a shard aborts the process.
///
/// # Errors
/// Before anything is served: the machine is not fit, the port is taken, the map does not name this node at this
/// address with these volumes, a volume is another node's or of a newer version, no drive can be read. Where some can,
/// the node serves those, and the others are fenced. A node that goes by a log starts whatever volumes the map gives it,
/// as it may vote, and its other drives serve: one that is in no directory is fenced, one that is not given is left out.
pub fn run(config: Config, on_ready: impl FnOnce(&Ready)) -> Result<(), Error> {
    config.validate()?;
    check_machine()?;
    let _lock = init::lock(&config.dir)?;
    let (events, heard) = flume::bounded(EVENTS_MAX);
    let (ending, running) = Ending::new(config.drain_timeout());
    let ending = Arc::new(ending);
    let signals = watch_signals(&events, &ending)?;
    let result = serve(config, events, &mut Events::new(heard), ending, on_ready);
    signals.close();
    drop(running);
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

/// The first signal to stop is an event; the second ends the process. SIGHUP is an event each time.
fn watch_signals(events: &flume::Sender<Event>, ending: &Arc<Ending>) -> Result<Handle, Error> {
    let fail = |why: io::Error| Error::Start { what: "the signal handlers".into(), why: why.to_string() };
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(fail)?;
    let handle = signals.handle();
    let (events, ending) = (events.clone(), Arc::clone(ending));
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut stopping = false;
            for signal in signals.forever() {
                if signal == SIGHUP {
                    drop(events.try_send(Event::Reload(None)));
                    continue;
                }
                if mem::replace(&mut stopping, true) {
                    eprintln!("deadwax: second signal, exit at once");
                    std::process::exit(EXIT_INTERRUPTED);
                }
                tracing::info!(signal, "stop: requests under way may end; a second signal exits at once");
                ending.begin();
                drop(events.try_send(Event::Stop));
            }
        })
        .map_err(fail)?;
    Ok(handle)
}

fn serve(
    config: Config,
    events: flume::Sender<Event>,
    heard: &mut Events,
    ending: Arc<Ending>,
    on_ready: impl FnOnce(&Ready),
) -> Result<(), Error> {
    let shards = config.shard_count();
    let cpus = if config.pinned() { allowed_cpus() } else { Vec::new() };
    let (calls, incoming): (Vec<_>, Vec<_>) = (0..shards).map(|_| flume::bounded(CALLS_MAX)).unzip();
    let listeners = bind_patiently(config.listen, shards)?;
    let key = init::load_key(&config.dir)?;
    let identity = config.tls.then(|| Identity::new(&key));
    let parts = if founding::has_part(&config)? { Some(Parts::open(&config, key)?) } else { None };
    let source = match parts.as_ref().map(Parts::history) {
        None => Source::File,
        Some(None) => Source::LogToCome,
        Some(Some(history)) => {
            config.protocols().fit(history.state().protocol())?;
            Source::Log(history)
        }
    };
    let mut layout = layout::read(&config, shards, source)?;
    let revival = Revival::new(events.clone(), layout.unsettled.take());
    let (core, inbox) = parts.is_some().then(Core::new).unzip();
    let node = Arc::new(Node::new(config, identity, layout, calls, core, ending));
    // One for each shard, and one for the core.
    let pulse = Pulse::start(shards + 1, Some(Arc::clone(&node.under_way)))
        .map_err(|why| Error::Start { what: "the thread pulse".into(), why: why.to_string() })?;

    let mut commands = Vec::with_capacity(shards);
    let mut threads = Vec::with_capacity(shards);
    for (index, (calls, listener)) in incoming.into_iter().zip(listeners).enumerate() {
        let (command, commanded) = flume::bounded(COMMANDS_MAX);
        let cpu = (!cpus.is_empty()).then(|| cpus[index % cpus.len()]);
        let (node, events, beat) = (Arc::clone(&node), events.clone(), pulse.beat(index));
        commands.push(command);
        threads.push(executor::spawn(Start { node, index, cpu, listener, calls, commands: commanded, events }, beat)?);
    }
    let mut driver = Vec::new();
    let begin = || {
        if let (Some(parts), Some(inbox)) = (parts, inbox) {
            driver = Driver::spawn(Arc::clone(&node), inbox, parts, events.clone(), pulse.beat(shards))?;
            node.tell_opened();
        }
        Ok(())
    };
    let result = until_stopped(&node, &events, heard, &commands, (begin, revival), on_ready);
    // The core first: it asks the shards for things.
    if let Some(core) = &node.core {
        core.stop();
    }
    let mut driver = driver.into_iter();
    driver.next().into_iter().for_each(|core| drop(core.join()));
    // Without commands to come the shards close their volumes and end.
    drop(commands);
    // The system drive's thread last: where that hangs all else is closed. One that panicked has aborted the process.
    threads.into_iter().chain(driver).for_each(|thread| drop(thread.join()));
    result?;
    tracing::info!(node = node.id.short(), "stopped");
    node.core.as_ref().map_or(Ok(()), |core| core.system.is_not_given_up())?;
    if let Some(unfit) = node.outdated.get() {
        return Err(Error::Protocol(*unfit));
    }
    match node.superseded.get() {
        Some(since_ms) => Err(Error::Superseded { since_ms: *since_ms }),
        None => Ok(()),
    }
}

/// Opens, serves and drains, each when all shards have done the step before.
fn until_stopped(
    node: &Node,
    events: &flume::Sender<Event>,
    heard: &mut Events,
    commands: &[flume::Sender<Order>],
    (begin, mut revival): (impl FnOnce() -> Result<(), Error>, Revival),
    on_ready: impl FnOnce(&Ready),
) -> Result<(), Error> {
    let mut recovery = None;
    if !all_shards(heard, commands.len(), &mut recovery)? {
        return Ok(());
    }
    begin()?;
    send_all(commands, &Order::Serve);
    if all_shards(heard, commands.len(), &mut recovery)? {
        let recovery = recovery.unwrap_or_default();
        let (id, address, shards) = (node.id, node.config.listen, commands.len());
        tracing::info!(node = id.short(), %address, shards, ?recovery, "serving");
        on_ready(&Ready { node: id, address, shards, recovery, stop: Stopper(events.clone()) });
        command_until_stopped(node, commands, heard, &mut revival);
    }
    node.ending.begin();
    send_all(commands, &Order::Drain);
    let mut drained = 0;
    while drained < commands.len() {
        match heard.next() {
            Some(Event::Drained) => drained += 1,
            Some(_) => {}
            None => break,
        }
    }
    Ok(())
}

/// Does what signals and the program itself want of a node that serves, and brings back volumes whose drives hung.
fn command_until_stopped(node: &Node, commands: &[flume::Sender<Order>], heard: &mut Events, revival: &mut Revival) {
    let mut ticked = Instant::now();
    loop {
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            revival.settle(node, commands, heard);
            revival.tick(node, ticked);
        }
        match heard.next_within(TICK) {
            Some(Event::Stop) => return,
            Some(Event::Reload(answer)) => {
                let reloaded = reload::reload(node, commands, heard);
                if let Some(answer) = answer {
                    // Whoever asked may have given up.
                    drop(answer.try_send(reloaded));
                }
            }
            Some(Event::Command(command, answer)) => {
                // Without a core the answer is dropped.
                if let Some(core) = &node.core {
                    core.give_command(command, answer);
                }
            }
            Some(Event::Probed(probed)) => revival.probed(node, commands, heard, probed),
            Some(Event::Opened(_) | Event::Serving(_) | Event::Changed | Event::Drained) | None => {}
        }
    }
}

/// Waits until each shard has reported its step. False: the node is to stop. An error where the step was to open the
/// volumes, and none is open or will be by itself: a drive that hangs may answer again.
fn all_shards(heard: &mut Events, shards: usize, recovery: &mut Option<VolumeRecovery>) -> Result<bool, Error> {
    let mut reported = 0;
    let mut failed = Vec::new();
    while reported < shards {
        match heard.next() {
            Some(Event::Opened(opened)) => {
                let opened = opened?;
                failed.extend(opened.failed);
                opened.recovered.iter().for_each(|part| recovery.get_or_insert_default().add(part));
            }
            Some(Event::Serving(serving)) => serving?,
            // Asked too early: all is being read just now.
            Some(Event::Reload(_) | Event::Command(..) | Event::Changed | Event::Probed(_)) => continue,
            Some(Event::Stop | Event::Drained) | None => return Ok(false),
        }
        reported += 1;
    }
    if recovery.is_some() || failed.iter().any(Error::hangs) {
        return Ok(true);
    }
    failed.into_iter().next().map_or(Ok(true), Err)
}

pub(crate) fn send_all(commands: &[flume::Sender<Order>], command: &Order) {
    for shard in commands {
        // A shard that has ended needs no commands.
        drop(shard.send(command.clone()));
    }
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
