use serde_json::json;

use super::*;

fn matches(filter: Value, payload: Value) -> bool {
    let filter = Filter::parse(&filter, "filter").unwrap_or_else(|e| panic!("{e}"));
    filter.matches(payload.as_object().unwrap())
}

fn refused(filter: Value) -> String {
    Filter::parse(&filter, "filter").unwrap_err().to_string()
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
fn whole_numbers_beyond_what_f64_holds_are_told_apart() {
    let large = 9_007_199_254_740_993u64;
    assert!(matches(json!({ "n": large }), json!({ "n": large })));
    assert!(!matches(json!({ "n": large }), json!({ "n": large - 1 })));
    assert!(matches(json!({ "n": u64::MAX }), json!({ "n": u64::MAX })));
    assert!(!matches(
        json!({ "n": u64::MAX }),
        json!({ "n": u64::MAX - 1 })
    ));
    assert!(!matches(json!({ "n": -1 }), json!({ "n": u64::MAX })));
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
            json!({ "must": { "a": 1 } }),
            "filter.must: not a condition: expected one of equals, in",
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
