//! Where in one cluster's history a node stands, and proof that two nodes stand in the same one.
//!
//! Offsets are dense, one per operation, and start at 1; offset 0 is "nothing yet". Every grant of mastership opens a
//! new epoch, so that the same offset written by two processes is told apart. The chain is a hash over all bytes of
//! the log up to a position: two nodes with the same chain hold the same bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The end of a log prefix: the epoch of its last operation and that operation's offset.
///
/// Ordered by epoch first: of two logs, the one whose last operation has the higher epoch is the more advanced.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Position {
    /// Epoch in which the operation at `offset` was written; 0 when there is none.
    pub epoch: u64,
    /// Offset of the last operation; 0 when there is none.
    pub offset: u64,
}

impl Position {
    /// The position of an empty log.
    pub const ZERO: Position = Position {
        epoch: 0,
        offset: 0,
    };

    /// The position `<epoch>.<offset>`.
    pub const fn new(epoch: u64, offset: u64) -> Self {
        Position { epoch, offset }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.offset)
    }
}

/// A text that is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a position: expected <epoch>.<offset>, two whole numbers, such as 3.1500")]
pub struct ParsePositionError(String);

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (epoch, offset) = text.split_once('.')?;
            Some(Position::new(epoch.parse().ok()?, offset.parse().ok()?))
        };
        parse().ok_or_else(|| ParsePositionError(text.to_owned()))
    }
}

/// 128-bit hash over all bytes of a log up to some batch boundary; 0 for the empty log.
///
/// It tells histories apart by accident, not by malice: the link's authentication is for the latter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Chain(pub u128);

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl From<Chain> for String {
    fn from(chain: Chain) -> String {
        format!("{chain:?}")
    }
}

impl TryFrom<String> for Chain {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(Chain)
    }
}

/// Where one epoch begins in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: u64,
    /// Offset of its first operation, the epoch record.
    pub first_offset: u64,
    /// The chain just before that operation.
    pub chain: Chain,
}

/// All epochs that a log has operations of, oldest first: epochs and first offsets strictly ascend.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<EpochStart>")]
pub struct History(Vec<EpochStart>);

/// A list that is no history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("epochs and first offsets of a history begin at 1 and strictly ascend")]
pub struct HistoryError;

impl TryFrom<Vec<EpochStart>> for History {
    type Error = HistoryError;

    fn try_from(entries: Vec<EpochStart>) -> Result<Self, Self::Error> {
        History::new(entries).ok_or(HistoryError)
    }
}

impl History {
    /// Builds a history from its entries; `None` unless epochs and first offsets begin at 1 and strictly ascend.
    pub fn new(entries: Vec<EpochStart>) -> Option<Self> {
        let begins = entries
            .first()
            .is_none_or(|e| e.epoch > 0 && e.first_offset > 0);
        let ascending = entries
            .windows(2)
            .all(|w| w[0].epoch < w[1].epoch && w[0].first_offset < w[1].first_offset);
        (begins && ascending).then_some(History(entries))
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> &[EpochStart] {
        &self.0
    }

    /// The same without all but its last `count` entries.
    #[must_use]
    pub fn last(&self, count: usize) -> History {
        History(self.0[self.0.len().saturating_sub(count)..].to_vec())
    }

    /// Opens an epoch. Returns false, and changes nothing, unless it is above all earlier ones.
    pub fn open(&mut self, start: EpochStart) -> bool {
        let above = self
            .0
            .last()
            .is_none_or(|last| last.epoch < start.epoch && last.first_offset < start.first_offset);
        if above {
            self.0.push(start);
        }
        above
    }

    /// The epoch of the operation at `offset`; 0 for offset 0 or one before the first entry.
    pub fn epoch_at(&self, offset: u64) -> u64 {
        let after = self.0.partition_point(|e| e.first_offset <= offset);
        if after == 0 {
            0
        } else {
            self.0[after - 1].epoch
        }
    }

    /// The first offset of the last epoch; 0 when there is none.
    pub fn last_first_offset(&self) -> u64 {
        self.0.last().map_or(0, |e| e.first_offset)
    }

    /// Forgets epochs that begin after `offset`.
    pub fn truncate(&mut self, offset: u64) {
        self.0.retain(|e| e.first_offset <= offset);
    }

    /// The last offset up to which two logs with these histories can be the same, given where each ends:
    /// histories agree while their entries are equal, and part where the first of the two next epochs begins.
    pub fn common_end(&self, self_end: u64, other: &History, other_end: u64) -> u64 {
        let shared = self
            .0
            .iter()
            .zip(&other.0)
            .take_while(|(a, b)| a == b)
            .count();
        // Epochs of a peer's history may begin beyond the end that it names.
        let end = |history: &History, end: u64| {
            let next = history.0.get(shared);
            next.map_or(end, |e| end.min(e.first_offset.saturating_sub(1)))
        };
        if shared == 0 {
            0
        } else {
            end(self, self_end).min(end(other, other_end))
        }
    }
}

/// The end of a log and the chain there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct LogEnd {
    /// Position of the last operation.
    pub position: Position,
    /// The chain after it.
    pub chain: Chain,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_that_does_not_ascend_is_refused_wherever_it_comes_from() {
        let start = |epoch, first_offset| EpochStart {
            epoch,
            first_offset,
            chain: Chain(0),
        };
        for entries in [
            vec![start(0, 1)],
            vec![start(1, 0)],
            vec![start(2, 5), start(2, 9)],
            vec![start(1, 5), start(2, 5)],
        ] {
            let text = serde_json::to_string(&entries).unwrap();
            assert_eq!(History::new(entries), None);
            assert!(serde_json::from_str::<History>(&text).is_err(), "{text}");
        }
        let entries = vec![start(1, 1), start(3, 9)];
        let text = serde_json::to_string(&entries).unwrap();
        let read: History = serde_json::from_str(&text).unwrap();
        assert_eq!(read.entries(), entries);
    }
}
