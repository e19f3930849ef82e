//! Conditions on payloads, asked inside the search.
//!
//! | JSON | matches when |
//! |---|---|
//! | `{"equals": {"key": K, "value": V}}` | the value at K is V |
//! | `{"in": {"key": K, "values": [V, …]}}` | the value at K is one of these |
//! | `{"range": {"key": K, "gt", "gte", "lt", "lte": number}}` | the value at K is a number within all bounds given |
//! | `{"exists": {"key": K}}` | there is a value at K, other than null |
//! | `{"and": [F, …]}`, `{"or": [F, …]}`, `{"not": F}` | all, any, or not |
//! | `{"K": V, …}` | short for `and` of `equals`, with keys other than these words |
//!
//! K is a path: `author.name` looks into objects; a key that itself holds dots is found first. Where the value is an
//! array, one of its elements has to match. Numbers are equal when their values are (1 and 1.0).

use serde_json::{Map, Number, Value};

/// Filters may be nested this deep.
const MAX_DEPTH: usize = 32;
/// Conditions in a filter, all in all.
const MAX_CONDITIONS: usize = 4_096;
const WORDS: [&str; 7] = ["equals", "in", "range", "exists", "and", "or", "not"];

/// A condition on a payload.
#[derive(Clone, PartialEq, Debug)]
pub enum Filter {
    /// The value at a key is this.
    Equals {
        /// Path of the key.
        key: String,
        /// The value.
        value: Value,
    },
    /// The value at a key is one of these.
    In {
        /// Path of the key.
        key: String,
        /// The values.
        values: Vec<Value>,
    },
    /// The value at a key is a number within bounds.
    Range {
        /// Path of the key.
        key: String,
        /// Each is missing or finite.
        bounds: Bounds,
    },
    /// There is a value at a key.
    Exists {
        /// Path of the key.
        key: String,
    },
    /// All match.
    And(Vec<Filter>),
    /// At least one matches.
    Or(Vec<Filter>),
    /// It does not match.
    Not(Box<Filter>),
}

/// Bounds of a range.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Bounds {
    /// Greater than.
    pub gt: Option<f64>,
    /// Greater or equal.
    pub gte: Option<f64>,
    /// Less than.
    pub lt: Option<f64>,
    /// Less or equal.
    pub lte: Option<f64>,
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
    /// Reads a filter from JSON; errors name places below `path`.
    pub fn parse(value: &Value, path: &str) -> Result<Filter, FilterError> {
        let mut left = MAX_CONDITIONS;
        parse(value, path, MAX_DEPTH, &mut left)
    }

    /// Whether a payload matches.
    pub fn matches(&self, payload: &Map<String, Value>) -> bool {
        match self {
            Filter::Equals { key, value } => any(payload, key, &|found| same(found, value)),
            Filter::In { key, values } => any(payload, key, &|found| {
                values.iter().any(|value| same(found, value))
            }),
            Filter::Range { key, bounds } => any(payload, key, &|found| {
                found.as_f64().is_some_and(|number| bounds.hold(number))
            }),
            Filter::Exists { key } => find(payload, key).is_some_and(|found| !found.is_null()),
            Filter::And(all) => all.iter().all(|filter| filter.matches(payload)),
            Filter::Or(any) => any.iter().any(|filter| filter.matches(payload)),
            Filter::Not(filter) => !filter.matches(payload),
        }
    }

    /// Whether a payload that is still JSON text matches; what is no object matches nothing.
    pub(super) fn matches_bytes(&self, payload: &[u8]) -> bool {
        serde_json::from_slice(payload).is_ok_and(|payload| self.matches(&payload))
    }
}

impl Bounds {
    fn hold(&self, number: f64) -> bool {
        self.gt.is_none_or(|bound| number > bound)
            && self.gte.is_none_or(|bound| number >= bound)
            && self.lt.is_none_or(|bound| number < bound)
            && self.lte.is_none_or(|bound| number <= bound)
    }
}

fn find<'a>(payload: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = payload.get(path) {
        return Some(value);
    }
    // The longest first part that is a key with an object behind it and the rest in it.
    path.char_indices()
        .rev()
        .filter(|(_, c)| *c == '.')
        .find_map(|(at, _)| match payload.get(&path[..at]) {
            Some(Value::Object(inner)) => find(inner, &path[at + 1..]),
            Some(_) | None => None,
        })
}

/// Whether the value at a path, or an element of the array there, fulfils a test.
fn any(payload: &Map<String, Value>, path: &str, test: &dyn Fn(&Value) -> bool) -> bool {
    match find(payload, path) {
        Some(Value::Array(elements)) => elements.iter().any(test),
        Some(value) => test(value),
        None => false,
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (a, b) => a == b,
    }
}

fn same_number(a: &Number, b: &Number) -> bool {
    // Whole numbers beyond 2^53 are told apart although they are the same as f64.
    match (a.as_i64(), b.as_i64(), a.as_u64(), b.as_u64()) {
        (Some(a), Some(b), _, _) => a == b,
        (_, _, Some(a), Some(b)) => a == b,
        (_, _, _, _) => a.as_f64() == b.as_f64(),
    }
}

fn parse(value: &Value, path: &str, depth: usize, left: &mut usize) -> Result<Filter, FilterError> {
    let refuse = |message: &str| Err(error(path, message));
    let Some(object) = value.as_object() else {
        return refuse(
            "expected an object such as {\"equals\": {\"key\": \"lang\", \"value\": \"en\"}}",
        );
    };
    if depth == 0 {
        return refuse("nested too deep: at most 32 levels are allowed");
    }
    if *left == 0 {
        return refuse("too many conditions: at most 4096 are allowed");
    }
    *left -= 1;
    let word = object.iter().find(|(key, _)| WORDS.contains(&key.as_str()));
    let Some((word, inner)) = word else {
        return short_form(object, path, left);
    };
    if object.len() > 1 {
        return refuse("expected one condition per object; combine several with \"and\"");
    }
    let path = format!("{path}.{word}");
    let mut list = |inner: &Value| -> Result<Vec<Filter>, FilterError> {
        let Some(inner) = inner.as_array() else {
            return Err(error(&path, "expected an array of conditions"));
        };
        let inner = inner.iter().enumerate();
        inner
            .map(|(at, value)| parse(value, &format!("{path}[{at}]"), depth - 1, left))
            .collect()
    };
    match word.as_str() {
        "and" => Ok(Filter::And(list(inner)?)),
        "or" => Ok(Filter::Or(list(inner)?)),
        "not" => Ok(Filter::Not(Box::new(parse(inner, &path, depth - 1, left)?))),
        "equals" => {
            let fields = fields(inner, &path, &["key", "value"])?;
            let value = fields.get("value");
            let value = value.ok_or_else(|| error(&path, "`value` is missing"))?;
            Ok(Filter::Equals {
                key: key(fields, &path)?,
                value: value.clone(),
            })
        }
        "in" => {
            let fields = fields(inner, &path, &["key", "values"])?;
            let values = fields.get("values").and_then(Value::as_array);
            let values =
                values.ok_or_else(|| error(&format!("{path}.values"), "expected an array"))?;
            Ok(Filter::In {
                key: key(fields, &path)?,
                values: values.clone(),
            })
        }
        "exists" => Ok(Filter::Exists {
            key: key(fields(inner, &path, &["key"])?, &path)?,
        }),
        _ => range(inner, &path),
    }
}

fn range(inner: &Value, path: &str) -> Result<Filter, FilterError> {
    let fields = fields(inner, path, &["key", "gt", "gte", "lt", "lte"])?;
    let bound = |name: &str| match fields.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) => Ok(Some(number)),
            None => Err(error(&format!("{path}.{name}"), "expected a number")),
        },
    };
    let bounds = Bounds {
        gt: bound("gt")?,
        gte: bound("gte")?,
        lt: bound("lt")?,
        lte: bound("lte")?,
    };
    if bounds == Bounds::default() {
        return Err(error(path, "expected at least one of gt, gte, lt, lte"));
    }
    Ok(Filter::Range {
        key: key(fields, path)?,
        bounds,
    })
}

/// `{"lang": "en", "year": 2024}`.
fn short_form(
    object: &Map<String, Value>,
    path: &str,
    left: &mut usize,
) -> Result<Filter, FilterError> {
    if object.len() > *left {
        return Err(error(path, "too many conditions: at most 4096 are allowed"));
    }
    *left -= object.len();
    let conditions = object.iter().map(|(key, value)| {
        if value.is_object() {
            // Most likely a misspelt word, which must not turn into a condition that nothing matches.
            let expected = WORDS.join(", ");
            return Err(error(
                &format!("{path}.{key}"),
                &format!(
                    "not a condition: expected one of {expected}, or a key with a plain value"
                ),
            ));
        }
        Ok(Filter::Equals {
            key: key.clone(),
            value: value.clone(),
        })
    });
    Ok(Filter::And(conditions.collect::<Result<_, _>>()?))
}

fn fields<'a>(
    inner: &'a Value,
    path: &str,
    allowed: &[&str],
) -> Result<&'a Map<String, Value>, FilterError> {
    let expected = allowed.join(", ");
    let Some(fields) = inner.as_object() else {
        return Err(error(path, &format!("expected an object with {expected}")));
    };
    match fields.keys().find(|key| !allowed.contains(&key.as_str())) {
        Some(unknown) => Err(error(
            &format!("{path}.{unknown}"),
            &format!("unknown: expected {expected}"),
        )),
        None => Ok(fields),
    }
}

fn key(fields: &Map<String, Value>, path: &str) -> Result<String, FilterError> {
    match fields.get("key").and_then(Value::as_str) {
        Some(key) if !key.is_empty() => Ok(key.to_owned()),
        Some(_) | None => Err(error(
            &format!("{path}.key"),
            "expected the name of a payload key",
        )),
    }
}

fn error(path: &str, message: &str) -> FilterError {
    FilterError {
        path: path.to_owned(),
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests;
