//! Looking into volumes at rest, on any machine: without io_uring or O_DIRECT, and without writing a byte to them.
//!
//! [`inspect`] tells what a volume's files say, [`verify`] proves all of it, [`salvage`] copies tracks out of what is left.
//! They share nothing with the engine that serves but the format, so what one gets wrong the other may find.

mod finding;
mod image;
mod inspect;
mod salvage;
mod segment;
mod track;
mod tree;
mod verify;
mod walk;

pub use finding::{Finding, FindingKind, Progress};
pub use inspect::{
    PartReport, RecordReport, RecordState, SegmentReport, SnapshotListing, SnapshotReport, VolumeReport, inspect,
    inspect_segment,
};
pub use salvage::{Kept, SalvageOptions, SalvageReport, Sink, salvage};
pub use verify::{VerifyReport, verify};
