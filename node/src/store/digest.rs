//! Proof that two stores hold the same: order-free sums of hashes.
//!
//! Each vector's hash is the XXH3-128 of: incarnation u64, version u64, id length u32, id, the vector's f32, payload, all
//! little endian. A collection's digest is the sum of its vectors' hashes modulo 2^128; a store's is the sum of its
//! collections' digests and of one hash per catalog entry. Sums need no order, so they are kept while records change.

use std::cell::RefCell;
use std::fmt;

use serde::{Deserialize, Serialize};
use vectorizer_replication::position::{Chain, History, Position};
use xxhash_rust::xxh3::xxh3_128;

use super::config::CollectionConfig;

/// A sum of hashes, modulo 2^128. Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest(pub u128);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(Digest)
    }
}

/// The digests of a store at one position.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoreDigest {
    /// The position.
    pub position: Position,
    /// The chain there.
    pub chain: Chain,
    /// The epochs up to there.
    pub history: History,
    /// Of everything, the catalog included.
    pub total: Digest,
    /// Name, number of vectors and digest of each collection, ordered by name.
    pub collections: Vec<(String, u64, Digest)>,
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The hash of one vector.
pub(super) fn vector_hash(
    incarnation: u64,
    id: &str,
    version: u64,
    vector: &[f32],
    payload: &[u8],
) -> u128 {
    // In one piece, hashing is several times faster than field by field.
    SCRATCH.with_borrow_mut(|bytes| {
        bytes.clear();
        bytes.extend_from_slice(&incarnation.to_le_bytes());
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&(id.len() as u32).to_le_bytes());
        bytes.extend_from_slice(id.as_bytes());
        let start = bytes.len();
        bytes.resize(start + vector.len() * 4, 0);
        // In this form the compiler makes it one copy.
        for (to, number) in bytes[start..].chunks_exact_mut(4).zip(vector) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(payload);
        xxh3_128(bytes)
    })
}

/// The hash of one catalog entry.
pub(super) fn catalog_hash(
    incarnation: u64,
    name: &str,
    config: &CollectionConfig,
    created_ms: u64,
) -> u128 {
    let description = config.description.as_deref().unwrap_or_default();
    let mut bytes = Vec::with_capacity(64 + name.len() + description.len());
    bytes.extend_from_slice(&incarnation.to_le_bytes());
    bytes.extend_from_slice(&created_ms.to_le_bytes());
    bytes.extend_from_slice(&(config.dimension as u64).to_le_bytes());
    for text in [config.metric.as_str(), name, description] {
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    xxh3_128(&bytes)
}
