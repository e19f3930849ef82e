//! Operations that are undone: written aside, and all or nothing at any crash.

use super::*;

#[test]
fn what_is_undone_is_written_aside_and_the_node_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 20);
    let (digest, to) = (node.digest(), node.end());
    node.open_epoch(3);
    let mut undone = node.journal.batches_after(to).unwrap();
    undone.push(node.write(vec![Record::DropCollection { incarnation: 2 }]));
    node.checkpoint();
    let role = node.role.state().clone();

    assert_eq!(node.undo(to), UndoOutcome::Done);
    assert_eq!((node.digest(), node.end()), (digest, to));
    assert_eq!(node.role.state().history.entries().len(), 1);
    assert_eq!(
        node.role.state().promised,
        role.promised,
        "a promise is not undone"
    );
    assert!(
        node.starts().is_empty(),
        "the checkpoint held what was undone"
    );
    let aside = fs::read(dir.path().join(format!("rollback/3-{}-{}", to + 1, to + 2))).unwrap();
    let mut aside = Bytes::from(aside);
    for batch in &undone {
        assert_eq!(&Batch::decode(&mut aside).unwrap(), batch);
    }
    assert!(aside.is_empty());

    node.put_many(3);
    let digest = node.digest();
    drop(node);
    let mut node = Node::open(dir.path());
    assert_eq!(node.digest(), digest);
    assert_eq!(node.undo(node.end()), UndoOutcome::Done, "nothing to undo");
}

#[test]
fn undoing_below_the_oldest_checkpoint_needs_a_snapshot_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 200);
    node.checkpoint();
    let checkpoints = node.start_checkpoints();
    let start = checkpoints.start_offset();
    node.journal.enforce_retention(start, 0).unwrap();
    drop(checkpoints);
    let digest = node.digest();
    for to in [0, 5, start - 1] {
        assert_eq!(node.undo(to), UndoOutcome::NeedsSnapshot, "{to}");
    }
    assert_eq!(node.digest(), digest);
    assert!(!dir.path().join("rollback").exists());
    node.put_many(10);
    let digest = node.digest();
    node.put_many(10);
    assert_eq!(node.undo(digest.0.offset), UndoOutcome::Done);
    assert_eq!(node.digest(), digest);
}

#[test]
fn a_disk_that_takes_nothing_aside_refuses_to_undo_and_everything_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 30);
    node.checkpoint();
    node.put_many(10);
    let (end, digest, starts) = (node.end(), node.digest(), node.starts());
    // A file where the directory has to be: nothing can be written there, as on a full disk.
    let aside = dir.path().join("rollback");
    fs::write(&aside, "").unwrap();
    let refused = node.undo(end - 5);
    assert!(
        matches!(&refused, UndoOutcome::DiskRefused(text) if text.contains("rollback")),
        "{refused:?}"
    );
    assert_eq!(
        (node.end(), node.digest(), node.starts()),
        (end, digest, starts)
    );
    let copy = node.copy();
    assert_eq!(Node::open(copy.path()).digest(), digest);

    fs::remove_file(&aside).unwrap();
    assert_eq!(node.undo(end - 5), UndoOutcome::Done);
    assert_eq!(node.end(), end - 5);
}

#[test]
fn a_crash_at_any_step_of_undoing_finds_all_of_before_or_all_of_after() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 60);
    node.checkpoint();
    node.put_many(5);
    let after = node.digest();
    node.open_epoch(2);
    node.put_many(4);
    node.checkpoint();
    node.put_many(2);
    let before = node.digest();
    let path = dir.path().to_owned();
    let (outcome, crashes) = crashes(&path, || node.undo(after.0.offset));
    assert_eq!(outcome, UndoOutcome::Done);
    let steps: Vec<_> = crashes.iter().map(|(step, _)| *step).collect();
    assert_eq!(
        steps,
        [
            "undo: store rebuilt",
            "undo: written aside",
            "undo: checkpoint removed",
            "undo: log cut",
            "undo: history cut"
        ]
    );
    for (at, (step, crashed)) in crashes.iter().enumerate() {
        let mut found = Node::open(crashed.path());
        let expected = if at < 3 { before } else { after };
        assert_eq!(found.digest(), expected, "{step}");
        found.put_many(1);
    }
}
