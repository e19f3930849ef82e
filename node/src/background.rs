//! Threads that do what nobody asked for just now.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How far they step back: about a tenth of the processor time of a thread that does not, where both want all of it.
const NICE: i32 = 10;
/// Bytes after which the disk begins to write what nothing has made it write.
const FLUSH_EVERY: u64 = 8 << 20;

/// Puts the calling thread behind those that answer requests. There is no way back without a privilege, hence only for
/// threads that do nothing else; and for none that holds locks for long, as whoever waits for one steps back with it.
pub fn step_back() {
    // A system that does not allow it is one where it makes no difference.
    let _ = rustix::process::nice(NICE);
}

/// Begins writes of a file to disk before anybody waits for them: by its own thread, which ends with its owner.
///
/// Otherwise they would be done as a whole when somebody does, and everybody else's would wait behind them. Nothing is
/// called durable because of what happens here: the owner's own fsync says that, on a file of its own, which the system
/// tells of every failure since it was opened, whoever else was told.
#[derive(Default)]
pub struct Flusher {
    thread: Option<SyncSender<PathBuf>>,
    /// Bytes that the disk has not been told to write.
    unflushed: u64,
}

impl Flusher {
    /// So many bytes more were written to the file at `path`.
    pub fn written(&mut self, path: &Path, bytes: u64) {
        self.unflushed += bytes;
        if self.unflushed < FLUSH_EVERY {
            return;
        }
        self.unflushed = 0;
        if self.thread.is_none() {
            let (wanted, paths) = sync_channel(1);
            let thread = std::thread::Builder::new().name("flusher".to_owned());
            // Without it, the last fsync takes longer, and nothing else is lost.
            self.thread = thread.spawn(move || flush(&paths)).ok().map(|_| wanted);
        }
        if let Some(wanted) = &self.thread {
            // When it is full there is one to come, which will find these bytes as well.
            let _ = wanted.try_send(path.to_owned());
        }
    }

    /// Everything is on disk.
    pub fn synced(&mut self) {
        self.unflushed = 0;
    }
}

fn flush(paths: &Receiver<PathBuf>) {
    for path in paths {
        if let Ok(file) = File::open(path) {
            // The owner learns of a failure from its own fsync.
            let _ = file.sync_data();
        }
    }
}
