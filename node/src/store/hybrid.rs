//! Hybrid search: the nearest vectors and the best matching terms, fused into one ranking.
//!
//! Terms are read from the payload's text (its key `content`) when the first hybrid search comes, and kept; later ones
//! only read what changed meanwhile. A vector's sparse score is the sum, over the terms asked for, of weight asked for
//! times BM25 weight in the text times inverse document frequency `ln(1 + (n - df + 0.5) / (df + 0.5))`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::collection::Collection;
use super::config::TEXT_KEY;
use super::embed::{Embedder, HashEmbedder};
use super::filter::Filter;
use super::kernel::{Scorer, finite};
use super::search::{Hit, SearchError, Wanted};

/// How two rankings become one. A hit that is in one ranking only gets nothing from the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fusion {
    /// Reciprocal ranks: the sum of `1 / (60 + rank)`, ranks from 1; `alpha` plays no part.
    Rrf,
    /// `alpha` times the dense score plus `1 - alpha` times the sparse one, each divided by its ranking's largest.
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

/// Term and weight, ordered by term.
type Terms = Box<[(u32, f32)]>;

/// The terms of a collection's texts, by slot.
#[derive(Default)]
pub(super) struct TermIndex {
    /// Version of the vector whose terms these are, and they.
    slots: Vec<(u64, Terms)>,
    /// In how many texts a term occurs.
    frequency: HashMap<u32, u32>,
    /// Texts with terms.
    texts: u32,
}

impl TermIndex {
    /// Replaces the terms of a slot; version 0 for a free one.
    fn set(&mut self, at: usize, version: u64, terms: Terms) {
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, Default::default);
        }
        self.texts += u32::from(!terms.is_empty());
        for (term, _) in &terms {
            *self.frequency.entry(*term).or_default() += 1;
        }
        let (_, old) = std::mem::replace(&mut self.slots[at], (version, terms));
        self.texts -= u32::from(!old.is_empty());
        for (term, _) in &old {
            if let Entry::Occupied(mut entry) = self.frequency.entry(*term) {
                *entry.get_mut() -= 1;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        }
    }

    fn inverse_frequency(&self, term: u32) -> f32 {
        let (n, df) = (self.texts as f32, self.frequency.get(&term));
        let df = df.copied().unwrap_or(0) as f32;
        (1.0 + (n - df + 0.5) / (df + 0.5)).ln()
    }

    /// The sum over `query`, whose weights hold the inverse frequencies already; `None` where no term matches.
    fn score(&self, at: usize, version: u64, query: &[(u32, f32)]) -> Option<f32> {
        let (of, terms) = self.slots.get(at)?;
        if *of != version {
            return None; // written since the terms were read
        }
        let mut score = None;
        for (term, asked) in query {
            if let Ok(found) = terms.binary_search_by_key(term, |(t, _)| *t) {
                score = Some(score.unwrap_or(0.0) + asked * terms[found].1);
            }
        }
        score.map(finite)
    }
}

impl Collection {
    /// Nearest vectors and best matching terms, fused into one ranking. Best first; equal scores by id.
    pub fn search_hybrid(&self, request: &HybridRequest) -> Result<Vec<Hit>, SearchError> {
        self.check_query(&request.vector)?;
        if !(0.0..=1.0).contains(&request.alpha) {
            return Err(SearchError::Alpha(request.alpha));
        }
        if !request.terms.iter().all(|(_, weight)| weight.is_finite()) {
            return Err(SearchError::NotFinite { field: "terms" });
        }
        let wanted = |limit| Wanted {
            limit,
            filter: request.filter.as_ref(),
            with_vectors: request.with_vectors,
        };
        let scorer = Scorer::new(&request.vector, self.config().metric);
        let dense = self.rank(&wanted(request.dense_k), |content, at, slot| {
            Some(scorer.score(content.slots.vector(at), slot.inverse_norm))
        });
        let sparse = if request.terms.is_empty() {
            Vec::new()
        } else {
            let mut terms = self.terms.lock();
            self.read_terms(&mut terms);
            let query: Vec<_> = request
                .terms
                .iter()
                .map(|(term, weight)| (*term, weight * terms.inverse_frequency(*term)))
                .collect();
            self.rank(&wanted(request.sparse_k), |_, at, slot| {
                terms.score(at, slot.version, &query)
            })
        };
        Ok(fuse(request, dense, sparse))
    }

    /// Reads the terms of what was written since the last time.
    fn read_terms(&self, terms: &mut TermIndex) {
        let mut at = 0;
        loop {
            let mut changed = Vec::new();
            let last = {
                let content = self.read();
                let end = (at + content.slots.block_slots()).min(content.slots.len());
                for at in at..end {
                    let slot = content.slots.slot(at);
                    let version = slot.map_or(0, |slot| slot.version);
                    if terms.slots.get(at).map_or(0, |(of, _)| *of) != version {
                        changed.push((at, version, slot.map(|slot| slot.payload.clone())));
                    }
                }
                at = end;
                end == content.slots.len()
            };
            for (at, version, payload) in changed {
                let of_text = payload.map(|payload| text_terms(&payload));
                terms.set(at, version, of_text.unwrap_or_default());
            }
            if last {
                return;
            }
        }
    }
}

/// The terms of a payload's text.
fn text_terms(payload: &[u8]) -> Terms {
    let payload: serde_json::Value = serde_json::from_slice(payload).unwrap_or_default();
    let text = payload.get(TEXT_KEY).and_then(|text| text.as_str());
    text.map(|text| HashEmbedder.terms(text).into_boxed_slice())
        .unwrap_or_default()
}

/// One ranking out of two.
fn fuse(request: &HybridRequest, dense: Vec<Hit>, sparse: Vec<Hit>) -> Vec<Hit> {
    let mut fused: HashMap<String, Hit> = HashMap::new();
    for (weight, ranking) in [(request.alpha, dense), (1.0 - request.alpha, sparse)] {
        let largest = ranking.iter().map(|h| h.score.abs()).fold(0.0, f32::max);
        let best = ranking.first().map_or(0.0, |h| h.score);
        let worst = ranking.last().map_or(0.0, |h| h.score);
        for (at, mut hit) in ranking.into_iter().enumerate() {
            let score = match request.fusion {
                Fusion::Rrf => 1.0 / (61.0 + at as f32),
                Fusion::Weighted if largest > 0.0 => weight * (hit.score / largest),
                Fusion::Weighted => 0.0,
                // Halved, because the difference of two finite numbers need not be one.
                Fusion::Alpha if best > worst => {
                    weight * ((hit.score / 2.0 - worst / 2.0) / (best / 2.0 - worst / 2.0))
                }
                Fusion::Alpha => weight,
            };
            match fused.entry(hit.id.clone()) {
                Entry::Occupied(mut there) => there.get_mut().score += score,
                Entry::Vacant(free) => {
                    hit.score = score;
                    free.insert(hit);
                }
            }
        }
    }
    let mut hits: Vec<Hit> = fused.into_values().collect();
    hits.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
    hits.truncate(request.final_k);
    hits
}

#[cfg(test)]
mod tests;
