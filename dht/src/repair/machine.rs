//! One node's pulls.

use std::collections::BTreeMap;

use deadwax_track::{Partition, TrackId};

use super::class::Class;
use super::meter::{Meter, second};
use super::peers::{Away, Peers, doubled, jittered};
use super::queue::{Choice, Count, Queue, Rest};
use super::serving::{Busy, Serving};
use super::settings::RepairSettings;
use super::status::{ClassStatus, RepairStatus, Stall};
use super::throttle::{Account, Fund, Throttle, bytes_signed};
use super::want::{Pull, PullError, Source, Want};
use crate::random::Random;
use crate::{NodeId, VolumeId};

/// One pull in so many is of a want by chance, so that the last class does not wait for ever.
const CHANCE_TURN: u64 = 16;
/// Partitions that a poll looks at for a source; then it goes on after [`GO_ON_MS`].
const LOOKS_MAX: usize = 64;
const GO_ON_MS: u64 = 20;
/// How long a want rests of which all sources failed, in ms: doubled each time, up to the second.
const RETRY_MS: (u64, u64) = (2_000, 300_000);
/// How long an own drive rests that is full or fails, in ms: doubled each time, up to the second.
const DRIVE_MS: (u64, u64) = (30_000, 900_000);
/// Own volumes; of more than so many wants are dropped.
const VOLUMES_MAX: usize = 256;
/// The mean length of tracks is that of so many tracks of the settings' length, and those that were seen.
const MEAN_WEIGHT: u64 = 8;

#[derive(Debug)]
struct Drive {
    queue: Queue,
    /// Those of wants that were forgotten meanwhile, too.
    in_flight: usize,
    /// The turn of its last pull.
    turn: u64,
    rests_until: u64,
    rests_for: Stall,
    failures: u32,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    volume: VolumeId,
    track: TrackId,
    peer: u16,
    from: VolumeId,
    /// What was charged at its start.
    bytes: u64,
    fund: Fund,
}

/// The pulls of one node, and what it serves to those of others.
///
/// **How to drive it.** Tell what is wanted ([`want`](Self::want)), what is not any more, which nodes are down, and how
/// slow the foreground is. After each input, and when [`next_deadline`](Self::next_deadline) has come, call
/// [`poll`](Self::poll) until it gives nothing. Tell the end of each [`Pull`] ([`handle_pulled`](Self::handle_pulled));
/// a track that came is wanted no more. Times are ms of one clock; one that goes back counts as standing still. Equal
/// inputs and seeds give equal pulls.
///
/// **Order.** Fewest copies first; of as many, those of which a zone has no copy; then rot, missing, moving, strays. Of
/// one class by partition, as a lift goes, and then by id. One pull in sixteen is of a class and partition by chance:
/// so nothing waits for ever, however much comes before it.
///
/// **Rate.** What may start is paid from an account that the rate fills; tracks of any size may start while it is not
/// in debt. Urgent tracks (one copy, or a zone without any) may start from a reserve as well, which the floor fills:
/// they get the floor (the others a sixteenth of it), whatever large tracks went before them. Above the floor the rate
/// falls by a quarter for each second in which the foreground is slower than its target, and else rises to the ceiling
/// in half a minute.
#[derive(Debug)]
pub struct Repair {
    settings: RepairSettings,
    random: Random,
    now: u64,
    drives: BTreeMap<VolumeId, Drive>,
    peers: Peers,
    /// At most `pulls_max` for each own volume.
    flights: BTreeMap<u64, Flight>,
    wants: usize,
    /// The last pull's number.
    number: u64,
    /// Pulls that the shared account paid: which of them go by chance.
    turn: u64,
    throttle: Throttle,
    account: Account,
    serving: Serving,
    meter: Meter,
    paused: bool,
    /// A poll looked at enough partitions; it goes on from this time.
    go_on_at: u64,
    pulled: (u64, u64),
    /// Other tracks of which the length is known, and their bytes: those on a volume when it came up, and those put since.
    seen: BTreeMap<Option<VolumeId>, (u64, u64)>,
    failed: u64,
    dropped: u64,
}

impl Repair {
    /// Nothing is wanted. `seed`: another for each node and start. `now`: ms.
    #[must_use]
    pub fn new(settings: RepairSettings, seed: u64, now: u64) -> Self {
        let throttle = Throttle::new(&settings, now);
        Self {
            random: Random(seed),
            now,
            drives: BTreeMap::new(),
            peers: Peers::default(),
            flights: BTreeMap::new(),
            wants: 0,
            number: 0,
            turn: 0,
            account: Account::new(&throttle, now),
            serving: Serving::new(settings.serves_max, &throttle, now),
            throttle,
            meter: Meter::default(),
            paused: false,
            go_on_at: 0,
            pulled: (0, 0),
            seen: BTreeMap::new(),
            failed: 0,
            dropped: 0,
            settings,
        }
    }

    /// An own volume lacks a track, which `sources` have. Told again, the newest copies, zones and reason count, and
    /// sources are added (at most eight a partition and volume, others are not taken). It is dropped if there are too
    /// many wants: the last of the last class, this one or another.
    pub fn want(&mut self, now: u64, want: Want, sources: &[Source]) {
        self.pass(now);
        if !self.drives.contains_key(&want.volume) && !self.enter(want.volume) {
            self.dropped += 1;
            return;
        }
        let drive = &self.drives[&want.volume];
        if drive.queue.get(&want.track).is_none() {
            let class = Class::of(want.copies, want.zoneless, want.reason);
            if self.wants >= self.settings.wants_max.max(1) && !self.make_room(class) {
                self.dropped += 1;
                return;
            }
            if self.wants == 0 {
                self.meter.begin(self.now);
            }
            self.wants += 1;
        }
        let drive = self.drives.get_mut(&want.volume).expect("entered above");
        drive.queue.want(self.now, &want, sources, &mut self.peers);
    }

    fn enter(&mut self, volume: VolumeId) -> bool {
        if self.drives.len() == VOLUMES_MAX {
            self.drives.retain(|_, drive| drive.in_flight > 0 || drive.queue.len() > 0);
        }
        let room = self.drives.len() < VOLUMES_MAX;
        if room {
            let (rests_until, rests_for) = (0, Stall::DriveFull);
            let drive = Drive { queue: Queue::new(), in_flight: 0, turn: 0, rests_until, rests_for, failures: 0 };
            self.drives.insert(volume, drive);
        }
        room
    }

    /// Drops the last want, if it goes after `class`.
    fn make_room(&mut self, class: Class) -> bool {
        let lasts = self.drives.iter().filter_map(|(volume, drive)| Some((drive.queue.last()?, *volume)));
        match lasts.max() {
            Some(((last, track), volume)) if last > class => {
                self.forget(&volume, &track);
                self.dropped += 1;
                true
            }
            _ => false,
        }
    }

    /// The volume has the track, or should not have it. A pull of it that is in flight goes on to its end.
    pub fn forget(&mut self, volume: &VolumeId, track: &TrackId) {
        let Some(drive) = self.drives.get_mut(volume) else { return };
        if let Some(entry) = drive.queue.take(track) {
            drive.queue.discard(track, entry, &mut self.peers);
            self.wants -= 1;
        }
    }

    /// The volume is gone, or wants nothing any more.
    pub fn forget_volume(&mut self, volume: &VolumeId) {
        let Some(drive) = self.drives.get_mut(volume) else { return };
        self.wants -= drive.queue.len();
        drive.queue.clear(&mut self.peers);
        (drive.rests_until, drive.failures) = (0, 0);
        if drive.in_flight == 0 {
            self.drives.remove(volume);
        }
    }

    /// The partition does not move after all: what is wanted for [`Reason::Moving`](super::Reason::Moving) is
    /// forgotten. Takes time by the number of wants of that partition.
    pub fn cancel(&mut self, partition: Partition) {
        let volumes: Vec<VolumeId> = self.drives.keys().copied().collect();
        for volume in volumes {
            for track in self.drives[&volume].queue.moving(partition.0) {
                self.forget(&volume, &track);
            }
        }
    }

    /// Whether a node is up: nothing is pulled from one that is down. What waits for it looks again when it is up.
    pub fn set_up(&mut self, node: NodeId, up: bool) {
        if self.peers.set_up(node, up) {
            self.drives.values_mut().for_each(|drive| drive.queue.unpark_all());
        }
    }

    /// A node said something after a silence: it is not left alone any longer because it could not be reached.
    pub fn handle_heard(&mut self, node: NodeId) {
        if self.peers.heard(node) {
            self.drives.values_mut().for_each(|drive| drive.queue.unpark_all());
        }
    }

    /// An operator wants it tried now: nothing waits any longer because it failed, or because a drive or a node did. What a
    /// busy node asked for stays.
    pub fn hasten(&mut self, now: u64) {
        self.pass(now);
        self.peers.forgive();
        for drive in self.drives.values_mut() {
            (drive.rests_until, drive.failures) = (0, 0);
            drive.queue.retry_all();
        }
    }

    /// Only these are nodes of the map. Another that comes back to it counts as up until it is told to be down.
    pub fn keep_nodes(&mut self, is_kept: impl Fn(&NodeId) -> bool) {
        self.peers.keep(is_kept);
    }

    /// While paused nothing is pulled; pulls in flight go to their end, and others are served.
    pub const fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// How slow clients' requests to this node's drives are: each second the percentile that the target is for (say p99
    /// of that second), if there were any. More often does no harm. Where nobody tells it counts as fast.
    pub fn observe_foreground(&mut self, now: u64, latency_us: u64) {
        self.pass(now);
        // What was earned so far was earned at the rate so far.
        self.account.fill(self.now, &mut self.throttle);
        self.throttle.observe(self.now, latency_us);
    }

    /// Another node asks for a track of so many bytes (0: not known): it is served, under this number, or told to come
    /// again. `urgent` as its pull says.
    pub fn may_serve(&mut self, now: u64, to: NodeId, bytes: u64, urgent: bool) -> Result<u64, Busy> {
        self.pass(now);
        let bytes = if bytes == 0 { self.track_bytes_mean() } else { bytes };
        self.serving.begin(self.now, to, bytes, urgent, &mut self.throttle)
    }

    /// What [`may_serve`](Self::may_serve) allowed under this number has ended after `bytes`, one way or another:
    /// always to be told. An unknown number is ignored.
    pub fn served(&mut self, now: u64, number: u64, bytes: u64) {
        self.pass(now);
        self.serving.end(self.now, number, bytes, &mut self.throttle);
    }

    fn pass(&mut self, now: u64) {
        self.now = self.now.max(now);
    }

    /// The next pull, if one may start now. Call it until it gives none.
    pub fn poll(&mut self, now: u64) -> Option<Pull> {
        self.pass(now);
        let now = self.now;
        for drive in self.drives.values_mut() {
            let dropped = drive.queue.fire(now, &mut self.peers);
            self.wants -= usize::try_from(dropped).expect("were in memory");
            self.dropped += dropped;
        }
        if self.paused || self.wants == 0 || now < self.go_on_at {
            return None;
        }
        self.account.fill(now, &mut self.throttle);
        for _ in 0..LOOKS_MAX {
            let (volume, class, anywhere, fund) = self.next_drive()?;
            let drive = self.drives.get_mut(&volume).expect("just found");
            if let Some(choice) = drive.queue.choose(now, class, anywhere, &self.peers, &mut self.random) {
                return Some(self.start(volume, choice, fund));
            }
        }
        self.go_on_at = now + GO_ON_MS;
        None
    }

    fn open(&self, now: u64) -> impl Iterator<Item = (VolumeId, &Drive)> {
        let pulls_max = self.settings.pulls_max.max(1);
        let open = move |drive: &Drive| drive.rests_until <= now && drive.in_flight < pulls_max;
        let drives = self.drives.iter().filter(move |(_, drive)| drive.queue.is_ready() && open(drive));
        drives.map(|(volume, drive)| (*volume, drive))
    }

    /// Which drive pulls next, of which class, whether by chance, and paid how. None: nothing may start.
    fn next_drive(&mut self) -> Option<(VolumeId, Class, bool, Fund)> {
        let shared = self.account.fund(false);
        let fund = self.account.fund(true)?;
        // One by chance that cannot be paid stays due.
        if let Some(shared) = shared
            && self.turn % CHANCE_TURN == CHANCE_TURN - 1
        {
            let volumes: Vec<VolumeId> = self.open(self.now).map(|(volume, _)| volume).collect();
            if volumes.is_empty() {
                return None;
            }
            let volume = volumes[self.random.below(volumes.len())];
            let class = self.drives[&volume].queue.any(&mut self.random)?;
            return Some((volume, class, true, if class.urgent() { fund } else { shared }));
        }
        let firsts = self.open(self.now).filter_map(|(volume, drive)| {
            let class = drive.queue.first(shared.is_none())?;
            Some((class, drive.turn, volume))
        });
        let (class, _, volume) = firsts.min()?;
        let fund = if class.urgent() { fund } else { shared? };
        Some((volume, class, false, fund))
    }

    fn start(&mut self, volume: VolumeId, choice: Choice, fund: Fund) -> Pull {
        let mean = self.track_bytes_mean();
        let drive = self.drives.get_mut(&volume).expect("chosen");
        let mut entry = drive.queue.take(&choice.track).expect("chosen");
        entry.rest = Rest::Flying;
        drive.queue.put(choice.track, entry);
        drive.in_flight += 1;
        // One that the reserve pays is no turn: else the turn that goes by chance would pass while nothing is paid for
        // it.
        self.turn += u64::from(fund != Fund::Reserved);
        self.number += 1;
        let number = self.number;
        drive.turn = number;
        self.peers.begin(choice.peer, number);
        let bytes = if entry.bytes == 0 { mean } else { u64::from(entry.bytes) };
        self.account.charge(bytes_signed(bytes), fund);
        let Choice { track, peer, from, .. } = choice;
        self.flights.insert(number, Flight { volume, track, peer, from, bytes, fund });
        let node = self.peers.node(peer);
        Pull { number, volume, track, node, from, bytes_hint: bytes, urgent: entry.class.urgent() }
    }

    /// The node that a pull in flight asks.
    #[must_use]
    pub fn source(&self, number: u64) -> Option<NodeId> {
        self.flights.get(&number).map(|flight| self.peers.node(flight.peer))
    }

    /// A pull has ended after `bytes`, all or in part. One with an unknown number is ignored.
    pub fn handle_pulled(&mut self, now: u64, number: u64, bytes: u64, result: Result<(), PullError>) {
        self.pass(now);
        let Some(flight) = self.flights.remove(&number) else { return };
        self.account.fill(self.now, &mut self.throttle);
        self.account.charge(bytes_signed(bytes).saturating_sub(bytes_signed(flight.bytes)), flight.fund);
        self.meter.add(self.now, bytes);
        self.pulled.1 = self.pulled.1.saturating_add(bytes);
        self.peers.end(flight.peer);
        match result {
            Ok(()) => {
                self.pulled.0 += 1;
                self.peers.served(flight.peer);
                self.forget(&flight.volume, &flight.track);
            }
            Err(PullError::Barred) => self.forget(&flight.volume, &flight.track),
            Err(error) => self.fail(&flight, error),
        }
        self.failed += u64::from(result.is_err());
        self.peers.release(flight.peer);
        let drive = self.drives.get_mut(&flight.volume).expect("a drive with a pull in flight stays");
        drive.in_flight -= 1;
        if result.is_ok() {
            (drive.rests_until, drive.failures) = (0, 0);
        }
        if drive.in_flight == 0 && drive.queue.len() == 0 && drive.rests_until <= self.now {
            self.drives.remove(&flight.volume);
        }
    }

    fn fail(&mut self, flight: &Flight, error: PullError) {
        let now = self.now;
        let drive = self.drives.get_mut(&flight.volume).expect("a drive with a pull in flight stays");
        match error {
            PullError::Unreachable => self.peers.unreachable(flight.peer, now, &mut self.random),
            PullError::Busy { after_ms } => self.peers.busy(flight.peer, now, after_ms, &mut self.random),
            PullError::DriveFull => drive.rest(now, Stall::DriveFull, &mut self.random),
            PullError::DriveFailed => drive.rest(now, Stall::DriveFailed, &mut self.random),
            PullError::Lacks | PullError::Corrupt | PullError::Barred => {}
        }
        // Forgotten meanwhile, or forgotten and wanted again: then it is ready, and this pull says nothing about it.
        if drive.queue.get(&flight.track).is_none_or(|entry| entry.rest != Rest::Flying) {
            return;
        }
        let mut entry = drive.queue.take(&flight.track).expect("there");
        entry.rest = Rest::No;
        match error {
            PullError::Unreachable => {
                let random = &mut self.random;
                drive.queue.fail(now, &mut entry, |times| jittered(doubled(RETRY_MS, times), random));
            }
            PullError::Lacks | PullError::Corrupt => {
                drive.queue.unname(&flight.track, &mut entry, &flight.from, &mut self.peers);
                drive.queue.settle(now, &mut entry);
            }
            PullError::Busy { .. } | PullError::DriveFull | PullError::DriveFailed | PullError::Barred => {}
        }
        drive.queue.put(flight.track, entry);
    }

    /// When to [`poll`](Self::poll) next if no input comes before; `u64::MAX` if only an input gives it something to
    /// do.
    #[must_use]
    pub fn next_deadline(&self) -> u64 {
        let timers = self.drives.values().map(|drive| drive.queue.next_timer()).min().unwrap_or(u64::MAX);
        if self.paused || self.wants == 0 {
            return timers;
        }
        let pulls_max = self.settings.pulls_max.max(1);
        let drives = self.drives.values().filter(|drive| drive.queue.is_ready() && drive.in_flight < pulls_max);
        let starts = drives.map(|drive| {
            let urgent = drive.queue.first(true).is_some();
            drive.rests_until.max(self.account.open_at(urgent, &self.throttle))
        });
        starts.min().map_or(timers, |start| timers.min(start.max(self.go_on_at)))
    }

    /// Some tracks have so many bytes together, those of a volume that came up or others; 0: it is not known. Those of unknown
    /// length are taken to be alike.
    pub(crate) fn learn_lengths(&mut self, volume: Option<VolumeId>, tracks: u64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let seen = self.seen.entry(volume).or_default();
        let before = if volume.is_some() { (0, 0) } else { *seen };
        *seen = (before.0.saturating_add(tracks), before.1.saturating_add(bytes));
    }

    /// The mean length of the tracks that were seen or came, beside some of the length that the settings say.
    pub(crate) fn track_bytes_mean(&self) -> u64 {
        let known = self.seen.values().chain([&self.pulled]);
        let (tracks, bytes) = known
            .fold((0u64, 0u64), |sum, (tracks, bytes)| (sum.0.saturating_add(*tracks), sum.1.saturating_add(*bytes)));
        let weighed = (self.settings.track_bytes_mean.max(1)).saturating_mul(MEAN_WEIGHT);
        weighed.saturating_add(bytes) / MEAN_WEIGHT.saturating_add(tracks)
    }

    /// How it stands at `now`. Takes time by the number of own volumes.
    #[must_use]
    pub fn status(&self, now: u64) -> RepairStatus {
        let mean = self.track_bytes_mean();
        let now = now.max(self.now);
        let classes: Vec<ClassStatus> = Class::all()
            .filter_map(|class| {
                let counts = self.drives.values().map(|drive| drive.queue.counts[usize::from(class.0)]);
                let sum = counts.fold(Count::default(), Count::plus);
                let (copies, zoneless, reason) = (class.copies(), class.zoneless(), class.reason());
                let bytes = sum.bytes.saturating_add(sum.unknown.saturating_mul(mean));
                (sum.wants > 0).then_some(ClassStatus { copies, zoneless, reason, tracks: sum.wants, bytes })
            })
            .collect();
        let bytes_left = classes.iter().fold(0u64, |sum, class| sum.saturating_add(class.bytes));
        let rate = self.meter.rate(now);
        let oldest = self.drives.values().filter_map(|drive| drive.queue.oldest()).min();
        RepairStatus {
            tracks_left: self.wants as u64,
            bytes_left,
            rate_bytes_s: rate,
            rate_bytes_s_max: self.throttle.rate_at(now),
            eta_ms: (self.wants > 0 && rate > 0).then(|| bytes_left.saturating_mul(1_000) / rate),
            stall: self.stall(now),
            oldest_ms: oldest.map_or(0, |oldest| u64::from(second(now).saturating_sub(oldest)) * 1_000),
            pulls: self.flights.len(),
            serves: self.serving.len(),
            tracks_pulled: self.pulled.0,
            bytes_pulled: self.pulled.1,
            pulls_failed: self.failed,
            wants_dropped: self.dropped,
            classes,
        }
    }

    fn stall(&self, now: u64) -> Option<Stall> {
        if self.wants == 0 {
            return Some(Stall::Idle);
        }
        if self.paused {
            return Some(Stall::Paused);
        }
        if !self.flights.is_empty() {
            return None;
        }
        if self.open(now).next().is_some() {
            return Some(Stall::Throttled);
        }
        let wanting = || self.drives.values().filter(|drive| drive.queue.len() > 0);
        let resting = wanting().filter(|drive| drive.rests_until > now).map(|drive| drive.rests_for);
        if let Some(stall) = resting.max_by_key(|stall| *stall == Stall::DriveFailed) {
            return Some(stall);
        }
        match wanting().filter_map(|drive| drive.queue.parked()).min() {
            Some(Away::Busy) => return Some(Stall::SourcesBusy),
            Some(Away::Unreachable | Away::Down) => return Some(Stall::NoSourceUp),
            None => {}
        }
        let orphans: u64 = wanting().map(|drive| drive.queue.orphans).sum();
        Some(if orphans == self.wants as u64 { Stall::NoSource } else { Stall::Retrying })
    }

    /// How many nodes are named as sources: for tests of what is kept.
    #[must_use]
    pub fn sources_known(&self) -> usize {
        self.peers.len()
    }
}

impl Drive {
    fn rest(&mut self, now: u64, why: Stall, random: &mut Random) {
        // Several pulls that fail at once are one failure.
        if self.rests_until <= now {
            self.rests_until = now.saturating_add(jittered(doubled(DRIVE_MS, self.failures), random));
            self.failures = self.failures.saturating_add(1);
        }
        self.rests_for = why;
    }
}
