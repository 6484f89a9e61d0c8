//! Why a request failed, as the wire says it.

use serde::{Deserialize, Serialize};

/// What a client does about an error. The order is part of the wire format: append only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ErrorCode {
    /// A queue is full: ask again, later or elsewhere.
    Busy,
    /// The volume does not have the track: one holder's word, not the cluster's.
    NotFound,
    /// The track was taken down: stop, whatever other holders say.
    TakenDown {
        /// The takedown's number.
        number: u64,
    },
    /// The volume is full: store elsewhere, or give up.
    NoSpace,
    /// The stored bytes failed their checksum: ask another holder.
    Corrupt,
    /// The request makes no sense, or the bytes sent are not the id's: do not repeat it.
    Invalid,
    /// Another node, or a node that does not have that volume: the map is wrong.
    WrongNode,
    /// Another cluster: the map or the address is wrong.
    WrongCluster,
    /// The node has a newer map: fetch it, ask again.
    Moved {
        /// The epoch of its map.
        epoch: u64,
    },
    /// No common protocol version.
    Version,
    /// The volume takes no part: ask another holder.
    Fenced,
    /// The node failed: ask another holder.
    Internal,
    /// The node serves enough other nodes: come again then. Said to nodes that pull, which speak version 3.
    Later {
        /// In so many milliseconds.
        after_ms: u64,
    },
    /// Whoever has that key may not ask this, or nothing at all: do not repeat it before the settings say otherwise. Said
    /// over TLS only, which came with version 4.
    NotAdmitted,
}
