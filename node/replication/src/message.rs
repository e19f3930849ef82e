//! What the two sides say to each other. The layouts are in [`codec`].
//!
//! ```text
//! replica                                  master
//!    │ Greet {versions, features, nonce} ────▶ │
//!    │ ◀──── Challenge {version, nonce}        │
//!    │ Proof (with a token), Hello ──────────▶ │
//!    │ ◀──── Proof (with a token), then one of │
//!    │       Continue · Truncate · SnapshotBegin, chunks, SnapshotEnd · Reject
//!    │ ◀──── Batches, Heartbeat …              │
//!    │ Ack, Beat … ──────────────────────────▶ │
//! ```
//! After a Truncate the replica cuts its log and says Hello again.

use std::fmt;

use bytes::Bytes;
use uuid::Uuid;

use crate::auth::{Nonce, Proof};
use crate::batch::Batch;
use crate::frame;
use crate::handshake::ReplicaLog;
use crate::position::{History, LogEnd, Position};

pub mod codec;

/// The protocol version that this program speaks.
pub const VERSION: u16 = 1;
/// Feature bits that it understands; none yet.
pub const FEATURES: u64 = 0;
/// Longest snapshot chunk, in bytes. They are 1 to 4 MiB as a rule; only a single record that is longer makes one longer.
pub const MAX_CHUNK: usize = frame::MAX_AFTER_AUTH - 8;

/// One message.
#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    /// Replica → master, first.
    Greet(Greet),
    /// Master → replica, the answer.
    Challenge(Challenge),
    /// Both, when they have a token.
    Proof(Proof),
    /// Replica → master.
    Hello(Box<Hello>),
    /// Master → replica: operations follow from `from` on.
    Continue(Master, u64),
    /// Master → replica: drop everything after this point, then say Hello again.
    Truncate(Master, LogEnd),
    /// Master → replica: chunks follow.
    SnapshotBegin(Master, Box<SnapshotBegin>),
    /// Master → replica.
    SnapshotChunk(Chunk),
    /// Master → replica: the operations after the snapshot's start follow.
    SnapshotEnd(SnapshotEnd),
    /// Master → replica, before it closes the connection.
    Reject(Reject),
    /// Master → replica.
    Batches(Vec<Batch>),
    /// Master → replica.
    Heartbeat(Heartbeat),
    /// Replica → master.
    Ack(Ack),
    /// Replica → master: its heartbeat.
    Beat(Beat),
}

impl Message {
    /// The message's name, without its content, which a stranger may have chosen.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Greet(_) => "Greet",
            Message::Challenge(_) => "Challenge",
            Message::Proof(_) => "Proof",
            Message::Hello(_) => "Hello",
            Message::Continue(..) => "Continue",
            Message::Truncate(..) => "Truncate",
            Message::SnapshotBegin(..) => "SnapshotBegin",
            Message::SnapshotChunk(_) => "SnapshotChunk",
            Message::SnapshotEnd(_) => "SnapshotEnd",
            Message::Reject(_) => "Reject",
            Message::Batches(_) => "Batches",
            Message::Heartbeat(_) => "Heartbeat",
            Message::Ack(_) => "Ack",
            Message::Beat(_) => "Beat",
        }
    }
}

/// Opens a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Greet {
    /// Lowest protocol version that the replica speaks.
    pub min_version: u16,
    /// Highest.
    pub max_version: u16,
    /// Its feature bits.
    pub features: u64,
    /// Whether it has a token to prove.
    pub has_token: bool,
    /// Its nonce.
    pub nonce: Nonce,
}

/// Answers a greeting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Challenge {
    /// The version chosen.
    pub version: u16,
    /// The features that both have.
    pub features: u64,
    /// Whether the master has a token to prove.
    pub has_token: bool,
    /// Its nonce.
    pub nonce: Nonce,
}

/// Who the replica is and what it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Its cluster; `None` before it has met one.
    pub cluster: Option<Uuid>,
    /// Its durable identity.
    pub node_id: Uuid,
    /// Identity of its process.
    pub boot_id: Uuid,
    /// Its name.
    pub name: String,
    /// Where it says that it can be reached, `host:port`.
    pub advertised: Option<String>,
    /// The highest epoch that it has promised or seen.
    pub promised: u64,
    /// Offset of its last durable operation.
    pub durable: u64,
    /// Offset of its last applied operation.
    pub applied: u64,
    /// Its log.
    pub log: ReplicaLog,
}

/// Who feeds. Part of each decision, so that the replica can check it before it changes anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Master {
    /// The cluster.
    pub cluster: Uuid,
    /// The epoch in which it writes.
    pub epoch: u64,
    /// Its durable identity.
    pub node_id: Uuid,
    /// Where its log ended when it decided.
    pub end: Position,
}

/// The beginning of a full sync.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotBegin {
    /// Tells snapshots of one master apart.
    pub id: Uuid,
    /// Where the log ended when the scan began: operations after it follow the chunks.
    pub start: LogEnd,
    /// The epochs up to there.
    pub history: History,
}

/// A piece of a snapshot.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Counts from 0.
    pub index: u32,
    /// CRC32 of `bytes`.
    pub crc: u32,
    /// At most [`MAX_CHUNK`], in the format of the node's store.
    pub bytes: Bytes,
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} of {} B)", self.index, self.bytes.len())
    }
}

/// The end of a snapshot's chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotEnd {
    /// Number of chunks.
    pub chunks: u32,
    /// Sum of their lengths.
    pub bytes: u64,
    /// CRC32 over the chunks' CRC32s, in order, each as four bytes little endian.
    pub crc: u32,
    /// The checksum that the master's store gives its scan, which the replica's compares with its own.
    pub store_crc: u32,
    /// Where the log ended when the scan ended: the copy is exact once it has applied everything up to there.
    pub exact_from: u64,
    /// Digest of all of the master's data there, which the copy's has to equal before it is served.
    pub digest: u128,
}

/// Why a master does not feed a peer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Reject {
    /// The peer has promised a higher epoch than the master's.
    #[error("you have promised epoch {0}, above the master's")]
    StaleEpoch(u64),
    /// Another cluster, or a node that cannot be a replica of this one.
    #[error("wrong cluster: {0}")]
    WrongCluster(String),
    /// The proof is missing or wrong.
    #[error("not authenticated: {0}")]
    Unauthenticated(String),
    /// Too much to do.
    #[error("busy, try again in {0} ms")]
    Busy(u32),
    /// No version in common.
    #[error("version {found_min}..={found_max} is not spoken here, {own} is")]
    Version {
        /// Lowest of the peer's.
        found_min: u16,
        /// Highest of the peer's.
        found_max: u16,
        /// This node's.
        own: u16,
    },
    /// This node is no master; it follows the one named, if any.
    #[error("this node is no master{}", .0.as_ref().map(|a| format!(", it follows {a}")).unwrap_or_default())]
    NotMaster(Option<String>),
    /// The peer said something that does not fit.
    #[error("{0}")]
    Protocol(String),
}

/// Master's heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// Its clock, Unix time in ms.
    pub clock_ms: u64,
    /// Where its log ends.
    pub end: Position,
    /// Offset of its last durable operation.
    pub durable: u64,
    /// The offset up to which enough replicas have acknowledged; 0 while there is no write concern.
    pub covered: u64,
    /// Digest of all its data, and the position of which it is.
    pub digest: Option<(Position, u128)>,
}

/// Replica's watermarks; cumulative, each includes what is below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ack {
    /// Snapshot chunks taken over.
    pub chunks: u32,
    /// Last offset appended in this session: what the master counts as no longer under way.
    pub taken: u64,
    /// Last durable offset of the data that it serves.
    pub durable: u64,
    /// Last applied offset of the data that it serves.
    pub applied: u64,
}

/// Replica's heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beat {
    /// Its clock, Unix time in ms.
    pub clock_ms: u64,
    /// The highest epoch that it has promised.
    pub promised: u64,
    /// Its watermarks.
    pub ack: Ack,
}
