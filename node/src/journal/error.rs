//! What can go wrong with the log.

use std::io;
use std::path::{Path, PathBuf};

use vectorizer_replication::batch::Batch;
use vectorizer_replication::position::LogEnd;

use super::reader::ReadError;

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
        source: io::Error,
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
    #[error("a batch does not continue the log: its {field} is {found}, expected {expected}")]
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
    /// Batches that are needed cannot be read back.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An earlier write or fsync failed: what is on disk is not known.
    #[error("the journal cannot go on: an earlier write or fsync failed")]
    Poisoned,
}

/// Why a batch does not continue a log that ends at `end`.
pub(super) fn discontinuity(end: LogEnd, batch: &Batch) -> Option<JournalError> {
    let wrong = |field, expected: String, found: String| {
        Some(JournalError::Discontinuous {
            field,
            expected,
            found,
        })
    };
    let next = end.position.offset.saturating_add(1);
    if batch.first_offset() != next {
        return wrong(
            "first offset",
            next.to_string(),
            batch.first_offset().to_string(),
        );
    }
    if batch.chain_before() != end.chain {
        let (expected, found) = (end.chain, batch.chain_before());
        return wrong("chain", format!("{expected:?}"), format!("{found:?}"));
    }
    if batch.epoch() < end.position.epoch {
        let expected = format!("at least {}", end.position.epoch);
        return wrong("epoch", expected, batch.epoch().to_string());
    }
    None
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
