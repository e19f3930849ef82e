//! Looking at a log without changing it: the checks of a start, with a report in place of each repair.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::RwLock;
use serde::Serialize;
use tokio::sync::watch;
use vectorizer_replication::position::LogEnd;

use super::error::{JournalError, io_error};
use super::reader::{LogReader, Published, Shared, sync_seconds};
use super::recover::{
    Listed, behind_the_end, continues, headless_follows, list, read_header, scan, take_headless,
    torn_bytes,
};

/// One file of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SegmentReport {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Bytes at its end that are room for what comes next: zeros, or what is left of an earlier use.
    pub room_bytes: u64,
    /// Whole batches in it, up to the first that is damaged.
    pub batches: u64,
    /// Offset of its first operation, whether there is one yet or not.
    pub first_offset: u64,
    /// Offset of its last operation; one before the first when there is none.
    pub last_offset: u64,
    /// Epochs of its operations, ascending.
    pub epochs: Vec<u64>,
}

/// A last write that was torn by a crash: the next start cuts it, and nothing that was durable is lost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TornTail {
    /// The file.
    pub path: PathBuf,
    /// Where the torn write begins.
    pub byte: u64,
    /// Bytes from there to the end of the file.
    pub bytes: u64,
    /// How it shows.
    pub what: String,
}

/// A log as it was found.
pub struct Examined {
    /// Its files that have a readable header, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Its torn end, if there is one.
    pub torn: Option<TornTail>,
    /// Files that a crash left half made; the next start removes them.
    pub leftovers: Vec<PathBuf>,
    /// What a start would refuse.
    pub damage: Vec<JournalError>,
    /// Reads it up to the first damage.
    pub log: LogReader,
}

/// Checks every byte of the log in `dir` and writes none. `base` is where a log without files begins, and everything up
/// to `known` is known to have been durable.
///
/// Fails only when the directory cannot be listed; everything else is reported.
pub fn examine(dir: &Path, base: LogEnd, known: u64) -> Result<Examined, JournalError> {
    let Listed {
        mut paths,
        leftovers,
        spares: _,
    } = list(dir)?;
    let mut torn = None;
    let mut damage = Vec::new();
    let headless = match take_headless(&mut paths, base) {
        Ok(headless) => headless,
        Err(error) => {
            paths.pop();
            damage.push(error);
            None
        }
    };
    let mut segments = Vec::new();
    let mut whole = Published::new(VecDeque::new(), base);
    let count = paths.len();
    for (at, path) in paths.into_iter().enumerate() {
        // Behind damage, nobody knows where the log would have been.
        let expected = (at > 0 && damage.is_empty()).then_some(whole.end);
        let is_last = at + 1 == count && headless.is_none();
        match look_at(&path, expected, is_last.then_some(known)) {
            Err(error) => damage.push(error),
            Ok(look) => {
                if damage.is_empty() && look.fits && !look.published.segments.is_empty() {
                    whole.segments.extend(look.published.segments);
                    whole.end = look.published.end;
                }
                damage.extend(look.damage);
                torn = torn.or(look.torn);
                segments.push(look.report);
            }
        }
    }
    if let Some(path) = headless {
        match headless_follows(&path, whole.end) {
            Err(error) => damage.push(error),
            Ok(()) => {
                let length = std::fs::metadata(&path);
                torn = Some(TornTail {
                    byte: 0,
                    bytes: length
                        .map_err(|error| io_error("reading", &path, error))?
                        .len(),
                    what: "it ends inside its header".to_owned(),
                    path,
                });
            }
        }
    }
    Ok(Examined {
        segments,
        torn,
        leftovers,
        damage,
        log: reader_of(whole),
    })
}

struct Look {
    report: SegmentReport,
    published: Published,
    /// Whether it goes on where the one before it ends.
    fits: bool,
    torn: Option<TornTail>,
    damage: Vec<JournalError>,
}

/// Looks at one segment; the last one's end may be torn behind the offset that is known to have been durable.
fn look_at(path: &Path, expected: Option<LogEnd>, last: Option<u64>) -> Result<Look, JournalError> {
    let file = File::open(path).map_err(|error| io_error("opening", path, error))?;
    let header = read_header(&file, path)?;
    let meta = file.metadata();
    let bytes = meta
        .map_err(|error| io_error("reading", path, error))?
        .len();
    let gap = expected.and_then(|end| continues(path, header, end).err());
    let mut published = Published::new(VecDeque::new(), header.base);
    let mut report = SegmentReport {
        path: path.to_owned(),
        bytes,
        room_bytes: 0,
        batches: 0,
        first_offset: header.base.position.offset.saturating_add(1),
        last_offset: header.base.position.offset,
        epochs: Vec::new(),
    };
    // Nothing is kept in memory: a log may be larger than that.
    let scanned = scan(path, &file, header, &mut published, 0, |batch| {
        report.batches += 1;
        report.last_offset = batch.last_offset();
        if report.epochs.last() != Some(&batch.epoch()) {
            report.epochs.push(batch.epoch());
        }
    });
    let mut look = Look {
        report,
        fits: gap.is_none(),
        torn: None,
        damage: gap.into_iter().collect(),
        published,
    };
    let (byte, wrong) = match scanned {
        Ok(scanned) => scanned,
        Err(error) => {
            look.damage.push(error);
            return Ok(look);
        }
    };
    let path = path.to_owned();
    let end = look.published.end.position.offset;
    match (wrong, last) {
        (None, _) => {
            look.report.room_bytes = bytes.saturating_sub(byte);
            look.damage
                .extend(behind_the_end(&path, &file, header, byte, (end, last)).err());
        }
        (Some(wrong), None) => look.damage.push(JournalError::Corrupt {
            path,
            byte,
            what: wrong.to_string(),
        }),
        (Some(wrong), Some(known)) => {
            match torn_bytes(&path, &file, header, byte, &wrong, (end, known)) {
                Ok(bytes) => {
                    look.torn = Some(TornTail {
                        path,
                        byte,
                        bytes,
                        what: wrong.to_string(),
                    });
                }
                Err(error) => look.damage.push(error),
            }
        }
    }
    Ok(look)
}

fn reader_of(published: Published) -> LogReader {
    let end = published.end;
    LogReader {
        shared: Arc::new(Shared {
            state: RwLock::new(published),
            end: watch::Sender::new(end),
            durable: AtomicU64::new(end.position.offset),
            appended_bytes: AtomicU64::new(0),
            spare_bytes: AtomicU64::new(0),
            sync_seconds: sync_seconds(),
        }),
    }
}
