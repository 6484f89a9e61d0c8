//! How a node finds others, and a partition's holders, without the full map: Kademlia, without I/O.
//!
//! **Promise.** From any one live address a [`Router`] joins the network, learns the newest map's epoch and who has it,
//! and resolves a partition: the k nodes nearest a partition's prefix keep its [`PartitionRecord`]. A lookup never
//! answers *absent* where it cannot be sure ([`Lookup`] says what that takes). A node that has the full map answers at
//! once, with no lookup, and what it answers to others are the true nearest of its whole [`Directory`]. Everything is
//! bounded: [`RouterSettings`] and the types' own docs say by what.
//!
//! **Where to start.** [`Router`] is one node's machine; it composes a [`Table`] of whom it knows, a [`Lookup`] for
//! each search, and the [`Records`] that it keeps for others. The driver carries [`Request`]s and [`Response`]s, as the
//! bytes of [`Asked`] and [`Answered`].
//!
//! **Sources.** Maymounkov and Mazières, "Kademlia: A Peer-to-peer Information System Based on the XOR Metric", 2002.
//! Of Baumgart and Mies, "S/Kademlia", 2007, only the rule that a contact must prove its id before it comes into a
//! table: the driver hands in only contacts whose key the connection has shown. Its other defences (puzzles, disjoint
//! paths) are for networks that anybody may join; here the map admits.
//!
//! **Absent on purpose.** Connections, fetching the map, finding out who lives (a driver that knows says so:
//! [`Router::handle_down`]).

mod codec;
mod directory;
mod distance;
mod lookup;
mod message;
mod record;
mod router;
mod settings;
mod table;

pub use codec::{Answered, Asked, MESSAGE_BYTES_MAX};
pub use directory::Directory;
pub use distance::{Distance, Key};
pub use lookup::{Lookup, LookupRules, LookupStep, Outcome, Told};
pub use message::{ADDRESS_BYTES_MAX, ANNOUNCED_MAX, CONTACTS_MAX, Contact, Request, Response};
pub use record::{PartitionRecord, RECORD_HOLDERS_MAX, RecordHolder, Records};
pub use router::{Busy, Effect, Peer, Resolution, Router};
pub use settings::RouterSettings;
pub use table::{Table, TableRules};
