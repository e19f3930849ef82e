//! The TCP driver of replication sessions, for both sides.

use tokio::sync::watch;
use uuid::Uuid;

/// The replicas of this master.
#[derive(Clone)]
pub struct ReplicaTable {
    changed: watch::Receiver<u64>,
}

impl ReplicaTable {
    /// Offset of the last operation durable on a connected replica; `None` when it is not connected.
    pub fn durable_of(&self, _node: Uuid) -> Option<u64> {
        None
    }

    /// Notifies of every change.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }
}
