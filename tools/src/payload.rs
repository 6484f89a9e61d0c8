//! What a request carries: nothing, or a file as it is read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// A request's body, of a length that is known before.
#[derive(Debug)]
pub enum Payload {
    /// No body.
    Nothing,
    /// Bytes that somebody feeds in, exactly as many as were promised.
    Stream {
        /// Where they come from.
        source: mpsc::Receiver<io::Result<Bytes>>,
        /// How many are to come.
        left: u64,
        /// How many went.
        sent: Meter,
    },
}

/// Counts the bytes that a payload gave away, for whoever watches.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<AtomicU64>);

impl Meter {
    /// How many so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Payload {
    /// A body of `bytes`, fed by `source`. More, fewer, or an error end the request without its last byte, so that the
    /// gateway never takes it for whole.
    #[must_use]
    pub fn stream(source: mpsc::Receiver<io::Result<Bytes>>, bytes: u64) -> Self {
        Self::Stream { source, left: bytes, sent: Meter::default() }
    }

    /// How many bytes are still to be given away.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Stream { left, .. } => *left,
        }
    }

    /// A meter that goes on counting while the payload is sent.
    #[must_use]
    pub fn meter(&self) -> Meter {
        match self {
            Self::Nothing => Meter::default(),
            Self::Stream { sent, .. } => sent.clone(),
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Self::Stream { source, left, sent } = self.get_mut() else { return Poll::Ready(None) };
        if *left == 0 {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match std::task::ready!(source.poll_recv(cx)) {
            Some(Ok(bytes)) if bytes.len() as u64 <= *left => {
                *left -= bytes.len() as u64;
                sent.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Ok(Frame::data(bytes))
            }
            Some(Ok(_)) => Err(io::Error::new(io::ErrorKind::InvalidData, "more bytes than were promised")),
            Some(Err(error)) => Err(error),
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "fewer bytes than were promised")),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes())
    }
}
