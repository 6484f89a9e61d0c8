//! A node's part in the cluster: all of this crate's machines as one.
//!
//! **Promise.** One pure function of what happened: [`Core::step`] takes an input and the time, and gives what is to be
//! done. No clock, thread, socket, drive, float, or randomness but that of a seed: equal inputs give equal effects. The
//! daemon drives it over real sockets and drives, the simulator over modelled ones, unchanged.
//!
//! **Participants.** The *driver* moves messages, proves who sent them, reads and writes drives, and moves the tracks'
//! bytes, which never pass through here. It has two kinds of drive: the *system drive*, where effects take hold **in
//! the order in which they were given** (a crash leaves a prefix), and volumes.
//!
//! **Where to start.** [`Input`] and [`Effect`] are all there is between the two. Inside, each file of this folder owns
//! one concern and the machines of this crate that it needs: `epochs.rs` the map and its log, `contacts.rs` who is
//! there and who knows whom, `outages.rs` which drives are out, `versions.rs` what they speak, `requests.rs` puts and gets,
//! `copies.rs` anti-entropy and repair, `takedowns.rs`, `planner.rs` what the leader of the log plans. [`Core::status`] shows how it stands.
//!
//! **The way of a request.** [`Input::Request`], answered by [`Effect::Go`] or [`Effect::Refuse`]; the driver moves the
//! bytes and says [`Input::Done`]; [`Effect::Finish`] says what the asker may be told. A put is checked at both ends: a
//! track may have been taken down meanwhile, and the partition may have got other holders. Of a small one, whose bytes came
//! with it ([`Input::StoredAtOnce`]), the end is all there is to check.
//!
//! **The way of an epoch.** A record comes from the voter of this node, or from any peer: each envelope carries its
//! sender's epoch, and who is behind asks. The new layout is then told to all machines: of at most [`EPOCHS_MAX`] records
//! a step, one by one; the others wait for the next.
//!
//! **What happens on each failure.** *Messages are lost, doubled, late:* each machine asks again. *The process dies:* a
//! new core starts from what its driver kept ([`Kept`]); a voter that lost its state gives its seat up; a volume says
//! nothing of absence until it has compared itself with the others. *A second process of the same name:* the older one
//! halts. *A node of another log of the map*, as one was begun anew: nothing is taken from it but takedowns, and an
//! operator is told.
//!
//! **Absent on purpose.** Bytes of tracks, sockets, drives. The rules of a client: [`PutQuorum`](crate::PutQuorum),
//! [`GetPlan`](crate::GetPlan).

mod contacts;
mod copies;
mod duties;
mod effect;
mod epochs;
mod input;
mod message;
mod outages;
mod planner;
mod planted;
mod receipting;
mod requests;
mod settings;
mod status;
mod takedowns;
mod versions;

use self::contacts::Contacts;
use self::copies::Copies;
use self::duties::Duties;
pub use self::effect::{Alarm, CommandRefused, Destination, Effect, Finished, ReceiptReport, Refused};
pub use self::epochs::EPOCHS_MAX;
use self::epochs::Epochs;
pub use self::input::{Done, Input, Request, Verb};
pub use self::message::{BadEnvelope, ENVELOPE_BYTES_MAX, Envelope, Message, RECEIPTS_MAX, SPEAKERS_MAX, Speaker};
use self::outages::OwnOutages;
use self::planner::Planner;
#[cfg(feature = "planted")]
pub use self::planted::Bug;
use self::receipting::Receipting;
use self::requests::Requests;
pub use self::settings::{CoreConfig, CoreSettings, Kept};
use self::takedowns::Takedowns;
use self::versions::Versions;
use crate::NodeId;
use crate::admission::Admission;
use crate::liveness::Outages;

/// The machines that have time of their own. Each is polled when it was told something, and when its time has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Part {
    Voter,
    Epochs,
    Liveness,
    Router,
    Takedowns,
    Receipts,
    Sync,
    Repair,
    Requests,
    Duties,
    Outages,
    Planner,
}

const PARTS: [Part; 12] = [
    Part::Voter,
    Part::Epochs,
    Part::Liveness,
    Part::Router,
    Part::Takedowns,
    Part::Receipts,
    Part::Sync,
    Part::Repair,
    Part::Requests,
    Part::Duties,
    Part::Outages,
    Part::Planner,
];

impl Part {
    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// One node of the cluster. See the module's doc for how to drive it.
pub struct Core {
    config: CoreConfig,
    now: u64,
    /// When it started.
    began: u64,
    epochs: Epochs,
    contacts: Contacts,
    versions: Versions,
    takedowns: Takedowns,
    receipts: Receipting,
    copies: Copies,
    requests: Requests,
    duties: Duties,
    /// Drives of other nodes, where this one votes.
    outages: Outages,
    own_outages: OwnOutages,
    planner: Planner,
    /// When each part is due, in ms.
    due: [u64; PARTS.len()],
    /// The parts that were told something in this step, a bit each.
    touched: u16,
    halted: bool,
    effects: Vec<Effect>,
}

impl Core {
    /// A core that starts at `now`. Its volumes come by [`Input::VolumeUp`]. Step with [`Input::Tick`] at once.
    ///
    /// # Panics
    ///
    /// Where what was kept is not what a core of this cluster left: the driver has checked its files.
    #[must_use]
    pub fn start(now: u64, config: CoreConfig, mut kept: Kept) -> Self {
        let mut core = Self {
            now,
            began: now,
            takedowns: Takedowns::new(now, &config, &mut kept),
            epochs: Epochs::new(kept.history),
            contacts: Contacts::new(now, &config),
            versions: Versions::default(),
            receipts: Receipting::default(),
            copies: Copies::new(now, &config),
            requests: Requests::new(Admission::new(&config.settings.admission)),
            duties: Duties::default(),
            outages: Outages::default(),
            own_outages: OwnOutages::default(),
            planner: Planner::default(),
            due: [now; PARTS.len()],
            touched: 0,
            halted: false,
            effects: Vec::new(),
            config,
        };
        core.begin_epochs(kept.voter);
        core.contacts.begin(now, &core.config);
        core
    }

    /// Takes one input, and gives what is to be done, in order. `now`: ms of one clock that counts the time asleep;
    /// where it goes back it is taken to stand still.
    #[must_use]
    pub fn step(&mut self, now: u64, input: Input) -> Vec<Effect> {
        self.now = self.now.max(now);
        if self.halted {
            return self.refuse_all(&input);
        }
        self.epochs.begin_step();
        self.take(input);
        self.poll_parts();
        std::mem::take(&mut self.effects)
    }

    /// When to step with [`Input::Tick`] at the latest, in ms.
    #[must_use]
    pub fn next_deadline(&self) -> u64 {
        if self.halted { u64::MAX } else { self.due.iter().copied().min().unwrap_or(u64::MAX) }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Tick => {}
            Input::Message { from, address, envelope } => self.take_envelope(from, &address, *envelope),
            Input::Unreachable(node) => self.take_unreachable(node),
            Input::Seek { number, request } => self.take_seek(number, request),
            Input::WantEpochs { number, since } => self.take_want_epochs(number, since),
            Input::Request(request) => self.take_request(request),
            Input::Done { number, outcome, bytes } => self.take_done(number, outcome, bytes),
            Input::StoredAtOnce(request) => self.take_stored_at_once(&request),
            Input::VolumeUp { volume, digests, track_bytes } => self.take_volume_up(volume, digests, track_bytes),
            Input::VolumeDown(volume) => self.take_volume_down(volume),
            Input::Stored { volume, track } => self.take_stored(volume, track),
            Input::Erased { volume, track, was_there } => self.take_erased(volume, track, was_there),
            Input::Rotten { volume, track } => self.take_rotten(volume, track),
            Input::Listed { number, tracks } => self.take_listed(number, tracks),
            Input::Pulled { number, bytes, result } => self.take_pulled(number, bytes, result),
            Input::Latency { micros } => self.take_latency(micros),
            Input::Persisted { seat, number } => self.take_persisted(seat, number),
            Input::Saved { epoch } => self.take_saved(epoch),
            Input::Appended { number } => self.take_appended(number),
            Input::TakedownsRead { number, records } => self.take_takedowns_read(number, records),
            Input::TakeDown { number, track, time, reason } => self.take_take_down(number, track, time, &reason),
            Input::WantReceipts { number, track } => self.take_want_receipts(number, track),
            Input::Command { number, command, forecast, time_ms } => {
                self.take_command(number, command, forecast, time_ms);
            }
            Input::Batch(batch) => self.take_batch(&batch),
            Input::LaterRecords { epoch } => self.take_later_records(epoch),
            Input::ClockJumped => self.take_clock_jump(),
            Input::RepairNow => self.take_repair_now(),
        }
    }

    fn refuse_all(&mut self, input: &Input) -> Vec<Effect> {
        if let Input::Request(request) | Input::StoredAtOnce(request) = input {
            self.effects.push(Effect::Refuse { number: request.number, why: Refused::Halted });
        }
        std::mem::take(&mut self.effects)
    }

    /// Polls what was touched or is due, until nothing is.
    fn poll_parts(&mut self) {
        while !self.halted {
            let due = |part: &Part| self.due[*part as usize] <= self.now || self.touched & part.bit() != 0;
            let Some(part) = PARTS.into_iter().find(due) else { return };
            self.touched &= !part.bit();
            let next = match part {
                Part::Voter => self.poll_voter(),
                Part::Epochs => self.poll_epochs(),
                Part::Liveness => self.poll_liveness(),
                Part::Router => self.poll_router(),
                Part::Takedowns => self.poll_takedowns(),
                Part::Receipts => self.poll_receipts(),
                Part::Sync => self.poll_sync(),
                Part::Repair => self.poll_repair(),
                Part::Requests => self.poll_requests(),
                Part::Duties => self.poll_duties(),
                Part::Outages => self.poll_outages(),
                Part::Planner => self.poll_planner(),
            };
            // A part that is due at once has done what it could in this step.
            self.due[part as usize] = next.max(self.now + 1);
        }
    }

    fn touch(&mut self, part: Part) {
        self.touched |= part.bit();
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.send_to(Destination::Node(to), message);
    }

    fn send_to(&mut self, to: Destination, message: Message) {
        let (since, usable) = (message.since(), self.protocol());
        assert!(since <= usable, "a message that came with protocol {since}, where {usable} may be used: {message:?}");
        let (protocol, epoch, life) = (self.config.protocols.newest(), self.epoch(), self.config.life);
        let line = self.history().map_or(0, |history| history.state().line_at(epoch));
        let envelope = Box::new(Envelope { protocol, epoch, line, life, message });
        self.effects.push(Effect::Send { to, envelope });
    }
}
