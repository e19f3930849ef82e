//! Where a replica goes on: one pure decision over what both logs look like.
//!
//! | the replica | the master's log | decision |
//! |---|---|---|
//! | asks for a snapshot, or has a log but no usable data | | snapshot |
//! | is empty | reaches back to offset 1 | continue from 1 |
//! | is empty | begins later | snapshot |
//! | is a prefix of the master's log (histories agree up to its end, and so does the chain there) | holds the next operation | continue |
//! | is a prefix | begins later | snapshot |
//! | has a tail of its own after a common point | holds that point | truncate to it |
//! | has a tail of its own | begins later, or nothing is common | snapshot |
//! | agrees by its history and not by its chain | | snapshot: the same epoch with other bytes is never to be continued |

use crate::breakage::{self, Breakage};
use crate::position::{Chain, History, LogEnd};

/// What the replica says about its log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReplicaLog {
    /// Where it ends.
    pub end: LogEnd,
    /// Its epochs.
    pub history: History,
    /// Whether its store is a usable copy of the data up to `end`.
    pub has_data: bool,
    /// It could not get to a common point by itself.
    pub wants_snapshot: bool,
}

/// What the master knows of its own log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MasterLog {
    /// First offset that it still holds; `end + 1` when it holds none.
    pub first_offset: u64,
    /// Where it ends.
    pub end: LogEnd,
    /// Its epochs.
    pub history: History,
}

/// The decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// Feed from this offset on.
    Continue {
        /// The first offset that the replica lacks.
        from: u64,
    },
    /// The replica drops everything after this point and asks again.
    Truncate {
        /// The last point that both have.
        to: LogEnd,
    },
    /// Only a full sync helps.
    Snapshot {
        /// Why, for logs and counters.
        why: Why,
    },
}

/// Why a full sync is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// The replica asked for it: it cannot get back to the common point by itself.
    Asked,
    /// It has no usable data, and the log does not reach back to the beginning.
    Empty,
    /// What it lacks is no longer in the log.
    BelowRetention,
    /// The two logs have no common point.
    NothingCommon,
    /// At the common point the chains differ, or the master's log has no batch boundary there.
    ChainDiffers,
}

impl Why {
    /// A word for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Asked => "asked",
            Why::Empty => "empty",
            Why::BelowRetention => "below_retention",
            Why::NothingCommon => "nothing_common",
            Why::ChainDiffers => "chain_differs",
        }
    }
}

/// The last offset up to which both logs can be the same, by their histories; where the master looks up its chain.
pub fn common_offset(replica: &ReplicaLog, master: &MasterLog) -> u64 {
    replica.history.common_end(
        replica.end.position.offset,
        &master.history,
        master.end.position.offset,
    )
}

/// Decides where the replica goes on.
///
/// `chain_there` is the master's chain at [`common_offset`]: `None` when its log does not hold a batch boundary there.
/// It is not looked at for offset 0.
pub fn decide(replica: &ReplicaLog, master: &MasterLog, chain_there: Option<Chain>) -> Start {
    let snapshot = |why| Start::Snapshot { why };
    let end = replica.end.position.offset;
    if replica.wants_snapshot || breakage::on(Breakage::AlwaysSnapshot) {
        return snapshot(Why::Asked);
    }
    if end == 0 {
        return if master.first_offset <= 1 {
            Start::Continue { from: 1 }
        } else {
            snapshot(Why::Empty)
        };
    }
    if !replica.has_data {
        return snapshot(Why::Empty);
    }
    let common = common_offset(replica, master);
    if common == 0 {
        return snapshot(Why::NothingCommon);
    }
    // Of any two numbers: a peer may have sent the greatest.
    let next = common.saturating_add(1);
    if next < master.first_offset {
        return snapshot(Why::BelowRetention);
    }
    let Some(chain) = chain_there else {
        return snapshot(Why::ChainDiffers);
    };
    if common < end {
        if breakage::on(Breakage::SkipTruncate) {
            return Start::Continue { from: end + 1 };
        }
        let epoch = master.history.epoch_at(common);
        return Start::Truncate {
            to: LogEnd {
                position: crate::position::Position::new(epoch, common),
                chain,
            },
        };
    }
    if chain != replica.end.chain && !breakage::on(Breakage::SkipTruncate) {
        return snapshot(Why::ChainDiffers);
    }
    if breakage::on(Breakage::ResumeOneOff) && common < master.end.position.offset {
        return Start::Continue { from: common + 2 };
    }
    Start::Continue { from: next }
}

#[cfg(test)]
mod tests;
