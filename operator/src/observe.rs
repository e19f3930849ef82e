//! All reads, once per pass: what the watches know, what has to be asked for, and what each node says. Bounded in time
//! and concurrent. A node that does not answer is data; only the API server failing is an error.

pub mod cache;
mod claims;
mod events;
mod objects;
mod pods;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use kube::{Api, Client, Resource};
use kube_runtime::reflector::ObjectRef as Key;
use uuid::Uuid;
use vectorizer_api::client::{ClientError, Timeouts};
use vectorizer_api::control::State;
use vectorizer_api::error::ErrorCode;
use vectorizer_api::lease::Grant;
use vectorizer_api::replication::{Replica, Role};

use crate::act::backoff;
use crate::api::words;
use crate::crd::ClusterStatus;
use crate::names;
use crate::world::{
    Cluster, LeaseSeen, Member, ObjectRef, Probe, Refusal, Set, SetSeen, Stamp, World, ops_url,
    parse_pod,
};
use cache::Caches;
use objects::is_labelled;
pub use objects::{Whose, api_resource, is_made, is_owned, stamp, whose};
pub use pods::Labelled;
use pods::Pods;
pub use secrets::{Credentials, Made};

/// How long one node may take to answer a question.
pub const PROBE: Timeouts = Timeouts {
    connect: Duration::from_millis(700),
    overall: Duration::from_millis(1500),
};
/// For how long after a write of our own the watch may still show a pod's labels as they were.
const OWN_LABELS_FOR: Duration = Duration::from_secs(3);
/// A node's answer is not read beyond so many bytes: a state is a thousand times smaller, a list of 256 replicas four times.
pub const MOST_BYTES: usize = 4 << 20;
/// Longest pause before what was refused is asked for again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long it is remembered whether a Kubernetes node is cordoned.
const CORDON_FOR: Duration = Duration::from_secs(10);

/// What one process remembers of one cluster from pass to pass. Lost with the process, and rightly so: durations that
/// another process measured count for nothing.
#[derive(Debug, Default)]
pub struct Remembered {
    /// Version of the Lease seen last, and since when.
    pub lease: Option<(String, Instant)>,
    /// What was applied, and how the object was afterwards.
    pub applied: BTreeMap<ObjectRef, (String, Stamp)>,
    /// The credentials as read last.
    pub credentials: Credentials,
    /// Labels that were written.
    pub labelled: Labelled,
    /// When the status was written last.
    pub reported: Option<Instant>,
    /// Whether a change of the master was under way in the status that was written last.
    pub changing: bool,
    /// What the API server refused, by kind and name.
    pub refusals: BTreeMap<String, Refused>,
    /// Events read a moment ago.
    pub heard: events::Heard,
    /// The highest generation of the resource that was seen.
    pub generation: i64,
}

/// What was refused, how often in a row, and until when it is not asked for again.
#[derive(Debug)]
pub struct Refused {
    attempt: String,
    words: String,
    times: u32,
    until: Instant,
}

impl Remembered {
    /// Notes that something was refused: with each time in a row the pause grows.
    pub fn refused(&mut self, what: String, attempt: String, words: String, now: Instant) {
        let before = self.refusals.get(&what).filter(|r| r.attempt == attempt);
        let times = before.map_or(1, |r| r.times.saturating_add(1));
        let refused = Refused {
            attempt,
            words,
            times,
            until: now + backoff(times, LONGEST_PAUSE),
        };
        self.refusals.insert(what, refused);
    }
}

fn refusal((what, refused): (&String, &Refused)) -> (String, Refusal) {
    let refusal = Refusal {
        attempt: refused.attempt.clone(),
        words: refused.words.clone(),
        due: Instant::now() >= refused.until,
    };
    (what.clone(), refusal)
}

/// Which Kubernetes nodes are cordoned, remembered for a moment for all clusters.
#[derive(Debug, Default)]
pub struct Cordons(tokio::sync::Mutex<BTreeMap<String, (Instant, bool)>>);

/// Where to read.
pub struct Sources<'a> {
    /// The API server.
    pub client: &'a Client,
    /// The watches.
    pub caches: &'a Caches,
    /// A client of nodes, with [`PROBE`] as timeouts.
    pub nodes: &'a vectorizer_api::client::Client,
    /// Cordoned nodes.
    pub cordons: &'a Cordons,
    /// The image for clusters that name none.
    pub default_image: &'a str,
}

/// The API server did not answer.
#[derive(Debug, thiserror::Error)]
#[error("reading {what}: {}", words(source))]
pub struct ObserveError {
    what: String,
    source: kube::Error,
}

/// Reads everything about one cluster.
pub async fn observe(
    from: &Sources<'_>,
    cluster: Cluster,
    status: ClusterStatus,
    remembered: &mut Remembered,
) -> Result<World, ObserveError> {
    let young = |at: &Instant| at.elapsed() < OWN_LABELS_FOR;
    remembered.labelled.retain(|_, (at, _)| young(at));
    let credentials = secrets::credentials(from, &cluster, remembered).await?;
    let (objects, taken) = objects::objects(from, &cluster).await?;
    let sets = [
        set_seen(from, &cluster, Set::Master).await?,
        set_seen(from, &cluster, Set::Replica).await?,
    ];
    let (heard, labelled) = (&mut remembered.heard, &remembered.labelled);
    let pods = pods::pods(from, &cluster, &sets, labelled, heard).await?;
    let named = pods.seen.keys().map(|(set, n)| cluster.pod(*set, *n));
    let claims = claims::claims(from, &cluster, named, heard).await?;
    let (members, replicas) = members(from, &cluster, &sets, pods, &credentials).await;
    let changing = status.target.is_some();
    let lease = lease(from, &cluster, remembered, changing, &members).await?;
    Ok(World {
        now: Timestamp::now(),
        claims,
        refusals: remembered.refusals.iter().map(refusal).collect(),
        status,
        default_image: from.default_image.to_owned(),
        objects,
        applied: remembered.applied.clone(),
        taken,
        secrets: credentials.secrets.clone(),
        sets,
        lease,
        members,
        replicas,
        cluster,
    })
}

/// The Lease. What the watch knows is enough while a master that answers writes by it; in the middle of a change, and
/// before it is taken for granted that nobody can write, it is asked for: the watch may be behind.
async fn lease(
    from: &Sources<'_>,
    cluster: &Cluster,
    remembered: &mut Remembered,
    changing: bool,
    members: &[Member],
) -> Result<LeaseSeen, ObserveError> {
    let name = names::lease(&cluster.name);
    let known = from
        .caches
        .leases
        .get(&Key::new(&name).within(&cluster.namespace));
    let lease = match known.filter(|lease| !changing && is_written_by(lease, members)) {
        Some(lease) => Some((*lease).clone()),
        None => {
            let api: Api<Lease> = Api::namespaced(from.client.clone(), &cluster.namespace);
            api.get_opt(&name).await.map_err(|source| ObserveError {
                what: format!("Lease {name}"),
                source,
            })?
        }
    };
    let Some(lease) = lease else {
        remembered.lease = None;
        return Ok(LeaseSeen::Missing);
    };
    Ok(lease_seen(
        &lease,
        cluster.uid,
        &mut remembered.lease,
        Instant::now(),
    ))
}

/// Whether one of those who answer is the master that a Lease names.
fn is_written_by(lease: &Lease, members: &[Member]) -> bool {
    parse_lease(lease).is_ok_and(|grant| {
        let holder = grant.holder.as_ref().map(|h| h.node_id);
        let states = members.iter().filter_map(Member::state);
        states
            .filter(|s| s.role == Role::Master && s.master_epoch == grant.epoch)
            .any(|s| Some(s.node_id) == holder)
    })
}

/// What a Lease says, and for how long this very version has been seen by this process.
pub fn lease_seen(
    lease: &Lease,
    owner: Uuid,
    seen: &mut Option<(String, Instant)>,
    now: Instant,
) -> LeaseSeen {
    // It is called as the cluster is.
    let name = lease.metadata.name.as_deref().unwrap_or_default();
    let whose = whose(&lease.metadata, name, owner);
    if whose == Whose::Others {
        return LeaseSeen::Taken;
    }
    let version = lease.metadata.resource_version.clone().unwrap_or_default();
    let since = match seen {
        Some((known, since)) if *known == version => *since,
        Some(_) | None => now,
    };
    *seen = Some((version.clone(), since));
    match parse_lease(lease) {
        Ok(grant) => LeaseSeen::Held {
            version,
            owned: whose == Whose::Ours && is_labelled(&lease.metadata, name),
            grant,
            unchanged: now.saturating_duration_since(since),
        },
        Err(error) => LeaseSeen::Malformed(error),
    }
}

/// The content of a Lease.
pub fn parse_lease(lease: &Lease) -> Result<Grant, String> {
    let holder = lease
        .spec
        .as_ref()
        .and_then(|s| s.holder_identity.as_deref());
    let empty = BTreeMap::new();
    let annotations = lease.metadata.annotations.as_ref().unwrap_or(&empty);
    Grant::parse(holder, annotations).map_err(|error| error.to_string())
}

/// One of the two StatefulSets, by its name alone: somebody may have taken its labels away.
async fn set_seen(
    from: &Sources<'_>,
    cluster: &Cluster,
    set: Set,
) -> Result<Option<SetSeen>, ObserveError> {
    let name = match set {
        Set::Master => names::master_set(&cluster.name),
        Set::Replica => names::replica_set(&cluster.name),
    };
    let key = Key::<StatefulSet>::new(&name).within(&cluster.namespace);
    if let Some(found) = from.caches.sets.get(&key) {
        return Ok(as_set(&found, cluster, set));
    }
    let api: Api<StatefulSet> = Api::namespaced(from.client.clone(), &cluster.namespace);
    let found = api.get_opt(&name).await.map_err(|source| ObserveError {
        what: format!("StatefulSet {name}"),
        source,
    })?;
    Ok(found.and_then(|found| as_set(&found, cluster, set)))
}

/// What matters of a StatefulSet that is the cluster's.
fn as_set(found: &StatefulSet, cluster: &Cluster, set: Set) -> Option<SetSeen> {
    if whose(found.meta(), &cluster.name, cluster.uid) == Whose::Others {
        return None;
    }
    let spec = &found.spec;
    let mut templates = spec.volume_claim_templates.iter().flatten();
    let template = templates.find(|claim| claims::requested(claim).is_some());
    let class = template.and_then(|claim| claim.spec.as_ref()?.storage_class_name.clone());
    let status = found.status.as_ref();
    let current = status.filter(|s| s.observed_generation == found.metadata.generation);
    Some(SetSeen {
        name: found.metadata.name.clone().unwrap_or_default(),
        set,
        uid: found.metadata.uid.clone().unwrap_or_default(),
        replicas: spec
            .replicas
            .and_then(|r| u32::try_from(r).ok())
            .unwrap_or(1),
        revision: current.and_then(|s| s.update_revision.clone()),
        image: node_image(spec),
        claim_size: template
            .and_then(claims::requested)
            .unwrap_or_else(|| cluster.spec.storage.size.clone()),
        claim_class: class,
        deleting: found.metadata.deletion_timestamp.is_some(),
    })
}

/// The image of the node's container in a StatefulSet's template.
fn node_image(of: &StatefulSetSpec) -> Option<String> {
    let pod = of.template.spec.as_ref()?;
    let node = pod.containers.iter().find(|c| c.name == names::CONTAINER)?;
    node.image.clone()
}

/// Every node that is wanted or exists, and what it says.
async fn members(
    from: &Sources<'_>,
    cluster: &Cluster,
    sets: &[Option<SetSeen>; 2],
    mut pods: Pods,
    credentials: &Credentials,
) -> (Vec<Member>, Option<Vec<Replica>>) {
    let replicas = sets[Set::Replica.index()]
        .as_ref()
        .map_or(0, |s| s.replicas);
    let mut wanted: BTreeSet<(Set, u32)> = pods.seen.keys().copied().collect();
    wanted.insert((Set::Master, 0));
    wanted.extend((0..cluster.spec.replicas.max(replicas)).map(|n| (Set::Replica, n)));
    let probes = wanted.into_iter().map(|(set, ordinal)| {
        let seen = pods.seen.remove(&(set, ordinal));
        let absent = pods.absent.remove(&(set, ordinal));
        async move {
            let ip = seen.as_ref().and_then(|p| p.ip.clone());
            let (probe, replicas) = match (ip, &credentials.control) {
                (None, _) => (Probe::NoAddress, None),
                (Some(_), None) => (
                    Probe::Unreachable("there is no control token yet".to_owned()),
                    None,
                ),
                (Some(ip), Some(_)) => ask(from.nodes, &ip, credentials).await,
            };
            let member = Member {
                pod: cluster.pod(set, ordinal),
                set,
                ordinal,
                seen,
                absent,
                probe,
            };
            (member, replicas)
        }
    });
    let answers = join_all(probes).await;
    // Two may call themselves master for a moment; the one of the higher epoch is listened to.
    let epoch = |m: &Member| m.state().map_or(0, |s| s.master_epoch);
    let replicas = answers
        .iter()
        .filter(|(_, replicas)| replicas.is_some())
        .max_by_key(|(member, _)| epoch(member))
        .and_then(|(_, replicas)| replicas.clone());
    (
        answers.into_iter().map(|(member, _)| member).collect(),
        replicas,
    )
}

/// A node's state and, from a master, its replicas.
async fn ask(
    nodes: &vectorizer_api::client::Client,
    ip: &str,
    credentials: &Credentials,
) -> (Probe, Option<Vec<Replica>>) {
    let (token, former) = (credentials.control.clone(), credentials.former.clone());
    let node = nodes.at(ops_url(ip)).with_tokens(token, former);
    let state: State = match node.control_state().await {
        Ok(state) => state,
        Err(ClientError::Api(error)) if is_about_the_token(error.error_type) => {
            return (Probe::Refused(error.message), None);
        }
        Err(error) => return (Probe::Unreachable(error.to_string()), None),
    };
    let replicas = match state.role {
        Role::Master => node.replication_replicas().await.ok().map(|r| r.replicas),
        Role::Replica | Role::Unassigned => None,
    };
    (Probe::State(Box::new(state)), replicas)
}

fn is_about_the_token(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Unauthenticated | ErrorCode::Forbidden)
}

/// Whether a Kubernetes node takes no new pods. When that may not be read, none counts as cordoned.
async fn is_cordoned(from: &Sources<'_>, node: &str) -> bool {
    // Not held while the API server is asked: all clusters look here.
    let known = from.cordons.0.lock().await.get(node).copied();
    if let Some((read, cordoned)) = known
        && read.elapsed() < CORDON_FOR
    {
        return cordoned;
    }
    let api: Api<Node> = Api::all(from.client.clone());
    let cordoned = match api.get_opt(node).await {
        Ok(found) => found.and_then(|n| n.spec?.unschedulable).unwrap_or(false),
        Err(error) => {
            tracing::debug!(
                node,
                error = words(&error),
                "cannot see whether the node is cordoned"
            );
            false
        }
    };
    let mut known = from.cordons.0.lock().await;
    known.insert(node.to_owned(), (Instant::now(), cordoned));
    cordoned
}

/// The set and ordinal of one of our pods.
fn place(cluster: &Cluster, metadata: &ObjectMeta) -> Option<(Set, u32)> {
    parse_pod(&cluster.name, metadata.name.as_deref()?)
}

#[cfg(test)]
mod tests;
