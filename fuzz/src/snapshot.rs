//! Snapshots as a peer sends them and as files that a start finds: loaded whole, or refused.
//!
//! What is loaded has the digest that its content gives, and goes on to be scanned to the same content.

use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use vectorizer_node::data_dir;
use vectorizer_node::store::{
    Collection, CollectionConfig, CollectionInfo, Filter, Fusion, HybridRequest, Metric, Never,
    Record, SearchRequest, SnapshotHeader, SnapshotLoader, SnapshotTrailer, Store,
};
use vectorizer_replication::batch::Batch;
use vectorizer_replication::position::{History, LogEnd};

use crate::input::Input;

/// The first byte says what the rest is.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.u8() % 4 {
        0 => chunks(input),
        1 => entries(input),
        2 => damaged(input),
        _ => {
            checkpoint(input.rest());
        }
    }
}

/// Chunks of any content, with the right index and CRC32 or without.
fn chunks(mut input: Input<'_>) {
    let mut loader = SnapshotLoader::new(header());
    let mut sum = Sum::default();
    while !input.is_empty() {
        let seal = input.u8() % 8 != 7;
        let mut chunk = input.blob().to_vec();
        if seal {
            chunk = sum.sealed(&chunk);
        }
        if loader.load(&chunk).is_err() {
            return;
        }
        sum.add(&chunk);
    }
    finish(loader, &sum.trailer());
}

/// Chunks of entries whose lengths and kinds are right.
fn entries(mut input: Input<'_>) {
    let mut loader = SnapshotLoader::new(header());
    let mut sum = Sum::default();
    let mut total = 0;
    while !input.is_empty() && total < 1 << 20 {
        let mut content = Vec::new();
        for _ in 0..=input.u8() % 16 {
            match input.u8() % 16 {
                15 => many(&mut content, &mut input),
                _ => put(&mut content, &entry(&mut input)),
            }
        }
        total += content.len();
        let chunk = sum.sealed(&content);
        if loader.load(&chunk).is_err() {
            return;
        }
        sum.add(&chunk);
    }
    finish(loader, &sum.trailer());
}

fn put(content: &mut Vec<u8>, entry: &[u8]) {
    content.extend_from_slice(&(entry.len() as u32).to_le_bytes());
    content.extend_from_slice(entry);
}

/// Many collections of one vector each, or of none.
fn many(content: &mut Vec<u8>, input: &mut Input<'_>) {
    let count = u64::from(input.u16() % 1_024) >> (input.u8() % 8);
    let dimension = [1, 2, 256, 65_536][usize::from(input.u8() % 4)];
    let empty = input.u8().is_multiple_of(2);
    for n in 0..count {
        let incarnation = 1_000 + n;
        put(
            content,
            &collection(incarnation, dimension, 1, format!("m{n}").as_bytes(), b""),
        );
        if !empty {
            let numbers = vec![1; dimension as usize * 4];
            put(
                content,
                &vector(incarnation, incarnation, b"id", &numbers, b"{}"),
            );
        }
        if content.len() > 1 << 20 {
            return;
        }
    }
}

fn entry(input: &mut Input<'_>) -> Vec<u8> {
    match input.u8() % 4 {
        0 => {
            let incarnation = u64::from(input.u8() % 4);
            let dimension = match input.u8() % 8 {
                7 => u32::from(input.u16()) * 2,
                _ => 2,
            };
            let metric = input.u8() % 4;
            let len = usize::from(input.u8() % 16);
            let name = match input.take(len) {
                [letter] => &[b'a' + letter % 4],
                other => other,
            };
            let len = usize::from(input.u8()).saturating_sub(240);
            collection(incarnation, dimension, metric, name, input.take(len))
        }
        1 | 2 => {
            let (incarnation, version) = (u64::from(input.u8() % 4), input.number());
            let len = usize::from(input.u8() % 4);
            let id = input.take(len);
            let count = match input.u8() % 8 {
                7 => usize::from(input.u8()),
                _ => 2,
            };
            let mut numbers = vec![0; count * 4];
            let taken = input.take(numbers.len());
            numbers[..taken.len()].copy_from_slice(taken);
            let payload = match usize::from(input.u8() % 64) {
                63 => br#"{"a":[1,{"b":2}],"b":{"c":null},"content":"one two"}"#,
                len => input.take(len),
            };
            vector(incarnation, version, id, &numbers, payload)
        }
        _ => input.blob().to_vec(),
    }
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text);
}

/// See `node/src/store/snapshot.rs`.
fn collection(
    incarnation: u64,
    dimension: u32,
    metric: u8,
    name: &[u8],
    description: &[u8],
) -> Vec<u8> {
    let mut out = vec![1];
    out.extend_from_slice(&incarnation.to_le_bytes());
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&dimension.to_le_bytes());
    out.push(metric);
    text(&mut out, name);
    text(&mut out, description);
    out
}

fn vector(incarnation: u64, version: u64, id: &[u8], numbers: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = vec![2];
    out.extend_from_slice(&incarnation.to_le_bytes());
    out.extend_from_slice(&version.to_le_bytes());
    text(&mut out, id);
    out.extend_from_slice(&((numbers.len() / 4) as u32).to_le_bytes());
    out.extend_from_slice(numbers);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
    out
}

/// A real snapshot's file in which bytes are changed.
fn damaged(mut input: Input<'_>) {
    let mut file = real().clone();
    let mut touched = false;
    while !input.is_empty() && !file.is_empty() {
        let op = input.u8() % 4;
        let at = usize::from(input.u16()) % file.len();
        match op {
            0 | 1 => {
                file[at] ^= input.u8() | 1;
                // Twice at one place may be as it was.
                touched = true;
            }
            2 => file.truncate(at),
            _ => file.extend_from_slice(input.blob()),
        }
    }
    let loaded = checkpoint(&file);
    assert!(
        loaded || touched || file != *real(),
        "what is whole is loaded"
    );
    assert!(!loaded || file == *real(), "what was changed is refused");
}

/// A file of any content; whether it could be loaded.
fn checkpoint(bytes: &[u8]) -> bool {
    let loaded = data_dir::load_checkpoint(Cursor::new(bytes), Path::new("checkpoint"));
    match loaded {
        Ok((store, trailer)) => {
            assert!(trailer.exact_from >= store.applied().offset);
            sound(&Arc::new(store), trailer.exact_from);
            true
        }
        Err(_) => false,
    }
}

fn header() -> SnapshotHeader {
    SnapshotHeader {
        start: LogEnd::default(),
        history: History::default(),
        created_ms: 0,
    }
}

fn finish(loader: SnapshotLoader, trailer: &SnapshotTrailer) {
    let bytes = loader.bytes();
    let wrong = SnapshotTrailer {
        bytes: bytes + 1,
        ..*trailer
    };
    assert_eq!(bytes, trailer.bytes);
    let store = loader.finish(trailer).unwrap();
    sound(&Arc::new(store), trailer.exact_from);
    let empty = SnapshotLoader::new(header());
    assert!(empty.finish(&wrong).is_err(), "a trailer that does not fit");
}

/// The digest that was kept is the one of what is there, and what is there comes out again.
///
/// No log was replayed, so that it is not exact, and a scan of it cannot tell from where on it would be.
fn sound(store: &Arc<Store>, exact_from: u64) {
    assert_eq!(store.recompute_digest(), store.digest().1);
    let mut scan = store.scan();
    let mut loader = SnapshotLoader::new(scan.header().clone());
    for chunk in scan.by_ref() {
        loader.load(&chunk).unwrap();
    }
    let trailer = SnapshotTrailer {
        exact_from,
        digest: None,
        ..scan.trailer().unwrap()
    };
    let again = loader.finish(&trailer).unwrap();
    assert_eq!(again.digests(), store.digests());
    for info in store.collections().iter().take(8) {
        readable(&store.collection(&info.name).unwrap(), info);
    }
}

/// Whatever the numbers and payloads are, reading and searching give answers.
fn readable(collection: &Collection, info: &CollectionInfo) {
    assert_eq!(collection.count(), info.count);
    let page = collection.list(8, 0, &Never).unwrap();
    assert_eq!(page.total, info.count);
    for record in &page.records {
        let found = collection.get(&record.id).unwrap();
        assert_eq!(
            (found.version, &found.payload),
            (record.version, &record.payload)
        );
    }
    let mut vectors = page.records.iter().map(|record| &record.vector);
    let near = vectors.find(|vector| vector.iter().all(|number| number.is_finite()));
    let vector = near
        .cloned()
        .unwrap_or_else(|| vec![1.0; info.config.dimension]);
    let filter = r#"{"or": [{"equals": {"key": "a", "value": 1}}, {"exists": {"key": "b.c"}}]}"#;
    for filter in [None, Some(Filter::parse(filter, "filter").unwrap())] {
        let request = SearchRequest {
            vector: vector.clone(),
            limit: 4,
            filter: filter.clone(),
            score_threshold: None,
            with_vectors: true,
        };
        let hits = collection.search(&request, &Never);
        assert!(hits.unwrap().iter().all(|hit| hit.score.is_finite()));
        for fusion in [Fusion::Rrf, Fusion::Weighted, Fusion::Alpha] {
            let request = HybridRequest {
                vector: vector.clone(),
                terms: vec![(0, 1.0), (7, 0.5)],
                fusion,
                alpha: 0.5,
                dense_k: 4,
                sparse_k: 4,
                final_k: 4,
                filter: filter.clone(),
                with_vectors: false,
            };
            let hits = collection.search_hybrid(&request, &Never);
            assert!(hits.unwrap().iter().all(|hit| hit.score.is_finite()));
        }
    }
}

/// What the chunks so far add up to.
#[derive(Default)]
struct Sum {
    chunks: u32,
    bytes: u64,
    crc: crc32fast::Hasher,
}

impl Sum {
    /// `content` as the next chunk.
    fn sealed(&self, content: &[u8]) -> Vec<u8> {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.chunks.to_le_bytes());
        crc.update(content);
        let mut chunk = self.chunks.to_le_bytes().to_vec();
        chunk.extend_from_slice(&crc.finalize().to_le_bytes());
        chunk.extend_from_slice(content);
        chunk
    }

    fn add(&mut self, chunk: &[u8]) {
        self.chunks += 1;
        self.bytes += chunk.len() as u64;
        self.crc.update(&chunk[4..8]);
    }

    fn trailer(&self) -> SnapshotTrailer {
        SnapshotTrailer {
            chunks: self.chunks,
            bytes: self.bytes,
            crc32: self.crc.clone().finalize(),
            exact_from: u64::MAX,
            digest: None,
        }
    }
}

/// A checkpoint's file as `node/src/data_dir/checkpoint.rs` says, of a store with two collections.
fn real() -> &'static Vec<u8> {
    static REAL: OnceLock<Vec<u8>> = OnceLock::new();
    REAL.get_or_init(|| {
        let mut scan = Arc::new(store()).scan();
        let mut out = b"VECSNAP\0".to_vec();
        out.extend_from_slice(&1u32.to_le_bytes());
        let header = SnapshotHeader {
            created_ms: 0,
            ..scan.header().clone()
        };
        json(&mut out, serde_json::to_vec(&header).unwrap());
        for chunk in scan.by_ref() {
            out.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
            out.extend_from_slice(&chunk);
        }
        out.extend_from_slice(&0u32.to_le_bytes());
        json(
            &mut out,
            serde_json::to_vec(&scan.trailer().unwrap()).unwrap(),
        );
        out
    })
}

fn json(out: &mut Vec<u8>, json: Vec<u8>) {
    out.extend_from_slice(&(json.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&json).to_le_bytes());
    out.extend_from_slice(&json);
}

fn store() -> Store {
    let mut payload = BytesMut::new();
    let create = |name: &str, dimension| Record::CreateCollection {
        name: name.to_owned(),
        config: CollectionConfig::new(dimension, Metric::Cosine),
        created_ms: 5,
    };
    let put = |incarnation, id: u32, dimension| Record::Put {
        incarnation,
        id: id.to_string(),
        vector: vec![0.5; dimension],
        payload: Bytes::from_static(b"{\"a\":1}"),
    };
    let mut records = vec![create("a", 2), create("b", 3)];
    records.extend((0..6).map(|id| put(1, id, 2)));
    records.extend((0..3).map(|id| put(2, id, 3)));
    records
        .iter()
        .for_each(|record| record.encode(&mut payload));
    let count = records.len() as u32;
    let batch = Batch::encode(1, 1, count, 9, Default::default(), &payload).unwrap();
    let store = Store::new();
    store.apply_batch(&batch).unwrap();
    store
}
