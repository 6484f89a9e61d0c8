//! How patient a client is, and how much it holds.

use deadwax_dht_tls::Identity;
use serde::{Deserialize, Serialize};

/// Settings of a [`Client`](crate::Client). They may differ from machine to machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientConfig {
    /// The zone that the client is in, by the map's name for it: its holders are asked first. Default: none. One that the map
    /// does not have prefers nobody.
    pub zone: Option<String>,
    /// How long connecting to a node may take, greeting included. Default 1,000. A shorter time moves on sooner, a
    /// time below the network's round trips finds every node down.
    pub connect_ms: u64,
    /// How long a node may take to its first answer, connecting included. Default 2,000. A request that must wait for
    /// one of `connections_max` waits as long again at most.
    pub first_ms: u64,
    /// How long a node that sends a track may pause before another holder is asked for the rest. Default 3,000.
    pub read_stall_ms: u64,
    /// How long a node that receives a track may take nothing before it is left out of the put. Default 5,000.
    pub write_stall_ms: u64,
    /// How long a node may take from the last byte sent to its word that all is durable. Default 30,000.
    pub durable_ms: u64,
    /// How long a put that could begin waits for a holder that has not answered, and how long a holder that is busy
    /// is offered the track again. Default 2,000: a slow drive may take a second to make room. The copy of a holder
    /// that is left out is missing until it is repaired.
    pub put_grace_ms: u64,
    /// The same, for a holder that was out of reach when last heard of. Default 50.
    pub put_grace_suspect_ms: u64,
    /// How long a holder may take to answer before a node of its zone that holds no copy is asked to stand in for it, and
    /// that one before the next is. Default 800. A stand-in's copy never counts to the write quorum; the holder fetches it
    /// when it is back. A shorter time makes copies that were not needed, and are removed again.
    pub put_stand_in_ms: u64,
    /// How long a put may take in all, from the offer to the acknowledgement. Default 86,400,000, a day: what stalls
    /// ends sooner, by the times above; this ends what crawls.
    pub put_ms: u64,
    /// How long a get may take in all, without the time that its reader is elsewhere. Default 86,400,000.
    pub get_ms: u64,
    /// How long a node that was out of reach is asked last. Default 1,000.
    pub suspect_ms: u64,
    /// How long an idle connection is kept. Default 20,000; below the time after which nodes close one.
    pub idle_ms: u64,
    /// How many idle connections to one node are kept. Default 64.
    pub idle_max: usize,
    /// How many connections to one node there may be, idle ones aside; who needs one more waits. Default 512.
    pub connections_max: usize,
    /// How many bytes of one put may wait for one holder; the sender waits when there are more. Default 4 MiB; at
    /// least 1 MiB.
    pub put_queue_bytes_max: usize,
    /// How long an operator's command may take, from looking for the node that leads to its answer. Default 60,000. Below
    /// some 20,000 a command is given up that waits for a new leader.
    pub command_ms: u64,
    /// How long gathering a status may take. Default 10,000; what did not answer by then counts as down.
    pub status_ms: u64,
    /// How long ago a volume's tracks may have been read and checked last for a status to call it healthy, in seconds. Default
    /// 5,184,000, 60 days: at nodes' own default rate some 20 TiB are read in that time. Less finds rot while other copies
    /// are whole, and wants a higher `scrub_bytes_per_second` at nodes.
    pub verified_within_s: u64,
    /// The key that nodes know the client by, which their settings name (`clients`). Default none: connections are plain.
    /// Set it where the nodes' settings say `tls = true`, and only there. No setting of a file: files hold no keys.
    #[serde(skip)]
    pub identity: Option<Identity>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            zone: None,
            connect_ms: 1_000,
            first_ms: 2_000,
            read_stall_ms: 3_000,
            write_stall_ms: 5_000,
            durable_ms: 30_000,
            put_grace_ms: 2_000,
            put_grace_suspect_ms: 50,
            put_stand_in_ms: 800,
            put_ms: 86_400_000,
            get_ms: 86_400_000,
            suspect_ms: 1_000,
            idle_ms: 20_000,
            idle_max: 64,
            connections_max: 512,
            put_queue_bytes_max: 4 << 20,
            command_ms: 60_000,
            status_ms: 10_000,
            verified_within_s: 5_184_000,
            identity: None,
        }
    }
}
