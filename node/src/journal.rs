//! The segmented write-ahead log that is the replication log.
//!
//! A batch is encoded once; the same bytes go to the disk, to the newest part in memory and to every replica. The
//! writer's thread owns the [`Journal`]; everybody else reads beside it through a [`LogReader`]. The format of the files
//! is in `journal/segment.rs`.
//!
//! A segment is made complete, its header durable, before it gets its name, and only after the one before it is
//! durable: of all segments, only the last can have been torn by a crash. Whole segments are dropped from the front, to
//! be written over as the next ones, once neither the last checkpoint nor a pin needs them, and `log_size` operations are
//! kept without them or the files hold more than `max_bytes`; segments hold at most an eighth of either, so that the log
//! stays close to it.

mod error;
mod examine;
mod file;
mod reader;
mod recover;
mod retention;
mod segment;
mod spares;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::RwLock;
use tokio::sync::watch;
use vectorizer_replication::batch::Batch;
use vectorizer_replication::position::LogEnd;

pub use error::JournalError;
pub use examine::{Examined, SegmentReport, TornTail, examine};
pub use reader::{LogReader, Pin, ReadError};

use crate::background::Flusher;
use error::{discontinuity, io_error};
use file::{Created, create_segment, end_at, sync_dir, write_all_at};
use reader::{Published, Shared};
use recover::{Recovered, end_of, recover};
use segment::{HEADER_LEN, Header, MARK_LEN, Segment, encode_mark, file_name};
use spares::{Spare, Spares};

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// A segment is closed before it grows beyond this many bytes.
    pub segment_bytes: u64,
    /// Operations that are kept for replicas to catch up from.
    pub log_size: u64,
    /// Bytes that the files may hold, even if those are fewer operations; `None` for as many as it takes. Can change
    /// while the log is open: [`Journal::set_max_bytes`].
    pub max_bytes: Option<u64>,
    /// Bytes of the newest batches that are kept in memory.
    pub cache_bytes: usize,
    /// Bytes by which the last file is made longer ahead of what is written; 0 for none.
    pub preallocate: u64,
}

impl Default for JournalOptions {
    fn default() -> Self {
        JournalOptions {
            segment_bytes: 64 << 20,
            log_size: 1_000_000,
            max_bytes: None,
            cache_bytes: 32 << 20,
            preallocate: 0,
        }
    }
}

impl JournalOptions {
    /// Operations after which a segment is closed.
    fn segment_operations(&self) -> u64 {
        (self.log_size / 8).max(1)
    }

    /// Bytes beyond which a segment does not grow.
    fn segment_limit(&self) -> u64 {
        self.segment_bytes
            .min(self.max_bytes.unwrap_or(u64::MAX) / 8)
    }
}

/// What was appended and is not published yet.
enum Pending {
    Segment(Segment),
    Batch { batch: Batch, at: u64 },
}

/// The log as its one writer sees it. Every call blocks.
pub struct Journal {
    dir: PathBuf,
    options: JournalOptions,
    shared: Arc<Shared>,
    /// The last segment, written at byte `size`.
    file: File,
    path: PathBuf,
    size: u64,
    /// Up to here the file needs no more room; everything, once the system has refused to make some.
    room: u64,
    /// Length of the last segment's file, as readers see it.
    len: Arc<AtomicU64>,
    /// Up to here the file has bytes of an earlier use.
    old: u64,
    /// What takes the place of the next files.
    spares: Spares,
    /// The last checkpoint that [`Self::enforce_retention`] was told of.
    checkpoint: u64,
    /// Where commits do not sync, a closed segment would be written as a whole, and everybody would wait for it.
    flusher: Flusher,
    header: Header,
    end: LogEnd,
    pending: Vec<Pending>,
    durable: u64,
    /// The highest offset that the last segment's header or marks call durable.
    marked: u64,
    poisoned: bool,
}

impl Journal {
    /// Opens the log in `dir`, which is created if need be; `base` is where an empty log begins.
    ///
    /// A torn tail of the last segment is cut and reported; other damage is refused as [`JournalError::Corrupt`].
    pub fn open(
        dir: &Path,
        options: JournalOptions,
        base: LogEnd,
    ) -> Result<Journal, JournalError> {
        Self::open_knowing(dir, options, base, 0)
    }

    /// The same, where everything up to offset `known` is known to have been durable: damage there is not torn.
    pub fn open_knowing(
        dir: &Path,
        options: JournalOptions,
        base: LogEnd,
        known: u64,
    ) -> Result<Journal, JournalError> {
        let Recovered {
            published,
            file,
            size,
            header,
            spares,
        } = recover(dir, base, known, options.cache_bytes)?;
        let end = published.end;
        let len = published.last_len();
        let spares = Spares::found(spares);
        Ok(Journal {
            path: dir.join(file_name(header.base)),
            dir: dir.to_owned(),
            options,
            shared: Arc::new(Shared {
                state: RwLock::new(published),
                end: watch::Sender::new(end),
                durable: AtomicU64::new(end.position.offset),
                appended_bytes: AtomicU64::new(0),
                spare_bytes: AtomicU64::new(spares.bytes()),
                sync_seconds: reader::sync_seconds(),
            }),
            file,
            size,
            room: size,
            len,
            old: 0,
            spares,
            checkpoint: 0,
            flusher: Flusher::default(),
            marked: header.base.position.offset,
            header,
            end,
            pending: Vec::new(),
            durable: end.position.offset,
            poisoned: false,
        })
    }

    /// Writes a batch, which must continue the log. Not yet durable, not yet seen by readers.
    pub fn append(&mut self, batch: &Batch) -> Result<(), JournalError> {
        self.check()?;
        if let Some(wrong) = discontinuity(self.end, batch) {
            return Err(wrong);
        }
        let len = batch.bytes().len() as u64;
        let full = self.size + MARK_LEN as u64 + len > self.options.segment_limit()
            || self.end.position.offset - self.header.base.position.offset
                >= self.options.segment_operations();
        if full && self.size > HEADER_LEN {
            self.poisoning(|journal| journal.roll())?;
        }
        self.make_room(MARK_LEN as u64 + len);
        self.poisoning(|journal| {
            let mark = encode_mark(journal.durable, journal.header.salt);
            let mark = if journal.durable > journal.marked {
                &mark[..]
            } else {
                &[]
            };
            journal.write(mark, batch.bytes())?;
            journal.marked = journal.marked.max(journal.durable);
            Ok(())
        })?;
        self.pending.push(Pending::Batch {
            batch: batch.clone(),
            at: self.size - len,
        });
        self.end = end_of(batch);
        self.flusher.written(&self.path, len);
        self.shared.appended_bytes.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    /// Shows what was appended to readers.
    pub fn publish(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let mut state = self.shared.state.write();
        for pending in self.pending.drain(..) {
            match pending {
                Pending::Segment(segment) => state.segments.push_back(segment),
                Pending::Batch { batch, at } => {
                    if let Some(segment) = state.segments.back_mut() {
                        segment.note(batch.first_offset(), at);
                    }
                    state.push_tail(batch, self.options.cache_bytes);
                }
            }
        }
        state.end = self.end;
        drop(state);
        self.shared.end.send_replace(self.end);
    }

    /// Makes what was appended durable.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.check()?;
        if self.durable == self.end.position.offset {
            return Ok(());
        }
        let begun = Instant::now();
        self.poisoning(|journal| {
            journal
                .file
                .sync_data()
                .map_err(|error| io_error("syncing", &journal.path, error))
        })?;
        self.flusher.synced();
        let took = begun.elapsed().as_secs_f64();
        self.shared.sync_seconds.observe(took);
        self.set_durable(self.end.position.offset);
        Ok(())
    }

    /// The last operation appended, and the chain after it.
    pub fn end(&self) -> LogEnd {
        self.end
    }

    /// Offset of the last operation known to be durable.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// A reader; cloning it is cheap.
    pub fn reader(&self) -> LogReader {
        LogReader {
            shared: self.shared.clone(),
        }
    }

    /// Removes what is after `to`, the end of a batch, unread: however long it is. Durable when it returns.
    pub fn truncate(&mut self, to: u64) -> Result<(), JournalError> {
        self.check()?;
        self.publish();
        let Some((end, at)) = self.reader().locate(to)? else {
            return Err(self.not_a_boundary(to));
        };
        if to == self.end.position.offset {
            return Ok(());
        }
        self.poisoning(|journal| journal.cut(end, at))
    }

    /// The batches after `to`, the end of one, oldest first.
    #[cfg(test)]
    pub(crate) fn batches_after(&mut self, to: u64) -> Result<Vec<Batch>, JournalError> {
        self.publish();
        let reader = self.reader();
        if reader.locate(to)?.is_none() {
            return Err(self.not_a_boundary(to));
        }
        let mut out = Vec::new();
        let mut next = to + 1;
        while next <= self.end.position.offset {
            let batches = reader.read(next, 16 << 20)?;
            next = batches.last().map_or(u64::MAX, |b| b.last_offset() + 1);
            out.extend(batches);
        }
        Ok(out)
    }

    /// Voids all pins: what they held may go at the next [`Self::enforce_retention`]. Whether there were any.
    pub fn void_pins(&mut self) -> bool {
        self.shared.state.write().void_pins()
    }

    /// Goes on with `other` in place of this log; the readers of this one then read that one, and its pins are void.
    pub fn replace_with(&mut self, mut other: Journal) {
        other.publish();
        let mut state = self.shared.state.write();
        let era = state.era + 1;
        let empty = Published::new(Default::default(), other.end);
        *state = std::mem::replace(&mut *other.shared.state.write(), empty);
        state.era = era;
        drop(state);
        other.shared = self.shared.clone();
        *self = other;
        self.note_spares();
        self.shared.durable.store(self.durable, Ordering::Release);
        self.shared.end.send_replace(self.end);
    }

    /// Makes everything durable and marks it so: damage found later is then never taken for a torn write.
    pub fn close(&mut self) -> Result<(), JournalError> {
        self.sync()?;
        if self.marked == self.durable {
            return self.drop_room();
        }
        self.poisoning(|journal| {
            let mark = encode_mark(journal.durable, journal.header.salt);
            journal.write(&mark, &[])?;
            journal
                .file
                .sync_data()
                .map_err(|error| io_error("syncing", &journal.path, error))?;
            journal.marked = journal.durable;
            Ok(())
        })?;
        self.drop_room()
    }

    /// Writes two pieces at the end of the file, in one call where the system allows it.
    fn write(&mut self, first: &[u8], second: &[u8]) -> Result<(), JournalError> {
        let to = self.size + (first.len() + second.len()) as u64;
        let end = end_at(to, self.old);
        write_all_at(&self.file, [first, second, end], self.size)
            .map_err(|error| io_error("writing", &self.path, error))?;
        self.size = to;
        self.note_len();
        Ok(())
    }

    fn note_len(&self) {
        let room = if self.room == u64::MAX { 0 } else { self.room };
        self.len.store(room.max(self.size), Ordering::Relaxed);
    }

    /// Makes the file longer, so that the fsyncs of the next batches need not.
    fn make_room(&mut self, bytes: u64) {
        let need = self.size + bytes;
        if self.options.preallocate == 0 || need <= self.room {
            return;
        }
        // A small part of what is free, well below what is kept free for other needs: no write is refused for want of
        // what is only kept ready.
        let free = rustix::fs::fstatvfs(&self.file).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
        let ahead = self.size + self.options.preallocate.min(free / 256);
        let to = ahead.min(self.options.segment_limit());
        if to < need {
            return;
        }
        let flags = rustix::fs::FallocateFlags::empty();
        let made = rustix::fs::fallocate(&self.file, flags, self.size, to - self.size);
        // Not every file system can. Nothing is lost but time.
        self.room = if made.is_ok() { to } else { u64::MAX };
        self.note_len();
    }

    /// Cuts the room that was made ahead, or is left of an earlier use. Durable when it returns.
    fn drop_room(&mut self) -> Result<(), JournalError> {
        if self.room <= self.size {
            return Ok(());
        }
        self.poisoning(|journal| {
            let cut = journal.file.set_len(journal.size);
            cut.and_then(|()| journal.file.sync_all())
                .map_err(|error| io_error("cutting", &journal.path, error))?;
            journal.room = journal.size;
            journal.old = 0;
            journal.note_len();
            Ok(())
        })
    }

    /// Closes the last segment and begins the next.
    fn roll(&mut self) -> Result<(), JournalError> {
        self.sync()?;
        self.drop_room()?;
        if let Err(error) = self.reclaim(1, 0) {
            // The log only grows; the next time may be better.
            tracing::error!(%error, "old log segments were not dropped");
        }
        let spare = self.spares.take();
        self.note_spares();
        self.begin_segment(spare)
    }

    /// The last segment is closed; begins the next, in place of `spare` if there is one.
    fn begin_segment(&mut self, spare: Option<Spare>) -> Result<(), JournalError> {
        let Created { file, header, len } = create_segment(&self.dir, self.end, spare)?;
        self.file = file;
        self.path = self.dir.join(file_name(self.end));
        self.size = HEADER_LEN;
        self.room = len;
        self.old = if header.reused { len } else { 0 };
        self.marked = self.end.position.offset;
        self.header = header;
        let segment = Segment::new(self.path.clone(), self.end);
        self.len = segment.len.clone();
        self.note_len();
        self.pending.push(Pending::Segment(segment));
        Ok(())
    }

    /// Ends the log at `end`, whose segment goes on at byte `at`. Newest first: whatever a crash leaves is a prefix.
    fn cut(&mut self, end: LogEnd, at: u64) -> Result<(), JournalError> {
        let shared = self.shared.clone();
        let mut state = shared.state.write();
        let above = |s: &Segment| s.base.position.offset > end.position.offset;
        while state.segments.back().is_some_and(above)
            && let Some(segment) = state.segments.pop_back()
        {
            fs::remove_file(&segment.path)
                .map_err(|error| io_error("removing", &segment.path, error))?;
            sync_dir(&self.dir)?;
        }
        let Some(segment) = state.segments.back_mut() else {
            return Err(JournalError::Poisoned); // `end` was found in a segment
        };
        segment.forget_from(at);
        let path = segment.path.clone();
        let len = segment.len.clone();
        let cut = || -> io::Result<File> {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            file.set_len(at)?;
            file.sync_all()?;
            Ok(file)
        };
        self.file = cut().map_err(|error| io_error("cutting", &path, error))?;
        self.header = recover::read_header(&self.file, &path)?;
        self.path = path;
        self.size = at;
        self.room = at;
        self.old = 0;
        self.len = len;
        self.note_len();
        // Checkpoints of what was cut go as well.
        self.checkpoint = 0;
        self.end = end;
        self.marked = self.header.base.position.offset;
        state.forget_tail_above(end.position.offset);
        state.end = end;
        drop(state);
        self.set_durable(end.position.offset);
        self.shared.end.send_replace(end);
        Ok(())
    }

    fn set_durable(&mut self, offset: u64) {
        self.durable = offset;
        self.shared.durable.store(offset, Ordering::Release);
    }

    fn not_a_boundary(&self, offset: u64) -> JournalError {
        JournalError::NotABoundary {
            offset,
            first: self.reader().first_offset(),
            end: self.end.position.offset,
        }
    }

    fn check(&self) -> Result<(), JournalError> {
        if self.poisoned {
            return Err(JournalError::Poisoned);
        }
        Ok(())
    }

    /// After a failure nobody knows what is on disk, and a second fsync may report success for what the first lost.
    fn poisoning<T>(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let result = step(self);
        self.poisoned |= result.is_err();
        result
    }
}

#[cfg(test)]
mod tests;
