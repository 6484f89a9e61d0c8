//! What the masters' refusals mean in HTTP.

use deadwax_dht_client::Error;
use hyper::StatusCode;

use crate::failure::Failure;

/// The answer to a request that the masters did not do.
pub(crate) fn failure(error: &Error) -> Failure {
    let message = error.to_string();
    match error {
        Error::NotFound => Failure::new(StatusCode::NOT_FOUND, "not_found", message),
        Error::TakenDown { .. } => Failure::new(StatusCode::GONE, "taken_down", message),
        Error::Busy(_) => Failure::unavailable("busy", message),
        Error::Unavailable { .. } => Failure::unavailable("unavailable", message),
        Error::Corrupt(_) => Failure::unavailable("corrupt", message),
        Error::NoSpace(_) => Failure::new(StatusCode::INSUFFICIENT_STORAGE, "no_space", message),
        Error::Invalid(_) => Failure::bad("invalid", message),
    }
}
