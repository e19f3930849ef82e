//! A disk that gets short: the log gives back what is missing, and what a checkpoint or a pin needs stays.

use super::spares::spares;
use super::*;

/// A log with 200 batches of one operation each, about 10 to a segment, none of which goes for its number.
fn with_200(dir: &Path) -> Journal {
    let options = JournalOptions {
        segment_bytes: 1_100,
        log_size: 10_000,
        cache_bytes: 1,
        ..small()
    };
    let mut journal = open(dir, &options).unwrap();
    for n in 0..200u8 {
        add(&mut journal, &[n; 40]);
    }
    journal
}

fn on_disk(dir: &Path) -> u64 {
    let all = segments(dir);
    all.iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum()
}

#[test]
fn as_much_as_is_missing_is_given_back_and_no_more_than_a_segment_beyond() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = with_200(dir.path());
    let reader = journal.reader();
    let longest = |dir: &Path| {
        let all = segments(dir);
        let lengths = all.iter().map(|path| fs::metadata(path).unwrap().len());
        lengths.max().unwrap()
    };
    let before = on_disk(dir.path());
    let longest = longest(dir.path());
    journal.enforce_retention(190, 3 * longest).unwrap();
    let given = before - on_disk(dir.path());
    assert!(
        given >= 3 * longest && given <= 5 * longest,
        "{given} of {longest}"
    );
    assert!(
        spares(dir.path()).is_empty(),
        "nothing waits to be written over"
    );
    assert_eq!(reader.disk_bytes(), on_disk(dir.path()));
    let first = reader.first_offset();
    journal.enforce_retention(200, 0).unwrap();
    assert_eq!(reader.first_offset(), first);

    let found = read_all(&reader);
    drop(journal);
    let again = open(dir.path(), &small()).unwrap();
    assert_eq!(read_all(&again.reader()), found);
}

#[test]
fn what_the_checkpoint_or_a_pin_needs_stays_however_much_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = with_200(dir.path());
    let reader = journal.reader();
    let pin = reader.pin(100).unwrap();
    journal.enforce_retention(150, u64::MAX).unwrap();
    assert!((90..=100).contains(&reader.first_offset()));
    drop(pin);
    journal.enforce_retention(150, u64::MAX).unwrap();
    assert!((140..=151).contains(&reader.first_offset()));
    assert_eq!(read_all(&reader).last().unwrap().last_offset(), 200);
}

#[test]
fn a_checkpoint_of_everything_frees_the_last_segment_as_well_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = with_200(dir.path());
    while journal.size <= 512 {
        add(&mut journal, &[7; 40]);
    }
    let end = journal.end();
    journal
        .enforce_retention(end.position.offset, u64::MAX)
        .unwrap();
    assert_eq!(on_disk(dir.path()), HEADER_LEN);
    assert_eq!(journal.reader().first_offset(), end.position.offset + 1);
    assert_eq!(journal.reader().end(), end);
    let next = add_synced(&mut journal, b"goes on");
    drop(journal);
    let again = open(dir.path(), &small()).unwrap();
    assert_eq!(read_all(&again.reader()), [next]);
}

#[test]
fn a_limit_that_changes_holds_from_the_next_look_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = with_200(dir.path());
    let half = on_disk(dir.path()) / 2;
    journal.set_max_bytes(Some(half));
    journal.enforce_retention(200, 0).unwrap();
    assert!(on_disk(dir.path()) <= half);
    assert!(journal.reader().disk_bytes() <= half);
}
