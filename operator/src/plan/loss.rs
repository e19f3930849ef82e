//! What a failover gives up: how far the old master is known to have been, and how much of that a log lacks.
//!
//! Offsets alone say nothing about it. A log that ends further may have gone another way from an earlier epoch on, so
//! that what counts is where the two part.

use vectorizer_api::control::State;
use vectorizer_api::position::{History, Position};
use vectorizer_api::replication::Role;

use super::Draft;
use crate::crd::{MasterPosition, MasterStatus, TargetStep};
use crate::world::{Member, World};

/// Keeps how far the master is: it may not answer any more when that is asked.
pub(super) fn remember(draft: &mut Draft<'_>) {
    let Some(master) = &draft.memory.master else {
        return;
    };
    // Later on in a change it may follow the next master already: what it has then is not its own.
    let own = |state: &&State| match draft.memory.target.as_ref().map(|t| t.step) {
        None | Some(TargetStep::Reserved) => true,
        Some(TargetStep::HandingOver) => state.role == Role::Master,
        Some(TargetStep::Vacating | TargetStep::Fencing | TargetStep::Granting) => false,
    };
    let now = draft.world.node(master.node_id).and_then(Member::state);
    let now = now.filter(own).and_then(position);
    let before = master.position.or_else(|| reported(draft.world, master));
    let furthest = before.max(now);
    if let Some(master) = &mut draft.memory.master {
        master.position = furthest;
    }
}

/// Where a node's log ends, and where its last epoch begins; `None` while the log is empty.
pub(super) fn position(state: &State) -> Option<MasterPosition> {
    let Position { epoch, offset } = state.position;
    let entries = state.history.entries();
    let start = entries.iter().find(|e| e.epoch == epoch);
    (offset > 0).then_some(MasterPosition {
        epoch,
        offset,
        first_offset: start.map(|e| e.first_offset),
    })
}

/// What the list of nodes says of the master. Its epoch there is what it promised, which may be above what it wrote in.
fn reported(world: &World, master: &MasterStatus) -> Option<MasterPosition> {
    let mut nodes = world.status.nodes.iter();
    let node =
        nodes.find(|n| n.pod == master.pod && n.node_id.is_none_or(|id| id == master.node_id))?;
    let offset = node.offset.filter(|offset| *offset > 0)?;
    Some(MasterPosition {
        epoch: node.epoch.unwrap_or(master.epoch).min(master.epoch),
        offset,
        first_offset: None,
    })
}

/// How many operations are known to be lost when this node becomes the master.
pub(super) fn lost_with(draft: &Draft<'_>, next: &State) -> u64 {
    let known = draft.memory.master.as_ref().and_then(|m| m.position);
    known.map_or(0, |known| lost(known, &next.history, next.position))
}

/// How many operations up to `known` a log lacks that has these epochs and ends at `end`. At least so many: no more is
/// known of the old master's history than where its last epoch began.
fn lost(known: MasterPosition, history: &History, end: Position) -> u64 {
    let entries = history.entries();
    // An epoch belongs to one node: what two logs have of the same one is the same. Without it, they part before it.
    let shared = if entries.iter().any(|e| e.epoch == known.epoch) {
        known.offset
    } else {
        known.first_offset.unwrap_or(known.offset).saturating_sub(1)
    };
    // What the log has of later epochs the old master never had.
    let later = entries.iter().find(|e| e.epoch > known.epoch);
    let own = later.map_or(end.offset, |e| {
        end.offset.min(e.first_offset.saturating_sub(1))
    });
    known.offset.saturating_sub(shared.min(own))
}

#[cfg(test)]
mod tests {
    use vectorizer_api::position::{Chain, EpochStart};

    use super::*;

    /// Epochs and their first offsets.
    fn history(starts: &[(u64, u64)]) -> History {
        let start = |&(epoch, first_offset): &(u64, u64)| EpochStart {
            epoch,
            first_offset,
            chain: Chain::default(),
        };
        History::new(starts.iter().map(start).collect()).unwrap()
    }

    fn known(epoch: u64, offset: u64, first_offset: impl Into<Option<u64>>) -> MasterPosition {
        MasterPosition {
            epoch,
            offset,
            first_offset: first_offset.into(),
        }
    }

    #[test]
    fn a_log_that_ends_further_in_an_older_epoch_lacks_the_whole_newer_one() {
        let old = history(&[(1, 1), (2, 41)]);
        assert_eq!(lost(known(3, 100, 81), &old, Position::new(2, 120)), 20);
        // And more, when it ends before the newer one began.
        assert_eq!(lost(known(3, 100, 81), &old, Position::new(2, 70)), 30);
        assert_eq!(lost(known(3, 100, 81), &old, Position::new(2, 80)), 20);
    }

    #[test]
    fn of_an_epoch_that_both_have_the_end_is_lacking() {
        let same = history(&[(1, 1), (3, 81)]);
        assert_eq!(lost(known(3, 100, 81), &same, Position::new(3, 95)), 5);
        assert_eq!(lost(known(3, 100, 81), &same, Position::new(3, 100)), 0);
        // It was seen longer ago than the log goes.
        assert_eq!(lost(known(3, 100, 81), &same, Position::new(3, 130)), 0);
        // Where the epoch begins does not matter then.
        assert_eq!(lost(known(3, 100, None), &same, Position::new(3, 95)), 5);
        // It heard of the epoch and has nothing of it yet.
        assert_eq!(lost(known(3, 100, 81), &same, Position::new(1, 80)), 20);
    }

    #[test]
    fn what_a_log_has_of_later_epochs_makes_up_for_nothing() {
        let later = history(&[(1, 1), (3, 81), (4, 91)]);
        assert_eq!(lost(known(3, 100, 81), &later, Position::new(4, 300)), 10);
        let around = history(&[(1, 1), (4, 61)]);
        assert_eq!(lost(known(3, 100, 81), &around, Position::new(4, 300)), 40);
        let all = history(&[(1, 1), (3, 81), (4, 101)]);
        assert_eq!(lost(known(3, 100, 81), &all, Position::new(4, 101)), 0);
    }

    #[test]
    fn of_an_epoch_that_a_log_lacks_at_least_the_last_operation_is_lost() {
        let old = history(&[(1, 1), (2, 41)]);
        assert_eq!(lost(known(3, 100, None), &old, Position::new(2, 120)), 1);
        assert_eq!(lost(known(3, 100, None), &old, Position::new(2, 90)), 10);
    }

    #[test]
    fn an_empty_log_lacks_everything() {
        let none = History::default();
        assert_eq!(lost(known(3, 100, 81), &none, Position::ZERO), 100);
        assert_eq!(lost(known(1, 100, 1), &none, Position::ZERO), 100);
    }

    #[test]
    fn of_two_positions_the_later_epoch_counts_and_only_then_the_offset() {
        assert!(known(4, 96, 96) > known(3, 100, 81));
        assert!(known(3, 100, 81) > known(3, 99, 81));
        assert!(
            known(3, 100, 81) > known(3, 100, None),
            "of the same one, what is known of it stays"
        );
    }
}
