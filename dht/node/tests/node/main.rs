//! A real node on real directories, asked over the real wire by a plain blocking socket.

mod abuse;
mod cluster;
mod drives;
mod heal;
mod lifecycle;
mod peer;
mod reload;
mod requests;
