//! Requests, answers and errors of searches.

use bytes::Bytes;

use super::filter::Filter;

/// A search by vector.
#[derive(Clone, Debug, Default)]
pub struct SearchRequest {
    /// What to look for; as many finite numbers as the collection has dimensions.
    pub vector: Vec<f32>,
    /// How many hits at most.
    pub limit: usize,
    /// Only vectors whose payload matches.
    pub filter: Option<Filter>,
    /// Only hits with at least this score.
    pub score_threshold: Option<f32>,
    /// Whether hits carry their vectors.
    pub with_vectors: bool,
}

/// How two rankings become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fusion {
    /// Reciprocal ranks: the sum of `1 / (60 + rank)`, ranks from 1; `alpha` plays no part.
    Rrf,
    /// `alpha` times the dense score plus `1 - alpha` times the sparse one, each divided by its best.
    Weighted,
    /// The same after each ranking's scores are stretched to 0..=1 between its worst and its best.
    Alpha,
}

/// A search by vector and by terms.
#[derive(Clone, Debug)]
pub struct HybridRequest {
    /// What to look for by vector.
    pub vector: Vec<f32>,
    /// What to look for by terms, from [`super::embed::Embedder::terms`] or from the client: term and weight.
    pub terms: Vec<(u32, f32)>,
    /// How the rankings become one.
    pub fusion: Fusion,
    /// Weight of the dense ranking, 0..=1.
    pub alpha: f32,
    /// Hits of the dense ranking.
    pub dense_k: usize,
    /// Hits of the sparse ranking.
    pub sparse_k: usize,
    /// Hits in the answer.
    pub final_k: usize,
    /// Only vectors whose payload matches.
    pub filter: Option<Filter>,
    /// Whether hits carry their vectors.
    pub with_vectors: bool,
}

/// One vector found.
#[derive(Clone, PartialEq, Debug)]
pub struct Hit {
    /// Its id.
    pub id: String,
    /// How near; higher is better. See [`super::Metric`] and [`Fusion`].
    pub score: f32,
    /// Offset of the operation that wrote it.
    pub version: u64,
    /// A JSON object.
    pub payload: Bytes,
    /// The vector, where asked for.
    pub vector: Option<Vec<f32>>,
}

/// A search that cannot be answered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SearchError {
    /// The vector does not have the collection's dimension.
    #[error("the vector has {found} numbers, the collection has dimension {expected}")]
    Dimension {
        /// The collection's.
        expected: usize,
        /// The vector's.
        found: usize,
    },
    /// The vector, the threshold or a weight is not a finite number.
    #[error("`{field}` is not a finite number")]
    NotFinite {
        /// Where.
        field: &'static str,
    },
    /// The weight of the dense ranking is out of range.
    #[error("`alpha` is {0}, expected 0..=1")]
    Alpha(f32),
}
