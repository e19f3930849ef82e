use serde_json::json;
use vectorizer_api::FAILED_HEADER;

use super::*;
use crate::http::endpoint::Kind;

/// Sends each body to each path and checks the refusal: its code, the path of the bad value, a part of the message, and
/// that nothing was changed.
async fn refused(node: &Node, cases: &[(&str, &str, &str, &str)]) {
    let before = node.end();
    for (path, body, place, part) in cases {
        let error = node.post(path, body.to_string()).await.error();
        assert_eq!(
            error.error_type,
            ErrorCode::InvalidRequest,
            "{body}: {error}"
        );
        assert!(error.message.contains(part), "{path} {body}: {error}");
        let details = error.details.clone().unwrap_or_default();
        assert_eq!(details["path"], *place, "{path} {body}: {error}");
    }
    assert_eq!(node.end(), before, "something was written");
}

#[tokio::test]
async fn every_bad_body_is_refused_with_the_place_of_the_bad_value() {
    let node = Node::with_collection().await;
    refused(
        &node,
        &[
            ("/collections", "", "name", "missing field `name`"),
            ("/collections", "{}", "name", "missing field `name`"),
            ("/collections", "[\"x\", 2]", "body", "expected a JSON object"),
            ("/collections", "null", "body", "expected a JSON object"),
            ("/collections", "{\"name\": ", "name", "EOF"),
            ("/collections", r#"{"name": "x"}"#, "dimension", "is missing"),
            ("/collections", r#"{"name": "x", "dimension": 0}"#, "dimension", "1..=65536"),
            ("/collections", r#"{"name": "x", "dimension": -1}"#, "dimension", "invalid value"),
            ("/collections", r#"{"name": "x", "dimension": 1.5}"#, "dimension", "floating point"),
            ("/collections", r#"{"name": "x", "dimension": "2"}"#, "dimension", "string"),
            ("/collections", r#"{"name": "a/b", "dimension": 2}"#, "name", "A-Z a-z 0-9"),
            ("/collections", r#"{"name": "", "dimension": 2}"#, "name", "is no name"),
            (
                "/collections",
                r#"{"name": "x", "dimension": 2, "metric": "manhattan"}"#,
                "metric",
                "expected cosine, euclidean or dotproduct",
            ),
            (
                "/collections",
                r#"{"name": "x", "dimension": 2, "metric": "cosine", "similarity_metric": "euclidean"}"#,
                "similarity_metric",
                "send one of the two",
            ),
            (
                "/collections",
                r#"{"name": "x", "dimension": 2, "colour": 1}"#,
                "colour",
                "expected one of `name`, `dimension`",
            ),
            ("/collections", "{} {}", "name", "missing field"),
            ("/embed", r#"{"text": "a"} trailing"#, "body", "trailing"),
            ("/insert", r#"{"collection": "c", "text": "  "}"#, "text", "is empty"),
            (
                "/insert",
                r#"{"collection": "c", "text": "a", "metadata": {"content": "b"}}"#,
                "metadata.content",
                "choose another",
            ),
            ("/insert", r#"{"collection": "c", "text": "a", "metadata": 5}"#, "metadata", "a map"),
            (
                "/insert",
                r#"{"collection": "c", "text": "a", "public_key": "k"}"#,
                "public_key",
                "not encrypted",
            ),
            ("/insert_texts", r#"{"collection": "c", "texts": []}"#, "texts", "is empty"),
            (
                "/insert_texts",
                r#"{"collection": "c", "texts": [{"text": "a"}, {"text": 5}]}"#,
                "texts[1].text",
                "expected a string",
            ),
            (
                "/insert_vectors",
                r#"{"collection": "c", "vectors": [{"embedding": [1, null]}]}"#,
                "vectors[0].embedding[1]",
                "null",
            ),
            (
                "/insert_vectors",
                r#"{"collection": "c", "vectors": [{"embedding": [1, NaN]}]}"#,
                "vectors[0].embedding[1]",
                "expected",
            ),
            (
                "/insert_vectors",
                r#"{"collection": "c", "vectors": [{"embedding": [1, 1e999]}]}"#,
                "vectors[0].embedding[1]",
                "number out of range",
            ),
            (
                "/insert_vectors",
                r#"{"collection": "c", "vectors": [{"embedding": [1, 1e39]}]}"#,
                "vectors[0]",
                "nothing was changed",
            ),
            (
                "/insert_vectors",
                r#"{"collection": "c", "vectors": [{"embedding": [1, 2, 3]}]}"#,
                "vectors[0]",
                "dimension",
            ),
            (
                "/collections/c/vectors",
                r#"{"collection": "other", "vectors": [{"data": [1, 2]}]}"#,
                "collection",
                "leave it out",
            ),
            (
                "/collections/c/vectors",
                r#"{"vectors": [{"id": "", "data": [1, 2]}]}"#,
                "vectors[0]",
                "1 to 1024 bytes",
            ),
            ("/update", r#"{"collection": "c", "id": "1"}"#, "vector", "nothing to change"),
            ("/batch_update", r#"{"collection": "c", "updates": []}"#, "updates", "is empty"),
            ("/batch_delete", r#"{"collection": "c", "ids": [1]}"#, "ids[0]", "expected a string"),
            ("/collections/c/search", "{}", "query", "is missing"),
            ("/collections/c/search/text", r#"{"vector": [1, 2]}"#, "query", "is missing"),
            (
                "/collections/c/search",
                r#"{"query": "a", "vector": [1, 2]}"#,
                "vector",
                "send one of the two",
            ),
            ("/collections/c/search", r#"{"vector": [1]}"#, "vector", "dimension 2"),
            ("/collections/c/search", r#"{"vector": [1, 1e39]}"#, "vector", "finite"),
            ("/collections/c/search", r#"{"query": "a", "limit": 0}"#, "limit", "1 to 1000"),
            ("/collections/c/search", r#"{"query": "a", "limit": 1001}"#, "limit", "1 to 1000"),
            (
                "/collections/c/search",
                r#"{"query": "a", "filter": {"range": {"key": "x"}}}"#,
                "filter.range",
                "",
            ),
            (
                "/collections/c/hybrid_search",
                r#"{"query": "a", "alpha": 2}"#,
                "alpha",
                "0..=1",
            ),
            (
                "/collections/c/hybrid_search",
                r#"{"query": "a", "algorithm": "magic"}"#,
                "algorithm",
                "expected rrf, weighted or alpha",
            ),
            (
                "/collections/c/hybrid_search",
                r#"{"query": "a", "query_sparse": {"indices": [1], "values": []}}"#,
                "query_sparse.values",
                "expected as many",
            ),
            ("/batch_search", r#"{"collection": "c", "queries": []}"#, "queries", "1 to 100"),
            (
                "/batch_search",
                r#"{"collection": "c", "queries": [{"query": "a"}, {"vector": [1]}]}"#,
                "queries[1].vector",
                "dimension 2",
            ),
            ("/embed", r#"{"text": "a", "dimension": 70000}"#, "dimension", "1 to 65536"),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_does_not_exist_is_said_to_be_missing() {
    let node = Node::with_collection().await;
    let before = node.end();
    for (path, body) in [
        ("/insert", r#"{"collection": "x", "text": "a"}"#),
        (
            "/insert_texts",
            r#"{"collection": "x", "texts": [{"text": "a"}]}"#,
        ),
        (
            "/insert_vectors",
            r#"{"collection": "x", "vectors": [{"embedding": [1]}]}"#,
        ),
        ("/collections/x/vectors", r#"{"vectors": [{"data": [1]}]}"#),
        (
            "/update",
            r#"{"collection": "x", "id": "1", "vector": [1]}"#,
        ),
        (
            "/batch_update",
            r#"{"collection": "x", "updates": [{"id": "1", "vector": [1]}]}"#,
        ),
        ("/batch_delete", r#"{"collection": "x", "ids": ["1"]}"#),
        ("/collections/x/search", r#"{"query": "a"}"#),
        ("/collections/x/search/text", r#"{"query": "a"}"#),
        ("/collections/x/hybrid_search", r#"{"query": "a"}"#),
        (
            "/batch_search",
            r#"{"collection": "x", "queries": [{"query": "a"}]}"#,
        ),
    ] {
        let error = node.post(path, body).await.error();
        assert_eq!(
            error.error_type,
            ErrorCode::CollectionNotFound,
            "{path}: {error}"
        );
        assert!(error.message.contains("`x`"), "{error}");
    }
    assert_eq!(
        node.get("/collections/x/vectors").await.code(),
        ErrorCode::CollectionNotFound
    );
    assert_eq!(
        node.get("/collections/x/vectors/1").await.code(),
        ErrorCode::CollectionNotFound
    );
    assert_eq!(
        node.delete("/collections/x/vectors/1").await.code(),
        ErrorCode::CollectionNotFound
    );
    assert_eq!(node.end(), before);
}

#[tokio::test]
async fn deep_json_and_bad_utf8_are_refused_without_harm() {
    let node = Node::with_collection().await;
    let before = node.end();
    for depth in [100, 100_000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        let deep =
            format!(r#"{{"vectors": [{{"data": [1, 2], "metadata": {{"a": {open}{close}}}}}]}}"#);
        let error = node.post("/collections/c/vectors", deep).await.error();
        assert_eq!(error.error_type, ErrorCode::InvalidRequest);
        assert!(error.message.len() < 500, "{error}");
    }
    let bytes = b"{\"collection\": \"c\", \"text\": \"\xff\xfe\"}".to_vec();
    let error = node.post("/insert", bytes).await.error();
    assert_eq!(error.error_type, ErrorCode::InvalidRequest);
    assert_eq!(error.details.unwrap()["path"], "text");
    let path = node.get("/collections/%ff/vectors").await;
    assert_eq!(path.code(), ErrorCode::InvalidRequest);
    let query = node.get("/collections/c/vectors?limit=many").await.error();
    assert!(query.message.contains("limit"), "{query}");
    let query = node.get("/collections/c/vectors?limit=0").await.error();
    assert!(query.message.contains("1 to 1000"), "{query}");
    let query = node.get("/collections/c/vectors?lmit=1").await.error();
    assert!(query.message.contains("`limit`"), "{query}");
    assert_eq!(node.end(), before);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_announced_or_not() {
    let node = Node::master_with(&["server.max_body_bytes=1024"]).await;
    let before = node.end();
    let large = format!(r#"{{"collection": "c", "text": "{}"}}"#, "x".repeat(2000));
    let error = node.post("/insert", large.clone()).await.error();
    assert_eq!(error.error_type, ErrorCode::PayloadTooLarge);
    assert!(error.message.contains("1024 bytes"), "{error}");
    let parts = large.into_bytes();
    let parts = parts
        .chunks(100)
        .map(|part| Ok::<_, std::io::Error>(part.to_vec()));
    let parts = futures::stream::iter(parts.collect::<Vec<_>>());
    let error = node.post("/insert", Body::from_stream(parts)).await;
    assert_eq!(error.code(), ErrorCode::PayloadTooLarge);
    assert_eq!(node.end(), before);
}

#[tokio::test]
async fn large_requests_have_a_bounded_room_together_and_writes_one_of_their_own() {
    let node = Node::master_with(&["server.request_memory_bytes=8388608"]).await;
    node.post("/collections", r#"{"name": "c", "dimension": 2}"#)
        .await
        .good();
    let body = || Body::from(format!(r#"{{"text": "{}"}}"#, "x".repeat(50_000)));
    node.post("/embed", body()).await.good();
    // Somebody else's request takes all but a little of it.
    let others = node.api.0.budget.of(Kind::Read).share();
    others.take((4 << 20) - 10_000).unwrap();
    let refused = node.post("/embed", body()).await;
    assert_eq!(refused.code(), ErrorCode::TooManyRequests);
    node.post("/embed", r#"{"text": "small"}"#).await.good();
    let text = "x ".repeat(25_000);
    let write = json!({ "collection": "c", "text": text }).to_string();
    node.post("/insert", write).await.good();
    drop(others);
    node.post("/embed", body()).await.good();
    // Twelve such texts at once would be too many for this node in any case.
    let body = Body::from(format!(r#"{{"text": "{}"}}"#, "x".repeat(600_000)));
    let refused = node.post("/embed", body).await.error();
    assert_eq!(refused.error_type, ErrorCode::PayloadTooLarge);
    assert!(
        refused.message.contains("request_memory_bytes"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_body_that_says_it_is_something_else_than_json_is_refused() {
    let node = Node::with_collection().await;
    let request = Request::post("/insert")
        .header("content-type", "text/plain")
        .body(Body::from(r#"{"collection": "c", "text": "a"}"#));
    let error = node.send(request.unwrap()).await.error();
    assert_eq!(error.error_type, ErrorCode::UnsupportedMediaType);
    assert!(
        error.message.contains("expected `application/json`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_body_in_another_encoding_is_refused_with_its_name() {
    let node = Node::with_collection().await;
    let before = node.end();
    let json = r#"{"collection": "c", "text": "a"}"#;
    let utf16 = |mark: &[u8], bytes: fn(u16) -> [u8; 2]| {
        let letters = json.encode_utf16().flat_map(bytes);
        mark.iter().copied().chain(letters).collect::<Vec<u8>>()
    };
    for (header, value, body, word) in [
        ("content-encoding", "gzip", b"\x1f\x8b\x08".to_vec(), "gzip"),
        ("content-encoding", "br", json.into(), "br"),
        (
            "content-type",
            "application/json; charset=utf-16",
            json.into(),
            "utf-16",
        ),
        (
            "content-type",
            "application/json; charset=\"ISO-8859-1\"",
            json.into(),
            "iso-8859-1",
        ),
        (
            "content-type",
            "application/json",
            utf16(b"\xff\xfe", u16::to_le_bytes),
            "UTF-16",
        ),
        (
            "content-type",
            "application/json",
            utf16(b"\xfe\xff", u16::to_be_bytes),
            "UTF-16",
        ),
        (
            "content-type",
            "application/json",
            utf16(b"", u16::to_le_bytes),
            "UTF-16",
        ),
        (
            "x-nothing",
            "no content type",
            utf16(b"", u16::to_be_bytes),
            "UTF-16",
        ),
    ] {
        let request = Request::post("/insert")
            .header(header, value)
            .body(Body::from(body));
        let error = node.send(request.unwrap()).await.error();
        assert_eq!(error.error_type, ErrorCode::UnsupportedMediaType, "{value}");
        assert!(error.message.contains(word), "{value}: {error}");
    }
    assert_eq!(node.end(), before);
}

#[tokio::test]
async fn the_mark_of_utf8_before_a_body_is_skipped() {
    let node = Node::with_collection().await;
    for (header, value) in [
        ("content-type", "application/json; charset=UTF-8"),
        ("content-encoding", "identity"),
    ] {
        let body = "\u{feff}{\"text\": \"a\"}";
        let request = Request::post("/embed")
            .header(header, value)
            .body(Body::from(body));
        node.send(request.unwrap()).await.good();
    }
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_a_timeout() {
    let node = Node::master_with(&["server.request_timeout_secs=1"]).await;
    let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
    let error = node.post("/embed", Body::from_stream(never)).await.error();
    assert_eq!(error.error_type, ErrorCode::RequestTimeout);
    assert_eq!(error.status_code, 408);
    assert!(error.message.contains("within 1 s"), "{error}");
}

#[tokio::test]
async fn in_a_batch_the_good_items_are_applied_and_the_bad_ones_reported() {
    let node = Node::with_collection().await;
    let batch = json!({ "vectors": [
        { "id": "good", "data": [1, 2] },
        { "id": "short", "data": [1] },
        { "id": "good", "data": [3, 4] },
        { "id": "infinite", "data": [1, 1e39] },
    ]});
    let answer = node.post("/collections/c/vectors", batch.to_string()).await;
    assert_eq!(answer.header(FAILED_HEADER), "3");
    let answer = answer.good();
    assert_eq!(answer["inserted"], 1);
    assert_eq!(answer["failed"], 3);
    assert_eq!(answer["count"], 4);
    let status: Vec<_> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["status"].as_str().unwrap())
        .collect();
    assert_eq!(status, ["ok", "error", "error", "error"]);
    assert!(
        answer["results"][2]["error"]
            .as_str()
            .unwrap()
            .contains("earlier in the same batch")
    );
    let page = node.get("/collections/c/vectors").await.good();
    assert_eq!(page["total"], 1);
    assert_eq!(page["vectors"][0]["vector"], json!([1.0, 2.0]));
    for (path, body) in [
        (
            "/insert_texts",
            r#"{"collection": "c", "texts": [{"text": "a"}, {"text": ""}]}"#,
        ),
        (
            "/insert_vectors",
            r#"{"collection": "c", "vectors": [{"embedding": [1, 2]}, {"embedding": []}]}"#,
        ),
        (
            "/batch_update",
            r#"{"collection": "c", "updates": [{"id": "good", "vector": [5, 6]}, {"id": "none", "vector": [1, 1]}]}"#,
        ),
        (
            "/batch_delete",
            r#"{"collection": "c", "ids": ["good", "none"]}"#,
        ),
    ] {
        let answer = node.post(path, body).await;
        assert_eq!(answer.header(FAILED_HEADER), "1", "{path}");
        assert_eq!(answer.good()["failed"], 1, "{path}");
    }
    let good = r#"{"collection": "c", "vectors": [{"embedding": [1, 2]}]}"#;
    let answer = node.post("/insert_vectors", good).await;
    assert!(!answer.headers.contains_key(FAILED_HEADER));
}

#[tokio::test]
async fn in_an_atomic_batch_one_bad_item_refuses_all() {
    let node = Node::with_collection().await;
    let put = r#"{"vectors": [{"id": "1", "data": [1, 2]}]}"#;
    node.post("/collections/c/vectors", put).await.good();
    let before = node.end();
    for (path, body) in [
        (
            "/collections/c/vectors",
            json!({ "atomic": true, "vectors": [{ "id": "2", "data": [1, 2] }, { "id": "3", "data": [1] }] }),
        ),
        (
            "/collections/c/vectors",
            json!({ "atomic": true, "vectors": [{ "id": "2", "data": [1, 2] }, { "id": "2", "data": [1, 2] }] }),
        ),
        (
            "/insert_texts",
            json!({ "collection": "c", "atomic": true, "texts": [{ "text": "a" }, { "text": "" }] }),
        ),
        (
            "/batch_update",
            json!({ "collection": "c", "atomic": true, "updates": [{ "id": "1", "vector": [5, 5] }, { "id": "x", "vector": [1, 1] }] }),
        ),
        (
            "/batch_delete",
            json!({ "collection": "c", "atomic": true, "ids": ["1", "x"] }),
        ),
    ] {
        let error = node.post(path, body.to_string()).await.error();
        assert!(
            error.message.contains("nothing was changed (atomic)"),
            "{path}: {error}"
        );
        assert_eq!(node.end(), before, "{path}");
    }
}
