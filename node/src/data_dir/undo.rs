//! Undoing the end of the log: what a former master wrote and nobody else has.
//!
//! Order, so that a crash at any point leaves a directory that opens: the store as it will be is built first, from a
//! checkpoint that is exact at or before the cut; the operations are written aside; checkpoints that hold them go; the
//! log is cut; the store is replaced; the history follows. Before the log is cut a restart finds everything as it was.
//! What needs room on the disk comes first, and a disk that has none refuses the whole: nothing is changed then.

use std::fs::{self, File};
use std::io::{BufWriter, Write};

use vectorizer_replication::batch::Batch;

use super::recover::replay;
use super::step::reached;
use super::{DataDir, DataDirError, checkpoint, io_error, sync_dir};
use crate::journal::{Journal, JournalError, LogReader};
use crate::role::RoleFile;
use crate::store::Store;

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
            fs::remove_file(&path).map_err(|error| io_error("removing", &path, error))?;
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
    role.update(|state| state.history.truncate(to))?;
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
    let undone = match journal.batches_after(to) {
        Ok(undone) => undone,
        // A point that the master names and that no batch ends at here: the two logs differ below it.
        Err(JournalError::NotABoundary { .. }) => return Ok(Err(UndoOutcome::NeedsSnapshot)),
        Err(error) => return Err(error.into()),
    };
    let Some(last) = undone.last() else {
        return Ok(Err(UndoOutcome::Done));
    };
    let exact = exact_from(generation)?;
    let Some(rebuilt) = rebuild(generation, &exact, &journal.reader(), to)? else {
        return Ok(Err(UndoOutcome::NeedsSnapshot));
    };
    reached("undo: store rebuilt");
    write_aside(data, last.epoch(), to, &undone)?;
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
    let store = match usable {
        Some((start, _)) => checkpoint::load(&checkpoint::path_of(generation, *start))?.0,
        None if first == 1 => Store::new(),
        None => return Ok(None),
    };
    replay(&store, log, to)?;
    Ok(Some(store))
}

fn write_aside(data: &DataDir, epoch: u64, to: u64, undone: &[Batch]) -> Result<(), DataDirError> {
    let dir = data.path().join("rollback");
    fs::create_dir_all(&dir).map_err(|error| io_error("creating", &dir, error))?;
    let last = undone.last().map_or(to, Batch::last_offset);
    let path = dir.join(format!("{epoch}-{}-{last}", to + 1));
    let write = || {
        let mut file = BufWriter::new(File::create(&path)?);
        for batch in undone {
            file.write_all(batch.bytes())?;
        }
        file.flush()?;
        file.get_ref().sync_all()
    };
    write().map_err(|error| {
        // It is all still in the log: half a copy of it helps nobody, least of all a full disk.
        let _ = fs::remove_file(&path);
        io_error("writing", &path, error)
    })?;
    sync_dir(&dir)?;
    sync_dir(data.path())?;
    tracing::warn!(
        file = %path.display(),
        operations = last - to,
        "operations that no other node has are undone; they were written aside"
    );
    Ok(())
}
