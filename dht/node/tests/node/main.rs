//! A real node on real directories, asked over the real wire by a plain blocking socket.

mod abuse;
mod cluster;
mod lifecycle;
mod peer;
mod requests;
