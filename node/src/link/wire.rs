//! Messages in and out of a socket's two halves. Every call here can be dropped in the middle without losing a byte.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use vectorizer_replication::frame::{self, FrameError};
use vectorizer_replication::message::codec::MessageError;
use vectorizer_replication::message::{Ack, Beat, Message};

/// Room made for each read. More is reserved once a frame's length is known and allowed.
const READ_ROOM: usize = 64 * 1024;
/// Pieces handed to the system at once.
const MAX_PIECES: usize = 64;

/// Bytes that are no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// The incoming half.
pub(super) struct Inbox {
    socket: OwnedReadHalf,
    buf: BytesMut,
}

impl Inbox {
    pub(super) fn new(socket: OwnedReadHalf) -> Self {
        Inbox {
            socket,
            buf: BytesMut::new(),
        }
    }

    /// Reads what is there; 0 at the end of the stream.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        self.buf.reserve(READ_ROOM);
        self.socket.read_buf(&mut self.buf).await
    }

    /// The next whole message of at most `limit` bytes of payload.
    pub(super) fn next(&mut self, limit: usize) -> Result<Option<Message>, WireError> {
        match frame::decode(&mut self.buf, limit)? {
            Some(frame) => Ok(Some(Message::decode(frame)?)),
            None => Ok(None),
        }
    }
}

/// The outgoing half.
pub(super) struct Outbox {
    socket: OwnedWriteHalf,
    queue: VecDeque<Bytes>,
    heartbeats: Heartbeats,
}

/// Heartbeats, and a replica's beats, come by the clock, whether the peer reads or not: one of them may wait in the queue,
/// and what another would say is said by the next one after it. A beat that acknowledges more is said at once.
#[derive(Default)]
struct Heartbeats {
    /// Bytes of the queue up to the end of the last one.
    unsent: usize,
    /// What was acknowledged last.
    ack: Option<Ack>,
}

impl Heartbeats {
    /// Queues a message, unless it is a heartbeat behind another one.
    fn push(&mut self, queue: &mut VecDeque<Bytes>, message: &Message) {
        let ack = if let Message::Ack(ack) | Message::Beat(Beat { ack, .. }) = message {
            Some(*ack)
        } else {
            None
        };
        let is_heartbeat = matches!(message, Message::Heartbeat(_) | Message::Beat(_));
        if is_heartbeat && self.unsent > 0 && (ack.is_none() || ack == self.ack) {
            return;
        }
        self.ack = ack.or(self.ack);
        message.encode(queue);
        if is_heartbeat {
            self.unsent = queue.iter().map(Bytes::len).sum();
        }
    }

    /// The first `written` bytes of the queue have left.
    fn written(&mut self, written: usize) {
        self.unsent = self.unsent.saturating_sub(written);
    }
}

impl Outbox {
    pub(super) fn new(socket: OwnedWriteHalf) -> Self {
        Outbox {
            socket,
            queue: VecDeque::new(),
            heartbeats: Heartbeats::default(),
        }
    }

    /// Queues a message. What can be queued is bounded by the session's window, and of heartbeats there is one.
    pub(super) fn push(&mut self, message: &Message) {
        self.heartbeats.push(&mut self.queue, message);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Writes some of what is queued and returns how much.
    pub(super) async fn write_some(&mut self) -> io::Result<usize> {
        let written = write_pieces(&mut self.socket, &self.queue).await?;
        if written == 0 && !self.queue.is_empty() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        advance(&mut self.queue, written);
        self.heartbeats.written(written);
        Ok(written)
    }

    /// Writes everything and ends this half.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        while !self.is_empty() {
            self.write_some().await?;
        }
        self.socket.shutdown().await
    }
}

async fn write_pieces(
    socket: &mut (impl AsyncWrite + Unpin),
    queue: &VecDeque<Bytes>,
) -> io::Result<usize> {
    let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
    let mut count = 0;
    for (piece, bytes) in pieces.iter_mut().zip(queue) {
        *piece = IoSlice::new(bytes);
        count += 1;
    }
    socket.write_vectored(&pieces[..count]).await
}

/// Drops the first `written` bytes, and empty pieces after them.
fn advance(queue: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(first) = queue.front_mut() {
        if first.len() > written {
            first.advance(written);
            return;
        }
        written -= first.len();
        queue.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use vectorizer_replication::message::{Heartbeat, Reject};
    use vectorizer_replication::position::Position;

    use super::*;

    #[test]
    fn for_a_peer_that_never_reads_one_heartbeat_is_queued() {
        one_is_queued(&Message::Heartbeat(Heartbeat {
            clock_ms: 7,
            end: Position::ZERO,
            durable: 0,
            covered: 0,
            digest: None,
        }));
        one_is_queued(&Message::Beat(Beat {
            clock_ms: 7,
            promised: 1,
            ack: Ack::default(),
        }));
    }

    #[test]
    fn a_beat_that_acknowledges_more_is_queued_behind_another() {
        let beat = |durable| {
            Message::Beat(Beat {
                clock_ms: 7,
                promised: 1,
                ack: Ack {
                    durable,
                    ..Ack::default()
                },
            })
        };
        let (mut heartbeats, mut queue) = (Heartbeats::default(), VecDeque::new());
        for (durable, queued) in [(1, 1), (1, 1), (2, 2), (2, 2), (3, 3)] {
            heartbeats.push(&mut queue, &beat(durable));
            let len: usize = queue.iter().map(Bytes::len).sum();
            let one = {
                let mut one = VecDeque::new();
                beat(durable).encode(&mut one);
                one.iter().map(Bytes::len).sum::<usize>()
            };
            assert_eq!(len, queued * one);
        }
    }

    fn one_is_queued(beat: &Message) {
        let (mut heartbeats, mut queue) = (Heartbeats::default(), VecDeque::new());
        let len = |queue: &VecDeque<Bytes>| queue.iter().map(Bytes::len).sum::<usize>();
        let other = Message::Reject(Reject::Busy(1));
        heartbeats.push(&mut queue, &other);
        let before = len(&queue);
        heartbeats.push(&mut queue, beat);
        let bounded = len(&queue);
        for _ in 0..10_000 {
            heartbeats.push(&mut queue, beat);
        }
        assert_eq!(len(&queue), bounded);
        heartbeats.push(&mut queue, &other);
        // Not its last byte.
        for _ in 0..bounded - 1 {
            advance(&mut queue, 1);
            heartbeats.written(1);
        }
        heartbeats.push(&mut queue, beat);
        assert_eq!(len(&queue), 1 + before, "it is still on its way");
        advance(&mut queue, 1);
        heartbeats.written(1);
        heartbeats.push(&mut queue, beat);
        assert_eq!(len(&queue), before + bounded - before, "and now the next");
    }

    #[test]
    fn written_bytes_leave_the_queue_wherever_a_write_ends() {
        let whole = b"abcdefgh";
        for cut in 0..=whole.len() {
            let pieces = [&whole[..3], &[], &whole[3..4], &whole[4..]];
            let mut queue: VecDeque<Bytes> = pieces.map(Bytes::copy_from_slice).into();
            advance(&mut queue, cut);
            let left: Vec<u8> = queue.iter().flat_map(|b| b.to_vec()).collect();
            assert_eq!(left, &whole[cut..]);
            assert!(queue.front().is_none_or(|b| !b.is_empty()));
        }
    }
}
