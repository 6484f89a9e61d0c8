//! A small cluster in which nothing goes wrong: messages take 2 ms, drives 1 ms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deadwax_dht::core::{
    Alarm, CommandRefused, Core, CoreConfig, CoreSettings, Destination, Done, Effect, Envelope, Finished, Input, Kept,
    ReceiptReport, Refused, Request, Verb,
};
use deadwax_dht::log::{Batch, Durable, History};
use deadwax_dht::rebalance::{Answer, Command, Progress};
use deadwax_dht::takedown::{Spread, Standing, Takedown};
use deadwax_dht::wire::{PROTOCOL_VERSION, PartitionDigest, Protocols, Unfit};
use deadwax_dht::{ClusterId, LayoutCache, MAP_VERSION, Map, MapSpec, Node, NodeId, NodeKey, Policy, Volume, VolumeId};
use deadwax_track::TrackId;

pub(crate) const SECOND: u64 = 1_000;
pub(crate) const MINUTE: u64 = 60 * SECOND;

/// The number of commands that may be refused.
const TRIED: u64 = 2;
/// Far enough after 1970 for the times of lives.
pub(crate) const BEGIN: u64 = 1_000_000;

pub(crate) fn track(number: u64) -> TrackId {
    TrackId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

pub(crate) struct House {
    pub(crate) core: Core,
    pub(crate) node: Node,
    pub(crate) volumes: Vec<VolumeId>,
    pub(crate) disk: BTreeMap<VolumeId, BTreeSet<TrackId>>,
    pub(crate) takedowns: Vec<Takedown>,
    standing: Standing,
    /// Of its voter.
    pub(crate) durable: Option<Durable>,
    /// The most tracks that were to be erased by one step.
    pub(crate) erased_at_once: usize,
    pub(crate) up: bool,
    pub(crate) halted: bool,
    /// Why it takes no part.
    pub(crate) unfit: Option<Unfit>,
    woken: u64,
}

enum Event {
    Message { from: usize, to: usize, envelope: Box<Envelope> },
    Input { at: usize, input: Input },
    Wake { at: usize },
}

pub(crate) struct Village {
    pub(crate) now: u64,
    pub(crate) houses: Vec<House>,
    history: History,
    /// What each house's program speaks; the last, all houses beyond.
    pub(crate) spoken: Vec<Protocols>,
    /// How many drives a house has, beyond the first three.
    drives: u8,
    /// What comes to a volume at once, where partitions are small; of cores that start from now on.
    pub(crate) volume_moving_bytes: u64,
    /// The length of each track, as volumes tell it when they come up.
    pub(crate) track_bytes: u64,
    layouts: LayoutCache,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    answers: BTreeMap<u64, Result<Finished, Refused>>,
    /// What came of the last command that may be refused.
    outcome: Option<Result<Answer, CommandRefused>>,
    pub(crate) spreads: BTreeMap<u64, Spread>,
    /// What an operator must look at, and at which house.
    pub(crate) alarms: Vec<(usize, Alarm)>,
    /// The house whose settings name no issuer.
    pub(crate) unnamed_at: Option<usize>,
    pub(crate) reports: BTreeMap<u64, Option<ReceiptReport>>,
    /// No message comes from these houses to the others, nor from them.
    pub(crate) cut: BTreeSet<usize>,
    numbers: u64,
}

pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);

pub(crate) fn key(number: usize) -> NodeKey {
    NodeKey::from_bytes(&[u8::try_from(number + 1).expect("few"); 32])
}

/// Those beyond the first three have so many drives.
fn node(number: usize, drives: u8) -> Node {
    // The first three hold nearly everything, so that what the others take part in is little and quick.
    let weight = if number < 3 { 1_000 } else { 10 };
    let volume = |drive| {
        let mut id = [u8::try_from(number + 1).expect("few"); 16];
        id[15] += drive;
        Volume { id: VolumeId::from_bytes(id), weight }
    };
    Node {
        id: key(number).node_id(),
        zone: if number.is_multiple_of(2) { "even" } else { "odd" }.to_owned(),
        rack: None,
        address: format!("10.0.0.{number}:7000"),
        volumes: (0..if number < 3 { 1 } else { drives }).map(|drive| volume(16 * drive)).collect(),
    }
}

impl Village {
    pub(crate) fn new(nodes: usize, voters: usize) -> Self {
        Self::finalised_at(PROTOCOL_VERSION, nodes, voters, vec![Protocols::BUILD])
    }

    /// One in which all nodes but the first three have so many drives.
    pub(crate) fn with_drives(nodes: usize, voters: usize, drives: u8) -> Self {
        Self::found(PROTOCOL_VERSION, nodes, voters, vec![Protocols::BUILD], drives)
    }

    /// One that begins at this version of the protocol; `spoken` by its houses, as [`spoken`](Self::spoken) is.
    pub(crate) fn finalised_at(protocol: u8, nodes: usize, voters: usize, spoken: Vec<Protocols>) -> Self {
        Self::found(protocol, nodes, voters, spoken, 1)
    }

    fn found(protocol: u8, nodes: usize, voters: usize, spoken: Vec<Protocols>, drives: u8) -> Self {
        let spec = MapSpec {
            version: MAP_VERSION,
            cluster: CLUSTER,
            epoch: 1,
            policy: Policy::default(),
            nodes: (0..nodes).map(|number| node(number, drives)).collect(),
            overrides: Vec::new(),
        };
        let map = Map::settled(spec).expect("a good map");
        let seats = (0..voters).map(|number| key(number).node_id()).collect();
        let history = History::genesis_at(protocol, map.spec().clone(), seats).expect("a good genesis");
        let mut village = Self {
            now: BEGIN,
            houses: Vec::new(),
            history,
            spoken,
            drives,
            volume_moving_bytes: 0,
            track_bytes: 0,
            layouts: LayoutCache::for_many(),
            queue: BTreeMap::new(),
            sequence: 0,
            answers: BTreeMap::new(),
            outcome: None,
            spreads: BTreeMap::new(),
            alarms: Vec::new(),
            unnamed_at: None,
            reports: BTreeMap::new(),
            cut: BTreeSet::new(),
            numbers: 1_000,
        };
        for number in 0..nodes {
            let id = key(number).node_id();
            let voter = village.history.state().seat_of(&id).map(|seat| Durable::founding(seat, &village.history));
            let kept = Kept {
                history: Some(village.history.clone()),
                voter,
                takedowns: Vec::new(),
                standing: Standing::WHOLE,
            };
            village.build(number, kept);
        }
        village
    }

    fn build(&mut self, number: usize, kept: Kept) {
        let node = node(number, self.drives);
        let volumes: Vec<VolumeId> = node.volumes.iter().map(|volume| volume.id).collect();
        let standing = kept.standing;
        let house = House {
            durable: kept.voter.clone(),
            core: self.core(number, kept),
            disk: volumes.iter().map(|volume| (*volume, BTreeSet::new())).collect(),
            node,
            volumes,
            takedowns: Vec::new(),
            standing,
            erased_at_once: 0,
            up: true,
            halted: false,
            unfit: None,
            woken: u64::MAX,
        };
        self.houses.push(house);
        self.begin(self.houses.len() - 1);
    }

    fn core(&self, number: usize, kept: Kept) -> Core {
        let node = node(number, self.drives);
        let mut settings = CoreSettings::default();
        settings.rebalance.volume_moving_bytes = self.volume_moving_bytes;
        let config = CoreConfig {
            node: node.id,
            key: key(number),
            issuer: (number == 0).then(|| key(0)),
            issuers: if self.unnamed_at == Some(number) { Vec::new() } else { vec![key(0).public()] },
            cluster: CLUSTER,
            address: node.address.as_str().into(),
            seeds: vec!["10.0.0.0:7000".into(), "10.0.0.1:7000".into()],
            life: self.now,
            seed: 1_000 * self.now + number as u64,
            protocols: self.spoken[number.min(self.spoken.len() - 1)],
            settings,
            #[cfg(feature = "planted")]
            bug: None,
            layouts: self.layouts.clone(),
        };
        Core::start(self.now, config, kept)
    }

    fn begin(&mut self, at: usize) {
        self.act(at, Input::Tick);
        self.houses[at].volumes.clone().into_iter().for_each(|volume| self.volume_up(at, volume));
    }

    /// A drive comes up, with what is on it.
    pub(crate) fn volume_up(&mut self, at: usize, volume: VolumeId) {
        let mut digests = BTreeMap::new();
        for track in &self.houses[at].disk[&volume] {
            let empty = PartitionDigest { partition: track.partition(), tracks: 0, digest: [0; 16] };
            let of = digests.entry(track.partition()).or_insert(empty);
            of.tracks += 1;
            of.digest.iter_mut().zip(track.as_bytes()).for_each(|(sum, byte)| *sum ^= byte);
        }
        let track_bytes = self.houses[at].disk[&volume].len() as u64 * self.track_bytes;
        self.act(at, Input::VolumeUp { volume, digests: digests.into_values().collect(), track_bytes });
    }

    /// The process of a house ends, and the next one begins with what its drives have.
    pub(crate) fn restart(&mut self, at: usize) {
        let house = &self.houses[at];
        let bytes = house.core.history().map(|history| history.since(0).encode());
        let read = |bytes: Vec<u8>| History::from_batch(&Batch::decode(&bytes).expect("as it was")).expect("as it was");
        let kept = Kept {
            history: bytes.map(read),
            voter: house.durable.clone(),
            takedowns: house.takedowns.clone(),
            standing: house.standing,
        };
        self.houses[at].core = self.core(at, kept);
        (self.houses[at].halted, self.houses[at].unfit) = (false, None);
        self.begin(at);
    }

    /// The process of a house ends; its system drive is lost, or an old image of it comes back, without a voter's state.
    pub(crate) fn lose_system(&mut self, at: usize, old_image: bool) {
        let history = old_image.then(|| self.history.clone());
        self.houses[at].durable = None;
        self.houses[at].takedowns.clear();
        self.houses[at].core = self.core(at, Kept { history, ..Kept::default() });
        self.begin(at);
    }

    /// The process of a house ends before the epochs since the first are durable; a seat that it took is.
    pub(crate) fn lose_epochs(&mut self, at: usize) {
        let (history, voter) = (Some(self.history.clone()), self.houses[at].durable.clone());
        self.houses[at].core = self.core(at, Kept { history, voter, ..Kept::default() });
        self.begin(at);
    }

    /// The process of a house has ended: the log begins anew there without those that are lost, and the next one starts.
    pub(crate) fn refound(&mut self, at: usize, lost: &[usize]) {
        let (id, lost) = (self.id(at), lost.iter().map(|at| self.id(*at)).collect());
        let house = &mut self.houses[at];
        let known = house.core.history().expect("it has a map");
        let history = known.refound(house.durable.clone(), id, lost).expect("a good refounding");
        house.durable = history.state().seat_of(&id).map(|seat| Durable::founding(seat, &history));
        house.standing.counts = false;
        let (voter, takedowns, standing) = (house.durable.clone(), house.takedowns.clone(), house.standing);
        house.up = true;
        self.houses[at].core = self.core(at, Kept { history: Some(history), voter, takedowns, standing });
        self.begin(at);
    }

    /// A node that knows nobody but two addresses.
    pub(crate) fn add_house(&mut self) {
        self.build(self.houses.len(), Kept::default());
    }

    /// A second process of the same name.
    pub(crate) fn clone_house(&mut self, number: usize) {
        self.build(number, Kept { history: Some(self.history.clone()), ..Kept::default() });
    }

    fn later(&mut self, ms: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now + ms, self.sequence), event);
    }

    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            self.now = entry.key().0;
            match entry.remove() {
                Event::Message { from, to, envelope } => {
                    let (id, address) = (self.houses[from].node.id, self.houses[from].node.address.as_str().into());
                    self.act(to, Input::Message { from: id, address, envelope });
                }
                Event::Input { at, input } => self.act(at, input),
                Event::Wake { at } if self.houses[at].woken <= self.now => {
                    self.houses[at].woken = u64::MAX;
                    self.act(at, Input::Tick);
                }
                Event::Wake { .. } => {}
            }
        }
        self.now = end;
    }

    /// Takes a step, and gives what it wants done, which is done as well.
    pub(crate) fn step(&mut self, at: usize, input: Input) -> Vec<Effect> {
        let effects = self.houses[at].core.step(self.now, input);
        let erased = effects.iter().filter(|effect| matches!(effect, Effect::Erase { .. })).count();
        self.houses[at].erased_at_once = self.houses[at].erased_at_once.max(erased);
        for effect in effects.clone() {
            self.carry_out(at, effect);
        }
        self.set_alarm(at);
        let plain = |effect: &Effect| {
            matches!(effect, Effect::Go(_) | Effect::Refuse { .. } | Effect::Finish { .. } | Effect::TakenDown { .. })
        };
        effects.into_iter().filter(plain).collect()
    }

    fn act(&mut self, at: usize, input: Input) {
        if self.houses[at].up && !self.houses[at].halted {
            self.step(at, input);
        }
    }

    fn set_alarm(&mut self, at: usize) {
        let due = self.houses[at].core.next_deadline();
        if due < self.houses[at].woken {
            self.houses[at].woken = due;
            self.later(due.saturating_sub(self.now).max(1), Event::Wake { at });
        }
    }

    fn at(&self, to: &Destination) -> Vec<usize> {
        let is = |house: &House| match to {
            Destination::Node(id) => house.node.id == *id,
            Destination::At(id, address) => *house.node.address == **address && id.is_none_or(|id| id == house.node.id),
        };
        (0..self.houses.len()).filter(|at| is(&self.houses[*at])).collect()
    }

    fn carry_out(&mut self, at: usize, effect: Effect) {
        let answer = |village: &mut Self, input| village.later(1, Event::Input { at, input });
        match effect {
            Effect::Send { to, envelope } => {
                let bytes = envelope.encode();
                let envelope = Envelope::decode(&bytes).expect("what is sent can be read");
                let mut heard = self.at(&to);
                heard.retain(|to| self.cut.contains(to) == self.cut.contains(&at));
                for to in heard {
                    self.later(2, Event::Message { from: at, to, envelope: Box::new(envelope.clone()) });
                }
            }
            Effect::List { number, volume, partition } => {
                let of = |track: &&TrackId| track.partition() == partition;
                let tracks = self.houses[at].disk[&volume].iter().filter(of).copied().collect();
                answer(self, Input::Listed { number, tracks: Some(tracks) });
            }
            Effect::Pull(pull) => {
                let source = (0..self.houses.len()).find(|at| self.houses[*at].node.id == pull.node);
                let source = source.expect("a node of the village");
                let verb = Verb::Pull { from: self.houses[at].node.id, urgent: pull.urgent, bytes: 1_000 };
                let there = self.houses[source].disk[&pull.from].contains(&pull.track);
                let got = self.houses[source].up && self.ask(source, verb, pull.from, &pull.track).is_ok() && there;
                if got {
                    self.store(at, pull.volume, pull.track);
                }
                let result = if got { Ok(()) } else { Err(deadwax_dht::repair::PullError::Lacks) };
                answer(self, Input::Pulled { number: pull.number, bytes: 1_000, result });
            }
            Effect::Erase { volume, track, .. } => {
                let was_there = self.houses[at].disk.get_mut(&volume).expect("its own").remove(&track);
                answer(self, Input::Erased { volume, track, was_there });
            }
            Effect::TakeSeat(seat) => self.houses[at].durable = Some(Durable::joining(seat)),
            Effect::Persist { seat, step } => {
                let durable = self.houses[at].durable.as_mut().filter(|durable| durable.seat == seat);
                durable.expect("it has the seat").apply(&step);
                answer(self, Input::Persisted { seat, number: step.number });
            }
            Effect::DropSeat(seat) => _ = self.houses[at].durable.take_if(|durable| durable.seat == seat),
            Effect::Save(batch) => {
                let epoch = batch.records.last().map_or(0, |record| record.epoch);
                answer(self, Input::Saved { epoch });
            }
            Effect::Stand(standing) => self.houses[at].standing = standing,
            Effect::Append { number, records } => {
                self.houses[at].takedowns.extend(records);
                answer(self, Input::Appended { number });
            }
            Effect::ReadTakedowns { number, slots } => {
                let read = |slot: &u32| self.houses[at].takedowns[*slot as usize].clone();
                let records = slots.iter().map(read).collect();
                answer(self, Input::TakedownsRead { number, records: Some(records) });
            }
            Effect::Halt { .. } => self.houses[at].halted = true,
            Effect::Outdated(unfit) => {
                self.houses[at].halted = true;
                self.houses[at].unfit = Some(unfit);
            }
            Effect::Refuse { number, why } => _ = self.answers.insert(number, Err(why)),
            Effect::Finish { number, answer } => _ = self.answers.insert(number, Ok(answer)),
            Effect::Answer { number: TRIED, result } => self.outcome = Some(result),
            Effect::Answer { result, .. } => _ = result.expect("a good command"),
            Effect::Receipts { number, report } => _ = self.reports.insert(number, report),
            Effect::Spread { number, spread } => _ = self.spreads.insert(number, spread),
            Effect::Alarm(alarm) => self.alarms.push((at, alarm)),
            Effect::Go(_) | Effect::Told { .. } | Effect::Epochs { .. } | Effect::TakenDown { .. } => {}
        }
    }

    /// Makes a track durable, and says so.
    pub(crate) fn store(&mut self, at: usize, volume: VolumeId, track: TrackId) {
        if self.houses[at].disk.get_mut(&volume).expect("its own").insert(track) {
            self.act(at, Input::Stored { volume, track });
        }
    }

    /// A request, from its beginning to its end.
    pub(crate) fn ask(
        &mut self,
        at: usize,
        verb: Verb,
        volume: VolumeId,
        track: &TrackId,
    ) -> Result<Finished, Refused> {
        self.numbers += 1;
        let (number, epoch) = (self.numbers, self.houses[at].core.epoch());
        let request = Request { number, verb, volume, track: *track, epoch, deadline: self.now + 1_000 };
        self.act(at, Input::Request(request));
        if let Some(refused) = self.answers.remove(&number) {
            return refused;
        }
        let there = self.houses[at].disk[&volume].contains(track);
        let outcome = match verb {
            Verb::Put | Verb::StandIn => Done::Stored,
            Verb::Get | Verb::Pull { .. } if there => Done::Sent,
            Verb::Get | Verb::Pull { .. } => Done::NotHere,
        };
        self.act(at, Input::Done { number, outcome, bytes: 1_000 });
        self.answers.remove(&number).expect("a request that goes on ends")
    }

    pub(crate) fn leaders(&self) -> usize {
        let leads = |house: &&House| house.up && house.core.voter().is_some_and(deadwax_dht::log::Consensus::leads);
        self.houses.iter().filter(leads).count()
    }

    pub(crate) fn leader(&self) -> usize {
        let leads = |at: &usize| self.houses[*at].core.voter().is_some_and(deadwax_dht::log::Consensus::leads);
        (0..self.houses.len()).find(leads).expect("somebody leads")
    }

    pub(crate) fn command(&mut self, command: Command) {
        let leader = self.leader();
        self.act(leader, Input::Command { number: 1, command, forecast: false, time_ms: self.now });
    }

    /// Gives a command that may be refused, and does not wait for it.
    pub(crate) fn begin_command(&mut self, command: Command) {
        let leader = self.leader();
        self.act(leader, Input::Command { number: TRIED, command, forecast: false, time_ms: self.now });
    }

    /// Gives a command that may be refused, and 20 seconds for it.
    pub(crate) fn try_command(&mut self, command: Command) -> Result<Answer, CommandRefused> {
        self.ask_command(self.leader(), command)
    }

    /// The same, of this house.
    pub(crate) fn ask_command(&mut self, at: usize, command: Command) -> Result<Answer, CommandRefused> {
        self.give(at, command, false)
    }

    /// Asks the one that leads what a command would do.
    pub(crate) fn try_forecast(&mut self, command: Command) -> Result<Answer, CommandRefused> {
        self.give(self.leader(), command, true)
    }

    fn give(&mut self, at: usize, command: Command, forecast: bool) -> Result<Answer, CommandRefused> {
        self.act(at, Input::Command { number: TRIED, command, forecast, time_ms: self.now });
        self.run(20 * SECOND);
        self.outcome.take().expect("it is answered in time")
    }

    pub(crate) fn progress(&self) -> Option<Progress> {
        self.houses[self.leader()].core.progress()
    }

    /// The houses and volumes that are to have a track.
    pub(crate) fn holders(&self, track: &TrackId) -> Vec<(usize, VolumeId)> {
        let newest = self.houses.iter().max_by_key(|house| house.core.epoch()).expect("there are houses");
        let layout: &Arc<_> = newest.core.layout().expect("it has a map");
        let at = |volume: &VolumeId| self.houses.iter().position(|house| house.volumes.contains(volume));
        let holders = layout.sets(track.partition()).union();
        holders.iter().map(|holder| (at(&holder.volume).expect("in the village"), holder.volume)).collect()
    }

    /// How many of its holders that are up have a track.
    pub(crate) fn copies(&self, track: &TrackId) -> usize {
        let has =
            |(at, volume): &&(usize, VolumeId)| self.houses[*at].up && self.houses[*at].disk[volume].contains(track);
        self.holders(track).iter().filter(has).count()
    }

    /// How many volumes have a track that they are not to have.
    pub(crate) fn strays(&self, track: &TrackId) -> usize {
        let holders = self.holders(track);
        let all = self.houses.iter().flat_map(|house| &house.disk);
        let stray = |(volume, tracks): &(&VolumeId, &BTreeSet<TrackId>)| {
            tracks.contains(track) && !holders.iter().any(|(_, holder)| holder == *volume)
        };
        all.filter(stray).count()
    }

    pub(crate) fn id(&self, at: usize) -> NodeId {
        self.houses[at].node.id
    }
}
