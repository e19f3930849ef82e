//! What a node holds and its master does not: from when it learns that until its data is its master's, nobody reads it.

use super::troubles::{pair, two_dirs};
use super::*;
use vectorizer_replication::position::Chain;

/// A former master with a write of its own, as a replica of the other one, which was promoted in epoch 2; where both
/// part; and their session.
async fn parted(a: &TempDir, b: &TempDir) -> (Node, Node, Position, SessionId) {
    let (old, new, _) = pair(a, b).await;
    let at = new.writer.progress().borrow().end.position;
    let alone = puts(&old.store, &["x", "y"]);
    old.writer.write(alone).await.unwrap();
    let (cluster, epoch) = (CLUSTER, 2);
    let promote = Command::Promote { cluster, epoch, at };
    new.writer.command(promote).await.unwrap();
    put(&new, "kept").await.unwrap();
    follow(&old, epoch).await.unwrap();
    let session = old.writer.accept_master(epoch, cluster).await.unwrap();
    (old, new, at, session)
}

fn diverged(node: &Node) -> Option<String> {
    node.writer.state().borrow().diverged.clone()
}

/// Into the middle of a batch no log can be cut.
async fn cannot_be_cut(node: &Node, session: SessionId, at: Position) {
    let inside = Position::new(at.epoch, at.offset + 1);
    let outcome = node.writer.truncate(session, inside).await.unwrap();
    assert_eq!(outcome, TruncateOutcome::NeedsSnapshot);
}

async fn full_sync(from: &Node, to: &Node, session: SessionId) {
    let mut scan = from.store.scan();
    let header = scan.header().clone();
    to.writer.snapshot_begin(session, header).await.unwrap();
    for index in 0.. {
        let Some(chunk) = scan.next() else { break };
        let taken = to.writer.snapshot_chunk(session, index, chunk).await;
        taken.unwrap();
    }
    let trailer = scan.trailer().unwrap();
    to.writer.snapshot_end(session, trailer).await.unwrap();
    assert_eq!(from.store.digest(), to.store.digest());
}

#[tokio::test]
async fn a_tail_that_cannot_be_undone_is_not_read_until_a_full_sync_has_replaced_it() {
    let (a, b) = two_dirs();
    let (old, new, at, session) = parted(&a, &b).await;
    assert_eq!(diverged(&old), None, "it has not learned of it");
    cannot_be_cut(&old, session, at).await;
    let end = old.writer.progress().borrow().end.position.offset;
    let what = format!("operations {end} to {end}");
    assert_eq!(diverged(&old).as_ref(), Some(&what));
    // The connection is lost, the process restarts: nothing is better for that.
    old.writer.accept_master(2, CLUSTER).await.unwrap();
    assert_eq!(diverged(&old).as_ref(), Some(&what));
    old.writer.stop().await;
    let old = open(a.path());
    assert_eq!(diverged(&old), Some(what));
    let session = old.writer.accept_master(2, CLUSTER).await.unwrap();
    assert!(diverged(&old).is_some());
    full_sync(&new, &old, session).await;
    assert_eq!(diverged(&old), None);
    old.writer.stop().await;
    assert_eq!(diverged(&open(a.path())), None);
}

#[tokio::test]
async fn a_tail_is_not_read_while_the_full_sync_that_the_master_chose_replaces_it() {
    let (a, b) = two_dirs();
    let (old, new, at, session) = parted(&a, &b).await;
    let header = new.store.scan().header().clone();
    old.writer.snapshot_begin(session, header).await.unwrap();
    let (from, to) = (at.offset + 1, at.offset + 2);
    assert_eq!(diverged(&old), Some(format!("operations {from} to {to}")));
    let session = old.writer.accept_master(2, CLUSTER).await.unwrap();
    full_sync(&new, &old, session).await;
    assert_eq!(diverged(&old), None);
}

#[tokio::test]
async fn another_log_of_the_same_length_is_not_read_while_a_full_sync_replaces_it() {
    let (a, b) = two_dirs();
    let (from, to, session) = pair(&a, &b).await;
    let mut header = from.store.scan().header().clone();
    header.start.chain = Chain(7);
    to.writer.snapshot_begin(session, header).await.unwrap();
    assert!(diverged(&to).is_some());
}

#[tokio::test]
async fn a_replica_that_is_merely_behind_is_read_during_its_full_sync() {
    let (a, b) = two_dirs();
    let (from, to, session) = pair(&a, &b).await;
    put(&from, "more").await.unwrap();
    let header = from.store.scan().header().clone();
    to.writer.snapshot_begin(session, header).await.unwrap();
    assert!(to.writer.state().borrow().syncing);
    assert_eq!(diverged(&to), None);
    // So is one that lacks nothing and asks for a copy all the same.
    full_sync(&from, &to, session).await;
    let header = from.store.scan().header().clone();
    to.writer.snapshot_begin(session, header).await.unwrap();
    assert_eq!(diverged(&to), None);
}

#[tokio::test]
async fn what_one_master_lacks_is_read_again_when_another_one_has_it_or_it_leads() {
    let (a, b) = two_dirs();
    let (old, _new, at, session) = parted(&a, &b).await;
    cannot_be_cut(&old, session, at).await;
    let session = old.writer.accept_master(2, CLUSTER).await.unwrap();
    old.writer.continues(session).await.unwrap();
    assert_eq!(diverged(&old), None);
    old.writer.stop().await;
    let old = open(a.path());
    assert_eq!(diverged(&old), None);

    let session = old.writer.accept_master(2, CLUSTER).await.unwrap();
    cannot_be_cut(&old, session, at).await;
    assert!(diverged(&old).is_some());
    let at = old.writer.progress().borrow().end.position;
    let (cluster, epoch) = (CLUSTER, 3);
    let promote = Command::Promote { cluster, epoch, at };
    old.writer.command(promote).await.unwrap();
    assert_eq!(diverged(&old), None);
    old.writer.stop().await;
    assert_eq!(diverged(&open(a.path())), None);
}

#[tokio::test]
async fn what_enough_replicas_have_acknowledged_is_kept_and_read() {
    let (a, b) = two_dirs();
    let (old, _new, at, session) = parted(&a, &b).await;
    cannot_be_cut(&old, session, at).await;
    assert!(diverged(&old).is_some());
    let end = old.writer.progress().borrow().end.position.offset;
    old.writer.covered(session, end).await.unwrap();
    let refused = old.writer.truncate(session, at).await.unwrap_err();
    assert!(matches!(refused, SinkError::Covered(_)), "{refused}");
    assert_eq!(diverged(&old), None);
}
