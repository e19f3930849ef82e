//! The thread that writes checkpoints while writes go on.
//!
//! A checkpoint is due when the log behind the last one has grown to half of the store, and at least to 1 GiB or to the
//! sixteenth part of a smaller disk; or, so that a small `log_size` or `log_max_bytes` can be kept to, when it has half of
//! `log_size` operations or of `log_max_bytes`, and a quarter of the store's size. So a restart replays little, and what
//! checkpoints write stays within a small multiple of what the log does.
//!
//! On a short disk one is due as soon as it would free a quarter of what it takes, and the older one, which the log has
//! stopped reaching or is about to, goes first where both do not fit. One that would not fit is not begun.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::space::{FreeSpace, LEAST_FREE, checkpoint_estimate};
use super::{DataDir, DataDirError, checkpoint, io_error};
use crate::background;
use crate::journal::LogReader;
use crate::step::reached;
use crate::store::{SnapshotError, Store};

/// How often the thread looks whether a checkpoint is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long it waits after one failed.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Log behind a checkpoint, in bytes, below which a store needs no new one: replayed within a few seconds.
const MANY_BYTES: u64 = 1 << 30;
/// The same on a short disk, for a store of next to nothing.
const MANY_SMALL: u64 = 64 << 20;
/// Checkpoints that are kept: the second is for a newest one that turns out damaged, and for undoing.
const KEPT: usize = 2;

#[derive(Default)]
struct Control {
    state: Mutex<ControlState>,
    wake: Condvar,
}

#[derive(Default)]
struct ControlState {
    stop: bool,
    requested: bool,
}

/// The thread that writes checkpoints. Dropping it stops the thread.
pub struct Checkpointer {
    data: DataDir,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(data: DataDir, generation: u64, store: Arc<Store>, log: LogReader) -> Self {
        let work = Work::new(data.clone(), generation, store, log);
        work.note_bytes();
        let control = work.control.clone();
        let thread = std::thread::Builder::new().name("checkpoints".to_owned());
        let thread = thread.spawn(move || work.run());
        if let Err(error) = &thread {
            tracing::error!(%error, "no thread for checkpoints: the log will grow until a restart");
        }
        Checkpointer {
            data,
            control,
            thread: thread.ok(),
        }
    }

    /// Where the newest checkpoint starts: retention may go up to there. 0 when there is none.
    pub fn start_offset(&self) -> u64 {
        self.data.inner.checkpoints.lock().newest.unwrap_or(0)
    }

    /// Bytes of those that there are.
    pub fn bytes(&self) -> u64 {
        self.data.inner.checkpoint_bytes.load(Ordering::Relaxed)
    }

    /// About as many bytes as the next one still needs, with a store of `store_bytes`.
    pub fn to_come(&self, store_bytes: u64) -> u64 {
        let written = self.data.inner.part_bytes.load(Ordering::Relaxed);
        checkpoint_estimate(store_bytes).saturating_sub(written)
    }

    /// Looks now whether one is due.
    pub fn look(&self) {
        self.control.wake.notify_all();
    }

    /// Writes one as soon as possible, due or not.
    pub fn request(&self) {
        self.control.state.lock().requested = true;
        self.control.wake.notify_all();
    }

    /// Ends the thread; a checkpoint that is not complete is given up.
    pub fn stop(&mut self) {
        self.control.state.lock().stop = true;
        self.control.wake.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread for checkpoints panicked");
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether a checkpoint is due after so many operations and bytes, with a store of `store_bytes` on a disk of
/// `disk_bytes`, 0 where that is not known. The log keeps to `limits`, operations and bytes.
fn is_due(
    (operations, bytes): (u64, u64),
    store_bytes: u64,
    limits: (u64, Option<u64>),
    disk_bytes: u64,
) -> bool {
    let (log_size, max_bytes) = limits;
    let disk = if disk_bytes == 0 {
        u64::MAX
    } else {
        disk_bytes
    };
    let many = bytes >= MANY_BYTES.min(disk / 16).max(store_bytes / 2);
    let half = operations >= (log_size / 2).max(1) || max_bytes.is_some_and(|max| bytes >= max / 2);
    let circular = half && bytes >= store_bytes / 4;
    operations > 0 && (many || circular)
}

/// Whether one is due because the disk gets short.
fn frees_enough(
    (operations, bytes): (u64, u64),
    store_bytes: u64,
    checkpoint_bytes: u64,
    space: FreeSpace,
) -> bool {
    let estimate = checkpoint_estimate(store_bytes);
    let short = space.missing(LEAST_FREE, estimate) > 0;
    let frees = bytes + checkpoint_bytes.saturating_sub(estimate);
    let worth = MANY_SMALL.min(space.of / 64).max(store_bytes / 4);
    short && operations > 0 && frees >= worth
}

pub(super) struct Work {
    data: DataDir,
    directory: PathBuf,
    store: Arc<Store>,
    log: LogReader,
    control: Arc<Control>,
    /// Reading of [`LogReader::appended_bytes`] at the newest checkpoint.
    bytes_before: u64,
}

impl Work {
    pub(super) fn new(data: DataDir, generation: u64, store: Arc<Store>, log: LogReader) -> Self {
        let replayed = data.inner.checkpoints.lock().replayed_bytes;
        Work {
            directory: data.generation(generation),
            data,
            store,
            control: Arc::default(),
            // What was replayed at the start counts as written since.
            bytes_before: log.appended_bytes().wrapping_sub(replayed),
            log,
        }
    }

    fn run(mut self) {
        let mut failed: Option<Instant> = None;
        loop {
            let requested = {
                let mut state = self.control.state.lock();
                if !state.stop && !state.requested {
                    self.control.wake.wait_for(&mut state, LOOK_EVERY);
                }
                if state.stop {
                    return;
                }
                std::mem::take(&mut state.requested)
            };
            if let Err(error) = self.remove_superfluous() {
                tracing::error!(%error, "a checkpoint that is of no use any more was not removed");
            }
            let resting = failed.is_some_and(|at| at.elapsed() < AFTER_FAILURE);
            if requested || (!resting && self.is_due()) {
                let done = self.checkpoint();
                self.data.inner.part_bytes.store(0, Ordering::Relaxed);
                self.note_bytes();
                failed = match done {
                    Ok(()) => None,
                    Err(DataDirError::Snapshot(SnapshotError::Superseded)) => None,
                    Err(error) => {
                        tracing::error!(%error, "a checkpoint failed; the log is kept until one succeeds");
                        Some(Instant::now())
                    }
                };
            }
        }
    }

    fn is_due(&self) -> bool {
        let newest = self.data.inner.checkpoints.lock().newest.unwrap_or(0);
        let operations = self.store.applied().offset.saturating_sub(newest);
        let bytes = self.log.appended_bytes().wrapping_sub(self.bytes_before);
        let store_bytes = self.store.bytes();
        let space = self.data.free_space().ok();
        let limits = (
            self.data.inner.options.log_size,
            self.data.log_max_bytes(space),
        );
        let grown = (operations, bytes);
        let disk = space.map_or(0, |space| space.of);
        let due = is_due(grown, store_bytes, limits, disk)
            || space.is_some_and(|space| {
                let there = self.data.inner.checkpoint_bytes.load(Ordering::Relaxed);
                frees_enough(grown, store_bytes, there, space)
            });
        let estimate = checkpoint_estimate(store_bytes);
        due && space.is_none_or(|space| space.fits_snapshot(0, estimate))
    }

    /// Removes checkpoints from before the newest that the log does not reach back to; where the next one would not fit
    /// beside them, the others as well. Does nothing to those behind the newest good one, which nobody counts on.
    pub(super) fn remove_superfluous(&self) -> Result<(), DataDirError> {
        let checkpoints = self.data.inner.checkpoints.lock();
        let Some(newest) = checkpoints.newest else {
            return Ok(());
        };
        let first = self.log.first_offset();
        let estimate = checkpoint_estimate(self.store.bytes());
        for old in checkpoint::list(&self.directory)? {
            // Each one that goes may make room for the next.
            let space = self.data.free_space().ok();
            let fits = space.is_none_or(|space| space.missing(LEAST_FREE, estimate) == 0);
            if old < newest && (old + 1 < first || !fits) {
                self.remove(old)?;
            }
        }
        drop(checkpoints);
        self.note_bytes();
        Ok(())
    }

    fn remove(&self, start: u64) -> Result<(), DataDirError> {
        let path = checkpoint::path_of(&self.directory, start);
        background::remove_file(&path).map_err(|error| io_error("removing", &path, error))?;
        reached("checkpoint: older one removed");
        Ok(())
    }

    fn note_bytes(&self) {
        let starts = checkpoint::list(&self.directory).unwrap_or_default();
        let files = starts.iter().filter_map(|start| {
            let file = std::fs::metadata(checkpoint::path_of(&self.directory, *start));
            Some(file.ok()?.len())
        });
        let inner = &self.data.inner;
        inner.checkpoint_bytes.store(files.sum(), Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.control.state.lock().stop
    }

    /// Writes one now.
    pub(super) fn checkpoint(&mut self) -> Result<(), DataDirError> {
        let began = Instant::now();
        let bytes = self.log.appended_bytes();
        let (era, mut scan) = {
            let checkpoints = self.data.inner.checkpoints.lock();
            (checkpoints.era, self.store.scan())
        };
        let start = scan.header().start.position.offset;
        let mut writer = checkpoint::Writer::create(&self.directory, scan.header())?;
        for chunk in &mut scan {
            if self.is_stopped() {
                return Ok(());
            }
            writer.chunk(&chunk)?;
            let written = chunk.len() as u64;
            let part = &self.data.inner.part_bytes;
            part.fetch_add(written, Ordering::Relaxed);
        }
        let trailer = scan.trailer()?;
        // A checkpoint must not hold what the log could still lose.
        while self.log.end().position.offset < trailer.exact_from {
            if self.is_stopped() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        if self.log.durable() < trailer.exact_from {
            self.log.sync_files()?;
        }
        let finished = writer.finish(&trailer)?;
        reached("checkpoint: durable");
        let mut checkpoints = self.data.inner.checkpoints.lock();
        // Operations were undone, or another generation became current: this is of a past that is gone.
        if checkpoints.era != era || scan.trailer().is_err() {
            return Err(SnapshotError::Superseded.into());
        }
        finished.publish()?;
        reached("checkpoint: named");
        checkpoints.newest = Some(start);
        self.bytes_before = bytes;
        for old in checkpoint::list(&self.directory)?.into_iter().skip(KEPT) {
            self.remove(old)?;
        }
        drop(checkpoints);
        tracing::info!(
            start,
            exact_from = trailer.exact_from,
            bytes = trailer.bytes,
            took_ms = began.elapsed().as_millis() as u64,
            "checkpoint written"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    #[test]
    fn a_checkpoint_is_due_by_bytes_or_by_operations_but_not_for_a_trifle() {
        for (operations, bytes, store_bytes, log_size, disk, expected) in [
            (0, 0, 0, 1_000, 0, false),
            (1, 1000 * MIB, 0, 1_000_000, 0, false),
            (1, 1024 * MIB, 0, 1_000_000, 0, true),
            (1, 1024 * MIB, 4 * GIB, 1_000_000, 0, false),
            (1, 2048 * MIB, 4 * GIB, 1_000_000, 0, true),
            (1, 600 * MIB, 0, 1_000_000, 10 * GIB, false),
            (1, 640 * MIB, 0, 1_000_000, 10 * GIB, true),
            (500_000, MIB, MIB, 1_000_000, 0, true),
            (499_999, MIB, MIB, 1_000_000, 0, false),
            (500_000, MIB, GIB, 1_000_000, 0, false),
            (1, 10, 0, 1, 0, true),
        ] {
            assert_eq!(
                is_due((operations, bytes), store_bytes, (log_size, None), disk),
                expected,
                "{operations} {bytes} {store_bytes} {log_size} {disk}"
            );
        }
        // By bytes, where the log has a limit in them.
        for (bytes, store_bytes, expected) in [
            (31 * MIB, MIB, false),
            (32 * MIB, MIB, true),
            (32 * MIB, 256 * MIB, false),
            (64 * MIB, 256 * MIB, true),
        ] {
            let limits = (1_000_000, Some(64 * MIB));
            assert_eq!(is_due((1, bytes), store_bytes, limits, 0), expected);
        }
    }
}
