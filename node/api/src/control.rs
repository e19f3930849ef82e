//! The endpoints under `/control`: commands that change roles, and what the operator reads before it gives one.
//!
//! Every command carries an epoch, is persisted before it is answered, is idempotent, and is refused by a node that
//! knows a higher epoch. They need the control credential; when the node has none, they are refused.

#[cfg(feature = "schema")]
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vectorizer_replication::concern::Concern;
use vectorizer_replication::position::{Chain, History, Position};

use crate::replication::Role;

/// `GET /control/state`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The node's name, on Kubernetes its pod's.
    pub node: String,
    /// Durable identity, created with the volume.
    pub node_id: Uuid,
    /// Identity of this process.
    pub boot_id: Uuid,
    /// The cluster it belongs to; absent until told.
    pub cluster: Option<Uuid>,
    /// Role now.
    pub role: Role,
    /// On a master, the epoch in which it writes; 0 otherwise.
    pub master_epoch: u64,
    /// The highest epoch promised or seen: nothing below it is accepted.
    pub promised_epoch: u64,
    /// Whether a master may acknowledge writes right now (its lease is alive and it is not fenced).
    pub writable: bool,
    /// The last operation appended, and applied, here.
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, u64>"))]
    pub position: Position,
    /// Offset of the last durable operation.
    pub durable: u64,
    /// The chain at `position`.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub chain: Chain,
    /// Epochs in the log, the last thousand of them.
    #[cfg_attr(feature = "schema", schemars(with = "Vec<serde_json::Value>"))]
    pub history: History,
    /// Whether this node holds a usable copy of the data (false on an empty volume and in a first full sync).
    pub has_data: bool,
    /// The replication address that it follows, on a replica.
    pub master_address: Option<String>,
    /// On a replica, whether its session is live; on a master, true.
    pub connected: bool,
    /// On a replica whose session is not live, why not, as the last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_off: Option<String>,
    /// On a master, the node ids on record as members; empty before they were recorded, and without Kubernetes.
    #[serde(default)]
    pub members: Vec<Uuid>,
    /// On a master, the acknowledgements on record.
    #[serde(default)]
    pub acks: u32,
    /// On a master, whether the members and acknowledgements that it goes by are those on record.
    #[serde(default = "settled")]
    pub settled: bool,
    /// On a master, the offset up to which that many replicas have acknowledged; 0 while none are asked for.
    #[serde(default)]
    pub covered: u64,
    /// What was found to be unlike the master's data; such a node refuses to be promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlike: Option<String>,
    /// That its disk is too full for writes that grow, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_full: Option<String>,
    /// That its memory is, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_full: Option<String>,
    /// Version of the node's program.
    pub version: String,
}

/// Of a node that does not say.
fn settled() -> bool {
    true
}

/// `POST /control/initialize`: makes an empty node the first master of a new cluster, once in the cluster's life.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Initialize {
    /// The new cluster's identity.
    pub cluster: Uuid,
    /// Its first epoch, at least 1.
    pub epoch: u64,
}

/// `POST /control/fence`: accept nothing below `epoch` any more.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fence {
    /// The cluster meant.
    pub cluster: Uuid,
    /// The epoch promised from now on.
    pub epoch: u64,
}

/// `POST /control/handover`: stop writing in `from_epoch` once `target` holds everything.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Handover {
    /// The cluster meant.
    pub cluster: Uuid,
    /// The epoch that it ends; refused in any other.
    pub from_epoch: u64,
    /// The epoch that will follow.
    pub epoch: u64,
    /// Node id of the replica that takes over.
    pub target: Uuid,
    /// How long writes may be held before everything resumes as before, in ms.
    pub deadline_ms: u64,
}

/// `POST /control/promote`: become master of `epoch`, whose first operation follows `at`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Promote {
    /// The cluster meant.
    pub cluster: Uuid,
    /// The epoch granted.
    pub epoch: u64,
    /// Where the log must end; refused at any other position.
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, u64>"))]
    pub at: Position,
}

/// `POST /control/follow`: be a replica of the master of `epoch`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Follow {
    /// The cluster meant; taken over by a node that has none.
    pub cluster: Uuid,
    /// The master's epoch.
    pub epoch: u64,
    /// The master's replication address, `host:port`.
    pub master_address: String,
    /// The master's REST address, `http://host:port`: named in refusals, and where held writes are forwarded.
    pub master_url: String,
}

/// `POST /control/members`: who belongs to the cluster, and how many replicas must hold a write before it is answered.
///
/// Answered when it is recorded in the Lease. Refused, and nothing has changed, when that cannot be brought about.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Members {
    /// The cluster meant.
    pub cluster: Uuid,
    /// The master's epoch.
    pub epoch: u64,
    /// Node ids, the master's own among them.
    pub members: Vec<Uuid>,
    /// At most as many as there are members besides the master.
    pub acks: u32,
    /// What is on record: a command that comes late, when something else is, changes nothing.
    pub recorded: Recorded,
    /// How long it may take until what is in the log has been acknowledged that way, in ms.
    pub deadline_ms: u64,
}

/// Members and acknowledgements that the Lease records.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recorded {
    /// Node ids; none until they were recorded for the first time.
    pub members: Vec<Uuid>,
    /// Replicas that must hold a write besides the master.
    pub acks: u32,
}

impl From<&Concern> for Recorded {
    fn from(concern: &Concern) -> Self {
        Recorded {
            members: concern.members.iter().copied().collect(),
            acks: concern.acks,
        }
    }
}

impl From<Recorded> for Concern {
    fn from(recorded: Recorded) -> Self {
        Concern {
            members: recorded.members.into_iter().collect(),
            acks: recorded.acks,
        }
    }
}

/// Answer of every command: the state after it.
pub type Answer = State;
