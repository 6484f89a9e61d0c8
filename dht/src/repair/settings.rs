//! How much a node may pull and serve, and how patient it is.

/// What may differ by node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RepairSettings {
    /// What pulls get at least, in bytes a second, however slow the foreground is; what is served has as much again.
    /// Default 20 MB/s, a quarter of what a rotating drive does amid seeks. Lower makes the time longer in which a
    /// second failure can lose tracks. 0 counts as 1.
    pub floor_bytes_s: u64,
    /// What pulls get at most, and what is served as well. Default 60 MB/s, half of a rotating drive's rate. For a node
    /// of many drives set both higher. Less than the floor counts as the floor.
    pub ceiling_bytes_s: u64,
    /// Above this foreground latency the rate falls, in microseconds: of the same percentile as what
    /// [`Repair::observe_foreground`](super::Repair::observe_foreground) is told. Default 100 ms.
    pub latency_us_target: u64,
    /// Pulls in flight for each own volume. Default 6: with fewer its link idles where sources are slow (4 cost a
    /// twentieth of the rate in a simulated site), with more a rotating drive serves too many streams.
    pub pulls_max: usize,
    /// Pulls of others that this node serves at a time. Default 8. One puller has at most half of them.
    pub serves_max: usize,
    /// Wants in memory. Default 65,536, 7 to 16 MB. What is beyond it is found again by anti-entropy.
    pub wants_max: usize,
    /// What a track of unknown length counts as where none was seen, in bytes. Default 30 MB.
    pub track_bytes_mean: u64,
}

impl Default for RepairSettings {
    fn default() -> Self {
        Self {
            floor_bytes_s: 20_000_000,
            ceiling_bytes_s: 60_000_000,
            latency_us_target: 100_000,
            pulls_max: 6,
            serves_max: 8,
            wants_max: 65_536,
            track_bytes_mean: 30_000_000,
        }
    }
}
