//! A node's log and store. What is durable survives a crash; of the rest a random part does.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use crate::batch::Batch;
use crate::position::{Chain, History, LogEnd, Position};

/// One mutation: a key, and a value or its deletion.
pub(super) type Change = (u8, Option<u64>);

/// Key to version and value, as the node's store does it: newer versions win.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Store {
    entries: BTreeMap<u8, (u64, u64)>,
    pub(super) applied: Position,
}

impl Store {
    pub(super) fn apply(&mut self, batch: &Batch) {
        for (index, (key, value)) in decode(&batch.payload()).into_iter().enumerate() {
            let version = batch.first_offset() + index as u64;
            let newer = self.entries.get(&key).is_none_or(|(v, _)| *v < version);
            match value {
                Some(value) if newer => drop(self.entries.insert(key, (version, value))),
                None if newer => drop(self.entries.remove(&key)),
                Some(_) | None => {}
            }
        }
        self.applied = batch.end();
    }

    /// Order-free sum over what is there.
    pub(super) fn digest(&self) -> u128 {
        self.entries.iter().fold(0, |sum, (key, (version, value))| {
            let mut buf = [0; 17];
            buf[0] = *key;
            buf[1..9].copy_from_slice(&version.to_le_bytes());
            buf[9..].copy_from_slice(&value.to_le_bytes());
            sum.wrapping_add(xxhash_rust::xxh3::xxh3_128(&buf))
        })
    }

    /// The entries of a range of keys as a snapshot's chunk.
    pub(super) fn chunk(&self, keys: std::ops::Range<u8>) -> Bytes {
        let mut buf = BytesMut::new();
        for (key, (version, value)) in self.entries.range(keys) {
            buf.put_u8(*key);
            buf.put_u64_le(*version);
            buf.put_u64_le(*value);
        }
        buf.freeze()
    }

    pub(super) fn load(&mut self, chunk: &[u8]) {
        for entry in chunk.chunks_exact(17) {
            let number = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap());
            self.entries.insert(entry[0], (number(1), number(9)));
        }
    }
}

/// Operations as a batch's payload.
pub(super) fn encode(changes: &[Change]) -> Bytes {
    let mut buf = BytesMut::new();
    for (key, value) in changes {
        buf.put_u8(*key);
        buf.put_u64_le(value.map_or(0, |v| v + 1));
    }
    buf.freeze()
}

fn decode(payload: &[u8]) -> Vec<Change> {
    let change = |entry: &[u8]| {
        let value = u64::from_le_bytes(entry[1..9].try_into().unwrap());
        (entry[0], value.checked_sub(1))
    };
    payload.chunks_exact(9).map(change).collect()
}

/// The part of a log that is still there.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    base: LogEnd,
    batches: Vec<Batch>,
}

impl Log {
    pub(super) fn starting_at(base: LogEnd) -> Self {
        Log {
            base,
            batches: Vec::new(),
        }
    }

    pub(super) fn end(&self) -> LogEnd {
        self.batches.last().map_or(self.base, |b| LogEnd {
            position: b.end(),
            chain: b.chain_after(),
        })
    }

    pub(super) fn first_offset(&self) -> u64 {
        self.base.position.offset + 1
    }

    pub(super) fn push(&mut self, batch: Batch) {
        self.batches.push(batch);
    }

    pub(super) fn after(&self, offset: u64) -> impl Iterator<Item = &Batch> {
        let first = self.batches.partition_point(|b| b.first_offset() <= offset);
        self.batches[first..].iter()
    }

    /// The chain after the batch that ends there.
    pub(super) fn chain_at(&self, offset: u64) -> Option<Chain> {
        if offset == self.base.position.offset {
            return Some(self.base.chain);
        }
        let batch = self.batches.iter().find(|b| b.last_offset() == offset)?;
        Some(batch.chain_after())
    }

    /// The end of a batch nearest to `offset` and not after it.
    pub(super) fn boundary(&self, offset: u64) -> u64 {
        let whole = self
            .batches
            .iter()
            .rev()
            .find(|b| b.last_offset() <= offset);
        whole.map_or(self.base.position.offset, Batch::last_offset)
    }

    pub(super) fn cut_after(&mut self, offset: u64) {
        self.batches.retain(|b| b.last_offset() <= offset);
    }

    /// Drops what is at or before `offset`.
    pub(super) fn drop_until(&mut self, offset: u64) {
        let gone = self.batches.partition_point(|b| b.last_offset() <= offset);
        if let Some(last) = self.batches[..gone].last() {
            self.base = LogEnd {
                position: last.end(),
                chain: last.chain_after(),
            };
        }
        self.batches.drain(..gone);
    }
}

/// A state of the store from which the log can be replayed.
#[derive(Clone, Debug, Default)]
pub(super) struct Checkpoint {
    pub(super) end: LogEnd,
    pub(super) store: Store,
}

/// A full sync on its way in, beside the node's own log and store.
pub(super) struct Incoming {
    pub(super) log: Log,
    pub(super) store: Store,
    pub(super) history: History,
    pub(super) exact_from: Option<u64>,
}

impl Incoming {
    pub(super) fn is_exact(&self) -> bool {
        let end = self.log.end().position.offset;
        self.exact_from.is_some_and(|exact_from| end >= exact_from)
    }
}
