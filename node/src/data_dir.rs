//! The data directory: its lock, its role file and its generations of checkpoint and journal.
//!
//! | path | what |
//! |---|---|
//! | `lock` | held by the process that uses the directory (flock); its pid is in it |
//! | `role` | identity, promises, epochs, and which generation is current: see `role.rs` |
//! | `gen-<n>/journal/` | the log: see `journal/segment.rs` |
//! | `gen-<n>/checkpoint-<offset>` | a snapshot that starts there: see `data_dir/checkpoint.rs` |
//! | `reserve` | room that is given up when nothing else is left: see `data_dir/space.rs` |
//! | `rollback/<epoch>-<from>-<to>` | operations that were undone: their batches, one after the other |
//!
//! A generation is a checkpoint and a log that fit together. A full sync fills a new one beside the current one; the
//! role file's rename makes it current, together with its history, once it is exact and durable. Only then the old one
//! goes. What a crash leaves behind of a generation that never became current is removed at the next start.
//!
//! A start reads the newest valid checkpoint, replays the log behind it, and stands exactly where the log ends. Order
//! that holds at any crash: a checkpoint gets its name after the log is durable up to where the checkpoint is exact;
//! log segments go only after the checkpoint that replaces them has its name; when operations are undone, checkpoints
//! that hold them go before the log is cut.

mod checkpoint;
mod checkpointer;
mod examine;
mod incoming;
mod recover;
mod space;
mod undo;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use vectorizer_replication::position::{History, LogEnd};

use crate::journal::{Journal, JournalError, JournalOptions, LogReader, ReadError};
use crate::role::{RoleError, RoleFile, RoleState};
use crate::store::{ApplyError, SnapshotError, SnapshotHeader, Store};

pub use checkpoint::load_checkpoint;
pub use checkpointer::Checkpointer;
pub use examine::{
    Checkpoint, Content, Examination, ExamineError, Finding, Generation, Log, examine,
};
pub use incoming::Incoming;
pub use space::{FreeSpace, LEAST_FREE, Reserve, checkpoint_estimate, free_space};
pub use undo::UndoOutcome;

/// Why a data directory cannot be used, or an operation on it failed.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process uses it.
    #[error("{} is in use by process {pid}: two processes cannot share a data directory", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The other process, where it is known.
        pid: String,
    },
    /// The system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Files are missing or contradict each other.
    #[error("{}: {what}", path.display())]
    Inconsistent {
        /// Where.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// A checkpoint's file is damaged.
    #[error("{} is damaged at byte {byte}: {what}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Where in it.
        byte: u64,
        /// What is wrong there.
        what: String,
    },
    /// The role file.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal cannot be read back.
    #[error("reading the journal: {0}")]
    Read(#[from] ReadError),
    /// A snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// An operation in the log cannot be applied.
    #[error("an operation in the log cannot be applied: {0}")]
    Apply(#[from] ApplyError),
}

impl DataDirError {
    /// Whether the disk is full or refuses, rather than holding what it should not.
    pub fn is_disk(&self) -> bool {
        match self {
            DataDirError::Io { .. }
            | DataDirError::Role(RoleError::Io { .. } | RoleError::Unwritten { .. })
            | DataDirError::Journal(
                JournalError::Io { .. } | JournalError::Read(ReadError::Io { .. }),
            )
            | DataDirError::Read(ReadError::Io { .. }) => true,
            DataDirError::Locked { .. }
            | DataDirError::Inconsistent { .. }
            | DataDirError::Checkpoint { .. }
            | DataDirError::Role(RoleError::Corrupt { .. })
            | DataDirError::Journal(
                JournalError::Corrupt { .. }
                | JournalError::Discontinuous { .. }
                | JournalError::NotABoundary { .. }
                | JournalError::Read(_)
                | JournalError::Poisoned,
            )
            | DataDirError::Read(_)
            | DataDirError::Snapshot(_)
            | DataDirError::Apply(_) => false,
        }
    }
}

/// The directory, locked for this process. Cloning shares the lock.
#[derive(Clone)]
pub struct DataDir {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    options: JournalOptions,
    /// Locked as long as it is open.
    _lock: File,
    /// Held where checkpoints change: a checkpoint that began before an undo must not get its name after it.
    checkpoints: Mutex<Checkpoints>,
    /// Bytes of the current generation's checkpoints.
    checkpoint_bytes: AtomicU64,
    /// Bytes of the checkpoint that is being written.
    part_bytes: AtomicU64,
}

/// What is known of the current generation's checkpoints.
#[derive(Clone, Copy, Default)]
struct Checkpoints {
    /// Changes when operations are undone.
    era: u64,
    /// Where the newest one starts.
    newest: Option<u64>,
    /// Bytes of log behind it when the directory was opened.
    replayed_bytes: u64,
}

/// What a data directory held.
pub struct Opened {
    /// The collections, at `end`.
    pub store: Arc<Store>,
    /// The log.
    pub journal: Journal,
    /// Who this node is.
    pub role: RoleFile,
    /// Where the log ends.
    pub end: LogEnd,
}

impl DataDir {
    /// Locks the directory, created if need be, and recovers what is in it.
    pub fn open(path: &Path, options: JournalOptions) -> Result<(DataDir, Opened), DataDirError> {
        fs::create_dir_all(path).map_err(|error| io_error("creating", path, error))?;
        let lock = lock(path)?;
        let (opened, checkpoints) = recover::recover(path, &limited(&options, path))?;
        let inner = Inner {
            path: path.to_owned(),
            options,
            _lock: lock,
            checkpoints: Mutex::new(checkpoints),
            checkpoint_bytes: AtomicU64::new(0),
            part_bytes: AtomicU64::new(0),
        };
        let inner = Arc::new(inner);
        Ok((DataDir { inner }, opened))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// What is free on the file system.
    pub fn free_space(&self) -> Result<FreeSpace, DataDirError> {
        free_space(&self.inner.path)
            .map_err(|error| io_error("asking for free space", &self.inner.path, error))
    }

    /// Bytes that the log may take: as configured, or by what the file system holds now.
    pub fn log_max_bytes(&self, space: Option<FreeSpace>) -> Option<u64> {
        let by_space = || space.and_then(|space| space.log_bytes());
        self.inner.options.max_bytes.or_else(by_space)
    }

    /// What there is of the reserve.
    pub fn reserve(&self) -> Reserve {
        Reserve::find(&self.inner.path)
    }

    fn journal_options(&self) -> JournalOptions {
        limited(&self.inner.options, &self.inner.path)
    }

    /// Begins to receive a full sync into a generation of its own; what is there is left as it is.
    pub fn begin_incoming(
        &self,
        role: &RoleState,
        header: SnapshotHeader,
    ) -> Result<Incoming, DataDirError> {
        Incoming::begin(self.clone(), role.generation, header)
    }

    /// Undoes everything after offset `to`, the end of a batch. What is undone is first written to `rollback/`.
    pub fn undo(
        &self,
        journal: &mut Journal,
        store: &Store,
        role: &mut RoleFile,
        to: u64,
    ) -> Result<UndoOutcome, DataDirError> {
        undo::undo(self, journal, store, role, to)
    }

    /// Before a full sync takes the place of what is here: writes to `rollback/` what the log holds and one of this
    /// history, that ends at offset `end`, cannot hold.
    pub fn write_divergence_aside(
        &self,
        log: &LogReader,
        role: &RoleState,
        (history, end): (&History, u64),
    ) -> Result<(), DataDirError> {
        let own_end = log.end().position.offset;
        let common = role.history.common_end(own_end, history, end);
        if common >= own_end {
            return Ok(());
        }
        undo::write_aside(self, log, common)
    }

    /// Starts the thread that writes checkpoints of `store` into the current generation.
    ///
    /// Where the system gives no thread, there are no checkpoints; the log then grows, and that is logged.
    pub fn start_checkpoints(
        &self,
        role: &RoleState,
        store: Arc<Store>,
        log: LogReader,
    ) -> Checkpointer {
        Checkpointer::start(self.clone(), role.generation, store, log)
    }

    fn generation(&self, generation: u64) -> PathBuf {
        generation_dir(&self.inner.path, generation)
    }
}

/// The options with the log's limit by the file system where none is configured.
fn limited(options: &JournalOptions, path: &Path) -> JournalOptions {
    let by_space = || free_space(path).ok()?.log_bytes();
    JournalOptions {
        max_bytes: options.max_bytes.or_else(by_space),
        ..options.clone()
    }
}

fn generation_dir(path: &Path, generation: u64) -> PathBuf {
    path.join(format!("gen-{generation}"))
}

fn journal_dir(generation: &Path) -> PathBuf {
    generation.join("journal")
}

/// All generations there are.
fn generations(path: &Path) -> Result<Vec<u64>, DataDirError> {
    let failed = |error| io_error("listing", path, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("gen-"));
        found.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(found)
}

/// Takes the directory for this process until the file is closed.
fn lock(path: &Path) -> Result<File, DataDirError> {
    let file_path = path.join("lock");
    let failed = |error| io_error("locking", &file_path, error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&file_path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(in_use(path, file)),
        Err(error) => return Err(failed(error.into())),
    }
    // For whoever finds it locked: on a disk without any room, that one has to do without.
    let _ = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// That another process holds the lock.
fn in_use(path: &Path, mut lock: File) -> DataDirError {
    let mut pid = String::new();
    // Only to name the other process: it may be about to write its pid.
    let _ = lock.read_to_string(&mut pid);
    let pid = match pid.trim() {
        "" => "unknown".to_owned(),
        pid => pid.to_owned(),
    };
    let path = path.to_owned();
    DataDirError::Locked { path, pid }
}

fn sync_dir(dir: &Path) -> Result<(), DataDirError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| io_error("syncing", dir, error))
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> DataDirError {
    DataDirError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
