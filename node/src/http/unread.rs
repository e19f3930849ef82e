//! The bodies of requests, read to their ends even when nobody wants them.
//!
//! A request that is refused for its credential, its size or for want of room is answered before its body is read. Most
//! clients look for an answer only once they have sent everything; if the connection were closed before, they would see a
//! broken pipe and no answer. What is left of a body is therefore read and dropped, within bounds, and then the
//! connection is closed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;

use super::connection::Connection;

/// A body that nobody wants is read up to so many bytes.
const MOST_BYTES: usize = 256 << 20;
/// And for so long.
const LONGEST: Duration = Duration::from_secs(30);
/// With more to come than this, in bytes, the client learns in the answer that the connection ends with it.
const SHORT: u64 = 256 << 10;

/// Whether the answer ends the connection, as much of the request's body is left.
#[derive(Clone, Default)]
pub(super) struct Ends(Arc<AtomicBool>);

impl Ends {
    pub(super) fn get(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// A request's body. What is left of it when it is dropped is read and dropped as well.
pub(super) struct Read {
    body: Option<Incoming>,
    of: Arc<Connection>,
    ends: Ends,
    /// Its client waits to be told that the body is wanted, and has not been.
    waits_to_send: bool,
}

impl Read {
    pub(super) fn new(body: Incoming, waits_to_send: bool, of: Arc<Connection>) -> (Self, Ends) {
        let ends = Ends::default();
        let read = Read {
            body: Some(body),
            of,
            ends: ends.clone(),
            waits_to_send,
        };
        (read, ends)
    }
}

impl Body for Read {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits_to_send = false;
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(cx);
        match &frame {
            Poll::Pending => self.of.waits(),
            Poll::Ready(Some(Ok(_))) => self.of.works(),
            Poll::Ready(None | Some(Err(_))) => {
                self.of.works();
                self.body = None;
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        let left = self.body.take().filter(|body| !body.is_end_stream());
        let (Some(body), Ok(runtime)) = (left, Handle::try_current()) else {
            return;
        };
        let more = body.size_hint().upper().is_none_or(|bytes| bytes > SHORT);
        self.ends.0.store(more || self.waits_to_send, Relaxed);
        // Asked for, it would be sent.
        if !self.waits_to_send {
            runtime.spawn(read_away(body));
        }
    }
}

async fn read_away(mut body: Incoming) {
    let all = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > MOST_BYTES {
                break;
            }
        }
    };
    // Then the connection is closed, whoever still sends.
    let _ = tokio::time::timeout(LONGEST, all).await;
}
