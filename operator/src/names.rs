//! Names that stand in the cluster: labels, annotations, conditions, reasons, ports, and the names of objects.
//!
//! Everything that somebody may select, watch or script against is here and nowhere else.

/// Field manager of server-side apply, reporter of events, value of `app.kubernetes.io/managed-by`.
pub const MANAGER: &str = "vectorizer-operator";

/// Label on everything that the operator creates, and what its watches select.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label: the kind of software.
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// Label: the cluster's name, once more under the name that dashboards know.
pub const APP_INSTANCE: &str = "app.kubernetes.io/instance";
/// Label: the cluster's name.
pub const CLUSTER: &str = "vectorizer.hivellm.io/cluster";
/// Label: which of the two StatefulSets a pod belongs to, `master` or `replica`. Says nothing about its role.
pub const SET: &str = "vectorizer.hivellm.io/set";
/// Label on pods: the role now, `master` or `replica`; absent until decided.
pub const ROLE: &str = "vectorizer.hivellm.io/role";
/// Label on pods: `true` while reads may be sent there.
pub const READ_ELIGIBLE: &str = "vectorizer.hivellm.io/read-eligible";
/// Label that the StatefulSet controller puts on its pods: the template that they were made from.
pub const REVISION: &str = "controller-revision-hash";
/// Label on the operator's own pods, whatever its chart names the rest: network policies let it in by this.
pub const OPERATOR: &str = "vectorizer.hivellm.io/operator";
/// Annotation on the pod template: checksum of the node's configuration, so that a change of it is a new template.
pub const CONFIG_CHECKSUM: &str = "vectorizer.hivellm.io/config-checksum";

/// Annotation on a Secret that the operator made and that nobody owns, so that it outlives the resource with the volumes
/// that its keys are for.
pub const GENERATED: &str = "vectorizer.hivellm.io/generated";

/// Port of the REST API.
pub const REST_PORT: u16 = 15002;
/// Port of probes, commands and metrics: what the kubelet, the operator and Prometheus ask, apart from clients.
pub const OPS_PORT: u16 = 15003;
/// Port of replication.
pub const REPLICATION_PORT: u16 = 7001;
/// Name of the container that runs the node.
pub const CONTAINER: &str = "node";
/// Name of the volume claim template that holds a node's data.
pub const DATA_VOLUME: &str = "data";
/// User and group that nodes run as.
pub const USER: i64 = 65532;

/// Keys of the Secret with the clients' keys.
pub const AUTH_KEYS: [&str; 2] = ["admin-key", "read-key"];
/// Key of the internal Secret: what nodes prove to each other.
pub const REPLICATION_TOKEN: &str = "replication-token";
/// Key of the internal Secret: what the operator shows to nodes.
pub const CONTROL_TOKEN: &str = "control-token";
/// Keys of the internal Secret.
pub const INTERNAL_KEYS: [&str; 2] = [REPLICATION_TOKEN, CONTROL_TOKEN];

/// Types of conditions.
pub mod condition {
    /// Every node is up, of the wanted template, and replicates.
    pub const READY: &str = "Ready";
    /// A change is being carried out: creation, scaling, a rollout, a promotion.
    pub const PROGRESSING: &str = "Progressing";
    /// Something is wrong that does not mend itself, or has not yet.
    pub const DEGRADED: &str = "Degraded";
    /// Writes are accepted, and the Service for them leads to the master.
    pub const AVAILABLE: &str = "Available";
    /// Every replica is connected and within `reads.maxLagSeconds`.
    pub const REPLICATION_HEALTHY: &str = "ReplicationHealthy";
    /// Every pod that is wanted runs; otherwise why not, as Kubernetes says it.
    pub const PODS_RUNNING: &str = "PodsRunning";
    /// Every volume has the size and the class that are wanted; otherwise why not. Nothing else waits for it.
    pub const VOLUMES_AS_WANTED: &str = "VolumesAsWanted";
    /// Each write is held by as many replicas as `writeConcern.acks` asks for; absent when it asks for none.
    pub const SYNCHRONOUS_REPLICATION_MET: &str = "SynchronousReplicationMet";
    /// The disk of a node is too full for writes that grow.
    pub const DISK_PRESSURE: &str = "DiskPressure";
    /// The memory of a node is too full for writes that grow, or it was killed for want of some.
    pub const MEMORY_PRESSURE: &str = "MemoryPressure";
    /// Outcome of the last promotion; absent when there was none.
    pub const PROMOTION_SUCCEEDED: &str = "PromotionSucceeded";
}

/// Reasons of conditions and events.
#[expect(missing_docs, reason = "the words say it; each comes with a message")]
pub mod reason {
    pub const ALL_NODES_READY: &str = "AllNodesReady";
    pub const AS_WANTED: &str = "AsWanted";
    pub const CLAIMS_GROWING: &str = "ClaimsGrowing";
    pub const COMMAND_REFUSED: &str = "CommandRefused";
    pub const CONTAINER_CRASHES: &str = "ContainerCrashes";
    pub const CONTAINER_NOT_STARTED: &str = "ContainerNotStarted";
    pub const DISK_FULL: &str = "DiskFull";
    pub const ENOUGH_ROOM: &str = "EnoughRoom";
    pub const FOREIGN_DATA: &str = "ForeignData";
    pub const IMAGE_KEPT: &str = "ImageKept";
    pub const IMAGE_NOT_PULLED: &str = "ImageNotPulled";
    pub const INITIALIZED: &str = "Initialized";
    pub const INVALID_SPEC: &str = "InvalidSpec";
    pub const LEASE_ALIVE: &str = "LeaseAlive";
    pub const LEASE_RESTORED: &str = "LeaseRestored";
    pub const LEASE_UNUSABLE: &str = "LeaseUnusable";
    pub const MASTER_ADOPTED: &str = "MasterAdopted";
    pub const MASTER_LOST_DATA: &str = "MasterLostData";
    pub const MASTER_NOT_WRITABLE: &str = "MasterNotWritable";
    pub const MASTER_RESTARTING: &str = "MasterRestarting";
    pub const MASTER_UNREACHABLE: &str = "MasterUnreachable";
    pub const MEMORY_FULL: &str = "MemoryFull";
    pub const NAME_TAKEN: &str = "NameTaken";
    pub const NOT_OBSERVED: &str = "NotObserved";
    pub const NO_CANDIDATE: &str = "NoCandidate";
    pub const NO_ENDPOINT: &str = "NoEndpoint";
    pub const NO_MASTER: &str = "NoMaster";
    pub const NO_REPLICAS: &str = "NoReplicas";
    pub const NODES_MISSING: &str = "NodesMissing";
    pub const NOTHING_WRONG: &str = "NothingWrong";
    pub const OBJECT_REFUSED: &str = "ObjectRefused";
    pub const OOM_KILLED: &str = "OOMKilled";
    pub const PAUSED: &str = "Paused";
    pub const POD_NOT_CREATED: &str = "PodNotCreated";
    pub const POD_REPLACED: &str = "PodReplaced";
    pub const POD_UNSCHEDULABLE: &str = "PodUnschedulable";
    pub const PODS_MISSING: &str = "PodsMissing";
    pub const PROMOTION_FAILED: &str = "PromotionFailed";
    pub const PROMOTION_REFUSED: &str = "PromotionRefused";
    pub const PROMOTION_RESERVED: &str = "PromotionReserved";
    pub const PROMOTION_STARTED: &str = "PromotionStarted";
    pub const PROMOTION_SUCCEEDED: &str = "PromotionSucceeded";
    pub const PROMOTION_WAITS: &str = "PromotionWaits";
    pub const WRITE_CONCERN_PENDING: &str = "WriteConcernPending";
    pub const RECOVERING: &str = "Recovering";
    pub const REPLICAS_BEHIND: &str = "ReplicasBehind";
    pub const REPLICAS_CONNECTED: &str = "ReplicasConnected";
    pub const REPLICAS_MISSING: &str = "ReplicasMissing";
    pub const SCALING: &str = "Scaling";
    pub const SECRET_INCOMPLETE: &str = "SecretIncomplete";
    pub const SECRET_MISSING: &str = "SecretMissing";
    pub const SECRET_RESTORED: &str = "SecretRestored";
    pub const STARTING: &str = "Starting";
    pub const TARGET_CHOSEN: &str = "TargetChosen";
    pub const UPDATING: &str = "Updating";
    pub const VOLUMES_REPLACED: &str = "VolumesReplaced";
    pub const VOLUME_CANNOT_GROW: &str = "VolumeCannotGrow";
    pub const VOLUME_NOT_MOUNTED: &str = "VolumeNotMounted";
    pub const VOLUME_NOT_PROVISIONED: &str = "VolumeNotProvisioned";
    pub const VOLUME_OF_ANOTHER_CLASS: &str = "VolumeOfAnotherClass";
    pub const WRITES_ACCEPTED: &str = "WritesAccepted";
}

/// Name of the StatefulSet that starts with the master.
pub fn master_set(cluster: &str) -> String {
    format!("{cluster}-master")
}

/// Name of the StatefulSet that starts with the replicas.
pub fn replica_set(cluster: &str) -> String {
    format!("{cluster}-replica")
}

/// Name of the pod that is the first master.
pub fn first_master(cluster: &str) -> String {
    format!("{cluster}-master-0")
}

/// Name of a pod of the replica set.
pub fn replica_pod(cluster: &str, ordinal: u32) -> String {
    format!("{cluster}-replica-{ordinal}")
}

/// Name of the headless Service that gives every pod an address.
pub fn nodes_service(cluster: &str) -> String {
    format!("{cluster}-nodes")
}

/// Name of the Service for writes.
pub fn write_service(cluster: &str) -> String {
    format!("{cluster}-rw")
}

/// Name of the Service for reads.
pub fn read_service(cluster: &str) -> String {
    format!("{cluster}-ro")
}

/// Name of the Secret with the keys that clients use.
pub fn auth_secret(cluster: &str) -> String {
    format!("{cluster}-auth")
}

/// Name of the Secret with the credentials between nodes and operator.
pub fn internal_secret(cluster: &str) -> String {
    format!("{cluster}-internal")
}

/// Name of the ConfigMap with the node's YAML.
pub fn config_map(cluster: &str) -> String {
    format!("{cluster}-config")
}

/// Name of the nodes' ServiceAccount, Role and RoleBinding.
pub fn service_account(cluster: &str) -> String {
    format!("{cluster}-node")
}

/// Name of the Lease that names the master.
pub fn lease(cluster: &str) -> String {
    cluster.to_owned()
}

/// Name of a pod's claim.
pub fn claim(pod: &str) -> String {
    format!("{DATA_VOLUME}-{pod}")
}

/// What a claim is called where kinds are mixed.
pub fn claim_reference(claim: &str) -> String {
    format!("PersistentVolumeClaim {claim}")
}

/// The pod that a claim is for.
pub fn pod_of_claim(claim: &str) -> Option<&str> {
    claim.strip_prefix(DATA_VOLUME)?.strip_prefix('-')
}

/// The labels of what outlives the resource, which nobody owns then: none by which a tool that deploys things (Helm, Argo
/// CD, kustomize) takes it for its own, and removes it with the rest.
pub fn own_labels(cluster: &str) -> std::collections::BTreeMap<String, String> {
    [(CLUSTER.to_owned(), cluster.to_owned())].into()
}

/// The labels that everything of one cluster carries, except what outlives it.
pub fn labels(cluster: &str) -> std::collections::BTreeMap<String, String> {
    [
        (APP_NAME, "vectorizer"),
        (APP_INSTANCE, cluster),
        (MANAGED_BY, MANAGER),
        (CLUSTER, cluster),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}
