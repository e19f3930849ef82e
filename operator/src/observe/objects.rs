//! The objects that are applied as a whole: which of those under the cluster's names are its own.
//!
//! What the cluster controls is, also when somebody took its labels away. So is what carries its labels and has no
//! controller: a deletion left it (`--cascade=orphan`), or it comes from a backup, and it is taken up again. Everything
//! else is somebody else's.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use kube::Api;
use kube::api::{DynamicObject, ObjectMeta};
use kube::core::{ApiResource, GroupVersionKind};
use uuid::Uuid;

use super::{ObserveError, Sources};
use crate::names;
use crate::render;
use crate::world::{Cluster, Kind, ObjectRef, Stamp};

/// Whose an object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// The cluster controls it.
    Ours,
    /// It carries the cluster's labels, and nobody controls it.
    Left,
    /// Somebody else's.
    Others,
}

/// Whose an object under one of the names of the cluster `name` with that uid is.
pub fn whose(metadata: &ObjectMeta, name: &str, owner: Uuid) -> Whose {
    let mut owners = metadata.owner_references.iter().flatten();
    if is_owned(metadata, owner) {
        Whose::Ours
    } else if !owners.any(|o| o.controller == Some(true)) && is_labelled(metadata, name) {
        Whose::Left
    } else {
        Whose::Others
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

/// Whether an object carries the labels that it is found by.
pub fn is_labelled(metadata: &ObjectMeta, cluster: &str) -> bool {
    let label = |key: &str| metadata.labels.as_ref().and_then(|l| l.get(key));
    let is = |key: &str, value: &str| label(key).is_some_and(|found| found == value);
    is(names::CLUSTER, cluster) && is(names::MANAGED_BY, names::MANAGER)
}

/// What changes when an object is changed by somebody; see [`Stamp`].
pub fn stamp(metadata: &ObjectMeta) -> Stamp {
    match (metadata.generation, &metadata.resource_version) {
        (Some(generation), _) if generation > 0 => format!("generation {generation}"),
        (_, Some(version)) => format!("version {version}"),
        (_, None) => String::new(),
    }
}

/// Everything under our names: ours, or somebody else's.
pub(super) async fn objects(
    from: &Sources<'_>,
    cluster: &Cluster,
) -> Result<(BTreeMap<ObjectRef, Stamp>, BTreeSet<ObjectRef>), ObserveError> {
    let expected = render::references(&cluster.name, cluster.spec.replicas);
    let mut sorted = Sorted {
        name: &cluster.name,
        owner: cluster.uid,
        expected: &expected,
        ours: BTreeMap::new(),
        taken: BTreeSet::new(),
    };
    for kind in Kind::ALL {
        for metadata in from.caches.objects(kind, &cluster.namespace, &cluster.name) {
            sorted.sort_in(kind, &metadata);
        }
    }
    // What carries no label of ours is not watched; it may be there all the same.
    let unseen: Vec<ObjectRef> = expected
        .iter()
        .filter(|r| !sorted.ours.contains_key(r) && !sorted.taken.contains(r))
        .cloned()
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
            sorted.sort_in(reference.kind, &object.metadata);
        }
    }
    Ok((sorted.ours, sorted.taken))
}

/// Objects as they are told apart.
pub(super) struct Sorted<'a> {
    pub(super) name: &'a str,
    pub(super) owner: Uuid,
    pub(super) expected: &'a [ObjectRef],
    pub(super) ours: BTreeMap<ObjectRef, Stamp>,
    pub(super) taken: BTreeSet<ObjectRef>,
}

impl Sorted<'_> {
    pub(super) fn sort_in(&mut self, kind: Kind, metadata: &ObjectMeta) {
        let reference = ObjectRef {
            kind,
            name: metadata.name.clone().unwrap_or_default(),
        };
        let expected = self.expected.contains(&reference);
        match whose(metadata, self.name, self.owner) {
            Whose::Ours if is_labelled(metadata, self.name) => {
                self.ours.insert(reference, stamp(metadata));
            }
            // Another stamp than after any apply: it is applied again, which brings back owner and labels.
            Whose::Ours => {
                self.ours.insert(reference, "without labels".to_owned());
            }
            Whose::Left if expected => {
                self.ours.insert(reference, "without owner".to_owned());
            }
            // Somebody's object with our labels is in nobody's way unless it has one of our names.
            Whose::Left | Whose::Others => {
                if expected {
                    self.taken.insert(reference);
                }
            }
        }
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
