//! Snapshots: one format for full sync, checkpoint and backup, taken while writes go on.
//!
//! A snapshot is a header, chunks and a trailer. A chunk:
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..4 | index u32 | from 0 |
//! | 4..8 | crc u32 | CRC32 of the index and of all that follows this field |
//! | 8.. | entries | each a u32 length (of what follows it), a u8 kind, fields |
//!
//! | kind | entry | fields |
//! |---|---|---|
//! | 1 | collection | incarnation u64, created u64, updated u64 (Unix ms), dimension u32, metric u8, name text, description text |
//! | 2 | vector | incarnation u64, version u64, id text, vector (u32 count, f32 each), payload (u32 length) |
//!
//! Fields are as in the log's records. All collections come before all vectors.
//!
//! **Why it is exact although nothing stands still.** Let A be the applied end when the scan begins, and B the applied end
//! between two batches after it ended ([`SnapshotTrailer::exact_from`]). Loading the chunks and replaying the log from
//! A + 1 gives, at B and after, what the log gives:
//!
//! - A vector that no operation in A+1..=B touches stays in its slot or moves to a lower one, and the scan goes from the
//!   highest slot to the lowest, so that it meets it; perhaps twice, as it is.
//! - For any other vector, consider the last operation on it up to B. Is it a put of version v, then what was loaded is
//!   at most v, and replay either writes v or finds it there. Is it a delete at d, then what was loaded is older than d
//!   and replay removes it. Operations before the last one cannot do harm in between: a put or delete that is not newer
//!   than what is there is passed over, and the last one decides.
//! - The catalog is taken as it is at A, and no entry changes after; a collection that is dropped while its vectors are
//!   read goes when its drop is replayed. Collections are told apart by incarnation, so that a vector of one that was
//!   dropped is never taken for one of its successor.
//! - Nothing newer than B was loaded: a batch that had begun to change anything when the scan ended is waited for.
//!
//! The trailer has the digest of the scanned store at B. A copy shows the same at B, or is not used.
//!
//! So a snapshot may be used by a log that reaches B, and a checkpoint counts only once the log is durable up to B.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use vectorizer_replication::position::{History, LogEnd, Position};

use super::codec::{CodecError, Fields, own, put_blob, put_text, put_vector};
use super::collection::Collection;
use super::record::{config_and_name, put_config};
use super::{Digest, Store, now_ms};

/// A chunk is closed when it has grown to this many bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// Slots that are read under one lock.
const STRETCH: usize = 64;
/// Index and CRC32.
const CHUNK_HEAD: usize = 8;

/// What stands before a snapshot's chunks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotHeader {
    /// Where to replay the log from: everything up to here is in the chunks.
    pub start: LogEnd,
    /// The epochs up to there.
    pub history: History,
    /// When it was begun, Unix time in ms.
    pub created_ms: u64,
}

/// What stands after a snapshot's chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotTrailer {
    /// Number of chunks.
    pub chunks: u32,
    /// Bytes of all chunks.
    pub bytes: u64,
    /// CRC32 over the chunks' own CRC32s, each as 4 little-endian bytes, in order.
    pub crc32: u32,
    /// With the log replayed up to this offset, the end of a batch, a store that loaded the chunks is exact.
    pub exact_from: u64,
    /// Digest of all data there. Absent in checkpoints from before it was written.
    #[serde(default)]
    pub digest: Option<Digest>,
}

/// A snapshot that cannot be made or loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The store was replaced while it was being scanned.
    #[error("the store was replaced while it was being scanned")]
    Superseded,
    /// The trailer was asked for before the last chunk was taken.
    #[error("the snapshot has not been read to its end")]
    Unfinished,
    /// A chunk is damaged or out of order.
    #[error("snapshot chunk {index}: {message}")]
    Chunk {
        /// Which one, from 0.
        index: u32,
        /// What is wrong with it.
        message: String,
    },
    /// The trailer does not fit the chunks.
    #[error("snapshot trailer: {field} is {found}, the chunks give {expected}")]
    Trailer {
        /// Which field.
        field: &'static str,
        /// From the chunks.
        expected: u64,
        /// From the trailer.
        found: u64,
    },
    /// The copy is not what was scanned.
    #[error(
        "the copy's digest at {at} is {found}, that of the data it was made from is {expected} at offset {exact_from}"
    )]
    Digest {
        /// Where it should be exact.
        exact_from: u64,
        /// The scanned store's digest there.
        expected: Digest,
        /// Where the copy is.
        at: Position,
        /// The copy's digest.
        found: Digest,
    },
}

/// What a series of chunks adds up to.
#[derive(Clone, Default)]
struct Sum {
    chunks: u32,
    bytes: u64,
    crc: crc32fast::Hasher,
}

impl Sum {
    fn add(&mut self, chunk: &[u8], crc: u32) {
        self.chunks += 1;
        self.bytes += chunk.len() as u64;
        self.crc.update(&crc.to_le_bytes());
    }

    fn trailer(&self, exact_from: u64, digest: Option<Digest>) -> SnapshotTrailer {
        SnapshotTrailer {
            chunks: self.chunks,
            bytes: self.bytes,
            crc32: self.crc.clone().finalize(),
            exact_from,
            digest,
        }
    }
}

impl SnapshotTrailer {
    /// Whether a store that loaded the chunks and replays the log has got to where it is exact; compares it there. To be
    /// asked after each batch until then.
    pub fn reached_by(&self, store: &Store) -> Result<bool, SnapshotError> {
        let (at, found) = store.digest();
        match self.digest {
            None => Ok(at.offset >= self.exact_from),
            Some(_) if at.offset < self.exact_from => Ok(false),
            Some(expected) if at.offset == self.exact_from && found == expected => Ok(true),
            Some(expected) => Err(SnapshotError::Digest {
                exact_from: self.exact_from,
                expected,
                at,
                found,
            }),
        }
    }
}

/// Reads a store chunk by chunk while writes go on. A chunk is about 1 MiB, or one record where that is more.
pub struct SnapshotScan {
    store: Arc<Store>,
    era: u64,
    header: SnapshotHeader,
    collections: Vec<Arc<Collection>>,
    /// Collections whose entries have been written.
    entered: usize,
    /// Collection of the next vector, and the slot above its own.
    next: (usize, usize),
    sum: Sum,
    chunk_bytes: usize,
    /// Where it is exact, and the digest there; once the last chunk was taken.
    end: Option<(u64, Digest)>,
}

impl SnapshotScan {
    pub(super) fn new(
        store: Arc<Store>,
        era: u64,
        start: LogEnd,
        history: History,
        collections: Vec<Arc<Collection>>,
    ) -> Self {
        SnapshotScan {
            store,
            era,
            header: SnapshotHeader {
                start,
                history,
                created_ms: now_ms(),
            },
            collections,
            entered: 0,
            next: (0, usize::MAX),
            sum: Sum::default(),
            chunk_bytes: CHUNK_BYTES,
            end: None,
        }
    }

    /// What stands before the chunks.
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// What stands after the chunks, once they are all taken.
    pub fn trailer(&self) -> Result<SnapshotTrailer, SnapshotError> {
        if self.store.era() != self.era {
            return Err(SnapshotError::Superseded);
        }
        let (exact_from, digest) = self.end.ok_or(SnapshotError::Unfinished)?;
        Ok(self.sum.trailer(exact_from, Some(digest)))
    }

    fn fill(&mut self, out: &mut BytesMut) {
        while let Some(collection) = self.collections.get(self.entered) {
            if out.len() >= self.chunk_bytes {
                return;
            }
            put_collection(out, collection);
            self.entered += 1;
        }
        while let Some(collection) = self.collections.get(self.next.0) {
            let content = collection.read();
            // A few under one lock, so that writes go on: whoever waits for it waits for a thread that has stepped back.
            self.next.1 = self.next.1.min(content.slots.len());
            let end = self.next.1.saturating_sub(STRETCH);
            while self.next.1 > end {
                let at = self.next.1 - 1;
                if let Some(slot) = content.slots.slot(at) {
                    let vector = content.slots.vector(at);
                    let need = vector.len() * 4 + slot.payload.len() + slot.id.len() + 64;
                    if out.len() > CHUNK_HEAD && out.len() + need > self.chunk_bytes {
                        return;
                    }
                    put_entry(out, 2, |out| {
                        out.put_u64_le(collection.incarnation());
                        out.put_u64_le(slot.version);
                        put_text(out, &slot.id);
                        put_vector(out, vector);
                        put_blob(out, &slot.payload);
                    });
                }
                self.next.1 = at;
            }
            if end == 0 {
                drop(content);
                self.next = (self.next.0 + 1, usize::MAX);
            }
        }
    }
}

impl Iterator for SnapshotScan {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.end.is_some() {
            return None;
        }
        let mut out = BytesMut::with_capacity(CHUNK_BYTES);
        out.put_u32_le(self.sum.chunks);
        out.put_u32_le(0); // the CRC, filled in below
        self.fill(&mut out);
        if out.len() == CHUNK_HEAD {
            // Of after the last vector was read: nothing newer can have been.
            let (at, digest) = self.store.between_batches();
            self.end = Some((at.offset, digest));
            return None;
        }
        let crc = chunk_crc(&out);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        self.sum.add(&out, crc);
        Some(out.freeze())
    }
}

fn put_entry(out: &mut BytesMut, kind: u8, fields: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32_le(0);
    out.put_u8(kind);
    fields(out);
    let len = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

fn put_collection(out: &mut BytesMut, collection: &Collection) {
    let config = collection.config();
    put_entry(out, 1, |out| {
        out.put_u64_le(collection.incarnation());
        out.put_u64_le(collection.created_ms());
        out.put_u64_le(collection.read().updated_ms());
        put_config(out, config);
        put_text(out, collection.name());
        put_text(out, config.description.as_deref().unwrap_or_default());
    });
}

/// CRC32 of a chunk without the field that holds it.
fn chunk_crc(chunk: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&chunk[..4]);
    crc.update(&chunk[CHUNK_HEAD..]);
    crc.finalize()
}

/// Fills an empty store from a snapshot's chunks.
pub struct SnapshotLoader {
    store: Store,
    header: SnapshotHeader,
    sum: Sum,
    last: Option<Arc<Collection>>,
    /// The highest version of any vector.
    newest: u64,
}

impl SnapshotLoader {
    /// Begins to load the snapshot with this header.
    pub fn new(header: SnapshotHeader) -> Self {
        SnapshotLoader {
            store: Store::new(),
            header,
            sum: Sum::default(),
            last: None,
            newest: 0,
        }
    }

    /// Bytes of chunks loaded.
    pub fn bytes(&self) -> u64 {
        self.sum.bytes
    }

    /// Checks and loads the next chunk. After an error the loader is of no more use.
    pub fn load(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        let index = self.sum.chunks;
        let failed = |message: String| SnapshotError::Chunk { index, message };
        let mut fields = Fields::new(chunk);
        let malformed = |error: CodecError| SnapshotError::Chunk {
            index,
            message: error.to_string(),
        };
        let found = fields.u32("index").map_err(malformed)?;
        if found != index {
            return Err(failed(format!("it says that it is chunk {found}")));
        }
        let crc = fields.u32("crc").map_err(malformed)?;
        if crc != chunk_crc(chunk) {
            return Err(failed("its CRC32 does not match".to_owned()));
        }
        while !fields.is_empty() {
            let entry = fields.blob("entry").map_err(malformed)?;
            self.load_entry(entry).map_err(failed)?;
        }
        self.sum.add(chunk, crc);
        Ok(())
    }

    fn load_entry(&mut self, entry: &[u8]) -> Result<(), String> {
        let mut f = Fields::new(entry);
        let text = |error: CodecError| error.to_string();
        match f.u8("kind").map_err(text)? {
            1 => self.load_collection(f),
            2 => self.load_vector(f),
            other => Err(format!("entries of kind {other} are not known")),
        }
    }

    fn load_collection(&mut self, mut f: Fields<'_>) -> Result<(), String> {
        let mut read = || -> Result<_, CodecError> {
            let (incarnation, created_ms, updated_ms) =
                (f.u64("incarnation")?, f.u64("created")?, f.u64("updated")?);
            let (config, name) = config_and_name(&mut f)?;
            Ok(Collection::new(
                name,
                incarnation,
                config,
                created_ms,
                updated_ms,
            ))
        };
        let collection = read().map_err(|error| error.to_string())?;
        f.end().map_err(|error| error.to_string())?;
        if !self.store.insert_loaded(Arc::new(collection)) {
            return Err("it names a collection twice".to_owned());
        }
        Ok(())
    }

    fn load_vector(&mut self, mut f: Fields<'_>) -> Result<(), String> {
        let mut read = || -> Result<_, CodecError> {
            Ok((
                f.u64("incarnation")?,
                f.u64("version")?,
                f.text("id")?,
                f.vector("vector")?,
                own(f.blob("payload")?),
            ))
        };
        let (incarnation, version, id, vector, payload) =
            read().map_err(|error| error.to_string())?;
        f.end().map_err(|error| error.to_string())?;
        if self
            .last
            .as_ref()
            .is_none_or(|c| c.incarnation() != incarnation)
        {
            self.last = self.store.by_incarnation(incarnation);
        }
        let Some(collection) = &self.last else {
            return Err(format!("no collection has incarnation {incarnation}"));
        };
        if vector.len() != collection.config().dimension {
            return Err(format!(
                "vector `{id}` has another dimension than its collection"
            ));
        }
        self.newest = self.newest.max(version);
        let change = collection.put(version, 0, id, &vector, &payload);
        self.store.add_to_digest(change);
        Ok(())
    }

    /// Ends loading. The store stands at the snapshot's start, and is exact once the log was applied to it up to
    /// `trailer.exact_from`.
    pub fn finish(self, trailer: &SnapshotTrailer) -> Result<Store, SnapshotError> {
        let sum = self.sum.trailer(trailer.exact_from, trailer.digest);
        let differing = |field, expected: u64, found: u64| SnapshotError::Trailer {
            field,
            expected,
            found,
        };
        if sum.chunks != trailer.chunks {
            let (expected, found) = (sum.chunks.into(), trailer.chunks.into());
            return Err(differing("chunks", expected, found));
        }
        if sum.bytes != trailer.bytes {
            return Err(differing("bytes", sum.bytes, trailer.bytes));
        }
        if sum.crc32 != trailer.crc32 {
            let (expected, found) = (sum.crc32.into(), trailer.crc32.into());
            return Err(differing("crc32", expected, found));
        }
        let start = self.header.start.position.offset;
        if trailer.exact_from < start {
            return Err(differing("exact_from", start, trailer.exact_from));
        }
        // The log that is replayed would never get past what is newer than it.
        if trailer.exact_from < self.newest {
            return Err(differing("exact_from", self.newest, trailer.exact_from));
        }
        self.store
            .set_loaded(self.header.start, self.header.history);
        Ok(self.store)
    }
}

#[cfg(test)]
mod tests;
