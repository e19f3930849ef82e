//! Undoing the end of the log: what a former master wrote and nobody else has.
//!
//! Order, so that a crash at any point leaves a directory that opens: the store as it will be is built first, from a
//! checkpoint that is exact at or before the cut; the operations are written aside; checkpoints that hold them go; the
//! log is cut; the store is replaced; the history follows. Before the log is cut a restart finds everything as it was.
//! What needs room on the disk comes first, and a disk that has none refuses the whole: nothing is changed then.

use std::fs::{self, File};
use std::io::{BufWriter, Write};

use super::recover::{replay, replay_snapshot};
use super::{DataDir, DataDirError, checkpoint, io_error, sync_dir};
use crate::background;
use crate::journal::{Journal, LogReader};
use crate::role::RoleFile;
use crate::step::reached;
use crate::store::Store;

/// Bytes of log read at a time.
const PIECE_BYTES: usize = 4 << 20;

/// What became of an attempt to undo operations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UndoOutcome {
    /// Log, store and history end there now; what was undone was written aside.
    Done,
    /// No checkpoint is old enough; nothing was changed.
    NeedsSnapshot,
    /// The disk is full or refuses, as this says; nothing was changed, and trying again may succeed.
    DiskRefused(String),
}

/// What is known before anything is changed.
struct Prepared {
    /// Start and exact offset of each checkpoint, newest first.
    exact: Vec<(u64, u64)>,
    rebuilt: Store,
}

pub(super) fn undo(
    data: &DataDir,
    journal: &mut Journal,
    store: &Store,
    role: &mut RoleFile,
    to: u64,
) -> Result<UndoOutcome, DataDirError> {
    let generation = data.generation(role.state().generation);
    // Held to the end: no checkpoint that began before gets its name, none begins before the store is replaced.
    let mut checkpoints = data.inner.checkpoints.lock();
    let prepared = match prepare(data, journal, &generation, to) {
        Ok(Ok(prepared)) => prepared,
        Ok(Err(outcome)) => return Ok(outcome),
        Err(error) if error.is_disk() => return Ok(UndoOutcome::DiskRefused(error.to_string())),
        Err(error) => return Err(error),
    };
    let Prepared { exact, rebuilt } = prepared;
    reached("undo: written aside");
    checkpoints.era += 1;
    for (start, exact_from) in &exact {
        if *exact_from > to {
            let path = checkpoint::path_of(&generation, *start);
            background::remove_file(&path).map_err(|error| io_error("removing", &path, error))?;
            reached("undo: checkpoint removed");
        }
    }
    sync_dir(&generation)?;
    checkpoints.newest = exact
        .iter()
        .find(|(_, exact_from)| *exact_from <= to)
        .map(|(start, _)| *start);
    journal.truncate(to)?;
    reached("undo: log cut");
    store.replace_with(rebuilt);
    role.update(|state| {
        state.history.truncate(to);
        state.diverged = None;
    })?;
    reached("undo: history cut");
    Ok(UndoOutcome::Done)
}

/// Everything that can be done beforehand: the store as it will be, and the operations written aside.
fn prepare(
    data: &DataDir,
    journal: &mut Journal,
    generation: &std::path::Path,
    to: u64,
) -> Result<Result<Prepared, UndoOutcome>, DataDirError> {
    if to < journal.reader().first_offset().saturating_sub(1) {
        return Ok(Err(UndoOutcome::NeedsSnapshot));
    }
    journal.publish();
    let log = journal.reader();
    if log.end().position.offset == to {
        return Ok(Err(UndoOutcome::Done));
    }
    if log.chain_at(to)?.is_none() {
        // A point that the master names and that no batch ends at here: the two logs differ below it.
        return Ok(Err(UndoOutcome::NeedsSnapshot));
    }
    let exact = exact_from(generation)?;
    let Some(rebuilt) = rebuild(generation, &exact, &log, to)? else {
        return Ok(Err(UndoOutcome::NeedsSnapshot));
    };
    reached("undo: store rebuilt");
    write_aside(data, &log, to)?;
    Ok(Ok(Prepared { exact, rebuilt }))
}

/// Start and exact offset of each readable checkpoint, newest first; for one that is damaged, as if it held everything.
fn exact_from(generation: &std::path::Path) -> Result<Vec<(u64, u64)>, DataDirError> {
    let starts = checkpoint::list(generation)?;
    let exact = starts.into_iter().map(|start| {
        let path = checkpoint::path_of(generation, start);
        let trailer = checkpoint::Reader::open(&path).and_then(|mut reader| {
            while reader.chunk()?.is_some() {}
            reader.trailer()
        });
        (
            start,
            trailer.map_or(u64::MAX, |trailer| trailer.exact_from),
        )
    });
    Ok(exact.collect())
}

/// The store as it was at `to`; `None` when nothing old enough is left.
fn rebuild(
    generation: &std::path::Path,
    exact: &[(u64, u64)],
    log: &LogReader,
    to: u64,
) -> Result<Option<Store>, DataDirError> {
    let first = log.first_offset();
    let usable = exact
        .iter()
        .find(|(start, exact_from)| *exact_from <= to && start + 1 >= first);
    match usable {
        Some((start, _)) => {
            let path = checkpoint::path_of(generation, *start);
            let (store, trailer) = checkpoint::load(&path)?;
            replay_snapshot(&store, &trailer, log, to)?;
            Ok(Some(store))
        }
        None if first == 1 => {
            let store = Store::new();
            replay(&store, log, to)?;
            Ok(Some(store))
        }
        None => Ok(None),
    }
}

/// Writes everything of the log after `to`, the end of a batch, to a file of its own, durably; as far back as the log
/// goes, if that is not as far.
pub(super) fn write_aside(data: &DataDir, log: &LogReader, to: u64) -> Result<(), DataDirError> {
    let dir = data.path().join("rollback");
    fs::create_dir_all(&dir).map_err(|error| io_error("creating", &dir, error))?;
    let (first, end) = (log.first_offset().max(to + 1), log.end().position);
    let path = dir.join(format!("{}-{first}-{}", end.epoch, end.offset));
    let failed = |error| io_error("writing", &path, error);
    let write = || {
        let mut file = BufWriter::new(File::create(&path).map_err(failed)?);
        let mut next = first;
        while next <= end.offset {
            for batch in log.read(next, PIECE_BYTES)? {
                next = batch.last_offset() + 1;
                file.write_all(batch.bytes()).map_err(failed)?;
            }
        }
        file.flush().map_err(failed)?;
        file.get_ref().sync_all().map_err(failed)
    };
    write().inspect_err(|_: &DataDirError| {
        // It is all still in the log: half a copy of it helps nobody, least of all a full disk.
        let _ = fs::remove_file(&path);
    })?;
    sync_dir(&dir)?;
    sync_dir(data.path())?;
    tracing::warn!(
        file = %path.display(),
        operations = end.offset + 1 - first,
        "operations that no other node has are given up; they were written aside"
    );
    Ok(())
}
