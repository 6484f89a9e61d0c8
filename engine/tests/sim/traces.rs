//! Golden I/O traces: what the engine asks of the drive, and in which order, as committed text.

use std::path::{Path, PathBuf};
use std::time::Duration;

use deadwax_engine::sim::lives::{DIRECTORY, audio, config, formatted, put};
use deadwax_engine::sim::{Life, Order, SimHost, SimSettings};
use deadwax_engine::{Host as _, Volume};
use deadwax_track::{KIB, MIB, TrackId};

/// Runs `script` on a volume that holds one small track, and compares what it asked of the drive with `traces/NAME.txt`.
/// With `DEADWAX_TRACES=write` in the environment it writes that file instead.
fn golden<F: Future<Output = ()>>(name: &str, script: impl FnOnce(SimHost, Volume<SimHost>) -> F) {
    let latency = Duration::from_micros(100);
    let mut disk = formatted(SimSettings { order: Order::InTurn, latency: (latency, latency), ..SimSettings::new(1) });
    let life = disk.run(|host| async move {
        let (volume, _) = Volume::open(host, config(MIB)).await.expect("opens");
        put(&volume, &audio(0, 1000)).await.expect("makes the segment");
        volume.close().await;
    });
    assert!(matches!(life, Life::Ended(())));
    let base = Path::new(DIRECTORY);
    let life = disk.run(|host| async move {
        let (volume, _) = Volume::open(host.clone(), config(MIB)).await.expect("opens");
        host.record(base);
        script(host, volume).await;
    });
    assert!(matches!(life, Life::Ended(())), "{life:?}");
    let got = disk.recorded();
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/sim/traces", name].iter().collect();
    let path = path.with_extension("txt");
    if std::env::var("DEADWAX_TRACES").is_ok_and(|what| what == "write") {
        std::fs::write(&path, &got).expect("writes");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(got, golden, "{} differs: DEADWAX_TRACES=write writes it anew", path.display());
}

#[test]
fn a_small_put_is_one_write_and_one_flush() {
    golden("put_small", |_, volume| async move {
        put(&volume, &audio(1, 5000)).await.expect("puts");
    });
}

#[test]
fn a_large_put_writes_its_header_when_all_its_frames_are_written() {
    golden("put_large", |_, volume| async move {
        put(&volume, &audio(1, 3 * MIB)).await.expect("puts");
    });
}

#[test]
fn a_put_that_does_not_fit_makes_a_durable_segment_first() {
    golden("put_new_segment", |_, volume| async move {
        put(&volume, &audio(1, 900 * KIB)).await.expect("puts");
        put(&volume, &audio(2, 100 * KIB)).await.expect("puts");
    });
}

#[test]
fn puts_that_end_together_share_a_flush() {
    golden("puts_share_a_flush", |host, volume| async move {
        let puts: Vec<_> = (1..=3)
            .map(|seed| {
                let volume = volume.clone();
                host.task(async move { put(&volume, &audio(seed, 5000)).await.expect("puts") })
            })
            .collect();
        for put in puts {
            put.await;
        }
    });
}

#[test]
fn a_takedown_is_durable_before_the_bytes_go() {
    golden("takedown", |_, volume| async move {
        volume.take_down(&TrackId::of(&audio(0, 1000)), 7).await.expect("takes down");
    });
}

#[test]
fn a_volume_is_read_before_it_is_written_when_it_is_opened() {
    golden("reopen", |host, volume| async move {
        put(&volume, &audio(1, 5000)).await.expect("puts");
        volume.close().await;
        host.note(format_args!("closed"));
        drop(Volume::open(host, config(MIB)).await.expect("opens"));
    });
}

#[test]
fn a_delete_takes_the_header_first_and_the_rest_when_that_is_durable() {
    golden("delete", |_, volume| async move {
        let track = audio(1, 100 * KIB);
        put(&volume, &track).await.expect("puts");
        volume.delete(&TrackId::of(&track)).await.expect("deletes");
    });
}

#[test]
fn a_full_segment_gets_its_footer_when_all_it_lists_is_durable() {
    golden("seal", |host, volume| async move {
        put(&volume, &audio(1, 900 * KIB)).await.expect("puts");
        put(&volume, &audio(2, 100 * KIB)).await.expect("puts");
        // Sealing goes on by itself.
        host.sleep(Duration::from_secs(1)).await;
    });
}

#[test]
fn a_close_leaves_a_durable_snapshot() {
    golden("snapshot", |_, volume| async move {
        put(&volume, &audio(1, 5000)).await.expect("puts");
        volume.close().await;
    });
}

#[test]
fn a_hollow_segment_goes_when_what_was_left_is_durable_elsewhere() {
    golden("compaction", |host, volume| async move {
        let tracks = [audio(1, 900 * KIB), audio(2, 300 * KIB)];
        for track in &tracks {
            put(&volume, track).await.expect("puts");
        }
        host.sleep(Duration::from_secs(1)).await;
        // The small track that was there before is all that is left of the first segment.
        volume.delete(&TrackId::of(&tracks[0])).await.expect("deletes");
        host.sleep(Duration::from_secs(1)).await;
        volume.compact().await.expect("compacts");
    });
}
