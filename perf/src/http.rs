//! A load client that costs little: one blocking connection a thread, bodies read into one buffer and counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use hdrhistogram::Histogram;

use crate::ring::{latencies, micros};

/// A reply's head may take this much; ours take some hundred bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A server that says nothing for this long has failed the run.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// One request: its head up to the blank line, and a body.
pub(crate) struct Request<'a> {
    pub(crate) head: String,
    pub(crate) body: &'a [u8],
}

impl<'a> Request<'a> {
    pub(crate) fn get(host: SocketAddr, path: &str) -> Self {
        Self { head: format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"), body: &[] }
    }

    pub(crate) fn range(host: SocketAddr, path: &str, start: u64, bytes: u64) -> Self {
        let end = start + bytes - 1;
        Self { head: format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nrange: bytes={start}-{end}\r\n\r\n"), body: &[] }
    }

    pub(crate) fn put(host: SocketAddr, path: &str, body: &'a [u8]) -> Self {
        let length = body.len();
        Self { head: format!("PUT {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n"), body }
    }
}

/// A connection that is kept.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(host: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(host).with_context(|| format!("connect to {host}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        Ok(Self { stream, buffer: vec![0; 256 * 1024] })
    }

    /// Sends the request and reads the whole reply. Gives its status and the bytes of its body.
    fn ask(&mut self, request: &Request<'_>) -> anyhow::Result<(u16, u64)> {
        self.stream.write_all(request.head.as_bytes())?;
        self.stream.write_all(request.body)?;
        let mut filled = 0;
        let (status, head_bytes, body_bytes) = loop {
            let got = self.stream.read(&mut self.buffer[filled..])?;
            ensure!(got > 0, "the server closed the connection before it answered");
            filled += got;
            if let Some(head) = parse_head(&self.buffer[..filled])? {
                break head;
            }
            ensure!(filled < HEAD_BYTES_MAX, "the reply's head exceeds {HEAD_BYTES_MAX} bytes");
        };
        let mut rest = body_bytes
            .checked_sub((filled - head_bytes) as u64)
            .ok_or_else(|| anyhow!("the server sent more than its content-length of {body_bytes}"))?;
        while rest > 0 {
            let room = usize::try_from(rest).unwrap_or(usize::MAX).min(self.buffer.len());
            let got = self.stream.read(&mut self.buffer[..room])?;
            ensure!(got > 0, "the server closed the connection {rest} bytes before the body's end");
            rest -= got as u64;
        }
        Ok((status, body_bytes))
    }
}

/// Status, bytes of the head, and content-length, once the head is whole.
pub(crate) fn parse_head(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize, u64)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = response.parse(bytes)? else { return Ok(None) };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .map_or(Ok(0), |header| std::str::from_utf8(header.value)?.parse::<u64>().map_err(anyhow::Error::from))?;
    Ok(Some((response.code.unwrap_or(0), head_bytes, length)))
}

/// What a run of requests came to.
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) latency: Histogram<u64>,
}

impl Load {
    #[expect(clippy::cast_precision_loss, reason = "a rate, printed to one digit")]
    pub(crate) fn megabytes_a_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate, printed to one digit")]
    pub(crate) fn requests_a_second(&self) -> f64 {
        self.requests as f64 / self.seconds
    }
}

/// Sends requests number 0, 1, 2, ... of `make` over `in_flight` connections, until `make` has none left. Every reply
/// must have a status of `expected`; `bytes` counts what `make` sent and what came back.
pub(crate) fn load<'a>(
    host: SocketAddr,
    in_flight: usize,
    expected: u16,
    make: &(dyn Fn(usize) -> Option<Request<'a>> + Sync),
) -> anyhow::Result<Load> {
    let next = AtomicUsize::new(0);
    let worker = || -> anyhow::Result<(u64, u64, Histogram<u64>)> {
        let mut connection = Connection::open(host)?;
        let (mut requests, mut bytes, mut latency) = (0, 0, latencies());
        while let Some(request) = make(next.fetch_add(1, Ordering::Relaxed)) {
            let begun = Instant::now();
            let (status, body_bytes) = connection.ask(&request)?;
            if status != expected {
                bail!("asked {:?}, got {status}, expected {expected}", request.head.lines().next().unwrap_or(""));
            }
            latency.saturating_record(micros(begun.elapsed()));
            requests += 1;
            bytes += body_bytes + request.body.len() as u64;
        }
        Ok((requests, bytes, latency))
    };
    let started = Instant::now();
    let parts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..in_flight).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a load thread does not panic")).collect::<Vec<_>>()
    });
    let seconds = started.elapsed().as_secs_f64();
    let mut total = Load { requests: 0, bytes: 0, seconds, latency: latencies() };
    for part in parts {
        let (requests, bytes, latency) = part?;
        total.requests += requests;
        total.bytes += bytes;
        total.latency.add(latency)?;
    }
    Ok(total)
}
