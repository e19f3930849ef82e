//! Snapshots: one format for full sync, checkpoint and backup.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vectorizer_replication::position::{History, LogEnd};

/// What stands before a snapshot's chunks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotHeader {
    /// Where to replay the log from: everything up to here is in the chunks.
    pub start: LogEnd,
    /// The epochs up to there.
    pub history: History,
    /// When it was begun, Unix time in ms.
    pub created_ms: u64,
}

/// What stands after a snapshot's chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotTrailer {
    /// Number of chunks.
    pub chunks: u32,
    /// Bytes of all chunks.
    pub bytes: u64,
    /// CRC32 over the chunks' own CRC32s, each as 4 little-endian bytes, in order.
    pub crc32: u32,
    /// With the log replayed up to this offset, a store that loaded the chunks is exact.
    pub exact_from: u64,
}

/// A snapshot that cannot be made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The store was replaced while it was being scanned.
    #[error("the store was replaced while it was being scanned")]
    Superseded,
    /// A chunk is damaged or out of order.
    #[error("snapshot chunk {index}: {message}")]
    Chunk {
        /// Which one, from 0.
        index: u32,
        /// What is wrong with it.
        message: String,
    },
    /// The trailer does not fit the chunks.
    #[error("snapshot trailer: {0}")]
    Trailer(String),
}

/// Reads a store chunk by chunk while writes go on. Each chunk is 1 MiB or one record, whichever is more.
pub struct SnapshotScan {}

impl SnapshotScan {
    /// What stands before the chunks.
    pub fn header(&self) -> &SnapshotHeader {
        todo!()
    }

    /// What stands after the chunks, once they are all taken.
    pub fn trailer(&self) -> Result<SnapshotTrailer, SnapshotError> {
        todo!()
    }
}

impl Iterator for SnapshotScan {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        todo!()
    }
}
