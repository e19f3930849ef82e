mod checkpoints;
mod examine;
mod full_sync;
mod opening;
mod random;
mod torn;
mod undo;
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
