//! Whether all that nodes hold was read and checked, how long ago, and having it done now.

use deadwax_dht::wire::{Message, Scrubbing, VolumeScrub, VolumeState};
use deadwax_dht::{Failure, NodeId, VolumeId};

use crate::Client;
use crate::known::Known;
use crate::read::failure;
use crate::status::NodeReport;

const DAY_S: u64 = 86_400;

impl Client {
    /// How the checking goes on each volume of the node that serves.
    ///
    /// Errors: Refused (the map has no such node), Invalid or Version (its program is from before there was this), and those of any request.
    pub async fn scrubs(&self, node: &NodeId) -> Result<Vec<VolumeScrub>, Failure> {
        self.ask_of_scrubs(node, Scrubbing::AskScrubs).await
    }

    /// Has a volume of the node checked from the beginning, or each that serves, at most so many bytes a second; a pass that is
    /// under way begins anew. Answers how it goes then.
    ///
    /// Errors: Refused (no such node or volume, or who asks may not command), Invalid (the rate is 0), and those of any request.
    pub async fn scrub(
        &self,
        node: &NodeId,
        volume: Option<VolumeId>,
        bytes_per_second: u64,
    ) -> Result<Vec<VolumeScrub>, Failure> {
        self.ask_of_scrubs(node, Scrubbing::Scrub { volume, bytes_per_second }).await
    }

    async fn ask_of_scrubs(&self, node: &NodeId, request: Scrubbing) -> Result<Vec<VolumeScrub>, Failure> {
        scrubs_of(self.ask_by_name(node, &Message::Scrubbing(request)).await?)
    }
}

fn scrubs_of(reply: Message) -> Result<Vec<VolumeScrub>, Failure> {
    match reply {
        Message::Scrubbing(Scrubbing::Scrubs(scrubs)) => Ok(scrubs),
        other => Err(failure(other)),
    }
}

/// What a node of the map says of its volumes.
pub(crate) async fn ask(known: &Known, node: usize) -> Result<Vec<VolumeScrub>, Failure> {
    let (lease, reply) = known.ask(node, &Message::Scrubbing(Scrubbing::AskScrubs)).await?;
    lease.give_back();
    scrubs_of(reply)
}

/// Of each volume that holds tracks, that it was not read to the end for longer than `within_s`, or that nobody says whether it was.
pub(crate) fn warnings(nodes: &[NodeReport], within_s: u64) -> Vec<String> {
    let mut warnings = Vec::new();
    for node in nodes {
        for volume in node.volumes.iter().filter(|volume| volume.state != VolumeState::Fenced && volume.tracks > 0) {
            let (dir, address) = (&volume.dir, &node.address);
            match node.scrubs.iter().find(|scrub| scrub.id == volume.id) {
                None => warnings.push(format!("node {address} does not say when volume {dir} was verified")),
                Some(VolumeScrub { verified_s: None, pass_damaged: damaged @ 1.., .. }) => warnings.push(format!(
                    "volume {dir} of node {address} has records that are damaged, {damaged} were found: `deadwax repair` has them \
                     made anew from other copies; where there are none, put the tracks again"
                )),
                Some(VolumeScrub { verified_s: None, .. }) => warnings.push(format!(
                    "nobody knows when volume {dir} of node {address} was verified last: it is once all of it has been read, \
                     which `deadwax scrub` does now"
                )),
                Some(VolumeScrub { verified_s: Some(ago), .. }) if *ago > within_s => warnings.push(format!(
                    "volume {dir} of node {address} was not verified for {} days, and is to be each {}: raise \
                     `scrub_bytes_per_second` in its settings; `deadwax scrub` checks it now",
                    ago / DAY_S,
                    within_s.div_ceil(DAY_S),
                )),
                Some(_) => {}
            }
        }
    }
    warnings
}
