//! One volume on several executors, and on another number of them later.

use deadwax_engine::ErrorKind;
use deadwax_track::{KIB, TrackId};

use super::*;

#[test]
fn a_volume_may_be_split_anew_at_each_start() {
    let (_dir, mut config) = volume_dir();
    config.segment_bytes = 512 * KIB;
    let track = |seed| audio(seed, 20_000 + seed);
    let mut count = 0;
    let mut taken_down = Vec::new();
    run(async {
        for shards in [1, 2, 3, 2, 1] {
            let mut handles = Vec::new();
            for shard in 0..shards {
                let config = VolumeConfig { shard, shards, ..config.clone() };
                let (volume, recovery) = open(&config).await;
                assert_eq!((recovery.torn, recovery.damaged), (0, 0));
                handles.push(volume);
            }
            let owner = |id: &TrackId| &handles[id.shard(shards)];
            assert_eq!(
                handles.iter().map(|volume| volume.usage().tracks).sum::<u64>() + taken_down.len() as u64,
                count
            );
            for seed in 0..count {
                let id = TrackId::of(&track(seed));
                if taken_down.contains(&id) {
                    let error = get_range(owner(&id), &id, 0, 1).await.expect_err("taken down");
                    assert_eq!(error.kind(), ErrorKind::TakenDown);
                } else {
                    assert_whole(owner(&id), &track(seed)).await;
                }
            }
            for seed in count..count + 30 {
                put(owner(&TrackId::of(&track(seed))), &track(seed)).await.expect("puts");
            }
            let id = TrackId::of(&track(count));
            owner(&id).take_down(&id, 1).await.expect("takes down");
            taken_down.push(id);
            count += 30;
            for volume in handles {
                volume.close().await;
            }
        }
    });
}

#[test]
fn an_id_of_another_shard_is_refused() {
    let (_dir, config) = volume_dir();
    run(async {
        let config = VolumeConfig { shard: 1, shards: 2, ..config };
        let (volume, _) = open(&config).await;
        let track = (0..).map(|seed| audio(seed, 100)).find(|track| TrackId::of(track).shard(2) == 0).expect("one");
        assert_eq!(put(&volume, &track).await.expect_err("other shard").kind(), ErrorKind::Invalid);
        assert_eq!(
            volume.take_down(&TrackId::of(&track), 1).await.expect_err("other shard").kind(),
            ErrorKind::Invalid
        );
    });
}
