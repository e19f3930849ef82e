//! Threads that do what nobody asked for just now.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};

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

/// Drops a value by a thread of its own: memory and files of gigabytes take a system hundreds of milliseconds to give
/// back, piece by piece, and nobody is to wait for that. The thread is the process's, and dies with it.
pub fn free(value: impl Send + 'static) {
    static FREEING: OnceLock<Option<Sender<Box<dyn Send>>>> = OnceLock::new();
    let thread = FREEING.get_or_init(|| {
        let (unneeded, values) = channel::<Box<dyn Send>>();
        let thread = std::thread::Builder::new().name("freeing".to_owned());
        let thread = thread.spawn(move || {
            step_back();
            values.into_iter().for_each(drop);
        });
        thread.ok().map(|_| unneeded)
    });
    if let Some(thread) = thread {
        // What cannot be sent is dropped here and now.
        let _ = thread.send(Box::new(value));
    }
}

/// Removes a file at once; the space that it takes is given back in the background.
///
/// # Errors
///
/// What the system said.
pub fn remove_file(path: &Path) -> io::Result<()> {
    // As long as it is open, only its name goes.
    let open = File::open(path);
    fs::remove_file(path)?;
    free(open);
    Ok(())
}

/// Removes a directory of files and of directories of files at once; the space that they take is given back in the
/// background.
///
/// # Errors
///
/// What the system said.
pub fn remove_dir_all(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_dir_all(&entry.path())?;
        } else {
            remove_file(&entry.path())?;
        }
    }
    fs::remove_dir(path)
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
    fn what_is_freed_is_dropped_by_another_thread_while_its_owner_goes_on() {
        struct Slow(Receiver<()>, Sender<Option<String>>);

        impl Drop for Slow {
            fn drop(&mut self) {
                let _ = self.0.recv();
                let _ = self
                    .1
                    .send(std::thread::current().name().map(str::to_owned));
            }
        }

        let (let_it, may) = channel();
        let (dropped, drops) = channel();
        free(Slow(may, dropped));
        assert!(drops.try_recv().is_err());
        let_it.send(()).unwrap();
        assert_eq!(drops.recv().unwrap().as_deref(), Some("freeing"));
    }

    #[test]
    fn directories_go_with_all_that_is_in_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("generation");
        fs::create_dir_all(path.join("journal")).unwrap();
        for file in ["checkpoint-1", "journal/1.wal", "journal/2.wal"] {
            fs::write(path.join(file), vec![7; 100_000]).unwrap();
        }
        remove_dir_all(&path).unwrap();
        assert!(!path.exists());
        assert!(remove_dir_all(&path).is_err());
        assert!(remove_file(&path.join("checkpoint-1")).is_err());
    }

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
