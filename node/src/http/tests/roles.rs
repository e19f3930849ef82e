use std::time::Duration;

use serde_json::json;
use vectorizer_api::POSITION_HEADER;

use super::*;
use crate::http::endpoint::Kind;
use crate::http::endpoints;
use crate::writer::TruncateOutcome;

/// Nothing takes longer, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_replica_refuses_every_write_and_names_the_master() {
    let node = Node::replica().await;
    let mut refused = 0;
    for endpoint in endpoints::all() {
        let writes = endpoint.kind == Kind::Write;
        let reads = endpoint.method == Method::GET
            || endpoint.path.contains("search")
            || endpoint.path == "/embed"
            || endpoint.path.starts_with("/control")
            || endpoint.path.starts_with("/replication");
        assert!(
            writes != reads,
            "{} {} is one or the other",
            endpoint.method,
            endpoint.path
        );
        if !writes {
            continue;
        }
        let path = endpoint.path.replace("{name}", "c").replace("{id}", "1");
        let answer = node.call(endpoint.method.clone(), &path, "{}").await;
        let error = answer.error();
        assert_eq!(
            error.error_type,
            ErrorCode::NotMaster,
            "{} {path}",
            endpoint.method
        );
        assert_eq!(answer.status.as_u16(), 421);
        let details = error.details.unwrap();
        assert_eq!(details["master"], "10.0.0.1:7001");
        assert_eq!(details["master_url"], "http://10.0.0.1:15002");
        assert_eq!(answer.header(vectorizer_api::ROLE_HEADER), "replica");
        // Through a Service, the next connection finds the master.
        assert_eq!(answer.header("connection"), "close");
        refused += 1;
    }
    assert_eq!(refused, 12);
}

#[tokio::test]
async fn a_node_without_data_answers_no_reads_and_is_not_ready() {
    for node in [Node::replica().await, Node::unassigned(&[])] {
        for path in ["/collections", "/collections/c/vectors/1"] {
            let answer = node.get(path).await;
            assert_eq!(answer.code(), ErrorCode::Unavailable);
            assert_eq!(answer.header("retry-after"), "1");
            assert_eq!(answer.header("connection"), "close");
        }
        assert_eq!(node.get("/readyz").await.code(), ErrorCode::Unavailable);
        node.get("/livez").await.good();
        node.get("/health").await.good();
    }
    let write = Node::unassigned(&[]).post("/insert", "{}").await;
    assert_eq!(write.code(), ErrorCode::Fenced);
}

#[tokio::test]
async fn a_former_master_does_not_call_lost_what_a_newer_epoch_holds() {
    let node = Node::with_collection().await;
    let follow = Command::Follow {
        cluster: CLUSTER,
        epoch: 7,
        master_address: "10.0.0.1:7001".to_owned(),
        master_url: None,
    };
    node.api.writer.command(follow).await.unwrap();
    // Its own log is as long, in an older epoch.
    let newer = Position::new(7, node.end().offset).to_string();
    let error = node.send(reading(&newer)).await.error();
    assert_eq!(error.error_type, ErrorCode::Unavailable, "{error}");
}

#[tokio::test]
async fn a_copy_that_is_unlike_its_masters_is_not_read_and_not_promoted() {
    let node = Node::master().await;
    let epoch = node.get("/replication/status").await.good()["epoch"]
        .as_u64()
        .unwrap();
    let writer = &node.api.writer;
    writer.unlike("of no concern to a master".to_owned()).await;
    node.get("/collections").await.good();
    let follow = Command::Follow {
        cluster: CLUSTER,
        epoch: epoch + 1,
        master_address: "10.0.0.1:7001".to_owned(),
        master_url: None,
    };
    writer.command(follow).await.unwrap();
    node.get("/collections").await.good();
    writer.unlike("the digest at 1.7".to_owned()).await;
    for path in ["/collections", "/readyz"] {
        let error = node.get(path).await.error();
        assert_eq!(error.error_type, ErrorCode::Unavailable);
        assert!(error.message.contains("the digest at 1.7"), "{error}");
    }
    let status = node.get("/replication/status").await.good();
    let warnings = status["warnings"].as_array().unwrap();
    assert!(warnings.contains(&json!("the digest at 1.7")), "{status}");
    node.get("/livez").await.good();
    let promote = Command::Promote {
        cluster: CLUSTER,
        epoch: epoch + 2,
        at: writer.progress().borrow().end.position,
    };
    let refused = writer.command(promote).await.unwrap_err();
    assert_eq!(refused.error_type, ErrorCode::Conflict);
    assert!(refused.message.contains("the digest at 1.7"), "{refused}");
}

#[tokio::test]
async fn what_the_master_does_not_have_is_not_read_until_this_node_has_given_it_up() {
    let node = Node::with_collection().await;
    let two = r#"{"collection": "c", "atomic": true, "vectors": [
        {"id": "a", "embedding": [1, 2]}, {"id": "b", "embedding": [1, 2]}]}"#;
    let at = node.post("/insert_vectors", two).await.position();
    let writer = &node.api.writer;
    let follow = Command::Follow {
        cluster: CLUSTER,
        epoch: at.epoch + 1,
        master_address: "10.0.0.1:7001".to_owned(),
        master_url: None,
    };
    writer.command(follow).await.unwrap();
    let accept = || writer.accept_master(at.epoch + 1, CLUSTER);
    let session = accept().await.unwrap();
    let reads = ["/collections", "/collections/c/vectors/a"];
    for path in reads {
        node.get(path).await.good();
    }
    // No log can be cut inside a batch: only a full sync helps.
    let inside = Position::new(at.epoch, at.offset - 1);
    let outcome = writer.truncate(session, inside).await.unwrap();
    assert_eq!(outcome, TruncateOutcome::NeedsSnapshot);
    let what = format!("(operations {} to {})", at.offset, at.offset);
    for path in reads.into_iter().chain(["/replication/digest", "/readyz"]) {
        let answer = node.get(path).await;
        let error = answer.error();
        assert_eq!(error.error_type, ErrorCode::Unavailable);
        assert!(error.error_type.has_no_side_effects());
        assert!(error.message.contains(&what), "{error}");
    }
    assert_eq!(
        node.send(reading(&at.to_string())).await.code(),
        ErrorCode::Unavailable
    );
    let status = node.get("/replication/status").await.good();
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains(&what), "{status}");
    node.get("/livez").await.good();
    // Another master has all of it.
    let session = accept().await.unwrap();
    writer.continues(session).await.unwrap();
    for path in reads.into_iter().chain(["/readyz"]) {
        node.get(path).await.good();
    }
}

#[tokio::test]
async fn replicas_are_listed_by_the_master_only() {
    let list = Node::master()
        .await
        .get("/replication/replicas")
        .await
        .good();
    assert_eq!(list, json!({ "replicas": [], "count": 0 }));
    let answer = Node::replica().await.get("/replication/replicas").await;
    assert_eq!(answer.status.as_u16(), 400);
    let path = format!("/replication/replicas/{}", CLUSTER);
    for (node, path, code) in [
        (
            Node::replica().await,
            path.as_str(),
            ErrorCode::InvalidRequest,
        ),
        (
            Node::master().await,
            path.as_str(),
            ErrorCode::ReplicaNotFound,
        ),
        (
            Node::master().await,
            "/replication/replicas/7",
            ErrorCode::InvalidRequest,
        ),
    ] {
        assert_eq!(node.call(Method::DELETE, path, "").await.code(), code);
    }
    let error = answer.error();
    assert!(error.message.contains("http://10.0.0.1:15002"), "{error}");
    assert_eq!(error.details.unwrap()["master"], "10.0.0.1:7001");
}

#[tokio::test]
async fn status_and_stats_have_the_specifications_fields_and_types() {
    let node = Node::master_with(&["replication.role=master", "replication.log_size=5000"]).await;
    let status = node.get("/replication/status").await.good();
    assert_eq!(status["enabled"], true);
    assert_eq!(status["role"], "master");
    assert_eq!(status["bind_address"], "[::]:7001");
    assert_eq!(status["connected_replicas"], 0);
    assert_eq!(status["replication_log_size"], 5000);
    assert_eq!(status["current_offset"], node.end().offset);
    assert!(
        status.get("stats").is_none() && status.get("replicas").is_none(),
        "flat"
    );
    let stats = node.get("/replication/stats").await.good();
    assert_eq!(stats["role"], "master");
    for field in [
        "bytes_sent",
        "bytes_received",
        "last_sync",
        "operations_pending",
        "snapshot_size",
        "connected_replicas",
        "current_offset",
        "replication_log_size",
    ] {
        assert!(stats[field].is_u64(), "{field}: {stats}");
    }
    let status = Node::master().await.get("/replication/status").await.good();
    assert_eq!(status["enabled"], false);
    assert_eq!(status["role"], "master");
    let status = Node::replica()
        .await
        .get("/replication/status")
        .await
        .good();
    assert_eq!(status["role"], "replica");
    assert_eq!(status["master_address"], "10.0.0.1:7001");
    assert_eq!(status["connected"], false);
}

#[tokio::test]
async fn configure_stores_what_the_next_start_reads() {
    let node = Node::master_with(&["replication.role=master"]).await;
    let wish = r#"{"role": "master", "bind_address": "0.0.0.0:7001", "heartbeat_interval": 5, "log_size": 1000000}"#;
    let answer = node.post("/replication/configure", wish).await.good();
    assert_eq!(answer["success"], true);
    assert_eq!(answer["role"], "Master");
    assert_eq!(
        answer["message"],
        "Replication configured successfully. Server restart required."
    );
    let stored = node.dir.path().join("data/replication.yaml");
    let stored = std::fs::read_to_string(stored).unwrap();
    assert!(stored.contains("heartbeat_interval_secs: 5"), "{stored}");
    for (wish, place) in [
        (r#"{}"#, "role"),
        (r#"{"role": "king"}"#, "role"),
        (r#"{"role": "replica"}"#, "master_address"),
        (r#"{"role": "master", "log_size": 0}"#, "log_size"),
        (r#"{"role": "master", "log_size": "many"}"#, "log_size"),
        (r#"{"role": "master", "logsize": 1}"#, "logsize"),
    ] {
        let error = node.post("/replication/configure", wish).await.error();
        assert_eq!(error.error_type, ErrorCode::InvalidRequest);
        assert_eq!(error.details.clone().unwrap()["path"], place, "{error}");
    }
    let node = Node::unassigned(&["kubernetes.namespace=ns", "kubernetes.lease=vc"]);
    let answer = node.post("/replication/configure", wish).await;
    assert_eq!(answer.code(), ErrorCode::Conflict);
}

#[tokio::test]
async fn commands_answer_the_state_after_them_and_refusals_say_why() {
    let node = Node::locked().await.with_key(CONTROL);
    let state = node.get("/control/state").await.good();
    assert_eq!(state["role"], "master");
    assert_eq!(state["masterEpoch"], 1);
    assert_eq!(state["writable"], true);
    assert_eq!(state["hasData"], true);
    assert_eq!(state["connected"], true);
    let typed: vectorizer_api::control::State = serde_json::from_value(state).unwrap();
    assert_eq!(typed.position, node.end());

    let fence = json!({ "cluster": CLUSTER, "epoch": 2 }).to_string();
    for _ in 0..2 {
        let state = node.post("/control/fence", fence.clone()).await.good();
        assert_eq!(state["role"], "unassigned");
        assert_eq!(state["promisedEpoch"], 2);
        assert_eq!(state["writable"], false);
    }
    let stale = json!({ "cluster": CLUSTER, "epoch": 1 }).to_string();
    let error = node.post("/control/fence", stale).await.error();
    assert_eq!(error.error_type, ErrorCode::Conflict);
    assert!(error.message.contains("epoch 1 is below 2"), "{error}");
    let elsewhere = json!({ "cluster": CLUSTER, "epoch": 2, "at": { "epoch": 1, "offset": 99 } });
    let error = node
        .post("/control/promote", elsewhere.to_string())
        .await
        .error();
    assert_eq!(error.error_type, ErrorCode::Conflict);
    let promote = json!({ "cluster": CLUSTER, "epoch": 2, "at": typed.position });
    let state = node
        .post("/control/promote", promote.to_string())
        .await
        .good();
    assert_eq!(state["role"], "master");
    assert_eq!(state["masterEpoch"], 2);
    for (wish, place) in [
        (
            json!({ "masterAddress": "x", "masterUrl": "http://h:1" }),
            "masterAddress",
        ),
        (
            json!({ "masterAddress": "h:1", "masterUrl": "h:1" }),
            "masterUrl",
        ),
    ] {
        let mut follow = wish;
        follow["cluster"] = json!(CLUSTER);
        follow["epoch"] = json!(3);
        let error = node
            .post("/control/follow", follow.to_string())
            .await
            .error();
        assert_eq!(error.details.unwrap()["path"], place);
    }
}

fn reading(position: &str) -> Request<Body> {
    let request = Request::get("/collections/c/vectors").header(POSITION_HEADER, position);
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_read_waits_for_the_position_that_its_client_has_seen() {
    let node = Node::with_collection().await;
    let next = Position::new(1, node.end().offset + 1);
    let put = async {
        // The read is waiting by the time that the write is sent: it comes first in `join`.
        node.post(
            "/collections/c/vectors",
            r#"{"vectors": [{"id": "1", "data": [1, 2]}]}"#,
        )
        .await
        .good()
    };
    let (read, _) = tokio::join!(node.send(reading(&next.to_string())), put);
    assert_eq!(read.good()["total"], 1);
}

#[tokio::test]
async fn a_read_that_waits_in_vain_is_refused_with_the_position_reached() {
    let node = Node::with_collection().await;
    let far = Position::new(1, node.end().offset + 100).to_string();
    // Half a second later on a machine that is idle; on any machine, not never.
    let refused = tokio::time::timeout(DEADLINE, node.send(reading(&far))).await;
    let error = refused.unwrap().error();
    assert_eq!(error.error_type, ErrorCode::Unavailable);
    let details = error.details.unwrap();
    assert_eq!(details["position"], node.end().to_string());
    assert_eq!(details["wanted"], far);
}

#[tokio::test]
async fn a_position_of_another_history_is_not_waited_for() {
    let node = Node::with_collection().await;
    let lost = Position::new(7, node.end().offset).to_string();
    let error = node.send(reading(&lost)).await.error();
    assert_eq!(error.error_type, ErrorCode::Conflict);
    assert!(error.message.contains("lost in a failover"), "{error}");
    let nonsense = node.send(reading("yesterday")).await.error();
    assert_eq!(nonsense.error_type, ErrorCode::InvalidRequest);
    assert!(nonsense.message.contains("<epoch>.<offset>"), "{nonsense}");
    node.send(reading("0.0")).await.good();
}
