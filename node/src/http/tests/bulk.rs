use serde_json::json;
use vectorizer_api::data::{BULK_CONTENT_TYPE, BulkWriter};

use super::*;
use crate::store::Never;

impl Node {
    async fn bulk(&self, collection: &str, body: Vec<u8>) -> Answer {
        let request = Request::post(format!("/collections/{collection}/bulk"))
            .header("content-type", BULK_CONTENT_TYPE);
        self.send(request.body(Body::from(body)).unwrap()).await
    }
}

fn body(records: &[(&str, [f32; 2], &str)]) -> Vec<u8> {
    let mut writer = BulkWriter::new(2);
    for (id, vector, payload) in records {
        writer.push(id, vector, payload.as_bytes()).unwrap();
    }
    writer.finish()
}

#[tokio::test]
async fn a_bulk_body_is_one_entry_of_the_log_and_reads_like_any_other_write() {
    let node = Node::with_collection().await;
    let before = node.end();
    let sent = body(&[
        ("a", [1.0, 2.0], ""),
        ("b", [0.5, -1.0], r#"{"colour": "red", "n": 1.50}"#),
        ("ü /c", [0.0, 0.0], "{}"),
    ]);
    let answer = node.bulk("c", sent).await;
    assert_eq!(answer.good(), json!({ "inserted": 3 }));
    assert_eq!(answer.position(), node.end());
    assert_eq!(node.end().offset, before.offset + 3);
    let log = node.api.writer.log();
    assert_eq!(log.read(before.offset + 1, usize::MAX).unwrap().len(), 1);
    let b = node.get("/collections/c/vectors/b").await.good();
    assert_eq!(b["vector"], json!([0.5, -1.0]));
    assert_eq!(b["payload"], json!({ "colour": "red", "n": 1.5 }));
    let a = node.get("/collections/c/vectors/a").await.good();
    assert_eq!(a["payload"], json!({}));
    assert_eq!(node.get("/collections/c").await.good()["vector_count"], 3);
    // The digest that is kept is that of what is there.
    let kept = node.api.store.digest().1;
    assert_eq!(node.api.store.recompute_digest(), kept);
}

#[tokio::test]
async fn a_bulk_body_replaces_what_has_the_same_id_and_leaves_the_same_bytes_as_json() {
    let (bulk, plain) = (Node::with_collection().await, Node::with_collection().await);
    bulk.bulk(
        "c",
        body(&[("a", [1.0, 2.0], r#"{"x":1}"#), ("b", [3.0, 4.0], "")]),
    )
    .await
    .good();
    bulk.bulk("c", body(&[("a", [5.0, 6.0], "")])).await.good();
    for vectors in [
        r#"[{"id": "a", "data": [1, 2], "metadata": {"x": 1}}, {"id": "b", "data": [3, 4]}]"#,
        r#"[{"id": "a", "data": [5, 6]}]"#,
    ] {
        let body = format!(r#"{{"vectors": {vectors}}}"#);
        plain.post("/collections/c/vectors", body).await.good();
    }
    let vectors = |node: &Node| {
        node.api
            .store
            .collection("c")
            .unwrap()
            .list(10, 0, &Never)
            .unwrap()
            .records
    };
    assert_eq!(vectors(&bulk), vectors(&plain));
}

#[tokio::test]
async fn an_update_of_one_key_leaves_the_text_of_all_others() {
    let node = Node::with_collection().await;
    let with = |n: u32| {
        format!(
            r#"{{"big":18446744073709551617,"deep":{{"x":[122.416294033786585]}},"n":{n},"price":1.50}}"#
        )
    };
    let payload = || {
        let all = node
            .api
            .store
            .collection("c")
            .unwrap()
            .list(10, 0, &Never)
            .unwrap()
            .records;
        String::from_utf8(all[0].payload.to_vec()).unwrap()
    };
    node.bulk("c", body(&[("a", [1.0, 2.0], &with(1))]))
        .await
        .good();
    assert_eq!(payload(), with(1));
    let update = r#"{"collection": "c", "id": "a", "payload": {"n": 2}}"#;
    node.post("/update", update).await.good();
    assert_eq!(payload(), with(2));
}

#[tokio::test]
async fn a_bad_bulk_body_is_refused_with_the_place_and_changes_nothing() {
    let node = Node::with_collection().await;
    let before = node.end();
    let good = body(&[("a", [1.0, 2.0], ""), ("b", [1.0, 2.0], "")]);
    let with = |record: (&str, [f32; 2], &str)| body(&[("a", [1.0, 2.0], ""), record]);
    let mut three = BulkWriter::new(3);
    three.push("a", &[1.0; 3], b"").unwrap();
    let deep = format!(r#"{{"x": {}1{}}}"#, "[".repeat(70), "]".repeat(70));
    let long = "x".repeat(1025);
    let cases: Vec<(Vec<u8>, &str, &str)> = vec![
        (Vec::new(), "header", "0 bytes"),
        (b"{}".to_vec(), "header", "2 bytes"),
        (br#"{"vectors": []} and more"#.to_vec(), "header", "VZB1"),
        (BulkWriter::new(2).finish(), "header", "at least 1"),
        (three.finish(), "header", "the collection's dimension is 2"),
        (good[..good.len() - 1].to_vec(), "records[1]", "ends inside"),
        ([&good[..], b"x"].concat(), "body", "1 bytes are left"),
        (with(("", [1.0, 2.0], "")), "records[1].id", "1 to 1024"),
        (with((&long, [1.0, 2.0], "")), "records[1].id", "1 to 1024"),
        (with(("b\n", [1.0, 2.0], "")), "records[1].id", "control"),
        (with(("a", [1.0, 2.0], "")), "records[1].id", "earlier"),
        (
            with(("b", [1.0, f32::NAN], "")),
            "records[1].vector",
            "number 1",
        ),
        (
            with(("b", [f32::INFINITY, 0.0], "")),
            "records[1].vector",
            "number 0",
        ),
        (
            with(("b", [1.0, 2.0], "[1]")),
            "records[1].payload",
            "JSON object",
        ),
        (
            with(("b", [1.0, 2.0], " ")),
            "records[1].payload",
            "JSON object",
        ),
        (
            with(("b", [1.0, 2.0], "{\"x\": ")),
            "records[1].payload",
            "EOF",
        ),
        (
            with(("b", [1.0, 2.0], "{} {}")),
            "records[1].payload",
            "trailing",
        ),
        (
            with(("b", [1.0, 2.0], "{\"x\": 1e999}")),
            "records[1].payload",
            "range",
        ),
        (
            with(("b", [1.0, 2.0], &deep)),
            "records[1].payload",
            "deeper",
        ),
    ];
    for (body, place, part) in cases {
        let error = node.bulk("c", body).await.error();
        assert_eq!(error.error_type, ErrorCode::InvalidRequest, "{error}");
        assert!(error.message.contains(part), "{part}: {error}");
        assert!(error.message.contains("nothing was changed"), "{error}");
        assert_eq!(error.details.unwrap()["path"], place, "{part}");
    }
    assert_eq!(node.end(), before, "something was written");
    node.bulk("c", good).await.good();
}

#[tokio::test]
async fn a_bulk_body_needs_its_content_type_a_collection_and_no_more_room_than_there_is() {
    let node = Node::master_with(&["server.max_body_bytes=1024"]).await;
    let good = || body(&[("a", [1.0, 2.0], "")]);
    assert_eq!(
        node.bulk("c", good()).await.code(),
        ErrorCode::CollectionNotFound
    );
    node.post("/collections", r#"{"name": "c", "dimension": 2}"#)
        .await
        .good();
    let before = node.end();
    let json = node.post("/collections/c/bulk", good()).await.error();
    assert_eq!(json.error_type, ErrorCode::InvalidRequest);
    assert!(json.message.contains(BULK_CONTENT_TYPE), "{json}");
    let large = node.bulk("c", vec![0; 1025]).await;
    assert_eq!(large.code(), ErrorCode::PayloadTooLarge);
    assert_eq!(node.end(), before);
    node.bulk("c", good()).await.good();
}

#[tokio::test]
async fn a_bulk_body_that_no_log_batch_can_hold_is_refused_and_changes_nothing() {
    let node = Node::master_with(&["server.max_body_bytes=33554432"]).await;
    node.post("/collections", r#"{"name": "c", "dimension": 65536}"#)
        .await
        .good();
    let before = node.end();
    let vector = vec![0.5; 65_536];
    let of = |count: usize| {
        let mut writer = BulkWriter::new(vector.len());
        for n in 0..count {
            writer.push(&n.to_string(), &vector, b"").unwrap();
        }
        writer.finish()
    };
    assert_eq!(
        node.bulk("c", of(61)).await.code(),
        ErrorCode::PayloadTooLarge
    );
    assert_eq!(node.end(), before);
    // Large enough to be encoded beside the threads that serve everybody else.
    node.bulk("c", of(40)).await.good();
    assert_eq!(node.end().offset, before.offset + 40);
}

#[tokio::test]
async fn records_for_a_collection_that_was_made_anew_meanwhile_are_not_written() {
    use crate::writer::{EncodedPuts, WriteError, WriteRequest};

    let node = Node::with_collection().await;
    let before = node.api.store.collection("c").unwrap().incarnation();
    node.delete("/collections/c").await.good();
    node.post("/collections", r#"{"name": "c", "dimension": 2}"#)
        .await
        .good();
    let end = node.end();
    let late = WriteRequest::Puts(EncodedPuts {
        collection: "c".to_owned(),
        incarnation: before,
        count: 1,
        records: Default::default(),
    });
    let Err(WriteError::Api(error)) = node.api.writer.write(late).await else {
        panic!("it was taken");
    };
    assert_eq!(error.error_type, ErrorCode::Conflict);
    assert_eq!(node.end(), end);
}

#[tokio::test]
async fn the_document_names_the_content_type_of_bulk_bodies() {
    let node = Node::master().await;
    let document = node.get("/openapi.json").await.good();
    let operation = &document["paths"]["/collections/{name}/bulk"]["post"];
    assert!(operation["requestBody"]["content"][BULK_CONTENT_TYPE].is_object());
}
