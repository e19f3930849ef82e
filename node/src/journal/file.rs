//! The files of segments: beginning one, and writing to it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::path::Path;

use vectorizer_replication::position::LogEnd;

use super::error::{JournalError, io_error};
use super::segment::{END, HEADER_LEN, Header, file_name};
use super::spares::Spare;
use crate::step::reached;

/// A segment that was begun.
pub(super) struct Created {
    pub(super) file: File,
    pub(super) header: Header,
    /// Of the file.
    pub(super) len: u64,
}

/// Makes an empty segment, in place of `spare` if there is one: complete and durable before it gets its name.
pub(super) fn create_segment(
    dir: &Path,
    base: LogEnd,
    spare: Option<Spare>,
) -> Result<Created, JournalError> {
    let path = dir.join(file_name(base));
    let new = path.with_extension("new");
    // Whoever took it away from here is no reason to stop.
    let len = spare.and_then(|spare| fs::rename(&spare.path, &new).ok().map(|()| spare.len));
    reached("log: the file of the next segment has no name of the log");
    if len.is_some() {
        // Before anything is written over it: after a crash it could be found under the name that it had in the log.
        sync_dir(dir)?;
    }
    let header = Header {
        base,
        salt: uuid::Uuid::new_v4().as_u64_pair().0,
        reused: len.is_some(),
    };
    let create = || -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(!header.reused)
            .open(&new)?;
        let end = end_at(HEADER_LEN, len.unwrap_or(0));
        write_all_at(&file, [&header.encode(), end, &[]], 0)?;
        reached("log: it has its header");
        file.sync_all()?;
        fs::rename(&new, &path)?;
        reached("log: it has its name");
        Ok(file)
    };
    let file = create().map_err(|error| io_error("creating", &path, error))?;
    sync_dir(dir)?;
    Ok(Created {
        file,
        header,
        len: len.unwrap_or(HEADER_LEN),
    })
}

/// What is written behind the last frame, which ends at byte `to`, where bytes of an earlier use follow up to byte `old`:
/// zeros to the end of the page. Of a page that is not in memory any more, the system would otherwise have to read the
/// rest first.
pub(super) fn end_at(to: u64, old: u64) -> &'static [u8] {
    /// Small in tests, whose files are.
    const PAGE: usize = if cfg!(test) { 16 } else { 4 << 10 };
    static ZEROS: [u8; PAGE + END.len()] = [0; PAGE + END.len()];
    if to >= old {
        return &[];
    }
    let in_page = to as usize % PAGE;
    let len = (in_page + END.len()).next_multiple_of(PAGE) - in_page;
    // The file gets no longer but by what the next frame covers.
    let left = (old - to).min(PAGE as u64 * 2) as usize;
    &ZEROS[..len.min(left).max(END.len())]
}

/// Writes three pieces from byte `at` on, in one call where the system allows it.
pub(super) fn write_all_at(file: &File, pieces: [&[u8]; 3], mut at: u64) -> io::Result<()> {
    let mut slices = pieces.map(IoSlice::new);
    let mut left = &mut slices[..];
    IoSlice::advance_slices(&mut left, 0); // drops empty pieces at the front
    while !left.is_empty() {
        match rustix::io::pwritev(file, left, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                at += n as u64;
                IoSlice::advance_slices(&mut left, n);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(super) fn sync_dir(dir: &Path) -> Result<(), JournalError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| io_error("syncing", dir, error))?;
    reached("log: the log's directory is durable");
    Ok(())
}
