//! Logs as a start may find them: any bytes as segments, and a real log that was damaged.
//!
//! Opening a log never panics. What it yields is whole and without a gap; of a damaged log it is what was written, from
//! the beginning; and once opened, the log opens again, to the same, and goes on.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use tempfile::TempDir;
use vectorizer_node::journal::{Journal, JournalOptions};
use vectorizer_replication::batch::Batch;
use vectorizer_replication::position::{Chain, LogEnd};

use crate::frames::seal_batch;
use crate::input::Input;

/// Bytes of a segment's header; see `node/src/journal/segment.rs`.
const HEADER_LEN: usize = 64;
/// Bytes of a sync mark.
const MARK_LEN: usize = 24;

/// The first byte says what the rest is, and whether a segment is written over an older one.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let dir = directory();
    let kind = input.u8();
    let reused = kind >= 128;
    match kind % 3 {
        0 => raw(dir.path(), input),
        1 => sealed(dir.path(), input, reused),
        _ => damaged(
            dir.path(),
            input,
            if reused { written_over() } else { real() },
        ),
    }
}

/// In memory where the system has such a place: opening a log syncs it.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir());
    made.unwrap()
}

fn options() -> JournalOptions {
    JournalOptions {
        segment_bytes: 600,
        log_size: 1_000_000,
        max_bytes: None,
        cache_bytes: 300,
        preallocate: 0,
    }
}

/// Files of any content.
fn raw(dir: &Path, mut input: Input<'_>) {
    for _ in 0..3 {
        if input.is_empty() {
            break;
        }
        let first = input.number();
        let content = input.blob();
        fs::write(dir.join(format!("{first:020}.wal")), content).unwrap();
    }
    let end = LogEnd::default();
    if let Some(batches) = open(dir, end) {
        reopen(dir, &batches);
    }
}

/// One segment of any content whose check sums are right.
fn sealed(dir: &Path, mut input: Input<'_>, reused: bool) {
    let mut bytes = vec![0; HEADER_LEN];
    bytes[0..8].copy_from_slice(b"VECWAL\0\0");
    bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
    bytes[12] = u8::from(reused);
    let (mut epoch, base) = (input.number(), input.number());
    let mut chain = input.chain();
    bytes[16..24].copy_from_slice(&epoch.to_le_bytes());
    bytes[24..32].copy_from_slice(&base.to_le_bytes());
    bytes[32..48].copy_from_slice(&chain.0.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    let mut next = base.saturating_add(1);
    let name = format!("{next:020}.wal");
    while !input.is_empty() && bytes.len() < 1 << 16 {
        match input.u8() % 8 {
            // What follows; the last one may be wrong in one way.
            0..5 => {
                epoch = epoch.saturating_add(u64::from(input.u8() % 2));
                let count = u32::from(input.u8() % 3) + 1;
                let Ok(batch) = Batch::encode(epoch, next, count, 0, chain, input.blob()) else {
                    continue;
                };
                (next, chain) = (batch.last_offset().saturating_add(1), batch.chain_after());
                bytes.extend_from_slice(batch.bytes());
            }
            5 => {
                let mut batch = vec![0; 8];
                batch.extend_from_slice(input.blob());
                seal_batch(&mut batch);
                bytes.extend_from_slice(&batch);
            }
            6 => {
                // The header's salt is 0.
                let offset = match input.u8() {
                    back @ 0..128 => next.saturating_sub(u64::from(back)),
                    _ => input.number(),
                };
                bytes.extend_from_slice(&mark(offset, 0));
            }
            _ => bytes.extend_from_slice(input.blob()),
        }
    }
    fs::write(dir.join(name), bytes).unwrap();
    if let Some(batches) = open(dir, LogEnd::default()) {
        reopen(dir, &batches);
    }
}

/// A log of real files: what is written into it, and where.
fn damaged(dir: &Path, mut input: Input<'_>, (good, batches): &(Files, Vec<Batch>)) {
    let mut files = good.clone();
    let mut gone = false;
    let mut added = false;
    while !input.is_empty() {
        if files.is_empty() {
            break;
        }
        let op = input.u8() % 6;
        let which = usize::from(input.u8()) % files.len();
        let at = usize::from(input.u16()) % (files[which].1.len() + 1);
        let content = &mut files[which].1;
        match op {
            0 => content
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte ^= input.u8() | 1),
            1 => content.truncate(at),
            2 => {
                let len = usize::from(input.u8());
                content
                    .iter_mut()
                    .skip(at)
                    .take(len)
                    .for_each(|byte| *byte = 0);
            }
            3 => {
                content.extend_from_slice(input.blob());
                added = true;
            }
            4 => {
                files.remove(which);
                gone = true;
            }
            _ => content.resize(content.len() + usize::from(input.u16()), 0),
        }
    }
    for (name, content) in &files {
        fs::write(dir.join(name), content).unwrap();
    }
    let known = durable(&files, good);
    let Some(found) = open(dir, LogEnd::default()) else {
        return;
    };
    let end = Journal::open(dir, options(), LogEnd::default())
        .unwrap()
        .end();
    assert!(
        end.position.offset >= known,
        "{known} was durable, the log ends at {end:?}"
    );
    if !added && !found.is_empty() {
        let first = found[0].first_offset();
        let skipped = batches
            .iter()
            .take_while(|b| b.first_offset() < first)
            .count();
        assert!(skipped == 0 || gone, "the log begins at {first}");
        let same = batches[skipped..].starts_with(&found);
        assert!(same, "{found:?} was never written");
    }
    reopen(dir, &found);
}

type Files = Vec<(String, Vec<u8>)>;

/// The last offset that these files say was durable: a segment begins only after the one before it is, and a mark tells
/// what was when it was written.
fn durable(files: &Files, good: &Files) -> u64 {
    let salt_of = |name: &str| {
        let file = good.iter().find(|(good, _)| good == name);
        u64::from_le_bytes(file.unwrap().1[48..56].try_into().unwrap())
    };
    let of_file = |(name, content): &(String, Vec<u8>)| {
        let base = name[..20].parse::<u64>().unwrap() - 1;
        let salt = salt_of(name);
        let marks = content.windows(MARK_LEN).filter_map(|found| {
            let offset = u64::from_le_bytes(found[8..16].try_into().unwrap());
            (found.starts_with(b"SYNC") && *found == mark(offset, salt)).then_some(offset)
        });
        marks.max().unwrap_or(0).max(base)
    };
    files.iter().map(of_file).max().unwrap_or(0)
}

/// A sync mark; see `node/src/journal/segment.rs`.
fn mark(offset: u64, salt: u64) -> [u8; MARK_LEN] {
    let mut out = [0; MARK_LEN];
    out[0..4].copy_from_slice(b"SYNC");
    out[8..16].copy_from_slice(&offset.to_le_bytes());
    let check = xxhash_rust::xxh3::xxh3_64_with_seed(&out[..16], salt);
    out[16..24].copy_from_slice(&check.to_le_bytes());
    out
}

/// A log of several segments with sync marks, and the batches in it.
fn real() -> &'static (Files, Vec<Batch>) {
    static REAL: OnceLock<(Files, Vec<Batch>)> = OnceLock::new();
    REAL.get_or_init(|| log_of(20, 1_000_000))
}

/// The same, the last segment written over an older one, of which much is left.
fn written_over() -> &'static (Files, Vec<Batch>) {
    static WRITTEN_OVER: OnceLock<(Files, Vec<Batch>)> = OnceLock::new();
    WRITTEN_OVER.get_or_init(|| {
        let log = log_of(62, 40);
        let last = &log.0.last().unwrap().1;
        assert_eq!(last[12], 1, "it is written over");
        let end = log.1.last().unwrap().bytes();
        assert!(last.windows(end.len()).any(|found| found == end) && !last.ends_with(end));
        log
    })
}

/// So many batches; of their operations, about `log_size` are kept.
fn log_of(count: u64, log_size: u64) -> (Files, Vec<Batch>) {
    let dir = directory();
    let options = JournalOptions {
        log_size,
        ..options()
    };
    let mut journal = Journal::open(dir.path(), options, LogEnd::default()).unwrap();
    let mut batches = Vec::new();
    for at in 0..count {
        let batch = follow(
            journal.end(),
            1 + at / 7,
            1 + (at % 3) as u32,
            &[at as u8; 40],
        );
        journal.append(&batch).unwrap();
        if at % 3 == 2 {
            journal.sync().unwrap();
        }
        journal.publish();
        journal.enforce_retention(batch.last_offset(), 0).unwrap();
        batches.push(batch);
    }
    let first = journal.reader().first_offset();
    batches.retain(|batch| batch.first_offset() >= first);
    drop(journal);
    let mut files: Files = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .filter(|(name, _)| name.ends_with(".wal"))
        .collect();
    files.sort();
    assert!(files.len() > 2);
    (files, batches)
}

fn follow(end: LogEnd, epoch: u64, count: u32, payload: &[u8]) -> Batch {
    let first = end.position.offset + 1;
    Batch::encode(epoch, first, count, 5, end.chain, payload).unwrap()
}

/// All batches of the log, checked; `None` when it is refused.
fn open(dir: &Path, base: LogEnd) -> Option<Vec<Batch>> {
    let journal = Journal::open(dir, options(), base).ok()?;
    Some(batches_of(&journal))
}

fn batches_of(journal: &Journal) -> Vec<Batch> {
    let log = journal.reader();
    let end = journal.end();
    let mut next = log.first_offset();
    let mut chain: Option<Chain> = None;
    let mut found = Vec::new();
    while next <= end.position.offset && end.position.offset < u64::MAX {
        let read = log.read(next, 500).unwrap();
        assert!(!read.is_empty(), "nothing at {next} of {end:?}");
        for batch in read {
            assert_eq!(
                Batch::decode(&mut batch.bytes().clone()).as_ref(),
                Ok(&batch)
            );
            assert_eq!(batch.first_offset(), next, "without a gap");
            assert!(chain.is_none_or(|chain| chain == batch.chain_before()));
            (next, chain) = (batch.last_offset() + 1, Some(batch.chain_after()));
            found.push(batch);
        }
    }
    if let Some(last) = found.last() {
        assert_eq!((last.end(), last.chain_after()), (end.position, end.chain));
    }
    found
}

/// What was opened once opens again, to the same; a batch more is there the next time.
fn reopen(dir: &Path, found: &[Batch]) {
    let base = LogEnd::default();
    let mut journal = Journal::open(dir, options(), base).unwrap();
    assert_eq!(batches_of(&journal), found);
    let end = journal.end();
    if end.position.offset >= u64::MAX - 1 {
        return;
    }
    let batch = follow(end, end.position.epoch.max(1), 1, b"more");
    journal.append(&batch).unwrap();
    journal.close().unwrap();
    drop(journal);
    let again = open(dir, base).unwrap();
    assert_eq!(again.last(), Some(&batch));
    assert_eq!(again.len(), found.len() + 1);
}
