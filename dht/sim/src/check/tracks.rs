//! What clients are told, beside what is so.

use deadwax_dht::{Layout, Verdict, VolumeId};
use deadwax_track::TrackId;

use super::Rule;
use crate::client::get::Outcome;
use crate::clock::{MINUTE, Micros, SECOND};
use crate::drive::{State, tag_of};
use crate::probe::Probe;
use crate::world::{Event, Host, World};

/// How long faults must be over, or touch one node only, before reads must succeed: 30 s for a get that began before,
/// as much again until gateways, leases and the failure detectors know.
const CALM: Micros = 90 * SECOND;

impl World {
    /// How many drives have a good copy.
    pub(crate) fn copies(&self, id: &TrackId) -> usize {
        let hosts = self.hosts.iter().filter(|host| host.is_member());
        hosts.flat_map(|host| &host.drives).filter(|drive| drive.has_good(id)).count()
    }

    /// Copies that a track must have that was acknowledged, less one where faults destroyed one.
    fn copies_due(&self, track: u32) -> usize {
        let quorum = usize::from(self.newest.state().spec().policy.write_quorum);
        quorum.min(self.hosts.len()) - self.struck(track)
    }

    /// `put_by`: the map by which the put was coordinated. Nodes that are cut off from a change take writes by the one before.
    pub(crate) fn check_acknowledged(&mut self, track: u32, put_by: &Layout) {
        let known = self.oracle.get(track);
        let (copies, due) = (self.copies(&known.id), self.copies_due(track));
        if known.takedown_asked.is_none() && copies < due {
            self.checks
                .violate(Rule::Durable, format!("track {track} is acknowledged with {copies} durable copies of {due}"));
        }
        let layout = self.layout();
        self.check_first_set(&layout, track, "is acknowledged");
        self.check_zones(put_by, track);
        self.owe_those_away(&layout, track);
    }

    /// An erasure must leave enough.
    pub(crate) fn check_erased(&mut self, host: u32, volume: &VolumeId, track: u32, barred: bool) {
        if track == u32::MAX {
            return;
        }
        let known = self.oracle.get(track);
        let asked = known.takedown_asked.is_some();
        if barred && !asked {
            self.checks.violate(
                Rule::NoTakedownInvented,
                format!("n{host} erased track {track} for a takedown that nobody made"),
            );
        } else if !barred && !asked && known.acked.is_some() {
            let (copies, due) = (self.copies(&known.id), self.copies_due(track));
            if copies < due {
                let text = format!("n{host} erased track {track} from {volume}: {copies} copies are left of {due}");
                self.checks.violate(Rule::Needed, text);
            }
            self.check_released(host, track);
        }
    }

    /// Whether so few nodes have been touched by faults since `began` that none of it may be seen by a read: also while
    /// partitions move, since either set has what was acknowledged, and while a command is carried out. A node that lost its
    /// takedowns is touched until it has them again, for which it may need all others.
    fn is_calm(&self, began: Micros, nodes: usize) -> bool {
        let since = began.saturating_sub(CALM);
        let is_whole = |host: &Host| host.is_up() && host.core.as_ref().is_some_and(|core| core.standing().intact);
        let touched = self.hosts.iter().filter(|host| host.is_member());
        let touched = touched.filter(|host| host.faults > 0 || host.well_since > since || !is_whole(host)).count();
        self.network.is_whole() && self.faults.whole_since <= since && touched <= nodes && began > MINUTE
    }

    /// Whether nothing moves and no command is under way: a put that begins at one epoch may be told of others until it gives up.
    fn is_still(&self) -> bool {
        self.operator.open().next().is_none() && self.newest.state().transitions().is_empty()
    }

    pub(crate) fn check_put_failed(&mut self, verdict: &Verdict, began: Micros, track: u32) {
        if matches!(verdict, Verdict::TakenDown { .. }) && self.oracle.get(track).takedown_asked.is_some() {
            return;
        }
        if self.clients.few && matches!(verdict, Verdict::Busy | Verdict::Unavailable) {
            return;
        }
        if self.is_calm(began, 0)
            && self.is_still()
            && !self.faults.destroyed
            && self.oracle.get(track).takedown_asked.is_none()
        {
            self.checks.violate(Rule::Writable, format!("a put of track {track} failed in calm: {verdict:?}"));
        }
    }

    /// Somebody takes bytes for a track's: they are, and go on where the last ended (`due`).
    pub(crate) fn check_bytes(&mut self, track: u32, (due, offset): (u64, u64), tag: u64) {
        if tag != tag_of(&self.oracle.get(track).id) {
            self.checks.violate(Rule::Bytes, format!("bytes of another track were taken for those of track {track}"));
        }
        if due != offset {
            let text = format!("bytes from {offset} on were taken for those of track {track} from {due} on");
            self.checks.violate(Rule::Bytes, text);
        }
    }

    pub(crate) fn check_read(&mut self, track: u32, outcome: Outcome, taken: u64, op: (Micros, bool, bool)) {
        let (began, known_before, must) = op;
        let known = self.oracle.get(track).clone();
        let asked = known.takedown_asked.is_some();
        match outcome {
            Outcome::Bytes => {
                if taken != known.bytes {
                    let text = format!("a get of track {track} ended well with {taken} bytes of {}", known.bytes);
                    self.checks.violate(Rule::Bytes, text);
                }
                let moves = self.newest.state().transitions().contains_key(&known.id.partition());
                if moves && self.is_calm(began, 1) {
                    self.hit(Probe::GetsMoving);
                }
            }
            Outcome::NotFound if known_before && !asked => {
                self.checks
                    .violate(Rule::NoFalseAbsent, format!("track {track} was acknowledged, and is said to be absent"));
            }
            Outcome::NotFound => {}
            Outcome::Failed(Verdict::TakenDown { .. }) if !asked => {
                self.checks.violate(
                    Rule::NoTakedownInvented,
                    format!("track {track} is said to be taken down, which nobody did"),
                );
            }
            Outcome::Failed(verdict) => {
                if self.clients.few && matches!(verdict, Verdict::Busy | Verdict::Unavailable) {
                    return self.again(track, must);
                }
                let calm = must || (self.is_calm(began, 1) && self.struck(track) == 0);
                if known_before && !asked && calm {
                    let copies = self.copies(&known.id);
                    let rule = if must { Rule::ReadableAfterHealing } else { Rule::Readable };
                    let text =
                        format!("track {track}, of which there are {copies} copies, cannot be read: {verdict:?}");
                    self.checks.violate(rule, text);
                }
            }
        }
    }

    /// Where nodes take on little, a read that must succeed is tried until it does, or fails otherwise.
    fn again(&mut self, track: u32, must: bool) {
        if must {
            let gateway = self.clients.random.below(self.clients.gateways.len() as u64);
            let gateway = u32::try_from(gateway).expect("few gateways");
            self.clients.musts += 1;
            self.queue.push(self.now + SECOND, Event::Again { gateway, track });
        }
    }

    /// Every volume that may be asked.
    pub(crate) fn where_is(&self, id: &TrackId) -> String {
        let mut text = String::new();
        for (number, host) in self.hosts.iter().enumerate() {
            for drive in &host.drives {
                if let Some(copy) = drive.tracks.get(id) {
                    let rot = if copy.is_good(id) { "" } else { " rotten" };
                    let state = if drive.state == State::Serving { "" } else { " out" };
                    let told = if copy.told { "" } else { " untold" };
                    text += &format!(" n{number}:{}{rot}{state}{told}", &drive.id.to_string()[..4]);
                }
            }
        }
        text
    }
}
