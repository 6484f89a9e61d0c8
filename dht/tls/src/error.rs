//! Why there is no session, or no key.

use std::io;
use std::path::PathBuf;

/// Why a connection cannot be gone on with.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TlsError {
    /// The other end speaks the wire protocol without TLS.
    #[error(
        "the other end speaks without TLS: set `tls = true` in its settings, or leave that out at both ends (and --key, in a command)"
    )]
    Plain,
    /// What came is the beginning of nothing that is known here.
    #[error("what came is not TLS: it begins with byte {0:#04x}")]
    NotTls(u8),
    /// The handshake, or a record, is not as it must be: not all there, forged, damaged, of another version.
    #[error("TLS: {0}")]
    Broken(String),
    /// The peer ended the session before it was there.
    #[error("closed by the peer during the handshake")]
    Closed,
    /// It sends what is too long for any message, or without end what is to be answered, and takes nothing.
    #[error("the peer sends more than it may")]
    Flooded,
}

impl From<rustls::Error> for TlsError {
    fn from(why: rustls::Error) -> Self {
        Self::Broken(why.to_string())
    }
}

impl From<TlsError> for io::Error {
    fn from(why: TlsError) -> Self {
        Self::new(io::ErrorKind::InvalidData, why)
    }
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error("there is no key {0}: `deadwax cluster init` makes keys")]
    Missing(PathBuf),
    /// It is there, and is no key, or not only its owner's.
    #[error("use key {path}: {why}")]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It, or its directory, cannot be read or written.
    #[error("use key {path}: {why}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: io::Error,
    },
}
