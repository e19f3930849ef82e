//! Any order of writes, checkpoints, restarts and undoing.

use super::*;

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
                    node.journal.enforce_retention(start, 0).unwrap();
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
