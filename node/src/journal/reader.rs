//! Reading the log beside its writer: from memory where possible, else from the files.
//!
//! The writer publishes what it appended; readers never look beyond that. The newest batches are kept in memory up to
//! a number of bytes; what is older is read from the segments, from the nearest indexed byte on.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::watch;
use vectorizer_replication::batch::{Batch, BatchError};
use vectorizer_replication::position::{Chain, LogEnd};

use super::error::{JournalError, io_error};
use super::segment::{Cursor, Frame, FrameDamage, FrameError, HEADER_LEN, Place, Segment};

/// Why batches cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log no longer reaches back so far.
    #[error("the log begins at offset {first}")]
    Gone {
        /// The first offset there is.
        first: u64,
    },
    /// No batch begins there.
    #[error("no batch begins at offset {0}")]
    NotABoundary(u64),
    /// The system refused.
    #[error("reading {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is damaged.
    #[error("{} is damaged at byte {byte}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        byte: u64,
        /// What is wrong there.
        what: String,
    },
}

/// What the writer shows to readers.
pub(super) struct Published {
    /// Changes when another log takes this one's place; pins of an earlier era hold nothing.
    pub(super) era: u64,
    /// Never empty, oldest first.
    pub(super) segments: VecDeque<Segment>,
    /// The newest batches, oldest first, up to `end`.
    pub(super) tail: VecDeque<Batch>,
    pub(super) tail_bytes: usize,
    pub(super) end: LogEnd,
    pins: BTreeMap<u64, u64>,
    next_pin: u64,
}

impl Published {
    pub(super) fn new(segments: VecDeque<Segment>, end: LogEnd) -> Self {
        Published {
            era: 0,
            segments,
            tail: VecDeque::new(),
            tail_bytes: 0,
            end,
            pins: BTreeMap::new(),
            next_pin: 0,
        }
    }

    /// Offset of the first operation there is; one after the end when there is none.
    pub(super) fn first_offset(&self) -> u64 {
        self.segments
            .front()
            .map_or(self.end.position.offset, |s| s.base.position.offset)
            .saturating_add(1)
    }

    /// Bytes of all its files.
    pub(super) fn bytes(&self) -> u64 {
        let lengths = self.segments.iter().map(Segment::len);
        lengths.sum()
    }

    /// The length of the last file, as it changes.
    pub(super) fn last_len(&self) -> Arc<AtomicU64> {
        self.segments
            .back()
            .map_or_else(Arc::default, |segment| segment.len.clone())
    }

    /// The lowest offset that a pin holds.
    pub(super) fn lowest_pin(&self) -> Option<u64> {
        self.pins.values().min().copied()
    }

    /// Lets go of all pins; whether there were any.
    pub(super) fn void_pins(&mut self) -> bool {
        let any = !self.pins.is_empty();
        self.pins.clear();
        any
    }

    /// Keeps a batch in memory and lets go of the oldest beyond `limit` bytes.
    pub(super) fn push_tail(&mut self, batch: Batch, limit: usize) {
        self.tail_bytes += batch.bytes().len();
        self.tail.push_back(batch);
        while self.tail_bytes > limit {
            let Some(oldest) = self.tail.pop_front() else {
                break;
            };
            self.tail_bytes -= oldest.bytes().len();
        }
    }

    /// Lets go of batches in memory below `first`.
    pub(super) fn forget_tail_below(&mut self, first: u64) {
        while self.tail.front().is_some_and(|b| b.first_offset() < first) {
            if let Some(batch) = self.tail.pop_front() {
                self.tail_bytes -= batch.bytes().len();
            }
        }
    }

    /// Lets go of batches in memory after `end`.
    pub(super) fn forget_tail_above(&mut self, end: u64) {
        while self.tail.back().is_some_and(|b| b.last_offset() > end) {
            if let Some(batch) = self.tail.pop_back() {
                self.tail_bytes -= batch.bytes().len();
            }
        }
    }

    fn in_tail(&self, from: u64) -> bool {
        self.tail.front().is_some_and(|b| b.first_offset() <= from)
    }

    /// Index of the segment that holds `offset`.
    pub(super) fn segment_of(&self, offset: u64) -> Option<usize> {
        self.segments
            .partition_point(|s| s.base.position.offset < offset)
            .checked_sub(1)
    }
}

pub(super) struct Shared {
    pub(super) state: RwLock<Published>,
    pub(super) end: watch::Sender<LogEnd>,
    pub(super) durable: AtomicU64,
    pub(super) appended_bytes: AtomicU64,
    pub(super) spare_bytes: AtomicU64,
    pub(super) sync_seconds: Histogram,
}

/// Times of fsyncs in seconds, by upper bounds from 0.1 ms on.
pub(super) fn sync_seconds() -> Histogram {
    const BOUNDS: [f64; 11] = [
        0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 5.0,
    ];
    Histogram::new(BOUNDS)
}

/// Reads the log beside its writer, up to what was published.
#[derive(Clone)]
pub struct LogReader {
    pub(super) shared: Arc<Shared>,
}

impl LogReader {
    /// First offset there is; one after the end when the log is empty.
    pub fn first_offset(&self) -> u64 {
        self.shared.state.read().first_offset()
    }

    /// How long fsyncs took; clones count together.
    pub fn sync_seconds(&self) -> Histogram {
        self.shared.sync_seconds.clone()
    }

    /// Bytes of its files on disk, room ahead and files that wait to be written over included.
    pub fn disk_bytes(&self) -> u64 {
        let own = self.shared.state.read().bytes();
        own + self.shared.spare_bytes.load(Ordering::Relaxed)
    }

    /// The last operation published, and the chain after it.
    pub fn end(&self) -> LogEnd {
        self.shared.state.read().end
    }

    /// Offset of the last operation known to be durable.
    pub fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// Notifies of every change of [`Self::end`].
    pub fn subscribe(&self) -> watch::Receiver<LogEnd> {
        self.shared.end.subscribe()
    }

    /// Bytes appended since the log was opened.
    pub fn appended_bytes(&self) -> u64 {
        self.shared.appended_bytes.load(Ordering::Relaxed)
    }

    /// Batches from `from`, the first offset of one, up to about `max_bytes`, but at least one if there is any.
    /// Empty when `from` is one after the end. May block on the disk; see [`Self::is_cached`].
    pub fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<Batch>, ReadError> {
        let mut out = Vec::new();
        let mut next = from;
        let mut left = max_bytes;
        loop {
            let (place, end) = {
                let state = self.shared.state.read();
                let end = state.end.position.offset;
                if next == end.saturating_add(1) {
                    return Ok(out);
                }
                if next > end {
                    return Err(ReadError::NotABoundary(next));
                }
                let first = state.first_offset();
                if next < first {
                    return Err(ReadError::Gone { first });
                }
                if state.in_tail(next) {
                    take_tail(&state.tail, next, left, &mut out)?;
                    return Ok(out);
                }
                let segment = state
                    .segment_of(next)
                    .and_then(|at| state.segments.get(at))
                    .ok_or(ReadError::Gone { first })?;
                (segment.place_of(next), end)
            };
            self.read_segment(&place, &mut next, end, &mut left, &mut out)?;
            if left == 0 {
                return Ok(out);
            }
        }
    }

    /// Reads from one segment's file until its end, `end`, or `left` is used up.
    fn read_segment(
        &self,
        place: &Place,
        next: &mut u64,
        end: u64,
        left: &mut usize,
        out: &mut Vec<Batch>,
    ) -> Result<(), ReadError> {
        let path = &place.path;
        let mut cursor = self.open(place, (*left).max(64 << 10))?;
        let began = *next;
        while *next <= end && (*left > 0 || out.is_empty()) {
            let Some(batch) = next_batch(&mut cursor, path)? else {
                break; // the next segment goes on
            };
            if batch.last_offset() < *next {
                continue; // before the one asked for, from the index on
            }
            if batch.first_offset() != *next {
                return Err(ReadError::NotABoundary(*next));
            }
            *next = batch.last_offset() + 1;
            let len = batch.bytes().len();
            if !out.is_empty() && len > *left {
                *left = 0;
                *next = batch.first_offset();
                return Ok(());
            }
            *left = left.saturating_sub(len);
            out.push(batch);
        }
        if *next == began && *next <= end {
            // Published operations are missing from their file.
            return Err(ReadError::Corrupt {
                byte: cursor.at(),
                what: format!("the file ends before offset {next}"),
                path: path.clone(),
            });
        }
        Ok(())
    }

    /// The place is held while the cursor reads.
    fn open(&self, place: &Place, chunk: usize) -> Result<Cursor, ReadError> {
        match File::open(&place.path) {
            Ok(file) => Ok(Cursor::new(file, place.start, chunk, None)),
            // Retention took it since we looked.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(ReadError::Gone {
                first: self.first_offset(),
            }),
            Err(source) => Err(ReadError::Io {
                path: place.path.clone(),
                source,
            }),
        }
    }

    /// Whether [`Self::read`] from there needs no disk.
    pub fn is_cached(&self, from: u64) -> bool {
        let state = self.shared.state.read();
        from > state.end.position.offset || state.in_tail(from)
    }

    /// When the batch that holds the operation at `offset` was written, Unix time in ms; `None` when it is not there or
    /// cannot be read.
    pub fn time_ms_of(&self, offset: u64) -> Option<u64> {
        let place = {
            let state = self.shared.state.read();
            if offset < state.first_offset() || offset > state.end.position.offset {
                return None;
            }
            if state.in_tail(offset) {
                let at = state.tail.partition_point(|b| b.last_offset() < offset);
                return state.tail.get(at).map(Batch::time_ms);
            }
            let segment = state.segments.get(state.segment_of(offset)?)?;
            segment.place_of(offset)
        };
        let mut cursor = self.open(&place, 64 << 10).ok()?;
        while let Some(batch) = next_batch(&mut cursor, &place.path).ok()? {
            if batch.last_offset() >= offset {
                return Some(batch.time_ms());
            }
        }
        None
    }

    /// The chain after the batch that ends at `offset`; `None` when none does, or none that is still there.
    pub fn chain_at(&self, offset: u64) -> Result<Option<Chain>, ReadError> {
        Ok(self.locate(offset)?.map(|(end, _)| end.chain))
    }

    /// The log's end as it was at `offset`, and the byte after it in the segment that begins or continues there.
    pub(super) fn locate(&self, offset: u64) -> Result<Option<(LogEnd, u64)>, ReadError> {
        let place = {
            let state = self.shared.state.read();
            if offset > state.end.position.offset {
                return Ok(None);
            }
            if let Some(segment) = state
                .segments
                .iter()
                .find(|s| s.base.position.offset == offset)
            {
                return Ok(Some((segment.base, HEADER_LEN)));
            }
            match state
                .segment_of(offset)
                .and_then(|at| state.segments.get(at))
            {
                Some(segment) => segment.place_of(offset),
                None => return Ok(None),
            }
        };
        let mut cursor = match self.open(&place, 64 << 10) {
            Ok(cursor) => cursor,
            Err(ReadError::Gone { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        while let Some(batch) = next_batch(&mut cursor, &place.path)? {
            if batch.last_offset() == offset {
                let end = LogEnd {
                    position: batch.end(),
                    chain: batch.chain_after(),
                };
                return Ok(Some((end, cursor.at())));
            }
            if batch.last_offset() > offset {
                break;
            }
        }
        Ok(None)
    }

    /// Keeps everything from `from` on until the pin is dropped; `None` if some of it is gone already.
    pub fn pin(&self, from: u64) -> Option<Pin> {
        let mut state = self.shared.state.write();
        if from < state.first_offset() {
            return None;
        }
        let id = state.next_pin;
        state.next_pin += 1;
        state.pins.insert(id, from);
        Some(Pin {
            shared: self.shared.clone(),
            era: state.era,
            id,
        })
    }

    /// Fsyncs the newest segment's file; those before it are durable since it was begun.
    pub fn sync_files(&self) -> Result<(), JournalError> {
        let path = self
            .shared
            .state
            .read()
            .segments
            .back()
            .map(|s| s.path.clone());
        match path {
            Some(path) => File::open(&path)
                .and_then(|file| file.sync_data())
                .map_err(|source| io_error("syncing", &path, source)),
            None => Ok(()),
        }
    }
}

fn take_tail(
    tail: &VecDeque<Batch>,
    from: u64,
    mut left: usize,
    out: &mut Vec<Batch>,
) -> Result<(), ReadError> {
    let at = tail.partition_point(|b| b.first_offset() < from);
    if tail.get(at).is_none_or(|b| b.first_offset() != from) {
        return Err(ReadError::NotABoundary(from));
    }
    for batch in tail.range(at..) {
        let len = batch.bytes().len();
        if !out.is_empty() && len > left {
            break;
        }
        left = left.saturating_sub(len);
        out.push(batch.clone());
    }
    Ok(())
}

/// The next batch, marks passed over.
fn next_batch(cursor: &mut Cursor, path: &Path) -> Result<Option<Batch>, ReadError> {
    loop {
        match cursor.next() {
            Ok(None) => return Ok(None),
            Ok(Some(Frame::Mark(_))) => {}
            Ok(Some(Frame::Batch(batch))) => return Ok(Some(batch)),
            Err(FrameError::Io(source)) => {
                return Err(ReadError::Io {
                    path: path.to_owned(),
                    source,
                });
            }
            // The writer may be in the middle of a batch that is not published yet.
            Err(FrameError::Damaged(FrameDamage::Batch(BatchError::Incomplete { .. }))) => {
                return Ok(None);
            }
            Err(FrameError::Damaged(damage)) => {
                return Err(ReadError::Corrupt {
                    path: path.to_owned(),
                    byte: cursor.at(),
                    what: damage.to_string(),
                });
            }
        }
    }
}

/// Holds retention back while it lives.
pub struct Pin {
    shared: Arc<Shared>,
    era: u64,
    id: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.shared.state.write();
        if state.era == self.era {
            state.pins.remove(&self.id);
        }
    }
}
