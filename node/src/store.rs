//! Collections in memory. Applying a record is deterministic: every node that applied the same log holds the same bytes.
//!
//! One applier changes the store, in log order; everybody else reads beside it. A record's offset is its version, and it
//! is applied only where it is newer than what is there, so that replaying a part of the log again changes nothing.

mod codec;
mod collection;
mod config;
mod digest;
pub mod embed;
pub mod filter;
mod record;
mod search;
mod snapshot;

use std::sync::Arc;

use tokio::sync::watch;
use vectorizer_replication::batch::Batch;
use vectorizer_replication::position::{History, LogEnd, Position};

pub use codec::CodecError;
pub use collection::{Collection, CollectionInfo, Page, VectorRecord};
pub use config::{
    CollectionConfig, ConfigError, MAX_DESCRIPTION_LEN, MAX_DIMENSION, MAX_ID_LEN, MAX_NAME_LEN,
    Metric, TEXT_KEY, validate_id, validate_name,
};
pub use digest::{Digest, StoreDigest};
pub use filter::{Filter, FilterError};
pub use record::{Record, RecordError};
pub use search::{Fusion, Hit, HybridRequest, SearchError, SearchRequest};
pub use snapshot::{SnapshotError, SnapshotHeader, SnapshotScan, SnapshotTrailer};

/// An operation that cannot be applied: a bug somewhere, and a reason for a replica to stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The batch does not hold records.
    #[error("batch at offset {offset}: {source}")]
    Record {
        /// The batch's first offset.
        offset: u64,
        /// What is wrong with it.
        source: RecordError,
    },
    /// The batch does not follow what was applied before it.
    #[error("batch begins at offset {found}, {expected} was expected")]
    Gap {
        /// The next offset.
        expected: u64,
        /// The batch's first offset.
        found: u64,
    },
    /// The record names a collection that does not exist.
    #[error("offset {offset}: no collection has incarnation {incarnation}")]
    NoCollection {
        /// The record's offset.
        offset: u64,
        /// The incarnation that it names.
        incarnation: u64,
    },
    /// The record creates a collection whose name is taken.
    #[error("offset {offset}: a collection named `{name}` exists already")]
    NameTaken {
        /// The record's offset.
        offset: u64,
        /// The name.
        name: String,
    },
    /// The vector does not have the collection's dimension.
    #[error("offset {offset}: a vector of {found} numbers in a collection of dimension {expected}")]
    Dimension {
        /// The record's offset.
        offset: u64,
        /// The collection's.
        expected: usize,
        /// The vector's.
        found: usize,
    },
}

/// All collections of a node.
pub struct Store {}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store at position zero.
    pub fn new() -> Self {
        todo!()
    }

    /// Applies one operation at its offset. `time_ms` is its batch's, Unix time in ms.
    ///
    /// Prefer [`Self::apply_batch`], which also keeps position and history.
    pub fn apply(&self, _offset: u64, _time_ms: u64, _record: &Record) -> Result<(), ApplyError> {
        todo!()
    }

    /// Decodes and applies a batch, then moves the applied end behind it and notifies.
    pub fn apply_batch(&self, _batch: &Batch) -> Result<(), ApplyError> {
        todo!()
    }

    /// The same for who has the batch's records already.
    pub fn apply_records(&self, _batch: &Batch, _records: &[Record]) -> Result<(), ApplyError> {
        todo!()
    }

    /// Position of the last operation applied.
    pub fn applied(&self) -> Position {
        self.applied_end().position
    }

    /// The last operation applied and the chain after it.
    pub fn applied_end(&self) -> LogEnd {
        todo!()
    }

    /// The epochs of what has been applied.
    pub fn history(&self) -> History {
        todo!()
    }

    /// Notifies of every change of [`Self::applied`].
    pub fn subscribe_applied(&self) -> watch::Receiver<Position> {
        todo!()
    }

    /// All collections, ordered by name.
    pub fn collections(&self) -> Vec<CollectionInfo> {
        todo!()
    }

    /// The collection of that name.
    pub fn collection(&self, _name: &str) -> Option<Arc<Collection>> {
        todo!()
    }

    /// Approximate size in bytes of all vectors, payloads and ids.
    pub fn bytes(&self) -> u64 {
        todo!()
    }

    /// Position and digest of everything there; always of one and the same moment.
    pub fn digest(&self) -> (Position, Digest) {
        todo!()
    }

    /// The digest of each collection beside that of all, while nothing is being applied.
    pub fn digests(&self) -> StoreDigest {
        todo!()
    }

    /// The digest computed anew from what is there, to compare with the one that is kept.
    pub fn recompute_digest(&self) -> Digest {
        todo!()
    }

    /// Begins a snapshot of the store as it is while writes go on; see the module `snapshot`.
    pub fn scan(self: &Arc<Self>) -> SnapshotScan {
        todo!()
    }

    /// Loads a snapshot's chunk into a store that nothing has been applied to. Chunks are loaded in order.
    pub fn load_chunk(&self, _chunk: &[u8]) -> Result<(), SnapshotError> {
        todo!()
    }

    /// Ends loading: the store stands at the snapshot's start, and is exact once it has applied `trailer.exact_from`.
    pub fn finish_load(&self, _header: &SnapshotHeader, _trailer: &SnapshotTrailer) {
        todo!()
    }

    /// Takes over everything from `other`. Readers see all of the old or all of the new.
    pub fn replace_with(&self, _other: Store) {
        todo!()
    }
}
