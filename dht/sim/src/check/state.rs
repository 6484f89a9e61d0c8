//! How every node stands, for people who look at a failure.

use std::fmt::Write as _;

use crate::trace::name;
use crate::world::{Role, World};

impl World {
    /// A line a node.
    pub(crate) fn state_text(&self) -> String {
        let mut text = String::new();
        for (number, host) in (0..).zip(&self.hosts).filter(|(_, host)| host.role != Role::Spare) {
            let _ = write!(text, "{} {}", name(number), host.id.short());
            let Some(core) = &host.core else {
                text += " is down\n";
                continue;
            };
            let state = if host.halted {
                " halted"
            } else if host.paused {
                " paused"
            } else {
                ""
            };
            let serves = if core.may_serve().is_ok() { "serves" } else { "stale" };
            let whole = if core.standing().intact { "whole" } else { "not whole" };
            let slots = core.takedown_log().slots();
            let _ = write!(text, "{state} epoch {} {serves}, {slots} takedowns {whole}", core.epoch());
            if let Some(voter) = core.voter() {
                let leads = if voter.leads() { " leads" } else { "" };
                let _ = write!(text, ", seat {}{leads} term {}", voter.seat(), voter.term());
            }
            if let Some(progress) = core.progress() {
                let _ = write!(text, ", {progress:?}");
            }
            text.push('\n');
        }
        text
    }
}
