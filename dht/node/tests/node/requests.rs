//! Every request, served by the shard that accepted it and by the other one.

use deadwax_dht::VolumeId;
use deadwax_dht::wire::{AT_ONCE_BYTES_MAX, DATA_BYTES_MAX, ErrorCode, Message};
use deadwax_track::{ByteRange, Manifest, Partition, TrackId, piece_count};

use crate::cluster::Site;
use crate::peer::{Peer, audio, tags};

/// Each on a boundary: one byte, around a drive frame's payload, around a wire frame, several of each.
const SIZES: [usize; 8] = [1, 4096, 65_504, 65_536, DATA_BYTES_MAX - 1, DATA_BYTES_MAX, DATA_BYTES_MAX + 1, 5_000_003];

/// Tracks of all sizes, twice over with the ids of each of `shards` shards.
fn tracks(shards: usize) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for size in SIZES {
        for shard in 0..shards {
            let of_shard = |seed: &u32| TrackId::of(&audio(*seed, size)).shard(shards) == shard;
            let seed = (1..).find(of_shard).expect("ids spread over the shards");
            out.push(audio(seed, size));
        }
    }
    out
}

#[test]
fn bytes_come_back_whole_and_in_ranges_from_either_shard() {
    let site = Site::new(1, 2);
    let _node = site.start();
    let volume = site.volumes[0];
    let mut peer = site.connect();
    for bytes in tracks(2) {
        let id = peer.put(volume, &bytes, "one");
        let end = bytes.len() as u64;
        assert_eq!(peer.get(volume, id, 0, end), bytes, "{id}");
        for (start, end) in [(0, 1), (end - 1, end), (end / 3, end / 3 + 1), (end / 2, end), (0, end.min(65_505))] {
            let (from, to) = (usize::try_from(start).expect("small"), usize::try_from(end).expect("small"));
            assert_eq!(peer.get(volume, id, start, end), bytes[from..to], "{id} {start}..{end}");
        }
        assert_eq!(peer.has(volume, id), Message::Present { bytes: end });
        let again = peer.begin_put(volume, id, end, &tags("again"));
        let pieces = u32::try_from(piece_count(end)).expect("few");
        assert_eq!(again, Message::Stored { already: true, bytes: end, pieces });
        let range = ByteRange::new(0, end + 1).expect("a range");
        let (code, why) = peer.error(&Message::Get { volume, id, range });
        assert_eq!(code, ErrorCode::Invalid, "{why}");
    }
    assert!(peer.status().counters["crossings"] > 0, "both shards were asked");
}

#[test]
fn a_put_may_come_in_frames_of_any_size() {
    let site = Site::new(1, 2);
    let _node = site.start();
    let volume = site.volumes[0];
    let mut peer = site.connect();
    for (seed, frame_bytes) in (1..).zip([1_usize, 333, 4096, 65_536, 300_001]) {
        let bytes = audio(seed, if frame_bytes == 1 { 5_000 } else { 1_300_000 });
        let id = TrackId::of(&bytes);
        assert_eq!(peer.begin_put(volume, id, bytes.len() as u64, &tags("cut")), Message::Ready);
        peer.send_data(&bytes, frame_bytes);
        assert!(matches!(peer.reply(), Message::Stored { already: false, .. }));
        assert_eq!(peer.get(volume, id, 0, bytes.len() as u64), bytes);
    }
}

/// Sends a put with its bytes behind it; the first answer but for `Ready`.
fn put_at_once(peer: &mut Peer, volume: VolumeId, id: TrackId, bytes: &[u8]) -> Message {
    peer.request += 1;
    let put = Message::Put { volume, id, bytes: bytes.len() as u64, tags: tags("at once") }.frame(peer.stamp());
    let data = Message::Data(bytes.to_vec().into()).frame(peer.stamp());
    peer.write(&[put, data].concat()).expect("the node reads");
    match peer.reply() {
        Message::Ready => peer.reply(),
        other => other,
    }
}

#[test]
fn the_bytes_of_a_small_put_may_come_with_it() {
    let site = Site::new(1, 2);
    let _node = site.start();
    let volume = site.volumes[0];
    let mut peer = site.connect();
    for bytes in tracks(2).into_iter().filter(|bytes| bytes.len() <= AT_ONCE_BYTES_MAX) {
        let (id, length) = (TrackId::of(&bytes), bytes.len() as u64);
        let pieces = u32::try_from(piece_count(length)).expect("few");
        for already in [false, true] {
            let stored = put_at_once(&mut peer, volume, id, &bytes);
            assert_eq!(stored, Message::Stored { already, bytes: length, pieces });
            assert_eq!(peer.get(volume, id, 0, length), bytes, "the stream goes on behind bytes that were not wanted");
        }
        let taken_down = Message::TakenDown { number: 7 };
        assert_eq!(peer.ask(&Message::TakeDown { volume, id, number: 7 }), taken_down);
        let refused = put_at_once(&mut peer, volume, id, &bytes);
        assert!(matches!(refused, Message::Error { code: ErrorCode::TakenDown { number: 7 }, .. }), "{refused:?}");
        assert_eq!(peer.has(volume, id), taken_down);
    }
    let refused = put_at_once(&mut peer, volume, TrackId::of(b"another"), b"these");
    assert!(matches!(refused, Message::Error { code: ErrorCode::Invalid, .. }), "{refused:?}");
    // Nobody asked for more of them than may come.
    let mut peer = site.connect();
    let id = peer.put(volume, b"a track", "one");
    peer.request += 1;
    peer.send(&Message::Put { volume, id, bytes: 7, tags: tags("again") });
    assert!(matches!(peer.reply(), Message::Stored { already: true, .. }));
    peer.send(&Message::Data(vec![1; AT_ONCE_BYTES_MAX + 1].into()));
    assert!(matches!(peer.reply(), Message::Error { code: ErrorCode::Invalid, .. }));
}

#[test]
fn info_has_tags_and_a_manifest_that_proves_itself() {
    let site = Site::new(1, 2);
    let _node = site.start();
    let volume = site.volumes[0];
    let mut peer = site.connect();
    for bytes in [audio(1, 700_000), audio(2, 700_000), audio(3, 700_000)] {
        let id = peer.put(volume, &bytes, "Grüße");
        let Message::TrackInfo { bytes: length, tags: kept, pieces } = peer.ask(&Message::Info { volume, id }) else {
            panic!("expected TrackInfo");
        };
        assert_eq!(kept, tags("Grüße"));
        Manifest::proved(&id, length, pieces).expect("the manifest proves itself against the id");
    }
    let unknown = TrackId::of(b"unknown");
    assert_eq!(peer.error(&Message::Info { volume, id: unknown }).0, ErrorCode::NotFound);
    assert_eq!(peer.has(volume, unknown), Message::Absent);
    let range = ByteRange::new(0, 1).expect("a range");
    assert_eq!(peer.error(&Message::Get { volume, id: unknown, range }).0, ErrorCode::NotFound);
}

#[test]
fn a_takedown_is_final_and_keeps_its_first_number() {
    let site = Site::new(1, 2);
    let node = site.start();
    let volume = site.volumes[0];
    let ids: Vec<TrackId> = {
        let mut peer = site.connect();
        let ids: Vec<_> = (1..5).map(|seed| peer.put(volume, &audio(seed, 100_000), "gone")).collect();
        for id in &ids {
            assert_eq!(peer.ask(&Message::TakeDown { volume, id: *id, number: 7 }), Message::TakenDown { number: 7 });
            assert_eq!(peer.ask(&Message::TakeDown { volume, id: *id, number: 8 }), Message::TakenDown { number: 7 });
        }
        ids
    };
    node.stop();
    let _node = site.start();
    let mut peer = site.connect();
    for id in ids {
        assert_eq!(peer.has(volume, id), Message::TakenDown { number: 7 });
        let range = ByteRange::new(0, 1).expect("a range");
        assert_eq!(peer.error(&Message::Get { volume, id, range }).0, ErrorCode::TakenDown { number: 7 });
        let refused = peer.error(&Message::Put { volume, id, bytes: 100_000, tags: tags("back") });
        assert_eq!(refused.0, ErrorCode::TakenDown { number: 7 });
    }
    let status = peer.status();
    assert_eq!((status.volumes[0].tracks, status.volumes[0].takedowns), (0, 4));
}

/// Lists whole partitions of a volume, a few ids at a time.
fn listed(peer: &mut Peer, volume: VolumeId, partition: Partition) -> Vec<TrackId> {
    let mut all = Vec::new();
    loop {
        let after = all.last().copied();
        let Message::Ids(ids) = peer.ask(&Message::List { volume, partition, after, limit: 1 }) else {
            panic!("expected Ids");
        };
        if ids.is_empty() {
            return all;
        }
        all.extend(ids);
    }
}

#[test]
fn digests_lists_and_status_cover_all_shards_and_volumes() {
    let site = Site::new(2, 2);
    let _node = site.start();
    let mut peer = site.connect();
    let volume = site.volumes[0];
    let ids: Vec<TrackId> = (1..40).map(|seed| peer.put(volume, &audio(seed, 10_000), "many")).collect();
    let other = peer.put(site.volumes[1], &audio(100, 10_000), "other");

    let mut seen = 0;
    for first in (0..65_536_u32).step_by(16_384) {
        let first = Partition(u16::try_from(first).expect("below 65536"));
        let Message::DigestList(digests) = peer.ask(&Message::Digests { volume, first, count: 16_384 }) else {
            panic!("expected DigestList");
        };
        assert!(digests.is_sorted_by_key(|digest| digest.partition));
        for digest in digests {
            let mut expected: Vec<_> = ids.iter().filter(|id| id.partition() == digest.partition).copied().collect();
            expected.sort_unstable();
            let mut sum = [0_u8; 16];
            expected.iter().for_each(|id| sum.iter_mut().zip(id.as_bytes()).for_each(|(sum, byte)| *sum ^= byte));
            assert_eq!((digest.tracks as usize, digest.digest), (expected.len(), sum));
            assert_eq!(listed(&mut peer, volume, digest.partition), expected);
            seen += expected.len();
        }
    }
    assert_eq!(seen, ids.len());
    assert_eq!(peer.has(volume, other), Message::Absent, "volumes are apart");

    let status = peer.status();
    assert_eq!((status.id, status.epoch, status.shards), (site.node, 1, 2));
    assert_eq!(status.volumes.iter().map(|volume| volume.tracks).collect::<Vec<_>>(), [39, 1]);
    assert_eq!(status.volumes[0].track_bytes, 390_000);
    assert!(status.volumes[0].record_bytes >= 390_000 && status.volumes[0].free_bytes > 0);
    assert!(status.resident_bytes > 1 << 20);
    assert_eq!(status.counters["puts"], 40);
}

#[test]
fn a_rotating_drive_is_served_by_one_shard_for_all() {
    let mut site = Site::new(2, 2);
    site.config.rotating = deadwax_node::Rotating::Yes;
    let _node = site.start();
    let mut peer = site.connect();
    for volume in site.volumes.clone() {
        for bytes in tracks(2) {
            let id = peer.put(volume, &bytes, "round");
            assert_eq!(peer.get(volume, id, 0, bytes.len() as u64), bytes);
        }
    }
    assert_eq!(peer.status().volumes[1].tracks, 2 * SIZES.len() as u64);
}

#[test]
fn many_connections_are_served_at_once() {
    let site = Site::new(1, 2);
    let _node = site.start();
    let volume = site.volumes[0];
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let site = &site;
            scope.spawn(move || {
                let mut peer = site.connect();
                for n in 0..6 {
                    let bytes = audio(1 + thread * 100 + n, 2_000_000);
                    let id = peer.put(volume, &bytes, "at once");
                    assert_eq!(peer.get(volume, id, 0, bytes.len() as u64), bytes);
                }
            });
        }
    });
    assert_eq!(site.connect().status().volumes[0].tracks, 48);
}
