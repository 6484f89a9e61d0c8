//! Faults of wires.

use super::{Active, FaultKind};
use crate::clock::{MILLI, MINUTE, Micros, SECOND};
use crate::network::{Act, Reach};
use crate::trace::GATEWAY;
use crate::world::World;

/// Who is cut off for longer may be declared dead, which takes 30 minutes: other faults may follow on this one.
const MORTAL: Micros = 25 * MINUTE;

impl World {
    pub(super) fn begin_network(&mut self, active: &mut Active, lasts: Micros) -> bool {
        let Some((reach, act)) = self.network_fault(active.kind, lasts) else { return false };
        if let Reach::Some(one, others) = &reach
            && others.len() + 1 == self.members().len()
            && self.faults.random.percent(70)
        {
            self.take_down_what(*one);
        }
        active.rules.push(self.network.add(reach, act));
        true
    }

    fn network_fault(&mut self, kind: FaultKind, lasts: Micros) -> Option<(Reach, Act)> {
        let mut members = self.members();
        // All that the dead hold moves, and back: of a small cluster's heavy nodes that is nearly all there is.
        let mortal = lasts > MORTAL && !self.topology.is_large();
        let light = if mortal { self.light() } else { Vec::new() };
        let random = &mut self.faults.random;
        let one = random.pick(if light.is_empty() { &members } else { &light })?;
        members.retain(|host| *host != one);
        let other = random.pick(&members)?;
        let chance = random.between(5_000, 200_000);
        let wide = if random.percent(60) { Reach::All } else { Reach::Host(one) };
        Some(match kind {
            FaultKind::Drop => (wide, Act::Drop(chance)),
            FaultKind::Duplicate => (wide, Act::Double(chance)),
            FaultKind::Reorder => (wide, Act::Reorder(chance)),
            FaultKind::Delay => (wide, Act::Delay(random.between(20, 900) * MILLI)),
            FaultKind::Jitter => (wide, Act::Jitter(random.between(20, 900) * MILLI)),
            FaultKind::Corrupt => (wide, Act::Corrupt(chance / 4)),
            FaultKind::Reset => (wide, Act::Reset(chance * 2)),
            FaultKind::OneWayCut => match random.below(3) {
                0 => (Reach::Link(one, other), Act::Cut),
                1 => (Reach::From(one), Act::Cut),
                _ => (Reach::To(one), Act::Cut),
            },
            FaultKind::PairCut => (Reach::Pair(one, other), Act::Cut),
            FaultKind::Isolated => (Reach::Host(one), Act::Cut),
            FaultKind::PartlyCut => {
                // All others, as a rule: clients still reach it, and nobody else does.
                let all = random.percent(60);
                members.retain(|_| all || random.percent(50));
                (Reach::Some(one, members), Act::Cut)
            }
            FaultKind::ZoneSplit => {
                let zone = self.hosts[one as usize].zone;
                let ours = (0..).zip(&self.hosts).filter(|(_, host)| host.zone == zone).map(|(at, _)| at);
                let gateways = (GATEWAY..).zip(&self.clients.gateways).filter(|(_, gateway)| gateway.zone == zone);
                (Reach::Across(ours.chain(gateways.map(|(at, _)| at)).collect()), Act::Cut)
            }
            FaultKind::RandomSplit => {
                members.retain(|_| random.percent(50));
                members.push(one);
                members
                    .extend((GATEWAY..).zip(&self.clients.gateways).map(|(at, _)| at).filter(|_| random.percent(50)));
                members.sort_unstable();
                (Reach::Across(members), Act::Cut)
            }
            FaultKind::Flapping => {
                let period = random.between(2, 20) * SECOND;
                (Reach::Host(one), Act::Flap { period, up: period * random.between(2, 8) / 10 })
            }
            FaultKind::SlowLink => (Reach::Host(one), Act::Slow(random.between(20, 2_000))),
            FaultKind::GatewayCut => {
                let gateway = random.below(self.clients.gateways.len() as u64);
                (Reach::Host(GATEWAY + u32::try_from(gateway).expect("few gateways")), Act::Cut)
            }
            _ => return None,
        })
    }
}
