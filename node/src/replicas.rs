//! The replicas of this node while it is master, for everybody in the process (specification, "List Connected Replicas").

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vectorizer_api::replication::{Replica, ReplicaStatus};
use vectorizer_replication::concern::{Concern, Level, Membership};
use vectorizer_replication::master::Peer;
use vectorizer_replication::message::Ack;
use vectorizer_replication::quorum::{Over, Quorum, Settling, Wait};
use vectorizer_replication::roster::{Forgotten, Health, Roster, SessionNumber, View};

use crate::clock;

/// Shared list of replicas. Cloning is cheap.
#[derive(Clone)]
pub struct ReplicaTable {
    book: Arc<Mutex<Book>>,
    /// Cancelled when a replica begins another session.
    live: Arc<Mutex<HashMap<Uuid, CancellationToken>>>,
    changed: Arc<watch::Sender<()>>,
}

/// Who is there, and who waits for them: looked at together, under one lock.
#[derive(Default)]
struct Book {
    roster: Roster,
    quorum: Quorum<oneshot::Sender<()>>,
}

impl Book {
    /// Tells those whose wait is over.
    fn acknowledge(&mut self) {
        for Over { who, .. } in self.quorum.take_over(&self.roster) {
            // Who asked may have gone.
            let _ = who.send(());
        }
    }

    /// A replica that was scaled away is not missed.
    fn forget_strangers(&mut self) {
        let quorum = &self.quorum;
        self.roster.keep_members(|id| quorum.misses(id));
    }
}

impl Default for ReplicaTable {
    fn default() -> Self {
        ReplicaTable {
            book: Arc::default(),
            live: Arc::default(),
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
        let views = self.book.lock().roster.list(clock::now());
        views.into_iter().map(replica).collect()
    }

    /// Bytes sent to each replica in this epoch.
    pub fn sent(&self) -> HashMap<Uuid, u64> {
        let views = self.book.lock().roster.list(clock::now());
        views
            .into_iter()
            .map(|v| (v.peer.node_id, v.sent))
            .collect()
    }

    /// Number of live sessions.
    pub fn connected(&self) -> usize {
        self.book.lock().roster.connected()
    }

    /// Offset up to which a replica is durable, if its session is live and its first sync complete.
    pub fn durable_of(&self, node_id: Uuid) -> Option<u64> {
        self.book.lock().roster.durable_of(node_id)
    }

    /// Each write waits for `acks` replicas, as long as nothing is recorded about the cluster.
    pub fn set_least(&self, acks: u32) {
        self.book.lock().quorum.set_least(acks);
    }

    /// What an acknowledgement has to say.
    pub fn set_level(&self, level: Level) {
        self.book.lock().quorum.set_level(level);
    }

    /// The Lease grants `epoch` to this node, with these members and acknowledgements.
    pub fn set_granted(&self, epoch: u64, own: Uuid, concern: Concern) {
        self.book.lock().quorum.grant(epoch, own, concern);
    }

    /// Members and acknowledgements as they are; `None` without Kubernetes.
    pub fn membership(&self) -> Option<Membership> {
        self.book.lock().quorum.membership().cloned()
    }

    /// One step of a change of members, by the master of `epoch`; `None`, and nothing is done, when it is that no more,
    /// and without Kubernetes. Writes that the step covers are answered.
    pub fn step<T>(&self, epoch: u64, change: impl FnOnce(&mut Membership) -> T) -> Option<T> {
        let mut book = self.book.lock();
        let changed = book.quorum.step(epoch, change);
        book.acknowledge();
        book.forget_strangers();
        drop(book);
        self.changed.send_replace(());
        changed
    }

    /// Replicas that a write waits for, unless it asks for more.
    pub fn acks(&self) -> u32 {
        self.book.lock().quorum.acks()
    }

    /// The same for what was written in `epoch`; `None` when other members count by now.
    pub fn acks_in(&self, epoch: u64) -> Option<u32> {
        self.book.lock().quorum.acks_in(epoch)
    }

    /// Replicas that could acknowledge now.
    pub fn in_sync(&self) -> usize {
        let book = self.book.lock();
        book.quorum.coverage(&book.roster).in_sync()
    }

    /// Whether there were enough replicas at once since this node became master: before that, they are only connecting.
    pub fn has_gathered(&self) -> bool {
        self.book.lock().quorum.has_gathered()
    }

    /// The offset up to which as many replicas as the cluster asks for have acknowledged; 0 while it asks for none, and
    /// until the epoch's own first record is covered. Not beyond `durable`, the offset up to which this node has it on disk.
    pub fn covered(&self, durable: u64) -> u64 {
        let Book { roster, quorum } = &mut *self.book.lock();
        quorum.covered(roster, durable)
    }

    /// Answers once `acks` replicas, and as many as the cluster asks for, have acknowledged `offset`, as long as this node
    /// is master of `epoch`, or has handed it over with all of that acknowledged; an error otherwise.
    pub fn acknowledged(&self, epoch: u64, offset: u64, acks: u32) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut book = self.book.lock();
        // Who asked and went away need not be kept.
        book.quorum.retain(|waiter| !waiter.is_closed());
        match book.quorum.wait(epoch, offset, acks, sender) {
            Wait::Over(sender) => drop(sender.send(())),
            Wait::GoesOn => book.acknowledge(),
            Wait::NotMaster => {}
        }
        receiver
    }

    /// Waits until `acks` of the members in use have acknowledged everything up to `offset`, counted afresh: what a
    /// handover has settled says nothing of those who are to count from now on. Whether they have: `None` when this node
    /// is no longer master of `epoch`, and false at `limit`.
    pub async fn count(&self, epoch: u64, offset: u64, acks: u32, limit: Instant) -> Option<bool> {
        let look = |book: &mut Book| match book.quorum.counted(&book.roster, epoch, offset, acks) {
            None => Some(None),
            Some(true) => Some(Some(true)),
            Some(false) => None,
        };
        self.until(limit, look).await.unwrap_or(Some(false))
    }

    /// Waits until as many replicas as the cluster asks for have acknowledged everything up to `offset`, as long as
    /// enough are in sync; not longer than until `limit`. What is answered late is then known to be acknowledged, even
    /// when this node is no longer master: [`Self::unsettle`] if it stays that.
    pub async fn settle(&self, epoch: u64, offset: u64, limit: Instant) {
        let look = |book: &mut Book| match book.quorum.settle(&book.roster, epoch, offset) {
            Settling::NotYet => None,
            settled @ (Settling::Done | Settling::Never) => Some(settled),
        };
        // What could not be settled is not answered late.
        let _ = self.until(limit, look).await;
    }

    /// The handover failed.
    pub fn unsettle(&self) {
        self.book.lock().quorum.unsettle();
    }

    /// Looks whenever something changes, until there is something to say; `None` at `limit`.
    async fn until<T>(
        &self,
        limit: Instant,
        mut look: impl FnMut(&mut Book) -> Option<T>,
    ) -> Option<T> {
        let mut changed = self.changed();
        let found = async {
            loop {
                changed.borrow_and_update();
                if let Some(found) = look(&mut self.book.lock()) {
                    return Some(found);
                }
                if changed.changed().await.is_err() {
                    return None;
                }
            }
        };
        tokio::time::timeout_at(limit.into(), found)
            .await
            .unwrap_or_default()
    }

    /// Removes a replica that is not connected.
    pub fn forget(&self, node_id: Uuid) -> Forgotten {
        self.book.lock().roster.forget(node_id)
    }

    /// Notifies whenever a replica joins, leaves or acknowledges, or members change.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The log ends at `end` since now.
    pub(crate) fn appended(&self, end: u64) {
        self.book.lock().roster.appended(end, clock::now());
    }

    /// This node is master of `epoch`: whoever was fed in an earlier one is listed no more.
    ///
    /// Said by the first to notice, be it a replica's session or the task that watches the role.
    pub(crate) fn enter(&self, epoch: u64, first_offset: u64) {
        let mut book = self.book.lock();
        if book.quorum.enter(epoch, first_offset) {
            book.roster.clear();
        }
        drop(book);
        self.changed.send_replace(());
    }

    /// This node is no longer master of `epoch`.
    pub(crate) fn leave(&self, epoch: u64) {
        let mut book = self.book.lock();
        if book.quorum.leave(epoch) {
            book.roster.clear();
        }
        drop(book);
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
        let mut book = self.book.lock();
        let session = book
            .roster
            .joined(peer, address, syncing, ack, now, unix_ms);
        drop(book);
        let replaced = CancellationToken::new();
        if let Some(older) = self.live.lock().insert(node_id, replaced.clone()) {
            older.cancel();
        }
        self.book.lock().acknowledge();
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
    pub(crate) async fn replaced(&self) {
        self.replaced.cancelled().await;
    }

    pub(crate) fn heard(&self) {
        let (now, unix_ms) = (clock::now(), clock::unix_ms());
        let mut book = self.table.book.lock();
        book.roster.heard(self.node_id, self.session, now, unix_ms);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        let mut book = self.table.book.lock();
        book.roster.sent(self.node_id, self.session, bytes);
    }

    pub(crate) fn acked(&self, ack: Ack) {
        self.moved(|roster| roster.acked(self.node_id, self.session, ack));
    }

    pub(crate) fn synced(&self) {
        self.moved(|roster| roster.synced(self.node_id, self.session));
    }

    fn moved(&self, change: impl FnOnce(&mut Roster)) {
        let mut book = self.table.book.lock();
        change(&mut book.roster);
        book.acknowledge();
        drop(book);
        self.table.changed.send_replace(());
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut book = self.table.book.lock();
        book.roster.left(self.node_id, self.session);
        book.forget_strangers();
        drop(book);
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
    use vectorizer_replication::position::{History, Position};

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
        table.set_granted(3, own, Concern { members, acks: 1 });
        table.enter(3, 1);
        let seat = table.join(
            (3, 1),
            peer(2, None),
            "h:1".to_owned(),
            false,
            Ack::default(),
        );
        let answered = || {
            let membership = table.membership().unwrap();
            membership.secured(&History::default())
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
