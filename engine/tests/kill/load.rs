//! The process under load: works on a volume until it is killed, and tells its story into a pipe.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::rc::Rc;

use deadwax_engine::{Error, ErrorKind, GlommioHost, Volume};
use deadwax_track::ByteRange;

use crate::story::{Line, Operation, Outcome};
use crate::tracks::{Dice, Track, takedown_of};
use crate::{config, executor};

/// Set for the process under load, to [`Orders`] as text.
pub(crate) const VARIABLE: &str = "DEADWAX_ENGINE_TEST_LOAD";

/// How many operations go on at once: enough that flushes are shared, and that any moment has some half done.
const WORKERS: u64 = 6;
/// How much of a track goes into one call.
const CHUNK_BYTES: usize = 100_000;

/// What the process is to do.
pub(crate) struct Orders {
    /// Of the operations.
    pub(crate) seed: u64,
    /// Of the tracks.
    pub(crate) volume_seed: u64,
    /// The first track that nothing was done to yet.
    pub(crate) next_number: u64,
    /// Where deletes begin: tracks that were put one after the other go one after the other, so that segments get hollow.
    pub(crate) oldest_stored: u64,
    /// See [`VolumeConfig::capacity_bytes_max`](deadwax_engine::VolumeConfig); 0 for none.
    pub(crate) capacity_bytes_max: u64,
    pub(crate) dir: PathBuf,
}

impl Orders {
    pub(crate) fn to_text(&self) -> String {
        let Self { seed, volume_seed, next_number, oldest_stored, capacity_bytes_max, dir } = self;
        format!("{seed} {volume_seed} {next_number} {oldest_stored} {capacity_bytes_max} {}", dir.display())
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut words = text.splitn(6, ' ');
        let mut number = || words.next()?.parse().ok();
        Some(Self {
            seed: number()?,
            volume_seed: number()?,
            next_number: number()?,
            oldest_stored: number()?,
            capacity_bytes_max: number()?,
            dir: words.next()?.into(),
        })
    }
}

/// Runs until it is killed, or something fails that must not.
pub(crate) fn run(orders: &str) {
    let orders = Orders::from_text(orders).expect("orders of the parent's");
    // The one descriptor that a child is sure to get: the parent made it a pipe's writing end.
    let pipe = File::from(std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor"));
    executor().run(async move {
        let tell = Tell(Rc::new(pipe));
        tell.line(&Line::Opening);
        let volume = match Volume::open(GlommioHost::new(), config(&orders.dir, orders.capacity_bytes_max)).await {
            Ok((volume, _)) => volume,
            Err(error) => return tell.line(&Line::Failed(format!("open: {error}"))),
        };
        tell.line(&Line::Opened);
        let work =
            Rc::new(Work { volume, tell, volume_seed: orders.volume_seed, turn: RefCell::new(Turn::first(&orders)) });
        let workers: Vec<_> = (0..WORKERS).map(|_| glommio::spawn_local(work.clone().go_on())).collect();
        for worker in workers {
            worker.await;
        }
    });
}

/// The pipe to the parent. A parent that is gone ends this process, with a panic.
struct Tell(Rc<File>);

impl Tell {
    fn line(&self, line: &Line) {
        (&*self.0).write_all(format!("{line}\n").as_bytes()).expect("the parent listens");
    }
}

struct Work {
    volume: Volume<GlommioHost>,
    tell: Tell,
    volume_seed: u64,
    turn: RefCell<Turn>,
}

/// What can be done, and how often it is: `None` frees hollow segments.
type Weights = [(Option<Operation>, u64); 6];

/// Of a process that fills the drive.
const FILLS: Weights = [
    (Some(Operation::Put), 11),
    (Some(Operation::Abort), 2),
    (Some(Operation::TakeDown), 4),
    (Some(Operation::Delete), 1),
    (Some(Operation::Read), 3),
    (None, 1),
];
/// Of one that clears it.
const CLEARS: Weights = [
    (Some(Operation::Put), 4),
    (Some(Operation::Abort), 1),
    (Some(Operation::TakeDown), 2),
    (Some(Operation::Delete), 10),
    (Some(Operation::Read), 2),
    (None, 3),
];
/// One process in so many clears.
const CLEARS_ONE_IN: u64 = 3;

/// What is next.
struct Turn {
    dice: Dice,
    weights: &'static Weights,
    next: u64,
    /// Where the next delete looks.
    delete_next: u64,
    /// Tracks that something is done to: one thing at a time, so that what a track may be is always known.
    busy: BTreeSet<u64>,
}

impl Turn {
    fn first(orders: &Orders) -> Self {
        let mut dice = Dice(orders.seed);
        let weights = if dice.roll(CLEARS_ONE_IN) == 0 { &CLEARS } else { &FILLS };
        Self { dice, weights, next: orders.next_number, delete_next: orders.oldest_stored, busy: BTreeSet::new() }
    }

    fn draw(&mut self) -> Option<(Operation, u64)> {
        loop {
            let mut roll = self.dice.roll(self.weights.iter().map(|(_, weight)| weight).sum());
            let chosen = self.weights.iter().find(|(_, weight)| {
                let found = roll < *weight;
                roll = roll.saturating_sub(*weight);
                found
            });
            let operation = chosen.expect("below the sum").0?;
            // Puts are mostly of new tracks, and deletes of the oldest; everything else, and some of these, of any.
            let in_turn = self.dice.roll(5) > 0;
            let number = match operation {
                Operation::Put | Operation::Abort if in_turn => self.next,
                Operation::Delete if in_turn => self.oldest(),
                _ if self.next == 0 => 0,
                _ => self.dice.roll(self.next),
            };
            self.next = self.next.max(number + 1);
            if self.busy.insert(number) {
                return Some((operation, number));
            }
        }
    }

    /// The next of the oldest tracks. Some are left, for compaction to move.
    fn oldest(&mut self) -> u64 {
        self.delete_next += 1 + u64::from(self.dice.roll(8) == 0);
        if self.delete_next > self.next {
            self.delete_next = 1;
        }
        self.delete_next - 1
    }
}

impl Work {
    async fn go_on(self: Rc<Self>) {
        loop {
            let drawn = self.turn.borrow_mut().draw();
            let Some((operation, number)) = drawn else {
                if let Err(why) = self.compact().await {
                    self.tell.line(&Line::Failed(format!("compaction: {why}")));
                    break;
                }
                continue;
            };
            let track = Track::of(self.volume_seed, number);
            let cut = self.turn.borrow_mut().dice.roll(track.bytes.len() as u64 + 1);
            self.tell.line(&Line::Begin(operation, number));
            let outcome = match operation {
                Operation::Put => self.put(&track).await,
                Operation::Abort => self.abort(&track, cut).await,
                Operation::TakeDown => self.take_down(&track, number).await,
                Operation::Delete => self.volume.delete(&track.id).await.map(|()| Outcome::Done),
                Operation::Read => self.read(&track).await,
            };
            match outcome.or_else(outcome_of) {
                Ok(outcome) => self.tell.line(&Line::End(operation, number, outcome)),
                Err(error) => {
                    self.tell.line(&Line::Failed(format!("{operation:?} of track {number}: {error}")));
                    break;
                }
            }
            self.turn.borrow_mut().busy.remove(&number);
            // What is answered from memory would otherwise keep the others from their turn.
            futures_lite::future::yield_now().await;
        }
    }

    async fn compact(&self) -> Result<(), Error> {
        self.tell.line(&Line::Compacting);
        match self.volume.compact().await {
            // There may be no room to move to.
            Err(error) if error.kind() != ErrorKind::NoSpace => return Err(error),
            _ => {}
        }
        self.tell.line(&Line::Compacted);
        futures_lite::future::yield_now().await;
        Ok(())
    }

    async fn put(&self, track: &Track) -> Result<Outcome, Error> {
        let mut writer = self.volume.put(track.id, track.bytes.len() as u64, &track.tags).await?;
        for chunk in track.bytes.chunks(CHUNK_BYTES) {
            writer.write(chunk).await?;
        }
        writer.finish().await.map(|_| Outcome::Done)
    }

    /// Drops the put after `cut` bytes, which may be none or all of them.
    async fn abort(&self, track: &Track, cut: u64) -> Result<Outcome, Error> {
        let mut writer = self.volume.put(track.id, track.bytes.len() as u64, &track.tags).await?;
        for chunk in track.bytes[..usize::try_from(cut).expect("addresses are 64 bits")].chunks(CHUNK_BYTES) {
            writer.write(chunk).await?;
        }
        Ok(Outcome::Done)
    }

    async fn take_down(&self, track: &Track, number: u64) -> Result<Outcome, Error> {
        let recorded = self.volume.take_down(&track.id, takedown_of(number)).await?;
        if recorded != takedown_of(number) {
            return Err(Error::Invalid(format!("recorded as {recorded}, not as {}", takedown_of(number))));
        }
        Ok(Outcome::Done)
    }

    async fn read(&self, track: &Track) -> Result<Outcome, Error> {
        let whole = ByteRange::new(0, track.bytes.len() as u64).expect("a range");
        let mut reader = self.volume.read(&track.id, Some(whole)).await?;
        let mut rest = &track.bytes[..];
        while let Some(block) = reader.next().await {
            let block = block?;
            for payload in block.payloads() {
                rest = rest.strip_prefix(payload).ok_or_else(|| Error::Invalid("wrong bytes were read".to_owned()))?;
            }
        }
        if rest.is_empty() { Ok(Outcome::Done) } else { Err(Error::Invalid("too few bytes were read".to_owned())) }
    }
}

/// Errors that say what a track is, or that the volume is full, are outcomes. No other one may happen.
fn outcome_of(error: Error) -> Result<Outcome, Error> {
    match error.kind() {
        ErrorKind::AlreadyStored => Ok(Outcome::Stored),
        ErrorKind::NotFound => Ok(Outcome::Missing),
        ErrorKind::TakenDown => Ok(Outcome::Barred),
        ErrorKind::NoSpace => Ok(Outcome::NoSpace),
        _ => Err(error),
    }
}
