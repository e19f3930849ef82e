//! Where a collection keeps its vectors: numbered slots in blocks that never move.
//!
//! A vector stays in its slot until an operation deletes it; the slot is then free for the next new id. Once a third of
//! all slots is free, and more than a block, each delete moves the vectors of a few of the last slots to the lowest free
//! ones, and blocks without vectors go: memory comes back, in steps that nobody notices. A vector only ever moves to a
//! lower slot, so that whoever goes from the highest to the lowest misses none: searches, listings and the snapshot scan
//! rely on that.
//!
//! Vectors of a block lie side by side in one piece of memory of about 4 MiB, so that a search reads straight through it,
//! and growing does not copy what is there. Only the first block begins small and is doubled until it is whole: there may
//! be many collections of few vectors. The index of ids is split, so that its growth is too.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::digest::vector_hash;
use super::kernel::inverse_norm;
use crate::background;

/// Most slots of a block, and so the most that a reader looks at under one lock.
const MAX_BLOCK_SLOTS: usize = 4_096;
const MIN_BLOCK_SLOTS: usize = 16;
/// Numbers in a block, about.
const BLOCK_FLOATS: usize = 1 << 20;
/// Parts of the index of ids.
pub(super) const SHARDS: usize = 64;
/// Slots at the end that a delete gives up at most.
const GIVEN_UP_AT_ONCE: usize = 4;
/// A part of the index keeps room for so many ids.
const FEW_IDS: usize = 64;

/// One vector without its numbers.
pub(super) struct Slot {
    pub(super) id: Arc<str>,
    /// Offset of the operation that wrote it.
    pub(super) version: u64,
    pub(super) payload: Bytes,
    /// 1 / length of the vector; 0 for a vector of zeros.
    pub(super) inverse_norm: f32,
    hash: u128,
}

/// Slots that were given out, and room for a number of vectors.
struct Block {
    vectors: Vec<f32>,
    slots: Vec<Option<Slot>>,
    /// Number of the last change of a slot in it.
    changed_at: u64,
}

impl Block {
    fn new(slots: usize, dimension: usize) -> Self {
        Block {
            // Zeroed memory from the system costs nothing until it is used.
            vectors: vec![0.0; slots * dimension],
            slots: Vec::with_capacity(slots),
            changed_at: 0,
        }
    }

    fn grow(&mut self, slots: usize, dimension: usize) {
        let more = (slots * dimension).saturating_sub(self.vectors.len());
        self.vectors.reserve_exact(more);
        self.vectors.resize(slots * dimension, 0.0);
        let more = slots.saturating_sub(self.slots.len());
        self.slots.reserve_exact(more);
    }
}

/// All slots of a collection and the index of ids.
pub(super) struct Slots {
    incarnation: u64,
    dimension: usize,
    block_slots: usize,
    blocks: Vec<Block>,
    len: usize,
    free: BTreeSet<u32>,
    /// None of them until there is a vector.
    ids: Vec<HashMap<Arc<str>, u32>>,
    /// Sum of the hashes of all vectors.
    digest: u128,
    bytes: u64,
    /// Puts and deletes that changed something.
    changes: u64,
}

impl Slots {
    pub(super) fn new(incarnation: u64, dimension: usize) -> Self {
        Slots {
            incarnation,
            dimension,
            block_slots: (BLOCK_FLOATS / dimension.max(1)).clamp(MIN_BLOCK_SLOTS, MAX_BLOCK_SLOTS),
            blocks: Vec::new(),
            len: 0,
            free: BTreeSet::new(),
            ids: Vec::new(),
            digest: 0,
            bytes: 0,
            changes: 0,
        }
    }

    /// Number of vectors.
    pub(super) fn count(&self) -> usize {
        self.len - self.free.len()
    }

    /// Number of slots, free ones included.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Slots that a reader looks at under one lock.
    pub(super) fn block_slots(&self) -> usize {
        self.block_slots
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The slots of a block.
    pub(super) fn of_block(&self, block: usize) -> Range<usize> {
        let first = block * self.block_slots;
        first.min(self.len)..(first + self.block_slots).min(self.len)
    }

    /// Number of the last change of a slot in a block; `None` when there is no such block.
    pub(super) fn changed_at(&self, block: usize) -> Option<u64> {
        Some(self.blocks.get(block)?.changed_at)
    }

    pub(super) fn digest(&self) -> u128 {
        self.digest
    }

    /// Approximate size of vectors, payloads and ids.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The slot's content; `None` when it is free or beyond the end.
    pub(super) fn slot(&self, at: usize) -> Option<&Slot> {
        let block = self.blocks.get(at / self.block_slots)?;
        block.slots.get(at % self.block_slots)?.as_ref()
    }

    /// The numbers in a slot below [`Self::len`].
    pub(super) fn vector(&self, at: usize) -> &[f32] {
        let start = at % self.block_slots * self.dimension;
        &self.blocks[at / self.block_slots].vectors[start..start + self.dimension]
    }

    /// The ids in a part of the index.
    pub(super) fn ids_in(&self, shard: usize) -> impl Iterator<Item = &Arc<str>> {
        self.ids.get(shard).into_iter().flat_map(HashMap::keys)
    }

    pub(super) fn find(&self, id: &str) -> Option<usize> {
        self.ids.get(shard(id))?.get(id).map(|at| *at as usize)
    }

    /// Writes a vector of the right dimension if `version` is newer than what is there.
    /// Returns by how much that changes the digest.
    pub(super) fn put(&mut self, version: u64, id: &str, vector: &[f32], payload: &Bytes) -> u128 {
        let hash = vector_hash(self.incarnation, id, version, vector, payload);
        let (at, id) = match self.find(id) {
            Some(at) => match self.slot(at) {
                Some(slot) if slot.version >= version => return 0,
                Some(slot) => (at, slot.id.clone()),
                None => (at, Arc::from(id)), // the index holds no free slots
            },
            None => {
                let id: Arc<str> = Arc::from(id);
                let at = self.allocate();
                if self.ids.is_empty() {
                    self.ids.resize_with(SHARDS, HashMap::new);
                }
                self.ids[shard(&id)].insert(id.clone(), at as u32);
                (at, id)
            }
        };
        let start = at % self.block_slots * self.dimension;
        self.bytes += self.size(&id, payload);
        self.changes += 1;
        let block = &mut self.blocks[at / self.block_slots];
        block.changed_at = self.changes;
        block.vectors[start..start + self.dimension].copy_from_slice(vector);
        let old = block.slots[at % self.block_slots].replace(Slot {
            id,
            version,
            payload: payload.clone(),
            inverse_norm: inverse_norm(vector),
            hash,
        });
        let old_hash = old.as_ref().map_or(0, |slot| slot.hash);
        if let Some(old) = old {
            self.bytes -= self.size(&old.id, &old.payload);
        }
        let change = hash.wrapping_sub(old_hash);
        self.digest = self.digest.wrapping_add(change);
        change
    }

    /// Deletes a vector if `version` is newer than what is there. Returns by how much that changes the digest.
    pub(super) fn delete(&mut self, version: u64, id: &str) -> u128 {
        let Some(at) = self.find(id) else { return 0 };
        if self.slot(at).is_some_and(|slot| slot.version >= version) {
            return 0;
        }
        self.forget(id);
        let block = &mut self.blocks[at / self.block_slots];
        let Some(slot) = block.slots[at % self.block_slots].take() else {
            return 0;
        };
        self.changes += 1;
        block.changed_at = self.changes;
        self.free.insert(at as u32);
        self.bytes -= self.size(&slot.id, &slot.payload);
        self.digest = self.digest.wrapping_sub(slot.hash);
        self.shrink();
        0u128.wrapping_sub(slot.hash)
    }

    /// Takes an id out of the index.
    fn forget(&mut self, id: &str) {
        let ids = &mut self.ids[shard(id)];
        ids.remove(id);
        if ids.capacity() > 4 * ids.len().max(FEW_IDS) {
            ids.shrink_to(2 * ids.len());
        }
    }

    /// A few steps towards a memory that fits what is there.
    fn shrink(&mut self) {
        for _ in 0..GIVEN_UP_AT_ONCE {
            if self.free.len() <= self.count() / 2 + self.block_slots {
                return;
            }
            self.give_up_last();
        }
    }

    /// Moves the vector in the last slot to the lowest free one, if there is one in it, and gives the slot up.
    fn give_up_last(&mut self) {
        let last = self.len - 1;
        if !self.free.remove(&(last as u32))
            && let Some(to) = self.free.pop_first()
        {
            self.relocate(last, to as usize);
        }
        self.len = last;
        self.changes += 1;
        if let Some(block) = self.blocks.last_mut() {
            block.slots.pop();
            block.changed_at = self.changes;
            if block.slots.is_empty() {
                background::free(self.blocks.pop());
            }
        }
    }

    /// Moves a vector to a free slot below its own.
    fn relocate(&mut self, from: usize, to: usize) {
        let (here, there) = (from % self.block_slots, to % self.block_slots);
        let (low, high) = (to / self.block_slots, from / self.block_slots);
        let slot = self.blocks[high].slots[here].take();
        let Some(slot) = slot else { return };
        let (start, len) = (here * self.dimension, self.dimension);
        let target = there * self.dimension;
        if low == high {
            let vectors = &mut self.blocks[low].vectors;
            vectors.copy_within(start..start + len, target);
        } else {
            let (below, above) = self.blocks.split_at_mut(high);
            let vector = &above[0].vectors[start..start + len];
            below[low].vectors[target..target + len].copy_from_slice(vector);
        }
        if let Some(at) = self.ids[shard(&slot.id)].get_mut(&slot.id) {
            *at = to as u32;
        }
        self.changes += 1;
        let block = &mut self.blocks[low];
        block.slots[there] = Some(slot);
        block.changed_at = self.changes;
    }

    /// A slot that is free until it is filled.
    fn allocate(&mut self) -> usize {
        if let Some(at) = self.free.pop_first() {
            return at as usize;
        }
        let at = self.len;
        if at == self.blocks.len() * self.block_slots {
            let slots = match at {
                0 => MIN_BLOCK_SLOTS,
                _ => self.block_slots,
            };
            self.blocks.push(Block::new(slots, self.dimension));
        }
        if let Some(block) = self.blocks.last_mut() {
            let used = block.slots.len();
            if used * self.dimension == block.vectors.len() {
                block.grow((used * 2).min(self.block_slots), self.dimension);
            }
            block.slots.push(None);
        }
        self.len += 1;
        at
    }

    fn size(&self, id: &str, payload: &Bytes) -> u64 {
        (self.dimension * 4 + id.len() + payload.len()) as u64
    }

    /// The digest computed anew from what is there.
    pub(super) fn recompute_digest(&self) -> u128 {
        let mut sum = 0u128;
        for at in 0..self.len {
            if let Some(slot) = self.slot(at) {
                let vector = self.vector(at);
                let hash = vector_hash(
                    self.incarnation,
                    &slot.id,
                    slot.version,
                    vector,
                    &slot.payload,
                );
                sum = sum.wrapping_add(hash);
            }
        }
        sum
    }
}

/// In which part of the index an id is.
pub(super) fn shard(id: &str) -> usize {
    (xxhash_rust::xxh3::xxh3_64(id.as_bytes()) >> 58) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that blocks and index take.
    fn memory(slots: &Slots) -> usize {
        let blocks = slots.blocks.iter();
        let blocks = blocks
            .map(|b| b.vectors.capacity() * 4 + b.slots.capacity() * size_of::<Option<Slot>>());
        let ids = slots.ids.iter().map(|ids| ids.capacity() * 24);
        blocks.sum::<usize>() + ids.sum::<usize>()
    }

    #[test]
    fn memory_comes_back_as_vectors_are_deleted_in_whatever_order() {
        const DIMENSION: usize = 64;
        for stride in [1, 7_919] {
            let mut slots = Slots::new(1, DIMENSION);
            let count = 40_000;
            for n in 0..count {
                put(&mut slots, n, DIMENSION);
            }
            let before = memory(&slots);
            let deleted = (0..count).map(|n| n * stride % count).take(count * 9 / 10);
            for (n, deleted) in deleted.enumerate() {
                let changes = slots.changes;
                slots.delete((count + n) as u64, &deleted.to_string());
                assert!(slots.changes - changes <= 1 + 2 * GIVEN_UP_AT_ONCE as u64);
            }
            assert_eq!(slots.count(), count / 10);
            assert!(
                memory(&slots) * 3 < before,
                "{} of {before}",
                memory(&slots)
            );
            assert_eq!(slots.digest(), slots.recompute_digest());
            for n in (count * 9 / 10..count).map(|n| n * stride % count) {
                let at = slots.find(&n.to_string()).unwrap();
                assert!(slots.vector(at).iter().all(|number| *number == n as f32));
            }
            for n in 0..count {
                slots.delete((3 * count) as u64, &n.to_string());
            }
            assert_eq!((slots.count(), slots.bytes(), slots.digest()), (0, 0, 0));
            assert!(
                memory(&slots) * 8 < before,
                "{} of {before}",
                memory(&slots)
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn what_is_put_and_not_deleted_is_there(
            steps in proptest::collection::vec((0usize..6, 0usize..600), 1..30),
        ) {
            const DIMENSION: usize = 4_096;
            let mut slots = Slots::new(1, DIMENSION);
            let mut there = std::collections::BTreeMap::new();
            let mut version = 0;
            let vector = |version: u64| {
                let mut vector = vec![0.0; DIMENSION];
                (vector[0], vector[DIMENSION - 1]) = (version as f32, -(version as f32));
                vector
            };
            // More deletes than puts, each over a stretch of ids.
            for (kind, from) in steps {
                for n in from..from + 200 {
                    version += 1;
                    if kind < 2 {
                        slots.put(version, &n.to_string(), &vector(version), &Bytes::new());
                        there.insert(n, version);
                    } else if n % kind != 0 {
                        slots.delete(version, &n.to_string());
                        there.remove(&n);
                    }
                }
                prop_assert_eq!(slots.count(), there.len());
                prop_assert!(slots.len() <= there.len() * 3 / 2 + slots.block_slots() + 200);
            }
            for n in 0..800 {
                let at = slots.find(&n.to_string());
                prop_assert_eq!(at.is_some(), there.contains_key(&n));
                if let (Some(at), Some(version)) = (at, there.get(&n)) {
                    prop_assert_eq!(slots.vector(at), vector(*version));
                    prop_assert_eq!(slots.slot(at).unwrap().version, *version);
                }
            }
            prop_assert_eq!(slots.digest(), slots.recompute_digest());
        }
    }

    fn put(slots: &mut Slots, n: usize, dimension: usize) {
        let vector = vec![n as f32; dimension];
        slots.put(n as u64 + 1, &n.to_string(), &vector, &Bytes::new());
    }

    #[test]
    fn a_block_that_grows_keeps_what_is_there_and_ends_as_large_as_all_others() {
        for dimension in [1, 300, 70_000] {
            let mut slots = Slots::new(1, dimension);
            let count = slots.block_slots() * 2 + 1;
            for n in 0..count {
                put(&mut slots, n, dimension);
            }
            for n in 0..count {
                let at = slots.find(&n.to_string()).unwrap();
                assert_eq!(at, n);
                assert!(slots.vector(at).iter().all(|number| *number == n as f32));
            }
            assert_eq!(slots.digest(), slots.recompute_digest());
            let lengths: Vec<_> = slots.blocks.iter().map(|b| b.vectors.len()).collect();
            assert_eq!(lengths, [slots.block_slots() * dimension; 3]);
        }
    }

    #[test]
    fn a_collection_of_few_vectors_takes_little_memory() {
        let mut slots = Slots::new(1, 2);
        assert_eq!((slots.ids.capacity(), slots.blocks.capacity()), (0, 0));
        put(&mut slots, 0, 2);
        let block = &slots.blocks[0];
        let bytes =
            block.vectors.capacity() * 4 + block.slots.capacity() * size_of::<Option<Slot>>();
        assert!(bytes <= 2_048, "{bytes} bytes");
    }
}
