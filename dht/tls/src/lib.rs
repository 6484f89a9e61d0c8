//! TLS 1.3 between nodes, and between them and their clients: both ends prove that they have an Ed25519 key, and are
//! named by it. No sockets.
//!
//! **Promise.** After [`Session::handshake`] the other end has the key whose BLAKE3 is the [`NodeId`] that it gave,
//! whatever it says of itself; nobody between reads or changes a byte without it being noticed. Whatever comes from a
//! socket is a value or an error, never a panic, and every buffer has a bound. Keys are raw public keys
//! ([RFC 7250](https://www.rfc-editor.org/rfc/rfc7250)): there are no certificates, names, or authorities, and who is
//! admitted is not decided here.
//!
//! **Where to start.** [`Identity`] is made from a node's key and gives out sessions; [`Session`] is one connection's
//! end, which somebody with a socket drives; [`load_key`] and [`load_or_make_key`] are the files of keys.
//!
//! **Absent on purpose.** TLS 1.2, tickets, resumption and early data: connections are kept, and a handshake costs less
//! than what a replayed request could. Revocation: who is out of the map, or of a node's settings, is out.
//!
//! [`NodeId`]: deadwax_dht::NodeId

mod buffer;
mod error;
mod identity;
mod key_file;
mod session;
mod verify;

pub use error::{KeyError, TlsError};
pub use identity::Identity;
pub use key_file::{load_key, load_or_make_key};
pub use session::{Read, Session};
