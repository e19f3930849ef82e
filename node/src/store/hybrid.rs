//! Hybrid search: the nearest vectors and the best matching terms, fused into one ranking.
//!
//! Terms are read from the payload's text (its key `content`) when the first hybrid search comes, and kept; later ones
//! only read what changed meanwhile. Nothing waits for that but the search itself: texts are read outside all locks, and
//! what has been read is kept when a search is given up. Searches that come meanwhile share the work, each beginning at
//! another block. A vector's sparse score is the sum, over the terms asked for, of weight asked for
//! times BM25 weight in the text times inverse document frequency `ln(1 + (n - df + 0.5) / (df + 0.5))`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;
use vectorizer_api::data::{Fusion, TEXT_KEY};

use super::cancel::{Cancel, Cancelled};
use super::collection::Collection;
use super::embed::{Embedder, HashEmbedder};
use super::filter::Filter;
use super::kernel::{Scorer, finite};
use super::payload::{Object, Scalar, scalar};
use super::search::{Hit, Score, SearchError, Wanted};

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

/// Texts whose terms are read before they are put into the index.
const STRETCH: usize = 64;

/// The terms of a collection's texts, by slot.
#[derive(Default)]
pub(super) struct TermIndex {
    /// Version of the vector whose terms these are, and they.
    slots: Vec<(u64, Terms)>,
    /// Of each block, as of which change it has been read, and as of which somebody began to.
    blocks: Vec<ReadAsOf>,
    /// In how many texts a term occurs.
    frequency: HashMap<u32, u32>,
    /// Texts with terms.
    pub(super) texts: u32,
    /// Searches that have begun to read terms.
    begun: usize,
}

#[derive(Clone, Copy, Default)]
struct ReadAsOf {
    read: u64,
    begun: u64,
}

/// What a search has to read of a block.
struct Unread {
    /// As of which change of the block.
    change: u64,
    /// Slot, version and payload; version 0 for a free one.
    slots: Vec<(usize, u64, Bytes)>,
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

    /// Whether nobody began to read the block as of a later change.
    fn is_latest(&self, block: usize, unread: &Unread) -> bool {
        let of_block = self.blocks.get(block).copied().unwrap_or_default();
        of_block.begun == unread.change && of_block.read < unread.change
    }

    fn inverse_frequency(&self, term: u32) -> f32 {
        let (n, df) = (self.texts as f32, self.frequency.get(&term));
        let df = df.copied().unwrap_or(0) as f32;
        (1.0 + (n - df + 0.5) / (df + 0.5)).ln()
    }

    /// The sum over `query`, whose weights hold the inverse frequencies already.
    fn score(&self, at: usize, version: u64, query: &[(u32, f32)]) -> Score {
        match self.slots.get(at) {
            Some((of, terms)) if *of == version => {
                score_of(terms, query).map_or(Score::None, Score::Of)
            }
            // Written, or moved, since the terms were read.
            Some(_) | None => Score::OfPayload,
        }
    }
}

/// The sum over the terms asked for; `None` where no term matches.
fn score_of(terms: &[(u32, f32)], query: &[(u32, f32)]) -> Option<f32> {
    let mut score = None;
    for (term, asked) in query {
        if let Ok(found) = terms.binary_search_by_key(term, |(t, _)| *t) {
            score = Some(score.unwrap_or(0.0) + asked * terms[found].1);
        }
    }
    score.map(finite)
}

impl Collection {
    /// Nearest vectors and best matching terms, fused into one ranking. Best first; equal scores by id.
    pub fn search_hybrid(
        &self,
        request: &HybridRequest,
        cancel: &dyn Cancel,
    ) -> Result<Vec<Hit>, SearchError> {
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
        let dense = self.rank(
            &wanted(request.dense_k),
            cancel,
            || (),
            |(), content, at, slot| {
                Score::Of(scorer.score(content.slots.vector(at), slot.inverse_norm))
            },
            |_| Ok(None),
        )?;
        let sparse = if request.terms.is_empty() {
            Vec::new()
        } else {
            self.read_terms(cancel)?;
            let query: Vec<_> = {
                let terms = self.terms.read();
                let weighted = request.terms.iter();
                weighted
                    .map(|(term, weight)| (*term, weight * terms.inverse_frequency(*term)))
                    .collect()
            };
            self.rank(
                &wanted(request.sparse_k),
                cancel,
                || self.terms.read(),
                |terms, _, at, slot| terms.score(at, slot.version, &query),
                |payload| Ok(score_of(&text_terms(payload, cancel)?, &query)),
            )?
        };
        Ok(fuse(request, dense, sparse))
    }

    /// Reads the terms of what was written since the last time.
    fn read_terms(&self, cancel: &dyn Cancel) -> Result<(), Cancelled> {
        let blocks = self.read().slots.blocks();
        let first = {
            let mut terms = self.terms.write();
            terms.begun = terms.begun.wrapping_add(1);
            spread(terms.begun, blocks)
        };
        for block in (first..blocks).chain(0..first) {
            cancel.check()?;
            if let Some(unread) = self.unread(block) {
                self.read_block(block, &unread, cancel)?;
            }
        }
        self.forget_terms_beyond_the_end(cancel)
    }

    /// What has changed in a block since its terms were read; `None` where nothing has.
    fn unread(&self, block: usize) -> Option<Unread> {
        let content = self.read();
        let change = content.slots.changed_at(block)?;
        let mut terms = self.terms.write();
        if block >= terms.blocks.len() {
            terms.blocks.resize(block + 1, ReadAsOf::default());
        }
        if terms.blocks[block].read >= change {
            return None;
        }
        terms.blocks[block].begun = change;
        let mut slots = Vec::new();
        for at in content.slots.of_block(block) {
            let slot = content.slots.slot(at);
            let version = slot.map_or(0, |slot| slot.version);
            if terms.slots.get(at).map_or(0, |(of, _)| *of) != version {
                let payload = slot.map_or_else(Bytes::new, |slot| slot.payload.clone());
                slots.push((at, version, payload));
            }
        }
        Some(Unread { change, slots })
    }

    fn read_block(
        &self,
        block: usize,
        unread: &Unread,
        cancel: &dyn Cancel,
    ) -> Result<(), Cancelled> {
        for stretch in unread.slots.chunks(STRETCH) {
            let mut read = Vec::with_capacity(STRETCH);
            for (at, version, payload) in stretch {
                cancel.check()?;
                read.push((*at, *version, text_terms(payload, cancel)?));
            }
            let mut terms = self.terms.write();
            // Who began later, or is done, knows better what is in these slots.
            if !terms.is_latest(block, unread) {
                return Ok(());
            }
            for (at, version, of_text) in read {
                terms.set(at, version, of_text);
            }
        }
        let mut terms = self.terms.write();
        if terms.is_latest(block, unread) {
            terms.blocks[block].read = unread.change;
        }
        Ok(())
    }

    /// Of slots that are no more.
    fn forget_terms_beyond_the_end(&self, cancel: &dyn Cancel) -> Result<(), Cancelled> {
        loop {
            cancel.check()?;
            let content = self.read();
            let mut terms = self.terms.write();
            for _ in 0..STRETCH {
                if terms.slots.len() <= content.slots.len() {
                    return Ok(());
                }
                let last = terms.slots.len() - 1;
                terms.set(last, 0, Terms::default());
                terms.slots.truncate(last);
            }
        }
    }
}

/// A block to begin at for the `n`th search, so that each is far from those before it.
fn spread(n: usize, blocks: usize) -> usize {
    // The golden ratio: multiples of it fill the circle evenly.
    let fraction = (n as f64 * 0.618_033_988_749_894_9).fract();
    ((fraction * blocks as f64) as usize).min(blocks.saturating_sub(1))
}

/// The terms of a payload's text; none where there is no text.
fn text_terms(payload: &[u8], cancel: &dyn Cancel) -> Result<Terms, Cancelled> {
    let payload: Object<'_> = serde_json::from_slice(payload).unwrap_or_default();
    match payload.get(TEXT_KEY).and_then(scalar) {
        Some(Scalar::Text(text)) => Ok(HashEmbedder.terms(&text, cancel)?.into_boxed_slice()),
        Some(Scalar::Null | Scalar::Bool(_) | Scalar::Number(_)) | None => Ok(Terms::default()),
    }
}

/// One ranking out of two. Standing in a ranking never costs a hit anything: what it adds is at least 0, and more the
/// better it stands.
fn fuse(request: &HybridRequest, dense: Vec<Hit>, sparse: Vec<Hit>) -> Vec<Hit> {
    let mut fused: HashMap<String, Hit> = HashMap::new();
    for (weight, ranking) in [(request.alpha, dense), (1.0 - request.alpha, sparse)] {
        let best = ranking.first().map_or(0.0, |h| h.score);
        let worst = ranking.last().map_or(0.0, |h| h.score);
        for (at, mut hit) in ranking.into_iter().enumerate() {
            let score = match request.fusion {
                Fusion::Rrf => 1.0 / (61.0 + at as f32),
                // From 0, or from what is worse than that.
                Fusion::Weighted => weight * share(hit.score, worst.min(0.0), best),
                Fusion::Alpha => weight * share(hit.score, worst, best),
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

/// Where a score stands between `worst`, 0, and `best`, 1. Where all are the same, those above 0 are the best.
fn share(score: f32, worst: f32, best: f32) -> f32 {
    if best > worst {
        // Halved, because the difference of two finite numbers need not be one.
        (score / 2.0 - worst / 2.0) / (best / 2.0 - worst / 2.0)
    } else if score > 0.0 {
        1.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests;
