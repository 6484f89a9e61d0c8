//! When a voter calls an election: the one place with randomness, and it is seeded.

use raft::Config;

use crate::random::Random;

/// Raft's own election timeout, in ticks: out of reach. It is drawn from the system's randomness, in this range of one
/// number.
const NEVER_TICKS: usize = usize::MAX - 1;

/// Settings of a voter: the same for all voters of a cluster, but for the seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConsensusConfig {
    /// How often a voter acts by itself, in ms. Default 100.
    pub tick_ms: u64,
    /// A leader is heard of every so many ticks. Default 2: much smaller than the timeout, so that one lost message
    /// calls no election.
    pub heartbeat_ticks: usize,
    /// A voter that has heard of no leader for so many ticks, or up to twice as many, calls an election; a leader that
    /// has not heard of a majority for so many steps down. Default 10. Smaller: sooner a new leader; and a slow drive
    /// or network has needless elections.
    pub election_ticks: usize,
    /// Where the voter's randomness comes from: another for each voter, or elections tie.
    pub seed: u64,
}

impl ConsensusConfig {
    /// The default settings, with this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { tick_ms: 100, heartbeat_ticks: 2, election_ticks: 10, seed }
    }

    pub(super) fn to_raft(self, seat: u64, applied: u64) -> Config {
        Config {
            id: seat,
            election_tick: self.election_ticks,
            heartbeat_tick: self.heartbeat_ticks,
            min_election_tick: NEVER_TICKS,
            max_election_tick: NEVER_TICKS + 1,
            applied,
            // In bytes; one entry goes out whatever its length.
            max_size_per_msg: 256 * 1024,
            max_inflight_msgs: 64,
            max_committed_size_per_ready: 1024 * 1024,
            max_uncommitted_size: super::super::PROPOSAL_BYTES_MAX as u64,
            // A voter that was cut off comes back without unseating the leader; and a leader that is cut off steps down
            // (Ongaro's thesis, sections 9.6 and 6.2).
            pre_vote: true,
            check_quorum: true,
            ..Config::default()
        }
    }
}

/// When the next tick is, and how long the present election timeout.
pub(super) struct Elections {
    tick_ms: u64,
    next_tick: u64,
    election_ticks: u64,
    timeout: usize,
    random: Random,
}

impl Elections {
    pub(super) fn new(config: &ConsensusConfig, now: u64) -> Self {
        let tick_ms = config.tick_ms.max(1);
        let election_ticks = config.election_ticks as u64;
        let next_tick = now.saturating_add(tick_ms);
        let mut elections = Self { tick_ms, next_tick, election_ticks, timeout: 0, random: Random(config.seed) };
        elections.draw();
        elections
    }

    pub(super) const fn next_tick(&self) -> u64 {
        self.next_tick
    }

    /// How many ticks are due at `now`. After a long pause not all that were missed: it is as if the clock had stood
    /// still, for a leader that was paused is no leader, and finds out by the first messages.
    pub(super) fn ticks_until(&mut self, now: u64) -> u64 {
        if now < self.next_tick {
            return 0;
        }
        let missed = (now - self.next_tick) / self.tick_ms;
        self.next_tick = now.saturating_add(self.tick_ms) - (now - self.next_tick) % self.tick_ms;
        (missed + 1).min(self.election_ticks)
    }

    /// The present timeout, in ticks.
    pub(super) const fn timeout(&self) -> usize {
        self.timeout
    }

    /// The ticks after which a snapshot that was not answered counts as lost.
    pub(super) const fn snapshot_ticks(&self) -> u64 {
        2 * self.election_ticks
    }

    /// A new timeout: one to two times the least.
    pub(super) fn draw(&mut self) {
        let ticks = self.election_ticks + self.random.draw() % self.election_ticks.max(1);
        self.timeout = usize::try_from(ticks).expect("ticks are few");
    }
}
