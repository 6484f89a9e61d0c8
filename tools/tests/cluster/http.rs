//! One HTTP/1.1 request a connection, by hand: what a test says is what goes over the wire.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A gateway that says nothing for this long has failed the test.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Names and values, in the order they came.
type Headers = Vec<(String, String)>;

/// A reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// Sends `method path` with `headers` and `body`, and reads the whole reply. `Content-Length` is added unless `headers`
/// has one or a `Transfer-Encoding`.
pub(crate) fn ask(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Reply> {
    let mut stream = open(to)?;
    stream.write_all(head(to, method, path, headers, body.len() as u64).as_bytes())?;
    // A server may answer and close before it has read the body: its reply matters, not our broken pipe.
    let sent = stream.write_all(body);
    match read_reply(&mut stream, method == "HEAD") {
        Ok(reply) => Ok(reply),
        Err(error) => Err(sent.err().unwrap_or(error)),
    }
}

/// A connection to `to` that gives up after [`SILENCE_MAX`].
pub(crate) fn open(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    Ok(stream)
}

/// A request's head, up to and with the blank line.
pub(crate) fn head(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body_bytes: u64) -> String {
    use std::fmt::Write as _;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let framed = |name: &str| headers.iter().any(|(have, _)| have.eq_ignore_ascii_case(name));
    if !framed("content-length") && !framed("transfer-encoding") && (body_bytes > 0 || method != "GET") {
        let _ = write!(head, "content-length: {body_bytes}\r\n");
    }
    head + "\r\n"
}

/// Reads one reply to its end. Interim replies (100) are passed over.
pub(crate) fn read_reply(stream: &mut TcpStream, headless: bool) -> io::Result<Reply> {
    let mut bytes = Vec::new();
    loop {
        let (status, headers, head_bytes) = read_head(stream, &mut bytes)?;
        let mut rest = bytes.split_off(head_bytes);
        if status == 100 {
            bytes = rest;
            continue;
        }
        let reply = |body| Reply { status, headers: headers.clone(), body };
        let find = |name: &str| headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name));
        if headless || status == 304 || status == 204 {
            return Ok(reply(Vec::new()));
        }
        if find("transfer-encoding").is_some_and(|(_, value)| value.eq_ignore_ascii_case("chunked")) {
            stream.read_to_end(&mut rest)?;
            return Ok(reply(unchunk(&rest)?));
        }
        let length: usize = find("content-length").map_or(Ok(0), |(_, value)| value.parse()).map_err(bad)?;
        let have = rest.len();
        assert!(have <= length, "the body exceeds its content-length of {length}");
        rest.resize(length, 0);
        stream.read_exact(&mut rest[have..])?;
        return Ok(reply(rest));
    }
}

fn read_head(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<(u16, Headers, usize)> {
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8(bytes[..end].to_vec()).map_err(bad)?;
            let mut lines = text.split("\r\n");
            let status = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or_else(|| bad("no status"))?;
            let headers = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect();
            return Ok((status.parse().map_err(bad)?, headers, end + 4));
        }
        let mut some = [0; 16 * 1024];
        let got = stream.read(&mut some)?;
        if got == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the reply's head ended"));
        }
        bytes.extend_from_slice(&some[..got]);
    }
}

fn unchunk(mut bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|window| window == b"\r\n").ok_or_else(|| bad("chunk cut off"))?;
        let size = std::str::from_utf8(&bytes[..line]).map_err(bad)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(bad)?;
        bytes = &bytes[line + 2..];
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(bytes.get(..size).ok_or_else(|| bad("chunk cut off"))?);
        bytes = &bytes[size + 2..];
    }
}

fn bad(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
