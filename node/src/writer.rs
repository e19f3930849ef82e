//! The one task that owns journal, store and role: journal order, apply order and visibility order are the same.
//!
//! A dedicated thread drains a bounded queue of jobs. Each drain appends and applies everything in it, makes it visible
//! to the links, does one fsync for all, and only then releases the replies: group commit. The network send of an
//! operation runs beside its fsync. Everybody else holds a [`WriterHandle`].
//!
//! What can fail is checked before the journal; once an operation is in the journal, applying it cannot fail.

mod control;
mod follower;
mod handle;
mod puts;
mod room;
mod state;
mod thread;
mod write;

#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;
use uuid::Uuid;
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_replication::batch::Batch;
use vectorizer_replication::command::{Command, HandedOver, Refusal};
use vectorizer_replication::position::Position;

use crate::store::{CollectionConfig, SnapshotHeader, SnapshotTrailer};

pub use handle::WriterHandle;
pub use puts::{PutError, Puts, too_large};
pub use room::Room;
pub use state::{Fault, NodeState, Progress};
pub use thread::{Start, WriterOptions, start};

/// A client's write, its text already turned into vectors.
#[derive(Clone, Debug, PartialEq)]
pub enum WriteRequest {
    /// Creates an empty collection.
    CreateCollection {
        /// Its name.
        name: String,
        /// Its dimension and metric.
        config: CollectionConfig,
    },
    /// Drops a collection and all that is in it.
    DropCollection {
        /// Its name.
        name: String,
    },
    /// Inserts vectors, or replaces those of the same id.
    Puts(EncodedPuts),
    /// Changes vectors that exist.
    Update {
        /// The collection's name.
        collection: String,
        /// The changes.
        items: Vec<UpdateItem>,
        /// Whether one bad item refuses all.
        atomic: bool,
    },
    /// Deletes vectors by id.
    Delete {
        /// The collection's name.
        collection: String,
        /// The ids.
        ids: Vec<String>,
        /// Whether one missing id refuses all.
        atomic: bool,
    },
}

/// Vectors to insert or replace, checked and encoded outside the writer's thread. All or none.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedPuts {
    /// The collection's name.
    pub collection: String,
    /// The incarnation that the records name: a collection of another one is not written to.
    pub incarnation: u64,
    /// Number of records, at least 1.
    pub count: u32,
    /// [`HEADER_LEN`](vectorizer_replication::batch::HEADER_LEN) bytes of room, then the records as
    /// [`encode_put`](crate::store::encode_put) writes them: each of the collection's dimension, its id allowed and
    /// its payload a JSON object.
    pub records: BytesMut,
}

/// One change of a vector that exists.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateItem {
    /// Its id.
    pub id: String,
    /// The new vector; absent leaves it.
    pub vector: Option<Vec<f32>>,
    /// Payload keys to set, as a JSON object; absent leaves the payload, other keys stay.
    pub payload: Option<Bytes>,
}

/// The answer to a write that was carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteReply {
    /// Where the log ended after it. A read that asks for at least this sees it.
    pub position: Position,
    /// One result per item, in the order of the request; empty for collections.
    pub results: Vec<ItemResult>,
}

/// What became of one item of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemResult {
    /// Its id.
    pub id: String,
    /// Carried out, or why not.
    pub outcome: Result<(), ApiError>,
}

/// Why a write was not carried out, or may not have been.
#[derive(Clone, Debug, PartialEq)]
pub enum WriteError {
    /// An answer for the client.
    Api(ApiError),
    /// Another node is about to take over. Nothing happened: watch the state, then retry here or forward.
    HandingOver,
}

impl WriteError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        WriteError::Api(ApiError::new(code, message))
    }
}

/// One session of this node with its master. Operations of an older session are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionId(u64);

/// Why a replica's session cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The master is not one that this node may follow: another cluster, or an epoch below the one promised.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This node's own disk is full or refuses: what it has is as it was, and trying again may succeed.
    #[error("this node cannot take it now: {0}")]
    Local(String),
    /// A newer session, a fence or a change of role ended this one.
    #[error("this session is over: a newer one, a fence or a change of role ended it")]
    SessionOver,
    /// The bytes do not continue this node's log, or cannot be applied: this replica stops until it is resynced.
    #[error("what the master sent does not fit: {0}")]
    Mismatch(String),
    /// The master would have this node give up operations that enough replicas were known to hold.
    #[error("{0}")]
    Covered(String),
    /// The writer has stopped.
    #[error("the node is stopping")]
    Stopping,
}

/// What became of an attempt to drop a divergent tail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TruncateOutcome {
    /// Log and store end there now; the tail was written aside.
    Done,
    /// No checkpoint is old enough: only a full sync helps.
    NeedsSnapshot,
}

type Reply<T> = oneshot::Sender<T>;

/// What a handover was answered when it held writes: which hold is its own, and where the log ends as long as that lasts.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Held {
    number: u64,
    end: Position,
}

/// What the writer's thread is asked to do.
enum Job {
    Write(WriteRequest, Reply<Result<WriteReply, WriteError>>),
    AcceptMaster {
        epoch: u64,
        cluster: Uuid,
        reply: Reply<Result<SessionId, SinkError>>,
    },
    Replicate {
        session: SessionId,
        batches: Vec<Batch>,
        reply: Reply<Result<(), SinkError>>,
    },
    Truncate {
        session: SessionId,
        to: Position,
        reply: Reply<Result<TruncateOutcome, SinkError>>,
    },
    Continues {
        session: SessionId,
        reply: Reply<Result<(), SinkError>>,
    },
    SnapshotBegin {
        session: SessionId,
        header: Box<SnapshotHeader>,
        reply: Reply<Result<(), SinkError>>,
    },
    SnapshotChunk {
        session: SessionId,
        index: u32,
        bytes: Bytes,
        reply: Reply<Result<(), SinkError>>,
    },
    SnapshotEnd {
        session: SessionId,
        trailer: SnapshotTrailer,
        reply: Reply<Result<(), SinkError>>,
    },
    Covered {
        session: SessionId,
        offset: u64,
        reply: Reply<Result<(), SinkError>>,
    },
    /// What this node's own replicas have acknowledged while it wrote in this epoch.
    OwnCovered {
        epoch: u64,
        offset: u64,
    },
    Unlike(String, Reply<()>),
    Command(Command, Reply<Result<(), ApiError>>),
    HoldWrites {
        cluster: Uuid,
        plan: HandedOver,
        until: std::time::Instant,
        reply: Reply<Result<Held, ApiError>>,
    },
    /// Ends this hold, if it is still the one.
    ReleaseWrites(u64),
    FinishHandover(HandedOver, Held, Reply<Result<(), ApiError>>),
    Settle(Reply<()>),
    Tick,
    Stop(Reply<()>),
}
