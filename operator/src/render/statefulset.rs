//! The StatefulSets and their pods. The operator decides what restarts when, so both are `OnDelete`; nodes need nobody
//! before them, so both are `Parallel`.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
    StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapProjection, Container, ContainerPort, EnvVar, EnvVarSource,
    HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler, ObjectFieldSelector,
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PodAffinityTerm, PodAntiAffinity,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource,
    ResourceRequirements, SeccompProfile, SecretProjection, SecurityContext, SleepAction, Volume,
    VolumeMount, VolumeProjection, VolumeResourceRequirements, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::config::{DATA_DIRECTORY, DIRECTORY};
use super::{ClaimTemplate, Wanted, metadata, pods_of, pods_with};
use crate::crd::{Amount, RunAs};
use crate::names;
use crate::world::{Cluster, Set};

/// Seconds that a node has to finish what it is doing, above its own `shutdown_grace_secs`.
const GRACE_SECS: i64 = 30;
/// Seconds that a node goes on serving after its pod is deleted: so long may the machines' tables of Services still lead
/// to it, above all to a former master whose pod goes right after its switchover.
const LINGER_SECS: i64 = 3;
/// Seconds that a node may take to read its journal at start before it counts as stuck.
const STARTUP_SECS: i32 = 900;

/// One StatefulSet.
pub fn statefulset(wanted: &Wanted<'_>, set: Set, config_checksum: &str) -> StatefulSet {
    let cluster = wanted.cluster;
    let (name, replicas) = match set {
        Set::Master => (names::master_set(&cluster.name), 1),
        Set::Replica => (names::replica_set(&cluster.name), wanted.replicas),
    };
    let selector = pods_with(cluster, names::SET, set.as_str());
    let mut metadata = metadata(cluster, name);
    metadata
        .labels
        .get_or_insert_default()
        .extend(selector.clone());
    let retention = cluster.spec.storage.retention;
    StatefulSet {
        metadata,
        spec: StatefulSetSpec {
            replicas: Some(i32::try_from(replicas).unwrap_or(i32::MAX)),
            service_name: Some(names::nodes_service(&cluster.name)),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            persistent_volume_claim_retention_policy: Some(
                StatefulSetPersistentVolumeClaimRetentionPolicy {
                    when_deleted: Some(retention.when_deleted.as_str().to_owned()),
                    when_scaled: Some(retention.when_scaled.as_str().to_owned()),
                },
            ),
            selector: LabelSelector {
                match_labels: Some(selector.clone()),
                ..LabelSelector::default()
            },
            template: template(wanted, selector, config_checksum),
            volume_claim_templates: Some(vec![claim(cluster, &wanted.claims[set.index()])]),
            ..StatefulSetSpec::default()
        },
        ..StatefulSet::default()
    }
}

fn template(
    wanted: &Wanted<'_>,
    selector: BTreeMap<String, String>,
    config_checksum: &str,
) -> PodTemplateSpec {
    let cluster = wanted.cluster;
    let mut labels = cluster.spec.pod_labels.clone();
    labels.extend(names::labels(&cluster.name));
    labels.insert("app.kubernetes.io/component".to_owned(), "node".to_owned());
    labels.extend(selector);
    let mut annotations = cluster.spec.pod_annotations.clone();
    annotations.insert(
        names::CONFIG_CHECKSUM.to_owned(),
        config_checksum.to_owned(),
    );
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(pod(wanted)),
    }
}

fn pod(wanted: &Wanted<'_>) -> PodSpec {
    let cluster = wanted.cluster;
    let spec = &cluster.spec;
    let some = |list: &Vec<_>| (!list.is_empty()).then(|| list.clone());
    let user = match spec.run_as {
        RunAs::Fixed => Some(names::USER),
        RunAs::Assigned => None,
    };
    PodSpec {
        service_account_name: Some(names::service_account(&cluster.name)),
        automount_service_account_token: Some(true),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: user,
            run_as_group: user,
            fs_group: user,
            // Otherwise a large volume is walked through at every start.
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(wanted)],
        volumes: Some(vec![configuration(cluster)]),
        image_pull_secrets: some(&spec.image_pull_secrets),
        node_selector: (!spec.node_selector.is_empty()).then(|| spec.node_selector.clone()),
        tolerations: (!spec.tolerations.is_empty()).then(|| spec.tolerations.clone()),
        affinity: affinity(cluster),
        priority_class_name: spec.priority_class_name.clone(),
        topology_spread_constraints: spec.topology_spread_constraints.clone(),
        ..PodSpec::default()
    }
}

fn container(wanted: &Wanted<'_>) -> Container {
    let spec = &wanted.cluster.spec;
    let mut env = vec![
        from_field("VECTORIZER_NODE_NAME", "metadata.name"),
        from_field("VECTORIZER_ADVERTISED_HOST", "status.podIP"),
    ];
    if !spec.env.iter().any(|e| e.name == "VECTORIZER_LOG_FORMAT") {
        env.push(EnvVar {
            name: "VECTORIZER_LOG_FORMAT".to_owned(),
            value: Some("json".to_owned()),
            value_from: None,
        });
    }
    env.extend(spec.env.iter().cloned());
    let args = ["serve", "--config", &format!("{DIRECTORY}/config.yaml")];
    Container {
        name: names::CONTAINER.to_owned(),
        image: Some(wanted.image.to_owned()),
        image_pull_policy: spec.image_pull_policy.map(|p| p.as_str().to_owned()),
        args: Some(args.map(str::to_owned).to_vec()),
        env: Some(env),
        ports: Some(vec![
            port("rest", names::REST_PORT),
            port("ops", names::OPS_PORT),
            port("replication", names::REPLICATION_PORT),
        ]),
        resources: spec.resources.as_ref().map(|r| ResourceRequirements {
            requests: quantities(&r.requests),
            limits: quantities(&r.limits),
            claims: None,
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction {
                    seconds: LINGER_SECS,
                }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        startup_probe: Some(Probe {
            failure_threshold: Some(STARTUP_SECS),
            ..probe("/livez", 1)
        }),
        liveness_probe: Some(Probe {
            failure_threshold: Some(6),
            ..probe("/livez", 10)
        }),
        readiness_probe: Some(Probe {
            failure_threshold: Some(2),
            ..probe("/readyz", 2)
        }),
        volume_mounts: Some(vec![
            VolumeMount {
                name: names::DATA_VOLUME.to_owned(),
                mount_path: DATA_DIRECTORY.to_owned(),
                ..VolumeMount::default()
            },
            VolumeMount {
                name: "config".to_owned(),
                mount_path: DIRECTORY.to_owned(),
                read_only: Some(true),
                ..VolumeMount::default()
            },
        ]),
        ..Container::default()
    }
}

/// Configuration and credentials in one volume: one directory cannot be mounted inside another that is read-only.
fn configuration(cluster: &Cluster) -> Volume {
    let secret = |name: String, keys: &[&str]| VolumeProjection {
        secret: Some(SecretProjection {
            name,
            items: Some(
                keys.iter()
                    .map(|key| item(key, &format!("secrets/{key}")))
                    .collect(),
            ),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name: "config".to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o440),
            default_user: None,
            sources: Some(vec![
                VolumeProjection {
                    config_map: Some(ConfigMapProjection {
                        name: names::config_map(&cluster.name),
                        items: Some(vec![item("config.yaml", "config.yaml")]),
                        optional: None,
                    }),
                    ..VolumeProjection::default()
                },
                secret(cluster.auth_secret(), &names::AUTH_KEYS),
                secret(
                    names::internal_secret(&cluster.name),
                    &[names::REPLICATION_TOKEN, names::CONTROL_TOKEN],
                ),
            ]),
        }),
        ..Volume::default()
    }
}

fn claim(cluster: &Cluster, template: &ClaimTemplate) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(names::DATA_VOLUME.to_owned()),
            labels: Some(names::own_labels(&cluster.name)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: template.class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([(
                    "storage".to_owned(),
                    Quantity::from(&template.size),
                )])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// What the spec says; unless it spreads pods itself, they go as far apart as the Kubernetes cluster allows, but never not
/// at all. By affinity and not by constraints on the spread: those are not counted at all as soon as one of them names a
/// label that the machines do not have, and a cluster without zones is an ordinary one.
fn affinity(cluster: &Cluster) -> Option<Affinity> {
    let spec = &cluster.spec;
    if spec.topology_spread_constraints.is_some() {
        return spec.affinity.clone();
    }
    let apart = |(weight, key): (i32, &str)| WeightedPodAffinityTerm {
        weight,
        pod_affinity_term: PodAffinityTerm {
            topology_key: key.to_owned(),
            label_selector: Some(LabelSelector {
                match_labels: Some(pods_of(cluster)),
                ..LabelSelector::default()
            }),
            ..PodAffinityTerm::default()
        },
    };
    let terms = [
        (100, "kubernetes.io/hostname"),
        (50, "topology.kubernetes.io/zone"),
    ];
    let mut affinity = spec.affinity.clone().unwrap_or_default();
    affinity
        .pod_anti_affinity
        .get_or_insert_with(|| PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(terms.map(apart).to_vec()),
            ..PodAntiAffinity::default()
        });
    Some(affinity)
}

fn quantities(of: &BTreeMap<String, Amount>) -> Option<BTreeMap<String, Quantity>> {
    (!of.is_empty()).then(|| {
        of.iter()
            .map(|(key, value)| (key.clone(), value.into()))
            .collect()
    })
}

fn probe(path: &str, every_secs: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("ops".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(every_secs),
        timeout_seconds: Some(3),
        ..Probe::default()
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn from_field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                api_version: None,
            }),
            ..EnvVarSource::default()
        }),
    }
}

fn item(key: &str, path: &str) -> KeyToPath {
    KeyToPath {
        key: key.to_owned(),
        path: path.to_owned(),
        mode: None,
        user: None,
    }
}
