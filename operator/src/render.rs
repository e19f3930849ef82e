//! What a cluster consists of, as objects to apply. Pure functions of what is wanted and of three things that the plan
//! decides: how many replicas, which image, and which size volumes have now.
//!
//! The role of a node is in none of them: both StatefulSets carry the same pod template apart from their names, so that
//! a promotion restarts nobody. Two objects are not here because they are written once and never applied over: the
//! Secrets with generated credentials, and the Lease.

mod access;
mod config;
mod disruption;
mod services;
mod statefulset;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::crd::{Amount, VectorizerCluster};
use crate::names;
use crate::world::{Cluster, Kind, ObjectRef, Set};

pub use config::node_config;

/// An object to apply.
#[derive(Clone, PartialEq, Debug)]
pub struct Object {
    /// What and where it is.
    pub reference: ObjectRef,
    /// All of it, as JSON.
    pub body: Value,
    /// Checksum of the body: two with the same one need no second apply.
    pub hash: String,
}

/// What the plan decides about the objects.
#[derive(Clone, PartialEq, Debug)]
pub struct Wanted<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Image of the node.
    pub image: &'a str,
    /// Pods of the replica set. More than the spec says while the master is among those to go.
    pub replicas: u32,
    /// The volume claim template of each set, which cannot be changed in place.
    pub claims: [ClaimTemplate; 2],
}

/// What the volumes of a set are made like.
#[derive(Clone, PartialEq, Debug)]
pub struct ClaimTemplate {
    /// Their size.
    pub size: Amount,
    /// Their storage class; `None` for the default one.
    pub class: Option<String>,
}

/// Every object, in the order in which they are applied.
pub fn objects(wanted: &Wanted<'_>) -> Vec<Object> {
    let cluster = wanted.cluster;
    let config = config::config_map(cluster);
    let checksum = checksum(&config::needs_restart(cluster));
    let mut objects = vec![
        object(Kind::ServiceAccount, &access::service_account(cluster)),
        object(Kind::Role, &access::role(cluster)),
        object(Kind::RoleBinding, &access::role_binding(cluster)),
        object(Kind::ConfigMap, &config),
        object(Kind::NetworkPolicy, &access::network_policy(cluster)),
    ];
    objects.extend(
        services::all(cluster)
            .iter()
            .map(|s| object(Kind::Service, s)),
    );
    objects.extend(
        disruption::budgets(cluster)
            .iter()
            .map(|b| object(Kind::PodDisruptionBudget, b)),
    );
    for set in [Set::Master, Set::Replica] {
        let body = statefulset::statefulset(wanted, set, &checksum);
        objects.push(object(Kind::StatefulSet, &body));
    }
    objects.into_iter().flatten().collect()
}

/// What [`objects`] will have, so that one of them in other hands is noticed before anything is applied.
pub fn references(cluster: &str, replicas: u32) -> Vec<ObjectRef> {
    let account = names::service_account(cluster);
    let all = [
        (Kind::ServiceAccount, account.clone()),
        (Kind::Role, account.clone()),
        (Kind::RoleBinding, account),
        (Kind::ConfigMap, names::config_map(cluster)),
        (Kind::NetworkPolicy, cluster.to_owned()),
        (Kind::Service, cluster.to_owned()),
        (Kind::Service, names::write_service(cluster)),
        (Kind::Service, names::read_service(cluster)),
        (Kind::Service, names::nodes_service(cluster)),
        (Kind::PodDisruptionBudget, names::master_set(cluster)),
        (Kind::PodDisruptionBudget, names::replica_set(cluster)),
        (Kind::StatefulSet, names::master_set(cluster)),
        (Kind::StatefulSet, names::replica_set(cluster)),
    ];
    all.into_iter()
        .filter(|(kind, _)| replicas > 0 || *kind != Kind::PodDisruptionBudget)
        .map(|(kind, name)| ObjectRef { kind, name })
        .collect()
}

/// The reference by which everything belongs to its cluster, and goes with it.
pub fn owner(cluster: &Cluster) -> OwnerReference {
    OwnerReference {
        api_version: VectorizerCluster::api_version(&()).into_owned(),
        kind: VectorizerCluster::kind(&()).into_owned(),
        name: cluster.name.clone(),
        uid: cluster.uid.to_string(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Metadata of an object of the cluster.
pub fn metadata(cluster: &Cluster, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(cluster.namespace.clone()),
        labels: Some(names::labels(&cluster.name)),
        owner_references: Some(vec![owner(cluster)]),
        ..ObjectMeta::default()
    }
}

/// Metadata of an object that stays when the cluster is deleted, as its volumes do. The label by which the operator's
/// watches find it is the only one beside its own: whoever deploys the cluster must not take it for a part of that.
pub fn kept_metadata(cluster: &Cluster, name: String) -> ObjectMeta {
    let mut labels = names::own_labels(&cluster.name);
    labels.insert(names::MANAGED_BY.to_owned(), names::MANAGER.to_owned());
    ObjectMeta {
        name: Some(name),
        namespace: Some(cluster.namespace.clone()),
        labels: Some(labels),
        annotations: Some([(names::GENERATED.to_owned(), "true".to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn pods_of(cluster: &Cluster) -> BTreeMap<String, String> {
    BTreeMap::from([(names::CLUSTER.to_owned(), cluster.name.clone())])
}

fn pods_with(cluster: &Cluster, key: &str, value: &str) -> BTreeMap<String, String> {
    let mut labels = pods_of(cluster);
    labels.insert(key.to_owned(), value.to_owned());
    labels
}

/// `None` only for a value that JSON cannot hold, which none of ours is.
fn object<K: Serialize + Resource>(kind: Kind, of: &K) -> Option<Object> {
    let body = serde_json::to_value(of).ok()?;
    Some(Object {
        reference: ObjectRef {
            kind,
            name: of.meta().name.clone()?,
        },
        hash: checksum(&body),
        body,
    })
}

fn checksum(of: &impl Serialize) -> String {
    let bytes = serde_json::to_vec(of).unwrap_or_default();
    let digest = Sha256::digest(bytes);
    digest[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests;
