//! One connection: a socket that notices a client who takes nothing, and closes so that a last answer is read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::Limits;
use crate::route;
use crate::worker::Worker;

/// How long a client may go on sending a body that nobody reads, so that it comes to read the answer.
pub(crate) const LINGER: Duration = Duration::from_secs(5);

/// Says that the answer came before the request's body was read.
#[derive(Clone, Default)]
pub(crate) struct Linger(Arc<AtomicBool>);

impl Linger {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Serves a connection until either side ends it, or `stop` turns true and what is under way is answered.
pub(crate) async fn serve(stream: TcpStream, worker: Arc<Worker>, mut stop: watch::Receiver<bool>) {
    // Nagle's algorithm and delayed acknowledgements together hold small answers back for 40 ms.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "set TCP_NODELAY failed, connection is gone");
        return;
    }
    let linger = Linger::default();
    let socket = Socket::new(stream, &worker.shared.limits, linger.clone());
    let limits = &worker.shared.limits;
    let service = {
        let worker = Arc::clone(&worker);
        service_fn(move |request| route::answer(Arc::clone(&worker), request, linger.clone()))
    };
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits.header_seconds_max))
        .max_header_size(limits.header_bytes_max);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(socket), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { drop(stop.wait_for(|stop| *stop).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients leave as they like; what went wrong here was logged where it did.
        tracing::debug!(%error, "connection ended");
    }
}

/// A TCP stream with a limit on how long a write may wait, and a close that lingers where it must.
struct Socket {
    stream: TcpStream,
    send_stall_max: Duration,
    /// Made when a write first waits; moved on lazily, since most waits are short.
    timer: Option<Pin<Box<Sleep>>>,
    /// When the write that waits now is given up.
    write_deadline: Option<Instant>,
    linger: Linger,
    lingering: bool,
}

impl Socket {
    fn new(stream: TcpStream, limits: &Limits, linger: Linger) -> Self {
        let send_stall_max = Duration::from_secs(limits.send_stall_seconds_max);
        Self { stream, send_stall_max, timer: None, write_deadline: None, linger, lingering: false }
    }

    /// Passes a write's result on; one that waits too long becomes an error.
    fn watched<T>(&mut self, context: &mut Context<'_>, write: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.write_deadline = None;
            return write;
        }
        let deadline = *self.write_deadline.get_or_insert_with(|| Instant::now() + self.send_stall_max);
        ready!(self.poll_until(context, deadline));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client took nothing for too long")))
    }

    fn poll_until(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            ready!(timer.as_mut().poll(context));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            // It was set for an earlier write.
            timer.as_mut().reset(deadline);
        }
    }

    /// Reads and drops what still comes, until the client ends or [`LINGER`] is over. Closing with unread bytes would
    /// reset the connection, and a reset may reach the client before the answer does.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 16 * 1024];
        let deadline = *self.write_deadline.get_or_insert_with(|| Instant::now() + LINGER);
        loop {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    // A timer that is set later than this would be missed: this is the socket's last act.
                    self.timer = Some(Box::pin(sleep_until(deadline)));
                    return self.poll_until(context, deadline);
                }
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let write = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.watched(context, write)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let write = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.watched(context, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.lingering {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            if !this.linger.0.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            (this.lingering, this.write_deadline) = (true, None);
        }
        this.poll_linger(context).map(Ok)
    }
}
