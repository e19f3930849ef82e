//! What a collection is made with, and what names and ids are allowed.

use serde::{Deserialize, Serialize};
pub use vectorizer_api::data::Metric;

/// Most dimensions that a collection may have.
pub const MAX_DIMENSION: usize = 65_536;
/// Longest name of a collection, in bytes.
pub const MAX_NAME_LEN: usize = 255;
/// Longest id of a vector, in bytes.
pub const MAX_ID_LEN: usize = 1_024;
/// Longest description of a collection, in bytes.
pub const MAX_DESCRIPTION_LEN: usize = 4_096;
/// What a collection is made with; it never changes afterwards.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CollectionConfig {
    /// Numbers in each vector, 1..=[`MAX_DIMENSION`].
    pub dimension: usize,
    /// How near two vectors are.
    pub metric: Metric,
    /// What a person wrote about it; at most [`MAX_DESCRIPTION_LEN`] bytes, never empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A name, id or setting that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The dimension is 0 or too large.
    #[error("dimension {0} is not within 1..={MAX_DIMENSION}")]
    Dimension(usize),
    /// The description is too long.
    #[error("the description is {0} bytes long: at most {MAX_DESCRIPTION_LEN} are allowed")]
    Description(usize),
    /// Not a name for a collection.
    #[error(
        "`{0}` is no name for a collection: expected 1 to {MAX_NAME_LEN} of A-Z a-z 0-9 _ . - , and neither `.` nor `..`"
    )]
    Name(String),
    /// Not an id for a vector.
    #[error(
        "an id of {0} bytes is not allowed: expected 1 to {MAX_ID_LEN} bytes without control characters"
    )]
    Id(usize),
    /// An id that no URL can carry: clients take it out of a path, however it is written there.
    #[error("the id `{0}` is not allowed, as no URL can name it: choose another one")]
    DotId(String),
}

impl CollectionConfig {
    /// Without a description.
    pub fn new(dimension: usize, metric: Metric) -> Self {
        CollectionConfig {
            dimension,
            metric,
            description: None,
        }
    }

    /// Checks every field.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=MAX_DIMENSION).contains(&self.dimension) {
            return Err(ConfigError::Dimension(self.dimension));
        }
        match &self.description {
            Some(text) if text.len() > MAX_DESCRIPTION_LEN => {
                Err(ConfigError::Description(text.len()))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Checks the name of a collection.
pub fn validate_name(name: &str) -> Result<(), ConfigError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let fits = (1..=MAX_NAME_LEN).contains(&name.len());
    if fits && name.bytes().all(allowed) && name != "." && name != ".." {
        Ok(())
    } else {
        Err(ConfigError::Name(name.chars().take(64).collect()))
    }
}

/// Checks the id of a vector.
pub fn validate_id(id: &str) -> Result<(), ConfigError> {
    if !(1..=MAX_ID_LEN).contains(&id.len()) || id.chars().any(char::is_control) {
        Err(ConfigError::Id(id.len()))
    } else if id == "." || id == ".." {
        Err(ConfigError::DotId(id.to_owned()))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_paths_and_urls() {
        for good in ["a", "docs-2024.v1_final", &"x".repeat(255)] {
            assert_eq!(validate_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a\0", &"x".repeat(256)] {
            assert!(validate_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ids_are_short_texts_without_control_characters() {
        for good in [
            "a",
            "...",
            "id with spaces / and ümlauts",
            &"x".repeat(1024),
        ] {
            assert_eq!(validate_id(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a\nb", "\u{7f}", &"x".repeat(1025)] {
            assert!(validate_id(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn dimensions_are_bounded() {
        for (dimension, ok) in [(0, false), (1, true), (65_536, true), (65_537, false)] {
            let config = CollectionConfig::new(dimension, Metric::Cosine);
            assert_eq!(config.validate().is_ok(), ok, "{dimension}");
        }
    }
}
