//! The wires between hosts: how long things take, what is lost on the way, and who cannot hear whom.
//!
//! Two kinds of traffic. *Messages* between cores may be lost, doubled and overtake each other, as over a connection that
//! breaks and is made anew. *Flows* are requests with their bytes, over one connection each: what is lost is sent again and
//! so comes late; behind a cut nothing comes.

mod rule;

pub(crate) use self::rule::{Act, Reach, Rule};
use crate::clock::{MILLI, Micros};
use crate::random::Random;
use crate::trace::GATEWAY;

/// What a byte a microsecond is worth: 10 Gbit/s is 1,250 of them.
const BYTES_PER_MICRO: u64 = 1_000;
/// TCP sends again what was lost, after this.
const RESEND: Micros = 200 * MILLI;

/// What becomes of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Fate {
    /// When it comes, from now; none: never.
    pub(crate) after: Option<Micros>,
    /// When it comes again.
    pub(crate) again: Option<Micros>,
    /// One of its bits flips on the way.
    pub(crate) corrupt: bool,
    /// It was held back, so that others overtake it.
    pub(crate) held: bool,
}

/// All wires.
#[derive(Debug)]
pub(crate) struct Network {
    random: Random,
    /// Half a round trip between two zones.
    latency: Vec<Vec<Micros>>,
    rules: Vec<Rule>,
    next_rule: u32,
}

impl Network {
    pub(crate) fn new(seed: u64, zones: usize) -> Self {
        let mut random = Random::stream(seed, 0x4e37);
        let pairs = (0..zones).flat_map(|one| (0..=one).map(move |other| (one, other)));
        let mut latency = vec![vec![0; zones]; zones];
        for (one, other) in pairs {
            let far = if one == other { random.between(80, 400) } else { random.between(1, 25) * MILLI };
            (latency[one][other], latency[other][one]) = (far, far);
        }
        Self { random, latency, rules: Vec::new(), next_rule: 0 }
    }

    /// A fault begins. The answer names it for [`remove`](Self::remove).
    pub(crate) fn add(&mut self, reach: Reach, act: Act) -> u32 {
        self.next_rule += 1;
        self.rules.push(Rule { name: self.next_rule, reach, act });
        self.next_rule
    }

    pub(crate) fn remove(&mut self, name: u32) {
        self.rules.retain(|rule| rule.name != name);
    }

    /// Whether a fault cuts this wire, be it again and again.
    pub(crate) fn is_cut_by(&self, name: u32, (from, to): (u32, u32)) -> bool {
        let cuts = |rule: &Rule| matches!(rule.act, Act::Cut | Act::Flap { .. }) && rule.reach.covers(from, to);
        self.rules.iter().any(|rule| rule.name == name && cuts(rule))
    }

    pub(crate) fn heal(&mut self) {
        self.rules.clear();
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.rules.is_empty()
    }

    fn base(&mut self, zones: (usize, usize)) -> Micros {
        let latency = self.latency[zones.0][zones.1];
        latency + self.random.below(latency / 8 + 1)
    }

    /// What becomes of a message.
    pub(crate) fn message(&mut self, now: Micros, (from, to): (u32, u32), zones: (usize, usize)) -> Fate {
        let mut after = self.base(zones);
        let mut fate = Fate::default();
        if self.rules.is_empty() {
            fate.after = Some(after);
            return fate;
        }
        let Self { random, rules, .. } = self;
        let mut again = false;
        for rule in rules.iter().filter(|rule| rule.reach.covers(from, to)) {
            match rule.act {
                Act::Cut => return Fate::default(),
                Act::Flap { period, up } if now % period >= up => return Fate::default(),
                Act::Drop(chance) if random.million(chance) => return Fate::default(),
                Act::Double(chance) => again |= random.million(chance),
                Act::Reorder(chance) if random.million(chance) => {
                    after += random.between(1, 400) * MILLI;
                    fate.held = true;
                }
                Act::Delay(more) => after += more,
                Act::Jitter(most) => after += random.below(most),
                Act::Corrupt(chance) => fate.corrupt |= random.million(chance),
                _ => {}
            }
        }
        fate.after = Some(after);
        fate.again = again.then(|| after + random.below(500) * MILLI);
        fate
    }

    /// When what a flow sends arrives, from now; none: never. `bytes`: what goes with it.
    pub(crate) fn flow(
        &mut self,
        now: Micros,
        (from, to): (u32, u32),
        zones: (usize, usize),
        bytes: u64,
    ) -> Option<Micros> {
        let mut after = self.base(zones) + bytes / BYTES_PER_MICRO;
        if self.rules.is_empty() {
            return Some(after);
        }
        let Self { random, rules, .. } = self;
        for rule in rules.iter().filter(|rule| rule.reach.covers(from, to)) {
            match rule.act {
                Act::Cut => return None,
                Act::Flap { period, up } if now % period >= up => return None,
                Act::Drop(chance) => {
                    while random.million(chance.min(700_000)) {
                        after += RESEND;
                    }
                }
                Act::Delay(more) => after += more,
                Act::Jitter(most) => after += random.below(most),
                Act::Slow(times) => after += bytes / BYTES_PER_MICRO * times,
                _ => {}
            }
        }
        Some(after)
    }

    /// Whether a connection breaks while bytes go over it.
    pub(crate) fn breaks(&mut self, (from, to): (u32, u32)) -> bool {
        let Self { random, rules, .. } = self;
        let mut breaks = false;
        for rule in rules.iter().filter(|rule| rule.reach.covers(from, to)) {
            if let Act::Reset(chance) | Act::Corrupt(chance) = rule.act {
                breaks |= random.million(chance);
            }
        }
        breaks
    }
}

/// Whether this is a gateway.
pub(crate) const fn is_gateway(host: u32) -> bool {
    host >= GATEWAY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_of_one_direction_leaves_the_other() {
        let mut network = Network::new(1, 2);
        let cut = network.add(Reach::Link(1, 2), Act::Cut);
        assert_eq!(network.message(0, (1, 2), (0, 1)).after, None);
        assert_eq!(network.flow(0, (1, 2), (0, 1), 9), None);
        assert!(network.message(0, (2, 1), (0, 1)).after.is_some());
        network.remove(cut);
        assert!(network.is_whole() && network.message(0, (1, 2), (0, 1)).after.is_some());
    }

    #[test]
    fn a_partition_cuts_what_crosses_it() {
        let mut network = Network::new(2, 1);
        network.add(Reach::Across(vec![1, 3]), Act::Cut);
        let mut hears = |from, to| network.message(0, (from, to), (0, 0)).after.is_some();
        assert!(hears(1, 3) && hears(2, 4) && !hears(1, 2) && !hears(4, 3));
    }

    #[test]
    fn lost_bytes_of_a_flow_come_late_and_those_of_a_message_never() {
        let mut network = Network::new(3, 1);
        network.add(Reach::All, Act::Drop(500_000));
        let lost = (0..1_000).filter(|_| network.message(0, (1, 2), (0, 0)).after.is_none()).count();
        assert!((400..600).contains(&lost), "{lost}");
        let late =
            (0..1_000).filter(|_| network.flow(0, (1, 2), (0, 0), 10).is_some_and(|after| after > RESEND)).count();
        assert!((400..600).contains(&late), "{late}");
    }
}
