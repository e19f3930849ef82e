//! What a start does: find the current generation, load its newest valid checkpoint, replay the log behind it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use vectorizer_replication::command::Standing;
use vectorizer_replication::position::{History, LogEnd};

use super::{
    Checkpoints, DataDirError, Opened, checkpoint, generation_dir, generations, io_error,
    journal_dir, sync_dir,
};
use crate::journal::{Journal, JournalOptions, LogReader};
use crate::role::{RoleFile, RoleState};
use crate::store::{SnapshotTrailer, Store};

/// Bytes of log replayed at a time.
const REPLAY_BYTES: usize = 4 << 20;

pub(super) fn recover(
    path: &Path,
    options: &JournalOptions,
) -> Result<(Opened, Checkpoints), DataDirError> {
    let mut role = load_role(path)?;
    let generation = generation_dir(path, role.state().generation);
    prepare_generation(path, &generation, role.state())?;

    let began = Instant::now();
    checkpoint::remove_parts(&generation)?;
    let starts = checkpoint::list(&generation)?;
    let base = match starts.first() {
        Some(newest) => checkpoint::Reader::open(&checkpoint::path_of(&generation, *newest))
            .map(|r| r.header.start),
        None => Ok(LogEnd::default()),
    };
    // Only an empty log needs it, and then an unreadable checkpoint is found out below.
    let base = base.unwrap_or_default();
    let dir = journal_dir(&generation);
    journal_is_there(&dir, role.state(), &starts)?;
    let known = role.state().covered.offset;
    let journal = Journal::open_knowing(&dir, options.clone(), base, known)?;
    sync_dir(&generation)?;

    let (store, newest, replayed_bytes) = newest_store(&generation, &starts, &journal.reader())?;
    reconcile_history(path, &mut role, store.history(), journal.end())?;
    let end = journal.end();
    tracing::info!(
        position = %end.position,
        collections = store.collections().len(),
        first_offset = journal.reader().first_offset(),
        replayed_bytes,
        took_ms = began.elapsed().as_millis() as u64,
        "data directory opened"
    );
    let checkpoints = Checkpoints {
        era: 0,
        newest,
        replayed_bytes,
    };
    let store = Arc::new(store);
    Ok((
        Opened {
            store,
            journal,
            role,
            end,
        },
        checkpoints,
    ))
}

fn load_role(path: &Path) -> Result<RoleFile, DataDirError> {
    let file = path.join("role");
    if let Some(role) = RoleFile::load(&file)? {
        return Ok(role);
    }
    if !generations(path)?.is_empty() {
        return Err(role_is_missing(&file));
    }
    Ok(RoleFile::create(&file, RoleState::new())?)
}

pub(super) fn role_is_missing(file: &Path) -> DataDirError {
    inconsistent(
        file,
        "it is missing, but the directory holds data: without it the node does not know who it is. Restore it, or give \
         the node an empty directory so that it joins as a new node",
    )
}

/// Makes the first generation, and removes every one that is not current.
fn prepare_generation(path: &Path, current: &Path, role: &RoleState) -> Result<(), DataDirError> {
    let found = generations(path)?;
    if !current.exists() {
        // Nothing is removed then: what is current elsewhere may be what an older role file does not know of.
        generation_may_be_made(current, role, &found)?;
        fs::create_dir(current).map_err(|error| io_error("creating", current, error))?;
        sync_dir(path)?;
    }
    for number in found {
        if number != role.generation {
            let left = generation_dir(path, number);
            tracing::info!(directory = %left.display(), "removing a generation that is not current");
            fs::remove_dir_all(&left).map_err(|error| io_error("removing", &left, error))?;
        }
    }
    Ok(())
}

/// Refuses a current generation that is gone.
pub(super) fn generation_may_be_made(
    current: &Path,
    role: &RoleState,
    found: &[u64],
) -> Result<(), DataDirError> {
    if !role.has_data && role.history.entries().is_empty() && found.is_empty() {
        return Ok(());
    }
    Err(inconsistent(
        current,
        "the current generation is gone, but this node held data: restore it, or empty the data directory so that \
         the node syncs from the master",
    ))
}

/// Refuses a journal that is gone.
pub(super) fn journal_is_there(
    dir: &Path,
    role: &RoleState,
    starts: &[u64],
) -> Result<(), DataDirError> {
    let nothing_yet = starts.is_empty() && !role.has_data;
    if nothing_yet || holds_segments(dir) {
        return Ok(());
    }
    Err(inconsistent(
        dir,
        "the journal is gone, but this node held data: restore it, or empty the data directory so that the node \
         syncs from the master",
    ))
}

fn holds_segments(journal: &Path) -> bool {
    let entries = fs::read_dir(journal).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .any(|path| path.extension().is_some_and(|e| e == "wal"))
}

/// The store at the end of the log, where the checkpoint starts that it was made from, which the log has to reach back
/// to until there is a newer one, and how many bytes of log were replayed for it.
pub(super) fn newest_store(
    generation: &Path,
    starts: &[u64],
    log: &LogReader,
) -> Result<(Store, Option<u64>, u64), DataDirError> {
    let end = log.end().position.offset;
    let mut refused = Vec::new();
    for start in starts {
        let path = checkpoint::path_of(generation, *start);
        let (store, trailer) = match checkpoint::load(&path) {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::warn!(%error, "a checkpoint cannot be used; trying an older one");
                refused.push(error.to_string());
                continue;
            }
        };
        if trailer.exact_from > end {
            // It got its name after the log was durable up to there.
            return Err(inconsistent(
                &path,
                &format!(
                    "the checkpoint was made when the log was durable up to offset {}, now the log ends at {end}: \
                     durable operations were lost. Restore the journal, or empty the data directory so that the node \
                     syncs from the master",
                    trailer.exact_from
                ),
            ));
        }
        if *start + 1 < log.first_offset() {
            refused.push(format!(
                "{}: the log begins only at offset {}",
                path.display(),
                log.first_offset()
            ));
            continue;
        }
        let (replayed, _) = replay_snapshot(&store, &trailer, log, end)?;
        return Ok((store, Some(*start), replayed));
    }
    if log.first_offset() == 1 {
        let store = Store::new();
        let replayed = replay(&store, log, end)?;
        return Ok((store, None, replayed));
    }
    Err(inconsistent(
        generation,
        &format!(
            "the log begins at offset {} and no checkpoint can be used ({}). Restore a checkpoint, or empty the data \
             directory so that the node syncs from the master",
            log.first_offset(),
            if refused.is_empty() {
                "there is none".to_owned()
            } else {
                refused.join("; ")
            }
        ),
    ))
}

/// Applies the log from where the store stands up to offset `to`, the end of a batch. Returns the bytes applied.
pub(super) fn replay(store: &Store, log: &LogReader, to: u64) -> Result<u64, DataDirError> {
    let mut bytes = 0;
    let mut next = store.applied().offset + 1;
    while next <= to {
        for batch in log.read(next, REPLAY_BYTES)? {
            if batch.last_offset() > to {
                return Ok(bytes);
            }
            store.apply_batch(&batch)?;
            bytes += batch.bytes().len() as u64;
            next = batch.last_offset() + 1;
        }
    }
    Ok(bytes)
}

/// The same for a store that loaded a snapshot, which is compared where it has to be exact. Returns whether it got there.
pub(super) fn replay_snapshot(
    store: &Store,
    trailer: &SnapshotTrailer,
    log: &LogReader,
    to: u64,
) -> Result<(u64, bool), DataDirError> {
    let before = replay(store, log, trailer.exact_from.min(to))?;
    let exact = trailer.reached_by(store)?;
    let after = replay(store, log, to)?;
    // Where no batch ends, nothing was compared.
    Ok((before + after, exact || trailer.reached_by(store)?))
}

/// Brings the role file's history in line with the log's. A crash may have come between the two, either way round: an
/// epoch that was opened and never written in, or, on a replica, a first operation of an epoch that was not noted.
fn reconcile_history(
    path: &Path,
    role: &mut RoleFile,
    of_log: History,
    end: LogEnd,
) -> Result<(), DataDirError> {
    histories_agree(path, role.state(), &of_log, end)?;
    covered_is_there(path, role.state(), &of_log, end)?;
    Ok(role.update(|state| {
        state.history = of_log;
        // Noted before a replica's first batch, which did not get to its log: elected, it would bring nothing.
        if end.position.offset == 0 && matches!(state.standing, Standing::Replica { .. }) {
            state.has_data = false;
        }
    })?)
}

/// Refuses a role file that knows other epochs than the log.
pub(super) fn histories_agree(
    path: &Path,
    role: &RoleState,
    of_log: &History,
    end: LogEnd,
) -> Result<(), DataDirError> {
    let mut noted = role.history.clone();
    noted.truncate(end.position.offset);
    if !of_log.entries().starts_with(noted.entries()) {
        return Err(inconsistent(
            &path.join("role"),
            &format!(
                "it knows the epochs {:?}, the log has {:?}: they do not belong together. Restore the one that is \
                 wrong, or empty the data directory so that the node syncs from the master",
                noted.entries(),
                of_log.entries()
            ),
        ));
    }
    Ok(())
}

/// Refuses a log without what the role file knows to be covered.
pub(super) fn covered_is_there(
    path: &Path,
    role: &RoleState,
    of_log: &History,
    end: LogEnd,
) -> Result<(), DataDirError> {
    let (covered, end) = (role.covered, end.position);
    if end.offset < covered.offset || of_log.epoch_at(covered.offset) != covered.epoch {
        return Err(inconsistent(
            &journal_dir(&generation_dir(path, role.generation)),
            &format!(
                "the log ends at {end} and is without {covered}, which the role file knows to have been durable here \
                 and acknowledged by enough replicas: restore the log, or empty the data directory so that the node \
                 syncs from the master"
            ),
        ));
    }
    Ok(())
}

fn inconsistent(path: &Path, what: &str) -> DataDirError {
    DataDirError::Inconsistent {
        path: path.to_owned(),
        what: what.to_owned(),
    }
}
