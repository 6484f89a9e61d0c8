//! Checking all that the node's volumes hold: how far it is, and that it be done now.

use std::rc::Rc;

use deadwax_dht::VolumeId;
use deadwax_dht::wire::{ErrorCode, Message, Scrubbing, VolumeScrub};

use crate::admission::Caller;
use crate::refusal::Refusal;
use crate::shard::Shard;

/// How it goes on each volume that serves.
pub(crate) async fn status(shard: &Rc<Shard>) -> Result<Message, Refusal> {
    let mut scrubs = Vec::new();
    for (number, volume) in shard.node.volumes().iter().enumerate() {
        match shard.gather(number, |part| async move { part.scrub_status() }).await {
            Ok(parts) => scrubs.extend(whole(volume.id, parts)),
            // Whoever asks sees which are not named.
            Err(Refusal { code: ErrorCode::Fenced, .. }) => {}
            Err(why) => {
                tracing::debug!(volume = %volume.id, why = why.message, "a volume does not say how its checking goes")
            }
        }
    }
    Ok(Message::Scrubbing(Scrubbing::Scrubs(scrubs)))
}

/// Has one volume checked from the beginning, or each that serves, and says how that goes now.
pub(crate) async fn begin(
    shard: &Rc<Shard>,
    caller: Caller,
    volume: Option<VolumeId>,
    bytes_per_second: u64,
) -> Result<Message, Refusal> {
    caller.may_command()?;
    let numbers = match volume {
        Some(volume) => vec![shard.node.volume(&volume)?],
        None => (0..shard.node.volumes().len()).collect(),
    };
    for number in numbers {
        let parts = shard.node.owners(number).len().max(1) as u64;
        let rate = bytes_per_second.div_ceil(parts);
        let begun = shard.gather(number, move |part| async move { part.start_scrub(rate) }).await;
        match begun.and_then(|parts| parts.into_iter().collect::<Result<Vec<()>, _>>()) {
            Ok(_) => {}
            // Of all volumes those that do not serve are left out: the status says so.
            Err(Refusal { code: ErrorCode::Fenced, .. }) if volume.is_none() => {}
            Err(why) => return Err(why),
        }
    }
    tracing::info!(%caller, ?volume, bytes_per_second, "an operator has volumes checked");
    status(shard).await
}

/// A volume's, from its parts': it was verified when the last of them was.
fn whole(id: VolumeId, parts: Vec<VolumeScrub>) -> Option<VolumeScrub> {
    parts.into_iter().reduce(|a, b| VolumeScrub {
        id,
        running: a.running || b.running,
        passes: a.passes.min(b.passes),
        // Of one part nothing is known: neither of the whole.
        verified_s: a.verified_s.zip(b.verified_s).map(|(a, b)| a.max(b)),
        pass_bytes: a.pass_bytes + b.pass_bytes,
        all_bytes: a.all_bytes + b.all_bytes,
        pass_damaged: a.pass_damaged + b.pass_damaged,
        damaged: a.damaged + b.damaged,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_was_verified_when_its_last_part_was() {
        let id = VolumeId::from_bytes([1; 16]);
        let part = |running, passes, verified_s| VolumeScrub {
            id,
            running,
            passes,
            verified_s,
            pass_bytes: 10,
            all_bytes: 20,
            pass_damaged: 1,
            damaged: 2,
        };
        let whole = whole(id, vec![part(false, 3, Some(5)), part(true, 2, Some(500))]).expect("two parts");
        assert_eq!((whole.running, whole.passes, whole.verified_s), (true, 2, Some(500)));
        assert_eq!((whole.pass_bytes, whole.all_bytes, whole.pass_damaged, whole.damaged), (20, 40, 2, 4));
        let unknown = super::whole(id, vec![part(false, 3, Some(5)), part(false, 0, None)]).expect("two parts");
        assert_eq!(unknown.verified_s, None);
    }
}
