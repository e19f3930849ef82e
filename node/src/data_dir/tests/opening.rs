//! What a start finds, takes and refuses.

use super::*;

#[test]
fn a_new_directory_holds_nothing_and_a_node_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep").join("data");
    let node = Node::open(&path);
    assert_eq!(node.end(), 0);
    assert!(!node.role.state().has_data);
    let id = node.role.state().node_id;
    drop(node);
    let node = Node::open(&path);
    assert_eq!(node.role.state().node_id, id, "the same node again");
}

#[test]
fn a_second_process_is_refused_and_told_who_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path());
    let refused = refusal(dir.path());
    let pid = std::process::id().to_string();
    assert!(
        refused.contains(&format!("in use by process {pid}")),
        "{refused}"
    );
    drop(node);
    Node::open(dir.path());
}

#[test]
fn a_restart_comes_back_at_its_exact_position_with_and_without_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 50);
    for round in 0..3 {
        let (digest, end) = (node.digest(), node.journal.end());
        drop(node);
        node = Node::open(dir.path());
        assert_eq!(
            (node.digest(), node.journal.end()),
            (digest, end),
            "round {round}"
        );
        node.checkpoint();
        node.put_many(5 * round);
    }
    assert_eq!(node.starts().len(), 2, "two are kept");
}

#[test]
fn missing_parts_are_refused_and_nothing_is_made_in_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::with_data(dir.path(), 60);
    node.checkpoint();
    let end = node.end();
    drop(node);
    let missing = |part: &str| {
        let broken = copy(dir.path());
        let path = broken.path().join(part);
        match path.is_dir() {
            true => fs::remove_dir_all(&path).unwrap(),
            false => fs::remove_file(&path).unwrap(),
        }
        let refused = refusal(broken.path());
        assert_eq!(
            refused,
            refusal(broken.path()),
            "refused the second time as well"
        );
        refused
    };
    assert!(missing("role").contains("does not know who it is"));
    assert!(missing("gen-1").contains("the current generation is gone"));
    // An old role file, from before a full sync, must not cost the generation that it does not know.
    let restored = copy(dir.path());
    fs::rename(restored.path().join("gen-1"), restored.path().join("gen-2")).unwrap();
    assert!(refusal(restored.path()).contains("the current generation is gone"));
    assert!(restored.path().join("gen-2/journal").exists());
    assert!(missing("gen-1/journal").contains("the journal is gone"));
    let last = fs::read_dir(dir.path().join("gen-1/journal"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .max()
        .unwrap();
    let refused = missing(&format!("gen-1/journal/{last}"));
    assert!(
        refused.contains("durable operations were lost"),
        "{refused}"
    );
    assert!(
        refused.contains(&format!("up to offset {end}")),
        "{refused}"
    );
}

#[test]
fn the_history_follows_the_log_after_a_crash_between_the_two() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 3);
    let first = node.role.state().history.clone();
    // An epoch was opened and nothing written in it.
    let end = node.journal.end();
    let start = EpochStart {
        epoch: 4,
        first_offset: end.position.offset + 1,
        chain: end.chain,
    };
    node.role
        .update(|state| assert!(state.history.open(start)))
        .unwrap();
    drop(node);
    let mut node = Node::open(dir.path());
    assert_eq!(node.role.state().history, first);
    // A replica appended an epoch's first operation and did not note it.
    node.write_in(
        6,
        vec![Record::Epoch {
            epoch: 6,
            node: uuid::Uuid::nil(),
        }],
    );
    drop(node);
    let mut node = Node::open(dir.path());
    let epochs = node.role.state().history.entries().to_vec();
    assert_eq!((epochs.len(), epochs[1].epoch), (2, 6));
    // Another node's role file.
    node.role
        .update(|state| {
            state.history.truncate(0);
            state.history.open(EpochStart {
                epoch: 2,
                first_offset: 1,
                chain: Chain(0),
            });
        })
        .unwrap();
    drop(node);
    assert!(refusal(dir.path()).contains("do not belong together"));
}

#[test]
fn a_replica_that_crashed_before_its_first_batch_holds_nothing() {
    let dir = TempDir::new().unwrap();
    let mut node = Node::open(dir.path());
    let follow = |state: &mut RoleState| {
        state.standing = Standing::Replica {
            epoch: 1,
            master_address: "h:7001".into(),
            master_url: None,
        };
        state.has_data = true;
        state.history.open(EpochStart {
            epoch: 1,
            first_offset: 1,
            chain: Chain::default(),
        });
    };
    node.role.update(follow).unwrap();
    drop(node);
    for _ in 0..2 {
        let node = Node::open(dir.path());
        assert!(!node.role.state().has_data);
        assert!(node.role.state().history.entries().is_empty());
    }
    let mut node = Node::open(dir.path());
    node.role.update(follow).unwrap();
    let id = node.role.state().node_id;
    node.write_in(1, vec![Record::Epoch { epoch: 1, node: id }]);
    drop(node);
    assert!(Node::open(dir.path()).role.state().has_data);
}
