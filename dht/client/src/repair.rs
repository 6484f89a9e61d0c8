//! Having nodes compare what they hold, and mend it.

use deadwax_dht::wire::{Message, RepairReport, Repairing};
use deadwax_dht::{Failure, NodeId};

use crate::Client;
use crate::read::failure;

impl Client {
    /// How far the node is with finding and mending what it lacks; nothing where its map is a file, and it does neither.
    ///
    /// Errors: Refused (the map has no such node), Invalid or Version (its program is from before there was this), and those
    /// of any request.
    pub async fn repair_report(&self, node: &NodeId) -> Result<Option<RepairReport>, Failure> {
        self.ask_of_repair(node, Repairing::AskRepair).await
    }

    /// Has the node compare all that it holds anew with the other holders, and try now what waits for its next try. Answers
    /// how far it is then.
    ///
    /// Errors: as [`repair_report`](Self::repair_report)'s, and Refused where who asks may not command.
    pub async fn repair(&self, node: &NodeId) -> Result<Option<RepairReport>, Failure> {
        self.ask_of_repair(node, Repairing::RepairNow).await
    }

    async fn ask_of_repair(&self, node: &NodeId, request: Repairing) -> Result<Option<RepairReport>, Failure> {
        match self.ask_by_name(node, &Message::Repairing(request)).await? {
            Message::Repairing(Repairing::RepairReport(report)) => Ok(report.map(|report| *report)),
            other => Err(failure(other)),
        }
    }
}
