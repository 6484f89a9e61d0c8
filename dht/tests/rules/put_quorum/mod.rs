//! Every order of everything that three holders can do in a put; in `sets.rs` a partition that moves, and stand-ins; in
//! `found.rs` what is acknowledged against what is found.

mod found;
mod sets;

use deadwax_dht::{Failure, FailureKind, Grace, Holder, Policy, PutQuorum, PutStep, Targets, Verdict, VolumeId};

const GRACE: Grace = Grace { well_ms: 100, suspect_ms: 10, stand_in_ms: 50 };
const POLICY: Policy = Policy { copies: 3, write_quorum: 2, zones_min: 2 };

fn holders(zones: [usize; 3]) -> Vec<Holder> {
    (0_u8..)
        .zip(zones)
        .map(|(n, zone)| Holder { node: n.into(), volume: VolumeId::from_bytes([n; 16]), zone })
        .collect()
}

/// A put that has asked all of its holders.
fn opened(holders: &[Holder], suspects: &[usize]) -> PutQuorum {
    let targets = Targets::new(1, holders, None, &[]);
    let mut put = PutQuorum::new(targets, &POLICY, suspects, GRACE, None);
    for target in 0..holders.len() {
        assert_eq!(put.poll(0), PutStep::Ask { target });
    }
    put
}

/// What the test itself knows of a holder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Nothing,
    Ready,
    /// Before the put began to send.
    Already,
    /// Of the bytes that the put sent.
    Durable,
    Failed(FailureKind),
}

const OPENING: [Told; 7] = [
    Told::Ready,
    Told::Already,
    Told::Failed(FailureKind::Unreachable),
    Told::Failed(FailureKind::NoSpace),
    Told::Failed(FailureKind::Busy),
    Told::Failed(FailureKind::Invalid),
    Told::Failed(FailureKind::TakenDown { number: 5 }),
];
const STREAMING: [Told; 4] = [
    Told::Durable,
    Told::Failed(FailureKind::Stalled),
    Told::Failed(FailureKind::NoSpace),
    Told::Failed(FailureKind::Invalid),
];

#[derive(Clone)]
struct Case {
    put: PutQuorum,
    /// The bytes went with the offers.
    at_once: bool,
    zones: [usize; 3],
    told: [Told; 3],
    now: u64,
    begun: bool,
    history: Vec<String>,
}

impl Case {
    fn new(zones: [usize; 3], at_once: bool) -> Self {
        let put = opened(&holders(zones), &[]);
        let put = if at_once { put.at_once() } else { put };
        Self { put, at_once, zones, told: [Told::Nothing; 3], now: 0, begun: false, history: vec![] }
    }

    /// Whether the holders that pass are a quorum, in as many zones as a put needs.
    fn enough(&self, wanted: impl Fn(Told) -> bool) -> bool {
        let mut zones: Vec<usize> = (0..3).filter(|index| wanted(self.told[*index])).map(|at| self.zones[at]).collect();
        let copies = zones.len();
        let (mut all, zones_min) = (self.zones.to_vec(), usize::from(POLICY.zones_min));
        for zones in [&mut all, &mut zones] {
            zones.sort_unstable();
            zones.dedup();
        }
        copies >= 2 && zones.len() >= zones_min.min(all.len())
    }

    fn tell(&mut self, holder: usize, what: Told) {
        self.history.push(format!("{holder}: {what:?}"));
        match what {
            Told::Nothing => {}
            Told::Ready => self.put.handle_ready(holder),
            Told::Already => self.put.handle_stored(holder, true),
            Told::Durable => self.put.handle_stored(holder, false),
            Told::Failed(kind) => self.put.handle_failed(holder, Failure::new(kind, "told so")),
        }
        self.told[holder] = what;
    }

    /// Asserts what must hold of the next step; true where the put goes on.
    fn step(&mut self) -> bool {
        let step = self.put.poll(self.now);
        self.history.push(format!("{step:?}"));
        let history = &self.history;
        let taken_down = self.told.contains(&Told::Failed(FailureKind::TakenDown { number: 5 }));
        let possible = self.enough(|told| !matches!(told, Told::Failed(_)));
        let has = |told: Told| matches!(told, Told::Already | Told::Durable);
        let durable = self.enough(has);
        let (ready, undecided) = (self.told.contains(&Told::Ready), self.told.contains(&Told::Nothing));
        let sendable = self.begun || self.at_once;
        let sent = self.told.contains(&Told::Durable) || (self.begun && !ready);
        match step {
            PutStep::Acknowledged { copies, .. } | PutStep::Already { copies, .. } => {
                assert!(durable && !taken_down, "{history:?}");
                assert_eq!(copies, self.told.iter().filter(|told| has(**told)).count(), "{history:?}");
                let acknowledged = matches!(step, PutStep::Acknowledged { .. });
                assert!(acknowledged == self.begun || (acknowledged && self.at_once), "{history:?}");
                assert!(!acknowledged || sent, "acknowledged before one of those sent to was: {history:?}");
                assert!(acknowledged || !ready, "a holder lacks its copy: {history:?}");
                let late = self.now >= GRACE.well_ms;
                assert!(acknowledged || !undecided || late, "a holder may lack its copy: {history:?}");
                false
            }
            PutStep::GiveUp(Verdict::TakenDown { number }) => {
                assert!(taken_down && number == 5, "{history:?}");
                false
            }
            PutStep::GiveUp(verdict) => {
                assert!(!possible && !taken_down, "given up although it could still succeed: {history:?}");
                let all = |kinds: &[FailureKind]| {
                    self.told.iter().all(|told| !matches!(told, Told::Failed(kind) if !kinds.contains(kind)))
                };
                let invalid = self.told.contains(&Told::Failed(FailureKind::Invalid));
                let expected = match () {
                    () if invalid => Verdict::Invalid,
                    () if all(&[FailureKind::NoSpace]) => Verdict::NoSpace,
                    () if all(&[FailureKind::NoSpace, FailureKind::Busy]) => Verdict::Busy,
                    () => Verdict::Unavailable,
                };
                assert_eq!(verdict, expected, "{history:?}");
                false
            }
            PutStep::Begin { to } => {
                assert!(!self.begun && possible && ready, "{history:?}");
                assert!(self.enough(|told| matches!(told, Told::Ready | Told::Already | Told::Durable)), "{history:?}");
                let ready: Vec<usize> = (0..3).filter(|index| self.told[*index] == Told::Ready).collect();
                assert_eq!(to, ready, "{history:?}");
                assert!(!undecided || self.now >= GRACE.well_ms, "began without waiting: {history:?}");
                for told in self.told.iter_mut().filter(|told| **told == Told::Nothing) {
                    *told = Told::Failed(FailureKind::Stalled);
                }
                self.begun = true;
                self.step()
            }
            PutStep::Ask { .. } | PutStep::Moved { .. } => panic!("all were asked, none moved: {history:?}"),
            PutStep::Wait { until } => {
                assert!(possible && !taken_down, "{history:?}");
                assert!(!(sendable && durable && sent), "waits although it is stored: {history:?}");
                let awaited = |told: &Told| *told == Told::Nothing || (sendable && *told == Told::Ready);
                assert!(self.told.iter().any(awaited), "waits for nobody: {history:?}");
                assert!(until.is_none_or(|until| until > self.now), "{history:?}");
                true
            }
        }
    }

    /// Everything that can happen from here; counts the ends.
    fn explore(mut self) -> u64 {
        if !self.step() {
            return 1;
        }
        let mut ends = 0;
        for holder in 0..3 {
            let next: &[Told] = match self.told[holder] {
                Told::Nothing => &OPENING,
                Told::Ready => &STREAMING,
                _ => &[],
            };
            let at_once = self.at_once && !self.begun && self.told[holder] == Told::Nothing;
            for what in next.iter().chain(at_once.then_some(&Told::Durable)) {
                // A holder becomes durable only once it was sent the bytes.
                if *what == Told::Durable && !self.begun && !self.at_once {
                    continue;
                }
                let mut case = self.clone();
                case.tell(holder, *what);
                ends += case.explore();
            }
        }
        if let PutStep::Wait { until: Some(until) } = self.put.poll(self.now) {
            self.history.push(format!("now {until}"));
            self.now = until;
            ends += self.explore();
        }
        ends
    }
}

#[test]
fn whatever_three_holders_do_the_rules_hold() {
    for (zones, at_once) in
        [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 2]].into_iter().flat_map(|z| [(z, false), (z, true)])
    {
        let ends = Case::new(zones, at_once).explore();
        assert!(ends > 4_000, "{ends} ways were explored");
    }
}

#[test]
fn a_track_sent_at_once_is_stored_when_a_quorum_has_it() {
    let mut put = opened(&holders([0; 3]), &[]).at_once();
    put.handle_stored(0, false);
    assert_eq!(put.poll(0), PutStep::Wait { until: None });
    let mut again = put.clone();
    put.handle_stored(2, false);
    assert_eq!(put.poll(0), PutStep::Acknowledged { copies: 2, zones: 1 }, "the other one has the bytes, too");
    again.handle_ready(1);
    assert_eq!(again.poll(0), PutStep::Wait { until: Some(100) }, "its drive is slow");
    again.handle_stored(1, false);
    assert_eq!(again.poll(0), PutStep::Acknowledged { copies: 2, zones: 1 });
}

#[test]
fn a_suspect_is_waited_for_but_briefly() {
    for (suspects, until) in [(&[][..], 100), (&[2], 10), (&[1], 100)] {
        let mut put = opened(&holders([0; 3]), suspects);
        put.handle_ready(0);
        assert_eq!(put.poll(0), PutStep::Wait { until: None });
        put.handle_ready(1);
        assert_eq!(put.poll(0), PutStep::Wait { until: Some(until) }, "{suspects:?}");
        assert_eq!(put.poll(until), PutStep::Begin { to: vec![0, 1] });
        assert_eq!(put.failures().map(|(index, _)| index).collect::<Vec<_>>(), [2]);
    }
}

#[test]
fn a_copy_more_after_the_acknowledgement_counts() {
    let mut put = opened(&holders([0, 0, 1]), &[]);
    (0..3).for_each(|holder| put.handle_ready(holder));
    assert_eq!(put.poll(0), PutStep::Begin { to: vec![0, 1, 2] });
    put.handle_stored(0, false);
    put.handle_stored(1, false);
    assert_eq!(put.poll(0), PutStep::Wait { until: None }, "two copies, but one zone");
    put.handle_stored(2, false);
    assert_eq!(put.poll(0), PutStep::Acknowledged { copies: 3, zones: 2 });
}

#[test]
fn a_cluster_smaller_than_the_quorum_gives_up_at_once() {
    let targets = Targets::new(1, &holders([0; 3])[..1], None, &[]);
    let mut put = PutQuorum::new(targets, &POLICY, &[], GRACE, None);
    assert_eq!(put.poll(0), PutStep::GiveUp(Verdict::Unavailable));
}

#[test]
fn a_holder_that_lacks_what_a_quorum_has_is_sent_it() {
    let mut put = opened(&holders([0; 3]), &[2]);
    put.handle_stored(0, true);
    put.handle_stored(1, true);
    assert_eq!(put.poll(0), PutStep::Wait { until: Some(10) }, "the third may lack it");
    let mut late = put.clone();
    assert_eq!(late.poll(10), PutStep::Already { copies: 2, zones: 1 });
    put.handle_ready(2);
    assert_eq!(put.poll(1), PutStep::Begin { to: vec![2] });
    assert_eq!(put.poll(1), PutStep::Wait { until: None });
    let mut failed = put.clone();
    failed.handle_failed(2, Failure::new(FailureKind::Stalled, "told so"));
    assert_eq!(failed.poll(2), PutStep::Acknowledged { copies: 2, zones: 1 });
    put.handle_stored(2, false);
    assert_eq!(put.poll(2), PutStep::Acknowledged { copies: 3, zones: 1 });
}
