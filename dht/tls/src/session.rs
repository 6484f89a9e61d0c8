//! One end of a connection, between a socket's bytes and a reader's and writer's.
//!
//! Call [`handshake`](Session::handshake) until it names the other end: after each call send
//! [`outgoing`](Session::outgoing) and then read more from the socket into [`space`](Session::space). From then on
//! [`read`](Session::read) and [`write`](Session::write), each as often as one likes. After an error nothing more is
//! read or written; [`outgoing`](Session::outgoing) then has the alert that tells the other end why.
//!
//! Bytes in: one copy out of the record as it was decrypted, and one into the reader's buffer. Bytes out: one into the
//! record, which is encrypted in place, and one to the other records that leave with it.

use std::fmt;
use std::io::IoSlice;

use bytes::{Buf, BufMut, BytesMut};
use deadwax_dht::NodeId;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

use crate::TlsError;
use crate::buffer::{Buffer, RECORD_BYTES_MAX};
use crate::verify;

/// Track bytes in a record, at most (RFC 8446, section 5.1).
const PLAIN_BYTES_MAX: usize = 16_384;
/// What a record adds to them: its header, the kind of what is in it, and the tag of AES-GCM and of ChaCha20-Poly1305.
const RECORD_EXTRA_BYTES: usize = 5 + 1 + 16;
/// Kept free for what the session itself sends between: a change of its key.
const OWN_BYTES: usize = 256;
/// How many messages of its own a session that failed may have to send: an alert, and what was made before it.
const ALERTS_MAX: usize = 8;
/// The first byte of a record of the handshake, and of an alert (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
/// The first byte of a frame of the wire protocol.
const FRAME: u8 = b'D';

const _: () = assert!(PLAIN_BYTES_MAX + RECORD_EXTRA_BYTES + OWN_BYTES <= RECORD_BYTES_MAX);

/// One end of a connection.
pub struct Session {
    side: Side,
    /// Records as they came.
    incoming: Buffer,
    /// Records to be sent.
    outgoing: Buffer,
    /// What was decrypted and found no room: of what `incoming` held, and read before more comes.
    rest: BytesMut,
    /// Whether the first byte was looked at.
    begun: bool,
    /// Whether the handshake is over.
    known: bool,
    closed: bool,
    failed: Option<TlsError>,
}

/// Boxed: a connection's state is large, and of the client's another size than of the server's.
enum Side {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What [`Session::read`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// So many bytes were read, of at least one.
    Bytes(usize),
    /// There are none until more came from the socket.
    Wanting,
    /// The other end said that it sends no more.
    Closed,
}

/// What is wanted of the state machine once it stands where that can be.
#[derive(Clone, Copy)]
enum Wish<'a> {
    Nothing,
    Write(&'a [u8]),
    Close,
}

/// What one turn of the state machine did.
enum Turn {
    /// Something: there may be more.
    More,
    /// It wants bytes from the socket.
    Wanting,
    /// Nothing is left to read, the handshake is over, and what was wanted is done.
    Open,
    /// As before, but there was no room for it.
    Full,
    Closed,
}

impl Session {
    pub(crate) fn client(connection: UnbufferedClientConnection) -> Self {
        Self::new(Side::Client(Box::new(connection)))
    }

    pub(crate) fn server(connection: UnbufferedServerConnection) -> Self {
        Self::new(Side::Server(Box::new(connection)))
    }

    fn new(side: Side) -> Self {
        let (incoming, outgoing) = (Buffer::new(), Buffer::new());
        Self {
            side,
            incoming,
            outgoing,
            rest: BytesMut::new(),
            begun: false,
            known: false,
            closed: false,
            failed: None,
        }
    }

    /// Room for bytes from the socket, of `least` bytes at least, or of a record's where that is less: 1 where little is
    /// expected, much where much is. [`received`](Self::received) then says how many came. To be called where
    /// [`read`](Self::read) answered [`Read::Wanting`], or [`handshake`](Self::handshake) nothing.
    ///
    /// # Errors
    /// What came before makes no whole message, and there is no room for more.
    pub fn space(&mut self, least: usize) -> Result<&mut [u8], TlsError> {
        let least = least.clamp(1, RECORD_BYTES_MAX);
        // Whoever has not said yet who he is takes up little: a handshake of keys without certificates is short.
        let space = if self.known { self.incoming.space(least) } else { self.incoming.small_space(least) };
        space.ok_or(TlsError::Flooded)
    }

    /// So many bytes came into [`space`](Self::space).
    pub fn received(&mut self, count: usize) {
        self.incoming.fill(count);
    }

    /// What is to be sent next; [`sent`](Self::sent) then says how many bytes were.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        self.outgoing.filled()
    }

    /// The first `count` bytes of [`outgoing`](Self::outgoing) are on their way.
    pub fn sent(&mut self, count: usize) {
        self.outgoing.consume(count);
    }

    /// Goes on with the handshake. The other end's name, once it has proved that it has the key; nothing until more came.
    ///
    /// # Errors
    /// The other end does not speak TLS, or not as it must, or does not have the key that it names.
    pub fn handshake(&mut self) -> Result<Option<NodeId>, TlsError> {
        self.check_beginning()?;
        loop {
            match self.turn(Wish::Nothing, &mut nowhere())? {
                Turn::More => {}
                Turn::Wanting => return Ok(None),
                Turn::Open | Turn::Full => {
                    let peer = self.peer()?;
                    self.known = true;
                    return Ok(Some(peer));
                }
                Turn::Closed => return Err(TlsError::Closed),
            }
        }
    }

    /// Reads into `into` until it is full or nothing is left.
    ///
    /// # Errors
    /// A record is forged, damaged, or none.
    pub fn read(&mut self, into: &mut impl BufMut) -> Result<Read, TlsError> {
        let before = into.remaining_mut();
        loop {
            let count = self.rest.len().min(into.remaining_mut());
            into.put_slice(&self.rest[..count]);
            self.rest.advance(count);
            if self.closed || !into.has_remaining_mut() {
                break;
            }
            match self.turn(Wish::Nothing, into)? {
                Turn::More => {}
                Turn::Closed => self.closed = true,
                Turn::Wanting | Turn::Open | Turn::Full => break,
            }
        }
        Ok(match before - into.remaining_mut() {
            0 if self.closed => Read::Closed,
            0 => Read::Wanting,
            count => Read::Bytes(count),
        })
    }

    /// Makes records of `slices`, as many as there is room for, and moves `slices` on behind what is in them. To be called
    /// again for the rest once [`outgoing`](Self::outgoing) was sent.
    ///
    /// # Errors
    /// The session has failed.
    pub fn write(&mut self, slices: &mut &mut [IoSlice<'_>]) -> Result<(), TlsError> {
        IoSlice::advance_slices(slices, 0);
        let mut left: usize = slices.iter().map(|slice| slice.len()).sum();
        while let Some(first) = slices.first() {
            let least = left.min(PLAIN_BYTES_MAX) + RECORD_EXTRA_BYTES + OWN_BYTES;
            let Some(space) = self.outgoing.space(least) else { break };
            let records = (space.len() - OWN_BYTES) / (PLAIN_BYTES_MAX + RECORD_EXTRA_BYTES);
            let room = if records == 0 { least - RECORD_EXTRA_BYTES - OWN_BYTES } else { records * PLAIN_BYTES_MAX };
            let count = first.len().min(room);
            match self.turn(Wish::Write(&first[..count]), &mut nowhere())? {
                Turn::More => {}
                Turn::Open => {
                    IoSlice::advance_slices(slices, count);
                    left -= count;
                }
                Turn::Full if !self.outgoing.is_empty() => break,
                Turn::Full => return Err(TlsError::Flooded),
                Turn::Wanting | Turn::Closed => return Err(TlsError::Closed),
            }
        }
        Ok(())
    }

    /// Makes the record that says that this end sends no more. Nothing where the session has failed.
    pub fn close(&mut self) {
        while let Ok(Turn::More) = self.turn(Wish::Close, &mut nowhere()) {}
    }

    /// Gives up large buffers that have nothing in them. To be called between requests.
    pub fn shrink(&mut self) {
        self.incoming.shrink();
        self.outgoing.shrink();
        if self.rest.is_empty() {
            self.rest = BytesMut::new();
        }
    }

    /// Looks at the first byte: who speaks without TLS should hear of that, and not of a record that is damaged.
    fn check_beginning(&mut self) -> Result<(), TlsError> {
        let Some(first) = self.incoming.filled().first().filter(|_| !self.begun) else { return Ok(()) };
        match *first {
            HANDSHAKE | ALERT => {
                self.begun = true;
                Ok(())
            }
            FRAME => Err(TlsError::Plain),
            other => Err(TlsError::NotTls(other)),
        }
    }

    fn peer(&self) -> Result<NodeId, TlsError> {
        let keys = match &self.side {
            Side::Client(connection) => connection.peer_certificates(),
            Side::Server(connection) => connection.peer_certificates(),
        };
        let key = keys.and_then(<[_]>::first).ok_or_else(|| TlsError::Broken("the peer named no key".to_owned()))?;
        Ok(verify::node_id(key)?)
    }

    /// One turn of the state machine. What it decrypts goes to `into`, then to `rest`. Once it has failed it is not asked
    /// again: rustls panics then.
    fn turn(&mut self, wish: Wish<'_>, into: &mut impl BufMut) -> Result<Turn, TlsError> {
        if let Some(why) = &self.failed {
            return Err(why.clone());
        }
        let result = self.turn_once(wish, into);
        if let Err(why) = &result {
            self.failed = Some(why.clone());
            self.incoming = Buffer::new();
            self.take_alert();
        }
        result
    }

    /// The alert that tells the other end why the session failed. Of what came nothing is shown to rustls any more.
    fn take_alert(&mut self) {
        for _ in 0..ALERTS_MAX {
            let waits = match &self.side {
                Side::Client(connection) => connection.wants_write(),
                Side::Server(connection) => connection.wants_write(),
            };
            if !waits || self.turn_once(Wish::Nothing, &mut nowhere()).is_err() {
                return;
            }
        }
    }

    fn turn_once(&mut self, wish: Wish<'_>, into: &mut impl BufMut) -> Result<Turn, TlsError> {
        let Self { side, incoming, outgoing, rest, .. } = self;
        let (discard, turn) = match side {
            Side::Client(connection) => {
                carry_out(connection.process_tls_records(incoming.filled_mut()), wish, outgoing, into, rest)
            }
            Side::Server(connection) => {
                carry_out(connection.process_tls_records(incoming.filled_mut()), wish, outgoing, into, rest)
            }
        };
        incoming.consume(discard);
        turn
    }
}

/// For turns that nobody reads from.
fn nowhere() -> &'static mut [u8] {
    &mut []
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if matches!(self.side, Side::Client(_)) { "client" } else { "server" };
        f.debug_struct("Session").field("side", &side).field("closed", &self.closed).finish_non_exhaustive()
    }
}

/// Does what the state machine stands before. Answers how many bytes it has done with, too.
fn carry_out<D>(
    UnbufferedStatus { mut discard, state, .. }: UnbufferedStatus<'_, '_, D>,
    wish: Wish<'_>,
    outgoing: &mut Buffer,
    into: &mut impl BufMut,
    rest: &mut BytesMut,
) -> (usize, Result<Turn, TlsError>) {
    let state = match state {
        Ok(state) => state,
        Err(why) => return (discard, Err(why.into())),
    };
    let turn = match state {
        ConnectionState::ReadTraffic(mut traffic) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    let (now, later) = record.payload.split_at(record.payload.len().min(into.remaining_mut()));
                    into.put_slice(now);
                    rest.extend_from_slice(later);
                }
                Some(Err(why)) => break Err(why.into()),
                None => break Ok(Turn::More),
            }
        },
        ConnectionState::EncodeTlsData(mut data) => encode(outgoing, |space| data.encode(space)),
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Turn::More)
        }
        ConnectionState::BlockedHandshake => Ok(Turn::Wanting),
        ConnectionState::WriteTraffic(mut traffic) => match wish {
            Wish::Nothing => Ok(Turn::Open),
            Wish::Write(plain) => encrypt(outgoing, |space| traffic.encrypt(plain, space)),
            Wish::Close => encrypt(outgoing, |space| traffic.queue_close_notify(space)),
        },
        ConnectionState::PeerClosed | ConnectionState::Closed => Ok(Turn::Closed),
        other => Err(TlsError::Broken(format!("it stands at {other:?}, which was never asked for"))),
    };
    (discard, turn)
}

/// Adds what the session sends of itself.
fn encode(
    outgoing: &mut Buffer,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<Turn, TlsError> {
    let broken = |why: EncodeError| TlsError::Broken(why.to_string());
    let written = match encode(outgoing.space(1).ok_or(TlsError::Flooded)?) {
        Err(EncodeError::InsufficientSize(needs)) => {
            encode(outgoing.space(needs.required_size).ok_or(TlsError::Flooded)?).map_err(broken)?
        }
        other => other.map_err(broken)?,
    };
    outgoing.fill(written);
    Ok(Turn::More)
}

/// Adds what a writer sends.
fn encrypt(
    outgoing: &mut Buffer,
    encrypt: impl FnOnce(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<Turn, TlsError> {
    let Some(space) = outgoing.space(1) else { return Ok(Turn::Full) };
    match encrypt(space) {
        Ok(written) => {
            outgoing.fill(written);
            Ok(Turn::Open)
        }
        Err(EncryptError::InsufficientSize(_)) => Ok(Turn::Full),
        Err(why) => Err(TlsError::Broken(why.to_string())),
    }
}
