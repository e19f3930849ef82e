//! A log in memory, for tests: records in, batches out.

use bytes::BytesMut;
use vectorizer_replication::batch::Batch;
use vectorizer_replication::position::LogEnd;

use super::{CollectionConfig, Metric, Record, Store};

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) batches: Vec<Batch>,
    pub(crate) end: LogEnd,
}

impl Log {
    pub(crate) fn new() -> Self {
        Log::default()
    }

    /// Appends one batch; its time is its first offset in seconds.
    pub(crate) fn write(&mut self, epoch: u64, records: Vec<Record>) -> Batch {
        let mut payload = BytesMut::new();
        for record in &records {
            record.encode(&mut payload);
        }
        let first = self.end.position.offset + 1;
        let count = records.len() as u32;
        let batch =
            Batch::encode(epoch, first, count, first * 1_000, self.end.chain, &payload).unwrap();
        self.end = LogEnd {
            position: batch.end(),
            chain: batch.chain_after(),
        };
        self.batches.push(batch.clone());
        batch
    }

    /// Creates a cosine collection; returns its incarnation.
    pub(crate) fn create(&mut self, name: &str, dimension: usize) -> u64 {
        let incarnation = self.end.position.offset + 1;
        let epoch = self.end.position.epoch.max(1);
        let record = Record::CreateCollection {
            name: name.to_owned(),
            config: CollectionConfig::new(dimension, Metric::Cosine),
            created_ms: incarnation * 1_000,
        };
        self.write(epoch, vec![record]);
        incarnation
    }

    /// A store that has applied everything.
    pub(crate) fn store(&self) -> Store {
        let store = Store::new();
        for batch in &self.batches {
            store.apply_batch(batch).unwrap();
        }
        store
    }
}

/// A vector of three numbers.
pub(crate) fn put(incarnation: u64, id: &str, value: f32) -> Record {
    Record::Put {
        incarnation,
        id: id.to_owned(),
        vector: vec![value, 1.0, -value],
        payload: format!("{{\"value\":{value}}}").into(),
    }
}
