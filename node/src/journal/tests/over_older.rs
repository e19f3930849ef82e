//! Crashes in a segment that is written over an older one.

use std::cell::RefCell;
use std::rc::Rc;

use super::spares::{begun_over, circular, last};
use super::*;
use crate::journal::segment::END;
use crate::step::watched;

#[test]
fn a_write_torn_over_older_bytes_is_cut_at_any_byte() {
    for len in [40, 41] {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, mut all, old) = begun_over(dir.path(), len);
        for n in 0..3u8 {
            all.push(add(&mut journal, &[n; 40]));
        }
        let new = fs::read(last(dir.path())).unwrap();
        assert!(new.len() as u64 > journal.size, "older bytes follow");
        for cut in HEADER_LEN as usize..journal.size as usize + 4 {
            let lost = copy(dir.path());
            let path = last(lost.path());
            let mut bytes = new.clone();
            let to = old.len().min(bytes.len());
            bytes[cut..to].copy_from_slice(&old[cut..to]);
            fs::write(&path, &bytes).unwrap();
            let mut again =
                open(lost.path(), &circular()).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
            let found = read_all(&again.reader());
            assert_eq!(found, all[..found.len()], "cut at {cut}: a prefix");
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(found.len(), whole_before(&new[..cut], &all, name));
            let more = next(again.end(), 9, 1, b"goes on");
            again.append(&more).unwrap();
            again.publish();
            drop(again);
            let again = open(lost.path(), &circular()).unwrap();
            assert_eq!(read_all(&again.reader()).last(), Some(&more));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whichever_sectors_reached_the_disk_a_prefix_comes_back(
        lens in prop::collection::vec(prop_oneof![Just(40usize), 1..300usize], 1..8),
        lost in prop::collection::vec(any::<bool>(), 64),
        synced in 0..8usize,
    ) {
        const SECTOR: usize = 64;
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, mut all, mut old) = begun_over(dir.path(), 40);
        for (n, len) in lens.iter().enumerate() {
            all.push(add(&mut journal, &vec![n as u8; *len]));
            if n == synced {
                journal.sync().unwrap();
                old = fs::read(last(dir.path())).unwrap();
            }
        }
        let durable = journal.durable();
        drop(journal);
        let path = last(dir.path());
        let mut bytes = fs::read(&path).unwrap();
        // The header was durable before the segment got its name.
        for (n, sector) in bytes.chunks_mut(SECTOR).enumerate().skip(HEADER_LEN as usize / SECTOR) {
            let old = old.get(n * SECTOR..).unwrap_or(&[]);
            if lost[n % lost.len()] {
                let len = sector.len().min(old.len());
                sector[..len].copy_from_slice(&old[..len]);
                sector[len..].fill(0);
            }
        }
        fs::write(&path, &bytes).unwrap();
        let again = open(dir.path(), &circular()).unwrap();
        let found = read_all(&again.reader());
        prop_assert_eq!(&found[..], &all[..found.len()]);
        prop_assert!(again.end().position.offset >= durable);
    }
}

#[test]
fn an_end_before_what_was_durable_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _, _) = begun_over(dir.path(), 40);
    let at = journal.size as usize;
    for n in 0..3u8 {
        add_synced(&mut journal, &[n; 40]);
    }
    let size = journal.size as usize;
    drop(journal);
    let path = last(dir.path());
    let good = fs::read(&path).unwrap();
    assert!(good.len() > size, "older bytes follow");
    let mut bad = good.clone();
    bad[at..at + END.len()].fill(0);
    fs::write(&path, &bad).unwrap();
    let refused = open(dir.path(), &circular()).err().unwrap().to_string();
    assert!(
        refused.contains("the log ends here; a later mark"),
        "{refused}"
    );
    assert_eq!(examine(dir.path(), ZERO, 0).unwrap().damage.len(), 1);
    assert_eq!(fs::read(&path).unwrap(), bad, "a refusal changes nothing");
    // What comes after the last mark may be torn.
    for byte in at..size - add_len(40) {
        let mut bad = good.clone();
        bad[byte] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        assert!(open(dir.path(), &circular()).is_err(), "byte {byte}");
    }
}

/// Bytes of a batch with such a payload, and of the mark before it.
fn add_len(payload: usize) -> usize {
    next(ZERO, 1, 1, &vec![0; payload]).bytes().len() + MARK_LEN
}

/// A directory as the disk has it: names, and the files that they stand for.
fn listed(dir: &Path) -> Vec<(std::ffi::OsString, File)> {
    let all = segments(dir).into_iter();
    let opened = |path: PathBuf| {
        let file = File::open(&path).unwrap();
        (path.file_name().unwrap().to_owned(), file)
    };
    all.map(opened).collect()
}

#[test]
fn power_lost_at_any_step_finds_all_that_was_durable_whatever_the_directory_was() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions {
        log_size: 16,
        ..circular()
    };
    let mut journal = open(dir.path(), &options).unwrap();
    let mut all = Vec::new();
    let checked = Rc::new(RefCell::new(0));
    for n in 1..=60u8 {
        let batch = next(journal.end(), 1, 1, &[n; 40]);
        let durable = journal.durable() as usize;
        let (count, known) = (checked.clone(), all.clone());
        let (path, again) = (dir.path().to_owned(), options.clone());
        // Every byte that was written is on the disk, but of the directory only what was synced.
        let mut names = listed(dir.path());
        let watch = move |step: &'static str| {
            let lost = tempfile::tempdir().unwrap();
            for (name, file) in &names {
                let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
                std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0).unwrap();
                fs::write(lost.path().join(name), bytes).unwrap();
            }
            let found = open(lost.path(), &again).unwrap_or_else(|e| panic!("{n}, {step}: {e}"));
            let first = found.reader().first_offset() as usize;
            let there = read_all(&found.reader());
            assert!(known[first - 1..].starts_with(&there), "{n}, {step}");
            assert!(there.len() >= durable + 1 - first, "{n}, {step}");
            if step == "log: the log's directory is durable" {
                names = listed(&path);
            }
            *count.borrow_mut() += 1;
        };
        watched(watch, || journal.append(&batch).unwrap());
        journal.publish();
        journal.sync().unwrap();
        all.push(batch);
        journal.checkpoint = n.into();
    }
    assert!(journal.header.reused);
    assert!(*checked.borrow() > 50);
}

#[test]
fn an_end_in_an_older_segment_is_refused_and_so_is_one_below_what_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, ..) = begun_over(dir.path(), 40);
    let at = journal.size as usize;
    let path = last(dir.path());
    for n in 0..3u8 {
        add(&mut journal, &[n; 40]);
    }
    let zeroed = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at..at + END.len()].fill(0);
        fs::write(path, &bytes).unwrap();
        bytes
    };
    let end = journal.end().position.offset;
    let known = copy(dir.path());
    let bad = zeroed(&last(known.path()));
    assert!(Journal::open_knowing(known.path(), circular(), ZERO, end).is_err());
    assert_eq!(examine(known.path(), ZERO, end).unwrap().damage.len(), 1);
    assert_eq!(fs::read(last(known.path())).unwrap(), bad);

    while last(dir.path()) == path {
        add(&mut journal, &[7; 40]);
    }
    drop(journal);
    for headless in [false, true] {
        let older = copy(dir.path());
        let path = older.path().join(path.file_name().unwrap());
        if headless {
            fs::write(last(older.path()), b"VEC").unwrap();
        }
        let bad = zeroed(&path);
        assert!(open(older.path(), &circular()).is_err());
        assert!(!examine(older.path(), ZERO, 0).unwrap().damage.is_empty());
        assert_eq!(fs::read(&path).unwrap(), bad, "a refusal changes nothing");
    }
}
