//! A socket with TLS: records in, records out.

use std::io::{self, IoSlice};

use deadwax_dht::NodeId;
use deadwax_dht_tls::{Read, Session, TlsError};

use super::pace::Paced;
use super::{ReceiveError, Socket};
use crate::buffers::SMALL_BYTES;

/// The first byte of a TLS connection: a record of the handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

impl Socket {
    /// Whether the peer speaks TLS, by the first byte that it sent.
    pub(crate) async fn begins_secure(&mut self) -> Result<bool, ReceiveError> {
        self.begins().await?;
        Ok(self.bytes(1)[0] == HANDSHAKE)
    }

    /// Shakes hands as the end that `session` is; answers whose key the other end has. All that comes and goes from then
    /// on is encrypted.
    pub(crate) async fn secure(&mut self, session: Session) -> io::Result<NodeId> {
        let mut session = Box::new(session);
        // What came with the first byte.
        let came = self.unread.clone();
        session.space(came.len())?[..came.len()].copy_from_slice(&self.buffer[came.clone()]);
        session.received(came.len());
        self.consume(came.len());
        let id = loop {
            let step = session.handshake();
            // An alert, where it failed.
            send(&mut self.stream, &mut session).await?;
            match step? {
                Some(id) => break id,
                None => match self.stream.read(session.space(1)?).await? {
                    0 => return Err(TlsError::Closed.into()),
                    count => session.received(count),
                },
            }
        };
        self.session = Some(session);
        Ok(id)
    }
}

/// Reads some bytes; 0 where no more come.
pub(super) async fn read(stream: &mut Paced, session: &mut Session, into: &mut [u8]) -> io::Result<usize> {
    // For a large frame many records are read at once.
    let least = if into.len() > SMALL_BYTES { usize::MAX } else { 1 };
    loop {
        let mut room = &mut *into;
        match session.read(&mut room) {
            Ok(Read::Bytes(count)) => return Ok(count),
            Ok(Read::Closed) => return Ok(0),
            Ok(Read::Wanting) => {}
            Err(why) => {
                // The alert goes out if the socket takes it at once.
                let _ = stream.try_write(&[IoSlice::new(session.outgoing())]);
                return Err(why.into());
            }
        }
        match stream.read(session.space(least)?).await? {
            0 => return Ok(0),
            count => session.received(count),
        }
    }
}

/// Writes all slices.
pub(super) async fn write(stream: &mut Paced, session: &mut Session, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    loop {
        session.write(&mut slices)?;
        if session.outgoing().is_empty() {
            return Ok(());
        }
        send(stream, session).await?;
    }
}

/// Sends what the session has to send.
pub(super) async fn send(stream: &mut Paced, session: &mut Session) -> io::Result<()> {
    while !session.outgoing().is_empty() {
        let sent = match stream.try_write(&[IoSlice::new(session.outgoing())]) {
            Ok(sent) => sent,
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::AGAIN) => stream.write(session.outgoing()).await?,
            Err(why) => return Err(why.into()),
        };
        session.sent(sent);
    }
    Ok(())
}
