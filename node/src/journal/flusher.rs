//! Writes of the last segment to disk begin before anybody waits for them.
//!
//! Where commits do not sync, a segment would be written to disk as a whole when it is closed, and everybody would wait
//! for it. Nothing is called durable because of what happens here: the writer's own fsync says that, on a file of its own,
//! which the system tells of every failure since it was opened, whoever else was told.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// A thread that syncs files. It ends with its owner.
pub(super) struct Flusher(Option<SyncSender<PathBuf>>);

impl Flusher {
    /// Without a thread, closing a segment takes longer, and nothing else is lost.
    pub(super) fn start() -> Self {
        let (wanted, paths) = sync_channel(1);
        let thread = std::thread::Builder::new().name("flusher".to_owned());
        Flusher(thread.spawn(move || flush(&paths)).ok().map(|_| wanted))
    }

    /// Begins, unless it has not come round yet to what was asked before.
    pub(super) fn begin(&self, path: &Path) {
        if let Some(wanted) = &self.0 {
            // When it is full there is one to come, which will find these bytes as well.
            let _ = wanted.try_send(path.to_owned());
        }
    }
}

fn flush(paths: &Receiver<PathBuf>) {
    for path in paths {
        if let Ok(file) = File::open(path) {
            // The writer learns of a failure from its own fsync.
            let _ = file.sync_data();
        }
    }
}
