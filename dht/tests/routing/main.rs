//! Routing without the full map: tables and lookups by themselves, and networks of real routers on simulated time.

mod large;
mod lookup;
mod net;
mod network;
mod table;
