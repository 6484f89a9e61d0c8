//! Drives: volumes, which keep tracks, and the system drive, which keeps what a node knows of the cluster.

mod system;
mod volume;

pub(crate) use self::system::{System, SystemOp};
pub(crate) use self::volume::{Drive, State, tag_of};
