//! The write concern with real processes: what is answered is on a replica's disk, and is never given up.

use std::path::Path;
use std::time::Duration;

use vectorizer_api::ACKS_HEADER;
use vectorizer_api::client::ClientError;
use vectorizer_api::error::{ApiError, ErrorCode};

use super::agree::agree;
use super::harness::*;

/// A master that waits for one replica, and its replica.
async fn synchronous() -> (Machine, Machine) {
    let at_home = Machine::master()
        .set("replication.write_acks=1")
        .set("replication.heartbeat_interval_secs=1");
    let elsewhere = Machine::replica_of(&at_home);
    (at_home, elsewhere)
}

fn refusal(error: ClientError) -> ApiError {
    error.api().cloned().unwrap_or_else(|| panic!("{error}"))
}

/// Puts one vector with this header, and the status, body and position of the answer.
async fn put_asking(node: &Node, number: u32, acks: &str) -> (u16, serde_json::Value) {
    let body = serde_json::json!({
        "collection": "c", "vectors": [{ "id": id(number), "embedding": [number, 1.0] }]
    });
    let url = format!("{}/insert_vectors", node.client.base());
    let request = reqwest::Client::new().post(url).header(ACKS_HEADER, acks);
    let answer = request.json(&body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn an_answered_write_is_on_the_disk_of_a_replica_and_one_that_is_not_says_so() {
    let (at_home, elsewhere) = synchronous().await;
    let at_home = at_home.set("replication.write_timeout_secs=5");
    let (master, replica) = pair(&at_home, &elsewhere).await;
    for n in 0..50 {
        let written = master.put(n..n + 1).await;
        // Not "soon": at the moment of the answer.
        let durable = master.only_replica().await.durable_offset;
        assert!(durable >= written.offset, "{durable} after {written}");
    }
    replica.freeze().await;
    let error = refusal(master.try_put(50..51).await.unwrap_err());
    replica.signal("CONT");
    assert_eq!(error.error_type, ErrorCode::OutcomeUnknown);
    let position = error.details.unwrap()["position"].as_str().unwrap().parse();
    replica.reaches(position.unwrap()).await;
    replica.holds(0..51).await;
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn without_enough_replicas_nothing_is_written() {
    let (at_home, elsewhere) = synchronous().await;
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let written = master.put(0..10).await;
    replica.kill();
    until("the master to notice", async || {
        let replica = master.only_replica().await;
        if replica.connected {
            Err(replica)
        } else {
            Ok(())
        }
    })
    .await;
    let error = refusal(master.try_put(10..20).await.unwrap_err());
    assert_eq!(error.error_type, ErrorCode::NotEnoughReplicas);
    assert!(error.message.contains("1 acknowledgements"), "{error}");
    assert_eq!(master.status().await.current_offset, written.offset);
    master.holds(0..10).await;
    let replica = elsewhere.start().await;
    replica.reaches(written).await;
    until("writes to be accepted again", async || {
        master
            .try_put(10..20)
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    master.holds(0..20).await;
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

#[tokio::test]
async fn a_request_may_ask_for_more_than_the_cluster_does() {
    let at_home = Machine::master();
    let elsewhere = Machine::replica_of(&at_home);
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let (status, body) = put_asking(&master, 0, "1").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        master.only_replica().await.durable_offset,
        master.status().await.current_offset
    );
    let before = master.status().await.current_offset;
    let (status, body) = put_asking(&master, 1, "2").await;
    assert_eq!(
        (status, &body["error_type"]),
        (503, &"not_enough_replicas".into())
    );
    let (status, body) = put_asking(&master, 1, "all").await;
    assert_eq!(status, 400, "{body}");
    assert!(
        body["message"].as_str().unwrap().contains(ACKS_HEADER),
        "{body}"
    );
    assert_eq!(master.status().await.current_offset, before);
    agree([(&at_home, master), (&elsewhere, replica)]).await;
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status();
    assert!(copied.unwrap().success());
}

#[tokio::test]
async fn a_replica_does_not_give_up_what_was_acknowledged_to_a_master_that_came_back_from_an_old_copy()
 {
    let (at_home, elsewhere) = synchronous().await;
    let (master, replica) = pair(&at_home, &elsewhere).await;
    master.put(0..10).await;
    assert_eq!(master.stop().await, Some(0));
    let backup = tempfile::tempdir().unwrap();
    copy(&at_home.data_dir(), &backup.path().join("data"));

    let master = at_home.start().await;
    for n in 10..30 {
        master.put(n..n + 1).await;
    }
    let end = master.status().await.current_offset;
    until("the replica to know what is covered", async || {
        let known = replica.metric("vectorizer_covered_offset").await;
        if known >= end { Ok(()) } else { Err(known) }
    })
    .await;
    master.kill();
    std::fs::remove_dir_all(at_home.data_dir()).unwrap();
    copy(&backup.path().join("data"), &at_home.data_dir());

    let master = at_home.start().await;
    until("the replica to refuse", async || {
        let log = replica.said();
        if log.contains("which was acknowledged by enough replicas") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    replica.holds(0..30).await;
    assert_eq!(replica.stats().await.full_syncs, 0);
    // Nor does the master claim that somebody holds what it writes now.
    let written = tokio::time::timeout(Duration::from_secs(2), master.try_put(30..31)).await;
    assert!(!matches!(written, Ok(Ok(_))), "{written:?}");
}
