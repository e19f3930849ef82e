use proptest::prelude::*;

use super::*;
use crate::store::test_log::{Log, put};
use crate::store::{CollectionConfig, Metric, Never, Record};

/// What may happen while a scan goes on.
#[derive(Clone, Debug)]
enum Op {
    Create(u8),
    Drop(u8),
    Put(u8, u8, f32),
    Delete(u8, u8),
    /// The scan takes its next chunk.
    Scan,
}

fn any_op() -> impl Strategy<Value = Op> {
    let name = 0..3u8;
    let id = 0..12u8;
    prop_oneof![
        2 => name.clone().prop_map(Op::Create),
        1 => name.clone().prop_map(Op::Drop),
        12 => (name.clone(), id.clone(), -5.0f32..5.0).prop_map(|(n, i, v)| Op::Put(n, i, v)),
        4 => (name, id).prop_map(|(n, i)| Op::Delete(n, i)),
        3 => Just(Op::Scan),
    ]
}

/// The record that an operation means, if it can be written now.
fn record(store: &Store, op: &Op) -> Option<Record> {
    let name = |n: &u8| format!("c{n}");
    let incarnation = |n: &u8| store.collection(&name(n)).map(|c| c.incarnation());
    match op {
        Op::Create(n) if incarnation(n).is_none() => Some(Record::CreateCollection {
            name: name(n),
            config: CollectionConfig::new(3, Metric::Cosine),
            created_ms: 5,
        }),
        Op::Drop(n) => incarnation(n).map(|incarnation| Record::DropCollection { incarnation }),
        Op::Put(n, id, value) => incarnation(n).map(|i| put(i, &format!("v{id}"), *value)),
        Op::Delete(n, id) => incarnation(n).map(|incarnation| Record::Delete {
            incarnation,
            id: format!("v{id}"),
        }),
        Op::Create(_) | Op::Scan => None,
    }
}

/// Name, incarnation, times and all vectors of every collection.
fn content(store: &Store) -> Vec<String> {
    let mut out = Vec::new();
    for info in store.collections() {
        let records = store
            .collection(&info.name)
            .unwrap()
            .list(1_000, 0, &Never)
            .unwrap()
            .records;
        out.push(format!("{info:?} {records:?}"));
    }
    out
}

fn load(header: SnapshotHeader, chunks: &[Bytes], trailer: &SnapshotTrailer) -> Store {
    let mut loader = SnapshotLoader::new(header);
    for chunk in chunks {
        loader.load(chunk).unwrap();
    }
    loader.finish(trailer).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_scan_among_writes_and_the_log_behind_its_start_give_exactly_the_store(
        before in proptest::collection::vec(any_op(), 0..40),
        during in proptest::collection::vec(any_op(), 0..60),
        after in proptest::collection::vec(any_op(), 0..10),
        chunk_bytes in 40usize..400,
    ) {
        let store = Arc::new(Store::new());
        let mut log = Log::new();
        let write = |log: &mut Log, op: &Op| {
            if let Some(record) = record(&store, op) {
                let batch = log.write(1, vec![record]);
                store.apply_batch(&batch).unwrap();
            }
        };
        for op in &before {
            write(&mut log, op);
        }
        let mut scan = store.scan();
        scan.chunk_bytes = chunk_bytes;
        let mut chunks = Vec::new();
        for op in &during {
            match op {
                Op::Scan => chunks.extend(scan.next()),
                Op::Create(_) | Op::Drop(_) | Op::Put(..) | Op::Delete(..) => write(&mut log, op),
            }
        }
        for chunk in scan.by_ref() {
            chunks.push(chunk);
        }
        let (header, trailer) = (scan.header().clone(), scan.trailer().unwrap());
        for op in &after {
            write(&mut log, op);
        }

        let loaded = load(header.clone(), &chunks, &trailer);
        prop_assert_eq!(loaded.applied_end(), header.start);
        let mut exact = trailer.reached_by(&loaded);
        prop_assert_eq!(&exact, &Ok(trailer.exact_from == header.start.position.offset));
        for batch in &log.batches {
            if batch.first_offset() > header.start.position.offset {
                loaded.apply_batch(batch).unwrap();
                if exact == Ok(false) {
                    exact = trailer.reached_by(&loaded);
                    prop_assert_eq!(&exact, &Ok(batch.last_offset() == trailer.exact_from));
                }
            }
            if batch.last_offset() == trailer.exact_from {
                // Exact from here on, and not only at the end.
                let mut same = Log::new();
                same.batches = log.batches[..batch.last_offset() as usize].to_vec();
                prop_assert_eq!(content(&loaded), content(&same.store()));
            }
        }
        prop_assert_eq!(exact, Ok(true));
        prop_assert_eq!(loaded.digest(), store.digest());
        prop_assert_eq!(loaded.recompute_digest(), store.digest().1);
        prop_assert_eq!(content(&loaded), content(&store));
        prop_assert_eq!(loaded.history(), store.history());
    }
}

fn sample() -> (SnapshotHeader, Vec<Bytes>, SnapshotTrailer) {
    let mut log = Log::new();
    let incarnation = log.create("docs", 3);
    log.write(
        1,
        (0..5)
            .map(|n| put(incarnation, &format!("v{n}"), n as f32))
            .collect(),
    );
    let store = Arc::new(log.store());
    let mut scan = store.scan();
    scan.chunk_bytes = 100;
    let chunks: Vec<Bytes> = scan.by_ref().collect();
    (scan.header().clone(), chunks, scan.trailer().unwrap())
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_chunk_is_refused() {
    let (header, chunks, _) = sample();
    assert!(chunks.len() > 2);
    let chunk = &chunks[0];
    for at in 0..chunk.len() {
        assert!(
            SnapshotLoader::new(header.clone())
                .load(&chunk[..at])
                .is_err(),
            "cut at {at}"
        );
        let mut bad = chunk.to_vec();
        bad[at] ^= 1 << (at % 8);
        assert!(
            SnapshotLoader::new(header.clone()).load(&bad).is_err(),
            "bit in {at}"
        );
    }
}

/// A chunk of one entry.
fn chunk_of(index: u32, kind: u8, fields: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32_le(index);
    out.put_u32_le(0);
    put_entry(&mut out, kind, fields);
    let crc = chunk_crc(&out);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out.freeze()
}

fn collection_chunk(name: &str, description: &str) -> Bytes {
    chunk_of(0, 1, |out| {
        (0..3).for_each(|_| out.put_u64_le(1));
        put_config(out, &CollectionConfig::new(1, Metric::Cosine));
        put_text(out, name);
        put_text(out, description);
    })
}

#[test]
fn a_collection_that_no_client_could_have_made_is_refused() {
    let (header, _, _) = sample();
    let load = |chunk: &Bytes| SnapshotLoader::new(header.clone()).load(chunk);
    assert_eq!(load(&collection_chunk("a", &"x".repeat(4_096))), Ok(()));
    for (name, description) in [("", ""), ("a/b", ""), ("a", &*"x".repeat(4_097))] {
        let refused = load(&collection_chunk(name, description)).unwrap_err();
        assert!(refused.to_string().contains("is not allowed"), "{refused}");
    }
}

#[test]
fn a_vector_that_is_newer_than_the_log_will_be_is_refused() {
    let finish = |exact_from| {
        let start = SnapshotHeader {
            start: LogEnd::default(),
            history: History::default(),
            created_ms: 0,
        };
        let mut loader = SnapshotLoader::new(start);
        loader.load(&collection_chunk("a", "")).unwrap();
        let vector = chunk_of(1, 2, |out| {
            out.put_u64_le(1);
            out.put_u64_le(9);
            put_text(out, "id");
            put_vector(out, &[1.0]);
            put_blob(out, b"{}");
        });
        loader.load(&vector).unwrap();
        let trailer = loader.sum.trailer(exact_from, None);
        loader.finish(&trailer).err()
    };
    assert_eq!(finish(9), None);
    let refused = finish(8).unwrap().to_string();
    assert!(refused.contains("exact_from is 8"), "{refused}");
}

#[test]
fn chunks_out_of_order_missing_or_twice_are_refused() {
    let (header, chunks, trailer) = sample();
    let mut loader = SnapshotLoader::new(header.clone());
    assert!(loader.load(&chunks[1]).is_err());
    let mut loader = SnapshotLoader::new(header.clone());
    loader.load(&chunks[0]).unwrap();
    assert!(loader.load(&chunks[0]).is_err());
    let mut loader = SnapshotLoader::new(header.clone());
    loader.load(&chunks[0]).unwrap();
    let refused = loader.finish(&trailer).err().unwrap().to_string();
    assert!(refused.contains("chunks"), "{refused}");
    let finish = |trailer: SnapshotTrailer| {
        let mut loader = SnapshotLoader::new(header.clone());
        for chunk in &chunks {
            loader.load(chunk).unwrap();
        }
        loader.finish(&trailer)
    };
    assert!(
        finish(SnapshotTrailer {
            crc32: trailer.crc32 ^ 1,
            ..trailer
        })
        .is_err()
    );
    assert!(
        finish(SnapshotTrailer {
            bytes: trailer.bytes + 1,
            ..trailer
        })
        .is_err()
    );
    assert!(
        finish(SnapshotTrailer {
            exact_from: 1,
            ..trailer
        })
        .is_err()
    );
    assert!(finish(trailer).is_ok());
}

#[test]
fn an_empty_store_gives_a_snapshot_without_chunks() {
    let store = Arc::new(Store::new());
    let mut scan = store.scan();
    assert_eq!(scan.trailer(), Err(SnapshotError::Unfinished));
    assert!(scan.next().is_none() && scan.next().is_none());
    let trailer = scan.trailer().unwrap();
    assert_eq!((trailer.chunks, trailer.exact_from), (0, 0));
    let loaded = load(scan.header().clone(), &[], &trailer);
    assert_eq!(loaded.digest(), store.digest());
}

#[test]
fn chunks_stay_near_their_size_while_vectors_are_large() {
    let mut log = Log::new();
    let incarnation = log.create("docs", 20_000);
    for n in 0..40 {
        log.write(
            1,
            vec![Record::Put {
                incarnation,
                id: n.to_string(),
                vector: vec![n as f32; 20_000],
                payload: "{}".into(),
            }],
        );
    }
    let store = Arc::new(log.store());
    let chunks: Vec<Bytes> = store.scan().collect();
    assert_eq!(chunks.len(), 4);
    assert!(chunks.iter().all(|c| c.len() <= CHUNK_BYTES));
}

#[test]
fn a_scan_beside_deletes_that_move_what_is_left_misses_nothing() {
    let mut log = Log::new();
    let incarnation = log.create("c", 3);
    for from in (0..20_000).step_by(500) {
        let puts = (from..from + 500).map(|n| put(incarnation, &format!("v{n}"), n as f32));
        log.write(1, puts.collect());
    }
    let store = Arc::new(log.store());
    let mut scan = store.scan();
    scan.chunk_bytes = 16 << 10;
    let mut loader = SnapshotLoader::new(scan.header().clone());
    let start = log.batches.len();
    let mut from = 0;
    for chunk in scan.by_ref() {
        loader.load(&chunk).unwrap();
        // Nine of ten go while it is read.
        let doomed = (from..(from + 400).min(20_000)).filter(|n| n % 10 != 3);
        let deletes: Vec<_> = doomed
            .map(|n| Record::Delete {
                incarnation,
                id: format!("v{n}"),
            })
            .collect();
        from += 400;
        if !deletes.is_empty() {
            store.apply_batch(&log.write(1, deletes)).unwrap();
        }
    }
    let trailer = scan.trailer().unwrap();
    assert_eq!(store.collection("c").unwrap().count(), 2_000);
    let loaded = loader.finish(&trailer).unwrap();
    for batch in &log.batches[start..] {
        loaded.apply_batch(batch).unwrap();
    }
    assert_eq!(loaded.digest(), store.digest());
    assert_eq!(loaded.recompute_digest(), store.digest().1);
}
