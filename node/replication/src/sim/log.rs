//! A node's log: batches that are still there, of which a crash keeps what was synced and tears the rest.

use bytes::{Bytes, BytesMut};

use crate::batch::Batch;
use crate::position::{Chain, LogEnd};

/// What a crash leaves of the bytes that were not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Torn {
    /// So many of them are there, at most.
    pub(super) kept: u64,
    /// One of those is not what was written.
    pub(super) flipped: Option<u64>,
    /// Whether a role file that was being replaced is the new one.
    pub(super) role_is_new: bool,
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
        let at = self
            .batches
            .binary_search_by_key(&offset, Batch::last_offset);
        at.ok().map(|index| self.batches[index].chain_after())
    }

    pub(super) fn cut_after(&mut self, offset: u64) {
        self.batches.retain(|b| b.last_offset() <= offset);
    }

    /// What is read after a crash: the torn tail is cut at the last whole batch that continues the log.
    pub(super) fn tear(&mut self, durable: u64, torn: Torn) {
        let mut tail = BytesMut::new();
        for batch in self.after(durable) {
            tail.extend_from_slice(batch.bytes());
        }
        self.cut_after(durable);
        tail.truncate(torn.kept.min(tail.len() as u64) as usize);
        if let Some(at) = torn.flipped
            && !tail.is_empty()
        {
            let at = at as usize % tail.len();
            tail[at] ^= 1 << (at % 8);
        }
        let mut tail: Bytes = tail.freeze();
        while let Ok(batch) = Batch::decode(&mut tail) {
            let LogEnd { position, chain } = self.end();
            if batch.first_offset() != position.offset + 1 || batch.chain_before() != chain {
                return;
            }
            self.push(batch);
        }
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
