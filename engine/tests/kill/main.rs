//! Real processes, killed with SIGKILL at random moments under load: whatever was acknowledged is there afterwards.
//!
//! A process opens a volume and does many things at once to it, telling each before it begins and after it returned. Its
//! parent kills it at some moment, hears the rest of the story, opens the volume, and compares. The same volume goes
//! on through many kills, so that its log gets old. What is tested is this machine's memory of a process's writes, not
//! of writes that the drive lost: that takes a simulated one.

mod drive;
mod load;
mod model;
mod process;
mod story;
mod tracks;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deadwax_engine::{
    ErrorKind, GlommioHost, Volume, VolumeConfig, VolumeId, VolumeIdentity, VolumeState, format_volume,
};
use deadwax_track::{ByteRange, MIB, TrackId};
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use tempfile::TempDir;

use crate::drive::{FileSystem, LoopDrive};
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

/// Small segments, so that a volume soon has many, and a reserve that is worth its name on a small drive.
fn config(dir: &Path) -> VolumeConfig {
    VolumeConfig { segment_bytes: 4 * MIB, reserve_bytes: 2 * MIB, ..VolumeConfig::new(dir, IDENTITY) }
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
    model: Model,
    /// Of the tracks that were ever named: reckoning one takes the whole track.
    ids: BTreeMap<u64, TrackId>,
    torn: u64,
}

impl Life {
    fn begin(dir: &Path, volume_seed: u64) -> Self {
        format_volume(dir, &IDENTITY).expect("formats");
        Self { volume_seed, dir: dir.to_owned(), model: Model::default(), ids: BTreeMap::new(), torn: 0 }
    }

    /// One process's life on the volume, and what it left.
    fn go_on(&mut self, dice: &mut Dice) -> Result<(), String> {
        let orders = Orders {
            seed: dice.next(),
            volume_seed: self.volume_seed,
            next_number: self.model.next_number(),
            dir: self.dir.clone(),
        };
        for line in run_and_kill(&orders, &Moment::random(dice))? {
            self.model.hear(&line)?;
        }
        let closes = dice.roll(3) == 0;
        executor().run(self.check(closes))
    }

    /// Opens the volume and looks at every track that was ever named.
    async fn check(&mut self, closes: bool) -> Result<(), String> {
        let opened = Volume::open(GlommioHost::new(), config(&self.dir)).await;
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
        // Most often the volume is left as by a process that ends without a word.
        if closes {
            volume.close().await;
        }
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
fn live(dir: &Path, seed: u64, at_least: u32, enough: impl Fn(&Model) -> bool) -> Life {
    let mut dice = Dice(seed);
    let mut life = Life::begin(dir, dice.next());
    let mut kills = 0;
    while kills < at_least || (!enough(&life.model) && kills < at_least * LONGER_MAX) {
        kills += 1;
        if let Err(why) = life.go_on(&mut dice) {
            panic!("seed {seed:#x}, kill {kills}: {why}");
        }
    }
    let Life { model, torn, .. } = &life;
    let Model { outcomes, cut_off, cut_off_and_done, .. } = model;
    let (stored, taken_down) = (model.count(State::Stored), model.count(State::TakenDown));
    println!(
        "seed {seed:#x}: {kills} kills cut off {cut_off} operations, of which {cut_off_and_done} were done all the same"
    );
    println!("    left {stored} tracks stored, {taken_down} taken down; {torn} torn records cut; {outcomes:?}");
    assert!(*cut_off >= u64::from(kills), "seed {seed:#x}: only {cut_off} operations were under way when killed");
    life
}

#[test]
fn what_was_acknowledged_survives_a_hundred_and_forty_kills() {
    for seed in 1..=7 {
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        live(dir.path(), seed, 20, |_| true);
    }
}

#[test]
fn what_was_acknowledged_survives_sixty_kills_on_a_drive_that_runs_full() {
    for seed in 101..=103 {
        let Some(drive) = LoopDrive::mount_or_skip(FileSystem::Ext4, "twenty kills") else { return };
        let dir = drive.path().join("volume");
        let full = |model: &Model| model.outcomes.get(&(Operation::Put, Outcome::NoSpace)).copied().unwrap_or(0);
        // Space that takedowns freed is used again.
        let life = live(&dir, seed, 20, |model| full(model) >= 10 && model.stored_after_full >= 10);
        let Model { outcomes, stored_after_full, .. } = &life.model;
        assert!(full(&life.model) >= 10 && *stored_after_full >= 10, "seed {seed}: {outcomes:?}, {stored_after_full}");
    }
}
