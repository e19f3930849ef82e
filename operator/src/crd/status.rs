//! What the operator answers: the status of a `VectorizerCluster`, decisions under way included.
//!
//! Part of it is not only a report: `cluster`, `master`, `target` and `memory` are written before what they decide is
//! carried out, and an operator that starts in the middle goes on from them.
//!
//! Names follow Kubernetes' conventions (`nodeID`, values in CamelCase, lists with map keys), times are whole seconds.
//! What is measured and usually below a second is in whole milliseconds, and says so in its name.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vectorizer_api::concern::Concern;
use vectorizer_api::lease::Grant;
use vectorizer_api::position::Position;

use super::PromoteMode;

/// Status of a cluster.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The generation of the spec that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What the cluster is doing, in one word.
    #[serde(default)]
    pub phase: Phase,
    /// Selector of the replica set's pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Pods of the replica set that exist.
    #[serde(default)]
    pub replicas: u32,
    /// Replicas that are up and connected to the master.
    #[serde(default)]
    pub ready_replicas: u32,
    /// Nodes that are up and replicate, of those wanted, such as `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// How far the slowest replica is behind, such as `12ms`; `unknown` while no master says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,
    /// The size of the largest volume: as far `spec.storage.size` may go back where volumes cannot grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub volume_size: Option<String>,
    /// The image that nodes are to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Why that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_from: Option<ImageSource>,
    /// Identity of the cluster, which every node knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Uuid>,
    /// Who is master, as decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<MasterStatus>,
    /// The change of the master that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetStatus>,
    /// Every node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeStatus>,
    /// The last change of the master that was asked for, or that the operator needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_promotion: Option<LastPromotion>,
    /// The write concern on record, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_concern: Option<RecordedConcern>,
    /// What only the operator reads.
    #[serde(default)]
    pub memory: StatusMemory,
    /// Ready, Progressing, Degraded, Available, ReplicationHealthy, PodsRunning, VolumesAsWanted,
    /// SynchronousReplicationMet, PromotionSucceeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What the operator notes for itself and nobody else has a use for.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusMemory {
    /// How far the first start is. Absent on a cluster whose data was there before its status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initialization: Option<Initialization>,
    /// The last 32 requestIDs that were dealt with, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handled_requests: Vec<String>,
}

/// What a cluster is doing.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum Phase {
    /// Its objects and pods are being created, or its first master is being chosen.
    #[default]
    Creating,
    /// Everything is as wanted.
    Ready,
    /// It works, with less than wanted.
    Degraded,
    /// Writes are not accepted.
    Unavailable,
    /// The master is being changed.
    Promoting,
    /// Pods are being replaced, or added, or removed.
    Updating,
    /// The operator leaves it alone, as told.
    Paused,
    /// The operator cannot see how it is; the condition Ready says why.
    Unknown,
    /// Something has to be decided by a person; the condition Degraded says what.
    Blocked,
}

impl Phase {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Creating => "Creating",
            Phase::Ready => "Ready",
            Phase::Degraded => "Degraded",
            Phase::Unavailable => "Unavailable",
            Phase::Promoting => "Promoting",
            Phase::Updating => "Updating",
            Phase::Paused => "Paused",
            Phase::Unknown => "Unknown",
            Phase::Blocked => "Blocked",
        }
    }
}

/// Why nodes run the image that they run.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum ImageSource {
    /// `spec.image` names it.
    Spec,
    /// `spec.image` is empty: it is the operator's own, also after an upgrade of the operator.
    Operator,
    /// The spec names none. It is what `spec.image` named last, or else what the operator had when it first saw the
    /// cluster.
    Kept,
}

/// How far the first start of a cluster is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum Initialization {
    /// The first master is being told. It may have been.
    Decided,
    /// The first master has been told; this never happens again.
    Done,
}

/// Who is master.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MasterStatus {
    /// Its pod.
    pub pod: String,
    /// Its durable identity: that of its volume. Another volume under the same pod name is not the master.
    #[serde(rename = "nodeID")]
    pub node_id: Uuid,
    /// The process that was last seen as master.
    #[serde(rename = "bootID")]
    pub boot_id: Uuid,
    /// The epoch in which it writes.
    pub epoch: u64,
    /// Since when it writes in this epoch.
    pub since: Time,
    /// Where clients write.
    pub endpoint: String,
    /// How far its log was when it answered last: from this a failover counts what is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<MasterPosition>,
}

/// How far a master's log is known to go. Ordered by epoch first.
#[derive(
    Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct MasterPosition {
    /// The epoch of its last operation: an older one than the master's own until that was seen to be opened.
    pub epoch: u64,
    /// Offset of its last operation.
    pub offset: u64,
    /// Offset of the first operation of that epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_offset: Option<u64>,
}

/// A change of the master that is under way.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// The request, when one asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "requestID")]
    pub request_id: Option<String>,
    /// Why.
    pub reason: PromotionReason,
    /// How.
    pub mode: PromoteMode,
    /// The pod that becomes the master. In a failover it is known once the members are fenced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its durable identity.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "nodeID")]
    pub node_id: Option<Uuid>,
    /// The pod that was asked for, when one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// The node that was granted an epoch and could not open it. Of equals, it is the last to be chosen again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avoid: Option<Uuid>,
    /// The master when the change was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its epoch.
    pub from_epoch: u64,
    /// Its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_boot: Option<Uuid>,
    /// The epoch that the new master gets.
    pub epoch: u64,
    /// What is being done. Found after a restart of the operator, it counts as done or half done.
    pub step: TargetStep,
    /// When it was decided.
    pub started_at: Time,
    /// When this step was begun.
    pub step_at: Time,
    /// Until when it may be begun.
    pub deadline: Time,
    /// See `spec.promote.maxLagOperations`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lag_operations: Option<u64>,
    /// What it waits for, or what went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Why the master changes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum PromotionReason {
    /// `spec.promote` asked for it.
    Requested,
    /// The master's pod is about to be scaled away.
    ScaleDown,
    /// The master's pod has to be replaced.
    Rollout,
    /// The master's Kubernetes node is being drained.
    Drain,
    /// The data was there before the status: the most advanced node becomes the master.
    Recovery,
    /// The master had to stop for a higher epoch, and nobody has it.
    Deposed,
}

impl PromotionReason {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            PromotionReason::Requested => "Requested",
            PromotionReason::ScaleDown => "ScaleDown",
            PromotionReason::Rollout => "Rollout",
            PromotionReason::Drain => "Drain",
            PromotionReason::Recovery => "Recovery",
            PromotionReason::Deposed => "Deposed",
        }
    }
}

/// Steps of a change of the master.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum TargetStep {
    /// Decided. Nothing has changed, and nothing has if it is given up here.
    Reserved,
    /// Switchover: the master is handing over, or has, and the target is being granted the epoch.
    HandingOver,
    /// Failover: the old master's leadership is being ended.
    Vacating,
    /// Failover: members promise to accept nothing older.
    Fencing,
    /// Failover: the target is being granted the epoch.
    Granting,
}

/// The last promotion.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastPromotion {
    /// The request, when one asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "requestID")]
    pub request_id: Option<String>,
    /// Why.
    pub reason: PromotionReason,
    /// How.
    pub mode: PromoteMode,
    /// The master before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The master after, or the target of one that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// How it ended.
    pub result: PromotionResult,
    /// Switchover: for how long no node accepted writes, in ms, as the operator saw it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "writePauseMilliseconds"
    )]
    pub write_pause_ms: Option<u64>,
    /// Operations of the old master that the new one is known to lack; 0 for a switchover. The operator sees every few
    /// seconds how far a master is, and where the epoch of its last operation began: there can be more, with a busy
    /// master that died, or with logs that part before that epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_operations: Option<u64>,
    /// When it was decided.
    pub started_at: Time,
    /// When it ended.
    pub finished_at: Time,
    /// What happened, in a sentence.
    pub message: String,
}

/// How a promotion ended.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum PromotionResult {
    /// The target is the master.
    Succeeded,
    /// It was given up, and nothing has changed.
    Failed,
    /// It was not begun, because it cannot be.
    Refused,
}

impl PromotionResult {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            PromotionResult::Succeeded => "Succeeded",
            PromotionResult::Failed => "Failed",
            PromotionResult::Refused => "Refused",
        }
    }
}

/// One node.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its pod.
    pub pod: String,
    /// Its durable identity, once known.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "nodeID")]
    pub node_id: Option<Uuid>,
    /// Its role, as it says itself; `Unknown` when it does not answer.
    pub role: NodeRole,
    /// Health, as the master sees it (the values of `/replication/replicas`).
    pub status: NodeSync,
    /// Age of the oldest operation that it has not applied, in ms.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "lagMilliseconds"
    )]
    pub lag_ms: Option<u64>,
    /// Operations that it has not applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_operations: Option<u64>,
    /// The highest epoch that it has promised or seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Offset of its last operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// When the master last heard of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heartbeat: Option<Time>,
    /// Whether reads are sent there.
    pub read_eligible: bool,
}

/// Who belongs to the cluster, and how many replicas must hold a write before it is answered: as the Lease says.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedConcern {
    /// Node ids, the master's among them.
    #[schemars(length(max = 128))]
    pub members: Vec<Uuid>,
    /// Replicas that must hold a write besides the master.
    pub acks: u32,
    /// Position (`<epoch>.<offset>`) up to which writes may have been acknowledged while replicas had to hold them, as of
    /// the last change. While `acks` is 0, no failover goes without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 41))]
    pub secured: Option<String>,
}

impl From<&Grant> for RecordedConcern {
    fn from(grant: &Grant) -> Self {
        RecordedConcern {
            members: grant.concern.members.iter().copied().collect(),
            acks: grant.concern.acks,
            secured: (grant.secured > Position::ZERO).then(|| grant.secured.to_string()),
        }
    }
}

impl From<RecordedConcern> for Concern {
    fn from(recorded: RecordedConcern) -> Self {
        Concern {
            members: recorded.members.into_iter().collect(),
            acks: recorded.acks,
        }
    }
}

/// A node's role.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum NodeRole {
    /// Accepts writes.
    Master,
    /// Follows the master.
    Replica,
    /// Has not been told yet.
    Unassigned,
    /// Does not answer.
    Unknown,
}

/// A node's health.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum NodeSync {
    /// The master itself.
    Master,
    /// Healthy.
    Connected,
    /// In its first sync.
    Syncing,
    /// More than 1000 ms behind.
    Lagging,
    /// Not heard of.
    Disconnected,
    /// No master says anything about it.
    Unknown,
}
