//! Write concern: how many replicas must hold an operation before its write is answered, and who counts.
//!
//! A master answers a write once its own disk and the disks of `acks` other members hold it. What failovers need in
//! return is a promise about numbers: of N members, a failover fences N − `acks`, the master included, so that one of
//! them holds every operation that was answered (design, "Changing the master"). Both sides therefore have to agree on
//! members and `acks` at every moment. [`Membership`] keeps the order that makes it so:
//!
//! | change | order |
//! |---|---|
//! | a member is added, `acks` is lowered | recorded first, then used |
//! | a member is removed, `acks` is raised | used first; recorded once everything so far is covered that way |
//!
//! Once `acks` is lowered to 0, one node is enough for a failover, and it may be one that was not there when a write was
//! answered before. So the record keeps the last position that may have been answered by then
//! ([`Membership::secured`]), and no failover gives that up.
//!
//! Recording is a compare-and-swap of the Lease by the master, in its own epoch. Without Kubernetes there is no Lease:
//! every replica that is fed counts, and nothing is recorded.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::breakage::{self, Breakage};
use crate::message::Ack;
use crate::position::{History, Position};

/// What an acknowledgement says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// On the replica's disk.
    #[default]
    Durable,
    /// On its disk, and seen by whoever reads there.
    Applied,
}

impl Level {
    /// The offset up to which a replica has acknowledged. At either level it is on its disk.
    pub fn of(self, ack: Ack) -> u64 {
        match self {
            Level::Durable => ack.durable,
            Level::Applied => ack.durable.min(ack.applied),
        }
    }
}

/// Who belongs to a cluster, and how many must hold a write: what the Lease records.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Concern {
    /// Node ids, the master's own among them. Empty until they were recorded for the first time.
    pub members: BTreeSet<Uuid>,
    /// Replicas that must hold a write besides the master, before it is answered; 0 for asynchronous replication.
    pub acks: u32,
}

impl Concern {
    /// How many of the members a failover has to fence, so that one of them holds every write that was answered.
    ///
    /// With `acks` of 0 it is 1: nothing is promised of writes from then on, but somebody has to be there.
    pub fn quorum(&self) -> usize {
        let acks = usize::try_from(self.acks).unwrap_or(usize::MAX);
        if acks == 0 {
            return 1;
        }
        self.members.len().saturating_sub(acks).max(1)
    }
}

/// A wish that cannot be followed. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConcernError {
    /// The master itself is to be removed.
    #[error("the master itself ({0}) is not among the members: promote another one first")]
    WithoutMaster(Uuid),
    /// More acknowledgements than there are replicas.
    #[error(
        "{acks} acknowledgements are asked of {replicas} replicas: expected at most {replicas}"
    )]
    TooMany {
        /// Asked for.
        acks: u32,
        /// Members besides the master.
        replicas: usize,
    },
}

/// The next thing to do on the way to another [`Concern`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing is left to do.
    Done,
    /// Record this in the Lease, then say so with [`Membership::recorded`].
    Record(Concern),
    /// It is in use already. Once everything in the log is covered by it, record it and say so.
    CoverThenRecord(Concern),
}

/// Members and acknowledgements on a master, during its epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Membership {
    own: Uuid,
    recorded: Concern,
    in_use: Concern,
    /// Whether earlier epochs may have answered writes that replicas had to hold.
    inherits: bool,
    /// Last position that was answered in this epoch, or said to be covered, while replicas had to hold it.
    answered: Position,
    /// On the way to a record that asks for fewer acknowledgements: only these are promised any more.
    lowering: Option<u32>,
}

impl Membership {
    /// What the Lease recorded when it granted the epoch to the node `own`.
    pub fn granted(own: Uuid, recorded: Concern) -> Self {
        Membership {
            own,
            in_use: recorded.clone(),
            inherits: recorded.acks > 0,
            answered: Position::ZERO,
            lowering: None,
            recorded,
        }
    }

    /// As many replicas as are asked for hold everything up to `position`, and somebody is told so: a client whose write
    /// is answered, or replicas that give it up no more. Also while the record is behind what is in use, as it may say
    /// more than this node has heard.
    pub fn answer(&mut self, position: Position) {
        if !breakage::on(Breakage::RecordUnsecured) {
            self.answered = self.answered.max(position);
        }
    }

    /// Acknowledgements of the record that is under way, if that asks for fewer: no more are promised from here on.
    pub fn lowering(&self) -> Option<u32> {
        self.lowering
    }

    /// Whether failovers keep to nothing, as far as this node knows or has asked for.
    pub fn promises_nothing(&self) -> bool {
        self.lowering.unwrap_or(self.recorded.acks) == 0
    }

    /// Up to where writes may have been answered while replicas had to hold them: what goes on record beside the next
    /// concern. `history` is this node's, its own epoch the last in it.
    ///
    /// Of earlier epochs it is not known what was answered: everything before this one may have been.
    pub fn secured(&self, history: &History) -> Position {
        let before = history.last_first_offset().saturating_sub(1);
        let inherited = Position {
            epoch: history.epoch_at(before),
            offset: before,
        };
        let inherited = if self.inherits {
            inherited
        } else {
            Position::ZERO
        };
        inherited.max(self.answered)
    }

    /// What this node goes by, unless a change of it is on the way or was given up without an answer.
    pub fn settled(&self) -> Option<&Concern> {
        let settled = self.in_use == self.recorded && self.lowering.is_none();
        settled.then_some(&self.recorded)
    }

    /// What decides when a write is answered.
    pub fn in_use(&self) -> &Concern {
        &self.in_use
    }

    /// What the Lease says, as far as known.
    pub fn on_record(&self) -> &Concern {
        &self.recorded
    }

    /// Goes one step towards `wish`. Of a wish that was given up half way, nothing is left in use but what the steps
    /// of this one need.
    pub fn towards(&mut self, wish: &Concern) -> Result<Change, ConcernError> {
        if !wish.members.contains(&self.own) {
            return Err(ConcernError::WithoutMaster(self.own));
        }
        let replicas = wish.members.len() - 1;
        if usize::try_from(wish.acks).map_or(true, |acks| acks > replicas) {
            let acks = wish.acks;
            return Err(ConcernError::TooMany { acks, replicas });
        }
        if self.recorded == *wish {
            self.given_up();
            return Ok(Change::Done);
        }
        let first = Concern {
            members: &self.recorded.members | &wish.members,
            acks: self.recorded.acks.min(wish.acks),
        };
        self.lowering = (first.acks < self.recorded.acks).then_some(first.acks);
        if first != self.recorded {
            // More acknowledgements are used at once: a member that is on the way in does not make them fewer meanwhile.
            self.in_use = Concern {
                members: self.recorded.members.clone(),
                acks: self.recorded.acks.max(wish.acks),
            };
            return Ok(Change::Record(first));
        }
        self.in_use = wish.clone();
        Ok(Change::CoverThenRecord(wish.clone()))
    }

    /// The Lease says this now.
    ///
    /// What is in use follows with the next step: see [`Self::towards`].
    pub fn recorded(&mut self, concern: Concern) {
        self.lowering = None;
        self.recorded = concern;
    }

    /// Uses what is on record, and nothing else: a wish is given up, and the Lease is known to say what it said before.
    ///
    /// When that is not known — an answer was lost — this must wait: what is in use holds for either.
    pub fn given_up(&mut self) {
        self.in_use = self.recorded.clone();
        self.lowering = None;
    }

    /// Whether a replica's acknowledgements count.
    pub fn counts(&self, node_id: Uuid) -> bool {
        self.in_use.members.contains(&node_id) && node_id != self.own
    }
}

/// How far how many replicas have acknowledged: the watermarks of those that count, are connected and hold a whole copy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Coverage {
    /// Highest first.
    watermarks: Vec<u64>,
}

impl Coverage {
    /// From watermarks in any order.
    pub fn new(mut watermarks: Vec<u64>) -> Self {
        watermarks.sort_unstable_by(|a, b| b.cmp(a));
        Coverage { watermarks }
    }

    /// How many replicas can acknowledge now.
    pub fn in_sync(&self) -> usize {
        self.watermarks.len()
    }

    /// The offset up to which `acks` replicas have acknowledged: `None` when 0 are asked for, as nothing is then known
    /// to be anywhere else; 0 when there are fewer.
    pub fn at(&self, acks: u32) -> Option<u64> {
        let nth = usize::try_from(acks).unwrap_or(usize::MAX).checked_sub(1)?;
        if breakage::on(Breakage::CountOneAckForAll) {
            return Some(self.watermarks.first().copied().unwrap_or(0));
        }
        Some(self.watermarks.get(nth).copied().unwrap_or(0))
    }
}

/// Writes that wait for acknowledgements, each for a number of its own.
#[derive(Debug)]
pub struct Waiting<T> {
    by_acks: BTreeMap<u32, BTreeMap<(u64, u64), T>>,
    next: u64,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Waiting {
            by_acks: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<T> Waiting<T> {
    /// One more, which waits until `acks` replicas, and as many as the cluster asks for, have acknowledged `offset`.
    pub fn push(&mut self, acks: u32, offset: u64, waiter: T) {
        self.next += 1;
        let queue = self.by_acks.entry(acks).or_default();
        queue.insert((offset, self.next), waiter);
    }

    /// Those whose wait is over now that the cluster asks for `least`, in log order for each number.
    ///
    /// What the cluster asks for is looked at here and not when the wait begins: a number that is lowered must not leave
    /// writes behind that wait for replicas which are no members any more.
    pub fn take_covered(&mut self, coverage: &Coverage, least: u32) -> Vec<T> {
        let mut over = Vec::new();
        for (acks, queue) in &mut self.by_acks {
            let covered = coverage.at(least.max(*acks)).unwrap_or(u64::MAX);
            while let Some(first) = queue.first_entry() {
                if first.key().0 > covered {
                    break;
                }
                over.push(first.remove());
            }
        }
        self.by_acks.retain(|_, queue| !queue.is_empty());
        over
    }

    /// All of them: this node is no longer master.
    pub fn take_all(&mut self) -> Vec<T> {
        let all = std::mem::take(&mut self.by_acks);
        all.into_values().flat_map(BTreeMap::into_values).collect()
    }

    /// Forgets those that `keep` denies.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for queue in self.by_acks.values_mut() {
            queue.retain(|_, waiter| keep(waiter));
        }
        self.by_acks.retain(|_, queue| !queue.is_empty());
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.by_acks.values().map(BTreeMap::len).sum()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.by_acks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::position::{Chain, EpochStart};

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn concern(members: &[u128], acks: u32) -> Concern {
        Concern {
            members: members.iter().map(|n| id(*n)).collect(),
            acks,
        }
    }

    fn membership(members: &[u128], acks: u32) -> Membership {
        Membership::granted(id(1), concern(members, acks))
    }

    #[test]
    fn an_acknowledgement_is_on_disk_at_either_level() {
        let ack = Ack {
            chunks: 0,
            taken: 9,
            durable: 5,
            applied: 7,
        };
        assert_eq!((Level::Durable.of(ack), Level::Applied.of(ack)), (5, 5));
        let ack = Ack { applied: 3, ..ack };
        assert_eq!((Level::Durable.of(ack), Level::Applied.of(ack)), (5, 3));
    }

    #[test]
    fn the_kth_highest_watermark_is_what_k_replicas_hold() {
        let coverage = Coverage::new(vec![3, 9, 5]);
        let at: Vec<_> = (0..5).map(|acks| coverage.at(acks)).collect();
        assert_eq!(at, [None, Some(9), Some(5), Some(3), Some(0)]);
        assert_eq!(coverage.in_sync(), 3);
    }

    #[test]
    fn a_member_is_added_on_record_before_it_counts() {
        let mut own = membership(&[1, 2], 1);
        let wish = concern(&[1, 2, 3], 1);
        assert_eq!(own.towards(&wish), Ok(Change::Record(wish.clone())));
        assert!(own.counts(id(2)) && !own.counts(id(3)));
        own.recorded(wish.clone());
        assert_eq!(own.towards(&wish), Ok(Change::Done));
        assert!(own.counts(id(3)));
    }

    #[test]
    fn a_member_that_is_to_go_counts_no_more_before_that_is_recorded() {
        let mut own = membership(&[1, 2, 3], 1);
        let wish = concern(&[1, 2], 1);
        let change = own.towards(&wish);
        assert_eq!(change, Ok(Change::CoverThenRecord(wish.clone())));
        assert!(own.counts(id(2)) && !own.counts(id(3)));
        own.given_up();
        assert!(own.counts(id(3)));
    }

    #[test]
    fn more_acknowledgements_are_waited_for_before_that_is_recorded_and_fewer_after() {
        let mut own = membership(&[1, 2, 3], 1);
        let more = concern(&[1, 2, 3], 2);
        let change = own.towards(&more);
        assert_eq!(change, Ok(Change::CoverThenRecord(more.clone())));
        assert_eq!((own.in_use().acks, own.on_record().acks), (2, 1));
        own.recorded(more);
        let fewer = concern(&[1, 2, 3], 0);
        assert_eq!(own.towards(&fewer), Ok(Change::Record(fewer.clone())));
        assert_eq!(own.in_use().acks, 2);
        own.recorded(fewer.clone());
        assert_eq!(own.towards(&fewer), Ok(Change::Done));
        assert_eq!(own.in_use().acks, 0);
    }

    fn history(epochs: &[(u64, u64)]) -> History {
        let start = |(epoch, first_offset): &(u64, u64)| EpochStart {
            epoch: *epoch,
            first_offset: *first_offset,
            chain: Chain::default(),
        };
        History::new(epochs.iter().map(start).collect()).unwrap()
    }

    #[test]
    fn what_was_answered_before_fewer_acknowledgements_is_secured_and_what_comes_after_promises_less()
     {
        let history = history(&[(1, 1), (4, 10)]);
        let own = membership(&[1, 2, 3], 0);
        assert_eq!(
            own.secured(&history),
            Position::ZERO,
            "nobody was waited for"
        );
        let mut own = membership(&[1, 2, 3], 1);
        assert_eq!(
            own.secured(&history),
            Position::new(1, 9),
            "earlier epochs may have answered all that they left"
        );
        own.answer(Position::new(4, 12));
        own.answer(Position::new(4, 11));
        assert_eq!(own.secured(&history), Position::new(4, 12));
        assert!(!own.promises_nothing());
        let none = concern(&[1, 2, 3], 0);
        assert_eq!(own.towards(&none), Ok(Change::Record(none)));
        assert_eq!((own.in_use().acks, own.lowering()), (1, Some(0)));
        assert!(own.promises_nothing());
        assert_eq!(
            own.settled(),
            None,
            "although the same is in use as is on record"
        );
        // Somebody else changed the Lease: what is on record holds.
        own.given_up();
        assert_eq!((own.in_use().acks, own.lowering()), (1, None));
        assert_eq!(own.settled(), Some(&concern(&[1, 2, 3], 1)));
    }

    #[test]
    fn the_first_members_are_recorded_before_anything_is_asked_of_them() {
        let mut own = Membership::granted(id(1), Concern::default());
        let wish = concern(&[1, 2, 3], 2);
        let first = concern(&[1, 2, 3], 0);
        assert_eq!(own.towards(&wish), Ok(Change::Record(first.clone())));
        assert_eq!(
            own.in_use().acks,
            2,
            "not for a moment are there fewer than wished for"
        );
        own.recorded(first);
        let change = own.towards(&wish);
        assert_eq!(change, Ok(Change::CoverThenRecord(wish)));
    }

    #[test]
    fn a_wish_that_cannot_be_met_changes_nothing() {
        let mut own = membership(&[1, 2, 3], 1);
        let before = own.clone();
        let error = own.towards(&concern(&[2, 3], 1)).unwrap_err();
        assert_eq!(error, ConcernError::WithoutMaster(id(1)));
        let error = own.towards(&concern(&[1, 2], 2)).unwrap_err();
        assert!(error.to_string().contains("at most 1"), "{error}");
        assert_eq!(own, before);
    }

    #[test]
    fn writes_are_released_in_log_order_each_by_its_own_number() {
        let mut waiting = Waiting::default();
        for (acks, offset) in [(2, 4), (1, 5), (1, 4), (1, 5)] {
            waiting.push(acks, offset, (acks, offset, waiting.len()));
        }
        assert_eq!(waiting.take_covered(&Coverage::new(vec![3]), 0), []);
        assert_eq!(waiting.take_covered(&Coverage::new(vec![5, 3]), 2), []);
        let over = waiting.take_covered(&Coverage::new(vec![5, 3]), 1);
        assert_eq!(over, [(1, 4, 2), (1, 5, 1), (1, 5, 3)]);
        assert_eq!(waiting.len(), 1);
        assert_eq!(waiting.take_all(), [(2, 4, 0)]);
        assert!(waiting.is_empty());
    }

    /// All sets of `size` members.
    fn subsets(members: &BTreeSet<Uuid>, size: usize) -> Vec<BTreeSet<Uuid>> {
        let all: Vec<_> = members.iter().copied().collect();
        (0u32..1 << all.len())
            .filter(|bits| bits.count_ones() as usize == size)
            .map(|bits| {
                let picked = all.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
                picked.map(|(_, id)| *id).collect()
            })
            .collect()
    }

    proptest! {
        /// Whatever is wished for and wherever it stops: each write that is answered by what is in use is held by at
        /// least one of any quorum of what the Lease says, also when the record was made and its answer lost.
        #[test]
        fn every_answered_write_is_in_every_quorum_of_the_record(
            wishes in proptest::collection::vec((proptest::collection::btree_set(2u128..6, 0..4), 0u32..4, 0u8..3), 1..8),
        ) {
            let mut own = membership(&[1, 2, 3], 1);
            // What the Lease really says: behind or ahead of what the master knows.
            let mut lease = own.on_record().clone();
            // Holders of each write that was answered, with as few holders as that takes.
            let mut answered: Vec<BTreeSet<Uuid>> = Vec::new();
            for (others, acks, fate) in wishes {
                let mut wish = concern(&[1], acks);
                wish.members.extend(others.iter().map(|n| id(*n)));
                let Ok(change) = own.towards(&wish) else { continue };
                let counting: Vec<_> = own.in_use().members.iter().copied().filter(|m| own.counts(*m)).collect();
                let k = own.in_use().acks as usize;
                if k > 0 && counting.len() >= k {
                    for start in 0..counting.len() {
                        let mut holders: BTreeSet<_> = counting.iter().cycle().skip(start).take(k).copied().collect();
                        holders.insert(id(1));
                        answered.push(holders);
                    }
                }
                let to_record = match change {
                    Change::Done => continue,
                    Change::Record(concern) => concern,
                    Change::CoverThenRecord(concern) => {
                        if fate == 0 || counting.len() < k {
                            own.given_up();
                            continue;
                        }
                        // Everything so far has reached k of those that count now.
                        for holders in &mut answered {
                            holders.extend(counting.iter().take(k));
                        }
                        concern
                    }
                };
                lease = to_record.clone();
                if fate == 1 {
                    // Recorded, the answer lost: the epoch ends here, and the Lease is what the next one knows.
                    break;
                }
                own.recorded(to_record);
            }
            if lease.acks > 0 {
                for quorum in subsets(&lease.members, lease.quorum()) {
                    for holders in &answered {
                        prop_assert!(!quorum.is_disjoint(holders), "{lease:?}: {quorum:?} has none of {holders:?}");
                    }
                }
            }
        }
    }
}
