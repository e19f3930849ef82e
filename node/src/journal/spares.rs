//! Segments that left the log: some wait to be written over as its next ones, the others are removed.
//!
//! To give a file of 64 MiB back takes a system some 20 ms, and about as long to find the pages and blocks of a new one.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;

use super::error::{JournalError, io_error};
use super::segment::{SPARE, Segment};
use crate::background::Remover;
use crate::step::reached;

/// More files are not kept: a checkpoint that ends makes several segments superfluous at once.
const MOST: usize = 4;
/// Nor more bytes, but for the file that is needed next.
const MOST_BYTES: u64 = 256 << 20;

/// A file that may be written over.
pub(super) struct Spare {
    pub(super) path: PathBuf,
    /// Its length in bytes.
    pub(super) len: u64,
}

/// Files that may be written over.
#[derive(Default)]
pub(super) struct Spares {
    /// Segments that are no part of the log any more but still have their names, oldest first.
    leaving: VecDeque<Segment>,
    kept: Vec<Spare>,
    remover: Remover,
}

impl Spares {
    /// Those that an earlier process left.
    pub(super) fn found(paths: Vec<PathBuf>) -> Self {
        let with_len = |path: PathBuf| {
            let len = fs::metadata(&path).ok()?.len();
            Some(Spare { path, len })
        };
        Spares {
            kept: paths.into_iter().filter_map(with_len).collect(),
            ..Spares::default()
        }
    }

    /// Takes in segments that are no part of the log any more, oldest first. What could not be done is tried again the
    /// next time, before anything that is newer.
    pub(super) fn put(&mut self, segments: Vec<Segment>) -> Result<(), JournalError> {
        self.leaving.extend(segments);
        let mut done = Ok(());
        while let Some(segment) = self.leaving.front() {
            let path = segment.path.with_extension(SPARE);
            // Oldest first, and none before the one before it: whatever is found later is without a gap.
            fs::rename(&segment.path, &path)
                .map_err(|error| io_error("renaming", &segment.path, error))?;
            reached("log: a segment is no part of the log any more");
            let in_use = segment.is_in_use();
            self.leaving.pop_front();
            match fs::metadata(&path) {
                // Who reads it has to find what it was.
                Ok(meta) if in_use => {
                    let len = meta.len();
                    done = done.and(self.remove(Spare { path, len }));
                }
                Ok(meta) => self.kept.push(Spare {
                    path,
                    len: meta.len(),
                }),
                Err(error) => done = done.and(Err(io_error("reading", &path, error))),
            }
        }
        done
    }

    /// Removes the oldest until `bytes` are enough for the rest and there are not too many, but for `needed` of them.
    pub(super) fn keep(&mut self, bytes: u64, needed: usize) -> Result<(), JournalError> {
        let bytes = bytes.min(MOST_BYTES);
        while self.kept.len() > MOST || (self.kept.len() > needed && self.bytes_kept() > bytes) {
            let oldest = self.kept.remove(0);
            self.remove(oldest)?;
        }
        Ok(())
    }

    /// One to write over.
    pub(super) fn take(&mut self) -> Option<Spare> {
        self.kept.pop()
    }

    /// Bytes that they take on the disk, those that are being removed included.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes_kept() + self.remover.bytes()
    }

    fn bytes_kept(&self) -> u64 {
        self.kept.iter().map(|spare| spare.len).sum()
    }

    fn remove(&mut self, Spare { path, len }: Spare) -> Result<(), JournalError> {
        self.remover
            .remove(&path, len)
            .map_err(|error| io_error("removing", &path, error))
    }
}
