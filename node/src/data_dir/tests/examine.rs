//! Looking at directories, whole and damaged. None of them is changed by it.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use super::*;
use crate::data_dir::examine::{ExamineError, examine as examine_it};
use crate::inspect;
use crate::store::StoreDigest;

/// Every file with its content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
            all.insert(path, Vec::new());
        } else {
            let content = fs::read(&path).unwrap();
            all.insert(path, content);
        }
    }
    all
}

/// Looks at the directory, and at every file before and after; text, JSON and exit code say the same.
fn examine(dir: &Path) -> Examination {
    let before = files(dir);
    let found = examine_it(dir).unwrap();
    let (mut json, mut text) = (Vec::new(), Vec::new());
    let code = inspect::run(dir, true, &mut json).unwrap();
    assert_eq!(inspect::run(dir, false, &mut text).unwrap(), code);
    assert_eq!(code, if found.sound { 0 } else { 1 });
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json, serde_json::to_value(&found).unwrap());
    let text = String::from_utf8(text).unwrap();
    let sound = text.lines().last().unwrap() == "verdict     sound";
    assert_eq!(sound, found.sound, "{text}");
    for damage in &found.damage {
        assert!(text.contains(&damage.what), "{text}");
    }
    assert!(files(dir) == before, "something was changed");
    found
}

/// A directory with several segments, two checkpoints and two epochs, which nobody uses any more.
fn directory() -> (TempDir, StoreDigest, LogEnd) {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 40);
    node.checkpoint();
    node.open_epoch(4);
    node.put_many(30);
    node.checkpoint();
    node.put_many(10);
    let (digest, end) = (node.store.digests(), node.journal.end());
    node.journal.close().unwrap();
    (dir, digest, end)
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = files(&dir.join("gen-1/journal")).into_keys().collect();
    found.sort();
    found
}

fn flip(path: &Path, byte: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut was = [0];
    file.read_exact_at(&mut was, byte).unwrap();
    file.write_all_at(&[was[0] ^ 1], byte).unwrap();
}

/// The one thing that is wrong.
fn only(found: &Examination) -> &Finding {
    assert!(!found.sound);
    assert_eq!(found.damage.len(), 1, "{:?}", found.damage);
    &found.damage[0]
}

#[test]
fn a_sound_directory_is_told_in_full() {
    let (dir, digest, end) = directory();
    let found = examine(dir.path());
    assert!(found.sound, "{:?}", found.damage);
    let role = found.role.unwrap();
    assert_eq!(role.promised, 4);
    let epochs: Vec<_> = role.history.entries().iter().map(|e| e.epoch).collect();
    assert_eq!(epochs, [1, 4]);
    assert_eq!(found.generations.len(), 1);
    assert!(found.generations[0].current);
    let starts: Vec<_> = found.checkpoints.iter().map(|c| c.offset).collect();
    assert_eq!(starts, [73, 42]);
    for checkpoint in &found.checkpoints {
        assert!(checkpoint.valid);
        let header = checkpoint.header.as_ref().unwrap();
        assert_eq!(header.start.position.offset, checkpoint.offset);
        assert_eq!(checkpoint.trailer.unwrap().chunks, 1);
        let meta = fs::metadata(&checkpoint.path).unwrap();
        assert_eq!(checkpoint.bytes, meta.len());
    }
    let log = found.log.unwrap();
    assert_eq!((log.first_offset, log.end), (1, end.position));
    assert_eq!((log.chain, log.torn), (end.chain, None));
    assert!(log.segments.len() > 2);
    let mut next = 1;
    for segment in &log.segments {
        assert_eq!(segment.first_offset, next);
        next = segment.last_offset + 1;
        assert_eq!(segment.batches, next - segment.first_offset);
        let expected: Vec<u64> = [(1, 1..=42), (4, 43..=83)]
            .into_iter()
            .filter(|(_, of)| {
                segment.first_offset <= *of.end() && segment.last_offset >= *of.start()
            })
            .map(|(epoch, _)| epoch)
            .collect();
        assert_eq!(segment.epochs, expected);
    }
    assert_eq!(next, end.position.offset + 1);
    let content = found.content.unwrap();
    assert_eq!(content.digest, digest);
    assert_eq!(content.from_checkpoint, Some(73));
}

#[test]
fn a_directory_in_use_is_refused_and_one_that_is_looked_at_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::with_data(dir.path(), 3);
    let Err(ExamineError::DataDir(DataDirError::Locked { pid, .. })) = examine_it(dir.path())
    else {
        panic!("it was looked at");
    };
    assert_eq!(pid, std::process::id().to_string());
    drop(node);
    assert!(examine(dir.path()).sound);
    let lock = crate::data_dir::examine::share_lock(dir.path()).unwrap();
    let refused = Node::try_open(dir.path()).map(|_| ());
    assert!(matches!(refused, Err(DataDirError::Locked { .. })));
    assert!(examine_it(dir.path()).unwrap().sound, "two may look");
    drop(lock);
    Node::open(dir.path());
}

#[test]
fn what_is_no_data_directory_is_said_to_be_none() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes"), "nothing").unwrap();
    for path in [
        dir.path().to_owned(),
        dir.path().join("notes"),
        dir.path().join("missing"),
    ] {
        let found = examine_it(&path);
        assert!(matches!(found, Err(ExamineError::NotADataDir(_))));
    }
    assert_eq!(files(dir.path()).len(), 1);
}

#[test]
fn a_node_that_was_never_told_anything_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    Node::open(dir.path());
    let found = examine(dir.path());
    assert!(found.sound, "{:?}", found.damage);
    assert_eq!(found.log.unwrap().end, Position::ZERO);
}

#[test]
fn a_torn_tail_is_told_and_is_no_damage() {
    let (dir, ..) = directory();
    let last = segments(dir.path()).pop().unwrap();
    let whole = fs::metadata(&last).unwrap().len();
    let file = OpenOptions::new().append(true).open(&last).unwrap();
    (&file).write_all(&[7; 50]).unwrap();
    let found = examine(dir.path());
    assert!(found.sound, "{:?}", found.damage);
    let torn = found.log.unwrap().torn.unwrap();
    assert_eq!((torn.path, torn.byte, torn.bytes), (last, whole, 50));
    Node::open(dir.path());
    assert_eq!(examine(dir.path()).log.unwrap().torn, None);
}

#[test]
fn a_segment_that_ends_inside_its_header_is_torn() {
    let (dir, _, end) = directory();
    let name = format!("gen-1/journal/{:020}.wal", end.position.offset + 1);
    let path = dir.path().join(name);
    fs::write(&path, [0; 10]).unwrap();
    let found = examine(dir.path());
    assert!(found.sound, "{:?}", found.damage);
    let log = found.log.unwrap();
    assert_eq!(log.torn.unwrap().path, path);
    assert_eq!(log.end, end.position);
}

#[test]
fn a_flipped_bit_in_the_log_is_found_with_its_file_and_byte() {
    let (dir, digest, _) = directory();
    let all = segments(dir.path());
    flip(&all[1], 200);
    let found = examine(dir.path());
    assert_eq!(found.damage[0].path.as_ref(), Some(&all[1]));
    // The batch begins at or before the bit, and behind the header.
    let byte = found.damage[0].byte.unwrap();
    assert!((64..=200).contains(&byte), "{byte}");
    let log = found.log.as_ref().unwrap();
    assert_eq!(log.segments.len(), all.len(), "those behind it are read");
    assert!(log.end < digest.position);
    assert!(Node::try_open(dir.path()).is_err(), "a start refuses it");
}

#[test]
fn a_flipped_bit_in_what_a_later_mark_calls_durable_is_damage_and_no_torn_tail() {
    let (dir, ..) = directory();
    let last = segments(dir.path()).pop().unwrap();
    flip(&last, 200);
    let found = examine(dir.path());
    assert_eq!(found.damage[0].path.as_ref(), Some(&last));
    assert!(found.damage[0].what.contains("was durable"));
    assert_eq!(found.log.unwrap().torn, None);
}

#[test]
fn a_segment_that_is_missing_leaves_a_gap() {
    let (dir, ..) = directory();
    let all = segments(dir.path());
    fs::remove_file(&all[1]).unwrap();
    let found = examine(dir.path());
    assert_eq!(found.damage[0].path.as_ref(), Some(&all[2]));
    assert!(found.damage[0].what.contains("the one before it ends at"));
}

#[test]
fn a_damaged_checkpoint_is_found_though_an_older_one_stands_in() {
    let (dir, digest, _) = directory();
    let newest = checkpoint::path_of(&dir.path().join("gen-1"), 73);
    let middle = fs::metadata(&newest).unwrap().len() / 2;
    flip(&newest, middle);
    let found = examine(dir.path());
    assert_eq!(only(&found).path.as_ref(), Some(&newest));
    assert!(only(&found).byte.is_some());
    let valid: Vec<_> = found.checkpoints.iter().map(|c| c.valid).collect();
    assert_eq!(valid, [false, true]);
    let content = found.content.unwrap();
    assert_eq!(content.from_checkpoint, Some(42));
    assert_eq!(content.digest, digest);
}

#[test]
fn a_role_file_that_is_damaged_missing_or_of_another_log_is_damage() {
    let (dir, ..) = directory();
    let role = dir.path().join("role");
    let good = fs::read(&role).unwrap();
    flip(&role, 40);
    assert_eq!(only(&examine(dir.path())).path.as_ref(), Some(&role));
    fs::remove_file(&role).unwrap();
    assert_eq!(only(&examine(dir.path())).path.as_ref(), Some(&role));
    fs::write(&role, good).unwrap();
    let mut file = RoleFile::load(&role).unwrap().unwrap();
    file.update(|state| {
        state.history = History::default();
        state.history.open(EpochStart {
            epoch: 2,
            first_offset: 1,
            chain: Chain(0),
        });
    })
    .unwrap();
    let found = examine(dir.path());
    assert_eq!(only(&found).path.as_ref(), Some(&role));
    assert!(only(&found).what.contains("do not belong together"));
}

#[test]
fn data_that_is_gone_is_damage() {
    let (dir, ..) = directory();
    fs::remove_dir_all(dir.path().join("gen-1/journal")).unwrap();
    assert!(
        only(&examine(dir.path()))
            .what
            .contains("the journal is gone")
    );
    fs::remove_dir_all(dir.path().join("gen-1")).unwrap();
    assert!(
        only(&examine(dir.path()))
            .what
            .contains("generation is gone")
    );
}

#[test]
fn what_crashes_leave_is_listed_and_stays() {
    let (dir, ..) = directory();
    fs::create_dir(dir.path().join("gen-2")).unwrap();
    fs::write(dir.path().join("role.new"), "half").unwrap();
    fs::write(dir.path().join("gen-1/checkpoint-9.part"), "half").unwrap();
    fs::write(dir.path().join("gen-1/journal/9.new"), "half").unwrap();
    let found = examine(dir.path());
    assert!(found.sound, "{:?}", found.damage);
    assert_eq!(found.leftovers.len(), 3);
    let current: Vec<_> = found.generations.iter().map(|g| g.current).collect();
    assert_eq!(current, [true, false]);
}

#[test]
fn a_log_that_lost_what_the_role_file_knows_to_be_covered_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 8);
    let covered = node.journal.end().position;
    assert_eq!(covered.offset, 10);
    node.role.update(|role| role.covered = covered).unwrap();
    drop(node);
    assert!(examine(dir.path()).sound);
    Node::open(dir.path());
    let last = segments(dir.path()).pop().unwrap();
    let whole = fs::read(&last).unwrap();
    let mut rotten = whole.clone();
    let byte = rotten.len() - 4;
    rotten[byte] ^= 1;
    fs::write(&last, &rotten).unwrap();
    let found = examine(dir.path());
    assert_eq!(only(&found).path.as_ref(), Some(&last));
    for refused in [only(&found).what.clone(), refusal(dir.path())] {
        assert!(refused.contains(last.to_str().unwrap()), "{refused}");
        assert!(refused.contains("offset 10 was durable"), "{refused}");
    }
    assert_eq!(fs::read(&last).unwrap(), rotten, "nothing was cut");

    // Gone without a trace.
    let file = OpenOptions::new().write(true).open(&last).unwrap();
    let log = journal_dir(&dir.path().join("gen-1"));
    let found = crate::journal::examine(&log, LogEnd::default(), 0).unwrap();
    file.set_len(found.torn.unwrap().byte).unwrap();
    let found = examine(dir.path());
    for refused in [only(&found).what.clone(), refusal(dir.path())] {
        assert!(refused.contains("is without 1.10"), "{refused}");
    }
    fs::write(&last, &whole).unwrap();
    assert_eq!(Node::open(dir.path()).end(), 10);
}

#[test]
fn a_torn_write_behind_what_is_covered_is_cut_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 8);
    let covered = node.journal.end().position;
    node.role.update(|role| role.covered = covered).unwrap();
    node.put_many(1);
    drop(node);
    let last = segments(dir.path()).pop().unwrap();
    let file = OpenOptions::new().write(true).open(&last).unwrap();
    file.set_len(fs::metadata(&last).unwrap().len() - 1)
        .unwrap();
    assert!(examine(dir.path()).sound);
    assert_eq!(Node::open(dir.path()).end(), 10);
}
