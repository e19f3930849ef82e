//! A node's store, checkpoints of it, and full syncs on their way in.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::log::Log;
use crate::batch::Batch;
use crate::breakage::{self, Breakage};
use crate::position::{History, LogEnd, Position};

/// One mutation: a key, and a value or its deletion.
pub(super) type Change = (u8, Option<u64>);

/// Key to version and value, as the node's store does it: newer versions win.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Store {
    entries: BTreeMap<u8, (u64, u64)>,
    pub(super) applied: Position,
}

impl Store {
    /// Applies a batch. `ahead` operations are known to follow it.
    pub(super) fn apply(&mut self, batch: &Batch, ahead: u64) {
        for (index, (key, value)) in decode(&batch.payload()).into_iter().enumerate() {
            let mut version = batch.first_offset() + index as u64;
            if breakage::on(Breakage::StampCurrentOffset) {
                version = batch.last_offset() + ahead;
            }
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
    /// Where it will be exact, and the digest that it has to have there.
    pub(super) exact_from: Option<(u64, u128)>,
}

impl Incoming {
    /// Whether what it holds is not what it should be, where that is known.
    pub(super) fn is_unlike(&self) -> bool {
        let end = self.log.end().position.offset;
        self.exact_from
            .is_some_and(|(from, digest)| end == from && digest != self.store.digest())
    }

    pub(super) fn is_exact(&self) -> bool {
        let end = self.log.end().position.offset;
        self.exact_from.is_some_and(|(from, _)| end >= from)
    }
}
