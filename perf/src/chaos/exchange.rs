//! One HTTP request a connection, of which every byte that comes back is looked at as it comes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::oracle::Answer;
use crate::http::parse_head;

/// A reply's head may take this much.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The gateway's own patience ends after 30 s without progress: whoever says nothing for longer never will.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// A request: `GET /path`, more lines of its head, and a body.
pub(crate) struct Question<'a> {
    pub(crate) what: String,
    pub(crate) headers: String,
    pub(crate) body: &'a [u8],
}

/// A reply whose body was handed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Bytes of its body; of the body that there would be, where a head was asked for.
    pub(crate) bytes: u64,
    /// The longest wait for more of the body, once the head was there.
    pub(crate) pause: Duration,
}

/// Asks, and hands each part of the body to `sink`, with the reply's status and the part's place in the body. Where no
/// whole reply comes, why: [`Answer::Broken`] or [`Answer::Silent`].
pub(crate) fn ask(
    to: SocketAddr,
    question: &Question<'_>,
    sink: &mut dyn FnMut(u16, u64, &[u8]),
) -> Result<Reply, Answer> {
    let mut stream = TcpStream::connect_timeout(&to, CONNECT_MAX).map_err(|why| Answer::Broken(why.to_string()))?;
    let silence = Some(SILENCE_MAX);
    let set = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(silence));
    set.and_then(|()| stream.set_write_timeout(silence)).map_err(failed)?;
    let Question { what, headers, body } = question;
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let head = format!("{what} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n{headers}{length}\r\n");
    // A server may answer before it has read all, and close: its answer counts then.
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    match read(&mut stream, what.starts_with("HEAD "), sink) {
        Err(Answer::Broken(why)) => Err(sent.err().map_or(Answer::Broken(why), failed)),
        other => other,
    }
}

fn read(stream: &mut TcpStream, headless: bool, sink: &mut dyn FnMut(u16, u64, &[u8])) -> Result<Reply, Answer> {
    let mut buffer = vec![0; 256 * 1024];
    let mut filled = 0;
    let (status, head_bytes, bytes) = loop {
        let got = some(stream, &mut buffer[filled..])?;
        if got == 0 || filled > HEAD_BYTES_MAX {
            return Err(Answer::Broken(format!("no head of a reply in {} bytes", filled + got)));
        }
        filled += got;
        match parse_head(&buffer[..filled]) {
            Ok(Some(head)) => break head,
            Ok(None) => {}
            Err(why) => return Err(Answer::Wrong(format!("a head that is none: {why:#}"))),
        }
    };
    if headless {
        return Ok(Reply { status, bytes, pause: Duration::ZERO });
    }
    let (mut at, mut pause) = ((filled - head_bytes) as u64, Duration::ZERO);
    sink(status, 0, &buffer[head_bytes..filled]);
    while at < bytes {
        let waits = Instant::now();
        let got = some(stream, &mut buffer)?;
        pause = pause.max(waits.elapsed());
        if got == 0 {
            return Err(Answer::Broken(format!("closed after {at} of {bytes} bytes")));
        }
        sink(status, at, &buffer[..got]);
        at += got as u64;
    }
    if at > bytes {
        return Err(Answer::Wrong(format!("{at} bytes came, {bytes} were announced")));
    }
    Ok(Reply { status, bytes, pause })
}

/// The next bytes. A socket with a timeout is interrupted where this process is held up for a while: that is no answer.
fn some(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<usize, Answer> {
    loop {
        match stream.read(buffer) {
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            other => return other.map_err(failed),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(why: std::io::Error) -> Answer {
    match why.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Answer::Silent,
        _ => Answer::Broken(why.to_string()),
    }
}
