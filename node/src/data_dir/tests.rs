mod examine;
mod torn;
mod unlike;

use std::cell::RefCell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tempfile::TempDir;
use vectorizer_replication::batch::Batch;
use vectorizer_replication::command::Standing;
use vectorizer_replication::position::{Chain, EpochStart, Position};

use super::*;
use crate::role::RoleState;
use crate::step::watched;
use crate::store::test_log::put;
use crate::store::{CollectionConfig, Digest, Metric, Record};

fn options() -> JournalOptions {
    JournalOptions {
        segment_bytes: 2_000,
        log_size: 40,
        max_bytes: None,
        cache_bytes: 1_000,
        preallocate: 0,
    }
}

/// A data directory in use, with the writer's part played by the test.
struct Node {
    data: DataDir,
    store: Arc<Store>,
    journal: Journal,
    role: RoleFile,
}

impl Node {
    fn open(path: &Path) -> Node {
        Node::try_open(path).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_open(path: &Path) -> Result<Node, DataDirError> {
        let (data, opened) = DataDir::open(path, options())?;
        assert_eq!(opened.end, opened.store.applied_end());
        assert_eq!(opened.store.digest().1, opened.store.recompute_digest());
        assert_eq!(opened.role.state().history, opened.store.history());
        Ok(Node {
            data,
            store: opened.store,
            journal: opened.journal,
            role: opened.role,
        })
    }

    /// A node with data: epoch 1, collection `docs` (incarnation 2) and `count` vectors.
    fn with_data(path: &Path, count: usize) -> Node {
        let mut node = Node::open(path);
        node.open_epoch(1);
        node.write(vec![Record::CreateCollection {
            name: "docs".into(),
            config: CollectionConfig::new(3, Metric::Cosine),
            created_ms: 7,
        }]);
        node.put_many(count);
        node
    }

    fn open_epoch(&mut self, epoch: u64) {
        let end = self.journal.end();
        self.role
            .update(|state| {
                state.promised = epoch;
                state.has_data = true;
                state.history.open(EpochStart {
                    epoch,
                    first_offset: end.position.offset + 1,
                    chain: end.chain,
                });
            })
            .unwrap();
        let node = self.role.state().node_id;
        self.write_in(epoch, vec![Record::Epoch { epoch, node }]);
    }

    fn write_in(&mut self, epoch: u64, records: Vec<Record>) -> Batch {
        let mut payload = BytesMut::new();
        for record in &records {
            record.encode(&mut payload);
        }
        let end = self.journal.end();
        let (first, count) = (end.position.offset + 1, records.len() as u32);
        let batch = Batch::encode(epoch, first, count, first, end.chain, &payload).unwrap();
        self.journal.append(&batch).unwrap();
        self.store.apply_batch(&batch).unwrap();
        self.journal.publish();
        self.journal.sync().unwrap();
        batch
    }

    fn write(&mut self, records: Vec<Record>) -> Batch {
        let epoch = self.journal.end().position.epoch;
        self.write_in(epoch, records)
    }

    /// One operation each.
    fn put_many(&mut self, count: usize) {
        for n in 0..count {
            let offset = self.journal.end().position.offset + 1;
            self.write(vec![put(2, &format!("v{}", n % 30), offset as f32)]);
        }
    }

    fn end(&self) -> u64 {
        self.journal.end().position.offset
    }

    fn digest(&self) -> (Position, Digest) {
        self.store.digest()
    }

    /// Writes a checkpoint of now.
    fn checkpoint(&self) {
        let (store, log) = (self.store.clone(), self.journal.reader());
        let generation = self.role.state().generation;
        let mut work = checkpointer::Work::new(self.data.clone(), generation, store, log);
        work.checkpoint().unwrap();
        assert_eq!(self.starts()[0], self.end());
    }

    fn start_checkpoints(&self) -> Checkpointer {
        let log = self.journal.reader();
        self.data
            .start_checkpoints(self.role.state(), self.store.clone(), log)
    }

    fn generation(&self) -> PathBuf {
        self.data.generation(self.role.state().generation)
    }

    fn starts(&self) -> Vec<u64> {
        checkpoint::list(&self.generation()).unwrap()
    }

    fn undo(&mut self, to: u64) -> UndoOutcome {
        self.data
            .undo(&mut self.journal, &self.store, &mut self.role, to)
            .unwrap()
    }

    /// What a start finds in a copy of the directory as it is now.
    fn copy(&self) -> TempDir {
        copy(self.data.path())
    }
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    copy_into(from, to.path());
    to
}

fn copy_into(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_into(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Copies the directory at every step of `work`, as a crash there would leave it.
fn crashes<T>(path: &Path, work: impl FnOnce() -> T) -> (T, Vec<(&'static str, TempDir)>) {
    let copies = Rc::new(RefCell::new(Vec::new()));
    let (kept, path) = (copies.clone(), path.to_owned());
    let watch = move |step: &'static str| {
        // The log has tests of its own.
        if !step.starts_with("log: ") {
            kept.borrow_mut().push((step, copy(&path)));
        }
    };
    let result = watched(watch, work);
    let copies = std::mem::take(&mut *copies.borrow_mut());
    (result, copies)
}

fn refusal(path: &Path) -> String {
    Node::try_open(path).err().expect("refused").to_string()
}

#[test]
fn a_new_directory_holds_nothing_and_a_node_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep").join("data");
    let node = Node::open(&path);
    assert_eq!(node.end(), 0);
    assert!(!node.role.state().has_data);
    let id = node.role.state().node_id;
    drop(node);
    let node = Node::open(&path);
    assert_eq!(node.role.state().node_id, id, "the same node again");
}

#[test]
fn a_second_process_is_refused_and_told_who_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path());
    let refused = refusal(dir.path());
    let pid = std::process::id().to_string();
    assert!(
        refused.contains(&format!("in use by process {pid}")),
        "{refused}"
    );
    drop(node);
    Node::open(dir.path());
}

#[test]
fn a_restart_comes_back_at_its_exact_position_with_and_without_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 50);
    for round in 0..3 {
        let (digest, end) = (node.digest(), node.journal.end());
        drop(node);
        node = Node::open(dir.path());
        assert_eq!(
            (node.digest(), node.journal.end()),
            (digest, end),
            "round {round}"
        );
        node.checkpoint();
        node.put_many(5 * round);
    }
    assert_eq!(node.starts().len(), 2, "two are kept");
}

#[test]
fn the_log_goes_once_a_checkpoint_stands_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 200);
    node.journal.enforce_retention(0).unwrap();
    assert_eq!(node.journal.reader().first_offset(), 1, "no checkpoint yet");
    node.checkpoint();
    let checkpoints = node.start_checkpoints();
    node.journal
        .enforce_retention(checkpoints.start_offset())
        .unwrap();
    drop(checkpoints);
    assert!(node.journal.reader().first_offset() > 100);
    let digest = node.digest();
    drop(node);
    assert_eq!(Node::open(dir.path()).digest(), digest);
}

#[test]
fn a_checkpoint_is_written_when_it_is_due_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 5);
    let checkpoints = node.start_checkpoints();
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!(checkpoints.start_offset(), 0);
    node.put_many(40);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while checkpoints.start_offset() == 0 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_damaged_checkpoint_gives_way_to_an_older_one_and_refusal_names_them_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 60);
    node.checkpoint();
    node.put_many(10);
    node.checkpoint();
    node.put_many(3);
    let (digest, generation) = (node.digest(), node.generation());
    let starts = node.starts();
    drop(node);
    let newest = checkpoint::path_of(&generation, starts[0]);
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).unwrap();
    assert_eq!(Node::open(dir.path()).digest(), digest);

    // The log of the beginning goes, and the older checkpoint is damaged as well.
    let mut node = Node::open(dir.path());
    node.journal.enforce_retention(starts[1]).unwrap();
    assert!(node.journal.reader().first_offset() > 1);
    drop(node);
    assert_eq!(Node::open(dir.path()).digest(), digest);
    let older = checkpoint::path_of(&generation, starts[1]);
    fs::write(&older, b"VECSNAP\0").unwrap();
    let refused = refusal(dir.path());
    for path in [&newest, &older] {
        assert!(refused.contains(path.to_str().unwrap()), "{refused}");
    }
    assert!(refused.contains("empty the data directory"), "{refused}");
}

#[test]
fn with_the_newest_checkpoint_damaged_the_log_is_kept_for_the_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 60);
    node.checkpoint();
    node.put_many(60);
    node.checkpoint();
    node.put_many(60);
    let (before, digest) = (node.starts(), node.digest());
    let newest = checkpoint::path_of(&node.generation(), before[0]);
    drop(node);
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).unwrap();

    let mut node = Node::open(dir.path());
    assert_eq!(node.digest(), digest);
    let checkpoints = node.start_checkpoints();
    assert_eq!(checkpoints.start_offset(), before[1], "the one in use");
    node.journal
        .enforce_retention(checkpoints.start_offset())
        .unwrap();
    assert!(node.journal.reader().first_offset() <= before[1] + 1);
    drop(checkpoints);
    drop(node);
    assert_eq!(Node::open(dir.path()).digest(), digest);
}

#[test]
fn every_truncation_and_every_flipped_bit_of_a_checkpoint_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::with_data(dir.path(), 3);
    node.checkpoint();
    let path = checkpoint::path_of(&node.generation(), node.end());
    let good = fs::read(&path).unwrap();
    let other = dir.path().join("other");
    let load = |bytes: &[u8]| {
        fs::write(&other, bytes).unwrap();
        checkpoint::load(&other)
    };
    assert!(load(&good).is_ok());
    for at in 0..good.len() {
        assert!(load(&good[..at]).is_err(), "cut at {at}");
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(load(&bad).is_err(), "bit in {at}");
    }
    assert!(
        load(&[&good[..], b"x"].concat()).is_err(),
        "bytes behind its end"
    );
}

#[test]
fn missing_parts_are_refused_and_nothing_is_made_in_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::with_data(dir.path(), 60);
    node.checkpoint();
    let end = node.end();
    drop(node);
    let missing = |part: &str| {
        let broken = copy(dir.path());
        let path = broken.path().join(part);
        match path.is_dir() {
            true => fs::remove_dir_all(&path).unwrap(),
            false => fs::remove_file(&path).unwrap(),
        }
        let refused = refusal(broken.path());
        assert_eq!(
            refused,
            refusal(broken.path()),
            "refused the second time as well"
        );
        refused
    };
    assert!(missing("role").contains("does not know who it is"));
    assert!(missing("gen-1").contains("the current generation is gone"));
    // An old role file, from before a full sync, must not cost the generation that it does not know.
    let restored = copy(dir.path());
    fs::rename(restored.path().join("gen-1"), restored.path().join("gen-2")).unwrap();
    assert!(refusal(restored.path()).contains("the current generation is gone"));
    assert!(restored.path().join("gen-2/journal").exists());
    assert!(missing("gen-1/journal").contains("the journal is gone"));
    let last = fs::read_dir(dir.path().join("gen-1/journal"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .max()
        .unwrap();
    let refused = missing(&format!("gen-1/journal/{last}"));
    assert!(
        refused.contains("durable operations were lost"),
        "{refused}"
    );
    assert!(
        refused.contains(&format!("up to offset {end}")),
        "{refused}"
    );
}

#[test]
fn the_history_follows_the_log_after_a_crash_between_the_two() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 3);
    let first = node.role.state().history.clone();
    // An epoch was opened and nothing written in it.
    let end = node.journal.end();
    let start = EpochStart {
        epoch: 4,
        first_offset: end.position.offset + 1,
        chain: end.chain,
    };
    node.role
        .update(|state| assert!(state.history.open(start)))
        .unwrap();
    drop(node);
    let mut node = Node::open(dir.path());
    assert_eq!(node.role.state().history, first);
    // A replica appended an epoch's first operation and did not note it.
    node.write_in(
        6,
        vec![Record::Epoch {
            epoch: 6,
            node: uuid::Uuid::nil(),
        }],
    );
    drop(node);
    let mut node = Node::open(dir.path());
    let epochs = node.role.state().history.entries().to_vec();
    assert_eq!((epochs.len(), epochs[1].epoch), (2, 6));
    // Another node's role file.
    node.role
        .update(|state| {
            state.history.truncate(0);
            state.history.open(EpochStart {
                epoch: 2,
                first_offset: 1,
                chain: Chain(0),
            });
        })
        .unwrap();
    drop(node);
    assert!(refusal(dir.path()).contains("do not belong together"));
}

#[test]
fn a_replica_that_crashed_before_its_first_batch_holds_nothing() {
    let dir = TempDir::new().unwrap();
    let mut node = Node::open(dir.path());
    let follow = |state: &mut RoleState| {
        state.standing = Standing::Replica {
            epoch: 1,
            master_address: "h:7001".into(),
            master_url: None,
        };
        state.has_data = true;
        state.history.open(EpochStart {
            epoch: 1,
            first_offset: 1,
            chain: Chain::default(),
        });
    };
    node.role.update(follow).unwrap();
    drop(node);
    for _ in 0..2 {
        let node = Node::open(dir.path());
        assert!(!node.role.state().has_data);
        assert!(node.role.state().history.entries().is_empty());
    }
    let mut node = Node::open(dir.path());
    node.role.update(follow).unwrap();
    let id = node.role.state().node_id;
    node.write_in(1, vec![Record::Epoch { epoch: 1, node: id }]);
    drop(node);
    assert!(Node::open(dir.path()).role.state().has_data);
}

#[test]
fn what_is_undone_is_written_aside_and_the_node_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 20);
    let (digest, to) = (node.digest(), node.end());
    node.open_epoch(3);
    let mut undone = node.journal.batches_after(to).unwrap();
    undone.push(node.write(vec![Record::DropCollection { incarnation: 2 }]));
    node.checkpoint();
    let role = node.role.state().clone();

    assert_eq!(node.undo(to), UndoOutcome::Done);
    assert_eq!((node.digest(), node.end()), (digest, to));
    assert_eq!(node.role.state().history.entries().len(), 1);
    assert_eq!(
        node.role.state().promised,
        role.promised,
        "a promise is not undone"
    );
    assert!(
        node.starts().is_empty(),
        "the checkpoint held what was undone"
    );
    let aside = fs::read(dir.path().join(format!("rollback/3-{}-{}", to + 1, to + 2))).unwrap();
    let mut aside = Bytes::from(aside);
    for batch in &undone {
        assert_eq!(&Batch::decode(&mut aside).unwrap(), batch);
    }
    assert!(aside.is_empty());

    node.put_many(3);
    let digest = node.digest();
    drop(node);
    let mut node = Node::open(dir.path());
    assert_eq!(node.digest(), digest);
    assert_eq!(node.undo(node.end()), UndoOutcome::Done, "nothing to undo");
}

#[test]
fn undoing_below_the_oldest_checkpoint_needs_a_snapshot_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 200);
    node.checkpoint();
    let checkpoints = node.start_checkpoints();
    let start = checkpoints.start_offset();
    node.journal.enforce_retention(start).unwrap();
    drop(checkpoints);
    let digest = node.digest();
    for to in [0, 5, start - 1] {
        assert_eq!(node.undo(to), UndoOutcome::NeedsSnapshot, "{to}");
    }
    assert_eq!(node.digest(), digest);
    assert!(!dir.path().join("rollback").exists());
    node.put_many(10);
    let digest = node.digest();
    node.put_many(10);
    assert_eq!(node.undo(digest.0.offset), UndoOutcome::Done);
    assert_eq!(node.digest(), digest);
}

#[test]
fn a_disk_that_takes_nothing_aside_refuses_to_undo_and_everything_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 30);
    node.checkpoint();
    node.put_many(10);
    let (end, digest, starts) = (node.end(), node.digest(), node.starts());
    // A file where the directory has to be: nothing can be written there, as on a full disk.
    let aside = dir.path().join("rollback");
    fs::write(&aside, "").unwrap();
    let refused = node.undo(end - 5);
    assert!(
        matches!(&refused, UndoOutcome::DiskRefused(text) if text.contains("rollback")),
        "{refused:?}"
    );
    assert_eq!(
        (node.end(), node.digest(), node.starts()),
        (end, digest, starts)
    );
    let copy = node.copy();
    assert_eq!(Node::open(copy.path()).digest(), digest);

    fs::remove_file(&aside).unwrap();
    assert_eq!(node.undo(end - 5), UndoOutcome::Done);
    assert_eq!(node.end(), end - 5);
}

#[test]
fn a_crash_at_any_step_of_undoing_finds_all_of_before_or_all_of_after() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 60);
    node.checkpoint();
    node.put_many(5);
    let after = node.digest();
    node.open_epoch(2);
    node.put_many(4);
    node.checkpoint();
    node.put_many(2);
    let before = node.digest();
    let path = dir.path().to_owned();
    let (outcome, crashes) = crashes(&path, || node.undo(after.0.offset));
    assert_eq!(outcome, UndoOutcome::Done);
    let steps: Vec<_> = crashes.iter().map(|(step, _)| *step).collect();
    assert_eq!(
        steps,
        [
            "undo: store rebuilt",
            "undo: written aside",
            "undo: checkpoint removed",
            "undo: log cut",
            "undo: history cut"
        ]
    );
    for (at, (step, crashed)) in crashes.iter().enumerate() {
        let mut found = Node::open(crashed.path());
        let expected = if at < 3 { before } else { after };
        assert_eq!(found.digest(), expected, "{step}");
        found.put_many(1);
    }
}

#[test]
fn a_crash_at_any_step_of_a_checkpoint_finds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 60);
    for _ in 0..2 {
        node.checkpoint();
        node.put_many(30);
    }
    let digest = node.digest();
    let path = dir.path().to_owned();
    let ((), crashes) = crashes(&path, || node.checkpoint());
    let steps: Vec<_> = crashes.iter().map(|(step, _)| *step).collect();
    assert_eq!(
        steps,
        [
            "checkpoint: durable",
            "checkpoint: named",
            "checkpoint: older one removed"
        ]
    );
    for (step, crashed) in &crashes {
        assert_eq!(Node::open(crashed.path()).digest(), digest, "{step}");
    }
}

#[test]
fn checkpoints_are_written_and_the_log_goes_while_writes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::with_data(dir.path(), 100);
    let checkpoints = node.start_checkpoints();
    let mut seen = std::collections::BTreeSet::new();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while seen.len() < 5 {
        assert!(
            std::time::Instant::now() < deadline,
            "checkpoints: {seen:?}"
        );
        checkpoints.request();
        node.put_many(20);
        node.write(vec![Record::Delete {
            incarnation: 2,
            id: "v7".into(),
        }]);
        seen.insert(checkpoints.start_offset());
        node.journal
            .enforce_retention(checkpoints.start_offset())
            .unwrap();
    }
    drop(checkpoints);
    assert!(node.journal.reader().first_offset() > 1);
    let digest = node.digest();
    drop(node);
    assert_eq!(Node::open(dir.path()).digest(), digest);
}

/// Plays a full sync of `from` into `to`, with writes going on, up to the moment before it is installed.
fn full_sync(from: &mut Node, to: &Node) -> Incoming {
    let mut scan = from.store.scan();
    let mut incoming = to
        .data
        .begin_incoming(to.role.state(), scan.header().clone())
        .unwrap();
    from.put_many(3);
    for chunk in scan.by_ref() {
        incoming.load_chunk(&chunk).unwrap();
    }
    from.put_many(3);
    // The first operations come before the trailer, the others after it.
    let start = scan.header().start.position.offset;
    let batches = from.journal.batches_after(start).unwrap();
    let (early, late) = batches.split_at(2);
    early.iter().for_each(|b| incoming.append(b).unwrap());
    assert!(!incoming.is_exact());
    incoming.finish_chunks(scan.trailer().unwrap()).unwrap();
    late.iter().for_each(|b| incoming.append(b).unwrap());
    assert!(incoming.is_exact());
    assert_eq!(incoming.end(), from.journal.end());
    incoming
}

/// A node with another past, which a full sync replaces.
fn other_past(path: &Path) -> Node {
    let mut node = Node::with_data(path, 10);
    node.write(vec![Record::CreateCollection {
        name: "gone".into(),
        config: CollectionConfig::new(9, Metric::Euclidean),
        created_ms: 1,
    }]);
    node.checkpoint();
    node
}

#[test]
fn a_full_sync_replaces_everything_and_survives_a_restart() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut from = Node::with_data(a.path(), 100);
    let mut to = other_past(b.path());
    let (reader, old) = (to.journal.reader(), to.digest());
    let incoming = full_sync(&mut from, &to);
    assert_eq!(to.digest(), old, "served until it is installed");
    let (store, journal) = incoming
        .install(&mut to.role, |role| role.promised = 9)
        .unwrap();
    to.store.replace_with(store);
    to.journal.replace_with(journal);
    assert_eq!(to.digest(), from.digest());
    assert!(to.store.collection("gone").is_none());
    assert_eq!(reader.end(), from.journal.end());
    assert_eq!(to.role.state().history, from.role.state().history);
    assert_eq!(
        (to.role.state().generation, to.role.state().promised),
        (2, 9)
    );
    assert_eq!(generations(b.path()).unwrap(), [2]);
    // It goes on as any other.
    let next = from.write(vec![put(2, "next", 1.0)]);
    to.journal.append(&next).unwrap();
    to.store.apply_batch(&next).unwrap();
    to.journal.publish();
    to.journal.sync().unwrap();
    to.checkpoint();
    drop(to);
    let to = Node::open(b.path());
    assert_eq!(to.digest(), from.digest());
    assert_eq!(to.journal.end(), from.journal.end());
}

#[test]
fn a_crash_at_any_step_of_a_full_sync_finds_all_of_the_old_or_all_of_the_new() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut from = Node::with_data(a.path(), 100);
    let mut to = other_past(b.path());
    let old = to.digest();
    let path = b.path().to_owned();
    let (installed, crashes) = crashes(&path, || {
        let incoming = full_sync(&mut from, &to);
        incoming.install(&mut to.role, |_| {})
    });
    installed.unwrap();
    let steps: Vec<_> = crashes.iter().map(|(step, _)| *step).collect();
    assert_eq!(
        steps,
        [
            "incoming: chunks complete",
            "incoming: durable",
            "incoming: current",
            "incoming: old generation removed"
        ]
    );
    for (at, (step, crashed)) in crashes.iter().enumerate() {
        let found = Node::open(crashed.path());
        let expected = if at < 2 { old } else { from.digest() };
        assert_eq!(found.digest(), expected, "{step}");
        assert_eq!(generations(crashed.path()).unwrap().len(), 1, "{step}");
    }
}

#[test]
fn a_full_sync_that_ends_early_leaves_nothing() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = Node::with_data(a.path(), 20);
    let mut to = other_past(b.path());
    let old = to.digest();
    let mut scan = from.store.scan();
    let header = scan.header().clone();
    let begin = || {
        to.data
            .begin_incoming(to.role.state(), header.clone())
            .unwrap()
    };
    let mut incoming = begin();
    assert_eq!(generations(b.path()).unwrap().len(), 2);
    let mut bad = scan.next().unwrap().to_vec();
    bad[30] ^= 1;
    assert!(incoming.load_chunk(&bad.into()).is_err());
    drop(incoming);
    assert_eq!(generations(b.path()).unwrap(), [1]);

    let crashed = {
        let _incoming = begin();
        to.copy()
    };
    assert_eq!(generations(crashed.path()).unwrap().len(), 2);
    assert_eq!(Node::open(crashed.path()).digest(), old);
    assert_eq!(generations(crashed.path()).unwrap(), [1]);

    let mut incoming = begin();
    assert!(!incoming.is_exact());
    let chunks: Vec<_> = scan.by_ref().collect();
    assert!(chunks.is_empty());
    let trailer = scan.trailer().unwrap();
    assert!(
        incoming.finish_chunks(trailer).is_err(),
        "its chunk is missing"
    );
    let refused = incoming.install(&mut to.role, |_| {});
    assert!(refused.is_err());
    assert_eq!(to.role.state().generation, 1);
    assert_eq!(generations(b.path()).unwrap(), [1]);
}

#[test]
fn a_header_that_contradicts_itself_is_refused() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = Node::with_data(a.path(), 1);
    let to = Node::open(b.path());
    let mut header = from.store.scan().header().clone();
    header.start.position.epoch = 5;
    let refused = to.data.begin_incoming(to.role.state(), header);
    assert!(refused.is_err());
    assert_eq!(generations(b.path()).unwrap(), [1]);
}

#[test]
fn a_checkpoint_that_a_crash_cut_short_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::with_data(dir.path(), 20);
    let (digest, part) = (
        node.digest(),
        checkpoint::path_of(&node.generation(), 9).with_extension("part"),
    );
    drop(node);
    fs::write(&part, b"VECSNAP").unwrap();
    assert_eq!(Node::open(dir.path()).digest(), digest);
    assert!(!part.exists());
}

#[test]
fn free_space_is_a_fraction_of_the_disk_and_shrinks_with_what_is_to_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let free = free_space(dir.path()).unwrap();
    assert!((0.0..=1.0).contains(&free.fraction_after(0)));
    assert!(free_space(&dir.path().join("none")).is_err());
    let free = FreeSpace { bytes: 50, of: 200 };
    assert_eq!(free.fraction_after(0), 0.25);
    assert_eq!(free.fraction_after(40), 0.05);
    assert_eq!(free.fraction_after(60), 0.0);
    assert_eq!(FreeSpace { bytes: 0, of: 0 }.fraction_after(9), 1.0);
}

#[test]
fn random_writes_checkpoints_restarts_and_undoing_keep_log_and_store_together() {
    // A small linear congruential generator, so that a failure is the same every time.
    for seed in 0..12u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let dir = tempfile::tempdir().unwrap();
        let mut node = Node::with_data(dir.path(), 1);
        let mut digests = vec![node.digest()];
        for _ in 0..60 {
            match random(10) {
                0..=4 => node.put_many(1 + random(6) as usize),
                5 => node.open_epoch(node.role.state().promised + 1),
                6 => node.checkpoint(),
                7 => {
                    let start = node.starts().first().copied().unwrap_or(0);
                    node.journal.enforce_retention(start).unwrap();
                }
                8 => {
                    let (digest, end) = (node.digest(), node.journal.end());
                    drop(node);
                    node = Node::open(dir.path());
                    assert_eq!(
                        (node.digest(), node.journal.end()),
                        (digest, end),
                        "seed {seed}"
                    );
                }
                _ => {
                    let at = digests[random(digests.len() as u64) as usize];
                    if node.undo(at.0.offset) == UndoOutcome::Done {
                        assert_eq!(node.digest(), at, "seed {seed}");
                        digests.retain(|d| d.0.offset <= at.0.offset);
                    }
                }
            }
            if digests.last() != Some(&node.digest()) {
                digests.push(node.digest());
            }
        }
    }
}
