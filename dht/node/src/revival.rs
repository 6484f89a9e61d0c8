//! Volumes that were fenced because their drives hung, or were too slow, come back by themselves.
//!
//! Drives stand still for some seconds for reasons that pass: a controller is reset, a virtual machine moves, another
//! guest takes all there is. Where several nodes share what stood still they give up their volumes at once, and an operator
//! would have to wake up for what is over. So the drive is probed: once a block is written there, flushed and read as fast
//! as it should be, the volume is closed and opened again as SIGHUP does it. What was in flight is not trusted: the volume is
//! recovered, and as long as a change from before is under way it is locked, so that opening it fails and is tried again.
//! What is gone, another's or damaged waits for an operator.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use deadwax_dht::VolumeId;

use crate::events::{Event, Events};
use crate::executor::Command;
use crate::run::send_all;
use crate::shard::{Node, NodeVolume, Trouble};
use crate::{Error, layout, reload};

/// How often it is looked for such volumes.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// How long such a volume rests before its drive is probed, and how long between probes.
const REST_MIN: Duration = Duration::from_secs(5);
/// A volume that is given up again rests twice as long as before, up to this: one that comes and goes costs its node
/// comparisons with all others each time.
const REST_MAX: Duration = Duration::from_secs(320);
/// After how much time in service it counts as sound again.
const SOUND_AFTER: Duration = Duration::from_secs(3600);
/// A drive that takes longer for a block is still too slow: the engine holds an operation of a second for slow.
const PROBE_TIME_MAX: Duration = Duration::from_secs(1);

/// How a drive does: which volume it has, or why not, and how long it took to say.
pub(crate) struct Probed {
    number: usize,
    volume: Arc<NodeVolume>,
    outcome: Result<VolumeId, Error>,
    took: Duration,
}

/// What is known of the volumes whose drives hung, by number.
pub(crate) struct Revival {
    events: flume::Sender<Event>,
    volumes: BTreeMap<usize, Patience>,
    /// See [`Layout::unsettled`](crate::layout::Layout).
    unsettled: Option<Vec<(PathBuf, Error)>>,
}

impl Revival {
    pub(crate) const fn new(events: flume::Sender<Event>, unsettled: Option<Vec<(PathBuf, Error)>>) -> Self {
        Self { events, volumes: BTreeMap::new(), unsettled }
    }

    /// Where the node started without the log by which it goes, and that has come: fences the volumes that it lacks, so that
    /// they are seen, and come back as any other.
    pub(crate) fn settle(&mut self, node: &Node, commands: &[flume::Sender<Command>], events: &mut Events) {
        let Some((failed, history)) = self.unsettled.as_ref().zip(node.history()) else { return };
        // It may be of an epoch before the node's own.
        let Ok(missing) = layout::missing(node, &history, failed) else { return };
        self.unsettled = None;
        for volume in missing {
            let number = node.volumes().len();
            node.set_volume(number, Arc::new(volume));
            send_all(commands, &Command::Open(number));
            events.all_changed(commands.len());
        }
    }

    /// Looks at all volumes, and has the drives probed whose time has come. Call it each [`TICK`].
    pub(crate) fn tick(&mut self, node: &Node, now: Instant) {
        for (number, volume) in node.volumes().into_iter().enumerate() {
            match volume.trouble() {
                Some(Trouble::Hung(_)) => {
                    let patience = self.volumes.entry(number).or_insert_with(Patience::new);
                    if patience.hangs(now) {
                        probe(number, volume, node, self.events.clone());
                    }
                }
                Some(Trouble::Out(_) | Trouble::Retired) => drop(self.volumes.remove(&number)),
                None | Some(Trouble::ReadOnly(_)) => {
                    if let Some(patience) = self.volumes.get_mut(&number) {
                        patience.serves(now);
                    }
                }
            }
        }
    }

    /// Opens the volume again, where its drive is as it should be.
    pub(crate) fn probed(
        &mut self,
        node: &Node,
        commands: &[flume::Sender<Command>],
        events: &mut Events,
        probed: Probed,
    ) {
        let Probed { number, volume, outcome, took } = probed;
        if let Some(patience) = self.volumes.get_mut(&number) {
            patience.rests(Instant::now());
        }
        let hangs = matches!(volume.trouble(), Some(Trouble::Hung(_)));
        if !hangs || !Arc::ptr_eq(&volume, &node.at(number)) || !is_given(node, &volume.id) {
            // An operator was faster.
            return;
        }
        let dir = volume.dir.display();
        match outcome {
            Ok(id) if id == volume.id && took <= PROBE_TIME_MAX => {}
            Ok(id) => return tracing::info!(volume = %volume.id, found = %id, ?took, %dir, "the volume stays fenced"),
            Err(why) => return tracing::info!(volume = %volume.id, %why, ?took, %dir, "the volume stays fenced"),
        }
        tracing::info!(volume = %volume.id, %dir, ?took, "the drive answers again: the volume is opened");
        reload::close(node, commands, events, number);
        if reload::open(node, &node.config, commands, events, (number, volume.id, volume.dir.clone())) {
            node.counters.volumes_revived.add(1);
        }
        // Where it hangs still, or again, it has come and gone.
        if let Some(patience) = self.volumes.get_mut(&number) {
            patience.serves(Instant::now());
        }
    }
}

/// Writes, flushes and reads a block, on a thread of its own, which stays behind where the drive hangs: there is no other
/// for this volume before that has ended.
fn probe(number: usize, volume: Arc<NodeVolume>, node: &Node, events: flume::Sender<Event>) {
    let id = node.id;
    let probing = thread::Builder::new().name("probe".into()).spawn(move || {
        let began = Instant::now();
        let outcome = layout::probe(&volume.dir, &id);
        // Where the node is stopping nobody wants to know.
        drop(events.send(Event::Probed(Probed { number, volume, outcome, took: began.elapsed() })));
    });
    if let Err(why) = probing {
        tracing::error!(%why, "cannot start a thread to probe a drive: its volume stays fenced until SIGHUP");
    }
}

/// Where the map is by a log it may have taken the volume from the node meanwhile.
fn is_given(node: &Node, volume: &VolumeId) -> bool {
    let Some(history) = node.history() else { return true };
    let mapped = layout::mapped(&node.config, &node.id, Some(&history));
    mapped.is_ok_and(|mapped| mapped.volumes.contains(volume))
}

/// How long to leave a volume alone whose drive hung.
#[derive(Debug)]
struct Patience {
    rest: Duration,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// It has just been found to hang, for the first time.
    New,
    /// Its drive is probed then.
    Rests {
        until: Instant,
    },
    /// Its drive is being probed.
    Probing,
    Serves {
        since: Instant,
    },
}

impl Patience {
    const fn new() -> Self {
        Self { rest: REST_MIN, state: State::New }
    }

    /// The volume is out because its drive hung. Whether the drive is to be probed now.
    fn hangs(&mut self, now: Instant) -> bool {
        match self.state {
            State::New => {}
            State::Serves { since } if now.duration_since(since) >= SOUND_AFTER => self.rest = REST_MIN,
            State::Serves { .. } => self.rest = (self.rest * 2).min(REST_MAX),
            State::Rests { until } if now >= until => {
                self.state = State::Probing;
                return true;
            }
            State::Rests { .. } | State::Probing => return false,
        }
        self.state = State::Rests { until: now + self.rest };
        false
    }

    /// The probe has ended: the next one, where there is to be one.
    fn rests(&mut self, now: Instant) {
        self.state = State::Rests { until: now + REST_MIN };
    }

    /// The volume serves.
    const fn serves(&mut self, now: Instant) {
        if !matches!(self.state, State::Serves { .. }) {
            self.state = State::Serves { since: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds that a volume rests which hangs from now on.
    fn rest_s(patience: &mut Patience, now: Instant) -> u64 {
        (0..).find(|seconds| patience.hangs(now + Duration::from_secs(*seconds))).expect("it is probed by and by")
    }

    #[test]
    fn a_volume_that_comes_and_goes_rests_longer_each_time_until_it_was_sound_for_an_hour() {
        let (mut patience, mut now) = (Patience::new(), Instant::now());
        let mut rests = Vec::new();
        for _ in 0..8 {
            rests.push(rest_s(&mut patience, now));
            now += Duration::from_secs(1000);
            assert!(!patience.hangs(now), "one probe at a time, however long it takes");
            patience.serves(now);
            now += Duration::from_secs(60);
        }
        assert_eq!(rests, [5, 10, 20, 40, 80, 160, 320, 320]);
        patience.serves(now + SOUND_AFTER / 2);
        assert_eq!(rest_s(&mut patience, now + SOUND_AFTER), 5, "it has served all the time");
    }

    #[test]
    fn a_drive_that_does_not_answer_well_is_probed_again_soon() {
        let (mut patience, now) = (Patience::new(), Instant::now());
        rest_s(&mut patience, now);
        for _ in 0..100 {
            patience.rests(now);
            assert_eq!(rest_s(&mut patience, now), 5);
        }
    }
}
