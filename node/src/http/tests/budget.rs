use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use vectorizer_api::data::{BULK_CONTENT_TYPE, BulkWriter, VectorPage};

use super::*;

/// An answer may have 1 MiB on a node with so little memory for requests.
const LITTLE: &str = "server.request_memory_bytes=8388608";

impl Node {
    async fn with_little(dimension: usize) -> Self {
        let node = Node::master_with(&[LITTLE]).await;
        node.collection("c", dimension).await;
        node
    }

    async fn collection(&self, name: &str, dimension: usize) {
        let wish = json!({ "name": name, "dimension": dimension }).to_string();
        self.post("/collections", wish).await.good();
    }

    /// Vectors of ones, of which each has a payload.
    async fn load(&self, dimension: usize, ids: std::ops::Range<usize>, payload: &str) {
        let mut body = BulkWriter::new(dimension);
        for id in ids {
            body.push(&id.to_string(), &vec![1.0; dimension], payload.as_bytes())
                .unwrap();
        }
        let request =
            Request::post("/collections/c/bulk").header("content-type", BULK_CONTENT_TYPE);
        self.send(request.body(Body::from(body.finish())).unwrap())
            .await
            .good();
    }
}

fn page(answer: &Answer) -> VectorPage {
    answer.good();
    serde_json::from_slice(&answer.bytes).unwrap()
}

#[tokio::test]
async fn a_search_whose_answer_would_be_too_large_is_told_what_to_ask_for() {
    let node = Node::with_little(2).await;
    let payload = json!({ "content": "word ".repeat(2000) }).to_string();
    node.load(2, 0..120, &payload).await;
    for (path, body) in [
        (
            "/collections/c/search",
            json!({ "vector": [1, 1], "limit": 1000 }),
        ),
        (
            "/collections/c/hybrid_search",
            json!({ "query": "word", "final_k": 1000, "dense_k": 100 }),
        ),
        (
            "/batch_search",
            json!({ "collection": "c", "queries": vec![json!({ "vector": [1, 1] }); 10] }),
        ),
    ] {
        let error = node.post(path, body.to_string()).await.error();
        assert_eq!(
            error.error_type,
            ErrorCode::InvalidRequest,
            "{path}: {error}"
        );
        assert!(
            error
                .message
                .contains("limit: the answer would be larger than 1048576 bytes"),
            "{error}"
        );
    }
    let few = json!({ "vector": [1, 1], "limit": 10 }).to_string();
    let found = node.post("/collections/c/search", few).await.good();
    assert_eq!(found["results"].as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn vectors_are_asked_for_with_results_only_where_they_fit() {
    let node = Node::with_little(60_000).await;
    node.load(60_000, 0..5, "").await;
    node.load(60_000, 5..10, "").await;
    let search = |limit: usize| {
        let vector = vec![1.0; 60_000];
        json!({ "vector": vector, "limit": limit, "with_vector": true }).to_string()
    };
    let error = node.post("/collections/c/search", search(10)).await.error();
    assert!(error.message.contains("ask for fewer"), "{error}");
    let found = node.post("/collections/c/search", search(1)).await.good();
    assert_eq!(
        found["results"][0]["vector"].as_array().unwrap().len(),
        60_000
    );
}

#[tokio::test]
async fn a_page_that_is_too_large_is_refused_by_offset_and_ends_early_after_an_id() {
    let node = Node::with_little(60_000).await;
    node.load(60_000, 0..5, "").await;
    node.load(60_000, 5..10, "").await;
    let error = node.get("/collections/c/vectors?limit=10").await.error();
    assert!(error.message.contains("send `after`"), "{error}");
    let (mut seen, mut after, mut pages) = (BTreeSet::new(), String::new(), 0);
    loop {
        let path = format!("/collections/c/vectors?limit=10&after={after}");
        let page = page(&node.get(&path).await);
        assert_eq!(page.total, 10);
        seen.extend(page.vectors.into_iter().map(|vector| vector.id));
        pages += 1;
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(seen.len(), 10);
    assert!(pages > 1);
}

#[tokio::test]
async fn pages_after_an_id_show_everything_that_stays_once_whatever_is_written_between_them() {
    let node = Node::with_collection().await;
    node.load(2, 0..1000, "").await;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let (mut after, mut next) = (String::new(), 1000);
    loop {
        let page = page(
            &node
                .get(&format!("/collections/c/vectors?limit=70&after={after}"))
                .await,
        );
        for vector in page.vectors {
            *seen.entry(vector.id).or_default() += 1;
        }
        // What was there from the beginning goes from 0 to 99, ten at a time, and as much comes.
        let gone: Vec<_> = (next - 1000..next - 990).map(|id| id.to_string()).collect();
        let gone = json!({ "collection": "c", "ids": gone }).to_string();
        if next < 1100 {
            node.post("/batch_delete", gone).await.good();
            node.load(2, next..next + 10, "").await;
            next += 10;
        }
        match page.next {
            Some(id) => after = id,
            None => break,
        }
    }
    assert!(next == 1100, "pages were too few for what is asked here");
    for id in 100..1000 {
        assert_eq!(seen.get(&id.to_string()), Some(&1), "{id}");
    }
    assert!(seen.values().all(|times| *times == 1));
    let both = node
        .get("/collections/c/vectors?after=&offset=1")
        .await
        .error();
    assert!(both.message.contains("send one of the two"), "{both}");
}

#[tokio::test]
async fn what_one_entry_of_the_log_cannot_hold_is_refused_before_it_is_made() {
    let node = Node::master().await;
    node.collection("c", 65_536).await;
    let before = node.end();
    let texts = vec![json!({ "text": "hi" }); 25_000];
    let body = json!({ "collection": "c", "texts": texts }).to_string();
    let error = node.post("/insert_texts", body).await.error();
    assert_eq!(error.error_type, ErrorCode::PayloadTooLarge);
    assert!(
        error
            .message
            .contains("at most 15728640 fit: send it in parts"),
        "{error}"
    );
    assert_eq!(node.end(), before);

    node.load(65_536, 0..50, "").await;
    node.load(65_536, 50..100, "").await;
    let before = node.end();
    let updates: Vec<_> = (0..100)
        .map(|id| json!({ "id": id.to_string(), "payload": { "a": 1 } }))
        .collect();
    let update = |updates: &[Value]| json!({ "collection": "c", "updates": updates }).to_string();
    let error = node.post("/batch_update", update(&updates)).await.error();
    assert_eq!(error.error_type, ErrorCode::PayloadTooLarge);
    assert_eq!(node.end(), before);
    let some = node
        .post("/batch_update", update(&updates[..50]))
        .await
        .good();
    assert_eq!(some["updated"], 50);
}

#[tokio::test]
async fn filters_and_payloads_hold_a_bounded_number_of_values() {
    let node = Node::with_collection().await;
    let before = node.end();
    let objects = vec![json!({}); 20_000];
    let values = vec![0; 70_000];
    for (path, body, part) in [
        (
            "/collections/c/search",
            json!({ "vector": [1, 1], "filter": { "and": objects } }),
            "objects",
        ),
        (
            "/collections/c/hybrid_search",
            json!({ "query": "a", "filter": { "and": vec![json!({"a": [{}]}); 9_000] } }),
            "16384 objects",
        ),
        (
            "/batch_search",
            json!({ "collection": "c", "queries": vec![json!({
                "vector": [1, 1],
                "filter": { "in": { "key": "a", "values": values } },
            }); 5] }),
            "300000 values",
        ),
        (
            "/insert",
            json!({ "collection": "c", "text": "a", "metadata": { "a": values } }),
            "at most 65536",
        ),
        (
            "/collections/c/vectors",
            json!({ "vectors": [{ "data": [1, 1], "metadata": { "a": values } }] }),
            "at most 65536",
        ),
    ] {
        let error = node.post(path, body.to_string()).await.error();
        assert_eq!(error.error_type, ErrorCode::InvalidRequest, "{path}");
        assert!(error.message.contains(part), "{path}: {error}");
    }
    assert_eq!(node.end(), before);
    let many = json!({ "vector": [1, 1], "filter": { "in": { "key": "a", "values": values } } });
    node.post("/collections/c/search", many.to_string())
        .await
        .good();
}
