//! A full sync on its way in: a new generation beside the current one, until it is exact and durable.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use vectorizer_replication::batch::Batch;
use vectorizer_replication::position::{History, LogEnd};

use super::recover::replay_snapshot;
use super::{DataDir, DataDirError, checkpoint, generations, io_error, journal_dir, sync_dir};
use crate::background;
use crate::journal::Journal;
use crate::role::{RoleFile, RoleState};
use crate::step::reached;
use crate::store::{SnapshotHeader, SnapshotLoader, SnapshotTrailer, Store};

/// A generation's directory that goes again unless it is kept.
struct Unfinished {
    path: PathBuf,
    keep: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.keep {
            // Removed at the next start if not now.
            let _ = background::remove_dir_all(&self.path);
        }
    }
}

enum Content {
    /// Chunks are on their way.
    Chunks(Box<SnapshotLoader>, checkpoint::Writer),
    /// All chunks are loaded, and what was appended is applied; whether it got to where it is exact.
    Loaded(Box<Store>, SnapshotTrailer, bool),
    /// A chunk or the trailer was refused.
    Refused,
}

/// A full sync on its way in. Dropped before it is installed, it leaves nothing.
pub struct Incoming {
    data: DataDir,
    number: u64,
    start: LogEnd,
    content: Content,
    journal: Journal,
    // After the journal, so that it is dropped last.
    directory: Unfinished,
}

impl Incoming {
    pub(super) fn begin(
        data: DataDir,
        current: u64,
        header: SnapshotHeader,
    ) -> Result<Self, DataDirError> {
        let path = data.path().to_owned();
        let refuse = |what: &str| {
            Err(DataDirError::Inconsistent {
                path: path.clone(),
                what: format!("the snapshot's header is refused: {what}"),
            })
        };
        // Read from a peer, so the order that the type promises is not certain.
        let ordered = History::new(header.history.entries().to_vec()).is_some();
        if !ordered
            || header.history.epoch_at(header.start.position.offset) != header.start.position.epoch
        {
            return refuse("its epochs do not fit its start");
        }
        let mut number = current + 1;
        for found in generations(&path)? {
            number = number.max(found + 1);
        }
        let directory = data.generation(number);
        fs::create_dir(&directory).map_err(|error| io_error("creating", &directory, error))?;
        let directory = Unfinished {
            path: directory,
            keep: false,
        };
        let journal = Journal::open(
            &journal_dir(&directory.path),
            data.journal_options(),
            header.start,
        )?;
        let writer = checkpoint::Writer::create(&directory.path, &header)?;
        Ok(Incoming {
            data,
            number,
            start: header.start,
            content: Content::Chunks(Box::new(SnapshotLoader::new(header)), writer),
            journal,
            directory,
        })
    }

    /// Loads one chunk, in order. After an error this full sync is of no more use.
    pub fn load_chunk(&mut self, chunk: &Bytes) -> Result<(), DataDirError> {
        let Content::Chunks(loader, writer) = &mut self.content else {
            return Err(self.out_of_order("a chunk after the trailer"));
        };
        loader.load(chunk)?;
        writer.chunk(chunk)
    }

    /// Ends the chunks and verifies them all.
    pub fn finish_chunks(&mut self, trailer: SnapshotTrailer) -> Result<(), DataDirError> {
        let content = std::mem::replace(&mut self.content, Content::Refused);
        let Content::Chunks(loader, writer) = content else {
            return Err(self.out_of_order("a second trailer"));
        };
        let store = loader.finish(&trailer)?;
        writer.finish(&trailer)?.publish()?;
        let log = self.journal.reader();
        let end = self.journal.end().position.offset;
        let (_, exact) = replay_snapshot(&store, &trailer, &log, end)?;
        self.content = Content::Loaded(Box::new(store), trailer, exact);
        reached("incoming: chunks complete");
        Ok(())
    }

    /// Journals an operation that follows the snapshot's start; applied once the chunks are complete.
    pub fn append(&mut self, batch: &Batch) -> Result<(), DataDirError> {
        self.journal.append(batch)?;
        self.journal.publish();
        if let Content::Loaded(store, trailer, exact) = &mut self.content {
            store.apply_batch(batch)?;
            *exact = *exact || trailer.reached_by(store)?;
        }
        Ok(())
    }

    /// Where its log begins: the snapshot's start.
    pub fn start(&self) -> LogEnd {
        self.start
    }

    /// Where its log ends.
    pub fn end(&self) -> LogEnd {
        self.journal.end()
    }

    /// The epochs of its log, up to its end.
    pub fn history(&self) -> Option<History> {
        match &self.content {
            Content::Loaded(store, ..) => Some(store.history()),
            Content::Chunks(_, _) | Content::Refused => None,
        }
    }

    /// Whether everything is there for [`Self::install`]: chunks complete, the log at or beyond `exact_from`, and the digest
    /// there that of the data it was made from.
    pub fn is_exact(&self) -> bool {
        match &self.content {
            Content::Loaded(_, _, exact) => *exact,
            Content::Chunks(_, _) | Content::Refused => false,
        }
    }

    /// Makes it durable and the current generation, then removes the one before. `change` may set more in the role
    /// file in the same step. Checkpoints of the old generation must have been stopped.
    ///
    /// Fails, and leaves everything as it was, when it is not exact yet or the disk refuses.
    pub fn install(
        mut self,
        role: &mut RoleFile,
        change: impl FnOnce(&mut RoleState),
    ) -> Result<(Store, Journal), DataDirError> {
        if !self.is_exact() {
            return Err(self.out_of_order("an installation before it is exact"));
        }
        let Content::Loaded(store, ..) = self.content else {
            return Err(DataDirError::Inconsistent {
                path: self.directory.path.clone(),
                what: "the full sync is not complete".to_owned(),
            });
        };
        self.journal.sync()?;
        sync_dir(&self.directory.path)?;
        sync_dir(self.data.path())?;
        reached("incoming: durable");
        let old = self.data.generation(role.state().generation);
        let mut checkpoints = self.data.inner.checkpoints.lock();
        role.update(|state| {
            state.generation = self.number;
            state.history = store.history();
            change(state);
        })?;
        self.directory.keep = true;
        reached("incoming: current");
        checkpoints.era += 1;
        checkpoints.newest = Some(self.start.position.offset);
        checkpoints.replayed_bytes = 0;
        drop(checkpoints);
        if let Err(error) = background::remove_dir_all(&old) {
            // The next start tries again.
            tracing::warn!(directory = %old.display(), %error, "the generation before could not be removed");
        }
        reached("incoming: old generation removed");
        Ok((*store, self.journal))
    }

    fn out_of_order(&self, what: &str) -> DataDirError {
        DataDirError::Inconsistent {
            path: self.directory.path.clone(),
            what: format!("{what} of the full sync"),
        }
    }
}
