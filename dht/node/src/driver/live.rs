//! The core's loop.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use deadwax_dht::core::{Core, CoreConfig, Input};
use deadwax_dht::log::{Batch, History};
use deadwax_dht::wire::CommandAnswer;
use deadwax_dht::{Map, NodeKey};
use deadwax_engine::{Beat, Executor};
use glommio::timer::sleep;

use super::clock::Jumps;
use super::links::Links;
use super::system_thread::{self, Order};
use super::system_watch::{DOWN_S, Looks, SILENT_S};
use super::takedowns::Desk;
use super::{Asked, Inbox, Told, Word, now_ms};
use crate::events::Event;
use crate::executor::AbortOnPanic;
use crate::shard::Node;
use crate::system::{Found, System};
use crate::{Config, Error, issuers};

/// How often the core is told how slow the drives are, and whether a clock was set.
const WATCH: Duration = Duration::from_secs(1);
/// The executor's own drive buffers, which it does not use: the least that glommio takes.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// How many addresses the core is given to join by.
const SEEDS_MAX: usize = 8;
/// As much comes to a volume at once, where its partitions are small: in a cluster with little in it, each costs more time
/// to agree on than to copy.
const VOLUME_MOVING_BYTES: u64 = 16 << 30;
/// How many steps the core makes before others on its executor have a turn.
const STEPS_MAX: usize = 64;

/// What the core of a node starts with.
pub(crate) struct Parts {
    pub(crate) system: System,
    pub(crate) found: Found,
    pub(crate) key: NodeKey,
    /// Takes tracks down, where this node is an issuer.
    pub(crate) issuer: Option<NodeKey>,
    /// Other nodes' addresses, to ask first.
    pub(crate) seeds: Vec<Arc<str>>,
    /// Of the core's randomness.
    pub(crate) seed: u64,
}

impl Parts {
    /// Reads what the node kept.
    pub(crate) fn open(config: &Config, key: NodeKey) -> Result<Self, Error> {
        let issuer = issuers::load_own(config)?;
        let (system, found) = System::open(&config.dir, super::clock::wall_ms())?;
        issuers::check_known(config, &found.kept.takedowns)?;
        // The map file is as old as the node's part in the cluster; it need not be there any more.
        let known = Map::load(&config.map).ok();
        let others = known.iter().flat_map(Map::nodes).map(|node| node.address.as_str());
        let seeds = others.filter(|address| *address != config.advertised()).take(SEEDS_MAX).map(Arc::from).collect();
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)
            .map_err(|why| Error::Start { what: "the core's randomness".into(), why: why.to_string() })?;
        Ok(Self { system, found, key, issuer, seeds, seed: u64::from_le_bytes(seed) })
    }

    /// The history that the node kept, if it has one.
    pub(crate) const fn history(&self) -> Option<&History> {
        self.found.kept.history.as_ref()
    }
}

/// The core, and what it works with. All of it lives on the core's executor.
pub(crate) struct Driver {
    pub(super) node: Arc<Node>,
    pub(super) core: Core,
    pub(super) links: Links,
    pub(super) orders: flume::Sender<Order>,
    pub(super) events: flume::Sender<Event>,
    /// Where requests that were let in, or wait, hear of it.
    pub(super) requests: HashMap<u64, flume::Sender<Word>>,
    /// Who waits for the map's records, by the core's numbers for them.
    pub(super) epochs: HashMap<u64, flume::Sender<Box<Batch>>>,
    /// Who waits for what comes of a command, by the core's numbers for them. The core holds as many as it has room for, and
    /// answers each.
    pub(super) commands: HashMap<u64, flume::Sender<CommandAnswer>>,
    /// Who waits for something of the takedowns.
    pub(super) desk: Desk,
    looks: Looks,
    numbers: u64,
    /// What the shards were told last.
    epoch: u64,
}

impl Driver {
    /// Starts the core's thread and the system drive's, in this order. Volumes that are open are told to the core at once.
    pub(crate) fn spawn(
        node: Arc<Node>,
        inbox: Inbox,
        parts: Parts,
        events: flume::Sender<Event>,
        beat: Beat,
    ) -> Result<Vec<thread::JoinHandle<()>>, Error> {
        let (orders, system) = system_thread::spawn(Arc::clone(&node), parts.system)?;
        let fail = |why: String| Error::Start { what: "the thread core".into(), why };
        let (found, key, issuer, seeds, seed) = (parts.found, parts.key, parts.issuer, parts.seeds, parts.seed);
        let core = thread::Builder::new()
            .name("core".into())
            .spawn(move || {
                let _guard = AbortOnPanic("the core".into());
                let executor = Executor::new("core", None, IO_MEMORY_BYTES).expect("as the shards' executors");
                executor.run(beat, async move {
                    let mut config = CoreConfig {
                        seeds,
                        issuer,
                        issuers: node.config.issuers.iter().map(|key| *key.as_bytes()).collect(),
                        protocols: node.config.protocols(),
                        ..CoreConfig::new(key, node.cluster, node.config.advertised().into(), found.life, seed)
                    };
                    config.settings.rebalance.volume_moving_bytes = VOLUME_MOVING_BYTES;
                    let links = Links::new(Arc::clone(&node));
                    let core = Core::start(now_ms(), config, found.kept);
                    let (requests, epochs, commands) = (HashMap::new(), HashMap::new(), HashMap::new());
                    let (desk, looks, numbers, epoch) = (Desk::default(), Looks::default(), 0, 0);
                    Self { node, core, links, orders, events, requests, epochs, commands, desk, looks, numbers, epoch }
                        .live(inbox)
                        .await;
                });
            })
            .map_err(|why| fail(why.to_string()))?;
        Ok(vec![core, system])
    }

    async fn live(mut self, inbox: Inbox) {
        self.step(Input::Tick);
        let (mut jumps, mut watch_at) = (Jumps::new(), now_ms());
        loop {
            for _ in 0..STEPS_MAX {
                // What is under way first: it frees what others wait for.
                if let Ok(told) = inbox.told.try_recv() {
                    if !self.take_told(told) {
                        return;
                    }
                } else if let Ok(asked) = inbox.asked.try_recv() {
                    self.take_asked(asked);
                } else {
                    break;
                }
            }
            let now = now_ms();
            if now >= self.core.next_deadline() {
                self.step(Input::Tick);
            }
            if now >= watch_at {
                watch_at = now + u64::try_from(WATCH.as_millis()).expect("a second");
                self.watch(&mut jumps);
            }
            glommio::executor().yield_task_queue_now().await;
            if inbox.told.is_empty() && inbox.asked.is_empty() {
                let until = self.core.next_deadline().min(watch_at).saturating_sub(now_ms());
                if until > 0 && !self.wait(&inbox, Duration::from_millis(until)).await {
                    return;
                }
            }
        }
    }

    /// Waits for something to do, and does it. False: nothing comes any more.
    async fn wait(&mut self, inbox: &Inbox, at_most: Duration) -> bool {
        let told = async { inbox.told.recv_async().await.ok().map(Ok) };
        let asked = async { inbox.asked.recv_async().await.ok().map(Err) };
        let late = async {
            sleep(at_most).await;
            None
        };
        match futures_lite::future::or(futures_lite::future::or(told, asked), late).await {
            Some(Ok(told)) => self.take_told(told),
            Some(Err(asked)) => {
                self.take_asked(asked);
                true
            }
            None => true,
        }
    }

    fn take_told(&mut self, told: Told) -> bool {
        match told {
            Told::Input(input) => self.step(input),
            Told::StoredAtOnce(request, word) => {
                self.requests.insert(request.number, word);
                self.step(Input::StoredAtOnce(request));
            }
            Told::Opened(volume, done) => self.volume_opened(volume, done),
            Told::Stop => return false,
        }
        true
    }

    fn take_asked(&mut self, asked: Asked) {
        match asked {
            Asked::Request(request, word) => {
                self.requests.insert(request.number, word);
                self.step(Input::Request(request));
            }
            Asked::EpochsAfter(since, answer) => {
                let number = self.number();
                self.epochs.insert(number, answer);
                self.step(Input::WantEpochs { number, since });
            }
            Asked::LaterRecords(epoch) => self.step(Input::LaterRecords { epoch }),
            Asked::Command { command, forecast, answer } => {
                let number = self.number();
                self.commands.insert(number, answer);
                let time_ms = super::clock::wall_ms();
                self.step(Input::Command { number, command: *command, forecast, time_ms });
            }
            Asked::Status(answer) => drop(answer.try_send(Box::new(self.core.status()))),
            Asked::Repair { now, answer } => {
                if now {
                    self.step(Input::RepairNow);
                }
                drop(answer.try_send(Box::new(self.core.repair_report())));
            }
            Asked::OfTakedowns(asked) => self.take_takedown_asked(asked),
            Asked::Message { from, address, envelope, _room } => self.step(Input::Message { from, address, envelope }),
        }
    }

    /// Once a second.
    fn watch(&mut self, jumps: &mut Jumps) {
        if jumps.jumped() {
            tracing::warn!("somebody set the machine's clock, or it slept");
            self.step(Input::ClockJumped);
        }
        if let Some(micros) = self.node.drive_latency.take_p99() {
            self.step(Input::Latency { micros });
        }
        self.links.tidy();
        self.watch_system();
    }

    /// Looks whether the system drive answers.
    fn watch_system(&mut self) {
        let node = Arc::clone(&self.node);
        let Some(core) = &node.core else { return };
        match self.looks.look(&core.system) {
            SILENT_S => tracing::error!(seconds = SILENT_S, "the system drive does not answer"),
            DOWN_S => {
                tracing::error!(seconds = DOWN_S, "the system drive hangs: the node goes down");
                node.ending.begin();
                drop(self.events.try_send(Event::Stop));
            }
            _ => {}
        }
    }

    /// A number of the driver's own, that nothing else has.
    pub(super) const fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn step(&mut self, input: Input) {
        let is_news = matches!(input, Input::Appended { .. });
        let effects = self.core.step(now_ms(), input);
        if let Some(history) = self.core.history()
            && (history.epoch() != self.epoch)
        {
            self.epoch = history.epoch();
            tracing::info!(epoch = self.epoch, "the map's epoch");
            self.node.set_history(history.clone());
        }
        for effect in effects {
            self.carry_out(effect);
        }
        if is_news {
            self.tell_news();
        }
    }

    /// The address of a node, by the map.
    pub(super) fn address(&self, node: &deadwax_dht::NodeId) -> Option<Arc<str>> {
        let layout = self.core.layout()?;
        layout.map().node(node).map(|node| node.address.as_str().into())
    }
}
