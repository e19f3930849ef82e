//! The custom resource `VectorizerCluster`: what a user writes. What the operator answers is in `status`, what is
//! refused and with which words in `rules`.
//!
//! Only fields that do something are here; anything else is refused by `kubectl` (strict field validation) and dropped
//! by the API server. The types embedded from Kubernetes keep their full schema, without their texts: so a mistyped
//! affinity is refused when the cluster is applied, by name, and not by the StatefulSet later, where nobody looks. The
//! texts are left out because they alone would be several times everything else, and `kubectl apply` stores the whole
//! definition in an annotation of at most 256 KiB.

#![allow(
    clippy::duplicated_attributes,
    reason = "every printer column of the derive repeats the same keys"
)]

mod amount;
mod rules;
mod status;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, LocalObjectReference, Toleration, TopologySpreadConstraint,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use amount::Amount;
pub use rules::{RULES, Rule, definition, yaml};
pub use status::{
    ClusterStatus, ImageSource, Initialization, LastPromotion, MasterPosition, MasterStatus,
    NodeRole, NodeStatus, NodeSync, Phase, PromotionReason, PromotionResult, RecordedConcern,
    StatusMemory, TargetStatus, TargetStep,
};

/// A Vectorizer master with read replicas.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[kube(
    group = "vectorizer.hivellm.io",
    version = "v1alpha1",
    kind = "VectorizerCluster",
    namespaced,
    status = "ClusterStatus",
    shortname = "vc",
    category = "all",
    derive = "PartialEq",
    doc = "A Vectorizer master with read replicas, and the promotion of one of them when told to.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Master",
        type_ = "string",
        json_path = ".status.master.pod",
        description = "The pod that accepts writes"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.ready",
        description = "Nodes that are up and replicate, of those wanted"
    ),
    printcolumn(
        name = "Lag",
        type_ = "string",
        json_path = ".status.lag",
        description = "How far the slowest replica is behind"
    ),
    printcolumn(
        name = "Epoch",
        type_ = "integer",
        json_path = ".status.master.epoch",
        description = "Rises with every change and restart of the master"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.phase",
        description = "What the cluster is doing"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Image",
        type_ = "string",
        json_path = ".status.image",
        description = "The image that nodes run when the spec names none",
        priority = 1
    ),
    printcolumn(
        name = "Position",
        type_ = "integer",
        json_path = ".status.master.position.offset",
        description = "How far the master's log goes",
        priority = 1
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Degraded')].reason",
        description = "What is wrong, in one word",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct VectorizerClusterSpec {
    /// Read replicas beside the master. The scale subresource moves this.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 99))]
    pub replicas: u32,
    /// Image of the node. Without it, the one that nodes run already goes on, and a new cluster gets the one that the
    /// operator was installed with: neither an upgrade of the operator nor a field that goes away restarts anything. An
    /// empty text asks for the operator's own, also after each upgrade of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub image: Option<String>,
    /// When the image is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets to pull the image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// The volume of each node.
    #[serde(default)]
    pub storage: Storage,
    /// The keys that clients use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// What each node asks for, and may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels that a Kubernetes node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Scheduling rules of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How pods are spread. Without it, and without `affinity.podAntiAffinity`: over Kubernetes nodes and over zones, as
    /// far as possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
    /// Priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Which user and group nodes run as, and own their volume.
    #[serde(default)]
    pub run_as: RunAs,
    /// Further labels of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub pod_labels: BTreeMap<String, String>,
    /// Further annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub pod_annotations: BTreeMap<String, String>,
    /// Further environment variables of the node, such as VECTORIZER_LOG.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env: Vec<EnvVar>,
    /// Settings of the replication, named as in the node's configuration.
    #[serde(default)]
    pub replication: Replication,
    /// How many replicas must hold a write before it is answered. Without it, none: a master that is lost may take along
    /// what no replica had yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_concern: Option<WriteConcern>,
    /// Which replicas take part in reads.
    #[serde(default)]
    pub reads: Reads,
    /// Makes a replica the master. Carried out once per requestID; the operator never changes it. The next request
    /// replaces the whole of this: a merge patch would keep the target and the mode of the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promote: Option<Promote>,
    /// Stops the operator from changing anything of this cluster: no object, no pod, no volume, no other master. Nodes go
    /// on by themselves; the status goes on too, and so do the labels by which Services find a pod that was made anew, and
    /// whom replicas follow.
    #[serde(default)]
    pub paused: bool,
}

/// Which user and group nodes run as.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum RunAs {
    /// 65532, and volumes belong to that group.
    #[default]
    Fixed,
    /// Whichever the platform assigns: OpenShift's restricted policies refuse pods that ask for one.
    Assigned,
}

/// When an image is pulled.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum ImagePullPolicy {
    /// At every start.
    Always,
    /// When it is not there yet.
    IfNotPresent,
    /// Never: it has to be there.
    Never,
}

impl ImagePullPolicy {
    /// The word in a pod.
    pub fn as_str(self) -> &'static str {
        match self {
            ImagePullPolicy::Always => "Always",
            ImagePullPolicy::IfNotPresent => "IfNotPresent",
            ImagePullPolicy::Never => "Never",
        }
    }
}

/// The volume of each node.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size of each volume. Once there was a master it may only grow, or go back to `status.volumeSize`.
    #[serde(default = "default_size")]
    pub size: Amount,
    /// Storage class; without it, the default one. Cannot be changed once there was a master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// What becomes of the volumes of nodes that are wanted no more.
    #[serde(default)]
    pub retention: VolumeRetention,
}

impl Default for Storage {
    fn default() -> Self {
        Storage {
            size: default_size(),
            storage_class_name: None,
            retention: VolumeRetention::default(),
        }
    }
}

/// What becomes of the volumes of nodes that are wanted no more, as in a StatefulSet.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeRetention {
    /// When the cluster is deleted. Where they are kept, so is the Secret `<name>-auth` that was made for them: a cluster
    /// of that name that is made again has its data and its keys.
    pub when_deleted: Retention,
    /// When a replica is scaled away. Kept, a replica that comes back continues where it was.
    pub when_scaled: Retention,
}

/// The keys that clients use.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// Secret of yours with `admin-key` and `read-key`; it is read and never written to. Without it, `<name>-auth`, which
    /// is made with random keys where it does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
}

/// What becomes of volumes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum Retention {
    /// They are kept.
    #[default]
    Retain,
    /// They are deleted with what used them.
    Delete,
}

impl Retention {
    /// The word in a StatefulSet.
    pub fn as_str(self) -> &'static str {
        match self {
            Retention::Retain => "Retain",
            Retention::Delete => "Delete",
        }
    }
}

/// Requests and limits of the node's container.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, JsonSchema)]
pub struct Resources {
    /// What is set aside for each node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: BTreeMap<String, Amount>,
    /// What each node may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub limits: BTreeMap<String, Amount>,
}

/// Settings of the replication.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Replication {
    /// Seconds between heartbeats.
    #[schemars(range(min = 1, max = 60))]
    pub heartbeat_interval_seconds: u32,
    /// Seconds without a frame after which a connection counts as dead. Above the heartbeat interval.
    #[schemars(range(min = 2, max = 600))]
    pub replica_timeout_seconds: u32,
    /// Operations kept for replicas that were away; one that missed more is sent everything.
    #[schemars(range(min = 1000, max = 1_000_000_000))]
    pub log_size: u64,
    /// Bytes that the log may take on each volume, even if those are fewer than `logSize` operations; without it, a third of
    /// the volume. A disk that gets short takes the log further down.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_048_576, max = 1_125_899_906_842_624_u64))]
    pub log_max_bytes: Option<u64>,
    /// Seconds between a replica's attempts to reach its master.
    #[schemars(range(min = 1, max = 300))]
    pub reconnect_interval_seconds: u32,
}

impl Default for Replication {
    fn default() -> Self {
        Replication {
            heartbeat_interval_seconds: 5,
            replica_timeout_seconds: 30,
            log_size: 1_000_000,
            log_max_bytes: None,
            reconnect_interval_seconds: 5,
        }
    }
}

/// How many replicas must hold a write before it is answered.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WriteConcern {
    /// Replicas that must hold a write besides the master. A failover then needs so many nodes that one of them holds
    /// every acknowledged write: all but this many of those that belong to the cluster.
    #[schemars(range(min = 0, max = 9))]
    pub acks: u32,
    /// What a replica must have done with it.
    #[serde(default)]
    pub level: WriteLevel,
    /// Seconds that a write waits for them, before it is answered that its outcome is unknown.
    #[serde(default = "default_write_timeout")]
    #[schemars(range(min = 1, max = 600))]
    pub timeout_seconds: u32,
}

impl Default for WriteConcern {
    fn default() -> Self {
        WriteConcern {
            acks: 0,
            level: WriteLevel::default(),
            timeout_seconds: default_write_timeout(),
        }
    }
}

/// What a replica must have done with a write.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum WriteLevel {
    /// It is on its disk.
    #[default]
    Durable,
    /// It is on its disk, and whoever reads there sees it.
    Applied,
}

impl WriteLevel {
    /// The word in the node's configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            WriteLevel::Durable => "durable",
            WriteLevel::Applied => "applied",
        }
    }
}

fn default_write_timeout() -> u32 {
    10
}

/// Which replicas take part in reads.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Reads {
    /// A replica that is further behind, in seconds, leaves the read Service until it is below half of this.
    #[schemars(range(min = 1, max = 3600))]
    pub max_lag_seconds: u32,
}

impl Default for Reads {
    fn default() -> Self {
        Reads { max_lag_seconds: 1 }
    }
}

impl Reads {
    /// The same in ms, as nodes measure.
    pub fn max_lag_ms(&self) -> u64 {
        u64::from(self.max_lag_seconds) * 1000
    }
}

/// Makes a replica the master.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Promote {
    /// The pod to promote; without it, the replica that is most advanced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub target: Option<String>,
    /// Any name for this request. A request is carried out once: the next one needs another requestID.
    #[serde(rename = "requestID")]
    #[schemars(length(min = 1, max = 64))]
    pub request_id: String,
    /// How.
    #[serde(default)]
    pub mode: PromoteMode,
    /// How long it may take, in seconds, until it is given up; nothing has changed then. What has passed the point of
    /// no return is finished, however long it takes.
    #[serde(default = "default_deadline")]
    #[schemars(range(min = 1, max = 3600))]
    pub deadline_seconds: u32,
    /// A Switchover begins only when the target is at most this many operations behind; a Failover is refused when more
    /// than this many are known to be lost. Without it, there is no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lag_operations: Option<u64>,
}

/// How a replica is promoted.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema)]
pub enum PromoteMode {
    /// The master hands over; nothing is lost.
    #[default]
    Switchover,
    /// For a master that is gone: the most advanced replica takes over as soon as the old master can no longer write.
    Failover,
}

fn default_replicas() -> u32 {
    2
}

fn default_size() -> Amount {
    Amount::from("10Gi")
}

fn default_deadline() -> u32 {
    30
}
