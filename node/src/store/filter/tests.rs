use serde_json::{Value, json};

use super::*;
use crate::store::{AtLook, Never};

fn matches(filter: Value, payload: Value) -> bool {
    text_matches(&filter.to_string(), &payload.to_string())
}

fn text_matches(filter: &str, payload: &str) -> bool {
    let filter = Filter::parse(filter, "filter").unwrap_or_else(|e| panic!("{e}"));
    filter
        .matches("book-7", payload.as_bytes(), &Never)
        .unwrap()
}

fn refused(filter: Value) -> String {
    let refused = Filter::parse(&filter.to_string(), "filter");
    refused.unwrap_err().to_string()
}

fn book() -> Value {
    json!({
        "lang": "en", "year": 1999, "price": 12.5, "tags": ["a", "b"], "out": null, "sold": true,
        "author": { "name": "Ann", "born": { "year": 1960 } }, "dotted.key": 1
    })
}

#[test]
fn conditions_match_what_they_say() {
    for (filter, expected) in [
        (json!({ "equals": { "key": "lang", "value": "en" } }), true),
        (json!({ "equals": { "key": "lang", "value": "EN" } }), false),
        (
            json!({ "equals": { "key": "year", "value": 1999.0 } }),
            true,
        ),
        (
            json!({ "equals": { "key": "year", "value": "1999" } }),
            false,
        ),
        (json!({ "equals": { "key": "sold", "value": true } }), true),
        (json!({ "equals": { "key": "out", "value": null } }), true),
        (json!({ "equals": { "key": "none", "value": null } }), false),
        (json!({ "equals": { "key": "tags", "value": "b" } }), true),
        (
            json!({ "equals": { "key": "author.name", "value": "Ann" } }),
            true,
        ),
        (
            json!({ "equals": { "key": "author.born.year", "value": 1960 } }),
            true,
        ),
        (
            json!({ "equals": { "key": "dotted.key", "value": 1 } }),
            true,
        ),
        (
            json!({ "in": { "key": "lang", "values": ["de", "en"] } }),
            true,
        ),
        (
            json!({ "in": { "key": "tags", "values": ["x", "a"] } }),
            true,
        ),
        (json!({ "in": { "key": "lang", "values": [] } }), false),
        (
            json!({ "range": { "key": "year", "gte": 1999, "lt": 2000 } }),
            true,
        ),
        (json!({ "range": { "key": "year", "gt": 1999 } }), false),
        (json!({ "range": { "key": "price", "lte": 12.5 } }), true),
        (json!({ "range": { "key": "lang", "gt": 0 } }), false),
        (json!({ "exists": { "key": "price" } }), true),
        (json!({ "exists": { "key": "out" } }), false),
        (json!({ "exists": { "key": "none" } }), false),
        (json!({ "and": [] }), true),
        (json!({ "or": [] }), false),
        (json!({ "not": { "exists": { "key": "none" } } }), true),
        (
            json!({ "and": [{ "lang": "en" }, { "not": { "year": 2000 } }] }),
            true,
        ),
        (json!({ "or": [{ "lang": "de" }, { "year": 2000 }] }), false),
        (json!({ "lang": "en", "year": 1999 }), true),
        (json!({ "lang": "en", "year": 2000 }), false),
        (json!({}), true),
    ] {
        assert_eq!(matches(filter.clone(), book()), expected, "{filter}");
    }
}

#[test]
fn filters_of_other_clients_match_what_they_say_there() {
    for (filter, expected) in [
        (
            json!({ "must": [{ "key": "lang", "match": { "value": "en" } }] }),
            true,
        ),
        (
            json!({ "must": [{ "key": "lang", "match": { "value": "de" } }] }),
            false,
        ),
        (
            json!({ "must": { "key": "lang", "match": { "value": "en" } } }),
            true,
        ),
        (
            json!({ "must": [{ "key": "lang", "match": { "any": ["de", "en"] } }] }),
            true,
        ),
        (
            json!({ "must": [{ "key": "tags", "match": { "any": ["x"] } }] }),
            false,
        ),
        (
            json!({ "must": [{ "key": "year", "range": { "gte": 1999, "lt": null } }] }),
            true,
        ),
        (
            json!({ "must": [{ "key": "year", "match": null, "range": { "gt": 1999 }, "geo_radius": null }] }),
            false,
        ),
        (json!({ "key": "sold", "match": { "value": true } }), true),
        (
            json!({ "should": [{ "lang": "de" }, { "key": "year", "match": { "value": 1999 } }] }),
            true,
        ),
        (
            json!({ "should": [{ "lang": "de" }, { "lang": "fr" }] }),
            false,
        ),
        (
            json!({ "must_not": [{ "lang": "de" }, { "lang": "fr" }] }),
            true,
        ),
        (
            json!({ "must_not": [{ "lang": "de" }, { "lang": "en" }] }),
            false,
        ),
        (
            json!({ "must": [{ "lang": "en" }], "should": [{ "year": 1 }], "must_not": null }),
            false,
        ),
        (
            json!({ "must": [{ "should": [{ "lang": "en" }], "must_not": [{ "sold": false }] }] }),
            true,
        ),
        (json!({ "must": [] }), true),
        (
            json!({ "must": [{ "key": "", "filter": { "should": [{ "lang": "en" }] } }] }),
            true,
        ),
        (
            json!({ "must": [{ "filter": { "must_not": [{ "lang": "en" }] } }] }),
            false,
        ),
        (json!({ "must": [{ "has_id": ["book-7", 8] }] }), true),
        (json!({ "has_id": [7] }), false),
        (json!({ "is_null": { "key": "out" } }), true),
        (json!({ "is_null": { "key": "none" } }), false),
        (json!({ "is_empty": { "key": "out" } }), true),
        (json!({ "is_empty": { "key": "none" } }), true),
        (json!({ "is_empty": { "key": "no_tags" } }), true),
        (json!({ "is_empty": { "key": "tags" } }), false),
        (
            json!({ "$and": [{ "lang": "en" }, { "year": 1999 }] }),
            true,
        ),
        (json!({ "$or": [{ "lang": "de" }, { "year": 1999 }] }), true),
        (
            json!({ "$nor": [{ "lang": "de" }, { "year": 1999 }] }),
            false,
        ),
        (json!({ "$not": { "lang": "de" } }), true),
        (json!({ "lang": { "$eq": "en" } }), true),
        (json!({ "lang": { "$ne": "en" } }), false),
        (json!({ "none": { "$ne": "en" } }), true),
        (json!({ "lang": { "$in": ["en", "de"] } }), true),
        (json!({ "lang": { "$nin": ["en", "de"] } }), false),
        (json!({ "year": { "$gte": 1999, "$lt": 2000 } }), true),
        (json!({ "year": { "$gt": 1999 } }), false),
        (json!({ "year": { "gte": 1999, "lte": 1999 } }), true),
        (json!({ "none": { "$exists": false } }), true),
        (json!({ "lang": { "$exists": false } }), false),
        (json!({ "year": { "$not": { "$gt": 1999 } } }), true),
        (
            json!({ "lang": "en", "$or": [{ "year": 1 }, { "year": 2 }] }),
            false,
        ),
        (json!({ "lang": ["en", "de"] }), true),
        (json!({ "lang": ["fr", "de"] }), false),
        (json!({ "lang": ["fr", "en"], "year": [1999] }), true),
        (
            json!({ "must": [{ "key": "parts[].no", "match": { "value": 2 } }] }),
            true,
        ),
        (json!({ "parts.no": 2 }), true),
        (json!({ "parts.no": 3 }), false),
    ] {
        let mut book = book();
        book["no_tags"] = json!([]);
        book["parts"] = json!([{ "no": 1 }, { "no": 2 }, 7]);
        assert_eq!(matches(filter.clone(), book), expected, "{filter}");
    }
}

#[test]
fn what_no_vector_would_meet_by_mistake_is_refused_with_its_place() {
    for (filter, says) in [
        (
            json!({ "must": [{ "key": "a", "match": { "text": "b" } }] }),
            "filter.must[0].match.text: unknown: expected value, any",
        ),
        (
            json!({ "must": [{ "key": "a", "match": {} }] }),
            "filter.must[0].match: expected either value or any",
        ),
        (
            json!({ "must": [{ "key": "a", "values_count": { "gt": 1 } }] }),
            "filter.must[0].values_count: unknown: expected key, match, range",
        ),
        (
            json!({ "must": [{ "match": { "value": 1 } }] }),
            "filter.must[0].match: not a condition",
        ),
        (json!({ "must": "a" }), "filter.must: expected an array"),
        (
            json!({ "must": [{ "a": 1 }], "shuold": [{ "a": 1 }] }),
            "filter.shuold: unknown: expected must, should, must_not",
        ),
        (json!({ "should": [] }), "filter.should: is empty"),
        (json!({ "$or": [] }), "filter.$or: is empty"),
        (json!({ "lang": [] }), "filter.lang: is empty"),
        (
            json!({ "lang": ["en", ["de"]] }),
            "filter.lang[1]: expected a text, a number",
        ),
        (
            json!({ "equals": { "key": "a", "value": { "b": 1 } } }),
            "filter.equals.value: expected a text, a number",
        ),
        (json!({ "$xor": [] }), "filter.$xor: unknown: expected $and"),
        (
            json!({ "a": { "$regex": "x" } }),
            "filter.a.$regex: unknown: expected $eq",
        ),
        (
            json!({ "a": { "$gt": "2020" } }),
            "filter.a.$gt: expected a number",
        ),
        (json!({ "a": { "b": 1 } }), "filter.a: not a condition"),
        (json!({ "a": {} }), "filter.a: not a condition"),
        (
            json!({ "has_id": [1.5] }),
            "filter.has_id[0]: expected an id",
        ),
        (
            json!({ "has_id": [-1] }),
            "filter.has_id[0]: expected an id",
        ),
        (json!({ "": 1 }), "filter.: expected the name"),
    ] {
        let error = refused(filter.clone());
        assert!(error.starts_with(says), "{filter}: {error}");
    }
    let twice = Filter::parse(r#"{"a": 1, "a": 2}"#, "filter").unwrap_err();
    assert_eq!(twice.to_string(), "filter.a: is there twice");
    assert!(Filter::parse(r#"{"a": 1"#, "filter").is_err());
    assert!(Filter::parse(r#"{"a": 1} x"#, "filter").is_err());
}

#[test]
fn numbers_are_compared_by_their_exact_values() {
    let stamp = "1768907445451174112";
    for (filter, payload, expected) in [
        (r#"{"n": {"$gt": 1768907445451174112}}"#, stamp, false),
        (r#"{"n": {"$gte": 1768907445451174112}}"#, stamp, true),
        (r#"{"n": {"$gte": 1768907445451174113}}"#, stamp, false),
        (r#"{"n": {"$lt": 1768907445451174113}}"#, stamp, true),
        (r#"{"n": {"$gt": 1768907445451174111.5}}"#, stamp, true),
        (r#"{"n": {"$lt": 1768907445451174112.5}}"#, stamp, true),
        (r#"{"n": 1768907445451174112.0}"#, stamp, true),
        (r#"{"n": 9007199254740993}"#, "9007199254740992", false),
        (
            r#"{"n": 18446744073709551616}"#,
            "18446744073709551615",
            false,
        ),
        (
            r#"{"n": 18446744073709551616}"#,
            "18446744073709551616",
            true,
        ),
        (r#"{"n": -1}"#, "18446744073709551615", false),
        (r#"{"n": 0.1}"#, "0.10", true),
        (r#"{"n": 1e2}"#, "100", true),
        (r#"{"n": {"$lt": 0}}"#, "-0.0", false),
    ] {
        let payload = format!(r#"{{"n": {payload}}}"#);
        assert_eq!(
            text_matches(filter, &payload),
            expected,
            "{filter} {payload}"
        );
    }
}

#[test]
fn many_values_are_asked_at_the_price_of_one() {
    let values: Vec<String> = (0..100_000).map(|n| format!("value-{n}")).collect();
    let filter = json!({ "in": { "key": "v", "values": values } }).to_string();
    let filter = Filter::parse(&filter, "filter").unwrap();
    let begun = std::time::Instant::now();
    for n in 0..100_000 {
        let payload = format!(r#"{{"v": "value-{}"}}"#, n * 2);
        let found = filter.matches("", payload.as_bytes(), &Never).unwrap();
        assert_eq!(found, n < 50_000);
    }
    // One after the other these are 7,500,000,000 comparisons: minutes.
    assert!(begun.elapsed().as_secs() < 60);
    let ids: Vec<u32> = (0..300_000).collect();
    let error = refused(json!({ "has_id": ids }));
    assert!(error.contains("too many items"), "{error}");
}

#[test]
fn a_filter_that_nobody_waits_for_is_given_up_inside_one_payload() {
    let payload = format!(r#"{{"a": [{}1]}}"#, "2,".repeat(1_000_000));
    let filter = Filter::parse(r#"{"or": [{"a": 3}, {"a": 4}, {"a": 5}]}"#, "filter").unwrap();
    let looks = AtLook::new(50);
    assert!(filter.matches("", payload.as_bytes(), &looks).is_err());
    assert!(!filter.matches("", payload.as_bytes(), &Never).unwrap());
}

#[test]
fn errors_name_the_place_and_what_would_be_right() {
    for (filter, says) in [
        (json!("x"), "filter: expected an object"),
        (json!({ "and": {} }), "filter.and: expected an array"),
        (
            json!({ "and": [{}, 1] }),
            "filter.and[1]: expected an object",
        ),
        (
            json!({ "and": [{ "range": { "key": "a" } }] }),
            "filter.and[0].range: expected at least one of",
        ),
        (
            json!({ "range": { "key": "a", "gt": "1" } }),
            "filter.range.gt: expected a number",
        ),
        (
            json!({ "range": { "key": "a", "above": 1 } }),
            "filter.range.above: unknown: expected key, gt",
        ),
        (
            json!({ "equals": { "key": "a" } }),
            "filter.equals: `value` is missing",
        ),
        (
            json!({ "equals": { "value": 1 } }),
            "filter.equals.key: expected the name",
        ),
        (
            json!({ "in": { "key": "a", "values": 1 } }),
            "filter.in.values: expected an array",
        ),
        (
            json!({ "exists": "a" }),
            "filter.exists: expected an object with key",
        ),
        (
            json!({ "a": { "b": 1 } }),
            "filter.a: not a condition: expected one of equals, in",
        ),
        (
            json!({ "not": {}, "and": [] }),
            "filter: expected one condition per object",
        ),
    ] {
        let error = refused(filter.clone());
        assert!(error.starts_with(says), "{filter}: {error}");
    }
}

#[test]
fn deep_and_huge_filters_are_refused() {
    let mut deep = json!({});
    for _ in 0..32 {
        deep = json!({ "not": deep });
    }
    assert!(refused(deep).contains("nested too deep"));
    let wide: Vec<Value> = (0..5_000).map(|n| json!({ "n": n })).collect();
    assert!(refused(json!({ "or": wide })).contains("too many conditions"));
}
