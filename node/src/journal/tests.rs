mod headless;
mod over_older;
mod room;
mod short;
mod spares;

use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use tempfile::TempDir;
use vectorizer_replication::position::{Chain, Position};

use super::*;

const ZERO: LogEnd = LogEnd {
    position: Position::ZERO,
    chain: Chain(0),
};

fn small() -> JournalOptions {
    JournalOptions {
        segment_bytes: 1 << 20,
        log_size: 1_000_000,
        max_bytes: None,
        cache_bytes: 1 << 20,
        preallocate: 0,
    }
}

fn open(dir: &Path, options: &JournalOptions) -> Result<Journal, JournalError> {
    Journal::open(dir, options.clone(), ZERO)
}

/// A batch that continues `end`.
fn next(end: LogEnd, epoch: u64, count: u32, payload: &[u8]) -> Batch {
    let first = end.position.offset + 1;
    Batch::encode(epoch, first, count, 1_000, end.chain, payload).unwrap()
}

/// Appends a batch of one operation and publishes it.
fn add(journal: &mut Journal, payload: &[u8]) -> Batch {
    let batch = next(journal.end(), 1, 1, payload);
    journal.append(&batch).unwrap();
    journal.publish();
    batch
}

fn add_synced(journal: &mut Journal, payload: &[u8]) -> Batch {
    let batch = add(journal, payload);
    journal.sync().unwrap();
    batch
}

fn read_all(reader: &LogReader) -> Vec<Batch> {
    let mut out = Vec::new();
    let mut from = reader.first_offset();
    loop {
        let batches = reader.read(from, 300).unwrap();
        let Some(last) = batches.last() else {
            return out;
        };
        from = last.last_offset() + 1;
        out.extend(batches);
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    paths
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for path in segments(from) {
        fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

#[test]
fn what_was_appended_is_there_after_a_restart_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), &small()).unwrap();
    let mut all = Vec::new();
    for n in 0..20u8 {
        all.push(add(&mut journal, &[n; 50]));
    }
    journal.sync().unwrap();
    let end = journal.end();
    drop(journal);
    let mut journal = open(dir.path(), &small()).unwrap();
    assert_eq!(journal.end(), end);
    assert_eq!(journal.durable(), 20);
    assert_eq!(read_all(&journal.reader()), all);
    all.push(add(&mut journal, b"more"));
    assert_eq!(read_all(&journal.reader()), all);
}

#[test]
fn readers_see_nothing_before_it_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), &small()).unwrap();
    let reader = journal.reader();
    let mut seen = reader.subscribe();
    let batch = next(ZERO, 1, 3, b"abc");
    journal.append(&batch).unwrap();
    assert_eq!(reader.end(), ZERO);
    assert!(reader.read(1, 100).unwrap().is_empty());
    assert!(!seen.has_changed().unwrap());
    journal.publish();
    assert_eq!(reader.end().position, Position::new(1, 3));
    assert!(seen.has_changed().unwrap());
    assert_eq!(*seen.borrow_and_update(), reader.end());
    assert_eq!(reader.read(1, 100).unwrap(), [batch]);
    assert_eq!(reader.durable(), 0);
    journal.sync().unwrap();
    assert_eq!(reader.durable(), 3);
}

#[test]
fn a_batch_that_does_not_continue_the_log_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), &small()).unwrap();
    journal.append(&next(ZERO, 3, 2, b"x")).unwrap();
    let end = journal.end();
    let gap = Batch::encode(3, 4, 1, 0, end.chain, b"x").unwrap();
    let overlap = Batch::encode(3, 2, 1, 0, end.chain, b"x").unwrap();
    let other_chain = Batch::encode(3, 3, 1, 0, Chain(1), b"x").unwrap();
    let lower_epoch = Batch::encode(2, 3, 1, 0, end.chain, b"x").unwrap();
    for (batch, field) in [
        (gap, "first offset"),
        (overlap, "first offset"),
        (other_chain, "chain"),
        (lower_epoch, "epoch"),
    ] {
        let refused = journal.append(&batch).unwrap_err().to_string();
        assert!(refused.contains(field), "{refused}");
    }
    assert_eq!(journal.end(), end);
    journal.append(&next(end, 4, 1, b"y")).unwrap();
}

#[test]
fn reading_crosses_segments_and_leaves_memory_for_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions {
        segment_bytes: 1_000,
        cache_bytes: 600,
        ..small()
    };
    let mut journal = open(dir.path(), &options).unwrap();
    let all: Vec<_> = (0..60u8)
        .map(|n| add_synced(&mut journal, &[n; 40]))
        .collect();
    assert!(segments(dir.path()).len() > 4);
    let reader = journal.reader();
    assert!(!reader.is_cached(1));
    assert!(reader.is_cached(60) && reader.is_cached(61));
    assert_eq!(read_all(&reader), all);
    for from in 1..=60u64 {
        let read = reader.read(from, 0).unwrap();
        assert_eq!(
            read,
            &all[from as usize - 1..from as usize],
            "one batch even where it is too large"
        );
        let read = reader.read(from, 1 << 20).unwrap();
        assert_eq!(read, &all[from as usize - 1..]);
        let chain = reader.chain_at(from).unwrap();
        assert_eq!(chain, Some(all[from as usize - 1].chain_after()));
        assert_eq!(reader.time_ms_of(from), Some(1_000));
    }
    assert_eq!(reader.chain_at(0).unwrap(), Some(Chain(0)));
    assert_eq!(reader.chain_at(61).unwrap(), None);
    assert_eq!((reader.time_ms_of(0), reader.time_ms_of(61)), (None, None));
    assert!(matches!(
        reader.read(62, 1),
        Err(ReadError::NotABoundary(62))
    ));
}

#[test]
fn only_the_first_offset_of_a_batch_can_be_read_from() {
    let dir = tempfile::tempdir().unwrap();
    for cache_bytes in [0, 1 << 20] {
        let dir = dir.path().join(cache_bytes.to_string());
        let options = JournalOptions {
            cache_bytes,
            ..small()
        };
        let mut journal = open(&dir, &options).unwrap();
        for _ in 0..3 {
            let batch = next(journal.end(), 1, 10, b"ten");
            journal.append(&batch).unwrap();
        }
        journal.publish();
        let reader = journal.reader();
        for from in 1..=30 {
            assert_eq!(reader.read(from, 1).is_ok(), from % 10 == 1, "{from}");
            let boundary = reader.chain_at(from).unwrap().is_some();
            assert_eq!(boundary, from % 10 == 0, "{from}");
        }
    }
}

#[test]
fn the_log_is_circular_by_operations_and_keeps_what_a_checkpoint_or_a_pin_needs() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions {
        log_size: 100,
        ..small()
    };
    let mut journal = open(dir.path(), &options).unwrap();
    let reader = journal.reader();
    for n in 1..=1_000u64 {
        add(&mut journal, b"op");
        journal.enforce_retention(n, 0).unwrap();
        let kept = n + 1 - reader.first_offset();
        assert!(kept >= n.min(100) && kept <= 125, "{kept} kept at {n}");
    }
    assert!(matches!(reader.read(1, 1), Err(ReadError::Gone { first }) if first > 800));
    assert!(reader.pin(1).is_none());
    assert!(segments(dir.path()).len() <= 11);

    let pin = reader.pin(950).unwrap();
    for _ in 0..300 {
        add(&mut journal, b"op");
        journal.enforce_retention(1_300, 0).unwrap();
    }
    assert!(reader.first_offset() <= 950);
    assert!(reader.read(950, 1).is_ok());
    drop(pin);
    journal.enforce_retention(1_000, 0).unwrap();
    let first = reader.first_offset();
    assert!(
        (950..=1_001).contains(&first),
        "the checkpoint holds it: {first}"
    );
    journal.enforce_retention(1_300, 0).unwrap();
    assert!(reader.first_offset() > 1_100);

    let first = reader.first_offset();
    drop(journal);
    let journal = open(dir.path(), &options).unwrap();
    assert_eq!(journal.reader().first_offset(), first);
    assert_eq!(journal.end().position.offset, 1_300);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_log_keeps_to_its_bytes_and_to_what_a_checkpoint_or_a_pin_needs(
        sizes in prop::collection::vec(1..2_000usize, 50..200),
        lag in 0..40u64,
        pin_at in 0..200u64,
    ) {
        const CAP: u64 = 16 << 10;
        let dir = tempfile::tempdir().unwrap();
        let options = JournalOptions { log_size: 100, max_bytes: Some(CAP), ..small() };
        let mut journal = open(dir.path(), &options).unwrap();
        let reader = journal.reader();
        let on_disk = || -> Vec<u64> {
            let all = segments(dir.path());
            all.iter().map(|path| fs::metadata(path).unwrap().len()).collect()
        };
        let mut pin = None;
        for (n, size) in (1u64..).zip(&sizes) {
            add(&mut journal, &vec![7; *size]);
            if n == pin_at {
                pin = reader.pin(n);
            }
            let checkpoint = n.saturating_sub(lag);
            journal.enforce_retention(checkpoint, 0).unwrap();
            let first = reader.first_offset();
            let needed = if pin.is_some() { checkpoint.min(pin_at - 1) } else { checkpoint };
            prop_assert!(first <= needed + 1, "{first}, of which {needed} goes");
            let longest = CAP / 8 + 2_000 + 200;
            prop_assert!(on_disk().iter().all(|bytes| *bytes <= longest), "a file is too long");
            // A file goes as a whole.
            let second = reader.shared.state.read().segments.get(1).map(|s| s.base);
            let could = second.is_some_and(|base| base.position.offset <= needed);
            let all: u64 = on_disk().iter().sum();
            prop_assert!(all <= CAP || !could, "{all} bytes from {first} to {n}");
            prop_assert!(n - first < 125 || !could, "from {first} to {n}");
        }
        let first = reader.first_offset();
        drop(journal);
        prop_assert_eq!(open(dir.path(), &options).unwrap().reader().first_offset(), first);
    }
}

#[test]
fn truncation_removes_what_is_behind_it_and_survives_a_restart() {
    for options in [
        small(),
        JournalOptions {
            segment_bytes: 500,
            cache_bytes: 300,
            ..small()
        },
    ] {
        for to in [0u64, 1, 7, 19, 20] {
            let dir = tempfile::tempdir().unwrap();
            let mut journal = open(dir.path(), &options).unwrap();
            let mut all: Vec<_> = (0..20u8)
                .map(|n| add_synced(&mut journal, &[n; 60]))
                .collect();
            let reader = journal.reader();
            let removed = journal.batches_after(to).unwrap();
            journal.truncate(to).unwrap();
            assert_eq!(removed, all[to as usize..]);
            all.truncate(to as usize);
            assert_eq!(journal.end().position.offset, to);
            assert_eq!(reader.end(), journal.end());
            assert_eq!(journal.durable(), to);
            for n in 0..5u8 {
                let batch = next(journal.end(), 2, 1, &[n; 70]);
                journal.append(&batch).unwrap();
                journal.publish();
                journal.sync().unwrap();
                all.push(batch);
            }
            assert_eq!(read_all(&reader), all);
            drop(journal);
            let journal = open(dir.path(), &options).unwrap();
            assert_eq!(read_all(&journal.reader()), all, "to {to}");
        }
    }
}

#[test]
fn what_is_cut_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions {
        segment_bytes: 1_000,
        cache_bytes: 300,
        ..small()
    };
    let mut journal = open(dir.path(), &options).unwrap();
    for n in 0..60u8 {
        add_synced(&mut journal, &[n; 60]);
    }
    drop(journal);
    let mut journal = open(dir.path(), &options).unwrap();
    let files = segments(dir.path());
    assert!(files.len() > 2);
    // All but the first were read when it was opened, and are spoilt since.
    for file in &files[1..] {
        let mut bytes = fs::read(file).unwrap();
        bytes[64..].fill(0xff);
        fs::write(file, bytes).unwrap();
    }
    assert!(journal.reader().read(30, 1).is_err());
    journal.truncate(3).unwrap();
    assert_eq!(journal.end().position.offset, 3);
    assert_eq!(read_all(&journal.reader()).len(), 3);
}

#[test]
fn truncation_inside_a_batch_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), &small()).unwrap();
    journal.append(&next(ZERO, 1, 10, b"ten")).unwrap();
    assert!(matches!(
        journal.truncate(5),
        Err(JournalError::NotABoundary { offset: 5, .. })
    ));
    assert!(matches!(
        journal.truncate(11),
        Err(JournalError::NotABoundary { .. })
    ));
    assert_eq!(journal.end().position.offset, 10);
    add(&mut journal, b"goes on");
}

#[test]
fn a_log_can_begin_at_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let base = LogEnd {
        position: Position::new(7, 1_000),
        chain: Chain(99),
    };
    let mut journal = Journal::open(dir.path(), small(), base).unwrap();
    assert_eq!(journal.end(), base);
    assert_eq!(journal.reader().first_offset(), 1_001);
    assert_eq!(
        journal.reader().chain_at(1_000).unwrap(),
        Some(base.chain),
        "a replica may resume exactly here"
    );
    let batch = next(base, 7, 1, b"x");
    journal.append(&batch).unwrap();
    journal.close().unwrap();
    drop(journal);
    let journal = Journal::open(dir.path(), small(), ZERO).unwrap();
    assert_eq!(read_all(&journal.reader()), [batch]);
}

#[test]
fn another_log_can_take_its_place_under_its_readers() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut journal = open(one.path(), &small()).unwrap();
    add(&mut journal, b"old");
    let reader = journal.reader();
    let pin = reader.pin(1);
    let base = LogEnd {
        position: Position::new(2, 50),
        chain: Chain(5),
    };
    let mut other = Journal::open(two.path(), small(), base).unwrap();
    let batch = next(base, 2, 1, b"new");
    other.append(&batch).unwrap();
    other.sync().unwrap();
    journal.replace_with(other);
    drop(pin);
    assert_eq!(read_all(&reader), [batch]);
    assert_eq!((reader.first_offset(), reader.durable()), (51, 51));
    let more = next(journal.end(), 2, 1, b"more");
    journal.append(&more).unwrap();
    journal.publish();
    assert_eq!(reader.end().position.offset, 52);
    assert_eq!(*reader.subscribe().borrow(), reader.end());
}

/// Cuts, or zeroes, the last segment of `dir` at every byte and reopens it.
fn cut_everywhere(dir: &Path, batches: &[Batch], options: &JournalOptions, zeroes: bool) {
    let last = segments(dir).pop().unwrap();
    let name = last.file_name().unwrap();
    let bytes = fs::read(&last).unwrap();
    for cut in 0..bytes.len() {
        if zeroes && (cut as u64) < HEADER_LEN {
            continue;
        }
        let copied = copy(dir);
        let path = copied.path().join(name);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(cut as u64).unwrap();
        if zeroes {
            file.set_len(bytes.len() as u64).unwrap();
        }
        let mut journal =
            open(copied.path(), options).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        let found = read_all(&journal.reader());
        assert_eq!(
            found,
            batches[..found.len()],
            "cut at {cut}: a prefix comes back"
        );
        // Exactly the whole ones: the next batch must not have fitted before the cut.
        let whole = whole_before(&bytes[..cut], batches, name.to_str().unwrap());
        assert_eq!(found.len(), whole, "cut at {cut}");
        let more = next(journal.end(), 9, 1, b"goes on");
        journal.append(&more).unwrap();
        journal.publish();
        journal.sync().unwrap();
        drop(journal);
        let journal = open(copied.path(), options).unwrap();
        let again = read_all(&journal.reader());
        assert_eq!(again.len(), whole + 1);
        assert_eq!(again.last(), Some(&more));
    }
}

/// How many of `batches` are whole when the last segment consists of `bytes`.
fn whole_before(bytes: &[u8], batches: &[Batch], name: &str) -> usize {
    let first: u64 = name.trim_end_matches(".wal").parse().unwrap();
    let holds = |batch: &&Batch| {
        batch.first_offset() < first
            || bytes
                .windows(batch.bytes().len())
                .any(|w| w == batch.bytes())
    };
    batches.iter().take_while(holds).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn a_log_torn_at_any_byte_comes_back_with_its_whole_batches_and_goes_on(
        sizes in proptest::collection::vec((1u32..5, 1usize..40, any::<bool>()), 1..9),
        segment_bytes in prop_oneof![Just(300u64), Just(1 << 20)],
        zeroes in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let options = JournalOptions { segment_bytes, ..small() };
        let mut journal = open(dir.path(), &options).unwrap();
        let mut batches = Vec::new();
        for (at, (operations, len, sync)) in sizes.into_iter().enumerate() {
            // A batch's last byte is never zero here, so that zeroing behind a cut destroys it.
            let batch = next(journal.end(), 1 + at as u64 / 3, operations, &vec![0xa5; len]);
            journal.append(&batch).unwrap();
            journal.publish();
            if sync {
                journal.sync().unwrap();
            }
            batches.push(batch);
        }
        drop(journal);
        cut_everywhere(dir.path(), &batches, &options, zeroes);
    }
}

#[test]
fn every_flipped_bit_in_what_was_durable_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), &small()).unwrap();
    for n in 0..4u8 {
        add_synced(&mut journal, &[n; 10]);
    }
    journal.close().unwrap();
    drop(journal);
    let path = segments(dir.path()).pop().unwrap();
    let good = fs::read(&path).unwrap();
    let last_mark = good.len() - MARK_LEN;
    for at in 0..last_mark {
        let bit = 1 << (at % 8);
        let mut bad = good.clone();
        bad[at] ^= bit;
        fs::write(&path, &bad).unwrap();
        match open(dir.path(), &small()) {
            Err(JournalError::Corrupt {
                path: named, byte, ..
            }) => {
                assert_eq!(named, path);
                assert!(byte <= at as u64, "byte {at} reported as {byte}");
            }
            Err(other) => panic!("byte {at}: {other}"),
            Ok(_) => panic!("byte {at}: opened"),
        }
        assert_eq!(fs::read(&path).unwrap(), bad, "a refusal changes nothing");
    }
}

#[test]
fn damage_before_the_last_segment_is_refused_even_where_nothing_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions {
        segment_bytes: 400,
        ..small()
    };
    let mut journal = open(dir.path(), &options).unwrap();
    for n in 0..12u8 {
        add(&mut journal, &[n; 30]);
    }
    drop(journal);
    let paths = segments(dir.path());
    assert!(paths.len() >= 3);
    for path in &paths[..paths.len() - 1] {
        let good = fs::read(path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(path, &bad).unwrap();
            assert!(open(dir.path(), &options).is_err(), "byte {at}");
        }
        fs::write(path, &good[..good.len() - 1]).unwrap();
        assert!(open(dir.path(), &options).is_err(), "a byte short");
        fs::write(path, &good).unwrap();
    }
    fs::rename(&paths[1], dir.path().join("aside")).unwrap();
    let refused = open(dir.path(), &options).err().unwrap().to_string();
    assert!(refused.contains("the one before it ends at"), "{refused}");
    fs::rename(dir.path().join("aside"), &paths[1]).unwrap();
    assert!(open(dir.path(), &options).is_ok());
}

#[test]
fn unsynced_batches_written_out_of_order_are_torn_and_not_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), &small()).unwrap();
    let first = add_synced(&mut journal, b"durable");
    let second = add(&mut journal, &[2; 100]);
    add(&mut journal, &[3; 100]);
    drop(journal);
    // Power was lost when the third batch had reached the disk and the second had not.
    let path = segments(dir.path()).pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let at = bytes
        .windows(second.bytes().len())
        .position(|w| w == second.bytes())
        .unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 100], at as u64).unwrap();
    let journal = open(dir.path(), &small()).unwrap();
    assert_eq!(read_all(&journal.reader()), [first]);
}

#[test]
fn a_payload_that_looks_like_a_mark_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), &small()).unwrap();
    add_synced(&mut journal, b"durable");
    // Torn, with what a client would have to guess the salt for in the rest.
    add(&mut journal, &encode_mark(99, 0));
    drop(journal);
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - MARK_LEN - 60;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(open(dir.path(), &small()).unwrap().end().position.offset, 1);
}

#[test]
fn a_failed_write_poisons_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), &small()).unwrap();
    add(&mut journal, b"good");
    // A file that cannot be written stands for a disk that fails.
    journal.file = File::open(&journal.path).unwrap();
    let batch = next(journal.end(), 1, 1, b"bad");
    assert!(matches!(
        journal.append(&batch),
        Err(JournalError::Io { .. })
    ));
    assert!(matches!(
        journal.append(&batch),
        Err(JournalError::Poisoned)
    ));
    assert!(matches!(journal.sync(), Err(JournalError::Poisoned)));
    assert!(matches!(journal.truncate(0), Err(JournalError::Poisoned)));
    assert!(matches!(journal.close(), Err(JournalError::Poisoned)));
    assert!(matches!(
        journal.enforce_retention(0, 0),
        Err(JournalError::Poisoned)
    ));
    drop(journal);
    assert_eq!(open(dir.path(), &small()).unwrap().end().position.offset, 1);
}

#[test]
fn half_made_segments_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), &small()).unwrap();
    add_synced(&mut journal, b"x");
    drop(journal);
    fs::write(dir.path().join("00000000000000000002.new"), b"half").unwrap();
    let journal = open(dir.path(), &small()).unwrap();
    assert_eq!(journal.end().position.offset, 1);
    assert_eq!(segments(dir.path()).len(), 1);
}
