//! Distances. Written in sixteen independent sums, so that the compiler turns them into vector instructions.
//!
//! Numbers whose squares or sums are beyond what 32 bits hold are computed in 64, which hold them all: found by the
//! lengths of the vectors, or by a sum that is not finite. Each node computes the same either way.

use std::ops::RangeInclusive;

use super::config::Metric;

const LANES: usize = 16;
/// Between these inverse lengths no product of two vectors leaves what 32 bits hold exactly enough.
const MODERATE: RangeInclusive<f32> = 1e-12..=1e12;

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

/// The sum of a term over all places, in 64 bits.
fn exact_sum(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let places = a.iter().zip(b);
    places
        .map(|(x, y)| term(f64::from(*x), f64::from(*y)))
        .sum()
}

fn exact_dot(a: &[f32], b: &[f32]) -> f64 {
    exact_sum(a, b, |x, y| x * y)
}

/// 1 / length; 0 for a vector of zeros, infinite for one whose length is next to nothing.
pub(super) fn inverse_norm(vector: &[f32]) -> f32 {
    let square = dot(vector, vector);
    let norm = if square.is_normal() {
        f64::from(square).sqrt()
    } else {
        // Too large or too small for 32 bits.
        exact_dot(vector, vector).sqrt()
    };
    if norm > 0.0 { (1.0 / norm) as f32 } else { 0.0 }
}

/// The cosine of two vectors of any length other than zero.
fn exact_cosine(a: &[f32], b: &[f32]) -> f32 {
    let lengths = exact_dot(a, a).sqrt() * exact_dot(b, b).sqrt();
    (exact_dot(a, b) / lengths) as f32
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
            Metric::Cosine if inverse_norm == 0.0 || self.inverse_norm == 0.0 => 0.0,
            Metric::Cosine => {
                let moderate =
                    MODERATE.contains(&inverse_norm) && MODERATE.contains(&self.inverse_norm);
                let cosine = if moderate {
                    dot(self.query, vector) * inverse_norm * self.inverse_norm
                } else {
                    exact_cosine(self.query, vector)
                };
                cosine.clamp(-1.0, 1.0)
            }
            Metric::Euclidean => {
                let square = squared_distance(self.query, vector);
                let distance = if square.is_finite() {
                    f64::from(square.sqrt())
                } else {
                    exact_sum(self.query, vector, |x, y| (x - y) * (x - y)).sqrt()
                };
                (1.0 / (1.0 + distance)) as f32
            }
            Metric::DotProduct => {
                let product = dot(self.query, vector);
                if product.is_finite() {
                    product
                } else {
                    exact_dot(self.query, vector) as f32
                }
            }
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
    fn scores_are_right_for_numbers_whose_squares_do_not_fit() {
        let score = |metric, query: &[f32], vector: &[f32]| {
            Scorer::new(query, metric).score(vector, inverse_norm(vector))
        };
        for (query, vector, expected) in [
            ([1e20, -1e20], [1e20, 1e20], 0.0),
            ([1e20, 1e20], [1e20, 1e20], 1.0),
            ([1e-30, 1e-30], [1e-30, 1e-30], 1.0),
            ([1e-30, 1e-30], [-1e-30, -1e-30], -1.0),
            ([1e-44, 0.0], [1e-44, 0.0], 1.0),
            ([1e-44, 0.0], [3.4e38, 3.4e38], 0.5f32.sqrt()),
            ([f32::MAX, f32::MAX], [f32::MAX, f32::MIN], 0.0),
            ([1e-30, 0.0], [0.0, 0.0], 0.0),
            ([1e30, 1e-30], [0.0, 1.0], 1e-38),
        ] {
            let cosine = score(Metric::Cosine, &query, &vector);
            assert!(
                (cosine - expected).abs() < 1e-6,
                "{query:?} {vector:?}: {cosine}"
            );
        }
        let product = score(Metric::DotProduct, &[1e30, -1e30], &[1e30, 1e30]);
        assert_eq!(product, 0.0);
        assert_eq!(
            score(Metric::DotProduct, &[1e30, 0.0], &[1e30, 0.0]),
            f32::MAX
        );
        assert_eq!(
            score(Metric::DotProduct, &[-1e30, 0.0], &[1e30, 0.0]),
            f32::MIN
        );
        let near = score(Metric::Euclidean, &[1e20, 0.0], &[0.0, 0.0]);
        let far = score(Metric::Euclidean, &[1e30, 0.0], &[0.0, 0.0]);
        assert!(
            (near - 1e-20).abs() < 1e-26 && (far - 1e-30).abs() < 1e-36,
            "{near} {far}"
        );
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
