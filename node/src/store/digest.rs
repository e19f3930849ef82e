//! Proof that two stores hold the same: order-free sums of hashes.

use std::fmt;

use serde::{Deserialize, Serialize};
use vectorizer_replication::position::Position;

/// A 128-bit sum, modulo 2^128, of one XXH3-128 per vector over collection, id, version, vector and payload.
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
    /// Of everything, the catalog included.
    pub total: Digest,
    /// Name, number of vectors and digest of each collection, ordered by name.
    pub collections: Vec<(String, u64, Digest)>,
}
