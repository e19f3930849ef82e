//! What a replica's session wants of the writer, one thing after another, beside the reading of the socket.
//!
//! Operations that arrive while the writer is busy wait here and go to it together. When too much waits, the socket is
//! not read, and the master notices that its window is full.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use uuid::Uuid;
use vectorizer_replication::batch::Batch;
use vectorizer_replication::position::LogEnd;

use crate::store::{SnapshotHeader, SnapshotTrailer};
use crate::writer::{SessionId, SinkError, TruncateOutcome, WriterHandle};

/// Bytes that may wait before the socket is left alone.
const MAX_WAITING: usize = 8 * 1024 * 1024;
/// Bytes handed to the writer at once.
const MAX_TOGETHER: usize = 4 * 1024 * 1024;

/// One thing to do.
#[derive(Debug)]
pub(super) enum Job {
    Accept { cluster: Uuid, epoch: u64 },
    Truncate(LogEnd),
    Continue,
    Append(Vec<Batch>),
    SnapshotBegin(Box<SnapshotHeader>),
    SnapshotChunk { index: u32, bytes: Bytes },
    SnapshotEnd(SnapshotTrailer),
    Covered(u64),
}

/// What was done.
#[derive(Debug)]
pub(super) enum Done {
    Accepted(SessionId),
    Truncated(TruncateOutcome),
    Appended(u64),
    SnapshotBegun,
    ChunkTaken(u32),
    SnapshotEnded,
    Noted,
}

type Running = Pin<Box<dyn Future<Output = Result<Done, SinkError>> + Send>>;

/// The queue and the one thing that is being done.
pub(super) struct Sink {
    writer: WriterHandle,
    session: Option<SessionId>,
    waiting: VecDeque<Job>,
    waiting_bytes: usize,
    /// Parts of a snapshot that are waiting or being done.
    snapshot_parts: usize,
    running: Option<Running>,
}

impl Sink {
    pub(super) fn new(writer: WriterHandle) -> Self {
        Sink {
            writer,
            session: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            snapshot_parts: 0,
            running: None,
        }
    }

    pub(super) fn push(&mut self, job: Job) {
        self.waiting_bytes += job.bytes();
        self.snapshot_parts += usize::from(job.is_snapshot());
        self.waiting.push_back(job);
        self.start();
    }

    /// Whether the socket may be read.
    pub(super) fn has_room(&self) -> bool {
        self.waiting_bytes < MAX_WAITING
    }

    /// Whether a snapshot is on its way to the writer, which does not know all of it yet.
    pub(super) fn has_snapshot(&self) -> bool {
        self.snapshot_parts > 0
    }

    /// The outcome of the oldest thing; never, when there is nothing to do. Can be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Done, SinkError> {
        let Some(running) = &mut self.running else {
            return std::future::pending().await;
        };
        let done = running.await;
        self.running = None;
        match &done {
            Ok(Done::Accepted(session)) => self.session = Some(*session),
            Ok(Done::SnapshotBegun | Done::ChunkTaken(_) | Done::SnapshotEnded) => {
                self.snapshot_parts -= 1;
            }
            Ok(Done::Appended(_) | Done::Truncated(_) | Done::Noted) => {}
            Err(_) => {
                // Nothing after a failure can succeed.
                self.waiting.clear();
                self.waiting_bytes = 0;
            }
        }
        self.start();
        done
    }

    /// Waits for what is being done, and drops the rest: after that, nothing of this session changes the log.
    pub(super) async fn finish(mut self) {
        self.waiting.clear();
        if self.running.is_some() {
            // A failure is found again by the next session.
            let _ = self.next().await;
        }
        // The writer answers before it publishes.
        self.writer.settled().await;
    }

    fn start(&mut self) {
        if self.running.is_some() {
            return;
        }
        let Some(mut job) = self.waiting.pop_front() else {
            return;
        };
        self.waiting_bytes -= job.bytes();
        if let Job::Append(batches) = &mut job {
            self.add_to(batches);
        }
        self.running = Some(Box::pin(run(self.writer.clone(), self.session, job)));
    }

    /// Adds the operations that wait next in line.
    fn add_to(&mut self, batches: &mut Vec<Batch>) {
        let mut bytes = 0;
        while bytes < MAX_TOGETHER
            && matches!(self.waiting.front(), Some(Job::Append(_)))
            && let Some(Job::Append(more)) = self.waiting.pop_front()
        {
            let len: usize = more.iter().map(|b| b.bytes().len()).sum();
            bytes += len;
            self.waiting_bytes -= len;
            batches.extend(more);
        }
    }
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Job::Append(batches) => batches.iter().map(|b| b.bytes().len()).sum(),
            Job::SnapshotChunk { bytes, .. } => bytes.len(),
            Job::Accept { .. }
            | Job::Truncate(_)
            | Job::Continue
            | Job::SnapshotBegin(_)
            | Job::SnapshotEnd(_)
            | Job::Covered(_) => 0,
        }
    }

    fn is_snapshot(&self) -> bool {
        match self {
            Job::SnapshotBegin(_) | Job::SnapshotChunk { .. } | Job::SnapshotEnd(_) => true,
            Job::Accept { .. }
            | Job::Truncate(_)
            | Job::Continue
            | Job::Append(_)
            | Job::Covered(_) => false,
        }
    }
}

async fn run(
    writer: WriterHandle,
    session: Option<SessionId>,
    job: Job,
) -> Result<Done, SinkError> {
    if let Job::Accept { cluster, epoch } = job {
        return writer
            .accept_master(epoch, cluster)
            .await
            .map(Done::Accepted);
    }
    let session = session.ok_or(SinkError::SessionOver)?;
    match job {
        Job::Accept { .. } => Err(SinkError::SessionOver),
        Job::Truncate(to) => {
            let outcome = writer.truncate(session, to.position).await?;
            Ok(Done::Truncated(outcome))
        }
        Job::Continue => {
            writer.continues(session).await?;
            Ok(Done::Noted)
        }
        Job::Append(batches) => {
            let last = batches.last().map_or(0, Batch::last_offset);
            writer.replicate(session, batches).await?;
            Ok(Done::Appended(last))
        }
        Job::SnapshotBegin(header) => {
            writer.snapshot_begin(session, *header).await?;
            Ok(Done::SnapshotBegun)
        }
        Job::SnapshotChunk { index, bytes } => {
            writer.snapshot_chunk(session, index, bytes).await?;
            Ok(Done::ChunkTaken(index + 1))
        }
        Job::SnapshotEnd(trailer) => {
            writer.snapshot_end(session, trailer).await?;
            Ok(Done::SnapshotEnded)
        }
        Job::Covered(offset) => {
            writer.covered(session, offset).await?;
            Ok(Done::Noted)
        }
    }
}
