//! What the rest of the process may know of the writer: published after every drain that changed something.

use std::time::Instant;

use uuid::Uuid;
use vectorizer_api::replication::Role;
use vectorizer_replication::position::{History, LogEnd, Position};

/// Who this node is and what it may do. Changes rarely; the moving end of the log is in [`Progress`].
#[derive(Clone, Debug, PartialEq)]
pub struct NodeState {
    /// Durable identity.
    pub node_id: Uuid,
    /// Identity of this process.
    pub boot_id: Uuid,
    /// The cluster; `None` until told.
    pub cluster: Option<Uuid>,
    /// Role now. A former master that has not opened an epoch in this process is unassigned.
    pub role: Role,
    /// On a master, the epoch in which it writes; 0 otherwise.
    pub master_epoch: u64,
    /// Nothing below this epoch is accepted.
    pub promised: u64,
    /// On a replica, the master's replication address.
    pub master_address: Option<String>,
    /// On a replica, the master's REST address, where known.
    pub master_url: Option<String>,
    /// Epochs in the log.
    pub history: History,
    /// The last position that enough replicas were known to hold: this node never gives it up.
    pub covered: Position,
    /// Whether the store holds a usable copy: false on an empty volume and until a first full sync is exact.
    pub has_data: bool,
    /// Whether a full sync is being received.
    pub syncing: bool,
    /// Whether new writes are held because another node is about to take over.
    pub handing_over: bool,
    /// When this process opened the epoch in which it writes.
    pub master_since: Option<Instant>,
    /// When this process handed its mastership over.
    pub handed_over_at: Option<Instant>,
    /// Where its log ended then: everything in that epoch up to there is on the next master's disk.
    pub handed_over_end: Option<Position>,
    /// Fences, since the process began, that raised the epoch below which nothing is accepted.
    pub fences: u64,
    /// Why a replica does not follow its master, when that is not for lack of a connection.
    pub fault: Option<Fault>,
    /// What this node holds and its master does not, from when it learns that until its data is its master's again:
    /// nobody reads it meanwhile.
    pub diverged: Option<String>,
}

/// Why a replica does not follow its master, with what was found and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// This copy is not what its master's log makes: nobody reads it, and it is not promoted, until a full sync has
    /// replaced it.
    #[error("{0}")]
    Unlike(String),
    /// The master lacks what enough replicas have acknowledged. This node keeps it, and may be promoted.
    #[error("{0}")]
    Ahead(String),
}

/// How far the log, the disk and the store are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Last operation appended.
    pub end: LogEnd,
    /// Offset of the last operation on disk.
    pub durable: u64,
    /// Last operation applied.
    pub applied: Position,
}

impl NodeState {
    /// Whether a write at `position`, acknowledged by enough replicas, may be answered: by the master of its epoch, and by
    /// one that has handed over since, whose successor begins where its own log ended.
    pub fn may_answer(&self, position: Position) -> bool {
        self.master_epoch == position.epoch
            || self
                .handed_over_end
                .is_some_and(|end| end.epoch == position.epoch && end.offset >= position.offset)
    }

    /// What was found to be unlike the master's data.
    pub fn unlike(&self) -> Option<&str> {
        match &self.fault {
            Some(Fault::Unlike(found)) => Some(found),
            Some(Fault::Ahead(_)) | None => None,
        }
    }

    /// What is known before the writer has published anything.
    pub(super) fn unknown(node_id: Uuid, boot_id: Uuid) -> Self {
        NodeState {
            node_id,
            boot_id,
            cluster: None,
            role: Role::Unassigned,
            master_epoch: 0,
            promised: 0,
            master_address: None,
            master_url: None,
            history: History::default(),
            covered: Position::ZERO,
            has_data: false,
            syncing: false,
            handing_over: false,
            master_since: None,
            handed_over_at: None,
            handed_over_end: None,
            fences: 0,
            fault: None,
            diverged: None,
        }
    }
}
