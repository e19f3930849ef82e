//! Every key of the configuration: where it stands in YAML, and which environment variable and flag override it. There is
//! no variable that is read and does not stand here.

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    /// `<section>.<key>`.
    pub path: &'static str,
    /// The environment variable that overrides it.
    pub env: Option<&'static str>,
    /// The flag that overrides both, without `--`.
    pub flag: Option<&'static str>,
}

const fn key(path: &'static str, env: Option<&'static str>, flag: Option<&'static str>) -> Key {
    Key { path, env, flag }
}

/// The table. Order is that of messages and documents.
pub(super) const KEYS: &[Key] = &[
    key(
        "server.bind_address",
        Some("VECTORIZER_HTTP_ADDRESS"),
        Some("http-address"),
    ),
    key(
        "server.ops_bind_address",
        Some("VECTORIZER_OPS_ADDRESS"),
        Some("ops-address"),
    ),
    key("server.admin_key_file", None, None),
    key("server.read_key_file", None, None),
    key("server.control_token_file", None, None),
    key("server.max_body_bytes", None, None),
    key("server.max_concurrent_requests", None, None),
    key("server.request_memory_bytes", None, None),
    key("server.max_connections", None, None),
    key(
        "server.cors_allowed_origins",
        Some("VECTORIZER_CORS_ALLOWED_ORIGINS"),
        None,
    ),
    key("server.request_timeout_secs", None, None),
    key("server.shutdown_grace_secs", None, None),
    key("node.name", Some("VECTORIZER_NODE_NAME"), Some("name")),
    key(
        "node.data_dir",
        Some("VECTORIZER_DATA_DIR"),
        Some("data-dir"),
    ),
    key(
        "node.advertised_host",
        Some("VECTORIZER_ADVERTISED_HOST"),
        Some("advertised-host"),
    ),
    key("replication.enabled", None, None),
    key("replication.role", Some("REPLICATION_ROLE"), None),
    key(
        "replication.bind_address",
        Some("REPLICATION_BIND_ADDRESS"),
        Some("replication-address"),
    ),
    key(
        "replication.master_address",
        Some("REPLICATION_MASTER_ADDRESS"),
        None,
    ),
    key("replication.master_url", None, None),
    key(
        "replication.heartbeat_interval_secs",
        Some("REPLICATION_HEARTBEAT_INTERVAL"),
        None,
    ),
    key(
        "replication.replica_timeout_secs",
        Some("REPLICATION_REPLICA_TIMEOUT"),
        None,
    ),
    key("replication.log_size", Some("REPLICATION_LOG_SIZE"), None),
    key("replication.log_max_bytes", None, None),
    key(
        "replication.reconnect_interval_secs",
        Some("REPLICATION_RECONNECT_INTERVAL"),
        None,
    ),
    key(
        "replication.write_acks",
        Some("REPLICATION_WRITE_ACKS"),
        None,
    ),
    key("replication.write_level", None, None),
    key("replication.write_timeout_secs", None, None),
    key("replication.token_file", None, None),
    key("storage.durability", None, None),
    key("storage.segment_bytes", None, None),
    key("storage.memory_max_bytes", None, None),
    key("kubernetes.namespace", None, None),
    key("kubernetes.lease", None, None),
    key("kubernetes.pod", None, None),
    key("log.filter", Some("VECTORIZER_LOG"), Some("log")),
    key(
        "log.format",
        Some("VECTORIZER_LOG_FORMAT"),
        Some("log-format"),
    ),
];

/// The key at `path`.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The sections, in the order of the table.
pub(super) fn sections() -> Vec<&'static str> {
    let mut sections: Vec<_> = KEYS
        .iter()
        .filter_map(|key| Some(key.path.split_once('.')?.0))
        .collect();
    sections.dedup();
    sections
}

/// The keys of one section, without its name.
pub(super) fn keys_of(section: &str) -> Vec<&'static str> {
    KEYS.iter()
        .filter_map(|key| key.path.split_once('.'))
        .filter(|(of, _)| *of == section)
        .map(|(_, name)| name)
        .collect()
}

/// The allowed word that `found` was probably meant to be.
pub(super) fn did_you_mean<'a>(found: &str, allowed: &[&'a str]) -> Option<&'a str> {
    let limit = found.len() / 3;
    let near = allowed.iter().map(|word| (distance(found, word), *word));
    near.filter(|(distance, _)| *distance <= limit.clamp(1, 3))
        .min()
        .map(|(_, word)| word)
}

/// Insertions, deletions and replacements between two words (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
