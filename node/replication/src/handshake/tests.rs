use proptest::prelude::*;

use super::*;
use crate::batch::Batch;
use crate::position::EpochStart;

/// A log as a list of real batches, one operation each unless said otherwise.
#[derive(Clone, Debug, Default)]
struct Log {
    batches: Vec<Batch>,
    history: History,
}

impl Log {
    fn end(&self) -> LogEnd {
        self.batches
            .last()
            .map_or_else(LogEnd::default, |b| LogEnd {
                position: b.end(),
                chain: b.chain_after(),
            })
    }

    fn write(mut self, epoch: u64, count: u64, what: &str) -> Self {
        for n in 0..count {
            let end = self.end();
            let first = end.position.offset + 1;
            if end.position.epoch < epoch {
                self.history.open(EpochStart {
                    epoch,
                    first_offset: first,
                    chain: end.chain,
                });
            }
            let text = format!("{what}{n}");
            let batch = Batch::encode(epoch, first, 1, 0, end.chain, text.as_bytes());
            self.batches.push(batch.unwrap());
        }
        self
    }

    fn cut(mut self, to: u64) -> Self {
        self.batches.retain(|b| b.last_offset() <= to);
        self.history.truncate(to);
        self
    }

    fn chain_at(&self, offset: u64) -> Option<Chain> {
        self.batches
            .iter()
            .find(|b| b.last_offset() == offset)
            .map(Batch::chain_after)
    }

    fn as_replica(&self) -> ReplicaLog {
        ReplicaLog {
            end: self.end(),
            history: self.history.clone(),
            has_data: true,
            wants_snapshot: false,
        }
    }

    fn as_master(&self, first_offset: u64) -> MasterLog {
        MasterLog {
            first_offset,
            end: self.end(),
            history: self.history.clone(),
        }
    }
}

fn meet(replica: &Log, master: &Log, first_offset: u64) -> Start {
    let (replica, log) = (replica.as_replica(), master.as_master(first_offset));
    let chain = master.chain_at(common_offset(&replica, &log));
    decide(&replica, &log, chain)
}

#[test]
fn a_history_that_reaches_beyond_its_log_makes_nothing_common_that_is_not_there() {
    let log = Log::default().write(1, 9, "a");
    let master = log.as_master(1);
    let other = Log::default().write(1, 8, "a").write(3, 1, "b");
    let replica = ReplicaLog {
        history: other.history,
        ..log.clone().cut(3).as_replica()
    };
    assert_eq!(common_offset(&replica, &master), 3);
    let start = decide(&replica, &master, log.chain_at(3));
    assert_eq!(start, Start::Continue { from: 4 });
    // The same of a master whose end was read before its history.
    let early = MasterLog {
        end: log.clone().cut(2).end(),
        ..Log::default()
            .write(1, 3, "a")
            .write(2, 2, "b")
            .as_master(1)
    };
    let other = Log::default().write(1, 3, "a").write(3, 2, "c");
    assert_eq!(common_offset(&other.as_replica(), &early), 2);
}

#[test]
fn the_greatest_offset_is_no_overflow() {
    let end = LogEnd {
        position: crate::position::Position::new(1, u64::MAX),
        chain: Chain(1),
    };
    let history = Log::default().write(1, 1, "a").history;
    let replica = ReplicaLog {
        end,
        history: history.clone(),
        has_data: true,
        wants_snapshot: false,
    };
    let master = MasterLog {
        first_offset: 1,
        end,
        history,
    };
    let start = decide(&replica, &master, Some(Chain(1)));
    assert_eq!(start, Start::Continue { from: u64::MAX });
}

#[test]
fn decision_table() {
    let base = Log::default().write(1, 5, "a");
    let two = base.clone().write(2, 5, "b");
    let own_tail = base.clone().write(1, 3, "lost");
    let tail_in_own_epoch = base.clone().write(2, 3, "other 2");
    let foreign = Log::default().write(1, 5, "x");
    let snapshot = |why| Start::Snapshot { why };
    let to_five = Start::Truncate { to: base.end() };
    let table = [
        (
            "empty, whole log",
            Log::default(),
            &two,
            1,
            Start::Continue { from: 1 },
        ),
        (
            "empty, log cut",
            Log::default(),
            &two,
            2,
            snapshot(Why::Empty),
        ),
        ("prefix", base.clone(), &two, 1, Start::Continue { from: 6 }),
        (
            "prefix, next held",
            base.clone(),
            &two,
            6,
            Start::Continue { from: 6 },
        ),
        (
            "prefix, next gone",
            base.clone(),
            &two,
            7,
            snapshot(Why::BelowRetention),
        ),
        (
            "at the end",
            two.clone(),
            &two,
            11,
            Start::Continue { from: 11 },
        ),
        ("tail of the old epoch", own_tail.clone(), &two, 1, to_five),
        (
            "longer than the master",
            own_tail.write(1, 20, "more"),
            &two,
            1,
            to_five,
        ),
        (
            "same epoch, other bytes",
            tail_in_own_epoch,
            &two,
            1,
            snapshot(Why::ChainDiffers),
        ),
        (
            "tail, point gone",
            base.clone().write(1, 3, "lost"),
            &two,
            7,
            snapshot(Why::BelowRetention),
        ),
        (
            "another beginning",
            foreign,
            &two,
            1,
            snapshot(Why::ChainDiffers),
        ),
        (
            "other epochs",
            Log::default().write(7, 5, "z"),
            &two,
            1,
            snapshot(Why::NothingCommon),
        ),
    ];
    for (name, replica, master, first, expected) in table {
        assert_eq!(meet(&replica, master, first), expected, "{name}");
    }
}

#[test]
fn a_replica_that_asks_or_has_no_usable_data_gets_a_snapshot() {
    let log = Log::default().write(1, 5, "a");
    let master = log.as_master(1);
    let chain = Some(log.end().chain);
    let asks = ReplicaLog {
        wants_snapshot: true,
        ..log.as_replica()
    };
    let why = Why::Asked;
    assert_eq!(decide(&asks, &master, chain), Start::Snapshot { why });
    let unusable = ReplicaLog {
        has_data: false,
        ..log.as_replica()
    };
    let why = Why::Empty;
    assert_eq!(decide(&unusable, &master, chain), Start::Snapshot { why });
}

#[test]
fn an_end_inside_a_batch_of_the_master_is_not_continued() {
    let log = Log::default().write(1, 5, "a");
    let chain_there = None;
    let why = Why::ChainDiffers;
    assert_eq!(
        decide(&log.as_replica(), &log.as_master(1), chain_there),
        Start::Snapshot { why }
    );
}

fn epochs() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((1..4_u64, 1..5_u64), 0..5)
}

fn grow(log: Log, epochs: &[(u64, u64)], what: &str, step: u64) -> Log {
    epochs.iter().fold(log, |log, (jump, count)| {
        // Each side opens only epochs of its own: an epoch belongs to one node.
        let last = log.end().position.epoch;
        let epoch = (last + jump) / 2 * 2 + 2 + step;
        log.write(epoch, *count, what)
    })
}

proptest! {
    #[test]
    fn whatever_two_logs_of_one_cluster_look_like_they_meet_at_their_last_common_batch(
        shared in epochs(), own in epochs(), others in epochs(), first in 1..30_u64
    ) {
        let base = grow(Log::default(), &shared, "s", 0);
        let replica = grow(base.clone(), &own, "r", 0);
        let master = grow(base.clone(), &others, "m", 1);
        let first = first.min(master.end().position.offset + 1);
        let common = base.end().position.offset;
        match meet(&replica, &master, first) {
            Start::Continue { from } => {
                prop_assert_eq!(from, replica.end().position.offset + 1);
                prop_assert!(from >= first);
                prop_assert_eq!(common, replica.end().position.offset, "only a prefix is continued");
            }
            Start::Truncate { to } => {
                prop_assert_eq!(to, base.end());
                // After cutting there the two agree, and the answer is to continue.
                let again = meet(&replica.cut(common), &master, first);
                prop_assert_eq!(again, Start::Continue { from: common + 1 });
            }
            Start::Snapshot { .. } => {
                prop_assert!(common == 0 || common + 1 < first, "needless full sync");
            }
        }
    }
}
