//! What one shard finds out about a drive, all shards act on: a volume is out on each of them or on none.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use deadwax_dht::core::Input;
use deadwax_dht::wire::ErrorCode;
use glommio::timer::sleep;

use crate::shard::{NodeVolume, Shard, Trouble};
use crate::volumes::LocalVolume;

/// Between tries to reach a shard whose queue is full.
const TELL_RETRY: Duration = Duration::from_millis(10);

/// Watches this shard's part of a volume until it is out or closed, and tells the others. What they found out before
/// this part was open holds for it too.
pub(crate) fn join(shard: &Rc<Shard>, number: usize, volume: &Arc<NodeVolume>, local: &LocalVolume) {
    let mut troubles = local.troubles();
    let (shard, watched) = (Rc::clone(shard), Arc::clone(volume));
    glommio::spawn_local(async move {
        while let Some(trouble) = troubles.next().await {
            tell(&shard, number, &watched, trouble).await;
        }
    })
    .detach();
    // After this part was put in its place: whoever comes to know later tells it.
    if let Some(trouble) = volume.trouble() {
        local.share_trouble(&trouble);
    }
}

/// Tells all other shards.
pub(crate) async fn tell(shard: &Rc<Shard>, number: usize, volume: &Arc<NodeVolume>, trouble: Trouble) {
    if volume.trouble().as_ref() == Some(&trouble) {
        // They told us, or know it from the same.
        return;
    }
    volume.set_trouble(trouble.clone());
    if trouble.is_out() {
        shard.node.tell(Input::VolumeDown(volume.id));
    }
    for other in (0..shard.node.shards()).filter(|other| *other != shard.index) {
        loop {
            let (volume, trouble) = (Arc::clone(volume), trouble.clone());
            let told =
                shard.node.send(other, move |shard| async move { shard.share_trouble(number, &volume, &trouble) });
            match told {
                Err(why) if why.code == ErrorCode::Busy => sleep(TELL_RETRY).await,
                // One that has ended needs no telling.
                _ => break,
            }
        }
    }
}
