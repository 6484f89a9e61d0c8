//! The gateway: a thin HTTP front for the cluster. Parse, look in the cache, ask the masters, stream.
//!
//! **Promises.** Every byte that is served was proved by the track's manifest, which is proved by its id; a body that
//! cannot be completed is cut off with its connection and never looks whole. An upload is answered 201 after a write
//! quorum holds it durably, and stores nothing where it is cut off, too long, or not the bytes of its id. Memory stays
//! flat however large a track is. *404*, *410* and *503* say different things: it is not there, it was taken down, it
//! cannot be told now.
//!
//! HTTP is kept to the letter of RFC 9110 and 9112: single and multipart ranges (at most 64, overlapping ones are
//! joined; more, or malformed ones, give the whole track), conditions (a strong ETag, the id; no dates), `HEAD`,
//! `Expect: 100-continue` (an upload that is refused or stored already is answered before it is sent), keep-alive.
//!
//! | request | answers |
//! |---|---|
//! | `PUT /v1/tracks/{id}` | 201, 200 (was stored); 400 empty, cut_off, bad_id, bad_tags; 408; 410; 413; 415; 422; 503; 507 |
//! | `POST /v1/tracks` | the same |
//! | `GET`, `HEAD /v1/tracks/{id}` | 200, 206, 304; 400 bad_id; 404; 410; 412; 416; 503 |
//! | `DELETE /v1/tracks/{id}` | 202 `{"takedown", "nodes", "nodes_of"}`, see below; 400 bad_reason; 503 |
//! | `GET /v1/takedowns/{n}` | 200 `{"takedown", "track", "issued_ms", "reason", "complete", "copies"}`; 404; 503 |
//! | `GET /v1/tracks/{id}/tags`, `/manifest` | 200 JSON; 404; 410; 503 |
//! | `GET /v1/status`, `/metrics`, `/healthz`, `/readyz` | 200; `/readyz` 503 where too few nodes answer for a put |
//!
//! Each thread has its own runtime, listener (`SO_REUSEPORT`) and connections to masters; the cache, what is known of
//! tracks, and the counters are shared. Start with `server.rs` (threads), `route.rs` (requests), `track_get.rs` and
//! `download.rs` (reads), `upload.rs` (writes); `range.rs`, `conditional.rs` and `multipart.rs` are pure.
//!
//! **Takedowns.** 202 is said once a majority of the takedowns' members (`nodes` of `nodes_of` masters) has the record on
//! its drives. No master serves the track later than 60 s after that, whatever is cut off or lost; those that are up and in
//! touch refuse it at once, to putters too, and those that were down hear of it before they serve. `Deadwax-Reason`, at most
//! 78 bytes, is signed with it. Asked again, the number is the same. One through this gateway empties it before the
//! 202, one through another gateway within a second, as it follows the masters' log, or 5 s where one of them hangs or is
//! cut off.
//!
//! Where the map never changes there is no such log: each holder is told, and 202 `{"takedown", "copies"}` said when all
//! have confirmed; a gateway notices by asking the holders of each served track once a second, behind the answers: one
//! that nobody asked for meanwhile may be served once more from memory.
//!
//! Absent on purpose, for now: TLS, tokens and HTTP/2 (hence the refusal to listen beyond loopback unless told so),
//! search, the tracker for peers, conditions on uploads (a put is idempotent).

mod body;
mod conditional;
mod config;
mod connection;
mod download;
mod failure;
mod fetch;
mod known;
mod masters;
mod metrics;
mod multipart;
mod range;
mod route;
mod server;
mod spool;
mod status;
mod takedowns;
mod track_get;
mod upload;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;

use deadwax_dht_client::KeyError;

pub use config::{Config, Limits};
pub use server::{run, run_until};

/// Why a gateway does not start, or ended otherwise than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It would be open to everyone.
    #[error(
        "refuse to listen on {0}: without TLS and tokens whoever reaches it reads, stores and takes down tracks; \
         listen on loopback, or set insecure_listen = true to allow it"
    )]
    InsecureListen(SocketAddr),
    /// The key by which masters know the gateway cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A setting makes no sense.
    #[error("setting {key} {why}")]
    Setting {
        /// Its name in the file.
        key: &'static str,
        /// What it must be.
        why: &'static str,
    },
    /// The map cannot be had, or is none.
    #[error("read the cluster map: {why}")]
    Map {
        /// What is wrong with it, and where it is.
        why: String,
    },
    /// The spool directory cannot be made or written, or its file system has no nameless files (`O_TMPFILE`).
    #[error("use spool directory {}: {source}", dir.display())]
    Spool {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The cache's memory cannot be had.
    #[error("map {bytes} bytes for the cache: {source}")]
    Cache {
        /// How much was asked for.
        bytes: u64,
        /// Why not.
        source: std::io::Error,
    },
    /// The address cannot be listened on.
    #[error("listen on {address}: {}", listen_why(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The system gives no thread, runtime or signal handler.
    #[error("start a runtime: {0}")]
    Runtime(std::io::Error),
    /// A serving thread panicked: a bug.
    #[error("a serving thread panicked, see the log")]
    Panicked,
}

fn listen_why(source: &std::io::Error) -> String {
    if source.kind() == std::io::ErrorKind::AddrInUse {
        "the port is in use; stop whatever listens there, or choose another".to_owned()
    } else {
        source.to_string()
    }
}
