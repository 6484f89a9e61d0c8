//! Real processes, killed with SIGKILL at random moments under load: whatever was acknowledged is there afterwards.
//!
//! A process opens a volume and does many things at once to it, telling each before it begins and after it returned. Its
//! parent kills it at some moment, hears the rest of the story, opens the volume, and compares. The same volume goes
//! on through many kills, so that its log gets old. What is tested is this machine's memory of a process's writes, not
//! of writes that the drive lost: that takes a simulated one.

mod drive;
mod full_drive;
mod load;
mod model;
mod process;
mod story;
mod tracks;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use deadwax_engine::{
    ErrorKind, GlommioHost, Volume, VolumeConfig, VolumeId, VolumeIdentity, VolumeState, format_volume,
};
use deadwax_track::{ByteRange, MIB, TrackId};
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use tempfile::TempDir;

use crate::full_drive::{FullDrive, in_namespace, say};
use crate::load::Orders;
use crate::model::{Model, State};
use crate::process::{Moment, run_and_kill};
use crate::story::{Operation, Outcome};
use crate::tracks::{Dice, Track, takedown_of};

const IDENTITY: VolumeIdentity = VolumeIdentity { volume: VolumeId([7; 16]), node: [9; 32] };

fn executor() -> LocalExecutor {
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(32 << 20);
    builder.make().expect("io_uring works here")
}

/// Small segments, so that a volume soon has many, and a reserve that is worth its name on a small drive. A capacity of 0 is none.
fn config(dir: &Path, capacity_bytes_max: u64) -> VolumeConfig {
    VolumeConfig {
        segment_bytes: 4 * MIB,
        reserve_bytes: 2 * MIB,
        capacity_bytes_max: Some(capacity_bytes_max).filter(|bytes| *bytes > 0),
        ..VolumeConfig::new(dir, IDENTITY)
    }
}

/// Not a test of its own: the process that the others start and kill.
#[test]
fn works_as_a_process() {
    if let Ok(orders) = std::env::var(load::VARIABLE) {
        load::run(&orders);
    }
}

/// A volume, and what is known of it.
struct Life {
    volume_seed: u64,
    dir: PathBuf,
    capacity_bytes_max: u64,
    model: Model,
    /// Of the tracks that were ever named: reckoning one takes the whole track.
    ids: BTreeMap<u64, TrackId>,
    torn: u64,
    /// The segments that are there, and how many went.
    segments: BTreeSet<OsString>,
    freed: u64,
}

impl Life {
    fn begin(dir: &Path, capacity_bytes_max: u64, volume_seed: u64) -> Self {
        format_volume(dir, &IDENTITY).expect("formats");
        Self {
            volume_seed,
            dir: dir.to_owned(),
            capacity_bytes_max,
            model: Model::default(),
            ids: BTreeMap::new(),
            torn: 0,
            segments: BTreeSet::new(),
            freed: 0,
        }
    }

    /// Counts the segments that went since the last time.
    fn count_freed(&mut self) {
        let entries = std::fs::read_dir(self.dir.join("segments")).expect("lists");
        let there: BTreeSet<_> = entries.map(|entry| entry.expect("lists").file_name()).collect();
        let before = std::mem::replace(&mut self.segments, there);
        let is_segment = |name: &&OsString| Path::new(name).extension().is_some_and(|extension| extension == "segment");
        self.freed += before.difference(&self.segments).filter(is_segment).count() as u64;
    }

    /// One process's life on the volume, and what it left.
    fn go_on(&mut self, dice: &mut Dice) -> Result<(), String> {
        let orders = Orders {
            seed: dice.next(),
            volume_seed: self.volume_seed,
            next_number: self.model.next_number(),
            oldest_stored: self.model.oldest_stored(),
            capacity_bytes_max: self.capacity_bytes_max,
            dir: self.dir.clone(),
        };
        for line in run_and_kill(&orders, &Moment::random(dice))? {
            self.model.hear(&line)?;
        }
        self.model.killed();
        self.count_freed();
        let closes = dice.roll(3) == 0;
        executor().run(self.check(closes))
    }

    /// Opens the volume and looks at every track that was ever named.
    async fn check(&mut self, closes: bool) -> Result<(), String> {
        let opened = Volume::open(GlommioHost::new(), config(&self.dir, self.capacity_bytes_max)).await;
        let (volume, recovery) = opened.map_err(|error| format!("open: {error}"))?;
        self.torn += recovery.torn;
        if recovery.damaged > 0 {
            return Err(format!("a process that dies damages nothing: {recovery:?}"));
        }
        for number in self.model.numbers() {
            let id = *self.ids.entry(number).or_insert_with(|| Track::of(self.volume_seed, number).id);
            let state = observe(&volume, self.volume_seed, number, &id).await;
            self.model.observe(number, state.map_err(|why| format!("track {number}: {why}"))?)?;
        }
        // And none that nobody put.
        let expected = (self.model.count(State::Stored), self.model.count(State::TakenDown));
        if (recovery.tracks, recovery.takedowns) != expected {
            return Err(format!("{recovery:?}, of (tracks, takedowns) {expected:?} are known"));
        }
        if volume.usage().state != VolumeState::Open {
            return Err(format!("the volume is {:?}", volume.usage().state));
        }
        // Most often the volume is left as by a process that ends without a word: one that takes no writes has nothing to say
        // when it is closed, and what goes on by itself in this process is over then.
        if !closes {
            volume.fence_writes("left without a word");
        }
        volume.close().await;
        Ok(())
    }
}

/// What the volume knows of the track; fails where it is stored and not whole.
async fn observe(volume: &Volume<GlommioHost>, seed: u64, number: u64, id: &TrackId) -> Result<State, String> {
    let info = match volume.info(id).await {
        Ok(info) => info,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(State::Absent),
        Err(deadwax_engine::Error::TakenDown { number: recorded, .. }) if recorded == takedown_of(number) => {
            return Ok(State::TakenDown);
        }
        Err(error) => return Err(error.to_string()),
    };
    let track = Track::of(seed, number);
    let bytes = track.bytes.len() as u64;
    if (info.bytes, &info.tags) != (bytes, &track.tags) {
        return Err(format!("{} bytes, not {bytes}; {:?}", info.bytes, info.tags));
    }
    let whole = ByteRange::new(0, bytes).expect("a range");
    let mut reader = volume.read(id, Some(whole)).await.map_err(|error| error.to_string())?;
    let mut rest = &track.bytes[..];
    while let Some(block) = reader.next().await {
        for payload in block.map_err(|error| error.to_string())?.payloads() {
            rest = rest.strip_prefix(payload).ok_or_else(|| format!("differs after {}", bytes - rest.len() as u64))?;
        }
    }
    if rest.is_empty() { Ok(State::Stored) } else { Err(format!("ends {} bytes early", rest.len())) }
}

/// How many times as many kills may follow until there was enough? How much is done before each depends on the machine.
const LONGER_MAX: u32 = 10;

/// Lives through `at_least` kills, and more until there was `enough`; answers what is known then.
fn live(dir: &Path, capacity: Option<u64>, seed: u64, at_least: u32, enough: impl Fn(&Life) -> bool) -> Life {
    let mut dice = Dice(seed);
    let mut life = Life::begin(dir, capacity.unwrap_or(0), dice.next());
    let mut kills = 0;
    while kills < at_least || (!enough(&life) && kills < at_least * LONGER_MAX) {
        kills += 1;
        if let Err(why) = life.go_on(&mut dice) {
            panic!("seed {seed:#x}, kill {kills}: {why}");
        }
    }
    let Life { model, torn, freed, .. } = &life;
    let Model { outcomes, cut_off, cut_off_and_done, killed_compacting, .. } = model;
    let (stored, taken_down) = (model.count(State::Stored), model.count(State::TakenDown));
    println!(
        "seed {seed:#x}: {kills} kills cut off {cut_off} operations, of which {cut_off_and_done} were done all the same"
    );
    println!("    {freed} segments were freed, {killed_compacting} kills fell amid that");
    println!("    left {stored} tracks stored, {taken_down} taken down; {torn} torn records cut; {outcomes:?}");
    assert!(*cut_off >= u64::from(kills), "seed {seed:#x}: only {cut_off} operations were under way when killed");
    life
}

fn count(life: &Life, operation: Operation, outcome: Outcome) -> u64 {
    life.model.outcomes.get(&(operation, outcome)).copied().unwrap_or(0)
}

#[test]
fn what_was_acknowledged_survives_a_hundred_and_forty_kills() {
    let (mut freed, mut killed_compacting) = (0, 0);
    for seed in 1..=7 {
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let enough = |life: &Life| life.freed > 0 && count(life, Operation::Delete, Outcome::Done) >= 10;
        let life = live(dir.path(), None, seed, 20, enough);
        assert!(enough(&life), "seed {seed}: {} segments freed, {:?}", life.freed, life.model.outcomes);
        freed += life.freed;
        killed_compacting += life.model.killed_compacting;
    }
    println!("{freed} segments were freed, {killed_compacting} kills fell amid that");
    assert!(killed_compacting > 0, "no kill fell amid compaction");
}

/// Lives on the drive until puts were refused `at_least` times, and as many were stored in space that deletes and takedowns
/// freed.
fn live_full(drive: &FullDrive, seed: u64, kills: u32, at_least: u64) {
    let full = |life: &Life| count(life, Operation::Put, Outcome::NoSpace);
    let enough = |life: &Life| full(life) >= at_least && life.model.stored_after_full >= at_least;
    let life = live(&drive.path().join("volume"), drive.capacity_bytes_max(), seed, kills, enough);
    let Model { outcomes, stored_after_full, .. } = &life.model;
    assert!(enough(&life), "seed {seed}: {outcomes:?}, {stored_after_full}");
}

/// Twenty kills for each seed, each time on a new drive.
fn kill_on(make: impl Fn() -> Result<FullDrive, String>) -> Result<(), String> {
    for seed in 101..=103 {
        live_full(&make()?, seed, 20, 10);
    }
    Ok(())
}

/// Where no drive can be mounted, the same kills fall on a stand-in, and it says so.
#[test]
fn what_was_acknowledged_survives_sixty_kills_on_a_drive_that_runs_full() {
    if let Some(drive) = FullDrive::of_namespace() {
        return live_full(&drive, 101, 60, 30);
    }
    let Err(why_no_loop) = kill_on(FullDrive::mounted) else { return };
    let test = "what_was_acknowledged_survives_sixty_kills_on_a_drive_that_runs_full";
    let why_no_namespace = match in_namespace(test) {
        Ok(said) => {
            println!("{said}");
            return say(&format!(
                "STAND-IN: sixty kills fell on a bounded tmpfs, not on a small ext4 drive: {why_no_loop}"
            ));
        }
        Err(why) => why,
    };
    kill_on(|| Ok(FullDrive::limited())).expect("always to be had");
    say(&format!(
        "STAND-IN: sixty kills fell on a volume with a limit, not on a small ext4 drive: {why_no_loop}; nor on a bounded \
         tmpfs: {why_no_namespace}"
    ));
}

/// So that what may be needed elsewhere works.
#[test]
fn the_stand_ins_for_a_small_drive_run_full_too() {
    if let Some(drive) = FullDrive::of_namespace() {
        return live_full(&drive, 201, 5, 1);
    }
    live_full(&FullDrive::limited(), 202, 5, 1);
    match in_namespace("the_stand_ins_for_a_small_drive_run_full_too") {
        Ok(said) => println!("{said}"),
        Err(why) => say(&format!("SKIPPED, NOT TESTED: kills on a bounded tmpfs: {why}")),
    }
}
