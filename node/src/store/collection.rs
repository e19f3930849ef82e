//! One collection: its vectors, payloads and ids.
//!
//! The applier changes it under its lock, one record at a time. Readers take the lock for one block of at most 4,096
//! vectors, so that no search, however large the collection, holds the applier up for long; what changes between two
//! blocks of a search may or may not be seen by it.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};

use super::cancel::{Cancel, Cancelled};
use super::config::CollectionConfig;
use super::digest::{Digest, catalog_hash};
use super::hybrid::TermIndex;
use super::record::put_len;
use super::slots::{SHARDS, Slots, shard};
use crate::background;

/// A collection of so many slots is freed by whoever drops it.
const FREED_AT_ONCE: usize = 64;

/// What is known of a collection without reading its vectors.
#[derive(Clone, PartialEq, Debug)]
pub struct CollectionInfo {
    /// Its name.
    pub name: String,
    /// Offset of the operation that created it.
    pub incarnation: u64,
    /// Dimension, metric, description.
    pub config: CollectionConfig,
    /// Number of vectors.
    pub count: u64,
    /// Approximate size in bytes of vectors, payloads and ids.
    pub bytes: u64,
    /// When it was created, Unix time in ms.
    pub created_ms: u64,
    /// When it last changed, Unix time in ms.
    pub updated_ms: u64,
    /// Digest of its vectors.
    pub digest: Digest,
}

/// One vector as it is stored.
#[derive(Clone, PartialEq, Debug)]
pub struct VectorRecord {
    /// Its id.
    pub id: String,
    /// Offset of the operation that wrote it.
    pub version: u64,
    /// The vector as it was written, not normalised.
    pub vector: Vec<f32>,
    /// A JSON object.
    pub payload: Bytes,
}

/// Part of a listing.
#[derive(Clone, PartialEq, Debug)]
pub struct Page {
    /// Number of vectors in the collection.
    pub total: u64,
    /// Those of this page, ordered by id.
    pub records: Vec<VectorRecord>,
}

/// What readers read under the lock.
pub(super) struct Content {
    pub(super) slots: Slots,
    updated_ms: u64,
}

/// A collection. Reads hold its lock for at most 4,096 vectors at a time.
pub struct Collection {
    name: String,
    incarnation: u64,
    config: CollectionConfig,
    created_ms: u64,
    content: RwLock<Content>,
    /// Made and brought up to date by hybrid searches.
    pub(super) terms: RwLock<TermIndex>,
}

impl Collection {
    pub(super) fn new(
        name: &str,
        incarnation: u64,
        config: CollectionConfig,
        created_ms: u64,
        updated_ms: u64,
    ) -> Self {
        let slots = Slots::new(incarnation, config.dimension);
        Collection {
            name: name.to_owned(),
            incarnation,
            config,
            created_ms,
            content: RwLock::new(Content { slots, updated_ms }),
            terms: RwLock::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Offset of the operation that created it.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Dimension, metric, description.
    pub fn config(&self) -> &CollectionConfig {
        &self.config
    }

    /// What is known of it without reading its vectors.
    pub fn info(&self) -> CollectionInfo {
        let content = self.read();
        CollectionInfo {
            name: self.name.clone(),
            incarnation: self.incarnation,
            config: self.config.clone(),
            count: content.slots.count() as u64,
            bytes: content.slots.bytes(),
            created_ms: self.created_ms,
            updated_ms: content.updated_ms,
            digest: Digest(content.slots.digest()),
        }
    }

    /// Number of vectors.
    pub fn count(&self) -> u64 {
        self.read().slots.count() as u64
    }

    /// Whether there is a vector of that id.
    pub fn contains(&self, id: &str) -> bool {
        self.read().slots.find(id).is_some()
    }

    /// The vector of that id.
    pub fn get(&self, id: &str) -> Option<VectorRecord> {
        let content = self.read();
        let at = content.slots.find(id)?;
        content.record(at)
    }

    /// `limit` vectors in the order of their ids, after the first `offset`.
    pub fn list(
        &self,
        limit: usize,
        offset: usize,
        cancel: &dyn Cancel,
    ) -> Result<Page, Cancelled> {
        let ids = self.ids(limit, offset, cancel)?;
        let mut records = Vec::with_capacity(ids.len());
        for id in &ids {
            cancel.check()?;
            records.extend(self.get(id));
        }
        let total = self.count();
        Ok(Page { total, records })
    }

    /// The ids of `limit` vectors in their order, after the first `offset`. Looks at every id, block by block, from the
    /// highest slot down, as vectors move to lower ones only.
    pub fn ids(
        &self,
        limit: usize,
        offset: usize,
        cancel: &dyn Cancel,
    ) -> Result<Vec<Arc<str>>, Cancelled> {
        let mut ids: Vec<Arc<str>> = Vec::new();
        let mut end = usize::MAX;
        while end > 0 {
            cancel.check()?;
            let content = self.read();
            end = end.min(content.slots.len());
            let start = end.saturating_sub(content.slots.block_slots());
            ids.extend((start..end).filter_map(|at| Some(content.slots.slot(at)?.id.clone())));
            end = start;
        }
        let end = offset.saturating_add(limit).min(ids.len());
        // Only the page has to be in order, and what is before it before it.
        if offset < end && end < ids.len() {
            ids.select_nth_unstable(end - 1);
            ids.truncate(end);
        }
        cancel.check()?;
        if 0 < offset && offset < end {
            ids.select_nth_unstable(offset);
        }
        let mut page = ids.get(offset..end).unwrap_or_default().to_vec();
        page.sort_unstable();
        // One that was deleted and written again between two blocks, or moved, is there twice.
        page.dedup();
        Ok(page)
    }

    /// The ids of `limit` vectors that come after this one, or of the first ones after an empty one, in an order that no
    /// write changes: by a part of the id's hash, then by the id. Looks at one part in 64 of all ids at a time, so that
    /// going through all is nearly linear.
    pub fn ids_after(
        &self,
        after: &str,
        limit: usize,
        cancel: &dyn Cancel,
    ) -> Result<Vec<Arc<str>>, Cancelled> {
        let begin = if after.is_empty() { 0 } else { shard(after) };
        let mut page: Vec<Arc<str>> = Vec::new();
        for at in begin..SHARDS {
            cancel.check()?;
            let mut ids: Vec<Arc<str>> = {
                let content = self.read();
                let ids = content.slots.ids_in(at);
                ids.filter(|id| at > begin || &***id > after)
                    .cloned()
                    .collect()
            };
            ids.sort_unstable();
            ids.truncate(limit - page.len());
            page.append(&mut ids);
            if page.len() == limit {
                break;
            }
        }
        Ok(page)
    }

    /// Bytes that the record of a vector takes in the log; `None` when there is none of that id.
    pub fn record_len(&self, id: &str) -> Option<usize> {
        let content = self.read();
        let slot = content.slots.slot(content.slots.find(id)?)?;
        Some(put_len(
            id.len(),
            self.config.dimension * 4,
            slot.payload.len(),
        ))
    }

    /// Writes a vector of the right dimension if `version` is newer than what is there.
    /// Returns by how much that changes the digest.
    pub(super) fn put(
        &self,
        version: u64,
        time_ms: u64,
        id: &str,
        vector: &[f32],
        payload: &Bytes,
    ) -> u128 {
        let mut content = self.content.write();
        content.updated_ms = content.updated_ms.max(time_ms);
        content.slots.put(version, id, vector, payload)
    }

    /// Deletes a vector if `version` is newer than what is there. Returns by how much that changes the digest.
    pub(super) fn delete(&self, version: u64, time_ms: u64, id: &str) -> u128 {
        let mut content = self.content.write();
        content.updated_ms = content.updated_ms.max(time_ms);
        content.slots.delete(version, id)
    }

    pub(super) fn created_ms(&self) -> u64 {
        self.created_ms
    }

    /// What it adds to the store's digest: its catalog entry and its vectors.
    pub(super) fn digest_share(&self) -> u128 {
        self.catalog_hash().wrapping_add(self.read().slots.digest())
    }

    /// The same computed anew.
    pub(super) fn recompute_digest_share(&self) -> u128 {
        self.catalog_hash()
            .wrapping_add(self.read().slots.recompute_digest())
    }

    fn catalog_hash(&self) -> u128 {
        catalog_hash(self.incarnation, &self.name, &self.config, self.created_ms)
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read()
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        // Whoever happens to hold the last reference, the writer or a reader, does not wait for the system.
        let content = self.content.get_mut();
        if content.slots.len() > FREED_AT_ONCE {
            let slots = std::mem::replace(&mut content.slots, Slots::new(0, 1));
            background::free((slots, std::mem::take(self.terms.get_mut())));
        }
    }
}

impl Content {
    /// The vector in a slot; `None` when it is free.
    pub(super) fn record(&self, at: usize) -> Option<VectorRecord> {
        let slot = self.slots.slot(at)?;
        Some(VectorRecord {
            id: slot.id.to_string(),
            version: slot.version,
            vector: self.slots.vector(at).to_vec(),
            payload: slot.payload.clone(),
        })
    }

    pub(super) fn updated_ms(&self) -> u64 {
        self.updated_ms
    }
}
