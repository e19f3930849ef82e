//! The writer over a real data directory: what is acknowledged, what is refused, and what a restart finds.

mod diverged;
mod panics;
mod power;
mod troubles;

use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::{Value, json};
use tempfile::TempDir;
use vectorizer_api::replication::Role;

use super::*;
use crate::clock::boot_time_ms;
use crate::config::Durability;
use crate::data_dir::DataDir;
use crate::journal::JournalOptions;
use crate::permit::Permit;
use crate::store::{CollectionConfig, Metric, Numbers, Record, Store};

struct Node {
    writer: WriterHandle,
    store: std::sync::Arc<Store>,
    permit: Permit,
}

fn open(dir: &Path) -> Node {
    open_with(dir, WriterOptions::default())
}

fn open_with(dir: &Path, options: WriterOptions) -> Node {
    let (data, opened) = DataDir::open(dir, JournalOptions::default()).unwrap();
    let store = opened.store.clone();
    let permit = Permit::unlimited();
    let start = start(data, opened, permit.clone(), Uuid::new_v4(), options).unwrap();
    Node {
        writer: start.handle,
        store,
        permit,
    }
}

const CLUSTER: Uuid = Uuid::from_u128(0xc1);

async fn master(dir: &Path) -> Node {
    let node = open(dir);
    node.writer
        .command(Command::Initialize {
            cluster: CLUSTER,
            epoch: 1,
        })
        .await
        .unwrap();
    node
}

async fn replica(dir: &Path, epoch: u64) -> Node {
    let node = open(dir);
    follow(&node, epoch).await.unwrap();
    node
}

async fn follow(node: &Node, epoch: u64) -> Result<(), ApiError> {
    let master_address = "127.0.0.1:7001".to_owned();
    node.writer
        .command(Command::Follow {
            cluster: CLUSTER,
            epoch,
            master_address,
            master_url: None,
        })
        .await
}

fn create(name: &str) -> WriteRequest {
    WriteRequest::CreateCollection {
        name: name.into(),
        config: CollectionConfig::new(2, Metric::Cosine),
    }
}

/// Vectors for collection `c`, each with its id in its payload.
fn puts(store: &Store, ids: &[&str]) -> WriteRequest {
    let collection = store.collection("c").unwrap();
    let mut puts = Puts::new(&collection, 0);
    for id in ids {
        let payload = json!({ "n": id }).to_string();
        let vector = Numbers::Floats(&[1.0, 2.0]);
        puts.push(id, vector, payload.as_bytes()).unwrap();
    }
    WriteRequest::Puts(puts.finish())
}

async fn put(node: &Node, id: &str) -> Result<WriteReply, WriteError> {
    node.writer.write(puts(&node.store, &[id])).await
}

fn code(error: &WriteError) -> ErrorCode {
    match error {
        WriteError::Api(error) => error.error_type,
        WriteError::HandingOver => panic!("handing over"),
    }
}

/// Everything that `from` has after `after`, given to `to` as its master's link would.
async fn copy(from: &Node, to: &Node, session: SessionId, after: u64) {
    let batches = from.writer.log().read(after + 1, 1 << 20).unwrap();
    to.writer.replicate(session, batches).await.unwrap();
    to.writer.settled().await;
}

#[tokio::test]
async fn a_write_is_answered_with_its_position_once_it_is_durable() {
    let dir = TempDir::new().unwrap();
    let node = master(dir.path()).await;
    // Offset 1 is the epoch record.
    assert_eq!(
        node.writer.write(create("c")).await.unwrap().position,
        Position::new(1, 2)
    );
    assert_eq!(put(&node, "a").await.unwrap().position, Position::new(1, 3));
    assert_eq!(node.writer.progress().borrow().durable, 3);
    assert_eq!(node.store.applied(), Position::new(1, 3));
}

#[tokio::test]
async fn with_durability_interval_the_last_write_reaches_the_disk_too() {
    let dir = TempDir::new().unwrap();
    let options = WriterOptions {
        durability: Durability::Interval,
        ..WriterOptions::default()
    };
    let node = open_with(dir.path(), options);
    let initialize = Command::Initialize {
        cluster: CLUSTER,
        epoch: 1,
    };
    node.writer.command(initialize).await.unwrap();
    let reply = node.writer.write(create("c")).await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while node.writer.log().durable() < reply.position.offset {
        assert!(std::time::Instant::now() < deadline, "never synced");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_restarted_master_comes_back_at_its_position_and_writes_only_in_a_new_epoch() {
    let dir = TempDir::new().unwrap();
    let node = master(dir.path()).await;
    node.writer.write(create("c")).await.unwrap();
    put(&node, "a").await.unwrap();
    node.writer.stop().await;
    drop(node);

    let node = open(dir.path());
    assert_eq!(
        node.writer.state().borrow().role,
        Role::Unassigned,
        "it has to be granted an epoch first"
    );
    assert_eq!(code(&put(&node, "b").await.unwrap_err()), ErrorCode::Fenced);
    assert!(
        node.writer
            .command(Command::Retake { epoch: 1 })
            .await
            .is_err(),
        "its own epoch is spent"
    );
    node.writer
        .command(Command::Retake { epoch: 2 })
        .await
        .unwrap();
    assert_eq!(put(&node, "b").await.unwrap().position, Position::new(2, 5));
    let epochs: Vec<u64> = node
        .writer
        .state()
        .borrow()
        .history
        .entries()
        .iter()
        .map(|e| e.epoch)
        .collect();
    assert_eq!(epochs, [1, 2]);
    assert_eq!(node.store.collection("c").unwrap().count(), 2);
}

#[tokio::test]
async fn an_update_is_logged_as_the_whole_record_that_it_results_in() {
    let dir = TempDir::new().unwrap();
    let node = master(dir.path()).await;
    node.writer.write(create("c")).await.unwrap();
    put(&node, "a").await.unwrap();
    let change = UpdateItem {
        id: "a".into(),
        vector: None,
        payload: Some(Bytes::from_static(br#"{"tag":"new"}"#)),
    };
    let missing = UpdateItem {
        id: "none".into(),
        vector: None,
        payload: None,
    };
    let request = WriteRequest::Update {
        collection: "c".into(),
        items: vec![change, missing],
        atomic: false,
    };
    let reply = node.writer.write(request).await.unwrap();
    assert_eq!(
        reply.results[1].outcome.as_ref().unwrap_err().error_type,
        ErrorCode::VectorNotFound
    );
    let stored = node.store.collection("c").unwrap().get("a").unwrap();
    let payload: Value = serde_json::from_slice(&stored.payload).unwrap();
    assert_eq!(payload, json!({ "n": "a", "tag": "new" }));
}

#[tokio::test]
async fn a_refused_write_leaves_no_trace_in_the_log() {
    let dir = TempDir::new().unwrap();
    let node = master(dir.path()).await;
    node.writer.write(create("c")).await.unwrap();
    let before = node.writer.progress().borrow().end;
    for (request, expected) in [
        (create("c"), ErrorCode::CollectionExists),
        (create("no spaces"), ErrorCode::InvalidRequest),
        (
            WriteRequest::DropCollection {
                name: "none".into(),
            },
            ErrorCode::CollectionNotFound,
        ),
        (
            WriteRequest::Delete {
                collection: "c".into(),
                ids: vec!["none".into()],
                atomic: true,
            },
            ErrorCode::VectorNotFound,
        ),
    ] {
        let error = node.writer.write(request.clone()).await.unwrap_err();
        assert_eq!(code(&error), expected, "{request:?}");
    }
    assert_eq!(node.writer.progress().borrow().end, before);
}

#[tokio::test]
async fn a_master_whose_permit_has_run_out_acknowledges_nothing() {
    let dir = TempDir::new().unwrap();
    let node = master(dir.path()).await;
    node.writer.write(create("c")).await.unwrap();
    node.permit.revoke();
    assert_eq!(code(&put(&node, "a").await.unwrap_err()), ErrorCode::Fenced);
    node.permit.extend(boot_time_ms() + 60_000);
    put(&node, "a").await.unwrap();
}

#[tokio::test]
async fn a_fence_stops_the_master_for_good_and_survives_a_restart() {
    let dir = TempDir::new().unwrap();
    let node = master(dir.path()).await;
    node.writer.write(create("c")).await.unwrap();
    node.writer
        .command(Command::Fence {
            cluster: CLUSTER,
            epoch: 5,
        })
        .await
        .unwrap();
    assert_eq!(code(&put(&node, "a").await.unwrap_err()), ErrorCode::Fenced);
    node.writer.stop().await;
    drop(node);

    let node = open(dir.path());
    assert_eq!(node.writer.state().borrow().promised, 5);
    assert!(
        node.writer
            .command(Command::Retake { epoch: 6 })
            .await
            .is_err(),
        "a fenced master waits to be told"
    );
    assert!(
        follow(&node, 4).await.is_err(),
        "4 is below what it promised"
    );
    follow(&node, 5).await.unwrap();
}

#[tokio::test]
async fn held_writes_are_asked_to_wait_and_a_deadline_lets_them_go_on() {
    let dir = TempDir::new().unwrap();
    let node = master(dir.path()).await;
    node.writer.write(create("c")).await.unwrap();
    let plan = HandedOver {
        from_epoch: 1,
        epoch: 2,
        target: Uuid::from_u128(7),
    };
    let until = std::time::Instant::now() + Duration::from_secs(2);
    let hold = |reply| Job::HoldWrites {
        cluster: CLUSTER,
        plan,
        until,
        reply,
    };
    let held = node.writer.refusable(hold).await.unwrap();
    assert_eq!(held.end, Position::new(1, 2));
    assert_eq!(put(&node, "a").await.unwrap_err(), WriteError::HandingOver);
    let mut state = node.writer.state();
    state.wait_for(|s| !s.handing_over).await.unwrap();
    put(&node, "a").await.unwrap();
    let late = node
        .writer
        .refusable(|reply| Job::FinishHandover(plan, held, reply))
        .await;
    assert!(late.unwrap_err().message.contains("deadline"));
    put(&node, "b").await.unwrap();
}

#[tokio::test]
async fn a_finished_handover_stops_writes_at_the_position_that_it_answers() {
    let dir = TempDir::new().unwrap();
    let node = master(dir.path()).await;
    node.writer.write(create("c")).await.unwrap();
    let plan = HandedOver {
        from_epoch: 1,
        epoch: 2,
        target: Uuid::from_u128(7),
    };
    let until = std::time::Instant::now() + Duration::from_secs(30);
    let hold = |reply| Job::HoldWrites {
        cluster: CLUSTER,
        plan,
        until,
        reply,
    };
    let held = node.writer.refusable(hold).await.unwrap();
    for _ in 0..2 {
        node.writer
            .refusable(|reply| Job::FinishHandover(plan, held, reply))
            .await
            .unwrap();
    }
    let state = node.writer.state().borrow().clone();
    assert_eq!((state.master_epoch, state.promised), (0, 2));
    assert!(state.handed_over_at.is_some());
    // What was on its way to this writer goes to the next master instead.
    let late = put(&node, "late").await.unwrap_err();
    assert!(matches!(late, WriteError::HandingOver), "{late:?}");
    assert_eq!(node.writer.progress().borrow().end.position, held.end);
    assert!(
        node.writer
            .command(Command::Retake { epoch: 3 })
            .await
            .is_err(),
        "what was handed over stays so"
    );
}

#[tokio::test]
async fn a_handover_neither_ends_nor_finishes_on_the_hold_of_one_that_was_given_later() {
    let dir = TempDir::new().unwrap();
    let node = master(dir.path()).await;
    node.writer.write(create("c")).await.unwrap();
    let plan = HandedOver {
        from_epoch: 1,
        epoch: 2,
        target: Uuid::from_u128(7),
    };
    let hold = async || {
        let until = std::time::Instant::now() + Duration::from_secs(30);
        let hold = |reply| Job::HoldWrites {
            cluster: CLUSTER,
            plan,
            until,
            reply,
        };
        node.writer.refusable(hold).await.unwrap()
    };
    let finish = async |held| {
        let finish = |reply| Job::FinishHandover(plan, held, reply);
        node.writer.refusable(finish).await
    };
    let release = async |held: Held| {
        let release = Job::ReleaseWrites(held.number);
        node.writer.jobs.send(release).await.unwrap();
    };
    let first = hold().await;
    let second = hold().await;
    release(first).await;
    assert_eq!(put(&node, "a").await.unwrap_err(), WriteError::HandingOver);
    release(second).await;
    put(&node, "a").await.unwrap();
    // Its target has everything up to where the second one's log ended, and that is not all any more.
    let third = hold().await;
    assert_ne!(third.end, second.end);
    for stale in [first, second] {
        let refused = finish(stale).await.unwrap_err();
        assert_eq!(refused.error_type, ErrorCode::Conflict, "{refused}");
    }
    assert_eq!(node.writer.state().borrow().master_epoch, 1);
    finish(third).await.unwrap();
    assert_eq!(node.writer.state().borrow().promised, 2);
}

#[tokio::test]
async fn a_replica_appends_what_fits_and_stops_at_what_does_not() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let from = master(a.path()).await;
    from.writer.write(create("c")).await.unwrap();
    put(&from, "x").await.unwrap();
    let to = replica(b.path(), 1).await;
    assert_eq!(
        code(
            &to.writer
                .write(puts(&from.store, &["y"]))
                .await
                .unwrap_err()
        ),
        ErrorCode::NotMaster
    );
    let session = to.writer.accept_master(1, CLUSTER).await.unwrap();
    copy(&from, &to, session, 0).await;
    assert_eq!(from.store.digest(), to.store.digest());
    assert_eq!(
        from.writer.state().borrow().history,
        to.writer.state().borrow().history
    );

    let again = from.writer.log().read(3, 1 << 20).unwrap();
    let error = to.writer.replicate(session, again).await.unwrap_err();
    assert!(matches!(error, SinkError::Mismatch(_)), "{error}");
    assert!(to.writer.state().borrow().fault.is_some());
    assert_eq!(
        to.writer.replicate(session, Vec::new()).await,
        Err(SinkError::SessionOver)
    );
}

#[tokio::test]
async fn an_older_session_and_a_stale_or_foreign_master_are_refused() {
    let dir = TempDir::new().unwrap();
    let node = replica(dir.path(), 3).await;
    assert!(matches!(
        node.writer.accept_master(2, CLUSTER).await,
        Err(SinkError::Refused(_))
    ));
    assert!(matches!(
        node.writer.accept_master(3, Uuid::from_u128(9)).await,
        Err(SinkError::Refused(_))
    ));
    let first = node.writer.accept_master(3, CLUSTER).await.unwrap();
    let second = node.writer.accept_master(4, CLUSTER).await.unwrap();
    assert_eq!(
        node.writer.replicate(first, Vec::new()).await,
        Err(SinkError::SessionOver)
    );
    assert_eq!(node.writer.replicate(second, Vec::new()).await, Ok(()));
    assert_eq!(
        node.writer.state().borrow().promised,
        4,
        "promised before anything of epoch 4 is acknowledged"
    );
    node.writer
        .command(Command::Fence {
            cluster: CLUSTER,
            epoch: 5,
        })
        .await
        .unwrap();
    assert_eq!(
        node.writer.replicate(second, Vec::new()).await,
        Err(SinkError::SessionOver)
    );
}

#[tokio::test]
async fn a_full_sync_serves_the_old_data_until_the_new_is_exact_and_survives_a_restart() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let from = master(a.path()).await;
    from.writer.write(create("c")).await.unwrap();
    put(&from, "x").await.unwrap();
    // Another history on the replica, of an earlier master.
    let to = open(b.path());
    to.writer
        .command(Command::Initialize {
            cluster: CLUSTER,
            epoch: 1,
        })
        .await
        .unwrap();
    to.writer.write(create("old")).await.unwrap();
    from.writer
        .command(Command::Fence {
            cluster: CLUSTER,
            epoch: 2,
        })
        .await
        .unwrap();
    let at = from.writer.progress().borrow().end.position;
    from.writer
        .command(Command::Promote {
            cluster: CLUSTER,
            epoch: 2,
            at,
        })
        .await
        .unwrap();
    follow(&to, 2).await.unwrap();

    let session = to.writer.accept_master(2, CLUSTER).await.unwrap();
    let mut scan = from.store.scan();
    let header = scan.header().clone();
    let start = header.start.position.offset;
    to.writer.snapshot_begin(session, header).await.unwrap();
    for index in 0.. {
        // Written while the scan goes on: the snapshot is exact only behind it.
        put(&from, &format!("during-{index}")).await.unwrap();
        let Some(chunk) = scan.next() else { break };
        to.writer
            .snapshot_chunk(session, index, chunk)
            .await
            .unwrap();
        assert!(
            to.store.collection("old").is_some(),
            "the old data is served meanwhile"
        );
    }
    to.writer
        .snapshot_end(session, scan.trailer().unwrap())
        .await
        .unwrap();
    copy(&from, &to, session, start).await;
    assert!(to.store.collection("old").is_none());
    assert_eq!(from.store.digest(), to.store.digest());
    assert!(!to.writer.state().borrow().syncing);
    to.writer.stop().await;
    drop(to);

    let to = open(b.path());
    assert_eq!(from.store.digest(), to.store.digest());
    assert_eq!(
        to.writer.progress().borrow().end,
        from.writer.progress().borrow().end
    );
}

#[tokio::test]
async fn a_divergent_tail_is_undone_and_written_aside() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let from = master(a.path()).await;
    from.writer.write(create("c")).await.unwrap();
    let to = replica(b.path(), 1).await;
    let session = to.writer.accept_master(1, CLUSTER).await.unwrap();
    copy(&from, &to, session, 0).await;
    // The former master goes on alone; the replica is promoted.
    put(&from, "lost").await.unwrap();
    let at = to.writer.progress().borrow().end.position;
    to.writer
        .command(Command::Promote {
            cluster: CLUSTER,
            epoch: 2,
            at,
        })
        .await
        .unwrap();
    put(&to, "kept").await.unwrap();
    follow(&from, 2).await.unwrap();
    let session = from.writer.accept_master(2, CLUSTER).await.unwrap();
    assert_eq!(
        from.writer.truncate(session, at).await.unwrap(),
        TruncateOutcome::Done
    );
    copy(&to, &from, session, at.offset).await;
    assert_eq!(from.store.digest(), to.store.digest());
    assert!(from.store.collection("c").unwrap().get("lost").is_none());
    let aside: Vec<_> = std::fs::read_dir(a.path().join("rollback"))
        .unwrap()
        .collect();
    assert_eq!(aside.len(), 1, "what was undone can be read by a person");
}
