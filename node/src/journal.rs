//! The segmented write-ahead log that is the replication log.

use std::path::{Path, PathBuf};

use tokio::sync::watch;
use vectorizer_replication::batch::{Batch, BatchError};
use vectorizer_replication::position::{Chain, LogEnd, Position};

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// A segment is closed at this many bytes.
    pub segment_bytes: u64,
    /// Operations that are kept for replicas to catch up from.
    pub log_size: u64,
    /// Bytes of the newest batches that are kept in memory.
    pub cache_bytes: usize,
}

impl Default for JournalOptions {
    fn default() -> Self {
        JournalOptions {
            segment_bytes: 64 << 20,
            log_size: 1_000_000,
            cache_bytes: 32 << 20,
        }
    }
}

/// What went wrong with the log. After [`Self::Io`] and [`Self::Poisoned`] the process must end.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
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
    /// A file is damaged where a crash cannot have damaged it.
    #[error("{} is damaged at byte {byte}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        byte: u64,
        /// What is wrong there.
        what: String,
    },
    /// The batch does not continue the log.
    #[error("a batch does not continue the log: {field} is {found}, expected {expected}")]
    Discontinuous {
        /// Which part of it.
        field: &'static str,
        /// The log's.
        expected: String,
        /// The batch's.
        found: String,
    },
    /// No batch ends at the offset asked for.
    #[error("offset {offset} is not the end of a batch within {first}..={end}")]
    NotABoundary {
        /// The offset.
        offset: u64,
        /// First offset of the log.
        first: u64,
        /// Last offset of the log.
        end: u64,
    },
    /// An earlier write or fsync failed: what is on disk is not known.
    #[error("the journal cannot go on: an earlier write or fsync failed")]
    Poisoned,
}

/// Why batches cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log no longer reaches back so far.
    #[error("the log begins at offset {first}")]
    Gone {
        /// The first offset there is.
        first: u64,
    },
    /// No batch begins there.
    #[error("no batch begins at offset {0}")]
    NotABoundary(u64),
    /// The system refused.
    #[error("reading {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is damaged.
    #[error("{} is damaged at byte {byte}: {source}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        byte: u64,
        /// What is wrong there.
        source: BatchError,
    },
}

/// The log as its one writer sees it. Every call blocks.
pub struct Journal {}

impl Journal {
    /// Opens the log in `dir`, which is created if need be; `base` is where an empty log begins.
    pub fn open(
        _dir: &Path,
        _options: JournalOptions,
        _base: LogEnd,
    ) -> Result<Journal, JournalError> {
        todo!()
    }

    /// Writes a batch, which must continue the log. Not yet durable, not yet seen by readers.
    pub fn append(&mut self, _batch: &Batch) -> Result<(), JournalError> {
        todo!()
    }

    /// Shows what was appended to readers.
    pub fn publish(&mut self) {
        todo!()
    }

    /// Makes what was appended durable.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        todo!()
    }

    /// The last operation appended, and the chain after it.
    pub fn end(&self) -> LogEnd {
        todo!()
    }

    /// Offset of the last operation known to be durable.
    pub fn durable(&self) -> u64 {
        todo!()
    }

    /// Removes what is after `to`, the end of a batch, and returns it, oldest first. Durable when it returns.
    pub fn truncate(&mut self, _to: u64) -> Result<Vec<Batch>, JournalError> {
        todo!()
    }

    /// Removes whole segments that neither `log_size`, the checkpoint at `checkpoint_offset` nor a pin needs.
    pub fn enforce_retention(&mut self, _checkpoint_offset: u64) -> Result<(), JournalError> {
        todo!()
    }

    /// A reader; cloning it is cheap.
    pub fn reader(&self) -> LogReader {
        todo!()
    }

    /// Goes on with `other` in place of this log; the readers of this one then read that one, and its pins are void.
    pub fn replace_with(&mut self, _other: Journal) {
        todo!()
    }

    /// Makes everything durable and marks it so: damage found later is then never taken for a torn write.
    pub fn close(&mut self) -> Result<(), JournalError> {
        todo!()
    }
}

/// Reads the log beside its writer, up to what was published.
#[derive(Clone)]
pub struct LogReader {}

impl LogReader {
    /// First offset there is; one after the end when the log is empty.
    pub fn first_offset(&self) -> u64 {
        todo!()
    }

    /// The last operation published, and the chain after it.
    pub fn end(&self) -> LogEnd {
        todo!()
    }

    /// Offset of the last operation known to be durable.
    pub fn durable(&self) -> u64 {
        todo!()
    }

    /// Notifies of every change of [`Self::end`].
    pub fn subscribe(&self) -> watch::Receiver<LogEnd> {
        todo!()
    }

    /// Batches from `from`, the first offset of one, up to about `max_bytes`, but at least one if there is any.
    /// Empty when `from` is one after the end. May block on the disk; see [`Self::is_cached`].
    pub fn read(&self, _from: u64, _max_bytes: usize) -> Result<Vec<Batch>, ReadError> {
        todo!()
    }

    /// Whether [`Self::read`] from there needs no disk.
    pub fn is_cached(&self, _from: u64) -> bool {
        todo!()
    }

    /// The chain after the batch that ends at `offset`; `None` when none does, or none that is still there.
    pub fn chain_at(&self, _offset: u64) -> Result<Option<Chain>, ReadError> {
        todo!()
    }

    /// Keeps everything from `from` on until the pin is dropped; `None` if some of it is gone already.
    pub fn pin(&self, _from: u64) -> Option<Pin> {
        todo!()
    }

    /// Bytes and position appended since the log was opened, for the pace of checkpoints.
    pub fn appended_bytes(&self) -> u64 {
        todo!()
    }

    /// Position of [`Self::end`].
    pub fn position(&self) -> Position {
        self.end().position
    }
}

/// Holds retention back while it lives.
pub struct Pin {}
