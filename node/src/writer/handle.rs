//! The way to the writer from everywhere else in the process. Cloning is cheap; every call waits its turn in the queue.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_replication::batch::Batch;
use vectorizer_replication::command::Command;
use vectorizer_replication::position::Position;

use super::{
    Job, NodeState, Progress, Reply, Room, SessionId, SinkError, TruncateOutcome, WriteError,
    WriteReply, WriteRequest,
};
use crate::journal::LogReader;
use crate::store::{SnapshotHeader, SnapshotTrailer};

/// Sends jobs to the writer's thread and reads what it publishes.
#[derive(Clone)]
pub struct WriterHandle {
    pub(super) jobs: mpsc::Sender<Job>,
    pub(super) state: watch::Receiver<NodeState>,
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) room: watch::Receiver<Room>,
    pub(super) log: LogReader,
}

impl WriterHandle {
    /// Carries out a client's write. Answers once it is as durable as configured.
    ///
    /// Dropping the future does not take the write back.
    pub async fn write(&self, request: WriteRequest) -> Result<WriteReply, WriteError> {
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(Job::Write(request, reply)).await.is_err() {
            return Err(WriteError::Api(stopping()));
        }
        // Taken, and perhaps in the log.
        answer.await.unwrap_or_else(|_| {
            Err(WriteError::new(
                ErrorCode::OutcomeUnknown,
                "the node ended before the write was confirmed: it may or may not survive, read it back",
            ))
        })
    }

    /// Begins a replica's session with a master of `epoch`, which is promised durably before this returns.
    /// Ends any older session.
    pub async fn accept_master(&self, epoch: u64, cluster: Uuid) -> Result<SessionId, SinkError> {
        self.sink(|reply| Job::AcceptMaster {
            epoch,
            cluster,
            reply,
        })
        .await
    }

    /// Appends and applies what the master sent. It is durable once [`Progress::durable`] says so.
    pub async fn replicate(
        &self,
        session: SessionId,
        batches: Vec<Batch>,
    ) -> Result<(), SinkError> {
        self.sink(|reply| Job::Replicate {
            session,
            batches,
            reply,
        })
        .await
    }

    /// Drops what this node has after `to` and the master does not have; it is written aside first.
    pub async fn truncate(
        &self,
        session: SessionId,
        to: Position,
    ) -> Result<TruncateOutcome, SinkError> {
        self.sink(|reply| Job::Truncate { session, to, reply })
            .await
    }

    /// The master goes on from where this node's log ends: all of it is the master's as well.
    pub async fn continues(&self, session: SessionId) -> Result<(), SinkError> {
        self.sink(|reply| Job::Continues { session, reply }).await
    }

    /// Begins a full sync. What the node serves, it goes on serving until the sync is exact and durable, unless it holds
    /// what the master does not have.
    pub async fn snapshot_begin(
        &self,
        session: SessionId,
        header: SnapshotHeader,
    ) -> Result<(), SinkError> {
        let header = Box::new(header);
        self.sink(|reply| Job::SnapshotBegin {
            session,
            header,
            reply,
        })
        .await
    }

    /// Loads one chunk, in order from index 0.
    pub async fn snapshot_chunk(
        &self,
        session: SessionId,
        index: u32,
        bytes: Bytes,
    ) -> Result<(), SinkError> {
        self.sink(|reply| Job::SnapshotChunk {
            session,
            index,
            bytes,
            reply,
        })
        .await
    }

    /// Ends the chunks; the operations from the snapshot's start on follow through [`Self::replicate`].
    pub async fn snapshot_end(
        &self,
        session: SessionId,
        trailer: SnapshotTrailer,
    ) -> Result<(), SinkError> {
        self.sink(|reply| Job::SnapshotEnd {
            session,
            trailer,
            reply,
        })
        .await
    }

    /// Notes that enough replicas hold everything up to `offset`: this node never gives it up again.
    pub async fn covered(&self, session: SessionId, offset: u64) -> Result<(), SinkError> {
        self.sink(|reply| Job::Covered {
            session,
            offset,
            reply,
        })
        .await
    }

    /// Notes what this node's own replicas have acknowledged, as master of `epoch`. Whether it was taken: a full queue
    /// has more urgent things, and nobody waits for it.
    pub fn own_covered(&self, epoch: u64, offset: u64) -> bool {
        self.jobs
            .try_send(Job::OwnCovered { epoch, offset })
            .is_ok()
    }

    /// This replica's copy was found to be unlike its master's: it serves no reads until a full sync has replaced it.
    pub async fn unlike(&self, found: String) {
        // A writer that has stopped serves nothing.
        let _ = self.call(|reply| Job::Unlike(found, reply)).await;
    }

    /// A peer of this cluster has shown a higher epoch: a master demotes itself.
    pub async fn deposed(&self, epoch: u64) {
        // It is never refused, and a writer that has stopped needs no demotion.
        let _ = self.command(Command::Deposed { epoch }).await;
    }

    /// Carries out a command that changes the role. Its effects are durable when this answers.
    ///
    /// A handover takes more than one step: see [`Self::handover`].
    pub async fn command(&self, command: Command) -> Result<(), ApiError> {
        self.refusable(|reply| Job::Command(command, reply)).await
    }

    /// The log.
    pub fn log(&self) -> LogReader {
        self.log.clone()
    }

    /// Returns once everything that was asked before is done and published.
    pub async fn settled(&self) {
        // A writer that has stopped publishes nothing more.
        let _ = self.call(Job::Settle).await;
    }

    /// Writes everything down and ends the thread.
    pub async fn stop(&self) {
        // Stopped already is as good.
        let _ = self.call(Job::Stop).await;
    }

    /// The state as it is and as it changes.
    pub fn state(&self) -> watch::Receiver<NodeState> {
        self.state.clone()
    }

    /// The log's end as it is and as it moves.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// How much room there is on the disk and in memory, as it changes.
    pub fn room(&self) -> watch::Receiver<Room> {
        self.room.clone()
    }

    /// Whether the thread still takes jobs.
    pub fn is_alive(&self) -> bool {
        !self.jobs.is_closed()
    }

    pub(super) async fn refusable<T>(
        &self,
        job: impl FnOnce(Reply<Result<T, ApiError>>) -> Job,
    ) -> Result<T, ApiError> {
        self.call(job).await.unwrap_or_else(|| Err(stopping()))
    }

    pub(super) async fn call<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).await.ok()?;
        answer.await.ok()
    }

    async fn sink<T>(
        &self,
        job: impl FnOnce(Reply<Result<T, SinkError>>) -> Job,
    ) -> Result<T, SinkError> {
        self.call(job).await.unwrap_or(Err(SinkError::Stopping))
    }
}

/// Nothing was done.
pub(super) fn stopping() -> ApiError {
    ApiError::new(
        ErrorCode::Unavailable,
        "the node is stopping; send the request again",
    )
}
