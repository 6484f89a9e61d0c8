//! One connection's socket: frames in, frames out.
//!
//! Reading: bytes go into one buffer and stay there; a message is decoded from it, and track bytes are handed on from
//! it without a copy. Between requests the buffer is small, so that thousands of idle connections cost little; a large
//! frame swaps it for one from the shard's pool. Writing: header and payload slices leave in one `sendmsg`. With TLS
//! (`secure`) a session stands between: then bytes are decrypted into that buffer, and records of the slices are sent.

mod pace;
mod secure;

use std::io::{self, IoSlice};
use std::mem;
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use deadwax_dht::wire::{
    BadFrame, BadMessage, FRAME_PAYLOAD_MAX, FrameHeader, HEADER_BYTES, Kind, Message, Newer, Stamp,
};
use deadwax_dht_tls::Session;
use glommio::net::TcpStream;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};

use self::pace::Paced;
use crate::buffers::{Buffers, SMALL_BYTES};

/// The most slices of one write: the kernel's limit (UIO_MAXIOV).
const SLICES_MAX: usize = 1024;
/// How much a polite close reads and drops, so that the peer sees the last frame and not a reset.
const LINGER_BYTES_MAX: usize = 64 << 20;
const LINGER: Duration = Duration::from_secs(1);

/// Why no message could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The peer closed, between two frames.
    #[error("closed by the peer")]
    Closed,
    /// The socket failed, was closed within a frame, or the peer was silent too long.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What came is no frame: nothing after it can be trusted.
    #[error("{0}")]
    Frame(#[from] BadFrame),
}

/// A header and a message, or why its payload is none. Either way the stream stands after the frame.
pub(crate) struct Received {
    pub(crate) header: FrameHeader,
    pub(crate) message: Result<Message, BadMessage>,
}

/// Track bytes on their way to another shard: a part of a buffer that goes back to its pool afterwards.
pub(crate) struct Chunk {
    pub(crate) buffer: Vec<u8>,
    pub(crate) range: Range<usize>,
}

impl Chunk {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

/// One connection's socket.
pub(crate) struct Socket {
    stream: Paced,
    /// None: without TLS, or not yet.
    session: Option<Box<Session>>,
    buffers: Rc<Buffers>,
    buffer: Vec<u8>,
    /// What was read and not yet consumed.
    unread: Range<usize>,
    /// The newest version of the protocol that may come.
    newest: u8,
}

impl Socket {
    /// Takes over a connection, over which at most version `newest` of the protocol is spoken.
    pub(crate) fn new(stream: TcpStream, buffers: Rc<Buffers>, stall: Duration, newest: u8) -> io::Result<Self> {
        // Small replies wait 40 ms for a delayed acknowledgement without this.
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(stall))?;
        let stream = Paced::new(stream);
        Ok(Self { stream, session: None, buffers, buffer: vec![0; SMALL_BYTES], unread: 0..0, newest })
    }

    /// Both sides have agreed on this version of the protocol.
    pub(crate) const fn agree_on(&mut self, protocol: u8) {
        self.newest = protocol;
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.stream.socket.as_raw_fd()
    }

    /// Whether the peer has closed, or has sent something that nobody asked for.
    pub(crate) fn is_closed(&self) -> bool {
        let mut byte = [0];
        let peeked = recv(borrow(&self.stream.socket), &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        !matches!(peeked, Err(rustix::io::Errno::AGAIN))
    }

    /// From now on a read may wait so long for the peer's next bytes, however few come then.
    pub(crate) fn rest(&mut self, timeout: Duration) {
        self.stream.rest();
        self.set_read_timeout(timeout);
    }

    /// From now on a read may wait so long for the peer's next bytes, and in each such time that is spent waiting for the
    /// peer a least number of bytes must move, either way.
    pub(crate) fn press(&mut self, stall: Duration) {
        self.stream.press(stall);
        self.set_read_timeout(stall);
    }

    fn set_read_timeout(&self, timeout: Duration) {
        if let Err(why) = self.stream.socket.set_read_timeout(Some(timeout)) {
            tracing::warn!(%why, "cannot set a read timeout");
        }
    }

    /// Waits for the first byte of a frame.
    pub(crate) async fn begins(&mut self) -> Result<(), ReceiveError> {
        self.fill(1).await
    }

    /// The next frame's header. Its payload is read by [`payload`](Self::payload) next.
    pub(crate) async fn header(&mut self) -> Result<FrameHeader, ReceiveError> {
        self.fill(HEADER_BYTES).await?;
        let bytes = self.buffer[self.unread.clone()].first_chunk().expect("a header's bytes were read");
        let header = FrameHeader::decode_up_to(self.newest, bytes)?;
        self.consume(HEADER_BYTES);
        Ok(header)
    }

    /// Passes over the frame of which [`header`](Self::header) has just said that it is of a later version.
    pub(crate) async fn pass_over(&mut self, newer: &Newer) -> Result<(), ReceiveError> {
        self.consume(HEADER_BYTES);
        self.fill(newer.payload_bytes).await?;
        self.consume(newer.payload_bytes);
        Ok(())
    }

    /// Reads and checks the payload of `header`, which [`bytes`](Self::bytes) then shows until it is consumed.
    pub(crate) async fn payload(&mut self, header: &FrameHeader) -> Result<(), ReceiveError> {
        self.fill(header.payload_bytes()).await.map_err(|why| match why {
            ReceiveError::Closed => ReceiveError::Io(io::ErrorKind::UnexpectedEof.into()),
            other => other,
        })?;
        Ok(header.check_payload(self.bytes(header.payload_bytes()))?)
    }

    /// The next frame, decoded.
    pub(crate) async fn receive(&mut self) -> Result<Received, ReceiveError> {
        let header = self.header().await?;
        self.receive_after(header).await
    }

    /// The rest of the frame that begins with `header`, decoded.
    pub(crate) async fn receive_after(&mut self, header: FrameHeader) -> Result<Received, ReceiveError> {
        self.payload(&header).await?;
        let payload = Bytes::copy_from_slice(self.bytes(header.payload_bytes()));
        self.consume(header.payload_bytes());
        Ok(Received { header, message: Message::decode(header.kind, payload) })
    }

    /// The first `count` bytes that were read and not consumed.
    pub(crate) fn bytes(&self, count: usize) -> &[u8] {
        &self.buffer[self.unread.start..self.unread.start + count]
    }

    /// Whether anything was read beyond what was consumed.
    pub(crate) fn has_more(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Forgets the first `count` bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        assert!(count <= self.unread.len(), "consume {count} of {} bytes", self.unread.len());
        self.unread.start += count;
        if self.unread.is_empty() {
            self.unread = 0..0;
        }
    }

    /// The first `count` bytes in their buffer, for another shard; `next` takes the buffer's place here.
    pub(crate) fn take(&mut self, count: usize, mut next: Vec<u8>) -> Chunk {
        let range = self.unread.start..self.unread.start + count;
        let rest = &self.buffer[range.end..self.unread.end];
        assert!(rest.len() <= next.len(), "the next buffer takes {} of {} bytes", next.len(), rest.len());
        next[..rest.len()].copy_from_slice(rest);
        self.unread = 0..rest.len();
        Chunk { buffer: std::mem::replace(&mut self.buffer, next), range }
    }

    /// Gives a large buffer back to the pool. Called between requests.
    pub(crate) fn shrink(&mut self) {
        if self.buffer.len() > SMALL_BYTES && self.unread.len() <= SMALL_BYTES {
            let large = mem::replace(&mut self.buffer, self.buffers.take(SMALL_BYTES));
            self.buffer[..self.unread.len()].copy_from_slice(&large[self.unread.clone()]);
            self.unread = 0..self.unread.len();
            self.buffers.give_back(large);
        }
        if let Some(session) = &mut self.session {
            session.shrink();
        }
    }

    /// Reads until at least `count` bytes are unread.
    async fn fill(&mut self, count: usize) -> Result<(), ReceiveError> {
        assert!(count <= FRAME_PAYLOAD_MAX, "a frame's payload was bounded, got {count}");
        if count > self.buffer.len() {
            let mut larger = self.buffers.take(count + HEADER_BYTES);
            larger[..self.unread.len()].copy_from_slice(&self.buffer[self.unread.clone()]);
            self.unread = 0..self.unread.len();
            self.buffers.give_back(mem::replace(&mut self.buffer, larger));
        } else if self.unread.start + count > self.buffer.len() {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        while self.unread.len() < count {
            // The next frame's header as well, so that a stream of data frames costs no read of its own for headers,
            // but no more: what lies behind it would have to be moved to make room.
            let end = (self.unread.start + count + HEADER_BYTES).max(SMALL_BYTES).min(self.buffer.len());
            let into = &mut self.buffer[self.unread.end..end];
            let read = match &mut self.session {
                None => self.stream.read(into).await,
                Some(session) => secure::read(&mut self.stream, session, into).await,
            };
            match read {
                Ok(0) if self.unread.is_empty() => return Err(ReceiveError::Closed),
                Ok(0) => return Err(ReceiveError::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => self.unread.end += read,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why.into()),
            }
        }
        Ok(())
    }

    /// Sends a message.
    pub(crate) async fn send(&mut self, message: &Message, stamp: Stamp) -> io::Result<()> {
        let frame = message.frame(stamp);
        self.write(&mut [IoSlice::new(&frame)]).await
    }

    /// Sends a data frame of `parts`, one after the other, with the whole frames `before` and `after` it: a short range
    /// leaves in one write, and wakes its reader once.
    pub(crate) async fn send_data(
        &mut self,
        before: &[u8],
        parts: &[&[u8]],
        after: &[u8],
        stamp: Stamp,
    ) -> io::Result<()> {
        let header = FrameHeader::new(Kind::Data, stamp, parts.iter().copied()).encode();
        let mut slices = Vec::with_capacity(3 + parts.len());
        slices.push(IoSlice::new(before));
        slices.push(IoSlice::new(&header));
        slices.extend(parts.iter().map(|part| IoSlice::new(part)));
        slices.push(IoSlice::new(after));
        self.write(&mut slices).await
    }

    /// Writes all slices. The socket is asked first and waited for only when it is full.
    async fn write(&mut self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        if let Some(session) = &mut self.session {
            return secure::write(&mut self.stream, session, slices).await;
        }
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let sent = match self.stream.try_write(&slices[..slices.len().min(SLICES_MAX)]) {
                Ok(sent) => sent,
                Err(rustix::io::Errno::INTR) => continue,
                // glommio waits for the socket itself, then sends from the first slice; the rest goes vectored again.
                Err(rustix::io::Errno::AGAIN) => self.stream.write(&slices[0]).await?,
                Err(why) => return Err(why.into()),
            };
            IoSlice::advance_slices(&mut slices, sent);
        }
        Ok(())
    }

    /// Closes so that the peer still reads what was sent last: says that no more comes, then drops what it sends until
    /// it closes, bounded in time and bytes. A plain close would answer unread bytes with a reset, and the reset would
    /// overtake the error frame.
    pub(crate) async fn close_politely(&mut self) {
        let linger = async {
            if let Some(session) = &mut self.session {
                session.close();
                if secure::send(&mut self.stream, session).await.is_err() {
                    return;
                }
            }
            if self.stream.socket.shutdown(Shutdown::Write).await.is_err() {
                return;
            }
            let mut dropped = self.unread.len();
            while dropped < LINGER_BYTES_MAX {
                match self.stream.read(&mut self.buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => dropped += read,
                }
            }
        };
        let deadline = async {
            glommio::timer::sleep(LINGER).await;
        };
        futures_lite::future::or(linger, deadline).await;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.buffers.give_back(mem::take(&mut self.buffer));
    }
}

fn try_write(stream: &TcpStream, slices: &[IoSlice<'_>]) -> rustix::io::Result<usize> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(borrow(stream), slices, &mut SendAncillaryBuffer::default(), flags)
}

/// glommio's stream gives out its descriptor only raw.
fn borrow(stream: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as `stream`, which the result borrows.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}
