//! A cluster without a network: its log, its planner, and which volume has which partition's data.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deadwax_dht::log::{Change, History, Proposal, Stage, State, Ticket, Transition};
use deadwax_dht::rebalance::{Answer, Command, Decision, Effect, Rebalance, Refused, Settings, Synced};
use deadwax_dht::{ClusterId, Map, MapSpec, Node, NodeId, PartitionBytes, Plan, Policy, Volume, VolumeId};
use deadwax_track::Partition;

pub(crate) use crate::random::Random;

pub(crate) const BYTES: PartitionBytes<'static> = PartitionBytes::Uniform(1);
/// Rounds after which a change must be done.
const ROUNDS_MAX: usize = 4_000;

/// A node with one volume, named by `dice`.
pub(crate) fn node(dice: &mut Random, zone: &str, weight: u32) -> Node {
    let name = *blake3::hash(&dice.next().to_le_bytes()).as_bytes();
    let volume = Volume { id: VolumeId::from_bytes(*name.first_chunk().expect("16 of 32 bytes")), weight };
    let id = NodeId::from_bytes(name);
    Node { id, zone: zone.to_owned(), rack: None, address: format!("{}:7800", id.short()), volumes: vec![volume] }
}

/// So many nodes in zones `a` and `b` in turn.
pub(crate) fn spec(dice: &mut Random, nodes: usize) -> MapSpec {
    let node = |at: usize| {
        let weight = dice.pick(&[1000, 1000, 2000]);
        node(dice, ["a", "b"][at % 2], weight)
    };
    let nodes = (0..nodes).map(node).collect();
    let cluster = ClusterId::from_bytes([0; 16]);
    MapSpec { version: 1, cluster, epoch: 1, policy: Policy::default(), nodes, overrides: vec![] }
}

/// Limits that let a change take few records.
pub(crate) fn fast() -> Settings {
    Settings { volume_moving_max: 4_096, moving_max: 4_096, ..Settings::default() }
}

pub(crate) struct World {
    pub(crate) what: String,
    pub(crate) dice: Random,
    pub(crate) settings: Settings,
    pub(crate) history: History,
    pub(crate) map: Arc<Map>,
    pub(crate) planner: Rebalance,
    pub(crate) now: u64,
    /// Which partitions each volume has the data of.
    data: BTreeMap<VolumeId, Vec<bool>>,
    /// Copies that travelled.
    pub(crate) pulled: u64,
    pub(crate) answers: BTreeMap<u64, Result<Answer, Refused>>,
    numbers: u64,
    /// Mischief in percent: lost decisions, late layouts, other leaders.
    pub(crate) mischief: u64,
    /// The next record that comes to be is not heard of.
    pub(crate) deaf: bool,
    /// Moves of more than one copy.
    pub(crate) wide: usize,
    /// Volumes that do not report.
    pub(crate) mute: BTreeSet<VolumeId>,
    /// Whether nodes know only the epoch before the newest.
    pub(crate) behind: bool,
    /// Nodes that are not there.
    pub(crate) away: BTreeSet<NodeId>,
    /// Seats in which nobody follows.
    pub(crate) lost: BTreeSet<u64>,
    /// Whether the leader knows it.
    pub(crate) knows: bool,
    /// The present process of each node.
    pub(crate) life: u64,
    /// The epoch at which readers of a partition turned to the new holders.
    turned: BTreeMap<Partition, u64>,
    /// The newest epoch that a volume's node said it knows.
    known: BTreeMap<VolumeId, u64>,
    /// When nodes were declared dead.
    buried: BTreeMap<VolumeId, u64>,
}

impl World {
    pub(crate) fn new(seed: u64, nodes: usize, settings: Settings) -> Self {
        let mut dice = Random(seed);
        let spec = spec(&mut dice, nodes);
        Self::of(format!("seed {seed}"), dice, spec, settings)
    }

    pub(crate) fn of(what: String, dice: Random, spec: MapSpec, settings: Settings) -> Self {
        let map = Map::settled(spec).expect("a good map");
        let voters = map.nodes()[..3].iter().map(|node| node.id).collect();
        let history = History::genesis(map.spec().clone(), voters).expect("a good genesis");
        let map = Arc::new(map);
        let planner = Rebalance::new(settings, 0, map.clone(), history.state().clone());
        let mut data = BTreeMap::<VolumeId, Vec<bool>>::new();
        for partition in 0..=u16::MAX {
            for holder in map.holders(Partition(partition)) {
                data.entry(holder.volume).or_insert_with(|| vec![false; 65_536])[usize::from(partition)] = true;
            }
        }
        Self {
            what,
            dice,
            settings,
            history,
            map,
            planner,
            now: 0,
            data,
            pulled: 0,
            answers: BTreeMap::new(),
            numbers: 0,
            mischief: 0,
            deaf: false,
            wide: 0,
            mute: BTreeSet::new(),
            behind: false,
            away: BTreeSet::new(),
            lost: BTreeSet::new(),
            knows: true,
            life: 1,
            turned: BTreeMap::new(),
            known: BTreeMap::new(),
            buried: BTreeMap::new(),
        }
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.history.state().clone()
    }

    pub(crate) fn command(&mut self, command: Command) -> u64 {
        self.numbers += 1;
        self.planner.command(self.numbers, command, self.now);
        self.numbers
    }

    /// What came of a command that is to be carried out now.
    pub(crate) fn done(&mut self, command: Command) -> Result<Answer, Refused> {
        let number = self.command(command);
        for _ in 0..100 {
            if let Some(answer) = self.answers.remove(&number) {
                return answer;
            }
            self.round();
        }
        panic!("{}: no answer after 100 rounds", self.what);
    }

    pub(crate) fn has(&self, volume: &VolumeId, partition: Partition) -> bool {
        self.data.get(volume).is_some_and(|has| has[usize::from(partition.0)])
    }

    fn set(&mut self, volume: &VolumeId, partition: Partition, has: bool) {
        let all = self.data.entry(*volume).or_insert_with(|| vec![false; 65_536]);
        all[usize::from(partition.0)] = has;
    }

    pub(crate) fn dead(&self) -> BTreeSet<VolumeId> {
        let state = self.history.state();
        let dead = state.spec().nodes.iter().filter(|node| state.dead().contains(&node.id));
        dead.flat_map(|node| &node.volumes).map(|volume| volume.id).collect()
    }

    /// Polls at the planner's next deadline, carries out what it wants, and lets new holders copy. Whether there was
    /// something to do, or is now.
    pub(crate) fn round(&mut self) -> bool {
        let deadline = self.planner.next_deadline();
        self.now = self.now.max(deadline.unwrap_or(self.now));
        self.settle_voters();
        self.planner.set_eligible(self.state().voters()[0].node, self.eligible(), self.idle());
        let effects = self.planner.poll(self.now, BYTES);
        let acted = !effects.is_empty();
        let mut later = Vec::new();
        for effect in effects {
            match effect {
                Effect::Answer { number, result } => _ = self.answers.insert(number, result),
                Effect::Propose { number, base, change } => {
                    let decision = self.decide(number, base, change);
                    if self.dice.percent(self.mischief) {
                        later.push((number, decision));
                    } else {
                        self.planner.decided(self.now, number, decision);
                    }
                }
            }
        }
        if self.dice.percent(self.mischief) {
            // Another leads, who knows the log alone; answers to operators are lost.
            self.layout();
            self.planner = Rebalance::new(self.settings, self.now, self.map.clone(), self.state());
            later.clear();
        }
        if !self.dice.percent(self.mischief) || !later.is_empty() {
            self.layout();
        }
        later.into_iter().for_each(|(number, decision)| self.planner.decided(self.now, number, decision));
        self.copy();
        self.tell();
        acted || deadline.is_some() || self.planner.next_deadline().is_some()
    }

    /// The log ends the time of two sets of voters by itself.
    fn settle_voters(&mut self) {
        if !self.history.state().outgoing().is_empty() && self.dice.percent(50) {
            let decision = self.decide(0, self.history.epoch(), Change::SettleVoters);
            assert!(!matches!(decision, Decision::Refused(_)), "{}: {decision:?}", self.what);
            self.layout();
        }
    }

    /// The nodes that are there, each with its process.
    fn eligible(&self) -> BTreeMap<NodeId, u64> {
        let nodes = self.history.state().spec().nodes.iter().map(|node| node.id);
        nodes.filter(|node| !self.away.contains(node)).map(|node| (node, self.life)).collect()
    }

    /// The voters that are not in their seats.
    fn idle(&self) -> Option<BTreeSet<NodeId>> {
        let voters = self.history.state().voters().iter();
        let idle = voters.filter(|voter| self.lost.contains(&voter.seat) || self.away.contains(&voter.node));
        self.knows.then(|| idle.map(|voter| voter.node).collect())
    }

    fn layout(&mut self) {
        if self.map.epoch() < self.history.epoch() {
            self.map = Arc::new(self.history.map().expect("every epoch has a good map"));
        }
        self.planner.set_layout(self.now, self.map.clone(), self.history.state().clone());
    }

    fn decide(&mut self, number: u64, base: u64, change: Change) -> Decision {
        if self.dice.percent(self.mischief / 2) {
            return Decision::Unknown;
        }
        let ticket = Ticket { node: NodeId::from_bytes([1; 32]), number };
        match self.history.decide(&Proposal { ticket, base, change }) {
            Err(refusal) => Decision::Refused(refusal),
            Ok(record) => {
                let before = self.state();
                self.history.append(&record).expect("what was decided can be taken");
                self.follow(&before, &record.change);
                let lost = self.dice.percent(self.mischief / 2) || std::mem::take(&mut self.deaf);
                if lost { Decision::Unknown } else { Decision::Record(record.epoch) }
            }
        }
    }

    /// What a record does to data, and whether it keeps the promises.
    fn follow(&mut self, before: &State, change: &Change) {
        let after = self.state();
        let (what, dead) = (format!("{}, epoch {}", self.what, after.epoch()), self.dead());
        match change {
            Change::Begin(moves) => {
                assert_eq!(before.spec().overrides, after.spec().overrides, "{what}: nothing moves yet");
                for each in moves {
                    assert!(self.is_narrow(&each.old, &each.new), "{what}: {each:?} could be narrower");
                    self.wide += usize::from(coming(&each.old, &each.new).count() > 1);
                    self.check_first(&each.old, each.partition, &dead, &what);
                }
            }
            Change::Advance { partitions, .. } => {
                let others = |state: &State| {
                    let named: BTreeSet<&Partition> = partitions.iter().collect();
                    let all = state.spec().overrides.iter().cloned();
                    all.filter(|over| !named.contains(&over.partition)).collect::<Vec<_>>()
                };
                assert!(others(before) == others(&after), "{what}: only what moved is pinned");
                for partition in partitions {
                    let each = &after.transitions()[partition];
                    self.check_first(&each.new, *partition, &dead, &what);
                    if each.stage == Stage::Synced {
                        self.check_first(&each.old, *partition, &dead, &what);
                        self.turned.insert(*partition, after.epoch());
                    } else {
                        let turned = self.turned[partition];
                        let unaware = |volume: &&VolumeId| self.known.get(*volume).is_none_or(|known| *known < turned);
                        let unaware = each.old.iter().filter(|volume| !self.is_silent(volume)).filter(unaware).count();
                        assert!(unaware < 2, "{what}: old holders can still call tracks absent");
                    }
                }
            }
            Change::Finish(partitions) | Change::Abort(partitions) => {
                for partition in partitions {
                    // Strays are erased where they can be.
                    let Transition { old, new, stage } = &before.transitions()[partition];
                    let gone = if *stage == Stage::Settled { coming(new, old) } else { coming(old, new) };
                    gone.copied().collect::<Vec<_>>().iter().for_each(|volume| self.set(volume, *partition, false));
                    let first = if *stage == Stage::Settled { new } else { old };
                    self.check_first(first, *partition, &dead, &what);
                }
            }
            Change::SetDead { node, dead } => self.bury(*node, *dead),
            Change::Reshape { spec } => {
                let maps = [before, &*after].map(|state| Map::new(state.spec().clone()).expect("a good map"));
                for partition in (0..=u16::MAX).map(Partition) {
                    let [was, is] = [&maps[0], &maps[1]].map(|map| holders(map, partition));
                    assert_eq!(was, is, "{what}: partition {} moved by a reshape", partition.0);
                }
                assert_eq!(before.transitions(), after.transitions(), "{what}");
                assert_eq!(spec.epoch, before.epoch());
            }
            Change::SetVoters(_) | Change::RenewSeats(_) | Change::SettleVoters => {
                assert_eq!(before.spec().nodes, after.spec().nodes, "{what}");
            }
            Change::SetLeaving { .. } | Change::SetAddress { .. } | Change::SetPolicy(_) => {
                assert_eq!(before.spec().overrides, after.spec().overrides, "{what}");
            }
            other => panic!("{what}: {other:?} is not the planner's"),
        }
    }

    /// A dead node's drives are lost. Who comes back is repaired at once.
    fn bury(&mut self, node: NodeId, dead: bool) {
        let volumes: Vec<VolumeId> = self
            .history
            .state()
            .spec()
            .nodes
            .iter()
            .find(|other| other.id == node)
            .expect("known")
            .volumes
            .iter()
            .map(|volume| volume.id)
            .collect();
        let map = self.history.map().expect("a good map");
        for volume in volumes {
            if dead {
                self.buried.insert(volume, self.now);
            } else {
                self.buried.remove(&volume);
            }
            for partition in (0..=u16::MAX).map(Partition) {
                let first = self.first(&map, partition);
                let lives = !dead && first.contains(&volume) && first.iter().any(|other| self.has(other, partition));
                self.set(&volume, partition, lives);
            }
        }
    }

    /// Whether a node is dead for so long that it calls nothing absent, if it lives and is cut off.
    fn is_silent(&self, volume: &VolumeId) -> bool {
        self.buried.get(volume).is_some_and(|at| self.now > at + self.settings.lease_ms)
    }

    fn first(&self, map: &Map, partition: Partition) -> Vec<VolumeId> {
        match self.history.state().transitions().get(&partition) {
            Some(_) => self.history.state().holders(partition).sets().next().expect("one set").to_vec(),
            None => map.holders(partition).iter().map(|holder| holder.volume).collect(),
        }
    }

    fn check_first(&self, first: &[VolumeId], partition: Partition, dead: &BTreeSet<VolumeId>, what: &str) {
        let mut live = first.iter().filter(|volume| !dead.contains(volume)).peekable();
        assert!(live.peek().is_some(), "{what}: nobody has partition {}", partition.0);
        for volume in live {
            assert!(self.has(volume, partition), "{what}: {volume} is asked for partition {}", partition.0);
        }
    }

    /// Whether a move has one new holder, or no set on the way keeps as many zones.
    fn is_narrow(&self, old: &[VolumeId], new: &[VolumeId]) -> bool {
        if coming(old, new).count() == 1 {
            return true;
        }
        let nodes = &self.history.state().spec().nodes;
        let at = |volume: &VolumeId| nodes.iter().find(|node| node.volumes.iter().any(|own| own.id == *volume));
        let zones =
            |set: &[VolumeId]| set.iter().filter_map(at).map(|node| node.zone.as_str()).collect::<BTreeSet<_>>().len();
        let apart = |set: &[VolumeId]| {
            set.iter().filter_map(at).map(|node| node.id).collect::<BTreeSet<_>>().len() == set.len()
        };
        let ways = coming(new, old).flat_map(|out| coming(old, new).map(move |into| (*out, *into)));
        let swapped = |(out, into)| old.iter().map(|each| if *each == out { into } else { *each }).collect::<Vec<_>>();
        let needed = zones(old).min(zones(new));
        !ways.map(swapped).any(|set| apart(&set) && zones(&set) >= needed && set != new)
    }

    /// New holders copy what they lack from whoever has it, and say so.
    fn copy(&mut self) {
        let (state, dead) = (self.state(), self.dead());
        let mut reports = BTreeMap::<VolumeId, Vec<Partition>>::new();
        for (partition, each) in state.transitions().iter().filter(|(_, each)| each.stage == Stage::Joint) {
            let source = each.old.iter().any(|volume| !dead.contains(volume) && self.has(volume, *partition));
            for volume in coming(&each.old, &each.new) {
                if !source || dead.contains(volume) || self.mute.contains(volume) {
                    continue;
                }
                if !self.has(volume, *partition) {
                    self.pulled += 1;
                    self.set(volume, *partition, true);
                }
                reports.entry(*volume).or_default().push(*partition);
            }
        }
        for (volume, partitions) in reports {
            if self.dice.percent(self.mischief) {
                continue;
            }
            self.planner.handle_synced(self.now, &Synced { volume, epoch: state.epoch(), partitions });
        }
    }

    /// Nodes say which epoch they know. Some know an old one, some are not heard.
    fn tell(&mut self) {
        let state = self.state();
        for node in state.spec().nodes.iter().filter(|node| !state.dead().contains(&node.id)) {
            let is_mute = node.volumes.iter().any(|volume| self.mute.contains(&volume.id));
            if is_mute || self.dice.percent(self.mischief) {
                continue;
            }
            let behind = self.dice.percent(self.mischief) || self.behind;
            let epoch = state.epoch() - u64::from(behind);
            for volume in &node.volumes {
                let known = self.known.entry(volume.id).or_default();
                *known = epoch.max(*known);
            }
            self.planner.handle_knows(self.now, node.id, epoch);
        }
    }

    /// Goes on until the planner has nothing to do, and checks that all is as it should be.
    pub(crate) fn settle(&mut self) {
        let mischief = std::mem::take(&mut self.mischief);
        let mut rounds = 0;
        while self.round() {
            rounds += 1;
            assert!(rounds < ROUNDS_MAX, "{}: no end; {:?}", self.what, self.planner.progress(self.now));
        }
        self.mischief = mischief;
        self.check_settled();
    }

    pub(crate) fn effective(&self) -> MapSpec {
        let state = self.history.state();
        let mut spec = MapSpec { overrides: vec![], ..state.spec().clone() };
        spec.nodes.retain(|node| !state.dead().contains(&node.id));
        for node in &mut spec.nodes {
            node.volumes.retain(|volume| !state.leaving().contains(&volume.id));
        }
        spec.nodes.retain(|node| !node.volumes.is_empty());
        spec
    }

    pub(crate) fn check_settled(&self) {
        let (state, what) = (self.history.state(), &self.what);
        assert!(state.transitions().is_empty(), "{what}: {} in motion", state.transitions().len());
        let spec = self.effective();
        let zone_of: BTreeMap<VolumeId, &str> =
            spec.nodes.iter().flat_map(|node| node.volumes.iter().map(|volume| (volume.id, &*node.zone))).collect();
        let zones = zone_of.values().collect::<BTreeSet<_>>().len().min(3);
        let (map, dead) = (self.history.map().expect("a good map"), self.dead());
        for partition in (0..=u16::MAX).map(Partition) {
            let holders = holders(&map, partition);
            let has: BTreeSet<&str> = holders.iter().filter_map(|volume| zone_of.get(volume).copied()).collect();
            assert_eq!(has.len(), zones, "{what}: zones of partition {}", partition.0);
            assert!(holders.iter().all(|volume| zone_of.contains_key(volume)), "{what}: the dead or leaving hold");
            let first: Vec<VolumeId> = holders.into_iter().collect();
            self.check_first(&first, partition, &dead, what);
        }
        let plan = Plan::onward(&map, spec, BYTES).expect("a good map");
        assert_eq!(plan.bytes_to_move(), 0, "{what}: something is left to move");
        for share in plan.shares().iter().filter(|share| share.copies_after > 0) {
            let fullness = share.fullness_ppm;
            assert!((980_000..=1_020_000).contains(&fullness), "{what}: {share:?}");
        }
    }
}

pub(crate) fn holders(map: &Map, partition: Partition) -> BTreeSet<VolumeId> {
    map.holders(partition).iter().map(|holder| holder.volume).collect()
}

/// Those of `new` that are not in `old`.
pub(crate) fn coming<'a>(old: &'a [VolumeId], new: &'a [VolumeId]) -> impl Iterator<Item = &'a VolumeId> + Clone {
    new.iter().filter(|volume| !old.contains(volume))
}
