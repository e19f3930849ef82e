//! Room that is made ahead in the last file.

use super::*;

const ROOM: u64 = 4_096;

fn roomy() -> JournalOptions {
    JournalOptions {
        segment_bytes: 6_000,
        // Everything is read from the files.
        cache_bytes: 1,
        preallocate: ROOM,
        ..small()
    }
}

fn lengths(dir: &Path) -> Vec<u64> {
    let paths = segments(dir);
    let lengths = paths.iter().map(|path| fs::metadata(path).unwrap().len());
    lengths.collect()
}

/// Fills more than one segment.
fn fill(journal: &mut Journal) -> Vec<Batch> {
    (0..60u8).map(|n| add_synced(journal, &[n; 100])).collect()
}

#[test]
fn a_file_grows_ahead_of_what_is_written_and_is_read_as_if_it_did_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), &roomy()).unwrap();
    assert_eq!(lengths(dir.path()), [HEADER_LEN]);
    let first = add_synced(&mut journal, b"first");
    assert_eq!(lengths(dir.path()), [HEADER_LEN + ROOM]);
    let mut all = vec![first];
    all.extend(fill(&mut journal));
    assert_eq!(read_all(&journal.reader()), all);
    let at = all[30].last_offset();
    assert_eq!(
        journal.reader().chain_at(at).unwrap(),
        Some(all[30].chain_after())
    );
    assert_eq!(journal.reader().chain_at(at + 1_000).unwrap(), None);
}

#[test]
fn room_is_given_back_when_the_next_segment_begins_and_when_the_log_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), &roomy()).unwrap();
    let all = fill(&mut journal);
    let before = lengths(dir.path());
    assert!(before.len() > 1);
    journal.close().unwrap();
    let after = lengths(dir.path());
    assert!(after.last() < before.last(), "{before:?} {after:?}");
    for path in segments(dir.path()) {
        let bytes = fs::read(path).unwrap();
        assert!(!bytes.ends_with(&[0; 24]), "room was left");
    }
    drop(journal);
    let journal = open(dir.path(), &roomy()).unwrap();
    assert_eq!(read_all(&journal.reader()), all);
}

#[test]
fn after_a_crash_the_log_ends_where_the_room_begins_and_goes_on_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), &roomy()).unwrap();
    let mut all = fill(&mut journal);
    drop(journal);
    let with_room = lengths(dir.path());
    for _ in 0..3 {
        let mut journal = open(dir.path(), &roomy()).unwrap();
        assert_eq!(read_all(&journal.reader()), all);
        assert!(lengths(dir.path()).last() < with_room.last());
        all.push(add_synced(&mut journal, b"goes on"));
    }
    // What is behind the room is no room.
    let path = segments(dir.path()).pop().unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let end = file.metadata().unwrap().len();
    file.write_all_at(b"torn", end).unwrap();
    let journal = open(dir.path(), &roomy()).unwrap();
    assert_eq!(read_all(&journal.reader()), all);
}

#[test]
fn a_tail_that_is_cut_takes_the_room_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), &roomy()).unwrap();
    let mut all = fill(&mut journal);
    let removed = journal.batches_after(all[50].last_offset()).unwrap();
    journal.truncate(all[50].last_offset()).unwrap();
    assert_eq!(removed, all.split_off(51));
    all.push(add_synced(&mut journal, b"another"));
    drop(journal);
    let journal = open(dir.path(), &roomy()).unwrap();
    assert_eq!(read_all(&journal.reader()), all);
}
