use super::*;
use crate::store::Never;
use crate::store::test_log::{Log, put};

#[test]
fn a_batch_is_applied_in_order_and_moves_the_end_and_the_history() {
    let mut log = Log::new();
    log.write(
        2,
        vec![Record::Epoch {
            epoch: 2,
            node: uuid::Uuid::nil(),
        }],
    );
    log.create("docs", 3);
    log.write(2, vec![put(2, "a", 1.0), put(2, "b", 2.0)]);
    log.write(
        5,
        vec![Record::Epoch {
            epoch: 5,
            node: uuid::Uuid::nil(),
        }],
    );
    let store = Store::new();
    let mut applied = store.subscribe_applied();
    for batch in &log.batches {
        store.apply_batch(batch).unwrap();
    }
    assert_eq!(store.applied(), Position::new(5, 5));
    assert_eq!(*applied.borrow_and_update(), Position::new(5, 5));
    assert_eq!(store.applied_end(), log.end);
    let epochs: Vec<_> = store
        .history()
        .entries()
        .iter()
        .map(|e| (e.epoch, e.first_offset))
        .collect();
    assert_eq!(epochs, [(2, 1), (5, 5)]);
    assert_eq!(
        store.history().entries()[1].chain,
        log.batches[3].chain_before()
    );
    let docs = store.collection("docs").unwrap();
    assert_eq!((docs.incarnation(), docs.count()), (2, 2));
    assert_eq!(docs.get("b").unwrap().version, 4);
}

#[test]
fn a_batch_that_does_not_follow_changes_nothing() {
    let mut log = Log::new();
    log.create("docs", 3);
    log.write(1, vec![put(1, "a", 1.0)]);
    let store = Store::new();
    assert!(matches!(
        store.apply_batch(&log.batches[1]),
        Err(ApplyError::Gap {
            expected: 1,
            found: 2
        })
    ));
    store.apply_batch(&log.batches[0]).unwrap();
    assert!(matches!(
        store.apply_batch(&log.batches[0]),
        Err(ApplyError::Gap { .. })
    ));
    let other = Batch::encode(1, 2, 1, 0, Chain(7), &log.batches[1].payload()).unwrap();
    assert!(matches!(
        store.apply_batch(&other),
        Err(ApplyError::Chain { .. })
    ));
    let nonsense = Batch::encode(1, 2, 1, 0, log.batches[1].chain_before(), b"nonsense").unwrap();
    assert!(matches!(
        store.apply_batch(&nonsense),
        Err(ApplyError::Record { .. })
    ));
    assert_eq!(store.applied().offset, 1);
    store.apply_batch(&log.batches[1]).unwrap();
}

#[test]
fn what_cannot_be_applied_is_an_error_that_says_where() {
    let cases = [
        (
            Record::DropCollection { incarnation: 9 },
            "no collection has incarnation 9",
        ),
        (put(9, "a", 1.0), "no collection has incarnation 9"),
        (
            Record::Delete {
                incarnation: 9,
                id: "a".into(),
            },
            "no collection has incarnation 9",
        ),
        (
            Record::Put {
                incarnation: 1,
                id: "a".into(),
                vector: vec![1.0],
                payload: "{}".into(),
            },
            "a vector of 1 numbers in a collection of dimension 3",
        ),
        (
            Record::CreateCollection {
                name: "docs".into(),
                config: CollectionConfig::new(3, Metric::Cosine),
                created_ms: 0,
            },
            "`docs` exists already",
        ),
    ];
    for (record, says) in cases {
        let mut log = Log::new();
        log.create("docs", 3);
        log.write(1, vec![record]);
        let store = Store::new();
        store.apply_batch(&log.batches[0]).unwrap();
        let refused = store.apply_batch(&log.batches[1]).unwrap_err().to_string();
        assert!(
            refused.contains(says) && refused.contains("offset 2"),
            "{refused}"
        );
    }
}

#[test]
fn a_dropped_collection_is_told_apart_from_a_new_one_of_its_name() {
    let mut log = Log::new();
    log.create("docs", 3);
    log.write(1, vec![put(1, "old", 1.0)]);
    log.write(1, vec![Record::DropCollection { incarnation: 1 }]);
    let store = Store::new();
    for batch in &log.batches {
        store.apply_batch(batch).unwrap();
    }
    assert!(store.collections().is_empty());
    assert_eq!(store.digest().1, Digest(0), "nothing is left of it");
    assert_eq!(store.bytes(), 0);
    let again = log.create("docs", 2);
    store.apply_batch(log.batches.last().unwrap()).unwrap();
    let docs = store.collection("docs").unwrap();
    assert_eq!(
        (docs.incarnation(), docs.count(), docs.config().dimension),
        (again, 0, 2)
    );
}

#[test]
fn deleting_what_is_absent_is_no_error() {
    let mut log = Log::new();
    log.create("docs", 3);
    log.write(
        1,
        vec![Record::Delete {
            incarnation: 1,
            id: "none".into(),
        }],
    );
    let store = log.store();
    assert_eq!(store.collection("docs").unwrap().count(), 0);
}

#[test]
fn the_digest_is_of_content_and_not_of_order_and_is_kept_right() {
    let mut one = Log::new();
    one.create("docs", 3);
    one.write(
        1,
        vec![put(1, "a", 1.0), put(1, "b", 2.0), put(1, "c", 3.0)],
    );
    one.write(
        1,
        vec![Record::Delete {
            incarnation: 1,
            id: "a".into(),
        }],
    );
    let store = one.store();
    assert_eq!(store.digest().1, store.recompute_digest());
    let digests = store.digests();
    assert_eq!(digests.position, Position::new(1, 5));
    assert_eq!(
        (digests.collections[0].0.as_str(), digests.collections[0].1),
        ("docs", 2)
    );

    // The same log up to there, and then a vector that differs in one bit.
    let same = one.store();
    assert_eq!(same.digest(), store.digest());
    one.write(1, vec![put(1, "b", 2.0)]);
    let mut other = Log {
        batches: one.batches[..3].to_vec(),
        ..Log::new()
    };
    other.end = LogEnd {
        position: other.batches[2].end(),
        chain: other.batches[2].chain_after(),
    };
    other.write(1, vec![put(1, "b", f32::from_bits(2.0f32.to_bits() + 1))]);
    assert_ne!(one.store().digest(), other.store().digest());
    assert_eq!(one.store().digest().0, other.store().digest().0);
}

#[test]
fn a_store_takes_the_place_of_another_under_its_readers() {
    let mut log = Log::new();
    log.create("old", 3);
    let store = Arc::new(log.store());
    let mut scan = store.scan();
    let applied = store.subscribe_applied();
    let mut new = Log::new();
    new.create("new", 2);
    new.write(
        1,
        vec![Record::Delete {
            incarnation: 1,
            id: "x".into(),
        }],
    );
    let (other, digest) = (new.store(), new.store().digest());
    store.replace_with(other);
    assert!(store.collection("old").is_none() && store.collection("new").is_some());
    assert_eq!(*applied.borrow(), Position::new(1, 2));
    assert_eq!(store.digest(), digest);
    while scan.next().is_some() {}
    assert_eq!(scan.trailer(), Err(SnapshotError::Superseded));
    new.write(1, vec![Record::DropCollection { incarnation: 1 }]);
    store.apply_batch(new.batches.last().unwrap()).unwrap();
}

#[test]
fn updated_follows_the_batches_time_and_sizes_are_counted() {
    let mut log = Log::new();
    log.create("docs", 3);
    log.write(1, vec![put(1, "abc", 1.0)]);
    let info = log.store().collections().remove(0);
    let written = log.batches[1].time_ms();
    assert_eq!(
        (info.created_ms, info.updated_ms),
        (log.batches[0].time_ms(), written)
    );
    let record = log.store().collection("docs").unwrap().get("abc").unwrap();
    assert_eq!(info.bytes, 3 * 4 + 3 + record.payload.len() as u64);
}

#[test]
fn listing_is_ordered_by_id_and_pages_do_not_overlap() {
    let mut log = Log::new();
    log.create("docs", 3);
    for n in (0..100).rev() {
        log.write(1, vec![put(1, &format!("id-{n:03}"), n as f32)]);
    }
    let store = log.store();
    let docs = store.collection("docs").unwrap();
    let mut ids = Vec::new();
    for offset in (0..110).step_by(7) {
        let page = docs.list(7, offset, &Never).unwrap();
        assert_eq!(page.total, 100);
        ids.extend(page.records.into_iter().map(|r| r.id));
    }
    let expected: Vec<_> = (0..100).map(|n| format!("id-{n:03}")).collect();
    assert_eq!(ids, expected);
    assert!(docs.list(0, 0, &Never).unwrap().records.is_empty());
    assert!(docs.list(5, 1_000, &Never).unwrap().records.is_empty());
    assert_eq!(docs.list(usize::MAX, 98, &Never).unwrap().records.len(), 2);
}

#[test]
fn what_is_not_newer_than_what_is_there_changes_nothing() {
    let mut log = Log::new();
    log.create("docs", 3);
    let store = log.store();
    let docs = store.collection("docs").unwrap();
    let write = |version, value: f32| docs.put(version, 0, "a", &[value; 3], &"{}".into());
    assert_ne!(write(10, 1.0), 0);
    let written = docs.get("a");
    for version in [9, 10] {
        assert_eq!(write(version, 2.0), 0);
        assert_eq!(docs.delete(version, 0, "a"), 0);
        assert_eq!(docs.get("a"), written);
    }
    assert_ne!(docs.delete(11, 0, "a"), 0);
    assert_eq!((docs.get("a"), docs.info().digest), (None, Digest(0)));
}

#[test]
fn nobody_waits_for_a_collection_to_be_freed() {
    use std::sync::mpsc;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(30);

    /// A payload that is not freed before the test lets it.
    struct Held {
        let_go: Mutex<mpsc::Receiver<()>>,
        freed: mpsc::Sender<Option<String>>,
    }

    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            b"{}"
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            let _ = self.let_go.lock().recv_timeout(2 * LONG);
            let thread = std::thread::current();
            let _ = self.freed.send(thread.name().map(str::to_owned));
        }
    }

    let mut log = Log::new();
    let store = Arc::new(Store::new());
    let (freed, frees) = mpsc::channel();
    let hold = |collection: &Collection, version: u64| {
        let (release, let_go) = mpsc::channel();
        let held = Held {
            let_go: Mutex::new(let_go),
            freed: freed.clone(),
        };
        let payload = Bytes::from_owner(held);
        collection.put(version, 0, "held", &[1.0, 2.0, 3.0], &payload);
        release
    };
    for (name, last_reference_is_a_readers) in [("writer", false), ("reader", true)] {
        let incarnation = log.create(name, 3);
        store.apply_batch(log.batches.last().unwrap()).unwrap();
        let puts = (0..1_000).map(|n| put(incarnation, &format!("v{n}"), 1.0));
        let batch = log.write(1, puts.collect());
        store.apply_batch(&batch).unwrap();
        let collection = store.collection(name).unwrap();
        let release = hold(&collection, batch.last_offset());
        let batch = log.write(1, vec![Record::DropCollection { incarnation }]);
        let (done, does) = mpsc::channel();
        let reader = last_reference_is_a_readers.then_some(collection);
        let writer = store.clone();
        std::thread::spawn(move || {
            writer.apply_batch(&batch).unwrap();
            drop(reader);
            done.send(()).unwrap();
        });
        does.recv_timeout(LONG)
            .unwrap_or_else(|_| panic!("the {name} waits"));
        assert!(store.collection(name).is_none());
        assert!(frees.try_recv().is_err());
        release.send(()).unwrap();
        assert_eq!(
            frees.recv_timeout(LONG).unwrap().as_deref(),
            Some("freeing")
        );
    }
}
