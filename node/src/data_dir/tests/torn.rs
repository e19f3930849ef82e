//! Role file and checkpoint, torn at each byte while they are written and damaged at each byte afterwards: a start finds
//! all that was there, or refuses and names the file.

use super::*;

/// A directory in memory, where there is such a place: some thousand starts wait for their fsyncs otherwise, and power is
/// not lost here.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Damage to a file of these bytes: it ends at each byte, and each byte is another one.
fn damages(good: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let cuts = (0..good.len()).map(|at| (format!("cut at {at}"), good[..at].to_vec()));
    let flips = (0..good.len()).map(|at| {
        let mut bad = good.to_vec();
        bad[at] ^= 1 << (at % 8);
        (format!("bit {} of byte {at}", at % 8), bad)
    });
    cuts.chain(flips)
}

/// Every file below a directory but the lock, with what is in it.
fn files(dir: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.ends_with("lock") {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

/// A node whose log holds operations that its two checkpoints, one older than the other, do not. Few vectors and few
/// segments: each byte of a checkpoint costs a start.
fn with_two_checkpoints(path: &Path) -> Node {
    let mut node = Node::with_data(path, 0);
    for round in 0..3 {
        let puts = (0..30).map(|n| put(2, &format!("v{}", n % 2), (round * 100 + n) as f32));
        node.write(puts.collect());
        if round < 2 {
            node.checkpoint();
        }
    }
    node
}

#[test]
fn a_crash_at_any_byte_of_a_role_file_that_is_being_written_leaves_the_old_state() {
    let dir = directory();
    let mut node = Node::with_data(dir.path(), 3);
    let (role, digest) = (node.role.state().clone(), node.digest());
    let before = files(dir.path());
    node.role.update(|state| state.promised = 9).unwrap();
    drop(node);
    let (path, new) = (dir.path().join("role"), dir.path().join("role.new"));
    let next = fs::read(&path).unwrap();
    fs::write(&path, &before[&path]).unwrap();
    // The whole of it as well: a crash before the rename.
    for cut in 0..=next.len() {
        fs::write(&new, &next[..cut]).unwrap();
        let node = Node::open(dir.path());
        assert_eq!(*node.role.state(), role, "cut at {cut}");
        assert_eq!(node.digest(), digest, "cut at {cut}");
        drop(node);
        let mut after = files(dir.path());
        after.remove(&new);
        assert_eq!(after, before, "cut at {cut}");
    }
    // What is left of it is in nobody's way.
    fs::write(&new, &next[..next.len() / 2]).unwrap();
    let mut node = Node::open(dir.path());
    node.role.update(|state| state.promised = 12).unwrap();
    drop(node);
    assert_eq!(Node::open(dir.path()).role.state().promised, 12);
}

#[test]
fn a_start_with_a_role_file_that_is_damaged_at_any_byte_is_refused_and_changes_nothing() {
    let dir = directory();
    let node = Node::with_data(dir.path(), 3);
    node.checkpoint();
    let (role, digest) = (node.role.state().clone(), node.digest());
    drop(node);
    let path = dir.path().join("role");
    let good = fs::read(&path).unwrap();
    for (damage, bad) in damages(&good) {
        fs::write(&path, &bad).unwrap();
        let before = files(dir.path());
        let refused = Node::try_open(dir.path()).err().expect(&damage).to_string();
        assert!(
            refused.contains(path.to_str().unwrap()),
            "{damage}: {refused}"
        );
        assert_eq!(files(dir.path()), before, "{damage}");
    }
    fs::write(&path, &good).unwrap();
    let node = Node::open(dir.path());
    assert_eq!((node.role.state(), node.digest()), (&role, digest));
}

#[test]
fn a_crash_at_any_byte_of_a_checkpoint_that_is_being_written_finds_everything() {
    let dir = directory();
    let node = with_two_checkpoints(dir.path());
    let (end, digest, starts) = (node.journal.end(), node.digest(), node.starts());
    let before = files(dir.path());
    node.checkpoint();
    let path = checkpoint::path_of(&node.generation(), node.end());
    let next = fs::read(&path).unwrap();
    drop(node);
    fs::remove_file(&path).unwrap();
    for (path, content) in &before {
        // The oldest one, which the third has replaced.
        fs::write(path, content).unwrap();
    }
    let part = path.with_extension("part");
    // The whole of it as well: a crash before the rename.
    for cut in 0..=next.len() {
        fs::write(&part, &next[..cut]).unwrap();
        let node = Node::open(dir.path());
        assert_eq!(
            (node.journal.end(), node.digest(), node.starts()),
            (end, digest, starts.clone()),
            "cut at {cut}"
        );
        drop(node);
        assert_eq!(files(dir.path()), before, "cut at {cut}");
    }
}

#[test]
fn a_start_with_a_checkpoint_that_is_damaged_at_any_byte_goes_by_an_older_one_and_the_log() {
    let dir = directory();
    let mut node = with_two_checkpoints(dir.path());
    let starts = node.starts();
    // The log behind the older one has to do; that of the beginning is gone.
    node.journal.enforce_retention(starts[1], 0).unwrap();
    assert!(node.journal.reader().first_offset() > 1);
    let (end, digest) = (node.journal.end(), node.digest());
    let newest = checkpoint::path_of(&node.generation(), starts[0]);
    drop(node);
    let good = fs::read(&newest).unwrap();
    for (damage, bad) in damages(&good) {
        fs::write(&newest, bad).unwrap();
        let node = Node::try_open(dir.path()).unwrap_or_else(|why| panic!("{damage}: {why}"));
        assert_eq!(
            (node.journal.end(), node.digest()),
            (end, digest),
            "{damage}"
        );
    }
}

#[test]
fn a_start_with_its_only_checkpoint_damaged_at_any_byte_goes_by_the_whole_log_or_is_refused() {
    let dir = directory();
    let mut node = with_two_checkpoints(dir.path());
    let starts = node.starts();
    let (end, digest) = (node.journal.end(), node.digest());
    let [only, other] = [0, 1].map(|at| checkpoint::path_of(&node.generation(), starts[at]));
    fs::remove_file(other).unwrap();
    let whole = directory();
    copy_into(dir.path(), whole.path());
    node.journal.enforce_retention(starts[0], 0).unwrap();
    assert!(node.journal.reader().first_offset() > 1);
    drop(node);
    let good = fs::read(&only).unwrap();
    let in_whole = whole.path().join(only.strip_prefix(dir.path()).unwrap());
    for (damage, bad) in damages(&good) {
        fs::write(&in_whole, &bad).unwrap();
        let node = Node::try_open(whole.path()).unwrap_or_else(|why| panic!("{damage}: {why}"));
        assert_eq!(
            (node.journal.end(), node.digest()),
            (end, digest),
            "{damage}"
        );

        fs::write(&only, &bad).unwrap();
        let before = files(dir.path());
        let refused = Node::try_open(dir.path()).err().expect(&damage).to_string();
        assert!(
            refused.contains(only.to_str().unwrap()),
            "{damage}: {refused}"
        );
        assert_eq!(files(dir.path()), before, "{damage}");
    }
    fs::write(&only, &good).unwrap();
    assert_eq!(Node::open(dir.path()).digest(), digest);
}
