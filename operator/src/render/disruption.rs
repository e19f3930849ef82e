//! Two disjoint PodDisruptionBudgets: the master is not evicted, replicas go one at a time.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{metadata, pods_with};
use crate::names;
use crate::world::Cluster;

/// Both, or none in a cluster of one node: nobody could take over there, and a drain would wait for ever.
///
/// They count what must stay rather than what may go: after a promotion each of them selects pods of both StatefulSets,
/// and `maxUnavailable` is counted from the size of a whole StatefulSet.
pub fn budgets(cluster: &Cluster) -> Vec<PodDisruptionBudget> {
    let replicas = cluster.spec.replicas;
    if replicas == 0 {
        return Vec::new();
    }
    vec![
        budget(cluster, names::master_set(&cluster.name), "master", 1),
        budget(
            cluster,
            names::replica_set(&cluster.name),
            "replica",
            replicas - 1,
        ),
    ]
}

fn budget(cluster: &Cluster, name: String, role: &str, stay: u32) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(cluster, name),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(i32::try_from(stay).unwrap_or(i32::MAX))),
            selector: Some(LabelSelector {
                match_labels: Some(pods_with(cluster, names::ROLE, role)),
                ..LabelSelector::default()
            }),
            // A pod that is not ready protects nothing: it may go.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
