//! Distances. Written in sixteen independent sums, so that the compiler turns them into vector instructions.

use super::config::Metric;

const LANES: usize = 16;

/// Combines two vectors number by number and sums up.
#[inline(always)]
fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += term(x[lane], y[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| term(*x, *y)).sum();
    sums.iter().sum::<f32>() + rest
}

/// The dot product of two vectors of the same dimension.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |x, y| x * y)
}

/// The square of the Euclidean distance of two vectors of the same dimension.
pub(super) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |x, y| (x - y) * (x - y))
}

/// 1 / length; 0 for a vector of zeros.
pub(super) fn inverse_norm(vector: &[f32]) -> f32 {
    let mut norm = f64::from(dot(vector, vector)).sqrt();
    if !norm.is_normal() {
        // Too large or too small for f32 squares.
        norm = vector
            .iter()
            .map(|x| f64::from(*x) * f64::from(*x))
            .sum::<f64>()
            .sqrt();
    }
    if norm > 0.0 { (1.0 / norm) as f32 } else { 0.0 }
}

/// Scores vectors against one query; see [`Metric`].
pub(super) struct Scorer<'a> {
    query: &'a [f32],
    metric: Metric,
    inverse_norm: f32,
}

impl<'a> Scorer<'a> {
    pub(super) fn new(query: &'a [f32], metric: Metric) -> Self {
        Scorer {
            query,
            metric,
            inverse_norm: inverse_norm(query),
        }
    }

    /// The score, always finite. `inverse_norm` is the vector's.
    pub(super) fn score(&self, vector: &[f32], inverse_norm: f32) -> f32 {
        let score = match self.metric {
            Metric::Cosine => {
                let cosine = dot(self.query, vector) * inverse_norm * self.inverse_norm;
                cosine.clamp(-1.0, 1.0)
            }
            Metric::Euclidean => 1.0 / (1.0 + squared_distance(self.query, vector).sqrt()),
            Metric::DotProduct => dot(self.query, vector),
        };
        finite(score)
    }
}

/// The number, or the nearest one that JSON can hold; never the negative zero.
pub(super) fn finite(score: f32) -> f32 {
    if score.is_nan() {
        return f32::MIN;
    }
    score.clamp(f32::MIN, f32::MAX) + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(len: usize, seed: f32) -> Vec<f32> {
        (0..len).map(|n| (n as f32 * 0.37 + seed).sin()).collect()
    }

    #[test]
    fn sums_in_lanes_are_the_plain_sums_for_every_length() {
        for len in 0..70 {
            let (a, b) = (vector(len, 0.0), vector(len, 1.0));
            let plain: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(x * y)).sum();
            assert!((f64::from(dot(&a, &b)) - plain).abs() < 1e-4, "{len}");
            let plain: f64 = a
                .iter()
                .zip(&b)
                .map(|(x, y)| f64::from((x - y) * (x - y)))
                .sum();
            assert!(
                (f64::from(squared_distance(&a, &b)) - plain).abs() < 1e-4,
                "{len}"
            );
        }
    }

    #[test]
    fn scores_are_what_the_metric_says() {
        let score = |metric, query: &[f32], vector: &[f32]| {
            Scorer::new(query, metric).score(vector, inverse_norm(vector))
        };
        assert!((score(Metric::Cosine, &[2.0, 0.0], &[5.0, 0.0]) - 1.0).abs() < 1e-6);
        assert!((score(Metric::Cosine, &[1.0, 0.0], &[-3.0, 0.0]) + 1.0).abs() < 1e-6);
        assert_eq!(score(Metric::Cosine, &[1.0, 0.0], &[0.0, 0.0]), 0.0);
        assert_eq!(
            score(Metric::Euclidean, &[0.0, 0.0], &[3.0, 4.0]),
            1.0 / 6.0
        );
        assert_eq!(score(Metric::DotProduct, &[2.0, 3.0], &[4.0, 5.0]), 23.0);
    }

    #[test]
    fn scores_stay_finite_for_the_largest_numbers() {
        for metric in [Metric::Cosine, Metric::Euclidean, Metric::DotProduct] {
            for query in [[f32::MAX, f32::MAX], [f32::MAX, f32::MIN], [1e-38, 1e-38]] {
                for vector in [[f32::MAX, f32::MAX], [f32::MIN, f32::MIN], [1e-38, 0.0]] {
                    let score = Scorer::new(&query, metric).score(&vector, inverse_norm(&vector));
                    assert!(score.is_finite(), "{metric:?} {query:?} {vector:?}");
                }
            }
        }
    }
}
