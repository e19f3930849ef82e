//! Conditions on ids and payloads, asked inside the search.
//!
//! | JSON | matches when |
//! |---|---|
//! | `{"equals": {"key": K, "value": V}}` | the value at K is V |
//! | `{"in": {"key": K, "values": [V, …]}}` | the value at K is one of these |
//! | `{"range": {"key": K, "gt", "gte", "lt", "lte": number}}` | the value at K is a number within all bounds given |
//! | `{"exists": {"key": K}}` | there is a value at K, other than null |
//! | `{"and": [F, …]}`, `{"or": [F, …]}`, `{"not": F}` | all, any, or not |
//! | `{"K": V, …}`, `{"K": [V, …], …}` | all: the value at K is V, or one of these |
//! | `{"must": [F, …], "should": [F, …], "must_not": [F, …]}` | all, at least one, and none, as Qdrant has it, as the next three are |
//! | `{"key": K, "match": {"value": V}}`, `{"match": {"any": [V, …]}}`, `{"range": {…}}` | as `equals`, `in` and `range` |
//! | `{"is_empty": {"key": K}}`, `{"is_null": {"key": K}}` | nothing, null or an empty array; null alone |
//! | `{"has_id": [id, …]}` | the vector's id is one of these |
//! | `{"$and": […]}`, `{"$or": […]}`, `{"$nor": […]}`, `{"$not": F}` | as MongoDB has it, as the next one is |
//! | `{"K": {"$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$not"}}` | all of them; `gt` … without `$` too |
//!
//! K is a path: `author.name` looks into objects, and into each object of an array; a key that itself holds dots is found
//! as well. Where the value is an array, one of its elements has to match. V is a text, a number, true, false or null;
//! texts are equal letter by letter, numbers when their exact values are. Whatever else is sent is refused with its
//! place: nothing is taken for a condition that no vector meets.

mod parse;

use std::collections::HashSet;

use super::cancel::{Cancel, Cancelled};
use super::payload::{Number, Object, Scalar, Steps, is_empty_array, scalar};

/// A condition on a vector's id and payload.
#[derive(Clone, PartialEq, Debug)]
pub enum Filter {
    /// The value at a key is one of these.
    In {
        /// Path of the key.
        key: String,
        /// The values.
        values: Values,
    },
    /// The value at a key is a number within bounds.
    Range {
        /// Path of the key.
        key: String,
        /// At least one is there.
        bounds: Bounds,
    },
    /// There is a value at a key, other than null.
    Exists {
        /// Path of the key.
        key: String,
    },
    /// There is null at a key.
    IsNull {
        /// Path of the key.
        key: String,
    },
    /// There is nothing at a key, or null, or an empty array.
    IsEmpty {
        /// Path of the key.
        key: String,
    },
    /// The vector's id is one of these.
    HasId(HashSet<Box<str>>),
    /// All match.
    And(Vec<Filter>),
    /// At least one matches.
    Or(Vec<Filter>),
    /// It does not match.
    Not(Box<Filter>),
}

/// A set of plain values.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Values {
    null: bool,
    bools: [bool; 2],
    numbers: HashSet<Number>,
    texts: HashSet<Box<str>>,
}

impl Values {
    fn insert(&mut self, value: Scalar<'_>) {
        match value {
            Scalar::Null => self.null = true,
            Scalar::Bool(value) => self.bools[usize::from(value)] = true,
            Scalar::Number(value) => {
                self.numbers.insert(value);
            }
            Scalar::Text(value) => {
                self.texts.insert(value.into());
            }
        }
    }

    fn hold(&self, json: &str) -> bool {
        match scalar(json) {
            Some(Scalar::Null) => self.null,
            Some(Scalar::Bool(value)) => self.bools[usize::from(value)],
            Some(Scalar::Number(value)) => self.numbers.contains(&value),
            Some(Scalar::Text(value)) => self.texts.contains(&*value),
            None => false,
        }
    }
}

/// Bounds of a range.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Bounds {
    /// Greater than.
    pub gt: Option<Number>,
    /// Greater or equal.
    pub gte: Option<Number>,
    /// Less than.
    pub lt: Option<Number>,
    /// Less or equal.
    pub lte: Option<Number>,
}

impl Bounds {
    fn hold(&self, json: &str) -> bool {
        let Some(Scalar::Number(number)) = scalar(json) else {
            return false;
        };
        self.gt.as_ref().is_none_or(|bound| number > *bound)
            && self.gte.as_ref().is_none_or(|bound| number >= *bound)
            && self.lt.as_ref().is_none_or(|bound| number < *bound)
            && self.lte.as_ref().is_none_or(|bound| number <= *bound)
    }
}

/// A filter that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FilterError {
    /// Where in the request, such as `filter.and[1].range.gte`.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Filter {
    /// Reads a filter from JSON text; errors name places below `path`.
    pub fn parse(json: &str, path: &str) -> Result<Filter, FilterError> {
        parse::parse(json, path)
    }

    /// Whether a vector of this id and payload matches; a payload that is no JSON object matches nothing.
    pub fn matches(
        &self,
        id: &str,
        payload: &[u8],
        cancel: &dyn Cancel,
    ) -> Result<bool, Cancelled> {
        let steps = Steps::new(cancel);
        steps.over(payload.len())?;
        match serde_json::from_slice(payload) {
            Ok(payload) => self.holds(id, &payload, &steps),
            Err(_) => Ok(false),
        }
    }

    fn holds(&self, id: &str, payload: &Object<'_>, steps: &Steps<'_>) -> Result<bool, Cancelled> {
        steps.over(1)?;
        match self {
            Filter::In { key, values } => payload.any(key, steps, &|found| values.hold(found)),
            Filter::Range { key, bounds } => payload.any(key, steps, &|found| bounds.hold(found)),
            Filter::Exists { key } => payload.any_whole(key, steps, &|found| found != "null"),
            Filter::IsNull { key } => payload.any_whole(key, steps, &|found| found == "null"),
            Filter::IsEmpty { key } => {
                let filled = |found: &str| found != "null" && !is_empty_array(found);
                Ok(!payload.any_whole(key, steps, &filled)?)
            }
            Filter::HasId(ids) => Ok(ids.contains(id)),
            Filter::And(all) => {
                for filter in all {
                    if !filter.holds(id, payload, steps)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Filter::Or(any) => {
                for filter in any {
                    if filter.holds(id, payload, steps)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Filter::Not(filter) => Ok(!filter.holds(id, payload, steps)?),
        }
    }
}

#[cfg(test)]
mod tests;
