//! Copies whose digest is not that of the data they were made from.

use super::full_sync::other_past;
use super::*;
use crate::store::{SnapshotError, SnapshotTrailer};

#[test]
fn a_copy_that_is_not_what_was_scanned_is_refused_where_it_would_be_exact() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut from = Node::with_data(a.path(), 100);
    let to = other_past(b.path());
    let old = to.digest();
    let mut scan = from.store.scan();
    let chunks: Vec<Bytes> = scan.by_ref().collect();
    let start = scan.header().start.position.offset;
    let right = scan.trailer().unwrap();
    assert_eq!(right.exact_from, start);
    let begin = || {
        let header = scan.header().clone();
        let mut incoming = to.data.begin_incoming(to.role.state(), header).unwrap();
        for chunk in &chunks {
            incoming.load_chunk(chunk).unwrap();
        }
        incoming
    };
    let digest = |trailer: SnapshotTrailer| trailer.digest.map(|d| Digest(d.0 ^ 1));
    let refuses = |found: Result<(), DataDirError>| {
        let Err(DataDirError::Snapshot(SnapshotError::Digest { .. })) = found else {
            panic!("{found:?}");
        };
    };

    // At once, where the log is there already.
    let mut incoming = begin();
    refuses(incoming.finish_chunks(SnapshotTrailer {
        digest: digest(right),
        ..right
    }));
    assert!(!incoming.is_exact());

    // With the operation that would make it exact.
    from.put_many(2);
    let (at, later) = from.store.digest();
    let batches = from.journal.batches_after(start).unwrap();
    let wrong = SnapshotTrailer {
        exact_from: at.offset,
        digest: Some(Digest(later.0 ^ 1)),
        ..right
    };
    let mut incoming = begin();
    incoming.finish_chunks(wrong).unwrap();
    let (last, before) = batches.split_last().unwrap();
    for batch in before {
        incoming.append(batch).unwrap();
        assert!(!incoming.is_exact());
    }
    refuses(incoming.append(last));
    assert!(!incoming.is_exact());

    // Where no batch ends, nobody could tell.
    let mut incoming = begin();
    let beyond = SnapshotTrailer {
        exact_from: at.offset + 1,
        ..wrong
    };
    let several = (0..3).map(|n| put(2, &format!("v{n}"), 0.5)).collect();
    from.write(several);
    let batches = from.journal.batches_after(start).unwrap();
    for batch in &batches {
        incoming.append(batch).unwrap();
    }
    refuses(incoming.finish_chunks(beyond));

    drop(incoming);
    assert_eq!(to.digest(), old);
}

#[test]
fn a_checkpoint_that_is_not_what_was_scanned_is_refused_at_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 20);
    let mut scan = node.store.scan();
    let generation = node.generation();
    let mut writer = checkpoint::Writer::create(&generation, scan.header()).unwrap();
    for chunk in scan.by_ref() {
        writer.chunk(&chunk).unwrap();
    }
    let right = scan.trailer().unwrap();
    let wrong = right.digest.map(|digest| Digest(digest.0 ^ 1));
    let wrong = SnapshotTrailer {
        digest: wrong,
        ..right
    };
    writer.finish(&wrong).unwrap().publish().unwrap();
    node.put_many(3);
    drop((node, scan));
    let Err(DataDirError::Snapshot(refused)) = Node::try_open(dir.path()).map(|_| ()) else {
        panic!("opened");
    };
    let at = right.exact_from.to_string();
    assert!(refused.to_string().contains(&at), "{refused}");
}
