//! Files that are written over as the next segments.

use std::os::unix::fs::MetadataExt;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::journal::segment::{END, SPARE};
use crate::journal::spares::Spare;

pub(super) fn circular() -> JournalOptions {
    JournalOptions {
        log_size: 80,
        // Everything is read from the files.
        cache_bytes: 1,
        ..small()
    }
}

pub(super) fn spares(dir: &Path) -> Vec<PathBuf> {
    let all = segments(dir).into_iter();
    all.filter(|path| path.extension().is_some_and(|e| e == SPARE))
        .collect()
}

/// A log with 200 batches of one operation each, 10 to a segment, of which none was dropped.
fn with_200(dir: &Path) -> Journal {
    let mut journal = open(dir, &circular()).unwrap();
    for n in 0..200u8 {
        add(&mut journal, &[n; 40]);
    }
    journal
}

/// The last segment.
pub(super) fn last(dir: &Path) -> PathBuf {
    let mut all = segments(dir).into_iter();
    all.rfind(|path| path.extension().is_some_and(|e| e == "wal"))
        .unwrap()
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// A log whose last segment has just been begun over an older one, the batches that it holds by now, and the bytes that
/// the older one left.
pub(super) fn begun_over(dir: &Path, len: usize) -> (Journal, Vec<Batch>, Vec<u8>) {
    let mut journal = open(dir, &circular()).unwrap();
    let mut all = Vec::new();
    loop {
        let old = spares(dir).first().map(|path| fs::read(path).unwrap());
        all.push(add(&mut journal, &vec![all.len() as u8; len]));
        let end = journal.end().position.offset;
        journal.enforce_retention(end, 0).unwrap();
        if journal.header.reused
            && let Some(old) = old
        {
            all.drain(..journal.reader().first_offset() as usize - 1);
            return (journal, all, old);
        }
    }
}

#[test]
fn segments_are_written_over_and_a_process_that_is_killed_finds_all_of_them() {
    written_over_and_killed(&circular());
    let preallocate = 1_000;
    written_over_and_killed(&JournalOptions {
        preallocate,
        ..circular()
    });
}

fn written_over_and_killed(options: &JournalOptions) {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), options).unwrap();
    let mut all = Vec::new();
    let (mut inodes, mut reused) = (std::collections::BTreeSet::new(), 0);
    for n in 1..=600usize {
        // Shorter and longer than what stood there, and batches that begin where others began.
        let len = [40, 40, 40, 7, 90][n / 50 % 5];
        all.push(add(&mut journal, &vec![n as u8; len]));
        if n % 3 == 0 {
            journal.sync().unwrap();
        }
        journal.enforce_retention(n as u64, 0).unwrap();
        let path = last(dir.path());
        if journal.size < 300 && inodes.contains(&inode(&path)) && journal.header.reused {
            reused += 1;
        }
        inodes.insert(inode(&path));
        if n % 90 == 0 {
            drop(journal);
            journal = open(dir.path(), options).unwrap();
        }
        if n % 7 == 0 {
            let killed = copy(dir.path());
            let looked = examine(killed.path(), ZERO, 0).unwrap();
            assert!(looked.torn.is_none() && looked.damage.is_empty(), "at {n}");
            let again = open(killed.path(), options).unwrap();
            let first = again.reader().first_offset();
            assert_eq!(first, journal.reader().first_offset());
            assert_eq!(read_all(&again.reader()), all[first as usize - 1..]);
            let spares = spares(killed.path()).len();
            assert!(spares <= 5, "{spares}");
        }
    }
    assert!(reused > 10, "{reused}");
    assert!(segments(dir.path()).len() <= 15);
    journal.close().unwrap();
    let left = fs::metadata(last(dir.path())).unwrap().len();
    assert_eq!(left, journal.size, "what was left of an earlier use is cut");
}

#[test]
fn a_file_is_not_written_over_while_somebody_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = with_200(dir.path());
    let reader = journal.reader();
    // In the newest one that goes: of those that are kept, the last to be taken away.
    let place = {
        let state = reader.shared.state.read();
        state.segments[state.segment_of(115).unwrap()].place_of(115)
    };
    journal.enforce_retention(200, 0).unwrap();
    assert_eq!(reader.first_offset(), 121);
    let kept = spares(dir.path());
    assert!(!kept.is_empty());
    let name = place.path.with_extension(SPARE);
    assert!(!kept.contains(&name), "{kept:?}");
}

#[test]
fn a_segment_that_was_begun_over_another_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, old) = begun_over(dir.path(), 40);
    journal.close().unwrap();
    let path = dir.path().join("some.old");
    fs::write(&path, &old).unwrap();
    let len = old.len() as u64;
    let begun = create_segment(dir.path(), journal.end(), Some(Spare { path, len })).unwrap();
    assert!(begun.header.reused && begun.len == len);
    let looked = examine(dir.path(), ZERO, 0).unwrap();
    assert!(looked.torn.is_none() && looked.damage.is_empty());
    let last = looked.segments.last().unwrap();
    assert_eq!((last.batches, last.room_bytes), (0, len - HEADER_LEN));
}

#[test]
fn what_a_checkpoint_made_superfluous_is_asked_again_once_the_log_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = with_200(dir.path());
    journal.enforce_retention(150, 0).unwrap();
    let first = journal.reader().first_offset();
    // The checkpoint at 150 holds what is given up here, and goes with it.
    journal.truncate(140).unwrap();
    for n in 0..100u8 {
        add(&mut journal, &[n; 40]);
    }
    assert_eq!(journal.reader().first_offset(), first);
    journal.enforce_retention(150, 0).unwrap();
    assert!(journal.reader().first_offset() > first);
}

#[test]
fn a_log_that_begins_anew_writes_over_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, ..) = begun_over(dir.path(), 40);
    drop(journal);
    for path in segments(dir.path()) {
        fs::rename(&path, path.with_extension(SPARE)).unwrap();
    }
    let journal = open(dir.path(), &circular()).unwrap();
    assert_eq!(journal.end(), ZERO);
    assert!(spares(dir.path()).is_empty());
}

#[test]
fn files_that_wait_are_counted_and_go_when_the_disk_gets_short() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = with_200(dir.path());
    journal.enforce_retention(200, 0).unwrap();
    let on_disk = || -> u64 {
        let all = segments(dir.path());
        all.iter()
            .map(|path| fs::metadata(path).unwrap().len())
            .sum()
    };
    assert!(spares(dir.path()).len() > 1);
    assert_eq!(journal.reader().disk_bytes(), on_disk());
    let before = on_disk();
    journal.drop_spares().unwrap();
    assert!(spares(dir.path()).is_empty());
    assert!(on_disk() < before);
    assert_eq!(journal.reader().disk_bytes(), on_disk());
    add(&mut journal, b"goes on");
}

#[test]
fn a_file_that_somebody_took_away_is_replaced_by_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = with_200(dir.path());
    journal.enforce_retention(200, 0).unwrap();
    for path in spares(dir.path()) {
        fs::remove_file(path).unwrap();
    }
    for n in 0..50u8 {
        add(&mut journal, &[n; 40]);
    }
    let found = read_all(&journal.reader());
    drop(journal);
    let again = open(dir.path(), &circular()).unwrap();
    assert_eq!(read_all(&again.reader()), found);
}

#[test]
fn what_could_not_be_renamed_goes_before_anything_newer() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = with_200(dir.path());
    // No file can take the name of a directory.
    let in_the_way = segments(dir.path())[1].with_extension(SPARE);
    fs::create_dir(&in_the_way).unwrap();
    assert!(journal.enforce_retention(150, 0).is_err());
    for n in 0..50u8 {
        add(&mut journal, &[n; 40]);
        assert!(journal.enforce_retention(240, 0).is_err());
    }
    let found = read_all(&journal.reader());
    fs::remove_dir(&in_the_way).unwrap();
    let again = copy(dir.path());
    assert!(read_all(&open(again.path(), &circular()).unwrap().reader()).ends_with(&found));
    journal.enforce_retention(240, 0).unwrap();
    drop(journal);
    let again = open(dir.path(), &circular()).unwrap();
    assert_eq!(read_all(&again.reader()), found);
}

#[test]
fn files_of_others_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, all, _) = begun_over(dir.path(), 40);
    drop(journal);
    // Set aside from a log that went further.
    let newer = dir.path().join("00000000000000000900.old");
    fs::copy(last(dir.path()), &newer).unwrap();
    let theirs = [
        newer,
        dir.path().join("mine.old"),
        dir.path().join("00000000000000000001.wal.old"),
    ];
    for path in &theirs[1..] {
        fs::write(path, b"mine").unwrap();
    }
    let before = theirs.clone().map(|path| fs::read(path).unwrap());
    let mut journal = open(dir.path(), &circular()).unwrap();
    assert_eq!(read_all(&journal.reader()), all);
    for n in 0..60u8 {
        add(&mut journal, &[n; 40]);
        journal.enforce_retention(150, 0).unwrap();
    }
    journal.drop_spares().unwrap();
    assert_eq!(theirs.map(|path| fs::read(path).unwrap()), before);
}

#[test]
fn readers_beside_files_that_are_written_over_read_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), &circular()).unwrap();
    let payload = |offset: u64| offset.to_le_bytes().repeat(5);
    let reader = journal.reader();
    let done = AtomicBool::new(false);
    let mut reused = 0;
    std::thread::scope(|scope| {
        let read = |ahead: u64| {
            let mut count = 0u64;
            while !done.load(Ordering::Relaxed) || count == 0 {
                let from = (reader.first_offset() + ahead).min(reader.end().position.offset);
                match reader.read(from.max(1), 300) {
                    Ok(batches) => {
                        for batch in &batches {
                            assert!(batch.bytes().ends_with(&payload(batch.first_offset())));
                            count += 1;
                        }
                    }
                    Err(ReadError::Gone { .. }) => {}
                    Err(error) => panic!("at {from}: {error}"),
                }
                let chain = reader.chain_at(from);
                assert!(chain.is_ok(), "at {from}: {chain:?}");
                assert!(reader.time_ms_of(from).is_none_or(|time| time == 1_000));
            }
        };
        scope.spawn(move || read(0));
        scope.spawn(move || read(40));
        for offset in 1..=3_000u64 {
            add(&mut journal, &payload(offset));
            journal.enforce_retention(offset, 0).unwrap();
            reused += usize::from(journal.header.reused);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(reused > 0);
}

/// A process that finds the directory as it is now has all of the log that this one has.
fn finds_all_when_killed(dir: &Path, journal: &Journal, all: &[Batch]) {
    let killed = copy(dir);
    let again = open(killed.path(), &circular()).unwrap();
    assert!(all.ends_with(&read_all(&again.reader())));
    assert_eq!(again.end(), journal.end());
}

#[test]
fn a_log_that_is_cut_goes_on_over_older_files() {
    for back in [1, 5, 12, 40] {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, mut all, _) = begun_over(dir.path(), 40);
        let first = all[0].first_offset();
        let mut reused = 0;
        for round in 0..3u8 {
            for n in 0..25u8 {
                all.push(add(&mut journal, &[n ^ round; 40]));
            }
            let to = journal.end().position.offset - back;
            journal.truncate(to).unwrap();
            all.truncate((to + 1 - first) as usize);
            finds_all_when_killed(dir.path(), &journal, &all);
            for n in 0..30u8 {
                all.push(add(&mut journal, &[n ^ round; 40]));
                journal
                    .enforce_retention(journal.end().position.offset, 0)
                    .unwrap();
                reused += usize::from(journal.header.reused);
                finds_all_when_killed(dir.path(), &journal, &all);
            }
        }
        assert!(reused > 0 || back > 12);
    }
}

#[test]
fn a_log_that_keeps_to_its_bytes_is_written_over_as_well() {
    const CAP: u64 = 16 << 10;
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions {
        max_bytes: Some(CAP),
        ..small()
    };
    let mut journal = open(dir.path(), &options).unwrap();
    let mut reused = 0;
    for n in 0..400u64 {
        add(&mut journal, &[n as u8; 200]);
        reused += usize::from(journal.header.reused);
        journal.enforce_retention(n, 0).unwrap();
        assert!(journal.reader().disk_bytes() <= CAP);
    }
    assert!(reused > 200, "{reused}");
}

#[test]
fn the_end_is_marked_to_the_end_of_a_page_and_makes_no_file_longer_than_the_next_frame() {
    for old in 0..100u64 {
        for to in 0..100 {
            let end = file::end_at(to, old);
            assert_eq!(end.is_empty(), to >= old);
            if end.is_empty() {
                continue;
            }
            assert!(end.starts_with(&END) && end.iter().all(|byte| *byte == 0));
            let ends = to + end.len() as u64;
            assert!(ends <= old.max(to + END.len() as u64), "{to} of {old}");
            assert!(ends.is_multiple_of(16) || ends >= old, "{to} of {old}");
        }
    }
}
