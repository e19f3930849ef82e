//! The node's configuration file.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use super::metadata;
use crate::names;
use crate::world::Cluster;

/// Where configuration and credentials are mounted.
pub const DIRECTORY: &str = "/etc/vectorizer";
/// Where the data volume is mounted.
pub const DATA_DIRECTORY: &str = "/var/lib/vectorizer";

/// The ConfigMap with the node's YAML.
pub fn config_map(cluster: &Cluster) -> ConfigMap {
    ConfigMap {
        metadata: metadata(cluster, names::config_map(&cluster.name)),
        data: Some(BTreeMap::from([(
            "config.yaml".to_owned(),
            node_config(cluster),
        )])),
        ..ConfigMap::default()
    }
}

/// The node's YAML: the same for every node. No role: the Lease and the operator's commands decide it.
pub fn node_config(cluster: &Cluster) -> String {
    let acks = cluster.spec.write_concern.as_ref().map_or(0, |w| w.acks);
    config_with(cluster, acks)
}

/// What of the configuration takes a restart. The acknowledgements do not: a node goes by what the Lease records, and by
/// its file only until something is recorded, which is once in a cluster's life.
pub(super) fn needs_restart(cluster: &Cluster) -> String {
    config_with(cluster, 0)
}

fn config_with(cluster: &Cluster, write_acks: u32) -> String {
    let replication = &cluster.spec.replication;
    // Both families, whichever the cluster has.
    let everywhere = |port: u16| format!("[::]:{port}");
    let secret = |key: &str| format!("{DIRECTORY}/secrets/{key}");
    let concern = cluster.spec.write_concern.clone().unwrap_or_default();
    let mut config = json!({
        "server": {
            "bind_address": everywhere(names::REST_PORT),
            "ops_bind_address": everywhere(names::OPS_PORT),
            "admin_key_file": secret(names::AUTH_KEYS[0]),
            "read_key_file": secret(names::AUTH_KEYS[1]),
            "control_token_file": secret(names::CONTROL_TOKEN),
        },
        "node": { "data_dir": DATA_DIRECTORY },
        "replication": {
            "enabled": true,
            "bind_address": everywhere(names::REPLICATION_PORT),
            "heartbeat_interval_secs": replication.heartbeat_interval_seconds,
            "replica_timeout_secs": replication.replica_timeout_seconds,
            "log_size": replication.log_size,
            "reconnect_interval_secs": replication.reconnect_interval_seconds,
            "write_acks": write_acks,
            "write_level": concern.level.as_str(),
            "write_timeout_secs": concern.timeout_seconds,
            "token_file": secret(names::REPLICATION_TOKEN),
        },
        "kubernetes": {
            "namespace": cluster.namespace,
            "lease": names::lease(&cluster.name),
        },
    });
    if let Some(bytes) = replication.log_max_bytes {
        config["replication"]["log_max_bytes"] = json!(bytes);
    }
    serde_yaml::to_string(&config).unwrap_or_default()
}
