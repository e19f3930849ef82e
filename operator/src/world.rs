//! Everything that a decision looks at, as plain data: read once by `observe`, never changed afterwards.
//!
//! No client types and nothing that waits. A node that did not answer is a [`Probe`] like any other; an object under one
//! of our names that is somebody else's is in `taken`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use uuid::Uuid;
use vectorizer_api::control::State;
use vectorizer_api::replication::{Replica, Role};

use crate::crd::{ClusterStatus, VectorizerCluster, VectorizerClusterSpec};
use crate::names;

mod objects;
mod seen;
mod trouble;

pub use objects::{Kind, ObjectRef, Stamp};
pub use seen::{ClaimSeen, LeaseSeen, SecretSeen, Secrets, SetSeen};
pub use trouble::{Refusal, Trouble};

/// What was read in one pass.
#[derive(Clone, Debug)]
pub struct World {
    /// The operator's clock.
    pub now: Timestamp,
    /// What is wanted.
    pub cluster: Cluster,
    /// The status as stored: the operator's memory and its last report.
    pub status: ClusterStatus,
    /// The image for clusters that name none.
    pub default_image: String,
    /// Objects of ours that exist.
    pub objects: BTreeMap<ObjectRef, Stamp>,
    /// What this process has applied, and the stamp that the object had afterwards.
    pub applied: BTreeMap<ObjectRef, (String, Stamp)>,
    /// Objects under our names that are not ours.
    pub taken: BTreeSet<ObjectRef>,
    /// What the API server refused when it was asked last, by kind and name.
    pub refusals: BTreeMap<String, Refusal>,
    /// The Secrets with credentials.
    pub secrets: Secrets,
    /// The two StatefulSets, `master` and `replica`.
    pub sets: [Option<SetSeen>; 2],
    /// Claims by name.
    pub claims: BTreeMap<String, ClaimSeen>,
    /// The Lease.
    pub lease: LeaseSeen,
    /// Every node that is wanted or exists, the master set's first, then by ordinal.
    pub members: Vec<Member>,
    /// The replicas, as the node that is master lists them; `None` when no master answered.
    pub replicas: Option<Vec<Replica>>,
}

/// A resource whose content was found to be possible.
#[derive(Clone, PartialEq, Debug)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid, which also becomes the identity of a new cluster of nodes.
    pub uid: Uuid,
    /// Generation of the spec.
    pub generation: i64,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// resourceVersion at which it was read.
    pub version: String,
    /// What is wanted.
    pub spec: VectorizerClusterSpec,
    /// The pod named in `spec.promote.target`.
    pub promote_target: Option<(Set, u32)>,
    /// Wanted size of a volume in bytes.
    pub claim_bytes: f64,
    /// What of it contradicts itself: nodes are left as they are, and whoever is master is still looked after.
    pub doubt: Option<Invalid>,
}

/// Why a resource cannot be worked with. The API server refuses most of this; what was stored before a rule was there
/// is caught here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Invalid {
    /// A part of the metadata is missing.
    #[error("metadata.{0} is missing")]
    Metadata(&'static str),
    /// The name is too long.
    #[error(
        "metadata.name: `{0}` has more than 40 characters, so that names made from it do not fit"
    )]
    Name(String),
    /// The target of a promotion is no pod of this cluster.
    #[error(
        "spec.promote.target: `{0}` is not a pod of this cluster: <name>-master-0 or <name>-replica-<number>"
    )]
    Target(String),
    /// The size cannot be read.
    #[error("spec.storage.size: `{0}` is not a size above 0, such as 10Gi")]
    Size(String),
    /// Every peer would be given up between two heartbeats.
    #[error(
        "spec.replication.replicaTimeoutSeconds: {timeout} is not above heartbeatIntervalSeconds, which is {heartbeat}"
    )]
    Timeout {
        /// The timeout in seconds.
        timeout: u32,
        /// The heartbeats' interval in seconds.
        heartbeat: u32,
    },
    /// No write could ever be acknowledged.
    #[error("spec.writeConcern.acks: {acks} is more than the replicas, which are {replicas}")]
    Acks {
        /// Acknowledgements asked for.
        acks: u32,
        /// Replicas wanted.
        replicas: u32,
    },
}

impl Cluster {
    /// Checks a resource once; nothing later parses it again.
    pub fn check(raw: &VectorizerCluster) -> Result<Self, Invalid> {
        let metadata = &raw.metadata;
        let name = metadata.name.clone().ok_or(Invalid::Metadata("name"))?;
        if name.len() > 40 {
            return Err(Invalid::Name(name));
        }
        let uid = metadata.uid.as_deref().and_then(|uid| uid.parse().ok());
        let target = raw.spec.promote.as_ref().and_then(|p| p.target.as_ref());
        let promote_target = match target {
            None => None,
            Some(pod) => Some(parse_pod(&name, pod).ok_or_else(|| Invalid::Target(pod.clone()))?),
        };
        let size = &raw.spec.storage.size;
        let claim_bytes = size
            .value()
            .filter(|bytes| *bytes > 0.0)
            .ok_or_else(|| Invalid::Size(size.as_str().to_owned()))?;
        let replication = &raw.spec.replication;
        let (timeout, heartbeat) = (
            replication.replica_timeout_seconds,
            replication.heartbeat_interval_seconds,
        );
        let (acks, replicas) = (
            raw.spec.write_concern.as_ref().map_or(0, |w| w.acks),
            raw.spec.replicas,
        );
        let doubt = if timeout <= heartbeat {
            Some(Invalid::Timeout { timeout, heartbeat })
        } else {
            (acks > replicas).then_some(Invalid::Acks { acks, replicas })
        };
        Ok(Cluster {
            name,
            namespace: metadata
                .namespace
                .clone()
                .ok_or(Invalid::Metadata("namespace"))?,
            uid: uid.ok_or(Invalid::Metadata("uid"))?,
            generation: metadata.generation.unwrap_or(0),
            created: metadata.creation_timestamp.as_ref().map(|at| at.0),
            version: metadata
                .resource_version
                .clone()
                .ok_or(Invalid::Metadata("resourceVersion"))?,
            spec: raw.spec.clone(),
            promote_target,
            claim_bytes,
            doubt,
        })
    }

    /// Name of a pod.
    pub fn pod(&self, set: Set, ordinal: u32) -> String {
        match set {
            Set::Master => format!("{}-{ordinal}", names::master_set(&self.name)),
            Set::Replica => names::replica_pod(&self.name, ordinal),
        }
    }

    /// The Secret with the clients' keys that the spec names, which its user makes.
    pub fn named_secret(&self) -> Option<&str> {
        self.spec.auth.as_ref()?.secret_name.as_deref()
    }

    /// Name of the Secret with the clients' keys.
    pub fn auth_secret(&self) -> String {
        let generated = || names::auth_secret(&self.name);
        self.named_secret().map_or_else(generated, str::to_owned)
    }

    /// Where clients write.
    pub fn endpoint(&self) -> String {
        format!(
            "http://{}.{}.svc:{}",
            names::write_service(&self.name),
            self.namespace,
            names::REST_PORT
        )
    }
}

/// The set and ordinal of a pod of the cluster `name`.
pub fn parse_pod(name: &str, pod: &str) -> Option<(Set, u32)> {
    let rest = pod.strip_prefix(name)?.strip_prefix('-')?;
    let (set, ordinal) = rest.split_once('-')?;
    let plain = ordinal == "0" || !ordinal.starts_with(['0', '+']);
    let ordinal = ordinal.parse().ok().filter(|_| plain)?;
    match set {
        "master" => Some((Set::Master, ordinal)),
        "replica" => Some((Set::Replica, ordinal)),
        _ => None,
    }
}

/// One of the two StatefulSets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Set {
    /// `<name>-master`, of one pod.
    Master,
    /// `<name>-replica`, of as many pods as there are replicas.
    Replica,
}

impl Set {
    /// The word in names and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Set::Master => "master",
            Set::Replica => "replica",
        }
    }

    /// Its place in [`World::sets`].
    pub fn index(self) -> usize {
        match self {
            Set::Master => 0,
            Set::Replica => 1,
        }
    }
}

/// One node: its pod, and what it says.
#[derive(Clone, PartialEq, Debug)]
pub struct Member {
    /// Name of its pod.
    pub pod: String,
    /// Its StatefulSet.
    pub set: Set,
    /// Its number there.
    pub ordinal: u32,
    /// Its pod, if there is one.
    pub seen: Option<PodSeen>,
    /// Why there is no pod that should be, as its StatefulSet says.
    pub absent: Option<Trouble>,
    /// What the node says.
    pub probe: Probe,
}

/// A pod as found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodSeen {
    /// Its uid.
    pub uid: String,
    /// Its address, once it has one.
    pub ip: Option<String>,
    /// The label that says its role.
    pub role: Option<String>,
    /// The label that sends reads there.
    pub read_eligible: bool,
    /// Whether its kubelet says that it is ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether neither of the cluster's StatefulSets controls it: it remains of an earlier cluster of that name.
    pub stranger: bool,
    /// The template that it was made from.
    pub revision: Option<String>,
    /// What keeps it from running, as its kubelet or the scheduler says.
    pub trouble: Option<Trouble>,
    /// Whether labels that it is found by are missing or say something else.
    pub mislabelled: bool,
    /// Whether its Kubernetes node takes no new pods: it is being drained.
    pub cordoned: bool,
    /// When its container was last killed for want of memory, if nothing else has ended it since.
    pub oom_killed: Option<Timestamp>,
}

/// The labels by which Services find a pod.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Labels {
    /// Its role.
    pub role: Option<String>,
    /// Whether reads are sent there.
    pub read_eligible: bool,
}

impl Labels {
    /// Those of an object.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let label = |key: &str| metadata.labels.as_ref().and_then(|l| l.get(key));
        Labels {
            role: label(names::ROLE).cloned(),
            read_eligible: label(names::READ_ELIGIBLE).is_some_and(|value| value == "true"),
        }
    }
}

/// What became of asking a node.
#[derive(Clone, PartialEq, Debug)]
pub enum Probe {
    /// It has no address yet.
    NoAddress,
    /// It did not answer: why.
    Unreachable(String),
    /// It answered, and does not know the operator's control token: what it said.
    Refused(String),
    /// Its answer.
    State(Box<State>),
}

impl Member {
    /// What the node says, when it answers.
    pub fn state(&self) -> Option<&State> {
        match &self.probe {
            Probe::State(state) => Some(state),
            Probe::NoAddress | Probe::Unreachable(_) | Probe::Refused(_) => None,
        }
    }

    /// In words, what keeps a node that says nothing of itself from it: the end of a sentence that begins with its pod.
    pub fn silence(&self) -> String {
        match &self.probe {
            Probe::Refused(said) => format!(
                "answers, and knows neither the operator's control token nor the one before it ({said}); a node has a \
                 changed Secret within two minutes, or else has been given another one"
            ),
            Probe::NoAddress | Probe::Unreachable(_) | Probe::State(_) => {
                "does not answer".to_owned()
            }
        }
    }

    /// Whether the node answers and calls itself a master.
    pub fn is_master(&self) -> bool {
        self.state().is_some_and(|s| s.role == Role::Master)
    }

    /// Whether the node answers and has, or ever had, data.
    pub fn holds_data(&self) -> bool {
        self.state()
            .is_some_and(|s| s.has_data || s.position.offset > 0)
    }

    /// Whether the node answers and holds data of another cluster than that one.
    pub fn is_of_another(&self, cluster: Option<Uuid>) -> bool {
        let own = self.state().and_then(|s| s.cluster);
        own.is_some() && own != cluster
    }

    /// Its replication address, `host:port`.
    pub fn replication_address(&self) -> Option<String> {
        self.host()
            .map(|host| format!("{host}:{}", names::REPLICATION_PORT))
    }

    /// Its REST address, `http://host:port`, for clients and other nodes.
    pub fn url(&self) -> Option<String> {
        self.host()
            .map(|host| format!("http://{host}:{}", names::REST_PORT))
    }

    /// Where it is asked and commanded, `http://host:port`.
    pub fn ops_url(&self) -> Option<String> {
        let ip = self.seen.as_ref()?.ip.as_ref()?;
        Some(ops_url(ip))
    }

    fn host(&self) -> Option<String> {
        let ip = self.seen.as_ref()?.ip.as_ref()?;
        Some(bracketed(ip))
    }
}

/// Where the pod with that address is asked and commanded: a port with room of its own, however busy the REST API is.
pub fn ops_url(ip: &str) -> String {
    format!("http://{}:{}", bracketed(ip), names::OPS_PORT)
}

fn bracketed(ip: &str) -> String {
    if ip.contains(':') && !ip.starts_with('[') {
        format!("[{ip}]")
    } else {
        ip.to_owned()
    }
}

impl World {
    /// The member of that pod.
    pub fn member(&self, pod: &str) -> Option<&Member> {
        self.members.iter().find(|m| m.pod == pod)
    }

    /// The member whose node has that identity, when it answers.
    pub fn node(&self, id: Uuid) -> Option<&Member> {
        self.members
            .iter()
            .find(|m| m.state().is_some_and(|s| s.node_id == id))
    }

    /// What the master says of a member.
    pub fn replica(&self, member: &Member) -> Option<&Replica> {
        let replicas = self.replicas.as_ref()?;
        match member.state() {
            Some(state) => replicas.iter().find(|r| r.id == state.node_id),
            // Its identity is not known; of several under its name the one heard of last is the present one.
            None => replicas
                .iter()
                .filter(|r| r.node == member.pod)
                .max_by_key(|r| (r.connected, r.last_heartbeat)),
        }
    }

    /// The highest epoch that anybody has promised or was granted.
    pub fn highest_epoch(&self) -> u64 {
        // Epochs of another cluster's volume say nothing here. A new cluster does not know yet which one it is.
        let ours = self.status.cluster;
        let members = self.members.iter();
        let members = members.filter(|m| ours.is_none() || !m.is_of_another(ours));
        let promised = members.filter_map(Member::state);
        let promised = promised.map(|s| s.promised_epoch.max(s.master_epoch).max(s.position.epoch));
        let leased = self.lease.grant().map(|g| g.epoch);
        let master = self.status.master.as_ref().map(|m| m.epoch);
        promised.chain(leased).chain(master).max().unwrap_or(0)
    }

    /// The members that the spec wants.
    pub fn wanted(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|m| self.is_wanted(m))
    }

    /// Whether the spec wants this member.
    pub fn is_wanted(&self, member: &Member) -> bool {
        match member.set {
            Set::Master => member.ordinal == 0,
            Set::Replica => member.ordinal < self.cluster.spec.replicas,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_would_refuse_is_refused_here_too_and_named() {
        let check = |name: &str, spec: serde_json::Value| {
            let raw = serde_json::json!({
                "apiVersion": "vectorizer.hivellm.io/v1alpha1",
                "kind": "VectorizerCluster",
                "metadata": {
                    "name": name,
                    "namespace": "default",
                    "uid": "8c5a0d2e-0000-4000-8000-000000000001",
                    "resourceVersion": "1",
                },
                "spec": spec,
            });
            Cluster::check(&serde_json::from_value(raw).unwrap())
                .and_then(|cluster| cluster.doubt.map_or(Ok(cluster.name), Err))
        };
        use serde_json::json;
        assert_eq!(check("demo", json!({})), Ok("demo".to_owned()));
        let long = "a-name-that-is-much-longer-than-forty-one";
        for (name, spec, says) in [
            (long, json!({}), "metadata.name"),
            (
                "demo",
                json!({ "promote": { "requestID": "a", "target": "other-replica-0" } }),
                "spec.promote.target: `other-replica-0`",
            ),
            (
                "demo",
                json!({ "storage": { "size": "ten" } }),
                "spec.storage.size: `ten`",
            ),
            (
                "demo",
                json!({ "replication": { "replicaTimeoutSeconds": 5 } }),
                "spec.replication.replicaTimeoutSeconds: 5",
            ),
            (
                "demo",
                json!({ "replicas": 1, "writeConcern": { "acks": 2 } }),
                "spec.writeConcern.acks: 2",
            ),
        ] {
            let why = check(name, spec).unwrap_err().to_string();
            assert!(why.starts_with(says), "{why}");
        }
    }

    #[test]
    fn pods_of_a_cluster_are_told_from_those_of_another() {
        assert_eq!(parse_pod("demo", "demo-master-0"), Some((Set::Master, 0)));
        assert_eq!(
            parse_pod("demo", "demo-replica-12"),
            Some((Set::Replica, 12))
        );
        for other in [
            "demo2-replica-1",
            "demo-replica-",
            "demo-replica-01",
            "demo-replica-x",
            "demo-other-1",
            "demo",
        ] {
            assert_eq!(parse_pod("demo", other), None, "{other}");
        }
        assert_eq!(parse_pod("demo", "demo-replica-x-replica-1"), None);
    }

    #[test]
    fn addresses_of_ipv6_pods_have_brackets() {
        assert_eq!(ops_url("fd00::7"), "http://[fd00::7]:15003");
        assert_eq!(ops_url("10.0.0.7"), "http://10.0.0.7:15003");
    }
}
