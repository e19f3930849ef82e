//! Exact search: every vector is compared, block by block, and the best are kept.
//!
//! A vector may move to a lower slot meanwhile (`slots`). The scan goes from the highest slot to the lowest, so that it
//! misses none; one that it meets twice counts once.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::cancel::{Cancel, Cancelled};
use super::collection::{Collection, Content};
use super::filter::Filter;
use super::kernel::Scorer;
use super::slots::Slot;

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

/// One vector found.
#[derive(Clone, PartialEq, Debug)]
pub struct Hit {
    /// Its id.
    pub id: String,
    /// How near; higher is better. See [`super::Metric`] and [`super::Fusion`].
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
    /// Nobody waits for it any more.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// A vector that may be among the best.
struct Candidate {
    score: f32,
    id: Arc<str>,
    version: u64,
    payload: Bytes,
    vector: Option<Vec<f32>>,
}

impl Candidate {
    /// Greater is better: by score, then by id.
    fn rank(&self, other: &Self) -> Ordering {
        self.score
            .total_cmp(&other.score)
            .then_with(|| other.id.cmp(&self.id))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.rank(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    // Reversed, so that a heap has its worst at the top.
    fn cmp(&self, other: &Self) -> Ordering {
        other.rank(self)
    }
}

/// The best of what it is shown, each id once: one that was moved, or deleted and written again, may be met twice.
struct Best {
    limit: usize,
    heap: BinaryHeap<Candidate>,
    ids: HashSet<Arc<str>>,
}

impl Best {
    fn new(limit: usize) -> Self {
        Best {
            limit,
            heap: BinaryHeap::new(),
            ids: HashSet::new(),
        }
    }

    /// Whether something of that score and id is wanted.
    fn wants(&self, score: f32, id: &str) -> bool {
        if self.heap.len() < self.limit {
            return true;
        }
        self.heap
            .peek()
            .is_some_and(|worst| match score.total_cmp(&worst.score) {
                Ordering::Less => false,
                Ordering::Equal => id < &*worst.id,
                Ordering::Greater => true,
            })
    }

    fn push(&mut self, candidate: Candidate) {
        if self.wants(candidate.score, &candidate.id) && self.ids.insert(candidate.id.clone()) {
            if self.heap.len() == self.limit
                && let Some(worst) = self.heap.pop()
            {
                self.ids.remove(&worst.id);
            }
            self.heap.push(candidate);
        }
    }

    /// Best first.
    fn into_hits(self) -> Vec<Hit> {
        let ordered = self.heap.into_sorted_vec(); // ascending in the reversed order
        let hits = ordered.into_iter().map(|c| Hit {
            id: c.id.to_string(),
            score: c.score,
            version: c.version,
            payload: c.payload,
            vector: c.vector,
        });
        hits.collect()
    }
}

/// What is asked of every ranking.
pub(super) struct Wanted<'a> {
    pub(super) limit: usize,
    pub(super) filter: Option<&'a Filter>,
    pub(super) with_vectors: bool,
}

/// A vector's score in a ranking.
pub(super) enum Score {
    /// It takes no part.
    None,
    /// This much.
    Of(f32),
    /// What its payload says, which takes too long to be read under a lock.
    OfPayload,
}

impl Collection {
    /// The nearest vectors, by comparing with every one. Best first; equal scores by id.
    pub fn search(
        &self,
        request: &SearchRequest,
        cancel: &dyn Cancel,
    ) -> Result<Vec<Hit>, SearchError> {
        self.check_query(&request.vector)?;
        let threshold = request.score_threshold.unwrap_or(f32::MIN);
        if !threshold.is_finite() {
            return Err(SearchError::NotFinite {
                field: "score_threshold",
            });
        }
        let scorer = Scorer::new(&request.vector, self.config().metric);
        let wanted = Wanted {
            limit: request.limit,
            filter: request.filter.as_ref(),
            with_vectors: request.with_vectors,
        };
        let score = |(): &(), content: &Content, at, slot: &Slot| {
            let score = scorer.score(content.slots.vector(at), slot.inverse_norm);
            if score >= threshold {
                Score::Of(score)
            } else {
                Score::None
            }
        };
        Ok(self.rank(&wanted, cancel, || (), score, |_| Ok(None))?)
    }

    /// Checks a query's dimension and numbers.
    pub(super) fn check_query(&self, vector: &[f32]) -> Result<(), SearchError> {
        let expected = self.config().dimension;
        if vector.len() != expected {
            return Err(SearchError::Dimension {
                expected,
                found: vector.len(),
            });
        }
        if !vector.iter().all(|x| x.is_finite()) {
            return Err(SearchError::NotFinite { field: "vector" });
        }
        Ok(())
    }

    /// The best by a score, of all vectors that have one and match. The lock, and what `beside` locks for `score`, is held
    /// for a block at a time, and not while payloads are read: by `of_payload` for scores, and for the filter, which is
    /// asked only about vectors that would be among the best.
    pub(super) fn rank<B>(
        &self,
        wanted: &Wanted<'_>,
        cancel: &dyn Cancel,
        beside: impl Fn() -> B,
        score: impl Fn(&B, &Content, usize, &Slot) -> Score,
        of_payload: impl Fn(&Bytes) -> Result<Option<f32>, Cancelled>,
    ) -> Result<Vec<Hit>, Cancelled> {
        let mut best = Best::new(wanted.limit);
        if wanted.limit == 0 {
            return Ok(Vec::new());
        }
        let mut undecided = Vec::new();
        let mut end = usize::MAX;
        while end > 0 {
            cancel.check()?;
            let content = self.read();
            let locked = beside();
            end = end.min(content.slots.len());
            let start =
                end.saturating_sub(1) / content.slots.block_slots() * content.slots.block_slots();
            for at in start..end {
                let Some(slot) = content.slots.slot(at) else {
                    continue;
                };
                let score = match score(&locked, &content, at, slot) {
                    Score::None => continue,
                    Score::Of(score) if !best.wants(score, &slot.id) => continue,
                    Score::Of(score) => Some(score),
                    Score::OfPayload => None,
                };
                let candidate = Candidate {
                    score: score.unwrap_or(0.0),
                    id: slot.id.clone(),
                    version: slot.version,
                    payload: slot.payload.clone(),
                    vector: wanted
                        .with_vectors
                        .then(|| content.slots.vector(at).to_vec()),
                };
                if wanted.filter.is_some() || score.is_none() {
                    undecided.push((candidate, score.is_some()));
                } else {
                    best.push(candidate);
                }
            }
            end = start;
            drop(locked);
            drop(content);
            for (mut candidate, scored) in undecided.drain(..) {
                cancel.check()?;
                if !scored {
                    match of_payload(&candidate.payload)? {
                        Some(score) => candidate.score = score,
                        None => continue,
                    }
                }
                if best.wants(candidate.score, &candidate.id)
                    && match wanted.filter {
                        Some(filter) => {
                            filter.matches(&candidate.id, &candidate.payload, cancel)?
                        }
                        None => true,
                    }
                {
                    best.push(candidate);
                }
            }
        }
        Ok(best.into_hits())
    }
}

#[cfg(test)]
mod tests;
