//! Frames out of a stream of bytes, for readers that take what the socket has.

use bytes::{Bytes, BytesMut};

use super::frame::{BadFrame, FrameHeader, HEADER_BYTES};

/// A header and its payload, both checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The header.
    pub header: FrameHeader,
    /// The payload: a view of the buffer that the socket was read into.
    pub payload: Bytes,
}

/// Cuts a stream into frames without copying their payloads.
///
/// Call [`next_frame`](Self::next_frame) until it answers nothing, then read from the socket into
/// [`space`](Self::space), and again. Memory: at most one frame's payload beyond what the caller still holds, known to
/// be within bounds before it is taken. After an error every call answers that error: what follows a bad frame has no
/// meaning.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    header: Option<FrameHeader>,
    failed: Option<BadFrame>,
}

impl Decoder {
    /// Room for the first header and a small payload: most replies come in one read.
    const SPACE_BYTES_MIN: usize = 4096;

    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The buffer to read into: `socket.read_buf(decoder.space())`. It has room for the rest of the present frame and
    /// the next one's header, so that a stream of large frames costs one read each and next to no copying.
    pub fn space(&mut self) -> &mut BytesMut {
        let missing = match &self.header {
            Some(header) => (header.payload_bytes() + HEADER_BYTES).saturating_sub(self.buffer.len()),
            None => HEADER_BYTES.saturating_sub(self.buffer.len()).max(Self::SPACE_BYTES_MIN),
        };
        self.buffer.reserve(missing.max(1));
        &mut self.buffer
    }

    /// The next whole frame, or nothing until more was read.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, BadFrame> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        self.cut().inspect_err(|failed| self.failed = Some(*failed))
    }

    fn cut(&mut self) -> Result<Option<Frame>, BadFrame> {
        let header = match self.header {
            Some(header) => header,
            None => {
                let Some(bytes) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
                let header = FrameHeader::decode(bytes)?;
                let _ = self.buffer.split_to(HEADER_BYTES);
                *self.header.insert(header)
            }
        };
        if self.buffer.len() < header.payload_bytes() {
            return Ok(None);
        }
        let payload = self.buffer.split_to(header.payload_bytes()).freeze();
        self.header = None;
        header.check_payload(&payload)?;
        Ok(Some(Frame { header, payload }))
    }

    /// Whether the stream stands between two frames: where it may end.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.header.is_none() && self.buffer.is_empty()
    }
}
