//! Checkpoints: when they are due, that damage to them is found, and what of the log they stand for.

use super::*;

#[test]
fn the_log_goes_once_a_checkpoint_stands_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 200);
    node.journal.enforce_retention(0, 0).unwrap();
    assert_eq!(node.journal.reader().first_offset(), 1, "no checkpoint yet");
    node.checkpoint();
    let checkpoints = node.start_checkpoints();
    node.journal
        .enforce_retention(checkpoints.start_offset(), 0)
        .unwrap();
    drop(checkpoints);
    assert!(node.journal.reader().first_offset() > 100);
    let digest = node.digest();
    drop(node);
    assert_eq!(Node::open(dir.path()).digest(), digest);
}

#[test]
fn a_checkpoint_is_written_when_it_is_due_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 5);
    let checkpoints = node.start_checkpoints();
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!(checkpoints.start_offset(), 0);
    node.put_many(40);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while checkpoints.start_offset() == 0 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_damaged_checkpoint_gives_way_to_an_older_one_and_refusal_names_them_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 60);
    node.checkpoint();
    node.put_many(10);
    node.checkpoint();
    node.put_many(3);
    let (digest, generation) = (node.digest(), node.generation());
    let starts = node.starts();
    drop(node);
    let newest = checkpoint::path_of(&generation, starts[0]);
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).unwrap();
    assert_eq!(Node::open(dir.path()).digest(), digest);

    // The log of the beginning goes, and the older checkpoint is damaged as well.
    let mut node = Node::open(dir.path());
    node.journal.enforce_retention(starts[1], 0).unwrap();
    assert!(node.journal.reader().first_offset() > 1);
    drop(node);
    assert_eq!(Node::open(dir.path()).digest(), digest);
    let older = checkpoint::path_of(&generation, starts[1]);
    fs::write(&older, b"VECSNAP\0").unwrap();
    let refused = refusal(dir.path());
    for path in [&newest, &older] {
        assert!(refused.contains(path.to_str().unwrap()), "{refused}");
    }
    assert!(refused.contains("empty the data directory"), "{refused}");
}

#[test]
fn with_the_newest_checkpoint_damaged_the_log_is_kept_for_the_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 60);
    node.checkpoint();
    node.put_many(60);
    node.checkpoint();
    node.put_many(60);
    let (before, digest) = (node.starts(), node.digest());
    let newest = checkpoint::path_of(&node.generation(), before[0]);
    drop(node);
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).unwrap();

    let mut node = Node::open(dir.path());
    assert_eq!(node.digest(), digest);
    let checkpoints = node.start_checkpoints();
    assert_eq!(checkpoints.start_offset(), before[1], "the one in use");
    node.journal
        .enforce_retention(checkpoints.start_offset(), 0)
        .unwrap();
    assert!(node.journal.reader().first_offset() <= before[1] + 1);
    drop(checkpoints);
    drop(node);
    assert_eq!(Node::open(dir.path()).digest(), digest);
}

#[test]
fn every_truncation_and_every_flipped_bit_of_a_checkpoint_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::with_data(dir.path(), 3);
    node.checkpoint();
    let path = checkpoint::path_of(&node.generation(), node.end());
    let good = fs::read(&path).unwrap();
    let other = dir.path().join("other");
    let load = |bytes: &[u8]| {
        fs::write(&other, bytes).unwrap();
        checkpoint::load(&other)
    };
    assert!(load(&good).is_ok());
    for at in 0..good.len() {
        assert!(load(&good[..at]).is_err(), "cut at {at}");
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(load(&bad).is_err(), "bit in {at}");
    }
    assert!(
        load(&[&good[..], b"x"].concat()).is_err(),
        "bytes behind its end"
    );
}

#[test]
fn a_crash_at_any_step_of_a_checkpoint_finds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 60);
    for _ in 0..2 {
        node.checkpoint();
        node.put_many(30);
    }
    let digest = node.digest();
    let path = dir.path().to_owned();
    let ((), crashes) = crashes(&path, || node.checkpoint());
    let steps: Vec<_> = crashes.iter().map(|(step, _)| *step).collect();
    assert_eq!(
        steps,
        [
            "checkpoint: durable",
            "checkpoint: named",
            "checkpoint: older one removed"
        ]
    );
    for (step, crashed) in &crashes {
        assert_eq!(Node::open(crashed.path()).digest(), digest, "{step}");
    }
}

#[test]
fn checkpoints_are_written_and_the_log_goes_while_writes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 100);
    let checkpoints = node.start_checkpoints();
    let mut seen = std::collections::BTreeSet::new();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while seen.len() < 5 {
        assert!(
            std::time::Instant::now() < deadline,
            "checkpoints: {seen:?}"
        );
        checkpoints.request();
        node.put_many(20);
        node.write(vec![Record::Delete {
            incarnation: 2,
            id: "v7".into(),
        }]);
        seen.insert(checkpoints.start_offset());
        node.journal
            .enforce_retention(checkpoints.start_offset(), 0)
            .unwrap();
    }
    drop(checkpoints);
    assert!(node.journal.reader().first_offset() > 1);
    let digest = node.digest();
    drop(node);
    assert_eq!(Node::open(dir.path()).digest(), digest);
}

#[test]
fn a_checkpoint_that_a_crash_cut_short_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::with_data(dir.path(), 20);
    let (digest, part) = (
        node.digest(),
        checkpoint::path_of(&node.generation(), 9).with_extension("part"),
    );
    drop(node);
    fs::write(&part, b"VECSNAP").unwrap();
    assert_eq!(Node::open(dir.path()).digest(), digest);
    assert!(!part.exists());
}
