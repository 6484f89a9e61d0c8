//! What an answer is made of.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::download::TrackBody;

/// A body of known length.
pub(crate) enum Body {
    /// Bytes that are here; nothing after they were taken.
    Once(Option<Bytes>),
    /// Bytes of a track, as they come.
    Track(Box<TrackBody>),
}

/// The track's bytes ended before they should. The connection is cut, so that a short body never looks whole.
#[derive(Debug, thiserror::Error)]
#[error("fetch the rest of track {0}: its holders failed")]
pub(crate) struct CutOff(pub(crate) deadwax_track::TrackId);

impl Body {
    pub(crate) const fn empty() -> Self {
        Self::Once(None)
    }

    pub(crate) fn once(bytes: Bytes) -> Self {
        Self::Once((!bytes.is_empty()).then_some(bytes))
    }

    /// How many bytes are still to come.
    pub(crate) fn bytes_left(&self) -> u64 {
        match self {
            Self::Once(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::Track(track) => track.bytes_left(),
        }
    }
}

impl From<TrackBody> for Body {
    fn from(body: TrackBody) -> Self {
        Self::Track(Box::new(body))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        match self.get_mut() {
            Self::Once(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Track(track) => track.poll_bytes(context).map(|next| next.map(|bytes| bytes.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes_left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes_left())
    }
}
