//! Words that clients write in more than one way, read in one place: metrics and fusions. Case does not matter, nor do
//! `_`, `-` and spaces; answers have the first of each.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// How near two vectors are. Of every score, the higher is the better.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// The cosine of their angle, in -1..=1; 0 when one of them is all zeros.
    #[default]
    Cosine,
    /// `1 / (1 + distance)`, in 0..=1. Also `euclid`, `l2`.
    Euclidean,
    /// Their dot product, unbounded. Also `dot`, `ip`, `inner_product`.
    DotProduct,
}

/// How the two rankings of a hybrid search become one. A hit that is in one ranking only gets nothing from the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Fusion {
    /// Reciprocal ranks: the sum of `1 / (60 + rank)`, ranks from 1; `alpha` plays no part. Also
    /// `reciprocal_rank_fusion`.
    #[default]
    Rrf,
    /// `alpha` times the dense score plus `1 - alpha` times the sparse one, each brought to 0..=1 first: from 0, or from
    /// the ranking's worst where that is below 0, to its best. Also `weighted_combination`.
    Weighted,
    /// The same with each ranking's scores stretched to 0..=1 between its worst and its best. Also `alpha_blending`.
    Alpha,
}

/// A word that is none of those that are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownWord {
    kind: &'static str,
    found: String,
    expected: &'static str,
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnknownWord {
            kind,
            found,
            expected,
        } = self;
        write!(f, "unknown {kind} `{found}`: expected {expected}")
    }
}

impl std::error::Error for UnknownWord {}

fn plain(word: &str) -> String {
    let letters = word.chars().filter(|c| !matches!(c, '_' | '-' | ' '));
    letters.map(|c| c.to_ascii_lowercase()).collect()
}

fn unknown(kind: &'static str, found: &str, expected: &'static str) -> UnknownWord {
    UnknownWord {
        kind,
        found: found.chars().take(64).collect(),
        expected,
    }
}

impl Metric {
    /// The word used in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Metric::Cosine => "cosine",
            Metric::Euclidean => "euclidean",
            Metric::DotProduct => "dotproduct",
        }
    }
}

impl FromStr for Metric {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match plain(word).as_str() {
            "cosine" => Ok(Metric::Cosine),
            "euclidean" | "euclid" | "l2" => Ok(Metric::Euclidean),
            "dotproduct" | "dot" | "ip" | "innerproduct" => Ok(Metric::DotProduct),
            _ => Err(unknown("metric", word, "cosine, euclidean or dotproduct")),
        }
    }
}

impl FromStr for Fusion {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match plain(word).as_str() {
            "rrf" | "reciprocalrankfusion" => Ok(Fusion::Rrf),
            "weighted" | "weightedcombination" => Ok(Fusion::Weighted),
            "alpha" | "alphablending" => Ok(Fusion::Alpha),
            _ => Err(unknown("algorithm", word, "rrf, weighted or alpha")),
        }
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let word = String::deserialize(from)?;
        word.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Fusion {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let word = String::deserialize(from)?;
        word.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_all_clients_write_them_and_answered_in_one_way() {
        for (metric, words) in [
            (Metric::Cosine, ["cosine", "Cosine", "COSINE", "cosine"]),
            (
                Metric::Euclidean,
                ["euclidean", "Euclidean", "euclid", "L2"],
            ),
            (
                Metric::DotProduct,
                ["dotproduct", "DotProduct", "dot_product", "Dot"],
            ),
        ] {
            let answered = serde_json::to_string(&metric).unwrap();
            assert_eq!(answered, format!("\"{}\"", metric.as_str()));
            for word in words {
                assert_eq!(word.parse(), Ok(metric), "{word}");
                let read: Metric = serde_json::from_str(&format!("\"{word}\"")).unwrap();
                assert_eq!(read, metric);
            }
        }
        for (fusion, words) in [
            (Fusion::Rrf, ["rrf", "ReciprocalRankFusion"]),
            (Fusion::Weighted, ["weighted", "weighted_combination"]),
            (Fusion::Alpha, ["Alpha", "alpha-blending"]),
        ] {
            for word in words {
                assert_eq!(word.parse(), Ok(fusion), "{word}");
            }
        }
    }

    #[test]
    fn an_unknown_word_is_refused_with_those_that_are_known() {
        let refused = serde_json::from_str::<Metric>("\"manhattan\"").unwrap_err();
        let refused = refused.to_string();
        let says = "unknown metric `manhattan`: expected cosine, euclidean or dotproduct";
        assert!(refused.contains(says), "{refused}");
        assert!("".parse::<Metric>().is_err());
        assert!("sum".parse::<Fusion>().is_err());
        assert!(serde_json::from_str::<Metric>("1").is_err());
    }
}
