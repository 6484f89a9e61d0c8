//! What the `deadwax` command does, as a library, so that tests and tools can use its parts.
//!
//! **Promise.** A command says what it did and what it could not do, goes on past one bad item, never loses what it was
//! given, and ends with 0 where all went well, 1 where something failed and 2 where it was not understood. With `--json` all
//! that it prints is lines of JSON, and why it failed is one, too. Where nobody reads them any more it ends quietly. A fetched
//! file has its name only once it is proved; an imported one is reported stored only once it is durable.
//!
//! **Where to start.** [`cli`] is the command line; [`command`] has a file for each command. [`layout`] says where a
//! cluster's files lie and makes them; [`children`] starts its processes. [`importer`] and [`download`] move tracks
//! through [`http`]; operators' commands go to the [`masters`] themselves, and [`follow`] stays with what they move.
//! [`salvaged`] is where salvaged tracks go. [`album`] makes the demo's music.
//!
//! **Absent on purpose.** What a master does (`deadwax-node`) and what a gateway does (`deadwax-gateway`): their
//! commands here read settings and hand over. TLS and tokens come with the rest of the cluster's trust.

pub mod album;
pub mod backoff;
pub mod change;
pub mod children;
pub mod cli;
pub mod cluster;
pub mod command;
pub mod difference;
pub mod download;
pub mod follow;
pub mod heap;
pub mod http;
pub mod importer;
pub mod join_token;
pub mod labels;
pub mod layout;
pub mod log;
pub mod masters;
pub mod music;
pub mod names;
pub mod node_address;
pub mod node_spec;
pub mod payload;
pub mod progress;
pub mod replacement;
pub mod salvaged;
pub mod settings;
pub mod synth;
pub mod table;
pub mod unread;
pub mod upload;
pub mod wav;
