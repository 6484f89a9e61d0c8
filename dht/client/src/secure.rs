//! A connection with TLS. Both halves share its session, for as long as it takes to encrypt or decrypt what there is: neither
//! waits with it in hand.

use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use deadwax_dht::{Failure, FailureKind, NodeId};
use deadwax_dht_tls::{Identity, Read, Session, TlsError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::connection::broken;

/// Where a reader has room for so much, many records are read at once.
const MANY_BYTES: usize = 16_384;

/// A session that a sender and a receiver have.
pub(crate) type Shared = Arc<Mutex<Session>>;

pub(crate) fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    // Where one of the two panicked, the connection is dropped with it.
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shakes hands as `identity` with whoever is there, who must have the key of `node`, where that is known. Whose key it is.
pub(crate) async fn shake_hands(
    socket: &mut TcpStream,
    identity: &Identity,
    node: Option<&NodeId>,
) -> Result<(Shared, NodeId), Failure> {
    let refused = |why: TlsError| Failure::new(FailureKind::Refused, why.to_string());
    let mut session = identity.connect();
    loop {
        let step = session.handshake();
        while !session.outgoing().is_empty() {
            let sent = socket.write(session.outgoing()).await.map_err(|error| broken("shake hands", &error))?;
            session.sent(sent);
        }
        if let Some(id) = step.map_err(refused)? {
            if let Some(node) = node.filter(|node| **node != id) {
                let why = format!("has the key of {}, not of {}", id.short(), node.short());
                return Err(Failure::new(FailureKind::Refused, why));
            }
            return Ok((Arc::new(Mutex::new(session)), id));
        }
        let space = session.space(1).map_err(refused)?;
        match socket.read(space).await.map_err(|error| broken("shake hands", &error))? {
            0 => return Err(Failure::new(FailureKind::Unreachable, "closed the connection during the handshake")),
            count => session.received(count),
        }
    }
}

/// Reads some bytes into what room `into` has; 0 where no more come. May be dropped while it waits.
pub(crate) async fn read(socket: &OwnedReadHalf, session: &Mutex<Session>, into: &mut BytesMut) -> io::Result<usize> {
    loop {
        // A peer that is faster than we are must not keep the thread to itself.
        tokio::task::consume_budget().await;
        if let Some(read) = try_read(socket, &mut lock(session), into)? {
            return Ok(read);
        }
        socket.readable().await?;
    }
}

fn try_read(socket: &OwnedReadHalf, session: &mut Session, into: &mut BytesMut) -> io::Result<Option<usize>> {
    let room = into.capacity() - into.len();
    let least = if room > MANY_BYTES { usize::MAX } else { 1 };
    loop {
        match session.read(&mut (&mut *into).limit(room))? {
            Read::Bytes(count) => return Ok(Some(count)),
            Read::Closed => return Ok(Some(0)),
            Read::Wanting => {}
        }
        match socket.try_read(session.space(least)?) {
            Ok(0) => return Ok(Some(0)),
            Ok(count) => session.received(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// Writes all of `slices`; fails with [`io::ErrorKind::TimedOut`] where the peer takes nothing for as long as `stall`.
pub(crate) async fn write(
    socket: &OwnedWriteHalf,
    session: &Mutex<Session>,
    mut slices: &mut [IoSlice<'_>],
    stall: Option<Duration>,
) -> io::Result<()> {
    while !try_write(socket, &mut lock(session), &mut slices)? {
        match stall {
            None => socket.writable().await?,
            Some(stall) => timeout(stall, socket.writable()).await.map_err(|_| io::ErrorKind::TimedOut)??,
        }
    }
    Ok(())
}

/// Whether all was written.
fn try_write(socket: &OwnedWriteHalf, session: &mut Session, slices: &mut &mut [IoSlice<'_>]) -> io::Result<bool> {
    loop {
        session.write(slices)?;
        if session.outgoing().is_empty() {
            return Ok(true);
        }
        while !session.outgoing().is_empty() {
            match socket.try_write(session.outgoing()) {
                Ok(sent) => session.sent(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}
