//! From text to vector, as a pure function of text and configuration, so that every node computes the same.
//!
//! [`HashEmbedder`]: the words of the text (Unicode segmentation), lower case, English stop words left out unless nothing
//! else is there, each reduced to its stem (Snowball's English rules; words in other scripts stay as they are). A term is
//! weighted by BM25's `f (k + 1) / (f + k (1 - b + b n / 64))` with f its count, n the number of words, k = 1.2, b = 0.75
//! and an average length fixed at 64, so that it depends on nothing but this text. A term adds its weight, with a sign,
//! at four places of the vector that its XXH3-128 names: four, because words that meet in one place by accident then
//! agree in a quarter of their weight and not in all of it. The vector is then scaled to length 1.
//!
//! Golden vectors in the tests hold all of this still: a change would part new vectors from stored ones.

use std::collections::BTreeMap;

use rust_stemmers::{Algorithm, Stemmer};
use unicode_segmentation::UnicodeSegmentation;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::cancel::{Cancel, Cancelled};

/// Turns text into a vector and into weighted terms. Every node must compute the same from the same text.
pub trait Embedder: Send + Sync {
    /// The name under which answers and configuration know it.
    fn name(&self) -> &'static str;
    /// A vector of length 1 with `dimension` numbers; all zeros where the text has no word.
    fn embed(
        &self,
        text: &str,
        dimension: usize,
        cancel: &dyn Cancel,
    ) -> Result<Vec<f32>, Cancelled>;
    /// Term and weight, ordered by term, for the sparse part of hybrid search.
    fn terms(&self, text: &str, cancel: &dyn Cancel) -> Result<Vec<(u32, f32)>, Cancelled>;
}

/// Dimension where nobody asks for another.
pub const DEFAULT_DIMENSION: usize = 512;

const SEED: u64 = 0x7665_6374_6f72_697a;
const K: f32 = 1.2;
const B: f32 = 0.75;
const AVERAGE_WORDS: f32 = 64.0;
/// After so many words it is asked whether the rest is still wanted.
const WORDS_BETWEEN_LOOKS: usize = 256;
/// A longer word is cut to this many bytes: it is no word of any language.
const MAX_WORD_LEN: usize = 64;

/// Sorted, for binary search.
const STOP_WORDS: [&str; 52] = [
    "a", "about", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can", "did", "do",
    "does", "for", "from", "had", "has", "have", "how", "i", "if", "in", "into", "is", "it", "its",
    "no", "not", "of", "on", "or", "so", "such", "that", "the", "their", "then", "there", "these",
    "they", "this", "to", "was", "were", "what", "when", "which", "who", "will", "with",
];

/// Hashed words with BM25 weights.
#[derive(Clone, Copy, Debug, Default)]
pub struct HashEmbedder;

impl HashEmbedder {
    /// The 128-bit hash of each stem and its weight, ordered by hash.
    fn weighted(self, text: &str, cancel: &dyn Cancel) -> Result<BTreeMap<u128, f32>, Cancelled> {
        cancel.check()?;
        let text = text.to_lowercase();
        let stemmer = Stemmer::create(Algorithm::English);
        let stop = |word: &str| STOP_WORDS.binary_search(&word).is_ok();
        let mut only_stop_words = true;
        for (at, word) in text.unicode_words().enumerate() {
            if !stop(word) {
                only_stop_words = false;
                break;
            }
            look(at, cancel)?;
        }
        let mut counts: BTreeMap<u128, f32> = BTreeMap::new();
        let mut total = 0.0;
        for (at, word) in text.unicode_words().enumerate() {
            look(at, cancel)?;
            if only_stop_words || !stop(word) {
                *counts.entry(stem_hash(&stemmer, word)).or_default() += 1.0;
                total += 1.0;
            }
        }
        let length = 1.0 - B + B * total / AVERAGE_WORDS;
        for weight in counts.values_mut() {
            *weight = *weight * (K + 1.0) / (*weight + K * length);
        }
        Ok(counts)
    }
}

fn look(at: usize, cancel: &dyn Cancel) -> Result<(), Cancelled> {
    if at % WORDS_BETWEEN_LOOKS == WORDS_BETWEEN_LOOKS - 1 {
        cancel.check()?;
    }
    Ok(())
}

fn stem_hash(stemmer: &Stemmer, word: &str) -> u128 {
    let mut end = word.len().min(MAX_WORD_LEN);
    while !word.is_char_boundary(end) {
        end -= 1;
    }
    let word = &word[..end];
    // Only for the letters that the rules are made for.
    if word.bytes().all(|b| b.is_ascii_lowercase() || b == b'\'') {
        xxh3_128_with_seed(stemmer.stem(word).as_bytes(), SEED)
    } else {
        xxh3_128_with_seed(word.as_bytes(), SEED)
    }
}

impl Embedder for HashEmbedder {
    fn name(&self) -> &'static str {
        "hashed-bm25"
    }

    fn embed(
        &self,
        text: &str,
        dimension: usize,
        cancel: &dyn Cancel,
    ) -> Result<Vec<f32>, Cancelled> {
        let mut vector = vec![0.0f32; dimension];
        if dimension == 0 {
            return Ok(vector);
        }
        for (hash, weight) in self.weighted(text, cancel)? {
            for part in 0..4 {
                let part = (hash >> (32 * part)) as u32;
                let sign = if part & 1 == 0 { 1.0 } else { -1.0 };
                // The high bits, scaled to the dimension.
                let at = (u64::from(part >> 1) * dimension as u64) >> 31;
                vector[at as usize] += sign * weight;
            }
        }
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        if norm > 0.0 {
            vector.iter_mut().for_each(|x| *x /= norm);
        }
        Ok(vector)
    }

    fn terms(&self, text: &str, cancel: &dyn Cancel) -> Result<Vec<(u32, f32)>, Cancelled> {
        let mut terms: BTreeMap<u32, f32> = BTreeMap::new();
        for (hash, weight) in self.weighted(text, cancel)? {
            *terms.entry((hash >> 96) as u32).or_default() += weight;
        }
        Ok(terms.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
