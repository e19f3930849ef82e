//! One connection: what is known of it, and its bytes.
//!
//! A connection either has a request that the node works on, or it waits for its client: for the next request, for more
//! of a body, or until an answer is taken. Since when it waits is noted with every byte that moves; whoever waits longest
//! goes when places run short (`places`). Of an answer a client has to take some bytes a second: otherwise it would do to
//! take one from time to time.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Bytes a second that a client has to take of its answer. Who takes less makes others wait for what the answer holds.
const RATE: u64 = 32 << 10;

/// Instead of a moment: the node works.
const WORKS: u64 = u64::MAX;

/// What is known of one connection.
pub(super) struct Connection {
    accepted: Instant,
    /// Milliseconds after `accepted`, or [`WORKS`].
    waits_since: AtomicU64,
    asked: AtomicBool,
    /// Whether its client does not take what is written.
    blocked: AtomicBool,
    for_master: AtomicBool,
    leave: Notify,
}

impl Connection {
    /// One that has just been accepted.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Connection {
            accepted: Instant::now(),
            waits_since: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            for_master: AtomicBool::new(false),
            leave: Notify::new(),
        })
    }

    /// A request has come, or more of it: the node works.
    pub(super) fn works(&self) {
        self.asked.store(true, Relaxed);
        self.waits_since.store(WORKS, Relaxed);
    }

    /// From now on it waits for its client.
    pub(super) fn waits(&self) {
        let now = u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(WORKS - 1);
        self.waits_since.store(now, Relaxed);
    }

    fn moved(&self) {
        self.took(u64::MAX);
    }

    /// So many bytes have moved: what they may have taken it has not waited.
    fn took(&self, bytes: u64) {
        let since = self.waits_since.load(Relaxed);
        if since != WORKS {
            self.waits();
            let earned = since.saturating_add(bytes.saturating_mul(1000) / RATE);
            self.waits_since.fetch_min(earned, Relaxed);
        }
    }

    /// Since when it waits for its client; `None` while the node works for it.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        match self.waits_since.load(Relaxed) {
            WORKS => None,
            since => Some(self.accepted + Duration::from_millis(since)),
        }
    }

    /// Whether its client has asked nothing at all for so long, or has taken nothing of its answer, or so little as if.
    pub(super) fn is_silent_for(&self, patience: Duration) -> bool {
        if !self.asked.load(Relaxed) {
            return self.accepted.elapsed() >= patience;
        }
        let waits = self.waits_since();
        self.blocked.load(Relaxed) && waits.is_some_and(|since| since.elapsed() >= patience)
    }

    /// Notes that its client came for a master, and found one or was to find one.
    pub(super) fn came_for_master(&self) {
        self.for_master.store(true, Relaxed);
    }

    /// Whether its client came for a master.
    pub(super) fn is_for_master(&self) -> bool {
        self.for_master.load(Relaxed)
    }

    /// Ends it: after the request under way, or now.
    pub(super) fn leave(&self) {
        self.leave.notify_one();
    }

    /// Waits until it is to end.
    pub(super) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }
}

/// A socket that tells its connection when bytes move.
pub(super) struct Wire {
    socket: TcpStream,
    of: Arc<Connection>,
}

impl Wire {
    pub(super) fn new(socket: TcpStream, of: Arc<Connection>) -> Self {
        Wire { socket, of }
    }

    fn written(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.of.blocked.store(outcome.is_pending(), Relaxed);
        if let Poll::Ready(Ok(bytes)) = &outcome {
            self.of.took(*bytes as u64);
        }
        outcome
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.socket).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.of.moved();
        }
        outcome
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.written(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.written(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_takes_a_few_bytes_at_a_time_has_waited_but_for_what_they_may_take() {
        let ago = Duration::from_secs(100);
        let connection = Connection {
            accepted: Instant::now().checked_sub(ago).unwrap(),
            waits_since: AtomicU64::new(0),
            asked: AtomicBool::new(true),
            blocked: AtomicBool::new(true),
            for_master: AtomicBool::new(false),
            leave: Notify::new(),
        };
        let seconds = Duration::from_secs;
        connection.took(1);
        assert!(connection.is_silent_for(seconds(99)));
        connection.took(20 * RATE);
        assert!(connection.is_silent_for(seconds(79)));
        assert!(!connection.is_silent_for(seconds(90)));
        connection.took(500 * RATE);
        assert!(!connection.is_silent_for(seconds(60)));
    }
}
