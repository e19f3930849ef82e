//! Conditions on payloads.

use serde_json::{Map, Value};

/// A condition on a payload.
#[derive(Clone, PartialEq, Debug)]
pub enum Filter {}

/// A filter that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FilterError {
    /// Where in the request, such as `filter.must[1].range`.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Filter {
    /// Reads a filter from JSON; errors name places below `path`.
    pub fn parse(_value: &Value, _path: &str) -> Result<Filter, FilterError> {
        todo!()
    }

    /// Whether a payload matches.
    pub fn matches(&self, _payload: &Map<String, Value>) -> bool {
        todo!()
    }
}
