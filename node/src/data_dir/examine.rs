//! Looking at a data directory without changing it: what a start would find, and what it would refuse.
//!
//! It runs the same checks as a start, on files that are opened for reading only. While it looks it holds the lock, as
//! readers may share it: a node that runs is not disturbed, and none can start meanwhile.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use vectorizer_replication::position::{Chain, LogEnd, Position};

use super::recover::{
    covered_is_there, generation_may_be_made, histories_agree, journal_is_there, newest_store,
    role_is_missing,
};
use super::{DataDirError, checkpoint, generation_dir, generations, in_use, io_error, journal_dir};
use crate::journal::{self, Examined, JournalError, ReadError, SegmentReport, TornTail};
use crate::role::{RoleError, RoleFile, RoleState};
use crate::store::{SnapshotHeader, SnapshotTrailer, StoreDigest};

/// Why a directory cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// It holds neither a role file nor a generation.
    #[error("{} is not a data directory: it holds neither a role file nor a generation", .0.display())]
    NotADataDir(PathBuf),
    /// A node runs on it, or the system refused.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// Damage: a start would refuse it, or go on without it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// The file or directory, where it is known.
    pub path: Option<PathBuf>,
    /// Where in the file, where it is known.
    pub byte: Option<u64>,
    /// What is wrong and, where something can be done, what to do.
    pub what: String,
}

/// One generation's directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Generation {
    /// Its number.
    pub number: u64,
    /// Whether the role file names it. Another one is the rest of a full sync; the next start removes it.
    pub current: bool,
}

/// One checkpoint of the current generation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Checkpoint {
    /// The file.
    pub path: PathBuf,
    /// The offset that it starts at, by its name.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
    /// Whether a start can use it.
    pub valid: bool,
    /// What it says about itself, where that can be read.
    pub header: Option<SnapshotHeader>,
    /// Chunks, their bytes and CRC32, and from where on it is exact; `None` when it is damaged.
    pub trailer: Option<SnapshotTrailer>,
}

/// The current generation's log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Log {
    /// Offset of the oldest operation.
    pub first_offset: u64,
    /// Position of the last operation before any damage.
    pub end: Position,
    /// The chain there.
    pub chain: Chain,
    /// Its files, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Its torn end: no damage, the next start cuts it.
    pub torn: Option<TornTail>,
}

/// The collections, from the newest usable checkpoint and the log behind it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Content {
    /// Where the checkpoint starts; `None` when everything came from the log.
    pub from_checkpoint: Option<u64>,
    /// Bytes of log applied to it.
    pub replayed_bytes: u64,
    /// Position and digests, computed anew from every record.
    pub digest: StoreDigest,
}

/// What a data directory holds.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Examination {
    /// The directory.
    pub path: PathBuf,
    /// Whether there is no damage.
    pub sound: bool,
    /// The role file's content.
    pub role: Option<RoleState>,
    /// All generations, ascending.
    pub generations: Vec<Generation>,
    /// Checkpoints of the current one, newest first.
    pub checkpoints: Vec<Checkpoint>,
    /// The current one's log.
    pub log: Option<Log>,
    /// What is in the collections.
    pub content: Option<Content>,
    /// Files that hold operations that were undone.
    pub rollbacks: Vec<PathBuf>,
    /// What crashes left half made; the next start removes it.
    pub leftovers: Vec<PathBuf>,
    /// What is wrong.
    pub damage: Vec<Finding>,
}

/// Reads and verifies the directory at `path`.
///
/// Fails where there is no data directory, where a node runs on it, and where it cannot be listed.
pub fn examine(path: &Path) -> Result<Examination, ExamineError> {
    if !path.is_dir() {
        return Err(ExamineError::NotADataDir(path.to_owned()));
    }
    let role_path = path.join("role");
    let mut numbers = generations(path)?;
    numbers.sort_unstable();
    if numbers.is_empty() && !role_path.exists() {
        return Err(ExamineError::NotADataDir(path.to_owned()));
    }
    let _lock = share_lock(path)?;
    let mut found = Examination {
        path: path.to_owned(),
        sound: false,
        role: None,
        generations: Vec::new(),
        checkpoints: Vec::new(),
        log: None,
        content: None,
        rollbacks: files_in(&path.join("rollback"), |_| true)?,
        leftovers: files_in(path, |file| has_extension(file, "new"))?,
        damage: Vec::new(),
    };
    match RoleFile::load(&role_path) {
        Ok(Some(role)) => found.role = Some(role.state().clone()),
        Ok(None) => found.note(role_is_missing(&role_path)),
        Err(error) => found.note(error.into()),
    }
    let current = found.role.as_ref().map(|role| role.generation);
    found.generations = numbers
        .iter()
        .map(|number| Generation {
            number: *number,
            current: Some(*number) == current,
        })
        .collect();
    if let Some(role) = found.role.clone() {
        found.look_into(&role, &numbers)?;
    }
    found.sound = found.damage.is_empty();
    Ok(found)
}

impl Examination {
    fn note(&mut self, error: DataDirError) {
        self.damage.push(finding(&error));
    }

    fn look_into(&mut self, role: &RoleState, numbers: &[u64]) -> Result<(), DataDirError> {
        let generation = generation_dir(&self.path, role.generation);
        if !generation.exists() {
            if let Err(error) = generation_may_be_made(&generation, role, numbers) {
                self.note(error);
            }
            return Ok(());
        }
        self.leftovers
            .extend(files_in(&generation, |file| has_extension(file, "part"))?);
        let starts = checkpoint::list(&generation)?;
        for start in &starts {
            let checkpoint = self.look_at_checkpoint(&generation, *start);
            self.checkpoints.push(checkpoint);
        }
        let dir = journal_dir(&generation);
        if let Err(error) = journal_is_there(&dir, role, &starts) {
            self.note(error);
            return Ok(());
        }
        if !dir.exists() {
            return Ok(()); // a node that was stopped before it made one
        }
        let newest = self.checkpoints.first();
        let base = newest.and_then(|c| c.header.as_ref().map(|header| header.start));
        let known = role.covered.offset;
        let examined = match journal::examine(&dir, base.unwrap_or_default(), known) {
            Ok(examined) => examined,
            Err(error) => {
                self.note(error.into());
                return Ok(());
            }
        };
        self.look_at_content(role, &generation, &starts, examined);
        Ok(())
    }

    fn look_at_checkpoint(&mut self, generation: &Path, offset: u64) -> Checkpoint {
        let path = checkpoint::path_of(generation, offset);
        let header = checkpoint::Reader::open(&path).map(|reader| reader.header);
        let trailer = match checkpoint::load(&path) {
            Ok((_, trailer)) => Some(trailer),
            Err(error) => {
                self.note(error);
                None
            }
        };
        Checkpoint {
            bytes: fs::metadata(&path).map_or(0, |meta| meta.len()),
            path,
            offset,
            valid: trailer.is_some(),
            header: header.ok(),
            trailer,
        }
    }

    fn look_at_content(
        &mut self,
        role: &RoleState,
        generation: &Path,
        starts: &[u64],
        examined: Examined,
    ) {
        let Examined {
            segments,
            torn,
            leftovers,
            damage,
            log,
        } = examined;
        self.leftovers.extend(leftovers);
        for error in damage {
            self.note(error.into());
        }
        let LogEnd { position, chain } = log.end();
        self.log = Some(Log {
            first_offset: log.first_offset(),
            end: position,
            chain,
            segments,
            torn,
        });
        let (store, from_checkpoint, replayed_bytes) = match newest_store(generation, starts, &log)
        {
            Ok(store) => store,
            Err(error) => return self.note(error),
        };
        let (history, end) = (store.history(), log.end());
        if let Err(error) = histories_agree(&self.path, role, &history, end) {
            self.note(error);
        }
        // Where the log is damaged it ends early, and that is said already.
        if self.damage.is_empty()
            && let Err(error) = covered_is_there(&self.path, role, &history, end)
        {
            self.note(error);
        }
        let digest = store.digests();
        let anew = store.recompute_digest();
        if digest.total != anew {
            self.damage.push(Finding {
                path: Some(generation.to_owned()),
                byte: None,
                what: format!(
                    "the digest that was kept is {}, computed anew from every record it is {anew}",
                    digest.total
                ),
            });
        }
        self.content = Some(Content {
            from_checkpoint,
            replayed_bytes,
            digest,
        });
    }
}

/// Keeps nodes from starting as long as the file is open. `None` where nothing has ever locked the directory.
pub(super) fn share_lock(path: &Path) -> Result<Option<File>, DataDirError> {
    let file_path = path.join("lock");
    let file = match File::open(&file_path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("opening", &file_path, error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(in_use(path, file)),
        Err(error) => Err(io_error("locking", &file_path, error.into())),
    }
}

/// Files of a directory, which may be missing, ordered by name.
fn files_in(dir: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, DataDirError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("listing", dir, error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|error| io_error("listing", dir, error))?
            .path();
        if wanted(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn finding(error: &DataDirError) -> Finding {
    let (path, byte) = match error {
        DataDirError::Checkpoint { path, byte, .. }
        | DataDirError::Journal(
            JournalError::Corrupt { path, byte, .. }
            | JournalError::Read(ReadError::Corrupt { path, byte, .. }),
        )
        | DataDirError::Read(ReadError::Corrupt { path, byte, .. }) => (Some(path), Some(*byte)),
        DataDirError::Locked { path, .. }
        | DataDirError::Io { path, .. }
        | DataDirError::Inconsistent { path, .. }
        | DataDirError::Role(
            RoleError::Unwritten { path, .. }
            | RoleError::Io { path, .. }
            | RoleError::Corrupt { path, .. },
        )
        | DataDirError::Journal(
            JournalError::Io { path, .. } | JournalError::Read(ReadError::Io { path, .. }),
        )
        | DataDirError::Read(ReadError::Io { path, .. }) => (Some(path), None),
        DataDirError::Journal(
            JournalError::Discontinuous { .. }
            | JournalError::NotABoundary { .. }
            | JournalError::Read(ReadError::Gone { .. } | ReadError::NotABoundary(_))
            | JournalError::Poisoned,
        )
        | DataDirError::Read(ReadError::Gone { .. } | ReadError::NotABoundary(_))
        | DataDirError::Snapshot(_)
        | DataDirError::Apply(_) => (None, None),
    };
    Finding {
        path: path.cloned(),
        byte,
        what: error.to_string(),
    }
}
