use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::*;
use crate::error::ErrorCode;

/// A peer that takes one connection, reads the head of a request and answers `answer`; then tells what it read.
async fn peer(answer: &'static str) -> (Client, oneshot::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(
        format!("http://{}/", listener.local_addr().unwrap()),
        Timeouts {
            connect: Duration::from_secs(5),
            overall: Duration::from_secs(5),
        },
    )
    .unwrap();
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.windows(4).any(|w| w == b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        socket.write_all(answer.as_bytes()).await.unwrap();
        let _ = socket.shutdown().await;
        let _ = tell.send(String::from_utf8(head).unwrap().to_lowercase());
    });
    (client, told)
}

#[tokio::test]
async fn a_refusal_comes_back_as_the_nodes_own_error() {
    let (client, _) = peer(concat!(
        "HTTP/1.1 409 Conflict\r\ncontent-length: 62\r\n\r\n",
        r#"{"error_type":"conflict","message":"no","status_code":409}    "#
    ))
    .await;
    let error = client.control_state().await.unwrap_err();
    assert_eq!(error.api().unwrap().error_type, ErrorCode::Conflict);
    assert!(error.has_no_side_effects());
}

#[tokio::test]
async fn a_node_that_does_not_know_a_credential_yet_is_shown_the_one_before() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for _ in 0..3 {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap().to_lowercase();
            let status = if head.contains("authorization: bearer old\r\n") {
                "200 OK"
            } else {
                "401 Unauthorized"
            };
            let answer =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            socket.write_all(answer.as_bytes()).await.unwrap();
            let _ = socket.shutdown().await;
        }
    });
    let client = Client::new(url, Timeouts::default()).unwrap();
    let both = client
        .clone()
        .with_tokens(Some("new".into()), Some("old".into()));
    assert_eq!(both.live().await, Ok(true));
    let alone = client.with_tokens(Some("new".into()), None).live().await;
    assert!(alone.is_err(), "{alone:?}");
}

#[tokio::test]
async fn an_answer_that_is_larger_than_the_caller_takes_is_not_read_to_its_end() {
    // It says that it has a gigabyte, and begins with it.
    let answer = concat!(
        "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n",
        "{\"node\": \"a node with a long name, and much to say\""
    );
    let (client, _) = peer(answer).await;
    let error = client.taking_at_most(32).control_state().await.unwrap_err();
    let ClientError::NotUnderstood { cause, .. } = error else {
        panic!("{error:?}")
    };
    assert!(cause.contains("larger than 32 bytes"), "{cause}");
}

#[tokio::test]
async fn nobody_listening_is_a_connect_error_and_nothing_happened() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(url, Timeouts::default()).unwrap();
    let error = client.replication_status().await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    assert!(error.has_no_side_effects());
}

#[tokio::test]
async fn silence_is_a_timeout_and_anything_may_have_happened() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let timeouts = Timeouts {
        connect: Duration::from_secs(5),
        overall: Duration::from_millis(50),
    };
    let client = Client::new(
        format!("http://{}", listener.local_addr().unwrap()),
        timeouts,
    );
    let error = client.unwrap().replication_stats().await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
    assert!(!error.has_no_side_effects());
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_of_an_answer_is_broken() {
    let (client, _) = peer("HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n{").await;
    let error = client.replication_status().await.unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_of_some_other_program_is_not_understood() {
    let (client, _) = peer("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
    let error = client.replication_status().await.unwrap_err();
    assert!(
        matches!(error, ClientError::NotUnderstood { status: 200, .. }),
        "{error:?}"
    );
    let (client, _) = peer("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 5\r\n\r\nhello").await;
    let error = client.replication_status().await.unwrap_err();
    assert!(
        matches!(error, ClientError::NotUnderstood { status: 502, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_credential_is_sent_and_never_printed() {
    let (client, told) = peer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    let client = client.with_token("s3cret");
    assert!(!format!("{client:?}").contains("s3cret"));
    let _ = client.control_state().await;
    assert!(told.await.unwrap().contains("authorization: bearer s3cret"));
}

#[tokio::test]
async fn a_node_that_is_not_ready_is_an_answer_not_an_error() {
    let (client, _) = peer("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(client.ready().await, Ok(false));
    let (client, _) = peer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(client.ready().await, Ok(true));
}

#[test]
fn a_url_without_sense_is_refused_before_anything_is_sent() {
    let client = Client::new("not a url", Timeouts::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let error = runtime.block_on(client.control_state()).unwrap_err();
    assert!(matches!(error, ClientError::Request { .. }), "{error:?}");
}
