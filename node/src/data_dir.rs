//! The data directory: its lock, its role file and its generations of checkpoint and journal.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use vectorizer_replication::batch::Batch;
use vectorizer_replication::position::LogEnd;

use crate::journal::{Journal, JournalError, JournalOptions, LogReader};
use crate::role::{RoleError, RoleFile, RoleState};
use crate::store::{ApplyError, SnapshotError, SnapshotHeader, SnapshotTrailer, Store};

/// Why a data directory cannot be used, or an operation on it failed.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process uses it.
    #[error("{} is in use by process {pid}: two processes cannot share a data directory", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The other process, where it is known.
        pid: String,
    },
    /// The system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Files are missing or contradict each other.
    #[error("{}: {what}", path.display())]
    Inconsistent {
        /// Where.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// The role file.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A snapshot or checkpoint.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// An operation in the log cannot be applied.
    #[error("an operation in the log cannot be applied: {0}")]
    Apply(#[from] ApplyError),
}

/// The directory, locked for this process. Cloning shares the lock.
#[derive(Clone)]
pub struct DataDir {}

/// What a data directory held.
pub struct Opened {
    /// The collections, at `end`.
    pub store: Arc<Store>,
    /// The log.
    pub journal: Journal,
    /// Who this node is.
    pub role: RoleFile,
    /// Where the log ends.
    pub end: LogEnd,
}

/// What became of an attempt to undo operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UndoOutcome {
    /// Log, store and history end there now; what was undone was written aside.
    Done,
    /// No checkpoint is old enough; nothing was changed.
    NeedsSnapshot,
}

impl DataDir {
    /// Locks the directory, created if need be, and recovers what is in it.
    pub fn open(_path: &Path, _options: JournalOptions) -> Result<(DataDir, Opened), DataDirError> {
        todo!()
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        todo!()
    }

    /// Fraction of the file system that is free, 0..=1.
    pub fn free_fraction(&self) -> Result<f64, DataDirError> {
        todo!()
    }

    /// Begins to receive a full sync into a generation of its own; what is there is left as it is.
    pub fn begin_incoming(
        &self,
        _role: &RoleState,
        _header: SnapshotHeader,
    ) -> Result<Incoming, DataDirError> {
        todo!()
    }

    /// Undoes everything after offset `to`, the end of a batch.
    pub fn undo(
        &self,
        _journal: &mut Journal,
        _store: &Store,
        _role: &mut RoleFile,
        _to: u64,
    ) -> Result<UndoOutcome, DataDirError> {
        todo!()
    }

    /// Starts the thread that writes checkpoints of `store` into the current generation.
    pub fn start_checkpoints(
        &self,
        _role: &RoleState,
        _store: Arc<Store>,
        _log: LogReader,
    ) -> Checkpointer {
        todo!()
    }
}

/// A full sync on its way in.
pub struct Incoming {}

impl Incoming {
    /// Loads one chunk, in order.
    pub fn load_chunk(&mut self, _chunk: &Bytes) -> Result<(), DataDirError> {
        todo!()
    }

    /// Ends the chunks and verifies them all.
    pub fn finish_chunks(&mut self, _trailer: SnapshotTrailer) -> Result<(), DataDirError> {
        todo!()
    }

    /// Journals an operation that follows the snapshot's start; applied once the chunks are complete.
    pub fn append(&mut self, _batch: &Batch) -> Result<(), DataDirError> {
        todo!()
    }

    /// Where its log ends.
    pub fn end(&self) -> LogEnd {
        todo!()
    }

    /// Whether everything is there for [`Self::install`]: chunks complete and the log beyond `exact_from`.
    pub fn is_exact(&self) -> bool {
        todo!()
    }

    /// Makes it durable and the current generation, then removes the one before. `change` may set more in the role
    /// file in the same step.
    pub fn install(
        self,
        _role: &mut RoleFile,
        _change: impl FnOnce(&mut RoleState),
    ) -> Result<(Store, Journal), DataDirError> {
        todo!()
    }
}

/// The thread that writes checkpoints. Dropping it stops the thread.
pub struct Checkpointer {}

impl Checkpointer {
    /// Where the newest checkpoint starts: retention may go up to there.
    pub fn start_offset(&self) -> u64 {
        todo!()
    }

    /// Writes one as soon as possible, due or not.
    pub fn request(&self) {
        todo!()
    }

    /// Ends the thread; a checkpoint that is not complete is given up.
    pub fn stop(&mut self) {
        todo!()
    }
}
