//! Liveness: networks of real machines on simulated time, the rules of standing and brake by themselves, and arbitrary
//! bytes.

mod bytes;
mod cells;
mod failures;
mod net;
mod rules;
