//! Threads that do what nobody asked for just now.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// How far they step back: about a tenth of the processor time of a thread that does not, where both want all of it.
const NICE: i32 = 10;
/// Files shorter than this are removed at once.
const SHORT: u64 = 1 << 20;
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

/// Removes files that nobody needs, long ones by its own thread, which ends with its owner: a system is busy for a while
/// giving back what a file holds.
#[derive(Default)]
pub struct Remover {
    thread: Option<Sender<(PathBuf, u64)>>,
    bytes: Arc<AtomicU64>,
}

impl Remover {
    /// Removes the file at `path`, of `len` bytes.
    ///
    /// # Errors
    ///
    /// What the system said, where the file was removed at once; what it says later is logged.
    pub fn remove(&mut self, path: &Path, len: u64) -> std::io::Result<()> {
        if len < SHORT {
            return std::fs::remove_file(path);
        }
        if self.thread.is_none() {
            let (wanted, paths) = channel();
            let bytes = self.bytes.clone();
            let thread = std::thread::Builder::new().name("remover".to_owned());
            let thread = thread.spawn(move || remove(&paths, &bytes));
            self.thread = thread.ok().map(|_| wanted);
        }
        self.bytes.fetch_add(len, Ordering::Relaxed);
        match &self.thread {
            Some(wanted) if wanted.send((path.to_owned(), len)).is_ok() => Ok(()),
            _ => {
                self.bytes.fetch_sub(len, Ordering::Relaxed);
                std::fs::remove_file(path)
            }
        }
    }

    /// Bytes of files that are not removed yet.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn remove(files: &Receiver<(PathBuf, u64)>, bytes: &AtomicU64) {
    step_back();
    for (path, len) in files {
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(file = %path.display(), %error, "a file that is not needed any more was not removed");
        }
        bytes.fetch_sub(len, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_go_in_the_background_and_are_counted_until_then() {
        let dir = tempfile::tempdir().unwrap();
        let mut remover = Remover::default();
        for len in [SHORT - 1, SHORT] {
            let path = dir.path().join("file");
            std::fs::write(&path, vec![7; len as usize]).unwrap();
            remover.remove(&path, len).unwrap();
            while remover.bytes() > 0 {
                std::thread::yield_now();
            }
            assert!(!path.exists());
        }
        assert!(remover.remove(&dir.path().join("none"), 0).is_err());
    }
}
