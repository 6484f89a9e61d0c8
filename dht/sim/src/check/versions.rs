//! What is sent and decided is of a version that its receiver speaks.

use deadwax_dht::core::{Envelope, Message};
use deadwax_dht::wire::Unfit;

use super::Rule;
use crate::world::{Role, World};

impl World {
    /// A message arrives at a process.
    pub(crate) fn check_version(&mut self, host: u32, envelope: &Envelope) {
        let newest = self.hosts[host as usize].protocols.newest();
        let since = match &envelope.message {
            Message::Epochs(batch) => batch.records.iter().map(|record| record.change.since()).max().unwrap_or(0),
            message => message.since(),
        };
        if since > newest {
            let text = format!("n{host}, which speaks {newest}, is sent what came with protocol {since}: {envelope:?}");
            self.checks.violate(Rule::Versions, text);
        }
    }

    /// A node stops, as it does not speak what the cluster is finalised at. The double of a name may: it is no node.
    pub(crate) fn outdated(&mut self, host: u32, unfit: Unfit) {
        self.hosts[host as usize].halted = true;
        if !matches!(self.hosts[host as usize].role, Role::Clone(_)) {
            self.checks.violate(Rule::Versions, format!("n{host} has to stop: {unfit}"));
        }
    }
}
