//! Takedowns: the log, the lease, the receipts, their bytes, and networks of nodes that follow each other.

mod codec;
mod follow;
mod lease;
mod log;
mod network;
mod parted;
mod receipts;
mod seeded;
mod witnesses;
