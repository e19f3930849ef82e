//! One collection: its vectors, payloads and ids.

use bytes::Bytes;

use super::config::CollectionConfig;
use super::digest::Digest;
use super::search::{Hit, HybridRequest, SearchError, SearchRequest};

/// What is known of a collection without reading its vectors.
#[derive(Clone, PartialEq, Debug)]
pub struct CollectionInfo {
    /// Its name.
    pub name: String,
    /// Offset of the operation that created it.
    pub incarnation: u64,
    /// Dimension, metric, description.
    pub config: CollectionConfig,
    /// Number of vectors.
    pub count: u64,
    /// Approximate size in bytes of vectors, payloads and ids.
    pub bytes: u64,
    /// When it was created, Unix time in ms.
    pub created_ms: u64,
    /// When it last changed, Unix time in ms.
    pub updated_ms: u64,
    /// Digest of its vectors.
    pub digest: Digest,
}

/// One vector as it is stored.
#[derive(Clone, PartialEq, Debug)]
pub struct VectorRecord {
    /// Its id.
    pub id: String,
    /// Offset of the operation that wrote it.
    pub version: u64,
    /// The vector as it was written, not normalised.
    pub vector: Vec<f32>,
    /// A JSON object.
    pub payload: Bytes,
}

/// Part of a listing.
#[derive(Clone, PartialEq, Debug)]
pub struct Page {
    /// Number of vectors in the collection.
    pub total: u64,
    /// Those of this page, ordered by id.
    pub records: Vec<VectorRecord>,
}

/// A collection. Reads hold its lock for at most 4,096 vectors at a time.
pub struct Collection {}

impl Collection {
    /// Its name.
    pub fn name(&self) -> &str {
        todo!()
    }

    /// Offset of the operation that created it.
    pub fn incarnation(&self) -> u64 {
        todo!()
    }

    /// Dimension, metric, description.
    pub fn config(&self) -> &CollectionConfig {
        todo!()
    }

    /// What is known of it without reading its vectors.
    pub fn info(&self) -> CollectionInfo {
        todo!()
    }

    /// Number of vectors.
    pub fn count(&self) -> u64 {
        todo!()
    }

    /// Whether there is a vector of that id.
    pub fn contains(&self, _id: &str) -> bool {
        todo!()
    }

    /// The vector of that id.
    pub fn get(&self, _id: &str) -> Option<VectorRecord> {
        todo!()
    }

    /// `limit` vectors in the order of their ids, after the first `offset`.
    pub fn list(&self, _limit: usize, _offset: usize) -> Page {
        todo!()
    }

    /// The nearest vectors, by comparing with every one. Best first; equal scores by id.
    pub fn search(&self, _request: &SearchRequest) -> Result<Vec<Hit>, SearchError> {
        todo!()
    }

    /// Nearest vectors and best matching terms, fused into one ranking. Best first; equal scores by id.
    pub fn search_hybrid(&self, _request: &HybridRequest) -> Result<Vec<Hit>, SearchError> {
        todo!()
    }
}
