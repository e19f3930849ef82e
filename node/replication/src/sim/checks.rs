//! What must hold, one function each. A violation is a panic with the seed's trace position.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::disk::Store;
use super::node::Node;
use super::{LONGEST_PIECE, Time, WINDOW};
use crate::batch::Batch;
use crate::concern::Concern;
use crate::position::{Chain, History, Position};

/// What a violation's message begins with, each followed by a colon.
const INVARIANTS: [&str; 15] = [
    "acknowledged at k",
    "acknowledging",
    "convergence",
    "counting",
    "covered",
    "digest",
    "durable",
    "epoch",
    "lost",
    "memory",
    "mismatch",
    "needless full sync",
    "position",
    "prefix",
    "promise",
];

/// The invariant that a panic's message says was violated; `None` when it is the simulator itself that failed.
pub(super) fn violated(what: &str) -> Option<&'static str> {
    let (name, _) = what.split_once(": ")?;
    INVARIANTS.into_iter().find(|known| *known == name)
}

/// What is known about the run from above, which no node knows.
#[derive(Default)]
pub(super) struct Checks {
    /// Chain and digest at each position, by whoever was there first.
    known: HashMap<Position, (Chain, u128)>,
    /// Which node and process opened an epoch.
    opened: BTreeMap<u64, (usize, u64)>,
    /// Epochs in which something was written.
    written: BTreeSet<u64>,
    highest_acknowledged: Position,
    /// When that was.
    pub(super) acknowledged_at: Time,
    /// Acknowledged writes that must be found in the end, and how many replicas were waited for.
    expected: BTreeMap<Position, u32>,
    highest_durable: HashMap<Uuid, u64>,
    /// What was on the disks that were lost: the history, and how far it was durable.
    lost_volumes: Vec<(History, u64)>,
    pub(super) acknowledged: u64,
    /// Of these, those that replicas were waited for.
    pub(super) acknowledged_at_k: u64,
    pub(super) changes: u64,
    pub(super) deleted: u64,
    pub(super) lost_to_failover: u64,
    pub(super) full_syncs: u64,
    pub(super) partial_syncs: u64,
    pub(super) truncations: u64,
    pub(super) switchovers: u64,
    pub(super) failovers: u64,
    pub(super) handovers: u64,
    pub(super) handovers_failed: u64,
    pub(super) retakes: u64,
    pub(super) disk_failures: u64,
    pub(super) empties: u64,
    /// Steps of an operator that status, Lease or a node refused.
    pub(super) refused: u64,
}

impl Checks {
    /// Prefix: two nodes at the same position hold the same bytes, and the same data.
    pub(super) fn appended(&mut self, node: usize, batch: &Batch, store: &Store) {
        let here = (batch.chain_after(), store.digest());
        let known = *self.known.entry(batch.end()).or_insert(here);
        assert!(
            known.0 == here.0,
            "prefix: node {node} has other bytes at {}",
            batch.end()
        );
        assert!(
            known.1 == here.1,
            "digest: node {node} has other data at {}",
            batch.end()
        );
    }

    /// Digest: data that a node serves is that of its position.
    pub(super) fn exact(&self, node: usize, store: &Store, end: Position) {
        assert!(
            store.applied == end,
            "digest: node {node} serves what is at {}, its log ends at {end}",
            store.applied
        );
        if let Some((_, digest)) = self.known.get(&store.applied) {
            let same = *digest == store.digest();
            assert!(
                same,
                "digest: node {node} serves other data at {}",
                store.applied
            );
        }
    }

    /// Digest: what a master says of a position is what every node holds there, which [`Self::appended`] compares.
    pub(super) fn told(&self, node: usize, at: Position, digest: u128) {
        if let Some((_, known)) = self.known.get(&at) {
            assert!(
                *known == digest,
                "digest: node {node} is told another one than is held at {at}"
            );
        }
    }

    /// A promise is never taken back.
    pub(super) fn promise(&self, node: usize, before: u64, after: u64) {
        assert!(
            after >= before,
            "promise: node {node} went back from {before} to {after}"
        );
    }

    /// An epoch belongs to one process for ever.
    pub(super) fn opened(&mut self, node: usize, boot: u64, epoch: u64) {
        let owner = *self.opened.entry(epoch).or_insert((node, boot));
        assert!(
            owner == (node, boot),
            "epoch: {epoch} is opened by {owner:?} and by {:?}",
            (node, boot)
        );
    }

    /// Which nodes opened epochs, one after the other; several in a row count once.
    pub(super) fn openers(&self) -> Vec<usize> {
        let mut nodes: Vec<usize> = self.opened.values().map(|(node, _)| *node).collect();
        nodes.dedup();
        nodes
    }

    /// Those of them that wrote.
    pub(super) fn masters(&self) -> Vec<usize> {
        let owners = self.written.iter().filter_map(|e| self.opened.get(e));
        let mut nodes: Vec<usize> = owners.map(|(node, _)| *node).collect();
        nodes.dedup();
        nodes
    }

    /// At most one node acknowledges in an epoch, none below one that was acknowledged in or promised.
    pub(super) fn acknowledged(
        &mut self,
        node: usize,
        boot: u64,
        promised: u64,
        position: Position,
        acks: u32,
        now: Time,
    ) {
        let epoch = position.epoch;
        let owner = self.opened.get(&epoch);
        assert!(
            owner == Some(&(node, boot)),
            "acknowledging: node {node} in epoch {epoch} of {owner:?}"
        );
        assert!(
            promised <= epoch,
            "acknowledging: node {node} in {epoch}, promised {promised}"
        );
        assert!(
            epoch >= self.highest_acknowledged.epoch,
            "acknowledging: node {node} at {position}, after {}",
            self.highest_acknowledged
        );
        self.highest_acknowledged = position.max(self.highest_acknowledged);
        self.acknowledged_at = now;
        self.acknowledged += 1;
        self.expected.insert(position, acks);
        self.acknowledged_at_k += u64::from(acks > 0);
    }

    /// Positions are monotonic: a log only goes back where an unsynced tail was torn, a divergent one undone, or a full
    /// sync took its place.
    pub(super) fn position(&self, node: usize, before: Position, after: Position, excused: bool) {
        assert!(
            after > before || excused,
            "position: node {node} went back from {before} to {after}"
        );
    }

    /// What a replica's watermark says is on its disk, is.
    pub(super) fn watermark(&self, node: Uuid, durable: u64) {
        let highest = self.highest_durable.get(&node).copied().unwrap_or(0);
        assert!(
            durable <= highest,
            "durable: node {node} acknowledged {durable}, has {highest}"
        );
    }

    /// Only who is connected counts.
    pub(super) fn counted(&self, node: Uuid, durable: Option<u64>, live: bool) {
        assert!(
            durable.is_none() || live,
            "counting: node {node} counts up to {durable:?} and is not connected"
        );
    }

    /// A node's disk holds everything up to there.
    pub(super) fn durable(&mut self, node: Uuid, durable: u64) {
        let highest = self.highest_durable.entry(node).or_default();
        *highest = durable.max(*highest);
    }

    /// Bounded memory: what is under way to a replica stays within the window, one piece aside.
    pub(super) fn in_flight(&self, bytes: usize) {
        assert!(
            bytes <= WINDOW + LONGEST_PIECE,
            "memory: {bytes} bytes under way"
        );
    }

    /// Bounded memory: what a connection holds for a replica that does not read is bounded, whatever it is.
    pub(super) fn buffered(&self, bytes: usize, most: usize) {
        assert!(bytes <= most, "memory: {bytes} bytes wait for a replica");
    }

    /// No needless full sync: there is one only where the log no longer holds what is missing.
    pub(super) fn full_sync(&mut self, needed: bool, why: &str) {
        assert!(needed, "needless full sync: {why}");
        self.full_syncs += 1;
    }

    /// A change of master that loses nothing: everything acknowledged is in the new master's log.
    pub(super) fn nothing_lost(&self, what: &str, has: impl Fn(Position) -> bool) {
        for position in self.expected.keys() {
            assert!(
                has(*position),
                "lost: {position} was acknowledged and is gone after {what}"
            );
        }
    }

    /// After healing everything converges: the same log and the same data as the master's.
    pub(super) fn converged(&self, node: &Node, master: &Node) {
        let role = &node.role.standing;
        assert!(
            node.log.end() == master.log.end(),
            "convergence: node {} ({role:?}) ends at {}, the master {} at {}",
            node.index,
            node.end(),
            master.index,
            master.end()
        );
        assert!(
            node.store.digest() == master.store.digest(),
            "convergence: node {} has other data",
            node.index
        );
    }

    /// After healing everything converges: what is on record is what is wanted.
    pub(super) fn agreed(&self, recorded: &Concern, wanted: &Concern) {
        assert!(
            recorded == wanted,
            "convergence: {recorded:?} is on record, {wanted:?} is wanted"
        );
    }

    /// A volume is lost, with all that its disk held.
    pub(super) fn emptied(&mut self, node: &Node) {
        self.empties += 1;
        self.lost_volumes
            .push((node.role.history.clone(), node.durable));
    }

    /// Acknowledged at k survives: a failover gives up what nobody was waited for and the chosen node does not have, and
    /// says how much. What replicas were waited for, it has.
    pub(super) fn give_up(&mut self, node: usize, has: impl Fn(Position) -> bool) {
        let before = self.expected.len();
        self.expected.retain(|position, acks| {
            let there = has(*position);
            assert!(
                there || *acks == 0,
                "acknowledged at k: node {node} becomes master without {position}, which {acks} replicas had acknowledged"
            );
            there
        });
        self.lost_to_failover += (before - self.expected.len()) as u64;
    }

    /// A person has found that all volumes with it are lost.
    pub(super) fn gone(&mut self, held: impl Fn(Position) -> bool) {
        self.expected.retain(|position, _| held(*position));
    }

    /// Acknowledged at k survives: what replicas were waited for is undone nowhere.
    pub(super) fn undone(&self, node: usize, after: u64, has: impl Fn(Position) -> bool) {
        for (position, acks) in &self.expected {
            assert!(
                *acks == 0 || position.offset <= after || !has(*position),
                "acknowledged at k: node {node} undoes {position}, which {acks} replicas had acknowledged"
            );
        }
    }

    /// What replicas were waited for, and was not lost with them.
    pub(super) fn confirmed(&self) -> impl Iterator<Item = Position> {
        let waited = self.expected.iter().filter(|(_, acks)| **acks > 0);
        waited.map(|(position, _)| *position)
    }

    /// Acknowledged at k: k other disks hold it, or held it until the volume was lost. What was lost before that is no
    /// excuse.
    pub(super) fn held(&self, position: Position, acks: u32, holders: usize) {
        let held = |(history, durable): &&(History, u64)| {
            *durable >= position.offset && history.epoch_at(position.offset) == position.epoch
        };
        let lost = self.lost_volumes.iter().filter(held).count();
        assert!(
            holders + lost >= acks as usize,
            "acknowledged at k: {position} for {acks} replicas, {holders} hold it, {lost} lost it"
        );
    }

    /// Acknowledged at k: whichever members a failover fences, one of them holds it.
    pub(super) fn in_every_quorum(&self, position: Position, lacking: usize, concern: &Concern) {
        assert!(
            lacking < concern.quorum(),
            "acknowledged at k: {lacking} members are without {position}, {} are enough to elect: {concern:?}",
            concern.quorum()
        );
    }

    /// Acknowledged at k: once k is lowered to 0, the record says up to where that was.
    pub(super) fn secured(&self, position: Position, secured: Position) {
        assert!(
            position <= secured,
            "acknowledged at k: {position} is not below {secured}, which is on record as secured"
        );
    }

    /// What a master says is covered is of its own epoch: what an earlier one left may still be given up.
    pub(super) fn covered(&self, node: &Node, covered: u64) {
        let epoch = node.role.history.epoch_at(covered);
        assert!(
            covered == 0 || node.writing == Some(epoch),
            "covered: node {} in {:?} says so of {covered}, of epoch {epoch}",
            node.index,
            node.writing
        );
    }

    /// A covered position is kept: no master's log is without it.
    pub(super) fn keeps(&self, node: usize, keeps: bool, covered: Position) {
        assert!(
            keeps,
            "covered: node {node} is to give up {covered}, which enough replicas held"
        );
    }

    /// A write is admitted only while as many replicas are connected as have to acknowledge it.
    pub(super) fn admitted(&mut self, node: usize, epoch: u64, acks: usize, live: usize) {
        self.written.insert(epoch);
        assert!(
            live >= acks,
            "counting: node {node} admits a write for {acks} replicas, {live} are connected"
        );
    }
}
