//! All reads, once per pass: what the watches know, what has to be asked for, and what each node says. Bounded in time
//! and concurrent. A node that does not answer is data; only the API server failing is an error.

pub mod cache;
mod pods;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, ObjectMeta};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, Resource};
use kube_runtime::reflector::ObjectRef as Key;
use uuid::Uuid;
use vectorizer_api::client::{ClientError, Timeouts};
use vectorizer_api::control::State;
use vectorizer_api::error::ErrorCode;
use vectorizer_api::lease::Grant;
use vectorizer_api::replication::{Replica, Role};

use crate::crd::{Amount, ClusterStatus};
use crate::names;
use crate::render;
use crate::world::{
    ClaimSeen, Cluster, Kind, LeaseSeen, Member, ObjectRef, PodSeen, Probe, Set, SetSeen, Stamp,
    World, ops_url, parse_pod,
};
use cache::{Caches, belongs};
pub use pods::Labelled;
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
    /// The highest generation of the resource that was seen.
    pub generation: i64,
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
#[error("reading {what}: {source}")]
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
    let (objects, taken) = objects(from, &cluster).await?;
    let sets = [Set::Master, Set::Replica].map(|set| set_seen(from, &cluster, set));
    let pods = pods::pods(from, &cluster, &sets, &remembered.labelled).await;
    let (members, replicas) = members(from, &cluster, &sets, pods, &credentials).await;
    let changing = status.target.is_some();
    let lease = lease(from, &cluster, remembered, changing, &members).await?;
    Ok(World {
        now: Timestamp::now(),
        claims: claims(from, &cluster),
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

/// Everything under our names: ours by label and owner, or somebody else's.
async fn objects(
    from: &Sources<'_>,
    cluster: &Cluster,
) -> Result<(BTreeMap<ObjectRef, Stamp>, BTreeSet<ObjectRef>), ObserveError> {
    let mut ours = BTreeMap::new();
    let mut taken = BTreeSet::new();
    let expected = render::references(&cluster.name, cluster.spec.replicas);
    for kind in Kind::ALL {
        for metadata in from.caches.objects(kind, &cluster.namespace, &cluster.name) {
            sort_in(&mut ours, &mut taken, kind, &metadata, cluster.uid);
        }
    }
    // Somebody's object with our labels is in nobody's way unless it has one of our names.
    taken.retain(|reference| expected.contains(reference));
    // What carries no label of ours is not watched; it may be there all the same.
    let unseen: Vec<ObjectRef> = expected
        .into_iter()
        .filter(|r| !ours.contains_key(r) && !taken.contains(r))
        .collect();
    let looked = unseen.iter().map(|reference| async move {
        let api: Api<DynamicObject> = Api::namespaced_with(
            from.client.clone(),
            &cluster.namespace,
            &api_resource(reference.kind),
        );
        let found = api.get_metadata_opt(&reference.name).await;
        found.map_err(|source| ObserveError {
            what: reference.to_string(),
            source,
        })
    });
    for (reference, found) in unseen.iter().zip(join_all(looked).await) {
        if let Some(object) = found? {
            sort_in(
                &mut ours,
                &mut taken,
                reference.kind,
                &object.metadata,
                cluster.uid,
            );
        }
    }
    Ok((ours, taken))
}

fn sort_in(
    ours: &mut BTreeMap<ObjectRef, Stamp>,
    taken: &mut BTreeSet<ObjectRef>,
    kind: Kind,
    metadata: &ObjectMeta,
    owner: Uuid,
) {
    let reference = ObjectRef {
        kind,
        name: metadata.name.clone().unwrap_or_default(),
    };
    if is_owned(metadata, owner) {
        ours.insert(reference, stamp(metadata));
    } else {
        taken.insert(reference);
    }
}

/// Whether the cluster with that uid controls an object.
pub fn is_owned(metadata: &ObjectMeta, owner: Uuid) -> bool {
    let owners = metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|o| o.controller == Some(true));
    controllers.any(|o| o.uid == owner.to_string())
}

/// Whether the operator made an object: the cluster with that uid controls it, or it is one that nobody owns, made to stay
/// when its cluster goes.
pub fn is_made(metadata: &ObjectMeta, owner: Uuid) -> bool {
    let mut owners = metadata.owner_references.iter().flatten();
    let annotations = metadata.annotations.as_ref();
    let generated = annotations.is_some_and(|a| a.contains_key(names::GENERATED));
    is_owned(metadata, owner) || generated && !owners.any(|o| o.controller == Some(true))
}

/// What changes when an object is changed by somebody; see [`Stamp`].
pub fn stamp(metadata: &ObjectMeta) -> Stamp {
    match (metadata.generation, &metadata.resource_version) {
        (Some(generation), _) if generation > 0 => format!("generation {generation}"),
        (_, Some(version)) => format!("version {version}"),
        (_, None) => String::new(),
    }
}

/// How the API server calls a kind.
pub fn api_resource(kind: Kind) -> ApiResource {
    let (group, version) = match kind {
        Kind::ServiceAccount | Kind::ConfigMap | Kind::Service => ("", "v1"),
        Kind::Role | Kind::RoleBinding => ("rbac.authorization.k8s.io", "v1"),
        Kind::NetworkPolicy => ("networking.k8s.io", "v1"),
        Kind::PodDisruptionBudget => ("policy", "v1"),
        Kind::StatefulSet => ("apps", "v1"),
    };
    let plural = match kind {
        Kind::ServiceAccount => "serviceaccounts",
        Kind::Role => "roles",
        Kind::RoleBinding => "rolebindings",
        Kind::ConfigMap => "configmaps",
        Kind::Service => "services",
        Kind::NetworkPolicy => "networkpolicies",
        Kind::PodDisruptionBudget => "poddisruptionbudgets",
        Kind::StatefulSet => "statefulsets",
    };
    let gvk = GroupVersionKind::gvk(group, version, kind.as_str());
    ApiResource::from_gvk_with_plural(&gvk, plural)
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
    if !is_owned(&lease.metadata, owner) {
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

fn set_seen(from: &Sources<'_>, cluster: &Cluster, set: Set) -> Option<SetSeen> {
    let name = match set {
        Set::Master => names::master_set(&cluster.name),
        Set::Replica => names::replica_set(&cluster.name),
    };
    let key = Key::<StatefulSet>::new(&name).within(&cluster.namespace);
    let found = from.caches.sets.get(&key)?;
    if !is_owned(found.meta(), cluster.uid) {
        return None;
    }
    let spec = &found.spec;
    let size = spec
        .volume_claim_templates
        .iter()
        .flatten()
        .find_map(requested);
    let status = found.status.as_ref();
    let current = status.filter(|s| s.observed_generation == found.metadata.generation);
    Some(SetSeen {
        name,
        uid: found.metadata.uid.clone().unwrap_or_default(),
        replicas: spec
            .replicas
            .and_then(|r| u32::try_from(r).ok())
            .unwrap_or(1),
        revision: current.and_then(|s| s.update_revision.clone()),
        image: node_image(spec),
        claim_size: size.unwrap_or_else(|| cluster.spec.storage.size.clone()),
        deleting: found.metadata.deletion_timestamp.is_some(),
    })
}

/// The image of the node's container in a StatefulSet's template.
fn node_image(of: &StatefulSetSpec) -> Option<String> {
    let pod = of.template.spec.as_ref()?;
    let node = pod.containers.iter().find(|c| c.name == names::CONTAINER)?;
    node.image.clone()
}

fn claims(from: &Sources<'_>, cluster: &Cluster) -> BTreeMap<String, ClaimSeen> {
    let ours = |c: &PersistentVolumeClaim| belongs(&c.metadata, &cluster.namespace, &cluster.name);
    let found = from.caches.claims.state_filter(ours);
    found
        .iter()
        .filter_map(|claim| {
            let seen = ClaimSeen {
                requested: requested(claim)?,
                blank: is_blank(claim, cluster.created),
            };
            Some((claim.metadata.name.clone()?, seen))
        })
        .collect()
}

/// Annotation that Kubernetes puts on a claim when it has a volume made for it.
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";

/// Whether the volume of a claim can hold nothing from before the cluster, which was made at `since`. Restored volumes
/// have a source, and one that somebody made by hand is bound without anybody being asked to make it.
fn is_blank(claim: &PersistentVolumeClaim, since: Option<Timestamp>) -> bool {
    let (Some(spec), Some(made)) = (&claim.spec, &claim.metadata.creation_timestamp) else {
        return false;
    };
    let annotations = claim.metadata.annotations.as_ref();
    let made_for_it = annotations.is_some_and(|a| a.contains_key(PROVISIONER));
    since.is_some_and(|since| made.0 >= since)
        && spec.data_source.is_none()
        && spec.data_source_ref.is_none()
        && (made_for_it || spec.volume_name.is_none())
}

fn requested(claim: &PersistentVolumeClaim) -> Option<Amount> {
    let resources = claim.spec.as_ref()?.resources.as_ref()?;
    let size = resources.requests.as_ref()?.get("storage")?;
    Some(Amount::from(size.0.as_str()))
}

/// Every node that is wanted or exists, and what it says.
async fn members(
    from: &Sources<'_>,
    cluster: &Cluster,
    sets: &[Option<SetSeen>; 2],
    mut pods: BTreeMap<(Set, u32), PodSeen>,
    credentials: &Credentials,
) -> (Vec<Member>, Option<Vec<Replica>>) {
    let replicas = sets[Set::Replica.index()]
        .as_ref()
        .map_or(0, |s| s.replicas);
    let mut wanted: BTreeSet<(Set, u32)> = pods.keys().copied().collect();
    wanted.insert((Set::Master, 0));
    wanted.extend((0..cluster.spec.replicas.max(replicas)).map(|n| (Set::Replica, n)));
    let probes = wanted.into_iter().map(|(set, ordinal)| {
        let seen = pods.remove(&(set, ordinal));
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
            tracing::debug!(node, %error, "cannot see whether the node is cordoned");
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
