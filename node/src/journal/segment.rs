//! One file of the log: its header, its sync marks, and reading it frame by frame.
//!
//! A segment is named after the offset of its first operation, `<20 digits>.wal`. Header:
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..8 | magic | `VECWAL` and two zero bytes |
//! | 8..12 | version u32 | 1 |
//! | 12..16 | flags u32 | bit 0: the file was used before, see below |
//! | 16..24 | epoch u64 | epoch of the last operation before the segment |
//! | 24..32 | offset u64 | offset of the last operation before the segment |
//! | 32..48 | chain u128 | the chain there |
//! | 48..56 | salt u64 | random; keys the sync marks |
//! | 56..60 | reserved u32 | 0 |
//! | 60..64 | crc u32 | CRC32 of bytes 0..60 |
//!
//! Then frames without gaps: batches exactly as `vectorizer_replication::batch` defines them, and sync marks:
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..4 | magic | `SYNC`, which no batch can begin with: its length would be too large |
//! | 4..8 | reserved u32 | 0 |
//! | 8..16 | offset u64 | everything up to this offset was fsynced before the mark was written |
//! | 16..24 | check u64 | XXH3-64 of bytes 0..16, seeded with the salt |
//!
//! A mark is written together with the first batch after an fsync. It tells damage from a torn write: damage to an
//! operation that some later mark calls durable is no crash's work. The salt keeps payloads from forging one.
//!
//! The file in use may be longer than what was written to it: zeros up to its end are room made ahead, so that an fsync
//! does not have to change the file's length, which takes several times as long. They go when the next segment begins.
//!
//! A file of which nothing is needed any more is written over as a new segment (bit 0 of the flags): a system is quicker
//! with pages and blocks that a file has. At least four zero bytes then stand behind the last frame; what follows is of
//! no meaning until it is cut off, before the next segment begins. A mark that was written before has another salt; a
//! batch, an offset that the log had passed already.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use vectorizer_replication::batch::{Batch, BatchError};
use vectorizer_replication::position::{Chain, LogEnd, Position};

/// Length of a segment's header in bytes.
pub(super) const HEADER_LEN: u64 = 64;
/// Length of a sync mark in bytes.
pub(super) const MARK_LEN: usize = 24;
/// What stands behind the last frame where bytes of an earlier use follow. No frame begins so: its length would be too
/// small.
pub(super) const END: [u8; 4] = [0; 4];

const MAGIC: &[u8; 8] = b"VECWAL\0\0";
const VERSION: u32 = 1;
const REUSED: u32 = 1;
const MARK_MAGIC: &[u8; 4] = b"SYNC";

/// What a segment's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) base: LogEnd,
    pub(super) salt: u64,
    /// Bytes of an earlier use may follow the last frame.
    pub(super) reused: bool,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_LEN as usize] {
        let mut out = [0; HEADER_LEN as usize];
        out[0..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let flags = if self.reused { REUSED } else { 0 };
        out[12..16].copy_from_slice(&flags.to_le_bytes());
        out[16..24].copy_from_slice(&self.base.position.epoch.to_le_bytes());
        out[24..32].copy_from_slice(&self.base.position.offset.to_le_bytes());
        out[32..48].copy_from_slice(&self.base.chain.0.to_le_bytes());
        out[48..56].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32fast::hash(&out[..60]);
        out[60..64].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; HEADER_LEN as usize]) -> Result<Self, String> {
        if &bytes[0..8] != MAGIC {
            return Err("the header does not begin with the magic bytes".to_owned());
        }
        if u32_at(bytes, 60) != crc32fast::hash(&bytes[..60]) {
            return Err("the header's CRC32 does not match".to_owned());
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(format!(
                "the header's version is {version}, this program reads {VERSION}"
            ));
        }
        let flags = u32_at(bytes, 12);
        if flags & !REUSED != 0 {
            return Err(format!(
                "the header's flags are {flags:#x}, this program knows {REUSED:#x}"
            ));
        }
        let mut chain = [0; 16];
        chain.copy_from_slice(&bytes[32..48]);
        Ok(Header {
            base: LogEnd {
                position: Position::new(u64_at(bytes, 16), u64_at(bytes, 24)),
                chain: Chain(u128::from_le_bytes(chain)),
            },
            salt: u64_at(bytes, 48),
            reused: flags & REUSED != 0,
        })
    }
}

/// A mark that everything up to `offset` is durable.
pub(super) fn encode_mark(offset: u64, salt: u64) -> [u8; MARK_LEN] {
    let mut out = [0; MARK_LEN];
    out[0..4].copy_from_slice(MARK_MAGIC);
    out[8..16].copy_from_slice(&offset.to_le_bytes());
    let check = xxhash_rust::xxh3::xxh3_64_with_seed(&out[..16], salt);
    out[16..24].copy_from_slice(&check.to_le_bytes());
    out
}

/// The offset that a mark calls durable; `None` when the bytes are no mark of this segment.
fn decode_mark(bytes: &[u8], salt: u64) -> Option<u64> {
    let bytes = bytes.first_chunk::<MARK_LEN>()?;
    let offset = u64_at(bytes, 8);
    (*bytes == encode_mark(offset, salt)).then_some(offset)
}

/// The highest offset that any mark from byte `at` of a file on, wherever it stands, calls durable; 0 when there is none.
pub(super) fn highest_mark(file: &File, mut at: u64, salt: u64) -> std::io::Result<u64> {
    /// Small in tests, whose files are.
    const PIECE: usize = if cfg!(test) { 32 } else { 1 << 20 };
    let mut highest = 0;
    let mut piece = vec![0; PIECE];
    loop {
        let len = read_at(file, &mut piece, at)?;
        let marks = piece[..len]
            .windows(MARK_LEN)
            .filter(|w| w.starts_with(MARK_MAGIC));
        let offsets = marks.filter_map(|w| decode_mark(w, salt));
        highest = highest.max(offsets.max().unwrap_or(0));
        if len < piece.len() {
            return Ok(highest);
        }
        // One may begin in this piece and end in the next.
        at += (len - (MARK_LEN - 1)) as u64;
    }
}

/// Reads until `into` is full or the file ends; how many bytes.
fn read_at(file: &File, into: &mut [u8], at: u64) -> std::io::Result<usize> {
    let mut have = 0;
    while have < into.len() {
        match file.read_at(&mut into[have..], at + have as u64) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

/// The file name of the segment that begins after `base`.
pub(super) fn file_name(base: LogEnd) -> String {
    format!("{:020}.wal", base.position.offset.saturating_add(1))
}

/// The offset of the first operation of the segment of that name.
pub(super) fn parse_name(path: &Path) -> Option<u64> {
    parse(path, "wal")
}

/// What the names of segments end with that left the log.
pub(super) const SPARE: &str = "old";

/// The same of a segment that left the log.
pub(super) fn parse_spare_name(path: &Path) -> Option<u64> {
    parse(path, SPARE)
}

fn parse(path: &Path, extension: &str) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(extension)?;
    let name = name.strip_suffix('.')?;
    let digits = name.len() == 20 && name.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| name.parse().ok())?
}

/// Where batches of one segment stand: one entry for about every 64 KiB.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) base: LogEnd,
    /// Length of the file in bytes; of the last one, as the writer last made it.
    pub(super) len: Arc<AtomicU64>,
    /// First offset of a batch, and the byte that it begins at; ascending.
    index: Vec<(u64, u64)>,
    /// Held by everybody who reads the file: it is not written over meanwhile.
    in_use: Arc<()>,
}

/// Where to read in a segment.
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// A byte at which a frame begins.
    pub(super) start: u64,
    _in_use: Arc<()>,
}

impl Segment {
    /// Small in tests, whose segments are.
    const INDEX_EVERY: u64 = if cfg!(test) { 150 } else { 64 << 10 };

    pub(super) fn new(path: PathBuf, base: LogEnd) -> Self {
        Segment {
            path,
            base,
            len: Arc::default(),
            index: Vec::new(),
            in_use: Arc::default(),
        }
    }

    /// Length of the file in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether somebody reads it. Nobody begins to once it is no part of the log.
    pub(super) fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.in_use) > 1
    }

    /// Notes a batch behind the ones noted before it.
    pub(super) fn note(&mut self, first_offset: u64, at: u64) {
        let due = self
            .index
            .last()
            .is_none_or(|(_, last)| at >= last + Self::INDEX_EVERY);
        if due {
            self.index.push((first_offset, at));
        }
    }

    /// Where to read from, at or before the batch that holds `offset`.
    pub(super) fn place_of(&self, offset: u64) -> Place {
        let after = self.index.partition_point(|(first, _)| *first <= offset);
        let start = after
            .checked_sub(1)
            .map_or(HEADER_LEN, |at| self.index[at].1);
        Place {
            path: self.path.clone(),
            start,
            _in_use: self.in_use.clone(),
        }
    }

    /// Forgets batches from byte `at` on.
    pub(super) fn forget_from(&mut self, at: u64) {
        self.index.retain(|(_, start)| *start < at);
    }
}

/// One frame of a segment.
pub(super) enum Frame {
    Batch(Batch),
    /// Everything up to this offset is durable.
    Mark(u64),
}

/// Why there is no next frame.
#[derive(Debug)]
pub(super) enum FrameError {
    Io(std::io::Error),
    /// The bytes at the cursor are no whole frame.
    Damaged(FrameDamage),
}

/// What is wrong with a frame by itself.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum FrameDamage {
    #[error(transparent)]
    Batch(BatchError),
    #[error("a sync mark does not match its check sum")]
    Mark,
}

/// Reads frames one after the other, some at a time.
pub(super) struct Cursor {
    file: File,
    /// Byte in the file of the next frame.
    at: u64,
    /// Read already, beginning at `at`.
    buffer: Bytes,
    chunk: usize,
    header: Option<Header>,
}

impl Cursor {
    /// Begins at byte `at`, the start of a frame. Without the segment's header, marks are passed over unchecked and the
    /// end is not known: not beyond what the log is known to have.
    pub(super) fn new(file: File, at: u64, chunk: usize, header: Option<Header>) -> Self {
        Cursor {
            file,
            at,
            buffer: Bytes::new(),
            chunk: chunk.clamp(4 << 10, 4 << 20),
            header,
        }
    }

    /// Byte in the file of the next frame.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next frame; `None` at the end of the file, where nothing but preallocated zeros follow, or where bytes of an
    /// earlier use do.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let reused = self.header.is_some_and(|header| header.reused);
        self.fill(END.len())?;
        if self.buffer.is_empty() || (reused && self.buffer.starts_with(&END)) {
            return Ok(None);
        }
        if self.only_zeros_follow()? {
            return Ok(None);
        }
        if self.buffer.starts_with(MARK_MAGIC) {
            self.fill(MARK_LEN)?;
            let offset = match (self.header, self.buffer.get(..MARK_LEN)) {
                (Some(header), Some(mark)) => decode_mark(mark, header.salt),
                (None, Some(mark)) => Some(u64_at(mark, 8)),
                (_, None) => None,
            };
            let offset = offset.ok_or(FrameError::Damaged(FrameDamage::Mark))?;
            let _ = self.buffer.split_to(MARK_LEN);
            self.at += MARK_LEN as u64;
            return Ok(Some(Frame::Mark(offset)));
        }
        let damaged = |error| FrameError::Damaged(FrameDamage::Batch(error));
        let len = Batch::peek_len(&self.buffer).map_err(damaged)?;
        self.fill(len)?;
        let batch = Batch::decode(&mut self.buffer).map_err(damaged)?;
        self.at += len as u64;
        Ok(Some(Frame::Batch(batch)))
    }

    fn only_zeros_follow(&mut self) -> Result<bool, FrameError> {
        if !self.buffer.starts_with(&END) {
            return Ok(false);
        }
        let mut some = vec![0; 64 << 10];
        let mut at = self.at;
        loop {
            match self.file.read_at(&mut some, at) {
                Ok(0) => return Ok(true),
                Ok(n) if some[..n].iter().all(|byte| *byte == 0) => at += n as u64,
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FrameError::Io(error)),
            }
        }
    }

    /// Has at least `need` bytes in the buffer, or all that the file has.
    fn fill(&mut self, need: usize) -> Result<(), FrameError> {
        if self.buffer.len() >= need {
            return Ok(());
        }
        // The rest of the old buffer is read again: batches that were taken from it keep it, so it cannot grow.
        let mut fresh = vec![0; need.max(self.chunk)];
        let have = read_at(&self.file, &mut fresh, self.at).map_err(FrameError::Io)?;
        fresh.truncate(have);
        self.buffer = Bytes::from(fresh);
        Ok(())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}
