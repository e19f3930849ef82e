//! Collections: created, described, listed, dropped.

use serde::{Deserialize, Serialize};

use super::Metric;

/// `POST /collections`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateCollection {
    /// Its name: 1 to 255 of `A-Z a-z 0-9 _ . -`.
    pub name: String,
    /// Numbers in each vector, 1 to 65,536; here or in `config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimension: Option<usize>,
    /// Dimension and metric, where the Go client has them; the answer then carries `config` as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Shape>,
    /// The metric, under the name that the Python client uses; the answer is then exactly a [`Collection`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub similarity_metric: Option<Metric>,
    /// The metric, under the name that the Rust client uses; the answer then carries `message` and `collection` as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// What a person wants to remember about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Dimension and metric of a collection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Numbers in each vector, 1 to 65,536.
    pub dimension: usize,
    /// The metric; cosine by default.
    #[serde(default)]
    pub metric: Metric,
}

/// Answer of `POST /collections`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CollectionCreated {
    /// That it was created; absent when asked with `similarity_metric`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its name once more; absent when asked with `similarity_metric`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// As asked for; absent when asked without `config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Shape>,
    /// The new collection.
    #[serde(flatten)]
    pub info: Collection,
}

/// `GET /collections`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Collections {
    /// All of them, by name.
    pub collections: Vec<Collection>,
}

/// One collection. Exactly these keys: the Python client unpacks it strictly.
///
/// The metric stands under `metric` only. The Rust client takes `similarity_metric` for another spelling of the same
/// key and refuses an object that has both; the Python client fills `similarity_metric` from `metric` itself.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Collection {
    /// Its name.
    pub name: String,
    /// Numbers in each vector.
    pub dimension: usize,
    /// The metric.
    pub metric: Metric,
    /// Vectors in it.
    pub vector_count: usize,
    /// The same number: each vector is one document.
    pub document_count: usize,
    /// `ready`.
    pub status: String,
    /// RFC 3339 in UTC.
    pub created_at: String,
    /// RFC 3339 in UTC: the last write into it.
    pub updated_at: String,
    /// Name of the embedder that turns text into vectors here.
    pub embedding_provider: String,
    /// How far the index is.
    pub indexing_status: IndexingStatus,
    /// Whether vectors are brought to unit length.
    pub normalization: Normalization,
    /// Whether vectors are stored with fewer bits.
    pub quantization: Quantization,
    /// Memory used.
    pub size: Size,
}

/// How far a collection's index is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IndexingStatus {
    /// `completed` when every vector can be found, which is always.
    pub status: String,
    /// From 0 to 1.
    pub progress: f32,
    /// Documents in the collection.
    pub total_documents: usize,
    /// Documents that can be found.
    pub processed_documents: usize,
    /// Vectors that can be found.
    pub vector_count: usize,
    /// RFC 3339 in UTC.
    pub last_updated: String,
}

/// Whether vectors are brought to unit length.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Normalization {
    /// True under the cosine metric, which does not see lengths.
    pub enabled: bool,
}

/// Whether vectors are stored with fewer bits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Quantization {
    /// False: every number is kept whole.
    pub enabled: bool,
    /// `none`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bits of each number.
    pub bits: u32,
}

/// Memory used by a collection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Size {
    /// All of it, for people.
    pub total: String,
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// Vectors, in bytes.
    pub index_bytes: u64,
    /// Ids and payloads, in bytes.
    pub payload_bytes: u64,
}

/// Answer of `DELETE /collections/{name}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CollectionDeleted {
    /// That it is gone.
    pub message: String,
    /// Its name.
    pub collection: String,
}
