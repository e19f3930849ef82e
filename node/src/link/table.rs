//! The replicas of this node while it is master, for everybody in the process (specification, "List Connected Replicas").

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vectorizer_api::replication::{Replica, ReplicaStatus};
use vectorizer_replication::master::Peer;
use vectorizer_replication::message::Ack;
use vectorizer_replication::roster::{Health, Roster, SessionNumber, View};

use super::clock;

/// Shared list of replicas. Cloning is cheap.
#[derive(Clone)]
pub struct ReplicaTable {
    roster: Arc<Mutex<Roster>>,
    /// The epoch that the list is of. Locked together with it, and before it.
    epoch: Arc<Mutex<u64>>,
    /// Cancelled when a replica begins another session.
    live: Arc<Mutex<HashMap<Uuid, CancellationToken>>>,
    changed: Arc<watch::Sender<()>>,
}

impl Default for ReplicaTable {
    fn default() -> Self {
        ReplicaTable {
            roster: Arc::default(),
            epoch: Arc::default(),
            live: Arc::default(),
            changed: Arc::new(watch::Sender::new(())),
        }
    }
}

/// One live session's place in the table; dropping it ends the session there.
pub(super) struct Seat {
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

    /// Number of live sessions.
    pub fn connected(&self) -> usize {
        self.roster.lock().connected()
    }

    /// Offset up to which a replica is durable, if its session is live and its first sync complete.
    pub fn durable_of(&self, node_id: Uuid) -> Option<u64> {
        self.roster.lock().durable_of(node_id)
    }

    /// Removes a replica that is not connected. Returns whether it was listed.
    pub fn forget(&self, node_id: Uuid) -> bool {
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
    pub(super) fn enter(&self, epoch: u64) {
        let mut own = self.epoch.lock();
        if epoch > *own {
            *own = epoch;
            self.roster.lock().clear();
        }
        drop(own);
        self.changed.send_replace(());
    }

    /// This node is no longer master of `epoch`.
    pub(super) fn leave(&self, epoch: u64) {
        let own = self.epoch.lock();
        if epoch == *own {
            self.roster.lock().clear();
        }
        drop(own);
        self.changed.send_replace(());
    }

    pub(super) fn join(
        &self,
        epoch: u64,
        peer: Peer,
        address: String,
        syncing: bool,
        ack: Ack,
    ) -> Seat {
        self.enter(epoch);
        let node_id = peer.node_id;
        let (now, unix_ms) = (clock::now(), clock::unix_ms());
        let mut roster = self.roster.lock();
        let session = roster.joined(peer, address, syncing, ack, now, unix_ms);
        drop(roster);
        let replaced = CancellationToken::new();
        if let Some(older) = self.live.lock().insert(node_id, replaced.clone()) {
            older.cancel();
        }
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

    pub(super) fn acked(&self, ack: Ack) {
        let mut roster = self.table.roster.lock();
        roster.acked(self.node_id, self.session, ack);
        drop(roster);
        self.table.changed.send_replace(());
    }

    pub(super) fn synced(&self) {
        let mut roster = self.table.roster.lock();
        roster.synced(self.node_id, self.session);
        drop(roster);
        self.table.changed.send_replace(());
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.table.roster.lock().left(self.node_id, self.session);
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
    use super::*;

    #[test]
    fn a_replica_is_listed_under_its_advertised_address_or_its_connection_s() {
        let table = ReplicaTable::default();
        let peer = |id, advertised: Option<&str>| Peer {
            node_id: Uuid::from_u128(id),
            boot_id: Uuid::nil(),
            name: "r".to_owned(),
            advertised: advertised.map(str::to_owned),
        };
        table.enter(1);
        table.appended(10);
        let join = |peer| table.join(1, peer, "10.0.0.2:40000".to_owned(), false, Ack::default());
        let first = join(peer(1, Some("[fd00::1]:7001")));
        let second = join(peer(2, None));
        let list = table.list();
        let addresses: Vec<_> = list.iter().map(|r| (r.host.as_str(), r.port)).collect();
        assert_eq!(addresses, [("fd00::1", 7001), ("10.0.0.2", 40000)]);
        assert_eq!(list[0].lag_operations, 10);
        drop(first);
        drop(second);
        assert_eq!((table.connected(), table.list().len()), (0, 2));
        table.enter(2);
        assert!(table.list().is_empty());
    }

    #[test]
    fn whoever_joins_before_the_role_is_noticed_elsewhere_stays_listed() {
        let table = ReplicaTable::default();
        let peer = Peer {
            node_id: Uuid::from_u128(1),
            boot_id: Uuid::nil(),
            name: "r".to_owned(),
            advertised: None,
        };
        table.enter(1);
        let seat = table.join(2, peer, "h:1".to_owned(), false, Ack::default());
        table.leave(1);
        table.enter(2);
        seat.acked(Ack {
            applied: 7,
            ..Ack::default()
        });
        assert_eq!(table.list()[0].offset, 7);
    }
}
