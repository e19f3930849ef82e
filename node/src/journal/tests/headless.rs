//! A last segment that is shorter than its header.

use super::*;

#[test]
fn a_segment_without_its_header_still_says_that_all_before_it_was_durable() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions {
        segment_bytes: 400,
        ..small()
    };
    let mut journal = open(dir.path(), &options).unwrap();
    while segments(dir.path()).len() < 3 {
        add(&mut journal, &[7; 30]);
    }
    drop(journal);
    let paths = segments(dir.path());
    fs::write(&paths[2], b"VEC").unwrap();
    let good = fs::read(&paths[1]).unwrap();
    let zeros = [&good[..good.len() - 90], &[0; 90]].concat();
    for bad in [
        &good[..good.len() - 1],
        &good[..HEADER_LEN as usize],
        &zeros,
    ] {
        fs::write(&paths[1], bad).unwrap();
        assert!(open(dir.path(), &options).is_err());
        assert!(open(dir.path(), &options).is_err(), "asked again");
    }
    fs::write(&paths[1], &good).unwrap();
    let journal = open(dir.path(), &options).unwrap();
    assert_eq!(
        file_name(journal.end()),
        paths[2].file_name().unwrap().to_str().unwrap()
    );
}
