//! A real node on real directories, asked over the real wire by a plain blocking socket.

mod abuse;
mod callers;
mod cluster;
mod drives;
mod heal;
mod lifecycle;
mod mapped;
mod operators;
mod peer;
mod reload;
mod requests;
mod scrubs;
mod secure;
mod speed;
mod system_drive;
mod takedowns;
mod tokens;
mod versions;
