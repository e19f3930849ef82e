//! Opening a log that is there: every byte of it is checked.
//!
//! Only the end of the last segment can have been torn by a crash, and only where no later sync mark calls the torn
//! operation durable; it is cut at the last whole batch. Any other damage is refused: cutting there would lose
//! operations that were acknowledged.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use vectorizer_replication::batch::{Batch, BatchError};
use vectorizer_replication::position::LogEnd;

use super::error::{JournalError, discontinuity, io_error};
use super::reader::Published;
use super::segment::{
    Cursor, Frame, FrameDamage, FrameError, HEADER_LEN, Header, Segment, file_name, highest_mark,
    parse_name, parse_spare_name,
};
use super::{Created, create_segment, sync_dir};
use crate::breakage::{self, Breakage};

/// A log as it was found, cut where it was torn.
pub(super) struct Recovered {
    pub(super) published: Published,
    /// The last segment's file.
    pub(super) file: File,
    pub(super) size: u64,
    pub(super) header: Header,
    pub(super) spares: Vec<PathBuf>,
}

/// Opens the segments in `dir`; begins at `base` when there are none. Everything up to `known` is known to have been
/// durable.
pub(super) fn recover(
    dir: &Path,
    base: LogEnd,
    known: u64,
    cache_bytes: usize,
) -> Result<Recovered, JournalError> {
    fs::create_dir_all(dir).map_err(|error| io_error("creating", dir, error))?;
    let Listed {
        mut paths,
        mut leftovers,
        spares,
    } = list(dir)?;
    if breakage::on(Breakage::ResetOffsetsOnRestart) {
        leftovers.append(&mut paths);
    }
    for path in leftovers {
        fs::remove_file(&path).map_err(|error| io_error("removing", &path, error))?;
    }
    let headless = take_headless(&mut paths, base)?;
    if paths.is_empty() {
        // What they hold is older than the next segment only where the log they were of goes on.
        for path in spares {
            fs::remove_file(&path).map_err(|error| io_error("removing", &path, error))?;
        }
        if let Some(headless) = headless {
            remove_headless(dir, &headless)?;
        }
        let Created { file, header, .. } = create_segment(dir, base, None)?;
        let segment = Segment::new(dir.join(file_name(base)), base);
        segment.len.store(HEADER_LEN, Ordering::Relaxed);
        return Ok(Recovered {
            published: Published::new(VecDeque::from([segment]), base),
            file,
            size: HEADER_LEN,
            header,
            spares: Vec::new(),
        });
    }

    let mut published = Published::new(VecDeque::new(), base);
    let mut last = None;
    let count = paths.len();
    for (at, path) in paths.into_iter().enumerate() {
        let (file, header) = open_segment(&path)?;
        if at == 0 {
            published.end = header.base;
        } else {
            continues(&path, header, published.end)?;
        }
        let (byte, damage) = scan(&path, &file, header, &mut published, cache_bytes, |_| {})?;
        // Only the last one can have been torn.
        let last_known = (at + 1 == count && headless.is_none()).then_some(known);
        let end = published.end.position.offset;
        match (damage, last_known) {
            (None, _) => {
                behind_the_end(&path, &file, header, byte, (end, last_known))?;
                drop_room(&file, byte).map_err(|error| io_error("cutting", &path, error))?;
            }
            (Some(damage), None) => {
                return Err(JournalError::Corrupt {
                    path,
                    byte,
                    what: damage.to_string(),
                });
            }
            (Some(damage), Some(known)) => {
                cut_torn_tail(&path, &file, header, byte, &damage, (end, known))?;
            }
        }
        last = Some((path, file, byte, header));
    }
    let Some((path, file, size, header)) = last else {
        return Err(JournalError::Poisoned); // there was at least one path
    };
    if let Some(headless) = headless {
        headless_follows(&headless, published.end)?;
        remove_headless(dir, &headless)?;
    }
    // What a killed process left in the page cache is served as durable from here on, so it has to be.
    file.sync_all()
        .map_err(|error| io_error("syncing", &path, error))?;
    // Its name may be as new as what it holds.
    sync_dir(dir)?;
    // Of others, that they are older is not known: they are left alone.
    let first = published.first_offset();
    let older = |path: &PathBuf| parse_spare_name(path).is_some_and(|at| at < first);
    Ok(Recovered {
        published,
        file,
        size,
        header,
        spares: spares.into_iter().filter(older).collect(),
    })
}

/// What is wrong where a segment's frames end.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Damage {
    #[error(transparent)]
    Frame(FrameDamage),
    /// A whole batch of an earlier use of the file.
    #[error("a batch that does not continue the log, of an earlier use of the file")]
    Old,
    /// Nothing, where the end is: for what follows it to be looked at.
    #[error("the log ends here")]
    End,
}

/// What a log's directory holds.
pub(super) struct Listed {
    /// The segments in order.
    pub(super) paths: Vec<PathBuf>,
    /// Files that a crash left half made.
    pub(super) leftovers: Vec<PathBuf>,
    /// Files that are no part of the log any more, and wait to be written over.
    pub(super) spares: Vec<PathBuf>,
}

pub(super) fn list(dir: &Path) -> Result<Listed, JournalError> {
    let failed = |error| io_error("listing", dir, error);
    let (mut paths, mut leftovers, mut spares) = (Vec::new(), Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_spare = || parse_spare_name(&path).is_some() && path.is_file();
        if parse_name(&path).is_some() {
            paths.push(path);
        } else if path.extension().is_some_and(|e| e == "new") {
            leftovers.push(path);
        } else if is_spare() {
            spares.push(path);
        }
    }
    paths.sort();
    Ok(Listed {
        paths,
        leftovers,
        spares,
    })
}

/// Takes off a last segment that is shorter than its header: it holds no operation, and is begun anew where it began.
/// Its name says that everything before that was durable, so it stays until that was found.
pub(super) fn take_headless(
    paths: &mut Vec<PathBuf>,
    base: LogEnd,
) -> Result<Option<PathBuf>, JournalError> {
    let Some(path) = paths.last() else {
        return Ok(None);
    };
    let len = fs::metadata(path)
        .map_err(|error| io_error("reading", path, error))?
        .len();
    if len >= HEADER_LEN {
        return Ok(None);
    }
    if paths.len() == 1 && parse_name(path) != Some(base.position.offset.saturating_add(1)) {
        return Err(JournalError::Corrupt {
            path: path.clone(),
            byte: len,
            what: "the only segment ends inside its header".to_owned(),
        });
    }
    Ok(paths.pop())
}

/// Refuses such a segment when the log ends elsewhere than where it began.
pub(super) fn headless_follows(headless: &Path, end: LogEnd) -> Result<(), JournalError> {
    if headless.file_name() == Some(file_name(end).as_ref()) {
        return Ok(());
    }
    Err(JournalError::Corrupt {
        path: headless.to_owned(),
        byte: 0,
        what: format!("the one before it ends at {end:?}, and lacks what was durable"),
    })
}

fn remove_headless(dir: &Path, path: &Path) -> Result<(), JournalError> {
    tracing::warn!(
        file = %path.display(),
        "the last segment of the journal ends inside its header; it is begun anew"
    );
    fs::remove_file(path).map_err(|error| io_error("removing", path, error))?;
    sync_dir(dir)
}

fn open_segment(path: &Path) -> Result<(File, Header), JournalError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| io_error("opening", path, error))?;
    let header = read_header(&file, path)?;
    Ok((file, header))
}

/// Reads and checks a segment's header, its file name included.
pub(super) fn read_header(file: &File, path: &Path) -> Result<Header, JournalError> {
    let mut bytes = [0; HEADER_LEN as usize];
    file.read_exact_at(&mut bytes, 0)
        .map_err(|error| io_error("reading", path, error))?;
    let corrupt = |what| JournalError::Corrupt {
        path: path.to_owned(),
        byte: 0,
        what,
    };
    let header = Header::decode(&bytes).map_err(corrupt)?;
    let first = header.base.position.offset.saturating_add(1);
    if parse_name(path) != Some(first) {
        return Err(corrupt(format!(
            "the header says that offset {first} comes first, the name says otherwise"
        )));
    }
    Ok(header)
}

/// Whether a segment begins where the one before it ends.
pub(super) fn continues(path: &Path, header: Header, end: LogEnd) -> Result<(), JournalError> {
    if header.base == end {
        return Ok(());
    }
    Err(JournalError::Corrupt {
        path: path.to_owned(),
        byte: 16,
        what: format!(
            "the segment continues {:?}, the one before it ends at {end:?}",
            header.base
        ),
    })
}

/// Cuts room that was made ahead.
fn drop_room(file: &File, byte: u64) -> std::io::Result<()> {
    if file.metadata()?.len() > byte {
        file.set_len(byte)?;
    }
    Ok(())
}

/// Refuses a segment whose end at `byte`, behind offset `end`, may be none. In the last one, a later mark calls more
/// durable, or more than that is `known` to be; in the others, what is left of an earlier use was cut off.
pub(super) fn behind_the_end(
    path: &Path,
    file: &File,
    header: Header,
    byte: u64,
    (end, known): (u64, Option<u64>),
) -> Result<(), JournalError> {
    if !header.reused {
        return Ok(());
    }
    if let Some(known) = known {
        return torn_bytes(path, file, header, byte, &Damage::End, (end, known)).map(drop);
    }
    let meta = file.metadata();
    let len = meta
        .map_err(|error| io_error("reading", path, error))?
        .len();
    if len <= byte {
        return Ok(());
    }
    Err(JournalError::Corrupt {
        path: path.to_owned(),
        byte,
        what: format!("{}, and {} more bytes follow", Damage::End, len - byte),
    })
}

/// Takes in a segment's batches and shows each to `seen`. Returns where they end, and what is wrong with the frame
/// there, if there is one.
pub(super) fn scan(
    path: &Path,
    file: &File,
    header: Header,
    published: &mut Published,
    cache_bytes: usize,
    mut seen: impl FnMut(&Batch),
) -> Result<(u64, Option<Damage>), JournalError> {
    let file = file
        .try_clone()
        .map_err(|error| io_error("opening", path, error))?;
    let mut cursor = Cursor::new(file, HEADER_LEN, 1 << 20, Some(header));
    let mut segment = Segment::new(path.to_owned(), header.base);
    let (at, damage) = loop {
        let at = cursor.at();
        let corrupt = |what: String| JournalError::Corrupt {
            path: path.to_owned(),
            byte: at,
            what,
        };
        match cursor.next() {
            Ok(None) => break (at, None),
            Ok(Some(Frame::Mark(offset))) => {
                if offset > published.end.position.offset {
                    return Err(corrupt(format!(
                        "a sync mark calls offset {offset} durable, the file holds {}",
                        published.end.position.offset
                    )));
                }
            }
            Ok(Some(Frame::Batch(batch))) => {
                if let Some(wrong) = discontinuity(published.end, &batch) {
                    if header.reused {
                        break (at, Some(Damage::Old));
                    }
                    return Err(corrupt(wrong.to_string()));
                }
                segment.note(batch.first_offset(), at);
                published.end = end_of(&batch);
                seen(&batch);
                published.push_tail(batch, cache_bytes);
            }
            Err(FrameError::Io(error)) => return Err(io_error("reading", path, error)),
            Err(FrameError::Damaged(damage)) => match damage {
                FrameDamage::Batch(
                    BatchError::Incomplete { .. } | BatchError::Length(_) | BatchError::Crc { .. },
                )
                | FrameDamage::Mark => break (at, Some(Damage::Frame(damage))),
                // Its CRC32 is right: these bytes were written so.
                FrameDamage::Batch(BatchError::Field(_)) => {
                    return Err(corrupt(damage.to_string()));
                }
            },
        }
    };
    // What follows is cut off before the log goes on.
    segment.len.store(at, Ordering::Relaxed);
    published.segments.push_back(segment);
    Ok((at, damage))
}

/// Whether the last segment's damage at `byte`, behind offset `end`, is a torn write: refused when a later mark says that
/// what stood there was durable, or that is `known`. Returns how many bytes there are from there on.
pub(super) fn torn_bytes(
    path: &Path,
    file: &File,
    header: Header,
    byte: u64,
    damage: &Damage,
    (end, known): (u64, u64),
) -> Result<u64, JournalError> {
    let failed = |error| io_error("reading", path, error);
    let len = file.metadata().map_err(failed)?.len();
    let marked = highest_mark(file, byte, header.salt).map_err(failed)?;
    if marked.max(known) > end {
        let (who, durable) = match marked > end {
            true => ("a later mark says", marked),
            false => ("the role file knows", known),
        };
        return Err(JournalError::Corrupt {
            path: path.to_owned(),
            byte,
            what: format!(
                "{damage}; {who} that offset {durable} was durable, so this is no torn write: restore the file, or \
                 empty the data directory so that the node syncs from the master"
            ),
        });
    }
    Ok(len.saturating_sub(byte))
}

/// Cuts the last segment at `byte`, where its last write was torn.
fn cut_torn_tail(
    path: &Path,
    file: &File,
    header: Header,
    byte: u64,
    damage: &Damage,
    (end, known): (u64, u64),
) -> Result<(), JournalError> {
    let failed = |error| io_error("cutting", path, error);
    let cut_bytes = torn_bytes(path, file, header, byte, damage, (end, known))?;
    tracing::warn!(
        file = %path.display(),
        byte,
        cut_bytes,
        end,
        "the journal's last write was torn ({damage}); cut at the last whole batch"
    );
    file.set_len(byte).map_err(failed)?;
    file.sync_all().map_err(failed)
}

/// The log's end after a batch.
pub(super) fn end_of(batch: &Batch) -> LogEnd {
    LogEnd {
        position: batch.end(),
        chain: batch.chain_after(),
    }
}
