//! Volumes at rest, whole and in pieces: inspect, verify and salvage.

mod inspect;
mod salvage;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use deadwax_engine::ErrorKind;
use deadwax_engine::offline::{self, Finding, FindingKind, Kept, SalvageOptions, SalvageReport, Sink, VerifyReport};
use deadwax_track::{KIB, TrackId};

use super::*;

/// A sink in memory.
#[derive(Default)]
struct Memory {
    kept: BTreeMap<TrackId, (Vec<u8>, Tags)>,
    now: Option<(TrackId, Vec<u8>, Tags)>,
}

impl Sink for Memory {
    fn begin(&mut self, id: &TrackId, _bytes: u64, tags: &Tags) -> io::Result<()> {
        assert!(self.now.is_none(), "one after the other");
        self.now = Some((*id, Vec::new(), tags.clone()));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.now.as_mut().expect("begun").1.extend_from_slice(bytes);
        Ok(())
    }

    fn keep(&mut self) -> io::Result<Kept> {
        let (id, bytes, tags) = self.now.take().expect("begun");
        assert_eq!(TrackId::of(&bytes), id, "only proved tracks are kept");
        Ok(if self.kept.insert(id, (bytes, tags)).is_none() { Kept::New } else { Kept::Present })
    }

    fn discard(&mut self) -> io::Result<()> {
        self.now.take().map(drop).ok_or_else(|| io::Error::other("nothing was begun"))
    }
}

fn salvaged(source: &Path) -> (SalvageReport, Memory) {
    let mut sink = Memory::default();
    let report = offline::salvage(source, SalvageOptions::default(), &mut sink, &mut |_| {}, &mut |_| {});
    (report.expect("salvages"), sink)
}

fn verified(dir: &Path) -> VerifyReport {
    let mut told = Vec::new();
    let report =
        offline::verify(dir, &mut |finding: &Finding| told.push(finding.clone()), &mut |_| {}).expect("checks");
    assert_eq!(told, report.findings);
    report
}

/// Where each track stands: its segment's file, and its record's offset.
type Places = BTreeMap<TrackId, (std::path::PathBuf, u64)>;

/// A volume as its life leaves it: sealed segments with deleted tracks, takedowns, and an open tail.
struct Lived {
    dir: TempDir,
    config: VolumeConfig,
    tracks: BTreeMap<TrackId, Vec<u8>>,
    deleted: BTreeSet<TrackId>,
    taken_down: BTreeSet<TrackId>,
}

/// Sizes on every boundary: below a block, one frame, some, a piece and more.
const SIZES: [u64; 7] = [1, 3000, 4056, 65_496, 65_497, 150_000, 300_000];

impl Lived {
    /// `closed`: with a snapshot of the end; else as a kill leaves it.
    fn new(closed: bool) -> Self {
        let (dir, config) = volume_dir();
        let config = VolumeConfig { segment_bytes: 1024 * KIB, ..config };
        let mut lived =
            Self { dir, config, tracks: BTreeMap::new(), deleted: BTreeSet::new(), taken_down: BTreeSet::new() };
        run(async {
            let (volume, _) = open(&lived.config).await;
            for seed in 0..42_u64 {
                let track = audio(seed + 1, SIZES[usize::try_from(seed).expect("fits") % SIZES.len()] + seed / 7);
                put(&volume, &track).await.expect("puts");
                let id = TrackId::of(&track);
                lived.tracks.insert(id, track);
                if seed % 5 == 4 {
                    volume.delete(&id).await.expect("deletes");
                    lived.deleted.insert(id);
                } else if seed % 7 == 6 {
                    volume.take_down(&id, seed).await.expect("takes down");
                    lived.taken_down.insert(id);
                }
            }
            if closed {
                volume.close().await;
            }
        });
        for gone in lived.deleted.iter().chain(&lived.taken_down) {
            lived.tracks.remove(gone);
        }
        lived
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn places(&self) -> Places {
        let mut places = Places::new();
        for path in segments(self.path()) {
            let bytes = std::fs::read(&path).expect("reads");
            for (block, at) in bytes.chunks(4096).zip((0..).step_by(4096)) {
                if block.starts_with(b"DWXRECRD") && block[10] == 1 {
                    let id = TrackId::from_bytes(block[40..72].try_into().expect("32 bytes"));
                    places.insert(id, (path.clone(), at));
                }
            }
        }
        places.retain(|id, _| self.tracks.contains_key(id));
        assert_eq!(places.len(), self.tracks.len());
        places
    }

    /// Salvages and expects all tracks but `lost`, byte for byte.
    fn salvages_all_but(&self, source: &Path, lost: &BTreeSet<TrackId>) -> SalvageReport {
        let (report, sink) = salvaged(source);
        let expected: BTreeSet<_> = self.tracks.keys().filter(|id| !lost.contains(id)).copied().collect();
        assert_eq!(sink.kept.keys().copied().collect::<BTreeSet<_>>(), expected, "{report:?}");
        assert!(sink.now.is_none());
        for (id, (bytes, _)) in &sink.kept {
            assert!(*bytes == self.tracks[id], "{id} differs");
        }
        assert_eq!(report.salvaged, expected.len() as u64);
        report
    }
}

/// The ids of findings that are damage.
fn damaged(report: &VerifyReport) -> BTreeSet<TrackId> {
    let damage = report.findings.iter().filter(|finding| finding.kind.is_damage());
    damage.filter_map(|finding| finding.id).collect()
}

fn kinds(report: &VerifyReport) -> Vec<FindingKind> {
    report.findings.iter().map(|finding| finding.kind).collect()
}

/// SplitMix64: one seed replays all.
fn dice(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut value = *state;
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (value ^ (value >> 31)) % below
}
