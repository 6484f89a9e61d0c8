//! Scrub finds what rots, and nothing else.

use super::*;

/// More than any test reads in a second.
const FAST: u64 = 1 << 40;

#[test]
fn scrub_finds_a_flipped_byte_in_header_payload_and_trailer_and_a_new_put_heals_it() {
    for (at, name) in [(40, "id"), (4000, "header's end"), (4096 + 5, "payload"), (4096 + 65_536 - 10, "trailer")] {
        let (dir, config) = volume_dir();
        run(async {
            let (volume, _) = open(&config).await;
            let (track, other) = (audio(1, 300_000), audio(2, 5_000));
            put(&volume, &track).await.expect("puts");
            put(&volume, &other).await.expect("puts");
            let clean = volume.scrub_pass(FAST).await.expect("scrubs");
            assert_eq!((clean.records_checked, clean.damaged, clean.files_damaged), (2, 0, 0), "{clean:?}");
            let path = &segments(dir.path())[0];
            let start = find(path, b"DWXRECRD").expect("a record");
            let byte = std::fs::read(path).expect("reads")[usize::try_from(start + at).expect("small")];
            overwrite(path, start + at, &[byte ^ 4]);
            let report = volume.scrub_pass(FAST).await.expect("scrubs");
            assert_eq!((report.records_checked, report.damaged), (2, 1), "{name}: {report:?}");
            let damage = volume.next_damage().await.expect("a finding");
            assert_eq!(damage.id, TrackId::of(&track), "{name}: {damage:?}");
            volume.delete(&damage.id).await.expect("deletes");
            put(&volume, &track).await.expect("puts again");
            let healed = volume.scrub_pass(FAST).await.expect("scrubs");
            assert_eq!((healed.records_checked, healed.damaged), (2, 0), "{name}: {healed:?}");
            assert_eq!(volume.scrub_status().passes, 3);
            assert_whole(&volume, &track).await;
            volume.close().await;
        });
    }
}
