//! A TCP stream whose peer must keep up.
//!
//! A limit on each read and write alone lets a peer that trickles hold a transfer for ever. So the time that is spent waiting
//! for it is added up, and each so much of it must bring a least number of bytes. What the node itself takes, its drives and
//! others on the shard, does not count.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::TcpStream;

/// How many bytes must move for each second of waiting, over the time that a peer may be silent. Clients are gateways and
/// nodes; through a gateway comes who uploads to it, at 64 kbit/s at least. Listeners wait for the gateway's cache, and
/// masters not for them.
const BYTES_PER_SECOND_MIN: u64 = 8 << 10;

pub(super) struct Paced {
    pub(super) socket: TcpStream,
    /// None: the peer may take its time.
    pace: Option<Pace>,
}

impl Paced {
    pub(super) const fn new(socket: TcpStream) -> Self {
        Self { socket, pace: None }
    }

    /// See [`Socket::rest`](super::Socket::rest).
    pub(super) const fn rest(&mut self) {
        self.pace = None;
    }

    /// See [`Socket::press`](super::Socket::press).
    pub(super) const fn press(&mut self, window: Duration) {
        self.pace = Some(Pace { window, waited: Duration::ZERO, bytes: 0 });
    }

    /// Waits for some bytes; 0 where no more come.
    pub(super) async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        let count = self.socket.read(into).await?;
        self.moved(began.elapsed(), count)?;
        Ok(count)
    }

    /// Waits until the socket takes some bytes.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let began = Instant::now();
        let count = self.socket.write(bytes).await?;
        self.moved(began.elapsed(), count)?;
        Ok(count)
    }

    /// Writes what the socket takes at once.
    pub(super) fn try_write(&mut self, slices: &[IoSlice<'_>]) -> rustix::io::Result<usize> {
        let count = super::try_write(&self.socket, slices)?;
        if let Some(pace) = &mut self.pace {
            pace.bytes += count as u64;
        }
        Ok(count)
    }

    fn moved(&mut self, waited: Duration, bytes: usize) -> io::Result<()> {
        self.pace.as_mut().map_or(Ok(()), |pace| pace.moved(waited, bytes as u64))
    }
}

struct Pace {
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// So many bytes moved after the peer was waited for.
    fn moved(&mut self, waited: Duration, bytes: u64) -> io::Result<()> {
        (self.waited, self.bytes) = (self.waited + waited, self.bytes + bytes);
        if self.waited < self.window {
            return Ok(());
        }
        if self.bytes < BYTES_PER_SECOND_MIN * self.window.as_secs() {
            let why = format!("the peer moved {} bytes while it was waited for {:?}", self.bytes, self.waited);
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);
    const LEAST: u64 = 30 * BYTES_PER_SECOND_MIN;

    fn pace() -> Pace {
        Pace { window: WINDOW, waited: Duration::ZERO, bytes: 0 }
    }

    /// For how long one is borne that moves so many bytes each time it was waited for so long; none: for a day.
    fn borne_s(waited: Duration, bytes: u64) -> Option<u64> {
        let (mut pace, mut all) = (pace(), Duration::ZERO);
        while all < Duration::from_secs(86_400) {
            all += waited;
            if pace.moved(waited, bytes).is_err() {
                return Some(all.as_secs());
            }
        }
        None
    }

    #[test]
    fn a_peer_that_trickles_is_given_up_and_one_that_is_slow_is_not() {
        assert_eq!(borne_s(Duration::from_secs(29), 1), Some(58));
        assert_eq!(borne_s(Duration::from_millis(10), 1), Some(30));
        assert_eq!(borne_s(Duration::from_secs(1), BYTES_PER_SECOND_MIN), None);
        assert_eq!(borne_s(Duration::from_secs(29), LEAST), None, "it comes in bursts");
    }

    #[test]
    fn what_came_fast_buys_no_time_for_what_follows() {
        let mut pace = pace();
        for _ in 0..1_000 {
            pace.moved(Duration::ZERO, LEAST).expect("nobody waited");
        }
        pace.moved(WINDOW, 0).expect("all that came before is of this time");
        assert!(pace.moved(WINDOW, 0).is_err());
    }
}
