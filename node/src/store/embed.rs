//! From text to vector, as a pure function of text and configuration.

/// Turns text into a vector and into weighted terms. Every node must compute the same from the same text.
pub trait Embedder: Send + Sync {
    /// The name under which answers and configuration know it.
    fn name(&self) -> &'static str;
    /// A vector of length 1 with `dimension` numbers; all zeros where the text has no word.
    fn embed(&self, text: &str, dimension: usize) -> Vec<f32>;
    /// Term and weight, ordered by term, for the sparse part of hybrid search.
    fn terms(&self, text: &str) -> Vec<(u32, f32)>;
}

/// Dimension where nobody asks for another.
pub const DEFAULT_DIMENSION: usize = 512;

/// Hashed words with BM25 weights.
#[derive(Clone, Copy, Debug, Default)]
pub struct HashEmbedder;

impl Embedder for HashEmbedder {
    fn name(&self) -> &'static str {
        "hashed-bm25"
    }

    fn embed(&self, _text: &str, _dimension: usize) -> Vec<f32> {
        todo!()
    }

    fn terms(&self, _text: &str) -> Vec<(u32, f32)> {
        todo!()
    }
}
