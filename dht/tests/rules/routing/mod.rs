//! Routing without the full map: tables and lookups by themselves, and networks of real routers on simulated time.

mod bytes;
mod large;
mod lookup;
mod mapped;
mod net;
mod network;
mod table;

use crate::random;
