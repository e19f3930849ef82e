use serde_json::json;

use super::*;

#[tokio::test]
async fn a_collection_is_exactly_what_the_strict_client_unpacks_and_has_one_key_for_its_metric() {
    let node = Node::master().await;
    let asked = r#"{"name": "docs", "dimension": 4, "similarity_metric": "euclidean"}"#;
    let created = node.post("/collections", asked).await.good();
    let read = node.get("/collections/docs").await.good();
    let listed = node.get("/collections").await.good()["collections"][0].clone();
    for collection in [created, read, listed] {
        let keys: Vec<_> = collection.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            [
                "created_at",
                "dimension",
                "document_count",
                "embedding_provider",
                "indexing_status",
                "metric",
                "name",
                "normalization",
                "quantization",
                "size",
                "status",
                "updated_at",
                "vector_count",
            ]
        );
        assert_eq!(collection["name"], "docs");
        assert_eq!(collection["dimension"], 4);
        assert_eq!(collection["metric"], "euclidean");
        assert_eq!(collection["vector_count"], 0);
        assert!(collection["created_at"].as_str().unwrap().ends_with('Z'));
        assert!(collection["indexing_status"].is_object());
        assert!(collection["size"].is_object());
    }
}

#[tokio::test]
async fn a_collection_asked_for_with_metric_is_answered_with_message_and_name_as_well() {
    let node = Node::master().await;
    for (name, metric, read) in [
        ("a", "cosine", "cosine"),
        ("b", "dotproduct", "dotproduct"),
        ("c", "dot_product", "dotproduct"),
    ] {
        let asked = json!({ "name": name, "dimension": 2, "metric": metric }).to_string();
        let created = node.post("/collections", asked).await.good();
        assert!(created["message"].as_str().unwrap().contains(name));
        assert_eq!(created["collection"], name);
        assert_eq!(created["metric"], read);
    }
    let neither = node
        .post("/collections", r#"{"name": "d", "dimension": 2}"#)
        .await;
    assert_eq!(neither.good()["metric"], "cosine");
}

#[tokio::test]
async fn a_collection_may_be_asked_for_as_the_go_client_does() {
    let node = Node::master().await;
    let asked = r#"{"name": "a", "config": {"dimension": 3, "metric": "DotProduct"}}"#;
    let created = node.post("/collections", asked).await.good();
    assert_eq!(created["metric"], "dotproduct");
    assert_eq!(
        created["config"],
        json!({ "dimension": 3, "metric": "dotproduct" })
    );
    for (body, says) in [
        (r#"{"name": "b"}"#, "dimension: is missing"),
        (
            r#"{"name": "b", "dimension": 2, "config": {"dimension": 3}}"#,
            "config.dimension: contradicts `dimension`",
        ),
        (
            r#"{"name": "b", "metric": "l2", "config": {"dimension": 3, "metric": "dot"}}"#,
            "config.metric: contradicts `metric`",
        ),
        (
            r#"{"name": "b", "config": {"dimension": 3, "metric": "nearest"}}"#,
            "config.metric: unknown metric `nearest`",
        ),
    ] {
        let error = node.post("/collections", body).await.error();
        assert!(error.message.starts_with(says), "{}", error.message);
    }
}

#[tokio::test]
async fn a_collection_exists_once_and_is_gone_when_dropped() {
    let node = Node::with_collection().await;
    let again = node
        .post("/collections", r#"{"name": "c", "dimension": 2}"#)
        .await;
    assert_eq!(again.code(), ErrorCode::CollectionExists);
    assert_eq!(
        node.delete("/collections/c").await.good()["collection"],
        "c"
    );
    assert_eq!(
        node.get("/collections/c").await.code(),
        ErrorCode::CollectionNotFound
    );
    assert_eq!(
        node.delete("/collections/c").await.code(),
        ErrorCode::CollectionNotFound
    );
}

#[tokio::test]
async fn a_text_goes_in_and_is_found_by_its_words() {
    let node = Node::master().await;
    node.post("/collections", r#"{"name": "docs", "dimension": 512}"#)
        .await
        .good();
    let inserted = node
        .post(
            "/insert",
            r#"{"collection": "docs", "id": "w", "text": "Whales are mammals that live in the sea", "metadata": {"kind": "animal"}}"#,
        )
        .await
        .good();
    assert_eq!(inserted["vector_ids"], json!(["w"]));
    assert_eq!(inserted["vectors_created"], 1);
    let batch = r#"{"collection": "docs", "texts": [
        {"id": "t", "text": "Trains run on rails"},
        {"text": "The violin has four strings", "metadata": null}
    ]}"#;
    for (path, inserted) in [("/insert_texts", 2), ("/batch_insert", 2)] {
        let answer = node.post(path, batch).await.good();
        assert_eq!(answer["collection"], "docs");
        assert_eq!(answer["inserted"], inserted);
        assert_eq!(answer["failed"], 0);
        assert_eq!(answer["count"], 2);
        assert_eq!(answer["results"][0]["id"], "t");
        assert_eq!(answer["results"][0]["client_id"], "t");
        assert_eq!(answer["results"][0]["status"], "ok");
        assert_eq!(answer["results"][1]["index"], 1);
        assert!(answer["results"][1]["id"].is_string());
        let keys = answer["results"][1].as_object().unwrap();
        assert!(!keys.contains_key("client_id"), "absent, never null");
        assert!(!keys.contains_key("error"), "absent, never null");
    }
    let search = r#"{"query": "mammals of the sea", "limit": 2}"#;
    for path in ["/collections/docs/search", "/collections/docs/search/text"] {
        let found = node.post(path, search).await.good();
        let best = &found["results"][0];
        assert_eq!(best["id"], "w");
        assert_eq!(best["content"], "Whales are mammals that live in the sea");
        assert_eq!(best["metadata"], json!({ "kind": "animal" }));
        assert_eq!(best["payload"]["content"], best["content"]);
        assert!(best["score"].as_f64().unwrap() > 0.1);
        assert!(best.get("vector").is_none());
        assert_eq!(found["limit"], 2);
        assert_eq!(found["query"], "mammals of the sea");
    }
    let filtered = r#"{"query": "sea", "filter": {"equals": {"key": "kind", "value": "plant"}}}"#;
    let found = node.post("/collections/docs/search", filtered).await.good();
    assert_eq!(found["results"], json!([]));
}

#[tokio::test]
async fn hybrid_and_batch_searches_answer_what_the_clients_read() {
    let node = Node::master().await;
    node.post("/collections", r#"{"name": "docs", "dimension": 64}"#)
        .await
        .good();
    let texts = r#"{"collection": "docs", "texts": [{"id": "a", "text": "red apples"}, {"id": "b", "text": "blue sky"}]}"#;
    node.post("/insert_texts", texts).await.good();
    for algorithm in ["rrf", "weighted", "alpha"] {
        let asked = json!({
            "query": "apples", "alpha": 0.5, "algorithm": algorithm,
            "dense_k": 20, "sparse_k": 20, "final_k": 1, "query_sparse": null,
        });
        let path = "/collections/docs/hybrid_search";
        let found = node.post(path, asked.to_string()).await.good();
        assert_eq!(found["results"][0]["id"], "a");
        assert_eq!(found["results"].as_array().unwrap().len(), 1);
        assert_eq!(found["algorithm"], algorithm);
        assert_eq!(found["query"], "apples");
        assert_eq!(found["alpha"], 0.5);
        assert!(found["duration_ms"].is_u64());
    }
    let asked = r#"{"collection": "docs", "queries": [{"query": "sky", "limit": 1}, {"query": "apples", "threshold": 0.01}]}"#;
    let found = node.post("/batch_search", asked).await.good();
    assert_eq!(found["count"], 2);
    assert_eq!(found["results"][0]["results"][0]["id"], "b");
    assert_eq!(found["results"][1]["results"][0]["id"], "a");
}

#[tokio::test]
async fn vectors_go_in_three_ways_and_come_back_as_they_were() {
    let node = Node::with_collection().await;
    let one = r#"{"collection": "c", "vectors": [{"id": "1", "embedding": [3, 4], "payload": {"a": 1}, "metadata": {"b": "2"}}]}"#;
    node.post("/insert_vectors", one).await.good();
    let two = r#"{"vectors": [{"id": "a/b ü", "data": [0.5, -1], "metadata": {"n": null}, "public_key": null}]}"#;
    node.post("/collections/c/vectors", two).await.good();

    let read = node.get("/collections/c/vectors/1").await.good();
    assert_eq!(read["vector"], json!([3.0, 4.0]), "not normalised");
    assert_eq!(read["data"], read["vector"]);
    assert_eq!(
        read["payload"],
        json!({ "a": 1 }),
        "payload before metadata"
    );
    assert_eq!(read["metadata"], read["payload"]);
    let read = node
        .get("/collections/c/vectors/a%2Fb%20%C3%BC")
        .await
        .good();
    assert_eq!(read["id"], "a/b ü");
    assert_eq!(read["metadata"], json!({ "n": null }));

    let page = node
        .get("/collections/c/vectors?limit=1&offset=1")
        .await
        .good();
    assert_eq!(page["total"], 2);
    assert_eq!(page["limit"], 1);
    assert_eq!(page["offset"], 1);
    assert_eq!(page["vectors"].as_array().unwrap().len(), 1);
    assert_eq!(page["vectors"][0]["id"], "a/b ü");

    let nearest = r#"{"vector": [1, 1], "limit": 1, "with_vector": true}"#;
    let found = node.post("/collections/c/search", nearest).await.good();
    assert_eq!(found["results"][0]["id"], "1");
    assert_eq!(found["results"][0]["vector"], json!([3.0, 4.0]));
}

#[tokio::test]
async fn updates_set_keys_and_leave_the_others() {
    let node = Node::with_collection().await;
    let put = r#"{"vectors": [{"id": "1", "data": [1, 0], "metadata": {"a": 1, "b": 2}}]}"#;
    node.post("/collections/c/vectors", put).await.good();
    let change = r#"{"collection": "c", "id": "1", "metadata": {"b": 3}}"#;
    node.post("/update", change).await.good();
    let change = r#"{"collection": "c", "updates": [{"id": "1", "vector": [0, 1]}, {"id": "nobody", "payload": {}}]}"#;
    let answer = node.post("/batch_update", change).await.good();
    assert_eq!(answer["count"], 2);
    assert_eq!(answer["updated"], 1);
    assert_eq!(answer["failed"], 1);
    assert_eq!(answer["results"][1]["status"], "error");
    let read = node.get("/collections/c/vectors/1").await.good();
    assert_eq!(read["payload"], json!({ "a": 1, "b": 3 }));
    assert_eq!(read["vector"], json!([0.0, 1.0]));
    let nobody = r#"{"collection": "c", "id": "nobody", "vector": [0, 1]}"#;
    assert_eq!(
        node.post("/update", nobody).await.code(),
        ErrorCode::VectorNotFound
    );
}

#[tokio::test]
async fn deletes_say_id_by_id_what_was_there() {
    let node = Node::with_collection().await;
    let put = r#"{"vectors": [{"id": "1", "data": [1, 0]}, {"id": "2", "data": [1, 0]}]}"#;
    node.post("/collections/c/vectors", put).await.good();
    let ids = r#"{"collection": "c", "ids": ["1", "nobody"]}"#;
    let answer = node.post("/batch_delete", ids).await.good();
    assert_eq!(answer["deleted"], 1);
    assert_eq!(answer["failed"], 1);
    assert_eq!(answer["results"][0]["status"], "ok");
    assert!(
        answer["results"][1]["error"]
            .as_str()
            .unwrap()
            .contains("nobody")
    );
    let again = node.post("/batch_delete", ids).await.good();
    assert_eq!(again["deleted"], 0, "an answer, not an error");
    node.delete("/collections/c/vectors/2").await.good();
    let gone = node.delete("/collections/c/vectors/2").await;
    assert_eq!(gone.code(), ErrorCode::VectorNotFound);
    assert_eq!(
        node.get("/collections/c/vectors/2").await.code(),
        ErrorCode::VectorNotFound
    );
}

#[tokio::test]
async fn a_text_becomes_the_same_vector_every_time() {
    let node = Node::master().await;
    let one = node
        .post("/embed", r#"{"text": "hello world", "model": null}"#)
        .await
        .good();
    assert_eq!(one["dimension"], 512);
    assert_eq!(one["embedding"].as_array().unwrap().len(), 512);
    assert_eq!(one["text"], "hello world");
    assert!(one["model"].is_string() && one["provider"].is_string());
    let two = node
        .post("/embed", r#"{"text": "hello world"}"#)
        .await
        .good();
    assert_eq!(one, two);
    let other = node
        .post("/embed", r#"{"text": "x", "model": "bert"}"#)
        .await
        .error();
    assert!(
        other.message.starts_with("model: `bert` is not known"),
        "{other}"
    );
}

#[tokio::test]
async fn a_write_answers_its_position_and_a_read_what_it_has_seen() {
    let node = Node::with_collection().await;
    let put = r#"{"vectors": [{"id": "1", "data": [1, 0]}]}"#;
    let written = node.post("/collections/c/vectors", put).await;
    assert_eq!(written.position(), node.end());
    assert_eq!(written.header(vectorizer_api::ROLE_HEADER), "master");
    let read = node.get("/collections/c/vectors/1").await;
    assert_eq!(read.position(), written.position());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_that_somebody_drops_before_its_creation_is_answered_was_created_all_the_same()
{
    let node = Node::master().await;
    for n in 0..200 {
        let name = format!("c{n}");
        let asked = json!({ "name": name, "dimension": 3, "metric": "cosine" }).to_string();
        let create = node.post("/collections", asked);
        // As soon as it is there: in the same drain of the writer's queue, most of the time.
        let drop = async {
            let dropped = || writer::WriteRequest::DropCollection { name: name.clone() };
            while node.api.writer.write(dropped()).await.is_err() {}
        };
        let (created, ()) = tokio::join!(create, drop);
        let created = created.good();
        assert_eq!(created["name"], *name);
        assert_eq!(
            (&created["dimension"], &created["vector_count"]),
            (&json!(3), &json!(0))
        );
    }
}
