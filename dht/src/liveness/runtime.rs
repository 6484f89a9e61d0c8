//! What foca asks of its surroundings: timers, datagrams out, and word of who came and went.

use std::collections::BTreeMap;
use std::time::Duration;

use foca::{Notification, Timer};

use super::datagram::PING;
use super::identity::Identity;
use crate::NodeId;

/// The most timers: one for each suspicion and a few more. foca asks for one a second at most and each lasts seconds,
/// so that no honest run comes near.
const TIMERS_MAX: usize = 1_024;
/// The most datagrams that one input may cause: a few, but for gossip.
const OUTBOX_MAX: usize = 256;

/// A node came or went, says SWIM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    Up(NodeId),
    Down(NodeId),
}

/// Collects what foca asks for during one call. Times are of the [`LivedClock`](super::contact::LivedClock).
#[derive(Debug, Default)]
pub(super) struct Runtime {
    pub(super) now: u64,
    /// By due time, then rank, then order of asking.
    timers: BTreeMap<(u64, u8, u64), Timer<Identity>>,
    asked: u64,
    /// The round of gossip, and when it is due: kept apart, as it does nothing where there are no news.
    gossip: Option<(u64, Timer<Identity>)>,
    /// The probe that is under way: whom, and its number.
    pub(super) probing: Option<(NodeId, u8)>,
    pub(super) outbox: Vec<(Identity, Vec<u8>)>,
    pub(super) events: Vec<Event>,
}

impl Runtime {
    /// The next timer that is due.
    pub(super) fn due(&mut self) -> Option<Timer<Identity>> {
        let entry = self.timers.first_entry()?;
        (entry.key().0 <= self.now).then(|| entry.remove())
    }

    /// The round of gossip, if it is due.
    pub(super) fn gossip_due(&mut self) -> Option<Timer<Identity>> {
        self.gossip.take_if(|(due, _)| *due <= self.now).map(|(_, timer)| timer)
    }

    /// The timer that asks others to probe, before it is due: the answer came, and the timer must only be heard.
    pub(super) fn take_indirect(&mut self) -> Option<Timer<Identity>> {
        let mut timers = self.timers.iter();
        let (&key, _) = timers.find(|(_, timer)| matches!(timer, Timer::SendIndirectProbe { .. }))?;
        self.timers.remove(&key)
    }

    /// When the next timer is due; where there are news, also those that spread them.
    pub(super) fn deadline(&self, has_news: bool) -> Option<u64> {
        let timer = self.timers.first_key_value().map(|(&(due, ..), _)| due);
        let gossip = self.gossip.as_ref().filter(|_| has_news).map(|(due, _)| *due);
        timer.into_iter().chain(gossip).min()
    }
}

impl foca::Runtime<Identity> for Runtime {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::MemberUp(member) => self.events.push(Event::Up(member.node)),
            Notification::MemberDown(member) => self.events.push(Event::Down(member.node)),
            // foca heeds none of its earlier timers from here on; and its tokens, a byte, come round again.
            Notification::Rejoin(_) | Notification::Idle | Notification::Defunct => {
                self.timers.clear();
                (self.gossip, self.probing) = (None, None);
            }
            Notification::Rename(..) | Notification::Active => {}
        }
    }

    fn send_to(&mut self, to: Identity, bytes: &[u8]) {
        if let [_, PING, number, ..] = *bytes {
            self.probing = Some((to.node, number));
        }
        if self.outbox.len() < OUTBOX_MAX {
            self.outbox.push((to, bytes.to_vec()));
        }
    }

    fn submit_after(&mut self, timer: Timer<Identity>, after: Duration) {
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        if matches!(timer, Timer::PeriodicGossip(_)) {
            self.gossip = Some((self.now.saturating_add(after_ms), timer));
        } else if self.timers.len() < TIMERS_MAX {
            // A late poll finds both of these due, and foca wants them in this order.
            let rank = u8::from(!matches!(timer, Timer::SendIndirectProbe { .. }));
            self.timers.insert((self.now.saturating_add(after_ms), rank, self.asked), timer);
            self.asked += 1;
        }
    }
}
