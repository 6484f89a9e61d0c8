//! Random lives of a volume on a simulated drive, beside a map that is always right. Test support: nothing that serves
//! tracks uses it.
//!
//! A [`Story`] is a drive, the [`Oracle`] that knows what it may hold, and the chance that decides what happens. Each of
//! its lives opens the volume, compares all that it holds with the oracle, and does operations from several tasks until it
//! ends or is cut at a device operation; then the power may go. What differs is a panic. [`run`] goes through one seed's
//! story after the other until enough was done, and names the seed of one that fails; [`replay`] shows what that one asked
//! of its drive.
//!
//! The engine's tests run it each time, and `deadwax-perf crash` for longer.

mod fixture;
mod oracle;
mod run;
mod story;
mod world;

pub use self::fixture::{DIRECTORY, audio, compressible, config, formatted, put, tags};
pub use self::oracle::{Known, Oracle, compare};
pub use self::run::{Failure, Limits, Ran, replay, run, seeds};
pub use self::story::{Plan, Story};
