//! One shard's thread: a glommio executor that opens its part of the volumes, accepts connections, and stops when told.
//! This file has unsafe code.

use std::os::fd::{FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use deadwax_engine::{Beat, Executor};
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::sleep;

use crate::connection::Connection;
use crate::drain::Guests;
use crate::events::Event;
use crate::shard::{Call, Node, NodeVolume, Owner, Place, Shard, Trouble};
use crate::socket::Socket;
use crate::volumes::{self, LocalVolume, VolumeRecovery};
use crate::{Error, accord};

const ACCEPT_BACKLOG: i32 = 1024;
/// Between tries when accepting failed: mostly no descriptor was left, and a connection must end first.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// What a connection that was cut off may take to leave.
const CUT_OFF: Duration = Duration::from_secs(1);

/// What came of opening a shard's part of the volumes.
#[derive(Default)]
pub(crate) struct Opened {
    /// One for each that is open.
    pub(crate) recovered: Vec<VolumeRecovery>,
    /// Why the others are not: their drives fail. The node serves what it can.
    pub(crate) failed: Vec<Error>,
}

/// What it tells them: first to serve, last to drain. A shard whose sender is gone closes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// Accept connections.
    Serve,
    /// Open the volume with this number.
    Open(usize),
    /// Let no request begin on the volume with this number, wait for those under way, and close it.
    Close(usize),
    /// Accept no more, and let those present end their requests.
    Drain,
}

/// What a shard starts with.
pub(crate) struct Start {
    pub(crate) node: Arc<Node>,
    pub(crate) index: usize,
    /// The core to keep to.
    pub(crate) cpu: Option<usize>,
    /// Bound, and not yet listening.
    pub(crate) listener: socket2::Socket,
    pub(crate) calls: flume::Receiver<Call>,
    pub(crate) commands: flume::Receiver<Command>,
    pub(crate) events: flume::Sender<Event>,
}

/// Half a node would answer for tracks that it no longer has: a panic on any of its threads ends the process. The panic's own
/// message was printed before.
pub(crate) struct AbortOnPanic(pub(crate) String);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!(what = self.0, "panicked: the node goes down");
            eprintln!("deadwax: {} panicked (above): the node goes down", self.0);
            std::process::abort();
        }
    }
}

/// Starts the shard's thread.
pub(crate) fn spawn(start: Start, beat: Beat) -> Result<thread::JoinHandle<()>, Error> {
    let name = format!("shard-{}", start.index);
    let fail = |why: String| Error::Start { what: format!("the thread {name}"), why };
    thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            let _guard = AbortOnPanic(format!("shard {}", start.index));
            let events = start.events.clone();
            if let Err(why) = run(start, beat) {
                // Nobody listens any more where the node is going down already.
                drop(events.send(Event::Opened(Err(why))));
            }
        })
        .map_err(|why| fail(why.to_string()))
}

fn run(start: Start, beat: Beat) -> Result<(), Error> {
    let io_memory = usize::try_from(start.node.config.io_memory_bytes).expect("addresses are 64 bits");
    let index = start.index;
    let executor = Executor::new(&format!("shard-{index}"), start.cpu, io_memory)
        .map_err(|why| Error::Start { what: format!("the executor of shard {index}"), why: why.to_string() })?;
    executor.run(beat, live(start));
    Ok(())
}

/// All of a shard's life, in the queue whose latency matters: what it spawns runs there too.
async fn live(start: Start) {
    let Start { node, index, listener, calls, commands, events, cpu: _ } = start;
    let shard = Rc::new(Shard::new(Arc::clone(&node), index));
    let served = glommio::spawn_local(Rc::clone(&shard).serve_calls(calls));
    let opened = {
        let _working = node.working();
        open_all(&shard).await
    };
    let failed = opened.is_err();
    drop(events.send(Event::Opened(opened)));
    if failed {
        return;
    }

    let guests = Rc::new(Guests::new(Arc::clone(&node.under_way)));
    let mut accepting = None;
    while let Ok(command) = commands.recv_async().await {
        match command {
            Command::Serve => {
                let result = listen(&listener).map(|listener| {
                    accepting = Some(glommio::spawn_local(accept(Rc::clone(&shard), Rc::clone(&guests), listener)));
                });
                drop(
                    events
                        .send(Event::Serving(result.map_err(|why| Error::Listen { address: node.config.listen, why }))),
                );
            }
            Command::Open(number) => {
                reopen(&shard, number).await;
                drop(events.send(Event::Changed));
            }
            Command::Close(number) => {
                close(&shard, number).await;
                drop(events.send(Event::Changed));
            }
            Command::Drain => {
                if let Some(accepting) = accepting.take() {
                    accepting.cancel().await;
                }
                drain(&guests, node.config.drain_timeout()).await;
                drop(events.send(Event::Drained));
            }
        }
    }
    served.cancel().await;
    for (_, _, volume) in shard.open_parts() {
        volume.close().await;
    }
}

/// Opens this shard's part of each volume that it serves. One whose drive fails is left out; one that must not be
/// opened at all is an error.
async fn open_all(shard: &Rc<Shard>) -> Result<Opened, Error> {
    let mut opened = Opened::default();
    for (number, volume) in shard.node.volumes().into_iter().enumerate() {
        match open(shard, number, &volume).await {
            Ok(recovery) => opened.recovered.extend(recovery),
            Err(why) => {
                let left_out = volumes::is_left_out(&why);
                let why = Error::Volume { dir: volume.dir.clone(), why };
                if !left_out {
                    return Err(why);
                }
                leave_out(shard, number, &volume, Trouble::fenced(why.to_string(), why.hangs())).await;
                opened.failed.push(why);
            }
        }
    }
    Ok(opened)
}

/// Opens this shard's part of a volume while the node serves. Where that fails, whyever, the volume is fenced.
async fn reopen(shard: &Rc<Shard>, number: usize) {
    let volume = shard.node.at(number);
    if let Err(why) = open(shard, number, &volume).await {
        let trouble = match why {
            deadwax_engine::Error::Hung(why) => Trouble::Hung(why),
            deadwax_engine::Error::Locked { .. } => Trouble::Hung(format!(
                "{why}; where it was open before, its drive is still busy with what was begun then"
            )),
            why => Trouble::Out(why.to_string()),
        };
        leave_out(shard, number, &volume, trouble).await;
    }
}

/// Opens this shard's part of a volume, if it has one.
async fn open(
    shard: &Rc<Shard>,
    number: usize,
    volume: &Arc<NodeVolume>,
) -> Result<Option<VolumeRecovery>, deadwax_engine::Error> {
    let node = &shard.node;
    if let Some(trouble) = volume.trouble() {
        shard.set_place(number, Place::Fenced(trouble.why().to_owned()));
        return Ok(None);
    }
    let (index, shards) = match volume.owner {
        Owner::All => (shard.index, node.shards()),
        Owner::One(owner) if owner == shard.index => (0, 1),
        Owner::One(_) => {
            shard.set_place(number, Place::Elsewhere);
            return Ok(None);
        }
    };
    let (local, recovery) = LocalVolume::open(shard, &volume.dir, volume.id, index, shards).await?;
    let local = Rc::new(local);
    shard.set_place(number, Place::Open(Arc::clone(volume), Rc::clone(&local)));
    accord::join(shard, number, volume, &local);
    Ok(Some(recovery))
}

/// A volume that one shard cannot open, none serves.
async fn leave_out(shard: &Rc<Shard>, number: usize, volume: &Arc<NodeVolume>, trouble: Trouble) {
    let why = trouble.why();
    tracing::error!(volume = %volume.id, shard = shard.index, why, "the volume is fenced");
    shard.set_place(number, Place::Fenced(why.to_owned()));
    accord::tell(shard, number, volume, trouble).await;
}

/// Ends this shard's part of a volume: in order where requests end in time, else those that are left fail.
async fn close(shard: &Rc<Shard>, number: usize) {
    let retired = Trouble::Retired;
    let Some(local) = shard.set_place(number, Place::Fenced(retired.why().to_owned())) else { return };
    if !unused_within(&local, shard.node.config.drain_timeout()).await {
        tracing::warn!(shard = shard.index, "requests on a volume that is closed did not end in time: they fail");
        local.share_trouble(&retired);
        unused_within(&local, CUT_OFF).await;
    }
    local.close().await;
}

async fn unused_within(local: &Rc<LocalVolume>, timeout: Duration) -> bool {
    let unused = async {
        local.unused().await;
        true
    };
    let late = async {
        sleep(timeout).await;
        false
    };
    futures_lite::future::or(unused, late).await
}

fn listen(socket: &socket2::Socket) -> std::io::Result<TcpListener> {
    socket.listen(ACCEPT_BACKLOG)?;
    let listener = socket.try_clone()?.into_raw_fd();
    // SAFETY: the descriptor is a listening TCP socket's, and nobody else's: it was just duplicated for this.
    Ok(unsafe { TcpListener::from_raw_fd(listener) })
}

/// Accepts until cancelled.
async fn accept(shard: Rc<Shard>, guests: Rc<Guests>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok(stream) => {
                shard.node.counters.connections.add(1);
                glommio::spawn_local(host(Rc::clone(&shard), Rc::clone(&guests), stream)).detach();
            }
            Err(why) => {
                tracing::warn!(%why, "cannot accept a connection");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Serves one connection to its end.
async fn host(shard: Rc<Shard>, guests: Rc<Guests>, stream: TcpStream) {
    let config = &shard.node.config;
    let (stall, newest) = (config.stall_timeout(), config.protocols().newest());
    let socket = match Socket::new(stream, Rc::clone(&shard.buffers), stall, newest) {
        Ok(socket) => socket,
        Err(why) => return tracing::debug!(%why, "connection lost before it was served"),
    };
    let node = Arc::clone(&shard.node);
    let mut connection = Connection::new(shard, socket);
    // Nothing of this executor runs between the end of the socket and that of its place among the guests.
    let guest = guests.enter(connection.fd());
    if node.connections.fetch_add(1, Ordering::Relaxed) < node.config.connections_max {
        connection = connection.serve(&guest).await;
    } else {
        connection.turn_away().await;
    }
    drop(guest);
    drop(connection);
    node.connections.fetch_sub(1, Ordering::Relaxed);
}

/// Lets the connections end their requests, and cuts off those that take too long.
async fn drain(guests: &Guests, timeout: Duration) {
    guests.drain();
    if gone_within(guests, timeout).await {
        return;
    }
    tracing::warn!(connections = guests.count(), "cut off connections that did not end in time");
    guests.cut_off();
    if !gone_within(guests, CUT_OFF).await {
        tracing::warn!(connections = guests.count(), "some connections are still in a request");
    }
}

async fn gone_within(guests: &Guests, timeout: Duration) -> bool {
    let gone = async {
        guests.gone().await;
        true
    };
    let late = async {
        sleep(timeout).await;
        false
    };
    futures_lite::future::or(gone, late).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    const PANIC_VARIABLE: &str = "DEADWAX_NODE_TEST_PANIC";
    const SIGABRT: i32 = 6;

    /// Not a test of its own: the body of the process that the next one starts.
    #[test]
    fn panics_as_a_process() {
        if std::env::var_os(PANIC_VARIABLE).is_some() {
            let shard = thread::spawn(|| {
                let _guard = AbortOnPanic("shard 3".into());
                panic!("an invariant broke");
            });
            drop(shard.join());
        }
    }

    #[test]
    fn a_panic_on_a_shard_ends_the_process_and_says_so() {
        let output = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "executor::tests::panics_as_a_process", "--nocapture"])
            .env(PANIC_VARIABLE, "1")
            .output()
            .expect("runs");
        assert_eq!(output.status.signal(), Some(SIGABRT), "{}", output.status);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("an invariant broke") && said.contains("shard 3 panicked"), "{said}");
    }
}
