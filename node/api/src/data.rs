//! Collections and vectors: requests as public clients send them, answers as they read them.
//!
//! The shapes are those of the public Vectorizer clients, so that they work unchanged. Requests refuse keys that they do
//! not know: a mistyped `atomic` must not be ignored. Answers may gain keys, except [`Collection`], which one client
//! unpacks strictly.

mod bounded;
mod bulk;
mod collections;
mod numbers;
mod search;
mod vectors;
mod words;

pub use bounded::{MAX_BATCH_BYTES, MAX_ITEMS, MAX_NUMBERS, Present, is_too_much};
pub use bulk::*;
pub use collections::*;
pub use search::*;
pub use vectors::*;
pub use words::*;

use serde::{Deserialize, Serialize};

/// A payload: any JSON object.
pub type Payload = serde_json::Map<String, serde_json::Value>;

/// The payload's key that holds the text that a vector was made of.
pub const TEXT_KEY: &str = "content";

/// `GET /health`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Health {
    /// `healthy` while the node runs.
    pub status: String,
    /// Version of the node's program.
    pub version: String,
    /// Now, RFC 3339 in UTC.
    pub timestamp: String,
    /// Seconds since the process started.
    pub uptime: u64,
    /// Number of collections.
    pub collections: usize,
    /// Number of vectors in all collections.
    pub total_vectors: usize,
}

/// `POST /embed`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EmbedRequest {
    /// The text.
    pub text: String,
    /// Name of the embedder; the only one there is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Numbers in the embedding; 512 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimension: Option<usize>,
}

/// Answer of `POST /embed`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Embedding {
    /// The vector.
    #[serde(deserialize_with = "numbers::required")]
    pub embedding: Vec<f32>,
    /// Name of the embedder.
    pub model: String,
    /// The text that was embedded.
    pub text: String,
    /// Numbers in the embedding.
    pub dimension: usize,
    /// Where it was computed: `local`.
    pub provider: String,
}
