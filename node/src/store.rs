//! Collections in memory. Applying a record is deterministic: every node that applied the same log holds the same bytes.
//!
//! One applier changes the store, in log order; everybody else reads beside it. A record's offset is its version, and it
//! is applied only where it is newer than what is there, so that replaying a part of the log again changes nothing.

mod cancel;
mod check;
mod codec;
mod collection;
mod config;
mod digest;
pub mod embed;
pub mod filter;
mod hybrid;
mod kernel;
mod payload;
mod recent;
mod record;
mod search;
mod slots;
mod snapshot;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use vectorizer_replication::batch::Batch;
use vectorizer_replication::position::{Chain, EpochStart, History, LogEnd, Position};

use crate::breakage::{self, Breakage};

#[cfg(test)]
pub(crate) use cancel::AtLook;
pub use cancel::{Cancel, Cancelled, Never};
pub use codec::CodecError;
use codec::{floats, own};
pub use collection::{Collection, CollectionInfo, Page, VectorRecord};
pub use config::{
    CollectionConfig, ConfigError, MAX_DESCRIPTION_LEN, MAX_DIMENSION, MAX_ID_LEN, MAX_NAME_LEN,
    Metric, validate_id, validate_name,
};
pub use digest::{Digest, StoreDigest};
pub use filter::{Filter, FilterError};
pub use hybrid::HybridRequest;
pub use payload::Number;
pub use recent::DigestAt;
use recent::Recent;
pub use record::{Numbers, Op, Record, RecordError, encode_put, put_len};
pub use search::{Hit, SearchError, SearchRequest};
pub use snapshot::{SnapshotError, SnapshotHeader, SnapshotLoader, SnapshotScan, SnapshotTrailer};
pub use vectorizer_api::data::Fusion;

/// An operation that cannot be applied: a bug somewhere, and a reason for a replica to stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The batch does not hold records.
    #[error("batch at offset {offset}: {source}")]
    Record {
        /// The batch's first offset.
        offset: u64,
        /// What is wrong with it.
        source: RecordError,
    },
    /// The batch does not follow what was applied before it.
    #[error("batch begins at offset {found}, {expected} was expected")]
    Gap {
        /// The next offset.
        expected: u64,
        /// The batch's first offset.
        found: u64,
    },
    /// The batch follows another log than the one that was applied.
    #[error(
        "the batch at offset {offset} follows chain {found:?}, the store stands at {expected:?}"
    )]
    Chain {
        /// The batch's first offset.
        offset: u64,
        /// The store's.
        expected: Chain,
        /// The batch's.
        found: Chain,
    },
    /// The record names a collection that does not exist.
    #[error("offset {offset}: no collection has incarnation {incarnation}")]
    NoCollection {
        /// The record's offset.
        offset: u64,
        /// The incarnation that it names.
        incarnation: u64,
    },
    /// The record creates a collection whose name is taken.
    #[error("offset {offset}: a collection named `{name}` exists already")]
    NameTaken {
        /// The record's offset.
        offset: u64,
        /// The name.
        name: String,
    },
    /// The vector does not have the collection's dimension.
    #[error("offset {offset}: a vector of {found} numbers in a collection of dimension {expected}")]
    Dimension {
        /// The record's offset.
        offset: u64,
        /// The collection's.
        expected: usize,
        /// The vector's.
        found: usize,
    },
}

#[derive(Default)]
struct Catalog {
    by_name: BTreeMap<String, Arc<Collection>>,
    by_incarnation: HashMap<u64, Arc<Collection>>,
}

/// What is published together, so that it is always of one moment.
#[derive(Default)]
struct Published {
    end: LogEnd,
    history: History,
    digest: u128,
    recent: Recent,
}

/// All collections of a node.
pub struct Store {
    catalog: RwLock<Catalog>,
    /// The digest of everything; its lock is held while a batch is applied.
    applier: Mutex<u128>,
    published: RwLock<Published>,
    applied: watch::Sender<Position>,
    /// Changes when another store takes this one's place.
    era: AtomicU64,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store at position zero.
    pub fn new() -> Self {
        Store {
            catalog: RwLock::default(),
            applier: Mutex::new(0),
            published: RwLock::default(),
            applied: watch::Sender::new(Position::ZERO),
            era: AtomicU64::new(0),
        }
    }

    /// Decodes and applies a batch, then moves the applied end behind it and notifies.
    ///
    /// A batch that does not follow what was applied, or does not decode, changes nothing. After any other error the
    /// store holds a part of the batch and must not be used any more.
    pub fn apply_batch(&self, batch: &Batch) -> Result<(), ApplyError> {
        let payload = batch.payload();
        let ops = Op::decode_batch(batch, &payload).map_err(|source| ApplyError::Record {
            offset: batch.first_offset(),
            source,
        })?;
        self.apply_ops(batch, &ops)
    }

    /// The same for who has the batch's records already.
    pub fn apply_ops(&self, batch: &Batch, ops: &[Op<'_>]) -> Result<(), ApplyError> {
        let mut digest = self.applier.lock();
        let before = self.applied_end();
        check::follows(before, batch)?;
        let expected = before.position.offset + 1;
        let mut numbers = Vec::new();
        for (mut offset, op) in (expected..).zip(ops) {
            if breakage::on(Breakage::StampCurrentOffset) {
                offset = batch.last_offset();
            }
            let change = self.apply_one(offset, batch.time_ms(), op, &mut numbers)?;
            *digest = digest.wrapping_add(change);
        }
        let mut published = self.published.write();
        if batch.epoch() > before.position.epoch {
            published.history.open(EpochStart {
                epoch: batch.epoch(),
                first_offset: expected,
                chain: before.chain,
            });
        }
        published.end = LogEnd {
            position: batch.end(),
            chain: batch.chain_after(),
        };
        published.digest = *digest;
        published.recent.passes(batch.end(), *digest);
        drop(published);
        self.applied.send_replace(batch.end());
        Ok(())
    }

    /// Applies one operation where it is newer than what is there. Returns by how much that changes the digest.
    /// `numbers` is room for the vector's.
    fn apply_one(
        &self,
        offset: u64,
        time_ms: u64,
        op: &Op<'_>,
        numbers: &mut Vec<f32>,
    ) -> Result<u128, ApplyError> {
        let (incarnation, id, vector, payload) = match op {
            Op::Put {
                incarnation,
                id,
                vector,
                payload,
            } => (*incarnation, *id, *vector, *payload),
            Op::Other(record) => return self.apply_other(offset, time_ms, record, numbers),
        };
        let Some(collection) = self.by_incarnation(incarnation) else {
            return Err(absent(offset, incarnation));
        };
        let expected = collection.config().dimension;
        let found = vector.count();
        if found != expected {
            return Err(ApplyError::Dimension {
                offset,
                expected,
                found,
            });
        }
        let payload = match payload {
            // Of many records, and then of all of them.
            b"{}" => Bytes::from_static(b"{}"),
            other => own(other),
        };
        Ok(match vector {
            Numbers::Floats(vector) => collection.put(offset, time_ms, id, vector, &payload),
            Numbers::Bytes(bytes) => {
                numbers.clear();
                floats(bytes, numbers);
                collection.put(offset, time_ms, id, numbers, &payload)
            }
        })
    }

    fn apply_other(
        &self,
        offset: u64,
        time_ms: u64,
        record: &Record,
        numbers: &mut Vec<f32>,
    ) -> Result<u128, ApplyError> {
        match record {
            Record::Epoch { .. } => Ok(0),
            Record::CreateCollection {
                name,
                config,
                created_ms,
            } => self.create(offset, name, config, *created_ms),
            Record::DropCollection { incarnation } => {
                let dropped = {
                    let mut catalog = self.catalog.write();
                    let Some(dropped) = catalog.by_incarnation.remove(incarnation) else {
                        return Err(absent(offset, *incarnation));
                    };
                    catalog.by_name.remove(dropped.name());
                    dropped
                };
                Ok(0u128.wrapping_sub(dropped.digest_share()))
            }
            Record::Put { .. } => self.apply_one(offset, time_ms, &Op::from(record), numbers),
            Record::Delete { incarnation, id } => {
                let Some(collection) = self.by_incarnation(*incarnation) else {
                    return Err(absent(offset, *incarnation));
                };
                Ok(collection.delete(offset, time_ms, id))
            }
        }
    }

    fn create(
        &self,
        offset: u64,
        name: &str,
        config: &CollectionConfig,
        created_ms: u64,
    ) -> Result<u128, ApplyError> {
        let mut catalog = self.catalog.write();
        if catalog.by_name.contains_key(name) {
            return Err(ApplyError::NameTaken {
                offset,
                name: name.to_owned(),
            });
        }
        let collection = Collection::new(name, offset, config.clone(), created_ms, created_ms);
        let collection = Arc::new(collection);
        let change = collection.digest_share();
        catalog.insert(collection);
        Ok(change)
    }

    /// Position of the last operation applied.
    pub fn applied(&self) -> Position {
        self.applied_end().position
    }

    /// The last operation applied and the chain after it.
    pub fn applied_end(&self) -> LogEnd {
        self.published.read().end
    }

    /// The epochs of what has been applied.
    pub fn history(&self) -> History {
        self.published.read().history.clone()
    }

    /// Notifies of every change of [`Self::applied`].
    pub fn subscribe_applied(&self) -> watch::Receiver<Position> {
        self.applied.subscribe()
    }

    /// All collections, ordered by name.
    pub fn collections(&self) -> Vec<CollectionInfo> {
        self.list().iter().map(|c| c.info()).collect()
    }

    /// The collection of that name.
    pub fn collection(&self, name: &str) -> Option<Arc<Collection>> {
        self.catalog.read().by_name.get(name).cloned()
    }

    /// Approximate size in bytes of all vectors, payloads and ids.
    pub fn bytes(&self) -> u64 {
        self.list().iter().map(|c| c.info().bytes).sum()
    }

    /// Position and digest of everything there; always of one and the same moment.
    pub fn digest(&self) -> (Position, Digest) {
        let published = self.published.read();
        (published.end.position, Digest(published.digest))
    }

    /// The same once the batch that is being applied, if one is, has been.
    fn between_batches(&self) -> (Position, Digest) {
        let _still = self.applier.lock();
        self.digest()
    }

    /// The digest at another node's position, now or once this store gets there: see the module `recent`.
    pub fn digest_at(&self, at: Position) -> DigestAt {
        let mut published = self.published.write();
        let here = (published.end.position, published.digest);
        published.recent.ask(at, here)
    }

    /// The digest of each collection beside that of all. Nothing is applied meanwhile.
    pub fn digests(&self) -> StoreDigest {
        let _still = self.applier.lock();
        let (end, history, digest) = {
            let published = self.published.read();
            (published.end, published.history.clone(), published.digest)
        };
        let collections = self.collections();
        StoreDigest {
            position: end.position,
            chain: end.chain,
            history,
            total: Digest(digest),
            collections: collections
                .into_iter()
                .map(|c| (c.name, c.count, c.digest))
                .collect(),
        }
    }

    /// The digest computed anew from what is there, to compare with the one that is kept. Nothing is applied meanwhile,
    /// which takes about a second per 10 GB.
    pub fn recompute_digest(&self) -> Digest {
        let _still = self.applier.lock();
        let shares = self.list();
        let shares = shares.iter().map(|c| c.recompute_digest_share());
        Digest(shares.fold(0, u128::wrapping_add))
    }

    /// Begins a snapshot of the store as it is while writes go on; see the module `snapshot`.
    ///
    /// It starts at the applied end. Its trailer names the offset from which on it is exact. A store that loaded a snapshot
    /// has to be exact itself before.
    pub fn scan(self: &Arc<Self>) -> SnapshotScan {
        // Between two batches, so that the catalog is exactly the start's.
        let _still = self.applier.lock();
        let (end, history) = {
            let published = self.published.read();
            (published.end, published.history.clone())
        };
        SnapshotScan::new(self.clone(), self.era(), end, history, self.list())
    }

    /// Takes over everything from `other`. Readers see all of the old or all of the new; scans of the old one fail.
    pub fn replace_with(&self, other: Store) {
        let mut digest = self.applier.lock();
        let mut catalog = self.catalog.write();
        self.era.fetch_add(1, Ordering::SeqCst);
        let replaced = std::mem::replace(&mut *catalog, other.catalog.into_inner());
        if breakage::on(Breakage::KeepDroppedCollections) {
            for kept in replaced.by_name.values() {
                if !catalog.by_name.contains_key(kept.name()) {
                    catalog.insert(kept.clone());
                }
            }
        }
        *digest = other.applier.into_inner();
        let published = other.published.into_inner();
        let position = published.end.position;
        *self.published.write() = published;
        drop(catalog);
        self.applied.send_replace(position);
    }

    fn list(&self) -> Vec<Arc<Collection>> {
        self.catalog.read().by_name.values().cloned().collect()
    }

    fn by_incarnation(&self, incarnation: u64) -> Option<Arc<Collection>> {
        self.catalog
            .read()
            .by_incarnation
            .get(&incarnation)
            .cloned()
    }

    fn era(&self) -> u64 {
        self.era.load(Ordering::SeqCst)
    }

    /// Adds a collection from a snapshot; false when its name or incarnation is there already.
    fn insert_loaded(&self, collection: Arc<Collection>) -> bool {
        let mut catalog = self.catalog.write();
        if catalog.by_name.contains_key(collection.name())
            || catalog
                .by_incarnation
                .contains_key(&collection.incarnation())
        {
            return false;
        }
        self.add_to_digest(collection.digest_share());
        catalog.insert(collection);
        true
    }

    fn add_to_digest(&self, change: u128) {
        let mut digest = self.applier.lock();
        *digest = digest.wrapping_add(change);
    }

    /// Stands at a snapshot's start from now on.
    fn set_loaded(&self, end: LogEnd, history: History) {
        let digest = *self.applier.lock();
        *self.published.write() = Published {
            end,
            history,
            digest,
            recent: Recent::default(),
        };
        self.applied.send_replace(end.position);
    }
}

fn absent(offset: u64, incarnation: u64) -> ApplyError {
    ApplyError::NoCollection {
        offset,
        incarnation,
    }
}

impl Catalog {
    fn insert(&mut self, collection: Arc<Collection>) {
        self.by_incarnation
            .insert(collection.incarnation(), collection.clone());
        self.by_name
            .insert(collection.name().to_owned(), collection);
    }
}

/// Unix time in ms.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

#[cfg(test)]
pub(crate) mod test_log;
#[cfg(test)]
mod tests;
