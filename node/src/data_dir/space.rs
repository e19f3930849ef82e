//! Room on the file system of the data directory: what is free, what of it ought to stay free, what the log may take,
//! and a file that keeps some of it for the last needs.
//!
//! The log is given a third of the file system unless its limit is configured: two checkpoints of the data and a third
//! one in the making want the rest. The log gives up more of that, down to the newest checkpoint, before writes are refused:
//! when besides the next checkpoint less is free than twice what they need, or than 1 GiB beyond that on a large disk. The reserve is for what makes room or keeps
//! a node in its role when somebody else has taken all the rest: deletes, epochs, role files.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Below this fraction of the file system that is free, writes that grow are refused.
pub const LEAST_FREE: f64 = 0.05;
/// So much above that, in bytes, a disk is short at the latest.
const MARGIN: u64 = if cfg!(test) { 1 << 60 } else { 1 << 30 };
/// A snapshot leaves at least this fraction free: a write of the log that fails ends the process, a snapshot that fails
/// is tried again later.
const SNAPSHOT_LEAVES: f64 = 0.02;
/// What a snapshot may take of what is free, however little that is: what frees the log must not wait for room.
const SMALL_SNAPSHOT: u64 = 8;
/// The log's part of the file system.
const LOG_PART: u64 = 3;
/// The log's limit is never below this, in bytes.
const LEAST_LOG: u64 = 1 << 20;
const RESERVE: &str = "reserve";

/// What is free on a file system for this process, and how large it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreeSpace {
    /// Free bytes.
    pub bytes: u64,
    /// All bytes; 0 where the file system has no size.
    pub of: u64,
}

impl FreeSpace {
    /// The fraction, 0..=1, that is free once `bytes` more are written.
    pub fn fraction_after(&self, bytes: u64) -> f64 {
        if self.of == 0 {
            return 1.0;
        }
        self.bytes.saturating_sub(bytes) as f64 / self.of as f64
    }

    /// Bytes by which the disk is short, where writes that grow are refused below the fraction `least`, and a file of
    /// `to_come` bytes is to be written.
    pub fn missing(&self, least: f64, to_come: u64) -> u64 {
        if self.of == 0 {
            return 0;
        }
        let refused = (self.of as f64 * least) as u64;
        let wanted = refused.saturating_add(refused.min(MARGIN));
        wanted.saturating_add(to_come).saturating_sub(self.bytes)
    }

    /// Whether a snapshot that has taken `taken` bytes may take `more`.
    pub(super) fn fits_snapshot(&self, taken: u64, more: u64) -> bool {
        let small = taken.saturating_add(more) <= (self.bytes + taken) / SMALL_SNAPSHOT;
        small || self.fraction_after(more) >= SNAPSHOT_LEAVES
    }

    /// Bytes that the log may take unless its limit is configured; `None` where the file system has no size.
    pub fn log_bytes(&self) -> Option<u64> {
        (self.of > 0).then(|| (self.of / LOG_PART).max(LEAST_LOG))
    }

    /// Bytes that the reserve takes.
    pub fn reserve_bytes(&self) -> u64 {
        (self.of / 200).clamp(64 << 10, 16 << 20).min(self.of / 16)
    }
}

/// What is free on the file system that holds `path`.
pub fn free_space(path: &Path) -> io::Result<FreeSpace> {
    let stat = statvfs(path)?;
    Ok(FreeSpace {
        bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        of: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

/// About as much as a checkpoint of so many bytes of data takes.
pub fn checkpoint_estimate(store_bytes: u64) -> u64 {
    store_bytes.saturating_add(store_bytes / 8)
}

/// A file that does nothing but take room, to be given up when it is needed.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    /// Bytes that giving it up frees.
    bytes: u64,
}

impl Reserve {
    /// What an earlier process left of it in `dir`.
    pub(super) fn find(dir: &Path) -> Self {
        let path = dir.join(RESERVE);
        // In blocks of 512 bytes: a length alone keeps no room.
        let bytes = fs::metadata(&path).map_or(0, |meta| meta.blocks() * 512);
        Reserve { path, bytes }
    }

    /// Bytes that giving it up frees.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes as much as `space` allows for, once so much is free that nothing else needs it.
    ///
    /// # Errors
    ///
    /// What the system said; the reserve is then gone, until the next time.
    pub fn renew(&mut self, space: FreeSpace) -> io::Result<()> {
        let wanted = space.reserve_bytes();
        let after = wanted.saturating_sub(self.bytes);
        if self.bytes >= wanted || space.fraction_after(after) < SNAPSHOT_LEAVES {
            return Ok(());
        }
        let taken = self.take(wanted);
        if taken.is_err() {
            self.give_up();
        } else {
            self.bytes = wanted;
        }
        taken
    }

    fn take(&self, bytes: u64) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            // Not every file system can.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                let zeros = vec![0; 64 << 10];
                let mut left = bytes;
                while left > 0 {
                    let piece = left.min(zeros.len() as u64);
                    file.write_all(&zeros[..piece as usize])?;
                    left -= piece;
                }
                file.sync_all()
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives it up. Whether there was any.
    pub fn give_up(&mut self) -> bool {
        let had = self.bytes > 0;
        self.bytes = 0;
        fs::remove_file(&self.path).is_ok() && had
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_log_may_take_a_third_and_ought_to_leave_a_tenth_and_the_next_checkpoint() {
        let space = |bytes, of| FreeSpace { bytes, of };
        assert_eq!(space(0, 300 * MIB).log_bytes(), Some(100 * MIB));
        assert_eq!(space(0, MIB).log_bytes(), Some(MIB));
        assert_eq!(space(0, 0).log_bytes(), None);
        assert_eq!(space(50 * MIB, 100 * MIB).missing(0.05, 40 * MIB), 0);
        assert_eq!(space(50 * MIB, 100 * MIB).missing(0.05, 41 * MIB), MIB);
        assert_eq!(space(0, 0).missing(0.05, 41 * MIB), 0);
    }

    #[test]
    fn a_snapshot_leaves_a_fiftieth_unless_it_is_small() {
        let space = |bytes| FreeSpace {
            bytes,
            of: 100 * MIB,
        };
        assert!(space(50 * MIB).fits_snapshot(0, 48 * MIB));
        assert!(!space(50 * MIB).fits_snapshot(0, 49 * MIB));
        assert!(space(MIB).fits_snapshot(0, MIB / 8));
        assert!(!space(MIB).fits_snapshot(0, MIB / 8 + 1));
        // What it has taken itself is no longer free.
        assert!(!space(MIB * 7 / 8).fits_snapshot(MIB / 8, 1));
    }

    #[test]
    fn a_reserve_takes_room_is_found_again_and_gives_the_room_back() {
        let dir = tempfile::tempdir().unwrap();
        let space = FreeSpace {
            bytes: 100 * MIB,
            of: 200 * MIB,
        };
        let mut reserve = Reserve::find(dir.path());
        assert_eq!(reserve.bytes(), 0);
        reserve.renew(space).unwrap();
        assert_eq!(reserve.bytes(), MIB);
        assert!(Reserve::find(dir.path()).bytes() >= MIB);
        let larger = FreeSpace {
            of: 400 * MIB,
            ..space
        };
        reserve.renew(larger).unwrap();
        assert!(Reserve::find(dir.path()).bytes() >= 2 * MIB);
        assert!(reserve.give_up());
        assert!(!reserve.give_up());
        assert_eq!(Reserve::find(dir.path()).bytes(), 0);
        // Not while others need what is left.
        let little = FreeSpace {
            bytes: 4 * MIB,
            of: 200 * MIB,
        };
        reserve.renew(little).unwrap();
        assert_eq!(reserve.bytes(), 0);
    }
}
