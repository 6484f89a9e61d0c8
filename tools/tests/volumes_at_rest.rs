//! `inspect`, `verify` and `salvage`, as they are typed, on a volume that the engine made.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use deadwax_engine::{GlommioHost, Volume, VolumeConfig, VolumeId, VolumeIdentity, format_volume};
use deadwax_track::{Tags, TrackId};
use glommio::{LocalExecutorBuilder, Placement};
use tempfile::TempDir;

/// Held while a volume is open here, or a process starts: from its fork to its exec a child has its parent's open files, and
/// so the volume's lock.
static OPEN: Mutex<()> = Mutex::new(());

fn open() -> MutexGuard<'static, ()> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn deadwax(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deadwax"));
    command.args(arguments).env_remove("DEADWAX_LOG").stdout(Stdio::piped()).stderr(Stdio::piped());
    let starting = open();
    let child = command.spawn().expect("the program starts");
    drop(starting);
    child.wait_with_output().expect("it ends")
}

/// What it prints, and its exit code.
fn said(arguments: &[&str]) -> (String, Option<i32>) {
    let output = deadwax(arguments);
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8")).concat();
    assert!(!text.contains("panicked"), "{text}");
    (text, output.status.code())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Two tracks and a takedown, closed.
fn volume() -> (TempDir, [Vec<u8>; 2]) {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let identity = VolumeIdentity { volume: VolumeId([7; 16]), node: [9; 32] };
    format_volume(dir.path(), &identity).expect("formats");
    let config = VolumeConfig { segment_bytes: 1 << 20, ..VolumeConfig::new(dir.path(), identity) };
    let ogg = [b"OggS", &[7; 200_000][..]].concat();
    let tracks = [ogg, vec![3; 5000]];
    let work = async {
        let (volume, _) = Volume::open(GlommioHost::new(), config).await.expect("opens");
        for track in &tracks {
            let tags = Tags::new([("title".to_owned(), "Blue Moon".to_owned())]).expect("within limits");
            let put = volume.put(TrackId::of(track), track.len() as u64, &tags).await;
            let mut put = put.expect("begins");
            put.write(track).await.expect("takes");
            put.finish().await.expect("stores");
        }
        volume.take_down(&TrackId::of(b"gone"), 5).await.expect("takes down");
        volume.close().await;
    };
    let _none_starts = open();
    LocalExecutorBuilder::new(Placement::Unbound).make().expect("io_uring works here").run(work);
    (dir, tracks)
}

fn segment(dir: &Path) -> PathBuf {
    dir.join("segments/0000000000.segment")
}

fn rot(dir: &Path, offset: u64) {
    let file = fs::File::options().write(true).open(segment(dir)).expect("opens");
    file.write_all_at(b"rot", offset).expect("writes");
}

#[test]
fn inspect_tells_segments_and_records() {
    let (dir, tracks) = volume();
    let (told, code) = said(&["inspect", text(dir.path()), "--records"]);
    let id = TrackId::of(&tracks[0]).to_string();
    for part in [
        &format!("volume {} of node {}", "07".repeat(16), "09".repeat(32))[..],
        "1 segments (0 sealed), 2 tracks",
        "segment 0 open: generation ",
        "snapshot of shard 0 of 1",
        &format!("4096 {id} track of 200004 bytes"),
        "\"Blue Moon\"",
        "takedown 5",
    ] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    assert_eq!(code, Some(0));
    let (told, _) = said(&["inspect", text(dir.path()), "--records", "--json"]);
    let lines: Vec<serde_json::Value> = told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0]["volume"]["segments"][0]["tracks"], 2);
    assert_eq!(lines[1]["segment"]["records"][0]["id"], id);
    assert_eq!(said(&["inspect", text(dir.path()), "--segment", "5"]).1, Some(1));
    let (told, code) = said(&["inspect", "/nowhere"]);
    assert!(code == Some(1) && told.contains("no volume"), "{told}");
}

#[test]
fn verify_ends_with_0_1_or_2() {
    let (dir, tracks) = volume();
    let (told, code) = said(&["verify", text(dir.path())]);
    assert!(code == Some(0) && told.contains("2 tracks proved") && told.ends_with("clean\n"), "{told}");
    // A frame of the first record.
    rot(dir.path(), 8192);
    let id = TrackId::of(&tracks[0]).to_string();
    let (told, code) = said(&["verify", text(dir.path())]);
    let line = format!("DAMAGED segment 0 offset 4096 {id}: frame 0");
    assert!(code == Some(1) && told.contains(&line) && told.contains("DAMAGED: 1 findings"), "{told}");
    let (told, _) = said(&["verify", text(dir.path()), "--json"]);
    let lines: Vec<serde_json::Value> = told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["finding"]["id"], &lines[0]["finding"]["kind"]), (&id.into(), &"track".into()));
    assert_eq!((&lines[1]["report"]["damaged"], &lines[1]["report"]["tracks"]), (&1.into(), &1.into()));

    let lock = fs::File::open(dir.path().join("volume.deadwax")).expect("opens");
    lock.lock().expect("locks");
    let (told, code) = said(&["verify", text(dir.path())]);
    assert!(code == Some(2) && told.contains("in use"), "{told}");
    let (told, code) = said(&["inspect", text(dir.path())]);
    assert!(code == Some(0) && told.contains("WARNING"), "{told}");
    assert_eq!(said(&["verify", "/nowhere"]).1, Some(2));
    assert_eq!(said(&["verify"]).1, Some(2));
}

#[test]
fn salvage_fills_a_folder_and_goes_on_where_it_stopped() {
    let (dir, tracks) = volume();
    let out = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let to = text(out.path());
    fs::remove_file(dir.path().join("volume.deadwax")).expect("removes");
    let (told, code) = said(&["salvage", text(dir.path()), "--to", to]);
    assert!(code == Some(0) && told.contains("2 tracks salvaged"), "{told}");
    for (track, ending) in tracks.iter().zip(["ogg", "track"]) {
        let id = TrackId::of(track).to_string();
        let path = out.path().join(&id[..2]).join(&id[2..4]).join(&id).with_extension(ending);
        assert!(fs::read(&path).expect("there") == *track);
        let tags = fs::read_to_string(path.with_extension("json")).expect("there");
        assert!(tags.contains("Blue Moon"), "{tags}");
    }
    let file = segment(dir.path());
    let (told, code) = said(&["salvage", text(&file), "--to", to]);
    assert!(code == Some(0) && told.contains("0 tracks salvaged (0 kB), 2 there already"), "{told}");
    rot(dir.path(), 8192);
    let (told, code) = said(&["salvage", text(&file), "--to", to, "--json"]);
    assert!(code == Some(1) && told.contains("\"damaged\":1"), "{told}");
    assert_eq!(said(&["salvage", text(dir.path())]).1, Some(2), "it needs --to");
    let empty = out.path().join("empty");
    fs::create_dir(&empty).expect("made");
    assert_eq!(said(&["salvage", text(&empty), "--to", to]).1, Some(1));
}
