//! Searches: by vector, by text, by both.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Fusion, Payload};

/// `POST /collections/{collection}/search` and `…/search/text`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "Search"))]
#[serde(deny_unknown_fields)]
pub struct Search<F = Value> {
    /// The path's collection once more; refused when it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// A text, embedded like the texts that were inserted. Either this or `vector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// As many finite numbers as the collection has dimensions.
    #[serde(
        default,
        deserialize_with = "super::numbers::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub vector: Option<Vec<f32>>,
    /// Most results, 1 to 1,000; 10 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only vectors whose payload matches: see docs/search.md.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<F>,
    /// Only results of at least this score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_threshold: Option<f32>,
    /// Whether results carry their vectors; false by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with_vector: Option<bool>,
}

/// Answer of a search.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "SearchResults"))]
pub struct SearchResults<H = SearchHit> {
    /// Best first.
    pub results: Vec<H>,
    /// The text searched for, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The collection.
    pub collection: String,
    /// The limit applied.
    pub limit: usize,
    /// Time that it took in the node, in ms.
    pub query_time_ms: f64,
}

/// One result.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SearchHit {
    /// The vector's id.
    pub id: String,
    /// How near it is; higher is nearer under every metric.
    pub score: f32,
    /// The text that the vector was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The payload without the text.
    pub metadata: Payload,
    /// The whole payload.
    pub payload: Payload,
    /// Its numbers, if asked for.
    #[serde(
        default,
        deserialize_with = "super::numbers::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub vector: Option<Vec<f32>>,
}

/// `POST /collections/{collection}/hybrid_search`: nearness of vectors and common words together.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "HybridSearch"))]
#[serde(deny_unknown_fields)]
pub struct HybridSearch<F = Value> {
    /// The path's collection once more; refused when it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// The text.
    pub query: String,
    /// Terms in place of those of the text, as in the sparse vectors of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_sparse: Option<SparseVector>,
    /// Weight of the vectors against the words, 0 to 1; 0.7 by default. With `rrf` it plays no part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f32>,
    /// How the two rankings become one; `rrf` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Fusion>,
    /// Nearest vectors taken into account, 1 to 1,000; 20 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dense_k: Option<usize>,
    /// Best word matches taken into account, 1 to 1,000; 20 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparse_k: Option<usize>,
    /// Most results, 1 to 1,000; 10 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_k: Option<usize>,
    /// Only vectors whose payload matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<F>,
}

/// A sparse vector: values at some indices, both lists of the same length.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SparseVector {
    /// Which terms.
    #[serde(deserialize_with = "super::bounded::indices")]
    pub indices: Vec<u32>,
    /// Their finite weights.
    #[serde(deserialize_with = "super::numbers::required")]
    pub values: Vec<f32>,
}

/// Answer of a hybrid search.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "HybridResults"))]
pub struct HybridResults<H = SearchHit> {
    /// Best first.
    pub results: Vec<H>,
    /// The text.
    pub query: String,
    /// The alpha applied.
    pub alpha: f32,
    /// The algorithm applied.
    pub algorithm: Fusion,
    /// Time that it took in the node, in whole ms.
    pub duration_ms: u64,
}

/// `POST /batch_search`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "BatchSearch"))]
#[serde(deny_unknown_fields)]
pub struct BatchSearch<F = Value> {
    /// The collection.
    pub collection: String,
    /// The searches, at most 100.
    #[serde(
        deserialize_with = "super::bounded::items",
        bound(deserialize = "F: Deserialize<'de> + Default")
    )]
    pub queries: Vec<BatchQuery<F>>,
}

/// One search of a batch.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "BatchQuery"))]
#[serde(deny_unknown_fields)]
pub struct BatchQuery<F = Value> {
    /// A text. Either this or `vector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// As many finite numbers as the collection has dimensions.
    #[serde(
        default,
        deserialize_with = "super::numbers::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub vector: Option<Vec<f32>>,
    /// Most results, 1 to 1,000; 10 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only results of at least this score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    /// Only vectors whose payload matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<F>,
}

/// Answer of `POST /batch_search`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BatchResults {
    /// The collection.
    pub collection: String,
    /// Number of searches.
    pub count: usize,
    /// One per search, in the order of the request.
    pub results: Vec<SearchResults>,
}
