//! From the JSON of a request to a [`Filter`], bounded in its length, its depth, its conditions and its values before
//! memory is taken for them.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Bounds, Filter, FilterError, Values};
use crate::store::payload::{Number, Object, Scalar, scalar};

/// Longest text of a filter, in bytes.
const MAX_BYTES: usize = 16 << 20;
/// Filters may be nested this deep.
const MAX_DEPTH: usize = 32;
/// Conditions in a filter, all in all.
const MAX_CONDITIONS: usize = 4_096;
/// Values and ids in a filter, all in all.
const MAX_VALUES: usize = 262_144;

/// Conditions of which an object holds one, and nothing else.
const WORDS: [&str; 10] = [
    "equals", "in", "range", "exists", "and", "or", "not", "has_id", "is_empty", "is_null",
];
const CLAUSES: [&str; 3] = ["must", "should", "must_not"];
const EXPECTED: &str = "not a condition: expected one of equals, in, range, exists, and, or, not, has_id, is_empty, \
     is_null, must, should, must_not, or a key with a plain value, an array of them or operators such as $gte";

pub(super) fn parse(json: &str, path: &str) -> Result<Filter, FilterError> {
    if json.len() > MAX_BYTES {
        let message = format!("{} bytes long: at most {MAX_BYTES} are allowed", json.len());
        return Err(error(path, message));
    }
    let mut left = Left {
        conditions: MAX_CONDITIONS,
        plain: MAX_VALUES,
    };
    left.filter(json.trim(), path, MAX_DEPTH)
}

/// What the rest of a filter may hold.
struct Left {
    conditions: usize,
    plain: usize,
}

type Parsed = Result<Filter, FilterError>;

impl Left {
    fn filter(&mut self, json: &str, path: &str, depth: usize) -> Parsed {
        let object = object(
            json,
            path,
            "an object such as {\"equals\": {\"key\": \"lang\", \"value\": \"en\"}}",
        )?;
        if depth == 0 {
            return refuse(path, "nested too deep: at most 32 levels are allowed");
        }
        let has = |key: &str| object.entries.contains_key(key);
        let has_objects = || {
            object
                .entries
                .values()
                .any(|value| value.get().starts_with('{'))
        };
        let no_key = || {
            matches!(
                object.entries.get("key").map(|key| key.get()),
                None | Some("\"\"")
            )
        };
        if let Some(inner) = object.entries.get("filter")
            && inner.get().starts_with('{')
            && no_key()
            && object.entries.len() == 1 + usize::from(has("key"))
        {
            return self.filter(inner.get(), &format!("{path}.filter"), depth - 1);
        }
        if has("key") && has_objects() {
            return self.field(&object, path);
        }
        if CLAUSES.iter().any(|clause| has(clause)) {
            return self.clauses(&object, path, depth);
        }
        let word = WORDS.iter().find(|word| has(word));
        if let Some(word) = word {
            self.condition(path)?;
            if object.entries.len() > 1 {
                let message = "expected one condition per object; combine several with \"and\"";
                return refuse(path, message);
            }
            let path = format!("{path}.{word}");
            return self.word(word, object.entries[*word].get(), &path, depth);
        }
        self.condition(path)?;
        let mut all = Vec::new();
        for (key, value) in &object.entries {
            let (value, path) = (value.get(), format!("{path}.{key}"));
            all.push(match key.as_ref() {
                "$and" => Filter::And(self.filters(value, &path, depth)?),
                "$or" => Filter::Or(self.at_least_one(value, &path, depth)?),
                "$nor" => not(Filter::Or(self.at_least_one(value, &path, depth)?)),
                "$not" => not(self.filter(value, &path, depth - 1)?),
                "" => return refuse(&path, "expected the name of a payload key"),
                operator if operator.starts_with('$') => {
                    return refuse(
                        &path,
                        "unknown: expected $and, $or, $nor, $not, or a payload key",
                    );
                }
                key => self.short_form(key, value, &path, depth)?,
            });
        }
        Ok(match (all.pop(), all.len()) {
            (Some(only), 0) => only,
            (last, _) => {
                all.extend(last);
                Filter::And(all)
            }
        })
    }

    fn word(&mut self, word: &str, json: &str, path: &str, depth: usize) -> Parsed {
        match word {
            "and" => Ok(Filter::And(self.filters(json, path, depth)?)),
            "or" => Ok(Filter::Or(self.filters(json, path, depth)?)),
            "not" => Ok(not(self.filter(json, path, depth - 1)?)),
            "equals" => {
                let fields = fields(json, path, &["key", "value"])?;
                let Some(value) = fields.entries.get("value") else {
                    return refuse(path, "`value` is missing");
                };
                let key = key(&fields, path)?;
                self.equals(key, value.get(), &format!("{path}.value"))
            }
            "in" => {
                let fields = fields(json, path, &["key", "values"])?;
                let values = fields
                    .entries
                    .get("values")
                    .map_or("", |values| values.get());
                let key = key(&fields, path)?;
                self.one_of(key, values, &format!("{path}.values"))
            }
            "has_id" => self.has_id(json, path),
            "exists" => Ok(Filter::Exists {
                key: key(&fields(json, path, &["key"])?, path)?,
            }),
            "is_null" => Ok(Filter::IsNull {
                key: key(&fields(json, path, &["key"])?, path)?,
            }),
            "is_empty" => Ok(Filter::IsEmpty {
                key: key(&fields(json, path, &["key"])?, path)?,
            }),
            _ => {
                let fields = fields(json, path, &["key", "gt", "gte", "lt", "lte"])?;
                let key = key(&fields, path)?;
                range(key, &fields, path)
            }
        }
    }

    /// `{"key": …, "match": …, "range": …}`.
    fn field(&mut self, object: &Object<'_>, path: &str) -> Parsed {
        let key = key(object, path)?;
        let mut all = Vec::new();
        for (name, value) in &object.entries {
            let (json, path) = (value.get(), format!("{path}.{name}"));
            match name.as_ref() {
                "key" => {}
                // Clients may send what they leave out.
                _ if json == "null" => {}
                "match" => {
                    self.condition(&path)?;
                    let matched = fields(json, &path, &["value", "any"])?;
                    let (value, any) = (matched.entries.get("value"), matched.entries.get("any"));
                    all.push(match (value, any) {
                        (Some(value), None) => {
                            self.equals(key.clone(), value.get(), &format!("{path}.value"))?
                        }
                        (None, Some(any)) => {
                            self.one_of(key.clone(), any.get(), &format!("{path}.any"))?
                        }
                        (Some(_), Some(_)) | (None, None) => {
                            return refuse(&path, "expected either value or any");
                        }
                    });
                }
                "range" => {
                    self.condition(&path)?;
                    let fields = fields(json, &path, &["gt", "gte", "lt", "lte"])?;
                    all.push(range(key.clone(), &fields, &path)?);
                }
                _ => return refuse(&path, "unknown: expected key, match, range"),
            }
        }
        match (all.pop(), all.pop()) {
            (Some(last), Some(first)) => Ok(Filter::And(vec![first, last])),
            (Some(only), None) => Ok(only),
            (None, _) => refuse(path, "expected match or range beside key"),
        }
    }

    /// `{"must": …, "should": …, "must_not": …}`.
    fn clauses(&mut self, object: &Object<'_>, path: &str, depth: usize) -> Parsed {
        self.condition(path)?;
        let mut all = Vec::new();
        for (clause, value) in &object.entries {
            let (json, path) = (value.get(), format!("{path}.{clause}"));
            if json == "null" {
                continue;
            }
            if !CLAUSES.contains(&clause.as_ref()) {
                return refuse(&path, "unknown: expected must, should, must_not");
            }
            let inner = if json.starts_with('{') {
                vec![self.filter(json, &path, depth - 1)?]
            } else {
                self.filters(json, &path, depth)?
            };
            match clause.as_ref() {
                "must" => all.push(Filter::And(inner)),
                "should" if inner.is_empty() => {
                    return refuse(&path, "is empty: expected at least one condition");
                }
                "should" => all.push(Filter::Or(inner)),
                _ => all.push(not(Filter::Or(inner))),
            }
        }
        Ok(Filter::And(all))
    }

    /// `{"lang": "en"}`, `{"lang": ["en", "de"]}`, `{"year": {"$gte": 2000}}`.
    fn short_form(&mut self, key: &str, json: &str, path: &str, depth: usize) -> Parsed {
        self.condition(path)?;
        let key = key.to_owned();
        match json.as_bytes().first() {
            Some(b'[') => {
                let values = self.values(json, path)?;
                if values == Values::default() {
                    return refuse(path, "is empty: expected at least one value");
                }
                Ok(Filter::In { key, values })
            }
            Some(b'{') => self.operators(&key, json, path, depth),
            Some(_) | None => self.equals(key, json, path),
        }
    }

    fn operators(&mut self, key: &str, json: &str, path: &str, depth: usize) -> Parsed {
        let operators = object(json, path, "operators")?;
        if depth == 0 {
            return refuse(path, "nested too deep: at most 32 levels are allowed");
        }
        let mut all = Vec::new();
        for (operator, value) in &operators.entries {
            let (json, inner) = (value.get(), format!("{path}.{operator}"));
            let key = key.to_owned();
            self.condition(&inner)?;
            let mut bounds = Bounds::default();
            all.push(match operator.as_ref() {
                "$eq" => self.equals(key, json, &inner)?,
                "$ne" => not(self.equals(key, json, &inner)?),
                "$in" => self.one_of(key, json, &inner)?,
                "$nin" => not(self.one_of(key, json, &inner)?),
                "$not" => not(self.operators(&key, json, &inner, depth - 1)?),
                "$exists" => match json {
                    "true" => Filter::Exists { key },
                    "false" => not(Filter::Exists { key }),
                    _ => return refuse(&inner, "expected true or false"),
                },
                bound => {
                    let bound = match bound.strip_prefix('$').unwrap_or(bound) {
                        "gt" => &mut bounds.gt,
                        "gte" => &mut bounds.gte,
                        "lt" => &mut bounds.lt,
                        "lte" => &mut bounds.lte,
                        _ if bound.starts_with('$') => {
                            let message = "unknown: expected $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $not";
                            return refuse(&inner, message);
                        }
                        // Most likely a misspelt word, which must not turn into a condition that nothing matches.
                        _ => return refuse(path, EXPECTED),
                    };
                    *bound = Some(number(json, &inner)?);
                    Filter::Range { key, bounds }
                }
            });
        }
        if all.is_empty() {
            return refuse(path, EXPECTED);
        }
        Ok(Filter::And(all))
    }

    /// The conditions of an array.
    fn filters(
        &mut self,
        json: &str,
        path: &str,
        depth: usize,
    ) -> Result<Vec<Filter>, FilterError> {
        let items = array(json, path, "an array of conditions")?;
        if items.len() > self.conditions {
            return Err(too_many(path));
        }
        let items = items.into_iter().enumerate();
        items
            .map(|(at, item)| self.filter(item.get(), &format!("{path}[{at}]"), depth - 1))
            .collect()
    }

    fn at_least_one(
        &mut self,
        json: &str,
        path: &str,
        depth: usize,
    ) -> Result<Vec<Filter>, FilterError> {
        let filters = self.filters(json, path, depth)?;
        if filters.is_empty() {
            return Err(error(path, "is empty: expected at least one condition"));
        }
        Ok(filters)
    }

    fn equals(&mut self, key: String, json: &str, path: &str) -> Parsed {
        let mut values = Values::default();
        values.insert(self.value(json, path)?);
        Ok(Filter::In { key, values })
    }

    fn one_of(&mut self, key: String, json: &str, path: &str) -> Parsed {
        let values = self.values(json, path)?;
        Ok(Filter::In { key, values })
    }

    /// The plain values of an array.
    fn values(&mut self, json: &str, path: &str) -> Result<Values, FilterError> {
        let mut values = Values::default();
        for (at, item) in array(json, path, "an array")?.into_iter().enumerate() {
            let item = item.get();
            // The place is made only where it is told.
            let value = self.value(item, path);
            let value = value.map_err(|e| error(&format!("{path}[{at}]"), e.message))?;
            values.insert(value);
        }
        Ok(values)
    }

    fn has_id(&mut self, json: &str, path: &str) -> Parsed {
        let mut ids = HashSet::new();
        for (at, item) in array(json, path, "an array of ids")?
            .into_iter()
            .enumerate()
        {
            let item = item.get();
            let id = match self.value(item, path)? {
                Scalar::Text(id) => id.into(),
                // Ids that are numbers elsewhere are texts of digits here.
                Scalar::Number(_) if item.bytes().all(|b| b.is_ascii_digit()) => item.into(),
                Scalar::Number(_) | Scalar::Null | Scalar::Bool(_) => {
                    let message = "expected an id: a text or a whole number";
                    return refuse(&format!("{path}[{at}]"), message);
                }
            };
            ids.insert(id);
        }
        Ok(Filter::HasId(ids))
    }

    fn value<'a>(&mut self, json: &'a str, path: &str) -> Result<Scalar<'a>, FilterError> {
        self.plain = self.plain.checked_sub(1).ok_or_else(|| {
            error(
                path,
                format!("too many values: at most {MAX_VALUES} are allowed"),
            )
        })?;
        scalar(json).ok_or_else(|| {
            error(
                path,
                "expected a text, a number, true, false or null; for one of several, use \"in\"",
            )
        })
    }

    fn condition(&mut self, path: &str) -> Result<(), FilterError> {
        self.conditions = self
            .conditions
            .checked_sub(1)
            .ok_or_else(|| too_many(path))?;
        Ok(())
    }
}

fn range(key: String, fields: &Object<'_>, path: &str) -> Parsed {
    let bound = |name: &str| match fields.entries.get(name).map(|value| value.get()) {
        None | Some("null") => Ok(None),
        Some(json) => number(json, &format!("{path}.{name}")).map(Some),
    };
    let bounds = Bounds {
        gt: bound("gt")?,
        gte: bound("gte")?,
        lt: bound("lt")?,
        lte: bound("lte")?,
    };
    if bounds == Bounds::default() {
        return refuse(path, "expected at least one of gt, gte, lt, lte");
    }
    Ok(Filter::Range { key, bounds })
}

fn number(json: &str, path: &str) -> Result<Number, FilterError> {
    match scalar(json) {
        Some(Scalar::Number(number)) => Ok(number),
        Some(Scalar::Null | Scalar::Bool(_) | Scalar::Text(_)) | None => {
            Err(error(path, "expected a number"))
        }
    }
}

/// An object with these keys and no others.
fn fields<'a>(json: &'a str, path: &str, allowed: &[&str]) -> Result<Object<'a>, FilterError> {
    let expected = allowed.join(", ");
    let fields = object(json, path, &format!("an object with {expected}"))?;
    let unknown = fields
        .entries
        .keys()
        .find(|key| !allowed.contains(&key.as_ref()));
    match unknown {
        Some(unknown) => {
            let message = format!("unknown: expected {expected}");
            Err(error(&format!("{path}.{unknown}"), message))
        }
        None => Ok(fields),
    }
}

fn key(fields: &Object<'_>, path: &str) -> Result<String, FilterError> {
    match fields.entries.get("key").map(|key| scalar(key.get())) {
        Some(Some(Scalar::Text(key))) if !key.is_empty() => Ok(key.into_owned()),
        Some(_) | None => Err(error(
            &format!("{path}.key"),
            "expected the name of a payload key",
        )),
    }
}

fn object<'a>(json: &'a str, path: &str, expected: &str) -> Result<Object<'a>, FilterError> {
    if !json.starts_with('{') {
        return Err(error(path, format!("expected {expected}")));
    }
    let object: Object<'a> = serde_json::from_str(json).map_err(|e| error(path, e.to_string()))?;
    if let Some(twice) = &object.twice {
        return Err(error(&format!("{path}.{twice}"), "is there twice"));
    }
    if object.entries.len() > MAX_CONDITIONS {
        return Err(too_many(path));
    }
    Ok(object)
}

fn array<'a>(json: &'a str, path: &str, expected: &str) -> Result<Vec<&'a RawValue>, FilterError> {
    if !json.starts_with('[') {
        return Err(error(path, format!("expected {expected}")));
    }
    let items: Items<'a> = serde_json::from_str(json).map_err(|e| error(path, e.to_string()))?;
    Ok(items.0)
}

/// The items of an array, no more than a filter may hold.
struct Items<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Items<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Bounded;

        impl<'de> Visitor<'de> for Bounded {
            type Value = Items<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Items<'de>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = from.next_element()? {
                    if items.len() == MAX_VALUES {
                        return Err(A::Error::custom(format_args!(
                            "too many items: at most {MAX_VALUES} are allowed"
                        )));
                    }
                    items.push(item);
                }
                Ok(Items(items))
            }
        }

        from.deserialize_seq(Bounded)
    }
}

fn not(filter: Filter) -> Filter {
    Filter::Not(Box::new(filter))
}

fn too_many(path: &str) -> FilterError {
    let message = format!("too many conditions: at most {MAX_CONDITIONS} are allowed");
    error(path, message)
}

fn refuse(path: &str, message: &str) -> Parsed {
    Err(error(path, message))
}

fn error(path: &str, message: impl Into<String>) -> FilterError {
    FilterError {
        path: path.to_owned(),
        message: message.into(),
    }
}
