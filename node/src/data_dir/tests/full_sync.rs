//! Full syncs: all of the old or all of the new.

use super::*;

/// Plays a full sync of `from` into `to`, with writes going on, up to the moment before it is installed.
fn full_sync(from: &mut Node, to: &Node) -> Incoming {
    let mut scan = from.store.scan();
    let mut incoming = to
        .data
        .begin_incoming(to.role.state(), scan.header().clone())
        .unwrap();
    from.put_many(3);
    for chunk in scan.by_ref() {
        incoming.load_chunk(&chunk).unwrap();
    }
    from.put_many(3);
    // The first operations come before the trailer, the others after it.
    let start = scan.header().start.position.offset;
    let batches = from.journal.batches_after(start).unwrap();
    let (early, late) = batches.split_at(2);
    early.iter().for_each(|b| incoming.append(b).unwrap());
    assert!(!incoming.is_exact());
    incoming.finish_chunks(scan.trailer().unwrap()).unwrap();
    late.iter().for_each(|b| incoming.append(b).unwrap());
    assert!(incoming.is_exact());
    assert_eq!(incoming.end(), from.journal.end());
    incoming
}

/// A node with another past, which a full sync replaces.
pub(super) fn other_past(path: &Path) -> Node {
    let mut node = Node::with_data(path, 10);
    node.write(vec![Record::CreateCollection {
        name: "gone".into(),
        config: CollectionConfig::new(9, Metric::Euclidean),
        created_ms: 1,
    }]);
    node.checkpoint();
    node
}

#[test]
fn a_full_sync_replaces_everything_and_survives_a_restart() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut from = Node::with_data(a.path(), 100);
    let mut to = other_past(b.path());
    let (reader, old) = (to.journal.reader(), to.digest());
    let incoming = full_sync(&mut from, &to);
    assert_eq!(to.digest(), old, "served until it is installed");
    let (store, journal) = incoming
        .install(&mut to.role, |role| role.promised = 9)
        .unwrap();
    to.store.replace_with(store);
    to.journal.replace_with(journal);
    assert_eq!(to.digest(), from.digest());
    assert!(to.store.collection("gone").is_none());
    assert_eq!(reader.end(), from.journal.end());
    assert_eq!(to.role.state().history, from.role.state().history);
    assert_eq!(
        (to.role.state().generation, to.role.state().promised),
        (2, 9)
    );
    assert_eq!(generations(b.path()).unwrap(), [2]);
    // It goes on as any other.
    let next = from.write(vec![put(2, "next", 1.0)]);
    to.journal.append(&next).unwrap();
    to.store.apply_batch(&next).unwrap();
    to.journal.publish();
    to.journal.sync().unwrap();
    to.checkpoint();
    drop(to);
    let to = Node::open(b.path());
    assert_eq!(to.digest(), from.digest());
    assert_eq!(to.journal.end(), from.journal.end());
}

#[test]
fn a_crash_at_any_step_of_a_full_sync_finds_all_of_the_old_or_all_of_the_new() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut from = Node::with_data(a.path(), 100);
    let mut to = other_past(b.path());
    let old = to.digest();
    let path = b.path().to_owned();
    let (installed, crashes) = crashes(&path, || {
        let incoming = full_sync(&mut from, &to);
        incoming.install(&mut to.role, |_| {})
    });
    installed.unwrap();
    let steps: Vec<_> = crashes.iter().map(|(step, _)| *step).collect();
    assert_eq!(
        steps,
        [
            "incoming: chunks complete",
            "incoming: durable",
            "incoming: current",
            "incoming: old generation removed"
        ]
    );
    for (at, (step, crashed)) in crashes.iter().enumerate() {
        let found = Node::open(crashed.path());
        let expected = if at < 2 { old } else { from.digest() };
        assert_eq!(found.digest(), expected, "{step}");
        assert_eq!(generations(crashed.path()).unwrap().len(), 1, "{step}");
    }
}

#[test]
fn a_full_sync_that_ends_early_leaves_nothing() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = Node::with_data(a.path(), 20);
    let mut to = other_past(b.path());
    let old = to.digest();
    let mut scan = from.store.scan();
    let header = scan.header().clone();
    let begin = || {
        to.data
            .begin_incoming(to.role.state(), header.clone())
            .unwrap()
    };
    let mut incoming = begin();
    assert_eq!(generations(b.path()).unwrap().len(), 2);
    let mut bad = scan.next().unwrap().to_vec();
    bad[30] ^= 1;
    assert!(incoming.load_chunk(&bad.into()).is_err());
    drop(incoming);
    assert_eq!(generations(b.path()).unwrap(), [1]);

    let crashed = {
        let _incoming = begin();
        to.copy()
    };
    assert_eq!(generations(crashed.path()).unwrap().len(), 2);
    assert_eq!(Node::open(crashed.path()).digest(), old);
    assert_eq!(generations(crashed.path()).unwrap(), [1]);

    let mut incoming = begin();
    assert!(!incoming.is_exact());
    let chunks: Vec<_> = scan.by_ref().collect();
    assert!(chunks.is_empty());
    let trailer = scan.trailer().unwrap();
    assert!(
        incoming.finish_chunks(trailer).is_err(),
        "its chunk is missing"
    );
    let refused = incoming.install(&mut to.role, |_| {});
    assert!(refused.is_err());
    assert_eq!(to.role.state().generation, 1);
    assert_eq!(generations(b.path()).unwrap(), [1]);
}

#[test]
fn a_header_that_contradicts_itself_is_refused() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = Node::with_data(a.path(), 1);
    let to = Node::open(b.path());
    let mut header = from.store.scan().header().clone();
    header.start.position.epoch = 5;
    let refused = to.data.begin_incoming(to.role.state(), header);
    assert!(refused.is_err());
    assert_eq!(generations(b.path()).unwrap(), [1]);
}
