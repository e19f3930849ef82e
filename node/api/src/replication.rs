//! The endpoints under `/replication`, field for field as in the specification ("API Endpoints").
//!
//! Fields beyond those of the specification are marked as such; they are only ever added.

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vectorizer_replication::position::{Chain, History, Position};

/// What a node is at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Accepts writes and feeds replicas.
    Master,
    /// Read-only; follows a master.
    Replica,
    /// Has not been told yet, or was fenced: serves no data and claims nothing.
    Unassigned,
}

impl Role {
    /// The word used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Master => "master",
            Role::Replica => "replica",
            Role::Unassigned => "unassigned",
        }
    }
}

/// `GET /replication/status`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Status {
    /// Whether replication is configured at all.
    pub enabled: bool,
    /// Role of the answering node.
    pub role: Role,
    /// Where it listens for replicas. On a master; on a replica that will listen once promoted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_address: Option<String>,
    /// Whom it follows. On a replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_address: Option<String>,
    /// Replicas with a live session; 0 on a replica.
    pub connected_replicas: u64,
    /// Capacity of the replication log, in operations.
    pub replication_log_size: u64,
    /// Offset of the last operation that this node has applied.
    pub current_offset: u64,
    /// Beyond the specification: epoch of that operation.
    pub epoch: u64,
    /// Beyond the specification: this node's durable identity.
    pub node_id: Uuid,
    /// Beyond the specification: on a replica, whether its session with the master is live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    /// Beyond the specification: offset of the oldest operation still in the log; a replica that lacks one before it is
    /// sent everything.
    #[serde(default)]
    pub log_first_offset: u64,
    /// Beyond the specification: bytes of the log's files.
    #[serde(default)]
    pub log_bytes: u64,
    /// Beyond the specification: bytes that they may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_max_bytes: Option<u64>,
    /// Beyond the specification: things a person should know, such as access without keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Body of `POST /replication/configure`. Unknown fields are refused.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Configure {
    /// `master` or `replica`.
    pub role: String,
    /// Bind address for a master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind_address: Option<String>,
    /// Master's address for a replica; required there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_address: Option<String>,
    /// Seconds between heartbeats; 5 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval: Option<u64>,
    /// Capacity of the replication log in operations; 1,000,000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_size: Option<u64>,
    /// Seconds between a replica's attempts to reconnect; 5 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnect_interval: Option<u64>,
}

/// Answer of `POST /replication/configure`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Configured {
    /// Always true; a refusal is an error.
    pub success: bool,
    /// `Master` or `Replica`, capitalized as in the specification.
    pub role: String,
    /// That a restart is required.
    pub message: String,
    /// Beyond the specification: what the environment or flags will override at the next start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// `GET /replication/stats`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stats {
    /// Role of the answering node.
    pub role: Role,
    /// Bytes sent on replication links since the process started.
    pub bytes_sent: u64,
    /// Bytes received on replication links since the process started.
    pub bytes_received: u64,
    /// Unix time in seconds: on a master, of the last acknowledgement from any replica; on a replica, of the last
    /// moment at which it had applied all that the master had. 0 for never.
    pub last_sync: u64,
    /// On a master, operations that the slowest connected replica has not applied; on a replica, those known to be
    /// missing here.
    pub operations_pending: u64,
    /// Bytes of the last snapshot sent or received; 0 for none.
    pub snapshot_size: u64,
    /// Replicas with a live session.
    pub connected_replicas: u64,
    /// Offset of the last operation applied.
    pub current_offset: u64,
    /// Capacity of the replication log, in operations.
    pub replication_log_size: u64,
    /// Beyond the specification: full syncs sent or received since the process started.
    pub full_syncs: u64,
    /// Beyond the specification: partial syncs sent or received since the process started.
    pub partial_syncs: u64,
}

/// `GET /replication/digest`, beyond the specification: proof of what a node holds at one position. Two nodes whose
/// position and digest are the same hold the same.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Digests {
    /// The last operation applied.
    #[cfg_attr(
        feature = "schema",
        schemars(with = "std::collections::BTreeMap<String, u64>")
    )]
    pub position: Position,
    /// The hash over the log up to there.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub chain: Chain,
    /// Epochs of the log.
    #[cfg_attr(feature = "schema", schemars(with = "Vec<serde_json::Value>"))]
    pub history: History,
    /// Of everything: 32 hexadecimal digits.
    pub digest: String,
    /// Ordered by name.
    pub collections: Vec<CollectionDigest>,
}

/// The digest of one collection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CollectionDigest {
    /// The collection.
    pub name: String,
    /// Vectors in it.
    pub count: u64,
    /// Of all of them: 32 hexadecimal digits.
    pub digest: String,
}

/// `GET /replication/replicas`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Replicas {
    /// One entry per replica, live or not, ordered by id.
    pub replicas: Vec<Replica>,
    /// Their number.
    pub count: usize,
}

/// Health of one replica (specification, "Replica Status Values").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ReplicaStatus {
    /// Healthy and syncing normally.
    Connected,
    /// In its initial sync.
    Syncing,
    /// More than 1000 ms behind.
    Lagging,
    /// No heartbeat for 60 s or more.
    Disconnected,
}

impl ReplicaStatus {
    /// All of them.
    pub const ALL: [ReplicaStatus; 4] = [
        ReplicaStatus::Connected,
        ReplicaStatus::Syncing,
        ReplicaStatus::Lagging,
        ReplicaStatus::Disconnected,
    ];

    /// The word of the specification.
    pub fn as_str(self) -> &'static str {
        match self {
            ReplicaStatus::Connected => "Connected",
            ReplicaStatus::Syncing => "Syncing",
            ReplicaStatus::Lagging => "Lagging",
            ReplicaStatus::Disconnected => "Disconnected",
        }
    }
}

/// One replica as its master sees it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Replica {
    /// Durable identity of the replica.
    pub id: Uuid,
    /// The same as `id`, under the name that public clients read.
    pub replica_id: Uuid,
    /// Beyond the specification: the replica's own name, on Kubernetes its pod's.
    pub node: String,
    /// Its advertised host, or the peer's address.
    pub host: String,
    /// Its advertised port, or the peer's.
    pub port: u16,
    /// Health.
    pub status: ReplicaStatus,
    /// Age by the master's clock, in ms, of the oldest operation not applied there; 0 when there is none.
    pub lag_ms: u64,
    /// Unix time in seconds of the last frame from it.
    pub last_heartbeat: u64,
    /// Operations that it has applied, from the beginning of the log.
    pub operations_synced: u64,
    /// `host:port`.
    pub address: String,
    /// Offset of the last operation applied there.
    pub offset: u64,
    /// Master's end minus `offset`.
    pub lag_operations: u64,
    /// Beyond the specification: offset of the last operation durable there.
    pub durable_offset: u64,
    /// Beyond the specification: whether a session is live right now.
    pub connected: bool,
}
