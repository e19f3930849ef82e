//! Disks that are full or refuse, and operations that cannot be applied: refused, and nothing is changed.

use super::*;

/// A writer that believes its disk to be full, and its node.
fn open_full(dir: &Path) -> Node {
    let options = WriterOptions {
        min_free_fraction: 10.0,
        ..WriterOptions::default()
    };
    open_with(dir, options)
}

/// Puts a directory where the role file's new version has to be, so that it cannot be written, as on a full disk.
fn block_role_file(dir: &Path) {
    std::fs::create_dir(dir.join("role.new")).unwrap();
}

fn unblock_role_file(dir: &Path) {
    std::fs::remove_dir(dir.join("role.new")).unwrap();
}

/// A batch after the end of `node`'s log, in `epoch`.
fn next_batch(node: &Node, epoch: u64, record: &Record) -> Batch {
    let end = node.writer.progress().borrow().end;
    let mut payload = BytesMut::new();
    record.encode(&mut payload);
    Batch::encode(epoch, end.position.offset + 1, 1, 0, end.chain, &payload).unwrap()
}

/// A replica that follows a master of epoch 1 and holds what it has, a collection `c`; and their session.
pub(super) async fn pair(a: &TempDir, b: &TempDir) -> (Node, Node, SessionId) {
    let from = master(a.path()).await;
    from.writer.write(create("c")).await.unwrap();
    let to = replica(b.path(), 1).await;
    let session = to.writer.accept_master(1, CLUSTER).await.unwrap();
    copy(&from, &to, session, 0).await;
    // The writer answers before it publishes.
    to.writer.settled().await;
    (from, to, session)
}

pub(super) fn two_dirs() -> (TempDir, TempDir) {
    (TempDir::new().unwrap(), TempDir::new().unwrap())
}

#[tokio::test]
async fn a_tail_that_cannot_be_written_aside_stays_and_is_undone_once_there_is_room() {
    let (a, b) = two_dirs();
    let (from, to, _) = pair(&a, &b).await;
    let at = to.writer.progress().borrow().end.position;
    put(&from, "lost").await.unwrap();
    from.writer
        .command(Command::Fence {
            cluster: CLUSTER,
            epoch: 2,
        })
        .await
        .unwrap();
    follow(&from, 2).await.unwrap();
    let session = from.writer.accept_master(2, CLUSTER).await.unwrap();
    let before = (from.writer.progress().borrow().end, from.store.digest());
    let aside = a.path().join("rollback");
    std::fs::write(&aside, "in the way").unwrap();
    let refused = from.writer.truncate(session, at).await.unwrap_err();
    assert!(matches!(refused, SinkError::Local(_)), "{refused}");
    let after = (from.writer.progress().borrow().end, from.store.digest());
    assert_eq!(after, before);
    let state = from.writer.state().borrow().clone();
    assert_eq!(state.fault, None);
    assert!(state.diverged.is_some(), "nobody reads it meanwhile");

    std::fs::remove_file(&aside).unwrap();
    let outcome = from.writer.truncate(session, at).await.unwrap();
    from.writer.settled().await;
    assert_eq!(from.writer.state().borrow().diverged, None);
    assert_eq!(outcome, TruncateOutcome::Done);
    assert_eq!(from.store.digest(), to.store.digest());
}

#[tokio::test]
async fn an_operation_that_cannot_be_applied_stops_the_replica_and_is_not_in_its_log() {
    let (a, b) = two_dirs();
    let (from, to, session) = pair(&a, &b).await;
    let before = to.writer.progress().borrow().end;
    let incarnation = 99;
    let bad = next_batch(&to, 1, &Record::DropCollection { incarnation });
    let error = to.writer.replicate(session, vec![bad]).await.unwrap_err();
    to.writer.settled().await;
    assert!(matches!(error, SinkError::Mismatch(_)), "{error}");
    assert!(error.to_string().contains("incarnation 99"), "{error}");
    assert_eq!(to.writer.progress().borrow().end, before);
    assert!(to.writer.state().borrow().fault.is_some());
    to.writer.stop().await;
    drop(to);

    let to = open(b.path());
    assert_eq!(to.writer.progress().borrow().end, before);
    // A master that was mended goes on from there.
    put(&from, "x").await.unwrap();
    let session = to.writer.accept_master(1, CLUSTER).await.unwrap();
    copy(&from, &to, session, before.position.offset).await;
    assert_eq!(from.store.digest(), to.store.digest());
}

#[tokio::test]
async fn a_replica_that_stopped_over_a_fault_is_not_promoted() {
    let (a, b) = two_dirs();
    let (_from, to, session) = pair(&a, &b).await;
    let incarnation = 99;
    let bad = next_batch(&to, 1, &Record::DropCollection { incarnation });
    to.writer.replicate(session, vec![bad]).await.unwrap_err();
    to.writer.settled().await;
    let at = to.writer.progress().borrow().end.position;
    let (cluster, epoch) = (CLUSTER, 2);
    let promote = Command::Promote { cluster, epoch, at };
    let refused = to.writer.command(promote.clone()).await.unwrap_err();
    assert_eq!(refused.error_type, ErrorCode::Conflict);
    assert!(refused.message.contains("incarnation 99"), "{refused}");
    assert_eq!(to.writer.state().borrow().promised, 1, "nothing happened");
    // A session with a master changes nothing: what was wrong still is.
    to.writer.accept_master(1, CLUSTER).await.unwrap();
    to.writer.command(promote.clone()).await.unwrap_err();
    // Somebody who restarts it wants its data as it is.
    to.writer.stop().await;
    drop(to);
    let to = open(b.path());
    to.writer.command(promote).await.unwrap();
}

#[tokio::test]
async fn a_replica_that_keeps_what_its_master_lacks_may_be_promoted() {
    let (a, b) = two_dirs();
    let (_from, to, session) = pair(&a, &b).await;
    let at = to.writer.progress().borrow().end.position;
    let mut progress = to.writer.progress();
    let durable = progress.wait_for(|p| p.durable >= at.offset).await;
    drop(durable.unwrap());
    to.writer.covered(session, at.offset).await.unwrap();
    let before = Position::new(at.epoch, at.offset - 1);
    let refused = to.writer.truncate(session, before).await.unwrap_err();
    assert!(matches!(refused, SinkError::Covered(_)), "{refused}");
    let state = to.writer.state();
    assert!(matches!(state.borrow().fault, Some(Fault::Ahead(_))));
    assert_eq!(state.borrow().diverged, None, "it may be read");
    let (cluster, epoch) = (CLUSTER, 2);
    let promote = Command::Promote { cluster, epoch, at };
    to.writer.command(promote).await.unwrap();
    assert_eq!(state.borrow().fault, None);
}

#[tokio::test]
async fn on_a_full_disk_a_replica_takes_nothing_more_and_can_be_promoted() {
    let (a, b) = two_dirs();
    let (from, to, _) = pair(&a, &b).await;
    let end = from.writer.progress().borrow().end;
    put(&from, "x").await.unwrap();
    let batches = from.writer.log().read(end.position.offset + 1, 1 << 20);
    let batches = batches.unwrap();
    to.writer.stop().await;
    drop(to);

    let to = open_full(b.path());
    let session = to.writer.accept_master(1, CLUSTER).await.unwrap();
    let refused = to.writer.replicate(session, batches).await.unwrap_err();
    assert!(matches!(refused, SinkError::Local(_)), "{refused}");
    let (cluster, epoch) = (CLUSTER, 2);
    let at = to.writer.progress().borrow().end.position;
    assert_eq!(at, end.position);
    let promote = Command::Promote { cluster, epoch, at };
    to.writer.command(promote).await.unwrap();
    let refused = put(&to, "y").await.unwrap_err();
    assert_eq!(code(&refused), ErrorCode::DiskFull);
    let drop = WriteRequest::DropCollection { name: "c".into() };
    to.writer.write(drop).await.unwrap();
}

#[tokio::test]
async fn a_replica_on_a_full_disk_takes_deletes() {
    let (a, b) = two_dirs();
    let (from, to, _) = pair(&a, &b).await;
    put(&from, "x").await.unwrap();
    to.writer.stop().await;
    drop(to);
    // It has the collection and lacks the vector.
    let to = open_full(b.path());
    let session = to.writer.accept_master(1, CLUSTER).await.unwrap();
    let before = to.writer.progress().borrow().end;
    let delete = Record::Delete {
        incarnation: 2,
        id: "x".into(),
    };
    let batch = next_batch(&to, 1, &delete);
    to.writer.replicate(session, vec![batch]).await.unwrap();
    to.writer.settled().await;
    let after = to.writer.progress().borrow().end.position.offset;
    assert_eq!(after, before.position.offset + 1);
}

#[tokio::test]
async fn below_the_first_limit_writes_that_grow_are_refused_and_deletes_go_on() {
    let dir = TempDir::new().unwrap();
    let node = master(dir.path()).await;
    node.writer.write(create("c")).await.unwrap();
    put(&node, "a").await.unwrap();
    node.writer.stop().await;
    drop(node);
    // The limit is above what is free, a fifth of it is not.
    let free = crate::data_dir::free_space(dir.path()).unwrap();
    let options = WriterOptions {
        min_free_fraction: free.fraction_after(0) * 2.0,
        ..WriterOptions::default()
    };
    let node = open_with(dir.path(), options);
    let retake = Command::Retake { epoch: 2 };
    node.writer.command(retake).await.unwrap();
    let before = node.writer.progress().borrow().end;
    let refused = put(&node, "b").await.unwrap_err();
    assert_eq!(code(&refused), ErrorCode::DiskFull);
    assert_eq!(node.writer.progress().borrow().end, before);
    let delete = WriteRequest::Delete {
        collection: "c".into(),
        ids: vec!["a".into()],
        atomic: true,
    };
    node.writer.write(delete).await.unwrap();
}

#[tokio::test]
async fn on_a_disk_that_gets_short_the_log_is_held_for_full_syncs_no_longer() {
    let dir = TempDir::new().unwrap();
    let free = crate::data_dir::free_space(dir.path()).unwrap();
    let options = WriterOptions {
        // Enough is free for writes, but not twice as much.
        min_free_fraction: free.fraction_after(0) * 0.8,
        ..WriterOptions::default()
    };
    let journal = JournalOptions {
        segment_bytes: 4_096,
        log_size: 16,
        ..JournalOptions::default()
    };
    let (data, opened) = DataDir::open(dir.path(), journal).unwrap();
    let store = opened.store.clone();
    let permit = Permit::unlimited();
    let writer = start(data, opened, permit, Uuid::new_v4(), options).unwrap();
    let writer = writer.handle;
    let (cluster, epoch) = (CLUSTER, 1);
    let initialize = Command::Initialize { cluster, epoch };
    writer.command(initialize).await.unwrap();
    writer.write(create("c")).await.unwrap();
    let log = writer.log();
    let _pin = log.pin(1).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while log.first_offset() == 1 {
        assert!(std::time::Instant::now() < deadline, "the log is held");
        let ids: Vec<_> = (0..20).map(|n| n.to_string()).collect();
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        writer.write(puts(&store, &ids)).await.unwrap();
        // Retention and checkpoints look from time to time.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_written_down_is_refused_and_promises_nothing() {
    let (a, b) = two_dirs();
    let (_from, to, _) = pair(&a, &b).await;
    block_role_file(b.path());
    let (cluster, epoch) = (CLUSTER, 5);
    let fence = Command::Fence { cluster, epoch };
    let refused = to.writer.command(fence.clone()).await.unwrap_err();
    assert_eq!(refused.error_type, ErrorCode::DiskFull);
    let refused = to.writer.accept_master(2, CLUSTER).await.unwrap_err();
    assert!(matches!(refused, SinkError::Local(_)), "{refused}");
    assert_eq!(to.writer.state().borrow().promised, 1);
    to.writer.accept_master(1, CLUSTER).await.unwrap();

    unblock_role_file(b.path());
    to.writer.command(fence).await.unwrap();
    assert_eq!(to.writer.state().borrow().promised, 5);
}

#[tokio::test]
async fn a_handover_that_cannot_be_written_down_leaves_the_master_writing() {
    let dir = TempDir::new().unwrap();
    let node = master(dir.path()).await;
    node.writer.write(create("c")).await.unwrap();
    let plan = HandedOver {
        from_epoch: 1,
        epoch: 2,
        target: Uuid::from_u128(7),
    };
    let until = std::time::Instant::now() + Duration::from_secs(600);
    let hold = |reply| Job::HoldWrites {
        cluster: CLUSTER,
        plan,
        until,
        reply,
    };
    let held = node.writer.refusable(hold).await.unwrap();
    block_role_file(dir.path());
    let finish = |reply| Job::FinishHandover(plan, held, reply);
    let refused = node.writer.refusable(finish).await.unwrap_err();
    assert!(refused.message.contains("goes on writing"), "{refused}");
    let state = node.writer.state().borrow().clone();
    assert_eq!((state.role, state.promised), (Role::Master, 1));
    assert_eq!(state.handed_over_at, None);
    put(&node, "a").await.unwrap();
}
