use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::http::endpoint::Kind;

/// Minutes of work for a core.
fn endless() -> String {
    let text = "word ".repeat(100_000);
    let queries = vec![json!({ "query": text }); 100];
    json!({ "collection": "c", "queries": queries }).to_string()
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_search_ends_when_its_client_hangs_up() {
    let node = Node::with_collection().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, node.api.clone(), 64, stop.clone()));
    let body = endless();
    let head = format!(
        "POST /batch_search HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(body.as_bytes()).await.unwrap();
    let at_work = || node.api.0.budget.of(Kind::Read).cores().at_work();
    until("the search never began", || at_work() == 1).await;
    drop(client);
    until("it goes on for nobody", || at_work() == 0).await;
    stop.cancel();
    server.await.unwrap();
}

#[tokio::test]
async fn a_search_ends_when_its_time_is_up_and_says_so() {
    let node = Node::master_with(&["server.request_timeout_secs=1"]).await;
    let wish = r#"{"name": "c", "dimension": 2}"#;
    node.post("/collections", wish).await.good();
    let error = node.post("/batch_search", endless()).await.error();
    assert_eq!(error.error_type, ErrorCode::Unavailable);
    assert_eq!(error.message, "not done within 1 s: the node is busy");
    let at_work = || node.api.0.budget.of(Kind::Read).cores().at_work();
    until("it goes on for nobody", || at_work() == 0).await;
}
