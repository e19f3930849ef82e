//! The replicas of this node while it is master, for everybody in the process (specification, "List Connected Replicas").

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vectorizer_api::replication::{Replica, ReplicaStatus};
use vectorizer_replication::concern::{Concern, Coverage, Level, Membership, Waiting};
use vectorizer_replication::master::Peer;
use vectorizer_replication::message::Ack;
use vectorizer_replication::position::Position;
use vectorizer_replication::roster::{Forgotten, Health, Roster, SessionNumber, View};

use super::clock;

/// Shared list of replicas. Cloning is cheap.
#[derive(Clone)]
pub struct ReplicaTable {
    roster: Arc<Mutex<Roster>>,
    /// The epoch that the list is of. Locked together with it, and before it.
    epoch: Arc<Mutex<u64>>,
    /// Cancelled when a replica begins another session.
    live: Arc<Mutex<HashMap<Uuid, CancellationToken>>>,
    /// Who acknowledges. Locked last.
    quorum: Arc<Mutex<Quorum>>,
    changed: Arc<watch::Sender<()>>,
}

/// Whose acknowledgements are waited for, and by whom.
#[derive(Default)]
struct Quorum {
    /// `None` without Kubernetes: nothing records who belongs to the cluster, and whoever is fed counts.
    membership: Option<Membership>,
    /// What the configuration says, where nothing is recorded.
    least: u32,
    level: Level,
    /// First offset of the epoch: nothing counts as covered before its own first record is.
    first_offset: u64,
    /// The epoch that it is of.
    epoch: u64,
    /// Offsets, and who is told.
    waiting: Waiting<(u64, oneshot::Sender<()>)>,
    /// What was said to be acknowledged last by [`ReplicaTable::settle`].
    settled: Option<Settled>,
    /// As many replicas as are waited for have been in sync at once, in this epoch.
    gathered: bool,
}

/// So many replicas have acknowledged an epoch up to an offset.
#[derive(Clone, Copy)]
struct Settled {
    epoch: u64,
    offset: u64,
    acks: u32,
}

impl Quorum {
    fn acks(&self) -> u32 {
        match &self.membership {
            None => self.least,
            // The configuration holds until something is recorded: no write of a new cluster comes away with less.
            Some(own) if own.on_record().members.is_empty() => own.in_use().acks.max(self.least),
            Some(own) => own.in_use().acks,
        }
    }

    /// Somebody is told that as many replicas as are asked for hold everything up to `offset`.
    fn answer(&mut self, offset: u64) {
        let epoch = self.epoch;
        if let Some(membership) = &mut self.membership {
            membership.answer(Position { epoch, offset });
        }
    }

    fn coverage(&self, roster: &Roster) -> Coverage {
        // Until members were recorded, whoever is there counts.
        let membership = self.membership.as_ref();
        let membership = membership.filter(|m| !m.on_record().members.is_empty());
        roster.coverage(self.level, |id| membership.is_none_or(|m| m.counts(id)))
    }
}

impl Default for ReplicaTable {
    fn default() -> Self {
        ReplicaTable {
            roster: Arc::default(),
            epoch: Arc::default(),
            live: Arc::default(),
            quorum: Arc::default(),
            changed: Arc::new(watch::Sender::new(())),
        }
    }
}

/// One live session's place in the table; dropping it ends the session there.
pub(crate) struct Seat {
    table: ReplicaTable,
    node_id: Uuid,
    session: SessionNumber,
    replaced: CancellationToken,
}

impl ReplicaTable {
    /// All replicas, live or not, ordered by id.
    pub fn list(&self) -> Vec<Replica> {
        let views = self.roster.lock().list(clock::now());
        views.into_iter().map(replica).collect()
    }

    /// Bytes sent to each replica in this epoch.
    pub fn sent(&self) -> HashMap<Uuid, u64> {
        let views = self.roster.lock().list(clock::now());
        views
            .into_iter()
            .map(|v| (v.peer.node_id, v.sent))
            .collect()
    }

    /// Number of live sessions.
    pub fn connected(&self) -> usize {
        self.roster.lock().connected()
    }

    /// Offset up to which a replica is durable, if its session is live and its first sync complete.
    pub fn durable_of(&self, node_id: Uuid) -> Option<u64> {
        self.roster.lock().durable_of(node_id)
    }

    /// Each write waits for `acks` replicas, as long as nothing is recorded about the cluster.
    pub fn set_least(&self, acks: u32) {
        self.quorum.lock().least = acks;
    }

    /// What an acknowledgement has to say.
    pub fn set_level(&self, level: Level) {
        self.quorum.lock().level = level;
    }

    /// The Lease grants the next epoch to this node, with these members and acknowledgements.
    pub fn set_granted(&self, own: Uuid, concern: Concern) {
        self.quorum.lock().membership = Some(Membership::granted(own, concern));
    }

    /// Reads or changes members and acknowledgements; `None` without Kubernetes. Writes that a change covers are
    /// answered.
    pub fn with_membership<T>(&self, change: impl FnOnce(&mut Membership) -> T) -> Option<T> {
        let changed = self.quorum.lock().membership.as_mut().map(change);
        self.acknowledge();
        self.forget_strangers();
        changed
    }

    /// A replica that was scaled away is not missed.
    fn forget_strangers(&self) {
        let mut roster = self.roster.lock();
        let quorum = self.quorum.lock();
        let members = quorum.membership.as_ref().map(|m| &m.on_record().members);
        // Nobody is on record before the operator has said who belongs to the cluster.
        if let Some(members) = members.filter(|m| !m.is_empty()) {
            roster.keep_members(|id| members.contains(&id));
        }
    }

    /// Replicas that a write waits for, unless it asks for more.
    pub fn acks(&self) -> u32 {
        self.quorum.lock().acks()
    }

    /// Replicas that could acknowledge now.
    pub fn in_sync(&self) -> usize {
        let roster = self.roster.lock();
        self.quorum.lock().coverage(&roster).in_sync()
    }

    /// Whether there were enough replicas at once since this node became master: before that, they are only connecting.
    pub fn has_gathered(&self) -> bool {
        self.quorum.lock().gathered
    }

    /// The offset up to which as many replicas as the cluster asks for have acknowledged; 0 while it asks for none, and
    /// until the epoch's own first record is covered. Not beyond `durable`, the offset up to which this node has it on disk.
    pub fn covered(&self, durable: u64) -> u64 {
        let roster = self.roster.lock();
        let mut quorum = self.quorum.lock();
        let offset = quorum.coverage(&roster).at(quorum.acks()).unwrap_or(0);
        let offset = offset.min(durable);
        // A number in use that is not on record, or will not be: a failover may give up what it covers.
        let membership = quorum.membership.as_ref();
        if membership.is_some_and(Membership::promises_nothing) || offset < quorum.first_offset {
            return 0;
        }
        quorum.answer(offset);
        offset
    }

    /// Answers once `acks` replicas, and as many as the cluster asks for, have acknowledged `offset`, as long as this node
    /// is master of `epoch`; an error when it is no more.
    pub fn acknowledged(&self, epoch: u64, offset: u64, acks: u32) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let own = self.epoch.lock();
        if *own == epoch {
            let mut quorum = self.quorum.lock();
            // Who asked and went away need not be kept.
            quorum.waiting.retain(|(_, waiter)| !waiter.is_closed());
            let enough = acks.max(quorum.acks());
            let settled = quorum
                .settled
                .is_some_and(|s| s.epoch == epoch && s.offset >= offset && s.acks >= enough);
            if settled {
                // Who asked may have gone.
                let _ = sender.send(());
                return receiver;
            }
            quorum.waiting.push(acks, offset, (offset, sender));
            drop(quorum);
            self.acknowledge();
        }
        receiver
    }

    /// Waits until as many replicas as the cluster asks for have acknowledged everything up to `offset`, as long as
    /// enough are in sync; not longer than until `limit`. What is answered late is then known to be acknowledged, even
    /// when this node is no longer master.
    pub async fn settle(&self, epoch: u64, offset: u64, limit: std::time::Instant) {
        let acks = self.acks();
        if acks == 0 {
            return;
        }
        let mut covered = self.acknowledged(epoch, offset, 0);
        let mut changed = self.changed();
        let enough = async {
            loop {
                let short = usize::try_from(acks).map_or(true, |acks| self.in_sync() < acks);
                tokio::select! {
                    biased;
                    covered = &mut covered => return covered.is_ok(),
                    () = std::future::ready(()), if short => return false,
                    _ = changed.changed() => {}
                }
            }
        };
        if tokio::time::timeout_at(limit.into(), enough).await == Ok(true) {
            self.quorum.lock().settled = Some(Settled {
                epoch,
                offset,
                acks,
            });
        }
    }

    fn acknowledge(&self) {
        let roster = self.roster.lock();
        let mut quorum = self.quorum.lock();
        if quorum.waiting.is_empty() && quorum.gathered {
            return;
        }
        let coverage = quorum.coverage(&roster);
        let acks = quorum.acks();
        let enough = usize::try_from(acks).is_ok_and(|acks| coverage.in_sync() >= acks);
        quorum.gathered |= enough;
        for (offset, waiter) in quorum.waiting.take_covered(&coverage, acks) {
            if acks > 0 {
                quorum.answer(offset);
            }
            // Who asked may have gone.
            let _ = waiter.send(());
        }
    }

    /// Removes a replica that is not connected.
    pub fn forget(&self, node_id: Uuid) -> Forgotten {
        self.roster.lock().forget(node_id)
    }

    /// Notifies whenever a replica joins, leaves or acknowledges.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The log ends at `end` since now.
    pub(super) fn appended(&self, end: u64) {
        self.roster.lock().appended(end, clock::now());
    }

    /// This node is master of `epoch`: whoever was fed in an earlier one is listed no more.
    ///
    /// Said by the first to notice, be it a replica's session or the task that watches the role.
    pub(crate) fn enter(&self, epoch: u64, first_offset: u64) {
        let mut own = self.epoch.lock();
        if epoch > *own {
            *own = epoch;
            self.roster.lock().clear();
            let mut quorum = self.quorum.lock();
            quorum.waiting.take_all();
            quorum.first_offset = first_offset;
            quorum.epoch = epoch;
            quorum.gathered = false;
        }
        drop(own);
        self.changed.send_replace(());
    }

    /// This node is no longer master of `epoch`.
    pub(super) fn leave(&self, epoch: u64) {
        let own = self.epoch.lock();
        if epoch == *own {
            self.roster.lock().clear();
            self.quorum.lock().waiting.take_all();
        }
        drop(own);
        self.changed.send_replace(());
    }

    pub(crate) fn join(
        &self,
        (epoch, first_offset): (u64, u64),
        peer: Peer,
        address: String,
        syncing: bool,
        ack: Ack,
    ) -> Seat {
        self.enter(epoch, first_offset);
        let node_id = peer.node_id;
        let (now, unix_ms) = (clock::now(), clock::unix_ms());
        let mut roster = self.roster.lock();
        let session = roster.joined(peer, address, syncing, ack, now, unix_ms);
        drop(roster);
        let replaced = CancellationToken::new();
        if let Some(older) = self.live.lock().insert(node_id, replaced.clone()) {
            older.cancel();
        }
        self.acknowledge();
        self.changed.send_replace(());
        Seat {
            table: self.clone(),
            node_id,
            session,
            replaced,
        }
    }
}

impl Seat {
    /// Another session of the same replica has taken this one's place.
    pub(super) async fn replaced(&self) {
        self.replaced.cancelled().await;
    }

    pub(super) fn heard(&self) {
        let (now, unix_ms) = (clock::now(), clock::unix_ms());
        let mut roster = self.table.roster.lock();
        roster.heard(self.node_id, self.session, now, unix_ms);
    }

    pub(super) fn sent(&self, bytes: u64) {
        let mut roster = self.table.roster.lock();
        roster.sent(self.node_id, self.session, bytes);
    }

    pub(super) fn acked(&self, ack: Ack) {
        let mut roster = self.table.roster.lock();
        roster.acked(self.node_id, self.session, ack);
        drop(roster);
        self.table.acknowledge();
        self.table.changed.send_replace(());
    }

    pub(crate) fn synced(&self) {
        let mut roster = self.table.roster.lock();
        roster.synced(self.node_id, self.session);
        drop(roster);
        self.table.acknowledge();
        self.table.changed.send_replace(());
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.table.roster.lock().left(self.node_id, self.session);
        self.table.forget_strangers();
        if !self.replaced.is_cancelled() {
            self.table.live.lock().remove(&self.node_id);
        }
        self.table.changed.send_replace(());
    }
}

fn replica(view: View) -> Replica {
    let address = view.peer.advertised.clone().unwrap_or(view.address);
    let (host, port) = split(&address);
    Replica {
        id: view.peer.node_id,
        replica_id: view.peer.node_id,
        node: view.peer.name,
        host,
        port,
        status: match view.health {
            Health::Connected => ReplicaStatus::Connected,
            Health::Syncing => ReplicaStatus::Syncing,
            Health::Lagging => ReplicaStatus::Lagging,
            Health::Disconnected => ReplicaStatus::Disconnected,
        },
        lag_ms: view.lag_ms,
        last_heartbeat: view.heard_unix_ms / 1000,
        operations_synced: view.ack.applied,
        address,
        offset: view.ack.applied,
        lag_operations: view.lag_operations,
        durable_offset: view.ack.durable,
        connected: view.connected,
    }
}

/// Host and port of `host:port`, an IPv6 host without its brackets; port 0 when there is none.
fn split(address: &str) -> (String, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (host.to_owned(), port.parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use vectorizer_replication::position::History;

    use super::*;

    fn peer(id: u128, advertised: Option<&str>) -> Peer {
        Peer {
            node_id: Uuid::from_u128(id),
            boot_id: Uuid::nil(),
            name: "r".to_owned(),
            advertised: advertised.map(str::to_owned),
        }
    }

    #[test]
    fn a_replica_is_listed_under_its_advertised_address_or_its_connection_s() {
        let table = ReplicaTable::default();
        table.enter(1, 1);
        table.appended(10);
        let join = |peer| {
            table.join(
                (1, 1),
                peer,
                "10.0.0.2:40000".to_owned(),
                false,
                Ack::default(),
            )
        };
        let first = join(peer(1, Some("[fd00::1]:7001")));
        let second = join(peer(2, None));
        let list = table.list();
        let addresses: Vec<_> = list.iter().map(|r| (r.host.as_str(), r.port)).collect();
        assert_eq!(addresses, [("fd00::1", 7001), ("10.0.0.2", 40000)]);
        assert_eq!(list[0].lag_operations, 10);
        drop(first);
        drop(second);
        assert_eq!((table.connected(), table.list().len()), (0, 2));
        table.enter(2, 11);
        assert!(table.list().is_empty());
    }

    #[test]
    fn what_is_answered_once_replicas_hold_it_is_known_to_the_membership_before_anybody_is_told() {
        let table = ReplicaTable::default();
        let [own, other] = [1, 2].map(Uuid::from_u128);
        let members = [own, other].into();
        table.set_granted(own, Concern { members, acks: 1 });
        table.enter(3, 1);
        let seat = table.join(
            (3, 1),
            peer(2, None),
            "h:1".to_owned(),
            false,
            Ack::default(),
        );
        let answered = || {
            let secured = table.with_membership(|m| m.secured(&History::default()));
            secured.unwrap()
        };
        let mut first = table.acknowledged(3, 7, 0);
        let mut second = table.acknowledged(3, 9, 0);
        assert_eq!(answered(), Position::ZERO);
        // More than was asked for is not known to have been answered.
        seat.acked(Ack {
            durable: 8,
            ..Ack::default()
        });
        assert_eq!(first.try_recv(), Ok(()));
        assert!(second.try_recv().is_err());
        assert_eq!(answered(), Position::new(3, 7));
        // Nor is what this node does not have on disk itself, whoever asks.
        assert_eq!(table.covered(6), 6);
        assert_eq!(answered(), Position::new(3, 7));
        assert_eq!(table.covered(8), 8);
        assert_eq!(answered(), Position::new(3, 8));
    }

    #[test]
    fn whoever_joins_before_the_role_is_noticed_elsewhere_stays_listed() {
        let table = ReplicaTable::default();
        table.enter(1, 1);
        let seat = table.join(
            (2, 11),
            peer(1, None),
            "h:1".to_owned(),
            false,
            Ack::default(),
        );
        table.leave(1);
        table.enter(2, 11);
        seat.acked(Ack {
            applied: 7,
            ..Ack::default()
        });
        assert_eq!(table.list()[0].offset, 7);
    }
}
