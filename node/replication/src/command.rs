//! The commands that change a node's role, as one pure function over plain data: [`decide`].
//!
//! The node's writer and the simulator both decide with it, so that what was simulated is what runs. It does nothing
//! itself: a [`Transition`] says what the role file must hold, durably, before the command is answered, and what has
//! to happen besides.
//!
//! Two rules stand above all: nothing below the promised epoch is accepted, and an epoch is opened at most once, by
//! one process. A process that restarts in the middle of one takes another.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::position::Position;

mod decide;

pub use decide::decide;

/// What a node is, as its role file says.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Standing {
    /// Never told, fenced, or handed over: serves no writes and follows nobody.
    #[default]
    Unassigned,
    /// Was granted this epoch. Whether this *process* opened it is [`RoleFacts::writing`].
    Master {
        /// The epoch granted.
        epoch: u64,
    },
    /// Follows a master.
    Replica {
        /// The highest epoch seen from that master, or named by the command; 0 when not known yet.
        epoch: u64,
        /// Its replication address, `host:port`.
        master_address: String,
        /// Its REST address, `http://host:port`, where known.
        master_url: Option<String>,
    },
}

/// A hand-over that was finished, so that the same question gets the same answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HandedOver {
    /// The epoch that it ended.
    pub from_epoch: u64,
    /// The epoch that follows.
    pub epoch: u64,
    /// Node id of the successor.
    pub target: Uuid,
}

/// All that a decision looks at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoleFacts {
    /// This node.
    pub node_id: Uuid,
    /// Its cluster; `None` until told.
    pub cluster: Option<Uuid>,
    /// Nothing below this epoch is accepted.
    pub promised: u64,
    /// What the role file says.
    pub standing: Standing,
    /// Whether this process has opened the epoch of its standing as master, and not been stopped since.
    pub writing: bool,
    /// Where the log ends. For `promote`, everything up to there must be durable before the command is decided.
    pub end: Position,
    /// Whether the store is a usable copy: false on an empty volume and until a first full sync is exact.
    pub has_data: bool,
    /// The last hand-over, as long as nothing has come after it.
    pub handed_over: Option<HandedOver>,
}

/// Something that may change a role: the five commands of a person or the operator, and what a node meets by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Become the first master of a new cluster.
    Initialize {
        /// The new cluster.
        cluster: Uuid,
        /// Its first epoch.
        epoch: u64,
    },
    /// Accept nothing below `epoch` any more.
    Fence {
        /// The cluster meant.
        cluster: Uuid,
        /// The epoch to promise.
        epoch: u64,
    },
    /// Begin to hand over: hold writes until the target has everything.
    Handover {
        /// The cluster meant.
        cluster: Uuid,
        /// Epochs and successor.
        plan: HandedOver,
    },
    /// The target has everything: end the epoch for good. Decided again because time has passed.
    FinishHandover {
        /// Epochs and successor, as in the command that began it.
        plan: HandedOver,
    },
    /// Become master of `epoch`.
    Promote {
        /// The cluster meant.
        cluster: Uuid,
        /// The epoch granted.
        epoch: u64,
        /// Where the log must end.
        at: Position,
    },
    /// Become a replica of the master of `epoch`.
    Follow {
        /// The cluster meant.
        cluster: Uuid,
        /// The master's epoch.
        epoch: u64,
        /// Its replication address, `host:port`.
        master_address: String,
        /// Its REST address, where known.
        master_url: Option<String>,
    },
    /// A restarted master was granted the next epoch by the Lease, which still named this node.
    Retake {
        /// The epoch taken.
        epoch: u64,
    },
    /// Static roles: the configuration says master. It takes the next epoch by itself.
    ConfiguredMaster,
    /// Static roles: the configuration says replica.
    ConfiguredReplica {
        /// The master's replication address, `host:port`.
        master_address: String,
        /// Its REST address, where configured.
        master_url: Option<String>,
    },
    /// The master that this node follows has shown its cluster and epoch on the link.
    MasterSeen {
        /// The master's cluster.
        cluster: Uuid,
        /// The epoch in which it writes.
        epoch: u64,
    },
    /// An authenticated peer of the same cluster has shown a higher epoch.
    Deposed {
        /// That epoch.
        epoch: u64,
    },
}

/// What has to happen besides persisting, before the command is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing.
    None,
    /// Stop acknowledging now, fail waiting writes as unknown, close sessions with replicas, flush or drop what is
    /// not durable. Persist only after that.
    StopWriting,
    /// End the session with the present master before persisting: nothing more is acknowledged to it.
    EndSession,
    /// After persisting: append the epoch record as the next operation, and accept writes once that is durable.
    OpenEpoch(u64),
    /// Persist nothing yet: hold new writes, wait for the target, then decide [`Command::FinishHandover`].
    HoldWrites,
}

/// The outcome of a command that is carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transition {
    /// The cluster from now on.
    pub cluster: Option<Uuid>,
    /// The epoch promised from now on; never lower than before.
    pub promised: u64,
    /// The standing from now on.
    pub standing: Standing,
    /// The hand-over to remember.
    pub handed_over: Option<HandedOver>,
    /// What has to happen besides.
    pub effect: Effect,
}

impl Transition {
    /// Whether the role file has to be written: the part that is persisted differs from `facts`.
    pub fn persists(&self, facts: &RoleFacts) -> bool {
        self.cluster != facts.cluster
            || self.promised != facts.promised
            || self.standing != facts.standing
            || self.handed_over != facts.handed_over
    }
}

/// Why a command is refused. Nothing has changed then.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The command's epoch is below the promised one.
    #[error(
        "epoch {epoch} is below {promised}, which this node has promised: use {promised} or higher"
    )]
    StaleEpoch {
        /// The command's.
        epoch: u64,
        /// The node's.
        promised: u64,
    },
    /// Epoch 0, which stands for "none".
    #[error("epoch 0 is not an epoch: epochs begin at 1")]
    EpochZero,
    /// The command is for another cluster.
    #[error("this node belongs to cluster {own}, the command names {found}")]
    WrongCluster {
        /// The node's.
        own: Uuid,
        /// The command's.
        found: Uuid,
    },
    /// The node belongs to no cluster yet.
    #[error(
        "this node belongs to no cluster yet: it has to follow a master or to be initialized first"
    )]
    NoCluster,
    /// `initialize` on a node that holds data.
    #[error("this node holds data up to {end}: only a node without data can be initialized")]
    HasData {
        /// Where its log ends.
        end: Position,
    },
    /// The node holds no usable copy of the data.
    #[error(
        "this node holds no usable copy of the data (its first full sync is not complete): let it follow a master"
    )]
    NoData,
    /// `promote` at another position.
    #[error(
        "the log of this node ends at {end}, the command says {at}: promote it at {end}, or choose another node"
    )]
    WrongPosition {
        /// Where the node's log ends.
        end: Position,
        /// The command's.
        at: Position,
    },
    /// The epoch was opened already: by another node, or by an earlier process of this one.
    #[error("epoch {epoch} has been opened already, {by}: grant a higher one")]
    EpochSpent {
        /// The epoch.
        epoch: u64,
        /// By whom.
        by: &'static str,
    },
    /// The node writes in an epoch and has to be stopped first.
    #[error("this node is master in epoch {epoch} and writing: fence it, or hand over, first")]
    StillMaster {
        /// Its epoch.
        epoch: u64,
    },
    /// The node is not the writing master of that epoch.
    #[error("this node is not writing as master in epoch {epoch}: it {is}")]
    NotMaster {
        /// The epoch asked for.
        epoch: u64,
        /// What it is instead.
        is: String,
    },
    /// `follow` sent to the master of that very epoch.
    #[error("this node itself is master of epoch {epoch}: it can follow only a higher one")]
    OwnEpoch {
        /// The epoch.
        epoch: u64,
    },
    /// A hand-over whose next epoch is not above the present one.
    #[error("the next epoch {epoch} is not above {from_epoch}, which it would end")]
    NotAbove {
        /// The epoch to end.
        from_epoch: u64,
        /// The epoch to follow.
        epoch: u64,
    },
    /// A hand-over to itself.
    #[error("this node cannot hand over to itself: name a replica's node id")]
    TargetIsSelf,
    /// There is no epoch above the one promised.
    #[error(
        "this node has promised epoch {max}, the last there is: a person has to set up a new cluster from a backup",
        max = u64::MAX
    )]
    NoEpochLeft,
    /// A master shows an epoch that no cluster gets to by itself.
    #[error(
        "the master's epoch {epoch} is too far above {promised}, which this node has promised, to be one that was granted"
    )]
    TooFar {
        /// The master's.
        epoch: u64,
        /// The node's.
        promised: u64,
    },
    /// A master spoke to a node that follows nobody.
    #[error("this node follows no master: it has to be told to follow first")]
    NotReplica,
}

#[cfg(test)]
mod tests;
