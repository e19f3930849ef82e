//! Who may do what: the nodes' ServiceAccount, which may touch one Lease, and who may talk to the nodes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{metadata, pods_of};
use crate::names;
use crate::world::Cluster;

/// The nodes' identity towards the API server.
pub fn service_account(cluster: &Cluster) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(cluster, names::service_account(&cluster.name)),
        // Mounted by the pod template alone, for the container that needs it.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// To read and renew the Lease, and nothing else.
pub fn role(cluster: &Cluster) -> Role {
    Role {
        metadata: metadata(cluster, names::service_account(&cluster.name)),
        rules: Some(vec![PolicyRule {
            api_groups: Some(vec!["coordination.k8s.io".to_owned()]),
            resources: Some(vec!["leases".to_owned()]),
            resource_names: Some(vec![names::lease(&cluster.name)]),
            verbs: vec!["get".to_owned(), "update".to_owned()],
            ..PolicyRule::default()
        }]),
    }
}

/// Gives the role to the account.
pub fn role_binding(cluster: &Cluster) -> RoleBinding {
    let account = names::service_account(&cluster.name);
    RoleBinding {
        metadata: metadata(cluster, account.clone()),
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: "Role".to_owned(),
            name: account.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: account,
            namespace: Some(cluster.namespace.clone()),
            api_group: None,
        }]),
    }
}

/// Replication between the cluster's own pods only; the REST API for the namespace; probes, commands and metrics for the
/// operator, wherever it runs. (The kubelet of its own machine reaches a pod in any case.)
pub fn network_policy(cluster: &Cluster) -> NetworkPolicy {
    let nodes = LabelSelector {
        match_labels: Some(pods_of(cluster)),
        ..LabelSelector::default()
    };
    let operator = LabelSelector {
        match_labels: Some(BTreeMap::from([(
            names::OPERATOR.to_owned(),
            "true".to_owned(),
        )])),
        ..LabelSelector::default()
    };
    let from_pods = |selector: LabelSelector| NetworkPolicyPeer {
        pod_selector: Some(selector),
        ..NetworkPolicyPeer::default()
    };
    NetworkPolicy {
        metadata: metadata(cluster, cluster.name.clone()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(nodes.clone()),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![
                NetworkPolicyIngressRule {
                    from: Some(vec![from_pods(nodes)]),
                    ports: Some(vec![port(names::REPLICATION_PORT)]),
                },
                NetworkPolicyIngressRule {
                    from: Some(vec![from_pods(LabelSelector::default())]),
                    ports: Some(vec![port(names::REST_PORT)]),
                },
                NetworkPolicyIngressRule {
                    from: Some(vec![NetworkPolicyPeer {
                        namespace_selector: Some(LabelSelector::default()),
                        ..from_pods(operator)
                    }]),
                    ports: Some(vec![port(names::OPS_PORT)]),
                },
            ]),
            ..NetworkPolicySpec::default()
        }),
    }
}

fn port(number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(i32::from(number))),
        protocol: Some("TCP".to_owned()),
        ..NetworkPolicyPort::default()
    }
}
