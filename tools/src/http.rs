//! Asks a gateway, over HTTP/1.1.
//!
//! A [`Client`] keeps connections that are done with a request for the next one. Redirects, proxies and TLS are absent:
//! a gateway gives none of them yet.

use std::io;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{EXPECT, HOST, HeaderMap, USER_AGENT};
use hyper::http::request;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::payload::Payload;

/// How long a connection may take to come up.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a gateway may stay silent, while bytes move in neither direction, before it counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a body is held back for a gateway that neither asks for it nor answers without it.
const HELD_MAX: Duration = Duration::from_secs(1);
/// The most connections that wait for another request.
const IDLE_MAX: usize = 64;
/// The most bytes of a reply that is read whole.
const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where a gateway listens: `http://host:port`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayUrl {
    authority: String,
}

/// The text is no gateway's URL.
#[derive(Debug, thiserror::Error)]
#[error("expected http://HOST:PORT, got {0:?}")]
pub struct BadGatewayUrl(String);

/// A request that got no reply, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Nobody listens there, or the network is down. Nothing was sent.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, io::Error),
    /// The connection ended early.
    #[error("connection lost: {0}")]
    Connection(String),
    /// Nothing moved for a minute.
    #[error("no answer for {} s", SILENCE_MAX.as_secs())]
    Silence,
    /// The reply is not what a gateway sends.
    #[error("reply not understood: {0}")]
    Reply(String),
}

/// Connections to one gateway. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub struct Client {
    url: GatewayUrl,
    idle: Arc<Mutex<Vec<SendRequest<Payload>>>>,
}

/// A reply's head; the body is read from it.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    /// Nothing where the request was not sent to its end: then the connection can carry no other.
    connection: Option<SendRequest<Payload>>,
    /// Ends the request where its body was not wanted. Only with the reply: what is left of that would be lost.
    #[expect(dead_code, reason = "it is told by being dropped")]
    unwanted: Option<oneshot::Sender<()>>,
    client: Client,
}

impl FromStr for GatewayUrl {
    type Err = BadGatewayUrl;

    fn from_str(text: &str) -> Result<Self, BadGatewayUrl> {
        let bad = || BadGatewayUrl(text.to_owned());
        let authority = text.strip_prefix("http://").unwrap_or(text);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let parsed: hyper::http::uri::Authority = authority.parse().map_err(|_| bad())?;
        if parsed.as_str().contains('@') || parsed.host().is_empty() {
            return Err(bad());
        }
        let port = match &authority[parsed.host().len()..] {
            "" => 80,
            _ => parsed.port_u16().ok_or_else(bad)?,
        };
        Ok(Self { authority: format!("{}:{port}", parsed.host()) })
    }
}

impl std::fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

impl Client {
    /// A client of the gateway at `url`. Connects when it is first asked for something.
    #[must_use]
    pub fn new(url: GatewayUrl) -> Self {
        Self { url, idle: Arc::default() }
    }

    /// Where the gateway is.
    #[must_use]
    pub const fn url(&self) -> &GatewayUrl {
        &self.url
    }

    /// A request for `path`, to be completed and given to [`send`](Self::send).
    #[must_use]
    pub fn request(&self, method: Method, path: &str) -> request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.url.authority)
            .header(USER_AGENT, concat!("deadwax/", env!("CARGO_PKG_VERSION")))
    }

    /// Sends a request without a body and waits for the head of its reply.
    ///
    /// It is sent again, once, where a kept connection turns out to be dead. Any other loss is the caller's to judge.
    pub async fn send(&self, request: request::Builder) -> Result<Reply, Lost> {
        let request = complete(request, Payload::Nothing)?;
        if let Some(kept) = self.kept().await {
            let (parts, _) = request.into_parts();
            let again = Request::from_parts(parts.clone(), Payload::Nothing);
            if let Ok(reply) = self.exchange(kept, again).await {
                return Ok(reply);
            }
            return self.exchange(self.connect().await?, Request::from_parts(parts, Payload::Nothing)).await;
        }
        self.exchange(self.connect().await?, request).await
    }

    /// Offers a body and waits for the head of the reply.
    ///
    /// Whoever feeds `payload` starts once `wanted` is told: when the gateway asks for the body (`100 Continue`), or
    /// has said nothing for a second. A gateway that has no use for the body answers before, and `wanted` is dropped
    /// with the reply.
    pub async fn offer(
        &self,
        request: request::Builder,
        payload: Payload,
        wanted: oneshot::Sender<()>,
    ) -> Result<Reply, Lost> {
        let mut request = complete(request.header(EXPECT, "100-continue"), payload)?;
        let asked = Arc::new(Notify::new());
        let asks = asked.clone();
        hyper::ext::on_informational(&mut request, move |interim| {
            if interim.status() == StatusCode::CONTINUE {
                asks.notify_one();
            }
        });
        let connection = match self.kept().await {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let exchange = self.exchange(connection, request);
        tokio::pin!(exchange);
        tokio::select! {
            // An answer goes before a question: it may be that both are there.
            biased;
            reply = &mut exchange => Ok(Reply { unwanted: Some(wanted), ..reply? }),
            _ = timeout(HELD_MAX, asked.notified()) => {
                // Nobody listens where the feeder has gone; the payload then ends short, and the exchange says so.
                let _ = wanted.send(());
                exchange.await
            }
        }
    }

    /// [`send`](Self::send) for a request without headers of its own.
    pub async fn ask(&self, method: Method, path: &str) -> Result<Reply, Lost> {
        self.send(self.request(method, path)).await
    }

    async fn kept(&self) -> Option<SendRequest<Payload>> {
        loop {
            let mut connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if connection.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    fn keep(&self, connection: SendRequest<Payload>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && !connection.is_closed() {
            idle.push(connection);
        }
    }

    async fn connect(&self) -> Result<SendRequest<Payload>, Lost> {
        let lost = |error| Lost::Connect(self.url.to_string(), error);
        let stream = match timeout(CONNECT_MAX, TcpStream::connect(&self.url.authority)).await {
            Ok(stream) => stream.map_err(lost)?,
            Err(_) => return Err(lost(io::ErrorKind::TimedOut.into())),
        };
        // Without it a small request waits for a delayed acknowledgement.
        stream.set_nodelay(true).map_err(lost)?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| Lost::Connection(causes(&error)))?;
        // It ends with the connection, which ends when its last sender is dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = causes(&error), "connection to the gateway ended");
            }
        });
        Ok(sender)
    }

    async fn exchange(&self, mut connection: SendRequest<Payload>, request: Request<Payload>) -> Result<Reply, Lost> {
        let sent = request.body().meter();
        let whole = request.body().bytes();
        let reply = connection.send_request(request);
        tokio::pin!(reply);
        let mut sent_before = sent.bytes();
        let reply = loop {
            match timeout(SILENCE_MAX, &mut reply).await {
                Ok(reply) => break reply.map_err(|error| Lost::Connection(causes(&error)))?,
                Err(_) if sent.bytes() == sent_before => return Err(Lost::Silence),
                Err(_) => sent_before = sent.bytes(),
            }
        };
        let (head, body) = reply.into_parts();
        let connection = (sent.bytes() == whole).then_some(connection);
        let client = self.clone();
        Ok(Reply { status: head.status, headers: head.headers, body, connection, unwanted: None, client })
    }
}

impl Reply {
    /// The next bytes of the body, or nothing at its end. An early end is an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Lost> {
        loop {
            let frame = timeout(SILENCE_MAX, self.body.frame()).await.map_err(|_| Lost::Silence)?;
            let Some(frame) = frame else {
                if let Some(connection) = self.connection.take() {
                    self.client.keep(connection);
                }
                return Ok(None);
            };
            let frame = frame.map_err(|error| Lost::Connection(causes(&error)))?;
            // Trailers are passed over.
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
    }

    /// All of a short body.
    pub async fn whole(mut self) -> Result<Vec<u8>, Lost> {
        let mut whole = Vec::new();
        while let Some(bytes) = self.next().await? {
            if whole.len() + bytes.len() > REPLY_BYTES_MAX {
                return Err(Lost::Reply(format!("longer than {REPLY_BYTES_MAX} bytes")));
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    }

    /// All of a short JSON body.
    pub async fn json(self) -> Result<serde_json::Value, Lost> {
        serde_json::from_slice(&self.whole().await?).map_err(|error| Lost::Reply(error.to_string()))
    }

    /// The header `name`, where it is a number.
    #[must_use]
    pub fn number(&self, name: header::HeaderName) -> Option<u64> {
        self.headers.get(name)?.to_str().ok()?.parse().ok()
    }

    /// What the gateway says is wrong: its `error` text, or the status where it gives none (HEAD).
    pub async fn complaint(self) -> String {
        let status = self.status;
        let said = match self.json().await {
            Ok(body) => body["error"].as_str().map(str::to_owned),
            Err(_) => None,
        };
        said.unwrap_or_else(|| match status {
            StatusCode::NOT_FOUND => "no such track".to_owned(),
            StatusCode::GONE => "taken down".to_owned(),
            StatusCode::SERVICE_UNAVAILABLE => "the gateway cannot tell: too few masters answer".to_owned(),
            other => format!("the gateway answered {other}"),
        })
    }
}

fn complete(request: request::Builder, payload: Payload) -> Result<Request<Payload>, Lost> {
    request.body(payload).map_err(|error| Lost::Reply(format!("request not sent: {error}")))
}

/// An error with all its causes, which hyper keeps out of its own text.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    const BODY: &[u8] = b"a short track";

    /// Offers [`BODY`] to a gateway that answers its head with `first` and, unless that is final, its body with 201.
    /// Gives the status, how much of the body came, and whether the connection was kept.
    async fn offered(first: &'static str) -> (StatusCode, usize, bool) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let at = listener.local_addr().expect("an address");
        let client = Client::new(at.to_string().parse().expect("a URL"));
        let gateway = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut got = Vec::new();
            while !got.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut got).await.expect("read"), 0, "the head ends");
            }
            let head = String::from_utf8(got).expect("text");
            assert!(head.contains("expect: 100-continue") && head.contains("content-length: 13"), "{head}");
            stream.write_all(first.as_bytes()).await.expect("sent");
            let mut body = Vec::new();
            while body.len() < BODY.len() && stream.read_buf(&mut body).await.is_ok_and(|count| count > 0) {}
            if body.len() == BODY.len() {
                stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}").await.expect("sent");
            }
            (body.len(), stream)
        });
        let (feed, source) = mpsc::channel(1);
        let (wanted, told) = oneshot::channel();
        tokio::spawn(async move {
            if told.await.is_ok() {
                feed.send(Ok(Bytes::from_static(BODY))).await.expect("taken");
            }
        });
        let payload = Payload::stream(source, BODY.len() as u64);
        let reply = client.offer(client.request(Method::PUT, "/"), payload, wanted).await.expect("a reply");
        let status = reply.status;
        assert_eq!(reply.whole().await.expect("a body"), b"{}");
        let kept = !client.idle.lock().expect("no panic").is_empty();
        // It ends when it has the body, or when the client has closed.
        let (sent, _open) = gateway.await.expect("no panic");
        (status, sent, kept)
    }

    #[tokio::test]
    async fn a_body_is_sent_when_it_is_asked_for() {
        let reply = offered("HTTP/1.1 100 Continue\r\n\r\n").await;
        assert_eq!(reply, (StatusCode::CREATED, BODY.len(), true));
    }

    #[tokio::test]
    async fn a_body_that_nobody_wants_is_not_sent_and_its_connection_ends() {
        let reply = offered("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
        assert_eq!(reply, (StatusCode::OK, 0, false));
    }

    #[tokio::test]
    async fn a_gateway_that_does_not_ask_gets_the_body_all_the_same() {
        assert_eq!(offered("").await, (StatusCode::CREATED, BODY.len(), true));
    }

    #[test]
    fn urls_are_hosts_and_ports() {
        for (text, url) in [
            ("http://127.0.0.1:7878", "http://127.0.0.1:7878"),
            ("http://[::1]:7878/", "http://[::1]:7878"),
            ("store.example:81", "http://store.example:81"),
            ("http://store.example", "http://store.example:80"),
        ] {
            assert_eq!(text.parse::<GatewayUrl>().expect("a URL").to_string(), url);
        }
        for text in ["", "https://a", "http://", "http://a/b", "http://u@a", "a b", "http://a:99999"] {
            assert!(text.parse::<GatewayUrl>().is_err(), "{text:?}");
        }
    }
}
