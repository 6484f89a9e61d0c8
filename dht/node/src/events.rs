//! What the thread that runs the node hears, and what it keeps for later while it waits for the shards.

use std::collections::VecDeque;
use std::time::Duration;

use deadwax_dht::rebalance::Command;
use deadwax_dht::wire::CommandAnswer;

use crate::Error;
use crate::executor::Opened;
use crate::revival::Probed;

/// The most events of shards and signals that wait, and the most that are kept meanwhile.
pub(crate) const EVENTS_MAX: usize = 4096;

/// What a shard, a signal or the program itself says.
pub(crate) enum Event {
    /// The shard's volumes are open, or why not: it has ended then.
    Opened(Result<Opened, Error>),
    /// It accepts connections, or why not.
    Serving(Result<(), Error>),
    /// It has opened or closed its part of a volume, or could not.
    Changed,
    /// Its connections have left.
    Drained,
    /// How the drive of a volume that was given up does.
    Probed(Probed),
    /// SIGHUP, or the program's own word; the answer goes there.
    Reload(Option<flume::Sender<Result<(), Error>>>),
    /// An operator's command, by the program's own word; what came of it goes there.
    Command(Box<Command>, flume::Sender<CommandAnswer>),
    /// SIGTERM, SIGINT, or the program's own word.
    Stop,
}

/// All events, in order.
pub(crate) struct Events {
    heard: flume::Receiver<Event>,
    /// What came while the shards were waited for.
    kept: VecDeque<Event>,
}

impl Events {
    pub(crate) const fn new(heard: flume::Receiver<Event>) -> Self {
        Self { heard, kept: VecDeque::new() }
    }

    /// The next one. None: nobody is left who could say anything.
    pub(crate) fn next(&mut self) -> Option<Event> {
        self.kept.pop_front().or_else(|| self.heard.recv().ok())
    }

    /// The next one, where it comes in time.
    pub(crate) fn next_within(&mut self, time: Duration) -> Option<Event> {
        self.kept.pop_front().or_else(|| self.heard.recv_timeout(time).ok())
    }

    /// Waits until each shard has done what it was told to do with a volume.
    pub(crate) fn all_changed(&mut self, shards: usize) {
        let mut changed = 0;
        while changed < shards {
            match self.heard.recv() {
                Ok(Event::Changed) => changed += 1,
                // Of more, whoever asks is answered as by a node that stops, and asks again.
                Ok(event) if self.kept.len() < EVENTS_MAX => self.kept.push_back(event),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}
