//! Power that is lost at the moment of an answer: what was answered is there when the node comes back.

use vectorizer_replication::position::LogEnd;

use super::*;
use crate::journal::Journal;

const DEADLINE: Duration = Duration::from_secs(60);

/// A copy of a data directory as a loss of power leaves it at worst: of the log, what was fsynced and nothing else.
///
/// A directory that is only copied holds what is in the page cache as well, as after the end of a process.
fn after_power_loss(dir: &Path, node: &Node) -> TempDir {
    let durable = node.writer.log().durable();
    let left = TempDir::new().unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([dir.join("."), left.path().to_owned()])
        .status();
    assert!(copied.unwrap().success());
    let journal = left.path().join("gen-1").join("journal");
    let mut journal =
        Journal::open(&journal, JournalOptions::default(), LogEnd::default()).unwrap();
    journal.truncate(durable).unwrap();
    left
}

/// A start from what is left finds these vectors, no others, and a log that ends at `end`.
fn assert_comes_back(left: &TempDir, ids: &[String], end: Position) {
    let node = DataDir::open(left.path(), JournalOptions::default());
    let (_data, opened) = node.unwrap();
    assert_eq!(opened.end.position, end);
    let found = opened.store.collection("c").unwrap();
    assert_eq!(found.count(), ids.len() as u64);
    for id in ids {
        assert!(found.get(id).is_some(), "{id} was answered and is lost");
    }
}

#[tokio::test]
async fn what_was_answered_outlives_a_loss_of_power_at_the_moment_of_the_answer() {
    let dir = TempDir::new().unwrap();
    let node = master(dir.path()).await;
    node.writer.write(create("c")).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..10 {
        let id = format!("v{n}");
        let answer = put(&node, &id).await.unwrap();
        ids.push(id);
        let left = after_power_loss(dir.path(), &node);
        assert_comes_back(&left, &ids, answer.position);
    }
}

#[tokio::test]
async fn what_a_replica_calls_durable_outlives_a_loss_of_power() {
    let (a, b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let from = master(a.path()).await;
    from.writer.write(create("c")).await.unwrap();
    let to = replica(b.path(), 1).await;
    let session = to.writer.accept_master(1, CLUSTER).await.unwrap();
    let (mut ids, mut after) = (Vec::new(), 0);
    for n in 0..10 {
        let id = format!("v{n}");
        let end = put(&from, &id).await.unwrap().position;
        ids.push(id);
        copy(&from, &to, session, after).await;
        after = end.offset;
        // What it tells its master, and what its master counts on.
        let mut progress = to.writer.progress();
        let said = progress.wait_for(|p| p.durable >= end.offset);
        drop(tokio::time::timeout(DEADLINE, said).await.unwrap().unwrap());
        let left = after_power_loss(b.path(), &to);
        assert_comes_back(&left, &ids, end);
    }
}
